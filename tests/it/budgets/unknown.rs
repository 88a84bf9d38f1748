//! What a call is charged when its answer never says what it cost, and when it was made more than once.

use serde_json::{Value, json};

use crate::costs::COST;
use crate::support::{
    Answer, Asked, Connection, Entry, Http, Plan, Stand, Store, converse, dollars, on_both_stores, read_at_least, rules,
};

on_both_stores! {
    an_answer_that_never_tells_is_charged_as_reserved,
    an_estimate_charges_what_was_seen,
    a_client_that_leaves_is_charged_what_the_answer_cost,
    a_client_that_leaves_before_the_answer_is_charged_too,
    a_call_that_another_deployment_serves_is_charged_once,
    a_call_that_may_have_been_served_twice_is_charged_twice,
    an_answer_that_broke_after_it_said_what_it_used_is_charged_that,
    a_second_attempt_must_be_paid_for,
}

const SONNET: &str = "bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0";

/// Claude Sonnet 4.5: $3 and $15 for a million tokens; a byte is a token at most.
fn bound(asked: &Asked, output: u64) -> u64 {
    u64::try_from(asked.body.len()).unwrap() * 3_000 + output * 15_000
}

/// An answer of 50 tokens in ten frames, and what goes wrong with it.
fn script(fault: &Value) -> Value {
    json!([{ "frames": 10, "frame_bytes": 5, "usage": { "input": 10, "output": 50 }, "fault": fault }])
}

/// What a new key is charged for one call that goes wrong.
async fn charged(stand: &Stand, asked: &Asked, fault: &Value) -> (u64, Answer) {
    stand.simulator.behave(rules(&script(fault)));
    let key = stand.key(&json!({ "max_budget": 1 })).await;
    let answer = stand.call(&key, asked).await;
    stand.assert_sound().await;
    (stand.spent(&key).await, answer)
}

fn faults() -> Vec<(&'static str, Asked, Value, &'static str)> {
    let stream = || converse("claude", "converse-stream", 100);
    let whole = || converse("claude", "converse", 100);
    vec![
        ("a stream that is cut", stream(), json!({ "kind": "cut", "after_frames": 3 }), "upstream_broke"),
        ("a frame that is cut", stream(), json!({ "kind": "cut_mid_frame", "after_frames": 3 }), "upstream_broke"),
        ("a stream that is reset", stream(), json!({ "kind": "reset", "after_frames": 3 }), "upstream_broke"),
        ("an answer that is cut", whole(), json!({ "kind": "cut", "after_frames": 1 }), "upstream_broke"),
        ("a reset before the answer", whole(), json!({ "kind": "reset" }), "upstream_broke"),
        ("a reset before the stream", stream(), json!({ "kind": "reset" }), "upstream_broke"),
        ("no answer in time", whole(), json!({ "kind": "stall_before_header" }), "upstream_timeout"),
    ]
}

async fn unreliable(store: Store, rest: &str) -> Stand {
    let mut plan = Plan::new(store).rest(rest);
    plan.entries = vec![Entry { name: "claude", model: SONNET, params: &[("timeout", "2")], info: &[] }];
    plan.start().await
}

async fn an_answer_that_never_tells_is_charged_as_reserved(store: Store) {
    let stand = unreliable(store, "").await;
    let mut in_all = 0;
    for (what, asked, fault, reason) in faults() {
        let (charged, answer) = charged(&stand, &asked, &fault).await;
        in_all += charged;
        assert_eq!(charged, bound(&asked, 100), "{what}: {answer:?}");
        let record = stand.proxy().record(answer.call_id()).await;
        assert_eq!(record["cost_nano_usd"], json!(charged), "{what}: {record}");
        assert_eq!(record["reason"], reason, "{what}: {record}");
        assert_eq!(stand.sum(COST, &[]).await, in_all, "{what}: the metric");
    }
    // What was refused is known to cost nothing.
    let throttled = json!({ "kind": "throttle", "retry_after_s": null });
    let (charged, answer) = charged(&stand, &converse("claude", "converse", 100), &throttled).await;
    assert_eq!((answer.status, charged), (429, 0));
}

async fn an_estimate_charges_what_was_seen(store: Store) {
    let stand = unreliable(store, "general_settings:\n  unknown_usage: estimate\n").await;
    for (what, asked, fault, _) in faults() {
        let (charged, answer) = charged(&stand, &asked, &fault).await;
        let (least, most) = (bound(&asked, 0), bound(&asked, 100));
        println!("{what}: {charged} of {most}");
        assert!(charged >= least && charged <= most, "{what}: {charged} of {least} to {most}; {answer:?}");
        match what {
            // Half of the document has more bytes than the answer may have tokens.
            "an answer that is cut" => assert_eq!(charged, most),
            "a stream that is cut" | "a frame that is cut" | "a stream that is reset" => {
                assert!(charged > least && charged < most, "{what}: some output was seen: {charged}");
            }
            _ => assert_eq!(charged, least, "{what}: no output was seen"),
        }
    }
}

async fn a_client_that_leaves_is_charged_what_the_answer_cost(store: Store) {
    let stand = Plan::new(store).start().await;
    let script =
        json!([{ "frames": 30, "frame_bytes": 5, "frame_rate_hz": 50, "usage": { "input": 10, "output": 50 } }]);
    stand.simulator.behave(rules(&script));
    let key = stand.key(&json!({ "max_budget": 1 })).await;
    let asked = converse("claude", "converse-stream", 100).by(&key.secret);
    let mut connection = Connection::open(stand.proxy().address, Http::One).await;
    let response = connection.begin(&asked).await;
    let call_id = response.headers()["x-dheera-ai-call-id"].to_str().unwrap().to_owned();
    let mut body = response.into_body();
    read_at_least(&mut body, 100).await;
    drop((body, connection));
    let record = stand.proxy().record(&call_id).await;
    assert_eq!((&record["fault"], &record["reason"]), (&json!("disconnect"), &json!("client_gone")), "{record}");
    assert_eq!(record["usage_certainty"], "exact", "{record}");
    stand.assert_sound().await;
    // 10 x 3000 + 50 x 15000.
    stand.assert_spent(&key, 780_000).await;
    assert_eq!(stand.simulator.billed().total_nano_usd, 780_000);
}

async fn two_deployments(store: Store) -> Stand {
    let mut plan = Plan::new(store);
    plan.entries = vec![Entry::new("claude", SONNET), Entry::new("claude", SONNET)];
    plan.start().await
}

/// InvokeModel tells its usage in the header, so what broke behind that is known, although another deployment serves.
async fn an_answer_that_broke_after_it_said_what_it_used_is_charged_that(store: Store) {
    let stand = two_deployments(store).await;
    let body = json!({ "anthropic_version": "bedrock-2023-05-31", "max_tokens": 100,
        "messages": [{ "role": "user", "content": "Tell me a story." }] });
    let rule = json!([
        { "match": { "times": 1 }, "fault": { "kind": "cut", "after_frames": 1 }, "usage": { "input": 10, "output": 50 } },
        { "usage": { "input": 10, "output": 50 } },
    ]);
    for limits in [json!({ "max_budget": 1 }), json!({})] {
        stand.simulator.behave(rules(&rule));
        stand.simulator.clear_billed();
        let key = stand.key(&limits).await;
        let answer = stand.call(&key, &Asked::post("/bedrock/model/claude/invoke", body.to_string())).await;
        assert_eq!((answer.status, answer.header("x-dheera-ai-attempts")), (200, Some("2")), "{answer:?}");
        stand.assert_sound().await;
        let billed = stand.simulator.billed().total_nano_usd;
        assert_eq!(billed, 2 * 780_000);
        stand.assert_spent(&key, billed).await;
        let record = stand.proxy().record(answer.call_id()).await;
        assert_eq!(
            (&record["cost_nano_usd"], &record["usage_certainty"]),
            (&json!(billed), &json!("exact")),
            "{record}"
        );
        assert_eq!(record.get("reason"), None, "{record}");
    }
}

async fn a_call_that_another_deployment_serves_is_charged_once(store: Store) {
    let stand = two_deployments(store).await;
    for fault in [
        json!({ "kind": "throttle", "retry_after_s": null }),
        json!({ "kind": "error", "status": 503, "error_type": "ServiceUnavailableException" }),
    ] {
        let rule = json!([
            { "match": { "times": 1 }, "fault": fault },
            { "usage": { "input": 10, "output": 50 } },
        ]);
        stand.simulator.behave(rules(&rule));
        let key = stand.key(&json!({ "max_budget": 1 })).await;
        let answer = stand.call(&key, &converse("claude", "converse", 100)).await;
        assert_eq!((answer.status, answer.header("x-dheera-ai-attempts")), (200, Some("2")), "{answer:?}");
        stand.assert_sound().await;
        stand.assert_spent(&key, 780_000).await;
    }
    assert_eq!(stand.simulator.billed().total_nano_usd, 2 * 780_000);
}

async fn a_call_that_may_have_been_served_twice_is_charged_twice(store: Store) {
    let stand = two_deployments(store).await;
    let rule = json!([
        { "match": { "times": 1 }, "fault": { "kind": "reset" }, "bill": "arrived" },
        { "usage": { "input": 10, "output": 50 } },
    ]);
    stand.simulator.behave(rules(&rule));
    let key = stand.key(&json!({ "max_budget": 1 })).await;
    let asked = converse("claude", "converse", 100);
    let answer = stand.call(&key, &asked).await;
    assert_eq!((answer.status, answer.header("x-dheera-ai-attempts")), (200, Some("2")), "{answer:?}");
    stand.assert_sound().await;
    let spent = stand.spent(&key).await;
    assert_eq!(spent, bound(&asked, 100) + 780_000, "the first attempt as reserved, the second as it was");
    // AWS billed both.
    assert_eq!(stand.simulator.billed().count, 2);
    assert!(stand.simulator.billed().total_nano_usd <= spent);
    let record = stand.proxy().record(answer.call_id()).await;
    assert_eq!(record["cost_nano_usd"], json!(spent), "{record}");
    let by_deployment = stand.proxy().metrics().await.sums_by(COST, "deployment");
    assert_eq!(by_deployment.values().sum::<u64>(), spent, "{by_deployment:?}");
    assert_eq!(by_deployment.len(), 2, "each attempt where it was: {by_deployment:?}");
}

async fn a_second_attempt_must_be_paid_for(store: Store) {
    let stand = two_deployments(store).await;
    stand.simulator.behave(rules(&json!([{ "match": { "times": 1 }, "fault": { "kind": "reset" } }])));
    let asked = converse("claude", "converse", 100);
    let bound = bound(&asked, 100);
    let key = stand.key(&json!({ "max_budget": dollars(bound * 3 / 2) })).await;
    let refused = stand.call(&key, &asked).await;
    refused.assert_error(400, "ServiceQuotaExceededException");
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    stand.assert_sound().await;
    stand.assert_spent(&key, bound).await;
    let record = stand.proxy().record(refused.call_id()).await;
    assert_eq!((&record["cost_nano_usd"], &record["reason"]), (&json!(bound), &json!("over_budget")), "{record}");
    assert_eq!(stand.simulator.counters().requests, 1);
}

/// Over HTTP/1.1 the connection closes, over HTTP/2 the stream is reset.
async fn a_client_that_leaves_before_the_answer_is_charged_too(store: Store) {
    let stand = Plan::new(store).start().await;
    for (number, (http, operation)) in [
        (Http::One, "converse"),
        (Http::One, "converse-stream"),
        (Http::Two, "converse"),
        (Http::Two, "converse-stream"),
    ]
    .into_iter()
    .enumerate()
    {
        stand.simulator.behave(rules(&json!([{ "delay_ms": 500, "usage": { "input": 10, "output": 50 } }])));
        let key = stand.key(&json!({ "max_budget": 1 })).await;
        let asked = converse("claude", operation, 100).by(&key.secret);
        let mut connection = Connection::open(stand.proxy().address, http).await;
        let call = tokio::spawn(async move { connection.try_begin(&asked).await.is_ok() });
        stand.forwarded(u64::try_from(number).unwrap() + 1).await;
        call.abort();
        let record = stand.proxy().records_once(number + 1).await.pop().unwrap();
        assert_eq!(record["reason"], "client_gone", "{http:?} {operation}: {record}");
        stand.assert_sound().await;
        let spent = stand.spent(&key).await;
        println!("{http:?} {operation}: {spent}, {} billed", stand.simulator.billed().total_nano_usd);
        assert_eq!(record["cost_nano_usd"], json!(spent), "{record}");
        assert_eq!(spent, 780_000, "{http:?} {operation}: {record}");
    }
    assert_eq!(stand.simulator.billed().total_nano_usd, 4 * 780_000);
}

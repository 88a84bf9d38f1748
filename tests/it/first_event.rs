//! Streams that fail before they say anything: another deployment is asked, and the client sees one clean stream. After
//! the first content nothing is ever repeated, and where nobody else can be asked the bytes are the upstream's.

use serde_json::{Value, json};

use crate::support::{
    Answer, Asked, CLAUDE_STREAM, Connection, Entry, Http, Plan, Rig, Stand, Store, converse, direct, frame_header,
    frames, rules, sha256,
};

const SONNET: &str = "bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0";
const WEST: &[(&str, &str)] = &[("aws_region_name", "us-west-2")];
const EAST: &[(&str, &str)] = &[("aws_region_name", "us-east-1")];
const PARIS: &[(&str, &str)] = &[("aws_region_name", "eu-west-3")];

fn deployments(regions: &[&'static [(&'static str, &'static str)]]) -> Vec<Entry<'static>> {
    regions.iter().map(|params| Entry { params, ..Entry::new("claude", SONNET) }).collect()
}

async fn two(rest: &str) -> Rig {
    Rig::with(&deployments(&[WEST, EAST]), rest).await
}

fn converse_stream() -> Asked {
    Asked::converse(CLAUDE_STREAM)
}

fn invoke_stream() -> Asked {
    let body = json!({ "anthropic_version": "bedrock-2023-05-31", "max_tokens": 50,
        "messages": [{ "role": "user", "content": "Tell me a story" }] });
    Asked::post("/bedrock/model/claude/invoke-with-response-stream", body.to_string())
}

/// The same call of the simulator itself.
async fn plain(rig: &Rig, asked: &Asked) -> Answer {
    let path = asked.path.replace("/bedrock/model/claude/", "/model/anthropic.claude-sonnet-4-5-20250929-v1%3A0/");
    direct(&rig.simulator, &Asked { path, ..asked.clone() }, "bedrock").await
}

/// A fault of whichever deployment is asked first.
fn first_fails(fault: &Value) -> Value {
    json!([{ "match": { "times": 1 }, "fault": fault }, { "frames": 6 }])
}

fn exception(name: &str, after: usize) -> Value {
    json!({ "kind": "exception_frame", "after_frames": after, "name": name, "message": "of AWS" })
}

/// Every way to fail before content, and the setback it is.
fn failures() -> Vec<(Value, &'static str)> {
    let mut failures = Vec::new();
    for (name, setback) in [
        ("throttlingException", "throttled"),
        ("modelNotReadyException", "throttled"),
        ("internalServerException", "exception"),
        ("serviceUnavailableException", "exception"),
        ("modelStreamErrorException", "exception"),
        ("modelTimeoutException", "model_timeout"),
    ] {
        failures.extend([0, 1].map(|after| (exception(name, after), setback)));
    }
    let error = json!({ "kind": "error_frame", "after_frames": 0, "code": "InternalFailure", "message": "no" });
    failures.push((error, "exception"));
    for after in [0, 1] {
        failures.push((json!({ "kind": "reset", "after_frames": after }), "broke"));
        failures.push((json!({ "kind": "stall_mid_stream", "after_frames": after }), "timeout"));
        failures.push((json!({ "kind": "bad_crc", "frame": after }), "broke"));
        for clean in [false, true] {
            failures.push((json!({ "kind": "cut", "after_frames": after, "clean": clean }), "broke"));
            failures.push((json!({ "kind": "cut_mid_frame", "after_frames": after, "clean": clean }), "broke"));
        }
    }
    failures
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_fails_before_its_content_is_replaced_by_another() {
    let rig = two("router_settings:\n  stream_timeout: 2\n").await;
    for asked in [converse_stream(), invoke_stream()] {
        rig.simulator.behave(rules(&json!([{ "frames": 6 }])));
        let expected = plain(&rig, &asked).await;
        for (fault, setback) in failures() {
            for http in [Http::One, Http::Two] {
                rig.simulator.clear_requests();
                rig.simulator.behave(rules(&first_fails(&fault)));
                let answer = Connection::open(rig.proxy.address, http).await.call(&asked).await;
                assert_eq!((answer.status, &answer.broke), (200, &None), "{fault}: {answer:?}");
                assert_eq!(sha256(&answer.body), sha256(&expected.body), "{fault}");
                assert_eq!(answer.header("x-dheera-ai-attempts"), Some("2"), "{fault}");
                let regions: Vec<_> = rig.simulator.requests().into_iter().map(|request| request.auth.region).collect();
                assert_eq!(regions.len(), 2, "{fault}");
                assert_ne!(regions[0], regions[1], "{fault}");
                assert_eq!(answer.header("x-dheera-ai-region"), Some(&*regions[1]), "{fault}");
                let record = rig.proxy.record(answer.call_id()).await;
                let attempts = record["attempts"].as_array().unwrap();
                assert_eq!((attempts.len(), &attempts[0]["setback"]), (2, &json!(setback)), "{fault}: {record}");
                assert_eq!((&attempts[0]["status"], &attempts[1]["status"]), (&json!(200), &json!(200)), "{record}");
                assert_eq!((&record["fault"], &record["usage_certainty"]), (&Value::Null, &json!("exact")), "{record}");
            }
        }
    }
}

/// Server-sent events have no frames, but they too have a first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_sent_events_that_break_before_their_content_are_replaced() {
    let rig = two("router_settings:\n  stream_timeout: 2\n").await;
    let body = json!({ "model": "claude", "max_tokens": 50, "stream": true, "anthropic_version": "bedrock-2023-05-31",
        "messages": [{ "role": "user", "content": "Tell me a story" }] });
    let asked = Asked::post("/bedrock/anthropic/v1/messages", body.to_string());
    rig.simulator.behave(rules(&json!([{ "frames": 6 }])));
    let expected = rig.proxy.call(&asked).await;
    assert!(expected.status == 200 && expected.text().starts_with("event: message_start"), "{expected:?}");
    for fault in [
        json!({ "kind": "cut", "after_frames": 1 }),
        json!({ "kind": "cut", "after_frames": 1, "clean": true }),
        json!({ "kind": "stall_mid_stream", "after_frames": 1 }),
    ] {
        rig.simulator.behave(rules(&first_fails(&fault)));
        let answer = rig.proxy.call(&asked).await;
        assert_eq!((answer.status, answer.header("x-dheera-ai-attempts")), (200, Some("2")), "{fault}: {answer:?}");
        assert_eq!((&answer.broke, sha256(&answer.body)), (&None, sha256(&expected.body)), "{fault}");
    }
}

async fn stand() -> Stand {
    let mut plan = Plan::new(Store::Embedded).rest("router_settings:\n  stream_timeout: 2\n");
    plan.entries = deployments(&[WEST, EAST]);
    plan.start().await
}

/// What one such call costs, by the simulator's usage: 10 tokens for $3 and 50 for $15 a million.
const COST: u64 = 10 * 3_000 + 50 * 15_000;

/// An exception in place of the stream is no more billed than an error status.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exception_and_nothing_else_costs_nothing() {
    let stand = stand().await;
    for name in ["throttlingException", "modelStreamErrorException"] {
        let rule = json!([{ "match": { "times": 1 }, "fault": exception(name, 0) },
            { "usage": { "input": 10, "output": 50 } }]);
        stand.simulator.behave(rules(&rule));
        stand.simulator.clear_billed();
        let key = stand.key(&json!({ "max_budget": 1 })).await;
        let answer = stand.call(&key, &converse("claude", "converse-stream", 100)).await;
        assert_eq!((answer.status, answer.header("x-dheera-ai-attempts")), (200, Some("2")), "{answer:?}");
        stand.assert_sound().await;
        stand.assert_spent(&key, COST).await;
        assert_eq!(stand.simulator.billed().total_nano_usd, COST);
    }
    // Also where it is all that the client gets.
    stand.simulator.behave(rules(&json!([{ "fault": exception("throttlingException", 0) }])));
    stand.simulator.clear_billed();
    let key = stand.key(&json!({ "max_budget": 1 })).await;
    let answer = stand.call(&key, &converse("claude", "converse-stream", 100)).await;
    assert_eq!(answer.header("x-dheera-ai-attempts"), Some("2"), "{answer:?}");
    stand.assert_sound().await;
    stand.assert_spent(&key, 0).await;
    assert_eq!(stand.simulator.billed().total_nano_usd, 0);
}

/// AWS may bill what had begun, so it is charged as reserved; the one that served is charged what it cost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_had_begun_is_charged_beside_the_one_that_served() {
    let stand = stand().await;
    for fault in [
        exception("modelStreamErrorException", 1),
        json!({ "kind": "stall_mid_stream", "after_frames": 1 }),
        json!({ "kind": "stall_before_header" }),
        json!({ "kind": "cut", "after_frames": 1 }),
        json!({ "kind": "cut", "after_frames": 0, "clean": true }),
        json!({ "kind": "bad_crc", "frame": 0 }),
    ] {
        let rule = json!([{ "match": { "times": 1 }, "fault": fault }, { "usage": { "input": 10, "output": 50 } }]);
        stand.simulator.behave(rules(&rule));
        stand.simulator.clear_billed();
        let key = stand.key(&json!({ "max_budget": 1 })).await;
        let asked = converse("claude", "converse-stream", 100);
        let answer = stand.call(&key, &asked).await;
        assert_eq!((answer.status, answer.header("x-dheera-ai-attempts")), (200, Some("2")), "{fault}: {answer:?}");
        stand.assert_sound().await;
        let bound = u64::try_from(asked.body.len()).unwrap() * 3_000 + 100 * 15_000;
        stand.assert_spent(&key, bound + COST).await;
        assert!(stand.simulator.billed().total_nano_usd <= bound + COST, "{fault}");
        let record = stand.proxy().record(answer.call_id()).await;
        assert_eq!(record["cost_nano_usd"], json!(bound + COST), "{fault}: {record}");
    }
}

/// What is the client's own mistake another deployment would refuse too, and content is never repeated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_exceptions_and_later_ones_pass_unchanged() {
    let rig = two("").await;
    for asked in [converse_stream(), invoke_stream()] {
        for fault in [
            exception("validationException", 0),
            exception("validationException", 1),
            exception("accessDeniedException", 0),
            exception("throttlingException", 5),
        ] {
            rig.simulator.behave(rules(&json!([{ "frames": 6, "fault": fault }])));
            let expected = plain(&rig, &asked).await;
            let before = rig.forwarded();
            let answer = rig.proxy.call(&asked).await;
            assert_eq!((answer.status, sha256(&answer.body)), (200, sha256(&expected.body)), "{fault}");
            assert_eq!(answer.header("x-dheera-ai-attempts"), Some("1"), "{fault}");
            assert_eq!(rig.forwarded() - before, 1, "{fault}");
        }
        for fault in [
            json!({ "kind": "cut", "after_frames": 5 }),
            json!({ "kind": "reset", "after_frames": 5 }),
            json!({ "kind": "bad_crc", "frame": 5 }),
        ] {
            let kind = fault.to_string();
            rig.simulator.behave(rules(&json!([{ "frames": 6, "fault": fault }])));
            let before = rig.forwarded();
            let answer = rig.proxy.call(&asked).await;
            let (frames, rest) = frames(&answer.body);
            assert_eq!((answer.status, frames.len(), rest), (200, 6, 0), "{kind}: {answer:?}");
            assert_eq!(frame_header(&frames[5], ":exception-type"), Some("serviceUnavailableException"));
            assert_eq!(rig.forwarded() - before, 1, "{kind}");
        }
    }
    let metrics = rig.proxy.metrics().await.sums_by("dheera_ai_broken_answers_total", "cause");
    assert!(["exception", "broke", "damaged"].iter().all(|cause| metrics[*cause] > 0), "{metrics:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_every_deployment_fails_the_last_one_is_passed_on_unchanged() {
    let rig = Rig::with(&deployments(&[WEST, EAST, PARIS]), "").await;
    for fault in [exception("throttlingException", 0), exception("internalServerException", 1)] {
        rig.simulator.behave(rules(&json!([{ "frames": 6, "fault": fault }])));
        let expected = plain(&rig, &converse_stream()).await;
        let before = rig.forwarded();
        let answer = rig.proxy.call(&converse_stream()).await;
        assert_eq!((answer.status, sha256(&answer.body)), (200, sha256(&expected.body)), "{fault}");
        assert_eq!((answer.header("x-dheera-ai-attempts"), rig.forwarded() - before), (Some("3"), 3), "{fault}");
        let record = rig.proxy.record(answer.call_id()).await;
        assert_eq!((&record["fault"], &record["reason"]), (&json!("upstream"), &json!("exception_frame")), "{record}");
    }
}

/// The openings wait for the content, in their order, and nothing is asked twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_whose_content_comes_late_arrives_byte_for_byte() {
    let rig = two("").await;
    for asked in [converse_stream(), invoke_stream()] {
        rig.simulator.behave(rules(&json!([{ "frames": 6 }])));
        let expected = plain(&rig, &asked).await;
        for fault in [
            json!({ "kind": "stall_mid_stream", "after_frames": 0, "ms": 200 }),
            json!({ "kind": "stall_mid_stream", "after_frames": 1, "ms": 200 }),
            json!({ "kind": "stall_mid_stream", "after_frames": 1, "bytes": 30, "ms": 200 }),
            json!({ "kind": "slow_body", "bytes": 53, "interval_ms": 1 }),
        ] {
            rig.simulator.behave(rules(&json!([{ "frames": 6, "fault": fault }])));
            for http in [Http::One, Http::Two] {
                let before = rig.forwarded();
                let answer = Connection::open(rig.proxy.address, http).await.call(&asked).await;
                assert_eq!((answer.status, &answer.broke), (200, &None), "{fault}: {answer:?}");
                assert_eq!(sha256(&answer.body), sha256(&expected.body), "{fault} over {http:?}");
                assert_eq!(rig.forwarded() - before, 1, "{fault}");
            }
        }
    }
}

/// Content that does not come in time is as good as none, also when other bytes come all the while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_only_trickles_has_no_content_in_time() {
    let rig = two("router_settings:\n  stream_timeout: 2\n").await;
    rig.simulator.behave(rules(&json!([{ "fault": { "kind": "slow_body", "bytes": 1, "interval_ms": 50 } }])));
    let before = rig.forwarded();
    let answer = rig.proxy.call(&converse_stream()).await;
    assert_eq!(rig.forwarded() - before, 2);
    // Nobody is left to be asked, so the second one's header had gone out.
    let (frames, rest) = frames(&answer.body);
    assert_eq!((answer.status, &answer.broke, rest), (200, &None, 0), "{answer:?}");
    assert_eq!(frame_header(frames.last().unwrap(), ":exception-type"), Some("serviceUnavailableException"));
    let record = rig.proxy.record(answer.call_id()).await;
    assert_eq!(record["attempts"][0]["setback"], "timeout", "{record}");
}

/// However lively, an answer that does not end in time is ended, and nobody else is asked for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_not_complete_in_time_is_ended() {
    let rig = two("router_settings:\n  total_timeout: 1\n  stream_total_timeout: 1\n").await;
    for http in [Http::One, Http::Two] {
        for (asked, fault) in [
            (Asked::converse(crate::support::CLAUDE), json!({ "kind": "slow_body", "bytes": 1, "interval_ms": 5 })),
            (Asked::converse(crate::support::CLAUDE), json!({ "kind": "stall_before_header" })),
            (Asked::converse(crate::support::CLAUDE), json!({ "kind": "stall_mid_stream", "after_frames": 1 })),
            (converse_stream(), json!({ "kind": "stall_before_header" })),
            (converse_stream(), json!({ "kind": "stall_mid_stream", "after_frames": 1 })),
        ] {
            rig.simulator.behave(rules(&json!([{ "fault": fault }])));
            let before = rig.forwarded();
            let answer = Connection::open(rig.proxy.address, http).await.call(&asked).await;
            answer.assert_error(408, "ModelTimeoutException");
            assert_eq!(answer.header("x-should-retry"), Some("false"), "{fault}");
            assert_eq!(rig.forwarded() - before, 1, "{fault}");
            let record = rig.proxy.record(answer.call_id()).await;
            assert_eq!(record["reason"], "total_timeout", "{fault}: {record}");
        }
        for script in [
            json!([{ "frames": 2_000, "frame_rate_hz": 100 }]),
            json!([{ "frames": 20, "fault": { "kind": "stall_mid_stream", "after_frames": 9 } }]),
        ] {
            rig.simulator.behave(rules(&script));
            let before = rig.forwarded();
            let answer = Connection::open(rig.proxy.address, http).await.call(&converse_stream()).await;
            let (frames, rest) = frames(&answer.body);
            assert_eq!((answer.status, &answer.broke, rest), (200, &None, 0), "{answer:?}");
            assert!(frames.len() > 5, "{} frames", frames.len());
            assert_eq!(frame_header(frames.last().unwrap(), ":exception-type"), Some("serviceUnavailableException"));
            assert_eq!(rig.forwarded() - before, 1);
        }
    }
}

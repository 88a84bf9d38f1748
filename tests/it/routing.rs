//! Which deployment is next: strategies, limits and cache affinity, and which are left alone for a while.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Answer, Asked, CLAUDE, CLAUDE_STREAM, Entry, Http, Rig, call, config, eventually, rules};

const MODEL: &str = "bedrock/us.amazon.nova-pro-v1:0";
const WEST: &[(&str, &str)] = &[("aws_region_name", "us-west-2")];
const EAST: &[(&str, &str)] = &[("aws_region_name", "us-east-1")];
const PARIS: &[(&str, &str)] = &[("aws_region_name", "eu-west-3")];

const fn with(params: &'static [(&'static str, &'static str)]) -> Entry<'static> {
    Entry { name: "claude", model: MODEL, params, info: &[] }
}

async fn two(router_settings: &str) -> Rig {
    Rig::with(&[with(WEST), with(EAST)], &format!("router_settings:\n{router_settings}")).await
}

fn region(answer: &Answer) -> &str {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.header("x-dheera-ai-region").unwrap()
}

/// How often the simulator was asked in a region.
fn asked_in(rig: &Rig, region: &str) -> usize {
    rig.simulator.requests().iter().filter(|request| request.auth.region == region).count()
}

/// What `/health` says of the deployments, or of the endpoints.
async fn health(rig: &Rig, what: &str) -> Vec<Value> {
    let answer = rig.proxy.call(&Asked::get("/health")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()[what].as_array().unwrap().clone()
}

fn fault_in_west(fault: &Value) -> bedrock_sim::Behaviour {
    rules(&json!([{ "match": { "region": "us-west-2" }, "fault": fault }]))
}

fn unavailable() -> Value {
    json!({ "kind": "error", "status": 503, "error_type": "ServiceUnavailableException" })
}

/// Calls until the first deployment cools; no client sees an error meanwhile.
async fn until_west_cools(rig: &Rig, asked: &Asked) {
    while health(rig, "deployments").await[0]["state"] != "cooling" {
        assert_eq!(region(&rig.proxy.call(asked).await), "us-east-1");
    }
}

/// Calls, each from a client of its own, until one hangs in the first deployment.
async fn until_one_hangs_in_west(rig: &Rig, clients: &mut JoinSet<Answer>) {
    let address = rig.proxy.address;
    while health(rig, "deployments").await[0]["requests_in_flight"] == 0 {
        let before = rig.forwarded();
        clients.spawn(async move { call(address, Http::One, &Asked::converse(CLAUDE)).await });
        eventually("the request at the simulator", || (rig.forwarded() > before).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_that_fails_is_left_alone_and_told_of() {
    let rig = two("  allowed_fails: 2\n  cooldown_time: 3600\n  cooldown_time_max: 3600\n").await;
    rig.simulator.behave(fault_in_west(&unavailable()));
    until_west_cools(&rig, &Asked::converse(CLAUDE)).await;
    assert_eq!(asked_in(&rig, "us-west-2"), 3, "one more than allowed");
    for _ in 0..20 {
        let answer = rig.proxy.call(&Asked::converse(CLAUDE)).await;
        assert_eq!((region(&answer), answer.header("x-dheera-ai-attempts")), ("us-east-1", Some("1")));
    }
    assert_eq!(asked_in(&rig, "us-west-2"), 3);
    let [west, east] = health(&rig, "deployments").await.try_into().unwrap();
    assert_eq!((&west["deployment"], &west["state"]), (&json!("claude-1"), &json!("cooling")));
    assert!(west["cooldown_left_s"].as_f64().is_some_and(|left| left > 0.0), "{west}");
    assert_eq!((&west["last_error"]["reason"], &west["last_error"]["status"]), (&json!("server_error"), &json!(503)));
    assert_eq!(
        (&east["state"], &east["cooldown_left_s"], &east["last_error"]),
        (&json!("healthy"), &Value::Null, &Value::Null)
    );
    assert!(east["latency_ms"]["whole"].as_f64().is_some_and(|latency| latency > 0.0), "{east}");
    assert_eq!(health(&rig, "endpoints").await[0]["state"], "healthy", "the server answers, if only with errors");
    let metrics = rig.proxy.metrics().await;
    assert_eq!(metrics.sum("dheera_ai_deployment_state", &[("deployment", "claude-1")]), 2);
    assert_eq!(metrics.sum("dheera_ai_deployment_state", &[("deployment", "claude-2")]), 0);
    let cooldowns = [("deployment", "claude-1"), ("cause", "failures")];
    assert_eq!(metrics.sum("dheera_ai_deployment_cooldowns_total", &cooldowns), 1);
}

/// What is known of a deployment is not forgotten when something else of the configuration changes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cooldown_goes_on_over_a_reload() {
    let rules_of = |allowed: u32| {
        format!("router_settings:\n  allowed_fails: {allowed}\n  cooldown_time: 3600\n  cooldown_time_max: 3600\n")
    };
    let rig = Rig::with(&[with(WEST), with(EAST)], &rules_of(0)).await;
    rig.simulator.behave(fault_in_west(&unavailable()));
    until_west_cools(&rig, &Asked::converse(CLAUDE)).await;
    rig.proxy.configure(&config(&[with(WEST), with(EAST)], &rules_of(5)));
    let reloaded = rig.proxy.call(&Asked::post("/config/reload", "")).await;
    assert_eq!((reloaded.status, &reloaded.json()["result"]), (200, &json!("applied")));
    let [west, east] = health(&rig, "deployments").await.try_into().unwrap();
    assert_eq!((&west["state"], &west["last_error"]["status"]), (&json!("cooling"), &json!(503)));
    assert_eq!(east["state"], "healthy");
    // Another id is another deployment.
    let entries = [with(EAST), Entry { info: &[("id", "new")], ..with(WEST) }];
    rig.proxy.configure(&config(&entries, &rules_of(5)));
    assert_eq!(rig.proxy.call(&Asked::post("/config/reload", "")).await.status, 200);
    let states: Vec<Value> = health(&rig, "deployments").await.into_iter().map(|one| one["state"].clone()).collect();
    assert_eq!(states, ["healthy", "healthy"]);
    let known = rig.proxy.metrics().await.names("dheera_ai_deployment_state", "deployment");
    assert_eq!(known, ["claude-1", "new"].map(str::to_owned).into(), "no gauge of what is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_returns_when_it_works_again() {
    let rig = two("  allowed_fails: 0\n  cooldown_time: 0.1\n  cooldown_time_max: 0.2\n").await;
    rig.simulator.behave(fault_in_west(&unavailable()));
    while rig.proxy.metrics().await.sum("dheera_ai_deployment_cooldowns_total", &[]) < 3 {
        assert_eq!(region(&rig.proxy.call(&Asked::converse(CLAUDE)).await), "us-east-1");
    }
    rig.simulator.behave(rules(&json!([])));
    while region(&rig.proxy.call(&Asked::converse(CLAUDE)).await) != "us-west-2" {}
    assert_eq!(health(&rig, "deployments").await[0]["state"], "healthy");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttled_deployment_is_left_alone_for_as_long_as_it_asks() {
    for asked in [Asked::converse(CLAUDE), Asked::converse(CLAUDE_STREAM)] {
        let rig = two("  cooldown_time_max: 3600\n").await;
        rig.simulator.behave(fault_in_west(&json!({ "kind": "throttle", "retry_after_s": 3000 })));
        until_west_cools(&rig, &asked).await;
        let west = &health(&rig, "deployments").await[0];
        let left = west["cooldown_left_s"].as_f64().unwrap();
        assert!((2_900.0..=3_000.0).contains(&left), "{west}");
        assert_eq!((asked_in(&rig, "us-west-2"), &west["last_error"]["reason"]), (1, &json!("throttled")));
        let cause = [("deployment", "claude-1"), ("cause", "throttle")];
        assert_eq!(rig.proxy.metrics().await.sum("dheera_ai_deployment_cooldowns_total", &cause), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_request_at_a_time_tries_a_deployment_after_its_cooldown() {
    let rig = two("  cooldown_time_max: 3600\n  timeout: 3600\n").await;
    // "Now" means that it may be tried at once, by one.
    rig.simulator.behave(fault_in_west(&json!({ "kind": "throttle", "retry_after_s": 0 })));
    while asked_in(&rig, "us-west-2") == 0 {
        rig.proxy.assert_serves(CLAUDE).await;
    }
    rig.simulator.behave(fault_in_west(&json!({ "kind": "stall_before_header" })));
    let mut clients = JoinSet::new();
    until_one_hangs_in_west(&rig, &mut clients).await;
    for _ in 0..10 {
        assert_eq!(region(&rig.proxy.call(&Asked::converse(CLAUDE)).await), "us-east-1");
    }
    let west = &health(&rig, "deployments").await[0];
    assert_eq!((&west["state"], &west["requests_in_flight"]), (&json!("half_open"), &json!(1)));
    clients.abort_all();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cooldown_is_no_reason_to_refuse_a_request() {
    let rig = Rig::with(&[with(WEST)], "router_settings:\n  cooldown_time_max: 3600\n").await;
    rig.simulator.behave(fault_in_west(&json!({ "kind": "throttle", "retry_after_s": 3000 })));
    for _ in 0..3 {
        let answer = rig.proxy.call(&Asked::converse(CLAUDE)).await;
        answer.assert_error(429, "ThrottlingException");
        assert_eq!(answer.header("retry-after"), Some("3000"), "AWS's own answer");
    }
    assert_eq!(asked_in(&rig, "us-west-2"), 3);
    rig.simulator.behave(rules(&json!([])));
    rig.proxy.assert_serves(CLAUDE).await;
    assert_eq!(health(&rig, "deployments").await[0]["state"], "healthy");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deployments_at_their_limits_are_passed_over_and_all_of_them_together_throttle() {
    const LIMITED: &[(&str, &str)] = &[("aws_region_name", "us-west-2"), ("rpm", "2")];
    const ALSO: &[(&str, &str)] = &[("aws_region_name", "us-east-1"), ("rpm", "3")];
    for strategy in ["simple-shuffle", "least-busy", "usage-based-routing"] {
        let rest = format!("router_settings:\n  routing_strategy: {strategy}\n");
        let rig = Rig::with(&[with(LIMITED), with(ALSO)], &rest).await;
        for _ in 0..5 {
            rig.proxy.assert_serves(CLAUDE).await;
        }
        assert_eq!((asked_in(&rig, "us-west-2"), asked_in(&rig, "us-east-1")), (2, 3), "{strategy}");
        let answer = rig.proxy.call(&Asked::converse(CLAUDE)).await;
        answer.assert_error(429, "ThrottlingException");
        let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&seconds) && answer.header("x-amz-retry-after").is_some(), "{answer:?}");
        assert_eq!(rig.proxy.record(answer.call_id()).await["reason"], "deployments_full");
        assert_eq!(rig.forwarded(), 5);
        let west = &health(&rig, "deployments").await[0];
        assert_eq!(west["limits"]["rpm"], json!({ "used": 2, "limit": 2 }));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_at_a_time_are_limited_and_a_client_that_leaves_makes_room() {
    const ONE: &[(&str, &str)] = &[("aws_region_name", "us-west-2"), ("max_parallel_requests", "1")];
    let rig = Rig::with(&[with(ONE)], "general_settings:\n  drain_timeout: 0\n").await;
    rig.simulator.behave(rules(&json!([{ "match": { "times": 1 }, "fault": { "kind": "stall_before_header" } }])));
    let address = rig.proxy.address;
    let first = tokio::spawn(async move { call(address, Http::One, &Asked::converse(CLAUDE)).await });
    eventually("the first request at the simulator", || (rig.forwarded() == 1).then_some(())).await;
    rig.proxy.call(&Asked::converse(CLAUDE)).await.assert_error(429, "ThrottlingException");
    first.abort();
    while rig.proxy.call(&Asked::converse(CLAUDE)).await.status != 200 {}
    let left = health(&rig, "deployments").await[0]["requests_in_flight"].clone();
    assert_eq!(left, 0, "every attempt gives its place back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_least_busy_deployment_is_next() {
    let entries = [with(WEST), with(EAST), with(PARIS)];
    let rig = Rig::with(&entries, "router_settings:\n  routing_strategy: least-busy\n").await;
    rig.simulator.behave(fault_in_west(&json!({ "kind": "stall_before_header" })));
    let mut clients = JoinSet::new();
    until_one_hangs_in_west(&rig, &mut clients).await;
    for _ in 0..20 {
        assert_ne!(region(&rig.proxy.call(&Asked::converse(CLAUDE)).await), "us-west-2");
    }
    assert_eq!(health(&rig, "deployments").await[0]["requests_in_flight"], 1);
    clients.abort_all();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_faster_deployment_is_next() {
    let rig = two("  routing_strategy: latency-based-routing\n").await;
    rig.simulator.behave(rules(&json!([{ "match": { "region": "us-west-2" }, "delay_ms": 1500 }])));
    for path in [CLAUDE, CLAUDE_STREAM] {
        rig.simulator.clear_requests();
        for _ in 0..12 {
            assert_eq!(rig.proxy.call(&Asked::converse(path)).await.status, 200);
        }
        // Each is asked once to learn how fast it is.
        assert_eq!(asked_in(&rig, "us-west-2"), 1, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cheapest_deployment_is_next_while_it_works() {
    let cheap = [("input_cost_per_token", "0.000001"), ("output_cost_per_token", "0.000002")];
    let dear = [("input_cost_per_token", "0.000003"), ("output_cost_per_token", "0.000002")];
    let entries = [Entry { info: &dear, ..with(EAST) }, Entry { info: &cheap, ..with(WEST) }];
    let rig = Rig::with(&entries, "router_settings:\n  routing_strategy: cost-based-routing\n").await;
    for _ in 0..10 {
        assert_eq!(region(&rig.proxy.call(&Asked::converse(CLAUDE)).await), "us-west-2");
    }
    rig.simulator.behave(fault_in_west(&unavailable()));
    assert_eq!(region(&rig.proxy.call(&Asked::converse(CLAUDE)).await), "us-east-1");
}

/// A turn of a conversation about `topic` that uses prompt caching.
fn turn(topic: &str, turns: usize) -> Asked {
    let mut messages = Vec::new();
    for number in 0..turns {
        messages.push(json!({ "role": "user", "content": [{ "text": format!("{topic}, question {number}") }] }));
        messages.push(json!({ "role": "assistant", "content": [{ "text": format!("answer {number}") }] }));
    }
    messages.pop();
    let last = messages.last_mut().unwrap()["content"].as_array_mut().unwrap();
    last.push(json!({ "cachePoint": { "type": "default" } }));
    let body = json!({ "system": [{ "text": "Be brief." }], "messages": messages });
    Asked::post(CLAUDE, body.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_stays_with_its_deployment_and_conversations_are_shared() {
    let rig = Rig::with(&[with(WEST), with(EAST), with(PARIS)], "").await;
    let mut homes = BTreeSet::new();
    for topic in 0..12 {
        let mut regions = BTreeSet::new();
        for turns in 1..5 {
            regions.insert(region(&rig.proxy.call(&turn(&format!("topic {topic}"), turns)).await).to_owned());
        }
        assert_eq!(regions.len(), 1, "topic {topic} went to {regions:?}");
        homes.extend(regions);
    }
    assert_eq!(homes.len(), 3, "twelve conversations in {homes:?}");
    assert_eq!(rig.proxy.metrics().await.sum("dheera_ai_cache_affinity_total", &[("result", "hit")]), 48);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_or_a_session_of_claude_code_names_what_belongs_together() {
    let session = "0b7f9c1e-3f5a-4c62-9a3e-5d2f8e6b7a90";
    let user = format!("user_5f1d_account_7c1b9d52-0d3a-4d0e-8a62-2a1e4b9f3c11_session_{session}");
    let body = json!({
        "anthropic_version": "bedrock-2023-05-31", "max_tokens": 9, "metadata": { "user_id": user },
        "messages": [{ "role": "user", "content": "Hello" }],
    });
    let claude = "bedrock/us.anthropic.claude-sonnet-4-5-20250929-v1:0";
    let entries = [WEST, EAST, PARIS].map(|params| Entry { model: claude, ..with(params) });
    let rig = Rig::with(&entries, "").await;
    let mut regions = BTreeSet::new();
    for asked in [
        Asked::post("/bedrock/model/claude/invoke", body.to_string()),
        Asked::post("/bedrock/model/claude/invoke-with-response-stream", body.to_string()),
        Asked::converse(CLAUDE).with("x-claude-code-session-id", session),
        Asked::converse(CLAUDE).with("x-dheera-ai-affinity", session),
    ] {
        for _ in 0..4 {
            regions.insert(region(&rig.proxy.call(&asked).await).to_owned());
        }
    }
    assert_eq!(regions.len(), 1, "{regions:?}");
    let others: BTreeSet<String> = {
        let mut others = BTreeSet::new();
        for number in 0..24 {
            let asked = Asked::converse(CLAUDE).with("x-dheera-ai-affinity", &format!("conversation {number}"));
            others.insert(region(&rig.proxy.call(&asked).await).to_owned());
        }
        others
    };
    assert_eq!(others.len(), 3, "{others:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_whose_deployment_fails_goes_on_elsewhere() {
    let rig = two("  allowed_fails: 0\n  cooldown_time: 3600\n  cooldown_time_max: 3600\n").await;
    let mut number = 0;
    let asked = loop {
        let asked = Asked::converse(CLAUDE).with("x-dheera-ai-affinity", &format!("conversation {number}"));
        if region(&rig.proxy.call(&asked).await) == "us-west-2" {
            break asked;
        }
        number += 1;
    };
    rig.simulator.behave(fault_in_west(&unavailable()));
    for _ in 0..5 {
        assert_eq!(region(&rig.proxy.call(&asked).await), "us-east-1");
    }
    let metrics = rig.proxy.metrics().await;
    assert_eq!(metrics.sum("dheera_ai_cache_affinity_total", &[("result", "away")]), 4, "all but the one that failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_affinity_conversations_go_anywhere() {
    let rig = two("  cache_affinity: \"off\"\n").await;
    let mut regions = BTreeSet::new();
    while regions.len() < 2 {
        regions.insert(region(&rig.proxy.call(&turn("one topic", 1)).await).to_owned());
    }
    assert_eq!(rig.proxy.metrics().await.sum("dheera_ai_cache_affinity_total", &[]), 0);
}

/// A server that cannot be reached is left alone for all deployments behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_refuses_connections_is_left_alone_for_all_its_deployments() {
    let refusing = crate::support::Refusing::new();
    let url = format!("http://{}", refusing.address);
    let dead = [("aws_region_name", "us-west-2"), ("aws_bedrock_runtime_endpoint", url.as_str())];
    let dead = |name| Entry { name, model: MODEL, params: &dead, info: &[] };
    let rest = "router_settings:\n  allowed_fails: 1\n  cooldown_time: 3600\n  cooldown_time_max: 3600\n";
    let rig = Rig::with(&[dead("claude"), with(EAST), dead("nova"), Entry { name: "nova", ..with(EAST) }], rest).await;
    let state = |endpoints: Vec<Value>| {
        endpoints.into_iter().find(|endpoint| endpoint["endpoint"] == refusing.address.to_string()).unwrap()
    };
    while state(health(&rig, "endpoints").await)["state"] != "cooling" {
        assert_eq!(region(&rig.proxy.call(&Asked::converse(CLAUDE)).await), "us-east-1");
    }
    assert_eq!(state(health(&rig, "endpoints").await)["last_error"]["reason"], "connect");
    for _ in 0..10 {
        let answer = rig.proxy.call(&Asked::converse("/bedrock/model/nova/converse")).await;
        assert_eq!((region(&answer), answer.header("x-dheera-ai-attempts")), ("us-east-1", Some("1")));
    }
    let metrics = rig.proxy.metrics().await;
    let host = refusing.address.to_string();
    assert_eq!(metrics.sum("dheera_ai_endpoint_cooldowns_total", &[("host", &host)]), 1);
    assert_eq!(metrics.sum("dheera_ai_endpoint_state", &[("host", &host)]), 2);
}

//! Which deployment serves, and what happens when one does not.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::support::{
    Answer, Asked, CLAUDE, Connection, Entry, Http, Proxy, Refusing, Rig, Start, config, rules, simulator, variables,
};

const MODEL: &str = "bedrock/us.amazon.nova-pro-v1:0";

const fn in_region(region: &'static [(&'static str, &'static str)]) -> Entry<'static> {
    Entry { name: "claude", model: MODEL, params: region, info: &[] }
}

const WEST: &[(&str, &str)] = &[("aws_region_name", "us-west-2")];
const EAST: &[(&str, &str)] = &[("aws_region_name", "us-east-1")];
const PARIS: &[(&str, &str)] = &[("aws_region_name", "eu-west-3")];

async fn three(rest: &str) -> Rig {
    Rig::with(&[in_region(WEST), in_region(EAST), in_region(PARIS)], rest).await
}

/// Regions that were asked, in order.
fn asked_regions(rig: &Rig) -> Vec<String> {
    rig.simulator.requests().into_iter().map(|request| request.auth.region).collect()
}

async fn attempts(rig: &Rig, answer: &Answer) -> Vec<Value> {
    rig.proxy.record(answer.call_id()).await["attempts"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_shared_by_weight() {
    const CALLS: usize = 2_000;
    let heavy = [("aws_region_name", "us-west-2"), ("weight", "3")];
    let rig = Rig::with(
        &[
            Entry { params: &heavy, ..Entry::new("claude", MODEL) },
            Entry { params: EAST, ..Entry::new("claude", MODEL) },
        ],
        "",
    )
    .await;
    let address = rig.proxy.address;
    let clients: Vec<_> = (0..4)
        .map(|_| {
            tokio::spawn(async move {
                let mut connection = Connection::open(address, Http::Two).await;
                let mut shares = BTreeMap::<String, usize>::new();
                for _ in 0..CALLS / 4 {
                    let answer = connection.call(&Asked::converse(CLAUDE)).await;
                    assert_eq!(answer.status, 200);
                    *shares.entry(answer.header("x-dheera-ai-region").unwrap().to_owned()).or_default() += 1;
                }
                shares
            })
        })
        .collect();
    let mut heavy = 0;
    for client in clients {
        heavy += client.await.unwrap().get("us-west-2").copied().unwrap_or(0);
    }
    // Three quarters are 1,500; five percent of all are 100, which is five standard deviations.
    assert!((1_400..=1_600).contains(&heavy), "{heavy} of {CALLS}");
    let metrics = rig.proxy.metrics().await;
    let by_region = metrics.sums_by("dheera_ai_requests_total", "region");
    assert_eq!((by_region["us-west-2"], by_region["us-east-1"]), (heavy as u64, (CALLS - heavy) as u64));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_that_fails_is_replaced_by_another() {
    // With cooldowns the deployment would be asked no more after the first throttle.
    let rig = Rig::with(&[in_region(WEST), in_region(EAST)], "router_settings:\n  disable_cooldowns: true\n").await;
    let error = |status: u16, name: &str| json!({ "kind": "error", "status": status, "error_type": name });
    for (fault, status, setback) in [
        (json!({ "kind": "throttle", "retry_after_s": 9 }), json!(429), "throttled"),
        (error(503, "ServiceUnavailableException"), json!(503), "server_error"),
        (error(500, "InternalServerException"), json!(500), "server_error"),
        (error(408, "ModelTimeoutException"), json!(408), "model_timeout"),
        (error(424, "ModelErrorException"), json!(424), "model_error"),
        (json!({ "kind": "reset" }), Value::Null, "broke"),
    ] {
        for asked in [Asked::converse(CLAUDE), Asked::converse("/bedrock/model/claude/converse-stream")] {
            rig.simulator.behave(rules(&json!([{ "match": { "region": "us-west-2" }, "fault": fault }])));
            let mut failed_over = 0;
            // The first deployment is chosen at random; in forty calls each is first at least once.
            for _ in 0..40 {
                let answer = rig.proxy.call(&asked).await;
                assert_eq!((answer.status, answer.header("x-dheera-ai-region")), (200, Some("us-east-1")), "{fault}");
                let attempts = attempts(&rig, &answer).await;
                assert_eq!(answer.header("x-dheera-ai-attempts"), Some(&*attempts.len().to_string()), "{fault}");
                assert_eq!(attempts.last().unwrap()["status"], 200);
                if let [first, _] = attempts.as_slice() {
                    failed_over += 1;
                    assert_eq!((&first["status"], &first["setback"]), (&status, &json!(setback)), "{fault}");
                    assert_eq!(first["deployment"], "claude-1");
                }
            }
            assert!(failed_over > 0, "{fault}");
        }
    }
    let retries = rig.proxy.metrics().await.sums_by("dheera_ai_retries_total", "reason");
    for reason in ["throttled", "server_error", "model_timeout", "model_error", "broke"] {
        assert!(retries[reason] > 0, "{retries:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_that_refuses_connections_is_replaced_by_another() {
    let refusing = Refusing::new();
    let url = format!("http://{}", refusing.address);
    let dead = [("aws_region_name", "us-west-2"), ("aws_bedrock_runtime_endpoint", url.as_str())];
    let dead = Entry { params: &dead, ..Entry::new("claude", MODEL) };
    let only_dead = Entry { params: dead.params, ..Entry::new("dead", MODEL) };
    let rig = Rig::with(&[dead, in_region(EAST), only_dead], "").await;
    let mut failed_over = 0;
    for _ in 0..40 {
        let answer = rig.proxy.call(&Asked::converse(CLAUDE)).await;
        assert_eq!((answer.status, answer.header("x-dheera-ai-region")), (200, Some("us-east-1")));
        let attempts = attempts(&rig, &answer).await;
        if attempts.len() == 2 {
            failed_over += 1;
            assert_eq!((&attempts[0]["setback"], &attempts[0]["status"]), (&json!("connect"), &Value::Null));
        }
    }
    assert!(failed_over > 0);
    for http in [Http::One, Http::Two] {
        let mut connection = Connection::open(rig.proxy.address, http).await;
        let answer = connection.call(&Asked::converse("/bedrock/model/dead/converse")).await;
        answer.assert_error(503, "ServiceUnavailableException");
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
        let attempted = (answer.header("x-dheera-ai-attempts"), answer.header("x-dheera-ai-deployment"));
        assert_eq!(attempted, (Some("1"), Some("dead-1")));
        let text = answer.text();
        assert!(!text.contains("127.0.0.1") && !text.contains("refused"), "internals in {text}");
        assert_eq!(rig.proxy.record(answer.call_id()).await["reason"], "unreachable");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mistake_of_the_client_is_not_tried_elsewhere_and_passes_unchanged() {
    let rig = three("").await;
    for (status, error_type) in [
        (400, "ValidationException"),
        (403, "AccessDeniedException"),
        (404, "ResourceNotFoundException"),
        (413, "RequestEntityTooLargeException"),
    ] {
        rig.simulator.clear_requests();
        let message = "as AWS says it: \u{fc}ber 9000";
        let fault = json!({ "kind": "error", "status": status, "error_type": error_type, "message": message });
        rig.simulator.behave(rules(&json!([{ "fault": fault }])));
        let answer = rig.proxy.call(&Asked::converse(CLAUDE)).await;
        answer.assert_error(status, error_type);
        assert_eq!(answer.text(), json!({ "message": message }).to_string());
        assert_eq!(asked_regions(&rig).len(), 1, "{status}");
        assert_eq!(answer.header("x-amzn-requestid"), Some(&*rig.simulator.requests()[0].request_id));
        let record = rig.proxy.record(answer.call_id()).await;
        assert_eq!((&record["reason"], &record["error_type"]), (&json!("upstream_status"), &json!(error_type)));
        assert_eq!(record["cost_nano_usd"], 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_deployment_is_tried_twice_and_the_last_error_passes_unchanged() {
    for (retries, expected) in [(0, 1), (1, 2), (2, 3), (20, 3)] {
        let rig = three(&format!("router_settings:\n  num_retries: {retries}\n")).await;
        let fault = json!({ "kind": "throttle", "retry_after_s": 7 });
        rig.simulator.behave(rules(&json!([{ "fault": fault }])));
        for asked in [Asked::converse(CLAUDE), Asked::converse("/bedrock/model/claude/converse-stream")] {
            for _ in 0..5 {
                rig.simulator.clear_requests();
                let answer = rig.proxy.call(&asked).await;
                answer.assert_error(429, "ThrottlingException");
                assert_eq!(answer.header("retry-after"), Some("7"));
                assert_eq!(answer.text(), r#"{"message":"Too many requests, please wait before trying again."}"#);
                assert_eq!(answer.header("x-dheera-ai-attempts"), Some(&*expected.to_string()), "{retries} retries");
                let mut regions = asked_regions(&rig);
                regions.sort();
                regions.dedup();
                assert_eq!((regions.len(), rig.simulator.requests().len()), (expected, expected), "{retries} retries");
                assert_eq!(attempts(&rig, &answer).await.len(), expected);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_that_does_not_answer_in_time_is_replaced_by_another() {
    let rest = "router_settings:\n  timeout: 0.2\n  disable_cooldowns: true\n";
    let rig = Rig::with(&[in_region(WEST), in_region(EAST)], rest).await;
    let stall = json!({ "match": { "region": "us-west-2" }, "fault": { "kind": "stall_before_header" } });
    rig.simulator.behave(rules(&json!([stall])));
    for asked in [Asked::converse(CLAUDE), Asked::converse("/bedrock/model/claude/converse-stream")] {
        let mut failed_over = 0;
        while failed_over == 0 {
            let answer = rig.proxy.call(&asked).await;
            assert_eq!((answer.status, answer.header("x-dheera-ai-region")), (200, Some("us-east-1")), "{answer:?}");
            if let [first, _] = attempts(&rig, &answer).await.as_slice() {
                failed_over += 1;
                assert_eq!((&first["setback"], &first["status"]), (&json!("timeout"), &Value::Null));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_no_deployment_answers_in_time_each_was_asked_once() {
    let rig = three("router_settings:\n  timeout: 0.2\n").await;
    rig.simulator.behave(rules(&json!([{ "fault": { "kind": "stall_before_header" } }])));
    for http in [Http::One, Http::Two] {
        for asked in [Asked::converse(CLAUDE), Asked::converse("/bedrock/model/claude/converse-stream")] {
            let before = rig.forwarded();
            let answer = Connection::open(rig.proxy.address, http).await.call(&asked).await;
            answer.assert_error(408, "ModelTimeoutException");
            assert_eq!(answer.header("x-should-retry"), Some("false"));
            assert_eq!((rig.forwarded() - before, answer.header("x-dheera-ai-attempts")), (3, Some("3")));
            let last = answer.header("x-dheera-ai-deployment").unwrap().to_owned();
            let record = rig.proxy.record(answer.call_id()).await;
            let attempts = record["attempts"].as_array().unwrap();
            let asked: BTreeSet<&str> = attempts.iter().filter_map(|attempt| attempt["deployment"].as_str()).collect();
            assert_eq!(asked, BTreeSet::from(["claude-1", "claude-2", "claude-3"]));
            assert_eq!(
                (&record["reason"], &record["fault"], &record["attempts"][2]["deployment"]),
                (&json!("upstream_timeout"), &json!("upstream"), &json!(last)),
                "{record}"
            );
        }
    }
    rig.simulator.behave(rules(&json!([])));
    rig.proxy.assert_serves(CLAUDE).await;
}

/// `stream_timeout` is for streams, `timeout` for whole answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_and_whole_answers_have_timeouts_of_their_own() {
    let rig = Rig::with(&[in_region(EAST)], "router_settings:\n  timeout: 3600\n  stream_timeout: 0.1\n").await;
    rig.simulator.behave(rules(&json!([{ "fault": { "kind": "slow_first_byte", "ms": 600 } }])));
    rig.proxy.assert_serves(CLAUDE).await;
    let answer = rig.proxy.call(&Asked::converse("/bedrock/model/claude/converse-stream")).await;
    answer.assert_error(408, "ModelTimeoutException");
}

/// A kept connection that the upstream has closed says nothing about the deployment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_connection_that_was_closed_is_no_setback() {
    let first = simulator().await;
    let address = first.addr();
    let text = config(&[in_region(EAST)], "");
    let proxy = Proxy::start(Start { config: Some(&text), variables: variables(&first), ..Start::default() });
    proxy.assert_serves(CLAUDE).await;
    first.shutdown().await;
    let options = bedrock_sim::Options { listen: address, ..crate::support::options() };
    let second = bedrock_sim::Simulator::start(options).await.unwrap();
    let answer = proxy.call(&Asked::converse(CLAUDE)).await;
    assert_eq!((answer.status, answer.header("x-dheera-ai-attempts")), (200, Some("1")), "{answer:?}");
    assert_eq!(second.counters().requests, 1);
    assert_eq!(proxy.metrics().await.sums_by("dheera_ai_retries_total", "reason"), BTreeMap::new());
}

/// One without credentials is passed over; its error names no secret.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_without_credentials_is_passed_over() {
    let simulator = simulator().await;
    let text = format!(
        "{}  - model_name: claude\n    dheera_ai_params:\n      model: {MODEL}\n      aws_region_name: us-west-2\n      \
         aws_profile_name: nobody\n",
        config(&[in_region(EAST)], "")
    );
    let proxy = Proxy::start(Start { config: Some(&text), variables: variables(&simulator), ..Start::default() });
    let mut passed_over = 0;
    for _ in 0..40 {
        let answer = proxy.call(&Asked::converse(CLAUDE)).await;
        assert_eq!((answer.status, answer.header("x-dheera-ai-region")), (200, Some("us-east-1")), "{answer:?}");
        let record = proxy.record(answer.call_id()).await;
        passed_over += usize::from(record["attempts"][0]["setback"] == "credentials");
    }
    assert!(passed_over > 0);
}

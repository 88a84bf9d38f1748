//! The configuration applied while the proxy runs: what a changed file changes, what an invalid one does not, and that no
//! request notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{
    Answer, Asked, CLAUDE, CLAUDE_STREAM, Connection, DEADLINE, Entry, Http, MASTER_KEY, Proxy, Refusing, Rig, Start,
    config, eventually, frames, header_nano, read_at_least, rules, run_to_end, simulator, variables, whole,
};

const SONNET: &str = "bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0";
const NOVA: &str = "bedrock/us.amazon.nova-pro-v1:0";
const RELOADS: &str = "dheera_ai_config_reloads_total";
const SUCCESSFUL: &str = "dheera_ai_config_last_reload_successful";
const SUCCESS_AT: &str = "dheera_ai_config_last_reload_success_timestamp_seconds";
const CREDENTIALS: &str = "dheera_ai_credentials_ready";

/// Two mistakes, a secret, and a model that must not appear.
const INVALID: &str = "model_list:\n  - model_name: ghost\n    dheera_ai_params:\n      model: bedrock/x.y\n      \
                       aws_region_name: us-east-1\n      aws_access_key_id: AKIDCANARY\n      \
                       aws_secret_access_key: canary-of-a-secret\n      wieght: 3\ngeneral_settings:\n  port: many\n";

async fn reload(proxy: &Proxy) -> Answer {
    proxy.call(&Asked::post("/config/reload", "")).await
}

/// Puts a configuration in force.
async fn apply(proxy: &Proxy, text: &str) -> Value {
    proxy.configure(text);
    let answer = reload(proxy).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["result"], "applied", "{answer:?}");
    answer.json()
}

async fn status(proxy: &Proxy, model: &str) -> u16 {
    proxy.call(&Asked::converse(&format!("/bedrock/model/{model}/converse"))).await.status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_come_and_go_and_change_their_names() {
    let rig = Rig::start().await;
    let proxy = &rig.proxy;
    assert_eq!((status(proxy, "claude").await, status(proxy, "nova").await), (200, 404));

    let two = config(&[Entry::new("claude", SONNET), Entry::new("nova", NOVA)], "");
    assert_eq!(apply(proxy, &two).await, json!({ "result": "applied", "warnings": [], "restart_required": [] }));
    assert_eq!((status(proxy, "claude").await, status(proxy, "nova").await), (200, 200));
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sums_by(CREDENTIALS, "deployment").len(), 2);

    apply(proxy, &config(&[Entry::new("sonnet", SONNET)], "")).await;
    assert_eq!((status(proxy, "claude").await, status(proxy, "nova").await), (404, 404));
    assert_eq!(status(proxy, "sonnet").await, 200);
    let listed = proxy.call(&Asked::get("/v1/models")).await.json();
    assert_eq!((listed["data"].as_array().unwrap().len(), &listed["data"][0]["id"]), (1, &json!("sonnet")));
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sums_by(CREDENTIALS, "deployment").keys().collect::<Vec<_>>(), ["sonnet-1"]);
    assert_eq!((metrics.sum(RELOADS, &[("result", "applied")]), metrics.sum(SUCCESSFUL, &[])), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_price_counts_from_the_reload_on() {
    let dear = |info| Entry { info, ..Entry::new("claude", SONNET) };
    let rig = Rig::with(&[dear(&[("output_cost_per_token", "0.001")])], "").await;
    let asked = Asked::converse(CLAUDE);
    let before = header_nano(&rig.proxy.call(&asked).await, "x-dheera-ai-response-cost");
    apply(&rig.proxy, &config(&[dear(&[("output_cost_per_token", "0.002")])], "")).await;
    let after = rig.proxy.call(&asked).await;
    let record = rig.proxy.record(after.call_id()).await;
    let tokens = record["usage"]["output_tokens"].as_u64().unwrap();
    assert!(tokens > 0, "{record}");
    assert_eq!(header_nano(&after, "x-dheera-ai-response-cost"), before + tokens * 1_000_000, "a thousandth each more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_number_of_retries_counts_from_the_reload_on() {
    let (one, other) = (Refusing::new(), Refusing::new());
    let urls = [&one, &other].map(|dead| format!("http://{}", dead.address));
    let params = [[("aws_bedrock_runtime_endpoint", &*urls[0])], [("aws_bedrock_runtime_endpoint", &*urls[1])]];
    let entries = [
        Entry { params: &params[0], ..Entry::new("claude", SONNET) },
        Entry { params: &params[1], ..Entry::new("claude", SONNET) },
    ];
    let rig = Rig::with(&entries, "router_settings: {num_retries: 0}").await;
    let attempts = async || {
        let answer = rig.proxy.call(&Asked::converse(CLAUDE)).await;
        assert_eq!(answer.status, 503, "{answer:?}");
        rig.proxy.record(answer.call_id()).await["attempts"].as_array().unwrap().len()
    };
    assert_eq!(attempts().await, 1);
    apply(&rig.proxy, &config(&entries, "router_settings: {num_retries: 1}")).await;
    assert_eq!(attempts().await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalid_configuration_changes_nothing_and_all_its_problems_are_told() {
    let rig = Rig::start().await;
    let proxy = &rig.proxy;
    let at = proxy.metrics().await.sum(SUCCESS_AT, &[]);
    assert!(at > 1_700_000_000, "{at}");
    proxy.configure(INVALID);
    let answer = reload(proxy).await;
    answer.assert_error(400, "ValidationException");
    let told = answer.json();
    let places: Vec<_> = told["problems"].as_array().unwrap().iter().map(|one| (&one["key"], &one["where"])).collect();
    let keys: Vec<_> = places.iter().map(|(key, _)| key.as_str().unwrap()).collect();
    assert_eq!(keys, ["model_list[0].dheera_ai_params.wieght", "general_settings.port"], "{told}");
    for ((_, place), line) in places.into_iter().zip([8, 10]) {
        let place = place.as_str().unwrap();
        assert!(place.contains("config.yaml:") && place.contains(&format!(":{line}:")), "{place}");
    }
    assert!(told["problems"][0]["remedy"].as_str().unwrap().contains("weight"), "{told}");
    assert_eq!(told["result"], "refused");
    let log = proxy.stderr();
    assert!(log.contains("stays in force") && log.contains("general_settings.port"), "{log}");
    for said in [log, answer.text()] {
        assert!(!said.contains("canary-of-a-secret") && !said.contains("AKIDCANARY"), "{said}");
    }
    assert_eq!((status(proxy, "claude").await, status(proxy, "ghost").await), (200, 404));
    let metrics = proxy.metrics().await;
    assert_eq!((metrics.sum(RELOADS, &[("result", "refused")]), metrics.sum(SUCCESSFUL, &[])), (1, 0));
    assert_eq!(metrics.sum(SUCCESS_AT, &[]), at);

    apply(proxy, &config(&[Entry::new("nova", NOVA)], "")).await;
    assert_eq!((status(proxy, "nova").await, proxy.metrics().await.sum(SUCCESSFUL, &[])), (200, 1));
    let again = reload(proxy).await;
    assert_eq!((again.status, &again.json()["result"]), (200, &json!("unchanged")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_takes_a_restart_is_named_and_the_rest_is_applied() {
    let rig = Rig::start().await;
    let rest =
        "general_settings: {num_workers: 37, max_header_count: 50, store_path: /nonexistent, request_log: 'off'}";
    let told = apply(&rig.proxy, &config(&[Entry::new("nova", NOVA)], rest)).await;
    // The variable of the tests goes before `store_path`.
    let kept = ["general_settings.num_workers", "general_settings.request_log", "general_settings.max_header_count"];
    let named = told["restart_required"].as_array().unwrap();
    for key in kept {
        assert!(named.contains(&json!(key)), "{key}: {told}");
    }
    let answer = rig.proxy.call(&Asked::converse("/bedrock/model/nova/converse")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    rig.proxy.record(answer.call_id()).await;
    let again = reload(&rig.proxy).await.json();
    assert_eq!((&again["result"], &again["restart_required"]), (&json!("unchanged"), &told["restart_required"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_does_what_a_request_does() {
    let rig = Rig::start().await;
    let applied = async |result: &str, count| {
        let deadline = std::time::Instant::now() + DEADLINE;
        while rig.proxy.metrics().await.sum(RELOADS, &[("result", result)]) < count {
            assert!(std::time::Instant::now() < deadline, "in vain waited for {count} {result}");
        }
    };
    rig.proxy.configure(&config(&[Entry::new("nova", NOVA)], ""));
    rig.proxy.signal(Signal::SIGHUP);
    applied("applied", 1).await;
    assert_eq!((status(&rig.proxy, "nova").await, status(&rig.proxy, "claude").await), (200, 404));
    rig.proxy.configure(INVALID);
    rig.proxy.signal(Signal::SIGHUP);
    applied("refused", 1).await;
    assert_eq!(status(&rig.proxy, "nova").await, 200);
    assert!(rig.proxy.stderr().contains("general_settings.port"), "{}", rig.proxy.stderr());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_by_the_configuration_it_began_with() {
    let rig = Rig::start().await;
    rig.simulator.behave(rules(&json!([{ "frames": 160, "frame_rate_hz": 20 }])));
    let mut connection = Connection::open(rig.proxy.address, Http::One).await;
    let mut response = connection.begin(&Asked::converse(CLAUDE_STREAM)).await;
    let mut seen = read_at_least(response.body_mut(), 1).await;

    let dead = Refusing::new();
    let url = format!("http://{}", dead.address);
    let params = [("aws_bedrock_runtime_endpoint", &*url)];
    let entry = Entry { params: &params, ..Entry::new("claude", SONNET) };
    apply(&rig.proxy, &config(&[entry], "")).await;
    assert_eq!(status(&rig.proxy, "claude").await, 503, "new requests go where it says now");
    assert!(rig.simulator.requests().iter().any(|request| !request.finished), "the stream is open still");

    let answer = timeout(DEADLINE, whole(response)).await.expect("the stream does not end");
    assert_eq!(answer.broke, None);
    seen.extend_from_slice(&answer.body);
    let call_id = answer.call_id().to_owned();
    let (whole_frames, rest) = frames(&seen);
    assert!(whole_frames.len() > 160 && rest == 0, "{} frames, {rest} bytes", whole_frames.len());
    let record = rig.proxy.record(&call_id).await;
    assert_eq!((&record["status"], &record["usage_certainty"]), (&json!(200), &json!("exact")), "{record}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_while_configurations_come_and_go() {
    let rig = Arc::new(Rig::start().await);
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load = [(Http::One, CLAUDE), (Http::Two, CLAUDE), (Http::One, CLAUDE_STREAM), (Http::Two, CLAUDE_STREAM)];
    let load = load.map(|(http, path)| {
        let (stop, calls, address) = (Arc::clone(&stop), Arc::clone(&calls), rig.proxy.address);
        tokio::spawn(async move {
            let mut connection = Connection::open(address, http).await;
            while !stop.load(Ordering::Relaxed) {
                let answer = connection.call(&Asked::converse(path)).await;
                assert_eq!((answer.status, &answer.broke), (200, &None), "{answer:?}");
                calls.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    for round in 0..30 {
        let then = calls.load(Ordering::Relaxed);
        if round % 2 == 0 {
            let weight = (round + 1).to_string();
            let params = [("weight", &*weight)];
            let other = format!("model-{round}");
            let entries = [Entry { params: &params, ..Entry::new("claude", SONNET) }, Entry::new(&other, NOVA)];
            apply(&rig.proxy, &config(&entries, "")).await;
            assert_eq!(status(&rig.proxy, &other).await, 200);
        } else {
            rig.proxy.configure(INVALID);
            assert_eq!(reload(&rig.proxy).await.status, 400);
        }
        eventually("calls after it", || (calls.load(Ordering::Relaxed) > then + 4).then_some(())).await;
    }
    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await.expect("a call failed");
    }
    println!("{} calls over 30 reloads", calls.load(Ordering::Relaxed));
    let metrics = rig.proxy.metrics().await;
    let sums = metrics.sums_by(RELOADS, "result");
    assert_eq!((sums["applied"], sums["refused"]), (15, 15));
    assert_eq!(metrics.sums_by(CREDENTIALS, "deployment").len(), 2, "those of before are gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_master_key_may_reload() {
    let rig = Rig::start().await;
    let key = rig.proxy.call(&Asked::post("/key/generate", "{}")).await.json()["key"].as_str().unwrap().to_owned();
    rig.proxy.configure(&config(&[Entry::new("nova", NOVA)], ""));
    let asked = Asked::post("/config/reload", "");
    for by in [asked.clone().by(&key), asked.clone().by("sk-wrong-0123456789abcdef"), asked.clone().bare()] {
        rig.proxy.call(&by).await.assert_error(403, "AccessDeniedException");
    }
    assert_eq!(rig.proxy.call(&Asked::get("/config/reload")).await.status, 405);
    assert_eq!(rig.proxy.metrics().await.sums_by(RELOADS, "result").len(), 0);
    assert_eq!((status(&rig.proxy, "nova").await, status(&rig.proxy, "claude").await), (404, 200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_master_key_works_and_the_old_one_does_not() {
    const NEW: &str = "sk-another-master-0123456789";
    let simulator = simulator().await;
    let with = |settings: &str| config(&[Entry::new("claude", SONNET)], settings);
    let text = with(&format!("general_settings: {{master_key: {MASTER_KEY}}}"));
    let proxy = Proxy::start(Start {
        config: Some(&text),
        variables: variables(&simulator),
        no_master_key: true,
        ..Start::default()
    });
    apply(&proxy, &with(&format!("general_settings: {{master_key: {NEW}}}"))).await;
    let asked = Asked::converse(CLAUDE);
    proxy.call(&asked).await.assert_error(403, "AccessDeniedException");
    assert_eq!(proxy.call(&asked.clone().by(NEW)).await.status, 200);
    assert_eq!(proxy.call(&Asked::get("/key/list").by(NEW)).await.status, 200);

    // Without a master key everybody could call: that is not had by a reload.
    proxy.configure(&with(""));
    let told = proxy.call(&Asked::post("/config/reload", "").by(NEW)).await.json();
    assert!(told["restart_required"].as_array().unwrap().contains(&json!("general_settings.master_key")), "{told}");
    proxy.call(&asked.clone().bare()).await.assert_error(403, "AccessDeniedException");
    assert_eq!(proxy.call(&asked.by(NEW)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_master_key_only_a_signal_reloads() {
    let simulator = simulator().await;
    let proxy = Proxy::start(Start { variables: variables(&simulator), no_master_key: true, ..Start::default() });
    let answer = reload(&proxy).await;
    answer.assert_error(403, "AccessDeniedException");
    assert!(answer.text().contains("SIGHUP"), "{answer:?}");
    proxy.signal(Signal::SIGHUP);
    // There is no file: the environment of a process does not change.
    eventually("the word of it", || proxy.stderr().contains("unchanged").then_some(())).await;
    assert_eq!(proxy.metrics().await.sum(RELOADS, &[("result", "unchanged")]), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_says_what_became_of_it() {
    let rig = Rig::start().await;
    let url = format!("http://{}", rig.proxy.address);
    let run = || {
        let done = run_to_end(&["reload", "--url", &url], &[("DHEERA_AI_MASTER_KEY", MASTER_KEY)]);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (done.status.code(), text(done.stdout), text(done.stderr))
    };
    rig.proxy.configure(&config(&[Entry::new("nova", NOVA)], "general_settings: {num_workers: 37}"));
    let (code, out, err) = tokio::task::block_in_place(run);
    assert_eq!((code, &*err), (Some(0), ""));
    assert!(out.contains("in force") && out.contains("restart") && out.contains("num_workers"), "{out}");
    rig.proxy.configure(INVALID);
    let (code, out, err) = tokio::task::block_in_place(run);
    assert_eq!((code, &*out), (Some(1), ""));
    assert!(err.contains("general_settings.port") && err.contains("wieght"), "{err}");
}

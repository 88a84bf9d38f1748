//! What users and operators see: headers, pages, metrics, records, the command line; and what nobody ever sees.

use std::collections::BTreeSet;

use hyper::body::Incoming;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::{
    ACCESS_KEY, Answer, Asked, CLAUDE, CLAUDE_STREAM, Connection, Entry, Http, MASTER_KEY, Proxy, Rig, SECRET_KEY,
    Start, TemporaryFile, call, config, eventually, frames, options, read_at_least, rule, rules, run_to_end, simulator,
    variables, whole,
};

fn number(value: Option<&str>) -> f64 {
    value.unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_says_who_served_it_and_keeps_the_upstream_s_own_headers() {
    let rig = Rig::start().await;
    for http in [Http::One, Http::Two] {
        let mut connection = Connection::open(rig.proxy.address, http).await;
        let mut ids = BTreeSet::new();
        for asked in [Asked::converse(CLAUDE), Asked::converse(CLAUDE_STREAM)] {
            rig.simulator.clear_requests();
            let answer = connection.call(&asked).await;
            assert_eq!(answer.status, 200);
            assert!(ids.insert(answer.call_id().to_owned()), "call ids are unique");
            assert_eq!(answer.header("x-dheera-ai-model-id"), Some("anthropic.claude-sonnet-4-5-20250929-v1:0"));
            assert_eq!(answer.header("x-dheera-ai-deployment"), Some("claude-1"));
            assert_eq!(answer.header("x-dheera-ai-region"), Some("us-east-1"));
            assert_eq!(answer.header("x-dheera-ai-attempts"), Some("1"));
            assert!(number(answer.header("x-dheera-ai-overhead-duration-ms")) >= 0.0);
            assert_eq!(answer.header("x-dheera-ai-response-cost").is_some(), asked.path == CLAUDE);
            assert_eq!(answer.header("x-amzn-requestid"), Some(&*rig.simulator.requests()[0].request_id));
            let kept = if asked.path == CLAUDE { "application/json" } else { "application/vnd.amazon.eventstream" };
            assert_eq!(answer.header("content-type"), Some(kept));
        }
    }
    // Bedrock's own headers pass.
    let body = json!({ "anthropic_version": "bedrock-2023-05-31", "max_tokens": 5, "messages": [{ "role": "user", "content": "Hi" }] });
    let answer = rig.proxy.call(&Asked::post("/bedrock/model/claude/invoke", body.to_string())).await;
    for name in
        ["x-amzn-bedrock-input-token-count", "x-amzn-bedrock-output-token-count", "x-amzn-bedrock-invocation-latency"]
    {
        assert!(answer.header(name).is_some(), "{name}");
    }
}

async fn without_key(proxy: &Proxy, path: &str) -> Answer {
    proxy.call(&Asked::get(path).bare()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_the_proxy_answer_and_tell_the_configuration_only_with_the_key() {
    let rig = Rig::with(
        &[
            Entry::new("claude", "bedrock/us.amazon.nova-pro-v1:0"),
            Entry::new("claude", "bedrock/us.amazon.nova-pro-v1:0"),
            Entry::new("team/other", "bedrock/acme.unheard-of-v1:0"),
        ],
        "",
    )
    .await;
    for path in ["/health/liveliness", "/health/liveness"] {
        let answer = without_key(&rig.proxy, path).await;
        assert_eq!((answer.status, answer.json()), (200, json!("I'm alive!")));
    }
    let ready = without_key(&rig.proxy, "/health/readiness").await;
    assert_eq!((ready.status, ready.json()["status"].clone()), (200, json!("healthy")));
    for path in ["/health", "/metrics", "/v1/models", "/models", "/model/info", "/v1/model/info"] {
        without_key(&rig.proxy, path).await.assert_error(403, "AccessDeniedException");
        let answer = rig.proxy.call(&Asked::get(path)).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        for method in ["POST", "DELETE"] {
            assert_eq!(rig.proxy.call(&Asked::method(method, path, "")).await.status, 405, "{method} {path}");
        }
    }
    let health = rig.proxy.call(&Asked::get("/health")).await.json();
    assert_eq!(health["deployments"].as_array().unwrap().len(), 3);
    assert!(
        health["deployments"].as_array().unwrap().iter().all(|one| one["credentials"]["ready"] == true),
        "{health}"
    );
    let models = rig.proxy.call(&Asked::get("/v1/models")).await.json();
    let names: Vec<_> = models["data"].as_array().unwrap().iter().map(|model| model["id"].clone()).collect();
    assert_eq!(names, [json!("claude"), json!("team/other")]);
    let info = rig.proxy.call(&Asked::get("/model/info")).await.json();
    let prices: Vec<_> = info["data"].as_array().unwrap().iter().map(|model| model["price"].clone()).collect();
    assert_eq!(prices, [json!("price book"), json!("price book"), Value::Null], "{info}");
    // Probes and scrapes leave no records and reach nobody.
    rig.proxy.assert_serves(CLAUDE).await;
    assert_eq!(rig.proxy.records_once(1).await.len(), 1);
    assert_eq!(rig.forwarded(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_may_be_open_and_have_no_series_that_a_client_made() {
    let rig = Rig::with(
        &[Entry::new("claude", "bedrock/us.amazon.nova-pro-v1:0")],
        "dheera_ai_settings:\n  require_auth_for_metrics_endpoint: false\n",
    )
    .await;
    rig.proxy.assert_serves(CLAUDE).await;
    for name in ["invented.one-v1:0", "invented.two-v1:0", "invented.three-v1:0"] {
        let path = format!("/bedrock/model/{}/converse?{name}=1", name.replace(':', "%3A"));
        let asked = Asked::converse(&path).with("x-dheera-ai-end-user-id", name);
        assert_eq!(rig.proxy.call(&asked).await.status, 200);
        rig.proxy.call(&Asked::method("GET", &format!("/{name}"), "")).await;
    }
    let answer = without_key(&rig.proxy, "/metrics").await;
    assert_eq!(answer.status, 200);
    let text = answer.text();
    assert!(!text.contains("invented"), "a client made a series");
    for name in [
        "dheera_ai_requests_total",
        "dheera_ai_request_duration_seconds_bucket",
        "dheera_ai_time_to_first_byte_seconds_count",
        "dheera_ai_overhead_duration_seconds_sum",
        "dheera_ai_usage_total",
        "dheera_ai_cost_nano_usd_total",
        "dheera_ai_unpriced_requests_total",
        "dheera_ai_refused_total",
        "dheera_ai_requests_in_flight",
        "dheera_ai_request_body_bytes_buffered",
        "dheera_ai_request_records_lost_total",
        "dheera_ai_credentials_ready",
        "dheera_ai_build_info",
        "process_resident_memory_bytes",
    ] {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name} is missing");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_has_every_documented_field() {
    let rig = Rig::start().await;
    let answer = rig.proxy.call(&Asked::converse(CLAUDE).with("x-dheera-ai-end-user-id", "user-7")).await;
    let record = rig.proxy.record(answer.call_id()).await;
    for (field, expected) in [
        ("aws_request_id", json!(answer.header("x-amzn-requestid"))),
        ("key_alias", json!("master")),
        ("end_user", json!("user-7")),
        ("method", json!("POST")),
        ("service", json!("bedrock-runtime")),
        ("operation", json!("Converse")),
        ("model_name", json!("claude")),
        ("model_id", json!("anthropic.claude-sonnet-4-5-20250929-v1:0")),
        ("deployment", json!("claude-1")),
        ("region", json!("us-east-1")),
        ("attempts", json!([{ "deployment": "claude-1", "status": 200 }])),
        ("status", json!(200)),
        ("request_bytes", json!(Asked::converse(CLAUDE).body.len())),
        ("response_bytes", json!(answer.body.len())),
        ("usage_certainty", json!("exact")),
        ("cost_usd", json!(answer.header("x-dheera-ai-response-cost"))),
    ] {
        assert_eq!(record[field], expected, "{field}");
    }
    assert!(record["usage"]["input_tokens"].as_u64().unwrap() > 0 && record["cost_nano_usd"].as_u64().unwrap() > 0);
    for field in ["duration_ms", "time_to_first_byte_ms", "overhead_ms"] {
        assert!(record[field].as_f64().unwrap() >= 0.0, "{field}");
    }
    let time = record["time"].as_str().unwrap();
    assert!(time.ends_with('Z') && time.contains('T'), "{time}");
    for absent in ["fault", "reason", "error_type", "detail", "unpriced"] {
        assert_eq!(record[absent], Value::Null, "{absent}");
    }
    let known: BTreeSet<&str> =
        "time call_id aws_request_id key_alias end_user method service operation model_name model_id \
        deployment region attempts status request_bytes response_bytes usage usage_certainty cost_nano_usd cost_usd \
        duration_ms time_to_first_byte_ms overhead_ms"
            .split_whitespace()
            .collect();
    let undocumented: Vec<_> = record.as_object().unwrap().keys().filter(|field| !known.contains(&***field)).collect();
    assert_eq!(undocumented, Vec::<&String>::new());
}

/// Everything secret has a value that stands nowhere else; then everything that can be read is searched for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_ever_shown() {
    const SESSION_TOKEN: &str = "session-token-canary-0002";
    const CLIENT_TOKEN: &str = "client-token-canary-0003";
    const API_KEY: &str = "ABSK-canary-0004";
    let credential = bedrock_sim::Credential {
        access_key_id: ACCESS_KEY.to_owned(),
        secret_access_key: SECRET_KEY.to_owned(),
        session_token: Some(SESSION_TOKEN.to_owned()),
    };
    let options =
        bedrock_sim::Options { credentials: vec![credential], bearer_tokens: vec![API_KEY.to_owned()], ..options() };
    let simulator = bedrock_sim::Simulator::start(options).await.unwrap();
    let token = [("aws_session_token", SESSION_TOKEN)];
    let wrong = [("aws_secret_access_key", "wrong-secret-canary-0005")];
    let entries = [
        Entry { params: &token, ..Entry::new("claude", "bedrock/us.amazon.nova-pro-v1:0") },
        Entry { params: &wrong, ..Entry::new("wrong", "bedrock/us.amazon.nova-pro-v1:0") },
    ];
    let text = format!(
        "{}  - model_name: bearer\n    dheera_ai_params:\n      model: bedrock/us.amazon.nova-pro-v1:0\n      \
         aws_region_name: us-east-1\n      api_key: {API_KEY}\n",
        config(&entries, "")
    );
    let mut variables = variables(&simulator);
    variables.extend([("RUST_LOG", "trace".to_owned()), ("AWS_SESSION_TOKEN", SESSION_TOKEN.to_owned())]);
    let mut proxy = Proxy::start(Start { config: Some(&text), variables: variables.clone(), ..Start::default() });
    let mut shown = Vec::new();
    let mut asked = vec![
        Asked::converse(CLAUDE),
        Asked::converse(CLAUDE_STREAM),
        Asked::converse("/bedrock/model/bearer/converse"),
        // The simulator refuses these: its errors pass through.
        Asked::converse("/bedrock/model/wrong/converse"),
        Asked::get("/foundation-models"),
        Asked::converse(CLAUDE).bare().with("authorization", &format!("Bearer {CLIENT_TOKEN}")),
        Asked::converse(CLAUDE).bare().with("x-api-key", CLIENT_TOKEN),
        Asked::converse(CLAUDE).with("x-amz-security-token", CLIENT_TOKEN).with("cookie", CLIENT_TOKEN),
        Asked::converse(CLAUDE).bare().with("authorization", &format!("AWS4-HMAC-SHA256 Credential={CLIENT_TOKEN}/20261122/us-east-1/bedrock/aws4_request, SignedHeaders=host, Signature={CLIENT_TOKEN}")),
        Asked::post("/nothing", CLIENT_TOKEN).with("x-dheera-ai-api-key", CLIENT_TOKEN),
        Asked::post(CLAUDE, format!("{{ {CLIENT_TOKEN}")),
    ];
    asked.extend(["/health", "/health/readiness", "/metrics", "/v1/models", "/model/info"].map(Asked::get));
    for asked in &asked {
        for http in [Http::One, Http::Two] {
            let answer = call(proxy.address, http, asked).await;
            shown.push(format!("{:?} {}", answer.headers, String::from_utf8_lossy(&answer.body)));
        }
    }
    proxy.signal(Signal::SIGTERM);
    assert!(proxy.ended().await.success());
    shown.extend([proxy.stdout(), proxy.stderr()]);
    let file = TemporaryFile::new("canaries.yaml", &text);
    let mut environment: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    environment.push(("DHEERA_AI_MASTER_KEY", MASTER_KEY));
    for arguments in [vec!["config", "show", "--config", file.path()], vec!["check", "--config", file.path()]] {
        let output = run_to_end(&arguments, &environment);
        assert!(output.status.success(), "{output:?}");
        shown.extend([output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()));
    }
    assert!(shown.iter().any(|text| text.contains("DEBUG")), "the log was at its most talkative");
    let secrets =
        [ACCESS_KEY, SECRET_KEY, SESSION_TOKEN, CLIENT_TOKEN, API_KEY, MASTER_KEY, "wrong-secret-canary-0005"];
    let mut leaks = Vec::new();
    for secret in secrets {
        for line in shown.iter().flat_map(|text| text.lines()).filter(|line| line.contains(secret)) {
            leaks.push(format!("{secret} in: {}", line.chars().take(400).collect::<String>()));
        }
    }
    assert!(leaks.is_empty(), "{} leaks, such as\n{}", leaks.len(), leaks[..leaks.len().min(12)].join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_waits_for_the_open_stream_writes_its_record_and_exits_with_zero() {
    for http in [Http::One, Http::Two] {
        let mut rig = Rig::start().await;
        let pause = json!({ "kind": "stall_mid_stream", "after_frames": 2, "ms": 1500 });
        rig.simulator.add_rule(rule(json!({ "fault": pause, "frames": 6 })));
        let mut connection = Connection::open(rig.proxy.address, http).await;
        let response = connection.begin(&Asked::converse(CLAUDE_STREAM)).await;
        let call_id = response.headers()["x-dheera-ai-call-id"].to_str().unwrap().to_owned();
        let (head, mut body) = response.into_parts();
        let mut seen = read_at_least(&mut body, 1).await;
        rig.proxy.signal(Signal::SIGTERM);
        draining(&rig.proxy).await;
        let rest = whole(hyper::Response::<Incoming>::from_parts(head, body)).await;
        seen.extend_from_slice(&rest.body);
        assert_eq!(rest.broke, None, "the stream was cut");
        let (frames, left) = frames(&seen);
        assert_eq!((frames.len(), left), (10, 0));
        let status = rig.proxy.ended().await;
        assert_eq!(status.code(), Some(0), "{}", rig.proxy.stderr());
        let record = rig.proxy.record(&call_id).await;
        assert_eq!((&record["status"], &record["usage_certainty"]), (&json!(200), &json!("exact")));
    }
}

/// Waits until the proxy says that it is stopping, and no longer accepts connections.
async fn draining(proxy: &Proxy) {
    eventually("the stop", || proxy.stderr().contains("stopping").then_some(())).await;
    eventually("the port to close", || std::net::TcpStream::connect(proxy.address).is_err().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_proxy_stops_at_once_with_zero() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        for _ in 0..5 {
            let mut rig = Rig::start().await;
            rig.proxy.assert_serves(CLAUDE).await;
            rig.proxy.signal(signal);
            assert_eq!(rig.proxy.ended().await.code(), Some(0), "{signal}: {}", rig.proxy.stderr());
            assert_eq!(rig.proxy.records().len(), 1);
        }
    }
}

#[test]
fn check_names_every_mistake_with_its_line_and_remedy() {
    let text = "\
model_list:
  - model_name: claude
    dheera_ai_params:
      model: openai/gpt-5
      aws_region_name: us-east-1
  - model_name: nova
    dheera_ai_params:
      modle: bedrock/us.amazon.nova-pro-v1:0
      aws_access_key_id: AKIDEXAMPLE
      timeout: soon
router_settings:
  num_retires: 3
  num_retries: 99
general_settings:
  master_key: os.environ/NOT_SET_ANYWHERE
";
    let file = TemporaryFile::new("mistakes.yaml", text);
    let output = run_to_end(&["check", "--config", file.path()], &[("AWS_REGION", "us-east-1")]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    for (line, named) in [
        (4, "openai"),
        (8, "modle"),
        (10, "timeout"),
        (12, "num_retires"),
        (13, "num_retries"),
        (15, "NOT_SET_ANYWHERE"),
    ] {
        let place = format!("{}:{line}:", file.path());
        let found = said.lines().find(|said| said.contains(&place));
        assert!(found.is_some_and(|said| said.contains(named)), "line {line}, {named}:\n{said}");
    }
    // The nearest known keys are the remedies of misspelt ones.
    assert!(said.contains("`model`") && said.contains("num_retries"), "{said}");
    assert!(said.contains("aws_secret_access_key"), "a half-written credential is named:\n{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_configuration_the_environment_serves_this_machine_without_a_key() {
    let simulator = simulator().await;
    let proxy = Proxy::start(Start { variables: variables(&simulator), no_master_key: true, ..Start::default() });
    assert!(proxy.address.ip().is_loopback());
    for asked in [
        Asked::converse("/bedrock/model/us.amazon.nova-pro-v1%3A0/converse").bare(),
        Asked::converse("/bedrock/model/us.amazon.nova-pro-v1%3A0/converse")
            .bare()
            .with("authorization", "Bearer anything"),
        Asked::get("/bedrock/foundation-models").bare(),
    ] {
        let answer = proxy.call(&asked).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.header("x-dheera-ai-deployment").unwrap().starts_with("direct-"));
        assert_eq!(proxy.record(answer.call_id()).await["key_alias"], "anonymous");
    }
    assert_eq!(simulator.counters().authentication_failures, 0);
}

/// A proxy that anyone could use is not started by accident, and a taken port is said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starts_that_must_fail_say_why() {
    let output = run_to_end(&["--host", "0.0.0.0", "--port", "0"], &[("AWS_REGION", "us-east-1")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--allow-anonymous"), "{output:?}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = run_to_end(&["--host", "127.0.0.1", "--port", &port], &[("AWS_REGION", "us-east-1")]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(&port) && said.contains("--port"), "{said}");
}

/// The request log may be a file, or off; standard output then has the one line that says where the proxy runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_request_log_may_be_a_file_or_off() {
    let file = TemporaryFile::new("requests.jsonl", "");
    for (log, lines) in [(file.path(), 1), ("off", 0)] {
        let rest = format!("general_settings:\n  request_log: {log:?}\n");
        let mut rig = Rig::with(&[Entry::new("claude", "bedrock/us.amazon.nova-pro-v1:0")], &rest).await;
        rig.simulator.behave(rules(&json!([])));
        rig.proxy.assert_serves(CLAUDE).await;
        rig.proxy.signal(Signal::SIGTERM);
        assert!(rig.proxy.ended().await.success());
        assert_eq!(rig.proxy.stdout().lines().count(), 1, "{log}");
        let written = std::fs::read_to_string(file.path()).unwrap();
        assert_eq!(written.lines().count(), 1, "{log} after {lines}");
        assert!(written.lines().all(|line| serde_json::from_str::<Value>(line).unwrap()["status"] == 200));
    }
}

//! Every operation of AWS's service models, and the HTTP-only surfaces, through the running proxy: what the simulator
//! receives is what the client sent, addressed to the right service and signed for it.
//!
//! The list is the simulator's, made from the service models on its own; the proxy's table is not asked.

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::support::{Asked, Connection, Http, MASTER_KEY, Proxy, Rig, Start, sha256, simulator, variables};

/// The operation whose request is a signed event stream; `bidirectional.rs` has it.
const SENT_AS_STREAM: &str = "InvokeModelWithBidirectionalStream";

/// What may arrive for any operation.
const HEADERS_ALLOWED: [&str; 8] = [
    "host",
    "authorization",
    "x-amz-date",
    "content-length",
    "content-type",
    "accept",
    "accept-encoding",
    "user-agent",
];

/// The client's own headers that must not arrive, with values that would show.
const HEADERS_FORBIDDEN: [(&str, &str); 18] = [
    ("x-api-key", "leak-1"),
    ("api-key", "leak-2"),
    ("x-dheera-ai-api-key", MASTER_KEY),
    ("x-dheera-ai-end-user-id", "leak-3"),
    ("x-litellm-end-user-id", "leak-4"),
    ("cookie", "leak=5"),
    ("proxy-authorization", "Basic leak6"),
    ("x-forwarded-for", "192.0.2.1"),
    ("x-forwarded-host", "leak.example"),
    ("forwarded", "for=leak"),
    ("via", "1.1 leak"),
    ("x-amz-security-token", "leak-7"),
    ("x-amz-date", "20000101T000000Z"),
    ("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
    ("accept-encoding", "gzip, br"),
    ("origin", "https://leak.example"),
    ("x-secret-hop", "leak-8"),
    ("range", "bytes=0-1"),
];

const QUERY: &str = "zeta=1&alpha=%20a%2Fb&empty=&flag&alpha=2&tilde=~&star=%2A";

/// One row of the simulator's table.
struct Row {
    service: String,
    name: String,
    method: String,
    template: String,
    status: u16,
    signing_name: String,
    target: Option<String>,
}

fn table() -> Vec<Row> {
    let file: Value = serde_json::from_str(include_str!("../../loadtest/bedrock-sim/src/operations.json")).unwrap();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let rows = file["operations"].as_array().unwrap().iter();
    rows.map(|row| Row {
        service: text(&row[0]).unwrap(),
        name: text(&row[1]).unwrap(),
        method: text(&row[2]).unwrap(),
        template: text(&row[3]).unwrap(),
        status: u16::try_from(row[4].as_u64().unwrap()).unwrap(),
        signing_name: text(&row[5]).unwrap(),
        target: text(&row[6]),
    })
    .collect()
}

impl Row {
    /// Whether several services have this path, so that an ARN decides.
    fn arn(&self) -> Option<&'static str> {
        let shared = ["/tags/{", "/resourcepolicy/{"].iter().any(|start| self.template.starts_with(start));
        shared.then_some(match self.service.as_str() {
            "bedrock-agentcore-control" => "arn:aws:bedrock-agentcore:us-east-1:123456789012:runtime/agent-abc",
            "bedrock-agent-runtime" => "arn:aws:bedrock:us-east-1:123456789012:session/01234567-89ab",
            _ => "arn:aws:bedrock:us-east-1:123456789012:knowledge-base/ABCDEFGHIJ",
        })
    }

    /// A raw path with a value for every label; values hold what SDKs escape, and what they leave.
    fn path(&self) -> String {
        let segments = self.template.split('/').enumerate().map(|(place, segment)| {
            if !segment.starts_with('{') {
                return segment.to_owned();
            }
            match self.arn() {
                Some(arn) => arn.replace(':', "%3A").replace('/', "%2F"),
                None if segment == "{modelId}" && self.template.starts_with("/model/") => {
                    "us.anthropic.claude-sonnet-4-5-20250929-v1%3A0".to_owned()
                }
                // The catalogue answers for models that exist.
                None if segment == "{modelIdentifier}" => "amazon.nova-pro-v1%3A0".to_owned(),
                None if segment == "{inferenceProfileIdentifier}" => "us.amazon.nova-pro-v1%3A0".to_owned(),
                None => format!("la.b-e_l~{place}%3Aa%2Fb%20c%2B%C3%A9%40"),
            }
        });
        segments.collect::<Vec<_>>().join("/")
    }

    /// A body that no rewriting survives unseen: spaces, a float, escapes.
    fn body(&self) -> Bytes {
        if !matches!(self.method.as_str(), "POST" | "PUT" | "PATCH") {
            return Bytes::new();
        }
        let resource = match self.service.as_str() {
            "bedrock-data-automation" => "arn:aws:bedrock:us-east-1:123456789012:data-automation-project/0123456789ab",
            _ => "arn:aws:bedrock:us-east-1:123456789012:guardrail/abc",
        };
        let model = "us.anthropic.claude-sonnet-4-5-20250929-v1:0";
        Bytes::from(format!(
            "{{ \"resourceARN\":\"{resource}\" ,\"model\":\"{model}\",\"modelId\":\"{model}\",\n\"n\":1.50e2,\
             \"messages\":[{{\"role\":\"user\",\"content\":[{{\"text\":\"h\\u00e9llo\"}}]}}],\"max_tokens\":5}} "
        ))
    }

    fn asked(&self, prefix: &str) -> Asked {
        let mut asked = Asked::method(&self.method, &format!("{prefix}{}?{QUERY}", self.path()), self.body());
        asked =
            asked.with("content-type", "application/x-amz-json-1.0").with("accept", "*/*").with("user-agent", "it/1.0");
        if let Some(target) = &self.target {
            asked = asked.with("x-amz-target", target);
        }
        asked
    }
}

/// Asserts that `simulator` got exactly what `asked` says, once, and nothing else.
fn assert_forwarded(rig: &Rig, row: &Row, asked: &Asked) {
    let records = rig.simulator.requests();
    let context = format!("{} {} {}", row.service, row.name, asked.path);
    assert_eq!(records.len(), 1, "{context}");
    let record = &records[0];
    assert_eq!((record.service, record.operation), (Some(&*row.service), Some(&*row.name)), "{context}");
    assert!(record.auth.ok && record.auth.kind == "sigv4", "{context}: {:?}", record.auth);
    assert_eq!(record.auth.service.as_deref(), Some(&*row.signing_name), "{context}");
    assert_eq!(record.violations, Vec::<String>::new(), "{context}");
    assert_eq!(record.host, rig.simulator.addr().to_string(), "{context}");
    let (path, query) = asked.path.split_once('?').unwrap();
    let path = path.strip_prefix("/bedrock").filter(|rest| rest.starts_with('/')).unwrap_or(path);
    assert_eq!((&*record.method, &*record.path, &*record.query), (&*asked.method, path, query), "{context}");
    assert_eq!(record.body_len, asked.body.len() as u64, "{context}");
    assert_eq!(record.body_sha256, sha256(&asked.body), "{context}");
    for (name, value) in &record.headers {
        let allowed = HEADERS_ALLOWED.contains(&name.as_str()) || (name == "x-amz-target" && row.target.is_some());
        assert!(allowed, "{context}: header {name}: {value}");
        assert!(
            name != "accept-encoding" || value == "identity",
            "{context}: compressed answers are asked for: {value}"
        );
        assert!(!value.contains(MASTER_KEY) && !value.contains("leak"), "{context}: header {name}: {value}");
    }
    for (name, value) in
        asked.headers.iter().filter(|(name, _)| ["content-type", "accept", "user-agent"].contains(&&**name))
    {
        assert!(record.headers.contains(&(name.clone(), value.clone())), "{context}: {name} did not arrive");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_arrives_as_it_was_sent_with_and_without_the_prefix() {
    let rig = Rig::start().await;
    let rows = table();
    assert_eq!(rows.len(), 523);
    let mut plain = Connection::open(rig.proxy.address, Http::One).await;
    let mut prefixed = Connection::open(rig.proxy.address, Http::Two).await;
    let mut served = 0;
    let mut calls = HashMap::new();
    for row in rows.iter().filter(|row| row.name != SENT_AS_STREAM) {
        let mut noisy = row.asked("/bedrock");
        noisy.headers.extend(HEADERS_FORBIDDEN.map(|(name, value)| (name.to_owned(), value.to_owned())));
        for (connection, asked) in [(&mut plain, row.asked("")), (&mut prefixed, noisy)] {
            rig.simulator.clear_requests();
            let answer = connection.call(&asked).await;
            assert_eq!(answer.status, row.status, "{} {}: {answer:?}", row.service, row.name);
            assert!(answer.broke.is_none() && answer.header("x-amzn-requestid").is_some(), "{answer:?}");
            assert_forwarded(&rig, row, &asked);
            let call_id = answer.call_id().to_owned();
            assert!(calls.insert(call_id, row).is_none(), "two calls have one id");
        }
        served += 1;
    }
    assert_eq!(served, 522);
    // A record is written after its answer has gone out, by whichever worker served it: the call id tells whose it is.
    for record in rig.proxy.records_once(2 * served).await {
        let row = calls.remove(record["call_id"].as_str().unwrap()).expect("one record for each call, and no other");
        assert_eq!((&record["service"], &record["operation"]), (&json!(row.service), &json!(row.name)));
    }
    assert!(calls.is_empty(), "calls without a record: {:?}", calls.keys());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_http_only_surfaces_arrive_as_they_were_sent() {
    let rig = Rig::start().await;
    let body = r#"{"model":"openai.gpt-oss-20b-1:0", "messages":[{"role":"user","content":"Hi"}],"input":"Hi","max_tokens":1.0e1}"#;
    for (method, path, name) in [
        ("POST", "/openai/v1/chat/completions", "OpenAiChatCompletions"),
        ("POST", "/v1/chat/completions", "OpenAiChatCompletions"),
        ("POST", "/openai/v1/responses", "OpenAiResponses"),
        ("GET", "/openai/v1/models", "OpenAiModels"),
        ("POST", "/anthropic/v1/messages", "AnthropicMessages"),
        ("POST", "/anthropic/v1/messages/count_tokens", "AnthropicCountTokens"),
    ] {
        for prefix in ["", "/bedrock"] {
            rig.simulator.clear_requests();
            let body = if method == "POST" { body } else { "" };
            let asked = Asked::method(method, &format!("{prefix}{path}"), body)
                .with("content-type", "application/json")
                .with("anthropic-version", "2023-06-01");
            let answer = rig.proxy.call(&asked).await;
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            let records = rig.simulator.requests();
            assert_eq!(records.len(), 1, "{path}");
            let record = &records[0];
            assert_eq!((record.operation, &*record.path, &*record.method), (Some(name), path, method));
            assert!(record.auth.ok && record.violations.is_empty(), "{path}: {record:?}");
            assert_eq!(record.body_sha256, sha256(body.as_bytes()), "{path}");
            assert!(record.headers.iter().any(|(name, _)| name == "anthropic-version"), "{path}");
        }
    }
}

/// Headers that an operation models itself, and those of Bedrock and of the SDKs, reach AWS.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn modelled_headers_arrive_and_are_signed() {
    let rig = Rig::start().await;
    for (path, headers) in [
        (
            "/model/us.amazon.nova-pro-v1%3A0/invoke",
            &[
                ("x-amzn-bedrock-guardrailidentifier", "gr1"),
                ("x-amzn-bedrock-guardrailversion", "1"),
                ("x-amzn-bedrock-trace", "ENABLED"),
                ("x-amzn-trace-id", "Root=1-abc"),
                ("accept", "application/json"),
            ][..],
        ),
        (
            "/runtimes/arn%3Aaws%3Abedrock-agentcore%3Aus-east-1%3A123456789012%3Aruntime%2Fr1/invocations",
            &[
                ("x-amzn-bedrock-agentcore-runtime-session-id", "s-1"),
                ("x-amzn-bedrock-agentcore-runtime-user-id", "u-1"),
                ("mcp-session-id", "m-1"),
                ("mcp-protocol-version", "2025-06-18"),
            ][..],
        ),
    ] {
        rig.simulator.clear_requests();
        let asked = Asked::post(path, r#"{"messages":[{"role":"user","content":[{"text":"Hi"}]}]}"#);
        let asked = headers.iter().fold(asked, |asked, (name, value)| asked.with(name, value));
        assert_eq!(rig.proxy.call(&asked).await.status, 200);
        let record = rig.simulator.requests().remove(0);
        assert!(record.auth.ok, "{record:?}");
        let signed = record.headers.iter().find(|(name, _)| name == "authorization").unwrap().1.clone();
        for (name, value) in headers {
            assert!(record.headers.contains(&((*name).to_owned(), (*value).to_owned())), "{path}: {name}");
            // What a proxy on the way may rewrite is not signed.
            assert!(*name == "x-amzn-trace-id" || signed.contains(name), "{path}: {name} is not signed");
        }
    }
}

/// A listed name is replaced, wherever the model stands, and nothing else changes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listed_name_becomes_its_model_id_and_nothing_else_changes() {
    use crate::support::Entry;
    let arn = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123";
    // With a base model nobody asks AWS for it: the simulator sees what the client sent, and nothing else.
    let profile = Entry { info: &[("base_model", "us.amazon.nova-pro-v1:0")], ..Entry::new("profile", arn) };
    let rig = Rig::with(&[Entry::new("team/my model", "bedrock/us.amazon.nova-pro-v1:0"), profile], "").await;
    let profile =
        "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Aapplication-inference-profile%2Fabc123/converse";
    for (path, expected) in [
        ("/model/team/my%20model/converse", "/model/us.amazon.nova-pro-v1%3A0/converse"),
        ("/bedrock/model/team%2Fmy%20model/converse", "/model/us.amazon.nova-pro-v1%3A0/converse"),
        ("/bedrock/model/profile/converse", profile),
    ] {
        rig.simulator.clear_requests();
        let asked = Asked::converse(path);
        assert_eq!(rig.proxy.call(&asked).await.status, 200, "{path}");
        let record = rig.simulator.requests().remove(0);
        assert_eq!((&*record.path, &*record.body_sha256), (expected, &*sha256(&asked.body)));
        assert!(record.auth.ok);
    }
    rig.simulator.clear_requests();
    let body =
        r#"{ "max_tokens":5, "model" : "team\/my model", "messages":[{"role":"user","content":"é\u00e9"}],"x":0.10 }"#;
    assert_eq!(rig.proxy.call(&Asked::post("/openai/v1/chat/completions", body)).await.status, 200);
    let expected = body.replace(r#""team\/my model""#, r#""us.amazon.nova-pro-v1:0""#);
    let record = rig.simulator.requests().remove(0);
    assert_eq!((record.body.as_deref(), record.auth.ok), (Some(&*expected), true));
}

/// A Bedrock API key goes upstream as bearer token where the operation takes one; what takes none is not sent with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bedrock_api_key_is_sent_as_bearer_token_only_where_it_is_taken() {
    use crate::support::{BEARER_TOKEN, CLAUDE};
    let simulator = simulator().await;
    let config = format!(
        "model_list:\n  - model_name: claude\n    dheera_ai_params:\n      model: bedrock/us.amazon.nova-pro-v1:0\n      \
         aws_region_name: us-east-1\n      api_key: {BEARER_TOKEN}\n"
    );
    let mut variables = variables(&simulator);
    variables.push(("AWS_BEARER_TOKEN_BEDROCK", BEARER_TOKEN.to_owned()));
    let proxy = Proxy::start(Start { config: Some(&config), variables, ..Start::default() });
    for (asked, kind) in [
        (Asked::converse(CLAUDE), "bearer"),
        (Asked::converse("/model/us.amazon.nova-lite-v1%3A0/converse"), "bearer"),
        (Asked::get("/foundation-models"), "bearer"),
        (Asked::post("/knowledgebases/KB1/retrieve", r#"{"retrievalQuery":{"text":"x"}}"#), "sigv4"),
    ] {
        simulator.clear_requests();
        assert_eq!(proxy.call(&asked).await.status, 200, "{}", asked.path);
        let record = simulator.requests().remove(0);
        assert_eq!((record.auth.kind, record.auth.ok), (kind, true), "{}", asked.path);
    }
}

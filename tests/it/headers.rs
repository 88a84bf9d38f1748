//! The headers that mean something to Bedrock, in both directions: each arrives as it was sent, and what was not sent
//! does not appear on the way. An upstream of bytes, because an HTTP library would add what is to be seen missing.

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::support::{
    ACCESS_KEY, Asked, CLAUDE, Connection, Entry, Http, MASTER_KEY, Proxy, Raw, Rig, SECRET_KEY, Start, config, direct,
    rules,
};

const NOVA_INVOKE: &str = "/model/us.amazon.nova-pro-v1%3A0/invoke";
const NOVA_STREAM: &str = "/model/us.amazon.nova-pro-v1%3A0/invoke-with-response-stream";

/// An upstream that gives `answer` to every request, on a connection of its own each, and tells their heads.
async fn upstream(answer: &'static str) -> (String, mpsc::UnboundedReceiver<Vec<(String, String)>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut raw = Raw::over(stream);
            let Some(head) = raw.request().await else { continue };
            if tell.send(head).is_err() || raw.stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    });
    (url, told)
}

fn proxy(url: &str) -> Proxy {
    let text = config(&[Entry::new("claude", "bedrock/us.amazon.nova-pro-v1:0")], "");
    let variables = vec![
        ("AWS_ENDPOINT_URL", url.to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
    ];
    Proxy::start(Start { config: Some(&text), variables, ..Start::default() })
}

fn value<'h>(headers: &'h [(String, String)], name: &str) -> Option<&'h str> {
    headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
}

/// boto3 sends InvokeModel without Content-Type and Accept; AWS answers some calls without a type.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_type_and_accept_that_are_absent_stay_absent() {
    let answer = "HTTP/1.1 200 OK\r\nx-amzn-RequestId: r-1\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
    let (url, mut told) = upstream(answer).await;
    let proxy = proxy(&url);
    let key = format!("Bearer {MASTER_KEY}");
    for path in ["/bedrock/model/claude/invoke", NOVA_INVOKE, CLAUDE] {
        for http in [Http::One, Http::Two] {
            let asked = Asked::method("POST", path, "{}").bare().with("authorization", &key);
            let answer = Connection::open(proxy.address, http).await.call(&asked).await;
            assert_eq!((answer.status, answer.text()), (200, "{}".to_owned()), "{answer:?}");
            for name in ["content-type", "content-encoding", "server", "vary", "cache-control"] {
                assert_eq!(answer.header(name), None, "{path}: {name} came from nowhere");
            }
            let head = told.recv().await.unwrap();
            for name in ["content-type", "accept", "user-agent", "transfer-encoding"] {
                assert_eq!(value(&head, name), None, "{path}: {name} went upstream from nowhere");
            }
            assert_eq!(value(&head, "content-length"), Some("2"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_of_bedrock_come_back_as_aws_wrote_them() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=UTF-8\r\n\
                  X-Amzn-Bedrock-Input-Token-Count: 7\r\nX-Amzn-Bedrock-Service-Tier: flex\r\n\
                  X-Amzn-Bedrock-PerformanceConfig-Latency: optimized\r\nX-Amzn-Bedrock-Content-Type: application/json\r\n\
                  X-Amzn-Bedrock-Of-Tomorrow: kept, as it is\r\nx-amzn-RequestId: r-1\r\nX-Amzn-ErrorType: none\r\n\
                  content-length: 2\r\nconnection: close\r\n\r\n{}";
    let (url, _told) = upstream(answer).await;
    let proxy = proxy(&url);
    for http in [Http::One, Http::Two] {
        for path in [NOVA_INVOKE, NOVA_STREAM] {
            let answer = Connection::open(proxy.address, http).await.call(&Asked::post(path, "{}")).await;
            for (name, expected) in [
                ("content-type", "application/json; charset=UTF-8"),
                ("x-amzn-bedrock-input-token-count", "7"),
                ("x-amzn-bedrock-service-tier", "flex"),
                ("x-amzn-bedrock-performanceconfig-latency", "optimized"),
                ("x-amzn-bedrock-content-type", "application/json"),
                ("x-amzn-bedrock-of-tomorrow", "kept, as it is"),
                ("x-amzn-requestid", "r-1"),
                ("x-amzn-errortype", "none"),
            ] {
                assert_eq!(answer.header(name), Some(expected), "{path} over {http:?}");
            }
        }
    }
}

/// Every header by which InvokeModel has options, those of Anthropic's SDKs and Claude Code, and request metadata.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_that_are_options_arrive_and_are_signed() {
    let rig = Rig::start().await;
    let options = [
        ("x-amzn-bedrock-trace", "ENABLED_FULL"),
        ("x-amzn-bedrock-guardrailidentifier", "gr1"),
        ("x-amzn-bedrock-guardrailversion", "DRAFT"),
        ("x-amzn-bedrock-performanceconfig-latency", "optimized"),
        ("x-amzn-bedrock-service-tier", "priority"),
        ("x-amzn-bedrock-request-metadata", r#"{"team":"a b","cost":"1.50e2"}"#),
        ("x-amzn-bedrock-of-tomorrow", "kept, as it is"),
        ("anthropic-beta", "claude-code-20250219,interleaved-thinking-2025-05-14"),
        ("anthropic-version", "2023-06-01"),
        ("content-type", "application/octet-stream"),
        ("accept", "application/json"),
    ];
    let body = r#"{"messages":[{"role":"user","content":[{"text":"Hi"}]}]}"#;
    for path in [NOVA_INVOKE, NOVA_STREAM, "/bedrock/model/claude/invoke"] {
        for http in [Http::One, Http::Two] {
            rig.simulator.clear_requests();
            let bare = Asked::method("POST", path, body);
            let mut asked = options.iter().fold(bare, |asked, (name, value)| asked.with(name, value));
            if path == NOVA_STREAM {
                asked = asked.with("x-amzn-bedrock-accept", "application/json");
            }
            assert_eq!(Connection::open(rig.proxy.address, http).await.call(&asked).await.status, 200, "{path}");
            let sent = rig.simulator.requests().remove(0);
            assert!(sent.auth.ok, "{sent:?}");
            let signed = value(&sent.headers, "authorization").unwrap();
            for (name, expected) in asked.headers.iter().filter(|(name, _)| name != "authorization") {
                assert_eq!(value(&sent.headers, name), Some(expected.as_str()), "{path}: {name}");
                assert!(signed.contains(name.as_str()), "{path}: {name} is not signed");
            }
        }
    }
}

/// What InvokeModel says in headers is the same with and without the proxy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invoke_model_has_the_same_headers_with_and_without_the_proxy() {
    let rig = Rig::start().await;
    let usage = json!({ "input": 11, "output": 7, "cache_read": 3 });
    rig.simulator.behave(rules(&json!([{ "usage": usage, "tier": "flex", "latency": "optimized" }])));
    let body = r#"{"messages":[{"role":"user","content":[{"text":"Hi"}]}]}"#;
    for path in [NOVA_INVOKE, NOVA_STREAM] {
        let asked = Asked::post(path, body);
        let expected = direct(&rig.simulator, &asked, "bedrock").await;
        let of_bedrock: Vec<_> =
            expected.headers.iter().filter(|(name, _)| name.as_str().starts_with("x-amzn-bedrock-")).collect();
        assert!(!of_bedrock.is_empty(), "{path}: {expected:?}");
        let answer = rig.proxy.call(&asked).await;
        for (name, value) in of_bedrock {
            // A measurement, not a statement.
            if name != "x-amzn-bedrock-invocation-latency" {
                assert_eq!(answer.headers.get(name), Some(value), "{path}: {name}");
            }
        }
        let count = |headers: &hyper::HeaderMap| {
            headers.keys().filter(|name| name.as_str().starts_with("x-amzn-bedrock-")).count()
        };
        assert_eq!(count(&answer.headers), count(&expected.headers), "{path}");
    }
}

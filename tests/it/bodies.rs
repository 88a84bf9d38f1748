//! Request bodies of every size and framing, over both HTTP versions, on kept connections and through a failover: the
//! upstream gets the same bytes.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::support::{Asked, CLAUDE, Connection, Entry, Http, MASTER_KEY, Raw, Rig, rules, sha256};

const MIB: usize = 1024 * 1024;
const SIZES: [usize; 8] = [0, 1, 1024, 65_535, 65_536, 65_537, MIB, 25 * MIB];

/// Accepts any body.
const ANY_BODY: &str = "/bedrock/guardrails";

/// Bytes without a pattern that a mistake could repeat.
fn noise(size: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ size as u64;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes.into()
}

/// A Converse body of exactly so many bytes.
fn conversation(size: usize) -> Bytes {
    let (start, end) = (r#"{"messages":[{"role":"user","content":[{"text":""#, r#""}]}]}"#);
    format!("{start}{}{end}", "x".repeat(size - start.len() - end.len())).into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_size_and_framing_arrives_unchanged_on_kept_connections() {
    let rig = Rig::start().await;
    for http in [Http::One, Http::Two] {
        for chunk_bytes in [None, Some(16_000)] {
            // One connection for all sizes, each of them twice.
            let mut connection = Connection::open(rig.proxy.address, http).await;
            for size in SIZES.into_iter().flat_map(|size| [size, size.min(MIB)]) {
                rig.simulator.clear_requests();
                let body = noise(size);
                let asked = Asked { chunk_bytes, ..Asked::post(ANY_BODY, body.clone()) };
                let answer = connection.call(&asked).await;
                assert_eq!(answer.status, 202, "{size} {http:?} {chunk_bytes:?}: {answer:?}");
                let request = rig.simulator.requests().remove(0);
                assert_eq!((request.body_len, &request.body_sha256), (size as u64, &sha256(&body)), "{size} {http:?}");
                assert!(request.auth.ok && request.violations.is_empty(), "{request:?}");
                let length =
                    request.headers.iter().find(|(name, _)| name == "content-length").map(|(_, value)| value.clone());
                assert_eq!(length, Some(size.to_string()), "what goes upstream has an announced length");
            }
        }
    }
    let metrics = rig.proxy.metrics().await;
    assert_eq!(metrics.sum("dheera_ai_request_body_bytes_buffered", &[]), 0);
}

/// The first deployment refuses after it has read the body; the second one gets the same body.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_deployment_gets_the_same_body() {
    let west = Entry {
        params: &[("aws_region_name", "us-west-2")],
        ..Entry::new("claude", "bedrock/us.amazon.nova-pro-v1:0")
    };
    let east = Entry {
        params: &[("aws_region_name", "us-east-1")],
        ..Entry::new("claude", "bedrock/us.amazon.nova-pro-v1:0")
    };
    let rig = Rig::with(&[west, east], "").await;
    let throttle = json!({ "kind": "throttle" });
    let unavailable = json!({ "kind": "error", "status": 503, "error_type": "ServiceUnavailableException" });
    let reset = json!({ "kind": "reset" });
    for fault in [throttle.clone(), unavailable, reset] {
        for http in [Http::One, Http::Two] {
            for chunk_bytes in [None, Some(7_000)] {
                let mut connection = Connection::open(rig.proxy.address, http).await;
                let largest =
                    if fault == throttle && (http == Http::Two) == chunk_bytes.is_some() { 25 * MIB } else { MIB };
                for size in [100, 65_535, 65_536, 65_537, largest] {
                    rig.simulator.clear_requests();
                    // Whichever deployment is first.
                    rig.simulator.behave(rules(&json!([{ "match": { "times": 1 }, "fault": fault }])));
                    let body = conversation(size);
                    let asked = Asked { chunk_bytes, ..Asked::post(CLAUDE, body.clone()) };
                    let answer = connection.call(&asked).await;
                    assert_eq!(answer.status, 200, "{fault} {size} {http:?}: {answer:?}");
                    assert_same_body_twice(&rig, &fault, &body);
                }
            }
        }
    }
}

fn assert_same_body_twice(rig: &Rig, fault: &Value, body: &Bytes) {
    let requests = rig.simulator.requests();
    // A connection that was reset leaves no request in the simulator's record.
    let expected = if fault["kind"] == "reset" { 1 } else { 2 };
    assert_eq!(requests.len(), expected, "{fault}");
    for request in &requests {
        assert_eq!((request.body_len, &request.body_sha256), (body.len() as u64, &sha256(body)), "{fault}");
        assert!(request.auth.ok, "{request:?}");
    }
    if let [first, second] = requests.as_slice() {
        assert_ne!(first.auth.region, second.auth.region, "{fault}");
    }
}

fn head(path: &str, more: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: proxy.test\r\nAuthorization: Bearer {MASTER_KEY}\r\n{more}\r\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_waits_for_100_continue_gets_it_and_then_its_answer() {
    let rig = Rig::start().await;
    let body = noise(MIB);
    for framing in ["Content-Length: 1048576\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut raw = Raw::open(rig.proxy.address).await;
        rig.simulator.clear_requests();
        assert!(raw.write(head(ANY_BODY, &format!("{framing}Expect: 100-continue\r\n"))).await);
        // Nothing of the body is sent before this.
        assert_eq!(raw.answer().await.unwrap().status, 100);
        if framing.starts_with('C') {
            assert!(raw.write(&body).await);
        } else {
            for chunk in body.chunks(100_000) {
                assert!(raw.write([format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat()).await);
            }
            assert!(raw.write("0\r\n\r\n").await);
        }
        let answer = raw.answer().await.unwrap();
        assert_eq!(answer.status, 202, "{answer:?}");
        let request = rig.simulator.requests().remove(0);
        assert_eq!(request.body_sha256, sha256(&body));
        // `Expect` is hop by hop: it was answered here.
        assert!(!request.headers.iter().any(|(name, _)| name == "expect"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_without_a_key_is_refused_before_it_sends_its_body() {
    let rig = Rig::start().await;
    let mut raw = Raw::open(rig.proxy.address).await;
    let head = format!(
        "POST {ANY_BODY} HTTP/1.1\r\nHost: proxy.test\r\nAuthorization: Bearer sk-wrong\r\nContent-Length: {MIB}\r\n\
         Expect: 100-continue\r\n\r\n"
    );
    assert!(raw.write(head).await);
    let answer = raw.answer().await.unwrap();
    assert_eq!((answer.status, answer.header("x-amzn-errortype")), (403, Some("AccessDeniedException")), "{answer:?}");
    assert_eq!(answer.header("connection"), Some("close"), "the body was announced and not read");
    assert_eq!(rig.forwarded(), 0);
    rig.proxy.assert_serves(CLAUDE).await;
}

/// Kept connections are used again, to the proxy and from it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_kept() {
    let rig = Rig::start().await;
    let mut raw = Raw::open(rig.proxy.address).await;
    let body = conversation(200);
    for _ in 0..50 {
        let request = head(CLAUDE, &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
        assert!(raw.write([request.as_bytes(), &body].concat()).await);
        assert_eq!(raw.answer().await.unwrap().status, 200);
        assert_eq!(raw.unread(), b"");
    }
    // The client may have its answer, and ask again, a moment before the connection is free again.
    let connections = rig.simulator.counters().connections;
    assert!(connections <= 10, "{connections} connections for 50 calls, one after the other");
}

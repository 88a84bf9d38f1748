//! The simulator over real sockets, spoken to by a client that writes its own bytes.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use hyper::HeaderMap;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::behaviour::Behaviour;
use crate::server::{Credential, Options, Running, Simulator};
use crate::sigv4::{Signed, canonical_request, hmac, signing_key};
use crate::text::hex;
use crate::{clock, eventstream};

pub const KEY: &str = "AKIDTEST";
pub const SECRET: &str = "testing/secret";
pub const CONVERSE: &str = "/model/amazon.nova-pro-v1%3A0/converse";
pub const STREAM: &str = "/model/amazon.nova-pro-v1%3A0/converse-stream";
pub const BODY: &str = r#"{"messages":[{"role":"user","content":[{"text":"one two three four"}]}]}"#;

async fn start() -> Running {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/prices.yaml");
    let credential =
        Credential { access_key_id: KEY.to_owned(), secret_access_key: SECRET.to_owned(), session_token: None };
    let options = Options {
        credentials: vec![credential],
        bearer_tokens: vec!["ABSKtest".to_owned()],
        prices: Some(fixture.into()),
        ..Options::default()
    };
    Simulator::start(options).await.unwrap()
}

fn behave(running: &Running, json: &str) {
    running.behave(serde_json::from_str::<Behaviour>(json).unwrap());
}

/// A signed request as bytes; `extra` lines are added unsigned.
pub fn signed(path: &str, body: &str, extra: &str) -> String {
    let date = clock::format_amz_date(clock::unix_now());
    let headers: HeaderMap = [("host", "sim"), ("x-amz-date", &date)]
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .into_iter()
        .collect();
    let payload_hash = hex(&Sha256::digest(body.as_bytes()));
    let request =
        Signed { method: "POST", path, query: "", host: "sim", headers: &headers, payload_hash: &payload_hash };
    let canonical = canonical_request(&request, "host;x-amz-date");
    let scope = format!("{}/us-west-2/bedrock/aws4_request", &date[..8]);
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex(&Sha256::digest(canonical.as_bytes())));
    let signature = hex(&hmac(&signing_key(SECRET, &scope), to_sign.as_bytes()));
    format!(
        "POST {path} HTTP/1.1\r\nhost: sim\r\nx-amz-date: {date}\r\ncontent-length: {}\r\n{extra}\
         authorization: AWS4-HMAC-SHA256 Credential={KEY}/{scope}, SignedHeaders=host;x-amz-date, Signature={signature}\r\n\r\n{body}",
        body.len()
    )
}

/// Sends bytes and reads until the answer is complete (`connection: close` is not sent: chunked or counted) or breaks.
async fn exchange(running: &Running, request: &str) -> (String, Vec<u8>, std::io::Result<()>) {
    let mut stream = TcpStream::connect(running.addr()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    let end = loop {
        let mut piece = [0; 4096];
        match tokio::time::timeout(Duration::from_secs(2), stream.read(&mut piece)).await {
            Ok(Ok(0)) => break Ok(()),
            Ok(Ok(count)) => seen.extend_from_slice(&piece[..count]),
            Ok(Err(error)) => break Err(error),
            Err(_) => break Err(std::io::ErrorKind::TimedOut.into()),
        }
        if let Some(at) = memchr::memmem::find(&seen, b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&seen[..at]).to_lowercase();
            let length =
                head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse::<usize>().ok());
            if length.is_some_and(|length| seen.len() >= at + 4 + length) || seen.ends_with(b"\r\n0\r\n\r\n") {
                break Ok(());
            }
        }
    };
    let Some(at) = memchr::memmem::find(&seen, b"\r\n\r\n") else { return (String::new(), seen, end) };
    let head = String::from_utf8_lossy(&seen[..at]).into_owned();
    let body = if head.contains("chunked") { dechunk(&seen[at + 4..]) } else { seen[at + 4..].to_vec() };
    (head, body, end)
}

fn dechunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(at) = memchr::memmem::find(bytes, b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..at]).unwrap(), 16).unwrap();
        let end = (at + 2 + size).min(bytes.len());
        body.extend_from_slice(&bytes[at + 2..end]);
        bytes = bytes.get(end + 2..).unwrap_or_default();
    }
    body
}

/// The names of whole frames, and how the rest failed.
fn frame_names(body: &[u8]) -> (Vec<String>, usize, Option<String>) {
    let (mut buffer, mut names) = (BytesMut::from(body), Vec::new());
    loop {
        match eventstream::decode(&mut buffer) {
            Ok(Some(frame)) => {
                let name = [":event-type", ":exception-type", ":error-code"].iter().find_map(|name| frame.header(name));
                if let Some(eventstream::Value::Text(name)) = name {
                    names.push(name.clone());
                }
            }
            Ok(None) => return (names, buffer.len(), None),
            Err(error) => return (names, buffer.len(), Some(error)),
        }
    }
}

#[tokio::test]
async fn a_signed_request_is_answered_recorded_and_billed() {
    let running = start().await;
    let (head, body, _) = exchange(&running, &signed(CONVERSE, BODY, "x-amzn-bedrock-trace: ENABLED\r\n")).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let usage = serde_json::from_slice::<serde_json::Value>(&body).unwrap()["usage"].clone();
    let cost = usage["inputTokens"].as_u64().unwrap() * 800 + usage["outputTokens"].as_u64().unwrap() * 3200;
    assert_eq!(running.billed().total_nano_usd, cost);
    let record = running.requests().pop().unwrap();
    assert_eq!((record.service, record.operation), (Some("bedrock-runtime"), Some("Converse")));
    assert_eq!(record.model.as_deref(), Some("amazon.nova-pro-v1:0"));
    assert_eq!((record.path.as_str(), record.host.as_str(), record.status), (CONVERSE, "sim", 200));
    assert_eq!((record.auth.ok, record.auth.region.as_str()), (true, "us-west-2"));
    assert_eq!(record.body.as_deref(), Some(BODY));
    assert!(record.headers.contains(&("x-amzn-bedrock-trace".to_owned(), "ENABLED".to_owned())));
    assert!(record.finished);
    running.shutdown().await;
}

#[tokio::test]
async fn a_wrong_signature_an_unknown_path_and_a_leak_are_refused_and_counted() {
    let running = start().await;
    let tampered = signed(CONVERSE, BODY, "").replace("four", "five");
    let (head, body, _) = exchange(&running, &tampered).await;
    assert!(head.starts_with("HTTP/1.1 403") && head.contains("InvalidSignatureException"), "{head}");
    assert!(String::from_utf8_lossy(&body).contains("canonical string"));
    let (head, ..) = exchange(&running, &signed("/model/x/unheard-of", "{}", "")).await;
    assert!(head.starts_with("HTTP/1.1 404") && head.contains("UnknownOperationException"), "{head}");
    let (head, ..) = exchange(&running, &signed(CONVERSE, BODY, "x-dheera-ai-api-key: sk-1\r\n")).await;
    assert!(head.starts_with("HTTP/1.1 400"), "{head}");
    let (head, ..) = exchange(
        &running,
        &signed(CONVERSE, "", "transfer-encoding: chunked\r\n").replace("\r\n\r\n", "\r\n\r\n0\r\n\r\n"),
    )
    .await;
    assert!(head.starts_with("HTTP/1.1 400"), "{head}");
    let counters = running.counters();
    assert_eq!((counters.authentication_failures, counters.unknown_operations, counters.violations), (1, 1, 2));
    assert_eq!(running.billed().count, 0);
}

#[tokio::test]
async fn bedrock_api_keys_are_accepted_where_aws_accepts_them() {
    let running = start().await;
    let request = |path: &str, token: &str| {
        let length = BODY.len();
        format!(
            "POST {path} HTTP/1.1\r\nhost: sim\r\nauthorization: Bearer {token}\r\ncontent-length: {length}\r\n\r\n{BODY}"
        )
    };
    for (path, token, status) in [
        (CONVERSE, "ABSKtest", "200"),
        (CONVERSE, "ABSKother", "403"),
        (CONVERSE, "sk-virtual", "400"),
        ("/rerank", "ABSKtest", "403"),
        ("/model/x/invoke-with-bidirectional-stream", "ABSKtest", "403"),
    ] {
        let (head, ..) = exchange(&running, &request(path, token)).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{path} {token}: {head}");
    }
}

#[tokio::test]
async fn error_faults_answer_in_aws_form_and_cost_nothing() {
    let running = start().await;
    behave(
        &running,
        r#"{"rules":[{"match":{"times":1},"fault":{"kind":"throttle","retry_after_s":2}},
        {"match":{"operation":"Converse*"},"fault":{"kind":"error","status":503,"error_type":"ServiceUnavailableException"}}]}"#,
    );
    let (head, ..) = exchange(&running, &signed(CONVERSE, BODY, "")).await;
    assert!(head.starts_with("HTTP/1.1 429") && head.contains("retry-after: 2"), "{head}");
    let (head, ..) = exchange(&running, &signed(CONVERSE, BODY, "")).await;
    assert!(head.starts_with("HTTP/1.1 503") && head.contains("ServiceUnavailableException"), "{head}");
    assert_eq!((running.billed().count, running.counters().faults), (0, 2));
}

#[tokio::test]
async fn stream_faults_break_where_they_are_told_to() {
    let running = start().await;
    let fault = async |fault: &str| {
        behave(&running, &format!(r#"{{"rules":[{{"frames":4,"fault":{fault}}}]}}"#));
        let (_, body, end) = exchange(&running, &signed(STREAM, BODY, "")).await;
        let (names, rest, error) = frame_names(&body);
        (names.len(), names.last().cloned().unwrap_or_default(), rest > 0, error.is_some(), end.is_ok())
    };
    let text = "contentBlockDelta".to_owned();
    assert_eq!(fault(r#"{"kind":"slow_first_byte","ms":1}"#).await, (8, "metadata".into(), false, false, true));
    assert_eq!(fault(r#"{"kind":"cut","after_frames":3}"#).await, (3, text.clone(), false, false, true));
    assert_eq!(fault(r#"{"kind":"cut_mid_frame","after_frames":3}"#).await, (3, text.clone(), true, false, true));
    assert_eq!(
        fault(r#"{"kind":"cut_mid_frame","after_frames":3,"clean":true}"#).await,
        (3, text.clone(), true, false, true)
    );
    let exception = fault(r#"{"kind":"exception_frame","after_frames":2,"name":"throttlingException"}"#).await;
    assert_eq!(exception, (3, "throttlingException".into(), false, false, true));
    assert!(fault(r#"{"kind":"bad_crc","frame":2}"#).await.3);
    assert!(!fault(r#"{"kind":"reset","after_frames":1}"#).await.4);
    assert_eq!(fault(r#"{"kind":"reset"}"#).await, (0, String::new(), false, false, false));
    assert_eq!(fault(r#"{"kind":"slow_body","bytes":100,"interval_ms":1}"#).await.0, 8);
    assert_eq!(fault(r#"{"kind":"stall_mid_stream","after_frames":2}"#).await, (2, text, false, false, false));
    assert_eq!(fault(r#"{"kind":"stall_before_header"}"#).await.0, 0);
}

#[tokio::test]
async fn a_stream_cut_by_its_client_is_billed_in_full_and_an_early_exception_not_at_all() {
    let running = start().await;
    behave(&running, r#"{"rules":[{"usage":{"input":100,"output":50},"frames":1000,"frame_rate_hz":50}]}"#);
    let mut stream = TcpStream::connect(running.addr()).await.unwrap();
    stream.write_all(signed(STREAM, BODY, "").as_bytes()).await.unwrap();
    let mut piece = [0; 64];
    assert!(stream.read(&mut piece).await.unwrap() > 0);
    drop(stream);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(running.billed().total_nano_usd, 100 * 800 + 50 * 3200);
    assert!(!running.requests()[0].finished);
    running.clear_billed();
    behave(
        &running,
        r#"{"rules":[{"fault":{"kind":"exception_frame","after_frames":0,"name":"modelStreamErrorException"}}]}"#,
    );
    exchange(&running, &signed(STREAM, BODY, "")).await.2.unwrap();
    assert_eq!(running.billed().count, 0);
}

#[tokio::test]
async fn frames_are_paced() {
    let running = start().await;
    behave(&running, r#"{"rules":[{"frames":20,"frame_rate_hz":100}]}"#);
    let begun = std::time::Instant::now();
    exchange(&running, &signed(STREAM, BODY, "")).await.2.unwrap();
    let elapsed = begun.elapsed();
    assert!(elapsed >= Duration::from_millis(220) && elapsed < Duration::from_millis(1500), "{elapsed:?}");
}

#[tokio::test]
async fn refused_connections_and_a_free_port_after_shutdown() {
    let running = start().await;
    behave(&running, r#"{"refuse_connections":1}"#);
    let (head, _, _) = exchange(&running, &signed(CONVERSE, BODY, "")).await;
    assert_eq!(head, "");
    let (head, ..) = exchange(&running, &signed(CONVERSE, BODY, "")).await;
    assert!(head.starts_with("HTTP/1.1 200"));
    let address = running.addr();
    running.shutdown().await;
    assert!(tokio::net::TcpListener::bind(address).await.is_ok());
}

/// A signed frame of a request stream, and its signature.
fn signed_frame(inner: &[u8], previous: &str, scope: &str) -> (bytes::Bytes, String) {
    let seconds = clock::unix_now();
    let date_header = [b"\x05:date\x08".as_slice(), &(seconds * 1000).to_be_bytes()].concat();
    let to_sign = format!(
        "AWS4-HMAC-SHA256-PAYLOAD\n{}\n{scope}\n{previous}\n{}\n{}",
        clock::format_amz_date(seconds),
        hex(&Sha256::digest(&date_header)),
        hex(&Sha256::digest(inner))
    );
    let signature = hmac(&signing_key(SECRET, scope), to_sign.as_bytes());
    let mut frame = vec![0; 12];
    frame.extend_from_slice(&date_header);
    frame.extend_from_slice(b"\x10:chunk-signature\x06\x00\x20");
    frame.extend_from_slice(&signature);
    (eventstream::finish(frame, inner), hex(&signature))
}

/// Opens a bidirectional stream, sends one event and the end, and gives the names of what came back.
async fn converse_both_ways(running: &Running, spoil_end: bool) -> Vec<String> {
    let path = "/model/amazon.nova-2-sonic-v1%3A0/invoke-with-bidirectional-stream";
    let date = clock::format_amz_date(clock::unix_now());
    let literal = crate::chunk_signature::STREAMING_PAYLOAD;
    let fields = [("host", "sim"), ("x-amz-content-sha256", literal), ("x-amz-date", &date)];
    let headers: HeaderMap =
        fields.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).into_iter().collect();
    let request = Signed { method: "POST", path, query: "", host: "sim", headers: &headers, payload_hash: literal };
    let canonical = canonical_request(&request, "host;x-amz-content-sha256;x-amz-date");
    let scope = format!("{}/us-west-2/bedrock/aws4_request", &date[..8]);
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex(&Sha256::digest(canonical.as_bytes())));
    let signature = hex(&hmac(&signing_key(SECRET, &scope), to_sign.as_bytes()));
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: sim\r\nx-amz-date: {date}\r\nx-amz-content-sha256: {literal}\r\n\
         transfer-encoding: chunked\r\nauthorization: AWS4-HMAC-SHA256 Credential={KEY}/{scope}, \
         SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature={signature}\r\n\r\n"
    );
    let chunk = eventstream::event("chunk", br#"{"bytes":"eyJldmVudCI6e319"}"#);
    let (first, first_signature) = signed_frame(&chunk, &signature, &scope);
    let (last, _) = signed_frame(b"", if spoil_end { &signature } else { &first_signature }, &scope);
    let mut stream = TcpStream::connect(running.addr()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    for frame in [first, last] {
        stream.write_all(format!("{:x}\r\n", frame.len()).as_bytes()).await.unwrap();
        stream.write_all(&frame).await.unwrap();
        stream.write_all(b"\r\n").await.unwrap();
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n0\r\n\r\n") {
        assert!(stream.read_buf(&mut seen).await.unwrap() > 0);
    }
    let at = memchr::memmem::find(&seen, b"\r\n\r\n").unwrap();
    frame_names(&dechunk(&seen[at + 4..])).0
}

#[tokio::test]
async fn a_bidirectional_stream_is_verified_chunk_by_chunk_answered_and_billed() {
    let running = start().await;
    assert_eq!(converse_both_ways(&running, false).await, ["chunk", "chunk"]);
    assert_eq!((running.counters().authentication_failures, running.billed().count), (0, 1));
    let usage = running.billed_rows()[0].usage;
    assert!(usage.audio_output > 0 && usage.input > 0);
    assert_eq!(converse_both_ways(&running, true).await, ["chunk", "chunk", "validationException"]);
    assert_eq!((running.counters().authentication_failures, running.billed().count), (1, 2));
}

#[tokio::test]
async fn usage_of_a_bidirectional_stream_that_was_not_reported_is_not_billed() {
    let running = start().await;
    behave(&running, r#"{"rules":[{"fault":{"kind":"cut","after_frames":1,"clean":true}}]}"#);
    assert_eq!(converse_both_ways(&running, false).await, ["chunk"]);
    assert_eq!(running.billed().count, 0);
}

#[tokio::test]
async fn tokens_can_be_as_many_as_the_request_can_cause() {
    let running = start().await;
    behave(&running, r#"{"rules":[{"tokens":"bytes"}]}"#);
    let body = r#"{"messages":[{"role":"user","content":[{"text":"hi"}]}],"inferenceConfig":{"maxTokens":321}}"#;
    let input = u64::try_from(body.len()).unwrap();
    for path in [CONVERSE, STREAM] {
        exchange(&running, &signed(path, body, "")).await.2.unwrap();
    }
    let claude = "/model/anthropic.claude-sonnet-4-20250514-v1%3A0";
    let anthropic =
        r#"{"anthropic_version":"bedrock-2023-05-31","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#;
    for operation in ["invoke", "invoke-with-response-stream"] {
        exchange(&running, &signed(&format!("{claude}/{operation}"), anthropic, "")).await.2.unwrap();
    }
    let billed: Vec<_> = running.billed_rows().iter().map(|row| (row.usage.input, row.usage.output)).collect();
    let other = (u64::try_from(anthropic.len()).unwrap(), 9);
    assert_eq!(billed, [(input, 321), (input, 321), other, other]);
    let (_, answer, _) = exchange(&running, &signed(CONVERSE, body, "")).await;
    let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!((&answer["usage"]["outputTokens"], &answer["stopReason"]), (&321.into(), &"max_tokens".into()));
    assert!(answer["output"]["message"]["content"][0]["text"].as_str().unwrap().len() >= 321);
}

/// Begins a stream of 1,000 frames, leaves it after some bytes, and gives what it was billed once that is known.
async fn billed_of_a_stream_left_early(bill: &str) -> u64 {
    let running = start().await;
    let rule = r#"{"rules":[{"usage":{"input":100,"output":1000},"frames":1000,"frame_rate_hz":50,BILL}]}"#;
    behave(&running, &rule.replace("BILL", bill));
    let mut stream = TcpStream::connect(running.addr()).await.unwrap();
    stream.write_all(signed(STREAM, BODY, "").as_bytes()).await.unwrap();
    let mut piece = [0; 64];
    assert!(stream.read(&mut piece).await.unwrap() > 0);
    drop(stream);
    while running.billed().count == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let row = running.billed_rows().remove(0);
    assert_eq!(row.usage.input, 100);
    row.usage.output
}

#[tokio::test]
async fn a_stream_can_be_billed_by_what_left_of_it() {
    let output = billed_of_a_stream_left_early(r#""bill":"delivered""#).await;
    assert!((1..900).contains(&output), "{output}");
    assert_eq!(billed_of_a_stream_left_early(r#""bill":"full""#).await, 1000);
    let running = start().await;
    behave(&running, r#"{"rules":[{"usage":{"input":1,"output":77},"frames":20,"bill":"delivered"}]}"#);
    exchange(&running, &signed(STREAM, BODY, "")).await.2.unwrap();
    exchange(&running, &signed(CONVERSE, BODY, "")).await.2.unwrap();
    assert_eq!(running.billed_rows().iter().map(|row| row.usage.output).collect::<Vec<_>>(), [77, 77]);
}

#[tokio::test]
async fn a_call_can_be_billed_when_it_arrives() {
    let running = start().await;
    behave(&running, r#"{"rules":[{"bill":"arrived","delay_ms":60000}]}"#);
    let mut stream = TcpStream::connect(running.addr()).await.unwrap();
    stream.write_all(signed(CONVERSE, BODY, "").as_bytes()).await.unwrap();
    while running.billed().count == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(running.max_concurrent().all, 1);
    drop(stream);
    // One that is answered is billed once, one that is refused not at all, be it by an exception in a stream.
    for (fault, billed) in [
        (r#"{"kind":"throttle"}"#, 2),
        (r#"{"kind":"exception_frame","after_frames":0,"name":"throttlingException"}"#, 3),
        (r#"{"kind":"error_frame","after_frames":0,"code":"throttled"}"#, 4),
    ] {
        let fault = format!(r#"{{"match":{{"operation":"ConverseStream"}},"fault":{fault}}}"#);
        behave(&running, &format!(r#"{{"rules":[{{"bill":"arrived"}},{fault}]}}"#));
        exchange(&running, &signed(CONVERSE, BODY, "")).await.2.unwrap();
        exchange(&running, &signed(STREAM, BODY, "")).await.2.unwrap();
        assert_eq!(running.billed().count, billed, "{fault}");
    }
}

#[tokio::test]
async fn a_call_that_is_left_before_its_first_byte_is_not_billed() {
    let running = start().await;
    behave(&running, r#"{"rules":[{"delay_ms":60000}]}"#);
    let mut stream = TcpStream::connect(running.addr()).await.unwrap();
    stream.write_all(signed(CONVERSE, BODY, "").as_bytes()).await.unwrap();
    while running.counters().requests == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    drop(stream);
    behave(&running, "{}");
    exchange(&running, &signed(CONVERSE, BODY, "")).await.2.unwrap();
    assert_eq!(running.billed().count, 1);
}

#[tokio::test]
async fn answers_are_delayed_at_the_same_time_and_counted() {
    let running = Arc::new(start().await);
    behave(
        &running,
        r#"{"rules":[{"delay_ms":300},{"match":{"operation":"ConverseStream"},"fault":{"kind":"throttle"}}]}"#,
    );
    let begun = std::time::Instant::now();
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..40 {
        let running = Arc::clone(&running);
        let request = signed(if number % 4 == 0 { STREAM } else { CONVERSE }, BODY, "");
        calls.spawn(async move { exchange(&running, &request).await.0 });
    }
    let heads = calls.join_all().await;
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(heads.iter().filter(|head| head.starts_with("HTTP/1.1 429")).count(), 10);
    let max = running.max_concurrent();
    assert_eq!((max.all, max.by_model["amazon.nova-pro-v1:0"], max.by_access_key[KEY]), (40, 40, 40));
    running.clear_requests();
    assert_eq!(running.max_concurrent().all, 0);
    for _ in 0..20 {
        exchange(&running, &signed(STREAM, BODY, "")).await.2.unwrap();
    }
    assert_eq!(running.max_concurrent().all, 1);
}

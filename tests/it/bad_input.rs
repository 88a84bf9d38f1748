//! What no honest client sends, and what many do by mistake. Each case has its documented answer (docs/errors.md), reaches
//! no upstream, leaves nothing behind that could be taken for the next request, and the proxy goes on serving.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::support::{Asked, CLAUDE, CLAUDE_STREAM, Connection, End, Http, MASTER_KEY, Raw, Rig, eventually, rules};

const MIB: usize = 1024 * 1024;
const BODY: &str = r#"{"messages":[{"role":"user","content":[{"text":"Hello"}]}]}"#;

/// What the connection is after the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Kept,
    Closed,
}

fn head(method: &str, target: &str, headers: &str) -> Vec<u8> {
    format!("{method} {target} HTTP/1.1\r\nHost: proxy.test\r\nAuthorization: Bearer {MASTER_KEY}\r\n{headers}\r\n")
        .into_bytes()
}

fn with_body(target: &str, headers: &str, body: &str) -> Vec<u8> {
    [head("POST", target, &format!("{headers}Content-Length: {}\r\n", body.len())), body.as_bytes().to_vec()].concat()
}

/// Sends bytes, expects an error in AWS's form, and checks everything that holds for each refused request.
async fn refused(rig: &Rig, what: &str, request: &[u8], status: u16, error_type: &str, reason: &str, after: After) {
    let forwarded = rig.forwarded();
    let mut raw = Raw::open(rig.proxy.address).await;
    raw.write(request).await;
    let answer = raw.answer().await.unwrap_or_else(|| panic!("{what}: no answer"));
    assert_eq!((answer.status, answer.header("x-amzn-errortype")), (status, Some(error_type)), "{what}: {answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "{what}");
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert!(body["message"].as_str().is_some_and(|message| message.len() > 10), "{what}: {body}");
    let call_id = answer.header("x-dheera-ai-call-id").unwrap_or_else(|| panic!("{what}: no call id"));
    let record = rig.proxy.record(call_id).await;
    assert_eq!((&record["reason"], &record["status"]), (&json!(reason), &json!(status)), "{what}: {record}");
    match after {
        After::Kept => {
            assert!(raw.write(with_body(CLAUDE, "", BODY)).await, "{what}");
            assert_eq!(
                raw.answer().await.map(|answer| answer.status),
                Some(200),
                "{what}: the connection is not usable"
            );
            assert_eq!(rig.forwarded(), forwarded + 1, "{what}");
        }
        After::Closed => {
            assert_eq!(answer.header("connection"), Some("close"), "{what}");
            raw.finish_writing().await;
            raw.end().await;
            assert_eq!(raw.unread(), b"", "{what}: something followed the answer");
            assert_eq!(rig.forwarded(), forwarded, "{what}: forwarded");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_that_could_be_read_in_two_ways_are_refused() {
    let rig = Rig::start().await;
    for path in [
        "/bedrock/model/../converse",
        "/bedrock/model/claude/../../guardrails",
        "/bedrock/model/./converse",
        "/bedrock/model/%2e%2e/converse",
        "/bedrock/model/%2E%2e%2Fclaude/converse",
        "/bedrock/model/..%2fclaude/converse",
        "/bedrock/model/%252e%252e/converse",
        "/bedrock/model/a%252fb/converse",
        "/bedrock/knowledgebases/a%25%32%66b/retrieve",
        "/bedrock//model/claude/converse",
        "//model/claude/converse",
        "/bedrock/model//converse",
        "/bedrock/model/claude%0d%0aX-Injected:%201/converse",
        "/bedrock/model/claude%00/converse",
        "/bedrock/model/claude%/converse",
        "/bedrock/model/claude%zz/converse",
        "/bedrock/model/claude%ff/converse",
        "/bedrock/model/claude;v=1/converse",
        "/bedrock/model/claude\\x/converse",
        "/bedrock/knowledgebases/KB1%0d%0aX-Injected:%201/retrieve",
        "/bedrock/knowledgebases/%2e%2e/retrieve",
        "/bedrock/knowledgebases/KB1/%72etrieve",
    ] {
        refused(&rig, path, &with_body(path, "", BODY), 400, "ValidationException", "bad_path", After::Closed).await;
    }
    // The same without a body, where nothing is unread.
    let request = head("GET", "/bedrock/model/../converse", "");
    refused(&rig, "without a body", &request, 400, "ValidationException", "bad_path", After::Kept).await;
    assert_eq!(rig.simulator.counters().violations, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_operations_and_models_are_not_found() {
    let rig = Rig::start().await;
    for (method, path) in [
        ("POST", "/nothing"),
        ("POST", "/bedrock"),
        ("POST", "/bedrock/"),
        ("POST", "/"),
        ("GET", "/"),
        ("GET", "/bedrock/model/claude/converse"),
        ("DELETE", "/bedrock/model/claude/converse"),
        ("BREW", "/bedrock/model/claude/converse"),
        ("POST", "/bedrock/model/claude/converse/"),
        ("POST", "/bedrock/model/claude"),
        ("POST", "/bedrock/bedrock/model/claude/converse"),
        ("POST", "/BEDROCK/model/claude/converse"),
        ("POST", "/openai/v1/embeddings"),
        // What stands behind a space is part of the target, not of the version.
        ("GET", "/bedrock/foundation-models evil"),
        ("GET", "/favicon.ico"),
    ] {
        let request = head(method, path, "");
        let what = format!("{method} {path}");
        refused(&rig, &what, &request, 404, "UnknownOperationException", "unknown_operation", After::Kept).await;
    }
    for name in [
        "clod",
        "no%20model",
        "%C3%A9t%C3%A9",
        "arn%3Aaws%3As3%3A%3A%3Abucket",
        "http%3A%2F%2Fevil.test%2Fx",
        "a%25%32%66b",
    ] {
        let path = format!("/bedrock/model/{name}/converse");
        refused(
            &rig,
            &path,
            &with_body(&path, "", BODY),
            404,
            "ResourceNotFoundException",
            "unknown_model",
            After::Kept,
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_must_be_read_and_cannot_be_are_refused() {
    let rig = Rig::start().await;
    for body in [
        "",
        "{",
        "[]",
        "null",
        "{\"model\":1}",
        "{\"messages\":[]}",
        "{\"model\":\"a.b\",\"model\":\"c.d\"}",
        "\u{0}\u{1}",
    ] {
        for path in ["/openai/v1/chat/completions", "/anthropic/v1/messages", "/async-invoke"] {
            let what = format!("{path} {body:?}");
            refused(&rig, &what, &with_body(path, "", body), 400, "ValidationException", "bad_body", After::Kept).await;
        }
    }
    for body in ["", "{}", "[1]", "{\"resourceARN\":1}", "{\"resourceARN\":\"a\",\"resourceARN\":\"b\"}"] {
        let what = format!("/tagResource {body:?}");
        refused(&rig, &what, &with_body("/tagResource", "", body), 400, "ValidationException", "bad_path", After::Kept)
            .await;
    }
    // What AWS itself must judge goes there.
    let answer = rig.proxy.call(&Asked::post(CLAUDE, "{ no json")).await;
    answer.assert_error(400, "ValidationException");
    assert_eq!(rig.proxy.record(answer.call_id()).await["reason"], "upstream_status");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_are_too_large_are_refused_however_they_are_framed() {
    let rig = Rig::start().await;
    let length = 25 * MIB + 1;
    let announced = head("POST", CLAUDE, &format!("Content-Length: {length}\r\n"));
    refused(&rig, "announced", &announced, 413, "ValidationException", "body_too_large", After::Closed).await;
    let huge = head("POST", CLAUDE, "Content-Length: 18446744073709551615\r\n");
    refused(&rig, "a length of 2^64 - 1", &huge, 413, "ValidationException", "body_too_large", After::Closed).await;
    // Announced, and all of it sent at once: the answer must arrive in spite of it.
    let sent = [head("POST", CLAUDE, &format!("Content-Length: {}\r\n", 26 * MIB)), vec![b'x'; 26 * MIB]].concat();
    refused(&rig, "announced and sent", &sent, 413, "ValidationException", "body_too_large", After::Closed).await;
    for http in [Http::One, Http::Two] {
        let asked = Asked::post(CLAUDE, vec![b'x'; length]).chunked(50_000);
        let mut connection = Connection::open(rig.proxy.address, http).await;
        let answer = connection.call(&asked).await;
        answer.assert_error(413, "ValidationException");
    }
    assert_eq!(rig.forwarded(), 0);
    let metrics = rig.proxy.metrics().await;
    assert_eq!(metrics.sum("dheera_ai_request_body_bytes_buffered", &[]), 0);
    rig.proxy.assert_serves(CLAUDE).await;
}

/// The client writes for ever; the proxy stops reading at its limit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endless_body_is_refused_and_its_connection_closed() {
    let rig = Rig::start().await;
    let mut raw = Raw::open(rig.proxy.address).await;
    assert!(raw.write(head("POST", CLAUDE, "Transfer-Encoding: chunked\r\n")).await);
    let chunk = [format!("{:x}\r\n", 256 * 1024).into_bytes(), vec![b'x'; 256 * 1024], b"\r\n".to_vec()].concat();
    let mut sent = 0;
    while raw.write(&chunk).await {
        sent += 256 * 1024;
        assert!(sent < 1024 * MIB, "the proxy reads on");
    }
    assert!(sent >= 25 * MIB, "{sent}");
    assert_eq!(rig.forwarded(), 0);
    let too_large = || rig.proxy.records().into_iter().find(|record| record["reason"] == "body_too_large");
    eventually("the record", too_large).await;
    rig.proxy.assert_serves(CLAUDE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ambiguous_framing_is_refused() {
    let rig = Rig::start().await;
    let length = BODY.len();
    let chunked = format!("{length:x}\r\n{BODY}\r\n0\r\n\r\n");
    for (headers, body) in [
        (format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"), &*chunked),
        (format!("Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n"), &*chunked),
        (format!("Content-Length: {length}\r\nContent-Length: {length}\r\n"), BODY),
        (format!("Content-Length: {length}, {length}\r\n"), BODY),
        ("Transfer-Encoding: gzip, chunked\r\n".to_owned(), &*chunked),
        ("Transfer-Encoding: chunked, chunked\r\n".to_owned(), &*chunked),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n".to_owned(), &*chunked),
    ] {
        let request = [head("POST", CLAUDE, &headers), body.as_bytes().to_vec()].concat();
        refused(&rig, &headers, &request, 400, "ValidationException", "ambiguous_framing", After::Closed).await;
    }
}

/// What is malformed below HTTP never becomes a request: a bare 400, or the connection just ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_http_is_answered_400_or_closed() {
    let rig = Rig::start().await;
    let key = format!("Authorization: Bearer {MASTER_KEY}\r\n");
    let many = |count: usize| (0..count).map(|number| format!("x-{number}: 1\r\n")).collect::<Vec<_>>().concat();
    for (what, request) in [
        ("garbage", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 garbage \r\n\r\n".to_vec()),
        ("zeros", [vec![0; 100], b"\r\n\r\n".to_vec()].concat()),
        ("no version", format!("POST {CLAUDE}\r\n{key}\r\n").into_bytes()),
        ("a version nobody knows", format!("POST {CLAUDE} HTTP/7.3\r\n{key}\r\n").into_bytes()),
        (
            "two lengths",
            format!("POST {CLAUDE} HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n{key}\r\nabc").into_bytes(),
        ),
        ("two spaces before the target", format!("POST  {CLAUDE} HTTP/1.1\r\n{key}\r\n").into_bytes()),
        ("something behind the version", format!("POST {CLAUDE} HTTP/1.1 x\r\n{key}\r\n").into_bytes()),
        (
            "a space before the colon",
            format!("POST {CLAUDE} HTTP/1.1\r\nContent-Length : 3\r\n{key}\r\nabc").into_bytes(),
        ),
        ("a header without colon", format!("POST {CLAUDE} HTTP/1.1\r\nnonsense\r\n{key}\r\n").into_bytes()),
        ("a folded header", format!("POST {CLAUDE} HTTP/1.1\r\nx-a: 1\r\n 2\r\n{key}\r\n").into_bytes()),
        ("a zero in a header", format!("POST {CLAUDE} HTTP/1.1\r\nx-a: 1\0\r\n{key}\r\n").into_bytes()),
        ("a bare CR in a header", format!("POST {CLAUDE} HTTP/1.1\r\nx-a: 1\rx-b: 2\r\n{key}\r\n").into_bytes()),
        ("300 headers", format!("POST {CLAUDE} HTTP/1.1\r\n{key}{}\r\n", many(300)).into_bytes()),
    ] {
        let mut raw = Raw::open(rig.proxy.address).await;
        raw.write(&request).await;
        raw.finish_writing().await;
        if let Some(answer) = raw.answer().await {
            assert_eq!(answer.status, 400, "{what}: {answer:?}");
        }
        raw.end().await;
        assert_eq!(rig.forwarded(), 0, "{what}: forwarded");
    }
    // A length that is no number, two different ones, an unknown coding: the HTTP layer itself refuses them.
    let lengths = ["+3", "-3", "3 3", "0x3", "", "three", "99999999999999999999999", "3\r\nContent-Length: 4"];
    let codings = ["", "identity", "xchunked", "chunked, identity"];
    let lengths = lengths.iter().map(|length| format!("Content-Length: {length}\r\n"));
    for framing in lengths.chain(codings.iter().map(|coding| format!("Transfer-Encoding: {coding}\r\n"))) {
        let mut raw = Raw::open(rig.proxy.address).await;
        raw.write([head("POST", CLAUDE, &framing), b"abc".to_vec()].concat()).await;
        let answer = raw.answer().await.unwrap_or_else(|| panic!("{framing}: no answer"));
        assert_eq!((answer.status, answer.header("connection")), (400, Some("close")), "{framing}: {answer:?}");
        raw.finish_writing().await;
        raw.end().await;
        assert_eq!(raw.unread(), b"", "{framing}");
        assert_eq!(rig.forwarded(), 0, "{framing}: forwarded");
    }
    rig.proxy.assert_serves(CLAUDE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_that_are_too_large_are_refused() {
    let rig = Rig::start().await;
    for (what, headers) in [
        ("one header", format!("x-large: {}\r\n", "x".repeat(64 * 1024))),
        (
            "many headers",
            (0..200).map(|number| format!("x-{number}: {}\r\n", "x".repeat(400))).collect::<Vec<_>>().concat(),
        ),
    ] {
        let request = head("GET", "/bedrock/foundation-models", &headers);
        refused(&rig, what, &request, 431, "ValidationException", "head_too_large", After::Kept).await;
    }
    // A head that never ends is not kept in memory for ever.
    let mut raw = Raw::open(rig.proxy.address).await;
    let mut sent = 0;
    assert!(raw.write(format!("POST {CLAUDE} HTTP/1.1\r\n")).await);
    while raw.write(format!("x-{sent}: {}\r\n", "x".repeat(4000))).await {
        sent += 4000;
        assert!(sent < 64 * MIB, "the proxy reads on");
    }
    // Over HTTP/2, which has a bound of its own just above ours.
    let forwarded = rig.forwarded();
    let large = Asked::get("/bedrock/foundation-models").with("x-large", &"x".repeat(80 * 1024));
    let mut connection = Connection::open(rig.proxy.address, Http::Two).await;
    if let Ok(response) = connection.try_begin(&large).await {
        assert_eq!(response.status(), 431);
    }
    assert_eq!(rig.forwarded(), forwarded);
    rig.proxy.assert_serves(CLAUDE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_checked_wherever_they_stand() {
    let rig = Rig::start().await;
    let sigv4 = |id: &str| {
        format!(
            "AWS4-HMAC-SHA256 Credential={id}/20261122/us-east-1/bedrock/aws4_request, SignedHeaders=host;x-amz-date, Signature=ab"
        )
    };
    for (name, value) in [
        ("authorization", format!("Bearer {MASTER_KEY}")),
        ("authorization", format!("bearer {MASTER_KEY}")),
        ("authorization", sigv4(MASTER_KEY)),
        ("x-api-key", MASTER_KEY.to_owned()),
        ("api-key", MASTER_KEY.to_owned()),
        ("x-dheera-ai-api-key", MASTER_KEY.to_owned()),
        ("x-litellm-api-key", format!("Bearer {MASTER_KEY}")),
    ] {
        for http in [Http::One, Http::Two] {
            let asked = Asked::converse(CLAUDE).bare().with(name, &value);
            let answer = Connection::open(rig.proxy.address, http).await.call(&asked).await;
            assert_eq!(answer.status, 200, "{name}: {value}: {answer:?}");
        }
    }
    let forwarded = rig.forwarded();
    let nearly = &MASTER_KEY[..MASTER_KEY.len() - 1];
    for (name, value, reason) in [
        ("cookie", format!("key={MASTER_KEY}"), "key_missing"),
        ("authorization", "Bearer ".to_owned(), "key_missing"),
        ("authorization", format!("Bearer {nearly}"), "key_unknown"),
        ("authorization", format!("Bearer {MASTER_KEY}x"), "key_unknown"),
        ("authorization", format!("Bearer {}", MASTER_KEY.to_uppercase()), "key_unknown"),
        ("authorization", sigv4(nearly), "key_unknown"),
        ("authorization", sigv4("AKIDTESTSACCESSKEY01"), "key_unknown"),
        ("authorization", MASTER_KEY.to_owned(), "key_malformed"),
        ("authorization", "Negotiate abc".to_owned(), "key_malformed"),
        ("x-api-key", "x".repeat(10_000), "key_malformed"),
        // The first place that is used decides; a right key elsewhere does not help.
        ("x-dheera-ai-api-key", "wrong".to_owned(), "key_unknown"),
    ] {
        let mut asked = Asked::converse(CLAUDE).bare().with(name, &value);
        if name == "x-dheera-ai-api-key" {
            asked = asked.with("authorization", &format!("Bearer {MASTER_KEY}"));
        }
        for http in [Http::One, Http::Two] {
            let answer = Connection::open(rig.proxy.address, http).await.call(&asked).await;
            answer.assert_error(403, "AccessDeniedException");
            assert!(!answer.text().contains(nearly), "the key stands in {}", answer.text());
            assert_eq!(rig.proxy.record(answer.call_id()).await["reason"], reason, "{name}: {value}");
        }
    }
    // A key in the query is none.
    let asked = Asked::converse(&format!("{CLAUDE}?key={MASTER_KEY}&api-key={MASTER_KEY}")).bare();
    rig.proxy.call(&asked).await.assert_error(403, "AccessDeniedException");
    assert_eq!(rig.forwarded(), forwarded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_ends_before_its_length_is_never_forwarded() {
    let rig = Rig::start().await;
    for sent in [0, 1, 30] {
        let mut raw = Raw::open(rig.proxy.address).await;
        assert!(raw.write(head("POST", CLAUDE, "Content-Length: 59\r\n")).await);
        assert!(raw.write(&BODY[..sent]).await);
        raw.finish_writing().await;
        if let Some(answer) = raw.answer().await {
            assert_eq!(
                (answer.status, answer.header("x-amzn-errortype")),
                (400, Some("ValidationException")),
                "{answer:?}"
            );
        }
        raw.end().await;
    }
    for piece in
        ["5\r\nhel", "5\r\nhello\r\n", "zz\r\nhello\r\n0\r\n\r\n", "-5\r\nhello\r\n0\r\n\r\n", "fffffffffffffffff\r\nx"]
    {
        let mut raw = Raw::open(rig.proxy.address).await;
        assert!(raw.write(head("POST", CLAUDE, "Transfer-Encoding: chunked\r\n")).await);
        raw.write(piece).await;
        raw.finish_writing().await;
        if let Some(answer) = raw.answer().await {
            assert!((400..500).contains(&answer.status), "{piece:?}: {answer:?}");
        }
        raw.end().await;
    }
    assert_eq!(rig.forwarded(), 0);
    rig.proxy.records_once(8).await;
    rig.proxy.assert_serves(CLAUDE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let rig = Rig::with(
        &[crate::support::Entry::new("claude", "bedrock/us.amazon.nova-pro-v1:0")],
        "general_settings:\n  body_timeout: 0.3\n  client_idle_timeout: 0.2\n",
    )
    .await;
    for framing in ["Content-Length: 59\r\n", "Transfer-Encoding: chunked\r\n"] {
        let request = head("POST", CLAUDE, framing);
        refused(&rig, framing, &request, 408, "ValidationException", "body_too_slow", After::Closed).await;
    }
    rig.proxy.assert_serves(CLAUDE).await;
}

/// The announced body of a refused request is not the next request, whatever it looks like.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unread_body_is_never_parsed_as_a_request() {
    let rig = Rig::start().await;
    let smuggled = String::from_utf8(with_body(CLAUDE, "", BODY)).unwrap();
    for (target, key, status) in
        [("/bedrock/model/../converse", MASTER_KEY, 400), (CLAUDE, "sk-wrong", 403), ("/nothing", MASTER_KEY, 404)]
    {
        let mut raw = Raw::open(rig.proxy.address).await;
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: proxy.test\r\nAuthorization: Bearer {key}\r\nContent-Length: {}\r\n\r\n",
            smuggled.len()
        );
        // In one write, so that the body is in the proxy's buffer with the head; and a further request behind it.
        raw.write([head.as_bytes(), smuggled.as_bytes(), smuggled.as_bytes()].concat()).await;
        assert_eq!(raw.answer().await.unwrap().status, status);
        raw.finish_writing().await;
        raw.end().await;
        assert_eq!(raw.unread(), b"", "{target}: a second answer came");
    }
    assert_eq!(rig.forwarded(), 0);
    rig.proxy.assert_serves(CLAUDE).await;
}

/// Two whole requests in one write: whichever way the proxy takes them, the second is served once or not at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_requests_are_each_served_at_most_once() {
    let rig = Rig::start().await;
    let request = with_body(CLAUDE, "", BODY);
    let mut raw = Raw::open(rig.proxy.address).await;
    raw.write([request.clone(), request].concat()).await;
    assert_eq!(raw.answer().await.unwrap().status, 200);
    raw.finish_writing().await;
    let second = raw.answer().await;
    assert!(second.as_ref().is_none_or(|answer| answer.status == 200), "{second:?}");
    assert_eq!(rig.forwarded(), 1 + u64::from(second.is_some()));
    rig.proxy.assert_serves(CLAUDE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn targets_versions_and_hop_by_hop_headers() {
    let rig = Rig::start().await;
    let upgrade = head("GET", "/bedrock/foundation-models", "Connection: Upgrade\r\nUpgrade: websocket\r\n");
    refused(&rig, "upgrade", &upgrade, 400, "ValidationException", "upgrade", After::Kept).await;
    for target in ["http://evil.test/bedrock/foundation-models", "http://127.0.0.1:1/bedrock/foundation-models", "*"] {
        let method = if target == "*" { "OPTIONS" } else { "GET" };
        let forwarded = rig.forwarded();
        let mut raw = Raw::open(rig.proxy.address).await;
        raw.write(head(method, target, "")).await;
        let answer = raw.answer().await.unwrap();
        // An absolute target may be understood, by its path alone, or refused; it never chooses the upstream.
        assert!([200, 400, 404].contains(&answer.status), "{target}: {answer:?}");
        assert!(rig.forwarded() - forwarded <= 1);
    }
    let forwarded = rig.forwarded();
    let mut raw = Raw::open(rig.proxy.address).await;
    raw.write("CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n").await;
    raw.finish_writing().await;
    assert!(raw.answer().await.is_none_or(|answer| answer.status >= 400));
    assert_eq!(rig.forwarded(), forwarded);
    // The TE header, other hop-by-hop headers and an odd Host are no reason to refuse; they stay here.
    for headers in [
        "TE: trailers\r\n",
        "TE: gzip;q=0.5, deflate\r\n",
        "Connection: keep-alive, x-hop\r\nx-hop: 1\r\n",
        "Keep-Alive: timeout=5\r\n",
    ] {
        let mut raw = Raw::open(rig.proxy.address).await;
        raw.write(with_body(CLAUDE, headers, BODY)).await;
        assert_eq!(raw.answer().await.unwrap().status, 200, "{headers}");
    }
    let mut raw = Raw::open(rig.proxy.address).await;
    let request = format!(
        "POST {CLAUDE} HTTP/1.0\r\nHost: evil.test\r\nAuthorization: Bearer {MASTER_KEY}\r\nContent-Length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    raw.write(request).await;
    assert_eq!(raw.answer().await.unwrap().status, 200);
    assert_eq!(raw.end().await, End::Closed, "HTTP/1.0 closes");
    let own = rig.simulator.addr().to_string();
    assert!(rig.simulator.requests().iter().all(|request| request.host == own && request.violations.is_empty()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stops_reading_is_given_up() {
    let rig = Rig::with(
        &[crate::support::Entry::new("claude", "bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0")],
        "general_settings:\n  client_idle_timeout: 0.5\n",
    )
    .await;
    // Far more than the buffers of two sockets hold.
    rig.simulator.behave(rules(&json!([{ "frames": 2000, "frame_bytes": 50_000 }])));
    let mut raw = Raw::open(rig.proxy.address).await;
    assert!(raw.write(with_body(CLAUDE_STREAM, "", BODY)).await);
    // Nothing is read: the proxy's writes stand still until it gives up, and it says so in the record.
    let given_up = || rig.proxy.records().into_iter().find(|record| record["operation"] == "ConverseStream");
    let record = eventually("the record of the client that does not read", given_up).await;
    assert_eq!(record["fault"], "disconnect", "{record}");
    drop(raw);
    rig.simulator.behave(rules(&json!([])));
    rig.proxy.assert_serves(CLAUDE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_without_a_further_request_is_closed() {
    let rig = Rig::with(&[], "general_settings:\n  client_idle_timeout: 0.5\n").await;
    let mut raw = Raw::open(rig.proxy.address).await;
    for _ in 0..2 {
        assert!(raw.write("GET /health/liveliness HTTP/1.1\r\nHost: proxy.test\r\n\r\n").await);
        assert_eq!(raw.answer().await.map(|answer| answer.status), Some(200));
    }
    assert_eq!(raw.end().await, End::Closed);
}

/// Random bytes in every place, many times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noise_never_stops_the_proxy() {
    let rig = Rig::start().await;
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let base = with_body("/bedrock/model/clod/converse", "x-a: 1\r\n", BODY);
    for _ in 0..300 {
        let mut request = base.clone();
        for _ in 0..=random() % 6 {
            let at = usize::try_from(random()).unwrap() % request.len();
            request[at] = random().to_le_bytes()[0];
        }
        let mut raw = Raw::open(rig.proxy.address).await;
        raw.write(Bytes::from(request)).await;
        raw.finish_writing().await;
        raw.end().await;
    }
    rig.proxy.assert_serves(CLAUDE).await;
}

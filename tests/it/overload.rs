//! More than there is room for: what is served, what waits, what is sent away, and who pays for it; and clients that are
//! slow on purpose, beside one that is not. The upstream answers when a test tells it to.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::support::{
    ACCESS_KEY, Answer, Asked, CLAUDE, CLAUDE_STREAM, Connection, DEADLINE, Entry, Http, MASTER_KEY, Proxy, Raw, Rig,
    SECRET_KEY, Start, call, config, eventually, rules,
};

const ANSWER: &str = r#"{"output":{"message":{"role":"assistant","content":[{"text":"Hi"}]}},"stopReason":"end_turn","usage":{"inputTokens":1,"outputTokens":1,"totalTokens":2}}"#;

/// A request that has reached the upstream.
struct Arrived {
    /// Of its body, by which a test knows it.
    length: usize,
    answer: oneshot::Sender<()>,
}

/// A proxy in front of an upstream that is told when to answer.
struct Held {
    proxy: Proxy,
    arrivals: mpsc::UnboundedReceiver<Arrived>,
}

impl Held {
    async fn start(settings: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (tell, arrivals) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(Raw::over(stream), tell.clone()));
            }
        });
        let entries = [Entry::new("claude", "bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0")];
        let text = config(&entries, &format!("general_settings:\n{settings}"));
        let variables = vec![
            ("AWS_ENDPOINT_URL", url),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
        ];
        let proxy = Proxy::start(Start { config: Some(&text), variables, ..Start::default() });
        Self { proxy, arrivals }
    }

    async fn arrived(&mut self) -> Arrived {
        let arrival = tokio::time::timeout(DEADLINE, self.arrivals.recv()).await;
        arrival.expect("nothing reaches the upstream").expect("the upstream has ended")
    }

    async fn all_arrived(&mut self, count: usize) -> Vec<Arrived> {
        let mut arrived = Vec::new();
        while arrived.len() < count {
            arrived.push(self.arrived().await);
        }
        arrived
    }

    fn nothing_more_has_arrived(&mut self) {
        assert!(self.arrivals.try_recv().is_err(), "one more has reached the upstream");
    }

    /// Waits until so many wait for a place.
    async fn queued(&self, count: u64) {
        metric(&self.proxy, "dheera_ai_requests_queued", count).await;
    }

    fn call(&self, http: Http, asked: Asked) -> JoinHandle<Answer> {
        let address = self.proxy.address;
        tokio::spawn(async move { call(address, http, &asked).await })
    }
}

async fn serve(mut raw: Raw, tell: mpsc::UnboundedSender<Arrived>) {
    while let Some(head) = raw.request().await {
        let length = head.iter().find(|(name, _)| name == "content-length").map_or("0", |(_, length)| length);
        let (answer, told) = oneshot::channel();
        if tell.send(Arrived { length: length.parse().unwrap(), answer }).is_err() || told.await.is_err() {
            return;
        }
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", ANSWER.len());
        if raw.stream.write_all(format!("{head}{ANSWER}").as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Waits until a metric has this value.
async fn metric(proxy: &Proxy, name: &str, value: u64) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        let now = proxy.metrics().await.sum(name, &[]);
        if now == value {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{name} is {now}, not {value}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn assert_sent_away(answer: &Answer) {
    answer.assert_error(503, "ServiceUnavailableException");
    assert_eq!(answer.header("retry-after"), Some("1"), "{answer:?}");
    let pause: u64 = answer.header("x-amz-retry-after").unwrap().parse().unwrap();
    assert!((500..=1000).contains(&pause), "{pause}");
}

fn body_of(length: usize) -> String {
    let frame = json!({ "messages": [{ "role": "user", "content": [{ "text": "" }] }] }).to_string();
    let text = "x".repeat(length.checked_sub(frame.len()).unwrap());
    json!({ "messages": [{ "role": "user", "content": [{ "text": text }] }] }).to_string()
}

const PATIENT: &str = "  admission_queue_timeout: 600\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_many_are_served_so_many_wait_and_the_others_are_sent_away_at_once() {
    let mut held = Held::start(&format!("  max_in_flight_requests: 4\n  max_queued_requests: 4\n{PATIENT}")).await;
    let mut calls = Vec::new();
    for http in [Http::One, Http::Two, Http::One, Http::Two] {
        calls.push(held.call(http, Asked::converse(CLAUDE)));
    }
    let mut running = held.all_arrived(4).await;
    for (waiting, http) in [(1, Http::One), (2, Http::Two), (3, Http::One), (4, Http::Two)] {
        calls.push(held.call(http, Asked::converse(CLAUDE)));
        held.queued(waiting).await;
    }
    for http in [Http::One, Http::Two].repeat(5) {
        let answer = call(held.proxy.address, http, &Asked::converse(CLAUDE)).await;
        assert_sent_away(&answer);
        let record = held.proxy.record(answer.call_id()).await;
        assert_eq!((&record["reason"], &record["fault"]), (&json!("overloaded"), &json!("limit")), "{record}");
        assert_eq!(record["attempts"], json!([]), "{record}");
        assert_eq!(record["request_bytes"], 0, "its body was not read: {record}");
    }
    held.nothing_more_has_arrived();
    assert!(calls.iter().all(|call| !call.is_finished()), "one of the eight did not wait");

    // What is the proxy's own answers meanwhile.
    for path in ["/health/liveliness", "/health/readiness", "/metrics", "/v1/models"] {
        assert_eq!(held.proxy.call(&Asked::get(path)).await.status, 200, "{path}");
    }
    let metrics = held.proxy.metrics().await;
    assert_eq!(metrics.sum("dheera_ai_requests_shed_total", &[("reason", "queue_full")]), 10);
    assert_eq!(metrics.sum("dheera_ai_refused_total", &[("reason", "overloaded")]), 10);

    for served in 0..8 {
        let next = if running.is_empty() { held.arrived().await } else { running.remove(0) };
        next.answer.send(()).unwrap();
        held.queued(3_u64.saturating_sub(served)).await;
    }
    for call in calls {
        assert_eq!(call.await.unwrap().status, 200);
    }
    metric(&held.proxy, "dheera_ai_requests_in_flight", 1).await;
    let metrics = held.proxy.metrics().await;
    assert_eq!(metrics.sum("dheera_ai_queue_wait_seconds_count", &[]), 4);
    let call = held.call(Http::One, Asked::converse(CLAUDE));
    held.arrived().await.answer.send(()).unwrap();
    assert_eq!(call.await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_fills_the_queue_does_not_starve_another() {
    let mut held = Held::start(&format!("  max_in_flight_requests: 2\n  max_queued_requests: 50\n{PATIENT}")).await;
    let mut keys = Vec::new();
    for _ in 0..2 {
        let made = held.proxy.call(&Asked::post("/key/generate", "{}")).await.json();
        keys.push(made["key"].as_str().unwrap().to_owned());
    }
    let (greedy, modest) = (body_of(100), body_of(200));
    let mut calls: Vec<_> =
        (0..52).map(|_| held.call(Http::Two, Asked::post(CLAUDE, greedy.clone()).by(&keys[0]))).collect();
    let mut running = held.all_arrived(2).await;
    held.queued(50).await;
    // The queue is full; the youngest of the greedy key pays for this one.
    calls.push(held.call(Http::Two, Asked::post(CLAUDE, modest).by(&keys[1])));
    metric(&held.proxy, "dheera_ai_requests_shed_total", 1).await;
    running.pop().unwrap().answer.send(()).unwrap();
    let next = held.arrived().await;
    assert_eq!(next.length, 200, "the other key is next, although it came last");
    next.answer.send(()).unwrap();
    running.pop().unwrap().answer.send(()).unwrap();
    for _ in 0..49 {
        let next = held.arrived().await;
        assert_eq!(next.length, 100);
        next.answer.send(()).unwrap();
    }
    let mut statuses = Vec::new();
    for call in calls {
        statuses.push(call.await.unwrap().status);
    }
    assert_eq!(statuses.pop(), Some(200));
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 1);
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 51);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_too_long_is_sent_away() {
    let settings = "  max_in_flight_requests: 1\n  max_queued_requests: 10\n  admission_queue_timeout: 0.1\n";
    let mut held = Held::start(settings).await;
    let first = held.call(Http::One, Asked::converse(CLAUDE));
    let running = held.arrived().await;
    for http in [Http::One, Http::Two] {
        assert_sent_away(&call(held.proxy.address, http, &Asked::converse(CLAUDE)).await);
    }
    held.nothing_more_has_arrived();
    assert_eq!(held.proxy.metrics().await.sum("dheera_ai_requests_shed_total", &[("reason", "queue_timeout")]), 2);
    running.answer.send(()).unwrap();
    assert_eq!(first.await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_while_it_waits_frees_its_place_in_the_queue() {
    let mut held = Held::start(&format!("  max_in_flight_requests: 1\n  max_queued_requests: 10\n{PATIENT}")).await;
    let first = held.call(Http::One, Asked::converse(CLAUDE));
    let running = held.arrived().await;
    for http in [Http::One, Http::Two] {
        let call = held.call(http, Asked::post(CLAUDE, "x".repeat(100_000)));
        held.queued(1).await;
        call.abort();
        held.queued(0).await;
    }
    // Half of a body stands unread before the end.
    let mut raw = Raw::open(held.proxy.address).await;
    raw.write(head(CLAUDE, "Content-Length: 1000\r\n")).await;
    raw.write("x".repeat(500)).await;
    held.queued(1).await;
    drop(raw);
    held.queued(0).await;
    running.answer.send(()).unwrap();
    assert_eq!(first.await.unwrap().status, 200);
    held.nothing_more_has_arrived();
    let left = held.proxy.records_once(4).await;
    let left: Vec<_> = left.iter().filter(|record| record["reason"] == "client_gone").collect();
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(left.iter().all(|record| record["status"] == 499), "{left:?}");
}

fn head(path: &str, headers: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: proxy.test\r\nAuthorization: Bearer {MASTER_KEY}\r\n{headers}\r\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_asks_first_is_told_to_send_its_body_once_it_has_a_place() {
    let mut held = Held::start(&format!("  max_in_flight_requests: 1\n  max_queued_requests: 1\n{PATIENT}")).await;
    let first = held.call(Http::One, Asked::converse(CLAUDE));
    let running = held.arrived().await;
    let body = body_of(100);
    let asks = head(CLAUDE, "Content-Length: 100\r\nExpect: 100-continue\r\n");
    let mut waits = Raw::open(held.proxy.address).await;
    waits.write(&asks).await;
    held.queued(1).await;
    // One more is sent away without having been told.
    let mut refused = Raw::open(held.proxy.address).await;
    refused.write(&asks).await;
    assert_eq!(refused.answer().await.unwrap().status, 503);
    let told = waits.stream.try_read(&mut [0; 1]);
    assert_eq!(told.map_err(|error| error.kind()), Err(std::io::ErrorKind::WouldBlock));
    running.answer.send(()).unwrap();
    assert_eq!(waits.answer().await.unwrap().status, 100);
    waits.write(&body).await;
    held.arrived().await.answer.send(()).unwrap();
    assert_eq!(waits.answer().await.unwrap().status, 200);
    assert_eq!(first.await.unwrap().status, 200);
}

/// Who has no key is told so, however long the queue is, and takes no place in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_to_be_told_that_a_key_is_not_valid() {
    let mut held = Held::start(&format!("  max_in_flight_requests: 1\n  max_queued_requests: 0\n{PATIENT}")).await;
    let first = held.call(Http::One, Asked::converse(CLAUDE));
    let running = held.arrived().await;
    let answer = held.proxy.call(&Asked::converse(CLAUDE).by("sk-not-a-key-0123456789")).await;
    answer.assert_error(403, "AccessDeniedException");
    running.answer.send(()).unwrap();
    assert_eq!(first.await.unwrap().status, 200);
}

/// A stream has its place until its last byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_keeps_its_place_to_its_end() {
    let settings = format!(
        "general_settings:\n  max_in_flight_requests: 1\n  max_queued_requests: 1\n  drain_timeout: 0\n{PATIENT}"
    );
    let rig = Rig::with(&[Entry::new("claude", "bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0")], &settings).await;
    rig.simulator.behave(rules(&json!([{
        "match": { "operation": "ConverseStream" }, "fault": { "kind": "stall_mid_stream", "after_frames": 2 },
    }])));
    let mut connection = Connection::open(rig.proxy.address, Http::One).await;
    let stream = connection.begin(&Asked::converse(CLAUDE_STREAM)).await;
    let address = rig.proxy.address;
    let waits = tokio::spawn(async move { call(address, Http::One, &Asked::converse(CLAUDE)).await });
    metric(&rig.proxy, "dheera_ai_requests_queued", 1).await;
    assert_eq!(rig.forwarded(), 1);
    drop((stream, connection));
    assert_eq!(waits.await.unwrap().status, 200);
}

/// Sends the bytes again and again until the proxy has closed the connection; gives what it said before.
async fn drip(raw: &mut Raw, bytes: &[u8]) -> Option<(u16, String)> {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while raw.write(bytes).await {
        let readable = tokio::time::timeout(Duration::from_millis(20), raw.stream.readable()).await;
        if readable.is_ok() {
            let answer = raw.answer().await?;
            return Some((answer.status, String::from_utf8(answer.body.to_vec()).unwrap()));
        }
        assert!(tokio::time::Instant::now() < deadline, "it goes on for ever");
    }
    None
}

/// Calls until told to stop; every call has to be served.
fn neighbour(rig: &Rig) -> (JoinHandle<u32>, oneshot::Sender<()>) {
    let address = rig.proxy.address;
    let (stop, mut stopped) = oneshot::channel();
    let calls = tokio::spawn(async move {
        let mut calls = 0;
        while stopped.try_recv().is_err() || calls == 0 {
            assert_eq!(call(address, Http::One, &Asked::converse(CLAUDE)).await.status, 200);
            calls += 1;
        }
        calls
    });
    (calls, stop)
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0\0\0\0\0\0\0\0\0";
/// HEADERS of stream 1 without END_HEADERS, which a CONTINUATION without it goes on for ever.
const HEADERS: &[u8] = b"\0\0\x01\x01\0\0\0\0\x01\x82";
const CONTINUATION: &[u8] = b"\0\0\x01\x09\0\0\0\0\x01\x82";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_comes_in_drips_is_cut_off_and_others_are_served_meanwhile() {
    let rig = Rig::with(
        &[Entry::new("claude", "bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0")],
        "general_settings:\n  client_header_timeout: 0.5\n",
    )
    .await;
    let (neighbour, stop) = neighbour(&rig);
    for (what, start, again) in [
        ("a head", b"POST / HTTP/1.1\r\n".to_vec(), &b"x: 1\r\n"[..]),
        ("single bytes", b"POST ".to_vec(), b"x"),
        ("empty lines", b"\r\n".to_vec(), b"\r\n"),
        ("the preface of HTTP/2", PREFACE[..20].to_vec(), b""),
        ("HTTP/2 that asks for nothing", [PREFACE, SETTINGS].concat(), PING),
        ("a head of HTTP/2 without an end", [PREFACE, SETTINGS, HEADERS].concat(), CONTINUATION),
    ] {
        let mut raw = Raw::open(rig.proxy.address).await;
        assert!(raw.write(start).await, "{what}");
        // Over HTTP/2 the proxy's own frames come first; what counts is that it ends.
        let deadline = tokio::time::Instant::now() + DEADLINE;
        while raw.write(again).await && !closed(&mut raw).await {
            assert!(tokio::time::Instant::now() < deadline, "{what} goes on for ever");
        }
    }
    // The second head on a connection, whose first was in time.
    let mut raw = Raw::open(rig.proxy.address).await;
    raw.write(format!("{}{}", head(CLAUDE, "Content-Length: 100\r\n"), body_of(100))).await;
    assert_eq!(raw.answer().await.unwrap().status, 200);
    raw.write("POST ").await;
    assert_eq!(drip(&mut raw, b"x").await, None);
    stop.send(()).unwrap();
    neighbour.await.unwrap();
    assert_eq!(rig.simulator.counters().violations, 0);
}

/// Whether the peer has closed; reads what it sent.
async fn closed(raw: &mut Raw) -> bool {
    let mut buffer = [0; 1024];
    match tokio::time::timeout(Duration::from_millis(20), raw.stream.readable()).await {
        Ok(_) => match raw.stream.try_read(&mut buffer) {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        },
        Err(_) => false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_comes_in_drips_is_refused_although_it_never_stops() {
    let rig = Rig::with(
        &[Entry::new("claude", "bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0")],
        "general_settings:\n  min_client_rate: 5000\n  client_idle_timeout: 1\n  body_timeout: 600\n",
    )
    .await;
    let (neighbour, stop) = neighbour(&rig);
    for (headers, piece) in [("Content-Length: 20000000\r\n", "x"), ("Transfer-Encoding: chunked\r\n", "1\r\nx\r\n")] {
        let mut raw = Raw::open(rig.proxy.address).await;
        raw.write(head(CLAUDE, headers)).await;
        let (status, body) = drip(&mut raw, piece.as_bytes()).await.expect("an answer");
        assert_eq!(status, 408, "{body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert!(body["message"].as_str().unwrap().contains("did not arrive in time"), "{body}");
    }
    stop.send(()).unwrap();
    neighbour.await.unwrap();
    let slow = || rig.proxy.records().iter().filter(|record| record["reason"] == "body_too_slow").count();
    eventually("two records", || (slow() == 2).then_some(())).await;
    metric(&rig.proxy, "dheera_ai_request_body_bytes_buffered", 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_the_most_connections_only_probes_are_answered_and_then_nobody_is_read() {
    let rig = Rig::with(
        &[Entry::new("claude", "bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0")],
        "general_settings:\n  max_connections: 4\n  client_header_timeout: 600\n  client_idle_timeout: 600\n",
    )
    .await;
    metric(&rig.proxy, "dheera_ai_connections_open", 1).await;
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(Raw::open(rig.proxy.address).await);
    }
    metric(&rig.proxy, "dheera_ai_connections_open", 5).await;
    for http in [Http::One, Http::Two] {
        let mut connection = Connection::open(rig.proxy.address, http).await;
        assert_eq!(connection.call(&Asked::get("/health/liveliness")).await.status, 200);
        drop(connection);
        let answer = call(rig.proxy.address, http, &Asked::converse(CLAUDE)).await;
        assert_sent_away(&answer);
        assert_eq!(answer.header("connection"), (http == Http::One).then_some("close"));
    }
    assert_eq!(rig.forwarded(), 0);

    // The spare ones are taken too; whoever comes now is told so before it has said anything.
    let told = loop {
        let mut flood = Vec::new();
        for _ in 0..40 {
            flood.push(Raw::open(rig.proxy.address).await);
        }
        if let Some(answer) = flood.pop().unwrap().answer().await {
            break answer;
        }
    };
    assert_eq!((told.status, told.header("retry-after")), (503, Some("1")), "{told:?}");
    assert_eq!(told.header("x-amzn-errortype"), Some("ServiceUnavailableException"));
    assert_eq!(told.header("connection"), Some("close"));
    drop(silent);
    metric(&rig.proxy, "dheera_ai_connections_open", 1).await;
    assert!(rig.proxy.metrics().await.sum("dheera_ai_connections_refused_total", &[]) > 0);
    rig.proxy.assert_serves(CLAUDE).await;
}

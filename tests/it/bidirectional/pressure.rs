//! A side that does not read stops the other one, and what lies between them in the proxy stays small. How much that is
//! follows from the windows of HTTP/2 and not from how long it lasts or how much is waiting.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;
use tokio::time::timeout;

use super::line::Line;
use super::{output, rig, say};
use crate::support::{DEADLINE, Entry, MASTER_KEY, Proxy, Rig, frame_header, rules, signed_frame};

/// A stream that takes nothing for so long stands still. On a slow machine this may be said too early, which only makes
/// the tests easier to pass.
const STILL: Duration = Duration::from_secs(1);

/// What a client has to say in these tests: far more than may ever be on its way.
const OFFERED_BYTES: usize = 256 << 20;

/// Bytes that may be on their way in all: the windows of both sides, the upstream's buffers, and the kernel's.
const ON_THEIR_WAY_BYTES_MAX: usize = 48 << 20;

/// By how much the proxy may grow over one such stream.
const GROWTH_BYTES_MAX: u64 = 32 << 20;

/// By how much it may grow for each of many: the 1 MiB that a client may send ahead, in frames of 245 bytes, each with as
/// much again in h2's list of them, which is copied as it grows; and the windows of its answer. Each offers 256 MiB.
const GROWTH_OF_EACH_BYTES_MAX: u64 = 5 << 20;

async fn resident_bytes(proxy: &Proxy) -> u64 {
    proxy.metrics().await.sum("process_resident_memory_bytes", &[])
}

/// Sends `piece` again and again until nobody takes it any more; how often it was taken.
async fn fill(line: &Line, piece: &Bytes) -> usize {
    let mut taken = 0;
    while taken * piece.len() < OFFERED_BYTES {
        match timeout(STILL, line.body.send(piece.clone())).await {
            Ok(sent) => sent.unwrap(),
            Err(_still) => break,
        }
        taken += 1;
    }
    taken
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_not_read_from_and_loses_nothing() {
    let rig = rig().await;
    let before = resident_bytes(&rig.proxy).await;
    let line = Line::open(rig.proxy.address, MASTER_KEY).await;
    let taken = fill(&line, &say(&"x".repeat(16 * 1024))).await;
    let grown = resident_bytes(&rig.proxy).await.saturating_sub(before);
    let bytes = taken * say(&"x".repeat(16 * 1024)).len();
    println!("a client that does not read: {taken} inputs of {bytes} bytes taken, proxy grew by {grown} bytes");
    assert!(bytes < ON_THEIR_WAY_BYTES_MAX, "{taken} inputs of {bytes} bytes were taken");
    assert!(grown < GROWTH_BYTES_MAX, "the proxy grew by {grown} bytes");
    let mut talk = line.answered().await;
    talk.hang_up();
    let rest = talk.answer.rest().await;
    assert_eq!(rest.len(), 2 * taken);
    assert_eq!(rig.simulator.counters().authentication_failures, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_does_not_read_stops_the_client() {
    let rig = rig().await;
    rig.simulator.behave(rules(&json!([{ "fault": { "kind": "stall_before_header" } }])));
    let before = resident_bytes(&rig.proxy).await;
    let line = Line::open(rig.proxy.address, MASTER_KEY).await;
    let piece = say(&"x".repeat(16 * 1024));
    let bytes = fill(&line, &piece).await * piece.len();
    let grown = resident_bytes(&rig.proxy).await.saturating_sub(before);
    println!("an upstream that does not read: {bytes} bytes taken, proxy grew by {grown} bytes");
    assert!(bytes < ON_THEIR_WAY_BYTES_MAX, "{bytes} bytes were taken");
    assert!(grown < GROWTH_BYTES_MAX, "the proxy grew by {grown} bytes");
}

/// A proxy whose patience is short.
async fn impatient() -> Rig {
    let sonic = Entry::new("sonic", "bedrock/amazon.nova-2-sonic-v1:0");
    let rest = "general_settings:\n  upstream_idle_timeout: 1\nrouter_settings:\n  stream_timeout: 1\n";
    Rig::with(&[sonic], rest).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_neither_reads_nor_answers_is_given_up() {
    let rig = impatient().await;
    rig.simulator.behave(rules(&json!([{ "fault": { "kind": "stall_before_header" } }])));
    let line = Line::open(rig.proxy.address, MASTER_KEY).await;
    // More than the windows hold, so that the proxy waits to send when its patience ends.
    let piece = say(&"x".repeat(16 * 1024));
    let body = line.body.clone();
    tokio::spawn(async move { while body.send(piece.clone()).await.is_ok() {} });
    let response = timeout(DEADLINE, line.response).await.expect("the proxy waits for ever").unwrap().unwrap();
    assert_eq!(response.status(), 408);
    let call_id = response.headers()["x-dheera-ai-call-id"].to_str().unwrap().to_owned();
    let record = rig.proxy.record(&call_id).await;
    assert_eq!(record["reason"], "upstream_timeout", "{record}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_do_not_read_do_not_stop_the_others() {
    const DEAF: usize = 30;
    let rig = rig().await;
    let line = Line::open(rig.proxy.address, MASTER_KEY).await;
    line.body.send(say("Hello")).await.unwrap();
    let mut talk = line.answered().await;
    let before = resident_bytes(&rig.proxy).await;
    // The answers to short inputs are longer, so these have much to read when nobody takes their inputs any more.
    let deaf = futures::future::join_all((0..DEAF).map(|_| async {
        let line = Line::open(rig.proxy.address, MASTER_KEY).await;
        (fill(&line, &say("short")).await, line)
    }))
    .await;
    let taken: usize = deaf.iter().map(|(taken, _)| taken).sum();
    let grown = resident_bytes(&rig.proxy).await.saturating_sub(before);
    println!("{DEAF} clients that do not read: {taken} inputs taken, proxy grew by {grown} bytes");
    assert!(grown < DEAF as u64 * GROWTH_OF_EACH_BYTES_MAX, "the proxy grew by {grown} bytes");
    for number in 0..100 {
        let echo = talk.answer.next().await.unwrap();
        assert!(output(&echo)["event"]["textOutput"].is_object(), "{echo:?}");
        talk.answer.next().await.unwrap();
        talk.send(say(&format!("input {number}"))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_sends_and_reads_as_fast_as_it_can_is_never_stuck() {
    const PIECES: usize = 300;
    const INPUTS_OF_A_PIECE: usize = 50;
    let rig = rig().await;
    let line = Line::open(rig.proxy.address, MASTER_KEY).await;
    let body = line.body.clone();
    let sending = tokio::spawn(async move {
        // Answers are longer than such inputs: to 300 pieces come more bytes than all windows on the way hold.
        let piece = Bytes::from(say("short").repeat(INPUTS_OF_A_PIECE));
        for _ in 0..PIECES {
            body.send(piece.clone()).await.unwrap();
        }
    });
    let mut talk = line.answered().await;
    talk.hang_up();
    let mut heard = 0;
    while let Some(frame) = talk.answer.next().await {
        assert_eq!(frame_header(&frame, ":event-type"), Some("chunk"), "{frame:?} after {heard}");
        heard += 1;
    }
    sending.await.unwrap();
    assert_eq!(heard, 2 * PIECES * INPUTS_OF_A_PIECE);
    assert_eq!(rig.simulator.counters().authentication_failures, 0);
}

/// Holds one conversation for `time` whose client always has more to say and reads slowly, and prints what it took.
async fn hold(time: Duration) {
    /// Between two reads of the client.
    const PACE: Duration = Duration::from_millis(2);
    let rig = rig().await;
    let line = Line::open(rig.proxy.address, MASTER_KEY).await;
    let started = Instant::now();
    let body = line.body.clone();
    let sending = tokio::spawn(async move {
        let mut said = 0_usize;
        while started.elapsed() < time {
            body.send(say(&format!("{said} {}", "x".repeat(4096)))).await.unwrap();
            said += 1;
        }
        body.send(signed_frame(b"")).await.unwrap();
        said
    });
    let mut talk = line.answered().await;
    talk.hang_up();
    let (mut heard, mut bytes, mut sizes) = (0_usize, 0, Vec::new());
    let mut next_look = Duration::ZERO;
    while let Some(frame) = talk.answer.next().await {
        if heard.is_multiple_of(2) {
            let text = output(&frame)["event"]["textOutput"]["content"].as_str().unwrap().to_owned();
            assert!(text.contains(&format!("\"{} x", heard / 2)), "the answer to input {} is {text}", heard / 2);
        }
        heard += 1;
        bytes += frame.payload.len();
        if started.elapsed() >= next_look {
            sizes.push(resident_bytes(&rig.proxy).await);
            next_look += time / 20;
            println!("{:?}: {heard} events, {bytes} bytes heard, {:?} bytes resident", started.elapsed(), sizes.last());
        }
        if started.elapsed() < time {
            tokio::time::sleep(PACE).await;
        }
    }
    let said = sending.await.unwrap();
    sizes.push(resident_bytes(&rig.proxy).await);
    let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
    println!(
        "{said} inputs, {heard} events, {bytes} bytes; resident bytes: {} at the start, {least} to {most}, {} at the end",
        sizes[0],
        sizes[sizes.len() - 1],
    );
    assert_eq!(heard, 2 * said);
    assert_eq!(rig.simulator.counters().authentication_failures, 0, "a frame was not signed right");
    assert!(most - sizes[0] < GROWTH_BYTES_MAX, "{sizes:?}");
    let record = rig.proxy.record(&talk.call_id).await;
    assert_eq!((&record["status"], &record["fault"]), (&json!(200), &json!(null)), "{record}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_with_a_slow_reader_keeps_its_order_and_its_size() {
    hold(Duration::from_secs(4)).await;
}

/// `cargo test --test it -- --ignored --nocapture ten_minutes`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes ten minutes"]
async fn a_conversation_with_a_slow_reader_keeps_its_order_and_its_size_for_ten_minutes() {
    hold(Duration::from_mins(10)).await;
}

//! The canned mode over real sockets.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::tests::{BODY, CONVERSE, KEY, SECRET, STREAM, signed};

fn start(canned: Canned) -> Serving {
    let credential =
        Credential { access_key_id: KEY.to_owned(), secret_access_key: SECRET.to_owned(), session_token: None };
    Canned { credentials: vec![credential], ..canned }.start().unwrap()
}

/// Sends `request`, which has to be the connection's last one, and reads all that comes.
async fn exchange(serving: &Serving, request: &str) -> String {
    let mut stream = TcpStream::connect(serving.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

async fn totals(serving: &Serving) -> serde_json::Value {
    let answer = exchange(serving, "GET /_sim/counters HTTP/1.1\r\nconnection: close\r\n\r\n").await;
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[tokio::test]
async fn requests_of_one_connection_are_answered_one_after_the_other() {
    let serving = start(Canned::default());
    let requests = "POST /model/m/converse HTTP/1.1\r\ncontent-length: 4\r\n\r\nbodyHEAD /_sim/health HTTP/1.1\r\n\r\n\
        POST /model/m/invoke HTTP/1.1\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n4\r\nbody\r\n0\r\n\r\n";
    let answer = exchange(&serving, requests).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK\r\n").count(), 3, "{answer}");
    assert!(answer.contains("\"stopReason\":\"end_turn\""), "{answer}");
    assert!(answer.contains("\"output_tokens\":130"), "{answer}");
    let totals = totals(&serving).await;
    assert_eq!((&totals["requests"], &totals["verified"]), (&2.into(), &0.into()), "{totals}");
}

#[tokio::test]
async fn a_body_that_waits_for_leave_gets_it() {
    let serving = start(Canned::default());
    let mut stream = TcpStream::connect(serving.address).await.unwrap();
    let head = b"POST /model/m/converse HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let mut leave = [0; 25];
    stream.read_exact(&mut leave).await.unwrap();
    assert_eq!(&leave, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"body").await.unwrap();
    let mut status = [0; 15];
    stream.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200 OK");
}

#[tokio::test]
async fn right_signatures_are_told_from_wrong_ones() {
    let serving = start(Canned { verify_every: 1, ..Canned::default() });
    let right = signed(CONVERSE, BODY, "connection: close\r\n");
    assert!(exchange(&serving, &right).await.starts_with("HTTP/1.1 200 OK\r\n"));
    let wrong = right.replace("four", "five");
    let refused = exchange(&serving, &wrong).await;
    assert!(refused.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{refused}");
    assert!(refused.contains("x-amzn-errortype: InvalidSignatureException\r\n"), "{refused}");
    let unsigned = exchange(&serving, "POST /model/m/converse HTTP/1.1\r\nconnection: close\r\n\r\n").await;
    assert!(unsigned.contains("x-amzn-errortype: MissingAuthenticationTokenException\r\n"), "{unsigned}");
    let totals = totals(&serving).await;
    assert_eq!((&totals["verified"], &totals["bad_signatures"]), (&1.into(), &2.into()), "{totals}");
}

#[tokio::test]
async fn a_throttled_region_gets_429() {
    let throttle_region = Some("us-west-2".to_owned());
    let serving = start(Canned { throttle_region, ..Canned::default() });
    let answer = exchange(&serving, &signed(STREAM, BODY, "connection: close\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{answer}");
    assert!(answer.contains("x-amzn-errortype: ThrottlingException\r\n"), "{answer}");
    assert_eq!(totals(&serving).await["throttled"], 1);
}

#[tokio::test]
async fn a_paced_stream_takes_its_time() {
    let serving = start(Canned { frames: 5, frame_rate_hz: 100, ..Canned::default() });
    let begin = std::time::Instant::now();
    let answer = exchange(&serving, "POST /model/m/converse-stream HTTP/1.1\r\nconnection: close\r\n\r\n").await;
    assert!(begin.elapsed() >= Duration::from_millis(40));
    assert_eq!(answer.matches("\"text\":\"t=").count(), 5, "{answer}");
    assert!(answer.ends_with("\r\n0\r\n\r\n"), "{answer}");
    assert_eq!(totals(&serving).await["streams"], 1);
}

#[tokio::test]
async fn what_is_no_request_is_refused() {
    let serving = start(Canned::default());
    assert!(exchange(&serving, "nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400 Bad Request\r\n"));
    assert!(exchange(&serving, "GET / HTTP/1.0\r\n\r\n").await.starts_with("HTTP/1.1 404 Not Found\r\n"));
}

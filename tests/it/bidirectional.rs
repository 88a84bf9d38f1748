//! InvokeModelWithBidirectionalStream: request and answer are open at once, and every frame of the request is signed. The
//! simulator checks the chain of signatures frame by frame and answers each input event as it comes. How such a stream
//! ends before its time stands in `ends`, what becomes of it when one side does not read in `pressure`.

mod ends;
mod line;
mod pressure;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::support::{
    Asked, CLAUDE, Connection, Entry, Http, MASTER_KEY, Proxy, Refusing, Rig, Start, config, frame_header, frames,
    read_at_least, rules, signed_frame, simulator, variables, whole,
};
use line::Line;

const PATH: &str = "/bedrock/model/sonic/invoke-with-bidirectional-stream";

const SONIC: &str = "bedrock/amazon.nova-2-sonic-v1:0";

async fn rig() -> Rig {
    let prices = &[
        ("input_cost_per_token", "0.000001"),
        ("output_cost_per_token", "0.000002"),
        ("input_cost_per_audio_token", "0.000004"),
        ("output_cost_per_audio_token", "0.000008"),
    ];
    let sonic = Entry { info: prices, ..Entry::new("sonic", "bedrock/amazon.nova-2-sonic-v1:0") };
    Rig::with(&[sonic, Entry::new("claude", "bedrock/amazon.nova-lite-v1:0")], "").await
}

/// One input event as an SDK sends it: JSON in base64 in an inner frame in a signed outer frame.
fn input(event: &Value) -> Bytes {
    let payload = json!({ "bytes": BASE64_STANDARD.encode(event.to_string()) }).to_string();
    signed_frame(&bedrock_sim::eventstream::event("chunk", payload.as_bytes()))
}

/// An input that says `text`.
fn say(text: &str) -> Bytes {
    input(&json!({ "event": { "textInput": { "content": text } } }))
}

/// Opens a stream whose request body is whatever is sent into the channel.
async fn open(rig: &Rig) -> (mpsc::Sender<Bytes>, tokio::task::JoinHandle<Response<Incoming>>) {
    let line = Line::open(rig.proxy.address, MASTER_KEY).await;
    (line.body, tokio::spawn(async move { line.response.await.unwrap().unwrap() }))
}

/// The JSON event inside an answer's frame.
fn output(frame: &bedrock_sim::eventstream::Frame) -> Value {
    assert_eq!(frame_header(frame, ":event-type"), Some("chunk"), "{frame:?}");
    let chunk: Value = serde_json::from_slice(&frame.payload).unwrap();
    serde_json::from_slice(&BASE64_STANDARD.decode(chunk["bytes"].as_str().unwrap()).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_input_is_answered_before_the_next_is_sent_and_every_frame_is_signed_anew() {
    let rig = rig().await;
    rig.simulator
        .behave(rules(&json!([{ "usage": { "input": 7, "output": 5, "audio_input": 11, "audio_output": 13 } }])));
    let (body, response) = open(&rig).await;
    body.send(input(&json!({ "event": { "sessionStart": {} } }))).await.unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    let call_id = response.headers()["x-dheera-ai-call-id"].to_str().unwrap().to_owned();
    let mut answer = response.into_body();
    let mut seen = Vec::new();
    let mut count = 0;
    for text in ["sessionStart", "first", "second", "third"] {
        if text != "sessionStart" {
            body.send(input(&json!({ "event": { "textInput": { "content": text } } }))).await.unwrap();
        }
        // Two frames answer each input; they come while the request is still open.
        count += 2;
        while frames(&seen).0.len() < count {
            seen.extend(read_at_least(&mut answer, 1).await);
        }
        let echo = output(&frames(&seen).0[count - 2]);
        assert!(echo["event"]["textOutput"]["content"].as_str().unwrap().contains(text), "{echo}");
    }
    body.send(signed_frame(b"")).await.unwrap();
    drop(body);
    while let Some(frame) = answer.frame().await {
        seen.extend_from_slice(frame.unwrap().data_ref().map_or(&[][..], |data| data));
    }
    let (frames, rest) = frames(&seen);
    assert_eq!((frames.len(), rest), (8, 0));
    assert_eq!(rig.simulator.counters().authentication_failures, 0);
    let request = rig.simulator.requests().remove(0);
    assert!(request.auth.ok && request.violations.is_empty(), "{request:?}");
    assert_eq!((request.operation, &*request.http_version), (Some("InvokeModelWithBidirectionalStream"), "HTTP/2"));
    assert_eq!(request.path, "/model/amazon.nova-2-sonic-v1%3A0/invoke-with-bidirectional-stream");
    let record = rig.proxy.record(&call_id).await;
    // 7 x 1000 + 5 x 2000 + 11 x 4000 + 13 x 8000 = 7,000 + 10,000 + 44,000 + 104,000 nano-dollars.
    assert_eq!((&record["status"], &record["cost_nano_usd"]), (&json!(200), &json!(165_000)), "{record}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_no_signed_event_stream_is_refused() {
    let rig = rig().await;
    for _ in 0..5 {
        let asked = Asked::post(PATH, r#"{"inputText":"no event stream, but long enough for a prelude"}"#);
        let answer = rig.proxy.call(&asked).await;
        // The upstream may have begun to answer when the body turns out to be none: then the answer must not look whole.
        if answer.status == 200 {
            let told = frames(&answer.body).0.iter().any(|frame| frame_header(frame, ":exception-type").is_some());
            assert!(told || answer.broke.is_some(), "{answer:?}");
        } else {
            answer.assert_error(400, "ValidationException");
        }
        let record = rig.proxy.record(answer.call_id()).await;
        // It is the client's mistake; it did not go away.
        assert_eq!((&record["fault"], &record["status"]), (&json!("client"), &json!(answer.status)), "{record}");
    }
    rig.proxy.assert_serves(CLAUDE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exception_frame_in_mid_stream_reaches_the_client() {
    let rig = rig().await;
    rig.simulator.behave(rules(
        &json!([{ "fault": { "kind": "exception_frame", "after_frames": 2, "name": "throttlingException" } }]),
    ));
    let (body, response) = open(&rig).await;
    for text in ["one", "two"] {
        body.send(input(&json!({ "event": { "textInput": { "content": text } } }))).await.unwrap();
    }
    let answer = whole(response.await.unwrap()).await;
    let (frames, rest) = frames(&answer.body);
    assert_eq!((frames.len(), rest), (3, 0), "{answer:?}");
    assert_eq!(frame_header(&frames[2], ":exception-type"), Some("throttlingException"));
    drop(body);
    let record = rig.proxy.record(answer.call_id()).await;
    assert_eq!(record["reason"], "exception_frame", "{record}");
    rig.proxy.assert_serves(CLAUDE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_the_upstream_ended_is_over_though_the_client_leaves_its_request_open() {
    let rig = rig().await;
    rig.simulator.behave(rules(
        &json!([{ "fault": { "kind": "exception_frame", "after_frames": 0, "name": "validationException" } }]),
    ));
    let (body, response) = open(&rig).await;
    body.send(input(&json!({ "event": { "sessionStart": {} } }))).await.unwrap();
    let answer = whole(response.await.unwrap()).await;
    let record = rig.proxy.record(answer.call_id()).await;
    assert_eq!(record["reason"], "exception_frame", "{record}");
    drop(body);
}

/// A whole conversation that is sent without waiting for an answer.
fn monologue() -> Asked {
    let body = [say("one"), say("two"), signed_frame(b"")].concat();
    Asked::post(PATH, body)
        .bare()
        .with("content-type", "application/vnd.amazon.eventstream")
        .with("authorization", &format!("Bearer {MASTER_KEY}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_is_held_over_either_version_of_http() {
    let rig = rig().await;
    let asked = monologue();
    for http in [Http::One, Http::Two] {
        for asked in [asked.clone(), asked.clone().chunked(100), asked.clone().with("expect", "100-continue")] {
            let answer = Connection::open(rig.proxy.address, http).await.call(&asked).await;
            let (frames, rest) = frames(&answer.body);
            assert_eq!((answer.status, frames.len(), rest, &answer.broke), (200, 4, 0, &None), "{http:?} {answer:?}");
            let record = rig.proxy.record(answer.call_id()).await;
            assert_eq!((&record["fault"], &record["request_bytes"]), (&json!(null), &json!(asked.body.len())));
        }
    }
    assert_eq!(rig.simulator.counters().authentication_failures, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_in_place_of_the_stream_passes_unchanged_and_nothing_is_sent_twice() {
    let entries = [
        Entry::new("sonic", SONIC),
        Entry { params: &[("aws_region_name", "us-west-2")], ..Entry::new("sonic", SONIC) },
    ];
    let rig = Rig::with(&entries, "").await;
    rig.simulator.behave(rules(&json!([{ "fault": { "kind": "throttle", "retry_after_s": 9 } }])));
    for http in [Http::One, Http::Two] {
        let before = rig.forwarded();
        let answer = Connection::open(rig.proxy.address, http).await.call(&monologue()).await;
        assert_eq!((answer.status, answer.header("retry-after")), (429, Some("9")), "{answer:?}");
        assert_eq!(answer.header("x-amzn-errortype"), Some("ThrottlingException"));
        assert!(answer.json()["message"].is_string(), "{answer:?}");
        assert_eq!(rig.forwarded() - before, 1);
        assert_eq!(rig.proxy.record(answer.call_id()).await["reason"], "upstream_status");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_that_cannot_be_reached_gives_way_before_anything_was_said() {
    let refusing = Refusing::new();
    let url = format!("http://{}", refusing.address);
    let dead = [("aws_region_name", "us-west-2"), ("aws_bedrock_runtime_endpoint", url.as_str())];
    let rig = Rig::with(&[Entry { params: &dead, ..Entry::new("sonic", SONIC) }, Entry::new("sonic", SONIC)], "").await;
    let mut gave_way = 0;
    for _ in 0..40 {
        let answer = rig.proxy.call(&monologue()).await;
        assert_eq!((answer.status, frames(&answer.body).0.len()), (200, 4), "{answer:?}");
        let record = rig.proxy.record(answer.call_id()).await;
        if record["attempts"].as_array().unwrap().len() == 2 {
            gave_way += 1;
        }
    }
    // Half of them on average; that it is none of 40 has a chance of 1 in 10^12.
    assert!(gave_way > 0);
    let rig = Rig::with(&[Entry { params: &dead, ..Entry::new("sonic", SONIC) }], "").await;
    rig.proxy.call(&monologue()).await.assert_error(503, "ServiceUnavailableException");
}

/// A kept connection that the upstream has closed says nothing about the deployment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_connection_is_used_again_and_replaced_when_it_was_closed() {
    let first = simulator().await;
    let address = first.addr();
    // Connections are counted, and those of health checks are none of conversations.
    let text = config(&[Entry::new("sonic", SONIC)], "router_settings:\n  health_check_interval: 0\n");
    let proxy = Proxy::start(Start { config: Some(&text), variables: variables(&first), ..Start::default() });
    for _ in 0..3 {
        let answer = proxy.call(&monologue()).await;
        assert_eq!(answer.status, 200);
        // Written when the connection is free again.
        proxy.record(answer.call_id()).await;
    }
    assert_eq!(first.counters().connections, 1);
    first.shutdown().await;
    let options = bedrock_sim::Options { listen: address, ..crate::support::options() };
    let second = bedrock_sim::Simulator::start(options).await.unwrap();
    let answer = proxy.call(&monologue()).await;
    assert_eq!((answer.status, answer.header("x-dheera-ai-attempts")), (200, Some("1")), "{answer:?}");
    assert_eq!(second.counters().requests, 1);
}

//! Events of every family, as content or not.

use base64::prelude::BASE64_STANDARD;
use serde_json::json;

use super::*;
use crate::aws::error_body::exception_frame;
use crate::aws::eventstream::encode::{HeaderValue, frame};

fn event(name: &str, payload: &[u8]) -> Vec<u8> {
    frame(&[(":event-type", HeaderValue::String(name)), (":message-type", HeaderValue::String("event"))], payload)
}

fn chunk(native: &Value) -> Vec<u8> {
    let bytes = BASE64_STANDARD.encode(native.to_string());
    event("chunk", json!({ "bytes": bytes, "p": "abcdef" }).to_string().as_bytes())
}

fn error(code: &str) -> Vec<u8> {
    frame(&[(":error-code", HeaderValue::String(code)), (":message-type", HeaderValue::String("error"))], b"")
}

fn failed(name: &str, at_once: bool) -> Beginning {
    Beginning::Failed { name: name.to_owned(), at_once }
}

/// What `bytes` are in one piece, and byte by byte up to the first verdict.
fn read(new: fn() -> FirstEvent, bytes: &[u8]) -> Beginning {
    let whole = new().push(bytes);
    let mut reader = new();
    let mut pieces = bytes.chunks(1).map(|piece| reader.push(piece));
    let verdict = pieces.find(|beginning| *beginning != Beginning::Opening).unwrap_or(Beginning::Opening);
    assert_eq!(whole, verdict, "{}", String::from_utf8_lossy(bytes));
    whole
}

fn of_frame(bytes: &[u8]) -> Beginning {
    read(FirstEvent::of_frames, bytes)
}

#[test]
fn events_of_every_family_are_openings_or_content() {
    let opening = Beginning::Opening;
    let content = Beginning::Content;
    for (bytes, expected) in [
        // Converse.
        (event("messageStart", br#"{"role":"assistant"}"#), &opening),
        (event("contentBlockStart", br#"{"contentBlockIndex":0}"#), &opening),
        (event("contentBlockDelta", br#"{"delta":{"text":"Hello"}}"#), &content),
        (event("contentBlockStop", br#"{"contentBlockIndex":0}"#), &content),
        (event("messageStop", br#"{"stopReason":"end_turn"}"#), &content),
        (event("metadata", br#"{"usage":{}}"#), &content),
        (event("eventOfNextYear", b"{}"), &content),
        (frame(&[], b"{}"), &content),
        // Anthropic.
        (chunk(&json!({ "type": "message_start", "message": { "usage": { "input_tokens": 7 } } })), &opening),
        (chunk(&json!({ "type": "ping" })), &opening),
        (chunk(&json!({ "index": 0, "content_block": {}, "type": "content_block_start" })), &opening),
        (chunk(&json!({ "type": "content_block_delta", "delta": { "type": "text_delta", "text": "H" } })), &content),
        (chunk(&json!({ "type": "content_block_stop", "index": 0 })), &content),
        (chunk(&json!({ "type": "message_delta" })), &content),
        (chunk(&json!({ "type": "message_stop" })), &content),
        // Nova.
        (chunk(&json!({ "messageStart": { "role": "assistant" } })), &opening),
        (chunk(&json!({ "contentBlockStart": { "start": {} } })), &opening),
        (chunk(&json!({ "contentBlockDelta": { "delta": { "text": "Hi" } } })), &content),
        // Models in OpenAI's form.
        (chunk(&json!({ "choices": [{ "delta": { "role": "assistant", "content": "" } }] })), &opening),
        (chunk(&json!({ "choices": [{ "delta": { "role": "assistant", "content": null } }] })), &opening),
        (chunk(&json!({ "choices": [{ "delta": { "role": "assistant", "content": "Hi" } }] })), &content),
        (chunk(&json!({ "choices": [{ "delta": { "tool_calls": [{}] } }] })), &content),
        (chunk(&json!({ "choices": [{ "delta": { "role": "assistant" }, "finish_reason": "stop" }] })), &content),
        (chunk(&json!({ "choices": [], "usage": {} })), &content),
        // Llama, Titan, Mistral.
        (chunk(&json!({ "generation": "" })), &content),
        (chunk(&json!({ "outputText": "Hi" })), &content),
        (chunk(&json!({ "outputs": [{ "text": "" }] })), &content),
        (chunk(&json!("[DONE]")), &content),
        (event("chunk", b"no json"), &content),
        (event("chunk", br#"{"bytes":"!"}"#), &content),
        // Agents, flows, knowledge bases, harness.
        (event("chunk", br#"{"bytes":"VGhlIGFnc3dlcg=="}"#), &content),
        (event("trace", b"{}"), &content),
        (event("returnControl", b"{}"), &content),
        (event("flowOutputEvent", b"{}"), &content),
        (event("output", b"{}"), &content),
    ] {
        assert_eq!(of_frame(&bytes), *expected, "{}", String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn server_sent_events_are_openings_or_content_or_failures() {
    for (text, expected) in [
        ("event: message_start\ndata: {\"type\":\"message_start\"}\n\n", Beginning::Opening),
        ("event: ping\r\ndata: {\"type\": \"ping\"}\r\n\r\n", Beginning::Opening),
        (": a comment\n\nevent: x\n\n", Beginning::Opening),
        ("data: {\"type\":\"content_block_delta\"}\n", Beginning::Opening),
        ("data: {\"type\":\"content_block_delta\"}\n\n", Beginning::Content),
        ("data: {\"type\":\"content_block_delta\"}\n\ndata: {\"type\":\"error\"}\n\n", Beginning::Content),
        ("data: {\"type\":\"response.created\",\"response\":{\"error\":null}}\n\n", Beginning::Opening),
        ("data: {\"type\":\"response.output_text.delta\",\"delta\":\"H\"}\n\n", Beginning::Content),
        ("data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"},\"finish_reason\":null}]}\n\n", Beginning::Opening),
        ("data: {\"choices\":[{\"delta\":{\"content\":\"H\"}}]}\n\n", Beginning::Content),
        ("data: [DONE]\n\n", Beginning::Content),
        (
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n",
            failed("overloaded_error", true),
        ),
        (
            "data: {\"error\":{\"type\":\"tokens\",\"code\":\"rate_limit_exceeded\"}}\n\n",
            failed("rate_limit_exceeded", true),
        ),
        ("data: {\"type\":\"error\",\"code\":\"server_error\",\"message\":\"m\"}\n\n", failed("server_error", true)),
        (
            "data: {\"type\":\"response.created\"}\n\n\
             data: {\"type\":\"response.failed\",\"response\":{\"error\":{\"code\":\"server_error\"}}}\n\n",
            failed("server_error", false),
        ),
        ("data: {\"error\":{\"code\":500}}\n\n", failed("unnamed", true)),
    ] {
        assert_eq!(read(FirstEvent::of_lines, text.as_bytes()), expected, "{text}");
    }
}

#[test]
fn an_exception_is_a_failure_only_before_content() {
    let exception = exception_frame("throttlingException", "slow down");
    let start = event("messageStart", b"{}");
    let delta = event("contentBlockDelta", b"{}");
    for (frames, expected) in [
        (vec![&exception], failed("throttlingException", true)),
        (vec![&start, &exception], failed("throttlingException", false)),
        (vec![&start, &start, &exception, &delta], failed("throttlingException", false)),
        (vec![&delta, &exception], Beginning::Content),
        (vec![&start, &delta, &exception], Beginning::Content),
        (vec![&error("InternalFailure")], failed("InternalFailure", true)),
        (vec![&frame(&[(":message-type", HeaderValue::String("exception"))], b"")], failed("unnamed", true)),
    ] {
        let bytes: Vec<u8> = frames.into_iter().flatten().copied().collect();
        assert_eq!(of_frame(&bytes), expected);
    }
}

#[test]
fn a_damaged_frame_is_noticed_before_content_and_left_alone_after_it() {
    let start = event("messageStart", b"{}");
    let delta = event("contentBlockDelta", b"{}");
    let mut damaged = delta.clone();
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(of_frame(&damaged), Beginning::Damaged);
    assert_eq!(of_frame(&[start, damaged.clone()].concat()), Beginning::Damaged);
    assert_eq!(of_frame(&[delta, damaged].concat()), Beginning::Content);
    assert_eq!(of_frame(b"{\"message\":\"no event stream\"}"), Beginning::Damaged);
}

#[test]
fn openings_without_end_count_as_content() {
    for new in [FirstEvent::of_frames, FirstEvent::of_lines] {
        let mut reader = new();
        let piece = match reader.form {
            Form::Frames(_) => event("messageStart", &[b' '; 1_000]),
            Form::Lines(_) => format!("data: {{\"type\":\"ping\",\"p\":\"{}\"}}\n\n", "x".repeat(1_000)).into_bytes(),
        };
        let held = (0..1_000).find(|_| reader.push(&piece) == Beginning::Content).unwrap() * piece.len();
        assert!(held < OPENING_BYTES_MAX && held > OPENING_BYTES_MAX - 2 * piece.len(), "{held}");
    }
}

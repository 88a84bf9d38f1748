//! What is done with an answer: taking a stream apart, reading what it cost, writing down what happened.

use std::hint::black_box;

use base64::Engine as _;
use dheera_ai::aws::eventstream::decode::{Decoder, Limits};
use dheera_ai::aws::eventstream::encode::{HeaderValue, frame};
use dheera_ai::aws::operation::Metering;
use dheera_ai::telemetry::request_record::{AttemptRecord, RequestRecord, UsageRecord};
use dheera_ai::types::ids::{DeploymentId, ModelId, ModelName, Region};
use dheera_ai::types::money::NanoUsd;
use dheera_ai::types::tokens::Tokens;
use dheera_ai::types::usage::Usage;
use dheera_ai::usage::{Certainty, RequestFacts, UsageReader};

use super::Case;

const CLAUDE: &str = "us.anthropic.claude-sonnet-4-5-20250929-v1:0";
/// How much of a stream the network brings at once.
const PIECE_BYTES: usize = 8 * 1024;
const EVENT_STREAM: &str = "application/vnd.amazon.eventstream";

/// Takes a stream of events of about 200 bytes apart.
pub fn decode(stream_bytes: usize) -> Case {
    let event = delta();
    let stream = event.repeat(stream_bytes / event.len());
    let (bytes, events) = (stream.len(), stream.len() / event.len());
    let work = move || {
        let mut decoder = Decoder::new(Limits::default());
        let mut seen = 0;
        for piece in black_box(&stream).chunks(PIECE_BYTES) {
            decoder.push(piece, &mut |frame| seen += usize::from(black_box(frame.event_type()).is_some())).unwrap();
        }
        assert_eq!(seen, events);
    };
    Case::new(work).reading(bytes)
}

/// Reads the usage of a Converse.
pub fn converse() -> Case {
    let text = "It was the best of times, it was the worst of times. ".repeat(34);
    let body = serde_json::json!({
        "output": { "message": { "role": "assistant", "content": [{ "text": text }] } },
        "stopReason": "end_turn",
        "usage": { "inputTokens": 25, "outputTokens": 480, "totalTokens": 505 },
        "metrics": { "latencyMs": 1200 },
    });
    read_body(Metering::Converse, body.to_string())
}

/// Reads the usage of an InvokeModel of Claude.
pub fn anthropic() -> Case {
    let text = "It was the best of times, it was the worst of times. ".repeat(33);
    let body = serde_json::json!({
        "model": "claude-sonnet-4-5-20250929", "id": "msg_bdrk_01", "type": "message", "role": "assistant",
        "content": [{ "type": "text", "text": text }],
        "stop_reason": "end_turn", "stop_sequence": null,
        "usage": {
            "input_tokens": 25, "cache_creation_input_tokens": 5, "cache_read_input_tokens": 7,
            "cache_creation": { "ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 2 },
            "output_tokens": 480,
        },
    });
    read_body(Metering::InvokeModel, body.to_string())
}

/// Reads the usage of a ConverseStream, which stands in its last event.
pub fn stream(events: usize) -> Case {
    let mut stream = delta().repeat(events - 1);
    let usage = r#"{"usage":{"inputTokens":25,"outputTokens":480,"totalTokens":505},"metrics":{"latencyMs":1200}}"#;
    stream.extend(event("metadata", usage));
    read(Metering::ConverseStream, EVENT_STREAM, stream)
}

fn read_body(metering: Metering, body: String) -> Case {
    read(metering, "application/json", body.into_bytes())
}

fn read(metering: Metering, content_type: &'static str, answer: Vec<u8>) -> Case {
    let bytes = answer.len();
    let headers = [("x-amzn-bedrock-input-token-count", b"25".as_slice())];
    let work = move || {
        let mut reader = UsageReader::new(RequestFacts::read(metering, Some(CLAUDE), b"{}"));
        reader.response_header(200, Some(content_type), None, headers.into_iter());
        for piece in black_box(&answer).chunks(PIECE_BYTES) {
            reader.push(piece);
        }
        assert_eq!(black_box(reader.finish()).certainty, Certainty::Exact);
    };
    Case::new(work).reading(bytes)
}

/// Makes the record of a request and writes it as its line of JSON.
pub fn record() -> Case {
    let usage = Usage { input: Tokens(25), output: Tokens(480), ..Usage::default() };
    let mut line = Vec::with_capacity(2_048);
    Case::new(move || {
        line.clear();
        serde_json::to_writer(&mut line, &black_box(a_record(&usage))).unwrap();
        black_box(&line);
    })
}

fn a_record(usage: &Usage) -> RequestRecord {
    let mut record = RequestRecord {
        time: "2026-11-23T12:58:16.123456Z".parse().unwrap(),
        call_id: "019ab0c1-2d3e-7f40-8123-456789abcdef".to_owned(),
        aws_request_id: Some("01234567-89ab-cdef-0123-456789abcdef".to_owned()),
        key_alias: Some("a-key".to_owned()),
        key_id: Some("key-1".to_owned()),
        team_id: Some("team-1".to_owned()),
        method: "POST".to_owned(),
        service: Some("bedrock-runtime"),
        operation: Some("Converse"),
        model_name: Some(ModelName::new("nova")),
        model_id: Some(ModelId::new(CLAUDE)),
        deployment: Some(DeploymentId::new("nova-1")),
        region: Some(Region::new("us-east-1")),
        attempts: vec![AttemptRecord { deployment: DeploymentId::new("nova-1"), status: Some(200), setback: None }],
        status: 200,
        request_bytes: 1_000,
        response_bytes: 2_000,
        usage: Some(UsageRecord(*usage)),
        usage_certainty: Some("exact"),
        duration_ms: 1_234.567,
        time_to_first_byte_ms: Some(1_230.1),
        overhead_ms: Some(0.25),
        ..RequestRecord::default()
    };
    record.add_cost(NanoUsd(7_275_000));
    record
}

/// An event with some words of an answer, 200 bytes or so.
fn delta() -> Vec<u8> {
    let padding = base64::prelude::BASE64_STANDARD.encode([7; 12]);
    event("contentBlockDelta", &format!(r#"{{"contentBlockIndex":0,"delta":{{"text":" of times"}},"p":"{padding}"}}"#))
}

fn event(name: &str, payload: &str) -> Vec<u8> {
    let headers = [
        (":event-type", HeaderValue::String(name)),
        (":content-type", HeaderValue::String("application/json")),
        (":message-type", HeaderValue::String("event")),
    ];
    frame(&headers, payload.as_bytes())
}

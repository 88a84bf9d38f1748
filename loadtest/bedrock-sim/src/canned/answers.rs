//! The bytes of answers that are no streams. A request id is written over the zeros that stand in them.

use std::io::Write;

use serde_json::{Value, json};

use super::head::Route;
use crate::answer::{Answer, Payload, error_answer, token_headers};
use crate::operations::modelled_count;
use crate::usage::Usage;

/// Request ids have the shape of a UUID and differ in their last twelve digits.
const ID: &str = "00000000-0000-4000-8000-000000000000";
const ID_DIGITS: usize = 12;
const TEXT: &str = "The quick brown fox jumps over the lazy dog. ";
/// About 600 bytes of text.
const TEXT_TIMES: usize = 13;
const LATENCY_MS: u64 = 100;

/// Bytes in which a request id has a place.
#[derive(Debug, Clone)]
pub struct Template {
    bytes: Vec<u8>,
    /// Where the digits of the id end.
    id_end: usize,
    /// Where the body begins.
    body_at: usize,
}

impl Template {
    /// `head` ends without the empty line and without the request id.
    pub fn new(mut head: String, body: &[u8]) -> Self {
        head.push_str("x-amzn-requestid: ");
        head.push_str(ID);
        let id_end = head.len();
        head.push_str("\r\n\r\n");
        let body_at = head.len();
        Self { bytes: [head.as_bytes(), body].concat(), id_end, body_at }
    }

    /// Adds the answer to request `number`, or only its head.
    pub fn write(&self, output: &mut Vec<u8>, number: u64, with_body: bool) {
        let begin = output.len();
        let end = if with_body { self.bytes.len() } else { self.body_at };
        output.extend_from_slice(self.bytes.get(..end).unwrap_or_default());
        let digits = begin + self.id_end - ID_DIGITS..begin + self.id_end;
        if let Some(mut place) = output.get_mut(digits) {
            // The place is as long as what is written.
            drop(write!(place, "{:0width$x}", number & 0xffff_ffff_ffff, width = ID_DIGITS));
        }
    }
}

/// All that can be answered at once.
#[derive(Debug)]
pub struct Answers {
    converse: Template,
    invoke: Template,
    health: Template,
    unknown: Template,
    throttled: Template,
    pub malformed: Template,
}

impl Answers {
    pub fn new() -> Self {
        let throttled = "Too many requests, please wait before trying again.";
        Self {
            converse: template(&Answer::json(200, &converse())),
            invoke: template(&invoke()),
            health: template(&Answer::json(200, &json!({ "ok": true, "operations": modelled_count() }))),
            unknown: template(&error_answer(404, "UnknownOperationException", "", None)),
            throttled: template(&error_answer(429, "ThrottlingException", throttled, None)),
            malformed: template(&error_answer(400, "ValidationException", "This is no HTTP/1.1 request.", None)),
        }
    }

    pub fn of(&self, route: Route) -> &Template {
        match route {
            Route::Converse => &self.converse,
            Route::Invoke => &self.invoke,
            Route::Health => &self.health,
            Route::Throttled => &self.throttled,
            Route::ConverseStream | Route::Counters | Route::Unknown => &self.unknown,
        }
    }
}

/// An answer of the ordinary mode as bytes.
pub fn template(answer: &Answer) -> Template {
    let body: &[u8] = if let Payload::Whole(body) = &answer.payload { body } else { b"" };
    let mut head = format!(
        "HTTP/1.1 {}\r\ncontent-type: {}\r\ncontent-length: {}\r\n",
        status_line(answer.status),
        answer.content_type,
        body.len()
    );
    for (name, value) in &answer.headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    Template::new(head, body)
}

fn status_line(status: u16) -> String {
    hyper::StatusCode::from_u16(status).map_or_else(|_| status.to_string(), |status| status.to_string())
}

pub fn usage() -> Usage {
    Usage { input: 120, output: 130, ..Usage::default() }
}

/// The `usage` member of Converse.
pub fn told_usage(usage: &Usage) -> Value {
    json!({
        "inputTokens": usage.input,
        "outputTokens": usage.output,
        "totalTokens": usage.total(),
        "cacheReadInputTokens": 0,
        "cacheWriteInputTokens": 0,
    })
}

pub fn metrics() -> Value {
    json!({ "latencyMs": LATENCY_MS })
}

fn converse() -> Value {
    json!({
        "output": { "message": { "role": "assistant", "content": [{ "text": TEXT.repeat(TEXT_TIMES) }] } },
        "stopReason": "end_turn",
        "usage": told_usage(&usage()),
        "metrics": metrics(),
    })
}

fn invoke() -> Answer {
    let usage = usage();
    let message = json!({
        "id": "msg_bdrk_sim1",
        "type": "message",
        "role": "assistant",
        "model": "claude-canned",
        "content": [{ "type": "text", "text": TEXT.repeat(TEXT_TIMES) }],
        "stop_reason": "end_turn",
        "stop_sequence": null,
        "usage": { "input_tokens": usage.input, "output_tokens": usage.output },
    });
    let mut answer = Answer::json(200, &message);
    answer.headers.extend(token_headers(&usage));
    answer.headers.push(("x-amzn-bedrock-invocation-latency", LATENCY_MS.to_string()));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_id_is_written_into_its_place() {
        let mut output = b"before".to_vec();
        Answers::new().of(Route::Converse).write(&mut output, 0xabc, true);
        let text = String::from_utf8(output).unwrap();
        assert!(text.starts_with("beforeHTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: "));
        assert!(text.contains("\r\nx-amzn-requestid: 00000000-0000-4000-8000-000000000abc\r\n\r\n{"), "{text}");
        assert!(text.ends_with('}'));
    }

    #[test]
    fn a_head_alone_has_no_body() {
        let mut output = Vec::new();
        Answers::new().of(Route::Health).write(&mut output, 1, false);
        assert!(output.ends_with(b"\r\n\r\n"));
    }

    #[test]
    fn an_invocation_tells_its_tokens_in_headers() {
        let mut output = Vec::new();
        Answers::new().of(Route::Invoke).write(&mut output, 1, true);
        let text = String::from_utf8(output).unwrap();
        assert!(text.contains("\r\nx-amzn-bedrock-input-token-count: 120\r\n"), "{text}");
        assert!(text.contains("\r\nx-amzn-bedrock-output-token-count: 130\r\n"), "{text}");
    }
}

//! Server-sent events as the OpenAI and Anthropic compatible surfaces write them. Nothing else of the SSE format
//! (ids, retry, comments) is used by either.

use bytes::Bytes;
use serde_json::Value;

/// `data: {…}`, the OpenAI form.
pub fn data(json: &Value) -> Bytes {
    Bytes::from(format!("data: {json}\n\n"))
}

/// `event: x` and `data: {…}`, the Anthropic form and that of OpenAI's responses; the name is the `type` member.
pub fn named(json: &Value) -> Bytes {
    let name = json.get("type").and_then(Value::as_str).unwrap_or("message");
    Bytes::from(format!("event: {name}\ndata: {json}\n\n"))
}

/// The last line of an OpenAI stream.
pub fn done() -> Bytes {
    Bytes::from_static(b"data: [DONE]\n\n")
}

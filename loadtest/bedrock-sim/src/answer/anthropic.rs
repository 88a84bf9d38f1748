//! Anthropic's messages: as an InvokeModel body, as its native stream events, and on the `/anthropic/v1/messages`
//! surface. Input and cache tokens, with the split of cache lifetimes, stand in the message and in `message_start`;
//! output tokens are final in `message_delta`. Source: Anthropic's Messages API reference.

use serde_json::{Value, json};

use super::generation::Generation;
use super::{Answer, Answered, Ask};
use crate::sse;
use crate::usage::Usage;

pub fn message(generation: &Generation, model: &str) -> Value {
    let content = match &generation.tool {
        Some(tool) => json!({ "type": "tool_use", "id": "toolu_sim1", "name": tool, "input": {} }),
        None => json!({ "type": "text", "text": generation.text() }),
    };
    json!({
        "id": "msg_bdrk_sim1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [content],
        "stop_reason": stop_reason(generation),
        "stop_sequence": null,
        "usage": usage(&generation.usage, generation.usage.output),
    })
}

pub fn events(generation: &Generation, model: &str) -> Vec<Value> {
    let mut start = message(generation, model);
    start["content"] = json!([]);
    start["stop_reason"] = Value::Null;
    start["usage"] = usage(&generation.usage, generation.usage.output.min(1));
    let mut events = vec![json!({ "type": "message_start", "message": start })];
    let (block, deltas): (Value, Vec<Value>) = match &generation.tool {
        Some(tool) => (
            json!({ "type": "tool_use", "id": "toolu_sim1", "name": tool, "input": {} }),
            vec![json!({ "type": "input_json_delta", "partial_json": "{}" })],
        ),
        None => (
            json!({ "type": "text", "text": "" }),
            generation.deltas.iter().map(|text| json!({ "type": "text_delta", "text": text })).collect(),
        ),
    };
    events.push(json!({ "type": "content_block_start", "index": 0, "content_block": block }));
    events.push(json!({ "type": "ping" }));
    events.extend(deltas.into_iter().map(|delta| json!({ "type": "content_block_delta", "index": 0, "delta": delta })));
    events.push(json!({ "type": "content_block_stop", "index": 0 }));
    events.push(json!({
        "type": "message_delta",
        "delta": { "stop_reason": stop_reason(generation), "stop_sequence": null },
        "usage": { "output_tokens": generation.usage.output },
    }));
    events.push(json!({ "type": "message_stop" }));
    events
}

/// `POST /anthropic/v1/messages`.
pub fn messages(ask: &Ask<'_>) -> Answered {
    let generation = Generation::of(ask);
    let model = ask.model.unwrap_or_default();
    let bill = Some(ask.bill(&generation));
    if ask.json.get("stream").and_then(Value::as_bool) == Some(true) {
        let events = events(&generation, model).iter().map(sse::named).collect();
        return (Answer::events(events), bill);
    }
    (Answer::json(200, &message(&generation, model)), bill)
}

fn stop_reason(generation: &Generation) -> &'static str {
    generation.stop_word("end_turn", "max_tokens", "tool_use")
}

fn usage(usage: &Usage, output: u64) -> Value {
    json!({
        "input_tokens": usage.input,
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation_input_tokens": usage.cache_write(),
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_5m,
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        },
        "output_tokens": output,
    })
}

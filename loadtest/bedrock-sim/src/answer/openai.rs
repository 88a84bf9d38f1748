//! OpenAI's shapes: as InvokeModel bodies of the many models that use them, and on the `/openai/v1` surface. Prompt tokens
//! include cached ones, as OpenAI defines them. A chat stream tells usage only when `stream_options.include_usage` asks
//! for it. Source: OpenAI's API reference for chat completions and responses.

use bytes::Bytes;
use serde_json::{Value, json};

use super::generation::Generation;
use super::{Answer, Answered, Ask};
use crate::sse;
use crate::usage::Usage;

/// 2026-11-22, so that answers do not depend on the clock.
const CREATED: u64 = 1_795_305_600;

/// A `chat.completion` object.
pub fn completion(generation: &Generation, model: &str) -> Value {
    let message = match &generation.tool {
        Some(tool) => {
            let call =
                json!({ "id": "call_sim1", "type": "function", "function": { "name": tool, "arguments": "{}" } });
            json!({ "role": "assistant", "content": null, "tool_calls": [call] })
        }
        None => json!({ "role": "assistant", "content": generation.text() }),
    };
    let mut body = json!({
        "id": "chatcmpl-sim1",
        "object": "chat.completion",
        "created": CREATED,
        "model": model,
        "choices": [{ "index": 0, "message": message, "finish_reason": finish_reason(generation) }],
        "usage": chat_usage(&generation.usage),
    });
    if let Some(tier) = &generation.tier {
        body["service_tier"] = json!(tier);
    }
    body
}

/// The `chat.completion.chunk` objects of a stream.
pub fn chunks(generation: &Generation, model: &str, include_usage: bool) -> Vec<Value> {
    let chunk = |delta: Value, finish: Value| {
        json!({
            "id": "chatcmpl-sim1",
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": model,
            "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }],
        })
    };
    let mut chunks = vec![chunk(json!({ "role": "assistant", "content": "" }), Value::Null)];
    chunks.extend(generation.deltas.iter().map(|text| chunk(json!({ "content": text }), Value::Null)));
    chunks.push(chunk(json!({}), json!(finish_reason(generation))));
    if include_usage {
        let mut last = chunk(json!({}), Value::Null);
        last["choices"] = json!([]);
        last["usage"] = chat_usage(&generation.usage);
        if let Some(tier) = &generation.tier {
            last["service_tier"] = json!(tier);
        }
        chunks.push(last);
    }
    chunks
}

/// `POST /openai/v1/chat/completions`.
pub fn chat(ask: &Ask<'_>) -> Answered {
    let generation = Generation::of(ask);
    let model = ask.model.unwrap_or_default();
    let bill = Some(ask.bill(&generation));
    if !is_streamed(ask) {
        return (Answer::json(200, &completion(&generation, model)), bill);
    }
    let include_usage = ask.json.pointer("/stream_options/include_usage").and_then(Value::as_bool) == Some(true);
    let chunks = chunks(&generation, model, include_usage);
    let events: Vec<Bytes> = chunks.iter().map(sse::data).chain([sse::done()]).collect();
    (Answer::events(events), bill)
}

/// `POST /openai/v1/responses`.
pub fn responses(ask: &Ask<'_>) -> Answered {
    let generation = Generation::of(ask);
    let model = ask.model.unwrap_or_default();
    let bill = Some(ask.bill(&generation));
    let response = response(&generation, model);
    if !is_streamed(ask) {
        return (Answer::json(200, &response), bill);
    }
    let mut begun = response.clone();
    begun["status"] = json!("in_progress");
    begun["output"] = json!([]);
    begun["usage"] = Value::Null;
    let mut events = vec![json!({ "type": "response.created", "response": begun })];
    events.extend(generation.deltas.iter().map(|text| {
        json!({ "type": "response.output_text.delta", "item_id": "msg_sim1", "output_index": 0, "content_index": 0, "delta": text })
    }));
    events.push(json!({ "type": "response.completed", "response": response }));
    for (number, event) in events.iter_mut().enumerate() {
        event["sequence_number"] = json!(number);
    }
    (Answer::events(events.iter().map(sse::named).collect()), bill)
}

fn response(generation: &Generation, model: &str) -> Value {
    let usage = &generation.usage;
    json!({
        "id": "resp_sim1",
        "object": "response",
        "created_at": CREATED,
        "status": "completed",
        "model": model,
        "output": [{
            "type": "message",
            "id": "msg_sim1",
            "status": "completed",
            "role": "assistant",
            "content": [{ "type": "output_text", "text": generation.text(), "annotations": [] }],
        }],
        "service_tier": generation.tier,
        "usage": {
            "input_tokens": usage.total_input(),
            "input_tokens_details": { "cached_tokens": usage.cache_read },
            "output_tokens": usage.output,
            "output_tokens_details": { "reasoning_tokens": 0 },
            "total_tokens": usage.total(),
        },
    })
}

fn is_streamed(ask: &Ask<'_>) -> bool {
    ask.json.get("stream").and_then(Value::as_bool) == Some(true)
}

fn finish_reason(generation: &Generation) -> &'static str {
    generation.stop_word("stop", "length", "tool_calls")
}

fn chat_usage(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.total_input(),
        "completion_tokens": usage.output,
        "total_tokens": usage.total(),
        "prompt_tokens_details": { "cached_tokens": usage.cache_read },
    })
}

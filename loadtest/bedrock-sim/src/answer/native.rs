//! The bodies and stream events of the other text models: Nova, Titan, Llama, DeepSeek R1, the older Mistral models,
//! Cohere Command and Pegasus. Where usage stands, and that Mistral's and Cohere's older bodies have none, is from the
//! parameter pages of the Bedrock user guide and from what OpenTelemetry and LiteLLM read.

use serde_json::{Value, json};

use super::Ask;
use super::generation::Generation;
use super::invoke::Family;
use crate::usage::Usage;

pub fn whole(family: Family, generation: &Generation, ask: &Ask<'_>) -> Value {
    let (text, usage) = (generation.text(), &generation.usage);
    match family {
        Family::Nova => json!({
            "output": { "message": { "role": "assistant", "content": [{ "text": text }] } },
            "stopReason": generation.stop_word("end_turn", "max_tokens", "tool_use"),
            "usage": nova_usage(usage),
        }),
        Family::TitanText => json!({
            "inputTextTokenCount": usage.input,
            "results": [{
                "tokenCount": usage.output,
                "outputText": text,
                "completionReason": generation.stop_word("FINISH", "LENGTH", "FINISH"),
            }],
        }),
        Family::Llama => json!({
            "generation": text,
            "prompt_token_count": usage.input,
            "generation_token_count": usage.output,
            "stop_reason": stop(generation),
        }),
        Family::DeepSeekR1 => json!({
            "choices": [{ "text": text, "stop_reason": stop(generation) }],
            "prompt_token_count": usage.input,
            "generation_token_count": usage.output,
        }),
        Family::MistralText => json!({ "outputs": [{ "text": text, "stop_reason": stop(generation) }] }),
        Family::CohereCommand => json!({
            "id": "sim1",
            "prompt": ask.json.get("prompt"),
            "generations": [{ "id": "sim1", "text": text, "finish_reason": cohere_stop(generation) }],
        }),
        Family::Pegasus => json!({ "message": text, "finishReason": stop(generation) }),
        _ => json!({
            "response_id": "sim1",
            "generation_id": "sim1",
            "text": text,
            "finish_reason": cohere_stop(generation),
            "chat_history": [],
        }),
    }
}

/// The native events of a stream, the last of which takes the invocation metrics.
pub fn events(family: Family, generation: &Generation) -> Vec<Value> {
    let deltas = generation.deltas.iter();
    match family {
        Family::Nova => nova_events(generation),
        Family::TitanText => {
            let mut events: Vec<Value> = deltas
                .map(|text| json!({ "outputText": text, "index": 0, "completionReason": null, "inputTextTokenCount": null }))
                .collect();
            events.push(json!({
                "outputText": "",
                "index": 0,
                "totalOutputTextTokenCount": generation.usage.output,
                "inputTextTokenCount": generation.usage.input,
                "completionReason": generation.stop_word("FINISH", "LENGTH", "FINISH"),
            }));
            events
        }
        Family::Llama => {
            let mut events: Vec<Value> =
                deltas.map(|text| json!({ "generation": text, "stop_reason": null })).collect();
            if let Some(first) = events.first_mut() {
                first["prompt_token_count"] = json!(generation.usage.input);
            }
            events.push(json!({
                "generation": "",
                "prompt_token_count": null,
                "generation_token_count": generation.usage.output,
                "stop_reason": stop(generation),
            }));
            events
        }
        Family::DeepSeekR1 => {
            let ended = json!({ "choices": [{ "text": "", "stop_reason": stop(generation) }] });
            let events = deltas.map(|text| json!({ "choices": [{ "text": text, "stop_reason": null }] }));
            events.chain([ended]).collect()
        }
        Family::MistralText => {
            let ended = json!({ "outputs": [{ "text": "", "stop_reason": stop(generation) }] });
            let events = deltas.map(|text| json!({ "outputs": [{ "text": text, "stop_reason": null }] }));
            events.chain([ended]).collect()
        }
        Family::Pegasus => {
            let ended = json!({ "message": "", "finishReason": stop(generation) });
            deltas.map(|text| json!({ "message": text })).chain([ended]).collect()
        }
        Family::CohereCommand => {
            let ended = json!({ "is_finished": true, "finish_reason": cohere_stop(generation) });
            deltas.map(|text| json!({ "text": text, "is_finished": false })).chain([ended]).collect()
        }
        _ => {
            let ended = json!({
                "event_type": "stream-end",
                "is_finished": true,
                "finish_reason": cohere_stop(generation),
                "response": { "text": generation.text(), "generation_id": "sim1" },
            });
            let texts =
                deltas.map(|text| json!({ "event_type": "text-generation", "is_finished": false, "text": text }));
            texts.chain([ended]).collect()
        }
    }
}

fn nova_events(generation: &Generation) -> Vec<Value> {
    let mut events = vec![json!({ "messageStart": { "role": "assistant" } })];
    events.extend(
        generation
            .deltas
            .iter()
            .map(|text| json!({ "contentBlockDelta": { "delta": { "text": text }, "contentBlockIndex": 0 } })),
    );
    events.push(json!({ "contentBlockStop": { "contentBlockIndex": 0 } }));
    let stop = generation.stop_word("end_turn", "max_tokens", "tool_use");
    events.push(json!({ "messageStop": { "stopReason": stop } }));
    events.push(json!({ "metadata": { "usage": nova_usage(&generation.usage), "metrics": {}, "trace": {} } }));
    events
}

fn nova_usage(usage: &Usage) -> Value {
    json!({
        "inputTokens": usage.input,
        "outputTokens": usage.output,
        "totalTokens": usage.total(),
        "cacheReadInputTokenCount": usage.cache_read,
        "cacheWriteInputTokenCount": usage.cache_write(),
    })
}

fn stop(generation: &Generation) -> &'static str {
    generation.stop_word("stop", "length", "stop")
}

fn cohere_stop(generation: &Generation) -> &'static str {
    generation.stop_word("COMPLETE", "MAX_TOKENS", "COMPLETE")
}

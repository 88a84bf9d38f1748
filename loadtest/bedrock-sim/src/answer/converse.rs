//! Converse and ConverseStream. Usage stands in the body, or in the `metadata` event that ends the stream; the tier, the
//! latency mode and a prompt router's choice stand beside it. A guardrail is billed whether or not its trace is shown,
//! as AWS does. Source: `ConverseResponse`, `ConverseStreamMetadataEvent`, `TokenUsage` of bedrock-runtime.

use serde_json::{Value, json};

use super::generation::Generation;
use super::guardrail;
use super::{Answer, Answered, Ask};
use crate::usage::{GuardrailUnits, Usage};

pub fn whole(ask: &Ask<'_>) -> Answered {
    let mut generation = Generation::of(ask);
    let content = match &generation.tool {
        Some(tool) => json!({ "toolUse": { "toolUseId": "tooluse_sim1", "name": tool, "input": {} } }),
        None => json!({ "text": generation.text() }),
    };
    let mut body = json!({
        "output": { "message": { "role": "assistant", "content": [content] } },
        "stopReason": generation.stop_word("end_turn", "max_tokens", "tool_use"),
        "usage": token_usage(&generation.usage),
        "metrics": { "latencyMs": generation.latency_ms },
    });
    finish(ask, &mut generation, &mut body);
    (Answer::json(200, &body), Some(ask.bill(&generation)))
}

pub fn stream(ask: &Ask<'_>) -> Answered {
    let mut generation = Generation::of(ask);
    let mut events = vec![("messageStart", json!({ "role": "assistant" }))];
    if let Some(tool) = &generation.tool {
        let start = json!({ "toolUse": { "toolUseId": "tooluse_sim1", "name": tool } });
        events.push(("contentBlockStart", json!({ "contentBlockIndex": 0, "start": start })));
        let delta = json!({ "toolUse": { "input": "{}" } });
        events.push(("contentBlockDelta", json!({ "contentBlockIndex": 0, "delta": delta })));
    } else {
        for text in &generation.deltas {
            events.push(("contentBlockDelta", json!({ "contentBlockIndex": 0, "delta": { "text": text } })));
        }
    }
    events.push(("contentBlockStop", json!({ "contentBlockIndex": 0 })));
    let stop = generation.stop_word("end_turn", "max_tokens", "tool_use");
    events.push(("messageStop", json!({ "stopReason": stop })));
    let mut metadata = json!({
        "usage": token_usage(&generation.usage),
        "metrics": { "latencyMs": generation.latency_ms },
    });
    finish(ask, &mut generation, &mut metadata);
    events.push(("metadata", metadata));
    for (index, (_, payload)) in events.iter_mut().enumerate() {
        pad(payload, index);
    }
    (Answer::frames(events), Some(ask.bill(&generation)))
}

/// Adds the unmodelled `p` member with which Bedrock hides how long an event is.
pub fn pad(payload: &mut Value, index: usize) {
    const PADDING: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    payload["p"] = json!(PADDING.get(..1 + index * 7 % PADDING.len()));
}

fn token_usage(usage: &Usage) -> Value {
    let mut told = json!({
        "inputTokens": usage.input,
        "outputTokens": usage.output,
        "totalTokens": usage.total(),
        "cacheReadInputTokens": usage.cache_read,
        "cacheWriteInputTokens": usage.cache_write(),
    });
    if usage.cache_write() > 0 {
        told["cacheDetails"] = json!([
            { "ttl": "1h", "inputTokens": usage.cache_write_1h },
            { "ttl": "5m", "inputTokens": usage.cache_write_5m },
        ]);
    }
    told
}

/// What a whole answer and the metadata event have in common.
fn finish(ask: &Ask<'_>, generation: &mut Generation, told: &mut Value) {
    if let Some(tier) = &generation.tier {
        told["serviceTier"] = json!({ "type": tier });
    }
    if let Some(latency) = &generation.latency {
        told["performanceConfig"] = json!({ "latency": latency });
    }
    if let Some(invoked) = &ask.effect.billed_model
        && ask.model.is_some_and(|model| model.contains("prompt-router"))
    {
        told["trace"]["promptRouter"] = json!({ "invokedModelId": invoked });
    }
    if let Some(guardrail) = ask.json.pointer("/guardrailConfig/guardrailIdentifier").and_then(Value::as_str) {
        let input = GuardrailUnits::of_text(super::generation::prompt_text(ask.json).chars().count());
        let output = GuardrailUnits::of_text(generation.text().chars().count());
        generation.usage.guardrail = input.plus(output);
        let trace = ask.json.pointer("/guardrailConfig/trace").and_then(Value::as_str);
        if matches!(trace, Some("enabled" | "enabled_full")) {
            told["trace"]["guardrail"] = json!({
                "inputAssessment": { guardrail: { "invocationMetrics": guardrail::metrics(&input) } },
                "outputAssessments": { guardrail: [{ "invocationMetrics": guardrail::metrics(&output) }] },
            });
        }
    }
}

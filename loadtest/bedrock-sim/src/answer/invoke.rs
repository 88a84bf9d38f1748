//! InvokeModel and InvokeModelWithResponseStream: which provider's body a model id means, the headers that carry token
//! counts, and the `chunk` frames that carry a provider's own events in base64. The last chunk of a stream also holds
//! `amazon-bedrock-invocationMetrics`. Source: bedrock-runtime's model, and the header names that langchain-aws,
//! dd-trace and LiteLLM read.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::generation::Generation;
use super::{Answer, Answered, Ask, anthropic, converse, embedding, image, native, openai};
use crate::billing::Bill;
use crate::usage::Usage;

/// The families that InvokeModel bodies come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Anthropic,
    Nova,
    TitanText,
    Llama,
    DeepSeekR1,
    MistralText,
    CohereCommand,
    CohereCommandR,
    OpenAi,
    Writer,
    Pegasus,
    Embedding(embedding::Kind),
    Image,
    Rerank,
}

/// The family of a model id, with or without geography prefix, or of an ARN that contains one.
pub fn family(model: &str) -> Family {
    use embedding::Kind;
    let has = |part: &str| model.contains(part);
    if has("anthropic.") || has("claude") {
        Family::Anthropic
    } else if has("rerank") {
        Family::Rerank
    } else if has("embed") {
        let kinds =
            [("cohere.", Kind::Cohere), ("marengo", Kind::Marengo), ("nova", Kind::Nova), ("image", Kind::TitanImage)];
        let kind = kinds.iter().find(|(part, _)| has(part)).map_or(Kind::TitanText, |(_, kind)| *kind);
        Family::Embedding(kind)
    } else if has("stability.") || has("nova-canvas") || has("titan-image") {
        Family::Image
    } else if has("amazon.nova") {
        Family::Nova
    } else if has("amazon.titan") {
        Family::TitanText
    } else if has("meta.llama") {
        Family::Llama
    } else if has("deepseek.r1") {
        Family::DeepSeekR1
    } else if has("mistral.mistral-7b") || has("mixtral") || has("mistral-large-2402") || has("mistral-small-2402") {
        Family::MistralText
    } else if has("cohere.command-r") {
        Family::CohereCommandR
    } else if has("cohere.command") {
        Family::CohereCommand
    } else if has("writer.") {
        Family::Writer
    } else if has("pegasus") {
        Family::Pegasus
    } else {
        Family::OpenAi
    }
}

pub fn whole(ask: &Ask<'_>) -> Answered {
    let family = family(ask.model.unwrap_or_default());
    match family {
        Family::Embedding(kind) => return embedding::answer(ask, kind),
        Family::Image => return image::answer(ask),
        Family::Rerank => return rerank(ask),
        _ => {}
    }
    let generation = Generation::of(ask);
    let body = match family {
        Family::Anthropic => anthropic::message(&generation, ask.model.unwrap_or_default()),
        Family::OpenAi | Family::Writer => openai::completion(&generation, ask.model.unwrap_or_default()),
        other => native::whole(other, &generation, ask),
    };
    let mut answer = Answer::json(200, &body);
    if ask.token_headers {
        answer.headers.extend(token_headers(&generation.usage));
        answer.headers.push(("x-amzn-bedrock-invocation-latency", generation.latency_ms.to_string()));
    }
    add_terms(&mut answer, &generation);
    (answer, Some(ask.bill(&generation)))
}

pub fn stream(ask: &Ask<'_>) -> Answered {
    let family = family(ask.model.unwrap_or_default());
    if matches!(family, Family::Embedding(_) | Family::Image | Family::Rerank) {
        let message = "The model is unsupported for streaming";
        return (super::error_answer(400, "ValidationException", message, None), None);
    }
    let generation = Generation::of(ask);
    let mut events = match family {
        Family::Anthropic => anthropic::events(&generation, ask.model.unwrap_or_default()),
        Family::OpenAi | Family::Writer => openai::chunks(&generation, ask.model.unwrap_or_default(), true),
        other => native::events(other, &generation),
    };
    if let Some(last) = events.last_mut() {
        last["amazon-bedrock-invocationMetrics"] = metrics(&generation);
    }
    let mut payloads: Vec<String> = events.iter().map(Value::to_string).collect();
    if family == Family::Writer {
        payloads.push("[DONE]".to_owned());
    }
    let frames = payloads.iter().enumerate().map(|(index, native)| {
        let mut chunk = json!({ "bytes": BASE64_STANDARD.encode(native) });
        converse::pad(&mut chunk, index);
        ("chunk", chunk)
    });
    let mut answer = Answer::frames(frames);
    answer.headers.push(("x-amzn-bedrock-content-type", "application/json".to_owned()));
    add_terms(&mut answer, &generation);
    (answer, Some(ask.bill(&generation)))
}

/// The headers with which Bedrock tells token counts; cache counts only where there are any.
pub fn token_headers(usage: &Usage) -> Vec<(&'static str, String)> {
    let mut headers = vec![
        ("x-amzn-bedrock-input-token-count", usage.input.to_string()),
        ("x-amzn-bedrock-output-token-count", usage.output.to_string()),
    ];
    if usage.cache_read > 0 || usage.cache_write() > 0 {
        headers.push(("x-amzn-bedrock-cache-read-input-token-count", usage.cache_read.to_string()));
        headers.push(("x-amzn-bedrock-cache-write-input-token-count", usage.cache_write().to_string()));
    }
    headers
}

fn add_terms(answer: &mut Answer, generation: &Generation) {
    let tier = generation.tier.clone().map(|tier| ("x-amzn-bedrock-service-tier", tier));
    let latency = generation.latency.clone().map(|latency| ("x-amzn-bedrock-performanceconfig-latency", latency));
    answer.headers.extend(tier.into_iter().chain(latency));
}

fn metrics(generation: &Generation) -> Value {
    let usage = &generation.usage;
    let mut metrics = json!({
        "inputTokenCount": usage.input,
        "outputTokenCount": usage.output,
        "invocationLatency": generation.latency_ms,
        "firstByteLatency": generation.latency_ms / 3,
    });
    if usage.cache_read > 0 || usage.cache_write() > 0 {
        metrics["cacheReadInputTokenCount"] = json!(usage.cache_read);
        metrics["cacheWriteInputTokenCount"] = json!(usage.cache_write());
    }
    metrics
}

/// Rerank models by InvokeModel: one query, whose documents are ranked as they came.
fn rerank(ask: &Ask<'_>) -> Answered {
    let documents = ask.json.get("documents").and_then(Value::as_array).map_or(0, Vec::len);
    let top = ask.json.get("top_n").and_then(Value::as_u64).and_then(|top| usize::try_from(top).ok());
    let results: Vec<Value> = (0..documents.min(top.unwrap_or(documents)))
        .map(|index| json!({ "index": index, "relevance_score": relevance(index) }))
        .collect();
    let usage =
        Usage { queries: queries(documents), ..Usage::default() }.overridden(&ask.effect.usage.unwrap_or_default());
    let bill = Bill { model: ask.billed_model(), usage, ..Bill::default() };
    (Answer::json(200, &json!({ "results": results })), Some(bill))
}

/// A search unit is one query with up to 100 documents.
pub fn queries(documents: usize) -> u64 {
    u64::try_from(documents.div_ceil(100)).unwrap_or(u64::MAX).max(1)
}

pub fn relevance(index: usize) -> f64 {
    1.0 / (1.0 + f64::from(u32::try_from(index).unwrap_or(u32::MAX)))
}

//! The text and the token counts of a simulated generation. A token is a word of the answer, or four characters of the
//! prompt: fewer than its bytes, as with every real tokenizer, and within `max_tokens`. Rules may demand any other
//! numbers, or as many as a request can cause. A request that marks a cache point writes half of its prompt to the cache, for an hour where it says so.

use memchr::memmem;
use serde_json::Value;

use super::{Answer, Ask};
use crate::behaviour::Tokens;
use crate::text::mix;
use crate::usage::Usage;

/// Words of the prompt that are echoed.
const ECHO_WORDS: usize = 24;
/// Members whose strings are prompt text.
const TEXT_MEMBERS: [&str; 12] = [
    "text",
    "prompt",
    "inputText",
    "content",
    "message",
    "query",
    "input",
    "system",
    "texts",
    "documents",
    "inputs",
    "instructions",
];
const FILLING: [&str; 12] = ["and", "so", "the", "stream", "goes", "on", "word", "by", "word", "until", "it", "ends."];

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    EndTurn,
    MaxTokens,
    ToolUse,
}

/// A generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// The answer's text, in the pieces a stream sends.
    pub deltas: Vec<String>,
    pub usage: Usage,
    pub stop: Stop,
    /// What the response states, if it states a tier at all.
    pub tier: Option<String>,
    pub latency: Option<String>,
    /// The tool that the request forces to be called.
    pub tool: Option<String>,
    pub latency_ms: u64,
}

impl Generation {
    pub fn of(ask: &Ask<'_>) -> Self {
        let prompt = prompt_text(ask.json);
        let chance = mix(ask.seed, ask.body);
        let tokens_max = max_tokens(ask.json);
        let words = words(ask.effect.text.as_deref(), question(ask.json).unwrap_or(&prompt), chance, tokens_max);
        let by_bytes = ask.effect.tokens == Some(Tokens::Bytes);
        let truncated = by_bytes || u64::try_from(words.len()).is_ok_and(|count| count >= tokens_max);
        let tool = forced_tool(ask.json);
        let stop = match (&tool, truncated) {
            (Some(_), _) => Stop::ToolUse,
            (None, true) => Stop::MaxTokens,
            (None, false) => Stop::EndTurn,
        };
        let (input, output) =
            if by_bytes { (length(ask.body), tokens_max) } else { (tokens_of(&prompt), length(&words)) };
        let counted = Usage { input, output, ..Usage::default() };
        let usage = with_cache_writes(counted, ask.body).overridden(&ask.effect.usage.unwrap_or_default());
        let mut frame_bytes = ask.effect.frame_bytes;
        if by_bytes && frame_bytes.is_none() {
            let frames = u64::try_from(ask.effect.frames.unwrap_or(words.len()).max(1)).unwrap_or(u64::MAX);
            frame_bytes = usize::try_from(usage.output.div_ceil(frames)).ok();
        }
        Self {
            deltas: deltas(words, ask.effect.frames, frame_bytes),
            usage,
            stop,
            tier: ask.effect.tier.clone().or_else(|| requested_tier(ask)),
            latency: ask.effect.latency.clone().or_else(|| requested_latency(ask)),
            tool,
            latency_ms: 100 + chance % 900,
        }
    }

    pub fn text(&self) -> String {
        self.deltas.concat()
    }

    /// The stop reason in one of the providers' vocabularies.
    pub fn stop_word(&self, end: &'static str, length: &'static str, tool: &'static str) -> &'static str {
        match self.stop {
            Stop::EndTurn => end,
            Stop::MaxTokens => length,
            Stop::ToolUse => tool,
        }
    }
}

/// `CountTokens`: the same count that the generation itself would report.
pub fn count_tokens(ask: &Ask<'_>) -> Answer {
    let tokens = match ask.json.pointer("/input/invokeModel/body").and_then(Value::as_str) {
        Some(body) => {
            use base64::Engine;
            let decoded = base64::prelude::BASE64_STANDARD.decode(body).unwrap_or_default();
            prompt_tokens(&serde_json::from_slice(&decoded).unwrap_or(Value::Null))
        }
        None => prompt_tokens(ask.json.pointer("/input/converse").unwrap_or(&Value::Null)),
    };
    Answer::json(200, &serde_json::json!({ "inputTokens": tokens }))
}

pub fn prompt_tokens(json: &Value) -> u64 {
    tokens_of(&prompt_text(json))
}

/// What the answer echoes: the last text of the last message. Agents put pages of instructions before the question.
fn question(json: &Value) -> Option<&str> {
    let last = json.get("messages")?.as_array()?.last()?.get("content")?;
    let Value::Array(parts) = last else { return last.as_str() };
    parts.iter().rev().find_map(|part| part.get("text")?.as_str())
}

/// All prompt text of a body, whatever the provider calls its members.
pub fn prompt_text(json: &Value) -> String {
    let mut text = String::new();
    collect(json, false, &mut text);
    text
}

fn collect(json: &Value, is_text: bool, into: &mut String) {
    match json {
        Value::String(own) if is_text => {
            if !into.is_empty() {
                into.push(' ');
            }
            into.push_str(own);
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, is_text, into)),
        Value::Object(members) => {
            for (name, value) in members {
                collect(value, TEXT_MEMBERS.contains(&name.as_str()), into);
            }
        }
        _ => {}
    }
}

fn length<T>(items: &[T]) -> u64 {
    u64::try_from(items.len()).unwrap_or(u64::MAX)
}

fn tokens_of(text: &str) -> u64 {
    u64::try_from(text.len().div_ceil(4)).unwrap_or(u64::MAX).max(1)
}

fn max_tokens(json: &Value) -> u64 {
    const PLACES: [&str; 12] = [
        "/inferenceConfig/maxTokens",
        "/inferenceConfig/max_new_tokens",
        "/textGenerationConfig/maxTokenCount",
        "/max_tokens",
        "/max_completion_tokens",
        "/max_output_tokens",
        "/max_gen_len",
        "/maxTokens",
        "/max_tokens_to_sample",
        "/inferenceConfiguration/maximumLength",
        "/max_new_tokens",
        "/maxOutputTokens",
    ];
    PLACES.iter().find_map(|place| json.pointer(place)?.as_u64()).unwrap_or(4096).max(1)
}

fn words(text: Option<&str>, prompt: &str, chance: u64, tokens_max: u64) -> Vec<String> {
    let own: Vec<String> = if let Some(text) = text {
        text.split_inclusive(' ').map(str::to_owned).collect()
    } else {
        let echo = prompt.split_whitespace().take(ECHO_WORDS);
        let filling = FILLING.iter().copied().take(usize::try_from(chance % 12).unwrap_or(0));
        let words: Vec<&str> = ["You", "said:"].into_iter().chain(echo).chain(filling).collect();
        let last = words.len() - 1;
        let spaced = words.iter().enumerate();
        spaced.map(|(at, word)| if at == last { (*word).to_owned() } else { format!("{word} ") }).collect()
    };
    own.into_iter().take(usize::try_from(tokens_max).unwrap_or(usize::MAX)).collect()
}

/// The words as stream deltas: one each, or as many and as long as a rule demands.
fn deltas(words: Vec<String>, frames: Option<usize>, frame_bytes: Option<usize>) -> Vec<String> {
    if frames.is_none() && frame_bytes.is_none() {
        return words;
    }
    let count = frames.unwrap_or(words.len());
    let sized = |word: &String| match frame_bytes {
        Some(bytes) => {
            word.bytes().filter(u8::is_ascii).map(char::from).chain(std::iter::repeat('.')).take(bytes).collect()
        }
        None => word.clone(),
    };
    words.iter().cycle().take(count).map(sized).collect()
}

fn with_cache_writes(usage: Usage, body: &[u8]) -> Usage {
    let has = |needle: &[u8]| memmem::find(body, needle).is_some();
    if !has(b"cachePoint") && !has(b"cache_control") {
        return usage;
    }
    let written = usage.input / 2;
    let rest = Usage { input: usage.input - written, ..usage };
    if has(br#""ttl":"1h""#) || has(br#""ttl": "1h""#) {
        Usage { cache_write_1h: written, ..rest }
    } else {
        Usage { cache_write_5m: written, ..rest }
    }
}

fn requested_tier(ask: &Ask<'_>) -> Option<String> {
    let in_body =
        ask.json.pointer("/serviceTier/type").or_else(|| ask.json.get("service_tier")).and_then(Value::as_str);
    in_body.or_else(|| ask.header("x-amzn-bedrock-service-tier")).filter(|tier| *tier != "auto").map(str::to_owned)
}

fn requested_latency(ask: &Ask<'_>) -> Option<String> {
    let in_body = ask.json.pointer("/performanceConfig/latency").and_then(Value::as_str);
    in_body.or_else(|| ask.header("x-amzn-bedrock-performanceconfig-latency")).map(str::to_owned)
}

/// The tool of a `toolChoice`/`tool_choice` that leaves no choice.
fn forced_tool(json: &Value) -> Option<String> {
    let converse_first = || json.pointer("/toolConfig/tools/0/toolSpec/name");
    let choice = json.pointer("/toolConfig/toolChoice");
    let converse = choice
        .and_then(|choice| choice.pointer("/tool/name").or_else(|| choice.get("any").and_then(|_| converse_first())));
    let anthropic = json.get("tool_choice").and_then(|choice| match choice.get("type")?.as_str()? {
        "tool" => choice.get("name"),
        "any" => json.pointer("/tools/0/name"),
        "function" => choice.pointer("/function/name"),
        _ => None,
    });
    converse.or(anthropic).and_then(Value::as_str).map(str::to_owned)
}

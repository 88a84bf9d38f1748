//! OpenAI's shapes: `/openai/v1/chat/completions`, `/openai/v1/responses`, and the bodies that gpt-oss, Qwen, Mistral
//! chat, AI21, Writer and others return through InvokeModel.
//!
//! `prompt_tokens` and the Responses API's `input_tokens` include cached tokens. A chat stream has usage in its last
//! event only if the client asked for it (`stream_options.include_usage`). Source: OpenAI's API reference.

use super::super::document::{Field, Member, Role, Site, content, number, text};
use super::super::json_scan::EACH;

const RESPONSES_TOKENS: &[Member] = &[
    number("input_tokens", Field::InputWithCache),
    number("output_tokens", Field::Output),
    number("total_tokens", Field::Total),
];

const CACHED: &[Member] = &[number("cached_tokens", Field::CacheRead)];

pub(in crate::usage) const ROOT: Site =
    Site { path: &[], role: Role::Plain, members: &[text("service_tier", Field::Tier), content("delta")] };

pub(in crate::usage) const CHAT_USAGE: Site = Site {
    path: &["usage"],
    role: Role::Usage,
    members: &[
        number("prompt_tokens", Field::ChatInput),
        number("completion_tokens", Field::Output),
        number("total_tokens", Field::Total),
    ],
};

pub(in crate::usage) const CHAT_CACHED: Site =
    Site { path: &["usage", "prompt_tokens_details"], role: Role::UsagePart, members: CACHED };

pub(in crate::usage) const CHAT_CHOICES: Site = Site {
    path: &["choices", EACH],
    role: Role::Plain,
    members: &[text("finish_reason", Field::FinishReason), text("stop_reason", Field::FinishReason), content("text")],
};

pub(in crate::usage) const CHAT_DELTA: Site = Site {
    path: &["choices", EACH, "delta"],
    role: Role::Plain,
    members: &[content("content"), content("reasoning_content"), content("reasoning"), content("refusal")],
};

/// Some models stream `message` where OpenAI has `delta`.
pub(in crate::usage) const CHAT_MESSAGE: Site =
    Site { path: &["choices", EACH, "message"], role: Role::Plain, members: &[content("content")] };

pub(in crate::usage) const CHAT_TOOL: Site = Site {
    path: &["choices", EACH, "delta", "tool_calls", EACH, "function"],
    role: Role::Plain,
    members: &[content("arguments")],
};

pub(in crate::usage) const RESPONSES_USAGE: Site =
    Site { path: &["usage"], role: Role::Usage, members: RESPONSES_TOKENS };

pub(in crate::usage) const RESPONSES_CACHED: Site =
    Site { path: &["usage", "input_tokens_details"], role: Role::UsagePart, members: CACHED };

/// A streamed event: the response as it stands, and the text of `….delta` events.
pub(in crate::usage) const RESPONSES_EVENT: Site =
    Site { path: &["response"], role: Role::Plain, members: &[text("service_tier", Field::Tier)] };

pub(in crate::usage) const RESPONSES_EVENT_USAGE: Site =
    Site { path: &["response", "usage"], role: Role::Usage, members: RESPONSES_TOKENS };

pub(in crate::usage) const RESPONSES_EVENT_CACHED: Site =
    Site { path: &["response", "usage", "input_tokens_details"], role: Role::UsagePart, members: CACHED };

//! Amazon Nova through InvokeModel: `usage` in the body, `metadata.usage` in the last events of a stream.
//!
//! Its cache counts are named otherwise than Converse's. Source: the responses that litellm 1.106 and OpenTelemetry's
//! botocore instrumentation read; the streaming form is that of Converse with the event name as a key.

use super::super::document::{Field, Member, Role, Site, content, number};

const TOKENS: &[Member] = &[
    number("inputTokens", Field::Input),
    number("outputTokens", Field::Output),
    number("totalTokens", Field::Total),
    number("cacheReadInputTokenCount", Field::CacheRead),
    number("cacheWriteInputTokenCount", Field::CacheWrite),
    number("cacheReadInputTokens", Field::CacheRead),
    number("cacheWriteInputTokens", Field::CacheWrite),
];

pub(in crate::usage) const USAGE: Site = Site { path: &["usage"], role: Role::Usage, members: TOKENS };

pub(in crate::usage) const STREAM_USAGE: Site =
    Site { path: &["metadata", "usage"], role: Role::Usage, members: TOKENS };

pub(in crate::usage) const DELTA: Site =
    Site { path: &["contentBlockDelta", "delta"], role: Role::Plain, members: &[content("text")] };

pub(in crate::usage) const REASONING: Site = Site {
    path: &["contentBlockDelta", "delta", "reasoningContent", "reasoningText"],
    role: Role::Plain,
    members: &[content("text")],
};

//! Anthropic's Messages format: InvokeModel with Claude, and `/anthropic/v1/messages`.
//!
//! A body has `usage` at its root. A stream states input and cache in `message_start.message.usage` and the output,
//! cumulative, in every `message_delta.usage`. Only here are cache writes told apart by lifetime. `input_tokens` never
//! includes the cache. Source: Anthropic's Messages API reference; confirmed by the frames Claude's SDKs accept.

use super::super::document::{Field, Member, Role, Site, content, number, text};

const TOKENS: &[Member] = &[
    number("input_tokens", Field::Input),
    number("output_tokens", Field::Output),
    number("cache_read_input_tokens", Field::CacheRead),
    number("cache_creation_input_tokens", Field::CacheWrite),
];

const LIFETIMES: &[Member] = &[
    number("ephemeral_5m_input_tokens", Field::CacheWrite5m),
    number("ephemeral_1h_input_tokens", Field::CacheWrite1h),
];

const SERVICE_TIER: &[Member] = &[text("service_tier", Field::Tier)];

pub(in crate::usage) const USAGE: Site = Site { path: &["usage"], role: Role::Usage, members: TOKENS };

pub(in crate::usage) const CACHE_CREATION: Site =
    Site { path: &["usage", "cache_creation"], role: Role::UsagePart, members: LIFETIMES };

pub(in crate::usage) const TIER: Site = Site { path: &["usage"], role: Role::Plain, members: SERVICE_TIER };

pub(in crate::usage) const FIRST_USAGE: Site =
    Site { path: &["message", "usage"], role: Role::FirstUsage, members: TOKENS };

pub(in crate::usage) const FIRST_CACHE_CREATION: Site =
    Site { path: &["message", "usage", "cache_creation"], role: Role::UsagePart, members: LIFETIMES };

pub(in crate::usage) const FIRST_TIER: Site =
    Site { path: &["message", "usage"], role: Role::Plain, members: SERVICE_TIER };

/// What a `content_block_delta` adds.
pub(in crate::usage) const DELTA: Site = Site {
    path: &["delta"],
    role: Role::Plain,
    members: &[content("text"), content("thinking"), content("partial_json")],
};

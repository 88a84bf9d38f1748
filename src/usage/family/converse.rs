//! Converse, the `metadata` event of ConverseStream and that of AgentCore's InvokeHarness.
//!
//! Source: TokenUsage, CacheDetail, ServiceTier, PerformanceConfiguration, PromptRouterTrace and HarnessTokenUsage of
//! botocore 1.44.5. The tier and latency that the response states are what AWS bills, not those of the request.

use super::super::document::{Field, Member, Role, Site, number, text};
use super::super::json_scan::EACH;

const TOKENS: &[Member] = &[
    number("inputTokens", Field::Input),
    number("outputTokens", Field::Output),
    number("totalTokens", Field::Total),
    number("cacheReadInputTokens", Field::CacheRead),
    number("cacheWriteInputTokens", Field::CacheWrite),
];

pub(in crate::usage) const USAGE: Site = Site { path: &["usage"], role: Role::Usage, members: TOKENS };

pub(in crate::usage) const CACHE_DETAILS: Site = Site {
    path: &["usage", "cacheDetails", EACH],
    role: Role::CacheDetail,
    members: &[text("ttl", Field::CacheTtl), number("inputTokens", Field::CacheTtlTokens)],
};

pub(in crate::usage) const SERVICE_TIER: Site =
    Site { path: &["serviceTier"], role: Role::Plain, members: &[text("type", Field::Tier)] };

pub(in crate::usage) const PERFORMANCE: Site =
    Site { path: &["performanceConfig"], role: Role::Plain, members: &[text("latency", Field::Latency)] };

pub(in crate::usage) const PROMPT_ROUTER: Site =
    Site { path: &["trace", "promptRouter"], role: Role::Plain, members: &[text("invokedModelId", Field::Model)] };

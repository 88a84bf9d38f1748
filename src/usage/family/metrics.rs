//! `amazon-bedrock-invocationMetrics`, which Bedrock adds to the last event of every InvokeModelWithResponseStream.
//!
//! AWS's own count. It excludes cache tokens from the input and does not tell cache lifetimes apart, so what the model
//! itself reported goes first and this fills in. Source: the service's responses as SDK fixtures record them.

use super::super::document::{Field, Role, Site, number};

pub(in crate::usage) const INVOCATION: Site = Site {
    path: &["amazon-bedrock-invocationMetrics"],
    role: Role::Metrics,
    members: &[
        number("inputTokenCount", Field::Input),
        number("outputTokenCount", Field::Output),
        number("cacheReadInputTokenCount", Field::CacheRead),
        number("cacheWriteInputTokenCount", Field::CacheWrite),
    ],
};

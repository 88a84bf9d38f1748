//! The keys that say which deployment serves a request and what happens when it does not: all of `router_settings`, and
//! those of `dheera_ai_settings` that mean the same.
//!
//! Values as written; how they combine and what they default to is decided in `resolve/router.rs`.

use super::{Number, Seconds, Switch};
use crate::config::problem::Located;
use crate::config::section::{Reader, Section, Text, join};
use crate::deployment::affinity::CacheAffinity;
use crate::deployment::select::Strategy;
use crate::types::secret::Secret;
use crate::yaml::{Content, Node};

/// LiteLLM's names.
const STRATEGIES: &[(&str, Strategy)] = &[
    ("simple-shuffle", Strategy::SimpleShuffle),
    ("least-busy", Strategy::LeastBusy),
    ("latency-based-routing", Strategy::LatencyBased),
    ("usage-based-routing", Strategy::UsageBased),
    ("usage-based-routing-v2", Strategy::UsageBased),
    ("cost-based-routing", Strategy::CostBased),
];

const AFFINITIES: &[(&str, CacheAffinity)] =
    &[("auto", CacheAffinity::Auto), ("always", CacheAffinity::Always), ("off", CacheAffinity::Off)];

#[derive(Default)]
pub(in crate::config) struct RawRouter {
    pub(in crate::config) strategy: Option<Located<Strategy>>,
    pub(in crate::config) cache_affinity: Option<Located<CacheAffinity>>,
    pub(in crate::config) affinity_header: Option<Text>,
    pub(in crate::config) num_retries: Number,
    pub(in crate::config) retry_budget_percent: Number,
    pub(in crate::config) timeout: Seconds,
    pub(in crate::config) stream_timeout: Seconds,
    pub(in crate::config) total_timeout: Seconds,
    pub(in crate::config) stream_total_timeout: Seconds,
    pub(in crate::config) connect_timeout: Seconds,
    pub(in crate::config) disable_cooldowns: Switch,
    pub(in crate::config) cooldown_time_max: Seconds,
    pub(in crate::config) max_fallbacks: Number,
    pub(in crate::config) health_check_interval: Seconds,
    pub(in crate::config) failing: RawFailing,
}

/// What either section may hold.
#[derive(Default)]
pub(in crate::config) struct RawFailing {
    pub(in crate::config) allowed_fails: Number,
    pub(in crate::config) cooldown_time: Seconds,
    pub(in crate::config) fallbacks: Option<Vec<RawFallback>>,
    pub(in crate::config) context_window_fallbacks: Option<Vec<RawFallback>>,
    pub(in crate::config) default_fallbacks: Option<Vec<Text>>,
}

/// One model name and those that stand in for it.
pub(in crate::config) struct RawFallback {
    pub(in crate::config) of: Text,
    pub(in crate::config) to: Vec<Text>,
}

pub(super) fn read(reader: &mut Reader<'_>, section: &Section<'_>) -> RawRouter {
    RawRouter {
        strategy: section.choice(reader, "routing_strategy", STRATEGIES),
        cache_affinity: section.choice(reader, "cache_affinity", AFFINITIES),
        affinity_header: section.text(reader, "affinity_header_name"),
        num_retries: section.count(reader, "num_retries", 0..=20),
        retry_budget_percent: section.count(reader, "retry_budget_percent", 0..=1000),
        timeout: section.seconds(reader, "timeout"),
        stream_timeout: section.seconds(reader, "stream_timeout"),
        total_timeout: section.seconds(reader, "total_timeout"),
        stream_total_timeout: section.seconds(reader, "stream_total_timeout"),
        connect_timeout: section.seconds(reader, "connect_timeout"),
        disable_cooldowns: section.switch(reader, "disable_cooldowns"),
        cooldown_time_max: section.seconds(reader, "cooldown_time_max"),
        max_fallbacks: section.count(reader, "max_fallbacks", 0..=20),
        health_check_interval: section.seconds_or_zero(reader, "health_check_interval"),
        failing: failing(reader, section),
    }
}

/// What either section may hold.
pub(super) fn failing(reader: &mut Reader<'_>, section: &Section<'_>) -> RawFailing {
    RawFailing {
        allowed_fails: section.count(reader, "allowed_fails", 0..=10_000),
        cooldown_time: section.seconds(reader, "cooldown_time"),
        fallbacks: fallbacks(reader, section, "fallbacks"),
        context_window_fallbacks: fallbacks(reader, section, "context_window_fallbacks"),
        default_fallbacks: section.node("default_fallbacks").map(|(at, node)| {
            let path = at.path.clone();
            names(reader, node, &path)
        }),
    }
}

/// `[{a: [b, c]}, {d: [e]}]` as LiteLLM has it, or one mapping.
fn fallbacks(reader: &mut Reader<'_>, section: &Section<'_>, name: &str) -> Option<Vec<RawFallback>> {
    let (at, node) = section.node(name)?;
    let path = at.path.clone();
    let elements = match &node.content {
        Content::Map(_) => std::slice::from_ref(node),
        _ => reader.list(node, &path),
    };
    let mut found = Vec::new();
    for element in elements {
        for entry in reader.mapping(element, &path).unwrap_or_default() {
            let at = reader.at(entry.key_place, join(&path, &entry.key.escape_debug().to_string()));
            let to = names(reader, &entry.value, &at.path);
            let of = Text { value: Secret::new(entry.key.as_str()), at };
            found.push(RawFallback { of, to });
        }
    }
    Some(found)
}

/// A list of names, or one.
fn names(reader: &mut Reader<'_>, node: &Node, path: &str) -> Vec<Text> {
    let elements = match &node.content {
        Content::Scalar { .. } if !node.is_null() => std::slice::from_ref(node),
        _ => reader.list(node, path),
    };
    let mut names = Vec::with_capacity(elements.len());
    for (index, element) in elements.iter().enumerate() {
        let at = reader.at(element.place, format!("{path}[{index}]"));
        names.extend(reader.text(at, element));
    }
    names
}

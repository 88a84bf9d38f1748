//! The keys that say how budgets are kept, out of `general_settings` and `dheera_ai_settings`.
//!
//! Values as written; what they default to is decided in `resolve/budgets.rs`.

use super::{Number, Seconds};
use crate::budget::period::Period;
use crate::config::problem::Located;
use crate::config::section::{Reader, Section, Text};
use crate::config::{OnLowBudget, UnknownUsage};
use crate::types::money::NanoUsd;

type Dollars = Option<Located<NanoUsd>>;

/// What everybody together may spend.
#[derive(Default)]
pub(in crate::config) struct RawGlobal {
    pub(in crate::config) max_budget: Dollars,
    pub(in crate::config) soft_budget: Dollars,
    pub(in crate::config) budget_duration: Option<Located<Period>>,
}

#[derive(Default)]
pub(in crate::config) struct RawBudgets {
    pub(in crate::config) time_zone: Option<Text>,
    pub(in crate::config) allow_unpriced: Option<Located<bool>>,
    pub(in crate::config) unknown_usage: Option<Located<UnknownUsage>>,
    pub(in crate::config) on_low_budget: Option<Located<OnLowBudget>>,
    pub(in crate::config) drain_timeout: Seconds,
    pub(in crate::config) drain_mb: Number,
    pub(in crate::config) slice_max: Dollars,
    pub(in crate::config) parallel_max: Number,
    pub(in crate::config) webhook: Option<Text>,
    pub(in crate::config) metric_names: Number,
    pub(in crate::config) retention: Option<Located<std::time::Duration>>,
    pub(in crate::config) user_header: Option<Text>,
    pub(in crate::config) tag_header: Option<Text>,
    pub(in crate::config) cache_entries: Number,
}

/// Out of `dheera_ai_settings`.
pub(super) fn global(reader: &mut Reader<'_>, section: &Section<'_>) -> RawGlobal {
    RawGlobal {
        max_budget: section.dollars(reader, "max_budget"),
        soft_budget: section.dollars(reader, "soft_budget"),
        budget_duration: section.period(reader, "budget_duration"),
    }
}

/// Out of `general_settings`.
pub(super) fn read(reader: &mut Reader<'_>, section: &Section<'_>) -> RawBudgets {
    RawBudgets {
        time_zone: section.text(reader, "budget_time_zone"),
        allow_unpriced: section.choice(reader, "unpriced", &[("refuse", false), ("allow", true)]),
        unknown_usage: section.choice(
            reader,
            "unknown_usage",
            &[("reservation", UnknownUsage::Reservation), ("estimate", UnknownUsage::Estimate)],
        ),
        on_low_budget: section.choice(
            reader,
            "on_low_budget",
            &[("extend", OnLowBudget::Extend), ("refuse", OnLowBudget::Refuse)],
        ),
        drain_timeout: section.seconds_or_zero(reader, "drain_timeout"),
        drain_mb: section.count(reader, "drain_max_mb", 1..=1024),
        slice_max: section.dollars(reader, "budget_slice_max"),
        parallel_max: section.count(reader, "global_max_parallel_requests", 1..=10_000_000),
        webhook: section.text(reader, "soft_budget_webhook_url"),
        metric_names: section.count(reader, "metric_names_max", 0..=10_000),
        retention: section.span(reader, "maximum_spend_logs_retention_period"),
        user_header: section.text(reader, "user_header_name"),
        tag_header: section.text(reader, "tag_header_name"),
        cache_entries: section.count(reader, "user_api_key_cache_max_size", 1..=10_000_000),
    }
}

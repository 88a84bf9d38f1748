//! How budgets are kept: the limits of everybody together, the calendar, and what becomes of calls whose cost is not
//! known in time.
//!
//! A limit that cannot be kept is a problem, never a warning. Which limits apply to a request is decided in `budget`.

use jiff::tz::TimeZone;

use super::store::state_directory;
use super::variables::Variables;
use crate::budget::limit::LimitSet;
use crate::config::problem::{At, Findings, Located, Told};
use crate::config::raw::budgets::{RawBudgets, RawGlobal};
use crate::config::section::Text;
use crate::config::{Access, Budgets, OnLowBudget, UnknownUsage, defaults, endpoint_url};
use crate::types::money::NanoUsd;
use crate::types::secret::Secret;

pub(super) fn budgets(
    raw: RawBudgets,
    global: RawGlobal,
    store_path: Option<Text>,
    access: Option<&Access>,
    variables: &mut Variables<'_>,
) -> Result<Budgets, Told> {
    let state_directory = state_directory(store_path, variables);
    let findings = &mut *variables.findings;
    let value = |number: Option<Located<u64>>, default: usize| match number {
        Some(located) => usize::try_from(located.value).unwrap_or(default),
        None => default,
    };
    let global = self::global(global, raw.parallel_max, access, findings);
    let time_zone = time_zone(raw.time_zone, findings);
    let webhook = raw.webhook.map(|text| webhook(&text, findings)).transpose();
    let end_user_headers = headers(raw.user_header, &defaults::END_USER_HEADERS, findings);
    let tag_headers = headers(raw.tag_header, &defaults::TAG_HEADERS, findings);
    Ok(Budgets {
        state_directory: state_directory?,
        global: global?,
        time_zone: time_zone?,
        allow_unpriced: raw.allow_unpriced.is_some_and(|located| located.value),
        unknown_usage: raw.unknown_usage.map_or(UnknownUsage::Reservation, |located| located.value),
        on_low_budget: raw.on_low_budget.map_or(OnLowBudget::Extend, |located| located.value),
        drain_timeout: raw.drain_timeout.map_or(defaults::DRAIN_TIMEOUT, |located| located.value),
        drain_bytes_max: raw
            .drain_mb
            .and_then(|located| usize::try_from(located.value.checked_mul(1024 * 1024)?).ok())
            .unwrap_or(defaults::DRAIN_BYTES_MAX),
        spend_log_retention: raw.retention.map_or(defaults::SPEND_LOG_RETENTION, |located| located.value),
        slice_max: raw.slice_max.map_or(defaults::SLICE_MAX, |located| located.value),
        soft_budget_webhook: webhook?,
        metric_names_max: value(raw.metric_names, defaults::METRIC_NAMES_MAX),
        end_user_headers: end_user_headers?,
        tag_headers: tag_headers?,
        cache_entries_max: value(raw.cache_entries, defaults::CACHE_ENTRIES_MAX),
    })
}

fn global(
    raw: RawGlobal,
    parallel_max: Option<Located<u64>>,
    access: Option<&Access>,
    findings: &mut Findings,
) -> Result<LimitSet, Told> {
    let mut told = Ok(());
    let limits = [
        raw.max_budget.as_ref().map(|located| &located.at),
        raw.soft_budget.as_ref().map(|located| &located.at),
        parallel_max.as_ref().map(|located| &located.at),
    ];
    let open = access.is_some_and(|access| access.master_key.is_none());
    for at in limits.into_iter().flatten().filter(|_| open) {
        let what = "cannot be kept without a master key: there is no store then";
        findings.problem(at, what, "Set DHEERA_AI_MASTER_KEY, or remove it");
        told = Err(Told);
    }
    if let Some(period) = raw.budget_duration.as_ref().filter(|_| raw.max_budget.is_none() && raw.soft_budget.is_none())
    {
        let what = "has no effect without `max_budget` or `soft_budget`";
        findings.problem(&period.at, what, "Add `max_budget`, or remove it");
        told = Err(Told);
    }
    if let Some(budget) = raw.max_budget.as_ref().filter(|budget| budget.value == NanoUsd::ZERO) {
        let what = "is zero, so that no call is let through that costs anything";
        findings.warn(&budget.at, what, "Remove it for no limit");
    }
    told?;
    Ok(LimitSet {
        max_budget: raw.max_budget.map(|located| located.value),
        soft_budget: raw.soft_budget.map(|located| located.value),
        budget_duration: raw.budget_duration.map(|located| located.value),
        max_parallel_requests: parallel_max.map(|located| located.value),
        ..LimitSet::default()
    })
}

fn time_zone(written: Option<Text>, findings: &mut Findings) -> Result<TimeZone, Told> {
    let Some(Text { value, at }) = written else { return Ok(TimeZone::UTC) };
    let name = value.expose().trim();
    if name.eq_ignore_ascii_case("utc") {
        return Ok(TimeZone::UTC);
    }
    TimeZone::get(name).map_err(|_| {
        let what = format!("{} is not a time zone that this machine knows", at.quote(name));
        findings.problem(
            &at,
            what,
            "Write a name such as `Europe/Berlin` (the package tzdata must be there), or `UTC`",
        );
        Told
    })
}

/// A URL that is only ever called, never shown: such URLs carry a token in their path.
fn webhook(text: &Text, findings: &mut Findings) -> Result<Secret, Told> {
    let url = text.value.expose().trim();
    let rest = ["https://", "http://"].iter().find_map(|scheme| endpoint_url::strip_scheme(url, scheme));
    let authority = rest.and_then(|rest| rest.split(['/', '?', '#']).next());
    let readable = authority.is_some_and(|authority| endpoint_url::server(authority, 443).is_ok());
    if readable && url.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(Secret::new(url));
    }
    findings.problem(&text.at, "is not an http:// or https:// URL", "Write a URL such as `https://hooks.example/x`");
    Err(Told)
}

/// Headers that carry secrets, whose values must not become names in a spend log.
const KEY_HEADERS: &[&str] = &[
    "authorization",
    "api-key",
    "cookie",
    "proxy-authorization",
    "x-amz-security-token",
    "x-api-key",
    "x-dheera-ai-api-key",
    "x-litellm-api-key",
];

/// The header that was written before those that are always read.
pub(super) fn headers(written: Option<Text>, always: &[&str], findings: &mut Findings) -> Result<Vec<String>, Told> {
    let mut headers: Vec<String> = Vec::new();
    if let Some(text) = written {
        headers.push(header_name(&text.value.expose().trim().to_ascii_lowercase(), &text.at, findings)?);
    }
    for name in always {
        if !headers.iter().any(|header| header == name) {
            headers.push((*name).to_owned());
        }
    }
    Ok(headers)
}

fn header_name(name: &str, at: &At, findings: &mut Findings) -> Result<String, Told> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let what = if KEY_HEADERS.contains(&name) {
        "carries a key or a token, which must not be logged"
    } else if name.is_empty() || name.len() > 128 || !name.bytes().all(token) {
        "is not the name of a header"
    } else {
        return Ok(name.to_owned());
    };
    let what = format!("{} {what}", at.quote(name));
    findings.problem(at, what, "Write the name of a header of your own, such as `x-user-id`");
    Err(Told)
}

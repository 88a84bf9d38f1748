//! How requests are spread over deployments, and what happens when one of them fails: `router_settings`, with
//! `dheera_ai_settings` where it has nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::budgets::headers;
use super::optional_seconds;
use crate::config::problem::{Findings, Located, nearest};
use crate::config::raw::RawSettings;
use crate::config::raw::router::{RawFailing, RawFallback, RawRouter};
use crate::config::section::Text;
use crate::config::{Deployment, Fallbacks, Router, defaults};
use crate::deployment::affinity::CacheAffinity;
use crate::deployment::cooldown::CooldownRules;
use crate::deployment::select::Strategy;
use crate::types::ids::ModelName;

pub(super) fn router(
    written: RawRouter,
    settings: RawSettings,
    deployments: &[Deployment],
    findings: &mut Findings,
) -> Option<Router> {
    let failing = RawFailing {
        allowed_fails: written.failing.allowed_fails.or(settings.failing.allowed_fails),
        cooldown_time: written.failing.cooldown_time.or(settings.failing.cooldown_time),
        fallbacks: written.failing.fallbacks.or(settings.failing.fallbacks),
        context_window_fallbacks: written
            .failing
            .context_window_fallbacks
            .or(settings.failing.context_window_fallbacks),
        default_fallbacks: written.failing.default_fallbacks.or(settings.failing.default_fallbacks),
    };
    let value = |seconds: Option<Located<Duration>>, default| optional_seconds(seconds).unwrap_or(default);
    let cooldown = cooldown(
        written.disable_cooldowns.as_ref().is_none_or(|located| !located.value),
        failing.allowed_fails.as_ref(),
        failing.cooldown_time.as_ref(),
        written.cooldown_time_max.as_ref(),
        findings,
    );
    let listed: BTreeSet<&str> = deployments.iter().map(|deployment| deployment.model_name.as_str()).collect();
    let mut names = Names { listed: &listed, findings };
    let fallbacks = Fallbacks {
        by_model: names.map(failing.fallbacks),
        context_window: names.map(failing.context_window_fallbacks),
        default: names.list(&failing.default_fallbacks.unwrap_or_default()),
        max: count(written.max_fallbacks.as_ref(), defaults::MAX_FALLBACKS)?,
    };
    let affinity_headers = headers(written.affinity_header, &defaults::AFFINITY_HEADERS, findings);
    let retries = written.num_retries.or(settings.num_retries);
    Some(Router {
        strategy: written.strategy.map_or(Strategy::SimpleShuffle, |located| located.value),
        cache_affinity: written.cache_affinity.map_or(CacheAffinity::Auto, |located| located.value),
        affinity_headers: affinity_headers.ok()?,
        num_retries: count(retries.as_ref(), defaults::NUM_RETRIES)?,
        retry_budget_percent: count(written.retry_budget_percent.as_ref(), defaults::RETRY_BUDGET_PERCENT)?,
        connect_timeout: value(written.connect_timeout, defaults::CONNECT_TIMEOUT),
        cooldown: cooldown?,
        fallbacks,
        health_check_interval: value(written.health_check_interval, defaults::HEALTH_CHECK_INTERVAL),
    })
}

fn cooldown(
    enabled: bool,
    allowed_fails: Option<&Located<u64>>,
    base: Option<&Located<Duration>>,
    max: Option<&Located<Duration>>,
    findings: &mut Findings,
) -> Option<CooldownRules> {
    let own_base = base.map_or(defaults::COOLDOWN_TIME, |located| located.value);
    let own_max = max.map_or(defaults::COOLDOWN_TIME_MAX.max(own_base), |located| located.value);
    if let Some(max) = max.filter(|_| own_max < own_base) {
        let what = "is less than `cooldown_time`";
        findings.problem(
            &max.at,
            what,
            "Raise it: a deployment that goes on failing is left alone for longer each time",
        );
        return None;
    }
    let allowed_fails = count(allowed_fails, defaults::ALLOWED_FAILS)?;
    Some(CooldownRules { enabled, allowed_fails, base: own_base, max: own_max })
}

/// A number as written, whose bounds were checked when it was read.
fn count<T: TryFrom<u64>>(written: Option<&Located<u64>>, default: T) -> Option<T> {
    written.map_or(Some(default), |located| T::try_from(located.value).ok())
}

/// Reads names of `model_list`.
struct Names<'a> {
    listed: &'a BTreeSet<&'a str>,
    findings: &'a mut Findings,
}

impl Names<'_> {
    fn map(&mut self, written: Option<Vec<RawFallback>>) -> BTreeMap<ModelName, Vec<ModelName>> {
        let mut map: BTreeMap<ModelName, Vec<ModelName>> = BTreeMap::new();
        for RawFallback { of, to } in written.unwrap_or_default() {
            let Some(name) = self.name(&of) else { continue };
            if let Some(itself) = to.iter().find(|to| to.value == of.value) {
                let what = "is the name that it stands in for";
                self.findings.problem(
                    &itself.at,
                    what,
                    "Remove it: all entries of a name are tried before its fallbacks",
                );
                continue;
            }
            if map.contains_key(&name) {
                self.findings.problem(&of.at, "is written twice", "Write all that stand in for it in one list");
                continue;
            }
            let to = self.list(&to);
            map.insert(name, to);
        }
        map
    }

    fn list(&mut self, written: &[Text]) -> Vec<ModelName> {
        let mut names: Vec<ModelName> = Vec::with_capacity(written.len());
        for text in written {
            if let Some(name) = self.name(text).filter(|name| !names.contains(name)) {
                names.push(name);
            }
        }
        names
    }

    fn name(&mut self, text: &Text) -> Option<ModelName> {
        let name = text.value.expose();
        if self.listed.contains(name) {
            return Some(ModelName::new(name));
        }
        let what = format!("{} is not a `model_name` of `model_list`", text.at.quote(name));
        let remedy = match nearest(name, self.listed.iter().copied()) {
            Some(near) if !text.at.is_withheld() => format!("Did you mean `{near}`?"),
            _ if name == "*" => "Write `default_fallbacks` for all names".to_owned(),
            _ => "Write a name that has an entry there".to_owned(),
        };
        self.findings.problem(&text.at, what, remedy);
        None
    }
}

//! Limits as keys, teams, users, customers, tags, budgets and the configuration set them, and what they ask of one
//! request: which accounts it counts on and how much each may hold.
//!
//! It names accounts and knows no balance. A name says whose account it is and of which window, with every id escaped,
//! so that two different accounts never share a name.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::command::{AMOUNT_MAX, AccountId, Charge, Scope, Throttle};
use super::period::{Period, Window};
use crate::types::money::NanoUsd;

/// The id of the party with [`Scope::Global`].
pub const GLOBAL_ID: &str = "all";
/// An account stays for two more windows, for reports, and at least this long, so that whatever a replica still has to
/// book after an outage finds it.
const FORGET_AFTER_MS: u64 = 45 * 86_400_000;
/// Each is an account of every request.
const BUDGET_LIMITS_MAX: usize = 16;
const MODELS_MAX: usize = 256;
const MODEL_BYTES_MAX: usize = 256;

/// Every limit there is. What is not set does not limit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitSet {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_budget: Option<NanoUsd>,
    /// Reaching it warns and refuses nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soft_budget: Option<NanoUsd>,
    /// In which time `max_budget` and `soft_budget` may be spent; without one for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_duration: Option<Period>,
    /// Further windows, all of which hold at once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub budget_limits: Vec<BudgetWindow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rpm_limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tpm_limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_parallel_requests: Option<u64>,
    /// By model name; `*` stands for any text.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub model_max_budget: BTreeMap<String, BudgetWindow>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub model_rpm_limit: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub model_tpm_limit: BTreeMap<String, u64>,
}

/// An amount that may be spent in a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetWindow {
    pub max_budget: NanoUsd,
    /// `None` is for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_duration: Option<Period>,
}

impl LimitSet {
    /// What is wrong with the limits, as a field and a problem with its remedy; empty when nothing is. Zero is a limit
    /// like others: it refuses everything.
    #[must_use]
    pub fn check(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let mut problem = |field: &str, text: String| problems.push((field.to_owned(), text));
        let too_much =
            || format!("is more than {} dollars, the most that is counted exactly", AMOUNT_MAX.to_usd_number());
        let amounts = [("max_budget", self.max_budget), ("soft_budget", self.soft_budget)];
        for (field, _) in amounts.into_iter().filter(|(_, amount)| amount.is_some_and(|amount| amount > AMOUNT_MAX)) {
            problem(field, too_much());
        }
        if self.budget_duration.is_some() && self.max_budget.is_none() && self.soft_budget.is_none() {
            problem("budget_duration", "limits nothing alone: set max_budget too, or remove it".to_owned());
        }
        if self.budget_limits.len() > BUDGET_LIMITS_MAX {
            problem("budget_limits", format!("has more than {BUDGET_LIMITS_MAX} windows"));
        }
        for (index, window) in self.budget_limits.iter().enumerate() {
            if window.max_budget > AMOUNT_MAX {
                problem(&format!("budget_limits[{index}].max_budget"), too_much());
            }
        }
        for (model, window) in &self.model_max_budget {
            if window.max_budget > AMOUNT_MAX {
                problem(&format!("model_max_budget.{model}.max_budget"), too_much());
            }
        }
        let rates = [("rpm_limit", self.rpm_limit), ("tpm_limit", self.tpm_limit)];
        let rates = rates.into_iter().chain([("max_parallel_requests", self.max_parallel_requests)]);
        let model_rates = [("model_rpm_limit", &self.model_rpm_limit), ("model_tpm_limit", &self.model_tpm_limit)];
        let rates = rates.filter_map(|(field, limit)| limit.map(|limit| (field.to_owned(), limit)));
        let by_model = model_rates
            .into_iter()
            .flat_map(|(field, limits)| limits.iter().map(move |(model, limit)| (format!("{field}.{model}"), *limit)));
        for (field, _) in rates.chain(by_model).filter(|(_, limit)| *limit > AMOUNT_MAX.0) {
            problem(&field, format!("is more than {}, the most that is counted exactly", AMOUNT_MAX.0));
        }
        let names: [(&str, Vec<&String>); 3] = [
            ("model_max_budget", self.model_max_budget.keys().collect()),
            ("model_rpm_limit", self.model_rpm_limit.keys().collect()),
            ("model_tpm_limit", self.model_tpm_limit.keys().collect()),
        ];
        for (field, names) in names {
            if names.len() > MODELS_MAX {
                problem(field, format!("names more than {MODELS_MAX} models"));
            }
            if names.iter().any(|name| name.is_empty() || name.len() > MODEL_BYTES_MAX) {
                problem(field, format!("has a model name that is empty or longer than {MODEL_BYTES_MAX} bytes"));
            }
        }
        problems
    }
}

/// One whose limits a request has to keep: its key, the key's team and user, the customer, each tag, everybody.
#[derive(Debug, Clone, Copy)]
pub struct Party<'a> {
    pub scope: Scope,
    /// The record's id; [`GLOBAL_ID`] for everybody.
    pub id: &'a str,
    pub limits: &'a LimitSet,
    /// Limits of the record's `budget_id`: they hold, field by field, where `limits` sets none.
    pub budget: Option<&'a LimitSet>,
}

/// What a request has to be granted before it may be sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Demands {
    /// Every party's `total` is among them, limited or not. No account is named twice.
    pub charges: Vec<Charge>,
    pub throttles: Vec<Throttle>,
    /// Soft budgets: of which charge, and how much.
    pub soft: Vec<(usize, NanoUsd)>,
    /// Which charge's balance is shown as the spend of the key, or of the first party where there is no key: that of
    /// the window of `max_budget`, or the total.
    pub primary: usize,
}

impl Demands {
    /// Whether anything could refuse the request.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        !self.throttles.is_empty() || self.charges.iter().any(|charge| charge.limit.is_some())
    }

    /// Whether every limit among `others` is one of these too.
    #[must_use]
    pub fn cover(&self, others: &Self) -> bool {
        let mut limited = others.charges.iter().filter(|charge| charge.limit.is_some());
        limited.all(|charge| self.charges.contains(charge))
            && others.throttles.iter().all(|throttle| self.throttles.contains(throttle))
    }

    /// Adds a charge, or tightens the one of the same account; returns its index.
    fn charge(&mut self, charge: Charge) -> usize {
        let Some(index) = self.charges.iter().position(|known| known.account == charge.account) else {
            self.charges.push(charge);
            return self.charges.len() - 1;
        };
        if let Some(known) = self.charges.get_mut(index) {
            known.limit = smaller(known.limit, charge.limit);
        }
        index
    }

    fn throttle(&mut self, throttle: Throttle) {
        if throttle.rpm.is_none() && throttle.tpm.is_none() && throttle.parallel.is_none() {
            return;
        }
        match self.throttles.iter_mut().find(|known| known.account == throttle.account) {
            Some(known) => {
                known.rpm = smaller(known.rpm, throttle.rpm);
                known.tpm = smaller(known.tpm, throttle.tpm);
                known.parallel = smaller(known.parallel, throttle.parallel);
            }
            None => self.throttles.push(throttle),
        }
    }
}

/// What all parties together ask of a call of `model_name` (`None`: of an operation without a model). `windows` gives
/// the current window of a period.
///
/// A limit by model holds for the entry of exactly this name; where there is none, for every pattern that matches, and
/// each pattern has an account of its own.
pub fn compose(parties: &[Party<'_>], model_name: Option<&str>, windows: &mut dyn FnMut(&Period) -> Window) -> Demands {
    let mut demands = Demands::default();
    let shown = parties.iter().position(|party| party.scope == Scope::Key).unwrap_or(0);
    for (index, party) in parties.iter().enumerate() {
        let mut main = None;
        for budget in party.budgets(model_name, windows) {
            let at = demands.charge(budget.charge);
            if matches!(budget.of, BudgetOf::Total) || budget.of == BudgetOf::MaxBudget {
                main = Some(at);
            }
        }
        let Some(main) = main else { continue };
        if index == shown {
            demands.primary = main;
        }
        demands.soft.extend(party.effective(|limits| limits.soft_budget).map(|amount| (main, amount)));
        for throttle in party.throttles(model_name) {
            demands.throttle(throttle);
        }
    }
    demands
}

/// Which limit an account belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BudgetOf {
    /// Everything ever spent; holds `max_budget` where that has no duration.
    Total,
    /// The window of `max_budget`.
    MaxBudget,
    /// One of `budget_limits`.
    BudgetLimits,
    /// One of `model_max_budget`, by its name.
    Model(String),
}

/// An account with its meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetAccount {
    pub charge: Charge,
    pub of: BudgetOf,
    pub duration: Option<Period>,
    /// When the next window begins, Unix milliseconds.
    pub resets_at_ms: Option<u64>,
}

/// All accounts of a party, to be shown: its total first, then the window of `max_budget` where it has a duration, then
/// `budget_limits` in their order, then every entry of `model_max_budget`. An account stands there once for each limit
/// it holds.
pub fn budget_accounts(party: &Party<'_>, windows: &mut dyn FnMut(&Period) -> Window) -> Vec<BudgetAccount> {
    party.accounts(|_| true, windows)
}

impl<'a> Party<'a> {
    fn effective<T>(&self, field: impl Fn(&'a LimitSet) -> Option<T>) -> Option<T> {
        field(self.limits).or_else(|| self.budget.and_then(field))
    }

    fn by_model<T>(&self, field: impl Fn(&'a LimitSet) -> &'a BTreeMap<String, T>) -> &'a BTreeMap<String, T> {
        let own = field(self.limits);
        self.budget.map(field).filter(|_| own.is_empty()).unwrap_or(own)
    }

    /// Accounts that a call counts on.
    fn budgets(&self, model_name: Option<&str>, windows: &mut dyn FnMut(&Period) -> Window) -> Vec<BudgetAccount> {
        let models = self.by_model(|limits| &limits.model_max_budget);
        self.accounts(|pattern| applies(models, pattern, model_name), windows)
    }

    fn accounts(&self, holds: impl Fn(&str) -> bool, windows: &mut dyn FnMut(&Period) -> Window) -> Vec<BudgetAccount> {
        let mut name = String::with_capacity(96);
        name.push_str(self.scope.as_str());
        name.push('/');
        escape(&mut name, self.id);
        let mut account = |prefix: &mut String, scope, of, limit, duration: Option<Period>| {
            let window = duration.map(|duration| (duration, windows(&duration)));
            BudgetAccount {
                charge: charge(prefix, scope, limit, window),
                of,
                duration,
                resets_at_ms: window.map(|(_, window)| window.end_ms),
            }
        };
        let max_budget = self.effective(|limits| limits.max_budget);
        let soft_budget = self.effective(|limits| limits.soft_budget);
        // A duration limits nothing by itself.
        let duration = self.effective(|limits| limits.budget_duration).filter(|_| max_budget.or(soft_budget).is_some());
        let forever = max_budget.filter(|_| duration.is_none());
        let mut accounts = vec![account(&mut name, self.scope, BudgetOf::Total, forever, None)];
        if duration.is_some() {
            accounts.push(account(&mut name, self.scope, BudgetOf::MaxBudget, max_budget, duration));
        }
        let own = &self.limits.budget_limits;
        let further = self.budget.map(|budget| &budget.budget_limits).filter(|_| own.is_empty()).unwrap_or(own);
        for window in further {
            let limit = Some(window.max_budget);
            accounts.push(account(&mut name, self.scope, BudgetOf::BudgetLimits, limit, window.budget_duration));
        }
        for (pattern, window) in self.by_model(|limits| &limits.model_max_budget) {
            if holds(pattern) {
                let mut prefix = model_prefix(&name, pattern);
                let (of, limit) = (BudgetOf::Model(pattern.clone()), Some(window.max_budget));
                accounts.push(account(&mut prefix, self.model_scope(), of, limit, window.budget_duration));
            }
        }
        accounts
    }

    /// Accounts whose rates a call counts on; mostly there are none.
    fn throttles(&self, model_name: Option<&str>) -> Vec<Throttle> {
        let rpm = self.effective(|limits| limits.rpm_limit);
        let tpm = self.effective(|limits| limits.tpm_limit);
        let parallel = self.effective(|limits| limits.max_parallel_requests);
        let rpm_by_model = self.by_model(|limits| &limits.model_rpm_limit);
        let tpm_by_model = self.by_model(|limits| &limits.model_tpm_limit);
        if rpm.or(tpm).or(parallel).is_none() && rpm_by_model.is_empty() && tpm_by_model.is_empty() {
            return Vec::new();
        }
        let mut name = format!("rate/{}/", self.scope.as_str());
        escape(&mut name, self.id);
        let account = AccountId::new(name.as_str());
        let mut throttles = vec![Throttle { account, scope: self.scope, rpm, tpm, parallel }];
        let mut by_model = |limits: &BTreeMap<String, u64>, requests: bool| {
            for (pattern, limit) in limits.iter().filter(|(pattern, _)| applies(limits, pattern, model_name)) {
                let (rpm, tpm) = if requests { (Some(*limit), None) } else { (None, Some(*limit)) };
                let account = AccountId::new(model_prefix(&name, pattern));
                throttles.push(Throttle { account, scope: self.model_scope(), rpm, tpm, parallel: None });
            }
        };
        by_model(rpm_by_model, true);
        by_model(tpm_by_model, false);
        throttles
    }

    const fn model_scope(&self) -> Scope {
        match self.scope {
            Scope::Key => Scope::KeyModel,
            other => other,
        }
    }
}

/// The name is written behind `prefix`, which stays as it was.
fn charge(prefix: &mut String, scope: Scope, limit: Option<NanoUsd>, window: Option<(Period, Window)>) -> Charge {
    let length = prefix.len();
    match window {
        // Writing to a string cannot fail.
        Some((period, window)) => _ = write!(prefix, "/{period}/{}", window.start_ms / 1000),
        None => prefix.push_str("/total"),
    }
    let account = AccountId::new(prefix.as_str());
    prefix.truncate(length);
    let forget_at_ms = window.map(|(_, window)| {
        window.end_ms.saturating_add(window.length_ms().saturating_mul(2)).saturating_add(FORGET_AFTER_MS)
    });
    Charge { account, scope, limit, forget_at_ms }
}

fn model_prefix(prefix: &str, pattern: &str) -> String {
    let mut name = format!("{prefix}/model/");
    escape(&mut name, pattern);
    name
}

fn smaller<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// Whether the entry `pattern` of `entries` is one for this model.
fn applies<T>(entries: &BTreeMap<String, T>, pattern: &str, model_name: Option<&str>) -> bool {
    model_name.is_some_and(|name| {
        pattern == name || (pattern.contains('*') && !entries.contains_key(name) && matches(pattern, name))
    })
}

/// Whether `text` is what `pattern` describes, in which `*` stands for any text and everything else for itself.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}

/// Appends an id so that it cannot be taken for anything else in a name, nor for the hash tag of a Redis key.
fn escape(name: &mut String, id: &str) {
    // Looks at every byte without a branch, which takes many at once.
    let special = |byte: u8| matches!(byte, b'/' | b'%' | b'{' | b'}') || !matches!(byte, b'!'..=b'~');
    if !id.bytes().fold(false, |any, byte| any | special(byte)) {
        name.push_str(id);
        return;
    }
    for character in id.chars() {
        if matches!(character, '/' | '%' | '{' | '}') || character.is_whitespace() || character.is_control() {
            let mut bytes = [0; 4];
            for byte in character.encode_utf8(&mut bytes).bytes() {
                // Writing to a string cannot fail.
                _ = write!(name, "%{byte:02X}");
            }
        } else {
            name.push(character);
        }
    }
}

#[cfg(test)]
mod tests;

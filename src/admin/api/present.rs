//! How a record is shown: all of its fields, set or not, under LiteLLM's names where it has them, and what of its budgets
//! is spent.

use std::collections::BTreeMap;

use super::fields::{Field, table};
use super::json::{Object, Time, Usd};
use super::patch::DESCRIPTION;
use crate::budget::command::{Balance, Scope};
use crate::budget::limit::{BudgetAccount, BudgetOf, BudgetWindow, LimitSet, Party, budget_accounts};
use crate::budget::period::{Period, Window};
use crate::keys::record::Record;
use crate::store::Kind;

/// An account and what it holds.
#[derive(Debug, Clone)]
pub(super) struct Used {
    pub account: BudgetAccount,
    pub balance: Balance,
}

/// The accounts of a record, of windows that hold at `now_ms`.
pub(super) fn accounts(
    scope: Scope,
    record: &Record,
    budget: Option<&LimitSet>,
    window: &mut dyn FnMut(&Period) -> Window,
) -> Vec<BudgetAccount> {
    let party = Party { scope, id: &record.id, limits: &record.limits, budget };
    budget_accounts(&party, window)
}

/// The account shown as the spend of a record: the window of `max_budget`, else everything ever spent.
pub(super) fn primary(used: &[Used]) -> Option<&Used> {
    let of = |wanted: BudgetOf| used.iter().find(|used| used.account.of == wanted);
    of(BudgetOf::MaxBudget).or_else(|| of(BudgetOf::Total))
}

/// Every field of the record that its kind has.
pub(super) fn fields(kind: Kind, record: &Record, into: &mut Object) {
    for (name, field) in table(kind) {
        put(name, *field, record, into);
    }
}

fn put(name: &str, field: Field, record: &Record, into: &mut Object) {
    let limits = &record.limits;
    match field {
        Field::Id => into.put(name, &record.id),
        Field::Alias => into.put(name, &record.alias),
        Field::Models => into.put(name, &record.models),
        Field::Aliases => into.put(name, &record.aliases),
        Field::MaxBudget => into.put(name, &limits.max_budget.map(Usd)),
        Field::SoftBudget => into.put(name, &limits.soft_budget.map(Usd)),
        Field::BudgetDuration => into.put(name, &limits.budget_duration),
        Field::BudgetLimits => into.put(name, &limits.budget_limits.iter().map(window).collect::<Vec<_>>()),
        Field::RpmLimit => into.put(name, &limits.rpm_limit),
        Field::TpmLimit => into.put(name, &limits.tpm_limit),
        Field::MaxParallelRequests => into.put(name, &limits.max_parallel_requests),
        Field::ModelMaxBudget => {
            let by_model: BTreeMap<_, _> =
                limits.model_max_budget.iter().map(|(model, limit)| (model, window(limit))).collect();
            into.put(name, &by_model)
        }
        Field::ModelRpmLimit => into.put(name, &limits.model_rpm_limit),
        Field::ModelTpmLimit => into.put(name, &limits.model_tpm_limit),
        Field::BudgetId => into.put(name, &record.budget_id),
        Field::TeamId => into.put(name, &record.team_id),
        Field::UserId => into.put(name, &record.user_id),
        Field::Tags => into.put(name, &record.tags),
        Field::Metadata => into.put(name, &record.metadata),
        Field::Description => into.put(name, &record.metadata.get(DESCRIPTION)),
        Field::AllowedOperations => into.put(name, &record.allowed_operations),
        Field::AllowedRegions => into.put(name, &record.allowed_regions),
        Field::AllowedRoutes => into.put(name, &record.allowed_routes),
        Field::UserEmail => into.put(name, &record.user_email),
        Field::Blocked => into.put(name, &record.blocked),
        Field::KeyType => into.put(name, "llm_api"),
        // The duration is shown as the time at which it ends.
        Field::Duration => into.put("expires", &record.expires_at_ms.map(Time)),
        Field::Endpoint | Field::Unsupported(_) => into,
    };
}

fn window(limit: &BudgetWindow) -> Object {
    let mut object = Object::default();
    object.put("max_budget", &Usd(limit.max_budget)).put("budget_duration", &limit.budget_duration);
    object
}

/// When it was made and changed.
pub(super) fn times(record: &Record, into: &mut Object) {
    into.put("created_at", &Time(record.created_at_ms)).put("updated_at", &Time(record.updated_at_ms));
}

/// What is spent of every budget.
pub(super) fn usage(used: &[Used], into: &mut Object) {
    if let Some(primary) = primary(used) {
        into.put("spend", &Usd(primary.balance.spent))
            .put("reserved", &Usd(primary.balance.reserved))
            .put("budget_reset_at", &primary.account.resets_at_ms.map(Time));
    }
    if let Some(total) = used.iter().find(|used| used.account.of == BudgetOf::Total) {
        into.put("total_spend", &Usd(total.balance.spent));
    }
    let further: Vec<Object> =
        used.iter().filter(|used| used.account.of == BudgetOf::BudgetLimits).map(of_window).collect();
    into.put("budget_limits_usage", &further);
    let by_model: BTreeMap<&str, Object> = used
        .iter()
        .filter_map(|used| match &used.account.of {
            BudgetOf::Model(model) => Some((model.as_str(), of_window(used))),
            _ => None,
        })
        .collect();
    into.put("model_max_budget_usage", &by_model);
}

fn of_window(used: &Used) -> Object {
    let Balance { spent, reserved, .. } = used.balance;
    let limit = used.account.charge.limit;
    let remaining = limit.map(|limit| limit.saturating_sub(spent).saturating_sub(reserved));
    let mut object = Object::default();
    object
        .put("budget_duration", &used.account.duration)
        .put("max_budget", &limit.map(Usd))
        .put("spend", &Usd(spent))
        .put("reserved", &Usd(reserved))
        .put("remaining", &remaining.map(Usd))
        .put("budget_reset_at", &used.account.resets_at_ms.map(Time));
    object
}

/// The fields of a key and what identifies it. The secret is not among them.
pub(super) fn key(record: &Record, budget: Option<&Record>, now_ms: u64) -> Object {
    let mut object = Object::default();
    object
        .put("key_id", &record.id)
        .put("key_name", &record.key_name)
        .put("token", &record.token)
        .put("token_id", &record.token)
        .put("aws_access_key_id", &record.access_key_id)
        .put("status", status(record, now_ms));
    fields(Kind::Key, record, &mut object);
    object
        .put("rotation_count", &record.rotation_count)
        .put("last_rotation_at", &record.last_rotation_at_ms.map(Time))
        .put("litellm_budget_table", &budget.map(|budget| group(Kind::Budget, budget)));
    times(record, &mut object);
    object
}

/// The fields of anything but a key.
pub(super) fn group(kind: Kind, record: &Record) -> Object {
    let mut object = Object::default();
    fields(kind, record, &mut object);
    times(record, &mut object);
    object
}

/// Whether a key is valid, in a word.
pub(super) fn status(record: &Record, now_ms: u64) -> &'static str {
    if record.blocked {
        "blocked"
    } else if record.expires_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
        "expired"
    } else {
        "active"
    }
}

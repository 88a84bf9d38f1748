//! Applies the fields of a request to a record: every field is known or refused by its name, `null` clears it, and what
//! results is checked as a whole.

use serde_json::Value;
use serde_json::value::RawValue;

use super::fields::{Field, table};
use super::json::Members;
use super::problem::Problem;
use super::read;
use crate::aws::route;
use crate::config::problem::nearest;
use crate::keys::policy;
use crate::keys::record::Record;
use crate::store::Kind;
use jiff::tz::TimeZone;

/// Where a description is kept.
pub(super) const DESCRIPTION: &str = "description";

/// What a patch needs to know besides the request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment<'a> {
    pub now_ms: u64,
    pub zone: &'a TimeZone,
}

/// Refuses members that no field of this kind and none of `more` has.
pub(super) fn check_names(kind: Kind, members: &Members, more: &[&str]) -> Result<(), Problem> {
    for (name, raw) in &members.0 {
        if more.contains(&name.as_str()) {
            continue;
        }
        match table(kind).iter().find(|(known, _)| known == name) {
            Some((_, Field::Unsupported(remedy))) if !read::is_nothing(raw) => {
                return Err(Problem::Invalid(format!("`{name}` is not supported. {remedy}.")));
            }
            Some(_) => {}
            None => return Err(unknown(kind, name, more)),
        }
    }
    Ok(())
}

fn unknown(kind: Kind, name: &str, more: &[&str]) -> Problem {
    let shown: String = name.chars().take(64).collect();
    let fields =
        table(kind).iter().filter(|(_, field)| !matches!(field, Field::Unsupported(_))).map(|(known, _)| *known);
    let known: Vec<&str> = more.iter().copied().chain(fields).collect();
    let advice = match nearest(&shown, known.iter().copied()) {
        Some(near) => format!("Did you mean `{near}`?"),
        None => format!("There are {}.", known.join(", ")),
    };
    Problem::Invalid(format!("Unknown field `{shown}`. {advice}"))
}

/// Applies all members that are fields of the record; the endpoint has taken out what is its own.
pub(super) fn apply(kind: Kind, record: &mut Record, members: &Members, moment: Moment<'_>) -> Result<(), Problem> {
    for (name, raw) in &members.0 {
        let field = table(kind).iter().find(|(known, _)| known == name).map(|(_, field)| *field);
        let Some(field) = field else {
            return Err(unknown(kind, name, &[]));
        };
        let done = if read::is_null(raw) { clear(record, field) } else { set(record, field, raw, moment) };
        done.map_err(|problem| Problem::Invalid(format!("`{name}` {problem}.")))?;
    }
    check(record)
}

fn check(record: &Record) -> Result<(), Problem> {
    match record.limits.check().into_iter().next() {
        Some((field, problem)) => Err(Problem::Invalid(format!("`{field}` {problem}."))),
        None => Ok(()),
    }
}

fn set(record: &mut Record, field: Field, raw: &RawValue, moment: Moment<'_>) -> read::Read<()> {
    let limits = &mut record.limits;
    match field {
        Field::Alias => record.alias = Some(read::text(raw)?),
        Field::Duration => {
            record.expires_at_ms = read::duration(raw)?.map(|period| period.after(moment.now_ms, moment.zone));
        }
        Field::Models => record.models = read::texts(raw)?,
        Field::Aliases => record.aliases = read::names(raw)?,
        Field::MaxBudget => limits.max_budget = Some(read::usd(raw)?),
        Field::SoftBudget => limits.soft_budget = Some(read::usd(raw)?),
        Field::BudgetDuration => limits.budget_duration = Some(read::period(raw)?),
        Field::BudgetLimits => limits.budget_limits = read::windows(raw)?,
        Field::RpmLimit => limits.rpm_limit = Some(read::count(raw)?),
        Field::TpmLimit => limits.tpm_limit = Some(read::count(raw)?),
        Field::MaxParallelRequests => limits.max_parallel_requests = Some(read::count(raw)?),
        Field::ModelMaxBudget => limits.model_max_budget = read::model_windows(raw)?,
        Field::ModelRpmLimit => limits.model_rpm_limit = read::model_counts(raw)?,
        Field::ModelTpmLimit => limits.model_tpm_limit = read::model_counts(raw)?,
        Field::BudgetId => record.budget_id = Some(read::id(raw)?),
        Field::TeamId => record.team_id = Some(read::id(raw)?),
        Field::UserId => record.user_id = Some(read::id(raw)?),
        Field::Tags => record.tags = tags(raw)?,
        Field::Metadata => record.metadata = read::metadata(raw)?,
        Field::Description => {
            record.metadata.insert(DESCRIPTION.to_owned(), Value::from(read::text(raw)?));
        }
        Field::AllowedOperations => record.allowed_operations = operations(raw)?,
        Field::AllowedRegions => record.allowed_regions = read::texts(raw)?,
        Field::AllowedRoutes => record.allowed_routes = routes(raw)?,
        Field::UserEmail => record.user_email = Some(read::text(raw)?),
        Field::Blocked => record.blocked = read::flag(raw)?,
        Field::KeyType => key_type(raw)?,
        Field::Id | Field::Endpoint | Field::Unsupported(_) => {}
    }
    Ok(())
}

/// Back to what a record is without the field.
#[expect(clippy::unnecessary_wraps, reason = "the counterpart of `set`")]
fn clear(record: &mut Record, field: Field) -> read::Read<()> {
    let limits = &mut record.limits;
    match field {
        Field::Alias => record.alias = None,
        Field::Duration => record.expires_at_ms = None,
        Field::Models => record.models.clear(),
        Field::Aliases => record.aliases.clear(),
        Field::MaxBudget => limits.max_budget = None,
        Field::SoftBudget => limits.soft_budget = None,
        Field::BudgetDuration => limits.budget_duration = None,
        Field::BudgetLimits => limits.budget_limits.clear(),
        Field::RpmLimit => limits.rpm_limit = None,
        Field::TpmLimit => limits.tpm_limit = None,
        Field::MaxParallelRequests => limits.max_parallel_requests = None,
        Field::ModelMaxBudget => limits.model_max_budget.clear(),
        Field::ModelRpmLimit => limits.model_rpm_limit.clear(),
        Field::ModelTpmLimit => limits.model_tpm_limit.clear(),
        Field::BudgetId => record.budget_id = None,
        Field::TeamId => record.team_id = None,
        Field::UserId => record.user_id = None,
        Field::Tags => record.tags.clear(),
        Field::Metadata => record.metadata.clear(),
        Field::Description => drop(record.metadata.remove(DESCRIPTION)),
        Field::AllowedOperations => record.allowed_operations.clear(),
        Field::AllowedRegions => record.allowed_regions.clear(),
        Field::AllowedRoutes => record.allowed_routes.clear(),
        Field::UserEmail => record.user_email = None,
        Field::Blocked => record.blocked = false,
        Field::Id | Field::Endpoint | Field::KeyType | Field::Unsupported(_) => {}
    }
    Ok(())
}

fn tags(raw: &RawValue) -> read::Read<Vec<String>> {
    let tags = read::texts(raw)?;
    match tags.iter().find(|tag| tag.contains(',') || tag.chars().count() > 128) {
        Some(_) => Err("has an entry with a comma, or one that is longer than 128 characters".to_owned()),
        None if tags.len() > 16 => Err("has more than 16 entries".to_owned()),
        None => Ok(tags),
    }
}

/// A pattern that describes no operation would refuse everything, and is a mistake.
fn operations(raw: &RawValue) -> read::Read<Vec<String>> {
    let entries = read::texts(raw)?;
    for entry in &entries {
        let all = route::operations();
        if !all.iter().any(|operation| policy::is_operation(entry, operation)) {
            let word = entry.split_once(':').map_or(entry.as_str(), |(_, name)| name);
            let near = nearest(word, all.iter().map(|operation| operation.name));
            let advice = near.map_or_else(
                || "write names such as \"Converse\", \"Get*\" or \"bedrock-agent:CreateAgent\"".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            return Err(format!("has the entry `{entry}`, which is no operation of Bedrock: {advice}"));
        }
    }
    Ok(entries)
}

fn routes(raw: &RawValue) -> read::Read<Vec<String>> {
    let entries = read::texts(raw)?;
    match entries.iter().find(|entry| !entry.starts_with('/') && *entry != policy::ALL_ROUTES) {
        Some(entry) => Err(format!(
            "has the entry `{entry}`, which is no path: write paths such as \"/bedrock/model/*\", or \"{}\" for all that \
             go to Bedrock; virtual keys never manage",
            policy::ALL_ROUTES
        )),
        None => Ok(entries),
    }
}

fn key_type(raw: &RawValue) -> read::Read<()> {
    match read::text(raw)?.as_str() {
        "default" | "llm_api" => Ok(()),
        _ => {
            Err("can be `llm_api` only: use the master key to manage, and allowed_operations to limit a key".to_owned())
        }
    }
}

//! May this caller do this? Rules are those of its key, its team and its user; all that are set must allow.
//!
//! A virtual key may call operations of the data planes and read the control planes. Writes on the control planes need
//! `allowed_operations`. What money allows is decided elsewhere, and which deployment serves the call, too: here it is
//! only said which regions may ([`allows_region`]).

use super::authenticate::{Caller, Holder, Part};
use super::record::Record;
use crate::aws::operation::{AccessClass, Metering, Operation};
use crate::budget::limit::matches;

/// In a list of models: every model there is (LiteLLM's word).
pub const ALL_MODELS: &str = "all-proxy-models";
/// In the list of a key: whatever its team allows.
pub const TEAM_MODELS: &str = "all-team-models";
/// In a list of models: none.
pub const NO_MODELS: &str = "no-default-models";

/// In `allowed_routes`: everything that goes to Bedrock (LiteLLM's word).
pub const ALL_ROUTES: &str = "llm_api_routes";

/// How much of a list a refusal shows.
const SHOWN_MAX: usize = 10;

/// The path that may stand before a native one.
const PREFIX: &str = "/bedrock";

/// Why not, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// A word for metrics and records.
    pub reason: &'static str,
    /// What the client is told.
    pub message: String,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    pub operation: &'a Operation,
    /// The raw path as sent, without the query.
    pub path: &'a str,
    /// What the model is called after [`resolve_alias`]; `None` for an operation that names none.
    pub model_name: Option<&'a str>,
}

/// Decides on everything that is known before a deployment is chosen.
///
/// # Errors
/// The first rule that refuses.
pub fn allow(caller: &Caller, question: &Question<'_>) -> Result<(), Refusal> {
    allow_operation(caller, question.operation, question.path)?;
    allow_model(caller, question.operation, question.model_name)
}

/// Decides on the operation and its path: the part that needs no body.
///
/// # Errors
/// The first rule that refuses.
pub fn allow_operation(caller: &Caller, operation: &Operation, path: &str) -> Result<(), Refusal> {
    let Some(holder) = caller.holder() else {
        return Ok(());
    };
    for (part, record) in holder.records() {
        if !record.allowed_operations.is_empty() && !names_operation(record, operation) {
            return Err(Refusal {
                reason: "operation_not_allowed",
                message: format!(
                    "The {} may not call {}. Allowed operations: {}. Ask the operator to add it to \
                     `allowed_operations`.",
                    whose(part),
                    operation.name,
                    listed(&record.allowed_operations)
                ),
            });
        }
        if !record.allowed_routes.is_empty() && !record.allowed_routes.iter().any(|route| is_route(route, path)) {
            return Err(Refusal {
                reason: "route_not_allowed",
                message: format!(
                    "The {} may not use this path. Allowed paths: {}. Ask the operator to add it to `allowed_routes`.",
                    whose(part),
                    listed(&record.allowed_routes)
                ),
            });
        }
    }
    if operation.access == AccessClass::Write && !is_named(holder, operation) {
        return Err(Refusal {
            reason: "operation_not_allowed",
            message: format!(
                "{0} changes resources of the AWS account, which a virtual key may not do by default. Ask the operator \
                 to name it in the key's `allowed_operations`: \"{1}:{0}\".",
                operation.name,
                operation.service.endpoint_prefix()
            ),
        });
    }
    Ok(())
}

/// Decides on the model, by the name it has after [`resolve_alias`].
///
/// # Errors
/// The first list that does not have it.
pub fn allow_model(caller: &Caller, operation: &Operation, model_name: Option<&str>) -> Result<(), Refusal> {
    let Some(holder) = caller.holder() else {
        return Ok(());
    };
    for (part, record) in holder.records().filter(|(_, record)| !record.models.is_empty()) {
        let Some(name) = model_name else {
            // An agent or a flow calls models that the request does not name: a list of models cannot hold there.
            if hides_its_model(operation) && !is_unrestricted(record, part, holder) && !is_named(holder, operation) {
                return Err(Refusal {
                    reason: "model_not_allowed",
                    message: format!(
                        "The {} is limited to some models, and {} does not say which model it calls. Ask the operator \
                         to name the operation in the key's `allowed_operations`.",
                        whose(part),
                        operation.name
                    ),
                });
            }
            continue;
        };
        if !has_model(record, part, holder, name) {
            let shown: String = name.chars().take(128).collect();
            return Err(Refusal {
                reason: "model_not_allowed",
                message: format!(
                    "The {} may not use the model `{shown}`. Allowed models: {}.",
                    whose(part),
                    listed(&record.models)
                ),
            });
        }
    }
    Ok(())
}

/// Whether the caller's lists have this model: which names are worth showing to it.
#[must_use]
pub fn lists_model(caller: &Caller, name: &str) -> bool {
    caller.holder().is_none_or(|holder| {
        let mut records = holder.records().filter(|(_, record)| !record.models.is_empty());
        records.all(|(part, record)| has_model(record, part, holder, name))
    })
}

/// The listed name for what the client calls a model: an alias of the key, else of its team, else the same. An alias
/// is not looked up again, and it allows nothing: its model must be allowed like any other.
#[must_use]
pub fn resolve_alias<'a>(caller: &'a Caller, name: &'a str) -> &'a str {
    let mut records = caller.holder().into_iter().flat_map(Holder::records);
    records.find_map(|(_, record)| record.aliases.get(name)).map_or(name, String::as_str)
}

/// Whether a deployment in this region may serve the caller, and the customer the call is for.
#[must_use]
pub fn allows_region(caller: &Caller, customer: Option<&Record>, region: &str) -> bool {
    let own = caller.holder().into_iter().flat_map(Holder::records).map(|(_, record)| record);
    own.chain(customer).all(|record| {
        record.allowed_regions.is_empty() || record.allowed_regions.iter().any(|allowed| matches(allowed, region))
    })
}

/// What to say when [`allows_region`] leaves no deployment.
#[must_use]
pub fn no_region(caller: &Caller, customer: Option<&Record>) -> Refusal {
    let own = caller.holder().into_iter().flat_map(Holder::records).map(|(_, record)| record);
    let lists: Vec<String> = own
        .chain(customer)
        .filter(|record| !record.allowed_regions.is_empty())
        .map(|record| listed(&record.allowed_regions))
        .collect();
    Refusal {
        reason: "region_not_allowed",
        message: format!(
            "No deployment of this model is in a region that the key may use ({}). Ask the operator to change \
             `allowed_regions`, or to add a deployment there.",
            lists.join("; and ")
        ),
    }
}

/// Whether calls for this customer are let through.
///
/// # Errors
/// When the customer is blocked.
pub fn allow_customer(customer: &Record) -> Result<(), Refusal> {
    if !customer.blocked {
        return Ok(());
    }
    Err(Refusal {
        reason: "customer_blocked",
        message: "The end user of this request is blocked. Ask the operator why; /customer/unblock lets the end user \
                  in again."
            .to_owned(),
    })
}

fn whose(part: Part) -> &'static str {
    match part {
        Part::Key => "API key",
        Part::Team => "team of this API key",
        Part::User => "user of this API key",
    }
}

/// Whether some list names the operation, by itself or by a pattern.
fn is_named(holder: &Holder, operation: &Operation) -> bool {
    holder.records().any(|(_, record)| names_operation(record, operation))
}

fn names_operation(record: &Record, operation: &Operation) -> bool {
    record.allowed_operations.iter().any(|entry| is_operation(entry, operation))
}

/// Whether an entry of `allowed_operations` means this operation: `Converse`, `Converse*`, `bedrock-agent:Get*`.
#[must_use]
pub fn is_operation(entry: &str, operation: &Operation) -> bool {
    match entry.split_once(':') {
        Some((service, name)) => matches(service, operation.service.endpoint_prefix()) && matches(name, operation.name),
        None => matches(entry, operation.name),
    }
}

/// A path is written with or without the prefix, in the list as in the request.
fn is_route(entry: &str, path: &str) -> bool {
    let native = path.strip_prefix(PREFIX).filter(|rest| rest.starts_with('/')).unwrap_or(path);
    entry == ALL_ROUTES || matches(entry, path) || matches(entry, native) || matches(entry, &[PREFIX, native].concat())
}

fn has_model(record: &Record, part: Part, holder: &Holder, name: &str) -> bool {
    is_unrestricted(record, part, holder)
        || record.models.iter().any(|entry| !is_word(entry) && (entry == name || matches(entry, name)))
}

/// Whether a list that is not empty allows every model all the same. The team's own list is asked apart from this one.
fn is_unrestricted(record: &Record, part: Part, holder: &Holder) -> bool {
    record.models.iter().any(|entry| match entry.as_str() {
        ALL_MODELS | "*" => true,
        TEAM_MODELS => part == Part::Key && holder.team.is_some(),
        _ => false,
    })
}

fn is_word(entry: &str) -> bool {
    matches!(entry, ALL_MODELS | TEAM_MODELS | NO_MODELS)
}

/// Operations that run a model which the request does not name where the proxy reads it.
fn hides_its_model(operation: &Operation) -> bool {
    matches!(
        operation.metering,
        Metering::AgentTrace | Metering::FlowTrace | Metering::Harness | Metering::Unreported | Metering::Rerank
    )
}

fn listed(entries: &[String]) -> String {
    let mut text = entries.iter().take(SHOWN_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    if entries.len() > SHOWN_MAX {
        text.push_str(", …");
    }
    text
}

#[cfg(test)]
mod tests;

//! Which fields a key, team, user, customer, tag or budget has, and which of LiteLLM's it has not, with what to do
//! instead: one table for each, so that no field is ever accepted and forgotten.

use crate::store::Kind;

/// What a field sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    /// The id itself: read by the endpoint.
    Id,
    /// Other ways of naming a record and what only one endpoint knows: read by the endpoint.
    Endpoint,
    Alias,
    Duration,
    Models,
    Aliases,
    MaxBudget,
    SoftBudget,
    BudgetDuration,
    BudgetLimits,
    RpmLimit,
    TpmLimit,
    MaxParallelRequests,
    ModelMaxBudget,
    ModelRpmLimit,
    ModelTpmLimit,
    BudgetId,
    TeamId,
    UserId,
    Tags,
    Metadata,
    /// A text within the metadata.
    Description,
    AllowedOperations,
    AllowedRegions,
    AllowedRoutes,
    UserEmail,
    Blocked,
    /// `default` and `llm_api` are what every key is.
    KeyType,
    /// Refused, unless it says nothing; what to do instead.
    Unsupported(&'static str),
}

pub(super) type Table = &'static [(&'static str, Field)];

const REMOVE: &str = "Remove it";
const NATIVE: &str = "Remove it: requests are passed through as they are";
const NO_ORGANIZATIONS: &str = "Remove it: use teams";
const NO_TPD: &str = "Remove it: use tpm_limit, or max_budget with budget_duration";
const NO_ROUTING: &str = "Remove it: routing is configured for all in router_settings";
const NO_MCP: &str = "Remove it: the proxy serves Bedrock only";
const NO_GUARDRAILS: &str = "Remove it: use guardrails of Bedrock in the request";
const NO_MAIL: &str = "Remove it: the proxy sends no mail";
const OPERATIONS: &str = "Use allowed_operations and allowed_routes";
const RESETS: &str = "Remove it: budgets reset with the calendar, as budget_duration says";
const SPEND: &str = "Remove it: what is spent is counted; POST /key/{key}/reset_spend changes it";
const TEMPORARY: &str = "Remove it: raise max_budget and lower it again later";
const ROTATION: &str = "Remove it: call POST /key/{key}/regenerate when it is time";
const MEMBERS: &str = "Remove it: a user belongs to a team through keys that have both team_id and user_id";

/// Limits, which all have.
macro_rules! with_limits {
    ($($entry:expr),* $(,)?) => {
        &[
            $($entry,)*
            ("max_budget", Field::MaxBudget),
            ("soft_budget", Field::SoftBudget),
            ("budget_duration", Field::BudgetDuration),
            ("budget_limits", Field::BudgetLimits),
            ("rpm_limit", Field::RpmLimit),
            ("tpm_limit", Field::TpmLimit),
            ("max_parallel_requests", Field::MaxParallelRequests),
            ("model_max_budget", Field::ModelMaxBudget),
            ("model_rpm_limit", Field::ModelRpmLimit),
            ("model_tpm_limit", Field::ModelTpmLimit),
            ("tpd_limit", Field::Unsupported(NO_TPD)),
            ("budget_reset_at", Field::Unsupported(RESETS)),
            ("temp_budget_increase", Field::Unsupported(TEMPORARY)),
            ("temp_budget_expiry", Field::Unsupported(TEMPORARY)),
            ("budget_fallbacks", Field::Unsupported(NO_ROUTING)),
            ("organization_id", Field::Unsupported(NO_ORGANIZATIONS)),
            ("router_settings", Field::Unsupported(NO_ROUTING)),
            ("guardrails", Field::Unsupported(NO_GUARDRAILS)),
            ("policies", Field::Unsupported(NO_GUARDRAILS)),
            ("prompts", Field::Unsupported(NATIVE)),
            ("object_permission", Field::Unsupported(NO_MCP)),
            ("rpm_limit_type", Field::Unsupported("Remove it: a limit is a limit")),
            ("tpm_limit_type", Field::Unsupported("Remove it: a limit is a limit")),
            ("allowed_cache_controls", Field::Unsupported("Remove it: no answers are cached")),
            ("enforced_params", Field::Unsupported(NATIVE)),
            ("disable_global_guardrails", Field::Unsupported(NO_GUARDRAILS)),
            ("secret_manager_settings", Field::Unsupported(REMOVE)),
        ]
    };
}

const KEY: Table = with_limits![
    ("key", Field::Endpoint),
    ("key_id", Field::Endpoint),
    ("sigv4", Field::Endpoint),
    ("key_alias", Field::Alias),
    ("duration", Field::Duration),
    ("models", Field::Models),
    ("aliases", Field::Aliases),
    ("budget_id", Field::BudgetId),
    ("team_id", Field::TeamId),
    ("user_id", Field::UserId),
    ("tags", Field::Tags),
    ("metadata", Field::Metadata),
    ("allowed_operations", Field::AllowedOperations),
    ("allowed_regions", Field::AllowedRegions),
    ("allowed_routes", Field::AllowedRoutes),
    ("blocked", Field::Blocked),
    ("key_type", Field::KeyType),
    ("spend", Field::Unsupported(SPEND)),
    ("config", Field::Unsupported(NO_ROUTING)),
    ("permissions", Field::Unsupported(OPERATIONS)),
    ("agent_id", Field::Unsupported(NO_MCP)),
    ("project_id", Field::Unsupported(NO_ORGANIZATIONS)),
    ("access_group_ids", Field::Unsupported("Use models, with patterns such as \"claude*\"")),
    ("mcp_rpm_limit", Field::Unsupported(NO_MCP)),
    ("tag_rpm_limit", Field::Unsupported("Use POST /tag/new with rpm_limit")),
    ("default_estimated_output_tokens", Field::Unsupported("Remove it: a reservation is an upper bound, not a guess")),
    (
        "default_estimated_output_tokens_per_model",
        Field::Unsupported("Remove it: a reservation is an upper bound, not a guess")
    ),
    ("end_user_budget_id", Field::Unsupported("Use POST /customer/new with budget_id")),
    ("enable_prompt_caching", Field::Unsupported(NATIVE)),
    ("throttle_on_budget_exceeded", Field::Unsupported("Remove it: a budget refuses")),
    ("allowed_passthrough_routes", Field::Unsupported(OPERATIONS)),
    ("denied_passthrough_routes", Field::Unsupported(OPERATIONS)),
    ("allowed_vector_store_indexes", Field::Unsupported(OPERATIONS)),
    ("send_invite_email", Field::Unsupported(NO_MAIL)),
    ("auto_rotate", Field::Unsupported(ROTATION)),
    ("rotation_interval", Field::Unsupported(ROTATION)),
    ("logging", Field::Unsupported("Remove it: logging is configured for all")),
];

const TEAM: Table = with_limits![
    ("team_id", Field::Id),
    ("team_alias", Field::Alias),
    ("models", Field::Models),
    ("model_aliases", Field::Aliases),
    ("budget_id", Field::BudgetId),
    ("tags", Field::Tags),
    ("metadata", Field::Metadata),
    ("allowed_operations", Field::AllowedOperations),
    ("allowed_regions", Field::AllowedRegions),
    ("allowed_routes", Field::AllowedRoutes),
    ("blocked", Field::Blocked),
    ("admins", Field::Unsupported(MEMBERS)),
    ("members", Field::Unsupported(MEMBERS)),
    ("members_with_roles", Field::Unsupported(MEMBERS)),
    ("allowed_passthrough_routes", Field::Unsupported(OPERATIONS)),
    ("denied_passthrough_routes", Field::Unsupported(OPERATIONS)),
    ("team_member_budget", Field::Unsupported("Use POST /user/new with max_budget")),
    ("team_member_budget_duration", Field::Unsupported("Use POST /user/new with budget_duration")),
    ("team_member_rpm_limit", Field::Unsupported("Use POST /user/new with rpm_limit")),
    ("team_member_tpm_limit", Field::Unsupported("Use POST /user/new with tpm_limit")),
    ("team_member_key_duration", Field::Unsupported("Use duration of POST /key/generate")),
];

const USER: Table = with_limits![
    ("user_id", Field::Id),
    ("user_alias", Field::Alias),
    ("user_email", Field::UserEmail),
    ("models", Field::Models),
    ("aliases", Field::Aliases),
    ("budget_id", Field::BudgetId),
    ("tags", Field::Tags),
    ("metadata", Field::Metadata),
    ("allowed_operations", Field::AllowedOperations),
    ("allowed_regions", Field::AllowedRegions),
    ("allowed_routes", Field::AllowedRoutes),
    ("blocked", Field::Blocked),
    ("user_role", Field::Unsupported("Remove it: users have no access of their own; the master key manages")),
    ("teams", Field::Unsupported(MEMBERS)),
    ("organizations", Field::Unsupported(NO_ORGANIZATIONS)),
    ("auto_create_key", Field::Unsupported("Remove it: make keys with POST /key/generate and user_id")),
    ("send_invite_email", Field::Unsupported(NO_MAIL)),
    ("sso_user_id", Field::Unsupported(REMOVE)),
    ("spend", Field::Unsupported("Remove it: what is spent is counted")),
];

const CUSTOMER: Table = with_limits![
    ("user_id", Field::Id),
    ("alias", Field::Alias),
    ("budget_id", Field::BudgetId),
    ("metadata", Field::Metadata),
    ("allowed_regions", Field::AllowedRegions),
    ("blocked", Field::Blocked),
    ("allowed_model_region", Field::Unsupported("Use allowed_regions, such as [\"eu-*\"]")),
    ("default_model", Field::Unsupported(NATIVE)),
    ("models", Field::Unsupported("Limit the models of the key or its team")),
    ("spend", Field::Unsupported("Remove it: what is spent is counted")),
];

const TAG: Table = with_limits![
    ("name", Field::Id),
    ("description", Field::Description),
    ("budget_id", Field::BudgetId),
    ("models", Field::Unsupported("Remove it: there is no routing by tag")),
];

const BUDGET: Table = with_limits![("budget_id", Field::Id)];

/// The fields of a kind.
pub(super) const fn table(kind: Kind) -> Table {
    match kind {
        Kind::Key | Kind::Secret | Kind::AccessKey | Kind::Alias => KEY,
        Kind::Team => TEAM,
        Kind::User => USER,
        Kind::Customer => CUSTOMER,
        Kind::Tag => TAG,
        Kind::Budget => BUDGET,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_field_stands_twice_and_every_refusal_says_what_to_do() {
        for kind in [Kind::Key, Kind::Team, Kind::User, Kind::Customer, Kind::Tag, Kind::Budget] {
            let names: BTreeSet<_> = table(kind).iter().map(|(name, _)| name).collect();
            assert_eq!(names.len(), table(kind).len(), "{kind:?}");
            for (name, field) in table(kind) {
                if let Field::Unsupported(remedy) = field {
                    assert!(["Remove", "Use", "Limit"].iter().any(|verb| remedy.starts_with(verb)), "{name}: {remedy}");
                }
            }
        }
    }
}

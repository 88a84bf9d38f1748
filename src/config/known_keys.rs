//! Every key the configuration may hold, section by section, and what is to be said of keys that come with a file
//! written for LiteLLM: those of features that this version lacks are errors with a remedy, because ignoring a limit
//! or a fallback in silence would be worse; those without any meaning here are warnings.
//!
//! Types and meaning are in `raw.rs` and `resolve/`. docs/configuration.md and conf/config.yaml hold the same keys;
//! tests keep them together.

/// A key of a section.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) status: Status,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Active,
    /// Another name of the key of this name.
    AliasOf(&'static str),
    /// Belongs to a feature that is not there; the text says what to do.
    Unsupported(&'static str),
    /// Harmless without effect; the text says why.
    Ignored(&'static str),
}

const fn active(name: &'static str) -> Key {
    Key { name, status: Status::Active }
}

const fn alias(name: &'static str, of: &'static str) -> Key {
    Key { name, status: Status::AliasOf(of) }
}

const fn unsupported(name: &'static str, remedy: &'static str) -> Key {
    Key { name, status: Status::Unsupported(remedy) }
}

const fn ignored(name: &'static str, why: &'static str) -> Key {
    Key { name, status: Status::Ignored(why) }
}

const REMOVE: &str = "Remove it";
const NO_LIMITS: &str = "Remove it: write `rpm`, `tpm` or `max_parallel_requests`, or limit keys with `rpm_limit`";
const NO_BUDGETS: &str =
    "Remove it: deployments have no budgets. Give keys, teams or tags a `max_budget` or `model_max_budget`";
const NO_FALLBACKS: &str = "Write `fallbacks`, or further entries under the same `model_name`";
const NO_COOLDOWN: &str =
    "Write `router_settings.allowed_fails` and `cooldown_time`: they are the same for all deployments";
const NO_DATABASE: &str = "Remove it: there is no SQL database; `store_path` and `redis_url` say where state is kept";
const REDIS_ELSEWHERE: &str = "Write it under `general_settings`";
const NO_DEFAULTS: &str = "Remove it: write the limits into each request that makes a key, user, customer or team";
const AT_CREATION: &str = "Remove it: only the master key makes keys, and each request says what the key may do";
const NO_TLS: &str = "Remove it: for certificates of AWS endpoints set AWS_CA_BUNDLE; TLS for clients is `general_settings.ssl_certfile_path`";
const NATIVE: &str = "Remove it: requests go upstream byte for byte, so clients set this themselves";
const NO_ALERTS: &str = "Remove it: alert on the metrics of /metrics";
const NO_ACCESS: &str = "Remove it: list what a key, team or user may call in its `models`";
const NO_ROUTES: &str = "Remove it: give keys `allowed_routes` or `allowed_operations`";
const NO_AUTH: &str = "Remove it: callers prove themselves with the master key or a virtual key";
const ONE_QUEUE: &str = "Write `max_in_flight_requests`, `max_queued_requests` and `admission_queue_timeout`, which are for all workers together";
const ALWAYS_CLOSED: &str = "a key with limits is refused while the store cannot be reached, always";
const PASSTHROUGH: &str = "requests are never translated, so there is nothing to drop or modify";
const LOGGING: &str = "logs are JSON lines; their level is set with RUST_LOG";
const DESCRIPTIVE: &str = "it describes the model and changes nothing here";

pub(super) const TOP: &[Key] = &[
    active("model_list"),
    active("router_settings"),
    active("dheera_ai_settings"),
    alias("litellm_settings", "dheera_ai_settings"),
    active("general_settings"),
    active("environment_variables"),
    unsupported("assistant_settings", REMOVE),
    unsupported("callback_settings", "Remove it: there are no callbacks; metrics are at /metrics"),
    unsupported("credential_list", "Remove it: write the credentials into each entry of `model_list`"),
    unsupported("files_settings", REMOVE),
    unsupported("finetune_settings", REMOVE),
    unsupported("guardrails", "Remove it: Bedrock's own guardrails work as in any request to Bedrock"),
    unsupported("include", "Remove it and write one file"),
    unsupported("mcp_servers", REMOVE),
    unsupported("prompts", REMOVE),
    unsupported("search_tools", REMOVE),
    unsupported("vector_store_registry", REMOVE),
];

pub(super) const MODEL_ENTRY: &[Key] = &[
    active("model_name"),
    active("dheera_ai_params"),
    alias("litellm_params", "dheera_ai_params"),
    active("model_info"),
];

/// Prices (`PriceOverride::known_fields`) may stand here as well as in `model_info`.
pub(super) const MODEL_PARAMS: &[Key] = &[
    active("model"),
    active("model_id"),
    active("custom_llm_provider"),
    active("aws_region_name"),
    alias("region_name", "aws_region_name"),
    active("aws_access_key_id"),
    active("aws_secret_access_key"),
    active("aws_session_token"),
    active("aws_profile_name"),
    active("aws_role_name"),
    active("aws_session_name"),
    active("aws_external_id"),
    active("aws_web_identity_token"),
    active("aws_sts_endpoint"),
    active("api_key"),
    active("aws_bedrock_runtime_endpoint"),
    alias("api_base", "aws_bedrock_runtime_endpoint"),
    active("weight"),
    active("timeout"),
    active("stream_timeout"),
    active("total_timeout"),
    active("stream_total_timeout"),
    active("max_retries"),
    active("rpm"),
    active("tpm"),
    active("max_parallel_requests"),
    ignored("drop_params", PASSTHROUGH),
    ignored("additional_drop_params", PASSTHROUGH),
    ignored("modify_params", PASSTHROUGH),
    ignored("use_in_pass_through", "every entry serves the pass-through"),
    unsupported("itpm", NO_LIMITS),
    unsupported("otpm", NO_LIMITS),
    unsupported("default_api_key_rpm_limit", NO_LIMITS),
    unsupported("default_api_key_tpm_limit", NO_LIMITS),
    unsupported("max_budget", NO_BUDGETS),
    unsupported("budget_duration", NO_BUDGETS),
    unsupported("cooldown_time", NO_COOLDOWN),
    unsupported("timeout_by_service_tier", "Remove it: use `timeout`"),
    unsupported("stream_timeout_by_service_tier", "Remove it: use `stream_timeout`"),
    unsupported("aws_session_tags", "Remove it: session tags are not supported"),
    unsupported("aws_bedrock_project_id", REMOVE),
    unsupported("api_version", "Remove it: Bedrock has no such parameter"),
    unsupported("organization", "Remove it: Bedrock has no such parameter"),
    unsupported("configurable_clientside_auth_params", "Remove it: clients never choose credentials or endpoints"),
    unsupported("litellm_credential_name", "Write the credentials into this entry"),
    unsupported("keepalive_seconds", REMOVE),
    unsupported("mock_response", "Remove it: point `aws_bedrock_runtime_endpoint` at a test server"),
    unsupported("tags", "Remove it: there is no routing by tag"),
    unsupported("tag_regex", "Remove it: there is no routing by tag"),
    unsupported("extra_headers", NATIVE),
    unsupported("extra_body", NATIVE),
    unsupported("max_tokens", NATIVE),
    unsupported("temperature", NATIVE),
    unsupported("top_p", NATIVE),
    unsupported("guardrailConfig", NATIVE),
    unsupported("performanceConfig", NATIVE),
    unsupported("serviceTier", NATIVE),
];

/// Prices stand here too; `supports_*` is taken as descriptive.
pub(super) const MODEL_INFO: &[Key] = &[
    active("id"),
    active("base_model"),
    active("mode"),
    ignored("description", DESCRIPTIVE),
    ignored("deprecation_date", DESCRIPTIVE),
    ignored("discoverable", DESCRIPTIVE),
    ignored("litellm_provider", DESCRIPTIVE),
    ignored("max_input_tokens", DESCRIPTIVE),
    ignored("max_output_tokens", DESCRIPTIVE),
    ignored("max_tokens", DESCRIPTIVE),
    ignored("output_vector_size", DESCRIPTIVE),
    ignored("source", DESCRIPTIVE),
    ignored("tier", DESCRIPTIVE),
    unsupported("access_groups", NO_ACCESS),
    unsupported("blocked", "Remove the whole entry to take the deployment out of service"),
    unsupported("team_id", NO_ACCESS),
    unsupported("team_public_model_name", NO_ACCESS),
];

pub(super) const ROUTER: &[Key] = &[
    active("routing_strategy"),
    active("num_retries"),
    active("timeout"),
    active("stream_timeout"),
    active("connect_timeout"),
    active("total_timeout"),
    active("stream_total_timeout"),
    active("cache_affinity"),
    active("affinity_header_name"),
    active("retry_budget_percent"),
    active("allowed_fails"),
    active("cooldown_time"),
    active("cooldown_time_max"),
    active("disable_cooldowns"),
    active("fallbacks"),
    active("context_window_fallbacks"),
    active("default_fallbacks"),
    active("max_fallbacks"),
    active("health_check_interval"),
    ignored("set_verbose", LOGGING),
    ignored("debug_level", LOGGING),
    ignored("enable_weighted_failover", "the next deployment too is chosen by `routing_strategy`"),
    unsupported("routing_strategy_args", "Remove it: the strategies take no arguments"),
    unsupported(
        "content_policy_fallbacks",
        "Remove it: what a guardrail or a model refuses is an answer, and is delivered",
    ),
    unsupported("allowed_fails_policy", NO_COOLDOWN),
    unsupported("retry_after", "Remove it: another deployment is tried at once"),
    unsupported("retry_policy", "Remove it: use `num_retries`"),
    unsupported("model_group_retry_policy", "Remove it: use `num_retries`"),
    unsupported("model_group_alias", "Remove it: repeat the entry under the other `model_name`"),
    unsupported("enable_pre_call_checks", REMOVE),
    unsupported("optional_pre_call_checks", "Remove it; for `prompt_caching` write `cache_affinity`"),
    unsupported("enable_health_check_routing", REMOVE),
    unsupported("enable_tag_filtering", "Remove it: there is no routing by tag"),
    unsupported("provider_budget_config", NO_BUDGETS),
    unsupported("cache_responses", "Remove it: answers are never cached"),
    unsupported("caching_groups", "Remove it: answers are never cached"),
    unsupported("client_ttl", REMOVE),
    unsupported("redis_url", REDIS_ELSEWHERE),
    unsupported("redis_host", REDIS_ELSEWHERE),
    unsupported("redis_port", REDIS_ELSEWHERE),
    unsupported("redis_password", REDIS_ELSEWHERE),
    unsupported("redis_db", REDIS_ELSEWHERE),
];

pub(super) const SETTINGS: &[Key] = &[
    active("num_retries"),
    active("request_timeout"),
    active("require_auth_for_metrics_endpoint"),
    active("max_budget"),
    active("soft_budget"),
    active("budget_duration"),
    active("callbacks"),
    active("success_callback"),
    active("failure_callback"),
    active("allowed_fails"),
    active("cooldown_time"),
    active("fallbacks"),
    active("context_window_fallbacks"),
    active("default_fallbacks"),
    ignored("drop_params", PASSTHROUGH),
    ignored("modify_params", PASSTHROUGH),
    ignored("json_logs", LOGGING),
    ignored("set_verbose", LOGGING),
    ignored("suppress_debug_info", LOGGING),
    ignored("redact_user_api_key_info", "keys are never logged"),
    ignored("turn_off_message_logging", "messages are never logged"),
    ignored("redact_messages_in_exceptions", "messages are never logged"),
    ignored("telemetry", "nothing is ever reported to anybody"),
    unsupported("cache", "Remove it: answers are never cached"),
    unsupported("cache_params", "Remove it: answers are never cached; Redis is written under `general_settings`"),
    unsupported("timezone", "Write `general_settings.budget_time_zone`"),
    unsupported("budget_exceeded_status_code", "Remove it: a budget that is used up answers 400, which no SDK repeats"),
    unsupported("max_end_user_budget", NO_DEFAULTS),
    unsupported("max_internal_user_budget", NO_DEFAULTS),
    unsupported("default_internal_user_params", NO_DEFAULTS),
    unsupported("default_key_generate_params", NO_DEFAULTS),
    unsupported("default_team_settings", NO_DEFAULTS),
    unsupported("key_generation_settings", AT_CREATION),
    unsupported("upperbound_key_generate_params", AT_CREATION),
    unsupported("content_policy_fallbacks", NO_FALLBACKS),
    unsupported("ssl_verify", NO_TLS),
    unsupported("ssl_certificate", NO_TLS),
    unsupported("ssl_security_level", NO_TLS),
    unsupported("forward_traceparent_to_llm_provider", REMOVE),
    unsupported("model_group_settings", REMOVE),
];

pub(super) const GENERAL: &[Key] = &[
    active("master_key"),
    active("salt_key"),
    active("host"),
    active("port"),
    active("ssl_certfile_path"),
    active("ssl_keyfile_path"),
    active("ssl_port"),
    active("num_workers"),
    active("allow_unlisted_models"),
    active("max_request_size_mb"),
    active("max_buffered_size_mb"),
    active("max_header_size_kb"),
    active("max_header_count"),
    active("body_timeout"),
    active("client_idle_timeout"),
    active("upstream_idle_timeout"),
    active("shutdown_timeout"),
    active("shutdown_delay"),
    active("upgrade_socket"),
    active("max_connections"),
    active("max_in_flight_requests"),
    active("max_queued_requests"),
    active("admission_queue_timeout"),
    alias("admission_queue_timeout_seconds", "admission_queue_timeout"),
    active("client_header_timeout"),
    active("min_client_rate"),
    active("request_log"),
    active("operation_prices"),
    active("store_path"),
    active("redis_url"),
    active("database_url"),
    active("redis_host"),
    active("redis_port"),
    active("redis_startup_nodes"),
    active("redis_sentinel_nodes"),
    active("redis_service_name"),
    active("redis_username"),
    active("redis_password"),
    active("redis_db"),
    active("redis_ssl"),
    active("redis_ca_file"),
    active("redis_namespace"),
    active("redis_connect_timeout"),
    active("redis_timeout"),
    active("budget_time_zone"),
    active("unpriced"),
    active("unknown_usage"),
    active("on_low_budget"),
    active("drain_timeout"),
    active("drain_max_mb"),
    active("budget_slice_max"),
    active("global_max_parallel_requests"),
    active("soft_budget_webhook_url"),
    active("metric_names_max"),
    active("maximum_spend_logs_retention_period"),
    active("user_header_name"),
    active("tag_header_name"),
    active("user_api_key_cache_max_size"),
    ignored("dangerously_permit_weak_or_unset_master_key", "a weak key is warned of; for none see --allow-anonymous"),
    ignored("disable_spend_logs", "what budgets are charged is always written down"),
    unsupported("admin_listen", "Remove it: probes and metrics are served on the one listener"),
    ignored("fail_closed_budget_enforcement", ALWAYS_CLOSED),
    ignored("fail_closed_rate_limit_enforcement", ALWAYS_CLOSED),
    unsupported("redis_sentinel_password", "Remove it: sentinels that ask for a password are given `redis_password`"),
    unsupported("database_connection_pool_limit", NO_DATABASE),
    unsupported("database_connection_timeout", NO_DATABASE),
    unsupported("coordination_redis", "Write `redis_url` or `redis_host` in its place"),
    unsupported("use_redis_transaction_buffer", "Remove it: every call is booked by itself"),
    unsupported("proxy_batch_write_at", "Remove it: every call is booked at once"),
    unsupported("store_model_in_db", "Remove it: models are those of `model_list`"),
    unsupported("store_prompts_in_spend_logs", "Remove it: messages are never stored"),
    unsupported("max_parallel_requests", "Write `global_max_parallel_requests`, or limit keys"),
    unsupported("max_in_flight_requests_per_worker", ONE_QUEUE),
    unsupported("max_queued_requests_per_worker", ONE_QUEUE),
    unsupported("max_response_size_mb", "Remove it: answers stream through and are not held"),
    unsupported("pass_through_request_timeout", "Use `dheera_ai_settings.request_timeout`"),
    unsupported("pass_through_endpoints", "Remove it: only Bedrock is served"),
    unsupported("disable_bedrock_agent_runtime_passthrough", NO_ROUTES),
    unsupported("custom_auth", NO_AUTH),
    unsupported("custom_auth_run_common_checks", NO_AUTH),
    unsupported("allowed_routes", NO_ROUTES),
    unsupported("public_routes", NO_ROUTES),
    unsupported("admin_only_routes", NO_ROUTES),
    unsupported("allowed_ips", "Remove it: let the network decide who reaches the port"),
    unsupported("enable_jwt_auth", NO_AUTH),
    unsupported("enforce_user_param", "Remove it: a call without an end user counts on its key alone"),
    unsupported("infer_model_from_keys", REMOVE),
    unsupported("litellm_key_header_name", "Remove it: see the documentation for the headers that carry a key"),
    unsupported("key_management_system", "Remove it: secrets come from `os.environ/NAME`"),
    unsupported("key_management_settings", "Remove it: secrets come from `os.environ/NAME`"),
    unsupported("alerting", NO_ALERTS),
    unsupported("alerting_threshold", NO_ALERTS),
    unsupported("alert_types", NO_ALERTS),
    unsupported("background_health_checks", REMOVE),
    unsupported("health_check_interval", "Write it under `router_settings`"),
    unsupported("cancel_on_disconnect", "Write `drain_timeout: 0` to stop reading when a client goes away"),
    unsupported("completion_model", "Remove it: the path of each request names the model"),
];

/// A server of `redis_startup_nodes` or `redis_sentinel_nodes`.
pub(super) const REDIS_NODE: &[Key] = &[active("host"), active("port")];

/// Each section by the path an operator knows it by, for "that key belongs in …".
pub(super) const SECTIONS: &[(&str, &[Key])] = &[
    ("the top level", TOP),
    ("`model_list[]`", MODEL_ENTRY),
    ("`model_list[].dheera_ai_params`", MODEL_PARAMS),
    ("`model_list[].model_info`", MODEL_INFO),
    ("`router_settings`", ROUTER),
    ("`dheera_ai_settings`", SETTINGS),
    ("`general_settings`", GENERAL),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_section_names_a_key_twice_and_every_alias_has_its_key() {
        for (section, keys) in SECTIONS {
            let names: BTreeSet<&str> = keys.iter().map(|key| key.name).collect();
            assert_eq!(names.len(), keys.len(), "{section}");
            for key in *keys {
                if let Status::AliasOf(name) = key.status {
                    assert!(keys.iter().any(|other| other.name == name && other.status == Status::Active), "{name}");
                }
            }
        }
    }

    #[test]
    fn the_shipped_configuration_shows_every_key_that_does_something() {
        let file = include_str!("../../conf/config.yaml");
        for (section, keys) in SECTIONS {
            for key in keys.iter().filter(|key| key.status == Status::Active && !key.name.ends_with("callback")) {
                let shown = key.name == "callbacks" || file.contains(&format!("{}:", key.name));
                assert!(shown, "{} of {section} is not in conf/config.yaml", key.name);
            }
        }
    }

    #[test]
    fn the_documentation_names_every_key() {
        let page = include_str!("../../docs/configuration.md");
        for (section, keys) in SECTIONS {
            for key in *keys {
                assert!(page.contains(&format!("`{}`", key.name)), "{} of {section} is not documented", key.name);
            }
        }
        // Prices are documented as names and endings: `input_cost_per_token`, `_above_200k_tokens`, `_flex`.
        let words: Vec<&str> = page.split('`').skip(1).step_by(2).collect();
        let (endings, names): (Vec<&str>, Vec<&str>) = words.into_iter().partition(|word| word.starts_with('_'));
        for field in crate::price::book::PriceOverride::known_fields() {
            let documented = names.iter().any(|name| {
                let mut rest = field.strip_prefix(name);
                while let Some(text) = rest.filter(|text| !text.is_empty()) {
                    rest = endings.iter().find_map(|ending| text.strip_prefix(ending));
                }
                rest.is_some()
            });
            assert!(documented, "price field {field} is not documented");
        }
    }
}

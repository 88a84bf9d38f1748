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
const NO_LIMITS: &str = "Remove it: deployments have no rate limits yet. To share the load unevenly, use `weight`";
const NO_BUDGETS: &str = "Remove it: there are no virtual keys, budgets or limits yet";
const NO_FALLBACKS: &str =
    "Remove it: further entries under the same `model_name` are tried in turn, up to `num_retries`";
const NO_COOLDOWN: &str = "Remove it: a deployment that failed is passed over within a request, not between requests";
const NO_STORE: &str = "Remove it: this version keeps no state";
const NO_TLS: &str = "Remove it: put a TLS terminator in front; for certificates of AWS endpoints set AWS_CA_BUNDLE";
const NATIVE: &str = "Remove it: requests go upstream byte for byte, so clients set this themselves";
const NO_ALERTS: &str = "Remove it: alert on the metrics of /metrics";
const NO_ACCESS: &str = "Remove it: access by key, team or route is not supported yet";
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
    ignored("drop_params", PASSTHROUGH),
    ignored("additional_drop_params", PASSTHROUGH),
    ignored("modify_params", PASSTHROUGH),
    ignored("use_in_pass_through", "every entry serves the pass-through"),
    unsupported("rpm", NO_LIMITS),
    unsupported("tpm", NO_LIMITS),
    unsupported("itpm", NO_LIMITS),
    unsupported("otpm", NO_LIMITS),
    unsupported("max_parallel_requests", NO_LIMITS),
    unsupported("default_api_key_rpm_limit", NO_LIMITS),
    unsupported("default_api_key_tpm_limit", NO_LIMITS),
    unsupported("max_retries", "Remove it: `router_settings.num_retries` bounds the attempts of a request"),
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
    ignored("set_verbose", LOGGING),
    ignored("debug_level", LOGGING),
    unsupported("routing_strategy_args", "Remove it: `simple-shuffle` takes no arguments"),
    unsupported("fallbacks", NO_FALLBACKS),
    unsupported("default_fallbacks", NO_FALLBACKS),
    unsupported("context_window_fallbacks", NO_FALLBACKS),
    unsupported("content_policy_fallbacks", NO_FALLBACKS),
    unsupported("max_fallbacks", NO_FALLBACKS),
    unsupported("enable_weighted_failover", NO_FALLBACKS),
    unsupported("allowed_fails", NO_COOLDOWN),
    unsupported("allowed_fails_policy", NO_COOLDOWN),
    unsupported("cooldown_time", NO_COOLDOWN),
    unsupported("disable_cooldowns", NO_COOLDOWN),
    unsupported("retry_after", "Remove it: another deployment is tried at once"),
    unsupported("retry_policy", "Remove it: use `num_retries`"),
    unsupported("model_group_retry_policy", "Remove it: use `num_retries`"),
    unsupported("model_group_alias", "Remove it: repeat the entry under the other `model_name`"),
    unsupported("enable_pre_call_checks", REMOVE),
    unsupported("optional_pre_call_checks", REMOVE),
    unsupported("enable_health_check_routing", REMOVE),
    unsupported("enable_tag_filtering", "Remove it: there is no routing by tag"),
    unsupported("provider_budget_config", NO_BUDGETS),
    unsupported("cache_responses", "Remove it: answers are never cached"),
    unsupported("caching_groups", "Remove it: answers are never cached"),
    unsupported("client_ttl", REMOVE),
    unsupported("redis_url", NO_STORE),
    unsupported("redis_host", NO_STORE),
    unsupported("redis_port", NO_STORE),
    unsupported("redis_password", NO_STORE),
    unsupported("redis_db", NO_STORE),
];

pub(super) const SETTINGS: &[Key] = &[
    active("num_retries"),
    active("request_timeout"),
    active("require_auth_for_metrics_endpoint"),
    active("callbacks"),
    active("success_callback"),
    active("failure_callback"),
    ignored("drop_params", PASSTHROUGH),
    ignored("modify_params", PASSTHROUGH),
    ignored("json_logs", LOGGING),
    ignored("set_verbose", LOGGING),
    ignored("suppress_debug_info", LOGGING),
    ignored("redact_user_api_key_info", "keys are never logged"),
    ignored("turn_off_message_logging", "messages are never logged"),
    ignored("redact_messages_in_exceptions", "messages are never logged"),
    ignored("telemetry", "nothing is ever sent anywhere but to AWS"),
    unsupported("cache", "Remove it: answers are never cached"),
    unsupported("cache_params", "Remove it: answers are never cached"),
    unsupported("max_budget", NO_BUDGETS),
    unsupported("budget_duration", NO_BUDGETS),
    unsupported("budget_exceeded_status_code", NO_BUDGETS),
    unsupported("max_end_user_budget", NO_BUDGETS),
    unsupported("max_internal_user_budget", NO_BUDGETS),
    unsupported("default_internal_user_params", NO_BUDGETS),
    unsupported("default_key_generate_params", NO_BUDGETS),
    unsupported("default_team_settings", NO_BUDGETS),
    unsupported("key_generation_settings", NO_BUDGETS),
    unsupported("upperbound_key_generate_params", NO_BUDGETS),
    unsupported("fallbacks", NO_FALLBACKS),
    unsupported("default_fallbacks", NO_FALLBACKS),
    unsupported("context_window_fallbacks", NO_FALLBACKS),
    unsupported("content_policy_fallbacks", NO_FALLBACKS),
    unsupported("allowed_fails", NO_COOLDOWN),
    unsupported("cooldown_time", NO_COOLDOWN),
    unsupported("ssl_verify", NO_TLS),
    unsupported("ssl_certificate", NO_TLS),
    unsupported("ssl_security_level", NO_TLS),
    unsupported("forward_traceparent_to_llm_provider", REMOVE),
    unsupported("model_group_settings", REMOVE),
];

pub(super) const GENERAL: &[Key] = &[
    active("master_key"),
    active("host"),
    active("port"),
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
    active("request_log"),
    active("operation_prices"),
    ignored("dangerously_permit_weak_or_unset_master_key", "a weak key is warned of; for none see --allow-anonymous"),
    ignored("disable_spend_logs", "there is no spend table; `request_log: off` turns the request log off"),
    unsupported("admin_listen", "Remove it: probes and metrics are served on the one listener"),
    unsupported("redis_url", NO_STORE),
    unsupported("store_path", NO_STORE),
    unsupported("database_url", NO_STORE),
    unsupported("database_connection_pool_limit", NO_STORE),
    unsupported("database_connection_timeout", NO_STORE),
    unsupported("coordination_redis", NO_STORE),
    unsupported("use_redis_transaction_buffer", NO_STORE),
    unsupported("proxy_batch_write_at", NO_STORE),
    unsupported("store_model_in_db", NO_STORE),
    unsupported("store_prompts_in_spend_logs", NO_STORE),
    unsupported("maximum_spend_logs_retention_period", NO_STORE),
    unsupported("user_api_key_cache_max_size", NO_STORE),
    unsupported("fail_closed_budget_enforcement", NO_BUDGETS),
    unsupported("fail_closed_rate_limit_enforcement", NO_BUDGETS),
    unsupported("max_parallel_requests", NO_BUDGETS),
    unsupported("global_max_parallel_requests", NO_BUDGETS),
    unsupported("max_in_flight_requests_per_worker", NO_BUDGETS),
    unsupported("max_queued_requests_per_worker", NO_BUDGETS),
    unsupported("admission_queue_timeout_seconds", NO_BUDGETS),
    unsupported("max_response_size_mb", "Remove it: answers stream through and are not held"),
    unsupported("pass_through_request_timeout", "Use `dheera_ai_settings.request_timeout`"),
    unsupported("pass_through_endpoints", "Remove it: only Bedrock is served"),
    unsupported("disable_bedrock_agent_runtime_passthrough", NO_ACCESS),
    unsupported("custom_auth", NO_ACCESS),
    unsupported("custom_auth_run_common_checks", NO_ACCESS),
    unsupported("allowed_routes", NO_ACCESS),
    unsupported("public_routes", NO_ACCESS),
    unsupported("admin_only_routes", NO_ACCESS),
    unsupported("allowed_ips", NO_ACCESS),
    unsupported("enable_jwt_auth", NO_ACCESS),
    unsupported("enforce_user_param", NO_ACCESS),
    unsupported("infer_model_from_keys", REMOVE),
    unsupported("litellm_key_header_name", "Remove it: see the documentation for the headers that carry a key"),
    unsupported("user_header_name", NO_ACCESS),
    unsupported("key_management_system", "Remove it: secrets come from `os.environ/NAME`"),
    unsupported("key_management_settings", "Remove it: secrets come from `os.environ/NAME`"),
    unsupported("alerting", NO_ALERTS),
    unsupported("alerting_threshold", NO_ALERTS),
    unsupported("alert_types", NO_ALERTS),
    unsupported("background_health_checks", REMOVE),
    unsupported("health_check_interval", REMOVE),
    unsupported("cancel_on_disconnect", REMOVE),
    unsupported("completion_model", "Remove it: the path of each request names the model"),
];

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

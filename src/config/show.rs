//! The effective configuration as text: complete YAML for `config show`, a table for `check`. Both without secrets.
//!
//! The YAML has the shape of the configuration itself plus what was derived, so that it can be compared with what was
//! written; it is for reading and cannot be loaded, because its secrets are the word `[redacted]`.

use std::fmt::Write;
use std::time::Duration;

use super::{
    Config, Credentials, Deployment, Endpoint, HostPort, OnLowBudget, Redis, RedisTopology, RequestLog, Router, Store,
    Tls, UnknownUsage,
};
use crate::aws::endpoint::is_application_inference_profile;
use crate::deployment::affinity::CacheAffinity;
use crate::deployment::select::Strategy;
use crate::price::book::{Query, Surface};
use crate::types::ids::ModelName;

const REDACTED: &str = "\"[redacted]\"";

/// The effective configuration, secrets redacted.
#[must_use]
pub fn to_yaml(config: &Config) -> String {
    let mut yaml = Yaml { text: String::new() };
    yaml.line(0, "# The effective configuration: file, environment, command line and defaults together.");
    general(config, &mut yaml);
    yaml.line(0, "dheera_ai_settings:");
    yaml.pair(1, "request_timeout", seconds(config.direct.timeout));
    yaml.pair(1, "require_auth_for_metrics_endpoint", config.access.require_auth_for_metrics);
    let global = &config.budgets.global;
    for (key, amount) in [("max_budget", global.max_budget), ("soft_budget", global.soft_budget)] {
        if let Some(amount) = amount {
            yaml.pair(1, key, amount.to_usd_number());
        }
    }
    if let Some(period) = &global.budget_duration {
        yaml.pair(1, "budget_duration", quoted(&period.to_string()));
    }
    yaml.line(0, "router_settings:");
    router(config, &mut yaml);
    direct(config, &mut yaml);
    if !config.environment.is_empty() {
        yaml.line(0, "environment_variables:");
        for name in config.environment.keys() {
            yaml.pair(1, name, REDACTED);
        }
    }
    if config.deployments.is_empty() {
        yaml.line(0, "model_list: []");
    } else {
        yaml.line(0, "model_list:");
    }
    for deployment in &config.deployments {
        entry(deployment, &mut yaml);
    }
    yaml.text
}

fn general(config: &Config, yaml: &mut Yaml) {
    let limits = &config.limits;
    yaml.line(0, "general_settings:");
    match &config.access.master_key {
        Some(_) => yaml.pair(1, "master_key", REDACTED),
        None => yaml.line(1, "# no master key: whoever reaches the listener may call"),
    }
    if config.access.salt_key.is_some() {
        yaml.pair(1, "salt_key", REDACTED);
    }
    yaml.pair(1, "host", quoted(&config.listen.host.to_string()));
    yaml.pair(1, "port", config.listen.port);
    if let Some(Tls { files, port, .. }) = &config.listen.tls {
        yaml.pair(1, "ssl_certfile_path", quoted(&files.certificate.display().to_string()));
        yaml.pair(1, "ssl_keyfile_path", quoted(&files.key.display().to_string()));
        if let Some(port) = port {
            yaml.pair(1, "ssl_port", port);
        }
    }
    yaml.pair(1, "num_workers", config.listen.workers);
    yaml.pair(1, "allow_unlisted_models", config.direct.allow_unlisted_models);
    yaml.pair(1, "max_request_size_mb", limits.body_bytes_max / (1024 * 1024));
    yaml.pair(1, "max_buffered_size_mb", limits.buffered_bytes_max / (1024 * 1024));
    yaml.pair(1, "max_header_size_kb", limits.header_bytes_max / 1024);
    yaml.pair(1, "max_header_count", limits.header_count_max);
    yaml.pair(1, "body_timeout", seconds(limits.body_timeout));
    yaml.pair(1, "client_idle_timeout", seconds(limits.client_idle_timeout));
    yaml.pair(1, "upstream_idle_timeout", seconds(limits.upstream_idle_timeout));
    yaml.pair(1, "shutdown_timeout", seconds(limits.shutdown_timeout));
    yaml.pair(1, "shutdown_delay", seconds(limits.shutdown_delay));
    yaml.pair(1, "upgrade_socket", quoted(&config.listen.upgrade_socket.display().to_string()));
    yaml.pair(1, "max_connections", limits.connections_max);
    yaml.pair(1, "max_in_flight_requests", limits.in_flight_max);
    yaml.pair(1, "max_queued_requests", limits.queued_max);
    yaml.pair(1, "admission_queue_timeout", seconds(limits.queue_timeout));
    yaml.pair(1, "client_header_timeout", seconds(limits.header_timeout));
    yaml.pair(1, "min_client_rate", limits.client_rate_min);
    let request_log = match &config.request_log {
        RequestLog::Stdout => "stdout".to_owned(),
        RequestLog::Off => "off".to_owned(),
        RequestLog::File(path) => path.display().to_string(),
    };
    yaml.pair(1, "request_log", quoted(&request_log));
    if !config.operation_prices.is_empty() {
        yaml.line(1, "operation_prices:");
        for (operation, price) in &config.operation_prices {
            yaml.pair(2, operation, quoted(&price.to_string()));
        }
    }
    budgets(config, yaml);
}

fn router(config: &Config, yaml: &mut Yaml) {
    let Router {
        strategy,
        cache_affinity,
        affinity_headers,
        num_retries,
        retry_budget_percent,
        connect_timeout,
        cooldown,
        fallbacks,
        health_check_interval,
    } = &config.router;
    let strategy = match strategy {
        Strategy::SimpleShuffle => "simple-shuffle",
        Strategy::LeastBusy => "least-busy",
        Strategy::LatencyBased => "latency-based-routing",
        Strategy::UsageBased => "usage-based-routing",
        Strategy::CostBased => "cost-based-routing",
    };
    let cache_affinity = match cache_affinity {
        CacheAffinity::Auto => "auto",
        CacheAffinity::Always => "always",
        CacheAffinity::Off => "\"off\"",
    };
    yaml.pair(1, "routing_strategy", strategy);
    yaml.pair(1, "cache_affinity", cache_affinity);
    yaml.line(1, &format!("# headers that name what belongs together: {}", affinity_headers.join(", ")));
    yaml.pair(1, "num_retries", num_retries);
    yaml.pair(1, "retry_budget_percent", retry_budget_percent);
    yaml.pair(1, "stream_timeout", seconds(config.direct.stream_timeout));
    totals(1, config.direct.total_timeout, config.direct.stream_total_timeout, yaml);
    yaml.pair(1, "connect_timeout", seconds(*connect_timeout));
    yaml.pair(1, "disable_cooldowns", !cooldown.enabled);
    yaml.pair(1, "allowed_fails", cooldown.allowed_fails);
    yaml.pair(1, "cooldown_time", seconds(cooldown.base));
    yaml.pair(1, "cooldown_time_max", seconds(cooldown.max));
    yaml.pair(1, "health_check_interval", seconds(*health_check_interval));
    let list = |names: &[ModelName]| {
        let quoted: Vec<_> = names.iter().map(|name| quoted(name.as_str())).collect();
        format!("[{}]", quoted.join(", "))
    };
    let maps = [("fallbacks", &fallbacks.by_model), ("context_window_fallbacks", &fallbacks.context_window)];
    for (key, map) in maps.into_iter().filter(|(_, map)| !map.is_empty()) {
        yaml.line(1, &format!("{key}:"));
        for (name, others) in map {
            yaml.line(2, &format!("- {}: {}", quoted(name.as_str()), list(others)));
        }
    }
    if !fallbacks.default.is_empty() {
        yaml.pair(1, "default_fallbacks", list(&fallbacks.default));
    }
    yaml.pair(1, "max_fallbacks", fallbacks.max);
}

/// Bounds on whole answers, which there are none of by default.
fn totals(depth: usize, total: Option<Duration>, stream_total: Option<Duration>, yaml: &mut Yaml) {
    for (key, timeout) in [("total_timeout", total), ("stream_total_timeout", stream_total)] {
        if let Some(timeout) = timeout {
            yaml.pair(depth, key, seconds(timeout));
        }
    }
}

fn budgets(config: &Config, yaml: &mut Yaml) {
    let budgets = &config.budgets;
    match &config.store {
        None => yaml.line(1, "# no master key: no virtual keys, no budgets"),
        Some(Store::Embedded) => yaml.line(1, "# keys and budgets: in store_path, by this process alone"),
        Some(Store::Redis(settings)) => {
            yaml.line(1, "# keys and budgets: in Redis; store_path holds the journal");
            redis(settings, yaml);
        }
    }
    yaml.pair(1, "store_path", quoted(&budgets.state_directory.display().to_string()));
    yaml.pair(1, "budget_time_zone", quoted(budgets.time_zone.iana_name().unwrap_or("UTC")));
    yaml.pair(1, "unpriced", if budgets.allow_unpriced { "allow" } else { "refuse" });
    let unknown_usage = match budgets.unknown_usage {
        UnknownUsage::Reservation => "reservation",
        UnknownUsage::Estimate => "estimate",
    };
    yaml.pair(1, "unknown_usage", unknown_usage);
    let on_low_budget = match budgets.on_low_budget {
        OnLowBudget::Extend => "extend",
        OnLowBudget::Refuse => "refuse",
    };
    yaml.pair(1, "on_low_budget", on_low_budget);
    yaml.pair(1, "drain_timeout", seconds(budgets.drain_timeout));
    yaml.pair(1, "drain_max_mb", budgets.drain_bytes_max / (1024 * 1024));
    yaml.pair(1, "budget_slice_max", budgets.slice_max.to_usd_number());
    if let Some(count) = budgets.global.max_parallel_requests {
        yaml.pair(1, "global_max_parallel_requests", count);
    }
    if budgets.soft_budget_webhook.is_some() {
        yaml.pair(1, "soft_budget_webhook_url", REDACTED);
    }
    yaml.pair(1, "metric_names_max", budgets.metric_names_max);
    let hours = budgets.spend_log_retention.as_secs() / 3_600;
    let retention = if hours.is_multiple_of(24) { format!("{}d", hours / 24) } else { format!("{hours}h") };
    yaml.pair(1, "maximum_spend_logs_retention_period", retention);
    yaml.line(1, &format!("# headers that name the end user: {}", budgets.end_user_headers.join(", ")));
    yaml.line(1, &format!("# headers that carry tags: {}", budgets.tag_headers.join(", ")));
    yaml.pair(1, "user_api_key_cache_max_size", budgets.cache_entries_max);
}

fn redis(redis: &Redis, yaml: &mut Yaml) {
    let nodes = |yaml: &mut Yaml, key: &str, nodes: &[HostPort]| {
        yaml.line(1, &format!("{key}:"));
        for HostPort { host, port } in nodes {
            yaml.line(2, &format!("- {{host: {}, port: {port}}}", quoted(host)));
        }
    };
    match &redis.topology {
        RedisTopology::Single(HostPort { host, port }) => {
            yaml.pair(1, "redis_host", quoted(host));
            yaml.pair(1, "redis_port", port);
        }
        RedisTopology::Sentinel { sentinels, master_name } => {
            nodes(yaml, "redis_sentinel_nodes", sentinels);
            yaml.pair(1, "redis_service_name", quoted(master_name));
        }
        RedisTopology::Cluster(startup) => nodes(yaml, "redis_startup_nodes", startup),
    }
    if let Some(username) = &redis.username {
        yaml.pair(1, "redis_username", quoted(username));
    }
    if redis.password.is_some() {
        yaml.pair(1, "redis_password", REDACTED);
    }
    yaml.pair(1, "redis_db", redis.database);
    yaml.pair(1, "redis_ssl", redis.tls);
    if let Some(path) = &redis.ca_file {
        yaml.pair(1, "redis_ca_file", quoted(&path.display().to_string()));
    }
    yaml.pair(1, "redis_namespace", quoted(&redis.namespace));
    yaml.pair(1, "redis_connect_timeout", seconds(redis.connect_timeout));
    yaml.pair(1, "redis_timeout", seconds(redis.timeout));
}

/// What comes from the environment and has no key of its own.
fn direct(config: &Config, yaml: &mut Yaml) {
    let endpoints = &config.endpoints;
    yaml.line(0, "# From the environment, for ids outside `model_list` and operations without a model:");
    yaml.line(0, "direct:");
    yaml.pair(1, "region", quoted(config.direct.region.as_str()));
    yaml.pair(1, "credentials", quoted(config.direct.credentials.kind()));
    if config.direct.bearer.is_some() {
        yaml.pair(1, "bearer_token", REDACTED);
    }
    yaml.pair(1, "use_fips_endpoint", endpoints.fips);
    yaml.pair(1, "use_dualstack_endpoint", endpoints.dual_stack);
    if let Some(path) = &endpoints.ca_bundle {
        yaml.pair(1, "ca_bundle", quoted(&path.display().to_string()));
    }
    if let Some(endpoint) = &endpoints.all {
        yaml.pair(1, "endpoint_url", quoted(&url(endpoint)));
    }
    for (service, endpoint) in &endpoints.by_service {
        let key = format!("endpoint_url_{}", service.endpoint_variable_suffix().to_ascii_lowercase());
        yaml.pair(1, &key, quoted(&url(endpoint)));
    }
}

fn entry(deployment: &Deployment, yaml: &mut Yaml) {
    yaml.line(1, &format!("- model_name: {}", quoted(deployment.model_name.as_str())));
    yaml.line(2, "dheera_ai_params:");
    yaml.pair(3, "model", quoted(&format!("bedrock/{}", deployment.model_id)));
    yaml.pair(3, "aws_region_name", quoted(deployment.region.as_str()));
    credentials(&deployment.credentials, yaml);
    if deployment.bearer.is_some() {
        yaml.line(3, "# AWS_BEARER_TOKEN_BEDROCK comes first where an operation accepts it");
    }
    if let Some(endpoint) = &deployment.runtime_endpoint {
        yaml.pair(3, "aws_bedrock_runtime_endpoint", quoted(&url(endpoint)));
    }
    yaml.pair(3, "weight", deployment.weight);
    yaml.pair(3, "timeout", seconds(deployment.timeout));
    yaml.pair(3, "stream_timeout", seconds(deployment.stream_timeout));
    totals(3, deployment.total_timeout, deployment.stream_total_timeout, yaml);
    let parallel = deployment.parallel.map(u64::from);
    for (key, limit) in [("rpm", deployment.rpm), ("tpm", deployment.tpm), ("max_parallel_requests", parallel)] {
        if let Some(limit) = limit {
            yaml.pair(3, key, limit);
        }
    }
    yaml.pair(3, "max_retries", deployment.max_retries);
    yaml.line(2, "model_info:");
    yaml.pair(3, "id", quoted(deployment.id.as_str()));
    if let Some(base) = &deployment.base_model {
        yaml.pair(3, "base_model", quoted(base.as_str()));
    }
    if deployment.price.is_some() {
        yaml.line(3, "# with prices of its own");
    }
}

fn credentials(credentials: &Credentials, yaml: &mut Yaml) {
    match credentials {
        Credentials::Chain => yaml.line(3, "# credentials: the AWS chain"),
        Credentials::Profile(name) => yaml.pair(3, "aws_profile_name", quoted(name)),
        Credentials::ApiKey(_) => yaml.pair(3, "api_key", REDACTED),
        Credentials::Static { session_token, .. } => {
            yaml.pair(3, "aws_access_key_id", REDACTED);
            yaml.pair(3, "aws_secret_access_key", REDACTED);
            if session_token.is_some() {
                yaml.pair(3, "aws_session_token", REDACTED);
            }
        }
        Credentials::AssumeRole { base, role_arn, session_name, external_id, sts_endpoint, .. } => {
            self::credentials(base, yaml);
            role(role_arn, session_name, sts_endpoint.as_deref(), yaml);
            if external_id.is_some() {
                // A shared secret by the letter of nobody and by the habit of many.
                yaml.pair(3, "aws_external_id", REDACTED);
            }
        }
        Credentials::WebIdentity { role_arn, session_name, sts_endpoint, .. } => {
            yaml.pair(3, "aws_web_identity_token", REDACTED);
            role(role_arn, session_name, sts_endpoint.as_deref(), yaml);
        }
    }
}

fn role(role_arn: &str, session_name: &str, sts_endpoint: Option<&str>, yaml: &mut Yaml) {
    yaml.pair(3, "aws_role_name", quoted(role_arn));
    yaml.pair(3, "aws_session_name", quoted(session_name));
    if let Some(endpoint) = sts_endpoint {
        yaml.pair(3, "aws_sts_endpoint", quoted(endpoint));
    }
}

/// One line per deployment: model name, id, model id, region, credentials, and whether its price is known.
#[must_use]
pub fn summary(config: &Config) -> String {
    let head = ["MODEL NAME", "DEPLOYMENT", "MODEL ID", "REGION", "CREDENTIALS", "PRICE"].map(str::to_owned);
    let mut rows = vec![head];
    for deployment in &config.deployments {
        rows.push([
            deployment.model_name.to_string(),
            deployment.id.to_string(),
            deployment.model_id.to_string(),
            deployment.region.to_string(),
            match deployment.bearer {
                Some(_) => "bearer token".to_owned(),
                None => deployment.credentials.kind().to_owned(),
            },
            price_state(config, deployment).to_owned(),
        ]);
    }
    let direct = match (config.direct.allow_unlisted_models, &config.direct.bearer) {
        (false, _) => "(unlisted ids are refused)",
        (true, Some(_)) => "bearer token",
        (true, None) => config.direct.credentials.kind(),
    };
    let any = ["(any other)", "direct", "as requested", config.direct.region.as_str(), direct, "by id"];
    rows.push(any.map(str::to_owned));
    table(&rows)
}

/// What the ports speak, in a sentence.
#[must_use]
pub fn listen(config: &Config) -> String {
    let listen = &config.listen;
    let Some(Tls { files, certificate, port }) = &listen.tls else {
        return format!("Port {} speaks plain HTTP.", listen.port);
    };
    let until = jiff::Timestamp::from_second(certificate.not_after_s());
    let until = until.map_or_else(|_| "its end".to_owned(), |until| until.to_string());
    let certificate = format!("{}, valid until {until}", files.certificate.display());
    match port {
        Some(tls) => format!("Port {} speaks plain HTTP, port {tls} TLS with {certificate}.", listen.port),
        None => format!("Port {} speaks TLS with {certificate}.", listen.port),
    }
}

/// Where keys and budgets are kept, in a sentence.
#[must_use]
pub fn store(config: &Config) -> String {
    let directory = config.budgets.state_directory.display();
    let redis = match &config.store {
        None => return "No virtual keys and no budgets: there is no master key.".to_owned(),
        Some(Store::Embedded) => return format!("Keys and budgets are kept in {directory}, by this process alone."),
        Some(Store::Redis(redis)) => redis,
    };
    let server = |HostPort { host, port }: &HostPort| {
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    };
    let servers = match &redis.topology {
        RedisTopology::Single(single) => server(single),
        RedisTopology::Sentinel { sentinels, master_name } => {
            let sentinels: Vec<String> = sentinels.iter().map(server).collect();
            format!("{master_name}, by the sentinels {}", sentinels.join(", "))
        }
        RedisTopology::Cluster(nodes) => {
            format!("the cluster of {}", nodes.iter().map(server).collect::<Vec<_>>().join(", "))
        }
    };
    format!("Keys and budgets are kept in Redis at {servers}; the journal in {directory}.")
}

fn price_state(config: &Config, deployment: &Deployment) -> &'static str {
    if is_priced(config, deployment) {
        "known"
    } else if is_application_inference_profile(deployment.model_id.as_str()) {
        "asked of AWS"
    } else {
        "UNKNOWN"
    }
}

/// Whether what the deployment serves can be priced. An override counts: it need not name every dimension.
#[must_use]
pub fn is_priced(config: &Config, deployment: &Deployment) -> bool {
    let query = Query {
        model_id: deployment.model_id.as_str(),
        region: deployment.region.as_str(),
        surface: Surface::Runtime,
        base_model: deployment.base_model.as_ref().map(crate::types::ids::ModelId::as_str),
        invoked_model: None,
    };
    deployment.price.is_some() || config.price_book.find(&query).is_some()
}

fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let mut widths = [0; COLUMNS];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

struct Yaml {
    text: String,
}

impl Yaml {
    fn line(&mut self, depth: usize, line: &str) {
        for _ in 0..depth {
            self.text.push_str("  ");
        }
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn pair(&mut self, depth: usize, key: &str, value: impl std::fmt::Display) {
        self.line(depth, &format!("{key}: {value}"));
    }
}

/// A double-quoted YAML scalar; YAML's escapes include those of Rust's `\u{…}` only as `\U`, so they are written out.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            _ if character.is_control() => {
                // Writing to a string cannot fail.
                write!(quoted, "\\U{:08X}", u32::from(character)).unwrap_or_default();
            }
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

fn seconds(duration: Duration) -> String {
    let text = format!("{}.{:03}", duration.as_secs(), duration.subsec_millis());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn url(endpoint: &Endpoint) -> String {
    let Endpoint { tls, host, port, path_prefix } = endpoint;
    let scheme = if *tls { "https" } else { "http" };
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    format!("{scheme}://{bracketed}:{port}{path_prefix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted_so_that_yaml_reads_them_back() {
        for text in ["plain", "a \"b\" \\ c", "line\nbreak\u{7}", "αβ: # x"] {
            let mut problems = Vec::new();
            let root = crate::yaml::parse(&quoted(text), &mut problems).unwrap();
            let crate::yaml::Content::Scalar { text: read, .. } = root.content else { panic!() };
            assert_eq!(read.expose(), text);
        }
    }

    #[test]
    fn seconds_and_urls_read_as_they_were_written() {
        assert_eq!(seconds(Duration::from_millis(2_500)), "2.5");
        assert_eq!(seconds(Duration::from_hours(1)), "3600");
        assert_eq!(seconds(Duration::from_millis(1)), "0.001");
        let endpoint = Endpoint { tls: false, host: "::1".to_owned(), port: 80, path_prefix: "/a".to_owned() };
        assert_eq!(url(&endpoint), "http://[::1]:80/a");
    }
}

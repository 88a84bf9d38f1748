//! The shape of the YAML: which key holds what kind of value. The only place that knows it.
//!
//! Values are still as written, and `None` when they are not there or when a problem about them was told; how they
//! combine and what they default to is decided in `resolve/`. `router.rs`, `store.rs` and `budgets.rs` hold the keys of their subjects.

use std::collections::BTreeMap;
use std::time::Duration;

use self::budgets::{RawBudgets, RawGlobal};
use self::router::{RawFailing, RawRouter};
use self::store::RawStore;
use super::known_keys::{GENERAL, MODEL_ENTRY, MODEL_INFO, MODEL_PARAMS, ROUTER, SETTINGS, TOP};
use super::problem::{At, Located};
use super::secrets::{is_variable_name, reference};
use super::section::{Reader, Section, Text, join};
use crate::price::book::PriceOverride;
use crate::types::secret::Secret;
use crate::yaml::{Content, Node};

pub(super) mod budgets;
pub(super) mod router;
pub(super) mod store;

type Number = Option<Located<u64>>;
type Seconds = Option<Located<Duration>>;
type Switch = Option<Located<bool>>;

#[derive(Default)]
pub(super) struct Raw {
    pub(super) models: Vec<RawModel>,
    pub(super) router: RawRouter,
    pub(super) settings: RawSettings,
    pub(super) general: RawGeneral,
}

pub(super) struct RawModel {
    /// The entry in the list.
    pub(super) at: At,
    pub(super) name: Option<Text>,
    pub(super) params: Option<RawParams>,
    pub(super) id: Option<Text>,
    pub(super) base_model: Option<Text>,
    pub(super) mode: Option<Text>,
    /// Prices by field name, of `model_info` and of the parameters.
    pub(super) prices: Vec<(&'static str, Text)>,
}

pub(super) struct RawParams {
    pub(super) at: At,
    pub(super) model: Option<Text>,
    pub(super) model_id: Option<Text>,
    pub(super) provider: Option<Text>,
    /// Whether the key is there, readable or not: an unreadable one must not fall back to another region.
    pub(super) region_written: bool,
    pub(super) region: Option<Text>,
    pub(super) credentials: RawCredentials,
    pub(super) runtime_endpoint: Option<Text>,
    pub(super) weight: Number,
    pub(super) rpm: Number,
    pub(super) tpm: Number,
    pub(super) parallel: Number,
    pub(super) max_retries: Number,
    pub(super) timeout: Seconds,
    pub(super) stream_timeout: Seconds,
    pub(super) total_timeout: Seconds,
    pub(super) stream_total_timeout: Seconds,
}

pub(super) struct RawCredentials {
    /// Whether a key is there that could not be read: the rest of them says nothing then.
    pub(super) unreadable: bool,
    pub(super) api_key: Option<Text>,
    pub(super) access_key_id: Option<Text>,
    pub(super) secret_access_key: Option<Text>,
    pub(super) session_token: Option<Text>,
    pub(super) profile: Option<Text>,
    pub(super) role: Option<Text>,
    pub(super) session_name: Option<Text>,
    pub(super) external_id: Option<Text>,
    pub(super) web_identity_token: Option<Text>,
    pub(super) sts_endpoint: Option<Text>,
}

#[derive(Default)]
pub(super) struct RawSettings {
    pub(super) num_retries: Number,
    pub(super) request_timeout: Seconds,
    pub(super) require_auth_for_metrics: Switch,
    pub(super) failing: RawFailing,
    pub(super) global: RawGlobal,
}

#[derive(Default)]
pub(super) struct RawGeneral {
    /// Whether the key is there at all, readable or not: a master key that cannot be read must not open the proxy.
    pub(super) master_key_written: bool,
    pub(super) master_key: Option<Text>,
    pub(super) salt_key_written: bool,
    pub(super) salt_key: Option<Text>,
    pub(super) host: Option<Text>,
    pub(super) port: Number,
    pub(super) tls: RawTls,
    pub(super) workers: Number,
    pub(super) allow_unlisted_models: Switch,
    pub(super) request_size_mb: Number,
    pub(super) buffered_size_mb: Number,
    pub(super) header_size_kb: Number,
    pub(super) header_count: Number,
    pub(super) body_timeout: Seconds,
    pub(super) client_idle_timeout: Seconds,
    pub(super) upstream_idle_timeout: Seconds,
    pub(super) shutdown_timeout: Seconds,
    pub(super) shutdown_delay: Seconds,
    pub(super) upgrade_socket: Option<Text>,
    pub(super) connections: Number,
    pub(super) in_flight: Number,
    pub(super) queued: Number,
    pub(super) queue_timeout: Seconds,
    pub(super) header_timeout: Seconds,
    pub(super) client_rate: Number,
    pub(super) request_log: Option<Text>,
    pub(super) operation_prices: Vec<(String, Text)>,
    pub(super) store: RawStore,
    pub(super) budgets: RawBudgets,
}

#[derive(Default)]
pub(super) struct RawTls {
    pub(super) certificate: Option<Text>,
    pub(super) key: Option<Text>,
    pub(super) port: Number,
    /// Whether a key is there that could not be read: the rest of them says nothing then.
    pub(super) unreadable: bool,
}

/// Reads `environment_variables` alone, because every other section may refer to it.
pub(super) fn environment_variables(reader: &mut Reader<'_>, root: &Node) -> BTreeMap<String, Secret> {
    let mut variables = BTreeMap::new();
    let Content::Map(top) = &root.content else { return variables };
    let Some(section) = top.iter().find(|entry| entry.key == "environment_variables") else { return variables };
    let entries = reader.mapping(&section.value, "environment_variables").unwrap_or_default();
    for entry in entries {
        let at = reader.at(entry.key_place, join("environment_variables", &entry.key.escape_debug().to_string()));
        // What one entry sets must not depend on another: there is no order among them, and a process that restarts
        // itself with these variables has to find the same values again.
        let circular = match &entry.value.content {
            Content::Scalar { text, .. } => reference(text.expose())
                .is_some_and(|name| name != entry.key && entries.iter().any(|other| other.key == name)),
            Content::List(_) | Content::Map(_) => false,
        };
        if !is_variable_name(&entry.key) {
            let remedy = "Names consist of letters, digits and underscores";
            reader.findings.problem(&at, "is not the name of an environment variable", remedy);
        } else if circular {
            let what = "refers to a variable that this section sets";
            reader.findings.problem(&at, what, "Write the value out, or refer to a variable of the process");
        } else if let Some(text) = reader.text(at, &entry.value) {
            variables.insert(entry.key.clone(), text.value);
        }
    }
    variables
}

/// Reads everything else.
pub(super) fn read(reader: &mut Reader<'_>, root: &Node) -> Raw {
    let top = reader.section(root, "", TOP, &[], None);
    let mut raw = Raw::default();
    if let Some((_, node)) = top.node("model_list") {
        for (index, entry) in reader.list(node, "model_list").iter().enumerate() {
            raw.models.push(model(reader, entry, &format!("model_list[{index}]")));
        }
    }
    if let Some((_, node)) = top.node("router_settings") {
        let section = reader.section(node, "router_settings", ROUTER, &[], None);
        raw.router = router::read(reader, &section);
    }
    if let Some((at, node)) = top.node("dheera_ai_settings") {
        let path = at.path.clone();
        raw.settings = settings(reader, node, &path);
    }
    if let Some((_, node)) = top.node("general_settings") {
        raw.general = general(reader, node);
    }
    raw
}

fn model(reader: &mut Reader<'_>, node: &Node, path: &str) -> RawModel {
    let entry = reader.section(node, path, MODEL_ENTRY, &[], None);
    entry.require(reader, "model_name", "Add the name by which clients call the model");
    entry.require(reader, "dheera_ai_params", "Add it with at least `model`");
    let name = entry.text(reader, "model_name");
    let mut prices = Vec::new();
    let params = entry.node("dheera_ai_params").map(|(at, node)| {
        let section = reader.section(node, &at.path, MODEL_PARAMS, PriceOverride::known_fields(), None);
        prices = section.texts(reader, PriceOverride::known_fields());
        params(reader, &section)
    });
    let mut model = RawModel { at: entry.at.clone(), name, params, id: None, base_model: None, mode: None, prices };
    if let Some((at, node)) = entry.node("model_info") {
        let info = reader.section(node, &at.path, MODEL_INFO, PriceOverride::known_fields(), Some("supports_"));
        model.id = info.text(reader, "id");
        model.base_model = info.text(reader, "base_model");
        model.mode = info.text(reader, "mode");
        for (field, text) in info.texts(reader, PriceOverride::known_fields()) {
            if model.prices.iter().any(|(other, _)| *other == field) {
                let what = "is written in the parameters of this entry too";
                reader.findings.problem(&text.at, what, "Keep the price in `model_info`");
            } else {
                model.prices.push((field, text));
            }
        }
    }
    model
}

fn params(reader: &mut Reader<'_>, section: &Section<'_>) -> RawParams {
    section.require(reader, "model", "Add it, such as `model: bedrock/us.amazon.nova-pro-v1:0`");
    RawParams {
        at: section.at.clone(),
        model: section.text(reader, "model"),
        model_id: section.text(reader, "model_id"),
        provider: section.text(reader, "custom_llm_provider"),
        region_written: section.node("aws_region_name").is_some(),
        region: section.text(reader, "aws_region_name"),
        credentials: credentials(reader, section),
        runtime_endpoint: section.text(reader, "aws_bedrock_runtime_endpoint"),
        weight: section.count(reader, "weight", 1..=1_000_000),
        rpm: section.count(reader, "rpm", 1..=1_000_000_000),
        tpm: section.count(reader, "tpm", 1..=1_000_000_000_000),
        parallel: section.count(reader, "max_parallel_requests", 1..=1_000_000),
        max_retries: section.count(reader, "max_retries", 0..=20),
        timeout: section.seconds(reader, "timeout"),
        stream_timeout: section.seconds(reader, "stream_timeout"),
        total_timeout: section.seconds(reader, "total_timeout"),
        stream_total_timeout: section.seconds(reader, "stream_total_timeout"),
    }
}

fn credentials(reader: &mut Reader<'_>, section: &Section<'_>) -> RawCredentials {
    let mut unreadable = false;
    let mut text = |name| {
        let text = section.text(reader, name);
        unreadable |= text.is_none() && section.node(name).is_some();
        text
    };
    let mut credentials = RawCredentials {
        unreadable: false,
        api_key: text("api_key"),
        access_key_id: text("aws_access_key_id"),
        secret_access_key: text("aws_secret_access_key"),
        session_token: text("aws_session_token"),
        profile: text("aws_profile_name"),
        role: text("aws_role_name"),
        session_name: text("aws_session_name"),
        external_id: text("aws_external_id"),
        web_identity_token: text("aws_web_identity_token"),
        sts_endpoint: text("aws_sts_endpoint"),
    };
    credentials.unreadable = unreadable;
    credentials
}

fn settings(reader: &mut Reader<'_>, node: &Node, path: &str) -> RawSettings {
    let section = reader.section(node, path, SETTINGS, &[], None);
    for name in ["callbacks", "success_callback", "failure_callback"] {
        callbacks(reader, &section, name);
    }
    RawSettings {
        num_retries: section.count(reader, "num_retries", 0..=20),
        request_timeout: section.seconds(reader, "request_timeout"),
        require_auth_for_metrics: section.switch(reader, "require_auth_for_metrics_endpoint"),
        failing: router::failing(reader, &section),
        global: budgets::global(reader, &section),
    }
}

/// `prometheus` is always there; any other callback would be missed by whoever asked for it.
fn callbacks(reader: &mut Reader<'_>, section: &Section<'_>, name: &str) {
    let Some((at, node)) = section.node(name) else { return };
    let at = at.clone();
    let elements = match &node.content {
        Content::Scalar { .. } if !node.is_null() => std::slice::from_ref(node),
        _ => reader.list(node, &at.path),
    };
    let mut harmless = true;
    for (index, element) in elements.iter().enumerate() {
        let element_at = reader.at(element.place, format!("{}[{index}]", at.path));
        let Some(text) = reader.text(element_at, element) else {
            harmless = false;
            continue;
        };
        if text.value.expose() != "prometheus" {
            harmless = false;
            let what = format!("{} as a callback is not supported by this version", text.at.quote(text.value.expose()));
            reader.findings.problem(&text.at, what, "Remove it: metrics are at /metrics, records in the request log");
        }
    }
    if harmless {
        reader.findings.warn(&at, "has no effect: Prometheus metrics are always at /metrics", "Remove it");
    }
}

fn general(reader: &mut Reader<'_>, node: &Node) -> RawGeneral {
    let section = reader.section(node, "general_settings", GENERAL, &[], None);
    let mut operation_prices = Vec::new();
    if let Some((at, node)) = section.node("operation_prices") {
        let path = at.path.clone();
        for entry in reader.mapping(node, &path).unwrap_or_default() {
            let at = reader.at(entry.key_place, join(&path, &entry.key.escape_debug().to_string()));
            if let Some(text) = reader.text(at, &entry.value) {
                operation_prices.push((entry.key.clone(), text));
            }
        }
    }
    RawGeneral {
        master_key_written: section.node("master_key").is_some(),
        master_key: section.text(reader, "master_key"),
        salt_key_written: section.node("salt_key").is_some(),
        salt_key: section.text(reader, "salt_key"),
        host: section.text(reader, "host"),
        port: section.count(reader, "port", 0..=65_535),
        tls: tls(reader, &section),
        workers: section.count(reader, "num_workers", 1..=1024),
        allow_unlisted_models: section.switch(reader, "allow_unlisted_models"),
        request_size_mb: section.count(reader, "max_request_size_mb", 1..=1024),
        buffered_size_mb: section.count(reader, "max_buffered_size_mb", 1..=1_048_576),
        header_size_kb: section.count(reader, "max_header_size_kb", 4..=1024),
        header_count: section.count(reader, "max_header_count", 16..=4096),
        body_timeout: section.seconds(reader, "body_timeout"),
        client_idle_timeout: section.seconds(reader, "client_idle_timeout"),
        upstream_idle_timeout: section.seconds(reader, "upstream_idle_timeout"),
        shutdown_timeout: section.seconds(reader, "shutdown_timeout"),
        shutdown_delay: section.seconds_or_zero(reader, "shutdown_delay"),
        upgrade_socket: section.text(reader, "upgrade_socket"),
        connections: section.count(reader, "max_connections", 1..=10_000_000),
        in_flight: section.count(reader, "max_in_flight_requests", 1..=10_000_000),
        queued: section.count(reader, "max_queued_requests", 0..=10_000_000),
        queue_timeout: section.seconds(reader, "admission_queue_timeout"),
        header_timeout: section.seconds(reader, "client_header_timeout"),
        client_rate: section.count(reader, "min_client_rate", 0..=1_000_000_000),
        request_log: section.text(reader, "request_log"),
        operation_prices,
        store: store::read(reader, &section),
        budgets: budgets::read(reader, &section),
    }
}

fn tls(reader: &mut Reader<'_>, section: &Section<'_>) -> RawTls {
    let certificate = section.text(reader, "ssl_certfile_path");
    let key = section.text(reader, "ssl_keyfile_path");
    let port = section.count(reader, "ssl_port", 0..=65_535);
    let read = [
        ("ssl_certfile_path", certificate.is_some()),
        ("ssl_keyfile_path", key.is_some()),
        ("ssl_port", port.is_some()),
    ];
    let unreadable = read.into_iter().any(|(name, is_read)| !is_read && section.node(name).is_some());
    RawTls { certificate, key, port, unreadable }
}

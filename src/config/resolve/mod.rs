//! Turns what was written into a [`Config`]: what is required, how values of file, environment and command line
//! combine, and what they default to.
//!
//! Every step tells its mistakes to [`Findings`] and goes on, so that one run names them all; only at the end does a
//! missing piece mean that there is no configuration. `deployment.rs` reads `model_list`, `credentials.rs` its
//! credentials, `router.rs` the routing, `store.rs` and `budgets.rs` where and how budgets are kept, `tls.rs` the certificate, `variables.rs`
//! the environment.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::load::CliOverrides;
use super::problem::{At, Findings, Located, Told, nearest};
use super::raw::router::RawRouter;
use super::raw::{Raw, RawGeneral, RawSettings};
use super::secrets::Environment;
use super::section::Text;
use super::{Access, Budgets, Config, Limits, Listen, RequestLog, defaults};
use crate::aws::operation::Metering;
use crate::aws::route;
use crate::price::book::PriceBook;
use crate::types::money::{NanoUsd, Rate, round_up};
use crate::types::secret::Secret;

mod budgets;
mod credentials;
mod deployment;
mod router;
mod store;
mod tls;
mod variables;

use variables::Variables;

/// The configuration, `None` only when a problem was told.
pub(super) fn resolve(
    raw: Raw,
    environment: &dyn Environment,
    exported: BTreeMap<String, Secret>,
    cli: &CliOverrides,
    findings: &mut Findings,
) -> Option<Config> {
    let mut variables = Variables { environment, findings };
    let Raw { models, router, mut settings, mut general } = raw;
    variables.warn_of_unused();
    let endpoints = variables.endpoints();
    let region = variables.region();
    let bearer = variables.bearer();
    let timeouts = Timeouts::new(&router, &settings);
    let direct = variables.direct(region.as_ref(), bearer.clone(), &general, &timeouts);
    let access = access(&general, &settings, cli, &mut variables);
    let store = store::store(std::mem::take(&mut general.store.redis), access.as_ref(), &mut variables);
    let budgets = budgets::budgets(
        std::mem::take(&mut general.budgets),
        std::mem::take(&mut settings.global),
        general.store.path.take(),
        access.as_ref(),
        &mut variables,
    );
    let port = port(&general, cli)?;
    let tls = tls::tls(std::mem::take(&mut general.tls), port, cli, &mut variables);
    let findings = variables.findings;
    let listen = access.as_ref().and_then(|access| listen(&general, access, port, cli, findings));
    let listen = listen.zip(tls.ok()).map(|(listen, tls)| Listen { tls, ..listen });
    let limits = limits(&general, findings);
    let request_log = request_log(general.request_log, findings);
    let operation_prices = operation_prices(general.operation_prices, findings);
    let surroundings = deployment::Surroundings { environment, region: region.as_ref(), bearer, timeouts: &timeouts };
    let deployments = deployment::all(models, &surroundings, findings);
    let router = router::router(router, settings, &deployments, findings);
    let budgets = budgets.ok();
    let upgrade_socket = upgrade_socket(general.upgrade_socket.as_ref(), budgets.as_ref(), cli);
    let listen = listen.map(|listen| Listen { upgrade_socket, ..listen });
    Some(Config {
        listen: listen?,
        access: access?,
        deployments,
        direct,
        endpoints,
        router: router?,
        limits: limits?,
        request_log: request_log?,
        price_book: PriceBook::bundled(),
        operation_prices,
        store: store.ok()?,
        budgets: budgets?,
        // What the AWS credential chain looks up by itself; everything else was followed while reading.
        environment: exported.into_iter().filter(|(name, _)| name.starts_with("AWS_")).collect(),
    })
}

/// Waits that hold where a deployment has none of its own.
struct Timeouts {
    timeout: Duration,
    stream_timeout: Duration,
    total: Option<Duration>,
    stream_total: Option<Duration>,
}

impl Timeouts {
    fn new(router: &RawRouter, settings: &RawSettings) -> Self {
        let value = |seconds: &Option<Located<Duration>>| seconds.as_ref().map(|located| located.value);
        let general = value(&router.timeout).or(value(&settings.request_timeout)).unwrap_or(defaults::TIMEOUT);
        Self {
            timeout: general,
            stream_timeout: value(&router.stream_timeout).unwrap_or(general),
            total: value(&router.total_timeout),
            stream_total: value(&router.stream_total_timeout),
        }
    }
}

const MASTER_KEY_VARIABLE: &str = "DHEERA_AI_MASTER_KEY";
const SALT_KEY_VARIABLES: [&str; 2] = ["DHEERA_AI_SALT_KEY", "LITELLM_SALT_KEY"];

/// Who may call. `None` when the master key was given but cannot be used: never the open mode by mistake.
fn access(
    general: &RawGeneral,
    settings: &RawSettings,
    cli: &CliOverrides,
    variables: &mut Variables<'_>,
) -> Option<Access> {
    if general.master_key_written && general.master_key.is_none() {
        return None;
    }
    let from_environment = variables.master_key(MASTER_KEY_VARIABLE).ok()?;
    let findings = &mut *variables.findings;
    let master_key = match (&general.master_key, from_environment) {
        (Some(written), Some(set)) if written.value != set.value => {
            let what = format!("differs from {MASTER_KEY_VARIABLE} in the environment");
            findings.problem(&written.at, what, "Set the master key in one place only");
            return None;
        }
        (Some(written), _) => Some(written.clone()),
        (None, set) => set,
    };
    if let Some(key) = &master_key {
        check_master_key(key, findings)?;
        if cli.allow_anonymous {
            let at = At::command_line("--allow-anonymous");
            findings.warn(&at, "has no effect: there is a master key", "Remove the option");
        }
    }
    let salt_key = salt_key(general, variables).ok()?;
    Some(Access {
        master_key: master_key.map(|key| key.value),
        salt_key,
        allow_anonymous: cli.allow_anonymous,
        require_auth_for_metrics: settings.require_auth_for_metrics.as_ref().is_none_or(|located| located.value),
    })
}

/// What seals the secrets of key pairs. An error when one was given that cannot be used.
fn salt_key(general: &RawGeneral, variables: &mut Variables<'_>) -> Result<Option<Secret>, Told> {
    if general.salt_key_written && general.salt_key.is_none() {
        return Err(Told);
    }
    let mut found = general.salt_key.clone();
    for name in SALT_KEY_VARIABLES {
        let set = variables.text(name);
        if let (Some(found), Some(set)) = (&found, &set)
            && found.value != set.value
        {
            let what = "differs from another salt key that is given";
            variables.findings.problem(&set.at, what, "Set the salt key in one place only");
            return Err(Told);
        }
        found = found.or(set);
    }
    let Some(key) = found else { return Ok(None) };
    if !key.value.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
        let what = "the salt key holds white space or characters other than ASCII";
        let remedy = "Copy it again without line breaks: every replica needs the very same";
        variables.findings.problem(&key.at, what, remedy);
        return Err(Told);
    }
    if key.value.expose().len() < defaults::SALT_KEY_CHARS_MIN {
        let what = format!("the salt key has fewer than {} characters", defaults::SALT_KEY_CHARS_MIN);
        let remedy = "Make one with `openssl rand -hex 32`, keep it, and give it to every replica";
        variables.findings.problem(&key.at, what, remedy);
        return Err(Told);
    }
    Ok(Some(key.value))
}

fn check_master_key(key: &Text, findings: &mut Findings) -> Option<()> {
    let text = key.value.expose();
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        let what = "the master key holds white space or characters other than ASCII, which no header can carry";
        findings.problem(&key.at, what, "Copy it again without line breaks, or make one with `openssl rand -hex 32`");
        return None;
    }
    if text.contains(['/', ',']) {
        let what = "the master key holds `/` or `,`";
        findings.warn(&key.at, what, "AWS SDKs cannot send it as an access key id: use letters, digits, `-` and `_`");
    }
    if text.len() < defaults::MASTER_KEY_CHARS_ADVISED {
        let what = format!("the master key has fewer than {} characters", defaults::MASTER_KEY_CHARS_ADVISED);
        findings.warn(&key.at, what, "It can be guessed: make one with `openssl rand -hex 32`");
    }
    Some(())
}

fn port(general: &RawGeneral, cli: &CliOverrides) -> Option<u16> {
    match (cli.port, &general.port) {
        (Some(port), _) => Some(port),
        (None, Some(port)) => u16::try_from(port.value).ok(),
        (None, None) => Some(defaults::PORT),
    }
}

/// Without what TLS adds.
fn listen(
    general: &RawGeneral,
    access: &Access,
    port: u16,
    cli: &CliOverrides,
    findings: &mut Findings,
) -> Option<Listen> {
    let written = match (&cli.host, &general.host) {
        (Some(host), _) => Some((host.as_str(), At::command_line("--host"))),
        (None, Some(host)) => Some((host.value.expose(), host.at.clone())),
        (None, None) => None,
    };
    let host = match &written {
        Some((text, at)) => host_address(text, at, findings)?,
        None if access.master_key.is_some() => defaults::HOST_GUARDED,
        None => defaults::HOST_OPEN,
    };
    if !host.to_canonical().is_loopback() && access.master_key.is_none() {
        let at = written.map_or_else(|| At::command_line("--host"), |(_, at)| at);
        let what = format!("without a master key anybody who reaches {host} can spend on your AWS account");
        if access.allow_anonymous {
            findings.warn(&at, what, format!("Set {MASTER_KEY_VARIABLE} unless that is intended"));
        } else {
            let remedy = format!("Set {MASTER_KEY_VARIABLE}, or pass --allow-anonymous if that is intended");
            findings.problem(&at, what, remedy);
            return None;
        }
    }
    let workers = match &general.workers {
        _ if cli.num_workers.is_some() => cli.num_workers?,
        Some(workers) => usize::try_from(workers.value).ok()?,
        None => defaults::workers(),
    };
    Some(Listen { host, port, tls: None, workers, upgrade: cli.upgrade, upgrade_socket: PathBuf::new() })
}

/// Beside the store unless it is said: processes that share a store are those that follow one another.
fn upgrade_socket(written: Option<&Text>, budgets: Option<&Budgets>, cli: &CliOverrides) -> PathBuf {
    let written = written.map(|text| PathBuf::from(text.value.expose()));
    cli.upgrade_socket.clone().or(written).unwrap_or_else(|| {
        let directory = budgets.map(|budgets| budgets.state_directory.clone()).unwrap_or_default();
        directory.join(defaults::UPGRADE_SOCKET)
    })
}

fn host_address(text: &str, at: &At, findings: &mut Findings) -> Option<IpAddr> {
    if text == "localhost" {
        return Some(defaults::HOST_OPEN);
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok();
    if address.is_none() {
        let what = format!("{} is not an IP address of this machine", at.quote(text));
        findings.problem(at, what, "Write `127.0.0.1`, `0.0.0.0`, `::` or another address to listen on");
    }
    address
}

fn limits(general: &RawGeneral, findings: &mut Findings) -> Option<Limits> {
    let size = |size: &Option<Located<u64>>, unit: u64, default: usize| match size {
        Some(located) => usize::try_from(located.value.checked_mul(unit)?).ok(),
        None => Some(default),
    };
    let seconds = |value: &Option<Located<Duration>>, default| value.as_ref().map_or(default, |located| located.value);
    let body_bytes_max = size(&general.request_size_mb, 1024 * 1024, defaults::BODY_BYTES_MAX)?;
    let buffered = size(&general.buffered_size_mb, 1024 * 1024, defaults::BUFFERED_BYTES_MAX)?;
    if let Some(written) = general.buffered_size_mb.as_ref().filter(|_| buffered < body_bytes_max) {
        let what = "is smaller than `max_request_size_mb`, so that a body of the largest size could never be read";
        findings.problem(&written.at, what, "Raise it to at least that size");
        return None;
    }
    Some(Limits {
        body_bytes_max,
        // A larger body that was allowed explicitly must fit, without a second key to think of.
        buffered_bytes_max: buffered.max(body_bytes_max),
        header_bytes_max: size(&general.header_size_kb, 1024, defaults::HEADER_BYTES_MAX)?,
        header_count_max: size(&general.header_count, 1, defaults::HEADER_COUNT_MAX)?,
        body_timeout: seconds(&general.body_timeout, defaults::BODY_TIMEOUT),
        client_idle_timeout: seconds(&general.client_idle_timeout, defaults::CLIENT_IDLE_TIMEOUT),
        upstream_idle_timeout: seconds(&general.upstream_idle_timeout, defaults::UPSTREAM_IDLE_TIMEOUT),
        shutdown_timeout: seconds(&general.shutdown_timeout, defaults::SHUTDOWN_TIMEOUT),
        shutdown_delay: seconds(&general.shutdown_delay, defaults::SHUTDOWN_DELAY),
        connections_max: size(&general.connections, 1, defaults::CONNECTIONS_MAX)?,
        in_flight_max: size(&general.in_flight, 1, defaults::IN_FLIGHT_MAX)?,
        queued_max: size(&general.queued, 1, defaults::QUEUED_MAX)?,
        queue_timeout: seconds(&general.queue_timeout, defaults::QUEUE_TIMEOUT),
        header_timeout: seconds(&general.header_timeout, defaults::HEADER_TIMEOUT),
        client_rate_min: general.client_rate.as_ref().map_or(defaults::CLIENT_RATE_MIN, |located| located.value),
    })
}

fn request_log(written: Option<Text>, findings: &mut Findings) -> Option<RequestLog> {
    let Some(Text { value, at }) = written else { return Some(RequestLog::Stdout) };
    match value.expose() {
        "stdout" => Some(RequestLog::Stdout),
        "off" | "false" => Some(RequestLog::Off),
        path if path.contains('/') && !path.ends_with('/') && !path.contains('\0') => {
            Some(RequestLog::File(PathBuf::from(path)))
        }
        other => {
            let what = format!("{} is neither `stdout` nor `off` nor a path of a file", at.quote(other));
            findings.problem(&at, what, "A path holds a slash: write `./requests.jsonl`");
            None
        }
    }
}

/// Dollars per call, rounded up to whole nano-dollars.
fn operation_prices(written: Vec<(String, Text)>, findings: &mut Findings) -> BTreeMap<String, NanoUsd> {
    let mut prices = BTreeMap::new();
    for (name, text) in written {
        let mut named = route::operations().iter().filter(|operation| operation.name == name).peekable();
        if named.peek().is_none() {
            let near = nearest(&name, route::operations().iter().map(|operation| operation.name));
            let remedy = match near {
                Some(near) => format!("Did you mean `{near}`?"),
                None => "Write an operation as AWS does, such as `RetrieveAndGenerate`".to_owned(),
            };
            findings.problem(&text.at, "is not an operation of Bedrock", remedy);
            continue;
        }
        if named.all(|operation| operation.metering == Metering::Free) {
            findings.warn(
                &text.at,
                "has no effect: the operation generates nothing, so its calls are free",
                "Remove it",
            );
        }
        match Rate::from_usd_per_unit(text.value.expose()) {
            Ok(rate) => {
                prices.insert(name, round_up(rate.times(1)));
            }
            Err(error) => {
                let what = format!("{} {error}", text.at.quote(text.value.expose()));
                findings.problem(&text.at, what, "Write the dollars that one call costs, such as `0.02`");
            }
        }
    }
    prices
}

fn optional_seconds(written: Option<Located<Duration>>) -> Option<Duration> {
    written.map(|located| located.value)
}

//! Where state is kept: the directory, and which Redis out of file and environment, if any.
//!
//! One server must be named in one way: of two, one would be ignored, and two replicas that keep their budgets in
//! different places spend both. What the file says comes before the environment. Nothing is connected here.

use std::path::PathBuf;
use std::time::Duration;

use super::variables::Variables;
use crate::config::problem::{At, Located, Told};
use crate::config::raw::store::{RawNode, RawRedis};
use crate::config::section::Text;
use crate::config::{Access, HostPort, Redis, RedisTopology, Store, defaults, endpoint_url, redis_url};
use crate::types::secret::Secret;

const URL_REMEDY: &str =
    "Write `redis://user:password@host:6379/0`, `rediss://` for TLS; percent-encode special characters of the password";
const NO_SQL: &str = "Remove it: keys and budgets are kept in `store_path`, or in Redis with `redis_url`";

/// The store, `None` without a master key: then there are no keys.
pub(super) fn store(
    raw: RawRedis,
    access: Option<&Access>,
    variables: &mut Variables<'_>,
) -> Result<Option<Store>, Told> {
    let guarded = access.is_none_or(|access| access.master_key.is_some());
    let named = redis(raw, guarded, variables)?;
    if guarded {
        return Ok(Some(named.map_or(Store::Embedded, |(_, redis)| Store::Redis(Box::new(redis)))));
    }
    if let Some((at, _)) = named {
        let what = "has no effect without a master key: there are no keys and budgets to keep";
        variables.findings.warn(&at, what, "Set DHEERA_AI_MASTER_KEY");
    }
    Ok(None)
}

/// The directory of the embedded store and the journal.
pub(super) fn state_directory(written: Option<Text>, variables: &mut Variables<'_>) -> Result<PathBuf, Told> {
    let written = match written {
        Some(written) => Some(written),
        None => variables.text("DHEERA_AI_STORE_PATH"),
    };
    if let Some(Text { value, at }) = written {
        let path = PathBuf::from(value.expose());
        let what = if value.expose().contains('\0') || value.expose().starts_with('~') {
            "is not the path of a directory"
        } else if path.exists() && !path.is_dir() {
            "is there, but is not a directory"
        } else {
            return Ok(path);
        };
        let what = format!("{} {what}", at.quote(value.expose()));
        variables.findings.problem(
            &at,
            what,
            "Write a directory such as `/var/lib/dheera_ai`; it is made when missing",
        );
        return Err(Told);
    }
    // systemd's `StateDirectory=` names several with colons between them; the first is ours.
    let systemd = variables
        .text("STATE_DIRECTORY")
        .and_then(|text| text.value.expose().split(':').next().filter(|first| !first.is_empty()).map(PathBuf::from));
    // The XDG specification tells to ignore a relative path.
    let absolute = |text: Text| Some(PathBuf::from(text.value.expose())).filter(|path| path.is_absolute());
    Ok(systemd
        .or_else(|| {
            variables.text("XDG_STATE_HOME").and_then(absolute).map(|home| home.join(defaults::STATE_DIRECTORY_NAME))
        })
        .or_else(|| {
            let home = variables.text("HOME").and_then(absolute)?;
            Some(home.join(".local/state").join(defaults::STATE_DIRECTORY_NAME))
        })
        .unwrap_or_else(|| PathBuf::from(defaults::STATE_DIRECTORY)))
}

/// A server as it was named, with what the way of naming says about the connection.
struct Named {
    at: At,
    topology: RedisTopology,
    tls: Option<bool>,
    username: Option<String>,
    password: Option<Secret>,
    database: Option<i64>,
    /// A URL, which says port, database and TLS by itself.
    is_url: bool,
}

impl Named {
    fn plain(at: At, topology: RedisTopology) -> Self {
        Self { at, topology, tls: None, username: None, password: None, database: None, is_url: false }
    }
}

fn redis(raw: RawRedis, guarded: bool, variables: &mut Variables<'_>) -> Result<Option<(At, Redis)>, Told> {
    one_way(&raw, variables)?;
    let named = match in_file(&raw, variables)? {
        Some(named) => named,
        None if raw.unreadable => return Err(Told),
        None => match in_environment(raw.port.as_ref(), guarded, variables)? {
            Some(named) => named,
            None => return without_server(&raw, variables).map(|()| None),
        },
    };
    if named.is_url {
        let said = [
            ("redis_port", raw.port.as_ref().map(|port| &port.at)),
            ("redis_db", raw.database.as_ref().map(|database| &database.at)),
            ("redis_ssl", raw.tls.as_ref().map(|tls| &tls.at)),
            ("redis_username", raw.username.as_ref().map(|name| &name.at).filter(|_| named.username.is_some())),
            ("redis_password", raw.password.as_ref().map(|word| &word.at).filter(|_| named.password.is_some())),
        ];
        let beside: Vec<&At> = said.iter().filter_map(|(_, at)| *at).collect();
        for at in &beside {
            let what = format!("stands beside the URL of {}, which says it too", place(&named.at));
            variables.findings.problem(at, what, "Keep it in the URL only");
        }
        if !beside.is_empty() {
            return Err(Told);
        }
    }
    let (username, password) = credentials(&raw, &named, variables)?;
    let tls = raw.tls.as_ref().map(|tls| tls.value).or(named.tls).unwrap_or_default();
    let database = named.database.or(raw.database.as_ref().and_then(|database| i64::try_from(database.value).ok()));
    if matches!(named.topology, RedisTopology::Cluster(_)) && database.unwrap_or_default() != 0 {
        let at = raw.database.as_ref().map_or(&named.at, |database| &database.at);
        variables.findings.problem(at, "a cluster has the database 0 only", "Remove it");
        return Err(Told);
    }
    let redis = Redis {
        topology: named.topology,
        tls,
        ca_file: ca_file(raw.ca_file, tls, variables)?,
        username,
        password,
        database: database.unwrap_or_default(),
        namespace: namespace(raw.namespace, variables)?,
        connect_timeout: seconds(raw.connect_timeout, defaults::REDIS_CONNECT_TIMEOUT),
        timeout: seconds(raw.timeout, defaults::REDIS_TIMEOUT),
    };
    Ok(Some((named.at, redis)))
}

fn seconds(written: Option<Located<Duration>>, default: Duration) -> Duration {
    written.map_or(default, |located| located.value)
}

/// `general_settings.redis_url` or the environment variable, for a text about another key.
fn place(at: &At) -> String {
    if at.path.is_empty() { at.origin.to_string() } else { format!("`{}`", at.path) }
}

/// Tells a problem for each second way of naming the server.
fn one_way(raw: &RawRedis, variables: &mut Variables<'_>) -> Result<(), Told> {
    let ways = [
        raw.url.as_ref().map(|text| &text.at),
        raw.database_url.as_ref().map(|text| &text.at),
        raw.host.as_ref().map(|text| &text.at),
        raw.startup_nodes.as_ref().map(|nodes| &nodes.at),
        raw.sentinel_nodes.as_ref().map(|nodes| &nodes.at),
    ];
    let mut ways: Vec<&At> = ways.into_iter().flatten().collect();
    ways.sort_by(|left, right| left.origin.cmp(&right.origin));
    let mut told = Ok(());
    if let [first, others @ ..] = ways.as_slice() {
        for other in others {
            let what = format!("names Redis a second time, after {}", place(first));
            variables.findings.problem(other, what, "Keep one of the two");
            told = Err(Told);
        }
    }
    let not_alone = [
        (
            raw.port.as_ref().map(|port| &port.at),
            raw.host.is_none() && (raw.startup_nodes.is_some() || raw.sentinel_nodes.is_some()),
            "redis_host",
        ),
        (raw.service_name.as_ref().map(|name| &name.at), raw.sentinel_nodes.is_none(), "redis_sentinel_nodes"),
    ];
    for (at, alone, partner) in not_alone {
        if let Some(at) = at.filter(|_| alone && !raw.unreadable) {
            variables.findings.problem(at, format!("has no effect without `{partner}`"), format!("Add `{partner}`"));
            told = Err(Told);
        }
    }
    told
}

fn in_file(raw: &RawRedis, variables: &mut Variables<'_>) -> Result<Option<Named>, Told> {
    if let Some(text) = &raw.url {
        return url(text, URL_REMEDY, variables).map(Some);
    }
    if let Some(text) = &raw.database_url {
        if !redis_url::is_redis(text.value.expose()) {
            variables.findings.problem(&text.at, "is not the URL of a Redis server: no SQL database is used", NO_SQL);
            return Err(Told);
        }
        return url(text, URL_REMEDY, variables).map(Some);
    }
    if let Some(host) = &raw.host {
        let server = server(host, raw.port.as_ref(), defaults::REDIS_PORT, variables)?;
        return Ok(Some(Named::plain(host.at.clone(), RedisTopology::Single(server))));
    }
    if let Some(nodes) = &raw.startup_nodes {
        let nodes_read = servers(&nodes.value, defaults::REDIS_PORT, variables)?;
        return Ok(Some(Named::plain(nodes.at.clone(), RedisTopology::Cluster(nodes_read))));
    }
    let Some(nodes) = &raw.sentinel_nodes else { return Ok(None) };
    let sentinels = servers(&nodes.value, defaults::SENTINEL_PORT, variables)?;
    let Some(name) = &raw.service_name else {
        if !raw.unreadable {
            let remedy = "Add `redis_service_name`, the name of the master in the sentinels' configuration";
            variables.findings.problem(&nodes.at, "stands without `redis_service_name`", remedy);
        }
        return Err(Told);
    };
    let master_name = name.value.expose().to_owned();
    Ok(Some(Named::plain(nodes.at.clone(), RedisTopology::Sentinel { sentinels, master_name })))
}

/// `REDIS_URL`, then `REDIS_HOST`, then `DATABASE_URL`.
fn in_environment(
    port_in_file: Option<&Located<u64>>,
    guarded: bool,
    variables: &mut Variables<'_>,
) -> Result<Option<Named>, Told> {
    if let Some(text) = variables.text("REDIS_URL") {
        return url(&text, URL_REMEDY, variables).map(Some);
    }
    if let Some(host) = variables.text("REDIS_HOST") {
        let port = match (port_in_file, variables.text("REDIS_PORT")) {
            (Some(port), _) => Some(port.clone()),
            (None, Some(text)) => Some(port(&text, variables)?),
            (None, None) => None,
        };
        let server = server(&host, port.as_ref(), defaults::REDIS_PORT, variables)?;
        let mut named = Named::plain(host.at, RedisTopology::Single(server));
        named.tls = variables.text("REDIS_SSL").is_some().then(|| variables.switch("REDIS_SSL"));
        return Ok(Some(named));
    }
    let Some(text) = variables.text("DATABASE_URL") else { return Ok(None) };
    if redis_url::is_redis(text.value.expose()) {
        return url(&text, URL_REMEDY, variables).map(Some);
    }
    if guarded {
        let remedy = "Unset it: keys and budgets are kept in `store_path`, or in Redis with REDIS_URL";
        variables.findings.problem(&text.at, "is not the URL of a Redis server: no SQL database is used", remedy);
        return Err(Told);
    }
    variables.findings.warn(&text.at, "is not used without a master key", "Set DHEERA_AI_MASTER_KEY or unset it");
    Ok(None)
}

fn port(text: &Text, variables: &mut Variables<'_>) -> Result<Located<u64>, Told> {
    match text.value.expose().trim().parse::<u16>() {
        Ok(port) if port != 0 => Ok(Located { value: port.into(), at: text.at.clone() }),
        _ => {
            // Kubernetes sets `REDIS_PORT=tcp://…` in every pod beside a service called redis.
            let remedy =
                "Set it to a number; where Kubernetes sets it, write `redis_host` and `redis_port` into the file";
            variables.findings.problem(&text.at, "is not a port from 1 to 65535", remedy);
            Err(Told)
        }
    }
}

/// Keys about a server that nobody named: falling back to a store of this process alone would split the budgets.
fn without_server(raw: &RawRedis, variables: &mut Variables<'_>) -> Result<(), Told> {
    let keys = [
        raw.port.as_ref().map(|located| &located.at),
        raw.username.as_ref().map(|text| &text.at),
        raw.password.as_ref().map(|text| &text.at),
        raw.database.as_ref().map(|located| &located.at),
        raw.tls.as_ref().filter(|tls| tls.value).map(|located| &located.at),
        raw.ca_file.as_ref().map(|text| &text.at),
    ];
    match keys.into_iter().flatten().next() {
        Some(at) => {
            let remedy = "Add `redis_url` or `redis_host`, set REDIS_URL, or remove it";
            variables.findings.problem(at, "has no effect: no Redis server is named", remedy);
            Err(Told)
        }
        None => Ok(()),
    }
}

fn url(text: &Text, remedy: &'static str, variables: &mut Variables<'_>) -> Result<Named, Told> {
    match redis_url::parse(text.value.expose()) {
        Ok(url) => Ok(Named {
            at: text.at.clone(),
            topology: RedisTopology::Single(url.server),
            tls: Some(url.tls),
            username: url.username,
            password: url.password,
            database: url.database,
            is_url: true,
        }),
        Err(what) => {
            variables.findings.problem(&text.at, what, remedy);
            Err(Told)
        }
    }
}

fn servers(nodes: &[RawNode], default_port: u16, variables: &mut Variables<'_>) -> Result<Vec<HostPort>, Told> {
    let read: Vec<_> =
        nodes.iter().map(|node| server(&node.host, node.port.as_ref(), default_port, variables)).collect();
    read.into_iter().collect()
}

fn server(
    host: &Text,
    port: Option<&Located<u64>>,
    default_port: u16,
    variables: &mut Variables<'_>,
) -> Result<HostPort, Told> {
    let text = host.value.expose().trim();
    let what = match endpoint_url::server(text, 0) {
        Ok(server) if server.port != 0 && port.is_some() => "has a port too",
        Ok(server) => {
            let port = port.and_then(|port| u16::try_from(port.value).ok());
            let default_port = if server.port == 0 { default_port } else { server.port };
            return Ok(HostPort { host: server.host, port: port.unwrap_or(default_port) });
        }
        // A URL here is a common mistake, and may hold a password.
        Err(_) if text.contains("://") => "holds a URL",
        Err(what) => what,
    };
    variables.findings.problem(&host.at, what, "Write the name or address of the server here, its port beside it");
    Err(Told)
}

fn credentials(
    raw: &RawRedis,
    named: &Named,
    variables: &mut Variables<'_>,
) -> Result<(Option<String>, Option<Secret>), Told> {
    let text = |text: &Option<Text>| text.as_ref().map(|text| text.value.clone());
    let username = named
        .username
        .clone()
        .or_else(|| text(&raw.username).map(|name| name.expose().to_owned()))
        .or_else(|| variables.text("REDIS_USERNAME").map(|name| name.value.expose().to_owned()));
    let password = named
        .password
        .clone()
        .or_else(|| text(&raw.password))
        .or_else(|| variables.text("REDIS_PASSWORD").map(|password| password.value));
    if username.is_some() && password.is_none() {
        let at = raw.username.as_ref().map_or(&named.at, |name| &name.at);
        variables.findings.problem(at, "names a user without a password", "Add `redis_password` or set REDIS_PASSWORD");
        return Err(Told);
    }
    Ok((username, password))
}

fn ca_file(written: Option<Text>, tls: bool, variables: &mut Variables<'_>) -> Result<Option<PathBuf>, Told> {
    let Some(Text { value, at }) = written else { return Ok(None) };
    let path = PathBuf::from(value.expose());
    if !tls {
        let remedy = "Write `rediss://` or `redis_ssl: true`, or remove it";
        variables.findings.problem(&at, "has no effect: the connection has no TLS", remedy);
        return Err(Told);
    }
    if !path.is_file() {
        variables.findings.problem(&at, "names no file", "Write the path of a file of PEM certificates");
        return Err(Told);
    }
    Ok(Some(path))
}

fn namespace(written: Option<Text>, variables: &mut Variables<'_>) -> Result<String, Told> {
    let Some(Text { value, at }) = written else { return Ok(defaults::REDIS_NAMESPACE.to_owned()) };
    let text = value.expose();
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte));
    if plain && (1..=64).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    let what = format!("{} is not a plain word of at most 64 characters", at.quote(text));
    variables.findings.problem(&at, what, "Use letters, digits, `-`, `_`, `.` and `:`");
    Err(Told)
}

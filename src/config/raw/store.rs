//! The keys of `general_settings` that say where state is kept: the directory and Redis.
//!
//! Values as written. Which combinations make sense is decided in `resolve/store.rs`.

use super::{Number, Seconds, Switch};
use crate::config::known_keys::REDIS_NODE;
use crate::config::problem::{At, Located};
use crate::config::section::{Reader, Section, Text};
use crate::yaml::{Content, Node};

#[derive(Default)]
pub(in crate::config) struct RawStore {
    pub(in crate::config) path: Option<Text>,
    pub(in crate::config) redis: RawRedis,
}

#[derive(Default)]
pub(in crate::config) struct RawRedis {
    pub(in crate::config) url: Option<Text>,
    pub(in crate::config) database_url: Option<Text>,
    pub(in crate::config) host: Option<Text>,
    pub(in crate::config) port: Number,
    pub(in crate::config) startup_nodes: Option<Located<Vec<RawNode>>>,
    pub(in crate::config) sentinel_nodes: Option<Located<Vec<RawNode>>>,
    /// A key that names a server and could not be read, so that nobody else need complain that there is none.
    pub(in crate::config) unreadable: bool,
    pub(in crate::config) service_name: Option<Text>,
    pub(in crate::config) username: Option<Text>,
    pub(in crate::config) password: Option<Text>,
    pub(in crate::config) database: Number,
    pub(in crate::config) tls: Switch,
    pub(in crate::config) ca_file: Option<Text>,
    pub(in crate::config) namespace: Option<Text>,
    pub(in crate::config) connect_timeout: Seconds,
    pub(in crate::config) timeout: Seconds,
}

/// A server of a cluster, or a sentinel.
pub(in crate::config) struct RawNode {
    /// A host, or `host:port`.
    pub(in crate::config) host: Text,
    pub(in crate::config) port: Number,
}

/// The largest number that Redis's `databases` is ever set to in practice, with room.
const DATABASE_MAX: u64 = 65_535;

pub(super) fn read(reader: &mut Reader<'_>, section: &Section<'_>) -> RawStore {
    let mut unreadable = false;
    let mut text = |reader: &mut Reader<'_>, name| {
        let text = section.text(reader, name);
        unreadable |= text.is_none() && section.node(name).is_some();
        text
    };
    let (url, database_url) = (text(reader, "redis_url"), text(reader, "database_url"));
    let (host, service_name) = (text(reader, "redis_host"), text(reader, "redis_service_name"));
    let startup_nodes = nodes(reader, section, "redis_startup_nodes");
    let sentinel_nodes = nodes(reader, section, "redis_sentinel_nodes");
    unreadable |= startup_nodes.is_none() && section.node("redis_startup_nodes").is_some();
    unreadable |= sentinel_nodes.is_none() && section.node("redis_sentinel_nodes").is_some();
    let redis = RawRedis {
        url,
        database_url,
        host,
        port: section.count(reader, "redis_port", 1..=65_535),
        startup_nodes,
        sentinel_nodes,
        unreadable,
        service_name,
        username: section.text(reader, "redis_username"),
        password: section.text(reader, "redis_password"),
        database: section.count(reader, "redis_db", 0..=DATABASE_MAX),
        tls: section.switch(reader, "redis_ssl"),
        ca_file: section.text(reader, "redis_ca_file"),
        namespace: section.text(reader, "redis_namespace"),
        connect_timeout: section.seconds(reader, "redis_connect_timeout"),
        timeout: section.seconds(reader, "redis_timeout"),
    };
    RawStore { path: section.text(reader, "store_path"), redis }
}

/// Servers in any of the forms that are in use: `{host: a, port: 1}`, `[a, 1]`, `a:1`. `None` when one cannot be read.
fn nodes(reader: &mut Reader<'_>, section: &Section<'_>, name: &str) -> Option<Located<Vec<RawNode>>> {
    let (at, list) = section.node(name)?;
    let at = at.clone();
    let elements = reader.list(list, &at.path);
    if elements.is_empty() && matches!(list.content, Content::List(_) | Content::Scalar { .. }) {
        if list.is_null() || matches!(list.content, Content::List(_)) {
            reader.findings.problem(&at, "names no server", "Write `- {host: <name>, port: <number>}` or remove it");
        }
        return None;
    }
    let nodes: Option<Vec<RawNode>> =
        elements.iter().enumerate().map(|(index, element)| node(reader, element, &at, index)).collect();
    nodes.filter(|nodes| !nodes.is_empty()).map(|value| Located { value, at })
}

fn node(reader: &mut Reader<'_>, element: &Node, list: &At, index: usize) -> Option<RawNode> {
    let path = format!("{}[{index}]", list.path);
    let at = reader.at(element.place, path.clone());
    match &element.content {
        Content::Map(_) => {
            let section = reader.section(element, &path, REDIS_NODE, &[], None);
            section.require(reader, "host", "Add the name or address of the server");
            let host = section.text(reader, "host");
            let port = section.count(reader, "port", 1..=65_535);
            if port.is_none() && section.node("port").is_some() {
                return None;
            }
            host.map(|host| RawNode { host, port })
        }
        Content::List(pair) => {
            let [host, port] = pair.as_slice() else {
                reader.findings.problem(&at, "is not a host and a port", "Write `[<host>, <port>]`");
                return None;
            };
            let host = reader.text(at.clone(), host);
            let port = reader.text(at, port).and_then(|text| reader.count(&text, 1..=65_535));
            Some(RawNode { host: host?, port: Some(port?) })
        }
        Content::Scalar { .. } => reader.text(at, element).map(|host| RawNode { host, port: None }),
    }
}

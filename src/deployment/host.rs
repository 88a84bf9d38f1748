//! A server that answers for AWS: its name, and the addresses that the system's resolver gives for it.
//!
//! Names are resolved in the background and refreshed, because Pingora's own way blocks a worker thread and panics on
//! a name that does not resolve. A name that stops resolving keeps its last addresses: stale beats unreachable.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Mutex;

use crate::config::Endpoint;

/// How often addresses are looked up again: AWS's records live for 5 to 60 seconds.
const REFRESH: Duration = Duration::from_secs(30);

/// How long one look-up may take before the resolver counts as broken.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// One scheme, name and port, with its current addresses.
#[derive(Debug)]
pub struct Host {
    pub endpoint: Endpoint,
    /// The `Host` header: the port only where it is not the scheme's own.
    pub authority: String,
    addresses: ArcSwap<Vec<SocketAddr>>,
    turn: AtomicUsize,
    looking: Mutex<()>,
}

/// Why there is no address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unresolved {
    pub name: String,
    pub detail: String,
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the name {} does not resolve: {}; check DNS and the region's name", self.name, self.detail)
    }
}

impl std::error::Error for Unresolved {}

impl Host {
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        let literal = endpoint.host.parse::<IpAddr>().ok();
        let name = match literal {
            Some(IpAddr::V6(address)) => format!("[{address}]"),
            _ => endpoint.host.clone(),
        };
        let default_port = if endpoint.tls { 443 } else { 80 };
        let authority = if endpoint.port == default_port { name } else { format!("{name}:{}", endpoint.port) };
        let known = literal.map(|address| SocketAddr::new(address, endpoint.port)).into_iter().collect();
        Self {
            endpoint,
            authority,
            addresses: ArcSwap::from_pointee(known),
            turn: AtomicUsize::new(0),
            looking: Mutex::new(()),
        }
    }

    /// The next address in turn; looks the name up when there is none yet.
    ///
    /// # Errors
    /// When the name does not resolve.
    pub async fn address(&self) -> Result<SocketAddr, Unresolved> {
        if let Some(address) = self.next_known() {
            return Ok(address);
        }
        let _one_lookup_at_a_time = self.looking.lock().await;
        if let Some(address) = self.next_known() {
            return Ok(address);
        }
        self.look_up().await?;
        self.next_known().ok_or_else(|| self.unresolved("no address"))
    }

    fn next_known(&self) -> Option<SocketAddr> {
        let known = self.addresses.load();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        known.get(turn.checked_rem(known.len())?).copied()
    }

    fn is_literal(&self) -> bool {
        self.endpoint.host.parse::<IpAddr>().is_ok()
    }

    async fn look_up(&self) -> Result<(), Unresolved> {
        let lookup = tokio::net::lookup_host((self.endpoint.host.as_str(), self.endpoint.port));
        let mut found: Vec<SocketAddr> = match tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await {
            Ok(Ok(addresses)) => addresses.collect(),
            Ok(Err(error)) => return Err(self.unresolved(&error.to_string())),
            Err(_elapsed) => return Err(self.unresolved("no answer of the resolver within 5 s")),
        };
        // Where a name has both families, IPv4 is used: Bedrock's default endpoints have no other, and a host without
        // a route for IPv6 would lose every second connection.
        if found.iter().any(SocketAddr::is_ipv4) {
            found.retain(SocketAddr::is_ipv4);
        }
        found.sort_unstable();
        found.dedup();
        if found.is_empty() {
            return Err(self.unresolved("no address"));
        }
        if **self.addresses.load() != found {
            self.addresses.store(Arc::new(found));
        }
        Ok(())
    }

    fn unresolved(&self, detail: &str) -> Unresolved {
        Unresolved { name: self.endpoint.host.clone(), detail: detail.to_owned() }
    }
}

/// Keeps the addresses of `hosts` fresh until the task is dropped. Names are looked up one after the other.
pub async fn refresh(hosts: Vec<Arc<Host>>) {
    let mut interval = tokio::time::interval(REFRESH);
    loop {
        interval.tick().await;
        for host in hosts.iter().filter(|host| !host.is_literal()) {
            if let Err(error) = host.look_up().await {
                tracing::warn!(host = %host.endpoint.host, "{error}; the last addresses stay in use");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(tls: bool, host: &str, port: u16) -> Endpoint {
        Endpoint { tls, host: host.to_owned(), port, path_prefix: String::new() }
    }

    #[test]
    fn the_authority_names_the_port_only_where_it_is_unusual() {
        for (tls, host, port, authority) in [
            (true, "bedrock-runtime.us-east-1.amazonaws.com", 443, "bedrock-runtime.us-east-1.amazonaws.com"),
            (true, "localhost", 8443, "localhost:8443"),
            (false, "127.0.0.1", 80, "127.0.0.1"),
            (false, "::1", 9000, "[::1]:9000"),
        ] {
            assert_eq!(Host::new(endpoint(tls, host, port)).authority, authority);
        }
    }

    #[tokio::test]
    async fn an_address_literal_needs_no_lookup() {
        let host = Host::new(endpoint(false, "127.0.0.1", 4001));
        assert_eq!(host.address().await, Ok(SocketAddr::from(([127, 0, 0, 1], 4001))));
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_says_so_with_a_remedy() {
        let host = Host::new(endpoint(true, "no-such-host.invalid", 443));
        let error = host.address().await.unwrap_err().to_string();
        assert!(error.contains("no-such-host.invalid") && error.contains("check DNS"), "{error}");
    }
}

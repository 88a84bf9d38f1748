//! A server that answers for AWS: its name, the addresses that the system's resolver gives for it, and which of them are
//! to be used.
//!
//! Names are resolved in the background and refreshed, because Pingora's own way blocks a worker thread and panics on
//! a name that does not resolve. A name that stops resolving keeps its last addresses: stale beats unreachable. Who
//! checks the addresses lives in `app::addresses`; what its findings mean is decided in `address`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::Mutex;

use super::address::{self, Address, Failure};
use super::live::Health;
use crate::config::Endpoint;

pub use super::address::ConnectFailure;

/// How often addresses should be looked up again: AWS's records live for 5 to 60 seconds.
pub const REFRESH: Duration = Duration::from_secs(30);

/// How long one look-up may take before the resolver counts as broken.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a failed look-up answers for the next: requests that wait for a broken resolver would wait in a row.
const FAILURE_HOLDS: Duration = Duration::from_secs(1);

/// One scheme, name and port, with its current addresses.
#[derive(Debug)]
pub struct Host {
    pub endpoint: Endpoint,
    /// The `Host` header: the port only where it is not the scheme's own.
    pub authority: String,
    /// Whether it can be reached, as requests find it.
    pub health: Health,
    addresses: ArcSwap<Vec<Arc<Address>>>,
    turn: AtomicUsize,
    /// Whether a deployment names it, or a request went there.
    used: AtomicBool,
    looking: Mutex<()>,
    /// Of the last look-up, when it failed.
    name_failure: std::sync::Mutex<Option<Failure>>,
    made: Instant,
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

/// The state of a host, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub addresses: Vec<AddressReport>,
    /// Why the last look-up of the name failed; its last addresses stay in use.
    pub name_failure: Option<PastFailure>,
}

/// The state of one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressReport {
    pub address: SocketAddr,
    /// Whether it passes its health check; always when there is none.
    pub usable: bool,
    /// Whether it is left out for a few seconds because a connection failed.
    pub passed_over: bool,
    /// The last failure of a check or a connection, though it may have been mended since.
    pub last_failure: Option<PastFailure>,
    /// Since the last check.
    pub checked_ago: Option<Duration>,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastFailure {
    pub kind: ConnectFailure,
    pub detail: String,
    pub ago: Duration,
}

impl Report {
    /// How many addresses pass their check.
    #[must_use]
    pub fn usable(&self) -> usize {
        self.addresses.iter().filter(|address| address.usable).count()
    }

    /// Whether there is an address that passes its check. Without one all are used all the same.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.usable() > 0
    }
}

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
        let known: Vec<_> = literal.map(|address| SocketAddr::new(address, endpoint.port)).into_iter().collect();
        Self {
            endpoint,
            authority,
            health: Health::default(),
            addresses: ArcSwap::from_pointee(address::renewed(&[], &known)),
            turn: AtomicUsize::new(0),
            used: AtomicBool::new(false),
            looking: Mutex::new(()),
            name_failure: std::sync::Mutex::new(None),
            made: Instant::now(),
        }
    }

    /// The next address in turn, of those that can be used; looks the name up when there is none yet.
    ///
    /// # Errors
    /// When the name does not resolve.
    pub async fn address(&self) -> Result<SocketAddr, Unresolved> {
        self.mark_used();
        if let Some(address) = self.next_known() {
            return Ok(address);
        }
        let _one_lookup_at_a_time = self.looking.lock().await;
        if let Some(address) = self.next_known() {
            return Ok(address);
        }
        if let Some(failure) = self.name_failure().as_ref()
            && self.now().saturating_sub(failure.at) < FAILURE_HOLDS
        {
            return Err(self.unresolved(&failure.detail));
        }
        self.look_up().await?;
        self.next_known().ok_or_else(|| self.unresolved(NO_ADDRESS))
    }

    /// Looks the name up and takes over what it finds.
    ///
    /// # Errors
    /// When the name does not resolve; the last addresses stay.
    pub async fn refresh(&self) -> Result<Vec<SocketAddr>, Unresolved> {
        if !self.is_literal() {
            let _one_lookup_at_a_time = self.looking.lock().await;
            self.look_up().await?;
        }
        Ok(self.addresses.load().iter().map(|address| address.socket).collect())
    }

    /// Says that requests may go here, so that it is worth checking. A request that asks for an address says so, too.
    pub fn mark_used(&self) {
        if !self.is_used() {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    #[must_use]
    pub fn is_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// A connection to `address` could not be made: others come first for a while.
    pub fn failed(&self, address: SocketAddr, kind: ConnectFailure, detail: String) {
        self.with(address, |known| known.failed(Failure { kind, detail, at: self.now() }));
    }

    /// A health check of `address` found it well: it is usable again.
    pub fn passed_check(&self, address: SocketAddr) {
        self.with(address, |known| known.passed(self.now()));
    }

    /// A health check of `address` failed: others come first for a while.
    pub fn failed_check(&self, address: SocketAddr, kind: ConnectFailure, detail: String) {
        self.with(address, |known| known.failed_check(Failure { kind, detail, at: self.now() }));
    }

    /// `address` has failed so many checks that it is not used until it passes one, as long as there is another.
    pub fn take_out(&self, address: SocketAddr) {
        self.with(address, Address::take_out);
    }

    /// The addresses as they are now.
    #[must_use]
    pub fn report(&self) -> Report {
        let now = self.now();
        let past = |failure: &Failure| PastFailure {
            kind: failure.kind,
            detail: failure.detail.clone(),
            ago: now.saturating_sub(failure.at),
        };
        let addresses = self.addresses.load();
        let addresses = addresses.iter().map(|address| {
            let seen = address.seen();
            AddressReport {
                address: address.socket,
                usable: address.is_usable(),
                passed_over: address.is_passed_over(now),
                last_failure: seen.last_failure.as_ref().map(past),
                checked_ago: seen.checked.map(|at| now.saturating_sub(at)),
            }
        });
        Report { addresses: addresses.collect(), name_failure: self.name_failure().as_ref().map(past) }
    }

    fn next_known(&self) -> Option<SocketAddr> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        address::next(&self.addresses.load(), turn, self.now())
    }

    fn with(&self, socket: SocketAddr, tell: impl FnOnce(&Address)) {
        if let Some(address) = self.addresses.load().iter().find(|address| address.socket == socket) {
            tell(address);
        }
    }

    fn is_literal(&self) -> bool {
        self.endpoint.host.parse::<IpAddr>().is_ok()
    }

    /// Since the host was made: the clock of its addresses.
    fn now(&self) -> Duration {
        self.made.elapsed()
    }

    async fn look_up(&self) -> Result<(), Unresolved> {
        match found(&self.endpoint).await {
            Ok(found) => {
                let known = self.addresses.load();
                if !known.iter().map(|address| address.socket).eq(found.iter().copied()) {
                    self.addresses.store(Arc::new(address::renewed(&known, &found)));
                }
                *self.name_failure() = None;
                Ok(())
            }
            Err(detail) => {
                let unresolved = self.unresolved(&detail);
                *self.name_failure() = Some(Failure { kind: ConnectFailure::Name, detail, at: self.now() });
                Err(unresolved)
            }
        }
    }

    fn name_failure(&self) -> MutexGuard<'_, Option<Failure>> {
        self.name_failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unresolved(&self, detail: &str) -> Unresolved {
        Unresolved { name: self.endpoint.host.clone(), detail: detail.to_owned() }
    }
}

const NO_ADDRESS: &str = "no address";

/// The addresses of a name, sorted, or why there is none.
async fn found(endpoint: &Endpoint) -> Result<Vec<SocketAddr>, String> {
    let lookup = tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port));
    let mut found: Vec<SocketAddr> = match tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_elapsed) => return Err("no answer of the resolver within 5 s".to_owned()),
    };
    // Where a name has both families, IPv4 is used: Bedrock's default endpoints have no other, and a host without
    // a route for IPv6 would lose every second connection.
    if found.iter().any(SocketAddr::is_ipv4) {
        found.retain(SocketAddr::is_ipv4);
    }
    found.sort_unstable();
    found.dedup();
    if found.is_empty() { Err(NO_ADDRESS.to_owned()) } else { Ok(found) }
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

    #[tokio::test]
    async fn a_name_that_does_not_resolve_stands_in_the_report() {
        let host = Host::new(endpoint(true, "no-such-host.invalid", 443));
        assert_eq!(host.report(), Report { addresses: Vec::new(), name_failure: None });
        host.refresh().await.unwrap_err();
        let report = host.report();
        let failure = report.name_failure.as_ref().unwrap();
        assert_eq!((failure.kind, report.is_healthy()), (ConnectFailure::Name, false));
        let known = failure.detail.clone();
        assert!(
            host.address().await.unwrap_err().to_string().contains(&known),
            "the failure is told, not sought again"
        );
    }

    #[tokio::test]
    async fn what_is_told_of_an_address_stands_in_the_report() {
        let host = Host::new(endpoint(false, "127.0.0.1", 4001));
        let socket = host.refresh().await.unwrap()[0];
        let well = host.report();
        assert_eq!((well.is_healthy(), &well.addresses[0].last_failure), (true, &None));
        host.failed(socket, ConnectFailure::TimedOut, "slow".to_owned());
        assert!(host.report().addresses[0].passed_over && host.report().is_healthy());
        host.failed_check(socket, ConnectFailure::Refused, "refused".to_owned());
        host.take_out(socket);
        let ill = host.report();
        let last = ill.addresses[0].last_failure.as_ref().unwrap();
        assert_eq!((last.kind, last.detail.as_str(), ill.is_healthy()), (ConnectFailure::Refused, "refused", false));
        assert_eq!(host.address().await, Ok(socket), "there is no other");
        host.passed_check(socket);
        let well = host.report();
        assert!(well.is_healthy() && !well.addresses[0].passed_over && well.addresses[0].checked_ago.is_some());
    }

    #[tokio::test]
    async fn a_host_is_used_once_a_request_asked_for_its_address() {
        let host = Host::new(endpoint(false, "127.0.0.1", 4001));
        assert!(!host.is_used());
        host.address().await.unwrap();
        assert!(host.is_used());
    }
}

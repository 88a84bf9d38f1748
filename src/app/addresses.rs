//! Keeps the addresses of the upstream hosts: looks their names up, and connects to each address now and then to see
//! whether it answers.
//!
//! Pingora's `LoadBalancer` runs both, one for each host; a host learns here what was found and decides by itself
//! (`deployment::host`). The check is a connection as requests make it, with TLS, SNI and the certificate's check, and
//! nothing is sent over it, so AWS charges nothing. It is not Pingora's `TcpHealthCheck`, because each of those reads the
//! system's certificates twice: 1 MB of memory a host and most of a second at the start, measured with 20 hosts.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::connectors::{ConnectorOptions, TransportConnector};
use pingora_core::protocols::l4::socket::SocketAddr as PeerAddress;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use pingora_load_balancing::discovery::ServiceDiscovery;
use pingora_load_balancing::health_check::HealthCheck;
use pingora_load_balancing::selection::RoundRobin;
use pingora_load_balancing::{Backend, Backends, Extensions, LoadBalancer};
use tokio::task::{AbortHandle, JoinSet};

use crate::deployment::host::{ConnectFailure, Host, REFRESH};
use crate::proxy::connect_failure;
use crate::telemetry::metrics::Metrics;

/// How many checks in a row an address has to fail before it is out; one that it passes brings it back.
const FAILED_CHECKS: usize = 2;

/// How soon hosts that came or went are seen.
const HOSTS_SEEN: Duration = Duration::from_secs(1);

/// Replicas that start together check further and further apart: each host has a period of its own, longer or shorter
/// than the configured one by up to this part of it.
const JITTER: f64 = 0.1;

/// How addresses are checked.
pub(super) struct Checks {
    /// Zero means that no address is checked.
    pub interval: Duration,
    pub connect_timeout: Duration,
    /// The certificates to trust, as requests do.
    pub connector: ConnectorOptions,
}

/// The hosts of the moment.
pub(super) type Hosts = Box<dyn Fn() -> Vec<Arc<Host>> + Send + Sync>;

/// The service that keeps the addresses of `hosts`, which may come and go.
pub(super) struct UpstreamAddresses {
    hosts: Hosts,
    interval: Duration,
    connect_timeout: Duration,
    connector: Arc<TransportConnector>,
    metrics: Arc<Metrics>,
}

impl UpstreamAddresses {
    pub(super) fn new(hosts: Hosts, checks: Checks, metrics: Arc<Metrics>) -> Self {
        let Checks { interval, connect_timeout, connector } = checks;
        let connector = Arc::new(TransportConnector::new(Some(connector)));
        Self { hosts, interval, connect_timeout, connector, metrics }
    }

    /// Pingora's view of one host.
    fn balancer(&self, host: &Arc<Host>) -> LoadBalancer<RoundRobin> {
        let watch = Watch { host: Arc::clone(host), metrics: Arc::clone(&self.metrics) };
        let mut backends = Backends::new(Box::new(watch.clone()));
        let checked = !self.interval.is_zero();
        if checked {
            backends.set_health_check(Box::new(Check {
                watch,
                connector: Arc::clone(&self.connector),
                connect_timeout: self.connect_timeout,
            }));
        }
        let mut balancer = LoadBalancer::from_backends(backends);
        balancer.update_frequency = Some(REFRESH);
        balancer.health_check_frequency = checked.then(|| jittered(self.interval, fastrand::f64()));
        balancer.parallel_health_check = true;
        balancer
    }

    /// Starts what has come, ends what has gone.
    fn follow(&self, kept: &mut Vec<Kept>, tasks: &mut JoinSet<()>, shutdown: &ShutdownWatch) {
        let hosts = (self.hosts)();
        kept.retain(|one| {
            let stays = hosts.iter().any(|host| Arc::ptr_eq(host, &one.host)) && !one.task.is_finished();
            if !stays {
                one.task.abort();
                self.metrics.endpoint_gone(&one.host.authority);
            }
            stays
        });
        for host in hosts {
            if !kept.iter().any(|one| Arc::ptr_eq(&host, &one.host)) {
                let balancer = self.balancer(&host);
                let shutdown = shutdown.clone();
                let task = tasks.spawn(async move { balancer.run(shutdown, None).await });
                kept.push(Kept { host, task });
            }
        }
        while tasks.try_join_next().is_some() {}
    }
}

/// A host whose task runs.
struct Kept {
    host: Arc<Host>,
    task: AbortHandle,
}

#[async_trait]
impl BackgroundService for UpstreamAddresses {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let (mut kept, mut tasks) = (Vec::new(), JoinSet::new());
        let mut interval = tokio::time::interval(HOSTS_SEEN);
        loop {
            tokio::select! {
                _ = interval.tick() => self.follow(&mut kept, &mut tasks, &shutdown),
                _ = shutdown.changed() => return,
            }
        }
    }
}

/// Tells a host, the metrics and the log what was found.
#[derive(Clone)]
struct Watch {
    host: Arc<Host>,
    metrics: Arc<Metrics>,
}

impl Watch {
    fn failed(&self, kind: ConnectFailure) {
        self.metrics.endpoint_check_failed(&self.host.authority, kind.as_str());
        self.count();
    }

    fn count(&self) {
        // Nobody calls the services that no deployment names, unless somebody does.
        if self.host.is_used() {
            let report = self.host.report();
            let usable = report.usable();
            self.metrics.endpoint_addresses(
                &self.host.authority,
                usable,
                report.addresses.len().saturating_sub(usable),
            );
        }
    }
}

#[async_trait]
impl ServiceDiscovery for Watch {
    async fn discover(&self) -> Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
        let before = self.host.report().name_failure;
        match self.host.refresh().await {
            Ok(found) => {
                if before.is_some() {
                    tracing::info!(host = %self.host.authority, "the name resolves again");
                }
                self.count();
                Ok((found.into_iter().map(backend).collect(), HashMap::new()))
            }
            Err(error) => {
                if self.host.is_used() {
                    if before.is_none_or(|before| before.detail != error.detail) {
                        tracing::warn!(host = %self.host.authority, "{error}; the last addresses stay in use");
                    }
                    self.failed(ConnectFailure::Name);
                }
                Error::e_explain(ErrorType::ConnectError, error.to_string())
            }
        }
    }
}

/// Connects to an address of a host as a request would.
struct Check {
    watch: Watch,
    connector: Arc<TransportConnector>,
    connect_timeout: Duration,
}

#[async_trait]
impl HealthCheck for Check {
    fn health_threshold(&self, success: bool) -> usize {
        if success { 1 } else { FAILED_CHECKS }
    }

    async fn check(&self, target: &Backend) -> Result<()> {
        let (host, Some(address)) = (&self.watch.host, target.addr.as_inet().copied()) else {
            return Ok(());
        };
        if !host.is_used() {
            return Ok(());
        }
        let mut peer = HttpPeer::new(address, host.endpoint.tls, host.endpoint.host.clone());
        peer.options.connection_timeout = Some(self.connect_timeout);
        peer.options.total_connection_timeout = Some(self.connect_timeout.saturating_mul(2));
        match self.connector.new_stream(&peer).await {
            Ok(_closed_at_once) => {
                host.passed_check(address);
                self.watch.count();
                Ok(())
            }
            Err(error) => {
                let kind = connect_failure(&error);
                host.failed_check(address, kind, error.to_string());
                self.watch.failed(kind);
                Err(error)
            }
        }
    }

    async fn health_status_change(&self, target: &Backend, healthy: bool) {
        let (host, Some(address)) = (&self.watch.host, target.addr.as_inet()) else {
            return;
        };
        // The check that it passed has brought it back already.
        if !healthy {
            host.take_out(*address);
            self.watch.count();
            if !host.report().is_healthy() {
                tracing::warn!(host = %host.authority, "no address passes its check; all of them stay in use");
            }
        }
    }

    /// Pingora's log says of it that it became healthy or unhealthy.
    fn backend_summary(&self, target: &Backend) -> String {
        format!("{} of {}", target.addr, self.watch.host.authority)
    }
}

fn backend(address: std::net::SocketAddr) -> Backend {
    Backend { addr: PeerAddress::Inet(address), weight: 1, ext: Extensions::new() }
}

/// `random` is uniform between 0 and 1.
fn jittered(interval: Duration, random: f64) -> Duration {
    interval.mul_f64(1.0 - JITTER + 2.0 * JITTER * random)
}

#[cfg(test)]
mod tests;

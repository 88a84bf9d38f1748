//! The composition root: takes a [`Config`] apart and builds the running program from it. The only file that knows
//! every part.

mod addresses;
mod bank;
mod build;
mod connections;
mod edge;
mod fixed;
mod reload;
mod tls;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora_core::connectors::ConnectorOptions;
use pingora_core::listeners::tls::TlsSettings;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{RunArgs, Server, ShutdownSignal, ShutdownSignalWatch, ShutdownWatch};
use pingora_core::services::background::{BackgroundService, background_service};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, Notify, watch};

use addresses::{Checks, UpstreamAddresses};
use bank::Bank;
use build::{Built, Ground, Upstreams};
use edge::Edge;
use reload::{Reloader, Reloading};
use tls::Reload;

use crate::aws::route;
use crate::config::load::Given;
use crate::config::{Config, Listen};
use crate::deployment::fleet::FleetError;
use crate::ledger;
use crate::proxy::{Lasting, NamedBudgets, Proxy};
use crate::store::StoreError;
use crate::store::embedded;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::request_record::{Recorder, Writer};

/// Kept connections to upstreams, over all hosts. Pingora's own 128 would close most of them under load.
const UPSTREAM_CONNECTIONS_KEPT: usize = 4096;

/// Why the proxy does not start.
#[derive(Debug)]
pub enum StartError {
    Fleet(FleetError),
    RequestLog(io::Error),
    Metrics(prometheus::Error),
    Address(SocketAddr, io::Error),
    Tls(Box<pingora_core::Error>),
    Runtime(io::Error),
    StateDirectory(PathBuf, io::Error),
    Embedded(embedded::OpenError),
    Redis(StoreError),
    Ledger(ledger::OpenError),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fleet(error) => write!(f, "{error}"),
            Self::RequestLog(error) => {
                write!(f, "the request log cannot be opened: {error}; check its path and rights")
            }
            Self::Metrics(error) => write!(f, "metrics: {error}"),
            Self::Address(address, error) => {
                write!(f, "cannot listen on {address}: {error}; choose another --host or --port")
            }
            Self::Tls(error) => write!(f, "OpenSSL cannot be set up: {error}"),
            Self::Runtime(error) => write!(f, "threads cannot be started: {error}"),
            Self::StateDirectory(path, error) => write!(
                f,
                "{} cannot be made: {error}; keys and budgets are kept there: set general_settings.store_path to a \
                 directory that the proxy may write",
                path.display()
            ),
            Self::Embedded(error) => write!(f, "{error}"),
            Self::Redis(error) => write!(f, "redis: {error}"),
            Self::Ledger(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// Runs the proxy until it is told to stop. `given` is where `config` was read.
///
/// # Errors
/// When a part of it cannot be built; nothing is listening then.
pub fn run(config: Config, given: Given) -> Result<(), StartError> {
    let addresses = Addresses::free(&config.listen)?;
    let metrics = Arc::new(Metrics::new().map_err(StartError::Metrics)?);
    let conf = server_conf(&config.listen, config.endpoints.ca_bundle.as_deref());
    let tls = config.listen.tls.clone().map(|tls| tls::listener(tls, Arc::clone(&metrics)));
    let secure = tls.transpose().map_err(StartError::Tls)?;
    let (recorder, writer) = Recorder::start(&config.request_log).map_err(StartError::RequestLog)?;
    let bank = config.store.as_ref().map(|store| Bank::open(store, &config.budgets, &metrics)).transpose()?;
    let draining = Arc::default();
    let stop = Stop {
        draining: Arc::clone(&draining),
        metrics: Arc::clone(&metrics),
        shutdown_timeout: config.limits.shutdown_timeout,
    };
    let connector = ConnectorOptions::from_server_conf(&conf);
    let checks = Checks {
        interval: config.router.health_check_interval,
        connect_timeout: config.router.connect_timeout,
        connector: connector.clone(),
    };
    let edge = Edge::new(&config.limits, &metrics);
    let lasting = Lasting::new(
        Arc::clone(&metrics),
        recorder,
        bank.as_ref().map(Bank::accounts),
        Arc::new(NamedBudgets::new(config.budgets.metric_names_max)),
        &config.limits,
        connector,
    );
    let (asker, asked) = reload::channel();
    let kept = bank.as_ref().map(|bank| bank.kept.clone());
    let ground = Ground { lasting, kept, draining, reloads: Arc::new(asker) };
    let Built { gateway, upstreams } = ground.build(&config, None).map_err(StartError::Fleet)?;
    let (upstreams, followed) = watch::channel(upstreams);
    let hosts = followed.clone();
    let hosts = UpstreamAddresses::new(Box::new(move || hosts.borrow().fleet.hosts()), checks, metrics);
    let reloader = Reloader {
        given,
        config,
        ground,
        in_force: Arc::new(ArcSwap::from_pointee(gateway)),
        upstreams,
        shown: secure.as_ref().map(|(_, certificate)| certificate.shown.clone()),
        asked,
        listening: Arc::new(Notify::new()),
    };
    let background = Background { addresses: hosts, refresh: Refresh(followed), reloader };
    serve(conf, addresses, secure, edge, background, stop);
    close(bank, writer);
    Ok(())
}

/// Waits until everything is written down.
fn close(bank: Option<Bank>, writer: Option<Writer>) {
    if let Some(bank) = bank {
        bank.close();
    }
    if let Some(writer) = writer {
        writer.stop();
    }
}

/// Listens and serves until `stop` says so.
fn serve(
    conf: ServerConf,
    addresses: Addresses,
    secure: Option<(TlsSettings, Reload)>,
    edge: Edge,
    background: Background,
    stop: Stop,
) {
    // Read now rather than in the first request.
    tracing::debug!(operations = route::operations().len(), "the route table is read");
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut service = edge.service(&server.configuration, Proxy(Arc::clone(&background.reloader.in_force)));
    if let Some(address) = addresses.plain {
        service.add_listener(edge::listener(address));
    }
    if let (Some(address), Some((settings, reload))) = (addresses.tls, secure) {
        service.add_listener(edge::listener(address).tls(settings));
        server.add_service(background_service("certificate", reload));
    }
    server.add_service(service);
    server.add_service(background_service("addresses", background.addresses));
    server.add_service(background_service("credentials", background.refresh));
    let announce = Announce { addresses, reloads: Arc::clone(&background.reloader.listening) };
    server.add_service(background_service("announce", announce));
    server.add_service(background_service("configuration", Reloading(Mutex::new(background.reloader))));
    server.run(RunArgs { shutdown_signal: Box::new(stop) });
}

/// Where to listen; at least one of them.
#[derive(Debug, Clone, Copy)]
struct Addresses {
    plain: Option<SocketAddr>,
    tls: Option<SocketAddr>,
}

impl Addresses {
    /// Port 0 is replaced by a free port, because Pingora would not tell which one it got.
    fn free(listen: &Listen) -> Result<Self, StartError> {
        let probe = |port| {
            let wanted = SocketAddr::new(listen.host, port);
            let bound = TcpListener::bind(wanted).and_then(|probe| Ok((probe.local_addr()?, probe)));
            bound.map_err(|error| StartError::Address(wanted, error))
        };
        let first = probe(listen.port)?;
        // The first is held while the second is looked for, so that they differ.
        let second = listen.tls.as_ref().and_then(|tls| tls.port).map(probe).transpose()?;
        Ok(match (&listen.tls, second) {
            (None, _) => Self { plain: Some(first.0), tls: None },
            (Some(_), None) => Self { plain: None, tls: Some(first.0) },
            (Some(_), Some(second)) => Self { plain: Some(first.0), tls: Some(second.0) },
        })
    }
}

fn server_conf(listen: &Listen, ca_bundle: Option<&std::path::Path>) -> ServerConf {
    ServerConf {
        threads: listen.workers,
        work_stealing: false,
        upstream_keepalive_pool_size: UPSTREAM_CONNECTIONS_KEPT,
        // `proxy::failover` decides, by a configuration that may change.
        max_retries: usize::MAX,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ca_file: ca_bundle.map(|path| path.to_string_lossy().into_owned()),
        ..ServerConf::default()
    }
}

/// What keeps up to date what requests rest on.
struct Background {
    addresses: UpstreamAddresses,
    refresh: Refresh,
    reloader: Reloader,
}

/// Loads the credentials of the listed deployments, so that a mistake shows at the start, and keeps all of them fresh.
/// Those of the direct targets are loaded when first used: many installations never need them.
struct Refresh(watch::Receiver<Upstreams>);

#[async_trait]
impl BackgroundService for Refresh {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut upstreams = self.0.clone();
        loop {
            let Upstreams { credentials, fleet, profiles } = upstreams.borrow_and_update().clone();
            let load = async {
                for target in fleet.groups().into_iter().flat_map(|group| &group.targets) {
                    if let Err(error) = target.credentials.ready().await {
                        tracing::error!(deployment = %target.id, "credentials: {error}");
                    }
                }
                profiles.look_up_listed().await;
            };
            tokio::select! {
                _ = async { tokio::join!(load, credentials.refresh_loop(std::future::pending::<()>())) } => {}
                changed = upstreams.changed() => if changed.is_err() { return },
                _ = shutdown.changed() => return,
            }
        }
    }
}

/// Says where the proxy runs, once it accepts connections, and SIGHUP does not end it.
struct Announce {
    addresses: Addresses,
    reloads: Arc<Notify>,
}

#[async_trait]
impl BackgroundService for Announce {
    #[expect(clippy::print_stdout, reason = "the line that people and scripts wait for")]
    async fn start(&self, _shutdown: ShutdownWatch) {
        let Addresses { plain, tls } = self.addresses;
        self.reloads.notified().await;
        let pause = || tokio::time::sleep(Duration::from_millis(5));
        if let Some(address) = plain {
            while tokio::net::TcpStream::connect(reachable(address)).await.is_err() {
                pause().await;
            }
        }
        if let Some(address) = tls {
            while !tokio::task::spawn_blocking(move || tls::answers(reachable(address))).await.unwrap_or_default() {
                pause().await;
            }
        }
        // Both at once: whoever reads the first may call.
        for (scheme, address) in [("http", plain), ("https", tls)] {
            if let Some(address) = address {
                println!("RUNNING on {scheme}://{address}");
            }
        }
    }
}

/// Where this machine reaches what listens on `address`.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Pingora's `FastShutdown` does not tell the services to stop: when one worker's runtime ends before that of another
/// that accepts connections, the latter's loop fails and tries again for ever. The graceful stop tells them; there is
/// nothing left to wait for, so `server_conf` sets its times to nothing.
const STOP_NOW: ShutdownSignal = ShutdownSignal::GracefulTerminate;

/// Waits for the signal to stop, and on SIGTERM for the requests in flight.
struct Stop {
    draining: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
    shutdown_timeout: Duration,
}

#[async_trait]
impl ShutdownSignalWatch for Stop {
    async fn recv(&self) -> ShutdownSignal {
        let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            tracing::error!("signals cannot be received; stop the process with SIGKILL");
            return std::future::pending().await;
        };
        tokio::select! {
            _ = interrupt.recv() => return STOP_NOW,
            _ = terminate.recv() => {}
        }
        self.draining.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + self.shutdown_timeout;
        tracing::info!(requests_in_flight = self.metrics.in_flight().get(), "stopping");
        while self.metrics.in_flight().get() > 0 && Instant::now() < deadline {
            tokio::select! {
                _ = interrupt.recv() => break,
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
        }
        STOP_NOW
    }
}

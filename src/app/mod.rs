//! The composition root: takes a [`Config`] apart and builds the running program from it. The only file that knows
//! every part.

mod addresses;
mod bank;
mod build;
mod connections;
mod edge;
mod fixed;
mod lifecycle;
mod listen;
mod notify;
mod reload;
mod tls;
mod upgrade;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora_core::connectors::ConnectorOptions;
use pingora_core::listeners::tls::TlsSettings;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{RunArgs, Server, ShutdownWatch};
use pingora_core::services::background::{BackgroundService, background_service};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use addresses::{Checks, UpstreamAddresses};
use bank::Bank;
use build::{Built, Ground, Upstreams};
use edge::Edge;
use lifecycle::{Lifecycle, Supervisor};
use listen::{Addresses, Listening, Ports};
use reload::{Reloader, Reloading};
use tls::Reload;
use upgrade::UpgradeError;
use upgrade::predecessor::Predecessor;

use crate::admin::readiness::{Readiness, can_sign};
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

/// How long a process that is to succeed another one waits for its credentials and its store.
const READY_TIMEOUT: Duration = Duration::from_secs(20);

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
    /// It was to succeed another process.
    Upgrade(UpgradeError),
    NotReady(String),
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
            Self::Upgrade(error) => write!(f, "{error}"),
            Self::NotReady(why) => write!(f, "the process before this one goes on: {why}"),
        }
    }
}

impl std::error::Error for StartError {}

/// Runs the proxy until it is told to stop. `given` is where `config` was read.
///
/// # Errors
/// When a part of it cannot be built; nothing is listening then.
pub fn run(config: Config, given: Given) -> Result<(), StartError> {
    let predecessor = config.listen.upgrade.then(|| Predecessor::meet(&config.listen.upgrade_socket)).transpose();
    let mut predecessor = predecessor.map_err(StartError::Upgrade)?;
    let inherited = predecessor.as_mut().map(Predecessor::take_ports).unwrap_or_default();
    let ports = Ports::open(&config.listen, inherited)?;
    let metrics = Arc::new(Metrics::new().map_err(StartError::Metrics)?);
    let conf = server_conf(&config.listen, config.endpoints.ca_bundle.as_deref());
    let tls = config.listen.tls.clone().map(|tls| tls::listener(tls, Arc::clone(&metrics)));
    let secure = tls.transpose().map_err(StartError::Tls)?;
    let (recorder, writer) = Recorder::start(&config.request_log).map_err(StartError::RequestLog)?;
    let open = |store| Bank::open(store, &config.budgets, &metrics, predecessor.as_mut());
    let bank = config.store.as_ref().map(open).transpose()?;
    let readiness = Arc::new(Readiness::new(bank.as_ref().map(|bank| Arc::clone(&bank.kept.ledger))));
    let lifecycle = Arc::new(Lifecycle::new(Arc::clone(&readiness)));
    let addresses = ports.addresses().map_err(StartError::Runtime)?;
    let supervisor = Supervisor {
        lifecycle: Arc::clone(&lifecycle),
        metrics: Arc::clone(&metrics),
        ports: Mutex::new(Some(ports)),
        socket: config.listen.upgrade_socket.clone(),
        store: bank.as_ref().and_then(|bank| bank.movable.clone()),
        watchdog: predecessor.as_ref().map_or_else(notify::interval, Predecessor::watchdog),
        succeeds: predecessor.is_some(),
        shutdown_delay: config.limits.shutdown_delay,
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
        lifecycle.stop(),
    );
    let (reloads, asked) = reload::channel();
    let kept = bank.as_ref().map(|bank| bank.kept.clone());
    let ground = Ground { lasting, kept, readiness: Arc::clone(&readiness), reloads: Arc::new(reloads) };
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
    let announce = Announce {
        addresses,
        lifecycle,
        readiness,
        upstreams: followed.clone(),
        predecessor: Mutex::new(predecessor),
        reloads: Arc::clone(&reloader.listening),
    };
    let background = Background { addresses: hosts, refresh: Refresh(followed), reloader, announce };
    let served = serve(conf, secure, edge, background, supervisor);
    close(bank, writer);
    served
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

/// Listens and serves until the process has to end.
fn serve(
    conf: ServerConf,
    secure: Option<(TlsSettings, Reload)>,
    edge: Edge,
    background: Background,
    supervisor: Supervisor,
) -> Result<(), StartError> {
    // Read now rather than in the first request.
    tracing::debug!(operations = route::operations().len(), "the route table is read");
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let lifecycle = Arc::clone(&supervisor.lifecycle);
    let descriptors = supervisor.ports.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Ports::descriptors);
    let Background { addresses, refresh, reloader, announce } = background;
    let proxy = Proxy(Arc::clone(&reloader.in_force));
    let mut service = edge.service(&server.configuration, proxy, Arc::clone(&lifecycle));
    if let Some(address) = announce.addresses.plain {
        service.add_listener(edge::listener(address, None));
    }
    if let (Some(address), Some((settings, certificate))) = (announce.addresses.tls, secure) {
        service.add_listener(edge::listener(address, Some(settings)));
        server.add_service(background_service("certificate", certificate));
    }
    server.add_service(Listening {
        service,
        descriptors: descriptors.transpose().map_err(StartError::Runtime)?,
        lifecycle: Arc::clone(&lifecycle),
        workers: server.configuration.threads,
        watchdog: supervisor.watchdog,
    });
    server.add_service(background_service("addresses", addresses));
    server.add_service(background_service("credentials", refresh));
    server.add_service(background_service("announce", announce));
    server.add_service(background_service("configuration", Reloading(tokio::sync::Mutex::new(reloader))));
    server.run(RunArgs { shutdown_signal: Box::new(supervisor) });
    lifecycle.failure().map_or(Ok(()), |why| Err(StartError::NotReady(why)))
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
    announce: Announce,
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

/// Succeeds the process before, if there is one, and says where the proxy runs, once SIGHUP does not end it.
struct Announce {
    addresses: Addresses,
    lifecycle: Arc<Lifecycle>,
    readiness: Arc<Readiness>,
    upstreams: watch::Receiver<Upstreams>,
    predecessor: Mutex<Option<Predecessor>>,
    reloads: Arc<Notify>,
}

#[async_trait]
impl BackgroundService for Announce {
    async fn start(&self, _shutdown: ShutdownWatch) {
        self.reloads.notified().await;
        let predecessor = self.predecessor.lock().unwrap_or_else(PoisonError::into_inner).take();
        let succeeds = predecessor.is_some();
        let begun = tokio::select! {
            biased;
            // The one before learns that it goes on.
            () = self.readiness.until_ending() => return,
            begun = self.begin(succeeds) => begun,
        };
        if let Err(why) = begun {
            return self.lifecycle.fail(why);
        }
        if let Some(predecessor) = predecessor
            && let Err(why) = take_over(predecessor).await
        {
            return self.lifecycle.fail(why);
        }
        self.lifecycle.serves();
        notify::ready(succeeds);
        self.tell();
    }
}

/// Takes the service over from the process before.
async fn take_over(predecessor: Predecessor) -> Result<(), String> {
    let succeeded = tokio::task::spawn_blocking(|| predecessor.succeed()).await;
    succeeded.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

impl Announce {
    /// Accepts connections. A process that succeeds another does not before it can serve them: until then they are for
    /// the other one.
    async fn begin(&self, succeeds: bool) -> Result<(), String> {
        if succeeds {
            self.until_ready().await?;
        }
        self.lifecycle.let_listen();
        self.lifecycle.until_it_listens().await;
        Ok(())
    }

    /// Waits for the store and for credentials; says in time what is missing.
    async fn until_ready(&self) -> Result<(), String> {
        let deadline = Instant::now() + READY_TIMEOUT;
        let can_sign = || can_sign(&self.upstreams.borrow().fleet);
        while !(self.readiness.has_store() && can_sign()) {
            if Instant::now() >= deadline {
                return Err(self.readiness.reasons(can_sign()).join("; "));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    #[expect(clippy::print_stdout, reason = "the line that people and scripts wait for")]
    fn tell(&self) {
        let Addresses { plain, tls } = self.addresses;
        // Both at once: whoever reads the first may call.
        for (scheme, address) in [("http", plain), ("https", tls)] {
            if let Some(address) = address {
                println!("RUNNING on {scheme}://{address}");
            }
        }
    }
}

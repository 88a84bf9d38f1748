//! Pingora alone: passes every request to one upstream and does nothing else. What the proxy costs beyond it is the
//! proxy's own work, so version, allocator, threads, buffers and connection pool are the proxy's.

use std::error::Error;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use clap::Parser;
use parking_lot::Mutex;
use pingora_core::apps::HttpServerOptions;
use pingora_core::listeners::tls::TlsSettings;
use pingora_core::listeners::{L4BufferSettings, ListenerConfig};
use pingora_core::modules::http::HttpModules;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{Fds, ListenFds, RunArgs, Server, ShutdownWatch};
use pingora_core::services::Service as PingoraService;
use pingora_core::services::listening::Service;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::{HttpProxy, ProxyHttp, Session, http_proxy};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As `app` has it: kept connections to upstreams, over all hosts.
const UPSTREAM_CONNECTIONS_KEPT: usize = 4096;
/// As `proxy::select` has it.
const KEEPALIVE: Duration = Duration::from_secs(50);
/// As `app::edge` has it.
const READ_BUFFER_BYTES: usize = 4 * 1024;
const TLS_READ_BUFFER_BYTES: usize = 16 * 1024;

/// Pingora alone, passing everything through to one upstream.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where everything goes.
    #[arg(long)]
    upstream: SocketAddr,
    /// Worker threads.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Certificate chain; the port speaks TLS then.
    #[arg(long, requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key.
    #[arg(long, requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Speak TLS to the upstream, which has to have a certificate for this name.
    #[arg(long, value_name = "NAME")]
    upstream_tls: Option<String>,
    /// Certificates to trust there.
    #[arg(long, value_name = "FILE", requires = "upstream_tls")]
    upstream_ca: Option<PathBuf>,
    /// Take HTTP/2 from clients, besides HTTP/1.1: by prior knowledge, or as TLS chooses.
    #[arg(long)]
    h2c: bool,
}

/// The upstream, and the name in its certificate.
struct Pass {
    upstream: SocketAddr,
    name: Option<String>,
}

#[async_trait]
impl ProxyHttp for Pass {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    /// None: Pingora's own is for compression.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn upstream_peer(&self, _session: &mut Session, (): &mut ()) -> pingora_core::Result<Box<HttpPeer>> {
        let name = self.name.clone().unwrap_or_default();
        let mut peer = HttpPeer::new(self.upstream, self.name.is_some(), name);
        peer.options.idle_timeout = Some(KEEPALIVE);
        Ok(Box::new(peer))
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to be told if stderr is closed.
            drop(writeln!(std::io::stderr(), "bare-pingora: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let socket = TcpListener::bind(arguments.listen)?;
    let address = socket.local_addr()?;
    let tls = tls(&arguments)?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let ahead = if tls.is_some() { TLS_READ_BUFFER_BYTES } else { READ_BUFFER_BYTES };
    let mut listener = ListenerConfig::tcp(address.to_string()).l4_buffer(L4BufferSettings::default().read(ahead));
    if let Some(settings) = tls {
        listener = listener.tls(settings);
    }
    let mut server = Server::new_with_opt_and_conf(None, conf(&arguments));
    server.bootstrap();
    let mut proxy =
        http_proxy(&server.configuration, Pass { upstream: arguments.upstream, name: arguments.upstream_tls });
    let mut options = HttpServerOptions::default();
    options.h2c = arguments.h2c;
    proxy.server_options = Some(options);
    let mut service = Service::new("bare".to_owned(), proxy);
    service.add_listener(listener);
    server.add_service(Listening { service, socket: Some(socket) });
    // Connections wait in the socket, which is open, until Pingora accepts them.
    let mut stdout = std::io::stdout();
    writeln!(stdout, "RUNNING on {scheme}://{address}")?;
    stdout.flush()?;
    server.run(RunArgs::default());
    Ok(())
}

/// A socket that is bound already, so that port 0 is known.
struct Listening {
    service: Service<HttpProxy<Pass>>,
    socket: Option<TcpListener>,
}

#[async_trait]
impl PingoraService for Listening {
    async fn start_service(&mut self, _: Option<ListenFds>, shutdown: ShutdownWatch, listeners_per_fd: usize) {
        let mut descriptors = Fds::new();
        if let Some(socket) = self.socket.take()
            && let Ok(address) = socket.local_addr()
            // Pingora accepts without blocking.
            && socket.set_nonblocking(true).is_ok()
        {
            descriptors.add(address.to_string(), socket.into_raw_fd());
        }
        let descriptors = Some(Arc::new(Mutex::new(descriptors)));
        self.service.start_service(descriptors, shutdown, listeners_per_fd).await;
    }

    fn name(&self) -> &'static str {
        "bare"
    }
}

fn tls(arguments: &Arguments) -> Result<Option<TlsSettings>, Box<dyn Error>> {
    let (Some(certificate), Some(key)) = (&arguments.tls_cert, &arguments.tls_key) else { return Ok(None) };
    let mut settings = TlsSettings::intermediate(&certificate.to_string_lossy(), &key.to_string_lossy())?;
    if arguments.h2c {
        settings.enable_h2();
    }
    Ok(Some(settings))
}

fn conf(arguments: &Arguments) -> ServerConf {
    ServerConf {
        threads: arguments.workers.max(1),
        work_stealing: false,
        upstream_keepalive_pool_size: UPSTREAM_CONNECTIONS_KEPT,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ca_file: arguments.upstream_ca.as_ref().map(|path| path.to_string_lossy().into_owned()),
        ..ServerConf::default()
    }
}

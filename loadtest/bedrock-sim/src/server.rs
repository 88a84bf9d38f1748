//! Starts and stops a simulator: sockets, options, and the handle that tests hold. HTTP/1.1 and HTTP/2 by prior
//! knowledge share one plain port. It binds what it is told and speaks no TLS: the proxy's TLS is not tested here.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::behaviour::{Behaviour, Rule};
use crate::billing::{Billed, Row};
use crate::concurrency::MaxConcurrent;
use crate::connection::{Connection, Link};
use crate::prices::PriceBook;
use crate::record::{Counters, Record, count};
use crate::service::{Shared, serve};

/// An AWS access key that the simulator knows.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    pub access_key_id: String,
    pub secret_access_key: String,
    pub session_token: Option<String>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// How to run a simulator.
#[derive(Debug, Clone)]
pub struct Options {
    pub listen: SocketAddr,
    pub credentials: Vec<Credential>,
    /// Bedrock API keys that are accepted as bearer tokens.
    pub bearer_tokens: Vec<String>,
    /// The price file; without one nothing is priced.
    pub prices: Option<PathBuf>,
    /// Stream frames per second; 0 is as fast as they are taken.
    pub frame_rate_hz: u32,
    /// Delay of every response header.
    pub first_byte_delay: Duration,
    /// Makes answers differ between simulators.
    pub seed: u64,
    /// Requests kept for inspection; 0 keeps none.
    pub records_max: usize,
    /// Rows of the bill kept for inspection.
    pub bill_rows_max: usize,
    /// Whether the first 64 KiB of bodies are kept as well.
    pub record_bodies: bool,
    /// Whether InvokeModel answers carry `X-Amzn-Bedrock-*-Token-Count` headers, as Bedrock's do.
    pub token_headers: bool,
    /// A longer request body is refused with 413.
    pub body_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            credentials: Vec::new(),
            bearer_tokens: Vec::new(),
            prices: None,
            frame_rate_hz: 0,
            first_byte_delay: Duration::ZERO,
            seed: 1,
            records_max: 10_000,
            bill_rows_max: 100_000,
            record_bodies: true,
            token_headers: true,
            body_bytes_max: 64 * 1024 * 1024,
        }
    }
}

/// Why a simulator did not start.
#[derive(Debug)]
pub enum StartError {
    Bind(SocketAddr, io::Error),
    Prices(PathBuf, String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(address, error) => write!(f, "cannot listen on {address}: {error}"),
            Self::Prices(path, error) => write!(f, "cannot read prices from {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for StartError {}

/// Starts simulators.
pub struct Simulator;

/// A running simulator. Dropping it stops it without waiting.
pub struct Running {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Simulator {
    /// Binds, and serves on tasks of the current runtime until the handle goes.
    ///
    /// # Errors
    /// When the address cannot be bound or the price file not be read.
    pub async fn start(options: Options) -> Result<Running, StartError> {
        let prices = options.prices.as_ref().map(|path| {
            let text = std::fs::read_to_string(path).map_err(|error| error.to_string());
            let book = text.and_then(|text| PriceBook::from_yaml(&text));
            book.map_err(|error| StartError::Prices(path.clone(), error))
        });
        let prices = prices.transpose()?;
        let bind_error = |error| StartError::Bind(options.listen, error);
        let listener = TcpListener::bind(options.listen).await.map_err(bind_error)?;
        let address = listener.local_addr().map_err(bind_error)?;
        let (stop, stopped) = watch::channel(false);
        let shared = Arc::new(Shared::new(options, prices));
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared), stopped));
        Ok(Running { address, shared, stop, accepting })
    }
}

impl Running {
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The newest requests, oldest first.
    pub fn requests(&self) -> Vec<Record> {
        self.shared.recorder.last(usize::MAX)
    }

    pub fn clear_requests(&self) {
        self.shared.recorder.clear();
    }

    pub fn counters(&self) -> Counters {
        self.shared.recorder.counts.read()
    }

    /// How many requests were answered at the same time, at most.
    pub fn max_concurrent(&self) -> MaxConcurrent {
        self.shared.recorder.concurrency.max()
    }

    pub fn billed(&self) -> Billed {
        self.shared.ledger.billed()
    }

    /// The newest rows of the bill, oldest first.
    pub fn billed_rows(&self) -> Vec<Row> {
        self.shared.ledger.rows(usize::MAX)
    }

    pub fn clear_billed(&self) {
        self.shared.ledger.clear();
    }

    /// Replaces all rules.
    pub fn behave(&self, behaviour: Behaviour) {
        self.shared.rules.set(behaviour);
    }

    /// Adds a rule behind those in force.
    pub fn add_rule(&self, rule: Rule) {
        self.shared.rules.add(rule);
    }

    /// Stops accepting, breaks open connections and waits until the port is free.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        // The task ends by itself; a panic in it has been reported by the runtime.
        drop((&mut self.accepting).await);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|stop| *stop) => return,
        };
        // Accepting fails when descriptors run out; pausing lets connections end.
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        if shared.rules.refuses_connection() {
            count(&shared.recorder.counts.connections_refused);
            continue;
        }
        count(&shared.recorder.counts.connections);
        tokio::spawn(connection(stream, Arc::clone(&shared), stopped.clone()));
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    // Only latency suffers where the option is not supported.
    drop(stream.set_nodelay(true));
    let link = Arc::new(Link::default());
    let io = TokioIo::new(Connection::new(stream, Arc::clone(&link)));
    let service = service_fn(move |request| serve(Arc::clone(&shared), Arc::clone(&link), request));
    let mut builder = Builder::new(TokioExecutor::new());
    // Proxies keep idle connections for minutes; only they may end them.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(512 * 1024);
    builder.http2().max_concurrent_streams(1000).max_header_list_size(256 * 1024);
    let serving = builder.serve_connection(io, service);
    tokio::select! {
        // An error here is a client that left or a cut on demand; both are in the records.
        _ = serving => {}
        _ = stopped.wait_for(|stop| *stop) => {}
    }
}

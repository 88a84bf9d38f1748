//! The way of a request through Pingora's phases. Each phase is a few lines here and a stage of its own in the file of
//! the same name; read the trait implementation from top to bottom and you have read the life of a request.

mod admit;
mod alarm;
mod bidirectional;
mod body;
mod booking;
mod call;
mod call_id;
mod connect_failure;
mod connection;
mod context;
mod delivery;
mod event_stream;
mod failover;
mod gate;
mod head;
mod identify;
mod named_budgets;
mod pace;
mod purse;
mod replay;
mod reserve;
mod respond;
mod select;
mod settle;
mod shared;
mod sign;
mod stand_in;
mod stop;
mod watch;

use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use pingora_core::connectors::ConnectorOptions;
use pingora_core::connectors::http::Connector;
use pingora_core::modules::http::HttpModules;
use pingora_core::protocols::Digest;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};

use crate::aws::sigv4::Signer;
use crate::budget::period::Windows;
use crate::config::{Budgets, Limits, Router};
use crate::deployment::fleet::Fleet;
use crate::deployment::profiles::Profiles;
use crate::keys::authenticate::Authenticator;
use crate::keys::register::Register;
use crate::ledger::Ledger;
use crate::price::book::PriceBook;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::request_record::Recorder;
use crate::types::money::NanoUsd;

pub use connect_failure::connect_failure;
pub use connection::Paced;
pub use context::RequestContext;
pub use named_budgets::NamedBudgets;
pub use stop::Stop;

/// What a gateway reads of its configuration. `app` fills it.
pub struct Parts {
    pub authenticator: Arc<Authenticator>,
    pub fleet: Arc<Fleet>,
    pub profiles: Arc<Profiles>,
    pub limits: Limits,
    pub router: Router,
    pub allow_unlisted_models: bool,
    pub price_book: Arc<PriceBook>,
    /// Price of one call of an operation that reports no usage.
    pub operation_prices: BTreeMap<String, NanoUsd>,
    pub budgets: Budgets,
    pub local: Box<dyn Local>,
}

/// What outlives a configuration: all gateways of a process share it.
pub struct Lasting {
    pub metrics: Arc<Metrics>,
    pub named_budgets: Arc<NamedBudgets>,
    recorder: Recorder,
    register: Option<Arc<Register>>,
    ledger: Option<Arc<Ledger>>,
    room: Arc<body::Room>,
    gate: Arc<gate::Gate>,
    signer: Arc<Signer>,
    connections: Arc<Connector>,
    stop: Stop,
}

impl Lasting {
    /// `stop` says when to end what is under way; `accounts` is `None` without a master key, `connector` is for connections that Pingora does not make of itself.
    #[must_use]
    pub fn new(
        metrics: Arc<Metrics>,
        recorder: Recorder,
        accounts: Option<Accounts>,
        named_budgets: Arc<NamedBudgets>,
        limits: &Limits,
        connector: ConnectorOptions,
        stop: Stop,
    ) -> Self {
        let (register, ledger) = accounts.map(|accounts| (accounts.register, accounts.ledger)).unzip();
        Self {
            room: Arc::new(body::Room::new(limits, Arc::clone(&metrics))),
            gate: gate::Gate::new(limits, Arc::clone(&metrics)),
            signer: Arc::new(Signer::new()),
            connections: Arc::new(Connector::new(Some(connector))),
            metrics,
            named_budgets,
            recorder,
            register,
            ledger,
            stop,
        }
    }
}

/// Keys and budgets.
pub struct Accounts {
    pub register: Arc<Register>,
    pub ledger: Arc<Ledger>,
}

/// What serves requests by one configuration. It never changes: a new configuration has a gateway of its own.
pub struct Gateway {
    authenticator: Arc<Authenticator>,
    fleet: Arc<Fleet>,
    profiles: Arc<Profiles>,
    limits: Limits,
    router: Router,
    allow_unlisted_models: bool,
    price_book: Arc<PriceBook>,
    operation_prices: BTreeMap<String, NanoUsd>,
    metrics: Arc<Metrics>,
    recorder: Recorder,
    budgets: Budgets,
    /// The windows of budgets that the clock is in.
    windows: Mutex<Windows>,
    named_budgets: Arc<NamedBudgets>,
    register: Option<Arc<Register>>,
    ledger: Option<Arc<Ledger>>,
    local: Box<dyn Local>,
    room: Arc<body::Room>,
    gate: Arc<gate::Gate>,
    signer: Arc<Signer>,
    /// Connections of bidirectional streams.
    connections: Arc<Connector>,
    stop: Stop,
}

/// The gateway of the configuration in force, for requests that arrive from now on.
pub type InForce = Arc<ArcSwap<Gateway>>;

/// What Pingora drives.
pub struct Proxy(pub InForce);

/// A request with the gateway that serves it to its end, so that it never sees two configurations.
pub struct Underway {
    gateway: Arc<Gateway>,
    /// Pingora moves it from phase to phase by value.
    ctx: Box<RequestContext>,
}

impl Drop for Underway {
    /// Also where Pingora's last phase did not come, as after a panic: a process that stops waits for this count.
    fn drop(&mut self) {
        if self.ctx.counted {
            self.gateway.metrics.in_flight().dec();
        }
    }
}

/// Answers the paths that are the proxy's own.
#[async_trait]
pub trait Local: Send + Sync {
    /// Whether a path, without its query, is one of them.
    fn owns(&self, path: &str) -> bool;

    async fn answer(&self, request: LocalRequest) -> LocalAnswer;
}

/// A request for one of the proxy's own paths, read whole.
#[derive(Debug)]
pub struct LocalRequest {
    pub method: String,
    pub path: String,
    /// Still percent-encoded; empty where there is none.
    pub query: String,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

/// A complete answer.
#[derive(Debug)]
pub struct LocalAnswer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Gateway {
    #[must_use]
    pub fn new(parts: Parts, lasting: &Lasting) -> Self {
        Self {
            windows: Mutex::new(Windows::new(parts.budgets.time_zone.clone())),
            authenticator: parts.authenticator,
            fleet: parts.fleet,
            profiles: parts.profiles,
            limits: parts.limits,
            router: parts.router,
            allow_unlisted_models: parts.allow_unlisted_models,
            price_book: parts.price_book,
            operation_prices: parts.operation_prices,
            budgets: parts.budgets,
            local: parts.local,
            metrics: Arc::clone(&lasting.metrics),
            recorder: lasting.recorder.clone(),
            named_budgets: Arc::clone(&lasting.named_budgets),
            register: lasting.register.clone(),
            ledger: lasting.ledger.clone(),
            room: Arc::clone(&lasting.room),
            gate: Arc::clone(&lasting.gate),
            signer: Arc::clone(&lasting.signer),
            connections: Arc::clone(&lasting.connections),
            stop: lasting.stop.clone(),
        }
    }

    /// The time by the store's clock, in Unix milliseconds.
    fn now_ms(&self) -> u64 {
        let own = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis());
        match &self.ledger {
            Some(ledger) => ledger.now_ms(),
            None => u64::try_from(own()).unwrap_or(u64::MAX),
        }
    }

    /// How far an answer is read on without its client.
    fn drain(&self) -> Option<shared::Drain> {
        let timeout = self.budgets.drain_timeout;
        (!timeout.is_zero()).then_some(shared::Drain { timeout, bytes_max: self.budgets.drain_bytes_max })
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Underway;

    /// Pingora asks for it once the head of the request has been read.
    fn new_ctx(&self) -> Underway {
        Underway { gateway: self.0.load_full(), ctx: Box::new(RequestContext::new()) }
    }

    /// No module of Pingora's may touch an answer: bytes pass as they come.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, underway: &mut Underway) -> Result<bool> {
        let Underway { gateway, ctx } = underway;
        connection::head_is_here(session.as_downstream_mut());
        ctx.counted = true;
        gateway.metrics.in_flight().inc();
        session.req_header().method.as_str().clone_into(&mut ctx.record.method);
        let admission = tokio::select! {
            biased;
            admission = admit::admit(gateway, session, ctx) => admission,
            () = gateway.stop.now() => Err(failover::stopping()),
        };
        match admission {
            Ok(admit::Admission::Answered) => Ok(true),
            Ok(admit::Admission::Proceed) => Ok(false),
            Ok(admit::Admission::Converse) => bidirectional::converse(gateway, session, ctx).await.map(|()| true),
            Err(failure) => {
                // Its client may take time over the refusal.
                ctx.place = None;
                respond::refuse(session, ctx, failure).await;
                Ok(true)
            }
        }
    }

    async fn upstream_peer(&self, _session: &mut Session, underway: &mut Underway) -> Result<Box<HttpPeer>> {
        let Underway { gateway, ctx } = underway;
        select::pick_peer(gateway, ctx).await
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        underway: &mut Underway,
        error: Box<Error>,
    ) -> Box<Error> {
        let Underway { gateway, ctx } = underway;
        failover::not_connected(gateway, ctx, error)
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        _reused: bool,
        _peer: &HttpPeer,
        upstream: RawFd,
        _digest: Option<&Digest>,
        underway: &mut Underway,
    ) -> Result<()> {
        if let Some((admitted, _)) = underway.ctx.dispatched_mut() {
            admitted.shared.connected(upstream);
        }
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        upstream_request: &mut RequestHeader,
        underway: &mut Underway,
    ) -> Result<()> {
        let Underway { gateway, ctx } = underway;
        *upstream_request = sign::sign(gateway, ctx, upstream_request)?.header;
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        _session: &mut Session,
        upstream_response: &mut ResponseHeader,
        underway: &mut Underway,
    ) -> Result<()> {
        let Underway { gateway, ctx } = underway;
        failover::judge(gateway, ctx, upstream_response)
    }

    async fn response_filter(
        &self,
        _session: &mut Session,
        upstream_response: &mut ResponseHeader,
        underway: &mut Underway,
    ) -> Result<()> {
        let Underway { ctx, .. } = underway;
        respond::header(ctx, upstream_response)
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        underway: &mut Underway,
    ) -> Result<Option<Duration>> {
        let Underway { gateway, ctx } = underway;
        respond::observe(gateway, ctx, body.as_ref(), end_of_stream).map(|()| None)
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        underway: &mut Underway,
        client_reused: bool,
    ) -> Box<Error> {
        let Underway { gateway, ctx } = underway;
        failover::broken(gateway, session, ctx, error, client_reused)
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, underway: &mut Underway) -> FailToProxy {
        let Underway { ctx, .. } = underway;
        let failure = ctx.failure.take().unwrap_or_else(|| failover::failure_of(error));
        if let Some(slot) = ctx.slot.take() {
            slot.unwrap(session.as_downstream_mut());
        }
        // Pingora closes the connection after this; the client has to know.
        session.set_keepalive(None);
        let error_code = if session.response_written().is_some() {
            respond::broke_off(ctx, failure);
            0
        } else {
            respond::refuse(session, ctx, failure).await
        };
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, underway: &mut Underway) {
        let Underway { gateway, ctx } = underway;
        settle::settle(gateway, session, ctx, error);
        if let Some(slot) = ctx.slot.take() {
            slot.unwrap(session.as_downstream_mut());
        }
        ctx.place = None;
        connection::is_answered(session.as_downstream());
        if std::mem::take(&mut ctx.counted) {
            gateway.metrics.in_flight().dec();
        }
    }

    /// Every failed request has its record; Pingora's own line would only repeat it.
    fn suppress_error_log(&self, _session: &Session, _underway: &Underway, _error: &Error) -> bool {
        true
    }
}

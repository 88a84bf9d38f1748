//! Bounds on what a connection may do before and between its requests. Those on requests themselves are `proxy`'s.
//!
//! Pingora 0.9.1 bounds streams and header lists of HTTP/2, and h2 0.4.20 floods of frames and of resets; neither bounds
//! how many connections there are, nor how long one may take to ask for something. What it lets pass is tried in
//! `tests/clients/test_h2_abuse.py`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::apps::{HttpServerOptions, ServerApp};
use pingora_core::listeners::tls::TlsSettings;
use pingora_core::listeners::{L4BufferSettings, ListenerConfig};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora_core::server::ShutdownWatch;
use pingora_core::server::configuration::ServerConf;
use pingora_core::services::listening::Service;
use pingora_proxy::{HttpProxy, http_proxy};

use super::connections::{BeforeTls, Connections, Open, Standing};
use super::lifecycle::Lifecycle;
use crate::config::Limits;
use crate::proxy::{Paced, Proxy};
use crate::telemetry::metrics::Metrics;

/// What may arrive ahead of its reader, of a stream and of a whole connection. HTTP/2's own 64 KiB would let 25 MiB take
/// 40 s over a line with a round trip of 100 ms. Bodies are read as they come, so it fills only while a reader waits.
const RECEIVE_WINDOW_BYTES: u32 = 1024 * 1024;

/// Of an answer, what waits for a client that reads slowly; h2's own 400 KiB would be 40 MiB on a connection.
const SEND_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Bytes by which Pingora tells HTTP/2 from HTTP/1 on a plain port, RFC 9113 section 3.4. Any HTTP/1.1 head is longer.
const PREFACE_BYTES: usize = 24;

/// What is read ahead of a connection, which keeps so much memory as long as it is open: Pingora's 64 KiB for each one that
/// is silent would be more than a gigabyte of 20,000. Heads fit here as a rule; what reads more at once reads past it.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// The same before TLS: a whole record, so that who speaks no TLS is told so rather than reset with bytes unread.
const TLS_READ_BUFFER_BYTES: usize = 16 * 1024;

/// How long a connection beyond the limit has for its head.
const SPARE_PATIENCE: Duration = Duration::from_secs(1);

/// HTTP/2 counts 32 bytes more for each header than stand in it, RFC 9113 section 6.5.2.
const HEADER_OVERHEAD_BYTES: usize = 32;

/// The bounds of this configuration.
#[derive(Debug)]
pub(super) struct Edge {
    h2: H2Options,
    idle: Duration,
    header_timeout: Duration,
    connections: Arc<Connections>,
}

impl Edge {
    pub(super) fn new(limits: &Limits, metrics: &Arc<Metrics>) -> Self {
        // As wide as our own bound, so that a head over it gets an answer that says so.
        let head =
            limits.header_count_max.saturating_mul(HEADER_OVERHEAD_BYTES).saturating_add(limits.header_bytes_max);
        // Pingora's 100 streams and h2's bounds on resets stay.
        let mut h2 = default_h2_options();
        h2.max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX))
            .initial_window_size(RECEIVE_WINDOW_BYTES)
            .initial_connection_window_size(RECEIVE_WINDOW_BYTES)
            .max_send_buffer_size(SEND_BUFFER_BYTES_MAX);
        Self {
            h2,
            idle: limits.client_idle_timeout,
            header_timeout: limits.header_timeout,
            connections: Connections::new(limits.connections_max, Arc::clone(metrics)),
        }
    }

    /// The service that speaks HTTP/1.1 and HTTP/2 for `proxy`.
    pub(super) fn service(self, conf: &Arc<ServerConf>, proxy: Proxy, lifecycle: Arc<Lifecycle>) -> Service<Prompt> {
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        options.h2_idle_timeout = Some(self.idle);
        let mut proxy = http_proxy(conf, proxy);
        proxy.server_options = Some(options);
        proxy.h2_options = Some(self.h2);
        let Self { idle, header_timeout, connections, .. } = self;
        let prompt = Prompt { proxy: Arc::new(proxy), idle, header_timeout, connections, lifecycle };
        let before_tls = Arc::new(BeforeTls(Arc::clone(&prompt.connections)));
        let mut service = Service::new("proxy".to_owned(), prompt);
        service.endpoints().set_pre_tls_callback(before_tls);
        service
    }
}

/// How to listen on an address, with TLS where there are settings for it.
pub(super) fn listener(address: SocketAddr, tls: Option<TlsSettings>) -> ListenerConfig {
    let ahead = if tls.is_some() { TLS_READ_BUFFER_BYTES } else { READ_BUFFER_BYTES };
    let listener = ListenerConfig::tcp(address.to_string()).l4_buffer(L4BufferSettings::default().read(ahead));
    match tls {
        Some(settings) => listener.tls(settings),
        None => listener,
    }
}

/// The proxy, for as many clients as there may be, and only for those that ask for something in time.
pub(super) struct Prompt {
    proxy: Arc<HttpProxy<Proxy>>,
    /// Of a connection that says nothing at all.
    idle: Duration,
    header_timeout: Duration,
    connections: Arc<Connections>,
    lifecycle: Arc<Lifecycle>,
}

#[async_trait]
impl ServerApp for Prompt {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let _counted = self.lifecycle.connected();
        // Of TLS a connection has been counted before its handshake, and refused there.
        let open = stream.get_ssl_digest().is_none().then(|| self.connections.open());
        let standing = open.as_ref().map_or_else(|| self.connections.standing(), Open::standing);
        if open.is_some() && standing.is_refused() {
            // Boxed: its room would be kept for each connection, as long as it is open.
            Box::pin(self.connections.refuse(stream, standing)).await;
            return None;
        }
        let spare = standing != Standing::Regular;
        let timeout = if spare { self.header_timeout.min(SPARE_PATIENCE) } else { self.header_timeout };
        let mut stream = Paced::begin(stream, timeout, spare).ok()?;
        let mut first = [0; PREFACE_BYTES];
        // On a plain port Pingora waits without end for the bytes that tell HTTP/2 from HTTP/1. TLS streams cannot be
        // peeked at and come back at once: ALPN has told what they speak.
        let begins = tokio::select! {
            begins = pingora_timeout::timeout(timeout.min(self.idle), stream.try_peek(&mut first)) => begins,
            () = self.lifecycle.until_idle_ones_end() => return None,
        };
        match begins {
            Ok(Ok(_)) => self.proxy.process_new(stream, shutdown).await,
            Ok(Err(_)) | Err(_) => None,
        }
    }

    /// Closes connections between two requests, when they are given up.
    async fn cleanup(&self) {
        self.lifecycle.until_idle_ones_end().await;
        self.proxy.cleanup().await;
    }
}

//! Bounds on what a connection may do before and between its requests. Those on requests themselves are `proxy`'s.
//!
//! Pingora 0.9.1 bounds streams and header lists of HTTP/2, and h2 0.4.20 floods of frames and of resets; neither bounds
//! how long a connection may be silent. What it lets pass is tried in `tests/clients/test_h2_abuse.py`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::apps::{HttpServerOptions, ServerApp};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora_core::server::ShutdownWatch;
use pingora_core::server::configuration::ServerConf;
use pingora_core::services::listening::Service;
use pingora_proxy::{HttpProxy, http_proxy};

use crate::config::Limits;
use crate::proxy::Proxy;

/// What may arrive ahead of its reader, of a stream and of a whole connection. HTTP/2's own 64 KiB would let 25 MiB take
/// 40 s over a line with a round trip of 100 ms. Bodies are read as they come, so it fills only while a reader waits.
const RECEIVE_WINDOW_BYTES: u32 = 1024 * 1024;

/// Of an answer, what waits for a client that reads slowly; h2's own 400 KiB would be 40 MiB on a connection.
const SEND_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Bytes by which Pingora tells HTTP/2 from HTTP/1 on a plain port, RFC 9113 section 3.4. Any HTTP/1.1 head is longer.
const PREFACE_BYTES: usize = 24;

/// HTTP/2 counts 32 bytes more for each header than stand in it, RFC 9113 section 6.5.2.
const HEADER_OVERHEAD_BYTES: usize = 32;

/// The bounds of this configuration.
#[derive(Debug)]
pub(super) struct Edge {
    h2: H2Options,
    patience: Duration,
}

impl Edge {
    pub(super) fn new(limits: &Limits) -> Self {
        // As wide as our own bound, so that a head over it gets an answer that says so.
        let head =
            limits.header_count_max.saturating_mul(HEADER_OVERHEAD_BYTES).saturating_add(limits.header_bytes_max);
        // Pingora's 100 streams and h2's bounds on resets stay.
        let mut h2 = default_h2_options();
        h2.max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX))
            .initial_window_size(RECEIVE_WINDOW_BYTES)
            .initial_connection_window_size(RECEIVE_WINDOW_BYTES)
            .max_send_buffer_size(SEND_BUFFER_BYTES_MAX);
        Self { h2, patience: limits.client_idle_timeout }
    }

    /// The service that speaks HTTP/1.1 and HTTP/2 for `proxy`.
    pub(super) fn service(self, conf: &Arc<ServerConf>, proxy: Proxy) -> Service<Prompt> {
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        options.h2_idle_timeout = Some(self.patience);
        let mut proxy = http_proxy(conf, proxy);
        proxy.server_options = Some(options);
        proxy.h2_options = Some(self.h2);
        Service::new("proxy".to_owned(), Prompt { proxy: Arc::new(proxy), patience: self.patience })
    }
}

/// The proxy, for clients that begin to speak in time: on a plain port Pingora waits without end for the bytes that tell
/// HTTP/2 from HTTP/1. What it does not reach: a TLS client that has chosen HTTP/2 and sends no preface.
pub(super) struct Prompt {
    proxy: Arc<HttpProxy<Proxy>>,
    patience: Duration,
}

#[async_trait]
impl ServerApp for Prompt {
    async fn process_new(self: &Arc<Self>, mut stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let mut first = [0; PREFACE_BYTES];
        // TLS streams cannot be peeked at and come back at once: ALPN has told what they speak.
        match pingora_timeout::timeout(self.patience, stream.try_peek(&mut first)).await {
            Ok(Ok(_)) => self.proxy.process_new(stream, shutdown).await,
            Ok(Err(_)) | Err(_) => None,
        }
    }

    async fn cleanup(&self) {
        self.proxy.cleanup().await;
    }
}

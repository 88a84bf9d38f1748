//! How many connections clients may have. One beyond the limit is told so at once, without a byte of it being read: over
//! plain HTTP by an answer in AWS's form, over TLS, where an answer would cost a handshake, by its end.
//!
//! A few beyond the limit are read all the same, because one of them may be a probe of the proxy's health; for anything
//! else `proxy::connection` refuses them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::listeners::PreTlsProcess;
use pingora_core::protocols::l4::stream::Stream as L4Stream;
use pingora_core::protocols::{Shutdown, Stream};
use pingora_core::upstreams::peer::{Tracer, Tracing};
use pingora_core::{Error, ErrorType, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::aws::error_body::{self, ErrorResponse};
use crate::telemetry::metrics::Metrics;

/// Connections beyond the limit that are read.
const SPARE: usize = 32;

/// Refused connections that are read from until their client has closed them: closed with unread bytes they would be
/// reset, and the client might lose its answer. Beyond so many it may.
const LINGERING: usize = 512;

/// So long.
const LINGER: Duration = Duration::from_millis(500);

/// The connections there are.
#[derive(Debug)]
pub(super) struct Connections {
    open: AtomicUsize,
    max: usize,
    refusal: Vec<u8>,
    metrics: Arc<Metrics>,
}

/// One of them, for as long as it lives.
#[derive(Debug)]
pub(super) struct Open {
    connections: Arc<Connections>,
    /// How many there were when it came, with it.
    number: usize,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connections.open.fetch_sub(1, Ordering::Relaxed);
        self.connections.metrics.connections().dec();
    }
}

/// What may be done with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Regular,
    /// For the proxy's own pages.
    Spare,
    /// To be told, and waited for until it goes.
    Refused,
    /// To be told, no more.
    Dropped,
}

impl Standing {
    pub(super) const fn is_refused(self) -> bool {
        matches!(self, Self::Refused | Self::Dropped)
    }
}

impl Connections {
    pub(super) fn new(max: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { open: AtomicUsize::new(0), max, refusal: refusal(), metrics })
    }

    /// Counts one more.
    pub(super) fn open(self: &Arc<Self>) -> Open {
        self.metrics.connections().inc();
        Open { number: self.open.fetch_add(1, Ordering::Relaxed) + 1, connections: Arc::clone(self) }
    }

    /// Where the youngest connection stands now.
    pub(super) fn standing(&self) -> Standing {
        self.standing_of(self.open.load(Ordering::Relaxed))
    }

    fn standing_of(&self, number: usize) -> Standing {
        match number.saturating_sub(self.max) {
            0 => Standing::Regular,
            1..=SPARE => Standing::Spare,
            over if over <= SPARE + LINGERING => Standing::Refused,
            _ => Standing::Dropped,
        }
    }

    /// Tells a plain connection that it cannot be served.
    pub(super) async fn refuse(&self, mut stream: Stream, standing: Standing) {
        self.metrics.connection_refused();
        let told = async {
            stream.write_all(&self.refusal).await?;
            stream.flush().await?;
            if standing == Standing::Refused {
                Shutdown::shutdown(&mut *stream).await;
                let mut rest = [0; 1024];
                while stream.read(&mut rest).await? > 0 {}
            }
            Ok::<_, std::io::Error>(())
        };
        if let Ok(Err(error)) = pingora_timeout::timeout(LINGER, told).await {
            tracing::debug!("a refused connection was not told: {error}");
        }
    }
}

impl Open {
    pub(super) fn standing(&self) -> Standing {
        self.connections.standing_of(self.number)
    }
}

/// Counts TLS connections from before their handshake to their end.
#[derive(Debug)]
pub(super) struct BeforeTls(pub Arc<Connections>);

#[async_trait]
impl PreTlsProcess for BeforeTls {
    async fn process(&self, stream: &mut L4Stream) -> Result<()> {
        let open = self.0.open();
        if open.standing().is_refused() {
            self.0.metrics.connection_refused();
            return Error::e_explain(ErrorType::HandshakeError, "too many connections");
        }
        stream.tracer = Some(Tracer(Box::new(Counted(Arc::new(open)))));
        Ok(())
    }
}

/// Ends with its connection, as all that is in it.
#[derive(Debug, Clone)]
struct Counted(#[expect(dead_code, reason = "it counts while it is there")] Arc<Open>);

impl Tracing for Counted {
    fn on_connected(&self) {}

    fn on_disconnected(&self) {}

    fn boxed_clone(&self) -> Box<dyn Tracing> {
        Box::new(self.clone())
    }
}

fn refusal() -> Vec<u8> {
    let message = "The proxy has more connections than it can take at the moment. Try again in a second.";
    let response = ErrorResponse::new(error_body::ErrorType::ServiceUnavailable, message);
    let response = response.retry_after(Duration::from_secs(1));
    let body = response.body();
    let headers = response.headers().into_iter().map(|(name, value)| format!("{name}: {value}\r\n"));
    let end = format!("content-length: {}\r\nconnection: close\r\n\r\n", body.len());
    let head = [format!("HTTP/1.1 {} Service Unavailable\r\n", response.status), headers.collect(), end];
    [head.concat().into_bytes(), body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(max: usize) -> Arc<Connections> {
        Connections::new(max, Arc::new(Metrics::new().unwrap()))
    }

    #[test]
    fn a_connection_is_counted_until_it_ends() {
        let connections = connections(1);
        let first = connections.open();
        let second = connections.open();
        assert_eq!((first.standing(), second.standing()), (Standing::Regular, Standing::Spare));
        drop(first);
        assert_eq!((connections.standing(), connections.metrics.connections().get()), (Standing::Regular, 1));
        drop(second);
        assert_eq!(connections.metrics.connections().get(), 0);
    }

    #[test]
    fn beyond_the_limit_some_are_read_and_some_more_are_waited_for() {
        let connections = connections(100);
        for (number, standing) in [
            (1, Standing::Regular),
            (100, Standing::Regular),
            (101, Standing::Spare),
            (100 + SPARE, Standing::Spare),
            (101 + SPARE, Standing::Refused),
            (100 + SPARE + LINGERING, Standing::Refused),
            (101 + SPARE + LINGERING, Standing::Dropped),
        ] {
            assert_eq!(connections.standing_of(number), standing, "{number}");
        }
    }

    #[test]
    fn the_refusal_is_a_whole_answer_in_the_form_of_aws() {
        let refusal = String::from_utf8(refusal()).unwrap();
        let (head, body) = refusal.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        for header in ["x-amzn-errortype: ServiceUnavailableException", "retry-after: 1", "connection: close"] {
            assert!(head.contains(header), "{head}");
        }
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        assert!(body.starts_with("{\"message\":"), "{body}");
    }
}

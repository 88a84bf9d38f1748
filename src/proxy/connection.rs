//! A client's connection, which has so long to bring the head of a request: the first from its beginning, each further one
//! on HTTP/1 from its first byte. Between requests Pingora's own timeouts hold.
//!
//! Pingora 0.9.1 bounds each read of an HTTP/1 head and not the whole, so a byte now and then would go on for 64 KiB of
//! them; and it waits without end for the preface of HTTP/2 where TLS has chosen that, and for the first HEADERS as long
//! as frames come. So the stream under it keeps the time, and the gateway tells it when a head is complete. What connects
//! the two is Pingora's `ProxyDigest`, its only place for data of a connection that requests of HTTP/2 see as well.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::{SslDigest, TlsRef};
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType,
};
use pingora_http::ResponseHeader;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{Gateway, gate};
use crate::error::Failure;

/// What the stream and the requests on it know of each other.
#[derive(Debug)]
struct Connection {
    phase: AtomicU8,
    /// One beyond the limit: it is there for the proxy's own pages.
    spare: AtomicBool,
}

/// A head has to be complete in time.
const HEAD: u8 = 0;
/// An HTTP/1 request is being served.
const BUSY: u8 = 1;
/// An HTTP/1 connection waits for its next request.
const KEPT: u8 = 2;
/// HTTP/2, whose first head was complete. From here on Pingora closes it when it is idle.
const OPEN: u8 = 3;

impl Connection {
    fn of(session: &ServerSession) -> Option<&Self> {
        let digest = session.digest()?.proxy_digest.as_ref()?;
        digest.user_data.as_ref()?.downcast_ref::<Arc<Self>>().map(Arc::as_ref)
    }

    fn phase(&self) -> u8 {
        self.phase.load(Ordering::Relaxed)
    }

    fn is_now(&self, phase: u8) {
        self.phase.store(phase, Ordering::Relaxed);
    }
}

/// The head of a request is complete.
pub(super) fn head_is_here(session: &mut ServerSession) {
    let phase = if session.is_http2() { OPEN } else { BUSY };
    let spare = Connection::of(session).is_some_and(|connection| {
        connection.is_now(phase);
        connection.spare.load(Ordering::Relaxed)
    });
    if spare {
        session.set_keepalive(None);
    }
}

/// The request is over; on HTTP/1 there may be another one.
pub(super) fn is_answered(session: &ServerSession) {
    if let Some(connection) = Connection::of(session).filter(|connection| connection.phase() == BUSY) {
        connection.is_now(KEPT);
    }
}

/// Refuses what comes over a spare connection and is not for the proxy's own pages.
///
/// # Errors
/// When there still are too many connections.
pub(super) fn check(gateway: &Gateway, session: &ServerSession) -> Result<(), Failure> {
    let Some(connection) = Connection::of(session).filter(|connection| connection.spare.load(Ordering::Relaxed)) else {
        return Ok(());
    };
    let open = usize::try_from(gateway.metrics.connections().get()).unwrap_or(0);
    if open > gateway.limits.connections_max {
        gateway.metrics.shed("connections");
        return Err(gate::overloaded().because("connections"));
    }
    connection.spare.store(false, Ordering::Relaxed);
    Ok(())
}

/// The stream of a connection, which fails when a head is late.
pub struct Paced {
    stream: Stream,
    connection: Arc<Connection>,
    digest: Arc<ProxyDigest>,
    /// For each head.
    timeout: Duration,
    /// When the present one is late.
    deadline: Instant,
    /// Runs only while a head is waited for.
    timer: Option<Pin<Box<Sleep>>>,
}

impl fmt::Debug for Paced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Paced").field("connection", &self.connection).finish_non_exhaustive()
    }
}

impl Paced {
    /// Begins to count for a connection that is new. A `spare` one serves the proxy's own pages only.
    ///
    /// # Errors
    /// Never; Pingora's constructor of a response header has a result.
    pub fn begin(stream: Stream, timeout: Duration, spare: bool) -> pingora_core::Result<Stream> {
        let connection = Arc::new(Connection { phase: AtomicU8::new(HEAD), spare: AtomicBool::new(spare) });
        // The header belongs to what a digest otherwise tells of, a CONNECT to a proxy.
        let header = Box::new(ResponseHeader::build(200, Some(0))?);
        let digest = Arc::new(ProxyDigest::new(header, Some(Box::new(Arc::clone(&connection)))));
        let deadline = Instant::now() + timeout;
        Ok(Box::new(Self { stream, connection, digest, timeout, deadline, timer: None }))
    }

    /// Whether the head is late; wakes who waits for more of it when it will be.
    fn is_late(&mut self, waits: Option<&mut Context<'_>>) -> bool {
        let deadline = self.deadline;
        match waits {
            Some(cx) => self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline))).as_mut().poll(cx).is_ready(),
            None => Instant::now() >= deadline,
        }
    }
}

impl AsyncRead for Paced {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let phase = self.connection.phase();
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if phase == KEPT && read.is_ready() && buf.filled().len() > before {
            self.connection.is_now(HEAD);
            self.deadline = Instant::now() + self.timeout;
            self.timer = None;
        } else if phase != HEAD {
            self.timer = None;
        } else if self.is_late(read.is_pending().then_some(cx)) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Paced {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[async_trait]
impl Shutdown for Paced {
    async fn shutdown(&mut self) {
        Shutdown::shutdown(&mut *self.stream).await;
    }
}

#[async_trait]
impl Peek for Paced {
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        self.stream.try_peek(buf).await
    }
}

impl UniqueID for Paced {
    fn id(&self) -> UniqueIDType {
        self.stream.id()
    }
}

impl Ssl for Paced {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.stream.get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.stream.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.stream.selected_alpn_proto()
    }
}

impl GetTimingDigest for Paced {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.stream.get_timing_digest()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.stream.get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.stream.get_write_pending_time()
    }
}

impl GetProxyDigest for Paced {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(Arc::clone(&self.digest))
    }
}

impl GetSocketDigest for Paced {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.stream.get_socket_digest()
    }

    fn set_socket_digest(&mut self, socket_digest: SocketDigest) {
        self.stream.set_socket_digest(socket_digest);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A client, its connection with 20 s for each head, and what its requests see of that.
    fn connection() -> (DuplexStream, Stream, Arc<Connection>) {
        let (client, server) = duplex(1024);
        let stream = Paced::begin(Box::new(server), 20 * SECOND, false).unwrap();
        let digest = stream.get_proxy_digest().unwrap();
        let shared = digest.user_data.as_ref().unwrap().downcast_ref::<Arc<Connection>>().unwrap();
        (client, stream, Arc::clone(shared))
    }

    /// Sends a byte each second, as long as they are read.
    async fn drip(client: &mut DuplexStream, stream: &mut Stream, bytes: u64) -> io::Result<u64> {
        for sent in 0..bytes {
            tokio::time::sleep(SECOND).await;
            client.write_all(b"x").await?;
            if stream.read_u8().await.is_err() {
                return Ok(sent);
            }
        }
        Ok(bytes)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_nothing_is_late() {
        let (_client, mut stream, _) = connection();
        let began = Instant::now();
        assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        // Timers have a resolution of a millisecond.
        assert!((20..=21).contains(&began.elapsed().as_secs()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_comes_byte_by_byte_is_late_all_the_same() {
        let (mut client, mut stream, _) = connection();
        assert!((18..=20).contains(&drip(&mut client, &mut stream, 60).await.unwrap()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_has_all_the_time_that_it_is_given_elsewhere() {
        let (mut client, mut stream, shared) = connection();
        shared.is_now(BUSY);
        assert_eq!(drip(&mut client, &mut stream, 60).await.unwrap(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_head_is_late_from_its_first_byte_and_not_before_it() {
        let (mut client, mut stream, shared) = connection();
        shared.is_now(KEPT);
        tokio::time::timeout(300 * SECOND, stream.read_u8()).await.unwrap_err();
        assert!((18..=21).contains(&drip(&mut client, &mut stream, 60).await.unwrap()));
    }
}

//! The session that Pingora sees once a request is admitted: it delegates to the real one and replays the stored body,
//! for each attempt anew.
//!
//! Pingora's own retry buffer stops at 64 KiB and a larger body that was read before would hang; SigV4 needs the whole
//! body before the header. Its `custom` session is the way around both (a hidden API: hence the exact version pin).
//! How the answer goes out is decided in `delivery.rs`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use http::HeaderMap;
use pingora_core::Result;
use pingora_core::protocols::Digest;
use pingora_core::protocols::http::HttpTask;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::custom::CustomMessageWrite;
use pingora_core::protocols::http::custom::server::Session as CustomSession;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_http::{RequestHeader, ResponseHeader};

use super::delivery::{Delivery, Expected, Heard};
use super::shared::Shared;

/// Holds the way back: the real session returns here when the replaying one is dropped.
pub(super) struct Slot {
    home: Home,
    shared: Arc<Shared>,
}

/// Where the real session waits for the way back: a place of a few bytes, for as long as the answer is under way.
type Home = Arc<Mutex<Option<Box<ServerSession>>>>;

impl Slot {
    /// Puts a session of ours in the place of the real one.
    pub(super) fn wrap(session: &mut ServerSession, body: Bytes, shared: Arc<Shared>) -> Self {
        let slot = Self { home: Arc::default(), shared: Arc::clone(&shared) };
        let real = std::mem::replace(session, ServerSession::new_custom(Box::new(())));
        *session = ServerSession::new_custom(Box::new(ReplaySession {
            real: Some(Box::new(real)),
            home: Arc::clone(&slot.home),
            // One piece, whatever it came in: Pingora does not listen to the client while several wait to be sent.
            chunks: if body.is_empty() { Vec::new() } else { vec![body] },
            next: 0,
            delivery: Delivery::new(shared),
        }));
        slot
    }

    /// Puts the real session back, so that Pingora can keep the connection. Not where the client got a part of the answer
    /// only: Pingora would end it as if it were whole, and who stopped reading for a while would take it for that.
    pub(super) fn unwrap(self, session: &mut ServerSession) {
        if self.shared.deserted() {
            return;
        }
        // Dropping the replaying session sends the real one home.
        *session = ServerSession::new_custom(Box::new(()));
        if let Some(real) = self.home.lock().unwrap_or_else(PoisonError::into_inner).take() {
            *session = *real;
        }
    }
}

struct ReplaySession {
    /// `None` only after `drop` sent it home.
    real: Option<Box<ServerSession>>,
    home: Home,
    chunks: Vec<Bytes>,
    /// Which of them is replayed next.
    next: usize,
    delivery: Delivery,
}

impl Drop for ReplaySession {
    fn drop(&mut self) {
        *self.home.lock().unwrap_or_else(PoisonError::into_inner) = self.real.take();
    }
}

impl ReplaySession {
    fn real(&self) -> &ServerSession {
        self.real.as_ref().unwrap_or_else(|| unreachable!("the real session leaves only when this one is dropped"))
    }

    fn real_mut(&mut self) -> &mut ServerSession {
        self.parts().0
    }

    fn parts(&mut self) -> (&mut ServerSession, &mut Delivery) {
        let real = self.real.as_mut();
        let real = real.unwrap_or_else(|| unreachable!("the real session leaves only when this one is dropped"));
        (real, &mut self.delivery)
    }

    /// Waits for the client to go away, at most until the upstream has taken too long.
    async fn wait(&mut self) -> Result<Option<Bytes>> {
        let (real, delivery) = self.parts();
        loop {
            if delivery.is_over() {
                // The upstream's end is next; what a client sends now is its next request.
                return std::future::pending().await;
            }
            match delivery.wait(real, Expected::Nothing).await {
                Ok(Heard::Body(body)) => return Ok(body),
                Ok(Heard::Left) => {}
                Err(error) => {
                    // Boxed, because it is rare and large, and there is a wait for each frame of each stream.
                    Box::pin(delivery.break_off(real, &error)).await?;
                    delivery.let_go(error)?;
                }
            }
        }
    }
}

#[async_trait]
impl CustomSession for ReplaySession {
    fn req_header(&self) -> &RequestHeader {
        self.real().req_header()
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        self.real_mut().req_header_mut()
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        let chunk = self.chunks.get(self.next).cloned();
        self.next = self.next.saturating_add(1);
        Ok(chunk)
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        Ok(())
    }

    async fn write_response_header(&mut self, resp: Box<ResponseHeader>, _end: bool) -> Result<()> {
        self.real_mut().write_response_header(resp).await
    }

    async fn write_response_header_ref(&mut self, resp: &ResponseHeader, _end: bool) -> Result<()> {
        self.real_mut().write_response_header_ref(resp).await
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.real_mut().write_response_body(data, end).await
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.real_mut().write_response_trailers(trailers).await
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        if self.is_body_done() && self.delivery.needs_no_body() {
            self.chunks.clear();
        }
        let (real, delivery) = self.parts();
        delivery.pass(real, tasks).await
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.real_mut().set_read_timeout(timeout);
    }

    fn get_read_timeout(&self) -> Option<Duration> {
        self.real().get_read_timeout()
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.real_mut().set_write_timeout(timeout);
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.real().get_write_timeout()
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.real_mut().set_total_drain_timeout(timeout);
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.real().get_total_drain_timeout()
    }

    fn request_summary(&self) -> String {
        self.real().request_summary()
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.real().response_written()
    }

    async fn shutdown(&mut self, _code: u32, _ctx: &str) {
        self.real_mut().shutdown().await;
    }

    fn is_body_done(&mut self) -> bool {
        self.next >= self.chunks.len()
    }

    async fn finish(&mut self) -> Result<()> {
        if self.delivery.deserted() {
            return Ok(());
        }
        self.real_mut().finish_body().await
    }

    fn is_body_empty(&mut self) -> bool {
        self.chunks.is_empty()
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        if no_body_expected || self.is_body_done() {
            return self.wait().await;
        }
        self.read_body_bytes().await
    }

    fn body_bytes_sent(&self) -> usize {
        self.real().body_bytes_sent()
    }

    fn body_bytes_read(&self) -> usize {
        self.real().body_bytes_read()
    }

    fn digest(&self) -> Option<&Digest> {
        self.real().digest()
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        self.real_mut().digest_mut()
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.real().client_addr()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.real().server_addr()
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        self.real().to_h1_raw()
    }

    /// Pingora calls this at the start of each attempt: the body begins anew.
    fn enable_retry_buffering(&mut self) {
        self.next = 0;
        self.delivery.begin();
    }

    fn retry_buffer_truncated(&self) -> bool {
        false
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        None
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        None
    }

    fn restore_custom_message_reader(
        &mut self,
        _reader: Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>,
    ) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(&mut self, _writer: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
}

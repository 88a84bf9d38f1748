//! The session that Pingora sees once a request is admitted: it delegates to the real one and replays the stored body,
//! for each attempt anew.
//!
//! Pingora's own retry buffer stops at 64 KiB and a larger body that was read before would hang; SigV4 needs the whole
//! body before the header. Its `custom` session is the way around both (a hidden API: hence the exact version pin).
//! The same place can do three more things that need the real session: hold the header of a small answer until its
//! cost is known, watch how long the upstream keeps silent, and end a broken event stream with an exception frame.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use http::HeaderMap;
use pingora_core::protocols::Digest;
use pingora_core::protocols::http::HttpTask;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::custom::CustomMessageWrite;
use pingora_core::protocols::http::custom::server::Session as CustomSession;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};

use crate::aws::error_body::exception_frame;

/// The error type of an upstream that kept silent too long; `failover` turns it into a 408.
pub(super) const UPSTREAM_SILENT: ErrorType = ErrorType::new("UpstreamSilent");

/// What the request's stages and the session share while Pingora owns the session.
#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Whether the event stream stands between two frames: in the middle of one, a further frame could not be read.
    between_frames: AtomicBool,
    /// Whether the answer has gone out to its end.
    answered: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    silence: Option<Silence>,
    /// A header to add to a held answer.
    late_header: Option<(&'static str, String)>,
    hold: bool,
    /// The exception, by a name that the operation models, that ends a broken event stream.
    last_words: Option<&'static str>,
    /// Whether the stream broke and the client was told so by `last_words`.
    told: bool,
}

/// How long the upstream may keep silent, before its first byte and after it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Silence {
    pub first_byte: Duration,
    pub idle: Duration,
}

impl Shared {
    /// Sets the patience of the attempt that begins.
    pub(super) fn watch(&self, silence: Silence) {
        self.lock().silence = Some(silence);
    }

    /// Asks the session to hold the header of this answer until its body is complete.
    pub(super) fn hold(&self) {
        self.lock().hold = true;
    }

    /// Adds a header to the answer that is being held; without effect once it has left.
    pub(super) fn add_header(&self, name: &'static str, value: String) {
        self.lock().late_header = Some((name, value));
    }

    /// Sets what to tell the client should the stream break.
    pub(super) fn last_words(&self, exception: &'static str) {
        self.between_frames.store(true, Ordering::Relaxed);
        self.lock().last_words = Some(exception);
    }

    pub(super) fn between_frames(&self, between: bool) {
        self.between_frames.store(between, Ordering::Relaxed);
    }

    pub(super) fn answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// Whether the stream broke and the client got its last words.
    pub(super) fn told(&self) -> bool {
        self.lock().told
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Holds the way back: the real session returns here when the replaying one is dropped.
#[derive(Default)]
pub(super) struct Slot {
    home: Arc<Mutex<Option<ServerSession>>>,
}

impl Slot {
    /// Puts a session of ours in the place of the real one.
    pub(super) fn wrap(session: &mut ServerSession, body: Body, shared: Arc<Shared>) -> Self {
        let slot = Self::default();
        let real = std::mem::replace(session, ServerSession::new_custom(Box::new(())));
        *session = ServerSession::new_custom(Box::new(ReplaySession {
            real: Some(real),
            home: Arc::clone(&slot.home),
            body,
            shared,
            held: None,
            quiet_until: None,
            started: false,
        }));
        slot
    }

    /// Puts the real session back, so that Pingora can keep the connection.
    pub(super) fn unwrap(self, session: &mut ServerSession) {
        // Dropping the replaying session sends the real one home.
        *session = ServerSession::new_custom(Box::new(()));
        if let Some(real) = self.home.lock().unwrap_or_else(PoisonError::into_inner).take() {
            *session = real;
        }
    }
}

const BROKEN: &str = "The connection to the model broke. What came so far is incomplete.";

/// Where the request body comes from.
pub(super) enum Body {
    /// It was read before: chunks, and which is next.
    Replay(Vec<Bytes>, usize),
    /// It passes by while the answer does.
    Live,
}

/// An answer whose header waits for its body.
struct Held {
    tasks: Vec<HttpTask>,
    bytes: usize,
}

/// Larger answers leave at once, without the headers that depend on their body.
const HELD_BYTES_MAX: usize = 256 * 1024;

struct ReplaySession {
    /// `None` only after `drop` sent it home.
    real: Option<ServerSession>,
    home: Arc<Mutex<Option<ServerSession>>>,
    body: Body,
    shared: Arc<Shared>,
    held: Option<Held>,
    quiet_until: Option<Instant>,
    started: bool,
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
        self.real.as_mut().unwrap_or_else(|| unreachable!("the real session leaves only when this one is dropped"))
    }

    /// Waits for the client, at most until the upstream has been silent too long: for the next piece of its body, or
    /// for it to go away where no body is expected.
    async fn wait(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        let Some(deadline) = self.quiet_until else {
            return self.real_mut().read_body_or_idle(no_body_expected).await;
        };
        let left = deadline.saturating_duration_since(Instant::now());
        match pingora_timeout::timeout(left, self.real_mut().read_body_or_idle(no_body_expected)).await {
            Ok(read) => read,
            Err(_elapsed) => {
                if let Some(frame) = self.take_last_words() {
                    self.real_mut().response_duplex_vec(vec![HttpTask::Body(Some(frame), true)]).await?;
                }
                Error::e_explain(UPSTREAM_SILENT, "no byte of the upstream within its time")
            }
        }
    }

    fn take_last_words(&self) -> Option<Bytes> {
        if !self.shared.between_frames.load(Ordering::Relaxed) {
            return None;
        }
        let mut state = self.shared.lock();
        let exception = state.last_words.take()?;
        state.told = true;
        Some(Bytes::from(exception_frame(exception, BROKEN)))
    }

    /// A broken event stream ends with an exception frame: a bare end looks like success to several SDKs.
    fn mend(&self, tasks: &mut [HttpTask]) {
        if let Some(task) = tasks.iter_mut().find(|task| matches!(task, HttpTask::Failed(_)))
            && let Some(frame) = self.take_last_words()
        {
            log::warn!("upstream broke in mid-stream: {task:?}");
            *task = HttpTask::Body(Some(frame), true);
        }
    }

    /// Starts the clock of the upstream's next silence.
    fn heard(&mut self) {
        self.quiet_until = self
            .shared
            .lock()
            .silence
            .map(|silence| Instant::now() + if self.started { silence.idle } else { silence.first_byte });
    }

    /// Keeps `tasks` back while the answer may still gain a header. Gives them all when the answer is complete, has
    /// grown too large or failed.
    fn hold(&mut self, tasks: Vec<HttpTask>) -> Option<Vec<HttpTask>> {
        let begins =
            tasks.iter().any(|task| matches!(task, HttpTask::Header(header, _) if !header.status.is_informational()));
        if self.held.is_none() && !(begins && std::mem::take(&mut self.shared.lock().hold)) {
            return Some(tasks);
        }
        let held = self.held.get_or_insert_with(|| Held { tasks: Vec::with_capacity(4), bytes: 0 });
        for task in tasks {
            if let HttpTask::Body(Some(data), _) = &task {
                held.bytes = held.bytes.saturating_add(data.len());
            }
            held.tasks.push(task);
        }
        let complete = held.tasks.iter().any(|task| task.is_end() || matches!(task, HttpTask::Failed(_)));
        if !complete && held.bytes <= HELD_BYTES_MAX {
            return None;
        }
        let mut tasks = self.held.take().map(|held| held.tasks).unwrap_or_default();
        if let Some((name, value)) = self.shared.lock().late_header.take()
            && let Some(HttpTask::Header(header, _)) =
                tasks.iter_mut().find(|task| matches!(task, HttpTask::Header(..)))
            && let Err(error) = header.insert_header(name, value)
        {
            log::warn!("header {name} left out: {error}");
        }
        Some(tasks)
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
        match &mut self.body {
            Body::Replay(chunks, next) => {
                let chunk = chunks.get(*next).cloned();
                *next = next.saturating_add(1);
                Ok(chunk)
            }
            Body::Live => self.real_mut().read_request_body().await,
        }
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

    async fn response_duplex_vec(&mut self, mut tasks: Vec<HttpTask>) -> Result<bool> {
        self.started = true;
        self.heard();
        self.mend(&mut tasks);
        match self.hold(tasks) {
            Some(tasks) => {
                let ended = self.real_mut().response_duplex_vec(tasks).await?;
                self.shared.answered.store(ended, Ordering::Relaxed);
                Ok(ended)
            }
            None => Ok(false),
        }
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
        match &self.body {
            Body::Replay(chunks, next) => *next >= chunks.len(),
            // Nobody is left to read what a client still sends after its answer.
            Body::Live => self.shared.answered() || self.real_mut().is_body_done(),
        }
    }

    async fn finish(&mut self) -> Result<()> {
        self.real_mut().finish_body().await
    }

    fn is_body_empty(&mut self) -> bool {
        match &self.body {
            Body::Replay(chunks, _) => chunks.is_empty(),
            Body::Live => self.real_mut().is_body_empty(),
        }
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        let replays = matches!(self.body, Body::Replay(..));
        if no_body_expected || replays && self.is_body_done() {
            return self.wait(true).await;
        }
        match self.body {
            Body::Replay(..) => self.read_body_bytes().await,
            Body::Live if self.shared.answered() => Ok(None),
            Body::Live => {
                let chunk = self.wait(false).await?;
                self.heard();
                Ok(chunk)
            }
        }
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
        if let Body::Replay(_, next) = &mut self.body {
            *next = 0;
        }
        self.held = None;
        self.started = false;
        self.heard();
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

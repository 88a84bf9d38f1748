//! The session that Pingora sees once a request is admitted: it delegates to the real one and replays the stored body,
//! for each attempt anew.
//!
//! Pingora's own retry buffer stops at 64 KiB and a larger body that was read before would hang; SigV4 needs the whole
//! body before the header. Its `custom` session is the way around both (a hidden API: hence the exact version pin).
//! The same place can do more that needs the real session: hold the header of a small answer until its cost is known,
//! watch how long the upstream keeps silent, end a stream when its budget is used up, and read an answer to its end
//! when the client went away, because its last bytes say what it cost. What goes out of an event stream, and how it
//! ends, is decided in `event_stream.rs`.

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

use super::event_stream::{Ended, EventStream, LastWords};
use super::purse::Purse;

/// The error type of an upstream that kept silent too long; `failover` turns it into a 408.
pub(super) const UPSTREAM_SILENT: ErrorType = ErrorType::new("UpstreamSilent");

/// The error type of a stream that was ended because nothing is left to pay for more of it.
pub(super) const BUDGET_SPENT: ErrorType = ErrorType::new("BudgetSpent");

/// What the request's stages and the session share while Pingora owns the session.
#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Whether the answer has gone out to its end.
    answered: AtomicBool,
    /// Whether the client went away and the answer is read for its bill alone.
    deserted: AtomicBool,
    /// What is set aside for the attempt under way.
    pub purse: Purse,
}

#[derive(Debug, Default)]
struct State {
    silence: Option<Silence>,
    /// Headers to add to a held answer.
    late_headers: Vec<(&'static str, String)>,
    hold: bool,
    /// Set when the answer that begins is an event stream.
    last_words: Option<LastWords>,
    ended: Option<Ended>,
    /// How far an answer is read on that nobody waits for.
    drain: Option<Drain>,
}

/// Bounds on reading an answer whose client went away.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drain {
    pub timeout: Duration,
    pub bytes_max: usize,
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

    /// Adds a header to the answer that is being held, in place of one of that name; without effect once it has left.
    pub(super) fn add_header(&self, name: &'static str, value: String) {
        self.lock().late_headers.push((name, value));
    }

    /// Announces an event stream, and what to tell the client should it have to end before its time.
    pub(super) fn last_words(&self, exceptions: LastWords) {
        self.lock().last_words = Some(exceptions);
    }

    /// Lets an answer be read on, within bounds, after its client went away.
    pub(super) fn drain(&self, drain: Drain) {
        self.lock().drain = Some(drain);
    }

    /// Whether the client went away before the answer was complete.
    pub(super) fn deserted(&self) -> bool {
        self.deserted.load(Ordering::Relaxed)
    }

    pub(super) fn answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// Why the stream was ended with an exception frame of ours, if it was.
    pub(super) fn ended(&self) -> Option<Ended> {
        self.lock().ended
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Holds the way back: the real session returns here when the replaying one is dropped.
pub(super) struct Slot {
    home: Arc<Mutex<Option<ServerSession>>>,
    shared: Arc<Shared>,
}

impl Slot {
    /// Puts a session of ours in the place of the real one.
    pub(super) fn wrap(session: &mut ServerSession, body: Body, shared: Arc<Shared>) -> Self {
        let slot = Self { home: Arc::default(), shared: Arc::clone(&shared) };
        let real = std::mem::replace(session, ServerSession::new_custom(Box::new(())));
        *session = ServerSession::new_custom(Box::new(ReplaySession {
            real: Some(real),
            home: Arc::clone(&slot.home),
            body,
            shared,
            held: None,
            quiet_until: None,
            started: false,
            events: None,
            deserted: None,
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
            *session = real;
        }
    }
}

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

/// Whether an answer's header is among `tasks`.
fn begins(tasks: &[HttpTask]) -> bool {
    tasks.iter().any(|task| matches!(task, HttpTask::Header(header, _) if !header.status.is_informational()))
}

fn too_long() -> Box<Error> {
    Error::explain(ErrorType::ConnectionClosed, "the client went away and the answer is too long to be read on")
        .into_down()
}

struct ReplaySession {
    /// `None` only after `drop` sent it home.
    real: Option<ServerSession>,
    home: Arc<Mutex<Option<ServerSession>>>,
    body: Body,
    shared: Arc<Shared>,
    held: Option<Held>,
    quiet_until: Option<Instant>,
    started: bool,
    /// The answer, where it is an event stream.
    events: Option<EventStream>,
    deserted: Option<Deserted>,
}

/// An answer that is read on without a client.
struct Deserted {
    until: Instant,
    bytes_left: usize,
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
        if self.deserted.is_none() {
            let read = match self.quiet_until {
                None => Ok(self.real_mut().read_body_or_idle(no_body_expected).await),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    pingora_timeout::timeout(left, self.real_mut().read_body_or_idle(no_body_expected)).await
                }
            };
            match read {
                Ok(Err(error)) if !(no_body_expected && self.desert()) => return Err(error),
                Ok(Ok(read)) => return Ok(read),
                Ok(Err(_)) => {}
                Err(_elapsed) => return self.silent().await,
            }
        }
        // Nobody waits any more, but the bill is still to come.
        let until = self.deserted.as_ref().map(|deserted| deserted.until);
        let deadline = [until, self.quiet_until].into_iter().flatten().min().unwrap_or_else(Instant::now);
        tokio::time::sleep_until(deadline.into()).await;
        Err(Error::explain(ErrorType::ConnectionClosed, "the client went away and the answer took too long to end")
            .into_down())
    }

    async fn silent(&mut self) -> Result<Option<Bytes>> {
        if self.shared.ended().is_none()
            && let Some(frame) = self.end_events(Ended::Broken)
        {
            self.real_mut().response_duplex_vec(vec![HttpTask::Body(Some(frame), true)]).await?;
        }
        Error::e_explain(UPSTREAM_SILENT, "no byte of the upstream within its time")
    }

    /// The client went away. True when the answer is to be read on.
    fn desert(&mut self) -> bool {
        let drain = self.shared.lock().drain;
        if let Some(drain) = drain {
            self.shared.deserted.store(true, Ordering::Relaxed);
            self.deserted = Some(Deserted { until: Instant::now() + drain.timeout, bytes_left: drain.bytes_max });
            self.real_mut().set_keepalive(None);
        }
        self.deserted.is_some()
    }

    /// Keeps back what of an event stream is not yet a whole frame; a stream that breaks gets its exception frame.
    fn whole_frames(&mut self, tasks: Vec<HttpTask>) -> Vec<HttpTask> {
        if begins(&tasks) {
            self.events = self.shared.lock().last_words.take().map(EventStream::new);
        }
        let Some(events) = &mut self.events else {
            return tasks;
        };
        let tasks = events.pass(tasks);
        if let Some(ended) = events.ended() {
            self.shared.lock().ended = Some(ended);
        }
        tasks
    }

    /// The frame that ends an event stream before its time, if the answer is one.
    fn end_events(&mut self, why: Ended) -> Option<Bytes> {
        let frame = self.events.as_mut()?.end(why)?;
        self.shared.lock().ended = Some(why);
        Some(frame)
    }

    /// Hands `tasks` to the client, or drops them when it went away. True when the answer is complete.
    async fn deliver(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let ends = tasks.iter().any(HttpTask::is_end);
        if let Some(deserted) = &mut self.deserted {
            for task in tasks {
                match task {
                    HttpTask::Failed(error) => return Err(error),
                    HttpTask::Body(Some(data), _) => {
                        deserted.bytes_left = deserted.bytes_left.checked_sub(data.len()).ok_or_else(too_long)?;
                    }
                    _ => {}
                }
            }
            return Ok(ends);
        }
        let failed = tasks.iter().any(|task| matches!(task, HttpTask::Failed(_)));
        match self.real_mut().response_duplex_vec(tasks).await {
            Ok(ended) => {
                self.shared.answered.store(ended, Ordering::Relaxed);
                Ok(ended)
            }
            Err(_) if !failed && self.desert() => Ok(ends),
            Err(error) => Err(error),
        }
    }

    /// Ends an answer that nothing is left to pay for: what came last is not paid, and does not go out.
    async fn end_unpaid(&mut self, mut tasks: Vec<HttpTask>) -> Result<bool> {
        if let Some(frame) = self.end_events(Ended::BudgetSpent) {
            tasks.retain(|task| matches!(task, HttpTask::Header(..)));
            tasks.push(HttpTask::Body(Some(frame), true));
            self.deliver(tasks).await?;
        }
        Error::e_explain(BUDGET_SPENT, "nothing is left to pay for more of this answer")
    }

    /// Starts the clock of the upstream's next silence.
    fn heard(&mut self) {
        self.quiet_until = self
            .shared
            .lock()
            .silence
            .map(|silence| Instant::now() + if self.started { silence.idle } else { silence.first_byte });
    }

    /// Keeps `tasks` back while the answer may still gain a header. Gives them all when the answer is complete or has
    /// grown too large. Of one that failed nothing is given but the failure: the client can still be told by an error.
    fn hold(&mut self, tasks: Vec<HttpTask>) -> Option<Vec<HttpTask>> {
        if self.held.is_none() && !(begins(&tasks) && std::mem::take(&mut self.shared.lock().hold)) {
            return Some(tasks);
        }
        let held = self.held.get_or_insert_with(|| Held { tasks: Vec::with_capacity(4), bytes: 0 });
        for task in tasks {
            if let HttpTask::Body(Some(data), _) = &task {
                held.bytes = held.bytes.saturating_add(data.len());
            }
            held.tasks.push(task);
        }
        if let Some(failure) = held.tasks.iter().position(|task| matches!(task, HttpTask::Failed(_))) {
            let held = self.held.take()?;
            return Some(held.tasks.into_iter().skip(failure).collect());
        }
        if !held.tasks.iter().any(HttpTask::is_end) && held.bytes <= HELD_BYTES_MAX {
            return None;
        }
        let mut tasks = self.held.take().map(|held| held.tasks).unwrap_or_default();
        let late = std::mem::take(&mut self.shared.lock().late_headers);
        if let Some(HttpTask::Header(header, _)) = tasks.iter_mut().find(|task| matches!(task, HttpTask::Header(..))) {
            for (name, value) in late {
                if let Err(error) = header.insert_header(name, value) {
                    log::warn!("header {name} left out: {error}");
                }
            }
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

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        self.started = true;
        self.heard();
        let tasks = self.whole_frames(tasks);
        let Some(tasks) = self.hold(tasks) else {
            return Ok(false);
        };
        if !self.shared.purse.suffices().await {
            return self.end_unpaid(tasks).await;
        }
        if tasks.is_empty() {
            return Ok(false);
        }
        self.deliver(tasks).await
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
        if self.deserted.is_some() {
            return Ok(());
        }
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
        self.events = None;
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

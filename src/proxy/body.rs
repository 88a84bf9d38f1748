//! Reads the request body whole, into one piece of memory: bounded, hashed on the way, against a deadline.
//!
//! SigV4 signs the hash of the body in the header, so nothing can be sent before the last byte is here. The total of
//! all bodies in memory is bounded too; over that bound a request is asked to come back rather than made to wait,
//! because waiting bodies are what fills memory; how it is shared is `admission::room`'s business. HTTP/2 has no read
//! timeout in Pingora, so the deadlines are ours.

mod buffer;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use pingora_core::protocols::http::ServerSession;

use self::buffer::Buffer;
use crate::admission::{Whose, room};
use crate::aws::error_body::ErrorType;
use crate::aws::sigv4::{HexDigest, PayloadHasher};
use crate::config::Limits;
use crate::error::{Failure, Fault};
use crate::telemetry::metrics::Metrics;

const KIBIBYTE: usize = 1024;

/// A request body, complete.
#[derive(Debug)]
pub(super) struct RequestBody {
    content: Bytes,
    /// Its length, also after it was let go.
    pub bytes: usize,
    pub sha256: HexDigest,
    /// Gives the room in memory back when the request ends.
    room: Option<Held>,
}

/// The memory that bodies may take together, counted in KiB.
#[derive(Debug, Clone)]
pub(super) struct Room {
    kibibytes: Arc<Mutex<room::Room>>,
    metrics: Arc<Metrics>,
}

/// A part of the room, held by one request.
#[derive(Debug)]
struct Held {
    room: Room,
    whose: Whose,
    kibibytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.room.lock().give_back(&self.whose, self.kibibytes);
        self.room.metrics.body_kibibytes_released(self.kibibytes);
    }
}

impl Held {
    /// Holds `bytes` from now on, or what it holds already if that is more.
    fn cover(&mut self, bytes: usize) -> Result<(), Failure> {
        let more = bytes.div_ceil(KIBIBYTE).saturating_sub(self.kibibytes);
        if more == 0 {
            return Ok(());
        }
        if !self.room.lock().take(&self.whose, more) {
            self.room.metrics.shed("buffer_full");
            return Err(no_room());
        }
        self.kibibytes += more;
        self.room.metrics.body_kibibytes_held(more);
        Ok(())
    }
}

impl Room {
    pub(super) fn new(limits: &Limits, metrics: Arc<Metrics>) -> Self {
        let room = room::Room::new(limits.buffered_bytes_max / KIBIBYTE, limits.body_bytes_max.div_ceil(KIBIBYTE));
        Self { kibibytes: Arc::new(Mutex::new(room)), metrics }
    }

    /// Nothing yet, for a request of `whose`.
    fn hold(&self, whose: Whose) -> Held {
        Held { room: self.clone(), whose, kibibytes: 0 }
    }

    fn lock(&self) -> MutexGuard<'_, room::Room> {
        // No change of the numbers can panic halfway.
        self.kibibytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RequestBody {
    /// The body of a bidirectional stream: it passes by, frame by frame, and is never here.
    pub(super) fn streamed() -> Self {
        Self { content: Bytes::new(), bytes: 0, sha256: PayloadHasher::new().finish_hex(), room: None }
    }

    /// Its sender is known now: the body takes no more of the share of those who are not.
    pub(super) fn is_proven(&mut self, proven: &Whose) {
        if let Some(held) = &mut self.room {
            held.room.lock().prove(&held.whose, proven, held.kibibytes);
            held.whose = proven.clone();
        }
    }

    /// It is not sent again: its memory is others'. A stream may last for many minutes.
    pub(super) fn let_go(&mut self) {
        self.content = Bytes::new();
        self.room = None;
    }

    /// The bytes of the body; none any more where it was let go.
    pub(super) const fn content(&self) -> &Bytes {
        &self.content
    }

    /// The same request with another body.
    pub(super) fn replace(&mut self, body: Bytes) {
        let mut hasher = PayloadHasher::new();
        hasher.update(&body);
        self.sha256 = hasher.finish_hex();
        self.bytes = body.len();
        self.content = body;
    }
}

/// Reads the body of `session`.
///
/// # Errors
/// A [`Failure`] that says what was wrong with the body: too large, too slow, shorter than announced.
pub(super) async fn read(
    session: &mut ServerSession,
    limits: &Limits,
    room: &Room,
    whose: Whose,
) -> Result<RequestBody, Failure> {
    let announced = announced_length(session)?;
    if announced.is_some_and(|length| length > limits.body_bytes_max) {
        return Err(too_large(limits));
    }
    let mut held = room.hold(whose);
    held.cover(announced.unwrap_or(0))?;
    welcome(session).await?;
    session.set_read_timeout(Some(limits.client_idle_timeout));
    let pace = Pace::new(limits, Instant::now());
    let mut buffer = Buffer::new(announced, limits.body_bytes_max);
    let mut hasher = PayloadHasher::new();
    while let Some(chunk) = next_chunk(session, pace.deadline(buffer.len()), limits.client_idle_timeout).await? {
        if chunk.is_empty() {
            continue;
        }
        let bytes = buffer.len().saturating_add(chunk.len());
        if bytes > limits.body_bytes_max {
            return Err(too_large(limits));
        }
        held.cover(bytes)?;
        hasher.update(&chunk);
        buffer.push(chunk).map_err(|error| no_room().because(error.to_string()))?;
    }
    let bytes = buffer.len();
    if let Some(announced) = announced.filter(|announced| *announced != bytes) {
        return Err(Failure::client(
            "body_short",
            ErrorType::Validation,
            format!(
                "The request body ended after {bytes} bytes, but Content-Length announced {announced}. Send the whole \
                 body."
            ),
        ));
    }
    Ok(RequestBody { content: buffer.finish(), bytes, sha256: hasher.finish_hex(), room: Some(held) })
}

/// How slowly a body may arrive.
struct Pace {
    began: Instant,
    /// The whole of it.
    timeout: Duration,
    /// Before this nobody is too slow: a connection has to get going, and small bodies are here by then.
    grace: Duration,
    /// Bytes per second on average since the beginning; 0 without a bound.
    rate_min: u64,
}

/// A client that is slower than the minimum for so long is no client with a slow start.
const GRACE: Duration = Duration::from_secs(10);

impl Pace {
    fn new(limits: &Limits, began: Instant) -> Self {
        // Nobody may be slow for longer than he may be silent.
        let grace = GRACE.min(limits.client_idle_timeout);
        Self { began, timeout: limits.body_timeout, grace, rate_min: limits.client_rate_min }
    }

    /// When the next piece has to be here, `bytes` having come so far.
    fn deadline(&self, bytes: usize) -> Instant {
        let millis = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(1000).checked_div(self.rate_min);
        let earned = millis.map_or(self.timeout, Duration::from_millis);
        self.began + earned.max(self.grace).min(self.timeout)
    }
}

/// Tells a client that waits for it to send its body.
///
/// # Errors
/// When it went away.
pub(super) async fn welcome(session: &mut ServerSession) -> Result<(), Failure> {
    if expects_continue(session) {
        // Pingora takes the 100 for an answer before the body's end, after which it would close the connection.
        session.set_close_on_response_before_downstream_finish(false);
        session.write_continue_response().await.map_err(|error| gone(&error))?;
        session.set_close_on_response_before_downstream_finish(true);
    }
    Ok(())
}

async fn next_chunk(
    session: &mut ServerSession,
    deadline: Instant,
    idle_timeout: Duration,
) -> Result<Option<Bytes>, Failure> {
    let left = deadline.saturating_duration_since(Instant::now()).min(idle_timeout);
    match pingora_timeout::timeout(left, session.read_request_body()).await {
        Ok(Ok(chunk)) => Ok(chunk),
        Ok(Err(error)) if *error.etype() == pingora_core::ErrorType::ReadTimedout => Err(too_slow()),
        Ok(Err(error)) => Err(gone(&error)),
        Err(_elapsed) => Err(too_slow()),
    }
}

/// Refuses what its client has reset already. A storm of resets is sent in one go, so most of it is known by now, and what
/// is not sent on is not billed.
///
/// # Errors
/// When nobody waits for the answer any more.
pub(super) fn check_still_wanted(session: &mut ServerSession) -> Result<(), Failure> {
    // HTTP/1 has no sign for it but the end of the connection, and looking for that is a system call.
    if session.is_http2() && session.read_body_or_idle(true).now_or_never().is_some() {
        return Err(gone("reset before it was sent on"));
    }
    Ok(())
}

fn announced_length(session: &ServerSession) -> Result<Option<usize>, Failure> {
    let header = session.req_header();
    let mut lengths = header.headers.get_all(http::header::CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else {
        // A request without either header has no body in HTTP/1; in HTTP/2 the stream says when it ends.
        return Ok(None);
    };
    let text = length.to_str().unwrap_or("");
    if lengths.next().is_some() || text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ambiguous("Content-Length must be one decimal number."));
    }
    text.parse().map(Some).map_err(|_| ambiguous("Content-Length must be one decimal number."))
}

fn expects_continue(session: &ServerSession) -> bool {
    session.get_header(http::header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Refuses what two parsers could read as two different requests.
///
/// # Errors
/// When the framing of the body is ambiguous.
pub(super) fn check_framing(session: &ServerSession) -> Result<(), Failure> {
    announced_length(session)?;
    let header = session.req_header();
    let mut codings = header.headers.get_all(http::header::TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else {
        return Ok(());
    };
    if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Err(ambiguous("Transfer-Encoding must be `chunked` or absent."));
    }
    // Pingora drops Content-Length where both are present, so only the raw head still shows it.
    let raw = session.to_h1_raw();
    let both = raw.split(|byte| *byte == b'\n').skip(1).any(|line| {
        line.get(..15).is_some_and(|name| name.eq_ignore_ascii_case(b"content-length:"))
            || line.get(..15).is_some_and(|name| name.eq_ignore_ascii_case(b"content-length "))
    });
    if both {
        return Err(ambiguous("Send either Content-Length or Transfer-Encoding, not both."));
    }
    Ok(())
}

fn ambiguous(message: &str) -> Failure {
    Failure::client("ambiguous_framing", ErrorType::Validation, message)
}

fn too_large(limits: &Limits) -> Failure {
    Failure::client(
        "body_too_large",
        ErrorType::Validation,
        format!(
            "The request body is larger than {} bytes. Send less, or have the operator raise \
             general_settings.max_request_size_mb.",
            limits.body_bytes_max
        ),
    )
    .with(|response| response.status(413))
}

fn too_slow() -> Failure {
    Failure::client("body_too_slow", ErrorType::Validation, "The request body did not arrive in time. Send it again.")
        .with(|response| response.status(408).no_retry())
}

fn no_room() -> Failure {
    Failure::new(
        Fault::Limit,
        "buffer_full",
        ErrorType::ServiceUnavailable,
        "Too many large requests are in flight. Try again in a second.",
    )
    .with(|response| response.retry_after(Duration::from_secs(1)))
}

fn gone(error: impl std::fmt::Display) -> Failure {
    Failure::new(
        Fault::Disconnect,
        "client_gone",
        ErrorType::Validation,
        "The request body ended before it was complete. Send the whole body.",
    )
    .because(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pace(rate_min: u64) -> Pace {
        Pace { began: Instant::now(), timeout: 60 * SECOND, grace: 10 * SECOND, rate_min }
    }

    #[test]
    fn a_body_has_to_keep_the_minimum_rate_after_its_grace() {
        let pace = pace(500);
        for (bytes, seconds) in [(0, 10), (5_000, 10), (5_500, 11), (25_000, 50), (30_000, 60), (1_000_000, 60)] {
            assert_eq!(pace.deadline(bytes) - pace.began, seconds * SECOND, "{bytes}");
        }
    }

    #[test]
    fn without_a_minimum_only_the_whole_counts() {
        let pace = pace(0);
        assert_eq!(pace.deadline(0) - pace.began, 60 * SECOND);
    }

    #[test]
    fn the_grace_is_no_longer_than_the_body_may_take() {
        let pace = Pace { timeout: SECOND, ..pace(500) };
        assert_eq!(pace.deadline(0) - pace.began, SECOND);
    }
}

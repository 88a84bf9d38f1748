//! What the stages of a request and the delivery of its answer tell each other: how long to wait, what to add, how to
//! end, and what the answer may still cost.
//!
//! It decides nothing. Pingora keeps the stages and the session apart, so a lock is the way between them.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{Shutdown, shutdown};
use pingora_core::{Error, ErrorType};

use super::event_stream::{Ended, LastWords};
use super::purse::Purse;
use super::stop::Stop;

/// The error type of an upstream that kept silent too long, or whose stream had no content in time; `failover` turns it
/// into a 408 where it can.
pub(super) const UPSTREAM_SILENT: ErrorType = ErrorType::new("UpstreamSilent");

/// The error type of an answer that was not complete in time.
pub(super) const TOTAL_TIMEOUT: ErrorType = ErrorType::new("TotalTimeout");

/// The error type of a stream that ended before its content. Only raised while nothing of it has left, and another
/// deployment may be asked.
pub(super) const BROKE_FIRST: ErrorType = ErrorType::new("BrokeFirst");

/// The error type of an answer that says that the prompt is too long for the model. Only raised where somebody watches
/// for it.
pub(super) const CONTEXT_WINDOW: ErrorType = ErrorType::new("ContextWindow");

/// The error type of a stream one of whose frames is not what was sent.
pub(super) const DAMAGED: ErrorType = ErrorType::new("Damaged");

/// The error type of a stream that was ended because nothing is left to pay for more of it.
pub(super) const BUDGET_SPENT: ErrorType = ErrorType::new("BudgetSpent");

/// The error type of a request that is ended because the process ends.
pub(super) const STOPPING: ErrorType = ErrorType::new("Stopping");

/// What the request's stages and the delivery of its answer share while the answer is on its way.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Whether the client went away and the answer is read for its bill alone.
    deserted: AtomicBool,
    /// How far a stream is from its first content: one of the three below.
    opening: AtomicU8,
    /// How much of the answer was found to be whole frames of an event stream.
    whole_bytes: AtomicU64,
    /// Whether somebody has a use for [`CONTEXT_WINDOW`].
    watch_context_window: AtomicBool,
    /// Whether nobody will be asked any more, so that the request's body is not needed once it has been sent.
    settled_on: AtomicBool,
    /// What is set aside for the attempt under way.
    pub purse: Purse,
    /// When to end it, however far it is.
    pub stop: Stop,
}

/// The answer is no stream whose content can be told, or the content has come.
const OVER: u8 = 0;
/// Its content is waited for, and what comes before leaves as it comes.
const AWAITED: u8 = 1;
/// The same, but nothing leaves.
const HELD: u8 = 2;

/// Headers of ours.
pub(super) type Headers = Vec<(&'static str, String)>;

#[derive(Debug, Default)]
struct State {
    silence: Option<Silence>,
    /// The attempt's own connection, while Pingora holds it.
    upstream: Option<RawFd>,
    /// Headers of ours for a held answer, in the order in which it gets them.
    late_headers: Headers,
    hold: bool,
    /// Set when the answer that begins is an event stream.
    last_words: Option<LastWords>,
    ended: Option<Ended>,
    exception: Option<String>,
    flaw: Option<Flaw>,
    /// The lowest rate at which a client takes its answer, in bytes a second; 0 for any.
    client_rate_min: u64,
    /// How far an answer is read on that nobody waits for.
    drain: Option<Drain>,
}

/// Bounds on reading an answer whose client went away.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drain {
    pub timeout: Duration,
    pub bytes_max: usize,
}

/// How long the upstream may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Silence {
    /// Until the first byte, and of a stream until its first content.
    pub first_byte: Duration,
    /// Between two bytes.
    pub idle: Duration,
    /// For the whole answer.
    pub total: Option<Duration>,
}

/// What was wrong with an answer that began as a success: as a rule a failure of the deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// An exception frame; [`Shared::exception`] has its name.
    Exception,
    /// It ended before its end.
    Broke,
    /// It was not as it was sent.
    Damaged,
    /// It ended as if it were whole, before it had said how much was used.
    Short,
    /// It stopped, or its content did not begin.
    Silent,
    /// It did not end in time.
    TooLong,
}

impl Flaw {
    /// The word for metrics.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Exception => "exception",
            Self::Broke => "broke",
            Self::Damaged => "damaged",
            Self::Short => "short",
            Self::Silent => "silent",
            Self::TooLong => "too_long",
        }
    }
}

impl Shared {
    pub(super) fn new(stop: Stop) -> Self {
        Self {
            state: Mutex::default(),
            deserted: AtomicBool::default(),
            opening: AtomicU8::new(OVER),
            whole_bytes: AtomicU64::default(),
            watch_context_window: AtomicBool::default(),
            settled_on: AtomicBool::default(),
            purse: Purse::default(),
            stop,
        }
    }

    /// An attempt begins: sets its patience, and forgets the answer of the one before.
    pub(super) fn watch(&self, silence: Silence) {
        self.opening.store(OVER, Ordering::Relaxed);
        self.whole_bytes.store(0, Ordering::Relaxed);
        let mut state = self.lock();
        (state.silence, state.upstream) = (Some(silence), None);
        state.late_headers.clear();
        (state.hold, state.last_words) = (false, None);
        (state.ended, state.exception, state.flaw) = (None, None, None);
    }

    /// Notes the connection of the attempt: one that serves nothing else.
    pub(super) fn connected(&self, upstream: RawFd) {
        self.lock().upstream = Some(upstream);
    }

    /// Ends the connection of the attempt, as if the upstream had. Only for the session that Pingora passes the answer to: it
    /// holds the connection meanwhile. False where there is none of its own.
    pub(super) fn close_upstream(&self) -> bool {
        let upstream = self.lock().upstream;
        // One that was reset meanwhile ends by itself.
        upstream.is_some_and(|upstream| matches!(shutdown(upstream, Shutdown::Both), Ok(()) | Err(Errno::ENOTCONN)))
    }

    /// Announces a stream whose content is waited for. `hold`: nothing of it leaves before.
    pub(super) fn await_content(&self, hold: bool) {
        self.opening.store(if hold { HELD } else { AWAITED }, Ordering::Relaxed);
    }

    /// The answer under way is the one that the client gets.
    pub(super) fn settle_on(&self) {
        self.settled_on.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_settled_on(&self) -> bool {
        self.settled_on.load(Ordering::Relaxed)
    }

    /// The stream has content, or will have none: it goes on as it comes.
    pub(super) fn begin_content(&self) {
        self.opening.store(OVER, Ordering::Relaxed);
    }

    /// Whether the stream's content is still waited for.
    pub(super) fn awaits_content(&self) -> bool {
        self.opening.load(Ordering::Relaxed) != OVER
    }

    /// Whether nothing of the stream leaves yet.
    pub(super) fn holds_opening(&self) -> bool {
        self.opening.load(Ordering::Relaxed) == HELD
    }

    /// Notes that so much of the answer, from its beginning, is whole frames of an event stream, each as it was sent.
    pub(super) fn set_whole_bytes(&self, bytes: u64) {
        self.whole_bytes.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn whole_bytes(&self) -> u64 {
        self.whole_bytes.load(Ordering::Relaxed)
    }

    /// Asks for [`CONTEXT_WINDOW`]: the request has another model name for a prompt that is too long.
    pub(super) fn watch_context_window(&self, watch: bool) {
        self.watch_context_window.store(watch, Ordering::Relaxed);
    }

    pub(super) fn watches_context_window(&self) -> bool {
        self.watch_context_window.load(Ordering::Relaxed)
    }

    /// Notes the exception in a stream that began with a success.
    pub(super) fn set_exception(&self, name: &str) {
        let mut state = self.lock();
        state.exception = Some(name.to_owned());
        state.flaw.get_or_insert(Flaw::Exception);
    }

    /// The exception in the stream of the attempt under way, whoever the client of it was.
    pub(super) fn exception(&self) -> Option<String> {
        self.lock().exception.clone()
    }

    /// Notes what is wrong with the answer; the first thing counts.
    pub(super) fn set_flaw(&self, flaw: Flaw) {
        self.lock().flaw.get_or_insert(flaw);
    }

    /// What was wrong with the answer of the attempt under way, although its status was a success.
    pub(super) fn ended_badly(&self) -> Option<Flaw> {
        self.lock().flaw
    }

    /// Sets how slowly a client may take the answer, in bytes a second; 0 for as slowly as it likes.
    pub(super) fn set_client_rate_min(&self, rate: u64) {
        self.lock().client_rate_min = rate;
    }

    pub(super) fn client_rate_min(&self) -> u64 {
        self.lock().client_rate_min
    }

    /// Asks to hold the header of this answer until its body is complete, and then to add `headers` to it.
    pub(super) fn hold(&self, headers: Headers) {
        let mut state = self.lock();
        state.hold = true;
        state.late_headers = headers;
    }

    /// Adds a header to the answer that is being held, in place of one of that name; without effect once it has left.
    pub(super) fn add_header(&self, name: &'static str, value: String) {
        let mut state = self.lock();
        match state.late_headers.iter_mut().find(|(present, _)| *present == name) {
            Some((_, present)) => *present = value,
            None => state.late_headers.push((name, value)),
        }
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

    /// Why the stream was ended with an exception frame of ours, if it was.
    pub(super) fn ended(&self) -> Option<Ended> {
        self.lock().ended
    }

    pub(super) fn set_ended(&self, why: Ended) {
        self.lock().ended = Some(why);
    }

    pub(super) fn silence(&self) -> Option<Silence> {
        self.lock().silence
    }

    pub(super) fn take_hold(&self) -> bool {
        std::mem::take(&mut self.lock().hold)
    }

    pub(super) fn take_late_headers(&self) -> Headers {
        std::mem::take(&mut self.lock().late_headers)
    }

    pub(super) fn take_last_words(&self) -> Option<LastWords> {
        self.lock().last_words.take()
    }

    /// Notes that the client went away. The bounds in which the answer is read on, if it is.
    pub(super) fn desert(&self) -> Option<Drain> {
        let drain = self.lock().drain;
        self.deserted.store(drain.is_some(), Ordering::Relaxed);
        drain
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an upstream has used up its time.
pub(super) fn is_overdue(error: &Error) -> bool {
    [UPSTREAM_SILENT, TOTAL_TIMEOUT].contains(error.etype())
}

//! What the stages of a request and the delivery of its answer tell each other: how long to wait, what to add, how to
//! end, and what the answer may still cost.
//!
//! It decides nothing. Pingora keeps the stages and the session apart, so a lock is the way between them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pingora_core::ErrorType;

use super::event_stream::{Ended, LastWords};
use super::purse::Purse;

/// The error type of an upstream that kept silent too long; `failover` turns it into a 408.
pub(super) const UPSTREAM_SILENT: ErrorType = ErrorType::new("UpstreamSilent");

/// The error type of a stream that was ended because nothing is left to pay for more of it.
pub(super) const BUDGET_SPENT: ErrorType = ErrorType::new("BudgetSpent");

/// What the request's stages and the delivery of its answer share while the answer is on its way.
#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
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

    /// Asks to hold the header of this answer until its body is complete.
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

    pub(super) fn take_late_headers(&self) -> Vec<(&'static str, String)> {
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

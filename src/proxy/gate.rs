//! Places for requests: puts the queue of `admission` behind a lock, wakes who waits, and tells who is sent away.
//!
//! A [`Place`] gives itself back when it is dropped, and one that was given to a waiter who has just gone goes on to the
//! next, so none is ever lost. Who waits is noticed when it leaves. The proxy's own pages need no place.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pingora_core::protocols::http::ServerSession;
use tokio::sync::oneshot;

use crate::admission::Whose;
use crate::admission::queue::{Entry, Queue, Rules, Shed, Ticket};
use crate::aws::error_body::ErrorType;
use crate::config::Limits;
use crate::error::{Failure, Fault};
use crate::keys::authenticate::{Caller, Identity};
use crate::telemetry::metrics::Metrics;

/// How often a client that waits is looked at. HTTP/1 gives no sign while the client's body stands unread before its end.
const LOOK: Duration = Duration::from_millis(50);

/// TCP's states, as Linux numbers them (`include/net/tcp_states.h`), in which nothing more comes from the peer.
const TCP_CLOSE: u8 = 7;
const TCP_CLOSE_WAIT: u8 = 8;

/// Whose request it is, as far as it is known before its body is read.
pub(super) fn whose(identity: &Identity) -> Whose {
    match identity {
        Identity::Known(caller) => proven(caller),
        Identity::Signed(signed) => Whose::Claimed(signed.access_key_id().into()),
    }
}

/// The same once the signature is verified.
pub(super) fn proven(caller: &Caller) -> Whose {
    Whose::Proven(caller.id().into())
}

/// What a waiter is told.
enum Verdict {
    Admitted(Place),
    Displaced,
}

type Waiters = Queue<oneshot::Sender<Verdict>>;

/// Where requests get their places.
pub(super) struct Gate {
    queue: Mutex<Waiters>,
    patience: Duration,
    metrics: Arc<Metrics>,
}

/// One request in flight.
pub(super) struct Place {
    whose: Whose,
    since: Instant,
    /// `None` once it was given back.
    gate: Option<Arc<Gate>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(gate) = self.gate.take() {
            let next = gate.lock().leave(&self.whose, Some(self.since.elapsed()));
            gate.pass_on(next);
        }
    }
}

impl Place {
    /// It is known now whose request this is.
    pub(super) fn prove(&mut self, proven: Whose) {
        if let Some(gate) = &self.gate
            && self.whose.is_claimed()
        {
            let next = gate.lock().prove(&self.whose, &proven);
            self.whose = proven;
            gate.pass_on(next);
        }
    }
}

/// Who waits; it leaves the queue however the wait ends.
struct Waiting<'g> {
    gate: &'g Gate,
    whose: Whose,
    ticket: Ticket,
    since: Instant,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.gate.lock().withdraw(&self.whose, self.ticket);
        self.gate.metrics.left_queue(self.since.elapsed());
    }
}

impl Gate {
    pub(super) fn new(limits: &Limits, metrics: Arc<Metrics>) -> Arc<Self> {
        let rules = Rules {
            in_flight_max: limits.in_flight_max,
            queued_max: limits.queued_max,
            patience: limits.queue_timeout,
        };
        Arc::new(Self { queue: Mutex::new(Queue::new(rules)), patience: limits.queue_timeout, metrics })
    }

    /// A place for a request of `whose`, at once or after a wait.
    ///
    /// # Errors
    /// When there is none in time, or the client did not wait for it.
    pub(super) async fn enter(self: &Arc<Self>, whose: Whose, client: &mut ServerSession) -> Result<Place, Failure> {
        self.enter_unless(whose, gone(client)).await
    }

    async fn enter_unless(self: &Arc<Self>, whose: Whose, gone: impl Future<Output = ()>) -> Result<Place, Failure> {
        let mut verdict = None;
        let entry = self.lock().enter(&whose, || {
            let (sender, receiver) = oneshot::channel();
            verdict = Some(receiver);
            sender
        });
        let (ticket, displaced) = match entry {
            Entry::Admitted => return Ok(self.place(whose)),
            Entry::Shed(shed) => return Err(self.shed(shed)),
            Entry::Queued { ticket, displaced } => (ticket, displaced),
        };
        if let Some(displaced) = displaced {
            // He may have left in this moment.
            drop(displaced.send(Verdict::Displaced));
        }
        self.metrics.entered_queue();
        let _waiting = Waiting { gate: self, whose, ticket, since: Instant::now() };
        let verdict = async {
            match verdict {
                Some(verdict) => verdict.await.ok(),
                None => None,
            }
        };
        tokio::select! {
            biased;
            verdict = verdict => match verdict {
                Some(Verdict::Admitted(place)) => Ok(place),
                Some(Verdict::Displaced) | None => Err(self.shed(Shed::Displaced)),
            },
            () = gone => Err(Failure::new(
                Fault::Disconnect,
                "client_gone",
                ErrorType::ServiceUnavailable,
                "The client went away before there was a place for its request.",
            )),
            () = tokio::time::sleep(self.patience) => Err(self.shed(Shed::QueueTimeout)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiters> {
        // No change of the queue can panic halfway.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(self: &Arc<Self>, whose: Whose) -> Place {
        Place { whose, since: Instant::now(), gate: Some(Arc::clone(self)) }
    }

    /// Hands a place to the waiter it belongs to, or to the next where that one has left.
    fn pass_on(self: &Arc<Self>, mut next: Option<(Whose, oneshot::Sender<Verdict>)>) {
        while let Some((whose, waiter)) = next {
            let Err(Verdict::Admitted(mut returned)) = waiter.send(Verdict::Admitted(self.place(whose))) else {
                return;
            };
            // Taken back here rather than by dropping it, which would come back to this loop once for each of them.
            returned.gate = None;
            next = self.lock().leave(&returned.whose, None);
        }
    }

    fn shed(&self, shed: Shed) -> Failure {
        self.metrics.shed(shed.as_str());
        overloaded().because(shed.as_str())
    }
}

/// There are more requests than can be taken.
pub(super) fn overloaded() -> Failure {
    Failure::new(
        Fault::Limit,
        "overloaded",
        ErrorType::ServiceUnavailable,
        "The proxy has more requests than it can take at the moment. Try again in a second.",
    )
    // Not all of them at the same moment.
    .with(|response| response.retry_after(Duration::from_millis(fastrand::u64(500..=1000))))
}

/// Waits until the client leaves. Nothing of its body is read.
async fn gone(client: &mut ServerSession) {
    if client.is_http2() {
        // Ends with the stream or its connection, and in no other way.
        drop(client.read_body_or_idle(true).await);
        return;
    }
    loop {
        tokio::time::sleep(LOOK).await;
        let socket = client.digest().and_then(|digest| digest.socket_digest.as_ref());
        let state = socket.and_then(|socket| socket.tcp_info()).map(|info| info.tcpi_state);
        if matches!(state, Some(TCP_CLOSE | TCP_CLOSE_WAIT)) {
            return;
        }
    }
}

#[cfg(test)]
mod tests;

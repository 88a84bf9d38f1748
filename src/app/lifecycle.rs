//! From the first connection to the last: what the parts of the process tell each other about its end, and the order in
//! which it ends.
//!
//! A stop goes: readiness off, a pause for load balancers to see it, port closed, requests in flight finished; each kept
//! connection learns with its next answer that it is over, and one that stays idle is closed after a while. What is
//! unfinished at the deadline is ended in the form its operation models. Pingora 0.9.1 would close idle connections at
//! once and sleep for a fixed time; here it is told to stop when there is nothing left to do.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch, ShutdownWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::listen::Ports;
use super::notify;
use super::upgrade::door::Door;
use crate::admin::readiness::{Phase, Readiness};
use crate::proxy::Stop;
use crate::store::embedded::Movable;
use crate::telemetry::metrics::Metrics;

/// A kept connection over which nothing comes for so long, while nothing else is under way either, has no request on its
/// way: a round trip across the world takes less.
const IDLE_GRACE: Duration = Duration::from_secs(1);

/// How long an answer that is ended may take to reach its client.
const FAREWELL: Duration = Duration::from_secs(2);

/// A connection that was accepted is counted, and a request that was read is under way, within a fraction of this.
const UNCOUNTED: Duration = Duration::from_millis(50);

/// How long a process that ends waits for a store that another one was about to take.
const STORE_PATIENCE: Duration = Duration::from_secs(5);

const POLL: Duration = Duration::from_millis(5);

/// Pingora's `FastShutdown` does not tell the services to stop: when one worker's runtime ends before that of another
/// that accepts connections, the latter's loop fails and tries again for ever. The graceful stop tells them; there is
/// nothing left to wait for, so `server_conf` sets its times to nothing.
const STOP_NOW: ShutdownSignal = ShutdownSignal::GracefulTerminate;

/// What every part may ask, and tell.
#[derive(Debug)]
pub(super) struct Lifecycle {
    readiness: Arc<Readiness>,
    connections: AtomicUsize,
    may_listen: watch::Sender<bool>,
    listens: watch::Sender<bool>,
    port_closes: watch::Sender<bool>,
    idle_end: watch::Sender<bool>,
    everything_ends: watch::Sender<bool>,
    /// Why the process cannot go on.
    failed: watch::Sender<Option<String>>,
}

/// Counts a connection until it is dropped.
pub(super) struct Connected<'a>(&'a AtomicUsize);

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Lifecycle {
    pub(super) fn new(readiness: Arc<Readiness>) -> Self {
        let event = || watch::channel(false).0;
        Self {
            readiness,
            connections: AtomicUsize::new(0),
            may_listen: event(),
            listens: event(),
            port_closes: event(),
            idle_end: event(),
            everything_ends: event(),
            failed: watch::channel(None).0,
        }
    }

    /// When to end what is under way.
    pub(super) fn stop(&self) -> Stop {
        Stop::new(self.everything_ends.subscribe())
    }

    /// True once no connection is accepted any more, and kept ones are to end.
    pub(super) fn port_closing(&self) -> ShutdownWatch {
        self.port_closes.subscribe()
    }

    pub(super) fn connected(&self) -> Connected<'_> {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Connected(&self.connections)
    }

    /// Has connections accepted.
    pub(super) fn let_listen(&self) {
        self.may_listen.send_replace(true);
    }

    /// Waits until connections may be accepted.
    pub(super) async fn until_it_may_listen(&self) {
        become_true(&self.may_listen).await;
    }

    /// Connections are accepted.
    pub(super) fn listens(&self) {
        self.listens.send_replace(true);
    }

    /// Waits until connections are accepted.
    pub(super) async fn until_it_listens(&self) {
        become_true(&self.listens).await;
    }

    /// Waits until connections without a request may be closed.
    pub(super) async fn until_idle_ones_end(&self) {
        become_true(&self.idle_end).await;
    }

    /// Ends the process, because it cannot go on.
    pub(super) fn fail(&self, why: String) {
        self.failed.send_replace(Some(why));
    }

    /// Why the process could not go on.
    pub(super) fn failure(&self) -> Option<String> {
        self.failed.borrow().clone()
    }

    /// Says that the proxy serves, unless it is about to end already.
    pub(super) fn serves(&self) {
        self.readiness.leave(Phase::Starting, Phase::Serving);
    }
}

async fn become_true(event: &watch::Sender<bool>) {
    if event.subscribe().wait_for(|happened| *happened).await.is_err() {
        // Its sender is the one borrowed here.
        std::future::pending::<()>().await;
    }
}

/// Receives signals and successors, and ends the process in order.
pub(super) struct Supervisor {
    pub lifecycle: Arc<Lifecycle>,
    pub metrics: Arc<Metrics>,
    /// Held for a successor.
    pub ports: Mutex<Option<Ports>>,
    /// Where successors are met.
    pub socket: PathBuf,
    /// Moves to the successor.
    pub store: Option<Arc<Movable>>,
    pub watchdog: Option<Duration>,
    /// Whether there was a process before this one.
    pub succeeds: bool,
    pub shutdown_delay: Duration,
    pub shutdown_timeout: Duration,
}

/// The signals that end the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// The next of them. May be dropped at any time.
    async fn any(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[async_trait]
impl ShutdownSignalWatch for Supervisor {
    async fn recv(&self) -> ShutdownSignal {
        let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::quit()));
        let (Ok(terminate), Ok(interrupt), Ok(mut quit)) = signals else {
            tracing::error!("signals cannot be received; stop the process with SIGKILL");
            return std::future::pending().await;
        };
        let mut signals = Signals { terminate, interrupt };
        let mut failed = self.lifecycle.failed.subscribe();
        let end = {
            let succeeded = self.succeeded();
            tokio::pin!(succeeded);
            loop {
                tokio::select! {
                    () = &mut succeeded => break End::Succeeded,
                    _ = signals.terminate.recv() => break End::Finish,
                    _ = signals.interrupt.recv() => break End::AtOnce,
                    _ = failed.wait_for(Option::is_some) => break End::Failed,
                    _ = quit.recv() => tracing::info!(
                        "waiting for the next process: start it with --upgrade; it is met at {}", self.socket.display()
                    ),
                }
            }
            // A process that was about to succeed this one learns here that it is alone.
        };
        self.end(end, &mut signals).await;
        STOP_NOW
    }
}

/// Why the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Another one serves.
    Succeeded,
    /// A signal says so.
    Finish,
    AtOnce,
    /// It was to succeed another one and cannot.
    Failed,
}

impl Supervisor {
    /// Resolves when another process serves in place of this one.
    async fn succeeded(&self) {
        self.lifecycle.until_it_listens().await;
        self.lifecycle.readiness.until_serving().await;
        match Door::open(&self.socket).await {
            Ok(door) => door.succeeded(self).await,
            Err(error) => {
                tracing::warn!(
                    "the process cannot be succeeded without a pause, {} cannot be used: {error}; set \
                     general_settings.upgrade_socket to another path",
                    self.socket.display()
                );
                std::future::pending::<()>().await;
            }
        }
    }

    async fn end(&self, end: End, signals: &mut Signals) {
        if end == End::Succeeded {
            self.lifecycle.readiness.enter(Phase::Succeeded);
            return self.finish(signals, None).await;
        }
        let served = self.lifecycle.readiness.phase() == Phase::Serving;
        self.lifecycle.readiness.enter(Phase::Stopping);
        tracing::info!(requests_in_flight = self.metrics.in_flight().get(), "stopping");
        let store = if self.succeeds && !served {
            // The other one goes on, and needs it.
            self.store.clone().map(|store| tokio::spawn(give_back(store)))
        } else {
            // A successor that was about to have it may not get that far.
            self.store.clone().map(|store| tokio::spawn(take_back(store)))
        };
        if served {
            // Of a process that does not serve the service manager would stop the whole service.
            notify::stopping();
        }
        let mut deadline = Instant::now();
        if end == End::Finish && served {
            tokio::select! {
                () = sleep(self.shutdown_delay) => deadline = Instant::now() + self.shutdown_timeout,
                () = signals.any() => {}
            }
        } else if end != End::AtOnce {
            deadline += self.shutdown_timeout;
        }
        self.finish(signals, Some(deadline)).await;
        if let Some(store) = store
            && let Err(error) = store.await
        {
            tracing::error!("the store did not change hands: {error}");
        }
    }

    /// Closes the port and waits for what is under way; ends it at `deadline`, or when a signal to do so comes.
    async fn finish(&self, signals: &mut Signals, mut deadline: Option<Instant>) {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.lifecycle.port_closes.send_replace(true);
        if deadline.is_none() {
            tokio::select! {
                () = self.rest(IDLE_GRACE) => {}
                _ = signals.interrupt.recv() => deadline = Some(Instant::now()),
                _ = signals.terminate.recv() => deadline = Some(Instant::now() + self.shutdown_timeout),
            }
        }
        if let Some(deadline) = deadline {
            tokio::select! {
                () = self.rest(IDLE_GRACE) => {}
                () = signals.any() => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
        self.lifecycle.idle_end.send_replace(true);
        let unfinished = self.metrics.in_flight().get();
        if unfinished > 0 {
            tracing::warn!(unfinished, "requests are ended before they are complete");
            self.lifecycle.everything_ends.send_replace(true);
        }
        // What is written is on its way to clients that take it.
        if tokio::time::timeout(FAREWELL, self.rest(FAREWELL)).await.is_err() {
            tracing::debug!("some clients did not take the end of their answers");
        }
    }

    /// Waits until no connection is open, or no request has been under way for `grace`.
    async fn rest(&self, grace: Duration) {
        let mut quiet_since = None;
        loop {
            if self.metrics.in_flight().get() > 0 {
                quiet_since = None;
            } else {
                let none_open = self.lifecycle.connections.load(Ordering::Relaxed) == 0;
                let enough = if none_open { grace.min(UNCOUNTED) } else { grace };
                if quiet_since.get_or_insert_with(Instant::now).elapsed() >= enough {
                    return;
                }
            }
            sleep(POLL).await;
        }
    }
}

/// Opens the store again, if it was on its way to another process.
async fn take_back(store: Arc<Movable>) {
    let deadline = Instant::now() + STORE_PATIENCE;
    while let Err(error) = store.take_back().await {
        if Instant::now() >= deadline {
            tracing::warn!("{error}; what is not settled yet stays in the journal");
            return;
        }
        sleep(POLL).await;
    }
}

async fn give_back(store: Arc<Movable>) {
    if let Err(error) = store.release().await {
        tracing::error!("{error}; what is not written stays in the journal");
    }
}

//! The way to the store: every command is timed, measured and bounded, and every answer says whether the store is there.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::budget::command::{Applied, Charge, LeaseId, NodeId, Op, Reserve, Reserved};
use crate::store::{LedgerStore, StoreError};
use crate::telemetry::metrics::Metrics;
use crate::types::money::NanoUsd;

/// Commands sent to a store that serves others too.
const BATCH_MAX: usize = if cfg!(test) { 16 } else { 100 };

/// Commands given to the store of this process.
const LOCAL_BATCH_MAX: usize = if cfg!(test) { 24 } else { 1000 };

/// Where many calls end, their commands are gathered this long, unless somebody waits for one: a batch costs a round
/// trip, or two syncs of the disk and what a transaction writes beside, however large it is.
const GATHER: Duration = Duration::from_millis(20);
const LOCAL_GATHER: Duration = Duration::from_millis(100);

/// A batch takes the store longer than a single command.
const BATCH_TIMEOUT_FACTOR: u32 = 2;

/// Nobody waits for these.
const SLOW_TIMEOUT_FACTOR: u32 = 20;

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Nothing was heard of it yet.
    New,
    Up,
    Down(StoreError),
}

/// See the module.
#[derive(Debug)]
pub struct Link {
    pub store: Arc<dyn LedgerStore>,
    pub metrics: Arc<Metrics>,
    timeout: Duration,
    local: bool,
    state: Mutex<State>,
}

impl Link {
    #[must_use]
    pub fn new(store: Arc<dyn LedgerStore>, metrics: Arc<Metrics>, timeout: Duration) -> Self {
        let local = store.is_local();
        Self { store, metrics, timeout, local, state: Mutex::new(State::New) }
    }

    #[must_use]
    pub const fn is_local(&self) -> bool {
        self.local
    }

    /// Commands sent at once.
    #[must_use]
    pub const fn batch_max(&self) -> usize {
        if self.local { LOCAL_BATCH_MAX } else { BATCH_MAX }
    }

    /// How long commands are gathered for the next batch where there are many.
    #[must_use]
    pub const fn gather(&self) -> Duration {
        if self.local { LOCAL_GATHER } else { GATHER }
    }

    #[must_use]
    pub fn is_up(&self) -> bool {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) == State::Up
    }

    /// Why nothing should be asked of the store now.
    #[must_use]
    pub fn down(&self) -> Option<StoreError> {
        match &*self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Down(why) => Some(why.clone()),
            State::New | State::Up => None,
        }
    }

    /// Asks for a lease. A store that is too slow for one request is not taken to be down for all.
    ///
    /// # Errors
    /// As [`LedgerStore::reserve`]. The lease may be open all the same.
    pub async fn reserve(&self, request: &Reserve) -> Result<Reserved, StoreError> {
        self.quick("reserve", self.store.reserve(request)).await
    }

    /// # Errors
    /// As [`LedgerStore::extend`].
    pub async fn extend(&self, lease: &LeaseId, to: NanoUsd, charges: &[Charge]) -> Result<Reserved, StoreError> {
        self.quick("extend", self.store.extend(lease, to, charges)).await
    }

    /// Sends commands, or asks for the last number. What this says of the store holds for everybody.
    ///
    /// # Errors
    /// As [`LedgerStore::apply`].
    pub async fn apply(&self, node: &NodeId, first: u64, ops: &[Op]) -> Result<Applied, StoreError> {
        let timeout = if ops.is_empty() { self.timeout } else { self.timeout * BATCH_TIMEOUT_FACTOR };
        let applied = self.measured("apply", timeout, self.store.apply(node, first, ops)).await;
        match &applied {
            Ok(_) => self.set(&State::Up),
            Err((why, _)) => self.set(&State::Down(why.clone())),
        }
        applied.map_err(|(why, _)| why)
    }

    /// # Errors
    /// As [`LedgerStore::touch`].
    pub async fn touch(&self, leases: &[LeaseId], ttl: Duration) -> Result<Vec<LeaseId>, StoreError> {
        self.slow("touch", self.store.touch(leases, millis(ttl))).await
    }

    /// For commands that no request waits for.
    ///
    /// # Errors
    /// Those of the command, or that it took too long.
    pub async fn slow<T>(
        &self,
        command: &'static str,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let timeout = self.timeout * SLOW_TIMEOUT_FACTOR;
        self.measured(command, timeout, answer).await.map_err(|(why, _)| why)
    }

    async fn quick<T>(
        &self,
        command: &'static str,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.measured(command, self.timeout, answer).await.map_err(|(why, late)| {
            if matches!(why, StoreError::Unavailable(_)) && !late {
                self.set(&State::Down(why.clone()));
            }
            why
        })
    }

    /// The error says whether it is that of a time limit of ours.
    async fn measured<T>(
        &self,
        command: &'static str,
        timeout: Duration,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, (StoreError, bool)> {
        let begun = Instant::now();
        let answer = if self.local {
            answer.await.map_err(|why| (why, false))
        } else {
            tokio::time::timeout(timeout, answer).await.map_or_else(
                |_| {
                    let why = format!("no answer within {} ms", timeout.as_millis());
                    Err((StoreError::Unavailable(why), true))
                },
                |answer| answer.map_err(|why| (why, false)),
            )
        };
        let result = match &answer {
            Ok(_) => "ok",
            Err((StoreError::Unavailable(_), _)) => "unavailable",
            Err((StoreError::Failed(_), _)) => "failed",
        };
        self.metrics.store_request(command, result, begun.elapsed());
        answer
    }

    fn set(&self, to: &State) {
        let before = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *state, to.clone())
        };
        match (&before, to) {
            (State::Down(_), State::Down(_)) | (State::Up, State::Up) => return,
            (State::New | State::Up, State::Down(why)) => {
                tracing::error!("{why}; calls under a budget are refused until it answers");
            }
            (State::Down(_), _) => tracing::info!("the store answers again"),
            _ => {}
        }
        self.metrics.store_up(*to == State::Up);
    }
}

/// Whole milliseconds.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

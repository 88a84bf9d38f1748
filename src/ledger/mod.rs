//! What the proxy talks to about money: sets it aside before a call goes upstream, and books what the call cost after.
//!
//! The ledger owns the journal of this replica and its slices, and keeps the store informed; what is affordable is
//! decided by the store alone. Asking for money fails closed; booking it never fails, since a command that is journaled
//! reaches the store in time, however often either of them stops. The books are exact because a reservation is journaled
//! before its call is sent, its end is one numbered command, and the store applies each number once.

use std::fmt;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::budget::command::{AccountId, Balance, Charge, Denial, LeaseId, Op, Throttle};
use crate::budget::entry::{Rollup, Row};
use crate::store::{EntryPage, EntryQuery, LedgerStore, StoreError};
use crate::telemetry::metrics::Metrics;
use crate::types::money::NanoUsd;

mod backlog;
mod journal;
mod link;
mod outbox;
mod reservation;
mod reserve;
mod slice;
pub mod soft;
mod upkeep;

pub use reservation::Reservation;
pub use soft::{SoftBudget, SoftHook, Webhook};

use backlog::Backlog;
use journal::record::Pending;
use link::Link;
use reservation::Source;
use slice::{Slice, Slices};

/// Journals that replicas may have in one directory.
const SLOTS_MAX: u32 = 256;

/// How long [`Ledger::submit`] waits for the store.
const SUBMIT_TIMEOUT: Duration = Duration::from_secs(10);

/// How the ledger works.
#[derive(Clone)]
pub struct Settings {
    /// Holds the journals. On a local disk; replicas on one machine may share it.
    pub directory: PathBuf,
    /// A reservation whose owner is not heard of for this long is charged in full.
    pub lease_ttl: Duration,
    /// At most this much in one slice. Zero: no slices.
    pub slice_max: NanoUsd,
    pub entries_retention: Duration,
    /// For the answer to one command that a request waits for.
    pub store_timeout: Duration,
    /// Told of soft budgets that are reached.
    pub on_soft_budget: Option<SoftHook>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("directory", &self.directory)
            .field("lease_ttl", &self.lease_ttl)
            .field("slice_max", &self.slice_max)
            .field("entries_retention", &self.entries_retention)
            .field("store_timeout", &self.store_timeout)
            .finish_non_exhaustive()
    }
}

/// What a call may cost at most, and on whose accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    pub lease: LeaseId,
    pub amount: NanoUsd,
    /// An estimate, for limits on tokens.
    pub tokens: u64,
    pub charges: Vec<Charge>,
    pub throttles: Vec<Throttle>,
    /// Soft budgets, by index of charge.
    pub soft: Vec<(usize, NanoUsd)>,
    /// What the spend log says if the call is never settled.
    pub row: Arc<Row>,
}

/// Why no money was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// A limit refuses it; indices are those of the ask, which comes back for another try (under the same lease) or a
    /// message.
    Denied(Denial, Box<Ask>),
    /// The store cannot be reached: 503.
    Unavailable(String),
    /// The store or the journal failed.
    Failed(String),
}

impl Refused {
    fn disk(error: &io::Error) -> Self {
        Self::Failed(format!("the journal cannot be written: {error}"))
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(why) => Self::Unavailable(why),
            StoreError::Failed(why) => Self::Failed(why),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(denial, _) => write!(f, "a limit refuses the call: {denial:?}"),
            Self::Unavailable(why) => write!(f, "the store cannot be reached: {why}"),
            Self::Failed(why) => write!(f, "no money can be set aside: {why}"),
        }
    }
}

impl std::error::Error for Refused {}

fn not_open() -> Refused {
    Refused::Failed("the reservation is not open in the store any more".to_owned())
}

/// Why there is no ledger.
#[derive(Debug)]
pub enum OpenError {
    Journal { directory: PathBuf, why: io::Error },
    AllSlotsTaken { directory: PathBuf },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Journal { directory, why } => write!(
                f,
                "the journal in {} cannot be used: {why}; make the directory writable or set \
                 general_settings.store_path to another",
                directory.display()
            ),
            Self::AllSlotsTaken { directory } => write!(
                f,
                "all {SLOTS_MAX} journals in {} are in use by other processes; set general_settings.store_path to \
                 another directory",
                directory.display()
            ),
        }
    }
}

impl std::error::Error for OpenError {}

/// See the module.
#[derive(Debug)]
pub struct Ledger {
    settings: Settings,
    slot: u32,
    backlog: Arc<Backlog>,
    link: Arc<Link>,
    slices: Slices,
    soft: soft::Watch,
}

impl Ledger {
    /// Takes the first free journal in the directory and reads it. Calls that were in flight when its last owner ended
    /// are charged in full, as soon as [`Self::run`] runs.
    ///
    /// # Errors
    /// When no journal can be used. The store need not be up.
    pub fn open(
        store: Arc<dyn LedgerStore>,
        settings: Settings,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, OpenError> {
        let directory = settings.directory.clone();
        for slot in 0..SLOTS_MAX {
            let backlog = Backlog::open(&upkeep::slot_path(&directory, slot))
                .map_err(|why| OpenError::Journal { directory: directory.clone(), why })?;
            let Some(backlog) = backlog else { continue };
            let slices = Slices::new(if store.is_local() { NanoUsd::ZERO } else { settings.slice_max });
            let link = Arc::new(Link::new(store, metrics, settings.store_timeout));
            let backlog = Arc::new(backlog);
            return Ok(Arc::new(Self { settings, slot, backlog, link, slices, soft: soft::Watch::default() }));
        }
        Err(OpenError::AllSlotsTaken { directory })
    }

    /// Whether the store has answered lately.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.link.is_up()
    }

    /// The store's time, as far as known: Unix milliseconds.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        link::millis(now).saturating_add_signed(self.link.store.clock_offset_ms())
    }

    /// Commands of this replica that the store has not confirmed.
    #[must_use]
    pub fn backlog(&self) -> u64 {
        self.backlog.unconfirmed()
    }

    /// For a caller without any limit: nothing is asked and nothing set aside, but the call is counted and logged when
    /// it is settled. A process that dies before has not counted it.
    pub fn count(self: &Arc<Self>, lease: LeaseId, charges: Vec<Charge>, row: Arc<Row>) -> Reservation {
        let pending = Pending { lease, amount: NanoUsd::ZERO, tokens: 0, charges, slice: None, row };
        Reservation::new(self, Arc::new(pending), Source::Nothing, Vec::new(), Vec::new())
    }

    /// Carries out a command of the management API; resolves when the store has it.
    ///
    /// # Errors
    /// When the store is down: nothing was done. When it does not confirm the command in time: it will be carried out
    /// as soon as the store answers.
    pub async fn submit(&self, op: Op) -> Result<(), StoreError> {
        if let Some(why) = self.link.down() {
            return Err(why);
        }
        let number = self.backlog.push(op, None);
        tokio::time::timeout(SUBMIT_TIMEOUT, self.backlog.confirmed(number)).await.map_err(|_| {
            StoreError::Unavailable("no confirmation yet; the command is journaled and will be carried out".to_owned())
        })
    }

    /// # Errors
    /// As [`LedgerStore::balances`].
    pub async fn balances(&self, accounts: &[AccountId]) -> Result<Vec<Balance>, StoreError> {
        self.link.slow("balances", self.link.store.balances(accounts)).await
    }

    /// # Errors
    /// As [`LedgerStore::entries`].
    pub async fn entries(&self, query: &EntryQuery) -> Result<EntryPage, StoreError> {
        self.link.slow("entries", self.link.store.entries(query)).await
    }

    /// # Errors
    /// As [`LedgerStore::rollups`].
    pub async fn rollups(&self, from: &str, to: &str) -> Result<Vec<Rollup>, StoreError> {
        self.link.slow("rollups", self.link.store.rollups(from, to)).await
    }

    /// # Errors
    /// As [`LedgerStore::claim`].
    pub async fn claim(&self, account: &AccountId, mark: &str) -> Result<bool, StoreError> {
        self.link.slow("claim", self.link.store.claim(account, mark)).await
    }

    /// Runs everything that happens beside requests, until `stop` resolves; then sends what is left, for a few seconds.
    /// To be called once.
    pub async fn run(self: Arc<Self>, stop: impl Future<Output = ()> + Send) {
        upkeep::run(self, stop).await;
    }

    /// A request has left a slice, and what it cost is numbered.
    fn leave(&self, slice: &Slice, amount: NanoUsd, cost: NanoUsd) {
        if slice.settle(amount, cost) {
            self.close(slice);
        }
    }

    fn close(&self, slice: &Slice) {
        self.backlog.push(Op::Close { lease: slice.lease.clone() }, Some(&slice.lease));
        self.slices.closed(&slice.lease);
    }

    fn close_slices(&self, slices: &[Arc<Slice>]) {
        for slice in slices {
            self.close(slice);
        }
    }
}

#[cfg(test)]
mod tests;

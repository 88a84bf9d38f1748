//! Where keys, budgets and the spend log live: two small traits, an embedded implementation and one on Redis.
//!
//! The store does not know what a key is: [`Directory`] keeps documents, [`LedgerStore`] runs the state machine of
//! `budget::books` for everyone who shares it. `tests/store/` runs one contract suite on both implementations.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use crate::budget::books::LeaseCounts;
use crate::budget::command::{AccountId, Applied, Balance, Charge, LeaseId, NodeId, Op, Reserve, Reserved};
use crate::budget::entry::{Entry, Rollup};
use crate::types::money::NanoUsd;

pub mod embedded;
pub mod redis;

/// The store could not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoreError {
    /// It cannot be reached, or did not answer in time: the command may or may not have been carried out.
    Unavailable(String),
    /// It answered with an error: a wrong configuration, a full disk, data of another version.
    Failed(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(why) => write!(f, "the store cannot be reached: {why}"),
            Self::Failed(why) => write!(f, "the store failed: {why}"),
        }
    }
}

impl std::error::Error for StoreError {}

/// Kinds of documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A virtual key, by its `key_id`.
    Key,
    /// What proves a key: by the SHA-256 of the secret, in hexadecimal.
    Secret,
    /// What verifies signatures of a key: by the access key id. Apart from `Secret`, so that an id sent as a bearer
    /// token proves nothing.
    AccessKey,
    /// The `key_id` of a key alias.
    Alias,
    Team,
    User,
    Customer,
    Tag,
    Budget,
}

impl Kind {
    pub const ALL: [Self; 9] = [
        Self::Key,
        Self::Secret,
        Self::AccessKey,
        Self::Alias,
        Self::Team,
        Self::User,
        Self::Customer,
        Self::Tag,
        Self::Budget,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Secret => "secret",
            Self::AccessKey => "access_key",
            Self::Alias => "alias",
            Self::Team => "team",
            Self::User => "user",
            Self::Customer => "customer",
            Self::Tag => "tag",
            Self::Budget => "budget",
        }
    }
}

/// A document as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    pub id: String,
    /// Grows with every change of this document.
    pub version: u64,
    pub json: Arc<str>,
}

/// One change of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub kind: Kind,
    pub id: String,
    pub expect: Expect,
    /// `None` deletes.
    pub json: Option<String>,
}

/// What must be there for a change to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expect {
    Anything,
    Nothing,
    Version(u64),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommitError {
    /// The change of this index found something else than it expected; nothing was changed.
    Conflict(usize),
    Store(StoreError),
}

impl From<StoreError> for CommitError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What has changed since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// Where to go on from.
    pub cursor: String,
    pub touched: Vec<(Kind, String)>,
    /// More has changed than the store remembers: everything may be stale.
    pub lost: bool,
}

/// Documents: keys, teams, users, customers, tags, budgets.
#[async_trait]
pub trait Directory: Send + Sync + fmt::Debug {
    async fn get(&self, kind: Kind, id: &str) -> Result<Option<Document>, StoreError>;

    /// Up to `limit` documents with ids after `after`, in the order of their ids.
    async fn list(&self, kind: Kind, after: Option<&str>, limit: usize) -> Result<Vec<Document>, StoreError>;

    /// Makes all changes, durably, or none.
    async fn commit(&self, changes: &[Change]) -> Result<(), CommitError>;

    /// Changes after `cursor`; without one only where to begin.
    async fn changes(&self, cursor: Option<&str>) -> Result<Changes, StoreError>;
}

/// Which entries of the spend log are wanted. Texts must equal the row's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EntryQuery {
    /// `Entry::at_ms` from, inclusive.
    pub from_ms: u64,
    /// … to, exclusive.
    pub to_ms: u64,
    pub key_id: Option<String>,
    pub team_id: Option<String>,
    pub user_id: Option<String>,
    pub end_user: Option<String>,
    pub model: Option<String>,
    pub tag: Option<String>,
    pub request_id: Option<String>,
    /// Continue a query: what the page before gave.
    pub after: Option<String>,
    pub limit: usize,
}

/// A page of the spend log, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryPage {
    pub entries: Vec<Entry>,
    /// Where the next page begins; `None` on the last.
    pub next: Option<String>,
}

/// Runs the books. Every command is atomic and repeatable.
#[async_trait]
pub trait LedgerStore: Send + Sync + fmt::Debug {
    /// Whether asking costs no round trip.
    fn is_local(&self) -> bool;

    /// Store's clock minus this machine's, as last seen, in milliseconds.
    fn clock_offset_ms(&self) -> i64;

    async fn reserve(&self, request: &Reserve) -> Result<Reserved, StoreError>;

    /// Makes an open lease hold `to` in all; less than it holds changes nothing. `charges` are those of its `Reserve`.
    /// Balances are those after it.
    async fn extend(&self, lease: &LeaseId, to: NanoUsd, charges: &[Charge]) -> Result<Reserved, StoreError>;

    /// Applies commands `first`, `first + 1`, … of `node` durably, each once. An empty batch only asks for the last
    /// number.
    async fn apply(&self, node: &NodeId, first: u64, ops: &[Op]) -> Result<Applied, StoreError>;

    /// Gives open leases another `ttl_ms`. Returns those that are not open any more.
    async fn touch(&self, leases: &[LeaseId], ttl_ms: u64) -> Result<Vec<LeaseId>, StoreError>;

    /// Charges expired leases, at most `limit`; returns how many.
    async fn reap(&self, limit: usize) -> Result<usize, StoreError>;

    /// Balances in the order asked for; an unknown account has nothing.
    async fn balances(&self, accounts: &[AccountId]) -> Result<Vec<Balance>, StoreError>;

    /// Sets a mark on an account. True for the one who set it first: that one acts.
    async fn claim(&self, account: &AccountId, mark: &str) -> Result<bool, StoreError>;

    async fn entries(&self, query: &EntryQuery) -> Result<EntryPage, StoreError>;

    /// Sums of the days `from` to `to`, inclusive, as `2026-11-22`.
    async fn rollups(&self, from: &str, to: &str) -> Result<Vec<Rollup>, StoreError>;

    /// Forgets entries booked before, accounts whose time has come and old tombstones. Rollups stay.
    async fn forget(&self, entries_before_ms: u64) -> Result<(), StoreError>;

    /// Leases open now, and leases that expired since the store was made.
    async fn lease_counts(&self) -> Result<LeaseCounts, StoreError>;
}

//! The store of a proxy that is alone: the books in memory, and a redb file that has all of them that must outlive the
//! process.
//!
//! Reserving is a mutex and some hash maps; no request waits for the disk. Settling arrives in batches from the
//! ledger and is answered when it is durable. Open leases of this process are not kept in the file: when it has ended,
//! so have its calls, and the journal of the ledger says what they may have cost. Those of other processes, which this
//! one has taken the file over from, are: whoever opens it next has them, however this one ended.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use async_trait::async_trait;
use redb::backends::FileBackend;
use redb::{Database, DatabaseError};
use tokio::sync::oneshot;

use self::documents::ChangeLog;
use self::writer::{Shared, Work};
use super::{
    Change, Changes, CommitError, Directory, Document, EntryPage, EntryQuery, Kind, LeaseCounts, LedgerStore,
    StoreError,
};
use crate::budget::books::Books;
use crate::budget::command::{AccountId, Applied, Balance, Charge, LeaseId, NodeId, Op, Reserve, Reserved};
use crate::budget::entry::Rollup;
use crate::types::money::NanoUsd;

pub use self::clock::Clock;
pub use self::movable::Movable;

mod client;
mod clock;
mod documents;
mod movable;
mod serve;
mod spend_log;
mod tables;
mod wire;
mod writer;

/// How long a closed lease is remembered. Commands come from this process alone and cannot be delayed for long, and at
/// thousands of requests a second the usual quarter of an hour would be a million leases.
const CLOSED_KEPT_MS: u64 = 60_000;
/// How often a file that is left is looked at until nobody reads it any more.
const LEAVING_POLL: Duration = Duration::from_millis(1);
/// Pages of the file that are kept in memory, bytes.
const CACHE_BYTES: usize = 64 << 20;

const ELSEWHERE: &str = "set general_settings.store_path to another directory";
const SHARED: &str = "set general_settings.redis_url so that both share Redis";

/// Why the file could not be opened.
#[derive(Debug)]
pub enum OpenError {
    /// Another process has it open.
    InUse(PathBuf),
    /// Another version of the program wrote it.
    Version {
        path: PathBuf,
        found: u64,
    },
    Failed {
        path: PathBuf,
        why: String,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(path) => {
                write!(f, "another process holds {}; stop it, {ELSEWHERE}, or {SHARED}", path.display())
            }
            Self::Version { path, found } => {
                let (path, known) = (path.display(), tables::SCHEMA_VERSION);
                write!(f, "{path} has schema version {found}, and this program reads version {known}; ")?;
                write!(f, "run the version that wrote it, or {ELSEWHERE}")
            }
            Self::Failed { path, why } => {
                write!(
                    f,
                    "{} cannot be opened: {why}; check that it is writable and that its disk has room",
                    path.display()
                )
            }
        }
    }
}

impl std::error::Error for OpenError {}

/// The store in a file.
#[derive(Debug)]
pub struct Embedded {
    shared: Arc<Shared>,
    work: Option<Sender<Work>>,
    writer: Option<JoinHandle<()>>,
}

impl Embedded {
    /// Opens the file, or makes it. Its directory must exist.
    ///
    /// # Errors
    /// When another process has it open, when another version wrote it, or when it cannot be read or written.
    pub fn open(path: &Path, clock: Clock) -> Result<Self, OpenError> {
        let failed = |why: String| OpenError::Failed { path: path.to_owned(), why };
        let file = open_private(path).map_err(|error| failed(error.to_string()))?;
        let database = FileBackend::new(file)
            .and_then(|file| Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(file))
            .map_err(|error| match error {
                DatabaseError::DatabaseAlreadyOpen => OpenError::InUse(path.to_owned()),
                error => failed(error.to_string()),
            })?;
        Self::begin(database, path, clock)
    }

    fn begin(database: Database, path: &Path, clock: Clock) -> Result<Self, OpenError> {
        let failed = |why: String| OpenError::Failed { path: path.to_owned(), why };
        let epoch = tables::prepare(&database)
            .map_err(|error| failed(error.to_string()))?
            .map_err(|found| OpenError::Version { path: path.to_owned(), found })?;
        let mut books = Books::new(CLOSED_KEPT_MS);
        books.restore(tables::load(&database).map_err(|error| failed(error.to_string()))?);
        let shared = Arc::new(Shared {
            database,
            clock,
            books: Mutex::new(books),
            change_log: Mutex::new(ChangeLog::new(epoch)),
            broken: OnceLock::new(),
        });
        let (work, waiting) = mpsc::channel();
        let of_writer = Arc::clone(&shared);
        let writer = thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer::run(&of_writer, &waiting))
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self { shared, work: Some(work), writer: Some(writer) })
    }

    /// Writes everything, open leases too, and closes the file: the next process to open it goes on where this one
    /// stopped. Blocks; nobody else may use the store any more.
    ///
    /// # Errors
    /// When it cannot be written; the file is closed all the same.
    fn leave(mut self) -> Result<(), StoreError> {
        self.end();
        let shared = Arc::clone(&self.shared);
        drop(self);
        let left = shared
            .check()
            .and_then(|()| shared.with_books(|books, _| tables::leave(&shared.database, books.open_leases())));
        let waiting = Arc::downgrade(&shared);
        drop(shared);
        // A read whose caller has gone away may still be under way.
        while waiting.strong_count() > 0 {
            thread::park_timeout(LEAVING_POLL);
        }
        left
    }

    /// As `reserve`, for another process. The lease is in the file when this returns.
    async fn reserve_for_another(&self, request: &Reserve) -> Result<Reserved, StoreError> {
        let answer = self.books(|books, now_ms| {
            let answer = books.reserve(now_ms, request);
            books.keep(&request.lease);
            answer
        })?;
        self.saved(answer).await
    }

    /// As `extend`, for another process.
    async fn extend_for_another(
        &self,
        lease: &LeaseId,
        to: NanoUsd,
        charges: &[Charge],
    ) -> Result<Reserved, StoreError> {
        let answer = self.extend(lease, to, charges).await?;
        self.saved(answer).await
    }

    /// Gives the answer once what was granted by it is in the file.
    async fn saved(&self, answer: Reserved) -> Result<Reserved, StoreError> {
        if matches!(answer, Reserved::Granted { .. }) {
            self.ask(|answer| Work::Save { answer }).await??;
        }
        Ok(answer)
    }

    /// Ends the writer, which saves what is left.
    fn end(&mut self) {
        drop(self.work.take());
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            log::error!("the thread that writes the store panicked");
        }
    }

    /// Gives work to the writer and waits for its answer.
    async fn ask<T>(&self, work: impl FnOnce(oneshot::Sender<T>) -> Work) -> Result<T, StoreError> {
        let ended = || StoreError::Failed("the thread that writes the store has ended".to_owned());
        let (answer, answered) = oneshot::channel();
        let sent = self.work.as_ref().map(|queue| queue.send(work(answer)));
        if !matches!(sent, Some(Ok(()))) {
            return Err(ended());
        }
        answered.await.map_err(|_| ended())
    }

    /// Reads from the file, on a thread that may block.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.shared.check()?;
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || read(&shared.database))
            .await
            .map_err(|error| StoreError::Failed(error.to_string()))?
    }

    fn books<T>(&self, work: impl FnOnce(&mut Books, u64) -> T) -> Result<T, StoreError> {
        self.shared.check()?;
        Ok(self.shared.with_books(work))
    }
}

/// Opens the file, or makes it so that nobody else can read it: it holds who called what, and digests of secrets.
fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

impl Drop for Embedded {
    /// Waits until everything is written, so that the file can be opened again at once.
    fn drop(&mut self) {
        self.end();
    }
}

#[async_trait]
impl Directory for Embedded {
    async fn get(&self, kind: Kind, id: &str) -> Result<Option<Document>, StoreError> {
        let id = id.to_owned();
        self.read(move |database| documents::get(database, kind, &id)).await
    }

    async fn list(&self, kind: Kind, after: Option<&str>, limit: usize) -> Result<Vec<Document>, StoreError> {
        let after = after.map(str::to_owned);
        self.read(move |database| documents::list(database, kind, after.as_deref(), limit)).await
    }

    async fn commit(&self, changes: &[Change]) -> Result<(), CommitError> {
        let changes = changes.to_vec();
        self.ask(|answer| Work::Commit { changes, answer }).await?
    }

    async fn changes(&self, cursor: Option<&str>) -> Result<Changes, StoreError> {
        self.shared.check()?;
        Ok(self.shared.change_log.lock().unwrap_or_else(PoisonError::into_inner).since(cursor))
    }
}

#[async_trait]
impl LedgerStore for Embedded {
    fn is_local(&self) -> bool {
        true
    }

    fn clock_offset_ms(&self) -> i64 {
        0
    }

    async fn reserve(&self, request: &Reserve) -> Result<Reserved, StoreError> {
        self.books(|books, now_ms| books.reserve(now_ms, request))
    }

    async fn extend(&self, lease: &LeaseId, to: NanoUsd, charges: &[Charge]) -> Result<Reserved, StoreError> {
        self.books(|books, now_ms| books.extend(now_ms, lease, to, charges))
    }

    async fn apply(&self, node: &NodeId, first: u64, ops: &[Op]) -> Result<Applied, StoreError> {
        let (node, ops) = (node.clone(), ops.to_vec());
        self.ask(|answer| Work::Apply { node, first, ops, answer }).await?
    }

    async fn touch(&self, leases: &[LeaseId], ttl_ms: u64) -> Result<Vec<LeaseId>, StoreError> {
        self.books(|books, now_ms| books.touch(now_ms, leases, ttl_ms))
    }

    async fn reap(&self, limit: usize) -> Result<usize, StoreError> {
        let reaped = self.books(|books, now_ms| books.reap(now_ms, limit))?;
        self.ask(|answer| Work::Save { answer }).await??;
        Ok(reaped)
    }

    async fn balances(&self, accounts: &[AccountId]) -> Result<Vec<Balance>, StoreError> {
        self.books(|books, _| books.balances(accounts))
    }

    async fn claim(&self, account: &AccountId, mark: &str) -> Result<bool, StoreError> {
        let (account, mark) = (account.clone(), mark.to_owned());
        self.ask(|answer| Work::Claim { account, mark, answer }).await?
    }

    async fn entries(&self, query: &EntryQuery) -> Result<EntryPage, StoreError> {
        let query = query.clone();
        self.read(move |database| spend_log::entries(database, &query)).await
    }

    async fn rollups(&self, from: &str, to: &str) -> Result<Vec<Rollup>, StoreError> {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.read(move |database| spend_log::rollups(database, &from, &to)).await
    }

    async fn forget(&self, entries_before_ms: u64) -> Result<(), StoreError> {
        self.ask(|answer| Work::Forget { entries_before_ms, answer }).await?
    }

    async fn lease_counts(&self) -> Result<LeaseCounts, StoreError> {
        self.books(|books, _| books.lease_counts())
    }
}

#[cfg(test)]
mod tests;

//! The embedded store of a process that may be succeeded by another while it still serves: the file has one process, so
//! it moves, and whoever no longer has it asks the one that has.
//!
//! While the file moves, commands wait for milliseconds; none fails. Leases that are open move with it, and stay in it as
//! long as they are open: a process that takes the file over and dies, however it does, takes none along. What a command
//! does is `Embedded`'s part; who succeeds whom is decided in `app::upgrade`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Mutex, RwLock};
use tokio::time::{Instant, sleep};

use super::client::Client;
use super::serve::Server;
use super::{Clock, Embedded, OpenError};
use crate::budget::books::LeaseCounts;
use crate::budget::command::{AccountId, Applied, Balance, Charge, LeaseId, NodeId, Op, Reserve, Reserved};
use crate::budget::entry::Rollup;
use crate::store::{
    Change, Changes, CommitError, Directory, Document, EntryPage, EntryQuery, Kind, LedgerStore, StoreError,
};
use crate::types::money::NanoUsd;

/// The socket beside the file.
const SOCKET: &str = "store.sock";

/// How long a command waits for a store that moves. The process that takes it over opens a file; should that fail, the
/// old one has it again.
const PATIENCE: Duration = Duration::from_secs(5);

const RETRY: Duration = Duration::from_millis(2);

/// Where the store is.
#[derive(Debug)]
enum Place {
    Here(Arc<Embedded>),
    /// In another process, or on its way there.
    Elsewhere(Arc<Client>),
}

/// See the module.
#[derive(Debug)]
pub struct Movable {
    file: PathBuf,
    place: RwLock<Place>,
    /// While the store is here.
    server: Mutex<Option<Server>>,
}

/// Carries a command out where the store is. While that changes it is asked again; a commit only as long as nobody has
/// heard it, because its second time would find the first.
macro_rules! wherever {
    ($self:ident.$command:ident($($argument:expr),*), repeat: $repeat:path) => {{
        let deadline = Instant::now() + PATIENCE;
        loop {
            let client = match &*$self.place.read().await {
                Place::Here(store) => return store.$command($($argument),*).await,
                Place::Elsewhere(client) => Arc::clone(client),
            };
            let why = match client.reach().await {
                Err(why) => why.into(),
                Ok(()) => match client.$command($($argument),*).await {
                    Err(why) if $repeat(&why) => why,
                    answer => return answer,
                },
            };
            if Instant::now() >= deadline {
                return Err(why);
            }
            sleep(RETRY).await;
        }
    }};
    ($self:ident.$command:ident($($argument:expr),*)) => {
        wherever!($self.$command($($argument),*), repeat: unavailable)
    };
}

fn unavailable(error: &StoreError) -> bool {
    matches!(error, StoreError::Unavailable(_))
}

const fn never(_: &CommitError) -> bool {
    false
}

impl Movable {
    /// Opens the file, or makes it. Its directory must exist.
    ///
    /// # Errors
    /// As [`Embedded::open`].
    pub fn open(file: &Path) -> Result<Self, OpenError> {
        let store = Arc::new(Embedded::open(file, Clock::system())?);
        Ok(Self { file: file.to_owned(), place: RwLock::new(Place::Here(store)), server: Mutex::default() })
    }

    /// Answers processes from which the store was taken over, if it is here. To be called within a runtime.
    ///
    /// # Errors
    /// When the socket cannot be made: they cannot settle before the next start then.
    pub async fn serve(&self) -> io::Result<()> {
        let mut server = self.server.lock().await;
        if let Place::Here(store) = &*self.place.read().await
            && server.is_none()
        {
            *server = Some(Server::start(&self.socket(), Arc::clone(store))?);
        }
        Ok(())
    }

    /// Closes the file, so that another process can take it over. Commands wait for it from here on. Does nothing if the
    /// store is elsewhere.
    ///
    /// # Errors
    /// When the file could not be written to its end. It is closed all the same, and the journal has what it lacks.
    pub async fn release(&self) -> Result<(), StoreError> {
        let mut server = self.server.lock().await;
        if let Some(server) = server.take() {
            server.stop().await;
        }
        let mut place = self.place.write().await;
        let elsewhere = Place::Elsewhere(Arc::new(Client::new(self.socket())));
        let Place::Here(store) = std::mem::replace(&mut *place, elsewhere) else { return Ok(()) };
        // Commands have the lock while they run, and the server has ended.
        let Some(store) = Arc::into_inner(store) else {
            return Err(StoreError::Failed("the store is still in use".to_owned()));
        };
        tokio::task::spawn_blocking(move || store.leave())
            .await
            .map_err(|error| StoreError::Failed(error.to_string()))?
    }

    /// Opens the file again, because nobody took it over. Does nothing if the store is here.
    ///
    /// # Errors
    /// As [`Embedded::open`].
    pub async fn take_back(&self) -> Result<(), OpenError> {
        let mut place = self.place.write().await;
        if matches!(*place, Place::Here(_)) {
            return Ok(());
        }
        let file = self.file.clone();
        let opened = tokio::task::spawn_blocking(move || Embedded::open(&file, Clock::system())).await;
        let failed = |why: String| OpenError::Failed { path: self.file.clone(), why };
        *place = Place::Here(Arc::new(opened.map_err(|error| failed(error.to_string()))??));
        drop(place);
        self.serve().await.map_err(|error| failed(error.to_string()))
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    fn socket(&self) -> PathBuf {
        self.file.with_file_name(SOCKET)
    }
}

#[async_trait]
impl Directory for Movable {
    async fn get(&self, kind: Kind, id: &str) -> Result<Option<Document>, StoreError> {
        wherever!(self.get(kind, id))
    }

    async fn list(&self, kind: Kind, after: Option<&str>, limit: usize) -> Result<Vec<Document>, StoreError> {
        wherever!(self.list(kind, after, limit))
    }

    async fn commit(&self, changes: &[Change]) -> Result<(), CommitError> {
        wherever!(self.commit(changes), repeat: never)
    }

    async fn changes(&self, cursor: Option<&str>) -> Result<Changes, StoreError> {
        wherever!(self.changes(cursor))
    }
}

#[async_trait]
impl LedgerStore for Movable {
    /// Waiting for the move is bounded here, and asking the other process takes a fraction of a millisecond.
    fn is_local(&self) -> bool {
        true
    }

    fn clock_offset_ms(&self) -> i64 {
        0
    }

    async fn reserve(&self, request: &Reserve) -> Result<Reserved, StoreError> {
        wherever!(self.reserve(request))
    }

    async fn extend(&self, lease: &LeaseId, to: NanoUsd, charges: &[Charge]) -> Result<Reserved, StoreError> {
        wherever!(self.extend(lease, to, charges))
    }

    async fn apply(&self, node: &NodeId, first: u64, ops: &[Op]) -> Result<Applied, StoreError> {
        wherever!(self.apply(node, first, ops))
    }

    async fn touch(&self, leases: &[LeaseId], ttl_ms: u64) -> Result<Vec<LeaseId>, StoreError> {
        wherever!(self.touch(leases, ttl_ms))
    }

    async fn reap(&self, limit: usize) -> Result<usize, StoreError> {
        wherever!(self.reap(limit))
    }

    async fn balances(&self, accounts: &[AccountId]) -> Result<Vec<Balance>, StoreError> {
        wherever!(self.balances(accounts))
    }

    async fn claim(&self, account: &AccountId, mark: &str) -> Result<bool, StoreError> {
        wherever!(self.claim(account, mark))
    }

    async fn entries(&self, query: &EntryQuery) -> Result<EntryPage, StoreError> {
        wherever!(self.entries(query))
    }

    async fn rollups(&self, from: &str, to: &str) -> Result<Vec<Rollup>, StoreError> {
        wherever!(self.rollups(from, to))
    }

    async fn forget(&self, entries_before_ms: u64) -> Result<(), StoreError> {
        wherever!(self.forget(entries_before_ms))
    }

    async fn lease_counts(&self) -> Result<LeaseCounts, StoreError> {
        wherever!(self.lease_counts())
    }
}

#[cfg(test)]
mod tests;

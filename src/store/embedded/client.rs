//! The store that another process of this machine has open, by its socket. Every command is atomic and repeatable, so
//! who gets no answer asks again; whether to do so, and for how long, is the caller's part.

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::BufStream;
use tokio::net::UnixStream;

use super::wire::{self, Answer, Command, Committed};
use crate::budget::books::LeaseCounts;
use crate::budget::command::{AccountId, Applied, Balance, Charge, LeaseId, NodeId, Op, Reserve, Reserved};
use crate::budget::entry::Rollup;
use crate::store::{Change, Changes, CommitError, Document, EntryPage, EntryQuery, Kind, StoreError};
use crate::types::money::NanoUsd;

/// A process that takes longer hangs, or its disk does.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub(super) struct Client {
    socket: PathBuf,
    /// Connections that nobody uses now.
    idle: Mutex<Vec<BufStream<UnixStream>>>,
}

impl Client {
    pub(super) fn new(socket: PathBuf) -> Self {
        Self { socket, idle: Mutex::default() }
    }

    /// Makes sure that there is somebody to ask.
    ///
    /// # Errors
    /// When nobody has the store open now.
    pub(super) async fn reach(&self) -> Result<(), StoreError> {
        if self.idle().is_empty() {
            let connection = self.connect().await?;
            self.idle().push(connection);
        }
        Ok(())
    }

    async fn connect(&self) -> Result<BufStream<UnixStream>, StoreError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.unreachable(&error))?;
        Ok(BufStream::new(stream))
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<BufStream<UnixStream>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unreachable(&self, error: &io::Error) -> StoreError {
        StoreError::Unavailable(format!("the process that has it open, by {}: {error}", self.socket.display()))
    }

    /// Asks once. A connection whose answer did not come is not used again.
    async fn ask<T: DeserializeOwned>(&self, command: &Command) -> Result<T, StoreError> {
        let kept = self.idle().pop();
        let mut connection = match kept {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let exchange = async {
            wire::write(&mut connection, command).await?;
            wire::read(&mut connection).await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        };
        let answered =
            tokio::time::timeout(ANSWER_TIMEOUT, exchange).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()));
        match answered {
            Ok(answer) => {
                self.idle().push(connection);
                Ok(answer)
            }
            Err(error) => {
                // The others lead to the same process.
                self.idle().clear();
                Err(self.unreachable(&error))
            }
        }
    }

    async fn answer<T: DeserializeOwned>(&self, command: Command) -> Result<T, StoreError> {
        self.ask::<Answer<T>>(&command).await?
    }

    pub(super) async fn reserve(&self, request: &Reserve) -> Result<Reserved, StoreError> {
        self.answer(Command::Reserve(Box::new(request.clone()))).await
    }

    pub(super) async fn extend(
        &self,
        lease: &LeaseId,
        to: NanoUsd,
        charges: &[Charge],
    ) -> Result<Reserved, StoreError> {
        self.answer(Command::Extend { lease: lease.clone(), to, charges: charges.to_vec() }).await
    }

    pub(super) async fn apply(&self, node: &NodeId, first: u64, ops: &[Op]) -> Result<Applied, StoreError> {
        self.answer(Command::Apply { node: node.clone(), first, ops: ops.to_vec() }).await
    }

    pub(super) async fn touch(&self, leases: &[LeaseId], ttl_ms: u64) -> Result<Vec<LeaseId>, StoreError> {
        self.answer(Command::Touch { leases: leases.to_vec(), ttl_ms }).await
    }

    pub(super) async fn reap(&self, limit: usize) -> Result<usize, StoreError> {
        self.answer(Command::Reap(limit)).await
    }

    pub(super) async fn balances(&self, accounts: &[AccountId]) -> Result<Vec<Balance>, StoreError> {
        self.answer(Command::Balances(accounts.to_vec())).await
    }

    pub(super) async fn claim(&self, account: &AccountId, mark: &str) -> Result<bool, StoreError> {
        self.answer(Command::Claim { account: account.clone(), mark: mark.to_owned() }).await
    }

    pub(super) async fn entries(&self, query: &EntryQuery) -> Result<EntryPage, StoreError> {
        self.answer(Command::Entries(query.clone())).await
    }

    pub(super) async fn rollups(&self, from: &str, to: &str) -> Result<Vec<Rollup>, StoreError> {
        self.answer(Command::Rollups { from: from.to_owned(), to: to.to_owned() }).await
    }

    pub(super) async fn forget(&self, entries_before_ms: u64) -> Result<(), StoreError> {
        self.answer(Command::Forget(entries_before_ms)).await
    }

    pub(super) async fn lease_counts(&self) -> Result<LeaseCounts, StoreError> {
        self.answer(Command::LeaseCounts).await
    }

    pub(super) async fn get(&self, kind: Kind, id: &str) -> Result<Option<Document>, StoreError> {
        self.answer(Command::Get { kind, id: id.to_owned() }).await
    }

    pub(super) async fn list(
        &self,
        kind: Kind,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Document>, StoreError> {
        self.answer(Command::List { kind, after: after.map(str::to_owned), limit }).await
    }

    pub(super) async fn commit(&self, changes: &[Change]) -> Result<(), CommitError> {
        self.ask::<Committed>(&Command::Commit(changes.to_vec())).await?
    }

    pub(super) async fn changes(&self, cursor: Option<&str>) -> Result<Changes, StoreError> {
        self.answer(Command::Changes(cursor.map(str::to_owned))).await
    }
}

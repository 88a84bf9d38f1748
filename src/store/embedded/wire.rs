//! What processes say to each other about a store that one of them has open: every command of the two traits, and their
//! answers, as lines of JSON. Both sides may be of neighbouring versions; a command that is not known is an error.

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::budget::command::{AccountId, Charge, LeaseId, NodeId, Op, Reserve};
use crate::store::{Change, CommitError, EntryQuery, Kind, StoreError};
use crate::types::money::NanoUsd;

/// Larger than any page of the spend log.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// A command of `LedgerStore` or `Directory`, with its arguments.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Command {
    Reserve(Box<Reserve>),
    Extend { lease: LeaseId, to: NanoUsd, charges: Vec<Charge> },
    Apply { node: NodeId, first: u64, ops: Vec<Op> },
    Touch { leases: Vec<LeaseId>, ttl_ms: u64 },
    Reap(usize),
    Balances(Vec<AccountId>),
    Claim { account: AccountId, mark: String },
    Entries(EntryQuery),
    Rollups { from: String, to: String },
    Forget(u64),
    LeaseCounts,
    Get { kind: Kind, id: String },
    List { kind: Kind, after: Option<String>, limit: usize },
    Commit(Vec<Change>),
    Changes(Option<String>),
}

/// The answer to a command.
pub(super) type Answer<T> = Result<T, StoreError>;

/// The answer to a commit.
pub(super) type Committed = Result<(), CommitError>;

/// Writes one line.
///
/// # Errors
/// When the other side has gone away.
pub(super) async fn write(stream: &mut (impl AsyncWrite + Unpin), what: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    stream.flush().await
}

/// Reads one line; `None` when the other side has ended the conversation.
///
/// # Errors
/// When it went away in the middle of a line, or said something else.
pub(super) async fn read<T: DeserializeOwned>(stream: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    stream.take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await?;
    match line.split_last() {
        None => Ok(None),
        Some((b'\n', json)) => Ok(Some(serde_json::from_slice(json)?)),
        Some(_) => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

//! Sends numbered commands to the store, in order, each until the store has it. What an answer was lost for is sent
//! again; what the store lost in a failover is read from the journal and sent again; the numbers make both harmless.

use std::io;
use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::backlog::{Backlog, Next};
use super::journal::read::Replay;
use super::link::Link;
use crate::budget::command::Op;
use crate::store::StoreError;

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// There may be more to send.
    Sent,
    /// The store has everything.
    Idle,
    /// The store has lost something: leases may be gone, too.
    Rewound,
}

/// Sends the commands of one journal.
#[derive(Debug)]
pub struct Outbox {
    backlog: Arc<Backlog>,
    link: Arc<Link>,
    /// The store has everything up to this command, as far as is known.
    sent: u64,
    /// Not before the store was asked what it has.
    introduced: bool,
    /// The commands after `sent`, on their way.
    batch: Vec<Op>,
    replay: Replay,
}

impl Outbox {
    #[must_use]
    pub fn new(backlog: Arc<Backlog>, link: Arc<Link>) -> Self {
        Self { backlog, link, sent: 0, introduced: false, batch: Vec::new(), replay: Replay::default() }
    }

    /// Sends one batch; with `probe` asks the store even if there is nothing to send.
    ///
    /// # Errors
    /// When the store or the disk fails. Call it again, after a while.
    pub async fn step(&mut self, probe: bool) -> Result<Step, StoreError> {
        if !self.introduced {
            return self.introduce().await;
        }
        if self.batch.is_empty() {
            self.batch = self.fetch().await.map_err(|error| StoreError::Failed(format!("the journal: {error}")))?;
        }
        if self.batch.is_empty() && !probe {
            return Ok(Step::Idle);
        }
        let (node, base) = self.backlog.name();
        let count = self.batch.len() as u64;
        let last = base + self.link.apply(&node, self.sent + 1 - base, &self.batch).await?.last;
        if last < self.sent {
            self.batch.clear();
            self.sent = self.backlog.rewind(last).map_err(|error| disk(&error))?;
            return Ok(Step::Rewound);
        }
        if last < self.sent + count {
            // Neither refused nor applied: the answer contradicts itself. Sending it again is safe.
            return Err(StoreError::Failed(format!("it applied {} of {count} commands", last - self.sent)));
        }
        if last > self.sent + count {
            tracing::error!(
                "the store has more commands of this journal than were sent: two replicas share a journal?"
            );
        }
        self.batch.clear();
        self.sent += count;
        if count > 0 {
            self.backlog.confirm(self.sent);
        }
        Ok(if count > 0 { Step::Sent } else { Step::Idle })
    }

    /// Asks what the store has of this journal.
    async fn introduce(&mut self) -> Result<Step, StoreError> {
        let (node, base) = self.backlog.name();
        let known = self.backlog.last_at_open.max(base);
        let last = base + self.link.apply(&node, known + 1 - base, &[]).await?.last;
        if last > known {
            tracing::error!(
                "the store has {} commands of this journal that the journal does not have: it is an old copy, or its \
                 disk lost them; it goes on under another name",
                last - known
            );
            self.backlog.rename_from(known + 1).map_err(|error| disk(&error))?;
        }
        self.sent = self.backlog.meet(last.min(known)).map_err(|error| disk(&error))?;
        self.introduced = true;
        Ok(Step::Sent)
    }

    async fn fetch(&mut self) -> io::Result<Vec<Op>> {
        // Asked first without syncing: mostly there is nothing.
        if self.backlog.last() <= self.sent {
            return Ok(Vec::new());
        }
        let backlog = Arc::clone(&self.backlog);
        let until = spawn_blocking(move || backlog.sync()).await.map_err(io::Error::other)??;
        let most = self.link.batch_max();
        match self.backlog.next(self.sent, until, most) {
            Next::Ops(ops) => Ok(ops),
            Next::Replay { segments, until } => {
                let (mut replay, from) = (std::mem::take(&mut self.replay), self.sent + 1);
                let read = spawn_blocking(move || {
                    let ops = replay.read(&segments, from, until, most);
                    (replay, ops)
                });
                let (replay, ops) = read.await.map_err(io::Error::other)?;
                self.replay = replay;
                ops
            }
            Next::Nothing => Ok(Vec::new()),
        }
    }
}

fn disk(error: &io::Error) -> StoreError {
    StoreError::Failed(format!("the journal cannot be written: {error}"))
}

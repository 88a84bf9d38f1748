//! The one thread that writes to the file. It takes everything that waits into one transaction, so that a hundred
//! callers share one `fsync`, and answers when that is done.
//!
//! The books in memory change before the file does. Should the file fail, they would say different things, so the
//! store answers nothing but errors from then on; a restart reads what is true. Nothing is lost by that: whoever got
//! no answer still has the command in a journal and sends it again.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use redb::{Database, WriteTransaction};
use tokio::sync::oneshot;

use super::clock::Clock;
use super::documents::{self, ChangeLog};
use super::tables::{failed, forget_entries, save};
use crate::budget::books::Books;
use crate::budget::command::{AccountId, Applied, NodeId, Op};
use crate::store::{Change, CommitError, Kind, StoreError};

/// Work of one transaction.
const GROUP_MAX: usize = 256;
/// Commands applied before requests may use the books again.
const APPLIED_AT_ONCE: usize = 32;
/// Entries deleted in one transaction, so that forgetting a month of them lets others in between.
const FORGOTTEN_AT_ONCE: usize = 5_000;

/// What the threads of the process share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) database: Database,
    pub(super) clock: Clock,
    pub(super) books: Mutex<Books>,
    pub(super) change_log: Mutex<ChangeLog>,
    /// Why the file could not be written.
    pub(super) broken: OnceLock<StoreError>,
}

impl Shared {
    /// Runs `work` on the books, at the time of now.
    pub(super) fn with_books<T>(&self, work: impl FnOnce(&mut Books, u64) -> T) -> T {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock, so that times and changes have the same order.
        let now_ms = self.clock.now_ms();
        work(&mut books, now_ms)
    }

    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.broken.get().map_or(Ok(()), |why| Err(why.clone()))
    }
}

type Answer<T> = oneshot::Sender<T>;

/// What the thread is asked to do.
#[derive(Debug)]
pub(super) enum Work {
    Apply {
        node: NodeId,
        first: u64,
        ops: Vec<Op>,
        answer: Answer<Result<Applied, StoreError>>,
    },
    Claim {
        account: AccountId,
        mark: String,
        answer: Answer<Result<bool, StoreError>>,
    },
    /// Writes what has changed in memory.
    Save {
        answer: Answer<Result<(), StoreError>>,
    },
    Commit {
        changes: Vec<Change>,
        answer: Answer<Result<(), CommitError>>,
    },
    Forget {
        entries_before_ms: u64,
        answer: Answer<Result<(), StoreError>>,
    },
}

/// What is told when the transaction is durable, or is not.
type Finish = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// Tells a caller. One who has gone away need not know.
fn tell<T>(answer: Answer<T>, value: T) {
    drop(answer.send(value));
}

/// Works until nobody can ask any more, then saves what is left.
pub(super) fn run(shared: &Arc<Shared>, work: &Receiver<Work>) {
    // Deletions of which a part is done.
    let mut unfinished: VecDeque<Work> = VecDeque::new();
    loop {
        let mut group: Vec<Work> = unfinished.drain(..).collect();
        if group.is_empty() {
            match work.recv() {
                Ok(first) => group.push(first),
                Err(_) => break,
            }
        }
        while group.len() < GROUP_MAX {
            match work.try_recv() {
                Ok(next) => group.push(next),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        transact(shared, group, &mut unfinished);
    }
    let (answer, _) = oneshot::channel();
    transact(shared, vec![Work::Save { answer }], &mut unfinished);
}

/// One transaction.
struct Transaction<'a> {
    shared: &'a Arc<Shared>,
    /// Begun when there is something to write: most groups of an idle proxy have nothing.
    write: Option<WriteTransaction>,
    finish: Vec<Finish>,
    touched: Vec<(Kind, String)>,
}

fn transact(shared: &Arc<Shared>, group: Vec<Work>, unfinished: &mut VecDeque<Work>) {
    let mut transaction = Transaction { shared, write: None, finish: Vec::new(), touched: Vec::new() };
    let mut result = shared.check();
    for work in group {
        if let Err(error) = &result {
            refuse(work, error);
        } else {
            result = transaction.carry_out(work, unfinished);
        }
    }
    let result = result.and_then(|()| transaction.commit());
    if let Err(error) = &result
        && shared.broken.set(error.clone()).is_ok()
    {
        log::error!("the store cannot be written and answers no more: {error}");
    }
    for finish in transaction.finish {
        finish(result.clone());
    }
}

impl Transaction<'_> {
    fn carry_out(&mut self, work: Work, unfinished: &mut VecDeque<Work>) -> Result<(), StoreError> {
        match work {
            Work::Apply { node, first, ops, answer } => {
                let applied = self.apply(&node, first, &ops);
                self.finish.push(Box::new(move |result| tell(answer, result.map(|()| applied))));
            }
            Work::Claim { account, mark, answer } => {
                let first = self.shared.with_books(|books, _| books.claim(&account, &mark));
                self.finish.push(Box::new(move |result| tell(answer, result.map(|()| first))));
            }
            Work::Save { answer } => self.finish.push(Box::new(move |result| tell(answer, result))),
            Work::Commit { changes, answer } => {
                match self.begun().and_then(|write| documents::write(write, &changes)) {
                    Ok(Some(index)) => self.finish.push(Box::new(move |result| {
                        tell(answer, result.map_err(CommitError::Store).and(Err(CommitError::Conflict(index))));
                    })),
                    Ok(None) => {
                        self.touched.extend(changes.into_iter().map(|change| (change.kind, change.id)));
                        self.finish.push(Box::new(move |result| tell(answer, result.map_err(CommitError::Store))));
                    }
                    Err(error) => {
                        tell(answer, Err(CommitError::Store(error.clone())));
                        return Err(error);
                    }
                }
            }
            Work::Forget { entries_before_ms, answer } => {
                self.shared.with_books(Books::forget);
                let more = self.begun().and_then(|write| forget_entries(write, entries_before_ms, FORGOTTEN_AT_ONCE));
                match more {
                    Ok(true) => unfinished.push_back(Work::Forget { entries_before_ms, answer }),
                    Ok(false) => self.finish.push(Box::new(move |result| tell(answer, result))),
                    Err(error) => {
                        tell(answer, Err(error.clone()));
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    /// Applies commands a few at a time, so that no request waits for all of them.
    fn apply(&self, node: &NodeId, first: u64, ops: &[Op]) -> Applied {
        let some = |first, ops: &[Op]| self.shared.with_books(|books, now_ms| books.apply(now_ms, node, first, ops));
        let mut parts = ops.chunks(APPLIED_AT_ONCE);
        let mut applied = some(first, parts.next().unwrap_or_default());
        for (index, part) in (1_u64..).zip(parts) {
            applied = some(first + index * APPLIED_AT_ONCE as u64, part);
        }
        applied
    }

    fn begun(&mut self) -> Result<&WriteTransaction, StoreError> {
        if self.write.is_none() {
            let mut write = self.shared.database.begin_write().map_err(failed)?;
            // Without it the whole file is read after a crash, which takes minutes once the spend log has grown.
            write.set_quick_repair(true);
            self.write = Some(write);
        }
        self.write.as_ref().ok_or_else(|| StoreError::Failed("no transaction".to_owned()))
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        let changes = self.shared.with_books(|books, _| books.take_changes());
        if !changes.is_empty() {
            save(self.begun()?, &changes)?;
        }
        if let Some(write) = self.write.take() {
            write.commit().map_err(failed)?;
        }
        let mut log = self.shared.change_log.lock().unwrap_or_else(PoisonError::into_inner);
        for (kind, id) in self.touched.drain(..) {
            log.push(kind, id);
        }
        Ok(())
    }
}

fn refuse(work: Work, error: &StoreError) {
    match work {
        Work::Apply { answer, .. } => tell(answer, Err(error.clone())),
        Work::Claim { answer, .. } => tell(answer, Err(error.clone())),
        Work::Save { answer } | Work::Forget { answer, .. } => tell(answer, Err(error.clone())),
        Work::Commit { answer, .. } => tell(answer, Err(CommitError::Store(error.clone()))),
    }
}

//! What this replica still owes the store: numbered commands that are not confirmed, and reservations that have not
//! ended. Everything stands in the journal before it counts; memory holds a bounded part of it to be quick.
//!
//! One mutex orders numbers, lines of the journal and the queue alike. It is held for one `write(2)`, never across an
//! await and never while the disk is synced.
//!
//! A thread of the proxy handles what came in for several connections in one turn of its event loop. Reservations wait
//! for their thread's other work of the turn, so that one write takes all of them. An end does not wait: whoever has the
//! answer to a call may rely on its cost being in the journal.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Notify, watch};

use super::journal::read::{fresh_node, scan};
use super::journal::record::{self, Pending};
use super::journal::{self, Journal, Segment};
use crate::budget::command::{LeaseId, NodeId, Op};
use crate::types::map::HashMap;

/// Commands held in memory; what is beyond is read from the journal again.
const QUEUE_MAX: usize = if cfg!(test) { 64 } else { 50_000 };

#[derive(Debug)]
struct Open {
    /// The segment that tells of it.
    serial: u64,
    since: Instant,
    pending: Arc<Pending>,
}

#[derive(Debug)]
struct State {
    journal: Journal,
    /// Number of the next command.
    next: u64,
    confirmed: u64,
    /// Commands without a gap, the last of which has the number `queue_end - 1`.
    queue: VecDeque<Op>,
    queue_end: u64,
    open: HashMap<LeaseId, Open>,
    asking: HashMap<LeaseId, u64>,
}

/// See the module.
#[derive(Debug)]
pub struct Backlog {
    state: Mutex<State>,
    /// There is something to send, or somebody wants to know whether the store is there.
    pub wake: Notify,
    /// Somebody waits for a confirmation.
    pub hurry: Notify,
    confirmed: watch::Sender<u64>,
    /// The last command that stood in the journal when it was opened.
    pub last_at_open: u64,
}

/// What to send next.
#[derive(Debug)]
pub enum Next {
    Ops(Vec<Op>),
    /// To be read from the journal, up to a number.
    Replay {
        segments: Vec<Segment>,
        until: u64,
    },
    Nothing,
}

impl Backlog {
    /// Reads the journal of a slot. Reservations that nobody can settle any more are charged in full, and leases that
    /// were never used are given back: commands for both are numbered at once. `None`: a living process has the slot.
    ///
    /// # Errors
    /// When the journal cannot be read or written.
    pub fn open(slot: &Path) -> io::Result<Option<Self>> {
        let Some(lock) = Journal::lock(slot)? else { return Ok(None) };
        let found = scan(slot)?;
        let journal = Journal::resume(slot, lock, &found)?;
        let (confirmed, _) = watch::channel(found.acked);
        let mut state = State {
            journal,
            next: found.next,
            confirmed: found.acked.min(found.next - 1),
            queue: VecDeque::new(),
            queue_end: 0,
            open: HashMap::default(),
            asking: HashMap::default(),
        };
        // Before anything is sent: what is confirmed and out of the window of a failover must not be sent again, even
        // to a store that has forgotten the numbers of this journal.
        let carried: Vec<u64> =
            found.open.values().map(|(serial, _)| *serial).chain(found.asking.values().copied()).collect();
        let expired = state.journal.expired(SystemTime::now(), state.confirmed);
        let expired: Vec<u64> = expired.into_iter().take_while(|serial| !carried.contains(serial)).collect();
        state.journal.delete(&expired);

        let mut open: Vec<Pending> = found.open.into_values().map(|(_, pending)| pending).collect();
        open.sort_by(|a, b| a.lease.cmp(&b.lease));
        if !open.is_empty() {
            tracing::warn!("{} calls were in flight when this journal ended; they are charged in full", open.len());
        }
        for pending in open {
            let ends = pending.lease.clone();
            let op = charged_in_full(pending);
            let body = record::op_body(&op, Some(&ends));
            state.push_body(op, &body, Some(&ends));
        }
        let mut asking: Vec<LeaseId> = found.asking.into_keys().collect();
        asking.sort();
        for lease in asking {
            let op = Op::Close { lease: lease.clone() };
            let body = record::op_body(&op, Some(&lease));
            state.push_body(op, &body, Some(&lease));
        }
        // Should the disk not take it now, it is tried again before anything is sent.
        state.flush();
        Ok(Some(Self {
            state: Mutex::new(state),
            wake: Notify::new(),
            hurry: Notify::new(),
            confirmed,
            last_at_open: found.next - 1,
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store is about to be asked for a lease.
    ///
    /// # Errors
    /// When the disk does not take it: the lease must not be asked for.
    pub fn asking(&self, lease: &LeaseId) -> io::Result<()> {
        let line = record::asking(lease);
        let mut state = self.state();
        state.journal.append(&line)?;
        let serial = state.journal.serial();
        state.asking.insert(lease.clone(), serial);
        Ok(())
    }

    /// Money was set aside; the call may go upstream once this returns.
    ///
    /// # Errors
    /// When the disk does not take it: the call must not go upstream, and the reservation is to be ended. So it is when
    /// nobody waits for this any more.
    pub async fn reserved(&self, pending: &Arc<Pending>) -> io::Result<()> {
        let line = record::reserved(pending);
        let since = Instant::now();
        let position = {
            let mut state = self.state();
            let position = state.journal.gather(&line);
            state.holds(pending, since);
            position
        };
        rest_of_turn().await;
        let mut state = self.state();
        if state.journal.lines_written() < position { state.journal.flush() } else { Ok(()) }
    }

    /// As [`Self::reserved`], without sharing a write.
    ///
    /// # Errors
    /// When the disk does not take it: nothing has changed.
    pub fn reserved_now(&self, pending: &Arc<Pending>) -> io::Result<()> {
        let line = record::reserved(pending);
        let since = Instant::now();
        let mut state = self.state();
        state.journal.append(&line)?;
        state.holds(pending, since);
        Ok(())
    }

    /// A reservation grew to the amount of `pending`.
    ///
    /// # Errors
    /// When the disk does not take it: the call must not cost more than before.
    pub fn extended(&self, pending: &Arc<Pending>) -> io::Result<()> {
        let line = record::extended(&pending.lease, pending.amount);
        let mut state = self.state();
        state.journal.append(&line)?;
        if let Some(open) = state.open.get_mut(&pending.lease) {
            open.pending = Arc::clone(pending);
        }
        Ok(())
    }

    /// A lease or reservation is over, and the store need not be told.
    pub fn ended(&self, lease: &LeaseId) {
        let line = record::ended(lease);
        let mut state = self.state();
        state.open.remove(lease);
        state.asking.remove(lease);
        state.journal.gather(&line);
        state.flush();
    }

    /// Numbers a command and sends it as soon as possible, and for as long as it takes.
    pub fn push(&self, op: Op, ends: Option<&LeaseId>) -> u64 {
        let body = record::op_body(&op, ends);
        let number = {
            let mut state = self.state();
            let number = state.push_body(op, &body, ends);
            state.flush();
            number
        };
        self.wake.notify_one();
        number
    }

    /// Commands that the store has not confirmed.
    #[must_use]
    pub fn unconfirmed(&self) -> u64 {
        let state = self.state();
        (state.next - 1).saturating_sub(state.confirmed)
    }

    /// The last number given to a command.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.state().next - 1
    }

    /// Resolves when the store has all commands up to `number`.
    pub async fn confirmed(&self, number: u64) {
        let mut confirmed = self.confirmed.subscribe();
        if *confirmed.borrow() < number {
            self.hurry.notify_one();
        }
        // The sender lives as long as this.
        if confirmed.wait_for(|confirmed| *confirmed >= number).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// As the store knows this journal: its name, and what to take from a number.
    #[must_use]
    pub fn name(&self) -> (NodeId, u64) {
        let state = self.state();
        (state.journal.node().clone(), state.journal.base())
    }

    /// What follows command `sent`, up to `until`, which is synced, and not more than `most`. Only what is synced may be
    /// sent: else the store could know a number that a loss of power takes from the journal, and take the next command
    /// of that number for a repetition.
    #[must_use]
    pub fn next(&self, sent: u64, until: u64, most: usize) -> Next {
        let mut state = self.state();
        let from = sent + 1;
        if from > until {
            return Next::Nothing;
        }
        let mut queued_from = state.queue_end.saturating_sub(state.queue.len() as u64);
        while queued_from < from && state.queue.pop_front().is_some() {
            queued_from += 1;
        }
        if state.queue.is_empty() || queued_from > from {
            let until = if state.queue.is_empty() { until } else { until.min(queued_from - 1) };
            return Next::Replay { segments: state.journal.segments(), until };
        }
        let most = usize::try_from(until - sent).unwrap_or(most).min(most).min(state.queue.len());
        Next::Ops(state.queue.drain(..most).collect())
    }

    /// The store has all commands up to `number`.
    pub fn confirm(&self, number: u64) {
        let mut state = self.state();
        if number > state.confirmed {
            state.confirmed = number;
            // Written with what follows, or before the journal is synced next.
            state.journal.gather(&record::acked(number));
        }
        // Read from the journal up to its end: from here on memory has it all again.
        if state.queue.is_empty() && number + 1 == state.next {
            state.queue_end = state.next;
        }
        self.confirmed.send_replace(number);
    }

    /// The store was asked for the first time, and has everything up to `number`. Returns what [`Self::rewind`] does.
    ///
    /// # Errors
    /// As [`Self::rewind`].
    pub fn meet(&self, number: u64) -> io::Result<u64> {
        let (confirmed, oldest) = {
            let state = self.state();
            (state.confirmed, state.journal.oldest())
        };
        if number < confirmed || number + 1 < oldest {
            return self.rewind(number);
        }
        self.confirm(number);
        Ok(number)
    }

    /// The store has lost everything after `number`. Returns the number up to which it has, or can do without, all
    /// commands: higher when the journal does not reach back so far; the rest is then sent under another name.
    ///
    /// # Errors
    /// When another name is needed and cannot be written.
    pub fn rewind(&self, number: u64) -> io::Result<u64> {
        let mut state = self.state();
        let oldest = state.journal.oldest();
        let to = if number + 1 < oldest {
            tracing::error!(
                lost = oldest - 1 - number,
                "the store lacks commands that this journal does not hold any more: it was emptied or replaced by an \
                 old copy; what is left of the journal is sent again"
            );
            state.rename_from(oldest)?;
            oldest - 1
        } else {
            tracing::warn!("the store lost commands after {number}, probably in a failover; they are sent again");
            number
        };
        state.queue.clear();
        state.queue_end = if to + 1 == state.next { state.next } else { 0 };
        state.confirmed = to;
        self.confirmed.send_replace(to);
        Ok(to)
    }

    /// The store knows numbers that this journal has not given: it is an old copy. Commands from `first` on are sent
    /// under another name.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn rename_from(&self, first: u64) -> io::Result<()> {
        self.state().rename_from(first)
    }

    /// Whether there is anything to sync, or to write once the disk takes it.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.state().journal.is_dirty()
    }

    /// Writes what is gathered and syncs what was written. Gives the last command that is safe on the disk; later ones
    /// wait for it. Blocks.
    ///
    /// # Errors
    /// When the disk cannot sync.
    pub fn sync(&self) -> io::Result<u64> {
        let (written, files) = {
            let mut state = self.state();
            state.flush();
            (state.journal.written(), state.journal.unsynced())
        };
        let synced = journal::sync(&files);
        if synced.is_err() {
            self.state().journal.not_synced(files);
        }
        synced.map(|()| written)
    }

    /// Leases of the store that are held for calls since longer than `age`.
    #[must_use]
    pub fn held_longer_than(&self, age: Duration) -> Vec<LeaseId> {
        let state = self.state();
        let old = |open: &&Open| open.pending.slice.is_none() && open.since.elapsed() >= age;
        state.open.values().filter(old).map(|open| open.pending.lease.clone()).collect()
    }

    /// Whether a lease is held for a call or is a slice.
    #[must_use]
    pub fn holds(&self, lease: &LeaseId) -> bool {
        let state = self.state();
        state.open.contains_key(lease) || state.asking.contains_key(lease)
    }

    /// Deletes segments that are not needed any more. What is still open is written again first. Blocks.
    ///
    /// # Errors
    /// When that cannot be written; nothing is deleted then.
    pub fn clean(&self, now: SystemTime) -> io::Result<()> {
        let expired = {
            let mut state = self.state();
            let (next, acked) = (state.next, state.confirmed);
            state.journal.rotate_if_old(now, next, acked)?;
            let expired = state.journal.expired(now, acked);
            if expired.is_empty() {
                return Ok(());
            }
            state.carry_over(&expired)?;
            expired
        };
        self.sync()?;
        self.state().journal.delete(&expired);
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn segment_paths(&self) -> Vec<std::path::PathBuf> {
        self.state().journal.segments().into_iter().map(|segment| segment.path).collect()
    }

    #[cfg(test)]
    pub(super) fn writes(&self) -> u64 {
        self.state().journal.writes
    }

    #[cfg(test)]
    pub(super) fn fill_disk(&self, full: bool) {
        self.state().journal.disk_full = full;
    }
}

impl State {
    fn push_body(&mut self, op: Op, body: &[u8], ends: Option<&LeaseId>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.journal.gather_op(number, body);
        if let Some(lease) = ends {
            self.open.remove(lease);
            self.asking.remove(lease);
        }
        if self.queue_end == number && self.queue.len() < QUEUE_MAX {
            self.queue.push_back(op);
            self.queue_end += 1;
        }
        number
    }

    /// A reservation is in the journal, or about to be.
    fn holds(&mut self, pending: &Arc<Pending>, since: Instant) {
        if pending.slice.is_none() {
            self.asking.remove(&pending.lease);
        }
        let serial = self.journal.serial();
        self.open.insert(pending.lease.clone(), Open { serial, since, pending: Arc::clone(pending) });
    }

    /// Writes what is gathered. What the disk does not take is tried again at the next write.
    fn flush(&mut self) {
        if let Err(error) = self.journal.flush() {
            tracing::debug!("the journal cannot be written: {error}");
        }
    }

    fn rename_from(&mut self, first: u64) -> io::Result<()> {
        let (next, confirmed) = (self.journal.written() + 1, self.confirmed);
        self.journal.rename(fresh_node(), first - 1, next, confirmed)
    }

    /// Writes what is open in old segments into the current one.
    fn carry_over(&mut self, serials: &[u64]) -> io::Result<()> {
        for open in self.open.values_mut().filter(|open| serials.contains(&open.serial)) {
            self.journal.append(&record::reserved(&open.pending))?;
            open.serial = self.journal.serial();
        }
        for (lease, serial) in self.asking.iter_mut().filter(|(_, serial)| serials.contains(serial)) {
            self.journal.append(&record::asking(lease))?;
            *serial = self.journal.serial();
        }
        Ok(())
    }
}

/// Resolves once this thread's other tasks that can go on now have done so.
async fn rest_of_turn() {
    let mut waited = false;
    poll_fn(|context| {
        if waited {
            return Poll::Ready(());
        }
        waited = true;
        // Not `yield_now`, which looks for new events first.
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// What becomes of a reservation that nobody settled: its call may have been billed.
#[must_use]
pub fn charged_in_full(pending: Pending) -> Op {
    let mut row = pending.row;
    "unknown".clone_into(&mut Arc::make_mut(&mut row).certainty);
    let close = pending.slice.is_none();
    Op::Spend {
        lease: Some(pending.slice.unwrap_or(pending.lease)),
        close,
        cost: pending.amount,
        tokens: pending.tokens,
        charges: pending.charges,
        row,
    }
}

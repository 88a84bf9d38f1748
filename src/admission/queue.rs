//! Places for requests in flight, and the queue before them. A place that becomes free goes to the key with the fewest
//! requests in flight: shares are max-min fair while anybody waits, and nobody is limited while nobody does.
//!
//! The queue is bounded. When it is full the key with the longest queue pays, and who could not be served within the
//! patience of the queue, as far as recent requests tell, is sent away at once instead of at its end. Deadlines of those
//! who wait are kept by the caller, who withdraws them.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::{CLAIMED_PART, Whose};
use crate::types::map::HashMap;

/// How much is admitted.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Requests in flight at once; at least 1.
    pub in_flight_max: usize,
    /// Requests that wait at once.
    pub queued_max: usize,
    /// How long a request may wait.
    pub patience: Duration,
}

/// Names one waiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u64);

/// What becomes of a request that enters.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry<W> {
    /// It has a place, and leaves by [`Queue::leave`].
    Admitted,
    /// It waits until it is [`Queue::leave`]'s next, or is displaced. Who is displaced by it is told here.
    Queued {
        ticket: Ticket,
        displaced: Option<W>,
    },
    Shed(Shed),
}

/// Why a request is sent away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shed {
    /// The queue is full, and no key has a longer part of it.
    QueueFull,
    /// The queue was full, and a key with less of it came.
    Displaced,
    /// It would wait longer than it may.
    ExpectedWait,
    /// It has waited as long as it may.
    QueueTimeout,
}

impl Shed {
    /// A word for metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Displaced => "displaced",
            Self::ExpectedWait => "expected_wait",
            Self::QueueTimeout => "queue_timeout",
        }
    }
}

/// One in so many parts of an average is the newest value.
const SMOOTHING: u32 = 16;

/// What is in flight and what waits. `W` wakes a waiter.
#[derive(Debug)]
pub struct Queue<W> {
    rules: Rules,
    all: Count,
    claimed: Count,
    /// Keys with anything in flight or waiting; no others.
    shares: HashMap<Whose, Share<W>>,
    /// Keys of which somebody waits, the next one first; those of claimed names apart, because they may be at their limit.
    proven_turns: BTreeSet<Turn>,
    claimed_turns: BTreeSet<Turn>,
    admissions: u64,
    tickets: u64,
    /// How long a place is held, on average over recent requests.
    service: Option<Duration>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    in_flight: usize,
    waiting: usize,
}

#[derive(Debug)]
struct Share<W> {
    in_flight: usize,
    /// Number of the latest admission: of two keys with as many in flight, the one that waited longer is next.
    admitted_last: u64,
    waiters: VecDeque<(Ticket, W)>,
}

impl<W> Default for Share<W> {
    fn default() -> Self {
        Self { in_flight: 0, admitted_last: 0, waiters: VecDeque::new() }
    }
}

/// In the order in which keys are served.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    in_flight: usize,
    admitted_last: u64,
    whose: Whose,
    /// Of the same key; here so that looking through all turns needs no other look-up.
    waiting: usize,
}

impl<W> Queue<W> {
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            all: Count::default(),
            claimed: Count::default(),
            shares: HashMap::default(),
            proven_turns: BTreeSet::new(),
            claimed_turns: BTreeSet::new(),
            admissions: 0,
            tickets: 0,
            service: None,
        }
    }

    /// A request comes. `waiter` is made where it has to wait.
    pub fn enter(&mut self, whose: &Whose, waiter: impl FnOnce() -> W) -> Entry<W> {
        if self.has_place(whose.is_claimed()) {
            self.admit(whose);
            return Entry::Admitted;
        }
        if self.expected_wait(whose).is_some_and(|wait| wait > self.rules.patience) {
            return Entry::Shed(Shed::ExpectedWait);
        }
        let displaced = match self.make_way(whose) {
            Ok(displaced) => displaced,
            Err(shed) => return Entry::Shed(shed),
        };
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.change(whose, |share| share.waiters.push_back((ticket, waiter())));
        self.count(whose, |count| count.waiting += 1);
        Entry::Queued { ticket, displaced }
    }

    /// A request of `whose` has ended, having held its place for `held`; `None` for one that went away before it had
    /// begun. Gives who has its place now.
    #[must_use]
    pub fn leave(&mut self, whose: &Whose, held: Option<Duration>) -> Option<(Whose, W)> {
        self.service = match (self.service, held) {
            (Some(average), Some(held)) => Some(average.saturating_mul(SMOOTHING - 1).saturating_add(held) / SMOOTHING),
            (None, held) => held,
            (average, None) => average,
        };
        self.release(whose);
        self.next()
    }

    /// A request in flight is known to be of `proven`, no longer of whom it claimed. Gives who may go on because of that.
    #[must_use]
    pub fn prove(&mut self, claimed: &Whose, proven: &Whose) -> Option<(Whose, W)> {
        self.release(claimed);
        self.admit(proven);
        self.next()
    }

    /// A waiter goes away; `false` when it no longer waits.
    pub fn withdraw(&mut self, whose: &Whose, ticket: Ticket) -> bool {
        let found = self.change(whose, |share| {
            let at = share.waiters.iter().position(|(other, _)| *other == ticket)?;
            share.waiters.remove(at)
        });
        if found.is_some() {
            self.count(whose, |count| count.waiting -= 1);
        }
        found.is_some()
    }

    /// Requests that have a place.
    #[must_use]
    pub const fn in_flight(&self) -> usize {
        self.all.in_flight
    }

    /// Requests that wait for one.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.all.waiting
    }

    fn has_place(&self, claimed: bool) -> bool {
        self.all.in_flight < self.rules.in_flight_max && (!claimed || self.claimed.in_flight < self.claimed_places())
    }

    fn claimed_places(&self) -> usize {
        (self.rules.in_flight_max / CLAIMED_PART).max(1)
    }

    fn admit(&mut self, whose: &Whose) {
        self.admissions += 1;
        let number = self.admissions;
        self.change(whose, |share| {
            share.in_flight += 1;
            share.admitted_last = number;
        });
        self.count(whose, |count| count.in_flight += 1);
    }

    fn release(&mut self, whose: &Whose) {
        self.change(whose, |share| share.in_flight = share.in_flight.saturating_sub(1));
        self.count(whose, |count| count.in_flight = count.in_flight.saturating_sub(1));
    }

    /// Gives a place that is free to whom it belongs.
    fn next(&mut self) -> Option<(Whose, W)> {
        let proven = self.proven_turns.first().filter(|_| self.has_place(false));
        let claimed = self.claimed_turns.first().filter(|_| self.has_place(true));
        let whose = proven.into_iter().chain(claimed).min()?.whose.clone();
        let (_, waiter) = self.change(&whose, |share| share.waiters.pop_front())?;
        self.count(&whose, |count| count.waiting -= 1);
        self.admit(&whose);
        Some((whose, waiter))
    }

    /// Makes room in the queue for one more of `whose`, at the cost of the key that has most of it.
    fn make_way(&mut self, whose: &Whose) -> Result<Option<W>, Shed> {
        let claimed_full = whose.is_claimed() && self.claimed.waiting >= (self.rules.queued_max / CLAIMED_PART).max(1);
        if self.all.waiting < self.rules.queued_max && !claimed_full {
            return Ok(None);
        }
        let proven = self.proven_turns.iter().filter(|_| !claimed_full);
        let longest = proven.chain(&self.claimed_turns).max_by_key(|turn| turn.waiting).ok_or(Shed::QueueFull)?;
        let own = self.shares.get(whose).map_or(0, |share| share.waiters.len());
        // One who would have as much of the queue himself has waited for nothing yet.
        if own + 1 >= longest.waiting {
            return Err(Shed::QueueFull);
        }
        let payer = longest.whose.clone();
        let youngest = self.change(&payer, |share| share.waiters.pop_back());
        self.count(&payer, |count| count.waiting -= 1);
        Ok(youngest.map(|(_, waiter)| waiter))
    }

    /// How long one more request of `whose` would wait at most; `None` while nobody knows how long requests take.
    fn expected_wait(&self, whose: &Whose) -> Option<Duration> {
        let service = self.service?;
        let places = if whose.is_claimed() { self.claimed_places() } else { self.rules.in_flight_max };
        let after = |before: usize| {
            let before = u32::try_from(before + 1).unwrap_or(u32::MAX);
            service.saturating_mul(before) / u32::try_from(places).unwrap_or(u32::MAX).max(1)
        };
        let longest = after(self.all.waiting);
        if longest <= self.rules.patience {
            return Some(longest);
        }
        let (in_flight, waiting) =
            self.shares.get(whose).map_or((0, 0), |share| (share.in_flight, share.waiters.len()));
        // A key is served before this request until it has as many in flight as this one's key then has.
        let level = in_flight + waiting + 1;
        let ahead = |turns: &BTreeSet<Turn>| -> usize {
            let others = turns.iter().filter(|turn| turn.whose != *whose);
            others.map(|turn| level.saturating_sub(turn.in_flight).min(turn.waiting)).sum()
        };
        // Who claims and is at the limit takes no place that becomes free.
        let claimed_open = whose.is_claimed() || self.claimed.in_flight < self.claimed_places();
        let claimed = if claimed_open { ahead(&self.claimed_turns) } else { 0 };
        let proven = if whose.is_claimed() { 0 } else { ahead(&self.proven_turns) };
        Some(after(waiting + claimed + proven))
    }

    /// Changes a share and keeps its turn right.
    fn change<T>(&mut self, whose: &Whose, change: impl FnOnce(&mut Share<W>) -> T) -> T {
        let turns = if whose.is_claimed() { &mut self.claimed_turns } else { &mut self.proven_turns };
        let share = self.shares.entry(whose.clone()).or_default();
        let turn = |share: &Share<W>| Turn {
            in_flight: share.in_flight,
            admitted_last: share.admitted_last,
            whose: whose.clone(),
            waiting: share.waiters.len(),
        };
        if !share.waiters.is_empty() {
            turns.remove(&turn(share));
        }
        let changed = change(share);
        if !share.waiters.is_empty() {
            turns.insert(turn(share));
        } else if share.in_flight == 0 {
            self.shares.remove(whose);
        }
        changed
    }

    fn count(&mut self, whose: &Whose, change: impl Fn(&mut Count)) {
        change(&mut self.all);
        if whose.is_claimed() {
            change(&mut self.claimed);
        }
    }
}

#[cfg(test)]
mod tests;

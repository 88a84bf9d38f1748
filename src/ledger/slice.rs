//! Slices: leases from which this replica serves many requests without asking the store for each.
//!
//! A slice belongs to one list of charges, limits included: a request under other limits or in another period never
//! finds it. It is at most a hundredth of what is left on the tightest account, so replicas cannot hoard a budget, and
//! it is replaced after five seconds, so what this replica knows of the accounts stays fresh. What a request takes is
//! journaled like a lease of its own. A slice is used only well before it can expire, by the monotonic clock.
//!
//! A failover may lose a slice. All are dropped when the store was away or has lost commands; one that was lost without
//! either sign serves for five seconds more, and a limit can be exceeded by what it holds.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::budget::command::{AccountId, Balance, Charge, LeaseId};
use crate::types::money::NanoUsd;

/// A slice must serve at least this many requests to be worth asking for.
const REQUESTS_MIN: u64 = 8;

/// Of what is left, the part that one slice may hold.
const PART_MAX: u64 = 100;

/// After this a slice is replaced.
const AGE_MAX: Duration = Duration::from_secs(5);

/// Unused for this long, a slice is given back.
pub const IDLE_MAX: Duration = Duration::from_secs(10);

/// After a refusal or fault no slice is asked for on the same accounts for this long.
const PAUSE: Duration = Duration::from_secs(1);

/// One lease, shared by requests.
#[derive(Debug)]
pub struct Slice {
    pub lease: LeaseId,
    pub charges: Vec<Charge>,
    opened: Instant,
    size: u64,
    /// As of the grant.
    balances: Vec<Balance>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What further requests may take.
    free: u64,
    /// Taken by requests in flight.
    taken: u64,
    in_flight: u64,
    /// Settled from it so far.
    spent: u64,
    used: Instant,
    usable_until: Instant,
    retired: bool,
    closed: bool,
}

impl Slice {
    #[must_use]
    pub fn new(lease: LeaseId, charges: Vec<Charge>, size: NanoUsd, balances: Vec<Balance>, until: Instant) -> Self {
        let now = Instant::now();
        let state = State {
            free: size.0,
            taken: 0,
            in_flight: 0,
            spent: 0,
            used: now,
            usable_until: until,
            retired: false,
            closed: false,
        };
        Self { lease, charges, opened: now, size: size.0, balances, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes more for a request that has taken from it before.
    #[must_use]
    pub fn take_more(&self, more: u64) -> bool {
        let mut state = self.state();
        if state.retired || Instant::now() >= state.usable_until || state.free < more {
            return false;
        }
        state.free -= more;
        state.taken += more;
        true
    }

    /// A request that took `amount` cost `cost`, and that command is numbered. True when the slice is to be closed now.
    #[must_use]
    pub fn settle(&self, amount: NanoUsd, cost: NanoUsd) -> bool {
        let mut state = self.state();
        state.taken = state.taken.saturating_sub(amount.0);
        state.in_flight = state.in_flight.saturating_sub(1);
        state.spent = state.spent.saturating_add(cost.0);
        state.free += amount.0.saturating_sub(cost.0);
        // Beyond its part it was paid out of the rest of the slice.
        let beyond = cost.0.saturating_sub(amount.0);
        state.retired |= beyond > state.free;
        state.free = state.free.saturating_sub(beyond);
        state.close_if_done()
    }

    /// No request takes from it any more. True when it is to be closed now.
    #[must_use]
    pub fn retire(&self) -> bool {
        let mut state = self.state();
        state.retired = true;
        state.close_if_done()
    }

    /// The store will keep it open until then.
    pub fn extend_until(&self, until: Instant) {
        let mut state = self.state();
        state.usable_until = state.usable_until.max(until);
    }

    fn is_idle(&self) -> bool {
        let state = self.state();
        state.in_flight == 0 && state.used.elapsed() >= IDLE_MAX
    }

    fn take(&self, amount: u64, now: Instant) -> Option<(Vec<Balance>, u64)> {
        let (free, spent) = {
            let mut state = self.state();
            if state.retired || now >= state.usable_until || state.free < amount {
                return None;
            }
            state.free -= amount;
            state.taken += amount;
            state.in_flight += 1;
            state.used = now;
            (state.free, state.spent)
        };
        let spent = NanoUsd(spent);
        let known = |balance: &Balance| Balance {
            spent: balance.spent.saturating_add(spent),
            reserved: balance.reserved.saturating_sub(spent),
            overrun: balance.overrun,
        };
        Some((self.balances.iter().map(known).collect(), free))
    }
}

impl State {
    fn close_if_done(&mut self) -> bool {
        let now = self.retired && self.in_flight == 0 && !self.closed;
        self.closed |= now;
        now
    }
}

/// The slices of one list of charges.
#[derive(Debug)]
struct Pot {
    charges: Vec<Charge>,
    current: Option<Arc<Slice>>,
    opening: bool,
    not_before: Instant,
}

/// All slices of this replica.
#[derive(Debug)]
pub struct Slices {
    size_max: u64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    pots: HashMap<u64, Pot>,
    /// Everything that the store has open, those that serve nothing any more included.
    alive: HashMap<LeaseId, Arc<Slice>>,
    /// No further slice is asked for.
    stopped: bool,
    /// Askings that are not over.
    asking: usize,
}

/// A slice to be asked for. Exactly one call of [`Slices::opened`] and one of [`Slices::asked`] must follow.
#[derive(Debug, PartialEq, Eq)]
pub struct Wanted {
    key: u64,
    pub charges: Vec<Charge>,
    pub size: NanoUsd,
}

/// What a request got from a slice.
#[derive(Debug)]
pub struct Taken {
    pub slice: Arc<Slice>,
    pub balances: Vec<Balance>,
    /// A slice to take its place soon.
    pub wanted: Option<Wanted>,
}

impl Slices {
    #[must_use]
    pub fn new(size_max: NanoUsd) -> Self {
        Self { size_max: size_max.0, inner: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `amount` from the slice of these charges, if there is one that holds as much.
    #[must_use]
    pub fn take(&self, charges: &[Charge], amount: NanoUsd) -> Option<Taken> {
        let key = key_of(charges);
        let now = Instant::now();
        let slice = {
            let inner = self.inner();
            let pot = inner.pots.get(&key).filter(|pot| pot.charges == charges)?;
            Arc::clone(pot.current.as_ref()?)
        };
        let (balances, free) = slice.take(amount.0, now)?;
        let due = free < slice.size / 4 || now.duration_since(slice.opened) >= AGE_MAX;
        let wanted = if due { self.want(charges, amount, &balances) } else { None };
        Some(Taken { slice, balances, wanted })
    }

    /// Whether a slice of these charges should be asked for, given what is known of the accounts. The asking is the
    /// caller's from then on.
    #[must_use]
    pub fn want(&self, charges: &[Charge], amount: NanoUsd, balances: &[Balance]) -> Option<Wanted> {
        let left = left(charges, balances)?;
        let size = (left / PART_MAX).min(self.size_max);
        if size == 0 || size / REQUESTS_MIN < amount.0 {
            return None;
        }
        let (key, now) = (key_of(charges), Instant::now());
        let mut inner = self.inner();
        let Inner { pots, stopped, asking, .. } = &mut *inner;
        let stopped = *stopped;
        let pot = pots.entry(key).or_insert_with(|| Pot {
            charges: charges.to_vec(),
            current: None,
            opening: false,
            not_before: now,
        });
        if stopped || pot.opening || now < pot.not_before || pot.charges != charges {
            return None;
        }
        pot.opening = true;
        *asking += 1;
        Some(Wanted { key, charges: charges.to_vec(), size: NanoUsd(size) })
    }

    /// How the asking ended: with a slice or not. Returns slices to be closed.
    #[must_use]
    pub fn opened(&self, key: &Wanted, slice: Option<Slice>) -> Vec<Arc<Slice>> {
        let mut inner = self.inner();
        let Inner { pots, alive, stopped, .. } = &mut *inner;
        let Some(pot) = pots.get_mut(&key.key) else { return Vec::new() };
        pot.opening = false;
        let Some(slice) = slice else {
            pot.not_before = Instant::now() + PAUSE;
            return Vec::new();
        };
        let slice = Arc::new(slice);
        alive.insert(slice.lease.clone(), Arc::clone(&slice));
        // Others took much at the same time: it would be more than its part of what is left now.
        let fair = left(&slice.charges, &slice.balances).is_none_or(|left| slice.size <= left / (PART_MAX / 2));
        let old = if fair && !*stopped {
            pot.current.replace(slice)
        } else {
            pot.not_before = Instant::now() + PAUSE;
            Some(slice)
        };
        old.into_iter().filter(|old| old.retire()).inspect(|old| drop(alive.remove(&old.lease))).collect()
    }

    /// The store has been told that it is closed.
    pub fn closed(&self, lease: &LeaseId) {
        self.inner().alive.remove(lease);
    }

    /// Retires the slices that `which` picks. Returns those to be closed now; the others will be when the last request
    /// in flight has ended.
    fn retire(&self, which: impl Fn(&Slice) -> bool) -> Vec<Arc<Slice>> {
        let mut inner = self.inner();
        let Inner { pots, alive, .. } = &mut *inner;
        let picked: Vec<Arc<Slice>> = alive.values().filter(|slice| which(slice)).cloned().collect();
        for pot in pots.values_mut() {
            if pot.current.as_ref().is_some_and(|slice| picked.iter().any(|other| other.lease == slice.lease)) {
                pot.current = None;
            }
        }
        picked.into_iter().filter(|slice| slice.retire()).inspect(|slice| drop(alive.remove(&slice.lease))).collect()
    }

    /// Asks for no further slice. What was asked for already is given back as it comes.
    pub fn stop(&self) {
        self.inner().stopped = true;
    }

    /// An asking is over, and what it left to be closed is.
    pub fn asked(&self) {
        let mut inner = self.inner();
        inner.asking = inner.asking.saturating_sub(1);
    }

    /// Whether slices are being asked for.
    #[must_use]
    pub fn is_asking(&self) -> bool {
        self.inner().asking > 0
    }

    /// All of them: at a stop, or when the store may have lost them.
    #[must_use]
    pub fn retire_all(&self) -> Vec<Arc<Slice>> {
        self.retire(|_| true)
    }

    /// Those that hold money of an account that needs it.
    #[must_use]
    pub fn retire_of(&self, account: &AccountId) -> Vec<Arc<Slice>> {
        self.retire(|slice| slice.charges.iter().any(|charge| charge.account == *account))
    }

    /// One that the store does not have any more.
    #[must_use]
    pub fn retire_lost(&self, lost: &[LeaseId]) -> Vec<Arc<Slice>> {
        self.retire(|slice| lost.contains(&slice.lease))
    }

    /// Those that nothing uses.
    #[must_use]
    pub fn retire_idle(&self) -> Vec<Arc<Slice>> {
        let closed = self.retire(Slice::is_idle);
        let now = Instant::now();
        self.inner().pots.retain(|_, pot| pot.opening || pot.current.is_some() || now < pot.not_before);
        closed
    }

    /// What the store must hear of.
    #[must_use]
    pub fn alive(&self) -> Vec<Arc<Slice>> {
        self.inner().alive.values().cloned().collect()
    }
}

/// What is left on the tightest account; `None` without a limit.
fn left(charges: &[Charge], balances: &[Balance]) -> Option<u64> {
    let one = |(charge, balance): (&Charge, &Balance)| {
        charge.limit.map(|limit| limit.saturating_sub(balance.spent).saturating_sub(balance.reserved).0)
    };
    charges.iter().zip(balances).filter_map(one).min()
}

/// Finds the pot; the charges are compared besides.
fn key_of(charges: &[Charge]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for charge in charges {
        (&charge.account, charge.limit).hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::command::Scope;

    fn charges(limit: u64) -> Vec<Charge> {
        let account = AccountId::new("key/k/total");
        vec![Charge { account, scope: Scope::Key, limit: Some(NanoUsd(limit)), forget_at_ms: None }]
    }

    fn slice(size: u64, balance: Balance) -> Slice {
        let until = Instant::now() + Duration::from_mins(1);
        Slice::new(LeaseId::new("slice.1"), charges(1_000_000), NanoUsd(size), vec![balance], until)
    }

    #[test]
    fn a_slice_never_gives_more_than_it_holds() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let size = random.u64(0..20_000);
            let slice = slice(size, Balance { reserved: NanoUsd(size), ..Balance::default() });
            let (mut taken, mut spent) = (Vec::new(), 0);
            for _ in 0..300 {
                let now = Instant::now();
                if random.bool() {
                    let amount = random.u64(0..1000);
                    let fits = taken.iter().sum::<u64>() + spent + amount <= size;
                    let given = slice.take(amount, now);
                    assert_eq!(given.is_some(), fits, "seed {seed}");
                    if let Some((balances, free)) = given {
                        taken.push(amount);
                        assert_eq!(free, size - spent - taken.iter().sum::<u64>());
                        assert_eq!((balances[0].spent, balances[0].reserved), (NanoUsd(spent), NanoUsd(size - spent)));
                    }
                } else if let Some(amount) = taken.pop() {
                    let more = random.u64(0..100);
                    let fits = taken.iter().sum::<u64>() + amount + spent + more <= size;
                    assert_eq!(slice.take_more(more), fits, "seed {seed}");
                    let amount = if fits { amount + more } else { amount };
                    let cost = random.u64(0..=amount);
                    assert!(!slice.settle(NanoUsd(amount), NanoUsd(cost)));
                    spent += cost;
                }
            }
        }
    }

    #[test]
    fn a_slice_is_closed_once_and_only_when_nobody_uses_it() {
        let slice = slice(100, Balance::default());
        assert!(slice.take(10, Instant::now()).is_some() && slice.take(10, Instant::now()).is_some());
        assert!(!slice.retire());
        assert!(slice.take(10, Instant::now()).is_none() && !slice.take_more(1));
        assert!(!slice.settle(NanoUsd(10), NanoUsd(1)));
        assert!(slice.settle(NanoUsd(10), NanoUsd(1)));
        assert!(!slice.retire());
    }

    #[test]
    fn a_slice_is_not_used_near_its_end_and_one_that_was_overdrawn_serves_nobody() {
        let overdrawn = slice(100, Balance::default());
        assert!(overdrawn.take(50, Instant::now()).is_some());
        assert!(overdrawn.settle(NanoUsd(50), NanoUsd(101)));
        assert!(overdrawn.take(0, Instant::now()).is_none());
        let late = slice(100, Balance::default());
        assert!(late.take(50, Instant::now() + Duration::from_mins(1)).is_none());
        late.extend_until(Instant::now() + Duration::from_mins(3));
        assert!(late.take(50, Instant::now() + Duration::from_mins(1)).is_some());
    }

    #[test]
    fn a_slice_is_wanted_only_of_ample_budgets_and_by_one_at_a_time() {
        let slices = Slices::new(NanoUsd(5_000));
        let spent = |spent| [Balance { spent: NanoUsd(spent), ..Balance::default() }];
        assert_eq!(slices.want(&charges(1_000_000), NanoUsd(700), &spent(0)), None);
        assert_eq!(slices.want(&charges(1_000_000), NanoUsd(100), &spent(950_000)), None);
        let wanted = slices.want(&charges(1_000_000), NanoUsd(100), &spent(800_000)).unwrap();
        assert_eq!(wanted.size, NanoUsd(2_000));
        assert_eq!(slices.want(&charges(1_000_000), NanoUsd(100), &spent(0)), None);
        assert_eq!(slices.want(&charges(2_000_000), NanoUsd(100), &spent(0)).unwrap().size, NanoUsd(5_000));
        // Others were quicker: too little is left for a slice of that size.
        let granted = slice(2_000, Balance { spent: NanoUsd(950_000), ..Balance::default() });
        assert_eq!(slices.opened(&wanted, Some(granted)).len(), 1);
        assert!(slices.take(&charges(1_000_000), NanoUsd(1)).is_none() && slices.alive().is_empty());
        assert_eq!(slices.want(&charges(1_000_000), NanoUsd(100), &spent(0)), None, "not again at once");
    }
}

//! The books: accounts, leases, rate windows and the numbers of nodes, as one state machine in memory.
//!
//! The embedded store runs it; the Redis functions do the same on hashes and are tested against it. What decides
//! between several possible answers is therefore written down here:
//!
//! - Every throttle is asked in order, and each for parallel, then requests, then tokens; after them the charges in
//!   order. The first refusal is the answer, and nothing has changed. An account named twice in a command counts once.
//! - Parallel counts open leases on every throttle; requests are counted where `rpm` is set, tokens where `tpm` is.
//!   Ending a lease with `Spend` puts its actual tokens in the place of the estimate, with `Close` zero; expiry leaves
//!   the estimate.
//! - `Reserve` and `apply` first charge up to 16 leases that are due. A lease that is due and not charged yet is open:
//!   it can be settled, extended and touched.
//! - No amount is ever below zero: correcting an account that was set to less leaves zero.
//! - An account's `forget_at_ms` is the latest it was given.
//!
//! Pure: the time is an argument, and an earlier one than before counts as the same.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use self::account::{Account, Accounts, held};
use self::lease::{Expired, Leases, Ticket};
use self::window::{Window, counted};
use super::command::{AccountId, Applied, Balance, Charge, Denial, LeaseId, NodeId, Op, Reserve, Reserved, Throttle};
use super::entry::{Entry, EntryKind, Row};
use crate::types::map::{HashMap, HashSet};
use crate::types::money::NanoUsd;

pub mod account;
pub mod lease;
pub mod rollup;
pub mod window;

pub use self::lease::Open;

/// How long a closed lease is remembered, so that a `Reserve` that was delayed on its way is refused.
pub const CLOSED_KEPT_MS: u64 = 15 * 60_000;
/// Due leases that a command charges on its way.
const REAPED_ON_THE_WAY: usize = 16;

/// All state. `Default` is empty.
#[derive(Debug)]
pub struct Books {
    accounts: Accounts,
    leases: Leases,
    windows: HashMap<AccountId, Window>,
    nodes: HashMap<NodeId, u64>,
    entries: Vec<Entry>,
    changed_windows: HashSet<AccountId>,
    changed_nodes: HashSet<NodeId>,
    expired_total: u64,
    closed_kept_ms: u64,
    now_ms: u64,
}

impl Default for Books {
    fn default() -> Self {
        Self::new(CLOSED_KEPT_MS)
    }
}

/// Leases open now, and leases that expired since the books were begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LeaseCounts {
    pub open: u64,
    pub expired_total: u64,
}

/// What outlives the process.
#[derive(Debug, Default)]
pub struct Saved {
    pub accounts: Vec<(AccountId, Account)>,
    pub nodes: Vec<(NodeId, u64)>,
    pub expired: Vec<(LeaseId, Expired)>,
    pub windows: Vec<(AccountId, Window)>,
    pub expired_total: u64,
    /// Of processes that may live on: those that were handed over, and those that were kept.
    pub open: Vec<(LeaseId, Open)>,
}

/// What changed since the last [`Books::take_changes`]; `None` is to be deleted.
#[derive(Debug, Default)]
pub struct Changes {
    pub accounts: Vec<(AccountId, Option<Account>)>,
    pub nodes: Vec<(NodeId, u64)>,
    pub expired: Vec<(LeaseId, Option<Expired>)>,
    pub windows: Vec<(AccountId, Option<Window>)>,
    /// Of the open leases those that are kept.
    pub open: Vec<(LeaseId, Option<Open>)>,
    /// In the order in which they were booked.
    pub entries: Vec<Entry>,
    pub expired_total: u64,
}

impl Changes {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
            && self.nodes.is_empty()
            && self.expired.is_empty()
            && self.windows.is_empty()
            && self.open.is_empty()
            && self.entries.is_empty()
    }
}

impl Books {
    /// Empty books that remember closed leases for so long.
    #[must_use]
    pub fn new(closed_kept_ms: u64) -> Self {
        Self {
            accounts: Accounts::default(),
            leases: Leases::default(),
            windows: HashMap::default(),
            nodes: HashMap::default(),
            entries: Vec::new(),
            changed_windows: HashSet::default(),
            changed_nodes: HashSet::default(),
            expired_total: 0,
            closed_kept_ms,
            now_ms: 0,
        }
    }

    /// Takes up what an earlier process saved. No lease is open but those that it handed over or kept.
    pub fn restore(&mut self, saved: Saved) {
        self.accounts.restore(saved.accounts);
        self.nodes.extend(saved.nodes);
        self.leases.restore(saved.expired);
        self.windows.extend(saved.windows.into_iter().map(|(id, window)| (id, window.without_leases())));
        self.expired_total = saved.expired_total;
        for (id, lease) in saved.open {
            self.accounts.hold(&lease.held, lease.amount);
            for ticket in &lease.tickets {
                self.windows.entry(ticket.account.clone()).or_default().parallel += 1;
            }
            self.leases.reopen(id, lease);
        }
    }

    /// Saves a lease as long as it is open, because its owner may live longer than this process.
    pub fn keep(&mut self, lease: &LeaseId) {
        self.leases.keep(lease);
    }

    /// Leases that are open now, for whoever takes the books over.
    pub fn open_leases(&self) -> impl Iterator<Item = (&LeaseId, &Open)> {
        self.leases.open.iter()
    }

    /// Sets money aside on all accounts of `request`, or on none.
    pub fn reserve(&mut self, now_ms: u64, request: &Reserve) -> Reserved {
        let now_ms = self.advance(now_ms);
        self.reap(now_ms, REAPED_ON_THE_WAY);
        if self.leases.open.contains_key(&request.lease) {
            return Reserved::Granted { balances: self.accounts.balances(&request.charges) };
        }
        if self.leases.is_over(&request.lease) {
            return Reserved::Closed;
        }
        if let Some(denial) = self
            .throttled(now_ms, request)
            .or_else(|| over_budget(&self.accounts, &request.charges, |_| true, request.amount))
        {
            return Reserved::Denied(denial);
        }
        let held = held(&request.charges);
        self.accounts.hold(&held, request.amount);
        let tickets = self.admit(now_ms, request);
        let lease = Open {
            amount: request.amount,
            expires_at_ms: now_ms.saturating_add(request.ttl_ms),
            held,
            tickets,
            row: Arc::clone(&request.row),
        };
        self.leases.open(request.lease.clone(), lease);
        Reserved::Granted { balances: self.accounts.balances(&request.charges) }
    }

    /// Makes an open lease hold `to` in all. Limits are those of `charges`.
    pub fn extend(&mut self, now_ms: u64, lease: &LeaseId, to: NanoUsd, charges: &[Charge]) -> Reserved {
        self.advance(now_ms);
        let Some(open) = self.leases.open.get_mut(lease) else { return Reserved::Closed };
        let more = to.saturating_sub(open.amount);
        if more > NanoUsd::ZERO {
            let counts = |account: &AccountId| open.held.iter().any(|held| held.account == *account);
            if let Some(denial) = over_budget(&self.accounts, charges, counts, more) {
                return Reserved::Denied(denial);
            }
            self.accounts.hold(&open.held, more);
            open.amount = to;
            self.leases.touched(lease);
        }
        Reserved::Granted { balances: self.accounts.balances(charges) }
    }

    /// Applies commands `first`, `first + 1`, … of `node`, those that it has not applied before. After a gap it applies
    /// none.
    pub fn apply(&mut self, now_ms: u64, node: &NodeId, first: u64, ops: &[Op]) -> Applied {
        let now_ms = self.advance(now_ms);
        self.reap(now_ms, REAPED_ON_THE_WAY);
        self.leases.forget(now_ms, REAPED_ON_THE_WAY.max(2 * ops.len()));
        let mut last = self.nodes.get(node).copied().unwrap_or(0);
        let Some(before) = last.saturating_add(1).checked_sub(first) else { return Applied { last } };
        let fresh = usize::try_from(before).ok().and_then(|before| ops.get(before..)).unwrap_or_default();
        if fresh.is_empty() {
            return Applied { last };
        }
        for op in fresh {
            self.carry_out(now_ms, op);
            last += 1;
        }
        self.nodes.insert(node.clone(), last);
        self.changed_nodes.insert(node.clone());
        Applied { last }
    }

    /// Gives open leases another `ttl_ms` from now. Returns those that are not open.
    pub fn touch(&mut self, now_ms: u64, leases: &[LeaseId], ttl_ms: u64) -> Vec<LeaseId> {
        let until_ms = self.advance(now_ms).saturating_add(ttl_ms);
        leases.iter().filter(|lease| !self.leases.prolong(lease, until_ms)).cloned().collect()
    }

    /// Charges leases that are due, at most `limit`, in full; returns how many.
    pub fn reap(&mut self, now_ms: u64, limit: usize) -> usize {
        let now_ms = self.advance(now_ms);
        let mut reaped = 0;
        while reaped < limit
            && let Some((id, lease)) = self.leases.take_due(now_ms)
        {
            self.accounts.release(&lease.held, lease.amount);
            self.accounts.spend(&lease.held, lease.amount, NanoUsd::ZERO);
            self.leave(&lease.tickets);
            if lease.amount > NanoUsd::ZERO {
                self.enter(EntryKind::Expired, signed(lease.amount), &lease.row);
            }
            self.leases.expire(now_ms, id, lease);
            self.expired_total += 1;
            reaped += 1;
        }
        reaped
    }

    /// In the order asked for; an unknown account has nothing.
    #[must_use]
    pub fn balances(&self, accounts: &[AccountId]) -> Vec<Balance> {
        accounts.iter().map(|account| self.accounts.balance(account)).collect()
    }

    /// Sets a mark on an account. True for the one who set it first.
    pub fn claim(&mut self, account: &AccountId, mark: &str) -> bool {
        self.accounts.mark(account, mark)
    }

    /// Forgets accounts whose time has come, tombstones, and throttles on which nothing counts any more.
    pub fn forget(&mut self, now_ms: u64) {
        let now_ms = self.advance(now_ms);
        self.accounts.forget(now_ms);
        self.leases.forget(now_ms, usize::MAX);
        let changed = &mut self.changed_windows;
        self.windows.retain(|account, window| {
            let stays = !window.is_idle(now_ms);
            if !stays {
                changed.insert(account.clone());
            }
            stays
        });
    }

    #[must_use]
    pub fn lease_counts(&self) -> LeaseCounts {
        LeaseCounts {
            open: u64::try_from(self.leases.open.len()).unwrap_or(u64::MAX),
            expired_total: self.expired_total,
        }
    }

    /// What has to be saved. Entries grow until they are taken.
    pub fn take_changes(&mut self) -> Changes {
        let windows = &self.windows;
        let nodes = &self.nodes;
        Changes {
            accounts: self.accounts.take_changed(),
            nodes: self
                .changed_nodes
                .drain()
                .map(|node| {
                    let last = nodes.get(&node).copied().unwrap_or(0);
                    (node, last)
                })
                .collect(),
            expired: self.leases.take_changed(),
            windows: self
                .changed_windows
                .drain()
                .map(|account| {
                    let window = windows.get(&account).cloned();
                    (account, window)
                })
                .collect(),
            open: self.leases.take_changed_kept(),
            entries: std::mem::take(&mut self.entries),
            expired_total: self.expired_total,
        }
    }

    fn advance(&mut self, now_ms: u64) -> u64 {
        self.now_ms = self.now_ms.max(now_ms);
        self.now_ms
    }

    /// The first throttle that refuses.
    fn throttled(&self, now_ms: u64, request: &Reserve) -> Option<Denial> {
        request.throttles.iter().enumerate().find_map(|(index, throttle)| {
            let window = self.windows.get(&throttle.account);
            let parallel = window.map_or(0, |window| window.parallel);
            if throttle.parallel.is_some_and(|limit| parallel >= limit) {
                return Some(Denial::Parallel { index });
            }
            let empty = Window::default();
            let window = window.unwrap_or(&empty);
            let requests = throttle.rpm.and_then(|rpm| window.wait_for_request(now_ms, rpm));
            if let Some(retry_after_ms) = requests {
                return Some(Denial::Requests { index, retry_after_ms });
            }
            let tokens = throttle.tpm.and_then(|tpm| window.wait_for_tokens(now_ms, request.tokens, tpm));
            tokens.map(|retry_after_ms| Denial::Tokens { index, retry_after_ms })
        })
    }

    /// Counts an admitted request on its throttles.
    fn admit(&mut self, now_ms: u64, request: &Reserve) -> Vec<Ticket> {
        let mut tickets: Vec<Ticket> = Vec::with_capacity(request.throttles.len());
        for Throttle { account, rpm, tpm, .. } in &request.throttles {
            if tickets.iter().any(|ticket| ticket.account == *account) {
                continue;
            }
            let window = self.windows.entry(account.clone()).or_default();
            window.parallel += 1;
            let tokens = tpm.map(|tpm| counted(request.tokens, tpm));
            let mut bucket = 0;
            if rpm.is_some() || tpm.is_some() {
                bucket = window.admit(now_ms, u64::from(rpm.is_some()), tokens.unwrap_or(0));
                self.changed_windows.insert(account.clone());
            }
            tickets.push(Ticket { account: account.clone(), bucket, tokens });
        }
        tickets
    }

    fn carry_out(&mut self, now_ms: u64, op: &Op) {
        match op {
            Op::Spend { lease, close, cost, tokens, charges, row } => {
                self.enter(EntryKind::Request, signed(*cost), row);
                match lease {
                    Some(lease) if self.leases.open.contains_key(lease) => {
                        self.spend_open(now_ms, lease, *close, *cost, *tokens);
                    }
                    Some(lease) if self.leases.expired.contains_key(lease) => {
                        self.spend_expired(now_ms, lease, *close, *cost, row);
                    }
                    _ => {
                        self.accounts.spend(&held(charges), *cost, NanoUsd::ZERO);
                        if let Some(lease) = lease.as_ref().filter(|_| *close) {
                            self.bury(now_ms, lease);
                        }
                    }
                }
            }
            Op::Close { lease } => self.close(now_ms, lease),
            Op::Reset { account, spent, row } => {
                self.accounts.set(account, *spent);
                self.enter(EntryKind::Reset, 0, row);
            }
        }
    }

    fn spend_open(&mut self, now_ms: u64, id: &LeaseId, close: bool, cost: NanoUsd, tokens: u64) {
        let Some(lease) = self.leases.open.get_mut(id) else { return };
        let take = cost.min(lease.amount);
        lease.amount = lease.amount.saturating_sub(take);
        self.accounts.release(&lease.held, take);
        self.accounts.spend(&lease.held, cost, cost.saturating_sub(take));
        self.leases.touched(id);
        if close {
            self.give_back(now_ms, id, tokens);
        }
    }

    /// The charge at expiry stands for the cost as far as it reaches; the rest of it goes back with `close`.
    fn spend_expired(&mut self, now_ms: u64, id: &LeaseId, close: bool, cost: NanoUsd, row: &Arc<Row>) {
        let Some(lease) = self.leases.expired_mut(id) else { return };
        let take = cost.min(lease.charged);
        lease.charged = lease.charged.saturating_sub(take);
        self.accounts.spend(&lease.held, cost.saturating_sub(take), NanoUsd::ZERO);
        self.correct(take, row);
        if close {
            self.refund(now_ms, id, Some(row));
        }
    }

    fn close(&mut self, now_ms: u64, id: &LeaseId) {
        if self.leases.open.contains_key(id) {
            self.give_back(now_ms, id, 0);
        } else if self.leases.expired.contains_key(id) {
            self.refund(now_ms, id, None);
        } else {
            self.bury(now_ms, id);
        }
    }

    /// Ends an open lease; what it still holds goes back.
    fn give_back(&mut self, now_ms: u64, id: &LeaseId, tokens: u64) {
        let Some(lease) = self.leases.take_open(id) else { return };
        self.accounts.release(&lease.held, lease.amount);
        self.leave(&lease.tickets);
        for ticket in &lease.tickets {
            if let Some(estimated) = ticket.tokens
                && let Some(window) = self.windows.get_mut(&ticket.account)
            {
                window.correct(now_ms, ticket.bucket, estimated, tokens);
                self.changed_windows.insert(ticket.account.clone());
            }
        }
        self.bury(now_ms, id);
    }

    /// Ends a lease that expired; what was charged and not spent goes back. The log says it of `row`, else of the
    /// lease's own.
    fn refund(&mut self, now_ms: u64, id: &LeaseId, row: Option<&Arc<Row>>) {
        let Some(lease) = self.leases.take_expired(id) else { return };
        self.accounts.refund(&lease.held, lease.charged);
        self.correct(lease.charged, row.unwrap_or(&lease.row));
        self.bury(now_ms, id);
    }

    fn leave(&mut self, tickets: &[Ticket]) {
        for ticket in tickets {
            if let Some(window) = self.windows.get_mut(&ticket.account) {
                window.parallel = window.parallel.saturating_sub(1);
            }
        }
    }

    fn bury(&mut self, now_ms: u64, id: &LeaseId) {
        self.leases.bury(id, now_ms.saturating_add(self.closed_kept_ms));
    }

    fn correct(&mut self, amount: NanoUsd, row: &Arc<Row>) {
        if amount > NanoUsd::ZERO {
            self.enter(EntryKind::Corrected, -signed(amount), row);
        }
    }

    fn enter(&mut self, kind: EntryKind, cost_nano_usd: i64, row: &Arc<Row>) {
        self.entries.push(Entry { at_ms: self.now_ms, kind, cost_nano_usd, row: Arc::clone(row) });
    }
}

/// The first charge whose account cannot hold `amount`, among those that `counts`.
fn over_budget(
    accounts: &Accounts,
    charges: &[Charge],
    counts: impl Fn(&AccountId) -> bool,
    amount: NanoUsd,
) -> Option<Denial> {
    charges.iter().enumerate().filter(|(_, charge)| counts(&charge.account)).find_map(|(index, charge)| {
        accounts.refusal(charge, amount).map(|remaining| Denial::Budget { index, remaining })
    })
}

fn signed(amount: NanoUsd) -> i64 {
    i64::try_from(amount.0).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;

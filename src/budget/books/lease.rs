//! Leases by state. Open ones hold money and wait for their expiry; of the others only so much is kept as later
//! commands need: that they must not be opened again, and what was charged for one that expired.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::account::Held;
use crate::budget::command::{AccountId, LeaseId};
use crate::budget::entry::Row;
use crate::types::map::{HashMap, HashSet};
use crate::types::money::NanoUsd;

/// How long a lease that expired is remembered, so that its owner can still correct the charge.
pub const EXPIRED_KEPT_MS: u64 = 7 * 86_400_000;

/// Money set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    pub(super) amount: NanoUsd,
    pub(super) expires_at_ms: u64,
    pub(super) held: Vec<Held>,
    pub(super) tickets: Vec<Ticket>,
    pub(super) row: Arc<Row>,
}

/// What a lease counts on a throttle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ticket {
    pub(super) account: AccountId,
    pub(super) bucket: u64,
    /// `None` where tokens are not limited.
    pub(super) tokens: Option<u64>,
}

/// A lease that was charged because its owner was not heard of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expired {
    /// What of the charge no late settlement has taken yet.
    pub charged: NanoUsd,
    pub held: Vec<Held>,
    pub row: Arc<Row>,
    /// Unix milliseconds.
    pub forget_at_ms: u64,
}

#[derive(Debug, Default)]
pub(super) struct Leases {
    pub(super) open: HashMap<LeaseId, Open>,
    pub(super) expired: HashMap<LeaseId, Expired>,
    closed: HashSet<LeaseId>,
    /// Open leases by their expiry.
    expiries: BTreeSet<(u64, LeaseId)>,
    /// When to forget closed and expired ones, oldest first each: the clock does not go back.
    forget_closed: VecDeque<(u64, LeaseId)>,
    forget_expired: VecDeque<(u64, LeaseId)>,
    changed: HashSet<LeaseId>,
    /// Open ones that are saved, because their owner is another process.
    kept: HashSet<LeaseId>,
    changed_kept: HashSet<LeaseId>,
}

impl Leases {
    pub(super) fn restore(&mut self, expired: impl IntoIterator<Item = (LeaseId, Expired)>) {
        self.expired.extend(expired);
        let mut by_time: Vec<_> = self.expired.iter().map(|(id, lease)| (lease.forget_at_ms, id.clone())).collect();
        by_time.sort();
        self.forget_expired = by_time.into();
    }

    /// Whether the id was used before and must not be used again.
    pub(super) fn is_over(&self, lease: &LeaseId) -> bool {
        self.expired.contains_key(lease) || self.closed.contains(lease)
    }

    pub(super) fn open(&mut self, id: LeaseId, lease: Open) {
        self.expiries.insert((lease.expires_at_ms, id.clone()));
        self.open.insert(id, lease);
    }

    /// Saves an open lease from now on, until it ends.
    pub(super) fn keep(&mut self, id: &LeaseId) {
        if self.open.contains_key(id) && self.kept.insert(id.clone()) {
            self.changed_kept.insert(id.clone());
        }
    }

    /// Opens a lease that was saved.
    pub(super) fn reopen(&mut self, id: LeaseId, lease: Open) {
        self.kept.insert(id.clone());
        self.open(id, lease);
    }

    /// An open lease is not as it was.
    pub(super) fn touched(&mut self, id: &LeaseId) {
        if self.kept.contains(id) {
            self.changed_kept.insert(id.clone());
        }
    }

    /// Leaves a tombstone.
    pub(super) fn bury(&mut self, id: &LeaseId, forget_at_ms: u64) {
        if self.closed.insert(id.clone()) {
            self.forget_closed.push_back((forget_at_ms, id.clone()));
        }
    }

    pub(super) fn take_open(&mut self, id: &LeaseId) -> Option<Open> {
        let lease = self.open.remove(id)?;
        self.expiries.remove(&(lease.expires_at_ms, id.clone()));
        if self.kept.remove(id) {
            self.changed_kept.insert(id.clone());
        }
        Some(lease)
    }

    /// The open lease that expired first.
    pub(super) fn take_due(&mut self, now_ms: u64) -> Option<(LeaseId, Open)> {
        let id = self.expiries.first().filter(|(at_ms, _)| *at_ms <= now_ms)?.1.clone();
        let lease = self.take_open(&id)?;
        Some((id, lease))
    }

    pub(super) fn expire(&mut self, now_ms: u64, id: LeaseId, lease: Open) {
        let forget_at_ms = now_ms.saturating_add(EXPIRED_KEPT_MS);
        self.forget_expired.push_back((forget_at_ms, id.clone()));
        self.changed.insert(id.clone());
        self.expired.insert(id, Expired { charged: lease.amount, held: lease.held, row: lease.row, forget_at_ms });
    }

    pub(super) fn expired_mut(&mut self, id: &LeaseId) -> Option<&mut Expired> {
        let lease = self.expired.get_mut(id)?;
        self.changed.insert(id.clone());
        Some(lease)
    }

    pub(super) fn take_expired(&mut self, id: &LeaseId) -> Option<Expired> {
        let lease = self.expired.remove(id)?;
        self.changed.insert(id.clone());
        Some(lease)
    }

    /// Gives an open lease until then, unless it has longer.
    pub(super) fn prolong(&mut self, id: &LeaseId, until_ms: u64) -> bool {
        let Some(lease) = self.open.get_mut(id) else { return false };
        if until_ms > lease.expires_at_ms {
            self.expiries.remove(&(lease.expires_at_ms, id.clone()));
            lease.expires_at_ms = until_ms;
            self.expiries.insert((until_ms, id.clone()));
            self.touched(id);
        }
        true
    }

    /// Forgets up to `limit` closed and `limit` expired ones whose time has come.
    pub(super) fn forget(&mut self, now_ms: u64, limit: usize) {
        for _ in 0..limit {
            let Some((_, id)) = self.forget_closed.pop_front_if(|(at_ms, _)| *at_ms <= now_ms) else { break };
            self.closed.remove(&id);
        }
        for _ in 0..limit {
            let Some((_, id)) = self.forget_expired.pop_front_if(|(at_ms, _)| *at_ms <= now_ms) else { break };
            if self.expired.remove(&id).is_some() {
                self.changed.insert(id);
            }
        }
    }

    /// Kept leases that changed since the last time; `None` has ended.
    pub(super) fn take_changed_kept(&mut self) -> Vec<(LeaseId, Option<Open>)> {
        let open = &self.open;
        self.changed_kept
            .drain()
            .map(|id| {
                let lease = open.get(&id).cloned();
                (id, lease)
            })
            .collect()
    }

    /// Expired leases that changed since the last time; `None` is no longer needed.
    pub(super) fn take_changed(&mut self) -> Vec<(LeaseId, Option<Expired>)> {
        let expired = &self.expired;
        self.changed
            .drain()
            .map(|id| {
                let lease = expired.get(&id).cloned();
                (id, lease)
            })
            .collect()
    }
}

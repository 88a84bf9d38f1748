//! The accounts: what was spent and what is set aside, and which of them changed since they were last saved.
//!
//! Only what survives the process marks an account as changed; money set aside does not, because a lease does not
//! outlive the process that keeps it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::budget::command::{AMOUNT_MAX, AccountId, Balance, Charge};
use crate::types::map::{HashMap, HashSet};
use crate::types::money::NanoUsd;

/// One account.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Account {
    pub spent: NanoUsd,
    #[serde(default)]
    pub overrun: NanoUsd,
    /// Sum of what open leases hold. Not saved.
    #[serde(skip)]
    pub reserved: NanoUsd,
    /// Unix milliseconds; `None` is never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forget_at_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub marks: BTreeSet<String>,
}

impl Account {
    const fn balance(&self) -> Balance {
        Balance { spent: self.spent, reserved: self.reserved, overrun: self.overrun }
    }
}

/// An account that a lease counts on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub account: AccountId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forget_at_ms: Option<u64>,
}

/// The accounts of `charges`. One that is named twice, because two limits rest on it, counts once.
#[must_use]
pub fn held(charges: &[Charge]) -> Vec<Held> {
    let mut held: Vec<Held> = Vec::with_capacity(charges.len());
    for charge in charges {
        if !held.iter().any(|other| other.account == charge.account) {
            held.push(Held { account: charge.account.clone(), forget_at_ms: charge.forget_at_ms });
        }
    }
    held
}

#[derive(Debug, Default)]
pub(super) struct Accounts {
    all: HashMap<AccountId, Account>,
    changed: HashSet<AccountId>,
}

impl Accounts {
    pub(super) fn restore(&mut self, accounts: impl IntoIterator<Item = (AccountId, Account)>) {
        let without_leases = |(id, account)| (id, Account { reserved: NanoUsd::ZERO, ..account });
        self.all.extend(accounts.into_iter().map(without_leases));
    }

    /// `Some`, with what would fit, when `amount` does not. Nothing fits an account that is over its limit, not even
    /// zero.
    pub(super) fn refusal(&self, charge: &Charge, amount: NanoUsd) -> Option<NanoUsd> {
        let Some(limit) = charge.limit.map(|limit| limit.min(AMOUNT_MAX)) else {
            // What only counts is never full.
            return (amount > AMOUNT_MAX).then_some(AMOUNT_MAX);
        };
        let Balance { spent, reserved, .. } = self.balance(&charge.account);
        let after = spent.checked_add(reserved).and_then(|used| used.checked_add(amount));
        let fits = after.is_some_and(|after| after <= limit);
        (!fits).then(|| limit.saturating_sub(spent).saturating_sub(reserved))
    }

    pub(super) fn balance(&self, account: &AccountId) -> Balance {
        self.all.get(account).map(Account::balance).unwrap_or_default()
    }

    pub(super) fn balances(&self, charges: &[Charge]) -> Vec<Balance> {
        charges.iter().map(|charge| self.balance(&charge.account)).collect()
    }

    /// Sets money aside.
    pub(super) fn hold(&mut self, held: &[Held], amount: NanoUsd) {
        for one in held {
            let account = self.of(one);
            account.reserved = account.reserved.saturating_add(amount);
        }
    }

    /// Gives back what was set aside.
    pub(super) fn release(&mut self, held: &[Held], amount: NanoUsd) {
        for one in held {
            if let Some(account) = self.all.get_mut(&one.account) {
                account.reserved = account.reserved.saturating_sub(amount);
            }
        }
    }

    /// Books `cost`, of which `beyond` was not set aside.
    pub(super) fn spend(&mut self, held: &[Held], cost: NanoUsd, beyond: NanoUsd) {
        for one in held.iter().filter(|_| cost > NanoUsd::ZERO) {
            let account = self.of(one);
            account.spent = account.spent.saturating_add(cost);
            account.overrun = account.overrun.saturating_add(beyond);
            self.changed.insert(one.account.clone());
        }
    }

    /// Takes back what was charged too much. An account that was set to less meanwhile stays at zero.
    pub(super) fn refund(&mut self, held: &[Held], amount: NanoUsd) {
        for one in held.iter().filter(|_| amount > NanoUsd::ZERO) {
            let account = self.of(one);
            account.spent = account.spent.saturating_sub(amount);
            self.changed.insert(one.account.clone());
        }
    }

    pub(super) fn set(&mut self, account: &AccountId, spent: NanoUsd) {
        self.all.entry(account.clone()).or_default().spent = spent;
        self.changed.insert(account.clone());
    }

    pub(super) fn mark(&mut self, account: &AccountId, mark: &str) -> bool {
        let first = self.all.entry(account.clone()).or_default().marks.insert(mark.to_owned());
        if first {
            self.changed.insert(account.clone());
        }
        first
    }

    pub(super) fn forget(&mut self, now_ms: u64) {
        let changed = &mut self.changed;
        self.all.retain(|id, account| {
            let stays = account.reserved > NanoUsd::ZERO || account.forget_at_ms.is_none_or(|at| at > now_ms);
            if !stays {
                changed.insert(id.clone());
            }
            stays
        });
    }

    /// Those that changed since the last time; `None` was forgotten.
    pub(super) fn take_changed(&mut self) -> Vec<(AccountId, Option<Account>)> {
        let all = &self.all;
        self.changed
            .drain()
            .map(|id| {
                let account = all.get(&id).cloned();
                (id, account)
            })
            .collect()
    }

    fn of(&mut self, held: &Held) -> &mut Account {
        let account = self.all.entry(held.account.clone()).or_default();
        account.forget_at_ms = account.forget_at_ms.max(held.forget_at_ms);
        account
    }
}

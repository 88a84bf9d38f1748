//! Short ways to write commands.

use dheera_ai::budget::command::{AccountId, Charge, LeaseId, Op, Reserve, Scope, Throttle};
use dheera_ai::budget::entry::Row;
use dheera_ai::types::money::NanoUsd;

/// An account and its limit.
pub fn charge(account: &str, limit: impl Into<Option<u64>>) -> Charge {
    Charge { account: AccountId::new(account), scope: Scope::Key, limit: limit.into().map(NanoUsd), forget_at_ms: None }
}

pub fn throttle(account: &str, rpm: Option<u64>, tpm: Option<u64>, parallel: Option<u64>) -> Throttle {
    Throttle { account: AccountId::new(account), scope: Scope::Key, rpm, tpm, parallel }
}

pub fn row(request_id: &str) -> Row {
    Row { request_id: request_id.to_owned(), key_id: "k1".to_owned(), model: "nova".to_owned(), ..Row::default() }
}

pub fn reserve(lease: &str, amount: u64, charges: &[Charge]) -> Reserve {
    Reserve {
        lease: LeaseId::new(lease),
        amount: NanoUsd(amount),
        tokens: 0,
        ttl_ms: 60_000,
        charges: charges.to_vec(),
        throttles: Vec::new(),
        row: row(lease).into(),
    }
}

/// The end of a call.
pub fn settle(lease: &str, cost: u64, charges: &[Charge]) -> Op {
    Op::Spend {
        lease: Some(LeaseId::new(lease)),
        close: true,
        cost: NanoUsd(cost),
        tokens: 0,
        charges: charges.to_vec(),
        row: row(lease).into(),
    }
}

pub fn close(lease: &str) -> Op {
    Op::Close { lease: LeaseId::new(lease) }
}

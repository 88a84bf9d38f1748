//! How commands and rows are written as arguments of the functions. Numbers are decimal, what is not set is empty, and
//! lists begin with their length; `functions.lua` says for each function in which order.

use redis::Cmd;

use crate::budget::command::{AMOUNT_MAX, Charge, LeaseId, Op, Reserve};
use crate::budget::entry::{ROW_BYTES, RollupKey, Row};
use crate::types::json;
use crate::types::money::NanoUsd;

/// A row with what it adds to the sums of its day.
pub(super) struct RowText {
    json: Vec<u8>,
    /// What follows the letter of the sum in a field of the day: `["key","<id>","<model>"]`.
    rollups: Vec<Vec<u8>>,
}

impl RowText {
    pub(super) fn new(row: &Row) -> Self {
        let mut json = Vec::with_capacity(ROW_BYTES);
        row.write_json(&mut json);
        Self { json, rollups: row.rollups().iter().map(combination).collect() }
    }

    fn len(&self) -> usize {
        self.rollups.len() + 2
    }

    fn write(&self, command: &mut Cmd) {
        command.arg(self.rollups.len()).arg(&self.rollups).arg(self.json.as_slice());
    }
}

pub(super) fn reserve(command: &mut Cmd, request: &Reserve, row: &RowText) {
    command.arg(request.lease.as_str()).arg(asked(request.amount)).arg(request.tokens).arg(request.ttl_ms);
    command.arg(request.charges.len());
    for charge in &request.charges {
        command.arg(charge.account.as_str());
        optional(command, charge.limit.map(|limit| limit.min(AMOUNT_MAX).0));
        optional(command, charge.forget_at_ms);
    }
    command.arg(request.throttles.len());
    for throttle in &request.throttles {
        command.arg(throttle.account.as_str());
        optional(command, throttle.rpm);
        optional(command, throttle.tpm);
        optional(command, throttle.parallel);
    }
    row.write(command);
}

pub(super) fn extend(command: &mut Cmd, lease: &LeaseId, to: NanoUsd, charges: &[Charge]) {
    command.arg(lease.as_str()).arg(asked(to)).arg(charges.len());
    for charge in charges {
        command.arg(charge.account.as_str());
        optional(command, charge.limit.map(|limit| limit.min(AMOUNT_MAX).0));
    }
}

/// The rows of `ops`, in their order.
pub(super) fn rows(ops: &[Op]) -> Vec<Option<RowText>> {
    ops.iter()
        .map(|op| match op {
            Op::Spend { row, .. } | Op::Reset { row, .. } => Some(RowText::new(row)),
            Op::Close { .. } => None,
        })
        .collect()
}

fn combination(key: &RollupKey) -> Vec<u8> {
    let mut json = b"[".to_vec();
    for part in [key.dimension.as_str(), &key.id, &key.model] {
        json::text(&mut json, part);
        json.push(b',');
    }
    if let Some(last) = json.last_mut() {
        *last = b']';
    }
    json
}

/// One numbered command, with the number of arguments that follow its letter.
pub(super) fn op(command: &mut Cmd, op: &Op, row: Option<&RowText>) {
    match op {
        Op::Spend { lease, close, cost, tokens, charges, row: fields } => {
            let length = 8 + 2 * charges.len() + row.map_or(0, RowText::len);
            command.arg(length).arg("S");
            command.arg(lease.as_ref().map_or("", LeaseId::as_str)).arg(u8::from(*close));
            command.arg(booked(*cost)).arg(*tokens).arg(fields.prompt_tokens).arg(fields.completion_tokens);
            command.arg(charges.len());
            for charge in charges {
                command.arg(charge.account.as_str());
                optional(command, charge.forget_at_ms);
            }
        }
        Op::Close { lease } => {
            command.arg(2).arg("C").arg(lease.as_str());
        }
        Op::Reset { account, spent, .. } => {
            command.arg(3 + row.map_or(0, RowText::len)).arg("R").arg(account.as_str()).arg(booked(*spent));
        }
    }
    if let Some(row) = row {
        row.write(command);
    }
}

/// An amount to set aside. More than can be counted is still more after it became a double.
fn asked(amount: NanoUsd) -> u64 {
    if amount > AMOUNT_MAX { AMOUNT_MAX.0 + 2 } else { amount.0 }
}

/// An amount that was spent. Nine million dollars for one call are a mistake that must not stop the others behind it.
fn booked(amount: NanoUsd) -> u64 {
    amount.min(AMOUNT_MAX).0
}

fn optional(command: &mut Cmd, number: Option<u64>) {
    match number {
        Some(number) => command.arg(number),
        None => command.arg(""),
    };
}

//! What can be asked of the books, and what they answer. The same words go to the embedded store, to Redis and into the
//! journal.
//!
//! A *lease* is money set aside on a list of accounts: for one upstream attempt, or a slice from which a replica serves
//! many. Commands that only write ([`Op`]) are numbered by the node that sends them; a store applies each number once
//! and in order, so sending them again, after a lost answer or a failover, changes nothing.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::entry::Row;
pub use crate::types::ids::{AccountId, LeaseId, NodeId};
use crate::types::json::Object;
use crate::types::money::NanoUsd;

/// More in one account could not be counted exactly by Redis, whose scripts compute with doubles: 2⁵³ nano-dollars,
/// about nine million dollars.
pub const AMOUNT_MAX: NanoUsd = NanoUsd(1 << 53);

/// Whose account it is. Also a label of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    Key,
    /// One model within a key.
    KeyModel,
    Team,
    User,
    Customer,
    Tag,
    Global,
}

impl Scope {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::KeyModel => "key_model",
            Self::Team => "team",
            Self::User => "user",
            Self::Customer => "customer",
            Self::Tag => "tag",
            Self::Global => "global",
        }
    }
}

/// An account that a call counts on, and how much it may hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    pub account: AccountId,
    pub scope: Scope,
    /// `spent + reserved <= limit`; `None` only counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<NanoUsd>,
    /// When the account may be forgotten, in Unix milliseconds; `None` is never. Long after its period ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forget_at_ms: Option<u64>,
}

impl Charge {
    /// Appends its JSON, as `serde` writes it, for less.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        let Self { account, scope, limit, forget_at_ms } = self;
        let mut object = Object::begin(out);
        object.text("account", account.as_str());
        object.word("scope", scope.as_str());
        object.optional_number("limit", limit.map(|limit| limit.0));
        object.optional_number("forget_at_ms", *forget_at_ms);
        object.end();
    }
}

/// Limits on rate and concurrency. Counted on `rate/<scope>/<id>` accounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttle {
    pub account: AccountId,
    pub scope: Scope,
    /// Requests admitted in any 60 seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpm: Option<u64>,
    /// Tokens of requests admitted in any 60 seconds, estimated at admission and corrected when they end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tpm: Option<u64>,
    /// Requests at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel: Option<u64>,
}

/// Asks for a lease: all accounts and throttles agree, or nothing changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserve {
    pub lease: LeaseId,
    pub amount: NanoUsd,
    /// Tokens that count on every `tpm`, at most its limit: a request larger than the whole limit waits for an empty
    /// minute instead of being refused for ever.
    pub tokens: u64,
    pub ttl_ms: u64,
    pub charges: Vec<Charge>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub throttles: Vec<Throttle>,
    /// What the log says should the lease expire.
    pub row: Arc<Row>,
}

/// The answer to [`Reserve`] and to an extension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reserved {
    /// The money is set aside. Also the answer to a repetition of the same command. Balances are those after it, in the
    /// order of `charges`.
    Granted { balances: Vec<Balance> },
    /// The first limit that refuses. Nothing changed.
    Denied(Denial),
    /// The lease was closed before (its owner gave up, or it expired): it must not be used.
    Closed,
}

/// An account at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Balance {
    pub spent: NanoUsd,
    pub reserved: NanoUsd,
    /// What was settled beyond reservations, in all. Zero unless an upper bound was none.
    pub overrun: NanoUsd,
}

/// Why a lease was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Denial {
    /// `charges[index]` cannot hold the amount; `remaining` is what it can hold.
    Budget {
        index: usize,
        remaining: NanoUsd,
    },
    /// `throttles[index]`; a further request fits after `retry_after_ms`.
    Requests {
        index: usize,
        retry_after_ms: u64,
    },
    Tokens {
        index: usize,
        retry_after_ms: u64,
    },
    Parallel {
        index: usize,
    },
}

/// A command that only writes. Applied exactly once, in the order of its node's numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// Books what a call cost: out of `lease` as far as that reaches, beyond it as an overrun. Without a lease, or with
    /// one that the store does not know any more, the accounts are charged all the same: the money is spent.
    Spend {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lease: Option<LeaseId>,
        /// Gives back what the lease still holds: the call was all it was for.
        close: bool,
        cost: NanoUsd,
        /// What the call took, to correct the estimate on the throttles of the lease.
        tokens: u64,
        charges: Vec<Charge>,
        row: Arc<Row>,
    },
    /// Gives a lease back whole. Of an unknown lease it leaves a tombstone, so that a `Reserve` that was delayed on its
    /// way is refused.
    Close { lease: LeaseId },
    /// Sets what an account has spent (`reset_spend`). Reservations stay.
    Reset { account: AccountId, spent: NanoUsd, row: Arc<Row> },
}

impl Op {
    /// Appends its JSON, as `serde` writes it. That of a call that ended costs less.
    ///
    /// # Errors
    /// Those of `serde`, of which there are none for these types.
    pub fn write_json(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        let Self::Spend { lease, close, cost, tokens, charges, row } = self else {
            return serde_json::to_writer(out, self);
        };
        let mut object = Object::begin(out);
        object.word("op", "spend");
        object.optional_text("lease", lease.as_ref().map(LeaseId::as_str));
        object.flag("close", *close);
        object.number("cost", cost.0);
        object.number("tokens", *tokens);
        object.array("charges", charges, |out, charge| charge.write_json(out));
        row.write_json(object.field("row"));
        object.end();
        Ok(())
    }
}

/// The answer to a batch of numbered commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The last number of this node that the store has applied. Lower than the batch's first number minus one: commands
    /// before it are missing (a failover lost them) and must be sent again; nothing of the batch was applied. Not lower
    /// than its first: those up to here had been applied before, and the rest of the batch has been now.
    pub last: u64,
}

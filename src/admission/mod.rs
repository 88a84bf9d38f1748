//! Who goes on when not everybody can: places for requests, shared fairly among keys, and room for their bodies.
//!
//! Pure: state machines without clock, locks or tasks, which `proxy::gate` and `proxy::body` put behind a mutex. What a
//! refused client is told, and how a waiting one is woken, is decided there. That an overloaded server must refuse early
//! and bound every queue is the advice of AWS's Builders' Library, "Using load shedding to avoid overload" (read
//! 2026-11-23); shares are max-min fair.

pub mod queue;
pub mod room;

use std::sync::Arc;

/// Whose request it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Whose {
    /// The id of the key that was proven.
    Proven(Arc<str>),
    /// The access key id that a signature names, before the signature can be verified: anyone can name it.
    Claimed(Arc<str>),
}

impl Whose {
    #[must_use]
    pub const fn is_claimed(&self) -> bool {
        matches!(self, Self::Claimed(_))
    }
}

/// Requests that have proven nothing get one of so many parts, all together, so that they cannot keep the others out.
pub const CLAIMED_PART: usize = 4;

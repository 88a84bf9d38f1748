//! The names of the keys in Redis, all of which begin with the hash tag `{<namespace>}:`, so that a cluster keeps them in
//! one slot and one function can change several of them at once.
//!
//! `functions.lua` makes most names itself from the prefix of [`Keys::leases`]; those that are read by plain commands are
//! here. Which slot that is follows the cluster specification: CRC-16/XMODEM of the hash tag, modulo 16384.

use crate::store::Kind;

/// Names of keys under one namespace.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
    slot: u16,
}

impl Keys {
    pub(super) fn new(namespace: &str) -> Self {
        Self { prefix: format!("{{{namespace}}}:"), slot: slot_of(namespace) }
    }

    /// The cluster slot of every key.
    pub(super) fn slot(&self) -> u16 {
        self.slot
    }

    /// Open leases by the time they expire. The only key that functions are told.
    pub(super) fn leases(&self) -> String {
        format!("{}z", self.prefix)
    }

    /// Documents of a kind: id to `<version> <json>`.
    pub(super) fn documents(&self, kind: Kind) -> String {
        format!("{}doc:{}", self.prefix, kind.as_str())
    }

    /// The spend log, a stream.
    pub(super) fn log(&self) -> String {
        format!("{}log", self.prefix)
    }

    /// The days that have sums.
    pub(super) fn days(&self) -> String {
        format!("{}days", self.prefix)
    }

    /// The sums of a day (`2026-11-22`).
    pub(super) fn day(&self, day: &str) -> String {
        format!("{}d:{day}", self.prefix)
    }

    /// What an ACL user must be allowed to touch, as in `~{dheera_ai}:*`.
    pub(super) fn pattern(&self) -> String {
        format!("~{}*", self.prefix)
    }
}

/// The slot of a hash tag. A tag ends at its first brace.
fn slot_of(namespace: &str) -> u16 {
    let tag = namespace.split('}').next().unwrap_or(namespace);
    let crc = tag.bytes().fold(0u16, |crc, byte| {
        (0..8).fold(
            crc ^ (u16::from(byte) << 8),
            |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
            },
        )
    });
    crc % 16384
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_these() {
        let keys = Keys::new("dheera_ai");
        assert_eq!(keys.leases(), "{dheera_ai}:z");
        assert_eq!(keys.documents(Kind::Key), "{dheera_ai}:doc:key");
        assert_eq!(keys.documents(Kind::Secret), "{dheera_ai}:doc:secret");
        assert_eq!(keys.log(), "{dheera_ai}:log");
        assert_eq!(keys.days(), "{dheera_ai}:days");
        assert_eq!(keys.day("2026-11-22"), "{dheera_ai}:d:2026-11-22");
        assert_eq!(keys.pattern(), "~{dheera_ai}:*");
    }

    #[test]
    fn the_slot_is_that_of_the_hash_tag() {
        // The cluster specification's check value, and CLUSTER KEYSLOT of Redis 7.0.15.
        assert_eq!(slot_of("123456789"), 0x31C3);
        assert_eq!(slot_of("foo"), 12182);
        assert_eq!(Keys::new("foo").slot(), 12182);
    }
}

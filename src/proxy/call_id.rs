//! Call ids: UUIDs of version 7, the time and 74 random bits.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use uuid::{Builder, Uuid};

/// Random bytes of one id.
const ID_BYTES: usize = 10;
/// Ids for which the system is asked at once.
const IDS_AT_ONCE: usize = 128;

/// Random bytes of the system, each to be used once.
struct Random {
    bytes: [u8; ID_BYTES * IDS_AT_ONCE],
    used: usize,
}

thread_local! {
    static RANDOM: RefCell<Random> =
        const { RefCell::new(Random { bytes: [0; ID_BYTES * IDS_AT_ONCE], used: ID_BYTES * IDS_AT_ONCE }) };
}

impl Random {
    /// `None` where the system gives none.
    fn take(&mut self) -> Option<[u8; ID_BYTES]> {
        if self.used == self.bytes.len() {
            getrandom::fill(&mut self.bytes).ok()?;
            self.used = 0;
        }
        let id = *self.bytes.get(self.used..)?.first_chunk()?;
        self.used += ID_BYTES;
        Some(id)
    }
}

/// An id that nobody else has and that cannot be guessed.
pub(super) fn fresh() -> Uuid {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    match (RANDOM.with_borrow_mut(Random::take), u64::try_from(now.as_millis())) {
        (Some(random), Ok(now_ms)) => Builder::from_unix_timestamp_millis(now_ms, &random).into_uuid(),
        _ => Uuid::now_v7(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_of_version_7_and_none_comes_twice() {
        let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let mut ids = HashSet::new();
        for _ in 0..10 * IDS_AT_ONCE {
            let id = fresh();
            assert_eq!((id.get_version_num(), id.get_variant()), (7, uuid::Variant::RFC4122));
            assert!((begun..begun + 60_000).contains(&(id.as_u128() >> 80)));
            assert!(ids.insert(id.as_u128() & ((1 << 62) - 1)));
        }
    }
}

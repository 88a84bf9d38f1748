//! The memory that bodies may take together, and how much of it one key may have.
//!
//! Nobody waits for room: waiting bodies are what fills memory. So that a key which takes all it can get leaves something
//! for the others, a key may hold three times what stays free (the dynamic threshold of Choudhury and Hahne, "Dynamic
//! queue length thresholds for shared-memory packet switches", IEEE/ACM Transactions on Networking 6(2), 1998): alone it
//! gets three quarters, two get three sevenths each, and there is always room for another.

use super::{CLAIMED_PART, Whose};
use crate::types::map::HashMap;

/// One key may hold so many times what is free.
const TIMES_FREE: usize = 3;

/// The room, in units of the caller's choice.
#[derive(Debug)]
pub struct Room {
    size: usize,
    /// The largest single body: one of them always fits into its key's share.
    one_max: usize,
    used: usize,
    claimed_max: usize,
    claimed: usize,
    held: HashMap<Whose, usize>,
}

impl Room {
    #[must_use]
    pub fn new(size: usize, one_max: usize) -> Self {
        let claimed_max = (size / CLAIMED_PART).max(one_max);
        Self { size, one_max, used: 0, claimed_max, claimed: 0, held: HashMap::default() }
    }

    /// Takes `amount` for `whose`; `false` when there is not enough room for it.
    #[must_use]
    pub fn take(&mut self, whose: &Whose, amount: usize) -> bool {
        let Some(free) = self.size.checked_sub(self.used.saturating_add(amount)) else {
            return false;
        };
        let own = self.held.get(whose).copied().unwrap_or(0).saturating_add(amount);
        if own > free.saturating_mul(TIMES_FREE).max(self.one_max) {
            return false;
        }
        if whose.is_claimed() {
            let claimed = self.claimed.saturating_add(amount);
            if claimed > self.claimed_max {
                return false;
            }
            self.claimed = claimed;
        }
        self.used += amount;
        self.held.insert(whose.clone(), own);
        true
    }

    /// Gives back what was taken.
    pub fn give_back(&mut self, whose: &Whose, amount: usize) {
        self.used = self.used.saturating_sub(amount);
        if whose.is_claimed() {
            self.claimed = self.claimed.saturating_sub(amount);
        }
        if let Some(held) = self.held.get_mut(whose) {
            *held = held.saturating_sub(amount);
            if *held == 0 {
                self.held.remove(whose);
            }
        }
    }

    /// What was taken under a claimed name is held by the key that was proven, from now on. It may be more than that key
    /// could take anew.
    pub fn prove(&mut self, claimed: &Whose, proven: &Whose, amount: usize) {
        self.give_back(claimed, amount);
        self.used += amount;
        *self.held.entry(proven.clone()).or_default() += amount;
    }

    /// How much is taken now.
    #[must_use]
    pub const fn used(&self) -> usize {
        self.used
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn key(name: &str) -> Whose {
        Whose::Proven(name.into())
    }

    fn claim(name: &str) -> Whose {
        Whose::Claimed(name.into())
    }

    /// How much `whose` gets, in steps of one.
    fn fill(room: &mut Room, whose: &Whose) -> usize {
        (0..10_000).take_while(|_| room.take(whose, 1)).count()
    }

    #[test]
    fn one_key_alone_gets_three_quarters_and_leaves_room_for_the_next() {
        let mut room = Room::new(1000, 100);
        assert_eq!(fill(&mut room, &key("a")), 750);
        assert_eq!(fill(&mut room, &key("b")), 187);
        assert_eq!(fill(&mut room, &key("c")), 63, "the largest body always fits into a share, if there is room");
        assert_eq!(room.used(), 1000);
    }

    #[test]
    fn a_body_of_the_largest_size_fits_however_small_the_room_is() {
        let mut room = Room::new(100, 100);
        assert!(room.take(&key("a"), 100));
        assert!(!room.take(&key("b"), 1));
        room.give_back(&key("a"), 100);
        assert!(room.take(&claim("b"), 100), "also for one who has proven nothing");
    }

    #[test]
    fn claimed_names_together_get_a_quarter_until_they_are_proven() {
        let mut room = Room::new(1000, 10);
        assert_eq!(fill(&mut room, &claim("a")) + fill(&mut room, &claim("b")), 250);
        room.prove(&claim("a"), &key("k"), 250);
        assert_eq!(room.used(), 250);
        assert_eq!(fill(&mut room, &claim("c")), 250);
    }

    proptest! {
        #[test]
        fn what_is_held_is_what_was_taken_and_never_more_than_there_is(
            steps in vec((0..3u8, any::<bool>(), 0..40usize), 1..200),
        ) {
            let mut room = Room::new(100, 20);
            let mut taken: Vec<(Whose, usize)> = Vec::new();
            for (name, claimed, amount) in steps {
                let name = name.to_string();
                let whose = if claimed { claim(&name) } else { key(&name) };
                if amount > 30 && !taken.is_empty() {
                    let (whose, amount) = taken.swap_remove(amount % taken.len());
                    room.give_back(&whose, amount);
                } else if room.take(&whose, amount) {
                    taken.push((whose, amount));
                }
                prop_assert_eq!(room.used(), taken.iter().map(|(_, amount)| amount).sum::<usize>());
                prop_assert!(room.used() <= 100);
                let claimed = taken.iter().filter(|(whose, _)| whose.is_claimed());
                prop_assert!(claimed.map(|(_, amount)| amount).sum::<usize>() <= 25);
            }
            for (whose, amount) in taken {
                room.give_back(&whose, amount);
            }
            prop_assert!(room.used() == 0 && room.claimed == 0 && room.held.is_empty());
        }
    }
}

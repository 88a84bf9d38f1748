//! Which deployment serves the next attempt: weighted simple-shuffle over those that were not tried yet.
//!
//! Pure: the random number is an argument. It knows nothing of health; that is the business of whoever builds the
//! list of candidates.

/// `router_settings.routing_strategy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// At random, by weight.
    SimpleShuffle,
    /// The fewest requests in flight.
    LeastBusy,
    /// The shortest time to the first byte, requests in flight considered.
    LatencyBased,
    /// The least used of its `rpm` and `tpm`.
    UsageBased,
    /// The cheapest.
    CostBased,
}

/// Picks an index into `weights`, leaving out those in `tried`, with a probability proportional to the weight.
/// `random` is uniform over all of `u64`. `None` when every deployment was tried.
#[must_use]
pub fn weighted(weights: impl Iterator<Item = u32> + Clone, tried: &[usize], random: u64) -> Option<usize> {
    let untried = weights.enumerate().filter(|(index, _)| !tried.contains(index));
    let total: u64 = untried.clone().map(|(_, weight)| u64::from(weight)).sum();
    if total == 0 {
        return None;
    }
    // The high half of a 64×64 bit product maps `random` onto 0..total without a division and without bias that
    // weights of 32 bits could show.
    let mut point = u64::try_from((u128::from(random) * u128::from(total)) >> 64).unwrap_or(0);
    for (index, weight) in untried {
        match point.checked_sub(u64::from(weight)) {
            Some(rest) => point = rest,
            None => return Some(index),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::weighted;

    #[test]
    fn the_load_follows_the_weights() {
        let weights = [5u32, 3, 2];
        let mut counts = [0u32; 3];
        let draws = 100_000u64;
        for draw in 0..draws {
            let random = (u64::MAX / draws) * draw;
            counts[weighted(weights.iter().copied(), &[], random).unwrap()] += 1;
        }
        for (count, weight) in counts.into_iter().zip(weights) {
            assert!(count.abs_diff(weight * 10_000) <= 2, "{counts:?}");
        }
    }

    #[test]
    fn a_tried_deployment_is_never_picked_again() {
        for random in [0, 1, u64::MAX / 2, u64::MAX] {
            assert_eq!(weighted([1u32, 1, 1].into_iter(), &[0, 2], random), Some(1));
            assert_eq!(weighted([1u32, 1, 1].into_iter(), &[0, 1, 2], random), None);
            assert_eq!(weighted(std::iter::empty(), &[], random), None);
        }
    }

    #[test]
    fn the_ends_of_the_range_stay_inside() {
        assert_eq!(weighted([1u32, 9].into_iter(), &[], 0), Some(0));
        assert_eq!(weighted([1u32, 9].into_iter(), &[], u64::MAX), Some(1));
        assert_eq!(weighted([u32::MAX, u32::MAX].into_iter(), &[], u64::MAX), Some(1));
    }
}

//! How many retries there may be, and how long to wait before one that goes to the same deployment.
//!
//! Pure: time and random numbers are arguments. When everything fails, retries would double the load on what is already
//! down; so those that go to a deployment in trouble are a share of the requests of the last ten seconds, and a few more
//! for quiet times (Finagle's retry budget). The pause is exponential with full jitter, as in "Exponential Backoff And
//! Jitter" (AWS Architecture Blog).

use std::time::{Duration, Instant};

/// Requests and retries are counted over so many seconds.
const SECONDS: usize = 10;

/// Retries that are always allowed, per second.
const FREE_PER_SECOND: u64 = 10;

const PAUSE_BASE: Duration = Duration::from_millis(100);

/// No request waits longer for a deployment; its error is delivered instead.
pub const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Counts the requests and retries of one model name.
#[derive(Debug, Clone, Default)]
pub struct RetryBudget {
    origin: Option<Instant>,
    /// Seconds since the origin.
    at: u64,
    /// Requests and retries of each second.
    seconds: [(u64, u64); SECONDS],
}

impl RetryBudget {
    /// A request begins.
    pub fn request(&mut self, now: Instant) {
        if let Some(second) = self.current(now) {
            second.0 += 1;
        }
    }

    /// Takes a retry out of the budget, if there is one left.
    pub fn retry(&mut self, now: Instant, percent: u32) -> bool {
        self.advance(now);
        let (requests, retries) =
            self.seconds.iter().fold((0_u64, 0_u64), |sums, second| (sums.0 + second.0, sums.1 + second.1));
        let free = FREE_PER_SECOND * SECONDS as u64;
        if retries >= free.saturating_add(requests.saturating_mul(percent.into()) / 100) {
            return false;
        }
        if let Some(second) = self.current(now) {
            second.1 += 1;
        }
        true
    }

    fn current(&mut self, now: Instant) -> Option<&mut (u64, u64)> {
        self.advance(now);
        self.seconds.get_mut(usize::try_from(self.at % SECONDS as u64).unwrap_or_default())
    }

    fn advance(&mut self, now: Instant) {
        let origin = *self.origin.get_or_insert(now);
        let at = now.saturating_duration_since(origin).as_secs();
        let passed = at.saturating_sub(self.at);
        for step in 1..=passed.min(SECONDS as u64) {
            let gone = usize::try_from((self.at + step) % SECONDS as u64).unwrap_or_default();
            if let Some(second) = self.seconds.get_mut(gone) {
                *second = (0, 0);
            }
        }
        self.at = self.at.max(at);
    }
}

/// The pause before the `retry`th attempt at the same deployment, the first being 1. `random` is uniform over `u64`.
#[must_use]
pub fn pause(retry: u32, random: u64) -> Duration {
    let ceiling = PAUSE_BASE.saturating_mul(2_u32.saturating_pow(retry.saturating_sub(1))).min(PAUSE_MAX);
    let ceiling_us = ceiling.as_micros();
    let drawn = (u128::from(random) * (ceiling_us + 1)) >> 64;
    Duration::from_micros(u64::try_from(drawn).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_share_of_the_requests_and_a_few_more() {
        let start = Instant::now();
        for (requests, percent, expected) in [(0, 20, 100), (1_000, 20, 300), (1_000, 0, 100), (100, 100, 200)] {
            let mut budget = RetryBudget::default();
            for _ in 0..requests {
                budget.request(start);
            }
            let granted = (0..10_000).filter(|_| budget.retry(start, percent)).count();
            assert_eq!(granted, expected, "{requests} requests, {percent} %");
        }
    }

    #[test]
    fn the_budget_of_ten_seconds_ago_is_forgotten_and_its_retries_too() {
        let start = Instant::now();
        let mut budget = RetryBudget::default();
        for second in 0..100_u64 {
            let now = start + Duration::from_secs(second);
            for _ in 0..100 {
                budget.request(now);
            }
            while budget.retry(now, 20) {}
        }
        let now = start + Duration::from_secs(109);
        assert_eq!((0..1_000).filter(|_| budget.retry(now, 20)).count(), 100);
    }

    #[test]
    fn a_pause_is_anything_up_to_a_ceiling_that_doubles() {
        for (retry, ceiling_ms) in [(1, 100), (2, 200), (3, 400), (6, 3_200), (7, 5_000), (200, 5_000)] {
            assert_eq!(pause(retry, 0), Duration::ZERO);
            assert_eq!(pause(retry, u64::MAX), Duration::from_millis(ceiling_ms));
            let half = pause(retry, u64::MAX / 2).as_millis();
            assert!(half.abs_diff(u128::from(ceiling_ms) / 2) <= 1, "{half}");
        }
    }
}

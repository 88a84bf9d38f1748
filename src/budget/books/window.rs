//! Requests and tokens of the last minute on one throttle, and how many of its requests are under way.
//!
//! Time is cut into buckets of 5 seconds. A bucket counts until all of it is older than 60 seconds, so 13 buckets count
//! at any moment and never more than the limit is admitted in *any* 60 seconds; the price is that room may return up to
//! 5 seconds late. A token bucket would be smaller and admit up to twice its limit in a minute.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Length of a bucket, milliseconds.
pub const BUCKET_MS: u64 = 5_000;
/// Buckets that count at the same time.
pub const BUCKETS: u64 = 13;
/// What a limit of zero answers, milliseconds: there is no moment at which a request would fit.
const NEVER_RETRY_MS: u64 = 60_000;

/// What is counted on one throttle.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Window {
    /// Oldest first. Only buckets in which something was admitted.
    buckets: VecDeque<Bucket>,
    /// Open leases. Not saved: leases do not outlive the process.
    #[serde(skip)]
    pub(super) parallel: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Bucket {
    /// Unix time divided by the length of a bucket.
    number: u64,
    requests: u64,
    tokens: u64,
}

impl Bucket {
    /// Neither too old, nor from a time when the clock was far ahead of now.
    const fn counts_at(&self, now_ms: u64) -> bool {
        let current = now_ms / BUCKET_MS;
        self.number + BUCKETS > current && self.number <= current + BUCKETS
    }
}

impl Window {
    /// How long a further request has to wait; `None` when `rpm` has room for it now.
    #[must_use]
    pub fn wait_for_request(&self, now_ms: u64, rpm: u64) -> Option<u64> {
        let Some(room) = rpm.checked_sub(1) else { return Some(NEVER_RETRY_MS) };
        self.wait(now_ms, room, |bucket| bucket.requests)
    }

    /// How long a request of `tokens` has to wait; `None` when `tpm` has room for it now. More than `tpm` counts as
    /// `tpm`, see [`counted`].
    #[must_use]
    pub fn wait_for_tokens(&self, now_ms: u64, tokens: u64, tpm: u64) -> Option<u64> {
        if tpm == 0 && tokens > 0 {
            return Some(NEVER_RETRY_MS);
        }
        self.wait(now_ms, tpm - counted(tokens, tpm), |bucket| bucket.tokens)
    }

    fn wait(&self, now_ms: u64, room: u64, of: impl Fn(&Bucket) -> u64) -> Option<u64> {
        let counting = || self.buckets.iter().filter(|bucket| bucket.counts_at(now_ms));
        let mut used = counting().map(&of).fold(0, u64::saturating_add);
        if used <= room {
            return None;
        }
        for bucket in counting() {
            used = used.saturating_sub(of(bucket));
            if used <= room {
                return Some(((bucket.number + BUCKETS) * BUCKET_MS).saturating_sub(now_ms));
            }
        }
        Some(NEVER_RETRY_MS)
    }

    /// Counts a request, and gives the bucket it stands in.
    pub fn admit(&mut self, now_ms: u64, requests: u64, tokens: u64) -> u64 {
        let number = now_ms / BUCKET_MS;
        while self.buckets.front().is_some_and(|bucket| !bucket.counts_at(now_ms)) {
            self.buckets.pop_front();
        }
        match self.buckets.back_mut().filter(|bucket| bucket.number == number) {
            Some(bucket) => {
                bucket.requests = bucket.requests.saturating_add(requests);
                bucket.tokens = bucket.tokens.saturating_add(tokens);
            }
            None => self.buckets.push_back(Bucket { number, requests, tokens }),
        }
        number
    }

    /// Puts `actual` in the place of `estimated` tokens, as long as their bucket counts.
    pub fn correct(&mut self, now_ms: u64, number: u64, estimated: u64, actual: u64) {
        let bucket = self.buckets.iter_mut().find(|bucket| bucket.number == number && bucket.counts_at(now_ms));
        if let Some(bucket) = bucket {
            bucket.tokens = bucket.tokens.saturating_add(actual).saturating_sub(estimated);
        }
    }

    /// As a later process finds it.
    pub(super) fn without_leases(self) -> Self {
        Self { parallel: 0, ..self }
    }

    /// Nothing counts any more and nothing is under way.
    #[must_use]
    pub fn is_idle(&self, now_ms: u64) -> bool {
        self.parallel == 0 && !self.buckets.iter().any(|bucket| bucket.counts_at(now_ms))
    }
}

/// The tokens of a request that count on a limit: a request larger than the whole limit needs an empty minute.
#[must_use]
pub fn counted(tokens: u64, tpm: u64) -> u64 {
    tokens.min(tpm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_minute_holds_more_requests_than_the_limit() {
        let mut window = Window::default();
        let mut admitted: Vec<u64> = Vec::new();
        let mut now_ms = 1_793_000_000_123;
        for step in 0..20_000_u64 {
            now_ms += step * 7_919 % 1_300;
            if window.wait_for_request(now_ms, 40).is_none() {
                window.admit(now_ms, 1, 0);
                admitted.push(now_ms);
            }
        }
        for (index, start) in admitted.iter().enumerate() {
            let within = admitted.iter().skip(index).take_while(|at| **at - start <= 60_000).count();
            assert!(within <= 40, "{within} requests in the minute from {start}");
        }
        assert!(admitted.len() > 5_000, "only {} admitted", admitted.len());
    }

    #[test]
    fn the_wait_it_states_is_the_first_moment_with_room() {
        let mut window = Window::default();
        for at in [1_000, 2_000, 7_000, 61_000] {
            assert_eq!(window.wait_for_request(at, 4), None);
            window.admit(at, 1, 100);
        }
        let wait = window.wait_for_request(62_000, 4).unwrap();
        assert_eq!(wait, 3_000);
        assert!(window.wait_for_request(62_000 + wait - 1, 4).is_some());
        assert_eq!(window.wait_for_request(62_000 + wait, 4), None);
        assert_eq!(window.wait_for_tokens(62_000, 100, 400), Some(3_000));
        assert_eq!(window.wait_for_tokens(62_000, 100, 500), None);
    }

    #[test]
    fn a_request_larger_than_the_limit_waits_for_an_empty_minute() {
        let mut window = Window::default();
        assert_eq!(window.wait_for_tokens(0, 1_000_000, 100), None);
        let bucket = window.admit(0, 1, counted(1_000_000, 100));
        assert_eq!(window.wait_for_tokens(10_000, 1, 100), Some(55_000));
        window.correct(10_000, bucket, 100, 30);
        assert_eq!(window.wait_for_tokens(10_000, 70, 100), None);
        assert_eq!(window.wait_for_tokens(10_000, 71, 100), Some(55_000));
        assert_eq!(window.wait_for_tokens(65_000, 1_000_000, 100), None);
    }

    #[test]
    fn a_clock_that_was_hours_ahead_does_not_block_for_hours() {
        let mut window = Window::default();
        window.admit(10 * 3_600_000, 1, 0);
        assert!(window.wait_for_request(10 * 3_600_000 - 5_000, 1).is_some());
        assert_eq!(window.wait_for_request(3_600_000, 1), None);
        window.admit(3_600_000, 1, 0);
        assert_eq!(window.wait_for_request(3_600_000, 1), Some(65_000));
    }

    #[test]
    fn a_limit_of_zero_admits_nothing() {
        let window = Window::default();
        assert_eq!(window.wait_for_request(0, 0), Some(60_000));
        assert_eq!(window.wait_for_tokens(0, 1, 0), Some(60_000));
    }
}

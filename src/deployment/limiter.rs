//! What one deployment may take: requests and tokens a minute, and requests at a time (`rpm`, `tpm`,
//! `max_parallel_requests`).
//!
//! Pure: `now` is an argument. Minutes are counted from the first request of each. Tokens are known when an answer ends,
//! so those of requests under way are expected to be as many as those before them used. It limits what this process
//! sends; what AWS grants is AWS's to say, by a 429.

use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_mins(1);

/// When a place may become free where requests are limited by how many there are at a time.
const SOON: Duration = Duration::from_secs(1);

/// Over how long recent requests are counted, with the weight of older ones falling off.
const RECENT: Duration = Duration::from_secs(10);

/// The limits of a deployment; without one there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quota {
    /// Requests a minute.
    pub rpm: Option<u64>,
    /// Tokens a minute.
    pub tpm: Option<u64>,
    /// Requests at a time.
    pub parallel: Option<u32>,
}

/// What of a quota is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Used {
    pub requests: u64,
    pub tokens: u64,
}

/// Counts the requests of one deployment.
#[derive(Debug, Clone, Default)]
pub struct Limiter {
    minute: Option<Instant>,
    used: Used,
    in_flight: u32,
    /// Of a request, over those that ended lately.
    tokens_mean: u64,
    recent: f64,
    recent_at: Option<Instant>,
}

impl Limiter {
    #[must_use]
    pub const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Requests under way, and those begun lately: what the deployment is busy with.
    #[must_use]
    pub fn load(&self, now: Instant) -> f64 {
        f64::from(self.in_flight) + self.recent_now(now)
    }

    /// Used in the current minute.
    #[must_use]
    pub fn used(&self, now: Instant) -> Used {
        match self.minute {
            Some(began) if now.saturating_duration_since(began) < MINUTE => self.used,
            _ => Used::default(),
        }
    }

    /// The larger share of the minute's requests or tokens that is used, in millionths. Zero without limits.
    #[must_use]
    pub fn used_share(&self, now: Instant, quota: &Quota) -> u64 {
        let used = self.used(now);
        let share = |used: u64, limit: Option<u64>| limit.map_or(0, |limit| millionths(used, limit));
        share(used.requests, quota.rpm).max(share(self.tokens_expected(used), quota.tpm))
    }

    /// `None` where another request may begin, else how long until one may.
    #[must_use]
    pub fn full_for(&self, now: Instant, quota: &Quota) -> Option<Duration> {
        let used = self.used(now);
        let spent = quota.rpm.is_some_and(|limit| used.requests >= limit)
            || quota.tpm.is_some_and(|limit| self.tokens_expected(used) >= limit);
        if spent {
            let began = self.minute.unwrap_or(now);
            // Tokens that are only expected free themselves when the requests end.
            return Some(MINUTE.saturating_sub(now.saturating_duration_since(began)).max(SOON));
        }
        quota.parallel.is_some_and(|limit| self.in_flight >= limit).then_some(SOON)
    }

    pub fn begin(&mut self, now: Instant) {
        self.roll(now);
        self.used.requests = self.used.requests.saturating_add(1);
        self.in_flight = self.in_flight.saturating_add(1);
        self.recent = self.recent_now(now) + 1.0;
        self.recent_at = Some(now);
    }

    /// A request ended. `tokens` is `None` where its usage is not known.
    pub fn end(&mut self, now: Instant, tokens: Option<u64>) {
        self.roll(now);
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(tokens) = tokens {
            self.used.tokens = self.used.tokens.saturating_add(tokens);
            // An eighth of the new value, as TCP smooths round trips (RFC 6298).
            self.tokens_mean = match self.tokens_mean {
                0 => tokens,
                mean => mean - mean / 8 + tokens / 8,
            };
        }
    }

    fn tokens_expected(&self, used: Used) -> u64 {
        used.tokens.saturating_add(self.tokens_mean.saturating_mul(self.in_flight.into()))
    }

    fn roll(&mut self, now: Instant) {
        if self.minute.is_none_or(|began| now.saturating_duration_since(began) >= MINUTE) {
            self.minute = Some(now);
            self.used = Used::default();
        }
    }

    fn recent_now(&self, now: Instant) -> f64 {
        let age = self.recent_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.recent * (-age.as_secs_f64() / RECENT.as_secs_f64()).exp()
    }
}

fn millionths(part: u64, whole: u64) -> u64 {
    let share = u128::from(part) * 1_000_000 / u128::from(whole.max(1));
    u64::try_from(share).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_a_minute_are_limited_and_the_next_minute_is_free() {
        let start = Instant::now();
        let quota = Quota { rpm: Some(2), ..Quota::default() };
        let mut limiter = Limiter::default();
        limiter.begin(start);
        limiter.end(start, None);
        assert_eq!(limiter.full_for(start, &quota), None);
        limiter.begin(start + Duration::from_secs(20));
        assert_eq!(limiter.used_share(start + Duration::from_secs(20), &quota), 1_000_000);
        assert_eq!(limiter.full_for(start + Duration::from_secs(25), &quota), Some(Duration::from_secs(35)));
        assert_eq!(limiter.full_for(start + Duration::from_mins(1), &quota), None);
        assert_eq!(limiter.used(start + Duration::from_mins(1)), Used::default());
    }

    #[test]
    fn tokens_of_requests_under_way_are_expected() {
        let start = Instant::now();
        let quota = Quota { tpm: Some(1_000), ..Quota::default() };
        let mut limiter = Limiter::default();
        limiter.begin(start);
        assert_eq!(limiter.full_for(start, &quota), None, "of the first one nothing is known");
        limiter.end(start, Some(400));
        limiter.begin(start);
        assert_eq!((limiter.used_share(start, &quota), limiter.full_for(start, &quota)), (800_000, None));
        limiter.begin(start);
        assert_eq!(limiter.full_for(start, &quota), Some(MINUTE));
        limiter.end(start, Some(100));
        limiter.end(start, None);
        assert_eq!(limiter.full_for(start, &quota), None);
        assert_eq!(limiter.used(start), Used { requests: 3, tokens: 500 });
    }

    #[test]
    fn requests_at_a_time_are_limited() {
        let start = Instant::now();
        let quota = Quota { parallel: Some(1), ..Quota::default() };
        let mut limiter = Limiter::default();
        limiter.begin(start);
        assert_eq!(limiter.full_for(start, &quota), Some(SOON));
        limiter.end(start, None);
        assert_eq!((limiter.full_for(start, &quota), limiter.in_flight()), (None, 0));
    }

    #[test]
    fn load_is_what_runs_and_what_began_lately() {
        let start = Instant::now();
        let mut limiter = Limiter::default();
        for _ in 0..10 {
            limiter.begin(start);
        }
        assert!((limiter.load(start) - 20.0).abs() < 1e-9);
        for _ in 0..10 {
            limiter.end(start, None);
        }
        let later = limiter.load(start + RECENT);
        assert!((3.6..3.7).contains(&later), "{later}");
    }

    #[test]
    fn without_a_quota_nothing_is_full() {
        let start = Instant::now();
        let mut limiter = Limiter::default();
        for _ in 0..100_000 {
            limiter.begin(start);
        }
        assert_eq!(limiter.full_for(start, &Quota::default()), None);
        assert_eq!(limiter.used_share(start, &Quota::default()), 0);
        let none = Quota { rpm: Some(0), tpm: Some(0), parallel: Some(0) };
        assert!(limiter.full_for(start, &none).is_some());
    }
}

//! How slowly a client may take its answer: an average over the time that was spent waiting for it.
//!
//! Only a write that waits counts, never a model that is slow. A client that takes nothing for half a minute, or less
//! than the rate over as long, is a connection and memory that others lack (CWE-400; the slow read of slowhttptest).
//! No clock: what passed is an argument.

use std::time::Duration;

/// Waiting for a client is judged over at least so long: TCP needs seconds to get over losses.
const WINDOW: Duration = Duration::from_secs(30);

/// Watches one client.
#[derive(Debug)]
pub(super) struct Pace {
    /// Bytes a second.
    rate_min: u64,
    /// In this window, at most what a client at the lowest rate takes in it: a fast beginning is no credit for later.
    taken: u64,
    waited: Duration,
}

impl Pace {
    /// `None` for a rate of 0: any will do.
    pub(super) fn new(rate_min: u64) -> Option<Self> {
        (rate_min > 0).then_some(Self { rate_min, taken: 0, waited: Duration::ZERO })
    }

    /// How long the next write, of so many bytes, may wait for the client.
    pub(super) fn patience(&self, bytes: usize) -> Duration {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let millis = self.taken.saturating_add(bytes).saturating_mul(1_000) / self.rate_min;
        WINDOW.max(Duration::from_millis(millis)).saturating_sub(self.waited)
    }

    /// Notes that a write has gone out, and how long it took. False when the client has been too slow.
    pub(super) fn took(&mut self, bytes: usize, waited: Duration) -> bool {
        self.waited = self.waited.saturating_add(waited);
        let taken = self.taken.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        if self.waited < WINDOW {
            self.taken = taken.min(self.rate_min.saturating_mul(WINDOW.as_secs()));
            return true;
        }
        let least = u128::from(self.rate_min).saturating_mul(self.waited.as_millis()) / 1_000;
        (self.taken, self.waited) = (0, Duration::ZERO);
        u128::from(taken) >= least
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Whether a client that takes `bytes` in every `each`, always awaited, is let go within so many writes.
    fn is_let_go(pace: &mut Pace, bytes: usize, each: Duration, writes: usize) -> bool {
        (0..writes).any(|_| {
            let in_time = each <= pace.patience(bytes);
            !(in_time && pace.took(bytes, each))
        })
    }

    #[test]
    fn a_client_at_the_lowest_rate_stays_and_one_below_it_goes() {
        for (bytes, each, expected) in [
            (500, seconds(1), false),
            (5_000, seconds(10), false),
            (500_000, seconds(1_000), false),
            (100, Duration::from_millis(200), false),
            (450, seconds(1), true),
            (500_000, seconds(1_040), true),
            (100, seconds(31), true),
            (1_000, seconds(31), true),
            (10, seconds(31), true),
            (10, seconds(15), true),
        ] {
            assert_eq!(is_let_go(&mut Pace::new(500).unwrap(), bytes, each, 1_000), expected, "{bytes} in {each:?}");
        }
    }

    #[test]
    fn a_client_that_stops_goes_after_the_window_however_fast_it_began() {
        let mut pace = Pace::new(500).unwrap();
        for _ in 0..10_000 {
            assert!(pace.took(65_536, Duration::ZERO));
        }
        assert_eq!(pace.patience(0), WINDOW);
        assert!(pace.patience(100) <= WINDOW + seconds(1));
        assert!(pace.patience(50_000) <= WINDOW + seconds(100));
    }

    #[test]
    fn time_that_was_not_spent_on_the_client_does_not_count() {
        let mut pace = Pace::new(500).unwrap();
        for _ in 0..10_000 {
            assert!(pace.took(1, Duration::from_micros(20)));
        }
        assert!(pace.patience(1) > seconds(29));
    }

    #[test]
    fn waiting_adds_up_over_writes_until_it_is_judged() {
        let mut pace = Pace::new(500).unwrap();
        assert!(pace.took(10, seconds(20)));
        assert_eq!(pace.patience(10), seconds(10));
        assert!(pace.took(10, seconds(9)));
        assert_eq!(pace.patience(10), seconds(1));
        assert!(!pace.took(10, seconds(1)));
        assert_eq!(pace.patience(10), WINDOW, "a new window");
    }

    #[test]
    fn no_rate_is_no_watch() {
        assert!(Pace::new(0).is_none());
    }
}

//! How long a deployment takes, as a peak-sensitive moving average: a slow answer counts at once, fast ones win back
//! trust slowly.
//!
//! Pure. The algorithm is Finagle's and Linkerd's "peak EWMA": a sample above the average replaces it, one below it is
//! blended in by the time since the last. Without samples the average falls, so that a deployment that was once slow is
//! tried again. Streams and whole answers are kept apart: the one is the time to the first byte, the other to the last.

use std::time::{Duration, Instant};

/// After so long without a sample, a third of the average is left.
const DECAY: Duration = Duration::from_secs(10);

/// The average of one kind of answer, in microseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct PeakEwma {
    average_us: f64,
    at: Option<Instant>,
}

impl PeakEwma {
    pub fn observe(&mut self, now: Instant, sample: Duration) {
        let sample_us = sample.as_secs_f64() * 1e6;
        let kept = self.kept(now);
        self.average_us =
            if sample_us > self.average_us { sample_us } else { self.average_us * kept + sample_us * (1.0 - kept) };
        self.at = Some(now);
    }

    /// Microseconds; `None` before the first sample.
    #[must_use]
    pub fn get(&self, now: Instant) -> Option<f64> {
        self.at.map(|_| self.average_us * self.kept(now))
    }

    fn kept(&self, now: Instant) -> f64 {
        let age = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        (-age.as_secs_f64() / DECAY.as_secs_f64()).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_counts_at_once_and_is_forgotten_slowly() {
        let start = Instant::now();
        let mut latency = PeakEwma::default();
        assert_eq!(latency.get(start), None);
        latency.observe(start, Duration::from_millis(10));
        latency.observe(start, Duration::from_millis(500));
        assert_eq!(latency.get(start), Some(500_000.0));
        latency.observe(start + Duration::from_secs(1), Duration::from_millis(10));
        let after = latency.get(start + Duration::from_secs(1)).unwrap();
        assert!((400_000.0..460_000.0).contains(&after), "{after}");
    }

    #[test]
    fn without_samples_it_falls() {
        let start = Instant::now();
        let mut latency = PeakEwma::default();
        latency.observe(start, Duration::from_secs(1));
        let later = latency.get(start + DECAY).unwrap();
        assert!((360_000.0..370_000.0).contains(&later), "{later}");
        assert!(latency.get(start + DECAY * 20).unwrap() < 1.0);
    }
}

//! What was measured, over all streams. Times are kept in nanoseconds and told in microseconds.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::clock::now_ns;
use crate::fault::Fault;
use crate::frames::{Frame, Frames};

/// A longer time is recorded as this one; its tenths of microseconds fit into 32 bits.
const TIME_NS_MAX: u64 = 420_000_000_000;
/// One part in a thousand.
const DIGITS: u8 = 3;

/// Everything that is counted and timed.
#[derive(Debug)]
pub struct Stats {
    pub open: u64,
    pub finished: u64,
    pub frames: u64,
    checked: u64,
    bytes: u64,
    errors: BTreeMap<String, u64>,
    first_frame: Times,
    gap: Times,
    transit: Times,
    stream: Times,
}

/// A histogram; none where memory for it cannot be laid out.
#[derive(Debug)]
struct Times(Option<Histogram<u64>>);

impl Times {
    fn new() -> Self {
        Self(Histogram::new_with_bounds(1, TIME_NS_MAX, DIGITS).ok())
    }

    fn record(&mut self, ns: u64) {
        if let Some(histogram) = &mut self.0 {
            histogram.saturating_record(ns);
        }
    }

    fn told(&self) -> Value {
        let Some(histogram) = self.0.as_ref().filter(|histogram| !histogram.is_empty()) else {
            return json!({ "count": 0 });
        };
        let at = |quantile| microseconds(histogram.value_at_quantile(quantile));
        json!({
            "count": histogram.len(),
            "min": microseconds(histogram.min()),
            "p50": at(0.5),
            "p90": at(0.9),
            "p99": at(0.99),
            "p99.9": at(0.999),
            "max": microseconds(histogram.max()),
        })
    }
}

/// With one decimal.
fn microseconds(ns: u64) -> Value {
    let tenths = u32::try_from(ns / 100).unwrap_or(u32::MAX);
    json!(f64::from(tenths) / 10.0)
}

impl Stats {
    pub fn new() -> Self {
        Self {
            open: 0,
            finished: 0,
            frames: 0,
            checked: 0,
            bytes: 0,
            errors: BTreeMap::new(),
            first_frame: Times::new(),
            gap: Times::new(),
            transit: Times::new(),
            stream: Times::new(),
        }
    }

    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    pub fn count(&mut self, outcome: Result<(), Fault>) {
        match outcome {
            Ok(()) => self.finished += 1,
            Err(fault) => *self.errors.entry(fault.to_string()).or_default() += 1,
        }
    }

    /// The report, of a run of `elapsed_s`.
    pub fn told(&self, elapsed_s: f64) -> Value {
        let per_second = |count: u64| {
            let count = f64::from(u32::try_from(count).unwrap_or(u32::MAX));
            json!((count / elapsed_s.max(f64::EPSILON) * 10.0).round() / 10.0)
        };
        json!({
            "elapsed_s": (elapsed_s * 1000.0).round() / 1000.0,
            "finished": self.finished,
            "streams_per_s": per_second(self.finished),
            "open_at_the_end": self.open,
            "frames": self.frames,
            "frames_per_s": per_second(self.frames),
            "frames_checked": self.checked,
            "bytes": self.bytes,
            "errors": self.errors,
            "ttft_us": self.first_frame.told(),
            "gap_us": self.gap.told(),
            "transit_us": self.transit.told(),
            "stream_us": self.stream.told(),
        })
    }
}

/// Watches one stream from the moment in which its request is sent.
#[derive(Debug)]
pub struct Watch<'a> {
    stats: &'a Mutex<Stats>,
    frames: Frames,
    sent_ns: u64,
    /// Whether a frame has arrived.
    begun: bool,
    /// When the last frame with a time in it arrived.
    last_ns: Option<u64>,
}

impl<'a> Watch<'a> {
    pub fn begin(stats: &'a Mutex<Stats>) -> Self {
        lock(stats).open += 1;
        Self { stats, frames: Frames::default(), sent_ns: now_ns(), begun: false, last_ns: None }
    }

    /// Takes content that has just arrived.
    ///
    /// # Errors
    /// When it is no event stream, or tells of an exception.
    pub fn receive(&mut self, content: &[u8]) -> Result<(), Fault> {
        let now = now_ns();
        let mut stats = lock(self.stats);
        stats.bytes += u64::try_from(content.len()).unwrap_or(0);
        let (begun, last_ns, sent_ns) = (&mut self.begun, &mut self.last_ns, self.sent_ns);
        self.frames.read(content, |frame| {
            stats.frames += 1;
            stats.checked += u64::from(frame.checked);
            if !*begun {
                *begun = true;
                stats.first_frame.record(now.saturating_sub(sent_ns));
            }
            stats.note_times(frame, now, last_ns);
            if frame.is_exception() { Err(Fault::Exception) } else { Ok(()) }
        })
    }

    /// The end of the content.
    ///
    /// # Errors
    /// When it is in the middle of a frame, or there was none.
    pub fn end(self) -> Result<(), Fault> {
        if !self.begun || !self.frames.is_between_frames() {
            return Err(Fault::Cut);
        }
        lock(self.stats).stream.record(now_ns().saturating_sub(self.sent_ns));
        Ok(())
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        lock(self.stats).open -= 1;
    }
}

impl Stats {
    fn note_times(&mut self, frame: &Frame<'_>, now: u64, last_ns: &mut Option<u64>) {
        let Some(sent) = frame.sent_ns() else { return };
        self.transit.record(now.saturating_sub(sent));
        if let Some(last) = last_ns.replace(now) {
            self.gap.record(now.saturating_sub(last));
        }
    }
}

/// One thread uses it; a panic would have ended that.
pub fn lock(stats: &Mutex<Stats>) -> MutexGuard<'_, Stats> {
    stats.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_microseconds() {
        let mut times = Times::new();
        (1..=1000).for_each(|us| times.record(us * 1000));
        let told = times.told();
        assert_eq!(told["count"], 1000);
        assert!((told["p50"].as_f64().unwrap() - 500.0).abs() < 1.0, "{told}");
        assert!((told["max"].as_f64().unwrap() - 1000.0).abs() < 1.0, "{told}");
        assert_eq!(Times::new().told(), json!({ "count": 0 }));
    }

    #[test]
    fn a_stream_without_a_frame_is_cut() {
        let stats = Mutex::new(Stats::new());
        assert_eq!(Watch::begin(&stats).end(), Err(Fault::Cut));
        assert_eq!(lock(&stats).open, 0);
    }
}

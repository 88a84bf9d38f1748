//! The store's clock: the system's, but never going back while the process lives, because leases and rate windows
//! compare moments.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970.
pub struct Clock {
    read: Box<dyn Fn() -> u64 + Send + Sync>,
    latest_ms: AtomicU64,
}

impl Clock {
    #[must_use]
    pub fn system() -> Self {
        Self::new(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
    }

    /// A clock that asks `read`, for tests that move the time.
    #[must_use]
    pub fn new(read: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self { read: Box::new(read), latest_ms: AtomicU64::new(0) }
    }

    #[must_use]
    pub fn now_ms(&self) -> u64 {
        let now_ms = (self.read)();
        self.latest_ms.fetch_max(now_ms, Ordering::Relaxed).max(now_ms)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("latest_ms", &self.latest_ms).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_does_not_go_back() {
        let times = AtomicU64::new(0);
        let clock = Clock::new(move || [5, 9, 7, 12][usize::try_from(times.fetch_add(1, Ordering::Relaxed)).unwrap()]);
        assert_eq!([clock.now_ms(), clock.now_ms(), clock.now_ms(), clock.now_ms()], [5, 9, 9, 12]);
    }
}

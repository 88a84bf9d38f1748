//! What ends a wait although nothing came: a deadline, or the end of the process.
//!
//! A stream waits once for each of its frames, with a deadline that moves each time. So both are listened for once, and
//! the timer stays where it was set: it is looked at again, and moved, when it goes off.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::stop::{Stop, ToCome};

/// The timer is set for at most so long, and again when it goes off. Pingora's timers cost no system call, as Tokio's do
/// where no other would go off before, but stay until then.
const SET_AT_MOST: Duration = Duration::from_mins(1);

/// Kept for all waits of one session.
#[derive(Default)]
pub(super) struct Alarm {
    stop: Option<ToCome>,
    timer: Option<Timer>,
}

struct Timer {
    at: Instant,
    sleep: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
}

impl Timer {
    /// Goes off at the `deadline`, or before. `None` when it has passed.
    fn set(deadline: Instant) -> Option<Self> {
        let now = Instant::now();
        let at = deadline.min(now + SET_AT_MOST);
        let left = at.saturating_duration_since(now);
        (!left.is_zero()).then(|| Self { at, sleep: Box::pin(pingora_timeout::sleep(left)) })
    }
}

/// Why it went off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ring {
    Overdue,
    Stopping,
}

impl Alarm {
    /// Ready at the `deadline`, or when the time for `stop` has come, whatever was waited for before.
    pub(super) fn poll_ring(&mut self, cx: &mut Context<'_>, stop: &Stop, deadline: Option<Instant>) -> Poll<Ring> {
        if self.stop.get_or_insert_with(|| stop.to_come()).as_mut().poll(cx).is_ready() {
            self.stop = None;
            return Poll::Ready(Ring::Stopping);
        }
        let Some(deadline) = deadline else {
            return Poll::Pending;
        };
        if self.timer.as_ref().is_some_and(|timer| timer.at > deadline) {
            self.timer = None;
        }
        loop {
            if self.timer.is_none() {
                self.timer = Timer::set(deadline);
            }
            let Some(timer) = &mut self.timer else {
                return Poll::Ready(Ring::Overdue);
            };
            ready!(timer.sleep.as_mut().poll(cx));
            // Looked at again, because it may have been set for less.
            self.timer = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures::FutureExt;
    use tokio::sync::watch;

    use super::*;

    const STEP: Duration = Duration::from_millis(40);

    async fn ring(alarm: &mut Alarm, stop: &Stop, deadline: Option<Instant>) -> Ring {
        poll_fn(|cx| alarm.poll_ring(cx, stop, deadline)).await
    }

    #[tokio::test]
    async fn a_deadline_may_move_both_ways() {
        let (_never, receiver) = watch::channel(false);
        let (stop, mut alarm) = (Stop::new(receiver), Alarm::default());
        let began = Instant::now();
        for steps in [1_000, 3, 1, 2, 4, 4] {
            let deadline = began + steps * STEP;
            if steps == 1_000 || steps == 3 {
                assert_eq!(ring(&mut alarm, &stop, Some(deadline)).now_or_never(), None);
                continue;
            }
            assert_eq!(ring(&mut alarm, &stop, Some(deadline)).await, Ring::Overdue);
            assert!(Instant::now() >= deadline, "{steps} steps");
        }
        assert!(began.elapsed() < 1_000 * STEP);
        assert_eq!(ring(&mut alarm, &stop, None).now_or_never(), None);
    }

    #[tokio::test]
    async fn the_end_of_the_process_is_heard_by_whoever_waits_and_by_whoever_comes_later() {
        let (now, receiver) = watch::channel(false);
        let (stop, mut alarm) = (Stop::new(receiver), Alarm::default());
        assert_eq!(ring(&mut alarm, &stop, None).now_or_never(), None);
        now.send_replace(true);
        for _ in 0..3 {
            assert_eq!(ring(&mut alarm, &stop, None).await, Ring::Stopping);
        }
        drop(now);
        assert_eq!(ring(&mut alarm, &stop, None).await, Ring::Stopping);
    }

    #[tokio::test]
    async fn who_can_stop_nobody_any_more_stops_nobody() {
        let (stop, mut alarm) = (Stop::new(watch::channel(false).1), Alarm::default());
        assert_eq!(ring(&mut alarm, &stop, None).now_or_never(), None);
        assert_eq!(ring(&mut alarm, &stop, Some(Instant::now())).await, Ring::Overdue);
    }
}

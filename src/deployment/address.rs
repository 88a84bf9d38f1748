//! The addresses of one server: which of them may be connected to, and whose turn it is.
//!
//! Pure: `now` is an argument, as the time since the host was made. Two things speak against an address: a health check
//! that it failed again and again, and a connection that failed a moment ago. Neither can leave a host without addresses:
//! where all are bad, the check may be what is wrong, so all are used.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long an address is passed over after a connection to it failed. Short, because one failure says little; a health
/// check decides what lasts.
const PASSED_OVER: Duration = Duration::from_secs(5);

/// Why there is no connection, as far as the outside can tell: a label of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnectFailure {
    /// Nobody listens there.
    Refused,
    TimedOut,
    /// The handshake failed, or the certificate is not one for this name.
    Tls,
    /// The name does not resolve.
    Name,
    /// No route, a reset, no socket to be had.
    Other,
}

impl ConnectFailure {
    pub const ALL: [Self; 5] = [Self::Refused, Self::TimedOut, Self::Tls, Self::Name, Self::Other];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Tls => "tls",
            Self::Name => "name",
            Self::Other => "other",
        }
    }
}

/// What went wrong, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub kind: ConnectFailure,
    /// For operators; never for clients.
    pub detail: String,
    pub at: Duration,
}

/// One address.
#[derive(Debug)]
pub(super) struct Address {
    pub socket: SocketAddr,
    /// Whether the health check lets it pass; it does until it has failed.
    usable: AtomicBool,
    /// Milliseconds; 0 when no connection failed of late.
    passed_over_until: AtomicU64,
    seen: Mutex<Seen>,
}

/// For reports alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub last_failure: Option<Failure>,
    /// When a health check last came to its end.
    pub checked: Option<Duration>,
}

impl Address {
    pub(super) fn new(socket: SocketAddr) -> Self {
        let (usable, passed_over_until) = (AtomicBool::new(true), AtomicU64::new(0));
        Self { socket, usable, passed_over_until, seen: Mutex::default() }
    }

    pub(super) fn is_usable(&self) -> bool {
        self.usable.load(Ordering::Relaxed)
    }

    pub(super) fn is_passed_over(&self, now: Duration) -> bool {
        milliseconds(now) < self.passed_over_until.load(Ordering::Relaxed)
    }

    /// Neither check nor connection speaks against it.
    fn is_good(&self, now: Duration) -> bool {
        self.is_usable() && !self.is_passed_over(now)
    }

    /// A connection to it failed.
    pub(super) fn failed(&self, failure: Failure) {
        let until = failure.at.saturating_add(PASSED_OVER);
        self.passed_over_until.store(milliseconds(until), Ordering::Relaxed);
        self.lock().last_failure = Some(failure);
    }

    /// It passed a check, which says more than any failure before.
    pub(super) fn passed(&self, now: Duration) {
        self.usable.store(true, Ordering::Relaxed);
        self.passed_over_until.store(0, Ordering::Relaxed);
        self.lock().checked = Some(now);
    }

    /// It failed a check.
    pub(super) fn failed_check(&self, failure: Failure) {
        let at = failure.at;
        self.failed(failure);
        self.lock().checked = Some(at);
    }

    /// It failed so many checks that it is out until it passes one.
    pub(super) fn take_out(&self) {
        self.usable.store(false, Ordering::Relaxed);
    }

    pub(super) fn seen(&self) -> Seen {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The address whose turn it is: among the good ones, else among those that pass their check, else among all.
pub(super) fn next(addresses: &[Arc<Address>], turn: usize, now: Duration) -> Option<SocketAddr> {
    in_turn(addresses, turn, |address| address.is_good(now))
        .or_else(|| in_turn(addresses, turn, Address::is_usable))
        .or_else(|| in_turn(addresses, turn, |_| true))
}

/// Counts those that fit and takes one of them, so that the neighbour of one that is left out gets no double share.
fn in_turn(addresses: &[Arc<Address>], turn: usize, fits: impl Fn(&Address) -> bool) -> Option<SocketAddr> {
    let fitting = || addresses.iter().filter(|address| fits(address));
    let skipped = turn.checked_rem(fitting().count())?;
    // One may have become bad since it was counted; then the first that is left is as good.
    fitting().nth(skipped).or_else(|| fitting().next()).map(|address| address.socket)
}

/// `found` as addresses: those that were known keep what is known of them.
pub(super) fn renewed(known: &[Arc<Address>], found: &[SocketAddr]) -> Vec<Arc<Address>> {
    found
        .iter()
        .map(|socket| {
            let known = known.iter().find(|address| address.socket == *socket);
            known.cloned().unwrap_or_else(|| Arc::new(Address::new(*socket)))
        })
        .collect()
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(100);

    fn socket(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 443))
    }

    fn addresses(count: u8) -> Vec<Arc<Address>> {
        renewed(&[], &(1..=count).map(socket).collect::<Vec<_>>())
    }

    fn failure(at: Duration) -> Failure {
        Failure { kind: ConnectFailure::Refused, detail: "refused".to_owned(), at }
    }

    /// How often each address is chosen in so many turns, by the last number of the address.
    fn shares(addresses: &[Arc<Address>], turns: usize, now: Duration) -> Vec<usize> {
        let mut shares = vec![0; addresses.len()];
        for turn in 0..turns {
            let chosen = next(addresses, turn, now).unwrap();
            shares[addresses.iter().position(|address| address.socket == chosen).unwrap()] += 1;
        }
        shares
    }

    #[test]
    fn good_addresses_have_equal_shares() {
        let all = addresses(3);
        assert_eq!(shares(&all, 12, START), [4, 4, 4]);
        all[0].take_out();
        assert_eq!(shares(&all, 12, START), [0, 6, 6], "the neighbour gets no double share");
        all[2].failed(failure(START));
        assert_eq!(shares(&all, 12, START), [0, 12, 0]);
    }

    #[test]
    fn a_failed_connection_is_remembered_for_five_seconds() {
        let all = addresses(2);
        all[0].failed(failure(START));
        for (later_ms, expected) in [(0, [0, 6]), (4_999, [0, 6]), (5_000, [3, 3]), (3_600_000, [3, 3])] {
            assert_eq!(shares(&all, 6, START + Duration::from_millis(later_ms)), expected, "{later_ms} ms later");
        }
    }

    #[test]
    fn a_passed_check_forgives_at_once() {
        let all = addresses(2);
        all[0].failed_check(failure(START));
        all[0].take_out();
        assert_eq!(shares(&all, 6, START + Duration::from_hours(1)), [0, 6], "out until it passes a check");
        all[0].passed(START + Duration::from_hours(1));
        assert_eq!(shares(&all, 6, START + Duration::from_hours(1)), [3, 3]);
        let seen = all[0].seen();
        assert_eq!((seen.checked, seen.last_failure), (Some(START + Duration::from_hours(1)), Some(failure(START))));
    }

    #[test]
    fn where_all_are_bad_the_least_bad_are_used() {
        let all = addresses(3);
        all[0].take_out();
        for address in &all {
            address.failed(failure(START));
        }
        assert_eq!(shares(&all, 12, START), [0, 6, 6], "a failed connection weighs less than a failed check");
        for address in &all {
            address.take_out();
        }
        assert_eq!(shares(&all, 12, START), [4, 4, 4], "the check itself may be wrong");
    }

    #[test]
    fn without_addresses_there_is_no_turn() {
        assert_eq!(next(&[], 7, START), None);
        let one = addresses(1);
        one[0].take_out();
        one[0].failed(failure(START));
        assert_eq!(next(&one, usize::MAX, START), Some(socket(1)));
    }

    #[test]
    fn an_address_that_stays_keeps_what_is_known_of_it() {
        let old = addresses(2);
        old[1].take_out();
        let new = renewed(&old, &[socket(2), socket(3)]);
        assert_eq!((new[0].is_usable(), new[1].is_usable()), (false, true));
        let back = renewed(&addresses(1), &[socket(2)]);
        assert!(back[0].is_usable(), "one that had gone begins anew");
    }
}

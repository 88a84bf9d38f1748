//! The living state of deployments and of the servers behind them, and the attempts that are under way at them.
//!
//! It decides nothing: [`Vitals`] and [`Condition`] do. Here they get their locks, one for each deployment and server and
//! never held over an await, and their clock. An [`Ongoing`] ends on every path: with what became of the attempt, or, when
//! it is dropped, saying nothing. State outlives the configuration that it began with.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::cooldown::{Availability, Condition, CooldownRules};
use super::fleet::Target;
use super::outcome::{Outcome, Phase, Sign, judge};
use super::retry::RetryBudget;
use super::select::View;
use super::vitals::{Changes, Passes, Report, Shown, State, Traits, Vitals};

/// What went wrong last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastError {
    /// The word of [`Outcome::as_str`].
    pub what: &'static str,
    pub status: Option<u16>,
    pub at: SystemTime,
}

/// The state of one deployment.
#[derive(Debug, Default)]
pub struct Live {
    vitals: Mutex<Vitals>,
    last_error: Mutex<Option<LastError>>,
}

/// The state of one server.
#[derive(Debug, Default)]
pub struct Health {
    condition: Mutex<Condition>,
    last_error: Mutex<Option<LastError>>,
}

/// The retry budget of one model name.
#[derive(Debug, Default)]
pub struct Retries(Mutex<RetryBudget>);

impl Live {
    /// What selection may know, with the health of the server behind it.
    #[must_use]
    pub fn view(&self, traits: &Traits, host: Availability, tried: bool, streams: bool, now: Instant) -> View {
        locked(&self.vitals).view(traits, host, tried, streams, now)
    }

    #[must_use]
    pub fn show(&self, now: Instant) -> Shown {
        locked(&self.vitals).show(now)
    }

    #[must_use]
    pub fn last_error(&self) -> Option<LastError> {
        *locked(&self.last_error)
    }
}

impl Health {
    #[must_use]
    pub fn availability(&self, now: Instant) -> Availability {
        locked(&self.condition).availability(now)
    }

    #[must_use]
    pub fn state(&self, now: Instant) -> State {
        State::of(&locked(&self.condition), now)
    }

    #[must_use]
    pub fn last_error(&self) -> Option<LastError> {
        *locked(&self.last_error)
    }
}

impl Retries {
    /// The budget, for one decision.
    pub fn lock(&self) -> MutexGuard<'_, RetryBudget> {
        locked(&self.0)
    }
}

/// An attempt under way at a deployment.
pub struct Ongoing {
    target: Arc<Target>,
    passes: Passes,
    rules: CooldownRules,
    streams: bool,
    ended: bool,
}

/// What is known when an attempt ends.
#[derive(Debug, Clone, Copy)]
pub struct Ending {
    pub outcome: Outcome,
    pub phase: Phase,
    pub status: Option<u16>,
    /// As [`Report::latency`].
    pub latency: Option<Duration>,
    /// As [`Report::tokens`].
    pub tokens: Option<u64>,
}

impl Ending {
    /// One of which nothing is known but what became of it.
    #[must_use]
    pub const fn of(outcome: Outcome, phase: Phase, status: Option<u16>) -> Self {
        Self { outcome, phase, status, latency: None, tokens: None }
    }
}

impl Ongoing {
    /// Begins an attempt at a deployment that was found as `expected`. `None` when another request was faster.
    #[must_use]
    pub fn begin(
        target: &Arc<Target>,
        expected: Availability,
        streams: bool,
        rules: CooldownRules,
        now: Instant,
    ) -> Option<Self> {
        let mut vitals = locked(&target.live.vitals);
        let passes = vitals.begin(&mut locked(&target.host.health.condition), &target.traits, expected, now)?;
        drop(vitals);
        Some(Self { target: Arc::clone(target), passes, rules, streams, ended: false })
    }

    #[must_use]
    pub const fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// Ends it, and tells what that changed.
    #[must_use]
    pub fn end(mut self, ending: &Ending) -> Changes {
        let sign = judge(ending.outcome, ending.phase).sign;
        let reached = ending.phase != Phase::Connecting;
        let error = LastError { what: ending.outcome.as_str(), status: ending.status, at: SystemTime::now() };
        match sign {
            Sign::Good | Sign::None => {}
            Sign::Host => *locked(&self.target.host.health.last_error) = Some(error),
            Sign::Failure | Sign::Throttle { .. } => *locked(&self.target.live.last_error) = Some(error),
        }
        let (latency, tokens) = (ending.latency, ending.tokens);
        self.report(&Report { sign, reached, streams: self.streams, latency, tokens })
    }

    fn report(&mut self, report: &Report) -> Changes {
        if std::mem::replace(&mut self.ended, true) {
            return Changes::default();
        }
        let mut vitals = locked(&self.target.live.vitals);
        let mut host = locked(&self.target.host.health.condition);
        vitals.end(&mut host, self.passes, report, Instant::now(), &self.rules)
    }
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        let nothing = Report { sign: Sign::None, reached: false, streams: self.streams, latency: None, tokens: None };
        self.report(&nothing);
    }
}

impl fmt::Debug for Ongoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ongoing").field(&self.target.id).finish()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

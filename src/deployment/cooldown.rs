//! The health of one deployment, or of the server behind several: in use, cooling until a moment, or half-open, where
//! one request at a time tries whether it works again.
//!
//! Pure: `now` is an argument. Failures open it when they are many in a row or most of a minute; a throttle opens it at
//! once, for as long as AWS asked. A failed probe doubles the time; a good one closes it for a probation, in which the
//! first failure doubles it again. Streams and whole answers are counted apart, because one can fail where the other
//! works, and would be lost in its successes. What began before a cooldown says nothing new about it when it ends. The states are
//! those of a circuit breaker (M. Nygard, "Release It!"); the doubling is Envoy's outlier detection.

use std::time::{Duration, Instant};

/// `allowed_fails`, `cooldown_time`, `cooldown_time_max`, `disable_cooldowns` of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CooldownRules {
    /// Without cooldowns every deployment is always in use.
    pub enabled: bool,
    /// So many failures in a row, or in a minute, are still no reason.
    pub allowed_fails: u32,
    /// The first cooldown after failures.
    pub base: Duration,
    /// No cooldown is longer, whatever AWS asks for.
    pub max: Duration,
}

/// The first cooldown after a throttle that named no time.
const THROTTLE_BASE: Duration = Duration::from_secs(1);

/// A probe that has not ended by then keeps the others away no longer: whole answers take minutes.
const PROBE_TIME: Duration = Duration::from_secs(10);

/// Failures are compared with attempts over so many spans of so long.
const SPANS: usize = 6;
const SPAN: Duration = Duration::from_secs(10);

/// Whether and how a deployment may be used now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// In use, and its last attempt did not fail.
    Healthy,
    /// In use, though it failed since its last success.
    Suspect,
    /// One request may try it.
    Probe,
    /// To be left alone until then, unless there is nothing else.
    Cooling { until: Instant },
}

impl Availability {
    /// That of a deployment of which both this and the server behind it must work.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Cooling { until }, Self::Cooling { until: also }) => Self::Cooling { until: until.max(also) },
            (cooling @ Self::Cooling { .. }, _) | (_, cooling @ Self::Cooling { .. }) => cooling,
            (Self::Probe, _) | (_, Self::Probe) => Self::Probe,
            (Self::Suspect, _) | (_, Self::Suspect) => Self::Suspect,
            (Self::Healthy, Self::Healthy) => Self::Healthy,
        }
    }
}

/// Why a cooldown began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    Throttle,
    Failures,
}

impl Cause {
    /// The word for it in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Throttle => "throttle",
            Self::Failures => "failures",
        }
    }
}

/// What an attempt asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Whole,
    Stream,
}

/// What an attempt has in its hand from its beginning to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    /// How many cooldowns there had been.
    epoch: u32,
    probe: bool,
}

/// The health of one deployment or server.
#[derive(Debug, Clone, Default)]
pub struct Condition {
    /// How many cooldowns there have been.
    epoch: u32,
    /// `None` while it is in use.
    open: Option<Open>,
    whole: Tally,
    streams: Tally,
    /// Whether the last attempt that said anything failed.
    troubled: bool,
    /// How often the present run of cooldowns was prolonged, by cause.
    throttles_level: u32,
    failures_level: u32,
    probation_until: Option<Instant>,
}

/// What became of the attempts of one kind.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    failures_in_a_row: u32,
    recent: Recent,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    until: Instant,
    lasts: Duration,
    /// Until when the probe under way keeps others away.
    probe_until: Option<Instant>,
}

impl Condition {
    #[must_use]
    pub fn availability(&self, now: Instant) -> Availability {
        match &self.open {
            None if self.troubled => Availability::Suspect,
            None => Availability::Healthy,
            Some(open) if now < open.until => Availability::Cooling { until: open.until },
            Some(Open { probe_until: Some(until), .. }) if now < *until => Availability::Cooling { until: *until },
            Some(_) => Availability::Probe,
        }
    }

    /// Whether a cooldown is over and no success has been seen since.
    #[must_use]
    pub fn is_half_open(&self, now: Instant) -> bool {
        self.open.is_some_and(|open| now >= open.until)
    }

    /// An attempt begins. Whether it may is [`Self::availability`]'s to say.
    pub fn begin(&mut self, now: Instant) -> Pass {
        let probe = self.availability(now) == Availability::Probe;
        if let (true, Some(open)) = (probe, &mut self.open) {
            open.probe_until = Some(now + PROBE_TIME);
        }
        Pass { epoch: self.epoch, probe }
    }

    /// An attempt worked. True when this ended a cooldown.
    pub fn succeeded(&mut self, pass: Pass, kind: Kind, now: Instant) -> bool {
        if pass.epoch != self.epoch {
            return false;
        }
        let tally = self.tally(kind);
        tally.recent.count(now, false);
        tally.failures_in_a_row = 0;
        self.troubled = false;
        let Some(open) = self.open.take() else {
            return false;
        };
        self.probation_until = Some(now + open.lasts);
        (self.whole, self.streams) = (Tally::default(), Tally::default());
        true
    }

    /// An attempt failed. The cause, when this began a cooldown.
    pub fn failed(&mut self, pass: Pass, kind: Kind, now: Instant, rules: &CooldownRules) -> Option<Cause> {
        if pass.epoch != self.epoch {
            return None;
        }
        let many = self.tally(kind).failed(now, rules.allowed_fails);
        self.troubled = true;
        if self.open.is_some() && !pass.probe {
            return None;
        }
        let repeated = pass.probe || self.on_probation(now);
        if !rules.enabled || !(repeated || many) {
            return None;
        }
        self.failures_level = if repeated { self.failures_level.saturating_add(1) } else { 0 };
        let lasts = doubled(rules.base, self.failures_level, rules.max);
        self.open(now + lasts, lasts);
        Some(Cause::Failures)
    }

    /// An attempt was throttled. The cause, when this began a cooldown.
    pub fn throttled(
        &mut self,
        pass: Pass,
        now: Instant,
        retry_after: Option<Duration>,
        rules: &CooldownRules,
    ) -> Option<Cause> {
        let asked = retry_after.map(|time| time.min(rules.max));
        if !rules.enabled {
            self.troubled |= pass.epoch == self.epoch;
            return None;
        }
        if let Some(open) = self.open.as_mut().filter(|_| pass.epoch != self.epoch || !pass.probe) {
            // It cools already. What AWS asks for may only prolong that.
            if let Some(asked) = asked {
                open.until = open.until.max(now + asked);
            }
            return None;
        }
        if pass.epoch != self.epoch && asked.is_none() {
            return None;
        }
        self.troubled = true;
        let repeated = pass.probe || self.on_probation(now);
        self.throttles_level = if repeated { self.throttles_level.saturating_add(1) } else { 0 };
        let lasts = asked.unwrap_or_else(|| doubled(THROTTLE_BASE, self.throttles_level, rules.max));
        self.open(now + lasts, lasts);
        Some(Cause::Throttle)
    }

    /// An attempt ended and says nothing; another may probe.
    pub fn ended(&mut self, pass: Pass) {
        if let Some(open) = self.open.as_mut().filter(|_| pass.probe && pass.epoch == self.epoch) {
            open.probe_until = None;
        }
    }

    fn tally(&mut self, kind: Kind) -> &mut Tally {
        match kind {
            Kind::Whole => &mut self.whole,
            Kind::Stream => &mut self.streams,
        }
    }

    fn on_probation(&self, now: Instant) -> bool {
        self.probation_until.is_some_and(|until| now < until)
    }

    fn open(&mut self, until: Instant, lasts: Duration) {
        self.epoch = self.epoch.wrapping_add(1);
        // One that cools already never comes back earlier.
        let until = self.open.map_or(until, |open| open.until.max(until));
        self.open = Some(Open { until, lasts, probe_until: None });
        self.probation_until = None;
    }
}

impl Tally {
    /// Counts a failure. Whether there are too many.
    fn failed(&mut self, now: Instant, allowed: u32) -> bool {
        self.recent.count(now, true);
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        let (attempts, failures) = self.recent.sums(now);
        self.failures_in_a_row > allowed || (failures > allowed && failures.saturating_mul(2) >= attempts)
    }
}

/// `base` doubled `times` times, at most `max`.
fn doubled(base: Duration, times: u32, max: Duration) -> Duration {
    base.saturating_mul(2_u32.saturating_pow(times)).min(max)
}

/// Attempts and failures of the last minute.
#[derive(Debug, Clone, Copy, Default)]
struct Recent {
    origin: Option<Instant>,
    /// Spans since the origin.
    at: u64,
    spans: [(u32, u32); SPANS],
}

impl Recent {
    fn count(&mut self, now: Instant, failed: bool) {
        self.advance(now);
        let at = usize::try_from(self.at % SPANS as u64).unwrap_or_default();
        if let Some((attempts, failures)) = self.spans.get_mut(at) {
            *attempts = attempts.saturating_add(1);
            *failures = failures.saturating_add(u32::from(failed));
        }
    }

    fn sums(&mut self, now: Instant) -> (u32, u32) {
        self.advance(now);
        self.spans.iter().fold((0, 0), |(attempts, failures), span| {
            (u32::saturating_add(attempts, span.0), u32::saturating_add(failures, span.1))
        })
    }

    /// Forgets the spans that have gone by.
    fn advance(&mut self, now: Instant) {
        let origin = *self.origin.get_or_insert(now);
        let at = now.saturating_duration_since(origin).as_secs() / SPAN.as_secs();
        let passed = at.saturating_sub(self.at);
        for step in 1..=passed.min(SPANS as u64) {
            let gone = usize::try_from((self.at + step) % SPANS as u64).unwrap_or_default();
            if let Some(span) = self.spans.get_mut(gone) {
                *span = (0, 0);
            }
        }
        self.at = self.at.max(at);
    }
}

#[cfg(test)]
mod tests;

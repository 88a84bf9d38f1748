//! Everything that changes about one deployment: its health, its limits, its latency. And what an attempt leaves behind
//! in it, and in the health of the server behind it.
//!
//! Pure: `now` is an argument, locks are its owner's (`live.rs`).

use std::time::{Duration, Instant};

use super::affinity;
use super::cooldown::{Availability, Cause, Condition, CooldownRules, Kind, Pass};
use super::latency::PeakEwma;
use super::limiter::{Limiter, Quota, Used};
use super::outcome::Sign;
use super::select::View;

/// What the configuration says of a deployment that selection wants to know.
#[derive(Debug, Clone, Copy)]
pub struct Traits {
    pub weight: u32,
    pub max_retries: u32,
    pub quota: Quota,
    /// As [`View::rate`].
    pub rate: Option<u64>,
    /// As [`View::id_hash`].
    pub id_hash: u64,
}

impl Traits {
    /// Those of a deployment with this id, without limits.
    #[must_use]
    pub fn new(id: &str, weight: u32) -> Self {
        Self { weight, max_retries: 0, quota: Quota::default(), rate: None, id_hash: affinity::id_hash(id) }
    }
}

/// The changing half of a deployment.
#[derive(Debug, Clone, Default)]
pub struct Vitals {
    condition: Condition,
    limiter: Limiter,
    streams: PeakEwma,
    whole: PeakEwma,
}

/// What an attempt leaves behind.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    pub sign: Sign,
    /// Whether there was a connection.
    pub reached: bool,
    /// Whether a stream was asked for.
    pub streams: bool,
    /// To the first byte of a stream, to the end of a whole answer; of one that failed, how long it was waited for.
    pub latency: Option<Duration>,
    /// `None` where the usage is not known.
    pub tokens: Option<u64>,
}

/// What an attempt changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Cooled(Cause),
    Recovered,
}

/// What an attempt changed about its deployment, and about the server behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changes {
    pub own: Option<Change>,
    pub host: Option<Change>,
}

/// What an attempt holds from its beginning to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passes {
    own: Pass,
    host: Pass,
}

/// What `/health` shows.
#[derive(Debug, Clone, Copy)]
pub struct Shown {
    pub state: State,
    pub in_flight: u32,
    pub used: Used,
    /// Microseconds, of streams and of whole answers.
    pub streams_us: Option<f64>,
    pub whole_us: Option<f64>,
}

/// Health in one of three words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Healthy,
    HalfOpen,
    Cooling { left: Duration },
}

impl State {
    #[must_use]
    pub fn of(condition: &Condition, now: Instant) -> Self {
        match condition.availability(now) {
            Availability::Healthy | Availability::Suspect => Self::Healthy,
            _ if condition.is_half_open(now) => Self::HalfOpen,
            Availability::Cooling { until } => Self::Cooling { left: until.saturating_duration_since(now) },
            Availability::Probe => Self::HalfOpen,
        }
    }

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::HalfOpen => "half_open",
            Self::Cooling { .. } => "cooling",
        }
    }

    /// The value of the metric.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Healthy => 0,
            Self::HalfOpen => 1,
            Self::Cooling { .. } => 2,
        }
    }
}

impl Vitals {
    /// What selection may know now. `host` is the health of the server behind it.
    #[must_use]
    pub fn view(&self, traits: &Traits, host: Availability, tried: bool, streams: bool, now: Instant) -> View {
        let latency = if streams { &self.streams } else { &self.whole };
        View {
            tried,
            max_retries: traits.max_retries,
            weight: traits.weight,
            availability: self.condition.availability(now).and(host),
            full_for: self.limiter.full_for(now, &traits.quota),
            in_flight: self.limiter.in_flight(),
            load: self.limiter.load(now),
            latency_us: latency.get(now),
            used_share: self.limiter.used_share(now, &traits.quota),
            used_requests: self.limiter.used(now).requests,
            rate: traits.rate,
            id_hash: traits.id_hash,
        }
    }

    /// An attempt begins that found the deployment as `expected`. `None` when another was faster, and took the last
    /// place or the probe. `host` is the health of the server behind it.
    pub fn begin(
        &mut self,
        host: &mut Condition,
        traits: &Traits,
        expected: Availability,
        now: Instant,
    ) -> Option<Passes> {
        let cooling = |condition: &Condition| matches!(condition.availability(now), Availability::Cooling { .. });
        let worse = cooling(&self.condition) || cooling(host);
        let expects_cooling = matches!(expected, Availability::Cooling { .. });
        if self.limiter.full_for(now, &traits.quota).is_some() || (worse && !expects_cooling) {
            return None;
        }
        self.limiter.begin(now);
        Some(Passes { own: self.condition.begin(now), host: host.begin(now) })
    }

    /// An attempt ends. Each that began ends once.
    pub fn end(
        &mut self,
        host: &mut Condition,
        passes: Passes,
        report: &Report,
        now: Instant,
        rules: &CooldownRules,
    ) -> Changes {
        self.limiter.end(now, report.tokens);
        if let Some(latency) = report.latency {
            let latencies = if report.streams { &mut self.streams } else { &mut self.whole };
            latencies.observe(now, latency);
        }
        let kind = if report.streams { Kind::Stream } else { Kind::Whole };
        let own = match report.sign {
            Sign::Good => self.condition.succeeded(passes.own, kind, now).then_some(Change::Recovered),
            Sign::Failure => self.condition.failed(passes.own, kind, now, rules).map(Change::Cooled),
            Sign::Throttle { retry_after } => {
                self.condition.throttled(passes.own, now, retry_after, rules).map(Change::Cooled)
            }
            Sign::None | Sign::Host => {
                self.condition.ended(passes.own);
                None
            }
        };
        // Whoever answers, be it with an error, can be reached, whatever was asked for.
        let kind = Kind::Whole;
        let host = match report.sign {
            Sign::Host => host.failed(passes.host, kind, now, rules).map(Change::Cooled),
            _ if report.reached => host.succeeded(passes.host, kind, now).then_some(Change::Recovered),
            _ => {
                host.ended(passes.host);
                None
            }
        };
        Changes { own, host }
    }

    #[must_use]
    pub fn show(&self, now: Instant) -> Shown {
        Shown {
            state: State::of(&self.condition, now),
            in_flight: self.limiter.in_flight(),
            used: self.limiter.used(now),
            streams_us: self.streams.get(now),
            whole_us: self.whole.get(now),
        }
    }
}

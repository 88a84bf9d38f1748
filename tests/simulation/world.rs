//! What there is in one run: model names with their deployments, the servers behind them, and the weather they have.

use std::time::{Duration, Instant};

use dheera_ai::deployment::cooldown::{Condition, CooldownRules};
use dheera_ai::deployment::host::ConnectFailure;
use dheera_ai::deployment::limiter::Quota;
use dheera_ai::deployment::outcome::{Exception, Late, Outcome, Phase};
use dheera_ai::deployment::retry::RetryBudget;
use dheera_ai::deployment::select::{Strategy, View};
use dheera_ai::deployment::vitals::{Traits, Vitals};
use fastrand::Rng;

/// How a deployment behaves at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    Fine,
    /// Anything may happen, now and then.
    Mixed,
    Throttling,
    Failing,
    /// Answers begin and then break.
    Breaking,
    /// The server cannot be reached.
    Down,
}

impl Weather {
    pub fn any(rng: &mut Rng) -> Self {
        match rng.u8(..10) {
            0..=3 => Self::Fine,
            4..=5 => Self::Mixed,
            6 => Self::Throttling,
            7 => Self::Failing,
            8 => Self::Breaking,
            _ => Self::Down,
        }
    }
}

pub struct Deployment {
    pub traits: Traits,
    pub vitals: Vitals,
    pub host: usize,
    pub weather: Weather,
    /// Counted here, to be compared with what the vitals count.
    pub in_flight: u32,
    /// When a probe began that has not ended.
    pub probing: Option<(u64, Instant)>,
}

pub struct Group {
    pub deployments: Vec<Deployment>,
    pub budget: RetryBudget,
}

pub struct World {
    pub groups: Vec<Group>,
    pub hosts: Vec<Condition>,
    pub strategy: Strategy,
    pub num_retries: u32,
    pub percent: u32,
    pub rules: CooldownRules,
    /// Whether requests have keys.
    pub keys: bool,
}

impl World {
    pub fn new(rng: &mut Rng) -> Self {
        let hosts = rng.usize(1..=4);
        let repeats = rng.u8(..4) == 0;
        let limits = rng.u8(..3) == 0;
        let groups = (0..rng.usize(1..=3))
            .map(|number| Group {
                deployments: (0..rng.usize(1..=6))
                    .map(|other| deployment(rng, &format!("g{number}-{other}"), hosts, repeats, limits))
                    .collect(),
                budget: RetryBudget::default(),
            })
            .collect();
        let strategies = [
            Strategy::SimpleShuffle,
            Strategy::LeastBusy,
            Strategy::LatencyBased,
            Strategy::UsageBased,
            Strategy::CostBased,
        ];
        Self {
            groups,
            hosts: vec![Condition::default(); hosts],
            strategy: strategies[rng.usize(..strategies.len())],
            num_retries: rng.u32(0..=4),
            percent: rng.u32(0..=40),
            rules: CooldownRules {
                enabled: rng.u8(..10) > 0,
                allowed_fails: rng.u32(0..=4),
                base: Duration::from_millis(rng.u64(500..=8_000)),
                max: Duration::from_secs(rng.u64(8..=60)),
            },
            keys: rng.bool(),
        }
    }

    /// What selection may know of a model name's deployments, for a request that tried some of them.
    pub fn views(&self, group: usize, tried: impl Fn(usize) -> bool, streams: bool, now: Instant) -> Vec<View> {
        let view = |(index, deployment): (usize, &Deployment)| {
            let host = self.hosts[deployment.host].availability(now);
            deployment.vitals.view(&deployment.traits, host, tried(index), streams, now)
        };
        self.groups[group].deployments.iter().enumerate().map(view).collect()
    }
}

fn deployment(rng: &mut Rng, id: &str, hosts: usize, repeats: bool, limits: bool) -> Deployment {
    let mut some = |chance: u8| limits && rng.u8(..10) < chance;
    let (by_requests, by_tokens, at_a_time) = (some(4), some(4), some(4));
    let quota = Quota {
        rpm: by_requests.then(|| rng.u64(1..60)),
        tpm: by_tokens.then(|| rng.u64(100..60_000)),
        parallel: at_a_time.then(|| rng.u32(1..8)),
    };
    let traits = Traits {
        max_retries: if repeats { rng.u32(0..=2) } else { 0 },
        quota,
        rate: rng.bool().then(|| rng.u64(1..4)),
        ..Traits::new(id, rng.u32(1..=5))
    };
    let host = rng.usize(..hosts);
    Deployment { traits, vitals: Vitals::default(), host, weather: Weather::Fine, in_flight: 0, probing: None }
}

/// What becomes of an attempt, how far it comes, and how long it takes.
pub fn fate(weather: Weather, rng: &mut Rng) -> (Outcome, Phase, Duration) {
    let ms = |rng: &mut Rng, from: u64, to: u64| Duration::from_millis(rng.u64(from..to));
    match weather {
        Weather::Fine => (Outcome::Served, Phase::Content, ms(rng, 20, 3_000)),
        Weather::Mixed => match rng.u8(..10) {
            0 => (Outcome::Refused, Phase::Headed, ms(rng, 5, 50)),
            1 => (Outcome::ContextWindow, Phase::Headed, ms(rng, 5, 50)),
            2 => (Outcome::ModelError, Phase::Headed, ms(rng, 5, 500)),
            3 => (Outcome::ClientGone, Phase::Content, ms(rng, 5, 2_000)),
            4 => (Outcome::ClientGone, Phase::Sent, ms(rng, 5, 2_000)),
            5 => (Outcome::NotSent, Phase::Sent, ms(rng, 0, 2)),
            6 => (Outcome::TimedOut(Late::Total), Phase::Headed, ms(rng, 5_000, 9_000)),
            _ => (Outcome::Served, Phase::Content, ms(rng, 20, 9_000)),
        },
        Weather::Throttling => {
            let retry_after = rng.bool().then(|| Duration::from_secs(rng.u64(0..90)));
            match rng.u8(..4) {
                0 => (Outcome::Exception(Exception::Throttling), Phase::Headed, ms(rng, 5, 200)),
                1 => (Outcome::Served, Phase::Content, ms(rng, 20, 3_000)),
                _ => (Outcome::Throttled { retry_after }, Phase::Headed, ms(rng, 1, 50)),
            }
        }
        Weather::Failing => match rng.u8(..6) {
            0 => (Outcome::TimedOut(Late::FirstByte), Phase::Sent, ms(rng, 5_000, 20_000)),
            1 => (Outcome::ModelTimeout, Phase::Headed, ms(rng, 1_000, 9_000)),
            2 => (Outcome::Credentials, Phase::Connecting, Duration::ZERO),
            3 => (Outcome::Broke, Phase::Sent, ms(rng, 1, 900)),
            _ => (Outcome::ServerError, Phase::Headed, ms(rng, 1, 900)),
        },
        Weather::Breaking => match rng.u8(..4) {
            0 => (Outcome::Exception(Exception::Failure), Phase::Content, ms(rng, 50, 2_000)),
            1 => (Outcome::Broke, Phase::Content, ms(rng, 50, 2_000)),
            2 => (Outcome::Exception(Exception::ModelTimeout), Phase::Headed, ms(rng, 50, 2_000)),
            _ => (Outcome::TimedOut(Late::Idle), Phase::Headed, ms(rng, 2_000, 9_000)),
        },
        Weather::Down => {
            let kinds = [ConnectFailure::Refused, ConnectFailure::TimedOut, ConnectFailure::Tls, ConnectFailure::Name];
            let kind = kinds[rng.usize(..kinds.len())];
            (Outcome::NotConnected(kind), Phase::Connecting, ms(rng, 0, 1_000))
        }
    }
}

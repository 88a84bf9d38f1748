//! Which deployment serves the next attempt: by strategy, by cache affinity, by health and by limits.
//!
//! Pure: it is told what may be known of each deployment, the time and a random number. The first attempt of a request
//! goes to any deployment in use, also to a half-open one that wants a probe: else none would ever come back while others
//! work. Further attempts go to healthy ones first. A cooling one is used when nothing else is left, the one that comes
//! back first: a request is never refused because of a cooldown. One at its own limits is passed over in any case.

use std::time::{Duration, Instant};

use super::affinity;
use super::cooldown::Availability;

/// `routing_strategy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// At random, by weight.
    #[default]
    SimpleShuffle,
    /// The fewest requests under way for its weight.
    LeastBusy,
    /// The shortest wait: its latency times the requests under way.
    LatencyBased,
    /// The smallest share of its `rpm` and `tpm` used in this minute.
    UsageBased,
    /// The lowest price.
    CostBased,
}

/// What is known of one deployment.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// Whether the request was there already.
    pub tried: bool,
    /// How often a request may come again when no other deployment is left.
    pub max_retries: u32,
    pub weight: u32,
    pub availability: Availability,
    /// `None` where it has room, else how long it has none.
    pub full_for: Option<Duration>,
    pub in_flight: u32,
    /// Requests under way and those begun lately.
    pub load: f64,
    /// Moving average in microseconds; `None` before the first answer.
    pub latency_us: Option<f64>,
    /// Millionths of its minute's requests or tokens that are used; zero without limits.
    pub used_share: u64,
    /// Requests begun in this minute.
    pub used_requests: u64,
    /// Price of its tokens, in nano-dollars per million of input and of output together; `None` where it has none.
    pub rate: Option<u64>,
    /// Stable over processes: a hash of the deployment's id.
    pub id_hash: u64,
}

/// What an attempt asks for.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    pub strategy: Strategy,
    /// Requests with the same key belong to the same deployment.
    pub affinity: Option<u64>,
    /// Whether this is the request's first attempt.
    pub first: bool,
}

/// The deployment of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    pub index: usize,
    pub availability: Availability,
    /// `None` for a request without a key.
    pub affinity: Option<Home>,
}

/// Whether a request got where its key belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// It did.
    Hit,
    /// Its home has more than its share to do.
    Busy,
    /// Its home cools, is at its limits, or has failed this request.
    Away,
}

impl Home {
    /// The word for it in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Busy => "busy",
            Self::Away => "away",
        }
    }
}

/// Why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nothing {
    /// All were tried.
    Tried,
    /// Those that are left are at their limits; one has room again after this time.
    Full { free_in: Duration },
}

/// Picks the deployment for an attempt. `random` is uniform over all of `u64`.
///
/// # Errors
/// When every deployment was tried or is at its limits.
pub fn select(asked: &Asked, views: &[View], random: u64) -> Result<Choice, Nothing> {
    let best = views.iter().filter(|view| may_serve(view)).map(|view| rank(view, asked.first)).min();
    let Some(best) = best else {
        let waits = views.iter().filter(|view| !view.tried).filter_map(|view| view.full_for);
        return Err(waits.min().map_or(Nothing::Tried, |free_in| Nothing::Full { free_in }));
    };
    let usable = |view: &View| may_serve(view) && rank(view, asked.first) == best;
    let by_key = asked.affinity.filter(|_| best != COOLING);
    let index = match by_key {
        Some(key) => affinity::pick(key, views, usable),
        None if best == COOLING => first_back(views, usable),
        None => by_strategy(asked.strategy, views, usable, random),
    };
    let chosen = index.and_then(|index| Some((index, views.get(index)?)));
    let (index, view) = chosen.ok_or(Nothing::Tried)?;
    let home = asked.affinity.map(|key| match affinity::home(key, views) {
        Some(home) if home == index => Home::Hit,
        Some(home) if views.get(home).is_some_and(usable) => Home::Busy,
        _ => Home::Away,
    });
    Ok(Choice { index, availability: view.availability, affinity: home })
}

/// Whether a deployment that was drawn by weight from all may have the first attempt of a request without a key. Drawing
/// once, and selecting only where this one may not, gives each that may the chance that selecting gives it.
#[must_use]
pub fn may_begin(view: &View) -> bool {
    may_serve(view) && rank(view, true) != COOLING
}

fn may_serve(view: &View) -> bool {
    !view.tried && view.full_for.is_none()
}

const COOLING: u8 = 3;

/// Lower is better.
fn rank(view: &View, first: bool) -> u8 {
    match view.availability {
        Availability::Cooling { .. } => COOLING,
        _ if first => 0,
        Availability::Healthy => 0,
        Availability::Suspect => 1,
        Availability::Probe => 2,
    }
}

/// The cooling one that comes back first.
fn first_back(views: &[View], usable: impl Fn(&View) -> bool) -> Option<usize> {
    let cooling = views.iter().enumerate().filter(|(_, view)| usable(view));
    let until = |view: &View| match view.availability {
        Availability::Cooling { until } => Some(until),
        _ => None::<Instant>,
    };
    cooling.min_by_key(|(_, view)| until(view)).map(|(index, _)| index)
}

fn by_strategy(strategy: Strategy, views: &[View], usable: impl Fn(&View) -> bool, random: u64) -> Option<usize> {
    let score = |view: &View| -> Score {
        let weight = f64::from(view.weight.max(1));
        match strategy {
            Strategy::SimpleShuffle => Score::default(),
            Strategy::LeastBusy => Score(0, f64::from(view.in_flight) / weight),
            Strategy::LatencyBased => Score(0, wait_us(view) / weight),
            #[expect(clippy::cast_precision_loss, reason = "fewer than 2⁵² requests a minute")]
            Strategy::UsageBased => Score(view.used_share, view.used_requests as f64 / weight),
            Strategy::CostBased => Score(view.rate.unwrap_or(u64::MAX), 0.0),
        }
    };
    let best = views.iter().filter(|view| usable(view)).map(score).min_by(Score::compare)?;
    // Equals are drawn by weight.
    let equal = |view: &View| usable(view) && score(view).compare(&best).is_eq();
    weighted(views.iter().map(|view| if equal(view) { view.weight.max(1) } else { 0 }), random)
}

/// Lower is better: the first decides, then the second.
#[derive(Debug, Clone, Copy, Default)]
struct Score(u64, f64);

impl Score {
    fn compare(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0).then(self.1.total_cmp(&other.1))
    }
}

/// How long a request would wait: the latency for it and for each that is under way. One of which nothing is known gets
/// one request, and then waits for its first answer as long as others have any (Finagle does the same).
fn wait_us(view: &View) -> f64 {
    const UNKNOWN_US: f64 = 1e12;
    let pending = f64::from(view.in_flight);
    match view.latency_us {
        Some(latency_us) => latency_us.max(1.0) * (pending + 1.0),
        None if view.in_flight == 0 => 0.0,
        None => UNKNOWN_US + pending,
    }
}

/// The sums of the weights up to each deployment, its own included.
#[must_use]
pub fn sums(weights: impl Iterator<Item = u32>) -> Vec<u64> {
    let add = |sum: &mut u64, weight: u32| {
        *sum += u64::from(weight.max(1));
        Some(*sum)
    };
    weights.scan(0, add).collect()
}

/// Picks an index as [`weighted`] does, of weights whose [`sums`] are known, without looking at all of them.
#[must_use]
pub fn draw(sums: &[u64], random: u64) -> Option<usize> {
    let total = *sums.last()?;
    let point = scaled(random, total);
    Some(sums.partition_point(|sum| *sum <= point))
}

/// The high half of a 64×64 bit product maps `random` onto 0..total without a division and without bias that weights of
/// 32 bits could show.
fn scaled(random: u64, total: u64) -> u64 {
    u64::try_from((u128::from(random) * u128::from(total)) >> 64).unwrap_or(0)
}

/// Picks an index with a probability proportional to its weight; zero is never picked. `None` when all are zero.
#[must_use]
pub fn weighted(weights: impl Iterator<Item = u32> + Clone, random: u64) -> Option<usize> {
    let total: u64 = weights.clone().map(u64::from).sum();
    if total == 0 {
        return None;
    }
    let mut point = scaled(random, total);
    for (index, weight) in weights.enumerate() {
        match point.checked_sub(u64::from(weight)) {
            Some(rest) => point = rest,
            None => return Some(index),
        }
    }
    None
}

#[cfg(test)]
mod tests;

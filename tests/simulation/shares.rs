//! How the load is shared while everything works: by weight, and by conversation.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use dheera_ai::deployment::affinity::{header_key, home};
use dheera_ai::deployment::attempts::{Attempts, Circumstances, Step};
use dheera_ai::deployment::cooldown::{Condition, CooldownRules};
use dheera_ai::deployment::outcome::Sign;
use dheera_ai::deployment::retry::RetryBudget;
use dheera_ai::deployment::select::{Choice, Strategy, View};
use dheera_ai::deployment::vitals::{Passes, Report, Traits, Vitals};
use fastrand::Rng;

const RULES: CooldownRules =
    CooldownRules { enabled: true, allowed_fails: 3, base: Duration::from_secs(5), max: Duration::from_mins(1) };

/// Deployments that all work, and requests that last a while.
struct Works {
    deployments: Vec<(Traits, Vitals)>,
    host: Condition,
    budget: RetryBudget,
    rng: Rng,
    now: Instant,
    /// What is under way, by when it ends.
    open: BTreeMap<(Instant, u64), (usize, Passes)>,
    begun: u64,
}

impl Works {
    fn new(seed: u64, weights: &[u32]) -> Self {
        let deployment = |(number, weight): (usize, &u32)| {
            (Traits::new(&format!("claude-{seed}-{number}"), *weight), Vitals::default())
        };
        Self {
            deployments: weights.iter().enumerate().map(deployment).collect(),
            host: Condition::default(),
            budget: RetryBudget::default(),
            rng: Rng::with_seed(seed),
            now: Instant::now(),
            open: BTreeMap::new(),
            begun: 0,
        }
    }

    fn views(&self) -> Vec<View> {
        let host = self.host.availability(self.now);
        self.deployments.iter().map(|(traits, vitals)| vitals.view(traits, host, false, true, self.now)).collect()
    }

    /// A request, after those that have ended by now.
    fn request(&mut self, strategy: Strategy, affinity: Option<u64>, lasts: Duration) -> Choice {
        while let Some(first) = self.open.first_entry()
            && first.key().0 <= self.now
        {
            let (index, passes) = first.remove();
            let report = Report {
                sign: Sign::Good,
                reached: true,
                streams: true,
                latency: Some(Duration::from_millis(300)),
                tokens: Some(900),
            };
            self.deployments[index].1.end(&mut self.host, passes, &report, self.now, &RULES);
        }
        let circumstances =
            Circumstances { strategy, affinity, retry_budget_percent: 20, now: self.now, random: self.rng.u64(..) };
        let step = Attempts::new(2).next(&self.views(), &mut self.budget, &circumstances);
        let Step::Try { choice, .. } = step else { panic!("{step:?} while all work") };
        let (traits, vitals) = &mut self.deployments[choice.index];
        let passes = vitals.begin(&mut self.host, traits, choice.availability, self.now).unwrap();
        self.begun += 1;
        self.open.insert((self.now + lasts, self.begun), (choice.index, passes));
        choice
    }

    fn weights(&self) -> f64 {
        self.deployments.iter().map(|(traits, _)| f64::from(traits.weight)).sum()
    }
}

#[test]
fn while_all_work_the_load_is_within_two_percent_of_the_weights() {
    const REQUESTS: u32 = 10_000;
    for seed in 0..12 {
        let mut rng = Rng::with_seed(seed);
        let weights: Vec<u32> = (0..rng.usize(2..=6)).map(|_| rng.u32(1..=8)).collect();
        let mut works = Works::new(seed, &weights);
        let mut counts = vec![0_u32; weights.len()];
        for _ in 0..REQUESTS {
            works.now += Duration::from_millis(5);
            counts[works.request(Strategy::SimpleShuffle, None, Duration::from_millis(100)).index] += 1;
        }
        for (count, weight) in counts.iter().zip(&weights) {
            let share = f64::from(*count) / f64::from(REQUESTS);
            let due = f64::from(*weight) / works.weights();
            assert!((share - due).abs() <= 0.02, "seed {seed}: {counts:?} for {weights:?}");
        }
    }
}

#[test]
fn conversations_stay_where_they_are_and_nobody_gets_a_quarter_more_than_its_share() {
    const REQUESTS: u32 = 8_000;
    for seed in 0..12 {
        let mut rng = Rng::with_seed(seed);
        let weights: Vec<u32> = (0..rng.usize(2..=5)).map(|_| rng.u32(1..=3)).collect();
        let mut works = Works::new(seed, &weights);
        let keys: Vec<u64> = (0..800_u32).map(|_| header_key(&rng.u64(..).to_le_bytes())).collect();
        let mut last = HashMap::new();
        let (mut counts, mut turns, mut stayed) = (vec![0_u32; weights.len()], 0_u32, 0_u32);
        for _ in 0..REQUESTS {
            works.now += Duration::from_millis(5);
            let key = keys[rng.usize(..keys.len())];
            let lasts = Duration::from_millis(rng.u64(200..4_000));
            let index = works.request(Strategy::SimpleShuffle, Some(key), lasts).index;
            counts[index] += 1;
            if let Some(before) = last.insert(key, index) {
                turns += 1;
                stayed += u32::from(before == index);
            }
        }
        assert!(stayed * 100 >= turns * 95, "seed {seed}: {stayed} of {turns} turns stayed");
        for (count, weight) in counts.iter().zip(&weights) {
            let due = f64::from(REQUESTS) * f64::from(*weight) / works.weights();
            assert!(f64::from(*count) < due * 1.25, "seed {seed}: {counts:?} for {weights:?}");
        }
    }
}

/// One conversation that asks for everything cannot drown its deployment.
#[test]
fn a_conversation_that_is_too_much_for_one_deployment_is_shared() {
    let mut works = Works::new(7, &[1, 1, 1]);
    let key = header_key(b"the only one");
    let own = home(key, &works.views()).unwrap();
    let mut counts = [0_u32; 3];
    for _ in 0..5_000 {
        works.now += Duration::from_millis(5);
        counts[works.request(Strategy::LeastBusy, Some(key), Duration::from_secs(2)).index] += 1;
    }
    let due = 5_000 / 3;
    assert!(counts.iter().all(|count| *count * 100 < due * 126), "{counts:?}");
    assert!(counts[own] == counts.iter().copied().max().unwrap(), "{counts:?}");
}

/// While there is little to do, one conversation has one cache.
#[test]
fn a_quiet_conversation_is_never_moved() {
    let mut works = Works::new(9, &[1, 1, 1]);
    let key = header_key(b"a quiet one");
    let own = home(key, &works.views()).unwrap();
    for _ in 0..500 {
        works.now += Duration::from_secs(1);
        assert_eq!(works.request(Strategy::SimpleShuffle, Some(key), Duration::from_secs(8)).index, own);
    }
}

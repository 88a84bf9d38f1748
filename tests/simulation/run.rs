//! One run: requests arrive, attempts begin and end, the weather changes, and after every event the rules are checked.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::{Duration, Instant};

use dheera_ai::deployment::attempts::{Attempts, Circumstances, Step, Why};
use dheera_ai::deployment::cooldown::Availability;
use dheera_ai::deployment::limiter::Quota;
use dheera_ai::deployment::outcome::{Next, Outcome, Phase, Sign, judge};
use dheera_ai::deployment::select::{Choice, Strategy, View};
use dheera_ai::deployment::vitals::{Change, Changes, Passes, Report, State};
use fastrand::Rng;

use super::world::{Deployment, Weather, World, fate};

/// Requests of the stormy part of a run.
const REQUESTS: u64 = 60;
/// A probe that is older may have company (`cooldown.rs`).
const PROBE_TIME: Duration = Duration::from_secs(10);

/// What came to pass.
#[derive(Debug, Clone, Copy, Default)]
pub struct Done {
    requests: u64,
    attempts: u64,
    retries: u64,
    repeats: u64,
    probes: u64,
    last_resorts: u64,
    cooldowns: u64,
    recoveries: u64,
    errors_delivered: u64,
    refused_as_full: u64,
    budget_spent: u64,
    other_models: u64,
}

impl Done {
    pub fn counts(&self) -> [(&'static str, u64); 12] {
        [
            ("a request", self.requests),
            ("an attempt", self.attempts),
            ("a retry", self.retries),
            ("a repetition at the same deployment", self.repeats),
            ("a probe", self.probes),
            ("an attempt at a cooling deployment", self.last_resorts),
            ("a cooldown", self.cooldowns),
            ("a recovery", self.recoveries),
            ("an error for the client", self.errors_delivered),
            ("a refusal because of limits", self.refused_as_full),
            ("a spent retry budget", self.budget_spent),
            ("another model name", self.other_models),
        ]
    }

    pub fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            attempts: self.attempts + other.attempts,
            retries: self.retries + other.retries,
            repeats: self.repeats + other.repeats,
            probes: self.probes + other.probes,
            last_resorts: self.last_resorts + other.last_resorts,
            cooldowns: self.cooldowns + other.cooldowns,
            recoveries: self.recoveries + other.recoveries,
            errors_delivered: self.errors_delivered + other.errors_delivered,
            refused_as_full: self.refused_as_full + other.refused_as_full,
            budget_spent: self.budget_spent + other.budget_spent,
            other_models: self.other_models + other.other_models,
        }
    }
}

struct Request {
    group: usize,
    attempts: Attempts,
    key: Option<u64>,
    streams: bool,
    /// Attempts at each deployment of the present group, counted here.
    visits: HashMap<usize, u32>,
    made: u32,
    /// The client has got some of an answer.
    content: bool,
    now_at: Option<(usize, Passes, Outcome, Phase)>,
}

enum Event {
    Arrives,
    /// The pause before an attempt is over.
    Resumes(u64, Choice),
    Ends(u64),
    Changes,
}

pub struct Run {
    world: World,
    rng: Rng,
    start: Instant,
    now: Instant,
    events: BinaryHeap<Reverse<(Instant, u64)>>,
    pending: HashMap<u64, Event>,
    next_event: u64,
    requests: HashMap<u64, Request>,
    stormy: bool,
    verbose: bool,
    done: Done,
}

/// A rule that does not hold.
type Checked = Result<(), String>;

fn ensure(holds: bool, rule: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(rule()) }
}

/// # Errors
/// The rule that did not hold.
pub fn run(seed: u64, verbose: bool) -> Result<Done, String> {
    let mut rng = Rng::with_seed(seed);
    let world = World::new(&mut rng);
    let start = Instant::now();
    let mut run = Run {
        world,
        rng,
        start,
        now: start,
        events: BinaryHeap::new(),
        pending: HashMap::new(),
        next_event: 0,
        requests: HashMap::new(),
        stormy: true,
        verbose,
        done: Done::default(),
    };
    run.storm()?;
    run.calm()?;
    Ok(run.done)
}

impl Run {
    fn say(&self, text: impl FnOnce() -> String) {
        if self.verbose {
            println!("{:9.3} {}", self.now.duration_since(self.start).as_secs_f64(), text());
        }
    }

    fn at(&mut self, when: Instant, event: Event) {
        self.next_event += 1;
        self.pending.insert(self.next_event, event);
        self.events.push(Reverse((when, self.next_event)));
    }

    fn storm(&mut self) -> Checked {
        // From a few a second to bursts that a retry budget feels.
        let pace_ms = [1, 20, 200, 1_500][self.rng.usize(..4)];
        let mut when = self.now;
        for _ in 0..REQUESTS {
            when += Duration::from_millis(self.rng.u64(0..=pace_ms * 2));
            self.at(when, Event::Arrives);
        }
        let length_ms = u64::try_from(when.duration_since(self.start).as_millis()).unwrap_or_default();
        for _ in 0..self.rng.u64(4..16) {
            let at = self.start + Duration::from_millis(self.rng.u64(0..=length_ms));
            self.at(at, Event::Changes);
        }
        self.until_nothing_is_left()
    }

    /// Good weather for longer than any cooldown: what gets requests has to come back.
    fn calm(&mut self) -> Checked {
        self.stormy = false;
        for deployment in self.world.groups.iter_mut().flat_map(|group| &mut group.deployments) {
            deployment.weather = Weather::Fine;
            deployment.traits.quota = Quota::default();
            deployment.traits.weight = 1;
        }
        self.world.keys = false;
        self.world.strategy = Strategy::SimpleShuffle;
        self.now += self.world.rules.max;
        let mut left = self.world.groups.iter().map(|group| group.deployments.len() * 40).sum::<usize>();
        while self.deployments().any(|deployment| deployment.vitals.show(self.now).state != State::Healthy) {
            left = left.checked_sub(1).ok_or("in good weather a deployment does not come back")?;
            let when = self.now + Duration::from_millis(self.rng.u64(500..4_000));
            self.at(when, Event::Arrives);
            self.until_nothing_is_left()?;
        }
        ensure(self.deployments().all(|deployment| deployment.in_flight == 0), || "an attempt never ended".to_owned())?;
        ensure(self.requests.is_empty(), || "a request was forgotten".to_owned())
    }

    fn deployments(&self) -> impl Iterator<Item = &Deployment> {
        self.world.groups.iter().flat_map(|group| &group.deployments)
    }

    fn until_nothing_is_left(&mut self) -> Checked {
        while let Some(Reverse((when, number))) = self.events.pop() {
            self.now = when;
            match self.pending.remove(&number).unwrap() {
                Event::Arrives => self.arrives(number)?,
                Event::Resumes(id, choice) => self.begins(id, choice)?,
                Event::Ends(id) => self.ends(id)?,
                Event::Changes => self.changes(),
            }
            self.check_limits()?;
        }
        Ok(())
    }

    fn changes(&mut self) {
        if self.rng.u8(..4) == 0 {
            // A server goes down, or comes back, with everything behind it.
            let host = self.rng.usize(..self.world.hosts.len());
            let weather = if self.rng.bool() { Weather::Down } else { Weather::Fine };
            for deployment in self.world.groups.iter_mut().flat_map(|group| &mut group.deployments) {
                if deployment.host == host {
                    deployment.weather = weather;
                }
            }
            self.say(|| format!("server {host}: {weather:?}"));
            return;
        }
        let group = self.rng.usize(..self.world.groups.len());
        let index = self.rng.usize(..self.world.groups[group].deployments.len());
        let weather = Weather::any(&mut self.rng);
        self.world.groups[group].deployments[index].weather = weather;
        self.say(|| format!("g{group}-{index}: {weather:?}"));
    }

    fn arrives(&mut self, id: u64) -> Checked {
        self.done.requests += 1;
        let groups = self.world.groups.len();
        let in_turn = usize::try_from(self.done.requests).unwrap_or_default() % groups;
        let request = Request {
            group: if self.stormy { self.rng.usize(..groups) } else { in_turn },
            attempts: Attempts::new(self.world.num_retries),
            key: self.world.keys.then(|| self.rng.u64(..20)),
            streams: self.rng.bool(),
            visits: HashMap::new(),
            made: 0,
            content: false,
            now_at: None,
        };
        self.say(|| format!("request {id} for g{}", request.group));
        self.requests.insert(id, request);
        self.goes_on(id, None)
    }

    fn circumstances(&mut self, key: Option<u64>) -> Circumstances {
        Circumstances {
            strategy: self.world.strategy,
            affinity: key,
            retry_budget_percent: self.world.percent,
            now: self.now,
            random: self.rng.u64(..),
        }
    }

    fn views(&self, id: u64) -> Vec<View> {
        let request = &self.requests[&id];
        self.world.views(request.group, |index| request.attempts.tried(index), request.streams, self.now)
    }

    /// Decides what happens to a request, after an attempt or at its beginning.
    fn goes_on(&mut self, id: u64, ended: Option<(Outcome, Phase)>) -> Checked {
        let views = self.views(id);
        let key = self.requests[&id].key;
        let circumstances = self.circumstances(key);
        let request = self.requests.get_mut(&id).unwrap();
        let budget = &mut self.world.groups[request.group].budget;
        let step = match ended {
            None => request.attempts.next(&views, budget, &circumstances),
            Some((outcome, phase)) => request.attempts.after(&judge(outcome, phase), &views, budget, &circumstances),
        };
        self.say(|| format!("request {id} after {ended:?}: {step:?}"));
        match step {
            Step::Try { choice, pause } => {
                self.check_try(id, &views, choice, pause)?;
                if pause.is_zero() {
                    return self.begins(id, choice);
                }
                self.at(self.now + pause, Event::Resumes(id, choice));
                Ok(())
            }
            Step::Same => Err("a stale connection ends the attempt".to_owned()),
            Step::OtherModel if self.requests[&id].made <= self.world.num_retries && self.rng.bool() => {
                self.done.other_models += 1;
                let group = self.rng.usize(..self.world.groups.len());
                let request = self.requests.get_mut(&id).unwrap();
                request.group = group;
                request.visits.clear();
                request.attempts.enter_next_model();
                self.goes_on(id, None)
            }
            Step::Deliver(why) => self.delivers(id, &views, why, ended),
            Step::OtherModel | Step::BreakOff => {
                self.requests.remove(&id);
                Ok(())
            }
        }
    }

    /// The rules for every attempt.
    fn check_try(&mut self, id: u64, views: &[View], choice: Choice, pause: Duration) -> Checked {
        let request = &self.requests[&id];
        let visits = request.visits.get(&choice.index).copied().unwrap_or_default();
        let deployment = &self.world.groups[request.group].deployments[choice.index];
        ensure(!request.content, || "an attempt after the first byte".to_owned())?;
        ensure(request.made <= self.world.num_retries, || {
            format!("attempt {} with {} retries", request.made + 1, self.world.num_retries)
        })?;
        ensure(visits <= deployment.traits.max_retries, || {
            format!("attempt {} at deployment {} with {:?}", visits + 1, choice.index, deployment.traits)
        })?;
        ensure(views[choice.index].full_for.is_none(), || "an attempt at a deployment that is full".to_owned())?;
        let others = |fits: fn(&View) -> bool| {
            let unvisited = |index: &usize| !request.visits.contains_key(index);
            (0..views.len()).filter(unvisited).any(|index| views[index].full_for.is_none() && fits(&views[index]))
        };
        if visits > 0 {
            ensure(!others(|_| true), || "the same deployment again while another was left".to_owned())?;
            self.done.repeats += 1;
        } else {
            ensure(pause.is_zero(), || "a pause before a deployment that was not tried".to_owned())?;
        }
        let healthy = |view: &View| view.availability == Availability::Healthy;
        let cooling = |view: &View| matches!(view.availability, Availability::Cooling { .. });
        if request.made > 0 && !healthy(&views[choice.index]) {
            ensure(!others(healthy), || "a retry that passed a healthy deployment over".to_owned())?;
        }
        if visits == 0 && cooling(&views[choice.index]) {
            let any = others(|view| !matches!(view.availability, Availability::Cooling { .. }));
            ensure(!any, || "a cooling deployment while another was in use".to_owned())?;
            self.done.last_resorts += 1;
        }
        self.done.attempts += 1;
        self.done.retries += u64::from(request.made > 0);
        Ok(())
    }

    fn begins(&mut self, id: u64, choice: Choice) -> Checked {
        let request = self.requests.get_mut(&id).unwrap();
        let deployment = &mut self.world.groups[request.group].deployments[choice.index];
        let host = &mut self.world.hosts[deployment.host];
        let known = deployment.vitals.view(&deployment.traits, host.availability(self.now), false, false, self.now);
        let Some(passes) = deployment.vitals.begin(host, &deployment.traits, choice.availability, self.now) else {
            // Only after a pause others may have been faster.
            ensure(request.visits.contains_key(&choice.index), || "what was chosen could not begin".to_owned())?;
            self.requests.remove(&id);
            return Ok(());
        };
        if known.availability == Availability::Probe {
            let alone = deployment.probing.is_none_or(|(_, since)| self.now.duration_since(since) >= PROBE_TIME);
            ensure(alone, || format!("two probes at deployment {}", choice.index))?;
            deployment.probing = Some((id, self.now));
            self.done.probes += 1;
        }
        request.attempts.begun(choice.index);
        *request.visits.entry(choice.index).or_default() += 1;
        request.made += 1;
        deployment.in_flight += 1;
        ensure(request.attempts.made() == request.made, || "attempts are counted wrongly".to_owned())?;
        let (outcome, phase, takes) = fate(deployment.weather, &mut self.rng);
        request.now_at = Some((choice.index, passes, outcome, phase));
        self.at(self.now + takes, Event::Ends(id));
        Ok(())
    }

    fn ends(&mut self, id: u64) -> Checked {
        let request = self.requests.get_mut(&id).unwrap();
        let (index, passes, outcome, phase) = request.now_at.take().unwrap();
        if outcome == Outcome::NotSent {
            // Over a new connection it is the same attempt, and this time it is served.
            let verdict = judge(outcome, phase);
            let next = verdict.next;
            ensure(next == Next::SameDeployment, || format!("{verdict:?}"))?;
            request.now_at = Some((index, passes, Outcome::Served, Phase::Content));
            self.at(self.now + Duration::from_millis(50), Event::Ends(id));
            return Ok(());
        }
        request.content |= phase == Phase::Content;
        let deployment = &mut self.world.groups[request.group].deployments[index];
        let served = outcome == Outcome::Served;
        let report = Report {
            sign: judge(outcome, phase).sign,
            reached: phase != Phase::Connecting,
            streams: request.streams,
            latency: served.then(|| Duration::from_millis(self.rng.u64(20..2_000))),
            tokens: served.then(|| self.rng.u64(10..4_000)),
        };
        let host = &mut self.world.hosts[deployment.host];
        let changes = deployment.vitals.end(host, passes, &report, self.now, &self.world.rules);
        deployment.in_flight -= 1;
        if deployment.probing.is_some_and(|(probing, _)| probing == id) {
            deployment.probing = None;
        }
        if changes != Changes::default() {
            // One that had to be used has ended the cooldown or begun another: the old probe is nobody's any more.
            let host = deployment.host;
            let behind = self.world.groups.iter_mut().flat_map(|group| &mut group.deployments);
            behind.filter(|other| other.host == host).for_each(|other| other.probing = None);
        }
        for change in [changes.own, changes.host].into_iter().flatten() {
            match change {
                Change::Cooled(_) => self.done.cooldowns += 1,
                Change::Recovered => self.done.recoveries += 1,
            }
        }
        let cools = changes.own.is_some_and(|change| matches!(change, Change::Cooled(_)));
        let may_cool = self.world.rules.enabled && !matches!(report.sign, Sign::Good | Sign::None | Sign::Host);
        ensure(!cools || may_cool, || format!("{outcome:?} began a cooldown"))?;
        self.goes_on(id, Some((outcome, phase)))
    }

    /// An answer or an error goes to the client: no healthy deployment may have been left out.
    fn delivers(&mut self, id: u64, views: &[View], why: Why, ended: Option<(Outcome, Phase)>) -> Checked {
        let request = &self.requests[&id];
        let usable = |index: &usize| !request.visits.contains_key(index) && views[*index].full_for.is_none();
        let untried: Vec<usize> = (0..views.len()).filter(usable).collect();
        if why != Why::Final {
            self.done.errors_delivered += u64::from(ended.is_some());
            let left = request.made <= self.world.num_retries;
            let healthy = untried.iter().any(|index| views[*index].availability == Availability::Healthy);
            ensure(!(left && healthy), || format!("{why:?} reached the client, and a healthy one was left"))?;
            if request.made == 0 {
                ensure(untried.is_empty(), || format!("{why:?}: refused without an attempt"))?;
            }
            ensure(self.stormy || request.made > 0, || format!("{why:?} in good weather"))?;
        }
        match why {
            Why::Final => {}
            Why::Exhausted => ensure(request.made > self.world.num_retries, || "given up early".to_owned())?,
            Why::NoneLeft => ensure(untried.is_empty(), || "one was left".to_owned())?,
            Why::Full { free_in } => {
                ensure(!free_in.is_zero() && untried.is_empty(), || "room was left".to_owned())?;
                self.done.refused_as_full += 1;
            }
            Why::RetryBudget => self.done.budget_spent += 1,
        }
        self.requests.remove(&id);
        Ok(())
    }

    fn check_limits(&self) -> Checked {
        for deployment in self.deployments() {
            let shown = deployment.vitals.show(self.now);
            let quota = deployment.traits.quota;
            ensure(shown.in_flight == deployment.in_flight, || format!("{} in flight", shown.in_flight))?;
            ensure(quota.parallel.is_none_or(|most| deployment.in_flight <= most), || {
                format!("{} at a time with {quota:?}", deployment.in_flight)
            })?;
            ensure(quota.rpm.is_none_or(|most| shown.used.requests <= most), || {
                format!("{} in a minute with {quota:?}", shown.used.requests)
            })?;
        }
        Ok(())
    }
}

//! Long random histories: messages that are lost, delayed, doubled and reordered, nodes that begin again at an older
//! number, leases that expire and are settled late, periods that change, restarts. Every answer must be the oracle's,
//! and in the end every command must have counted exactly once.
//!
//! The same seed is the same history; a failure is preceded by its seed.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;

use super::oracle::Oracle;
use super::{T, account, ask, charge, lease, spend, throttle};
use crate::budget::books::{Books, Saved};
use crate::budget::command::{AccountId, Applied, Charge, Denial, LeaseId, NodeId, Op, Reserve, Reserved};
use crate::budget::entry::{Entry, Row};
use crate::types::money::NanoUsd;

const SEEDS: u64 = 120;
const STEPS: usize = 1_000;
const PERIOD_MS: u64 = 300_000;
const ACCOUNTS: [(&str, Option<u64>); 6] =
    [("global", Some(3_000)), ("team", Some(900)), ("a", Some(300)), ("b", Some(500)), ("c", None), ("d", Some(0))];

#[derive(Debug, Clone)]
enum Message {
    Reserve(Box<Reserve>),
    Extend(LeaseId, u64, Vec<Charge>),
    Touch(Vec<LeaseId>, u64),
    Batch { node: usize, first: usize, last: usize },
}

struct World {
    rng: Rng,
    now_ms: u64,
    books: Books,
    oracle: Oracle,
    network: Vec<Message>,
    /// Everything each node ever decided; number `n` stands at `n - 1`.
    journals: Vec<Vec<Op>>,
    leases: Vec<Reserve>,
    accounts: Vec<String>,
    entries: Vec<Entry>,
    saved: Store,
    /// Resets and forgetting: sums over the whole history do not hold then.
    rewrites: bool,
    restarts: bool,
    operations: u64,
    /// How often each answer was given.
    answers: BTreeMap<&'static str, u64>,
}

/// What a file would hold.
#[derive(Debug, Default)]
struct Store {
    accounts: BTreeMap<AccountId, super::Account>,
    nodes: BTreeMap<NodeId, u64>,
    expired: BTreeMap<LeaseId, super::Expired>,
    windows: BTreeMap<AccountId, super::Window>,
    expired_total: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            now_ms: T,
            books: Books::new(u64::MAX),
            oracle: Oracle::default(),
            network: Vec::new(),
            journals: vec![Vec::new(); 3],
            leases: Vec::new(),
            accounts: Vec::new(),
            entries: Vec::new(),
            saved: Store::default(),
            rewrites: seed % 3 == 1,
            restarts: seed % 4 == 3,
            operations: 0,
            answers: BTreeMap::new(),
        }
    }

    fn charges(&mut self) -> Vec<Charge> {
        let period = self.now_ms / PERIOD_MS;
        let mut charges = Vec::new();
        for (name, limit) in ACCOUNTS {
            let wanted = if name == "d" { self.rng.u8(..40) == 0 } else { self.rng.bool() };
            if wanted {
                let mut one = charge(&format!("{name}/{period}"), limit);
                one.forget_at_ms = Some((period + 2) * PERIOD_MS);
                if !self.accounts.iter().any(|known| known == one.account.as_str()) {
                    self.accounts.push(one.account.as_str().to_owned());
                }
                charges.push(one);
            }
        }
        if self.rng.u8(..20) == 0 && !charges.is_empty() {
            charges.push(charges[0].clone());
        }
        self.rng.shuffle(&mut charges);
        charges
    }

    fn new_lease(&mut self) {
        let charges = self.charges();
        let amount = if self.rng.u8(..10) == 0 { 0 } else { self.rng.u64(1..120) };
        let id = format!("lease-{}", self.leases.len());
        let mut request = ask(&id, amount, &charges);
        request.row = row(&charges).into();
        request.tokens = self.rng.u64(..400);
        request.ttl_ms = self.rng.u64(1..90_000);
        for name in ["rate/a", "rate/b"] {
            if self.rng.u8(..3) == 0 {
                let mut some = |values: [u64; 3]| self.rng.bool().then(|| values[self.rng.usize(..3)]);
                let (rpm, tpm, parallel) = (some([2, 9, 30]), some([100, 1_000, 3_000]), some([1, 4, 9]));
                request.throttles.push(throttle(name, rpm, tpm, parallel));
            }
        }
        self.leases.push(request.clone());
        for _ in 0..self.rng.usize(1..3) {
            self.network.push(Message::Reserve(Box::new(request.clone())));
        }
    }

    /// A node decides something, and sends what it has not heard of yet, more or less.
    fn decide(&mut self) {
        let node = self.rng.usize(..3);
        let mine: Vec<&Reserve> = self.leases.iter().skip(node).step_by(3).collect();
        let recent = mine.len().saturating_sub(12);
        let of = if mine.is_empty() { None } else { Some(mine[self.rng.usize(recent..mine.len())].clone()) };
        let op = match (self.rng.u8(..20), of) {
            (0, _) if self.rewrites && !self.accounts.is_empty() => {
                let name = &self.accounts[self.rng.usize(..self.accounts.len())];
                Op::Reset { account: account(name), spent: NanoUsd(self.rng.u64(..200)), row: Arc::default() }
            }
            (1..4, Some(of)) => Op::Close { lease: of.lease },
            (4..19, Some(of)) => {
                let beyond = self.rng.u8(..30) == 0;
                let cost = if beyond { of.amount.0 + self.rng.u64(1..50) } else { self.rng.u64(..=of.amount.0) };
                self.spend(Some(of.lease.as_str()), self.rng.clone().u8(..3) > 0, cost, &of.charges)
            }
            _ => {
                let charges = self.charges();
                let cost = self.rng.u64(..4);
                self.spend(None, false, cost, &charges)
            }
        };
        self.journals[node].push(op);
        let all = self.journals[node].len();
        for _ in 0..self.rng.usize(..3) {
            let first = if self.rng.u8(..4) == 0 { 1 + self.rng.usize(..all) } else { all.saturating_sub(3).max(1) };
            self.network.push(Message::Batch { node, first, last: all });
        }
    }

    fn spend(&mut self, id: Option<&str>, close: bool, cost: u64, charges: &[Charge]) -> Op {
        let mut op = spend(id, close, cost, charges);
        if let Op::Spend { row: of, tokens, .. } = &mut op {
            *of = row(charges).into();
            *tokens = self.rng.u64(..800);
        }
        op
    }

    fn deliver(&mut self) {
        if self.network.is_empty() {
            return;
        }
        let index = self.rng.usize(..self.network.len());
        let message = if self.rng.u8(..6) == 0 { self.network[index].clone() } else { self.network.swap_remove(index) };
        match message {
            Message::Reserve(request) => self.reserve(&request),
            Message::Extend(lease, to, charges) => {
                let answer = self.books.extend(self.now_ms, &lease, NanoUsd(to), &charges);
                assert_eq!(answer, self.oracle.extend(&lease, to, &charges));
            }
            Message::Touch(leases, ttl_ms) => {
                let gone = self.books.touch(self.now_ms, &leases, ttl_ms);
                assert_eq!(gone, self.oracle.touch(self.now_ms, &leases, ttl_ms));
            }
            Message::Batch { node, first, last } => self.apply(node, first, last),
        }
        self.operations += 1;
    }

    fn reserve(&mut self, request: &Reserve) {
        // So that a denial really is the only thing that could change anything.
        self.books.reap(self.now_ms, usize::MAX);
        self.oracle.reap(self.now_ms, usize::MAX);
        let watched = self.rng.u8(..16) == 0;
        let before = watched.then(|| format!("{:?}", self.books));
        let answer = self.books.reserve(self.now_ms, request);
        assert_eq!(answer, self.oracle.reserve(self.now_ms, request));
        if let (Some(before), Reserved::Denied(_)) = (before, &answer) {
            assert_eq!(before, format!("{:?}", self.books), "a denial changed something");
        }
        let name = match answer {
            Reserved::Granted { .. } => "granted",
            Reserved::Closed => "closed",
            Reserved::Denied(Denial::Budget { .. }) => "budget",
            Reserved::Denied(Denial::Requests { .. }) => "requests",
            Reserved::Denied(Denial::Tokens { .. }) => "tokens",
            Reserved::Denied(Denial::Parallel { .. }) => "parallel",
        };
        *self.answers.entry(name).or_default() += 1;
    }

    fn apply(&mut self, node: usize, first: usize, last: usize) {
        let name = format!("node-{node}");
        let ops = &self.journals[node][first - 1..last];
        let Applied { last } = self.books.apply(self.now_ms, &NodeId::new(name.as_str()), first as u64, ops);
        assert_eq!(last, self.oracle.apply(self.now_ms, &name, first as u64, ops));
        self.operations += ops.len() as u64;
    }

    fn step(&mut self) {
        match self.rng.u8(..100) {
            0..25 => self.new_lease(),
            25..45 => self.decide(),
            45..83 => self.deliver(),
            83..85 => {
                let limit = self.rng.usize(..6);
                assert_eq!(self.books.reap(self.now_ms, limit), self.oracle.reap(self.now_ms, limit));
            }
            85..88 if !self.leases.is_empty() => {
                let of = self.leases[self.rng.usize(..self.leases.len())].clone();
                let to = self.rng.u64(..200);
                self.network.push(Message::Extend(of.lease.clone(), to, of.charges));
                self.network.push(Message::Touch(vec![of.lease, lease("never was")], self.rng.u64(..60_000)));
            }
            88 if self.rewrites => {
                self.books.forget(self.now_ms);
                self.oracle.forget(self.now_ms);
            }
            89 if self.restarts && self.rng.u8(..4) == 0 => self.restart(),
            90 => self.now_ms += self.rng.u64(..200_000),
            _ => self.now_ms += self.rng.u64(..3_000),
        }
    }

    fn save(&mut self) {
        let changes = self.books.take_changes();
        put(&mut self.saved.accounts, changes.accounts);
        put(&mut self.saved.expired, changes.expired);
        put(&mut self.saved.windows, changes.windows);
        self.saved.nodes.extend(changes.nodes);
        self.saved.expired_total = changes.expired_total;
        self.entries.extend(changes.entries);
    }

    fn restart(&mut self) {
        self.save();
        self.books = Books::new(u64::MAX);
        self.books.restore(Saved {
            accounts: self.saved.accounts.clone().into_iter().collect(),
            nodes: self.saved.nodes.clone().into_iter().collect(),
            expired: self.saved.expired.clone().into_iter().collect(),
            windows: self.saved.windows.clone().into_iter().collect(),
            expired_total: self.saved.expired_total,
            open: Vec::new(),
        });
        self.oracle.restart();
    }

    fn check(&self) {
        for name in &self.accounts {
            let balance = self.books.balances(&[account(name)])[0];
            assert_eq!(balance, self.oracle.balance(name), "{name}");
            let limit =
                ACCOUNTS.iter().find(|(of, _)| name.starts_with(&format!("{of}/"))).and_then(|(_, limit)| *limit);
            let excused = self.rewrites || self.oracle.excused.contains(name);
            if let Some(limit) = limit.filter(|_| !excused) {
                assert!(balance.spent.0 + balance.reserved.0 <= limit, "{name}: {balance:?} is over {limit}");
                assert_eq!(balance.overrun.0, 0);
            }
        }
        assert_eq!(self.books.lease_counts().open, self.oracle.open() as u64);
    }

    /// Everything is sent that was decided, every lease is given back, and then all of it again.
    fn settle_down(&mut self) {
        while !self.network.is_empty() {
            self.deliver();
        }
        for (index, request) in self.leases.iter().enumerate() {
            self.journals[index % 3].push(Op::Close { lease: request.lease.clone() });
        }
        self.now_ms += 100_000;
        self.books.reap(self.now_ms, usize::MAX);
        self.oracle.reap(self.now_ms, usize::MAX);
        for node in 0..3 {
            self.apply(node, 1, self.journals[node].len());
        }
        self.check();
        self.save();
        for node in 0..3 {
            self.apply(node, 1, self.journals[node].len());
        }
        assert!(self.books.take_changes().is_empty(), "what was applied before changed something");
        assert_eq!(self.books.lease_counts().open, 0);
        assert!(self.books.windows.values().all(|window| window.parallel == 0));
        for name in &self.accounts {
            let balance = self.books.balances(&[account(name)])[0];
            assert_eq!(balance.reserved.0, 0, "{name}");
            if !self.rewrites {
                assert_eq!(balance.spent.0, self.decided(name), "{name}: not each command exactly once");
                assert_eq!(i128::from(balance.spent.0), self.logged(name), "{name}: the log says something else");
            }
        }
    }

    /// What the nodes decided that an account is charged, read off their journals.
    fn decided(&self, name: &str) -> u64 {
        let ops = self.journals.iter().flatten();
        ops.map(|op| match op {
            Op::Spend { cost, charges, .. } if charges.iter().any(|charge| charge.account.as_str() == name) => cost.0,
            _ => 0,
        })
        .sum()
    }

    fn logged(&self, name: &str) -> i128 {
        let on = self.entries.iter().filter(|entry| entry.row.tags.iter().any(|tag| tag == name));
        on.map(|entry| i128::from(entry.cost_nano_usd)).sum()
    }
}

/// A row whose tags say which accounts it is about, so that the log can be summed for each.
fn row(charges: &[Charge]) -> Row {
    Row { tags: charges.iter().map(|charge| charge.account.as_str().to_owned()).collect(), ..Row::default() }
}

fn put<K: Ord, V>(into: &mut BTreeMap<K, V>, changes: Vec<(K, Option<V>)>) {
    for (key, value) in changes {
        match value {
            Some(value) => drop(into.insert(key, value)),
            None => drop(into.remove(&key)),
        }
    }
}

#[test]
fn random_histories_agree_with_the_oracle_and_count_every_command_once() {
    let mut operations = 0;
    let mut answers: BTreeMap<&str, u64> = BTreeMap::new();
    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    for seed in 0..SEEDS {
        println!("seed {seed}");
        let mut world = World::new(seed);
        for step in 0..STEPS {
            world.step();
            if step % 20 == 0 {
                world.check();
            }
        }
        world.settle_down();
        operations += world.operations;
        for (name, count) in world.answers {
            *answers.entry(name).or_default() += count;
        }
        for entry in &world.entries {
            *kinds.entry(format!("{:?}", entry.kind)).or_default() += 1;
        }
    }
    println!("{operations} operations, answers {answers:?}, entries {kinds:?}");
    assert!(operations >= 100_000, "only {operations} operations");
    assert!(answers.len() == 6 && answers.values().all(|count| *count > 500), "{answers:?}");
    assert!(kinds.len() == 4 && kinds.values().all(|count| *count > 200), "{kinds:?}");
}

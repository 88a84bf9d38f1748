//! The same random commands go to a store and to `Books`, with the store's own time; every answer, every balance, every
//! entry of the log and every daily sum has to be the same. Commands are repeated, held back, sent in the wrong order,
//! and nodes forget what they sent, as replicas do that crash.

use std::collections::BTreeMap;
use std::time::Instant;

use dheera_ai::budget::books::{Books, rollup};
use dheera_ai::budget::command::{AccountId, Charge, LeaseId, NodeId, Op, Reserve, Throttle};
use dheera_ai::budget::entry::Row;
use dheera_ai::types::money::NanoUsd;
use fastrand::Rng;

use crate::make;
use crate::subject::{Of, Subject};

const ACCOUNTS: u64 = 7;
const NODES: usize = 3;

/// What a replica remembers.
#[derive(Default)]
struct Node {
    /// All it ever sent: number `i + 1` is at `i`.
    sent: Vec<Op>,
    acknowledged: usize,
}

struct Run {
    subject: Subject,
    books: Books,
    rng: Rng,
    nodes: [Node; NODES],
    leases: Vec<(LeaseId, Vec<Charge>)>,
    held_back: Vec<Reserve>,
    made: u64,
    commands: u64,
    denied: u64,
}

#[tokio::test]
async fn the_embedded_store_answers_as_the_books_do() {
    run(Of::Embedded, 11, 100_000).await;
}

#[tokio::test]
async fn functions_answer_as_the_books_do() {
    run(Of::Functions, 22, 100_000).await;
}

#[tokio::test]
async fn scripts_answer_as_the_books_do() {
    run(Of::Scripts, 33, 100_000).await;
}

async fn run(of: Of, seed: u64, commands: u64) {
    let started = Instant::now();
    let subject = Subject::new(of).await;
    let mut run = Run {
        subject,
        books: Books::default(),
        rng: Rng::with_seed(seed),
        nodes: Default::default(),
        leases: Vec::new(),
        held_back: Vec::new(),
        made: 0,
        commands: 0,
        denied: 0,
    };
    let mut step = 0;
    while run.commands < commands {
        step += 1;
        run.subject.tick(step);
        run.step(step).await;
        if step % 500 == 0 {
            run.compare_balances().await;
        }
        if step % 4_000 == 0 {
            run.disturb();
        }
    }
    run.finish().await;
    println!(
        "{of:?}, seed {seed}: {} commands in {step} calls, {} reservations denied, {:.1} s",
        run.commands,
        run.denied,
        started.elapsed().as_secs_f64()
    );
}

impl Run {
    async fn step(&mut self, step: u64) {
        match self.rng.u32(0..100) {
            0..48 => {
                let request = self.request(step);
                if self.rng.u32(0..20) == 0 {
                    self.held_back.push(request);
                } else {
                    self.reserve(&request).await;
                    if self.rng.u32(0..12) == 0 {
                        self.reserve(&request).await;
                    }
                }
            }
            48..52 if !self.held_back.is_empty() => {
                let request = self.held_back.swap_remove(self.rng.usize(0..self.held_back.len()));
                self.reserve(&request).await;
            }
            52..60 => self.extend().await,
            60..64 => self.touch().await,
            64..66 => {
                let limit = self.rng.usize(0..5);
                let reaped = self.subject.ledger.reap(limit).await.unwrap();
                assert_eq!(reaped, self.books.reap(self.subject.now_ms(), limit));
            }
            66..68 => {
                let (account, mark) = (self.account(), format!("m{}", self.rng.u32(0..30)));
                let first = self.subject.ledger.claim(&account, &mark).await.unwrap();
                assert_eq!(first, self.books.claim(&account, &mark));
            }
            _ => self.apply(step).await,
        }
    }

    fn account(&mut self) -> AccountId {
        AccountId::new(format!("key/{}/total", self.rng.u64(0..ACCOUNTS)))
    }

    fn charges(&mut self) -> Vec<Charge> {
        (0..self.rng.usize(0..4))
            .map(|_| {
                let account = self.account();
                let limit = match self.rng.u32(0..4) {
                    0 => None,
                    1 => Some(self.rng.u64(0..400_000_000)),
                    _ => Some(self.rng.u64(0..8_000_000_000)),
                };
                make::charge(account.as_str(), limit)
            })
            .collect()
    }

    fn throttles(&mut self) -> Vec<Throttle> {
        (0..self.rng.usize(0..3))
            .map(|_| {
                let account = format!("rate/key/{}", self.rng.u32(0..40));
                let mut some = |limit: u64| (self.rng.u32(0..2) == 0).then(|| self.rng.u64(0..limit));
                make::throttle(&account, some(60), some(20_000), some(12))
            })
            .collect()
    }

    fn row(&mut self, step: u64) -> Row {
        Row {
            request_id: format!("request-{step}"),
            key_id: format!("k{}", self.rng.u32(0..3)),
            team_id: (self.rng.u32(0..2) == 0).then(|| "team \"é\"".to_owned()),
            end_user: (self.rng.u32(0..9) == 0).then(|| "someone\n\u{1f}".to_owned()),
            tags: (0..self.rng.u32(0..3)).map(|tag| format!("t{tag}")).collect(),
            model: format!("model-{}", self.rng.u32(0..2)),
            prompt_tokens: self.rng.u64(0..900),
            completion_tokens: self.rng.u64(0..900),
            ..Row::default()
        }
    }

    fn request(&mut self, step: u64) -> Reserve {
        self.made += 1;
        let (charges, throttles) = (self.charges(), self.throttles());
        let lease = LeaseId::new(format!("l{}", self.made));
        self.leases.push((lease.clone(), charges.clone()));
        Reserve {
            lease,
            amount: NanoUsd(if self.rng.u32(0..15) == 0 { 0 } else { self.rng.u64(0..30_000_000) }),
            tokens: self.rng.u64(0..6_000),
            ttl_ms: self.rng.u64(1..50),
            charges,
            throttles,
            row: self.row(step).into(),
        }
    }

    /// A lease of late, known or not.
    fn lease(&mut self) -> (LeaseId, Vec<Charge>) {
        let recent = self.leases.len().min(60);
        if recent == 0 || self.rng.u32(0..50) == 0 {
            return (LeaseId::new(format!("unknown-{}", self.rng.u64(..))), self.charges());
        }
        self.leases[self.leases.len() - 1 - self.rng.usize(0..recent)].clone()
    }

    async fn reserve(&mut self, request: &Reserve) {
        self.commands += 1;
        let answer = self.subject.reserve(request).await;
        let expected = self.books.reserve(self.subject.now_ms(), request);
        assert_eq!(answer, expected, "{request:?}");
        self.denied += u64::from(matches!(answer, dheera_ai::budget::command::Reserved::Denied(_)));
    }

    async fn extend(&mut self) {
        self.commands += 1;
        let (lease, mut charges) = self.lease();
        for charge in &mut charges {
            charge.limit = charge.limit.map(|limit| NanoUsd(limit.0 + self.rng.u64(0..1_000_000_000)));
        }
        let to = NanoUsd(self.rng.u64(0..60_000_000));
        let answer = self.subject.ledger.extend(&lease, to, &charges).await.unwrap();
        assert_eq!(answer, self.books.extend(self.subject.now_ms(), &lease, to, &charges), "{lease} {charges:?}");
    }

    async fn touch(&mut self) {
        self.commands += 1;
        let leases: Vec<_> = (0..self.rng.usize(1..6)).map(|_| self.lease().0).collect();
        let ttl_ms = self.rng.u64(1..60);
        let gone = self.subject.ledger.touch(&leases, ttl_ms).await.unwrap();
        assert_eq!(gone, self.books.touch(self.subject.now_ms(), &leases, ttl_ms));
    }

    fn op(&mut self, step: u64) -> Op {
        let (lease, charges) = self.lease();
        match self.rng.u32(0..20) {
            0..3 => Op::Close { lease },
            3 if self.rng.u32(0..10) == 0 => Op::Reset {
                account: self.account(),
                spent: NanoUsd(self.rng.u64(0..90_000_000)),
                row: self.row(step).into(),
            },
            _ => Op::Spend {
                lease: (self.rng.u32(0..25) != 0).then_some(lease),
                close: self.rng.u32(0..4) != 0,
                cost: NanoUsd(if self.rng.u32(0..6) == 0 { 0 } else { self.rng.u64(0..20_000_000) }),
                tokens: self.rng.u64(0..8_000),
                charges,
                row: self.row(step).into(),
            },
        }
    }

    /// A batch of new commands; or old ones again, or new ones after a gap.
    async fn apply(&mut self, step: u64) {
        let which = self.rng.usize(0..NODES);
        for _ in 0..self.rng.usize(0..16) {
            let op = self.op(step);
            self.nodes[which].sent.push(op);
        }
        let node = &mut self.nodes[which];
        let from = match self.rng.u32(0..10) {
            0 => node.acknowledged.saturating_sub(self.rng.usize(0..20)),
            1 => (node.acknowledged + self.rng.usize(0..3)).min(node.sent.len()),
            _ => node.acknowledged,
        };
        let name = NodeId::new(format!("node-{which}"));
        let (first, ops) = (from as u64 + 1, &node.sent[from..]);
        self.commands += ops.len() as u64;
        let answer = self.subject.ledger.apply(&name, first, ops).await.unwrap();
        let expected = self.books.apply(self.subject.now_ms(), &name, first, ops);
        assert_eq!(answer, expected, "{name} from {first}, {} commands", ops.len());
        node.acknowledged = usize::try_from(answer.last).unwrap();
    }

    async fn compare_balances(&mut self) {
        let accounts: Vec<_> = (0..ACCOUNTS).map(|n| AccountId::new(format!("key/{n}/total"))).collect();
        let balances = self.subject.ledger.balances(&accounts).await.unwrap();
        assert_eq!(balances, self.books.balances(&accounts));
        let counts = self.subject.ledger.lease_counts().await.unwrap();
        let expected = self.books.lease_counts();
        assert_eq!((counts.open, counts.expired_total), (expected.open, expected.expired_total));
    }

    /// Redis forgets what can be given to it again.
    fn disturb(&mut self) {
        if let Some(server) = self.subject.server() {
            assert_eq!(server.command(&["FUNCTION", "FLUSH"]), "OK");
            assert_eq!(server.command(&["SCRIPT", "FLUSH"]), "OK");
        }
    }

    /// When all leases have expired nothing is set aside, and the logs are the same.
    async fn finish(&mut self) {
        self.subject.pass(120).await;
        while self.subject.ledger.reap(64).await.unwrap() > 0 {
            self.books.reap(self.subject.now_ms(), 64);
        }
        self.compare_balances().await;
        assert_eq!(self.subject.ledger.lease_counts().await.unwrap().open, 0);
        let entries = self.subject.entries(1_000).await;
        let expected = self.books.take_changes().entries;
        assert_eq!(entries.len(), expected.len());
        for (entry, expected) in entries.iter().zip(&expected) {
            assert_eq!(
                (entry.kind, entry.cost_nano_usd, &entry.row),
                (expected.kind, expected.cost_nano_usd, &expected.row)
            );
        }
        let sums: BTreeMap<_, _> = self
            .subject
            .ledger
            .rollups("0000-01-01", "9999-12-31")
            .await
            .unwrap()
            .into_iter()
            .map(|sum| {
                let sums = rollup::Sums {
                    cost_nano_usd: sum.cost_nano_usd,
                    requests: sum.requests,
                    prompt_tokens: sum.prompt_tokens,
                    completion_tokens: sum.completion_tokens,
                };
                ((sum.day, sum.of), sums)
            })
            .collect();
        // By the store's own entries: their time decides the day.
        assert_eq!(sums, rollup::tally(&entries));
        for account in (0..ACCOUNTS).map(|n| format!("key/{n}/total")) {
            assert_eq!(self.subject.balance(&account).await.1, 0, "{account} holds money for nobody");
        }
    }
}

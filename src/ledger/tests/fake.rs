//! A store of several replicas on `Books`, with faults: it can be down, slow, lose answers, and fall back to an older
//! state of itself. Every replica has a connection of its own, which a crash cuts.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;

use crate::budget::books::Books;
use crate::budget::command::{AccountId, Applied, Balance, Charge, LeaseId, NodeId, Op, Reserve, Reserved};
use crate::budget::entry::{Entry, Rollup};
use crate::store::{EntryPage, EntryQuery, LeaseCounts, LedgerStore, StoreError};
use crate::types::money::NanoUsd;

#[derive(Debug, Clone)]
enum Command {
    Reserve(Box<Reserve>),
    Extend(LeaseId, NanoUsd, Vec<Charge>),
    Apply(NodeId, u64, Vec<Op>),
    Touch(Vec<LeaseId>, u64),
    Reap(usize),
    Claim(AccountId, String),
}

enum Answer {
    Reserved(Reserved),
    Applied(Applied),
    Leases(Vec<LeaseId>),
    Count(usize),
    First(bool),
}

#[derive(Debug, Default)]
struct Inner {
    books: Books,
    history: Vec<(u64, Command)>,
    entries: Vec<Entry>,
}

impl Inner {
    fn run(&mut self, now_ms: u64, command: Command) -> Answer {
        let answer = match &command {
            Command::Reserve(request) => Answer::Reserved(self.books.reserve(now_ms, request)),
            Command::Extend(lease, to, charges) => Answer::Reserved(self.books.extend(now_ms, lease, *to, charges)),
            Command::Apply(node, first, ops) => Answer::Applied(self.books.apply(now_ms, node, *first, ops)),
            Command::Touch(leases, ttl) => Answer::Leases(self.books.touch(now_ms, leases, *ttl)),
            Command::Reap(limit) => Answer::Count(self.books.reap(now_ms, *limit)),
            Command::Claim(account, mark) => Answer::First(self.books.claim(account, mark)),
        };
        self.entries.extend(self.books.take_changes().entries);
        self.history.push((now_ms, command));
        answer
    }
}

#[derive(Debug, Default)]
pub struct Server {
    inner: Mutex<Inner>,
    pub down: AtomicBool,
    /// Before it does anything.
    pub delay_ms: AtomicU64,
    /// Of a hundred commands, those that are not carried out, and those whose answer is lost.
    pub lost_commands: AtomicU64,
    pub lost_answers: AtomicU64,
    pub ahead_ms: AtomicU64,
    pub reserves: AtomicU64,
}

impl Server {
    fn now_ms(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        u64::try_from(now.as_millis()).unwrap() + self.ahead_ms.load(Ordering::Relaxed)
    }

    /// Time passes.
    pub fn advance(&self, by: Duration) {
        self.ahead_ms.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::Relaxed);
    }

    /// How many commands it has carried out.
    pub fn age(&self) -> usize {
        self.inner.lock().unwrap().history.len()
    }

    /// Forgets everything after the first `age` commands.
    pub fn fall_back(&self, age: usize) {
        let mut inner = self.inner.lock().unwrap();
        let history = std::mem::take(&mut inner.history);
        *inner = Inner::default();
        for (now_ms, command) in history.into_iter().take(age) {
            inner.run(now_ms, command);
        }
    }

    pub fn balance(&self, account: &AccountId) -> Balance {
        self.inner.lock().unwrap().books.balances(std::slice::from_ref(account))[0]
    }

    pub fn open(&self) -> u64 {
        self.inner.lock().unwrap().books.lease_counts().open
    }

    pub fn entries(&self) -> Vec<Entry> {
        self.inner.lock().unwrap().entries.clone()
    }

    async fn run(&self, command: Command) -> Result<Answer, StoreError> {
        let delay = self.delay_ms.load(Ordering::Relaxed);
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        let lost = |of: &AtomicU64| fastrand::u64(0..100) < of.load(Ordering::Relaxed);
        if self.down.load(Ordering::Relaxed) || lost(&self.lost_commands) {
            return Err(StoreError::Unavailable("down".to_owned()));
        }
        let answer = self.inner.lock().unwrap().run(self.now_ms(), command);
        if lost(&self.lost_answers) {
            return Err(StoreError::Unavailable("connection reset".to_owned()));
        }
        Ok(answer)
    }
}

/// One replica's connection.
#[derive(Debug)]
pub struct Client {
    pub server: Arc<Server>,
    pub local: bool,
    pub cut: AtomicBool,
}

impl Client {
    pub fn new(server: &Arc<Server>, local: bool) -> Arc<Self> {
        Arc::new(Self { server: Arc::clone(server), local, cut: AtomicBool::new(false) })
    }

    async fn run(&self, command: Command) -> Result<Answer, StoreError> {
        if self.cut.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("cut".to_owned()));
        }
        self.server.run(command).await
    }
}

#[async_trait]
impl LedgerStore for Client {
    fn is_local(&self) -> bool {
        self.local
    }

    fn clock_offset_ms(&self) -> i64 {
        0
    }

    async fn reserve(&self, request: &Reserve) -> Result<Reserved, StoreError> {
        self.server.reserves.fetch_add(1, Ordering::Relaxed);
        match self.run(Command::Reserve(Box::new(request.clone()))).await? {
            Answer::Reserved(answer) => Ok(answer),
            _ => unreachable!(),
        }
    }

    async fn extend(&self, lease: &LeaseId, to: NanoUsd, charges: &[Charge]) -> Result<Reserved, StoreError> {
        match self.run(Command::Extend(lease.clone(), to, charges.to_vec())).await? {
            Answer::Reserved(answer) => Ok(answer),
            _ => unreachable!(),
        }
    }

    async fn apply(&self, node: &NodeId, first: u64, ops: &[Op]) -> Result<Applied, StoreError> {
        match self.run(Command::Apply(node.clone(), first, ops.to_vec())).await? {
            Answer::Applied(answer) => Ok(answer),
            _ => unreachable!(),
        }
    }

    async fn touch(&self, leases: &[LeaseId], ttl_ms: u64) -> Result<Vec<LeaseId>, StoreError> {
        match self.run(Command::Touch(leases.to_vec(), ttl_ms)).await? {
            Answer::Leases(answer) => Ok(answer),
            _ => unreachable!(),
        }
    }

    async fn reap(&self, limit: usize) -> Result<usize, StoreError> {
        match self.run(Command::Reap(limit)).await? {
            Answer::Count(answer) => Ok(answer),
            _ => unreachable!(),
        }
    }

    async fn balances(&self, accounts: &[AccountId]) -> Result<Vec<Balance>, StoreError> {
        Ok(self.server.inner.lock().unwrap().books.balances(accounts))
    }

    async fn claim(&self, account: &AccountId, mark: &str) -> Result<bool, StoreError> {
        match self.run(Command::Claim(account.clone(), mark.to_owned())).await? {
            Answer::First(answer) => Ok(answer),
            _ => unreachable!(),
        }
    }

    async fn entries(&self, _: &EntryQuery) -> Result<EntryPage, StoreError> {
        Ok(EntryPage { entries: self.server.entries(), next: None })
    }

    async fn rollups(&self, _: &str, _: &str) -> Result<Vec<Rollup>, StoreError> {
        Ok(Vec::new())
    }

    async fn forget(&self, _: u64) -> Result<(), StoreError> {
        Ok(())
    }

    async fn lease_counts(&self) -> Result<LeaseCounts, StoreError> {
        Ok(self.server.inner.lock().unwrap().books.lease_counts())
    }
}

//! A store under test, with what its tests have to know of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dheera_ai::budget::command::{AccountId, Balance, NodeId, Op, Reserve, Reserved};
use dheera_ai::budget::entry::Entry;
use dheera_ai::store::embedded::{Clock, Embedded};
use dheera_ai::store::redis::RedisStore;
use dheera_ai::store::{Directory, EntryQuery, LedgerStore};

use crate::redis_server::{self, RedisServer};

enum Time {
    /// The test's own.
    Ours(Arc<AtomicU64>),
    /// Redis's, which each of its answers tells.
    Redis(Arc<RedisStore>),
}

pub struct Subject {
    pub directory: Arc<dyn Directory>,
    pub ledger: Arc<dyn LedgerStore>,
    time: Time,
    /// What it lives in.
    home: Home,
}

pub enum Home {
    File(#[expect(dead_code, reason = "held until the end")] redis_server::Directory),
    Server(RedisServer),
}

/// The stores that keep the contract.
#[derive(Debug, Clone, Copy)]
pub enum Of {
    Embedded,
    Functions,
    Scripts,
}

impl Subject {
    pub async fn new(of: Of) -> Self {
        match of {
            Of::Embedded => {
                let home = redis_server::Directory::new();
                let now = Arc::new(AtomicU64::new(1_795_391_000_000));
                let read = Arc::clone(&now);
                let clock = Clock::new(move || read.load(Ordering::Relaxed));
                let store = Arc::new(Embedded::open(&home.0.join("store.redb"), clock).unwrap());
                Self { directory: store.clone(), ledger: store, time: Time::Ours(now), home: Home::File(home) }
            }
            Of::Functions | Of::Scripts => {
                let server = RedisServer::start(&[]).await;
                let store = match of {
                    Of::Scripts => RedisStore::with_scripts_only(&server.config()),
                    _ => RedisStore::new(&server.config()),
                };
                let store = store.unwrap();
                Self {
                    directory: store.clone(),
                    ledger: store.clone(),
                    time: Time::Redis(store),
                    home: Home::Server(server),
                }
            }
        }
    }

    /// The store's time when it answered last.
    pub fn now_ms(&self) -> u64 {
        match &self.time {
            Time::Ours(now) => now.load(Ordering::Relaxed),
            Time::Redis(store) => store.clock_ms(),
        }
    }

    /// Lets time pass.
    pub async fn pass(&self, ms: u64) {
        match &self.time {
            Time::Ours(now) => {
                now.fetch_add(ms, Ordering::Relaxed);
            }
            Time::Redis(_) => tokio::time::sleep(Duration::from_millis(ms)).await,
        }
    }

    /// Lets as much time pass as a command takes, where time does not pass by itself.
    pub fn tick(&self, step: u64) {
        if let Time::Ours(now) = &self.time
            && step.is_multiple_of(8)
        {
            now.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn server(&self) -> Option<&RedisServer> {
        match &self.home {
            Home::Server(server) => Some(server),
            Home::File(_) => None,
        }
    }

    pub async fn reserve(&self, request: &Reserve) -> Reserved {
        self.ledger.reserve(request).await.unwrap()
    }

    pub async fn apply(&self, node: &str, first: u64, ops: &[Op]) -> u64 {
        self.ledger.apply(&NodeId::new(node), first, ops).await.unwrap().last
    }

    /// Spent, reserved, overrun.
    pub async fn balance(&self, account: &str) -> (u64, u64, u64) {
        let balances = self.ledger.balances(&[AccountId::new(account)]).await.unwrap();
        let Balance { spent, reserved, overrun } = balances[0];
        (spent.0, reserved.0, overrun.0)
    }

    /// The whole log, by pages of `limit`.
    pub async fn entries(&self, limit: usize) -> Vec<Entry> {
        let mut query = EntryQuery { from_ms: 0, to_ms: i64::MAX.unsigned_abs(), limit, ..EntryQuery::default() };
        let mut all = Vec::new();
        loop {
            let page = self.ledger.entries(&query).await.unwrap();
            assert!(page.entries.len() <= limit);
            all.extend(page.entries);
            match page.next {
                Some(next) => query.after = Some(next),
                None => return all,
            }
        }
    }
}

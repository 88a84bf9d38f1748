//! Redis that goes away, hangs, forgets, or is replaced by a replica that lags behind: commands fail fast, and sending a
//! node's numbered commands again makes every sum exact.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dheera_ai::budget::command::{AccountId, NodeId, Op};
use dheera_ai::config::{Redis, RedisTopology};
use dheera_ai::store::redis::RedisStore;
use dheera_ai::store::{LedgerStore, StoreError};

use crate::make::{charge, reserve, settle};
use crate::redis_server::{RedisServer, at, config, free_port, until};

/// A replica's journal: it sends what the store has not applied, until it has.
struct Journal {
    node: NodeId,
    sent: Vec<Op>,
    billed: u64,
    resent: usize,
    /// The highest number the store said it has.
    seen: usize,
}

impl Journal {
    fn new() -> Self {
        Self { node: NodeId::new("n1"), sent: Vec::new(), billed: 0, resent: 0, seen: 0 }
    }

    fn spend(&mut self, calls: u64) {
        for _ in 0..calls {
            let cost = 1_000_003 * (self.sent.len() as u64 + 1);
            self.billed += cost;
            self.sent.push(settle(&format!("c{}", self.sent.len()), cost, &[charge("a", None), charge("b", None)]));
        }
    }

    /// One try.
    async fn flush(&mut self, store: &RedisStore) -> Result<(), StoreError> {
        let mut last = usize::try_from(store.apply(&self.node, 1, &[]).await?.last).unwrap();
        self.resent += self.seen.saturating_sub(last);
        while last < self.sent.len() {
            let end = self.sent.len().min(last + 50);
            let batch = &self.sent[last..end];
            last = usize::try_from(store.apply(&self.node, last as u64 + 1, batch).await?.last).unwrap();
        }
        self.seen = last;
        Ok(())
    }

    async fn flush_at_last(&mut self, store: &RedisStore) {
        let started = Instant::now();
        while let Err(error) = self.flush(store).await {
            assert!(started.elapsed().as_secs() < 40, "{error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn is_exact(&self, store: &RedisStore) {
        let balances = store.balances(&[AccountId::new("a"), AccountId::new("b")]).await.unwrap();
        assert_eq!([balances[0].spent.0, balances[1].spent.0], [self.billed; 2]);
        let day_sums = store.rollups("0000", "9999").await.unwrap();
        assert_eq!(day_sums.iter().map(|sum| sum.cost_nano_usd).sum::<i64>(), i64::try_from(self.billed).unwrap());
    }
}

fn is_unavailable<T: std::fmt::Debug>(answer: &Result<T, StoreError>) {
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
}

#[tokio::test]
async fn commands_fail_fast_while_redis_is_away_and_work_when_it_is_back() {
    let mut server = RedisServer::start(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    let store = RedisStore::new(&server.config()).unwrap();
    let request = reserve("l1", 10, &[charge("a", 100)]);
    store.reserve(&request).await.unwrap();
    server.terminate();
    for _ in 0..20 {
        let started = Instant::now();
        is_unavailable(&store.reserve(&request).await);
        assert!(started.elapsed() < Duration::from_millis(600), "{:?}", started.elapsed());
    }
    server.run().await;
    let started = Instant::now();
    while store.lease_counts().await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(started.elapsed() < Duration::from_secs(3), "reconnected only after {:?}", started.elapsed());
    assert_eq!(store.lease_counts().await.unwrap().open, 1);
    // A restart between two commands is not noticed at all.
    server.terminate();
    server.run().await;
    assert_eq!(store.lease_counts().await.unwrap().open, 1);
}

#[tokio::test]
async fn the_store_may_be_made_before_redis_runs() {
    let mut server = RedisServer::start(&[]).await;
    server.kill9();
    let store = RedisStore::new(&server.config()).unwrap();
    is_unavailable(&store.lease_counts().await);
    server.run().await;
    until_answers(&store).await;
}

async fn until_answers(store: &Arc<RedisStore>) {
    let started = Instant::now();
    while let Err(error) = store.lease_counts().await {
        assert!(started.elapsed().as_secs() < 30, "{error}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_server_that_hangs_costs_one_timeout() {
    let server = RedisServer::start(&[]).await;
    let store = RedisStore::new(&Redis { timeout: Duration::from_millis(200), ..server.config() }).unwrap();
    until_answers(&store).await;
    server.freeze();
    for _ in 0..5 {
        let started = Instant::now();
        is_unavailable(&store.lease_counts().await);
        assert!(started.elapsed() < Duration::from_millis(600), "{:?}", started.elapsed());
    }
    server.thaw();
    until_answers(&store).await;
}

#[tokio::test]
async fn killing_redis_loses_nothing_that_is_sent_again() {
    let mut server = RedisServer::start(&["--appendonly", "yes", "--appendfsync", "everysec"]).await;
    let store = RedisStore::new(&server.config()).unwrap();
    let mut journal = Journal::new();
    for _ in 0..4 {
        for _ in 0..10 {
            journal.spend(40);
            journal.flush_at_last(&store).await;
        }
        // Killed while a batch is under way.
        journal.spend(300);
        let under_way = {
            let (store, node, ops) = (store.clone(), journal.node.clone(), journal.sent.clone());
            let first = ops.len() - 300;
            tokio::spawn(async move { drop(store.apply(&node, first as u64 + 1, &ops[first..]).await) })
        };
        tokio::task::yield_now().await;
        server.kill9();
        under_way.await.unwrap();
        server.run().await;
        journal.flush_at_last(&store).await;
        journal.is_exact(&store).await;
    }
    assert_eq!(journal.sent.len(), 4 * 700);
}

#[tokio::test]
async fn a_replica_that_lagged_and_was_promoted_is_made_exact() {
    let mut master = RedisServer::start(&[]).await;
    let replica = master.start_replica(&[]).await;
    let store = RedisStore::new(&master.config()).unwrap();
    let mut journal = Journal::new();
    journal.spend(200);
    journal.flush_at_last(&store).await;
    until("the replica has it", || replica.command(&["GET", "{dheera_ai}:n:n1"]) == "200").await;
    replica.command(&["REPLICAOF", "NO", "ONE"]);
    journal.spend(321);
    journal.flush_at_last(&store).await;
    master.kill9();
    let promoted = RedisStore::new(&replica.config()).unwrap();
    assert_eq!(promoted.apply(&journal.node, 522, &[settle("x", 1, &[])]).await.unwrap().last, 200);
    journal.flush_at_last(&promoted).await;
    journal.is_exact(&promoted).await;
    assert_eq!(journal.resent, 321);
}

#[tokio::test]
async fn sentinels_lead_to_the_new_master() {
    let mut master = RedisServer::start(&[]).await;
    let replica = master.start_replica(&[]).await;
    let sentinel = RedisServer::start_sentinel(&master).await;
    until("the sentinel knows the replica", || {
        sentinel.command(&["SENTINEL", "replicas", "mymaster"]).contains(&replica.port.to_string())
    })
    .await;
    let dead = at(free_port());
    let topology = |master_name: &str| RedisTopology::Sentinel {
        sentinels: vec![dead.clone(), at(sentinel.port)],
        master_name: master_name.to_owned(),
    };
    let store = RedisStore::new(&config(topology("mymaster"))).unwrap();
    let mut journal = Journal::new();
    journal.spend(100);
    journal.flush_at_last(&store).await;
    master.kill9();
    let started = Instant::now();
    is_unavailable(&store.lease_counts().await);
    assert!(started.elapsed() < Duration::from_millis(600));
    journal.spend(100);
    journal.flush_at_last(&store).await;
    journal.is_exact(&store).await;
    assert_eq!(replica.command(&["GET", "{dheera_ai}:n:n1"]), "200");

    let unknown = RedisStore::new(&config(topology("nobody"))).unwrap();
    is_unavailable(&unknown.lease_counts().await);
}

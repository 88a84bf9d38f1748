//! Reserving and settling with everything that happens beside it: the thread that sends on what is booked, and Redis.

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::Criterion;
use dheera_ai::ledger::Ledger;
use dheera_ai::store::LedgerStore;
use dheera_ai::store::redis::RedisStore;
use dheera_ai::types::money::NanoUsd;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::redis_server::{RedisServer, until};
use super::support::money::{self, COST, TOKENS, TemporaryDirectory};

pub fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("stores");
    group.bench_function("embedded", |bencher| {
        let bank = Bank::open(|directory| money::embedded(directory.path()), NanoUsd::ZERO);
        bencher.iter_custom(|count| bank.serve(count));
        bank.close();
    });
    // Every call asks Redis, or a slice of the budget serves many.
    for (name, slice_max) in [("redis", NanoUsd::ZERO), ("redis_slice", NanoUsd(1 << 40))] {
        group.bench_function(name, |bencher| {
            let runtime = Runtime::new().unwrap();
            // Stopped when it is dropped.
            let server = runtime.block_on(RedisServer::start(&[]));
            let bank = Bank::open(|_| RedisStore::new(&server.config()).unwrap() as _, slice_max);
            bencher.iter_custom(|count| bank.serve(count));
            bank.close();
        });
    }
    group.finish();
}

/// What is booked is not let grow beyond this while time is measured: it is sent on in between.
const CALLS_AT_ONCE: u64 = 500;

/// A ledger that runs, as in the proxy.
struct Bank {
    runtime: Runtime,
    ledger: Arc<Ledger>,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
    _directory: TemporaryDirectory,
}

impl Bank {
    fn open(open_store: impl FnOnce(&TemporaryDirectory) -> Arc<dyn LedgerStore>, slice_max: NanoUsd) -> Self {
        let runtime = Runtime::new().unwrap();
        let directory = TemporaryDirectory::new();
        let entered = runtime.enter();
        let ledger = money::ledger(directory.path(), open_store(&directory), slice_max);
        drop(entered);
        let (stop, stopped) = oneshot::channel();
        let running = runtime.spawn(Arc::clone(&ledger).run(async move { drop(stopped.await) }));
        let bank = Self { runtime, ledger, stop, running, _directory: directory };
        bank.until_all_is_booked();
        bank
    }

    /// How long `count` calls take, one after the other.
    fn serve(&self, count: u64) -> Duration {
        let mut taken = Duration::ZERO;
        let mut left = count;
        while left > 0 {
            let now = left.min(CALLS_AT_ONCE);
            let begun = Instant::now();
            self.runtime.block_on(async {
                for _ in 0..now {
                    self.call().await;
                }
            });
            taken += begun.elapsed();
            self.until_all_is_booked();
            left -= now;
        }
        taken
    }

    async fn call(&self) {
        let reservation = self.ledger.reserve(money::ask()).await.unwrap();
        reservation.settle(COST, TOKENS, money::row(Uuid::now_v7()));
    }

    fn until_all_is_booked(&self) {
        let booked = || self.ledger.is_up() && self.ledger.backlog() == 0;
        self.runtime.block_on(until("all is booked", booked));
    }

    /// Ends what runs before its directory goes away.
    fn close(self) {
        drop(self.stop);
        self.runtime.block_on(self.running).unwrap();
    }
}

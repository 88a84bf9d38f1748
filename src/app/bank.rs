//! Keys, budgets and what keeps them: the store, the ledger, the register, and the pages about them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::StartError;
use super::upgrade::predecessor::Predecessor;
use crate::admin::api::{self, Management};
use crate::admin::pages::{PageRequest, Pages, Stored};
use crate::admin::spend::Spend;
use crate::budget::command::{AccountId, Balance, Op};
use crate::config::{Budgets, Store};
use crate::keys::authenticate::Authenticator;
use crate::keys::register::Register;
use crate::ledger::{Ledger, Settings, Webhook};
use crate::proxy::{Accounts, Local, LocalAnswer, LocalRequest, NamedBudgets};
use crate::store::embedded::Movable;
use crate::store::redis::RedisStore;
use crate::store::{Directory, LedgerStore, StoreError};
use crate::telemetry::metrics::Metrics;

/// The page that shows balances as they are.
const METRICS: &str = "/metrics";

/// The embedded store, in the state directory.
const EMBEDDED_FILE: &str = "store.redb";

/// A reservation whose replica is not heard of for so long is charged in full. Replicas speak up every quarter of it.
const LEASE_TTL: Duration = Duration::from_mins(2);

/// A request waits so long for the store; then the answer is 503, well within a second.
const STORE_TIMEOUT: Duration = Duration::from_millis(500);

fn embedded(directory: &Path, predecessor: Option<&mut Predecessor>) -> Result<Arc<Movable>, StartError> {
    std::fs::create_dir_all(directory).map_err(|error| StartError::StateDirectory(directory.to_owned(), error))?;
    let path = directory.join(EMBEDDED_FILE);
    if let Some(predecessor) = predecessor {
        predecessor.release_store(&path).map_err(StartError::Upgrade)?;
    }
    Ok(Arc::new(Movable::open(&path).map_err(StartError::Embedded)?))
}

/// The pages as the proxy asks for them.
pub(super) struct Own {
    pub pages: Pages,
    pub ledger: Option<Arc<Ledger>>,
    pub named_budgets: Arc<NamedBudgets>,
    pub metrics: Arc<Metrics>,
}

#[async_trait]
impl Local for Own {
    fn owns(&self, path: &str) -> bool {
        self.pages.owns(path)
    }

    async fn answer(&self, request: LocalRequest) -> LocalAnswer {
        let now_ms = self.ledger.as_ref().map_or(0, |ledger| ledger.now_ms());
        if let Some(ledger) = self.ledger.as_ref().filter(|_| request.path == METRICS) {
            self.named_budgets.show(ledger, &self.metrics).await;
        }
        let LocalRequest { method, path, query, headers, body } = request;
        let answer = self.pages.answer(PageRequest { method, path, query, headers, body }, now_ms).await;
        LocalAnswer { status: answer.status, headers: answer.headers, body: answer.body }
    }
}

pub(super) fn stored(kept: &Kept, authenticator: &Arc<Authenticator>, budgets: &Budgets) -> Stored {
    Stored {
        management: Management {
            directory: Arc::clone(&kept.directory),
            register: Arc::clone(&kept.register),
            accounts: Arc::new(Balances(Arc::clone(&kept.ledger))),
            authenticator: Arc::clone(authenticator),
            zone: budgets.time_zone.clone(),
        },
        spend: Spend { ledger: Arc::clone(&kept.books), directory: Arc::clone(&kept.directory) },
    }
}

/// What the management API may ask of the ledger, and nothing more.
struct Balances(Arc<Ledger>);

#[async_trait]
impl api::Accounts for Balances {
    fn now_ms(&self) -> u64 {
        self.0.now_ms()
    }

    async fn balances(&self, accounts: &[AccountId]) -> Result<Vec<Balance>, StoreError> {
        self.0.balances(accounts).await
    }

    async fn submit(&self, op: Op) -> Result<(), StoreError> {
        self.0.submit(op).await
    }
}

/// Keys, budgets and the store of both.
#[derive(Clone)]
pub(super) struct Kept {
    pub register: Arc<Register>,
    pub ledger: Arc<Ledger>,
    directory: Arc<dyn Directory>,
    books: Arc<dyn LedgerStore>,
}

/// Keys, budgets and what keeps them, with a runtime of their own: what is to be booked at the end is booked after the
/// last request, when Pingora's runtimes are gone.
pub(super) struct Bank {
    pub kept: Kept,
    /// The store, where a process that succeeds this one has to take it over.
    pub movable: Option<Arc<Movable>>,
    runtime: Runtime,
    stop: watch::Sender<bool>,
    running: Vec<JoinHandle<()>>,
}

impl Bank {
    /// Opens the store and the journal, and begins to keep them. The embedded store may have to be had from the process
    /// that this one succeeds.
    pub(super) fn open(
        store: &Store,
        budgets: &Budgets,
        metrics: &Arc<Metrics>,
        predecessor: Option<&mut Predecessor>,
    ) -> Result<Self, StartError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("ledger")
            .enable_all()
            .build()
            .map_err(StartError::Runtime)?;
        let entered = runtime.enter();
        let (directory, books, movable): (Arc<dyn Directory>, Arc<dyn LedgerStore>, _) = match store {
            Store::Embedded => {
                let embedded = embedded(&budgets.state_directory, predecessor)?;
                if let Err(error) = runtime.block_on(embedded.serve()) {
                    tracing::warn!("a process that is succeeded by this one cannot settle before it ends: {error}");
                }
                (Arc::clone(&embedded) as _, Arc::clone(&embedded) as _, Some(embedded))
            }
            Store::Redis(config) => {
                let redis = RedisStore::new(config).map_err(StartError::Redis)?;
                (Arc::clone(&redis) as _, redis, None)
            }
        };
        let settings = Settings {
            directory: budgets.state_directory.clone(),
            lease_ttl: LEASE_TTL,
            slice_max: budgets.slice_max,
            entries_retention: budgets.spend_log_retention,
            store_timeout: STORE_TIMEOUT,
            on_soft_budget: budgets.soft_budget_webhook.clone().map(|url| Webhook::new(url).hook()),
        };
        let ledger = Ledger::open(Arc::clone(&books), settings, Arc::clone(metrics)).map_err(StartError::Ledger)?;
        let register = Arc::new(Register::new(Arc::clone(&directory), budgets.cache_entries_max));
        drop(entered);
        let (stop, stopped) = watch::channel(false);
        let until = |mut stopped: watch::Receiver<bool>| async move {
            // The sender lives until it says so; its end would mean the same.
            drop(stopped.wait_for(|stop| *stop).await);
        };
        let running = vec![
            runtime.spawn(Arc::clone(&ledger).run(until(stopped.clone()))),
            runtime.spawn({
                let register = Arc::clone(&register);
                async move { register.run(until(stopped)).await }
            }),
        ];
        Ok(Self { kept: Kept { register, ledger, directory, books }, movable, runtime, stop, running })
    }

    pub(super) fn accounts(&self) -> Accounts {
        Accounts { register: Arc::clone(&self.kept.register), ledger: Arc::clone(&self.kept.ledger) }
    }

    /// Books what is left.
    pub(super) fn close(self) {
        self.stop.send_replace(true);
        self.runtime.block_on(async {
            for task in self.running {
                if let Err(error) = task.await {
                    tracing::error!("the keeping of budgets ended abnormally: {error}");
                }
            }
        });
        let backlog = self.kept.ledger.backlog();
        if backlog > 0 {
            tracing::warn!(
                backlog,
                "the store has not confirmed everything; the rest is in the journal and is sent after the next start"
            );
        }
        self.runtime.shutdown_timeout(Duration::from_secs(1));
    }
}

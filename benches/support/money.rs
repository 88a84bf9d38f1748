//! Setting money aside and booking what a call cost.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dheera_ai::budget::command::{AccountId, Charge, LeaseId, Scope};
use dheera_ai::budget::entry::Row;
use dheera_ai::ledger::{Ask, Ledger, Settings};
use dheera_ai::store::LedgerStore;
use dheera_ai::store::embedded::{Clock, Embedded};
use dheera_ai::telemetry::metrics::Metrics;
use dheera_ai::types::money::NanoUsd;
use futures::executor::block_on;
use uuid::Uuid;

use super::Case;

/// What a call may cost at most, and what it cost.
const BOUND: NanoUsd = NanoUsd(60_000);
pub const COST: NanoUsd = NanoUsd(7_275);
pub const TOKENS: u64 = 505;
/// Never reached.
const LIMIT: NanoUsd = NanoUsd(1 << 52);

/// A directory that goes away with the benchmark.
pub struct TemporaryDirectory(PathBuf);

impl TemporaryDirectory {
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("dheera-bench-{}", Uuid::now_v7()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// The embedded store, as a process that is alone has it.
pub fn embedded(directory: &Path) -> Arc<dyn LedgerStore> {
    Arc::new(Embedded::open(&directory.join("store.redb"), Clock::system()).unwrap())
}

pub fn ledger(directory: &Path, store: Arc<dyn LedgerStore>, slice_max: NanoUsd) -> Arc<Ledger> {
    let settings = Settings {
        directory: directory.to_owned(),
        lease_ttl: Duration::from_mins(2),
        slice_max,
        entries_retention: Duration::from_hours(24),
        store_timeout: Duration::from_secs(2),
        on_soft_budget: None,
    };
    Ledger::open(store, settings, Arc::new(Metrics::new().unwrap())).unwrap()
}

/// One call of a key with a budget, in a team without one.
pub fn ask() -> Ask {
    let id = Uuid::now_v7();
    let charge =
        |account: &str, scope, limit| Charge { account: AccountId::new(account), scope, limit, forget_at_ms: None };
    Ask {
        lease: LeaseId::new(format!("{id}.0")),
        amount: BOUND,
        tokens: 100,
        charges: vec![charge("key/k/total", Scope::Key, Some(LIMIT)), charge("team/t/total", Scope::Team, None)],
        throttles: Vec::new(),
        soft: Vec::new(),
        row: row(id).into(),
    }
}

pub fn row(id: Uuid) -> Row {
    Row {
        request_id: id.to_string(),
        key_id: "k".to_owned(),
        team_id: Some("t".to_owned()),
        operation: "Converse".to_owned(),
        model: "nova".to_owned(),
        status: 200,
        prompt_tokens: 25,
        completion_tokens: 480,
        certainty: "exact".to_owned(),
        ..Row::default()
    }
}

/// A reservation and its settlement as the request sees them: the books in memory and two lines of the journal. Nobody
/// sends on what is booked meanwhile, so that no other thread is in the figure.
pub fn reserve_and_settle() -> Case {
    let directory = TemporaryDirectory::new();
    let ledger = ledger(directory.path(), embedded(directory.path()), NanoUsd::ZERO);
    Case::new(move || {
        // The directory lives as long as the ledger.
        let _ = &directory;
        let reservation = block_on(ledger.reserve(black_box(ask()))).unwrap();
        reservation.settle(COST, TOKENS, row(Uuid::now_v7()));
    })
}

//! What happens beside requests: the outbox, heartbeats of leases, expiry of abandoned ones, syncing and cleaning the
//! journal, soft budgets, journals of replicas that are gone, and the last flush at a stop.

use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};

use super::backlog::Backlog;
use super::outbox::{Outbox, Step};
use super::reserve::usable_until;
use super::soft::{MARK, SoftBudget, id_of};
use super::{Ledger, link};
use crate::budget::command::{AccountId, LeaseId};
use crate::store::StoreError;

/// With nothing to send, the store is asked this often whether it is there and has everything.
const PROBE_INTERVAL: Duration = Duration::from_millis(300);
/// From so many commands on the next are gathered; fewer are sent at once.
const GATHER_FROM: u64 = 4;
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// What a loss of power may take of the journal.
const SYNC_INTERVAL: Duration = Duration::from_millis(100);
const REAP_INTERVAL: Duration = Duration::from_secs(3);
const REAP_MAX: usize = 100;
const CLEAN_INTERVAL: Duration = Duration::from_secs(10);
const FORGET_INTERVAL: Duration = Duration::from_hours(1);
const ADOPT_INTERVAL: Duration = Duration::from_secs(30);
const SLICE_INTERVAL: Duration = Duration::from_secs(1);
const SOFT_INTERVAL: Duration = Duration::from_millis(200);
/// How long the last flush may take.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
/// An error that goes on is logged this often.
const COMPLAINT_INTERVAL: Duration = Duration::from_mins(1);

#[must_use]
pub fn slot_path(directory: &Path, slot: u32) -> PathBuf {
    directory.join(format!("journal-{slot}"))
}

/// Abandoned journals that were dealt with, and when they were last written.
type Adopted = Arc<Mutex<HashMap<PathBuf, SystemTime>>>;

pub async fn run(ledger: Arc<Ledger>, stop: impl Future<Output = ()> + Send) {
    let adopted = Adopted::default();
    let outbox = Arc::new(tokio::sync::Mutex::new(Outbox::new(Arc::clone(&ledger.backlog), Arc::clone(&ledger.link))));
    let mut tasks = JoinSet::new();
    tasks.spawn(send(Arc::clone(&ledger), Arc::clone(&outbox), Arc::clone(&adopted)));
    tasks.spawn(sync(Arc::clone(&ledger)));
    tasks.spawn(heartbeat(Arc::clone(&ledger)));
    tasks.spawn(reap(Arc::clone(&ledger)));
    tasks.spawn(forget(Arc::clone(&ledger)));
    tasks.spawn(clean(Arc::clone(&ledger)));
    tasks.spawn(give_back_slices(Arc::clone(&ledger)));
    tasks.spawn(watch_soft_budgets(Arc::clone(&ledger)));
    tasks.spawn(adopt(Arc::clone(&ledger), adopted));
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            // None of them ends by itself.
            Some(ended) = tasks.join_next() => {
                tracing::error!("a task of the ledger has stopped ({:?}); restart the proxy", ended.err());
            }
        }
    }
    tasks.shutdown().await;
    ledger.slices.stop();
    ledger.close_slices(&ledger.slices.retire_all());
    let mut outbox = outbox.lock().await;
    let flush = async {
        while ledger.slices.is_asking() {
            sleep(BACKOFF_MIN).await;
        }
        drain(&mut outbox).await;
    };
    if timeout(FLUSH_TIMEOUT, flush).await.is_err() {
        tracing::warn!("{} commands stay in the journal; they are sent at the next start", ledger.backlog());
    }
    let backlog = Arc::clone(&ledger.backlog);
    match spawn_blocking(move || backlog.sync()).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::error!("the journal cannot be synced: {error}"),
        Err(error) => tracing::error!("the journal cannot be synced: {error}"),
    }
}

/// Sends until nothing is left, however often the store fails.
async fn drain(outbox: &mut Outbox) {
    loop {
        match outbox.step(false).await {
            Ok(Step::Idle) => return,
            Ok(Step::Sent | Step::Rewound) => {}
            Err(_) => sleep(BACKOFF_MIN).await,
        }
    }
}

async fn send(ledger: Arc<Ledger>, outbox: Arc<tokio::sync::Mutex<Outbox>>, adopted: Adopted) {
    let mut outbox = outbox.lock().await;
    let mut backoff = BACKOFF_MIN;
    let mut complaint = Complaint::default();
    let mut probe = false;
    loop {
        let failed_before = complaint.goes_on;
        let many = (GATHER_FROM..ledger.link.batch_max() as u64).contains(&ledger.backlog());
        let step = outbox.step(probe).await;
        ledger.link.metrics.journal_backlog(ledger.backlog());
        match step {
            Ok(step) => {
                (backoff, probe) = (BACKOFF_MIN, false);
                complaint.goes_on = false;
                if step == Step::Rewound || failed_before {
                    // Another server may answer now, that does not know of them.
                    ledger.close_slices(&ledger.slices.retire_all());
                }
                if step == Step::Rewound {
                    adopted.lock().unwrap_or_else(PoisonError::into_inner).clear();
                }
                if step == Step::Sent && many {
                    // Out of time or in a hurry: go on in either case.
                    drop(timeout(ledger.link.gather(), ledger.backlog.hurry.notified()).await);
                }
                if step == Step::Idle {
                    probe = timeout(PROBE_INTERVAL, ledger.backlog.wake.notified()).await.is_err();
                }
            }
            Err(why) => {
                complaint.about("commands wait to be sent", &why);
                sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
    }
}

/// Logs an error that goes on once a minute.
#[derive(Default)]
struct Complaint {
    last: Option<Instant>,
    goes_on: bool,
}

impl Complaint {
    fn about(&mut self, what: &str, why: &dyn std::fmt::Display) {
        self.goes_on = true;
        if self.last.is_none_or(|last| last.elapsed() >= COMPLAINT_INTERVAL) {
            self.last = Some(Instant::now());
            tracing::error!("{what}: {why}");
        }
    }
}

async fn sync(ledger: Arc<Ledger>) {
    let mut complaint = Complaint::default();
    loop {
        sleep(SYNC_INTERVAL).await;
        if !ledger.backlog.is_dirty() {
            continue;
        }
        let backlog = Arc::clone(&ledger.backlog);
        match spawn_blocking(move || backlog.sync()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => complaint.about("the journal cannot be synced", &error),
            Err(error) => complaint.about("the journal cannot be synced", &error),
        }
    }
}

async fn clean(ledger: Arc<Ledger>) {
    let mut complaint = Complaint::default();
    loop {
        sleep(CLEAN_INTERVAL).await;
        let backlog = Arc::clone(&ledger.backlog);
        match spawn_blocking(move || backlog.clean(SystemTime::now())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => complaint.about("the journal cannot be cleaned", &error),
            Err(error) => complaint.about("the journal cannot be cleaned", &error),
        }
    }
}

/// Leases are touched after a quarter of their time at the latest; a call that is shorter needs none.
async fn heartbeat(ledger: Arc<Ledger>) {
    let quarter = ledger.settings.lease_ttl / 4;
    loop {
        sleep(quarter).await;
        while let Err(why) = touch(&ledger).await {
            tracing::warn!("leases cannot be prolonged: {why}");
            sleep(BACKOFF_MAX).await;
        }
    }
}

async fn touch(ledger: &Ledger) -> Result<(), StoreError> {
    let ttl = ledger.settings.lease_ttl;
    let slices = ledger.slices.alive();
    let mut leases = ledger.backlog.held_longer_than(ttl / 4);
    leases.extend(slices.iter().map(|slice| slice.lease.clone()));
    let until = usable_until(ttl);
    let mut lost: Vec<LeaseId> = Vec::new();
    for some in leases.chunks(ledger.link.batch_max()) {
        lost.extend(ledger.link.touch(some, ttl).await?);
    }
    // Not those that ended while they were being touched.
    lost.retain(|lease| ledger.backlog.holds(lease));
    if !lost.is_empty() {
        tracing::warn!("{} leases are not open any more; what is charged for them is corrected later", lost.len());
    }
    for slice in slices.iter().filter(|slice| !lost.contains(&slice.lease)) {
        slice.extend_until(until);
    }
    ledger.close_slices(&ledger.slices.retire_lost(&lost));
    Ok(())
}

async fn reap(ledger: Arc<Ledger>) {
    loop {
        sleep(REAP_INTERVAL).await;
        if ledger.link.down().is_some() {
            continue;
        }
        let link = &ledger.link;
        while let Ok(REAP_MAX..) = link.slow("reap", link.store.reap(REAP_MAX)).await {}
        if let Ok(counts) = link.slow("lease_counts", link.store.lease_counts()).await {
            link.metrics.leases(counts.open, counts.expired_total);
        }
    }
}

async fn forget(ledger: Arc<Ledger>) {
    loop {
        let before = ledger.now_ms().saturating_sub(link::millis(ledger.settings.entries_retention));
        if ledger.is_up()
            && let Err(why) = ledger.link.slow("forget", ledger.link.store.forget(before)).await
        {
            tracing::warn!("old entries of the spend log cannot be deleted: {why}");
        }
        sleep(FORGET_INTERVAL).await;
    }
}

async fn give_back_slices(ledger: Arc<Ledger>) {
    loop {
        sleep(SLICE_INTERVAL).await;
        ledger.close_slices(&ledger.slices.retire_idle());
    }
}

async fn watch_soft_budgets(ledger: Arc<Ledger>) {
    loop {
        sleep(SOFT_INTERVAL).await;
        let suspects = ledger.soft.suspects();
        if suspects.is_empty() || !ledger.is_up() {
            continue;
        }
        let last = suspects.iter().map(|(_, suspect)| suspect.after).max().unwrap_or_default();
        ledger.backlog.confirmed(last).await;
        let accounts: Vec<AccountId> = suspects.iter().map(|(account, _)| account.clone()).collect();
        let Ok(balances) = ledger.balances(&accounts).await else { continue };
        for ((account, suspect), balance) in suspects.into_iter().zip(balances) {
            if balance.spent < suspect.amount {
                // Calls in flight that were settled meanwhile may have brought it there together.
                if balance.spent.saturating_add(balance.reserved) < suspect.amount {
                    ledger.soft.clear(&account, &suspect);
                }
                continue;
            }
            let Ok(first) = ledger.claim(&account, MARK).await else { continue };
            ledger.soft.told(&account);
            if !first {
                continue;
            }
            ledger.link.metrics.soft_budget_reached(suspect.scope.as_str());
            tracing::warn!(%account, "a soft budget of ${} is reached: ${} are spent", suspect.amount, balance.spent);
            if let Some(hook) = &ledger.settings.on_soft_budget {
                hook(SoftBudget {
                    scope: suspect.scope,
                    id: id_of(&account),
                    account,
                    alias: suspect.alias,
                    spent: balance.spent,
                    amount: suspect.amount,
                    at_ms: ledger.now_ms(),
                });
            }
        }
    }
}

/// Journals whose owner is gone: what they still owe is sent in their name.
async fn adopt(ledger: Arc<Ledger>, adopted: Adopted) {
    loop {
        if !ledger.is_up() {
            sleep(SLICE_INTERVAL).await;
            continue;
        }
        let (directory, own, seen) = (ledger.settings.directory.clone(), ledger.slot, Arc::clone(&adopted));
        let slots = spawn_blocking(move || abandoned(&directory, own, &seen)).await.unwrap_or_default();
        for slot in slots {
            if let Err(why) = adopt_one(&ledger, slot.clone(), &adopted).await {
                tracing::warn!("{} cannot be taken over yet: {why}", slot.display());
            }
        }
        sleep(ADOPT_INTERVAL).await;
    }
}

/// Slots besides our own that were written since they were dealt with. Some of them have an owner.
fn abandoned(directory: &Path, own: u32, adopted: &Adopted) -> Vec<PathBuf> {
    let adopted = adopted.lock().unwrap_or_else(PoisonError::into_inner);
    let others = (0..super::SLOTS_MAX).filter(|slot| *slot != own).map(|slot| slot_path(directory, slot));
    others
        .filter(|path| {
            newest(path).is_some_and(|newest| adopted.get(path).is_none_or(|dealt_with| newest > *dealt_with))
        })
        .collect()
}

/// When a journal was written last; `None` without one.
fn newest(slot: &Path) -> Option<SystemTime> {
    let files = std::fs::read_dir(slot).ok()?.flatten();
    files
        .filter(|file| file.path().extension().is_some_and(|extension| extension == "log"))
        .filter_map(|file| file.metadata().and_then(|data| data.modified()).ok())
        .max()
}

async fn adopt_one(ledger: &Ledger, slot: PathBuf, adopted: &Adopted) -> Result<(), StoreError> {
    let path = slot.clone();
    let opened = spawn_blocking(move || Backlog::open(&path)).await;
    let opened = opened.map_err(|error| StoreError::Failed(error.to_string()))?;
    let Some(backlog) = opened.map_err(|error| StoreError::Failed(format!("its journal: {error}")))? else {
        return Ok(());
    };
    let backlog = Arc::new(backlog);
    let mut outbox = Outbox::new(Arc::clone(&backlog), Arc::clone(&ledger.link));
    while outbox.step(false).await? != Step::Idle {}
    drop(outbox);
    let end = spawn_blocking(move || {
        let cleaned = backlog.clean(SystemTime::now());
        drop(backlog);
        cleaned
    });
    if let Ok(Err(error)) = end.await {
        tracing::warn!("{} cannot be cleaned: {error}", slot.display());
    }
    if let Some(newest) = newest(&slot) {
        adopted.lock().unwrap_or_else(PoisonError::into_inner).insert(slot, newest);
    }
    Ok(())
}

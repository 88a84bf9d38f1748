//! What the file adds to the books: durability, documents, the spend log, and how it fails. What the books answer is
//! tested beside them, and once more by the contract suite of all stores.

use std::env;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use redb::StorageBackend;
use redb::backends::InMemoryBackend;

use super::*;
use crate::budget::command::{Scope, Throttle};
use crate::budget::entry::{EntryKind, Row};
use crate::store::Expect;

const T: u64 = 1_793_491_200_000;

/// A place for a file, deleted when the test ends.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let directory = env::temp_dir().join(format!("dheera-ai-embedded-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        Self(directory.join("store.redb"))
    }

    fn open(&self) -> (Embedded, Arc<AtomicU64>) {
        let now_ms = Arc::new(AtomicU64::new(T));
        let read = Arc::clone(&now_ms);
        (Embedded::open(&self.0, Clock::new(move || read.load(Ordering::Relaxed))).unwrap(), now_ms)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        std::fs::remove_dir_all(self.0.parent().unwrap()).unwrap();
    }
}

fn account(name: &str) -> AccountId {
    AccountId::new(name)
}

fn charge(name: &str) -> Charge {
    Charge { account: account(name), scope: Scope::Key, limit: Some(NanoUsd(1_000)), forget_at_ms: None }
}

fn ask(id: &str, amount: u64) -> Reserve {
    Reserve {
        lease: LeaseId::new(id),
        amount: NanoUsd(amount),
        tokens: 0,
        ttl_ms: 1_000,
        charges: vec![charge("key")],
        throttles: Vec::new(),
        row: Row { request_id: id.to_owned(), ..Row::default() }.into(),
    }
}

fn spend(id: &str, cost: u64, row: Row) -> Op {
    Op::Spend {
        lease: Some(LeaseId::new(id)),
        close: true,
        cost: NanoUsd(cost),
        tokens: 0,
        charges: vec![charge("key")],
        row: Row { request_id: id.to_owned(), ..row }.into(),
    }
}

async fn balance(store: &Embedded) -> (u64, u64) {
    let balance = store.balances(&[account("key")]).await.unwrap()[0];
    (balance.spent.0, balance.reserved.0)
}

fn change(kind: Kind, id: &str, expect: Expect, json: Option<&str>) -> Change {
    Change { kind, id: id.to_owned(), expect, json: json.map(str::to_owned) }
}

#[test]
fn a_file_has_one_process() {
    let file = Place::new("one");
    let (store, _) = file.open();
    let error = Embedded::open(&file.0, Clock::system()).unwrap_err();
    assert!(matches!(error, OpenError::InUse(_)), "{error}");
    assert!(error.to_string().contains("general_settings.store_path"), "{error}");
    drop(store);
    file.open();
}

#[cfg(unix)]
#[test]
fn a_new_file_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let file = Place::new("mode");
    file.open();
    assert_eq!(std::fs::metadata(&file.0).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_file_of_another_schema_version_is_refused() {
    let file = Place::new("version");
    drop(file.open());
    let database = Database::create(&file.0).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(tables::META).unwrap().insert(tables::SCHEMA, 99).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = Embedded::open(&file.0, Clock::system()).unwrap_err();
    assert!(matches!(error, OpenError::Version { found: 99, .. }), "{error}");
}

#[test]
fn a_file_that_is_no_store_is_refused() {
    let file = Place::new("garbage");
    std::fs::write(&file.0, [7; 10_000]).unwrap();
    assert!(matches!(Embedded::open(&file.0, Clock::system()), Err(OpenError::Failed { .. })));
    let nowhere = file.0.with_file_name("nowhere").join("store.redb");
    assert!(matches!(Embedded::open(&nowhere, Clock::system()), Err(OpenError::Failed { .. })));
}

#[tokio::test]
async fn documents_are_changed_all_or_none_and_their_versions_never_return() {
    let file = Place::new("documents");
    let (store, _) = file.open();
    let begin = store.changes(None).await.unwrap();
    let both = [
        change(Kind::Key, "k", Expect::Nothing, Some("{\"a\":1}")),
        change(Kind::Secret, "s", Expect::Nothing, Some("{}")),
    ];
    store.commit(&both).await.unwrap();
    let first = store.get(Kind::Key, "k").await.unwrap().unwrap();
    assert_eq!(&*first.json, "{\"a\":1}");
    let conflicting = [
        change(Kind::Key, "k", Expect::Version(first.version), Some("{\"a\":2}")),
        change(Kind::Secret, "s", Expect::Nothing, Some("{}")),
    ];
    assert_eq!(store.commit(&conflicting).await, Err(CommitError::Conflict(1)));
    assert_eq!(store.get(Kind::Key, "k").await.unwrap(), Some(first.clone()));
    store.commit(&[change(Kind::Key, "k", Expect::Version(first.version), None)]).await.unwrap();
    assert_eq!(store.get(Kind::Key, "k").await.unwrap(), None);
    store.commit(&[change(Kind::Key, "k", Expect::Nothing, Some("{\"a\":1}"))]).await.unwrap();
    assert!(store.get(Kind::Key, "k").await.unwrap().unwrap().version > first.version);
    let stale = [change(Kind::Key, "k", Expect::Version(first.version), None)];
    assert_eq!(store.commit(&stale).await, Err(CommitError::Conflict(0)));
    let changes = store.changes(Some(&begin.cursor)).await.unwrap();
    let touched: Vec<_> = changes.touched.iter().map(|(kind, id)| (*kind, id.as_str())).collect();
    assert_eq!(touched, [(Kind::Key, "k"), (Kind::Secret, "s"), (Kind::Key, "k"), (Kind::Key, "k")]);
    drop(store);
    let (store, _) = file.open();
    assert!(store.changes(Some(&changes.cursor)).await.unwrap().lost, "another process, another epoch");
    assert!(store.get(Kind::Key, "k").await.unwrap().is_some());
}

#[tokio::test]
async fn a_commit_sees_its_own_changes() {
    let file = Place::new("own");
    let (store, _) = file.open();
    let moved =
        [change(Kind::Alias, "a", Expect::Nothing, Some("1")), change(Kind::Alias, "a", Expect::Nothing, Some("2"))];
    assert_eq!(store.commit(&moved).await, Err(CommitError::Conflict(1)));
    let replaced = [
        change(Kind::Alias, "a", Expect::Nothing, Some("1")),
        change(Kind::Alias, "a", Expect::Anything, None),
        change(Kind::Alias, "a", Expect::Nothing, Some("3")),
    ];
    store.commit(&replaced).await.unwrap();
    assert_eq!(&*store.get(Kind::Alias, "a").await.unwrap().unwrap().json, "3");
}

#[tokio::test]
async fn documents_are_listed_by_id_and_kind() {
    let file = Place::new("list");
    let (store, _) = file.open();
    let ids = ["b", "a", "c", "é", "a/b"];
    let changes: Vec<Change> = ids.iter().map(|id| change(Kind::Team, id, Expect::Nothing, Some("{}"))).collect();
    store.commit(&changes).await.unwrap();
    store.commit(&[change(Kind::User, "a0", Expect::Nothing, Some("{}"))]).await.unwrap();
    let mut found = Vec::new();
    while let page = store.list(Kind::Team, found.last().map(String::as_str), 2).await.unwrap()
        && !page.is_empty()
    {
        assert!(page.len() <= 2);
        found.extend(page.into_iter().map(|document| document.id));
    }
    assert_eq!(found, ["a", "a/b", "b", "c", "é"]);
}

#[tokio::test]
async fn what_was_applied_is_there_after_a_restart_and_leases_are_not() {
    let file = Place::new("restart");
    let node = NodeId::new("n");
    let (store, now_ms) = file.open();
    for id in ["settled", "expired", "open"] {
        assert!(matches!(store.reserve(&ask(id, 100)).await.unwrap(), Reserved::Granted { .. }));
    }
    assert_eq!(store.apply(&node, 1, &[spend("settled", 30, Row::default())]).await.unwrap().last, 1);
    store.touch(&[LeaseId::new("open")], 100_000).await.unwrap();
    now_ms.store(T + 1_000, Ordering::Relaxed);
    assert_eq!(store.reap(10).await, Ok(1));
    assert_eq!(store.claim(&account("key"), "soft").await, Ok(true));
    assert_eq!(balance(&store).await, (130, 100));
    drop(store);
    let (store, _) = file.open();
    assert_eq!(balance(&store).await, (130, 0));
    assert_eq!(store.lease_counts().await, Ok(LeaseCounts { open: 0, expired_total: 1 }));
    assert_eq!(store.claim(&account("key"), "soft").await, Ok(false));
    assert_eq!(store.apply(&node, 1, &[spend("settled", 30, Row::default())]).await.unwrap().last, 1);
    assert_eq!(store.apply(&node, 3, &[]).await.unwrap().last, 1);
    let late = [spend("expired", 1, Row::default()), spend("open", 8, Row::default())];
    assert_eq!(store.apply(&node, 2, &late).await.unwrap().last, 3);
    assert_eq!(balance(&store).await, (39, 0));
}

#[tokio::test]
async fn rate_windows_survive_a_restart() {
    let file = Place::new("windows");
    let limited = |id: &str| Reserve {
        throttles: vec![Throttle {
            account: account("rate/key"),
            scope: Scope::Key,
            rpm: Some(1),
            tpm: None,
            parallel: Some(1),
        }],
        ..ask(id, 0)
    };
    let (store, _) = file.open();
    store.reserve(&limited("a")).await.unwrap();
    store.apply(&NodeId::new("n"), 1, &[spend("a", 0, Row::default())]).await.unwrap();
    drop(store);
    let (store, now_ms) = file.open();
    assert!(matches!(store.reserve(&limited("b")).await.unwrap(), Reserved::Denied(_)));
    now_ms.store(T + 65_000, Ordering::Relaxed);
    assert!(matches!(store.reserve(&limited("b")).await.unwrap(), Reserved::Granted { .. }));
}

#[tokio::test]
async fn the_spend_log_is_searched_paged_summed_and_forgotten() {
    let file = Place::new("log");
    let node = NodeId::new("n");
    let (store, now_ms) = file.open();
    for number in 0..10_u64 {
        now_ms.store(T + number * 10_000_000, Ordering::Relaxed);
        let row = Row {
            key_id: format!("key-{}", number % 2),
            model: "m".into(),
            tags: vec![format!("tag-{}", number % 5)],
            prompt_tokens: 3,
            ..Row::default()
        };
        let id = uuid::Uuid::from_u128((u128::from(T + number * 10_000_000) << 80) | (7 << 76) | (2 << 62)).to_string();
        store.apply(&node, number + 1, &[spend(&id, 1 << number, row)]).await.unwrap();
    }
    let all = EntryQuery { to_ms: u64::MAX, limit: 3, ..EntryQuery::default() };
    let mut costs = Vec::new();
    let mut after = None;
    loop {
        let page = store.entries(&EntryQuery { after: after.clone(), ..all.clone() }).await.unwrap();
        costs.extend(page.entries.iter().map(|entry| entry.cost_nano_usd));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(costs, (0..10).map(|number| 1 << number).collect::<Vec<i64>>());
    let odd = EntryQuery { key_id: Some("key-1".into()), limit: 100, ..all.clone() };
    assert_eq!(store.entries(&odd).await.unwrap().entries.len(), 5);
    let tagged = EntryQuery { tag: Some("tag-4".into()), from_ms: T + 50_000_000, ..odd };
    let found = store.entries(&tagged).await.unwrap();
    assert_eq!((found.entries[0].cost_nano_usd, found.entries.len(), found.next), (1 << 9, 1, None));
    let id = found.entries[0].row.request_id.clone();
    let by_id = EntryQuery { request_id: Some(id), limit: 100, ..all.clone() };
    assert_eq!(store.entries(&by_id).await.unwrap().entries, found.entries);
    let bad = store.entries(&EntryQuery { after: Some("nonsense".into()), ..all.clone() }).await;
    assert!(matches!(bad, Err(StoreError::Failed(_))));

    let days = store.rollups("2026-11-01", "2026-11-01").await.unwrap();
    let of_keys: Vec<_> = days.iter().filter(|day| day.of.id.starts_with("key-")).collect();
    assert_eq!(of_keys.iter().map(|day| day.requests).sum::<u64>(), 9, "{days:?}");
    assert_eq!(of_keys.iter().map(|day| day.cost_nano_usd).sum::<i64>(), 511);
    assert_eq!(of_keys.iter().map(|day| day.prompt_tokens).sum::<u64>(), 27);
    assert_eq!(store.rollups("2026-11-02", "2026-11-30").await.unwrap().len(), 2);

    store.forget(T + 40_000_000).await.unwrap();
    assert_eq!(store.entries(&EntryQuery { limit: 100, ..all }).await.unwrap().entries.len(), 6);
    assert_eq!(store.rollups("2026-11-01", "2026-11-01").await.unwrap(), days);
    assert_eq!(balance(&store).await.0, 1_023);
}

#[tokio::test]
async fn forgetting_many_entries_takes_several_transactions() {
    let file = Place::new("forget");
    let (store, now_ms) = file.open();
    let ops: Vec<Op> = (0..12_001).map(|number| spend(&number.to_string(), 1, Row::default())).collect();
    store.apply(&NodeId::new("n"), 1, &ops).await.unwrap();
    now_ms.store(T + 1, Ordering::Relaxed);
    store.apply(&NodeId::new("m"), 1, &ops[..1]).await.unwrap();
    store.forget(T + 1).await.unwrap();
    let rest = EntryQuery { to_ms: u64::MAX, limit: 100, ..EntryQuery::default() };
    assert_eq!(store.entries(&rest).await.unwrap().entries.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_at_the_same_time_share_transactions_and_each_counts_once() {
    let file = Place::new("group");
    let (store, _) = file.open();
    let store = Arc::new(store);
    let started = Instant::now();
    let callers: Vec<_> = (0..64)
        .map(|caller| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let node = NodeId::new(format!("n{caller}"));
                for number in 1..=10 {
                    let op = spend(&format!("{caller}.{number}"), 1, Row::default());
                    assert_eq!(store.apply(&node, number, &[op]).await.unwrap().last, number);
                    let id = format!("{caller}.{number}");
                    store.commit(&[change(Kind::Tag, &id, Expect::Nothing, Some("{}"))]).await.unwrap();
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    println!("1,280 durable commands in {:?}", started.elapsed());
    assert_eq!(balance(&store).await, (640, 0));
    assert_eq!(store.list(Kind::Tag, None, 10_000).await.unwrap().len(), 640);
}

#[tokio::test]
async fn what_expired_on_the_way_is_saved_with_the_next_command() {
    let file = Place::new("on-the-way");
    let (store, now_ms) = file.open();
    store.reserve(&ask("a", 100)).await.unwrap();
    now_ms.store(T + 1_000, Ordering::Relaxed);
    store.reserve(&ask("b", 100)).await.unwrap();
    store.apply(&NodeId::new("n"), 1, &[Op::Close { lease: LeaseId::new("b") }]).await.unwrap();
    let all = EntryQuery { to_ms: u64::MAX, limit: 100, ..EntryQuery::default() };
    let entries = store.entries(&all).await.unwrap().entries;
    assert_eq!(entries.iter().map(|entry| entry.kind).collect::<Vec<_>>(), [EntryKind::Expired]);
}

/// A disk that can be made to fail.
#[derive(Debug)]
struct Disk {
    memory: InMemoryBackend,
    full: Arc<AtomicBool>,
}

impl Disk {
    fn check(&self) -> Result<(), io::Error> {
        if self.full.load(Ordering::Relaxed) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        self.memory.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.memory.read(offset, out)
    }
    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.check()?;
        self.memory.set_len(len)
    }
    fn sync_data(&self) -> Result<(), io::Error> {
        self.check()?;
        self.memory.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.check()?;
        self.memory.write(offset, data)
    }
}

#[tokio::test]
async fn a_disk_that_fails_is_told_to_the_caller_and_the_store_answers_no_more() {
    let full = Arc::new(AtomicBool::new(false));
    let disk = Disk { memory: InMemoryBackend::new(), full: Arc::clone(&full) };
    let database = Database::builder().create_with_backend(disk).unwrap();
    let store = Embedded::begin(database, Path::new("disk"), Clock::new(|| T)).unwrap();
    let node = NodeId::new("n");
    store.apply(&node, 1, &[spend("a", 1, Row::default())]).await.unwrap();
    full.store(true, Ordering::Relaxed);
    let failed = store.apply(&node, 2, &[spend("b", 1, Row::default())]).await;
    assert!(matches!(failed, Err(StoreError::Failed(_))), "{failed:?}");
    full.store(false, Ordering::Relaxed);
    assert!(store.apply(&node, 2, &[]).await.is_err());
    assert!(store.reserve(&ask("c", 1)).await.is_err());
    assert!(store.balances(&[account("key")]).await.is_err());
    assert!(store.get(Kind::Key, "k").await.is_err());
    assert!(store.claim(&account("key"), "m").await.is_err());
    let refused = store.commit(&[change(Kind::Key, "k", Expect::Anything, Some("{}"))]).await;
    assert!(matches!(refused, Err(CommitError::Store(StoreError::Failed(_)))), "{refused:?}");
}

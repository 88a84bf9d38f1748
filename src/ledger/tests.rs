use std::collections::HashMap;
use std::env;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::*;
use crate::budget::command::Scope;
use crate::budget::entry::EntryKind;
use fake::{Client, Server};

mod chaos;
mod fake;
mod slices;
mod turns;

/// A directory that goes away with the test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let path = env::temp_dir().join(format!("ledger-{}", Uuid::now_v7()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn settings(directory: &Path) -> Settings {
    Settings {
        directory: directory.to_owned(),
        lease_ttl: Duration::from_mins(2),
        slice_max: NanoUsd(0),
        entries_retention: Duration::from_hours(24),
        store_timeout: Duration::from_millis(300),
        on_soft_budget: None,
    }
}

/// One process.
struct Replica {
    ledger: Arc<Ledger>,
    client: Arc<Client>,
    directory: Directory,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Replica {
    fn start(server: &Arc<Server>, local: bool) -> Self {
        Self::start_in(Directory::new(), server, local, |_| {})
    }

    fn start_in(directory: Directory, server: &Arc<Server>, local: bool, with: impl FnOnce(&mut Settings)) -> Self {
        let client = Client::new(server, local);
        let mut settings = settings(&directory.0);
        with(&mut settings);
        let store: Arc<dyn LedgerStore> = Arc::<Client>::clone(&client);
        let ledger = Ledger::open(store, settings, Arc::new(Metrics::new().unwrap())).unwrap();
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(Arc::clone(&ledger).run(async move { drop(stopped.await) }));
        Self { ledger, client, directory, stop, running }
    }

    /// As after `kill -9`: nothing reaches the store any more, and only what was written survives.
    fn crash(self) -> Directory {
        self.client.cut.store(true, Relaxed);
        self.running.abort();
        copy(&self.directory)
    }

    async fn stop(self) -> Directory {
        self.stop.send(()).unwrap();
        self.running.await.unwrap();
        self.directory
    }

    async fn settled(&self) {
        eventually("everything is confirmed", || self.ledger.is_up() && self.ledger.backlog() == 0).await;
    }
}

fn copy(directory: &Directory) -> Directory {
    let copy = Directory::new();
    for slot in std::fs::read_dir(&directory.0).unwrap() {
        let slot = slot.unwrap();
        let to = copy.0.join(slot.file_name());
        std::fs::create_dir_all(&to).unwrap();
        for file in std::fs::read_dir(slot.path()).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
    copy
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}: not within 20 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn account() -> AccountId {
    AccountId::new("key/k%2F1/total")
}

fn charges(limit: Option<u64>) -> Vec<Charge> {
    let limit = limit.map(NanoUsd);
    vec![
        Charge { account: account(), scope: Scope::Key, limit, forget_at_ms: None },
        Charge { account: AccountId::new("team/t/total"), scope: Scope::Team, limit: None, forget_at_ms: None },
    ]
}

fn ask(amount: u64, limit: u64) -> Ask {
    let id = Uuid::now_v7();
    Ask {
        lease: LeaseId::new(format!("{id}.0")),
        amount: NanoUsd(amount),
        tokens: 10,
        charges: charges(Some(limit)),
        throttles: Vec::new(),
        soft: Vec::new(),
        row: Row { request_id: id.to_string(), key_id: "k".to_owned(), ..Row::default() }.into(),
    }
}

fn row() -> Row {
    Row { request_id: "settled".to_owned(), status: 200, ..Row::default() }
}

fn spent(server: &Server) -> u64 {
    server.balance(&account()).spent.0
}

fn reserved(server: &Server) -> u64 {
    server.balance(&account()).reserved.0
}

#[tokio::test]
async fn what_is_reserved_is_held_and_what_is_settled_is_booked() {
    for local in [true, false] {
        let server = Arc::new(Server::default());
        let replica = Replica::start(&server, local);
        let mut reservation = replica.ledger.reserve(ask(60, 100)).await.unwrap();
        assert_eq!((reservation.amount(), reservation.balances()[0].reserved), (NanoUsd(60), NanoUsd(60)));
        assert_eq!((spent(&server), reserved(&server)), (0, 60));
        reservation.extend_to(NanoUsd(80)).await.unwrap();
        assert_eq!(reserved(&server), 80);
        let refused = reservation.extend_to(NanoUsd(101)).await.unwrap_err();
        assert!(matches!(refused, Refused::Denied(Denial::Budget { index: 0, .. }, _)), "{refused}");
        reservation.settle(NanoUsd(70), 5, row());
        replica.settled().await;
        assert_eq!((spent(&server), reserved(&server), server.open()), (70, 0, 0));
        let entries = server.entries();
        assert_eq!((entries.len(), entries[0].cost_nano_usd, entries[0].row.status), (1, 70, 200));
        replica.stop().await;
    }
}

#[tokio::test]
async fn a_refusal_gives_the_ask_back_and_changes_nothing() {
    let server = Arc::new(Server::default());
    let replica = Replica::start(&server, false);
    let asked = ask(101, 100);
    match replica.ledger.reserve(asked.clone()).await.unwrap_err() {
        Refused::Denied(Denial::Budget { index: 0, remaining }, back) => {
            assert_eq!((remaining, *back), (NanoUsd(100), asked.clone()));
        }
        other => panic!("{other}"),
    }
    assert_eq!((spent(&server), reserved(&server), server.open()), (0, 0, 0));
    let smaller = Ask { amount: NanoUsd(100), ..asked };
    replica.ledger.reserve(smaller).await.unwrap().void();
    replica.settled().await;
    assert_eq!((spent(&server), reserved(&server), server.entries().len()), (0, 0, 0));
    replica.stop().await;
}

#[tokio::test]
async fn the_next_call_is_not_refused_because_the_store_has_not_heard_of_the_end_of_the_last() {
    for local in [true, false] {
        let server = Arc::new(Server::default());
        let replica = Replica::start(&server, local);
        for _ in 0..50 {
            let reservation = replica.ledger.reserve(ask(90, 150)).await.unwrap();
            reservation.settle(NanoUsd(1), 1, row());
        }
        replica.settled().await;
        assert_eq!(spent(&server), 50);
        replica.stop().await;
    }
}

#[tokio::test]
async fn a_dropped_reservation_is_charged_in_full() {
    let server = Arc::new(Server::default());
    let replica = Replica::start(&server, true);
    drop(replica.ledger.reserve(ask(60, 100)).await.unwrap());
    replica.settled().await;
    assert_eq!((spent(&server), reserved(&server)), (60, 0));
    assert_eq!(server.entries()[0].row.certainty, "unknown");
    replica.stop().await;
}

#[tokio::test]
async fn a_call_without_limits_is_counted_even_while_the_store_is_down() {
    let server = Arc::new(Server::default());
    server.down.store(true, Relaxed);
    let replica = Replica::start(&server, false);
    for _ in 0..200 {
        let reservation = replica.ledger.count(ask(0, 0).lease, charges(None), row().into());
        reservation.settle(NanoUsd(3), 1, row());
    }
    eventually("the store is known to be down", || replica.ledger.link.down().is_some()).await;
    let refused = replica.ledger.reserve(ask(1, 100)).await.unwrap_err();
    assert!(matches!(refused, Refused::Unavailable(_)), "{refused}");
    assert!(replica.ledger.submit(Op::Close { lease: LeaseId::new("x") }).await.is_err());
    assert_eq!(replica.ledger.backlog(), 200);
    server.down.store(false, Relaxed);
    replica.settled().await;
    assert_eq!((spent(&server), server.entries().len()), (600, 200));
    replica.stop().await;
}

#[tokio::test]
async fn a_store_that_stops_is_noticed_within_a_second_and_so_is_its_return() {
    let server = Arc::new(Server::default());
    let replica = Replica::start(&server, false);
    eventually("up", || replica.ledger.is_up()).await;
    // It takes connections and never answers.
    server.delay_ms.store(60_000, Relaxed);
    let begun = Instant::now();
    eventually("down", || !replica.ledger.is_up()).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    server.delay_ms.store(0, Relaxed);
    let begun = Instant::now();
    eventually("up again", || replica.ledger.is_up()).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    replica.stop().await;
}

#[tokio::test]
async fn whoever_gives_up_asking_leaves_nothing_open() {
    let server = Arc::new(Server::default());
    let replica = Replica::start(&server, false);
    replica.settled().await;
    server.lost_answers.store(100, Relaxed);
    assert!(matches!(replica.ledger.reserve(ask(60, 100)).await, Err(Refused::Unavailable(_))));
    server.lost_answers.store(0, Relaxed);
    eventually("given back", || server.open() == 0 && reserved(&server) == 0).await;
    // The client goes away while the store thinks.
    eventually("up", || replica.ledger.is_up()).await;
    server.delay_ms.store(50, Relaxed);
    let asking = tokio::time::timeout(Duration::from_millis(10), replica.ledger.reserve(ask(60, 100))).await;
    assert!(asking.is_err());
    server.delay_ms.store(0, Relaxed);
    replica.settled().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!((server.open(), reserved(&server)), (0, 0));
    replica.stop().await;
}

#[tokio::test]
async fn a_crash_charges_what_was_in_flight_and_books_what_was_settled() {
    for local in [true, false] {
        let server = Arc::new(Server::default());
        let replica = Replica::start(&server, local);
        let first = replica.ledger.reserve(ask(60, 1000)).await.unwrap();
        let mut second = replica.ledger.reserve(ask(70, 1000)).await.unwrap();
        second.extend_to(NanoUsd(75)).await.unwrap();
        let third = replica.ledger.reserve(ask(80, 1000)).await.unwrap();
        // Asked for, and never used.
        if !local {
            replica.ledger.backlog.asking(&LeaseId::new("unused")).unwrap();
        }
        replica.client.cut.store(true, Relaxed);
        first.settle(NanoUsd(6), 1, row());
        third.void();
        let directory = replica.crash();
        drop(second);
        let replica = Replica::start_in(directory, &server, local, |_| {});
        replica.settled().await;
        assert_eq!((spent(&server), reserved(&server), server.open()), (81, 0, 0));
        let directory = replica.stop().await;
        // And once only.
        let replica = Replica::start_in(copy(&directory), &server, local, |_| {});
        replica.settled().await;
        assert_eq!((spent(&server), server.entries().len()), (81, 2));
        replica.stop().await;
    }
}

#[tokio::test]
async fn a_last_record_torn_at_any_byte_counts_as_not_written() {
    let server = Arc::new(Server::default());
    let replica = Replica::start(&server, true);
    replica.settled().await;
    replica.client.cut.store(true, Relaxed);
    replica.running.abort();
    let path = replica.ledger.backlog.segment_paths().pop().unwrap();
    let pending = |lease: &str, amount| {
        let Ask { charges, row, .. } = ask(0, 1000);
        let lease = LeaseId::new(lease);
        Arc::new(Pending { lease, amount: NanoUsd(amount), tokens: 0, charges, slice: None, row })
    };
    replica.ledger.backlog.reserved_now(&pending("a", 60)).unwrap();
    let before = std::fs::metadata(&path).unwrap().len();
    let settle = Op::Spend {
        lease: Some(LeaseId::new("a")),
        close: true,
        cost: NanoUsd(6),
        tokens: 0,
        charges: charges(None),
        row: row().into(),
    };
    replica.ledger.backlog.push(settle, Some(&LeaseId::new("a")));
    let after = std::fs::metadata(&path).unwrap().len();
    assert!(after > before + 50);
    for length in before..=after {
        let torn = copy(&replica.directory);
        let file = torn.0.join("journal-0").join(path.file_name().unwrap());
        std::fs::OpenOptions::new().write(true).open(file).unwrap().set_len(length).unwrap();
        let backlog = Backlog::open(&upkeep::slot_path(&torn.0, 0)).unwrap().unwrap();
        // The settlement alone, or the charge for a call in flight in its place.
        assert_eq!(backlog.last(), 1);
        let server = Arc::new(Server::default());
        let link = Link::new(Client::new(&server, true), Arc::new(Metrics::new().unwrap()), Duration::from_secs(1));
        let mut outbox = outbox::Outbox::new(Arc::new(backlog), Arc::new(link));
        while outbox.step(false).await.unwrap() != outbox::Step::Idle {}
        assert_eq!(spent(&server), if length == after { 6 } else { 60 }, "torn at {length} of {before}..{after}");
    }
}

#[tokio::test]
async fn what_a_failover_lost_is_sent_again() {
    let server = Arc::new(Server::default());
    let replica = Replica::start(&server, false);
    let mut ages = Vec::new();
    for _ in 0..60 {
        replica.ledger.reserve(ask(10, 10_000)).await.unwrap().settle(NanoUsd(7), 1, row());
        replica.settled().await;
        ages.push(server.age());
    }
    let open = replica.ledger.reserve(ask(10, 10_000)).await.unwrap();
    for age in [ages[50], ages[20], ages[0], 0] {
        server.fall_back(age);
        eventually("sent again", || spent(&server) == 420).await;
    }
    // Its lease is lost, its money is not.
    open.settle(NanoUsd(9), 1, row());
    replica.settled().await;
    assert_eq!((spent(&server), reserved(&server), server.entries().len()), (429, 0, 61));
    replica.stop().await;
}

#[tokio::test]
async fn a_store_that_was_emptied_gets_what_the_journal_still_holds() {
    let server = Arc::new(Server::default());
    let replica = Replica::start(&server, false);
    for _ in 0..30 {
        replica.ledger.reserve(ask(10, 10_000)).await.unwrap().settle(NanoUsd(7), 1, row());
    }
    replica.settled().await;
    let open = replica.ledger.reserve(ask(10, 10_000)).await.unwrap();
    let name = replica.ledger.backlog.name();
    // Ten minutes later, twice: the segment ends, and is deleted.
    for minutes in [11, 22] {
        let now = SystemTime::now() + Duration::from_mins(minutes);
        replica.ledger.backlog.clean(now).unwrap();
    }
    assert_eq!(replica.ledger.backlog.segment_paths().len(), 1);
    server.fall_back(0);
    eventually("known under another name", || replica.ledger.backlog.name() != name).await;
    open.settle(NanoUsd(9), 1, row());
    replica.settled().await;
    assert_eq!((spent(&server), server.entries().len()), (9, 1));
    // The new name survives a restart.
    let directory = replica.stop().await;
    let replica = Replica::start_in(copy(&directory), &server, false, |_| {});
    replica.ledger.reserve(ask(10, 10_000)).await.unwrap().settle(NanoUsd(7), 1, row());
    replica.settled().await;
    assert_eq!((spent(&server), server.entries().len()), (16, 2));
    replica.stop().await;
}

#[tokio::test]
async fn an_old_copy_of_a_journal_does_not_swallow_new_commands() {
    let server = Arc::new(Server::default());
    let replica = Replica::start(&server, false);
    replica.ledger.reserve(ask(10, 10_000)).await.unwrap().settle(NanoUsd(7), 1, row());
    replica.settled().await;
    let old = copy(&replica.directory);
    for _ in 0..5 {
        replica.ledger.reserve(ask(10, 10_000)).await.unwrap().settle(NanoUsd(7), 1, row());
    }
    replica.settled().await;
    replica.stop().await;
    server.down.store(true, Relaxed);
    let replica = Replica::start_in(old, &server, false, |_| {});
    for _ in 0..9 {
        replica.ledger.count(ask(0, 0).lease, charges(None), row().into()).settle(NanoUsd(1), 1, row());
    }
    server.down.store(false, Relaxed);
    replica.settled().await;
    assert_eq!((spent(&server), server.entries().len()), (51, 15));
    replica.stop().await;
}

#[tokio::test]
async fn old_segments_are_deleted_and_what_is_open_is_carried_over() {
    let server = Arc::new(Server::default());
    let replica = Replica::start(&server, false);
    let mut open = replica.ledger.reserve(ask(10, 10_000)).await.unwrap();
    open.extend_to(NanoUsd(12)).await.unwrap();
    replica.settled().await;
    for minutes in [11, 22, 33, 44] {
        let now = SystemTime::now() + Duration::from_mins(minutes);
        replica.ledger.backlog.clean(now).unwrap();
        assert!(replica.ledger.backlog.segment_paths().len() <= 2);
    }
    let directory = replica.crash();
    drop(open);
    let replica = Replica::start_in(directory, &server, false, |_| {});
    replica.settled().await;
    assert_eq!((spent(&server), reserved(&server)), (12, 0));
    // What is not confirmed is not deleted.
    server.down.store(true, Relaxed);
    eventually("down", || !replica.ledger.is_up()).await;
    replica.ledger.count(ask(0, 0).lease, charges(None), row().into()).settle(NanoUsd(1), 1, row());
    for minutes in [11, 22, 33] {
        replica.ledger.backlog.clean(SystemTime::now() + Duration::from_mins(minutes)).unwrap();
    }
    let replica = Replica::start_in(replica.crash(), &server, false, |_| {});
    server.down.store(false, Relaxed);
    replica.settled().await;
    assert_eq!(spent(&server), 13);
    replica.stop().await;
}

#[tokio::test]
async fn a_full_disk_refuses_new_calls_and_loses_no_settlement() {
    let server = Arc::new(Server::default());
    let replica = Replica::start(&server, false);
    let open = replica.ledger.reserve(ask(10, 1000)).await.unwrap();
    let voided = replica.ledger.reserve(ask(10, 1000)).await.unwrap();
    replica.settled().await;
    replica.ledger.backlog.fill_disk(true);
    let refused = replica.ledger.reserve(ask(10, 1000)).await.unwrap_err();
    assert!(matches!(refused, Refused::Failed(_)), "{refused}");
    open.settle(NanoUsd(7), 1, row());
    voided.void();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!((spent(&server), replica.ledger.backlog()), (0, 2));
    replica.ledger.backlog.fill_disk(false);
    replica.settled().await;
    assert_eq!((spent(&server), reserved(&server)), (7, 0));
    replica.ledger.reserve(ask(10, 1000)).await.unwrap().settle(NanoUsd(1), 1, row());
    replica.settled().await;
    let directory = replica.stop().await;
    let replica = Replica::start_in(copy(&directory), &server, false, |_| {});
    replica.settled().await;
    assert_eq!((spent(&server), server.open()), (8, 0));
    replica.stop().await;
}

#[tokio::test]
async fn replicas_share_a_directory_and_one_that_is_gone_is_adopted() {
    let server = Arc::new(Server::default());
    let gone = Replica::start(&server, false);
    let in_flight = gone.ledger.reserve(ask(10, 1000)).await.unwrap();
    let settled = gone.ledger.reserve(ask(10, 1000)).await.unwrap();
    gone.client.cut.store(true, Relaxed);
    settled.settle(NanoUsd(3), 1, row());
    let left = gone.crash();
    drop(in_flight);
    let directory = Directory::new();
    std::fs::rename(left.0.join("journal-0"), directory.0.join("journal-2")).unwrap();
    let path = directory.0.clone();
    let first = Replica::start_in(directory, &server, false, |_| {});
    let second = Replica::start_in(Directory::new(), &server, false, |settings| settings.directory = path);
    assert_eq!((first.ledger.slot, second.ledger.slot), (0, 1));
    eventually("adopted", || (spent(&server), reserved(&server), server.open()) == (13, 0, 0)).await;
    second.stop().await;
    first.stop().await;
    assert_eq!(server.entries().len(), 2);
}

#[tokio::test]
async fn a_lease_that_expired_is_corrected_by_the_settlement() {
    let server = Arc::new(Server::default());
    let replica = Replica::start(&server, false);
    let open = replica.ledger.reserve(ask(100, 1000)).await.unwrap();
    server.advance(Duration::from_secs(121));
    eventually("expired", || spent(&server) == 100).await;
    open.settle(NanoUsd(7), 1, row());
    replica.settled().await;
    assert_eq!((spent(&server), reserved(&server)), (7, 0));
    let sum: i64 = server.entries().iter().map(|entry| entry.cost_nano_usd).sum();
    assert_eq!(sum, 7);
    assert!(server.entries().iter().any(|entry| entry.kind == EntryKind::Expired));
    replica.stop().await;
}

#[tokio::test]
async fn heartbeats_keep_long_calls_open() {
    let server = Arc::new(Server::default());
    let ttl = Duration::from_millis(800);
    let replica = Replica::start_in(Directory::new(), &server, false, |settings| settings.lease_ttl = ttl);
    let open = replica.ledger.reserve(ask(100, 1000)).await.unwrap();
    tokio::time::sleep(ttl * 3).await;
    replica.client.reap(100).await.unwrap();
    assert_eq!((spent(&server), reserved(&server)), (0, 100));
    open.void();
    replica.settled().await;
    replica.stop().await;
}

#[tokio::test]
async fn a_command_of_the_management_api_resolves_when_the_store_has_it() {
    let server = Arc::new(Server::default());
    let replica = Replica::start(&server, true);
    replica.ledger.reserve(ask(100, 1000)).await.unwrap().settle(NanoUsd(50), 1, row());
    let reset = Op::Reset { account: account(), spent: NanoUsd(5), row: Arc::default() };
    replica.ledger.submit(reset).await.unwrap();
    assert_eq!(spent(&server), 5);
    replica.stop().await;
}

#[tokio::test]
async fn a_soft_budget_is_told_of_once_by_one_replica() {
    let server = Arc::new(Server::default());
    let told = Arc::new(Mutex::new(Vec::new()));
    let start = || {
        let told = Arc::clone(&told);
        Replica::start_in(Directory::new(), &server, false, |settings| {
            settings.on_soft_budget = Some(Arc::new(move |soft| told.lock().unwrap().push(soft)));
        })
    };
    let (one, two) = (start(), start());
    let call = async |replica: &Replica, cost| {
        let row = Row { key_alias: Some("alias".to_owned()), ..row() };
        let asked = Ask { soft: vec![(0, NanoUsd(100))], ..ask(60, 1000) };
        replica.ledger.reserve(asked).await.unwrap().settle(NanoUsd(cost), 1, row);
        replica.settled().await;
    };
    call(&one, 49).await;
    call(&two, 50).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(told.lock().unwrap().is_empty());
    call(&one, 1).await;
    eventually("told", || !told.lock().unwrap().is_empty()).await;
    call(&one, 20).await;
    call(&two, 20).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let told = told.lock().unwrap().clone();
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].spent, told[0].id.as_str(), told[0].alias.as_deref()), (NanoUsd(100), "k/1", Some("alias")));
    one.stop().await;
    two.stop().await;
}

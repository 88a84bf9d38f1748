//! A store that changes hands while it is used: both processes are of this test, with a `Movable` each.

use std::env;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::budget::command::{Scope, Throttle};
use crate::budget::entry::Row;
use crate::store::Expect;

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let directory = env::temp_dir().join(format!("dheera-ai-movable-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        Self(directory)
    }

    async fn open(&self) -> Arc<Movable> {
        let store = Arc::new(Movable::open(&self.0.join("store.redb")).unwrap());
        store.serve().await.unwrap();
        store
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn account() -> AccountId {
    AccountId::new("key")
}

fn charges() -> Vec<Charge> {
    vec![Charge { account: account(), scope: Scope::Key, limit: Some(NanoUsd(1_000)), forget_at_ms: None }]
}

fn ask(id: &str, amount: u64) -> Reserve {
    Reserve {
        lease: LeaseId::new(id),
        amount: NanoUsd(amount),
        tokens: 0,
        ttl_ms: 60_000,
        charges: charges(),
        throttles: vec![Throttle {
            account: AccountId::new("rate"),
            scope: Scope::Key,
            rpm: None,
            tpm: None,
            parallel: Some(2),
        }],
        row: Row { request_id: id.to_owned(), ..Row::default() }.into(),
    }
}

fn spend(id: &str, cost: u64) -> Op {
    Op::Spend {
        lease: Some(LeaseId::new(id)),
        close: true,
        cost: NanoUsd(cost),
        tokens: 0,
        charges: charges(),
        row: Row { request_id: id.to_owned(), ..Row::default() }.into(),
    }
}

async fn balance(store: &Movable) -> (u64, u64) {
    let balance = store.balances(&[account()]).await.unwrap()[0];
    (balance.spent.0, balance.reserved.0)
}

fn granted(answer: &Result<Reserved, StoreError>) -> bool {
    matches!(answer, Ok(Reserved::Granted { .. }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_and_limits_move_with_the_store_and_old_processes_settle_in_the_new_one() {
    let place = Place::new("leases");
    let old = place.open().await;
    assert!(granted(&old.reserve(&ask("stream", 600)).await));
    old.release().await.unwrap();
    let new = place.open().await;
    assert_eq!(balance(&new).await, (0, 600), "what is set aside stays set aside");
    assert_eq!(balance(&old).await, (0, 600), "the old process asks the new one");
    assert!(matches!(new.reserve(&ask("too much", 500)).await, Ok(Reserved::Denied(_))));
    assert!(granted(&old.reserve(&ask("fits", 400)).await));
    assert!(matches!(new.reserve(&ask("a third", 0)).await, Ok(Reserved::Denied(_))), "two run at once already");
    let node = NodeId::new("old");
    assert_eq!(old.apply(&node, 1, &[spend("stream", 70), spend("fits", 30)]).await.unwrap(), Applied { last: 2 });
    assert_eq!(old.apply(&node, 1, &[spend("stream", 70), spend("fits", 30)]).await.unwrap(), Applied { last: 2 });
    assert_eq!(balance(&new).await, (100, 0));
    assert_eq!(new.lease_counts().await.unwrap().open, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_nobody_takes_over_goes_back_with_its_leases() {
    let place = Place::new("back");
    let old = place.open().await;
    assert!(granted(&old.reserve(&ask("stream", 600)).await));
    old.release().await.unwrap();
    let waiting = tokio::spawn({
        let old = Arc::clone(&old);
        async move { balance(&old).await }
    });
    old.take_back().await.unwrap();
    assert_eq!(waiting.await.unwrap(), (0, 600), "who asked meanwhile is answered");
    assert_eq!(old.lease_counts().await.unwrap().open, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_with_the_store_takes_no_lease_of_another_along() {
    let place = Place::new("died");
    let old = place.open().await;
    for (id, amount) in [("stream", 600), ("ends", 50)] {
        assert!(granted(&old.reserve(&ask(id, amount)).await));
    }
    old.release().await.unwrap();
    let new = place.open().await;
    let node = NodeId::new("old");
    assert_eq!(old.apply(&node, 1, &[spend("ends", 20)]).await.unwrap(), Applied { last: 1 });
    assert!(granted(&old.extend(&LeaseId::new("stream"), NanoUsd(700), &charges()).await));
    assert!(granted(&old.reserve(&ask("meanwhile", 100)).await));
    // As after a signal that cannot be caught: the file as it is now.
    let killed = Place::new("killed");
    std::fs::copy(place.0.join("store.redb"), killed.0.join("store.redb")).unwrap();
    assert_eq!(balance(&*killed.open().await).await, (20, 800));
    assert!(granted(&new.reserve(&Reserve { throttles: Vec::new(), ..ask("its own", 30) }).await));
    assert_eq!(balance(&old).await, (20, 830));
    end_without_leaving(new).await;
    old.take_back().await.unwrap();
    assert_eq!(balance(&old).await, (20, 800), "what is set aside stays set aside");
    assert_eq!(old.lease_counts().await.unwrap().open, 2, "what has ended stays so, and the dead one has no calls");
    assert!(matches!(old.reserve(&ask("too much", 200)).await, Ok(Reserved::Denied(_))));
    let ends = [spend("stream", 650), spend("meanwhile", 90)];
    assert_eq!(old.apply(&node, 2, &ends).await.unwrap(), Applied { last: 3 });
    assert_eq!(balance(&old).await, (760, 0));
}

/// Ends a process, as far as its store is concerned, without a word to the next one.
async fn end_without_leaving(store: Arc<Movable>) {
    store.server.lock().await.take().unwrap().stop().await;
    drop(Arc::into_inner(store).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_finishes_settles_with_whoever_opens_the_store_after_one_that_died() {
    let place = Place::new("later");
    let old = place.open().await;
    assert!(granted(&old.reserve(&ask("stream", 600)).await));
    old.release().await.unwrap();
    end_without_leaving(place.open().await).await;
    let later = place.open().await;
    assert_eq!(balance(&later).await, (0, 600));
    assert!(granted(&old.extend(&LeaseId::new("stream"), NanoUsd(700), &charges()).await));
    assert_eq!(old.apply(&NodeId::new("old"), 1, &[spend("stream", 650)]).await.unwrap(), Applied { last: 1 });
    assert_eq!(balance(&later).await, (650, 0));
    end_without_leaving(later).await;
    assert_eq!(place.open().await.lease_counts().await.unwrap().open, 0, "it has ended in the file, too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_whose_process_is_gone_expire_in_whoever_has_the_store() {
    let place = Place::new("expired");
    let old = place.open().await;
    assert!(granted(&old.reserve(&Reserve { ttl_ms: 1, ..ask("stream", 600) }).await));
    old.release().await.unwrap();
    end_without_leaving(place.open().await).await;
    let later = place.open().await;
    while later.lease_counts().await.unwrap().expired_total == 0 {
        later.reap(10).await.unwrap();
    }
    assert_eq!(balance(&later).await, (600, 0), "each has its own expiry still");
    end_without_leaving(later).await;
    let last = place.open().await;
    assert_eq!((balance(&last).await, last.lease_counts().await.unwrap().open), ((600, 0), 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_of_a_chain_of_processes_are_applied_once_each_however_often_the_store_moves() {
    const COMMANDS: u64 = 200;
    let place = Place::new("chain");
    let first = place.open().await;
    let sent = Arc::new(AtomicU64::new(0));
    let sending = tokio::spawn({
        let (store, sent) = (Arc::clone(&first), Arc::clone(&sent));
        async move {
            let node = NodeId::new("first");
            for number in 1..=COMMANDS {
                let id = format!("call-{number}");
                assert!(granted(&store.reserve(&ask(&id, 1)).await), "{number}");
                assert_eq!(store.apply(&node, number, &[spend(&id, 1)]).await.unwrap(), Applied { last: number });
                sent.store(number, Ordering::Relaxed);
            }
        }
    });
    let mut owner = Arc::clone(&first);
    let mut chain = Vec::new();
    while sent.load(Ordering::Relaxed) < COMMANDS - 20 {
        let before = sent.load(Ordering::Relaxed);
        owner.release().await.unwrap();
        chain.push(std::mem::replace(&mut owner, place.open().await));
        while sent.load(Ordering::Relaxed) == before {
            tokio::task::yield_now().await;
        }
    }
    sending.await.unwrap();
    assert!(chain.len() > 1, "the store moved {} times", chain.len());
    for store in chain.iter().chain([&owner]) {
        assert_eq!(balance(store).await, (COMMANDS, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_are_found_and_changed_through_another_process() {
    let place = Place::new("documents");
    let old = place.open().await;
    let change = |expect| [Change { kind: Kind::Key, id: "a".to_owned(), expect, json: Some("{}".to_owned()) }];
    old.commit(&change(Expect::Nothing)).await.unwrap();
    let seen = old.changes(None).await.unwrap();
    old.release().await.unwrap();
    let new = place.open().await;
    assert!(old.changes(Some(&seen.cursor)).await.unwrap().lost, "everything may be stale");
    assert_eq!(old.commit(&change(Expect::Nothing)).await, Err(CommitError::Conflict(0)));
    let document = old.get(Kind::Key, "a").await.unwrap().unwrap();
    old.commit(&change(Expect::Version(document.version))).await.unwrap();
    assert_eq!(new.list(Kind::Key, None, 10).await.unwrap(), old.list(Kind::Key, None, 10).await.unwrap());
    assert!(new.get(Kind::Key, "a").await.unwrap().unwrap().version > document.version);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_socket_is_for_the_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new("socket");
    let _store = place.open().await;
    assert_eq!(std::fs::metadata(place.0.join(SOCKET)).unwrap().permissions().mode() & 0o777, 0o600);
}

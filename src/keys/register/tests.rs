use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

use super::*;
use crate::keys::memory_directory::MemoryDirectory;

fn register() -> (Arc<MemoryDirectory>, Arc<Register>) {
    let directory = Arc::new(MemoryDirectory::default());
    let register = Arc::new(Register::new(Arc::clone(&directory) as Arc<dyn Directory>, 1_000));
    (directory, register)
}

async fn alias(register: &Register, id: &str) -> Lookup<String> {
    Ok(register.record(Kind::Team, id).await?.map(|record| record.alias.clone().unwrap()))
}

fn team(alias: &str) -> String {
    format!(r#"{{"id":"t","alias":"{alias}"}}"#)
}

#[tokio::test]
async fn a_record_is_read_once_and_then_held() {
    let (directory, register) = register();
    directory.put(Kind::Team, "t", team("one"));
    for _ in 0..3 {
        assert_eq!(alias(&register, "t").await, Ok(Some("one".to_owned())));
    }
    assert_eq!(directory.gets.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_absence_is_held_too_until_it_is_forgotten() {
    let (directory, register) = register();
    for _ in 0..3 {
        assert_eq!(register.secret("d").await, Ok(None));
    }
    assert_eq!(directory.gets.load(Ordering::SeqCst), 1);
    directory.put(Kind::Secret, "d", r#"{"key_id":"k"}"#);
    register.forget(Kind::Secret, "d");
    assert_eq!(register.secret("d").await.unwrap().unwrap().key_id, "k");
}

#[tokio::test]
async fn made_up_names_neither_grow_the_memory_nor_push_out_what_is_held() {
    let (directory, register) = register();
    directory.put(Kind::Team, "t", team("one"));
    assert!(alias(&register, "t").await.unwrap().is_some());
    for number in 0..20_000 {
        assert_eq!(register.secret(&number.to_string()).await, Ok(None));
    }
    assert!(register.absent.len() <= 1_000, "{register:?}");
    let before = directory.gets.load(Ordering::SeqCst);
    assert!(alias(&register, "t").await.unwrap().is_some());
    assert_eq!(directory.gets.load(Ordering::SeqCst), before);
}

#[tokio::test]
async fn one_reads_for_all_who_ask_at_once() {
    let (directory, register) = register();
    directory.put(Kind::Team, "t", team("one"));
    let gate = Arc::new(Semaphore::new(0));
    *directory.gate.lock().unwrap() = Some(Arc::clone(&gate));
    let askers: Vec<_> = (0..50)
        .map(|_| {
            let register = Arc::clone(&register);
            tokio::spawn(async move { alias(&register, "t").await })
        })
        .collect();
    tokio::task::yield_now().await;
    gate.add_permits(1);
    for asker in askers {
        assert_eq!(asker.await.unwrap(), Ok(Some("one".to_owned())));
    }
    assert_eq!(directory.gets.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_was_read_before_a_change_is_not_held_after_it() {
    for everything in [false, true] {
        for absent in [false, true] {
            let (directory, register) = register();
            if !absent {
                directory.put(Kind::Team, "t", team("old"));
            }
            let gate = Arc::new(Semaphore::new(0));
            *directory.gate.lock().unwrap() = Some(Arc::clone(&gate));
            let asker = tokio::spawn({
                let register = Arc::clone(&register);
                async move { alias(&register, "t").await }
            });
            while directory.gets.load(Ordering::SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
            directory.put(Kind::Team, "t", team("new"));
            if everything {
                register.forget_all();
            } else {
                register.forget(Kind::Team, "t");
            }
            gate.add_permits(2);
            assert_eq!(asker.await.unwrap(), Ok((!absent).then(|| "old".to_owned())));
            assert_eq!(alias(&register, "t").await, Ok(Some("new".to_owned())), "{everything} {absent}");
        }
    }
}

#[tokio::test]
async fn without_the_store_what_is_held_is_used_and_nothing_else_is_known() {
    let (directory, register) = register();
    directory.put(Kind::Team, "t", team("one"));
    assert!(alias(&register, "t").await.unwrap().is_some());
    directory.down.store(true, Ordering::SeqCst);
    assert_eq!(alias(&register, "t").await, Ok(Some("one".to_owned())));
    assert_eq!(alias(&register, "u").await, Err(Unreachable));
    let asked = directory.gets.load(Ordering::SeqCst);
    for _ in 0..10 {
        assert_eq!(alias(&register, "u").await, Err(Unreachable));
    }
    assert_eq!(directory.gets.load(Ordering::SeqCst), asked, "a store that failed is left alone for a moment");
    directory.down.store(false, Ordering::SeqCst);
    while alias(&register, "u").await == Err(Unreachable) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(alias(&register, "u").await, Ok(None));
}

#[tokio::test]
async fn a_document_that_cannot_be_read_and_a_budget_that_is_missing_are_not_taken_for_nothing() {
    let (directory, register) = register();
    directory.put(Kind::Team, "t", "{");
    assert_eq!(alias(&register, "t").await, Err(Unreachable));
    let (directory, register) = self::register();
    directory.put(Kind::Team, "u", r#"{"id":"u","budget_id":"b"}"#);
    assert!(register.profile(Kind::Team, "u").await.is_err());
    directory.put(Kind::Budget, "b", r#"{"id":"b","max_budget":1}"#);
    register.forget(Kind::Budget, "b");
    let profile = register.profile(Kind::Team, "u").await.unwrap().unwrap();
    assert_eq!(profile.budget.unwrap().id, "b");
}

#[tokio::test(start_paused = true)]
async fn changes_made_elsewhere_are_seen_within_a_poll() {
    let (directory, register) = register();
    directory.put(Kind::Team, "t", team("one"));
    assert_eq!(alias(&register, "t").await, Ok(Some("one".to_owned())));
    let (stop, stopped) = oneshot::channel::<()>();
    let follower = tokio::spawn({
        let register = Arc::clone(&register);
        async move { register.run(async { drop(stopped.await) }).await }
    });
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(alias(&register, "t").await, Ok(Some("one".to_owned())));
    directory.put(Kind::Team, "t", team("two"));
    tokio::time::sleep(Duration::from_millis(310)).await;
    assert_eq!(alias(&register, "t").await, Ok(Some("two".to_owned())));

    // Through an outage the cursor stays, and nothing is missed.
    directory.down.store(true, Ordering::SeqCst);
    directory.put(Kind::Team, "t", team("three"));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(alias(&register, "t").await, Ok(Some("two".to_owned())));
    directory.down.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(310)).await;
    assert_eq!(alias(&register, "t").await, Ok(Some("three".to_owned())));

    // What the store does not remember may be anything.
    directory.put(Kind::Team, "t", team("four"));
    directory.lost.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(310)).await;
    assert_eq!(alias(&register, "t").await, Ok(Some("four".to_owned())));

    directory.remove(Kind::Team, "t");
    tokio::time::sleep(Duration::from_millis(310)).await;
    assert_eq!(alias(&register, "t").await, Ok(None));
    stop.send(()).unwrap();
    follower.await.unwrap();
}

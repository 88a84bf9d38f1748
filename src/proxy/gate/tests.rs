//! The asynchronous half: who is woken, and what becomes of places whose waiters have gone.

use std::future::pending;

use futures::FutureExt;
use tokio::sync::oneshot::Receiver;

use super::*;

fn gate(in_flight_max: usize, patience: Duration) -> Arc<Gate> {
    let rules = Rules { in_flight_max, queued_max: 100, patience };
    let metrics = Arc::new(Metrics::new().unwrap());
    Arc::new(Gate { queue: Mutex::new(Queue::new(rules)), patience, metrics })
}

fn key(name: &str) -> Whose {
    Whose::Proven(name.into())
}

const HOUR: Duration = Duration::from_hours(1);

async fn enter(gate: &Arc<Gate>, name: &str) -> Result<Place, Failure> {
    gate.enter_unless(key(name), pending()).await
}

fn counts(gate: &Gate) -> (usize, usize) {
    let queue = gate.lock();
    (queue.in_flight(), queue.waiting())
}

#[tokio::test]
async fn a_place_that_becomes_free_goes_to_who_waits() {
    let gate = gate(1, HOUR);
    let first = enter(&gate, "a").await.unwrap();
    let mut second = Box::pin(enter(&gate, "b"));
    assert!(second.as_mut().now_or_never().is_none());
    assert_eq!(counts(&gate), (1, 1));
    drop(first);
    let second = second.await.unwrap();
    assert_eq!(counts(&gate), (1, 0));
    drop(second);
    assert_eq!(counts(&gate), (0, 0));
}

#[tokio::test]
async fn who_stops_waiting_leaves_the_queue() {
    let gate = gate(1, HOUR);
    let _first = enter(&gate, "a").await.unwrap();
    let mut second = Box::pin(enter(&gate, "b"));
    assert!(second.as_mut().now_or_never().is_none());
    drop(second);
    assert_eq!(counts(&gate), (1, 0));
}

#[tokio::test]
async fn a_place_given_to_who_has_just_gone_goes_on_to_the_next() {
    let gate = gate(1, HOUR);
    let first = enter(&gate, "a").await.unwrap();
    let mut second = Box::pin(enter(&gate, "b"));
    assert!(second.as_mut().now_or_never().is_none());
    let mut third = Box::pin(enter(&gate, "c"));
    assert!(third.as_mut().now_or_never().is_none());
    // It is sent to the second, who never looks.
    drop(first);
    assert_eq!(counts(&gate), (1, 1));
    drop(second);
    drop(third.await.unwrap());
    assert_eq!(counts(&gate), (0, 0));
}

#[tokio::test]
async fn a_waiter_whose_receiver_is_gone_is_passed_over() {
    let gate = gate(1, HOUR);
    let first = enter(&gate, "a").await.unwrap();
    let wait = |name: &str| -> Receiver<Verdict> {
        let (sender, receiver) = oneshot::channel();
        assert!(matches!(gate.lock().enter(&key(name), || sender), Entry::Queued { .. }));
        receiver
    };
    (0..99).for_each(|_| drop(wait("gone")));
    let waits = wait("waits");
    drop(first);
    assert!(matches!(waits.await, Ok(Verdict::Admitted(_))));
    assert_eq!(counts(&gate), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn who_waited_too_long_is_sent_away_and_told_when_to_come_back() {
    let gate = gate(1, Duration::from_secs(1));
    let _first = enter(&gate, "a").await.unwrap();
    let failure = enter(&gate, "b").await.err().unwrap();
    assert_eq!((failure.reason, failure.response.status), ("overloaded", 503));
    assert_eq!(failure.internal.as_deref(), Some("queue_timeout"));
    assert!(failure.response.headers().iter().any(|(name, value)| *name == "retry-after" && value == "1"));
    assert_eq!(counts(&gate), (1, 0));
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_is_no_refusal() {
    let gate = gate(1, HOUR);
    let _first = enter(&gate, "a").await.unwrap();
    let failure = gate.enter_unless(key("b"), async {}).await.err().unwrap();
    assert_eq!((failure.reason, failure.fault), ("client_gone", Fault::Disconnect));
    assert_eq!(counts(&gate), (1, 0));
}

#[tokio::test]
async fn a_proven_claim_is_counted_under_its_key_and_lets_the_next_claim_in() {
    let gate = gate(4, HOUR);
    let claim = || Whose::Claimed("AKIDA".into());
    let mut first = gate.enter_unless(claim(), pending()).await.unwrap();
    let mut second = Box::pin(gate.enter_unless(claim(), pending()));
    assert!(second.as_mut().now_or_never().is_none());
    first.prove(key("a"));
    drop(second.await.unwrap());
    drop(first);
    assert_eq!(counts(&gate), (0, 0));
}

use super::*;

const LIMIT: u64 = 1_000_000_000;

fn start(server: &Arc<Server>) -> Replica {
    Replica::start_in(Directory::new(), server, false, |settings| settings.slice_max = NanoUsd(LIMIT))
}

async fn with_slice(replica: &Replica) {
    replica.settled().await;
    replica.ledger.reserve(ask(1000, LIMIT)).await.unwrap().settle(NanoUsd(1000), 1, row());
    eventually("a slice", || !replica.ledger.slices.alive().is_empty()).await;
    replica.settled().await;
}

#[tokio::test]
async fn many_requests_are_served_without_asking_the_store() {
    let server = Arc::new(Server::default());
    let replica = start(&server);
    with_slice(&replica).await;
    let before = server.reserves.load(Relaxed);
    for _ in 0..2000 {
        let reservation = replica.ledger.reserve(ask(1000, LIMIT)).await.unwrap();
        assert_eq!(reservation.balances().len(), 2);
        reservation.settle(NanoUsd(900), 1, row());
    }
    let asked = server.reserves.load(Relaxed) - before;
    assert!(asked < 60, "{asked} questions");
    replica.stop().await;
    assert_eq!((spent(&server), reserved(&server), server.open()), (1000 + 2000 * 900, 0, 0));
    assert_eq!(server.balance(&account()).overrun, NanoUsd(0));
}

#[tokio::test]
async fn other_limits_find_no_slice_and_a_tight_budget_gets_none() {
    let server = Arc::new(Server::default());
    let replica = start(&server);
    with_slice(&replica).await;
    let before = server.reserves.load(Relaxed);
    let refused = replica.ledger.reserve(ask(2000, 2500)).await.unwrap_err();
    // Its slice had to be given back first, and did not help: 1000 of 2500 are spent.
    assert!(matches!(&refused, Refused::Denied(Denial::Budget { remaining: NanoUsd(1500), .. }, _)), "{refused}");
    replica.ledger.reserve(ask(1000, 2500)).await.unwrap().void();
    assert!(server.reserves.load(Relaxed) - before >= 2);
    replica.settled().await;
    assert_eq!(reserved(&server), 0);
    assert!(replica.ledger.slices.alive().is_empty());
    replica.stop().await;
}

#[tokio::test]
async fn a_reservation_grows_in_its_slice_and_leaves_it_when_it_is_too_small() {
    let server = Arc::new(Server::default());
    let replica = start(&server);
    with_slice(&replica).await;
    let before = server.reserves.load(Relaxed);
    let mut reservation = replica.ledger.reserve(ask(1000, LIMIT)).await.unwrap();
    reservation.extend_to(NanoUsd(2000)).await.unwrap();
    assert_eq!(server.reserves.load(Relaxed), before);
    reservation.extend_to(NanoUsd(LIMIT / 2)).await.unwrap();
    assert_eq!((server.reserves.load(Relaxed), server.open()), (before + 1, 2));
    let refused = reservation.extend_to(NanoUsd(LIMIT * 2)).await.unwrap_err();
    assert!(matches!(refused, Refused::Denied(..)));
    // A crash charges it once, at what it had grown to.
    let directory = replica.crash();
    drop(reservation);
    let replica = Replica::start_in(directory, &server, false, |_| {});
    replica.settled().await;
    assert_eq!((spent(&server), reserved(&server), server.open()), (1000 + LIMIT / 2, 0, 0));
    replica.stop().await;
}

#[tokio::test]
async fn a_growth_that_is_refused_leaves_the_reservation_in_its_slice() {
    let server = Arc::new(Server::default());
    let replica = start(&server);
    with_slice(&replica).await;
    let mut reservation = replica.ledger.reserve(ask(1000, LIMIT)).await.unwrap();
    let refused = reservation.extend_to(NanoUsd(LIMIT * 2)).await.unwrap_err();
    assert!(matches!(refused, Refused::Denied(..)));
    server.lost_answers.store(100, Relaxed);
    assert!(reservation.extend_to(NanoUsd(LIMIT / 2)).await.is_err());
    server.lost_answers.store(0, Relaxed);
    replica.settled().await;
    assert_eq!(reservation.amount(), NanoUsd(1000));
    let directory = replica.crash();
    drop(reservation);
    let replica = Replica::start_in(directory, &server, false, |_| {});
    replica.settled().await;
    assert_eq!((spent(&server), reserved(&server), server.open()), (2000, 0, 0));
    replica.stop().await;
}

#[tokio::test]
async fn no_slice_is_used_while_the_store_is_down_or_after_it_lost_it() {
    let server = Arc::new(Server::default());
    let replica = start(&server);
    with_slice(&replica).await;
    server.down.store(true, Relaxed);
    eventually("down", || !replica.ledger.is_up()).await;
    assert!(matches!(replica.ledger.reserve(ask(1000, LIMIT)).await, Err(Refused::Unavailable(_))));
    server.fall_back(0);
    server.down.store(false, Relaxed);
    replica.settled().await;
    assert!(replica.ledger.slices.take(&charges(Some(LIMIT)), NanoUsd(1)).is_none());
    replica.ledger.reserve(ask(1000, LIMIT)).await.unwrap().settle(NanoUsd(500), 1, row());
    replica.stop().await;
    assert_eq!((spent(&server), reserved(&server), server.open()), (1500, 0, 0));
}

#[tokio::test]
async fn a_slice_that_nobody_uses_is_given_back() {
    let server = Arc::new(Server::default());
    let replica = start(&server);
    with_slice(&replica).await;
    let lease = replica.ledger.slices.alive().pop().unwrap().lease.clone();
    let in_flight = replica.ledger.reserve(ask(1000, LIMIT)).await.unwrap();
    tokio::time::sleep(slice::IDLE_MAX + Duration::from_secs(2)).await;
    assert_eq!(replica.ledger.slices.alive().pop().map(|slice| slice.lease.clone()), Some(lease));
    in_flight.settle(NanoUsd(10), 1, row());
    eventually("given back", || server.open() == 0 && reserved(&server) == 0).await;
    assert_eq!(spent(&server), 1010);
    replica.stop().await;
}

/// The figures of the hot path; run with `--release -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn cost_of_a_reservation() {
    const CALLS: u32 = 50_000;
    for local in [true, false] {
        let server = Arc::new(Server::default());
        let replica =
            Replica::start_in(Directory::new(), &server, local, |settings| settings.slice_max = NanoUsd(u64::MAX));
        let limit = 1 << 52;
        replica.settled().await;
        for _ in 0..100 {
            replica.ledger.reserve(ask(1000, limit)).await.unwrap().settle(NanoUsd(900), 1, row());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let asks: Vec<Ask> = (0..CALLS).map(|_| ask(1000, limit)).collect();
        let begun = Instant::now();
        let mut each = Vec::new();
        for ask in asks {
            let begun = Instant::now();
            replica.ledger.reserve(ask).await.unwrap().settle(NanoUsd(900), 1, row());
            each.push(begun.elapsed());
        }
        println!("local {local}: {:?} per reservation and settlement", begun.elapsed() / CALLS);
        each.sort_unstable();
        for part in [2, 10, 100, 1000] {
            println!("  1 in {part} takes longer than {:?}", each[each.len() - each.len() / part]);
        }
        println!("  longest {:?}", each.last());
        replica.settled().await;
        println!("all booked after {:?}", begun.elapsed());
        replica.stop().await;
    }
}

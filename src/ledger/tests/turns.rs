//! What a thread journals in one turn, and calls that go away in the middle of it.

use super::*;

#[tokio::test]
async fn what_is_journaled_in_one_turn_shares_a_write() {
    let server = Arc::new(Server::default());
    let client = Client::new(&server, true);
    let directory = Directory::new();
    let ledger = Ledger::open(client, settings(&directory.0), Arc::new(Metrics::new().unwrap())).unwrap();
    let reserve = || {
        tokio::spawn({
            let ledger = Arc::clone(&ledger);
            async move { ledger.reserve(ask(10, 10_000)).await.unwrap() }
        })
    };
    let before = ledger.backlog.writes();
    let open = futures::future::try_join_all((0..8).map(|_| reserve())).await.unwrap();
    assert_eq!(ledger.backlog.writes(), before + 1);
    // Ends do not wait, and take with them what is gathered.
    let further: Vec<_> = (0..8).map(|_| reserve()).collect();
    for reservation in open {
        reservation.settle(NanoUsd(7), 1, row());
    }
    let open = futures::future::try_join_all(further).await.unwrap();
    assert_eq!(ledger.backlog.writes(), before + 1 + 8 + 1);
    for reservation in open {
        reservation.void();
    }
    let found = journal::read::scan(&upkeep::slot_path(&directory.0, 0)).unwrap();
    assert_eq!((found.next, found.open.len()), (17, 0));
}

#[tokio::test]
async fn a_reservation_that_nobody_waits_for_or_the_disk_does_not_take_is_given_back() {
    for local in [false, true] {
        let server = Arc::new(Server::default());
        let replica = Replica::start(&server, local);
        replica.settled().await;
        let pending = |ledger: &Arc<Ledger>| {
            let ledger = Arc::clone(ledger);
            async move { ledger.reserve(ask(10, 1000)).await }
        };
        for polls in 1..6 {
            let mut reserve = Box::pin(pending(&replica.ledger));
            for _ in 0..polls {
                if let std::task::Poll::Ready(granted) = futures::poll!(&mut reserve) {
                    granted.unwrap().void();
                    break;
                }
                tokio::task::yield_now().await;
            }
            drop(reserve);
        }
        if local {
            replica.ledger.backlog.fill_disk(true);
            let refused = pending(&replica.ledger).await.unwrap_err();
            assert!(matches!(refused, Refused::Failed(_)), "{refused}");
            replica.ledger.backlog.fill_disk(false);
        }
        replica.settled().await;
        eventually("given back", || (reserved(&server), server.open()) == (0, 0)).await;
        let replica = Replica::start_in(replica.crash(), &server, local, |_| {});
        replica.settled().await;
        assert_eq!((spent(&server), reserved(&server), server.open()), (0, 0, 0));
        replica.stop().await;
    }
}

use super::*;

/// What must be booked in the end.
#[derive(Default)]
struct Expected {
    spent: AtomicU64,
    entries: AtomicU64,
}

impl Expected {
    fn add(&self, cost: u64) {
        self.spent.fetch_add(cost, Relaxed);
        self.entries.fetch_add(1, Relaxed);
    }
}

/// Calls at the same time, each with an end of its own, until `calls` are made.
async fn load(ledger: &Arc<Ledger>, expected: &Arc<Expected>, calls: u64, limit: u64) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (ledger, expected) = (Arc::clone(ledger), Arc::clone(expected));
        tasks.spawn(async move {
            for _ in 0..calls / 8 {
                let amount = fastrand::u64(1..1000);
                let mut reservation = match ledger.reserve(ask(amount, limit)).await {
                    Ok(reservation) => reservation,
                    Err(Refused::Unavailable(_)) => {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                        continue;
                    }
                    Err(Refused::Denied(..)) => continue,
                    Err(other) => panic!("{other}"),
                };
                if fastrand::u8(..) < 40 {
                    drop(reservation.extend_to(NanoUsd(amount + fastrand::u64(1..5000))).await);
                }
                if fastrand::u8(..) < 40 {
                    tokio::time::sleep(Duration::from_millis(fastrand::u64(1..20))).await;
                }
                let amount = reservation.amount().0;
                match fastrand::u8(..) {
                    0..=25 => reservation.void(),
                    26..=40 => {
                        drop(reservation);
                        expected.add(amount);
                    }
                    _ => {
                        let cost = fastrand::u64(0..=amount);
                        reservation.settle(NanoUsd(cost), 1, row());
                        expected.add(cost);
                    }
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

async fn faults(server: Arc<Server>, from: usize) {
    let mut ages = vec![from];
    loop {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(5..60))).await;
        match fastrand::u8(..) {
            0..=60 => server.down.store(true, Relaxed),
            61..=80 => server.delay_ms.store(fastrand::u64(1..40), Relaxed),
            81..=110 => {
                server.down.store(true, Relaxed);
                tokio::time::sleep(Duration::from_millis(10)).await;
                server.fall_back(ages[fastrand::usize(ages.len().saturating_sub(4)..ages.len())]);
                ages = vec![from];
                server.down.store(false, Relaxed);
            }
            _ => {
                server.down.store(false, Relaxed);
                server.delay_ms.store(0, Relaxed);
            }
        }
        server.lost_commands.store(fastrand::u64(0..4), Relaxed);
        server.lost_answers.store(fastrand::u64(0..4), Relaxed);
        ages.push(server.age());
    }
}

fn calm(server: &Server) {
    server.down.store(false, Relaxed);
    for fault in [&server.delay_ms, &server.lost_commands, &server.lost_answers] {
        fault.store(0, Relaxed);
    }
}

fn check(server: &Server, expected: &Expected, what: &str) {
    assert_eq!((reserved(server), server.open()), (0, 0), "{what}: open");
    assert_eq!(spent(server), expected.spent.load(Relaxed), "{what}: spent");
    let entries = server.entries();
    let sum: i64 = entries.iter().map(|entry| entry.cost_nano_usd).sum();
    assert_eq!(u64::try_from(sum).unwrap(), expected.spent.load(Relaxed), "{what}: entries");
    let requests = entries.iter().filter(|entry| entry.kind == EntryKind::Request).count() as u64;
    assert_eq!(requests, expected.entries.load(Relaxed), "{what}: each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_every_kind_leave_the_books_exact() {
    for (round, slice_max) in [0, 100_000, 0, 1_000_000].into_iter().enumerate() {
        let server = Arc::new(Server::default());
        let expected = Arc::new(Expected::default());
        let start = || Replica::start_in(Directory::new(), &server, false, |s| s.slice_max = NanoUsd(slice_max));
        let (one, two) = (start(), start());
        one.settled().await;
        let trouble = tokio::spawn(faults(Arc::clone(&server), server.age()));
        let limit = 1 << 40;
        tokio::join!(load(&one.ledger, &expected, 4000, limit), load(&two.ledger, &expected, 4000, limit));
        trouble.abort();
        drop(trouble.await);
        calm(&server);
        one.settled().await;
        two.settled().await;
        one.stop().await;
        two.stop().await;
        check(&server, &expected, &format!("round {round}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_budget_is_exceeded_by_concurrent_calls() {
    for slice_max in [0, 1_000_000] {
        let server = Arc::new(Server::default());
        let expected = Arc::new(Expected::default());
        let start = || Replica::start_in(Directory::new(), &server, false, |s| s.slice_max = NanoUsd(slice_max));
        let (one, two) = (start(), start());
        let limit = 800_000;
        one.settled().await;
        let watch = {
            let server = Arc::clone(&server);
            tokio::spawn(async move {
                loop {
                    let balance = server.balance(&account());
                    assert!(balance.spent.0 + balance.reserved.0 <= limit, "{balance:?}");
                    tokio::time::sleep(Duration::from_micros(200)).await;
                }
            })
        };
        tokio::join!(load(&one.ledger, &expected, 4000, limit), load(&two.ledger, &expected, 4000, limit));
        assert!(!watch.is_finished(), "the limit was exceeded");
        watch.abort();
        one.stop().await;
        two.stop().await;
        check(&server, &expected, "at the limit");
        assert!(spent(&server) <= limit && spent(&server) > limit - 5000, "{}", spent(&server));
    }
}

/// One replica that crashes again and again; what it had in flight is charged at its bound, everything else as it ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashes_leave_the_books_exact() {
    for (local, slice_max) in [(true, 0), (false, 0), (false, 1_000_000)] {
        let server = Arc::new(Server::default());
        let limit = 1 << 40;
        let (mut expected, mut entries) = (0, 0);
        let mut directory = Directory::new();
        for round in 0..15 {
            let replica = Replica::start_in(directory, &server, local, |s| s.slice_max = NanoUsd(slice_max));
            replica.settled().await;
            let mut open: HashMap<u32, Reservation> = HashMap::new();
            for _ in 0..fastrand::usize(1..200) {
                if fastrand::bool() || open.is_empty() {
                    let reservation = replica.ledger.reserve(ask(fastrand::u64(0..1000), limit)).await.unwrap();
                    open.insert(fastrand::u32(..), reservation);
                    continue;
                }
                let which = *open.keys().next().unwrap();
                let mut reservation = open.remove(&which).unwrap();
                match fastrand::u8(0..8) {
                    0 => reservation.void(),
                    1 => {
                        reservation.extend_to(NanoUsd(reservation.amount().0 + 77)).await.unwrap();
                        open.insert(which, reservation);
                    }
                    _ => {
                        let cost = fastrand::u64(0..=reservation.amount().0);
                        reservation.settle(NanoUsd(cost), 1, row());
                        (expected, entries) = (expected + cost, entries + 1);
                    }
                }
                if fastrand::u8(..) < 10 {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }
            for reservation in open.values() {
                (expected, entries) = (expected + reservation.amount().0, entries + 1);
            }
            directory = replica.crash();
            drop(open);
            assert!(round < 15);
        }
        let replica = Replica::start_in(directory, &server, local, |_| {});
        replica.settled().await;
        replica.stop().await;
        let all = Expected { spent: AtomicU64::new(expected), entries: AtomicU64::new(entries) };
        check(&server, &all, &format!("local {local}, slices {slice_max}"));
    }
}

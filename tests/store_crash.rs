//! `kill -9` of a process that writes to the embedded store: whatever it was told is durable is there afterwards, and
//! numbers, money, the spend log and its sums still agree.
//!
//! The child is this test binary itself, which finds the path of the store in a variable.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "the child is told by a variable what it is")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dheera_ai::budget::command::{AccountId, Charge, LeaseId, NodeId, Op, Reserve, Scope};
use dheera_ai::budget::entry::{EntryKind, Row};
use dheera_ai::store::embedded::{Clock, Embedded};
use dheera_ai::store::{Change, Directory, EntryQuery, Expect, Kind, LedgerStore};
use dheera_ai::types::money::NanoUsd;

const VARIABLE: &str = "DHEERA_AI_TEST_STORE_CRASH";
const KILLS: u64 = 100;
const LEASE_AMOUNT: u64 = 7;

fn charge(name: &str) -> Charge {
    Charge { account: AccountId::new(name), scope: Scope::Key, limit: None, forget_at_ms: None }
}

fn node() -> NodeId {
    NodeId::new("node")
}

/// What the process that is killed does: it writes and says what is durable.
#[test]
fn writer_that_is_killed() {
    let Ok(path) = std::env::var(VARIABLE) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Embedded::open(Path::new(&path), Clock::system()).unwrap();
        tokio::join!(apply(&store), commit(&store), expire(&store));
    });
}

fn say(what: &str, number: u64) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "durable {what} {number}").unwrap();
    out.flush().unwrap();
}

async fn apply(store: &Embedded) {
    let mut last = store.apply(&node(), u64::MAX, &[]).await.unwrap().last;
    loop {
        let ops: Vec<Op> = (last + 1..=last + 1 + last % 4)
            .map(|number| Op::Spend {
                lease: None,
                close: false,
                cost: NanoUsd(number),
                tokens: 0,
                charges: vec![charge("spent")],
                row: Row { key_id: "key".into(), prompt_tokens: 1, ..Row::default() }.into(),
            })
            .collect();
        last = store.apply(&node(), last + 1, &ops).await.unwrap().last;
        say("number", last);
    }
}

async fn commit(store: &Embedded) {
    let mut count = documents(store).await;
    loop {
        let both = [Kind::Key, Kind::Secret].map(|kind| Change {
            kind,
            id: format!("{count:08}"),
            expect: Expect::Nothing,
            json: Some("{}".to_owned()),
        });
        store.commit(&both).await.unwrap();
        count += 1;
        say("document", count);
    }
}

async fn expire(store: &Embedded) {
    loop {
        let request = Reserve {
            lease: LeaseId::new(format!("lease.{}", uuid::Uuid::now_v7())),
            amount: NanoUsd(LEASE_AMOUNT),
            tokens: 0,
            ttl_ms: 0,
            charges: vec![charge("expired")],
            throttles: Vec::new(),
            row: Row::default().into(),
        };
        store.reserve(&request).await.unwrap();
        store.reap(10).await.unwrap();
        say("expired", store.lease_counts().await.unwrap().expired_total);
    }
}

async fn documents(store: &Embedded) -> u64 {
    let keys = store.list(Kind::Key, None, usize::MAX).await.unwrap();
    let secrets = store.list(Kind::Secret, None, usize::MAX).await.unwrap();
    assert_eq!(keys.len(), secrets.len(), "half of a commit");
    keys.len() as u64
}

/// The highest numbers that the child called durable: commands, documents, expired leases.
fn run_and_kill(path: &Path, lines: u64) -> [u64; 3] {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writer_that_is_killed", "--nocapture"])
        .env(VARIABLE, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = [0; 3];
    let mut heard = 0;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        // The last line may be cut off in the middle.
        let words: Vec<&str> = line.split(' ').collect();
        if let ["durable", what, number] = words[..]
            && let Some(index) = ["number", "document", "expired"].iter().position(|known| *known == what)
        {
            told[index] = number.parse().unwrap_or(told[index]);
            heard += 1;
        }
        if heard == lines {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(heard >= lines, "the child ended by itself after {heard} of {lines} lines");
    told
}

#[tokio::test]
async fn what_was_called_durable_survives_a_hundred_kills() {
    let directory: PathBuf = std::env::temp_dir().join(format!("dheera-ai-store-crash-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("store.redb");
    let mut last = 0;
    for kill in 0..KILLS {
        let told = run_and_kill(&path, 1 + kill * 7 % 40);
        let store = Embedded::open(&path, Clock::system()).unwrap();
        last = store.apply(&node(), u64::MAX, &[]).await.unwrap().last;
        let expired = store.lease_counts().await.unwrap().expired_total;
        let there = [last, documents(&store).await, expired];
        assert!(there.iter().zip(told).all(|(there, told)| *there >= told), "{there:?} of {told:?} after kill {kill}");

        let accounts = [AccountId::new("spent"), AccountId::new("expired")];
        let balances = store.balances(&accounts).await.unwrap();
        assert_eq!(balances[0].spent.0, last * (last + 1) / 2, "money and numbers differ after kill {kill}");
        assert_eq!(balances[1].spent.0, expired * LEASE_AMOUNT, "expired leases after kill {kill}");
        assert_eq!(balances[1].reserved.0, 0);
    }
    check_log(&Embedded::open(&path, Clock::system()).unwrap(), last).await;
    std::fs::remove_dir_all(&directory).unwrap();
}

/// The spend log and its sums hold every command once.
async fn check_log(store: &Embedded, last: u64) {
    let mut query = EntryQuery { to_ms: u64::MAX, limit: 10_000, ..EntryQuery::default() };
    let mut costs = Vec::new();
    loop {
        let page = store.entries(&query).await.unwrap();
        let requests = page.entries.iter().filter(|entry| entry.kind == EntryKind::Request);
        costs.extend(requests.map(|entry| u64::try_from(entry.cost_nano_usd).unwrap()));
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    assert_eq!(costs, (1..=last).collect::<Vec<_>>());
    let days = store.rollups("2000-01-01", "9999-12-31").await.unwrap();
    let sums = days.iter().filter(|day| day.of.id == "key");
    assert_eq!(
        sums.map(|day| (day.requests, day.prompt_tokens)).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1)),
        (last, last)
    );
    assert!(last > KILLS, "only {last} commands were written");
}

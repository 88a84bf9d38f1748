//! What every store promises, one promise a test. Each runs on the embedded store, on Redis with functions, and on Redis
//! with scripts.

use dheera_ai::budget::command::{AMOUNT_MAX, AccountId, Balance, Denial, LeaseId, Op, Reserve, Reserved};
use dheera_ai::budget::entry::EntryKind::{Corrected, Expired, Request};
use dheera_ai::store::{Change, CommitError, EntryQuery, Expect, Kind};
use dheera_ai::types::money::NanoUsd;

use crate::make::{charge, close, reserve, row, settle, throttle};
use crate::subject::{Of, Subject};

macro_rules! promises {
    ($($name:ident),* $(,)?) => {
        mod embedded { $( #[tokio::test] async fn $name() { super::$name(super::Subject::new(super::Of::Embedded).await).await; } )* }
        mod functions { $( #[tokio::test] async fn $name() { super::$name(super::Subject::new(super::Of::Functions).await).await; } )* }
        mod scripts { $( #[tokio::test] async fn $name() { super::$name(super::Subject::new(super::Of::Scripts).await).await; } )* }
    };
}

promises!(
    a_lease_holds_money_until_it_is_settled,
    a_refusal_says_what_is_left_and_changes_nothing,
    a_repeated_or_late_command_changes_nothing,
    rates_and_concurrency_are_limited,
    an_expired_lease_is_charged_and_corrected_later,
    numbered_commands_are_applied_once_and_without_gaps,
    a_lease_grows_and_lives_on,
    money_is_exact_up_to_the_largest_amount,
    a_mark_is_claimed_once,
    documents_change_together_or_not_at_all,
    documents_are_listed_in_the_order_of_their_ids,
    changes_are_told_once,
    the_log_is_searched_by_pages_and_trimmed,
    days_are_summed,
);

fn granted(answer: &Reserved) -> &[Balance] {
    match answer {
        Reserved::Granted { balances } => balances,
        other => panic!("not granted: {other:?}"),
    }
}

async fn a_lease_holds_money_until_it_is_settled(store: Subject) {
    let charges = [charge("key/a/total", 100), charge("team/t/total", None)];
    let answer = store.reserve(&reserve("l1", 60, &charges)).await;
    assert_eq!(granted(&answer).iter().map(|b| (b.spent.0, b.reserved.0)).collect::<Vec<_>>(), [(0, 60), (0, 60)]);
    assert_eq!(store.apply("n", 1, &[settle("l1", 25, &charges)]).await, 1);
    assert_eq!(store.balance("key/a/total").await, (25, 0, 0));
    assert_eq!(store.balance("team/t/total").await, (25, 0, 0));
    assert_eq!(store.balance("key/unknown").await, (0, 0, 0));

    granted(&store.reserve(&reserve("l2", 60, &charges)).await);
    let beyond = [
        settle("l2", 70, &charges),
        Op::Reset { account: AccountId::new("key/a/total"), spent: NanoUsd(5), row: row("r").into() },
    ];
    assert_eq!(store.apply("n", 2, &beyond).await, 3);
    assert_eq!(store.balance("key/a/total").await, (5, 0, 10));
    assert_eq!(store.balance("team/t/total").await, (95, 0, 10));
    let counts = store.ledger.lease_counts().await.unwrap();
    assert_eq!((counts.open, counts.expired_total), (0, 0));
}

async fn a_refusal_says_what_is_left_and_changes_nothing(store: Subject) {
    let charges = [charge("a", 1_000), charge("b", 100)];
    granted(&store.reserve(&reserve("l1", 60, &charges)).await);
    let answer = store.reserve(&reserve("l2", 41, &charges)).await;
    assert_eq!(answer, Reserved::Denied(Denial::Budget { index: 1, remaining: NanoUsd(40) }));
    assert_eq!(store.balance("a").await, (0, 60, 0));
    assert_eq!(store.balance("b").await, (0, 60, 0));
    // The same lease may be tried again with less.
    granted(&store.reserve(&reserve("l2", 40, &charges)).await);
    assert_eq!(store.balance("b").await, (0, 100, 0));
}

async fn a_repeated_or_late_command_changes_nothing(store: Subject) {
    let charges = [charge("a", 100)];
    let request = reserve("l1", 60, &charges);
    granted(&store.reserve(&request).await);
    assert_eq!(granted(&store.reserve(&request).await)[0].reserved, NanoUsd(60));
    store.apply("n", 1, &[close("l1"), close("never seen")]).await;
    assert_eq!(store.reserve(&request).await, Reserved::Closed);
    assert_eq!(store.reserve(&reserve("never seen", 1, &charges)).await, Reserved::Closed);
    assert_eq!(store.balance("a").await, (0, 0, 0));
    // What was spent is booked even if nobody knows the lease.
    store.apply("n", 3, &[settle("lost", 7, &charges), settle("l1", 2, &charges)]).await;
    assert_eq!(store.balance("a").await, (9, 0, 0));
    assert_eq!(store.reserve(&reserve("lost", 1, &charges)).await, Reserved::Closed);
}

async fn rates_and_concurrency_are_limited(store: Subject) {
    let ask = |lease: &str, tokens, limits| Reserve {
        tokens,
        throttles: vec![throttle("rate/key/a", None, None, None), limits],
        ..reserve(lease, 0, &[])
    };
    let requests = throttle("rate/team/t", Some(2), None, None);
    granted(&store.reserve(&ask("r1", 0, requests.clone())).await);
    granted(&store.reserve(&ask("r2", 0, requests.clone())).await);
    match store.reserve(&ask("r3", 0, requests)).await {
        Reserved::Denied(Denial::Requests { index: 1, retry_after_ms }) => {
            assert!((55_000..=65_000).contains(&retry_after_ms), "{retry_after_ms}");
        }
        other => panic!("{other:?}"),
    }
    let tokens = throttle("rate/team/u", None, Some(100), None);
    granted(&store.reserve(&ask("t1", 1_000_000, tokens.clone())).await);
    let answer = store.reserve(&ask("t2", 1, tokens.clone())).await;
    assert!(matches!(answer, Reserved::Denied(Denial::Tokens { index: 1, .. })), "{answer:?}");
    store
        .apply(
            "n",
            1,
            &[Op::Spend {
                lease: Some(LeaseId::new("t1")),
                close: true,
                cost: NanoUsd(0),
                tokens: 30,
                charges: vec![],
                row: row("t1").into(),
            }],
        )
        .await;
    granted(&store.reserve(&ask("t3", 70, tokens.clone())).await);
    assert!(matches!(store.reserve(&ask("t4", 1, tokens)).await, Reserved::Denied(Denial::Tokens { .. })));

    let parallel = throttle("rate/team/v", None, None, Some(1));
    granted(&store.reserve(&ask("p1", 0, parallel.clone())).await);
    assert_eq!(store.reserve(&ask("p2", 0, parallel.clone())).await, Reserved::Denied(Denial::Parallel { index: 1 }));
    store.apply("n", 2, &[close("p1")]).await;
    granted(&store.reserve(&ask("p3", 0, parallel)).await);
}

async fn an_expired_lease_is_charged_and_corrected_later(store: Subject) {
    let charges = [charge("a", 100)];
    for lease in ["l1", "l2", "l3"] {
        granted(&store.reserve(&Reserve { ttl_ms: 300, ..reserve(lease, 30, &charges) }).await);
    }
    store.pass(310).await;
    assert_eq!(store.ledger.reap(1).await.unwrap(), 1);
    assert_eq!(store.ledger.reap(10).await.unwrap(), 2);
    assert_eq!(store.balance("a").await, (90, 0, 0));
    assert_eq!(store.reserve(&reserve("l1", 30, &charges)).await, Reserved::Closed);
    store.apply("n", 1, &[settle("l1", 12, &charges), close("l2"), settle("l3", 40, &charges)]).await;
    assert_eq!(store.balance("a").await, (52, 0, 0));
    let log: Vec<_> = store.entries(100).await.iter().map(|entry| (entry.kind, entry.cost_nano_usd)).collect();
    let expected = [
        (Expired, 30),
        (Expired, 30),
        (Expired, 30),
        (Request, 12),
        (Corrected, -12),
        (Corrected, -18),
        (Corrected, -30),
        (Request, 40),
        (Corrected, -30),
    ];
    assert_eq!(log, expected);
    assert_eq!(log.iter().map(|(_, cost)| cost).sum::<i64>(), 52);
    assert_eq!(store.ledger.lease_counts().await.unwrap().expired_total, 3);
}

async fn numbered_commands_are_applied_once_and_without_gaps(store: Subject) {
    let spend = |cost| settle(&format!("c{cost}"), cost, &[charge("a", None)]);
    assert_eq!(store.apply("n", 1, &[]).await, 0);
    assert_eq!(store.apply("n", 2, &[spend(1)]).await, 0);
    assert_eq!(store.balance("a").await.0, 0);
    assert_eq!(store.apply("n", 1, &[spend(1), spend(2)]).await, 2);
    assert_eq!(store.apply("n", 1, &[spend(1), spend(2)]).await, 2);
    assert_eq!(store.apply("n", 2, &[spend(2), spend(4)]).await, 3);
    assert_eq!(store.apply("n", 1, &[]).await, 3);
    assert_eq!(store.apply("other", 1, &[spend(8)]).await, 1);
    assert_eq!(store.balance("a").await.0, 15);
    let many: Vec<_> = (0..500).map(|n| spend(100 + n)).collect();
    assert_eq!(store.apply("n", 4, &many).await, 503);
    assert_eq!(store.balance("a").await.0, 15 + (100..600).sum::<u64>());
    assert_eq!(store.entries(7).await.len(), 504);
}

async fn a_lease_grows_and_lives_on(store: Subject) {
    let charges = [charge("a", 100), charge("b", 90)];
    let lease = LeaseId::new("l1");
    granted(&store.reserve(&Reserve { ttl_ms: 60, ..reserve("l1", 30, &charges) }).await);
    let more = |to| store.ledger.extend(&lease, NanoUsd(to), &charges);
    assert_eq!(granted(&more(20).await.unwrap())[0].reserved, NanoUsd(30));
    assert_eq!(granted(&more(80).await.unwrap())[1].reserved, NanoUsd(80));
    assert_eq!(more(91).await.unwrap(), Reserved::Denied(Denial::Budget { index: 1, remaining: NanoUsd(10) }));
    let unknown = LeaseId::new("unknown");
    assert_eq!(store.ledger.extend(&unknown, NanoUsd(1), &charges).await.unwrap(), Reserved::Closed);
    assert_eq!(store.ledger.touch(&[lease.clone(), unknown.clone()], 60_000).await.unwrap(), [unknown]);
    store.pass(70).await;
    assert_eq!(store.ledger.reap(10).await.unwrap(), 0);
    // A slice is spent bit by bit.
    let bit = |close| Op::Spend {
        lease: Some(lease.clone()),
        close,
        cost: NanoUsd(10),
        tokens: 0,
        charges: vec![],
        row: row("x").into(),
    };
    store.apply("n", 1, &[bit(false), bit(false)]).await;
    assert_eq!(store.balance("a").await, (20, 60, 0));
    store.apply("n", 3, &[bit(true)]).await;
    assert_eq!(store.balance("a").await, (30, 0, 0));
    assert_eq!(more(100).await.unwrap(), Reserved::Closed);
}

async fn money_is_exact_up_to_the_largest_amount(store: Subject) {
    let most = AMOUNT_MAX.0;
    let charges = [charge("a", most), charge("b", None)];
    granted(&store.reserve(&reserve("l1", most - 1, &charges)).await);
    assert_eq!(store.balance("a").await, (0, most - 1, 0));
    assert_eq!(
        store.reserve(&reserve("l2", 2, &charges)).await,
        Reserved::Denied(Denial::Budget { index: 0, remaining: NanoUsd(1) })
    );
    store.apply("n", 1, &[settle("l1", most - 3, &charges)]).await;
    assert_eq!(store.balance("a").await, (most - 3, 0, 0));
    granted(&store.reserve(&reserve("l3", 3, &charges)).await);
    store.apply("n", 2, &[settle("l3", 3, &charges)]).await;
    assert_eq!(store.balance("b").await, (most, 0, 0));
    assert_eq!(store.entries(10).await[0].cost_nano_usd, i64::try_from(most - 3).unwrap());
    let answer = store.reserve(&reserve("l4", most + 1, &[charge("c", u64::MAX)])).await;
    assert_eq!(answer, Reserved::Denied(Denial::Budget { index: 0, remaining: AMOUNT_MAX }));
}

async fn a_mark_is_claimed_once(store: Subject) {
    let account = AccountId::new("a");
    assert!(store.ledger.claim(&account, "soft").await.unwrap());
    assert!(!store.ledger.claim(&account, "soft").await.unwrap());
    assert!(store.ledger.claim(&account, "other").await.unwrap());
    assert!(store.ledger.claim(&AccountId::new("b"), "soft").await.unwrap());
}

fn change(kind: Kind, id: &str, expect: Expect, json: impl Into<Option<&'static str>>) -> Change {
    Change { kind, id: id.to_owned(), expect, json: json.into().map(str::to_owned) }
}

async fn documents_change_together_or_not_at_all(store: Subject) {
    let directory = &store.directory;
    assert_eq!(directory.get(Kind::Key, "k").await.unwrap(), None);
    directory
        .commit(&[
            change(Kind::Key, "k", Expect::Nothing, "{\"a\": 1}"),
            change(Kind::Alias, "name é", Expect::Nothing, "\"k\""),
        ])
        .await
        .unwrap();
    let first = directory.get(Kind::Key, "k").await.unwrap().unwrap();
    assert_eq!((first.id.as_str(), &*first.json), ("k", "{\"a\": 1}"));
    assert_eq!(directory.get(Kind::Team, "k").await.unwrap(), None);

    let conflict = [
        change(Kind::Key, "other", Expect::Nothing, "{}"),
        change(Kind::Key, "k", Expect::Version(first.version + 1_000_000), "{}"),
    ];
    assert_eq!(directory.commit(&conflict).await, Err(CommitError::Conflict(1)));
    assert_eq!(directory.get(Kind::Key, "other").await.unwrap(), None);
    let taken = [change(Kind::Alias, "name é", Expect::Nothing, "\"z\"")];
    assert_eq!(directory.commit(&taken).await, Err(CommitError::Conflict(0)));

    directory.commit(&[change(Kind::Key, "k", Expect::Version(first.version), "{}")]).await.unwrap();
    let second = directory.get(Kind::Key, "k").await.unwrap().unwrap();
    assert!(second.version > first.version);
    let stale = [change(Kind::Key, "k", Expect::Version(first.version), None)];
    assert_eq!(directory.commit(&stale).await, Err(CommitError::Conflict(0)));

    directory.commit(&[change(Kind::Key, "k", Expect::Anything, None)]).await.unwrap();
    assert_eq!(directory.get(Kind::Key, "k").await.unwrap(), None);
    let gone = [change(Kind::Key, "k", Expect::Version(second.version), "{}")];
    assert_eq!(directory.commit(&gone).await, Err(CommitError::Conflict(0)));
    directory.commit(&[change(Kind::Key, "k", Expect::Nothing, "{}")]).await.unwrap();
    directory.commit(&[]).await.unwrap();
}

async fn documents_are_listed_in_the_order_of_their_ids(store: Subject) {
    let ids = ["a", "a b", "b", "é", "z-1", "z-2"];
    for id in ids.iter().rev() {
        store.directory.commit(&[change(Kind::User, id, Expect::Nothing, "{}")]).await.unwrap();
    }
    store.directory.commit(&[change(Kind::Team, "other", Expect::Nothing, "{}")]).await.unwrap();
    let mut expected = ids.to_vec();
    expected.sort_unstable();
    let mut found = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = store.directory.list(Kind::User, after.as_deref(), 4).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id.clone());
        found.extend(page.into_iter().map(|document| document.id));
    }
    assert_eq!(found, expected);
}

async fn changes_are_told_once(store: Subject) {
    let directory = &store.directory;
    let set = |id: &'static str| [change(Kind::Key, id, Expect::Anything, "{}")];
    let start = directory.changes(None).await.unwrap();
    assert!(start.touched.is_empty() && !start.lost);
    directory.commit(&set("a")).await.unwrap();
    directory
        .commit(&[change(Kind::Team, "t", Expect::Anything, "{}"), change(Kind::Key, "a", Expect::Anything, None)])
        .await
        .unwrap();
    let first = directory.changes(Some(&start.cursor)).await.unwrap();
    let touched: Vec<_> = first.touched.iter().map(|(kind, id)| (*kind, id.as_str())).collect();
    assert_eq!(touched, [(Kind::Key, "a"), (Kind::Team, "t"), (Kind::Key, "a")]);
    assert!(!first.lost);
    let again = directory.changes(Some(&first.cursor)).await.unwrap();
    assert!(again.touched.is_empty() && !again.lost);
    let late = directory.changes(None).await.unwrap();
    directory.commit(&set("b")).await.unwrap();
    assert_eq!(directory.changes(Some(&late.cursor)).await.unwrap().touched, [(Kind::Key, "b".to_owned())]);
    assert!(directory.changes(Some("of another store")).await.unwrap().lost);
}

async fn the_log_is_searched_by_pages_and_trimmed(store: Subject) {
    let ops: Vec<_> = (0..30)
        .map(|n: u64| {
            let mut row = row(&format!("request-{n}"));
            row.team_id = n.is_multiple_of(3).then(|| "t".to_owned());
            row.tags = vec![format!("tag-{}", n % 5)];
            row.key_id = format!("k{}", n % 2);
            Op::Spend {
                lease: None,
                close: true,
                cost: NanoUsd(n),
                tokens: 0,
                charges: vec![charge("a", None)],
                row: row.into(),
            }
        })
        .collect();
    store.apply("n", 1, &ops[..15]).await;
    store.pass(5).await;
    store.apply("n", 16, &ops[15..]).await;
    let all = EntryQuery { from_ms: 0, to_ms: i64::MAX.unsigned_abs(), limit: 100, ..EntryQuery::default() };
    let find = async |query: EntryQuery| {
        let page = store.ledger.entries(&query).await.unwrap();
        page.entries.iter().map(|entry| entry.cost_nano_usd).collect::<Vec<_>>()
    };
    assert_eq!(find(all.clone()).await, (0..30).collect::<Vec<_>>());
    assert_eq!(
        find(EntryQuery { team_id: Some("t".into()), key_id: Some("k1".into()), ..all.clone() }).await,
        [3, 9, 15, 21, 27]
    );
    assert_eq!(find(EntryQuery { tag: Some("tag-4".into()), limit: 2, ..all.clone() }).await, [4, 9]);
    assert_eq!(find(EntryQuery { request_id: Some("request-17".into()), ..all.clone() }).await, [17]);
    assert!(find(EntryQuery { user_id: Some("nobody".into()), ..all.clone() }).await.is_empty());
    assert_eq!(store.entries(1).await.len(), 30);
    assert_eq!(store.entries(7).await.len(), 30);
    let entries = store.entries(30).await;
    let middle = entries[15].at_ms;
    assert!(entries[14].at_ms < middle);
    assert_eq!(find(EntryQuery { to_ms: middle, ..all.clone() }).await.len(), 15);
    assert_eq!(find(EntryQuery { from_ms: middle, ..all.clone() }).await.len(), 15);
    store.ledger.forget(middle).await.unwrap();
    assert_eq!(find(all).await, (15..30).collect::<Vec<_>>());
    assert_eq!(store.balance("a").await.0, (0..30).sum::<u64>());
}

async fn days_are_summed(store: Subject) {
    let spend = |cost, prompt_tokens| {
        let mut row = row("r");
        row.team_id = Some("t".to_owned());
        (row.prompt_tokens, row.completion_tokens) = (prompt_tokens, 3);
        Op::Spend { lease: None, close: true, cost: NanoUsd(cost), tokens: 0, charges: vec![], row: row.into() }
    };
    store.apply("n", 1, &[spend(5, 10), spend(7, 0)]).await;
    let day = dheera_ai::budget::books::rollup::day(store.entries(10).await[0].at_ms);
    let sums = store.ledger.rollups(&day, &day).await.unwrap();
    assert_eq!(sums.len(), 2);
    for sum in &sums {
        assert_eq!((sum.cost_nano_usd, sum.requests, sum.prompt_tokens, sum.completion_tokens), (12, 2, 10, 6));
        assert_eq!((sum.day.as_str(), sum.of.model.as_str()), (day.as_str(), "nova"));
    }
    assert!(store.ledger.rollups("1999-01-01", "1999-12-31").await.unwrap().is_empty());
    store.ledger.forget(i64::MAX.unsigned_abs()).await.unwrap();
    assert_eq!(store.ledger.rollups(&day, &day).await.unwrap().len(), 2);
}

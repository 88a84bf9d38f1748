//! What the books do in each case, by example; `random` compares long random histories with `oracle`.

use super::*;

mod oracle;
mod random;

const T: u64 = 1_793_491_200_000;

fn account(name: &str) -> AccountId {
    AccountId::new(name)
}

fn lease(name: &str) -> LeaseId {
    LeaseId::new(name)
}

fn charge(name: &str, limit: Option<u64>) -> Charge {
    Charge {
        account: account(name),
        scope: crate::budget::command::Scope::Key,
        limit: limit.map(NanoUsd),
        forget_at_ms: None,
    }
}

fn throttle(name: &str, rpm: Option<u64>, tpm: Option<u64>, parallel: Option<u64>) -> Throttle {
    Throttle { account: account(name), scope: crate::budget::command::Scope::Key, rpm, tpm, parallel }
}

fn ask(id: &str, amount: u64, charges: &[Charge]) -> Reserve {
    Reserve {
        lease: lease(id),
        amount: NanoUsd(amount),
        tokens: 0,
        ttl_ms: 120_000,
        charges: charges.to_vec(),
        throttles: Vec::new(),
        row: Row { request_id: id.to_owned(), ..Row::default() }.into(),
    }
}

fn spend(id: Option<&str>, close: bool, cost: u64, charges: &[Charge]) -> Op {
    Op::Spend {
        lease: id.map(lease),
        close,
        cost: NanoUsd(cost),
        tokens: 0,
        charges: charges.to_vec(),
        row: Row { request_id: id.unwrap_or("none").to_owned(), ..Row::default() }.into(),
    }
}

fn balance(books: &Books, name: &str) -> (u64, u64, u64) {
    let Balance { spent, reserved, overrun } = books.balances(&[account(name)])[0];
    (spent.0, reserved.0, overrun.0)
}

fn log(books: &mut Books) -> Vec<(EntryKind, i64)> {
    books.take_changes().entries.into_iter().map(|entry| (entry.kind, entry.cost_nano_usd)).collect()
}

struct Node {
    id: NodeId,
    sent: u64,
}

impl Node {
    fn new() -> Self {
        Self { id: NodeId::new("n"), sent: 0 }
    }

    fn send(&mut self, books: &mut Books, now_ms: u64, op: Op) {
        let first = self.sent + 1;
        self.sent += 1;
        assert_eq!(books.apply(now_ms, &self.id, first, &[op]), Applied { last: self.sent });
    }
}

fn is_granted(answer: &Reserved) -> bool {
    matches!(answer, Reserved::Granted { .. })
}

#[test]
fn a_lease_is_granted_up_to_the_limit_and_all_or_nothing() {
    let mut books = Books::default();
    let both = [charge("key", Some(100)), charge("team", Some(60))];
    let granted = books.reserve(T, &ask("a", 60, &both));
    let set_aside = Balance { reserved: NanoUsd(60), ..Balance::default() };
    assert_eq!(granted, Reserved::Granted { balances: vec![set_aside, set_aside] });
    let denied = books.reserve(T, &ask("b", 1, &both));
    assert_eq!(denied, Reserved::Denied(Denial::Budget { index: 1, remaining: NanoUsd(0) }));
    assert_eq!((balance(&books, "key"), balance(&books, "team")), ((0, 60, 0), (0, 60, 0)));
    assert!(is_granted(&books.reserve(T, &ask("b", 40, &both[..1]))));
}

#[test]
fn the_same_lease_again_is_granted_without_setting_aside_twice() {
    let mut books = Books::default();
    let charges = [charge("key", Some(100))];
    assert!(is_granted(&books.reserve(T, &ask("a", 70, &charges))));
    assert!(is_granted(&books.reserve(T, &ask("a", 70, &charges))));
    assert_eq!(balance(&books, "key"), (0, 70, 0));
}

#[test]
fn an_account_under_two_limits_counts_once_and_holds_both() {
    let mut books = Books::default();
    let twice = [charge("key", Some(100)), charge("key", Some(50))];
    let denied = books.reserve(T, &ask("a", 60, &twice));
    assert_eq!(denied, Reserved::Denied(Denial::Budget { index: 1, remaining: NanoUsd(50) }));
    assert!(is_granted(&books.reserve(T, &ask("b", 50, &twice))));
    assert_eq!(balance(&books, "key"), (0, 50, 0));
}

#[test]
fn amounts_that_cannot_be_counted_are_refused_and_nothing_overflows() {
    let mut books = Books::default();
    let free = [charge("key", None)];
    let max = crate::budget::command::AMOUNT_MAX.0;
    for amount in [max + 1, u64::MAX] {
        let denied = books.reserve(T, &ask("a", amount, &free));
        assert_eq!(denied, Reserved::Denied(Denial::Budget { index: 0, remaining: NanoUsd(max) }));
    }
    let mut node = Node::new();
    node.send(&mut books, T, spend(None, false, u64::MAX, &free));
    node.send(&mut books, T, spend(None, false, u64::MAX, &free));
    assert_eq!(balance(&books, "key"), (u64::MAX, 0, 0));
    // What has no limit is never full.
    assert!(is_granted(&books.reserve(T, &ask("b", max, &free))));
}

#[test]
fn settling_books_the_cost_and_gives_back_the_rest() {
    let (mut books, mut node) = (Books::default(), Node::new());
    let charges = [charge("key", Some(100))];
    books.reserve(T, &ask("a", 80, &charges));
    node.send(&mut books, T, spend(Some("a"), false, 10, &charges));
    assert_eq!(balance(&books, "key"), (10, 70, 0));
    node.send(&mut books, T, spend(Some("a"), true, 20, &charges));
    assert_eq!(balance(&books, "key"), (30, 0, 0));
    assert_eq!(books.reserve(T, &ask("a", 1, &charges)), Reserved::Closed);
    assert_eq!(log(&mut books), [(EntryKind::Request, 10), (EntryKind::Request, 20)]);
}

#[test]
fn a_cost_beyond_the_lease_is_booked_and_counted_as_overrun() {
    let (mut books, mut node) = (Books::default(), Node::new());
    let charges = [charge("key", Some(100))];
    books.reserve(T, &ask("a", 80, &charges));
    node.send(&mut books, T, spend(Some("a"), true, 130, &charges));
    assert_eq!(balance(&books, "key"), (130, 0, 50));
    let denied = books.reserve(T, &ask("b", 0, &charges));
    assert_eq!(denied, Reserved::Denied(Denial::Budget { index: 0, remaining: NanoUsd(0) }));
}

#[test]
fn an_expired_lease_is_charged_in_full_and_corrected_by_a_late_settlement() {
    let (mut books, mut node) = (Books::default(), Node::new());
    let charges = [charge("key", Some(100))];
    books.reserve(T, &ask("a", 80, &charges));
    assert_eq!(books.reap(T + 119_999, 10), 0);
    assert_eq!(books.reap(T + 120_000, 10), 1);
    assert_eq!(balance(&books, "key"), (80, 0, 0));
    assert_eq!(books.reserve(T + 120_000, &ask("a", 80, &charges)), Reserved::Closed);
    assert_eq!(books.touch(T + 120_000, &[lease("a")], 1), [lease("a")]);
    node.send(&mut books, T + 130_000, spend(Some("a"), false, 30, &charges));
    assert_eq!(balance(&books, "key"), (80, 0, 0));
    node.send(&mut books, T + 130_000, spend(Some("a"), true, 5, &charges));
    assert_eq!(balance(&books, "key"), (35, 0, 0));
    assert_eq!(
        log(&mut books),
        [
            (EntryKind::Expired, 80),
            (EntryKind::Request, 30),
            (EntryKind::Corrected, -30),
            (EntryKind::Request, 5),
            (EntryKind::Corrected, -5),
            (EntryKind::Corrected, -45),
        ]
    );
}

#[test]
fn closing_an_expired_lease_takes_the_charge_back() {
    let (mut books, mut node) = (Books::default(), Node::new());
    let charges = [charge("key", Some(100))];
    books.reserve(T, &ask("a", 80, &charges));
    books.reap(T + 120_000, 10);
    node.send(&mut books, T + 120_000, Op::Close { lease: lease("a") });
    node.send(&mut books, T + 120_000, Op::Close { lease: lease("a") });
    assert_eq!(balance(&books, "key"), (0, 0, 0));
    assert_eq!(log(&mut books), [(EntryKind::Expired, 80), (EntryKind::Corrected, -80)]);
}

#[test]
fn a_reserve_that_arrives_after_its_close_is_refused_until_the_tombstone_is_forgotten() {
    let (mut books, mut node) = (Books::default(), Node::new());
    let charges = [charge("key", Some(100))];
    node.send(&mut books, T, Op::Close { lease: lease("a") });
    node.send(&mut books, T, spend(Some("b"), true, 7, &charges));
    assert_eq!(books.reserve(T + 1, &ask("a", 1, &charges)), Reserved::Closed);
    assert_eq!(books.reserve(T + 1, &ask("b", 1, &charges)), Reserved::Closed);
    books.forget(T + CLOSED_KEPT_MS);
    assert!(is_granted(&books.reserve(T + CLOSED_KEPT_MS, &ask("a", 1, &charges))));
    assert_eq!(balance(&books, "key"), (7, 1, 0));
}

#[test]
fn a_lease_is_extended_only_as_far_as_the_limits_allow() {
    let mut books = Books::default();
    let charges = [charge("key", Some(100)), charge("team", Some(1_000))];
    books.reserve(T, &ask("a", 40, &charges));
    assert!(is_granted(&books.extend(T, &lease("a"), NanoUsd(100), &charges)));
    assert!(is_granted(&books.extend(T, &lease("a"), NanoUsd(50), &charges)));
    assert_eq!(balance(&books, "team"), (0, 100, 0));
    let denied = books.extend(T, &lease("a"), NanoUsd(101), &charges);
    assert_eq!(denied, Reserved::Denied(Denial::Budget { index: 0, remaining: NanoUsd(0) }));
    assert_eq!(books.extend(T, &lease("unknown"), NanoUsd(1), &charges), Reserved::Closed);
}

#[test]
fn throttles_are_asked_before_charges_and_parallel_counts_open_leases() {
    let (mut books, mut node) = (Books::default(), Node::new());
    let mut request = ask("a", 60, &[charge("key", Some(100))]);
    request.throttles = vec![throttle("rate/key", Some(3), None, Some(1))];
    assert!(is_granted(&books.reserve(T, &request)));
    request.lease = lease("b");
    assert_eq!(books.reserve(T, &request), Reserved::Denied(Denial::Parallel { index: 0 }));
    node.send(&mut books, T, Op::Close { lease: lease("a") });
    assert!(is_granted(&books.reserve(T, &request)));
    books.reap(T + 120_000, 1);
    request.lease = lease("c");
    let over_budget = books.reserve(T + 120_000, &request);
    assert_eq!(over_budget, Reserved::Denied(Denial::Budget { index: 0, remaining: NanoUsd(40) }));
}

#[test]
fn tokens_are_estimated_at_admission_and_corrected_at_the_end() {
    let (mut books, mut node) = (Books::default(), Node::new());
    let mut request = ask("a", 0, &[]);
    request.tokens = 900;
    request.throttles = vec![throttle("rate/key", None, Some(1_000), None)];
    assert!(is_granted(&books.reserve(T, &request)));
    request.lease = lease("b");
    let denied = books.reserve(T, &request);
    assert_eq!(denied, Reserved::Denied(Denial::Tokens { index: 0, retry_after_ms: 65_000 }));
    let ended = Op::Spend {
        lease: Some(lease("a")),
        close: true,
        cost: NanoUsd::ZERO,
        tokens: 100,
        charges: Vec::new(),
        row: Arc::default(),
    };
    node.send(&mut books, T, ended);
    assert!(is_granted(&books.reserve(T, &request)));
    node.send(&mut books, T, Op::Close { lease: lease("b") });
    request.lease = lease("c");
    assert!(is_granted(&books.reserve(T, &request)), "what was never used does not count");
}

#[test]
fn numbers_are_applied_once_in_order_and_never_across_a_gap() {
    let mut books = Books::default();
    let node = NodeId::new("n");
    let charges = [charge("key", None)];
    let ops: Vec<Op> = (0..5).map(|power| spend(None, false, 10_u64.pow(power), &charges)).collect();
    assert_eq!(books.apply(T, &node, 2, &ops[1..]), Applied { last: 0 });
    assert_eq!(books.apply(T, &node, 1, &ops[..2]), Applied { last: 2 });
    assert_eq!(books.apply(T, &node, 1, &ops[..1]), Applied { last: 2 });
    assert_eq!(books.apply(T, &node, 2, &ops[1..]), Applied { last: 5 });
    assert_eq!(books.apply(T, &node, 1, &ops), Applied { last: 5 });
    assert_eq!(books.apply(T, &node, 6, &[]), Applied { last: 5 });
    assert_eq!(books.apply(T, &node, 7, &ops), Applied { last: 5 });
    assert_eq!(balance(&books, "key"), (11_111, 0, 0));
}

#[test]
fn a_reset_sets_what_was_spent_and_leaves_reservations() {
    let (mut books, mut node) = (Books::default(), Node::new());
    let charges = [charge("key", Some(100))];
    books.reserve(T, &ask("late", 30, &charges));
    books.reap(T + 120_000, 1);
    books.reserve(T + 120_000, &ask("a", 50, &charges));
    let reset = Op::Reset { account: account("key"), spent: NanoUsd(4), row: Arc::default() };
    node.send(&mut books, T + 120_000, reset);
    assert_eq!(balance(&books, "key"), (4, 50, 0));
    node.send(&mut books, T + 120_000, Op::Close { lease: lease("late") });
    assert_eq!(balance(&books, "key"), (0, 50, 0), "a correction does not go below zero");
}

#[test]
fn what_has_ended_is_forgotten_and_what_holds_money_is_not() {
    let mut books = Books::default();
    let until = |name: &str| Charge { forget_at_ms: Some(T + 50), ..charge(name, None) };
    books.reserve(T, &ask("a", 5, &[until("old")]));
    books.apply(T, &NodeId::new("n"), 1, &[spend(None, false, 9, &[until("older"), charge("total", None)])]);
    books.forget(T + 50);
    assert_eq!(
        [balance(&books, "old"), balance(&books, "older"), balance(&books, "total")],
        [(0, 5, 0), (0, 0, 0), (9, 0, 0)]
    );
    let changes = books.take_changes();
    assert!(changes.accounts.iter().any(|(id, value)| id.as_str() == "older" && value.is_none()));
    assert!(books.claim(&account("total"), "soft") && !books.claim(&account("total"), "soft"));
    assert!(books.take_changes().accounts[0].1.as_ref().unwrap().marks.contains("soft"));
    assert!(books.take_changes().is_empty());
}

//! Situations one by one, and random histories against the rules.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn key(name: &str) -> Whose {
    Whose::Proven(name.into())
}

fn claim(name: &str) -> Whose {
    Whose::Claimed(name.into())
}

fn queue(in_flight_max: usize, queued_max: usize) -> Queue<u32> {
    Queue::new(Rules { in_flight_max, queued_max, patience: SECOND })
}

/// `whose` enters and has to wait, under this number.
fn waits(queue: &mut Queue<u32>, whose: &Whose, number: u32) -> Ticket {
    match queue.enter(whose, || number) {
        Entry::Queued { ticket, displaced: None } => ticket,
        entry => panic!("{number}: {entry:?}"),
    }
}

/// So many of `whose` wait, numbered from 1.
fn wait_in_turn(queue: &mut Queue<u32>, whose: &Whose, count: u32) {
    for number in 1..=count {
        waits(queue, whose, number);
    }
}

fn is_admitted(queue: &mut Queue<u32>, whose: &Whose) {
    assert_eq!(queue.enter(whose, || 0), Entry::Admitted);
}

/// Who is served when a request of `whose` ends that took no time.
fn next_after(queue: &mut Queue<u32>, whose: &Whose) -> Option<u32> {
    queue.leave(whose, Some(Duration::ZERO)).map(|(_, number)| number)
}

#[test]
fn while_nobody_waits_one_key_may_have_all_places() {
    let mut queue = queue(100, 10);
    for _ in 0..100 {
        is_admitted(&mut queue, &key("a"));
    }
    assert_eq!((queue.in_flight(), queue.waiting()), (100, 0));
}

#[test]
fn the_next_request_of_a_key_that_has_nothing_goes_before_all_of_a_key_that_has_much() {
    let mut queue = queue(4, 100);
    (0..4).for_each(|_| is_admitted(&mut queue, &key("greedy")));
    for number in 1..=50 {
        waits(&mut queue, &key("greedy"), number);
    }
    waits(&mut queue, &key("modest"), 100);
    waits(&mut queue, &key("modest"), 101);
    waits(&mut queue, &key("modest"), 102);
    assert_eq!(next_after(&mut queue, &key("greedy")), Some(100));
    assert_eq!(next_after(&mut queue, &key("greedy")), Some(101));
    // Two each now, and it goes on with two each.
    assert_eq!(next_after(&mut queue, &key("greedy")), Some(1));
    assert_eq!(next_after(&mut queue, &key("modest")), Some(102));
    assert_eq!(queue.in_flight(), 4);
}

#[test]
fn keys_with_as_many_in_flight_take_turns_and_each_is_served_in_its_order() {
    let mut queue = queue(1, 100);
    is_admitted(&mut queue, &key("x"));
    for (name, number) in [("a", 1), ("a", 2), ("b", 11), ("b", 12), ("c", 21)] {
        waits(&mut queue, &key(name), number);
    }
    let mut served = Vec::new();
    let mut last = key("x");
    while let Some((whose, number)) = queue.leave(&last, Some(Duration::ZERO)) {
        served.push(number);
        last = whose;
    }
    assert_eq!(served, [1, 11, 21, 2, 12]);
}

#[test]
fn a_full_queue_sheds_the_newcomer_of_the_key_that_has_most_of_it() {
    let mut queue = queue(1, 3);
    is_admitted(&mut queue, &key("a"));
    wait_in_turn(&mut queue, &key("a"), 3);
    assert_eq!(queue.enter(&key("a"), || 4), Entry::Shed(Shed::QueueFull));
    assert_eq!(queue.waiting(), 3);
}

#[test]
fn a_full_queue_sheds_the_youngest_of_the_key_that_has_most_of_it_for_a_key_that_has_less() {
    let mut queue = queue(1, 3);
    is_admitted(&mut queue, &key("a"));
    wait_in_turn(&mut queue, &key("a"), 3);
    assert!(matches!(queue.enter(&key("b"), || 11), Entry::Queued { displaced: Some(3), .. }));
    // Two and one: with one more, b would have as much as a.
    assert_eq!(queue.enter(&key("b"), || 12), Entry::Shed(Shed::QueueFull));
    assert!(matches!(queue.enter(&key("c"), || 21), Entry::Queued { displaced: Some(2), .. }));
    // One each: nobody has waited for less than the newcomer.
    assert_eq!(queue.enter(&key("d"), || 31), Entry::Shed(Shed::QueueFull));
    assert_eq!(queue.waiting(), 3);
}

#[test]
fn without_a_queue_what_has_no_place_is_shed() {
    let mut queue = queue(1, 0);
    is_admitted(&mut queue, &key("a"));
    assert_eq!(queue.enter(&key("b"), || 1), Entry::Shed(Shed::QueueFull));
    assert_eq!(queue.enter(&claim("b"), || 1), Entry::Shed(Shed::QueueFull));
    assert_eq!(next_after(&mut queue, &key("a")), None);
    is_admitted(&mut queue, &key("b"));
}

#[test]
fn who_cannot_be_served_in_time_is_shed_at_once() {
    let mut queue = queue(2, 100);
    is_admitted(&mut queue, &key("a"));
    assert!(queue.leave(&key("a"), Some(Duration::from_millis(500))).is_none());
    (0..2).for_each(|_| is_admitted(&mut queue, &key("a")));
    // A place becomes free every 250 ms: the fourth is served after a second, the fifth later.
    wait_in_turn(&mut queue, &key("a"), 4);
    assert_eq!(queue.enter(&key("a"), || 5), Entry::Shed(Shed::ExpectedWait));
    // Another key is not behind them.
    waits(&mut queue, &key("b"), 11);
}

#[test]
fn nobody_is_shed_for_his_expected_wait_before_a_request_has_ended() {
    let mut queue = queue(1, 100);
    is_admitted(&mut queue, &key("a"));
    wait_in_turn(&mut queue, &key("a"), 100);
}

#[test]
fn who_went_away_is_not_served() {
    let mut queue = queue(1, 10);
    is_admitted(&mut queue, &key("a"));
    let (first, _second) = (waits(&mut queue, &key("a"), 1), waits(&mut queue, &key("a"), 2));
    assert!(queue.withdraw(&key("a"), first));
    assert!(!queue.withdraw(&key("a"), first), "once");
    assert_eq!(next_after(&mut queue, &key("a")), Some(2));
    assert_eq!(next_after(&mut queue, &key("a")), None);
    assert_eq!((queue.in_flight(), queue.waiting(), queue.shares.len()), (0, 0, 0));
}

#[test]
fn claimed_names_together_have_a_quarter_of_places_and_queue() {
    let mut queue = queue(8, 8);
    is_admitted(&mut queue, &claim("a"));
    is_admitted(&mut queue, &claim("b"));
    waits(&mut queue, &claim("c"), 1);
    waits(&mut queue, &claim("c"), 2);
    assert_eq!(queue.enter(&claim("c"), || 3), Entry::Shed(Shed::QueueFull));
    assert!(matches!(queue.enter(&claim("d"), || 11), Entry::Queued { displaced: Some(2), .. }));
    // They do not stand before those who have proven who they are.
    (0..6).for_each(|_| is_admitted(&mut queue, &key("k")));
    waits(&mut queue, &key("k"), 21);
    assert_eq!(next_after(&mut queue, &key("k")), Some(21));
    assert_eq!(next_after(&mut queue, &key("k")), None, "a place is free, but not for them");
    assert_eq!(queue.in_flight(), 7);
}

#[test]
fn who_is_proven_makes_way_for_the_next_who_claims() {
    let mut queue = queue(8, 8);
    is_admitted(&mut queue, &claim("a"));
    is_admitted(&mut queue, &claim("a"));
    waits(&mut queue, &claim("a"), 1);
    assert_eq!(queue.prove(&claim("a"), &key("k")), Some((claim("a"), 1)));
    assert_eq!(queue.in_flight(), 3);
    assert_eq!(next_after(&mut queue, &key("k")), None);
    assert_eq!(queue.in_flight(), 2);
}

#[derive(Debug, Clone)]
enum Step {
    Enter(u8, bool),
    Leave(usize, u64),
    Withdraw(usize),
    Prove(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..5u8, any::<bool>()).prop_map(|(name, claimed)| Step::Enter(name, claimed)),
        4 => (any::<usize>(), 0..400u64).prop_map(|(which, held_ms)| Step::Leave(which, held_ms)),
        1 => any::<usize>().prop_map(Step::Withdraw),
        1 => any::<usize>().prop_map(Step::Prove),
    ]
}

/// What a history has come to, written down by itself.
#[derive(Default)]
struct Model {
    in_flight: Vec<Whose>,
    waiting: Vec<(Whose, Ticket, u32)>,
}

impl Model {
    fn in_flight_of(&self, whose: &Whose) -> usize {
        self.in_flight.iter().filter(|other| *other == whose).count()
    }

    fn claimed(&self) -> usize {
        self.in_flight.iter().filter(|whose| whose.is_claimed()).count()
    }

    fn queue_lengths(&self) -> BTreeMap<&Whose, usize> {
        let mut lengths = BTreeMap::new();
        self.waiting.iter().for_each(|(whose, ..)| *lengths.entry(whose).or_default() += 1);
        lengths
    }

    /// Whoever was given a place is the oldest waiter of his key, and no other key that could have it had less.
    fn serve(&mut self, served: Option<(Whose, u32)>, places: usize) -> Result<(), TestCaseError> {
        let Some((whose, number)) = served else { return Ok(()) };
        let at = self.waiting.iter().position(|(other, ..)| *other == whose);
        prop_assert_eq!(at.map(|at| self.waiting[at].2), Some(number));
        let own = self.in_flight_of(&whose);
        for (other, ..) in &self.waiting {
            let could = !other.is_claimed() || self.claimed() < (places / 4).max(1);
            prop_assert!(!could || own <= self.in_flight_of(other), "{other:?} had less than {whose:?}");
        }
        self.waiting.remove(at.unwrap());
        self.in_flight.push(whose);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_history_keeps_the_rules(places in 1..12usize, queued in 0..12usize, steps in vec(step(), 1..300)) {
        let mut queue = queue(places, queued);
        let mut model = Model::default();
        for (number, step) in (0u32..).zip(steps) {
            match step {
                Step::Enter(name, claimed) => {
                    let name = name.to_string();
                    let whose = if claimed { claim(&name) } else { key(&name) };
                    let lengths = model.queue_lengths();
                    let (own, longest) =
                        (lengths.get(&whose).copied().unwrap_or(0), lengths.values().copied().max().unwrap_or(0));
                    match queue.enter(&whose, || number) {
                        Entry::Admitted => model.in_flight.push(whose),
                        Entry::Queued { ticket, displaced } => {
                            if let Some(gone) = displaced {
                                let at = model.waiting.iter().position(|(.., other)| *other == gone).unwrap();
                                let (payer, ..) = model.waiting.remove(at);
                                prop_assert!(own + 1 < longest || claimed);
                                let younger = model.waiting.iter().skip(at).any(|(other, ..)| *other == payer);
                                prop_assert!(!younger, "the youngest pays");
                            }
                            model.waiting.push((whose, ticket, number));
                        }
                        Entry::Shed(Shed::QueueFull) => {
                            let claimed_waiting = model.waiting.iter().filter(|(whose, ..)| whose.is_claimed()).count();
                            let claimed_full = claimed && claimed_waiting >= (queued / 4).max(1);
                            prop_assert!(model.waiting.len() == queued || claimed_full);
                            prop_assert!(own + 1 >= longest || claimed_full);
                        }
                        Entry::Shed(Shed::ExpectedWait) => prop_assert!(model.in_flight.len() >= places / 4),
                        Entry::Shed(shed) => prop_assert!(false, "{shed:?}"),
                    }
                }
                Step::Leave(which, held_ms) if !model.in_flight.is_empty() => {
                    let whose = model.in_flight.swap_remove(which % model.in_flight.len());
                    let served = queue.leave(&whose, Some(Duration::from_millis(held_ms)));
                    model.serve(served, places)?;
                }
                Step::Withdraw(which) if !model.waiting.is_empty() => {
                    let (whose, ticket, _) = model.waiting.remove(which % model.waiting.len());
                    prop_assert!(queue.withdraw(&whose, ticket));
                }
                Step::Prove(which) => {
                    let claims: Vec<_> = model.in_flight.iter().filter(|whose| whose.is_claimed()).cloned().collect();
                    if let Some(whose) = claims.get(which % claims.len().max(1)) {
                        let at = model.in_flight.iter().position(|other| other == whose).unwrap();
                        model.in_flight[at] = key("proven");
                        let served = queue.prove(whose, &key("proven"));
                        model.serve(served, places)?;
                    }
                }
                Step::Leave(..) | Step::Withdraw(_) => {}
            }
            prop_assert_eq!((queue.in_flight(), queue.waiting()), (model.in_flight.len(), model.waiting.len()));
            prop_assert!(model.in_flight.len() <= places && model.waiting.len() <= queued);
            prop_assert!(model.claimed() <= (places / 4).max(1));
            let could_go_on = |whose: &Whose| !whose.is_claimed() || model.claimed() < (places / 4).max(1);
            let idle = model.in_flight.len() < places && model.waiting.iter().any(|(whose, ..)| could_go_on(whose));
            prop_assert!(!idle, "somebody waits although there is a place");
        }
        // Nobody is lost: when all have left, everyone who waited has been served.
        while let Some(whose) = model.in_flight.pop() {
            let served = queue.leave(&whose, None);
            model.serve(served, places)?;
        }
        prop_assert!(model.waiting.is_empty() && queue.shares.is_empty());
        prop_assert!(queue.proven_turns.is_empty() && queue.claimed_turns.is_empty());
    }
}

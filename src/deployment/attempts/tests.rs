use super::super::address::ConnectFailure;
use super::super::affinity::id_hash;
use super::super::outcome::{Exception, Late, Outcome, Phase, Sign, judge};
use super::super::select::Home;
use super::*;

const TABLE: &str = include_str!("decisions.txt");
const NAMES: [&str; 3] = ["A", "B", "C"];

fn view(availability: Availability) -> View {
    View {
        tried: false,
        max_retries: 0,
        weight: 1,
        availability,
        full_for: None,
        in_flight: 0,
        load: 0.0,
        latency_us: None,
        used_share: 0,
        used_requests: 0,
        rate: None,
        id_hash: id_hash("any"),
    }
}

/// A deployment as the table writes it, and how often it was tried.
fn deployment(word: &str, now: Instant) -> (View, u32) {
    let cooling = |seconds| Availability::Cooling { until: now + Duration::from_secs(seconds) };
    let mut found = match word.trim_end_matches(['*', '+']) {
        "ok" | "full" => view(Availability::Healthy),
        "shaky" => view(Availability::Suspect),
        "probe" => view(Availability::Probe),
        "cool" => view(cooling(2)),
        "long" => view(cooling(30)),
        other => panic!("a deployment that is {other}?"),
    };
    found.full_for = word.starts_with("full").then_some(Duration::from_secs(7));
    found.tried = word.contains('*');
    found.max_retries = u32::from(word.contains('+'));
    (found, u32::from(found.tried))
}

fn outcome(word: &str) -> Outcome {
    match word {
        "refused" => Outcome::NotConnected(ConnectFailure::Refused),
        "connect_timeout" => Outcome::NotConnected(ConnectFailure::TimedOut),
        "tls" => Outcome::NotConnected(ConnectFailure::Tls),
        "name" => Outcome::NotConnected(ConnectFailure::Name),
        "unreachable" => Outcome::NotConnected(ConnectFailure::Other),
        "credentials" => Outcome::Credentials,
        "first_byte" => Outcome::TimedOut(Late::FirstByte),
        "idle" => Outcome::TimedOut(Late::Idle),
        "total" => Outcome::TimedOut(Late::Total),
        "broke" => Outcome::Broke,
        "stale" => Outcome::NotSent,
        "client_gone" => Outcome::ClientGone,
        "context_window" => Outcome::ContextWindow,
        status if status.starts_with(|first: char| first.is_ascii_digit()) => {
            let (status, retry_after) = status.split_once('+').unwrap_or((status, ""));
            let retry_after = retry_after.parse().ok().map(Duration::from_secs);
            Outcome::of_status(status.parse().unwrap(), retry_after)
        }
        name => Outcome::Exception(Exception::of(name)),
    }
}

fn phase(word: &str) -> Phase {
    match word {
        "connecting" => Phase::Connecting,
        "sent" => Phase::Sent,
        "headed" => Phase::Headed,
        "content" => Phase::Content,
        other => panic!("the phase {other}?"),
    }
}

fn sign_word(sign: Sign) -> String {
    match sign {
        Sign::Good => "good".to_owned(),
        Sign::None => "none".to_owned(),
        Sign::Throttle { retry_after: None } => "throttle".to_owned(),
        Sign::Throttle { retry_after: Some(time) } => format!("throttle+{}", time.as_secs()),
        Sign::Failure => "failure".to_owned(),
        Sign::Host => "host".to_owned(),
    }
}

fn step_word(step: Step) -> String {
    match step {
        Step::Try { choice, pause } => {
            let pause = match pause {
                Duration::ZERO => String::new(),
                time if time < Duration::from_secs(2) => "+p".to_owned(),
                time => format!("+{}s", time.as_secs()),
            };
            format!("{}{pause}", NAMES[choice.index])
        }
        Step::Same => "same".to_owned(),
        Step::OtherModel => "model".to_owned(),
        Step::BreakOff => "break_off".to_owned(),
        Step::Deliver(Why::Final) => "final".to_owned(),
        Step::Deliver(Why::Exhausted) => "exhausted".to_owned(),
        Step::Deliver(Why::NoneLeft) => "none_left".to_owned(),
        Step::Deliver(Why::Full { free_in }) => {
            assert_eq!(free_in, Duration::from_secs(7));
            "full".to_owned()
        }
        Step::Deliver(Why::RetryBudget) => "budget".to_owned(),
    }
}

fn circumstances(now: Instant, random: u64) -> Circumstances {
    Circumstances { strategy: Strategy::SimpleShuffle, affinity: None, retry_budget_percent: 20, now, random }
}

fn spent(now: Instant) -> RetryBudget {
    let mut budget = RetryBudget::default();
    while budget.retry(now, 20) {}
    budget
}

/// The last three words of a row, as the code has them.
fn decide(words: &[&str], now: Instant, random: u64) -> [String; 3] {
    let [happened, reached, made, budget, deployments @ ..] = words else { panic!("{words:?} is too short") };
    let (made, allowed) = made.split_once('/').unwrap();
    let (views, tries): (Vec<View>, Vec<u32>) = deployments.iter().map(|word| deployment(word, now)).unzip();
    assert!(views[0].tried, "A is the one that was tried");
    let attempts = Attempts { allowed: allowed.parse().unwrap(), made: made.parse().unwrap(), tries };
    let mut budget = if *budget == "spent" { spent(now) } else { RetryBudget::default() };
    let verdict = judge(outcome(happened), phase(reached));
    let step = attempts.after(&verdict, &views, &mut budget, &circumstances(now, random));
    let billed = if verdict.may_be_billed { "yes" } else { "no" };
    [step_word(step), sign_word(verdict.sign), billed.to_owned()]
}

#[test]
fn every_situation_has_its_decision() {
    let now = Instant::now();
    let mut rows = 0;
    let mut wrong = Vec::new();
    for row in TABLE.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        rows += 1;
        let words: Vec<&str> = row.split_whitespace().collect();
        let (given, expected) = words.split_at(words.len() - 3);
        // Whatever the dice say; a pause of nothing would not show.
        for random in [u64::MAX / 7, u64::MAX / 2, u64::MAX] {
            let decided = decide(given, now, random);
            if decided != expected {
                wrong.push(format!("{row}\n    is {decided:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {rows} rows:\n{}", wrong.len(), wrong.join("\n"));
    assert!(rows >= 150, "{rows} rows");
}

#[test]
fn attempts_are_counted_over_all_model_names() {
    let now = Instant::now();
    let views = [view(Availability::Healthy), view(Availability::Healthy)];
    let mut budget = RetryBudget::default();
    let mut attempts = Attempts::new(1);
    let first = attempts.next(&views, &mut budget, &circumstances(now, 0));
    assert_eq!(step_word(first), "A");
    attempts.begun(0);
    attempts.enter_next_model();
    assert!(!attempts.tried(0));
    assert_eq!(step_word(attempts.next(&views, &mut budget, &circumstances(now, 0))), "A");
    attempts.begun(0);
    assert_eq!(step_word(attempts.next(&views, &mut budget, &circumstances(now, 0))), "exhausted");
    assert_eq!(attempts.made(), 2);
}

#[test]
fn what_cannot_be_sent_again_is_not() {
    let now = Instant::now();
    let views = [view(Availability::Healthy), view(Availability::Healthy)];
    let mut attempts = Attempts::new(5);
    attempts.begun(1);
    assert!(attempts.tried(1) && !attempts.tried(0));
    assert!(attempts.may_go_on(2));
    attempts.stay();
    assert!(!attempts.may_go_on(2));
    assert_eq!(step_word(attempts.next(&views, &mut RetryBudget::default(), &circumstances(now, 0))), "exhausted");
}

#[test]
fn a_retry_goes_to_the_next_in_the_order_of_its_key() {
    let now = Instant::now();
    let mut views = ["a", "b", "c"].map(|id| View { id_hash: id_hash(id), ..view(Availability::Healthy) });
    let with_key = Circumstances { affinity: Some(77), ..circumstances(now, 0) };
    let mut budget = RetryBudget::default();
    let mut attempts = Attempts::new(2);
    let mut homes = Vec::new();
    for _ in 0..3 {
        let Step::Try { choice, .. } = attempts.next(&views, &mut budget, &with_key) else { panic!("none") };
        attempts.begun(choice.index);
        views[choice.index].tried = true;
        homes.push(choice.affinity.unwrap());
    }
    assert_eq!(homes, [Home::Hit, Home::Away, Home::Away]);
}

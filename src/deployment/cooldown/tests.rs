use super::*;

const RULES: CooldownRules =
    CooldownRules { enabled: true, allowed_fails: 3, base: Duration::from_secs(5), max: Duration::from_mins(1) };

/// A condition and a clock of its own.
struct Patient {
    start: Instant,
    now: Instant,
    condition: Condition,
}

impl Patient {
    fn new() -> Self {
        let start = Instant::now();
        Self { start, now: start, condition: Condition::default() }
    }

    /// One that has just begun a cooldown of 5 s.
    fn cooling() -> Self {
        let mut patient = Self::new();
        patient.fail(4);
        assert_eq!(patient.left(), Some(5_000));
        patient
    }

    fn wait(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }

    fn fail(&mut self, times: u32) -> Option<Cause> {
        let mut cause = None;
        for _ in 0..times {
            let pass = self.condition.begin(self.now);
            cause = self.condition.failed(pass, Kind::Whole, self.now, &RULES);
        }
        cause
    }

    fn succeed(&mut self) -> bool {
        let pass = self.condition.begin(self.now);
        self.condition.succeeded(pass, Kind::Whole, self.now)
    }

    fn throttle(&mut self, retry_after: Option<u64>) -> Option<Cause> {
        let pass = self.condition.begin(self.now);
        self.condition.throttled(pass, self.now, retry_after.map(Duration::from_secs), &RULES)
    }

    fn is(&self) -> Availability {
        self.condition.availability(self.now)
    }

    /// Milliseconds until it may be tried.
    fn left(&self) -> Option<u128> {
        match self.is() {
            Availability::Cooling { until } => Some((until - self.now).as_millis()),
            _ => None,
        }
    }
}

#[test]
fn more_failures_in_a_row_than_allowed_begin_a_cooldown() {
    let mut patient = Patient::new();
    assert_eq!(patient.is(), Availability::Healthy);
    assert_eq!(patient.fail(3), None);
    assert_eq!(patient.is(), Availability::Suspect);
    assert!(!patient.succeed(), "it was in use all the time");
    assert_eq!(patient.is(), Availability::Healthy);
    for _ in 0..9 {
        patient.succeed();
    }
    assert_eq!(patient.fail(3), None, "a success breaks the row");
    assert_eq!(patient.fail(1), Some(Cause::Failures));
    assert_eq!(patient.left(), Some(5_000));
}

#[test]
fn failures_that_are_half_of_a_minutes_attempts_begin_a_cooldown() {
    let mut patient = Patient::new();
    for _ in 0..3 {
        patient.succeed();
        assert_eq!(patient.fail(1), None);
        patient.wait(8_000);
    }
    patient.succeed();
    assert_eq!(patient.fail(1), Some(Cause::Failures), "four of eight");

    let mut patient = Patient::new();
    for _ in 0..20 {
        patient.succeed();
        patient.succeed();
        assert_eq!(patient.fail(1), None, "a third is less than half");
    }

    let mut patient = Patient::new();
    for _ in 0..20 {
        patient.succeed();
        assert_eq!(patient.fail(1), None, "of three in a minute each is allowed");
        patient.wait(20_000);
    }
}

#[test]
fn after_a_cooldown_one_at_a_time_may_try() {
    let mut patient = Patient::cooling();
    patient.wait(4_999);
    assert_eq!(patient.left(), Some(1));
    patient.wait(1);
    assert_eq!(patient.is(), Availability::Probe);
    assert!(patient.condition.is_half_open(patient.now));
    let probe = patient.condition.begin(patient.now);
    assert_eq!(patient.left(), Some(10_000), "others are kept away until it ends");
    assert!(patient.condition.succeeded(probe, Kind::Whole, patient.now));
    assert_eq!(patient.is(), Availability::Healthy);
}

#[test]
fn a_probe_that_takes_too_long_or_says_nothing_keeps_nobody_away() {
    let mut patient = Patient::cooling();
    patient.wait(5_000);
    let slow = patient.condition.begin(patient.now);
    patient.wait(10_000);
    assert_eq!(patient.is(), Availability::Probe);
    let second = patient.condition.begin(patient.now);
    assert_eq!(patient.left(), Some(10_000));
    patient.condition.ended(second);
    assert_eq!(patient.is(), Availability::Probe);
    assert!(patient.condition.succeeded(slow, Kind::Whole, patient.now), "better late than never");
    assert_eq!(patient.is(), Availability::Healthy);
}

#[test]
fn a_failed_probe_doubles_the_cooldown_up_to_its_maximum() {
    let mut patient = Patient::cooling();
    patient.wait(5_000);
    for expected in [10_000, 20_000, 40_000, 60_000, 60_000] {
        assert_eq!(patient.fail(1), Some(Cause::Failures));
        assert_eq!(patient.left(), Some(expected));
        patient.wait(u64::try_from(expected).unwrap());
    }
    assert!(patient.succeed());
}

#[test]
fn a_failure_on_probation_doubles_too_and_after_it_all_is_forgotten() {
    let mut patient = Patient::cooling();
    patient.wait(5_000);
    patient.succeed();
    patient.wait(4_000);
    assert_eq!(patient.fail(1), Some(Cause::Failures));
    assert_eq!(patient.left(), Some(10_000));
    patient.wait(10_000);
    patient.succeed();
    patient.wait(10_000);
    assert_eq!(patient.fail(3), None, "the probation lasted as long as the cooldown");
    assert_eq!(patient.fail(1), Some(Cause::Failures));
    assert_eq!(patient.left(), Some(5_000));
}

#[test]
fn a_throttle_begins_a_cooldown_at_once_for_as_long_as_asked() {
    for (asked, expected) in [(Some(9), 9_000), (Some(600), 60_000), (None, 1_000)] {
        let mut patient = Patient::new();
        assert_eq!(patient.throttle(asked), Some(Cause::Throttle));
        assert_eq!(patient.left(), Some(expected), "{asked:?}");
    }
    let mut patient = Patient::new();
    assert_eq!(patient.throttle(Some(0)), Some(Cause::Throttle));
    assert_eq!(patient.is(), Availability::Probe, "now means now");
}

#[test]
fn throttles_that_name_no_time_double_theirs() {
    let mut patient = Patient::new();
    for expected in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
        assert_eq!(patient.throttle(None), Some(Cause::Throttle));
        assert_eq!(patient.left(), Some(expected));
        patient.wait(u64::try_from(expected).unwrap());
    }
    patient.succeed();
    patient.wait(60_000);
    patient.throttle(None);
    assert_eq!(patient.left(), Some(1_000));
}

#[test]
fn throttles_are_no_failures() {
    let mut patient = Patient::new();
    patient.fail(3);
    patient.throttle(Some(1));
    patient.wait(1_000);
    assert!(patient.succeed());
    patient.wait(1_000);
    assert_eq!(patient.fail(3), None);
    patient.throttle(Some(2));
    assert_eq!(patient.left(), Some(2_000));
}

#[test]
fn a_cooldown_never_ends_earlier_than_it_was_to() {
    let mut patient = Patient::new();
    let passes = [(); 3].map(|()| patient.condition.begin(patient.now));
    let throttle = |patient: &mut Patient, pass, seconds: Option<u64>| {
        patient.condition.throttled(pass, patient.now, seconds.map(Duration::from_secs), &RULES)
    };
    throttle(&mut patient, passes[0], Some(20));
    assert_eq!(throttle(&mut patient, passes[1], Some(5)), None);
    assert_eq!(patient.left(), Some(20_000));
    assert_eq!(throttle(&mut patient, passes[2], Some(30)), None);
    assert_eq!(patient.left(), Some(30_000), "it may be prolonged");
    assert_eq!(patient.throttle(None), None);
    assert_eq!(patient.fail(10), None);
    assert_eq!(patient.left(), Some(30_000));
}

#[test]
fn what_began_before_a_cooldown_says_nothing_when_it_has_ended() {
    let mut patient = Patient::new();
    let old = [(); 5].map(|()| patient.condition.begin(patient.now));
    patient.fail(4);
    patient.wait(5_000);
    patient.succeed();
    for pass in old {
        assert_eq!(patient.condition.failed(pass, Kind::Whole, patient.now, &RULES), None);
        assert_eq!(patient.is(), Availability::Healthy);
        assert_eq!(patient.condition.throttled(pass, patient.now, None, &RULES), None);
        assert!(!patient.condition.succeeded(pass, Kind::Whole, patient.now));
    }
    let mut patient = Patient::new();
    let old = patient.condition.begin(patient.now);
    patient.fail(4);
    assert!(!patient.condition.succeeded(old, Kind::Whole, patient.now), "an old success ends no cooldown");
    assert_eq!(patient.left(), Some(5_000));
}

#[test]
fn streams_that_fail_are_not_lost_in_whole_answers_that_come() {
    for (failing, working) in [(Kind::Stream, Kind::Whole), (Kind::Whole, Kind::Stream)] {
        let mut patient = Patient::new();
        for _ in 0..1_000 {
            let pass = patient.condition.begin(patient.now);
            assert!(!patient.condition.succeeded(pass, working, patient.now));
        }
        for failures in 1..=4 {
            let passes = [(); 2].map(|()| patient.condition.begin(patient.now));
            assert!(!patient.condition.succeeded(passes[0], working, patient.now));
            let cause = patient.condition.failed(passes[1], failing, patient.now, &RULES);
            assert_eq!(cause, (failures == 4).then_some(Cause::Failures));
        }
        assert_eq!(patient.left(), Some(5_000));
        // A probe of the kind that works lets it back, and the first of the others shows that it is too early.
        patient.wait(5_000);
        let probe = patient.condition.begin(patient.now);
        assert!(patient.condition.succeeded(probe, working, patient.now));
        let pass = patient.condition.begin(patient.now);
        assert_eq!(patient.condition.failed(pass, failing, patient.now, &RULES), Some(Cause::Failures));
        assert_eq!(patient.left(), Some(10_000));
    }
}

#[test]
fn a_success_of_one_that_had_to_be_used_ends_its_cooldown() {
    let mut patient = Patient::cooling();
    patient.wait(1_000);
    assert!(patient.succeed());
    assert_eq!(patient.is(), Availability::Healthy);
}

#[test]
fn the_failures_of_one_that_had_to_be_used_change_nothing() {
    let mut patient = Patient::cooling();
    patient.wait(1_000);
    assert_eq!(patient.fail(10), None);
    assert_eq!(patient.left(), Some(4_000));
    patient.wait(4_000);
    assert_eq!(patient.is(), Availability::Probe);
}

#[test]
fn without_cooldowns_everything_stays_in_use() {
    let rules = CooldownRules { enabled: false, ..RULES };
    let mut condition = Condition::default();
    let now = Instant::now();
    for _ in 0..100 {
        let pass = condition.begin(now);
        assert_eq!(condition.failed(pass, Kind::Whole, now, &rules), None);
        assert_eq!(condition.throttled(pass, now, Some(Duration::from_secs(9)), &rules), None);
        assert_eq!(condition.availability(now), Availability::Suspect);
    }
}

#[test]
fn a_deployment_is_as_well_as_the_worse_of_it_and_its_server() {
    let now = Instant::now();
    let cooling = |seconds| Availability::Cooling { until: now + Duration::from_secs(seconds) };
    let order = [Availability::Healthy, Availability::Suspect, Availability::Probe, cooling(1), cooling(2)];
    for (at, one) in order.into_iter().enumerate() {
        for (other_at, other) in order.into_iter().enumerate() {
            assert_eq!(one.and(other), order[at.max(other_at)]);
        }
    }
}

#[test]
fn a_long_quiet_time_leaves_nothing_of_the_minute_before() {
    let mut patient = Patient::new();
    patient.fail(2);
    patient.wait(10_000_000);
    patient.succeed();
    assert_eq!(patient.condition.whole.recent.sums(patient.now), (1, 0));
    assert!(patient.now > patient.start);
}

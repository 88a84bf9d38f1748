//! The decisions themselves are the table of `attempts`; here is what it does not show.

use super::super::address::ConnectFailure;
use super::*;

#[test]
fn outcomes_have_the_words_that_metrics_and_records_know() {
    for (outcome, word) in [
        (Outcome::NotConnected(ConnectFailure::Tls), "connect"),
        (Outcome::Credentials, "credentials"),
        (Outcome::of_status(429, None), "throttled"),
        (Outcome::of_status(503, None), "server_error"),
        (Outcome::of_status(408, None), "model_timeout"),
        (Outcome::of_status(424, None), "model_error"),
        (Outcome::TimedOut(Late::FirstByte), "timeout"),
        (Outcome::Broke, "broke"),
        (Outcome::Exception(Exception::of("throttlingException")), "throttled"),
        (Outcome::Exception(Exception::of("ModelTimeoutException")), "model_timeout"),
        (Outcome::Exception(Exception::of("internalServerException")), "exception"),
    ] {
        assert_eq!(outcome.as_str(), word);
    }
}

#[test]
fn every_status_is_something() {
    for status in 100..=999_u16 {
        let outcome = Outcome::of_status(status, Some(Duration::from_secs(3)));
        let expected = match status {
            408 => Outcome::ModelTimeout,
            424 => Outcome::ModelError,
            429 => Outcome::Throttled { retry_after: Some(Duration::from_secs(3)) },
            400..500 => Outcome::Refused,
            500..600 => Outcome::ServerError,
            _ => Outcome::Served,
        };
        assert_eq!(outcome, expected, "{status}");
    }
}

#[test]
fn nothing_goes_elsewhere_once_the_client_has_begun_to_read() {
    for outcome in [
        Outcome::Served,
        Outcome::Refused,
        Outcome::ContextWindow,
        Outcome::Throttled { retry_after: None },
        Outcome::ModelTimeout,
        Outcome::ModelError,
        Outcome::ServerError,
        Outcome::NotConnected(ConnectFailure::Other),
        Outcome::Credentials,
        Outcome::TimedOut(Late::Idle),
        Outcome::Broke,
        Outcome::Exception(Exception::Throttling),
        Outcome::ClientGone,
        Outcome::NotSent,
    ] {
        let next = judge(outcome, Phase::Content).next;
        assert!(matches!(next, Next::Deliver | Next::BreakOff), "{outcome:?}: {next:?}");
        assert!(!judge(outcome, Phase::Connecting).may_be_billed, "{outcome:?}");
    }
}

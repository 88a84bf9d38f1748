//! What became of one attempt, and what follows from it: where the request goes next, what it says about the health of
//! the deployment, and whether AWS may bill it although nothing says what it cost.
//!
//! Pure, and the only such classification. Before the first byte of the answer went to the client, everything that
//! another deployment may not have goes to another one; after it nothing is ever repeated. The client's own mistakes
//! (4xx) are delivered: another deployment would refuse them too. Statuses are those of the bedrock-runtime API
//! reference (2026-11): 408 ModelTimeout, 424 ModelError, 429 Throttling and ModelNotReady, 5xx.

use std::time::Duration;

use super::address::ConnectFailure;

/// What became of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// An answer to its end, or the status of one.
    Served,
    /// The client's own mistake: a 4xx that every deployment would give.
    Refused,
    /// The prompt is longer than the model takes.
    ContextWindow,
    /// 429.
    Throttled { retry_after: Option<Duration> },
    /// 408, the model's own timeout.
    ModelTimeout,
    /// 424: the model failed while it worked.
    ModelError,
    /// 5xx.
    ServerError,
    /// No connection, or no TLS session; nothing was sent.
    NotConnected(ConnectFailure),
    /// The credentials of the deployment are missing or expired; nothing was sent.
    Credentials,
    /// A deadline of ours passed.
    TimedOut(Late),
    /// The connection was lost, or the answer ended before its end.
    Broke,
    /// An exception frame in a stream that began with a 200.
    Exception(Exception),
    /// The client went away.
    ClientGone,
    /// A kept connection had been closed by the other side.
    NotSent,
}

/// Which deadline passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    FirstByte,
    Idle,
    /// Of the whole answer.
    Total,
}

/// What an exception frame is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exception {
    Throttling,
    /// The service or the model failed.
    Failure,
    ModelTimeout,
    /// The request itself: another deployment would say the same.
    Client,
}

impl Exception {
    /// By the name in the frame, or in a server-sent event.
    #[must_use]
    pub fn of(name: &str) -> Self {
        const NAMES: [(&str, Exception); 17] = [
            ("throttlingException", Exception::Throttling),
            // As a status it is a 429.
            ("modelNotReadyException", Exception::Throttling),
            ("modelTimeoutException", Exception::ModelTimeout),
            ("internalServerException", Exception::Failure),
            ("modelStreamErrorException", Exception::Failure),
            ("modelErrorException", Exception::Failure),
            ("serviceUnavailableException", Exception::Failure),
            ("dependencyFailedException", Exception::Failure),
            ("badGatewayException", Exception::Failure),
            // Codes of unmodelled errors.
            ("InternalFailure", Exception::Failure),
            ("InternalError", Exception::Failure),
            // Types of Anthropic's and OpenAI's server-sent events.
            ("rate_limit_error", Exception::Throttling),
            ("rate_limit_exceeded", Exception::Throttling),
            ("overloaded_error", Exception::Failure),
            ("api_error", Exception::Failure),
            ("server_error", Exception::Failure),
            ("timeout_error", Exception::ModelTimeout),
        ];
        // Event streams write the first letter small, the codes of errors do not.
        let found = NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map_or(Self::Client, |(_, exception)| *exception)
    }
}

/// How far an attempt had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing was sent.
    Connecting,
    /// The request may have arrived; no header of an answer yet.
    Sent,
    /// A header came, and nothing of the answer went to the client.
    Headed,
    /// Bytes of the answer went to the client.
    Content,
}

/// Where the request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// To the client: the answer as it is, or an error of ours where there is none.
    Deliver,
    /// To a deployment that was not tried yet.
    OtherDeployment,
    /// To another model name; where there is none, the answer is delivered.
    OtherModel,
    /// To the same deployment over a new connection: it counts as the same attempt.
    SameDeployment,
    /// Nowhere: what the client got of the answer ends here.
    BreakOff,
}

/// What an attempt says about the health of its deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// It works.
    Good,
    /// Nothing.
    None,
    /// It has too much to do, and may have said until when.
    Throttle { retry_after: Option<Duration> },
    /// It does not work.
    Failure,
    /// Its server cannot be reached: this goes for every deployment behind it.
    Host,
}

/// What follows from an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    pub next: Next,
    pub sign: Sign,
    /// AWS may bill the attempt although no usage was or will be stated.
    pub may_be_billed: bool,
}

impl Outcome {
    /// Of the status of an answer.
    #[must_use]
    pub const fn of_status(status: u16, retry_after: Option<Duration>) -> Self {
        match status {
            408 => Self::ModelTimeout,
            424 => Self::ModelError,
            429 => Self::Throttled { retry_after },
            400..=499 => Self::Refused,
            500..=599 => Self::ServerError,
            _ => Self::Served,
        }
    }

    /// The word for it in metrics and records.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Refused => "refused",
            Self::ContextWindow => "context_window",
            Self::Throttled { .. } | Self::Exception(Exception::Throttling) => "throttled",
            Self::ModelTimeout | Self::Exception(Exception::ModelTimeout) => "model_timeout",
            Self::ModelError => "model_error",
            Self::ServerError => "server_error",
            Self::NotConnected(_) => "connect",
            Self::Credentials => "credentials",
            Self::TimedOut(_) => "timeout",
            Self::Broke => "broke",
            Self::Exception(Exception::Failure | Exception::Client) => "exception",
            Self::ClientGone => "client_gone",
            Self::NotSent => "not_sent",
        }
    }
}

/// The decision table.
#[must_use]
pub const fn judge(outcome: Outcome, phase: Phase) -> Verdict {
    let sign = sign(outcome, phase);
    let next = match phase {
        Phase::Content => match outcome {
            Outcome::Served => Next::Deliver,
            _ => Next::BreakOff,
        },
        Phase::Connecting | Phase::Sent | Phase::Headed => next(outcome, phase),
    };
    let may_be_billed = match (outcome, phase) {
        (_, Phase::Connecting) => false,
        // A model that fails before its first word is not billed.
        (Outcome::TimedOut(_) | Outcome::Broke | Outcome::ClientGone | Outcome::NotSent, _)
        | (Outcome::Exception(_), Phase::Content) => true,
        _ => false,
    };
    Verdict { next, sign, may_be_billed }
}

/// Where a request goes of which the client has seen nothing.
const fn next(outcome: Outcome, phase: Phase) -> Next {
    match (outcome, phase) {
        // A total deadline is that of the request, and another deployment would begin behind it.
        (
            Outcome::Served | Outcome::Refused | Outcome::TimedOut(Late::Total) | Outcome::Exception(Exception::Client),
            _,
        ) => Next::Deliver,
        (Outcome::ContextWindow, _) => Next::OtherModel,
        (Outcome::ClientGone, _) => Next::BreakOff,
        (Outcome::NotSent, Phase::Connecting | Phase::Sent) => Next::SameDeployment,
        _ => Next::OtherDeployment,
    }
}

const fn sign(outcome: Outcome, phase: Phase) -> Sign {
    match outcome {
        // Who refuses a request, works.
        Outcome::Served | Outcome::Refused | Outcome::ContextWindow | Outcome::Exception(Exception::Client) => {
            Sign::Good
        }
        Outcome::Throttled { retry_after } => Sign::Throttle { retry_after },
        Outcome::Exception(Exception::Throttling) => Sign::Throttle { retry_after: None },
        Outcome::NotConnected(_) => Sign::Host,
        Outcome::ClientGone | Outcome::NotSent => Sign::None,
        // An answer that is under way may be long without anything being wrong.
        Outcome::TimedOut(Late::Total) => match phase {
            Phase::Sent => Sign::Failure,
            Phase::Connecting | Phase::Headed | Phase::Content => Sign::None,
        },
        Outcome::ModelTimeout
        | Outcome::ModelError
        | Outcome::ServerError
        | Outcome::Credentials
        | Outcome::TimedOut(Late::FirstByte | Late::Idle)
        | Outcome::Broke
        | Outcome::Exception(Exception::Failure | Exception::ModelTimeout) => Sign::Failure,
    }
}

#[cfg(test)]
mod tests;

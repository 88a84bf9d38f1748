//! What to do when an attempt fails: another deployment, the same one over a new connection, or an error for the
//! client. Nothing is repeated once a byte of the answer went out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pingora_core::{Error, ErrorSource, ErrorType as PingoraErrorType, Result, RetryType};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::connect_failure::connect_failure;
use super::context::{Attempt, Chosen, RequestContext, Stage};
use super::event_stream::Ended;
use super::select::unreachable_deployments;
use super::shared::{BROKE_FIRST, BUDGET_SPENT, CONTEXT_WINDOW, Flaw, STOPPING, TOTAL_TIMEOUT, UPSTREAM_SILENT};
use super::{Gateway, select, settle};
use crate::aws::error_body::{ErrorResponse, ErrorType};
use crate::deployment::attempts::Step;
use crate::deployment::fleet::Target;
use crate::deployment::live::{Ending, Ongoing};
use crate::deployment::outcome::{Exception, Late, Next, Outcome, Phase, judge as verdict_on};
use crate::deployment::vitals::Change;
use crate::error::{Failure, Fault};

/// Ends the request with a failure of our own.
pub(super) fn give_up<T>(ctx: &mut RequestContext, failure: Failure) -> Result<T> {
    let explanation = failure.reason;
    ctx.failure = Some(failure);
    Error::e_explain(PingoraErrorType::InternalError, explanation)
}

/// Looks at the status of the upstream's answer: deliver it, or try another deployment while there is one.
pub(super) fn judge(gateway: &Gateway, ctx: &mut RequestContext, response: &ResponseHeader) -> Result<()> {
    if response.status.is_informational() {
        return Ok(());
    }
    let status = response.status.as_u16();
    let Some((admitted, attempt)) = ctx.dispatched_mut() else {
        return Ok(());
    };
    attempt.status = Some(status);
    attempt.first_byte = Some(Instant::now());
    let wait = if status == 429 { retry_after(response) } else { None };
    let outcome = Outcome::of_status(status, wait);
    // What a refusal is about stands in its body.
    let may_want_room = status == 400 && admitted.shared.watches_context_window();
    if outcome == Outcome::Served || may_want_room {
        return Ok(()); // Its end will tell.
    }
    if moves_on(gateway, ctx, outcome, Phase::Headed) {
        return Err(another(format!("status {status}")));
    }
    Ok(())
}

/// No connection could be made: another deployment while there is one.
pub(super) fn not_connected(gateway: &Gateway, ctx: &mut RequestContext, mut error: Box<Error>) -> Box<Error> {
    let Some((_, attempt)) = ctx.dispatched_mut() else {
        return error;
    };
    let target = Arc::clone(&attempt.target);
    tracing::warn!(deployment = %target.id, host = %target.host.authority, "cannot connect: {error}");
    let kind = connect_failure(&error);
    target.host.failed(attempt.address, kind, error.to_string());
    let outcome = Outcome::NotConnected(kind);
    if moves_on(gateway, ctx, outcome, Phase::Connecting) {
        return another(format!("no connection to {}", target.id));
    }
    give_up_on(gateway, ctx, &target, outcome, &error);
    error.set_retry(false);
    error
}

/// A connection failed after it was made.
pub(super) fn broken(
    gateway: &Gateway,
    session: &Session,
    ctx: &mut RequestContext,
    mut error: Box<Error>,
    reused: bool,
) -> Box<Error> {
    if matches!(error.retry, RetryType::Decided(true)) && matches!(ctx.stage, Stage::Admitted(_)) {
        return error; // Another attempt has been decided on.
    }
    // Where the request was being written, Pingora tells of that and not of the connection's end.
    let write_failed = *error.etype() == PingoraErrorType::WriteError && *error.esource() == ErrorSource::Upstream;
    let stale = reused && (matches!(error.retry, RetryType::ReusedOnly) || write_failed);
    error.set_retry(false);
    let Some((admitted, attempt)) = ctx.dispatched_mut() else {
        return error;
    };
    let unanswered = session.response_written().is_none();
    let phase = match (attempt.sent, attempt.first_byte) {
        _ if !unanswered => Phase::Content,
        (None, _) => Phase::Connecting,
        (Some(_), None) => Phase::Sent,
        (Some(_), Some(_)) => Phase::Headed,
    };
    // A kept connection that turns out to be closed says nothing about the deployment.
    let stale = stale && !attempt.repeated && attempt.first_byte.is_none();
    let Some(outcome) = outcome_of(&error, attempt, stale) else {
        return error;
    };
    if outcome == Outcome::NotSent
        && verdict_on(outcome, phase).next == Next::SameDeployment
        && let Some(ongoing) = attempt.ongoing.take()
    {
        // It may have been served all the same, and whoever pays for it must not find it missing.
        let (index, target) = (attempt.index, Arc::clone(&attempt.target));
        if attempt.sent.is_some() {
            admitted.spoiled = Some(Arc::clone(&target));
        }
        admitted.chosen = Some(Chosen { index, target, ongoing, pause: Duration::ZERO, repeated: true });
        error.set_retry(true);
        return error;
    }
    let target = Arc::clone(&attempt.target);
    let succeeded = attempt.status.is_some_and(|status| (200..300).contains(&status));
    if moves_on(gateway, ctx, outcome, phase) {
        tracing::warn!(deployment = %target.id, "given up before its content: {error}");
        error.set_retry(true);
        return error;
    }
    match (outcome, phase) {
        (Outcome::Broke, Phase::Connecting | Phase::Sent) => {
            tracing::warn!(deployment = %target.id, "connection failed before an answer: {error}");
            give_up_on(gateway, ctx, &target, outcome, &error);
        }
        // Nothing of it has left yet, so the client can be told by a proper error.
        (Outcome::Broke, Phase::Headed) if succeeded => {
            ctx.failure = Some(answer_broke().because(error.to_string()));
        }
        _ => {}
    }
    error
}

/// What an error of Pingora's, or of the delivery, says about the attempt. `None` for what is our own.
fn outcome_of(error: &Error, attempt: &Attempt, stale: bool) -> Option<Outcome> {
    let kind = error.etype();
    if *kind == UPSTREAM_SILENT {
        let began = attempt.first_byte.is_some() && !attempt.watch.waits();
        return Some(Outcome::TimedOut(if began { Late::Idle } else { Late::FirstByte }));
    }
    let ours = [
        (TOTAL_TIMEOUT, Some(Outcome::TimedOut(Late::Total))),
        (CONTEXT_WINDOW, Some(Outcome::ContextWindow)),
        (BROKE_FIRST, Some(Outcome::Broke)),
        (BUDGET_SPENT, None),
    ];
    if let Some((_, outcome)) = ours.into_iter().find(|(ours, _)| ours == kind) {
        return outcome;
    }
    match error.esource() {
        ErrorSource::Upstream if stale => Some(Outcome::NotSent),
        ErrorSource::Upstream => Some(Outcome::Broke),
        ErrorSource::Downstream => Some(Outcome::ClientGone),
        ErrorSource::Internal | ErrorSource::Unset => None,
    }
}

/// Until when AWS does not want to be asked again; SDKs read the millisecond header before the other.
fn retry_after(response: &ResponseHeader) -> Option<Duration> {
    let number = |name| response.headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
    number("x-amz-retry-after").map(Duration::from_millis).or_else(|| number("retry-after").map(Duration::from_secs))
}

/// Ends the attempt under way. True when the request goes on to another one; the attempt is written down then.
fn moves_on(gateway: &Gateway, ctx: &mut RequestContext, outcome: Outcome, phase: Phase) -> bool {
    let Some((_, attempt)) = ctx.dispatched_mut() else {
        return false;
    };
    // What has been judged is on its way to the client.
    let Some(ongoing) = attempt.ongoing.take() else {
        return false;
    };
    let (target, status) = (Arc::clone(&attempt.target), attempt.status);
    // An exception in place of an answer is not billed. What had begun may be.
    let begun = matches!(outcome, Outcome::Exception(_)) && !attempt.watch.refused;
    let waited = attempt.sent.map(|sent| sent.elapsed()).filter(|_| matches!(outcome, Outcome::TimedOut(_)));
    let ending = Ending { latency: waited, ..Ending::of(outcome, phase, status) };
    if !goes_on(gateway, ctx, ongoing, &ending) {
        return false;
    }
    if let Some(admitted) = ctx.admitted_mut() {
        if begun {
            admitted.spoiled = Some(Arc::clone(&target));
        }
        if admitted.spoiled.is_some() && status.is_some_and(|status| (200..300).contains(&status)) {
            settle::measure_given_up(gateway, ctx);
        }
    }
    gateway.metrics.set_back(target.id.as_str(), outcome.as_str());
    (ctx.record.aws_request_id, ctx.record.time_to_first_byte_ms) = (None, None);
    ctx.set_back(&target, status, outcome);
    true
}

/// A stream has failed before its content, and nothing of it has left. The error with which it is given up for another
/// attempt, if there is one.
pub(super) fn given_up(gateway: &Gateway, ctx: &mut RequestContext, outcome: Outcome) -> Result<()> {
    if moves_on(gateway, ctx, outcome, Phase::Headed) {
        return Err(another(format!("no content: {}", outcome.as_str())));
    }
    Ok(())
}

/// Ends an attempt, and decides whether the request goes on to another one.
pub(super) fn goes_on(gateway: &Gateway, ctx: &mut RequestContext, ongoing: Ongoing, ending: &Ending) -> bool {
    let target = Arc::clone(ongoing.target());
    end(gateway, ongoing, ending);
    let verdict = verdict_on(ending.outcome, ending.phase);
    let Some(admitted) =
        ctx.admitted_mut().filter(|_| matches!(verdict.next, Next::OtherDeployment | Next::OtherModel))
    else {
        return false;
    };
    if admitted.shared.deserted() {
        admitted.stay(); // Nobody waits for another answer.
    }
    let goes_on = matches!(select::choose(gateway, admitted, Some(&verdict)), Step::Try { .. });
    // It may have been served all the same, and whoever pays for it must not find it missing.
    if goes_on && verdict.may_be_billed {
        admitted.spoiled = Some(target);
    }
    goes_on
}

/// Reports to a deployment what became of an attempt.
fn end(gateway: &Gateway, ongoing: Ongoing, ending: &Ending) {
    let target = Arc::clone(ongoing.target());
    let changes = ongoing.end(ending);
    let what = ending.outcome.as_str();
    match changes.own {
        Some(Change::Cooled(cause)) => {
            gateway.metrics.cooled(target.id.as_str(), cause.as_str());
            tracing::warn!(deployment = %target.id, status = ending.status, "cools, last because of: {what}");
        }
        Some(Change::Recovered) => tracing::info!(deployment = %target.id, "works again"),
        None => {}
    }
    match changes.host {
        Some(Change::Cooled(_)) => {
            gateway.metrics.endpoint_cooled(&target.host.authority);
            tracing::warn!(host = %target.host.authority, "cannot be reached, and is left alone for a while");
        }
        Some(Change::Recovered) => tracing::info!(host = %target.host.authority, "can be reached again"),
        None => {}
    }
}

/// The request is over: what its last attempt says, if it has not been asked before.
pub(super) fn ended(gateway: &Gateway, ctx: &mut RequestContext, error: Option<&Error>) {
    let Some((admitted, attempt)) = ctx.dispatched_mut() else {
        return;
    };
    let (Some(ongoing), Some(status)) = (attempt.ongoing.take(), attempt.status) else {
        return; // Dropped, it says nothing.
    };
    if admitted.shared.ended() == Some(Ended::Stopping) {
        return;
    }
    let outcome = match (admitted.shared.ended_badly(), error) {
        (Some(Flaw::Exception), _) => {
            Outcome::Exception(Exception::of(&admitted.shared.exception().unwrap_or_default()))
        }
        (Some(Flaw::Broke | Flaw::Damaged | Flaw::Short), _) => Outcome::Broke,
        (Some(Flaw::Silent), _) => Outcome::TimedOut(Late::Idle),
        (Some(Flaw::TooLong), _) => Outcome::TimedOut(Late::Total),
        (None, None) => Outcome::of_status(status, None),
        // The budget ended it, not the deployment.
        (None, Some(error)) if *error.etype() == BUDGET_SPENT => Outcome::Served,
        (None, Some(error)) => match outcome_of(error, attempt, false) {
            Some(outcome) => outcome,
            None => return,
        },
    };
    let latency = match (outcome, attempt.sent) {
        (Outcome::Served, Some(sent)) if admitted.call.streams() => {
            attempt.first_byte.map(|first| first.saturating_duration_since(sent))
        }
        (Outcome::Served, Some(sent)) => Some(sent.elapsed()),
        _ => None,
    };
    let ending = Ending { outcome, phase: Phase::Content, status: Some(status), latency, tokens: attempt.tokens };
    end(gateway, ongoing, &ending);
}

/// The last attempt failed before an answer, and there is none to deliver.
fn give_up_on(gateway: &Gateway, ctx: &mut RequestContext, target: &Arc<Target>, outcome: Outcome, error: &Error) {
    let sent = ctx.dispatched_mut().is_some_and(|(_, attempt)| attempt.sent.is_some());
    if let Some(admitted) = ctx.admitted_mut().filter(|_| sent) {
        admitted.spoiled = Some(Arc::clone(target));
    }
    gateway.metrics.set_back(target.id.as_str(), outcome.as_str());
    ctx.set_back(target, None, outcome);
    let failure = if sent { answer_broke() } else { unreachable_deployments() };
    ctx.failure = Some(failure.because(error.to_string()));
}

/// The failure that a client is told of for an error of Pingora's.
pub(super) fn failure_of(error: &Error) -> Failure {
    if *error.etype() == UPSTREAM_SILENT {
        return Failure::upstream(
            "upstream_timeout",
            ErrorType::ModelTimeout,
            "The model did not answer in time. Ask for less, stream the answer, or have the operator raise `timeout`.",
        )
        .with(ErrorResponse::no_retry)
        .because(error.to_string());
    }
    if *error.etype() == STOPPING {
        return stopping();
    }
    if *error.etype() == TOTAL_TIMEOUT {
        return Failure::upstream(
            "total_timeout",
            ErrorType::ModelTimeout,
            "The model's answer was not complete in time. Ask for less, or have the operator raise `total_timeout`.",
        )
        .with(ErrorResponse::no_retry)
        .because(error.to_string());
    }
    if *error.etype() == CONTEXT_WINDOW {
        return Failure::new(
            Fault::Client,
            "context_window",
            ErrorType::Validation,
            "The prompt is too long for every model that may be asked. Send less.",
        );
    }
    if *error.etype() == BUDGET_SPENT {
        return Failure::new(
            Fault::Limit,
            "budget_exhausted",
            ErrorType::ServiceQuotaExceeded,
            "The budget is used up, so the answer ends here.",
        );
    }
    match error.esource() {
        ErrorSource::Downstream => Failure::new(
            Fault::Disconnect,
            "client_gone",
            ErrorType::Validation,
            "The connection was closed before the request was complete.",
        ),
        ErrorSource::Upstream => unreachable_deployments(),
        ErrorSource::Internal | ErrorSource::Unset => Failure::new(
            Fault::Internal,
            "internal",
            ErrorType::InternalServer,
            "The proxy could not handle the request. Try again, and tell its operator if this goes on.",
        ),
    }
    .because(error.to_string())
}

/// The connection broke after the request had been sent: it may have been served and be billed, so SDKs must not ask for it
/// again.
fn answer_broke() -> Failure {
    Failure::upstream(
        "upstream_broke",
        ErrorType::ModelTimeout,
        "The connection to the model broke before its answer was complete. Sending the request again may be billed again.",
    )
    .with(ErrorResponse::no_retry)
}

/// The process ends before the answer has begun. Another replica, or the next process, serves the repetition.
pub(super) fn stopping() -> Failure {
    Failure::new(
        Fault::Internal,
        "stopping",
        ErrorType::ServiceUnavailable,
        "The proxy is stopping and could not finish the request in time. Send it again.",
    )
}

fn another(explanation: String) -> Box<Error> {
    let mut error = Error::explain(PingoraErrorType::new("NextDeployment"), explanation).into_up();
    error.set_retry(true);
    error
}

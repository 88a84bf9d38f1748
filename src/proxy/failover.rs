//! What to do when an attempt fails: another deployment, the same one over a new connection, or an error for the
//! client. Nothing is repeated once a byte of the answer went out.

use std::time::Instant;

use pingora_core::{Error, ErrorSource, ErrorType as PingoraErrorType, Result, RetryType};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::Gateway;
use super::connect_failure::connect_failure;
use super::context::{Admitted, Attempt, RequestContext, Stage};
use super::select::unreachable_deployments;
use super::shared::{
    BROKE_FIRST, BUDGET_SPENT, CONTEXT_WINDOW, EXCEPTION_FIRST, STOPPING, TOTAL_TIMEOUT, UPSTREAM_SILENT,
};
use crate::aws::error_body::{ErrorResponse, ErrorType};
use crate::deployment::first_event::setback_of;
use crate::deployment::outcome::{self, Setback};
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
    let Some(setback) = outcome::of_status(status).filter(|_| admitted.may_go_on()) else {
        return Ok(());
    };
    let target = std::sync::Arc::clone(&attempt.target);
    gateway.metrics.set_back(target.id.as_str(), setback.as_str());
    ctx.set_back(&target, Some(status), setback);
    Err(another(format!("status {status} of {}", target.id)))
}

/// No connection could be made: another deployment while there is one.
pub(super) fn not_connected(gateway: &Gateway, ctx: &mut RequestContext, error: Box<Error>) -> Box<Error> {
    let Some((admitted, attempt)) = ctx.dispatched_mut() else {
        return error;
    };
    let may_go_on = admitted.may_go_on();
    let target = std::sync::Arc::clone(&attempt.target);
    target.host.failed(attempt.address, connect_failure(&error), error.to_string());
    tracing::warn!(deployment = %target.id, host = %target.host.authority, "cannot connect: {error}");
    gateway.metrics.set_back(target.id.as_str(), Setback::Connect.as_str());
    ctx.set_back(&target, None, Setback::Connect);
    if may_go_on {
        return another(format!("no connection to {}", target.id));
    }
    ctx.failure = Some(unreachable_deployments().because(error.to_string()));
    let mut error = error;
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
        return error; // `judge` asked for this one.
    }
    let of_upstream = *error.esource() == ErrorSource::Upstream;
    let unanswered = session.response_written().is_none();
    if unanswered && give_up_stream(gateway, ctx, &error) {
        error.set_retry(true);
        return error;
    }
    let stale = matches!(error.retry, RetryType::ReusedOnly) && reused;
    error.set_retry(false);
    if !(of_upstream && unanswered) {
        return error;
    }
    let Some((admitted, attempt)) = ctx.dispatched_mut() else {
        return error;
    };
    if attempt.first_byte.is_some() {
        // Nothing of it has left yet, so the client can be told by a proper error.
        if attempt.status.is_some_and(|status| (200..300).contains(&status)) {
            ctx.failure = Some(answer_broke().because(error.to_string()));
        }
        return error;
    }
    // It may have been served all the same, and whoever pays for it must not find it missing.
    admitted.spoiled |= attempt.sent.is_some();
    // A kept connection that turns out to be closed says nothing about the deployment.
    if stale && !attempt.repeated {
        admitted.again = Some((attempt.index, std::sync::Arc::clone(&attempt.target)));
        error.set_retry(true);
        return error;
    }
    let may_go_on = admitted.may_go_on();
    let target = std::sync::Arc::clone(&attempt.target);
    tracing::warn!(deployment = %target.id, "connection failed before an answer: {error}");
    gateway.metrics.set_back(target.id.as_str(), Setback::Connect.as_str());
    ctx.set_back(&target, None, Setback::Connect);
    if may_go_on {
        error.set_retry(true);
    } else {
        ctx.failure = Some(unreachable_deployments().because(error.to_string()));
    }
    error
}

/// Gives the attempt at a stream up whose content has not come, if another deployment may be asked: nothing of it has
/// left. False when it stays as it is.
fn give_up_stream(gateway: &Gateway, ctx: &mut RequestContext, error: &Error) -> bool {
    let Some((admitted, attempt)) = ctx.dispatched_mut() else {
        return false;
    };
    let Some(setback) = setback_before_content(admitted, attempt, error) else {
        return false;
    };
    // An exception in place of the stream is not billed. Anything else may have been served.
    admitted.spoiled |= attempt.sent.is_some() && !attempt.watch.refused;
    let (target, status) = (std::sync::Arc::clone(&attempt.target), attempt.status);
    tracing::warn!(deployment = %target.id, "a stream had no content: {error}");
    gateway.metrics.set_back(target.id.as_str(), setback.as_str());
    (ctx.record.aws_request_id, ctx.record.time_to_first_byte_ms) = (None, None);
    ctx.set_back(&target, status, setback);
    true
}

/// Why an attempt at a stream is to be made elsewhere; `None` where it is not, or cannot be.
fn setback_before_content(admitted: &Admitted, attempt: &Attempt, error: &Error) -> Option<Setback> {
    let shared = &admitted.shared;
    let kind = error.etype();
    if shared.deserted() || !admitted.may_go_on() || !admitted.call.streams() {
        return None;
    }
    if *kind == EXCEPTION_FIRST {
        return setback_of(&shared.exception()?);
    }
    let began = attempt.first_byte.is_some();
    if *kind == UPSTREAM_SILENT {
        return (!began || attempt.watch.waits()).then_some(Setback::ModelTimeout);
    }
    let broke = *kind == BROKE_FIRST || (*error.esource() == ErrorSource::Upstream && attempt.watch.waits());
    (broke && *kind != TOTAL_TIMEOUT).then_some(Setback::Connect)
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

/// A success that broke off before its end: it was served and is billed, so SDKs must not ask for it again.
fn answer_broke() -> Failure {
    Failure::upstream(
        "upstream_broke",
        ErrorType::ModelTimeout,
        "The connection to the model broke before its answer was complete. Sending the request again is billed again.",
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

//! Answers on their way to the client: the upstream's, unchanged but for our own headers, and the proxy's own errors.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header;
use pingora_core::protocols::http::ServerSession;
use pingora_core::{Error, ErrorType as PingoraErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::context::{Admitted, Attempt, RequestContext, milliseconds, milliseconds_text};
use super::event_stream::LastWords;
use super::reserve::Booking;
use super::shared::{Flaw, Headers};
use super::{Gateway, LocalAnswer, failover, settle, watch};
use crate::aws::eventstream;
use crate::aws::operation::{Metering, Streaming};
use crate::error::{Failure, Fault};

/// What a client may still send after an error is read for so long before the connection is closed; closing at once
/// would reset it, and the client might lose the error.
const LINGER: Duration = Duration::from_millis(500);
/// And so much of it: a client on this machine can send gigabytes in that time.
const LINGER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// So many headers of ours an answer has at most.
const HEADERS_MAX: usize = 11;

/// Before the header of an upstream's answer leaves: reads what it says about usage, adds our headers.
pub(super) fn header(ctx: &mut RequestContext, response: &mut ResponseHeader) -> Result<()> {
    if response.status.is_informational() {
        return Ok(());
    }
    let call_id = ctx.record.call_id.clone();
    let attempts = ctx.record.attempts.len() + 1;
    let arrived = ctx.arrived;
    let Some((admitted, attempt)) = ctx.dispatched_mut() else {
        return Error::e_explain(PingoraErrorType::InternalError, "an answer to a request that was not dispatched");
    };
    let status = response.status.as_u16();
    attempt.status = Some(status);
    attempt.first_byte.get_or_insert_with(Instant::now);
    if let Some(reader) = attempt.reader.as_mut() {
        let text = |name: header::HeaderName| response.headers.get(name).and_then(|value| value.to_str().ok());
        reader.response_header(
            status,
            text(header::CONTENT_TYPE),
            text(header::CONTENT_ENCODING),
            response.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())),
        );
    }
    let whole = match admitted.call.operation.streaming {
        Streaming::None => true,
        // Paths that stream only if asked to: a length says that this answer is whole.
        Streaming::Raw => response.headers.contains_key(header::CONTENT_LENGTH),
        Streaming::EventStream | Streaming::Bidirectional => false,
    };
    let error_type = header_text(response, "x-amzn-errortype");
    let held = watch::begin(admitted, attempt, response, error_type.as_ref()) || whole;
    if !whole
        && takes_frames(response)
        && let Some(exceptions) = LastWords::of(admitted.call.operation.stream_exceptions)
    {
        admitted.shared.last_words(exceptions);
    }
    let aws_request_id = header_text(response, "x-amzn-requestid");
    let ours = our_headers(admitted, attempt, call_id, attempts);
    if held {
        admitted.shared.hold(ours);
    } else {
        add(response, ours);
        // Pingora keeps it as long as the stream, and growing has given it room for twice what it holds.
        *response = response.clone();
    }
    ctx.record.aws_request_id = aws_request_id;
    ctx.record.error_type = error_type.filter(|_| status >= 400);
    ctx.record.time_to_first_byte_ms = Some(milliseconds(arrived.elapsed()));
    Ok(())
}

/// What is known by now of what the answer's header says of the call. Of an answer that is held, its cost is added, and
/// what the key has spent then.
fn our_headers(admitted: &Admitted, attempt: &Attempt, call_id: String, attempts: usize) -> Headers {
    let overhead = attempt.sent.map_or(Duration::ZERO, |sent| sent.saturating_duration_since(admitted.read));
    let mut headers = Vec::with_capacity(HEADERS_MAX);
    headers.extend([
        ("x-dheera-ai-call-id", call_id),
        ("x-dheera-ai-deployment", attempt.target.id.to_string()),
        ("x-dheera-ai-region", attempt.target.region.to_string()),
        ("x-dheera-ai-attempts", attempts.to_string()),
        ("x-dheera-ai-overhead-duration-ms", milliseconds_text(overhead)),
    ]);
    if let Some(booking) = &admitted.booking {
        add_budget(&mut headers, booking);
    }
    if let Some(model_id) = settle::model_id(admitted, attempt) {
        headers.push(("x-dheera-ai-model-id", model_id));
    }
    headers
}

/// Gives an answer headers of ours, in place of those of the same names. One that no header can hold is left out.
pub(super) fn add(response: &mut ResponseHeader, headers: Headers) {
    for (name, value) in headers {
        if let Err(error) = response.insert_header(name, value) {
            log::warn!("header {name} left out: {error}");
        }
    }
}

/// What the key has spent, may spend and has left, as far as it is known.
fn add_budget(headers: &mut Headers, booking: &Booking) {
    if let Some(budget) = booking.key_budget() {
        headers.push(("x-dheera-ai-key-spend", budget.spent.to_usd_number()));
        if let Some(limit) = budget.limit {
            let left = limit.saturating_sub(budget.spent).saturating_sub(budget.reserved);
            headers.push(("x-dheera-ai-key-max-budget", limit.to_usd_number()));
            headers.push(("x-dheera-ai-key-remaining", left.to_usd_number()));
        }
    }
    if booking.soft_budget_reached() {
        headers.push(("x-dheera-ai-budget-warning", "soft_budget_reached".to_owned()));
    }
}

/// Reads usage out of a piece of the answer. Synchronous, and never alters a byte.
///
/// # Errors
/// Those of [`watch::look`], and that another deployment is asked, before anything of the answer has left.
pub(super) fn observe(gateway: &Gateway, ctx: &mut RequestContext, bytes: Option<&Bytes>, end: bool) -> Result<()> {
    let Some((admitted, attempt)) = ctx.dispatched_mut() else {
        return Ok(());
    };
    if let (Some(reader), Some(bytes)) = (attempt.reader.as_mut(), bytes) {
        reader.push(bytes);
        admitted.shared.set_whole_bytes(reader.whole_frames_bytes());
    }
    if let Some(failed) = watch::look(admitted, attempt, bytes.map(Bytes::as_ref), end)? {
        failover::given_up(gateway, ctx, failed)?;
        if let Some((admitted, attempt)) = ctx.dispatched_mut() {
            watch::passes(admitted, attempt);
        }
    }
    let Some((admitted, attempt)) = ctx.dispatched_mut() else {
        return Ok(());
    };
    if let (Some(reader), Some(booking)) = (attempt.reader.as_ref(), admitted.booking.as_ref())
        && let Some(bound) = &booking.bound
        && admitted.shared.purse.grows()
    {
        let seen = reader.output_bytes_seen().saturating_add(attempt.request_bytes_streamed);
        admitted.shared.purse.need(bound.so_far(seen));
    }
    if end {
        settle::measure(gateway, ctx);
        if let Some((admitted, attempt)) = ctx.dispatched_mut()
            && falls_short(admitted, attempt)
        {
            admitted.shared.set_flaw(Flaw::Short);
        }
    }
    Ok(())
}

/// Whether an answer has ended without the event that says what it used: a conversation's last one. The connection was
/// lost somewhere where its end still looked like one.
fn falls_short(admitted: &Admitted, attempt: &Attempt) -> bool {
    admitted.call.operation.metering == Metering::ConverseStream
        && attempt.status == Some(200)
        && attempt.tokens.is_none()
        && admitted.shared.exception().is_none()
}

/// Whether the answer is an event stream to which a further frame could be added: one that is not compressed, and has
/// no announced length, which would leave no room for it (and tells the client of a cut by itself).
fn takes_frames(response: &ResponseHeader) -> bool {
    response.status.is_success()
        && header_text(response, "content-type").is_some_and(|found| eventstream::is_announced_by(&found))
        && header_text(response, "content-encoding").is_none_or(|encoding| encoding.eq_ignore_ascii_case("identity"))
        && !response.headers.contains_key(header::CONTENT_LENGTH)
}

/// Answers with an error of our own.
pub(super) async fn refuse(session: &mut Session, ctx: &mut RequestContext, failure: Failure) -> u16 {
    let status = if failure.fault == Fault::Disconnect { 499 } else { failure.response.status };
    ctx.record.fault = Some(failure.fault.as_str());
    ctx.record.reason = Some(failure.reason);
    ctx.record.error_type = Some(failure.response.kind.name().to_owned());
    ctx.record.detail.clone_from(&failure.internal);
    ctx.record.status = status;
    if failure.fault == Fault::Internal {
        tracing::error!(call_id = %ctx.call_id, reason = failure.reason, "{}", failure.internal.unwrap_or_default());
    }
    let headers = failure.response.headers();
    let body = Bytes::from(failure.response.body());
    if let Err(error) = write(session.as_downstream_mut(), ctx, failure.response.status, &headers, body).await {
        tracing::debug!(call_id = %ctx.call_id, "the client did not get its error: {error}");
    }
    status
}

/// Notes why an answer ended before its time. The client is told by the way it ends.
pub(super) fn broke_off(ctx: &mut RequestContext, failure: Failure) {
    // What broke after it began was reached.
    let reason = if failure.reason == "unreachable" { "upstream_broke" } else { failure.reason };
    ctx.record.fault = Some(failure.fault.as_str());
    ctx.record.reason = Some(reason);
    ctx.record.detail = failure.internal;
}

/// Answers a health probe, `/metrics` or another path of the proxy's own.
pub(super) async fn local(session: &mut Session, ctx: &mut RequestContext, answer: LocalAnswer) {
    ctx.record.status = answer.status;
    let headers: Vec<_> = answer.headers;
    if let Err(error) = write(session.as_downstream_mut(), ctx, answer.status, &headers, answer.body.into()).await {
        tracing::debug!(call_id = %ctx.call_id, "the client did not get its answer: {error}");
    }
}

async fn write(
    session: &mut ServerSession,
    ctx: &RequestContext,
    status: u16,
    headers: &[(&'static str, String)],
    body: Bytes,
) -> Result<()> {
    let mut response = ResponseHeader::build(status, Some(headers.len() + 4))?;
    for (name, value) in headers {
        response.insert_header(*name, value.as_str())?;
    }
    response.insert_header("x-dheera-ai-call-id", ctx.record.call_id.as_str())?;
    response.insert_header("x-amzn-requestid", ctx.record.call_id.as_str())?;
    if let Some((attempts, deployment)) = ctx.attempted() {
        response.insert_header("x-dheera-ai-attempts", attempts.to_string())?;
        response.insert_header("x-dheera-ai-deployment", deployment)?;
    }
    response.insert_header(header::CONTENT_LENGTH, body.len())?;
    // What was not read of the request must never be taken for the next one.
    let unread = !session.is_body_done();
    if unread {
        session.set_keepalive(None);
    }
    let head_only = session.req_header().method == http::Method::HEAD;
    session.write_response_header(Box::new(response)).await?;
    session.write_response_body(if head_only { Bytes::new() } else { body }, true).await?;
    session.finish_body().await?;
    if unread && !session.is_http2() {
        linger(session).await;
    }
    Ok(())
}

/// Reads what a client still sends, within bounds of time and size.
async fn linger(session: &mut ServerSession) {
    let until = Instant::now() + LINGER;
    let mut bytes_left = LINGER_BYTES_MAX;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let Ok(Ok(Some(chunk))) = pingora_timeout::timeout(left, session.read_request_body()).await else {
            return;
        };
        let Some(still_left) = bytes_left.checked_sub(chunk.len()) else {
            log::debug!("a client went on sending after its error");
            return;
        };
        bytes_left = still_left;
    }
}

fn header_text(response: &ResponseHeader, name: &str) -> Option<String> {
    response.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

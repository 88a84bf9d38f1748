//! What is looked for in an answer before any of it leaves: the first content of a stream, and an error that says that
//! the prompt is too long.
//!
//! It sees each byte before the delivery does, and before the attempt is settled, so that an attempt can still be given
//! up as if nothing had come. What is given up for which error is decided in `failover.rs`.

use http::header;
use pingora_core::{Error, Result};
use pingora_http::ResponseHeader;

use super::context::{Admitted, Attempt};
use super::shared::{CONTEXT_WINDOW, Flaw, Shared};
use crate::aws::eventstream;
use crate::aws::operation::Streaming;
use crate::deployment::context_window;
use crate::deployment::first_event::{Beginning, FirstEvent};
use crate::deployment::outcome::{Exception, Outcome};

/// What is watched for in the answer of one attempt.
#[derive(Debug, Default)]
pub(super) struct Watch {
    first_event: Option<FirstEvent>,
    /// An answer with status 400, as far as it has come.
    refusal: Option<Vec<u8>>,
    error_type: Option<String>,
    /// The stream was an exception and nothing else, so AWS bills it no more than an error status.
    pub refused: bool,
}

impl Watch {
    /// Whether a stream has begun whose content has not come.
    pub(super) const fn waits(&self) -> bool {
        self.first_event.is_some()
    }
}

/// The header of an answer, with AWS's `error_type`: decides what to watch for, and whether its first bytes have to wait.
/// True for an answer that has to be held until it is complete.
pub(super) fn begin(
    admitted: &Admitted,
    attempt: &mut Attempt,
    response: &ResponseHeader,
    error_type: Option<&String>,
) -> bool {
    let text = |name: header::HeaderName| response.headers.get(name).and_then(|value| value.to_str().ok());
    let plain = text(header::CONTENT_ENCODING).is_none_or(|coding| coding.eq_ignore_ascii_case("identity"));
    if response.status == http::StatusCode::BAD_REQUEST && plain && admitted.shared.watches_context_window() {
        attempt.watch.refusal = Some(Vec::new());
        attempt.watch.error_type = error_type.cloned();
        return true;
    }
    if !response.status.is_success() || !plain {
        return false;
    }
    let media_type = text(header::CONTENT_TYPE).unwrap_or_default();
    attempt.watch.first_event = match admitted.call.operation.streaming {
        Streaming::EventStream | Streaming::Raw if eventstream::is_announced_by(media_type) => {
            Some(FirstEvent::of_frames())
        }
        Streaming::Raw if is_lines(media_type) => Some(FirstEvent::of_lines()),
        _ => None,
    };
    if attempt.watch.waits() {
        // Where nobody else can be asked, a frame that arrives is a frame that leaves.
        admitted.shared.await_content(admitted.may_go_on());
    }
    false
}

fn is_lines(media_type: &str) -> bool {
    media_type.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case("text/event-stream"))
}

/// A piece of the answer, or its end. The outcome of a stream that has failed before its content, of which nothing has
/// left: it is given up, or [`passes`].
///
/// # Errors
/// [`CONTEXT_WINDOW`], while nothing of the answer has left.
pub(super) fn look(
    admitted: &mut Admitted,
    attempt: &mut Attempt,
    bytes: Option<&[u8]>,
    end: bool,
) -> Result<Option<Outcome>> {
    let watch = &mut attempt.watch;
    if let Some(refusal) = &mut watch.refusal {
        refusal.extend_from_slice(bytes.unwrap_or_default());
        if refusal.len() > context_window::BODY_BYTES_MAX {
            watch.refusal = None;
        } else if end
            && admitted.attempts.are_left()
            && context_window::is_exceeded(watch.error_type.as_deref(), refusal)
        {
            return Err(Error::explain(CONTEXT_WINDOW, "the prompt is too long for the model").into_up());
        }
    }
    let Some(first_event) = &mut watch.first_event else {
        return Ok(None);
    };
    let failed = match first_event.push(bytes.unwrap_or_default()) {
        Beginning::Opening if !end => return Ok(None),
        Beginning::Content => None,
        Beginning::Failed { name, at_once } => {
            watch.refused = at_once;
            admitted.shared.set_exception(&name);
            let exception = Exception::of(&name);
            (exception != Exception::Client).then_some(Outcome::Exception(exception))
        }
        beginning => {
            let flaw = if beginning == Beginning::Damaged { Flaw::Damaged } else { Flaw::Broke };
            admitted.shared.set_flaw(flaw);
            Some(Outcome::Broke)
        }
    };
    let given_up = failed.filter(|_| may_be_given_up(admitted));
    if given_up.is_none() {
        passes(admitted, attempt);
    }
    Ok(given_up)
}

/// Nothing is looked for any more: the answer goes on as it is.
pub(super) fn passes(admitted: &mut Admitted, attempt: &mut Attempt) {
    attempt.watch.first_event = None;
    admitted.shared.begin_content();
    admitted.shared.settle_on();
    admitted.body.let_go();
}

/// Whether another deployment can be asked in place of this one, and there is still somebody to ask for.
fn may_be_given_up(admitted: &Admitted) -> bool {
    let shared: &Shared = &admitted.shared;
    shared.holds_opening() && !shared.deserted() && admitted.may_go_on()
}

//! The request side of a bidirectional stream: each signed frame of the client is unwrapped and its inner frame is
//! wrapped again, signed with our credentials.
//!
//! The client's frame signatures are not verified: they were made with a key that is only an access key id here, and
//! the request is authenticated by that id. Nothing is buffered but a frame whose end has not come yet. Rests on a
//! request captured from the AWS SDK for JavaScript 3.1164 (2026-11-22): an outer frame has `:date` and
//! `:chunk-signature`, its payload is a whole inner frame, and an empty one ends the stream.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use pingora_core::{Error, Result};

use super::context::RequestContext;
use super::failover;
use crate::aws::error_body::ErrorType;
use crate::aws::eventstream::decode::{Decoder, Limits};
use crate::aws::sigv4::ChunkSigner;
use crate::error::Failure;

/// Signs the frames of one attempt.
#[derive(Debug)]
pub(super) struct Resigner {
    decoder: Decoder,
    signer: ChunkSigner,
    ended: bool,
}

impl Resigner {
    pub(super) fn new(signer: ChunkSigner) -> Self {
        Self { decoder: Decoder::new(Limits::default()), signer, ended: false }
    }

    /// The frames that `bytes` completes, signed anew. `None` when the client's bytes are no signed event stream, or go
    /// on after its end.
    fn push(&mut self, bytes: &[u8], time_ms: u64) -> Option<Vec<u8>> {
        let Self { decoder, signer, ended } = self;
        let mut signed = Vec::new();
        let mut sound = true;
        let decoded = decoder.push(bytes, &mut |frame| {
            sound &= !*ended && frame.header(":chunk-signature").is_some();
            if sound {
                *ended = frame.payload.is_empty();
                signed.extend(signer.sign_frame(frame.payload, time_ms));
            }
        });
        (decoded.is_ok() && sound).then_some(signed)
    }

    /// What is still to be sent when the client has ended its request. `None` when it ended in the middle of a frame.
    fn end(&mut self, time_ms: u64) -> Option<Vec<u8>> {
        if self.ended {
            return Some(Vec::new());
        }
        self.ended = true;
        self.decoder.at_boundary().then(|| self.signer.sign_frame(&[], time_ms))
    }
}

/// Replaces a piece of the client's body by what goes upstream.
pub(super) fn resign(ctx: &mut RequestContext, body: &mut Option<Bytes>, end: bool) -> Result<()> {
    let Some((admitted, attempt)) = ctx.dispatched_mut() else {
        return Ok(());
    };
    let Some(resigner) = attempt.resigner.as_mut() else {
        return Ok(());
    };
    if admitted.shared.answered() {
        *body = Some(Bytes::new());
        return Ok(());
    }
    let bytes = body.as_ref().map_or(0, Bytes::len) as u64;
    attempt.request_bytes_streamed = attempt.request_bytes_streamed.saturating_add(bytes);
    let time_ms = unix_milliseconds();
    let mut signed = resigner.push(body.as_deref().unwrap_or_default(), time_ms);
    if end && let Some(signed) = signed.as_mut() {
        match resigner.end(time_ms) {
            Some(last) => signed.extend(last),
            None => return refuse(ctx),
        }
    }
    match signed {
        // `None` would end the request.
        Some(signed) => *body = Some(signed.into()),
        None => return refuse(ctx),
    }
    Ok(())
}

fn refuse(ctx: &mut RequestContext) -> Result<()> {
    let malformed = Failure::client(
        "bad_body",
        ErrorType::Validation,
        "The request is no signed event stream. Send frames with `:date` and `:chunk-signature`, as the AWS SDKs do.",
    );
    // An error of any other side would leave Pingora waiting for the upstream to answer the rest.
    failover::give_up(ctx, malformed).map_err(Error::into_down)
}

fn unix_milliseconds() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::eventstream::encode::{HeaderValue, frame};
    use crate::aws::sigv4::{Scope, Signer, SigningCredentials, SigningTime};
    use crate::types::secret::Secret;

    fn resigner() -> Resigner {
        let credentials = SigningCredentials {
            access_key_id: "AKIDEXAMPLE".to_owned(),
            secret_access_key: Secret::new("secret"),
            session_token: None,
        };
        let (time, scope) = (SigningTime::from_unix_seconds(0), Scope { region: "us-east-1", service: "bedrock" });
        let key = Signer::new().signing_key(&credentials, &time, scope);
        Resigner::new(ChunkSigner::new(key, &time, scope, &"0".repeat(64)))
    }

    fn outer(inner: &[u8]) -> Vec<u8> {
        frame(&[(":date", HeaderValue::TimestampMs(1)), (":chunk-signature", HeaderValue::ByteBuf(&[7; 32]))], inner)
    }

    fn payloads(bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        Decoder::new(Limits::default()).push(bytes, &mut |frame| found.push(frame.payload.to_vec())).unwrap();
        found
    }

    #[test]
    fn inner_frames_pass_unchanged_however_the_bytes_are_cut() {
        let client = [outer(b"one"), outer(b"two"), outer(b"")].concat();
        for cut in 0..=client.len() {
            let mut resigner = resigner();
            let mut sent = resigner.push(&client[..cut], 5).unwrap();
            sent.extend(resigner.push(&client[cut..], 6).unwrap());
            sent.extend(resigner.end(7).unwrap());
            assert_eq!(payloads(&sent), [b"one".to_vec(), b"two".to_vec(), Vec::new()], "{cut}");
        }
    }

    #[test]
    fn a_stream_that_the_client_does_not_end_is_ended() {
        let mut resigner = resigner();
        let mut sent = resigner.push(&outer(b"one"), 5).unwrap();
        sent.extend(resigner.end(6).unwrap());
        assert_eq!(payloads(&sent), [b"one".to_vec(), Vec::new()]);
    }

    #[test]
    fn what_is_no_signed_event_stream_is_refused() {
        assert!(resigner().push(b"{\"inputText\": \"no event stream at all\"}", 5).is_none());
        assert!(resigner().push(&frame(&[], b"not signed"), 5).is_none());
        let mut ended = resigner();
        assert!(ended.push(&outer(b""), 5).is_some());
        assert!(ended.push(&outer(b"more"), 6).is_none());
        let mut cut = resigner();
        assert!(cut.push(&outer(b"one")[..20], 5).is_some_and(|sent| sent.is_empty()));
        assert!(cut.end(6).is_none());
    }
}

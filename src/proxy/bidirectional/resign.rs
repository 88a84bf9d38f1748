//! The request side of a bidirectional stream: each signed frame of the client is unwrapped and its inner frame is
//! wrapped again, signed with our credentials.
//!
//! The client's frame signatures are verified when the request is signed with a key pair. Otherwise an access key id is
//! the key, its secret is anything, and the request is authenticated by that id. Nothing is buffered but a frame whose
//! end has not come yet. Rests on a request captured from the AWS SDK for JavaScript 3.1164 (2026-11-22): an outer frame
//! has `:date` and `:chunk-signature`, its payload is a whole inner frame, and an empty one ends the stream.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::aws::error_body::ErrorType;
use crate::aws::eventstream::decode::{Decoder, Limits};
use crate::aws::sigv4::{ChunkSigner, ChunkVerifier};
use crate::error::Failure;

/// Signs the frames of one attempt.
#[derive(Debug)]
pub(super) struct Resigner {
    decoder: Decoder,
    signer: ChunkSigner,
    /// `None` where the caller needs no signature.
    verifier: Option<ChunkVerifier>,
    ended: bool,
}

/// What a client's bytes are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    /// No signed event stream, or one that goes on after its end, or ends in the middle of a frame.
    Form,
    /// Not signed by the caller, or not in this order, or cut off.
    Signature,
}

impl Resigner {
    pub(super) fn new(signer: ChunkSigner, verifier: Option<ChunkVerifier>) -> Self {
        Self { decoder: Decoder::new(Limits::default()), signer, verifier, ended: false }
    }

    /// What goes upstream for the next piece of the client's request, or for its end.
    pub(super) fn next(&mut self, piece: Option<&[u8]>) -> Result<Bytes, Wrong> {
        let now = unix_milliseconds();
        let frames = match piece {
            Some(bytes) => self.push(bytes, now),
            None => self.end(now),
        };
        frames.map(Bytes::from)
    }

    /// What ends a request that its client left. Nobody will read the answer, so a part cannot be taken for the whole.
    pub(super) fn cut_short(&mut self) -> Bytes {
        if std::mem::replace(&mut self.ended, true) {
            return Bytes::new();
        }
        self.signer.sign_frame(&[], unix_milliseconds()).into()
    }

    /// The frames that `bytes` completes, signed anew.
    fn push(&mut self, bytes: &[u8], time_ms: u64) -> Result<Vec<u8>, Wrong> {
        let Self { decoder, signer, verifier, ended } = self;
        let mut signed = Vec::new();
        let mut wrong = None;
        let decoded = decoder.push(bytes, &mut |frame| {
            if wrong.is_some() {
                return;
            }
            if *ended || frame.header(":chunk-signature").is_none() {
                wrong = Some(Wrong::Form);
            } else if verifier.as_mut().is_some_and(|verifier| !verifier.verify(&frame)) {
                wrong = Some(Wrong::Signature);
            } else {
                *ended = frame.payload.is_empty();
                signed.extend(signer.sign_frame(frame.payload, time_ms));
            }
        });
        match wrong {
            Some(wrong) => Err(wrong),
            None => decoded.map(|()| signed).map_err(|_| Wrong::Form),
        }
    }

    /// What is still to be sent when the client has ended its request.
    fn end(&mut self, time_ms: u64) -> Result<Vec<u8>, Wrong> {
        if self.ended {
            return Ok(Vec::new());
        }
        self.ended = true;
        if !self.decoder.at_boundary() {
            Err(Wrong::Form)
        } else if self.verifier.is_some() {
            // Who verifies must not take a part for the whole: only the signed end is one.
            Err(Wrong::Signature)
        } else {
            Ok(self.signer.sign_frame(&[], time_ms))
        }
    }
}

impl From<Wrong> for Failure {
    fn from(wrong: Wrong) -> Self {
        match wrong {
            Wrong::Form => Self::client(
                "bad_body",
                ErrorType::Validation,
                "The request is no signed event stream. Send frames with `:date` and `:chunk-signature`, as the AWS \
                 SDKs do.",
            ),
            Wrong::Signature => Self::client(
                "frame_signature",
                ErrorType::AccessDenied,
                "The signature of a frame does not match, or the stream ended without its signed end. Sign each frame \
                 with the key pair of the request, chained to the one before, and end with an empty one.",
            ),
        }
    }
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
        Resigner::new(ChunkSigner::new(key, &time, scope, &"0".repeat(64)), None)
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
    fn a_stream_whose_client_leaves_is_ended_once_wherever_it_was_cut() {
        let mut inside = resigner();
        assert_eq!(inside.push(&outer(b"one")[..20], 5), Ok(Vec::new()));
        assert_eq!(payloads(&inside.cut_short()), [b""]);
        assert!(inside.cut_short().is_empty());
        let mut ended = resigner();
        ended.push(&outer(b""), 5).unwrap();
        assert!(ended.cut_short().is_empty());
    }

    #[test]
    fn what_is_no_signed_event_stream_is_refused() {
        assert_eq!(resigner().push(b"{\"inputText\": \"no event stream at all\"}", 5), Err(Wrong::Form));
        assert_eq!(resigner().push(&frame(&[], b"not signed"), 5), Err(Wrong::Form));
        let mut ended = resigner();
        assert!(ended.push(&outer(b""), 5).is_ok());
        assert_eq!(ended.push(&outer(b"more"), 6), Err(Wrong::Form));
        let mut cut = resigner();
        assert_eq!(cut.push(&outer(b"one")[..20], 5), Ok(Vec::new()));
        assert_eq!(cut.end(6), Err(Wrong::Form));
    }
}

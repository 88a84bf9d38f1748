//! Signs a bidirectional event stream frame by frame, and verifies one: each frame is wrapped in an outer one that
//! carries its time and a signature chained to the frame before; the first is chained to the signature of the request.
//!
//! It does not look into the inner frame and does not end the stream: the caller signs an empty frame for that.
//! Rests on a request captured from the AWS SDK for JavaScript 3.1164 (2026-11-22), whose signatures it reproduces.

use std::sync::Arc;

use subtle::ConstantTimeEq as _;

use super::hash::{HexDigest, sha256_hex};
use super::key::SigningKey;
use super::{SCOPE_END, Scope, SigningTime};
use crate::aws::eventstream::decode;
use crate::aws::eventstream::encode::{HeaderValue, append_headers, frame};

const ALGORITHM: &str = "AWS4-HMAC-SHA256-PAYLOAD";
const DATE: &str = ":date";
const CHUNK_SIGNATURE: &str = ":chunk-signature";

/// The state of one request's chain of signatures.
#[derive(Debug)]
pub struct ChunkSigner {
    key: Arc<SigningKey>,
    /// `<date>/<region>/<service>/aws4_request` of the request; a stream that runs past midnight keeps it.
    scope: String,
    previous: HexOrText,
}

/// The signature before: a digest of ours, or the text of the `Authorization` header.
#[derive(Debug)]
enum HexOrText {
    Digest(HexDigest),
    Text(String),
}

impl ChunkSigner {
    /// `key`, `time` and `scope` are those the request was signed with, `initial_signature` is the hex signature of its
    /// `Authorization` header (see [`super::signature_of`]).
    #[must_use]
    pub fn new(key: Arc<SigningKey>, time: &SigningTime, scope: Scope<'_>, initial_signature: &str) -> Self {
        Self {
            key,
            scope: [time.date(), scope.region, scope.service, SCOPE_END].join("/"),
            previous: HexOrText::Text(initial_signature.to_owned()),
        }
    }

    /// Wraps a complete inner frame, or nothing at the end of the stream, and returns the outer frame.
    ///
    /// `time_ms` is the present, in milliseconds since 1970. AWS wants it near the present, not monotonic.
    #[must_use]
    pub fn sign_frame(&mut self, inner: &[u8], time_ms: u64) -> Vec<u8> {
        let date_ms = i64::try_from(time_ms).unwrap_or(i64::MAX);
        let previous = match &self.previous {
            HexOrText::Digest(digest) => digest.as_str(),
            HexOrText::Text(text) => text,
        };
        let signature = sign(&self.key, &self.scope, previous, date_ms, inner);
        self.previous = HexOrText::Digest(HexDigest::new(&signature));
        let date = (DATE, HeaderValue::TimestampMs(date_ms));
        frame(&[date, (CHUNK_SIGNATURE, HeaderValue::ByteBuf(&signature))], inner)
    }
}

/// The signature over one frame.
fn sign(key: &SigningKey, scope: &str, previous: &str, date_ms: i64, inner: &[u8]) -> [u8; 32] {
    let mut date_header = Vec::with_capacity(16);
    append_headers(&[(DATE, HeaderValue::TimestampMs(date_ms))], &mut date_header);
    let string_to_sign = [
        ALGORITHM,
        SigningTime::from_unix_seconds(u64::try_from(date_ms / 1_000).unwrap_or(0)).amz_date(),
        scope,
        previous,
        &sha256_hex(&date_header),
        &sha256_hex(inner),
    ]
    .join("\n");
    key.sign_raw(string_to_sign.as_bytes())
}

/// Follows the chain of signatures of a stream that a client sends. A clone goes on from the same frame.
#[derive(Debug, Clone)]
pub struct ChunkVerifier {
    key: Arc<SigningKey>,
    scope: String,
    previous: HexDigest,
}

impl ChunkVerifier {
    /// `scope` is `<date>/<region>/<service>/aws4_request`, `seed` the signature of the request.
    pub(super) fn new(key: Arc<SigningKey>, scope: String, seed: &[u8; 32]) -> Self {
        Self { key, scope, previous: HexDigest::new(seed) }
    }

    /// Whether the next outer frame is the one that was signed after those before. It has to have `:date` and
    /// `:chunk-signature` and nothing else, because no other header is signed. After a `false` there is no way on.
    #[must_use]
    pub fn verify(&mut self, frame: &decode::Frame<'_>) -> bool {
        let (mut date_ms, mut sent) = (None, None);
        for (name, value) in frame.headers() {
            match value {
                decode::HeaderValue::TimestampMs(at_ms) if name == DATE.as_bytes() && date_ms.is_none() => {
                    date_ms = Some(at_ms);
                }
                decode::HeaderValue::Bytes(bytes) if name == CHUNK_SIGNATURE.as_bytes() && sent.is_none() => {
                    sent = Some(bytes);
                }
                _ => return false,
            }
        }
        let (Some(date_ms), Some(sent)) = (date_ms.filter(|at_ms| *at_ms >= 0), sent) else {
            return false;
        };
        let expected = sign(&self.key, &self.scope, &self.previous, date_ms, frame.payload);
        let is_same = bool::from(expected.as_slice().ct_eq(sent));
        self.previous = HexDigest::new(&expected);
        is_same
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::eventstream::decode::{Decoder, Limits};
    use crate::aws::sigv4::verify::{Claim, Payload, ReceivedRequest};
    use crate::aws::sigv4::{STREAMING_EVENTS_PAYLOAD, SignableRequest, Signer, SigningCredentials, signature_of};
    use crate::types::secret::Secret;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn a_stream_is_signed_as_the_javascript_sdk_signs_it() {
        let capture: serde_json::Value =
            serde_json::from_str(include_str!("../../../tests/fixtures/sigv4/bidirectional_stream.json")).unwrap();
        let text = |name: &str| capture[name].as_str().unwrap();
        let credentials = SigningCredentials {
            access_key_id: text("access_key_id").to_owned(),
            secret_access_key: Secret::new(text("secret_access_key")),
            session_token: None,
        };
        let scope = Scope { region: text("region"), service: text("service") };
        let time = SigningTime::from_unix_seconds(capture["unix_seconds"].as_u64().unwrap());
        let headers: Vec<(String, String)> = serde_json::from_value(capture["headers"].clone()).unwrap();
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let signer = Signer::new();
        let authorization = signer.authorization(
            &credentials,
            &time,
            scope,
            &SignableRequest {
                method: text("method"),
                path: text("path"),
                query: "",
                headers: &headers,
                payload_sha256_hex: STREAMING_EVENTS_PAYLOAD,
            },
        );
        assert_eq!(authorization, text("authorization"));
        let initial = signature_of(&authorization).unwrap();
        assert_eq!(initial, text("initial_signature"));
        let key = signer.signing_key(&credentials, &time, scope);
        let mut signer = ChunkSigner::new(key, &time, scope, initial);

        let frames = capture["frames"].as_array().unwrap();
        assert_eq!(frames.len(), 4);
        for expected in frames {
            let expected = bytes(expected.as_str().unwrap());
            // Prelude 12 bytes, `:date` 6 + 1 + 8 bytes, `:chunk-signature` 17 + 3 + 32 bytes, CRC 4 bytes.
            let time_ms = u64::from_be_bytes(expected[19..27].try_into().unwrap());
            let inner = &expected[12 + 67..expected.len() - 4];
            assert_eq!(signer.sign_frame(inner, time_ms), expected);
        }
    }
    /// The parts of the captured request that the chain begins with, and its frames.
    fn captured() -> (ChunkVerifier, Vec<Vec<u8>>) {
        let capture: serde_json::Value =
            serde_json::from_str(include_str!("../../../tests/fixtures/sigv4/bidirectional_stream.json")).unwrap();
        let text = |name: &str| capture[name].as_str().unwrap();
        let headers: Vec<(String, String)> = serde_json::from_value(capture["headers"].clone()).unwrap();
        let headers: Vec<(&str, &[u8])> =
            headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let date = headers.iter().find(|(name, _)| *name == "x-amz-date").map(|(_, value)| value);
        let claim = Claim::from_header(text("authorization"), date.map(|value| std::str::from_utf8(value).unwrap()));
        let claim = claim.unwrap();
        let key = SigningKey::derive(&Secret::new(text("secret_access_key")), claim.day(), claim.scope());
        let request = ReceivedRequest {
            method: text("method"),
            path: text("path"),
            query: "",
            headers: &headers,
            payload: Payload::SignedFrames,
            service: text("service"),
            headers_read: &[],
        };
        let verifier = claim.verify(Arc::new(key), &request).unwrap().chunks();
        (verifier, capture["frames"].as_array().unwrap().iter().map(|frame| bytes(frame.as_str().unwrap())).collect())
    }

    fn is_verified(verifier: &mut ChunkVerifier, frame: &[u8]) -> bool {
        let mut outcomes = Vec::new();
        Decoder::new(Limits::default()).push(frame, &mut |frame| outcomes.push(verifier.verify(&frame))).unwrap();
        assert_eq!(outcomes.len(), 1);
        outcomes[0]
    }

    #[test]
    fn the_stream_of_the_javascript_sdk_is_verified_in_its_order_only() {
        let (first, frames) = captured();
        let mut verifier = first.clone();
        for frame in &frames {
            assert!(is_verified(&mut verifier, frame));
        }
        // Without the first, twice the same, and after one that was refused.
        assert!(!is_verified(&mut first.clone(), &frames[1]));
        let mut repeated = first.clone();
        assert!(is_verified(&mut repeated, &frames[0]) && !is_verified(&mut repeated, &frames[0]));
        let mut refused = first;
        assert!(!is_verified(&mut refused, &frames[1]) && !is_verified(&mut refused, &frames[0]));
    }

    #[test]
    fn a_frame_with_another_date_signature_payload_or_header_is_refused() {
        let (first, frames) = captured();
        let mut parts = None;
        Decoder::new(Limits::default())
            .push(&frames[0], &mut |frame| {
                let (Some(decode::HeaderValue::TimestampMs(date)), Some(decode::HeaderValue::Bytes(signature))) =
                    (frame.header(":date"), frame.header(":chunk-signature"))
                else {
                    panic!("{frame:?}")
                };
                parts = Some((date, signature.to_vec(), frame.payload.to_vec()));
            })
            .unwrap();
        let (date, signature, payload) = parts.unwrap();
        let (at, by) = (DATE, CHUNK_SIGNATURE);
        let good = [(at, HeaderValue::TimestampMs(date)), (by, HeaderValue::ByteBuf(&signature))];
        assert!(is_verified(&mut first.clone(), &frame(&good, &payload)));
        let mut other = signature.clone();
        other[31] ^= 1;
        for (headers, payload) in [
            (vec![(at, HeaderValue::TimestampMs(date + 1)), good[1]], &payload[..]),
            (vec![(at, HeaderValue::TimestampMs(-date)), good[1]], &payload),
            (vec![good[0], (by, HeaderValue::ByteBuf(&other))], &payload),
            (vec![good[0], (by, HeaderValue::ByteBuf(&signature[..31]))], &payload),
            (vec![good[0], good[1]], &payload[1..]),
            (vec![good[0], good[1]], b""),
            (vec![good[0], good[1], (":event-type", HeaderValue::String("chunk"))], &payload),
            (vec![good[0], good[0], good[1]], &payload),
            (vec![good[1]], &payload),
            (vec![good[0]], &payload),
            (vec![], &payload),
        ] {
            assert!(!is_verified(&mut first.clone(), &frame(&headers, payload)), "{headers:?}");
        }
    }
}

//! Signs a bidirectional event stream frame by frame: each frame is wrapped in an outer one that carries its time and a
//! signature chained to the frame before; the first is chained to the signature of the request.
//!
//! It does not look into the inner frame and does not end the stream: the caller signs an empty frame for that.
//! Rests on a request captured from the AWS SDK for JavaScript 3.1164 (2026-11-22), whose signatures it reproduces.

use std::sync::Arc;

use super::hash::{HexDigest, sha256_hex};
use super::key::SigningKey;
use super::{SCOPE_END, Scope, SigningTime};
use crate::aws::eventstream::encode::{HeaderValue, append_headers, frame};

const ALGORITHM: &str = "AWS4-HMAC-SHA256-PAYLOAD";

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
        let date = (":date", HeaderValue::TimestampMs(i64::try_from(time_ms).unwrap_or(i64::MAX)));
        let mut date_header = Vec::with_capacity(16);
        append_headers(&[date], &mut date_header);

        let previous = match &self.previous {
            HexOrText::Digest(digest) => digest.as_str(),
            HexOrText::Text(text) => text,
        };
        let string_to_sign = [
            ALGORITHM,
            SigningTime::from_unix_seconds(time_ms / 1_000).amz_date(),
            &self.scope,
            previous,
            &sha256_hex(&date_header),
            &sha256_hex(inner),
        ]
        .join("\n");
        let signature = self.key.sign_raw(string_to_sign.as_bytes());
        self.previous = HexOrText::Digest(HexDigest::new(&signature));
        frame(&[date, (":chunk-signature", HeaderValue::ByteBuf(&signature))], inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
}

//! Is a request signed by who it says? The `Authorization` header and the presigned query, judged against the request
//! as it was received. Pure: the time, the key and the hash of the body are arguments.
//!
//! Whose key it is, and what may be called with it, is not decided here. Stricter than AWS in one point: every header
//! that goes upstream and means something there has to be signed when it is present, or somebody else could have
//! added it. Rests on AWS's "Create a signed AWS API request"; the `aws-sigv4` crate, botocore 1.44.5 and AWS's
//! published vectors sign what is verified in the tests.

use std::sync::Arc;

use subtle::ConstantTimeEq as _;

use super::chunk::ChunkVerifier;
use super::{
    EMPTY_PAYLOAD_SHA256, SCOPE_END, STREAMING_EVENTS_PAYLOAD, Scope, SignableRequest, SigningKey, SigningTime,
    canonical,
};

mod claim;
mod error;

pub use claim::{Claim, credential_in_query, without_signature_parameters};
pub use error::SignatureError;

/// How far the clock of a signer may be from ours, as AWS allows.
const SKEW_SECONDS_MAX: i64 = 300;

const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";
const CONTENT_SHA256: &str = "x-amz-content-sha256";
const HOST: &str = "host";
const AUTHORITY: &str = ":authority";

/// What begins like this and goes upstream steers the model, its guardrail or its price.
const PREFIXES_SIGNED: [&str; 3] = ["x-amz-", "x-amzn-bedrock-", "anthropic-"];

/// Read by operations, and yet left unsigned by SDKs and tools that AWS serves: the AWS SDK for PHP never signs the
/// content type, curl sends an `Accept` of its own, and tracing adds its headers behind the signer.
const MAY_BE_UNSIGNED: [&str; 6] =
    ["accept", "baggage", "content-type", "traceparent", "tracestate", "x-amzn-trace-id"];

/// A request as it was received.
#[derive(Debug, Clone, Copy)]
pub struct ReceivedRequest<'a> {
    pub method: &'a str,
    /// The raw path as received, with every prefix.
    pub path: &'a str,
    /// The raw query without `?`.
    pub query: &'a str,
    /// Names in lower case; values of one name in the order received. The authority of HTTP/2 stands here as
    /// `:authority`.
    pub headers: &'a [(&'a str, &'a [u8])],
    pub payload: Payload<'a>,
    /// The name the service signs with, `bedrock`.
    pub service: &'a str,
    /// Headers that the operation models or the proxy reads: they have to be signed when they are present.
    pub headers_read: &'a [&'a str],
}

/// What is known of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload<'a> {
    /// The hexadecimal SHA-256 of the body that came.
    Sha256(&'a str),
    /// A bidirectional stream, whose frames are signed one by one.
    SignedFrames,
}

/// What a verified signature is good for.
#[derive(Debug, Clone)]
pub struct Verified {
    key: Arc<SigningKey>,
    scope: String,
    signature: [u8; 32],
}

impl Verified {
    /// Verifies the frames that follow.
    #[must_use]
    pub fn chunks(self) -> ChunkVerifier {
        ChunkVerifier::new(self.key, self.scope, &self.signature)
    }
}

impl Claim {
    /// Whether the signature is of now.
    ///
    /// # Errors
    /// [`SignatureError::ClockSkew`], [`SignatureError::Expired`].
    pub fn check_time(&self, now: &SigningTime) -> Result<(), SignatureError> {
        let age_seconds = now.seconds_after(&self.time);
        let skewed = match self.expires_seconds {
            None => age_seconds.abs() > SKEW_SECONDS_MAX,
            Some(_) => age_seconds < -SKEW_SECONDS_MAX,
        };
        if skewed {
            return Err(SignatureError::ClockSkew { signed: self.time, now: *now });
        }
        match self.expires_seconds {
            Some(expires) if age_seconds > expires => Err(SignatureError::Expired { signed: self.time, expires }),
            _ => Ok(()),
        }
    }

    /// Whether this request, as it was received, has been signed with this key. `key` is the one of
    /// [`Self::day`] and [`Self::scope`].
    ///
    /// # Errors
    /// [`SignatureError`] says what does not fit.
    pub fn verify(&self, key: Arc<SigningKey>, request: &ReceivedRequest<'_>) -> Result<Verified, SignatureError> {
        if self.service != request.service {
            return Err(SignatureError::WrongService {
                signed: self.service.clone(),
                right: request.service.to_owned(),
            });
        }
        self.check_coverage(request)?;
        let payload = self.payload(request)?;
        let signed = self.signed_headers(request)?;
        let query =
            if self.expires_seconds.is_some() { claim::signed_query(request.query) } else { request.query.into() };
        let is_signed_with = |headers: &[(&str, &str)]| {
            let signable = SignableRequest {
                method: request.method,
                path: request.path,
                query: &query,
                headers,
                payload_sha256_hex: payload,
            };
            let headers = canonical::sorted(headers);
            let text = super::string_to_sign(&self.time, self.scope(), &signable, &headers);
            bool::from(key.sign_raw(&text).ct_eq(&self.signature))
        };
        // Some SDKs sign the host without the port that they send (@anthropic-ai/bedrock-sdk 1.1.3).
        if !is_signed_with(&signed) && !without_port(&signed).is_some_and(|signed| is_signed_with(&signed)) {
            return Err(SignatureError::Mismatch);
        }
        let scope = [self.day(), &self.region, &self.service, SCOPE_END].join("/");
        Ok(Verified { key, scope, signature: self.signature })
    }

    /// That nothing which matters could have been added by somebody else.
    fn check_coverage(&self, request: &ReceivedRequest<'_>) -> Result<(), SignatureError> {
        if !self.signs(HOST) && !self.signs(AUTHORITY) {
            return Err(SignatureError::HostNotSigned);
        }
        let uncovered = request.headers.iter().find(|(name, _)| {
            let matters = PREFIXES_SIGNED.iter().any(|prefix| name.starts_with(prefix))
                || (request.headers_read.contains(name) && !MAY_BE_UNSIGNED.contains(name));
            matters && !self.signs(name)
        });
        match uncovered {
            Some((name, _)) => Err(SignatureError::HeaderNotSigned(claim::shown(name))),
            None => Ok(()),
        }
    }

    fn signs(&self, name: &str) -> bool {
        self.signed_headers.binary_search_by(|signed| signed.as_str().cmp(name)).is_ok()
    }

    /// What stands for the body in the signature, once it is known to fit the body.
    fn payload<'a>(&self, request: &ReceivedRequest<'a>) -> Result<&'a str, SignatureError> {
        let mut headers = request.headers.iter().filter(|(name, _)| *name == CONTENT_SHA256);
        let header = headers.next().map(|(_, value)| std::str::from_utf8(value).unwrap_or_default().trim());
        let declared = match (header, self.content_sha256.as_deref()) {
            (Some(header), Some(query)) if header != query => return Err(SignatureError::PayloadMismatch),
            (Some(header), _) => Some(header),
            (None, query) => query,
        };
        if headers.next().is_some() {
            return Err(SignatureError::PayloadMismatch);
        }
        match (request.payload, declared) {
            (Payload::SignedFrames, Some(STREAMING_EVENTS_PAYLOAD)) => Ok(STREAMING_EVENTS_PAYLOAD),
            // The AWS SDK for Rust says nothing of the body and signs an empty one (aws-sdk-bedrockruntime 1.153.0); its
            // frames are signed as all others.
            (Payload::SignedFrames, None) => Ok(EMPTY_PAYLOAD_SHA256),
            (Payload::SignedFrames, Some(_)) => Err(SignatureError::FramesNotSigned),
            (Payload::Sha256(_), Some(UNSIGNED_PAYLOAD)) => Ok(UNSIGNED_PAYLOAD),
            (Payload::Sha256(actual), None) => Ok(actual),
            (Payload::Sha256(actual), Some(declared)) if declared == actual => Ok(actual),
            (Payload::Sha256(_), Some(_)) => Err(SignatureError::PayloadMismatch),
        }
    }

    /// The headers that were signed, as they were received.
    fn signed_headers<'a>(&'a self, request: &ReceivedRequest<'a>) -> Result<Vec<(&'a str, &'a str)>, SignatureError> {
        let mut found = Vec::with_capacity(self.signed_headers.len());
        for name in &self.signed_headers {
            let before = found.len();
            for (_, value) in request.headers.iter().filter(|(sent, _)| sent == name) {
                let value = std::str::from_utf8(value)
                    .map_err(|_| SignatureError::SignedHeaderUnreadable(claim::shown(name)))?;
                found.push((name.as_str(), value));
            }
            if found.len() == before {
                return Err(SignatureError::SignedHeaderMissing(claim::shown(name)));
            }
        }
        Ok(found)
    }

    /// The day of the scope, `YYYYMMDD`.
    #[must_use]
    pub fn day(&self) -> &str {
        self.time.date()
    }

    #[must_use]
    pub fn scope(&self) -> Scope<'_> {
        Scope { region: &self.region, service: &self.service }
    }

    /// Whether the signature came in the query.
    #[must_use]
    pub const fn is_presigned(&self) -> bool {
        self.expires_seconds.is_some()
    }
}

/// The same headers with the host as some SDKs sign it; `None` where no port was sent.
fn without_port<'a>(headers: &[(&'a str, &'a str)]) -> Option<Vec<(&'a str, &'a str)>> {
    let mut changed = false;
    let bare = headers.iter().map(|&(name, value)| match value.trim().rsplit_once(':') {
        Some((host, port))
            if matches!(name, HOST | AUTHORITY)
                && !port.is_empty()
                && port.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            changed = true;
            (name, host)
        }
        _ => (name, value),
    });
    let bare = bare.collect();
    changed.then_some(bare)
}

#[cfg(test)]
mod tests;

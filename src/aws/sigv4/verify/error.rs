//! Why a signature is not accepted, each with what its sender can do about it. Nothing secret is in these texts: no
//! key, no signature, and of the request only names of headers, times and the scope.

use std::fmt;

use super::{SKEW_SECONDS_MAX, SigningTime};

/// Why a signature is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignatureError {
    /// The header or the query is not in AWS's form; this part.
    Malformed(&'static str),
    /// The `x-amz-date` is missing or no time.
    NoDate,
    ClockSkew {
        signed: SigningTime,
        now: SigningTime,
    },
    /// A presigned request that is too old.
    Expired {
        signed: SigningTime,
        expires: i64,
    },
    WrongService {
        signed: String,
        right: String,
    },
    HostNotSigned,
    HeaderNotSigned(String),
    SignedHeaderMissing(String),
    SignedHeaderUnreadable(String),
    /// The body is not the one that was signed.
    PayloadMismatch,
    /// A bidirectional stream without signed frames.
    FramesNotSigned,
    Mismatch,
}

impl SignatureError {
    /// A word for metrics and records.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(_) | Self::NoDate | Self::WrongService { .. } => "signature_malformed",
            Self::ClockSkew { .. } | Self::Expired { .. } => "signature_expired",
            Self::HostNotSigned
            | Self::HeaderNotSigned(_)
            | Self::SignedHeaderMissing(_)
            | Self::SignedHeaderUnreadable(_)
            | Self::FramesNotSigned => "signature_incomplete",
            Self::PayloadMismatch | Self::Mismatch => "signature_mismatch",
        }
    }
}

impl fmt::Display for SignatureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(part) => {
                write!(f, "The signature cannot be read: {part}. Sign with an AWS SDK, Signature Version 4.")
            }
            Self::NoDate => f.write_str(
                "The signed request has no x-amz-date such as 20261122T191654Z, on the day that its credential scope \
                 names. Send the one that was signed.",
            ),
            Self::ClockSkew { signed, now } => write!(
                f,
                "The request was signed at {signed:?}, and it is {now:?} here: more than {SKEW_SECONDS_MAX} seconds \
                 apart. Set the clock of the client, and sign each request when it is sent.",
            ),
            Self::Expired { signed, expires } => write!(
                f,
                "The presigned request was good for {expires} seconds from {signed:?} and has expired. Sign a new one."
            ),
            Self::WrongService { signed, right } => {
                write!(f, "The request is signed for the service `{signed}`; sign it for `{right}`.")
            }
            Self::HostNotSigned => f.write_str("The signature does not cover `host`. Sign `host`, or `:authority`."),
            Self::HeaderNotSigned(name) => {
                write!(f, "The header `{name}` was sent and is not signed. Sign it, or leave it out.")
            }
            Self::SignedHeaderMissing(name) => write!(
                f,
                "The header `{name}` was signed and did not arrive. Send it, and check what stands between that could \
                 remove it."
            ),
            Self::SignedHeaderUnreadable(name) => {
                write!(f, "The signed header `{name}` is not text in UTF-8. Write it in ASCII, or leave it out.")
            }
            Self::PayloadMismatch => f.write_str(
                "The body is not the one that was signed: its SHA-256 is not that of x-amz-content-sha256. Send the \
                 body that was signed, and check what stands between that could change it.",
            ),
            Self::FramesNotSigned => f.write_str(
                "The frames of a bidirectional stream have to be signed. Send x-amz-content-sha256: \
                 STREAMING-AWS4-HMAC-SHA256-EVENTS and sign each frame, as the AWS SDKs do.",
            ),
            Self::Mismatch => f.write_str(
                "The signature does not match. Check the secret access key, and that nothing between rewrites the \
                 method, the path, the query, the body, the Host or a signed header.",
            ),
        }
    }
}

impl std::error::Error for SignatureError {}

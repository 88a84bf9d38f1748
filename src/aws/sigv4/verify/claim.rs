//! What a request says of its own signature, read from the `Authorization` header or from the query, and bounded
//! before any work is done for it. Nothing here is true yet: [`Claim::verify`] finds that out.
//!
//! Form and limits are AWS's ("Authentication methods", "Signing elements"): one `Credential`, one list of signed
//! headers in lower case and in order, one signature of 64 lower-case hex digits.

use std::borrow::Cow;

use super::{SCOPE_END, SignatureError, SigningTime};
use crate::aws::sigv4::ALGORITHM;

/// Longer headers and signature parameters are refused unread.
const CLAIM_BYTES_MAX: usize = 8 * 1024;
const SIGNED_HEADERS_MAX: usize = 100;
const SCOPE_PART_BYTES_MAX: usize = 64;
/// A week, AWS's longest.
const EXPIRES_SECONDS_MAX: i64 = 604_800;

/// What all parameters of a presigned request begin with.
const PARAMETER_PREFIX: &str = "x-amz-";
const SIGNATURE_PARAMETER: &str = "x-amz-signature";

/// What a request says of its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub access_key_id: String,
    pub(super) region: String,
    pub(super) service: String,
    pub(super) time: SigningTime,
    /// For how long it is good, in seconds; of presigned requests only.
    pub(super) expires_seconds: Option<i64>,
    /// In lower case, in order, each once.
    pub(super) signed_headers: Vec<String>,
    pub(super) signature: [u8; 32],
    /// `X-Amz-Content-Sha256` of a query.
    pub(super) content_sha256: Option<String>,
}

impl Claim {
    /// From the value of an `Authorization` header and that of `x-amz-date`.
    ///
    /// # Errors
    /// [`SignatureError`] when one of them is not in AWS's form.
    pub fn from_header(authorization: &str, amz_date: Option<&str>) -> Result<Self, SignatureError> {
        if authorization.len() > CLAIM_BYTES_MAX {
            return Err(SignatureError::Malformed("the Authorization header is longer than 8 KiB"));
        }
        let (algorithm, parameters) = authorization.trim().split_once(' ').unwrap_or_default();
        if algorithm != ALGORITHM {
            return Err(SignatureError::Malformed("the algorithm is not AWS4-HMAC-SHA256"));
        }
        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for parameter in parameters.split(',') {
            let (name, value) = parameter.trim().split_once('=').unwrap_or_default();
            let place = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed_headers,
                "Signature" => &mut signature,
                _ => return Err(SignatureError::Malformed("the Authorization header has an unknown part")),
            };
            if place.replace(value).is_some() {
                return Err(SignatureError::Malformed("the Authorization header has a part twice"));
            }
        }
        let parts = [credential, signed_headers, signature].map(Option::unwrap_or_default);
        Self::new(parts, amz_date, None, None)
    }

    /// From a presigned query.
    ///
    /// # Errors
    /// As [`Self::from_header`].
    pub fn from_query(query: &str) -> Result<Self, SignatureError> {
        let mut found: [Option<String>; 7] = Default::default();
        let names = [
            "x-amz-algorithm",
            "x-amz-credential",
            "x-amz-signedheaders",
            SIGNATURE_PARAMETER,
            "x-amz-date",
            "x-amz-expires",
            "x-amz-content-sha256",
        ];
        for (name, value) in signature_parameters(query) {
            let Some(place) = names.iter().position(|known| *known == name).and_then(|at| found.get_mut(at)) else {
                continue;
            };
            let value = decoded(value).ok_or(SignatureError::Malformed("the query is no text"))?;
            if value.len() > CLAIM_BYTES_MAX {
                return Err(SignatureError::Malformed("a parameter of the query is longer than 8 KiB"));
            }
            if place.replace(value.into_owned()).is_some() {
                return Err(SignatureError::Malformed("the query has a parameter of the signature twice"));
            }
        }
        let [algorithm, credential, signed_headers, signature, date, expires, content_sha256] = found;
        if algorithm.as_deref() != Some(ALGORITHM) {
            return Err(SignatureError::Malformed("X-Amz-Algorithm is not AWS4-HMAC-SHA256"));
        }
        let expires =
            expires.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit())).and_then(|text| text.parse().ok());
        let Some(expires) = expires.filter(|seconds| (1..=EXPIRES_SECONDS_MAX).contains(seconds)) else {
            return Err(SignatureError::Malformed("X-Amz-Expires is not a number of seconds from 1 to 604800"));
        };
        let parts = [&credential, &signed_headers, &signature].map(|part| part.as_deref().unwrap_or_default());
        Self::new(parts, date.as_deref(), Some(expires), content_sha256)
    }

    fn new(
        [credential, signed_headers, signature]: [&str; 3],
        amz_date: Option<&str>,
        expires_seconds: Option<i64>,
        content_sha256: Option<String>,
    ) -> Result<Self, SignatureError> {
        let parts: Vec<&str> = credential.splitn(6, '/').collect();
        let [access_key_id, day, region, service, SCOPE_END] = parts.as_slice() else {
            return Err(SignatureError::Malformed("the credential is not <key>/<day>/<region>/<service>/aws4_request"));
        };
        let is_plain = |part: &str| {
            (1..=SCOPE_PART_BYTES_MAX).contains(&part.len())
                && part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        };
        if !is_plain(region) || !is_plain(service) || access_key_id.is_empty() {
            return Err(SignatureError::Malformed("the credential names no region such as us-east-1, or no service"));
        }
        let time = amz_date.and_then(|text| SigningTime::parse(text.trim())).ok_or(SignatureError::NoDate)?;
        if time.date() != *day {
            return Err(SignatureError::NoDate);
        }
        Ok(Self {
            access_key_id: (*access_key_id).to_owned(),
            region: (*region).to_owned(),
            service: (*service).to_owned(),
            time,
            expires_seconds,
            signed_headers: header_names(signed_headers)?,
            signature: bytes_of_hex(signature)
                .ok_or(SignatureError::Malformed("the signature is not 64 lower-case hex digits"))?,
            content_sha256,
        })
    }
}

fn header_names(list: &str) -> Result<Vec<String>, SignatureError> {
    let names: Vec<&str> = list.split(';').take(SIGNED_HEADERS_MAX + 1).collect();
    if names.len() > SIGNED_HEADERS_MAX {
        return Err(SignatureError::Malformed("more than 100 headers are signed"));
    }
    let is_plain = |name: &&str| {
        let plain = name.strip_prefix(':').unwrap_or(name);
        !plain.is_empty() && plain.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase())
    };
    if !names.iter().all(is_plain) || !names.is_sorted_by(|one, next| one < next) {
        return Err(SignatureError::Malformed("the signed headers are not a list of lower-case names in order"));
    }
    Ok(names.into_iter().map(str::to_owned).collect())
}

fn bytes_of_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 {
        return None;
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = match pair {
            [high, low] => value(*high)? << 4 | value(*low)?,
            _ => return None,
        };
    }
    Some(bytes)
}

/// The access key id of a presigned query, if it is one.
#[must_use]
pub fn credential_in_query(query: &str) -> Option<String> {
    let value = signature_parameters(query).find(|(name, _)| name == "x-amz-credential")?.1;
    let value = decoded(value)?;
    Some(value.split_once('/')?.0.to_owned())
}

/// The query without what begins with `X-Amz-`: what is left for the service.
#[must_use]
pub fn without_signature_parameters(query: &str) -> String {
    kept(query, |name| !name.starts_with(PARAMETER_PREFIX))
}

/// The query as it was signed.
pub(super) fn signed_query(query: &str) -> Cow<'_, str> {
    kept(query, |name| name != SIGNATURE_PARAMETER).into()
}

fn kept(query: &str, keep: impl Fn(&str) -> bool) -> String {
    let pairs: Vec<&str> = query.split('&').filter(|pair| keep(&name_of(pair))).collect();
    pairs.join("&")
}

/// The parameters that begin with `X-Amz-`, however that is written: names in lower case, values as they came.
fn signature_parameters(query: &str) -> impl Iterator<Item = (String, &str)> {
    query.split('&').filter_map(|pair| {
        let name = name_of(pair);
        name.starts_with(PARAMETER_PREFIX).then(|| (name, pair.split_once('=').map_or("", |(_, value)| value)))
    })
}

/// The name of a pair, decoded, in lower case.
fn name_of(pair: &str) -> String {
    let name = pair.split('=').next().unwrap_or_default();
    percent_encoding::percent_decode_str(name).decode_utf8_lossy().to_ascii_lowercase()
}

fn decoded(value: &str) -> Option<Cow<'_, str>> {
    percent_encoding::percent_decode_str(value).decode_utf8().ok()
}

/// A name that a client chose, as a message may show it.
pub(super) fn shown(name: &str) -> String {
    name.chars().take(64).collect()
}

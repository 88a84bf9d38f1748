//! A second implementation of AWS Signature Version 4, for verifying. Canonical form after AWS's "Create a signed
//! request" page and botocore 1.44.5 `auth.py`: every raw path segment is percent-encoded once more (all services but
//! S3), query pairs are decoded, encoded and sorted, header values are trimmed and their inner spaces folded.
//! It does not know presigned URLs: no SDK of Bedrock uses them.

use std::collections::HashMap;
use std::sync::RwLock;

use hmac::{Hmac, KeyInit, Mac};
use hyper::HeaderMap;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::{Digest, Sha256};

use crate::clock;
use crate::server::Credential;
use crate::text::hex;

/// AWS refuses a signature whose time is further from its own clock.
const SKEW_S_MAX: i64 = 300;
/// Signing keys kept; one per credential, day, region and service.
const KEYS_MAX: usize = 4096;
/// Everything but RFC 3986's unreserved characters.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The same, with the separators of segments left alone.
const ENCODED_IN_PATH: &AsciiSet = &ENCODED.remove(b'/');

/// The parts of a request that a signature covers.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub query: &'a str,
    /// The Host header, or the authority of HTTP/2.
    pub host: &'a str,
    pub headers: &'a HeaderMap,
    /// Hexadecimal SHA-256 of the body, or the literal that stands for a signed stream.
    pub payload_hash: &'a str,
}

/// The fields of an `Authorization: AWS4-HMAC-SHA256` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Presented<'a> {
    pub access_key_id: &'a str,
    pub date: &'a str,
    pub region: &'a str,
    pub service: &'a str,
    pub signed_headers: &'a str,
    pub signature: &'a str,
}

/// A signature that was right, and what the chunks of a stream are checked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    pub signature: String,
    pub scope: String,
    pub key: [u8; 32],
}

/// Why a request is not authentic, as AWS names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub error_type: &'static str,
    pub message: String,
}

/// Checks signatures against a fixed set of credentials.
pub struct Verifier {
    credentials: HashMap<String, Credential>,
    keys: RwLock<HashMap<String, [u8; 32]>>,
}

impl Verifier {
    pub fn new(credentials: &[Credential]) -> Self {
        let by_id = credentials.iter().map(|credential| (credential.access_key_id.clone(), credential.clone()));
        Self { credentials: by_id.collect(), keys: RwLock::default() }
    }

    /// # Errors
    /// What AWS would answer with 403, and why.
    pub fn verify(
        &self,
        presented: &Presented<'_>,
        request: &Signed<'_>,
        now_unix_s: i64,
    ) -> Result<Verified, Refused> {
        let Some(credential) = self.credentials.get(presented.access_key_id) else {
            let message =
                format!("The security token included in the request is invalid: no {}", presented.access_key_id);
            return Err(Refused { error_type: "UnrecognizedClientException", message });
        };
        check_coverage(presented, request, credential)?;
        let amz_date = header(request.headers, "x-amz-date");
        check_time(presented, &amz_date, now_unix_s)?;
        let Presented { date, region, service, .. } = *presented;
        let scope = format!("{date}/{region}/{service}/aws4_request");
        let canonical = canonical_request(request, presented.signed_headers);
        let hash = hex(&Sha256::digest(canonical.as_bytes()));
        let string_to_sign = format!("AWS4-HMAC-SHA256\n{amz_date}\n{scope}\n{hash}");
        let key = self.signing_key(credential, &scope);
        let expected = hex(&hmac(&key, string_to_sign.as_bytes()));
        if expected != presented.signature {
            return Err(wrong(format!(
                "The request signature we calculated does not match the signature you provided. \
                 The canonical string for this request should have been\n'{canonical}'\n\n\
                 The string to sign should have been\n'{string_to_sign}'"
            )));
        }
        Ok(Verified { signature: expected, scope, key })
    }

    fn signing_key(&self, credential: &Credential, scope: &str) -> [u8; 32] {
        let name = format!("{}/{scope}", credential.access_key_id);
        if let Ok(keys) = self.keys.read()
            && let Some(key) = keys.get(&name)
        {
            return *key;
        }
        let key = signing_key(&credential.secret_access_key, scope);
        if let Ok(mut keys) = self.keys.write() {
            if keys.len() >= KEYS_MAX {
                keys.clear();
            }
            keys.insert(name, key);
        }
        key
    }
}

/// Takes the header value apart; `None` when it is not of this form.
pub fn parse(authorization: &str) -> Option<Presented<'_>> {
    let fields = authorization.strip_prefix("AWS4-HMAC-SHA256 ")?;
    let field = |name: &str| fields.split(',').find_map(|field| field.trim().strip_prefix(name));
    let mut credential = field("Credential=")?.rsplitn(5, '/');
    let terminator = credential.next()?;
    let (service, region, date) = (credential.next()?, credential.next()?, credential.next()?);
    let access_key_id = credential.next()?;
    let (signed_headers, signature) = (field("SignedHeaders=")?, field("Signature=")?);
    (terminator == "aws4_request").then_some(Presented {
        access_key_id,
        date,
        region,
        service,
        signed_headers,
        signature,
    })
}

/// The signing key of a secret for `date/region/service/aws4_request`.
pub fn signing_key(secret_access_key: &str, scope: &str) -> [u8; 32] {
    let secret = format!("AWS4{secret_access_key}");
    let mut parts = scope.split('/');
    let first = hmac_any(secret.as_bytes(), parts.next().unwrap_or_default().as_bytes());
    parts.fold(first, |key, part| hmac(&key, part.as_bytes()))
}

/// HMAC-SHA-256.
pub fn hmac(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    hmac_any(key, message)
}

fn hmac_any(key: &[u8], message: &[u8]) -> [u8; 32] {
    // HMAC takes keys of any length; the error arm is unreachable and gives a digest that verifies nothing.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    mac.update(message);
    mac.finalize().into_bytes().into()
}

fn wrong(message: String) -> Refused {
    Refused { error_type: "InvalidSignatureException", message }
}

fn check_coverage(presented: &Presented<'_>, request: &Signed<'_>, credential: &Credential) -> Result<(), Refused> {
    let covered = |name: &str| presented.signed_headers.split(';').any(|own| own == name);
    if !covered("host") && !covered(":authority") {
        return Err(wrong("'Host' must be a 'SignedHeader' in the AWS Authorization.".to_owned()));
    }
    for name in request.headers.keys().map(hyper::header::HeaderName::as_str) {
        if name.starts_with("x-amz-") && !covered(name) {
            return Err(wrong(format!("'{name}' must be a 'SignedHeader' in the AWS Authorization.")));
        }
    }
    let sent_token = request.headers.get("x-amz-security-token").and_then(|value| value.to_str().ok());
    if sent_token != credential.session_token.as_deref() {
        let message = "The security token included in the request is invalid.".to_owned();
        return Err(Refused { error_type: "UnrecognizedClientException", message });
    }
    let sorted = presented.signed_headers.split(';').is_sorted();
    if sorted { Ok(()) } else { Err(wrong("SignedHeaders are not sorted.".to_owned())) }
}

fn check_time(presented: &Presented<'_>, amz_date: &str, now_unix_s: i64) -> Result<(), Refused> {
    let signed_at = clock::parse_amz_date(amz_date)
        .ok_or_else(|| wrong(format!("x-amz-date '{amz_date}' is not of the form YYYYMMDDTHHMMSSZ.")))?;
    if !amz_date.starts_with(presented.date) || presented.date.len() != 8 {
        return Err(wrong("Date in Credential scope does not match YYYYMMDD from x-amz-date.".to_owned()));
    }
    if (signed_at - now_unix_s).abs() > SKEW_S_MAX {
        let now = clock::format_amz_date(now_unix_s);
        return Err(wrong(format!("Signature expired: {amz_date} is more than 5 minutes from {now}.")));
    }
    Ok(())
}

/// AWS's canonical request.
pub fn canonical_request(request: &Signed<'_>, signed_headers: &str) -> String {
    let path = if request.path.is_empty() { "/" } else { request.path };
    let mut canonical = String::with_capacity(1024);
    canonical.push_str(request.method);
    canonical.push('\n');
    canonical.extend(utf8_percent_encode(path, ENCODED_IN_PATH));
    canonical.push('\n');
    canonical.push_str(&canonical_query(request.query));
    canonical.push('\n');
    for name in signed_headers.split(';') {
        canonical.push_str(name);
        canonical.push(':');
        if name == ":authority" || (name == "host" && !request.headers.contains_key("host")) {
            canonical.push_str(request.host);
        } else {
            canonical.push_str(&header(request.headers, name));
        }
        canonical.push('\n');
    }
    canonical.push('\n');
    canonical.push_str(signed_headers);
    canonical.push('\n');
    canonical.push_str(request.payload_hash);
    canonical
}

fn canonical_query(query: &str) -> String {
    if query.is_empty() {
        return String::new();
    }
    let encode = |raw: &str| {
        let decoded: Vec<u8> = percent_decode_str(raw).collect();
        percent_encoding::percent_encode(&decoded, ENCODED).to_string()
    };
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (encode(name), encode(value)))
        .collect();
    pairs.sort();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// All values of a header, trimmed, inner spaces folded, joined by commas.
fn header(headers: &HeaderMap, name: &str) -> String {
    let Ok(name) = name.parse::<hyper::header::HeaderName>() else { return String::new() };
    let mut values = headers.get_all(&name).iter();
    if let (Some(only), None) = (values.next(), values.next())
        && let Ok(text) = only.to_str()
        && !text.contains("  ")
    {
        return text.trim().to_owned();
    }
    let values = headers.get_all(&name).iter().map(|value| {
        let text = String::from_utf8_lossy(value.as_bytes());
        text.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ").trim().to_owned()
    });
    values.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests;

//! Finds the caller's key wherever a client can put it, and compares it without telling how much of it was right.
//!
//! Places, first that is present wins: `x-dheera-ai-api-key`, `x-litellm-api-key`, `Authorization` (Bearer, Basic, or
//! the access key id of a SigV4 header, for SDKs that send nothing else), `api-key`, `x-api-key`,
//! `litellm_user_api_key`. A client's SigV4
//! signature is not verified: the access key id *is* the key here.

use base64::Engine as _;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::config::Access;

/// Longer keys are refused before anything is computed.
const KEY_BYTES_MAX: usize = 512;

/// A caller that proved who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Holds the master key.
    Master,
    /// Anyone, where no master key is configured.
    Anonymous,
}

/// Why there is no caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    Missing,
    Malformed,
    Unknown,
}

impl Caller {
    /// Its name in records.
    #[must_use]
    pub const fn alias(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Anonymous => "anonymous",
        }
    }
}

impl Denied {
    /// A word for metrics and records.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Missing => "key_missing",
            Self::Malformed => "key_malformed",
            Self::Unknown => "key_unknown",
        }
    }

    /// What the client is told.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::Missing => {
                "No API key was sent. Send it as `Authorization: Bearer <key>`, as `x-api-key: <key>`, or as the AWS \
                 access key id of an SDK (AWS_ACCESS_KEY_ID=<key>, any secret)."
            }
            Self::Malformed => "The API key could not be read. Send it as `Authorization: Bearer <key>`.",
            Self::Unknown => "The API key is not valid. Check it for typing mistakes, or ask the operator for a key.",
        }
    }
}

/// Proves keys against the configuration.
#[derive(Debug)]
pub struct Authenticator {
    master_sha256: Option<[u8; 32]>,
}

impl Authenticator {
    #[must_use]
    pub fn new(access: &Access) -> Self {
        Self { master_sha256: access.master_key.as_ref().map(|key| Sha256::digest(key.expose().as_bytes()).into()) }
    }

    /// Whether a key is needed at all.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.master_sha256.is_none()
    }

    /// Proves the caller of a request. `header` gives the first value of a header by its lower-case name.
    ///
    /// # Errors
    /// [`Denied`] when a key is needed and none, or a wrong one, was sent.
    pub fn authenticate<'a>(&self, header: impl Fn(&str) -> Option<&'a [u8]>) -> Result<Caller, Denied> {
        let Some(master) = &self.master_sha256 else {
            return Ok(Caller::Anonymous);
        };
        let key = find_key(header)?;
        // Comparing digests takes the same time wherever the keys differ, and whatever their lengths.
        let sent: [u8; 32] = Sha256::digest(key.as_bytes()).into();
        if bool::from(sent.ct_eq(master)) { Ok(Caller::Master) } else { Err(Denied::Unknown) }
    }
}

fn find_key<'a>(header: impl Fn(&str) -> Option<&'a [u8]>) -> Result<String, Denied> {
    for name in ["x-dheera-ai-api-key", "x-litellm-api-key"] {
        if let Some(value) = header(name) {
            return plain(value);
        }
    }
    if let Some(value) = header("authorization") {
        return from_authorization(value);
    }
    for name in ["api-key", "x-api-key", "litellm_user_api_key"] {
        if let Some(value) = header(name) {
            return plain(value);
        }
    }
    Err(Denied::Missing)
}

/// A key as such, with or without `Bearer` before it.
fn plain(value: &[u8]) -> Result<String, Denied> {
    let text = visible(value)?;
    let key = strip_scheme(text, "bearer").unwrap_or(text).trim();
    if key.is_empty() { Err(Denied::Missing) } else { Ok(key.to_owned()) }
}

fn from_authorization(value: &[u8]) -> Result<String, Denied> {
    let text = visible(value)?;
    if let Some(key) = strip_scheme(text, "bearer") {
        return if key.is_empty() { Err(Denied::Missing) } else { Ok(key.to_owned()) };
    }
    if let Some(parameters) = strip_scheme(text, "aws4-hmac-sha256") {
        return access_key_id(parameters).ok_or(Denied::Malformed);
    }
    if let Some(encoded) = strip_scheme(text, "basic") {
        let decoded = base64::engine::general_purpose::STANDARD.decode(encoded).map_err(|_| Denied::Malformed)?;
        let pair = String::from_utf8(decoded).map_err(|_| Denied::Malformed)?;
        // curl -u :key and -u key: both mean the key.
        let (user, password) = pair.split_once(':').unwrap_or((&pair, ""));
        let key = if password.is_empty() { user } else { password };
        return if key.is_empty() { Err(Denied::Missing) } else { Ok(key.to_owned()) };
    }
    Err(Denied::Malformed)
}

/// `Credential=<access key id>/<date>/<region>/<service>/aws4_request`. The id is what stands before the last four
/// parts, so a key may hold a slash.
fn access_key_id(parameters: &str) -> Option<String> {
    let credential = parameters.split(',').find_map(|parameter| parameter.trim().strip_prefix("Credential="))?;
    let mut parts = credential.rsplitn(5, '/');
    if parts.next()? != "aws4_request" {
        return None;
    }
    let id = parts.nth(3)?.trim();
    let id = strip_scheme(id, "bearer").unwrap_or(id);
    if id.is_empty() { None } else { Some(id.to_owned()) }
}

fn visible(value: &[u8]) -> Result<&str, Denied> {
    if value.len() > KEY_BYTES_MAX * 4 {
        return Err(Denied::Malformed);
    }
    let text = std::str::from_utf8(value).map_err(|_| Denied::Malformed)?.trim();
    if text.bytes().any(|byte| byte.is_ascii_control()) { Err(Denied::Malformed) } else { Ok(text) }
}

/// What follows `scheme` and a space, whatever the case of the scheme.
fn strip_scheme<'t>(text: &'t str, scheme: &str) -> Option<&'t str> {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    word.eq_ignore_ascii_case(scheme).then(|| rest.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::secret::Secret;

    const KEY: &str = "sk-master-0123456789";

    fn with_key() -> Authenticator {
        Authenticator::new(&Access {
            master_key: Some(Secret::new(KEY)),
            allow_anonymous: false,
            require_auth_for_metrics: true,
        })
    }

    fn try_with(name: &'static str, value: &str) -> Result<Caller, Denied> {
        with_key().authenticate(|asked| (asked == name).then_some(value.as_bytes()))
    }

    #[test]
    fn the_key_is_found_in_every_place_a_client_can_put_it() {
        let sigv4 = format!(
            "AWS4-HMAC-SHA256 Credential={KEY}/20260101/us-east-1/bedrock/aws4_request, SignedHeaders=host, Signature=00"
        );
        let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("user:{KEY}")));
        for (name, value) in [
            ("authorization", format!("Bearer {KEY}")),
            ("authorization", format!("bearer  {KEY} ")),
            ("authorization", sigv4),
            ("authorization", basic),
            ("x-dheera-ai-api-key", KEY.to_owned()),
            ("x-dheera-ai-api-key", format!("Bearer {KEY}")),
            ("x-litellm-api-key", KEY.to_owned()),
            ("x-api-key", KEY.to_owned()),
            ("api-key", KEY.to_owned()),
            ("litellm_user_api_key", KEY.to_owned()),
        ] {
            assert_eq!(try_with(name, &value), Ok(Caller::Master), "{name}: {value}");
        }
    }

    #[test]
    fn everything_else_is_denied() {
        for (name, value, denied) in [
            ("authorization", "Bearer sk-master-012345678", Denied::Unknown),
            ("authorization", "Bearer sk-master-0123456789x", Denied::Unknown),
            ("authorization", "Bearer ", Denied::Missing),
            ("authorization", KEY, Denied::Malformed),
            ("authorization", "AWS4-HMAC-SHA256 Credential=x", Denied::Malformed),
            ("authorization", "AWS4-HMAC-SHA256 Credential=a/b/c/d/aws4_request", Denied::Unknown),
            ("authorization", "Basic !!!", Denied::Malformed),
            ("authorization", "Digest x", Denied::Malformed),
            ("x-api-key", "", Denied::Missing),
            ("x-api-key", "a\u{1}b", Denied::Malformed),
            ("cookie", KEY, Denied::Missing),
        ] {
            assert_eq!(try_with(name, value), Err(denied), "{name}: {value}");
        }
        assert_eq!(try_with("authorization", &"x".repeat(10_000)), Err(Denied::Malformed));
    }

    #[test]
    fn without_a_master_key_anyone_is_anonymous() {
        let open =
            Authenticator::new(&Access { master_key: None, allow_anonymous: false, require_auth_for_metrics: true });
        assert_eq!(open.authenticate(|_| None), Ok(Caller::Anonymous));
        assert_eq!(open.authenticate(|_| Some(b"Bearer whatever")), Ok(Caller::Anonymous));
    }
}

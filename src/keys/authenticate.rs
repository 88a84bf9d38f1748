//! Finds the caller's key wherever a client can put it, and proves it without telling how much of it was right.
//!
//! Places, first that is present wins: `x-dheera-ai-api-key`, `x-litellm-api-key`, `Authorization` (Bearer, Basic, or
//! the access key id of a SigV4 header, for SDKs that send nothing else), `api-key`, `x-api-key`,
//! `litellm_user_api_key`. A client's SigV4
//! signature is not verified: the access key id *is* the key here. What may be called is `policy`'s business.

use std::sync::Arc;

use base64::Engine as _;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::record::Record;
use super::register::{Profile, Register, Unreachable};
use super::secret_key;
use crate::aws::error_body::ErrorType;
use crate::config::Access;
use crate::store::Kind;

/// Longer keys are refused before anything is computed.
const KEY_BYTES_MAX: usize = 512;

/// A caller that proved who it is.
#[derive(Debug, Clone)]
pub enum Caller {
    /// Holds the master key.
    Master,
    /// Anyone, where no master key is configured.
    Anonymous,
    /// Holds a virtual key.
    Key(Arc<Holder>),
}

/// A virtual key and all whose rules it is under.
#[derive(Debug, Clone)]
pub struct Holder {
    pub key: Profile,
    pub team: Option<Profile>,
    pub user: Option<Profile>,
}

impl Holder {
    /// The records whose rules hold together: key, team, user.
    pub fn profiles(&self) -> impl Iterator<Item = (Part, &Profile)> {
        let of = |part: Part, profile: &'_ Option<Profile>| profile.as_ref().map(|_| part);
        let parts = [Some(Part::Key), of(Part::Team, &self.team), of(Part::User, &self.user)];
        let profiles = [Some(&self.key), self.team.as_ref(), self.user.as_ref()];
        parts.into_iter().zip(profiles).filter_map(|(part, profile)| Some((part?, profile?)))
    }

    /// The records themselves, in the same order.
    pub fn records(&self) -> impl Iterator<Item = (Part, &Record)> {
        self.profiles().map(|(part, profile)| (part, &*profile.record))
    }
}

/// Whose rule it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Key,
    Team,
    User,
}

impl Part {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Team => "team",
            Self::User => "user",
        }
    }
}

/// Why there is no caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    Missing,
    Malformed,
    Unknown,
    Expired,
    Blocked(Part),
    /// The key belongs to a team or user that does not exist any more: its limits are not known.
    Orphaned(Part),
    /// Whether the key is valid could not be found out.
    StoreUnavailable,
}

impl Caller {
    /// Its name in records.
    #[must_use]
    pub fn alias(&self) -> &str {
        match self {
            Self::Master => "master",
            Self::Anonymous => "anonymous",
            Self::Key(holder) => holder.key.record.alias.as_deref().unwrap_or(&holder.key.record.id),
        }
    }

    /// Its name in accounts and in the spend log: `master`, `anonymous`, or the `key_id`.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Master => "master",
            Self::Anonymous => "anonymous",
            Self::Key(holder) => &holder.key.record.id,
        }
    }

    #[must_use]
    pub fn holder(&self) -> Option<&Holder> {
        match self {
            Self::Key(holder) => Some(holder),
            Self::Master | Self::Anonymous => None,
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
            Self::Expired => "key_expired",
            Self::Blocked(Part::Key) => "key_blocked",
            Self::Blocked(Part::Team) => "team_blocked",
            Self::Blocked(Part::User) => "user_blocked",
            Self::Orphaned(_) => "key_orphaned",
            Self::StoreUnavailable => "store_unavailable",
        }
    }

    /// What kind of error the client gets.
    #[must_use]
    pub const fn error_type(self) -> ErrorType {
        match self {
            Self::StoreUnavailable => ErrorType::ServiceUnavailable,
            _ => ErrorType::AccessDenied,
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
            Self::Expired => {
                "The API key has expired. Ask the operator for a new one, or to extend it with /key/update."
            }
            Self::Blocked(Part::Key) => {
                "The API key is blocked. Ask the operator why; /key/unblock makes it valid again."
            }
            Self::Blocked(Part::Team) => {
                "The team of this API key is blocked. Ask the operator why; /team/unblock makes its keys valid again."
            }
            Self::Blocked(Part::User) => {
                "The user of this API key is blocked. Ask the operator why; /user/unblock makes the keys valid again."
            }
            Self::Orphaned(_) => {
                "The team or user of this API key no longer exists. Ask the operator to give the key another one with \
                 /key/update, or for a new key."
            }
            Self::StoreUnavailable => {
                "The API key could not be checked, because the store of keys cannot be reached. Try again shortly."
            }
        }
    }
}

impl From<Unreachable> for Denied {
    fn from(_: Unreachable) -> Self {
        Self::StoreUnavailable
    }
}

/// What a request presents, before it is known whether it is valid.
#[derive(Debug, Clone)]
pub struct Presented(Evidence);

#[derive(Debug, Clone)]
enum Evidence {
    Nobody,
    Master,
    /// The digest of what has the form of a virtual key.
    Digest(String),
}

/// Proves keys against the configuration and the register.
#[derive(Debug)]
pub struct Authenticator {
    master_sha256: Option<[u8; 32]>,
    /// `None` where only the master key exists.
    register: Option<Arc<Register>>,
}

impl Authenticator {
    #[must_use]
    pub fn new(access: &Access, register: Option<Arc<Register>>) -> Self {
        let master_sha256 = access.master_key.as_ref().map(|key| Sha256::digest(key.expose().as_bytes()).into());
        Self { master_sha256, register }
    }

    /// Whether a key is needed at all.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.master_sha256.is_none()
    }

    /// Whether this text is the master key.
    #[must_use]
    pub fn is_master(&self, text: &str) -> bool {
        // Comparing digests takes the same time wherever the keys differ, and whatever their lengths.
        let sent: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        self.master_sha256.as_ref().is_some_and(|master| bool::from(sent.ct_eq(master)))
    }

    /// Proves the caller of a request. `header` gives the first value of a header by its lower-case name, `now_ms` is
    /// the time of the store's clock in Unix milliseconds.
    ///
    /// # Errors
    /// [`Denied`] when a key is needed and none, or one that is not valid, was sent.
    pub async fn authenticate<'a>(
        &self,
        now_ms: u64,
        header: impl Fn(&str) -> Option<&'a [u8]>,
    ) -> Result<Caller, Denied> {
        let presented = self.present(header)?;
        self.prove(presented, now_ms).await
    }

    /// The first half of [`Self::authenticate`], for callers that cannot keep the headers until the store has answered.
    ///
    /// # Errors
    /// [`Denied`] when a key is needed and what was sent can be none.
    pub fn present<'a>(&self, header: impl Fn(&str) -> Option<&'a [u8]>) -> Result<Presented, Denied> {
        let Some(master) = &self.master_sha256 else {
            return Ok(Presented(Evidence::Nobody));
        };
        let key = find_key(header)?;
        // Comparing digests takes the same time wherever the keys differ, and whatever their lengths.
        let sent: [u8; 32] = Sha256::digest(key.as_bytes()).into();
        if bool::from(sent.ct_eq(master)) {
            Ok(Presented(Evidence::Master))
        } else if self.register.is_some() && secret_key::is_well_formed(&key) {
            Ok(Presented(Evidence::Digest(secret_key::hexadecimal(&sent))))
        } else {
            Err(Denied::Unknown)
        }
    }

    /// The second half.
    ///
    /// # Errors
    /// [`Denied`] when the key is not valid.
    pub async fn prove(&self, presented: Presented, now_ms: u64) -> Result<Caller, Denied> {
        match (presented.0, &self.register) {
            (Evidence::Nobody, _) => Ok(Caller::Anonymous),
            (Evidence::Master, _) => Ok(Caller::Master),
            (Evidence::Digest(digest), Some(register)) => {
                prove_key(register, &digest, now_ms).await.map(|holder| Caller::Key(Arc::new(holder)))
            }
            (Evidence::Digest(_), None) => Err(Denied::Unknown),
        }
    }
}

async fn prove_key(register: &Register, digest: &str, now_ms: u64) -> Result<Holder, Denied> {
    let is_over = |at_ms: Option<u64>| at_ms.is_some_and(|at_ms| at_ms <= now_ms);
    let secret = register.secret(digest).await?.ok_or(Denied::Unknown)?;
    if is_over(secret.expires_at_ms) {
        return Err(Denied::Expired);
    }
    let key = register.profile(Kind::Key, &secret.key_id).await?.ok_or(Denied::Unknown)?;
    if is_over(key.record.expires_at_ms) {
        return Err(Denied::Expired);
    }
    let team = member(register, Kind::Team, key.record.team_id.as_deref(), Part::Team).await?;
    let user = member(register, Kind::User, key.record.user_id.as_deref(), Part::User).await?;
    let holder = Holder { key, team, user };
    if let Some((part, _)) = holder.records().find(|(_, record)| record.blocked) {
        return Err(Denied::Blocked(part));
    }
    Ok(holder)
}

async fn member(register: &Register, kind: Kind, id: Option<&str>, part: Part) -> Result<Option<Profile>, Denied> {
    match id {
        None => Ok(None),
        Some(id) => register.profile(kind, id).await?.map(Some).ok_or(Denied::Orphaned(part)),
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
mod tests;

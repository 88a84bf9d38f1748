//! Finds the caller's key wherever a client can put it, and proves it without telling how much of it was right.
//!
//! Places, first that is present wins: `x-dheera-ai-api-key`, `x-litellm-api-key`, `Authorization` (Bearer, Basic, or
//! the access key id of a SigV4 header, for SDKs that send nothing else), `api-key`, `x-api-key`,
//! `litellm_user_api_key`. An access key id that *is* a key proves it, and its signature is not looked at; one of a key
//! pair proves nothing before the signature is verified. What may be called is `policy`'s business.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine as _;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::access_key::{Sealer, is_access_key_id};
use super::record::Record;
use super::register::{Profile, Register, Unreachable};
use super::secret_key;
use super::signed::{Pairs, Signed};
use crate::aws::error_body::ErrorType;
use crate::aws::sigv4::verify::{Claim, ReceivedRequest, SignatureError, Verified, credential_in_query};
use crate::config::Access;
use crate::store::Kind;

/// Longer keys are refused before anything is computed.
const KEY_BYTES_MAX: usize = 512;

/// AWS's limit of a SigV4 `Authorization` header, whose list of signed headers can be long.
const SIGV4_BYTES_MAX: usize = 8 * 1024;

const SIGV4: &str = "aws4-hmac-sha256";

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
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// The signature of a key pair is not valid.
    Signature(Box<SignatureError>),
    /// The secret of the key pair cannot be opened with the present salt key.
    Unsealable,
    /// A page does not take signatures.
    SignatureHere,
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
    pub const fn reason(&self) -> &'static str {
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
            Self::Signature(error) => error.reason(),
            Self::Unsealable => "key_unsealable",
            Self::SignatureHere => "signature_malformed",
        }
    }

    /// What kind of error the client gets.
    #[must_use]
    pub const fn error_type(&self) -> ErrorType {
        match self {
            Self::StoreUnavailable => ErrorType::ServiceUnavailable,
            _ => ErrorType::AccessDenied,
        }
    }

    /// What the client is told.
    #[must_use]
    pub fn message(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Signature(error) => return Cow::Owned(error.to_string()),
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
            Self::Unsealable => {
                "The signature could not be checked, because the proxy cannot open the secret of this key pair. Ask the \
                 operator; the proxy's log says why."
            }
            Self::SignatureHere => {
                "This page does not verify signatures. Send the key itself, as `Authorization: Bearer <key>`."
            }
        })
    }

    pub(super) fn signature(error: SignatureError) -> Self {
        Self::Signature(Box::new(error))
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
    /// A signature with a key pair.
    Claim(Box<Claim>),
}

/// What is known of a caller before the body of the request is read.
#[derive(Debug)]
pub enum Identity {
    Known(Caller),
    /// Not before the signature is verified.
    Signed(Box<Signed>),
}

impl Identity {
    /// The caller, where signatures are not verified.
    ///
    /// # Errors
    /// [`Denied::SignatureHere`] for one who signs.
    pub fn without_signature(self) -> Result<Caller, Denied> {
        match self {
            Self::Known(caller) => Ok(caller),
            Self::Signed(_) => Err(Denied::SignatureHere),
        }
    }
}

/// Proves keys against the configuration and the register.
#[derive(Debug)]
pub struct Authenticator {
    master_sha256: Option<[u8; 32]>,
    /// `None` where only the master key exists.
    register: Option<Arc<Register>>,
    /// `None` without a salt key.
    pairs: Option<Pairs>,
}

impl Authenticator {
    #[must_use]
    pub fn new(access: &Access, register: Option<Arc<Register>>) -> Self {
        let master_sha256 = access.master_key.as_ref().map(|key| Sha256::digest(key.expose().as_bytes()).into());
        let pairs = access.salt_key.as_ref().map(|key| Pairs::new(Sealer::new(key)));
        Self { master_sha256, register, pairs }
    }

    /// What seals the secrets of key pairs; `None` without a salt key.
    #[must_use]
    pub fn sealer(&self) -> Option<&Sealer> {
        self.pairs.as_ref().map(Pairs::sealer)
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

    /// Both halves, for tests: proves the caller of a request that need not be signed. `header` gives the first value of a header by its
    /// lower-case name, `now_ms` is the time of the store's clock in Unix milliseconds.
    ///
    /// # Errors
    /// [`Denied`] when a key is needed and none, or one that is not valid, was sent.
    #[cfg(test)]
    pub async fn authenticate<'a>(
        &self,
        now_ms: u64,
        header: impl Fn(&str) -> Option<&'a [u8]>,
    ) -> Result<Caller, Denied> {
        let presented = self.present(header, "")?;
        self.prove(presented, now_ms).await?.without_signature()
    }

    /// What a request presents, before the store is asked: the headers need not be kept until it has answered.
    /// `query` may be a presigned one.
    ///
    /// # Errors
    /// [`Denied`] when a key is needed and what was sent can be none.
    pub fn present<'a>(&self, header: impl Fn(&str) -> Option<&'a [u8]>, query: &str) -> Result<Presented, Denied> {
        let Some(master) = &self.master_sha256 else {
            return Ok(Presented(Evidence::Nobody));
        };
        let claim = |claim: Result<Claim, SignatureError>| {
            claim.map(|claim| Presented(Evidence::Claim(Box::new(claim)))).map_err(Denied::signature)
        };
        let key = match find_key(&header) {
            Err(Denied::Missing) if is_presigned_with_a_pair(query) => return claim(Claim::from_query(query)),
            found => found?,
        };
        // Comparing digests takes the same time wherever the keys differ, and whatever their lengths.
        let sent: [u8; 32] = Sha256::digest(key.as_bytes()).into();
        if bool::from(sent.ct_eq(master)) {
            Ok(Presented(Evidence::Master))
        } else if self.register.is_some() && secret_key::is_well_formed(&key) {
            Ok(Presented(Evidence::Digest(secret_key::hexadecimal(&sent))))
        } else if let Some(authorization) = sigv4_header(&header).filter(|_| is_access_key_id(&key)) {
            let date = header("x-amz-date").and_then(|value| std::str::from_utf8(value).ok());
            claim(Claim::from_header(authorization, date))
        } else {
            Err(Denied::Unknown)
        }
    }

    /// The second half. Who signs is not proven by it: that takes [`Self::verify`].
    ///
    /// # Errors
    /// [`Denied`] when the key is not valid.
    pub async fn prove(&self, presented: Presented, now_ms: u64) -> Result<Identity, Denied> {
        Ok(match (presented.0, &self.register) {
            (Evidence::Nobody, _) => Identity::Known(Caller::Anonymous),
            (Evidence::Master, _) => Identity::Known(Caller::Master),
            (Evidence::Digest(digest), Some(register)) => {
                let secret = register.secret(&digest).await?.ok_or(Denied::Unknown)?;
                let holder = holder(register, &secret.key_id, secret.expires_at_ms, now_ms).await?;
                Identity::Known(Caller::Key(Arc::new(holder)))
            }
            (Evidence::Claim(claim), Some(register)) => {
                let pair = register.access_key(&claim.access_key_id).await?.ok_or(Denied::Unknown)?;
                let holder = holder(register, &pair.key_id, pair.expires_at_ms, now_ms).await?;
                let pairs = self.pairs.as_ref().ok_or_else(|| {
                    tracing::error!(
                        access_key_id = claim.access_key_id,
                        "requests signed with a key pair need the salt key that sealed it: set DHEERA_AI_SALT_KEY"
                    );
                    Denied::Unsealable
                })?;
                Identity::Signed(Box::new(pairs.hold(*claim, Arc::new(holder), pair)?))
            }
            (Evidence::Digest(_) | Evidence::Claim(_), None) => return Err(Denied::Unknown),
        })
    }

    /// The caller who signed this request, and what verifies the frames that follow.
    ///
    /// # Errors
    /// [`Denied::Signature`] when he did not.
    pub fn verify(&self, signed: Signed, request: &ReceivedRequest<'_>) -> Result<(Caller, Verified), Denied> {
        self.pairs.as_ref().ok_or(Denied::Unsealable)?.verify(signed, request)
    }
}

/// Whether a query is presigned with what has the form of a key pair's id.
#[must_use]
pub fn is_presigned_with_a_pair(query: &str) -> bool {
    credential_in_query(query).is_some_and(|id| is_access_key_id(&id))
}

/// The holder of a key, as far as it is valid. `expires_at_ms` is the end of what was shown for it.
async fn holder(register: &Register, key_id: &str, expires_at_ms: Option<u64>, now_ms: u64) -> Result<Holder, Denied> {
    let is_over = |at_ms: Option<u64>| at_ms.is_some_and(|at_ms| at_ms <= now_ms);
    if is_over(expires_at_ms) {
        return Err(Denied::Expired);
    }
    let key = register.profile(Kind::Key, key_id).await?.ok_or(Denied::Unknown)?;
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

/// The `Authorization` header that a key was found in, if it is a signature.
fn sigv4_header<'a>(header: &impl Fn(&str) -> Option<&'a [u8]>) -> Option<&'a str> {
    if PLAIN_FIRST.iter().any(|name| header(name).is_some()) {
        return None;
    }
    let text = std::str::from_utf8(header("authorization")?).ok()?;
    strip_scheme(text.trim(), SIGV4).map(|_| text)
}

fn find_key<'a>(header: &impl Fn(&str) -> Option<&'a [u8]>) -> Result<String, Denied> {
    for name in PLAIN_FIRST {
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

/// These say more plainly than `Authorization` that they mean the proxy.
const PLAIN_FIRST: [&str; 2] = ["x-dheera-ai-api-key", "x-litellm-api-key"];

/// A key as such, with or without `Bearer` before it.
fn plain(value: &[u8]) -> Result<String, Denied> {
    let text = visible(value, KEY_BYTES_MAX * 4)?;
    let key = strip_scheme(text, "bearer").unwrap_or(text).trim();
    if key.is_empty() { Err(Denied::Missing) } else { Ok(key.to_owned()) }
}

fn from_authorization(value: &[u8]) -> Result<String, Denied> {
    let text = visible(value, SIGV4_BYTES_MAX)?;
    if let Some(parameters) = strip_scheme(text, SIGV4) {
        return access_key_id(parameters).ok_or(Denied::Malformed);
    }
    if value.len() > KEY_BYTES_MAX * 4 {
        return Err(Denied::Malformed);
    }
    if let Some(key) = strip_scheme(text, "bearer") {
        return if key.is_empty() { Err(Denied::Missing) } else { Ok(key.to_owned()) };
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

fn visible(value: &[u8], bytes_max: usize) -> Result<&str, Denied> {
    if value.len() > bytes_max {
        return Err(Denied::Malformed);
    }
    let text = std::str::from_utf8(value).map_err(|_| Denied::Malformed)?.trim();
    // Looks at every byte without a branch, which takes many at once.
    let hidden = text.bytes().fold(false, |any, byte| any | byte.is_ascii_control());
    if hidden { Err(Denied::Malformed) } else { Ok(text) }
}

/// What follows `scheme` and a space, whatever the case of the scheme.
fn strip_scheme<'t>(text: &'t str, scheme: &str) -> Option<&'t str> {
    let (word, rest) = text.split_at_checked(scheme.len())?;
    let follows = rest.is_empty() || rest.starts_with(' ');
    (follows && word.eq_ignore_ascii_case(scheme)).then(|| rest.trim())
}

#[cfg(test)]
mod tests;

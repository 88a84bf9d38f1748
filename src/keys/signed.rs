//! Requests signed with a key pair: from what the store knows of the pair to a caller that is proven.
//!
//! A [`Signed`] is somebody who says to hold a key that exists and may be used. It holds the caller back until the
//! signature has been verified, which takes the whole request: the body is hashed while it is read. How a signature is
//! verified is `aws::sigv4::verify`'s business.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use quick_cache::Equivalent;
use quick_cache::sync::Cache;

use super::access_key::Sealer;
use super::authenticate::{Caller, Denied, Holder};
use super::record::AccessKeyRecord;
use crate::aws::sigv4::verify::{Claim, ReceivedRequest, Verified};
use crate::aws::sigv4::{SigningKey, SigningTime};

/// Signing keys held: one for each pair, day, region and service in use.
const KEYS_MAX: usize = 4_096;

/// A caller whose signature has still to be verified.
pub struct Signed {
    claim: Claim,
    holder: Arc<Holder>,
    record: Arc<AccessKeyRecord>,
    key: Arc<SigningKey>,
}

impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signed").field("access_key_id", &self.claim.access_key_id).finish_non_exhaustive()
    }
}

impl Signed {
    /// Which pair it says to be.
    #[must_use]
    pub fn access_key_id(&self) -> &str {
        &self.claim.access_key_id
    }

    /// Whether the signature came in the query.
    #[must_use]
    pub const fn is_presigned(&self) -> bool {
        self.claim.is_presigned()
    }

    /// Whether the signature is of now, which can be said before the body is read.
    ///
    /// # Errors
    /// [`Denied::Signature`] when it is too old, or from the future.
    pub fn check_time(&self, now: &SigningTime) -> Result<(), Denied> {
        self.claim.check_time(now).map_err(Denied::signature)
    }
}

/// What it takes to verify key pairs.
#[derive(Debug)]
pub(super) struct Pairs {
    sealer: Sealer,
    keys: Cache<KeyName, Arc<SigningKey>>,
}

impl Pairs {
    pub(super) fn new(sealer: Sealer) -> Self {
        Self { sealer, keys: Cache::new(KEYS_MAX) }
    }

    pub(super) const fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// Holds `holder` back until the claim is verified.
    pub(super) fn hold(
        &self,
        claim: Claim,
        holder: Arc<Holder>,
        record: Arc<AccessKeyRecord>,
    ) -> Result<Signed, Denied> {
        let held = self.keys.get(&KeyNameRef::of(&claim, &record));
        let key = held.map_or_else(|| self.derive(&claim, &record), Ok)?;
        Ok(Signed { claim, holder, record, key })
    }

    fn derive(&self, claim: &Claim, record: &AccessKeyRecord) -> Result<Arc<SigningKey>, Denied> {
        let opened = self.sealer.open(&record.sealed_secret, &claim.access_key_id, &record.key_id);
        let secret = opened.ok_or_else(|| {
            tracing::error!(
                access_key_id = claim.access_key_id,
                key_id = record.key_id,
                "the secret of this key pair was sealed with another salt key: start the proxy with that \
                 DHEERA_AI_SALT_KEY, or replace the pair with POST /key/regenerate"
            );
            Denied::Unsealable
        })?;
        Ok(Arc::new(SigningKey::derive(&secret, claim.day(), claim.scope())))
    }

    pub(super) fn verify(&self, signed: Signed, request: &ReceivedRequest<'_>) -> Result<(Caller, Verified), Denied> {
        let Signed { claim, holder, record, key } = signed;
        let verified = claim.verify(Arc::clone(&key), request).map_err(Denied::signature)?;
        // Only now: whoever knows an id could otherwise fill the cache with days and regions of his own making.
        if self.keys.get(&KeyNameRef::of(&claim, &record)).is_none() {
            self.keys.insert(KeyName::of(&claim, &record), key);
        }
        Ok((Caller::Key(holder), verified))
    }
}

/// What a signing key was derived from. The sealed secret stands for the secret: it has a random nonce, so that no two
/// are the same, and a pair that was replaced is never found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct KeyName {
    sealed_secret: Box<str>,
    day: Box<str>,
    region: Box<str>,
    service: Box<str>,
}

impl KeyName {
    fn of(claim: &Claim, record: &AccessKeyRecord) -> Self {
        let KeyNameRef([sealed_secret, day, region, service]) = KeyNameRef::of(claim, record);
        Self { sealed_secret: sealed_secret.into(), day: day.into(), region: region.into(), service: service.into() }
    }

    fn as_ref(&self) -> KeyNameRef<'_> {
        KeyNameRef([&self.sealed_secret, &self.day, &self.region, &self.service])
    }
}

/// A [`KeyName`] that owns nothing, to look up with.
#[derive(PartialEq, Eq, Hash)]
struct KeyNameRef<'a>([&'a str; 4]);

impl<'a> KeyNameRef<'a> {
    fn of(claim: &'a Claim, record: &'a AccessKeyRecord) -> Self {
        let scope = claim.scope();
        Self([&record.sealed_secret, claim.day(), scope.region, scope.service])
    }
}

impl Hash for KeyName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_ref().hash(state);
    }
}

impl Equivalent<KeyName> for KeyNameRef<'_> {
    fn equivalent(&self, name: &KeyName) -> bool {
        *self == name.as_ref()
    }
}

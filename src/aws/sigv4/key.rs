//! Signing keys and the cache of them. A key is four HMACs away from the secret (about 0.9 µs) and good for one day,
//! region and service, so it is derived once and found again without a lock.
//!
//! The cache never decides whether credentials are still valid; it only spares work.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::hash::HexDigest;
use super::{SCOPE_END, Scope, SigningCredentials, SigningTime};
use crate::types::secret::Secret;

/// Keys kept. More than the deployments of a large configuration times its services; a scan over all of them costs less
/// than one derivation.
const KEYS_MAX: usize = 128;

const SHA256_BLOCK_BYTES: usize = 64;

/// The derived key of one day, region and service, kept as the two hash states that HMAC starts from.
#[derive(Clone)]
pub struct SigningKey(Hmac<Sha256>);

impl SigningKey {
    /// `date` is the day of the scope, `YYYYMMDD`.
    #[must_use]
    pub fn derive(secret: &Secret, date: &str, scope: Scope<'_>) -> Self {
        let mut first = zeroize::Zeroizing::new(Vec::with_capacity(4 + secret.expose().len()));
        first.extend_from_slice(b"AWS4");
        first.extend_from_slice(secret.expose().as_bytes());
        let mut mac = keyed(&first);
        for part in [date, scope.region, scope.service, SCOPE_END] {
            mac.update(part.as_bytes());
            let next = zeroize::Zeroizing::new(<[u8; 32]>::from(mac.finalize().into_bytes()));
            mac = keyed(&*next);
        }
        Self(mac)
    }

    /// HMAC-SHA-256 of a string to sign, in hex.
    pub(super) fn sign(&self, text: &[u8]) -> HexDigest {
        HexDigest::new(&self.sign_raw(text))
    }

    pub(super) fn sign_raw(&self, text: &[u8]) -> [u8; 32] {
        let mut mac = self.0.clone();
        mac.update(text);
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey([redacted])")
    }
}

/// HMAC with a key of any length, without the error that `new_from_slice` can never return.
fn keyed(key: &[u8]) -> Hmac<Sha256> {
    let mut block = zeroize::Zeroizing::new([0; SHA256_BLOCK_BYTES]);
    if key.len() > SHA256_BLOCK_BYTES {
        // RFC 2104: a key longer than a block is hashed first.
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    Hmac::new(&(*block).into())
}

/// What a signing key was derived from. The secret itself is compared, not a digest of it: exact and no slower.
struct Entry {
    access_key_id: String,
    secret_access_key: Secret,
    /// Only its day matters.
    time: SigningTime,
    region: String,
    service: String,
    key: Arc<SigningKey>,
}

impl Entry {
    fn matches(&self, credentials: &SigningCredentials, time: &SigningTime, scope: Scope<'_>) -> bool {
        self.region == scope.region
            && self.access_key_id == credentials.access_key_id
            && self.time.date() == time.date()
            && self.service == scope.service
            && self.secret_access_key == credentials.secret_access_key
    }
}

/// The newest keys first. Readers load a pointer; a writer copies a list of at most [`KEYS_MAX`] pointers.
#[derive(Default)]
pub(super) struct KeyCache(ArcSwap<Vec<Arc<Entry>>>);

impl KeyCache {
    pub(super) fn get(
        &self,
        credentials: &SigningCredentials,
        time: &SigningTime,
        scope: Scope<'_>,
    ) -> Arc<SigningKey> {
        let entries = self.0.load();
        if let Some(entry) = entries.iter().find(|entry| entry.matches(credentials, time, scope)) {
            return Arc::clone(&entry.key);
        }
        let key = Arc::new(SigningKey::derive(&credentials.secret_access_key, time.date(), scope));
        let new = Arc::new(Entry {
            access_key_id: credentials.access_key_id.clone(),
            secret_access_key: credentials.secret_access_key.clone(),
            time: *time,
            region: scope.region.to_owned(),
            service: scope.service.to_owned(),
            key: Arc::clone(&key),
        });
        self.0.rcu(|old| {
            // Yesterday's keys go with the first key of today. Two threads on the two sides of midnight only derive
            // once more than they need to.
            let of_today = old.iter().filter(|entry| entry.time.date() == time.date());
            std::iter::once(&new).chain(of_today).take(KEYS_MAX).cloned().collect::<Vec<_>>()
        });
        key
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.load().len()
    }
}

impl fmt::Debug for KeyCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyCache").field("keys", &self.0.load().len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(id: &str, secret: &str) -> SigningCredentials {
        SigningCredentials { access_key_id: id.to_owned(), secret_access_key: Secret::new(secret), session_token: None }
    }

    const SCOPE: Scope<'_> = Scope { region: "us-east-1", service: "iam" };

    #[test]
    fn the_key_is_the_one_of_the_aws_manual() {
        // "Deriving a signing key" of the AWS General Reference gives this secret, day, region and service.
        let time = SigningTime::from_unix_seconds(1_440_892_800);
        let secret = Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
        let key = SigningKey::derive(&secret, time.date(), SCOPE);
        let text = "AWS4-HMAC-SHA256\n20150830T123600Z\n20150830/us-east-1/iam/aws4_request\n\
                    f536975d06c0309214f805bb90ccff089219ecd68b2577efef23edd43b7e1a59";
        assert_eq!(
            key.sign(text.as_bytes()).as_str(),
            "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
        );
    }

    #[test]
    fn a_secret_longer_than_a_block_is_hashed_first() {
        let long = [7_u8; 131];
        let ours = keyed(&long).chain_update(b"x").finalize().into_bytes();
        let theirs = Hmac::<Sha256>::new_from_slice(&long).unwrap().chain_update(b"x").finalize().into_bytes();
        assert_eq!(ours, theirs);
    }

    #[test]
    fn a_key_is_derived_once_for_its_day_region_service_and_secret() {
        let cache = KeyCache::default();
        let noon = SigningTime::from_unix_seconds(43_200);
        let one = cache.get(&credentials("id", "a"), &noon, SCOPE);
        let evening = SigningTime::from_unix_seconds(80_000);
        assert!(Arc::ptr_eq(&one, &cache.get(&credentials("id", "a"), &evening, SCOPE)));
        for other in [
            cache.get(&credentials("id", "b"), &noon, SCOPE),
            cache.get(&credentials("di", "a"), &noon, SCOPE),
            cache.get(&credentials("id", "a"), &noon, Scope { region: "eu-west-1", ..SCOPE }),
            cache.get(&credentials("id", "a"), &noon, Scope { service: "bedrock", ..SCOPE }),
        ] {
            assert!(!Arc::ptr_eq(&one, &other));
        }
        assert_eq!(cache.len(), 5);
    }

    #[test]
    fn yesterdays_keys_go_and_the_number_of_keys_is_bounded() {
        let cache = KeyCache::default();
        let today = SigningTime::from_unix_seconds(0);
        for number in 0..KEYS_MAX * 2 {
            cache.get(&credentials(&number.to_string(), "a"), &today, SCOPE);
        }
        assert_eq!(cache.len(), KEYS_MAX);
        cache.get(&credentials("id", "a"), &SigningTime::from_unix_seconds(86_400), SCOPE);
        assert_eq!(cache.len(), 1);
    }

    #[test]
    fn neither_key_nor_cache_shows_what_it_holds() {
        let cache = KeyCache::default();
        let key = cache.get(&credentials("AKIAcanary", "canary"), &SigningTime::from_unix_seconds(0), SCOPE);
        assert_eq!(format!("{key:?} {cache:?}"), "SigningKey([redacted]) KeyCache { keys: 1 }");
    }
}

//! Key pairs: an access key id and a secret access key that sign requests (SigV4), so that no secret crosses the wire.
//! How they are made, what an id looks like, and how the secret is sealed for the store.
//!
//! Who verifies needs the secret itself, so a digest would not do: it is encrypted with XChaCha20-Poly1305 under a key
//! derived (HKDF-SHA256) from the operator's salt key. The ids of the pair and of its virtual key are authenticated
//! with it, so that a sealed secret moved to another record opens nothing. Rests on RFC 5869 and RFC 8439.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::types::secret::Secret;

/// What every access key id begins with. AWS's own begin with `AKIA` or `ASIA`.
pub const PREFIX: &str = "DHAK";

const ID_CHARACTERS: usize = 20;
/// Of RFC 4648, base32.
const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// 30 bytes are 40 characters of base64, the length of AWS's secrets.
const SECRET_BYTES: usize = 30;
const NONCE_BYTES: usize = 24;
/// Of what is derived from the salt key. Another use or another form needs another text.
const PURPOSE: &[u8] = b"dheera_ai key pairs, XChaCha20-Poly1305, 1";

/// An id and its secret, before they are shown and sealed.
#[derive(Debug)]
pub struct KeyPair {
    pub access_key_id: String,
    pub secret_access_key: Secret,
}

impl KeyPair {
    /// Makes a new pair: 80 random bits of id, 240 of secret.
    ///
    /// # Errors
    /// When the operating system gives no random numbers.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut id = [0_u8; 16];
        getrandom::fill(&mut id)?;
        let mut secret = Zeroizing::new([0_u8; SECRET_BYTES]);
        getrandom::fill(secret.as_mut())?;
        let characters = id.iter().map(|byte| char::from(ALPHABET[usize::from(byte & 31)]));
        Ok(Self {
            access_key_id: PREFIX.chars().chain(characters).collect(),
            secret_access_key: Secret::new(STANDARD.encode(secret.as_ref())),
        })
    }
}

/// Whether `text` has the form of an access key id of ours.
#[must_use]
pub fn is_access_key_id(text: &str) -> bool {
    text.len() == ID_CHARACTERS
        && text.strip_prefix(PREFIX).is_some_and(|rest| rest.bytes().all(|byte| ALPHABET.contains(&byte)))
}

/// Seals secrets, and opens them again.
#[derive(Clone)]
pub struct Sealer(XChaCha20Poly1305);

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer([redacted])")
    }
}

impl Sealer {
    #[must_use]
    pub fn new(salt_key: &Secret) -> Self {
        let mut key = Zeroizing::new([0_u8; 32]);
        // Fails for more than 8160 bytes only.
        Hkdf::<Sha256>::new(None, salt_key.expose().as_bytes()).expand(PURPOSE, key.as_mut()).unwrap_or_default();
        Self(XChaCha20Poly1305::new(&(*key).into()))
    }

    /// The secret as the store may have it, in base64. `None` when the operating system gives no random numbers.
    #[must_use]
    pub fn seal(&self, pair: &KeyPair, key_id: &str) -> Option<String> {
        let mut nonce = [0_u8; NONCE_BYTES];
        getrandom::fill(&mut nonce).ok()?;
        let bound = bound_to(&pair.access_key_id, key_id);
        let payload = Payload { msg: pair.secret_access_key.expose().as_bytes(), aad: &bound };
        let sealed = self.0.encrypt(&XNonce::from(nonce), payload).ok()?;
        Some(STANDARD.encode([nonce.as_slice(), &sealed].concat()))
    }

    /// `None` when it was sealed with another salt key or for other ids, or was changed.
    #[must_use]
    pub fn open(&self, sealed: &str, access_key_id: &str, key_id: &str) -> Option<Secret> {
        let sealed = STANDARD.decode(sealed).ok()?;
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        let payload = Payload { msg: sealed, aad: &bound_to(access_key_id, key_id) };
        let opened = Zeroizing::new(self.0.decrypt(&XNonce::from(*nonce), payload).ok()?);
        std::str::from_utf8(&opened).ok().map(Secret::new)
    }
}

/// Ids hold no zero byte, so no two pairs of ids have the same text.
fn bound_to(access_key_id: &str, key_id: &str) -> Vec<u8> {
    [access_key_id.as_bytes(), &[0], key_id.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(salt_key: &str) -> Sealer {
        Sealer::new(&Secret::new(salt_key))
    }

    #[test]
    fn a_new_pair_looks_like_one_of_aws_and_is_unlike_any_other() {
        let (first, second) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        assert!(is_access_key_id(&first.access_key_id), "{}", first.access_key_id);
        assert_eq!(first.secret_access_key.expose().len(), 40);
        assert_eq!(STANDARD.decode(first.secret_access_key.expose()).unwrap().len(), SECRET_BYTES);
        assert_ne!(first.access_key_id, second.access_key_id);
        assert_ne!(first.secret_access_key, second.secret_access_key);
        assert!(!format!("{first:?}").contains(first.secret_access_key.expose()));
    }

    #[test]
    fn only_ids_of_ours_are_taken_for_some() {
        for (text, expected) in [
            ("DHAKABCDEFGHIJKLMNOP", true),
            ("DHAK234567ABCDEFGHIJ", true),
            ("DHAKABCDEFGHIJKLMNO", false),
            ("DHAKABCDEFGHIJKLMNOPQ", false),
            ("AKIAABCDEFGHIJKLMNOP", false),
            ("DHAKABCDEFGHIJKLMNO1", false),
            ("DHAKabcdefghijklmnop", false),
            ("", false),
        ] {
            assert_eq!(is_access_key_id(text), expected, "{text}");
        }
    }

    #[test]
    fn a_sealed_secret_opens_for_its_own_ids_and_salt_key_only() {
        let pair = KeyPair::generate().unwrap();
        let (id, secret) = (pair.access_key_id.as_str(), &pair.secret_access_key);
        let sealed = sealer("a salt key of one's own").seal(&pair, "key-1").unwrap();
        assert!(!sealed.contains(secret.expose()));
        let same = sealer("a salt key of one's own");
        assert_eq!(same.open(&sealed, id, "key-1").as_ref(), Some(secret));
        assert_ne!(same.seal(&pair, "key-1").unwrap(), sealed, "the nonce is new each time");
        assert_eq!(sealer("another salt key").open(&sealed, id, "key-1"), None);
        assert_eq!(same.open(&sealed, id, "key-2"), None);
        assert_eq!(same.open(&sealed, "DHAKABCDEFGHIJKLMNOP", "key-1"), None);
        for broken in ["", "AAAA", "not base64", &sealed[..20]] {
            assert_eq!(same.open(broken, id, "key-1"), None, "{broken}");
        }
        let mut bytes = STANDARD.decode(&sealed).unwrap();
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            assert_eq!(same.open(&STANDARD.encode(&bytes), id, "key-1"), None, "byte {at}");
            bytes[at] ^= 1;
        }
    }
}

//! SHA-256 in the form `SigV4` wants it, 64 lower-case hex digits, and the body hash that is computed while a body is
//! read. Nothing here holds a secret.

use std::fmt;
use std::ops::Deref;

use sha2::{Digest, Sha256};

/// SHA-256 of nothing, the hash of an empty body.
pub const EMPTY_PAYLOAD_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// What stands in the place of the body's hash when every frame of the body is signed on its own.
pub const STREAMING_EVENTS_PAYLOAD: &str = "STREAMING-AWS4-HMAC-SHA256-EVENTS";

/// 32 bytes as 64 lower-case hex digits; reads as a `&str`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HexDigest([u8; 64]);

impl HexDigest {
    #[must_use]
    pub fn new(digest: &[u8; 32]) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = [0; 64];
        for (pair, byte) in hex.as_chunks_mut().0.iter_mut().zip(digest) {
            *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
        }
        Self(hex)
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        // Hex digits are always valid.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl Deref for HexDigest {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for HexDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for HexDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

/// Hashes a body chunk by chunk, as it arrives.
#[derive(Clone, Default)]
pub struct PayloadHasher(Sha256);

impl PayloadHasher {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub fn update(&mut self, chunk: &[u8]) {
        self.0.update(chunk);
    }

    #[must_use]
    pub fn finish_hex(self) -> HexDigest {
        HexDigest::new(&self.0.finalize().into())
    }
}

impl fmt::Debug for PayloadHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PayloadHasher").finish_non_exhaustive()
    }
}

pub(super) fn sha256_hex(bytes: &[u8]) -> HexDigest {
    HexDigest::new(&Sha256::digest(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_hashed_in_parts_has_the_hash_of_the_whole() {
        assert_eq!(PayloadHasher::new().finish_hex().as_str(), EMPTY_PAYLOAD_SHA256);
        let mut hasher = PayloadHasher::new();
        hasher.update(b"a");
        hasher.update(b"");
        hasher.update(b"bc");
        assert_eq!(hasher.finish_hex().to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(&*sha256_hex(b""), EMPTY_PAYLOAD_SHA256);
    }
}

//! The secret of a virtual key: how one is made, what may be one, and the digest it is found by.
//!
//! A secret is 256 random bits from the operating system, so its plain SHA-256 cannot be turned back by guessing, and a
//! slow hash would only slow the proxy down. What does not have the form of a key is refused before the store is asked.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::aws::sigv4::HexDigest;
use crate::types::secret::Secret;

/// What every virtual key begins with.
pub const PREFIX: &str = "sk-";

/// Characters after the prefix, at least: what an operator chooses must be long enough not to be guessed.
const CHARACTERS_MIN: usize = 16;
const CHARACTERS_MAX: usize = 128;

/// What a key has to look like, for messages.
pub const FORM: &str = "sk- followed by 16 to 128 letters, digits, `-` or `_`";

/// Makes a new secret.
///
/// # Errors
/// When the operating system gives no random numbers.
pub fn generate() -> Result<Secret, getrandom::Error> {
    let mut random = Zeroizing::new([0_u8; 32]);
    getrandom::fill(random.as_mut())?;
    let mut text = String::with_capacity(PREFIX.len() + 43);
    text.push_str(PREFIX);
    URL_SAFE_NO_PAD.encode_string(random.as_ref(), &mut text);
    Ok(Secret::new(text))
}

/// Whether `text` has the form of a virtual key.
#[must_use]
pub fn is_well_formed(text: &str) -> bool {
    text.strip_prefix(PREFIX).is_some_and(|rest| {
        (CHARACTERS_MIN..=CHARACTERS_MAX).contains(&rest.len())
            && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    })
}

/// SHA-256 in lower-case hexadecimal: the name under which the store knows a secret, LiteLLM's `token`.
#[must_use]
pub fn digest(secret: &str) -> String {
    hexadecimal(&Sha256::digest(secret.as_bytes()).into())
}

pub(super) fn hexadecimal(digest: &[u8; 32]) -> String {
    HexDigest::new(digest).as_str().to_owned()
}

/// Whether `text` has the form of a [`digest`].
#[must_use]
pub fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// What people recognise a secret by: its last four characters.
#[must_use]
pub fn short_name(secret: &str) -> String {
    let skip = secret.chars().count().saturating_sub(4);
    let end: String = secret.chars().skip(skip).collect();
    format!("{PREFIX}...{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_has_256_bits_and_the_form_of_a_key() {
        let first = generate().unwrap();
        let second = generate().unwrap();
        assert_ne!(first, second);
        assert_eq!(first.expose().len(), 3 + 43);
        assert!(is_well_formed(first.expose()), "{}", first.expose());
    }

    #[test]
    fn only_keys_have_the_form_of_a_key() {
        for (text, expected) in [
            (format!("sk-{}", "a".repeat(16)), true),
            (format!("sk-{}", "a".repeat(128)), true),
            ("sk-AZaz09-_AZaz09-_".to_owned(), true),
            (format!("sk-{}", "a".repeat(15)), false),
            (format!("sk-{}", "a".repeat(129)), false),
            ("sk-aaaaaaaaaaaaaaa/aaaa".to_owned(), false),
            ("sk-aaaaaaaaaaaaaaaüaaaa".to_owned(), false),
            ("sk-aaaaaaaaaaaaaaa aaaa".to_owned(), false),
            ("SK-aaaaaaaaaaaaaaaaaaaa".to_owned(), false),
            ("aaaaaaaaaaaaaaaaaaaaaaa".to_owned(), false),
            (String::new(), false),
        ] {
            assert_eq!(is_well_formed(&text), expected, "{text}");
        }
    }

    #[test]
    fn the_digest_is_sha_256_in_hexadecimal() {
        assert_eq!(digest("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(is_digest(&digest("sk-1234567890123456")));
        assert!(!is_digest("sk-1234567890123456"));
        assert_eq!(short_name("sk-1234567890123456"), "sk-...3456");
    }
}

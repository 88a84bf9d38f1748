//! When a Bedrock API key runs out. A short-term key is a presigned URL in base64, which states its date and
//! lifetime; a long-term key (`ABSK…`) states nothing and is taken to last.
//!
//! Nothing is verified here; AWS does that. Rests on keys made with aws-bedrock-token-generator, 2026-11-22.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::types::secret::Secret;

const SHORT_TERM_PREFIX: &str = "bedrock-api-key-";

/// The end of a short-term key; `None` for any other. The session it was made from may end earlier.
pub(super) fn expiry(key: &Secret) -> Option<SystemTime> {
    let encoded = key.expose().strip_prefix(SHORT_TERM_PREFIX)?;
    let url = zeroize::Zeroizing::new(STANDARD.decode(encoded).ok()?);
    let (_, query) = std::str::from_utf8(&url).ok()?.split_once('?')?;
    let value = |wanted: &str| {
        query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(name, _)| *name == wanted)
            .map(|(_, value)| value)
    };
    let signed_at = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", value("X-Amz-Date")?).ok()?;
    let signed_at = signed_at.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    let lifetime = Duration::from_secs(value("X-Amz-Expires")?.parse().ok()?);
    SystemTime::from(signed_at).checked_add(lifetime)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short_term(url: &str) -> Secret {
        Secret::new(format!("{SHORT_TERM_PREFIX}{}", STANDARD.encode(url)))
    }

    #[test]
    fn a_short_term_key_states_its_end() {
        let key = short_term(
            "bedrock.amazonaws.com/?Action=CallWithBearerToken&X-Amz-Date=20261122T191654Z&X-Amz-Expires=43200&\
             Version=1",
        );
        assert_eq!(expiry(&key), Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_375_014 + 43_200)));
    }

    #[test]
    fn any_other_key_is_taken_to_last() {
        for key in [
            Secret::new("ABSKQmVkcm9ja0FQSUtleS1leGFtcGxl"),
            Secret::new("bedrock-api-key-%%%"),
            short_term("no query"),
            short_term("h/?X-Amz-Date=yesterday&X-Amz-Expires=1"),
            short_term("h/?X-Amz-Date=20261122T191654Z&X-Amz-Expires=-1"),
            short_term("h/?X-Amz-Date=20261122T191654Z&X-Amz-Expires=18446744073709551615"),
        ] {
            assert_eq!(expiry(&key), None);
        }
    }
}

//! What the header of an answer says: whether anything is metered at all, in which form the body comes, Bedrock's own
//! token counts, and the tier and latency mode it billed.
//!
//! Source: InvokeModelResponse of botocore 1.44.5 for tier and latency; the `X-Amzn-Bedrock-*-Token-Count` headers are
//! in no service model, but AWS's own LangChain package reads them. Not every model family has them.

use super::counts::Counts;
use crate::types::usage::{Latency, Tier};

/// The header of the answer, as far as it matters here.
#[derive(Debug, Clone, Default)]
pub(super) struct Head {
    pub counts: Counts,
    pub tier: Option<Tier>,
    pub latency: Option<Latency>,
}

impl Head {
    /// Takes one header; names are compared without regard to case.
    pub(super) fn take(&mut self, name: &str, value: &[u8]) {
        const PREFIX: &str = "x-amzn-bedrock-";
        let Some((prefix, name)) = name.split_at_checked(PREFIX.len()) else { return };
        if !prefix.eq_ignore_ascii_case(PREFIX) {
            return;
        }
        let Ok(value) = std::str::from_utf8(value) else { return };
        let value = value.trim();
        let place = match name {
            _ if name.eq_ignore_ascii_case("input-token-count") => &mut self.counts.input,
            _ if name.eq_ignore_ascii_case("output-token-count") => &mut self.counts.output,
            _ if name.eq_ignore_ascii_case("cache-read-input-token-count") => &mut self.counts.cache_read,
            _ if name.eq_ignore_ascii_case("cache-write-input-token-count") => &mut self.counts.cache_write,
            _ if name.eq_ignore_ascii_case("service-tier") => {
                self.tier = Some(Tier::parse(value));
                return;
            }
            _ if name.eq_ignore_ascii_case("performanceconfig-latency") => {
                self.latency = Some(Latency::parse(value));
                return;
            }
            _ => return,
        };
        *place = whole_number(value);
    }

    /// Whether these counts alone are the whole usage. They do not tell the lifetimes of cache writes apart.
    pub(super) fn suffices(&self) -> bool {
        self.counts.input.is_some() && self.counts.output.is_some() && self.counts.cache_write.unwrap_or(0) == 0
    }
}

/// Digits only; more than fit saturate.
fn whole_number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

/// The media type without its parameters.
pub(super) fn is_media_type(content_type: &str, media_type: &str) -> bool {
    content_type.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(media_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_digits_or_nothing() {
        for (text, count) in [
            ("12", Some(12)),
            ("0", Some(0)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("-1", None),
            ("+1", None),
            ("1.5", None),
            ("", None),
            ("1, 2", None),
        ] {
            assert_eq!(whole_number(text), count, "{text}");
        }
    }

    #[test]
    fn header_names_are_compared_without_regard_to_case() {
        let mut head = Head::default();
        head.take("X-Amzn-Bedrock-Input-Token-Count", b" 7 ");
        head.take("x-amzn-bedrock-output-token-count", b"5");
        head.take("X-AMZN-BEDROCK-SERVICE-TIER", b"flex");
        head.take("x-amzn-bedrock-performanceconfig-latency", b"optimized");
        head.take("x-amzn-requestid", b"9");
        head.take("x-amzn-bedrock-é", b"9");
        assert_eq!((head.counts.input, head.counts.output), (Some(7), Some(5)));
        assert_eq!((head.tier, head.latency), (Some(Tier::Flex), Some(Latency::Optimized)));
        assert!(head.suffices());
    }
}

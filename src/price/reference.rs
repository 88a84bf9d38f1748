//! What a model id says about its price: the listed id behind an ARN, the region of the call, the geography prefix.
//!
//! An ARN that hides its model (application inference profiles, provisioned throughput, custom and imported models,
//! prompts, routers) names no price here; `book.rs` then looks at the base model. Forms: the `modelId` patterns of
//! bedrock-runtime in botocore 1.44.5.

/// Geography prefixes of inference profiles.
pub(super) const GEOGRAPHIES: [&str; 9] = ["us", "eu", "apac", "jp", "au", "in", "ca", "global", "us-gov"];

/// A model as AWS lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reference<'a> {
    /// With its geography prefix.
    pub(super) id: &'a str,
    /// Where the call is made: AWS bills at the price of the source region, not of the region that serves it.
    pub(super) region: &'a str,
}

impl<'a> Reference<'a> {
    /// `None` for an ARN that does not say its model. The region of an ARN wins: the call has to go there.
    pub(super) fn of(model_id: &'a str, region: &'a str) -> Option<Self> {
        let Some(arn) = model_id.strip_prefix("arn:") else { return Some(Self { id: model_id, region }) };
        let mut parts = arn.splitn(5, ':');
        let (_partition, service, arn_region) = (parts.next()?, parts.next()?, parts.next()?);
        let resource = parts.nth(1)?;
        let (kind, id) = resource.split_once('/')?;
        if service != "bedrock" || id.is_empty() || !matches!(kind, "foundation-model" | "inference-profile") {
            return None;
        }
        Some(Self { id, region: if arn_region.is_empty() { region } else { arn_region } })
    }
}

/// The id without its geography prefix: `us.anthropic.claude-…` -> `anthropic.claude-…`.
pub(super) fn without_geography(id: &str) -> &str {
    match id.split_once('.') {
        // A listed model always has a vendor before a dot; without one, what looks like a prefix is the vendor.
        Some((prefix, rest)) if GEOGRAPHIES.contains(&prefix) && rest.contains('.') => rest,
        _ => id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_read_from_every_form_of_model_id() {
        let id = "us.anthropic.claude-sonnet-4-5-20250929-v1:0";
        for (model_id, expected) in [
            (id.to_owned(), Some((id, "us-west-2"))),
            (format!("arn:aws:bedrock:us-east-1:123456789012:inference-profile/{id}"), Some((id, "us-east-1"))),
            (format!("arn:aws-us-gov:bedrock:us-gov-west-1::foundation-model/{id}"), Some((id, "us-gov-west-1"))),
            (format!("arn:aws:bedrock:::foundation-model/{id}"), Some((id, "us-west-2"))),
            ("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3".to_owned(), None),
            ("arn:aws:bedrock:us-east-1:123456789012:provisioned-model/a1b2c3".to_owned(), None),
            ("arn:aws:bedrock:us-east-1:123456789012:imported-model/a1b2c3".to_owned(), None),
            ("arn:aws:bedrock:us-east-1:123456789012:custom-model-deployment/a1b2c3".to_owned(), None),
            ("arn:aws:bedrock:us-east-1:123456789012:default-prompt-router/anthropic.claude:1".to_owned(), None),
            ("arn:aws:bedrock:us-east-1:123456789012:prompt/ABCDEFGHIJ:1".to_owned(), None),
            ("arn:aws:sagemaker:us-east-1:123456789012:endpoint/foundation-model/x".to_owned(), None),
            ("arn:aws:bedrock:us-east-1:1:inference-profile/".to_owned(), None),
            ("arn:aws:bedrock".to_owned(), None),
        ] {
            let found = Reference::of(&model_id, "us-west-2").map(|found| (found.id, found.region));
            assert_eq!(found, expected, "{model_id}");
        }
    }

    #[test]
    fn only_geographies_in_front_of_a_vendor_are_stripped() {
        for (id, expected) in [
            ("us.meta.llama3-8b", "meta.llama3-8b"),
            ("us-gov.xai.grok-4.6", "xai.grok-4.6"),
            ("global.openai.gpt-5.4", "openai.gpt-5.4"),
            ("anthropic.claude-v2:1", "anthropic.claude-v2:1"),
            ("us.model", "us.model"),
            ("guardrail", "guardrail"),
            ("", ""),
        ] {
            assert_eq!(without_geography(id), expected);
        }
    }
}

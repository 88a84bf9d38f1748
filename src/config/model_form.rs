//! Reads the ways to write a model: `bedrock/<id>`, `bedrock/converse/<id>`, `bedrock/invoke/<id>`,
//! `bedrock/<region>/<id>`, the bare id, and every kind of ARN that AWS takes as `modelId`.
//!
//! Forms and ARN kinds: pattern `ConversationalModelId` and `InvokeModelIdentifier` of the bedrock-runtime model
//! (botocore 1.44.5). It does not know which models exist, and does not choose the region.

use crate::aws::endpoint::{arn_region, model_id_is_valid, partition};

/// What a model string says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ModelForm {
    /// AWS's id or ARN.
    pub(super) id: String,
    /// The region in `bedrock/<region>/<id>`.
    pub(super) region: Option<String>,
}

/// Why a model string is none: what is wrong, and the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ModelFormError {
    pub(super) what: String,
    pub(super) remedy: &'static str,
}

/// Words between `bedrock/` and the id that say how LiteLLM should translate; here nothing is translated.
const ROUTING_WORDS: &[&str] = &["converse", "invoke", "async_invoke"];

/// Words before the ARN of an imported or served model that name its chat template, likewise without meaning here.
const TEMPLATE_WORDS: &[&str] = &["llama", "deepseek_r1", "qwen2", "qwen3", "openai", "nova"];

/// Resources of an ARN of service `bedrock` that `modelId` accepts.
const BEDROCK_RESOURCES: &[&str] = &[
    "foundation-model",
    "custom-model",
    "imported-model",
    "provisioned-model",
    "custom-model-deployment",
    "inference-profile",
    "application-inference-profile",
    "prompt",
    "prompt-router",
    "default-prompt-router",
];

const EXAMPLE: &str = "Write an id such as `bedrock/us.anthropic.claude-sonnet-4-5-20250929-v1:0`, or an ARN";

/// Reads a model string.
///
/// # Errors
/// When it names another provider, an unknown form, or an id that AWS cannot have.
pub(super) fn parse(text: &str) -> Result<ModelForm, ModelFormError> {
    let (mut rest, provider_named) = match text.strip_prefix("bedrock/") {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let mut region = None;
    let mut routed = false;
    while provider_named && let Some((word, after)) = rest.split_once('/') {
        if rest.starts_with("arn:") {
            break;
        }
        if ROUTING_WORDS.contains(&word) && !routed {
            routed = true;
        } else if TEMPLATE_WORDS.contains(&word) && after.starts_with("arn:") {
            // The ARN that follows ends the loop.
        } else if region.is_none() && partition(word).is_some() {
            region = Some(word.to_owned());
        } else {
            return Err(ModelFormError {
                what: format!("`{word}/` is neither a region nor `converse/` nor `invoke/`"),
                remedy: EXAMPLE,
            });
        }
        rest = after;
    }
    if rest.starts_with("arn:") {
        check_arn(rest)?;
    } else if let Some((provider, _)) = rest.split_once('/') {
        return Err(ModelFormError {
            what: format!("names the provider `{provider}`, but this proxy serves Amazon Bedrock only"),
            remedy: EXAMPLE,
        });
    }
    if rest.contains('*') {
        return Err(ModelFormError {
            what: "holds a wildcard".to_owned(),
            remedy: "Remove the entry: ids that no entry names are served directly (`allow_unlisted_models`)",
        });
    }
    if !model_id_is_valid(rest) {
        return Err(ModelFormError { what: "is not an id that AWS could have".to_owned(), remedy: EXAMPLE });
    }
    Ok(ModelForm { id: rest.to_owned(), region })
}

fn check_arn(arn: &str) -> Result<(), ModelFormError> {
    let error = |what: &str, remedy| Err(ModelFormError { what: what.to_owned(), remedy });
    let fields: Vec<&str> = arn.splitn(6, ':').collect();
    let &[_, partition_name, service, region, account, resource] = fields.as_slice() else {
        return error("is not a complete ARN", "Write arn:aws:bedrock:<region>:<account>:<kind>/<id>");
    };
    if !partition_name.starts_with("aws") {
        return error("is an ARN of no AWS partition", "An ARN begins with `arn:aws:`");
    }
    if arn_region(arn).is_none_or(|region| partition(region).is_none()) {
        let what = format!("is an ARN without a valid region (`{region}`)");
        return error(&what, "Write arn:aws:bedrock:<region>:<account>:<kind>/<id>");
    }
    // Foundation models belong to no account.
    if !account.bytes().all(|byte| byte.is_ascii_digit()) || !matches!(account.len(), 0 | 12) {
        return error("is an ARN whose account is not 12 digits", "Copy the ARN from the AWS console");
    }
    let (kind, name) = resource.split_once('/').unwrap_or((resource, ""));
    let known = match service {
        "bedrock" => BEDROCK_RESOURCES.contains(&kind),
        "sagemaker" => kind == "endpoint",
        _ => false,
    };
    if !known || name.is_empty() {
        let what = format!("is an ARN of `{service}` `{kind}`, which Bedrock does not take as a model");
        return error(
            &what,
            "Use the ARN of a model, an inference profile, a prompt, a prompt router or a SageMaker endpoint",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_model_is_read() {
        let arn = "arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/abc";
        for (text, id, region) in [
            ("anthropic.claude-v2:1", "anthropic.claude-v2:1", None),
            ("bedrock/us.anthropic.claude-v2:1", "us.anthropic.claude-v2:1", None),
            ("bedrock/converse/us.amazon.nova-pro-v1:0", "us.amazon.nova-pro-v1:0", None),
            ("bedrock/invoke/us.amazon.nova-pro-v1:0", "us.amazon.nova-pro-v1:0", None),
            ("bedrock/us-west-2/anthropic.x", "anthropic.x", Some("us-west-2")),
            ("bedrock/converse/us-west-2/anthropic.x", "anthropic.x", Some("us-west-2")),
            ("bedrock/us-west-2/converse/anthropic.x", "anthropic.x", Some("us-west-2")),
            ("bedrock/us-gov-west-1/anthropic.x", "anthropic.x", Some("us-gov-west-1")),
            (arn, arn, None),
            (&format!("bedrock/{arn}"), arn, None),
            (&format!("bedrock/llama/{arn}"), arn, None),
            (&format!("bedrock/eu-west-1/{arn}"), arn, Some("eu-west-1")),
        ] {
            let form = parse(text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
            assert_eq!((form.id.as_str(), form.region.as_deref()), (id, region), "{text}");
        }
    }

    #[test]
    fn every_kind_of_arn_is_a_model() {
        for resource in [
            "bedrock:us-east-1::foundation-model/anthropic.claude-v2:1",
            "bedrock:us-east-1:123456789012:custom-model/anthropic.claude-v2:1/abcdefghijkl",
            "bedrock:us-east-1:123456789012:imported-model/abcdefghijkl",
            "bedrock:us-east-1:123456789012:provisioned-model/abcdefghijkl",
            "bedrock:us-east-1:123456789012:custom-model-deployment/abcdefghijkl",
            "bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-v2:1",
            "bedrock:us-east-1:123456789012:application-inference-profile/abcdefghijkl",
            "bedrock:us-east-1:123456789012:prompt/ABCDEFGHIJ:1",
            "bedrock:us-east-1:123456789012:prompt/ABCDEFGHIJ",
            "bedrock:us-east-1:123456789012:prompt-router/abcdefghijkl",
            "bedrock:us-east-1:123456789012:default-prompt-router/anthropic.claude:1",
            "sagemaker:us-east-1:123456789012:endpoint/my-endpoint",
        ] {
            assert!(parse(&format!("arn:aws:{resource}")).is_ok(), "{resource}");
            assert!(parse(&format!("bedrock/arn:aws:{resource}")).is_ok(), "{resource}");
        }
    }

    #[test]
    fn what_is_no_model_says_why() {
        for (text, what) in [
            ("openai/gpt-4", "provider `openai`"),
            ("azure/gpt-4", "provider `azure`"),
            ("bedrock/openai/gpt-4", "`openai/` is neither"),
            ("bedrock/agent/AGENT/ALIAS", "`agent/` is neither"),
            ("bedrock/us-west-2/us-east-1/x", "`us-east-1/` is neither"),
            ("bedrock/", "not an id"),
            ("", "not an id"),
            ("bedrock/*", "wildcard"),
            ("anthropic.claude v2", "not an id"),
            ("bedrock/anthropic.claude?x", "not an id"),
            ("arn:aws:bedrock:us-east-1", "complete ARN"),
            ("arn:aws:bedrock:nowhere:123456789012:prompt/x", "without a valid region"),
            ("arn:aws:bedrock:us-east-1:12:prompt/x", "12 digits"),
            ("arn:aws:s3:us-east-1:123456789012:bucket/x", "`s3` `bucket`"),
            ("arn:aws:bedrock:us-east-1:123456789012:agent/x", "`bedrock` `agent`"),
            ("arn:aws:bedrock:us-east-1:123456789012:prompt/", "`bedrock` `prompt`"),
            ("arn:gcp:bedrock:us-east-1:123456789012:prompt/x", "partition"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.what.contains(what), "{text}: {}", error.what);
        }
    }
}

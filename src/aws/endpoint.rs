//! The hosts of AWS's services by region and variant, and what of an ARN or a model id decides where a request goes.
//!
//! Rests on the endpoint rule sets and partitions of botocore 1.44.5 (2026-11-22): all eight services share one rule,
//! `{prefix}[-fips].{region}.{suffix}`. AWS's SDKs send a region they do not know to the partition `aws`; here it is an
//! error, so that a text from a configuration or an ARN can never become a host outside the partitions below. Whether
//! a service exists in a region is not known here: AWS's name servers say.

use std::fmt;

use super::operation::Service;

/// Which of a service's hosts is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Variant {
    /// Endpoints with FIPS 140 validated cryptography.
    pub fips: bool,
    /// Endpoints that answer by IPv6, too; they live under a domain of their own.
    pub dual_stack: bool,
}

/// A set of regions that share domain names.
#[derive(Debug, PartialEq, Eq)]
pub struct Partition {
    /// As in an ARN: `aws-us-gov`.
    pub name: &'static str,
    pub dns_suffix: &'static str,
    pub dual_stack_dns_suffix: &'static str,
    /// What its regions begin with; a word and a number follow (`us-` `west` `-2`).
    region_prefixes: &'static [&'static str],
}

/// Why a region has no host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointError {
    /// Not the form of a region of any partition.
    UnknownRegion,
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownRegion => f.write_str("is not the name of an AWS region, such as us-west-2"),
        }
    }
}

impl std::error::Error for EndpointError {}

/// AWS's partitions. The prefixes exclude each other, because no word of a region holds a hyphen.
pub static PARTITIONS: [Partition; 8] = [
    Partition {
        name: "aws",
        dns_suffix: "amazonaws.com",
        dual_stack_dns_suffix: "api.aws",
        region_prefixes: &["us-", "eu-", "ap-", "sa-", "ca-", "me-", "af-", "il-", "mx-"],
    },
    Partition {
        name: "aws-cn",
        dns_suffix: "amazonaws.com.cn",
        dual_stack_dns_suffix: "api.amazonwebservices.com.cn",
        region_prefixes: &["cn-"],
    },
    Partition {
        name: "aws-us-gov",
        dns_suffix: "amazonaws.com",
        dual_stack_dns_suffix: "api.aws",
        region_prefixes: &["us-gov-"],
    },
    Partition {
        name: "aws-eusc",
        dns_suffix: "amazonaws.eu",
        dual_stack_dns_suffix: "api.amazonwebservices.eu",
        region_prefixes: &["eusc-de-"],
    },
    Partition {
        name: "aws-iso",
        dns_suffix: "c2s.ic.gov",
        dual_stack_dns_suffix: "api.aws.ic.gov",
        region_prefixes: &["us-iso-"],
    },
    Partition {
        name: "aws-iso-b",
        dns_suffix: "sc2s.sgov.gov",
        dual_stack_dns_suffix: "api.aws.scloud",
        region_prefixes: &["us-isob-"],
    },
    Partition {
        name: "aws-iso-e",
        dns_suffix: "cloud.adc-e.uk",
        dual_stack_dns_suffix: "api.cloud-aws.adc-e.uk",
        region_prefixes: &["eu-isoe-"],
    },
    Partition {
        name: "aws-iso-f",
        dns_suffix: "csp.hci.ic.gov",
        dual_stack_dns_suffix: "api.aws.hci.ic.gov",
        region_prefixes: &["us-isof-"],
    },
];

/// The longest word of a region today is `northeast`, and no number has two digits; twice that is room enough.
const REGION_WORD_BYTES_MAX: usize = 18;
const REGION_NUMBER_BYTES_MAX: usize = 2;

/// The partition of a region, or `None` for what is not written like a region of any.
#[must_use]
pub fn partition(region: &str) -> Option<&'static Partition> {
    PARTITIONS.iter().find(|partition| {
        let mut prefixes = partition.region_prefixes.iter();
        prefixes.any(|prefix| region.strip_prefix(prefix).is_some_and(is_word_and_number))
    })
}

/// `west-2`, but never a dot, a slash, a colon or anything else that means something in a URL.
fn is_word_and_number(text: &str) -> bool {
    let Some((word, number)) = text.split_once('-') else {
        return false;
    };
    (1..=REGION_WORD_BYTES_MAX).contains(&word.len())
        && word.bytes().all(|byte| byte.is_ascii_lowercase())
        && (1..=REGION_NUMBER_BYTES_MAX).contains(&number.len())
        && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// AWS's host of a service in a region: `bedrock-runtime.us-west-2.amazonaws.com`. Always HTTPS on port 443.
///
/// # Errors
/// When `region` is not written like a region of any partition.
pub fn host(service: Service, region: &str, variant: Variant) -> Result<String, EndpointError> {
    let partition = partition(region).ok_or(EndpointError::UnknownRegion)?;
    let fips = if variant.fips { "-fips" } else { "" };
    let suffix = if variant.dual_stack { partition.dual_stack_dns_suffix } else { partition.dns_suffix };
    Ok(format!("{}{fips}.{region}.{suffix}", service.endpoint_prefix()))
}

/// The parts of an ARN that decide a route. Reading one proves nothing about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arn<'a> {
    pub service: &'a str,
    /// Empty where the resource belongs to no region.
    pub region: &'a str,
    /// Everything behind the account: `knowledge-base/ABC`.
    pub resource: &'a str,
}

impl<'a> Arn<'a> {
    /// Splits `arn:partition:service:region:account:resource`; `None` when a part or the service is missing.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.strip_prefix("arn:")?.splitn(5, ':');
        let (_partition, service, region) = (parts.next()?, parts.next()?, parts.next()?);
        let (_account, resource) = (parts.next()?, parts.next()?);
        (!service.is_empty() && !resource.is_empty()).then_some(Self { service, region, resource })
    }

    /// What stands before the resource's first `/` or `:`, such as `knowledge-base`.
    #[must_use]
    pub fn resource_type(&self) -> &'a str {
        self.resource.split(['/', ':']).next().unwrap_or_default()
    }
}

/// The region of an ARN, `None` where it has none. Not checked: [`host`] accepts only what [`partition`] knows.
#[must_use]
pub fn arn_region(arn: &str) -> Option<&str> {
    Arn::parse(arn).map(|arn| arn.region).filter(|region| !region.is_empty())
}

/// Whether a model id is the ARN of an application inference profile, which hides the model that it stands for.
#[must_use]
pub fn is_application_inference_profile(model_id: &str) -> bool {
    Arn::parse(model_id)
        .is_some_and(|arn| arn.service == "bedrock" && arn.resource_type() == "application-inference-profile")
}

/// Bytes of the longest model id that a service model of bedrock-runtime allows.
const MODEL_ID_BYTES_MAX: usize = 2048;

/// Whether a decoded text may stand for AWS's model id in a path: letters, digits, `. _ : / -`, at most 2048 bytes, and
/// no dot segment. It says nothing about whether the model exists.
#[must_use]
pub fn model_id_is_valid(id: &str) -> bool {
    (1..=MODEL_ID_BYTES_MAX).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'/' | b'-'))
        && !id.split('/').any(|segment| matches!(segment, "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One region of each partition and its two suffixes, copied from the rule sets.
    const HOSTS: [(&str, &str, &str, &str); 8] = [
        ("aws", "us-east-1", "amazonaws.com", "api.aws"),
        ("aws-cn", "cn-northwest-1", "amazonaws.com.cn", "api.amazonwebservices.com.cn"),
        ("aws-us-gov", "us-gov-west-1", "amazonaws.com", "api.aws"),
        ("aws-eusc", "eusc-de-east-1", "amazonaws.eu", "api.amazonwebservices.eu"),
        ("aws-iso", "us-iso-east-1", "c2s.ic.gov", "api.aws.ic.gov"),
        ("aws-iso-b", "us-isob-west-1", "sc2s.sgov.gov", "api.aws.scloud"),
        ("aws-iso-e", "eu-isoe-west-1", "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk"),
        ("aws-iso-f", "us-isof-south-1", "csp.hci.ic.gov", "api.aws.hci.ic.gov"),
    ];

    /// Every region that botocore 1.44.5 lists, by partition.
    const REGIONS: [(&str, &str); 8] = [
        (
            "aws",
            "af-south-1 ap-east-1 ap-east-2 ap-northeast-1 ap-northeast-2 ap-northeast-3 ap-south-1 ap-south-2 \
             ap-southeast-1 ap-southeast-2 ap-southeast-3 ap-southeast-4 ap-southeast-5 ap-southeast-6 ap-southeast-7 \
             ca-central-1 ca-west-1 eu-central-1 eu-central-2 eu-north-1 eu-south-1 eu-south-2 eu-west-1 eu-west-2 \
             eu-west-3 il-central-1 me-central-1 me-south-1 me-west-1 mx-central-1 sa-east-1 sa-west-1 us-east-1 \
             us-east-2 us-west-1 us-west-2",
        ),
        ("aws-cn", "cn-north-1 cn-northwest-1"),
        ("aws-eusc", "eusc-de-east-1"),
        ("aws-iso", "us-iso-east-1 us-iso-west-1"),
        ("aws-iso-b", "us-isob-east-1 us-isob-west-1"),
        ("aws-iso-e", "eu-isoe-west-1"),
        ("aws-iso-f", "us-isof-east-1 us-isof-south-1"),
        ("aws-us-gov", "us-gov-east-1 us-gov-west-1"),
    ];

    #[test]
    fn every_service_has_a_host_in_every_partition_and_variant() {
        for service in Service::ALL {
            let prefix = service.endpoint_prefix();
            for (name, region, suffix, dual) in HOSTS {
                assert_eq!(partition(region).map(|partition| partition.name), Some(name));
                for (fips, dual_stack, expected) in [
                    (false, false, format!("{prefix}.{region}.{suffix}")),
                    (true, false, format!("{prefix}-fips.{region}.{suffix}")),
                    (false, true, format!("{prefix}.{region}.{dual}")),
                    (true, true, format!("{prefix}-fips.{region}.{dual}")),
                ] {
                    assert_eq!(host(service, region, Variant { fips, dual_stack }), Ok(expected));
                }
            }
        }
        assert_eq!(
            host(Service::BedrockRuntime, "us-west-2", Variant::default()).as_deref(),
            Ok("bedrock-runtime.us-west-2.amazonaws.com")
        );
    }

    #[test]
    fn every_known_region_belongs_to_its_partition_and_to_no_other() {
        for (name, regions) in REGIONS {
            for region in regions.split(' ') {
                let owners: Vec<_> = PARTITIONS
                    .iter()
                    .filter(|partition| {
                        partition
                            .region_prefixes
                            .iter()
                            .any(|prefix| region.strip_prefix(prefix).is_some_and(is_word_and_number))
                    })
                    .map(|partition| partition.name)
                    .collect();
                assert_eq!(owners, [name], "{region}");
            }
        }
    }

    #[test]
    fn what_is_not_a_region_has_no_host() {
        for region in [
            "",
            "us",
            "us-",
            "us-west",
            "us-west-",
            "us--1",
            "us-west-2-",
            "us-west-2.evil.example",
            "us-evil.example-2",
            "us-w/st-2",
            "us-west-2-3",
            "us-west-2/",
            "us-west-2:443",
            "us-west-2@evil.example",
            "us-west-2#",
            "us-west-2\n",
            " us-west-2",
            "US-WEST-2",
            "us-wést-2",
            "us-west-x",
            "us-west-+2",
            "us-west-222",
            "us-isox-east-1",
            "eusc-fr-east-1",
            "xx-west-1",
            "aws-global",
            "evil.example",
            "us-westwestwestwestwest-1",
        ] {
            assert_eq!(
                host(Service::Bedrock, region, Variant::default()),
                Err(EndpointError::UnknownRegion),
                "{region:?}"
            );
        }
    }

    #[test]
    fn an_arn_tells_its_region_and_resource_type() {
        for (arn, region) in [
            ("arn:aws:bedrock:us-west-2:123456789012:inference-profile/us.anthropic.claude-v1:0", Some("us-west-2")),
            ("arn:aws:bedrock:eu-west-1::foundation-model/anthropic.claude-v2", Some("eu-west-1")),
            ("arn:aws:s3:::bucket", None),
            ("arn:aws:bedrock:us-west-2:1", None),
            ("arn:aws:bedrock:us-west-2:1:", None),
            ("anthropic.claude-v2:1", None),
            ("", None),
        ] {
            assert_eq!(arn_region(arn), region, "{arn}");
        }
        let arn = Arn::parse("arn:aws:bedrock:us-west-2:1:prompt/ABC:2").unwrap();
        assert_eq!((arn.service, arn.resource, arn.resource_type()), ("bedrock", "prompt/ABC:2", "prompt"));
    }

    #[test]
    fn only_application_inference_profiles_hide_their_model_there() {
        for (id, expected) in [
            ("arn:aws:bedrock:us-west-2:123456789012:application-inference-profile/abc", true),
            ("arn:aws-us-gov:bedrock:us-gov-west-1:123456789012:application-inference-profile/abc", true),
            ("arn:aws:bedrock:us-west-2:123456789012:inference-profile/us.amazon.nova-pro-v1:0", false),
            ("arn:aws:sagemaker:us-west-2:1:application-inference-profile/abc", false),
            ("application-inference-profile/abc", false),
            ("us.amazon.nova-pro-v1:0", false),
            ("", false),
        ] {
            assert_eq!(is_application_inference_profile(id), expected, "{id}");
        }
    }

    #[test]
    fn a_model_id_is_plain_and_bounded() {
        for id in [
            "anthropic.claude-v2:1",
            "us.anthropic.claude-3-5-sonnet-20240620-v1:0",
            "arn:aws:bedrock:us-west-2:123456789012:application-inference-profile/abc",
            "arn:aws:sagemaker:us-west-2:1:endpoint/a_b",
            "a..b",
            &"a".repeat(2048),
        ] {
            assert!(model_id_is_valid(id), "{id}");
        }
        for id in
            ["", "a b", "a%2Fb", "../x", "a/../b", "a/..", "./a", "a/.", "..", "a\\b", "a;b", "a?b", "modèle", "a\n"]
        {
            assert!(!model_id_is_valid(id), "{id:?}");
        }
        assert!(!model_id_is_valid(&"a".repeat(2049)));
    }
}

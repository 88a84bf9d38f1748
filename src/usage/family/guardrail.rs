//! Guardrail units: of ApplyGuardrail, of InvokeGuardrailChecks, and of guardrails inside a model call.
//!
//! Inside a call they stand in the trace, which a client must have asked for; input and output assessments are billed
//! alike and add up. Source: GuardrailUsage, GuardrailTraceAssessment and GuardrailChecksUsageResults of botocore
//! 1.44.5; `amazon-bedrock-trace` of InvokeModel from AWS's guardrails guide.

use super::super::document::{Field, Member, Role, Site, number};
use super::super::json_scan::{ANY, EACH};

const UNITS: &[Member] = &[
    number("topicPolicyUnits", Field::Topic),
    number("contentPolicyUnits", Field::GuardContent),
    number("contentPolicyImageUnits", Field::GuardImage),
    number("wordPolicyUnits", Field::Word),
    number("sensitiveInformationPolicyUnits", Field::Sensitive),
    number("sensitiveInformationPolicyFreeUnits", Field::SensitiveFree),
    number("contextualGroundingPolicyUnits", Field::Grounding),
    number("automatedReasoningPolicyUnits", Field::Reasoning),
];

pub(in crate::usage) const APPLY: Site = Site { path: &["usage"], role: Role::Guardrail, members: UNITS };

pub(in crate::usage) const CONVERSE_INPUT: Site = Site {
    path: &["trace", "guardrail", "inputAssessment", ANY, "invocationMetrics", "usage"],
    role: Role::Guardrail,
    members: UNITS,
};

pub(in crate::usage) const CONVERSE_OUTPUT: Site = Site {
    path: &["trace", "guardrail", "outputAssessments", ANY, EACH, "invocationMetrics", "usage"],
    role: Role::Guardrail,
    members: UNITS,
};

pub(in crate::usage) const INVOKE_INPUT: Site = Site {
    path: &["amazon-bedrock-trace", "guardrail", "input", ANY, "invocationMetrics", "usage"],
    role: Role::Guardrail,
    members: UNITS,
};

pub(in crate::usage) const INVOKE_OUTPUT: Site = Site {
    path: &["amazon-bedrock-trace", "guardrail", "outputs", EACH, ANY, "invocationMetrics", "usage"],
    role: Role::Guardrail,
    members: UNITS,
};

/// Detection of prompt attacks is part of the content policy, and is billed as such.
pub(in crate::usage) const CHECK_CONTENT: Site = Site {
    path: &["usage", "contentFilter"],
    role: Role::Guardrail,
    members: &[number("textUnits", Field::GuardContent)],
};

pub(in crate::usage) const CHECK_ATTACK: Site = Site {
    path: &["usage", "promptAttack"],
    role: Role::Guardrail,
    members: &[number("textUnits", Field::GuardContent)],
};

pub(in crate::usage) const CHECK_SENSITIVE: Site = Site {
    path: &["usage", "sensitiveInformation"],
    role: Role::Guardrail,
    members: &[number("textUnits", Field::Sensitive)],
};

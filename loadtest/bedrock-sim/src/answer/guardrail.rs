//! ApplyGuardrail and InvokeGuardrailChecks. Every text passes; what matters here are the units that are billed: a text
//! unit per 1,000 characters and policy, an image unit per image. Source: `GuardrailUsage` of bedrock-runtime.

use serde_json::{Value, json};

use super::generation::prompt_text;
use super::{Answer, Answered, Ask};
use crate::billing::Bill;
use crate::usage::{GuardrailUnits, Usage};

pub fn apply(ask: &Ask<'_>) -> Answered {
    let text = prompt_text(ask.json);
    let content = ask.json.get("content").and_then(Value::as_array);
    let images = content.map_or(0, |blocks| blocks.iter().filter(|block| block.get("image").is_some()).count());
    let units = GuardrailUnits {
        content_image: u64::try_from(images).unwrap_or(0),
        ..GuardrailUnits::of_text(text.chars().count())
    };
    let body = json!({
        "usage": usage(&units),
        "action": "NONE",
        "outputs": [],
        "assessments": [{ "invocationMetrics": metrics(&units) }],
        "guardrailCoverage": { "textCharacters": { "guarded": text.chars().count(), "total": text.chars().count() } },
    });
    (Answer::json(200, &body), Some(bill(units)))
}

pub fn checks(ask: &Ask<'_>) -> Answered {
    let units = GuardrailUnits::of_text(prompt_text(ask.json).chars().count());
    let per_check = json!({ "textUnits": units.content });
    let body = json!({
        "results": {
            "contentFilter": { "results": [{ "category": "VIOLENCE", "severityScore": 0.0 }] },
            "promptAttack": { "results": [{ "category": "JAILBREAK", "severityScore": 0.0 }] },
            "sensitiveInformation": { "results": [], "truncated": false },
        },
        "usage": { "contentFilter": per_check, "promptAttack": per_check, "sensitiveInformation": per_check },
    });
    // A prompt-attack check is a content policy: two content units and one of sensitive information for each text unit.
    let billed = GuardrailUnits {
        content: units.content * 2,
        sensitive_information: units.content,
        ..GuardrailUnits::default()
    };
    (Answer::json(200, &body), Some(bill(billed)))
}

fn bill(guardrail: GuardrailUnits) -> Bill {
    Bill { usage: Usage { guardrail, ..Usage::default() }, ..Bill::default() }
}

/// `GuardrailInvocationMetrics`.
pub fn metrics(units: &GuardrailUnits) -> Value {
    json!({ "guardrailProcessingLatency": 120, "usage": usage(units) })
}

fn usage(units: &GuardrailUnits) -> Value {
    json!({
        "topicPolicyUnits": units.topic,
        "contentPolicyUnits": units.content,
        "contentPolicyImageUnits": units.content_image,
        "wordPolicyUnits": units.word,
        "sensitiveInformationPolicyUnits": units.sensitive_information,
        "sensitiveInformationPolicyFreeUnits": units.sensitive_information_free,
        "contextualGroundingPolicyUnits": units.contextual_grounding,
        "automatedReasoningPolicyUnits": units.automated_reasoning,
    })
}

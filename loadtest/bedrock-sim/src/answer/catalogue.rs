//! The reads of the control plane that clients make at start: Claude Code and the consoles of gateways list inference
//! profiles and models. A handful of each, of the families that tests use. Any ARN of an application inference profile
//! exists; it stands for the first model, across the regions of the United States where it is called from there, unless
//! a rule's `profile_models` says otherwise.

use serde_json::{Value, json};

use super::{Answer, Ask, error_answer};

const TIME: &str = "2026-11-22T00:00:00Z";
const APPLICATION: &str = ":application-inference-profile/";
const GEOGRAPHIES: [&str; 2] = ["us", "global"];
const US_REGIONS: [&str; 3] = ["us-east-1", "us-east-2", "us-west-2"];
/// Model id, provider, output modality, whether it streams.
const MODELS: [(&str, &str, &str, bool); 8] = [
    ("anthropic.claude-sonnet-4-5-20250929-v1:0", "Anthropic", "TEXT", true),
    ("anthropic.claude-haiku-4-5-20251001-v1:0", "Anthropic", "TEXT", true),
    ("anthropic.claude-opus-4-6-v1", "Anthropic", "TEXT", true),
    ("amazon.nova-pro-v1:0", "Amazon", "TEXT", true),
    ("amazon.titan-embed-text-v2:0", "Amazon", "EMBEDDING", false),
    ("amazon.nova-canvas-v1:0", "Amazon", "IMAGE", false),
    ("meta.llama3-3-70b-instruct-v1:0", "Meta", "TEXT", true),
    ("cohere.command-r-plus-v1:0", "Cohere", "TEXT", true),
];

pub fn inference_profiles(ask: &Ask<'_>) -> Answer {
    let all = MODELS.iter().filter(|(_, _, output, _)| *output == "TEXT");
    let profiles: Vec<Value> =
        all.flat_map(|(id, ..)| GEOGRAPHIES.map(|geography| profile(ask, geography, id))).collect();
    Answer::json(200, &json!({ "inferenceProfileSummaries": profiles }))
}

pub fn inference_profile(ask: &Ask<'_>) -> Answer {
    let asked = ask.label(0);
    let id = asked.rsplit('/').next().unwrap_or_default();
    match id.split_once('.') {
        Some((geography, model)) if GEOGRAPHIES.contains(&geography) => {
            Answer::json(200, &profile(ask, geography, model))
        }
        _ if asked.contains(APPLICATION) => {
            let (geography, model) = own_default(ask.region);
            let mut own = profile(ask, geography, model);
            own["inferenceProfileName"] = json!(id);
            own["inferenceProfileArn"] = json!(asked);
            own["inferenceProfileId"] = json!(id);
            own["type"] = json!("APPLICATION");
            if let Some(arns) = &ask.effect.profile_models {
                own["models"] = arns.iter().map(|arn| json!({ "modelArn": arn })).collect();
            }
            Answer::json(200, &own)
        }
        _ => error_answer(404, "ResourceNotFoundException", "The provided inference profile does not exist.", None),
    }
}

/// The id that is billed for an application inference profile without a rule; `None` for everything else.
pub fn model_behind(ask: &Ask<'_>, model: &str) -> Option<String> {
    let (geography, id) = model.contains(APPLICATION).then(|| own_default(ask.region))?;
    Some(if geography.is_empty() { id.to_owned() } else { format!("{geography}.{id}") })
}

/// The geography, if any, and the model of an application inference profile in a region.
fn own_default(region: &str) -> (&'static str, &'static str) {
    let [(first, ..), ..] = MODELS;
    (if US_REGIONS.contains(&region) { "us" } else { "" }, first)
}

pub fn foundation_models(ask: &Ask<'_>) -> Answer {
    let models: Vec<Value> = MODELS.iter().map(|entry| model(ask, entry)).collect();
    Answer::json(200, &json!({ "modelSummaries": models }))
}

pub fn foundation_model(ask: &Ask<'_>) -> Answer {
    let asked = ask.label(0);
    let id = asked.rsplit('/').next().unwrap_or_default();
    match MODELS.iter().find(|(own, ..)| *own == id) {
        Some(entry) => Answer::json(200, &json!({ "modelDetails": model(ask, entry) })),
        None => error_answer(404, "ResourceNotFoundException", "Could not resolve the foundation model.", None),
    }
}

/// `GET /openai/v1/models`.
pub fn openai_models() -> Answer {
    let models = ["openai.gpt-oss-120b", "openai.gpt-oss-20b"];
    let told = models.map(|id| json!({ "id": id, "object": "model", "created": 1_795_305_600, "owned_by": "openai" }));
    Answer::json(200, &json!({ "object": "list", "data": told }))
}

fn profile(ask: &Ask<'_>, geography: &str, model: &str) -> Value {
    let region = ask.region;
    let serving = match geography {
        "us" => US_REGIONS.to_vec(),
        // The global profile lists an ARN without a region beside that of the caller's.
        "global" => vec![region, ""],
        _ => vec![region],
    };
    let arns = serving.iter().map(|region| format!("arn:aws:bedrock:{region}::foundation-model/{model}"));
    let models: Vec<Value> = arns.map(|arn| json!({ "modelArn": arn })).collect();
    json!({
        "inferenceProfileName": format!("{} {model}", geography.to_uppercase()),
        "inferenceProfileArn": format!("arn:aws:bedrock:{region}:123456789012:inference-profile/{geography}.{model}"),
        "inferenceProfileId": format!("{geography}.{model}"),
        "description": "Routes requests within the geography.",
        "models": models,
        "status": "ACTIVE",
        "type": "SYSTEM_DEFINED",
        "createdAt": TIME,
        "updatedAt": TIME,
    })
}

fn model(ask: &Ask<'_>, (id, provider, output, streams): &(&str, &str, &str, bool)) -> Value {
    json!({
        "modelArn": format!("arn:aws:bedrock:{}::foundation-model/{id}", ask.region),
        "modelId": id,
        "modelName": id,
        "providerName": provider,
        "inputModalities": ["TEXT"],
        "outputModalities": [output],
        "responseStreamingSupported": streams,
        "inferenceTypesSupported": ["ON_DEMAND"],
        "modelLifecycle": { "status": "ACTIVE" },
    })
}

//! What is done with a request: signing and routing.

use std::hint::black_box;

use dheera_ai::aws::route::{RequestTarget, find};
use dheera_ai::aws::sigv4::{PayloadHasher, Scope, SignableRequest, Signer, SigningCredentials, SigningTime};
use dheera_ai::types::secret::Secret;

use super::Case;

pub const ARN_PATH: &str = "/model/arn%3Aaws%3Abedrock%3Aus-west-2%3A123456789012%3Aapplication-inference-profile%2Fdemo12345678/converse-stream";
pub const GUARDRAIL_PATH: &str = "/bedrock/guardrails/gr1abcdefgh";
/// An operation of the JSON protocol.
pub const TARGET: &str = "AmazonBedrockKeystoneRuntimeService.GetDataAutomationStatus";

const HOST: &str = "bedrock-runtime.us-east-1.amazonaws.com";

/// Hashes the body of a Converse and makes its `Authorization`.
pub fn sign(body_bytes: usize) -> Case {
    let body = converse_body(body_bytes);
    let bytes = body.len();
    let signer = Signer::new();
    let credentials = SigningCredentials {
        access_key_id: "AKIDEXAMPLE".to_owned(),
        secret_access_key: Secret::new("not-a-real-secret-key"),
        session_token: None,
    };
    let time = SigningTime::from_unix_seconds(1_790_000_000);
    let work = move || {
        let mut hasher = PayloadHasher::new();
        hasher.update(black_box(&body));
        let digest = hasher.finish_hex();
        let headers = [
            ("host", HOST),
            ("x-amz-date", time.amz_date()),
            ("content-type", "application/json"),
            ("accept", "application/json"),
        ];
        let request = SignableRequest {
            method: "POST",
            path: "/model/us.amazon.nova-pro-v1%3A0/converse",
            query: "",
            headers: &headers,
            payload_sha256_hex: &digest,
        };
        let scope = Scope { region: "us-east-1", service: "bedrock" };
        black_box(signer.authorization(&credentials, &time, scope, black_box(&request)));
    };
    Case::new(work).reading(bytes)
}

/// Finds the operation of a request.
pub fn route(method: &'static str, path: &'static str, amz_target: Option<&'static str>) -> Case {
    let target = RequestTarget { method, path, amz_target };
    assert!(find(&target).is_ok(), "{target:?} has no route");
    Case::new(move || {
        black_box(find(black_box(&target))).ok();
    })
}

fn converse_body(bytes: usize) -> Vec<u8> {
    let text = "All work and no play makes Jack a dull boy. ".repeat(bytes / 44);
    let message = serde_json::json!({ "role": "user", "content": [{ "text": text }] });
    serde_json::json!({ "messages": [message], "inferenceConfig": { "maxTokens": 100 } }).to_string().into_bytes()
}

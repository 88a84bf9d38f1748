//! The signer against AWS's signing test suite and against the `aws-sigv4` crate. The oracle botocore is asked in
//! `tests/sigv4_oracle.rs`.

use std::time::{Duration, UNIX_EPOCH};

use aws_sigv4::http_request::{PayloadChecksumKind, SignableBody, SigningSettings, UriPathNormalizationMode};
use proptest::prelude::*;

use super::*;

fn credentials(secret: &str, token: Option<&str>) -> SigningCredentials {
    SigningCredentials {
        access_key_id: "AKIDEXAMPLE".to_owned(),
        secret_access_key: Secret::new(secret),
        session_token: token.map(Secret::new),
    }
}

/// `20150830T123600Z`, the moment of the suite.
const SUITE_SECONDS: u64 = 1_440_938_160;

/// Cases that fold `.`, `..` and `//`, which our router refuses, or that encode the path once, as only S3 does.
fn is_not_ours(name: &str) -> bool {
    name.ends_with("-normalized")
}

#[test]
fn the_signing_test_suite_of_aws_passes() {
    let suite: serde_json::Value =
        serde_json::from_str(include_str!("../../../tests/fixtures/sigv4/aws_signing_test_suite.json")).unwrap();
    let signer = Signer::new();
    let mut passed = 0;
    for case in suite["cases"].as_array().unwrap() {
        let text = |field: &str| case[field].as_str().unwrap();
        if is_not_ours(text("name")) {
            continue;
        }
        let headers: Vec<(String, String)> = serde_json::from_value(case["headers"].clone()).unwrap();
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut hasher = PayloadHasher::new();
        hasher.update(text("body").as_bytes());
        // Cases without `sign_body` hash nothing, whatever the body is.
        let payload = if text("payload") == EMPTY_PAYLOAD_SHA256 { PayloadHasher::new() } else { hasher };
        let time = SigningTime::from_unix_seconds(SUITE_SECONDS);
        assert_eq!(time.amz_date(), text("amz_date"));
        let authorization = signer.authorization(
            &credentials(text("secret_access_key"), None),
            &time,
            Scope { region: text("region"), service: text("service") },
            &SignableRequest {
                method: text("method"),
                path: text("path"),
                query: text("query"),
                headers: &headers,
                payload_sha256_hex: &payload.finish_hex(),
            },
        );
        assert_eq!(authorization, text("authorization"), "{}", text("name"));
        passed += 1;
    }
    assert_eq!(passed, 31, "the suite has shrunk");
}

#[test]
fn a_signature_is_found_in_the_header_it_stands_in() {
    let hex = "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7";
    assert_eq!(signature_of(&format!("AWS4-HMAC-SHA256 Credential=a, Signature={hex}")), Some(hex));
    for other in ["Bearer x", "Signature=", "Signature=zz", &format!("Signature={}g", &hex[1..])] {
        assert_eq!(signature_of(other), None, "{other}");
    }
}

#[test]
fn credentials_show_neither_secret_nor_whole_id() {
    let shown = format!("{:?}", credentials("canary-secret", Some("canary-token")));
    assert_eq!(shown, "SigningCredentials { access_key_id_ends_with: \"MPLE\", session_token: true, .. }");
}

#[derive(Debug, Clone)]
struct Case {
    method: &'static str,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    secret: String,
    token: Option<String>,
    region: String,
    service: &'static str,
    seconds: u64,
}

/// What may stand in a path that the router lets through: escapes, ARNs, raw colons; no dot segment, no `//`.
pub(super) fn path() -> impl Strategy<Value = String> {
    let segment = prop_oneof![
        "[A-Za-z0-9._~-]{0,6}[A-Za-z0-9_~-]",
        "[a-z]{1,5}%3[Aa][a-z]{1,5}%2F[a-z0-9]{1,3}",
        "(us|eu)\\.anthropic\\.claude-[a-z]{1,6}-v1:[0-9]",
        "arn:aws:bedrock:us-east-1:[0-9]{12}:[a-z-]{1,8}%2F[a-z0-9]{1,8}",
        "[!$&'()*+,;=@a-z]{1,6}",
        "%25[0-9A-F]{2}%20",
    ];
    proptest::collection::vec(segment, 0..5).prop_map(|segments| format!("/{}", segments.join("/")))
}

/// Pairs in a random order. `+` is left out: the crate reads it as a space, see `canonical.rs`.
pub(super) fn query() -> impl Strategy<Value = String> {
    let part = prop_oneof!["[A-Za-z0-9._~-]{1,6}", "[a-z]{0,3}%2[Ff]%C3%A9[A-Z]{0,2}", "[a-z:/@!$'()*,;]{1,6}"];
    let pair = (part.clone(), proptest::option::of(proptest::option::of(part))).prop_map(|(name, value)| match value {
        None => name,
        Some(None) => format!("{name}="),
        Some(Some(value)) => format!("{name}={value}"),
    });
    proptest::collection::vec(pair, 0..5).prop_map(|pairs| pairs.join("&"))
}

fn case() -> impl Strategy<Value = Case> {
    let header = ("x-amz-[a-z]{1,6}-[a-z]{1,3}", "[ -~]{0,20}");
    let request = (
        prop_oneof![Just("GET"), Just("POST"), Just("PUT"), Just("DELETE")],
        path(),
        query(),
        proptest::collection::vec(header, 0..6),
        proptest::collection::vec(any::<u8>(), 0..100),
    );
    let identity = (
        "[A-Za-z0-9/+]{1,80}",
        proptest::option::of("[A-Za-z0-9/+=]{1,60}"),
        "[a-z]{2}-[a-z]{4,9}-[1-9]",
        prop_oneof![Just("bedrock"), Just("bedrock-agentcore")],
        0_u64..4_102_444_800,
    );
    (request, identity).prop_map(|((method, path, query, headers, body), (secret, token, region, service, seconds))| {
        Case { method, path, query, headers, body, secret, token, region, service, seconds }
    })
}

/// What the `aws-sigv4` crate signs: the headers it put in, and its `authorization`.
fn signed_by_the_crate(case: &Case, headers: &[(&str, &str)]) -> (Vec<(String, String)>, String) {
    let identity =
        aws_credential_types::Credentials::new("AKIDEXAMPLE", case.secret.clone(), case.token.clone(), None, "test")
            .into();
    let mut settings = SigningSettings::default();
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    settings.payload_checksum_kind = PayloadChecksumKind::NoHeader;
    let params = aws_sigv4::sign::v4::SigningParams::builder()
        .identity(&identity)
        .region(&case.region)
        .name(case.service)
        .time(UNIX_EPOCH + Duration::from_secs(case.seconds))
        .settings(settings)
        .build()
        .unwrap()
        .into();
    let separator = if case.query.is_empty() { "" } else { "?" };
    let uri = format!("https://bedrock-runtime.example.com{}{separator}{}", case.path, case.query);
    let request = aws_sigv4::http_request::SignableRequest::new(
        case.method,
        uri,
        headers.iter().copied(),
        SignableBody::Bytes(&case.body),
    )
    .unwrap();
    let (instructions, _) = aws_sigv4::http_request::sign(request, &params).unwrap().into_parts();
    let (mut added, mut authorization) = (Vec::new(), String::new());
    for (name, value) in instructions.headers() {
        if name == "authorization" {
            value.clone_into(&mut authorization);
        } else {
            added.push((name.to_owned(), value.to_owned()));
        }
    }
    (added, authorization)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn signatures_equal_those_of_the_aws_sigv4_crate(case in case()) {
        let mut headers: Vec<(&str, &str)> =
            case.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        headers.push(("host", "bedrock-runtime.example.com"));
        let (added, expected) = signed_by_the_crate(&case, &headers);
        headers.extend(added.iter().map(|(name, value)| (name.as_str(), value.as_str())));

        let time = SigningTime::from_unix_seconds(case.seconds);
        prop_assert!(added.iter().any(|(name, value)| name == "x-amz-date" && value == time.amz_date()));
        let mut hasher = PayloadHasher::new();
        hasher.update(&case.body);
        let authorization = Signer::new().authorization(
            &credentials(&case.secret, case.token.as_deref()),
            &time,
            Scope { region: &case.region, service: case.service },
            &SignableRequest {
                method: case.method,
                path: &case.path,
                query: &case.query,
                headers: &headers,
                payload_sha256_hex: &hasher.finish_hex(),
            },
        );
        prop_assert_eq!(authorization, expected);
    }

    #[test]
    fn nothing_that_is_sent_makes_the_signer_panic(
        path in "\\PC*", query in "\\PC*", name in "\\PC*", value in ".*",
        seconds in any::<u64>(), time_ms in any::<u64>(),
    ) {
        let signer = Signer::new();
        let time = SigningTime::from_unix_seconds(seconds);
        let scope = Scope { region: &name, service: &value };
        let request = SignableRequest {
            method: "GET", path: &path, query: &query, headers: &[(&name, &value), ("", ""), (&name, &path)],
            payload_sha256_hex: EMPTY_PAYLOAD_SHA256,
        };
        let authorization = signer.authorization(&credentials(&value, None), &time, scope, &request);
        let key = signer.signing_key(&credentials(&value, None), &time, scope);
        let initial = signature_of(&authorization).unwrap();
        prop_assert!(!ChunkSigner::new(key, &time, scope, initial).sign_frame(value.as_bytes(), time_ms).is_empty());
    }
}

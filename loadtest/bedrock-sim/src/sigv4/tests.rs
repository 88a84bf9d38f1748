use super::*;
use serde_json::Value;

const NOW: i64 = 1_795_375_014;

fn fixture() -> Value {
    serde_json::from_str(include_str!("../../tests/fixtures/sigv4.json")).unwrap()
}

struct Case {
    value: Value,
    headers: HeaderMap,
    payload_hash: String,
}

fn cases() -> Vec<Case> {
    let take = |value: &Value| Case {
        headers: (value["headers"].as_object().unwrap().iter())
            .map(|(name, text)| (name.parse().unwrap(), text.as_str().unwrap().parse().unwrap()))
            .collect(),
        payload_hash: hex(&Sha256::digest(value["body"].as_str().unwrap().as_bytes())),
        value: value.clone(),
    };
    fixture()["cases"].as_array().unwrap().iter().map(take).collect()
}

impl Case {
    fn text(&self, name: &str) -> &str {
        self.value[name].as_str().unwrap()
    }

    fn signed(&self) -> Signed<'_> {
        Signed {
            method: self.text("method"),
            path: self.text("path"),
            query: self.text("query"),
            host: "bedrock.test:4000",
            headers: &self.headers,
            payload_hash: &self.payload_hash,
        }
    }

    fn verifier(&self) -> Verifier {
        let fixture = fixture();
        Verifier::new(&[Credential {
            access_key_id: fixture["access_key_id"].as_str().unwrap().to_owned(),
            secret_access_key: fixture["secret_access_key"].as_str().unwrap().to_owned(),
            session_token: self.value["session_token"].as_str().map(str::to_owned),
        }])
    }
}

#[test]
fn signatures_of_botocore_verify() {
    let cases = cases();
    assert!(cases.len() >= 8);
    for case in &cases {
        let presented = parse(case.text("authorization")).unwrap();
        let verdict = case.verifier().verify(&presented, &case.signed(), NOW);
        assert!(verdict.is_ok(), "{}: {verdict:?}", case.text("path"));
    }
}

#[test]
fn a_change_of_anything_signed_is_refused() {
    for case in &cases() {
        let presented = parse(case.text("authorization")).unwrap();
        let verifier = case.verifier();
        let signed = case.signed();
        let mut other_host = case.headers.clone();
        other_host.insert("host", "elsewhere".parse().unwrap());
        for changed in [
            Signed { method: "PUT", ..signed },
            Signed { path: "/other", ..signed },
            Signed { query: "a=b", ..signed },
            Signed { headers: &other_host, ..signed },
            Signed { payload_hash: &"0".repeat(64), ..signed },
        ] {
            let refused = verifier.verify(&presented, &changed, NOW).unwrap_err();
            assert_eq!(refused.error_type, "InvalidSignatureException");
        }
        for changed in [
            Presented { region: "us-gov-west-1", ..presented },
            Presented { service: "bedrock-mantle", ..presented },
            Presented { signature: "00", ..presented },
        ] {
            assert!(verifier.verify(&changed, &signed, NOW).is_err());
        }
    }
}

#[test]
fn the_clock_the_token_and_unsigned_amz_headers_count() {
    let case = &cases()[0];
    let presented = parse(case.text("authorization")).unwrap();
    let verifier = case.verifier();
    assert!(verifier.verify(&presented, &case.signed(), NOW + 301).unwrap_err().message.contains("expired"));
    assert!(verifier.verify(&presented, &case.signed(), NOW + 299).is_ok());
    for (name, value) in [("x-amz-security-token", "stray"), ("x-amz-user-agent", "unsigned")] {
        let mut headers = case.headers.clone();
        headers.insert(name, value.parse().unwrap());
        assert!(verifier.verify(&presented, &Signed { headers: &headers, ..case.signed() }, NOW).is_err(), "{name}");
    }
    let stranger = Presented { access_key_id: "AKIDSTRANGER", ..presented };
    let refused = verifier.verify(&stranger, &case.signed(), NOW).unwrap_err();
    assert_eq!(refused.error_type, "UnrecognizedClientException");
}

#[test]
fn the_header_of_the_javascript_sdk_over_http2_verifies() {
    let text = include_str!("../../tests/fixtures/bidirectional.json");
    let capture: Value = serde_json::from_str(text).unwrap();
    let sent = capture["request_headers"].as_object().unwrap();
    let headers: HeaderMap = (sent.iter().filter(|(name, _)| !name.starts_with(':')))
        .map(|(name, value)| (name.parse().unwrap(), value.as_str().unwrap().parse().unwrap()))
        .collect();
    let signed = Signed {
        method: "POST",
        path: sent[":path"].as_str().unwrap(),
        query: "",
        host: sent[":authority"].as_str().unwrap(),
        headers: &headers,
        payload_hash: crate::chunk_signature::STREAMING_PAYLOAD,
    };
    let verifier = Verifier::new(&[Credential {
        access_key_id: "AKIDEXAMPLE".to_owned(),
        secret_access_key: capture["secret_access_key"].as_str().unwrap().to_owned(),
        session_token: None,
    }]);
    let presented = parse(sent["authorization"].as_str().unwrap()).unwrap();
    assert!(verifier.verify(&presented, &signed, NOW).is_ok());
}

#[test]
fn malformed_authorization_headers_are_not_taken_apart() {
    for bad in [
        "",
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 Credential=a/b/c, SignedHeaders=host, Signature=x",
        "AWS4-HMAC-SHA256 Credential=a/20261122/us-east-1/bedrock/aws5_request, SignedHeaders=host, Signature=x",
        "Bearer token",
    ] {
        assert_eq!(parse(bad), None, "{bad}");
    }
}

//! Asks botocore: thousands of random requests are signed by `tests/clients/sigv4_oracle.py` and again by our signer,
//! and every `Authorization` value has to be the same. botocore is what most clients of Bedrock sign with, so AWS
//! accepts it.
//!
//! The interpreter is `.venv/bin/python`, or `DHEERA_TEST_PYTHON`. Without one the test fails rather than being
//! skipped.

#![expect(clippy::expect_used, clippy::panic, reason = "a failure is the result of a test")]

use std::path::{Path, PathBuf};
use std::process::Command;

use dheera_ai::aws::sigv4::{
    PayloadHasher, Scope, SignableRequest, Signer, SigningCredentials, SigningTime, canonical_query,
};
use dheera_ai::types::secret::Secret;
use serde::Deserialize;

const SEED: u64 = 20_261_122;
const REQUESTS: usize = 6_000;

#[derive(Deserialize)]
struct Signed {
    method: String,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
    payload_hex: String,
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
    region: String,
    service: String,
    unix_seconds: u64,
    authorization: String,
}

#[expect(clippy::disallowed_methods, reason = "a test has no configuration to read it from")]
fn python() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::env::var_os("DHEERA_TEST_PYTHON").map_or_else(|| root.join(".venv/bin/python"), PathBuf::from)
}

fn lines_of_botocore() -> String {
    let python = python();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/sigv4_oracle.py");
    let output = Command::new(&python)
        .arg(script)
        .args([SEED.to_string(), REQUESTS.to_string()])
        .output()
        .unwrap_or_else(|error| {
            panic!("{} does not run ({error}); `make test` installs it, or set DHEERA_TEST_PYTHON", python.display())
        });
    assert!(
        output.status.success(),
        "botocore did not sign (`make test` installs it): {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("the script prints UTF-8")
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}

#[test]
fn every_request_is_signed_as_botocore_signs_it() {
    let signer = Signer::new();
    let mut compared = 0;
    for line in lines_of_botocore().lines() {
        let case: Signed = serde_json::from_str(line).expect("one JSON object a line");
        let headers: Vec<_> = case.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut body = PayloadHasher::new();
        body.update(&unhex(&case.payload_hex));
        let payload = body.finish_hex();
        let credentials = SigningCredentials {
            access_key_id: case.access_key_id,
            secret_access_key: Secret::new(case.secret_access_key),
            session_token: case.session_token.map(Secret::new),
        };
        let time = SigningTime::from_unix_seconds(case.unix_seconds);
        let scope = Scope { region: &case.region, service: &case.service };
        // The query as it was sent, and as the proxy would send it.
        for query in [case.query.as_str(), &canonical_query(&case.query)] {
            let request = SignableRequest {
                method: &case.method,
                path: &case.path,
                query,
                headers: &headers,
                payload_sha256_hex: &payload,
            };
            let authorization = signer.authorization(&credentials, &time, scope, &request);
            assert_eq!(authorization, case.authorization, "{line}");
        }
        compared += 1;
    }
    assert_eq!(compared, REQUESTS);
}

//! What the `aws-sigv4` crate and AWS's own vectors sign is accepted; the same with one byte changed is not.

use std::time::{Duration, UNIX_EPOCH};

use aws_sigv4::http_request::{
    PayloadChecksumKind, SignableBody, SignatureLocation, SigningSettings, UriPathNormalizationMode,
};
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::aws::sigv4::tests::{path, query};
use crate::aws::sigv4::{PayloadHasher, canonical_query};
use crate::types::secret::Secret;

const ID: &str = "DHAKABCDEFGHIJKLMNOP";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
/// `20261122T191654Z`.
const NOW: u64 = 1_795_375_014;
const HOST_SENT: &str = "127.0.0.1:4000";

/// A request as it arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sent {
    method: String,
    path: String,
    query: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Sent {
    fn header(&mut self, name: &str) -> &mut Vec<u8> {
        &mut self.headers.iter_mut().find(|(sent, _)| sent == name).unwrap().1
    }

    fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(sent, _)| sent != name);
        self
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    fn verified(&self, now: u64, secret: &str) -> Result<Verified, SignatureError> {
        let text = |name: &str| {
            let found = self.headers.iter().find(|(sent, _)| sent == name)?;
            std::str::from_utf8(&found.1).ok()
        };
        let claim = match text("authorization") {
            Some(authorization) => Claim::from_header(authorization, text("x-amz-date"))?,
            None => Claim::from_query(&self.query)?,
        };
        claim.check_time(&SigningTime::from_unix_seconds(now))?;
        let key = Arc::new(SigningKey::derive(&Secret::new(secret), claim.day(), claim.scope()));
        let mut hasher = PayloadHasher::new();
        hasher.update(&self.body);
        let sha256 = hasher.finish_hex();
        let headers: Vec<_> = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        let request = ReceivedRequest {
            method: &self.method,
            path: &self.path,
            query: &self.query,
            headers: &headers,
            payload: Payload::Sha256(&sha256),
            service: "bedrock",
            headers_read: &["accept", "mcp-session-id"],
        };
        claim.verify(key, &request)
    }

    fn refusal(&self) -> Option<SignatureError> {
        self.verified(NOW, SECRET).err()
    }
}

/// How a request is signed.
#[derive(Debug, Clone, Copy)]
struct How {
    presigned: bool,
    body_hash_header: bool,
    token: bool,
}

/// Signs as the crate does, and as the SDK for Rust with it.
fn sign(how: How, unsigned: &Sent, host: &str) -> Sent {
    let token = how.token.then(|| "a-session/token==".to_owned());
    let identity = aws_credential_types::Credentials::new(ID, SECRET, token, None, "test").into();
    let mut settings = SigningSettings::default();
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    if how.body_hash_header {
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    }
    if how.presigned {
        settings.signature_location = SignatureLocation::QueryParams;
        settings.expires_in = Some(Duration::from_mins(15));
    }
    let params = aws_sigv4::sign::v4::SigningParams::builder()
        .identity(&identity)
        .region("us-east-1")
        .name("bedrock")
        .time(UNIX_EPOCH + Duration::from_secs(NOW))
        .settings(settings)
        .build()
        .unwrap()
        .into();
    let separator = if unsigned.query.is_empty() { "" } else { "?" };
    let uri = format!("http://{host}{}{separator}{}", unsigned.path, unsigned.query);
    let headers = unsigned.headers.iter().map(|(name, value)| (name.as_str(), std::str::from_utf8(value).unwrap()));
    let signable = aws_sigv4::http_request::SignableRequest::new(
        &unsigned.method,
        uri.clone(),
        headers,
        SignableBody::Bytes(&unsigned.body),
    );
    let (instructions, _) = aws_sigv4::http_request::sign(signable.unwrap(), &params).unwrap().into_parts();
    let mut request = http::Request::builder().method(&*unsigned.method).uri(uri);
    for (name, value) in &unsigned.headers {
        request = request.header(name, value.as_slice());
    }
    let mut request = request.body(()).unwrap();
    instructions.apply_to_request_http1x(&mut request);
    let mut sent = Sent {
        method: unsigned.method.clone(),
        path: unsigned.path.clone(),
        query: request.uri().query().unwrap_or_default().to_owned(),
        headers: Vec::new(),
        body: unsigned.body.clone(),
    };
    for (name, value) in request.headers() {
        sent.headers.push((name.as_str().to_owned(), value.as_bytes().to_owned()));
    }
    if sent.headers.iter().all(|(name, _)| name != "host") {
        sent.headers.push(("host".to_owned(), HOST_SENT.into()));
    }
    sent
}

fn converse() -> Sent {
    Sent {
        method: "POST".to_owned(),
        path: "/bedrock/model/us.anthropic.claude-v1%3A0/converse".to_owned(),
        query: String::new(),
        headers: vec![("content-type".to_owned(), b"application/json".to_vec())],
        body: b"{}".to_vec(),
    }
}

const HEADER: How = How { presigned: false, body_hash_header: false, token: false };
const PRESIGNED: How = How { presigned: true, ..HEADER };

fn any_request() -> impl Strategy<Value = Sent> {
    let header = ("x-amzn-bedrock-[a-z]{1,6}|mcp-session-id|[b-g]{3,8}-[a-z]{1,3}", "[!-~]([ -~]{0,18}[!-~])?");
    (
        prop_oneof![Just("GET"), Just("POST"), Just("PUT"), Just("DELETE")],
        path(),
        query(),
        proptest::collection::btree_map(header.0, header.1, 1..5),
        proptest::collection::vec(any::<u8>(), 1..100),
    )
        .prop_map(|(method, path, query, headers, body)| Sent {
            method: method.to_owned(),
            path,
            query,
            headers: headers.into_iter().map(|(name, value)| (name, value.into_bytes())).collect(),
            body,
        })
}

fn any_how() -> impl Strategy<Value = How> {
    (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(presigned, body_hash_header, token)| How {
        presigned,
        body_hash_header,
        token,
    })
}

/// Changes one character into another of the same sort.
fn change(text: &mut [u8], at: Index, by: u8) {
    if text.is_empty() {
        return;
    }
    let at = at.index(text.len());
    let turn = |byte: u8, first: u8, count: u8| first + (byte - first + 1 + by % (count - 1)) % count;
    text[at] = match text[at] {
        byte @ b'0'..=b'9' => turn(byte, b'0', 10),
        byte @ b'a'..=b'z' => turn(byte, b'a', 26),
        byte @ b'A'..=b'Z' => turn(byte, b'A', 26),
        _ => b'x',
    };
}

fn change_text(text: &mut String, at: Index, by: u8) {
    let mut bytes = std::mem::take(text).into_bytes();
    change(&mut bytes, at, by);
    *text = String::from_utf8(bytes).unwrap();
}

/// Changes one character of what a part of the signature says, wherever the signature is.
fn change_parameter(sent: &mut Sent, header: &str, parameter: &str, at: Index, by: u8) {
    let find = |text: &str, name: &str, end: char| {
        let from = text.find(name).unwrap() + name.len();
        let length = text[from..].find(end).unwrap_or(text.len() - from);
        from..from + length
    };
    if sent.headers.iter().any(|(name, _)| name == "authorization") {
        let value = sent.header("authorization");
        let range = find(std::str::from_utf8(value).unwrap(), header, ',');
        change(&mut value[range], at, by);
    } else {
        let range = find(&sent.query, parameter, '&');
        let mut bytes = std::mem::take(&mut sent.query).into_bytes();
        change(&mut bytes[range], at, by);
        sent.query = String::from_utf8(bytes).unwrap();
    }
}

/// Every way in which one byte can be another than the signed one.
fn changed(sent: &Sent, at: Index, by: u8) -> Vec<(&'static str, Sent)> {
    let with = |what: &'static str, change: &dyn Fn(&mut Sent)| {
        let mut sent = sent.clone();
        change(&mut sent);
        (what, sent)
    };
    let scope = format!("{ID}/");
    vec![
        with("method", &|sent| change_text(&mut sent.method, at, by)),
        with("path", &|sent| change_text(&mut sent.path, at, by)),
        with("a longer path", &|sent| sent.path.push('/')),
        with("query", &|sent| change_text(&mut sent.query, at, by)),
        with("a longer query", &|sent| sent.query.push_str("&a=1")),
        with("host", &|sent| change(sent.header("host"), at, by)),
        with("date", &|sent| {
            if sent.headers.iter().any(|(name, _)| name == "x-amz-date") {
                change(sent.header("x-amz-date"), at, by);
            } else {
                change_parameter(sent, "", "X-Amz-Date=", at, by);
            }
        }),
        with("header", &|sent| change(&mut sent.headers[0].1, at, by)),
        with("name of a header", &|sent| change_text(&mut sent.headers[0].0, at, by)),
        with("a second value", &|sent| {
            let name = sent.headers[0].0.clone();
            sent.headers.push((name, b"x".to_vec()));
        }),
        with("body", &|sent| {
            let at = at.index(sent.body.len());
            sent.body[at] ^= by % 255 + 1;
        }),
        with("a longer body", &|sent| sent.body.push(by)),
        with("scope", &|sent| change_parameter(sent, &scope, &format!("{ID}%2F"), at, by)),
        with("signature", &|sent| change_parameter(sent, "Signature=", "X-Amz-Signature=", at, by)),
        with("signed headers", &|sent| change_parameter(sent, "SignedHeaders=", "X-Amz-SignedHeaders=", at, by)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_the_aws_sigv4_crate_signs_is_accepted_and_one_other_byte_anywhere_is_not(
        unsigned in any_request(), how in any_how(), at in any::<Index>(), by in any::<u8>(),
    ) {
        let sent = sign(how, &unsigned, HOST_SENT);
        prop_assert_eq!(sent.refusal(), None, "{:?}", sent);
        prop_assert_eq!(sent.verified(NOW, "another secret").err(), Some(SignatureError::Mismatch));
        for (what, changed) in changed(&sent, at, by) {
            // `%2f` and `%2F` are the same query.
            let same_query = canonical_query(&changed.query) == canonical_query(&sent.query);
            if changed == sent || (what == "query" && same_query) {
                continue;
            }
            prop_assert!(changed.refusal().is_some(), "{} is not covered: {:?}", what, changed);
        }
    }

    #[test]
    fn nothing_that_is_sent_makes_the_verifier_panic(
        authorization in "(AWS4-HMAC-SHA256 )?(Credential=|SignedHeaders=|Signature=|[ -~]|\\PC){0,9}", date in ".*",
        query in "(&?(X-Amz-[A-Za-z]{3,9}|\\PC{0,3})=?(%[0-9a-fA-F]{0,2}|[ -~]|\\PC){0,6}){0,9}", key in "\\PC*",
    ) {
        drop(Claim::from_header(&authorization, Some(&date)));
        drop(Claim::from_query(&query));
        drop(credential_in_query(&query));
        prop_assert!(without_signature_parameters(&query).len() <= query.len());
        let sent = Sent { query, ..converse() }.with("authorization", &authorization).with("x-amz-date", &date);
        prop_assert!(sent.verified(NOW, &key).is_err());
    }
}

#[test]
fn the_signing_test_suite_of_aws_is_verified() {
    let suite: serde_json::Value =
        serde_json::from_str(include_str!("../../../../tests/fixtures/sigv4/aws_signing_test_suite.json")).unwrap();
    let mut verified = 0;
    for case in suite["cases"].as_array().unwrap() {
        let text = |field: &str| case[field].as_str().unwrap();
        if text("name").ends_with("-normalized") {
            continue;
        }
        let headers: Vec<(String, String)> = serde_json::from_value(case["headers"].clone()).unwrap();
        let claim = Claim::from_header(text("authorization"), Some(text("amz_date"))).unwrap();
        assert_eq!(claim.check_time(&SigningTime::from_unix_seconds(1_440_938_160)), Ok(()));
        let lower: Vec<(String, &str)> = headers.iter().map(|(name, value)| (name.to_lowercase(), &**value)).collect();
        let lower: Vec<(&str, &[u8])> = lower.iter().map(|(name, value)| (&**name, value.as_bytes())).collect();
        let mut hasher = PayloadHasher::new();
        hasher.update(text("body").as_bytes());
        let empty = PayloadHasher::new().finish_hex();
        let sha256 = if text("payload") == &*empty { empty } else { hasher.finish_hex() };
        let request = ReceivedRequest {
            method: text("method"),
            path: text("path"),
            query: text("query"),
            headers: &lower,
            payload: Payload::Sha256(&sha256),
            service: text("service"),
            headers_read: &[],
        };
        let secret = Secret::new(text("secret_access_key"));
        let key = Arc::new(SigningKey::derive(&secret, claim.day(), claim.scope()));
        let result = claim.verify(Arc::clone(&key), &request);
        assert!(result.is_ok(), "{}: {:?}", text("name"), result.err());
        let other = ReceivedRequest { method: "PATCH", ..request };
        assert_eq!(claim.verify(key, &other).err(), Some(SignatureError::Mismatch), "{}", text("name"));
        verified += 1;
    }
    assert_eq!(verified, 31, "the suite has shrunk");
}

#[test]
fn a_signature_is_of_now() {
    let (header, presigned) = (sign(HEADER, &converse(), HOST_SENT), sign(PRESIGNED, &converse(), HOST_SENT));
    for (sent, earliest, latest) in [(&header, NOW - 300, NOW + 300), (&presigned, NOW - 300, NOW + 900)] {
        for at in [earliest, NOW, latest] {
            assert_eq!(sent.verified(at, SECRET).err(), None);
        }
        for at in [earliest - 1, latest + 1, 0, u64::MAX] {
            let refusal = sent.verified(at, SECRET).err().unwrap();
            assert_eq!(refusal.reason(), "signature_expired", "{at}");
        }
    }
    let told = header.verified(NOW + 301, SECRET).err().unwrap().to_string();
    assert!(told.contains("20261122T191654Z") && told.contains("20261122T192155Z"), "{told}");
}

#[test]
fn what_matters_upstream_has_to_be_signed() {
    let signed = sign(HEADER, &converse(), HOST_SENT);
    for (name, expected) in [
        ("x-amz-target", false),
        ("x-amz-security-token", false),
        ("x-amzn-bedrock-guardrailidentifier", false),
        ("anthropic-beta", false),
        ("mcp-session-id", false),
        ("accept", true),
        ("user-agent", true),
        ("x-amzn-trace-id", true),
        ("x-forwarded-for", true),
    ] {
        let refusal = signed.clone().with(name, "x").refusal();
        let not_signed = Some(SignatureError::HeaderNotSigned(name.to_owned()));
        assert_eq!(refusal, if expected { None } else { not_signed }, "{name}");
    }
    assert_eq!(
        signed.clone().without("content-type").refusal(),
        Some(SignatureError::SignedHeaderMissing("content-type".to_owned()))
    );
    let mut no_text = signed.clone();
    *no_text.header("content-type") = vec![0xff];
    assert_eq!(no_text.refusal(), Some(SignatureError::SignedHeaderUnreadable("content-type".to_owned())));
    let mut hostless = signed;
    let value = String::from_utf8(hostless.header("authorization").clone()).unwrap();
    *hostless.header("authorization") = value.replace("content-type;host;", "content-type;").into_bytes();
    assert_eq!(hostless.refusal(), Some(SignatureError::HostNotSigned));
}

#[test]
fn a_host_may_be_signed_without_the_port_it_is_sent_with_and_no_other_way_around() {
    let bare = sign(HEADER, &converse(), "127.0.0.1").without("host");
    assert_eq!(bare.clone().with("host", "127.0.0.1:4000").refusal(), None);
    assert_eq!(bare.clone().with("host", "127.0.0.1").refusal(), None);
    for host in ["127.0.0.2:4000", "127.0.0.1:x", "127.0.0.1:", "127.0.0.1:4000:4000"] {
        assert_eq!(bare.clone().with("host", host).refusal(), Some(SignatureError::Mismatch), "{host}");
    }
    let full = sign(HEADER, &converse(), "127.0.0.1:4000").without("host");
    assert_eq!(full.clone().with("host", "127.0.0.1:4000").refusal(), None);
    for host in ["127.0.0.1", "127.0.0.1:4001"] {
        assert_eq!(full.clone().with("host", host).refusal(), Some(SignatureError::Mismatch), "{host}");
    }
}

/// Signs with our own signer what no SDK signs.
fn signed_with(headers: &[(&str, &str)], payload: &str) -> Sent {
    let time = SigningTime::from_unix_seconds(NOW);
    let scope = Scope { region: "eu-west-1", service: "bedrock" };
    let all: Vec<_> = headers.iter().copied().chain([("x-amz-date", time.amz_date())]).collect();
    let request = SignableRequest {
        method: "POST",
        path: &converse().path,
        query: "",
        headers: &all,
        payload_sha256_hex: payload,
    };
    let credentials = crate::aws::sigv4::SigningCredentials {
        access_key_id: ID.to_owned(),
        secret_access_key: Secret::new(SECRET),
        session_token: None,
    };
    let authorization = crate::aws::sigv4::Signer::new().authorization(&credentials, &time, scope, &request);
    let sent = Sent { headers: Vec::new(), ..converse() }.with("authorization", &authorization);
    all.iter().fold(sent, |sent, (name, value)| sent.with(name, value))
}

#[test]
fn the_declared_hash_is_that_of_the_body_or_a_word_that_is_allowed() {
    let host = ("host", HOST_SENT);
    let mut hasher = PayloadHasher::new();
    hasher.update(b"{}");
    let right = hasher.finish_hex();
    for (declared, expected) in [
        (&*right, None),
        ("UNSIGNED-PAYLOAD", None),
        (STREAMING_EVENTS_PAYLOAD, Some(SignatureError::PayloadMismatch)),
        ("STREAMING-UNSIGNED-PAYLOAD-TRAILER", Some(SignatureError::PayloadMismatch)),
        (EMPTY_PAYLOAD_SHA256, Some(SignatureError::PayloadMismatch)),
        ("", Some(SignatureError::PayloadMismatch)),
    ] {
        assert_eq!(signed_with(&[host, (CONTENT_SHA256, declared)], declared).refusal(), expected, "{declared}");
    }
    let twice = signed_with(&[host, (CONTENT_SHA256, &right), (CONTENT_SHA256, &right)], &right);
    assert_eq!(twice.refusal(), Some(SignatureError::PayloadMismatch));
    let authority = signed_with(&[(":authority", HOST_SENT)], &right);
    assert_eq!(authority.refusal(), None);
}

#[test]
fn only_a_header_in_the_form_of_aws_is_read() {
    let hex = "a".repeat(64);
    let date = Some("20261122T191654Z");
    let good = format!(
        "AWS4-HMAC-SHA256 Credential={ID}/20261122/us-east-1/bedrock/aws4_request, SignedHeaders=host;x-amz-date, Signature={hex}"
    );
    assert!(Claim::from_header(&good, date).is_ok());
    assert!(Claim::from_header(&good.replace(", ", ","), date).is_ok());
    for bad_date in [None, Some(""), Some("20261123T191654Z"), Some("2026-11-22")] {
        assert_eq!(Claim::from_header(&good, bad_date), Err(SignatureError::NoDate), "{bad_date:?}");
    }
    let many: Vec<String> = (0..101).map(|number| format!("h{number:03}")).collect();
    for (from, to) in [
        ("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"),
        ("us-east-1/", ""),
        ("us-east-1", ""),
        ("us-east-1", "US-EAST-1"),
        ("us-east-1", &"a".repeat(65)),
        ("aws4_request", "aws4_request/x"),
        ("aws4_request", "aws_request"),
        ("host;x-amz-date", ""),
        ("host;x-amz-date", "x-amz-date;host"),
        ("host;x-amz-date", "host;host"),
        ("host;x-amz-date", "Host"),
        ("host;x-amz-date", "host;"),
        ("host;x-amz-date", &many.join(";")),
        ("host;x-amz-date", &"h".repeat(9_000)),
        (&*hex, ""),
        (&*hex, &"A".repeat(64)),
        (&*hex, &"a".repeat(63)),
        (", Signature", ", Signatur"),
        (", Signature", ", Signature=x, Signature"),
    ] {
        let text = good.replace(from, to);
        assert!(matches!(Claim::from_header(&text, date), Err(SignatureError::Malformed(_))), "{from} -> {to}");
    }
}

#[test]
fn only_a_query_in_the_form_of_aws_is_read() {
    let hex = "a".repeat(64);
    let good = format!(
        "a=1&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={ID}%2F20261122%2Fus-east-1%2Fbedrock%2Faws4_request\
         &X-Amz-Date=20261122T191654Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature={hex}&b=2"
    );
    assert_eq!(Claim::from_query(&good).unwrap().access_key_id, ID);
    assert_eq!(credential_in_query(&good).as_deref(), Some(ID));
    assert_eq!(without_signature_parameters(&good), "a=1&b=2");
    assert_eq!(without_signature_parameters("x-amz-a&%58-Amz-b=1&c"), "c");
    for (from, to) in [
        ("Expires=60", "Expires=0"),
        ("Expires=60", "Expires=604801"),
        ("Expires=60", "Expires=-1"),
        ("Expires=60", "Expires=%2B6"),
        ("Expires=60", "Expires=99999999999999999999"),
        ("&X-Amz-Expires=60", ""),
        ("AWS4-HMAC-SHA256", "AWS4"),
        ("&b=2", "&x-amz-signature=0"),
        ("&b=2", "&%58-Amz-Date=20261122T191654Z"),
        (ID, "%ff"),
        ("20261122T", "20261121T"),
    ] {
        assert!(Claim::from_query(&good.replace(from, to)).is_err(), "{from} -> {to}");
    }
    assert!(Claim::from_query("").is_err());
    for query in ["", "a=1", "X-Amz-Credential=", "X-Amz-Credential=%ff%2F", "X-Amz-Credential=AKIA"] {
        assert_eq!(credential_in_query(query), None, "{query}");
    }
}

#[test]
fn a_stream_needs_signed_frames_and_only_a_stream_has_them() {
    let sent =
        signed_with(&[("host", HOST_SENT), (CONTENT_SHA256, STREAMING_EVENTS_PAYLOAD)], STREAMING_EVENTS_PAYLOAD);
    let unsigned = signed_with(&[("host", HOST_SENT), (CONTENT_SHA256, UNSIGNED_PAYLOAD)], UNSIGNED_PAYLOAD);
    let silent = |payload| signed_with(&[("host", HOST_SENT)], payload);
    for (sent, expected) in [
        (sent, None),
        (silent(EMPTY_PAYLOAD_SHA256), None),
        (silent(UNSIGNED_PAYLOAD), Some(SignatureError::Mismatch)),
        (unsigned, Some(SignatureError::FramesNotSigned)),
    ] {
        let text = |name: &str| {
            let (_, value) = sent.headers.iter().find(|(sent, _)| sent == name).unwrap();
            std::str::from_utf8(value).unwrap()
        };
        let claim = Claim::from_header(text("authorization"), Some(text("x-amz-date"))).unwrap();
        let key = Arc::new(SigningKey::derive(&Secret::new(SECRET), claim.day(), claim.scope()));
        let headers: Vec<_> = sent.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        let request = ReceivedRequest {
            method: &sent.method,
            path: &sent.path,
            query: "",
            headers: &headers,
            payload: Payload::SignedFrames,
            service: "bedrock",
            headers_read: &[],
        };
        assert_eq!(claim.verify(Arc::clone(&key), &request).err(), expected);
        let other = ReceivedRequest { service: "bedrock-agentcore", ..request };
        assert_eq!(claim.verify(key, &other).err().map(|error| error.reason()), Some("signature_malformed"));
    }
}

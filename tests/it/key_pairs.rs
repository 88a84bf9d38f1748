//! Key pairs, end to end: requests signed by the `aws-sigv4` crate are served and counted on their key, and nothing that
//! was changed on the way reaches the upstream. No secret crosses the wire, so none of it is anywhere to be read.

use std::time::{Duration, SystemTime};

use aws_sigv4::http_request::{PayloadChecksumKind, SignableBody, SignatureLocation, SigningSettings};
use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use dheera_ai::aws::sigv4::{PayloadHasher, Scope, SignableRequest, Signer, SigningCredentials, SigningTime};
use dheera_ai::types::secret::Secret;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::support::{
    Answer, Asked, Entry, Http, Key, Plan, Raw, Stand, Store, call, converse, eventually, frame_header, frames,
    on_both_stores, whole,
};

on_both_stores! {
    a_pair_signs_and_its_key_pays,
    a_pair_is_replaced_and_removed_with_its_key,
    another_salt_key_opens_nothing,
}

const SALT_KEY: &str = "a-salt-key-of-these-tests-0123456789";
const STREAMING: &str = "STREAMING-AWS4-HMAC-SHA256-EVENTS";

/// A key and its pair.
struct Pair {
    key: Key,
    id: String,
    secret: String,
}

impl Pair {
    fn of(made: &Value) -> Self {
        let text = |name: &str| made[name].as_str().unwrap_or_else(|| panic!("{name} of {made}")).to_owned();
        Self {
            key: Key { secret: made["key"].as_str().unwrap_or_default().to_owned(), id: text("key_id") },
            id: text("aws_access_key_id"),
            secret: text("aws_secret_access_key"),
        }
    }
}

async fn stand(store: Store) -> Stand {
    let mut plan = Plan::new(store);
    plan.entries.push(Entry::new("sonic", "bedrock/amazon.nova-2-sonic-v1:0"));
    plan.variables.push(("DHEERA_AI_SALT_KEY", SALT_KEY.to_owned()));
    plan.start().await
}

async fn make(stand: &Stand, mut fields: Value) -> Pair {
    fields["sigv4"] = json!(true);
    Pair::of(&stand.post("/key/generate", &fields).await)
}

/// How a request is signed.
#[derive(Debug, Clone, Copy)]
enum How {
    Header,
    WithBodyHash,
    UnsignedPayload,
    Presigned,
    /// An hour ago, for a minute.
    PresignedLongAgo,
    LongAgo,
}

/// The same request, signed by the crate that the AWS SDK for Rust signs with.
fn signed(pair: &Pair, asked: &Asked, how: How) -> Asked {
    let identity = aws_credential_types::Credentials::new(&pair.id, &pair.secret, None, None, "test").into();
    let mut settings = SigningSettings::default();
    if matches!(how, How::WithBodyHash | How::UnsignedPayload) {
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    }
    if matches!(how, How::Presigned | How::PresignedLongAgo) {
        settings.signature_location = SignatureLocation::QueryParams;
        settings.expires_in = Some(Duration::from_mins(1));
    }
    let ago = if matches!(how, How::LongAgo | How::PresignedLongAgo) { 3_600 } else { 0 };
    let params = aws_sigv4::sign::v4::SigningParams::builder()
        .identity(&identity)
        .region("eu-central-1")
        .name("bedrock")
        .time(SystemTime::now() - Duration::from_secs(ago))
        .settings(settings)
        .build()
        .unwrap()
        .into();
    let mut asked = asked.clone();
    asked.headers.retain(|(name, _)| name != "authorization");
    let uri = format!("http://proxy.test{}", asked.path);
    let headers = asked.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let body = match how {
        How::UnsignedPayload => SignableBody::UnsignedPayload,
        _ => SignableBody::Bytes(&asked.body),
    };
    let signable = aws_sigv4::http_request::SignableRequest::new(asked.method.as_str(), &*uri, headers, body).unwrap();
    let (instructions, _) = aws_sigv4::http_request::sign(signable, &params).unwrap().into_parts();
    let mut request = Request::builder().uri(&uri).body(()).unwrap();
    instructions.apply_to_request_http1x(&mut request);
    asked.path = request.uri().path_and_query().unwrap().to_string();
    for (name, value) in request.headers() {
        asked.headers.push((name.to_string(), value.to_str().unwrap().to_owned()));
    }
    asked
}

fn asked() -> Asked {
    converse("claude", "converse", 50)
}

async fn served(stand: &Stand, asked: &Asked) -> Answer {
    let answer = stand.proxy().call(asked).await;
    assert_eq!(answer.status, 200, "{asked:?}: {answer:?}");
    answer
}

/// Refused with this reason, and nothing reaches the simulator.
async fn refused(stand: &Stand, what: &str, asked: &Asked, reason: &str) -> String {
    let before = stand.simulator.counters().requests;
    let answer = stand.proxy().call(asked).await;
    assert_eq!(
        (answer.status, answer.header("x-amzn-errortype")),
        (403, Some("AccessDeniedException")),
        "{what}: {answer:?}"
    );
    let record = stand.proxy().record(answer.call_id()).await;
    assert_eq!((&record["reason"], &record["fault"]), (&json!(reason), &json!("client")), "{what}: {record}");
    assert_eq!(record["key_id"], Value::Null, "{what}: the name of a key that nobody has proven to hold");
    assert_eq!(stand.simulator.counters().requests, before, "{what}");
    answer.json()["message"].as_str().unwrap().to_owned()
}

async fn a_pair_signs_and_its_key_pays(store: Store) {
    let mut stand = stand(store).await;
    let pair = make(&stand, json!({ "key_alias": "signer", "max_budget": 1 })).await;
    for how in [How::Header, How::WithBodyHash, How::UnsignedPayload, How::Presigned] {
        let answer = served(&stand, &signed(&pair, &asked(), how)).await;
        let record = stand.proxy().record(answer.call_id()).await;
        assert_eq!((&record["key_id"], &record["key_alias"]), (&json!(pair.key.id), &json!("signer")), "{how:?}");
        let upstream = stand.simulator.requests().pop().unwrap();
        assert!(upstream.auth.ok && upstream.violations.is_empty(), "{how:?}: {upstream:?}");
        assert!(!format!("{upstream:?}").contains("DHAK"), "{how:?}: {upstream:?}");
    }
    assert!(stand.spent(&pair.key).await > 0);
    // The same pair after a restart, for a read that is not a POST, and the key as such.
    stand.restart(0).await;
    served(&stand, &signed(&pair, &asked(), How::Header)).await;
    served(&stand, &signed(&pair, &Asked::get("/bedrock/guardrails?maxResults=3").bare(), How::Presigned)).await;
    let upstream = stand.simulator.requests().pop().unwrap();
    assert!(!format!("{upstream:?}").to_lowercase().contains("x-amz-expires"), "{upstream:?}");
    assert_eq!(stand.call(&pair.key, &asked()).await.status, 200);
    no_secret_is_shown(&stand, &pair).await;
}

/// Neither in what the management API answers later, nor in records, log or metrics.
async fn no_secret_is_shown(stand: &Stand, pair: &Pair) {
    let info = stand.get(&format!("/key/info?key={}", pair.id)).await;
    assert_eq!(info["info"]["aws_access_key_id"], json!(pair.id), "{info}");
    let list = stand.get("/key/list?return_full_object=true").await;
    assert!(list.to_string().contains(&pair.id), "{list}");
    let updated = stand.post("/key/update", &json!({ "key": pair.key.id, "sigv4": true, "rpm_limit": 100 })).await;
    assert_eq!(updated["aws_access_key_id"], json!(pair.id), "it had one already: {updated}");
    let metrics = stand.proxy().call(&Asked::get("/metrics")).await.text();
    let said = [info.to_string(), list.to_string(), updated.to_string(), metrics];
    for text in said.iter().chain([&stand.proxy().stdout(), &stand.proxy().stderr()]) {
        assert!(!text.contains(&pair.secret), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_changed_on_the_way_is_refused_and_goes_nowhere() {
    let stand = stand(Store::Embedded).await;
    let pair = make(&stand, json!({})).await;
    let right = signed(&pair, &asked().with("x-amzn-bedrock-trace", "ENABLED"), How::Header);
    served(&stand, &right).await;
    let header = |name: &str, to: &str| {
        let mut asked = right.clone();
        asked.headers.iter_mut().find(|(sent, _)| sent == name).unwrap().1 = to.to_owned();
        asked
    };
    let other_body = Asked {
        body: Bytes::from(String::from_utf8(right.body.to_vec()).unwrap().replace("Hello", "Hullo")),
        ..right.clone()
    };
    let mismatch = "signature_mismatch";
    for (what, asked, reason) in [
        ("path", Asked { path: right.path.replace("claude", "nova"), ..right.clone() }, mismatch),
        ("prefix", Asked { path: right.path.replace("/bedrock", ""), ..right.clone() }, mismatch),
        ("query", Asked { path: format!("{}?a=1", right.path), ..right.clone() }, mismatch),
        ("body", other_body, mismatch),
        ("header", header("x-amzn-bedrock-trace", "DISABLED"), mismatch),
        ("added header", right.clone().with("x-amzn-bedrock-guardrailidentifier", "g"), "signature_incomplete"),
        ("end user", right.clone().with("x-dheera-ai-end-user-id", "another"), "signature_incomplete"),
        ("tags", right.clone().with("x-litellm-tags", "another"), "signature_incomplete"),
        ("date", header("x-amz-date", "20200101T000000Z"), "signature_malformed"),
        (
            "form",
            header(
                "authorization",
                &format!("AWS4-HMAC-SHA256 Credential={}/20261122/us-east-1/bedrock/aws4_request", pair.id),
            ),
            "signature_malformed",
        ),
        ("time", signed(&pair, &asked(), How::LongAgo), "signature_expired"),
        ("presigned time", signed(&pair, &asked(), How::PresignedLongAgo), "signature_expired"),
        ("secret", signed(&Pair { secret: "another".to_owned(), ..copy(&pair) }, &asked(), How::Header), mismatch),
        (
            "unknown id",
            signed(&Pair { id: "DHAKABCDEFGHIJKLMNOP".to_owned(), ..copy(&pair) }, &asked(), How::Header),
            "key_unknown",
        ),
        ("id as bearer token", asked().by(&pair.id), "key_unknown"),
        ("secret as bearer token", asked().by(&pair.secret), "key_unknown"),
    ] {
        let message = refused(&stand, what, &asked, reason).await;
        assert!(!message.contains(&pair.secret) && message.len() > 20, "{what}: {message}");
    }
    let mut presigned = signed(&pair, &asked(), How::Presigned);
    presigned.path = presigned.path.replace("Expires=60", "Expires=61");
    refused(&stand, "presigned for longer", &presigned, mismatch).await;
    let page = stand.proxy().call(&signed(&pair, &Asked::get("/key/info").bare(), How::Header)).await;
    page.assert_error(403, "AccessDeniedException");
    assert!(page.json()["message"].as_str().unwrap().contains("Send the key itself"), "{page:?}");
    stand.post("/key/block", &json!({ "key": pair.key.id })).await;
    refused(&stand, "blocked", &signed(&pair, &asked(), How::Header), "key_blocked").await;
}

/// Who knows no more than an id could sign nothing, and may take a quarter of the room for bodies; who knows nothing gets
/// none of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_keeps_others_out_with_bodies_that_never_come() {
    let mut plan = Plan::new(Store::Embedded);
    plan.variables.push(("DHEERA_AI_SALT_KEY", SALT_KEY.to_owned()));
    plan.rest = "general_settings:\n  max_request_size_mb: 1\n  max_buffered_size_mb: 8\n";
    let stand = plan.start().await;
    let pair = make(&stand, json!({})).await;
    let mut forged = signed(&pair, &asked(), How::Header);
    forged.headers.retain(|(name, _)| name != "host");
    let heads: Vec<String> = forged.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let heads = heads.concat();
    let rest = "Host: proxy.test\r\nContent-Length: 1000000\r\n";
    let mut silent = Vec::new();
    for _ in 0..10 {
        let mut unknown = Raw::open(stand.proxy().address).await;
        assert!(unknown.write(format!("POST /key/generate HTTP/1.1\r\n{rest}\r\n")).await);
        assert_eq!(unknown.answer().await.map(|answer| answer.status), Some(403));
        let mut unproven = Raw::open(stand.proxy().address).await;
        assert!(unproven.write(format!("POST {} HTTP/1.1\r\n{heads}{rest}\r\n", forged.path)).await);
        silent.push((unknown, unproven));
    }
    // Two bodies fit into a quarter of the room.
    let full = |record: &Value| record["reason"] == "buffer_full";
    let refused = || (stand.proxy().records().into_iter().filter(full).count() == 8).then_some(());
    eventually("eight refusals", refused).await;
    assert_eq!(stand.call(&pair.key, &asked()).await.status, 200);
}

fn copy(pair: &Pair) -> Pair {
    Pair { key: pair.key.clone(), id: pair.id.clone(), secret: pair.secret.clone() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http_2_the_authority_is_signed_under_either_name() {
    let stand = stand(Store::Embedded).await;
    let pair = make(&stand, json!({})).await;
    let body = asked().body;
    let mut hasher = PayloadHasher::new();
    hasher.update(&body);
    let sha256 = hasher.finish_hex();
    let sign = |name: &str, host: &str| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let time = SigningTime::from_unix_seconds(now);
        let credentials = SigningCredentials {
            access_key_id: pair.id.clone(),
            secret_access_key: Secret::new(pair.secret.clone()),
            session_token: None,
        };
        let authorization = Signer::new().authorization(
            &credentials,
            &time,
            Scope { region: "us-east-1", service: "bedrock" },
            &SignableRequest {
                method: "POST",
                path: &asked().path,
                query: "",
                headers: &[(name, host), ("x-amz-date", time.amz_date())],
                payload_sha256_hex: &sha256,
            },
        );
        Asked::post(&asked().path, body.clone())
            .bare()
            .with("authorization", &authorization)
            .with("x-amz-date", time.amz_date())
    };
    let (authority, host, other) =
        (sign(":authority", "proxy.test"), sign("host", "proxy.test"), sign(":authority", "x.test"));
    for (asked, status) in [(authority, 200), (host, 200), (other, 403)] {
        let answer = call(stand.proxy().address, Http::Two, &asked).await;
        assert_eq!(answer.status, status, "{asked:?}: {answer:?}");
    }
}

async fn a_pair_is_replaced_and_removed_with_its_key(store: Store) {
    let stand = stand(store).await;
    let first = make(&stand, json!({})).await;
    let renewed = stand.post("/key/regenerate", &json!({ "key": first.key.id, "grace_period": "1h" })).await;
    let second = Pair::of(&renewed);
    assert_ne!((&first.id, &first.secret), (&second.id, &second.secret));
    for pair in [&first, &second] {
        served(&stand, &signed(pair, &asked(), How::Header)).await;
    }
    let third = Pair::of(&stand.post("/key/regenerate", &json!({ "key": first.key.id })).await);
    refused(&stand, "without grace", &signed(&second, &asked(), How::Header), "key_unknown").await;
    for pair in [&first, &third] {
        served(&stand, &signed(pair, &asked(), How::Header)).await;
    }
    let none = stand.post("/key/update", &json!({ "key": first.key.id, "sigv4": false })).await;
    assert_eq!(none["aws_access_key_id"], Value::Null, "{none}");
    for pair in [&first, &third] {
        refused(&stand, "removed", &signed(pair, &asked(), How::Header), "key_unknown").await;
    }
    let fourth = Pair::of(&stand.post("/key/update", &json!({ "key": first.key.id, "sigv4": true })).await);
    served(&stand, &signed(&fourth, &asked(), How::Header)).await;
    stand.post("/key/delete", &json!({ "keys": [fourth.id] })).await;
    refused(&stand, "deleted", &signed(&fourth, &asked(), How::Header), "key_unknown").await;
}

async fn another_salt_key_opens_nothing(store: Store) {
    let mut stand = stand(store).await;
    let pair = make(&stand, json!({})).await;
    stand.set("DHEERA_AI_SALT_KEY", "another-salt-key-0123456789");
    stand.restart(0).await;
    refused(&stand, "another salt key", &signed(&pair, &asked(), How::Header), "key_unsealable").await;
    let said = stand.proxy().stderr();
    assert!(said.contains("another salt key") && said.contains(&pair.id) && !said.contains(&pair.secret), "{said}");
    stand.set("DHEERA_AI_SALT_KEY", "");
    stand.restart(0).await;
    refused(&stand, "no salt key", &signed(&pair, &asked(), How::Header), "key_unsealable").await;
    let refusal = stand.proxy().call(&Asked::post("/key/generate", json!({ "sigv4": true }).to_string())).await;
    refusal.assert_error(400, "ValidationException");
    assert!(refusal.json()["message"].as_str().unwrap().contains("DHEERA_AI_SALT_KEY"), "{refusal:?}");
    stand.set("DHEERA_AI_SALT_KEY", SALT_KEY);
    stand.restart(0).await;
    served(&stand, &signed(&pair, &asked(), How::Header)).await;
}

/// Opens a bidirectional stream signed with the pair. Gives what its frames are chained to.
async fn open(
    stand: &Stand,
    pair: &Pair,
) -> (mpsc::Sender<Bytes>, tokio::task::JoinHandle<Response<Incoming>>, String) {
    let path = "/bedrock/model/sonic/invoke-with-bidirectional-stream";
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let time = SigningTime::from_unix_seconds(now);
    let credentials = SigningCredentials {
        access_key_id: pair.id.clone(),
        secret_access_key: Secret::new(pair.secret.clone()),
        session_token: None,
    };
    let headers = [(":authority", "proxy.test"), ("x-amz-date", time.amz_date()), ("x-amz-content-sha256", STREAMING)];
    let authorization = Signer::new().authorization(
        &credentials,
        &time,
        Scope { region: "us-east-1", service: "bedrock" },
        &SignableRequest { method: "POST", path, query: "", headers: &headers, payload_sha256_hex: STREAMING },
    );
    let stream = TcpStream::connect(stand.proxy().address).await.unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    let (body, pieces) = mpsc::channel::<Bytes>(4);
    let pieces = futures::stream::unfold(pieces, |mut pieces| async {
        let piece = pieces.recv().await?;
        Some((Ok::<_, std::io::Error>(Frame::data(piece)), pieces))
    });
    let request = Request::post(format!("http://proxy.test{path}"))
        .header("authorization", &authorization)
        .header("x-amz-date", time.amz_date())
        .header("x-amz-content-sha256", STREAMING)
        .header("content-type", "application/vnd.amazon.eventstream")
        .body(BodyExt::boxed_unsync(StreamBody::new(pieces)))
        .unwrap();
    let seed = authorization.rsplit_once("Signature=").unwrap().1.to_owned();
    (body, tokio::spawn(async move { sender.send_request(request).await.unwrap() }), seed)
}

/// Signs the frames of a stream as the AWS SDK for Rust does.
struct Frames<'p> {
    pair: &'p Pair,
    previous: String,
}

impl Frames<'_> {
    fn next(&mut self, message: Option<&Message>) -> Bytes {
        let identity =
            aws_credential_types::Credentials::new(&self.pair.id, &self.pair.secret, None, None, "test").into();
        let params = aws_sigv4::sign::v4::SigningParams::builder()
            .identity(&identity)
            .region("us-east-1")
            .name("bedrock")
            .time(SystemTime::now())
            .settings(())
            .build()
            .unwrap();
        let output = match message {
            Some(message) => aws_sigv4::event_stream::sign_message(message, &self.previous, &params).unwrap(),
            None => aws_sigv4::event_stream::sign_empty_message(&self.previous, &params).unwrap(),
        };
        let (message, signature) = output.into_parts();
        self.previous = signature;
        let mut bytes = Vec::new();
        write_message_to(&message, &mut bytes).unwrap();
        bytes.into()
    }
}

fn event(text: &str) -> Message {
    let event = json!({ "event": { "textInput": { "content": text } } });
    let payload = json!({ "bytes": BASE64_STANDARD.encode(event.to_string()) }).to_string();
    let text = |value: &'static str| HeaderValue::String(value.into());
    Message::new(payload)
        .add_header(Header::new(":event-type", text("chunk")))
        .add_header(Header::new(":message-type", text("event")))
        .add_header(Header::new(":content-type", text("application/json")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_frames_of_a_stream_are_verified_one_by_one() {
    let stand = stand(Store::Embedded).await;
    let pair = make(&stand, json!({})).await;
    let (body, response, seed) = open(&stand, &pair).await;
    let mut chain = Frames { pair: &pair, previous: seed };
    for frame in [chain.next(Some(&event("one"))), chain.next(Some(&event("two"))), chain.next(None)] {
        body.send(frame).await.unwrap();
    }
    drop(body);
    let answer = whole(response.await.unwrap()).await;
    let (got, rest) = frames(&answer.body);
    assert_eq!((answer.status, got.len(), rest, &answer.broke), (200, 4, 0, &None), "{answer:?}");
    assert_eq!(stand.proxy().record(answer.call_id()).await["key_id"], json!(pair.key.id));
    assert!(stand.simulator.requests().pop().unwrap().auth.ok);
    // A frame that is none of the chain, frames in another order, and a stream that was cut off.
    for case in ["forged", "swapped", "cut"] {
        let (body, response, seed) = open(&stand, &pair).await;
        let mut chain = Frames { pair: &pair, previous: seed.clone() };
        let (one, two) = (chain.next(Some(&event("one"))), chain.next(Some(&event("two"))));
        let sent = match case {
            "forged" => vec![one, Frames { pair: &pair, previous: seed }.next(Some(&event("forged")))],
            "swapped" => vec![two, one],
            _ => vec![one, two],
        };
        for frame in sent {
            // The proxy may have given up already.
            drop(body.send(frame).await);
        }
        drop(body);
        let answer = whole(response.await.unwrap()).await;
        if answer.status == 200 {
            let told = frames(&answer.body).0.iter().any(|frame| frame_header(frame, ":exception-type").is_some());
            assert!(told || answer.broke.is_some(), "{case}: {answer:?}");
        } else {
            answer.assert_error(403, "AccessDeniedException");
        }
        let record = stand.proxy().record(answer.call_id()).await;
        assert_eq!(
            (&record["reason"], &record["fault"]),
            (&json!("frame_signature"), &json!("client")),
            "{case}: {record}"
        );
        let upstream = format!("{:?}", stand.simulator.requests().pop());
        assert!(!upstream.contains("forged"), "{case}: {upstream}");
    }
}

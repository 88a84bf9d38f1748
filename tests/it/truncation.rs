//! Answers that break off. An event stream ends behind a whole frame, with an exception, wherever it was cut; an answer
//! that is not streamed becomes an error that no SDK repeats. What a client gets before is the upstream's, byte for byte.

use serde_json::{Value, json};

use crate::streams::{assert_recorded, streams};
use crate::support::{
    Answer, Asked, CLAUDE, CLAUDE_STREAM, Connection, Entry, Http, Rig, direct, frame_header, frames, rules, sha256,
};

/// Bytes of a frame that still arrive: none of the prelude's parts, half of the headers, of the payload, of the
/// checksum. A frame of these streams has some 90 bytes of headers; a number that is too large leaves all but one.
const CUTS: [(&str, Option<usize>); 6] = [
    ("in the lengths", Some(1)),
    ("in the prelude's checksum", Some(10)),
    ("behind the prelude", Some(12)),
    ("in the headers", Some(40)),
    ("in the payload", None),
    ("in the checksum", Some(usize::MAX)),
];

/// The whole stream of an operation, and the exception that ends it before its time.
struct Case {
    asked: Asked,
    exception: &'static str,
    whole: Answer,
}

async fn cases(rig: &Rig) -> Vec<Case> {
    rig.simulator.behave(rules(&json!([{ "frames": 12 }])));
    let mut cases = Vec::new();
    for (path, exception) in [
        ("/converse-stream", "serviceUnavailableException"),
        ("/invoke-with-response-stream", "serviceUnavailableException"),
        ("/sessions/s1/text", "internalServerException"),
    ] {
        let (signing_name, asked) = streams().into_iter().find(|(_, asked)| asked.path.ends_with(path)).unwrap();
        let whole = direct(&rig.simulator, &asked, signing_name).await;
        assert!(frames(&whole.body).0.len() >= 5, "{path}: {whole:?}");
        cases.push(Case { asked, exception, whole });
    }
    cases
}

impl Case {
    /// The first `count` frames of the whole stream, and behind them one exception.
    fn assert_ends_after(&self, answer: &Answer, count: usize, context: &str) {
        let context = format!("{} {context}: {answer:?}", self.asked.path);
        assert_eq!((answer.status, &answer.broke), (200, &None), "{context}");
        let (told, rest) = frames(&answer.body);
        assert_eq!((told.len(), rest), (count + 1, 0), "{context}");
        let bytes: usize = told[..count].iter().map(|frame| frame.raw_len).sum();
        assert_eq!(answer.body[..bytes], self.whole.body[..bytes], "{context}");
        let last = &told[count];
        assert_eq!(frame_header(last, ":message-type"), Some("exception"), "{context}");
        assert_eq!(frame_header(last, ":exception-type"), Some(self.exception), "{context}");
        let message: Value = serde_json::from_slice(&last.payload).unwrap();
        assert!(message["message"].as_str().is_some_and(|message| !message.is_empty()), "{context}");
    }
}

fn fault(rig: &Rig, fault: &Value) {
    rig.simulator.behave(rules(&json!([{ "frames": 12, "fault": fault }])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wherever_a_stream_is_cut_it_ends_with_whole_frames_and_one_exception() {
    let rig = Rig::start().await;
    for case in cases(&rig).await {
        for http in [Http::One, Http::Two] {
            for (place, bytes) in CUTS {
                for (after, clean) in [(0, false), (0, true), (3, false), (3, true)] {
                    let cut = json!({ "kind": "cut_mid_frame", "after_frames": after, "bytes": bytes, "clean": clean });
                    fault(&rig, &cut);
                    let answer = Connection::open(rig.proxy.address, http).await.call(&case.asked).await;
                    case.assert_ends_after(&answer, after, &format!("{place}, {http:?}, clean: {clean}"));
                }
            }
            for (kind, after) in [("cut", 3), ("reset", 3)] {
                fault(&rig, &json!({ "kind": kind, "after_frames": after }));
                let answer = Connection::open(rig.proxy.address, http).await.call(&case.asked).await;
                case.assert_ends_after(&answer, after, &format!("{kind} between frames, {http:?}"));
            }
        }
        fault(&rig, &json!({ "kind": "cut_mid_frame", "after_frames": 3, "clean": true }));
        let answer = rig.proxy.call(&case.asked).await;
        assert_recorded(&rig, &answer, "upstream_broke").await;
    }
}

/// A connection goes on after a stream that was ended for the client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_serves_on_behind_a_stream_that_was_ended() {
    let rig = Rig::start().await;
    let case = cases(&rig).await.remove(0);
    for http in [Http::One, Http::Two] {
        let mut connection = Connection::open(rig.proxy.address, http).await;
        for clean in [true, false] {
            fault(&rig, &json!({ "kind": "cut_mid_frame", "after_frames": 2, "clean": clean }));
            let answer = connection.call(&case.asked).await;
            case.assert_ends_after(&answer, 2, &format!("{http:?}, clean: {clean}"));
        }
        rig.simulator.behave(rules(&json!([{ "frames": 12 }])));
        let answer = connection.call(&case.asked).await;
        assert_eq!(sha256(&answer.body), sha256(&case.whole.body));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_falls_silent_inside_a_frame_is_no_trap() {
    let entry = Entry::new("claude", "bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0");
    let rig = Rig::with(&[entry], "general_settings:\n  upstream_idle_timeout: 0.2\n").await;
    for case in cases(&rig).await {
        for http in [Http::One, Http::Two] {
            for (after, bytes) in [(0, 5), (4, 30)] {
                fault(&rig, &json!({ "kind": "stall_mid_stream", "after_frames": after, "bytes": bytes }));
                let answer = Connection::open(rig.proxy.address, http).await.call(&case.asked).await;
                case.assert_ends_after(&answer, after, &format!("silent, {http:?}"));
            }
        }
    }
}

/// However the network cuts it, a stream arrives whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_trickles_in_arrives_byte_for_byte() {
    let rig = Rig::start().await;
    for case in cases(&rig).await {
        for http in [Http::One, Http::Two] {
            fault(&rig, &json!({ "kind": "slow_body", "bytes": 53, "interval_ms": 1 }));
            let answer = Connection::open(rig.proxy.address, http).await.call(&case.asked).await;
            assert_eq!((answer.status, &answer.broke), (200, &None));
            assert_eq!(sha256(&answer.body), sha256(&case.whole.body), "{} over {http:?}", case.asked.path);
        }
    }
}

/// What was served is billed, and a 5xx would have every SDK ask for it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_answer_that_breaks_off_is_an_error_that_is_not_repeated() {
    let rig = Rig::start().await;
    for http in [Http::One, Http::Two] {
        for kind in ["cut", "reset"] {
            let forwarded = rig.forwarded();
            fault(&rig, &json!({ "kind": kind, "after_frames": 1 }));
            let answer = Connection::open(rig.proxy.address, http).await.call(&Asked::converse(CLAUDE)).await;
            answer.assert_error(408, "ModelTimeoutException");
            assert_eq!((answer.header("x-should-retry"), &answer.broke), (Some("false"), &None), "{answer:?}");
            assert_eq!(rig.forwarded(), forwarded + 1, "{kind} over {http:?}: the call was made again");
            let record = rig.proxy.record(answer.call_id()).await;
            assert_eq!((&record["status"], &record["fault"]), (&json!(408), &json!("upstream")), "{record}");
            assert_eq!(record["reason"], "upstream_broke", "{record}");
            rig.simulator.behave(rules(&json!([])));
            rig.proxy.assert_serves(CLAUDE).await;
        }
    }
}

/// A large answer has begun to leave when its second half does not come: all that is left is an end that looks like none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_answer_that_never_ends_is_ended_abnormally() {
    let entry = Entry::new("claude", "bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0");
    let rig = Rig::with(&[entry], "general_settings:\n  upstream_idle_timeout: 1\n").await;
    let text = "x".repeat(1_000_000);
    rig.simulator.behave(rules(&json!([{ "text": text, "fault": { "kind": "stall_mid_stream", "after_frames": 1 } }])));
    for http in [Http::One, Http::Two] {
        let answer = Connection::open(rig.proxy.address, http).await.call(&Asked::converse(CLAUDE)).await;
        assert!(answer.status == 200 && answer.broke.is_some(), "{} {:?}", answer.status, answer.broke);
        let record = rig.proxy.record(answer.call_id()).await;
        assert_eq!(record["reason"], "upstream_timeout", "{record}");
    }
}

/// A compressed stream has no frames that could be told apart, so nothing can be added to it either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compressed_stream_that_breaks_off_ends_abnormally() {
    let rig = Rig::start().await;
    rig.simulator.behave(rules(&json!([{ "coding": "gzip", "fault": { "kind": "cut", "after_frames": 3 } }])));
    for http in [Http::One, Http::Two] {
        let answer = Connection::open(rig.proxy.address, http).await.call(&Asked::converse(CLAUDE_STREAM)).await;
        assert!(answer.status == 200 && answer.broke.is_some(), "{answer:?}");
        let record = rig.proxy.record(answer.call_id()).await;
        assert_eq!(record["reason"], "upstream_broke", "{record}");
        assert_ne!(record["usage_certainty"], "exact", "{record}");
    }
}

//! Streamed answers: the bytes that the upstream sent, when it sent them, and an end that no client can mistake.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Answer, Asked, CLAUDE, CLAUDE_STREAM, Connection, Entry, Http, Rig, direct, eventually, frame_header, frames,
    read_at_least, rules, sha256,
};

/// Every streaming operation that the simulator answers, with the name its signature is for.
pub fn streams() -> Vec<(&'static str, Asked)> {
    let model = "us.anthropic.claude-sonnet-4-5-20250929-v1:0";
    let text = json!({ "messages": [{ "role": "user", "content": [{ "text": "Tell me a story" }] }] }).to_string();
    let claude = json!({ "anthropic_version": "bedrock-2023-05-31", "max_tokens": 50, "model": model, "stream": true,
        "messages": [{ "role": "user", "content": "Tell me a story" }] })
    .to_string();
    let gpt = json!({ "model": "openai.gpt-oss-20b-1:0", "stream": true, "input": "Hi",
        "messages": [{ "role": "user", "content": "Tell me a story" }] })
    .to_string();
    let agent = json!({ "inputText": "Tell me a story", "enableTrace": true, "foundationModel": model }).to_string();
    let path = "/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0";
    let generate = json!({ "input": { "text": "Hi" }, "retrieveAndGenerateConfiguration": { "type": "KNOWLEDGE_BASE",
        "knowledgeBaseConfiguration": { "knowledgeBaseId": "KB1", "modelArn": model } } })
    .to_string();
    let flow =
        json!({ "inputs": [{ "content": { "document": "Hi" }, "nodeName": "in" }], "enableTrace": true }).to_string();
    let core = json!({ "messages": [{ "role": "user", "content": [{ "text": "Hi" }] }], "name": "executeCode",
        "model": { "bedrockModelConfig": { "modelId": model } }, "command": "ls" })
    .to_string();
    let runtime = "/runtimes/arn%3Aaws%3Abedrock-agentcore%3Aus-east-1%3A123456789012%3Aruntime%2Fr1";
    vec![
        ("bedrock", Asked::post(&format!("{path}/converse-stream"), text)),
        ("bedrock", Asked::post(&format!("{path}/invoke-with-response-stream"), claude.clone())),
        ("bedrock", Asked::post("/anthropic/v1/messages", claude)),
        ("bedrock", Asked::post("/openai/v1/chat/completions", gpt.clone())),
        ("bedrock", Asked::post("/openai/v1/responses", gpt)),
        ("bedrock", Asked::post("/agents/AGENT12345/agentAliases/ALIAS12345/sessions/s1/text", agent.clone())),
        ("bedrock", Asked::post("/agents/s1", agent)),
        ("bedrock", Asked::post("/flows/FLOW123456/aliases/ALIAS12345", flow)),
        ("bedrock", Asked::post("/retrieveAndGenerateStream", generate)),
        ("bedrock-agentcore", Asked::post("/harnesses/invoke", core.clone())),
        ("bedrock-agentcore", Asked::post(&format!("{runtime}/invocations"), core.clone())),
        ("bedrock-agentcore", Asked::post("/code-interpreters/ci-1/tools/invoke", core)),
    ]
}

fn claude_stream() -> Asked {
    Asked::converse(CLAUDE_STREAM)
}

/// InvokeModel's stream, whose first event states the input.
fn claude_invoke_stream() -> Asked {
    let body = json!({ "anthropic_version": "bedrock-2023-05-31", "max_tokens": 50,
        "messages": [{ "role": "user", "content": "Tell me a story of some length" }] });
    Asked::post("/bedrock/model/claude/invoke-with-response-stream", body.to_string())
}

fn fault(rig: &Rig, fault: Value) {
    let mut rule = json!({ "frames": 12 });
    rule["fault"] = fault;
    rig.simulator.behave(rules(&json!([rule])));
}

/// A proxy that does not read on for long when a client has left.
async fn impatient() -> Rig {
    let entry = Entry::new("claude", "bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0");
    Rig::with(&[entry], "general_settings: { drain_timeout: 0.2 }").await
}

/// What the operator is told of a stream that did not end well, and that the proxy goes on.
pub async fn assert_recorded(rig: &Rig, answer: &Answer, reason: &str) -> Value {
    let record = rig.proxy.record(answer.call_id()).await;
    assert_eq!((&record["fault"], &record["reason"]), (&json!("upstream"), &json!(reason)), "{record}");
    assert_ne!(record["usage_certainty"], "exact", "{record}");
    rig.simulator.behave(rules(&json!([])));
    rig.proxy.assert_serves(CLAUDE).await;
    record
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_stream_arrives_byte_for_byte() {
    let rig = Rig::start().await;
    for (frames, bytes) in [(40, 3), (7, 70_000)] {
        rig.simulator.behave(rules(&json!([{ "frames": frames, "frame_bytes": bytes }])));
        for (signing_name, asked) in streams() {
            let expected = direct(&rig.simulator, &asked, signing_name).await;
            assert_eq!((expected.status, &expected.broke), (200, &None), "{}: {expected:?}", asked.path);
            for http in [Http::One, Http::Two] {
                let answer = Connection::open(rig.proxy.address, http).await.call(&asked).await;
                assert_eq!((answer.status, &answer.broke), (200, &None), "{}", asked.path);
                assert_eq!(sha256(&answer.body), sha256(&expected.body), "{} over {http:?}", asked.path);
                assert_eq!(answer.header("content-type"), expected.header("content-type"), "{}", asked.path);
            }
        }
    }
}

/// The upstream sends so many frames and then waits for ever: they must be with the client although the next one was
/// not sent. No clock is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_that_arrives_is_a_frame_that_leaves() {
    let rig = impatient().await;
    for http in [Http::One, Http::Two] {
        for count in [1, 2, 5, 9] {
            rig.simulator.clear_requests();
            fault(&rig, json!({ "kind": "stall_mid_stream", "after_frames": count }));
            let mut connection = Connection::open(rig.proxy.address, http).await;
            let response = connection.begin(&claude_stream()).await;
            assert_eq!(response.status(), 200);
            let mut body = response.into_body();
            let mut seen = Vec::new();
            while frames(&seen).0.len() < count {
                seen.extend(read_at_least(&mut body, 1).await);
            }
            let request = rig.simulator.requests().remove(0);
            assert!(!request.finished, "{request:?}");
            assert_eq!((request.bytes_sent, frames(&seen).1), (seen.len() as u64, 0), "{count} over {http:?}");
        }
    }
    eventually_idle(&rig).await;
}

/// Waits until no request is in flight: clients that left are noticed.
async fn eventually_idle(rig: &Rig) {
    let mut in_flight = 1;
    for _ in 0..2_000 {
        in_flight = rig.proxy.metrics().await.sum("dheera_ai_requests_in_flight", &[]);
        // The scrape itself is a request.
        if in_flight <= 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{in_flight} requests are still in flight");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_sent_events_leave_as_they_arrive() {
    let rig = Rig::start().await;
    rig.simulator.behave(rules(&json!([{ "fault": { "kind": "stall_mid_stream", "after_frames": 3 }, "frames": 12 }])));
    let body =
        json!({ "model": "openai.gpt-oss-20b-1:0", "stream": true, "messages": [{ "role": "user", "content": "Hi" }] });
    let mut connection = Connection::open(rig.proxy.address, Http::One).await;
    let response = connection.begin(&Asked::post("/openai/v1/chat/completions", body.to_string())).await;
    let mut body = response.into_body();
    let mut seen = Vec::new();
    while String::from_utf8_lossy(&seen).matches("data: ").count() < 3 {
        seen.extend(read_at_least(&mut body, 1).await);
    }
    assert_eq!(rig.simulator.requests().remove(0).bytes_sent, seen.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exception_frame_passes_unchanged_and_is_recorded() {
    let rig = Rig::start().await;
    for after in [0, 1, 6] {
        let kind = json!({ "kind": "exception_frame", "after_frames": after, "name": "throttlingException", "message": "slow down" });
        fault(&rig, kind);
        let expected = direct(&rig.simulator, &Asked { path: plain_path(), ..claude_stream() }, "bedrock").await;
        let answer = rig.proxy.call(&claude_stream()).await;
        assert_eq!((answer.status, &answer.broke), (200, &None));
        assert_eq!(sha256(&answer.body), sha256(&expected.body));
        let (frames, rest) = frames(&answer.body);
        assert_eq!((frames.len(), rest), (after + 1, 0));
        assert_eq!(frame_header(&frames[after], ":exception-type"), Some("throttlingException"));
        let record = assert_recorded(&rig, &answer, "exception_frame").await;
        assert_eq!(record["error_type"], "throttlingException");
    }
}

fn plain_path() -> String {
    "/model/anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse-stream".to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_with_a_wrong_checksum_is_replaced_by_an_exception_that_ends_the_stream() {
    let rig = Rig::start().await;
    for frame in [0, 4, 13] {
        fault(&rig, json!({ "kind": "bad_crc", "frame": frame }));
        let expected = direct(&rig.simulator, &Asked { path: plain_path(), ..claude_stream() }, "bedrock").await;
        for http in [Http::One, Http::Two] {
            fault(&rig, json!({ "kind": "bad_crc", "frame": frame }));
            let answer = Connection::open(rig.proxy.address, http).await.call(&claude_stream()).await;
            assert_eq!((answer.status, &answer.broke), (200, &None), "frame {frame}: {answer:?}");
            let (frames, rest) = frames(&answer.body);
            assert_eq!((frames.len(), rest), (frame + 1, 0), "frame {frame}: {answer:?}");
            assert_eq!(frame_header(&frames[frame], ":exception-type"), Some("serviceUnavailableException"));
            let same = answer.body.iter().zip(expected.body.iter()).take_while(|(one, other)| one == other).count();
            assert!(frame == 0 || same > 100, "what came before is unchanged: {same} bytes");
            let record = assert_recorded(&rig, &answer, "upstream_broke").await;
            assert_ne!(record["usage_certainty"], "exact", "{record}");
            rig.proxy.assert_serves(CLAUDE).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_cut_between_frames_ends_with_an_exception_frame() {
    let rig = Rig::start().await;
    for kind in ["cut", "reset"] {
        for after in [1, 3, 7] {
            for (http, asked) in
                [(Http::One, claude_invoke_stream()), (Http::Two, claude_invoke_stream()), (Http::One, claude_stream())]
            {
                fault(&rig, json!({ "kind": kind, "after_frames": after }));
                let answer = Connection::open(rig.proxy.address, http).await.call(&asked).await;
                assert_eq!((answer.status, &answer.broke), (200, &None), "{kind} {after} {http:?}");
                let (frames, rest) = frames(&answer.body);
                assert_eq!((frames.len(), rest), (after + 1, 0), "{kind} {after} {http:?}");
                let last = &frames[after];
                assert_eq!(frame_header(last, ":message-type"), Some("exception"));
                assert_eq!(frame_header(last, ":exception-type"), Some("serviceUnavailableException"));
                let told: Value = serde_json::from_slice(&last.payload).unwrap();
                assert!(told["message"].as_str().is_some_and(|message| !message.is_empty()));
                let record = assert_recorded(&rig, &answer, "upstream_broke").await;
                if asked.path.ends_with("invoke-with-response-stream") {
                    assert_eq!(record["usage_certainty"], "partial", "{record}");
                    assert!(record["usage"]["input_tokens"].as_u64().unwrap() > 0, "{record}");
                }
            }
        }
    }
}

/// The harness models no `serviceUnavailableException`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_exception_has_a_name_that_the_operation_models() {
    let rig = Rig::start().await;
    fault(&rig, json!({ "kind": "cut", "after_frames": 2 }));
    let (_, asked) = streams().into_iter().find(|(_, asked)| asked.path == "/harnesses/invoke").unwrap();
    let answer = rig.proxy.call(&asked).await;
    let (frames, rest) = frames(&answer.body);
    assert_eq!((frames.len(), rest), (3, 0));
    assert_eq!(frame_header(&frames[2], ":exception-type"), Some("internalServerException"));
    assert_recorded(&rig, &answer, "upstream_broke").await;
}

/// An upstream that ends its HTTP message properly, between two frames, is believed; that usage never came shows in the record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_ends_early_but_properly_is_never_exact() {
    let rig = Rig::start().await;
    // Of a conversation its last event is known, and what ends without it is told.
    for (asked, expected) in [(claude_stream(), 4), (claude_invoke_stream(), 3)] {
        fault(&rig, json!({ "kind": "cut", "after_frames": 3, "clean": true }));
        let answer = rig.proxy.call(&asked).await;
        let (frames, _) = frames(&answer.body);
        assert_eq!((answer.status, frames.len()), (200, expected), "{}", asked.path);
        let exception = frames.get(3).and_then(|frame| frame_header(frame, ":exception-type"));
        assert_eq!(exception, (expected == 4).then_some("serviceUnavailableException"));
        let record = rig.proxy.record(answer.call_id()).await;
        assert_ne!(record["usage_certainty"], "exact", "{record}");
        rig.simulator.behave(rules(&json!([])));
        rig.proxy.assert_serves(CLAUDE).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_sent_events_that_break_off_end_abnormally() {
    let rig = Rig::start().await;
    let body =
        json!({ "model": "openai.gpt-oss-20b-1:0", "stream": true, "messages": [{ "role": "user", "content": "Hi" }] });
    for http in [Http::One, Http::Two] {
        fault(&rig, json!({ "kind": "cut", "after_frames": 3 }));
        let asked = Asked::post("/openai/v1/chat/completions", body.to_string());
        let answer = Connection::open(rig.proxy.address, http).await.call(&asked).await;
        assert!(answer.status == 200 && answer.broke.is_some(), "{answer:?}");
        assert_recorded(&rig, &answer, "upstream_broke").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_falls_silent_ends_the_stream_with_an_exception_frame() {
    let rig = Rig::with(
        &[Entry::new("claude", "bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0")],
        "general_settings:\n  upstream_idle_timeout: 0.2\n",
    )
    .await;
    for http in [Http::One, Http::Two] {
        fault(&rig, json!({ "kind": "stall_mid_stream", "after_frames": 4 }));
        let answer = Connection::open(rig.proxy.address, http).await.call(&claude_stream()).await;
        let (frames, rest) = frames(&answer.body);
        assert_eq!((frames.len(), rest), (5, 0), "{answer:?}");
        assert_eq!(frame_header(&frames[4], ":exception-type"), Some("serviceUnavailableException"));
        let record = rig.proxy.record(answer.call_id()).await;
        assert_eq!(record["fault"], "upstream", "{record}");
        rig.simulator.behave(rules(&json!([])));
        rig.proxy.assert_serves(CLAUDE).await;
    }
}

/// A stream that was ended for its upstream has ended properly: what a client sends right behind it is served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_lives_on_after_a_stream_that_was_ended_early() {
    let rig = Rig::with(
        &[Entry::new("claude", "bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0")],
        "general_settings:\n  upstream_idle_timeout: 0.1\n",
    )
    .await;
    for http in [Http::One, Http::Two] {
        let mut connection = Connection::open(rig.proxy.address, http).await;
        let kinds = [
            json!({ "kind": "stall_mid_stream", "after_frames": 4 }),
            json!({ "kind": "bad_crc", "frame": 4 }),
            json!({ "kind": "cut", "after_frames": 4 }),
            json!({ "kind": "cut_mid_frame", "after_frames": 4 }),
            json!({ "kind": "reset", "after_frames": 4 }),
        ];
        for kind in kinds.iter().cycle().take(4 * kinds.len()) {
            let rule = json!({ "match": { "times": 1 }, "fault": kind, "frames": 12, "frame_rate_hz": 500 });
            rig.simulator.behave(rules(&json!([rule])));
            let broken = connection.call(&claude_stream()).await;
            let (frames, rest) = frames(&broken.body);
            assert_eq!((frames.len(), rest, &broken.broke), (5, 0, &None), "{kind} {broken:?}");
            let next = connection.call(&Asked::converse(CLAUDE)).await;
            assert_eq!((next.status, &next.broke), (200, &None), "{kind} {next:?}");
        }
    }
    assert_eq!(rig.proxy.metrics().await.sum("dheera_ai_requests_in_flight", &[]), 1, "the scrape itself");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_in_mid_stream_is_recorded_and_costs_nobody_else_anything() {
    let rig = impatient().await;
    fault(&rig, json!({ "kind": "stall_mid_stream", "after_frames": 3 }));
    for http in [Http::One, Http::Two] {
        let mut connection = Connection::open(rig.proxy.address, http).await;
        let response = connection.begin(&claude_stream()).await;
        let call_id = response.headers()["x-dheera-ai-call-id"].to_str().unwrap().to_owned();
        drop((response, connection));
        let record = rig.proxy.record(&call_id).await;
        assert_eq!(record["fault"], "disconnect", "{record}");
        assert_ne!(record["usage_certainty"], "exact", "{record}");
    }
    eventually_idle(&rig).await;
    rig.simulator.behave(rules(&json!([])));
    rig.proxy.assert_serves(CLAUDE).await;
}

/// What the client does not read still says what it cost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cost_of_an_answer_is_known_although_its_client_left() {
    let rig = Rig::start().await;
    rig.simulator.behave(rules(&json!([{ "frames": 20, "frame_rate_hz": 40 }])));
    for http in [Http::One, Http::Two] {
        rig.simulator.clear_billed();
        let mut connection = Connection::open(rig.proxy.address, http).await;
        let response = connection.begin(&claude_stream()).await;
        let call_id = response.headers()["x-dheera-ai-call-id"].to_str().unwrap().to_owned();
        drop((response, connection));
        let record = rig.proxy.record(&call_id).await;
        assert_eq!(record["fault"], "disconnect", "{record}");
        assert_eq!(record["reason"], "client_gone", "{record}");
        assert_eq!(record["usage_certainty"], "exact", "{record}");
        assert_eq!(record["cost_nano_usd"], rig.simulator.billed().total_nano_usd, "{record}");
    }
    // Also where the client leaves before the first byte.
    rig.simulator.behave(rules(&json!([{ "fault": { "kind": "slow_first_byte", "ms": 300 } }])));
    rig.simulator.clear_billed();
    let before = rig.proxy.records().len();
    let forwarded = rig.forwarded();
    let mut connection = Connection::open(rig.proxy.address, Http::One).await;
    let asked = Asked::converse(CLAUDE);
    tokio::select! {
        answer = connection.call(&asked) => panic!("answered too early: {answer:?}"),
        () = eventually("the call to arrive", || (rig.forwarded() > forwarded).then_some(())) => {}
    }
    drop(connection);
    let record = rig.proxy.records_once(before + 1).await.pop().unwrap();
    assert_eq!(record["usage_certainty"], "exact", "{record}");
    assert_eq!(record["cost_nano_usd"], rig.simulator.billed().total_nano_usd, "{record}");
}

/// The answer does not depend on how the client reads it: a reader far slower than the upstream gets every byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_stream_of_large_frames_reaches_many_readers_whole() {
    let rig = Rig::start().await;
    rig.simulator.behave(rules(&json!([{ "frames": 60, "frame_bytes": 60_000 }])));
    let expected = direct(&rig.simulator, &Asked { path: plain_path(), ..claude_stream() }, "bedrock").await;
    let address = rig.proxy.address;
    let readers: Vec<_> = [Http::One, Http::Two, Http::One, Http::Two]
        .into_iter()
        .map(|http| tokio::spawn(async move { Connection::open(address, http).await.call(&claude_stream()).await }))
        .collect();
    for reader in readers {
        let answer = reader.await.unwrap();
        assert_eq!((answer.broke.clone(), sha256(&answer.body)), (None, sha256(&expected.body)));
    }
    let exact = || rig.proxy.records().iter().filter(|record| record["usage_certainty"] == "exact").count() == 4;
    eventually("four exact records", || exact().then_some(())).await;
}

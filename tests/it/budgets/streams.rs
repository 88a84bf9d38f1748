//! Streams on a small budget: what fits is not touched, what may not fit begins and grows, and ends in a form that SDKs
//! raise when there is no more.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bedrock_sim::eventstream::Frame;
use serde_json::{Value, json};

use crate::support::{
    Answer, Asked, Plan, Stand, Store, converse, dollars, frame_header, frames, nano, on_both_stores, rules,
};

on_both_stores! {
    a_stream_that_fits_is_reserved_once,
    a_stream_that_may_not_fit_grows_to_its_end,
    a_stream_ends_with_an_exception_when_its_budget_does,
    growing_may_be_forbidden,
    an_answer_in_one_piece_never_grows,
}

const EXTENSIONS: &str = "dheera_ai_store_request_duration_seconds_count";

async fn extensions(stand: &Stand) -> u64 {
    stand.sum(EXTENSIONS, &[("command", "extend")]).await
}

/// Without a limit on its answer: it may take 64,000 tokens, which are $0.96.
fn unlimited(operation: &str) -> Asked {
    let body = json!({ "messages": [{ "role": "user", "content": [{ "text": "Tell me a story." }] }] });
    Asked::post(&format!("/bedrock/model/claude/{operation}"), body.to_string())
}

/// A token for each byte, which is the most there can be.
fn script(frames: usize, frame_bytes: usize, rate_hz: u32) -> Value {
    json!([{
        "frames": frames, "frame_bytes": frame_bytes, "frame_rate_hz": rate_hz, "bill": "delivered",
        "usage": { "input": 10, "output": frames * frame_bytes },
    }])
}

fn record_of<'a>(stand: &'a Stand, answer: &'a Answer) -> impl Future<Output = Value> + 'a {
    stand.proxy().record(answer.call_id())
}

async fn a_stream_that_fits_is_reserved_once(store: Store) {
    let stand = Plan::new(store).start().await;
    stand.simulator.behave(rules(&script(10, 10, 0)));
    let key = stand.key(&json!({ "max_budget": 1 })).await;
    let answer = stand.call(&key, &converse("claude", "converse-stream", 200)).await;
    assert_eq!((answer.status, &answer.broke), (200, &None), "{answer:?}");
    stand.assert_sound().await;
    assert_eq!(extensions(&stand).await, 0);
    // 10 x 3000 + 100 x 15000.
    stand.assert_spent(&key, 1_530_000).await;
    assert_eq!(stand.simulator.billed().total_nano_usd, 1_530_000);
}

async fn a_stream_that_may_not_fit_grows_to_its_end(store: Store) {
    let stand = Plan::new(store).start().await;
    stand.simulator.behave(rules(&script(15, 100, 50)));
    let key = stand.key(&json!({ "max_budget": 0.05 })).await;
    let answer = stand.call(&key, &unlimited("converse-stream")).await;
    assert_eq!((answer.status, &answer.broke), (200, &None), "{answer:?}");
    let (all, left) = frames(&answer.body);
    assert_eq!(left, 0);
    assert_eq!(frame_header(all.last().unwrap(), ":event-type"), Some("metadata"));
    stand.assert_sound().await;
    stand.spent(&key).await;
    let info = stand.info(&key).await;
    // 10 x 3000 + 1500 x 15000.
    assert_eq!((nano(&info["spend"]), nano(&info["reserved"])), (22_530_000, 0), "{info}");
    assert_eq!(stand.simulator.billed().total_nano_usd, 22_530_000);
    let extensions = extensions(&stand).await;
    println!("{extensions} extensions for 15 frames");
    assert!(extensions > 0);
}

async fn a_stream_ends_with_an_exception_when_its_budget_does(store: Store) {
    let stand = Plan::new(store).start().await;
    stand.simulator.behave(rules(&script(80, 100, 50)));
    let budget = 50_000_000;
    let anthropic = json!({
        "anthropic_version": "bedrock-2023-05-31", "max_tokens": 60_000,
        "messages": [{ "role": "user", "content": "Tell me a story." }],
    });
    for asked in [
        unlimited("converse-stream"),
        Asked::post("/bedrock/model/claude/invoke-with-response-stream", anthropic.to_string()),
    ] {
        stand.simulator.clear_billed();
        let key = stand.key(&json!({ "max_budget": dollars(budget) })).await;
        let answer = stand.call(&key, &asked).await;
        // The stream is whole: an SDK reads it to its end and raises what stands there.
        assert_eq!((answer.status, &answer.broke), (200, &None), "{answer:?}");
        let (all, left) = frames(&answer.body);
        assert_eq!(left, 0, "half a frame");
        let last = all.last().unwrap();
        assert_eq!(frame_header(last, ":message-type"), Some("exception"), "{last:?}");
        assert_eq!(frame_header(last, ":exception-type"), Some("validationException"));
        assert_eq!(frame_header(last, ":content-type"), Some("application/json"));
        let payload: Value = serde_json::from_slice(&last.payload).unwrap();
        assert!(payload["message"].as_str().unwrap().contains("budget"), "{payload}");
        let events = all.iter().filter(|frame| frame_header(frame, ":message-type") == Some("event")).count();
        assert_eq!(events, all.len() - 1);
        let record = record_of(&stand, &answer).await;
        assert_eq!((&record["fault"], &record["reason"]), (&json!("limit"), &json!("budget_exhausted")), "{record}");
        stand.assert_sound().await;
        stand.spent(&key).await;
        let info = stand.info(&key).await;
        let spent = nano(&info["spend"]);
        assert_eq!(nano(&info["reserved"]), 0, "{info}");
        let billed = stand.simulator.billed().total_nano_usd;
        println!("{} frames came; ${spent}e-9 of {budget} spent, {billed} billed", all.len());
        assert!(spent <= budget && spent > budget * 8 / 10, "{spent} of {budget}");
        // What AWS sends between our last byte and its noticing that nobody reads is not known: frames of 100 tokens.
        assert!(billed <= budget + 10 * 1_500_000, "{billed} billed");
        // What the client got, a token for each byte and the prompt, is paid for.
        let texts = all.iter().filter(|frame| is_text(frame)).count();
        let delivered = u64::try_from(texts).unwrap() * 1_500_000;
        assert!(texts > 20, "{texts} of {events} events");
        assert!(delivered <= spent, "{delivered} delivered");
        assert_eq!(record["cost_nano_usd"], json!(spent), "{record}");
        let refused = stand.call(&key, &asked).await;
        refused.assert_error(400, "ServiceQuotaExceededException");
    }
}

/// Whether an event carries text of the answer.
fn is_text(frame: &Frame) -> bool {
    let payload: Value = serde_json::from_slice(&frame.payload).unwrap();
    let chunk = payload["bytes"].as_str().map(|chunk| BASE64_STANDARD.decode(chunk).unwrap());
    let chunk: Value = chunk.map_or(payload, |chunk| serde_json::from_slice(&chunk).unwrap());
    frame_header(frame, ":event-type") == Some("contentBlockDelta") || chunk["type"] == "content_block_delta"
}

async fn growing_may_be_forbidden(store: Store) {
    let stand = Plan::new(store).rest("general_settings:\n  on_low_budget: refuse\n").start().await;
    let key = stand.key(&json!({ "max_budget": 0.05 })).await;
    let refused = stand.call(&key, &unlimited("converse-stream")).await;
    refused.assert_error(400, "ServiceQuotaExceededException");
    assert!(refused.json()["message"].as_str().unwrap().contains("maxTokens"), "{refused:?}");
    assert_eq!(stand.call(&key, &converse("claude", "converse-stream", 100)).await.status, 200);
    stand.assert_sound().await;
    assert_eq!(stand.simulator.counters().requests, 1);
}

async fn an_answer_in_one_piece_never_grows(store: Store) {
    let stand = Plan::new(store).start().await;
    let key = stand.key(&json!({ "max_budget": 0.05 })).await;
    stand.call(&key, &unlimited("converse")).await.assert_error(400, "ServiceQuotaExceededException");
    stand.assert_sound().await;
    assert_eq!(stand.simulator.counters().requests, 0);
    stand.assert_spent(&key, 0).await;
}

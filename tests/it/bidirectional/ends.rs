//! Conversations that end before their time: the budget is used up, a side goes away, the client has nothing more to say.
//! Whatever ends them, the client can tell, nothing stays reserved, and no call costs less than its bill.

use serde_json::json;

use super::line::{Line, Talk};
use super::{output, say};
use crate::support::{
    DEADLINE, Entry, Key, Plan, Stand, Store, eventually, frame_header, nano, on_both_stores, rules, signed_frame,
};

on_both_stores! {
    a_conversation_is_paid_for_as_it_grows_and_ends_with_its_budget,
    a_client_that_only_speaks_is_stopped_by_its_budget,
    what_a_conversation_cost_is_settled_when_its_client_goes_away,
    what_a_conversation_cost_is_settled_when_the_upstream_goes_away,
}

/// In dollars; the dearest token of this model costs 12,000 nano-dollars, and a conversation begins with 16,384 of them.
const BUDGET: f64 = 0.6;

async fn stand(store: Store) -> (Stand, Key) {
    let entries = vec![Entry::new("sonic", "bedrock/amazon.nova-2-sonic-v1:0")];
    let stand = Plan { entries, ..Plan::new(store) }.start().await;
    let key = stand.key(&json!({ "max_budget": BUDGET })).await;
    (stand, key)
}

/// Opens a stream that has heard the answer to a first input.
async fn talk(stand: &Stand, key: &Key) -> Talk {
    let line = Line::open(stand.proxy().address, &key.secret).await;
    line.body.send(say("Hello")).await.unwrap();
    let mut talk = line.answered().await;
    for _ in 0..2 {
        talk.answer.next().await.unwrap();
    }
    talk
}

async fn reserved(stand: &Stand, key: &Key) -> u64 {
    nano(&stand.info(key).await["reserved"])
}

async fn a_conversation_is_paid_for_as_it_grows_and_ends_with_its_budget(store: Store) {
    let (stand, key) = stand(store).await;
    let mut talk = talk(&stand, &key).await;
    let first_share = reserved(&stand, &key).await;
    assert_eq!(first_share, 16_384 * 12_000);
    let (mut largest_share, mut turns) = (first_share, 0);
    let last = loop {
        // It may have been ended since the last answer.
        drop(talk.body.as_ref().unwrap().send(say(&"x".repeat(1000))).await);
        match talk.answer.next().await.unwrap() {
            frame if frame_header(&frame, ":message-type") == Some("exception") => break frame,
            echo => assert!(output(&echo)["event"]["textOutput"].is_object(), "{echo:?}"),
        }
        turns += 1;
        largest_share = largest_share.max(reserved(&stand, &key).await);
        match talk.answer.next().await.unwrap() {
            frame if frame_header(&frame, ":message-type") == Some("exception") => break frame,
            usage => assert!(output(&usage)["event"]["usageEvent"].is_object(), "{usage:?}"),
        }
    };
    assert_eq!(frame_header(&last, ":exception-type"), Some("validationException"), "{last:?}");
    assert!(String::from_utf8_lossy(&last.payload).contains("budget"), "{last:?}");
    assert!(talk.answer.next().await.is_none());
    assert!(turns > 3 && largest_share > first_share, "{turns} turns, {largest_share} reserved at most");
    let record = stand.proxy().record(&talk.call_id).await;
    assert_eq!((&record["fault"], &record["reason"]), (&json!("limit"), &json!("budget_exhausted")), "{record}");
    assert_sound_and_paid(&stand, &key).await;
    assert_eq!(stand.simulator.counters().authentication_failures, 0);
}

async fn a_client_that_only_speaks_is_stopped_by_its_budget(store: Store) {
    let (stand, key) = stand(store).await;
    stand.simulator.behave(rules(&json!([{ "fault": { "kind": "stall_before_header" } }])));
    let line = Line::open(stand.proxy().address, &key.secret).await;
    let body = line.body.clone();
    let piece = say(&"x".repeat(1000));
    let speaking = tokio::spawn(async move { while body.send(piece.clone()).await.is_ok() {} });
    let response = tokio::time::timeout(DEADLINE, line.response).await.expect("it is not stopped").unwrap().unwrap();
    assert_eq!(response.status(), 400);
    assert_eq!(response.headers()["x-amzn-errortype"], "ServiceQuotaExceededException");
    speaking.abort();
    let call_id = response.headers()["x-dheera-ai-call-id"].to_str().unwrap();
    let record = stand.proxy().record(call_id).await;
    assert_eq!((&record["fault"], &record["reason"]), (&json!("limit"), &json!("budget_exhausted")), "{record}");
    stand.assert_sound().await;
    let spent = stand.spent(&key).await;
    assert!(spent > 0 && spent <= 600_000_000, "{spent} spent");
}

async fn what_a_conversation_cost_is_settled_when_its_client_goes_away(store: Store) {
    let (stand, key) = stand(store).await;
    let talk = talk(&stand, &key).await;
    assert!(reserved(&stand, &key).await > 0);
    talk.vanish();
    let record = stand.proxy().record(&talk.call_id).await;
    assert_eq!((&record["fault"], &record["reason"]), (&json!("disconnect"), &json!("client_gone")), "{record}");
    assert_sound_and_paid(&stand, &key).await;
    // Its request was ended in its place, so the model came to an end and told what it cost.
    assert_eq!(record["usage_certainty"], "exact", "{record}");
    assert_eq!(stand.spent(&key).await, stand.simulator.billed().total_nano_usd);
    assert_eq!(stand.simulator.counters().authentication_failures, 0);
}

async fn what_a_conversation_cost_is_settled_when_the_upstream_goes_away(store: Store) {
    let (stand, _) = stand(store).await;
    for kind in ["cut", "reset"] {
        let key = stand.key(&json!({ "max_budget": BUDGET })).await;
        stand.simulator.clear_billed();
        stand.simulator.behave(rules(&json!([{ "fault": { "kind": kind, "after_frames": 3 } }])));
        let mut talk = talk(&stand, &key).await;
        talk.send(say("And then?")).await;
        let rest = talk.answer.rest().await;
        let exceptions: Vec<_> = rest.iter().filter_map(|frame| frame_header(frame, ":exception-type")).collect();
        assert_eq!(exceptions, ["serviceUnavailableException"], "{rest:?}");
        let record = stand.proxy().record(&talk.call_id).await;
        assert_eq!((&record["fault"], &record["reason"]), (&json!("upstream"), &json!("upstream_broke")), "{record}");
        assert_sound_and_paid(&stand, &key).await;
    }
}

/// Nothing is reserved any more, and what was spent is within the budget and at least the bill.
async fn assert_sound_and_paid(stand: &Stand, key: &Key) {
    stand.assert_sound().await;
    let spent = stand.spent(key).await;
    let billed = eventually("the bill", || {
        let billed = stand.simulator.billed();
        (billed.count == 1).then_some(billed.total_nano_usd)
    })
    .await;
    assert!(billed > 0 && spent >= billed && spent <= 600_000_000, "{spent} spent, {billed} billed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_has_said_everything_gets_the_whole_answer() {
    let rig = super::rig().await;
    // With the signed end that SDKs send, and without.
    for signed_end in [true, false] {
        let line = Line::open(rig.proxy.address, crate::support::MASTER_KEY).await;
        for number in 0..50 {
            line.body.send(say(&format!("input {number}"))).await.unwrap();
        }
        if signed_end {
            line.body.send(signed_frame(b"")).await.unwrap();
        }
        let mut talk = line.answered().await;
        talk.hang_up();
        let frames = talk.answer.rest().await;
        assert_eq!(frames.len(), 100, "{frames:?}");
        for (number, pair) in frames.chunks(2).enumerate() {
            assert!(output(&pair[0]).to_string().contains(&format!("input {number}\\")), "{pair:?}");
        }
        let record = rig.proxy.record(&talk.call_id).await;
        assert_eq!((&record["status"], &record["fault"]), (&json!(200), &json!(null)), "{record}");
    }
    assert_eq!(rig.simulator.counters().authentication_failures, 0);
}

//! Compressed answers. The proxy asks for none; one that comes all the same passes byte for byte, and what it says of
//! its usage is read wherever it can be.

use serde_json::{Value, json};

use crate::streams::streams;
use crate::support::{Asked, Connection, Http, Rig, direct, rules, sha256};

/// Calls whose usage is in the body, streamed or not.
fn calls() -> Vec<Asked> {
    let path = "/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0";
    let mut calls = vec![Asked::converse(&format!("{path}/converse"))];
    let metered = ["/converse-stream", "/invoke-with-response-stream", "/anthropic/v1/messages"];
    calls.extend(
        streams()
            .into_iter()
            .map(|(_, asked)| asked)
            .filter(|asked| metered.iter().any(|end| asked.path.ends_with(end))),
    );
    assert_eq!(calls.len(), 4);
    calls
}

fn behave(rig: &Rig, coding: &str) {
    rig.simulator.behave(rules(&json!([{ "coding": coding, "frames": 20 }])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compressed_answer_passes_unchanged_and_costs_what_is_billed() {
    let rig = Rig::start().await;
    for coding in ["gzip", "deflate"] {
        behave(&rig, coding);
        for asked in calls() {
            let expected = direct(&rig.simulator, &asked, "bedrock").await;
            for http in [Http::One, Http::Two] {
                rig.simulator.clear_billed();
                let answer = Connection::open(rig.proxy.address, http).await.call(&asked).await;
                let context = format!("{coding} {} over {http:?}", asked.path);
                assert_eq!((answer.status, &answer.broke), (200, &None), "{context}");
                assert_eq!(answer.header("content-encoding"), Some(coding), "{context}");
                assert_eq!(sha256(&answer.body), sha256(&expected.body), "{context}");
                let record = rig.proxy.record(answer.call_id()).await;
                assert_eq!(record["usage_certainty"], "exact", "{context}: {record}");
                assert_eq!(record["cost_nano_usd"], rig.simulator.billed().total_nano_usd, "{context}: {record}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coding_that_is_not_read_is_unknown_usage_and_counted_as_such() {
    let rig = Rig::start().await;
    behave(&rig, "br");
    let mut unpriced = 0;
    for asked in calls() {
        let expected = direct(&rig.simulator, &asked, "bedrock").await;
        let answer = rig.proxy.call(&asked).await;
        assert_eq!((answer.status, sha256(&answer.body)), (200, sha256(&expected.body)), "{}", asked.path);
        let record = rig.proxy.record(answer.call_id()).await;
        let told = (&record["usage_certainty"], &record["unpriced"], &record["cost_nano_usd"]);
        assert_eq!(told, (&json!("unknown"), &json!("unknown_usage"), &Value::Null), "{}: {record}", asked.path);
        unpriced += 1;
        let counted =
            rig.proxy.metrics().await.sum("dheera_ai_unpriced_requests_total", &[("reason", "unknown_usage")]);
        assert_eq!(counted, unpriced);
    }
}

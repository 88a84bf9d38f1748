//! Models that stand in for others: when none of a name's deployments can serve, and when a prompt is too long.

use serde_json::{Value, json};

use crate::support::{Answer, Entry, Plan, Stand, Store, converse, rules};

const FALLBACKS: &str = "router_settings:\n  fallbacks: [{claude: [nova]}]\n";
const FOR_ROOM: &str = "router_settings:\n  context_window_fallbacks: [{claude: [nova]}]\n";
const SONNET: &str = "anthropic.claude-sonnet-4-5-20250929-v1:0";
const TOO_LONG: &str = "The model returned the following errors: prompt is too long: 200049 tokens > 200000 maximum";

async fn stand(rest: &str) -> Stand {
    Plan::new(Store::Embedded).rest(rest).start().await
}

fn of_claude(fault: &Value) -> Value {
    json!({ "match": { "model": SONNET }, "fault": fault })
}

fn error(status: u16, error_type: &str, message: &str) -> Value {
    json!({ "kind": "error", "status": status, "error_type": error_type, "message": message })
}

fn unavailable() -> Value {
    error(503, "ServiceUnavailableException", "busy")
}

fn too_long() -> Value {
    error(400, "ValidationException", TOO_LONG)
}

fn deployment(answer: &Answer) -> &str {
    answer.header("x-dheera-ai-deployment").unwrap()
}

/// The setbacks of a request before its last attempt.
async fn setbacks(stand: &Stand, answer: &Answer) -> Vec<String> {
    let record = stand.proxy().record(answer.call_id()).await;
    let attempts = record["attempts"].as_array().unwrap();
    let setbacks = attempts.iter().filter_map(|attempt| attempt["setback"].as_str());
    setbacks.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_model_serves_when_no_deployment_of_a_name_can_and_its_cost_is_booked() {
    let stand = stand(FALLBACKS).await;
    let key = stand.key(&json!({ "max_budget": 1 })).await;
    stand.simulator.behave(rules(&json!([of_claude(&unavailable())])));
    for operation in ["converse", "converse-stream"] {
        for _ in 0..2 {
            let asked = converse("claude", operation, 100);
            let answer = stand.call(&key, &asked).await;
            assert_eq!((answer.status, deployment(&answer)), (200, "nova-1"), "{answer:?}");
            // Once it cools it is not asked any more.
            assert!(["server_error", ""].contains(&setbacks(&stand, &answer).await.join(",").as_str()));
        }
    }
    let labels = [("model_name", "claude"), ("fallback", "nova"), ("reason", "failing")];
    assert_eq!(stand.sum("dheera_ai_fallbacks_total", &labels).await, 4);
    stand.assert_spent(&key, stand.simulator.billed().total_nano_usd).await;
    stand.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prompt_that_is_too_long_goes_to_a_model_with_more_room_and_other_mistakes_do_not() {
    let stand = stand(FOR_ROOM).await;
    let key = stand.key(&json!({ "max_budget": 1 })).await;
    for operation in ["converse", "converse-stream"] {
        let asked = converse("claude", operation, 100);
        stand.simulator.behave(rules(&json!([of_claude(&too_long())])));
        let answer = stand.call(&key, &asked).await;
        assert_eq!((answer.status, deployment(&answer)), (200, "nova-1"), "{answer:?}");
        assert_eq!(setbacks(&stand, &answer).await, ["context_window"]);

        let other = error(400, "ValidationException", "messages: at least one message is required");
        stand.simulator.behave(rules(&json!([of_claude(&other)])));
        let answer = stand.call(&key, &asked).await;
        assert_eq!(deployment(&answer), "claude-1");
        answer.assert_error(400, "ValidationException");
        assert!(answer.text().contains("at least one message"), "{answer:?}");

        // What it is not configured for is the client's to know.
        stand.simulator.behave(rules(&json!([of_claude(&unavailable())])));
        assert_eq!(stand.call(&key, &asked).await.status, 503);
    }
    stand.assert_spent(&key, stand.simulator.billed().total_nano_usd).await;
    stand.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_cools_is_asked_when_the_one_that_stands_in_is_full() {
    let rest = format!("{FALLBACKS}  allowed_fails: 0\n  cooldown_time: 60\n");
    let mut plan = Plan::new(Store::Embedded).rest(&rest);
    plan.entries = vec![
        Entry::new("claude", "bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0"),
        Entry { name: "nova", model: "bedrock/amazon.nova-lite-v1:0", params: &[("rpm", "1")], info: &[] },
    ];
    let stand = plan.start().await;
    let key = stand.key(&json!({ "max_budget": 1 })).await;
    let asked = converse("claude", "converse", 100);
    stand.simulator.behave(rules(&json!([of_claude(&unavailable())])));
    let answer = stand.call(&key, &asked).await;
    assert_eq!((answer.status, deployment(&answer)), (200, "nova-1"), "{answer:?}");
    stand.simulator.behave(rules(&json!([])));
    let answer = stand.call(&key, &asked).await;
    assert_eq!((answer.status, deployment(&answer)), (200, "claude-1"), "{answer:?}");
    let labels = [("model_name", "claude"), ("fallback", "nova")];
    assert_eq!(stand.sum("dheera_ai_fallbacks_total", &labels).await, 1, "one request was served there");
    stand.assert_spent(&key, stand.simulator.billed().total_nano_usd).await;
    stand.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prompt_that_is_too_long_for_all_is_told_as_aws_tells_it() {
    let stand = stand(FOR_ROOM).await;
    let key = stand.key(&json!({})).await;
    stand.simulator.behave(rules(&json!([{ "fault": too_long() }])));
    let answer = stand.call(&key, &converse("claude", "converse", 100)).await;
    answer.assert_error(400, "ValidationException");
    assert!(answer.text().contains(TOO_LONG), "{answer:?}");
    assert_eq!(deployment(&answer), "nova-1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_goes_nowhere_that_its_key_may_not() {
    let stand = stand(FALLBACKS).await;
    stand.simulator.behave(rules(&json!([of_claude(&unavailable())])));
    let asked = converse("claude", "converse", 100);
    for (fields, served) in [
        (json!({}), true),
        (json!({ "models": ["claude"] }), false),
        (json!({ "models": ["claude", "nova"] }), true),
        // A budget for the other model is not to be got round.
        (json!({ "model_max_budget": { "nova": { "budget_limit": 1, "time_period": "1d" } } }), false),
        (json!({ "model_max_budget": { "claude": { "budget_limit": 1, "time_period": "1d" } } }), true),
    ] {
        let key = stand.key(&fields).await;
        let answer = stand.call(&key, &asked).await;
        assert_eq!(answer.status == 200, served, "{fields}: {answer:?}");
        if !served {
            answer.assert_error(503, "ServiceUnavailableException");
        }
    }
    stand.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_attempts_together_are_as_many_as_configured() {
    let stand = stand("router_settings:\n  num_retries: 0\n  fallbacks: [{claude: [nova]}]\n").await;
    let key = stand.key(&json!({})).await;
    stand.simulator.behave(rules(&json!([of_claude(&unavailable())])));
    let asked = converse("claude", "converse", 100);
    // Until the deployment cools; then nothing has to be tried in vain.
    let mut refused = 0;
    loop {
        let answer = stand.call(&key, &asked).await;
        if answer.status == 200 {
            assert_eq!((deployment(&answer), answer.header("x-dheera-ai-attempts")), ("nova-1", Some("1")));
            break;
        }
        answer.assert_error(503, "ServiceUnavailableException");
        refused += 1;
        assert!(refused <= 4, "three failures are allowed, the fourth begins a cooldown");
    }
    assert_eq!(refused, 4);
}

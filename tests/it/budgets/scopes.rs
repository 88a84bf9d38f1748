//! Whose budgets refuse a call: the key's, its models', its team's, its user's, the end user's, a tag's, everybody's.

use serde_json::{Value, json};

use crate::support::{Asked, Key, Plan, Stand, Store, converse, dollars, header_nano, on_both_stores, rules};

on_both_stores! {
    every_scope_refuses_and_says_whose_budget_it_is,
    a_customer_is_known_by_header_metadata_or_body,
    a_budget_for_everybody_holds_for_the_master_key,
    a_model_has_a_budget_of_its_own,
    two_windows_hold_at_once,
}

async fn stand(store: Store) -> Stand {
    let stand = Plan::new(store).start().await;
    stand.simulator.behave(rules(&json!([{ "tokens": "bytes" }])));
    stand
}

fn asked() -> Asked {
    converse("claude", "converse", 100)
}

/// One call is served and the next one refused, with this in its message.
async fn assert_one_fits(stand: &Stand, key: &Key, asked: &Asked, scope: &str, whose: &str) {
    let before = denied(stand, scope).await;
    let first = stand.call(key, asked).await;
    assert_eq!(first.status, 200, "{scope}: {first:?}");
    assert_refused(&stand.call(key, asked).await, whose);
    assert_eq!(denied(stand, scope).await, before + 1, "{scope}");
}

fn assert_refused(refused: &crate::support::Answer, whose: &str) {
    refused.assert_error(400, "ServiceQuotaExceededException");
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    let message = refused.json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains(&format!("The budget of {whose} ")), "{message}");
}

async fn denied(stand: &Stand, scope: &str) -> u64 {
    stand.sum("dheera_ai_denied_total", &[("reason", "over_budget"), ("scope", scope)]).await
}

async fn every_scope_refuses_and_says_whose_budget_it_is(store: Store) {
    let stand = stand(store).await;
    let budget = dollars(stand.cost(&asked()).await * 3 / 2);
    let key = stand.key(&json!({ "max_budget": budget })).await;
    assert_one_fits(&stand, &key, &asked(), "key", "this key").await;

    stand.post("/budget/new", &json!({ "budget_id": "small", "max_budget": budget })).await;
    let key = stand.key(&json!({ "budget_id": "small" })).await;
    assert_one_fits(&stand, &key, &asked(), "key", "this key").await;
    // Each key has its own account under a shared budget.
    let other = stand.key(&json!({ "budget_id": "small" })).await;
    assert_one_fits(&stand, &other, &asked(), "key", "this key").await;

    stand.post("/team/new", &json!({ "team_id": "red team/1", "max_budget": budget })).await;
    let key = stand.key(&json!({ "team_id": "red team/1" })).await;
    let mate = stand.key(&json!({ "team_id": "red team/1" })).await;
    assert_one_fits(&stand, &key, &asked(), "team", "the key's team").await;
    assert_refused(&stand.call(&mate, &asked()).await, "the key's team");

    stand.post("/user/new", &json!({ "user_id": "ann@example.com", "max_budget": budget })).await;
    let key = stand.key(&json!({ "user_id": "ann@example.com" })).await;
    assert_one_fits(&stand, &key, &asked(), "user", "the key's user").await;

    stand.post("/tag/new", &json!({ "name": "batch", "max_budget": budget })).await;
    let key = stand.key(&json!({})).await;
    let tagged = asked().with("x-dheera-ai-tags", "nightly, batch");
    assert_one_fits(&stand, &key, &tagged, "tag", "one of the request's tags").await;
    assert_eq!(stand.call(&key, &asked()).await.status, 200, "without the tag");
    // A tag that the operator gave to the key needs no header.
    let key = stand.key(&json!({ "tags": ["batch"] })).await;
    assert_refused(&stand.call(&key, &asked()).await, "one of the request's tags");
    stand.assert_sound().await;
}

async fn a_customer_is_known_by_header_metadata_or_body(store: Store) {
    let stand = stand(store).await;
    let key = stand.key(&json!({})).await;
    let message = |text: &str| json!([{ "role": "user", "content": [{ "text": text }] }]);
    let limit = json!({ "maxTokens": 100 });
    let in_converse = json!({ "messages": message("Hi"), "inferenceConfig": limit, "requestMetadata": { "end_user": "by-metadata" } });
    let in_anthropic = json!({
        "anthropic_version": "bedrock-2023-05-31", "max_tokens": 100,
        "messages": [{ "role": "user", "content": "Hi" }], "metadata": { "user_id": "by-body" },
    });
    let cases: [(&str, Asked); 4] = [
        ("by-header", asked().with("x-dheera-ai-end-user-id", "by-header")),
        (
            "by-aws-header",
            asked().with("x-amzn-bedrock-request-metadata", &json!({ "user_id": "by-aws-header" }).to_string()),
        ),
        ("by-metadata", Asked::post("/bedrock/model/claude/converse", in_converse.to_string())),
        ("by-body", Asked::post("/bedrock/model/claude/invoke", in_anthropic.to_string())),
    ];
    for (customer, asked) in cases {
        let cost = stand.cost(&asked).await;
        let limited = json!({ "user_id": customer, "max_budget": dollars(cost * 3 / 2) });
        stand.post("/customer/new", &limited).await;
        // A change by this replica holds at once, although the customer was asked for before.
        assert_one_fits(&stand, &key, &asked, "customer", "this end user").await;
        let record = stand.proxy().records().pop().unwrap();
        assert_eq!(record["end_user"], customer, "{record}");
    }
    assert_eq!(stand.call(&key, &asked()).await.status, 200, "for nobody");
    stand.assert_sound().await;
}

async fn a_budget_for_everybody_holds_for_the_master_key(store: Store) {
    let cost = {
        let stand = stand(store).await;
        stand.cost(&asked()).await
    };
    let rest = format!("dheera_ai_settings:\n  max_budget: {}\n", dollars(cost * 3 / 2));
    let stand = Plan::new(store).rest(&rest).start().await;
    stand.simulator.behave(rules(&json!([{ "tokens": "bytes" }])));
    let key = stand.key(&json!({ "max_budget": 5 })).await;
    assert_eq!(stand.proxy().call(&asked()).await.status, 200);
    assert_refused(&stand.call(&key, &asked()).await, "everybody together");
    assert_refused(&stand.proxy().call(&asked()).await, "everybody together");
    assert_eq!(denied(&stand, "global").await, 2);
    stand.assert_sound().await;
    assert_eq!(stand.simulator.billed().total_nano_usd, cost);
    stand.assert_spent(&key, 0).await;
}

async fn a_model_has_a_budget_of_its_own(store: Store) {
    let stand = stand(store).await;
    let budget = dollars(stand.cost(&asked()).await * 3 / 2);
    let fields = json!({ "model_max_budget": { "claude": { "budget_limit": budget, "time_period": "1d" } } });
    let key = stand.key(&fields).await;
    assert_one_fits(&stand, &key, &asked(), "key_model", "this key for this model").await;
    let nova = converse("nova", "converse", 100);
    assert_eq!(stand.call(&key, &nova).await.status, 200);
    stand.spent(&key).await;
    let used = stand.info(&key).await["model_max_budget_usage"]["claude"].clone();
    assert_eq!(used["reserved"], json!(0), "{used}");
    assert!(used["spend"].as_f64().unwrap() > 0.0 && used["budget_reset_at"].is_string(), "{used}");
}

async fn two_windows_hold_at_once(store: Store) {
    let stand = stand(store).await;
    let cost = stand.cost(&asked()).await;
    let windows = |day: u64, month: u64| -> Value {
        json!({ "budget_limits": [
            { "budget_duration": "1d", "max_budget": dollars(day) },
            { "budget_duration": "1mo", "max_budget": dollars(month) },
        ]})
    };
    for (fields, tightest) in
        [(windows(cost * 3 / 2, cost * 9), cost * 3 / 2), (windows(cost * 9, cost * 5 / 4), cost * 5 / 4)]
    {
        let key = stand.key(&fields).await;
        let served = stand.call(&key, &asked()).await;
        assert_eq!(header_nano(&served, "x-dheera-ai-response-cost"), cost);
        let refused = stand.call(&key, &asked()).await;
        assert_refused(&refused, "this key");
        let limit = dollars(tightest).to_string();
        assert!(refused.json()["message"].as_str().unwrap().contains(&limit), "of {limit}: {refused:?}");
        stand.spent(&key).await;
        for used in stand.info(&key).await["budget_limits_usage"].as_array().unwrap() {
            assert_eq!((&used["spend"], &used["reserved"]), (&dollars(cost), &json!(0)), "{used}");
        }
    }
    stand.assert_sound().await;
}

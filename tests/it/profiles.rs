//! Application inference profiles, whose ARN hides the model: what their calls cost without `base_model`, what stands
//! in for it when AWS does not say, and the control plane's reads of them by keys.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::costs::{NOVA, SONNET, UNPRICED, converse, converse_stream, messages};
use crate::support::{
    Asked, CLAUDE, DEADLINE, Entry, Plan, Proxy, Rig, Stand, Start, Store, config, eventually, rules, simulator,
    variables,
};

const ARN: &str = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123";
const ENCODED: &str = "arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Aapplication-inference-profile%2Fabc123";
const LOOKUPS: &str = "dheera_ai_profile_lookups_total";

fn arns(regions: &[&str], model: &str) -> Vec<String> {
    regions.iter().map(|region| format!("arn:aws:bedrock:{region}::foundation-model/{model}")).collect()
}

fn refused() -> Value {
    json!({ "match": { "operation": "GetInferenceProfile" }, "fault": {
        "kind": "error", "status": 403, "error_type": "AccessDeniedException",
        "message": "User: arn:aws:iam::123456789012:user/internal-canary is not authorized" } })
}

/// 1001 tokens of input and 203 of output, Claude Sonnet 4.5: 1001 x 3000 + 203 x 15000 = 6,048,000; the geography
/// `us.` at 1.1 times that. Nova Pro: 1001 x 800 + 203 x 3200.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_costs_what_the_models_behind_its_profile_say() {
    for (regions, model, base, cost) in [
        (&["us-east-1"][..], SONNET, SONNET, 6_048_000),
        (&["us-east-1", "us-east-2", "us-west-2"], SONNET, "us.anthropic.claude-sonnet-4-5-20250929-v1:0", 6_652_800),
        (&["us-east-1", ""], SONNET, "global.anthropic.claude-sonnet-4-5-20250929-v1:0", 6_048_000),
        (&["us-east-1", "us-west-2"], "amazon.nova-pro-v1:0", NOVA, 1_450_400),
    ] {
        let simulator = simulator().await;
        let rule = json!({ "profile_models": arns(regions, model), "billed_model": base,
            "usage": { "input": 1001, "output": 203 } });
        simulator.behave(rules(&json!([rule])));
        let text = config(&[Entry::new("profile", ARN)], "");
        let proxy = Proxy::start(Start { config: Some(&text), variables: variables(&simulator), ..Start::default() });
        for (asked, path) in [
            (converse("profile", &messages()), format!("/model/{ENCODED}/converse")),
            (converse_stream("profile", &messages()), format!("/model/{ENCODED}/converse-stream")),
            // Named by the client; its own escapes stay.
            (converse(ARN, &messages()), format!("/model/{ENCODED}/converse")),
            (
                Asked::post(&format!("/model/{}/converse", ARN.replace('/', "%2f")), messages().to_string()),
                format!("/model/{}/converse", ARN.replace('/', "%2f")),
            ),
        ] {
            simulator.clear_billed();
            let answer = proxy.call(&asked).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(answer.header("x-dheera-ai-model-id"), Some(ARN), "{}", asked.path);
            let record = proxy.record(answer.call_id()).await;
            assert_eq!((&record["cost_nano_usd"], &record["model_id"]), (&json!(cost), &json!(ARN)), "{record}");
            assert_eq!(simulator.billed().total_nano_usd, cost, "{base}");
            let sent = simulator.requests().into_iter().rfind(|one| one.service == Some("bedrock-runtime")).unwrap();
            assert_eq!((sent.path, sent.model.as_deref()), (path, Some(ARN)));
        }
        // Once for the deployment, once for clients.
        assert_eq!(simulator.counters().profile_lookups, 2);
        let metrics = proxy.metrics().await;
        assert_eq!((metrics.sum(LOOKUPS, &[("result", "found")]), metrics.sum(LOOKUPS, &[])), (2, 2));
        assert_eq!((metrics.sum(UNPRICED, &[]), simulator.counters().authentication_failures), (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listed_profile_is_looked_up_before_anybody_calls_it() {
    let rig = Rig::with(&[Entry::new("profile", ARN), Entry::new("claude", SONNET)], "").await;
    let found = || (rig.simulator.counters().profile_lookups == 1).then_some(());
    eventually("the look-up at the start", found).await;
    let deadline = Instant::now() + DEADLINE;
    loop {
        let info = rig.proxy.call(&Asked::get("/model/info")).await.json();
        let shown: Vec<_> = info["data"].as_array().unwrap().iter().map(|one| &one["price"]).collect();
        if shown == ["price book", "price book"] {
            break;
        }
        assert!(Instant::now() < deadline, "{info}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Models that say what they are cause none, and neither does what generates nothing.
    rig.proxy.assert_serves(CLAUDE).await;
    let count = Asked::post(
        &format!("/model/{ENCODED}/count-tokens"),
        json!({ "input": { "converse": messages() } }).to_string(),
    );
    assert_eq!(rig.proxy.call(&count).await.status, 200);
    assert_eq!(rig.proxy.call(&converse("profile", &messages())).await.status, 200);
    assert_eq!(rig.simulator.counters().profile_lookups, 1);
}

/// A stand whose look-ups are refused.
async fn denied() -> Stand {
    let mut plan = Plan::new(Store::Embedded);
    let own_price = &[("input_cost_per_token", "0.000001"), ("output_cost_per_token", "0.000002")];
    plan.entries.push(Entry { info: own_price, ..Entry::new("priced", ARN) });
    let stand = plan.start().await;
    stand.simulator.behave(rules(&json!([refused()])));
    stand
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_answer_of_aws_a_budget_refuses_and_says_what_to_do() {
    let stand = denied().await;
    let key = stand.key(&json!({ "max_budget": 1 })).await;
    let named = converse(&format!("{ARN}4"), &messages());
    for _ in 0..3 {
        let answer = stand.call(&key, &named).await;
        answer.assert_error(403, "AccessDeniedException");
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        for said in ["AWS answered AccessDeniedException", "bedrock:GetInferenceProfile", "model_info.base_model"] {
            assert!(message.contains(said), "{message}");
        }
        assert!(!message.contains("internal-canary"), "{message}");
        assert_eq!(stand.proxy().record(answer.call_id()).await["reason"], "unpriced_model");
    }
    // What may pass is to be tried again.
    stand
        .simulator
        .behave(rules(&json!([{ "match": { "operation": "GetInferenceProfile" }, "fault": { "kind": "reset" } }])));
    let answer = stand.call(&key, &converse(&format!("{ARN}6"), &messages())).await;
    answer.assert_error(503, "ServiceUnavailableException");
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    assert_eq!(stand.proxy().record(answer.call_id()).await["reason"], "profile_lookup");
    stand.simulator.behave(rules(&json!([refused()])));
    // A key without a limit is served, and its call has no price.
    let free = stand.key(&json!({})).await;
    let answer = stand.call(&free, &named).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(stand.proxy().record(answer.call_id()).await["unpriced"], "unpriced_model");
    let refused =
        stand.simulator.requests().into_iter().filter(|one| one.model.as_deref() == Some(&*format!("{ARN}4")));
    assert_eq!(refused.filter(|one| one.operation == Some("GetInferenceProfile")).count(), 1);
    assert!(stand.sum(LOOKUPS, &[("result", "refused")]).await >= 1);
    let log = stand.proxy().stderr();
    assert!(log.contains(&format!("{ARN}4")) && log.contains("internal-canary"), "{log}");
    // Prices of the configuration do not need the model.
    assert_eq!(
        stand
            .call(
                &key,
                &converse(
                    "priced",
                    &json!({ "messages": messages()["messages"], "inferenceConfig": { "maxTokens": 5 } })
                )
            )
            .await
            .status,
        200
    );
    stand.assert_sound().await;
}

/// A budget is charged what the models behind the profile cost, and bounded by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_holds_for_a_profile() {
    let mut plan = Plan::new(Store::Embedded);
    plan.entries.push(Entry::new("profile", ARN));
    let stand = plan.start().await;
    let key = stand.key(&json!({ "max_budget": 1, "models": ["profile"] })).await;
    let asked =
        converse("profile", &json!({ "messages": messages()["messages"], "inferenceConfig": { "maxTokens": 50 } }));
    assert_eq!(stand.call(&key, &asked).await.status, 200);
    let billed = stand.simulator.billed().total_nano_usd;
    assert!(billed > 0);
    stand.assert_spent(&key, billed).await;
    stand.assert_sound().await;
}

/// What Claude Code and consoles ask before they call a model.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_reads_profiles_and_models_whatever_models_it_may_call() {
    let stand = Plan::new(Store::Embedded).start().await;
    let keys = [
        json!({}),
        json!({ "max_budget": 0 }),
        json!({ "models": ["nova"] }),
        json!({ "allowed_regions": ["eu-*"] }),
        json!({ "models": ["nova"], "max_budget": 1, "rpm_limit": 1000 }),
    ];
    for fields in keys {
        let key = stand.key(&fields).await;
        for path in [
            "/inference-profiles?type=SYSTEM_DEFINED",
            &format!("/inference-profiles/{ENCODED}"),
            "/inference-profiles/us.amazon.nova-pro-v1%3A0",
            "/foundation-models",
            "/foundation-models?byProvider=Anthropic",
            "/foundation-models/amazon.nova-pro-v1%3A0",
        ] {
            for prefix in ["", "/bedrock"] {
                stand.simulator.clear_requests();
                let answer = stand.call(&key, &Asked::get(&format!("{prefix}{path}"))).await;
                assert_eq!(answer.status, 200, "{fields} {path}: {answer:?}");
                let sent = stand.simulator.requests().remove(0);
                let query = if sent.query.is_empty() { String::new() } else { format!("?{}", sent.query) };
                assert_eq!((sent.service, format!("{}{query}", sent.path)), (Some("bedrock"), path.to_owned()));
            }
        }
        assert_eq!(stand.spent(&key).await, 0);
    }
    // What its policy says about operations and paths holds for reads, too.
    for fields in [json!({ "allowed_operations": ["Converse"] }), json!({ "allowed_routes": ["/model/*/converse"] })] {
        let key = stand.key(&fields).await;
        stand.call(&key, &Asked::get("/foundation-models")).await.assert_error(403, "AccessDeniedException");
    }
    // And a region that the key may not use still serves it no model.
    let key = stand.key(&json!({ "allowed_regions": ["eu-*"] })).await;
    stand.call(&key, &converse(NOVA, &messages())).await.assert_error(403, "AccessDeniedException");
}

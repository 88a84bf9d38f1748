//! What callers and operators are told of budgets; calls that cost nothing, or nobody knows what.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::{
    Asked, Entry, Plan, Store, converse, dollars, eventually, header_nano, nano, on_both_stores, rules,
};

on_both_stores! {
    answers_tell_the_state_of_the_budget,
    a_soft_budget_warns_once,
    free_calls_pass_and_unknown_costs_do_not,
    costs_that_the_operator_sets,
}

async fn answers_tell_the_state_of_the_budget(store: Store) {
    let stand = Plan::new(store).start().await;
    stand.simulator.behave(rules(&json!([{ "usage": { "input": 10, "output": 50 } }])));
    let asked = converse("claude", "converse", 100);
    let bound = u64::try_from(asked.body.len()).unwrap() * 3_000 + 1_500_000;
    let limit = 100_000_000;
    let key = stand.key(&json!({ "max_budget": dollars(limit), "key_alias": "told" })).await;
    for call in 1..=3 {
        let answer = stand.call(&key, &asked).await;
        assert_eq!(header_nano(&answer, "x-dheera-ai-response-cost"), 780_000);
        assert_eq!(header_nano(&answer, "x-dheera-ai-key-spend"), call * 780_000, "with this call in it");
        assert_eq!(header_nano(&answer, "x-dheera-ai-key-max-budget"), limit);
        assert_eq!(header_nano(&answer, "x-dheera-ai-key-remaining"), limit - call * 780_000);
        assert_eq!(answer.header("x-dheera-ai-budget-warning"), None);
        stand.spent(&key).await;
    }
    let stream = stand.call(&key, &converse("claude", "converse-stream", 100)).await;
    assert_eq!(header_nano(&stream, "x-dheera-ai-key-spend"), 3 * 780_000, "before the stream");
    // With what is set aside for it.
    assert_eq!(header_nano(&stream, "x-dheera-ai-key-remaining"), limit - 3 * 780_000 - bound);
    stand.assert_sound().await;
    let labels = [("scope", "key"), ("name", "told")];
    assert_eq!(stand.sum("dheera_ai_budget_limit_nano_usd", &labels).await, limit);
    stand.assert_spent(&key, 4 * 780_000).await;
    assert_eq!(stand.sum("dheera_ai_budget_spent_nano_usd", &labels).await, 4 * 780_000);
    assert_eq!(stand.sum("dheera_ai_store_up", &[]).await, 1);
    let scrape = stand.proxy().call(&Asked::get("/metrics")).await.text();
    for name in [
        "budget_reserved_nano_usd",
        "budget_overrun_nano_usd_total",
        "leases_open",
        "leases_expired",
        "journal_backlog",
        "store_up",
        "store_request_duration_seconds_bucket",
    ] {
        assert!(scrape.contains(&format!("\ndheera_ai_{name}")), "no {name} in\n{scrape}");
    }
    // A key without a budget has a spend and nothing else.
    let unlimited = stand.key(&json!({})).await;
    let answer = stand.call(&unlimited, &asked).await;
    assert_eq!(answer.header("x-dheera-ai-key-max-budget"), None);
    assert_eq!(answer.header("x-dheera-ai-key-remaining"), None);
}

/// An HTTP server that keeps what is posted to it.
struct Hook {
    url: String,
    posted: Arc<Mutex<Vec<Value>>>,
}

impl Hook {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let posted = Arc::<Mutex<Vec<Value>>>::default();
        let into = Arc::clone(&posted);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut length = 0;
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                    if line.trim().is_empty() {
                        break;
                    }
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                into.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
                stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").unwrap();
            }
        });
        Self { url, posted }
    }

    fn posted(&self) -> Vec<Value> {
        self.posted.lock().unwrap().clone()
    }
}

async fn a_soft_budget_warns_once(store: Store) {
    let hook = Hook::start();
    let rest = format!("general_settings:\n  soft_budget_webhook_url: {}\n", hook.url);
    let proxies = if store == Store::Redis { 2 } else { 1 };
    let stand = Plan::new(store).rest(&rest).proxies(proxies).start().await;
    stand.simulator.behave(rules(&json!([{ "usage": { "input": 10, "output": 50 } }])));
    let asked = converse("claude", "converse", 100);
    let soft = 2 * 780_000;
    let key = stand.key(&json!({ "soft_budget": dollars(soft), "max_budget": 1, "key_alias": "soft" })).await;
    assert_eq!(stand.call(&key, &asked).await.status, 200);
    stand.spent(&key).await;
    assert_eq!((hook.posted().len(), stand.sum("dheera_ai_soft_budget_reached_total", &[]).await), (0, 0));
    assert_eq!(stand.call(&key, &asked).await.status, 200);
    eventually("the webhook", || (!hook.posted().is_empty()).then_some(())).await;
    let mut warned = 0;
    for _ in 0..10 {
        let answer = stand.call(&key, &asked).await;
        assert_eq!(answer.status, 200, "a soft budget refuses nothing");
        warned += u32::from(answer.header("x-dheera-ai-budget-warning") == Some("soft_budget_reached"));
        stand.spent(&key).await;
    }
    println!("{warned} of 10 answers warned");
    // A second key, without any limit, reaches its own: when that has been told, the first had every chance to be told
    // again.
    let other = stand.key(&json!({ "soft_budget": dollars(1) })).await;
    assert_eq!(stand.call(&other, &asked).await.status, 200);
    eventually("the second webhook", || (hook.posted().len() > 1).then_some(())).await;
    stand.assert_sound().await;
    let posted = hook.posted();
    assert_eq!(posted.len(), 2, "{posted:?}");
    let told = &posted[0];
    assert_eq!(
        (&told["event"], &told["scope"], &told["id"]),
        (&json!("soft_budget_reached"), &json!("key"), &json!(key.id))
    );
    assert_eq!((&told["alias"], nano(&told["soft_budget_usd"])), (&json!("soft"), soft), "{told}");
    assert!(nano(&told["spent_usd"]) >= soft, "{told}");
    assert_eq!(stand.sum("dheera_ai_soft_budget_reached_total", &[("scope", "key")]).await, 2);
    let logged = stand.proxies.iter().map(|proxy| proxy.stderr().matches("soft budget").count()).sum::<usize>();
    assert!(logged >= 2, "{}", stand.proxy().stderr());
    assert!(warned >= 9, "{warned} of 10 answers warned");
}

const APPLY_GUARDRAIL: &str = "/guardrail/gr1/version/1/apply";

fn generate() -> Asked {
    let knowledge_base = json!({ "knowledgeBaseId": "KB1", "modelArn": "us.amazon.nova-pro-v1:0" });
    let how = json!({ "type": "KNOWLEDGE_BASE", "knowledgeBaseConfiguration": knowledge_base });
    let body = json!({ "input": { "text": "Hi" }, "retrieveAndGenerateConfiguration": how });
    Asked::post("/retrieveAndGenerate", body.to_string())
}

fn guard() -> Asked {
    Asked::post(APPLY_GUARDRAIL, json!({ "source": "INPUT", "content": [{ "text": { "text": "x" } }] }).to_string())
}

async fn free_calls_pass_and_unknown_costs_do_not(store: Store) {
    let stand = Plan::new(store).start().await;
    let exhausted = stand.key(&json!({ "max_budget": 0 })).await;
    let count = json!({ "input": { "converse": { "messages": [{ "role": "user", "content": [{ "text": "Hi" }] }] } } });
    for free in [
        Asked::get("/guardrails"),
        Asked::get("/foundation-models"),
        Asked::post("/model/claude/count-tokens", count.to_string()),
    ] {
        let answer = stand.call(&exhausted, &free).await;
        assert_eq!(answer.status, 200, "{}: {answer:?}", free.path);
    }
    for costs in [guard(), converse("claude", "converse", 1), converse("claude", "converse-stream", 1)] {
        stand.call(&exhausted, &costs).await.assert_error(400, "ServiceQuotaExceededException");
    }
    let key = stand.key(&json!({ "max_budget": 1 })).await;
    assert_eq!(stand.call(&key, &guard()).await.status, 200);
    stand.spent(&key).await;
    // One text unit of four policies: see `costs`.
    stand.assert_spent(&key, stand.simulator.billed().total_nano_usd).await;
    assert!(stand.spent(&key).await > 0);
    for (asked, reason) in
        [(converse("cohere.command-r-v1:0", "converse", 10), "unpriced_model"), (generate(), "unpriced_operation")]
    {
        let refused = stand.call(&key, &asked).await;
        refused.assert_error(403, "AccessDeniedException");
        let record = stand.proxy().record(refused.call_id()).await;
        assert_eq!(record["reason"], reason, "{record}");
    }
    stand.assert_sound().await;
}

async fn costs_that_the_operator_sets(store: Store) {
    let rest = "general_settings:\n  unpriced: allow\n  operation_prices:\n    RetrieveAndGenerate: 0.02\n";
    let mut plan = Plan::new(store).rest(rest);
    let info = &[("input_cost_per_token", "0.000001"), ("output_cost_per_token", "0.000002")];
    plan.entries.push(Entry { name: "command", model: "bedrock/cohere.command-r-v1:0", params: &[], info });
    let stand = plan.start().await;
    stand.simulator.behave(rules(&json!([{ "usage": { "input": 10, "output": 5 } }])));
    let key = stand.key(&json!({ "max_budget": 0.03 })).await;
    assert_eq!(stand.call(&key, &converse("cohere.command-r-v1:0", "converse", 10)).await.status, 200);
    stand.spent(&key).await;
    stand.assert_spent(&key, 0).await;
    assert_eq!(stand.call(&key, &converse("command", "converse", 10)).await.status, 200);
    stand.spent(&key).await;
    stand.assert_spent(&key, 20_000).await;
    let answer = stand.call(&key, &generate()).await;
    assert_eq!((answer.status, header_nano(&answer, "x-dheera-ai-response-cost")), (200, 20_000_000));
    stand.spent(&key).await;
    stand.assert_spent(&key, 20_020_000).await;
    stand.call(&key, &generate()).await.assert_error(400, "ServiceQuotaExceededException");
    stand.assert_sound().await;
}

//! Virtual keys, end to end: the users' own steps, what a key may call, and how soon a change counts.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{
    Answer, Asked, Entry, Key, MASTER_KEY, Plan, Stand, Store, converse, eventually, on_both_stores, rules,
};

on_both_stores! {
    the_first_steps_of_a_user,
    a_key_may_call_what_its_lists_allow,
    regions_choose_among_deployments,
    changes_count_within_a_second,
    no_secret_is_shown,
}

const COHERE: &str = "/bedrock/model/cohere.command-r-v1:0/converse";

/// Master key, `POST /key/generate`, the key in a call; and what a mistake is answered.
async fn the_first_steps_of_a_user(store: Store) {
    let mut stand = Plan::new(store).start().await;
    let generate = Asked::method("POST", "/key/generate", "{}").bare();
    let generate =
        generate.with("authorization", &format!("Bearer {MASTER_KEY}")).with("content-type", "application/json");
    let made = stand.proxy().call(&generate).await;
    assert_eq!(made.status, 200, "{made:?}");
    let made = made.json();
    let key = made["key"].as_str().unwrap();
    assert!(key.starts_with("sk-"), "{key}");
    assert_eq!(made["token"].as_str().map(str::len), Some(64), "{made}");
    let asked = Asked::converse(COHERE);
    let answer = stand.proxy().call(&asked.clone().by(key)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.json()["output"]["message"]["content"][0]["text"].is_string());
    let record = stand.proxy().record(answer.call_id()).await;
    assert_eq!(record["key_id"], made["key_id"]);
    for (sent, said) in [
        ("sk-0123456789012345678901", "not valid"),
        (&key.replace("sk-", "sk-x"), "not valid"),
        ("nonsense", "not valid"),
        ("sk-short", "not valid"),
    ] {
        let refused = stand.proxy().call(&asked.clone().by(sent)).await;
        refused.assert_error(403, "AccessDeniedException");
        assert!(refused.json()["message"].as_str().unwrap().contains(said), "{sent}: {refused:?}");
    }
    let missing = stand.proxy().call(&asked.clone().bare()).await;
    missing.assert_error(403, "AccessDeniedException");
    assert!(missing.json()["message"].as_str().unwrap().contains("Authorization: Bearer"), "{missing:?}");
    // A key that is none is refused without the store: with one that cannot be asked, only what might be a key has to
    // wait.
    if store == Store::Redis {
        // The notice that this key was made comes back from the store, and makes the proxy read it anew.
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert_eq!(stand.proxy().call(&asked.clone().by(key)).await.status, 200);
        stand.redis.as_mut().unwrap().kill9();
        for sent in ["nonsense", "sk-short", "sk-with spaces in it and more"] {
            let refused = stand.proxy().call(&asked.clone().by(sent)).await;
            refused.assert_error(403, "AccessDeniedException");
        }
        let waits = stand.proxy().call(&asked.clone().by("sk-never-seen-before-0123")).await;
        waits.assert_error(503, "ServiceUnavailableException");
        assert_eq!(waits.header("retry-after"), Some("1"));
        // The key of before is known.
        assert_eq!(stand.proxy().call(&asked.by(key)).await.status, 200);
    }
}

/// Refused with this reason; the message says what is allowed.
async fn assert_denied(stand: &Stand, key: &Key, asked: &Asked, reason: &str, said: &str) {
    let refused = stand.call(key, asked).await;
    refused.assert_error(403, "AccessDeniedException");
    assert!(refused.json()["message"].as_str().unwrap().contains(said), "{said}: {refused:?}");
    let record = stand.proxy().record(refused.call_id()).await;
    assert_eq!(record["reason"], reason, "{record}");
}

async fn assert_served(stand: &Stand, key: &Key, asked: &Asked) -> Answer {
    let answer = stand.call(key, asked).await;
    assert_eq!(answer.status, 200, "{}: {answer:?}", asked.path);
    answer
}

async fn a_key_may_call_what_its_lists_allow(store: Store) {
    let stand = Plan::new(store).start().await;
    let claude = converse("claude", "converse", 10);
    let nova = converse("nova", "converse", 10);
    let stream = converse("claude", "converse-stream", 10);
    let direct = converse("amazon.nova-lite-v1%3A0", "converse", 10);

    let key = stand.key(&json!({ "models": ["claude"] })).await;
    assert_served(&stand, &key, &claude).await;
    for other in [&nova, &direct] {
        assert_denied(&stand, &key, other, "model_not_allowed", "Allowed models: claude").await;
    }
    let listed = stand.proxy().call(&Asked::get("/v1/models").by(&key.secret)).await;
    let names: Vec<_> = listed.json()["data"].as_array().unwrap().iter().map(|model| model["id"].clone()).collect();
    assert_eq!(names, [json!("claude")]);

    // An alias is another name, and allows nothing by itself.
    let key = stand.key(&json!({ "models": ["claude"], "aliases": { "mine": "claude", "theirs": "nova" } })).await;
    let mine = assert_served(&stand, &key, &converse("mine", "converse", 10)).await;
    assert_eq!(stand.proxy().record(mine.call_id()).await["model_name"], "claude");
    assert_denied(&stand, &key, &converse("theirs", "converse", 10), "model_not_allowed", "Allowed models").await;

    // The team's list holds besides the key's.
    stand.post("/team/new", &json!({ "team_id": "t", "models": ["nova"] })).await;
    let key = stand.key(&json!({ "team_id": "t", "models": ["claude", "nova"] })).await;
    assert_served(&stand, &key, &nova).await;
    assert_denied(&stand, &key, &claude, "model_not_allowed", "team").await;

    let key = stand.key(&json!({ "allowed_operations": ["Converse", "bedrock:List*"] })).await;
    assert_served(&stand, &key, &claude).await;
    assert_served(&stand, &key, &Asked::get("/guardrails")).await;
    assert_denied(&stand, &key, &stream, "operation_not_allowed", "Allowed operations: Converse").await;

    let key = stand.key(&json!({ "allowed_routes": ["/model/*/converse"] })).await;
    assert_served(&stand, &key, &claude).await;
    assert_denied(&stand, &key, &stream, "route_not_allowed", "Allowed paths: /model/*/converse").await;

    // Reading the control plane is allowed, writing there is not, unless it is named.
    let create = Asked::post("/guardrails", json!({ "name": "g" }).to_string());
    let key = stand.key(&json!({})).await;
    assert_served(&stand, &key, &Asked::get("/guardrails")).await;
    assert_denied(&stand, &key, &create, "operation_not_allowed", "bedrock:CreateGuardrail").await;
    let key = stand.key(&json!({ "allowed_operations": ["CreateGuardrail"] })).await;
    let created = stand.call(&key, &create).await;
    assert!((200..300).contains(&created.status), "{created:?}");

    // A virtual key manages nothing and sees itself only.
    let other = stand.key(&json!({})).await;
    for asked in [
        Asked::post("/key/generate", "{}"),
        Asked::get("/key/list"),
        Asked::get(&format!("/key/info?key={}", other.id)),
        Asked::post("/key/delete", json!({ "keys": [other.id] }).to_string()),
        Asked::get("/metrics"),
    ] {
        let refused = stand.proxy().call(&asked.by(&key.secret)).await;
        assert!(matches!(refused.status, 401 | 403), "{refused:?}");
    }
    let own = stand.proxy().call(&Asked::get("/key/info").by(&key.secret)).await;
    assert_eq!(own.json()["info"]["key_id"], key.id, "{own:?}");
    assert_eq!(stand.simulator.counters().authentication_failures, 0);
}

async fn regions_choose_among_deployments(store: Store) {
    let model = "bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0";
    let in_region = |region| Entry { name: "both", model, params: region, info: &[] };
    let mut plan = Plan::new(store);
    plan.entries.push(in_region(&[("aws_region_name", "us-east-1")]));
    plan.entries.push(in_region(&[("aws_region_name", "eu-west-1")]));
    let stand = plan.start().await;
    let both = converse("both", "converse", 10);
    let key = stand.key(&json!({ "allowed_regions": ["eu-*"] })).await;
    for _ in 0..10 {
        let answer = assert_served(&stand, &key, &both).await;
        assert_eq!(answer.header("x-dheera-ai-region"), Some("eu-west-1"));
    }
    assert_denied(&stand, &key, &converse("claude", "converse", 10), "region_not_allowed", "eu-*").await;
    // A customer's regions hold for whoever calls.
    stand.post("/customer/new", &json!({ "user_id": "swiss", "allowed_regions": ["eu-central-2"] })).await;
    let for_customer = both.clone().with("x-dheera-ai-end-user-id", "swiss");
    let key = stand.key(&json!({})).await;
    assert_denied(&stand, &key, &for_customer, "region_not_allowed", "eu-central-2").await;
    assert_served(&stand, &key, &both).await;
}

/// Waits until every proxy answers a call with this secret so; gives the time that took.
async fn until(stand: &Stand, what: &str, secret: &str, status: u16, reason: Option<&str>) -> Duration {
    let begun = Instant::now();
    let asked = converse("claude", "converse", 10).by(secret);
    for proxy in &stand.proxies {
        loop {
            let answer = proxy.call(&asked).await;
            let told = match reason {
                Some(reason) if answer.status == status => proxy.record(answer.call_id()).await["reason"] == reason,
                _ => true,
            };
            if answer.status == status && told {
                break;
            }
            assert!(begun.elapsed() < crate::support::DEADLINE, "{what}: {answer:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    begun.elapsed()
}

/// At the replica that changes it at once, at others within a poll.
async fn changes_count_within_a_second(store: Store) {
    let proxies = if store == Store::Redis { 2 } else { 1 };
    let stand = Plan::new(store).proxies(proxies).start().await;
    stand.post("/team/new", &json!({ "team_id": "t" })).await;
    stand.post("/user/new", &json!({ "user_id": "u" })).await;
    let key = stand.key(&json!({ "team_id": "t", "user_id": "u" })).await;
    until(&stand, "a new key", &key.secret, 200, None).await;
    let mut slowest = Duration::ZERO;
    let of_key = || json!({ "key": key.id });
    let steps: [(&str, Value, u16, Option<&str>); 10] = [
        ("/key/block", of_key(), 403, Some("key_blocked")),
        ("/key/unblock", of_key(), 200, None),
        ("/team/block", json!({ "team_id": "t" }), 403, Some("team_blocked")),
        ("/team/unblock", json!({ "team_id": "t" }), 200, None),
        ("/user/block", json!({ "user_id": "u" }), 403, Some("user_blocked")),
        ("/user/unblock", json!({ "user_id": "u" }), 200, None),
        ("/key/update", json!({ "key": key.id, "models": ["nova"] }), 403, Some("model_not_allowed")),
        ("/key/update", json!({ "key": key.id, "models": [], "max_budget": 0 }), 400, Some("over_budget")),
        ("/key/update", json!({ "key": key.id, "max_budget": null, "rpm_limit": 0 }), 429, Some("rpm_limit")),
        ("/key/update", json!({ "key": key.id, "rpm_limit": null }), 200, None),
    ];
    for (path, body, status, reason) in steps {
        stand.post(path, &body).await;
        slowest = slowest.max(until(&stand, path, &key.secret, status, reason).await);
    }
    // A new secret: with a grace period the old one is valid as well, and then no more.
    let renewed = stand.post(&format!("/key/{}/regenerate", key.id), &json!({ "grace_period": "3s" })).await;
    let regenerated = Instant::now();
    let second = renewed["key"].as_str().unwrap().to_owned();
    slowest = slowest.max(until(&stand, "the new secret", &second, 200, None).await);
    if regenerated.elapsed() < Duration::from_secs(2) {
        let old = stand.proxy().call(&converse("claude", "converse", 10).by(&key.secret)).await;
        assert_eq!(old.status, 200, "within its grace period: {old:?}");
    }
    until(&stand, "the end of the grace period", &key.secret, 403, None).await;
    let ended = regenerated.elapsed();
    assert!(ended >= Duration::from_millis(2_900), "{ended:?}");
    // Without one the old secret ends at once.
    let renewed = stand.post("/key/regenerate", &json!({ "key": key.id })).await;
    let third = renewed["key"].as_str().unwrap().to_owned();
    slowest = slowest.max(until(&stand, "the old secret", &second, 403, Some("key_unknown")).await);
    slowest = slowest.max(until(&stand, "the newest secret", &third, 200, None).await);
    stand.post("/key/delete", &json!({ "keys": [key.id] })).await;
    slowest = slowest.max(until(&stand, "a deleted key", &third, 403, Some("key_unknown")).await);
    // A key that ends by itself.
    let made = Instant::now();
    let brief = stand.key(&json!({ "duration": "2s" })).await;
    until(&stand, "a key for two seconds", &brief.secret, 403, Some("key_expired")).await;
    assert!(made.elapsed() >= Duration::from_millis(1_900), "{:?}", made.elapsed());
    println!("the slowest change counted after {slowest:?}; the grace period of 3 s ended after {ended:?}");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
}

/// Not even at the finest log level: no key, none of the digests by which the store knows keys, no password of Redis.
async fn no_secret_is_shown(store: Store) {
    const PASSWORD: &str = "redis-password-canary-0007";
    let mut plan = Plan::new(store);
    plan.redis_password = Some(PASSWORD);
    plan.variables.push(("RUST_LOG", "trace".to_owned()));
    let mut stand = plan.start().await;
    stand.simulator.behave(rules(&json!([{ "tokens": "bytes" }])));
    let asked = converse("claude", "converse", 10);
    let own = "sk-own-secret-canary-0008";
    let chosen = stand.key(&json!({ "key": own, "max_budget": 1, "key_alias": "chosen" })).await;
    let made = stand.key(&json!({ "rpm_limit": 2 })).await;
    let unknown = "sk-unknown-canary-0009-0009";
    for key in [&chosen, &made] {
        for _ in 0..3 {
            stand.call(key, &asked).await;
        }
    }
    let as_access_key = format!(
        "AWS4-HMAC-SHA256 Credential={own}/20261123/us-east-1/bedrock/aws4_request, SignedHeaders=host, Signature=00"
    );
    for asked in [
        asked.clone().by(unknown),
        asked.clone().bare().with("x-api-key", own).with("content-type", "application/json"),
        asked.clone().bare().with("authorization", &as_access_key).with("content-type", "application/json"),
        Asked::get("/key/info").by(own),
        Asked::get(&format!("/key/info?key={own}")),
        Asked::get(&format!("/key/info?key={unknown}")),
        Asked::post("/key/generate", json!({ "key": own }).to_string()),
        Asked::post("/key/update", json!({ "key": unknown, "models": 7 }).to_string()),
    ] {
        stand.proxy().call(&asked).await;
    }
    let renewed = stand.post("/key/regenerate", &json!({ "key": made.id, "grace_period": "1m" })).await;
    let newest = renewed["key"].as_str().unwrap().to_owned();
    stand.proxy().call(&asked.clone().by(&newest)).await;
    let mut shown = vec![
        ("/key/list", stand.get("/key/list?return_full_object=true").await.to_string()),
        ("/key/info", stand.info(&chosen).await.to_string()),
        ("/metrics", stand.proxy().call(&Asked::get("/metrics")).await.text()),
        ("/spend/keys", stand.proxy().call(&Asked::get("/spend/keys")).await.text()),
    ];
    if let Some(redis) = &mut stand.redis {
        redis.kill9();
        stand.proxy().call(&asked.clone().by(own)).await;
        eventually("the outage in the log", || stand.proxy().stderr().contains("store").then_some(())).await;
    }
    stand.proxies[0].signal(nix::sys::signal::Signal::SIGTERM);
    stand.proxies[0].ended().await;
    shown.push(("the records", stand.proxy().stdout()));
    shown.push(("the log", stand.proxy().stderr()));
    let secrets = [own, &made.secret, unknown, &newest, MASTER_KEY];
    let digests = secrets.map(|secret| {
        Sha256::digest(secret.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
    });
    for (place, text) in shown {
        assert!(text.len() > 20, "{place} is empty");
        // The management API names keys by their digests, LiteLLM's `token`.
        let digests: &[String] = if place.starts_with("/key") { &[] } else { &digests };
        let forbidden = secrets.into_iter().chain(digests.iter().map(String::as_str)).chain([PASSWORD]);
        for secret in forbidden {
            let line = text.lines().find(|line| line.contains(secret));
            let line = line.map(|line| line.chars().take(600).collect::<String>());
            assert_eq!(line, None, "{place} shows {secret}");
        }
    }
}

//! More calls at once than a limit allows: exactly as many as it allows get through, with one proxy or several.

use serde_json::json;

use crate::support::{Plan, Stand, Store, converse, dollars, nano, on_both_stores, rules, served, told};

const CALLS: usize = 40;
const AT_ONCE: usize = 120;

on_both_stores! {
    a_budget_of_forty_calls_serves_forty,
    what_calls_really_cost_is_charged,
    forty_requests_a_minute,
    seven_at_a_time,
    tokens_a_minute,
    keys_of_a_team_share_its_budget,
    limits_of_teams_and_of_everybody,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_proxies_share_a_budget() {
    for proxies in [2, 3] {
        exact_burst(&Plan::new(Store::Redis).proxies(proxies).start().await).await;
        ordinary_burst(&Plan::new(Store::Redis).proxies(proxies).start().await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_proxies_share_rates() {
    for proxies in [2, 3] {
        let stand = Plan::new(Store::Redis).proxies(proxies).start().await;
        requests_a_minute(&stand).await;
        at_a_time(&stand).await;
    }
}

async fn a_budget_of_forty_calls_serves_forty(store: Store) {
    exact_burst(&Plan::new(store).start().await).await;
}

async fn what_calls_really_cost_is_charged(store: Store) {
    ordinary_burst(&Plan::new(store).start().await).await;
}

async fn forty_requests_a_minute(store: Store) {
    requests_a_minute(&Plan::new(store).start().await).await;
}

async fn seven_at_a_time(store: Store) {
    at_a_time(&Plan::new(store).start().await).await;
}

/// Calls that cost their bound: every one of the forty fits, and not one more.
async fn exact_burst(stand: &Stand) {
    stand.simulator.behave(rules(&json!([{ "tokens": "bytes", "delay_ms": 300 }])));
    let asked = converse("claude", "converse", 200);
    let cost = stand.cost(&asked).await;
    let key = stand.key(&json!({ "max_budget": dollars(cost * 40) })).await;
    let mut answers = stand.burst(&key, &asked, AT_ONCE).await;
    assert_eq!(served(&answers), CALLS, "{:?}", told(&answers));
    for _ in 0..10 {
        answers.push(stand.call(&key, &asked).await);
    }
    assert_eq!(served(&answers), CALLS, "{:?}", told(&answers));
    for refused in answers.iter().filter(|answer| answer.status != 200) {
        refused.assert_error(400, "ServiceQuotaExceededException");
        assert_eq!(refused.header("x-should-retry"), Some("false"));
        assert!(refused.json()["message"].as_str().unwrap().contains("this key"), "{refused:?}");
    }
    stand.assert_sound().await;
    let billed = stand.simulator.billed();
    // The probe is one more.
    assert_eq!((billed.count, billed.total_nano_usd), (41, 41 * cost));
    stand.spent(&key).await;
    let info = stand.info(&key).await;
    assert_eq!((nano(&info["spend"]), nano(&info["reserved"])), (40 * cost, 0), "{info}");
    let denied = u64::try_from(AT_ONCE + 10 - CALLS).unwrap();
    assert_eq!(stand.sum("dheera_ai_denied_total", &[("reason", "over_budget"), ("scope", "key")]).await, denied);
}

/// Calls that cost less than their bound: the rest of each reservation comes back.
async fn ordinary_burst(stand: &Stand) {
    let text = "word ".repeat(100);
    stand.simulator.behave(rules(&json!([{ "text": text, "delay_ms": 300 }])));
    let asked = converse("claude", "converse", 60);
    let cost = stand.cost(&asked).await;
    let key = stand.key(&json!({ "max_budget": dollars(cost * 40) })).await;
    let mut answers = stand.burst(&key, &asked, AT_ONCE).await;
    let at_once = served(&answers);
    assert!(at_once < CALLS, "the calls cost their bound");
    stand.spent(&key).await;
    loop {
        let answer = stand.call(&key, &asked).await;
        let refused = answer.status != 200;
        answers.push(answer);
        if refused {
            break;
        }
    }
    let in_all = served(&answers);
    println!("{at_once} at once, {in_all} in all");
    assert!((38..=CALLS).contains(&in_all), "{:?}", told(&answers));
    let refusals = told(&answers);
    assert_eq!(refusals.keys().filter(|(status, _)| *status != 200).count(), 1, "{refusals:?}");
    stand.assert_sound().await;
    let spent = stand.spent(&key).await;
    assert_eq!(spent, cost * u64::try_from(in_all).unwrap());
    assert_eq!(stand.simulator.billed().total_nano_usd, spent + cost);
}

async fn requests_a_minute(stand: &Stand) {
    stand.simulator.behave(rules(&json!([{ "delay_ms": 100 }])));
    let key = stand.key(&json!({ "rpm_limit": 40 })).await;
    let answers = stand.burst(&key, &converse("claude", "converse", 10), AT_ONCE).await;
    assert_eq!(served(&answers), CALLS, "{:?}", told(&answers));
    assert_limited(&answers, "40 requests a minute");
    stand.assert_sound().await;
    assert_eq!(stand.sum("dheera_ai_denied_total", &[("reason", "rpm_limit"), ("scope", "key")]).await, 80);
}

/// 120 clients that try again until they are served.
async fn at_a_time(stand: &Stand) {
    stand.simulator.behave(rules(&json!([{ "delay_ms": 50 }])));
    let before = stand.simulator.max_concurrent();
    let key = stand.key(&json!({ "max_parallel_requests": 7 })).await;
    let other = stand.simulator.max_concurrent();
    assert_eq!(before, other);
    let asked = converse("nova", "converse", 10);
    let first = stand.burst(&key, &asked, AT_ONCE).await;
    assert!(served(&first) >= 7, "{:?}", told(&first));
    assert_limited(&first, "7 requests at a time");
    let mut left = AT_ONCE - served(&first);
    while left > 0 {
        let answers = stand.burst(&key, &asked, left).await;
        assert_limited(&answers, "7 requests at a time");
        left -= served(&answers);
    }
    let most = stand.simulator.max_concurrent().by_model["us.amazon.nova-pro-v1:0"];
    assert_eq!(most, 7, "as many as allowed, and never more");
    stand.assert_sound().await;
}

/// A call counts its bound when it begins and what it took when it ends.
async fn tokens_a_minute(store: Store) {
    let stand = Plan::new(store).start().await;
    stand.simulator.behave(rules(&json!([{ "usage": { "input": 60, "output": 40 } }])));
    let key = stand.key(&json!({ "tpm_limit": 1000 })).await;
    let asked = converse("claude", "converse", 100);
    let bound = asked.body.len() + 100;
    let mut served = 0;
    let refused = loop {
        let answer = stand.call(&key, &asked).await;
        if answer.status != 200 {
            break answer;
        }
        served += 1;
        stand.spent(&key).await;
    };
    // As long as what was taken and the bound of one more stay within the limit.
    let expected = (1000 - bound) / 100 + 1;
    assert_eq!(served, expected, "{refused:?}");
    assert_limited(&[refused], "1000 tokens a minute");
    // One that is larger than the limit waits for an empty minute, not for ever.
    let large = stand.key(&json!({ "tpm_limit": 50 })).await;
    assert_eq!(stand.call(&large, &asked).await.status, 200);
    assert_limited(&[stand.call(&large, &asked).await], "50 tokens a minute");
}

fn assert_limited(answers: &[crate::support::Answer], what: &str) {
    for limited in answers.iter().filter(|answer| answer.status != 200) {
        limited.assert_error(429, "ThrottlingException");
        assert!(limited.json()["message"].as_str().unwrap().contains(what), "{limited:?}");
        let after: u64 = limited.header("retry-after").expect("Retry-After").parse().unwrap();
        assert!((1..=65).contains(&after), "{limited:?}");
        let precise: u64 = limited.header("x-amz-retry-after").expect("x-amz-retry-after").parse().unwrap();
        assert!(precise <= 65_000 && precise > 0, "{limited:?}");
    }
}

/// Three keys of a team at once, each with a budget of its own that would serve more.
async fn keys_of_a_team_share_its_budget(store: Store) {
    let proxies = if store == Store::Redis { 2 } else { 1 };
    let stand = Plan::new(store).proxies(proxies).start().await;
    stand.simulator.behave(rules(&json!([{ "tokens": "bytes", "delay_ms": 300 }])));
    let asked = converse("claude", "converse", 200);
    let cost = stand.cost(&asked).await;
    stand.post("/team/new", &json!({ "team_id": "t", "max_budget": dollars(cost * 40) })).await;
    let fields = json!({ "team_id": "t", "max_budget": dollars(cost * 25) });
    let keys = [stand.key(&fields).await, stand.key(&fields).await, stand.key(&fields).await];
    let bursts = keys.each_ref().map(|key| stand.burst(key, &asked, 40));
    let answers = futures::future::join_all(bursts).await;
    let by_key: Vec<_> = answers.iter().map(|answers| served(answers)).collect();
    println!("{by_key:?} of 40 each");
    assert_eq!(by_key.iter().sum::<usize>(), CALLS, "{by_key:?}");
    assert!(by_key.iter().all(|served| *served <= 25), "{by_key:?}");
    stand.assert_sound().await;
    for (key, served) in keys.iter().zip(by_key) {
        stand.assert_spent(key, cost * u64::try_from(served).unwrap()).await;
    }
    let team = stand.get("/team/info?team_id=t").await;
    let team = team.get("team_info").unwrap_or(&team);
    assert_eq!((nano(&team["spend"]), nano(&team["reserved"])), (40 * cost, 0), "{team}");
    assert_eq!(stand.simulator.billed().total_nano_usd, 41 * cost);
}

async fn limits_of_teams_and_of_everybody(store: Store) {
    let stand = Plan::new(store).rest("general_settings:\n  global_max_parallel_requests: 5\n").start().await;
    stand.post("/team/new", &json!({ "team_id": "t", "rpm_limit": 3 })).await;
    let mates = [stand.key(&json!({ "team_id": "t" })).await, stand.key(&json!({ "team_id": "t" })).await];
    let mut answers = Vec::new();
    for turn in 0..6 {
        answers.push(stand.call(&mates[turn % 2], &converse("claude", "converse", 10)).await);
    }
    assert_eq!(served(&answers), 3, "{:?}", told(&answers));
    assert_limited(&answers, "limit of this team is 3 requests a minute");
    // Calls that cost nothing count as requests.
    assert_limited(&[stand.call(&mates[0], &crate::support::Asked::get("/guardrails")).await], "3 requests a minute");
    stand.simulator.behave(rules(&json!([{ "delay_ms": 500 }])));
    let key = stand.key(&json!({})).await;
    let answers = stand.burst(&key, &converse("nova", "converse", 10), 30).await;
    assert_eq!(served(&answers), 5, "{:?}", told(&answers));
    assert_limited(&answers, "5 requests at a time");
    assert_eq!(stand.simulator.max_concurrent().by_model["us.amazon.nova-pro-v1:0"], 5);
    stand.assert_sound().await;
    assert_eq!(stand.sum("dheera_ai_denied_total", &[("reason", "parallel_limit"), ("scope", "global")]).await, 25);
}

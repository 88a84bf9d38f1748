//! Budgets that begin anew, under load: a window gives what it has and no more, and nothing is lost between two.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::support::{Connection, Http, Plan, Stand, Store, converse, dollars, nano, on_both_stores, rules};

on_both_stores! { windows_of_two_seconds_under_load }

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_of_two_seconds_under_load_of_two_proxies() {
    load(&Plan::new(Store::Redis).proxies(2).start().await).await;
}

async fn windows_of_two_seconds_under_load(store: Store) {
    load(&Plan::new(store).start().await).await;
}

const CALLS_A_WINDOW: u64 = 12;
const WINDOW_MS: u64 = 2_000;

async fn load(stand: &Stand) {
    stand.simulator.behave(rules(&json!([{ "tokens": "bytes", "delay_ms": 100 }])));
    let asked = converse("claude", "converse", 50);
    let cost = stand.cost(&asked).await;
    stand.simulator.clear_billed();
    let fields = json!({ "max_budget": dollars(cost * CALLS_A_WINDOW), "budget_duration": "2s" });
    let key = stand.key(&fields).await;
    let (stop, served, refused) =
        (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let mut clients = Vec::new();
    for number in 0..8 {
        let address = stand.proxies[number % stand.proxies.len()].address;
        let asked = asked.clone().by(&key.secret);
        let (stop, served, refused) = (Arc::clone(&stop), Arc::clone(&served), Arc::clone(&refused));
        clients.push(tokio::spawn(async move {
            let mut connection = Connection::open(address, Http::One).await;
            while !stop.load(Ordering::Relaxed) {
                let answer = connection.call(&asked).await;
                match answer.status {
                    200 => served.fetch_add(1, Ordering::Relaxed),
                    400 => refused.fetch_add(1, Ordering::Relaxed),
                    status => panic!("{status}: {answer:?}"),
                };
            }
        }));
    }
    // Until budgets of at least four windows were served.
    let windows = 4;
    crate::support::eventually("four windows", || {
        (served.load(Ordering::Relaxed) > CALLS_A_WINDOW * (windows - 1)).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(WINDOW_MS / 3)).await;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    stand.assert_sound().await;
    let (served, refused) = (served.load(Ordering::Relaxed), refused.load(Ordering::Relaxed));
    let billed = stand.simulator.billed();
    assert_eq!((billed.count, billed.total_nano_usd), (served, served * cost));
    stand.spent(&key).await;
    let info = stand.info(&key).await;
    assert_eq!(nano(&info["total_spend"]), served * cost, "{info}");
    assert_eq!(nano(&info["reserved"]), 0, "{info}");
    assert!(nano(&info["spend"]) <= cost * CALLS_A_WINDOW, "{info}");
    assert!(refused > 0, "the budget of no window was used up");
    // By the spend log, too, all of it and by windows.
    let mut by_window = std::collections::BTreeMap::<u64, u64>::new();
    let mut logged = 0;
    for entry in entries(stand).await {
        if entry["api_key"].as_str() == Some(&key.id) {
            let started = entry["startTime"].as_str().unwrap_or_else(|| panic!("{entry}"));
            let started: jiff::Timestamp = started.parse().unwrap();
            let window = u64::try_from(started.as_millisecond()).unwrap() / WINDOW_MS;
            *by_window.entry(window).or_default() += 1;
            logged += nano(&entry["spend"]);
        }
    }
    println!("{served} calls served, {refused} refused; by window {:?}", by_window.values().collect::<Vec<_>>());
    assert_eq!(logged, served * cost, "the spend log");
    assert!(by_window.len() >= 3, "{by_window:?}");
}

async fn entries(stand: &Stand) -> Vec<serde_json::Value> {
    let today = jiff::Timestamp::now();
    let day = |shift: i64| {
        let at = jiff::Timestamp::from_second(today.as_second() + shift * 86_400).unwrap();
        at.to_string()[..10].to_owned()
    };
    let mut entries = Vec::new();
    let mut token = String::new();
    loop {
        let path = format!("/spend/logs?start_date={}&end_date={}&page_size=1000{token}", day(-1), day(1));
        let page = stand.get(&path).await;
        entries.extend(page["data"].as_array().unwrap().iter().cloned());
        match page["next_page_token"].as_str() {
            None => return entries,
            Some(next) => token = format!("&page_token={next}"),
        }
    }
}

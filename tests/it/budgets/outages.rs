//! Crashes of the proxy and outages of Redis: nothing that was spent is lost, and nothing is spent that was not there.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Connection, Http, Plan, Stand, Store, converse, dollars, nano, on_both_stores, rules, served};

on_both_stores! {
    a_killed_proxy_charges_what_was_in_flight,
    a_stopped_proxy_keeps_its_books,
    a_proxy_killed_right_after_an_answer_has_booked_it,
    a_proxy_that_stops_finishes_and_books_its_streams,
}

async fn a_killed_proxy_charges_what_was_in_flight(store: Store) {
    let mut stand = Plan::new(store).start().await;
    let usage = json!({ "usage": { "input": 10, "output": 50 } });
    stand.simulator.behave(rules(&json!([usage])));
    let asked = converse("claude", "converse", 100);
    // 10 x 3000 + 50 x 15000; at most a token for each byte, and 100.
    let (cost, bound) = (780_000, u64::try_from(asked.body.len()).unwrap() * 3_000 + 1_500_000);
    // Everything fits, and then there is less left than a call may cost.
    let key = stand.key(&json!({ "max_budget": dollars(3 * cost + 6 * bound - 1), "key_alias": "in flight" })).await;
    for _ in 0..3 {
        assert_eq!(stand.call(&key, &asked).await.status, 200);
    }
    stand.spent(&key).await;
    stand.simulator.behave(rules(&json!([{ "fault": { "kind": "stall_before_header" } }])));
    let mut waiting = Vec::new();
    for _ in 0..5 {
        let mut connection = Connection::open(stand.proxy().address, Http::One).await;
        let asked = asked.clone().by(&key.secret);
        waiting.push(tokio::spawn(async move { connection.try_begin(&asked).await.is_err() }));
    }
    stand.forwarded(8).await;
    stand.kill_and_restart(0).await;
    for call in waiting {
        assert!(call.await.unwrap(), "an answer of a process that was killed");
    }
    stand.simulator.behave(rules(&json!([usage])));
    stand.spent(&key).await;
    stand.spent(&key).await;
    let info = stand.info(&key).await;
    assert_eq!(info["key_alias"], "in flight");
    assert_eq!((nano(&info["spend"]), nano(&info["reserved"])), (3 * cost + 5 * bound, 0), "{info}");
    stand.call(&key, &asked).await.assert_error(400, "ServiceQuotaExceededException");
    // More budget, and the key goes on.
    stand.post("/key/update", &json!({ "key": key.id, "max_budget": 1 })).await;
    assert_eq!(stand.call(&key, &asked).await.status, 200);
    stand.assert_sound().await;
    stand.assert_spent(&key, 4 * cost + 5 * bound).await;
    // Once more, with nothing in flight: nothing is charged twice.
    stand.kill_and_restart(0).await;
    stand.spent(&key).await;
    stand.assert_spent(&key, 4 * cost + 5 * bound).await;
}

async fn a_stopped_proxy_keeps_its_books(store: Store) {
    let mut stand = Plan::new(store).start().await;
    stand.simulator.behave(rules(&json!([{ "usage": { "input": 10, "output": 50 } }])));
    let asked = converse("claude", "converse", 100);
    let limited = stand.key(&json!({ "max_budget": 1 })).await;
    let unlimited = stand.key(&json!({})).await;
    for round in 1..=3 {
        for key in [&limited, &unlimited] {
            for _ in 0..10 {
                assert_eq!(stand.call(key, &asked).await.status, 200);
            }
        }
        stand.restart(0).await;
        stand.assert_spent(&limited, round * 10 * 780_000).await;
        stand.assert_spent(&unlimited, round * 10 * 780_000).await;
    }
    stand.assert_sound().await;
    assert_eq!(stand.simulator.billed().total_nano_usd, 60 * 780_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_goes_and_comes_back() {
    let mut stand = Plan::new(Store::Redis).proxies(2).start().await;
    stand.simulator.behave(rules(&json!([{ "usage": { "input": 10, "output": 50 } }])));
    let asked = converse("claude", "converse", 100);
    let limited = stand.key(&json!({ "max_budget": 1 })).await;
    let unlimited = stand.key(&json!({})).await;
    let (mut of_limited, mut of_unlimited) = (0, 0);
    let made = Instant::now();
    for _ in 0..10 {
        assert_eq!(stand.call(&limited, &asked).await.status, 200);
        assert_eq!(stand.call(&unlimited, &asked).await.status, 200);
        of_limited += 1;
        of_unlimited += 1;
    }
    // A replica hears of a new key within a poll of the store, and then reads it anew: that needs Redis once more.
    while made.elapsed() < Duration::from_secs(2) {
        assert_eq!(stand.call(&unlimited, &asked).await.status, 200);
        of_unlimited += 1;
    }
    for outage in ["killed", "frozen"] {
        let redis = stand.redis.as_mut().unwrap();
        if outage == "killed" {
            redis.kill9();
        } else {
            redis.freeze();
        }
        let mut slowest = Duration::ZERO;
        for _ in 0..10 {
            let begun = Instant::now();
            let refused = stand.call(&limited, &asked).await;
            let took = begun.elapsed();
            // A frozen Redis is found out by a timeout; and a slice that was taken before may still pay.
            if outage == "killed" || refused.status != 200 {
                refused.assert_error(503, "ServiceUnavailableException");
                assert_eq!(refused.header("retry-after"), Some("1"));
            } else {
                of_limited += 1;
            }
            slowest = slowest.max(took);
            assert_eq!(stand.call(&unlimited, &asked).await.status, 200, "a key without limits goes on");
            of_unlimited += 1;
        }
        println!("Redis {outage}: a call with a budget was refused within {slowest:?}");
        assert!(slowest < Duration::from_secs(if outage == "killed" { 2 } else { 4 }), "{slowest:?}");
        every_proxy_sees_that_redis_is_gone(&stand).await;
        let redis = stand.redis.as_mut().unwrap();
        let back = Instant::now();
        if outage == "killed" {
            redis.run().await;
        } else {
            redis.thaw();
        }
        for proxy in &stand.proxies {
            loop {
                let answer = proxy.call(&asked.clone().by(&limited.secret)).await;
                if answer.status == 200 {
                    of_limited += 1;
                    break;
                }
                assert_eq!(answer.status, 503, "{answer:?}");
                assert!(back.elapsed() < crate::support::DEADLINE, "the proxy does not go on");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        println!("both proxies went on {:?} later", back.elapsed());
        stand.assert_sound().await;
        stand.assert_spent(&limited, of_limited * 780_000).await;
        stand.assert_spent(&unlimited, of_unlimited * 780_000).await;
        assert_eq!(stand.simulator.billed().total_nano_usd, (of_limited + of_unlimited) * 780_000);
    }
}

/// Who was refused because his key could not be read has not asked the ledger, which finds out by itself.
async fn every_proxy_sees_that_redis_is_gone(stand: &Stand) {
    let out = Instant::now();
    while stand.sum("dheera_ai_store_up", &[]).await > 0 {
        assert!(out.elapsed() < crate::support::DEADLINE, "a proxy does not see that Redis is gone");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Nothing waits for the store before an answer is complete; the journal has it all the same.
async fn a_proxy_killed_right_after_an_answer_has_booked_it(store: Store) {
    let mut stand = Plan::new(store).start().await;
    stand.simulator.behave(rules(&json!([{ "usage": { "input": 10, "output": 50 } }])));
    let asked = converse("claude", "converse", 100);
    let limited = stand.key(&json!({ "max_budget": 1 })).await;
    let unlimited = stand.key(&json!({})).await;
    for round in 1..=5 {
        for key in [&limited, &unlimited] {
            let answers = stand.burst(key, &asked, 10).await;
            assert_eq!(served(&answers), 10);
        }
        stand.kill_and_restart(0).await;
        stand.assert_spent(&limited, round * 10 * 780_000).await;
        stand.assert_spent(&unlimited, round * 10 * 780_000).await;
    }
    stand.assert_sound().await;
    assert_eq!(stand.simulator.billed().total_nano_usd, 100 * 780_000);
}

async fn a_proxy_that_stops_finishes_and_books_its_streams(store: Store) {
    let mut stand = Plan::new(store).start().await;
    let script =
        json!([{ "frames": 30, "frame_bytes": 5, "frame_rate_hz": 30, "usage": { "input": 10, "output": 50 } }]);
    stand.simulator.behave(rules(&script));
    let key = stand.key(&json!({ "max_budget": 1 })).await;
    let asked = converse("claude", "converse-stream", 100).by(&key.secret);
    let mut streams = Vec::new();
    for _ in 0..5 {
        let mut connection = Connection::open(stand.proxy().address, Http::One).await;
        let asked = asked.clone();
        streams.push(tokio::spawn(async move { connection.call(&asked).await }));
    }
    stand.forwarded(5).await;
    stand.restart(0).await;
    for stream in streams {
        let answer = stream.await.unwrap();
        assert_eq!((answer.status, answer.broke), (200, None));
    }
    stand.assert_spent(&key, 5 * 780_000).await;
    stand.assert_sound().await;
}

/// Redis goes while calls are in flight, then the proxy is killed, and starts while Redis is still away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_journal_outlives_redis_and_the_proxy() {
    let mut stand = Plan::new(Store::Redis).start().await;
    let usage = json!({ "usage": { "input": 10, "output": 50 }, "delay_ms": 1000 });
    stand.simulator.behave(rules(&json!([usage])));
    let asked = converse("claude", "converse", 100);
    let bound = u64::try_from(asked.body.len()).unwrap() * 3_000 + 1_500_000;
    let key = stand.key(&json!({ "max_budget": 1 })).await;
    let answered = tokio::join!(stand.burst(&key, &asked, 5), async {
        stand.forwarded(5).await;
    })
    .0;
    assert_eq!(served(&answered), 5);
    stand.spent(&key).await;
    // Five calls are answered while Redis is away, five are in flight when the proxy is killed.
    let call = |stand: &Stand| {
        let (address, asked) = (stand.proxy().address, asked.clone().by(&key.secret));
        tokio::spawn(async move {
            let mut connection = Connection::open(address, Http::One).await;
            connection.try_begin(&asked).await.map(|response| response.status().as_u16()).ok()
        })
    };
    let finished: Vec<_> = (0..5).map(|_| call(&stand)).collect();
    stand.forwarded(10).await;
    stand.simulator.behave(rules(&json!([{ "fault": { "kind": "stall_before_header" } }])));
    let stuck: Vec<_> = (0..5).map(|_| call(&stand)).collect();
    stand.forwarded(15).await;
    stand.redis.as_mut().unwrap().kill9();
    for ended in finished {
        assert_eq!(ended.await.unwrap(), Some(200), "money was set aside before");
    }
    stand.kill_and_restart(0).await;
    for killed in stuck {
        assert_eq!(killed.await.unwrap(), None);
    }
    let refused = stand.call(&key, &asked).await;
    refused.assert_error(503, "ServiceUnavailableException");
    assert_eq!(stand.sum("dheera_ai_store_up", &[]).await, 0);
    stand.simulator.behave(rules(&json!([{ "usage": { "input": 10, "output": 50 } }])));
    stand.redis.as_mut().unwrap().run().await;
    let begun = Instant::now();
    while stand.call(&key, &asked).await.status != 200 {
        assert!(begun.elapsed() < crate::support::DEADLINE, "the proxy does not go on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stand.assert_spent(&key, 11 * 780_000 + 5 * bound).await;
    stand.assert_sound().await;
    stand.assert_spent(&key, 11 * 780_000 + 5 * bound).await;
}

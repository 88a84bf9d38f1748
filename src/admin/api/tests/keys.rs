use super::*;
use crate::keys::authenticate::Part;
use crate::keys::secret_key;
use crate::store::Kind;

#[tokio::test]
async fn a_new_key_is_shown_once_and_works_at_once() {
    let world = World::new();
    let made = world.ok("/key/generate", "").await;
    let key = text(&made["key"]);
    assert!(secret_key::is_well_formed(&key));
    assert_eq!(made["token"], secret_key::digest(&key).as_str());
    assert_eq!(made["key_name"], secret_key::short_name(&key).as_str());
    assert_eq!(made["created_at"], "2026-11-22T23:49:16Z");
    assert_eq!(made["expires"], Value::Null);
    assert_eq!(world.prove(&key).await.unwrap().id(), text(&made["key_id"]));
    for target in [format!("/key/info?key={key}"), "/key/list?return_full_object=true".to_owned()] {
        assert!(!world.get(&target).await.to_string().contains(&key), "{target}");
    }
    let stored = world.directory.json(Kind::Key, &text(&made["key_id"])).unwrap();
    assert!(!stored.contains(&key));
}

#[tokio::test]
async fn a_key_of_ones_own_choice_must_look_like_one_and_be_new() {
    let world = World::new();
    let made = world.ok("/key/generate", r#"{"key":"sk-own-0123456789abc"}"#).await;
    assert_eq!(made["key"], "sk-own-0123456789abc");
    world.refused(409, "/key/generate", r#"{"key":"sk-own-0123456789abc"}"#).await;
    for key in ["sk-short", "own-0123456789abcdef", "sk-0123456789 abcdef", "sk-0123456789/abcdef", MASTER] {
        let message = world.refused(400, "/key/generate", &format!(r#"{{"key":"{key}"}}"#)).await;
        assert!(message.contains("`key`") && !message.contains(key), "{message}");
    }
    world.refused(400, "/key/generate", r#"{"key_id":"mine"}"#).await;
}

#[tokio::test]
async fn an_alias_belongs_to_one_key() {
    let world = World::new();
    let first = text(&world.ok("/key/generate", r#"{"key_alias":"a"}"#).await["key_id"]);
    let second = text(&world.ok("/key/generate", r#"{"key_alias":"b"}"#).await["key_id"]);
    world.refused(409, "/key/generate", r#"{"key_alias":"a"}"#).await;
    world.refused(409, "/key/update", &format!(r#"{{"key":"{second}","key_alias":"a"}}"#)).await;
    // Its own alias a key may be given again, and a free one.
    world.ok("/key/update", &format!(r#"{{"key":"{first}","key_alias":"a"}}"#)).await;
    world.ok("/key/update", &format!(r#"{{"key":"{first}","key_alias":"c"}}"#)).await;
    world.ok("/key/update", &format!(r#"{{"key":"{second}","key_alias":"a"}}"#)).await;
    let named = world.ok("/key/update", r#"{"key_alias":"c","max_budget":1}"#).await;
    assert_eq!(named["key_id"], first.as_str());
    world.refused(404, "/key/update", r#"{"key_alias":"b"}"#).await;
    assert_eq!(world.get("/key/aliases").await["aliases"], serde_json::json!(["a", "c"]));
    world.ok("/key/update", &format!(r#"{{"key":"{first}","key_alias":null}}"#)).await;
    world.ok("/key/delete", r#"{"key_aliases":["a"]}"#).await;
    assert_eq!(world.directory.count(Kind::Alias), 0);
}

#[tokio::test]
async fn a_key_expires_when_it_was_said() {
    let world = World::new();
    let made = world.ok("/key/generate", r#"{"duration":"30s"}"#).await;
    let key = text(&made["key"]);
    assert_eq!(made["expires"], "2026-11-22T23:49:46Z");
    assert!(world.prove(&key).await.is_ok());
    world.sleep(30 * SECOND_MS);
    assert_eq!(world.prove(&key).await.unwrap_err(), Denied::Expired);
    assert_eq!(world.get(&format!("/key/info?key={key}")).await["info"]["status"], "expired");
    for never in [r#""-1""#, "null"] {
        world.ok("/key/update", &format!(r#"{{"key":"{key}","duration":"1s"}}"#)).await;
        let updated = world.ok("/key/update", &format!(r#"{{"key":"{key}","duration":{never}}}"#)).await;
        assert_eq!(updated["expires"], Value::Null);
    }
    assert!(world.prove(&key).await.is_ok());
}

#[tokio::test]
async fn a_blocked_key_is_refused_at_once_until_it_is_unblocked() {
    let world = World::new();
    let key = text(&world.ok("/key/generate", "{}").await["key"]);
    assert!(world.prove(&key).await.is_ok());
    let body = format!(r#"{{"key":"{key}"}}"#);
    assert_eq!(world.ok("/key/block", &body).await["status"], "blocked");
    assert_eq!(world.prove(&key).await.unwrap_err(), Denied::Blocked(Part::Key));
    assert_eq!(world.ok("/key/unblock", &body).await["blocked"], false);
    assert!(world.prove(&key).await.is_ok());
    world.refused(404, "/key/block", r#"{"key":"sk-0123456789012345678"}"#).await;
    world.refused(400, "/key/block", "{}").await;
    world.refused(400, "/key/block", r#"{"key":"k","reason":"x"}"#).await;
}

#[tokio::test]
async fn deleting_is_for_all_or_for_none_and_leaves_nothing() {
    let world = World::new();
    let mut keys = Vec::new();
    for alias in ["a", "b", "c"] {
        keys.push(world.ok("/key/generate", &format!(r#"{{"key_alias":"{alias}"}}"#)).await);
    }
    let (secret, id) = (text(&keys[0]["key"]), text(&keys[1]["key_id"]));
    let message =
        world.refused(404, "/key/delete", &format!(r#"{{"keys":["{secret}","sk-0123456789012345abcd"]}}"#)).await;
    assert!(message.contains("`sk-...abcd`"), "{message}");
    assert!(world.prove(&secret).await.is_ok());
    let body = format!(r#"{{"keys":["{secret}","{id}","{id}"],"key_aliases":["a","c"]}}"#);
    assert_eq!(world.ok("/key/delete", &body).await["deleted_key_ids"].as_array().unwrap().len(), 3);
    for kind in [Kind::Key, Kind::Secret, Kind::Alias] {
        assert_eq!(world.directory.count(kind), 0, "{kind:?}");
    }
    assert_eq!(world.prove(&secret).await.unwrap_err(), Denied::Unknown);
    world.refused(400, "/key/delete", "{}").await;
    world.refused(400, "/key/delete", r#"{"keys":[]}"#).await;
    world.refused(404, "/key/delete", r#"{"key_aliases":["a"]}"#).await;
}

#[tokio::test]
async fn a_new_secret_keeps_the_key_and_ends_the_old_one_after_its_grace() {
    let world = World::new();
    let made = world.ok("/key/generate", r#"{"key_alias":"a","max_budget":1}"#).await;
    let (first, id) = (text(&made["key"]), text(&made["key_id"]));
    let second = world.ok(&format!("/key/{first}/regenerate"), r#"{"grace_period":"1m","max_budget":2}"#).await;
    assert_eq!((&second["key_id"], &second["rotation_count"]), (&made["key_id"], &Value::from(1)));
    assert_eq!(second["max_budget"], 2);
    let second = text(&second["key"]);
    for key in [&first, &second] {
        assert_eq!(world.prove(key).await.unwrap().id(), id);
    }
    world.sleep(60 * SECOND_MS);
    assert_eq!(world.prove(&first).await.unwrap_err(), Denied::Expired);
    // Without a grace period the old one ends at once, and what ended before is cleared away.
    let body = format!(r#"{{"key":"{second}","new_key":"sk-third-0123456789"}}"#);
    assert_eq!(world.ok("/key/regenerate", &body).await["key"], "sk-third-0123456789");
    assert_eq!(world.prove(&second).await.unwrap_err(), Denied::Unknown);
    assert_eq!(world.prove("sk-third-0123456789").await.unwrap().id(), id);
    assert_eq!(world.directory.count(Kind::Secret), 1);
    let again = format!(r#"{{"key":"{id}","new_key":"sk-third-0123456789"}}"#);
    world.refused(409, "/key/regenerate", &again).await;
    world.refused(400, "/key/regenerate", &format!(r#"{{"key":"{MASTER}"}}"#)).await;
    world.refused(400, "/key/regenerate", "{}").await;
    world.refused(404, "/key/nobody/regenerate", "").await;
    for _ in 0..8 {
        world.ok(&format!("/key/{id}/regenerate"), r#"{"grace_period":"1h"}"#).await;
    }
    world.refused(400, &format!("/key/{id}/regenerate"), r#"{"grace_period":"1h"}"#).await;
    world.ok("/key/delete", &format!(r#"{{"keys":["{id}"]}}"#)).await;
    assert_eq!(world.directory.count(Kind::Secret), 0);
}

#[tokio::test]
async fn info_shows_what_is_spent_of_every_budget() {
    let world = World::new();
    let body = r#"{"max_budget":0.3,"budget_duration":"1d","soft_budget":0.1,
        "budget_limits":[{"budget_duration":"1h","max_budget":0.2}],
        "model_max_budget":{"claude*":{"budget_limit":1,"time_period":"1mo"}}}"#;
    let made = world.ok("/key/generate", body).await;
    let id = text(&made["key_id"]);
    world.spend(&format!("key/{id}/total"), 9_007_199_254_740_991);
    world.spend(&format!("key/{id}/1d/1795305600"), 100_000_000);
    world.spend(&format!("key/{id}/1h/1795388400"), 200_000_001);
    world.spend(&format!("key/{id}/model/claude*/1mo/1793491200"), 1);
    let (status, shown) = world.text(MASTER, "GET", &format!("/key/info?key={id}"), "").await;
    assert_eq!(status, 200);
    for expected in [
        r#""max_budget":0.3"#,
        r#""spend":0.1,"reserved":0.000000001,"budget_reset_at":"2026-11-23T00:00:00Z""#,
        r#""total_spend":9007199.254740991"#,
        r#""budget_limits_usage":[{"budget_duration":"1h","max_budget":0.2,"spend":0.200000001,"reserved":0.000000001,"remaining":0,"budget_reset_at":"2026-11-23T00:00:00Z"}]"#,
        r#""model_max_budget_usage":{"claude*":{"budget_duration":"1mo","max_budget":1,"spend":0.000000001,"reserved":0.000000001,"remaining":0.999999998,"budget_reset_at":"2026-12-01T00:00:00Z"}}"#,
    ] {
        assert!(shown.contains(expected), "{expected}\n{shown}");
    }
    let both = world.ok("/v2/key/info", &format!(r#"{{"keys":["{id}","{}"]}}"#, text(&made["key"]))).await;
    assert_eq!(both["info"].as_array().unwrap().len(), 2);
    world.refused(404, "/v2/key/info", r#"{"keys":["nobody"]}"#).await;
}

#[tokio::test]
async fn resetting_spend_lowers_every_limited_account_and_nothing_else() {
    let world = World::new();
    let body = r#"{"max_budget":1,"budget_duration":"1d","budget_limits":[{"budget_duration":"1h","max_budget":1}]}"#;
    let id = text(&world.ok("/key/generate", body).await["key_id"]);
    let path = format!("/key/{id}/reset_spend");
    let accounts = ["total", "1d/1795305600", "1h/1795388400"].map(|name| format!("key/{id}/{name}"));
    world.spend(&accounts[0], 3_000_000_000);
    world.spend(&accounts[1], 500_000_000);
    world.spend(&accounts[2], 50_000_000);
    for body in ["{}", r#"{"reset_to":-1}"#, r#"{"reset_to":"0"}"#, r#"{"reset_to":0.6}"#, r#"{"reset_to":0,"x":1}"#] {
        world.refused(400, &path, body).await;
    }
    world.ok(&path, r#"{"reset_to":0.1}"#).await;
    let spent = |world: &World| accounts.clone().map(|name| world.books.balances.lock().unwrap()[&name].spent.0);
    assert_eq!(spent(&world), [3_000_000_000, 100_000_000, 50_000_000]);
    world.ok(&path, r#"{"reset_to":0}"#).await;
    assert_eq!(spent(&world), [3_000_000_000, 0, 0]);
    world.refused(404, "/key/nobody/reset_spend", r#"{"reset_to":0}"#).await;
}

#[tokio::test]
async fn keys_are_listed_by_pages_and_filters() {
    let world = World::new();
    world.ok("/team/new", r#"{"team_id":"t"}"#).await;
    for number in 0..25 {
        world.sleep(SECOND_MS);
        let team = if number % 5 == 0 { r#","team_id":"t""# } else { "" };
        world.ok("/key/generate", &format!(r#"{{"key_alias":"key-{number:02}"{team}}}"#)).await;
    }
    let counts = |list: &Value| ["total_count", "current_page", "total_pages"].map(|name| list[name].as_u64().unwrap());
    let first = world.get("/key/list").await;
    assert_eq!((counts(&first), first["keys"].as_array().unwrap().len()), ([25, 1, 3], 10));
    assert!(secret_key::is_digest(first["keys"][0].as_str().unwrap()));
    let last = world.get("/key/list?page=3&return_full_object=true&sort_by=key_alias&sort_order=asc").await;
    let aliases: Vec<String> = last["keys"].as_array().unwrap().iter().map(|key| text(&key["key_alias"])).collect();
    assert_eq!(aliases, ["key-20", "key-21", "key-22", "key-23", "key-24"]);
    assert_eq!(last["keys"][0]["spend"], 0);
    for (query, total) in [
        ("team_id=t", 5),
        ("team_id=u", 0),
        ("key_alias=key-03", 1),
        ("key_alias=key-0", 0),
        ("key_alias=key-0&substring_matching=true", 10),
        ("search=KEY-1", 10),
        ("status=active", 25),
        ("status=blocked", 0),
        ("page=9", 25),
        (&format!("key_hash={}", text(&first["keys"][0])), 1),
    ] {
        assert_eq!(counts(&world.get(&format!("/key/list?{query}")).await)[0], total, "{query}");
    }
    for query in
        ["size=101", "page=0", "size=x", "sort_by=spend", "status=x", "nonsense=1", "page=1&page=2", "team_id="]
    {
        assert_eq!(world.text(MASTER, "GET", &format!("/key/list?{query}"), "").await.0, 400, "{query}");
    }
}

#[tokio::test]
async fn a_key_in_a_team_that_was_deleted_behind_its_back_is_refused_and_can_be_repaired() {
    let world = World::new();
    world.ok("/team/new", r#"{"team_id":"t"}"#).await;
    let key = text(&world.ok("/key/generate", r#"{"team_id":"t"}"#).await["key"]);
    world.directory.remove(Kind::Team, "t");
    assert_eq!(world.prove(&key).await.unwrap_err(), Denied::Orphaned(Part::Team));
    world.ok("/key/update", &format!(r#"{{"key":"{key}","rpm_limit":1}}"#)).await;
    world.ok("/key/update", &format!(r#"{{"key":"{key}","team_id":null}}"#)).await;
    assert!(world.prove(&key).await.is_ok());
}

use super::*;
use crate::keys::authenticate::Part;
use crate::store::Kind;

#[tokio::test]
async fn every_kind_is_made_shown_changed_listed_and_deleted() {
    let world = World::new();
    for (noun, id, query, delete) in [
        ("team", "team_id", "team_id", r#"{"team_ids":["x y"]}"#),
        ("user", "user_id", "user_id", r#"{"user_ids":["x y"]}"#),
        ("customer", "user_id", "end_user_id", r#"{"user_ids":["x y"]}"#),
        ("end_user", "user_id", "end_user_id", r#"{"user_ids":["x y"]}"#),
        ("tag", "name", "name", r#"{"name":"x y"}"#),
        ("budget", "budget_id", "budget_id", r#"{"id":"x y"}"#),
    ] {
        let body = |rest: &str| format!(r#"{{"{id}":"x y"{rest}}}"#);
        let made = world.ok(&format!("/{noun}/new"), &body(r#","max_budget":0.1"#)).await;
        assert_eq!((&made[id], &made["max_budget"]), (&Value::from("x y"), &Value::from(0.1)), "{noun}");
        world.refused(409, &format!("/{noun}/new"), &body("")).await;
        let changed = world.ok(&format!("/{noun}/update"), &body(r#","rpm_limit":7"#)).await;
        assert_eq!((&changed["max_budget"], &changed["rpm_limit"]), (&Value::from(0.1), &Value::from(7)), "{noun}");
        let info = world.get(&format!("/{noun}/info?{query}=x%20y")).await;
        let shown = info.get(format!("{noun}_info")).unwrap_or(&info);
        assert_eq!(shown["rpm_limit"], 7, "{noun}: {info}");
        let list = world.get(&format!("/{noun}/list")).await;
        let list = list.get("users").unwrap_or(&list);
        assert_eq!(list[0][id], "x y", "{noun}: {list}");
        world.ok(&format!("/{noun}/delete"), delete).await;
        world.refused(404, &format!("/{noun}/delete"), delete).await;
        world.refused(404, &format!("/{noun}/update"), &body("")).await;
        assert_eq!(world.text(MASTER, "GET", &format!("/{noun}/info?{query}=x%20y"), "").await.0, 404, "{noun}");
        assert_eq!(world.text(MASTER, "GET", &format!("/{noun}/info"), "").await.0, 400, "{noun}");
        assert_eq!(world.text(MASTER, "GET", &format!("/{noun}/list?nonsense=1"), "").await.0, 400, "{noun}");
        world.refused(400, &format!("/{noun}/update"), r#"{"max_budget":1}"#).await;
        world.refused(400, &format!("/{noun}/delete"), "{}").await;
    }
}

#[tokio::test]
async fn an_id_is_made_up_where_nobody_outside_has_to_know_it() {
    let world = World::new();
    for (noun, id) in [("team", "team_id"), ("user", "user_id"), ("budget", "budget_id")] {
        assert_eq!(text(&world.ok(&format!("/{noun}/new"), "{}").await[id]).len(), 36, "{noun}");
    }
    world.refused(400, "/customer/new", "{}").await;
    world.refused(400, "/tag/new", "{}").await;
    world.refused(400, "/tag/new", r#"{"name":"a,b"}"#).await;
}

#[tokio::test]
async fn budgets_and_tags_are_shown_in_litellms_form() {
    let world = World::new();
    world.ok("/budget/new", r#"{"budget_id":"b","max_budget":5}"#).await;
    world.ok("/tag/new", r#"{"name":"t","description":"d","budget_id":"b"}"#).await;
    assert_eq!(world.ok("/budget/info", r#"{"budgets":["b"]}"#).await[0]["max_budget"], 5);
    let tags = world.ok("/tag/info", r#"{"names":["t"]}"#).await;
    assert_eq!(tags["t"]["description"], "d");
    assert_eq!(tags["t"]["litellm_budget_table"]["max_budget"], 5);
    let cleared = world.ok("/tag/update", r#"{"name":"t","description":null,"budget_id":null}"#).await;
    assert_eq!((&cleared["description"], &cleared["litellm_budget_table"]), (&Value::Null, &Value::Null));
    world.refused(404, "/budget/info", r#"{"budgets":["b","c"]}"#).await;
}

#[tokio::test]
async fn a_block_of_a_team_or_a_user_reaches_their_keys() {
    let world = World::new();
    world.ok("/team/new", r#"{"team_id":"t"}"#).await;
    world.ok("/user/new", r#"{"user_id":"u"}"#).await;
    world.ok("/customer/new", r#"{"user_id":"c"}"#).await;
    let key = text(&world.ok("/key/generate", r#"{"team_id":"t","user_id":"u"}"#).await["key"]);
    assert!(world.prove(&key).await.is_ok());
    assert_eq!(world.ok("/team/block", r#"{"team_id":"t"}"#).await["blocked"], true);
    assert_eq!(world.prove(&key).await.unwrap_err(), Denied::Blocked(Part::Team));
    world.ok("/team/unblock", r#"{"team_id":"t"}"#).await;
    world.ok("/user/block", r#"{"user_ids":["u"]}"#).await;
    assert_eq!(world.prove(&key).await.unwrap_err(), Denied::Blocked(Part::User));
    let blocked = world.ok("/customer/block", r#"{"user_ids":["c"]}"#).await;
    assert_eq!(blocked["blocked_users"][0]["blocked"], true);
    world.refused(404, "/customer/block", r#"{"user_ids":["c","d"]}"#).await;
}

#[tokio::test]
async fn what_others_refer_to_is_not_deleted() {
    let world = World::new();
    world.ok("/budget/new", r#"{"budget_id":"b"}"#).await;
    world.ok("/team/new", r#"{"team_id":"t","budget_id":"b"}"#).await;
    world.ok("/user/new", r#"{"user_id":"u"}"#).await;
    world.ok("/key/generate", r#"{"key_alias":"mine","team_id":"t","user_id":"u"}"#).await;
    for (path, body) in [
        ("/team/delete", r#"{"team_ids":["t"]}"#),
        ("/user/delete", r#"{"user_ids":["u"]}"#),
        ("/budget/delete", r#"{"id":"b"}"#),
    ] {
        let message = world.refused(409, path, body).await;
        assert!(message.contains("`mine`") || message.contains("`t`"), "{message}");
    }
    world.ok("/key/delete", r#"{"key_aliases":["mine"]}"#).await;
    world.ok("/team/delete", r#"{"team_ids":["t"]}"#).await;
    world.ok("/user/delete", r#"{"user_ids":["u"]}"#).await;
    world.ok("/budget/delete", r#"{"id":"b"}"#).await;
    for kind in Kind::ALL {
        assert_eq!(world.directory.count(kind), 0, "{kind:?}");
    }
}

#[tokio::test]
async fn a_reference_to_nothing_is_refused_with_the_remedy() {
    let world = World::new();
    for (path, body, remedy) in [
        ("/key/generate", r#"{"team_id":"t"}"#, "POST /team/new"),
        ("/key/generate", r#"{"user_id":"u"}"#, "POST /user/new"),
        ("/key/generate", r#"{"budget_id":"b"}"#, "POST /budget/new"),
        ("/team/new", r#"{"budget_id":"b"}"#, "POST /budget/new"),
        ("/customer/new", r#"{"user_id":"c","budget_id":"b"}"#, "POST /budget/new"),
    ] {
        let message = world.refused(400, path, body).await;
        assert!(message.contains(remedy), "{message}");
    }
}

#[tokio::test]
async fn a_team_is_shown_with_its_keys_and_its_spend() {
    let world = World::new();
    world.ok("/team/new", r#"{"team_id":"t","team_alias":"T","max_budget":1}"#).await;
    let key = world.ok("/key/generate", r#"{"team_id":"t"}"#).await;
    world.ok("/key/generate", "{}").await;
    world.spend("team/t/total", 250_000_000);
    let info = world.get("/team/info?team_id=t").await;
    assert_eq!(info["team_info"]["spend"], 0.25);
    assert_eq!(info["keys"].as_array().unwrap().len(), 1);
    assert_eq!(info["keys"][0]["key_id"], key["key_id"]);
    assert_eq!(world.get("/team/list").await[0]["spend"], 0.25);
}

//! Every field of every kind: what is written is read back, what is cleared is gone, and what is unknown is refused.

use proptest::prelude::*;

use super::super::fields::{Field, table};
use super::*;
use crate::store::Kind;

/// Each kind with the first segment of its paths, the field that names a record, and one that is to be named.
const KINDS: &[(Kind, &str, &str)] = &[
    (Kind::Key, "key", "key"),
    (Kind::Team, "team", "team_id"),
    (Kind::User, "user", "user_id"),
    (Kind::Customer, "customer", "user_id"),
    (Kind::Tag, "tag", "name"),
    (Kind::Budget, "budget", "budget_id"),
];

/// A value for a field, as it is written, as it is shown, and as it is shown once cleared.
fn sample(field: Field) -> Option<(&'static str, &'static str, &'static str)> {
    Some(match field {
        Field::Id | Field::Endpoint | Field::Unsupported(_) | Field::Duration => return None,
        Field::Alias => (r#""an alias""#, r#""an alias""#, "null"),
        Field::Models => (r#"["a","b*"]"#, r#"["a","b*"]"#, "[]"),
        Field::Aliases => (r#"{"gpt":"claude"}"#, r#"{"gpt":"claude"}"#, "{}"),
        Field::MaxBudget => ("9007199.254740991", "9007199.254740991", "null"),
        Field::SoftBudget => ("1e-9", "0.000000001", "null"),
        Field::BudgetDuration => (r#""30d""#, r#""30d""#, "null"),
        Field::BudgetLimits => (
            r#"[{"max_budget":0.30,"budget_duration":"1d"},{"max_budget":2}]"#,
            r#"[{"max_budget":0.3,"budget_duration":"1d"},{"max_budget":2,"budget_duration":null}]"#,
            "[]",
        ),
        Field::RpmLimit | Field::TpmLimit | Field::MaxParallelRequests => ("0", "0", "null"),
        Field::ModelMaxBudget => (
            r#"{"a*":{"budget_limit":0.1,"time_period":"1w"}}"#,
            r#"{"a*":{"max_budget":0.1,"budget_duration":"1w"}}"#,
            "{}",
        ),
        Field::ModelRpmLimit | Field::ModelTpmLimit => (r#"{"a":5}"#, r#"{"a":5}"#, "{}"),
        Field::BudgetId => (r#""budget""#, r#""budget""#, "null"),
        Field::TeamId => (r#""team""#, r#""team""#, "null"),
        Field::UserId => (r#""user""#, r#""user""#, "null"),
        Field::Tags => (r#"["t"]"#, r#"["t"]"#, "[]"),
        Field::Metadata => (r#"{"a":{"b":[1]}}"#, r#"{"a":{"b":[1]}}"#, "{}"),
        Field::Description => (r#""what for""#, r#""what for""#, "null"),
        Field::AllowedOperations => (r#"["Converse*"]"#, r#"["Converse*"]"#, "[]"),
        Field::AllowedRegions => (r#"["eu-*"]"#, r#"["eu-*"]"#, "[]"),
        Field::AllowedRoutes => (r#"["/model/*"]"#, r#"["/model/*"]"#, "[]"),
        Field::UserEmail => (r#""a@b.c""#, r#""a@b.c""#, "null"),
        Field::Blocked => ("true", "true", "false"),
        Field::KeyType => (r#""llm_api""#, r#""llm_api""#, r#""llm_api""#),
    })
}

async fn with_references() -> World {
    let world = World::new();
    world.ok("/budget/new", r#"{"budget_id":"budget"}"#).await;
    world.ok("/team/new", r#"{"team_id":"team"}"#).await;
    world.ok("/user/new", r#"{"user_id":"user"}"#).await;
    world
}

/// The record as text, so that numbers are compared as they are written.
async fn shown(world: &World, kind: Kind, noun: &str, id: &str) -> String {
    let query = match kind {
        Kind::Key => "key",
        Kind::Customer => "end_user_id",
        Kind::Tag => "name",
        Kind::Team => "team_id",
        Kind::User => "user_id",
        _ => "budget_id",
    };
    let (status, text) = world.text(MASTER, "GET", &format!("/{noun}/info?{query}={id}"), "").await;
    assert_eq!(status, 200, "{text}");
    text
}

fn create_path(kind: Kind, noun: &str) -> String {
    if kind == Kind::Key { "/key/generate".to_owned() } else { format!("/{noun}/new") }
}

#[tokio::test]
async fn every_field_is_kept_shown_changed_and_cleared() {
    for (kind, noun, id_field) in KINDS {
        for (name, field) in table(*kind) {
            let Some((written, expected, cleared)) = sample(*field) else { continue };
            let world = with_references().await;
            // A duration limits nothing without an amount.
            let with = if *field == Field::BudgetDuration { r#","max_budget":1"# } else { "" };
            let id = if *kind == Kind::Key { "sk-0123456789abcdefgh" } else { "it" };
            let body = format!(r#"{{"{id_field}":"{id}","{name}":{written}{with}}}"#);
            world.ok(&create_path(*kind, noun), &body).await;
            let has = |text: &str, value: &str| text.contains(&format!(r#""{name}":{value}"#));
            let text = shown(&world, *kind, noun, id).await;
            assert!(has(&text, expected), "{noun} {name}: {text}");
            // Another change leaves it alone.
            world.ok(&format!("/{noun}/update"), &format!(r#"{{"{id_field}":"{id}","rpm_limit":0}}"#)).await;
            assert!(has(&shown(&world, *kind, noun, id).await, expected), "{noun} {name}");
            world.ok(&format!("/{noun}/update"), &format!(r#"{{"{id_field}":"{id}","{name}":null}}"#)).await;
            let text = shown(&world, *kind, noun, id).await;
            assert!(has(&text, cleared), "{noun} {name}: {text}");
            world.ok(&format!("/{noun}/update"), &body).await;
            assert!(has(&shown(&world, *kind, noun, id).await, expected), "{noun} {name}");
        }
    }
}

#[tokio::test]
async fn a_field_that_is_not_supported_is_refused_by_name_unless_it_says_nothing() {
    let world = World::new();
    for (kind, noun, id_field) in KINDS {
        for (name, field) in table(*kind) {
            let Field::Unsupported(remedy) = field else { continue };
            for value in [r#""x""#, "1", "[1]", r#"{"a":1}"#, "true"] {
                let body = format!(r#"{{"{name}":{value}}}"#);
                let message = world.refused(400, &create_path(*kind, noun), &body).await;
                assert!(message.contains(&format!("`{name}`")) && message.contains(remedy), "{message}");
            }
        }
        let nothing: Vec<String> = table(*kind)
            .iter()
            .filter(|(_, field)| matches!(field, Field::Unsupported(_)))
            .zip(["null", "[]", "{ }", "false"].iter().cycle())
            .map(|((name, _), value)| format!(r#""{name}":{value}"#))
            .collect();
        let id = if *kind == Kind::Key { "sk-0123456789abcdefgh" } else { "it" };
        let body = format!(r#"{{"{id_field}":"{id}",{}}}"#, nothing.join(","));
        world.ok(&create_path(*kind, noun), &body).await;
    }
}

#[tokio::test]
async fn values_that_cannot_be_meant_are_refused_by_name() {
    let world = World::new();
    for (field, value) in [
        ("max_budget", "-1"),
        ("max_budget", "\"10\""),
        ("max_budget", "1e-10"),
        ("max_budget", "9007199.254740993"),
        ("max_budget", "true"),
        ("budget_duration", "\"30\""),
        ("budget_duration", "\"1d\""),
        ("budget_limits", "[{\"max_budget\":1,\"x\":2}]"),
        ("rpm_limit", "-1"),
        ("rpm_limit", "1.5"),
        ("rpm_limit", "\"1\""),
        ("models", "\"claude\""),
        ("models", "[\"\"]"),
        ("tags", "[\"a,b\"]"),
        ("aliases", "{\"a\":1}"),
        ("metadata", "[]"),
        ("duration", "\"soon\""),
        ("duration", "\"0s\""),
        ("allowed_operations", "[\"Convers\"]"),
        ("allowed_routes", "[\"management_routes\"]"),
        ("key_type", "\"management\""),
        ("blocked", "\"yes\""),
        ("key_alias", "\"a\\u0000b\""),
        ("key_alias", "\"\""),
    ] {
        let message = world.refused(400, "/key/generate", &format!(r#"{{"{field}":{value}}}"#)).await;
        assert!(message.contains(&format!("`{field}")), "{field} {value}: {message}");
    }
    let message = world.refused(400, "/key/generate", r#"{"max_bugdet":1}"#).await;
    assert_eq!(message, "Unknown field `max_bugdet`. Did you mean `max_budget`?");
    assert_eq!(world.directory.count(Kind::Key), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn an_unknown_field_is_always_refused_and_changes_nothing(name in "[a-z_]{1,20}|\\PC{1,10}", which in 0..KINDS.len()) {
        let (kind, noun, id_field) = KINDS[which];
        prop_assume!(table(kind).iter().all(|(known, _)| *known != name) && name != "id" && name != id_field);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let world = World::new();
            let body = serde_json::json!({ name.clone(): 1 }).to_string();
            let message = world.refused(400, &create_path(kind, noun), &body).await;
            assert!(message.contains("nknown field"), "{message}");
            assert_eq!(world.directory.count(kind), 0);
        });
    }

    #[test]
    fn amounts_come_back_to_the_nano_dollar(nano in 0..=9_007_199_254_740_992_u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let world = World::new();
            let amount = NanoUsd(nano);
            // With all nine decimals in, without needless zeros out.
            let body = format!(r#"{{"key":"sk-0123456789abcdefgh","max_budget":{amount}}}"#);
            world.ok("/key/generate", &body).await;
            let text = shown(&world, Kind::Key, "key", "sk-0123456789abcdefgh").await;
            let expected = format!(r#""max_budget":{},"#, amount.to_usd_number());
            assert!(text.contains(&expected), "{expected} {text}");
        });
    }
}

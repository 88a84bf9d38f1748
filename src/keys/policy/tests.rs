use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::aws::operation::Service;
use crate::aws::route;
use crate::keys::register::Profile;

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

fn profile(record: Record) -> Profile {
    Profile { record: Arc::new(record), budget: None }
}

fn caller(key: Record, team: Option<Record>) -> Caller {
    Caller::Key(Arc::new(Holder { key: profile(key), team: team.map(profile), user: None }))
}

fn with_models(models: &[&str]) -> Record {
    Record { models: strings(models), ..Record::default() }
}

fn with_operations(operations: &[&str]) -> Record {
    Record { allowed_operations: strings(operations), ..Record::default() }
}

fn operation(name: &str) -> &'static Operation {
    route::operations().iter().find(|operation| operation.name == name).unwrap()
}

fn reason(result: Result<(), Refusal>) -> &'static str {
    match result {
        Ok(()) => "ok",
        Err(refusal) => {
            assert!(refusal.message.contains("llowed") || refusal.message.contains("operator"), "{}", refusal.message);
            refusal.reason
        }
    }
}

#[test]
fn a_key_calls_models_and_reads_and_writes_nothing_by_default() {
    let key = caller(Record::default(), None);
    for (name, expected) in [
        ("Converse", "ok"),
        ("InvokeModelWithResponseStream", "ok"),
        ("InvokeAgent", "ok"),
        ("ListFoundationModels", "ok"),
        ("CreateGuardrail", "operation_not_allowed"),
        ("DeleteAgent", "operation_not_allowed"),
    ] {
        assert_eq!(reason(allow_operation(&key, operation(name), "/")), expected, "{name}");
        assert_eq!(reason(allow_operation(&Caller::Master, operation(name), "/")), "ok", "{name}");
        assert_eq!(reason(allow_operation(&Caller::Anonymous, operation(name), "/")), "ok", "{name}");
    }
}

#[test]
fn every_write_of_every_service_needs_to_be_named() {
    let key = caller(Record::default(), None);
    let writes: Vec<_> =
        route::operations().iter().filter(|operation| operation.access == AccessClass::Write).collect();
    assert!(writes.len() > 100);
    for write in writes {
        assert_eq!(reason(allow_operation(&key, write, "/")), "operation_not_allowed", "{}", write.name);
        let named = caller(with_operations(&[&format!("{}:{}", write.service.endpoint_prefix(), write.name)]), None);
        assert_eq!(reason(allow_operation(&named, write, "/")), "ok", "{}", write.name);
    }
}

#[test]
fn a_list_of_operations_takes_names_patterns_and_services() {
    for (list, name, expected) in [
        (&["Converse"][..], "Converse", true),
        (&["Converse"], "ConverseStream", false),
        (&["Converse*"], "ConverseStream", true),
        (&["converse"], "Converse", false),
        (&["bedrock-runtime:*"], "InvokeModel", true),
        (&["bedrock-runtime:*"], "ListFoundationModels", false),
        (&["bedrock:Get*", "Invoke*"], "InvokeModel", true),
        (&["*"], "CreateGuardrail", true),
    ] {
        let key = caller(with_operations(list), None);
        assert_eq!(allow_operation(&key, operation(name), "/").is_ok(), expected, "{list:?} {name}");
    }
    // The team's list holds as well as the key's.
    let both = caller(with_operations(&["*"]), Some(with_operations(&["Converse"])));
    assert_eq!(reason(allow_operation(&both, operation("InvokeModel"), "/")), "operation_not_allowed");
    assert_eq!(reason(allow_operation(&both, operation("Converse"), "/")), "ok");
}

#[test]
fn paths_are_compared_with_and_without_the_prefix() {
    for (list, path, expected) in [
        (&["/bedrock/model/*"][..], "/bedrock/model/x/converse", true),
        (&["/bedrock/model/*"], "/model/x/converse", true),
        (&["/model/*/converse"], "/bedrock/model/x/converse", true),
        (&["/model/*/converse"], "/bedrock/model/x/invoke", false),
        (&["/model/x/converse"], "/model/x%2F/converse", false),
        (&["llm_api_routes"], "/agents/x", true),
        (&["/key/info"], "/model/x/converse", false),
        (&["/model/*"], "/bedrocks/model/x", false),
    ] {
        let key = caller(Record { allowed_routes: strings(list), ..Record::default() }, None);
        assert_eq!(allow_operation(&key, operation("Converse"), path).is_ok(), expected, "{list:?} {path}");
    }
}

#[test]
fn key_and_team_must_both_have_the_model() {
    for (key, team, model, expected) in [
        (&[][..], None, "claude", true),
        (&["claude"], None, "claude", true),
        (&["claude"], None, "claude-2", false),
        (&["claude*"], None, "claude-2", true),
        (&["us.anthropic.*"], None, "us.anthropic.claude-v1:0", true),
        (&["all-proxy-models"], None, "claude", true),
        (&["no-default-models"], None, "claude", false),
        (&["no-default-models"], None, "no-default-models", false),
        (&["no-default-models", "claude"], None, "claude", true),
        (&["all-team-models"], None, "claude", false),
        (&["all-team-models"], Some(&["claude"][..]), "claude", true),
        (&["all-team-models"], Some(&["claude"]), "nova", false),
        (&[], Some(&["claude"]), "nova", false),
        (&["nova"], Some(&["claude"]), "nova", false),
        (&["nova"], Some(&[]), "nova", true),
        (&["all-proxy-models"], Some(&["claude"]), "nova", false),
    ] {
        let caller = caller(with_models(key), team.map(with_models));
        let converse = operation("Converse");
        assert_eq!(allow_model(&caller, converse, Some(model)).is_ok(), expected, "{key:?} {team:?} {model}");
        assert_eq!(lists_model(&caller, model), expected, "{key:?} {team:?} {model}");
    }
    let refusal = allow_model(&caller(with_models(&["a", "b"]), None), operation("Converse"), Some("c")).unwrap_err();
    assert_eq!(refusal.message, "The API key may not use the model `c`. Allowed models: a, b.");
}

#[test]
fn a_list_of_models_is_not_evaded_through_an_agent() {
    let limited = caller(with_models(&["claude"]), None);
    let everything = caller(with_models(&["*"]), None);
    let named = Record { allowed_operations: strings(&["InvokeAgent", "Converse"]), ..with_models(&["claude"]) };
    let named = caller(named, None);
    let agent = operation("InvokeAgent");
    assert_eq!(reason(allow_model(&limited, agent, None)), "model_not_allowed");
    assert_eq!(reason(allow_model(&everything, agent, None)), "ok");
    assert_eq!(reason(allow_model(&named, agent, None)), "ok");
    assert_eq!(reason(allow_model(&limited, operation("ListFoundationModels"), None)), "ok");
    assert_eq!(reason(allow_model(&limited, operation("ApplyGuardrail"), None)), "ok");
}

#[test]
fn an_alias_stands_for_a_model_and_allows_nothing() {
    let aliases = |from: &str, to: &str| BTreeMap::from([(from.to_owned(), to.to_owned())]);
    let key = Record { aliases: aliases("gpt-4", "claude"), ..with_models(&["gpt-4"]) };
    let team = Record { aliases: aliases("claude", "nova"), ..Record::default() };
    let caller = caller(key, Some(team));
    assert_eq!(resolve_alias(&caller, "gpt-4"), "claude");
    assert_eq!(resolve_alias(&caller, "claude"), "nova");
    assert_eq!(resolve_alias(&caller, "other"), "other");
    assert_eq!(resolve_alias(&Caller::Master, "gpt-4"), "gpt-4");
    let question = Question { operation: operation("Converse"), path: "/", model_name: Some("claude") };
    assert_eq!(reason(allow(&caller, &question)), "model_not_allowed");
}

#[test]
fn regions_are_those_that_everyone_concerned_allows() {
    let regions = |list: &[&str]| Record { allowed_regions: strings(list), ..Record::default() };
    let caller = caller(regions(&["eu-*"]), Some(regions(&["eu-west-1", "us-east-1"])));
    assert!(allows_region(&caller, None, "eu-west-1"));
    assert!(!allows_region(&caller, None, "us-east-1"));
    assert!(!allows_region(&caller, None, "eu-west-3"));
    assert!(!allows_region(&caller, Some(&regions(&["us-east-1"])), "eu-west-1"));
    assert!(allows_region(&Caller::Master, None, "ap-south-1"));
    assert!(!allows_region(&Caller::Master, Some(&regions(&["us-*"])), "ap-south-1"));
    let refusal = no_region(&caller, None);
    assert!(refusal.message.contains("eu-*; and eu-west-1, us-east-1"), "{}", refusal.message);
}

#[test]
fn a_blocked_customer_is_refused() {
    assert_eq!(reason(allow_customer(&Record::default())), "ok");
    assert_eq!(reason(allow_customer(&Record { blocked: true, ..Record::default() })), "customer_blocked");
}

#[test]
fn long_lists_are_shown_in_part() {
    let many: Vec<String> = (0..100).map(|number| format!("m{number}")).collect();
    assert_eq!(listed(&many), "m0, m1, m2, m3, m4, m5, m6, m7, m8, m9, …");
    assert!(route::operation(Service::BedrockRuntime, "Converse").is_some());
}

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;
use crate::aws::operation::{AccessClass, Metering, Service, Streaming};

const AGENT_ARN: &str = "arn%3Aaws%3Abedrock%3Aus-west-2%3A123456789012%3Aagent%2FABCDEFGHIJ";
const KNOWLEDGE_BASE_ARN: &str = "arn%3Aaws%3Abedrock%3Aus-west-2%3A123456789012%3Aknowledge-base%2FABCDEFGHIJ";
const SESSION_ARN: &str =
    "arn%3Aaws%3Abedrock%3Aus-west-2%3A123456789012%3Asession%2F01234567-89ab-cdef-0123-456789abcdef";
const AGENTCORE_ARN: &str = "arn%3Aaws%3Abedrock-agentcore%3Aus-west-2%3A123456789012%3Aruntime%2Fagent-abc";
const GUARDRAIL: &[u8] = br#"{"resourceARN":"arn:aws:bedrock:us-west-2:123456789012:guardrail/abc","tags":[]}"#;
const PROJECT: &[u8] =
    br#"{"tags":[{"key":"a"}],"resourceARN":"arn:aws:bedrock:us-west-2:1:data-automation-project/0123456789ab"}"#;

fn request<'a>(method: &'a str, path: &'a str) -> RequestTarget<'a> {
    RequestTarget { method, path, amz_target: None }
}

/// Finds a route, reading the body where it decides.
fn route_with<'a>(target: &RequestTarget<'a>, body: &[u8]) -> Result<Route<'a>, RouteError> {
    match find(target)? {
        Found::Route(route) => Ok(route),
        Found::NeedsBody(tie) => tie.decide(body),
    }
}

fn owner(method: &str, path: &str, body: &[u8]) -> Result<(Service, &'static str), RouteError> {
    route_with(&request(method, path), body).map(|route| (route.operation.service, route.operation.name))
}

/// A path of the operation's template with every label replaced, and a body that decides for its service.
fn concrete(operation: &Operation, label: &dyn Fn(usize) -> String) -> (String, &'static [u8]) {
    let arn = match operation.service {
        Service::BedrockAgentCoreControl => AGENTCORE_ARN,
        Service::BedrockAgentRuntime => SESSION_ARN,
        _ if operation.template.starts_with("/resourcepolicy/") => KNOWLEDGE_BASE_ARN,
        _ => AGENT_ARN,
    };
    let tied = ["/tags/{", "/resourcepolicy/{"].iter().any(|prefix| operation.template.starts_with(prefix));
    let segments = operation.template.split('/').enumerate().map(|(place, segment)| match segment.starts_with('{') {
        true if tied => arn.to_owned(),
        true => label(place),
        false => segment.to_owned(),
    });
    let body = if operation.service == Service::BedrockDataAutomation { PROJECT } else { GUARDRAIL };
    (segments.collect::<Vec<_>>().join("/"), body)
}

/// The `X-Amz-Target` of an operation of the JSON protocol.
fn target_of(operation: &Operation) -> Option<String> {
    (operation.service == Service::BedrockDataAutomationRuntime)
        .then(|| format!("AmazonBedrockKeystoneRuntimeService.{}", operation.name))
}

fn assert_found(operation: &'static Operation, path: &str, body: &[u8]) {
    let amz_target = target_of(operation);
    let target = RequestTarget { method: operation.method, path, amz_target: amz_target.as_deref() };
    let route = route_with(&target, body).unwrap_or_else(|error| panic!("{} {path}: {error}", operation.method));
    assert!(std::ptr::eq(route.operation, operation), "{path}: {:?} in place of {operation:?}", route.operation);
}

/// All literal segments of all templates: what a label could be mistaken for.
fn literal_segments() -> Vec<&'static str> {
    let segments: BTreeSet<_> = operations()
        .iter()
        .flat_map(|operation| operation.template.split('/'))
        .filter(|segment| !segment.is_empty() && !segment.starts_with('{'))
        .collect();
    segments.into_iter().collect()
}

/// A second router, as slow and as plain as can be: every template that matches, the most literal first.
fn matches_by_search(method: &str, path: &str) -> Option<BTreeSet<(Service, &'static str)>> {
    let segments: Vec<_> = path.split('/').collect();
    let fits = |operation: &&Operation| {
        let template: Vec<_> = operation.template.split('/').collect();
        operation.method == method
            && template.len() == segments.len()
            && template
                .iter()
                .zip(&segments)
                .all(|(part, segment)| if part.starts_with('{') { !segment.is_empty() } else { part == segment })
    };
    let labels =
        |operation: &Operation| operation.template.split('/').map(|part| part.starts_with('{')).collect::<Vec<_>>();
    let best = operations().iter().filter(fits).map(&labels).min()?;
    Some(
        operations()
            .iter()
            .filter(fits)
            .filter(|operation| labels(operation) == best)
            .map(|operation| (operation.service, operation.name))
            .collect(),
    )
}

#[test]
fn the_table_holds_every_operation_of_aws_once() {
    let mut counts = BTreeMap::new();
    let mut names = BTreeSet::new();
    for operation in native_operations() {
        *counts.entry(operation.service).or_insert(0) += 1;
        assert!(names.insert((operation.service, operation.name)), "{operation:?} stands twice");
    }
    let expected = [108, 11, 86, 35, 27, 6, 75, 175];
    assert_eq!(counts, Service::ALL.into_iter().zip(expected).collect());
    assert_eq!(native_operations().len(), 523);
    assert_eq!(operations().len(), 523 + http_only_operations().len());
}

#[test]
fn rows_of_the_table_are_plausible() {
    for operation in operations() {
        assert!(operation.template.starts_with('/'), "{operation:?}");
        assert!(["GET", "POST", "PUT", "DELETE", "PATCH"].contains(&operation.method), "{operation:?}");
        assert!(operation.request_headers.iter().all(|header| header.bytes().all(|byte| !byte.is_ascii_uppercase())));
        let framed = matches!(operation.streaming, Streaming::EventStream | Streaming::Bidirectional);
        assert_eq!(framed, !operation.stream_exceptions.is_empty(), "{operation:?}");
        assert!(!operation.bearer || operation.service.accepts_bearer(), "{operation:?}");
        let model_in_path = operation.template.starts_with(MODEL_PREFIX);
        assert_eq!(model_in_path, operation.template.starts_with("/model/{modelId}/"), "{operation:?}");
        for segment in operation.template.split('/').filter(|segment| segment.contains(['{', '}'])) {
            assert!(segment.starts_with('{') && segment.ends_with('}') && !segment.contains('+'), "{operation:?}");
        }
    }
    assert_eq!(TABLE.model_actions.len(), 6);
    assert_eq!(TABLE.targets.len(), 6);
}

#[test]
fn what_operations_cost_and_need_is_as_documented() {
    let of = |service, name| operation(service, name).map(|found| (found.metering, found.access, found.bearer));
    for (service, name, expected) in [
        (Service::BedrockRuntime, "Converse", (Metering::Converse, AccessClass::Invoke, true)),
        (Service::BedrockRuntime, "CountTokens", (Metering::Free, AccessClass::Invoke, true)),
        (
            Service::BedrockRuntime,
            "InvokeModelWithBidirectionalStream",
            (Metering::InvokeModelBidirectional, AccessClass::Invoke, false),
        ),
        (Service::Bedrock, "ListFoundationModels", (Metering::Free, AccessClass::Read, true)),
        (Service::Bedrock, "ListTagsForResource", (Metering::Free, AccessClass::Read, true)),
        (Service::Bedrock, "CreateModelInvocationJob", (Metering::Unreported, AccessClass::Write, true)),
        (Service::BedrockAgent, "ValidateFlowDefinition", (Metering::Free, AccessClass::Read, false)),
        (Service::BedrockAgent, "StartIngestionJob", (Metering::Unreported, AccessClass::Write, false)),
        (Service::BedrockAgentRuntime, "InvokeAgent", (Metering::AgentTrace, AccessClass::Invoke, false)),
        (Service::BedrockAgentRuntime, "InvokeFlow", (Metering::FlowTrace, AccessClass::Invoke, false)),
        (Service::BedrockAgentRuntime, "Retrieve", (Metering::Free, AccessClass::Invoke, false)),
        (Service::BedrockAgentRuntime, "Rerank", (Metering::Rerank, AccessClass::Invoke, false)),
        (Service::BedrockAgentCore, "InvokeHarness", (Metering::Harness, AccessClass::Invoke, false)),
        (Service::BedrockAgentCore, "GetResourceApiKey", (Metering::Unreported, AccessClass::Write, false)),
        (Service::BedrockAgentCoreControl, "CreateMemory", (Metering::Free, AccessClass::Write, false)),
    ] {
        assert_eq!(of(service, name), Some(expected), "{name}");
    }
    let raw: Vec<_> = native_operations().iter().filter(|operation| operation.streaming == Streaming::Raw).collect();
    assert_eq!(raw.iter().map(|operation| operation.name).collect::<Vec<_>>(), ["InvokeAgentRuntime"]);
    let framed = native_operations().iter().filter(|operation| operation.streaming == Streaming::EventStream);
    assert_eq!(framed.count(), 11);
}

#[test]
fn every_operation_is_found_with_and_without_the_prefix() {
    for operation in operations() {
        let (path, body) = concrete(operation, &|place| format!("x-{place}%3A0"));
        assert_found(operation, &path, body);
        assert_found(operation, &format!("/bedrock{path}"), body);
    }
}

#[test]
fn services_collide_only_where_a_rule_decides() {
    let mut collisions = BTreeSet::new();
    TABLE.templates.each_leaf(&mut |leaf| {
        if leaf.entries.len() > 1 {
            let services: Vec<_> = leaf.entries.iter().map(|entry| entry.operation.service).collect();
            let templates: BTreeSet<_> = leaf.entries.iter().map(|entry| entry.operation.template).collect();
            collisions.insert((templates.into_iter().collect::<String>(), leaf.method, services));
        }
    });
    let tags = vec![Service::BedrockAgent, Service::BedrockAgentRuntime, Service::BedrockAgentCoreControl];
    let policies = vec![Service::BedrockAgent, Service::BedrockAgentCoreControl];
    let bodies = vec![Service::Bedrock, Service::BedrockDataAutomation];
    let expected = [
        ("/tags/{resourceArn}", "GET", tags.clone()),
        ("/tags/{resourceArn}", "POST", tags.clone()),
        ("/tags/{resourceArn}", "DELETE", tags),
        ("/resourcepolicy/{resourceArn}", "GET", policies.clone()),
        ("/resourcepolicy/{resourceArn}", "PUT", policies.clone()),
        ("/resourcepolicy/{resourceArn}", "DELETE", policies),
        ("/tagResource", "POST", bodies.clone()),
        ("/untagResource", "POST", bodies.clone()),
        ("/listTagsForResource", "POST", bodies),
    ];
    assert_eq!(collisions, expected.map(|(template, method, services)| (template.to_owned(), method, services)).into());
}

/// The 17 pairs of templates that can match one method and path (botocore 1.44.5), each with a request for either side.
#[test]
fn every_colliding_pair_is_decided() {
    use Service::{
        Bedrock, BedrockAgent as Agent, BedrockAgentCoreControl as Control, BedrockAgentRuntime as AgentRuntime,
        BedrockDataAutomation as DataAutomation,
    };
    type InPath = (&'static str, &'static str, &'static str, &'static [(Service, &'static str)]);
    let in_path: &[InPath] = &[
        ("GET", "/tags/", "ListTagsForResource", &[(AgentRuntime, SESSION_ARN), (Agent, AGENT_ARN)]),
        ("GET", "/tags/", "ListTagsForResource", &[(AgentRuntime, SESSION_ARN), (Control, AGENTCORE_ARN)]),
        ("GET", "/tags/", "ListTagsForResource", &[(Agent, AGENT_ARN), (Control, AGENTCORE_ARN)]),
        ("POST", "/tags/", "TagResource", &[(AgentRuntime, SESSION_ARN), (Agent, AGENT_ARN)]),
        ("POST", "/tags/", "TagResource", &[(AgentRuntime, SESSION_ARN), (Control, AGENTCORE_ARN)]),
        ("POST", "/tags/", "TagResource", &[(Agent, AGENT_ARN), (Control, AGENTCORE_ARN)]),
        ("DELETE", "/tags/", "UntagResource", &[(AgentRuntime, SESSION_ARN), (Agent, AGENT_ARN)]),
        ("DELETE", "/tags/", "UntagResource", &[(AgentRuntime, SESSION_ARN), (Control, AGENTCORE_ARN)]),
        ("DELETE", "/tags/", "UntagResource", &[(Agent, AGENT_ARN), (Control, AGENTCORE_ARN)]),
        ("GET", "/resourcepolicy/", "GetResourcePolicy", &[(Agent, KNOWLEDGE_BASE_ARN), (Control, AGENTCORE_ARN)]),
        ("PUT", "/resourcepolicy/", "PutResourcePolicy", &[(Agent, KNOWLEDGE_BASE_ARN), (Control, AGENTCORE_ARN)]),
        (
            "DELETE",
            "/resourcepolicy/",
            "DeleteResourcePolicy",
            &[(Agent, KNOWLEDGE_BASE_ARN), (Control, AGENTCORE_ARN)],
        ),
    ];
    for (method, prefix, name, sides) in in_path {
        for (service, arn) in *sides {
            assert_eq!(owner(method, &format!("{prefix}{arn}"), b""), Ok((*service, *name)), "{method} {prefix}{arn}");
        }
    }
    for (path, name) in [
        ("/listTagsForResource", "ListTagsForResource"),
        ("/tagResource", "TagResource"),
        ("/untagResource", "UntagResource"),
    ] {
        assert_eq!(owner("POST", path, GUARDRAIL), Ok((Bedrock, name)));
        assert_eq!(owner("POST", path, PROJECT), Ok((DataAutomation, name)));
    }
    assert_eq!(owner("POST", "/agents/ABCDEFGHIJ", b"{}"), Ok((AgentRuntime, "InvokeInlineAgent")));
    assert_eq!(owner("POST", "/agents/ABCDEFGHIJ/", b""), Ok((Agent, "PrepareAgent")));
    assert_eq!(owner("POST", "/flows/validate-definition", b"{}"), Ok((Agent, "ValidateFlowDefinition")));
    assert_eq!(owner("POST", "/flows/ABCDEFGHIJ/", b""), Ok((Agent, "PrepareFlow")));
}

#[test]
fn an_arn_that_fits_nobody_is_refused_and_an_unknown_type_goes_to_its_service() {
    let arn = |text: &str| text.replace(':', "%3A").replace('/', "%2F");
    for text in [
        "foo",
        "arn:aws:s3:::bucket",
        "arn:aws:bedrock",
        "arn:aws:bedrock:us-west-2:1:",
        "arn:aws:lambda:us-west-2:1:function:f",
    ] {
        for prefix in ["/tags/", "/resourcepolicy/"] {
            assert!(
                matches!(owner("GET", &format!("{prefix}{}", arn(text)), b""), Err(RouteError::Ambiguous(_))),
                "{text}"
            );
        }
    }
    for (text, service) in [
        ("arn:aws:bedrock:us-west-2:1:prompt/ABC:2", Service::BedrockAgent),
        ("arn:aws-cn:bedrock:cn-north-1:1:retrieval-instruction/abc", Service::BedrockAgent),
        ("arn:aws:bedrock:us-west-2:1:novelty/abc", Service::BedrockAgent),
        ("arn:aws:bedrock:us-west-2:1:session-group/abc", Service::BedrockAgent),
        ("arn:aws:bedrock-agentcore:us-west-2:1:novelty/abc", Service::BedrockAgentCoreControl),
        ("arn::bedrock-agentcore:us-west-2:1:gateway/abc", Service::BedrockAgentCoreControl),
    ] {
        assert_eq!(
            owner("GET", &format!("/tags/{}", arn(text)), b"").map(|(service, _)| service),
            Ok(service),
            "{text}"
        );
    }
    // A session has no policy; the service of `bedrock` policies says so.
    assert_eq!(owner("GET", &format!("/resourcepolicy/{SESSION_ARN}"), b"").unwrap().0, Service::BedrockAgent);
    // Raw colons are the same ARN.
    assert_eq!(owner("GET", "/tags/arn:aws:bedrock:us-west-2:1:agent%2FA", b"").unwrap().0, Service::BedrockAgent);
}

#[test]
fn a_body_that_cannot_decide_is_refused() {
    for body in [
        &b""[..],
        b"{}",
        b"[]",
        b"null",
        b"{\"resourceARN\":1}",
        b"{\"resourceARN\":null}",
        b"{\"resourceArn\":\"arn:aws:bedrock:us-west-2:1:guardrail/a\"}",
        b"{\"resourceARN\":\"arn:aws:bedrock:us-west-2:1:guardrail/a\"",
        b"{\"resourceARN\":\"a\",\"resourceARN\":\"arn:aws:bedrock:us-west-2:1:blueprint/a\"}",
        b"{\"resourceARN\":\"\xff\"}",
        b"resourceARN=a",
    ] {
        assert!(matches!(owner("POST", "/tagResource", body), Err(RouteError::Ambiguous(_))), "{body:?}");
    }
    for (arn, service) in [
        ("blueprint/a", Service::BedrockDataAutomation),
        ("blueprint-optimization-invocation/a", Service::BedrockDataAutomation),
        ("data-automation-library/a", Service::BedrockDataAutomation),
        ("data-automation-library-ingestion-job/a", Service::BedrockDataAutomation),
        ("data-automation-project\\u002fa", Service::BedrockDataAutomation),
        ("custom-model-deployment/a", Service::Bedrock),
        ("blueprints/a", Service::Bedrock),
    ] {
        let body = format!("{{\"resourceARN\":\"arn:aws:bedrock:us-west-2:123456789012:{arn}\"}}");
        assert_eq!(owner("POST", "/tagResource", body.as_bytes()).unwrap().0, service, "{arn}");
    }
    // bedrock takes a bare name, too.
    assert_eq!(owner("POST", "/tagResource", b"{\"resourceARN\":\"my-job\"}").unwrap().0, Service::Bedrock);
}

#[test]
fn a_tie_names_its_operations_before_the_body_is_read() {
    let Ok(Found::NeedsBody(tie)) = find(&request("POST", "/bedrock/tagResource")) else { panic!("no tie") };
    assert_eq!(tie.operations().map(|operation| operation.name).collect::<Vec<_>>(), ["TagResource", "TagResource"]);
    assert_eq!(tie.decide(GUARDRAIL).unwrap().path, "/tagResource");
}

#[test]
fn the_target_header_decides_on_the_root_path_only() {
    let target = Some("AmazonBedrockKeystoneRuntimeService.InvokeDataAutomationAsync");
    for path in ["/", "", "/bedrock", "/bedrock/"] {
        let route = route_with(&RequestTarget { method: "POST", path, amz_target: target }, b"").unwrap();
        assert_eq!((route.operation.name, route.path), ("InvokeDataAutomationAsync", "/"));
    }
    for (method, path, amz_target) in [
        ("GET", "/", target),
        ("POST", "/", None),
        ("POST", "/", Some("InvokeDataAutomationAsync")),
        ("POST", "/", Some("AmazonBedrockKeystoneRuntimeService.Nothing")),
        ("POST", "/x", target),
    ] {
        let found = find(&RequestTarget { method, path, amz_target });
        assert_eq!(found.unwrap_err(), RouteError::UnknownOperation, "{method} {path} {amz_target:?}");
    }
    let path = "/model/x/converse";
    let route = route_with(&RequestTarget { method: "POST", path, amz_target: target }, b"").unwrap();
    assert_eq!(route.operation.name, "Converse");
}

#[test]
fn the_model_name_is_everything_before_the_action() {
    for (path, name, raw) in [
        ("/model/x/converse", "Converse", "x"),
        ("/bedrock/model/x/converse-stream", "ConverseStream", "x"),
        ("/model/aws/anthropic/claude/converse", "Converse", "aws/anthropic/claude"),
        ("/model/invoke/invoke", "InvokeModel", "invoke"),
        ("/model/a/converse/invoke", "InvokeModel", "a/converse"),
        ("/model/m%3A0/count-tokens", "CountTokens", "m%3A0"),
        ("/model/my%20mod%C3%A8le/invoke-with-response-stream", "InvokeModelWithResponseStream", "my%20mod%C3%A8le"),
        ("/model/x/invoke-with-bidirectional-stream", "InvokeModelWithBidirectionalStream", "x"),
    ] {
        let route = route_with(&request("POST", path), b"").unwrap();
        assert_eq!((route.operation.name, route.model), (name, ModelIn::Path { raw }), "{path}");
    }
    for path in
        ["/model/", "/model/converse", "/model/x", "/model/x/converse/", "/model/x/Converse", "/model/x/unknown"]
    {
        assert_eq!(owner("POST", path, b""), Err(RouteError::UnknownOperation), "{path}");
    }
}

#[test]
fn the_model_may_stand_in_the_body() {
    for (path, member) in [
        ("/async-invoke", "modelId"),
        ("/openai/v1/chat/completions", "model"),
        ("/v1/chat/completions", "model"),
        ("/openai/v1/responses", "model"),
        ("/anthropic/v1/messages", "model"),
        ("/anthropic/v1/messages/count_tokens", "model"),
    ] {
        let route = route_with(&request("POST", path), b"").unwrap();
        assert_eq!((route.model, route.path), (ModelIn::Body { member }, path));
        assert_eq!(route.operation.service, Service::BedrockRuntime);
    }
    for path in ["/openai/v1/models", "/async-invoke", "/guardrails"] {
        assert_eq!(route_with(&request("GET", path), b"").unwrap().model, ModelIn::None);
    }
}

#[test]
fn what_is_not_an_operation_is_refused_with_a_reason() {
    for path in ["/v1/responses", "/v1/models", "/key/generate", "/flow", "/flows/a/b/c", "/bedrock/bedrock/guardrails"]
    {
        assert_eq!(owner("POST", path, b""), Err(RouteError::UnknownOperation), "{path}");
    }
    // No label matches across a raw slash.
    assert_eq!(owner("GET", "/tags/arn:aws:bedrock:us-west-2:1:agent/A", b""), Err(RouteError::UnknownOperation));
    for (method, path, allowed) in [
        ("GET", "/model/x/converse", &["POST"][..]),
        ("post", "/model/x/converse", &["POST"]),
        ("HEAD", "/guardrails", &["GET", "POST"]),
        ("POST", "/tags/x/", &[]),
        ("PATCH", "/datasets/list", &["DELETE", "GET", "POST", "PUT"]),
    ] {
        let expected = if allowed.is_empty() {
            RouteError::UnknownOperation
        } else {
            RouteError::MethodNotAllowed { allowed: allowed.to_vec() }
        };
        assert_eq!(owner(method, path, b""), Err(expected), "{method} {path}");
    }
    let bad = owner("POST", "/model/../converse", b"").unwrap_err();
    assert_eq!(bad.to_string(), "the request path has a '.' or '..' segment");
}

#[test]
fn a_literal_that_leads_nowhere_gives_way_to_a_label() {
    assert_eq!(owner("POST", "/datasets/list", b"").unwrap().1, "ListDatasets");
    assert_eq!(owner("GET", "/datasets/list", b"").unwrap().1, "GetDataset");
    assert_eq!(owner("GET", "/flows/validate-definition/", b"").unwrap().1, "GetFlow");
    assert_eq!(owner("POST", "/flows/validate-definition/", b"").unwrap().1, "PrepareFlow");
    assert_eq!(owner("GET", "/flows/validate-definition/aliases", b"").unwrap().1, "ListFlowAliases");
}

#[test]
fn a_literal_cannot_be_disguised_as_a_label() {
    for (method, path) in [
        ("GET", "/datasets/%6Cist"),
        ("POST", "/flows/validate%2Ddefinition/"),
        ("GET", "/foundation%2dmodels"),
        ("GET", "/%62edrock/guardrails"),
        ("GET", "/guardrails/a%2Eb"),
        ("GET", "/guardrails/%61"),
    ] {
        assert!(matches!(owner(method, path, b""), Err(RouteError::BadPath(_))), "{path}");
    }
    for path in ["/%6Dodel/x/converse", "/model/x/conver%73e", "/model%2Fx%2Fconverse"] {
        assert!(owner("POST", path, b"").is_err(), "{path}");
    }
    // A model name is decoded before anything is looked up, and AWS never sees it.
    assert_eq!(owner("POST", "/model/%63laude%2D3/converse", b"").unwrap().1, "Converse");
}

#[test]
fn the_model_id_is_written_into_the_path_as_aws_escapes_it() {
    let route = route_with(&request("POST", "/bedrock/model/aws/my%20model/converse"), b"").unwrap();
    for (id, expected) in [
        ("anthropic.claude-v2:1", "/model/anthropic.claude-v2%3A1/converse"),
        (
            "arn:aws:bedrock:us-west-2:1:inference-profile/us.a-b_c~d",
            "/model/arn%3Aaws%3Abedrock%3Aus-west-2%3A1%3Ainference-profile%2Fus.a-b_c~d/converse",
        ),
        ("a b+c%d/è", "/model/a%20b%2Bc%25d%2F%C3%A8/converse"),
    ] {
        assert_eq!(upstream_path(&route, id), expected);
    }
    let path = format!("/bedrock/tags/{AGENT_ARN}");
    let route = route_with(&request("GET", &path), b"").unwrap();
    assert_eq!(upstream_path(&route, "unused"), format!("/tags/{AGENT_ARN}"));
}

/// `operation_prices` names an operation without its service.
#[test]
fn operations_that_share_a_name_are_free_in_every_service() {
    let mut services: BTreeMap<&str, BTreeSet<Service>> = BTreeMap::new();
    for operation in operations() {
        services.entry(operation.name).or_default().insert(operation.service);
    }
    services.retain(|_, services| services.len() > 1);
    assert_eq!(services.len(), 7, "{services:?}");
    for operation in operations().iter().filter(|operation| services.contains_key(operation.name)) {
        assert_eq!(operation.metering, Metering::Free, "{:?} {}", operation.service, operation.name);
    }
}

proptest! {
    #[test]
    fn a_generated_path_finds_the_operation_it_came_from(
        which: Index,
        labels in proptest::collection::vec("[A-Za-z0-9_~$!*'(),=@+-]{1,12}(%3A|%2F|%20|:|\\.)?[a-z0-9]{1,8}", 8),
        prefixed: bool,
    ) {
        let operation = which.get(operations());
        // Labels that read like a literal are the next property's.
        prop_assume!(!labels.iter().any(|label| literal_segments().contains(&label.as_str())));
        let (path, body) = concrete(operation, &|place| labels[place % labels.len()].clone());
        let path = if prefixed { format!("/bedrock{path}") } else { path };
        assert_found(operation, &path, body);
    }

    #[test]
    fn the_tree_agrees_with_a_search_over_all_templates(
        method in select(vec!["GET", "POST", "PUT", "DELETE", "PATCH"]),
        which: Index,
        swaps in proptest::collection::vec((any::<Index>(), any::<Index>()), 0..4),
        toggle_slash: bool,
    ) {
        // Real templates whose segments are swapped for literals of other templates: the hardest look-alikes.
        let literals = literal_segments();
        let mut segments: Vec<_> = which.get(operations()).template.trim_matches('/').split('/').collect();
        for (place, with) in swaps {
            let place = place.index(segments.len());
            segments[place] = literals[with.index(literals.len())];
        }
        let slash = if toggle_slash { "/" } else { "" };
        let path = format!("/{}{slash}", segments.join("/"));
        prop_assume!(!path.starts_with(MODEL_PREFIX) && path != "/" && path != "//");
        let expected = matches_by_search(method, &path);
        match find(&request(method, &path)) {
            Ok(Found::Route(route)) => {
                prop_assert_eq!(expected, Some(BTreeSet::from([(route.operation.service, route.operation.name)])));
            }
            Ok(Found::NeedsBody(tie)) => {
                let candidates = tie.operations().map(|operation| (operation.service, operation.name)).collect();
                prop_assert_eq!(expected, Some(candidates));
            }
            // `{resourceArn}` is no ARN.
            Err(RouteError::Ambiguous(_)) => prop_assert!(expected.is_some_and(|set| set.len() > 1)),
            Err(RouteError::UnknownOperation | RouteError::MethodNotAllowed { .. }) => prop_assert_eq!(expected, None),
            Err(error) => prop_assert!(false, "{} {}: {}", method, path, error),
        }
    }

    #[test]
    fn no_input_panics_and_no_found_path_has_two_readings(
        method in "[A-Z]{0,7}",
        head in "(/bedrock)?(/model)?",
        middle in "(/|%2[eEfF]|%25|%5[cC]|[.]{1,2}|;|\\\\|[a-z]{1,3}|\\PC|%[0-9a-f]{2}){0,12}",
        tail in "(/converse|/invoke)?",
        body: Vec<u8>,
    ) {
        let path = format!("{head}{middle}{tail}");
        let outcome = find(&request(&method, &path));
        if let Ok(Found::NeedsBody(tie)) = outcome {
            let _decided = tie.decide(&body);
        }
        if outcome.is_ok() {
            let once = decode_segment(&path).expect("a found path decodes").into_owned();
            let twice = decode_segment(&once).map_or_else(|| once.clone(), std::borrow::Cow::into_owned);
            for text in [path.as_str(), &once, &twice] {
                prop_assert!(!text.split(['/', '\\']).any(|piece| matches!(piece, "." | "..")), "{}", path);
            }
            prop_assert!(!path.contains("//") && !path.contains('\\') && path.is_ascii());
        }
    }

    #[test]
    fn an_upstream_path_decodes_to_its_model_id(id in "\\PC{1,64}") {
        let route = route_with(&request("POST", "/model/x/invoke"), b"").unwrap();
        let path = upstream_path(&route, &id);
        let raw = path.strip_prefix("/model/").and_then(|rest| rest.strip_suffix("/invoke")).unwrap();
        prop_assert!(!raw.contains('/'));
        let decoded = decode_segment(raw);
        prop_assert_eq!(decoded.as_deref(), Some(id.as_str()));
    }
}

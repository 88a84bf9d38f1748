use super::*;

fn asked<'a>(method: &'a str, path: &'a str) -> Asked<'a> {
    Asked { method, path, host: "127.0.0.1:1", amz_target: None, scope_service: Some("bedrock"), body: b"" }
}

fn name_of(asked: &Asked<'_>) -> Option<(&'static str, &'static str)> {
    recognise(asked).map(|operation| (operation.service.as_str(), operation.name.as_str()))
}

#[test]
fn every_modelled_operation_is_known_and_found_by_a_path_of_its_own() {
    assert_eq!(modelled_count(), 523);
    let arn = |service: &str, resource: &str| format!("arn%3Aaws%3A{service}%3Aus-east-1%3A123456789012%3A{resource}");
    for operation in TABLE.by_start.values().flatten().chain(TABLE.by_target.values()) {
        let filling = match operation.service.as_str() {
            "bedrock-agentcore-control" | "bedrock-agentcore" => arn("bedrock-agentcore", "runtime%2Fx"),
            "bedrock-agent-runtime" => arn("bedrock", "session%2F0000"),
            _ => arn("bedrock", "agent%2FABCDEFGHIJ"),
        };
        let segments = operation.template.split('/').map(|part| if part.starts_with('{') { &filling } else { part });
        let path = segments.collect::<Vec<_>>().join("/");
        let body = if operation.service == "bedrock-data-automation" {
            br#"{"resourceARN":"arn:aws:bedrock:us-east-1:1:blueprint/x"}"#.as_slice()
        } else {
            b"{}"
        };
        let request = Asked {
            method: &operation.method,
            path: &path,
            host: "localhost",
            amz_target: operation.target.as_deref(),
            scope_service: Some(&operation.signing_name),
            body,
        };
        assert_eq!(name_of(&request), Some((operation.service.as_str(), operation.name.as_str())), "{path}");
    }
}

#[test]
fn ties_between_services_are_decided_as_aws_hosts_would() {
    let agent = "/tags/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Aagent%2FABCDEFGHIJ";
    assert_eq!(name_of(&asked("GET", agent)), Some(("bedrock-agent", "ListTagsForResource")));
    let session = "/tags/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Asession%2Fx";
    assert_eq!(name_of(&asked("GET", session)), Some(("bedrock-agent-runtime", "ListTagsForResource")));
    assert_eq!(name_of(&asked("POST", "/agents/ABCDEFGHIJ")), Some(("bedrock-agent-runtime", "InvokeInlineAgent")));
    assert_eq!(name_of(&asked("POST", "/agents/ABCDEFGHIJ/")), Some(("bedrock-agent", "PrepareAgent")));
    assert_eq!(
        name_of(&asked("POST", "/flows/validate-definition")),
        Some(("bedrock-agent", "ValidateFlowDefinition"))
    );
    let by_host = Asked { host: "bedrock-agent-fips.us-east-1.amazonaws.com", ..asked("GET", session) };
    assert_eq!(name_of(&by_host), Some(("bedrock-agent", "ListTagsForResource")));
    let wrong_host = Asked { host: "bedrock.us-east-1.amazonaws.com", ..asked("POST", "/model/x/converse") };
    assert_eq!(name_of(&wrong_host), None);
}

#[test]
fn what_no_service_has_is_unknown() {
    for (method, path) in [
        ("POST", "/model/x/convers"),
        ("GET", "/model/x/converse"),
        ("POST", "/model/x/converse/"),
        ("POST", "/model//converse"),
        ("POST", "/model/a/b/converse"),
        ("POST", "/bedrock/model/x/converse"),
        ("POST", "/rerank/"),
        ("POST", "*"),
    ] {
        assert_eq!(name_of(&asked(method, path)), None, "{path}");
    }
}

#[test]
fn labels_are_decoded_once() {
    let request = asked("POST", "/model/us.anthropic.claude%253A-v1%3A0/converse");
    let operation = recognise(&request).unwrap();
    assert_eq!(label(operation, request.path, 0).unwrap(), "us.anthropic.claude%3A-v1:0");
}

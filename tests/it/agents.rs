//! Agents, flows, knowledge bases and AgentCore: their streams pass as they are and end so that no client takes a broken
//! one for a whole one, and what they cost is charged once, by the rule of docs/budgets.md.

use serde_json::{Value, json};

use crate::costs::{COST, NOVA};
use crate::support::{
    Answer, Asked, Connection, Http, Key, Plan, Rig, Stand, Store, direct, frame_header, frames, read_at_least, rules,
    sha256,
};

/// Exceptions of the streams of bedrock-agent-runtime, as botocore 1.44.5 models them.
const AGENT_RUNTIME: &[&str] = &[
    "accessDeniedException",
    "badGatewayException",
    "conflictException",
    "dependencyFailedException",
    "internalServerException",
    "resourceNotFoundException",
    "serviceQuotaExceededException",
    "throttlingException",
    "validationException",
];
const OPTIMIZE_PROMPT: &[&str] = &[
    "accessDeniedException",
    "badGatewayException",
    "dependencyFailedException",
    "internalServerException",
    "throttlingException",
    "validationException",
];
const CODE_INTERPRETER: &[&str] = &[
    "accessDeniedException",
    "conflictException",
    "internalServerException",
    "resourceNotFoundException",
    "serviceQuotaExceededException",
    "throttlingException",
    "validationException",
];
const COMMAND: &[&str] = &[
    "accessDeniedException",
    "internalServerException",
    "resourceNotFoundException",
    "serviceQuotaExceededException",
    "throttlingException",
    "validationException",
    "runtimeClientError",
];
const HARNESS: &[&str] = &["internalServerException", "validationException", "runtimeClientError"];

const RUNTIME: &str = "/runtimes/arn%3Aaws%3Abedrock-agentcore%3Aus-east-1%3A123456789012%3Aruntime%2Fr1";

/// A call that generates.
struct Call {
    operation: &'static str,
    signing_name: &'static str,
    asked: Asked,
    /// What its event stream can end with; `None` where the answer is none.
    exceptions: Option<&'static [&'static str]>,
}

fn call(operation: &'static str, path: &str, body: &Value, exceptions: Option<&'static [&'static str]>) -> Call {
    let core = ["InvokeAgentRuntime", "InvokeAgentRuntimeCommand", "InvokeHarness", "InvokeCodeInterpreter"];
    let signing_name = if core.contains(&operation) { "bedrock-agentcore" } else { "bedrock" };
    Call { operation, signing_name, asked: Asked::post(path, body.to_string()), exceptions }
}

fn agent(trace: bool) -> Call {
    let body = json!({ "inputText": "Tell me a story", "enableTrace": trace });
    call("InvokeAgent", "/agents/AGENT12345/agentAliases/ALIAS12345/sessions/s1/text", &body, Some(AGENT_RUNTIME))
}

fn calls() -> Vec<Call> {
    let inline =
        json!({ "inputText": "Hi", "enableTrace": true, "foundationModel": NOVA, "instruction": "Be a storyteller" });
    let document = json!([{ "content": { "document": "Hi" }, "nodeName": "in", "nodeOutputName": "document" }]);
    let generate = json!({ "input": { "text": "Hi" }, "retrieveAndGenerateConfiguration": { "type": "KNOWLEDGE_BASE",
        "knowledgeBaseConfiguration": { "knowledgeBaseId": "KB1", "modelArn": NOVA } } });
    let prompt = json!({ "input": { "textPrompt": { "text": "Hi" } }, "targetModelId": NOVA });
    let query = json!({ "queryGenerationInput": { "type": "TEXT", "text": "Hi" },
        "transformationConfiguration": { "mode": "TEXT_TO_SQL" } });
    let message = json!([{ "role": "user", "content": [{ "text": "Hi" }] }]);
    let retrieve = json!({ "messages": message.clone(), "retrievers": [] });
    let harness = json!({ "messages": message, "model": { "bedrockModelConfig": { "modelId": NOVA } } });
    vec![
        agent(true),
        call("InvokeInlineAgent", "/agents/s1", &inline, Some(AGENT_RUNTIME)),
        call(
            "InvokeFlow",
            "/flows/FLOW123456/aliases/ALIAS12345",
            &json!({ "inputs": document, "enableTrace": true }),
            Some(AGENT_RUNTIME),
        ),
        call("RetrieveAndGenerate", "/retrieveAndGenerate", &generate, None),
        call("RetrieveAndGenerateStream", "/retrieveAndGenerateStream", &generate, Some(AGENT_RUNTIME)),
        call("GenerateQuery", "/generateQuery", &query, None),
        call("OptimizePrompt", "/optimize-prompt", &prompt, Some(OPTIMIZE_PROMPT)),
        call("AgenticRetrieveStream", "/agenticRetrieveStream", &retrieve, Some(AGENT_RUNTIME)),
        call("InvokeAgentRuntime", &format!("{RUNTIME}/invocations"), &json!({ "prompt": "Hi" }), None),
        call("InvokeAgentRuntimeCommand", &format!("{RUNTIME}/commands"), &json!({ "command": "ls" }), Some(COMMAND)),
        call("InvokeHarness", "/harnesses/invoke", &harness, Some(HARNESS)),
        call(
            "InvokeCodeInterpreter",
            "/code-interpreters/ci-1/tools/invoke",
            &json!({ "name": "executeCode", "arguments": { "code": "1" } }),
            Some(CODE_INTERPRETER),
        ),
    ]
}

/// What an answer brings for the client, header by header but for those of the connection and our own.
fn shown(answer: &Answer) -> Vec<(String, String)> {
    let own = |name: &str| {
        name.starts_with("x-dheera-ai-")
            || matches!(name, "date" | "connection" | "transfer-encoding" | "content-length" | "x-amzn-requestid")
    };
    let headers = answer.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    let mut headers: Vec<_> = headers.filter(|(name, _)| !own(name)).collect();
    headers.sort();
    headers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_agent_answers_byte_for_byte_with_the_headers_of_aws() {
    let rig = Rig::start().await;
    rig.simulator.behave(rules(&json!([{ "frames": 9, "frame_bytes": 11 }])));
    for Call { operation, signing_name, asked, .. } in calls() {
        let expected = direct(&rig.simulator, &asked, signing_name).await;
        assert_eq!(expected.status, 200, "{operation}: {expected:?}");
        for http in [Http::One, Http::Two] {
            rig.simulator.clear_requests();
            let answer = Connection::open(rig.proxy.address, http).await.call(&asked).await;
            assert_eq!((answer.status, &answer.broke), (200, &None), "{operation}");
            assert_eq!(sha256(&answer.body), sha256(&expected.body), "{operation} over {http:?}");
            assert_eq!(shown(&answer), shown(&expected), "{operation} over {http:?}");
            let sent = rig.simulator.requests().remove(0);
            assert_eq!((sent.operation, sent.body_sha256), (Some(operation), sha256(&asked.body)));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_modelled_exception_passes_unchanged() {
    let rig = Rig::start().await;
    for Call { operation, signing_name, asked, exceptions } in calls() {
        for name in exceptions.unwrap_or_default() {
            let fault = json!({ "kind": "exception_frame", "after_frames": 1, "name": name, "message": "of AWS" });
            rig.simulator.behave(rules(&json!([{ "frames": 5, "fault": fault }])));
            let expected = direct(&rig.simulator, &asked, signing_name).await;
            let answer = rig.proxy.call(&asked).await;
            assert_eq!((answer.status, &answer.broke), (200, &None), "{operation} {name}");
            assert_eq!(sha256(&answer.body), sha256(&expected.body), "{operation} {name}");
            let (frames, rest) = frames(&answer.body);
            assert_eq!((frames.len(), rest), (2, 0), "{operation} {name}");
            assert_eq!(frame_header(&frames[1], ":exception-type"), Some(*name), "{operation}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_breaks_ends_with_an_exception_that_its_operation_models() {
    let rig = Rig::start().await;
    for Call { operation, asked, exceptions, .. } in calls() {
        rig.simulator.behave(rules(&json!([{ "frames": 5, "fault": { "kind": "cut", "after_frames": 1 } }])));
        for http in [Http::One, Http::Two] {
            let mut connection = Connection::open(rig.proxy.address, http).await;
            let Some(exceptions) = exceptions else {
                // No frames, no exception: the break itself is what the client sees.
                if let Ok(response) = connection.try_begin(&asked).await {
                    let answer = crate::support::whole(response).await;
                    assert!(answer.status != 200 || answer.broke.is_some(), "{operation} over {http:?}: {answer:?}");
                }
                continue;
            };
            let answer = connection.call(&asked).await;
            assert_eq!((answer.status, &answer.broke), (200, &None), "{operation} over {http:?}");
            let (frames, rest) = frames(&answer.body);
            assert_eq!((frames.len(), rest), (2, 0), "{operation} over {http:?}");
            assert_eq!(frame_header(&frames[1], ":message-type"), Some("exception"), "{operation}");
            let name = frame_header(&frames[1], ":exception-type").unwrap();
            assert!(exceptions.contains(&name), "{operation}: {name}");
            let told: Value = serde_json::from_slice(&frames[1].payload).unwrap();
            assert!(told["message"].as_str().is_some_and(|message| !message.is_empty()), "{operation}: {told}");
            let record = rig.proxy.record(answer.call_id()).await;
            assert_eq!((&record["fault"], &record["reason"]), (&json!("upstream"), &json!("upstream_broke")));
        }
    }
}

/// A stand on which every operation of [`calls`] has a price of its own: $0.001 for the first, $0.002 …
async fn priced() -> Stand {
    let calls = calls();
    let prices = calls.iter().enumerate().map(|(at, call)| format!("    {}: {}\n", call.operation, price_usd(at)));
    let rest = format!("general_settings:\n  operation_prices:\n{}", prices.collect::<String>());
    Plan::new(Store::Embedded).rest(&rest).start().await
}

fn price_usd(at: usize) -> String {
    format!("0.{:03}", at + 1)
}

fn price(at: usize) -> u64 {
    u64::try_from(at + 1).unwrap() * 1_000_000
}

/// Running a command needs to be allowed by name.
async fn key(stand: &Stand, limited: bool) -> Key {
    let mut fields = json!({ "allowed_operations": ["*"] });
    if limited {
        fields["max_budget"] = json!(1);
    }
    stand.key(&fields).await
}

/// Traces tell 1001 and 203 tokens of Nova Pro, $0.0014504; what the operator set goes before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_price_is_charged_once_for_each_call_that_succeeds_and_for_no_other() {
    let stand = priced().await;
    let traced = json!({ "usage": { "input": 1001, "output": 203 }, "billed_model": NOVA });
    for limited in [true, false] {
        for (at, Call { operation, asked, .. }) in calls().into_iter().enumerate() {
            let key = key(&stand, limited).await;
            stand.simulator.behave(rules(&json!([traced])));
            let before = stand.sum(COST, &[]).await;
            let answer = stand.call(&key, &asked).await;
            assert_eq!(answer.status, 200, "{operation}: {answer:?}");
            let record = stand.proxy().record(answer.call_id()).await;
            assert_eq!(record["cost_nano_usd"], json!(price(at)), "{operation} limited {limited}: {record}");
            stand.assert_spent(&key, price(at)).await;
            assert_eq!(stand.sum(COST, &[]).await - before, price(at), "{operation}");
            // What AWS refuses costs nothing.
            let fault = json!({ "kind": "error", "status": 400, "error_type": "ValidationException" });
            stand.simulator.behave(rules(&json!([{ "fault": fault }])));
            assert_eq!(stand.call(&key, &asked).await.status, 400, "{operation}");
            stand.assert_spent(&key, price(at)).await;
            // A stream that began has been made, however it ends.
            stand.simulator.behave(rules(&json!([{ "frames": 5, "fault": { "kind": "cut", "after_frames": 1 } }])));
            let mut connection = Connection::open(stand.proxy().address, Http::One).await;
            if let Ok(response) = connection.try_begin(&asked.clone().by(&key.secret)).await {
                crate::support::whole(response).await;
            }
            stand.assert_spent(&key, 2 * price(at)).await;
        }
    }
    stand.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_is_charged_the_set_price_once() {
    let stand = priced().await;
    for (at, Call { operation, asked, exceptions, .. }) in calls().into_iter().enumerate() {
        if exceptions.is_none() {
            continue;
        }
        let key = key(&stand, true).await;
        let stall = json!({ "kind": "stall_mid_stream", "after_frames": 1, "ms": 300 });
        stand.simulator.behave(rules(&json!([{ "frames": 5, "fault": stall }])));
        let mut connection = Connection::open(stand.proxy().address, Http::One).await;
        let response = connection.begin(&asked.by(&key.secret)).await;
        let mut body = response.into_body();
        read_at_least(&mut body, 1).await;
        drop((body, connection));
        stand.assert_spent(&key, price(at)).await;
        println!("{operation}: {}", price(at));
    }
    stand.assert_sound().await;
}

/// Without a set price a budget cannot be kept, so such a call is refused, trace or not, with the name of the setting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_refuses_what_reports_no_bound_and_names_the_setting() {
    let stand = Plan::new(Store::Embedded).start().await;
    let key = key(&stand, true).await;
    for Call { operation, asked, .. } in calls().into_iter().chain([agent(false)]) {
        let answer = stand.call(&key, &asked).await;
        answer.assert_error(403, "AccessDeniedException");
        let setting = format!("operation_prices.{operation}");
        assert!(answer.json()["message"].as_str().unwrap().contains(&setting), "{answer:?}");
    }
    assert_eq!(stand.simulator.counters().requests, 0);
    assert_eq!(stand.spent(&key).await, 0);
}

/// What generates nothing is free, and open to a budget that is used up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_retrieval_and_tags_pass_and_cost_nothing() {
    let stand = Plan::new(Store::Embedded).start().await;
    let key = stand.key(&json!({ "max_budget": 0 })).await;
    let session = "/sessions/01234567-89ab-cdef-0123-456789abcdef";
    let tags = "/tags/arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Asession%2F01234567-89ab";
    let step = json!({ "invocationStepTime": "2026-11-22T00:00:00Z", "payload": { "contentBlocks": [] } });
    for (method, path, body, operation) in [
        ("PUT", "/sessions/", "{}".to_owned(), "CreateSession"),
        ("GET", &format!("{session}/"), String::new(), "GetSession"),
        ("PATCH", session, "{}".to_owned(), "EndSession"),
        ("PUT", &format!("{session}/invocations/"), "{}".to_owned(), "CreateInvocation"),
        ("PUT", &format!("{session}/invocationSteps/"), step.to_string(), "PutInvocationStep"),
        ("POST", "/knowledgebases/KB1/retrieve", json!({ "retrievalQuery": { "text": "x" } }).to_string(), "Retrieve"),
        ("GET", tags, String::new(), "ListTagsForResource"),
        ("POST", tags, json!({ "tags": { "a": "b" } }).to_string(), "TagResource"),
        ("DELETE", &format!("{tags}?tagKeys=a"), String::new(), "UntagResource"),
    ] {
        stand.simulator.clear_requests();
        let asked = Asked::method(method, path, body);
        let answer = stand.call(&key, &asked).await;
        let sent = stand.simulator.requests();
        assert_eq!(sent.len(), 1, "{method} {path}: {answer:?}");
        assert_eq!((sent[0].service, sent[0].operation), (Some("bedrock-agent-runtime"), Some(operation)), "{path}");
        assert!((200..300).contains(&answer.status) && sent[0].auth.ok, "{method} {path}: {answer:?}");
        let record = stand.proxy().record(answer.call_id()).await;
        assert_eq!(record["unpriced"], Value::Null, "{record}");
    }
    assert_eq!(stand.spent(&key).await, 0);
}

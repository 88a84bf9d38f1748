//! InvokeAgent, InvokeInlineAgent and InvokeFlow. Usage is visible only in traces, and only at `modelInvocationOutput`;
//! the observation repeats it, so that a reader which adds up every `usage` counts twice. Without `enableTrace` nothing
//! is reported, yet everything is billed. Source: `ResponseStream` and `FlowResponseStream` of bedrock-agent-runtime.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::generation::Generation;
use super::{Answer, Answered, Ask};
use crate::billing::Bill;
use crate::usage::Usage;

/// The model behind an agent that names none.
const AGENT_MODEL: &str = "anthropic.claude-3-haiku-20240307-v1:0";
const EVENT_TIME: &str = "2026-11-22T00:00:00Z";

pub fn invoke(ask: &Ask<'_>) -> Answered {
    let inline = ask.operation.name == "InvokeInlineAgent";
    let session = ask.label(if inline { 0 } else { 2 });
    let generation = Generation::of(ask);
    let model = agent_model(ask);
    let mut events = Vec::new();
    if is_traced(ask) {
        for part in trace_parts(&generation, &model) {
            events.push(("trace", json!({ "sessionId": session, "eventTime": EVENT_TIME, "trace": part })));
        }
    }
    for text in &generation.deltas {
        events.push(("chunk", json!({ "bytes": BASE64_STANDARD.encode(text) })));
    }
    let mut answer = Answer::frames(events);
    answer.headers.push(("x-amzn-bedrock-agent-content-type", "application/json".to_owned()));
    answer.headers.push(("x-amz-bedrock-agent-session-id", session));
    (answer, Some(agent_bill(ask, model, generation.usage)))
}

pub fn flow(ask: &Ask<'_>) -> Answered {
    let generation = Generation::of(ask);
    let model = agent_model(ask);
    let mut events = Vec::new();
    if is_traced(ask) {
        let traces: Vec<Value> = trace_parts(&generation, &model)
            .into_iter()
            .map(|trace| json!({ "agentId": "ABCDEFGHIJ", "sessionId": "s1", "eventTime": EVENT_TIME, "trace": trace }))
            .collect();
        let elements = json!({ "agentTraces": traces });
        let dependency = json!({ "nodeName": "Agent_1", "timestamp": EVENT_TIME, "traceElements": elements });
        events.push(("flowTraceEvent", json!({ "trace": { "nodeDependencyTrace": dependency } })));
    }
    let content = json!({ "document": generation.text() });
    events.push((
        "flowOutputEvent",
        json!({ "nodeName": "FlowOutputNode", "nodeType": "FlowOutputNode", "content": content }),
    ));
    events.push(("flowCompletionEvent", json!({ "completionReason": "SUCCESS" })));
    let mut answer = Answer::frames(events);
    answer.headers.push(("x-amz-bedrock-flow-execution-id", "sim1".to_owned()));
    (answer, Some(agent_bill(ask, model, generation.usage)))
}

fn is_traced(ask: &Ask<'_>) -> bool {
    ask.json.get("enableTrace").and_then(Value::as_bool) == Some(true)
}

fn agent_model(ask: &Ask<'_>) -> String {
    ask.billed_model().unwrap_or_else(|| AGENT_MODEL.to_owned())
}

/// Traces report no cache tokens, so an agent has none.
fn agent_bill(ask: &Ask<'_>, model: String, usage: Usage) -> Bill {
    let usage = Usage { input: usage.input, output: usage.output, ..Usage::default() };
    Bill { model: Some(model), usage, mantle: ask.is_mantle(), ..Bill::default() }
}

/// Two model invocations that share the usage, and an observation that repeats the sum.
fn trace_parts(generation: &Generation, model: &str) -> Vec<Value> {
    let usage = generation.usage;
    let first = Usage { input: usage.input / 2, output: usage.output / 2, ..Usage::default() };
    let second = Usage { input: usage.input - first.input, output: usage.output - first.output, ..Usage::default() };
    let metadata = |usage: &Usage| json!({ "usage": { "inputTokens": usage.input, "outputTokens": usage.output } });
    let output = |usage: &Usage, id: &str| json!({ "traceId": id, "metadata": metadata(usage), "rawResponse": { "content": "…" } });
    let input = |id: &str, kind: &str| json!({ "traceId": id, "type": kind, "foundationModel": model, "text": "…" });
    vec![
        json!({ "preProcessingTrace": { "modelInvocationInput": input("t-0", "PRE_PROCESSING") } }),
        json!({ "preProcessingTrace": { "modelInvocationOutput": output(&first, "t-0") } }),
        json!({ "orchestrationTrace": { "modelInvocationInput": input("t-1", "ORCHESTRATION") } }),
        json!({ "orchestrationTrace": { "modelInvocationOutput": output(&second, "t-1") } }),
        json!({ "orchestrationTrace": { "observation": {
            "traceId": "t-2",
            "type": "FINISH",
            "finalResponse": { "text": generation.text(), "metadata": metadata(&usage) },
        } } }),
    ]
}

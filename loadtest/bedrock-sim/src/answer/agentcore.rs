//! The data plane of AgentCore as far as it answers: InvokeAgentRuntime passes through whatever an agent writes (here
//! server-sent events, or JSON where the client asks for it); InvokeHarness streams like Converse and reports usage.

use bytes::Bytes;
use serde_json::{Value, json};

use super::generation::Generation;
use super::{Answer, Answered, Ask};
use crate::sse;

pub fn runtime(ask: &Ask<'_>) -> Answer {
    let generation = Generation::of(ask);
    let own = ask.header("x-amzn-bedrock-agentcore-runtime-session-id").map(str::to_owned);
    let session = own.unwrap_or_else(|| crate::text::uuid(ask.seed, 0));
    let mut answer =
        if ask.header("accept").is_some_and(|accept| !accept.contains("text/event-stream") && accept != "*/*") {
            Answer::json(200, &json!({ "result": generation.text() }))
        } else {
            let events: Vec<Bytes> = generation.deltas.iter().map(|text| sse::data(&json!(text))).collect();
            Answer::events(events)
        };
    answer.headers.push(("x-amzn-bedrock-agentcore-runtime-session-id", session));
    answer
}

pub fn harness(ask: &Ask<'_>) -> Answered {
    let generation = Generation::of(ask);
    let usage = &generation.usage;
    let mut events: Vec<(&'static str, Value)> = vec![("messageStart", json!({ "role": "assistant" }))];
    for text in &generation.deltas {
        events.push(("contentBlockDelta", json!({ "contentBlockIndex": 0, "delta": { "text": text } })));
    }
    events.push(("contentBlockStop", json!({ "contentBlockIndex": 0 })));
    events.push(("messageStop", json!({ "stopReason": generation.stop_word("end_turn", "max_tokens", "tool_use") })));
    events.push((
        "metadata",
        json!({
            "usage": {
                "inputTokens": usage.input,
                "outputTokens": usage.output,
                "totalTokens": usage.total(),
                "cacheReadInputTokens": usage.cache_read,
                "cacheWriteInputTokens": usage.cache_write(),
            },
            "metrics": { "latencyMs": generation.latency_ms },
        }),
    ));
    (Answer::frames(events), Some(ask.bill(&generation)))
}

pub fn code_interpreter() -> Answer {
    let structured = json!({ "stdout": "1\n", "stderr": "", "exitCode": 0, "executionTime": 0.1 });
    let mut answer = Answer::frames([(
        "result",
        json!({ "content": [{ "type": "text", "text": "1\n" }], "structuredContent": structured, "isError": false }),
    )]);
    answer.headers.push(("x-amzn-code-interpreter-session-id", "sim1".to_owned()));
    answer
}

pub fn command() -> Answer {
    Answer::frames([
        ("chunk", json!({ "contentStart": {} })),
        ("chunk", json!({ "contentDelta": { "stdout": "simulated\n" } })),
        ("chunk", json!({ "contentStop": { "exitCode": 0, "status": "COMPLETED" } })),
    ])
}

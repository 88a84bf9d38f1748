//! Knowledge bases and prompt tools of bedrock-agent-runtime. Retrieve generates nothing and is free here. The generating
//! operations report no usage at all, but are billed for it: what a proxy settles for them is a matter of its settings,
//! and the simulator tells what AWS would have charged. Rerank is billed by queries.

use serde_json::{Value, json};

use super::generation::Generation;
use super::{Answer, Answered, Ask, invoke};
use crate::billing::Bill;
use crate::usage::Usage;

pub fn retrieve(ask: &Ask<'_>) -> Answer {
    let text = Generation::of(ask).text();
    Answer::json(200, &json!({ "retrievalResults": [result(&text)] }))
}

pub fn generate(ask: &Ask<'_>) -> Answered {
    let generation = Generation::of(ask);
    let body = json!({
        "sessionId": session(ask),
        "output": { "text": generation.text() },
        "citations": [{ "retrievedReferences": [reference()] }],
        "guardrailAction": "NONE",
    });
    (Answer::json(200, &body), Some(ask.bill(&generation)))
}

pub fn generate_stream(ask: &Ask<'_>) -> Answered {
    let generation = Generation::of(ask);
    let mut events: Vec<(&'static str, Value)> =
        generation.deltas.iter().map(|text| ("output", json!({ "text": text }))).collect();
    events.push(("citation", json!({ "citation": { "retrievedReferences": [reference()] } })));
    let mut answer = Answer::frames(events);
    answer.headers.push(("x-amzn-bedrock-knowledge-base-session-id", session(ask)));
    (answer, Some(ask.bill(&generation)))
}

pub fn rerank(ask: &Ask<'_>) -> Answered {
    let sources = ask.json.get("sources").and_then(Value::as_array).map_or(0, Vec::len);
    let place = "/rerankingConfiguration/bedrockRerankingConfiguration/numberOfResults";
    let wanted = ask.json.pointer(place).and_then(Value::as_u64).and_then(|count| usize::try_from(count).ok());
    let results: Vec<Value> = (0..sources.min(wanted.unwrap_or(sources)))
        .map(|index| json!({ "index": index, "relevanceScore": invoke::relevance(index) }))
        .collect();
    let counted = Usage { queries: invoke::queries(sources), ..Usage::default() };
    let usage = counted.overridden(&ask.effect.usage.unwrap_or_default());
    let bill = Bill { model: ask.billed_model(), usage, ..Bill::default() };
    (Answer::json(200, &json!({ "results": results })), Some(bill))
}

pub fn generate_query(ask: &Ask<'_>) -> Answered {
    let body = json!({ "queries": [{ "type": "REDSHIFT_SQL", "sql": "SELECT 1" }] });
    (Answer::json(200, &body), Some(ask.bill(&Generation::of(ask))))
}

pub fn optimize_prompt(ask: &Ask<'_>) -> Answered {
    let generation = Generation::of(ask);
    let optimized = json!({ "optimizedPrompt": { "textPrompt": { "text": generation.text() } } });
    let answer = Answer::frames([
        ("analyzePromptEvent", json!({ "message": "The prompt is analyzed." })),
        ("optimizedPromptEvent", optimized),
    ]);
    (answer, Some(ask.bill(&generation)))
}

pub fn agentic_retrieve(ask: &Ask<'_>) -> Answered {
    let generation = Generation::of(ask);
    let attributes = json!({ "message": "planning", "status": "SUCCEEDED", "step": "Planning" });
    let trace = json!({ "id": "t-0", "timestamp": 1_795_305_600_000_u64, "attributes": attributes });
    let mut events = vec![("traceEvent", trace)];
    events.extend(generation.deltas.iter().map(|text| ("responseEvent", json!({ "text": text }))));
    let source = json!({ "mimeType": "text/plain", "text": "simulated" });
    let results = json!([{ "content": source, "sourceRetriever": { "identifier": "KB12345678" } }]);
    events.push(("result", json!({ "results": results, "generatedResponse": { "answer": generation.text() } })));
    (Answer::frames(events), Some(ask.bill(&generation)))
}

fn session(ask: &Ask<'_>) -> String {
    let own = ask.json.get("sessionId").and_then(Value::as_str);
    own.map_or_else(|| crate::text::uuid(ask.seed, crate::text::mix(ask.seed, ask.body)), str::to_owned)
}

fn reference() -> Value {
    json!({
        "content": { "type": "TEXT", "text": "simulated" },
        "location": { "type": "S3", "s3Location": { "uri": "s3://simulated/document.txt" } },
    })
}

fn result(text: &str) -> Value {
    let mut result = reference();
    result["content"]["text"] = json!(text);
    result["score"] = json!(0.5);
    result
}

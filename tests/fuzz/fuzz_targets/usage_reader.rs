//! The usage reader: arbitrary bytes for every kind of metering never panic, and read the same however they are cut.
#![no_main]

use base64::Engine;
use dheera_ai_fuzz::aws::operation::Metering;
use dheera_ai_fuzz::usage::{Metered, RequestFacts, UsageReader};
use dheera_ai_fuzz::{event_headers, pieces, sealed};
use libfuzzer_sys::fuzz_target;

const KINDS: [Metering; 18] = [
    Metering::Free,
    Metering::Converse,
    Metering::ConverseStream,
    Metering::InvokeModel,
    Metering::InvokeModelStream,
    Metering::InvokeModelBidirectional,
    Metering::ApplyGuardrail,
    Metering::GuardrailChecks,
    Metering::StartAsyncInvoke,
    Metering::Rerank,
    Metering::AgentTrace,
    Metering::FlowTrace,
    Metering::Harness,
    Metering::Unreported,
    Metering::OpenAiChat,
    Metering::OpenAiResponses,
    Metering::AnthropicMessages,
    Metering::InvokeModelStream,
];

const MODELS: [&str; 10] = [
    "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
    "amazon.nova-canvas-v1:0",
    "stability.stable-diffusion-xl-v1",
    "amazon.titan-embed-image-v1",
    "amazon.nova-2-multimodal-embeddings-v1:0",
    "twelvelabs.marengo-embed-3-0-v1:0",
    "twelvelabs.pegasus-1-2-v1:0",
    "cohere.rerank-v3-5:0",
    "amazon.nova-reel-v1:1",
    "arn:aws:bedrock:us-east-1:1:application-inference-profile/x",
];

const EVENTS: [(&str, &str); 7] = [
    ("event", "metadata"),
    ("event", "chunk"),
    ("event", "contentBlockDelta"),
    ("event", "trace"),
    ("event", "flowTraceEvent"),
    ("event", "flowOutputEvent"),
    ("exception", "throttlingException"),
];

fn read<'a>(facts: &RequestFacts, content_type: &str, header: &[u8], body: impl Iterator<Item = &'a [u8]>) -> Metered {
    let mut reader = UsageReader::new(facts.clone());
    let headers = [("X-Amzn-Bedrock-Input-Token-Count", header), ("x-amzn-bedrock-service-tier", header)];
    reader.response_header(200, Some(content_type), None, headers.into_iter());
    for piece in body {
        reader.push(piece);
    }
    reader.finish()
}

fuzz_target!(|input: &[u8]| {
    let Some(([kind, model, form, header_bytes, seed @ ..], input)) = input.split_first_chunk::<8>() else { return };
    let metering = KINDS[usize::from(*kind) % KINDS.len()];
    let model = MODELS[usize::from(*model) % MODELS.len()];
    let (header, input) = input.split_at(usize::from(*header_bytes).min(input.len()));
    let content_type = if form & 1 == 0 { "application/json" } else { "text/event-stream; charset=utf-8" };
    let body = if form & 2 == 0 {
        input.to_vec()
    } else {
        // One event per line of the input, sealed, and base64 inside where the event is an envelope.
        let mut stream = Vec::new();
        for (line, event) in input.split(|byte| *byte == b'\n').zip(EVENTS.iter().cycle().skip(usize::from(form >> 2)))
        {
            let enveloped = format!("{{\"bytes\":\"{}\"}}", base64::prelude::BASE64_STANDARD.encode(line));
            let payload = if event.1 == "chunk" { enveloped.as_bytes() } else { line };
            stream.extend_from_slice(&sealed(&event_headers(event.0, event.1), payload));
        }
        stream
    };
    let facts = RequestFacts::read(metering, (form & 128 == 0).then_some(model), input);
    let whole = read(&facts, content_type, header, [body.as_slice()].into_iter());
    let seed = u64::from(u32::from_le_bytes(*seed));
    let cut = read(&facts, content_type, header, pieces(&body, seed).into_iter());
    assert_eq!(whole, cut);
});

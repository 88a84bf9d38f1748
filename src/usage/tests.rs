use super::*;
use crate::aws::eventstream::encode::{HeaderValue, frame};
use crate::types::tokens::Tokens;
use crate::types::usage::{GuardrailUnits, ImageTerms, Latency, Tier};
use base64::Engine;
use proptest::prelude::*;
use std::io::Write;

const FIXTURES: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/event_streams.txt"));
const CLAUDE: &str = "us.anthropic.claude-sonnet-4-5-20250929-v1:0";

/// The frames of a recorded stream.
fn recorded(stream: &str) -> Vec<u8> {
    let lines = FIXTURES.lines().filter_map(|line| line.split_once(' ')).filter(|(name, _)| *name == stream);
    let hex: String = lines.map(|(_, hex)| hex).collect();
    hex.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn event(name: &str, payload: &str) -> Vec<u8> {
    let headers = [
        (":event-type", HeaderValue::String(name)),
        (":content-type", HeaderValue::String("application/json")),
        (":message-type", HeaderValue::String("event")),
    ];
    frame(&headers, payload.as_bytes())
}

/// A stream of `chunk` events around the model's own events.
fn chunks(events: &[&str]) -> Vec<u8> {
    let wrap = |json: &&str| {
        let bytes = base64::prelude::BASE64_STANDARD.encode(json);
        event("chunk", &format!(r#"{{"bytes":"{bytes}","p":"abcdefgh"}}"#))
    };
    events.iter().flat_map(wrap).collect()
}

/// One golden answer: what comes in, what is to be read.
struct Case {
    name: &'static str,
    metering: Metering,
    model: &'static str,
    request: &'static str,
    headers: &'static [(&'static str, &'static str)],
    content_type: &'static str,
    body: Vec<u8>,
    usage: Option<Usage>,
    certainty: Certainty,
    terms: Terms,
}

fn case(name: &'static str, metering: Metering, body: impl Into<Vec<u8>>, usage: Usage) -> Case {
    Case {
        name,
        metering,
        model: CLAUDE,
        request: "{}",
        headers: &[],
        content_type: "application/json",
        body: body.into(),
        usage: Some(usage),
        certainty: Certainty::Exact,
        terms: Terms::default(),
    }
}

impl Case {
    fn model(self, model: &'static str, request: &'static str) -> Self {
        Self { model, request, ..self }
    }

    fn headers(self, headers: &'static [(&'static str, &'static str)]) -> Self {
        Self { headers, ..self }
    }

    fn terms(self, terms: Terms) -> Self {
        Self { terms, ..self }
    }

    fn lines(self) -> Self {
        Self { content_type: "text/event-stream; charset=utf-8", ..self }
    }

    fn certainty(self, certainty: Certainty) -> Self {
        let usage = self.usage.filter(|_| certainty != Certainty::Unknown);
        Self { usage, certainty, ..self }
    }

    fn read<'a>(&self, pieces: impl IntoIterator<Item = &'a [u8]>) -> Metered {
        let mut reader = UsageReader::new(RequestFacts::read(self.metering, Some(self.model), self.request.as_bytes()));
        let headers = self.headers.iter().map(|(name, value)| (*name, value.as_bytes()));
        reader.response_header(200, Some(self.content_type), None, headers);
        for piece in pieces {
            reader.push(piece);
        }
        reader.finish()
    }
}

fn tokens(input: u64, output: u64) -> Usage {
    Usage { input: Tokens(input), output: Tokens(output), ..Usage::default() }
}

fn cached(input: u64, output: u64, read: u64, short: u64, long: u64) -> Usage {
    Usage {
        cache_read: Tokens(read),
        cache_write_5m: Tokens(short),
        cache_write_1h: Tokens(long),
        ..tokens(input, output)
    }
}

fn tier(tier: Tier) -> Terms {
    Terms { tier, ..Terms::default() }
}

const GUARDED: &str = r#"{"output":{"message":{"role":"assistant","content":[{"text":"usage {\"inputTokens\":999}"},
 {"toolUse":{"input":{"usage":{"inputTokens":777}}}}]}},"stopReason":"end_turn","usage":{"inputTokens":10,"outputTokens":2,
 "totalTokens":24,"cacheReadInputTokens":7,"cacheWriteInputTokens":5,"cacheDetails":[{"ttl":"1h","inputTokens":2},{"ttl":"5m","inputTokens":3}]},
 "trace":{"guardrail":{"inputAssessment":{"g1":{"topicPolicy":{},"invocationMetrics":{"usage":{"topicPolicyUnits":1,"contentPolicyUnits":2}}}},
 "outputAssessments":{"g1":[{"invocationMetrics":{"usage":{"contentPolicyUnits":3,"contentPolicyImageUnits":1}}},{"invocationMetrics":{"usage":{"wordPolicyUnits":4}}}]}},
 "promptRouter":{"invokedModelId":"arn:aws:bedrock:us-east-1::foundation-model\/a"}},"performanceConfig":{"latency":"optimized"},"serviceTier":{"type":"flex"}}"#;

fn converse_cases() -> Vec<Case> {
    let guarded = Usage {
        guardrail: GuardrailUnits { topic: 1, content: 5, content_image: 1, word: 4, ..GuardrailUnits::default() },
        ..cached(10, 2, 7, 3, 2)
    };
    let streamed = Usage {
        guardrail: GuardrailUnits { topic: 1, content: 1, ..GuardrailUnits::default() },
        ..cached(10, 2, 7, 3, 2)
    };
    vec![
        case("converse with all its parts", Metering::Converse, GUARDED, guarded).terms(Terms {
            tier: Tier::Flex,
            latency: Latency::Optimized,
            invoked_model: Some("arn:aws:bedrock:us-east-1::foundation-model/a".to_owned()),
            ..Terms::default()
        }),
        case("converse stream", Metering::ConverseStream, recorded("ConverseStream"), streamed).terms(Terms {
            tier: Tier::Priority,
            invoked_model: Some(
                "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-3-haiku-20240307-v1:0".to_owned(),
            ),
            ..Terms::default()
        }),
        case(
            "converse of a provider that counts the cache into the input",
            Metering::Converse,
            r#"{"usage":{"inputTokens":4995,"outputTokens":19,"totalTokens":5014,"cacheWriteInputTokens":4993}}"#,
            cached(2, 19, 0, 4993, 0),
        ),
        case(
            "the last of two usage objects counts",
            Metering::Converse,
            r#"{"usage":{"inputTokens":9,"outputTokens":9,"cacheReadInputTokens":9},"usage":{"inputTokens":1,"outputTokens":2}}"#,
            tokens(1, 2),
        ),
        case(
            "a count that is not whole spoils the body",
            Metering::Converse,
            r#"{"usage":{"inputTokens":1.5,"outputTokens":2}}"#,
            tokens(0, 0),
        )
        .certainty(Certainty::Unknown),
        case(
            "a negative count spoils the body",
            Metering::Converse,
            r#"{"usage":{"inputTokens":-1,"outputTokens":2}}"#,
            tokens(0, 0),
        )
        .certainty(Certainty::Unknown),
        case("no usage is not zero usage", Metering::Converse, r#"{"output":{}}"#, tokens(0, 0))
            .certainty(Certainty::Unknown),
        case(
            "huge counts saturate",
            Metering::Converse,
            r#"{"usage":{"inputTokens":99999999999999999999999,"outputTokens":1}}"#,
            tokens(u64::MAX, 1),
        ),
    ]
}

fn anthropic_and_nova_cases() -> Vec<Case> {
    const CLAUDE_BODY: &str = r#"{"id":"m","content":[{"type":"text","text":"hi"}],"usage":{"input_tokens":10,"cache_creation_input_tokens":5,
 "cache_read_input_tokens":7,"cache_creation":{"ephemeral_5m_input_tokens":3,"ephemeral_1h_input_tokens":2},"output_tokens":2,"service_tier":"standard"}}"#;
    const START: &str = r#"{"type":"message_start","message":{"usage":{"input_tokens":10,"output_tokens":1,"cache_creation_input_tokens":5,"cache_creation":{"ephemeral_1h_input_tokens":5}}}}"#;
    const DELTA: &str = r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"hello"}}"#;
    vec![
        case("claude body", Metering::InvokeModel, CLAUDE_BODY, cached(10, 2, 7, 3, 2))
            .headers(&[
                ("X-Amzn-Bedrock-Input-Token-Count", "10"),
                ("X-Amzn-Bedrock-Output-Token-Count", "2"),
                ("X-Amzn-Bedrock-Cache-Write-Input-Token-Count", "5"),
                ("X-Amzn-Bedrock-Service-Tier", "priority"),
            ])
            .terms(tier(Tier::Priority)),
        case(
            "claude stream counts its three reports once",
            Metering::InvokeModelStream,
            recorded("InvokeModelWithResponseStream_anthropic"),
            cached(10, 2, 7, 3, 2),
        ),
        case(
            "claude stream: metrics raise an output that the deltas left short",
            Metering::InvokeModelStream,
            chunks(&[START, DELTA, r#"{"type":"message_stop","amazon-bedrock-invocationMetrics":{"inputTokenCount":10,"outputTokenCount":9,"cacheWriteInputTokenCount":5}}"#]),
            cached(10, 9, 0, 0, 5),
        ),
        case(
            "claude stream without an end",
            Metering::InvokeModelStream,
            chunks(&[START, DELTA]),
            cached(10, 1, 0, 0, 5),
        )
        .certainty(Certainty::Partial),
        case(
            "anthropic surface, body",
            Metering::AnthropicMessages,
            CLAUDE_BODY.replace("standard", "priority"),
            cached(10, 2, 7, 3, 2),
        )
        .terms(tier(Tier::Priority)),
        case(
            "anthropic surface, stream",
            Metering::AnthropicMessages,
            format!("event: message_start\r\ndata: {START}\r\n\r\nevent: x\ndata:{DELTA}\n\n: comment\ndata: {{\"type\":\"message_delta\",\ndata: \"usage\":{{\"output_tokens\":8}}}}\n\nevent: message_stop\ndata: {{\"type\":\"message_stop\"}}\n\n"),
            cached(10, 8, 0, 0, 5),
        )
        .lines(),
        case(
            "nova body",
            Metering::InvokeModel,
            r#"{"output":{},"usage":{"inputTokens":3,"outputTokens":5,"totalTokens":11,"cacheReadInputTokenCount":2,"cacheWriteInputTokenCount":1}}"#,
            cached(3, 5, 2, 1, 0),
        )
        .model("us.amazon.nova-pro-v1:0", "{}"),
        case(
            "nova stream",
            Metering::InvokeModelStream,
            recorded("InvokeModelWithResponseStream_nova"),
            tokens(3, 5),
        )
        .model("us.amazon.nova-pro-v1:0", "{}"),
    ]
}

/// Answers whose reports add up or grow until the end.
fn running_cases() -> Vec<Case> {
    vec![
        case(
            "harness: one usage for every model call",
            Metering::Harness,
            [
                event("contentBlockDelta", r#"{"delta":{"text":"a"}}"#),
                event("metadata", r#"{"usage":{"inputTokens":10,"outputTokens":3,"totalTokens":13}}"#),
                event(
                    "metadata",
                    r#"{"usage":{"inputTokens":20,"outputTokens":4,"totalTokens":29,"cacheReadInputTokens":5}}"#,
                ),
            ]
            .concat(),
            cached(30, 7, 5, 0, 0),
        ),
        case(
            "nova sonic: the last total",
            Metering::InvokeModelBidirectional,
            chunks(&[
                r#"{"event":{"usageEvent":{"details":{"delta":{"input":{"speechTokens":5,"textTokens":1}},"total":{"input":{"speechTokens":5,"textTokens":1},"output":{"speechTokens":0,"textTokens":0}}},"totalTokens":6}}}"#,
                r#"{"event":{"audioOutput":{"content":"AAAA"}}}"#,
                r#"{"event":{"usageEvent":{"details":{"total":{"input":{"speechTokens":9,"textTokens":2},"output":{"speechTokens":20,"textTokens":4}}}}}}"#,
            ]),
            Usage { audio_input: Tokens(9), audio_output: Tokens(20), ..tokens(2, 4) },
        )
        .model("amazon.nova-sonic-v1:0", "{}"),
    ]
}

fn other_model_cases() -> Vec<Case> {
    const METRICS: &str =
        r#"{"x":null,"amazon-bedrock-invocationMetrics":{"inputTokenCount":11,"outputTokenCount":6}}"#;
    let counted = &[("x-amzn-bedrock-input-token-count", "11"), ("x-amzn-bedrock-output-token-count", "6")];
    vec![
        case("titan text", Metering::InvokeModel, r#"{"inputTextTokenCount":4,"results":[{"tokenCount":5,"outputText":"a"},{"tokenCount":6}]}"#, tokens(4, 11)),
        case("titan stream", Metering::InvokeModelStream, chunks(&[r#"{"outputText":"a","index":0,"totalOutputTextTokenCount":null,"inputTextTokenCount":4}"#, r#"{"outputText":"b","totalOutputTextTokenCount":6,"inputTextTokenCount":null}"#, METRICS]), tokens(4, 6)),
        case("titan embedding", Metering::InvokeModel, r#"{"embedding":[0.1,-2e-5],"inputTextTokenCount":4}"#, tokens(4, 0)),
        case("llama body", Metering::InvokeModel, r#"{"generation":"a","prompt_token_count":7,"generation_token_count":200,"stop_reason":"stop"}"#, tokens(7, 200)),
        case("llama stream", Metering::InvokeModelStream, chunks(&[r#"{"generation":"a","prompt_token_count":11,"generation_token_count":1}"#, r#"{"generation":"b","prompt_token_count":null,"generation_token_count":2}"#, METRICS]), tokens(11, 6)),
        case("llama stream without metrics", Metering::InvokeModelStream, chunks(&[r#"{"generation":"a","prompt_token_count":11,"generation_token_count":1}"#]), tokens(11, 1)).certainty(Certainty::Partial),
        case("gpt-oss, qwen, mistral chat, ai21, writer", Metering::InvokeModel, r#"{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":3,"total_tokens":13,"prompt_tokens_details":{"cached_tokens":4}}}"#, cached(6, 3, 4, 0, 0)),
        case("openai-shaped stream with a done mark", Metering::InvokeModelStream, chunks(&[r#"{"choices":[{"delta":{"content":"a"},"finish_reason":null}]}"#, "[DONE]", METRICS]), tokens(11, 6)),
        case("mistral text has no usage but headers", Metering::InvokeModel, r#"{"outputs":[{"text":"a"}]}"#, tokens(11, 6)).headers(counted),
        case("cohere command without headers is unknown", Metering::InvokeModel, r#"{"text":"a"}"#, tokens(0, 0)).certainty(Certainty::Unknown),
        case("cohere embed has only an input header", Metering::InvokeModel, r#"{"embeddings":[[0.1]]}"#, tokens(11, 0)).headers(&[("X-Amzn-Bedrock-Input-Token-Count", "11")]),
        case("a body that is no json, with headers", Metering::InvokeModel, "\u{89}PNG", tokens(11, 6)).headers(counted),
        case("cohere rerank", Metering::InvokeModel, r#"{"results":[{"index":0}]}"#, Usage { queries: 2, ..Usage::default() })
            .model("cohere.rerank-v3-5:0", r#"{"query":"q","documents":["","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","","",""]}"#),
        case("rerank of the agent runtime", Metering::Rerank, r#"{"results":[]}"#, Usage { queries: 1, ..Usage::default() }),
        case("titan multimodal embedding", Metering::InvokeModel, r#"{"embedding":[1],"inputTextTokenCount":4}"#, Usage { images_in: 1, ..tokens(4, 0) })
            .model("amazon.titan-embed-image-v1", r#"{"inputText":"a","inputImage":"aGk="}"#),
        case("marengo", Metering::InvokeModel, r#"{"data":[]}"#, Usage { queries: 1, images_in: 1, ..Usage::default() })
            .model("us.twelvelabs.marengo-embed-3-0-v1:0", r#"{"inputType":"text_image"}"#),
        case("pegasus reads video of unknown length", Metering::InvokeModel, r#"{"message":"a"}"#, tokens(11, 6))
            .model("twelvelabs.pegasus-1-2-v1:0", "{}").headers(counted).certainty(Certainty::Partial),
        case("nova canvas", Metering::InvokeModel, r#"{"images":["aGk=","aGk="],"error":null}"#, Usage { images_out: 2, ..Usage::default() })
            .model("amazon.nova-canvas-v1:0", r#"{"imageGenerationConfig":{"numberOfImages":3,"quality":"premium","width":512}}"#)
            .terms(Terms { image: Some(ImageTerms { width_px: 512, height_px: 1024, steps: None, premium: true }), ..Terms::default() }),
        case("stable diffusion xl", Metering::InvokeModel, r#"{"result":"success","artifacts":[{"base64":"aGk="}]}"#, Usage { images_out: 1, ..Usage::default() })
            .model("stability.stable-diffusion-xl-v1", r#"{"steps":50}"#)
            .terms(Terms { image: Some(ImageTerms { width_px: 1024, height_px: 1024, steps: Some(50), premium: false }), ..Terms::default() }),
        case("async video", Metering::StartAsyncInvoke, r#"{"invocationArn":"a"}"#, Usage { video_output_ms: 6_000, ..Usage::default() })
            .model("amazon.nova-reel-v1:1", r#"{"modelInput":{"taskType":"TEXT_VIDEO"}}"#),
        case("guardrail in an invoke", Metering::InvokeModel, r#"{"usage":{"input_tokens":1,"output_tokens":2},"amazon-bedrock-trace":{"guardrail":{"input":{"g":{"invocationMetrics":{"usage":{"topicPolicyUnits":1}}}},"outputs":[{"g":{"invocationMetrics":{"usage":{"topicPolicyUnits":2}}}}]}}}"#, Usage { guardrail: GuardrailUnits { topic: 3, ..GuardrailUnits::default() }, ..tokens(1, 2) }),
    ]
}

fn surface_and_agent_cases() -> Vec<Case> {
    const CALL: &str = r#"{"trace":{"orchestrationTrace":{"modelInvocationOutput":{"metadata":{"usage":{"inputTokens":100,"outputTokens":5}}}}}}"#;
    const OTHER: &str = r#"{"trace":{"orchestrationTrace":{"observation":{"finalResponse":{"metadata":{"usage":{"inputTokens":100,"outputTokens":5}}}}}}}"#;
    let units = |guardrail| Usage { guardrail, ..Usage::default() };
    vec![
        case("openai chat body", Metering::OpenAiChat, r#"{"choices":[],"service_tier":"flex","usage":{"prompt_tokens":10,"completion_tokens":3,"total_tokens":13,"prompt_tokens_details":{"cached_tokens":null}}}"#, tokens(10, 3)).terms(tier(Tier::Flex)),
        case("openai chat stream", Metering::OpenAiChat, "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":null}\n\ndata: {\"choices\":[{\"finish_reason\":\"stop\"}]}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":3}}\n\ndata: [DONE]\n\n", tokens(10, 3)).lines(),
        case("openai chat stream without include_usage", Metering::OpenAiChat, "data: {\"choices\":[{\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n", tokens(0, 0)).lines().certainty(Certainty::Unknown),
        case("openai chat stream with running usage that was cut", Metering::OpenAiChat, "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":1}}\n\n", tokens(10, 1)).lines().certainty(Certainty::Partial),
        case("openai responses body", Metering::OpenAiResponses, r#"{"output":[],"usage":{"input_tokens":10,"input_tokens_details":{"cached_tokens":8},"output_tokens":3,"total_tokens":13}}"#, cached(2, 3, 8, 0, 0)),
        case("openai responses stream", Metering::OpenAiResponses, "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"usage\":null}}\n\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"hi\"}\n\ndata: {\"type\":\"response.completed\",\"response\":{\"service_tier\":\"priority\",\"usage\":{\"input_tokens\":10,\"output_tokens\":3,\"total_tokens\":13}}}\n\n", tokens(10, 3)).lines().terms(tier(Tier::Priority)),
        case("apply guardrail", Metering::ApplyGuardrail, r#"{"usage":{"topicPolicyUnits":1,"contentPolicyUnits":2,"sensitiveInformationPolicyFreeUnits":3,"automatedReasoningPolicyUnits":4},"action":"NONE","assessments":[{"invocationMetrics":{"usage":{"topicPolicyUnits":1}}}]}"#, units(GuardrailUnits { topic: 1, content: 2, sensitive_information_free: 3, automated_reasoning: 4, ..GuardrailUnits::default() })),
        case("guardrail checks", Metering::GuardrailChecks, r#"{"results":{},"usage":{"contentFilter":{"textUnits":2},"promptAttack":{"textUnits":3},"sensitiveInformation":{"textUnits":1}}}"#, units(GuardrailUnits { content: 5, sensitive_information: 1, ..GuardrailUnits::default() })),
        case("agent as recorded", Metering::AgentTrace, recorded("InvokeAgent"), tokens(1000, 50)),
        case(
            "agent sums its model calls and nothing else",
            Metering::AgentTrace,
            [event("trace", r#"{"trace":{"preProcessingTrace":{"modelInvocationInput":{"foundationModel":"m"}}}}"#), event("trace", CALL), event("trace", OTHER), event("trace", CALL), event("chunk", r#"{"bytes":"aGk="}"#)].concat(),
            tokens(200, 10),
        )
        .terms(Terms { invoked_model: Some("m".to_owned()), ..Terms::default() }),
        case("agent without traces", Metering::AgentTrace, event("chunk", r#"{"bytes":"aGk="}"#), tokens(0, 0)).certainty(Certainty::Unknown),
        case(
            "flow",
            Metering::FlowTrace,
            event("flowTraceEvent", &format!(r#"{{"trace":{{"nodeDependencyTrace":{{"nodeName":"n","traceElements":{{"agentTraces":[{CALL},{CALL}]}}}}}}}}"#)),
            tokens(200, 10),
        )
        .certainty(Certainty::Partial),
        case("flow without traces", Metering::FlowTrace, recorded("InvokeFlow"), tokens(0, 0)).certainty(Certainty::Unknown),
        case("free", Metering::Free, r#"{"inputTokens":5}"#, tokens(0, 0)),
        case("unreported", Metering::Unreported, recorded("RetrieveAndGenerateStream"), tokens(0, 0)).certainty(Certainty::Unknown),
    ]
}

fn cases() -> Vec<Case> {
    [converse_cases(), anthropic_and_nova_cases(), running_cases(), other_model_cases(), surface_and_agent_cases()]
        .into_iter()
        .flatten()
        .collect()
}

#[test]
fn every_family_reads_as_its_golden_answer() {
    for case in cases() {
        let read = case.read([case.body.as_slice()]);
        assert_eq!((read.usage, read.certainty), (case.usage, case.certainty), "{}", case.name);
        assert_eq!(read.terms, case.terms, "{}", case.name);
        assert_eq!(read.cause.is_none(), case.certainty == Certainty::Exact, "{}", case.name);
    }
}

#[test]
fn every_family_reads_the_same_under_every_cut() {
    for case in cases() {
        let whole = case.read([case.body.as_slice()]);
        for at in 0..=case.body.len() {
            let (left, right) = case.body.split_at(at);
            assert_eq!(case.read([left, right]), whole, "{} cut at {at}", case.name);
        }
        assert_eq!(case.read(case.body.chunks(1)), whole, "{}", case.name);
    }
}

/// Whether `part` claims nothing beyond `whole`.
fn within(part: &Usage, whole: &Usage) -> bool {
    let list = |usage: &Usage| {
        let guardrail = usage.guardrail;
        [
            usage.input.0,
            usage.output.0,
            usage.cache_read.0,
            usage.cache_write_5m.0 + usage.cache_write_1h.0,
            usage.cache_write_1h.0,
            usage.audio_input.0,
            usage.audio_output.0,
            usage.images_in,
            usage.images_out,
            usage.queries,
            usage.video_output_ms,
            guardrail.topic,
            guardrail.content,
            guardrail.content_image,
            guardrail.word,
        ]
    };
    list(part).iter().zip(list(whole)).all(|(part, whole)| *part <= whole)
}

#[test]
fn a_broken_answer_never_claims_more_than_the_whole_one() {
    for case in cases() {
        let Some(whole) = case.usage else { continue };
        // Of two objects under one key the last counts, so the first alone may well claim more.
        if case.name.starts_with("the last of two") {
            continue;
        }
        for at in 0..case.body.len() {
            let cut = case.read([&case.body[..at]]);
            if let Some(usage) = cut.usage {
                assert!(within(&usage, &whole), "{} at {at}: {usage:?}", case.name);
            }
            let ending_may_hide =
                matches!(case.metering, Metering::AgentTrace | Metering::Harness | Metering::InvokeModelBidirectional);
            if cut.certainty == Certainty::Exact && !ending_may_hide {
                assert_eq!(cut.usage, Some(whole), "{} at {at}", case.name);
            }
        }
    }
}

#[test]
fn an_interrupted_sum_is_a_lower_bound_even_at_a_frame_boundary() {
    for name in ["agent as recorded", "harness: one usage for every model call", "nova sonic: the last total"] {
        let case = cases().into_iter().find(|case| case.name == name).unwrap();
        let mut reader = UsageReader::new(RequestFacts::read(case.metering, Some(case.model), b""));
        reader.push(&case.body);
        reader.interrupted();
        assert_eq!(reader.finish().certainty, Certainty::Partial, "{name}");
    }
}

#[test]
fn an_exception_in_a_stream_is_named_and_leaves_what_was_seen() {
    for (stream, name) in [
        ("exception_throttling", "throttlingException"),
        ("exception_unmodelled", "budgetExceededException"),
        ("error_frame", "InternalError"),
    ] {
        let body = [recorded("InvokeModelWithResponseStream_anthropic")[..0x249].to_vec(), recorded(stream)].concat();
        let case = case(name, Metering::InvokeModelStream, body, tokens(0, 0));
        let read = case.read([case.body.as_slice()]);
        assert_eq!(read.exception.as_deref(), Some(name));
        assert_eq!((read.certainty, read.cause), (Certainty::Partial, Some(Cause::CutShort)));
        assert_eq!(read.usage.map(|usage| usage.input), Some(Tokens(10)));
    }
}

#[test]
fn an_error_answer_bills_nothing_and_a_coding_that_is_not_read_is_unknown() {
    let facts = RequestFacts::read(Metering::Converse, Some(CLAUDE), b"");
    for status in [301, 400, 424, 429, 500, 503] {
        let mut reader = UsageReader::new(facts.clone());
        reader.response_header(status, Some("application/json"), None, std::iter::empty());
        reader.push(GUARDED.as_bytes());
        let read = reader.finish();
        assert_eq!((read.usage, read.certainty), (Some(Usage::default()), Certainty::Exact), "{status}");
    }
    // Not compressed, although it says so, is not readable either.
    for (encoding, cause) in [
        ("br", Some(Cause::Encoded)),
        ("zstd", Some(Cause::Encoded)),
        ("gzip, gzip", Some(Cause::Encoded)),
        ("gzip", Some(Cause::Encoded)),
        ("identity", None),
        ("", None),
    ] {
        let mut reader = UsageReader::new(facts.clone());
        reader.response_header(200, Some("application/json"), Some(encoding), std::iter::empty());
        reader.push(GUARDED.as_bytes());
        let unseen = cause.is_some().then_some(u64::MAX);
        assert_eq!(reader.output_bytes_seen(), unseen.unwrap_or(GUARDED.len() as u64), "{encoding}");
        let read = reader.finish();
        assert_eq!(read.cause, cause, "{encoding}");
        assert_eq!(read.output_bytes_seen, unseen.unwrap_or(GUARDED.len() as u64), "{encoding}");
    }
}

#[test]
fn compressed_answers_read_as_if_they_were_not() {
    let gzip = |plain: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    };
    for (metering, content_type, body) in [
        (Metering::Converse, "application/json", GUARDED.as_bytes().to_vec()),
        (Metering::ConverseStream, "application/vnd.amazon.eventstream", recorded("ConverseStream")),
        (Metering::InvokeModelStream, "x", recorded("InvokeModelWithResponseStream_anthropic")),
    ] {
        let read = |coding: Option<&str>, pieces: &mut dyn Iterator<Item = &[u8]>| {
            let mut reader = UsageReader::new(RequestFacts::read(metering, Some(CLAUDE), b""));
            reader.response_header(200, Some(content_type), coding, std::iter::empty());
            pieces.for_each(|piece| reader.push(piece));
            reader.finish()
        };
        let plain = read(None, &mut [body.as_slice()].into_iter());
        assert_eq!(plain.certainty, Certainty::Exact);
        let bytes = gzip(&body);
        for size in [1, 50, bytes.len()] {
            assert_eq!(read(Some("gzip"), &mut bytes.chunks(size)), plain, "{metering:?} in pieces of {size}");
        }
        // Damage in its own checksum: the counts may be anything.
        let mut damaged = bytes.clone();
        let crc = damaged.len() - 8;
        damaged[crc] ^= 1;
        let damaged = read(Some("gzip"), &mut [damaged.as_slice()].into_iter());
        let cut = read(Some("gzip"), &mut [&bytes[..bytes.len() / 2]].into_iter());
        assert_ne!(cut.certainty, Certainty::Exact, "{metering:?}");
        if metering == Metering::Converse {
            assert_eq!((damaged.certainty, damaged.cause), (Certainty::Partial, Some(Cause::Malformed)));
        }
    }
}

#[test]
fn a_stream_that_is_none_stops_the_metering_only() {
    let mut body = recorded("ConverseStream");
    body[200] ^= 1;
    let case = case("flipped bit", Metering::ConverseStream, body, tokens(0, 0));
    let read = case.read([case.body.as_slice()]);
    assert_eq!((read.certainty, read.cause), (Certainty::Unknown, Some(Cause::Malformed)));
}

#[test]
fn content_is_weighed_for_an_estimate() {
    for (case, bytes) in [
        (case("converse", Metering::ConverseStream, recorded("ConverseStream"), tokens(0, 0)), 5),
        (
            case(
                "claude",
                Metering::InvokeModelStream,
                recorded("InvokeModelWithResponseStream_anthropic"),
                tokens(0, 0),
            ),
            2,
        ),
        (case("nova", Metering::InvokeModelStream, recorded("InvokeModelWithResponseStream_nova"), tokens(0, 0)), 2),
    ] {
        let seen = case.read([case.body.as_slice()]).output_bytes_seen;
        assert!((bytes..bytes + 8).contains(&seen), "{}: {seen}", case.name);
    }
}

#[test]
fn a_body_of_25_megabytes_is_read_without_being_kept() {
    let mut body = r#"{"images":[""#.to_owned();
    body.push_str(&"A".repeat(25_000_000));
    body.push_str(r#""],"usage":{"input_tokens":1,"output_tokens":2}}"#);
    let mut reader = UsageReader::new(RequestFacts::read(Metering::InvokeModel, Some(CLAUDE), b""));
    for piece in body.as_bytes().chunks(16 * 1024) {
        reader.push(piece);
    }
    assert_eq!(reader.finish().usage, Some(tokens(1, 2)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn arbitrary_bytes_never_panic_whatever_the_metering(
        index in 0usize..64, bytes in proptest::collection::vec(any::<u8>(), 0..500), size in 1usize..64,
    ) {
        let cases = cases();
        let case = &cases[index % cases.len()];
        prop_assert_eq!(case.read([bytes.as_slice()]), case.read(bytes.chunks(size)));
    }

    #[test]
    fn a_damaged_answer_reads_the_same_under_any_cut(
        index in 0usize..64, at in any::<prop::sample::Index>(), byte in any::<u8>(), size in 1usize..64,
    ) {
        let cases = cases();
        let case = &cases[index % cases.len()];
        let mut body = case.body.clone();
        let at = at.index(body.len());
        body[at] = byte;
        prop_assert_eq!(case.read([body.as_slice()]), case.read(body.chunks(size)));
    }
}

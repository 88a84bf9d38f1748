use super::*;
use crate::aws::operation::{AccessClass, Service, Streaming};
use crate::price::book::{PriceBook, Query, Surface};
use crate::types::usage::GuardrailUnits;

const SONNET: &str = "anthropic.claude-sonnet-4-5-20250929-v1:0";
const OPUS: &str = "anthropic.claude-opus-4-1-20250805-v1:0";
const NOVA: &str = "amazon.nova-lite-v1:0";

fn operation(metering: Metering) -> Operation {
    Operation {
        service: Service::BedrockRuntime,
        name: "Test",
        method: "POST",
        template: "/",
        streaming: Streaming::None,
        metering,
        access: AccessClass::Invoke,
        stream_exceptions: &[],
        bearer: true,
        request_headers: &[],
    }
}

fn price(id: &str) -> Option<Price> {
    let query =
        Query { model_id: id, region: "us-east-1", surface: Surface::Mantle, base_model: None, invoked_model: None };
    PriceBook::bundled().find(&query).cloned()
}

#[derive(Default, Clone, Copy)]
struct Asked<'a> {
    tier: Option<&'a str>,
    latency: Option<&'a str>,
    guardrail: bool,
    set: Option<NanoUsd>,
}

fn bound_with(metering: Metering, id: &str, body: &str, asked: Asked<'_>) -> Result<Bound, Unbounded> {
    let operation = operation(metering);
    let facts = RequestFacts::read(metering, Some(id), body.as_bytes());
    let question = Question {
        operation: &operation,
        facts: &facts,
        content: &Content::new(body.as_bytes()),
        tier_header: asked.tier,
        latency_header: asked.latency,
        guardrail_header: asked.guardrail,
    };
    let price = match metering {
        Metering::ApplyGuardrail | Metering::GuardrailChecks => Some(PriceBook::bundled().guardrail()),
        _ => price(id),
    };
    let candidate = Candidate { price: price.map(Cow::Owned), model_id: Some(id), operation_price: asked.set };
    bound(&question, &[candidate])
}

fn bound_of(metering: Metering, id: &str, body: &str) -> Result<Bound, Unbounded> {
    bound_with(metering, id, body, Asked::default())
}

/// Tokens of input and of output.
fn tokens(metering: Metering, id: &str, body: &str) -> (u64, u64) {
    let bound = bound_of(metering, id, body).unwrap_or_else(|reason| panic!("{reason:?}: {id} {body}"));
    (bound.tokens - bound.output_tokens_max, bound.output_tokens_max)
}

fn usage(input: u64, output: u64) -> Usage {
    Usage { input: Tokens(input), output: Tokens(output), ..Usage::default() }
}

#[test]
fn a_token_for_every_byte_and_all_of_max_tokens_cost_exactly_the_bound() {
    let converse = r#"{"messages":[{"role":"user","content":[{"text":"Why?"}]}],"inferenceConfig":{"maxTokens":100}}"#;
    let invoke =
        r#"{"anthropic_version":"bedrock-2023-05-31","max_tokens":100,"messages":[{"role":"user","content":"Why?"}]}"#;
    let nova = r#"{"messages":[{"role":"user","content":[{"text":"Why?"}]}],"inferenceConfig":{"max_new_tokens":100}}"#;
    for (metering, id, body) in [
        (Metering::Converse, SONNET, converse),
        (Metering::ConverseStream, OPUS, converse),
        (Metering::Converse, NOVA, converse),
        (Metering::InvokeModel, SONNET, invoke),
        (Metering::InvokeModelStream, "us.anthropic.claude-sonnet-4-5-20250929-v1:0", invoke),
        (Metering::AnthropicMessages, OPUS, invoke),
        (Metering::InvokeModel, NOVA, nova),
    ] {
        let bound = bound_of(metering, id, body).unwrap();
        let price = price(id).unwrap();
        let cost = |output| cost::cost(&price, &usage(body.len() as u64, output), &Terms::default()).unwrap();
        assert_eq!((bound.cost, bound.input_cost), (cost(100), cost(0)), "{id} {body}");
        assert_eq!((bound.tokens, bound.output_tokens_max), (body.len() as u64 + 100, 100));
        assert_eq!(bound.so_far(0), bound.input_cost);
        assert_eq!(bound.so_far(u64::MAX), bound.cost);
        assert!(bound.so_far(40) >= cost(40) && bound.so_far(40) < bound.cost);
    }
    // Beyond 200,000 tokens the whole prompt is dearer.
    let long = converse.replace("Why?", &"x".repeat(200_000));
    let bound = bound_of(Metering::Converse, SONNET, &long).unwrap();
    let dear = cost::cost(&price(SONNET).unwrap(), &usage(long.len() as u64, 100), &Terms::default()).unwrap();
    assert_eq!(bound.cost, dear);
}

#[test]
fn each_api_heeds_its_own_limit_on_the_output() {
    use Metering::{AnthropicMessages, Converse, InvokeModel, OpenAiChat, OpenAiResponses};
    let (llama, titan, mistral) =
        ("meta.llama3-70b-instruct-v1:0", "amazon.titan-text-express-v1", "mistral.mistral-large-2402-v1:0");
    let (jamba, oss, cohere) = ("ai21.jamba-1-5-large-v1:0", "openai.gpt-oss-120b-1:0", "cohere.command-text-v14");
    let j2 = "ai21.j2-ultra-v1";
    for (metering, id, body, output) in [
        (Converse, SONNET, r#"{"inferenceConfig":{"maxTokens":7}}"#, 7),
        (Converse, SONNET, r#"{"inferenceConfig":{}}"#, 64_000),
        (Converse, SONNET, "{}", 64_000),
        (Converse, SONNET, r#"{"inferenceConfig":{"max_new_tokens":7}}"#, 64_000),
        (Converse, SONNET, r#"{"maxTokens":7,"max_tokens":7}"#, 64_000),
        (Converse, SONNET, r#"{"inferenceConfig":{"maxTokens":7},"additionalModelRequestFields":{"max_tokens":9}}"#, 9),
        (
            Converse,
            SONNET,
            r#"{"inferenceConfig":{"maxTokens":7},"additionalModelRequestFields":{"a":[{"max_tokens":9}]}}"#,
            9,
        ),
        (Converse, SONNET, r#"{"inferenceConfig":{"maxTokens":7},"additionalModelRequestFields":{"max_tokens":3}}"#, 7),
        (Converse, SONNET, r#"{"inferenceConfig":{"maxTokens":99999999}}"#, 64_000),
        (InvokeModel, SONNET, r#"{"max_tokens":7}"#, 7),
        (InvokeModel, SONNET, r#"{"max_tokens_to_sample":7}"#, 7),
        (InvokeModel, SONNET, r#"{"maxTokens":7,"max_gen_len":7}"#, 64_000),
        (InvokeModel, NOVA, r#"{"inferenceConfig":{"maxTokens":7}}"#, 7),
        (InvokeModel, NOVA, r#"{"textGenerationConfig":{"maxTokenCount":7}}"#, 10_000),
        (InvokeModel, titan, r#"{"textGenerationConfig":{"maxTokenCount":7}}"#, 7),
        (InvokeModel, llama, r#"{"max_gen_len":7}"#, 7),
        (InvokeModel, mistral, r#"{"max_tokens":7}"#, 7),
        (InvokeModel, cohere, r#"{"max_tokens":7,"num_generations":3}"#, 21),
        (InvokeModel, j2, r#"{"maxTokens":7,"numResults":2}"#, 14),
        (InvokeModel, jamba, r#"{"max_tokens":7,"n":2}"#, 14),
        (InvokeModel, oss, r#"{"max_completion_tokens":7}"#, 7),
        (OpenAiChat, oss, r#"{"max_completion_tokens":7,"n":4}"#, 28),
        (OpenAiResponses, oss, r#"{"max_output_tokens":7}"#, 7),
        (AnthropicMessages, SONNET, r#"{"max_tokens":7}"#, 7),
    ] {
        assert_eq!(tokens(metering, id, body).1, output, "{id} {body}");
    }
    for (id, body) in
        [(llama, r#"{"max_tokens":7}"#), (mistral, r#"{"max_completion_tokens":7}"#), (jamba, r#"{"maxTokens":7}"#)]
    {
        assert_eq!(Some(tokens(InvokeModel, id, body).1), price(id).unwrap().max_output_tokens, "{id} {body}");
    }
}

#[test]
fn odd_limits_limit_nothing() {
    for (limit, output) in [
        ("1e3", 1_000),
        ("10.5", 11),
        ("100.0", 100),
        ("0", 64_000),
        ("-1", 64_000),
        ("-1.5", 64_000),
        ("\"100\"", 64_000),
        ("true", 64_000),
        ("null", 64_000),
        ("[1]", 64_000),
        ("{\"a\":1}", 64_000),
        ("18446744073709551615", 64_000),
        ("99999999999999999999999999", 64_000),
        ("1e300", 64_000),
    ] {
        let body = format!(r#"{{"inferenceConfig":{{"maxTokens":{limit}}}}}"#);
        assert_eq!(tokens(Metering::Converse, SONNET, &body).1, output, "{limit}");
    }
    for body in [
        r#"{"inferenceConfig":{"maxTokens":1,"maxTokens":50}}"#,
        r#"{"inferenceConfig":{"maxTokens":50,"maxTokens":1}}"#,
        r#"{"inferenceConfig":{"maxTokens":1,"maxTokens":null}}"#,
        r#"{"inferenceConfig":{"maxTokens":1},"inferenceConfig":{}}"#,
        r#"{"inferenceConfig":{"maxTokens":1},"inferenceConfig":null}"#,
        r#"{"inferenceConfig":null,"inferenceConfig":{"maxTokens":1}}"#,
        r#"{"inferenceConfig":[{"maxTokens":1}]}"#,
        r#"{"messages":[{"inferenceConfig":{"maxTokens":1}}]}"#,
    ] {
        assert_eq!(tokens(Metering::Converse, SONNET, body).1, 64_000, "{body}");
    }
    let escaped = r#"{"\u0069nferenceConfig":{"max\u0054okens":5}}"#;
    assert_eq!(tokens(Metering::Converse, SONNET, escaped).1, 5);
    let twice = r#"{"max_tokens":7,"n":2,"n":5,"n":null}"#;
    assert_eq!(tokens(Metering::InvokeModel, "ai21.jamba-1-5-large-v1:0", twice).1, 35);
    let many = bound_of(Metering::OpenAiChat, "openai.gpt-oss-120b-1:0", r#"{"max_tokens":7,"n":"2"}"#);
    assert_eq!(many, Err(Unbounded::NoOutputLimit));
}

#[test]
fn what_bytes_do_not_tell_is_as_long_as_the_window() {
    use Metering::{Converse, InvokeModel, OpenAiResponses};
    let data = "A".repeat(60_000);
    let block =
        |block: &str| format!(r#"{{"messages":[{{"content":[{{"text":"x"}},{}]}}]}}"#, block.replace("DATA", &data));
    let converse_image = block(r#"{"image":{"format":"png","source":{"bytes":"DATA"}}}"#);
    let invoke_image = block(r#"{"type":"image","source":{"type":"base64","media_type":"image/png","data":"DATA"}}"#);
    let text = |body: &str| body.len() as u64 - 60_000 + 5_000;
    let in_result = block(r#"{"toolResult":{"content":[{"image":{"source":{"bytes":"DATA"}}}]}}"#);
    let in_anthropic_result =
        block(r#"{"type":"tool_result","content":[{"source":{"data":"DATA","type":"base64"},"type":"image"}]}"#);
    for (metering, body) in [
        (Converse, &converse_image),
        (InvokeModel, &invoke_image),
        (Converse, &in_result),
        (InvokeModel, &in_anthropic_result),
    ] {
        assert_eq!(tokens(metering, OPUS, body).0, text(body), "{}", &body[..80]);
        assert_eq!(tokens(metering, NOVA, body).0, 300_000);
    }
    // What looks like a picture and may be read as text counts as text.
    for (metering, body) in [
        (InvokeModel, &converse_image),
        (Converse, &invoke_image),
        (
            InvokeModel,
            &block(r#"{"type":"tool_use","input":{"type":"image","source":{"type":"base64","data":"DATA"}}}"#),
        ),
        (
            InvokeModel,
            &block(r#"{"type":"tool_use","input":[{"type":"image","source":{"type":"base64","data":"DATA"}}]}"#),
        ),
        (Converse, &block(r#"{"toolUse":{"input":{"image":{"source":{"bytes":"DATA"}}}}}"#)),
        (Converse, &block(r#"{"text":"DATA"}"#)),
        (InvokeModel, &format!(r#"{{"tools":[{{"input_schema":{{"source":{{"type":"base64","data":"{data}"}}}}}}]}}"#)),
    ] {
        assert!(tokens(metering, OPUS, body).0 >= body.len() as u64, "{}", &body[..80]);
    }
    for (metering, block_text) in [
        (Converse, r#"{"document":{"format":"pdf","name":"a","source":{"bytes":"AAAA"}}}"#),
        (Converse, r#"{"video":{"format":"mp4","source":{"s3Location":{"uri":"s3://a/b"}}}}"#),
        (Converse, r#"{"toolResult":{"content":[{"json":{}},{"document":{}}]}}"#),
        (Converse, r#"{"image":{"format":"png","source":{"s3Location":{"uri":"s3://a/b"}}}}"#),
        (InvokeModel, r#"{"type":"document","source":{"type":"base64","data":"AAAA"}}"#),
        (InvokeModel, r#"{"type":"image","source":{"type":"url","url":"https://a"}}"#),
        (InvokeModel, r#"{"type":"container_upload","file_id":"f"}"#),
        (InvokeModel, r#"{"type":"text","type":"image","source":{"type":"base64","data":"DATA"}}"#),
        (InvokeModel, r#"{"type":"image","source":{"type":"base64","data":"DATA"},"source":"x"}"#),
        (InvokeModel, r#"{"type":"image","source":{"type":"base64","type":"text","data":"DATA"}}"#),
        (OpenAiResponses, r#"{"type":"input_file","file_id":"f"}"#),
    ] {
        assert!(tokens(metering, OPUS, &block(block_text)).0 >= 200_000, "{block_text}");
    }
    assert_eq!(tokens(OpenAiResponses, OPUS, r#"{"previous_response_id":"r"}"#).0, 200_000);
    assert_eq!(tokens(OpenAiResponses, OPUS, r#"{"previous_response_id":null}"#).0, 29);
    assert_eq!(tokens(InvokeModel, OPUS, &format!(r#"{{"prompt":"{data}{data}{data}{data}"}}"#)).0, 200_000);
    // Rates above the window say that the window may be longer.
    assert_eq!(tokens(Converse, SONNET, &block(r#"{"document":{}}"#)).0, 1_000_000);
}

#[test]
fn tools_add_what_their_makers_say_about_them() {
    let plain = r#"{"tools":[]}"#;
    let invoke = |body: &str| tokens(Metering::InvokeModel, OPUS, body).0 - body.len() as u64;
    assert_eq!(invoke(plain), 0);
    assert_eq!(invoke(r#"{"tools":[{"name":"a"}]}"#), TOOLS_TOKENS);
    assert_eq!(invoke(r#"{"tools":[{"type":"bash_20250124","name":"bash"}]}"#), TOOLS_TOKENS + BUILT_IN_TOOL_TOKENS);
    let converse = r#"{"additionalModelRequestFields":{"tools":[{"type":"computer_20250124"}]}}"#;
    let more = tokens(Metering::Converse, OPUS, converse).0 - converse.len() as u64;
    assert_eq!(more, TOOLS_TOKENS + BUILT_IN_TOOL_TOKENS);
    for (metering, body) in [
        (Metering::InvokeModel, r#"{"tools":[{"type":"web_search_20250305","name":"web_search"}]}"#),
        (Metering::InvokeModel, r#"{"mcp_servers":[{"url":"https://a"}]}"#),
        (Metering::Converse, r#"{"toolConfig":{"tools":[{"systemTool":{"name":"nova_grounding"}}]}}"#),
    ] {
        assert_eq!(bound_of(metering, OPUS, body), Err(Unbounded::Unmeasured), "{body}");
    }
}

#[test]
fn cache_markers_and_tiers_make_it_dearer() {
    let body = |more: &str| format!(r#"{{"messages":[],"inferenceConfig":{{"maxTokens":10}}{more}}}"#);
    let cost_of = |body: &str, usage: Usage, tier| {
        cost::cost(&price(OPUS).unwrap(), &usage, &Terms { tier, ..Terms::default() })
            .unwrap_or_else(|e| panic!("{e} {body}"))
    };
    let marked = body(r#","system":[{"cachePoint":{"type":"default"}}]"#);
    let written = Usage { cache_write_5m: Tokens(marked.len() as u64), output: Tokens(10), ..Usage::default() };
    assert_eq!(bound_of(Metering::Converse, OPUS, &marked).unwrap().cost, cost_of(&marked, written, Tier::Default));
    let hour = body(r#","system":[{"cachePoint":{"type":"default","ttl":"1h"}}]"#);
    let written = Usage { cache_write_1h: Tokens(hour.len() as u64), output: Tokens(10), ..Usage::default() };
    assert_eq!(bound_of(Metering::Converse, OPUS, &hour).unwrap().cost, cost_of(&hour, written, Tier::Default));

    let nova = "amazon.nova-2-lite-v1:0";
    let plain = body("");
    let of = |tier| Asked { tier, ..Asked::default() };
    let costs: Vec<_> = [None, Some("flex"), Some("priority"), Some("default"), Some("turbo")]
        .map(|tier| bound_with(Metering::Converse, nova, &plain, of(tier)).unwrap().cost)
        .to_vec();
    assert!(costs[0] == costs[1] && costs[0] < costs[2] && costs[0] == costs[3] && costs[4] == costs[2], "{costs:?}");
    let cheap = |more: &str| {
        let body = body(more);
        let plain = usage(body.len() as u64, 10);
        let at_default = cost::cost(&price(nova).unwrap(), &plain, &Terms::default()).unwrap();
        bound_of(Metering::Converse, nova, &body).unwrap().cost == at_default
    };
    assert!(cheap(r#","serviceTier":{"type":"default"}"#));
    assert!(cheap(r#","serviceTier":{"type":"flex"}"#));
    assert!(!cheap(r#","serviceTier":{"type":"priority"}"#));
    assert!(!cheap(r#","serviceTier":{"type":"priority"},"serviceTier":{"type":"default"}"#));
    assert!(!cheap(r#","service_tier":"priority""#));
    assert!(!cheap(r#","additionalModelRequestFields":{"service_tier":"priority"}"#));
}

#[test]
fn what_has_no_bound_says_why() {
    use Metering::{ApplyGuardrail, Converse, FlowTrace, Free, InvokeModel, Unreported};
    let set = |set| Asked { set: Some(NanoUsd(set)), ..Asked::default() };
    assert_eq!(bound_of(Free, "", "not looked at"), Ok(Bound::default()));
    for metering in [Metering::AgentTrace, FlowTrace, Metering::Harness, Unreported] {
        assert_eq!(bound_of(metering, SONNET, "{}"), Err(Unbounded::NoOperationPrice));
        assert_eq!(bound_with(metering, SONNET, "{}", set(5)).unwrap().cost, NanoUsd(5));
    }
    assert_eq!(bound_of(Converse, "vendor.unheard-of", "{}"), Err(Unbounded::UnpricedModel));
    assert_eq!(bound_with(Converse, "vendor.unheard-of", "{}", set(5)).unwrap().cost, NanoUsd(5));
    // An answer without usage costs the operation's price.
    assert_eq!(bound_with(Converse, SONNET, "{}", set(1 << 50)).unwrap().cost, NanoUsd(1 << 50));
    let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(500), "]".repeat(500));
    for body in ["", "null", "[]", "7", "{", "{} {}", "{\"a\":NaN}", "{'a':1}", deep.as_str()] {
        assert_eq!(bound_of(Converse, SONNET, body), Err(Unbounded::BadBody), "{body}");
    }
    let too_many = r#"{"imageGenerationConfig":{"numberOfImages":1000000000000}}"#;
    assert_eq!(bound_of(InvokeModel, "amazon.nova-canvas-v1:0", too_many), Err(Unbounded::TooLarge));
    let pegasus = "us.twelvelabs.pegasus-1-2-v1:0";
    assert_eq!(bound_of(InvokeModel, pegasus, "{}"), Err(Unbounded::Unmeasured));
    assert_eq!(
        bound_of(
            Metering::StartAsyncInvoke,
            "twelvelabs.marengo-embed-2-7-v1:0",
            r#"{"modelInput":{"inputType":"smell"}}"#
        ),
        Err(Unbounded::Unmeasured)
    );
    assert!(bound_of(ApplyGuardrail, "", r#"{"content":[{"text":{"text":"x"}}]}"#).unwrap().cost > NanoUsd::ZERO);
    let none = bound(
        &Question {
            operation: &operation(Converse),
            facts: &RequestFacts::read(Converse, None, b"{}"),
            content: &Content::new(b"{}"),
            tier_header: None,
            latency_header: None,
            guardrail_header: false,
        },
        &[],
    );
    assert_eq!(none, Err(Unbounded::UnpricedModel));
}

#[test]
fn media_cost_what_the_request_orders() {
    let image = r#"{"imageGenerationConfig":{"numberOfImages":3,"width":512,"height":512,"quality":"premium"}}"#;
    for id in ["amazon.nova-canvas-v1:0", "amazon.titan-image-generator-v2:0", "stability.sd3-5-large-v1:0"] {
        let facts = RequestFacts::read(Metering::InvokeModel, Some(id), image.as_bytes());
        let bound = bound_of(Metering::InvokeModel, id, image).unwrap();
        let terms = Terms { image: facts.image.clone(), ..Terms::default() };
        let made = Usage { images_out: 3, ..usage(40, 0) };
        assert!(bound.cost >= cost::cost(&price(id).unwrap(), &made, &terms).unwrap(), "{id}");
        assert_eq!(bound.output_tokens_max, 0);
    }
    let rerank = r#"{"sources":[1,2],"queries":[1]}"#;
    let bound = bound_of(Metering::Rerank, "amazon.rerank-v1:0", rerank).unwrap();
    let asked = Usage { queries: 1, ..Usage::default() };
    assert_eq!(bound.cost, cost::cost(&price("amazon.rerank-v1:0").unwrap(), &asked, &Terms::default()).unwrap());
    let embed = bound_of(Metering::InvokeModel, "amazon.titan-embed-text-v2:0", r#"{"inputText":"abc"}"#).unwrap();
    assert_eq!((embed.tokens, embed.output_tokens_max), (19, 0));
    let stored = r#"{"singleEmbeddingParams":{"text":{"source":{"s3Location":{"uri":"s3://a/b"}}}}}"#;
    let embed = bound_of(Metering::InvokeModel, "amazon.nova-2-multimodal-embeddings-v1:0", stored).unwrap();
    assert_eq!((embed.tokens, embed.output_tokens_max), (8_172, 0));
}

#[test]
fn guardrails_in_a_call_are_part_of_it() {
    let body = format!(
        r#"{{"messages":[{{"content":[{{"text":"{}"}},{{"text":"b"}}]}}],"inferenceConfig":{{"maxTokens":100}}}}"#,
        "a".repeat(2_500)
    );
    let asked = Asked { guardrail: true, ..Asked::default() };
    let plain = bound_of(Metering::Converse, OPUS, &body).unwrap();
    let guarded = bound_with(Metering::Converse, OPUS, &body, asked).unwrap();
    // Three and one units of text, a thousand characters of answer, and all of it for every policy.
    let units = GuardrailUnits {
        topic: 5,
        content: 5,
        word: 5,
        sensitive_information: 5,
        contextual_grounding: 9,
        ..GuardrailUnits::default()
    };
    let used = Usage { guardrail: units, ..usage(body.len() as u64, 100) };
    assert!(guarded.cost >= cost::cost(&price(OPUS).unwrap(), &used, &Terms::default()).unwrap());
    assert!(guarded.input_cost > plain.input_cost && guarded.so_far(100) > plain.so_far(100));
    let configured = body.replace("\"messages\"", "\"guardrailConfig\":{\"guardrailIdentifier\":\"g\"},\"messages\"");
    assert!(bound_of(Metering::Converse, OPUS, &configured).unwrap().cost > plain.cost);
}

#[test]
fn hidden_thoughts_and_conversations_cannot_be_followed_by_bytes_alone() {
    let thinking = r#"{"max_tokens":1000,"thinking":{"type":"enabled","budget_tokens":500}}"#;
    let bound = bound_of(Metering::InvokeModelStream, SONNET, thinking).unwrap();
    assert!(bound.hidden_output && bound.so_far(0) == bound.cost);
    let sonic = bound_of(Metering::InvokeModelBidirectional, "amazon.nova-2-sonic-v1:0", "").unwrap();
    assert!(sonic.open_ended && sonic.cost > NanoUsd::ZERO);
    assert_eq!(sonic.so_far(0), NanoUsd::ZERO);
    assert_eq!(sonic.so_far(1_000_000), round_up(Rate(12_000_000_000).times(1_000_000)));
    // A model that may think more than it may say.
    let nova =
        r#"{"inferenceConfig":{"maxTokens":10},"additionalModelRequestFields":{"reasoningConfig":{"type":"enabled"}}}"#;
    assert_eq!(tokens(Metering::Converse, "amazon.nova-2-lite-v1:0", nova).1, 64_000);
}

#[test]
fn the_dearest_candidate_counts() {
    let body = br#"{"inferenceConfig":{"maxTokens":10}}"#;
    let facts = RequestFacts::read(Metering::Converse, None, body);
    let operation = operation(Metering::Converse);
    let question = Question {
        operation: &operation,
        facts: &facts,
        content: &Content::new(body),
        tier_header: None,
        latency_header: None,
        guardrail_header: false,
    };
    let candidate = |id| Candidate { price: price(id).map(Cow::Owned), model_id: Some(id), operation_price: None };
    let both = bound(&question, &[candidate(SONNET), candidate(OPUS)]).unwrap();
    assert_eq!(both, bound(&question, &[candidate(OPUS), candidate(SONNET)]).unwrap());
    assert_eq!(both.cost, bound(&question, &[candidate(OPUS)]).unwrap().cost);
    assert_eq!(bound(&question, &[candidate(OPUS), candidate("x.y")]), Err(Unbounded::UnpricedModel));
}

#[test]
fn open_models_are_told_more_than_the_request_says() {
    let body = r#"{"messages":[{"content":[{"text":"x"}]}]}"#;
    let input = |id| tokens(Metering::Converse, id, body).0 - body.len() as u64;
    assert_eq!([input(OPUS), input(NOVA), input("openai.gpt-oss-120b-1:0")], [0, 0, 2_048]);
}

#[test]
fn makers_are_told_by_ids_and_arns() {
    for (id, maker) in [
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", Maker::Anthropic),
        ("arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-v2", Maker::Anthropic),
        ("arn:aws:bedrock:us-east-1:1:inference-profile/us.amazon.nova-lite-v1:0", Maker::Nova),
        ("arn:aws-cn:bedrock:cn-north-1:1:application-inference-profile/abc.def", Maker::Other),
        ("arn:aws:bedrock:us-east-1:1:application-inference-profile/abc", Maker::Unknown),
        ("openai.gpt-oss-20b-1:0", Maker::Other),
        ("openai.gpt-5.4", Maker::Closed),
        ("deepseek.r1-v1:0", Maker::Other),
        ("", Maker::Unknown),
    ] {
        assert_eq!(Maker::of(Some(id)), maker, "{id}");
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end.max(1)
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }
}

/// Requests at random, and answers at random that keep their limits, over every model of the price book.
#[test]
fn no_legal_answer_costs_more_than_its_bound() {
    let ids: std::collections::BTreeSet<&str> = include_str!("../../../conf/prices.yaml")
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- model: "))
        .filter(|id| *id != "guardrail")
        .collect();
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let (mut bounded, mut answers, mut exact) = (0, 0, 0u64);
    for id in &ids {
        let price = price(id).unwrap_or_default();
        let listed = price.max_input_tokens.unwrap_or(u64::MAX);
        let window = if price.long_context_thresholds().any(|at| at >= listed) { 1_000_000 } else { listed };
        let model_max = price.max_output_tokens.unwrap_or(u64::MAX);
        for round in 0..24 {
            let marker = random.chance(3);
            let asked = (!random.chance(4)).then(|| random.below(20_000) + 1);
            let tier = [None, Some("flex"), Some("priority"), Some("ultrafast")][usize::try_from(round % 4).unwrap()];
            let length = if round % 8 == 0 { 300_000 } else { 3_000 };
            let text = "t".repeat(usize::try_from(random.below(length)).unwrap());
            let cache = if marker { r#",{"cachePoint":{"type":"default","ttl":"1h"}}"# } else { "" };
            let limit = asked.map_or(String::new(), |asked| format!(r#","inferenceConfig":{{"maxTokens":{asked}}}"#));
            let body = format!(r#"{{"messages":[{{"role":"user","content":[{{"text":"{text}"}}{cache}]}}]{limit}}}"#);
            let answer = bound_with(Metering::Converse, id, &body, Asked { tier, ..Asked::default() });
            let Ok(bound) = answer else { continue };
            bounded += 1;
            let outputs = asked.unwrap_or(model_max).min(model_max);
            let drawn_or_embedded = bound.output_tokens_max == 0;
            for _ in 0..8 {
                let mut up_to = |most: u64| if random.chance(2) { most } else { random.below(most + 1) };
                let output = if drawn_or_embedded { 0 } else { up_to(outputs) };
                let total = up_to((body.len() as u64).min(window));
                let read = random.below(2) * random.below(total + 1);
                let written = if marker { random.below(total - read + 1) } else { 0 };
                let long = random.below(written + 1);
                let usage = Usage {
                    input: Tokens(total - read - written),
                    cache_read: Tokens(read),
                    cache_write_5m: Tokens(written - long),
                    cache_write_1h: Tokens(long),
                    output: Tokens(output),
                    ..Usage::default()
                };
                let billed = if random.chance(2) { Tier::default() } else { Tier::parse(tier.unwrap_or_default()) };
                let terms = Terms { tier: billed, ..Terms::default() };
                let Ok(cost) = cost::cost(&price, &usage, &terms) else { continue };
                assert!(cost <= bound.cost, "{id} {usage:?} {terms:?}: {cost} > {bound:?}");
                let seen = bound.so_far(output);
                assert!(cost <= seen, "{id} {usage:?} {terms:?}: {cost} > {seen} {bound:?}");
                (answers, exact) = (answers + 1, exact + u64::from(cost == bound.cost));
            }
        }
    }
    assert!(bounded > 7_000 && answers > 50_000 && exact > 1_000, "{bounded} {answers} {exact}");
}

/// Bodies that are cut, changed and glued never bring the reader down.
#[test]
fn broken_bodies_are_refused_or_bounded() {
    let mut random = Random(77);
    let whole = br#"{"messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64","data":"AAAA"}},{"image":{"source":{"bytes":"AA"}}}]}],"inferenceConfig":{"maxTokens":1e3},"tools":[{"type":"x"}],"n":2}"#;
    for _ in 0..20_000 {
        let mut body = whole.to_vec();
        for _ in 0..=random.below(3) {
            let at = usize::try_from(random.below(body.len() as u64)).unwrap();
            match random.below(3) {
                0 => body[at] = u8::try_from(random.below(256)).unwrap(),
                1 => drop(body.drain(at..body.len().min(at + 9))),
                _ => body.insert(at, b"{}[],:\"0"[usize::try_from(random.below(8)).unwrap()]),
            }
        }
        if let Some(seen) = Content::new(&body).seen() {
            assert!(seen.converse_image_bytes + seen.anthropic_image_bytes <= body.len() as u64);
        }
    }
}

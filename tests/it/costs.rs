//! What calls cost: in the header of the answer where it is whole, in the record, in the metric, and on the simulator's
//! bill. Expected costs are worked out by hand from `conf/prices.yaml` (one dollar per million tokens is 1,000
//! nano-dollars per token) and stand beside their arithmetic.

use serde_json::{Value, json};

use crate::support::{Asked, Entry, Rig, rules};

pub const COST: &str = "dheera_ai_cost_nano_usd_total";
pub const UNPRICED: &str = "dheera_ai_unpriced_requests_total";

pub const SONNET: &str = "anthropic.claude-sonnet-4-5-20250929-v1:0";
const US_SONNET: &str = "us.anthropic.claude-sonnet-4-5-20250929-v1:0";
pub const NOVA: &str = "us.amazon.nova-pro-v1:0";

/// One call and what it costs.
pub struct Case {
    pub what: String,
    pub asked: Asked,
    /// What the simulator reports and bills.
    rule: Value,
    /// Nano-dollars, or the reason why there is no cost.
    cost: Result<u64, &'static str>,
    /// Whether the simulator bills the same; not where the operator sets the price, or AWS hides what it bills.
    pub billed: bool,
    streamed: bool,
}

impl Case {
    pub fn new(what: impl Into<String>, asked: Asked, rule: Value, nano_usd: u64) -> Self {
        Self { what: what.into(), asked, rule, cost: Ok(nano_usd), billed: true, streamed: false }
    }

    fn streamed(self) -> Self {
        Self { streamed: true, ..self }
    }

    fn not_on_the_bill(self) -> Self {
        Self { billed: false, ..self }
    }

    fn unpriced(self, reason: &'static str) -> Self {
        Self { cost: Err(reason), billed: false, ..self }
    }
}

fn encoded(model: &str) -> String {
    model.replace(':', "%3A").replace('/', "%2F")
}

pub fn messages() -> Value {
    json!({ "messages": [{ "role": "user", "content": [{ "text": "Hello there" }] }] })
}

pub fn converse(model: &str, body: &Value) -> Asked {
    Asked::post(&format!("/model/{}/converse", encoded(model)), body.to_string())
}

pub fn converse_stream(model: &str, body: &Value) -> Asked {
    Asked::post(&format!("/model/{}/converse-stream", encoded(model)), body.to_string())
}

pub fn invoke(model: &str, body: &Value) -> Asked {
    Asked::post(&format!("/model/{}/invoke", encoded(model)), body.to_string())
}

fn invoke_stream(model: &str, body: &Value) -> Asked {
    Asked::post(&format!("/model/{}/invoke-with-response-stream", encoded(model)), body.to_string())
}

fn full_usage() -> Value {
    json!({ "usage": { "input": 1001, "output": 203, "cache_read": 5003, "cache_write_5m": 701, "cache_write_1h": 307 } })
}

fn plain_usage() -> Value {
    json!({ "usage": { "input": 1001, "output": 203 } })
}

/// What the full usage costs with Claude Sonnet 4.5: 1001 x 3000 + 203 x 15000 + 5003 x 300 + 701 x 3750 + 307 x 6000
/// = 3,003,000 + 3,045,000 + 1,500,900 + 2,628,750 + 1,842,000.
const SONNET_FULL: u64 = 12_019_650;
/// The same with the prefix `us.`, at 1.1 times the rates.
const US_SONNET_FULL: u64 = 13_221_615;
/// Nova Pro: 1001 x 800 + 203 x 3200 = 800,800 + 649,600.
const NOVA_PLAIN: u64 = 1_450_400;

pub fn converse_cases() -> Vec<Case> {
    let cached = json!({ "usage": { "input": 1001, "output": 203, "cache_read": 307 } });
    let with = |more: Value| {
        let mut rule = cached.clone();
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        rule
    };
    let table = [
        ("cache lifetimes", SONNET, full_usage(), SONNET_FULL),
        ("the prefix us.", US_SONNET, full_usage(), US_SONNET_FULL),
        // 190,001 + 10,000 tokens of input are more than 200,000: 190001 x 6000 + 10000 x 600 + 10 x 22500.
        (
            "a long context",
            SONNET,
            json!({ "usage": { "input": 190_001, "cache_read": 10_000, "output": 10 } }),
            1_146_231_000,
        ),
        // Exactly 200,000 are not: 190000 x 3000 + 10000 x 300 + 10 x 15000.
        (
            "a context at the bound",
            SONNET,
            json!({ "usage": { "input": 190_000, "cache_read": 10_000, "output": 10 } }),
            573_150_000,
        ),
        // 1001 x 800 + 203 x 3200 + 307 x 200.
        ("the default tier", NOVA, cached.clone(), 1_511_800),
        // 1001 x 400 + 203 x 1600 + 307 x 100.
        ("tier flex", NOVA, with(json!({ "tier": "flex" })), 755_900),
        // 1001 x 1400 + 203 x 5600 + 307 x 350.
        ("tier priority", NOVA, with(json!({ "tier": "priority" })), 2_645_650),
        // No rate for cache writes: they are input. 1001 x 800 + 203 x 3200 + 100 x 800.
        (
            "cache writes without a rate",
            NOVA,
            json!({ "usage": { "input": 1001, "output": 203, "cache_write_5m": 100 } }),
            1_530_400,
        ),
        // 1 x 262.5 + 1 x 1050 = 1312.5, rounded up once.
        (
            "half a nano-dollar",
            "openai.gpt-oss-120b-1:0",
            json!({ "usage": { "input": 1, "output": 1 }, "tier": "priority" }),
            1313,
        ),
        // 1 x 525 + 1 x 4375 + 1 x 131.25 = 5031.25.
        (
            "a quarter of a nano-dollar",
            "amazon.nova-2-lite-v1:0",
            json!({ "usage": { "input": 1, "output": 1, "cache_read": 1 }, "tier": "priority" }),
            5032,
        ),
        ("nothing at all", NOVA, json!({ "usage": { "input": 0, "output": 0 } }), 0),
    ];
    let mut cases = Vec::new();
    for (what, model, rule, cost) in table {
        cases.push(Case::new(format!("Converse, {what}"), converse(model, &messages()), rule.clone(), cost));
        let asked = converse_stream(model, &messages());
        cases.push(Case::new(format!("ConverseStream, {what}"), asked, rule, cost).streamed());
    }
    let mut guarded = messages();
    guarded["guardrailConfig"] = json!({ "guardrailIdentifier": "gr1", "guardrailVersion": "1", "trace": "enabled" });
    // Nova Lite 1001 x 60 + 203 x 240 = 108,780; a text unit each for input and output at 150,000 (topic) + 150,000
    // (content) + 0 (word) + 100,000 (sensitive information) = 800,000.
    let guarded = |asked: fn(&str, &Value) -> Asked| {
        Case::new("Converse with a guardrail", asked("amazon.nova-lite-v1:0", &guarded), plain_usage(), 908_780)
    };
    cases.extend([guarded(converse), guarded(converse_stream).streamed()]);
    let arn = "arn:aws:bedrock:us-east-1:123456789012:default-prompt-router/anthropic.claude:1";
    let mut routed = plain_usage();
    routed["billed_model"] = json!(NOVA);
    cases.push(Case::new("a prompt router", converse(arn, &messages()), routed.clone(), NOVA_PLAIN));
    cases
        .push(Case::new("a prompt router, streamed", converse_stream(arn, &messages()), routed, NOVA_PLAIN).streamed());
    cases
}

pub fn invoke_cases() -> Vec<Case> {
    let claude = json!({ "anthropic_version": "bedrock-2023-05-31", "max_tokens": 9, "messages": [{ "role": "user", "content": "Hi" }] });
    let prompt = json!({ "prompt": "Hi", "inputText": "Hi", "messages": [{ "role": "user", "content": "Hi" }] });
    let table = [
        ("Anthropic", SONNET, &claude, full_usage(), SONNET_FULL),
        // 1001 x 800 + 203 x 3200 + 307 x 200.
        ("Nova", NOVA, &prompt, json!({ "usage": { "input": 1001, "output": 203, "cache_read": 307 } }), 1_511_800),
        // 1001 x 200 + 203 x 600.
        ("Titan", "amazon.titan-text-express-v1", &prompt, plain_usage(), 322_000),
        // 1001 x 300 + 203 x 600.
        ("Llama", "meta.llama3-8b-instruct-v1:0", &prompt, plain_usage(), 422_100),
        // 1001 x 1350 + 203 x 5400.
        ("DeepSeek R1", "us.deepseek.r1-v1:0", &prompt, plain_usage(), 2_447_550),
        // Usage only in headers. us-east-1 has an entry of its own: 1001 x 150 + 203 x 200.
        ("Mistral", "mistral.mistral-7b-instruct-v0:2", &prompt, plain_usage(), 190_750),
        // 1001 x 1000 + 203 x 2000.
        ("Cohere Command", "cohere.command-text-v14", &prompt, plain_usage(), 1_407_000),
        // 1001 x 150 + 203 x 600.
        ("OpenAI", "openai.gpt-oss-120b-1:0", &prompt, plain_usage(), 271_950),
        // 307 of the prompt's 1308 tokens are cached, without a rate of their own: 1308 x 150 + 203 x 600.
        (
            "OpenAI, cached",
            "openai.gpt-oss-120b-1:0",
            &prompt,
            json!({ "usage": { "input": 1001, "output": 203, "cache_read": 307 } }),
            318_000,
        ),
        // 1001 x 2500 + 203 x 10000.
        ("Writer", "us.writer.palmyra-x4-v1:0", &prompt, plain_usage(), 4_532_500),
    ];
    let mut cases = Vec::new();
    for (what, model, body, rule, cost) in table {
        cases.push(Case::new(format!("InvokeModel, {what}"), invoke(model, body), rule.clone(), cost));
        cases.push(Case::new(format!("InvokeModel stream, {what}"), invoke_stream(model, body), rule, cost).streamed());
    }
    // Pegasus bills the seconds of a video whose length nobody states.
    let pegasus = invoke("us.twelvelabs.pegasus-1-2-v1:0", &json!({ "inputPrompt": "What is this?" }));
    cases.push(Case::new("Pegasus", pegasus, plain_usage(), 0).unpriced("unpriced_usage"));
    cases
}

pub fn priced_by_request() -> Vec<Case> {
    let input = json!({ "usage": { "input": 1001 } });
    let none = json!({});
    let marengo = "twelvelabs.marengo-embed-2-7-v1:0";
    let image = |count: u64| json!({ "taskType": "TEXT_IMAGE", "textToImageParams": { "text": "A cat" }, "imageGenerationConfig": { "numberOfImages": count } });
    let sdxl =
        |steps: u64| json!({ "text_prompts": [{ "text": "A cat" }], "steps": steps, "width": 1024, "height": 1024 });
    let documents = |count: usize| json!({ "query": "x", "documents": vec!["d"; count], "api_version": 2 });
    let nova = |more: Value| {
        let mut body =
            json!({ "taskType": "SINGLE_EMBEDDING", "singleEmbeddingParams": { "embeddingPurpose": "GENERIC_INDEX" } });
        body["singleEmbeddingParams"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let nova_id = "amazon.nova-2-multimodal-embeddings-v1:0";
    vec![
        // 1001 x 20.
        Case::new("Titan embedding", invoke("amazon.titan-embed-text-v2:0", &json!({ "inputText": "Hi" })), input.clone(), 20_020),
        // 1001 x 800 + one image at 60,000.
        Case::new("Titan image embedding", invoke("amazon.titan-embed-image-v1", &json!({ "inputText": "Hi", "inputImage": "aGk=" })), input.clone(), 860_800),
        // 1001 x 100.
        Case::new("Cohere embedding", invoke("cohere.embed-english-v3", &json!({ "texts": ["Hi", "you"], "input_type": "search_document" })), input.clone(), 100_100),
        // 1001 x 135.
        Case::new("Nova text embedding", invoke(nova_id, &nova(json!({ "text": { "value": "Hi" } }))), input, 135_135),
        // One image at 60,000.
        Case::new("Nova image embedding", invoke(nova_id, &nova(json!({ "image": { "format": "png", "source": { "bytes": "aGk=" } } }))), json!({ "usage": { "input": 0, "images_in": 1 } }), 60_000),
        // One text at 70,000.
        Case::new("Marengo text", invoke(marengo, &json!({ "inputType": "text", "inputText": "Hi" })), json!({ "usage": { "queries": 1 } }), 70_000),
        // One image at 100,000.
        Case::new("Marengo image", invoke(marengo, &json!({ "inputType": "image", "mediaSource": { "base64String": "aGk=" } })), json!({ "usage": { "images_in": 1, "input": 0 } }), 100_000),
        // An image at 60,000,000.
        Case::new("Nova Canvas", invoke("amazon.nova-canvas-v1:0", &image(1)), none.clone(), 60_000_000),
        Case::new("Nova Canvas, three images", invoke("amazon.nova-canvas-v1:0", &image(3)), none.clone(), 180_000_000),
        // Two at 8,000,000.
        Case::new("Titan Image", invoke("amazon.titan-image-generator-v2:0", &image(2)), none.clone(), 16_000_000),
        Case::new("Stability", invoke("stability.sd3-5-large-v1:0", &json!({ "prompt": "A cat" })), none.clone(), 80_000_000),
        Case::new("SDXL, few steps", invoke("stability.stable-diffusion-xl-v1", &sdxl(30)), none.clone(), 40_000_000),
        Case::new("SDXL, many steps", invoke("stability.stable-diffusion-xl-v1", &sdxl(100)), none.clone(), 80_000_000),
        // A query at 2,000,000; another for the 101st document.
        Case::new("rerank by InvokeModel", invoke("cohere.rerank-v3-5:0", &documents(100)), none.clone(), 2_000_000),
        Case::new("rerank of 101 documents", invoke("cohere.rerank-v3-5:0", &documents(101)), none.clone(), 4_000_000),
        // A query at 1,000,000.
        Case::new(
            "Rerank",
            Asked::post(
                "/rerank",
                json!({
                    "queries": [{ "type": "TEXT", "textQuery": { "text": "x" } }],
                    "sources": [{ "type": "INLINE", "inlineDocumentSource": { "type": "TEXT", "textDocument": { "text": "d" } } }],
                    "rerankingConfiguration": { "type": "BEDROCK_RERANKING_MODEL", "bedrockRerankingConfiguration": {
                        "modelConfiguration": { "modelArn": "arn:aws:bedrock:us-east-1::foundation-model/amazon.rerank-v1:0" } } },
                })
                .to_string(),
            ),
            none.clone(),
            1_000_000,
        ),
        // Three text units of topic, content, word and sensitive information: 3 x 400,000; one image at 750,000.
        Case::new(
            "ApplyGuardrail",
            Asked::post(
                "/guardrail/gr1/version/1/apply",
                json!({ "source": "INPUT", "content": [{ "text": { "text": "x".repeat(2500) } }, { "image": { "format": "png" } }] }).to_string(),
            ),
            none.clone(),
            1_950_000,
        ),
        // Two checks of content policies at 150,000, one of sensitive information at 100,000.
        Case::new(
            "InvokeGuardrailChecks",
            Asked::post("/guardrail-checks/invoke", json!({ "content": [{ "text": "Hi" }] }).to_string()),
            none,
            400_000,
        ),
    ]
}

pub fn surfaces() -> Vec<Case> {
    let gpt = "openai.gpt-oss-20b-1:0";
    let chat = |more: Value| {
        let mut body = json!({ "model": gpt, "messages": [{ "role": "user", "content": "Hi" }], "input": "Hi" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body.to_string()
    };
    let claude = |stream: bool| {
        json!({ "model": SONNET, "max_tokens": 9, "stream": stream, "messages": [{ "role": "user", "content": "Hi" }] })
            .to_string()
    };
    let stream = json!({ "stream": true, "stream_options": { "include_usage": true } });
    let (chat_path, responses, anthropic) =
        ("/openai/v1/chat/completions", "/openai/v1/responses", "/anthropic/v1/messages");
    // 1001 x 70 + 203 x 300.
    let gpt_plain = 130_970;
    vec![
        Case::new("chat completions", Asked::post(chat_path, chat(json!({}))), plain_usage(), gpt_plain),
        Case::new("chat completions, streamed", Asked::post(chat_path, chat(stream)), plain_usage(), gpt_plain)
            .streamed(),
        Case::new(
            "chat completions, streamed without usage",
            Asked::post(chat_path, chat(json!({ "stream": true }))),
            plain_usage(),
            0,
        )
        .streamed()
        .unpriced("unknown_usage"),
        Case::new("responses", Asked::post(responses, chat(json!({}))), plain_usage(), gpt_plain),
        Case::new(
            "responses, streamed",
            Asked::post(responses, chat(json!({ "stream": true }))),
            plain_usage(),
            gpt_plain,
        )
        .streamed(),
        Case::new("messages", Asked::post(anthropic, claude(false)), full_usage(), SONNET_FULL),
        Case::new("messages, streamed", Asked::post(anthropic, claude(true)), full_usage(), SONNET_FULL).streamed(),
    ]
}

pub fn agents() -> Vec<Case> {
    let rule = json!({ "usage": { "input": 1001, "output": 203 }, "billed_model": NOVA });
    let agent = |trace: bool| {
        let body = json!({ "inputText": "Hi", "enableTrace": trace }).to_string();
        Asked::post("/agents/AGENT12345/agentAliases/ALIAS12345/sessions/s1/text", body)
    };
    let inline =
        json!({ "inputText": "Hi", "enableTrace": true, "foundationModel": NOVA, "instruction": "x" }).to_string();
    let flow = json!({ "inputs": [{ "content": { "document": "Hi" }, "nodeName": "in", "nodeOutputName": "document" }], "enableTrace": true }).to_string();
    let generate = json!({ "input": { "text": "Hi" }, "retrieveAndGenerateConfiguration": { "type": "KNOWLEDGE_BASE",
        "knowledgeBaseConfiguration": { "knowledgeBaseId": "KB1", "modelArn": NOVA } } })
    .to_string();
    vec![
        Case::new("InvokeAgent", agent(true), rule.clone(), NOVA_PLAIN).streamed(),
        Case::new("InvokeAgent without a trace", agent(false), rule.clone(), 0).streamed().unpriced("unknown_usage"),
        Case::new("InvokeInlineAgent", Asked::post("/agents/s1", inline), rule.clone(), NOVA_PLAIN).streamed(),
        Case::new("InvokeFlow", Asked::post("/flows/FLOW123456/aliases/ALIAS12345", flow), rule.clone(), NOVA_PLAIN)
            .streamed(),
        // `operation_prices` of the configuration.
        Case::new(
            "RetrieveAndGenerate at a set price",
            Asked::post("/retrieveAndGenerate", generate.clone()),
            rule.clone(),
            20_000_000,
        )
        .not_on_the_bill(),
        Case::new(
            "RetrieveAndGenerateStream without a price",
            Asked::post("/retrieveAndGenerateStream", generate),
            rule,
            0,
        )
        .streamed()
        .unpriced("unknown_usage"),
        Case::new(
            "Retrieve",
            Asked::post("/knowledgebases/KB1/retrieve", r#"{"retrievalQuery":{"text":"x"}}"#),
            json!({}),
            0,
        ),
        Case::new("ListFoundationModels", Asked::get("/foundation-models"), json!({}), 0),
        Case::new(
            "CountTokens",
            Asked::post(
                &format!("/model/{}/count-tokens", encoded(SONNET)),
                json!({ "input": { "converse": messages() } }).to_string(),
            ),
            json!({}),
            0,
        ),
    ]
}

/// Deployments whose price the configuration decides.
pub fn configured() -> Vec<Case> {
    let mut profile = full_usage();
    profile["billed_model"] = json!(US_SONNET);
    vec![
        Case::new(
            "an application inference profile",
            converse("profile", &messages()),
            profile.clone(),
            US_SONNET_FULL,
        ),
        Case::new(
            "an application inference profile, streamed",
            converse_stream("profile", &messages()),
            profile,
            US_SONNET_FULL,
        )
        .streamed(),
        // Set: 1001 x 7000 + 203 x 11000; the cache reads keep their list price of 300: 5003 x 300; so do writes:
        // 701 x 3750 + 307 x 6000.
        Case::new("prices of the configuration", converse("own-price", &messages()), full_usage(), 15_211_650)
            .not_on_the_bill(),
        // eu-west-3: 1001 x 200 + 203 x 260.
        Case::new("a region's own price", invoke("paris", &json!({ "prompt": "Hi" })), plain_usage(), 252_980),
        // No list price, set to 500 and 1500: 1001 x 500 + 203 x 1500.
        Case::new(
            "Command R, priced by the configuration",
            invoke("command-r", &json!({ "message": "Hi" })),
            plain_usage(),
            805_000,
        )
        .not_on_the_bill(),
        Case::new(
            "Command R, streamed",
            invoke_stream("command-r", &json!({ "message": "Hi" })),
            plain_usage(),
            805_000,
        )
        .streamed()
        .not_on_the_bill(),
        Case::new("a model without a price", converse("acme.unheard-of-v1:0", &messages()), plain_usage(), 0)
            .unpriced("unpriced_model"),
    ]
}

pub async fn rig() -> Rig {
    let entries = [
        Entry {
            info: &[("base_model", US_SONNET)],
            ..Entry::new("profile", "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123")
        },
        Entry {
            info: &[("input_cost_per_token", "0.000007"), ("output_cost_per_token", "1.1e-05")],
            ..Entry::new("own-price", SONNET)
        },
        Entry {
            params: &[("aws_region_name", "eu-west-3")],
            ..Entry::new("paris", "bedrock/mistral.mistral-7b-instruct-v0:2")
        },
        Entry {
            info: &[("input_cost_per_token", "0.0000005"), ("output_cost_per_token", "0.0000015")],
            ..Entry::new("command-r", "bedrock/cohere.command-r-v1:0")
        },
        // For the mixed run: each stands in for the other.
        Entry { params: &[("aws_region_name", "us-east-1")], ..Entry::new("pair", NOVA) },
        Entry { params: &[("aws_region_name", "us-west-2")], ..Entry::new("pair", NOVA) },
    ];
    Rig::with(&entries, "general_settings:\n  operation_prices:\n    RetrieveAndGenerate: 0.02\n").await
}

/// Runs cases and gives a line for each figure that is not as expected.
async fn wrong(rig: &Rig, cases: Vec<Case>) -> Vec<String> {
    let mut wrong = Vec::new();
    for case in cases {
        rig.simulator.behave(rules(&json!([case.rule])));
        rig.simulator.clear_billed();
        let before = rig.proxy.metrics().await;
        let answer = rig.proxy.call(&case.asked).await;
        let mut differs = |what: &str, found: String, expected: String| {
            if found != expected {
                wrong.push(format!("{}: {what} {found} in place of {expected}", case.what));
            }
        };
        differs("status", answer.status.to_string(), "200".to_owned());
        let record = rig.proxy.record(answer.call_id()).await;
        let after = rig.proxy.metrics().await;
        let grown = |name: &str| after.sum(name, &[]) - before.sum(name, &[]);
        match case.cost {
            Ok(nano_usd) => {
                differs("record", record["cost_nano_usd"].to_string(), nano_usd.to_string());
                let dollars = format!("{}.{:09}", nano_usd / 1_000_000_000, nano_usd % 1_000_000_000);
                differs("dollars", record["cost_usd"].to_string(), json!(dollars).to_string());
                differs("metric", grown(COST).to_string(), nano_usd.to_string());
                differs("unpriced", grown(UNPRICED).to_string(), "0".to_owned());
                let header = (!case.streamed).then_some(dollars);
                differs(
                    "header",
                    format!("{:?}", answer.header("x-dheera-ai-response-cost")),
                    format!("{:?}", header.as_deref()),
                );
                if case.billed {
                    differs("bill", format!("{:?}", rig.simulator.billed().total_nano_usd), nano_usd.to_string());
                }
            }
            Err(reason) => {
                differs("record", record["cost_nano_usd"].to_string(), "null".to_owned());
                differs("reason", record["unpriced"].to_string(), json!(reason).to_string());
                differs("metric", grown(COST).to_string(), "0".to_owned());
                differs("unpriced", grown(UNPRICED).to_string(), "1".to_owned());
                differs("header", format!("{:?}", answer.header("x-dheera-ai-response-cost")), "None".to_owned());
            }
        }
    }
    wrong
}

async fn assert_costs(cases: Vec<Case>) {
    let rig = rig().await;
    let wrong = wrong(&rig, cases).await;
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn converse_costs_what_the_price_list_says() {
    assert_costs(converse_cases()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_family_of_invoke_model_costs_what_the_price_list_says() {
    assert_costs(invoke_cases()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_priced_by_the_request_costs_what_the_price_list_says() {
    assert_costs(priced_by_request()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_http_only_surfaces_cost_what_the_price_list_says() {
    assert_costs(surfaces()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_cost_what_their_traces_say() {
    assert_costs(agents()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_configuration_decides_prices_that_the_list_cannot_know() {
    assert_costs(configured()).await;
}

use super::invoke::{Family, family};
use super::*;

#[test]
fn model_ids_tell_their_family() {
    use super::embedding::Kind;
    for (model, expected) in [
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", Family::Anthropic),
        ("arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-3-haiku-20240307-v1:0", Family::Anthropic),
        ("amazon.nova-pro-v1:0", Family::Nova),
        ("us.amazon.nova-canvas-v1:0", Family::Image),
        ("amazon.nova-2-multimodal-embeddings-v1:0", Family::Embedding(Kind::Nova)),
        ("amazon.titan-text-express-v1", Family::TitanText),
        ("amazon.titan-embed-text-v2:0", Family::Embedding(Kind::TitanText)),
        ("amazon.titan-embed-image-v1", Family::Embedding(Kind::TitanImage)),
        ("amazon.titan-image-generator-v2:0", Family::Image),
        ("cohere.embed-english-v3", Family::Embedding(Kind::Cohere)),
        ("twelvelabs.marengo-embed-2-7-v1:0", Family::Embedding(Kind::Marengo)),
        ("us.twelvelabs.pegasus-1-2-v1:0", Family::Pegasus),
        ("us.meta.llama3-3-70b-instruct-v1:0", Family::Llama),
        ("us.deepseek.r1-v1:0", Family::DeepSeekR1),
        ("deepseek.v3-v1:0", Family::OpenAi),
        ("mistral.mistral-7b-instruct-v0:2", Family::MistralText),
        ("mistral.pixtral-large-2502-v1:0", Family::OpenAi),
        ("qwen.qwen3-32b-v1:0", Family::OpenAi),
        ("openai.gpt-oss-120b-1:0", Family::OpenAi),
        ("ai21.jamba-1-5-large-v1:0", Family::OpenAi),
        ("us.writer.palmyra-x5-v1:0", Family::Writer),
        ("cohere.command-r-plus-v1:0", Family::CohereCommandR),
        ("cohere.command-text-v14", Family::CohereCommand),
        ("stability.sd3-5-large-v1:0", Family::Image),
        ("cohere.rerank-v3-5:0", Family::Rerank),
        ("amazon.rerank-v1:0", Family::Rerank),
    ] {
        assert_eq!(family(model), expected, "{model}");
    }
}

fn ask_with<T>(body: &str, model: &str, operation: &str, effect: &Rule, then: impl FnOnce(&Ask<'_>) -> T) -> T {
    let path = format!("/model/{model}/{operation}");
    let asked = operations::Asked {
        method: "POST",
        path: &path,
        host: "",
        amz_target: None,
        scope_service: Some("bedrock"),
        body: body.as_bytes(),
    };
    then(&Ask {
        operation: operations::recognise(&asked).unwrap(),
        model: Some(model),
        region: "us-east-1",
        path: &path,
        host: "",
        headers: &HeaderMap::new(),
        body: body.as_bytes(),
        json: &serde_json::from_str(body).unwrap(),
        effect,
        seed: 1,
        token_headers: true,
    })
}

const HELLO: &str =
    r#"{"messages":[{"role":"user","content":[{"text":"Hello there, simulator"}]}],"inferenceConfig":{"maxTokens":6}}"#;

#[test]
fn answers_are_deterministic_echo_the_prompt_and_respect_max_tokens() {
    let get = || ask_with(HELLO, "amazon.nova-pro-v1:0", "converse", &Rule::default(), answer);
    let (first, bill) = get();
    assert_eq!((first.clone(), bill.clone()), get());
    let Payload::Whole(bytes) = first.payload else { panic!("streamed") };
    let body: Value = serde_json::from_slice(&bytes).unwrap();
    let text = body.pointer("/output/message/content/0/text").unwrap().as_str().unwrap();
    assert!(text.contains("Hello there"), "{text}");
    assert!(bill.unwrap().usage.output <= 6);
    assert_eq!(body["usage"]["inputTokens"], 6);
}

#[test]
fn answers_echo_the_question_and_count_what_stands_before_it() {
    let body = r#"{"messages":[{"role":"user","content":"Earlier"},{"role":"user","content":[{"type":"text","text":"Reminder"},
        {"type":"text","text":"Why?"},{"type":"image"}]}],"system":"Be kind","max_tokens":9}"#;
    let (answer, bill) = ask_with(body, "anthropic.claude-3-haiku-20240307-v1:0", "invoke", &Rule::default(), answer);
    let Payload::Whole(bytes) = answer.payload else { panic!("streamed") };
    let text = serde_json::from_slice::<Value>(&bytes).unwrap()["content"][0]["text"].as_str().unwrap().to_owned();
    assert!(text.starts_with("You said: Why?"), "{text}");
    assert_eq!(bill.unwrap().usage.input, 8);
}

#[test]
fn rules_decide_usage_frames_and_their_size() {
    let rule: Rule =
        serde_json::from_str(r#"{"usage":{"input":10,"cache_write_1h":2,"cache_write_5m":3,"cache_read":7},"frames":4,"frame_bytes":9,"tier":"flex"}"#)
            .unwrap();
    let (streamed, bill) = ask_with(HELLO, "amazon.nova-pro-v1:0", "converse-stream", &rule, answer);
    let Payload::Frames(frames) = streamed.payload else { panic!("not streamed") };
    assert_eq!(frames.len(), 1 + 4 + 3);
    let last = String::from_utf8_lossy(frames.last().unwrap()).into_owned();
    for part in
        [r#""inputTokens":10"#, r#""cacheReadInputTokens":7"#, r#""cacheWriteInputTokens":5"#, r#""type":"flex""#]
    {
        assert!(last.contains(part), "{part} in {last}");
    }
    assert_eq!(bill.unwrap().tier.as_deref(), Some("flex"));
}

#[test]
fn bodies_that_are_no_json_are_refused() {
    let refused = ask_with("[]", "amazon.nova-pro-v1:0", "converse", &Rule::default(), answer).0;
    assert_eq!(refused.status, 400);
}

#[test]
fn an_application_inference_profile_lists_what_a_rule_says_and_is_billed_as_the_default_it_lists() {
    let arn = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc";
    let path = format!("/inference-profiles/{}", arn.replace(':', "%3A").replace('/', "%2F"));
    let asked = operations::Asked {
        method: "GET",
        path: &path,
        host: "sim",
        amz_target: None,
        scope_service: Some("bedrock"),
        body: b"",
    };
    let operation = operations::recognise(&asked).unwrap();
    assert_eq!(model_of(operation, &path, &Value::Null).as_deref(), Some(arn));
    let own = vec!["arn:aws:bedrock:eu-west-1::foundation-model/amazon.nova-pro-v1:0".to_owned()];
    for (region, profile_models, models, billed) in [
        ("us-east-1", None, 3, "us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("eu-west-1", None, 1, "anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("us-east-1", Some(own), 1, "us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
    ] {
        let effect = Rule { profile_models: profile_models.clone(), ..Rule::default() };
        ask_with("{}", "x", "converse", &effect, |plain| {
            let ask = Ask { operation, path: &path, region, model: Some(arn), ..*plain };
            let (told, bill) = answer(&ask);
            let Payload::Whole(body) = &told.payload else { panic!("{told:?}") };
            let body: Value = serde_json::from_slice(body).unwrap();
            let listed: Vec<_> = body["models"].as_array().unwrap().iter().map(|one| one["modelArn"].clone()).collect();
            assert_eq!((told.status, listed.len(), bill.is_none()), (200, models, true), "{body}");
            assert_eq!((&body["type"], &body["inferenceProfileArn"]), (&json!("APPLICATION"), &json!(arn)));
            if let Some(own) = &profile_models {
                assert_eq!(listed, [json!(own[0])]);
            }
            assert_eq!(ask.billed_model().as_deref(), Some(billed));
        });
    }
}

use super::*;

fn facts(metering: Metering, model: &str, body: &str) -> RequestFacts {
    RequestFacts::read(metering, Some(model), body.as_bytes())
}

#[test]
fn the_family_follows_from_the_id_with_or_without_a_geography() {
    for (id, family) in [
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", ModelFamily::Tokens),
        ("amazon.titan-embed-text-v2:0", ModelFamily::Tokens),
        ("cohere.embed-v4:0", ModelFamily::Tokens),
        ("us.amazon.nova-canvas-v1:0", ModelFamily::AmazonImage),
        ("stability.stable-diffusion-xl-v1", ModelFamily::StableDiffusionXl),
        ("us.stability.stable-image-inpaint-v1:0", ModelFamily::StabilityImage),
        ("arn:aws:bedrock:us-west-2::foundation-model/cohere.rerank-v3-5:0", ModelFamily::Rerank),
        ("eu.twelvelabs.marengo-embed-2-7-v1:0", ModelFamily::Marengo),
        ("luma.ray-v2:0", ModelFamily::LumaRay),
        ("arn:aws:bedrock:us-east-1:1:application-inference-profile/x", ModelFamily::Tokens),
    ] {
        assert_eq!(ModelFamily::of(id), family, "{id}");
    }
}

#[test]
fn image_terms_come_from_the_request_with_the_models_defaults() {
    let canvas = facts(
        Metering::InvokeModel,
        "amazon.nova-canvas-v1:0",
        r#"{"taskType":"TEXT_IMAGE","textToImageParams":{"text":"a"},"imageGenerationConfig":{"numberOfImages":3,"width":2048,"height":1152,"quality":"premium"}}"#,
    );
    assert_eq!(canvas.images_requested, 3);
    assert_eq!(canvas.image, Some(ImageTerms { width_px: 2048, height_px: 1152, steps: None, premium: true }));
    let sdxl =
        facts(Metering::InvokeModel, "stability.stable-diffusion-xl-v1", r#"{"steps":50,"width":512,"height":512}"#);
    assert_eq!(sdxl.image, Some(ImageTerms { width_px: 512, height_px: 512, steps: Some(50), premium: false }));
    let bare = facts(Metering::InvokeModel, "amazon.titan-image-generator-v2:0", "not json");
    assert_eq!(bare.images_requested, 1);
    assert_eq!(bare.image, Some(ImageTerms { width_px: 1024, height_px: 1024, steps: None, premium: false }));
}

#[test]
fn a_chat_is_not_parsed() {
    let chat =
        facts(Metering::InvokeModel, "us.anthropic.claude-sonnet-4-5-20250929-v1:0", r#"{"width":1,"documents":[1]}"#);
    assert_eq!((chat.image, chat.queries, chat.unmeasured), (None, 0, false));
}

#[test]
fn rerank_costs_a_query_for_every_hundred_documents_begun() {
    for (documents, queries) in [(0, 1), (1, 1), (100, 1), (101, 2), (350, 4)] {
        let body = format!(r#"{{"query":"q","documents":[{}]}}"#, vec!["\"d\""; documents].join(","));
        assert_eq!(facts(Metering::InvokeModel, "cohere.rerank-v3-5:0", &body).queries, queries, "{documents}");
        let body = format!(r#"{{"queries":[{{"type":"TEXT"}}],"sources":[{}]}}"#, vec!["{}"; documents].join(","));
        assert_eq!(RequestFacts::read(Metering::Rerank, None, body.as_bytes()).queries, queries, "{documents}");
    }
}

/// Body, milliseconds of video made, of video read, of audio read, texts, and whether a length is missing.
const ASYNC_REQUESTS: [(&str, u64, u64, u64, u64, bool); 13] = [
    (
        r#"{"modelId":"amazon.nova-reel-v1:1","modelInput":{"taskType":"TEXT_VIDEO","videoGenerationConfig":{"durationSeconds":6}}}"#,
        6_000,
        0,
        0,
        0,
        false,
    ),
    (
        r#"{"modelId":"amazon.nova-reel-v1:1","modelInput":{"taskType":"MULTI_SHOT_AUTOMATED","videoGenerationConfig":{"durationSeconds":18}}}"#,
        18_000,
        0,
        0,
        0,
        false,
    ),
    (
        r#"{"modelInput":{"taskType":"MULTI_SHOT_MANUAL","multiShotManualParams":{"shots":[{},{},{}]}},"modelId":"amazon.nova-reel-v1:1"}"#,
        18_000,
        0,
        0,
        0,
        false,
    ),
    (r#"{"modelId":"amazon.nova-reel-v1:1","modelInput":{"taskType":"MULTI_SHOT_AUTOMATED"}}"#, 0, 0, 0, 0, true),
    (
        r#"{"modelId":"luma.ray-v2:0","modelInput":{"prompt":"p","duration":"9s","resolution":"720p"}}"#,
        9_000,
        0,
        0,
        0,
        false,
    ),
    (r#"{"modelId":"luma.ray-v2:0","modelInput":{"prompt":"p"}}"#, 5_000, 0, 0, 0, false),
    (
        r#"{"modelId":"twelvelabs.marengo-embed-2-7-v1:0","modelInput":{"inputType":"video","startSec":5,"lengthSec":12.5}}"#,
        0,
        12_500,
        0,
        0,
        false,
    ),
    (
        r#"{"modelId":"twelvelabs.marengo-embed-3-0-v1:0","modelInput":{"inputType":"audio","audio":{"startSec":2,"endSec":10.0005}}}"#,
        0,
        0,
        8_001,
        0,
        false,
    ),
    (r#"{"modelId":"twelvelabs.marengo-embed-2-7-v1:0","modelInput":{"inputType":"video"}}"#, 0, 0, 0, 0, true),
    (
        r#"{"modelId":"twelvelabs.marengo-embed-2-7-v1:0","modelInput":{"inputType":"text","inputText":"t"}}"#,
        0,
        0,
        0,
        1,
        false,
    ),
    (
        r#"{"modelId":"amazon.nova-2-multimodal-embeddings-v1:0","modelInput":{"segmentedEmbeddingParams":{"video":{"source":{}}}}}"#,
        0,
        0,
        0,
        0,
        true,
    ),
    (r#"{"modelId":"some.other-model","modelInput":{}}"#, 0, 0, 0, 0, true),
    ("{", 0, 0, 0, 0, true),
];

#[test]
fn async_invocations_are_priced_from_their_request() {
    for (body, output_ms, video_ms, audio_ms, queries, unmeasured) in ASYNC_REQUESTS {
        let facts = RequestFacts::read(Metering::StartAsyncInvoke, None, body.as_bytes());
        let read = (facts.video_output_ms, facts.video_input_ms, facts.audio_input_ms, facts.queries, facts.unmeasured);
        assert_eq!(read, (output_ms, video_ms, audio_ms, queries, unmeasured), "{body}");
    }
}

#[test]
fn images_sent_to_an_embedding_model_are_counted() {
    let titan = facts(Metering::InvokeModel, "amazon.titan-embed-image-v1", r#"{"inputText":"a","inputImage":"aGk="}"#);
    assert_eq!(titan.images_in, 1);
    let nova = facts(
        Metering::InvokeModel,
        "amazon.nova-2-multimodal-embeddings-v1:0",
        r#"{"taskType":"SINGLE_EMBEDDING","singleEmbeddingParams":{"image":{"format":"png","source":{"bytes":"aGk="}}}}"#,
    );
    assert_eq!((nova.images_in, nova.priced_by_request()), (1, true));
    let text = facts(
        Metering::InvokeModel,
        "amazon.nova-2-multimodal-embeddings-v1:0",
        r#"{"singleEmbeddingParams":{"text":{"value":"t"}}}"#,
    );
    assert_eq!((text.images_in, text.priced_by_request()), (0, false));
}

#[test]
fn seconds_become_milliseconds_without_a_float() {
    for (value, expected) in [
        (Value::Count(6), Some(6_000)),
        (Value::Count(u64::MAX), Some(u64::MAX)),
        (Value::Number(b"0.5"), Some(500)),
        (Value::Number(b"1.2345"), Some(1_235)),
        (Value::Number(b"1.2340"), Some(1_234)),
        (Value::Text(b"5s"), Some(5_000)),
        (Value::Text(b"s"), None),
        (Value::Number(b"-1"), None),
        (Value::Number(b"1e3"), None),
        (Value::Null, None),
    ] {
        assert_eq!(milliseconds(value), expected, "{value:?}");
    }
}

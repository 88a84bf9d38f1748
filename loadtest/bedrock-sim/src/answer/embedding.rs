//! Embedding models by InvokeModel. Titan tells its token count in the body, Cohere, Nova and Marengo only in headers.
//! Images are counted, media are not measured: a request does not say how long they are.

use serde_json::{Value, json};

use super::generation::prompt_text;
use super::{Answer, Answered, Ask, generation, invoke};
use crate::billing::Bill;
use crate::text::mix;
use crate::usage::Usage;

/// Whose embedding body it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    TitanText,
    TitanImage,
    Cohere,
    Nova,
    Marengo,
}

pub fn answer(ask: &Ask<'_>, kind: Kind) -> Answered {
    let text = prompt_text(ask.json);
    let input = if text.is_empty() { 0 } else { generation::prompt_tokens(ask.json) };
    let counted = Usage { input, images_in: images(ask.json), ..Usage::default() };
    let usage = counted.overridden(&ask.effect.usage.unwrap_or_default());
    let sizes = [
        "/dimensions",
        "/output_dimension",
        "/embeddingConfig/outputEmbeddingLength",
        "/singleEmbeddingParams/embeddingDimension",
    ];
    let size = sizes.iter().find_map(|place| ask.json.pointer(place)?.as_u64()).unwrap_or(256).min(4096);
    let vector = |salt: u64| vector(mix(ask.seed ^ salt, text.as_bytes()), size);
    let body = match kind {
        Kind::TitanText | Kind::TitanImage => json!({ "embedding": vector(0), "inputTextTokenCount": usage.input }),
        Kind::Nova => json!({ "embeddings": [{ "embeddingType": "TEXT", "embedding": vector(0) }] }),
        Kind::Marengo => json!({ "data": [{ "embedding": vector(0), "embeddingOption": "visual-text" }] }),
        Kind::Cohere => {
            let texts = ask.json.get("texts").cloned().unwrap_or_else(|| json!([]));
            let count = texts.as_array().map_or(1, Vec::len).max(1);
            let vectors: Vec<Value> = (0..count).map(|index| vector(u64::try_from(index).unwrap_or(0))).collect();
            json!({ "id": "sim1", "embeddings": vectors, "texts": texts, "response_type": "embeddings_floats" })
        }
    };
    let mut answer = Answer::json(200, &body);
    if ask.token_headers {
        let headers = invoke::token_headers(&usage).into_iter();
        answer.headers.extend(headers.filter(|(name, _)| *name == "x-amzn-bedrock-input-token-count"));
    }
    let bill = Bill { model: ask.billed_model(), usage, ..Bill::default() };
    (answer, Some(bill))
}

/// `inputImage` of Titan, `images` of Cohere, `image` of Nova and Marengo.
fn images(json: &Value) -> u64 {
    let single = ["/inputImage", "/singleEmbeddingParams/image", "/image"];
    let many = json.get("images").and_then(Value::as_array).map_or(0, Vec::len);
    let count = many + single.iter().filter(|place| json.pointer(place).is_some()).count();
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Thousandths between -1 and 1, so that a vector prints short.
fn vector(mut state: u64, size: u64) -> Value {
    let numbers = (0..size).map(|index| {
        state = mix(state, &index.to_le_bytes());
        f64::from(i32::try_from(state % 2000).unwrap_or(0) - 1000) / 1000.0
    });
    Value::Array(numbers.map(Value::from).collect())
}

//! Image models by InvokeModel: Titan Image, Nova Canvas and Stability. Bedrock reports no usage for them; the bill counts
//! the images of the answer at the size, steps and quality of the request. Every image is the same single pixel.

use serde_json::{Value, json};

use super::{Answer, Answered, Ask};
use crate::billing::Bill;
use crate::prices::ImageTerms;
use crate::usage::Usage;

/// A PNG of one pixel, in base64.
const PIXEL: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII=";

pub fn answer(ask: &Ask<'_>) -> Answered {
    let number = |places: &[&str], default: u64| {
        places.iter().find_map(|place| ask.json.pointer(place)?.as_u64()).unwrap_or(default)
    };
    let count = number(&["/imageGenerationConfig/numberOfImages", "/samples"], 1).clamp(1, 10);
    let terms = ImageTerms {
        width_px: number(&["/imageGenerationConfig/width", "/width"], 1024),
        height_px: number(&["/imageGenerationConfig/height", "/height"], 1024),
        steps: number(&["/steps"], 30),
        premium: ask.json.pointer("/imageGenerationConfig/quality").and_then(Value::as_str) == Some("premium"),
    };
    let images: Vec<&str> = (0..count).map(|_| PIXEL).collect();
    let model = ask.model.unwrap_or_default();
    let body = if model.contains("stable-diffusion-xl") {
        let artifact = |image: &&str| json!({ "seed": 0, "base64": image, "finishReason": "SUCCESS" });
        json!({ "result": "success", "artifacts": images.iter().map(artifact).collect::<Vec<_>>() })
    } else if model.contains("stability.") {
        json!({ "seeds": images.iter().map(|_| 0).collect::<Vec<_>>(), "finish_reasons": [null], "images": images })
    } else {
        json!({ "images": images, "error": null })
    };
    let usage = Usage { images_out: count, ..Usage::default() };
    let bill = Bill { model: ask.billed_model(), usage, image: Some(terms), ..Bill::default() };
    (Answer::json(200, &body), Some(bill))
}

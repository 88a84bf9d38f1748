//! What the request says about quantities that the answer will not state: images and their size, seconds of media,
//! rerank queries.
//!
//! The body is looked at only for models that are priced by their request; a chat is never parsed here. The scan keeps
//! a handful of numbers, whatever the size of the body, and a body that is no JSON gives facts without details.
//! Source: AWS's model parameters of each model, and its price list for what one unit is.

use super::family::request as table;
use super::json_scan::{Scanner, Sink, Value};
use crate::aws::operation::Metering;
use crate::types::usage::ImageTerms;

/// Rerank bills one query for every 100 documents begun.
const DOCUMENTS_PER_QUERY: u64 = 100;
/// A shot of Nova Reel lasts six seconds, and so does a video of one shot.
const REEL_SHOT_MS: u64 = 6_000;
/// Luma Ray's default.
const RAY_DEFAULT_MS: u64 = 5_000;
/// Side of an image where the request names none (Titan, Nova Canvas, SDXL 1.0).
const IMAGE_DEFAULT_PX: u32 = 1024;
/// SDXL 1.0's default.
const SDXL_DEFAULT_STEPS: u32 = 30;

/// How a model is priced, as far as its id tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ModelFamily {
    /// By tokens, or not recognisable by its id.
    #[default]
    Tokens,
    /// Titan Image Generator, Nova Canvas.
    AmazonImage,
    /// Stable Diffusion XL.
    StableDiffusionXl,
    /// Stability's other models: one price per image.
    StabilityImage,
    TitanImageEmbedding,
    NovaEmbedding,
    Marengo,
    /// Reads video of a length nobody states, writes tokens.
    Pegasus,
    Rerank,
    NovaReel,
    LumaRay,
}

impl ModelFamily {
    /// Recognises AWS's model ids, with or without a geography, and the ARNs that contain them.
    #[must_use]
    pub fn of(model_id: &str) -> Self {
        const MARKS: [(&str, ModelFamily); 12] = [
            ("rerank", ModelFamily::Rerank),
            ("amazon.titan-image", ModelFamily::AmazonImage),
            ("amazon.nova-canvas", ModelFamily::AmazonImage),
            ("stability.stable-diffusion-xl", ModelFamily::StableDiffusionXl),
            ("stability.", ModelFamily::StabilityImage),
            ("amazon.titan-embed-image", ModelFamily::TitanImageEmbedding),
            ("amazon.titan-embed-g1-image", ModelFamily::TitanImageEmbedding),
            ("amazon.nova-2-multimodal-embeddings", ModelFamily::NovaEmbedding),
            ("twelvelabs.marengo", ModelFamily::Marengo),
            ("twelvelabs.pegasus", ModelFamily::Pegasus),
            ("amazon.nova-reel", ModelFamily::NovaReel),
            ("luma.ray", ModelFamily::LumaRay),
        ];
        MARKS.iter().find(|(mark, _)| model_id.contains(mark)).map_or(Self::Tokens, |(_, family)| *family)
    }
}

/// What is known of a call before its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestFacts {
    pub metering: Metering,
    /// AWS's id; of StartAsyncInvoke the one in the body, where the caller gave none.
    pub model_id: Option<String>,
    pub family: ModelFamily,
    /// Whether the operation always answers with a stream. The HTTP-only surfaces decide by the answer's content type.
    pub streaming: bool,
    pub image: Option<ImageTerms>,
    pub images_requested: u64,
    /// Images sent to an embedding model.
    pub images_in: u64,
    /// Rerank queries, or texts to embed where a model is priced by text.
    pub queries: u64,
    pub video_input_ms: u64,
    pub audio_input_ms: u64,
    pub video_output_ms: u64,
    /// The request names media whose length it does not state, so that its price cannot be known from here.
    pub unmeasured: bool,
}

impl RequestFacts {
    /// Whether the body says something about the price.
    fn need_body(metering: Metering, model_id: Option<&str>) -> bool {
        match metering {
            Metering::InvokeModel | Metering::InvokeModelStream => {
                model_id.map(ModelFamily::of).unwrap_or_default() != ModelFamily::Tokens
            }
            Metering::StartAsyncInvoke | Metering::Rerank => true,
            _ => false,
        }
    }

    /// Reads what the price depends on. `model_id` is AWS's id, resolved; it decides the family.
    #[must_use]
    pub fn read(metering: Metering, model_id: Option<&str>, body: &[u8]) -> Self {
        let mut facts = Self {
            metering,
            model_id: model_id.map(str::to_owned),
            family: model_id.map(ModelFamily::of).unwrap_or_default(),
            streaming: matches!(
                metering,
                Metering::ConverseStream
                    | Metering::InvokeModelStream
                    | Metering::InvokeModelBidirectional
                    | Metering::AgentTrace
                    | Metering::FlowTrace
                    | Metering::Harness
            ),
            image: None,
            images_requested: 0,
            images_in: 0,
            queries: 0,
            video_input_ms: 0,
            audio_input_ms: 0,
            video_output_ms: 0,
            unmeasured: false,
        };
        if !Self::need_body(metering, model_id) {
            return facts;
        }
        match metering {
            Metering::InvokeModel | Metering::InvokeModelStream => {
                facts.take_details(&Details::read(table::INVOKE, body));
            }
            Metering::StartAsyncInvoke => {
                let details = Details::read(table::ASYNC, body);
                if facts.model_id.is_none() {
                    facts.family = details.model_id.as_deref().map(ModelFamily::of).unwrap_or_default();
                    facts.model_id.clone_from(&details.model_id);
                }
                facts.take_details(&details);
                facts.unmeasured |= facts.family == ModelFamily::Tokens;
            }
            Metering::Rerank => {
                facts.family = ModelFamily::Rerank;
                let details = Details::read(table::RERANK, body);
                if facts.model_id.is_none() {
                    facts.model_id.clone_from(&details.model_id);
                }
                facts.take_details(&details);
            }
            _ => {}
        }
        facts
    }

    fn take_details(&mut self, details: &Details) {
        match self.family {
            ModelFamily::Tokens => {}
            ModelFamily::AmazonImage | ModelFamily::StableDiffusionXl | ModelFamily::StabilityImage => {
                self.images_requested = details.images.unwrap_or(1);
                let sdxl = self.family == ModelFamily::StableDiffusionXl;
                self.image = Some(ImageTerms {
                    width_px: details.width_px.unwrap_or(IMAGE_DEFAULT_PX),
                    height_px: details.height_px.unwrap_or(IMAGE_DEFAULT_PX),
                    steps: sdxl.then(|| details.steps.unwrap_or(SDXL_DEFAULT_STEPS)),
                    premium: details.premium,
                });
            }
            ModelFamily::TitanImageEmbedding => self.images_in = u64::from(details.image),
            ModelFamily::NovaEmbedding => self.take_media(details),
            ModelFamily::Marengo => {
                let kind = details.input_type.as_deref().unwrap_or_default();
                self.queries = u64::from(matches!(kind, "text" | "text_image"));
                self.take_media(&Details {
                    image: matches!(kind, "image" | "text_image"),
                    video: kind == "video",
                    audio: kind == "audio",
                    ..details.clone()
                });
                self.unmeasured |= !matches!(kind, "text" | "image" | "text_image" | "video" | "audio");
            }
            ModelFamily::Pegasus => self.unmeasured = true,
            ModelFamily::Rerank => {
                let documents = details.documents.unwrap_or(0).div_ceil(DOCUMENTS_PER_QUERY).max(1);
                self.queries = documents.saturating_mul(details.queries.unwrap_or(1).max(1));
            }
            ModelFamily::NovaReel => {
                let length_ms = match details.task.as_deref() {
                    Some("MULTI_SHOT_MANUAL") => details.shots.map(|shots| shots.saturating_mul(REEL_SHOT_MS)),
                    Some("MULTI_SHOT_AUTOMATED") => details.length_ms,
                    _ => details.length_ms.or(Some(REEL_SHOT_MS)),
                };
                self.unmeasured = length_ms.is_none();
                self.video_output_ms = length_ms.unwrap_or(0);
            }
            ModelFamily::LumaRay => self.video_output_ms = details.length_ms.unwrap_or(RAY_DEFAULT_MS),
        }
    }

    fn take_media(&mut self, details: &Details) {
        self.images_in = u64::from(details.image);
        if !(details.video || details.audio) {
            return;
        }
        match details.media_ms() {
            Some(length_ms) if details.video => self.video_input_ms = length_ms,
            Some(length_ms) => self.audio_input_ms = length_ms,
            None => self.unmeasured = true,
        }
    }

    /// Whether the request decides the whole price, so that tokens are not asked for.
    pub(super) fn priced_by_request(&self) -> bool {
        match self.family {
            ModelFamily::Marengo | ModelFamily::Rerank | ModelFamily::NovaReel | ModelFamily::LumaRay => true,
            ModelFamily::NovaEmbedding => {
                self.unmeasured || self.images_in > 0 || self.video_input_ms > 0 || self.audio_input_ms > 0
            }
            _ => false,
        }
    }

    pub(super) fn makes_images(&self) -> bool {
        matches!(self.family, ModelFamily::AmazonImage | ModelFamily::StableDiffusionXl | ModelFamily::StabilityImage)
    }
}

/// A member of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    ModelId,
    Images,
    Width,
    Height,
    Steps,
    Quality,
    Task,
    InputType,
    Image,
    Video,
    Audio,
    Start,
    End,
    Length,
    Shots,
    Documents,
    Queries,
}

#[expect(clippy::struct_excessive_bools, reason = "independent things that were seen or not")]
#[derive(Debug, Clone, Default)]
struct Details {
    model_id: Option<String>,
    images: Option<u64>,
    width_px: Option<u32>,
    height_px: Option<u32>,
    steps: Option<u32>,
    premium: bool,
    task: Option<String>,
    input_type: Option<String>,
    image: bool,
    video: bool,
    audio: bool,
    start_ms: Option<u64>,
    end_ms: Option<u64>,
    length_ms: Option<u64>,
    shots: Option<u64>,
    documents: Option<u64>,
    queries: Option<u64>,
}

impl Details {
    fn read(sites: &'static [table::Site], body: &[u8]) -> Self {
        let mut details = Self::default();
        let mut scanner = Scanner::new(sites);
        match scanner.push(body, &mut details) {
            Ok(()) if scanner.complete() => details,
            _ => Self::default(),
        }
    }

    fn media_ms(&self) -> Option<u64> {
        self.length_ms.or_else(|| self.end_ms.map(|end| end.saturating_sub(self.start_ms.unwrap_or(0))))
    }
}

impl Sink for Details {
    type Role = ();
    type Field = Detail;

    fn begin(&mut self, (): ()) {}

    fn end(&mut self, (): ()) {}

    fn value(&mut self, (): (), field: Detail, value: Value<'_>) {
        let present = value != Value::Null;
        let count = match value {
            Value::Count(count) | Value::Elements(count) => Some(count),
            _ => None,
        };
        let pixels = count.and_then(|count| u32::try_from(count).ok());
        match field {
            Detail::ModelId => self.model_id = text_of(value),
            Detail::Images => self.images = count,
            Detail::Width => self.width_px = pixels,
            Detail::Height => self.height_px = pixels,
            Detail::Steps => self.steps = pixels,
            Detail::Quality => self.premium = value == Value::Text(b"premium"),
            Detail::Task => self.task = text_of(value),
            Detail::InputType => self.input_type = text_of(value),
            Detail::Image => self.image = present,
            Detail::Video => self.video = present,
            Detail::Audio => self.audio = present,
            Detail::Start => self.start_ms = milliseconds(value),
            Detail::End => self.end_ms = milliseconds(value),
            Detail::Length => self.length_ms = milliseconds(value),
            Detail::Shots => self.shots = count,
            Detail::Documents => self.documents = count,
            Detail::Queries => self.queries = count,
        }
    }
}

fn text_of(value: Value<'_>) -> Option<String> {
    match value {
        Value::Text(raw) => super::document::unescape(raw),
        _ => None,
    }
}

/// Seconds as a number or as `"5s"`, in milliseconds, begun ones counting whole. No float, no exponent, no sign.
fn milliseconds(value: Value<'_>) -> Option<u64> {
    let text = match value {
        Value::Count(seconds) => return Some(seconds.saturating_mul(1000)),
        Value::Number(text) => text,
        Value::Text(text) => text.strip_suffix(b"s").unwrap_or(text),
        _ => return None,
    };
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole_ms = whole.parse::<u64>().ok()?.saturating_mul(1000);
    let (kept, cut) = fraction.split_at_checked(3).unwrap_or((fraction, ""));
    let kept_ms = format!("{kept:0<3}").parse::<u64>().ok()?;
    let begun_ms = u64::from(cut.bytes().any(|byte| byte != b'0'));
    Some(whole_ms.saturating_add(kept_ms).saturating_add(begun_ms))
}

#[cfg(test)]
mod tests;

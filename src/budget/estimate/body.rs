//! What a request's body says about how much the call can cost: limits on the output, media, tools, cache markers,
//! tiers. One quick pass without a tree in memory, whatever the API; `estimate.rs` decides which of it counts.
//!
//! Every doubt is resolved upwards, because clients choose the body: of a member that is given twice the larger value
//! counts, a limit that is no number limits nothing, and a picture's base64 is left out of the text only where the API
//! cannot take it for anything else. Source: AWS's model parameters, Converse of botocore 1.44.5, Anthropic's and
//! OpenAI's API references.

use std::borrow::Cow;

use super::place::{Flag, LIMITS, Limit, Place};
use crate::json::{Outline, Reader, Text, Value};

/// Limits nothing.
pub(super) const UNLIMITED: u64 = u64::MAX;

/// Containers in one another; what is deeper has no bound.
const DEPTH_MAX: u8 = 127;

/// The harvest of one body.
#[expect(clippy::struct_excessive_bools, reason = "independent things that were seen or not")]
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    limits: [Option<u64>; LIMITS],
    /// `n` and its like: answers to one prompt.
    pub choices: Option<u64>,
    /// `numberOfImages`, `samples`.
    pub images_wanted: u64,
    /// Pictures in content blocks of Converse, and the length of their base64.
    pub converse_images: u64,
    pub converse_image_bytes: u64,
    /// The same in Anthropic's format.
    pub anthropic_images: u64,
    pub anthropic_image_bytes: u64,
    /// Content whose tokens cannot be told from its bytes: documents, media, references to what is stored elsewhere.
    pub opaque: bool,
    /// Texts, of which each guardrail unit covers one at most.
    pub texts: u64,
    pub cache_marker: bool,
    /// A marker asks for another lifetime than five minutes.
    pub cache_long: bool,
    /// Tools, or an output in a given form: the model is told more than stands in the body.
    pub tools: bool,
    /// Tools whose description the model's maker supplies (`computer_…`, `bash_…`).
    pub built_in_tools: u64,
    /// Tools that run beside the model, whose results it reads within the same call.
    pub server_tools: bool,
    pub tier: Option<String>,
    pub latency_optimized: bool,
    pub guardrail: bool,
    /// `anthropic_beta`, which may lift limits of the model.
    pub beta: bool,
    pub reasoning: bool,
    inferences: u64,
    titan_texts: u64,
    block: Block,
}

/// The content block of Anthropic's format that is being read.
#[derive(Debug, Clone, Default)]
struct Block {
    types: u64,
    image: bool,
    sources: u64,
    base64: bool,
    source_types: u64,
    data: u64,
    data_bytes: u64,
}

impl Seen {
    /// Reads a body, and on the way where members of it stand. `None` where it is no JSON object, or nested deeper than 127 levels.
    pub(super) fn read<'b>(body: &'b [u8], outline: &mut Outline<'b>) -> Option<Self> {
        let mut seen = Self::default();
        let mut reader = Reader::strict(body)?;
        if reader.value()? != Value::Object {
            return None;
        }
        reader.members(|reader, name| {
            let start = reader.here()?;
            seen.read_value(reader, Place::Root.member(&name.decoded()?), DEPTH_MAX - 1)?;
            outline.note(&name, start..reader.behind());
            Some(())
        })?;
        reader.end()?;
        Some(seen)
    }

    /// Reads the value that comes next, in which there may be so many levels more.
    fn read_value(&mut self, reader: &mut Reader<'_>, place: Place, depth: u8) -> Option<()> {
        let scalar = match reader.value()? {
            Value::Object => return self.read_object(reader, place, depth.checked_sub(1)?),
            Value::Array => {
                self.scalar(place, &Scalar::Other);
                let depth = depth.checked_sub(1)?;
                return reader.elements(|reader| self.read_value(reader, place.element(), depth));
            }
            Value::Text(text) => Scalar::Text(text),
            Value::Count(count) => Scalar::Count(count),
            Value::Number(number) => count_of(number)?,
            Value::Bool => Scalar::Other,
            Value::Null => Scalar::Null,
        };
        self.scalar(place, &scalar);
        Some(())
    }

    fn read_object(&mut self, reader: &mut Reader<'_>, place: Place, depth: u8) -> Option<()> {
        match place {
            Place::Marker => self.raise(Flag::Cache),
            Place::Tool => self.raise(Flag::Tools),
            Place::Source => self.block.sources += 1,
            Place::ConverseImage => self.converse_images += 1,
            Place::Tier => {}
            Place::Block => {
                let outer = std::mem::take(&mut self.block);
                self.read_members(reader, place, depth)?;
                self.close_block(outer);
                return Some(());
            }
            Place::Prompt | Place::Opaque => {
                self.opaque = true;
                return self.read_members(reader, Place::Other, depth);
            }
            // An object where a number, a word or a sign is expected.
            other => self.scalar(other, &Scalar::Other),
        }
        self.read_members(reader, place, depth)
    }

    fn read_members(&mut self, reader: &mut Reader<'_>, place: Place, depth: u8) -> Option<()> {
        reader.members(|reader, name| self.read_value(reader, place.member(&name.decoded()?), depth))
    }

    /// The largest of these limits; `None` where the body has none of them.
    pub(super) fn limit(&self, of: &[Limit]) -> Option<u64> {
        of.iter().filter_map(|limit| self.limits.get(*limit as usize).copied().flatten()).max()
    }

    /// Whichever of two equal members an API heeds, and be it `null`, is not known here.
    fn take_limit(&mut self, limit: Limit, count: u64) {
        if let Some(kept) = self.limits.get_mut(limit as usize) {
            *kept = Some(if kept.is_some() && limit != Limit::Additional { UNLIMITED } else { count });
        }
    }

    /// Called at each value of an object with limits in it.
    fn open_limits(&mut self, place: Place) {
        let (opened, limits): (_, &[Limit]) = match place {
            Place::Inference => (&mut self.inferences, &[Limit::Inference, Limit::InferenceNew]),
            Place::TitanText => (&mut self.titan_texts, &[Limit::TitanText]),
            _ => return,
        };
        *opened += 1;
        if *opened > 1 {
            for limit in limits {
                self.take_limit(*limit, UNLIMITED);
            }
        }
    }

    fn scalar(&mut self, place: Place, value: &Scalar<'_>) {
        if let Scalar::Text(_) = value {
            self.texts = self.texts.saturating_add(1);
        }
        let present = *value != Scalar::Null;
        let count = match value {
            Scalar::Null => None,
            Scalar::Count(0) | Scalar::Text(_) | Scalar::Other => Some(UNLIMITED),
            Scalar::Count(count) => Some(*count),
        };
        match place {
            Place::Limit(Limit::Additional) => {
                let largest = self.limit(&[Limit::Additional]).max(count);
                self.take_limit(Limit::Additional, largest.unwrap_or(UNLIMITED));
            }
            Place::Limit(limit) => self.take_limit(limit, count.unwrap_or(UNLIMITED)),
            Place::Inference | Place::TitanText => self.open_limits(place),
            Place::Choices => self.choices = self.choices.max(count),
            Place::ImagesWanted => self.images_wanted = self.images_wanted.max(count.unwrap_or(0)),
            Place::Opaque => self.opaque |= present,
            Place::ServerTool => self.server_tools |= present,
            Place::Flag(flag) if present => self.raise(flag),
            Place::Tier | Place::TierWord => self.take_tier(value),
            Place::LatencyWord => self.latency_optimized |= present && !value.is("standard"),
            Place::Lifetime => self.cache_long |= present && !value.is("5m"),
            Place::Type => self.take_block_type(value),
            Place::ItemType => {
                self.opaque |= value.is("image");
                self.take_block_type(value);
            }
            Place::ToolType => self.take_tool_type(value),
            Place::ConverseBytes => self.converse_image_bytes += value.text_bytes(),
            Place::Source => self.block.sources += 1,
            Place::SourceType => {
                self.block.source_types += 1;
                self.block.base64 = value.is("base64");
            }
            Place::SourceData => {
                self.block.data += 1;
                self.block.data_bytes += value.text_bytes();
            }
            _ => {}
        }
    }

    fn raise(&mut self, flag: Flag) {
        match flag {
            Flag::Cache => self.cache_marker = true,
            Flag::Tools => self.tools = true,
            Flag::Guardrail => self.guardrail = true,
            Flag::Beta => self.beta = true,
            Flag::Reasoning => self.reasoning = true,
        }
    }

    /// The dearer of two tiers is not known here, so two different ones become an unknown one.
    fn take_tier(&mut self, value: &Scalar<'_>) {
        let word = match value {
            Scalar::Null => return,
            Scalar::Text(text) => text.decoded().unwrap_or_default(),
            _ => Cow::default(),
        };
        match &self.tier {
            Some(tier) if *tier != word => self.tier = Some(String::new()),
            _ => self.tier = Some(word.into_owned()),
        }
    }

    fn take_block_type(&mut self, value: &Scalar<'_>) {
        const TEXTS: [&str; 17] = [
            "text",
            "input_text",
            "output_text",
            "summary_text",
            "reasoning_text",
            "refusal",
            "tool_use",
            "tool_result",
            "thinking",
            "redacted_thinking",
            "search_result",
            "message",
            "reasoning",
            "function_call",
            "function_call_output",
            "custom_tool_call",
            "custom_tool_call_output",
        ];
        let Scalar::Text(word) = value else { return };
        self.block.types += 1;
        if word.is("image") {
            self.block.image = true;
        } else if !TEXTS.iter().any(|text| word.is(text)) {
            self.opaque = true;
        }
    }

    fn take_tool_type(&mut self, value: &Scalar<'_>) {
        const BUILT_IN: [&str; 4] = ["computer_2", "bash_2", "text_editor_2", "memory_2"];
        let Scalar::Text(text) = value else { return };
        let word = text.decoded().unwrap_or_default();
        if BUILT_IN.iter().any(|prefix| word.starts_with(prefix)) {
            self.built_in_tools += 1;
        } else if !matches!(&*word, "custom" | "function") {
            self.server_tools = true;
        }
    }

    /// A picture's base64 is text to nobody only if the block cannot be read in two ways.
    fn close_block(&mut self, outer: Block) {
        let block = std::mem::replace(&mut self.block, outer);
        if !block.image {
            return;
        }
        self.anthropic_images += 1;
        if (block.types, block.sources, block.source_types, block.data) == (1, 1, 1, 1) && block.base64 {
            self.anthropic_image_bytes += block.data_bytes;
        } else {
            self.opaque = true;
        }
    }
}

/// A value without members.
#[derive(Debug, PartialEq, Eq)]
enum Scalar<'b> {
    Null,
    Count(u64),
    Text(Text<'b>),
    /// A truth value, or a number that is no count.
    Other,
}

impl Scalar<'_> {
    fn is(&self, word: &str) -> bool {
        matches!(self, Self::Text(text) if text.is(word))
    }

    /// Never more than the string takes in the body.
    fn text_bytes(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            _ => 0,
        }
    }
}

/// Of a number with a sign, a fraction or an exponent, or one that is very long: `1e3` is a thousand; a begun token is a
/// whole one. `None` for what no number can hold.
fn count_of(number: &[u8]) -> Option<Scalar<'static>> {
    let number: f64 = serde_json::from_slice(number).ok()?;
    let count = if number > 0.0 { format!("{:.0}", number.ceil()).parse().ok() } else { None };
    Some(count.map_or(Scalar::Other, Scalar::Count))
}

#[cfg(test)]
mod tests;

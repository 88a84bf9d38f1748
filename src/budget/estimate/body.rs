//! What a request's body says about how much the call can cost: limits on the output, media, tools, cache markers,
//! tiers. One pass without a tree in memory, whatever the API; `estimate.rs` decides which of it counts.
//!
//! Every doubt is resolved upwards, because clients choose the body: of a member that is given twice the larger value
//! counts, a limit that is no number limits nothing, and a picture's base64 is left out of the text only where the API
//! cannot take it for anything else. Source: AWS's model parameters, Converse of botocore 1.44.5, Anthropic's and
//! OpenAI's API references.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::place::{Flag, LIMITS, Limit, Place};

/// Limits nothing.
pub(super) const UNLIMITED: u64 = u64::MAX;

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
    object: bool,
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
    /// Reads a body; `None` where it is no JSON object, or nested deeper than 127 levels.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let mut seen = Self::default();
        let mut deserializer = serde_json::Deserializer::from_slice(body);
        let root = Node { seen: &mut seen, place: Place::Start };
        root.deserialize(&mut deserializer).ok()?;
        deserializer.end().ok()?;
        seen.object.then_some(seen)
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
            Scalar::Text(word) => word,
            _ => "",
        };
        match &self.tier {
            Some(tier) if tier != word => self.tier = Some(String::new()),
            _ => self.tier = Some(word.to_owned()),
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
        if *word == "image" {
            self.block.image = true;
        } else if !TEXTS.contains(word) {
            self.opaque = true;
        }
    }

    fn take_tool_type(&mut self, value: &Scalar<'_>) {
        const BUILT_IN: [&str; 4] = ["computer_2", "bash_2", "text_editor_2", "memory_2"];
        let Scalar::Text(word) = value else { return };
        if BUILT_IN.iter().any(|prefix| word.starts_with(prefix)) {
            self.built_in_tools += 1;
        } else if !matches!(*word, "custom" | "function") {
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
enum Scalar<'a> {
    Null,
    Count(u64),
    Text(&'a str),
    /// A truth value, or a number that is no count.
    Other,
}

impl Scalar<'_> {
    fn is(&self, word: &str) -> bool {
        matches!(self, Self::Text(text) if *text == word)
    }

    /// Never more than the string takes in the body.
    fn text_bytes(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            _ => 0,
        }
    }
}

struct Node<'s> {
    seen: &'s mut Seen,
    place: Place,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { seen, place } = self;
        let place = match place {
            Place::Start => {
                seen.object = true;
                Place::Root
            }
            Place::Marker => {
                seen.raise(Flag::Cache);
                place
            }
            Place::Block | Place::Tier => place,
            Place::Tool => {
                seen.raise(Flag::Tools);
                place
            }
            Place::Source => {
                seen.block.sources += 1;
                place
            }
            Place::ConverseImage => {
                seen.converse_images += 1;
                place
            }
            Place::Prompt | Place::Opaque => {
                seen.opaque = true;
                Place::Other
            }
            other => {
                // An object where a number, a word or a sign is expected.
                seen.scalar(other, &Scalar::Other);
                other
            }
        };
        let outer = (place == Place::Block).then(|| std::mem::take(&mut seen.block));
        while let Some(member) = map.next_key_seed(Name(place))? {
            map.next_value_seed(Node { seen: &mut *seen, place: member })?;
        }
        if let Some(outer) = outer {
            seen.close_block(outer);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let Self { seen, place } = self;
        if place == Place::Start {
            return Err(A::Error::custom("the body is no object"));
        }
        seen.scalar(place, &Scalar::Other);
        while elements.next_element_seed(Node { seen: &mut *seen, place: place.element() })?.is_some() {}
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.seen.scalar(self.place, &Scalar::Text(text));
        Ok(())
    }

    fn visit_u64<E>(self, count: u64) -> Result<(), E> {
        self.seen.scalar(self.place, &Scalar::Count(count));
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        self.seen.scalar(self.place, &Scalar::Other);
        Ok(())
    }

    /// `1e3` is a thousand; a begun token is a whole one.
    fn visit_f64<E>(self, number: f64) -> Result<(), E> {
        let count = if number > 0.0 { format!("{:.0}", number.ceil()).parse().ok() } else { None };
        self.seen.scalar(self.place, &count.map_or(Scalar::Other, Scalar::Count));
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        self.seen.scalar(self.place, &Scalar::Other);
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.seen.scalar(self.place, &Scalar::Null);
        Ok(())
    }
}

/// A member's name, without its escapes.
struct Name(Place);

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Place;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Place, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Place;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Place, E> {
        Ok(self.0.member(name))
    }
}

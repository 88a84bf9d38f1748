//! The shape of the price book's YAML, version 1: which keys an entry has and what they mean.
//!
//! Every mistake is told, each with its line, and nothing unknown is passed over: a misspelt `cache_raed` would give
//! tokens away. Amounts become [`Rate`]s by exact decimal arithmetic. `conf/prices.yaml` explains the fields.

use std::sync::Arc;

use super::book::Surface;
use super::rates::{Bracket, Dimension, ImageVariant, Price, PricedTier, Quote, Rates, pixels};
use crate::types::money::Rate;
use crate::yaml::{self, Content, Node};

/// What is wrong, and on which line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Counted from 1.
    pub line: usize,
    pub what: String,
}

/// One entry of `prices`, with what tells it from the others.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) line: usize,
    pub(super) model: String,
    pub(super) region: Option<String>,
    pub(super) surface: Surface,
    pub(super) commitment: Option<String>,
    /// An image variant, which has no other price.
    pub(super) image: Option<ImageVariant>,
    pub(super) price: Price,
    pub(super) guardrail: Rates,
}

/// The rows of a book. With problems told they may be incomplete.
pub(super) fn rows(text: &str, problems: &mut Vec<Problem>) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut unreadable = Vec::new();
    let root = yaml::parse(text, &mut unreadable);
    problems.extend(unreadable.into_iter().map(|problem| Problem { line: problem.place.line, what: problem.what }));
    let Some(root) = root else {
        if problems.is_empty() {
            problems.push(Problem { line: 1, what: "the price book is empty".to_owned() });
        }
        return rows;
    };
    let mut reader = Reader { problems };
    let (mut versioned, mut priced) = (false, false);
    for (key, value) in reader.map(&root) {
        versioned |= key == "version";
        priced |= key == "prices";
        match key {
            "version" => reader.word(value, "1"),
            "currency" => reader.word(value, "USD"),
            "collected" => _ = reader.text(value),
            "prices" => rows = reader.list(value).filter_map(|entry| reader.row(entry)).collect(),
            _ => reader.unknown(key, value),
        }
    }
    if !(versioned && priced) {
        reader.tell(root.place.line, "a price book needs `version: 1` and `prices`");
    }
    rows
}

struct Reader<'p> {
    problems: &'p mut Vec<Problem>,
}

impl Reader<'_> {
    fn row(&mut self, node: &Node) -> Option<Row> {
        let mut row = Row {
            line: node.place.line,
            model: String::new(),
            region: None,
            surface: Surface::Runtime,
            commitment: None,
            image: None,
            price: Price::default(),
            guardrail: Rates::default(),
        };
        for (key, value) in self.map(node) {
            match key {
                "model" => row.model = self.text(value).to_owned(),
                "region" => row.region = Some(self.text(value).to_owned()),
                "commitment" => row.commitment = Some(self.text(value).to_owned()),
                "surface" => {
                    self.word(value, "mantle");
                    row.surface = Surface::Mantle;
                }
                "image" => row.image = Some(self.image(value)),
                "mode" => row.price.mode = Some(Arc::from(self.text(value))),
                "deprecated" => row.price.deprecated = Some(Arc::from(self.text(value))),
                "source" => _ = self.text(value),
                "max_input_tokens" => row.price.max_input_tokens = self.count(value),
                "max_output_tokens" => row.price.max_output_tokens = self.count(value),
                "prompt_cache_min_tokens" => row.price.prompt_cache_min_tokens = self.count(value),
                "per_million" => self.rates(value, Quote::Million, row.price.base.tier_mut(None)),
                "tiers" => self.tiers(value, &mut row.price.base),
                "above" => self.above(value, &mut row.price),
                "per_unit" => self.rates(value, Quote::Unit, &mut row.price.units),
                "guardrail_per_unit" => self.rates(value, Quote::Guardrail, &mut row.guardrail),
                _ => self.unknown(key, value),
            }
        }
        if row.model.is_empty() {
            self.tell(node.place.line, "an entry needs `model`");
            return None;
        }
        if row.price.is_empty() && row.guardrail.is_empty() {
            self.tell(node.place.line, format!("`{}` has no price", row.model));
            return None;
        }
        if let Some(image) = &mut row.image {
            match row.price.units.take(Dimension::ImageOut) {
                Some(rate) if row.price.is_empty() => image.rate = rate,
                _ => self.tell(node.place.line, "an entry with `image` has `image_out` and no other price"),
            }
        }
        Some(row)
    }

    fn tiers(&mut self, node: &Node, bracket: &mut Bracket) {
        for (key, value) in self.map(node) {
            match PricedTier::ALL.into_iter().find(|tier| tier.name() == key) {
                Some(tier) => self.rates(value, Quote::Million, bracket.tier_mut(Some(tier))),
                None => self.unknown(key, value),
            }
        }
    }

    fn above(&mut self, node: &Node, price: &mut Price) {
        for entry in self.list(node) {
            let mut bracket = Bracket::default();
            let mut threshold = None;
            for (key, value) in self.map(entry) {
                match key {
                    "tokens" => threshold = self.count(value),
                    "per_million" => self.rates(value, Quote::Million, bracket.tier_mut(None)),
                    "tiers" => self.tiers(value, &mut bracket),
                    _ => self.unknown(key, value),
                }
            }
            match threshold {
                Some(_) => *price.above_mut(threshold) = bracket,
                None => self.tell(entry.place.line, "an entry of `above` needs `tokens`"),
            }
        }
    }

    fn image(&mut self, node: &Node) -> ImageVariant {
        let mut image = ImageVariant { pixels_max: None, steps_max: None, premium: None, rate: Rate::default() };
        for (key, value) in self.map(node) {
            match (key, self.text(value)) {
                ("size" | "steps", "max") => {}
                ("size", text) => match text.split_once('x').map(|(wide, high)| (wide.parse(), high.parse())) {
                    Some((Ok(wide), Ok(high))) => image.pixels_max = Some(pixels(wide, high)),
                    _ => self.tell(value.place.line, format!("`{text}` is not a size such as 1024x1024, or max")),
                },
                ("steps", text) => match text.parse() {
                    Ok(steps) => image.steps_max = Some(steps),
                    Err(_) => self.tell(value.place.line, format!("`{text}` is not a number of steps, or max")),
                },
                ("quality", "standard") => image.premium = Some(false),
                ("quality", "premium") => image.premium = Some(true),
                ("quality", text) => self.tell(value.place.line, format!("`{text}` is neither standard nor premium")),
                _ => self.unknown(key, value),
            }
        }
        image
    }

    fn rates(&mut self, node: &Node, quote: Quote, into: &mut Rates) {
        for (key, value) in self.map(node) {
            let mut dimensions = Dimension::ALL.into_iter();
            let Some(dimension) = dimensions.find(|one| one.quote() == quote && one.name() == key) else {
                self.unknown(key, value);
                continue;
            };
            let text = self.text(value);
            let rate = match quote {
                Quote::Million => Rate::from_usd_per_million(text),
                Quote::Unit | Quote::Guardrail => Rate::from_usd_per_unit(text),
            };
            match rate {
                Ok(rate) => into.set(dimension, rate),
                Err(error) => self.tell(value.place.line, format!("`{key}: {text}` {error}")),
            }
        }
    }

    fn map<'n>(&mut self, node: &'n Node) -> impl Iterator<Item = (&'n str, &'n Node)> + use<'n> {
        let entries = match &node.content {
            Content::Map(entries) => entries.as_slice(),
            Content::Scalar { .. } | Content::List(_) => {
                self.tell(node.place.line, "is not a mapping");
                &[]
            }
        };
        entries.iter().map(|entry| (entry.key.as_str(), &entry.value))
    }

    fn list<'n>(&mut self, node: &'n Node) -> impl Iterator<Item = &'n Node> + use<'n> {
        let elements = match &node.content {
            Content::List(elements) => elements.as_slice(),
            Content::Scalar { .. } | Content::Map(_) => {
                self.tell(node.place.line, "is not a list");
                &[]
            }
        };
        elements.iter()
    }

    fn text<'n>(&mut self, node: &'n Node) -> &'n str {
        match &node.content {
            Content::Scalar { text, .. } => text.expose(),
            Content::List(_) | Content::Map(_) => {
                self.tell(node.place.line, "is not a single value");
                ""
            }
        }
    }

    fn count(&mut self, node: &Node) -> Option<u64> {
        let text = self.text(node);
        let count = text.parse().ok();
        if count.is_none() {
            self.tell(node.place.line, format!("`{text}` is not a number of tokens"));
        }
        count
    }

    /// The only word that may stand here.
    fn word(&mut self, node: &Node, known: &str) {
        let text = self.text(node);
        if text != known {
            self.tell(node.place.line, format!("`{text}` is not known here: write {known}"));
        }
    }

    fn unknown(&mut self, key: &str, node: &Node) {
        self.tell(node.place.line, format!("the key `{key}` is not known here"));
    }

    fn tell(&mut self, line: usize, what: impl Into<String>) {
        self.problems.push(Problem { line, what: what.into() });
    }
}

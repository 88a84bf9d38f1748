//! Reads the price file and prices a call in integers, independently of the product. Amounts are whole multiples of
//! 10⁻²¹ dollars (twelve decimals of a price per million tokens, eighteen of a price per unit, and a factor of 1,000
//! for milliseconds); they are summed exactly and rounded up once, to nano-dollars. What has no price costs `None`,
//! never nothing.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::usage::{GuardrailUnits, Usage};

/// Prefixes of inference-profile ids.
const GEOGRAPHIES: [&str; 9] = ["us-gov.", "us.", "eu.", "apac.", "jp.", "au.", "in.", "ca.", "global."];
/// 10⁻²¹ dollars in a nano-dollar.
const PER_NANO_USD: u128 = 1_000_000_000_000;
/// Decimal places of an amount.
const PLACES: usize = 21;

type Rates = BTreeMap<String, String>;

#[derive(Debug, Deserialize)]
struct File {
    prices: Vec<Entry>,
}

/// One entry of the file. Fields that only describe the model are not read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Entry {
    model: String,
    region: Option<String>,
    surface: Option<String>,
    commitment: Option<serde_json::Value>,
    image: Option<ImageVariant>,
    per_million: Rates,
    tiers: BTreeMap<String, Rates>,
    above: Vec<Above>,
    per_unit: Rates,
    guardrail_per_unit: Rates,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Above {
    tokens: u64,
    per_million: Rates,
    tiers: BTreeMap<String, Rates>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct ImageVariant {
    /// `1024x1024` or `max`.
    size: Option<String>,
    /// A number or `max`.
    steps: Option<serde_json::Value>,
    quality: Option<String>,
}

/// What an image was asked to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ImageTerms {
    pub width_px: u64,
    pub height_px: u64,
    pub steps: u64,
    pub premium: bool,
}

/// What is billed.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    pub model: &'a str,
    pub region: &'a str,
    pub mantle: bool,
    pub tier: &'a str,
    pub image: Option<ImageTerms>,
    pub usage: &'a Usage,
}

/// The price file, by model.
pub struct PriceBook {
    entries: BTreeMap<String, Vec<Entry>>,
    guardrail: Rates,
}

impl PriceBook {
    /// # Errors
    /// What the YAML reader reports.
    pub fn from_yaml(text: &str) -> Result<Self, String> {
        let file: File = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        let mut book = Self { entries: BTreeMap::new(), guardrail: Rates::new() };
        for entry in file.prices {
            if !entry.guardrail_per_unit.is_empty() {
                book.guardrail.clone_from(&entry.guardrail_per_unit);
            }
            if entry.commitment.is_none() {
                book.entries.entry(entry.model.clone()).or_default().push(entry);
            }
        }
        Ok(book)
    }

    /// The cost in nano-dollars; `None` where any part of it has no price.
    pub fn cost(&self, call: &Call<'_>) -> Option<u64> {
        let guardrail = guardrail_cost(&self.guardrail, &call.usage.guardrail)?;
        let without_guardrail = Usage { guardrail: GuardrailUnits::default(), ..*call.usage };
        let model = if without_guardrail.is_empty() { 0 } else { self.find(call)?.cost(call)? };
        u64::try_from(guardrail.checked_add(model)?.div_ceil(PER_NANO_USD)).ok()
    }

    fn find(&self, call: &Call<'_>) -> Option<&Entry> {
        let id = model_id(call.model);
        let bare = GEOGRAPHIES.iter().find_map(|prefix| id.strip_prefix(prefix));
        std::iter::once(id).chain(bare).find_map(|id| {
            let entries = self.entries.get(id)?;
            let pick = |mantle: bool, regional: bool| {
                let fitting = entries.iter().filter(|entry| {
                    let right_surface = (entry.surface.as_deref() == Some("mantle")) == mantle;
                    let right_region =
                        if regional { entry.region.as_deref() == Some(call.region) } else { entry.region.is_none() };
                    right_surface && right_region
                });
                choose_variant(fitting, call.image)
            };
            // Mantle serves runtime models at runtime prices where it has none of its own, never the other way round.
            let own = pick(call.mantle, true).or_else(|| pick(call.mantle, false));
            own.or_else(|| call.mantle.then(|| pick(false, true).or_else(|| pick(false, false))).flatten())
        })
    }
}

/// The part of an ARN that is a model id; anything else as it is.
fn model_id(model: &str) -> &str {
    if !model.starts_with("arn:") {
        return model;
    }
    for kind in [":foundation-model/", "/foundation-model/", ":inference-profile/"] {
        if let Some((_, id)) = model.split_once(kind) {
            return id;
        }
    }
    model
}

/// Among entries of one model the image variant that fits most closely, or the entry without variants.
fn choose_variant<'a>(entries: impl Iterator<Item = &'a Entry>, image: Option<ImageTerms>) -> Option<&'a Entry> {
    let (variants, plain): (Vec<_>, Vec<_>) = entries.partition(|entry| entry.image.is_some());
    let fitting = image.and_then(|terms| {
        let fits = |entry: &&&Entry| entry.image.as_ref().is_some_and(|variant| variant.fits(terms));
        let rank = |entry: &&&Entry| entry.image.as_ref().map(ImageVariant::rank);
        variants.iter().filter(fits).min_by_key(rank).copied()
    });
    // An image larger than every variant costs what the largest does.
    let largest = || variants.iter().max_by_key(|entry| entry.image.as_ref().map(ImageVariant::rank)).copied();
    fitting.or_else(|| plain.first().copied()).or_else(largest)
}

impl ImageVariant {
    fn fits(&self, terms: ImageTerms) -> bool {
        let (width, height) = self.size_max();
        let premium = self.quality.as_deref() == Some("premium");
        let right_quality = self.quality.is_none() || premium == terms.premium;
        terms.width_px <= width && terms.height_px <= height && terms.steps <= self.steps_max() && right_quality
    }

    fn rank(&self) -> (u64, u64) {
        let (width, height) = self.size_max();
        (width.saturating_mul(height), self.steps_max())
    }

    fn size_max(&self) -> (u64, u64) {
        let sides = self.size.as_deref().and_then(|size| size.split_once('x'));
        sides.and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?))).unwrap_or((u64::MAX, u64::MAX))
    }

    fn steps_max(&self) -> u64 {
        self.steps
            .as_ref()
            .and_then(|steps| steps.as_u64().or_else(|| steps.as_str()?.parse().ok()))
            .unwrap_or(u64::MAX)
    }
}

impl Entry {
    fn cost(&self, call: &Call<'_>) -> Option<u128> {
        let usage = call.usage;
        let total_input = usage.total_input();
        let reached = self.above.iter().filter(|above| total_input > above.tokens).max_by_key(|above| above.tokens);
        let mut sum = 0_u128;
        for (name, tokens) in [
            ("input", usage.input),
            ("output", usage.output),
            ("cache_read", usage.cache_read),
            ("cache_write_5m", usage.cache_write_5m),
            ("cache_write_1h", usage.cache_write_1h),
            ("audio_input", usage.audio_input),
            ("audio_output", usage.audio_output),
            ("image_input", usage.image_input),
        ] {
            if tokens == 0 || self.is_unbilled(name) {
                continue;
            }
            let part = self.token_amount(name, call, reached)?.checked_mul(u128::from(tokens))?;
            sum = sum.checked_add(part)?;
        }
        for (name, count, places) in [
            ("image_in", usage.images_in, PLACES),
            ("image_out", usage.images_out, PLACES),
            ("query", usage.queries, PLACES),
            ("video_input_second", usage.video_input_ms, PLACES - 3),
            ("audio_input_second", usage.audio_input_ms, PLACES - 3),
            ("video_output_second", usage.video_output_ms, PLACES - 3),
        ] {
            if count > 0 {
                let rate = amount(self.per_unit.get(name)?, places)?;
                sum = sum.checked_add(rate.checked_mul(u128::from(count))?)?;
            }
        }
        Some(sum)
    }

    /// A model that is priced by media seconds, images or queries and has no rate for prompt tokens does not bill them.
    fn is_unbilled(&self, name: &str) -> bool {
        name == "input" && !self.per_million.contains_key("input") && !self.per_unit.is_empty()
    }

    fn token_rate<'a>(&'a self, name: &str, tier: &str, reached: Option<&'a Above>) -> Option<&'a String> {
        let long = reached.and_then(|above| above.tiers.get(tier).and_then(|rates| rates.get(name)));
        long.or_else(|| reached.and_then(|above| above.per_million.get(name)))
            .or_else(|| self.tiers.get(tier).and_then(|rates| rates.get(name)))
            .or_else(|| self.per_million.get(name))
    }

    /// The rate of a token dimension in 10⁻²¹ dollars. What the file does not list follows the rules in its head: cache
    /// reads and writes cost what input does, an hour's write twice that where five minutes have a rate of their own.
    fn token_amount(&self, name: &str, call: &Call<'_>, reached: Option<&Above>) -> Option<u128> {
        let listed = |name: &str| self.token_rate(name, call.tier, reached).and_then(|rate| amount(rate, PLACES - 6));
        listed(name).or_else(|| match name {
            "cache_write_1h" if listed("cache_write_5m").is_some() => listed("input")?.checked_mul(2),
            "cache_read" | "cache_write_5m" | "cache_write_1h" | "image_input" => listed("input"),
            _ => None,
        })
    }
}

fn guardrail_cost(rates: &Rates, units: &GuardrailUnits) -> Option<u128> {
    let mut sum = 0_u128;
    for (name, count) in [
        ("topic", units.topic),
        ("content", units.content),
        ("content_image", units.content_image),
        ("word", units.word),
        ("sensitive_information", units.sensitive_information),
        ("sensitive_information_free", units.sensitive_information_free),
        ("contextual_grounding", units.contextual_grounding),
        ("automated_reasoning", units.automated_reasoning),
    ] {
        if count > 0 {
            sum = sum.checked_add(amount(rates.get(name)?, PLACES)?.checked_mul(u128::from(count))?)?;
        }
    }
    Some(sum)
}

/// A decimal text as an integer of `places` decimals; `None` if it is none or has more.
fn amount(text: &str, places: usize) -> Option<u128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits_only = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() && fraction.is_empty()
        || !digits_only(whole)
        || !digits_only(fraction)
        || fraction.len() > places
    {
        return None;
    }
    format!("{whole}{fraction:0<places$}").parse().ok()
}

#[cfg(test)]
mod tests;

//! The prices that a configuration sets for a deployment (`model_info`), over those of the book.
//!
//! Field names are those of `LiteLLM`, so that an existing configuration keeps its meaning: dollars per single
//! token, image, second or query, `_above_200k_tokens` for long prompts, `_flex`, `_priority`, `_batches` and
//! `_ultrafast` for tiers. A field that is not set keeps the price of the book; nothing is derived from another field.

use std::fmt;
use std::sync::LazyLock;

use super::rates::{Dimension, Price, PricedTier, Quote};
use crate::types::money::{Rate, RateError};

/// Prices that a deployment sets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PriceOverride(Vec<(Slot, Rate)>);

/// Where in a [`Price`] a field belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    dimension: Dimension,
    /// The long-context threshold, in tokens.
    above: Option<u64>,
    tier: Option<PricedTier>,
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldError {
    /// No price is called that.
    Unknown,
    /// The name is written twice.
    Twice,
    Amount(RateError),
}

/// Prices per token, which exist for every threshold and tier.
const TOKEN_FIELDS: [(&str, Dimension); 8] = [
    ("input_cost_per_token", Dimension::Input),
    ("output_cost_per_token", Dimension::Output),
    ("cache_read_input_token_cost", Dimension::CacheRead),
    ("cache_creation_input_token_cost", Dimension::CacheWrite5m),
    ("cache_creation_input_token_cost_above_1hr", Dimension::CacheWrite1h),
    ("input_cost_per_audio_token", Dimension::AudioInput),
    ("output_cost_per_audio_token", Dimension::AudioOutput),
    ("input_cost_per_image_token", Dimension::ImageInput),
];

const UNIT_FIELDS: [(&str, Dimension); 7] = [
    ("output_cost_per_image", Dimension::ImageOut),
    ("input_cost_per_image", Dimension::ImageIn),
    ("input_cost_per_video_per_second", Dimension::VideoInputSecond),
    ("input_cost_per_audio_per_second", Dimension::AudioInputSecond),
    ("output_cost_per_video_per_second", Dimension::VideoOutputSecond),
    ("input_cost_per_query", Dimension::Query),
    // Provisioned throughput: taken, because files name it, but never the price of a call.
    ("input_cost_per_second", Dimension::ProvisionedSecond),
];

/// Thresholds that published prices have used, in thousands of tokens.
const THRESHOLDS_K: [u64; 6] = [100, 128, 200, 256, 272, 512];

const TIERS: [(&str, PricedTier); 4] = [
    ("_flex", PricedTier::Flex),
    ("_priority", PricedTier::Priority),
    ("_batches", PricedTier::Batch),
    ("_ultrafast", PricedTier::Ultrafast),
];

static FIELDS: LazyLock<Vec<(String, Slot)>> = LazyLock::new(|| {
    let thresholds: Vec<_> = std::iter::once((String::new(), None))
        .chain(THRESHOLDS_K.map(|k| (format!("_above_{k}k_tokens"), Some(k * 1000))))
        .collect();
    let tiers = std::iter::once(("", None)).chain(TIERS.map(|(suffix, tier)| (suffix, Some(tier))));
    let tiers: Vec<_> = tiers.collect();
    let mut fields = Vec::new();
    for (name, dimension) in TOKEN_FIELDS {
        for (above_suffix, above) in &thresholds {
            for (tier_suffix, tier) in &tiers {
                let slot = Slot { dimension, above: *above, tier: *tier };
                fields.push((format!("{name}{above_suffix}{tier_suffix}"), slot));
            }
        }
    }
    let unit = |(name, dimension): (&str, Dimension)| (name.to_owned(), Slot { dimension, above: None, tier: None });
    fields.extend(UNIT_FIELDS.map(unit));
    fields
});

static NAMES: LazyLock<Vec<&'static str>> = LazyLock::new(|| FIELDS.iter().map(|(name, _)| name.as_str()).collect());

impl PriceOverride {
    /// Reads fields as `(name, decimal text as written)`: `("input_cost_per_token", "3e-06")`.
    ///
    /// # Errors
    /// Every field that is no price, is written twice, or whose text is no exact decimal.
    pub fn from_fields(fields: &[(&str, &str)]) -> Result<Self, Vec<(String, FieldError)>> {
        let mut set = Self::default();
        let mut problems = Vec::new();
        for (name, text) in fields {
            match set.read(name, text) {
                Ok(()) => {}
                Err(error) => problems.push(((*name).to_owned(), error)),
            }
        }
        if problems.is_empty() { Ok(set) } else { Err(problems) }
    }

    /// The names of all fields.
    #[must_use]
    pub fn known_fields() -> &'static [&'static str] {
        &NAMES
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets the fields in `price`; what is not set stays.
    pub fn apply(&self, price: &mut Price) {
        for (slot, rate) in &self.0 {
            if slot.dimension == Dimension::ImageOut {
                // One price for all images: the listed variants no longer hold.
                price.images.clear();
            }
            if slot.dimension.quote() == Quote::Million {
                price.above_mut(slot.above).tier_mut(slot.tier).set(slot.dimension, *rate);
            } else {
                price.units.set(slot.dimension, *rate);
            }
        }
    }

    fn read(&mut self, name: &str, text: &str) -> Result<(), FieldError> {
        let (_, slot) = FIELDS.iter().find(|(known, _)| known == name).ok_or(FieldError::Unknown)?;
        if self.0.iter().any(|(set, _)| set == slot) {
            return Err(FieldError::Twice);
        }
        self.0.push((*slot, Rate::from_usd_per_unit(text).map_err(FieldError::Amount)?));
        Ok(())
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("is not the name of a price"),
            Self::Twice => f.write_str("is written twice"),
            Self::Amount(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for FieldError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(fields: &[(&str, &str)], base: &Price) -> Price {
        let mut price = base.clone();
        PriceOverride::from_fields(fields).unwrap().apply(&mut price);
        price
    }

    #[test]
    fn fields_land_where_their_names_say() {
        let price = applied(
            &[
                ("input_cost_per_token", "3e-06"),
                ("input_cost_per_token_above_200k_tokens", "6e-06"),
                ("cache_creation_input_token_cost_above_1hr", "0.000006"),
                ("cache_creation_input_token_cost_above_1hr_above_200k_tokens_flex", "0.000005"),
                ("output_cost_per_token_batches", "7.5e-06"),
                ("input_cost_per_query", "0.002"),
            ],
            &Price::default(),
        );
        for (dimension, total, tier, expected) in [
            (Dimension::Input, 200_000, None, Some(3_000_000_000)),
            (Dimension::Input, 200_001, None, Some(6_000_000_000)),
            (Dimension::CacheWrite1h, 0, None, Some(6_000_000_000)),
            (Dimension::CacheWrite1h, 200_001, Some(PricedTier::Flex), Some(5_000_000_000)),
            (Dimension::Output, 0, Some(PricedTier::Batch), Some(7_500_000_000)),
            (Dimension::Output, 0, None, None),
            (Dimension::Query, 0, None, Some(2_000_000_000_000)),
        ] {
            assert_eq!(price.listed(dimension, total, tier), expected.map(Rate), "{dimension:?} {total} {tier:?}");
        }
    }

    #[test]
    fn what_is_not_set_keeps_the_price_of_the_book() {
        let base = applied(&[("input_cost_per_token", "1e-06"), ("output_cost_per_token", "2e-06")], &Price::default());
        let price = applied(&[("input_cost_per_token", "0")], &base);
        assert_eq!(price.listed(Dimension::Input, 0, None), Some(Rate(0)));
        assert_eq!(price.listed(Dimension::Output, 0, None), Some(Rate(2_000_000_000)));
    }

    #[test]
    fn every_bad_field_is_told() {
        let fields = [
            ("input_cost_per_tokn", "1"),
            ("output_cost_per_token", "cheap"),
            ("input_cost_per_token", "-1"),
            ("input_cost_per_query", "1"),
            ("input_cost_per_query", "1"),
        ];
        let problems = PriceOverride::from_fields(&fields).unwrap_err();
        let problems: Vec<_> = problems.iter().map(|(name, error)| (name.as_str(), error.clone())).collect();
        assert_eq!(
            problems,
            [
                ("input_cost_per_tokn", FieldError::Unknown),
                ("output_cost_per_token", FieldError::Amount(RateError::NotANumber)),
                ("input_cost_per_token", FieldError::Amount(RateError::Negative)),
                ("input_cost_per_query", FieldError::Twice),
            ]
        );
    }

    #[test]
    fn every_known_field_can_be_set_and_no_two_share_a_place() {
        let names = PriceOverride::known_fields();
        assert_eq!(names.len(), 8 * 7 * 5 + 7);
        let all: Vec<_> = names.iter().map(|name| (*name, "1e-06")).collect();
        assert_eq!(PriceOverride::from_fields(&all).unwrap().0.len(), names.len());
    }
}

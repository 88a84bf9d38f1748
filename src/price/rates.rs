//! The price of one model: a rate for each dimension AWS bills, by service tier and by length of the prompt.
//!
//! It only answers what is *listed*; `cost.rs` decides what a dimension costs that is not. Dimensions are those of
//! AWS's price lists for Bedrock (collected 2026-11-22); no set of rates there has more than eight, so sets are lists.

use std::sync::Arc;

use crate::types::money::Rate;
use crate::types::usage::{Latency, Terms, Tier};

/// Something AWS bills by quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dimension {
    Input,
    Output,
    CacheRead,
    CacheWrite5m,
    CacheWrite1h,
    AudioInput,
    AudioOutput,
    ImageInput,
    ImageOut,
    ImageIn,
    VideoInputSecond,
    AudioInputSecond,
    VideoOutputSecond,
    Query,
    /// One second of one model unit of provisioned throughput; never part of an on-demand call.
    ProvisionedSecond,
    /// One web search, by the size of its context. Bedrock's answers do not count searches.
    WebSearchLow,
    WebSearchMedium,
    WebSearchHigh,
    GuardrailTopic,
    GuardrailContent,
    GuardrailContentImage,
    GuardrailWord,
    GuardrailSensitiveInformation,
    GuardrailSensitiveInformationFree,
    GuardrailContextualGrounding,
    GuardrailAutomatedReasoning,
}

/// In which unit a dimension is quoted, and under which key of the price book.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quote {
    /// `per_million`: dollars per million tokens.
    Million,
    /// `per_unit`: dollars per image, second, query.
    Unit,
    /// `guardrail_per_unit`: dollars per text unit or image that a guardrail policy processed.
    Guardrail,
}

impl Dimension {
    pub const ALL: [Self; 26] = [
        Self::Input,
        Self::Output,
        Self::CacheRead,
        Self::CacheWrite5m,
        Self::CacheWrite1h,
        Self::AudioInput,
        Self::AudioOutput,
        Self::ImageInput,
        Self::ImageOut,
        Self::ImageIn,
        Self::VideoInputSecond,
        Self::AudioInputSecond,
        Self::VideoOutputSecond,
        Self::Query,
        Self::ProvisionedSecond,
        Self::WebSearchLow,
        Self::WebSearchMedium,
        Self::WebSearchHigh,
        Self::GuardrailTopic,
        Self::GuardrailContent,
        Self::GuardrailContentImage,
        Self::GuardrailWord,
        Self::GuardrailSensitiveInformation,
        Self::GuardrailSensitiveInformationFree,
        Self::GuardrailContextualGrounding,
        Self::GuardrailAutomatedReasoning,
    ];

    /// The name in the price book; also the label of metrics and logs. Unique over all quotes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
            Self::CacheRead => "cache_read",
            Self::CacheWrite5m => "cache_write_5m",
            Self::CacheWrite1h => "cache_write_1h",
            Self::AudioInput => "audio_input",
            Self::AudioOutput => "audio_output",
            Self::ImageInput => "image_input",
            Self::ImageOut => "image_out",
            Self::ImageIn => "image_in",
            Self::VideoInputSecond => "video_input_second",
            Self::AudioInputSecond => "audio_input_second",
            Self::VideoOutputSecond => "video_output_second",
            Self::Query => "query",
            Self::ProvisionedSecond => "provisioned_second",
            Self::WebSearchLow => "web_search_low",
            Self::WebSearchMedium => "web_search_medium",
            Self::WebSearchHigh => "web_search_high",
            Self::GuardrailTopic => "topic",
            Self::GuardrailContent => "content",
            Self::GuardrailContentImage => "content_image",
            Self::GuardrailWord => "word",
            Self::GuardrailSensitiveInformation => "sensitive_information",
            Self::GuardrailSensitiveInformationFree => "sensitive_information_free",
            Self::GuardrailContextualGrounding => "contextual_grounding",
            Self::GuardrailAutomatedReasoning => "automated_reasoning",
        }
    }

    #[must_use]
    pub const fn quote(self) -> Quote {
        match self {
            Self::Input
            | Self::Output
            | Self::CacheRead
            | Self::CacheWrite5m
            | Self::CacheWrite1h
            | Self::AudioInput
            | Self::AudioOutput
            | Self::ImageInput => Quote::Million,
            Self::ImageOut
            | Self::ImageIn
            | Self::VideoInputSecond
            | Self::AudioInputSecond
            | Self::VideoOutputSecond
            | Self::Query
            | Self::ProvisionedSecond
            | Self::WebSearchLow
            | Self::WebSearchMedium
            | Self::WebSearchHigh => Quote::Unit,
            Self::GuardrailTopic
            | Self::GuardrailContent
            | Self::GuardrailContentImage
            | Self::GuardrailWord
            | Self::GuardrailSensitiveInformation
            | Self::GuardrailSensitiveInformationFree
            | Self::GuardrailContextualGrounding
            | Self::GuardrailAutomatedReasoning => Quote::Guardrail,
        }
    }
}

/// Conditions with rates of their own. `Terms` that have none are billed at the default rates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PricedTier {
    Flex,
    Priority,
    Batch,
    Ultrafast,
    /// `performanceConfig.latency: optimized`. AWS's lists of 2026-11-22 name no such rate; a book may.
    Optimized,
}

impl PricedTier {
    pub const ALL: [Self; 5] = [Self::Flex, Self::Priority, Self::Batch, Self::Ultrafast, Self::Optimized];

    /// The name in the price book.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Flex => "flex",
            Self::Priority => "priority",
            Self::Batch => "batch",
            Self::Ultrafast => "ultrafast",
            Self::Optimized => "optimized",
        }
    }

    /// The tier whose rates apply under `terms`. Reserved capacity is bought apart by the month; its calls count at the
    /// default rates, at which AWS bills what overflows the reservation.
    #[must_use]
    pub const fn of(terms: &Terms) -> Option<Self> {
        match (terms.tier, terms.latency) {
            (Tier::Flex, _) => Some(Self::Flex),
            (Tier::Priority, _) => Some(Self::Priority),
            (Tier::Batch, _) => Some(Self::Batch),
            (Tier::Ultrafast, _) => Some(Self::Ultrafast),
            (Tier::Default | Tier::Reserved, Latency::Optimized) => Some(Self::Optimized),
            (Tier::Default | Tier::Reserved, Latency::Standard) => None,
        }
    }
}

/// Rates by dimension.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Rates(Vec<(Dimension, Rate)>);

impl Rates {
    pub(super) fn of(&self, dimension: Dimension) -> Option<Rate> {
        self.0.iter().find(|(listed, _)| *listed == dimension).map(|(_, rate)| *rate)
    }

    pub(super) fn set(&mut self, dimension: Dimension, rate: Rate) {
        match self.0.iter_mut().find(|(listed, _)| *listed == dimension) {
            Some((_, listed)) => *listed = rate,
            None => self.0.push((dimension, rate)),
        }
    }

    pub(super) fn take(&mut self, dimension: Dimension) -> Option<Rate> {
        let at = self.0.iter().position(|(listed, _)| *listed == dimension)?;
        Some(self.0.swap_remove(at).1)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn sum(&self) -> u128 {
        self.0.iter().map(|(_, rate)| u128::from(rate.0)).sum()
    }
}

/// The token rates of one range of prompt lengths.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Bracket {
    pub(super) rates: Rates,
    tiers: Vec<(PricedTier, Rates)>,
}

impl Bracket {
    /// The rates of a tier, to be filled in.
    pub(super) fn tier_mut(&mut self, tier: Option<PricedTier>) -> &mut Rates {
        let Some(tier) = tier else { return &mut self.rates };
        let at = self.tiers.iter().position(|(listed, _)| *listed == tier).unwrap_or_else(|| {
            self.tiers.push((tier, Rates::default()));
            self.tiers.len() - 1
        });
        match self.tiers.get_mut(at) {
            Some((_, rates)) => rates,
            None => &mut self.rates,
        }
    }

    /// The tier's rate, else the default one.
    fn of(&self, dimension: Dimension, tier: Option<PricedTier>) -> Option<Rate> {
        let own = self.tiers.iter().find(|(listed, _)| Some(*listed) == tier);
        own.and_then(|(_, rates)| rates.of(dimension)).or_else(|| self.rates.of(dimension))
    }
}

/// The price of images up to a size, a number of steps and a quality.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ImageVariant {
    /// Most pixels it covers; `None` covers any size.
    pub(super) pixels_max: Option<u64>,
    /// Most diffusion steps it covers; `None` covers any.
    pub(super) steps_max: Option<u32>,
    /// Whether it is the price of premium quality only (`Some(true)`), of standard only, or of both.
    pub(super) premium: Option<bool>,
    pub(super) rate: Rate,
}

impl ImageVariant {
    /// Whether both price the same images.
    pub(super) fn same_images(&self, other: &Self) -> bool {
        (self.pixels_max, self.steps_max, self.premium) == (other.pixels_max, other.steps_max, other.premium)
    }
}

/// Everything AWS lists for one model in one place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Price {
    /// `chat`, `embedding`, `image_generation` …
    pub mode: Option<Arc<str>>,
    /// The context window, in tokens.
    pub max_input_tokens: Option<u64>,
    /// The longest answer, in tokens.
    pub max_output_tokens: Option<u64>,
    /// Prompts with fewer tokens are not cached.
    pub prompt_cache_min_tokens: Option<u64>,
    /// The day AWS retires the model, `2026-09-30`.
    pub deprecated: Option<Arc<str>>,
    pub(super) base: Bracket,
    /// Long-context rates by threshold, ascending: they apply above it, to the whole call.
    pub(super) above: Vec<(u64, Bracket)>,
    pub(super) units: Rates,
    pub(super) images: Vec<ImageVariant>,
    /// Guardrails are billed beside the model, at the same rates with every model.
    pub(super) guardrail: Arc<Rates>,
}

impl Price {
    /// The listed rate of a dimension for a call with `total_input` prompt tokens, cached or not, under a tier.
    ///
    /// The longest bracket that the prompt exceeds wins, and in it the tier; a rate it does not list is that of the
    /// shorter one. So a tier without a rate of its own is billed at the default rate: AWS lists no cache rates for
    /// most batch prices, and the default is what a cached token costs at most there. For `priority`, `ultrafast` and
    /// `optimized`, which are dearer, that would be too little; the book of 2026-11-22 lists theirs wherever it lists
    /// the tier at all, but for audio tokens.
    #[must_use]
    pub fn listed(&self, dimension: Dimension, total_input: u64, tier: Option<PricedTier>) -> Option<Rate> {
        match dimension.quote() {
            Quote::Million => self
                .above
                .iter()
                .rev()
                .filter(|(threshold, _)| total_input > *threshold)
                .map(|(_, bracket)| bracket)
                .chain([&self.base])
                .find_map(|bracket| bracket.of(dimension, tier)),
            Quote::Unit => self.units.of(dimension),
            Quote::Guardrail => self.guardrail.of(dimension),
        }
    }

    /// The lengths of a prompt, in tokens, above which other rates apply; ascending.
    pub fn long_context_thresholds(&self) -> impl Iterator<Item = u64> + '_ {
        self.above.iter().map(|(threshold, _)| *threshold)
    }

    /// Whether the model draws images, which AWS bills by the image alone: neither prompt nor answer tokens.
    #[must_use]
    pub fn draws_images(&self) -> bool {
        !self.images.is_empty() || self.units.of(Dimension::ImageOut).is_some()
    }

    /// The long-context bracket of a threshold, made where there is none.
    pub(super) fn above_mut(&mut self, threshold: Option<u64>) -> &mut Bracket {
        let Some(threshold) = threshold else { return &mut self.base };
        let at = self.above.partition_point(|(listed, _)| *listed < threshold);
        if self.above.get(at).is_none_or(|(listed, _)| *listed != threshold) {
            self.above.insert(at, (threshold, Bracket::default()));
        }
        match self.above.get_mut(at) {
            Some((_, bracket)) => bracket,
            None => &mut self.base,
        }
    }

    /// Whether it lists nothing to bill by.
    pub(super) fn is_empty(&self) -> bool {
        self.images.is_empty() && self.is_variants_only()
    }

    /// Whether it lists nothing to bill by but image variants.
    pub(super) fn is_variants_only(&self) -> bool {
        self.base.rates.is_empty() && self.units.is_empty()
    }

    /// Orders prices of one model by how dear they are. AWS scales all rates of a geography alike, so the sum of the
    /// default rates orders them as each rate would.
    pub(super) fn dearness(&self) -> u128 {
        let images: u128 = self.images.iter().map(|variant| u128::from(variant.rate.0)).sum();
        self.base.rates.sum() + self.units.sum() + images
    }
}

/// The area that AWS's size classes compare: 1536x640 is billed as "up to 1024x1024".
pub(super) fn pixels(width_px: u32, height_px: u32) -> u64 {
    u64::from(width_px) * u64::from(height_px)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dimension_names_are_unique_and_all_listed() {
        let mut names: Vec<_> = Dimension::ALL.iter().map(|dimension| dimension.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Dimension::ALL.len());
    }

    #[test]
    fn the_longest_exceeded_bracket_wins_and_gaps_fall_back() {
        let mut price = Price::default();
        price.above_mut(None).tier_mut(None).set(Dimension::Input, Rate(1));
        price.above_mut(None).tier_mut(None).set(Dimension::Output, Rate(9));
        price.above_mut(Some(300)).tier_mut(None).set(Dimension::Input, Rate(3));
        price.above_mut(Some(200)).tier_mut(None).set(Dimension::Input, Rate(2));
        price.above_mut(Some(200)).tier_mut(Some(PricedTier::Flex)).set(Dimension::Input, Rate(5));
        let input = |total, tier| price.listed(Dimension::Input, total, tier).unwrap().0;
        assert_eq!([input(200, None), input(201, None), input(300, None), input(301, None)], [1, 2, 2, 3]);
        assert_eq!([input(200, Some(PricedTier::Flex)), input(201, Some(PricedTier::Flex))], [1, 5]);
        assert_eq!(price.listed(Dimension::Output, 999, Some(PricedTier::Priority)), Some(Rate(9)));
        assert_eq!(price.listed(Dimension::CacheRead, 0, None), None);
    }
}

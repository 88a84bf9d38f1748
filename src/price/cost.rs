//! What one call costs: the quantities that AWS bills times the listed rates, rounded up once to a nano-dollar.
//!
//! A quantity without a listed rate is never free: it is priced by a rule that is written here, or the call is
//! [`Unpriced`]. The tier and the latency mode are those the response states. AWS documents or measurements behind the
//! rules stand with them; the rates are AWS's list prices of 2026-11-22.

use std::fmt;

use super::rates::{Dimension, Price, PricedTier, pixels};
use crate::types::money::{NanoUsd, Rate, round_up};
use crate::types::usage::{ImageTerms, Terms, Usage};

/// A call used something that the price does not list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Unpriced {
    pub dimension: Dimension,
}

impl fmt::Display for Unpriced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the model has no price for {}", self.dimension.name())
    }
}

impl std::error::Error for Unpriced {}

/// The cost of `usage` at `price` under `terms`. A sum over 2⁶⁴ nano-dollars saturates.
///
/// # Errors
/// When something was used that has no price.
pub fn cost(price: &Price, usage: &Usage, terms: &Terms) -> Result<NanoUsd, Unpriced> {
    let tier = PricedTier::of(terms);
    let bill = Bill { price, usage, tier, total_input: usage.total_input().0 };
    let parts = [bill.tokens()?, bill.images(terms.image.as_ref())?, bill.media()?, bill.units()?];
    Ok(round_up(parts.into_iter().fold(0, u128::saturating_add)))
}

/// One call on its way to its cost. Parts are in millionths of a nano-dollar, as [`Rate::times`] counts.
struct Bill<'a> {
    price: &'a Price,
    usage: &'a Usage,
    tier: Option<PricedTier>,
    /// Decides the long-context rates.
    total_input: u64,
}

impl Bill<'_> {
    fn listed(&self, dimension: Dimension) -> Option<Rate> {
        self.price.listed(dimension, self.total_input, self.tier)
    }

    fn tokens(&self) -> Result<u128, Unpriced> {
        let usage = self.usage;
        let parts = [
            (Dimension::Input, usage.input.0),
            (Dimension::Output, usage.output.0),
            (Dimension::CacheRead, usage.cache_read.0),
            (Dimension::CacheWrite5m, usage.cache_write_5m.0),
            (Dimension::CacheWrite1h, usage.cache_write_1h.0),
            (Dimension::AudioInput, usage.audio_input.0),
            (Dimension::AudioOutput, usage.audio_output.0),
            (Dimension::ImageInput, usage.image_input.0),
        ];
        sum(parts, |dimension| match dimension {
            Dimension::Input => self.input(),
            Dimension::Output => self.listed(dimension).or_else(|| self.price.draws_images().then_some(Rate(0))),
            // Without a listed discount, cached tokens are billed as the prompt tokens they are.
            Dimension::CacheRead | Dimension::CacheWrite5m => self.listed(dimension).or_else(|| self.input()),
            Dimension::CacheWrite1h => self.cache_write_1h(self.input()),
            Dimension::ImageInput => self.image_token(self.input()),
            _ => self.listed(dimension),
        })
    }

    fn input(&self) -> Option<Rate> {
        self.listed(Dimension::Input).or_else(|| self.bills_prompts_by_the_piece().then_some(Rate(0)))
    }

    /// Twice the input rate where only the five-minute rate is listed: AWS bills long writes at 2 and short ones at
    /// 1.25 times the input, and all 132 entries of the book that list both do so exactly. A model without a
    /// five-minute rate (Nova) has no premium on cache writes, so its writes are input.
    fn cache_write_1h(&self, input: Option<Rate>) -> Option<Rate> {
        self.listed(Dimension::CacheWrite1h).or_else(|| match (self.listed(Dimension::CacheWrite5m), input) {
            (Some(short), Some(Rate(input))) => Some(short.max(Rate(input.saturating_mul(2)))),
            (short, input) => short.or(input),
        })
    }

    /// Tokens that stand for images are not billed beside the images themselves, and else are prompt tokens.
    fn image_token(&self, input: Option<Rate>) -> Option<Rate> {
        let by_the_image = self.usage.images_in > 0 && self.listed(Dimension::ImageIn).is_some();
        self.listed(Dimension::ImageInput).or(if by_the_image { Some(Rate(0)) } else { input })
    }

    /// Whether AWS bills the prompt of this call in another unit: always with models that draw images, and with
    /// embedding and video models (Marengo, Pegasus) by what they read. If nothing of that was reported, the call is
    /// unpriced rather than free.
    fn bills_prompts_by_the_piece(&self) -> bool {
        let usage = self.usage;
        let pieces = [
            (Dimension::ImageIn, usage.images_in),
            (Dimension::VideoInputSecond, usage.video_input_ms),
            (Dimension::AudioInputSecond, usage.audio_input_ms),
            (Dimension::Query, usage.queries),
        ];
        self.price.draws_images()
            || pieces.into_iter().any(|(dimension, count)| count > 0 && self.listed(dimension).is_some())
    }

    fn images(&self, terms: Option<&ImageTerms>) -> Result<u128, Unpriced> {
        let parts = [(Dimension::ImageOut, self.usage.images_out), (Dimension::ImageIn, self.usage.images_in)];
        sum(parts, |dimension| match dimension {
            Dimension::ImageOut => image_rate(self.price, terms),
            // Models that draw bill the result; a picture to start from is part of the prompt.
            _ => self.listed(dimension).or_else(|| self.price.draws_images().then_some(Rate(0))),
        })
    }

    /// Sound and pictures by their length, to the millisecond.
    fn media(&self) -> Result<u128, Unpriced> {
        let usage = self.usage;
        let parts = [
            (Dimension::VideoInputSecond, usage.video_input_ms),
            (Dimension::AudioInputSecond, usage.audio_input_ms),
            (Dimension::VideoOutputSecond, usage.video_output_ms),
        ];
        // Rounding up here and again at the end gives what rounding up once would.
        Ok(sum(parts, |dimension| self.listed(dimension))?.div_ceil(1000))
    }

    fn units(&self) -> Result<u128, Unpriced> {
        let policies = &self.usage.guardrail;
        let parts = [
            (Dimension::Query, self.usage.queries),
            (Dimension::GuardrailTopic, policies.topic),
            (Dimension::GuardrailContent, policies.content),
            (Dimension::GuardrailContentImage, policies.content_image),
            (Dimension::GuardrailWord, policies.word),
            (Dimension::GuardrailSensitiveInformation, policies.sensitive_information),
            (Dimension::GuardrailSensitiveInformationFree, policies.sensitive_information_free),
            (Dimension::GuardrailContextualGrounding, policies.contextual_grounding),
            (Dimension::GuardrailAutomatedReasoning, policies.automated_reasoning),
        ];
        sum(parts, |dimension| self.listed(dimension))
    }
}

/// Quantities times rates. What was not used needs no rate, and as a rule most was not: rates are looked for last.
fn sum<const N: usize>(
    parts: [(Dimension, u64); N],
    rate: impl Fn(Dimension) -> Option<Rate>,
) -> Result<u128, Unpriced> {
    parts.into_iter().filter(|(_, count)| *count > 0).try_fold(0u128, |total, (dimension, count)| {
        let rate = rate(dimension).ok_or(Unpriced { dimension })?;
        Ok(total.saturating_add(rate.times(count)))
    })
}

/// The price of one image: that of the smallest listed variant that covers it, else the model's price for images in
/// general. An image larger than all of these, or one whose size is not known, costs what the dearest does.
fn image_rate(price: &Price, terms: Option<&ImageTerms>) -> Option<Rate> {
    let general = price.units.of(Dimension::ImageOut);
    let covering = terms.and_then(|terms| {
        let area = Some(pixels(terms.width_px, terms.height_px)).filter(|area| *area > 0);
        let fits = price.images.iter().filter(|variant| {
            variant.pixels_max.is_none_or(|max| area.is_some_and(|area| area <= max))
                && variant.steps_max.is_none_or(|max| terms.steps.is_none_or(|steps| steps <= max))
                && variant.premium.is_none_or(|premium| premium || !terms.premium)
        });
        fits.min_by_key(|variant| {
            let (pixels, steps) = (variant.pixels_max.unwrap_or(u64::MAX), variant.steps_max.unwrap_or(u32::MAX));
            (pixels, steps, variant.premium == Some(true))
        })
    });
    match covering {
        Some(variant) => Some(variant.rate),
        None => price.images.iter().map(|variant| variant.rate).chain(general).max(),
    }
}

#[cfg(test)]
mod tests;

//! The most text units that guardrails may process: in calls of their own, and inside a model call.
//!
//! Which policies a guardrail has is not known here, so every policy that has a price reads everything. Source: AWS's
//! price list (a text unit is up to 1,000 characters), GuardrailUsage and GuardrailChecksUsageResults of botocore 1.44.5.

use super::{Bound, Estimate, Unbounded};
use crate::aws::operation::Metering;
use crate::price::book::Dimension;
use crate::types::money::Rate;
use crate::types::usage::{GuardrailUnits, Usage};

/// A guardrail's text unit, in characters.
const UNIT_CHARACTERS: u64 = 1_000;
/// The longest token of known vocabularies, in characters.
pub(super) const TOKEN_CHARACTERS: u64 = 128;

impl Estimate<'_, '_> {
    pub(super) fn has_guardrail(&self) -> bool {
        self.seen.guardrail || self.question.guardrail_header
    }

    /// Units of the input: every text begins a unit of its own.
    fn input_units(&self) -> u64 {
        let images = self.seen.converse_image_bytes;
        let characters = (self.question.content.bytes().len() as u64).saturating_sub(images);
        self.seen.texts.saturating_add(characters.div_ceil(UNIT_CHARACTERS))
    }

    /// A guardrail reads the prompt, the answer, and for contextual grounding the prompt again.
    pub(super) fn guardrail_in_call(&self, output: u64) -> GuardrailUnits {
        if !self.has_guardrail() {
            return GuardrailUnits::default();
        }
        let answer = output.saturating_mul(TOKEN_CHARACTERS).div_ceil(UNIT_CHARACTERS);
        let answers = answer.saturating_add(self.seen.choices.unwrap_or(1));
        self.units(self.input_units().saturating_mul(2).saturating_add(answers))
    }

    /// So many units of every policy that has a price.
    fn units(&self, units: u64) -> GuardrailUnits {
        let images = self.seen.converse_images.saturating_add(self.seen.anthropic_images);
        let priced = |dimension, units| if self.price.listed(dimension, 0, None).is_some() { units } else { 0 };
        GuardrailUnits {
            topic: priced(Dimension::GuardrailTopic, units),
            content: priced(Dimension::GuardrailContent, units),
            content_image: priced(Dimension::GuardrailContentImage, images),
            word: priced(Dimension::GuardrailWord, units),
            sensitive_information: priced(Dimension::GuardrailSensitiveInformation, units),
            sensitive_information_free: priced(Dimension::GuardrailSensitiveInformationFree, units),
            contextual_grounding: priced(Dimension::GuardrailContextualGrounding, units),
            automated_reasoning: priced(Dimension::GuardrailAutomatedReasoning, units),
        }
    }

    pub(super) fn guardrail_byte_rate(&self) -> Rate {
        const BY_TEXT: [Dimension; 7] = [
            Dimension::GuardrailTopic,
            Dimension::GuardrailContent,
            Dimension::GuardrailWord,
            Dimension::GuardrailSensitiveInformation,
            Dimension::GuardrailSensitiveInformationFree,
            Dimension::GuardrailContextualGrounding,
            Dimension::GuardrailAutomatedReasoning,
        ];
        let rates = BY_TEXT.iter().filter_map(|dimension| self.price.listed(*dimension, 0, None));
        Rate(rates.fold(0u64, |sum, rate| sum.saturating_add(rate.0)).div_ceil(UNIT_CHARACTERS))
    }

    /// ApplyGuardrail and InvokeGuardrailChecks. The checks bill two detectors as content.
    pub(super) fn guardrail_call(&self) -> Result<Bound, Unbounded> {
        let units = self.input_units();
        let guardrail = self.units(units);
        let content = guardrail.content.saturating_mul(2);
        let guardrail = match self.question.facts.metering {
            Metering::GuardrailChecks => GuardrailUnits { content, ..guardrail },
            _ => guardrail,
        };
        let usage = Usage { guardrail, ..Usage::default() };
        self.dearest(&[usage]).map(Bound::fixed).ok_or(Unbounded::UnpricedModel)
    }
}

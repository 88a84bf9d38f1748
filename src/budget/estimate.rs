//! The most a call can cost, before it is sent: what a budget has to hold for it.
//!
//! The bound holds for every answer that keeps the limits of the request and of the model. It rests on this: a token
//! stands for at least one byte of text, and JSON takes no fewer bytes than what it means; a picture takes Claude at
//! most 5,000 tokens (Anthropic: 4,784 at the largest size); what cannot be told from the bytes is as long as the
//! context window; and the rates are the dearest that could apply. The arithmetic is that of `price::cost` itself,
//! tried on the extreme usages, so that the bound and the bill cannot drift apart.

mod body;
mod content;
mod guardrail;
mod maker;
mod place;

use std::borrow::Cow;

use self::body::{Seen, UNLIMITED};
pub use self::content::Content;
use self::guardrail::TOKEN_CHARACTERS;
use self::maker::Maker;
use self::place::Limit;
use super::command::AMOUNT_MAX;
use crate::aws::operation::{Metering, Operation};
use crate::price::book::{Dimension, Price};
use crate::price::cost;
use crate::price::rates::PricedTier;
use crate::types::money::{NanoUsd, Rate, round_up};
use crate::types::tokens::Tokens;
use crate::types::usage::{Latency, Terms, Tier, Usage};
use crate::usage::{ModelFamily, RequestFacts};

/// The most tokens of a picture for Claude.
const IMAGE_TOKENS: u64 = 5_000;
/// What Claude is told about tools beside their definitions: 530 tokens at most (Anthropic, "Tool use").
const TOOLS_TOKENS: u64 = 1_024;
/// What Claude is told about one of Anthropic's own client tools: 1,234 at most (computer use with its prompt).
const BUILT_IN_TOOL_TOKENS: u64 = 3_000;
/// The context window of a model whose window is not known, or may be lifted by a beta.
const WINDOW_TOKENS: u64 = 1_000_000;
/// The longest answer that a beta allows a model (Claude 3.7, `output-128k`).
const BETA_OUTPUT_TOKENS: u64 = 128_000;
/// With which share a conversation without a known end begins, in tokens.
const OPEN_ENDED_TOKENS: u64 = 16_384;
/// The ways in which a prompt of one length may be billed.
const SPLITS_MAX: usize = 4;

/// A call that is about to be made.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a, 'b> {
    pub operation: &'a Operation,
    pub facts: &'a RequestFacts,
    pub content: &'a Content<'b>,
    /// `X-Amzn-Bedrock-Service-Tier`
    pub tier_header: Option<&'a str>,
    /// `X-Amzn-Bedrock-PerformanceConfig-Latency`
    pub latency_header: Option<&'a str>,
    /// Whether `X-Amzn-Bedrock-GuardrailIdentifier` names a guardrail.
    pub guardrail_header: bool,
}

/// A deployment that may serve the call.
#[derive(Debug, Clone)]
pub struct Candidate<'a> {
    /// The price by which it would be settled; of ApplyGuardrail and InvokeGuardrailChecks the guardrail's.
    pub price: Option<Cow<'a, Price>>,
    /// The id that tells the family: `base_model`, else the deployment's or the client's model id.
    pub model_id: Option<&'a str>,
    /// What the operator set for the operation; settled where the usage or the price is not known.
    pub operation_price: Option<NanoUsd>,
}

/// What a call may cost and take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bound {
    /// No answer costs more.
    pub cost: NanoUsd,
    /// The part that does not depend on how long the answer is.
    pub input_cost: NanoUsd,
    /// Input and output, for limits on tokens.
    pub tokens: u64,
    pub output_tokens_max: u64,
    /// The dearest that one token of output may cost.
    pub output_rate: Rate,
    /// The conversation goes on for as long as both sides like (InvokeModelWithBidirectionalStream): `cost` is only a
    /// first share, and [`Self::so_far`] wants the bytes of both directions.
    pub open_ended: bool,
    /// The model may think without showing it, so that its output cannot be followed by its bytes.
    pub hidden_output: bool,
    /// What a guardrail may cost for each byte of the answer, at most for so many.
    guardrail_rate: Rate,
    guardrail_bytes_max: u64,
}

/// Why there is no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unbounded {
    UnpricedModel,
    /// The request does not limit its output and the model's maximum is not known.
    NoOutputLimit,
    /// The operation reports no usage and `operation_prices` has no entry for it.
    NoOperationPrice,
    /// The price depends on something that neither request nor answer states: the length of a video somewhere else, or
    /// what tools beside the model give it to read.
    Unmeasured,
    /// The body is no JSON object.
    BadBody,
    /// More than an account can count: [`AMOUNT_MAX`].
    TooLarge,
}

impl Bound {
    /// The most the call can have cost once so many bytes of content came out.
    #[must_use]
    pub fn so_far(&self, output_bytes_seen: u64) -> NanoUsd {
        if self.open_ended {
            return self.input_cost.saturating_add(round_up(self.output_rate.times(output_bytes_seen)));
        }
        if self.hidden_output {
            return self.cost;
        }
        let output = self.output_rate.times(output_bytes_seen.min(self.output_tokens_max));
        let guardrail = self.guardrail_rate.times(output_bytes_seen.min(self.guardrail_bytes_max));
        self.input_cost.saturating_add(round_up(output.saturating_add(guardrail))).min(self.cost)
    }

    /// A price that depends on nothing.
    fn fixed(cost: NanoUsd) -> Self {
        Self { cost, input_cost: cost, ..Self::default() }
    }

    /// Holds whichever of two deployments serves, or of two models.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            cost: self.cost.max(other.cost),
            input_cost: self.input_cost.max(other.input_cost),
            tokens: self.tokens.max(other.tokens),
            output_tokens_max: self.output_tokens_max.max(other.output_tokens_max),
            output_rate: self.output_rate.max(other.output_rate),
            open_ended: self.open_ended || other.open_ended,
            hidden_output: self.hidden_output || other.hidden_output,
            guardrail_rate: self.guardrail_rate.max(other.guardrail_rate),
            guardrail_bytes_max: self.guardrail_bytes_max.max(other.guardrail_bytes_max),
        }
    }
}

/// The most the call can cost, whichever of the candidates serves it. An operation's own price, where one is set, is
/// part of the bound: it is what an answer without usage costs.
///
/// # Errors
/// When there is no bound: such a call must not be made on a budget.
pub fn bound(question: &Question<'_, '_>, candidates: &[Candidate<'_>]) -> Result<Bound, Unbounded> {
    let metering = question.operation.metering;
    let nothing = Seen::default();
    let seen = match metering {
        Metering::Free => return Ok(Bound::default()),
        Metering::AgentTrace | Metering::FlowTrace | Metering::Harness | Metering::Unreported => {
            let set = candidates.iter().map(|candidate| candidate.operation_price);
            return all(
                set.map(|set| set.map(Bound::fixed).ok_or(Unbounded::NoOperationPrice)),
                Unbounded::NoOperationPrice,
            );
        }
        Metering::StartAsyncInvoke | Metering::Rerank | Metering::InvokeModelBidirectional => &nothing,
        _ => question.content.seen().ok_or(Unbounded::BadBody)?,
    };
    all(candidates.iter().map(|candidate| Estimate::of(question, seen, candidate)), Unbounded::UnpricedModel)
}

/// The bound that holds for all, or the first reason why there is none.
fn all(bounds: impl Iterator<Item = Result<Bound, Unbounded>>, none: Unbounded) -> Result<Bound, Unbounded> {
    let mut sum: Option<Bound> = None;
    for bound in bounds {
        let bound = bound?;
        sum = Some(sum.map_or(bound, |sum| sum.or(bound)));
    }
    let sum = sum.ok_or(none)?;
    if sum.cost > AMOUNT_MAX { Err(Unbounded::TooLarge) } else { Ok(sum) }
}

/// One candidate's price on its way to a bound.
struct Estimate<'a, 'b> {
    question: &'a Question<'a, 'b>,
    seen: &'a Seen,
    price: &'a Price,
    maker: Maker,
    /// Under which terms AWS may bill the call.
    terms: Vec<Terms>,
}

impl<'a, 'b> Estimate<'a, 'b> {
    fn of(question: &'a Question<'a, 'b>, seen: &'a Seen, candidate: &'a Candidate<'a>) -> Result<Bound, Unbounded> {
        let facts = question.facts;
        let set = candidate.operation_price;
        let fixed = |reason| set.map(Bound::fixed).ok_or(reason);
        let Some(price) = candidate.price.as_deref() else { return fixed(Unbounded::UnpricedModel) };
        let maker = Maker::of(candidate.model_id.or(facts.model_id.as_deref()));
        let estimate = Self { question, seen, price, maker, terms: terms(question, seen) };
        let by_request = priced_by_request(facts);
        if facts.unmeasured && (set.is_none() || by_request) {
            return fixed(Unbounded::Unmeasured);
        }
        let bound = match facts.metering {
            Metering::ApplyGuardrail | Metering::GuardrailChecks => estimate.guardrail_call(),
            Metering::InvokeModelBidirectional => estimate.conversation(),
            _ if by_request => estimate.dearest(&[estimate.pieces()]).map(Bound::fixed).ok_or(Unbounded::UnpricedModel),
            _ => estimate.tokens(),
        };
        match (bound, set) {
            (Err(Unbounded::UnpricedModel), set) => set.map(Bound::fixed).ok_or(Unbounded::UnpricedModel),
            (Ok(bound), Some(set)) => {
                Ok(Bound { cost: bound.cost.max(set), input_cost: bound.input_cost.max(set), ..bound })
            }
            (bound, _) => bound,
        }
    }

    /// The dearest of some usages under the terms that may apply. What has no price is no part of it: such an answer
    /// would be settled as one of unknown cost.
    fn dearest(&self, usages: &[Usage]) -> Option<NanoUsd> {
        let under = |terms: &Terms| usages.iter().filter_map(|usage| cost::cost(self.price, usage, terms).ok()).max();
        self.terms.iter().filter_map(under).max()
    }

    /// What the request alone decides.
    fn pieces(&self) -> Usage {
        let facts = self.question.facts;
        let draws = self.price.draws_images();
        Usage {
            images_in: facts.images_in,
            images_out: if draws { facts.images_requested.max(self.seen.images_wanted).max(1) } else { 0 },
            queries: if facts.family == ModelFamily::Tokens { 0 } else { facts.queries },
            video_input_ms: facts.video_input_ms,
            audio_input_ms: facts.audio_input_ms,
            video_output_ms: facts.video_output_ms,
            ..Usage::default()
        }
    }

    fn tokens(&self) -> Result<Bound, Unbounded> {
        if self.seen.server_tools {
            return Err(Unbounded::Unmeasured);
        }
        let input = self.input_max();
        let output = self.output_max()?;
        let pieces = self.pieces();
        let totals: Vec<u64> =
            self.price.long_context_thresholds().filter(|threshold| *threshold < input).chain([input]).collect();
        let mut usages = Vec::with_capacity(SPLITS_MAX * totals.len());
        for total in &totals {
            self.split(*total, pieces, &mut usages);
        }
        let mut answered = |output: u64| {
            let guardrail = self.guardrail_in_call(output);
            for usage in &mut usages {
                (usage.output, usage.guardrail) = (Tokens(output), guardrail);
            }
            self.dearest(&usages)
        };
        let cost = answered(output).ok_or(Unbounded::UnpricedModel)?;
        let input_cost = answered(0).unwrap_or(cost).min(cost);
        let tiers = || self.terms.iter().map(PricedTier::of);
        let listed = |dimension| {
            let of = |total: &u64| tiers().filter_map(|tier| self.price.listed(dimension, *total, tier)).max();
            totals.iter().filter_map(of).max().unwrap_or_default()
        };
        let guarded = self.has_guardrail();
        Ok(Bound {
            cost,
            input_cost,
            tokens: input.saturating_add(output),
            output_tokens_max: output,
            output_rate: listed(Dimension::Output),
            open_ended: false,
            hidden_output: self.hides_output(),
            guardrail_rate: if guarded { self.guardrail_byte_rate() } else { Rate(0) },
            guardrail_bytes_max: if guarded { output.saturating_mul(TOKEN_CHARACTERS) } else { 0 },
        })
    }

    /// The ways in which a prompt may be billed, beside `pieces`. A cost is linear in them, so that none in between is
    /// dearer.
    fn split(&self, total: u64, pieces: Usage, into: &mut Vec<Usage>) {
        let total = Tokens(total);
        let seen = self.seen;
        // Other makers' models may write to their cache without being asked.
        let writes = seen.cache_marker || self.maker != Maker::Anthropic;
        into.push(Usage { input: total, ..pieces });
        into.push(Usage { cache_read: total, ..pieces });
        if writes {
            into.push(Usage { cache_write_5m: total, ..pieces });
        }
        if seen.cache_marker && seen.cache_long {
            into.push(Usage { cache_write_1h: total, ..pieces });
        }
    }

    /// The most tokens the prompt may have.
    fn input_max(&self) -> u64 {
        let seen = self.seen;
        let facts = self.question.facts;
        let longer_by_beta = seen.beta || facts.metering == Metering::AnthropicMessages;
        let listed = self.price.max_input_tokens.unwrap_or(WINDOW_TOKENS);
        // Rates that begin where the window ends say that it may be longer.
        let longer = self.price.long_context_thresholds().any(|threshold| threshold >= listed);
        let window = if longer_by_beta || longer { listed.max(WINDOW_TOKENS) } else { listed };
        let anthropic = self.maker == Maker::Anthropic;
        let images = seen.converse_images.saturating_add(seen.anthropic_images);
        // In the format of the other API, the same base64 would be text.
        let image_bytes = match facts.metering {
            Metering::Converse | Metering::ConverseStream => seen.converse_image_bytes,
            _ => seen.anthropic_image_bytes,
        };
        let stored_prompt = facts.model_id.as_deref().is_some_and(|id| id.contains(":prompt/"));
        // Nova's embedding model reads texts from S3 too.
        let stored = stored_prompt || facts.family == ModelFamily::NovaEmbedding;
        if seen.opaque || stored || (images > 0 && !anthropic) {
            return window;
        }
        let text = (self.question.content.bytes().len() as u64).saturating_sub(image_bytes);
        let tools = if seen.tools { TOOLS_TOKENS } else { 0 };
        let built_in = seen.built_in_tools.saturating_mul(BUILT_IN_TOOL_TOKENS);
        let beside = images.saturating_mul(IMAGE_TOKENS).saturating_add(built_in);
        let tokens = text.saturating_add(tools).saturating_add(self.maker.template_tokens()).saturating_add(beside);
        // Without a listed window, the bytes are all there is to go by.
        if self.price.max_input_tokens.is_some() { tokens.min(window) } else { tokens }
    }

    /// The most tokens all answers to the prompt may have.
    fn output_max(&self) -> Result<u64, Unbounded> {
        let (facts, seen) = (self.question.facts, self.seen);
        let embeds = self.price.mode.as_deref() == Some("embedding")
            || matches!(facts.family, ModelFamily::TitanImageEmbedding | ModelFamily::NovaEmbedding);
        if embeds || self.price.draws_images() {
            return Ok(0);
        }
        let asked = match facts.metering {
            Metering::Converse | Metering::ConverseStream => {
                seen.limit(&[Limit::Inference]).map(|limit| limit.max(seen.limit(&[Limit::Additional]).unwrap_or(0)))
            }
            Metering::OpenAiChat => seen.limit(&[Limit::MaxTokens, Limit::Completion]),
            Metering::AnthropicMessages => seen.limit(&[Limit::MaxTokens]),
            Metering::OpenAiResponses => seen.limit(&[Limit::Output]),
            _ => seen.limit(self.maker.limits()),
        };
        // Elsewhere what a model thinks may come on top of what it was allowed to say.
        let thinks = seen.reasoning && !matches!(self.maker, Maker::Anthropic | Maker::Closed);
        let asked = asked.filter(|limit| *limit != UNLIMITED && !thinks);
        let model_max =
            self.price.max_output_tokens.map(|max| if seen.beta { max.max(BETA_OUTPUT_TOKENS) } else { max });
        let each = match (asked, model_max) {
            (Some(asked), Some(max)) => asked.min(max),
            (Some(asked), None) => asked,
            (None, Some(max)) => max,
            (None, None) => return Err(Unbounded::NoOutputLimit),
        };
        match seen.choices.unwrap_or(1) {
            UNLIMITED => Err(Unbounded::NoOutputLimit),
            choices => Ok(each.saturating_mul(choices)),
        }
    }

    fn hides_output(&self) -> bool {
        match self.maker {
            Maker::Closed => true,
            _ => self.seen.reasoning,
        }
    }

    /// A conversation over InvokeModelWithBidirectionalStream, of which nothing is known when it begins.
    fn conversation(&self) -> Result<Bound, Unbounded> {
        let kinds = [Dimension::Input, Dimension::Output, Dimension::AudioInput, Dimension::AudioOutput];
        let rates = kinds
            .iter()
            .flat_map(|kind| self.terms.iter().filter_map(|terms| self.price.listed(*kind, 0, PricedTier::of(terms))));
        let rate = rates.max().ok_or(Unbounded::UnpricedModel)?;
        Ok(Bound {
            cost: round_up(rate.times(OPEN_ENDED_TOKENS)),
            tokens: OPEN_ENDED_TOKENS,
            output_tokens_max: OPEN_ENDED_TOKENS,
            output_rate: rate,
            open_ended: true,
            ..Bound::default()
        })
    }
}

/// Whether the answer's tokens do not matter.
fn priced_by_request(facts: &RequestFacts) -> bool {
    match facts.metering {
        Metering::StartAsyncInvoke | Metering::Rerank => true,
        Metering::InvokeModel => match facts.family {
            ModelFamily::Marengo | ModelFamily::Rerank | ModelFamily::NovaReel | ModelFamily::LumaRay => true,
            ModelFamily::NovaEmbedding => {
                facts.unmeasured || facts.images_in > 0 || facts.video_input_ms > 0 || facts.audio_input_ms > 0
            }
            _ => false,
        },
        _ => false,
    }
}

/// The terms under which AWS may bill: always the default ones, since a tier may have no room, and those asked for. A
/// word that is none of ours may mean any of them.
fn terms(question: &Question<'_, '_>, seen: &Seen) -> Vec<Terms> {
    const TIERS: [Tier; 4] = [Tier::Flex, Tier::Priority, Tier::Reserved, Tier::Ultrafast];
    let mut tiers = vec![Tier::Default];
    for word in [question.tier_header.map(str::trim), seen.tier.as_deref()].into_iter().flatten() {
        match (word, Tier::parse(word)) {
            ("default" | "standard" | "standard_only", _) => {}
            (_, Tier::Default) => tiers.extend(TIERS),
            (_, tier) => tiers.push(tier),
        }
    }
    let optimized = seen.latency_optimized || question.latency_header.is_some_and(|word| word.trim() != "standard");
    let image = question.facts.image.as_ref();
    let of = |tier, latency| Terms { tier, latency, image: image.cloned(), invoked_model: None };
    let mut terms: Vec<Terms> = tiers.into_iter().map(|tier| of(tier, Latency::Standard)).collect();
    if optimized {
        terms.push(of(Tier::Default, Latency::Optimized));
    }
    terms
}

#[cfg(test)]
mod tests;

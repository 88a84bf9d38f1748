//! Adds up what the documents of one answer say, and judges how far it can be trusted.
//!
//! Order for a streamed InvokeModel: the model's first usage, its last usage, then `invocationMetrics`, which fills
//! what is missing and raises an output that stopped growing too early; nothing is ever added twice. Agents and
//! harnesses make several calls, and those are summed.

use super::counts::Counts;
use super::document::{Document, add_units};
use crate::types::usage::{GuardrailUnits, Latency, Terms, Tier, Usage};

/// How usage that was seen counts towards the end of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// One report ends it, and nothing after that matters.
    Once,
    /// Reports add up or grow, so the answer must also have ended properly.
    AtTheEnd,
    /// Some of what is billed is never reported: the sum is a lower bound.
    Never,
}

/// The sum over an answer.
#[expect(clippy::struct_excessive_bools, reason = "independent things that were seen or not")]
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub counts: Counts,
    pub metrics: Counts,
    pub guardrail: GuardrailUnits,
    pub guardrail_seen: bool,
    pub images: Option<u64>,
    pub content_bytes: u64,
    pub exception: Option<String>,
    /// A count was no whole number.
    pub spoilt: bool,
    /// A usage that may be the last was seen.
    pub ended: bool,
    chat_finished: bool,
    tier: Option<String>,
    latency: Option<String>,
    model: Option<String>,
    /// Calls of several models cannot be priced as one.
    pub several_models: bool,
}

impl Tally {
    /// Takes over a complete document. `sum`: its usage is that of one call among several.
    pub(super) fn absorb(&mut self, document: Document, sum: bool) {
        if sum && document.usage_seen {
            self.counts.add(&document.counts);
        } else {
            self.counts.update(&document.counts);
        }
        self.counts.add(&document.calls);
        self.metrics.update(&document.metrics);
        add_units(&mut self.guardrail, &document.guardrail);
        self.guardrail_seen |= document.guardrail_seen;
        self.images = document.images.or(self.images);
        self.content_bytes = self.content_bytes.saturating_add(document.content_bytes);
        self.spoilt |= document.spoilt;
        self.chat_finished |= document.finished;
        self.ended |= document.metrics_seen
            || document.calls_seen
            || (document.usage_seen && (!document.chat || self.chat_finished));
        self.tier = document.tier.or(self.tier.take());
        self.latency = document.latency.or(self.latency.take());
        if let Some(model) = document.model {
            self.several_models |= self.model.as_ref().is_some_and(|seen| *seen != model);
            self.model = Some(model);
        }
    }

    /// The counts of a streamed InvokeModel, its metrics considered.
    pub(super) fn counts_with_metrics(&self) -> Counts {
        let mut counts = self.counts;
        counts.fill_from(&self.metrics);
        counts.output = counts.output.max(self.metrics.output);
        counts
    }

    /// Quantities for `counts` and everything else that was seen.
    pub(super) fn usage(&self, counts: &Counts) -> Usage {
        Usage { guardrail: self.guardrail, ..counts.usage() }
    }

    /// The terms; what the header said goes first, since only AWS writes it.
    pub(super) fn terms(&self, tier: Option<Tier>, latency: Option<Latency>) -> Terms {
        Terms {
            tier: tier.or(self.tier.as_deref().map(Tier::parse)).unwrap_or_default(),
            latency: latency.or(self.latency.as_deref().map(Latency::parse)).unwrap_or_default(),
            image: None,
            invoked_model: self.model.clone().filter(|_| !self.several_models),
        }
    }
}

//! The last word on an answer: its quantities, and whether they are exact, a lower bound, or unknown.
//!
//! Unknown never reads as zero, and a lower bound never as exact; the budget charges them differently.

use super::counts::Counts;
use super::headers::Head;
use super::tally::{Ending, Tally};
use super::{BodyReader, Cause, Certainty, Metered, ModelFamily, RequestFacts};
use crate::aws::operation::Metering;
use crate::types::usage::{Terms, Usage};

/// The content of an answer that could not be read: more than any bound.
pub(super) const CONTENT_UNSEEN: u64 = u64::MAX;

/// What is known besides the body.
pub(super) struct Verdict {
    pub facts: RequestFacts,
    pub head: Head,
    pub body_bytes: u64,
}

impl Verdict {
    /// Nothing is billed: an error, or an operation that generates nothing.
    pub(super) fn unbilled(self) -> Metered {
        self.metered(Some(Usage::default()), Terms::default(), Certainty::Exact, None)
    }

    pub(super) fn unreadable(mut self, cause: Cause) -> Metered {
        if cause == Cause::Encoded {
            self.body_bytes = CONTENT_UNSEEN;
        }
        let terms = self.terms(&Tally::default());
        // Bedrock's own counts stand in the header, compressed body or not.
        if self.facts.metering == Metering::InvokeModel && self.head.suffices() {
            let usage = self.head.counts.usage();
            return self.metered(Some(usage), terms, Certainty::Exact, None);
        }
        self.metered(None, terms, Certainty::Unknown, Some(cause))
    }

    /// A model priced by its request.
    pub(super) fn priced_by_request(self) -> Metered {
        let terms = self.terms(&Tally::default());
        if self.facts.unmeasured {
            return self.metered(None, terms, Certainty::Unknown, Some(Cause::NotReported));
        }
        let usage = self.with_media(Usage::default());
        self.metered(Some(usage), terms, Certainty::Exact, None)
    }

    /// One body.
    pub(super) fn body(self, body: BodyReader) -> Metered {
        let complete = body.scanner.complete() && !body.malformed;
        let mut tally = Tally::default();
        // A usage object that is closed counts even if the rest of the body never came.
        if complete || body.document.usage_seen {
            tally.absorb(body.document, false);
        }
        let terms = self.terms(&tally);
        if tally.spoilt {
            return self.metered(None, terms, Certainty::Unknown, Some(Cause::BadCount));
        }
        let broken = if body.malformed { Cause::Malformed } else { Cause::CutShort };
        if let Metering::ApplyGuardrail | Metering::GuardrailChecks = self.facts.metering {
            return match (tally.guardrail_seen, complete) {
                (true, true) => {
                    let usage = tally.usage(&Counts::default());
                    self.metered(Some(usage), terms, Certainty::Exact, None)
                }
                (false, true) => self.metered(None, terms, Certainty::Unknown, Some(Cause::NotReported)),
                (_, false) => self.metered(None, terms, Certainty::Unknown, Some(broken)),
            };
        }
        let made_images = self.facts.makes_images() || (!tally.counts.any() && !self.head.counts.any());
        if made_images && let Some(images) = tally.images {
            let usage = Usage { images_out: images, ..tally.usage(&Counts::default()) };
            return self.metered(Some(usage), terms, Certainty::Exact, None);
        }
        if self.facts.makes_images() {
            let cause = if complete { Cause::NotReported } else { broken };
            return self.metered(None, terms, Certainty::Unknown, Some(cause));
        }
        self.body_tokens(&tally, terms, complete, broken)
    }

    fn body_tokens(self, tally: &Tally, terms: Terms, complete: bool, broken: Cause) -> Metered {
        let mut counts = tally.counts;
        if self.facts.metering == Metering::InvokeModel {
            counts.fill_from(&self.head.counts);
        }
        if !counts.any() {
            let cause = if complete { Cause::NotReported } else { broken };
            return self.metered(None, terms, Certainty::Unknown, Some(cause));
        }
        let usage = self.with_media(tally.usage(&counts));
        if self.facts.unmeasured {
            return self.metered(Some(usage), terms, Certainty::Partial, Some(Cause::LowerBound));
        }
        // Embeddings have no output count; everything else that is complete states both.
        if (complete && counts.input.is_some()) || self.head.suffices() {
            return self.metered(Some(usage), terms, Certainty::Exact, None);
        }
        let cause = if complete { Cause::NotReported } else { broken };
        self.metered(Some(usage), terms, Certainty::Partial, Some(cause))
    }

    /// A stream of events, of which `whole` says whether it can have ended where it did.
    pub(super) fn stream(self, tally: Tally, ending: Ending, whole: bool, broken: Cause) -> Metered {
        let terms = self.terms(&tally);
        let counts = tally.counts_with_metrics();
        let proper = whole && tally.exception.is_none();
        let (usage, certainty, cause) = if tally.spoilt {
            (None, Certainty::Unknown, Some(Cause::BadCount))
        } else if !counts.any() {
            let cause = if proper { Cause::NotReported } else { broken };
            (None, Certainty::Unknown, Some(cause))
        } else {
            let usage = Some(self.with_media(tally.usage(&counts)));
            let ended = match ending {
                Ending::Once => tally.ended,
                Ending::AtTheEnd => proper,
                Ending::Never => false,
            };
            if tally.several_models {
                (usage, Certainty::Partial, Some(Cause::SeveralModels))
            } else if self.facts.unmeasured || (ending == Ending::Never && proper) {
                (usage, Certainty::Partial, Some(Cause::LowerBound))
            } else if ended {
                (usage, Certainty::Exact, None)
            } else {
                (usage, Certainty::Partial, Some(broken))
            }
        };
        let mut metered = self.metered(usage, terms, certainty, cause);
        metered.output_bytes_seen = tally.content_bytes;
        metered.exception = tally.exception;
        metered
    }

    /// Adds what only the request knows.
    fn with_media(&self, usage: Usage) -> Usage {
        let facts = &self.facts;
        // A model that bills texts to embed as queries reports none, a search unit may be reported as well as derived.
        let queries =
            if facts.family == ModelFamily::Tokens { usage.queries } else { facts.queries.max(usage.queries) };
        Usage {
            images_in: facts.images_in,
            queries,
            video_input_ms: facts.video_input_ms,
            audio_input_ms: facts.audio_input_ms,
            video_output_ms: facts.video_output_ms,
            ..usage
        }
    }

    fn terms(&self, tally: &Tally) -> Terms {
        Terms { image: self.facts.image.clone(), ..tally.terms(self.head.tier, self.head.latency) }
    }

    fn metered(&self, usage: Option<Usage>, terms: Terms, certainty: Certainty, cause: Option<Cause>) -> Metered {
        Metered { usage, terms, certainty, cause, exception: None, output_bytes_seen: self.body_bytes }
    }
}

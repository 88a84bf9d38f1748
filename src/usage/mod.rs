//! Reads from an answer, while it passes by, what AWS will bill for it.
//!
//! Synchronous, never alters a byte, never fails the request: what cannot be read is [`Certainty::Unknown`], and the
//! budget decides what that costs. Memory does not grow with the answer. Money is not known here; `price` turns
//! [`Usage`] into it. Each file under `family/` says where its fields come from.

mod counts;
mod document;
mod encoded;
mod family;
mod headers;
mod json_scan;
mod request;
mod sse;
mod stream;
mod tally;
mod verdict;

pub use request::{ModelFamily, RequestFacts};

use crate::aws::operation::Metering;
use crate::types::usage::{Terms, Usage};
use document::{Document, Scanner, Site};
use encoded::Inflater;
use headers::Head;
use sse::LineReader;
use stream::EventReader;
use tally::Ending;
use verdict::Verdict;

/// What one upstream call consumed, as far as it could be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metered {
    /// `None`: unknown, which is not zero.
    pub usage: Option<Usage>,
    pub terms: Terms,
    pub certainty: Certainty,
    /// Why the certainty is not [`Certainty::Exact`].
    pub cause: Option<Cause>,
    /// `:exception-type` or `:error-code` of a stream that began with status 200.
    pub exception: Option<String>,
    /// Bytes of content that came through, for an estimate; never fewer than there were.
    pub output_bytes_seen: u64,
}

/// How far [`Metered::usage`] can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Certainty {
    /// What AWS bills.
    Exact,
    /// A lower bound: the answer ended before its final usage, or reports only part of it.
    Partial,
    Unknown,
}

/// Why usage is not exact; a label for metrics and the request record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The body is compressed in a way that is not read, or wrongly.
    Encoded,
    /// The body is not what its operation returns.
    Malformed,
    /// The answer ended before its usage.
    CutShort,
    /// The answer is complete and says nothing of usage.
    NotReported,
    /// A count was negative, fractional or no number.
    BadCount,
    /// Part of what is billed is never reported.
    LowerBound,
    /// Several models were called, each at its own price.
    SeveralModels,
}

impl Cause {
    /// A stable word for labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Encoded => "encoded",
            Self::Malformed => "malformed",
            Self::CutShort => "cut_short",
            Self::NotReported => "not_reported",
            Self::BadCount => "bad_count",
            Self::LowerBound => "lower_bound",
            Self::SeveralModels => "several_models",
        }
    }
}

/// Reads the usage of one answer. Feed it the header, then every byte of the body, then ask.
#[derive(Debug)]
pub struct UsageReader {
    facts: RequestFacts,
    head: Head,
    mode: Mode,
    inflater: Option<Box<Inflater>>,
    /// Uncompressed.
    body_bytes: u64,
    interrupted: bool,
}

/// In which form the usage comes.
#[derive(Debug)]
enum Mode {
    /// The answer is not billed.
    Nothing,
    /// The request has said all there is to say.
    FromRequest,
    Unreadable(Cause),
    Body(Box<BodyReader>),
    Events(Box<EventReader>),
    Lines(Box<LineReader>),
}

#[derive(Debug)]
struct BodyReader {
    scanner: Scanner,
    document: Document,
    malformed: bool,
}

impl UsageReader {
    #[must_use]
    pub fn new(facts: RequestFacts) -> Self {
        let mode = Mode::of(&facts);
        Self { facts, head: Head::default(), mode, inflater: None, body_bytes: 0, interrupted: false }
    }

    /// The header of the answer; call it before the first [`Self::push`]. A status that is no success bills nothing;
    /// of the content codings, `gzip` and `deflate` are read (the proxy asks AWS for `identity`).
    pub fn response_header<'h>(
        &mut self,
        status: u16,
        content_type: Option<&str>,
        content_encoding: Option<&str>,
        headers: impl Iterator<Item = (&'h str, &'h [u8])>,
    ) {
        for (name, value) in headers {
            self.head.take(name, value);
        }
        if !(200..300).contains(&status) {
            self.mode = Mode::Nothing;
        } else if content_type.is_some_and(|found| headers::is_media_type(found, "text/event-stream"))
            && let Some(sites) = surface_sites(self.facts.metering)
        {
            self.mode = Mode::Lines(Box::new(LineReader::new(sites)));
        }
        let encoding = content_encoding.map(str::trim).unwrap_or_default();
        let plain = encoding.is_empty() || encoding.eq_ignore_ascii_case("identity");
        if !plain && matches!(self.mode, Mode::Body(_) | Mode::Events(_) | Mode::Lines(_)) {
            self.inflater = Inflater::of(encoding).map(Box::new);
            if self.inflater.is_none() {
                self.mode = Mode::Unreadable(Cause::Encoded);
            }
        }
    }

    /// The next bytes of the body, cut anywhere.
    pub fn push(&mut self, bytes: &[u8]) {
        let Self { mode, inflater, body_bytes, .. } = self;
        let mut read = |bytes: &[u8]| {
            *body_bytes = body_bytes.saturating_add(bytes.len() as u64);
            mode.push(bytes);
        };
        let Some(inflater) = inflater else {
            return read(bytes);
        };
        if inflater.push(bytes, &mut read).is_err() {
            self.inflater = None;
            self.mode = Mode::Unreadable(Cause::Encoded);
        }
    }

    /// Bytes of content that came through so far, never fewer than there were: no answer has more tokens than this.
    #[must_use]
    pub fn output_bytes_seen(&self) -> u64 {
        match &self.mode {
            Mode::Events(events) => events.content_bytes(),
            Mode::Unreadable(Cause::Encoded) => verdict::CONTENT_UNSEEN,
            _ => self.body_bytes,
        }
    }

    /// How much of an event stream, from its beginning, is whole frames that were checked; 0 of any other answer.
    #[must_use]
    pub fn whole_frames_bytes(&self) -> u64 {
        match &self.mode {
            Mode::Events(events) if self.inflater.is_none() => events.whole_bytes(),
            _ => 0,
        }
    }

    /// The upstream broke off. Where a cut may fall between two events unnoticed, this keeps a sum from passing for
    /// the whole.
    pub fn interrupted(&mut self) {
        self.interrupted = true;
    }

    /// What was seen, at the end of the answer or wherever it broke.
    #[must_use]
    pub fn finish(self) -> Metered {
        let Self { facts, head, mut mode, inflater, body_bytes, interrupted } = self;
        let inflated = inflater.is_none_or(|inflater| inflater.complete());
        if let Mode::Body(body) = &mut mode {
            body.malformed |= !inflated;
        }
        let interrupted = interrupted || !inflated;
        let verdict = Verdict { facts, head, body_bytes };
        match mode {
            Mode::Nothing => verdict.unbilled(),
            Mode::FromRequest => verdict.priced_by_request(),
            Mode::Unreadable(cause) => verdict.unreadable(cause),
            Mode::Body(body) => verdict.body(*body),
            Mode::Events(events) => {
                let ending = stream::ending(verdict.facts.metering);
                let cause = if events.broken() { Cause::Malformed } else { Cause::CutShort };
                let whole = events.at_boundary() && !interrupted;
                verdict.stream(events.into_tally(), ending, whole, cause)
            }
            Mode::Lines(lines) => verdict.stream(lines.into_tally(), Ending::Once, !interrupted, Cause::CutShort),
        }
    }
}

impl Mode {
    fn push(&mut self, bytes: &[u8]) {
        match self {
            Self::Nothing | Self::FromRequest | Self::Unreadable(_) => {}
            Self::Body(body) => body.malformed |= body.scanner.push(bytes, &mut body.document).is_err(),
            Self::Events(events) => events.push(bytes),
            Self::Lines(lines) => lines.push(bytes),
        }
    }

    /// The form in which an operation answers, unless the header says otherwise.
    fn of(facts: &RequestFacts) -> Self {
        let sites = match facts.metering {
            Metering::Free => return Self::Nothing,
            Metering::Unreported => return Self::Unreadable(Cause::NotReported),
            Metering::StartAsyncInvoke | Metering::Rerank => return Self::FromRequest,
            Metering::InvokeModel if facts.priced_by_request() => return Self::FromRequest,
            Metering::Converse => family::CONVERSE,
            Metering::InvokeModel => family::INVOKE_BODY,
            Metering::ApplyGuardrail => family::APPLY_GUARDRAIL,
            Metering::GuardrailChecks => family::GUARDRAIL_CHECKS,
            metering => match (surface_sites(metering), EventReader::new(metering)) {
                (Some(sites), _) => sites,
                (None, Some(events)) => return Self::Events(Box::new(events)),
                (None, None) => return Self::Unreadable(Cause::NotReported),
            },
        };
        Self::Body(Box::new(BodyReader {
            scanner: Scanner::new(sites),
            document: Document::default(),
            malformed: false,
        }))
    }
}

/// The tables of the HTTP-only surfaces, which answer with a body or with server-sent events.
fn surface_sites(metering: Metering) -> Option<&'static [Site]> {
    match metering {
        Metering::OpenAiChat => Some(family::OPENAI_CHAT),
        Metering::OpenAiResponses => Some(family::OPENAI_RESPONSES),
        Metering::AnthropicMessages => Some(family::ANTHROPIC_MESSAGES),
        _ => None,
    }
}

#[cfg(test)]
mod tests;

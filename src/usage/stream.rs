//! Usage out of an event stream, frame by frame.
//!
//! Frames that cannot carry usage are passed over by their event type, unparsed; of content only the length is noted,
//! for an estimate should the stream break. A stream that is no event stream ends the reading, never the forwarding.
//! Source: event unions of botocore 1.44.5 (ConverseStream, InvokeModelWithResponseStream, InvokeAgent, InvokeFlow,
//! InvokeHarness); frames that botocore and the JS and Rust SDKs parse.

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use memchr::memmem;

use super::document::{Document, Scanner, Site, unescape};
use super::family;
use super::json_scan::{Sink, Value};
use super::tally::{Ending, Tally};
use crate::aws::eventstream::decode::{Decoder, Frame, Limits};
use crate::aws::operation::Metering;

/// What a `contentBlockDelta` weighs besides its text.
const DELTA_ENVELOPE_BYTES: usize = r#"{"contentBlockIndex":0,"delta":{"text":""}}"#.len();
/// Of an exception's name in the record of a request.
const EXCEPTION_BYTES_MAX: usize = 128;
/// Padding or none: the events are AWS's, and their text is not ours to judge.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);
/// A buffer that one large event left behind is given back above this size.
const BUFFER_BYTES_KEPT: usize = 16 * 1024;
/// AWS's are 80 to 90 bytes.
const HEADERS_BYTES_KEPT: usize = 256;

/// Which events of a stream matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Converse,
    Harness,
    Chunks,
    Agent,
    Flow,
}

/// Reads one event stream.
#[derive(Debug)]
pub(super) struct EventReader {
    decoder: Decoder,
    events: Events,
    broken: bool,
}

/// All but the decoder, so that a frame can be lent from it.
#[derive(Debug)]
struct Events {
    dialect: Dialect,
    /// Where usage may stand in a document.
    sites: &'static [Site],
    /// Both are made for the first document: as a rule that is the last event of a stream.
    scanner: Option<Box<Scanner>>,
    envelope: Option<Box<Scanner>>,
    decoded: Vec<u8>,
    /// What the headers of the last event said of it. The next one has the same as a rule.
    last: (Vec<u8>, Matter),
    tally: Tally,
}

/// What is done with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Matter {
    Nothing,
    /// An event of the model's own is unwrapped.
    Chunk,
    /// A piece of content, in its envelope.
    Delta,
    /// A piece of content.
    Content,
    /// Usage is looked for.
    Document,
    /// The same, of one call among several.
    Call,
}

impl EventReader {
    /// `None` for kinds of metering that do not read an event stream.
    pub(super) fn new(metering: Metering) -> Option<Self> {
        let (dialect, sites): (Dialect, &'static [Site]) = match metering {
            Metering::ConverseStream => (Dialect::Converse, family::CONVERSE),
            Metering::Harness => (Dialect::Harness, family::CONVERSE),
            Metering::InvokeModelStream => (Dialect::Chunks, family::INVOKE_EVENT),
            Metering::InvokeModelBidirectional => (Dialect::Chunks, family::SONIC),
            Metering::AgentTrace => (Dialect::Agent, family::AGENT),
            Metering::FlowTrace => (Dialect::Flow, family::FLOW),
            _ => return None,
        };
        Some(Self {
            decoder: Decoder::new(Limits::default()),
            events: Events {
                dialect,
                sites,
                scanner: None,
                envelope: None,
                decoded: Vec::new(),
                last: (Vec::new(), Matter::Nothing),
                tally: Tally::default(),
            },
            broken: false,
        })
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        let events = &mut self.events;
        self.broken |= self.decoder.push(bytes, &mut |frame| events.take(&frame)).is_err();
    }

    /// Whether what arrived so far could be the whole stream.
    pub(super) fn at_boundary(&self) -> bool {
        self.decoder.at_boundary()
    }

    pub(super) fn whole_bytes(&self) -> u64 {
        self.decoder.whole_bytes()
    }

    pub(super) fn content_bytes(&self) -> u64 {
        self.events.tally.content_bytes
    }

    /// Whether the bytes turned out to be no event stream.
    pub(super) fn broken(&self) -> bool {
        self.broken
    }

    pub(super) fn into_tally(self) -> Tally {
        self.events.tally
    }
}

/// When the usage of an event stream is final.
pub(super) fn ending(metering: Metering) -> Ending {
    match metering {
        Metering::AgentTrace | Metering::Harness | Metering::InvokeModelBidirectional => Ending::AtTheEnd,
        // Prompt nodes of a flow call models too, and no trace reports their usage.
        Metering::FlowTrace => Ending::Never,
        _ => Ending::Once,
    }
}

impl Dialect {
    fn matter(self, event_type: &str) -> Matter {
        match (self, event_type) {
            (Self::Chunks, "chunk") => Matter::Chunk,
            (Self::Converse | Self::Harness, "contentBlockDelta") => Matter::Delta,
            (Self::Agent, "chunk") | (Self::Flow, "flowOutputEvent") => Matter::Content,
            (Self::Converse, "metadata") | (Self::Agent, "trace") | (Self::Flow, "flowTraceEvent") => Matter::Document,
            (Self::Harness, "metadata") => Matter::Call,
            _ => Matter::Nothing,
        }
    }
}

impl Events {
    fn take(&mut self, frame: &Frame<'_>) {
        let matter = if !self.last.0.is_empty() && frame.raw_headers() == self.last.0 {
            self.last.1
        } else {
            match frame.message_type() {
                Some("exception") => return self.exception(frame.exception_type()),
                Some("error") => return self.exception(frame.error_code()),
                _ => self.judge(frame),
            }
        };
        self.event(matter, frame.payload);
    }

    /// What is done with a frame that is an event.
    fn judge(&mut self, frame: &Frame<'_>) -> Matter {
        let matter = self.dialect.matter(frame.event_type().unwrap_or_default());
        let (headers, last) = &mut self.last;
        headers.clear();
        if frame.raw_headers().len() <= HEADERS_BYTES_KEPT {
            headers.extend_from_slice(frame.raw_headers());
        }
        *last = matter;
        matter
    }

    fn exception(&mut self, name: Option<&str>) {
        let name = name.unwrap_or("unnamed");
        let end = name.floor_char_boundary(EXCEPTION_BYTES_MAX);
        self.tally.exception = Some(name.get(..end).unwrap_or_default().to_owned());
    }

    fn event(&mut self, matter: Matter, payload: &[u8]) {
        match matter {
            Matter::Nothing => {}
            Matter::Chunk => self.chunk(payload),
            Matter::Delta => self.content(delta_bytes(payload)),
            Matter::Content => self.content(payload.len()),
            Matter::Document => self.document(payload, false),
            Matter::Call => self.document(payload, true),
        }
    }

    fn content(&mut self, bytes: usize) {
        self.tally.content_bytes = self.tally.content_bytes.saturating_add(bytes as u64);
    }

    /// Reads one JSON document; a malformed one says nothing.
    fn document(&mut self, json: &[u8], sum: bool) {
        let mut document = Document::default();
        let scanner = self.scanner.get_or_insert_with(|| Box::new(Scanner::new(self.sites)));
        scanner.reset();
        if scanner.push(json, &mut document).is_ok() && scanner.complete() {
            self.tally.absorb(document, sum);
        }
    }

    /// The model's own event, in base64 inside the payload.
    fn chunk(&mut self, payload: &[u8]) {
        let envelope = self.envelope.get_or_insert_with(|| Box::new(Scanner::new(family::CHUNK)));
        let mut decoded = std::mem::take(&mut self.decoded);
        let mut found = Unwrap { decoded: &mut decoded, ok: false };
        envelope.reset();
        if envelope.push(payload, &mut found).is_ok() && found.ok {
            self.document(&decoded, false);
        }
        if decoded.capacity() <= BUFFER_BYTES_KEPT {
            decoded.clear();
            self.decoded = decoded;
        }
    }
}

/// Decodes the `bytes` member of an envelope.
struct Unwrap<'a> {
    decoded: &'a mut Vec<u8>,
    ok: bool,
}

impl Sink for Unwrap<'_> {
    type Role = super::document::Role;
    type Field = super::document::Field;

    fn begin(&mut self, _: Self::Role) {}

    fn end(&mut self, _: Self::Role) {}

    fn value(&mut self, _: Self::Role, _: Self::Field, value: Value<'_>) {
        self.decoded.clear();
        self.ok = match value {
            // JSON may write a slash as `\/`.
            Value::Text(raw) if memchr::memchr(b'\\', raw).is_some() => {
                unescape(raw).is_some_and(|text| BASE64.decode_vec(text, self.decoded).is_ok())
            }
            Value::Text(raw) => BASE64.decode_vec(raw, self.decoded).is_ok(),
            _ => false,
        };
    }
}

/// About how much text a `contentBlockDelta` carries, never less: without its envelope and AWS's `p` padding.
fn delta_bytes(payload: &[u8]) -> usize {
    const PADDING: &[u8] = br#""p":""#;
    // It stands last as a rule, behind the last colon; to look for all of it costs more than all else here.
    let last = memchr::memrchr(b':', payload).and_then(|colon| colon.checked_sub(PADDING.len() - 2));
    let padding = last
        .filter(|start| payload.get(*start..).is_some_and(|tail| tail.starts_with(PADDING)))
        .or_else(|| memmem::rfind(payload, PADDING))
        .and_then(|start| payload.get(start + PADDING.len()..))
        .and_then(|tail| memchr::memchr(b'"', tail))
        .map_or(0, |length| length + PADDING.len() + r#"","#.len());
    payload.len().saturating_sub(padding).saturating_sub(DELTA_ENVELOPE_BYTES)
}

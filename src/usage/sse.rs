//! Usage out of server-sent events: the streams of `/openai/v1/*` and `/anthropic/v1/messages`.
//!
//! Only `data:` lines are read, straight into the scanner, so a line may be of any length and be cut anywhere. `event:`
//! lines are not needed, since both dialects name the event inside the JSON; `[DONE]` and anything else that is no
//! JSON says nothing. Source: the WHATWG's server-sent events, OpenAI's and Anthropic's streaming references.

use memchr::{memchr, memchr2};

use super::document::{Document, Scanner, Site};
use super::tally::Tally;

const DATA: &[u8] = b"data:";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// This many bytes of the line equal those of `data:`.
    LineStart(usize),
    Data,
    OtherLine,
}

/// Reads one stream of server-sent events.
#[derive(Debug)]
pub(super) struct LineReader {
    state: State,
    /// A line feed now belongs to the line that has ended.
    after_cr: bool,
    scanner: Scanner,
    document: Document,
    tally: Tally,
}

impl LineReader {
    pub(super) fn new(sites: &'static [Site]) -> Self {
        Self {
            state: State::LineStart(0),
            after_cr: false,
            scanner: Scanner::new(sites),
            document: Document::default(),
            tally: Tally::default(),
        }
    }

    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, after)) = bytes.split_first() {
            if std::mem::take(&mut self.after_cr) && byte == b'\n' {
                bytes = after;
                continue;
            }
            bytes = match self.state {
                State::LineStart(matched) => {
                    self.line_start(matched, byte);
                    after
                }
                State::Data => self.data(bytes),
                State::OtherLine => match memchr2(b'\n', b'\r', bytes) {
                    Some(end) => self.end_line(bytes, end),
                    None => &[],
                },
            };
        }
    }

    pub(super) fn into_tally(mut self) -> Tally {
        self.dispatch();
        self.tally
    }

    fn line_start(&mut self, matched: usize, byte: u8) {
        self.state = match byte {
            b'\n' | b'\r' => {
                self.after_cr = byte == b'\r';
                if matched == 0 {
                    self.dispatch();
                }
                State::LineStart(0)
            }
            _ if DATA.get(matched) == Some(&byte) && matched + 1 == DATA.len() => State::Data,
            _ if DATA.get(matched) == Some(&byte) => State::LineStart(matched + 1),
            _ => State::OtherLine,
        };
    }

    fn data<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        // JSON has no bare line feed, and a carriage return inside a string would be escaped too.
        let end = memchr(b'\n', bytes).into_iter().chain(memchr(b'\r', bytes)).min();
        let line = end.and_then(|end| bytes.get(..end)).unwrap_or(bytes);
        // What is no JSON fails the scanner until the event is over; nothing else follows from it.
        let readable = self.scanner.push(line, &mut self.document).is_ok();
        if !readable {
            self.document = Document::default();
        }
        match end {
            Some(end) => self.end_line(bytes, end),
            None => &[],
        }
    }

    fn end_line<'a>(&mut self, bytes: &'a [u8], end: usize) -> &'a [u8] {
        self.state = State::LineStart(0);
        self.after_cr = bytes.get(end) == Some(&b'\r');
        bytes.get(end + 1..).unwrap_or_default()
    }

    /// The event is over: what it said counts if it was whole.
    fn dispatch(&mut self) {
        if self.scanner.begun() {
            let document = std::mem::take(&mut self.document);
            if self.scanner.complete() {
                self.tally.absorb(document, false);
            }
            self.scanner.reset();
        }
    }
}

//! The stream that every ConverseStream request gets: the same frames, on a schedule that does not slip. Where frames
//! are paced, each text holds the time at which it was sent, so that a client on this machine can tell how long it was
//! on its way: CLOCK_MONOTONIC in nanoseconds, twenty digits, as in `"text":"t=00012345678901234567"`.

use std::io::Write;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use super::answers::{Template, metrics, told_usage, usage};
use crate::eventstream;

const STAMP: &str = "t=00000000000000000000";
const STAMP_DIGITS: usize = 20;
/// As long as a stamp, and none.
const UNSTAMPED: &str = "twenty-two characters ";
const PADDING: &str = "abcdefghijklmnop";
const CRC_LEN: usize = 4;

/// A stream as bytes.
#[derive(Debug)]
pub struct Script {
    /// Head of the response and first event.
    opening: Template,
    delta: Delta,
    /// The events behind the text, and the end of the body.
    closing: Vec<u8>,
    /// All of it, where nothing is paced.
    whole: Option<Template>,
    pub frames: u32,
    rate_hz: u32,
}

/// A text frame, as a chunk of the body, into which a time can be written.
#[derive(Debug)]
struct Delta {
    chunk: Vec<u8>,
    /// Where the frame begins and ends.
    frame: (usize, usize),
    /// Where the digits begin.
    digits_at: usize,
}

impl Script {
    pub fn new(frames: u32, rate_hz: u32) -> Self {
        let head =
            "HTTP/1.1 200 OK\r\ncontent-type: application/vnd.amazon.eventstream\r\ntransfer-encoding: chunked\r\n";
        let start = event("messageStart", json!({ "role": "assistant" }));
        let closing = closing();
        let delta = Delta::new(if rate_hz == 0 { UNSTAMPED } else { STAMP });
        let texts = delta.chunk.repeat(usize::try_from(frames).unwrap_or(0));
        let all = || Template::new(head.to_owned(), &[start.as_slice(), &texts, &closing].concat());
        let whole = (rate_hz == 0 || frames == 0).then(all);
        Self { opening: Template::new(head.to_owned(), &start), delta, closing, whole, frames, rate_hz }
    }

    /// All of a stream that is not paced.
    pub fn whole(&self) -> Option<&Template> {
        self.whole.as_ref()
    }

    /// How long after the first text frame number `index` is due.
    pub fn due(&self, index: u32) -> Duration {
        Duration::from_nanos(u64::from(index) * 1_000_000_000 / u64::from(self.rate_hz.max(1)))
    }

    /// Adds text frame `index` of the answer to request `number`, sent at `now_ns`, with what goes before the first one
    /// and behind the last one.
    pub fn write(&self, output: &mut Vec<u8>, number: u64, index: u32, now_ns: u64) {
        if index == 0 {
            self.opening.write(output, number, true);
        }
        self.delta.write(output, now_ns);
        if index + 1 == self.frames {
            output.extend_from_slice(&self.closing);
        }
    }
}

impl Delta {
    fn new(text: &str) -> Self {
        let payload = json!({ "contentBlockIndex": 0, "delta": { "text": text }, "p": PADDING }).to_string();
        let frame = eventstream::event("contentBlockDelta", payload.as_bytes());
        let chunk = chunk(&frame);
        let begin = chunk.len() - 2 - frame.len();
        let digits_at = memchr::memmem::find(&chunk, text.as_bytes()).unwrap_or(begin) + STAMP.len() - STAMP_DIGITS;
        Self { frame: (begin, begin + frame.len()), chunk, digits_at }
    }

    fn write(&self, output: &mut Vec<u8>, now_ns: u64) {
        let at = output.len();
        output.extend_from_slice(&self.chunk);
        let Some(chunk) = output.get_mut(at..) else { return };
        let (begin, end) = self.frame;
        if let Some(mut place) = chunk.get_mut(self.digits_at..self.digits_at + STAMP_DIGITS) {
            // The place is as long as what is written.
            drop(write!(place, "{now_ns:0STAMP_DIGITS$}"));
        }
        let crc = crc32fast::hash(chunk.get(begin..end - CRC_LEN).unwrap_or_default());
        if let Some(place) = chunk.get_mut(end - CRC_LEN..end) {
            place.copy_from_slice(&crc.to_be_bytes());
        }
    }
}

/// CLOCK_MONOTONIC.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

fn closing() -> Vec<u8> {
    let usage = told_usage(&usage());
    let mut closing = event("contentBlockStop", json!({ "contentBlockIndex": 0 }));
    closing.extend(event("messageStop", json!({ "stopReason": "end_turn" })));
    closing.extend(event("metadata", json!({ "usage": usage, "metrics": metrics() })));
    closing.extend_from_slice(b"0\r\n\r\n");
    closing
}

/// An event with the `p` member that Bedrock's runtime adds, as a chunk.
fn event(event_type: &str, mut payload: Value) -> Vec<u8> {
    payload["p"] = json!(PADDING);
    chunk(&eventstream::event(event_type, payload.to_string().as_bytes()))
}

fn chunk(data: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::canned::body::Body;
    use crate::eventstream::{Value as HeaderValue, decode};

    /// The event types and payloads of a response.
    fn events(response: &[u8]) -> Vec<(String, Value)> {
        let body_at = memchr::memmem::find(response, b"\r\n\r\n").unwrap() + 4;
        let (mut body, mut content) = (Body::CHUNKED, Vec::new());
        assert_eq!(body.pass(&response[body_at..], Some(&mut content)), Ok(response.len() - body_at));
        assert!(body.is_over());
        let mut content = BytesMut::from(content.as_slice());
        let frames = std::iter::from_fn(|| decode(&mut content).unwrap());
        let named = frames.map(|frame| match frame.header(":event-type") {
            Some(HeaderValue::Text(name)) => (name.clone(), serde_json::from_slice(&frame.payload).unwrap()),
            other => panic!("{other:?}"),
        });
        named.collect()
    }

    fn names(events: &[(String, Value)]) -> Vec<&str> {
        events.iter().map(|(name, _)| name.as_str()).collect()
    }

    const NAMES: [&str; 6] =
        ["messageStart", "contentBlockDelta", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata"];

    #[test]
    fn paced_frames_hold_their_time_and_have_the_right_checksum() {
        let script = Script::new(2, 50);
        let mut output = Vec::new();
        script.write(&mut output, 7, 0, 12_345_678_901_234_567);
        script.write(&mut output, 7, 1, 99);
        let events = events(&output);
        assert_eq!(names(&events), NAMES);
        assert_eq!(events[1].1["delta"]["text"], "t=00012345678901234567");
        assert_eq!(events[2].1["delta"]["text"], "t=00000000000000000099");
        assert_eq!(events[5].1["usage"]["totalTokens"], 250);
    }

    #[test]
    fn a_stream_that_is_not_paced_is_one_piece_without_times() {
        let mut output = Vec::new();
        Script::new(2, 0).whole().unwrap().write(&mut output, 7, true);
        let events = events(&output);
        assert_eq!(names(&events), NAMES);
        assert_eq!(events[1].1["delta"]["text"], UNSTAMPED);
        assert_eq!(UNSTAMPED.len(), STAMP.len());
    }

    #[test]
    fn a_stream_without_text_is_complete() {
        let mut output = Vec::new();
        Script::new(0, 50).whole().unwrap().write(&mut output, 7, true);
        assert_eq!(events(&output).len(), 4);
    }

    #[test]
    fn the_schedule_does_not_gather_rounding_errors() {
        let script = Script::new(100, 30);
        assert_eq!(script.due(0), Duration::ZERO);
        assert_eq!(script.due(30), Duration::from_secs(1));
        assert_eq!(script.due(3000), Duration::from_secs(100));
    }
}

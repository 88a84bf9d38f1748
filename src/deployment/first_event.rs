//! Whether a stream has begun to say something, or has failed before it did: so far another deployment can still be
//! asked in its place.
//!
//! An opening is an event that answers begin with and that has no content: `messageStart`, `contentBlockStart`, a `ping`.
//! Whatever is not known counts as content, so that nothing waits for an event of next year. Sources: event unions of
//! botocore 1.44.5; the streaming references of Anthropic, Amazon Nova and OpenAI (read 2026-11-22).

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use serde_json::Value;

use crate::aws::eventstream::decode::{Decoder, Frame, Limits};

/// Openings beyond this count as content: ten times what they come to.
pub const OPENING_BYTES_MAX: usize = 64 * 1024;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// How far a stream has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beginning {
    /// Nothing but openings, or the part of an event.
    Opening,
    Content,
    /// An exception came before any content; `at_once`: before anything else too, as an error status would.
    Failed {
        name: String,
        at_once: bool,
    },
    /// A frame is not what was sent.
    Damaged,
}

/// Reads the beginning of one stream. Not to be asked again once it has said anything but [`Beginning::Opening`].
#[derive(Debug)]
pub struct FirstEvent {
    form: Form,
    bytes_left: usize,
    /// Whether an opening was seen.
    opened: bool,
}

#[derive(Debug)]
enum Form {
    Frames(Decoder),
    Lines(Lines),
}

/// Server-sent events, line by line.
#[derive(Debug, Default)]
struct Lines {
    line: Vec<u8>,
    data: Vec<u8>,
}

impl FirstEvent {
    /// Of an event stream.
    #[must_use]
    pub fn of_frames() -> Self {
        Self::of(Form::Frames(Decoder::new(Limits::default())))
    }

    /// Of server-sent events.
    #[must_use]
    pub fn of_lines() -> Self {
        Self::of(Form::Lines(Lines::default()))
    }

    const fn of(form: Form) -> Self {
        Self { form, bytes_left: OPENING_BYTES_MAX, opened: false }
    }

    /// The next bytes of the stream, cut anywhere.
    pub fn push(&mut self, bytes: &[u8]) -> Beginning {
        let mut found = None;
        let opened = &mut self.opened;
        let mut take = |event: Event| {
            if found.is_none() {
                found = match event {
                    Event::Opening => None,
                    Event::Content => Some(Beginning::Content),
                    Event::Failure(name) => Some(Beginning::Failed { name, at_once: !*opened }),
                };
                *opened = true;
            }
        };
        let whole = match &mut self.form {
            Form::Frames(decoder) => decoder.push(bytes, &mut |frame| take(event_of_frame(&frame))).is_ok(),
            Form::Lines(lines) => {
                lines.push(bytes, &mut take);
                true
            }
        };
        self.bytes_left = self.bytes_left.saturating_sub(bytes.len());
        match found {
            Some(found) => found,
            None if !whole => Beginning::Damaged,
            None if self.bytes_left == 0 => Beginning::Content,
            None => Beginning::Opening,
        }
    }
}

/// What one event is.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    Opening,
    Content,
    Failure(String),
}

fn event_of_frame(frame: &Frame<'_>) -> Event {
    match (frame.message_type(), frame.event_type()) {
        (Some("exception"), _) => failure(frame.exception_type()),
        (Some("error"), _) => failure(frame.error_code()),
        (_, Some("messageStart" | "contentBlockStart")) => Event::Opening,
        (_, Some("chunk")) if native(frame.payload).is_some_and(|native| opens(&native)) => Event::Opening,
        _ => Event::Content,
    }
}

fn failure(name: Option<&str>) -> Event {
    Event::Failure(name.unwrap_or("unnamed").to_owned())
}

/// The model's own event inside a chunk of InvokeModelWithResponseStream. Other streams have chunks of text.
fn native(payload: &[u8]) -> Option<Value> {
    #[derive(Deserialize)]
    struct Chunk {
        bytes: String,
    }
    if payload.len() > OPENING_BYTES_MAX {
        return None;
    }
    let chunk: Chunk = serde_json::from_slice(payload).ok()?;
    serde_json::from_slice(&BASE64.decode(chunk.bytes).ok()?).ok()
}

/// Whether a model's own event has no content: by its type, by its only member, or by an empty delta.
fn opens(event: &Value) -> bool {
    const TYPES: [&str; 6] =
        ["message_start", "content_block_start", "ping", "response.created", "response.in_progress", "response.queued"];
    let kind = event.get("type").and_then(Value::as_str);
    if kind.is_some_and(|kind| TYPES.contains(&kind))
        || event.get("messageStart").is_some()
        || event.get("contentBlockStart").is_some()
    {
        return true;
    }
    // OpenAI's chat begins with the role alone.
    let is_empty = |value: &Value| value.is_null() || value.as_str().is_some_and(str::is_empty);
    let says_role = |choice: &Value| {
        choice.get("finish_reason").is_none_or(Value::is_null)
            && choice
                .get("delta")
                .and_then(Value::as_object)
                .is_some_and(|delta| delta.iter().all(|(name, value)| name == "role" || is_empty(value)))
    };
    event.get("choices").and_then(Value::as_array).is_some_and(|all| !all.is_empty() && all.iter().all(says_role))
}

impl Lines {
    fn push(&mut self, bytes: &[u8], take: &mut impl FnMut(Event)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if self.line.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                self.end_line(line.trim_ascii_end(), take);
            }
        }
    }

    fn end_line(&mut self, line: &[u8], take: &mut impl FnMut(Event)) {
        if let Some(data) = line.strip_prefix(b"data:") {
            self.data.extend_from_slice(data);
        } else if line.is_empty() && !self.data.is_empty() {
            take(event_of_data(&std::mem::take(&mut self.data)));
        }
    }
}

fn event_of_data(data: &[u8]) -> Event {
    let Ok(event) = serde_json::from_slice::<Value>(data) else {
        return Event::Content;
    };
    // OpenAI's responses fail with an event that has the whole response in it.
    let error = event.get("error").or_else(|| event.pointer("/response/error")).filter(|error| !error.is_null());
    if let Some(error) = error {
        let text = |name| error.get(name).and_then(Value::as_str);
        // Of OpenAI's two names the code is the exact one; Anthropic has a type alone.
        return failure(text("code").or_else(|| text("type")).or(event.get("code").and_then(Value::as_str)));
    }
    match event.get("type").and_then(Value::as_str) {
        Some("error") => failure(event.get("code").and_then(Value::as_str)),
        _ if opens(&event) => Event::Opening,
        _ => Event::Content,
    }
}

#[cfg(test)]
mod tests;

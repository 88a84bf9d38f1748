//! What one JSON document says about usage: a body, an event, or a line of server-sent events.
//!
//! The tables in the family files name the objects ([`Role`]) and the members ([`Field`]); this file only keeps what
//! they find. A document counts when it is complete: a `usage` object that was cut in half would pass for a smaller
//! one. Counts that are no whole numbers (negative, fractional, text) spoil the document instead of being guessed.

use super::counts::Counts;
use super::json_scan::{self, Sink, Value};
use crate::types::usage::GuardrailUnits;

/// What an object of the document is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Members that stand for themselves: terms, content, images.
    Plain,
    /// The usage of the call as it stands at its end.
    Usage,
    /// The usage that the first event of a stream states.
    FirstUsage,
    /// A part of the usage object around it.
    UsagePart,
    /// Usage that grows from event to event, without a sign of which is the last.
    RunningUsage,
    /// One cache write with its lifetime.
    CacheDetail,
    /// One of several results whose tokens add up.
    Result,
    /// `amazon-bedrock-invocationMetrics`
    Metrics,
    /// Units of one guardrail assessment; they add up.
    Guardrail,
    /// Usage of one of several model calls; they add up.
    ModelCall,
}

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Input,
    /// Input in a dialect that counts cached tokens into it.
    InputWithCache,
    /// [`Self::InputWithCache`] of a chat stream, where a finish reason tells the last usage from a running one.
    ChatInput,
    Output,
    CacheRead,
    CacheWrite,
    CacheWrite5m,
    CacheWrite1h,
    Total,
    AudioInput,
    AudioOutput,
    Queries,
    CacheTtl,
    CacheTtlTokens,
    Topic,
    GuardContent,
    GuardImage,
    Word,
    Sensitive,
    SensitiveFree,
    Grounding,
    Reasoning,
    Tier,
    Latency,
    Model,
    /// The number of images that came back.
    Images,
    FinishReason,
    /// Text that the model made.
    Content,
    /// The base64 of an event inside an event.
    Bytes,
}

pub(super) type Site = json_scan::Site<Role, Field>;
pub(super) type Member = json_scan::Member<Field>;
pub(super) type Scanner = json_scan::Scanner<Role, Field>;

/// A wanted number.
pub(super) const fn number(name: &'static str, field: Field) -> Member {
    Member { name, want: json_scan::Want::Number, field }
}

/// A wanted short string.
pub(super) const fn text(name: &'static str, field: Field) -> Member {
    Member { name, want: json_scan::Want::Text, field }
}

/// A string of which only the length is wanted: what the model wrote.
pub(super) const fn content(name: &'static str) -> Member {
    Member { name, want: json_scan::Want::Length, field: Field::Content }
}

/// The harvest of one document.
#[expect(clippy::struct_excessive_bools, reason = "independent things that were seen or not")]
#[derive(Debug, Clone, Default)]
pub(super) struct Document {
    pub counts: Counts,
    pub metrics: Counts,
    /// Model calls of an agent.
    pub calls: Counts,
    pub calls_seen: bool,
    pub guardrail: GuardrailUnits,
    pub guardrail_seen: bool,
    /// A usage object that states the end of the call is complete.
    pub usage_seen: bool,
    pub metrics_seen: bool,
    /// The usage is one that may still grow until the finish reason came.
    pub chat: bool,
    pub finished: bool,
    /// A count was no whole number.
    pub spoilt: bool,
    pub tier: Option<String>,
    pub latency: Option<String>,
    pub model: Option<String>,
    pub images: Option<u64>,
    pub content_bytes: u64,
    guardrail_part: GuardrailUnits,
    call_part: Counts,
    detail: (Option<bool>, u64),
    result_tokens: Option<u64>,
}

impl Sink for Document {
    type Role = Role;
    type Field = Field;

    fn begin(&mut self, role: Role) {
        match role {
            Role::Usage | Role::FirstUsage => self.counts = Counts::default(),
            Role::Metrics => self.metrics = Counts::default(),
            Role::CacheDetail => self.detail = (None, 0),
            Role::Guardrail => self.guardrail_part = GuardrailUnits::default(),
            Role::ModelCall => self.call_part = Counts::default(),
            Role::Result => self.result_tokens = None,
            Role::Plain | Role::UsagePart | Role::RunningUsage => {}
        }
    }

    fn end(&mut self, role: Role) {
        match role {
            Role::Usage => self.usage_seen |= self.counts.any(),
            Role::Metrics => self.metrics_seen |= self.metrics.any(),
            Role::CacheDetail => {
                let (one_hour, tokens) = self.detail;
                let lifetime = if one_hour == Some(true) {
                    &mut self.counts.cache_write_1h
                } else {
                    &mut self.counts.cache_write_5m
                };
                *lifetime = Some(lifetime.unwrap_or(0).saturating_add(tokens));
            }
            Role::Guardrail => {
                self.guardrail_seen = true;
                add_units(&mut self.guardrail, &self.guardrail_part);
            }
            Role::ModelCall if self.call_part.any() => {
                self.calls_seen = true;
                self.calls.add(&self.call_part);
            }
            Role::Result => {
                if let Some(tokens) = self.result_tokens {
                    self.counts.output = Some(self.counts.output.unwrap_or(0).saturating_add(tokens));
                }
            }
            Role::Plain | Role::FirstUsage | Role::UsagePart | Role::RunningUsage | Role::ModelCall => {}
        }
    }

    fn value(&mut self, role: Role, field: Field, value: Value<'_>) {
        match value {
            Value::Count(count) => self.count(role, field, count),
            Value::Text(raw) => self.text(field, raw),
            Value::Length(bytes) => self.content_bytes = self.content_bytes.saturating_add(bytes),
            Value::Elements(elements) => self.images = Some(elements),
            Value::Null => {}
            Value::Number(_) | Value::Other => self.spoilt |= is_count(field),
        }
    }
}

/// Whether a wrong kind of value at this field makes the usage unknown.
const fn is_count(field: Field) -> bool {
    !matches!(
        field,
        Field::CacheTtl
            | Field::Tier
            | Field::Latency
            | Field::Model
            | Field::Images
            | Field::FinishReason
            | Field::Content
            | Field::Bytes
    )
}

impl Document {
    fn count(&mut self, role: Role, field: Field, count: u64) {
        if role == Role::Guardrail {
            if let Some(units) = guardrail_units(&mut self.guardrail_part, field) {
                *units = count;
            }
            return;
        }
        if role == Role::Result {
            self.result_tokens = Some(count);
            return;
        }
        if field == Field::CacheTtlTokens {
            self.detail.1 = count;
            return;
        }
        let counts = match role {
            Role::Metrics => &mut self.metrics,
            Role::ModelCall => &mut self.call_part,
            _ => &mut self.counts,
        };
        let place = match field {
            Field::Input => &mut counts.input,
            Field::InputWithCache | Field::ChatInput => {
                counts.input_includes_cache = true;
                self.chat |= field == Field::ChatInput;
                &mut counts.input
            }
            Field::Output => &mut counts.output,
            Field::CacheRead => &mut counts.cache_read,
            Field::CacheWrite => &mut counts.cache_write,
            Field::CacheWrite5m => &mut counts.cache_write_5m,
            Field::CacheWrite1h => &mut counts.cache_write_1h,
            Field::Total => &mut counts.total,
            Field::AudioInput => &mut counts.audio_input,
            Field::AudioOutput => &mut counts.audio_output,
            Field::Queries => &mut counts.queries,
            _ => return,
        };
        *place = Some(count);
    }

    fn text(&mut self, field: Field, raw: &[u8]) {
        let place = match field {
            Field::CacheTtl => {
                self.detail.0 = Some(raw == b"1h");
                return;
            }
            Field::FinishReason => {
                self.finished = true;
                return;
            }
            Field::Tier => &mut self.tier,
            Field::Latency => &mut self.latency,
            Field::Model => &mut self.model,
            _ => return,
        };
        *place = unescape(raw);
    }
}

/// The text of a string as it stands in JSON; `None` where it is none.
pub(super) fn unescape(raw: &[u8]) -> Option<String> {
    let raw = std::str::from_utf8(raw).ok()?;
    if raw.contains('\\') { serde_json::from_str(&format!("\"{raw}\"")).ok() } else { Some(raw.to_owned()) }
}

fn guardrail_units(units: &mut GuardrailUnits, field: Field) -> Option<&mut u64> {
    Some(match field {
        Field::Topic => &mut units.topic,
        Field::GuardContent => &mut units.content,
        Field::GuardImage => &mut units.content_image,
        Field::Word => &mut units.word,
        Field::Sensitive => &mut units.sensitive_information,
        Field::SensitiveFree => &mut units.sensitive_information_free,
        Field::Grounding => &mut units.contextual_grounding,
        Field::Reasoning => &mut units.automated_reasoning,
        _ => return None,
    })
}

/// Adds the units of one assessment to those of the call.
pub(super) fn add_units(sum: &mut GuardrailUnits, part: &GuardrailUnits) {
    sum.topic = sum.topic.saturating_add(part.topic);
    sum.content = sum.content.saturating_add(part.content);
    sum.content_image = sum.content_image.saturating_add(part.content_image);
    sum.word = sum.word.saturating_add(part.word);
    sum.sensitive_information = sum.sensitive_information.saturating_add(part.sensitive_information);
    sum.sensitive_information_free = sum.sensitive_information_free.saturating_add(part.sensitive_information_free);
    sum.contextual_grounding = sum.contextual_grounding.saturating_add(part.contextual_grounding);
    sum.automated_reasoning = sum.automated_reasoning.saturating_add(part.automated_reasoning);
}

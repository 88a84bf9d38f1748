//! What a call consumed, in the units AWS bills, and what a rule may demand instead. `input` never includes cache
//! tokens, as in Bedrock's `inputTokens`.

use serde::{Deserialize, Serialize};

/// Billable quantities of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    pub input: u64,
    pub output: u64,
    pub cache_read: u64,
    pub cache_write_5m: u64,
    pub cache_write_1h: u64,
    pub audio_input: u64,
    pub audio_output: u64,
    pub image_input: u64,
    /// Images read and made.
    pub images_in: u64,
    pub images_out: u64,
    /// Media, in milliseconds.
    pub video_input_ms: u64,
    pub audio_input_ms: u64,
    pub video_output_ms: u64,
    /// Rerank queries.
    pub queries: u64,
    pub guardrail: GuardrailUnits,
}

/// Units that guardrail policies processed; a text unit is 1,000 characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GuardrailUnits {
    pub topic: u64,
    pub content: u64,
    pub content_image: u64,
    pub word: u64,
    pub sensitive_information: u64,
    pub sensitive_information_free: u64,
    pub contextual_grounding: u64,
    pub automated_reasoning: u64,
}

/// Quantities that a rule sets; what it leaves out stays as the request made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UsageOverride {
    pub input: Option<u64>,
    pub output: Option<u64>,
    pub cache_read: Option<u64>,
    pub cache_write_5m: Option<u64>,
    pub cache_write_1h: Option<u64>,
    pub audio_input: Option<u64>,
    pub audio_output: Option<u64>,
    pub image_input: Option<u64>,
    pub images_in: Option<u64>,
    pub video_input_ms: Option<u64>,
    pub audio_input_ms: Option<u64>,
    pub video_output_ms: Option<u64>,
    pub queries: Option<u64>,
}

impl Usage {
    /// Everything read as prompt, cached or not: what long-context prices go by.
    pub fn total_input(&self) -> u64 {
        [self.cache_read, self.cache_write_5m, self.cache_write_1h]
            .iter()
            .fold(self.input, |sum, part| sum.saturating_add(*part))
    }

    pub fn cache_write(&self) -> u64 {
        self.cache_write_5m.saturating_add(self.cache_write_1h)
    }

    /// All tokens, as `totalTokens` counts them.
    pub fn total(&self) -> u64 {
        self.total_input().saturating_add(self.output)
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// This usage with a rule's demands in place.
    #[must_use]
    pub fn overridden(mut self, by: &UsageOverride) -> Self {
        let set = |own: &mut u64, demanded: Option<u64>| *own = demanded.unwrap_or(*own);
        set(&mut self.input, by.input);
        set(&mut self.output, by.output);
        set(&mut self.cache_read, by.cache_read);
        set(&mut self.cache_write_5m, by.cache_write_5m);
        set(&mut self.cache_write_1h, by.cache_write_1h);
        set(&mut self.audio_input, by.audio_input);
        set(&mut self.audio_output, by.audio_output);
        set(&mut self.image_input, by.image_input);
        set(&mut self.images_in, by.images_in);
        set(&mut self.video_input_ms, by.video_input_ms);
        set(&mut self.audio_input_ms, by.audio_input_ms);
        set(&mut self.video_output_ms, by.video_output_ms);
        set(&mut self.queries, by.queries);
        self
    }
}

impl GuardrailUnits {
    /// Units of the four policies a plain guardrail has, for a text of so many characters.
    pub fn of_text(characters: usize) -> Self {
        let units = u64::try_from(characters.div_ceil(1000)).unwrap_or(u64::MAX).max(1);
        Self { topic: units, content: units, word: units, sensitive_information: units, ..Self::default() }
    }

    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            topic: self.topic + other.topic,
            content: self.content + other.content,
            content_image: self.content_image + other.content_image,
            word: self.word + other.word,
            sensitive_information: self.sensitive_information + other.sensitive_information,
            sensitive_information_free: self.sensitive_information_free + other.sensitive_information_free,
            contextual_grounding: self.contextual_grounding + other.contextual_grounding,
            automated_reasoning: self.automated_reasoning + other.automated_reasoning,
        }
    }
}

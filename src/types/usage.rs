//! What one upstream call consumed, in the units AWS bills: the meeting point of `usage` (which reads it) and
//! `price` (which turns it into money). `input` never includes cache tokens; Bedrock reports them apart.

use super::tokens::Tokens;

/// Billable quantities of one upstream call. Every field that a response does not report stays zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Prompt tokens that were neither read from nor written to the prompt cache.
    pub input: Tokens,
    pub output: Tokens,
    pub cache_read: Tokens,
    /// Cache writes with the default lifetime of five minutes, and those whose lifetime was not reported.
    pub cache_write_5m: Tokens,
    pub cache_write_1h: Tokens,
    pub audio_input: Tokens,
    pub audio_output: Tokens,
    /// Input tokens that stand for images (Titan and Nova multimodal embeddings).
    pub image_input: Tokens,
    /// Images sent to an embedding or an image-edit model.
    pub images_in: u64,
    /// Images returned.
    pub images_out: u64,
    /// Video that was read, in milliseconds (TwelveLabs, Nova embeddings).
    pub video_input_ms: u64,
    /// Audio that was read, in milliseconds.
    pub audio_input_ms: u64,
    /// Video that was made, in milliseconds (Nova Reel, Luma Ray).
    pub video_output_ms: u64,
    /// Rerank queries ("search units").
    pub queries: u64,
    pub guardrail: GuardrailUnits,
}

/// Text units (1,000 characters) and image units that guardrail policies processed, by policy.
/// Source: `GuardrailUsage` of bedrock-runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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

/// Under which conditions AWS bills the call. They come from the **response** where it states them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Terms {
    pub tier: Tier,
    pub latency: Latency,
    /// Size, quality and steps of the images that were asked for; `None` where none were.
    pub image: Option<ImageTerms>,
    /// The model that a prompt router picked, as the response names it.
    pub invoked_model: Option<String>,
}

/// `serviceTier.type` / `X-Amzn-Bedrock-Service-Tier`, and batch inference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Tier {
    #[default]
    Default,
    Flex,
    Priority,
    Reserved,
    Ultrafast,
    Batch,
}

/// `performanceConfig.latency` / `X-Amzn-Bedrock-PerformanceConfig-Latency`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Latency {
    #[default]
    Standard,
    Optimized,
}

/// What decides the price of an image, from the request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageTerms {
    pub width_px: u32,
    pub height_px: u32,
    /// Diffusion steps, where the model is priced by them (SDXL).
    pub steps: Option<u32>,
    /// `standard` or `premium` (Titan and Nova image models).
    pub premium: bool,
}

impl Usage {
    /// Everything the model read as prompt, cached or not: what decides a long-context price.
    #[must_use]
    pub fn total_input(&self) -> Tokens {
        self.input + self.cache_read + self.cache_write_5m + self.cache_write_1h
    }

    /// Whether nothing billable was reported.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Tier {
    /// Reads AWS's spelling; an unknown word is the default tier.
    #[must_use]
    pub fn parse(word: &str) -> Self {
        match word {
            "flex" => Self::Flex,
            "priority" => Self::Priority,
            "reserved" => Self::Reserved,
            "ultrafast" => Self::Ultrafast,
            _ => Self::Default,
        }
    }
}

impl Latency {
    #[must_use]
    pub fn parse(word: &str) -> Self {
        if word == "optimized" { Self::Optimized } else { Self::Standard }
    }
}

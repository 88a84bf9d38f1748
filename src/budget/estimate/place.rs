//! Which members of which requests matter to an upper bound, and what each is for: tables, no state.
//!
//! A name counts only where an API heeds it, because the same word in a tool's schema or in a user's text means
//! nothing. Source: AWS's model parameters, Converse of botocore 1.44.5, Anthropic's and OpenAI's API references.

/// Where a limit on the output stands. Each API heeds one or two of these and ignores or rejects the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// `inferenceConfig.maxTokens`
    Inference,
    /// `inferenceConfig.max_new_tokens`, which Nova's own format allows.
    InferenceNew,
    /// `textGenerationConfig.maxTokenCount`
    TitanText,
    /// `max_tokens`
    MaxTokens,
    /// `max_completion_tokens`
    Completion,
    /// `max_tokens_to_sample`
    ToSample,
    /// `max_gen_len`
    Generation,
    /// `maxTokens`
    Camel,
    /// `max_output_tokens`, `maxOutputTokens`
    Output,
    /// Any of them in `additionalModelRequestFields`.
    Additional,
}

/// Variants of [`Limit`].
pub(super) const LIMITS: usize = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flag {
    Cache,
    Tools,
    Guardrail,
    Beta,
    Reasoning,
}

/// What the value that is being read is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The whole body.
    Root,
    /// `additionalModelRequestFields` and everything in it.
    Additional,
    Inference,
    TitanText,
    Messages,
    Message,
    Blocks,
    Block,
    ConverseImage,
    ConverseSource,
    Source,
    ToolConfig,
    Tools,
    Tool,
    Tier,
    Performance,
    Marker,
    /// Opaque if it is an object.
    Prompt,
    Other,
    Limit(Limit),
    Choices,
    ImagesWanted,
    Opaque,
    ServerTool,
    Flag(Flag),
    TierWord,
    LatencyWord,
    Lifetime,
    Type,
    ItemType,
    ToolType,
    ConverseBytes,
    SourceType,
    SourceData,
}

impl Place {
    /// What the member `name` of an object here is for.
    pub(super) fn member(self, name: &str) -> Self {
        match (self, name) {
            (_, "cachePoint" | "cache_control") => Self::Marker,
            (_, "numberOfImages" | "samples") => Self::ImagesWanted,
            (_, "s3Location") => Self::Opaque,
            (Self::Root, _) => Self::root_member(name),
            (Self::Additional, _) => Self::additional_member(name),
            (Self::Inference, "maxTokens") => Self::Limit(Limit::Inference),
            (Self::Inference, "max_new_tokens") => Self::Limit(Limit::InferenceNew),
            (Self::Inference, "reasoningConfig" | "reasoning_config") => Self::Flag(Flag::Reasoning),
            (Self::TitanText, "maxTokenCount") => Self::Limit(Limit::TitanText),
            (Self::Message, "content" | "output") | (Self::Block, "content") => Self::Blocks,
            (Self::Message, "type") => Self::ItemType,
            (Self::Block, "type") => Self::Type,
            (Self::Block, "citations") => Self::Flag(Flag::Tools),
            (Self::Block, "toolResult" | "guardContent") => Self::Block,
            (Self::Block, "image") => Self::ConverseImage,
            (Self::Block, "source") => Self::Source,
            (Self::ConverseImage, "source") => Self::ConverseSource,
            (Self::ConverseSource, "bytes") => Self::ConverseBytes,
            (Self::ConverseSource, _)
            | (
                Self::Block,
                "document" | "video" | "audio" | "image_url" | "input_audio" | "file" | "file_data" | "file_url"
                | "file_id",
            ) => Self::Opaque,
            (Self::Source, "type") => Self::SourceType,
            (Self::Source, "data") => Self::SourceData,
            (Self::ToolConfig, "tools") => Self::Tools,
            (Self::Tool, "type") => Self::ToolType,
            (Self::Tool, "systemTool") => Self::ServerTool,
            (Self::Tier, "type") => Self::TierWord,
            (Self::Performance, "latency") => Self::LatencyWord,
            (Self::Marker, "ttl") => Self::Lifetime,
            _ => Self::Other,
        }
    }

    fn root_member(name: &str) -> Self {
        match name {
            "messages" | "input" => Self::Messages,
            "system" | "content" => Self::Blocks,
            "inferenceConfig" => Self::Inference,
            "textGenerationConfig" => Self::TitanText,
            "additionalModelRequestFields" => Self::Additional,
            "toolConfig" => Self::ToolConfig,
            "performanceConfig" => Self::Performance,
            "guardrailConfig" => Self::Flag(Flag::Guardrail),
            "maxTokens" => Self::Limit(Limit::Camel),
            "max_tokens" => Self::Limit(Limit::MaxTokens),
            "max_completion_tokens" => Self::Limit(Limit::Completion),
            "max_tokens_to_sample" => Self::Limit(Limit::ToSample),
            "max_gen_len" => Self::Limit(Limit::Generation),
            "max_output_tokens" | "maxOutputTokens" => Self::Limit(Limit::Output),
            "prompt" => Self::Prompt,
            "promptVariables"
            | "previous_response_id"
            | "conversation"
            | "image"
            | "images"
            | "inputImage"
            | "mediaSource" => Self::Opaque,
            _ => Self::shared_member(name),
        }
    }

    fn additional_member(name: &str) -> Self {
        match name {
            "maxTokens"
            | "max_tokens"
            | "max_completion_tokens"
            | "max_tokens_to_sample"
            | "max_gen_len"
            | "max_output_tokens"
            | "maxOutputTokens"
            | "max_new_tokens"
            | "maxNewTokens"
            | "maxTokenCount" => Self::Limit(Limit::Additional),
            _ => match Self::shared_member(name) {
                Self::Other => Self::Additional,
                place => place,
            },
        }
    }

    /// Members that mean the same in the body and among the additional fields.
    fn shared_member(name: &str) -> Self {
        match name {
            "tools" => Self::Tools,
            "functions" | "response_format" | "output_format" | "output_config" | "outputConfig" => {
                Self::Flag(Flag::Tools)
            }
            "mcp_servers" => Self::ServerTool,
            "anthropic_beta" => Self::Flag(Flag::Beta),
            "reasoningConfig" | "reasoning_config" | "reasoning" | "reasoning_effort" | "thinking"
            | "enable_thinking" => Self::Flag(Flag::Reasoning),
            "serviceTier" | "service_tier" => Self::Tier,
            "n" | "numResults" | "num_generations" | "numGenerations" | "best_of" => Self::Choices,
            _ => Self::Other,
        }
    }

    /// What the elements of an array here are for.
    pub(super) const fn element(self) -> Self {
        match self {
            Self::Messages => Self::Message,
            Self::Blocks => Self::Block,
            Self::Tools => Self::Tool,
            Self::Additional => Self::Additional,
            _ => Self::Other,
        }
    }
}

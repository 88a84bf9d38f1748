//! Whose model a call is for, told by its id: it decides which members of a request the model heeds, and what it may
//! do that the request does not show.
//!
//! An id that tells nothing is answered with the most careful reading. Source: AWS's model parameters by provider.

use super::place::Limit;

/// Whose model it is, as far as that decides what a request means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Maker {
    Anthropic,
    Nova,
    Titan,
    Meta,
    /// AI21's first models.
    Jurassic,
    TwelveLabs,
    /// And others that know `max_tokens` only: Cohere, AI21's Jamba, Writer.
    Mistral,
    /// `OpenAI`'s own models and xAI's think behind closed doors; gpt-oss does not.
    Closed,
    Other,
    /// An ARN of one's own.
    Unknown,
}

impl Maker {
    pub(super) fn of(model_id: Option<&str>) -> Self {
        const MARKS: [(&str, Maker); 15] = [
            ("anthropic.", Maker::Anthropic),
            ("claude-", Maker::Anthropic),
            ("amazon.titan", Maker::Titan),
            ("amazon.", Maker::Nova),
            ("meta.", Maker::Meta),
            ("ai21.j2", Maker::Jurassic),
            ("ai21.", Maker::Mistral),
            ("twelvelabs.", Maker::TwelveLabs),
            ("mistral.", Maker::Mistral),
            ("cohere.", Maker::Mistral),
            ("writer.", Maker::Mistral),
            ("openai.gpt-oss", Maker::Other),
            ("openai.", Maker::Closed),
            ("xai.", Maker::Closed),
            (".", Maker::Other),
        ];
        let id = model_id.unwrap_or_default();
        // Of an ARN only the resource tells anything; the partition and the service have names with dots and dashes.
        let id = id.rsplit('/').next().filter(|_| id.starts_with("arn:")).unwrap_or(id);
        MARKS.iter().find(|(mark, _)| id.contains(mark)).map_or(Self::Unknown, |(_, maker)| *maker)
    }

    /// The most that a model is told beside the request: the default system prompts in the chat templates of open models
    /// (gpt-oss about seventy tokens, Devstral some eight hundred). JSON outweighs the few tokens of the others.
    pub(super) const fn template_tokens(self) -> u64 {
        match self {
            Self::Anthropic | Self::Nova | Self::Titan | Self::Jurassic => 0,
            _ => 2_048,
        }
    }

    /// The members that limit the output of InvokeModel, and none that the model would ignore: a limit that is not
    /// heeded is none.
    pub(super) const fn limits(self) -> &'static [Limit] {
        match self {
            Self::Anthropic => &[Limit::MaxTokens, Limit::ToSample],
            Self::Nova => &[Limit::Inference, Limit::InferenceNew],
            Self::Titan => &[Limit::TitanText],
            Self::Meta => &[Limit::Generation],
            Self::Jurassic => &[Limit::Camel],
            Self::TwelveLabs => &[Limit::Output],
            Self::Mistral => &[Limit::MaxTokens],
            Self::Closed | Self::Other => &[Limit::MaxTokens, Limit::Completion],
            Self::Unknown => &[],
        }
    }
}

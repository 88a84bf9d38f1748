//! Meta Llama, and DeepSeek R1 in its first form: counts at the root of the body and of every event.
//!
//! The events count as they go, so only the invocation metrics end a stream. Source: AWS's model parameters for Llama.

use super::super::document::{Field, Role, Site, content, number};

pub(in crate::usage) const COUNTS: Site = Site {
    path: &[],
    role: Role::RunningUsage,
    members: &[number("prompt_token_count", Field::Input), number("generation_token_count", Field::Output)],
};

pub(in crate::usage) const CONTENT: Site =
    Site { path: &[], role: Role::Plain, members: &[content("generation"), content("completion")] };

//! Mistral's text completion format: no usage in the body at all, only headers or invocation metrics.
//!
//! The chat models of Mistral answer in OpenAI's shape (see `openai.rs`). Source: AWS's model parameters for Mistral.

use super::super::document::{Role, Site, content};
use super::super::json_scan::EACH;

pub(in crate::usage) const OUTPUTS: Site =
    Site { path: &["outputs", EACH], role: Role::Plain, members: &[content("text")] };

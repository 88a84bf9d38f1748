//! Cohere Command: usage stands in headers or invocation metrics; `meta.billed_units` where a body has it.
//!
//! Rerank states no usage: its queries follow from the request (see `request.rs`). Source: Cohere's API reference and
//! AWS's model parameters for Command R.

use super::super::document::{Field, Member, Role, Site, content, number};

const UNITS: &[Member] = &[
    number("input_tokens", Field::Input),
    number("output_tokens", Field::Output),
    number("search_units", Field::Queries),
];

pub(in crate::usage) const BILLED_UNITS: Site =
    Site { path: &["meta", "billed_units"], role: Role::Usage, members: UNITS };

pub(in crate::usage) const STREAM_BILLED_UNITS: Site =
    Site { path: &["response", "meta", "billed_units"], role: Role::Usage, members: UNITS };

pub(in crate::usage) const TEXT: Site = Site { path: &[], role: Role::Plain, members: &[content("text")] };

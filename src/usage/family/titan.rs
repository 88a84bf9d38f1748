//! Amazon Titan: text (`inputTextTokenCount`, `results[].tokenCount`) and embeddings (the input count alone).
//!
//! The streaming events count as they go (`totalOutputTextTokenCount`), so only the invocation metrics end them.
//! Source: AWS's model parameters for Titan text and Titan embeddings.

use super::super::document::{Field, Role, Site, content, number};
use super::super::json_scan::EACH;

pub(in crate::usage) const BODY: Site =
    Site { path: &[], role: Role::RunningUsage, members: &[number("inputTextTokenCount", Field::Input)] };

pub(in crate::usage) const RESULTS: Site =
    Site { path: &["results", EACH], role: Role::Result, members: &[number("tokenCount", Field::Output)] };

pub(in crate::usage) const EVENT: Site = Site {
    path: &[],
    role: Role::RunningUsage,
    members: &[
        number("inputTextTokenCount", Field::Input),
        number("totalOutputTextTokenCount", Field::Output),
        content("outputText"),
    ],
};

//! Nova Sonic over InvokeModelWithBidirectionalStream: `usageEvent` with deltas and cumulative totals.
//!
//! Only the totals are read, and the last of them counts. Source: AWS's "Handling output events with the
//! bidirectional API" (Nova user guide).

use super::super::document::{Field, Role, Site, content, number};

pub(in crate::usage) const TOTAL_INPUT: Site = Site {
    path: &["event", "usageEvent", "details", "total", "input"],
    role: Role::RunningUsage,
    members: &[number("speechTokens", Field::AudioInput), number("textTokens", Field::Input)],
};

pub(in crate::usage) const TOTAL_OUTPUT: Site = Site {
    path: &["event", "usageEvent", "details", "total", "output"],
    role: Role::RunningUsage,
    members: &[number("speechTokens", Field::AudioOutput), number("textTokens", Field::Output)],
};

pub(in crate::usage) const TEXT: Site =
    Site { path: &["event", "textOutput"], role: Role::Plain, members: &[content("content")] };

pub(in crate::usage) const AUDIO: Site =
    Site { path: &["event", "audioOutput"], role: Role::Plain, members: &[content("content")] };

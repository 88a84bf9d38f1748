//! InvokeAgent, InvokeInlineAgent and InvokeFlow: usage stands in their traces, if the request asked for traces.
//!
//! The same usage shape recurs in a dozen trace nodes (observations, guardrails, failures); only that of
//! `modelInvocationOutput` is a model call, and summing more would count calls twice. There are no cache counts.
//! Source: Trace, Metadata and FlowTraceEvent of botocore 1.44.5 (bedrock-agent-runtime).

use super::super::document::{Field, Member, Role, Site, number, text};
use super::super::json_scan::{ANY, EACH};

const TOKENS: &[Member] = &[number("inputTokens", Field::Input), number("outputTokens", Field::Output)];
const FOUNDATION_MODEL: &[Member] = &[text("foundationModel", Field::Model)];

pub(in crate::usage) const CALL: Site = Site {
    path: &["trace", ANY, "modelInvocationOutput", "metadata", "usage"],
    role: Role::ModelCall,
    members: TOKENS,
};

pub(in crate::usage) const MODEL: Site =
    Site { path: &["trace", ANY, "modelInvocationInput"], role: Role::Plain, members: FOUNDATION_MODEL };

pub(in crate::usage) const FLOW_CALL: Site = Site {
    path: &[
        "trace",
        "nodeDependencyTrace",
        "traceElements",
        "agentTraces",
        EACH,
        "trace",
        ANY,
        "modelInvocationOutput",
        "metadata",
        "usage",
    ],
    role: Role::ModelCall,
    members: TOKENS,
};

pub(in crate::usage) const FLOW_MODEL: Site = Site {
    path: &["trace", "nodeDependencyTrace", "traceElements", "agentTraces", EACH, "trace", ANY, "modelInvocationInput"],
    role: Role::Plain,
    members: FOUNDATION_MODEL,
};

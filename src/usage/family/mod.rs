//! Where each family of responses reports its usage: one table per family, no code that runs.
//!
//! The sets at the end say which tables apply to which kind of metering. The bodies of InvokeModel are read with all
//! model tables at once, because an ARN may hide the family and because their paths do not collide.

pub(super) mod agent;
pub(super) mod anthropic;
pub(super) mod cohere;
pub(super) mod converse;
pub(super) mod guardrail;
pub(super) mod image;
pub(super) mod llama;
pub(super) mod metrics;
pub(super) mod mistral;
pub(super) mod nova;
pub(super) mod openai;
pub(super) mod request;
pub(super) mod sonic;
pub(super) mod titan;

use super::document::{Field, Member, Role, Site};
use super::json_scan::Want;

/// Copies a table entry: `Site` is not `Copy`, since nothing else should copy it.
const fn site(of: &Site) -> Site {
    Site { path: of.path, role: of.role, members: of.members }
}

/// The envelope of InvokeModelWithResponseStream: the model's own event in base64.
pub(super) const CHUNK: &[Site] = &[Site {
    path: &[],
    role: Role::Plain,
    members: &[Member { name: "bytes", want: Want::Blob, field: Field::Bytes }],
}];

pub(super) const CONVERSE: &[Site] = &[
    site(&converse::USAGE),
    site(&converse::CACHE_DETAILS),
    site(&converse::SERVICE_TIER),
    site(&converse::PERFORMANCE),
    site(&converse::PROMPT_ROUTER),
    site(&guardrail::CONVERSE_INPUT),
    site(&guardrail::CONVERSE_OUTPUT),
];

pub(super) const INVOKE_BODY: &[Site] = &[
    site(&anthropic::USAGE),
    site(&anthropic::CACHE_CREATION),
    site(&nova::USAGE),
    site(&titan::BODY),
    site(&titan::RESULTS),
    site(&llama::COUNTS),
    site(&openai::CHAT_USAGE),
    site(&openai::CHAT_CACHED),
    site(&openai::CHAT_CHOICES),
    site(&cohere::BILLED_UNITS),
    site(&image::BODY),
    site(&guardrail::INVOKE_INPUT),
    site(&guardrail::INVOKE_OUTPUT),
];

pub(super) const INVOKE_EVENT: &[Site] = &[
    site(&metrics::INVOCATION),
    site(&anthropic::FIRST_USAGE),
    site(&anthropic::FIRST_CACHE_CREATION),
    site(&anthropic::USAGE),
    site(&anthropic::CACHE_CREATION),
    site(&anthropic::DELTA),
    site(&nova::STREAM_USAGE),
    site(&nova::DELTA),
    site(&nova::REASONING),
    site(&titan::EVENT),
    site(&llama::COUNTS),
    site(&llama::CONTENT),
    site(&openai::CHAT_USAGE),
    site(&openai::CHAT_CACHED),
    site(&openai::CHAT_CHOICES),
    site(&openai::CHAT_DELTA),
    site(&openai::CHAT_MESSAGE),
    site(&openai::CHAT_TOOL),
    site(&mistral::OUTPUTS),
    site(&cohere::TEXT),
    site(&cohere::STREAM_BILLED_UNITS),
    site(&guardrail::INVOKE_INPUT),
    site(&guardrail::INVOKE_OUTPUT),
];

pub(super) const SONIC: &[Site] =
    &[site(&sonic::TOTAL_INPUT), site(&sonic::TOTAL_OUTPUT), site(&sonic::TEXT), site(&sonic::AUDIO)];

pub(super) const APPLY_GUARDRAIL: &[Site] = &[site(&guardrail::APPLY)];

pub(super) const GUARDRAIL_CHECKS: &[Site] =
    &[site(&guardrail::CHECK_CONTENT), site(&guardrail::CHECK_ATTACK), site(&guardrail::CHECK_SENSITIVE)];

pub(super) const AGENT: &[Site] = &[site(&agent::CALL), site(&agent::MODEL)];

pub(super) const FLOW: &[Site] = &[site(&agent::FLOW_CALL), site(&agent::FLOW_MODEL)];

pub(super) const OPENAI_CHAT: &[Site] = &[
    site(&openai::ROOT),
    site(&openai::CHAT_USAGE),
    site(&openai::CHAT_CACHED),
    site(&openai::CHAT_CHOICES),
    site(&openai::CHAT_DELTA),
    site(&openai::CHAT_TOOL),
];

pub(super) const OPENAI_RESPONSES: &[Site] = &[
    site(&openai::ROOT),
    site(&openai::RESPONSES_USAGE),
    site(&openai::RESPONSES_CACHED),
    site(&openai::RESPONSES_EVENT),
    site(&openai::RESPONSES_EVENT_USAGE),
    site(&openai::RESPONSES_EVENT_CACHED),
];

pub(super) const ANTHROPIC_MESSAGES: &[Site] = &[
    site(&anthropic::FIRST_USAGE),
    site(&anthropic::FIRST_CACHE_CREATION),
    site(&anthropic::FIRST_TIER),
    site(&anthropic::USAGE),
    site(&anthropic::CACHE_CREATION),
    site(&anthropic::TIER),
    site(&anthropic::DELTA),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_fits_the_scanner() {
        for table in [
            CHUNK,
            CONVERSE,
            INVOKE_BODY,
            INVOKE_EVENT,
            SONIC,
            APPLY_GUARDRAIL,
            GUARDRAIL_CHECKS,
            AGENT,
            FLOW,
            OPENAI_CHAT,
            OPENAI_RESPONSES,
            ANTHROPIC_MESSAGES,
        ] {
            assert!(table.len() <= 32);
            for site in table {
                assert!(site.path.len() < 15, "{:?}", site.path);
                let names = site.members.iter().map(|member| member.name).chain(site.path.iter().copied());
                for name in names {
                    assert!(name.len() <= 48, "{name}");
                }
            }
        }
    }
}

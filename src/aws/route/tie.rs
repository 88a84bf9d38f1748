//! Which service is meant where several share a method and a path: by the ARN in the path (`/tags/{resourceArn}`,
//! `/resourcepolicy/{resourceArn}`) or by the ARN in the body (`/tagResource` and its siblings).
//!
//! The rules follow the ARN patterns of the service models. An ARN of a service that is a candidate but of a resource
//! type nobody models goes to that service, which then answers in AWS's own words; what is no ARN of a candidate
//! at all is refused here, because any guess would sign a request for the wrong service.

use std::borrow::Cow;

use serde::Deserialize;

use super::path::decode_segment;
use super::{Entry, Route, RouteError};
use crate::aws::endpoint::Arn;
use crate::aws::operation::{Operation, Service};

/// Resource types of bedrock-data-automation's `TaggableResourceArn`; every other taggable ARN is bedrock's.
const DATA_AUTOMATION_TYPES: [&str; 5] = [
    "blueprint",
    "blueprint-optimization-invocation",
    "data-automation-library",
    "data-automation-library-ingestion-job",
    "data-automation-project",
];

/// A request whose body says which service it is for. The body has to be read before anything can be authorised.
#[derive(Debug, Clone, Copy)]
pub struct BodyTie<'a> {
    pub(super) path: &'a str,
    pub(super) candidates: &'static [Entry],
}

/// The one member that decides. serde refuses a second `resourceARN`, of which AWS might read the other.
#[derive(Deserialize)]
struct Tagged<'a> {
    #[serde(rename = "resourceARN", borrow)]
    resource_arn: Cow<'a, str>,
}

impl<'a> BodyTie<'a> {
    /// Decides by the body's `resourceARN`: bedrock-data-automation for its resource types, otherwise bedrock.
    ///
    /// # Errors
    /// [`RouteError::Ambiguous`] when the body is not a JSON object with exactly one string `resourceARN`.
    pub fn decide(self, body: &[u8]) -> Result<Route<'a>, RouteError> {
        let tagged: Tagged<'_> = serde_json::from_slice(body).map_err(|_| {
            RouteError::Ambiguous(
                "the body must be a JSON object with one string resourceARN, which decides the service",
            )
        })?;
        let wanted = match Arn::parse(&tagged.resource_arn) {
            Some(arn) if DATA_AUTOMATION_TYPES.contains(&arn.resource_type()) => Service::BedrockDataAutomation,
            _ => Service::Bedrock,
        };
        self.route(wanted)
    }

    /// The operations in question: one per service, alike in name. What holds for all of them (that a key may call none
    /// of them, say) can be decided before the body is read.
    pub fn operations(self) -> impl Iterator<Item = &'static Operation> {
        self.candidates.iter().map(|entry| entry.operation)
    }

    fn route(self, wanted: Service) -> Result<Route<'a>, RouteError> {
        pick(self.candidates, wanted)
            .map(|entry| entry.route(self.path))
            .ok_or(RouteError::Ambiguous("no service of this path owns the resource of the body"))
    }
}

/// Decides between services that share a path by the ARN that is its last segment.
pub(super) fn by_path<'a>(path: &'a str, candidates: &'static [Entry]) -> Result<Route<'a>, RouteError> {
    let raw = path.rsplit('/').next().unwrap_or_default();
    let arn = decode_segment(raw).ok_or(RouteError::BadPath("holds an ARN that cannot be decoded"))?;
    let wanted = match Arn::parse(&arn) {
        Some(arn) if arn.service == "bedrock-agentcore" => Service::BedrockAgentCoreControl,
        Some(arn) if arn.service == "bedrock" && arn.resource_type() == "session" => Service::BedrockAgentRuntime,
        Some(arn) if arn.service == "bedrock" => Service::BedrockAgent,
        _ => {
            return Err(RouteError::Ambiguous(
                "the path must end in the percent-encoded ARN of a bedrock or bedrock-agentcore resource, which \
                 decides the service",
            ));
        }
    };
    // A session has tags but no resource policy; bedrock-agent, which owns policies of `bedrock` ARNs, says so.
    pick(candidates, wanted)
        .or_else(|| pick(candidates, Service::BedrockAgent))
        .map(|entry| entry.route(path))
        .ok_or(RouteError::Ambiguous("no service of this path owns the resource of the ARN"))
}

fn pick(candidates: &'static [Entry], wanted: Service) -> Option<&'static Entry> {
    candidates.iter().find(|entry| entry.operation.service == wanted)
}

//! Which of AWS's operations a request asks for. Each Bedrock service has a host of its own at AWS; here all of them
//! share one port, so the service follows from the Host header where that names one, else from the credential scope and
//! the path. Templates come from the service models (`operations.json`); the OpenAI and Anthropic compatible paths,
//! which no model has, are added by hand from AWS's endpoint documentation. Nothing is decoded before it is matched.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::text::percent_decoded;

/// One operation of one service.
#[derive(Debug, Deserialize)]
#[serde(from = "OperationRow")]
pub struct Operation {
    pub service: String,
    pub name: String,
    pub method: String,
    pub template: String,
    /// The status code of success.
    pub status: u16,
    pub signing_name: String,
    /// `X-Amz-Target` of the one JSON-RPC service.
    pub target: Option<String>,
    /// Whether a Bedrock API key is accepted instead of a signature.
    pub bearer: bool,
}

type OperationRow = (String, String, String, String, u16, String, Option<String>, Option<String>, bool);

impl From<OperationRow> for Operation {
    fn from(row: OperationRow) -> Self {
        let (service, name, method, template, status, signing_name, target, _stream, bearer) = row;
        Self { service, name, method, template, status, signing_name, target, bearer }
    }
}

/// What decides the operation.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub method: &'a str,
    /// Raw, without the query.
    pub path: &'a str,
    pub host: &'a str,
    pub amz_target: Option<&'a str>,
    /// The service of the credential scope, where there is a signature.
    pub scope_service: Option<&'a str>,
    pub body: &'a [u8],
}

/// The compatible surfaces: path, name, method.
const COMPATIBLE: [(&str, &str, &str); 10] = [
    ("/openai/v1/chat/completions", "OpenAiChatCompletions", "POST"),
    ("/v1/chat/completions", "OpenAiChatCompletions", "POST"),
    ("/openai/v1/responses", "OpenAiResponses", "POST"),
    ("/v1/responses", "OpenAiResponses", "POST"),
    ("/openai/v1/models", "OpenAiModels", "GET"),
    ("/v1/models", "OpenAiModels", "GET"),
    ("/anthropic/v1/messages", "AnthropicMessages", "POST"),
    ("/v1/messages", "AnthropicMessages", "POST"),
    ("/anthropic/v1/messages/count_tokens", "AnthropicCountTokens", "POST"),
    ("/v1/messages/count_tokens", "AnthropicCountTokens", "POST"),
];

/// Resource types of `bedrock-data-automation` in the ARNs of the tag operations it shares with `bedrock`.
const DATA_AUTOMATION_RESOURCES: [&str; 5] = [
    ":blueprint/",
    ":data-automation-project/",
    ":blueprint-optimization-invocation/",
    ":data-automation-library/",
    ":data-automation-library-ingestion-job/",
];

struct Table {
    /// By first path segment and method.
    by_start: HashMap<(String, String), Vec<Operation>>,
    by_target: HashMap<String, Operation>,
}

static TABLE: LazyLock<Table> = LazyLock::new(Table::load);

/// The operation, or `None` where AWS would answer `UnknownOperationException`.
pub fn recognise(asked: &Asked<'_>) -> Option<&'static Operation> {
    if let Some(target) = asked.amz_target
        && asked.path == "/"
    {
        return TABLE.by_target.get(target).filter(|operation| asked.method == operation.method);
    }
    let start = asked.path.strip_prefix('/')?.split('/').next()?;
    let candidates = TABLE.by_start.get(&(start.to_owned(), asked.method.to_owned()))?;
    let host_service = host_service(asked.host);
    let mut best: Vec<&'static Operation> = Vec::new();
    for operation in candidates {
        let right_host = host_service.is_none_or(|service| service == operation.service);
        if right_host && matches(&operation.template, asked.path) {
            best.push(operation);
        }
    }
    let labels_min = best.iter().map(|operation| labels(operation)).min()?;
    best.retain(|operation| labels(operation) == labels_min);
    match best.as_slice() {
        [only] => Some(only),
        several => several.iter().copied().find(|operation| wins_tie(operation, asked)),
    }
}

/// The text of label number `index` (from 0) of an operation's path, decoded once.
pub fn label(operation: &Operation, path: &str, index: usize) -> Option<String> {
    let pairs = operation.template.split('/').zip(path.split('/'));
    pairs.filter(|(template, _)| template.starts_with('{')).nth(index).map(|(_, raw)| percent_decoded(raw))
}

fn labels(operation: &Operation) -> usize {
    operation.template.matches('{').count()
}

fn matches(template: &str, path: &str) -> bool {
    let mut segments = path.split('/');
    for wanted in template.split('/') {
        let Some(segment) = segments.next() else { return false };
        let fits = if wanted.starts_with('{') { !segment.is_empty() } else { wanted == segment };
        if !fits {
            return false;
        }
    }
    segments.next().is_none()
}

/// `bedrock-agent-runtime` of `bedrock-agent-runtime[-fips].us-east-1.amazonaws.com`; `None` for other hosts.
fn host_service(host: &str) -> Option<&str> {
    let first = host.split('.').next()?;
    let service = first.strip_suffix("-fips").unwrap_or(first);
    match service {
        "bedrock-mantle" => Some("bedrock-runtime"),
        "bedrock"
        | "bedrock-runtime"
        | "bedrock-agent"
        | "bedrock-agent-runtime"
        | "bedrock-agentcore"
        | "bedrock-agentcore-control"
        | "bedrock-data-automation"
        | "bedrock-data-automation-runtime" => Some(service),
        _ => None,
    }
}

/// Whether an operation is the one meant among several of the same method and path: tag and resource-policy operations,
/// which the ARN decides (in the path, or for `/tagResource` and its siblings in the body).
fn wins_tie(operation: &Operation, asked: &Asked<'_>) -> bool {
    if let Some(scope) = asked.scope_service
        && scope == "bedrock-agentcore"
    {
        return operation.signing_name == scope;
    }
    let in_path = asked.path.rsplit('/').next().map(percent_decoded).unwrap_or_default();
    let arn = if in_path.starts_with("arn:") { in_path } else { body_arn(asked.body) };
    let owner = if arn.contains(":bedrock-agentcore:") {
        "bedrock-agentcore-control"
    } else if arn.contains(":session/") {
        "bedrock-agent-runtime"
    } else if DATA_AUTOMATION_RESOURCES.iter().any(|resource| arn.contains(resource)) {
        "bedrock-data-automation"
    } else if matches!(asked.path, "/tagResource" | "/untagResource" | "/listTagsForResource") {
        "bedrock"
    } else {
        "bedrock-agent"
    };
    operation.service == owner
}

fn body_arn(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Tagged {
        #[serde(rename = "resourceARN")]
        resource_arn: String,
    }
    serde_json::from_slice::<Tagged>(body).map(|tagged| tagged.resource_arn).unwrap_or_default()
}

/// How many operations of AWS's models are known; the compatible paths are not counted.
pub fn modelled_count() -> usize {
    let compatible = COMPATIBLE.len();
    TABLE.by_start.values().map(Vec::len).sum::<usize>() + TABLE.by_target.len() - compatible
}

impl Table {
    fn load() -> Self {
        #[derive(Deserialize)]
        struct File {
            operations: Vec<Operation>,
        }
        // The file is part of the program and a test reads it; an unreadable one would leave an empty table.
        let file: Option<File> = serde_json::from_str(include_str!("operations.json")).ok();
        let modelled = file.map(|file| file.operations).unwrap_or_default();
        let mut table = Self { by_start: HashMap::new(), by_target: HashMap::new() };
        for operation in modelled.into_iter().chain(COMPATIBLE.map(compatible)) {
            if let Some(target) = operation.target.clone() {
                table.by_target.insert(target, operation);
            } else {
                let start = operation.template.split('/').nth(1).unwrap_or_default().to_owned();
                table.by_start.entry((start, operation.method.clone())).or_default().push(operation);
            }
        }
        table
    }
}

fn compatible((template, name, method): (&str, &str, &str)) -> Operation {
    Operation {
        service: "bedrock-runtime".to_owned(),
        name: name.to_owned(),
        method: method.to_owned(),
        template: template.to_owned(),
        status: 200,
        signing_name: "bedrock".to_owned(),
        target: None,
        bearer: true,
    }
}

#[cfg(test)]
mod tests;

//! The operations and the indexes over them, read once from `routes.json` and kept for the life of the program.
//!
//! `routes.json` is written by `scripts/make_routes.py` from AWS's service models. The surfaces that bedrock-runtime
//! serves over plain HTTP without a service model (OpenAI's and Anthropic's request forms; AWS user guide, "Inference
//! using the Responses API" and "… Messages API") are added here by hand. That the data is sound is a test, not a
//! run-time branch.

use std::sync::LazyLock;

use serde::Deserialize;

use super::trie::Node;
use super::{Entry, MODEL_PREFIX};
use crate::aws::operation::{AccessClass, Metering, Operation, Service, Streaming};

/// The JSON member in which the HTTP-only surfaces name the model.
const MODEL_MEMBER: &str = "model";

pub(super) static TABLE: LazyLock<Table> = LazyLock::new(Table::read);

/// Everything `find` looks into.
pub(super) struct Table {
    /// AWS's operations, then the HTTP-only ones.
    pub(super) operations: &'static [Operation],
    /// How many of them are AWS's.
    pub(super) native_count: usize,
    /// By the value of `X-Amz-Target`.
    pub(super) targets: Vec<(&'static str, Entry)>,
    /// By the last segment of `/model/{name}/{action}`; they are not in `templates`.
    pub(super) model_actions: Vec<(&'static str, Entry)>,
    pub(super) templates: Node,
}

/// `routes.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(rename = "source", borrow)]
    _source: &'static str,
    #[serde(rename = "date")]
    _date: &'static str,
    operations: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    service: &'static str,
    name: &'static str,
    method: &'static str,
    template: &'static str,
    access: AccessClass,
    #[serde(default = "free")]
    metering: Metering,
    #[serde(default = "not_streamed")]
    streaming: Streaming,
    #[serde(default)]
    stream_exceptions: Vec<&'static str>,
    #[serde(default)]
    bearer: bool,
    #[serde(default)]
    request_headers: Vec<&'static str>,
    #[serde(default)]
    target: Option<&'static str>,
}

fn free() -> Metering {
    Metering::Free
}

fn not_streamed() -> Streaming {
    Streaming::None
}

impl Table {
    #[expect(clippy::expect_used, reason = "the file is compiled in, and a test reads it")]
    fn read() -> Self {
        let document: Document = serde_json::from_str(include_str!("../routes.json")).expect("routes.json is valid");
        let native_count = document.operations.len();
        let mut operations = Vec::with_capacity(native_count + HTTP_ONLY.len());
        let mut targets_of = Vec::with_capacity(native_count);
        for row in document.operations {
            targets_of.push(row.target);
            operations.push(row.into_operation().expect("routes.json names only known services"));
        }
        operations.extend(HTTP_ONLY.iter().map(HttpOnly::operation));
        Self::index(operations.leak(), native_count, &targets_of)
    }

    fn index(operations: &'static [Operation], native_count: usize, targets_of: &[Option<&'static str>]) -> Self {
        let mut table = Self {
            operations,
            native_count,
            targets: Vec::new(),
            model_actions: Vec::new(),
            templates: Node::default(),
        };
        let targets = targets_of.iter().copied().chain(std::iter::repeat(None));
        for ((place, operation), target) in operations.iter().enumerate().zip(targets) {
            let entry = Entry { operation, body_model_member: body_model_member(operation, place >= native_count) };
            let action = operation.template.strip_prefix(MODEL_PREFIX).and_then(|rest| rest.strip_prefix("{modelId}/"));
            match (target, action) {
                (Some(target), _) => table.targets.push((target, entry)),
                (None, Some(action)) => table.model_actions.push((action, entry)),
                (None, None) => table.templates.insert(entry),
            }
        }
        table
    }
}

/// Which member of the request's body names the model, where the path does not.
fn body_model_member(operation: &Operation, http_only: bool) -> Option<&'static str> {
    match operation.metering {
        Metering::StartAsyncInvoke => Some("modelId"),
        _ if http_only && operation.method == "POST" => Some(MODEL_MEMBER),
        _ => None,
    }
}

impl Row {
    /// `None` when the service is not one of ours.
    fn into_operation(self) -> Option<Operation> {
        Some(Operation {
            service: Service::ALL.into_iter().find(|service| service.endpoint_prefix() == self.service)?,
            name: self.name,
            method: self.method,
            template: self.template,
            streaming: self.streaming,
            metering: self.metering,
            access: self.access,
            stream_exceptions: self.stream_exceptions.leak(),
            bearer: self.bearer,
            request_headers: self.request_headers.leak(),
        })
    }
}

/// A surface of bedrock-runtime that no service model describes.
struct HttpOnly {
    name: &'static str,
    method: &'static str,
    template: &'static str,
    metering: Metering,
    streaming: Streaming,
    request_headers: &'static [&'static str],
}

const ANTHROPIC_HEADERS: &[&str] = &["anthropic-beta", "anthropic-version"];

/// `/v1/chat/completions` is what one copy of AWS's page shows in place of `/openai/v1/chat/completions`; it goes
/// upstream as it came. The rest of `/v1` is the admin interface's.
const HTTP_ONLY: &[HttpOnly] = &[
    HttpOnly::post("OpenAiChatCompletions", "/openai/v1/chat/completions", Metering::OpenAiChat),
    HttpOnly::post("OpenAiChatCompletions", "/v1/chat/completions", Metering::OpenAiChat),
    HttpOnly::post("OpenAiResponses", "/openai/v1/responses", Metering::OpenAiResponses),
    HttpOnly {
        request_headers: ANTHROPIC_HEADERS,
        ..HttpOnly::post("AnthropicMessages", "/anthropic/v1/messages", Metering::AnthropicMessages)
    },
    HttpOnly {
        streaming: Streaming::None,
        request_headers: ANTHROPIC_HEADERS,
        ..HttpOnly::post("AnthropicCountTokens", "/anthropic/v1/messages/count_tokens", Metering::Free)
    },
    HttpOnly {
        method: "GET",
        streaming: Streaming::None,
        ..HttpOnly::post("OpenAiListModels", "/openai/v1/models", Metering::Free)
    },
];

impl HttpOnly {
    /// `Raw`, because the body's `stream` decides between JSON and server-sent events.
    const fn post(name: &'static str, template: &'static str, metering: Metering) -> Self {
        Self { name, method: "POST", template, metering, streaming: Streaming::Raw, request_headers: &[] }
    }

    fn operation(&self) -> Operation {
        Operation {
            service: Service::BedrockRuntime,
            name: self.name,
            method: self.method,
            template: self.template,
            streaming: self.streaming,
            metering: self.metering,
            access: AccessClass::Invoke,
            stream_exceptions: &[],
            bearer: true,
            request_headers: self.request_headers,
        }
    }
}

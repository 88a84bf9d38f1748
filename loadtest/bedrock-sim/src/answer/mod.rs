//! Answers, one file per family. An answer is a pure function of the request, the rules and the seed, so that two runs
//! give the same bytes. Shapes follow the service models of botocore 1.44.5; bodies that no model describes (InvokeModel,
//! the compatible surfaces) follow the providers' documentation. Operations without an answer of their own get the
//! modelled status code and an empty object.

mod agent;
mod agentcore;
mod anthropic;
mod asynchronous;
mod catalogue;
mod converse;
mod embedding;
mod generation;
mod guardrail;
mod image;
mod invoke;
mod knowledge;
mod native;
mod openai;

use bytes::Bytes;
use hyper::HeaderMap;
use serde_json::{Value, json};

use crate::behaviour::Rule;
use crate::billing::Bill;
use crate::eventstream;
use crate::operations::{self, Operation};

pub use invoke::token_headers;

const JSON: &str = "application/json";
const EVENT_STREAM: &str = "application/vnd.amazon.eventstream";

/// Everything an answer depends on.
pub struct Ask<'a> {
    pub operation: &'static Operation,
    /// The decoded model id or ARN, from the path or the body.
    pub model: Option<&'a str>,
    pub region: &'a str,
    pub path: &'a str,
    pub host: &'a str,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
    /// The body, or null where it is not JSON.
    pub json: &'a Value,
    pub effect: &'a Rule,
    pub seed: u64,
    pub token_headers: bool,
}

/// A response that has not been sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub content_type: String,
    pub headers: Vec<(&'static str, String)>,
    pub payload: Payload,
}

/// The body of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    Whole(Bytes),
    /// Event-stream frames.
    Frames(Vec<Bytes>),
    /// Server-sent events.
    Events(Vec<Bytes>),
}

/// An answer, and what it costs; `None` costs nothing.
pub type Answered = (Answer, Option<Bill>);

impl Answer {
    pub fn json(status: u16, value: &Value) -> Self {
        let payload = Payload::Whole(Bytes::from(value.to_string()));
        Self { status, content_type: JSON.to_owned(), headers: Vec::new(), payload }
    }

    /// An event stream of `(event type, payload)`; with `padded` every payload gets the `p` member that Bedrock's
    /// runtime adds against traffic analysis.
    pub fn frames(events: impl IntoIterator<Item = (&'static str, Value)>) -> Self {
        let frames = events.into_iter().map(|(name, value)| eventstream::event(name, value.to_string().as_bytes()));
        let payload = Payload::Frames(frames.collect());
        Self { status: 200, content_type: EVENT_STREAM.to_owned(), headers: Vec::new(), payload }
    }

    pub fn events(events: Vec<Bytes>) -> Self {
        let content_type = "text/event-stream; charset=utf-8".to_owned();
        Self { status: 200, content_type, headers: Vec::new(), payload: Payload::Events(events) }
    }
}

/// An error in AWS's JSON form.
pub fn error_answer(status: u16, error_type: &str, message: &str, retry_after_s: Option<u64>) -> Answer {
    let body = if error_type == "UnknownOperationException" {
        json!({ "Output": { "__type": "com.amazon.coral.service#UnknownOperationException" }, "Version": "1.0" })
    } else {
        json!({ "message": message })
    };
    let mut answer = Answer::json(status, &body);
    answer.headers.push(("x-amzn-errortype", error_type.to_owned()));
    answer.headers.extend(retry_after_s.map(|seconds| ("retry-after", seconds.to_string())));
    answer
}

/// The model or profile a request names: in its path, or for some operations in its body.
pub fn model_of(operation: &Operation, path: &str, json: &Value) -> Option<String> {
    if operation.template.starts_with("/model/") {
        return operations::label(operation, path, 0);
    }
    if operation.name == "GetInferenceProfile" {
        return operations::label(operation, path, 0);
    }
    let member = match operation.name.as_str() {
        "StartAsyncInvoke" => json.get("modelId"),
        "InvokeInlineAgent" => json.get("foundationModel"),
        name if name.starts_with("OpenAi") || name.starts_with("Anthropic") => json.get("model"),
        "Rerank" => json.pointer("/rerankingConfiguration/bedrockRerankingConfiguration/modelConfiguration/modelArn"),
        "RetrieveAndGenerate" | "RetrieveAndGenerateStream" => {
            let configuration = json.get("retrieveAndGenerateConfiguration")?;
            let kinds = ["/knowledgeBaseConfiguration/modelArn", "/externalSourcesConfiguration/modelArn"];
            kinds.iter().find_map(|kind| configuration.pointer(kind))
        }
        "InvokeHarness" => json.pointer("/model/bedrockModelConfig/modelId"),
        _ => None,
    };
    member.and_then(Value::as_str).map(str::to_owned)
}

/// The answer to an authentic request.
pub fn answer(ask: &Ask<'_>) -> Answered {
    let free = |answer: Answer| (answer, None);
    if ask.needs_json() && !ask.json.is_object() {
        return free(error_answer(400, "ValidationException", "The request body is not a JSON object.", None));
    }
    match (ask.operation.service.as_str(), ask.operation.name.as_str()) {
        ("bedrock-runtime", name) => match name {
            "Converse" => converse::whole(ask),
            "ConverseStream" => converse::stream(ask),
            "InvokeModel" => invoke::whole(ask),
            "InvokeModelWithResponseStream" => invoke::stream(ask),
            "CountTokens" => free(generation::count_tokens(ask)),
            "ApplyGuardrail" => guardrail::apply(ask),
            "InvokeGuardrailChecks" => guardrail::checks(ask),
            "StartAsyncInvoke" => asynchronous::start(ask),
            "GetAsyncInvoke" => free(asynchronous::get(ask)),
            "ListAsyncInvokes" => free(asynchronous::list(ask)),
            "OpenAiChatCompletions" => openai::chat(ask),
            "OpenAiResponses" => openai::responses(ask),
            "OpenAiModels" => free(catalogue::openai_models()),
            "AnthropicMessages" => anthropic::messages(ask),
            "AnthropicCountTokens" => {
                free(Answer::json(200, &json!({ "input_tokens": generation::prompt_tokens(ask.json) })))
            }
            _ => free(empty(ask)),
        },
        ("bedrock-agent-runtime", name) => match name {
            "InvokeAgent" | "InvokeInlineAgent" => agent::invoke(ask),
            "InvokeFlow" => agent::flow(ask),
            "Retrieve" => free(knowledge::retrieve(ask)),
            "RetrieveAndGenerate" => knowledge::generate(ask),
            "RetrieveAndGenerateStream" => knowledge::generate_stream(ask),
            "Rerank" => knowledge::rerank(ask),
            "GenerateQuery" => knowledge::generate_query(ask),
            "OptimizePrompt" => knowledge::optimize_prompt(ask),
            "AgenticRetrieveStream" => knowledge::agentic_retrieve(ask),
            _ => free(empty(ask)),
        },
        ("bedrock-agentcore", name) => match name {
            "InvokeAgentRuntime" => free(agentcore::runtime(ask)),
            "InvokeHarness" => agentcore::harness(ask),
            "InvokeCodeInterpreter" => free(agentcore::code_interpreter()),
            "InvokeAgentRuntimeCommand" => free(agentcore::command()),
            _ => free(empty(ask)),
        },
        ("bedrock", "ListInferenceProfiles") => free(catalogue::inference_profiles(ask)),
        ("bedrock", "GetInferenceProfile") => free(catalogue::inference_profile(ask)),
        ("bedrock", "ListFoundationModels") => free(catalogue::foundation_models(ask)),
        ("bedrock", "GetFoundationModel") => free(catalogue::foundation_model(ask)),
        _ => free(empty(ask)),
    }
}

fn empty(ask: &Ask<'_>) -> Answer {
    let mut answer = Answer::json(ask.operation.status, &json!({}));
    if ask.operation.status == 204 {
        answer.payload = Payload::Whole(Bytes::new());
    }
    answer
}

impl Ask<'_> {
    /// Whether the answer is made of a JSON body.
    fn needs_json(&self) -> bool {
        let generates = matches!(self.operation.service.as_str(), "bedrock-runtime" | "bedrock-agent-runtime");
        generates
            && self.operation.method == "POST"
            && self.operation.name != "InvokeModelWithBidirectionalStream"
            && !self.operation.template.starts_with("/tags/")
            && !self.operation.template.starts_with("/sessions")
    }

    fn header(&self, name: &str) -> Option<&str> {
        crate::service::header(self.headers, name)
    }

    /// The number of a path label's text, decoded.
    fn label(&self, index: usize) -> String {
        operations::label(self.operation, self.path, index).unwrap_or_default()
    }

    /// The model that is billed: of an application inference profile the one behind it.
    fn billed_model(&self) -> Option<String> {
        let behind = |model: &str| catalogue::model_behind(self, model).unwrap_or_else(|| model.to_owned());
        self.effect.billed_model.clone().or_else(|| self.model.map(behind))
    }

    fn is_mantle(&self) -> bool {
        self.host.starts_with("bedrock-mantle.") || self.path.starts_with("/v1/")
    }

    fn bill(&self, generation: &generation::Generation) -> Bill {
        Bill {
            model: self.billed_model(),
            usage: generation.usage,
            tier: generation.tier.clone(),
            image: None,
            mantle: self.is_mantle(),
        }
    }
}

#[cfg(test)]
mod tests;

//! What an operation of a Bedrock service is: its name, how it streams, what it costs to know its usage, and who may
//! call it. The table itself is data (`routes.json`), read once by `route.rs`.

use serde::Deserialize;

/// The services that answer for Bedrock. Order is that of AWS's documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    Bedrock,
    BedrockRuntime,
    BedrockAgent,
    BedrockAgentRuntime,
    BedrockDataAutomation,
    BedrockDataAutomationRuntime,
    BedrockAgentCore,
    BedrockAgentCoreControl,
}

impl Service {
    pub const ALL: [Self; 8] = [
        Self::Bedrock,
        Self::BedrockRuntime,
        Self::BedrockAgent,
        Self::BedrockAgentRuntime,
        Self::BedrockDataAutomation,
        Self::BedrockDataAutomationRuntime,
        Self::BedrockAgentCore,
        Self::BedrockAgentCoreControl,
    ];

    /// AWS's endpoint prefix, which is also our name for the service: `bedrock-runtime`.
    #[must_use]
    pub const fn endpoint_prefix(self) -> &'static str {
        match self {
            Self::Bedrock => "bedrock",
            Self::BedrockRuntime => "bedrock-runtime",
            Self::BedrockAgent => "bedrock-agent",
            Self::BedrockAgentRuntime => "bedrock-agent-runtime",
            Self::BedrockDataAutomation => "bedrock-data-automation",
            Self::BedrockDataAutomationRuntime => "bedrock-data-automation-runtime",
            Self::BedrockAgentCore => "bedrock-agentcore",
            Self::BedrockAgentCoreControl => "bedrock-agentcore-control",
        }
    }

    /// The service name in a SigV4 credential scope.
    #[must_use]
    pub const fn signing_name(self) -> &'static str {
        match self {
            Self::BedrockAgentCore | Self::BedrockAgentCoreControl => "bedrock-agentcore",
            _ => "bedrock",
        }
    }

    /// What follows `AWS_ENDPOINT_URL_` in the name of the environment variable that overrides the endpoint.
    #[must_use]
    pub const fn endpoint_variable_suffix(self) -> &'static str {
        match self {
            Self::Bedrock => "BEDROCK",
            Self::BedrockRuntime => "BEDROCK_RUNTIME",
            Self::BedrockAgent => "BEDROCK_AGENT",
            Self::BedrockAgentRuntime => "BEDROCK_AGENT_RUNTIME",
            Self::BedrockDataAutomation => "BEDROCK_DATA_AUTOMATION",
            Self::BedrockDataAutomationRuntime => "BEDROCK_DATA_AUTOMATION_RUNTIME",
            Self::BedrockAgentCore => "BEDROCK_AGENTCORE",
            Self::BedrockAgentCoreControl => "BEDROCK_AGENTCORE_CONTROL",
        }
    }

    /// Whether the service takes a Bedrock API key in place of SigV4 (its `auth` trait lists `httpBearerAuth`).
    #[must_use]
    pub const fn accepts_bearer(self) -> bool {
        matches!(self, Self::Bedrock | Self::BedrockRuntime)
    }
}

/// One operation of one service.
#[derive(Debug, PartialEq, Eq)]
pub struct Operation {
    pub service: Service,
    /// AWS's name: `ConverseStream`.
    pub name: &'static str,
    pub method: &'static str,
    /// The path template, `/model/{modelId}/converse-stream`.
    pub template: &'static str,
    pub streaming: Streaming,
    pub metering: Metering,
    pub access: AccessClass,
    /// Names of exceptions that the operation models inside its event stream, lowerCamel; empty where it has none.
    pub stream_exceptions: &'static [&'static str],
    /// Whether a Bedrock API key may authenticate it upstream.
    pub bearer: bool,
    /// Request headers (lower case) that the operation itself models, such as `mcp-session-id`; they go upstream.
    pub request_headers: &'static [&'static str],
}

/// How the body of the answer arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Streaming {
    /// One body.
    None,
    /// `application/vnd.amazon.eventstream` out.
    EventStream,
    /// Whatever the callee emits, possibly server-sent events; nothing is known of its form.
    Raw,
    /// Event streams in both directions, signed frame by frame.
    Bidirectional,
}

/// Where the usage of an operation is to be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
pub enum Metering {
    /// Generates nothing that is billed by the call.
    Free,
    Converse,
    ConverseStream,
    InvokeModel,
    InvokeModelStream,
    InvokeModelBidirectional,
    ApplyGuardrail,
    GuardrailChecks,
    /// Priced from the request; the answer is an ARN.
    StartAsyncInvoke,
    /// One query a request.
    Rerank,
    /// Usage stands in the trace, if the request asked for one.
    AgentTrace,
    FlowTrace,
    /// AgentCore's harness: a metadata event with a usage object.
    Harness,
    /// Generates, but reports no usage at all: costs its entry in `operation_prices`.
    Unreported,
    /// `/openai/v1/chat/completions`
    OpenAiChat,
    /// `/openai/v1/responses`
    OpenAiResponses,
    /// `/anthropic/v1/messages`
    AnthropicMessages,
}

/// What a virtual key needs in order to call an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
pub enum AccessClass {
    /// Operations of the data planes: runtime, agent-runtime, AgentCore, data automation runtime.
    Invoke,
    /// `Get*` and `List*` of the control planes.
    Read,
    /// Everything else on the control planes, and what on a data plane hands out stored secrets, runs commands or pays.
    Write,
}

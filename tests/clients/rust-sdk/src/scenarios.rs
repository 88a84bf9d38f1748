//! The calls whose request is sent whole, by Converse, InvokeModel and an agent, and their answers: at once or as an
//! event stream.

use aws_sdk_bedrockagentruntime::types::ResponseStream as AgentEvent;
use aws_sdk_bedrockruntime::Client;
use aws_sdk_bedrockruntime::primitives::Blob;
use aws_sdk_bedrockruntime::types::{
    ContentBlock, ContentBlockDelta, ConversationRole, ConverseStreamOutput, InferenceConfiguration, Message,
    ResponseStream, TokenUsage,
};
use serde_json::{Value, json};

use crate::report::Heard;

const PROMPT: &str = "Tell me a story";
const TOKENS_MAX: i32 = 100;

fn messages() -> Option<Vec<Message>> {
    let message = Message::builder().role(ConversationRole::User).content(ContentBlock::Text(PROMPT.to_owned()));
    message.build().ok().map(|message| vec![message])
}

fn limits() -> InferenceConfiguration {
    InferenceConfiguration::builder().max_tokens(TOKENS_MAX).build()
}

fn anthropic_body() -> Blob {
    let messages = [json!({ "role": "user", "content": PROMPT })];
    let body = json!({ "anthropic_version": "bedrock-2023-05-31", "max_tokens": TOKENS_MAX, "messages": messages });
    Blob::new(body.to_string())
}

fn usage(usage: Option<&TokenUsage>) -> Value {
    usage.map(|usage| json!({ "input": usage.input_tokens, "output": usage.output_tokens })).unwrap_or_default()
}

/// Converse.
pub async fn chat(client: &Client, model: &str) -> Value {
    let mut heard = Heard::default();
    let asked = client.converse().model_id(model).set_messages(messages()).inference_config(limits());
    match asked.send().await {
        Ok(answer) => {
            let content = answer.output().and_then(|output| output.as_message().ok()).map(Message::content);
            let texts = content.unwrap_or_default().iter().filter_map(|block| block.as_text().ok());
            heard.text = texts.map(String::as_str).collect();
            heard.events = 1;
            heard.usage = usage(answer.usage());
            heard.whole()
        }
        Err(error) => heard.refused(&error),
    }
}

/// ConverseStream.
pub async fn stream(client: &Client, model: &str) -> Value {
    let mut heard = Heard::default();
    let asked = client.converse_stream().model_id(model).set_messages(messages()).inference_config(limits());
    let mut answer = match asked.send().await {
        Ok(answer) => answer,
        Err(error) => return heard.refused(&error),
    };
    loop {
        let event = match answer.stream.recv().await {
            Ok(Some(event)) => event,
            Ok(None) => return heard.whole(),
            Err(error) => return heard.broke_off(&error),
        };
        heard.events += 1;
        match event {
            ConverseStreamOutput::ContentBlockDelta(event) => {
                if let Some(ContentBlockDelta::Text(text)) = event.delta {
                    heard.text.push_str(&text);
                }
            }
            ConverseStreamOutput::Metadata(metadata) => heard.usage = usage(metadata.usage()),
            _ => {}
        }
    }
}

/// InvokeModel, with Anthropic's body.
pub async fn invoke(client: &Client, model: &str) -> Value {
    let mut heard = Heard::default();
    match client.invoke_model().model_id(model).body(anthropic_body()).send().await {
        Ok(answer) => {
            let body: Value = serde_json::from_slice(answer.body().as_ref()).unwrap_or_default();
            let blocks = body["content"].as_array().into_iter().flatten();
            heard.text = blocks.filter_map(|block| block["text"].as_str()).collect();
            heard.events = 1;
            heard.usage = json!({ "input": body["usage"]["input_tokens"], "output": body["usage"]["output_tokens"] });
            heard.whole()
        }
        Err(error) => heard.refused(&error),
    }
}

/// InvokeModelWithResponseStream, with Anthropic's body and events.
pub async fn invoke_stream(client: &Client, model: &str) -> Value {
    let mut heard = Heard::default();
    let asked = client.invoke_model_with_response_stream().model_id(model).body(anthropic_body());
    let mut answer = match asked.send().await {
        Ok(answer) => answer,
        Err(error) => return heard.refused(&error),
    };
    heard.usage = json!({ "input": null, "output": null });
    loop {
        let event = match answer.body.recv().await {
            Ok(Some(event)) => event,
            Ok(None) => return heard.whole(),
            Err(error) => return heard.broke_off(&error),
        };
        heard.events += 1;
        let ResponseStream::Chunk(part) = event else { continue };
        let bytes = part.bytes.map(Blob::into_inner).unwrap_or_default();
        let event: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        heard.text.push_str(event["delta"]["text"].as_str().unwrap_or_default());
        // The first event states the input, the last but one the whole output.
        if let Some(tokens) = event["message"]["usage"]["input_tokens"].as_u64() {
            heard.usage["input"] = tokens.into();
        }
        if let Some(tokens) = event["usage"]["output_tokens"].as_u64() {
            heard.usage["output"] = tokens.into();
        }
    }
}

/// InvokeAgent, whose answer is an event stream.
pub async fn agent(client: &aws_sdk_bedrockagentruntime::Client) -> Value {
    let mut heard = Heard::default();
    let asked = client.invoke_agent().agent_id("AGENT12345").agent_alias_id("ALIAS12345").session_id("s1");
    let mut answer = match asked.input_text(PROMPT).send().await {
        Ok(answer) => answer,
        Err(error) => return heard.refused(&error),
    };
    loop {
        match answer.completion.recv().await {
            Ok(Some(event)) => {
                heard.events += 1;
                if let AgentEvent::Chunk(part) = event {
                    let bytes = part.bytes.map(Blob::into_inner).unwrap_or_default();
                    heard.text.push_str(&String::from_utf8_lossy(&bytes));
                }
            }
            Ok(None) => return heard.whole(),
            Err(error) => return heard.broke_off(&error),
        }
    }
}

//! InvokeModelWithBidirectionalStream: a conversation in which each input is sent when the answer to the one before it
//! is here. Request and answer are open at once, over HTTP/2 with TLS and over HTTP/1.1 to http:// URLs.

use aws_sdk_bedrockruntime::Client;
use aws_sdk_bedrockruntime::primitives::Blob;
use aws_sdk_bedrockruntime::types::error::InvokeModelWithBidirectionalStreamInputError as InputError;
use aws_sdk_bedrockruntime::types::{
    BidirectionalInputPayloadPart, InvokeModelWithBidirectionalStreamInput as Input,
    InvokeModelWithBidirectionalStreamOutput as Output,
};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::report::Heard;

fn input(number: u64) -> Input {
    let event = json!({ "event": { "textInput": { "content": format!("input {number}") } } }).to_string();
    Input::Chunk(BidirectionalInputPayloadPart::builder().bytes(Blob::new(event)).build())
}

/// Holds a conversation of so many turns. Its text is that of every answer, a line each.
pub async fn hold(client: &Client, model: &str, turns: u64) -> Value {
    let mut heard = Heard::default();
    let (inputs, receiver) = mpsc::channel(1);
    let body = futures::stream::unfold(receiver, |mut receiver| async {
        let number: u64 = receiver.recv().await?;
        Some((Ok::<_, InputError>(input(number)), receiver))
    });
    // The SDK asks again after the end.
    let body = body.fuse();
    // A model may say something only when it has heard something.
    let mut said = 1;
    let mut inputs = inputs.send(said).await.is_ok().then_some(inputs);
    let asked = client.invoke_model_with_bidirectional_stream().model_id(model).body(body.into());
    let mut answer = match asked.send().await {
        Ok(answer) => answer,
        Err(error) => return heard.refused(&error),
    };
    loop {
        let event = match answer.body.recv().await {
            Ok(Some(Output::Chunk(part))) => part.bytes.map(Blob::into_inner).unwrap_or_default(),
            Ok(Some(_)) => continue,
            Ok(None) => return heard.whole(),
            Err(error) => return heard.broke_off(&error),
        };
        heard.events += 1;
        let event: Value = serde_json::from_slice(&event).unwrap_or_default();
        let event = &event["event"];
        if let Some(usage) = event.get("usageEvent") {
            heard.usage = json!({ "input": usage["totalInputTokens"], "output": usage["totalOutputTokens"] });
        }
        if let Some(text) = event["textOutput"]["content"].as_str() {
            heard.text.push_str(text);
            heard.text.push('\n');
            said += 1;
            match &inputs {
                Some(open) if said <= turns && open.send(said).await.is_ok() => {}
                // The request ends here, and then the answer does.
                _ => inputs = None,
            }
        }
    }
}

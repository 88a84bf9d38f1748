//! What a scenario answers with: what the model said, or an error as an application would see it.

use std::fmt::Debug;

use aws_sdk_bedrockruntime::config::http::HttpResponse;
use aws_sdk_bedrockruntime::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use serde_json::{Value, json};

/// What came of an answer so far.
#[derive(Debug, Default)]
pub struct Heard {
    pub text: String,
    pub events: u64,
    pub usage: Value,
}

impl Heard {
    /// An answer that came to its end.
    pub fn whole(self) -> Value {
        json!({ "text": self.text, "events": self.events, "usage": self.usage })
    }

    /// No answer but an error.
    pub fn refused<E: ProvideErrorMetadata + std::error::Error + 'static>(
        self,
        error: &SdkError<E, HttpResponse>,
    ) -> Value {
        let status = error.raw_response().map(|response| response.status().as_u16());
        self.failed(error, status)
    }

    /// An error in place of the rest of a stream, which has no status.
    pub fn broke_off<E: ProvideErrorMetadata + std::error::Error + 'static, R: Debug>(
        self,
        error: &SdkError<E, R>,
    ) -> Value {
        self.failed(error, None)
    }

    fn failed<E: ProvideErrorMetadata + std::error::Error + 'static, R: Debug>(
        self,
        error: &SdkError<E, R>,
        status: Option<u16>,
    ) -> Value {
        // A modelled exception is a variant of the operation's error; what the service did not say, one of the SDK's.
        let class = error.as_service_error().map_or_else(|| variant(error), |error| variant(error));
        let message = error.message().map_or_else(|| DisplayErrorContext(error).to_string(), str::to_owned);
        let told = json!({ "class": class, "code": error.code(), "status": status, "message": message });
        json!({ "error": told, "text_so_far": self.text, "events": self.events })
    }
}

/// The name of an enum's variant.
fn variant(value: &dyn Debug) -> String {
    let text = format!("{value:?}");
    text.split(['(', ' ', '{']).next().unwrap_or_default().to_owned()
}

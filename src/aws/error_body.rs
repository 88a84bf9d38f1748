//! Errors in AWS's own form: `x-amzn-errortype` and `{"message": …}`, so that every SDK raises the class it knows.
//!
//! The only place that builds an error response. Which SDK retries what was measured with boto3 1.39–1.44, the JS SDK
//! v3, the Rust SDK and Anthropic's SDKs on 2026-11-22: budgets are a 400 (a 429 would be retried), throttles carry
//! both `Retry-After` and `x-amz-retry-after`, Anthropic's SDKs obey `x-should-retry`.

use std::time::Duration;

use super::eventstream::encode::{HeaderValue, frame};

/// The exception a client sees. Names and statuses are those of the Bedrock service models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorType {
    AccessDenied,
    InternalServer,
    ModelTimeout,
    ResourceNotFound,
    ServiceQuotaExceeded,
    ServiceUnavailable,
    Throttling,
    UnknownOperation,
    Validation,
}

impl ErrorType {
    /// The value of `x-amzn-errortype`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AccessDenied => "AccessDeniedException",
            Self::InternalServer => "InternalServerException",
            Self::ModelTimeout => "ModelTimeoutException",
            Self::ResourceNotFound => "ResourceNotFoundException",
            Self::ServiceQuotaExceeded => "ServiceQuotaExceededException",
            Self::ServiceUnavailable => "ServiceUnavailableException",
            Self::Throttling => "ThrottlingException",
            Self::UnknownOperation => "UnknownOperationException",
            Self::Validation => "ValidationException",
        }
    }

    /// The HTTP status AWS pairs it with in bedrock-runtime.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::AccessDenied => 403,
            Self::InternalServer => 500,
            Self::ModelTimeout => 408,
            Self::ResourceNotFound | Self::UnknownOperation => 404,
            Self::ServiceQuotaExceeded | Self::Validation => 400,
            Self::ServiceUnavailable => 503,
            Self::Throttling => 429,
        }
    }
}

/// One error response, complete but for the headers every answer of the proxy has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorResponse {
    pub kind: ErrorType,
    pub status: u16,
    /// For the client: what is wrong and what to do about it. Never internal detail.
    pub message: String,
    /// When a retry makes sense.
    pub retry_after: Option<Duration>,
    /// Tells SDKs that obey it whether to retry, whatever the status.
    pub should_retry: Option<bool>,
}

impl ErrorResponse {
    #[must_use]
    pub fn new(kind: ErrorType, message: impl Into<String>) -> Self {
        Self { kind, status: kind.status(), message: message.into(), retry_after: None, should_retry: None }
    }

    /// Another status than AWS's usual one, such as 413 for a body that is too large.
    #[must_use]
    pub const fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    #[must_use]
    pub const fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// Asks SDKs not to repeat the request: repeating would be billed again, or be refused again.
    #[must_use]
    pub const fn no_retry(mut self) -> Self {
        self.should_retry = Some(false);
        self
    }

    /// The headers besides `content-length`, lower case.
    #[must_use]
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers =
            vec![("content-type", "application/json".to_owned()), ("x-amzn-errortype", self.kind.name().to_owned())];
        if let Some(delay) = self.retry_after {
            // Retry-After has whole seconds; SDKs of AWS read the millisecond header instead.
            headers.push(("retry-after", delay.as_millis().div_ceil(1000).to_string()));
            headers.push(("x-amz-retry-after", delay.as_millis().to_string()));
        }
        if let Some(retry) = self.should_retry {
            headers.push(("x-should-retry", retry.to_string()));
        }
        headers
    }

    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        message_json(&self.message)
    }
}

/// An event-stream exception frame: how an error is told once a stream has begun. `exception` is a name the operation
/// models, lowerCamel; SDKs lose the message of any other.
#[must_use]
pub fn exception_frame(exception: &str, message: &str) -> Vec<u8> {
    frame(
        &[
            (":exception-type", HeaderValue::String(exception)),
            (":content-type", HeaderValue::String("application/json")),
            (":message-type", HeaderValue::String("exception")),
        ],
        &message_json(message),
    )
}

fn message_json(message: &str) -> Vec<u8> {
    serde_json::json!({ "message": message }).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_awss_name_and_status() {
        for (kind, name, status) in [
            (ErrorType::AccessDenied, "AccessDeniedException", 403),
            (ErrorType::InternalServer, "InternalServerException", 500),
            (ErrorType::ModelTimeout, "ModelTimeoutException", 408),
            (ErrorType::ResourceNotFound, "ResourceNotFoundException", 404),
            (ErrorType::ServiceQuotaExceeded, "ServiceQuotaExceededException", 400),
            (ErrorType::ServiceUnavailable, "ServiceUnavailableException", 503),
            (ErrorType::Throttling, "ThrottlingException", 429),
            (ErrorType::UnknownOperation, "UnknownOperationException", 404),
            (ErrorType::Validation, "ValidationException", 400),
        ] {
            assert_eq!((kind.name(), kind.status()), (name, status));
        }
    }

    #[test]
    fn a_message_is_escaped_and_a_delay_is_rounded_up_to_seconds() {
        let response = ErrorResponse::new(ErrorType::Throttling, "say \"no\"\r\n")
            .retry_after(Duration::from_millis(1_200))
            .no_retry();
        assert_eq!(response.body(), br#"{"message":"say \"no\"\r\n"}"#);
        let headers = response.headers();
        for expected in [
            ("x-amzn-errortype", "ThrottlingException"),
            ("retry-after", "2"),
            ("x-amz-retry-after", "1200"),
            ("x-should-retry", "false"),
        ] {
            assert!(headers.iter().any(|(name, value)| (*name, value.as_str()) == expected), "{expected:?}");
        }
    }
}

//! Whether an error says that the prompt does not fit into the model: another deployment of it would say the same, a
//! model with a larger window may not.
//!
//! There is no code for it, so the message decides. The texts are those that LiteLLM 1.106 maps to its
//! `ContextWindowExceededError` for Bedrock (read 2026-11-23), Anthropic's of a prompt and a `max_tokens` that do not fit
//! together, and that of models served with vLLM. A throttle says `Too many tokens, please wait`, and is none.

use serde::Deserialize;

/// Larger bodies are not read for it; the longest of these errors has some 300 bytes.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// In lower case.
const TEXTS: [&str; 11] = [
    "prompt is too long",
    "prompt: length: 1..",
    "input is too long",
    "too many tokens",
    "too many input tokens",
    "number of input tokens exceeds",
    "expected maxlength:",
    "maximum context length",
    "exceed context limit",
    "context window",
    "context_length_exceeded",
];
const THROTTLE: &str = "please wait";

/// Either form of an error: AWS's, or that of the surfaces of Anthropic and OpenAI.
#[derive(Debug, Deserialize)]
struct Body {
    #[serde(alias = "Message")]
    message: Option<String>,
    error: Option<Inner>,
}

#[derive(Debug, Deserialize)]
struct Inner {
    message: Option<String>,
    code: Option<serde_json::Value>,
}

/// Whether an answer with status 400 is such an error. `error_type` is its `x-amzn-errortype`, if it has one.
#[must_use]
pub fn is_exceeded(error_type: Option<&str>, body: &[u8]) -> bool {
    // AWS may add `:http://…` to the name.
    let named = error_type.map(|name| name.split(':').next().unwrap_or_default().trim());
    if named.is_some_and(|name| name != "ValidationException") || body.len() > BODY_BYTES_MAX {
        return false;
    }
    let Ok(body) = serde_json::from_slice::<Body>(body) else {
        return false;
    };
    let inner = body.error.map(|inner| (inner.message, inner.code));
    let (message, code) = inner.unwrap_or((body.message, None));
    let code = code.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default();
    let text = format!("{} {code}", message.unwrap_or_default()).to_lowercase();
    TEXTS.iter().any(|known| text.contains(known)) && !text.contains(THROTTLE)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn errors_of_a_prompt_that_is_too_long_are_told_from_others() {
        for (message, expected) in [
            ("The model returned the following errors: prompt is too long: 200049 tokens > 200000 maximum", true),
            ("The model returned the following errors: Input is too long for requested model.", true),
            ("Input is too long for requested model.", true),
            (
                "input length and `max_tokens` exceed context limit: 90402 + 116650 > 204648, decrease input length",
                true,
            ),
            ("This model's maximum context length is 8192 tokens. Please reduce the length of the prompt", true),
            ("400 Bad Request: Too many input tokens. Max input tokens: 8192, request input token count: 10000", true),
            ("Input Tokens Exceeded: Number of input tokens exceeds maximum length. Please update the input.", true),
            ("too many tokens: total number of tokens in the prompt cannot exceed 4081", true),
            ("Malformed input request: expected maxLength: 50000, actual: 65312, please reformat your input", true),
            ("prompt: length: 1..100000", true),
            ("The request exceeds the model's context window", true),
            ("Too many tokens, please wait before trying again.", false),
            ("max_tokens: 100000 > 8192, which is the maximum allowed number of output tokens", false),
            ("The provided model identifier is invalid.", false),
            ("messages: at least one message is required", false),
            ("The text in the field is blank", false),
            ("", false),
        ] {
            let body = json!({ "message": message }).to_string();
            assert_eq!(is_exceeded(Some("ValidationException"), body.as_bytes()), expected, "{message}");
            let upper = json!({ "Message": message }).to_string();
            assert_eq!(is_exceeded(Some("ValidationException:http://x/"), upper.as_bytes()), expected, "{message}");
            let surface = json!({ "type": "error", "error": { "type": "invalid_request_error", "message": message } });
            assert_eq!(is_exceeded(None, surface.to_string().as_bytes()), expected, "{message}");
            assert!(!is_exceeded(Some("AccessDeniedException"), body.as_bytes()), "{message}");
        }
    }

    #[test]
    fn a_code_says_it_too_and_a_number_says_nothing() {
        let body = |code| json!({ "error": { "message": "no", "code": code } }).to_string();
        assert!(is_exceeded(None, body(json!("context_length_exceeded")).as_bytes()));
        assert!(!is_exceeded(None, body(json!(400)).as_bytes()));
        assert!(!is_exceeded(None, body(json!(null)).as_bytes()));
    }

    #[test]
    fn what_is_no_error_document_says_nothing() {
        for body in [&b""[..], b"prompt is too long", b"[]", b"{\"message\":7}", b"{\"error\":\"prompt is too long\"}"]
        {
            assert!(!is_exceeded(None, body), "{}", String::from_utf8_lossy(body));
        }
        let long = json!({ "message": format!("prompt is too long{}", " ".repeat(BODY_BYTES_MAX)) }).to_string();
        assert!(!is_exceeded(None, long.as_bytes()));
    }
}

//! A request to the management API, read whole and without its transport: the proxy makes one of these, the pages of
//! `admin` answer it. Who asks is decided before: nothing here authenticates.

use bytes::Bytes;
use percent_encoding::percent_decode_str;

pub use super::status::Answer;
use crate::aws::error_body::ErrorResponse;

/// A request for one of the proxy's own pages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ApiRequest {
    /// `GET`, `POST` …
    pub method: String,
    /// As sent, without the query.
    pub path: String,
    /// What follows `?`, still percent-encoded; empty when nothing does.
    pub query: String,
    /// The `Accept` header.
    pub accept: Option<String>,
    pub body: Bytes,
}

impl Answer {
    /// Text in one piece. Nothing here may be kept by a cache: it tells of keys and money.
    #[must_use]
    pub fn of(status: u16, content_type: &str, body: Vec<u8>) -> Self {
        Self {
            status,
            headers: vec![("content-type", content_type.to_owned()), ("cache-control", "no-store".to_owned())],
            body,
        }
    }

    /// An error in AWS's form.
    #[must_use]
    pub fn error(error: &ErrorResponse) -> Self {
        Self { status: error.status, headers: error.headers(), body: error.body() }
    }
}

/// The parameters of `query`, decoded, in their order. `+` is a space, as forms write it.
///
/// # Errors
/// When a part is no UTF-8: the message for the client.
pub fn parameters(query: &str) -> Result<Vec<(String, String)>, String> {
    let decoded = |part: &str| {
        let spaced = part.replace('+', " ");
        let text = percent_decode_str(&spaced).decode_utf8().map(std::borrow::Cow::into_owned);
        text.map_err(|_| "The query is not UTF-8, percent-encoded.".to_owned())
    };
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok((decoded(name)?, decoded(value)?))
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::parameters;

    #[test]
    fn parameters_are_decoded_in_their_order() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(parameters(""), Ok(Vec::new()));
        assert_eq!(
            parameters("a=1&&b=x%26y+z&c&a=%C3%A9%2B"),
            Ok(vec![pair("a", "1"), pair("b", "x&y z"), pair("c", ""), pair("a", "é+")])
        );
        assert!(parameters("a=%ff").is_err());
    }
}

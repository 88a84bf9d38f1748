//! What a proxy must never let through to AWS: a client's keys, hop-by-hop headers, its own diagnostics, framing that
//! two parsers may read differently. Each finding is a sentence in the record and a 400 to whoever sent it. AWS would
//! ignore most of these; here they are defects of the proxy under test.

use hyper::HeaderMap;

/// Headers that must not arrive, by name.
const NAMES: [&str; 8] = ["x-api-key", "api-key", "expect", "te", "upgrade", "keep-alive", "trailer", "cookie"];
/// Headers that must not arrive, by the start of their name.
const STARTS: [&str; 3] = ["x-dheera-", "x-litellm-", "proxy-"];
/// How virtual keys begin. AWS's API keys begin with `ABSK` or `bedrock-api-key-`.
const VIRTUAL_KEY_STARTS: [&str; 3] = ["sk-", "dk-", "dheera"];

/// Every finding about a request's head.
pub fn find(path: &str, query: &str, headers: &HeaderMap, ambiguous_framing: bool) -> Vec<String> {
    let mut findings = Vec::new();
    if ambiguous_framing {
        findings.push("transfer-encoding and content-length together".to_owned());
    }
    for name in headers.keys().map(hyper::header::HeaderName::as_str) {
        if NAMES.contains(&name) || STARTS.iter().any(|start| name.starts_with(start)) {
            findings.push(format!("header {name}"));
        }
    }
    for nominated in nominated_by_connection(headers) {
        if headers.contains_key(&nominated) {
            findings.push(format!("header {nominated}, which connection nominates"));
        }
    }
    if headers.get("authorization").and_then(|value| value.to_str().ok()).is_some_and(carries_virtual_key) {
        findings.push("a virtual key in authorization".to_owned());
    }
    let parameters = query.split('&').map(|pair| pair.split('=').next().unwrap_or_default().to_ascii_lowercase());
    if parameters.clone().any(|name| matches!(name.as_str(), "x-amz-signature" | "x-amz-credential")) {
        findings.push("a presigned query".to_owned());
    }
    if path.split('/').any(is_dot_segment) || path.contains("//") {
        findings.push("a path that is not in normal form".to_owned());
    }
    findings
}

fn nominated_by_connection(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all("connection").iter().filter_map(|value| value.to_str().ok());
    let tokens = values.flat_map(|value| value.split(',')).map(|token| token.trim().to_ascii_lowercase());
    tokens.filter(|token| !token.is_empty() && token != "close").collect()
}

fn carries_virtual_key(authorization: &str) -> bool {
    let key = match authorization.split_once("Credential=") {
        Some((_, rest)) => rest,
        None => authorization.split_once(' ').map_or(authorization, |(_, token)| token),
    };
    VIRTUAL_KEY_STARTS.iter().any(|start| key.trim_start().starts_with(start))
}

fn is_dot_segment(segment: &str) -> bool {
    // The longest spelling is `%2e%2e`.
    if segment.len() > 6 {
        return false;
    }
    let decoded = segment.to_ascii_lowercase().replace("%2e", ".");
    decoded == "." || decoded == ".."
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn what_a_proxy_may_send_is_clean() {
        let sent = headers(&[
            ("host", "bedrock-runtime.us-east-1.amazonaws.com"),
            ("connection", "keep-alive"),
            ("authorization", "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/us-east-1/bedrock/aws4_request"),
            ("x-amzn-bedrock-trace", "ENABLED"),
        ]);
        assert_eq!(find("/model/a%3A0/converse", "type=SYSTEM_DEFINED", &sent, false), Vec::<String>::new());
    }

    #[test]
    fn each_leak_is_named() {
        for (name, value) in [
            ("x-dheera-ai-api-key", "k"),
            ("x-litellm-api-key", "k"),
            ("x-api-key", "k"),
            ("api-key", "k"),
            ("proxy-authorization", "k"),
            ("expect", "100-continue"),
            ("te", "trailers"),
            ("authorization", "Bearer sk-1234"),
            ("authorization", "AWS4-HMAC-SHA256 Credential=sk-1234/20261122/us-east-1/bedrock/aws4_request"),
        ] {
            assert_eq!(find("/", "", &headers(&[(name, value)]), false).len(), 1, "{name}: {value}");
        }
        let nominated = headers(&[("connection", "close, X-Secret"), ("x-secret", "1")]);
        assert_eq!(find("/", "", &nominated, false), ["header x-secret, which connection nominates"]);
        assert_eq!(find("/a/%2E%2e/b", "", &HeaderMap::new(), false).len(), 1);
        assert_eq!(find("/", "X-Amz-Signature=1", &HeaderMap::new(), false), ["a presigned query"]);
        assert_eq!(find("/", "", &HeaderMap::new(), true).len(), 1);
    }
}

//! The request as it goes to AWS: a fresh header with what may pass, the deployment's path and host, and its signature.
//!
//! Nothing is removed from the client's header; what goes upstream is chosen, by an allow-list. So no key, cookie,
//! hop-by-hop header or signature of the client can leave by being forgotten.

use std::borrow::Cow;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue};
use pingora_core::{Error, ErrorType, Result};
use pingora_http::RequestHeader;

use super::Gateway;
use super::context::{Admitted, Attempt, RequestContext};
use crate::aws::error_body;
use crate::aws::operation::{Operation, Streaming};
use crate::aws::sigv4::{ChunkSigner, STREAMING_EVENTS_PAYLOAD, Scope, SignableRequest, SigningTime, signature_of};
use crate::credentials::UpstreamAuth;
use crate::error::Failure;
use crate::types::ids::ModelId;

/// So many headers of ours a request has at most.
const OURS_MAX: usize = 7;

/// A request that may be sent.
pub(super) struct Signed {
    pub header: RequestHeader,
    /// Signs the frames of a bidirectional stream.
    pub frames: Option<ChunkSigner>,
}

/// The header that goes upstream in place of the client's.
pub(super) fn sign(gateway: &Gateway, ctx: &mut RequestContext, client: &RequestHeader) -> Result<Signed> {
    let Some((admitted, attempt)) = ctx.dispatched_mut() else {
        return Error::e_explain(ErrorType::InternalError, "a request is signed that was not dispatched");
    };
    let signed = build(gateway, admitted, attempt, client)?;
    attempt.sent = Some(Instant::now());
    Ok(signed)
}

fn build(gateway: &Gateway, admitted: &Admitted, attempt: &Attempt, client: &RequestHeader) -> Result<Signed> {
    let host = &attempt.target.host;
    let call = &admitted.call;
    let streamed = call.operation.streaming == Streaming::Bidirectional;
    let path = call.upstream_path(attempt.target.model_id.as_ref().map(ModelId::as_str));
    let path = [host.endpoint.path_prefix.as_str(), &path].concat();
    let target =
        if call.query.is_empty() { Cow::from(&path) } else { Cow::from([path.as_str(), "?", &call.query].concat()) };
    let passed = passing_headers(&client.headers, call.operation);
    // Without the second map, in which Pingora keeps how a client wrote the names: they go out as Pingora writes them.
    let hint = Some(passed.len() + OURS_MAX);
    let mut header = RequestHeader::build_no_case(client.method.clone(), target.as_bytes(), hint)?;
    header.set_version(client.version);
    header.insert_header("host", host.authority.as_str())?;
    // Silence would allow any coding (RFC 9110), and what is compressed takes no further frame. Unsigned, as boto3 does.
    header.insert_header("accept-encoding", HeaderValue::from_static("identity"))?;
    for Passed { name, value, .. } in &passed {
        header.append_header(*name, (*value).clone())?;
    }
    let has_length = client.headers.contains_key(http::header::CONTENT_LENGTH)
        || admitted.body.bytes > 0
        || matches!(client.method.as_str(), "POST" | "PUT" | "PATCH");
    if !streamed && has_length {
        header.insert_header("content-length", admitted.body.bytes)?;
    }
    let credentials = match &attempt.auth {
        UpstreamAuth::SigV4(credentials) => credentials,
        UpstreamAuth::Bearer(token) => {
            header.insert_header("authorization", format!("Bearer {}", token.expose()))?;
            return Ok(Signed { header, frames: None });
        }
    };
    let time = SigningTime::from_unix_seconds(unix_seconds());
    let scope = Scope { region: attempt.target.region.as_str(), service: attempt.target.service.signing_name() };
    let payload = if streamed { STREAMING_EVENTS_PAYLOAD } else { &admitted.body.sha256 };
    let ours = [
        Some(("x-amz-date", time.amz_date())),
        credentials.session_token.as_ref().map(|token| ("x-amz-security-token", token.expose())),
        streamed.then_some(("x-amz-content-sha256", payload)),
    ];
    let mut signed = Vec::with_capacity(passed.len() + OURS_MAX);
    signed.push(("host", host.authority.as_str()));
    for (name, value) in ours.into_iter().flatten() {
        header.insert_header(name, value)?;
        signed.push((name, value));
    }
    let passed = passed.iter().map(|passed| (passed.name.as_str(), passed.text));
    signed.extend(passed.filter(|(name, _)| is_signed(name)));
    let request = SignableRequest {
        method: client.method.as_str(),
        path: &path,
        query: &call.query,
        headers: &signed,
        payload_sha256_hex: payload,
    };
    let authorization = gateway.signer.authorization(credentials, &time, scope, &request);
    let frames = streamed.then(|| {
        let key = gateway.signer.signing_key(credentials, &time, scope);
        ChunkSigner::new(key, &time, scope, signature_of(&authorization).unwrap_or_default())
    });
    header.insert_header("authorization", authorization)?;
    Ok(Signed { header, frames })
}

/// Refuses a header that an operation reads but that cannot be signed: leaving it out would call the model without its
/// guardrail, or at another price.
///
/// # Errors
/// When the value of such a header is not visible ASCII.
pub(super) fn check_passing_headers(headers: &HeaderMap, operation: &Operation) -> std::result::Result<(), Failure> {
    let bad = headers
        .iter()
        .find(|(name, value)| passes(name.as_str(), operation) && is_signed(name.as_str()) && value.to_str().is_err());
    match bad {
        None => Ok(()),
        Some((name, _)) => Err(Failure::client(
            "bad_header",
            error_body::ErrorType::Validation,
            format!("The header {name} holds a character that is not ASCII. Write it in ASCII, or leave it out."),
        )),
    }
}

/// A header of the client's that goes upstream.
struct Passed<'h> {
    name: &'h HeaderName,
    value: &'h HeaderValue,
    /// The value once more.
    text: &'h str,
}

/// The client's headers that go upstream. Those that can be left out are, where they are not visible ASCII.
fn passing_headers<'h>(headers: &'h HeaderMap, operation: &Operation) -> Vec<Passed<'h>> {
    headers
        .iter()
        .filter(|(name, _)| passes(name.as_str(), operation))
        .filter_map(|(name, value)| Some(Passed { name, value, text: value.to_str().ok()? }))
        .collect()
}

fn passes(name: &str, operation: &Operation) -> bool {
    match name {
        "content-type" | "accept" | "user-agent" | "x-amzn-trace-id" => true,
        // Set by whoever signs.
        "x-amz-date" | "x-amz-security-token" | "x-amz-content-sha256" => false,
        _ => {
            name.starts_with("x-amzn-bedrock-")
                || name.starts_with("anthropic-")
                || operation.request_headers.contains(&name)
        }
    }
}

/// Proxies between here and AWS may rewrite these headers, and botocore 1.44.5 leaves them out too; everything else is
/// signed.
fn is_signed(name: &str) -> bool {
    !matches!(name, "baggage" | "traceparent" | "tracestate" | "user-agent" | "x-amzn-trace-id")
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

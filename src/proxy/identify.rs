//! Who calls? Keys prove their caller before the body is read. A key pair's signature covers the body, so its caller is
//! held back until then; only of a bidirectional stream, whose frames are signed one by one, he is known at once.
//!
//! The request is verified as it was received, prefix and all. How, and with which secret, is for `keys` and
//! `aws::sigv4::verify`. No header is copied for callers who do not sign.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pingora_core::protocols::http::ServerSession;

use super::{Gateway, head};
use crate::aws::operation::Operation;
use crate::aws::sigv4::SigningTime;
use crate::aws::sigv4::verify::{Payload, ReceivedRequest, Verified};
use crate::error::{Failure, Fault};
use crate::keys::authenticate::{Caller, Denied, Identity};
use crate::keys::signed::Signed;

/// The caller, or who it is to be.
pub(super) async fn identify(gateway: &Gateway, session: &ServerSession, query: &str) -> Result<Identity, Failure> {
    let headers = &session.req_header().headers;
    let presented = gateway.authenticator.present(|name| head::first(headers, name), query);
    let identity = match presented {
        Ok(presented) => gateway.authenticator.prove(presented, gateway.now_ms()).await,
        Err(denied) => Err(denied),
    };
    let identity = identity.map_err(|denied| refused(&denied))?;
    if let Identity::Signed(signed) = &identity {
        signed.check_time(&now()).map_err(|denied| not_proven(&denied, signed.access_key_id()))?;
    }
    Ok(identity)
}

/// What a signature is verified against, besides the headers.
pub(super) struct Signable<'a> {
    /// As received.
    pub path: &'a str,
    /// As received, without the question mark.
    pub query: &'a str,
    pub operation: &'static Operation,
    pub payload: Payload<'a>,
}

/// The caller, once the signature is known to be his.
pub(super) fn verify(
    gateway: &Gateway,
    session: &ServerSession,
    signed: Signed,
    request: &Signable<'_>,
) -> Result<(Caller, Verified), Failure> {
    let head = session.req_header();
    let mut headers: Vec<(&str, &[u8])> =
        head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    // HTTP/2 has an authority in the place of a host, and SDKs sign either name.
    let host = head.headers.get(http::header::HOST).map(http::HeaderValue::as_bytes);
    if let Some(authority) = head.uri.authority().map(|authority| authority.as_str().as_bytes()).or(host) {
        headers.push((":authority", authority));
        if host.is_none() {
            headers.push(("host", authority));
        }
    }
    // Who adds one of these says whose money is spent, and under which rules.
    let attribution = gateway.budgets.end_user_headers.iter().chain(&gateway.budgets.tag_headers).map(String::as_str);
    let headers_read: Vec<&str> = request.operation.request_headers.iter().copied().chain(attribution).collect();
    let received = ReceivedRequest {
        method: head.method.as_str(),
        path: request.path,
        query: request.query,
        headers: &headers,
        payload: request.payload,
        service: request.operation.service.signing_name(),
        headers_read: &headers_read,
    };
    let access_key_id = signed.access_key_id().to_owned();
    gateway.authenticator.verify(signed, &received).map_err(|denied| not_proven(&denied, &access_key_id))
}

fn refused(denied: &Denied) -> Failure {
    match denied {
        Denied::StoreUnavailable => Failure::new(Fault::Store, denied.reason(), denied.error_type(), denied.message())
            .with(|response| response.retry_after(Duration::from_secs(1))),
        _ => Failure::client(denied.reason(), denied.error_type(), denied.message()),
    }
}

/// The operator may know whose name was used; the record does not name a key that nobody has proven to hold.
fn not_proven(denied: &Denied, access_key_id: &str) -> Failure {
    refused(denied).because(format!("signed in the name of access key {access_key_id}"))
}

fn now() -> SigningTime {
    SigningTime::from_unix_seconds(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs()))
}

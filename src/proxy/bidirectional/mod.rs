//! InvokeModelWithBidirectionalStream: a request and an answer that are open at once, taken out of Pingora's hands.
//!
//! Pingora 0.9.1 reads no answer while it waits for the upstream to take a piece of the request (`proxy_h2.rs`,
//! `bidirection_down_to_up`), so two sides that both wait for the other wait for ever. Here each direction goes on by
//! itself; everything else is what other requests get: the same stages pick the deployment, sign, meter, pay and settle.
//! Rests on "Using the bidirectional API" (Nova user guide): one HTTP/2 stream, events both ways.

mod exchange;
mod resign;

use std::sync::Arc;

use http::Uri;
use http::header::HOST;
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::protocols::http::v2::client::Http2Session;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, OrErr, Result, RetryType};
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use super::context::RequestContext;
use super::delivery::Delivery;
use super::select::{self, KEEPALIVE};
use super::shared::UPSTREAM_SILENT;
use super::{Gateway, body, failover, sign};
use exchange::Exchange;
use resign::Resigner;

/// Holds the conversation of an admitted request to its end.
///
/// # Errors
/// What else than the answer's own end ended it; `fail_to_proxy` tells the client.
pub(super) async fn converse(gateway: &Gateway, session: &mut Session, ctx: &mut RequestContext) -> Result<()> {
    let client = session.as_downstream_mut();
    if let Err(failure) = body::welcome(client).await {
        return failover::give_up(ctx, failure);
    }
    // A client may be silent for as long as the conversation has patience.
    client.set_read_timeout(None);
    let (peer, mut upstream) = connect(gateway, ctx).await?;
    let outcome = exchange(gateway, session, ctx, &peer, &mut upstream).await;
    if outcome.as_ref().is_err_and(|error| *error.etype() == UPSTREAM_SILENT) {
        // It may be the connection that is dead: what begins now gets another one.
        upstream.conn.mark_shutdown();
    }
    gateway.connections.release_http_session(HttpSession::H2(upstream), &*peer, Some(KEEPALIVE)).await;
    outcome.map_err(|error| failover::broken(gateway, session, ctx, error, false))
}

/// A stream to the next deployment that can be reached.
async fn connect(gateway: &Gateway, ctx: &mut RequestContext) -> Result<(Box<HttpPeer>, Http2Session)> {
    loop {
        let peer = select::pick_peer(gateway, ctx).await?;
        let mut opened = open(gateway, &peer).await;
        if opened.as_ref().is_err_and(|error| *error.etype() == ErrorType::H2Error) {
            // It may have been a kept connection that had just been closed; it is not kept any more.
            opened = open(gateway, &peer).await;
        }
        let error = match opened {
            Ok(HttpSession::H2(upstream)) => {
                if let Some(admitted) = ctx.admitted_mut() {
                    admitted.stay();
                }
                return Ok((peer, upstream));
            }
            Ok(_) => Error::explain(ErrorType::ConnectError, "the upstream does not speak HTTP/2"),
            Err(error) => error,
        };
        let error = failover::not_connected(gateway, ctx, error.into_up());
        if !matches!(error.retry, RetryType::Decided(true)) {
            return Err(error);
        }
    }
}

/// A stream on a connection that is there, or on a new one.
async fn open(gateway: &Gateway, peer: &HttpPeer) -> Result<HttpSession> {
    // Pingora's own deadline ends with the handshake of TLS.
    let patience = gateway.router.connect_timeout.saturating_mul(2);
    match pingora_timeout::timeout(patience, gateway.connections.get_http_session(peer)).await {
        Ok(opened) => opened.map(|(stream, _reused)| stream),
        Err(_elapsed) => Error::e_explain(ErrorType::ConnectTimedout, "no stream of HTTP/2 within its time"),
    }
}

async fn exchange(
    gateway: &Gateway,
    session: &mut Session,
    ctx: &mut RequestContext,
    peer: &HttpPeer,
    upstream: &mut Http2Session,
) -> Result<()> {
    let signed = sign::sign(gateway, ctx, session.req_header())?;
    let (Some(frames), Some(admitted)) = (signed.frames, ctx.admitted_mut()) else {
        return Error::e_explain(ErrorType::InternalError, "a stream without a signature to chain its frames to");
    };
    let resigner = Resigner::new(frames, admitted.frames.take());
    let delivery = Delivery::new(Arc::clone(&admitted.shared));
    let header = over_http2(signed.header, peer)?;
    upstream.write_request_header(Box::new(header), false).map_err(Error::into_up)?;
    Exchange::new(gateway, ctx, session.as_downstream_mut(), upstream, delivery, resigner).run().await
}

/// The header with its host in the place that HTTP/2 has for it.
fn over_http2(mut header: RequestHeader, peer: &HttpPeer) -> Result<RequestHeader> {
    let host = header.remove_header(&HOST);
    let authority = host.as_ref().map(http::HeaderValue::as_bytes).unwrap_or_default();
    let path = header.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let scheme = if peer.is_tls() { "https" } else { "http" };
    let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build();
    header.set_uri(uri.or_err(ErrorType::InvalidHTTPHeader, "the upstream's address")?);
    Ok(header)
}

//! The next deployment for a request, and the peer that Pingora connects to for it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::Result;
use pingora_core::upstreams::peer::HttpPeer;

use super::context::{Admitted, Attempt, RequestContext, Stage};
use super::shared::Silence;
use super::watch::Watch;
use super::{Gateway, failover, reserve, settle};
use crate::aws::error_body::ErrorType;
use crate::aws::operation::Streaming;
use crate::credentials::UpstreamAuth;
use crate::deployment::fleet::Target;
use crate::deployment::outcome::Setback;
use crate::error::{Failure, Fault};
use crate::types::money::NanoUsd;
use crate::usage::UsageReader;

/// AWS closes idle connections after a minute and more; ours end first, so that a kept one is rarely a dead one.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(50);

/// One conversation has a connection to itself, as in AWS's SDK for JavaScript (`disableConcurrentStreams` of its client
/// 3.1164): streams share the connection's windows, those of the upstream too, so one that stands still stops the others.
const HTTP2_STREAMS_MAX: usize = 1;

/// What of an answer may wait here for its client: speech takes 85 KB/s, and over a round trip of 100 ms this is fifteen
/// times as much.
const HTTP2_WINDOW_BYTES: u32 = 128 * 1024;

/// Picks deployments until one has credentials and an address.
pub(super) async fn pick_peer(gateway: &Gateway, ctx: &mut RequestContext) -> Result<Box<HttpPeer>> {
    loop {
        let Some(admitted) = ctx.admitted_mut() else {
            return failover::give_up(
                ctx,
                Failure::new(Fault::Internal, "no_stage", ErrorType::InternalServer, INTERNAL),
            );
        };
        if std::mem::take(&mut admitted.spoiled) {
            let charged = settle::charge_unanswered(gateway, admitted);
            let shared = Arc::clone(&admitted.shared);
            let reserved = match admitted.booking.as_mut() {
                Some(booking) => reserve::reserve(gateway, booking, &shared).await,
                None => Ok(()),
            };
            if charged > NanoUsd::ZERO {
                ctx.record.add_cost(charged);
            }
            if let Err(failure) = reserved {
                return failover::give_up(ctx, failure);
            }
            continue;
        }
        let again = admitted.again.take();
        let repeated = again.is_some();
        let Some((index, target)) = again.or_else(|| next(admitted)) else {
            return failover::give_up(ctx, unreachable_deployments());
        };
        let bearer = admitted.call.operation.bearer;
        let bidirectional = admitted.call.operation.streaming == Streaming::Bidirectional;
        let ready = ready(&target, bearer).await;
        let address = target.host.address().await;
        match (ready, address) {
            (Ok(auth), Ok(address)) => {
                let mut peer = peer(gateway, &target, address, repeated);
                if bidirectional {
                    over_http2(&mut peer);
                }
                dispatch(ctx, index, target, address, auth, repeated);
                return Ok(Box::new(peer));
            }
            (Err(error), _) => {
                tracing::error!(deployment = %target.id, "credentials: {error}");
                set_back(gateway, ctx, &target, Setback::Credentials);
            }
            (_, Err(error)) => {
                tracing::error!(deployment = %target.id, "{error}");
                set_back(gateway, ctx, &target, Setback::Connect);
            }
        }
        if !ctx.admitted_mut().is_some_and(|admitted| admitted.may_go_on()) {
            return failover::give_up(ctx, unreachable_deployments());
        }
    }
}

const INTERNAL: &str = "The proxy could not handle the request. Try again, and tell its operator if this goes on.";

pub(super) fn unreachable_deployments() -> Failure {
    Failure::upstream(
        "unreachable",
        ErrorType::ServiceUnavailable,
        "No deployment of this model could be reached. Try again in a moment; the operator's log says why.",
    )
    .with(|response| response.retry_after(Duration::from_secs(1)))
}

fn next(admitted: &mut Admitted) -> Option<(usize, Arc<Target>)> {
    let (index, target) = admitted.group.pick(&admitted.tried, fastrand::u64(..))?;
    let target = Arc::clone(target);
    admitted.tried.push(index);
    Some((index, target))
}

/// Credentials that the operation accepts: a Bedrock API key serves only those that take one.
async fn ready(target: &Target, takes_bearer: bool) -> std::result::Result<UpstreamAuth, String> {
    let source = target.bearer.as_ref().filter(|_| takes_bearer).unwrap_or(&target.credentials);
    match source.ready().await {
        Ok(UpstreamAuth::Bearer(_)) if !takes_bearer => {
            Err("this operation takes no Bedrock API key; configure AWS credentials for it".to_owned())
        }
        Ok(auth) => Ok(auth),
        Err(error) => Err(error.to_string()),
    }
}

fn set_back(gateway: &Gateway, ctx: &mut RequestContext, target: &Target, setback: Setback) {
    gateway.metrics.set_back(target.id.as_str(), setback.as_str());
    ctx.set_back(target, None, setback);
}

fn dispatch(
    ctx: &mut RequestContext,
    index: usize,
    target: Arc<Target>,
    address: SocketAddr,
    auth: UpstreamAuth,
    repeated: bool,
) {
    let stage = std::mem::replace(&mut ctx.stage, Stage::Finished);
    let (Stage::Admitted(admitted) | Stage::Dispatched(admitted, _)) = stage else {
        return;
    };
    let streams = admitted.call.streams();
    admitted.shared.watch(Silence {
        first_byte: if streams { target.stream_timeout } else { target.timeout },
        idle: target.idle_timeout,
        total: match admitted.call.operation.streaming {
            Streaming::None => target.total_timeout,
            Streaming::EventStream | Streaming::Raw => target.stream_total_timeout,
            // A conversation is as long as its parties like.
            Streaming::Bidirectional => None,
        },
    });
    let attempt = Attempt {
        index,
        reader: Some(UsageReader::new(admitted.facts.clone())),
        watch: Watch::default(),
        target,
        address,
        auth,
        request_bytes_streamed: 0,
        repeated,
        sent: None,
        first_byte: None,
        status: None,
    };
    ctx.stage = Stage::Dispatched(admitted, Box::new(attempt));
}

fn peer(gateway: &Gateway, target: &Target, address: SocketAddr, repeated: bool) -> HttpPeer {
    let endpoint = &target.host.endpoint;
    let mut peer = HttpPeer::new(address, endpoint.tls, endpoint.host.clone());
    peer.options.connection_timeout = Some(gateway.connect_timeout);
    peer.options.total_connection_timeout = Some(gateway.connect_timeout.saturating_mul(2));
    peer.options.write_timeout = Some(target.idle_timeout);
    peer.options.idle_timeout = Some(KEEPALIVE);
    if repeated {
        // A group of its own has no kept connections, so this attempt gets a new one.
        peer.group_key = fastrand::u64(1..);
    }
    peer
}

/// Bidirectional streams need HTTP/2; without TLS it is spoken by prior knowledge.
fn over_http2(peer: &mut HttpPeer) {
    peer.options.set_http_version(2, 2);
    peer.options.max_h2_streams = HTTP2_STREAMS_MAX;
    peer.options.h2_stream_window_size = Some(HTTP2_WINDOW_BYTES);
    peer.options.h2_connection_window_size = Some(HTTP2_WINDOW_BYTES);
}

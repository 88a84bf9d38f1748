//! The next deployment for a request, and the peer that Pingora connects to for it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use pingora_core::Result;
use pingora_core::upstreams::peer::HttpPeer;

use super::context::{Admitted, Attempt, Chosen, RequestContext, Stage};
use super::shared::Silence;
use super::watch::Watch;
use super::{Gateway, failover, head, reserve, settle};
use crate::aws::error_body::ErrorType;
use crate::aws::operation::{Metering, Streaming};
use crate::budget::estimate::Content;
use crate::config::Router;
use crate::credentials::UpstreamAuth;
use crate::deployment::affinity::{KeySource, Prompt};
use crate::deployment::attempts::{Circumstances, Step, Why};
use crate::deployment::cooldown::Availability;
use crate::deployment::fleet::{Group, Target};
use crate::deployment::host::ConnectFailure;
use crate::deployment::live::{Ending, Ongoing};
use crate::deployment::outcome::{Outcome, Phase, Verdict};
use crate::deployment::select::{Strategy, View};
use crate::error::{Failure, Fault};
use crate::price::book::{Query, Surface};
use crate::price::rates::Dimension;
use crate::types::ids::ModelId;
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

/// The peer of the next attempt: of the deployment that has been chosen for it, or of the next that has credentials and
/// an address.
pub(super) async fn pick_peer(gateway: &Gateway, ctx: &mut RequestContext) -> Result<Box<HttpPeer>> {
    loop {
        let Some(admitted) = ctx.admitted_mut() else {
            return failover::give_up(
                ctx,
                Failure::new(Fault::Internal, "no_stage", ErrorType::InternalServer, INTERNAL),
            );
        };
        if let Some(target) = admitted.spoiled.take() {
            let charged = settle::charge_unanswered(gateway, admitted, &target);
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
        let Some(chosen) = admitted.chosen.take() else {
            match choose(gateway, admitted, None) {
                Step::Try { .. } => continue,
                Step::Deliver(Why::Full { free_in }) => return failover::give_up(ctx, full(free_in)),
                _ => return failover::give_up(ctx, unreachable_deployments()),
            }
        };
        let bearer = admitted.call.operation.bearer;
        let bidirectional = admitted.call.operation.streaming == Streaming::Bidirectional;
        if !chosen.pause.is_zero() {
            tokio::time::sleep(chosen.pause).await;
        }
        let target = Arc::clone(&chosen.target);
        let outcome = match (ready(&target, bearer).await, target.host.address().await) {
            (Ok(auth), Ok(address)) => {
                let mut peer = peer(gateway, &target, address, chosen.repeated);
                if bidirectional {
                    over_http2(&mut peer);
                }
                dispatch(ctx, chosen, address, auth);
                return Ok(Box::new(peer));
            }
            (Err(error), _) => {
                tracing::error!(deployment = %target.id, "credentials: {error}");
                Outcome::Credentials
            }
            (_, Err(error)) => {
                tracing::error!(deployment = %target.id, "{error}");
                Outcome::NotConnected(ConnectFailure::Name)
            }
        };
        gateway.metrics.set_back(target.id.as_str(), outcome.as_str());
        ctx.set_back(&target, None, outcome);
        let ending = Ending::of(outcome, Phase::Connecting, None);
        if !failover::goes_on(gateway, ctx, chosen.ongoing, &ending) {
            return failover::give_up(ctx, unreachable_deployments());
        }
    }
}

/// Decides where the request goes, at its beginning or after an attempt that ended with a verdict, and takes a place
/// there for the attempt; goes on to the models that stand in for the one that was called. Only [`Step::Try`] means that
/// there is one.
pub(super) fn choose(gateway: &Gateway, admitted: &mut Admitted, verdict: Option<&Verdict>) -> Step {
    let called = Arc::clone(&admitted.group);
    let mut reason = None;
    let mut cooling = None;
    let mut step = choose_of_group(gateway, admitted, verdict);
    loop {
        let for_room = step == Some(Step::OtherModel);
        let may_be_elsewhere =
            for_room || matches!(step, None | Some(Step::Deliver(Why::NoneLeft | Why::Full { .. } | Why::RetryBudget)));
        let left = if may_be_elsewhere { admitted.enter_stand_in(for_room) } else { None };
        if let Some(left) = left {
            reason = Some(if for_room { "context_window" } else { "failing" });
            // Nothing was asked there, so it can still be.
            if step.is_none() && admitted.attempts.made() == 0 {
                cooling.get_or_insert(left);
            }
        } else if may_be_elsewhere && let Some(back) = cooling.take() {
            // Nobody stands in, and a request is not refused for a cooldown.
            admitted.enter(back);
            reason = None;
        } else {
            break;
        }
        step = choose_of_group(gateway, admitted, None);
    }
    let step = step.unwrap_or(Step::Deliver(Why::NoneLeft));
    if let (Step::Try { .. }, Some(reason)) = (step, reason) {
        gateway.metrics.fell_back(called.model_name.as_str(), admitted.group.model_name.as_str(), reason);
    }
    step
}

/// The same among the deployments of the present model. `None` when all of them cool, and another model may serve.
fn choose_of_group(gateway: &Gateway, admitted: &mut Admitted, verdict: Option<&Verdict>) -> Option<Step> {
    let Router { strategy, retry_budget_percent, cooldown, .. } = gateway.router;
    let streams = admitted.call.streams();
    // A place that another request took first is one that made progress, and the next look sees it.
    for round in 0..=admitted.group.targets.len() {
        let now = Instant::now();
        let drawn = if round == 0 { draw(admitted, strategy, streams, now) } else { None };
        let step = drawn.unwrap_or_else(|| {
            let views = views(gateway, admitted, strategy, streams, now);
            let circumstances = Circumstances {
                strategy,
                affinity: admitted.affinity,
                retry_budget_percent,
                now,
                random: fastrand::u64(..),
            };
            let mut budget = admitted.group.retries.lock();
            match verdict {
                None => admitted.attempts.next(&views, &mut budget, &circumstances),
                Some(verdict) => admitted.attempts.after(verdict, &views, &mut budget, &circumstances),
            }
        });
        let Step::Try { choice, pause } = step else {
            if step == Step::Deliver(Why::RetryBudget) {
                gateway.metrics.retry_budget_exhausted();
            }
            return Some(step);
        };
        // All cool: another model is better, if there is one.
        if matches!(choice.availability, Availability::Cooling { .. }) && admitted.stand_ins.may_serve() {
            return None;
        }
        let Some(target) = admitted.group.targets.get(choice.index).map(Arc::clone) else {
            return Some(Step::Deliver(Why::NoneLeft));
        };
        if let Some(ongoing) = Ongoing::begin(&target, choice.availability, streams, cooldown, now) {
            if let (0, Some(home)) = (admitted.attempts.made(), choice.affinity) {
                gateway.metrics.affinity(home.as_str());
            }
            admitted.attempts.begun(choice.index);
            admitted.chosen = Some(Chosen { index: choice.index, target, ongoing, pause, repeated: false });
            return Some(step);
        }
    }
    Some(Step::Deliver(Why::Full { free_in: Duration::from_secs(1) }))
}

/// The deployment of a request's first attempt, where it can be drawn without looking at all of them.
fn draw(admitted: &Admitted, strategy: Strategy, streams: bool, now: Instant) -> Option<Step> {
    if strategy != Strategy::SimpleShuffle || admitted.affinity.is_some() || admitted.attempts.made() > 0 {
        return None;
    }
    let group = &admitted.group;
    let index = group.draw(fastrand::u64(..))?;
    let target = group.targets.get(index)?;
    let view = target.live.view(&target.traits, target.host.health.availability(now), false, streams, now);
    admitted.attempts.first(index, &view, &mut group.retries.lock(), now)
}

/// What may be known of each deployment.
fn views(gateway: &Gateway, admitted: &Admitted, strategy: Strategy, streams: bool, now: Instant) -> Vec<View> {
    let view = |(index, target): (usize, &Arc<Target>)| {
        let mut traits = target.traits;
        if strategy == Strategy::CostBased {
            traits.rate = rate(gateway, admitted, target);
        }
        target.live.view(&traits, target.host.health.availability(now), admitted.attempts.tried(index), streams, now)
    };
    admitted.group.targets.iter().enumerate().map(view).collect()
}

/// The price of a token in and one out, which orders deployments of a model well enough.
fn rate(gateway: &Gateway, admitted: &Admitted, target: &Target) -> Option<u64> {
    let model_id = target.model_id.as_ref().map(ModelId::as_str).or(admitted.called.as_deref())?;
    let query = Query {
        model_id,
        region: target.region.as_str(),
        surface: Surface::Runtime,
        base_model: target.base_model.as_ref().map(ModelId::as_str),
        invoked_model: None,
    };
    let price = gateway.price_book.price(&query, target.price.as_ref())?;
    let listed = |dimension| price.listed(dimension, 0, None).map_or(0, |rate| rate.0);
    Some(listed(Dimension::Input).saturating_add(listed(Dimension::Output)))
}

/// The key by which a request stays with one deployment, if it is to.
pub(super) fn affinity(
    gateway: &Gateway,
    headers: &HeaderMap,
    group: &Group,
    metering: Metering,
    content: &Content<'_>,
) -> Option<u64> {
    if group.targets.len() < 2 {
        return None;
    }
    let names = &gateway.router.affinity_headers;
    let header = names.iter().find_map(|name| head::first(headers, name));
    let converses = matches!(
        metering,
        Metering::Converse
            | Metering::ConverseStream
            | Metering::InvokeModel
            | Metering::InvokeModelStream
            | Metering::AnthropicMessages
            | Metering::OpenAiChat
    );
    let body = if converses { content.bytes() } else { &[] };
    let prompt = || Prompt {
        system: content.member("system").value(),
        tools: content.member("tools").value().or_else(|| content.member("toolConfig").value()),
        messages: content.member("messages").value(),
    };
    KeySource { header, body, prompt: &prompt }.key(gateway.router.cache_affinity)
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

/// Every deployment is at the limits that the configuration sets for it.
fn full(free_in: Duration) -> Failure {
    Failure::new(
        Fault::Limit,
        "deployments_full",
        ErrorType::Throttling,
        "Every deployment of this model has reached the requests or tokens that its operator allows it. Try again later.",
    )
    .with(|response| response.retry_after(free_in))
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

fn dispatch(ctx: &mut RequestContext, chosen: Chosen, address: SocketAddr, auth: UpstreamAuth) {
    let stage = std::mem::replace(&mut ctx.stage, Stage::Finished);
    let (Stage::Admitted(admitted) | Stage::Dispatched(admitted, _)) = stage else {
        return;
    };
    let Chosen { index, target, ongoing, repeated, .. } = chosen;
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
        ongoing: Some(ongoing),
        auth,
        request_bytes_streamed: 0,
        repeated,
        sent: None,
        first_byte: None,
        status: None,
        tokens: None,
    };
    ctx.stage = Stage::Dispatched(admitted, Box::new(attempt));
}

fn peer(gateway: &Gateway, target: &Target, address: SocketAddr, repeated: bool) -> HttpPeer {
    let endpoint = &target.host.endpoint;
    let mut peer = HttpPeer::new(address, endpoint.tls, endpoint.host.clone());
    peer.options.connection_timeout = Some(gateway.router.connect_timeout);
    peer.options.total_connection_timeout = Some(gateway.router.connect_timeout.saturating_mul(2));
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

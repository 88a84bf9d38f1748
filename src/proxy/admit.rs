//! May this request go to Bedrock? Route, then key, then body, then model, then money: each step only with what the step
//! before has proved, and a refusal in AWS's form at the first that fails.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use pingora_core::protocols::http::ServerSession;
use pingora_proxy::Session;

use super::body::{self, RequestBody};
use super::booking::{self, Asked, Attribution, not_allowed};
use super::call::{self, BodyMember, Call, ModelPlace};
use super::context::{Admitted, RequestContext, Stage};
use super::identify::{self, Signable};
use super::replay::Slot;
use super::shared::Shared;
use super::stand_in::{Request, StandIns};
use super::{Gateway, LocalRequest, connection, gate, head, reserve, respond, select, sign};
use crate::aws::endpoint;
use crate::aws::error_body::ErrorType;
use crate::aws::operation::{AccessClass, Metering, Streaming};
use crate::aws::route::{self, Found, RequestTarget, RouteError};
use crate::aws::sigv4::ChunkVerifier;
use crate::aws::sigv4::verify::{Payload, without_signature_parameters};
use crate::budget::estimate::Content;
use crate::config::Limits;
use crate::deployment::attempts::Attempts;
use crate::deployment::fleet::Group;
use crate::error::Failure;
use crate::keys::authenticate::{Caller, Identity, is_presigned_with_a_pair};
use crate::keys::policy::{self, Question};
use crate::types::ids::{ModelId, ModelName};
use crate::usage::RequestFacts;

/// Requests to the proxy's own pages are small.
const OWN_BODY_BYTES_MAX: usize = 1024 * 1024;

/// What became of the request.
pub(super) enum Admission {
    /// The proxy answered it itself.
    Answered,
    /// It goes to a deployment.
    Proceed,
    /// It goes to a deployment while it is still being sent.
    Converse,
}

pub(super) async fn admit(
    gateway: &Gateway,
    session: &mut Session,
    ctx: &mut RequestContext,
) -> Result<Admission, Failure> {
    let downstream = session.as_downstream_mut();
    bound_patience(downstream, gateway.limits.client_idle_timeout);
    check_head(gateway, downstream)?;
    body::check_framing(downstream)?;
    let target = raw_target(downstream)?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    if gateway.local.owns(path) {
        let (path, query) = (path.to_owned(), query.to_owned());
        return own(gateway, session, ctx, path, query).await;
    }
    connection::check(gateway, downstream)?;

    // Who may sign in the query is known only when the key pair is.
    if !is_presigned_with_a_pair(query) {
        check_query(query)?;
    }
    let method = downstream.req_header().method.clone();
    let amz_target = only_header(&downstream.req_header().headers, "x-amz-target")?.map(str::to_owned);
    let request = RequestTarget { method: method.as_str(), path, amz_target: amz_target.as_deref() };
    let found = route::find(&request).map_err(|error| no_route(&error))?;
    let identity = identify::identify(gateway, downstream, query).await?;
    let native_query = native_query(&identity, query)?;
    note(ctx, &found);
    let bidirectional = matches!(&found, Found::Route(route) if route.operation.streaming == Streaming::Bidirectional);
    let (identity, frames) = match (identity, &found) {
        (Identity::Signed(signed), Found::Route(route)) if bidirectional => {
            let request = Signable { path, query, operation: route.operation, payload: Payload::SignedFrames };
            let (caller, verified) = identify::verify(gateway, downstream, *signed, &request)?;
            (Identity::Known(caller), Some(verified.chunks()))
        }
        (identity, _) => (identity, None),
    };
    if let Identity::Known(caller) = &identity {
        enter(ctx, caller, &found, path)?;
    }
    if let Found::Route(route) = &found {
        sign::check_passing_headers(&downstream.req_header().headers, route.operation)?;
    }

    let mut body = receive(gateway, downstream, ctx, &identity, bidirectional).await?;
    let read = Instant::now();
    ctx.record.request_bytes = body.bytes;
    let route = match found {
        Found::Route(route) => route,
        Found::NeedsBody(tie) => tie.decide(body.content()).map_err(|error| no_route(&error))?,
    };
    let caller = match identity {
        Identity::Known(caller) => caller,
        Identity::Signed(signed) => {
            let payload = Payload::Sha256(&body.sha256);
            let request = Signable { path, query, operation: route.operation, payload };
            let (caller, _) = identify::verify(gateway, downstream, *signed, &request)?;
            is_proven(ctx, &mut body, &caller);
            enter(ctx, &caller, &Found::Route(route), path)?;
            caller
        }
    };
    let call = Call::new(&route, &native_query);
    ctx.record.service = Some(call.operation.service.endpoint_prefix());
    ctx.record.operation = Some(call.operation.name);
    let (group, model_id) = resolve(gateway, &caller, &call, &mut body)?;
    ctx.record.model_name = model_name(&group, model_id.as_deref());
    let model_name = ctx.record.model_name.as_ref().map(ModelName::as_str);
    policy::allow(&caller, &Question { operation: call.operation, path, model_name }).map_err(not_allowed)?;
    body::check_still_wanted(downstream)?;
    let resolved = Resolved { caller, call, path, group, model_id, body, read, frames };
    afford(gateway, session, ctx, resolved).await?;
    Ok(if bidirectional { Admission::Converse } else { Admission::Proceed })
}

/// Waits for a place, and then reads the body: who is sent away has cost nothing but his head, and one who asks first
/// whether to send his body does not.
async fn receive(
    gateway: &Gateway,
    downstream: &mut ServerSession,
    ctx: &mut RequestContext,
    identity: &Identity,
    bidirectional: bool,
) -> Result<RequestBody, Failure> {
    let whose = gate::whose(identity);
    ctx.place = Some(gateway.gate.enter(whose.clone(), downstream).await?);
    if bidirectional {
        return Ok(RequestBody::streamed());
    }
    body::read(downstream, &gateway.limits, &gateway.room, whose).await
}

/// Place and body are of a key from here on, no longer of who was named.
fn is_proven(ctx: &mut RequestContext, body: &mut RequestBody, caller: &Caller) {
    let proven = gate::proven(caller);
    body.is_proven(&proven);
    if let Some(place) = &mut ctx.place {
        place.prove(proven);
    }
}

/// A request whose caller may make it, as far as rules go.
struct Resolved<'p> {
    caller: Caller,
    call: Call,
    /// Of the client's request.
    path: &'p str,
    group: Arc<Group>,
    model_id: Option<String>,
    body: RequestBody,
    read: Instant,
    frames: Option<ChunkVerifier>,
}

/// Sets money aside for the request and, where it has been read, puts the replaying session in its place.
async fn afford(
    gateway: &Gateway,
    session: &mut Session,
    ctx: &mut RequestContext,
    resolved: Resolved<'_>,
) -> Result<(), Failure> {
    let Resolved { caller, call, path, group, model_id, body, read, frames } = resolved;
    let metering = call.operation.metering;
    let (group, lookup_failure) = match metering {
        Metering::Free => (group, None),
        _ => gateway.profiles.with_base_models(group, model_id.as_deref()).await,
    };
    let priced = priced_id(&group, model_id.as_deref());
    let facts = RequestFacts::read(metering, priced, body.content());
    let content = Content::new(body.content());
    let client = session.as_downstream();
    let affinity = select::affinity(gateway, &client.req_header().headers, &group, metering, &content);
    let whose = Attribution::find(gateway, client, &caller, metering, &content).await?;
    ctx.record.end_user.clone_from(&whose.end_user);
    ctx.record.tags.clone_from(&whose.tags);
    // Regions are of deployments: what a key reads of the control planes has no model, and clients read it at start.
    let group = if call.operation.access == AccessClass::Read { group } else { whose.allowed(&caller, group)? };
    let request = Request { caller: &caller, whose: &whose, call: &call, path, body: body.content() };
    let mut stand_ins = StandIns::find(gateway, &group, request).await;
    let asked = Asked {
        caller: &caller,
        attribution: &whose,
        call: &call,
        group: &group,
        facts: &facts,
        model_name: ctx.record.model_name.as_ref().map(ModelName::as_str),
        lookup_failure: lookup_failure.as_ref(),
    };
    let headers = &session.as_downstream().req_header().headers;
    let mut booking = booking::book(gateway, ctx, &asked, &mut stand_ins, headers, &content)?;
    let shared = Arc::new(Shared::new(gateway.stop.clone()));
    if let Some(drain) = gateway.drain().filter(|_| metering != Metering::Free) {
        shared.drain(drain);
    }
    shared.watch_context_window(stand_ins.may_have_room());
    shared.set_client_rate_min(gateway.limits.client_rate_min);
    if let Some(booking) = &mut booking {
        reserve::reserve(gateway, booking, &shared).await?;
    }
    if call.operation.streaming != Streaming::Bidirectional {
        ctx.slot = Some(Slot::wrap(session.as_downstream_mut(), body.content().clone(), Arc::clone(&shared)));
    }
    ctx.stage = Stage::Admitted(Box::new(Admitted {
        call_id: ctx.call_id,
        body,
        attempts: Attempts::new(gateway.router.num_retries),
        affinity,
        chosen: None,
        stand_ins,
        group,
        call,
        facts,
        called: model_id,
        shared,
        read,
        frames,
        booking,
        spoiled: None,
    }));
    Ok(())
}

/// Answers a path of the proxy's own.
async fn own(
    gateway: &Gateway,
    session: &mut Session,
    ctx: &mut RequestContext,
    path: String,
    query: String,
) -> Result<Admission, Failure> {
    ctx.record.reason = Some("local");
    let downstream = session.as_downstream_mut();
    let limits =
        Limits { body_bytes_max: gateway.limits.body_bytes_max.min(OWN_BODY_BYTES_MAX), ..gateway.limits.clone() };
    // Who proves nothing is refused whatever he sends, and must not fill the room with it.
    let body = match identify::identify(gateway, downstream, "").await {
        Ok(Identity::Known(caller)) => {
            body::read(downstream, &limits, &gateway.room, gate::proven(&caller)).await?.content().clone()
        }
        Ok(Identity::Signed(_)) | Err(_) => Bytes::new(),
    };
    let header = downstream.req_header();
    let request =
        LocalRequest { method: header.method.to_string(), path, query, headers: header.headers.clone(), body };
    let answer = gateway.local.answer(request).await;
    respond::local(session, ctx, answer).await;
    Ok(Admission::Answered)
}

/// A client that stops reading its answer is let go; a refusal too is an answer. So is an HTTP/1.1 client that keeps the
/// connection and sends no further request: Pingora would wait for it without end. A quarter is added, so that a load
/// balancer with the same timeout ends first: one that sends into a closing connection answers 502.
fn bound_patience(session: &mut ServerSession, idle: Duration) {
    session.set_write_timeout(Some(idle));
    if session.get_keepalive().is_some() {
        // Zero would mean for ever.
        session.set_keepalive(Some(idle.saturating_add(idle / 4).as_secs().max(1)));
    }
}

/// Bounds on the head, and what no request to Bedrock needs.
fn check_head(gateway: &Gateway, session: &ServerSession) -> Result<(), Failure> {
    let headers = &session.req_header().headers;
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if bytes > gateway.limits.header_bytes_max || headers.len() > gateway.limits.header_count_max {
        return Err(Failure::client(
            "head_too_large",
            ErrorType::Validation,
            format!(
                "The request has {} headers of {bytes} bytes; {} headers of {} bytes are allowed. Send fewer.",
                headers.len(),
                gateway.limits.header_count_max,
                gateway.limits.header_bytes_max
            ),
        )
        .with(|response| response.status(431)));
    }
    if headers.contains_key(http::header::UPGRADE) {
        return Err(Failure::client(
            "upgrade",
            ErrorType::Validation,
            "Upgrade is not supported. Leave the header out.",
        ));
    }
    Ok(())
}

/// The query as it goes to AWS: a signature of ours means nothing there.
fn native_query<'q>(identity: &Identity, query: &'q str) -> Result<Cow<'q, str>, Failure> {
    match identity {
        Identity::Signed(signed) if signed.is_presigned() => Ok(Cow::Owned(without_signature_parameters(query))),
        Identity::Signed(_) | Identity::Known(_) => check_query(query).map(|()| Cow::Borrowed(query)),
    }
}

/// Writes a caller down, who has to be proven for that, and asks whether he may call the operation, once it is known.
fn enter(ctx: &mut RequestContext, caller: &Caller, found: &Found<'_>, path: &str) -> Result<(), Failure> {
    ctx.record.key_alias = Some(caller.alias().to_owned());
    ctx.record.key_id = caller.holder().map(|_| caller.id().to_owned());
    match found {
        Found::Route(route) => policy::allow_operation(caller, route.operation, path).map_err(not_allowed),
        Found::NeedsBody(_) => Ok(()),
    }
}

/// A presigned query of any other than a key pair names the client's key and would go to AWS with the rest of the query.
fn check_query(query: &str) -> Result<(), Failure> {
    if query.is_empty() {
        return Ok(());
    }
    let signed = query.split('&').any(|parameter| {
        let name = parameter.split('=').next().unwrap_or_default();
        let name: Vec<u8> = percent_encoding::percent_decode_str(name).collect();
        name.get(..6).is_some_and(|start| start.eq_ignore_ascii_case(b"x-amz-"))
    });
    if signed {
        return Err(Failure::client(
            "presigned",
            ErrorType::Validation,
            "Only key pairs can presign: a key does not belong in a URL. Have one made with \"sigv4\": true, sign with \
             headers, or send the key as a bearer token.",
        ));
    }
    Ok(())
}

/// The request target as it came, which must be a path.
fn raw_target(session: &ServerSession) -> Result<String, Failure> {
    let raw = session.req_header().raw_path();
    match std::str::from_utf8(raw) {
        Ok(target) if target.starts_with('/') => Ok(target.to_owned()),
        _ => Err(Failure::client(
            "bad_path",
            ErrorType::Validation,
            "The request target must be a path such as /bedrock/model/<name>/converse, percent-encoded.",
        )),
    }
}

/// Writes down what is known of the operation, so that a request refused later still says what it was.
fn note(ctx: &mut RequestContext, found: &Found<'_>) {
    if let Found::Route(route) = found {
        ctx.record.service = Some(route.operation.service.endpoint_prefix());
        ctx.record.operation = Some(route.operation.name);
    }
}

fn no_route(error: &RouteError) -> Failure {
    match error {
        RouteError::UnknownOperation | RouteError::MethodNotAllowed { .. } => {
            Failure::client("unknown_operation", ErrorType::UnknownOperation, error.to_string())
        }
        RouteError::BadPath(_) | RouteError::Ambiguous(_) => {
            Failure::client("bad_path", ErrorType::Validation, error.to_string())
        }
    }
}

/// The deployments that can serve the call, and the model id as far as it is known.
fn resolve(
    gateway: &Gateway,
    caller: &Caller,
    call: &Call,
    body: &mut RequestBody,
) -> Result<(Arc<Group>, Option<String>), Failure> {
    match &call.model {
        ModelPlace::None => Ok((direct(gateway, call)?, None)),
        ModelPlace::Path(_) => {
            let raw = call.raw_model().unwrap_or_default();
            let name = route::decode_segment(raw).ok_or_else(bad_model)?;
            let listed = policy::resolve_alias(caller, &name);
            if let Some(group) = gateway.fleet.group(listed) {
                return Ok((Arc::clone(group), first_model_id(group)));
            }
            if listed != name {
                return Err(unknown_model(
                    listed,
                    "The key's alias of this name stands for a model that is not listed.",
                ));
            }
            unlisted(gateway, call, &name)
        }
        ModelPlace::Body(member) => {
            let named = call::find_member(body.content(), member).ok_or_else(|| no_model(member))?;
            match gateway.fleet.group(policy::resolve_alias(caller, &named.value)) {
                Some(group) => rename(group, &named, body),
                None => unlisted(gateway, call, &named.value),
            }
        }
    }
}

fn unlisted(gateway: &Gateway, call: &Call, name: &str) -> Result<(Arc<Group>, Option<String>), Failure> {
    if !gateway.allow_unlisted_models {
        return Err(unknown_model(
            name,
            "It is not in model_list, and ids outside the list are switched off. GET /v1/models lists the names.",
        ));
    }
    // Every id of AWS's models and profiles has a dot and no slash; anything else is a mistyped name, or to be listed.
    let plain_word = !name.starts_with("arn:") && (!name.contains('.') || name.contains('/'));
    let of_bedrock = |arn: endpoint::Arn<'_>| matches!(arn.service, "bedrock" | "sagemaker");
    let foreign = name.starts_with("arn:") && !endpoint::Arn::parse(name).is_some_and(of_bedrock);
    if plain_word || foreign || !endpoint::model_id_is_valid(name) {
        return Err(unknown_model(
            name,
            "It is neither a name of model_list nor an id or ARN of Bedrock. GET /v1/models lists the names.",
        ));
    }
    Ok((direct(gateway, call)?, Some(name.to_owned())))
}

/// A listed name in a body gives way to the model id. All attempts send the same body, so only deployments with the
/// same id stay candidates.
fn rename(
    group: &Arc<Group>,
    named: &BodyMember,
    body: &mut RequestBody,
) -> Result<(Arc<Group>, Option<String>), Failure> {
    let picked = group.pick(Instant::now(), fastrand::u64(..)).map(|target| target.model_id.clone());
    let id = picked.flatten().ok_or_else(|| unknown_model(&named.value, "It has no deployment."))?;
    let targets = group.targets.iter().filter(|target| target.model_id.as_ref() == Some(&id)).map(Arc::clone).collect();
    if id.as_str() != named.value {
        let renamed = call::replace_member(body.content(), named, id.as_str()).ok_or_else(bad_model)?;
        body.replace(renamed.into());
    }
    Ok((Arc::new(group.with(targets)), Some(id.to_string())))
}

fn direct(gateway: &Gateway, call: &Call) -> Result<Arc<Group>, Failure> {
    gateway.fleet.direct(call.operation.service).map(Arc::clone).ok_or_else(|| {
        Failure::client("unknown_operation", ErrorType::UnknownOperation, "This service is not configured.")
    })
}

/// The id that says what kind of model it is: an ARN may hide that, and then the base model says it.
fn priced_id<'a>(group: &'a Group, model_id: Option<&'a str>) -> Option<&'a str> {
    let base = group.targets.first().and_then(|target| target.base_model.as_ref());
    base.map(ModelId::as_str).or(model_id)
}

fn first_model_id(group: &Group) -> Option<String> {
    group.targets.first().and_then(|target| target.model_id.as_ref()).map(|id| id.as_str().to_owned())
}

/// What the client called the model: a name of the list, or the id itself.
fn model_name(group: &Group, model_id: Option<&str>) -> Option<ModelName> {
    let listed = group.targets.first().and_then(|target| target.model_name.as_ref());
    listed.cloned().or_else(|| model_id.map(ModelName::new))
}

fn unknown_model(name: &str, remedy: &str) -> Failure {
    // The name is shown back so that the caller sees what arrived; it is JSON-escaped there.
    let shown: String = name.chars().take(128).collect();
    Failure::client("unknown_model", ErrorType::ResourceNotFound, format!("No model `{shown}`. {remedy}"))
}

fn bad_model() -> Failure {
    Failure::client("bad_path", ErrorType::Validation, "The model's name is not valid UTF-8, percent-encoded.")
}

fn no_model(member: &str) -> Failure {
    Failure::client(
        "bad_body",
        ErrorType::Validation,
        format!("The body must be a JSON object with one string member `{member}` that names the model."),
    )
}

/// A header that decides what the request means must not stand there twice.
fn only_header<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Failure> {
    let mut values = head::values(headers, name);
    let value = values.next();
    if values.next().is_some() {
        return Err(Failure::client("bad_path", ErrorType::Validation, format!("Send the header {name} once.")));
    }
    Ok(value.and_then(|value| value.to_str().ok()))
}

#[cfg(test)]
mod tests {
    use super::check_query;

    #[test]
    fn a_presigned_query_is_refused_however_it_is_written() {
        for query in ["X-Amz-Credential=sk-key%2F2026", "a=1&x-amz-signature=0", "%58-Amz-Date=1", "X-%41mz-Date"] {
            assert!(check_query(query).is_err(), "{query}");
        }
        for query in ["", "maxResults=1&nextToken=x-amz-date", "type=SYSTEM_DEFINED", "x-amz=1", "%C3%BC=1", "&&="] {
            assert!(check_query(query).is_ok(), "{query}");
        }
    }
}

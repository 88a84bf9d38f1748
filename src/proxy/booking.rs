//! Whose money a request would spend, and how much of it at most.
//!
//! Everything that the ledger must know is put together here before it is asked. A caller without any limit needs no
//! bound, so its body is not looked at.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::protocols::http::ServerSession;

use super::call::Call;
use super::context::RequestContext;
use super::reserve::{Booking, store_unavailable};
use super::stand_in::StandIns;
use super::{Gateway, head};
use crate::aws::error_body::ErrorType;
use crate::aws::operation::{Metering, Streaming};
use crate::budget::entry::Row;
use crate::budget::estimate::{self, Bound, Candidate, Content, Question, Unbounded};
use crate::budget::limit::{self, Demands, Party};
use crate::deployment::fleet::{Group, Target};
use crate::deployment::profiles::LookupError;
use crate::error::Failure;
use crate::keys::authenticate::Caller;
use crate::keys::register::Profile;
use crate::keys::{attribution, parties, policy};
use crate::price::book::{Query, Surface};
use crate::price::rates::Price;
use crate::store::Kind;
use crate::types::ids::ModelId;
use crate::usage::RequestFacts;

/// For whom a request is, and under which tags.
#[derive(Debug, Default)]
pub(super) struct Attribution {
    pub end_user: Option<String>,
    pub tags: Vec<String>,
    /// The records of those, where there are any.
    customer: Option<Profile>,
    tagged: Vec<Profile>,
}

/// A request as far as its money is concerned.
pub(super) struct Asked<'a> {
    pub caller: &'a Caller,
    pub attribution: &'a Attribution,
    pub call: &'a Call,
    pub group: &'a Group,
    pub facts: &'a RequestFacts,
    pub model_name: Option<&'a str>,
    /// Why the model of an application inference profile is not known.
    pub lookup_failure: Option<&'a LookupError>,
}

impl Attribution {
    pub(super) async fn find(
        gateway: &Gateway,
        session: &ServerSession,
        caller: &Caller,
        metering: Metering,
        body: &Content<'_>,
    ) -> Result<Self, Failure> {
        let headers = &session.req_header().headers;
        let header = |name: &str| head::first(headers, name);
        let mut found = Self {
            end_user: attribution::end_user(&gateway.budgets.end_user_headers, &header, metering, body),
            tags: attribution::tags(&gateway.budgets.tag_headers, &header, caller),
            ..Self::default()
        };
        let Some(register) = &gateway.register else {
            return Ok(found);
        };
        if let Some(id) = &found.end_user {
            found.customer = register.profile(Kind::Customer, id).await.map_err(|_| store_unavailable())?;
        }
        for tag in &found.tags {
            found.tagged.extend(register.profile(Kind::Tag, tag).await.map_err(|_| store_unavailable())?);
        }
        if let Some(customer) = &found.customer {
            policy::allow_customer(&customer.record).map_err(not_allowed)?;
        }
        Ok(found)
    }

    /// The deployments in regions that the caller and the customer may use.
    pub(super) fn allowed(&self, caller: &Caller, group: Arc<Group>) -> Result<Arc<Group>, Failure> {
        let customer = self.customer.as_ref().map(|customer| &*customer.record);
        let allows = |target: &Arc<Target>| policy::allows_region(caller, customer, target.region.as_str());
        if group.kinds.iter().all(allows) {
            return Ok(group);
        }
        let targets: Vec<_> = group.targets.iter().filter(|target| allows(target)).map(Arc::clone).collect();
        if targets.is_empty() {
            return Err(not_allowed(policy::no_region(caller, customer)));
        }
        Ok(Arc::new(group.with(targets)))
    }
}

/// A refusal of the caller's own rules.
pub(super) fn not_allowed(refusal: policy::Refusal) -> Failure {
    Failure::client(refusal.reason, ErrorType::AccessDenied, refusal.message)
}

/// What the ledger has to be asked for; `None` where nothing is counted.
pub(super) fn book(
    gateway: &Gateway,
    ctx: &RequestContext,
    asked: &Asked<'_>,
    stand_ins: &mut StandIns,
    headers: &http::HeaderMap,
    content: &Content<'_>,
) -> Result<Option<Booking>, Failure> {
    let Some(ledger) = &gateway.ledger else {
        return Ok(None);
    };
    let attribution = asked.attribution;
    let parties =
        parties::parties(asked.caller, attribution.customer.as_ref(), &attribution.tagged, &gateway.budgets.global);
    let now_ms = ledger.now_ms();
    let mut demands = compose(gateway, &parties, asked.model_name, now_ms);
    let compose_for = |name: &str| compose(gateway, &parties, Some(name), now_ms);
    stand_ins.retain(|stand_in| demands.cover(&compose_for(stand_in.group.model_name.as_str())));
    let operation = asked.call.operation;
    if operation.metering == Metering::Free {
        // Nothing is spent; only rates and concurrency may be limited.
        demands = Demands { throttles: demands.throttles, ..Demands::default() };
        if demands.throttles.is_empty() {
            return Ok(None);
        }
    }
    let bound = if demands.is_limited() {
        let question = Question {
            operation,
            facts: asked.facts,
            content,
            tier_header: head::text(headers, "x-amzn-bedrock-service-tier"),
            latency_header: head::text(headers, "x-amzn-bedrock-performanceconfig-latency"),
            guardrail_header: head::first(headers, "x-amzn-bedrock-guardrailidentifier").is_some(),
        };
        let mut dearest = bound(gateway, asked.group, asked.lookup_failure, &question)?;
        stand_ins.retain(|stand_in| {
            let question = Question { facts: &stand_in.facts, ..question };
            let bound = bound(gateway, &stand_in.group, None, &question);
            if let Ok(bound) = &bound {
                dearest = dearest.or(*bound);
            }
            bound.is_ok()
        });
        Some(dearest)
    } else {
        None
    };
    let streams = matches!(operation.streaming, Streaming::EventStream | Streaming::Bidirectional);
    Ok(Some(Booking::new(demands, bound, row(ctx, asked, now_ms), streams)))
}

fn compose(gateway: &Gateway, parties: &[Party<'_>], model_name: Option<&str>, now_ms: u64) -> Demands {
    limit::compose(parties, model_name, &mut |period| {
        gateway.windows.lock().unwrap_or_else(std::sync::PoisonError::into_inner).at(*period, now_ms)
    })
}

fn row(ctx: &RequestContext, asked: &Asked<'_>, now_ms: u64) -> Row {
    let record = |profile: Option<&Profile>| profile.map(|profile| profile.record.id.clone());
    let holder = asked.caller.holder();
    Row {
        request_id: ctx.record.call_id.clone(),
        started_at_ms: now_ms.saturating_sub(u64::try_from(ctx.arrived.elapsed().as_millis()).unwrap_or(0)),
        key_id: asked.caller.id().to_owned(),
        key_alias: holder.and_then(|holder| holder.key.record.alias.clone()),
        team_id: record(holder.and_then(|holder| holder.team.as_ref())),
        user_id: record(holder.and_then(|holder| holder.user.as_ref())),
        end_user: asked.attribution.end_user.clone(),
        tags: asked.attribution.tags.clone(),
        operation: asked.call.operation.name.to_owned(),
        model: asked.model_name.unwrap_or_default().to_owned(),
        ..Row::default()
    }
}

/// What the request may cost at most over every deployment that may serve it.
fn bound(
    gateway: &Gateway,
    group: &Group,
    lookup_failure: Option<&LookupError>,
    question: &Question<'_, '_>,
) -> Result<Bound, Failure> {
    let set = gateway.operation_prices.get(question.operation.name).copied();
    let called = question.facts.model_id.as_deref();
    let candidates: Vec<Candidate<'_>> = group
        .kinds
        .iter()
        .map(|target| Candidate {
            price: price(gateway, target, question),
            model_id: target.base_model.as_ref().or(target.model_id.as_ref()).map(ModelId::as_str).or(called),
            operation_price: set,
        })
        .collect();
    match estimate::bound(question, &candidates) {
        Ok(bound) => Ok(bound),
        Err(Unbounded::UnpricedModel) if gateway.budgets.allow_unpriced => Ok(Bound::default()),
        Err(Unbounded::UnpricedModel) => Err(unpriced_model(lookup_failure)),
        Err(unbounded) => Err(unbounded_failure(unbounded, question.operation.name)),
    }
}

fn price<'g>(gateway: &'g Gateway, target: &'g Target, question: &Question<'_, '_>) -> Option<Cow<'g, Price>> {
    if matches!(question.operation.metering, Metering::ApplyGuardrail | Metering::GuardrailChecks) {
        return Some(Cow::Owned(gateway.price_book.guardrail()));
    }
    let model_id = target.model_id.as_ref().map(ModelId::as_str).or(question.facts.model_id.as_deref());
    let query = Query {
        model_id: model_id.unwrap_or_default(),
        region: target.region.as_str(),
        surface: Surface::Runtime,
        base_model: target.base_model.as_ref().map(ModelId::as_str),
        invoked_model: None,
    };
    gateway.price_book.price(&query, target.price.as_ref())
}

fn unpriced_model(lookup_failure: Option<&LookupError>) -> Failure {
    let message = match lookup_failure {
        Some(why) if why.may_pass() => {
            let message = format!(
                "The model behind this inference profile is not known yet, because {why}, and a key with a budget may \
                 not call it without a price. Try again in a moment."
            );
            return Failure::upstream("profile_lookup", ErrorType::ServiceUnavailable, message)
                .with(|response| response.retry_after(Duration::from_secs(1)));
        }
        None => "This model has no price, so a key with a budget may not call it. Have the operator set its prices in \
                 model_info, or general_settings.unpriced: allow."
            .to_owned(),
        Some(why) => format!(
            "The model behind this inference profile is not known, because {why}. So it has no price, and a key with a \
             budget may not call it. Have the operator allow bedrock:GetInferenceProfile to the proxy's credentials, or \
             list the profile with its model_info.base_model."
        ),
    };
    Failure::client("unpriced_model", ErrorType::AccessDenied, message)
}

fn unbounded_failure(unbounded: Unbounded, operation: &str) -> Failure {
    let denied = |reason, message: String| Failure::client(reason, ErrorType::AccessDenied, message);
    match unbounded {
        Unbounded::UnpricedModel => unpriced_model(None),
        Unbounded::NoOperationPrice => denied(
            "unpriced_operation",
            format!(
                "{operation} does not report what it costs, so a key with a budget may not call it. Have the operator \
                 set general_settings.operation_prices.{operation}."
            ),
        ),
        Unbounded::Unmeasured => denied(
            "unmeasured",
            format!(
                "What this call costs depends on media whose length it does not state, so a key with a budget may not \
                 make it. Have the operator set general_settings.operation_prices.{operation}."
            ),
        ),
        Unbounded::NoOutputLimit => Failure::client(
            "no_output_limit",
            ErrorType::Validation,
            "This model's longest answer is not known, so a key with a budget must say how many tokens it may have: \
             set maxTokens (max_tokens).",
        ),
        Unbounded::TooLarge => denied(
            "unbounded",
            "This call may cost more than any budget can hold. Ask for fewer tokens, or correct the model's prices."
                .to_owned(),
        ),
        Unbounded::BadBody => Failure::client(
            "bad_body",
            ErrorType::Validation,
            "The body is not the JSON document that this operation takes, so its cost cannot be bounded. Correct it.",
        ),
    }
}

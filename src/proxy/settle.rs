//! The end of a request, exactly once: usage into money, then metrics and the record.

use std::borrow::Cow;

use pingora_proxy::Session;

use super::Gateway;
use super::context::{Admitted, Attempt, RequestContext, Stage, milliseconds};
use crate::aws::operation::Metering;
use crate::price::book::{Query, Surface};
use crate::price::cost;
use crate::telemetry::metrics::{Route, Timings};
use crate::telemetry::request_record::{AttemptRecord, UsageRecord};
use crate::types::ids::{ModelId, ModelName};
use crate::types::money::NanoUsd;
use crate::usage::{Certainty, Metered};

/// Reads the final usage of the current attempt and prices it. The first call counts, later ones do nothing.
pub(super) fn measure(gateway: &Gateway, ctx: &mut RequestContext) {
    let Stage::Dispatched(admitted, attempt) = &mut ctx.stage else {
        return;
    };
    let Some(reader) = attempt.reader.take() else {
        return;
    };
    let metered = reader.finish();
    let record = &mut ctx.record;
    if let Some(exception) = &metered.exception {
        record.fault = Some("upstream");
        record.reason = Some("exception_frame");
        record.error_type = Some(exception.clone());
    }
    record.usage_certainty = certainty(admitted.call.operation.metering, &metered);
    let served = attempt.status.is_some_and(|status| (200..300).contains(&status));
    let cost = if served { price(gateway, admitted, attempt, &metered) } else { Ok(NanoUsd::ZERO) };
    let route = route(admitted, attempt);
    if let Some(usage) = metered.usage.filter(|usage| served && !usage.is_empty()) {
        gateway.metrics.used(route, &usage);
        record.usage = Some(UsageRecord::new(&usage));
    }
    match cost {
        Ok(cost) => {
            gateway.metrics.spent(route, cost);
            record.set_cost(cost);
            admitted.shared.add_header("x-dheera-ai-response-cost", cost.to_string());
        }
        Err(reason) => {
            gateway.metrics.unpriced(admitted.call.operation.name, reason);
            record.unpriced = Some(reason.to_owned());
        }
    }
}

/// What the call costs, or a fixed word for why that is not known.
fn price(
    gateway: &Gateway,
    admitted: &Admitted,
    attempt: &Attempt,
    metered: &Metered,
) -> Result<NanoUsd, &'static str> {
    let operation = admitted.call.operation;
    if operation.metering == Metering::Free {
        return Ok(NanoUsd::ZERO);
    }
    // What the operator set for an operation stands in where AWS reports nothing that could be priced.
    let set = gateway.operation_prices.get(operation.name).copied();
    let Some(usage) = &metered.usage else {
        return set.ok_or("unknown_usage");
    };
    let model_id = model_id(admitted, attempt);
    let target = &attempt.target;
    let query = Query {
        model_id: model_id.as_deref().unwrap_or_default(),
        region: target.region.as_str(),
        surface: Surface::Runtime,
        base_model: target.base_model.as_ref().map(ModelId::as_str),
        invoked_model: metered.terms.invoked_model.as_deref(),
    };
    let price = match operation.metering {
        Metering::ApplyGuardrail | Metering::GuardrailChecks => Cow::Owned(gateway.price_book.guardrail()),
        _ => match gateway.price_book.price(&query, target.price.as_ref()) {
            Some(price) => price,
            None => return set.ok_or("unpriced_model"),
        },
    };
    cost::cost(&price, usage, &metered.terms).map_err(|unpriced| {
        tracing::warn!(call_id = %admitted.call_id, model_id = query.model_id, "{unpriced}; set it in model_info");
        "unpriced_usage"
    })
}

/// The model id the attempt called, decoded: the deployment's, or what the client named.
pub(super) fn model_id(admitted: &Admitted, attempt: &Attempt) -> Option<String> {
    attempt.target.model_id.as_ref().map(ToString::to_string).or_else(|| admitted.facts.model_id.clone())
}

fn certainty(metering: Metering, metered: &Metered) -> Option<&'static str> {
    match (metering, metered.certainty) {
        (Metering::Free, _) => None,
        (_, Certainty::Exact) => Some("exact"),
        (_, Certainty::Partial) => Some("partial"),
        (_, Certainty::Unknown) => Some("unknown"),
    }
}

fn route<'a>(admitted: &'a Admitted, attempt: &'a Attempt) -> Route<'a> {
    Route {
        operation: admitted.call.operation.name,
        model_name: attempt.target.model_name.as_ref().map_or("", ModelName::as_str),
        deployment: attempt.target.id.as_str(),
        region: attempt.target.region.as_str(),
    }
}

/// The last phase of every request that had a head.
pub(super) fn settle(
    gateway: &Gateway,
    session: &Session,
    ctx: &mut RequestContext,
    error: Option<&pingora_core::Error>,
) {
    if let Stage::Dispatched(admitted, attempt) = &mut ctx.stage
        && (error.is_some() || admitted.shared.told())
        && let Some(reader) = attempt.reader.as_mut()
    {
        reader.interrupted();
    }
    measure(gateway, ctx);
    let duration = ctx.arrived.elapsed();
    let response_bytes = session.as_downstream().body_bytes_sent();
    let stage = std::mem::replace(&mut ctx.stage, Stage::Finished);
    let mut record = std::mem::take(&mut ctx.record);
    record.response_bytes = response_bytes;
    record.duration_ms = milliseconds(duration);
    let mut overhead = None;
    let mut first_byte = None;
    if let Stage::Dispatched(admitted, attempt) = &stage {
        overhead = attempt.sent.map(|sent| sent.saturating_duration_since(admitted.read));
        first_byte = attempt.first_byte.map(|at| at.saturating_duration_since(ctx.arrived));
        record.attempts.push(AttemptRecord {
            deployment: attempt.target.id.to_string(),
            status: attempt.status,
            setback: None,
        });
        record.deployment = Some(attempt.target.id.to_string());
        record.region = Some(attempt.target.region.to_string());
        record.model_id = model_id(admitted, attempt);
        if record.status == 0 {
            record.status = attempt.status.unwrap_or(499);
        }
        if record.status >= 400 && record.fault.is_none() {
            record.fault = Some("upstream");
            record.reason = Some("upstream_status");
        }
        if admitted.shared.told() {
            record.fault = Some("upstream");
            record.reason = Some("upstream_broke");
        }
    }
    record.overhead_ms = overhead.map(milliseconds);
    if record.reason == Some("local") {
        return; // Probes and scrapes are not requests to Bedrock.
    }
    let labels = match &stage {
        Stage::Dispatched(admitted, attempt) => route(admitted, attempt),
        _ => Route { operation: record.operation.unwrap_or(""), model_name: "", deployment: "", region: "" },
    };
    gateway.metrics.finished(labels, record.status, &Timings { duration, time_to_first_byte: first_byte, overhead });
    if let (Some(fault), Some(reason)) = (record.fault, record.reason)
        && !matches!(reason, "upstream_status" | "exception_frame")
    {
        gateway.metrics.refused(fault, reason);
    }
    if !gateway.recorder.record(record) {
        gateway.metrics.record_lost();
    }
}

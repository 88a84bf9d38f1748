//! The end of a request, exactly once: usage into money, the reservation back to the ledger, metrics and the record.

use std::borrow::Cow;
use std::time::Duration;

use pingora_proxy::Session;

use super::context::{Admitted, Attempt, RequestContext, Stage, milliseconds};
use super::event_stream::Ended;
use super::reserve::Booking;
use super::shared::Flaw;
use super::{Gateway, failover};
use crate::aws::operation::Metering;
use crate::budget::entry::Row;
use crate::config::UnknownUsage;
use crate::deployment::fleet::Target;
use crate::price::book::{Query, Surface};
use crate::price::cost;
use crate::telemetry::metrics::{Route, Timings};
use crate::telemetry::request_record::{AttemptRecord, UsageRecord};
use crate::types::ids::{ModelId, ModelName};
use crate::types::money::NanoUsd;
use crate::types::tokens::Tokens;
use crate::usage::{Cause, Certainty, Metered};

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
    attempt.tokens = metered.usage.as_ref().map(|usage| (usage.total_input() + usage.output).0);
    record.usage_certainty = certainty(admitted.call.operation.metering, &metered);
    if let Some(exception) = &metered.exception {
        admitted.shared.set_exception(exception);
    }
    if metered.cause == Some(Cause::Malformed) {
        admitted.shared.set_flaw(Flaw::Damaged);
    }
    let served = attempt.status.is_some_and(|status| (200..300).contains(&status)) && !attempt.watch.refused;
    let cost = if served { price(gateway, admitted, attempt, &metered) } else { Ok(NanoUsd::ZERO) };
    let route = route(admitted, &attempt.target);
    if let Some(usage) = metered.usage.filter(|usage| served && !usage.is_empty()) {
        gateway.metrics.used(route, &usage);
        record.usage = Some(UsageRecord(usage));
    }
    if let Err(reason) = cost {
        gateway.metrics.unpriced(admitted.call.operation.name, reason);
        record.unpriced = Some(reason.to_owned());
    }
    if let Some(charged) = charge(gateway, admitted, attempt, &metered, cost) {
        gateway.metrics.spent(route, charged);
        record.add_cost(charged);
        admitted.shared.add_header("x-dheera-ai-response-cost", charged.to_string());
        if let Some(budget) = admitted.booking.as_ref().and_then(Booking::key_budget) {
            let spent = budget.spent.saturating_add(charged);
            admitted.shared.add_header("x-dheera-ai-key-spend", spent.to_usd_number());
            if let Some(limit) = budget.limit {
                // What was set aside for this call is given back.
                let others = budget.reserved.saturating_sub(admitted.shared.purse.amount().unwrap_or_default());
                let left = limit.saturating_sub(spent).saturating_sub(others);
                admitted.shared.add_header("x-dheera-ai-key-remaining", left.to_usd_number());
            }
        }
        book(admitted, attempt, &metered, charged, ctx.arrived.elapsed());
    } else if let Some(reservation) = admitted.shared.purse.take() {
        // Served without a limit, and nobody knows its price.
        let row = row(admitted, Some(attempt), &metered, ctx.arrived.elapsed());
        reservation.settle(NanoUsd::ZERO, 0, row);
    }
}

/// An answer that had begun is given up for another attempt: charges what is known of it. What the record says of an
/// answer is about the one that the client gets.
pub(super) fn measure_given_up(gateway: &Gateway, ctx: &mut RequestContext) {
    if let Some((_, attempt)) = ctx.dispatched_mut()
        && let Some(reader) = attempt.reader.as_mut()
    {
        reader.interrupted();
    }
    let record = std::mem::take(&mut ctx.record);
    measure(gateway, ctx);
    let given_up = std::mem::replace(&mut ctx.record, record);
    if let Some(cost) = given_up.cost_nano_usd {
        ctx.record.add_cost(NanoUsd(cost));
    }
}

/// What the attempt is charged with: its cost where that is certain, else what the configuration says of unknown usage.
/// `None` where neither is known, because no limit asked for a bound.
fn charge(
    gateway: &Gateway,
    admitted: &Admitted,
    attempt: &Attempt,
    metered: &Metered,
    cost: Result<NanoUsd, &'static str>,
) -> Option<NanoUsd> {
    if attempt.status.is_none() {
        // Sent, and no answer came: AWS may have served it.
        return Some(if attempt.sent.is_some() { unknown(gateway, admitted, 0) } else { NanoUsd::ZERO });
    }
    let certain = metered.certainty == Certainty::Exact || metered.usage.is_none();
    match cost {
        Ok(cost) if certain => Some(cost),
        Ok(cost) => Some(cost.max(unknown(gateway, admitted, metered.output_bytes_seen))),
        Err(_) if admitted.booking.as_ref().is_some_and(|booking| booking.bound.is_some()) => {
            Some(unknown(gateway, admitted, metered.output_bytes_seen))
        }
        Err(_) => None,
    }
}

/// What a call costs of which only the bytes of its answer are known: zero without a bound.
fn unknown(gateway: &Gateway, admitted: &Admitted, output_bytes_seen: u64) -> NanoUsd {
    let reserved = admitted.shared.purse.amount().unwrap_or_default();
    match (gateway.budgets.unknown_usage, admitted.booking.as_ref().and_then(|booking| booking.bound.as_ref())) {
        (UnknownUsage::Estimate, Some(bound)) => bound.so_far(output_bytes_seen).min(reserved),
        _ => reserved,
    }
}

/// Hands the reservation back to the ledger with what became of it.
fn book(admitted: &Admitted, attempt: &Attempt, metered: &Metered, charged: NanoUsd, duration: Duration) {
    let Some(reservation) = admitted.shared.purse.take() else {
        return;
    };
    let tokens = match &metered.usage {
        Some(usage) if metered.certainty == Certainty::Exact => usage.total_input() + usage.output,
        // Without usage the estimate stands; an error used none.
        _ if charged == NanoUsd::ZERO => Tokens::ZERO,
        _ => {
            Tokens(admitted.booking.as_ref().and_then(|booking| booking.bound.as_ref()).map_or(0, |bound| bound.tokens))
        }
    };
    if charged > reservation.amount() && admitted.booking.as_ref().is_some_and(|booking| booking.bound.is_some()) {
        tracing::error!(
            call_id = %admitted.call_id,
            operation = admitted.call.operation.name,
            "a call cost {charged}, more than its upper bound of {}; its price or limits in the price book are wrong",
            reservation.amount()
        );
    }
    reservation.settle(charged, tokens.0, row(admitted, Some(attempt), metered, duration));
}

/// Charges an attempt at `target` that was sent and never answered.
pub(super) fn charge_unanswered(gateway: &Gateway, admitted: &Admitted, target: &Target) -> NanoUsd {
    let charged = unknown(gateway, admitted, 0);
    if charged > NanoUsd::ZERO {
        gateway.metrics.spent(route(admitted, target), charged);
    }
    if let Some(reservation) = admitted.shared.purse.take() {
        let mut row = row_at(admitted, Some(target));
        "unknown".clone_into(&mut row.certainty);
        let tokens =
            admitted.booking.as_ref().and_then(|booking| booking.bound.as_ref()).map_or(0, |bound| bound.tokens);
        reservation.settle(charged, tokens, row);
    }
    charged
}

/// What the line of the spend log says of the request, and of where it was sent.
fn row_at(admitted: &Admitted, target: Option<&Target>) -> Row {
    let mut row = admitted.booking.as_ref().map(|booking| Row::clone(&booking.row)).unwrap_or_default();
    if let Some(target) = target {
        row.model_id = called_model(admitted, target).map(str::to_owned);
        row.deployment = Some(target.id.as_str().to_owned());
        row.region = Some(target.region.as_str().to_owned());
    }
    row
}

/// The line of the spend log.
fn row(admitted: &Admitted, attempt: Option<&Attempt>, metered: &Metered, duration: Duration) -> Row {
    let mut row = row_at(admitted, attempt.map(|attempt| &*attempt.target));
    row.duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if let Some(attempt) = attempt {
        row.status = attempt.status.unwrap_or_default().into();
    }
    if let Some(usage) = &metered.usage {
        row.prompt_tokens = usage.total_input().0;
        row.completion_tokens = usage.output.0;
        row.cache_read_tokens = usage.cache_read.0;
        row.cache_write_tokens = (usage.cache_write_5m + usage.cache_write_1h).0;
    }
    certainty(admitted.call.operation.metering, metered).unwrap_or_default().clone_into(&mut row.certainty);
    row
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
    // Where only a trace reports anything, it is the price, trace or not: more was not set aside, and whether there is
    // a trace is the client's choice.
    if let (Some(set), Metering::AgentTrace | Metering::FlowTrace | Metering::Harness) = (set, operation.metering) {
        return Ok(set);
    }
    let Some(usage) = &metered.usage else {
        return set.ok_or("unknown_usage");
    };
    let target = &attempt.target;
    let query = Query {
        model_id: called_model(admitted, target).unwrap_or_default(),
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
    called_model(admitted, &attempt.target).map(str::to_owned)
}

fn called_model<'a>(admitted: &'a Admitted, target: &'a Target) -> Option<&'a str> {
    let own = target.model_id.as_ref().map(ModelId::as_str);
    own.or(admitted.called.as_deref()).or(admitted.facts.model_id.as_deref())
}

fn certainty(metering: Metering, metered: &Metered) -> Option<&'static str> {
    match (metering, metered.certainty) {
        (Metering::Free, _) => None,
        (_, Certainty::Exact) => Some("exact"),
        (_, Certainty::Partial) => Some("partial"),
        (_, Certainty::Unknown) => Some("unknown"),
    }
}

fn route<'a>(admitted: &'a Admitted, target: &'a Target) -> Route<'a> {
    Route {
        operation: admitted.call.operation.name,
        model_name: target.model_name.as_ref().map_or("", ModelName::as_str),
        deployment: target.id.as_str(),
        region: target.region.as_str(),
    }
}

/// What is set aside for a request that got no answer: charged if it may have been served, else given back.
fn give_back(gateway: &Gateway, ctx: &mut RequestContext) {
    let Some(admitted) = ctx.admitted_mut() else {
        return;
    };
    if let Some(target) = admitted.spoiled.take() {
        let charged = charge_unanswered(gateway, admitted, &target);
        ctx.record.add_cost(charged);
    } else if let Some(reservation) = admitted.shared.purse.take() {
        reservation.void();
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
        && (error.is_some() || admitted.shared.ended().is_some())
        && let Some(reader) = attempt.reader.as_mut()
    {
        reader.interrupted();
    }
    measure(gateway, ctx);
    failover::ended(gateway, ctx, error);
    give_back(gateway, ctx);
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
            deployment: attempt.target.id.clone(),
            status: attempt.status,
            setback: None,
        });
        record.deployment = Some(attempt.target.id.clone());
        record.region = Some(attempt.target.region.clone());
        record.model_id =
            attempt.target.model_id.clone().or_else(|| called_model(admitted, &attempt.target).map(ModelId::new));
        if record.status == 0 {
            record.status = attempt.status.unwrap_or(499);
        }
        if record.status >= 400 && record.fault.is_none() {
            record.fault = Some("upstream");
            record.reason = Some("upstream_status");
        }
        if let Some(flaw) = admitted.shared.ended_badly() {
            gateway.metrics.ended_badly(attempt.target.id.as_str(), flaw.as_str());
        }
        let ended = match admitted.shared.ended() {
            Some(Ended::Broken) => Some(("upstream", "upstream_broke")),
            Some(Ended::BudgetSpent) => Some(("limit", "budget_exhausted")),
            Some(Ended::Stopping) => Some(("internal", "stopping")),
            None => admitted.shared.deserted().then_some(("disconnect", "client_gone")),
        };
        if let Some((fault, reason)) = ended {
            (record.fault, record.reason) = (Some(fault), Some(reason));
        }
    }
    record.overhead_ms = overhead.map(milliseconds);
    if record.reason == Some("local") {
        return; // Probes and scrapes are not requests to Bedrock.
    }
    let labels = match &stage {
        Stage::Dispatched(admitted, attempt) => route(admitted, &attempt.target),
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

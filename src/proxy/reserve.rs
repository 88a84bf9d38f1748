//! The money set aside for a request before it goes to Bedrock.
//!
//! A key without limits costs no round trip: its calls are counted when they end. With limits, the ledger's answer
//! comes first, and a refusal says whose limit it was, what is left of it, and when to come back.

use std::sync::Arc;
use std::time::Duration;

use super::Gateway;
use super::shared::Shared;
use crate::aws::error_body::{ErrorResponse, ErrorType};
use crate::budget::command::{Balance, Charge, Denial, LeaseId, Throttle};
use crate::budget::entry::Row;
use crate::budget::estimate::Bound;
use crate::budget::limit::Demands;
use crate::config::OnLowBudget;
use crate::error::{Failure, Fault};
use crate::ledger::{Ask, Refused};
use crate::types::money::{NanoUsd, round_up};

/// A growing stream is paid for so many output tokens ahead: more than arrive while the store is asked, and little
/// enough that what is left at the end of a budget is used.
const TOKENS_AHEAD: u64 = 256;

/// When to try again where no better time is known.
const RETRY_SOON: Duration = Duration::from_secs(1);

/// Everything a reservation of this request needs, for as many attempts as it takes.
#[derive(Debug)]
pub(super) struct Booking {
    demands: Demands,
    /// `None` where no limit asks for one.
    pub bound: Option<Bound>,
    pub row: Arc<Row>,
    /// Which reservation of the request the next one is.
    next: u32,
    /// Balances when the first reservation was granted.
    balances: Vec<Balance>,
    streams: bool,
}

/// The budget a key's answers tell of.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyBudget {
    pub spent: NanoUsd,
    pub reserved: NanoUsd,
    pub limit: Option<NanoUsd>,
}

impl Booking {
    pub(super) fn new(demands: Demands, bound: Option<Bound>, row: Row, streams: bool) -> Self {
        Self { demands, bound, row: Arc::new(row), next: 0, balances: Vec::new(), streams }
    }

    /// The key's own budget, as it stood with this request's reservation in it.
    pub(super) fn key_budget(&self) -> Option<KeyBudget> {
        let charge = self.demands.charges.get(self.demands.primary)?;
        let balance = self.balances.get(self.demands.primary)?;
        Some(KeyBudget { spent: balance.spent, reserved: balance.reserved, limit: charge.limit })
    }

    /// Whether a soft budget has been reached.
    pub(super) fn soft_budget_reached(&self) -> bool {
        let reached = |(index, amount): &(usize, NanoUsd)| {
            self.balances.get(*index).is_some_and(|balance| balance.spent >= *amount)
        };
        self.demands.soft.iter().any(reached)
    }
}

/// Sets money aside for the next attempt and puts it into the purse of `shared`.
pub(super) async fn reserve(gateway: &Gateway, booking: &mut Booking, shared: &Shared) -> Result<(), Failure> {
    let Some(ledger) = &gateway.ledger else {
        return Ok(());
    };
    let lease = LeaseId::new([booking.row.request_id.as_str(), ".", itoa::Buffer::new().format(booking.next)].concat());
    booking.next += 1;
    let Some(bound) = booking.bound else {
        let counted = ledger.count(lease, booking.demands.charges.clone(), Arc::clone(&booking.row));
        shared.purse.fill(counted.watching(booking.demands.soft.clone()), None);
        return Ok(());
    };
    let ahead = round_up(bound.output_rate.times(TOKENS_AHEAD));
    let ask = Ask {
        lease,
        amount: bound.cost,
        tokens: bound.tokens,
        charges: booking.demands.charges.clone(),
        throttles: booking.demands.throttles.clone(),
        soft: booking.demands.soft.clone(),
        row: Arc::clone(&booking.row),
    };
    let mut refused = match ledger.reserve(ask).await {
        Ok(reservation) => {
            note(gateway, booking, reservation.balances());
            shared.purse.fill(reservation, bound.open_ended.then_some(ahead.max(NanoUsd(bound.cost.0 / 2))));
            return Ok(());
        }
        Err(refused) => refused,
    };
    // A stream may begin with what there is, if its growth can be followed.
    let beginning = bound.input_cost.saturating_add(ahead);
    let may_grow = booking.streams
        && gateway.budgets.on_low_budget == OnLowBudget::Extend
        && !bound.hidden_output
        && !bound.open_ended;
    if let Refused::Denied(Denial::Budget { remaining, .. }, ask) = &mut refused
        && may_grow
        && beginning < bound.cost
        && *remaining >= beginning
    {
        ask.amount = beginning;
        match ledger.reserve(Ask::clone(ask)).await {
            Ok(reservation) => {
                note(gateway, booking, reservation.balances());
                shared.purse.fill(reservation, Some(ahead));
                return Ok(());
            }
            Err(again) => refused = again,
        }
    }
    Err(refusal(gateway, booking, &bound, refused))
}

/// Keeps the balances for the answer's headers, and the budgets' names for metrics.
fn note(gateway: &Gateway, booking: &mut Booking, balances: &[Balance]) {
    gateway.named_budgets.note(&booking.demands.charges, &booking.row);
    booking.balances = balances.to_vec();
}

/// The error for a refusal of the ledger.
fn refusal(gateway: &Gateway, booking: &Booking, bound: &Bound, refused: Refused) -> Failure {
    match refused {
        Refused::Denied(denial, _) => denied(gateway, booking, bound, &denial),
        Refused::Unavailable(why) | Refused::Failed(why) => store_unavailable().because(why),
    }
}

/// The store is down, and what needs it has to wait.
pub(super) fn store_unavailable() -> Failure {
    Failure::new(
        Fault::Store,
        "store_unavailable",
        ErrorType::ServiceUnavailable,
        "Budgets cannot be checked at the moment, so calls with a budget have to wait. Try again in a second.",
    )
    .with(|response| response.retry_after(RETRY_SOON))
}

fn denied(gateway: &Gateway, booking: &Booking, bound: &Bound, denial: &Denial) -> Failure {
    let throttle = |index: usize| booking.demands.throttles.get(index);
    let failure = |reason: &'static str, scope: &str, kind, message: String| {
        gateway.metrics.denied(reason, scope);
        Failure::new(Fault::Limit, reason, kind, message)
    };
    match denial {
        Denial::Budget { index, remaining } => {
            let charge = booking.demands.charges.get(*index);
            let scope = charge.map_or("key", |charge| charge.scope.as_str());
            failure("over_budget", scope, ErrorType::ServiceQuotaExceeded, over_budget(charge, *remaining, bound))
                .with(ErrorResponse::no_retry)
        }
        Denial::Requests { index, retry_after_ms } => {
            let limit = throttle(*index).and_then(|throttle| throttle.rpm).unwrap_or_default();
            let what = format!("{limit} requests a minute");
            limited(failure, "rpm_limit", throttle(*index), &what, Duration::from_millis(*retry_after_ms))
        }
        Denial::Tokens { index, retry_after_ms } => {
            let limit = throttle(*index).and_then(|throttle| throttle.tpm).unwrap_or_default();
            let what = format!("{limit} tokens a minute (this call may take up to {})", bound.tokens);
            limited(failure, "tpm_limit", throttle(*index), &what, Duration::from_millis(*retry_after_ms))
        }
        Denial::Parallel { index } => {
            let limit = throttle(*index).and_then(|throttle| throttle.parallel).unwrap_or_default();
            limited(failure, "parallel_limit", throttle(*index), &format!("{limit} requests at a time"), RETRY_SOON)
        }
    }
}

fn limited(
    failure: impl Fn(&'static str, &str, ErrorType, String) -> Failure,
    reason: &'static str,
    throttle: Option<&Throttle>,
    what: &str,
    retry_after: Duration,
) -> Failure {
    let scope = throttle.map_or("key", |throttle| throttle.scope.as_str());
    let message = format!("The limit of this {} is {what}. Try again in {} s.", scope.replace('_', " of the "), {
        retry_after.as_millis().div_ceil(1000)
    });
    failure(reason, scope, ErrorType::Throttling, message).with(|response| response.retry_after(retry_after))
}

fn over_budget(charge: Option<&Charge>, remaining: NanoUsd, bound: &Bound) -> String {
    let whose = match charge.map(|charge| charge.scope.as_str()) {
        None | Some("key") => "this key",
        Some("key_model") => "this key for this model",
        Some("team") => "the key's team",
        Some("user") => "the key's user",
        Some("customer") => "this end user",
        Some("tag") => "one of the request's tags",
        Some(_) => "everybody together",
    };
    let limit = charge.and_then(|charge| charge.limit).unwrap_or_default();
    format!(
        "The budget of {whose} does not cover this call: it may cost up to ${}, and ${} of ${} is left, calls in flight \
         considered. Allow fewer tokens (maxTokens), wait until the budget is reset, or ask the operator for more.",
        bound.cost.to_usd_number(),
        remaining.to_usd_number(),
        limit.to_usd_number(),
    )
}

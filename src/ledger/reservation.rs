//! Money that is set aside for one upstream attempt. It ends exactly once: settled with what the call cost, given back
//! because nothing was sent, or, dropped without either, charged in full, because the call may have been billed.

use std::sync::Arc;

use super::backlog::charged_in_full;
use super::journal::record::Pending;
use super::slice::Slice;
use super::{Ask, Ledger, Refused, not_open};
use crate::budget::command::{Balance, Denial, Op, Reserved};
use crate::budget::entry::Row;
use crate::types::money::NanoUsd;

/// Where the money comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// Nothing is set aside; the call is only counted.
    Nothing,
    /// A lease of its own.
    Lease,
    Slice(Arc<Slice>),
}

/// See the module.
#[must_use = "a reservation that is dropped is charged in full"]
#[derive(Debug)]
pub struct Reservation {
    ledger: Arc<Ledger>,
    /// `None` once it has ended.
    pending: Option<Arc<Pending>>,
    source: Source,
    balances: Vec<Balance>,
    soft: Vec<(usize, NanoUsd)>,
}

impl Reservation {
    pub(super) fn new(
        ledger: &Arc<Ledger>,
        pending: Arc<Pending>,
        source: Source,
        balances: Vec<Balance>,
        soft: Vec<(usize, NanoUsd)>,
    ) -> Self {
        Self { ledger: Arc::clone(ledger), pending: Some(pending), source, balances, soft }
    }

    /// What is set aside.
    #[must_use]
    pub fn amount(&self) -> NanoUsd {
        self.pending.as_ref().map_or(NanoUsd::ZERO, |pending| pending.amount)
    }

    /// The accounts as of the grant, in the order of the charges, this reservation included; empty when not known. Out
    /// of a slice: as of its grant, and what this replica has spent of it since.
    #[must_use]
    pub fn balances(&self) -> &[Balance] {
        &self.balances
    }

    /// Soft budgets to look after when it is settled, by index of charge. [`Ledger::reserve`] takes them from the ask.
    pub fn watching(mut self, soft: Vec<(usize, NanoUsd)>) -> Self {
        self.soft = soft;
        self
    }

    /// Makes it hold `to` in all, if it holds less. Journaled before it returns Ok.
    ///
    /// # Errors
    /// When there is not as much, or the store cannot be asked. What was held is still held.
    pub async fn extend_to(&mut self, to: NanoUsd) -> Result<(), Refused> {
        let Some(pending) = self.pending.clone() else { return Ok(()) };
        if to <= pending.amount || matches!(self.source, Source::Nothing) {
            return Ok(());
        }
        let larger = Arc::new(Pending { amount: to, ..Pending::clone(&pending) });
        if let Source::Slice(slice) = &self.source {
            let more = to.0 - pending.amount.0;
            if self.ledger.link.down().is_none() && slice.take_more(more) {
                self.pending = Some(Arc::clone(&larger));
                return self.ledger.backlog.extended(&larger).map_err(|error| Refused::disk(&error));
            }
            return self.leave_slice(larger).await;
        }
        let ledger = Arc::clone(&self.ledger);
        let mut answer = ledger.link.extend(&pending.lease, to, &pending.charges).await?;
        if let Reserved::Denied(denial) = &answer
            && ledger.make_room(denial, &pending.charges).await
        {
            answer = ledger.link.extend(&pending.lease, to, &pending.charges).await?;
        }
        match answer {
            Reserved::Granted { balances } => {
                ledger.backlog.extended(&larger).map_err(|error| Refused::disk(&error))?;
                (self.pending, self.balances) = (Some(larger), balances);
                Ok(())
            }
            Reserved::Denied(denial) => Err(self.denied(denial, &larger)),
            Reserved::Closed => Err(not_open()),
        }
    }

    /// The slice has not as much: the reservation gets a lease of its own, and gives back its part of the slice.
    async fn leave_slice(&mut self, mut larger: Arc<Pending>) -> Result<(), Refused> {
        let ledger = Arc::clone(&self.ledger);
        Arc::make_mut(&mut larger).slice = None;
        let ask = self.ask(&larger);
        match ledger.own_lease(ask).await? {
            (Ok(balances), guard) => {
                ledger.backlog.reserved_now(&larger).map_err(|error| Refused::disk(&error))?;
                guard.keep();
                let before = self.pending.replace(larger);
                if let Source::Slice(slice) = std::mem::replace(&mut self.source, Source::Lease) {
                    let amount = before.map_or(NanoUsd::ZERO, |before| before.amount);
                    ledger.leave(&slice, amount, NanoUsd::ZERO);
                }
                self.balances = balances;
                Ok(())
            }
            (Err(denial), guard) => {
                // The reservation itself goes on in its slice, under the same name.
                guard.keep();
                Err(self.denied(denial, &larger))
            }
        }
    }

    /// Books what the call cost. Returns at once: the command is in the journal, and reaches the store in time.
    pub fn settle(mut self, cost: NanoUsd, tokens: u64, row: Row) {
        self.end(cost, tokens, Arc::new(row));
    }

    /// Gives everything back: the call was not sent, or is certainly not billed. Leaves no entry.
    pub fn void(mut self) {
        let Some(pending) = self.pending.take() else { return };
        match &self.source {
            Source::Nothing => {}
            Source::Lease => {
                self.ledger.backlog.push(Op::Close { lease: pending.lease.clone() }, Some(&pending.lease));
            }
            Source::Slice(slice) => {
                self.ledger.backlog.ended(&pending.lease);
                self.ledger.leave(slice, pending.amount, NanoUsd::ZERO);
            }
        }
    }

    fn end(&mut self, cost: NanoUsd, tokens: u64, row: Arc<Row>) {
        let Some(pending) = self.pending.take() else { return };
        let counted = matches!(self.source, Source::Nothing);
        if cost > pending.amount && !counted {
            let beyond = cost.saturating_sub(pending.amount);
            self.ledger.link.metrics.overrun(beyond);
            tracing::error!(lease = %pending.lease, reserved = %pending.amount, %cost, "a call cost more than its bound");
        }
        let (soft, charges) = if self.soft.is_empty() {
            (None, pending.charges.clone())
        } else {
            (Some((pending.charges.clone(), Arc::clone(&row))), pending.charges.clone())
        };
        let (lease, close) = match &self.source {
            Source::Nothing => (None, false),
            Source::Lease => (Some(pending.lease.clone()), true),
            Source::Slice(slice) => (Some(slice.lease.clone()), false),
        };
        let op = Op::Spend { lease, close, cost, tokens, charges, row };
        let number = self.ledger.backlog.push(op, Some(&pending.lease).filter(|_| !counted));
        if let Source::Slice(slice) = &self.source {
            self.ledger.leave(slice, pending.amount, cost);
        }
        if let Some((charges, row)) = soft {
            self.ledger.soft.settled(&self.soft, &charges, &self.balances, &row, number);
        }
    }

    fn ask(&self, pending: &Pending) -> Ask {
        Ask {
            lease: pending.lease.clone(),
            amount: pending.amount,
            tokens: pending.tokens,
            charges: pending.charges.clone(),
            throttles: Vec::new(),
            soft: self.soft.clone(),
            row: Arc::clone(&pending.row),
        }
    }

    fn denied(&self, denial: Denial, larger: &Pending) -> Refused {
        Refused::Denied(denial, Box::new(self.ask(larger)))
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let Some(pending) = self.pending.clone() else { return };
        tracing::debug!(lease = %pending.lease, "a reservation was dropped; it is charged in full");
        if let Op::Spend { cost, tokens, row, .. } = charged_in_full(Pending::clone(&pending)) {
            self.end(cost, tokens, row);
        }
    }
}

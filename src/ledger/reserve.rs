//! Asks for money. A request without limits on its rate is served from a slice where there is one; otherwise the store
//! is asked, and whoever gives up asking tells the store so, or else an answer that was lost would hold money for ever.
//!
//! A refusal counts only once the store has everything that this replica knows: a client may call again the moment its
//! last call ended, before the store has heard what that one cost, and must not be refused for it.

use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;

use super::journal::record::Pending;
use super::reservation::{Reservation, Source};
use super::slice::{Slice, Wanted};
use super::{Ask, Ledger, Refused, not_open};
use crate::budget::command::{Balance, Charge, Denial, LeaseId, Op, Reserve, Reserved};
use crate::budget::entry::Row;
use crate::store::StoreError;

/// A lease that was asked for. Dropped, by an error or because the client went away, it is given up.
pub(super) struct Asked<'a> {
    ledger: &'a Ledger,
    lease: Option<LeaseId>,
    /// The lease has no other meaning in the journal than this asking.
    alone: bool,
}

impl Asked<'_> {
    /// What becomes of the lease is known.
    pub(super) fn keep(mut self) {
        self.lease = None;
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.ledger.backlog.push(Op::Close { lease: lease.clone() }, Some(&lease).filter(|_| self.alone));
        }
    }
}

/// A reservation whose call must not be sent yet. Dropped, it is given back.
struct Unsent(Option<Reservation>);

impl Unsent {
    fn sent(mut self) -> Option<Reservation> {
        self.0.take()
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        if let Some(reservation) = self.0.take() {
            reservation.void();
        }
    }
}

impl Ledger {
    /// Sets money aside. It is in the journal when this returns `Ok`: the call may be sent.
    ///
    /// # Errors
    /// When a limit refuses it or nobody can tell: the call must not be sent.
    pub async fn reserve(self: &Arc<Self>, ask: Ask) -> Result<Reservation, Refused> {
        if !self.link.is_local() {
            if let Some(why) = self.link.down() {
                return Err(why.into());
            }
            if ask.throttles.is_empty()
                && let Some(taken) = self.slices.take(&ask.charges, ask.amount)
            {
                if let Some(wanted) = taken.wanted {
                    self.open_slice(wanted);
                }
                return self.reserve_from(taken.slice, taken.balances, ask).await;
            }
        }
        self.reserve_in_store(ask).await
    }

    async fn reserve_from(
        self: &Arc<Self>,
        slice: Arc<Slice>,
        balances: Vec<Balance>,
        ask: Ask,
    ) -> Result<Reservation, Refused> {
        let Ask { lease, amount, tokens, charges, soft, row, .. } = ask;
        let pending = Arc::new(Pending { lease, amount, tokens, charges, slice: Some(slice.lease.clone()), row });
        let reservation = Reservation::new(self, Arc::clone(&pending), Source::Slice(slice), balances, soft);
        self.journaled(&pending, reservation).await
    }

    /// The reservation once it is in the journal; given back if it never is.
    async fn journaled(&self, pending: &Arc<Pending>, reservation: Reservation) -> Result<Reservation, Refused> {
        let unsent = Unsent(Some(reservation));
        self.backlog.reserved(pending).await.map_err(|error| Refused::disk(&error))?;
        unsent.sent().ok_or_else(not_open)
    }

    async fn reserve_in_store(self: &Arc<Self>, ask: Ask) -> Result<Reservation, Refused> {
        let Ask { lease, amount, tokens, charges, throttles, soft, row } = ask;
        let request = Reserve {
            lease,
            amount,
            tokens,
            ttl_ms: super::link::millis(self.settings.lease_ttl),
            charges,
            throttles,
            row,
        };
        let asked = self.ask(&request.lease, true)?;
        let answer = self.ask_store(&request).await?;
        let Reserve { lease, amount, tokens, charges, throttles, row, .. } = request;
        match answer {
            Reserved::Granted { balances } => {
                let wanted = if throttles.is_empty() && !self.link.is_local() {
                    self.slices.want(&charges, amount, &balances)
                } else {
                    None
                };
                let pending = Arc::new(Pending { lease, amount, tokens, charges, slice: None, row });
                if let Some(wanted) = wanted {
                    self.open_slice(wanted);
                }
                asked.keep();
                let reservation = Reservation::new(self, Arc::clone(&pending), Source::Lease, balances, soft);
                self.journaled(&pending, reservation).await
            }
            Reserved::Denied(denial) => {
                asked.keep();
                if !self.link.is_local() {
                    self.backlog.ended(&lease);
                }
                let ask = Ask { lease, amount, tokens, charges, throttles, soft, row };
                Err(Refused::Denied(denial, Box::new(ask)))
            }
            Reserved::Closed => Err(not_open()),
        }
    }

    /// Asks for a lease, and once more where what was in the way can be moved out of it.
    async fn ask_store(&self, request: &Reserve) -> Result<Reserved, Refused> {
        let answer = self.link.reserve(request).await.map_err(|why| self.late(why))?;
        match &answer {
            Reserved::Denied(denial) if self.make_room(denial, &request.charges).await => {
                self.link.reserve(request).await.map_err(|why| self.late(why))
            }
            _ => Ok(answer),
        }
    }

    /// A lease for a reservation that was part of a slice before.
    pub(super) async fn own_lease(&self, ask: Ask) -> Result<(Result<Vec<Balance>, Denial>, Asked<'_>), Refused> {
        let Ask { lease, amount, tokens, charges, throttles, row, .. } = ask;
        let request = Reserve {
            lease,
            amount,
            tokens,
            ttl_ms: super::link::millis(self.settings.lease_ttl),
            charges,
            throttles,
            row,
        };
        if let Some(why) = self.link.down() {
            return Err(why.into());
        }
        let asked = self.ask(&request.lease, false)?;
        let answer = self.ask_store(&request).await?;
        match answer {
            Reserved::Granted { balances } => Ok((Ok(balances), asked)),
            Reserved::Denied(denial) => Ok((Err(denial), asked)),
            Reserved::Closed => Err(not_open()),
        }
    }

    /// Journals that a lease is asked for. The books of a local store do not outlive this process: nothing is left open
    /// there by a crash.
    fn ask(&self, lease: &LeaseId, alone: bool) -> Result<Asked<'_>, Refused> {
        if !self.link.is_local() {
            self.backlog.asking(lease).map_err(|error| Refused::disk(&error))?;
        }
        Ok(Asked { ledger: self, lease: Some(lease.clone()), alone })
    }

    /// The store did not answer: finds out at once whether it is there.
    fn late(&self, why: StoreError) -> Refused {
        self.backlog.wake.notify_one();
        why.into()
    }

    /// After a refusal: gives back what this replica holds of the account without need, and lets the store catch up.
    /// True when asking again may help.
    pub(super) async fn make_room(&self, denial: &Denial, charges: &[Charge]) -> bool {
        match denial {
            // What ends does not change how many began.
            Denial::Requests { .. } => return false,
            Denial::Budget { index, .. } => {
                if let Some(charge) = charges.get(*index) {
                    self.close_slices(&self.slices.retire_of(&charge.account));
                }
            }
            Denial::Tokens { .. } | Denial::Parallel { .. } => {}
        }
        if self.backlog.unconfirmed() == 0 {
            return false;
        }
        let caught_up = self.backlog.confirmed(self.backlog.last());
        tokio::time::timeout(self.settings.store_timeout, caught_up).await.is_ok()
    }

    /// Asks for a slice in the background.
    fn open_slice(self: &Arc<Self>, wanted: Wanted) {
        let ledger = Arc::clone(self);
        drop(tokio::spawn(async move {
            let slice = ledger.ask_for_slice(&wanted).await;
            ledger.close_slices(&ledger.slices.opened(&wanted, slice));
            ledger.slices.asked();
        }));
    }

    async fn ask_for_slice(&self, wanted: &Wanted) -> Option<Slice> {
        let lease = LeaseId::new(format!("slice.{}", Uuid::now_v7()));
        let asked = self.ask(&lease, true).ok()?;
        let request = Reserve {
            lease: lease.clone(),
            amount: wanted.size,
            tokens: 0,
            ttl_ms: super::link::millis(self.settings.lease_ttl),
            charges: wanted.charges.clone(),
            throttles: Vec::new(),
            row: Arc::new(Row { request_id: lease.to_string(), ..Row::default() }),
        };
        let until = usable_until(self.settings.lease_ttl);
        match self.link.reserve(&request).await {
            Ok(Reserved::Granted { balances }) => {
                // It stays in the journal as asked for, until it is closed.
                asked.keep();
                Some(Slice::new(lease, request.charges, wanted.size, balances, until))
            }
            Ok(Reserved::Denied(_)) => {
                asked.keep();
                self.backlog.ended(&lease);
                None
            }
            Ok(Reserved::Closed) | Err(_) => None,
        }
    }
}

/// Until when a lease that is asked for now may be used: well before it can expire. Reckoned from before the question.
pub(super) fn usable_until(ttl: std::time::Duration) -> Instant {
    Instant::now() + ttl / 4 * 3
}

//! The money of the attempt under way: what the ledger set aside for it, and how it grows with a stream that began with
//! less than it may come to cost.
//!
//! The stages and the replaying session share it, because only the session can wait for more money while the answer
//! waits to go out.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::budget::command::Denial;
use crate::ledger::{Refused, Reservation};
use crate::types::money::NanoUsd;

/// Holds the reservation of an attempt, if there is one.
#[derive(Debug, Default)]
pub(super) struct Purse {
    held: Mutex<Held>,
    /// Whether the reservation has to grow with the answer.
    grows: AtomicBool,
    /// What the answer costs at most as far as it has come, in nano-dollars.
    needed: AtomicU64,
}

#[derive(Debug, Default)]
struct Held {
    reservation: Option<Reservation>,
    /// How much further ahead a growing stream is paid for; `None` when the reservation covers every possible answer.
    ahead: Option<NanoUsd>,
    /// Nothing more can be had.
    exhausted: bool,
}

impl Purse {
    pub(super) fn fill(&self, reservation: Reservation, ahead: Option<NanoUsd>) {
        self.needed.store(0, Ordering::Relaxed);
        self.grows.store(ahead.is_some(), Ordering::Relaxed);
        *self.lock() = Held { reservation: Some(reservation), ahead, exhausted: false };
    }

    /// Takes the reservation out, to settle it.
    pub(super) fn take(&self) -> Option<Reservation> {
        self.lock().reservation.take()
    }

    /// What is set aside, where something is.
    pub(super) fn amount(&self) -> Option<NanoUsd> {
        self.lock().reservation.as_ref().map(Reservation::amount)
    }

    /// Whether the reservation has to grow with the answer.
    pub(super) fn grows(&self) -> bool {
        self.grows.load(Ordering::Relaxed)
    }

    /// Notes what the answer costs at most as far as it has come.
    pub(super) fn need(&self, amount: NanoUsd) {
        self.needed.store(amount.0, Ordering::Relaxed);
    }

    /// Sets more aside before the answer has used up what there is. False when the answer has outgrown it.
    pub(super) async fn suffices(&self) -> bool {
        if !self.grows() {
            return true;
        }
        let needed = NanoUsd(self.needed.load(Ordering::Relaxed));
        let (reservation, ahead) = {
            let mut held = self.lock();
            let (Some(ahead), Some(amount)) = (held.ahead, held.reservation.as_ref().map(Reservation::amount)) else {
                return true;
            };
            if held.exhausted || needed.saturating_add(NanoUsd(ahead.0 / 2)) <= amount {
                return needed <= amount;
            }
            let Some(reservation) = held.reservation.take() else {
                return true;
            };
            (reservation, ahead)
        };
        // Boxed, because it is rare and large, and this is asked for each frame of each stream.
        Box::pin(self.grow(reservation, needed, ahead)).await
    }

    /// Has `reservation` cover what is `needed` and as much more as `ahead` says. False when there is not enough.
    async fn grow(&self, mut reservation: Reservation, needed: NanoUsd, ahead: NanoUsd) -> bool {
        let had = reservation.amount();
        let exhausted = match reservation.extend_to(needed.saturating_add(ahead)).await {
            // While the store is away, what is set aside still lasts a while.
            Ok(()) | Err(Refused::Unavailable(_)) => false,
            Err(Refused::Denied(Denial::Budget { remaining, .. }, _)) => {
                // The last there is; another may have been faster.
                let all = had.saturating_add(remaining);
                remaining == NanoUsd::ZERO
                    || reservation.extend_to(all).await.is_err()
                    || all < needed.saturating_add(ahead)
            }
            Err(Refused::Denied(..) | Refused::Failed(_)) => true,
        };
        let suffices = needed <= reservation.amount();
        let mut held = self.lock();
        held.reservation = Some(reservation);
        held.exhausted = exhausted;
        suffices
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

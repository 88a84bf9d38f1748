//! Whether the process should be sent requests, and if not, why: what `/health/readiness` says.
//!
//! It is about this process alone. A store or a region that fails later fails for every replica alike; taking all of
//! them out of the load balancer would only replace answers that say so by ones that do not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use crate::deployment::fleet::Fleet;
use crate::ledger::Ledger;

/// How far the process has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Starting,
    Serving,
    /// It finishes what it has begun, and ends.
    Stopping,
    /// As stopping, but another process serves on its port.
    Succeeded,
}

/// See the module.
#[derive(Debug)]
pub struct Readiness {
    phase: watch::Sender<Phase>,
    ledger: Option<Arc<Ledger>>,
    /// Whether the store has ever answered this process.
    store_was_up: AtomicBool,
}

impl Readiness {
    /// Of a process that starts. `ledger` where there is a store.
    #[must_use]
    pub fn new(ledger: Option<Arc<Ledger>>) -> Self {
        Self { phase: watch::channel(Phase::Starting).0, ledger, store_was_up: AtomicBool::new(false) }
    }

    pub fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Enters `to`, if the process is at `from`.
    pub fn leave(&self, from: Phase, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let leaves = *phase == from;
            if leaves {
                *phase = to;
            }
            leaves
        });
    }

    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Waits until the process serves.
    pub async fn until_serving(&self) {
        if self.phase.subscribe().wait_for(|phase| *phase == Phase::Serving).await.is_err() {
            // Its sender is the one borrowed here.
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the process is about to end.
    pub async fn until_ending(&self) {
        let ends = |phase: &Phase| matches!(phase, Phase::Stopping | Phase::Succeeded);
        if self.phase.subscribe().wait_for(ends).await.is_err() {
            // Its sender is the one borrowed here.
            std::future::pending::<()>().await;
        }
    }

    /// Whether there is no store, or it has answered once.
    #[must_use]
    pub fn has_store(&self) -> bool {
        let Some(ledger) = &self.ledger else { return true };
        if ledger.is_up() {
            self.store_was_up.store(true, Ordering::Relaxed);
        }
        self.store_was_up.load(Ordering::Relaxed)
    }

    /// Why no request should be sent here; nothing when the process is ready. `can_sign` where some deployment has
    /// usable credentials.
    #[must_use]
    pub fn reasons(&self, can_sign: bool) -> Vec<&'static str> {
        let phase = match self.phase() {
            Phase::Starting => Some("starting: the process does not accept connections yet"),
            Phase::Stopping => Some("stopping: the process finishes its requests and ends"),
            Phase::Succeeded => Some("handed over: another process serves on this port"),
            Phase::Serving => None,
        };
        let store = (!self.has_store()).then_some("store: it has not answered since the process started");
        let credentials = (!can_sign).then_some("credentials: no deployment has usable ones");
        [phase, store, credentials].into_iter().flatten().collect()
    }
}

/// Whether some listed deployment has usable credentials; those of other targets are loaded when first used.
#[must_use]
pub fn can_sign(fleet: &Fleet) -> bool {
    let mut targets = fleet.groups().into_iter().flat_map(|group| &group.targets).peekable();
    targets.peek().is_none() || targets.any(|target| target.credentials.current().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_why_it_is_not_ready() {
        let readiness = Readiness::new(None);
        assert!(matches!(readiness.reasons(true).as_slice(), [why] if why.starts_with("starting")));
        readiness.leave(Phase::Starting, Phase::Serving);
        assert_eq!(readiness.reasons(true), [""; 0]);
        assert!(matches!(readiness.reasons(false).as_slice(), [why] if why.starts_with("credentials")));
        readiness.enter(Phase::Stopping);
        assert!(matches!(readiness.reasons(false).as_slice(), [why, _] if why.starts_with("stopping")));
    }

    #[test]
    fn a_process_that_stops_does_not_become_ready_again() {
        let readiness = Readiness::new(None);
        readiness.enter(Phase::Stopping);
        readiness.leave(Phase::Starting, Phase::Serving);
        assert_eq!(readiness.phase(), Phase::Stopping);
    }
}

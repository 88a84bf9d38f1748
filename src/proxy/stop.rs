//! The moment at which the process ends whatever is still under way.
//!
//! It decides nothing: `app::lifecycle` says when, the stages that wait for somebody listen, and tell their client in the
//! form its operation models.

use std::pin::Pin;

use tokio::sync::watch;

/// Heard by every request.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Ends everything when the value turns true.
    #[must_use]
    pub const fn new(now: watch::Receiver<bool>) -> Self {
        Self(now)
    }

    /// Resolves when the time has come. May be dropped at any time.
    pub(super) async fn now(&self) {
        wait(self.0.clone()).await;
    }

    /// As [`Self::now`], to be kept for many waits: listening anew for each would cost more than most of them.
    pub(super) fn to_come(&self) -> ToCome {
        Box::pin(wait(self.0.clone()))
    }
}

/// The moment, as long as it has not come.
pub(super) type ToCome = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

async fn wait(mut receiver: watch::Receiver<bool>) {
    if receiver.wait_for(|now| *now).await.is_err() {
        // Nobody is left to say so.
        std::future::pending::<()>().await;
    }
}

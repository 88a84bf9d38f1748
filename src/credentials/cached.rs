//! One source of credentials and what it last gave. Readers load a pointer; loading is single-flight, backs off after a
//! failure, and happens before expiry in the background.
//!
//! Nothing is renewed that was never used (a default chain nobody needs must not probe the metadata service for ever),
//! nor what has no expiry. A renewal that fails keeps the old credentials until they run out.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;

use super::{CredentialError, UpstreamAuth};

/// Renewed this long before expiry, or a fifth of the lifetime if that is less (three minutes of a 15-minute session).
const LEAD_MAX: Duration = Duration::from_mins(5);
/// The metadata service hands out the same credentials until it has new ones; it is not asked more often than this.
const INTERVAL_MIN: Duration = Duration::from_secs(5);
/// The wall clock can jump while a task sleeps (a suspended machine), so the expiry is looked at again this often.
const RECHECK: Duration = Duration::from_mins(1);
/// A whole load, retries of the SDK included. The default chain needs about 4 s to give up on absent metadata services.
const LOAD_TIMEOUT: Duration = Duration::from_secs(30);
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// What a provider gives.
#[derive(Debug, Clone)]
pub(super) struct Loaded {
    pub(super) auth: UpstreamAuth,
    pub(super) expires_at: Option<SystemTime>,
}

/// Gets credentials from somewhere, anew each time. Does not cache, does not retry beyond what its SDK does.
#[async_trait]
pub(super) trait Provider: Send + Sync {
    async fn load(&self) -> Result<Loaded, CredentialError>;
}

/// The present, as credentials count it.
pub(super) type Clock = Box<dyn Fn() -> SystemTime + Send + Sync>;

/// One source of credentials, shared by every deployment that uses it.
pub struct Source {
    origin: Arc<str>,
    /// `None` where the credentials are fixed.
    provider: Option<Box<dyn Provider>>,
    clock: Clock,
    held: ArcSwapOption<Held>,
    failure: ArcSwapOption<Failure>,
    loading: Mutex<()>,
    loaded: Notify,
}

struct Held {
    auth: UpstreamAuth,
    loaded_at: SystemTime,
    expires_at: Option<SystemTime>,
}

struct Failure {
    error: CredentialError,
    /// How many loads in a row have failed; at least 1.
    count: u32,
    retry_at: Instant,
}

/// How a source is doing, for health and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Whether there are credentials, expired or not.
    pub loaded: bool,
    /// `None` also where credentials do not expire.
    pub expires_at: Option<SystemTime>,
    /// Why the last load failed; `None` after a success.
    pub last_error: Option<CredentialError>,
}

impl Source {
    pub(super) fn new(origin: Arc<str>, provider: Box<dyn Provider>) -> Self {
        Self::with_clock(origin, Some(provider), Box::new(SystemTime::now))
    }

    pub(super) fn fixed(origin: Arc<str>, loaded: Loaded) -> Self {
        let source = Self::with_clock(origin, None, Box::new(SystemTime::now));
        source.hold(loaded);
        source
    }

    pub(super) fn with_clock(origin: Arc<str>, provider: Option<Box<dyn Provider>>, clock: Clock) -> Self {
        Self {
            origin,
            provider,
            clock,
            held: ArcSwapOption::empty(),
            failure: ArcSwapOption::empty(),
            loading: Mutex::new(()),
            loaded: Notify::new(),
        }
    }

    /// Names the source for an operator; holds no secret.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The credentials at hand. No IO, no lock.
    ///
    /// # Errors
    /// When there are none yet, or they have expired.
    pub fn current(&self) -> Result<UpstreamAuth, CredentialError> {
        let held = self.held.load();
        let Some(held) = held.as_deref() else {
            return Err(self
                .last_error()
                .unwrap_or_else(|| CredentialError::NotLoaded { origin: self.origin.clone() }));
        };
        if held.expires_at.is_some_and(|expires_at| expires_at <= (self.clock)()) {
            let detail = self.last_error().map_or_else(|| "".into(), |error| error.to_string().into());
            return Err(CredentialError::Expired { origin: self.origin.clone(), detail });
        }
        Ok(held.auth.clone())
    }

    /// The credentials at hand, or those of a load if there are none or they have expired. However many wait, one load
    /// runs; after a failure nobody loads again until its backoff is over (1 s, doubling to 30 s).
    ///
    /// # Errors
    /// As [`Self::current`], and why the load failed.
    pub async fn ready(&self) -> Result<UpstreamAuth, CredentialError> {
        if let Ok(auth) = self.current() {
            return Ok(auth);
        }
        self.load_if(|source| source.current().is_err()).await;
        self.current()
    }

    #[must_use]
    pub fn status(&self) -> Status {
        let held = self.held.load();
        Status {
            loaded: held.is_some(),
            expires_at: held.as_deref().and_then(|held| held.expires_at),
            last_error: self.last_error(),
        }
    }

    /// Renews the credentials before they expire, for ever.
    pub(super) async fn keep_fresh(&self) {
        loop {
            match self.until_renewal() {
                // Not used yet, or nothing to renew.
                None => self.loaded.notified().await,
                Some(wait) if wait.is_zero() => {
                    self.load_if(|source| source.until_renewal().is_some_and(|wait| wait.is_zero())).await;
                }
                Some(wait) => tokio::time::sleep(wait.min(RECHECK)).await,
            }
        }
    }

    /// How long until the next renewal may start; `None` if there is none to come.
    fn until_renewal(&self) -> Option<Duration> {
        self.provider.as_ref()?;
        let held = self.held.load();
        let held = held.as_deref()?;
        let expires_at = held.expires_at?;
        let lifetime = expires_at.duration_since(held.loaded_at).unwrap_or_default();
        let due_at = expires_at.checked_sub(LEAD_MAX.min(lifetime / 5))?.max(held.loaded_at + INTERVAL_MIN);
        let until_due = due_at.duration_since((self.clock)()).unwrap_or_default();
        let backoff = self.failure.load().as_deref().map_or(Duration::ZERO, Failure::backoff_left);
        Some(until_due.max(backoff))
    }

    /// Loads once, unless `wanted` no longer holds or the last failure is too fresh when the turn comes.
    async fn load_if(&self, wanted: impl Fn(&Self) -> bool) {
        let Some(provider) = &self.provider else { return };
        let _turn = self.loading.lock().await;
        let backing_off = self.failure.load().as_deref().is_some_and(|failure| !failure.backoff_left().is_zero());
        if backing_off || !wanted(self) {
            return;
        }
        let outcome = match tokio::time::timeout(LOAD_TIMEOUT, provider.load()).await {
            Ok(outcome) => outcome,
            Err(_) => {
                Err(CredentialError::unreachable(&self.origin, &format!("gave up after {} s", LOAD_TIMEOUT.as_secs())))
            }
        };
        let now = (self.clock)();
        match outcome {
            Ok(loaded) if loaded.expires_at.is_some_and(|expires_at| expires_at <= now) => {
                self.fail(CredentialError::Expired { origin: self.origin.clone(), detail: "".into() });
            }
            Ok(loaded) => {
                let lifetime = loaded.expires_at.and_then(|expires_at| expires_at.duration_since(now).ok());
                let expires_in_s = lifetime.map(|time| time.as_secs());
                tracing::info!(source = %self.origin, expires_in_s, "AWS credentials loaded");
                self.hold(loaded);
            }
            Err(error) => self.fail(error),
        }
    }

    fn hold(&self, loaded: Loaded) {
        let held = Held { auth: loaded.auth, loaded_at: (self.clock)(), expires_at: loaded.expires_at };
        self.held.store(Some(Arc::new(held)));
        self.failure.store(None);
        self.loaded.notify_one();
    }

    fn fail(&self, error: CredentialError) {
        let count = self.failure.load().as_deref().map_or(0, |failure| failure.count).saturating_add(1);
        let backoff = BACKOFF_FIRST.saturating_mul(1 << (count - 1).min(10)).min(BACKOFF_MAX);
        let retry_in_s = backoff.as_secs();
        if self.current().is_ok() {
            tracing::warn!(%error, retry_in_s, "AWS credentials were not renewed; the present ones still work");
        } else {
            tracing::error!(%error, retry_in_s, "no AWS credentials; requests that need them fail");
        }
        self.failure.store(Some(Arc::new(Failure { error, count, retry_at: Instant::now() + backoff })));
    }

    fn last_error(&self) -> Option<CredentialError> {
        self.failure.load().as_deref().map(|failure| failure.error.clone())
    }
}

impl Failure {
    fn backoff_left(&self) -> Duration {
        self.retry_at.saturating_duration_since(Instant::now())
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("origin", &self.origin).field("status", &self.status()).finish_non_exhaustive()
    }
}

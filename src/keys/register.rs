//! What the store knows of keys, teams, users …, held in memory so that a request need not ask for it.
//!
//! A change made by this replica is seen at once ([`Register::forget`]), one made elsewhere within a poll of the
//! store's changes. While the store cannot be reached, what is held stays usable, because a key without limits needs no
//! store; what is not held is [`Unreachable`], never "unknown". What does not exist is remembered for a while too, so
//! that nonsense cannot make the proxy ask the store again and again.

use std::fmt;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quick_cache::Equivalent;
use quick_cache::sync::Cache;
use serde::de::DeserializeOwned;

use super::record::{AccessKeyRecord, Record, SecretRecord};
use crate::store::{Changes, Directory, Kind, StoreError};

/// How often the store is asked what has changed.
const POLL_INTERVAL: Duration = Duration::from_millis(300);

/// How long something that did not exist is taken for granted. A change ends that earlier.
const ABSENT_FOR: Duration = Duration::from_secs(10);

/// After a failure, how long everyone who needs the store is told so without asking again: callers that wait for the
/// same record would otherwise each wait for a timeout of their own, one after the other.
const BACK_OFF: Duration = Duration::from_millis(250);

/// The store was needed and could not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreachable;

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the store cannot be reached")
    }
}

impl std::error::Error for Unreachable {}

/// `None`: there is none.
pub type Lookup<T> = Result<Option<T>, Unreachable>;

/// A record and the budget it refers to.
#[derive(Debug, Clone)]
pub struct Profile {
    pub record: Arc<Record>,
    pub budget: Option<Arc<Record>>,
}

#[derive(Debug, Clone)]
enum Held {
    Record(Arc<Record>),
    Secret(Arc<SecretRecord>),
    AccessKey(Arc<AccessKeyRecord>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Name(Kind, Box<str>);

/// A [`Name`] that owns nothing, to look up with.
struct NameRef<'a>(Kind, &'a str);

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        NameRef(self.0, &self.1).hash(state);
    }
}

impl Hash for NameRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
        self.1.hash(state);
    }
}

impl Equivalent<Name> for NameRef<'_> {
    fn equivalent(&self, name: &Name) -> bool {
        self.0 == name.0 && *self.1 == *name.1
    }
}

/// A bounded cache of the directory.
pub struct Register {
    directory: Arc<dyn Directory>,
    held: Cache<Name, Held>,
    /// Until when a name is taken for absent. Apart from `held`, so that made-up keys push out no real one.
    absent: Cache<Name, Instant>,
    /// Counts what was forgotten: an absence that was read before is not held after.
    forgotten: AtomicU64,
    started: Instant,
    /// Milliseconds since `started`.
    unreachable_until_ms: AtomicU64,
}

impl fmt::Debug for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Register")
            .field("held", &self.held.len())
            .field("absent", &self.absent.len())
            .finish_non_exhaustive()
    }
}

impl Register {
    /// Holds at most `entries_max` records, and as many absences.
    #[must_use]
    pub fn new(directory: Arc<dyn Directory>, entries_max: usize) -> Self {
        Self {
            directory,
            held: Cache::new(entries_max.max(16)),
            absent: Cache::new(entries_max.max(16)),
            forgotten: AtomicU64::new(0),
            started: Instant::now(),
            unreachable_until_ms: AtomicU64::new(0),
        }
    }

    /// What is behind the secret with this digest.
    ///
    /// # Errors
    /// [`Unreachable`] when it is not held and the store cannot tell.
    pub async fn secret(&self, digest: &str) -> Lookup<Arc<SecretRecord>> {
        match self.find(Kind::Secret, digest).await? {
            Some(Held::Secret(secret)) => Ok(Some(secret)),
            Some(_) | None => Ok(None),
        }
    }

    /// A key, team, user, customer, tag or budget.
    ///
    /// # Errors
    /// As [`Self::secret`].
    pub async fn record(&self, kind: Kind, id: &str) -> Lookup<Arc<Record>> {
        match self.find(kind, id).await? {
            Some(Held::Record(record)) => Ok(Some(record)),
            Some(_) | None => Ok(None),
        }
    }

    /// The key pair with this access key id.
    ///
    /// # Errors
    /// As [`Self::secret`].
    pub async fn access_key(&self, access_key_id: &str) -> Lookup<Arc<AccessKeyRecord>> {
        match self.find(Kind::AccessKey, access_key_id).await? {
            Some(Held::AccessKey(pair)) => Ok(Some(pair)),
            Some(_) | None => Ok(None),
        }
    }

    /// A record with its budget. A budget that is named and missing is [`Unreachable`]: without it the limits are not
    /// known, and unknown limits must not become none.
    ///
    /// # Errors
    /// As [`Self::secret`].
    pub async fn profile(&self, kind: Kind, id: &str) -> Lookup<Profile> {
        let Some(record) = self.record(kind, id).await? else {
            return Ok(None);
        };
        let budget = match &record.budget_id {
            None => None,
            Some(budget_id) => Some(self.record(Kind::Budget, budget_id).await?.ok_or_else(|| {
                tracing::error!(kind = kind.as_str(), id, budget_id, "the budget of this record does not exist");
                Unreachable
            })?),
        };
        Ok(Some(Profile { record, budget }))
    }

    /// Reads the document anew when it is next asked for.
    pub fn forget(&self, kind: Kind, id: &str) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        // This also disowns a read that is under way: what it finds goes to those who wait for it, and is not held.
        drop(self.held.remove(&NameRef(kind, id)));
        drop(self.absent.remove(&NameRef(kind, id)));
    }

    fn forget_all(&self) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        self.held.clear();
        self.absent.clear();
    }

    /// Follows the changes that others make, until `stop` is done.
    pub async fn run(&self, stop: impl Future<Output = ()> + Send) {
        let mut stop = pin!(stop);
        let mut cursor = None;
        let mut reachable = true;
        loop {
            let changes = tokio::select! {
                biased;
                () = &mut stop => return,
                changes = self.directory.changes(cursor.as_deref()) => changes,
            };
            match changes {
                Ok(changes) => {
                    // What was read before there was a cursor may have changed unseen.
                    cursor = Some(self.take(cursor.is_none(), changes));
                    reachable = true;
                }
                Err(error) => {
                    if reachable {
                        tracing::warn!("changes of keys and budgets cannot be followed: {error}");
                    }
                    reachable = false;
                }
            }
            tokio::select! {
                () = &mut stop => return,
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
        }
    }

    fn take(&self, first: bool, changes: Changes) -> String {
        if first || changes.lost {
            self.forget_all();
        }
        for (kind, id) in &changes.touched {
            self.forget(*kind, id);
        }
        changes.cursor
    }

    async fn find(&self, kind: Kind, id: &str) -> Result<Option<Held>, Unreachable> {
        if let Some(held) = self.held.get(&NameRef(kind, id)) {
            return Ok(Some(held));
        }
        if self.is_known_absent(kind, id) {
            return Ok(None);
        }
        let name = Name(kind, id.into());
        // One reads for all who ask for the same at once.
        let guard = match self.held.get_value_or_guard_async(&name).await {
            Ok(held) => return Ok(Some(held)),
            Err(guard) => guard,
        };
        if self.is_known_absent(kind, id) {
            return Ok(None);
        }
        if self.now_ms() < self.unreachable_until_ms.load(Ordering::Relaxed) {
            return Err(Unreachable);
        }
        let forgotten = self.forgotten.load(Ordering::SeqCst);
        let Some(held) = self.read(kind, id).await? else {
            self.absent.insert(name, Instant::now() + ABSENT_FOR);
            if self.forgotten.load(Ordering::SeqCst) != forgotten {
                drop(self.absent.remove(&NameRef(kind, id)));
            }
            return Ok(None);
        };
        // An error says that it was forgotten meanwhile: it serves this request and is not held.
        drop(guard.insert(held.clone()));
        Ok(Some(held))
    }

    async fn read(&self, kind: Kind, id: &str) -> Result<Option<Held>, Unreachable> {
        let document = self.directory.get(kind, id).await.map_err(|error| {
            let until = self.now_ms().saturating_add(u64::try_from(BACK_OFF.as_millis()).unwrap_or(u64::MAX));
            self.unreachable_until_ms.store(until, Ordering::Relaxed);
            match error {
                StoreError::Unavailable(why) => tracing::warn!(kind = kind.as_str(), "the store did not answer: {why}"),
                StoreError::Failed(why) => tracing::error!(kind = kind.as_str(), "the store failed: {why}"),
            }
            Unreachable
        })?;
        let Some(document) = document else {
            return Ok(None);
        };
        let held = match kind {
            Kind::Secret => parse(&document.json).map(|secret| Held::Secret(Arc::new(secret))),
            Kind::AccessKey => parse(&document.json).map(|pair| Held::AccessKey(Arc::new(pair))),
            _ => parse(&document.json).map(|record| Held::Record(Arc::new(record))),
        };
        held.map(Some).map_err(|error| {
            // A digest is no secret, but it is nobody's business either.
            let id = if kind == Kind::Secret { "" } else { id };
            tracing::error!(kind = kind.as_str(), id, "a document of the store cannot be read: {error}");
            Unreachable
        })
    }

    fn is_known_absent(&self, kind: Kind, id: &str) -> bool {
        self.absent.get(&NameRef(kind, id)).is_some_and(|until| Instant::now() < until)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

fn parse<T: DeserializeOwned>(json: &str) -> Result<T, serde_json::Error> {
    serde_json::from_str(json)
}

#[cfg(test)]
mod tests;

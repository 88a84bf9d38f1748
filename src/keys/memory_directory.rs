//! A directory for tests: documents in memory, a log of changes, and switches for what can go wrong.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use crate::store::{Change, Changes, CommitError, Directory, Document, Expect, Kind, StoreError};

#[derive(Debug, Default)]
pub struct MemoryDirectory {
    documents: Mutex<BTreeMap<(Kind, String), Document>>,
    log: Mutex<Vec<(Kind, String)>>,
    /// Nothing answers.
    pub down: AtomicBool,
    /// The next `changes` says that it lost some.
    pub lost: AtomicBool,
    /// How many of the next commits meet a conflict.
    pub conflicts: AtomicU64,
    pub gets: AtomicU64,
    /// A `get` that has read waits for a permit of this before it answers.
    pub gate: Mutex<Option<Arc<tokio::sync::Semaphore>>>,
}

impl MemoryDirectory {
    /// Writes a document as another replica would.
    pub fn put(&self, kind: Kind, id: &str, json: impl Into<String>) {
        self.change(kind, id, Some(json.into()));
    }

    pub fn remove(&self, kind: Kind, id: &str) {
        self.change(kind, id, None);
    }

    #[must_use]
    pub fn json(&self, kind: Kind, id: &str) -> Option<String> {
        self.documents.lock().unwrap().get(&(kind, id.to_owned())).map(|document| document.json.to_string())
    }

    #[must_use]
    pub fn count(&self, kind: Kind) -> usize {
        self.documents.lock().unwrap().keys().filter(|(of, _)| *of == kind).count()
    }

    fn change(&self, kind: Kind, id: &str, json: Option<String>) {
        let mut documents = self.documents.lock().unwrap();
        let name = (kind, id.to_owned());
        let version = documents.get(&name).map_or(0, |document| document.version) + 1;
        match json {
            Some(json) => {
                documents.insert(name, Document { id: id.to_owned(), version, json: json.into() });
            }
            None => {
                documents.remove(&name);
            }
        }
        self.log.lock().unwrap().push((kind, id.to_owned()));
    }

    fn up(&self) -> Result<(), StoreError> {
        if self.down.load(Ordering::SeqCst) { Err(StoreError::Unavailable("down".to_owned())) } else { Ok(()) }
    }
}

#[async_trait]
impl Directory for MemoryDirectory {
    async fn get(&self, kind: Kind, id: &str) -> Result<Option<Document>, StoreError> {
        self.gets.fetch_add(1, Ordering::SeqCst);
        self.up()?;
        let found = self.documents.lock().unwrap().get(&(kind, id.to_owned())).cloned();
        let gate = self.gate.lock().unwrap().clone();
        if let Some(gate) = gate {
            gate.acquire().await.unwrap().forget();
        }
        Ok(found)
    }

    async fn list(&self, kind: Kind, after: Option<&str>, limit: usize) -> Result<Vec<Document>, StoreError> {
        self.up()?;
        let documents = self.documents.lock().unwrap();
        let of_kind = documents.iter().filter(|((of, _), _)| *of == kind);
        let later = of_kind.filter(|((_, id), _)| after.is_none_or(|after| id.as_str() > after));
        Ok(later.take(limit).map(|(_, document)| document.clone()).collect())
    }

    async fn commit(&self, changes: &[Change]) -> Result<(), CommitError> {
        self.up()?;
        let conflict = self.conflicts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if conflict.is_ok() {
            return Err(CommitError::Conflict(0));
        }
        {
            let documents = self.documents.lock().unwrap();
            for (index, change) in changes.iter().enumerate() {
                let found = documents.get(&(change.kind, change.id.clone())).map(|document| document.version);
                let agrees = match change.expect {
                    Expect::Anything => true,
                    Expect::Nothing => found.is_none(),
                    Expect::Version(version) => found == Some(version),
                };
                if !agrees {
                    return Err(CommitError::Conflict(index));
                }
            }
        }
        for change in changes {
            self.change(change.kind, &change.id, change.json.clone());
        }
        Ok(())
    }

    async fn changes(&self, cursor: Option<&str>) -> Result<Changes, StoreError> {
        self.up()?;
        let log = self.log.lock().unwrap();
        let lost = self.lost.swap(false, Ordering::SeqCst);
        let from = cursor.map_or(log.len(), |cursor| cursor.parse().unwrap());
        let touched = if lost { Vec::new() } else { log[from..].to_vec() };
        Ok(Changes { cursor: log.len().to_string(), touched, lost })
    }
}

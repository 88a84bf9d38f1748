//! Records in the directory: read with their versions, searched, and changed in one commit or not at all.

use serde::de::DeserializeOwned;

use super::problem::Problem;
use super::{Management, read};
use crate::keys::access_key::is_access_key_id;
use crate::keys::record::{AccessKeyRecord, Record, SecretRecord};
use crate::keys::secret_key;
use crate::store::{Change, CommitError, Document, Expect, Kind};

/// How often a change is made anew because someone else changed the same record.
pub(super) const ATTEMPTS: usize = 8;

/// Documents read at once in a search.
const PAGE: usize = 1_000;

/// A record as it was read.
#[derive(Debug, Clone)]
pub(super) struct Versioned {
    pub record: Record,
    pub version: u64,
}

impl Management {
    pub(super) async fn load(&self, kind: Kind, id: &str) -> Result<Option<Versioned>, Problem> {
        let Some(document) = self.directory.get(kind, id).await? else {
            return Ok(None);
        };
        Ok(Some(Versioned { version: document.version, record: parse(kind, &document)? }))
    }

    /// A record that has to be there.
    pub(super) async fn require(&self, kind: Kind, id: &str) -> Result<Versioned, Problem> {
        self.load(kind, id).await?.ok_or_else(|| missing(kind, id))
    }

    /// All records of a kind that `keep` wants, in the order of their ids. Reads everything: for people, not for
    /// requests.
    pub(super) async fn search(
        &self,
        kind: Kind,
        mut keep: impl FnMut(&Record) -> bool + Send,
    ) -> Result<Vec<Record>, Problem> {
        let mut found = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = self.directory.list(kind, after.as_deref(), PAGE).await?;
            for document in &page {
                let record = parse(kind, document)?;
                if keep(&record) {
                    found.push(record);
                }
            }
            match page.last() {
                Some(last) if page.len() == PAGE => after = Some(last.id.clone()),
                _ => return Ok(found),
            }
        }
    }

    /// The digest of a secret that is valid, and its key.
    pub(super) async fn secret(&self, digest: &str, now_ms: u64) -> Result<Option<SecretRecord>, Problem> {
        let Some(document) = self.directory.get(Kind::Secret, digest).await? else {
            return Ok(None);
        };
        let secret: SecretRecord = parse(Kind::Secret, &document)?;
        Ok(Some(secret).filter(|secret| secret.expires_at_ms.is_none_or(|at_ms| at_ms > now_ms)))
    }

    /// The key that is meant by a secret, the digest of one, an access key id, or a `key_id`.
    pub(super) async fn find_key(&self, name: &str, now_ms: u64) -> Result<Option<Versioned>, Problem> {
        let digest = if secret_key::is_well_formed(name) {
            Some(secret_key::digest(name))
        } else {
            secret_key::is_digest(name).then(|| name.to_owned())
        };
        let key_id = match digest {
            None if is_access_key_id(name) => match self.directory.get(Kind::AccessKey, name).await? {
                Some(document) => parse::<AccessKeyRecord>(Kind::AccessKey, &document)?.key_id,
                None => return Ok(None),
            },
            Some(digest) => match self.secret(&digest, now_ms).await? {
                Some(secret) => secret.key_id,
                None => return Ok(None),
            },
            None => name.to_owned(),
        };
        if read::check_text(&key_id).is_err() {
            return Ok(None);
        }
        self.load(Kind::Key, &key_id).await
    }

    pub(super) async fn require_key(&self, name: &str, now_ms: u64) -> Result<Versioned, Problem> {
        self.find_key(name, now_ms).await?.ok_or_else(|| {
            let shown = harmless(name);
            Problem::NotFound(format!(
                "No key `{shown}`. Name a key by its secret, its token or its key_id; GET /key/list lists them."
            ))
        })
    }

    pub(super) async fn require_alias(&self, alias: &str) -> Result<Versioned, Problem> {
        let missing = || {
            let shown: String = alias.chars().take(128).collect();
            Problem::NotFound(format!("No key has the alias `{shown}`. GET /key/aliases lists them."))
        };
        let document = self.directory.get(Kind::Alias, alias).await?.ok_or_else(missing)?;
        let named: SecretRecord = parse(Kind::Alias, &document)?;
        self.load(Kind::Key, &named.key_id).await?.ok_or_else(missing)
    }

    /// Makes all changes or none; false when someone else was faster.
    pub(super) async fn commit(&self, changes: &[Change]) -> Result<bool, Problem> {
        let result = self.directory.commit(changes).await;
        // Also after an error: it may have been done all the same.
        for change in changes {
            self.register.forget(change.kind, &change.id);
        }
        match result {
            Ok(()) => Ok(true),
            Err(CommitError::Conflict(_)) => Ok(false),
            Err(CommitError::Store(error)) => Err(error.into()),
        }
    }

    /// Refuses references to what does not exist.
    pub(super) async fn check_references(&self, record: &Record) -> Result<(), Problem> {
        let references =
            [(Kind::Team, &record.team_id), (Kind::User, &record.user_id), (Kind::Budget, &record.budget_id)];
        for (kind, id) in references {
            if let Some(id) = id
                && self.directory.get(kind, id).await?.is_none()
            {
                let (shown, word) = (harmless(id), kind.as_str());
                return Err(Problem::Invalid(format!(
                    "`{word}_id` names the {word} `{shown}`, which does not exist. Make it first with POST /{word}/new."
                )));
            }
        }
        Ok(())
    }
}

/// A name as it may be shown: never a whole secret.
pub(super) fn harmless(name: &str) -> String {
    if name.starts_with(secret_key::PREFIX) { secret_key::short_name(name) } else { name.chars().take(128).collect() }
}

pub(super) fn missing(kind: Kind, id: &str) -> Problem {
    let (shown, word) = (harmless(id), kind.as_str());
    Problem::NotFound(format!("No {word} `{shown}`. GET /{word}/list lists them, POST /{word}/new makes one."))
}

/// Writes a record that was read before, or a new one.
pub(super) fn write(kind: Kind, record: &Record, expect: Expect) -> Result<Change, Problem> {
    let json = serde_json::to_string(record).map_err(|error| Problem::Internal(error.to_string()))?;
    Ok(Change { kind, id: record.id.clone(), expect, json: Some(json) })
}

/// What a secret or an alias stands for.
pub(super) fn pointer(kind: Kind, id: &str, to: &SecretRecord, expect: Expect) -> Result<Change, Problem> {
    let json = serde_json::to_string(to).map_err(|error| Problem::Internal(error.to_string()))?;
    Ok(Change { kind, id: id.to_owned(), expect, json: Some(json) })
}

pub(super) fn delete(kind: Kind, id: &str, expect: Expect) -> Change {
    Change { kind, id: id.to_owned(), expect, json: None }
}

fn parse<T: DeserializeOwned>(kind: Kind, document: &Document) -> Result<T, Problem> {
    serde_json::from_str(&document.json).map_err(|error| {
        let kind = kind.as_str();
        Problem::Internal(format!("a document of kind {kind} cannot be read: {error}"))
    })
}

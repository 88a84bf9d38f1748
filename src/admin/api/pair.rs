//! Key pairs of keys: making, replacing and removing the access key id and secret that sign requests (SigV4).
//!
//! A key has one pair or none; of pairs that were replaced, some may still be valid for a while. The secret is in the
//! one answer that made it and, sealed, in the store.

use serde_json::value::RawValue;

use super::documents::delete;
use super::json::{Members, Object};
use super::keys::invalid;
use super::problem::Problem;
use super::{Management, read};
use crate::keys::access_key::{KeyPair, Sealer};
use crate::keys::record::{AccessKeyRecord, Record};
use crate::store::{Change, Expect, Kind};

/// What a request wants of the pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// It does not say.
    Unsaid,
    Have,
    HaveNone,
}

impl Wish {
    /// Takes the field out of a request.
    pub(super) fn take(members: &mut Members) -> Result<Self, Problem> {
        let raw: Option<Box<RawValue>> = members.take("sigv4").filter(|raw| !read::is_null(raw));
        match raw.map(|raw| read::flag(&raw)).transpose().map_err(|problem| invalid("sigv4", &problem))? {
            None => Ok(Self::Unsaid),
            Some(true) => Ok(Self::Have),
            Some(false) => Ok(Self::HaveNone),
        }
    }
}

/// What became of the pair of a record: the documents to change with it, and the pair to show.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub changes: Vec<Change>,
    pub new: Option<KeyPair>,
}

impl Management {
    /// Gives the record a pair where it should have one and has none, or takes it away.
    pub(super) fn settle_pair(&self, record: &mut Record, wish: Wish) -> Result<Outcome, Problem> {
        match wish {
            Wish::Have if record.access_key_id.is_none() => self.new_pair(record),
            Wish::HaveNone => Ok(Outcome { changes: remove_pairs(record), new: None }),
            Wish::Have | Wish::Unsaid => Ok(Outcome::default()),
        }
    }

    /// A new pair in the place of the one there is. That one ends now, or at `valid_until_ms`.
    pub(super) fn replace_pair(
        &self,
        record: &mut Record,
        wish: Wish,
        valid_until_ms: Option<u64>,
        now_ms: u64,
    ) -> Result<Outcome, Problem> {
        if wish == Wish::HaveNone {
            return self.settle_pair(record, wish);
        }
        let mut cleared = Vec::new();
        record.replaced_access_keys.retain(|id, until_ms| {
            let stays = *until_ms > now_ms;
            if !stays {
                cleared.push(delete(Kind::AccessKey, id, Expect::Anything));
            }
            stays
        });
        let Some(old) = record.access_key_id.take() else {
            let mut outcome = self.settle_pair(record, wish)?;
            outcome.changes.extend(cleared);
            return Ok(outcome);
        };
        let mut outcome = self.new_pair(record)?;
        outcome.changes.extend(cleared);
        match valid_until_ms {
            None => outcome.changes.push(delete(Kind::AccessKey, &old, Expect::Anything)),
            Some(until_ms) => {
                record.replaced_access_keys.insert(old, until_ms);
            }
        }
        Ok(outcome)
    }

    /// Marks the end of replaced pairs in their own documents, which have to be read for that.
    pub(super) async fn end_replaced_pairs(&self, record: &Record) -> Result<Vec<Change>, Problem> {
        let mut changes = Vec::new();
        for (id, until_ms) in &record.replaced_access_keys {
            let Some(document) = self.directory.get(Kind::AccessKey, id).await? else { continue };
            let mut pair: AccessKeyRecord =
                serde_json::from_str(&document.json).map_err(|error| Problem::Internal(error.to_string()))?;
            if pair.expires_at_ms != Some(*until_ms) {
                pair.expires_at_ms = Some(*until_ms);
                changes.push(write(id, &pair, Expect::Version(document.version))?);
            }
        }
        Ok(changes)
    }

    fn new_pair(&self, record: &mut Record) -> Result<Outcome, Problem> {
        let sealer: &Sealer = self.authenticator.sealer().ok_or_else(|| {
            Problem::Invalid(
                "`sigv4` needs a salt key, which seals the secret access key in the store. Set DHEERA_AI_SALT_KEY \
                 (`openssl rand -hex 32`) for every replica and restart."
                    .to_owned(),
            )
        })?;
        let no_random = || Problem::Internal("no random numbers".to_owned());
        let pair = KeyPair::generate().map_err(|_| no_random())?;
        let sealed_secret = sealer.seal(&pair, &record.id).ok_or_else(no_random)?;
        let document = AccessKeyRecord { key_id: record.id.clone(), sealed_secret, expires_at_ms: None };
        let changes = vec![write(&pair.access_key_id, &document, Expect::Nothing)?];
        record.access_key_id = Some(pair.access_key_id.clone());
        Ok(Outcome { changes, new: Some(pair) })
    }
}

/// Takes all pairs of a record away.
pub(super) fn remove_pairs(record: &mut Record) -> Vec<Change> {
    let replaced = std::mem::take(&mut record.replaced_access_keys).into_keys();
    record
        .access_key_id
        .take()
        .into_iter()
        .chain(replaced)
        .map(|id| delete(Kind::AccessKey, &id, Expect::Anything))
        .collect()
}

/// Adds a new pair to the answer that shows it.
pub(super) fn show(pair: Option<&KeyPair>, answer: &mut Object) {
    if let Some(pair) = pair {
        answer.put("aws_secret_access_key", pair.secret_access_key.expose());
    }
}

fn write(access_key_id: &str, pair: &AccessKeyRecord, expect: Expect) -> Result<Change, Problem> {
    let json = serde_json::to_string(pair).map_err(|error| Problem::Internal(error.to_string()))?;
    Ok(Change { kind: Kind::AccessKey, id: access_key_id.to_owned(), expect, json: Some(json) })
}

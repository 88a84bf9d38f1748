//! Making, changing, blocking and deleting keys.
//!
//! A key is several documents: the record under its `key_id`, the digest of its secret, its alias, and its key pair
//! (`pair`). They change in one commit, so that a key is never half there and an alias never names two.

use serde_json::value::RawValue;
use uuid::Uuid;

use super::documents::{ATTEMPTS, Versioned, delete, harmless, pointer, write};
use super::json::{Members, Object};
use super::pair::{self, Wish};
use super::patch::{Moment, apply, check_names};
use super::problem::Problem;
use super::{Management, present, read};
use crate::admin::request::Answer;
use crate::budget::command::Op;
use crate::budget::entry::Row;
use crate::keys::access_key::KeyPair;
use crate::keys::record::{Record, SecretRecord};
use crate::keys::secret_key;
use crate::store::{Change, Expect, Kind};
use crate::types::secret::Secret;

/// Keys deleted or shown at once.
pub(super) const KEYS_MAX: usize = 100;

impl Management {
    pub(super) fn moment(&self, now_ms: u64) -> Moment<'_> {
        Moment { now_ms, zone: &self.zone }
    }

    /// `POST /key/generate`
    pub(super) async fn generate(&self, body: &[u8]) -> Result<Answer, Problem> {
        let mut members = Members::read(body)?;
        check_names(Kind::Key, &members, &[])?;
        if members.take("key_id").is_some_and(|raw| !read::is_null(&raw)) {
            return Err(invalid("key_id", "is chosen by the proxy: leave it out"));
        }
        let wish = Wish::take(&mut members)?;
        let secret = self.own_or_new(members.take("key"), "key")?;
        let now_ms = self.accounts.now_ms();
        let mut record = Record {
            id: Uuid::now_v7().to_string(),
            key_name: Some(secret_key::short_name(secret.expose())),
            token: Some(secret_key::digest(secret.expose())),
            created_at_ms: now_ms,
            updated_at_ms: now_ms,
            ..Record::default()
        };
        apply(Kind::Key, &mut record, &members, self.moment(now_ms))?;
        let pair = self.settle_pair(&mut record, wish)?;
        for _ in 0..ATTEMPTS {
            self.check_references(&record).await?;
            self.check_unused(&secret).await?;
            let mut changes = vec![write(Kind::Key, &record, Expect::Nothing)?, proves(&secret, &record)?];
            changes.extend(self.rename(None, &record).await?);
            changes.extend(pair.changes.iter().cloned());
            if self.commit(&changes).await? {
                return self.with_secret(&secret, pair.new.as_ref(), &record).await;
            }
        }
        Err(Problem::Busy)
    }

    /// `POST /key/update`: of `key`, or of the key with this `key_alias`.
    pub(super) async fn update_key(&self, body: &[u8]) -> Result<Answer, Problem> {
        let mut members = Members::read(body)?;
        check_names(Kind::Key, &members, &[])?;
        let wish = Wish::take(&mut members)?;
        let name = take_name(&mut members)?;
        let alias = match &name {
            Some(_) => None,
            None => members.take("key_alias").map(|raw| text("key_alias", &raw)).transpose()?,
        };
        self.change_key(name.as_deref(), alias.as_deref(), wish, |record, now_ms| {
            apply(Kind::Key, record, &members, self.moment(now_ms))
        })
        .await
    }

    /// `POST /key/block` and `/key/unblock`
    pub(super) async fn block_key(&self, body: &[u8], blocked: bool) -> Result<Answer, Problem> {
        let mut members = Members::read(body)?;
        let name = take_name(&mut members)?;
        nothing_else(&members, "key")?;
        let change = |record: &mut Record, _| {
            record.blocked = blocked;
            Ok(())
        };
        self.change_key(name.as_deref(), None, Wish::Unsaid, change).await
    }

    /// Reads a key, changes it, and writes it, anew when someone else was faster.
    async fn change_key(
        &self,
        name: Option<&str>,
        alias: Option<&str>,
        wish: Wish,
        change: impl Fn(&mut Record, u64) -> Result<(), Problem> + Send + Sync,
    ) -> Result<Answer, Problem> {
        for _ in 0..ATTEMPTS {
            let now_ms = self.accounts.now_ms();
            let before = match (name, alias) {
                (Some(name), _) => self.require_key(name, now_ms).await?,
                (None, Some(alias)) => self.require_alias(alias).await?,
                (None, None) => return Err(Problem::Invalid("Name a key with `key` or `key_alias`.".to_owned())),
            };
            let mut record = before.record.clone();
            change(&mut record, now_ms)?;
            record.updated_at_ms = now_ms;
            let pair = self.settle_pair(&mut record, wish)?;
            self.check_new_references(&before.record, &record).await?;
            let mut changes = vec![write(Kind::Key, &record, Expect::Version(before.version))?];
            changes.extend(self.rename(Some(&before.record), &record).await?);
            changes.extend(pair.changes);
            if self.commit(&changes).await? {
                let mut answer = Object::default();
                pair::show(pair.new.as_ref(), &mut answer);
                answer.append(self.describe_key(&record).await?);
                return Ok(answer.into_answer());
            }
        }
        Err(Problem::Busy)
    }

    /// `POST /key/delete`: `keys` or `key_aliases`, all or none.
    pub(super) async fn delete_keys(&self, body: &[u8]) -> Result<Answer, Problem> {
        let mut members = Members::read(body)?;
        let mut list = |name: &str| {
            let raw = members.take(name).filter(|raw| !read::is_null(raw));
            raw.map(|raw| read::texts(&raw).map_err(|problem| invalid(name, &problem))).transpose()
        };
        let (keys, aliases) = (list("keys")?.unwrap_or_default(), list("key_aliases")?.unwrap_or_default());
        nothing_else(&members, "keys` or `key_aliases")?;
        let count = keys.len() + aliases.len();
        if count == 0 || count > KEYS_MAX {
            let problem = format!("Name 1 to {KEYS_MAX} keys in `keys` or `key_aliases`.");
            return Err(Problem::Invalid(problem));
        }
        for _ in 0..ATTEMPTS {
            let found = self.find_all(&keys, &aliases).await?;
            let mut changes = Vec::new();
            for Versioned { record, version } in &found {
                changes.extend(pair::remove_pairs(&mut record.clone()));
                changes.push(delete(Kind::Key, &record.id, Expect::Version(*version)));
                let replaced = record.replaced_tokens.keys();
                changes.extend(record.token.iter().chain(replaced).map(|t| delete(Kind::Secret, t, Expect::Anything)));
                changes.extend(record.alias.iter().map(|alias| delete(Kind::Alias, alias, Expect::Anything)));
            }
            if self.commit(&changes).await? {
                let shown: Vec<String> = keys.iter().map(|name| unsecret(name)).collect();
                let ids: Vec<&str> = found.iter().map(|found| found.record.id.as_str()).collect();
                let mut answer = Object::default();
                answer.put("deleted_keys", if aliases.is_empty() { &shown } else { &aliases });
                answer.put("deleted_key_ids", &ids);
                return Ok(answer.into_answer());
            }
        }
        Err(Problem::Busy)
    }

    /// Every key once; all that do not exist are told at once.
    async fn find_all(&self, keys: &[String], aliases: &[String]) -> Result<Vec<Versioned>, Problem> {
        let now_ms = self.accounts.now_ms();
        let (mut found, mut unknown) = (Vec::<Versioned>::new(), Vec::new());
        let mut take = |result: Result<Versioned, Problem>, name: &str| match result {
            Ok(key) => {
                if found.iter().all(|other| other.record.id != key.record.id) {
                    found.push(key);
                }
                Ok(())
            }
            Err(Problem::NotFound(_)) => {
                unknown.push(format!("`{}`", harmless(name)));
                Ok(())
            }
            Err(problem) => Err(problem),
        };
        for name in keys {
            take(self.require_key(name, now_ms).await, name)?;
        }
        for alias in aliases {
            take(self.require_alias(alias).await, alias)?;
        }
        if unknown.is_empty() {
            return Ok(found);
        }
        let unknown = unknown.join(", ");
        Err(Problem::NotFound(format!("No keys {unknown}. Nothing was deleted; GET /key/list lists the keys.")))
    }

    /// `POST /key/{key}/reset_spend`: no account of the key that has a limit says more than `reset_to` after it.
    pub(super) async fn reset_spend(&self, name: &str, body: &[u8]) -> Result<Answer, Problem> {
        let mut members = Members::read(body)?;
        let Some(raw) = members.take("reset_to") else {
            return Err(invalid("reset_to", "is missing: write the dollars that count as spent, such as 0"));
        };
        nothing_else(&members, "reset_to")?;
        let reset_to = read::usd(&raw).map_err(|problem| invalid("reset_to", &problem))?;
        let now_ms = self.accounts.now_ms();
        let record = self.require_key(name, now_ms).await?.record;
        let used = self.usage_of(Kind::Key, &record).await?;
        let shown = present::primary(&used).map(|used| used.account.charge.account.clone());
        if present::primary(&used).is_none_or(|used| used.balance.spent < reset_to) {
            let spent = present::primary(&used).map_or_else(String::new, |used| used.balance.spent.to_usd_number());
            return Err(invalid("reset_to", &format!("is more than the key has spent, which is {spent} dollars")));
        }
        for used in used {
            let charge = used.account.charge;
            if used.balance.spent > reset_to && (charge.limit.is_some() || Some(&charge.account) == shown.as_ref()) {
                let row = Row {
                    request_id: Uuid::now_v7().to_string(),
                    started_at_ms: now_ms,
                    key_id: record.id.clone(),
                    key_alias: record.alias.clone(),
                    team_id: record.team_id.clone(),
                    user_id: record.user_id.clone(),
                    ..Row::default()
                };
                self.accounts.submit(Op::Reset { account: charge.account, spent: reset_to, row: row.into() }).await?;
            }
        }
        Ok(self.describe_key(&record).await?.into_answer())
    }

    /// What an alias asks for: the old one is free, the new one is this key's.
    pub(super) async fn rename(&self, before: Option<&Record>, after: &Record) -> Result<Vec<Change>, Problem> {
        let old = before.and_then(|record| record.alias.as_deref());
        let new = after.alias.as_deref();
        if old == new {
            return Ok(Vec::new());
        }
        let mut changes: Vec<Change> = old.map(|old| delete(Kind::Alias, old, Expect::Anything)).into_iter().collect();
        if let Some(alias) = new {
            if self.directory.get(Kind::Alias, alias).await?.is_some() {
                return Err(Problem::Exists(format!(
                    "Another key has the alias `{alias}`. Choose another one, or delete that key first."
                )));
            }
            let to = SecretRecord { key_id: after.id.clone(), expires_at_ms: None };
            changes.push(pointer(Kind::Alias, alias, &to, Expect::Nothing)?);
        }
        Ok(changes)
    }

    /// Only what is new must exist: a key must stay changeable when its team is gone.
    pub(super) async fn check_new_references(&self, before: &Record, after: &Record) -> Result<(), Problem> {
        let new = |old: &Option<String>, new: &Option<String>| new.clone().filter(|id| old.as_ref() != Some(id));
        self.check_references(&Record {
            team_id: new(&before.team_id, &after.team_id),
            user_id: new(&before.user_id, &after.user_id),
            budget_id: new(&before.budget_id, &after.budget_id),
            ..Record::default()
        })
        .await
    }

    /// The secret that the operator chose, or a new one.
    pub(super) fn own_or_new(&self, own: Option<Box<RawValue>>, field: &str) -> Result<Secret, Problem> {
        let Some(raw) = own.filter(|raw| !read::is_null(raw)) else {
            return secret_key::generate().map_err(|error| Problem::Internal(format!("no random numbers: {error}")));
        };
        let own = Secret::new(text(field, &raw)?);
        if !secret_key::is_well_formed(own.expose()) {
            let form = secret_key::FORM;
            return Err(invalid(field, &format!("must be {form}. Leave it out to have one made")));
        }
        if self.authenticator.is_master(own.expose()) {
            return Err(invalid(field, "is the master key: choose another one, or leave it out to have one made"));
        }
        Ok(own)
    }

    pub(super) async fn check_unused(&self, secret: &Secret) -> Result<(), Problem> {
        let digest = secret_key::digest(secret.expose());
        match self.directory.get(Kind::Secret, &digest).await? {
            None => Ok(()),
            Some(_) => Err(Problem::Exists("This key exists already. Choose another one.".to_owned())),
        }
    }

    /// The only answer that has a secret, but for that of an update that makes a pair.
    pub(super) async fn with_secret(
        &self,
        secret: &Secret,
        pair: Option<&KeyPair>,
        record: &Record,
    ) -> Result<Answer, Problem> {
        let budget = self.budget_of(record).await?;
        let mut answer = Object::default();
        answer.put("key", secret.expose());
        pair::show(pair, &mut answer);
        answer.append(present::key(record, budget.as_ref(), self.accounts.now_ms()));
        Ok(answer.into_answer())
    }
}

/// That this secret proves this key.
pub(super) fn proves(secret: &Secret, record: &Record) -> Result<Change, Problem> {
    let to = SecretRecord { key_id: record.id.clone(), expires_at_ms: None };
    pointer(Kind::Secret, &secret_key::digest(secret.expose()), &to, Expect::Nothing)
}

/// `POST /key/health`: who gets here has a valid key.
pub(super) fn health() -> Answer {
    let mut answer = Object::default();
    answer.put("key", "healthy").put("logging_callbacks", &());
    answer.into_answer()
}

/// Takes the name of a key out of a body: `key` or `key_id`.
pub(super) fn take_name(members: &mut Members) -> Result<Option<String>, Problem> {
    let mut found = None;
    for field in ["key", "key_id"] {
        if let Some(raw) = members.take(field).filter(|raw| !read::is_null(raw)) {
            if found.is_some() {
                return Err(Problem::Invalid("Name the key once: with `key` or with `key_id`.".to_owned()));
            }
            found = Some(text(field, &raw)?);
        }
    }
    Ok(found)
}

pub(super) fn text(field: &str, raw: &RawValue) -> Result<String, Problem> {
    read::text(raw).map_err(|problem| invalid(field, &problem))
}

pub(super) fn invalid(field: &str, problem: &str) -> Problem {
    Problem::Invalid(format!("`{field}` {problem}."))
}

pub(super) fn nothing_else(members: &Members, known: &str) -> Result<(), Problem> {
    match members.0.first() {
        None => Ok(()),
        Some((name, _)) => {
            let shown: String = name.chars().take(64).collect();
            Err(Problem::Invalid(format!("Unknown field `{shown}`. This takes `{known}` only.")))
        }
    }
}

/// What was named, with a secret given as its digest.
pub(super) fn unsecret(name: &str) -> String {
    if name.starts_with(secret_key::PREFIX) { secret_key::digest(name) } else { name.to_owned() }
}

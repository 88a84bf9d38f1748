//! A new secret for a key, and a new key pair where it has one: same `key_id`, same accounts, same limits. The old ones
//! may stay valid for a while, so that clients can change over without a gap.

use super::documents::{ATTEMPTS, delete, pointer, write};
use super::json::Members;
use super::keys::{invalid, proves, take_name};
use super::pair::Wish;
use super::patch::{apply, check_names};
use super::problem::Problem;
use super::{Management, read};
use crate::admin::request::Answer;
use crate::keys::record::{Record, SecretRecord};
use crate::keys::secret_key;
use crate::store::{Change, Expect, Kind};
use crate::types::secret::Secret;

/// Secrets of one key that are valid at the same time, besides the newest.
const REPLACED_MAX: usize = 8;

/// Fields of this endpoint only.
const OWN: &[&str] = &["new_key", "grace_period", "new_master_key"];

impl Management {
    /// `POST /key/{key}/regenerate`, or `/key/regenerate` with `key`. Other fields change the key as `/key/update` does.
    pub(super) async fn regenerate(&self, key: Option<String>, body: &[u8]) -> Result<Answer, Problem> {
        let mut members = Members::read(body)?;
        check_names(Kind::Key, &members, OWN)?;
        let named = take_name(&mut members)?;
        let name = match (key, named) {
            (Some(_), Some(_)) => Err(Problem::Invalid("Name the key once: in the path or in `key`.".to_owned())),
            (None, None) => Err(Problem::Invalid("Name the key in the path or in `key`.".to_owned())),
            (key, named) => Ok(key.or(named).unwrap_or_default()),
        }?;
        if members.take("new_master_key").is_some_and(|raw| !read::is_null(&raw)) {
            return Err(invalid(
                "new_master_key",
                "is not supported: change DHEERA_AI_MASTER_KEY and restart the proxy",
            ));
        }
        if self.authenticator.is_master(&name) {
            return Err(Problem::Invalid(
                "The master key is not a virtual key: change DHEERA_AI_MASTER_KEY and restart the proxy.".to_owned(),
            ));
        }
        let grace = members.take("grace_period").filter(|raw| !read::is_nothing(raw));
        let grace = match grace {
            Some(raw) if matches!(raw.get(), "\"0\"" | "\"0s\"" | "0") => None,
            Some(raw) => Some(read::period(&raw).map_err(|problem| invalid("grace_period", &problem))?),
            None => None,
        };
        let wish = Wish::take(&mut members)?;
        let secret = self.own_or_new(members.take("new_key"), "new_key")?;
        for _ in 0..ATTEMPTS {
            let now_ms = self.accounts.now_ms();
            let before = self.require_key(&name, now_ms).await?;
            let mut record = before.record.clone();
            apply(Kind::Key, &mut record, &members, self.moment(now_ms))?;
            self.check_new_references(&before.record, &record).await?;
            self.check_unused(&secret).await?;
            let valid_until_ms = grace.map(|grace| grace.after(now_ms, &self.zone));
            let mut changes = replace(&mut record, &secret, valid_until_ms, now_ms)?;
            let pair = self.replace_pair(&mut record, wish, valid_until_ms, now_ms)?;
            changes.extend(pair.changes);
            changes.extend(self.end_replaced_pairs(&record).await?);
            changes.push(write(Kind::Key, &record, Expect::Version(before.version))?);
            changes.extend(self.rename(Some(&before.record), &record).await?);
            if self.commit(&changes).await? {
                return self.with_secret(&secret, pair.new.as_ref(), &record).await;
            }
        }
        Err(Problem::Busy)
    }
}

/// Gives the record its new secret, ends or limits the old one, and clears away those that ended before.
fn replace(
    record: &mut Record,
    secret: &Secret,
    valid_until_ms: Option<u64>,
    now_ms: u64,
) -> Result<Vec<Change>, Problem> {
    let mut changes = vec![proves(secret, record)?];
    let ended: Vec<String> =
        record.replaced_tokens.iter().filter(|(_, until)| **until <= now_ms).map(|(token, _)| token.clone()).collect();
    for token in ended {
        record.replaced_tokens.remove(&token);
        changes.push(delete(Kind::Secret, &token, Expect::Anything));
    }
    let old = record.token.replace(secret_key::digest(secret.expose()));
    match (old, valid_until_ms) {
        (Some(old), Some(until)) => {
            if record.replaced_tokens.len() == REPLACED_MAX {
                return Err(Problem::Invalid(format!(
                    "{REPLACED_MAX} earlier secrets of this key are in their grace periods. Wait, or leave out \
                     `grace_period`, which ends the present one at once."
                )));
            }
            let to = SecretRecord { key_id: record.id.clone(), expires_at_ms: Some(until) };
            changes.push(pointer(Kind::Secret, &old, &to, Expect::Anything)?);
            record.replaced_tokens.insert(old, until);
        }
        (Some(old), None) => changes.push(delete(Kind::Secret, &old, Expect::Anything)),
        (None, _) => {}
    }
    record.key_name = Some(secret_key::short_name(secret.expose()));
    record.rotation_count = record.rotation_count.saturating_add(1);
    record.last_rotation_at_ms = Some(now_ms);
    record.updated_at_ms = now_ms;
    Ok(changes)
}

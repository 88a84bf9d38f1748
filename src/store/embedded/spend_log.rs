//! Reading the spend log and its daily sums.

use redb::{Database, ReadableDatabase};

use super::tables::{ENTRIES, ROLLUPS, failed, sums_of};
use crate::budget::entry::{Dimension, Entry, Rollup, RollupKey};
use crate::store::{EntryPage, EntryQuery, StoreError};

/// Entries looked at for one page; a page may therefore be short, or empty, and still have a next.
const SCANNED_MAX: usize = 50_000;
/// How much earlier than its id says an entry of a request is looked for: clocks are set.
const ID_SLACK_MS: u64 = 300_000;

pub(super) fn entries(database: &Database, query: &EntryQuery) -> Result<EntryPage, StoreError> {
    let from_ms = query.request_id.as_deref().and_then(made_at_ms).unwrap_or(0).saturating_sub(ID_SLACK_MS);
    let mut from = (query.from_ms.max(from_ms), 0);
    if let Some(after) = &query.after {
        let (at_ms, number) = cursor(after)?;
        from = from.max((at_ms, number.saturating_add(1)));
    }
    let to = (query.to_ms, 0);
    let mut page = EntryPage { entries: Vec::new(), next: None };
    if from >= to {
        return Ok(page);
    }
    let transaction = database.begin_read().map_err(failed)?;
    let table = transaction.open_table(ENTRIES).map_err(failed)?;
    let mut last = (0, 0);
    for (scanned, item) in table.range(from..to).map_err(failed)?.enumerate() {
        let (key, value) = item.map_err(failed)?;
        if page.entries.len() >= query.limit.max(1) || scanned >= SCANNED_MAX {
            page.next = Some(format!("{}-{}", last.0, last.1));
            break;
        }
        last = key.value();
        let entry: Entry = serde_json::from_slice(value.value())
            .map_err(|error| StoreError::Failed(format!("an entry of the spend log cannot be read: {error}")))?;
        if wanted(&entry, query) {
            page.entries.push(entry);
        }
    }
    Ok(page)
}

fn cursor(text: &str) -> Result<(u64, u64), StoreError> {
    text.split_once('-')
        .and_then(|(at_ms, number)| Some((at_ms.parse().ok()?, number.parse().ok()?)))
        .ok_or_else(|| StoreError::Failed(format!("`{text}` is not where a page of the spend log ended")))
}

fn wanted(entry: &Entry, query: &EntryQuery) -> bool {
    let row = &entry.row;
    let equal = |wanted: &Option<String>, is: Option<&str>| wanted.is_none() || wanted.as_deref() == is;
    equal(&query.request_id, Some(&row.request_id))
        && equal(&query.key_id, Some(&row.key_id))
        && equal(&query.model, Some(&row.model))
        && equal(&query.team_id, row.team_id.as_deref())
        && equal(&query.user_id, row.user_id.as_deref())
        && equal(&query.end_user, row.end_user.as_deref())
        && query.tag.as_ref().is_none_or(|tag| row.tags.contains(tag))
}

/// When a call id was made: the first 48 bits of a UUID of version 7 are Unix milliseconds.
fn made_at_ms(request_id: &str) -> Option<u64> {
    let id = uuid::Uuid::parse_str(request_id).ok().filter(|id| id.get_version_num() == 7)?;
    u64::try_from(id.as_u128() >> 80).ok()
}

/// Sums of the days `from` to `to`, inclusive.
pub(super) fn rollups(database: &Database, from: &str, to: &str) -> Result<Vec<Rollup>, StoreError> {
    let transaction = database.begin_read().map_err(failed)?;
    let table = transaction.open_table(ROLLUPS).map_err(failed)?;
    let mut rollups = Vec::new();
    for item in table.range((from, "", "", "")..).map_err(failed)? {
        let (key, value) = item.map_err(failed)?;
        let (day, dimension, id, model) = key.value();
        if day > to {
            break;
        }
        let Some(dimension) = Dimension::ALL.into_iter().find(|known| known.as_str() == dimension) else { continue };
        let sums = sums_of(value.value());
        rollups.push(Rollup {
            day: day.to_owned(),
            of: RollupKey { dimension, id: id.to_owned(), model: model.to_owned() },
            cost_nano_usd: sums.cost_nano_usd,
            requests: sums.requests,
            prompt_tokens: sums.prompt_tokens,
            completion_tokens: sums.completion_tokens,
        });
    }
    Ok(rollups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_id_says_when_it_was_made() {
        assert_eq!(made_at_ms("0199d2a5-5a00-7000-8000-000000000000"), Some(0x0199_d2a5_5a00));
        assert_eq!(made_at_ms("0199d2a5-5a00-4000-8000-000000000000"), None);
        assert_eq!(made_at_ms("my own id"), None);
    }

    #[test]
    fn a_cursor_that_is_none_is_an_error() {
        assert_eq!(cursor("17-4"), Ok((17, 4)));
        assert!(cursor("17").is_err());
        assert!(cursor("17-x").is_err());
    }
}

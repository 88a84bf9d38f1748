//! Reads the spend log and the daily sums, and trims the log. Plain commands: nothing here has to be atomic.
//!
//! An entry's time is that of its stream id. A query reads a bounded part of the log and says where it stopped, so that
//! a search for something rare does not hold Redis up; the next page goes on from there, even if this one is empty.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

use super::documents::is_stream_id;
use super::{RedisStore, answers};
use crate::budget::entry::{Dimension, Entry, EntryKind, Rollup, RollupKey};
use crate::store::{EntryPage, EntryQuery, StoreError};

/// Entries read by one command.
const CHUNK: usize = 500;
/// Commands for one page.
const CHUNKS_MAX: usize = 20;
/// Entries trimmed by one command.
const TRIM: usize = 10_000;
/// How far the clock of a proxy that named a request may be ahead of Redis's.
const CLOCKS_APART_MS: u64 = 600_000;

/// An item of a stream: its id, its fields and their values.
type Item = (String, Vec<String>);

impl RedisStore {
    pub(super) async fn page(&self, query: &EntryQuery) -> Result<EntryPage, StoreError> {
        let limit = query.limit.max(1);
        let mut entries = Vec::new();
        let Some(newest_ms) = query.to_ms.checked_sub(1) else { return Ok(EntryPage { entries, next: None }) };
        let from_ms = query
            .request_id
            .as_deref()
            .and_then(named_at_ms)
            .map_or(query.from_ms, |at_ms| query.from_ms.max(at_ms.saturating_sub(CLOCKS_APART_MS)));
        let mut start = match query.after.as_deref() {
            Some(after) if is_stream_id(after) => format!("({after}"),
            Some(_) => return Err(StoreError::Failed("the page to continue with is none of this store".to_owned())),
            None => format!("{from_ms}-0"),
        };
        for _ in 0..CHUNKS_MAX {
            let mut command = redis::cmd("XRANGE");
            // Without a number behind it, an end means the last of that millisecond.
            command.arg(self.connection.keys.log()).arg(&start).arg(newest_ms).arg("COUNT").arg(CHUNK);
            let items: Vec<Item> = self.connection.query(command).await?;
            let is_last = items.len() < CHUNK;
            let count = items.len();
            for (index, (id, fields)) in items.into_iter().enumerate() {
                let entry = entry(&id, &fields)?;
                start = format!("({id}");
                if !matches(query, &entry) {
                    continue;
                }
                entries.push(entry);
                if entries.len() == limit {
                    let next = (!is_last || index + 1 < count).then_some(id);
                    return Ok(EntryPage { entries, next });
                }
            }
            if is_last {
                return Ok(EntryPage { entries, next: None });
            }
        }
        Ok(EntryPage { entries, next: start.strip_prefix('(').map(str::to_owned) })
    }

    pub(super) async fn sums(&self, from: &str, to: &str) -> Result<Vec<Rollup>, StoreError> {
        let mut command = redis::cmd("ZRANGEBYLEX");
        command.arg(self.connection.keys.days()).arg(format!("[{from}")).arg(format!("[{to}"));
        let days: Vec<String> = self.connection.query(command).await?;
        let mut all = Vec::new();
        for day in days {
            let mut command = redis::cmd("HGETALL");
            command.arg(self.connection.keys.day(&day));
            let fields: HashMap<String, i64> = self.connection.query(command).await?;
            all.extend(rollups(&day, &fields)?);
        }
        Ok(all)
    }

    pub(super) async fn trim(&self, before_ms: u64) -> Result<(), StoreError> {
        // Whole blocks first, a bounded number at a time, because Redis does nothing else meanwhile.
        loop {
            let mut command = redis::cmd("XTRIM");
            command.arg(self.connection.keys.log()).arg("MINID").arg("~").arg(before_ms).arg("LIMIT").arg(TRIM);
            if self.connection.query::<u64>(command).await? == 0 {
                break;
            }
        }
        let mut command = redis::cmd("XTRIM");
        command.arg(self.connection.keys.log()).arg("MINID").arg(before_ms);
        self.connection.query::<u64>(command).await.map(|_| ())
    }
}

/// What a log item says.
fn entry(id: &str, fields: &[String]) -> Result<Entry, StoreError> {
    let field = |name: &str| {
        let (pairs, _) = fields.as_chunks::<2>();
        pairs.iter().find(|[key, _]| key == name).map(|[_, value]| value.as_str()).ok_or_else(answers::unexpected)
    };
    let kind = match field("k")? {
        "request" => EntryKind::Request,
        "expired" => EntryKind::Expired,
        "corrected" => EntryKind::Corrected,
        "reset" => EntryKind::Reset,
        _ => return Err(answers::unexpected()),
    };
    Ok(Entry {
        at_ms: id.split('-').next().and_then(|at| at.parse().ok()).ok_or_else(answers::unexpected)?,
        kind,
        cost_nano_usd: field("c")?.parse().map_err(|_| answers::unexpected())?,
        row: serde_json::from_str(field("r")?)
            .map_err(|error| StoreError::Failed(format!("a row of the spend log cannot be read: {error}")))?,
    })
}

fn matches(query: &EntryQuery, entry: &Entry) -> bool {
    let row = &entry.row;
    let same = |wanted: &Option<String>, is: Option<&str>| wanted.as_deref().is_none_or(|wanted| Some(wanted) == is);
    entry.at_ms >= query.from_ms
        && entry.at_ms < query.to_ms
        && same(&query.key_id, Some(&row.key_id))
        && same(&query.team_id, row.team_id.as_deref())
        && same(&query.user_id, row.user_id.as_deref())
        && same(&query.end_user, row.end_user.as_deref())
        && same(&query.model, Some(&row.model))
        && same(&query.request_id, Some(&row.request_id))
        && query.tag.as_ref().is_none_or(|tag| row.tags.contains(tag))
}

/// When a request id was made, if it is a UUIDv7: its first 48 bits are Unix milliseconds.
fn named_at_ms(request_id: &str) -> Option<u64> {
    let hex: String = request_id.chars().filter(|c| *c != '-').collect();
    if hex.len() != 32 || hex.get(12..13) != Some("7") {
        return None;
    }
    u64::from_str_radix(hex.get(..12)?, 16).ok()
}

/// A combination as a field of a day names it.
#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Combination(Dimension, String, String);

fn rollups(day: &str, fields: &HashMap<String, i64>) -> Result<Vec<Rollup>, StoreError> {
    let mut sums: BTreeMap<Combination, [i64; 4]> = BTreeMap::new();
    for (field, sum) in fields {
        let (letter, combination) = field.split_at_checked(1).ok_or_else(answers::unexpected)?;
        let combination = serde_json::from_str(combination).map_err(|_| answers::unexpected())?;
        let sums = sums.entry(combination).or_default();
        match letter {
            "c" => sums[0] = *sum,
            "r" => sums[1] = *sum,
            "p" => sums[2] = *sum,
            "o" => sums[3] = *sum,
            _ => return Err(answers::unexpected()),
        }
    }
    let whole = |sum: i64| u64::try_from(sum).unwrap_or(0);
    Ok(sums
        .into_iter()
        .map(|(Combination(dimension, id, model), [cost_nano_usd, requests, prompt, completion])| Rollup {
            day: day.to_owned(),
            of: RollupKey { dimension, id, model },
            cost_nano_usd,
            requests: whole(requests),
            prompt_tokens: whole(prompt),
            completion_tokens: whole(completion),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_made_of_the_time_says_when_it_was_made() {
        assert_eq!(named_at_ms("0192e4f0-1c2b-7d3e-8f40-112233445566"), Some(0x0192_e4f0_1c2b));
        assert_eq!(named_at_ms("0192e4f0-1c2b-4d3e-8f40-112233445566"), None);
        assert_eq!(named_at_ms("req-1"), None);
    }

    #[test]
    fn fields_of_a_day_become_sums() {
        let fields =
            [(r#"c["key","k","m \u001f"]"#, -5), (r#"r["key","k","m \u001f"]"#, 2), (r#"p["team","t","m"]"#, 7)];
        let fields = fields.into_iter().map(|(field, sum)| (field.to_owned(), sum)).collect();
        let all = rollups("2026-11-22", &fields).unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].of.model.as_str(), all[0].cost_nano_usd, all[0].requests), ("m \u{1f}", -5, 2));
        assert_eq!((all[1].of.dimension, all[1].prompt_tokens), (Dimension::Team, 7));
        assert!(rollups("d", &HashMap::from([("xyz".to_owned(), 1)])).is_err());
    }
}

//! Documents in the file, and the memory of which were changed since the store was opened.

use std::collections::{HashMap, VecDeque};

use redb::{Database, ReadableDatabase, ReadableTable, WriteTransaction};

use super::tables::{DOCUMENT_VERSION, DOCUMENTS, META, failed, next};
use crate::store::{Change, Changes, Document, Expect, Kind, StoreError};

/// Changes that are remembered: beyond it a reader has to take everything for stale.
const REMEMBERED: usize = 10_000;

pub(super) fn get(database: &Database, kind: Kind, id: &str) -> Result<Option<Document>, StoreError> {
    let transaction = database.begin_read().map_err(failed)?;
    let table = transaction.open_table(DOCUMENTS).map_err(failed)?;
    let found = table.get((kind.as_str(), id)).map_err(failed)?;
    Ok(found.map(|found| document(id, found.value())))
}

/// Up to `limit` documents with ids after `after`.
pub(super) fn list(
    database: &Database,
    kind: Kind,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<Document>, StoreError> {
    let transaction = database.begin_read().map_err(failed)?;
    let table = transaction.open_table(DOCUMENTS).map_err(failed)?;
    let mut documents = Vec::new();
    for item in table.range((kind.as_str(), after.unwrap_or(""))..).map_err(failed)? {
        let (key, value) = item.map_err(failed)?;
        let (of, id) = key.value();
        if of != kind.as_str() || documents.len() >= limit {
            break;
        }
        if after != Some(id) {
            documents.push(document(id, value.value()));
        }
    }
    Ok(documents)
}

fn document(id: &str, (version, json): (u64, &str)) -> Document {
    Document { id: id.to_owned(), version, json: json.into() }
}

/// Makes all changes within `transaction`, or none: `Some(index)` is the first that found something else than it
/// expected. Later changes see earlier ones.
pub(super) fn write(transaction: &WriteTransaction, changes: &[Change]) -> Result<Option<usize>, StoreError> {
    let mut table = transaction.open_table(DOCUMENTS).map_err(failed)?;
    let mut meta = transaction.open_table(META).map_err(failed)?;
    let before = meta.get(DOCUMENT_VERSION).map_err(failed)?.map_or(0, |version| version.value());
    let mut planned: HashMap<(Kind, &str), Option<u64>> = HashMap::new();
    for (index, (change, version)) in changes.iter().zip(before + 1..).enumerate() {
        let key = (change.kind, change.id.as_str());
        let found = match planned.get(&key) {
            Some(planned) => *planned,
            None => table.get((change.kind.as_str(), key.1)).map_err(failed)?.map(|found| found.value().0),
        };
        let as_expected = match change.expect {
            Expect::Anything => true,
            Expect::Nothing => found.is_none(),
            Expect::Version(version) => found == Some(version),
        };
        if !as_expected {
            return Ok(Some(index));
        }
        planned.insert(key, change.json.as_ref().map(|_| version));
    }
    for (change, version) in changes.iter().zip(before + 1..) {
        let key = (change.kind.as_str(), change.id.as_str());
        match &change.json {
            Some(json) => table.insert(key, (version, json.as_str())).map_err(failed)?,
            None => table.remove(key).map_err(failed)?,
        };
    }
    let count = u64::try_from(changes.len()).unwrap_or(u64::MAX);
    next(&mut meta, DOCUMENT_VERSION, count).map_err(failed)?;
    Ok(None)
}

/// The last changes, numbered from one since the store was opened. A cursor is `<epoch>:<number>`.
#[derive(Debug)]
pub(super) struct ChangeLog {
    epoch: u64,
    last: u64,
    recent: VecDeque<(Kind, String)>,
}

impl ChangeLog {
    pub(super) const fn new(epoch: u64) -> Self {
        Self { epoch, last: 0, recent: VecDeque::new() }
    }

    pub(super) fn push(&mut self, kind: Kind, id: String) {
        self.last += 1;
        self.recent.push_back((kind, id));
        if self.recent.len() > REMEMBERED {
            self.recent.pop_front();
        }
    }

    pub(super) fn since(&self, cursor: Option<&str>) -> Changes {
        let mut changes = Changes { cursor: format!("{}:{}", self.epoch, self.last), touched: Vec::new(), lost: false };
        let Some(cursor) = cursor else { return changes };
        let number = cursor
            .split_once(':')
            .filter(|(epoch, _)| epoch.parse() == Ok(self.epoch))
            .and_then(|(_, number)| number.parse::<u64>().ok());
        let missed = number.and_then(|number| self.last.checked_sub(number));
        let first = missed
            .and_then(|missed| usize::try_from(missed).ok())
            .and_then(|missed| self.recent.len().checked_sub(missed));
        match first {
            Some(first) => changes.touched = self.recent.range(first..).cloned().collect(),
            None => changes.lost = true,
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_finds_what_came_after_it_or_learns_that_it_is_too_old() {
        let mut log = ChangeLog::new(3);
        let begin = log.since(None);
        assert_eq!(begin, Changes { cursor: "3:0".into(), touched: vec![], lost: false });
        log.push(Kind::Key, "a".into());
        log.push(Kind::Team, "b".into());
        log.push(Kind::Key, "a".into());
        let seen = log.since(Some(&begin.cursor));
        let [a, b] = [(Kind::Key, "a".to_owned()), (Kind::Team, "b".to_owned())];
        assert_eq!(seen.touched, [a.clone(), b, a]);
        assert_eq!(log.since(Some(&seen.cursor)), Changes { cursor: "3:3".into(), touched: vec![], lost: false });
        for stale in ["2:3", "3:4", "3", "", "3:x"] {
            assert!(log.since(Some(stale)).lost, "{stale}");
        }
        for number in 0..REMEMBERED {
            log.push(Kind::Tag, number.to_string());
        }
        assert!(!log.since(Some(&seen.cursor)).lost);
        log.push(Kind::Tag, "one too many".into());
        assert!(log.since(Some(&seen.cursor)).lost);
    }
}

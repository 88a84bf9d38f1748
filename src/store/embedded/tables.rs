//! The tables of the file: how the books are written into them and read back at start.
//!
//! Keys are ordered so that every query is one range: entries by time, sums by day, documents by kind and id. Values
//! that nobody searches are JSON, so that a field can be added without a new schema version.

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::budget::books::rollup::{Sums, tally};
use crate::budget::books::{Changes, Open, Saved};
use crate::budget::command::{AccountId, LeaseId, NodeId};
use crate::store::StoreError;

/// Raised when an older program could not read what this one writes.
pub(super) const SCHEMA_VERSION: u64 = 1;

/// Single numbers: see the constants below.
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
pub(super) const SCHEMA: &str = "schema_version";
/// How often the file was opened: a cursor of an earlier process says nothing about this one's changes.
pub(super) const EPOCH: &str = "epoch";
/// The last version that a document got. One sequence for all, so that a document made anew differs from the old one.
pub(super) const DOCUMENT_VERSION: &str = "document_version";
const ENTRY_NUMBER: &str = "entry_number";
const EXPIRED_TOTAL: &str = "expired_total";

/// Kind and id; version and JSON.
pub(super) const DOCUMENTS: TableDefinition<(&str, &str), (u64, &str)> = TableDefinition::new("documents");
/// Time of booking and a number; JSON of an `Entry`.
pub(super) const ENTRIES: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("entries");
/// Day, dimension, id and model; cost, requests, prompt tokens and completion tokens.
pub(super) const ROLLUPS: TableDefinition<RollupName, RollupSums> = TableDefinition::new("rollups");
type RollupName = (&'static str, &'static str, &'static str, &'static str);
type RollupSums = (i64, u64, u64, u64);
const ACCOUNTS: TableDefinition<&str, &[u8]> = TableDefinition::new("accounts");
const EXPIRED: TableDefinition<&str, &[u8]> = TableDefinition::new("expired_leases");
const WINDOWS: TableDefinition<&str, &[u8]> = TableDefinition::new("rate_windows");
/// The last number applied of each node.
const NODES: TableDefinition<&str, u64> = TableDefinition::new("nodes");
/// Open leases of other processes than the one that has the file: they may live longer than it.
const OPEN: TableDefinition<&str, &[u8]> = TableDefinition::new("open_leases");
/// The epoch after the one in which the file was left: earlier programs take the leases up in that one alone.
const OPEN_FOR: &str = "open_leases_for_epoch";

/// What a failure of the file means for the caller.
pub(super) fn failed(error: impl Into<redb::Error>) -> StoreError {
    StoreError::Failed(error.into().to_string())
}

/// Makes all tables, so that reading need not ask whether one is there, and begins a new epoch, which it gives.
///
/// # Errors
/// When the file cannot be written; `Ok(Err(version))` when it is of another schema version.
pub(super) fn prepare(database: &Database) -> Result<Result<u64, u64>, redb::Error> {
    let transaction = database.begin_write()?;
    let epoch;
    {
        let mut meta = transaction.open_table(META)?;
        let version = meta.get(SCHEMA)?.map(|version| version.value());
        match version {
            Some(version) if version != SCHEMA_VERSION => return Ok(Err(version)),
            Some(_) => {}
            None => {
                meta.insert(SCHEMA, SCHEMA_VERSION)?;
            }
        }
        epoch = next(&mut meta, EPOCH, 1)?;
        transaction.open_table(DOCUMENTS)?;
        transaction.open_table(ENTRIES)?;
        transaction.open_table(ROLLUPS)?;
        transaction.open_table(ACCOUNTS)?;
        transaction.open_table(EXPIRED)?;
        transaction.open_table(WINDOWS)?;
        transaction.open_table(NODES)?;
        transaction.open_table(OPEN)?;
    }
    transaction.commit()?;
    Ok(Ok(epoch))
}

/// Leaves open leases to the process that opens the file next.
pub(super) fn leave<'a>(
    database: &Database,
    open: impl Iterator<Item = (&'a LeaseId, &'a Open)>,
) -> Result<(), StoreError> {
    let transaction = database.begin_write().map_err(failed)?;
    {
        let mut meta = transaction.open_table(META).map_err(failed)?;
        let epoch = meta.get(EPOCH).map_err(failed)?.map_or(0, |epoch| epoch.value());
        meta.insert(OPEN_FOR, epoch + 1).map_err(failed)?;
    }
    write_all(&transaction, OPEN, open.map(|(id, lease)| (id.as_str(), Some(lease))))?;
    transaction.commit().map_err(failed)
}

/// Counts a number of [`META`] on by `steps` and gives it.
pub(super) fn next(meta: &mut redb::Table<'_, &str, u64>, name: &str, steps: u64) -> Result<u64, redb::StorageError> {
    let number = meta.get(name)?.map_or(0, |number| number.value()) + steps;
    meta.insert(name, number)?;
    Ok(number)
}

/// Reads everything of the books.
pub(super) fn load(database: &Database) -> Result<Saved, StoreError> {
    let transaction = database.begin_read().map_err(failed)?;
    let nodes = transaction.open_table(NODES).map_err(failed)?;
    let meta = transaction.open_table(META).map_err(failed)?;
    Ok(Saved {
        accounts: read_all(&transaction.open_table(ACCOUNTS).map_err(failed)?, AccountId::new)?,
        expired: read_all(&transaction.open_table(EXPIRED).map_err(failed)?, LeaseId::new)?,
        windows: read_all(&transaction.open_table(WINDOWS).map_err(failed)?, AccountId::new)?,
        nodes: nodes
            .iter()
            .map_err(failed)?
            .map(|item| item.map(|(node, last)| (NodeId::new(node.value()), last.value())).map_err(failed))
            .collect::<Result<_, _>>()?,
        expired_total: meta.get(EXPIRED_TOTAL).map_err(failed)?.map_or(0, |total| total.value()),
        open: read_all(&transaction.open_table(OPEN).map_err(failed)?, LeaseId::new)?,
    })
}

fn read_one<Id, T: DeserializeOwned>(key: &str, json: &[u8], id: impl Fn(String) -> Id) -> Result<(Id, T), StoreError> {
    let value = serde_json::from_slice(json)
        .map_err(|error| StoreError::Failed(format!("what is kept of `{key}` cannot be read: {error}")))?;
    Ok((id(key.to_owned()), value))
}

fn read_all<Id, T: DeserializeOwned>(
    table: &redb::ReadOnlyTable<&'static str, &'static [u8]>,
    id: impl Fn(String) -> Id,
) -> Result<Vec<(Id, T)>, StoreError> {
    let read = |item: Result<(redb::AccessGuard<'_, &str>, redb::AccessGuard<'_, &[u8]>), redb::StorageError>| {
        let (key, value) = item.map_err(failed)?;
        read_one(key.value(), value.value(), &id)
    };
    table.iter().map_err(failed)?.map(read).collect()
}

/// Writes what changed in the books.
pub(super) fn save(transaction: &WriteTransaction, changes: &Changes) -> Result<(), StoreError> {
    write_all(transaction, ACCOUNTS, changes.accounts.iter().map(|(id, value)| (id.as_str(), value.as_ref())))?;
    write_all(transaction, EXPIRED, changes.expired.iter().map(|(id, value)| (id.as_str(), value.as_ref())))?;
    write_all(transaction, WINDOWS, changes.windows.iter().map(|(id, value)| (id.as_str(), value.as_ref())))?;
    write_all(transaction, OPEN, changes.open.iter().map(|(id, value)| (id.as_str(), value.as_ref())))?;
    let mut nodes = transaction.open_table(NODES).map_err(failed)?;
    for (node, last) in &changes.nodes {
        nodes.insert(node.as_str(), last).map_err(failed)?;
    }
    let mut meta = transaction.open_table(META).map_err(failed)?;
    meta.insert(EXPIRED_TOTAL, changes.expired_total).map_err(failed)?;
    let count = u64::try_from(changes.entries.len()).unwrap_or(u64::MAX);
    let mut number = next(&mut meta, ENTRY_NUMBER, count).map_err(failed)? - count;
    let mut entries = transaction.open_table(ENTRIES).map_err(failed)?;
    for entry in &changes.entries {
        number += 1;
        entries.insert((entry.at_ms, number), entry.to_json().as_slice()).map_err(failed)?;
    }
    let mut rollups = transaction.open_table(ROLLUPS).map_err(failed)?;
    for ((day, of), more) in tally(&changes.entries) {
        let key = (day.as_str(), of.dimension.as_str(), of.id.as_str(), of.model.as_str());
        let sums = rollups.get(key).map_err(failed)?.map_or(Sums::default(), |sums| sums_of(sums.value())).plus(more);
        let value = (sums.cost_nano_usd, sums.requests, sums.prompt_tokens, sums.completion_tokens);
        rollups.insert(key, value).map_err(failed)?;
    }
    Ok(())
}

/// A value of [`ROLLUPS`].
pub(super) const fn sums_of(value: RollupSums) -> Sums {
    let (cost_nano_usd, requests, prompt_tokens, completion_tokens) = value;
    Sums { cost_nano_usd, requests, prompt_tokens, completion_tokens }
}

fn write_all<'a, T: Serialize + 'a>(
    transaction: &WriteTransaction,
    definition: TableDefinition<&'static str, &'static [u8]>,
    items: impl Iterator<Item = (&'a str, Option<&'a T>)>,
) -> Result<(), StoreError> {
    let mut table = transaction.open_table(definition).map_err(failed)?;
    for (id, value) in items {
        match value {
            Some(value) => table.insert(id, json(value)?.as_slice()).map_err(failed)?,
            None => table.remove(id).map_err(failed)?,
        };
    }
    Ok(())
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| StoreError::Failed(error.to_string()))
}

/// Deletes entries booked before, at most `limit`; whether there may be more.
pub(super) fn forget_entries(transaction: &WriteTransaction, before_ms: u64, limit: usize) -> Result<bool, StoreError> {
    let mut entries = transaction.open_table(ENTRIES).map_err(failed)?;
    let old: Vec<(u64, u64)> = entries
        .range(..(before_ms, 0))
        .map_err(failed)?
        .take(limit)
        .map(|item| item.map(|(key, _)| key.value()).map_err(failed))
        .collect::<Result<_, _>>()?;
    for key in &old {
        entries.remove(key).map_err(failed)?;
    }
    Ok(old.len() == limit)
}

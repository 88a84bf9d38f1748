//! `Directory` on Redis: a hash and an ordered index of ids per kind, and a stream that says what changed.

use std::sync::Arc;

use async_trait::async_trait;

use super::connection::Repeat;
use super::{RedisStore, answers};
use crate::store::{Change, Changes, CommitError, Directory, Document, Expect, Kind, StoreError};

/// Changes in one answer. A reader that lags further behind asks again.
const CHANGES_AT_ONCE: usize = 1_000;

#[async_trait]
impl Directory for RedisStore {
    async fn get(&self, kind: Kind, id: &str) -> Result<Option<Document>, StoreError> {
        let mut command = redis::cmd("HGET");
        command.arg(self.connection.keys.documents(kind)).arg(id);
        let found: Option<String> = self.connection.query(command).await?;
        found.map(|text| document(id, &text)).transpose()
    }

    async fn list(&self, kind: Kind, after: Option<&str>, limit: usize) -> Result<Vec<Document>, StoreError> {
        let after = after.map_or_else(|| "-".to_owned(), |id| format!("({id}"));
        let answer = self
            .connection
            .call(Repeat::Yes, "list", |command| {
                command.arg(kind.as_str()).arg(&after).arg(limit);
            })
            .await?;
        let (pairs, rest) = answer.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(answers::unexpected());
        }
        pairs.iter().map(|[id, text]| document(answers::text(Some(id))?, answers::text(Some(text))?)).collect()
    }

    async fn commit(&self, changes: &[Change]) -> Result<(), CommitError> {
        let answer = self
            .connection
            .call(Repeat::No, "commit", |command| {
                for change in changes {
                    command.arg(change.kind.as_str()).arg(&change.id);
                    match change.expect {
                        Expect::Anything => command.arg("any"),
                        Expect::Nothing => command.arg("none"),
                        Expect::Version(version) => command.arg(version),
                    };
                    command.arg(if change.json.is_some() { "set" } else { "delete" });
                    command.arg(change.json.as_deref().unwrap_or_default());
                }
            })
            .await?;
        match answer.first() {
            None => Ok(()),
            index => {
                let index = usize::try_from(answers::number(index)?).map_err(|_| answers::unexpected())?;
                Err(CommitError::Conflict(index))
            }
        }
    }

    async fn changes(&self, cursor: Option<&str>) -> Result<Changes, StoreError> {
        // A cursor of another store is one whose entry is missing here.
        let cursor = match cursor {
            Some(cursor) if is_stream_id(cursor) => cursor,
            Some(_) => "0-1",
            None => "",
        };
        let answer = self
            .connection
            .call(Repeat::Yes, "changes", |command| {
                command.arg(cursor).arg(CHANGES_AT_ONCE);
            })
            .await?;
        let (pairs, _) = answer.get(2..).unwrap_or_default().as_chunks::<2>();
        let mut touched = Vec::with_capacity(pairs.len());
        for [kind, id] in pairs {
            let kind = answers::text(Some(kind))?;
            // One that a newer version of this program knows is nothing we could have read.
            if let Some(kind) = Kind::ALL.into_iter().find(|known| known.as_str() == kind) {
                touched.push((kind, answers::text(Some(id))?.to_owned()));
            }
        }
        Ok(Changes {
            cursor: answers::text(answer.first())?.to_owned(),
            touched,
            lost: answers::text(answer.get(1))? == "1",
        })
    }
}

/// `<version> <json>`.
fn document(id: &str, text: &str) -> Result<Document, StoreError> {
    let (version, json) = text.split_once(' ').ok_or_else(answers::unexpected)?;
    Ok(Document {
        id: id.to_owned(),
        version: version.parse().map_err(|_| answers::unexpected())?,
        json: Arc::from(json),
    })
}

/// `<milliseconds>-<number>`.
pub(super) fn is_stream_id(text: &str) -> bool {
    text.split_once('-').is_some_and(|(at, number)| at.parse::<u64>().is_ok() && number.parse::<u64>().is_ok())
}

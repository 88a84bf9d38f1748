//! One line of the spend log: what was booked, on whose account, and why. The sum of all entries is what was spent.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::types::json::{self, Object};

/// What an entry stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// A call that ended.
    Request,
    /// A lease whose owner was not heard of: charged in full.
    Expired,
    /// The owner was heard of after all: takes back what was charged too much. Its cost is negative.
    Corrected,
    /// `reset_spend`: no money was spent; the cost is zero and only the account changed.
    Reset,
}

impl EntryKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Expired => "expired",
            Self::Corrected => "corrected",
            Self::Reset => "reset",
        }
    }
}

/// An entry as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When it was booked, Unix milliseconds by the store's clock.
    pub at_ms: u64,
    pub kind: EntryKind,
    pub cost_nano_usd: i64,
    pub row: Arc<Row>,
}

impl Entry {
    /// Its JSON, as `serde` writes it, for less.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let Self { at_ms, kind, cost_nano_usd, row } = self;
        let mut out = Vec::with_capacity(ROW_BYTES);
        let mut object = Object::begin(&mut out);
        object.number("at_ms", *at_ms);
        object.word("kind", kind.as_str());
        object.number("cost_nano_usd", *cost_nano_usd);
        row.write_json(object.field("row"));
        object.end();
        out
    }
}

/// Room for the JSON of a usual row, and a little around it.
pub const ROW_BYTES: usize = 768;

/// What is known of a call. A field that does not apply is left out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Row {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub request_id: String,
    /// From 0; failed attempts before it cost nothing or have entries of their own.
    #[serde(skip_serializing_if = "is_zero")]
    pub attempt: u64,
    /// When the request arrived, Unix milliseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub started_at_ms: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub duration_ms: u64,
    /// `key_id`, `master`, or empty for a lease that serves several requests.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_alias: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub team_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_user: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub operation: String,
    /// What the client called the model.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub model: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The status the client got.
    #[serde(skip_serializing_if = "is_zero")]
    pub status: u64,
    /// Everything the model read, cached or not.
    #[serde(skip_serializing_if = "is_zero")]
    pub prompt_tokens: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub completion_tokens: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub cache_read_tokens: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub cache_write_tokens: u64,
    /// `exact`, `partial`, `unknown`: how far the cost rests on usage that Bedrock stated.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub certainty: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Sums of a day (UTC, of `Entry::at_ms`) for one combination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollup {
    /// `2026-11-22`.
    pub day: String,
    pub of: RollupKey,
    pub cost_nano_usd: i64,
    pub requests: u64,
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
}

/// By what is summed. Every entry counts once on each dimension that applies to it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RollupKey {
    pub dimension: Dimension,
    /// The key's id, the team's id …
    pub id: String,
    pub model: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    Key,
    Team,
    User,
    Customer,
    Tag,
}

impl Dimension {
    pub const ALL: [Self; 5] = [Self::Key, Self::Team, Self::User, Self::Customer, Self::Tag];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Team => "team",
            Self::User => "user",
            Self::Customer => "customer",
            Self::Tag => "tag",
        }
    }
}

impl Row {
    /// Appends its JSON, as `serde` writes it, for less.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        let Self {
            request_id,
            attempt,
            started_at_ms,
            duration_ms,
            key_id,
            key_alias,
            team_id,
            user_id,
            end_user,
            tags,
            operation,
            model,
            model_id,
            deployment,
            region,
            status,
            prompt_tokens,
            completion_tokens,
            cache_read_tokens,
            cache_write_tokens,
            certainty,
        } = self;
        let mut object = Object::begin(out);
        object.known_text("request_id", request_id);
        object.known_number("attempt", *attempt);
        object.known_number("started_at_ms", *started_at_ms);
        object.known_number("duration_ms", *duration_ms);
        object.known_text("key_id", key_id);
        object.optional_text("key_alias", key_alias.as_deref());
        object.optional_text("team_id", team_id.as_deref());
        object.optional_text("user_id", user_id.as_deref());
        object.optional_text("end_user", end_user.as_deref());
        if !tags.is_empty() {
            object.array("tags", tags, |out, tag| json::text(out, tag));
        }
        object.known_text("operation", operation);
        object.known_text("model", model);
        object.optional_text("model_id", model_id.as_deref());
        object.optional_text("deployment", deployment.as_deref());
        object.optional_text("region", region.as_deref());
        object.known_number("status", *status);
        object.known_number("prompt_tokens", *prompt_tokens);
        object.known_number("completion_tokens", *completion_tokens);
        object.known_number("cache_read_tokens", *cache_read_tokens);
        object.known_number("cache_write_tokens", *cache_write_tokens);
        object.known_text("certainty", certainty);
        object.end();
    }

    /// The combinations this row counts on. The first is always that of the key: its sum is the sum of everything.
    #[must_use]
    pub fn rollups(&self) -> Vec<RollupKey> {
        let one = |dimension, id: &str| RollupKey { dimension, id: id.to_owned(), model: self.model.clone() };
        let mut keys = vec![one(Dimension::Key, &self.key_id)];
        keys.extend(self.team_id.as_deref().map(|id| one(Dimension::Team, id)));
        keys.extend(self.user_id.as_deref().map(|id| one(Dimension::User, id)));
        keys.extend(self.end_user.as_deref().map(|id| one(Dimension::Customer, id)));
        keys.extend(self.tags.iter().map(|tag| one(Dimension::Tag, tag)));
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row in which everything is known.
    fn full() -> Row {
        Row {
            request_id: "r \"1\"".to_owned(),
            attempt: 1,
            started_at_ms: 2,
            duration_ms: 3,
            key_id: "k".to_owned(),
            key_alias: Some("alias".to_owned()),
            team_id: Some("team".to_owned()),
            user_id: Some("user".to_owned()),
            end_user: Some(String::new()),
            tags: vec!["a".to_owned(), "\n".to_owned()],
            operation: "Converse".to_owned(),
            model: "m".to_owned(),
            model_id: Some("id".to_owned()),
            deployment: Some("d".to_owned()),
            region: Some("us-west-2".to_owned()),
            status: 200,
            prompt_tokens: 4,
            completion_tokens: 5,
            cache_read_tokens: 6,
            cache_write_tokens: 7,
            certainty: "exact".to_owned(),
        }
    }

    #[test]
    fn an_entry_is_written_as_serde_writes_it() {
        for row in [full(), Row::default()] {
            for kind in [EntryKind::Request, EntryKind::Expired, EntryKind::Corrected, EntryKind::Reset] {
                let entry = Entry { at_ms: 17, kind, cost_nano_usd: -5, row: row.clone().into() };
                assert_eq!(entry.to_json(), serde_json::to_vec(&entry).unwrap());
            }
        }
    }
}

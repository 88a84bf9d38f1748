//! What is known of a key, team, user, customer, tag or budget, as the store keeps it in JSON.
//!
//! One shape serves all kinds, because they differ in which fields they allow (`admin` says which), not in what a field
//! means. Secrets are never here: [`SecretRecord`] is found by the digest of one, and
//! [`AccessKeyRecord`] has one sealed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::budget::limit::LimitSet;

/// A key, team, user, customer, tag or budget.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// `key_id`, `team_id`, `user_id`, the customer's id, the tag, `budget_id`. Stays the same when a key's secret changes,
    /// and so do its accounts.
    pub id: String,
    /// `key_alias`, `team_alias`, `user_alias`, `alias`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// The end of the secret, to recognise it by: `sk-...abcd`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_name: Option<String>,
    /// Digest of the current secret: LiteLLM's `token`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    pub blocked: bool,
    /// Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<u64>,
    /// Names and globs; empty allows all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// What the client may call a model, and the name that stands for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub aliases: BTreeMap<String, String>,
    #[serde(flatten)]
    pub limits: LimitSet,
    /// A budget record whose limits hold where this record sets none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub team_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
    /// Operations (`Converse`, `Get*`); empty allows what a key may call by default.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_operations: Vec<String>,
    /// Regions of deployments; empty allows all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_regions: Vec<String>,
    /// Paths and globs; empty allows all that a key may call.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_routes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_email: Option<String>,
    pub created_at_ms: u64,
    pub updated_at_ms: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub rotation_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_rotation_at_ms: Option<u64>,
    /// Digests of replaced secrets that may still be valid, and until when, in Unix milliseconds.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub replaced_tokens: BTreeMap<String, u64>,
    /// The id of the key pair, if the key has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<String>,
    /// Ids of replaced pairs that may still be valid, and until when, in Unix milliseconds.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub replaced_access_keys: BTreeMap<String, u64>,
}

/// What a secret proves, found by its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretRecord {
    pub key_id: String,
    /// The end of the grace period of a secret that was replaced, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<u64>,
}

/// What a signature with a key pair proves, found by the access key id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessKeyRecord {
    pub key_id: String,
    /// The secret access key as `access_key::Sealer` writes it.
    pub sealed_secret: String,
    /// The end of the grace period of a pair that was replaced, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

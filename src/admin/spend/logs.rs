//! `/spend/logs`: entries of the spend log, oldest first, page by page.
//!
//! An entry is what was booked, so a page also shows expired leases, their corrections (negative) and resets;
//! `metadata.kind` tells them apart. The sum of all `spend` is what was spent.

use std::sync::Arc;

use jiff::Timestamp;

use super::range::Days;
use super::table::{self, Cell, Form, Line};
use super::{Asked, Refusal, Spend};
use crate::admin::request::Answer;
use crate::budget::entry::{Entry, EntryKind};
use crate::keys::record::SecretRecord;
use crate::keys::secret_key;
use crate::store::{EntryQuery, Kind};

/// Without dates, the last day.
const RECENT_MS: u64 = 24 * 60 * 60 * 1000;
const PAGE_SIZE: usize = 100;
const PAGE_SIZE_MAX: usize = 1000;

impl Spend {
    pub(super) async fn logs(&self, asked: &Asked, form: Form, now_ms: u64) -> Result<Answer, Refusal> {
        // To the end of the millisecond that has begun: what was booked just now is shown.
        let until_now = (now_ms.saturating_sub(RECENT_MS), now_ms.saturating_add(1));
        let (from_ms, to_ms) = Days::asked(asked, now_ms)?.map_or(Ok(until_now), Days::millis)?;
        let key_id = match asked.get("api_key") {
            Some(named) => Some(self.key_id(named).await?),
            None => None,
        };
        let query = EntryQuery {
            from_ms,
            to_ms,
            key_id,
            team_id: asked.owned("team_id"),
            user_id: asked.owned("user_id"),
            end_user: asked.owned("end_user"),
            model: asked.owned("model"),
            tag: asked.owned("tag"),
            request_id: asked.owned("request_id"),
            after: asked.owned("page_token"),
            limit: asked.count("page_size", PAGE_SIZE, PAGE_SIZE_MAX)?,
        };
        let page = self.ledger.entries(&query).await?;
        let lines: Vec<Line> = page.entries.iter().map(line).collect();
        let mut answer = match form {
            Form::Json => {
                let next = page.next.as_deref().map_or(Cell::Empty, Cell::text);
                table::json(&lines, &vec![("next_page_token", next)])
            }
            Form::Csv => {
                let columns: Vec<&str> = line(&nothing()).into_iter().map(|(name, _)| name).collect();
                table::csv("spend-logs", &columns, &lines)?
            }
        };
        // CSV has no place for it in the body.
        answer.headers.extend(page.next.map(|next| ("x-dheera-ai-next-page-token", next)));
        Ok(answer)
    }

    /// The id of a key, which may be named by its secret, by the digest of that, or by the id itself.
    async fn key_id(&self, named: &str) -> Result<String, Refusal> {
        let digest = if named.starts_with(secret_key::PREFIX) {
            secret_key::digest(named)
        } else if secret_key::is_digest(named) {
            named.to_owned()
        } else {
            return Ok(named.to_owned());
        };
        let Some(document) = self.directory.get(Kind::Secret, &digest).await? else {
            let message = "There is no such key. The spend of a deleted key is found by its key_id.";
            return Err(Refusal::NotFound(message.to_owned()));
        };
        let record: SecretRecord = serde_json::from_str(&document.json)
            .map_err(|error| Refusal::Unwritable(format!("secret {digest}: {error}")))?;
        Ok(record.key_id)
    }
}

/// An entry, as LiteLLM names its members.
fn line(entry: &Entry) -> Line {
    let row = &entry.row;
    let started_ms = if row.started_at_ms == 0 { entry.at_ms } else { row.started_at_ms };
    let ended_ms = if row.started_at_ms == 0 { entry.at_ms } else { started_ms.saturating_add(row.duration_ms) };
    vec![
        ("request_id", Cell::text(&row.request_id)),
        ("call_type", Cell::text(&row.operation)),
        ("api_key", Cell::text(&row.key_id)),
        ("key_alias", Cell::maybe(row.key_alias.as_deref())),
        ("spend", Cell::Amount(i128::from(entry.cost_nano_usd))),
        ("total_tokens", Cell::Count(row.prompt_tokens.saturating_add(row.completion_tokens))),
        ("prompt_tokens", Cell::Count(row.prompt_tokens)),
        ("completion_tokens", Cell::Count(row.completion_tokens)),
        ("startTime", moment(started_ms)),
        ("endTime", moment(ended_ms)),
        ("model", Cell::text(&row.model)),
        ("model_group", Cell::text(&row.model)),
        ("model_id", Cell::maybe(row.model_id.as_deref())),
        ("user", Cell::maybe(row.user_id.as_deref())),
        ("team_id", Cell::maybe(row.team_id.as_deref())),
        ("end_user", Cell::maybe(row.end_user.as_deref())),
        ("request_tags", Cell::List(row.tags.clone())),
        ("status", status(row.status)),
        ("metadata.kind", Cell::text(kind(entry.kind))),
        ("metadata.certainty", Cell::text(&row.certainty)),
        ("metadata.booked_at", moment(entry.at_ms)),
        ("metadata.http_status", if row.status == 0 { Cell::Empty } else { Cell::Count(row.status) }),
        ("metadata.attempt", Cell::Count(row.attempt)),
        ("metadata.deployment", Cell::maybe(row.deployment.as_deref())),
        ("metadata.region", Cell::maybe(row.region.as_deref())),
        ("metadata.cache_read_tokens", Cell::Count(row.cache_read_tokens)),
        ("metadata.cache_write_tokens", Cell::Count(row.cache_write_tokens)),
    ]
}

fn nothing() -> Entry {
    Entry { at_ms: 0, kind: EntryKind::Request, cost_nano_usd: 0, row: Arc::default() }
}

fn moment(ms: u64) -> Cell {
    let moment = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    moment.map_or(Cell::Empty, |moment| Cell::Text(format!("{moment:.3}")))
}

fn status(http: u64) -> Cell {
    match http {
        0 => Cell::Empty,
        100..=399 => Cell::text("success"),
        _ => Cell::text("failure"),
    }
}

const fn kind(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Request => "request",
        EntryKind::Expired => "expired",
        EntryKind::Corrected => "corrected",
        EntryKind::Reset => "reset",
    }
}

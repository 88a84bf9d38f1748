//! `/spend/*` and `/global/spend*`: what was spent, line by line or summed, as JSON or as CSV.
//!
//! Everything here is read from the store's entries and daily sums and is only as fresh as they are: a call shows once
//! its replica's commands have reached the store, usually within a second. Days are days of UTC. Paths and names of
//! fields are LiteLLM's where it has them; `api_key` is the key's id here, never a digest of its secret.

mod logs;
mod page;
mod range;
mod report;
mod table;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::admin::request::{Answer, ApiRequest, parameters};
use crate::aws::error_body::{ErrorResponse, ErrorType};
use crate::store::{Directory, LedgerStore, StoreError};

use page::Page;
use table::Form;

/// A value in a query is no longer.
const VALUE_BYTES_MAX: usize = 512;

/// Answers questions about spend.
#[derive(Debug, Clone)]
pub struct Spend {
    pub ledger: Arc<dyn LedgerStore>,
    /// Where the names of keys, teams, users and customers are.
    pub directory: Arc<dyn Directory>,
}

/// Why a question has no answer.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    /// The client's mistake, and what to do about it.
    Invalid(String),
    NotFound(String),
    Store(StoreError),
    /// The answer cannot be written; a fault of ours.
    Unwritable(String),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Spend {
    /// Answers a request of a caller who may see all spend, or `None` when the path is not one of these.
    pub async fn answer(&self, request: &ApiRequest) -> Option<Answer> {
        self.answer_at(request, self.now_ms()).await
    }

    async fn answer_at(&self, request: &ApiRequest, now_ms: u64) -> Option<Answer> {
        let page = Page::of(&request.path)?;
        if !matches!(request.method.as_str(), "GET" | "HEAD") {
            let error = ErrorResponse::new(ErrorType::Validation, "This path answers GET only.").status(405);
            let mut answer = Answer::error(&error);
            answer.headers.push(("allow", "GET, HEAD".to_owned()));
            return Some(answer);
        }
        Some(self.show(page, request, now_ms).await.unwrap_or_else(Refusal::answer))
    }

    async fn show(&self, page: Page, request: &ApiRequest, now_ms: u64) -> Result<Answer, Refusal> {
        let form = Form::of(request.accept.as_deref());
        let asked = Asked::read(&request.query, page.parameters())?;
        match page {
            Page::Logs => self.logs(&asked, form, now_ms).await,
            Page::Total => self.total(&asked, form, now_ms).await,
            Page::Report => self.report(report::group_by(&asked)?, &asked, form, now_ms).await,
            Page::By(group) => self.report(group, &asked, form, now_ms).await,
        }
    }

    /// The store's clock, which dates the entries.
    fn now_ms(&self) -> u64 {
        let own = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis();
        u64::try_from(own).unwrap_or(u64::MAX).saturating_add_signed(self.ledger.clock_offset_ms())
    }
}

/// The parameters of a query, each known, present once and not empty.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked(Vec<(String, String)>);

impl Asked {
    fn read(query: &str, known: &[&str]) -> Result<Self, Refusal> {
        let mut asked: Vec<(String, String)> = Vec::new();
        for (name, value) in parameters(query).map_err(Refusal::Invalid)? {
            let shown: String = name.chars().take(64).collect();
            let wrong = if !known.contains(&name.as_str()) {
                Some(format!("Unknown parameter `{shown}`. This path knows {}.", known.join(", ")))
            } else if asked.iter().any(|(other, _)| *other == name) {
                Some(format!("`{shown}` is given twice. Give it once."))
            } else if value.is_empty() {
                // Left out, it would mean "all": not what a script with an unset variable wants to be told.
                Some(format!("`{shown}` is empty. Leave it out, or give it a value."))
            } else if value.len() > VALUE_BYTES_MAX {
                Some(format!("`{shown}` is longer than {VALUE_BYTES_MAX} bytes."))
            } else {
                None
            };
            if let Some(message) = wrong {
                return Err(Refusal::Invalid(message));
            }
            asked.push((name, value));
        }
        Ok(Self(asked))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    fn owned(&self, name: &str) -> Option<String> {
        self.get(name).map(str::to_owned)
    }

    /// A count between 1 and `max`.
    fn count(&self, name: &str, default: usize, max: usize) -> Result<usize, Refusal> {
        let Some(text) = self.get(name) else { return Ok(default) };
        match text.parse() {
            Ok(count) if (1..=max).contains(&count) => Ok(count),
            _ => Err(Refusal::Invalid(format!("`{name}` must be a number from 1 to {max}."))),
        }
    }
}

impl Refusal {
    fn answer(self) -> Answer {
        let response = match self {
            Self::Invalid(message) => ErrorResponse::new(ErrorType::Validation, message),
            Self::NotFound(message) => ErrorResponse::new(ErrorType::ResourceNotFound, message),
            Self::Store(StoreError::Unavailable(why)) => {
                tracing::warn!("spend cannot be shown: {why}");
                let message = "The store that keeps the spend log cannot be reached now. Try again.";
                ErrorResponse::new(ErrorType::ServiceUnavailable, message).retry_after(Duration::from_secs(1))
            }
            Self::Store(StoreError::Failed(why)) | Self::Unwritable(why) => {
                tracing::error!("spend cannot be shown: {why}");
                ErrorResponse::new(ErrorType::InternalServer, "Spend cannot be shown; see the log of the proxy.")
            }
        };
        Answer::error(&response)
    }
}

#[cfg(test)]
mod tests;

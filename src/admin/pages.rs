//! The proxy's own pages under one roof: which paths are pages, and who may see them.
//!
//! `status` is for everyone it says; `/spend/*` needs the master key; `reload` and `api` decide by themselves, because a
//! key may look at itself. Without a master key there are no keys, and the pages about them say how to have some.

use std::sync::Arc;

use bytes::Bytes;

use super::api::{self, Management};
use super::reload::{self, Reloads};
use super::request::{Answer, ApiRequest};
use super::spend::Spend;
use super::status::Status;
use crate::aws::error_body::{ErrorResponse, ErrorType};
use crate::keys::authenticate::{Caller, Identity};

const GLOBAL_SPEND: &str = "/global/spend";

/// All pages.
pub struct Pages {
    pub status: Status,
    pub reloads: Arc<dyn Reloads>,
    /// `None` without a master key.
    pub stored: Option<Stored>,
}

/// The pages about keys, budgets and spend.
pub struct Stored {
    pub management: Management,
    pub spend: Spend,
}

/// A request with its headers, as the proxy got it.
#[derive(Debug)]
pub struct PageRequest {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

impl Pages {
    /// Whether a path, without its query, is a page.
    #[must_use]
    pub fn owns(&self, path: &str) -> bool {
        Status::owns(path) || api::owns(path) || is_spend(path) || reload::owns(path)
    }

    /// Answers a page. `now_ms` is the store's time in Unix milliseconds.
    pub async fn answer(&self, request: PageRequest, now_ms: u64) -> Answer {
        let authenticator = &self.status.authenticator;
        let presented = authenticator.present(|name| request.headers.get(name).map(http::HeaderValue::as_bytes), "");
        if Status::owns(&request.path) {
            let answer = self.status.answer(&request.method, &request.path, presented, now_ms).await;
            return answer.unwrap_or_else(not_found);
        }
        let caller = match presented {
            Ok(presented) => authenticator.prove(presented, now_ms).await.and_then(Identity::without_signature),
            Err(denied) => Err(denied),
        };
        if reload::owns(&request.path) {
            return reload::answer(&*self.reloads, &request.method, caller).await;
        }
        let Some(stored) = &self.stored else {
            return Answer::error(&ErrorResponse::new(ErrorType::AccessDenied, NO_MASTER_KEY));
        };
        let accept = request.headers.get("accept").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let PageRequest { method, path, query, body, .. } = request;
        let request = ApiRequest { method, path, query, accept, body };
        if !is_spend(&request.path) {
            return stored.management.answer(&request, caller).await.unwrap_or_else(not_found);
        }
        match caller {
            Ok(Caller::Master) => stored.spend.answer(&request).await.unwrap_or_else(not_found),
            Ok(_) => Answer::error(&ErrorResponse::new(ErrorType::AccessDenied, MASTER_ONLY)),
            Err(denied) => Answer::error(&ErrorResponse::new(denied.error_type(), denied.message())),
        }
    }
}

fn is_spend(path: &str) -> bool {
    path.starts_with("/spend/")
        || path == GLOBAL_SPEND
        || path.strip_prefix(GLOBAL_SPEND).is_some_and(|rest| rest.starts_with('/'))
}

fn not_found() -> Answer {
    Answer::error(&ErrorResponse::new(ErrorType::UnknownOperation, NO_PAGE))
}

const NO_PAGE: &str = "There is no such page. docs/keys.md lists the management API.";
const MASTER_ONLY: &str = "This page needs the master key. A virtual key may read /key/info about itself.";
const NO_MASTER_KEY: &str = "Keys and budgets need a master key. Start the proxy with DHEERA_AI_MASTER_KEY set, or with \
                             general_settings.master_key, and send that key.";

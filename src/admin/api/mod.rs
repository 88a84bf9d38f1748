//! `/key/*`, `/team/*`, `/user/*`, `/customer/*`, `/tag/*` and `/budget/*`: making, changing, showing and deleting what
//! calls are allowed and billed by. Paths, fields and answers are LiteLLM's where it has them.
//!
//! The master key may do everything here, a virtual key may see itself. A change is one commit of the directory, made
//! anew when somebody else was faster. Spend itself is not kept here: `ledger` has the accounts.

mod documents;
mod fields;
mod groups;
mod json;
mod key_list;
mod keys;
mod pair;
mod patch;
mod present;
mod problem;
mod read;
mod rotate;
mod show;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::tz::TimeZone;

use crate::admin::request::{Answer, ApiRequest};
use crate::aws::error_body::ErrorResponse;
use crate::aws::route::decode_segment;
use crate::budget::command::{AccountId, Balance, Op};
use crate::keys::authenticate::{Authenticator, Caller, Denied};
use crate::keys::register::Register;
use crate::store::{Directory, StoreError};

use groups::{GroupAction, Noun};
use problem::Problem;

/// No record is larger than a fraction of this.
pub const BODY_BYTES_MAX: usize = 256 * 1024;

/// What the management API needs of the ledger.
#[async_trait]
pub trait Accounts: Send + Sync {
    /// The time of the store's clock in Unix milliseconds.
    fn now_ms(&self) -> u64;

    /// Balances in the order asked for; an unknown account has nothing.
    async fn balances(&self, accounts: &[AccountId]) -> Result<Vec<Balance>, StoreError>;

    /// Done when the store has carried it out.
    async fn submit(&self, op: Op) -> Result<(), StoreError>;
}

/// Answers the management API.
pub struct Management {
    pub directory: Arc<dyn Directory>,
    pub register: Arc<Register>,
    pub accounts: Arc<dyn Accounts>,
    pub authenticator: Arc<Authenticator>,
    /// Where days, weeks and months begin.
    pub zone: TimeZone,
}

impl fmt::Debug for Management {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Management").field("register", &self.register).finish_non_exhaustive()
    }
}

/// What a path means.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Page {
    Key(KeyPage),
    Group(&'static Noun, GroupAction),
    /// Under one of our first segments, but nothing we have.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum KeyPage {
    Generate,
    Update,
    Delete,
    Info,
    Infos,
    List,
    Aliases,
    Block(bool),
    /// Of the key in the path, or in the body.
    Regenerate(Option<String>),
    ResetSpend(String),
    Health,
}

/// Whether a path belongs to the management API, whatever it answers there.
#[must_use]
pub fn owns(path: &str) -> bool {
    Page::of(path).is_some()
}

impl Page {
    fn of(path: &str) -> Option<Self> {
        let mut segments = path.strip_prefix('/')?.split('/');
        let first = segments.next()?;
        // Every request to Bedrock passes here too.
        if !matches!(first, "key" | "v2") && Noun::of(first).is_none() {
            return None;
        }
        let rest: Vec<_> = segments.collect();
        if (first, rest.as_slice()) == ("v2", ["key", "info"].as_slice()) {
            return Some(Self::Key(KeyPage::Infos));
        }
        if first == "key" {
            return Some(KeyPage::of(&rest).map_or(Self::Unknown, Self::Key));
        }
        let noun = Noun::of(first)?;
        let action = match rest.as_slice() {
            [word] => noun.action(word),
            _ => None,
        };
        Some(action.map_or(Self::Unknown, |action| Self::Group(noun, action)))
    }
}

impl KeyPage {
    fn of(rest: &[&str]) -> Option<Self> {
        Some(match rest {
            ["generate"] => Self::Generate,
            ["update"] => Self::Update,
            ["delete"] => Self::Delete,
            ["info"] => Self::Info,
            ["list"] => Self::List,
            ["aliases"] => Self::Aliases,
            ["block"] => Self::Block(true),
            ["unblock"] => Self::Block(false),
            ["regenerate"] => Self::Regenerate(None),
            ["health"] => Self::Health,
            [key, "regenerate"] => Self::Regenerate(Some(decode_segment(key)?.into_owned())),
            [key, "reset_spend"] => Self::ResetSpend(decode_segment(key)?.into_owned()),
            _ => return None,
        })
    }

    const fn reads(&self) -> bool {
        matches!(self, Self::Info | Self::List | Self::Aliases)
    }
}

impl Management {
    /// Answers a request of `caller`, or `None` when the path is not one of these.
    pub async fn answer(&self, request: &ApiRequest, caller: Result<Caller, Denied>) -> Option<Answer> {
        let page = Page::of(&request.path)?;
        let caller = match caller {
            Ok(caller) => caller,
            Err(denied) => return Some(Answer::error(&ErrorResponse::new(denied.error_type(), denied.message()))),
        };
        Some(self.act(page, request, &caller).await.unwrap_or_else(Problem::answer))
    }

    async fn act(&self, page: Page, request: &ApiRequest, caller: &Caller) -> Result<Answer, Problem> {
        if let Caller::Key(holder) = caller {
            return match page {
                Page::Key(KeyPage::Info) => {
                    check_method(request, true)?;
                    self.own_info(holder, &request.query).await
                }
                Page::Key(KeyPage::Health) => Ok(keys::health()),
                _ => Err(Problem::Forbidden(
                    "This needs the master key. A virtual key may read /v1/models and, about itself, /key/info."
                        .to_owned(),
                )),
            };
        }
        if request.body.len() > BODY_BYTES_MAX {
            return Err(Problem::TooLarge(format!("The body is longer than {BODY_BYTES_MAX} bytes. Send less.")));
        }
        match page {
            Page::Unknown => Err(Problem::NotFound(
                "The management API has no such path. There are /key/generate, info, update, delete, list, aliases, block, \
                 unblock, regenerate, health and /key/{key}/reset_spend; new, info, update, delete and list of /team, /user, \
                 /customer, /tag and /budget; block and unblock of /team, /user and /customer."
                    .to_owned(),
            )),
            Page::Key(page) => {
                check_method(request, page.reads())?;
                self.act_on_key(page, request).await
            }
            Page::Group(noun, action) => {
                if !(action == GroupAction::Info && request.method == "POST") {
                    check_method(request, action.reads())?;
                }
                self.act_on_group(noun, action, request).await
            }
        }
    }

    async fn act_on_key(&self, page: KeyPage, request: &ApiRequest) -> Result<Answer, Problem> {
        match page {
            KeyPage::Generate => self.generate(&request.body).await,
            KeyPage::Update => self.update_key(&request.body).await,
            KeyPage::Delete => self.delete_keys(&request.body).await,
            KeyPage::Info => self.key_info(&request.query).await,
            KeyPage::Infos => self.key_infos(&request.body).await,
            KeyPage::List => self.list_keys(&request.query).await,
            KeyPage::Aliases => self.key_aliases(&request.query).await,
            KeyPage::Block(blocked) => self.block_key(&request.body, blocked).await,
            KeyPage::Regenerate(key) => self.regenerate(key, &request.body).await,
            KeyPage::ResetSpend(key) => self.reset_spend(&key, &request.body).await,
            KeyPage::Health => Ok(keys::health()),
        }
    }
}

fn check_method(request: &ApiRequest, reads: bool) -> Result<(), Problem> {
    let (allowed, header) = if reads { (["GET", "HEAD"], "GET, HEAD") } else { (["POST", "POST"], "POST") };
    if allowed.contains(&request.method.as_str()) { Ok(()) } else { Err(Problem::Method(header)) }
}

#[cfg(test)]
mod tests;

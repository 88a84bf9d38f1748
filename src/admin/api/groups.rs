//! Teams, users, customers, tags and budgets: one implementation, because they differ in their fields and in how
//! LiteLLM names things, not in what happens to them.

use serde_json::value::RawValue;
use uuid::Uuid;

use super::documents::{ATTEMPTS, delete, harmless, write};
use super::json::{Members, Object, answer};
use super::key_list::{Query, page_of};
use super::keys::{KEYS_MAX, invalid, nothing_else, text};
use super::patch::{apply, check_names};
use super::present;
use super::problem::Problem;
use super::{Management, read};
use crate::admin::request::{Answer, ApiRequest};
use crate::keys::record::Record;
use crate::store::{Expect, Kind};

/// Records that are shown with one question to the books.
const CHUNK: usize = 200;
const PAGE_SIZE_MAX: usize = 1_000;

/// What a kind is called in paths and bodies.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Noun {
    kind: Kind,
    /// The first segment of its paths.
    paths: &'static [&'static str],
    /// The field with its id in a body; also in the query of `info` where LiteLLM has no other name.
    id: &'static str,
    query_id: &'static str,
    /// The field with a list of ids, and LiteLLM's name of the list in the body of `info`.
    ids: &'static str,
    info_ids: &'static str,
    /// Whether the proxy makes up an id that is not given.
    makes_ids: bool,
    /// Whether it can be blocked.
    blocks: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GroupAction {
    New,
    Info,
    Update,
    Delete,
    List,
    Block(bool),
}

static NOUNS: [Noun; 5] = [
    Noun {
        kind: Kind::Team,
        paths: &["team"],
        id: "team_id",
        query_id: "team_id",
        ids: "team_ids",
        info_ids: "team_ids",
        makes_ids: true,
        blocks: true,
    },
    Noun {
        kind: Kind::User,
        paths: &["user"],
        id: "user_id",
        query_id: "user_id",
        ids: "user_ids",
        info_ids: "user_ids",
        makes_ids: true,
        blocks: true,
    },
    Noun {
        kind: Kind::Customer,
        paths: &["customer", "end_user"],
        id: "user_id",
        query_id: "end_user_id",
        ids: "user_ids",
        info_ids: "user_ids",
        makes_ids: false,
        blocks: true,
    },
    Noun {
        kind: Kind::Tag,
        paths: &["tag"],
        id: "name",
        query_id: "name",
        ids: "names",
        info_ids: "names",
        makes_ids: false,
        blocks: false,
    },
    Noun {
        kind: Kind::Budget,
        paths: &["budget"],
        id: "budget_id",
        query_id: "budget_id",
        ids: "budget_ids",
        info_ids: "budgets",
        makes_ids: true,
        blocks: false,
    },
];

impl Noun {
    pub(super) fn of(segment: &str) -> Option<&'static Self> {
        NOUNS.iter().find(|noun| noun.paths.contains(&segment))
    }

    pub(super) fn action(&self, word: &str) -> Option<GroupAction> {
        Some(match word {
            "new" => GroupAction::New,
            "info" => GroupAction::Info,
            "update" => GroupAction::Update,
            "delete" => GroupAction::Delete,
            "list" => GroupAction::List,
            "block" if self.blocks => GroupAction::Block(true),
            "unblock" if self.blocks => GroupAction::Block(false),
            _ => return None,
        })
    }

    fn word(&self) -> &'static str {
        self.kind.as_str()
    }

    /// Takes ids out of a body: one under `id`, or several under one of `lists`.
    fn take_ids(&self, members: &mut Members, lists: &[&str]) -> Result<Vec<String>, Problem> {
        let mut ids = Vec::new();
        for field in [self.id, "id"] {
            if let Some(raw) = members.take(field) {
                ids.push(text(field, &raw)?);
            }
        }
        for field in lists {
            if let Some(raw) = members.take(field) {
                ids.extend(read::texts(&raw).map_err(|problem| invalid(field, &problem))?);
            }
        }
        nothing_else(members, self.ids)?;
        ids.sort();
        ids.dedup();
        if ids.is_empty() || ids.len() > KEYS_MAX {
            let (one, many) = (self.id, self.ids);
            let problem = format!("Name one {} in `{one}`, or 1 to {KEYS_MAX} in `{many}`.", self.word());
            return Err(Problem::Invalid(problem));
        }
        Ok(ids)
    }
}

impl GroupAction {
    pub(super) const fn reads(self) -> bool {
        matches!(self, Self::Info | Self::List)
    }
}

impl Management {
    pub(super) async fn act_on_group(
        &self,
        noun: &'static Noun,
        action: GroupAction,
        request: &ApiRequest,
    ) -> Result<Answer, Problem> {
        match action {
            GroupAction::New => self.new_group(noun, &request.body).await,
            GroupAction::Update => self.update_group(noun, &request.body).await,
            GroupAction::Delete => self.delete_groups(noun, &request.body).await,
            GroupAction::Block(blocked) => self.block_groups(noun, &request.body, blocked).await,
            GroupAction::List => self.list_groups(noun, &request.query).await,
            GroupAction::Info if request.method == "POST" => self.infos(noun, &request.body).await,
            GroupAction::Info => {
                let query = Query::read(&request.query, &[noun.query_id])?;
                let id = query.get(noun.query_id).ok_or_else(|| {
                    let (word, parameter) = (noun.paths.first().copied().unwrap_or_default(), noun.query_id);
                    Problem::Invalid(format!("Name it: GET /{word}/info?{parameter}=<id>."))
                })?;
                self.info(noun, id).await
            }
        }
    }

    async fn new_group(&self, noun: &Noun, body: &[u8]) -> Result<Answer, Problem> {
        let mut members = Members::read(body)?;
        check_names(noun.kind, &members, &[])?;
        let now_ms = self.accounts.now_ms();
        let id = match members.take(noun.id).filter(|raw| !read::is_null(raw)) {
            Some(raw) => new_id(noun, &raw)?,
            None if noun.makes_ids => Uuid::now_v7().to_string(),
            None => return Err(invalid(noun.id, "is missing: it names what the limits are for")),
        };
        let mut record = Record { id, created_at_ms: now_ms, updated_at_ms: now_ms, ..Record::default() };
        apply(noun.kind, &mut record, &members, self.moment(now_ms))?;
        self.check_references(&record).await?;
        if self.commit(&[write(noun.kind, &record, Expect::Nothing)?]).await? {
            return Ok(self.describe(noun, &record).await?.into_answer());
        }
        let (word, id) = (noun.word(), &record.id);
        Err(Problem::Exists(format!("The {word} `{id}` exists already. Change it with POST /{word}/update.")))
    }

    async fn update_group(&self, noun: &Noun, body: &[u8]) -> Result<Answer, Problem> {
        let mut members = Members::read(body)?;
        check_names(noun.kind, &members, &[])?;
        let raw = members.take(noun.id).ok_or_else(|| invalid(noun.id, "is missing: it says what to change"))?;
        let id = text(noun.id, &raw)?;
        let changed = self
            .change_group(noun, &id, |record, now_ms| apply(noun.kind, record, &members, self.moment(now_ms)))
            .await?;
        Ok(self.describe(noun, &changed).await?.into_answer())
    }

    async fn block_groups(&self, noun: &Noun, body: &[u8], blocked: bool) -> Result<Answer, Problem> {
        let ids = noun.take_ids(&mut Members::read(body)?, &[noun.ids])?;
        for id in &ids {
            self.require(noun.kind, id).await?;
        }
        let mut changed = Vec::with_capacity(ids.len());
        for id in &ids {
            let change = |record: &mut Record, _| {
                record.blocked = blocked;
                Ok(())
            };
            let record = self.change_group(noun, id, change).await?;
            changed.push(self.describe(noun, &record).await?);
        }
        match noun.kind {
            Kind::Customer => {
                let mut object = Object::default();
                object.put(if blocked { "blocked_users" } else { "unblocked_users" }, &changed);
                Ok(object.into_answer())
            }
            _ if changed.len() == 1 => Ok(answer(&changed.pop().unwrap_or_default())),
            _ => Ok(answer(&changed)),
        }
    }

    async fn change_group(
        &self,
        noun: &Noun,
        id: &str,
        change: impl Fn(&mut Record, u64) -> Result<(), Problem> + Send + Sync,
    ) -> Result<Record, Problem> {
        for _ in 0..ATTEMPTS {
            let now_ms = self.accounts.now_ms();
            let before = self.require(noun.kind, id).await?;
            let mut record = before.record.clone();
            change(&mut record, now_ms)?;
            record.updated_at_ms = now_ms;
            self.check_new_references(&before.record, &record).await?;
            if self.commit(&[write(noun.kind, &record, Expect::Version(before.version))?]).await? {
                return Ok(record);
            }
        }
        Err(Problem::Busy)
    }

    async fn delete_groups(&self, noun: &Noun, body: &[u8]) -> Result<Answer, Problem> {
        let ids = noun.take_ids(&mut Members::read(body)?, &[noun.ids])?;
        for _ in 0..ATTEMPTS {
            let mut changes = Vec::with_capacity(ids.len());
            for id in &ids {
                let found = self.require(noun.kind, id).await?;
                changes.push(delete(noun.kind, id, Expect::Version(found.version)));
            }
            self.check_free(noun, &ids).await?;
            if self.commit(&changes).await? {
                let mut object = Object::default();
                object.put(format!("deleted_{}s", noun.word()), &ids);
                return Ok(object.into_answer());
            }
        }
        Err(Problem::Busy)
    }

    /// What keys refer to stays: a key without its team or its budget would not know its limits.
    async fn check_free(&self, noun: &Noun, ids: &[String]) -> Result<(), Problem> {
        let holders: &[Kind] = match noun.kind {
            Kind::Team | Kind::User => &[Kind::Key],
            Kind::Budget => &[Kind::Key, Kind::Team, Kind::User, Kind::Customer, Kind::Tag],
            _ => &[],
        };
        let refers = |record: &Record| {
            let reference = match noun.kind {
                Kind::Team => &record.team_id,
                Kind::User => &record.user_id,
                _ => &record.budget_id,
            };
            reference.as_ref().is_some_and(|id| ids.contains(id))
        };
        for kind in holders {
            let users = self.search(*kind, refers).await?;
            if let Some(first) = users.first() {
                let shown = harmless(first.alias.as_deref().unwrap_or(&first.id));
                return Err(Problem::Exists(format!(
                    "{} {}(s) refer to this {}, such as `{shown}`. Delete them, or change their {} first; to stop its keys \
                     at once, block it.",
                    users.len(),
                    kind.as_str(),
                    noun.word(),
                    noun.id
                )));
            }
        }
        Ok(())
    }

    /// `GET …/info`: for a team or a user with its keys.
    async fn info(&self, noun: &Noun, id: &str) -> Result<Answer, Problem> {
        let record = self.find_group(noun, id).await?;
        let described = self.describe(noun, &record).await?;
        let keys = match noun.kind {
            Kind::Team => self.search(Kind::Key, |key| key.team_id.as_deref() == Some(id)).await?,
            Kind::User => self.search(Kind::Key, |key| key.user_id.as_deref() == Some(id)).await?,
            _ => return Ok(described.into_answer()),
        };
        let now_ms = self.accounts.now_ms();
        let keys: Vec<Object> = keys.iter().map(|key| present::key(key, None, now_ms)).collect();
        let mut object = Object::default();
        object.put(noun.id, &record.id).put(format!("{}_info", noun.word()), &described).put("keys", &keys);
        Ok(object.into_answer())
    }

    /// `POST …/info`: several, as LiteLLM has it for budgets (a list) and tags (an object by name).
    async fn infos(&self, noun: &Noun, body: &[u8]) -> Result<Answer, Problem> {
        let ids = noun.take_ids(&mut Members::read(body)?, &[noun.info_ids])?;
        let mut described = Vec::with_capacity(ids.len());
        for id in &ids {
            let record = self.find_group(noun, id).await?;
            described.push(self.describe(noun, &record).await?);
        }
        if noun.kind != Kind::Tag {
            return Ok(answer(&described));
        }
        let mut object = Object::default();
        for (id, described) in ids.iter().zip(&described) {
            object.put(id.as_str(), described);
        }
        Ok(object.into_answer())
    }

    async fn find_group(&self, noun: &Noun, id: &str) -> Result<Record, Problem> {
        if read::check_text(id).is_err() {
            return Err(super::documents::missing(noun.kind, id));
        }
        Ok(self.require(noun.kind, id).await?.record)
    }

    async fn list_groups(&self, noun: &Noun, query: &str) -> Result<Answer, Problem> {
        let query = Query::read(query, &["page", "page_size"])?;
        let size = query.count("page_size", PAGE_SIZE_MAX, PAGE_SIZE_MAX)?;
        let page = query.count("page", 1, usize::MAX)?;
        let all = self.search(noun.kind, |_| true).await?;
        let (records, total, pages) = page_of(all, page, size);
        let mut described = Vec::with_capacity(records.len());
        for chunk in records.chunks(CHUNK) {
            for (record, used) in chunk.iter().zip(self.usage_of_all(noun.kind, chunk).await?) {
                let mut object = present::group(noun.kind, record);
                if noun.kind != Kind::Budget {
                    present::usage(&used, &mut object);
                }
                described.push(object);
            }
        }
        if noun.kind != Kind::User {
            return Ok(answer(&described));
        }
        let mut object = Object::default();
        object.put("users", &described).put("total", &total).put("page", &page);
        object.put("page_size", &size).put("total_pages", &pages);
        Ok(object.into_answer())
    }

    async fn describe(&self, noun: &Noun, record: &Record) -> Result<Object, Problem> {
        let mut object = present::group(noun.kind, record);
        if noun.kind != Kind::Budget {
            let budget = self.budget_of(record).await?;
            object.put("litellm_budget_table", &budget.map(|budget| present::group(Kind::Budget, &budget)));
            present::usage(&self.usage_of(noun.kind, record).await?, &mut object);
        }
        Ok(object)
    }
}

/// An id that someone chose. A tag stands in a header between commas.
fn new_id(noun: &Noun, raw: &RawValue) -> Result<String, Problem> {
    let id = text(noun.id, raw)?;
    if noun.kind == Kind::Tag && (id.contains(',') || id.chars().count() > 128) {
        return Err(invalid(noun.id, "must have no comma and at most 128 characters, because it is sent in a header"));
    }
    Ok(id)
}

//! `GET /key/list` and `/key/aliases`: keys by filters, in pages. Reads all keys of the directory: a page for people.

use std::cmp::Ordering;

use super::json::{Object, answer};
use super::problem::Problem;
use super::{Management, present};
use crate::admin::request::{Answer, parameters};
use crate::config::problem::nearest;
use crate::keys::record::Record;
use crate::keys::secret_key;
use crate::store::Kind;

const PAGE_SIZE: usize = 10;
const PAGE_SIZE_MAX: usize = 100;
const KNOWN: &[&str] = &[
    "page",
    "size",
    "user_id",
    "team_id",
    "budget_id",
    "tag",
    "key_hash",
    "key_alias",
    "search",
    "substring_matching",
    "status",
    "return_full_object",
    "sort_by",
    "sort_order",
];
const SORTS: &[&str] = &["created_at", "updated_at", "key_alias", "expires", "max_budget"];
const STATUSES: &[&str] = &["active", "expired", "blocked"];

/// A query whose parameters are known, present once and not empty.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn read(query: &str, known: &[&str]) -> Result<Self, Problem> {
        let mut read: Vec<(String, String)> = Vec::new();
        for (name, value) in parameters(query).map_err(Problem::Invalid)? {
            let shown: String = name.chars().take(64).collect();
            if !known.contains(&name.as_str()) {
                let advice = match nearest(&shown, known.iter().copied()) {
                    Some(near) => format!("Did you mean `{near}`?"),
                    None if known.is_empty() => "This path takes none.".to_owned(),
                    None => format!("This path knows {}.", known.join(", ")),
                };
                return Err(Problem::Invalid(format!("Unknown parameter `{shown}`. {advice}")));
            }
            if value.is_empty() || read.iter().any(|(other, _)| *other == name) {
                return Err(Problem::Invalid(format!("Give `{shown}` one value, or leave it out.")));
            }
            read.push((name, value));
        }
        Ok(Self(read))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn count(&self, name: &str, default: usize, max: usize) -> Result<usize, Problem> {
        match self.get(name).map(str::parse) {
            None => Ok(default),
            Some(Ok(count)) if (1..=max).contains(&count) => Ok(count),
            Some(_) => Err(Problem::Invalid(format!("`{name}` must be a number from 1 to {max}."))),
        }
    }

    fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.get(name).map(str::to_ascii_lowercase).as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Problem::Invalid(format!("`{name}` must be true or false."))),
        }
    }

    fn word(&self, name: &str, known: &[&str]) -> Result<Option<&str>, Problem> {
        match self.get(name) {
            Some(word) if !known.contains(&word) => {
                Err(Problem::Invalid(format!("`{name}` must be one of {}.", known.join(", "))))
            }
            word => Ok(word),
        }
    }
}

/// One page of many: the items, and the counts that go with them.
pub(super) fn page_of<T>(items: Vec<T>, page: usize, size: usize) -> (Vec<T>, usize, usize) {
    let total = items.len();
    let on_page = items.into_iter().skip((page - 1).saturating_mul(size)).take(size).collect();
    (on_page, total, total.div_ceil(size))
}

impl Management {
    pub(super) async fn list_keys(&self, query: &str) -> Result<Answer, Problem> {
        let query = Query::read(query, KNOWN)?;
        let (page, size) = (query.count("page", 1, usize::MAX)?, query.count("size", PAGE_SIZE, PAGE_SIZE_MAX)?);
        let full = query.flag("return_full_object")?;
        let sort = query.word("sort_by", SORTS)?.unwrap_or("created_at");
        let descending = query.word("sort_order", &["asc", "desc"])?.is_none_or(|order| order == "desc");
        let mut keys = self.filtered(&query).await?;
        keys.sort_by(|one, other| {
            let order = compare(sort, one, other).then_with(|| one.id.cmp(&other.id));
            if descending { order.reverse() } else { order }
        });
        let (keys, total, pages) = page_of(keys, page, size);
        let mut object = Object::default();
        if full {
            object.put("keys", &self.full(&keys).await?);
        } else {
            object.put("keys", &keys.iter().map(|key| &key.token).collect::<Vec<_>>());
        }
        object.put("total_count", &total).put("current_page", &page).put("total_pages", &pages);
        Ok(object.into_answer())
    }

    pub(super) async fn key_aliases(&self, query: &str) -> Result<Answer, Problem> {
        Query::read(query, &[])?;
        let mut aliases: Vec<String> =
            self.search(Kind::Key, |key| key.alias.is_some()).await?.into_iter().filter_map(|key| key.alias).collect();
        aliases.sort();
        let mut object = Object::default();
        object.put("aliases", &aliases);
        Ok(answer(&object))
    }

    async fn filtered(&self, query: &Query) -> Result<Vec<Record>, Problem> {
        let now_ms = self.accounts.now_ms();
        let status = query.word("status", STATUSES)?;
        let substring = query.flag("substring_matching")?;
        let is = |wanted: Option<&str>, value: Option<&str>| wanted.is_none_or(|wanted| value == Some(wanted));
        let (user, team, budget) = (query.get("user_id"), query.get("team_id"), query.get("budget_id"));
        let (tag, hash, alias) = (query.get("tag"), query.get("key_hash"), query.get("key_alias"));
        let search = query.get("search").map(str::to_lowercase);
        // A secret in a query is taken for what it proves; it is not written down anywhere.
        let hash = hash.map(super::keys::unsecret);
        self.search(Kind::Key, |key| {
            let own = key.alias.as_deref();
            let has_alias =
                |wanted: &str| own == Some(wanted) || substring && own.is_some_and(|own| own.contains(wanted));
            let is_found = |wanted: &str| {
                [own, Some(key.id.as_str()), key.key_name.as_deref()]
                    .into_iter()
                    .flatten()
                    .any(|text| text.to_lowercase().contains(wanted))
            };
            is(user, key.user_id.as_deref())
                && is(team, key.team_id.as_deref())
                && is(budget, key.budget_id.as_deref())
                && is(hash.as_deref().filter(|hash| secret_key::is_digest(hash)), key.token.as_deref())
                && hash.as_deref().is_none_or(|hash| secret_key::is_digest(hash) || key.id == hash)
                && tag.is_none_or(|tag| key.tags.iter().any(|own| own == tag))
                && alias.is_none_or(has_alias)
                && search.as_deref().is_none_or(is_found)
                && is(status, Some(present::status(key, now_ms)))
        })
        .await
    }

    async fn full(&self, keys: &[Record]) -> Result<Vec<Object>, Problem> {
        let used = self.usage_of_all(Kind::Key, keys).await?;
        let now_ms = self.accounts.now_ms();
        let mut objects = Vec::with_capacity(keys.len());
        for (key, used) in keys.iter().zip(&used) {
            let mut object = present::key(key, self.budget_of(key).await?.as_ref(), now_ms);
            present::usage(used, &mut object);
            objects.push(object);
        }
        Ok(objects)
    }
}

fn compare(by: &str, one: &Record, other: &Record) -> Ordering {
    match by {
        "updated_at" => one.updated_at_ms.cmp(&other.updated_at_ms),
        "key_alias" => one.alias.cmp(&other.alias),
        "expires" => one.expires_at_ms.cmp(&other.expires_at_ms),
        "max_budget" => one.limits.max_budget.cmp(&other.limits.max_budget),
        _ => one.created_at_ms.cmp(&other.created_at_ms),
    }
}

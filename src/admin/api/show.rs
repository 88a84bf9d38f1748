//! What a record has spent, and a key as it is shown to the operator or to its holder.

use super::documents::Versioned;
use super::json::{Members, Object, answer};
use super::keys::{KEYS_MAX, invalid, nothing_else, unsecret};
use super::present::{self, Used};
use super::problem::Problem;
use super::{Management, read};
use crate::admin::request::{Answer, parameters};
use crate::budget::command::{AccountId, Scope};
use crate::budget::limit::BudgetAccount;
use crate::keys::authenticate::Holder;
use crate::keys::record::Record;
use crate::store::Kind;

impl Management {
    /// `GET /key/info?key=`
    pub(super) async fn key_info(&self, query: &str) -> Result<Answer, Problem> {
        let Some(name) = only_key(query)? else {
            return Err(Problem::Invalid("Name a key: GET /key/info?key=<secret, token or key_id>.".to_owned()));
        };
        let found = self.require_key(&name, self.accounts.now_ms()).await?;
        self.info_answer(&unsecret(&name), &found.record).await
    }

    /// The same for the holder of a key, about itself.
    pub(super) async fn own_info(&self, holder: &Holder, query: &str) -> Result<Answer, Problem> {
        let own = &holder.key.record;
        let name = only_key(query)?.unwrap_or_else(|| own.id.clone());
        let is_own = match self.find_key(&name, self.accounts.now_ms()).await? {
            Some(found) if found.record.id == own.id => Some(found),
            _ => None,
        };
        // The same answer for a key of others and for one that does not exist.
        let Some(Versioned { record, .. }) = is_own else {
            let message = "A virtual key may ask about itself only. Leave out `key`, or use the master key.";
            return Err(Problem::Forbidden(message.to_owned()));
        };
        self.info_answer(&unsecret(&name), &record).await
    }

    async fn info_answer(&self, name: &str, record: &Record) -> Result<Answer, Problem> {
        let mut answer = Object::default();
        answer.put("key", name).put("info", &self.describe_key(record).await?);
        Ok(answer.into_answer())
    }

    /// `POST /v2/key/info`
    pub(super) async fn key_infos(&self, body: &[u8]) -> Result<Answer, Problem> {
        let mut members = Members::read(body)?;
        let raw = members.take("keys").ok_or_else(|| invalid("keys", "is missing: write a list of keys"))?;
        nothing_else(&members, "keys")?;
        let names = read::texts(&raw).map_err(|problem| invalid("keys", &problem))?;
        if names.is_empty() || names.len() > KEYS_MAX {
            return Err(invalid("keys", &format!("must name 1 to {KEYS_MAX} keys")));
        }
        let mut infos = Vec::with_capacity(names.len());
        for name in &names {
            let found = self.require_key(name, self.accounts.now_ms()).await?;
            infos.push(self.describe_key(&found.record).await?);
        }
        let shown: Vec<String> = names.iter().map(|name| unsecret(name)).collect();
        let mut object = Object::default();
        object.put("key", &shown).put("info", &infos);
        Ok(answer(&object))
    }

    /// Everything about a key but its secret.
    pub(super) async fn describe_key(&self, record: &Record) -> Result<Object, Problem> {
        let budget = self.budget_of(record).await?;
        let used = self.usage_of(Kind::Key, record).await?;
        let mut object = present::key(record, budget.as_ref(), self.accounts.now_ms());
        present::usage(&used, &mut object);
        Ok(object)
    }

    /// The budget a record refers to; `None` also when it is gone, which is shown by its absence.
    pub(super) async fn budget_of(&self, record: &Record) -> Result<Option<Record>, Problem> {
        match &record.budget_id {
            Some(id) => Ok(self.load(Kind::Budget, id).await?.map(|budget| budget.record)),
            None => Ok(None),
        }
    }

    /// The accounts of one record and what they hold.
    pub(super) async fn usage_of(&self, kind: Kind, record: &Record) -> Result<Vec<Used>, Problem> {
        Ok(self.usage_of_all(kind, std::slice::from_ref(record)).await?.pop().unwrap_or_default())
    }

    /// The accounts of several records, with one question to the books.
    pub(super) async fn usage_of_all(&self, kind: Kind, records: &[Record]) -> Result<Vec<Vec<Used>>, Problem> {
        let Some(scope) = scope(kind) else {
            return Ok(records.iter().map(|_| Vec::new()).collect());
        };
        let now_ms = self.accounts.now_ms();
        let mut of_records: Vec<Vec<BudgetAccount>> = Vec::with_capacity(records.len());
        for record in records {
            let budget = self.budget_of(record).await?;
            let limits = budget.as_ref().map(|budget| &budget.limits);
            of_records.push(present::accounts(scope, record, limits, &mut |period| period.window(now_ms, &self.zone)));
        }
        let ids: Vec<AccountId> = of_records.iter().flatten().map(|account| account.charge.account.clone()).collect();
        let mut balances = self.accounts.balances(&ids).await?.into_iter();
        let mut with_balance = |account| Used { account, balance: balances.next().unwrap_or_default() };
        Ok(of_records.into_iter().map(|accounts| accounts.into_iter().map(&mut with_balance).collect()).collect())
    }
}

/// Who owns the accounts of a kind; a budget has none of its own.
const fn scope(kind: Kind) -> Option<Scope> {
    match kind {
        Kind::Key => Some(Scope::Key),
        Kind::Team => Some(Scope::Team),
        Kind::User => Some(Scope::User),
        Kind::Customer => Some(Scope::Customer),
        Kind::Tag => Some(Scope::Tag),
        Kind::Secret | Kind::AccessKey | Kind::Alias | Kind::Budget => None,
    }
}

/// The parameter `key`, of a query that has no other.
fn only_key(query: &str) -> Result<Option<String>, Problem> {
    let mut key = None;
    for (name, value) in parameters(query).map_err(Problem::Invalid)? {
        if name != "key" || key.is_some() || value.is_empty() {
            let shown: String = name.chars().take(64).collect();
            return Err(Problem::Invalid(format!(
                "The query has `{shown}` where it should have one `key`: GET /key/info?key=<secret, token or key_id>."
            )));
        }
        key = Some(value);
    }
    Ok(key)
}

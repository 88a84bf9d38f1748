//! Which budgets have metrics of their own: the first so many keys, teams … that are seen. A client cannot add series
//! without end, and a larger installation asks `/spend` instead.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use crate::budget::command::{AccountId, Charge, Scope};
use crate::budget::entry::Row;
use crate::ledger::Ledger;
use crate::telemetry::metrics::Metrics;
use crate::types::map::HashMap;
use crate::types::money::NanoUsd;

/// Budgets by name, with the account they are kept on now.
type Named = HashMap<String, (AccountId, NanoUsd)>;

/// Budgets by scope and name.
#[derive(Debug)]
pub struct NamedBudgets {
    names_max: usize,
    named: RwLock<BTreeMap<Scope, Named>>,
}

impl NamedBudgets {
    /// `names_max` of each scope.
    #[must_use]
    pub fn new(names_max: usize) -> Self {
        Self { names_max, named: RwLock::default() }
    }

    /// Notes the budgets that a call counts on.
    pub(super) fn note(&self, charges: &[Charge], row: &Row) {
        for charge in charges {
            if let (Some(limit), Some(name)) = (charge.limit, name(charge.scope, row)) {
                self.note_one(charge, limit, name);
            }
        }
    }

    fn note_one(&self, charge: &Charge, limit: NanoUsd, name: &str) {
        let is_nothing_new = |named: &Named| match named.get(name) {
            Some((account, known)) => *account == charge.account && *known == limit,
            None => named.len() >= self.names_max,
        };
        if self.named.read().unwrap_or_else(PoisonError::into_inner).get(&charge.scope).is_some_and(is_nothing_new) {
            return;
        }
        let mut named = self.named.write().unwrap_or_else(PoisonError::into_inner);
        let named = named.entry(charge.scope).or_default();
        if !is_nothing_new(named) {
            named.insert(name.to_owned(), (charge.account.clone(), limit));
        }
    }

    /// Shows their balances as they are now; those of a store that cannot be reached stay as they were.
    pub async fn show(&self, ledger: &Ledger, metrics: &Metrics) {
        let named: Vec<_> = {
            let named = self.named.read().unwrap_or_else(PoisonError::into_inner);
            let of = |(scope, named): (&Scope, &Named)| {
                let scope = *scope;
                let one = |(name, (account, limit)): (&String, &(AccountId, NanoUsd))| {
                    (scope, name.clone(), account.clone(), *limit)
                };
                named.iter().map(one).collect::<Vec<_>>()
            };
            named.iter().flat_map(of).collect()
        };
        let accounts: Vec<_> = named.iter().map(|(_, _, account, _)| account.clone()).collect();
        if accounts.is_empty() {
            return;
        }
        match ledger.balances(&accounts).await {
            Ok(balances) => {
                for ((scope, name, _, limit), balance) in named.iter().zip(balances) {
                    metrics.budget(scope.as_str(), name, balance.spent, balance.reserved, Some(*limit));
                }
            }
            Err(error) => tracing::debug!("budgets cannot be shown: {error}"),
        }
    }
}

/// What a budget is called in metrics. End users and tags are named by clients, and models within a key are many.
fn name(scope: Scope, row: &Row) -> Option<&str> {
    match scope {
        Scope::Key => Some(row.key_alias.as_deref().unwrap_or(&row.key_id)),
        Scope::Team => row.team_id.as_deref(),
        Scope::User => row.user_id.as_deref(),
        Scope::Global => Some("all"),
        Scope::KeyModel | Scope::Customer | Scope::Tag => None,
    }
}

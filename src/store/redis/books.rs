//! `LedgerStore` on Redis: each command is one function call. The spend log is read in `spend_log`.

use async_trait::async_trait;

use super::connection::Repeat;
use super::{RedisStore, answers, arguments};
use crate::budget::command::{AccountId, Applied, Balance, Charge, LeaseId, NodeId, Op, Reserve, Reserved};
use crate::budget::entry::Rollup;
use crate::store::{EntryPage, EntryQuery, LeaseCounts, LedgerStore, StoreError};
use crate::types::money::NanoUsd;

#[async_trait]
impl LedgerStore for RedisStore {
    fn is_local(&self) -> bool {
        false
    }

    fn clock_offset_ms(&self) -> i64 {
        self.connection.clock_offset_ms()
    }

    async fn reserve(&self, request: &Reserve) -> Result<Reserved, StoreError> {
        let row = arguments::RowText::new(&request.row);
        let answer =
            self.connection.call(Repeat::Yes, "reserve", |command| arguments::reserve(command, request, &row)).await?;
        answers::reserved(&answer)
    }

    async fn extend(&self, lease: &LeaseId, to: NanoUsd, charges: &[Charge]) -> Result<Reserved, StoreError> {
        let answer = self
            .connection
            .call(Repeat::Yes, "extend", |command| arguments::extend(command, lease, to, charges))
            .await?;
        answers::reserved(&answer)
    }

    async fn apply(&self, node: &NodeId, first: u64, ops: &[Op]) -> Result<Applied, StoreError> {
        let rows = arguments::rows(ops);
        let answer = self
            .connection
            .call(Repeat::Yes, "apply", |command| {
                command.arg(node.as_str()).arg(first).arg(ops.len());
                for (op, row) in ops.iter().zip(&rows) {
                    arguments::op(command, op, row.as_ref());
                }
            })
            .await?;
        Ok(Applied { last: answers::number(answer.first())? })
    }

    async fn touch(&self, leases: &[LeaseId], ttl_ms: u64) -> Result<Vec<LeaseId>, StoreError> {
        let answer = self
            .connection
            .call(Repeat::Yes, "touch", |command| {
                command.arg(ttl_ms);
                for lease in leases {
                    command.arg(lease.as_str());
                }
            })
            .await?;
        answer.iter().map(|lease| answers::text(Some(lease)).map(LeaseId::new)).collect()
    }

    async fn reap(&self, limit: usize) -> Result<usize, StoreError> {
        let answer = self
            .connection
            .call(Repeat::Yes, "reap", |command| {
                command.arg(limit);
            })
            .await?;
        usize::try_from(answers::number(answer.first())?).map_err(|_| answers::unexpected())
    }

    async fn balances(&self, accounts: &[AccountId]) -> Result<Vec<Balance>, StoreError> {
        let answer = self
            .connection
            .call(Repeat::Yes, "balances", |command| {
                for account in accounts {
                    command.arg(account.as_str());
                }
            })
            .await?;
        answers::balances(&answer)
    }

    async fn claim(&self, account: &AccountId, mark: &str) -> Result<bool, StoreError> {
        let answer = self
            .connection
            .call(Repeat::No, "claim", |command| {
                command.arg(account.as_str()).arg(mark);
            })
            .await?;
        Ok(answers::number(answer.first())? == 1)
    }

    async fn entries(&self, query: &EntryQuery) -> Result<EntryPage, StoreError> {
        self.page(query).await
    }

    async fn rollups(&self, from: &str, to: &str) -> Result<Vec<Rollup>, StoreError> {
        self.sums(from, to).await
    }

    /// Accounts and tombstones have a time to live and go by themselves.
    async fn forget(&self, entries_before_ms: u64) -> Result<(), StoreError> {
        self.trim(entries_before_ms).await
    }

    async fn lease_counts(&self) -> Result<LeaseCounts, StoreError> {
        let answer = self.connection.call(Repeat::Yes, "counts", |_| {}).await?;
        Ok(LeaseCounts { open: answers::number(answer.first())?, expired_total: answers::number(answer.get(1))? })
    }
}

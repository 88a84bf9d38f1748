//! The store on Redis (6.2 or newer, alone, behind Sentinel, or a cluster), for several replicas that share budgets.
//!
//! Every command of the books is one call of a function that Redis runs as a whole (`functions.lua`). What Redis has
//! acknowledged and then loses in a failover is sent again by the ledger, which is why nothing here retries for long. An
//! ACL user needs `~{namespace}:* +@read +@write +@scripting +@connection +info +time`; where it may not use functions
//! (`-function`, `-fcall`), the same source runs as a script.

use std::sync::Arc;

use crate::config;
use crate::store::StoreError;

mod answers;
mod arguments;
mod books;
mod connection;
mod documents;
mod fault;
mod functions;
mod keys;
mod spend_log;
mod tls;
mod topology;

/// A Redis. Clones of the `Arc` share one connection.
#[derive(Debug)]
pub struct RedisStore {
    connection: Arc<connection::Connection>,
}

impl RedisStore {
    /// Connects to nothing yet: the first command does. Until Redis is there, commands answer `Unavailable`.
    ///
    /// # Errors
    /// When the settings cannot be used at all, such as a certificate file that cannot be read.
    pub fn new(config: &config::Redis) -> Result<Arc<Self>, StoreError> {
        Self::with(config, false)
    }

    /// As [`Self::new`], with scripts (`EVALSHA`) even where Redis has functions.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_scripts_only(config: &config::Redis) -> Result<Arc<Self>, StoreError> {
        Self::with(config, true)
    }

    fn with(config: &config::Redis, scripts_only: bool) -> Result<Arc<Self>, StoreError> {
        Ok(Arc::new(Self { connection: Arc::new(connection::Connection::new(config, scripts_only)?) }))
    }

    /// Redis's clock when it answered last, Unix milliseconds; zero before.
    #[must_use]
    pub fn clock_ms(&self) -> u64 {
        self.connection.clock_ms()
    }
}

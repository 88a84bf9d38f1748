//! Deployments: which one serves a model name, and what to do when it does not.
//!
//! `select` and `outcome` are pure decisions; `fleet` holds the deployments a configuration names and `host` the
//! addresses of the servers behind them.

pub mod fleet;
pub mod host;
pub mod outcome;
pub mod select;

//! Deployments: which one serves a model name, and what to do when it does not.
//!
//! `select`, `outcome`, `first_event` and `context_window` are pure decisions; `fleet` holds the deployments a
//! configuration names, `host` the addresses of the servers behind them (`address` decides which are used), and
//! `profiles` what AWS says of ARNs that hide their model.

mod address;
pub mod affinity;
pub mod context_window;
mod control_plane;
pub mod cooldown;
pub mod first_event;
pub mod fleet;
pub mod host;
pub mod outcome;
pub mod profiles;
pub mod select;

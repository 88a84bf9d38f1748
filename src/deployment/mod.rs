//! Deployments: which one serves a model name, and what to do when it does not.
//!
//! Pure decisions, with time and random numbers as arguments: `outcome` (what an attempt means; `first_event` and
//! `context_window` read that out of answers), `cooldown`, `limiter` and `latency` (what is known of a deployment; `vitals`
//! holds them together), `select` and `affinity` (which one serves), `retry` and `attempts` (how often). `live` keeps their
//! state while the process runs, `fleet` holds the deployments a configuration names, `host` the addresses of the servers
//! behind them (`address` decides which are used), and `profiles` what AWS says of ARNs that hide their model.

mod address;
pub mod affinity;
pub mod attempts;
pub mod context_window;
mod control_plane;
pub mod cooldown;
pub mod first_event;
pub mod fleet;
pub mod host;
pub mod latency;
pub mod limiter;
pub mod live;
pub mod outcome;
pub mod profiles;
pub mod retry;
pub mod select;
pub mod vitals;

//! What the proxy answers itself: probes, metrics, what models there are, and the management of keys, budgets, spend
//! and of the configuration in force.

pub mod api;
pub mod pages;
pub mod readiness;
pub mod reload;
pub mod request;
pub mod spend;
pub mod status;

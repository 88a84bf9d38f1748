//! What the proxy answers itself: probes, metrics, what models there are, and the management of keys, budgets and spend.

pub mod api;
pub mod pages;
pub mod request;
pub mod spend;
pub mod status;

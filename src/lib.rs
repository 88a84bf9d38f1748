//! An edge proxy for Amazon Bedrock in Bedrock's own wire format: it authenticates a key, sets aside what the call may
//! cost, picks a deployment of the named model, signs with SigV4, streams the answer through byte for byte, reads what
//! it cost on the way, and settles.
//!
//! A module imports only from lower layers; `tests/architecture.rs` holds it:
//!
//! | layer | modules |
//! |---|---|
//! | 0 | [`types`], [`json`], [`yaml`] |
//! | 1 | [`admission`], [`aws`], [`usage`], [`price`], [`error`], [`budget`], the pure halves of [`deployment`]: no clock, no randomness, no IO |
//! | 2 | [`config`] |
//! | 3 | [`credentials`], [`store`], [`keys`], [`ledger`], [`telemetry`], the fleet and hosts of [`deployment`] |
//! | 4 | [`proxy`], [`admin`]: siblings, neither imports the other |
//! | 5 | [`app`], [`cli`] |
//!
//! Start reading at [`proxy`], which is the life of a request, or at [`app`], which builds everything.

pub mod admin;
pub mod admission;
pub mod app;
pub mod aws;
pub mod budget;
pub mod cli;
pub mod config;
pub mod credentials;
pub mod deployment;
pub mod error;
pub mod json;
pub mod keys;
pub mod ledger;
pub mod price;
pub mod proxy;
pub mod store;
pub mod telemetry;
pub mod types;
pub mod usage;
pub mod yaml;

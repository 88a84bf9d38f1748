//! An edge proxy for Amazon Bedrock in Bedrock's own wire format.

pub mod aws;
pub mod cli;
pub mod config;
pub mod credentials;
pub mod deployment;
pub mod error;
pub mod keys;
pub mod price;
pub mod telemetry;
pub mod types;
pub mod usage;

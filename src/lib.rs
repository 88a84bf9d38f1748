//! An edge proxy for Amazon Bedrock in Bedrock's own wire format.

pub mod aws;
pub mod cli;
pub mod config;
pub mod error;
pub mod price;
pub mod types;
pub mod usage;

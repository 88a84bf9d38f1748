//! An edge proxy for Amazon Bedrock in Bedrock's own wire format.

pub mod types;

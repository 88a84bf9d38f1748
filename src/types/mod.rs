//! The vocabulary of the whole crate: money, tokens, usage, names and secrets, each with its unit in its type.
//!
//! Nothing here knows of Bedrock's wire format, of configuration or of IO.

pub mod ids;
pub mod json;
pub mod map;
pub mod money;
pub mod secret;
pub mod tokens;
pub mod usage;

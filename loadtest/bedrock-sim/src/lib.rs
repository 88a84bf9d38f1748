//! A simulator of Amazon Bedrock for the tests and load tests of the proxy: it checks every signature, refuses what
//! must never reach AWS, answers all operations of Bedrock's eight services, bills what it served, and fails on demand.
//!
//! It is the judge, so it shares no code with what it judges: routing data, SigV4, event-stream framing and the
//! arithmetic of prices are all written here a second time. What AWS itself would answer rests on the service models
//! of botocore 1.44.5 and AWS's documentation as of 2026-11-22; no request of ours ever reached AWS.
//!
//! | module | what |
//! |---|---|
//! | [`server`], `connection`, `service`, `control` | sockets, one request, the `/_sim/` endpoints |
//! | `operations`, `violations`, `sigv4`, `chunk_signature` | what was asked, and whether it was allowed to arrive |
//! | `answer` | one file per family of answers |
//! | `playback`, `coding`, [`behaviour`] | pacing, content codings and faults on demand |
//! | `billing`, `prices`, [`usage`] | the bill |
//! | [`Canned`] | the fast mode for load tests, which has its own sockets and answers |
//! | [`record`], [`concurrency`], `eventstream`, `sse`, `clock`, `text` | what came in; framing; plumbing |

mod answer;
pub mod behaviour;
mod bidirectional;
mod billing;
mod canned;
mod chunk_signature;
mod clock;
mod coding;
pub mod concurrency;
mod connection;
mod control;
pub mod eventstream;
mod operations;
mod playback;
mod prices;
pub mod record;
pub mod server;
mod service;
mod sigv4;
mod sse;
mod text;
pub mod usage;
mod violations;

pub use behaviour::{Behaviour, Billing, Fault, Match, Rule, Tokens};
pub use billing::{Billed, Row};
pub use canned::{Canned, Serving};
pub use coding::Coding;
pub use concurrency::MaxConcurrent;
pub use record::{Counters, Record};
pub use server::{Credential, Options, Running, Simulator, StartError};
pub use usage::Usage;

#[cfg(test)]
mod tests;

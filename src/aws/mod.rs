//! AWS's side of the wire: operations and their routes, hosts, signatures, event streams and error bodies.
//!
//! Pure: no IO, no clock, no randomness. `now` is an argument.

pub mod endpoint;
pub mod error_body;
pub mod eventstream;
pub mod operation;
pub mod route;
pub mod sigv4;

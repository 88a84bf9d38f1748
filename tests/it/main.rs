//! The whole proxy against the simulator: a real process on a free port, real sockets, real records and metrics. The
//! simulator recognises the operation, checks the signature and writes the bill by code of its own, so that a mistake of
//! the proxy cannot agree with itself. Every test waits for conditions; none waits for time.

#![expect(clippy::print_stdout, reason = "what was measured, for those who ask with --show-output")]
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod agents;
mod bad_input;
mod bidirectional;
mod bill;
mod bodies;
mod budgets;
mod codings;
mod costs;
mod endpoints;
mod failover;
mod fallbacks;
mod first_event;
mod headers;
mod key_pairs;
mod keys;
mod lifecycle;
mod operations;
mod overload;
mod profiles;
mod reload;
mod routing;
mod shipped_configs;
mod streams;
mod support;
mod tls;
mod truncation;
mod visible;

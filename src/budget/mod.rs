//! What a budget is and how it is kept: periods, limits, upper bounds of a request's cost, and the state machine that
//! reserves before a call and settles after it.
//!
//! Pure: no clock, no randomness, no IO. `store` runs the state machine in this process or in Redis, `ledger` decides
//! when to ask it. The promise is `spent + reserved <= limit` on every account at every moment; it holds because a
//! reservation is an upper bound of what the call may cost, and because nothing but [`books`] changes an account.

pub mod books;
pub mod command;
pub mod entry;
pub mod estimate;
pub mod limit;
pub mod period;

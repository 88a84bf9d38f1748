//! Who calls and what they may do: secrets, the records behind them, and the rules in those records.
//!
//! [`authenticate::Caller`] cannot exist without a successful proof, so no path can forget to ask. `register` is the
//! only reader of the store here, `policy`, `parties` and `attribution` decide without IO. Money is `budget`'s and
//! `ledger`'s business.

pub mod access_key;
pub mod attribution;
pub mod authenticate;
pub mod parties;
pub mod policy;
pub mod record;
pub mod register;
pub mod secret_key;
pub mod signed;

#[cfg(test)]
pub mod memory_directory;

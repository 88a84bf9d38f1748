//! What a call costs: the price book, the prices a configuration sets over it, and the sum for one call.
//!
//! Pure and in whole numbers: dollars are read as decimals into nano-dollars per million units, multiplied exactly and
//! rounded up once a call. It rests on AWS's list prices of 2026-11-22 (`conf/prices.yaml`). What a call consumed is
//! `usage`'s to say; whether a key may spend it is not decided here.

pub mod book;
pub mod cost;
pub mod overrides;
pub mod profile;
pub mod rates;
mod read;
mod reference;

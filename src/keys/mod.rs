//! Who calls: finds the key in a request and proves it.
//!
//! [`authenticate::Caller`] cannot exist without a successful proof, so no path can forget to ask.

pub mod authenticate;

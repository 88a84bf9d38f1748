//! When a deployment that failed is left alone, and for how long.

use std::time::Duration;

/// The rules of `router_settings`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CooldownRules {
    pub enabled: bool,
    /// Failures in a row, or within a minute, that are taken without a cooldown.
    pub allowed_fails: u32,
    /// The first cooldown.
    pub base: Duration,
    /// The longest, `Retry-After` included.
    pub max: Duration,
}

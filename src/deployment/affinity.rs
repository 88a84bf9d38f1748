//! Where a conversation belongs: requests with the same key go to the same deployment, because Bedrock keeps prompt
//! caches per region ("Prompt caching for faster model inference", Bedrock user guide).
//!
//! Pure. Weighted rendezvous hashing gives every key an order of deployments that depends on nothing but their ids and
//! weights, so all replicas agree without talking, and a deployment that goes away moves only its own keys. Loads are
//! bounded as in "Consistent Hashing with Bounded Loads" (Mirrokni, Thorup, Zadimoghaddam 2016): one that has a quarter
//! more to do than its share passes the request on to the next in the key's order. `affinity/key.rs` makes the keys.

mod key;

use super::select::View;

pub use key::{KeySource, Prompt, header_key, id_hash};

/// `cache_affinity`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheAffinity {
    /// For requests that use prompt caching or name a session.
    #[default]
    Auto,
    /// For every request that has a beginning to remember.
    Always,
    Off,
}

/// A deployment takes at most so many times its share.
const SHARES_MAX: f64 = 1.25;

/// Up to this load shares mean nothing: one busy conversation is better served by one cache than by three. The unit is
/// that of [`View::load`]: requests under way and those of about ten seconds.
const LOAD_FREE: f64 = 32.0;

/// The deployment where `key` belongs, whatever its state. `None` without deployments.
#[must_use]
pub fn home(key: u64, views: &[View]) -> Option<usize> {
    first(key, views, |_| true)
}

/// The first in the key's order among the usable ones that has not too much to do.
pub(super) fn pick(key: u64, views: &[View], usable: impl Fn(&View) -> bool) -> Option<usize> {
    let (mut load, mut weight) = (0.0, 0.0);
    for view in views.iter().filter(|view| usable(view)) {
        load += view.load;
        weight += f64::from(view.weight.max(1));
    }
    let fits = |view: &View| {
        // With this request in it, which is one under way and one begun.
        let share = (load + 2.0) * f64::from(view.weight.max(1)) / weight;
        view.load + 2.0 <= (share * SHARES_MAX).max(LOAD_FREE)
    };
    first(key, views, |view| usable(view) && fits(view)).or_else(|| first(key, views, usable))
}

fn first(key: u64, views: &[View], usable: impl Fn(&View) -> bool) -> Option<usize> {
    let usable = views.iter().enumerate().filter(|(_, view)| usable(view));
    usable.max_by(|(_, one), (_, other)| score(key, one).total_cmp(&score(key, other))).map(|(index, _)| index)
}

/// The logarithm method of weighted rendezvous hashing (Resch, SNIA 2015): shares of keys follow the weights.
fn score(key: u64, view: &View) -> f64 {
    // 53 bits, never zero: uniform in (0, 1).
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    let uniform = ((mix(key ^ view.id_hash) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    f64::from(view.weight.max(1)) / -uniform.ln()
}

/// The finaliser of `SplitMix64` (Steele, Lea, Flood 2014): every bit of the input reaches every bit of the output.
const fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests;

//! Which requests belong together, because Bedrock's prompt cache is kept per region.

/// Which requests stay with one deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheAffinity {
    /// Those that use prompt caching or name a session.
    Auto,
    Always,
    Off,
}

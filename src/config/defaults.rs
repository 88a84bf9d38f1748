//! Every default of the configuration, with its reason. Nothing is decided here that a key cannot change.
//!
//! AWS's limits are those of its service models (botocore 1.44.5) and user guide, read 2026-11-22.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::types::money::NanoUsd;

/// The port that users of this kind of proxy know.
pub const PORT: u16 = 4000;

/// Without a master key only this machine may call.
pub const HOST_OPEN: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// With a master key every interface is served, as in a container.
pub const HOST_GUARDED: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// 25 MiB. The body of `InvokeModel` may have 25,000,000 bytes (its model's `Body.max`); the rest is room for the JSON
/// around it, so that AWS and not the proxy says what is too large.
pub const BODY_BYTES_MAX: usize = 25 * 1024 * 1024;

/// Ten bodies of the largest size, or a quarter of a million of 1 KB: what a small machine can hold.
pub const BUFFERED_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Session tokens and trace headers together stay under 16 KiB; four times that is no client's need.
pub const HEADER_BYTES_MAX: usize = 64 * 1024;

pub const HEADER_COUNT_MAX: usize = 256;

/// A body of the largest size needs 3.5 Mbit/s to arrive in this time.
pub const BODY_TIMEOUT: Duration = Duration::from_mins(1);

/// Longer than any pause of a client that is alive, shorter than what an idle connection is worth.
pub const CLIENT_IDLE_TIMEOUT: Duration = Duration::from_mins(1);

/// First byte of an answer. AWS: "Nova inference can take up to 60 minutes"; a shorter wait would cut calls that AWS
/// bills.
pub const TIMEOUT: Duration = Duration::from_hours(1);

/// Between two bytes of an answer. Models that think send nothing meanwhile; minutes are seen, five are not.
pub const UPSTREAM_IDLE_TIMEOUT: Duration = Duration::from_mins(5);

/// A region answers a connect within a few hundred milliseconds; what takes longer is better tried elsewhere.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a stop waits for requests in flight. Orchestrators kill after 30 to 120 s.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_mins(1);

/// As many as the AWS SDKs retry, so three attempts in all.
pub const NUM_RETRIES: u32 = 2;

pub const WEIGHT: u32 = 1;

/// Envoy's and Finagle's: a storm of errors becomes a fifth larger, and not three times as large.
pub const RETRY_BUDGET_PERCENT: u32 = 20;

/// `LiteLLM`'s default of its router: three failures are taken, the fourth is a pattern.
pub const ALLOWED_FAILS: u32 = 3;

/// As `LiteLLM`'s: what throttling by the second needs to pass, and little to lose if it was nothing.
pub const COOLDOWN_TIME: Duration = Duration::from_secs(5);

/// Quotas are by the minute, so after that any deployment is worth another try.
pub const COOLDOWN_TIME_MAX: Duration = Duration::from_mins(1);

/// As `LiteLLM`'s.
pub const MAX_FALLBACKS: usize = 5;

/// What names the requests that belong together, lower case; the second is Claude Code's.
pub const AFFINITY_HEADERS: [&str; 2] = ["x-dheera-ai-affinity", "x-claude-code-session-id"];

/// A dead address is found within twice this time; a check is a handshake, which AWS does not charge for.
pub const HEALTH_CHECK_INTERVAL: Duration = Duration::from_secs(15);

/// Each connection takes 64 KiB while it reads a head: little over a gigabyte if all of them are at it.
pub const CONNECTIONS_MAX: usize = 20_000;

/// Open streams take some 40 KB each, so 200 MB. Bedrock's own quotas are far below for most accounts.
pub const IN_FLIGHT_MAX: usize = 5_000;

pub const QUEUED_MAX: usize = 1_000;

/// Who waits for longer is better served by an answer that says so: SDKs try again by themselves.
pub const QUEUE_TIMEOUT: Duration = Duration::from_secs(1);

/// Apache's `mod_reqtimeout` and nginx allow 20 to 60 s for a head.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(20);

/// Bytes per second; Apache's `mod_reqtimeout` has the same.
pub const CLIENT_RATE_MIN: u64 = 500;

/// Load balancers that need time to see that the proxy is not ready are told of by their operators.
pub const SHUTDOWN_DELAY: Duration = Duration::ZERO;

/// In the directory of the store.
pub const UPGRADE_SOCKET: &str = "upgrade.sock";

/// `RoleSessionName` where none is configured; it is what `CloudTrail` shows.
pub const ROLE_SESSION_NAME: &str = "dheera-ai";

/// For operations without a deployment when nothing names a region: Bedrock's first and largest.
pub const DIRECT_REGION: &str = "us-east-1";

/// Below this many characters a master key can be guessed.
pub const MASTER_KEY_CHARS_ADVISED: usize = 16;

/// Fewer characters seal nothing.
pub const SALT_KEY_CHARS_MIN: usize = 16;

/// A configuration of 5,000 deployments has 1 MiB.
pub const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Redis's registered port, and its sentinels' by convention.
pub const REDIS_PORT: u16 = 6379;
pub const SENTINEL_PORT: u16 = 26379;

/// Several applications may share a Redis; the name says whose keys these are.
pub const REDIS_NAMESPACE: &str = "dheera_ai";

/// Redis stands next to the proxy: what does not answer in this time is down, and a caller waits for the verdict.
pub const REDIS_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A command takes a fraction of a millisecond; a fork for a snapshot of a large memory holds it up for most of a second.
pub const REDIS_TIMEOUT: Duration = Duration::from_secs(2);

/// As long as most answers take to their end; what is not read to its end is charged at its upper bound.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest answer of a model, 128,000 tokens, has 40 MB when every token comes in a frame of its own.
pub const DRAIN_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A quarter of a year, so that the bill of the month before can still be explained.
pub const SPEND_LOG_RETENTION: Duration = Duration::from_hours(90 * 24);

/// A dollar: many small calls without a round trip, little enough to be missed by the other replicas of a key.
pub const SLICE_MAX: NanoUsd = NanoUsd(1_000_000_000);

/// Each name has several time series, and Prometheus keeps all of them in memory.
pub const METRIC_NAMES_MAX: usize = 100;

/// What calls the end user, lower case; the second is LiteLLM's.
pub const END_USER_HEADERS: [&str; 2] = ["x-dheera-ai-end-user-id", "x-litellm-end-user-id"];

/// What carries tags, lower case, separated by commas; the second is LiteLLM's.
pub const TAG_HEADERS: [&str; 2] = ["x-dheera-ai-tags", "x-litellm-tags"];

/// A record takes about a kilobyte.
pub const CACHE_ENTRIES_MAX: usize = 100_000;

/// The directory of the store below the one that the environment names.
pub const STATE_DIRECTORY_NAME: &str = "dheera_ai";

/// In the working directory, where the environment names no place for state.
pub const STATE_DIRECTORY: &str = "./dheera_ai_state";

/// One worker per core.
#[must_use]
pub fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

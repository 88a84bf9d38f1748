//! The program's own log, on standard error; `RUST_LOG` sets its level (default `info`).
//!
//! Standard output belongs to the request records and to the line that says where the proxy runs.

use tracing_subscriber::EnvFilter;

/// Starts the log. Pingora logs through the `log` crate, which is carried over; its chatter about each failed client
/// connection is only shown from `RUST_LOG=pingora_proxy=debug` on, because every failed request has its own record.
pub fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| {
        EnvFilter::new("info,pingora_proxy=off,pingora_core=warn,pingora_core::services=error,aws_config=warn")
    });
    let result =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(true).try_init();
    if let Err(error) = result {
        // Only a second start in one process gets here, as in tests.
        log::debug!("the log is running already: {error}");
    }
}

//! The program's own log, on standard error; `RUST_LOG` sets its level (default `info`).
//!
//! Standard output belongs to the request records and to the line that says where the proxy runs. Whatever `RUST_LOG`
//! says, other crates are heard from `info` up only: Pingora and the AWS SDK write whole request heads, keys and tokens
//! included, at the levels below (measured with Pingora 0.9.1).

use std::io::IsTerminal;

use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts the log. Pingora logs through the `log` crate, which is carried over; its chatter about each failed client
/// connection is only shown from `RUST_LOG=pingora_proxy=info` on, because every failed request has its own record.
pub fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| {
        EnvFilter::new("info,pingora_proxy=off,pingora_core=warn,pingora_core::services=error,aws_config=warn")
    });
    let discreet = filter_fn(|event| *event.level() <= Level::INFO || event.target().starts_with("dheera_ai"));
    // Colours are for people; a journal or a file gets plain lines.
    let colours = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours).with_target(true);
    let result = tracing_subscriber::registry().with(filter).with(discreet).with(lines).try_init();
    if let Err(error) = result {
        // Only a second start in one process gets here, as in tests.
        log::debug!("the log is running already: {error}");
    }
}

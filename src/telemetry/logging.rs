//! The program's own log, on standard error; `RUST_LOG` sets its level (default `info`).
//!
//! Standard output belongs to the request records and to the line that says where the proxy runs. Whatever `RUST_LOG`
//! says, other crates are heard from `info` up only: Pingora and the AWS SDK write whole request heads, keys and tokens
//! included, at the levels below (measured with Pingora 0.9.1).

use std::fmt;
use std::io::IsTerminal;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Starts the log. Pingora logs through the `log` crate, which is carried over; its chatter about each failed client
/// connection is only shown from `RUST_LOG=pingora_proxy=info` on, because every failed request has its own record; failed
/// TLS handshakes are shown whenever `RUST_LOG` is set to a level that has them.
pub fn start() {
    let asked = EnvFilter::try_from_default_env().ok();
    let no_handshakes = asked.is_none().then_some(NoHandshakes);
    let filter = asked.unwrap_or_else(|| {
        EnvFilter::new("info,pingora_proxy=off,pingora_core=warn,pingora_core::services=error,aws_config=warn")
    });
    let discreet = filter_fn(|event| *event.level() <= Level::INFO || event.target().starts_with("dheera_ai"));
    // Colours are for people; a journal or a file gets plain lines.
    let colours = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours).with_target(true);
    let result = tracing_subscriber::registry().with(filter).with(discreet).with(no_handshakes).with(lines).try_init();
    if let Err(error) = result {
        // Only a second start in one process gets here, as in tests.
        log::debug!("the log is running already: {error}");
    }
}

/// Drops what Pingora 0.9.1 logs, as an error, of each client that breaks off a handshake, of TLS or HTTP/2: every probe of
/// a load balancer that only connects would fill the log. Its other errors have the same target and must stay.
struct NoHandshakes;

impl<S: Subscriber> Layer<S> for NoHandshakes {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let mut message = Message::default();
        event.record(&mut message);
        !message.0.starts_with("Downstream handshake ") && !message.0.starts_with("H2 handshake error ")
    }
}

#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

//! Opens many event streams at once and measures how their frames arrive: time to the first frame, gaps between frames,
//! and, where the sender wrote the time into them (`bedrock-sim --canned --rate`), how long each was on its way.
//! One thread; progress goes to stderr once a second, one JSON object to stdout at the end.

mod chunks;
mod clock;
mod fault;
mod frames;
mod http1;
mod http2;
mod load;
mod stats;
mod target;

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use load::{Load, Plan};
use target::Target;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Seconds of a burst that does not say.
const BURST_S: u64 = 10;

/// Opens many event streams at once and measures how their frames arrive.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Without --seconds, --burst or --hold-s every stream is opened once and read to its end."
)]
struct Arguments {
    /// Where to POST, such as http://127.0.0.1:4000/model/M/converse-stream.
    #[arg(long)]
    url: String,
    /// A header of each request, as 'Name: value'; may be repeated.
    #[arg(long = "header", value_name = "HEADER")]
    headers: Vec<String>,
    /// File with the body of each request; without one it is {}.
    #[arg(long, value_name = "FILE")]
    body_file: Option<PathBuf>,
    /// Streams open at the same time.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    streams: u32,
    /// The first ones are opened over so many milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    ramp_ms: u64,
    /// Open streams again as they end, for so long; the last ones are read to their end.
    #[arg(long, value_name = "S")]
    seconds: Option<u64>,
    /// One stream after the other on each connection, without ramp, until the seconds (10) are over.
    #[arg(long, conflicts_with = "ramp_ms")]
    burst: bool,
    /// Keep all streams open for so long after the ramp, then leave; those that end are opened again.
    #[arg(long, value_name = "S", conflicts_with_all = ["seconds", "burst"])]
    hold_s: Option<u64>,
    /// Speak HTTP/2 by prior knowledge.
    #[arg(long)]
    h2c: bool,
    /// Streams on each HTTP/2 connection.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 100,
        requires = "h2c",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    streams_per_connection: u32,
}

impl Arguments {
    fn plan(&self) -> Plan {
        let ramp = Duration::from_millis(self.ramp_ms);
        let (reopen_for, cut_after) = if self.burst {
            let whole = Duration::from_secs(self.seconds.unwrap_or(BURST_S));
            (whole, Some(whole))
        } else if let Some(hold) = self.hold_s {
            let whole = ramp + Duration::from_secs(hold);
            (whole, Some(whole))
        } else {
            (Duration::from_secs(self.seconds.unwrap_or(0)), None)
        };
        Plan {
            streams: self.streams,
            ramp,
            reopen_for,
            cut_after,
            streams_per_h2_connection: self.h2c.then_some(self.streams_per_connection),
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to be told if stderr is closed.
            drop(writeln!(std::io::stderr(), "stream-load: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let body = arguments.body_file.as_ref().map_or_else(|| Ok(b"{}".to_vec()), std::fs::read)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(async {
        let target = Target::new(&arguments.url, &arguments.headers, body).await?;
        Ok::<_, Box<dyn Error>>(Load::new(target, arguments.plan()).run().await?)
    })?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{report}")?;
    stdout.flush()?;
    Ok(())
}

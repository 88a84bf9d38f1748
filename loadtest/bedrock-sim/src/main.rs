//! The command: a simulator on a port, until SIGTERM or SIGINT. Prints one line on stdout when it accepts connections,
//! so that scripts can wait for it and learn the port.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bedrock_sim::{Credential, Options, Simulator};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Simulates Amazon Bedrock: checks signatures, answers, bills and fails on demand.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Control (no signature): GET|DELETE /_sim/requests?last=N, GET /_sim/counters, \
GET|PUT|POST|DELETE /_sim/behaviour, GET|DELETE /billed, GET /_sim/billed/rows?last=N or ?from=N&limit=M, \
GET /_sim/health\n\n\
A fault: curl -X POST http://127.0.0.1:PORT/_sim/behaviour \
-d '{\"match\":{\"operation\":\"Converse\",\"times\":1},\"fault\":{\"kind\":\"throttle\",\"retry_after_s\":1}}'"
)]
struct Arguments {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    listen: IpAddr,
    /// Port to listen on; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Price file, in the form of conf/prices.yaml; without one nothing is priced.
    #[arg(long)]
    prices: Option<PathBuf>,
    /// Stream frames per second; 0 is as fast as they are taken.
    #[arg(long, default_value_t = 0)]
    rate: u32,
    /// Delay of every response header, and of every fault before it, in milliseconds.
    #[arg(long, default_value_t = 0)]
    first_byte_ms: u64,
    /// Access key id to accept.
    #[arg(long, default_value = "AKIDEXAMPLE")]
    access_key: String,
    /// Its secret access key.
    #[arg(long, default_value = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")]
    secret: String,
    /// Its session token, if it has one.
    #[arg(long)]
    session_token: Option<String>,
    /// A Bedrock API key to accept as bearer token; may be repeated.
    #[arg(long = "bearer")]
    bearer_tokens: Vec<String>,
    /// Makes answers differ between simulators.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keep no requests for inspection (for load tests).
    #[arg(long)]
    no_record: bool,
    /// Rows of the bill to keep for inspection; the totals cover all.
    #[arg(long, default_value_t = Options::default().bill_rows_max)]
    bill_rows: usize,
    /// Leave out the X-Amzn-Bedrock-*-Token-Count headers of InvokeModel.
    #[arg(long)]
    no_token_headers: bool,
    /// Worker threads.
    #[arg(long, default_value_t = 1)]
    workers: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(arguments.workers.max(1)).enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(run(arguments)),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to be told if stderr is closed.
            drop(writeln!(std::io::stderr(), "bedrock-sim: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let defaults = Options::default();
    let running = Simulator::start(Options {
        listen: SocketAddr::new(arguments.listen, arguments.port),
        credentials: vec![Credential {
            access_key_id: arguments.access_key,
            secret_access_key: arguments.secret,
            session_token: arguments.session_token,
        }],
        bearer_tokens: arguments.bearer_tokens,
        prices: arguments.prices,
        frame_rate_hz: arguments.rate,
        first_byte_delay: Duration::from_millis(arguments.first_byte_ms),
        seed: arguments.seed,
        records_max: if arguments.no_record { 0 } else { defaults.records_max },
        bill_rows_max: arguments.bill_rows,
        token_headers: !arguments.no_token_headers,
        ..defaults
    })
    .await?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "LISTENING on {}", running.url())?;
    stdout.flush()?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    running.shutdown().await;
    Ok(())
}

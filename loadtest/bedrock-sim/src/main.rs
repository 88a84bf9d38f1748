//! The command: a simulator on a port, until SIGTERM or SIGINT. Prints one line on stdout when it accepts connections,
//! so that scripts can wait for it and learn the port.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bedrock_sim::{Canned, Credential, Options, Simulator};
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
    /// Answer from memory, on one thread and HTTP/1.1 only: for load tests. Converse, InvokeModel and ConverseStream,
    /// GET|HEAD /_sim/health and GET /_sim/counters. With --rate every text of a stream holds the time of its sending.
    #[arg(long, conflicts_with_all = [
        "prices", "first_byte_ms", "seed", "bill_rows", "no_token_headers", "workers"
    ])]
    canned: bool,
    /// Authenticate each so-manieth request; 0 is none.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "canned")]
    verify_every: u64,
    /// Text frames of each stream.
    #[arg(long, value_name = "N", default_value_t = Canned::default().frames, requires = "canned")]
    frames: u32,
    /// Answer requests signed for this region with 429.
    #[arg(long, value_name = "REGION", requires = "canned")]
    throttle_region: Option<String>,
}

impl Arguments {
    fn listen(&self) -> SocketAddr {
        SocketAddr::new(self.listen, self.port)
    }

    fn credential(&self) -> Credential {
        Credential {
            access_key_id: self.access_key.clone(),
            secret_access_key: self.secret.clone(),
            session_token: self.session_token.clone(),
        }
    }

    fn canned(self) -> Canned {
        Canned {
            listen: self.listen(),
            credentials: vec![self.credential()],
            bearer_tokens: self.bearer_tokens,
            verify_every: self.verify_every,
            frames: self.frames,
            frame_rate_hz: self.rate,
            throttle_region: self.throttle_region,
        }
    }

    fn options(self) -> Options {
        let defaults = Options::default();
        Options {
            listen: self.listen(),
            credentials: vec![self.credential()],
            bearer_tokens: self.bearer_tokens,
            prices: self.prices,
            frame_rate_hz: self.rate,
            first_byte_delay: Duration::from_millis(self.first_byte_ms),
            seed: self.seed,
            records_max: if self.no_record { 0 } else { defaults.records_max },
            bill_rows_max: self.bill_rows,
            token_headers: !self.no_token_headers,
            ..defaults
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = if arguments.canned {
        tokio::runtime::Builder::new_current_thread().enable_all().build()
    } else {
        tokio::runtime::Builder::new_multi_thread().worker_threads(arguments.workers.max(1)).enable_all().build()
    };
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
    let until_told = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    if arguments.canned {
        let serving = arguments.canned().start()?;
        announce(&serving.url())?;
        until_told.await;
    } else {
        let running = Simulator::start(arguments.options()).await?;
        announce(&running.url())?;
        until_told.await;
        running.shutdown().await;
    }
    Ok(())
}

fn announce(url: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "LISTENING on {url}")?;
    stdout.flush()
}

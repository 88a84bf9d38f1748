//! The `dheera_ai` command.

use std::process::ExitCode;

use dheera_ai::cli::{self, Launch, Outcome};
use dheera_ai::{app, telemetry};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let Launch { config, warnings, given } = match cli::parse_and_load() {
        Outcome::Run(launch) => *launch,
        Outcome::Exit(code) => return code,
    };
    telemetry::logging::start();
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    match app::run(config, given) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

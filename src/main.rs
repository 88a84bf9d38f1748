//! The `dheera_ai` command.

use std::process::ExitCode;

use dheera_ai::cli::{self, Outcome};
use dheera_ai::{app, telemetry};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let (config, warnings) = match cli::parse_and_load() {
        Outcome::Run(config, warnings) => (config, warnings),
        Outcome::Exit(code) => return code,
    };
    telemetry::logging::start();
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    match app::run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

//! `reload`: a running proxy reads its configuration again. What it refuses, and why, is the proxy's to say.

use std::io::Write;

use serde::Deserialize;

use super::client::{Client, Failure, read};

#[derive(Deserialize)]
struct Reloaded {
    result: String,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default)]
    restart_required: Vec<String>,
}

pub(super) fn run(client: &Client, raw: bool, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), Failure> {
    let answer = client.post("/config/reload", "")?;
    if raw {
        return Ok(writeln!(out, "{answer}")?);
    }
    let Reloaded { result, warnings, restart_required } = read(&answer)?;
    for warning in warnings {
        writeln!(err, "warning: {warning}")?;
    }
    match result.as_str() {
        "unchanged" => writeln!(out, "There was nothing to apply.")?,
        _ => writeln!(out, "The configuration is in force.")?,
    }
    if !restart_required.is_empty() {
        writeln!(out, "These take a restart, and are as before: {}", restart_required.join(", "))?;
    }
    Ok(())
}

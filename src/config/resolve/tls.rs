//! TLS for clients: which certificate out of command line, file and environment, and on which port.
//!
//! Names are LiteLLM's. Half a pair is an error, never plain HTTP by mistake.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::variables::Variables;
use crate::config::Tls;
use crate::config::certificate::{CertificateFile, CertificateFiles};
use crate::config::load::CliOverrides;
use crate::config::problem::{At, Located, Told};
use crate::config::raw::RawTls;
use crate::config::section::Text;

const CERTIFICATE: &str = "ssl_certfile_path";
const KEY: &str = "ssl_keyfile_path";

/// `port` is the one of plain HTTP beside `ssl_port`.
pub(super) fn tls(
    raw: RawTls,
    port: u16,
    cli: &CliOverrides,
    variables: &mut Variables<'_>,
) -> Result<Option<Tls>, Told> {
    if raw.unreadable {
        return Err(Told);
    }
    let certificate =
        path(cli.ssl_certfile_path.as_deref(), "--ssl-certfile-path", raw.certificate, "SSL_CERTFILE_PATH", variables);
    let key = path(cli.ssl_keyfile_path.as_deref(), "--ssl-keyfile-path", raw.key, "SSL_KEYFILE_PATH", variables);
    let ssl_port = match cli.ssl_port {
        Some(value) => Some(Located { value, at: At::command_line("--ssl-port") }),
        None => raw.port.and_then(|Located { value, at }| u16::try_from(value).ok().map(|value| Located { value, at })),
    };
    let (certificate, key) = match (certificate, key) {
        (Some(certificate), Some(key)) => (certificate, key),
        (None, None) => {
            let Some(ssl_port) = ssl_port else { return Ok(None) };
            let remedy = format!("Add `{CERTIFICATE}` and `{KEY}`, or remove it; `dheera_ai dev-cert` makes both");
            variables.findings.problem(&ssl_port.at, "has no effect without a certificate", remedy);
            return Err(Told);
        }
        (Some(alone), None) => return Err(half(&alone, KEY, "the private key of that certificate", variables)),
        (None, Some(alone)) => return Err(half(&alone, CERTIFICATE, "the certificate of that key", variables)),
    };
    if let Some(both) = ssl_port.as_ref().filter(|both| both.value == port && port != 0) {
        let what = format!("is {port}, the port of plain HTTP");
        let remedy = "Choose another, or remove it: then `port` speaks TLS and nothing else";
        variables.findings.problem(&both.at, what, remedy);
        return Err(Told);
    }
    load(&certificate, &key, ssl_port.map(|port| port.value), variables).map(Some)
}

/// Command line, file, environment: the first that says something.
fn path(
    cli: Option<&Path>,
    option: &'static str,
    written: Option<Text>,
    variable: &str,
    variables: &mut Variables<'_>,
) -> Option<Located<PathBuf>> {
    if let Some(path) = cli {
        return Some(Located { value: path.to_owned(), at: At::command_line(option) });
    }
    let text = written.or_else(|| variables.text(variable))?;
    Some(Located { value: PathBuf::from(text.value.expose()), at: text.at })
}

fn half(alone: &Located<PathBuf>, missing: &str, meaning: &str, variables: &mut Variables<'_>) -> Told {
    let what = format!("stands without `{missing}`");
    variables.findings.problem(&alone.at, what, format!("Add `{missing}`, {meaning}, or remove this one"));
    Told
}

fn load(
    certificate: &Located<PathBuf>,
    key: &Located<PathBuf>,
    port: Option<u16>,
    variables: &mut Variables<'_>,
) -> Result<Tls, Told> {
    let files = CertificateFiles { certificate: certificate.value.clone(), key: key.value.clone() };
    match files.load() {
        Ok(read) => {
            if let Some(what) = read.untimely(jiff::Timestamp::now().as_second()) {
                let what = format!("{} {what}", name(certificate));
                variables.findings.warn(&certificate.at, what, "Clients refuse it: renew it, or correct the clock");
            }
            Ok(Tls { files, certificate: Arc::new(read), port })
        }
        Err(flaw) => {
            let wrong = match flaw.file {
                CertificateFile::Certificate => certificate,
                CertificateFile::Key => key,
            };
            variables.findings.problem(&wrong.at, format!("{} {}", name(wrong), flaw.what), flaw.remedy);
            Err(Told)
        }
    }
}

/// A file for an error text. What an environment variable holds is repeated only if it is the name of a file.
fn name(path: &Located<PathBuf>) -> String {
    let shown = path.value.display().to_string();
    if path.value.exists() { format!("`{shown}`") } else { path.at.quote(&shown) }
}

//! The subcommands' way to a running proxy: a request of its management API over HTTP, with the master key.
//!
//! Blocking, with deadlines. It follows no redirect and uses no HTTP proxy, because either would send the master key
//! to somebody else. It does not know what the answers mean.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, http};

use crate::types::secret::Secret;

/// The management API asks the store once or twice; a report over a year asks it a hundred times.
const TIMEOUT: Duration = Duration::from_mins(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest answer is a year of the spend log by day and model.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The proxy refused, and says why.
    Refused { status: u16, message: String },
    /// The proxy was not reached, or did not answer as it does.
    Unreachable(String),
    /// The command cannot be carried out as it was given.
    Impossible(String),
    /// Our own stdout or stderr cannot be written.
    Output(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { message, .. } | Self::Unreachable(message) | Self::Impossible(message) => {
                f.write_str(message)
            }
            Self::Output(error) => error.fmt(f),
        }
    }
}

/// A running proxy.
pub(super) struct Client {
    agent: Agent,
    url: String,
    authorization: Secret,
}

impl Client {
    /// `url` as the user wrote it, `ca` a file of certificates that are trusted in place of the public ones.
    ///
    /// # Errors
    /// When `ca` cannot be read, or the URL is none.
    pub(super) fn new(url: &str, master_key: &Secret, ca: Option<&Path>) -> Result<Self, Failure> {
        let url = url.trim().trim_end_matches('/');
        if !(url.starts_with("http://") || url.starts_with("https://")) {
            let what = format!("`{url}` is not the URL of a proxy: write one such as http://127.0.0.1:4000");
            return Err(Failure::Impossible(what));
        }
        let mut tls = TlsConfig::builder();
        if let Some(path) = ca {
            tls = tls.root_certs(RootCerts::Specific(certificates(path)?.into()));
        }
        let config = Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(concat!("dheera_ai/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls.build())
            .build();
        let authorization = Secret::new(format!("Bearer {}", master_key.expose()));
        Ok(Self { agent: config.new_agent(), url: url.to_owned(), authorization })
    }

    /// The text of an answer; `query` in names and values that are not encoded yet.
    pub(super) fn get(&self, path: &str, query: &[(&str, &str)], accept: &str) -> Result<String, Failure> {
        let mut url = format!("{}{path}", self.url);
        for (index, (name, value)) in query.iter().enumerate() {
            url.push(if index == 0 { '?' } else { '&' });
            url.push_str(name);
            url.push('=');
            url.extend(utf8_percent_encode(value, NON_ALPHANUMERIC));
        }
        let request =
            self.agent.get(&url).header("authorization", self.authorization.expose()).header("accept", accept);
        self.read(request.call())
    }

    pub(super) fn post(&self, path: &str, body: &str) -> Result<String, Failure> {
        let request = self
            .agent
            .post(format!("{}{path}", self.url))
            .header("authorization", self.authorization.expose())
            .header("accept", "application/json")
            .header("content-type", "application/json");
        self.read(request.send(body))
    }

    fn read(&self, answer: Result<http::Response<Body>, ureq::Error>) -> Result<String, Failure> {
        let mut answer = answer.map_err(|error| self.unreachable(&error))?;
        let status = answer.status().as_u16();
        let text = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
        let text = text.map_err(|error| self.unreachable(&error))?;
        if (200..300).contains(&status) {
            return Ok(text);
        }
        let message = match serde_json::from_str::<Told>(&text) {
            Ok(told) => told.message,
            Err(_) => {
                format!("{} answers {status}, which is no answer of a dheera_ai proxy. {}", self.url, hint(status))
            }
        };
        Err(Failure::Refused { status, message })
    }

    fn unreachable(&self, error: &ureq::Error) -> Failure {
        let url = &self.url;
        let what = match error {
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                "nothing listens there".to_owned()
            }
            ureq::Error::ConnectionFailed => "nothing listens there".to_owned(),
            ureq::Error::HostNotFound => "there is no such host".to_owned(),
            ureq::Error::Timeout(_) => format!("there was no answer within {} s", TIMEOUT.as_secs()),
            other => other.to_string(),
        };
        Failure::Unreachable(format!(
            "the proxy at {url} cannot be reached: {what}. Start it with `dheera_ai --config <file>`, or say where it \
             is with --url or DHEERA_AI_URL"
        ))
    }
}

/// An error of the proxy, in AWS's form.
#[derive(Deserialize)]
struct Told {
    #[serde(alias = "Message")]
    message: String,
}

/// Reads an answer of the proxy.
pub(super) fn read<'a, T: Deserialize<'a>>(answer: &'a str) -> Result<T, Failure> {
    let what = "the proxy's answer is not what this version expects: use the same version of dheera_ai on both sides";
    serde_json::from_str(answer).map_err(|error| Failure::Unreachable(format!("{what} ({error})")))
}

fn hint(status: u16) -> &'static str {
    match status {
        300..400 => "It points elsewhere, and the master key is not sent there: give that address with --url",
        _ => "Check --url",
    }
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, Failure> {
    let pem = std::fs::read(path)
        .map_err(|error| Failure::Impossible(format!("{} cannot be read: {error}", path.display())))?;
    let certificates: Vec<Certificate<'static>> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(Failure::Impossible(format!("{} holds no PEM certificate", path.display())));
    }
    Ok(certificates)
}

//! From a file, a text, or the environment alone to a [`Config`], or to all problems of it.
//!
//! The order matters in one place: `environment_variables` is read first, because every other value may refer to it.
//! This is the only step of the configuration that reads files, but for the certificate of the TLS port.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::problem::{At, Findings, Origin, Problems, Told, Warning};
use super::raw::{self, Raw};
use super::secrets::{Environment, Overlay};
use super::section::Reader;
use super::{Config, defaults, resolve};
use crate::types::secret::Secret;
use crate::yaml::{self, Node};

/// Where the configuration is written.
#[derive(Debug, Clone)]
pub enum Source {
    File(PathBuf),
    /// A text, and the name by which problems call it.
    Text {
        name: String,
        text: String,
    },
    /// No configuration: every id and operation goes directly to the region and account of the environment.
    Direct,
}

/// What the command line says; it comes before file and environment.
#[derive(Debug, Clone, Default)]
pub struct CliOverrides {
    pub host: Option<String>,
    pub port: Option<u16>,
    pub ssl_certfile_path: Option<PathBuf>,
    pub ssl_keyfile_path: Option<PathBuf>,
    pub ssl_port: Option<u16>,
    pub num_workers: Option<usize>,
    pub allow_anonymous: bool,
    pub upgrade: bool,
    pub upgrade_socket: Option<PathBuf>,
}

/// Where the configuration of a process comes from, for reading it again while the process runs.
#[derive(Debug, Clone)]
pub struct Given {
    pub source: Source,
    pub cli: CliOverrides,
}

/// A configuration that can be used, and what its operator should know about it.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    pub warnings: Vec<Warning>,
}

/// Loads and validates a configuration.
///
/// # Errors
/// All problems at once, each with its place and remedy.
pub fn load(source: Source, environment: &dyn Environment, cli: &CliOverrides) -> Result<Loaded, Problems> {
    let mut findings = Findings::default();
    let name: Arc<str> = match &source {
        Source::File(path) => path.display().to_string().into(),
        Source::Text { name, .. } => name.as_str().into(),
        Source::Direct => "environment".into(),
    };
    let whole = At { origin: Origin::WholeFile(Arc::clone(&name)), path: String::new(), variable: None };
    let text = match source {
        Source::File(path) => read_file(&path, &whole, &mut findings),
        Source::Text { text, .. } => Some(Zeroizing::new(text)),
        Source::Direct => Some(Zeroizing::new(String::new())),
    };
    let config = text.and_then(|text| {
        let tree = tree(&text, &name, &mut findings).ok()?;
        let (raw, exported, environment) = read_tree(tree.as_ref(), &name, environment, &mut findings);
        resolve::resolve(raw, &environment, exported, cli, &mut findings)
    });
    findings.conclude(config, &whole).map(|(config, warnings)| Loaded { config, warnings })
}

/// `None` when the text holds nothing.
fn tree(text: &str, name: &Arc<str>, findings: &mut Findings) -> Result<Option<Node>, Told> {
    let mut syntax = Vec::new();
    let tree = yaml::parse(text, &mut syntax);
    let unreadable = tree.is_none() && !syntax.is_empty();
    for problem in syntax {
        let origin = Origin::File { name: Arc::clone(name), line: problem.place.line, column: problem.place.column };
        let at = At { origin, path: String::new(), variable: None };
        findings.problem(&at, problem.what, problem.remedy);
    }
    if unreadable { Err(Told) } else { Ok(tree) }
}

/// What is written, the variables of `environment_variables`, and the environment with them in front.
fn read_tree<'a>(
    tree: Option<&Node>,
    name: &Arc<str>,
    environment: &'a dyn Environment,
    findings: &mut Findings,
) -> (Raw, BTreeMap<String, Secret>, Overlay<'a>) {
    let mut overlay = Overlay { set: BTreeMap::new(), base: environment };
    let Some(root) = tree else { return (Raw::default(), BTreeMap::new(), overlay) };
    let mut reader = Reader { file: Arc::clone(name), environment, findings };
    overlay.set = raw::environment_variables(&mut reader, root);
    let mut reader = Reader { file: Arc::clone(name), environment: &overlay, findings };
    let raw = raw::read(&mut reader, root);
    (raw, overlay.set.clone(), overlay)
}

fn read_file(path: &Path, whole: &At, findings: &mut Findings) -> Option<Zeroizing<String>> {
    let mut bytes = Zeroizing::new(Vec::new());
    let read =
        std::fs::File::open(path).and_then(|file| file.take(defaults::FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        let what = format!("the configuration cannot be read: {error}");
        findings.problem(whole, what, "Check the path given with --config and who may read it");
        return None;
    }
    if u64::try_from(bytes.len()).is_ok_and(|length| length > defaults::FILE_BYTES_MAX) {
        let what = format!("is larger than {} bytes", defaults::FILE_BYTES_MAX);
        findings.problem(whole, what, "Check that --config names a configuration");
        return None;
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => Some(Zeroizing::new(text.to_owned())),
        Err(error) => {
            let what = format!("is not UTF-8 from byte {} on", error.valid_up_to());
            findings.problem(whole, what, "Save the file as UTF-8");
            None
        }
    }
}

#[cfg(test)]
mod tests;

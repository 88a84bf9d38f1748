//! The command line: what may be asked for, the help that teaches it, and the answers of `check`, `config show` and
//! `version`. Running the proxy is the application's part; here it is only asked for. `key …`, `spend` and `reload` talk
//! to a running proxy (`client.rs`) and need no configuration.
//!
//! Exit codes: 0 done, 1 the configuration has problems or the proxy refused, 2 the command line is wrong.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{self, ExitCode};

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

use self::client::{Client, Failure};
use self::dev_cert::DevCertArgs;
use self::key::KeyCommand;
use self::spend::SpendArgs;
use crate::aws::endpoint::is_application_inference_profile;
use crate::config::Config;
use crate::config::load::{CliOverrides, Given, Loaded, Source, load};
use crate::config::problem::Warning;
use crate::config::secrets::{Environment, ProcessEnvironment};
use crate::config::show;
use crate::types::secret::Secret;

mod client;
mod dev_cert;
mod fields;
mod key;
mod reload;
mod spend;

/// What the program has to do next.
#[derive(Debug)]
pub enum Outcome {
    /// Run the proxy.
    Run(Box<Launch>),
    /// Everything was said already.
    Exit(ExitCode),
}

/// The configuration to run with.
#[derive(Debug)]
pub struct Launch {
    pub config: Config,
    pub warnings: Vec<Warning>,
    /// Where it was read, and is read again when asked for.
    pub given: Given,
}

const EXIT_PROBLEMS: u8 = 1;
const EXIT_USAGE: u8 = 2;

const AFTER_HELP: &str = "\
Examples:
  dheera_ai --config conf/config.yaml             serve the models of a file
  AWS_REGION=us-west-2 dheera_ai                  no file: serve every id of your AWS account, to this machine only
  dheera_ai check --config conf/config.yaml       name every mistake in a file, with its line and what to do
  dheera_ai config show --config conf/config.yaml print what is in force, secrets redacted
  dheera_ai key create --alias ci --max-budget 10 make a key that may spend ten dollars, of the proxy that runs here
  dheera_ai spend --by key                        who spent how much this month
  dheera_ai reload                                apply the changed configuration file without a restart
  dheera_ai dev-cert                              make a certificate for https:// on this machine

  curl http://127.0.0.1:4000/bedrock/model/amazon.nova-lite-v1:0/converse \\
       -H 'Authorization: Bearer '\"$DHEERA_AI_MASTER_KEY\" -H 'Content-Type: application/json' \\
       -d '{\"messages\":[{\"role\":\"user\",\"content\":[{\"text\":\"Hello\"}]}]}'

Environment:
  DHEERA_AI_MASTER_KEY            the key that may do everything; without it only this machine may call
  DHEERA_AI_URL                   where `key`, `spend` and `reload` find the proxy
  DHEERA_AI_STORE_PATH            directory of keys, budgets and spend
  REDIS_URL, REDIS_HOST           Redis, for keys and budgets that several proxies share
  SSL_CERTFILE_PATH, SSL_KEYFILE_PATH
                                  certificate and private key: the port speaks TLS then
  AWS_REGION_NAME, AWS_REGION, AWS_DEFAULT_REGION
                                  region where the configuration names none, in this order
  AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_PROFILE, …
                                  the AWS credential chain, for entries without credentials of their own
  AWS_BEARER_TOKEN_BEDROCK        a Bedrock API key, before the chain where an operation accepts it
  AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_BEDROCK_RUNTIME, AWS_ENDPOINT_URL_BEDROCK_AGENT_RUNTIME, …
                                  servers to call in place of AWS, http:// allowed
  AWS_USE_FIPS_ENDPOINT, AWS_USE_DUALSTACK_ENDPOINT
                                  which of AWS's own hosts to call
  AWS_CA_BUNDLE                   certificates to trust besides the system's
  RUST_LOG                        log level: error, warn, info, debug, trace

docs/configuration.md describes every key of the file.";

/// Amazon Bedrock behind one address: clients keep Bedrock's own API and SDKs, the proxy holds the AWS credentials.
#[derive(Debug, Parser)]
#[command(name = "dheera_ai", version, after_help = AFTER_HELP, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    serving: Serving,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What a configuration is made of; before a subcommand or behind it.
#[derive(Debug, Default, Args)]
struct Serving {
    /// Configuration file; without it every id goes directly to the account and region of the environment
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address to listen on [default: 0.0.0.0 with a master key, else 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    host: Option<String>,
    /// Port to listen on; 0 picks a free one [default: 4000]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Certificate as PEM, then those of intermediate authorities: `--port` speaks TLS then
    #[arg(long, alias = "ssl_certfile_path", value_name = "FILE")]
    ssl_certfile_path: Option<PathBuf>,
    /// Private key of the certificate, PEM, not encrypted
    #[arg(long, alias = "ssl_keyfile_path", value_name = "FILE")]
    ssl_keyfile_path: Option<PathBuf>,
    /// Port for TLS, so that `--port` stays plain HTTP; 0 picks a free one
    #[arg(long, alias = "ssl_port", value_name = "PORT")]
    ssl_port: Option<u16>,
    /// Worker threads [default: one per core]
    #[arg(long, value_name = "COUNT", value_parser = workers)]
    num_workers: Option<usize>,
    /// Serve other machines without a master key: whoever reaches the port spends on your AWS account
    #[arg(long)]
    allow_anonymous: bool,
    /// Take the sockets over from the proxy that runs with the same configuration, and let it finish its requests
    #[arg(short, long)]
    upgrade: bool,
    /// Where the one hands them to the other [default: upgrade.sock in store_path]
    #[arg(long, alias = "upgrade_socket", value_name = "PATH")]
    upgrade_socket: Option<PathBuf>,
}

impl Serving {
    /// What stands behind a subcommand wins.
    fn or(self, before: Self) -> Self {
        Self {
            config: self.config.or(before.config),
            host: self.host.or(before.host),
            port: self.port.or(before.port),
            ssl_certfile_path: self.ssl_certfile_path.or(before.ssl_certfile_path),
            ssl_keyfile_path: self.ssl_keyfile_path.or(before.ssl_keyfile_path),
            ssl_port: self.ssl_port.or(before.ssl_port),
            num_workers: self.num_workers.or(before.num_workers),
            allow_anonymous: self.allow_anonymous || before.allow_anonymous,
            upgrade: self.upgrade || before.upgrade,
            upgrade_socket: self.upgrade_socket.or(before.upgrade_socket),
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the configuration, list its deployments, and exit
    Check {
        #[command(flatten)]
        serving: Serving,
    },
    /// Look at the configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Make and manage virtual keys of a running proxy
    Key {
        #[command(flatten)]
        proxy: Proxy,
        #[command(subcommand)]
        command: Box<KeyCommand>,
    },
    /// Show what was spent
    Spend {
        #[command(flatten)]
        proxy: Proxy,
        #[command(flatten)]
        arguments: SpendArgs,
    },
    /// Have a running proxy read its configuration again, and say what became of it
    Reload {
        #[command(flatten)]
        proxy: Proxy,
    },
    /// Make a certificate for trying TLS on this machine, and say how clients come to trust it
    #[command(after_help = dev_cert::AFTER_HELP)]
    DevCert(DevCertArgs),
    /// Print the version and exit
    Version,
}

/// How to reach the proxy. The master key comes from `DHEERA_AI_MASTER_KEY` alone: others can see arguments.
#[derive(Debug, Args)]
#[command(next_help_heading = "Proxy")]
struct Proxy {
    /// Where the proxy is [default: DHEERA_AI_URL, else http://127.0.0.1:4000]
    #[arg(long, value_name = "URL", global = true)]
    url: Option<String>,
    /// PEM certificates to trust in place of the public ones
    #[arg(long, value_name = "FILE", global = true)]
    ca: Option<PathBuf>,
    /// Print the proxy's answer as it is
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print the effective configuration as YAML, secrets redacted
    Show {
        #[command(flatten)]
        serving: Serving,
    },
}

fn workers(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|count| (1..=1024).contains(count))
        .ok_or_else(|| "write a number from 1 to 1024".to_owned())
}

/// Reads the command line and the configuration of this process. Answers what can be answered here on stdout,
/// mistakes and warnings on stderr.
#[must_use]
pub fn parse_and_load() -> Outcome {
    let (mut out, mut err) = (io::stdout(), io::stderr());
    // Whoever closed our stdout or stderr does not want to read of it.
    let outcome = answer(std::env::args_os(), &ProcessEnvironment, &mut out, &mut err)
        .unwrap_or(Outcome::Exit(EXIT_PROBLEMS.into()));
    match outcome {
        Outcome::Run(launch) => match export(&launch.config.environment) {
            Ok(()) => Outcome::Run(launch),
            Err(error) => {
                let remedy = "set the `environment_variables` of the configuration outside of it";
                // Nobody is left to tell when this cannot be written either.
                writeln!(err, "the program cannot start itself anew: {error}; {remedy}").unwrap_or_default();
                Outcome::Exit(EXIT_PROBLEMS.into())
            }
        },
        exit @ Outcome::Exit(_) => exit,
    }
}

/// Puts variables of the configuration where the AWS SDK looks for them: into the environment of the process. Changing
/// it in place is unsound once threads run, so the process replaces itself, under the same id, with the variables set.
fn export(variables: &BTreeMap<String, Secret>) -> io::Result<()> {
    let is_set =
        |(name, value): (&String, &Secret)| matches!(ProcessEnvironment.variable(name), Ok(Some(set)) if set == *value);
    if variables.iter().all(is_set) {
        return Ok(());
    }
    let mut anew = process::Command::new(std::env::current_exe()?);
    anew.args(std::env::args_os().skip(1));
    anew.envs(variables.iter().map(|(name, value)| (name, value.expose())));
    Err(anew.exec())
}

/// As [`parse_and_load`], with everything from outside as arguments.
///
/// # Errors
/// When writing fails.
fn answer(
    arguments: impl IntoIterator<Item = OsString>,
    environment: &dyn Environment,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<Outcome> {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
                write!(out, "{}", error.render())?;
                return Ok(Outcome::Exit(ExitCode::SUCCESS));
            }
            write!(err, "{}", error.render())?;
            return Ok(Outcome::Exit(EXIT_USAGE.into()));
        }
    };
    let Cli { serving: before, command } = cli;
    match command {
        None => {
            let given = given(before);
            let loaded = configuration(given.clone(), environment, err)?;
            Ok(loaded.map_or(Outcome::Exit(EXIT_PROBLEMS.into()), |Loaded { config, warnings }| {
                Outcome::Run(Box::new(Launch { config, warnings, given }))
            }))
        }
        Some(Command::Check { serving }) => {
            let Some(Loaded { config, warnings }) = configuration(given(serving.or(before)), environment, err)? else {
                return Ok(Outcome::Exit(EXIT_PROBLEMS.into()));
            };
            check(&config, &warnings, out)?;
            Ok(Outcome::Exit(ExitCode::SUCCESS))
        }
        Some(Command::Config { command: ConfigCommand::Show { serving } }) => {
            let Some(Loaded { config, warnings }) = configuration(given(serving.or(before)), environment, err)? else {
                return Ok(Outcome::Exit(EXIT_PROBLEMS.into()));
            };
            for warning in &warnings {
                writeln!(err, "warning: {warning}")?;
            }
            out.write_all(show::to_yaml(&config).as_bytes())?;
            Ok(Outcome::Exit(ExitCode::SUCCESS))
        }
        Some(Command::Key { proxy, command }) => {
            let done = client(&proxy, environment).and_then(|client| key::run(*command, &client, proxy.json, out, err));
            concluded(done, err)
        }
        Some(Command::Spend { proxy, arguments }) => {
            let done = client(&proxy, environment).and_then(|client| spend::run(&arguments, &client, proxy.json, out));
            concluded(done, err)
        }
        Some(Command::Reload { proxy }) => {
            let done = client(&proxy, environment).and_then(|client| reload::run(&client, proxy.json, out, err));
            concluded(done, err)
        }
        Some(Command::DevCert(arguments)) => concluded(dev_cert::run(&arguments, out), err),
        Some(Command::Version) => {
            writeln!(out, "dheera_ai {}", env!("CARGO_PKG_VERSION"))?;
            Ok(Outcome::Exit(ExitCode::SUCCESS))
        }
    }
}

fn given(serving: Serving) -> Given {
    let cli = CliOverrides {
        host: serving.host,
        port: serving.port,
        ssl_certfile_path: serving.ssl_certfile_path,
        ssl_keyfile_path: serving.ssl_keyfile_path,
        ssl_port: serving.ssl_port,
        num_workers: serving.num_workers,
        allow_anonymous: serving.allow_anonymous,
        upgrade: serving.upgrade,
        upgrade_socket: serving.upgrade_socket,
    };
    Given { source: serving.config.map_or(Source::Direct, Source::File), cli }
}

/// The configuration, `None` when its problems were told.
fn configuration(given: Given, environment: &dyn Environment, err: &mut dyn Write) -> io::Result<Option<Loaded>> {
    match load(given.source, environment, &given.cli) {
        Ok(loaded) => Ok(Some(loaded)),
        Err(problems) => {
            writeln!(err, "{problems}")?;
            Ok(None)
        }
    }
}

const DEFAULT_URL: &str = "http://127.0.0.1:4000";

fn client(proxy: &Proxy, environment: &dyn Environment) -> Result<Client, Failure> {
    let variable = |name: &str| match environment.variable(name) {
        Ok(value) => Ok(value.filter(|value| !value.expose().trim().is_empty())),
        Err(_) => Err(Failure::Impossible(format!("the environment variable {name} is not UTF-8"))),
    };
    let master_key = variable("DHEERA_AI_MASTER_KEY")?.ok_or_else(|| {
        let what = "set the environment variable DHEERA_AI_MASTER_KEY to the master key of the proxy";
        Failure::Impossible(what.to_owned())
    })?;
    let from_environment = variable("DHEERA_AI_URL")?;
    let url = proxy.url.as_deref().or(from_environment.as_ref().map(Secret::expose)).unwrap_or(DEFAULT_URL);
    Client::new(url, &master_key, proxy.ca.as_deref())
}

fn concluded(done: Result<(), Failure>, err: &mut dyn Write) -> io::Result<Outcome> {
    match done {
        Ok(()) => Ok(Outcome::Exit(ExitCode::SUCCESS)),
        Err(Failure::Output(error)) => Err(error),
        Err(failure) => {
            writeln!(err, "error: {failure}")?;
            Ok(Outcome::Exit(EXIT_PROBLEMS.into()))
        }
    }
}

fn check(config: &Config, warnings: &[Warning], out: &mut dyn Write) -> io::Result<()> {
    out.write_all(show::summary(config).as_bytes())?;
    for deployment in config.deployments.iter().filter(|deployment| !show::is_priced(config, deployment)) {
        let id = &deployment.id;
        if is_application_inference_profile(deployment.model_id.as_str()) {
            writeln!(
                out,
                "warning: {id} has a price only if AWS tells its model (bedrock:GetInferenceProfile): set \
                 `model_info.base_model` to need no answer"
            )?;
            continue;
        }
        writeln!(
            out,
            "warning: {id} has no price: set `model_info.base_model` or prices; its calls count as unpriced"
        )?;
    }
    for warning in warnings {
        writeln!(out, "warning: {warning}")?;
    }
    writeln!(out, "{}", show::listen(config))?;
    writeln!(out, "{}", show::store(config))?;
    writeln!(out, "The configuration is valid.")
}

#[cfg(test)]
mod tests;

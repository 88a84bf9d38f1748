//! The command line: what may be asked for, the help that teaches it, and the answers of `check`, `config show` and
//! `version`. Running the proxy is the application's part; here it is only asked for.
//!
//! Exit codes: 0 done, 1 the configuration has problems, 2 the command line is wrong.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{self, ExitCode};

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::config::Config;
use crate::config::load::{CliOverrides, Loaded, Source, load};
use crate::config::problem::Warning;
use crate::config::secrets::{Environment, ProcessEnvironment};
use crate::config::show;
use crate::types::secret::Secret;

/// What the program has to do next.
#[derive(Debug)]
pub enum Outcome {
    /// Run the proxy.
    Run(Box<Config>, Vec<Warning>),
    /// Everything was said already.
    Exit(ExitCode),
}

const EXIT_PROBLEMS: u8 = 1;
const EXIT_USAGE: u8 = 2;

const AFTER_HELP: &str = "\
Examples:
  dheera_ai --config conf/config.yaml             serve the models of a file
  AWS_REGION=us-west-2 dheera_ai                  no file: serve every id of your AWS account, to this machine only
  dheera_ai check --config conf/config.yaml       name every mistake in a file, with its line and what to do
  dheera_ai config show --config conf/config.yaml print what is in force, secrets redacted

  curl http://127.0.0.1:4000/bedrock/model/amazon.nova-lite-v1:0/converse \\
       -H 'Authorization: Bearer '\"$DHEERA_AI_MASTER_KEY\" -H 'Content-Type: application/json' \\
       -d '{\"messages\":[{\"role\":\"user\",\"content\":[{\"text\":\"Hello\"}]}]}'

Environment:
  DHEERA_AI_MASTER_KEY            the key that clients send; without it only this machine may call
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
    /// Configuration file; without it every id goes directly to the account and region of the environment
    #[arg(short, long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Address to listen on [default: 0.0.0.0 with a master key, else 127.0.0.1]
    #[arg(long, value_name = "ADDRESS", global = true)]
    host: Option<String>,
    /// Port to listen on; 0 picks a free one [default: 4000]
    #[arg(long, value_name = "PORT", global = true)]
    port: Option<u16>,
    /// Worker threads [default: one per core]
    #[arg(long, value_name = "COUNT", global = true, value_parser = workers)]
    num_workers: Option<usize>,
    /// Serve other machines without a master key: whoever reaches the port spends on your AWS account
    #[arg(long, global = true)]
    allow_anonymous: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the configuration, list its deployments, and exit
    Check,
    /// Look at the configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Print the version and exit
    Version,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print the effective configuration as YAML, secrets redacted
    Show,
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
        Outcome::Run(config, warnings) => match export(&config.environment) {
            Ok(()) => Outcome::Run(config, warnings),
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
    if matches!(cli.command, Some(Command::Version)) {
        writeln!(out, "dheera_ai {}", env!("CARGO_PKG_VERSION"))?;
        return Ok(Outcome::Exit(ExitCode::SUCCESS));
    }
    let source = cli.config.map_or(Source::Direct, Source::File);
    let overrides = CliOverrides {
        host: cli.host,
        port: cli.port,
        num_workers: cli.num_workers,
        allow_anonymous: cli.allow_anonymous,
    };
    let Loaded { config, warnings } = match load(source, environment, &overrides) {
        Ok(loaded) => loaded,
        Err(problems) => {
            writeln!(err, "{problems}")?;
            return Ok(Outcome::Exit(EXIT_PROBLEMS.into()));
        }
    };
    match cli.command {
        None => Ok(Outcome::Run(Box::new(config), warnings)),
        Some(Command::Check) => {
            check(&config, &warnings, out)?;
            Ok(Outcome::Exit(ExitCode::SUCCESS))
        }
        Some(Command::Config { command: ConfigCommand::Show }) => {
            for warning in &warnings {
                writeln!(err, "warning: {warning}")?;
            }
            out.write_all(show::to_yaml(&config).as_bytes())?;
            Ok(Outcome::Exit(ExitCode::SUCCESS))
        }
        Some(Command::Version) => Ok(Outcome::Exit(ExitCode::SUCCESS)),
    }
}

fn check(config: &Config, warnings: &[Warning], out: &mut dyn Write) -> io::Result<()> {
    out.write_all(show::summary(config).as_bytes())?;
    for deployment in config.deployments.iter().filter(|deployment| !show::is_priced(config, deployment)) {
        let id = &deployment.id;
        writeln!(
            out,
            "warning: {id} has no price: set `model_info.base_model` or prices; its calls count as unpriced"
        )?;
    }
    for warning in warnings {
        writeln!(out, "warning: {warning}")?;
    }
    writeln!(out, "The configuration is valid.")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exit code as text, or `run`; then stdout and stderr.
    fn run(arguments: &[&str], variables: &[(&str, &str)]) -> (String, String, String) {
        let environment: BTreeMap<String, Secret> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value))).collect();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let arguments = std::iter::once("dheera_ai").chain(arguments.iter().copied()).map(OsString::from);
        let outcome = match answer(arguments, &environment, &mut out, &mut err).unwrap() {
            Outcome::Run(..) => "run".to_owned(),
            Outcome::Exit(code) if code == ExitCode::SUCCESS => "0".to_owned(),
            Outcome::Exit(code) if code == ExitCode::from(1) => "1".to_owned(),
            Outcome::Exit(code) if code == ExitCode::from(2) => "2".to_owned(),
            Outcome::Exit(code) => format!("{code:?}"),
        };
        (outcome, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    fn shipped(name: &str) -> String {
        format!("{}/conf/{name}", env!("CARGO_MANIFEST_DIR"))
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn without_arguments_the_proxy_runs_from_the_environment() {
        assert_eq!(run(&[], &[]).0, "run");
        assert_eq!(run(&["--port", "0", "--host", "127.0.0.1", "--num-workers", "2"], &[]).0, "run");
    }

    #[test]
    fn help_and_version_exit_with_success_on_stdout() {
        let (code, out, err) = run(&["--help"], &[]);
        assert_eq!((code.as_str(), err.as_str()), ("0", ""));
        for taught in ["--config", "check", "config", "AWS_BEARER_TOKEN_BEDROCK", "curl "] {
            assert!(out.contains(taught), "{taught}");
        }
        assert!(run(&["version"], &[]).1.starts_with("dheera_ai "));
        assert_eq!(run(&["--version"], &[]).0, "0");
    }

    #[test]
    fn a_wrong_command_line_exits_with_two() {
        for arguments in
            [vec!["--prot", "1"], vec!["--port", "70000"], vec!["--num-workers", "0"], vec!["chek"], vec!["config"]]
        {
            let (code, out, err) = run(&arguments, &[]);
            assert_eq!((code.as_str(), out.as_str()), ("2", ""), "{arguments:?}");
            assert!(!err.is_empty());
        }
    }

    #[test]
    fn check_lists_every_deployment_of_the_demo() {
        let (code, out, err) = run(&["check", "-c", &shipped("demo.yaml")], &[("AWS_REGION", "us-east-1")]);
        assert_eq!((code.as_str(), err.as_str()), ("0", ""));
        for shown in ["my-bedrock-model", "my-claude-model", "my-cohere-model", "static keys", "is valid"] {
            assert!(out.contains(shown), "{shown} in {out}");
        }
        assert!(!out.contains("UNKNOWN"), "{out}");
    }

    #[test]
    fn a_bad_configuration_exits_with_one_and_names_the_problem() {
        let (code, out, err) = run(&["check", "--config", "/nowhere/config.yaml"], &[]);
        assert_eq!((code.as_str(), out.as_str()), ("1", ""));
        assert!(err.contains("/nowhere/config.yaml: the configuration cannot be read"), "{err}");
        assert_eq!(run(&["--host", "0.0.0.0"], &[]).0, "1");
        assert_eq!(run(&["--host", "0.0.0.0", "--allow-anonymous"], &[]).0, "run");
        assert_eq!(run(&["--host", "0.0.0.0"], &[("DHEERA_AI_MASTER_KEY", "sk-0123456789abcdef")]).0, "run");
    }

    #[test]
    fn config_show_prints_yaml_without_secrets() {
        let variables = [("DHEERA_AI_MASTER_KEY", "sk-canary-0123456789"), ("AWS_REGION", "us-east-1")];
        let (code, out, err) = run(&["config", "show", "--config", &shipped("demo.yaml")], &variables);
        assert_eq!(code, "0");
        assert!(out.contains("model_list:") && out.contains("[redacted]"));
        assert!(!out.contains("canary") && !err.contains("canary"));
    }
}

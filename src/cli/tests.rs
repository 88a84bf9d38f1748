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

mod commands;

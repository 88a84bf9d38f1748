use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::aws::operation::Service;
use crate::config::{Credentials, Deployment, Endpoint, RequestLog, show};
use crate::deployment::affinity::CacheAffinity;
use crate::deployment::cooldown::CooldownRules;
use crate::deployment::select::Strategy;
use crate::types::ids::ModelName;
use crate::types::money::NanoUsd;

fn environment(variables: &[(&str, &str)]) -> BTreeMap<String, Secret> {
    variables.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value))).collect()
}

fn load_with(text: &str, variables: &[(&str, &str)], cli: &CliOverrides) -> Result<Loaded, Problems> {
    let source = Source::Text { name: "c.yaml".to_owned(), text: text.to_owned() };
    load(source, &environment(variables), cli)
}

fn good(text: &str, variables: &[(&str, &str)]) -> Loaded {
    load_with(text, variables, &CliOverrides::default()).unwrap_or_else(|problems| panic!("{problems}\n{text}"))
}

fn bad(text: &str, variables: &[(&str, &str)]) -> Problems {
    load_with(text, variables, &CliOverrides::default()).expect_err(text)
}

/// An entry of `model_list` whose parameters are the lines given; the first of them is line 4 of the file.
fn entry(params: &str) -> String {
    let lines: Vec<String> = params.lines().map(|line| format!("      {line}\n")).collect();
    format!("model_list:\n  - model_name: m\n    dheera_ai_params:\n{}", lines.concat())
}

/// As [`entry`], complete but for the lines given, which begin at line 6.
fn with(params: &str) -> String {
    entry(&format!("model: bedrock/amazon.nova-lite-v1:0\naws_region_name: us-west-2\n{params}"))
}

fn deployment(text: &str, variables: &[(&str, &str)]) -> Deployment {
    let mut deployments = good(text, variables).config.deployments;
    assert_eq!(deployments.len(), 1);
    deployments.remove(0)
}

/// Text, and for its only problem: place, what is wrong, what to do.
type Case<'a> = (String, &'a str, &'a str, &'a str);

fn check_cases(cases: &[Case<'_>]) {
    for (text, place, what, remedy) in cases {
        let problems = bad(text, &[("EMPTY", ""), ("WORD", "canary-word")]).problems;
        let [problem] = problems.as_slice() else { panic!("not one problem: {problems:?}\n{text}") };
        assert_eq!(problem.origin.to_string(), format!("c.yaml:{place}"), "{problem}\n{text}");
        let head = format!("{}: {}", problem.path, problem.what);
        assert!(head.contains(what), "{problem}\nlacks {what}");
        assert!(problem.remedy.contains(remedy), "{problem}\nlacks {remedy}");
        assert!(!problem.to_string().contains("canary"), "{problem}");
    }
}

#[test]
fn every_mistake_in_an_entry_has_its_place_and_remedy() {
    const ROLE: &str = "aws_role_name: arn:aws:iam::123456789012:role/r";
    check_cases(&[
        (
            with("aws_region_nam: x"),
            "6:7",
            "model_list[0].dheera_ai_params.aws_region_nam: unknown",
            "`aws_region_name`",
        ),
        (with("zzz: x"), "6:7", "unknown key", "docs/configuration.md"),
        (with("master_key: x"), "6:7", "unknown key", "belongs in `general_settings`"),
        (with("base_model: x"), "6:7", "unknown key", "belongs in `model_list[].model_info`"),
        (with("itpm: 5"), "6:7", "known but not supported", "`rpm`"),
        (with("rpm: 0"), "6:12", "`0` is not a whole number", "from 1"),
        (with("max_retries: 50"), "6:20", "`50` is not a whole number", "from 0 to 20"),
        (with("cooldown_time: 5"), "6:7", "known but not supported", "router_settings.allowed_fails"),
        (with("max_tokens: 5"), "6:7", "known but not supported", "clients set this"),
        (with("weight: 0"), "6:15", "`0` is not a whole number", "from 1 to 1000000"),
        (with("weight: 1.5"), "6:15", "`1.5` is not a whole number", "from 1"),
        (with("weight: [1]"), "6:15", "must be a single value, but is a list", "after the colon"),
        (with("weight:"), "6:13", "has no value", "Give it one"),
        (with("weight: null"), "6:15", "has no value", "remove the key"),
        (with("timeout: 10s"), "6:16", "`10s` is not a number of seconds", "2.5"),
        (with("timeout: 0"), "6:16", "`0` is not a number of seconds", "0.001"),
        (with("timeout: 100000"), "6:16", "not a number of seconds", "86400"),
        (with("custom_llm_provider: openai"), "6:28", "`openai` is not served", "`bedrock`"),
        (with("region_name: us-west-2"), "6:7", "another name of", "Keep one"),
        (with("model: x"), "6:7", "`model` is written twice, first on line 4", "Keep one"),
        (with("api_key: os.environ/MISSING"), "6:16", "variable MISSING is not set", "Set MISSING"),
        (with("api_key: os.environ/EMPTY"), "6:16", "variable EMPTY is set but empty", "Give EMPTY"),
        (with("api_key: os.environ/"), "6:16", "not followed by the name", "letters"),
        (with("timeout: os.environ/WORD"), "6:16", "the value of WORD is not a number", "seconds"),
        (with("api_key: \"canary \""), "6:16", "white space", "Copy it again"),
        (with("aws_access_key_id: canary"), "6:26", "stands without `aws_secret_access_key`", "Add"),
        (with("aws_access_key_id: AK\naws_secret_access_key: os.environ/MISSING"), "7:30", "MISSING is not set", "Set"),
        (
            entry("model: amazon.nova-lite-v1:0\naws_region_name: os.environ/MISSING"),
            "5:24",
            "MISSING is not set",
            "Set",
        ),
        (with("aws_secret_access_key: canary"), "6:30", "stands without `aws_access_key_id`", "Add"),
        (with("aws_session_token: canary"), "6:26", "stands without `aws_access_key_id` and", "Add both"),
        (with("aws_access_key_id: AK\naws_secret_access_key: canary x"), "7:30", "white space", "Copy it again"),
        (with("aws_access_key_id: AK\naws_secret_access_key: s\naws_profile_name: p"), "8:25", "only one", "Remove"),
        (with("api_key: k\naws_profile_name: p"), "7:25", "stands beside `api_key`", "Remove one"),
        (with("aws_session_name: s"), "6:25", "no effect without a role", "aws_role_name"),
        (with("aws_external_id: s-1"), "6:24", "no effect without a role", "aws_role_name"),
        (with("aws_web_identity_token: /t"), "6:31", "no effect without a role", "aws_role_name"),
        (with("aws_role_name: myrole"), "6:22", "`myrole` is not the ARN of a role", "arn:aws:iam"),
        (with(&format!("{ROLE}\naws_session_name: a b")), "7:25", "not what AWS allows: 2 to 64", "Shorten"),
        (with(&format!("{ROLE}\naws_external_id: x")), "7:24", "not what AWS allows: 2 to 1224", "Shorten"),
        (with(&format!("{ROLE}\naws_sts_endpoint: sts")), "7:25", "does not begin with `http", "https://sts"),
        (with(&format!("{ROLE}\naws_web_identity_token: /t\naws_external_id: xy")), "8:24", "no external id", "Remove"),
        (
            with(&format!("{ROLE}\naws_web_identity_token: /t\naws_profile_name: p")),
            "4:7",
            "no other credentials",
            "Remove",
        ),
        (with(&format!("{ROLE}\naws_web_identity_token: oidc/google/x")), "7:31", "not supported", "oidc/file"),
        (with("api_base: bedrock.local"), "6:17", "does not begin with `http://`", "https://host"),
        (with("api_base: http://canary:canary@host"), "6:17", "has a user name", "https://host"),
        (with("input_cost_per_token: cheap"), "6:29", "`cheap` is not a decimal number", "3e-06"),
        (with("input_cost_per_token: -1"), "6:29", "`-1` is negative", "3e-06"),
        (with("input_cost_per_tokn: 1"), "6:7", "unknown key", "`input_cost_per_token`"),
        (entry("model: openai/gpt-4\naws_region_name: us-west-2"), "4:14", "provider `openai`", "bedrock/"),
        (entry("model: bedrock/*\naws_region_name: us-west-2"), "4:14", "wildcard", "allow_unlisted_models"),
        (entry("model: amazon.nova-lite-v1:0"), "4:7", "names no region", "AWS_REGION"),
        (
            entry("model: amazon.nova-lite-v1:0\naws_region_name: moon-1"),
            "5:24",
            "`moon-1` is not an AWS region",
            "us-west-2",
        ),
        (entry("aws_region_name: us-west-2"), "4:7", "has no `model`", "Add it"),
    ]);
}

#[test]
fn every_mistake_around_the_entries_has_its_place_and_remedy() {
    let info = |lines: &str| with("weight: 1\n") + &format!("    model_info: {lines}\n");
    check_cases(&[
        (info("{mode: chatt}"), "7:24", "`chatt` is not a mode", "one of"),
        (info("{id: a b}"), "7:22", "not a plain word", "letters"),
        (info("{team_id: t}"), "7:18", "known but not supported", "Remove"),
        (info("{base_model: openai/x}"), "7:30", "provider `openai`", "Write an id"),
        (info("{max_token: 5}"), "7:18", "unknown key", "`max_tokens`"),
        ("model_list:\n  - model_name: m\n".to_owned(), "2:5", "no `dheera_ai_params`", "at least `model`"),
        (with("").replace("  - model_name: m\n    ", "  - "), "2:5", "has no `model_name`", "Add the name"),
        (with("").replace("model_name: m", "model_name: 'm '"), "2:17", "white space at an end", "plain name"),
        (with("").replace("model_name: m", "model_name: '*'"), "2:17", "wildcard", "served directly"),
        ("model_list: {a: b}\n".to_owned(), "1:13", "must be a list, but is a mapping", "`- `"),
        ("model_list:\n  - just text\n".to_owned(), "2:5", "must be a mapping", "key: value"),
        ("- a\n".to_owned(), "1:1", "must be a mapping of keys to values, but is a list", "key: value"),
        ("modellist: []\n".to_owned(), "1:1", "unknown key", "`model_list`"),
        ("master_key: canary\n".to_owned(), "1:1", "unknown key", "`general_settings`"),
        ("mcp_servers: {}\n".to_owned(), "1:1", "known but not supported", "Remove"),
        ("litellm_settings: {}\ndheera_ai_settings: {}\n".to_owned(), "2:1", "another name of", "Keep one"),
    ]);
}

#[test]
fn every_mistake_in_routing_has_its_place_and_remedy() {
    check_cases(&[
        (
            "router_settings: {routing_strategy: random}\n".to_owned(),
            "1:37",
            "`random` is not one of the words",
            "`latency-based-routing`",
        ),
        ("router_settings: {cache_affinity: yes}\n".to_owned(), "1:35", "`yes` is not one of the words", "`auto`"),
        ("router_settings: {num_retries: 100}\n".to_owned(), "1:32", "`100` is not", "from 0 to 20"),
        ("router_settings: {retry_after: 5}\n".to_owned(), "1:19", "known but not supported", "at once"),
        (
            "router_settings: {cooldown_time: 5, cooldown_time_max: 4}\n".to_owned(),
            "1:56",
            "is less than `cooldown_time`",
            "Raise it",
        ),
        (
            with("weight: 1") + "router_settings: {fallbacks: [{m: [n]}]}\n",
            "7:36",
            "`n` is not a `model_name`",
            "has an entry there",
        ),
        (
            with("weight: 1") + "router_settings: {fallbacks: [{m: m}]}\n",
            "7:35",
            "is the name that it stands",
            "Remove",
        ),
        (with("weight: 1") + "router_settings: {fallbacks: {m: [], m: []}}\n", "7:38", "is written twice", ""),
        (with("weight: 1") + "router_settings: {fallbacks: {\"*\": [m]}}\n", "7:31", "`*` is not", "default_fallbacks"),
        (with("weight: 1") + "router_settings: {default_fallbacks: [x, m]}\n", "7:39", "`x` is not", "has an entry"),
    ]);
}

#[test]
fn every_mistake_in_the_settings_has_its_place_and_remedy() {
    check_cases(&[
        (
            "dheera_ai_settings: {callbacks: [prometheus, langfuse]}\n".to_owned(),
            "1:46",
            "`langfuse` as a callback",
            "metrics",
        ),
        ("dheera_ai_settings: {cache: true}\n".to_owned(), "1:22", "known but not supported", "never cached"),
        (
            "dheera_ai_settings: {require_auth_for_metrics_endpoint: yes}\n".to_owned(),
            "1:57",
            "`yes` is neither",
            "`true` or `false`",
        ),
        ("general_settings: {store_model_in_db: true}\n".to_owned(), "1:20", "known but not supported", "model_list"),
        ("router_settings: {redis_host: canary}\n".to_owned(), "1:19", "known but not supported", "general_settings"),
        ("general_settings: {admin_listen: x}\n".to_owned(), "1:20", "known but not supported", "one listener"),
        ("general_settings: {port: 70000}\n".to_owned(), "1:26", "`70000` is not", "from 0 to 65535"),
        (
            "general_settings: {host: example.com}\n".to_owned(),
            "1:26",
            "`example.com` is not an IP address",
            "127.0.0.1",
        ),
        ("general_settings: {host: 0.0.0.0}\n".to_owned(), "1:26", "without a master key", "--allow-anonymous"),
        ("general_settings: {host: '::'}\n".to_owned(), "1:26", "without a master key", "DHEERA_AI_MASTER_KEY"),
        ("general_settings: {master_key: }\n".to_owned(), "1:30", "has no value", "Give it one"),
        ("general_settings: {master_key: os.environ/EMPTY}\n".to_owned(), "1:32", "set but empty", "Give EMPTY"),
        ("general_settings: {master_key: 'canary x'}\n".to_owned(), "1:32", "white space", "openssl rand"),
        ("general_settings: {request_log: stdot}\n".to_owned(), "1:33", "`stdot` is neither", "./requests.jsonl"),
        (
            "general_settings: {max_buffered_size_mb: 1}\n".to_owned(),
            "1:42",
            "smaller than `max_request_size_mb`",
            "Raise",
        ),
        ("general_settings: {operation_prices: {Retrive: 1}}\n".to_owned(), "1:48", "not an operation", "`Retrieve`"),
        ("general_settings: {operation_prices: {Retrieve: x}}\n".to_owned(), "1:49", "`x` is not a decimal", "dollars"),
        ("environment_variables: {A-B: x}\n".to_owned(), "1:25", "not the name of an environment variable", "letters"),
        (
            "environment_variables: {A: os.environ/B, B: x}\n".to_owned(),
            "1:25",
            "that this section sets",
            "Write the value",
        ),
        ("environment_variables: {A: [canary]}\n".to_owned(), "1:28", "must be a single value", "after the colon"),
        ("environment_variables: [A]\n".to_owned(), "1:24", "must be a mapping", "key: value"),
        ("a:\n\tb: 1\n".to_owned(), "2:2", "not valid YAML", "tabs"),
    ]);
}

#[test]
fn six_different_mistakes_are_all_named_at_once_in_order() {
    let text = "\
model_list:
  - model_name: a
    dheera_ai_params:
      model: openai/gpt-4
      aws_region_nam: us-west-2
      weight: none
  - model_name: b
    dheera_ai_params:
      model: bedrock/amazon.nova-lite-v1:0
      aws_region_name: us-west-2
      aws_secret_access_key: os.environ/MISSING
general_settings:
  coordination_redis: x
router_settings:
  timeout: soon
";
    let problems = bad(text, &[]);
    let places: Vec<String> = problems.problems.iter().map(|problem| problem.origin.to_string()).collect();
    // The entry without a usable model does not also complain that it has no region.
    assert_eq!(places, ["c.yaml:4:14", "c.yaml:5:7", "c.yaml:6:15", "c.yaml:11:30", "c.yaml:13:3", "c.yaml:15:12"]);
    assert!(problems.to_string().ends_with("6 problems in the configuration"));
}

#[test]
fn mistakes_in_the_environment_are_named_by_variable() {
    let config = entry("model: amazon.nova-lite-v1:0\naws_region_name: us-west-2");
    for (variables, variable, what) in [
        (vec![("DHEERA_AI_MASTER_KEY", "")], "DHEERA_AI_MASTER_KEY", "set but empty"),
        (vec![("DHEERA_AI_MASTER_KEY", "can ary")], "DHEERA_AI_MASTER_KEY", "white space"),
        (vec![("AWS_REGION", "canary")], "AWS_REGION", "not an AWS region"),
        (vec![("AWS_ENDPOINT_URL", "canary")], "AWS_ENDPOINT_URL", "does not begin"),
        (vec![("AWS_ENDPOINT_URL_BEDROCK_AGENT", "http://a@canary")], "AWS_ENDPOINT_URL_BEDROCK_AGENT", "user name"),
        (
            vec![("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "http://a"), ("AWS_BEDROCK_RUNTIME_ENDPOINT", "http://b")],
            "AWS_BEDROCK_RUNTIME_ENDPOINT",
            "differs from",
        ),
        (vec![("AWS_USE_FIPS_ENDPOINT", "canary")], "AWS_USE_FIPS_ENDPOINT", "neither true nor false"),
        (vec![("AWS_CA_BUNDLE", "/canary")], "AWS_CA_BUNDLE", "names no file"),
        (vec![("AWS_BEARER_TOKEN_BEDROCK", "can ary")], "AWS_BEARER_TOKEN_BEDROCK", "white space"),
    ] {
        let problems = bad(&config, &variables);
        let [problem] = problems.problems.as_slice() else { panic!("{problems}") };
        assert_eq!(problem.origin, Origin::Environment(variable.into()));
        assert!(problem.what.contains(what), "{problem}");
        assert!(!format!("{problems} {problems:?}").contains("canary"), "{problem}");
    }
}

#[test]
fn a_master_key_is_never_lost_on_the_way() {
    let text = "general_settings: {master_key: sk-0123456789abcdef}\n";
    let config = good(text, &[]).config;
    assert_eq!(config.access.master_key, Some(Secret::new("sk-0123456789abcdef")));
    assert_eq!(config.listen.host.to_string(), "0.0.0.0");
    assert!(config.access.require_auth_for_metrics && !config.access.allow_anonymous);
    good(text, &[("DHEERA_AI_MASTER_KEY", "sk-0123456789abcdef")]);
    let problems = bad(text, &[("DHEERA_AI_MASTER_KEY", "sk-another-key-entirely")]);
    assert!(problems.problems[0].what.contains("differs"), "{problems}");
    let open = good("", &[]).config;
    assert_eq!((open.access.master_key, open.listen.host.to_string().as_str()), (None, "127.0.0.1"));
    let weak = good("general_settings: {master_key: sk-1234}\n", &[("AWS_REGION", "us-east-1")]);
    assert!(weak.warnings.len() == 1 && weak.warnings[0].to_string().contains("fewer than 16"));
}

#[test]
fn the_command_line_comes_first() {
    let mut cli = CliOverrides { host: Some("::1".to_owned()), port: Some(0), ..CliOverrides::default() };
    (cli.num_workers, cli.allow_anonymous) = (Some(3), true);
    let listen = load_with("general_settings: {port: 1, num_workers: 1}\n", &[], &cli).unwrap().config.listen;
    assert_eq!((listen.host.to_string().as_str(), listen.port, listen.workers), ("::1", 0, 3));
    let open = CliOverrides { host: Some("0.0.0.0".to_owned()), ..CliOverrides::default() };
    let problems = load_with("", &[], &open).unwrap_err();
    assert_eq!(problems.problems[0].origin, Origin::CommandLine("--host"));
    assert!(load_with("", &[], &CliOverrides { allow_anonymous: true, ..open }).is_ok());
}

#[test]
fn the_region_comes_from_the_first_that_names_one() {
    let arn = "arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/abc";
    let all = [("AWS_DEFAULT_REGION", "sa-east-1"), ("AWS_REGION", "ca-central-1"), ("AWS_REGION_NAME", "us-east-2")];
    for (params, variables, expected) in [
        (format!("model: bedrock/us-west-2/{arn}\naws_region_name: us-east-1"), &all[..], "us-east-1"),
        (format!("model: bedrock/us-west-2/{arn}\nregion_name: us-east-1"), &all[..], "us-east-1"),
        (format!("model: bedrock/us-west-2/{arn}"), &all[..], "us-west-2"),
        (format!("model: bedrock/{arn}"), &all[..], "eu-west-1"),
        (format!("model: bedrock/amazon.nova-lite-v1:0\nmodel_id: {arn}"), &all[..], "eu-west-1"),
        ("model: amazon.nova-lite-v1:0".to_owned(), &all[..], "us-east-2"),
        ("model: amazon.nova-lite-v1:0".to_owned(), &all[..2], "ca-central-1"),
        ("model: amazon.nova-lite-v1:0".to_owned(), &all[..1], "sa-east-1"),
    ] {
        assert_eq!(deployment(&entry(&params), variables).region.as_str(), expected, "{params}");
    }
    let elsewhere = good(&entry(&format!("model: {arn}\naws_region_name: us-east-1")), &[("AWS_REGION", "us-east-1")]);
    assert!(elsewhere.warnings[0].to_string().contains("belongs to eu-west-1"));
}

#[test]
fn without_a_configuration_everything_goes_direct() {
    let loaded = load(Source::Direct, &environment(&[]), &CliOverrides::default()).unwrap();
    assert_eq!(loaded.config.direct.region.as_str(), "us-east-1");
    assert!(loaded.config.direct.allow_unlisted_models && loaded.config.deployments.is_empty());
    assert!(loaded.warnings[0].to_string().contains("no region is set"), "{:?}", loaded.warnings);
    let variables =
        [("AWS_REGION", "eu-west-1"), ("AWS_BEARER_TOKEN_BEDROCK", "token"), ("DATABASE_URL", "postgres://")];
    let loaded = load(Source::Direct, &environment(&variables), &CliOverrides::default()).unwrap();
    assert_eq!(loaded.config.direct.credentials, Credentials::Chain);
    assert!(loaded.config.direct.bearer.is_some());
    assert_eq!(loaded.warnings.len(), 1);
    assert!(loaded.warnings[0].to_string().contains("DATABASE_URL: is not used without"), "{:?}", loaded.warnings);
}

#[test]
fn every_kind_of_credentials_is_understood() {
    const ROLE: &str = "aws_role_name: arn:aws:iam::123456789012:role/r";
    let kind = |params: &str| deployment(&with(params), &[("TOKEN", "t"), ("AWS_BEARER_TOKEN_BEDROCK", "b")]);
    for (params, expected, bearer) in [
        ("weight: 1", "AWS chain", true),
        ("api_key: k", "Bedrock API key", false),
        ("aws_profile_name: my profile", "profile", false),
        ("aws_access_key_id: a\naws_secret_access_key: s\naws_session_token: t", "static keys", false),
        (ROLE, "assumed role", false),
        (
            &format!("{ROLE}\naws_access_key_id: a\naws_secret_access_key: s\naws_external_id: e-1"),
            "assumed role",
            false,
        ),
        (&format!("{ROLE}\naws_web_identity_token: oidc/env/TOKEN"), "web identity", false),
        (&format!("{ROLE}\naws_web_identity_token: /token\naws_sts_endpoint: http://sts:1"), "web identity", false),
    ] {
        let deployment = kind(params);
        assert_eq!((deployment.credentials.kind(), deployment.bearer.is_some()), (expected, bearer), "{params}");
    }
    let Credentials::AssumeRole { base, session_name, region, .. } = kind(ROLE).credentials else { panic!() };
    assert_eq!((*base, session_name.as_str(), region.as_str()), (Credentials::Chain, "dheera-ai", "us-west-2"));
    let Credentials::WebIdentity { token, .. } =
        kind(&format!("{ROLE}\naws_web_identity_token: oidc/file/var/token")).credentials
    else {
        panic!()
    };
    assert_eq!(token.0.expose(), "/var/token");
}

#[test]
fn several_entries_under_one_name_are_several_deployments() {
    let one = "  - model_name: a/b c\n    litellm_params: {model: amazon.nova-lite-v1:0, region_name: us-west-2}\n";
    let config = good(&format!("model_list:\n{one}{one}{one}    model_info: {{id: third}}\n"), &[]).config;
    let ids: Vec<&str> = config.deployments.iter().map(|deployment| deployment.id.as_str()).collect();
    assert_eq!(ids, ["a/b%20c-1", "a/b%20c-2", "third"]);
    assert!(config.deployments.iter().all(|deployment| deployment.model_name.as_str() == "a/b c"));
    let twice = format!("model_list:\n{one}    model_info: {{id: x}}\n{one}    model_info: {{id: x}}\n");
    let problems = bad(&twice, &[]);
    assert!(
        problems
            .to_string()
            .contains("c.yaml:7:22: model_list[1].model_info.id: `x` is used twice, first at c.yaml:4:22"),
        "{problems}"
    );
}

#[test]
fn timeouts_fall_back_from_the_entry_to_the_general() {
    let settings = "router_settings: {timeout: 20, stream_timeout: 30, num_retries: 0}\n\
                    litellm_settings: {request_timeout: 10, num_retries: 7}\n";
    let times = |params: &str, rest: &str| {
        let deployment = deployment(&format!("{}{rest}", with(params)), &[]);
        (deployment.timeout.as_secs(), deployment.stream_timeout.as_secs())
    };
    assert_eq!(times("timeout: 1\nstream_timeout: 2", settings), (1, 2));
    assert_eq!(times("timeout: 1", settings), (1, 1));
    assert_eq!(times("weight: 1", settings), (20, 30));
    assert_eq!(times("weight: 1", "litellm_settings: {request_timeout: 10}\n"), (10, 10));
    assert_eq!(times("weight: 1", ""), (3600, 3600));
    let config = good(settings, &[]).config;
    assert_eq!((config.router.num_retries, config.direct.timeout), (0, Duration::from_secs(20)));
}

#[test]
fn routing_is_read_from_either_section() {
    let two = |rest: &str| {
        let entry = |name: &str| {
            format!(
                "  - model_name: {name}\n    litellm_params: {{model: amazon.nova-lite-v1:0, aws_region_name: us-west-2, \
                 rpm: 10, tpm: 1000, max_parallel_requests: 3, max_retries: 1, stream_total_timeout: 7}}\n"
            )
        };
        good(&format!("model_list:\n{}{}{rest}", entry("a"), entry("b")), &[]).config
    };
    let config = two("");
    let router = &config.router;
    assert_eq!((router.strategy, router.cache_affinity), (Strategy::SimpleShuffle, CacheAffinity::Auto));
    assert_eq!((router.retry_budget_percent, router.fallbacks.max), (20, 5));
    assert_eq!(router.affinity_headers, ["x-dheera-ai-affinity", "x-claude-code-session-id"]);
    assert_eq!(router.health_check_interval, Duration::from_secs(15));
    let seconds = Duration::from_secs;
    let rules = |enabled, allowed_fails, base, max| CooldownRules {
        enabled,
        allowed_fails,
        base: seconds(base),
        max: seconds(max),
    };
    assert_eq!(router.cooldown, rules(true, 3, 5, 60));
    let one = config.deployments.first().unwrap();
    assert_eq!((one.rpm, one.tpm, one.parallel, one.max_retries), (Some(10), Some(1000), Some(3), 1));
    assert_eq!((one.total_timeout, one.stream_total_timeout), (None, Some(seconds(7))));

    let names = |names: &[&str]| names.iter().copied().map(ModelName::new).collect::<Vec<_>>();
    let config = two("router_settings:\n  routing_strategy: usage-based-routing-v2\n  cache_affinity: off\n  \
                      affinity_header_name: X-Session\n  fallbacks: [{a: [b]}]\n  cooldown_time: 100\n  \
                      health_check_interval: 0\n  total_timeout: 9\n\
                      litellm_settings:\n  fallbacks: [{b: [a]}]\n  context_window_fallbacks: {b: a}\n  \
                      default_fallbacks: [a, b, a]\n  allowed_fails: 0\n  cooldown_time: 3\n");
    let router = &config.router;
    assert_eq!((router.strategy, router.cache_affinity), (Strategy::UsageBased, CacheAffinity::Off));
    assert_eq!(router.affinity_headers.first().map(String::as_str), Some("x-session"));
    assert_eq!(router.fallbacks.by_model, BTreeMap::from([(ModelName::new("a"), names(&["b"]))]));
    assert_eq!(router.fallbacks.context_window, BTreeMap::from([(ModelName::new("b"), names(&["a"]))]));
    assert_eq!(router.fallbacks.default, names(&["a", "b"]));
    assert_eq!(router.cooldown, rules(true, 0, 100, 100));
    assert_eq!(router.health_check_interval, Duration::ZERO);
    assert_eq!(config.deployments.first().unwrap().total_timeout, Some(seconds(9)));
    assert!(!two("router_settings: {disable_cooldowns: true}\n").router.cooldown.enabled);
}

#[test]
fn prices_keep_their_decimals_and_name_their_model() {
    let text = with("input_cost_per_token: 3e-06") + "    model_info: {output_cost_per_token: 0.000015, mode: chat}\n";
    assert!(deployment(&text, &[]).price.is_some());
    let twice = with("input_cost_per_token: 1") + "    model_info: {input_cost_per_token: 2}\n";
    assert!(bad(&twice, &[]).problems[0].what.contains("in the parameters of this entry too"));
    let arn = "arn:aws:bedrock:us-west-2:123456789012:application-inference-profile/abc";
    let based = deployment(&with(&format!("model_id: {arn}")), &[]);
    assert_eq!(based.model_id.as_str(), arn);
    assert_eq!(based.base_model.unwrap().as_str(), "amazon.nova-lite-v1:0");
    let prices = good("general_settings: {operation_prices: {RetrieveAndGenerate: 0.02, Rerank: 1e-9}}\n", &[]);
    assert_eq!(prices.config.operation_prices["RetrieveAndGenerate"], NanoUsd(20_000_000));
    assert_eq!(prices.config.operation_prices["Rerank"], NanoUsd(1));
    let idle = |loaded: &Loaded| loaded.warnings.iter().filter(|one| one.to_string().contains("has no effect")).count();
    assert_eq!(idle(&prices), 0);
    let free = good("general_settings: {operation_prices: {Retrieve: 0.01, TagResource: 0.01}}\n", &[]);
    assert_eq!(idle(&free), 2);
}

#[test]
fn endpoints_come_from_aws_s_own_variables() {
    let variables = [
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9000/"),
        ("AWS_ENDPOINT_URL_BEDROCK_AGENT_RUNTIME", "https://agents.example/x"),
        ("AWS_BEDROCK_RUNTIME_ENDPOINT", "https://vpce.example"),
        ("AWS_REGION", "us-east-1"),
    ];
    let endpoints = good("", &variables).config.endpoints;
    let all = Endpoint { tls: false, host: "127.0.0.1".to_owned(), port: 9000, path_prefix: String::new() };
    assert_eq!(endpoints.all, Some(all));
    assert_eq!(endpoints.by_service[&Service::BedrockAgentRuntime].path_prefix, "/x");
    assert_eq!(endpoints.by_service[&Service::BedrockRuntime].host, "vpce.example");
    let mut ignored = variables.to_vec();
    ignored.push(("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true"));
    assert!(good("", &ignored).config.endpoints.all.is_none());
    let fips = good("", &[("AWS_USE_FIPS_ENDPOINT", "TRUE"), ("AWS_USE_DUALSTACK_ENDPOINT", "false")]).config.endpoints;
    assert!(fips.fips && !fips.dual_stack);
}

#[test]
fn variables_of_the_file_serve_every_reference_and_reach_the_credential_chain() {
    let text = "general_settings: {master_key: os.environ/KEY, port: os.environ/PORT}\n\
                environment_variables: {KEY: os.environ/OUTER, AWS_REGION: eu-west-1, PORT: 5000, AWS_PROFILE: x}\n";
    let config = good(text, &[("OUTER", "sk-0123456789abcdef"), ("AWS_REGION", "us-east-1")]).config;
    assert_eq!(config.access.master_key, Some(Secret::new("sk-0123456789abcdef")));
    assert_eq!((config.direct.region.as_str(), config.listen.port), ("eu-west-1", 5000));
    assert_eq!(config.environment.keys().collect::<Vec<_>>(), ["AWS_PROFILE", "AWS_REGION"]);
}

#[test]
fn harmless_keys_of_litellm_are_warnings() {
    let text = with("drop_params: true\nuse_in_pass_through: true")
        + "    model_info: {supports_vision: true, max_tokens: 5}\n\
           litellm_settings: {drop_params: true, set_verbose: false, callbacks: [prometheus], \
           success_callback: prometheus}\n";
    let warnings = good(&text, &[("AWS_REGION", "us-east-1")]).warnings;
    assert_eq!(warnings.len(), 8, "{warnings:#?}");
    assert!(warnings.iter().all(|warning| warning.to_string().contains("has no effect")));
}

#[test]
fn an_empty_configuration_has_every_default() {
    for text in ["", "# nothing\n", "model_list:\ngeneral_settings:\n", "model_list: []\nrouter_settings: {}\n"] {
        let config = good(text, &[]).config;
        assert_eq!((config.listen.port, config.router.num_retries), (4000, 2));
        assert_eq!(config.limits.body_bytes_max, 26_214_400);
        assert_eq!(config.request_log, RequestLog::Stdout);
    }
    let log = |value: &str| good(&format!("general_settings: {{request_log: {value}}}\n"), &[]).config.request_log;
    assert_eq!(log("off"), RequestLog::Off);
    assert_eq!(log("/var/log/x.jsonl"), RequestLog::File("/var/log/x.jsonl".into()));
}

mod budgets;
mod mangled;
mod salt_key;
mod secrets;
mod tls;

#[test]
fn every_shipped_configuration_loads() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    let variables = environment(&[("DHEERA_AI_MASTER_KEY", "sk-0123456789abcdef"), ("AWS_REGION", "us-east-1")]);
    let mut count = 0;
    for file in std::fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        // The price book has a shape and a test of its own.
        if path.file_name().is_some_and(|name| name == "prices.yaml") {
            continue;
        }
        let loaded = load(Source::File(path.clone()), &variables, &CliOverrides::default())
            .unwrap_or_else(|problems| panic!("{}: {problems}", path.display()));
        assert!(loaded.warnings.is_empty(), "{}: {:?}", path.display(), loaded.warnings);
        for deployment in &loaded.config.deployments {
            assert!(show::is_priced(&loaded.config, deployment), "{}: {}", path.display(), deployment.id);
        }
        count += 1;
    }
    assert!(count >= 2);
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem() {
    let problem =
        |path: &str| load(Source::File(path.into()), &environment(&[]), &CliOverrides::default()).unwrap_err();
    assert!(problem("/nowhere/c.yaml").to_string().contains("/nowhere/c.yaml: the configuration cannot be read"));
    assert!(problem("/").to_string().contains("cannot be read"));
}

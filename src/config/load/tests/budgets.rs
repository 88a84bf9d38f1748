use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;

use super::*;
use crate::budget::limit::LimitSet;
use crate::budget::period::Period;
use crate::config::{HostPort, OnLowBudget, Redis, RedisTopology, Store, UnknownUsage};

const KEY: (&str, &str) = ("DHEERA_AI_MASTER_KEY", "sk-0123456789abcdef");
const REGION: (&str, &str) = ("AWS_REGION", "us-east-1");

/// `general_settings` of the lines given; the first of them is line 2.
fn general(lines: &str) -> String {
    let lines: Vec<String> = lines.lines().map(|line| format!("  {line}\n")).collect();
    format!("general_settings:\n{}", lines.concat())
}

fn guarded(lines: &str, variables: &[(&str, &str)]) -> Loaded {
    good(&general(lines), &[&[KEY, REGION], variables].concat())
}

fn redis(lines: &str, variables: &[(&str, &str)]) -> Redis {
    let loaded = guarded(lines, variables);
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let Some(Store::Redis(redis)) = loaded.config.store else { panic!("{lines}: {:?}", loaded.config.store) };
    *redis
}

fn server(host: &str, port: u16) -> HostPort {
    HostPort { host: host.to_owned(), port }
}

fn text(secret: Option<&Secret>) -> Option<&str> {
    secret.map(Secret::expose)
}

/// Lines of `general_settings`, and for their only problem: place, what is wrong, what to do.
type Case<'a> = (&'a str, &'a str, &'a str, &'a str);

fn check_guarded(cases: &[Case<'_>]) {
    for (lines, place, what, remedy) in cases {
        let text = general(lines);
        let problems = bad(&text, &[KEY, REGION, ("WORD", "canary-word")]).problems;
        let [problem] = problems.as_slice() else { panic!("not one problem: {problems:?}\n{text}") };
        assert_eq!(problem.origin.to_string(), format!("c.yaml:{place}"), "{problem}\n{text}");
        let head = format!("{}: {}", problem.path, problem.what);
        assert!(head.contains(what), "{problem}\nlacks {what}");
        assert!(problem.remedy.contains(remedy), "{problem}\nlacks {remedy}");
        assert!(!problem.to_string().contains("canary"), "{problem}");
    }
}

#[test]
fn there_is_a_store_exactly_when_there_is_a_master_key() {
    assert!(good("", &[REGION]).config.store.is_none());
    assert!(matches!(good("", &[REGION, KEY]).config.store, Some(Store::Embedded)));
    let open = good(&general("redis_url: redis://h"), &[REGION]);
    assert!(open.config.store.is_none());
    assert!(open.warnings[0].to_string().starts_with("c.yaml:2:14: general_settings.redis_url: has no effect without"));
    let open = good("", &[REGION, ("REDIS_URL", "redis://h")]);
    assert!(open.warnings[0].to_string().contains("REDIS_URL: has no effect without a master key"));
}

#[test]
fn redis_is_found_however_it_is_named() {
    let url = redis("redis_url: rediss://app:p%40ss@Cache:6380/3", &[]);
    assert_eq!(url.topology, RedisTopology::Single(server("cache", 6380)));
    assert_eq!((url.tls, url.database, url.namespace.as_str()), (true, 3, "dheera_ai"));
    assert_eq!((url.username.as_deref(), text(url.password.as_ref())), (Some("app"), Some("p@ss")));
    assert_eq!((url.connect_timeout, url.timeout), (Duration::from_secs(2), Duration::from_secs(2)));

    let variables = [("PW", "secret"), ("REDIS_URL", "redis://other")];
    let host = "redis_host: 10.0.0.1\nredis_port: 7000\nredis_password: os.environ/PW\nredis_ssl: true\nredis_db: 2\n\
                redis_namespace: team-a\nredis_connect_timeout: 0.5\nredis_timeout: 4";
    let host = redis(host, &variables);
    assert_eq!(host.topology, RedisTopology::Single(server("10.0.0.1", 7000)));
    assert_eq!((host.tls, host.database, host.namespace.as_str()), (true, 2, "team-a"));
    assert_eq!((host.username, text(host.password.as_ref())), (None, Some("secret")));
    assert_eq!((host.connect_timeout.as_millis(), host.timeout.as_secs()), (500, 4));

    for (nodes, port) in [
        ("[{host: a, port: 7001}, {host: '::1'}]", 7001),
        ("[[a, 7001], '::1']", 7001),
        ("['a:7001', '[::1]']", 7001),
        ("\n    - host: a\n      port: 7001\n    - host: ::1", 7001),
    ] {
        let cluster = redis(&format!("redis_startup_nodes: {nodes}"), &[]);
        assert_eq!(cluster.topology, RedisTopology::Cluster(vec![server("a", port), server("::1", 6379)]), "{nodes}");
    }
    let sentinel = redis(
        "redis_sentinel_nodes: [[s1, 26380], [s2, '26379'], s3]\nredis_service_name: main\nredis_password: x",
        &[],
    );
    let sentinels = vec![server("s1", 26380), server("s2", 26379), server("s3", 26379)];
    assert_eq!(sentinel.topology, RedisTopology::Sentinel { sentinels, master_name: "main".to_owned() });
}

#[test]
fn the_environment_names_redis_where_the_file_does_not() {
    let single = |variables: &[(&str, &str)]| redis("port: 1", variables);
    let url = single(&[("REDIS_URL", "redis://a:1"), ("REDIS_HOST", "b"), ("DATABASE_URL", "redis://c")]);
    assert_eq!(url.topology, RedisTopology::Single(server("a", 1)));
    let host = single(&[
        ("REDIS_HOST", "b"),
        ("REDIS_PORT", "2"),
        ("REDIS_PASSWORD", "p"),
        ("REDIS_USERNAME", "u"),
        ("REDIS_SSL", "True"),
        ("DATABASE_URL", "postgres://c"),
    ]);
    assert_eq!(host.topology, RedisTopology::Single(server("b", 2)));
    assert_eq!((host.username.as_deref(), text(host.password.as_ref()), host.tls), (Some("u"), Some("p"), true));
    let database = single(&[("DATABASE_URL", "rediss://c/1")]);
    assert_eq!((database.topology, database.tls), (RedisTopology::Single(server("c", 6379)), true));
    assert_eq!(redis("database_url: redis://d", &[]).topology, RedisTopology::Single(server("d", 6379)));
    let both =
        redis("redis_port: 7\nredis_ssl: false", &[("REDIS_HOST", "b"), ("REDIS_PORT", "2"), ("REDIS_SSL", "true")]);
    assert_eq!((both.topology, both.tls), (RedisTopology::Single(server("b", 7)), false));
    // A password of the environment goes with a server of the file.
    let mixed = redis("redis_url: redis://e", &[("REDIS_PASSWORD", "p")]);
    assert_eq!(text(mixed.password.as_ref()), Some("p"));

    for (variables, variable, what, remedy) in [
        (vec![("DATABASE_URL", "postgresql://canary")], "DATABASE_URL", "no SQL database", "REDIS_URL"),
        (vec![("REDIS_URL", "canary:6379")], "REDIS_URL", "does not begin with", "percent-encode"),
        (
            vec![("REDIS_HOST", "h"), ("REDIS_PORT", "tcp://10.0.0.1:canary")],
            "REDIS_PORT",
            "is not a port",
            "Kubernetes",
        ),
        (vec![("REDIS_HOST", "h"), ("REDIS_USERNAME", "canary")], "REDIS_HOST", "without a password", "REDIS_PASSWORD"),
        (vec![("REDIS_HOST", "redis://canary@h")], "REDIS_HOST", "holds a URL", "port beside it"),
    ] {
        let problems = bad("", &[&[KEY, REGION], variables.as_slice()].concat()).problems;
        let [problem] = problems.as_slice() else { panic!("{problems:?}") };
        assert_eq!(problem.origin, Origin::Environment(variable.into()), "{problem}");
        assert!(problem.what.contains(what) && problem.remedy.contains(remedy), "{problem}");
        assert!(!problem.to_string().contains("canary"), "{problem}");
    }
    // What a service called redis puts into the environment of every pod names no server.
    assert!(matches!(good("", &[KEY, REGION, ("REDIS_PORT", "tcp://x")]).config.store, Some(Store::Embedded)));
    let unused = good("", &[KEY, REGION, ("REDIS_CLUSTER_NODES", "[]")]).warnings;
    assert!(unused[0].to_string().contains("redis_startup_nodes"), "{unused:?}");
}

#[test]
fn every_mistake_about_redis_has_its_place_and_remedy() {
    check_guarded(&[
        ("redis_url: canary:6379", "2:14", "does not begin with `redis://`", "rediss://"),
        ("redis_url: redis://:canary/x@h", "2:14", "percent-encode it", "redis://user"),
        ("redis_url: redis://h?canary=1", "2:14", "has a query", "redis://user"),
        ("redis_url: os.environ/WORD", "2:14", "does not begin", "redis://user"),
        ("redis_url: os.environ/MISSING", "2:14", "MISSING is not set", "Set MISSING"),
        ("database_url: postgres://canary", "2:17", "no SQL database", "store_path"),
        (
            "redis_url: redis://h\nredis_host: h",
            "3:15",
            "a second time, after `general_settings.redis_url`",
            "Keep one",
        ),
        ("redis_url: redis://h\ndatabase_url: redis://h", "3:17", "a second time", "Keep one"),
        ("redis_url: redis://h\nredis_port: 1", "3:15", "beside the URL of `general_settings.redis_url`", "in the URL"),
        ("redis_url: redis://h\nredis_db: 1", "3:13", "beside the URL", "in the URL"),
        ("redis_url: redis://h\nredis_ssl: true", "3:14", "beside the URL", "in the URL"),
        ("redis_url: redis://:a@h\nredis_password: canary", "3:19", "beside the URL", "in the URL"),
        ("redis_url: redis://u:a@h\nredis_username: u", "3:19", "beside the URL", "in the URL"),
        ("redis_username: u\nredis_host: h", "2:19", "a user without a password", "redis_password"),
        ("redis_password: os.environ/WORD", "2:19", "no Redis server is named", "redis_url"),
        ("redis_ssl: true", "2:14", "no Redis server is named", "redis_host"),
        ("redis_port: 6379", "2:15", "no Redis server is named", "redis_host"),
        ("redis_host: redis://canary@h", "2:15", "holds a URL", "port beside it"),
        ("redis_host: h:1\nredis_port: 1", "2:15", "has a port too", "beside it"),
        ("redis_host: a b", "2:15", "no valid host", "name or address"),
        ("redis_host: h\nredis_port: 0", "3:15", "`0` is not a whole number", "from 1 to 65535"),
        ("redis_host: h\nredis_db: -1", "3:13", "`-1` is not a whole number", "from 0"),
        ("redis_host: h\nredis_service_name: m", "3:23", "no effect without `redis_sentinel_nodes`", "Add"),
        ("redis_sentinel_nodes: [h]", "2:3", "without `redis_service_name`", "name of the master"),
        ("redis_startup_nodes: [h]\nredis_port: 1", "3:15", "no effect without `redis_host`", "Add"),
        ("redis_startup_nodes: [h]\nredis_db: 1", "3:13", "the database 0 only", "Remove"),
        ("redis_startup_nodes: []", "2:3", "names no server", "- {host"),
        ("redis_startup_nodes:", "2:3", "names no server", "- {host"),
        ("redis_startup_nodes: h", "2:24", "must be a list", "`- `"),
        ("redis_startup_nodes: [{host: h, prot: 1}]", "2:35", "unknown key", "`port`"),
        ("redis_startup_nodes: [[h]]", "2:25", "not a host and a port", "[<host>, <port>]"),
        ("redis_startup_nodes: [[h, x]]", "2:29", "is not a whole number", "from 1 to 65535"),
        ("redis_namespace: '{a}'\nredis_host: h", "2:20", "`{a}` is not a plain word", "letters"),
        ("redis_host: h\nredis_ca_file: /canary", "3:18", "has no TLS", "rediss://"),
        ("redis_url: rediss://h\nredis_ca_file: /nowhere", "3:18", "names no file", "PEM"),
        ("redis_host: h\nredis_timeout: 0", "3:18", "not a number of seconds", "0.001"),
    ]);
}

#[test]
fn budgets_have_their_defaults() {
    let budgets = good("", &[KEY, REGION]).config.budgets;
    assert_eq!(budgets.global, LimitSet::default());
    assert_eq!(budgets.time_zone, TimeZone::UTC);
    assert!(!budgets.allow_unpriced);
    assert_eq!((budgets.unknown_usage, budgets.on_low_budget), (UnknownUsage::Reservation, OnLowBudget::Extend));
    assert_eq!((budgets.drain_timeout.as_secs(), budgets.drain_bytes_max), (30, 67_108_864));
    assert_eq!((budgets.spend_log_retention.as_secs(), budgets.slice_max), (7_776_000, NanoUsd(1_000_000_000)));
    assert!(budgets.soft_budget_webhook.is_none());
    assert_eq!((budgets.metric_names_max, budgets.cache_entries_max), (100, 100_000));
    assert_eq!(budgets.end_user_headers, ["x-dheera-ai-end-user-id", "x-litellm-end-user-id"]);
    assert_eq!(budgets.tag_headers, ["x-dheera-ai-tags", "x-litellm-tags"]);
}

#[test]
fn every_setting_of_budgets_is_taken_over() {
    let lines = "budget_time_zone: Europe/Berlin\nunpriced: allow\nunknown_usage: estimate\non_low_budget: refuse\n\
                 drain_timeout: 0\ndrain_max_mb: 1\nbudget_slice_max: 0\nglobal_max_parallel_requests: 7\n\
                 soft_budget_webhook_url: https://hooks.example:8443/a?b=c\nmetric_names_max: 0\n\
                 maximum_spend_logs_retention_period: 2w\nuser_header_name: X-User\n\
                 tag_header_name: x-litellm-tags\nuser_api_key_cache_max_size: 5";
    let config = general(lines) + "litellm_settings: {max_budget: 0.1, soft_budget: 1e-9, budget_duration: 30d}\n";
    let loaded = good(&config, &[KEY, REGION]);
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let budgets = &loaded.config.budgets;
    let global = LimitSet {
        max_budget: Some(NanoUsd(100_000_000)),
        soft_budget: Some(NanoUsd(1)),
        budget_duration: Some(Period::parse("30d").unwrap()),
        max_parallel_requests: Some(7),
        ..LimitSet::default()
    };
    assert_eq!(budgets.global, global);
    assert_eq!(budgets.time_zone.iana_name(), Some("Europe/Berlin"));
    assert!(budgets.allow_unpriced);
    assert_eq!((budgets.unknown_usage, budgets.on_low_budget), (UnknownUsage::Estimate, OnLowBudget::Refuse));
    assert_eq!((budgets.drain_timeout, budgets.drain_bytes_max), (Duration::ZERO, 1024 * 1024));
    assert_eq!((budgets.spend_log_retention.as_secs(), budgets.slice_max), (14 * 86_400, NanoUsd::ZERO));
    assert_eq!(text(budgets.soft_budget_webhook.as_ref()), Some("https://hooks.example:8443/a?b=c"));
    assert_eq!((budgets.metric_names_max, budgets.cache_entries_max), (0, 5));
    assert_eq!(budgets.end_user_headers, ["x-user", "x-dheera-ai-end-user-id", "x-litellm-end-user-id"]);
    assert_eq!(budgets.tag_headers, ["x-litellm-tags", "x-dheera-ai-tags"]);
    // What is shown can be read back and means the same.
    let shown = show::to_yaml(&loaded.config);
    for line in [
        "max_budget: 0.1\n",
        "soft_budget: 0.000000001\n",
        "budget_duration: \"30d\"\n",
        "budget_time_zone: \"Europe/Berlin\"\n",
        "drain_timeout: 0\n",
        "maximum_spend_logs_retention_period: 14d\n",
        "global_max_parallel_requests: 7\n",
        "soft_budget_webhook_url: \"[redacted]\"\n",
    ] {
        assert!(shown.contains(line), "{line} is not in {shown}");
    }
}

#[test]
fn every_mistake_about_budgets_has_its_place_and_remedy() {
    check_guarded(&[
        ("budget_time_zone: Moon/Base", "2:21", "`Moon/Base` is not a time zone", "Europe/Berlin"),
        ("unpriced: maybe", "2:13", "`maybe` is not one of", "Write `refuse` or `allow`"),
        ("unknown_usage: free", "2:18", "`free` is not one of", "`reservation` or `estimate`"),
        ("on_low_budget: clamp", "2:18", "`clamp` is not one of", "`extend` or `refuse`"),
        ("drain_timeout: -1", "2:18", "not a number of seconds", "0.001"),
        ("drain_max_mb: 0", "2:17", "`0` is not a whole number", "from 1"),
        ("budget_slice_max: $1", "2:21", "`$1` is not an amount", "0.25"),
        ("budget_slice_max: 9007200", "2:21", "more than a budget may be", "from 0 to 9007199"),
        ("soft_budget_webhook_url: hooks.example/canary", "2:28", "is not an http", "https://hooks"),
        ("soft_budget_webhook_url: 'https://h/can ary'", "2:28", "is not an http", "https://hooks"),
        ("maximum_spend_logs_retention_period: 90", "2:40", "`90` is not a span", "90d"),
        ("maximum_spend_logs_retention_period: 30m", "2:40", "`30m` is not a span", "90d"),
        ("user_header_name: Authorization", "2:21", "`authorization` carries a key", "x-user-id"),
        ("tag_header_name: 'a b'", "2:20", "`a b` is not the name of a header", "x-user-id"),
        ("user_api_key_cache_max_size: 0", "2:32", "`0` is not a whole number", "from 1"),
        ("max_parallel_requests: 5", "2:3", "known but not supported", "global_max_parallel_requests"),
    ]);
    for (settings, what, remedy) in [
        ("max_budget: ten", "`ten` is not an amount of US dollars", "`100`"),
        ("max_budget: -1", "`-1` is negative", "`100`"),
        ("max_budget: 1e-10", "more than nine decimals", "`100`"),
        ("max_budget: 1e9", "more than a budget may be", "9007199"),
        ("budget_duration: 1d", "no effect without `max_budget`", "Add `max_budget`"),
        ("max_budget: 1, budget_duration: 30", "`30` has no unit", "`24h`"),
        ("max_budget: 1, budget_duration: 0d", "`0d` is zero", "`1mo`"),
    ] {
        let problems = bad(&format!("dheera_ai_settings: {{{settings}}}\n"), &[KEY, REGION]).problems;
        let [problem] = problems.as_slice() else { panic!("{settings}: {problems:?}") };
        assert!(problem.what.contains(what) && problem.remedy.contains(remedy), "{problem}");
    }
}

#[test]
fn a_limit_for_everybody_needs_a_master_key() {
    let problems = bad("litellm_settings: {max_budget: 5, soft_budget: 1}\n", &[REGION]).problems;
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].to_string().starts_with("c.yaml:1:32: litellm_settings.max_budget: cannot be kept without"));
    let zero = good("litellm_settings: {max_budget: 0}\n", &[KEY, REGION]);
    assert_eq!(zero.config.budgets.global.max_budget, Some(NanoUsd::ZERO));
    assert!(zero.warnings[0].to_string().contains("is zero"), "{:?}", zero.warnings);
}

#[test]
fn state_goes_where_the_environment_keeps_state() {
    let directory = |lines: &str, variables: &[(&str, &str)]| guarded(lines, variables).config.budgets.state_directory;
    let variables =
        [("DHEERA_AI_STORE_PATH", "/a"), ("STATE_DIRECTORY", "/b:/bb"), ("XDG_STATE_HOME", "/c"), ("HOME", "/d")];
    assert_eq!(directory("store_path: here/state", &variables), Path::new("here/state"));
    for (from, expected) in [(0, "/a"), (1, "/b"), (2, "/c/dheera_ai"), (3, "/d/.local/state/dheera_ai")] {
        assert_eq!(directory("port: 1", &variables[from..]), PathBuf::from(expected));
    }
    assert_eq!(directory("port: 1", &[("XDG_STATE_HOME", "relative"), ("HOME", "")]), Path::new("./dheera_ai_state"));
    check_guarded(&[
        ("store_path: ~/state", "2:15", "`~/state` is not the path", "/var/lib/dheera_ai"),
        ("store_path: /dev/null", "2:15", "is not a directory", "made when missing"),
        ("store_path:", "2:13", "has no value", "Give it one"),
    ]);
}

#[test]
fn what_is_kept_where_is_told_in_a_sentence() {
    let sentence = |lines: &str| show::store(&guarded(&format!("store_path: /s\n{lines}"), &[]).config);
    assert_eq!(sentence(""), "Keys and budgets are kept in /s, by this process alone.");
    assert_eq!(
        sentence("redis_url: redis://:canary@[::1]"),
        "Keys and budgets are kept in Redis at [::1]:6379; the journal in /s."
    );
    assert!(sentence("redis_startup_nodes: [a, b]").contains("the cluster of a:6379, b:6379;"));
    assert!(sentence("redis_sentinel_nodes: [a]\nredis_service_name: m").contains("m, by the sentinels a:26379;"));
    assert!(show::store(&good("", &[REGION]).config).contains("no master key"));
}

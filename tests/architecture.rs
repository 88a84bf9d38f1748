//! The rules of the code base that no lint can hold: layers, where foreign crates may be named, what the pure modules
//! may not touch, how a file begins and how long it may be. Each rule says why in its failure.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

/// Which modules each module may import. What is not listed is not allowed.
const IMPORTS: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("json", &[]),
    ("yaml", &["types"]),
    ("admission", &["types"]),
    ("aws", &["types"]),
    ("usage", &["types", "aws"]),
    ("price", &["types", "yaml"]),
    ("error", &["types", "aws"]),
    ("budget", &["types", "json", "aws", "usage", "price"]),
    // Of `deployment` only the pure half, where the words of its settings have their meaning.
    // Of `deployment` the words that routing is configured with.
    ("config", &["types", "yaml", "aws", "price", "budget", "deployment"]),
    ("credentials", &["types", "aws", "config"]),
    ("store", &["types", "budget", "config"]),
    ("keys", &["types", "json", "aws", "budget", "config", "store"]),
    ("ledger", &["types", "budget", "store", "telemetry"]),
    ("telemetry", &["types", "config"]),
    ("deployment", &["types", "aws", "price", "config", "credentials", "telemetry"]),
    (
        "proxy",
        &[
            "types",
            "json",
            "admission",
            "aws",
            "usage",
            "price",
            "error",
            "budget",
            "config",
            "credentials",
            "store",
            "keys",
            "ledger",
            "telemetry",
            "deployment",
        ],
    ),
    (
        "admin",
        &[
            "types",
            "aws",
            "price",
            "error",
            "budget",
            "config",
            "credentials",
            "store",
            "keys",
            "ledger",
            "telemetry",
            "deployment",
        ],
    ),
    (
        "app",
        &[
            "admission",
            "admin",
            "aws",
            "budget",
            "config",
            "credentials",
            "deployment",
            "keys",
            "ledger",
            "proxy",
            "store",
            "telemetry",
            "types",
        ],
    ),
    ("cli", &["aws", "config", "price", "types"]),
];

/// Modules without clock, randomness and IO: `now` and random numbers are arguments there.
const PURE: &[&str] = &[
    "types/",
    "admission/",
    "aws/",
    "usage/",
    "price/",
    "budget/",
    "error.rs",
    "json.rs",
    "yaml.rs",
    "deployment/address.rs",
    "deployment/affinity",
    "deployment/attempts.rs",
    "deployment/context_window.rs",
    "deployment/cooldown.rs",
    "deployment/first_event.rs",
    "deployment/latency.rs",
    "deployment/limiter.rs",
    "deployment/outcome.rs",
    "deployment/retry.rs",
    "deployment/select.rs",
    "deployment/vitals.rs",
];

const IMPURE: &[&str] = &[
    "Instant::now",
    "SystemTime",
    "Timestamp::now",
    "fastrand",
    "std::fs",
    "std::env",
    "std::net::Tcp",
    "tokio",
    "std::thread",
    "now_v7",
];

struct Source {
    /// Relative to `src`, with forward slashes.
    path: String,
    /// Without the tests at the end of the file.
    code: String,
}

impl Source {
    fn module(&self) -> &str {
        self.path.split('/').next().unwrap().trim_end_matches(".rs")
    }

    fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }

    /// The code without comments and string literals, so that prose cannot break a rule.
    fn bare(&self) -> String {
        self.code
            .lines()
            .map(|line| {
                let line = line.split("//").next().unwrap_or("");
                line.split('"').step_by(2).collect::<Vec<_>>().join("\"\"")
            })
            .collect::<Vec<_>>()
            .join("\n")
    }
}

fn sources() -> Vec<Source> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    paths.sort();
    assert!(paths.len() > 40, "only {} source files found", paths.len());
    paths
        .iter()
        .map(|path| {
            let text = fs::read_to_string(path).unwrap();
            Source {
                path: path.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/"),
                code: text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned(),
            }
        })
        .collect()
}

fn report(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}\n  {}", broken.join("\n  "));
}

#[test]
fn a_module_imports_only_from_lower_layers() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| !matches!(source.path.as_str(), "lib.rs" | "main.rs")) {
        let module = source.module();
        let Some((_, allowed)) = IMPORTS.iter().find(|(name, _)| *name == module) else {
            broken.push(format!("{}: module `{module}` has no place in the layers", source.path));
            continue;
        };
        for rest in source.bare().split("crate::").skip(1) {
            let imported: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if !imported.is_empty() && imported != module && !allowed.contains(&imported.as_str()) {
                broken.push(format!("{}: imports crate::{imported}", source.path));
            }
        }
    }
    report("a module imports only what tests/architecture.rs lists for it:", &broken);
}

#[test]
fn foreign_crates_stay_where_they_belong() {
    let rules: &[(&str, &[&str])] = &[
        ("pingora", &["proxy/", "admin/", "app/"]),
        ("aws_config", &["credentials/"]),
        ("prometheus", &["telemetry/metrics.rs", "telemetry/metrics/", "app/"]),
        ("saphyr_parser", &["yaml.rs"]),
        ("clap", &["cli.rs", "cli/"]),
        ("flate2", &["usage/encoded.rs", "usage/tests.rs"]),
        ("openssl", &["config/certificate.rs", "config/certificate/", "app/tls.rs", "cli/dev_cert"]),
        ("rcgen", &["cli/dev_cert", "config/certificate/tests.rs", "config/load/tests/"]),
        ("redis", &["store/redis/"]),
        ("redb", &["store/embedded/"]),
        ("std::env", &["config/secrets.rs", "credentials/", "cli.rs", "cli/"]),
    ];
    let mut broken = Vec::new();
    for source in sources() {
        let bare = source.bare();
        for (word, homes) in rules {
            // A crate, or one of its family such as `pingora_core`; not a module of ours, nor a field of that name.
            let of_ours = format!("::{word}::");
            let named = bare.replace(&of_ours, "");
            let uses = named.contains(&format!("{word}::")) || (*word == "pingora" && named.contains("pingora_"));
            if uses && !homes.iter().any(|home| source.path.starts_with(home)) {
                broken.push(format!("{}: names {word}", source.path));
            }
        }
    }
    report("these crates are named only in their homes, so that they can be replaced there:", &broken);
}

#[test]
fn pure_modules_have_no_clock_no_randomness_and_no_io() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        if PURE.iter().any(|pure| source.path.starts_with(pure)) {
            let bare = source.bare();
            broken.extend(
                IMPURE.iter().filter(|word| bare.contains(**word)).map(|word| format!("{}: {word}", source.path)),
            );
        }
    }
    report("pure modules get `now` and random numbers as arguments:", &broken);
}

#[test]
fn money_is_never_a_float() {
    let mut broken = Vec::new();
    for source in sources() {
        let counts_money = [
            "price/",
            "types/",
            "budget/",
            "store/",
            "ledger/",
            "keys/",
            "admin/api/",
            "admin/spend",
            "proxy/settle.rs",
        ]
        .iter()
        .any(|home| source.path.starts_with(home));
        // Tokens may be asked for as `1e3`, and only there.
        let counts_money = counts_money && !source.path.starts_with("budget/estimate/body");
        let bare = source.bare();
        if counts_money && (bare.contains("f64") || bare.contains("f32")) {
            broken.push(source.path);
        }
    }
    report("money is whole nano-dollars:", &broken);
}

#[test]
fn only_one_place_builds_error_bodies() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        if source.path != "aws/error_body.rs"
            && source.code.contains("\"x-amzn-errortype\"")
            && !matches!(source.path.as_str(), "proxy/respond.rs" | "deployment/control_plane.rs")
        {
            broken.push(source.path.clone());
        }
    }
    report(
        "errors for clients are built in aws/error_body.rs (proxy/respond.rs and deployment/control_plane.rs read AWS's):",
        &broken,
    );
}

#[test]
fn no_globs_and_no_modules_without_a_subject() {
    let mut broken = Vec::new();
    for source in sources() {
        if source.bare().contains("use crate::*") {
            broken.push(format!("{}: use crate::*", source.path));
        }
        for name in ["utils", "util", "common", "helpers", "helper", "manager", "misc"] {
            if source.path.split('/').any(|part| part.trim_end_matches(".rs") == name) {
                broken.push(format!("{}: a module called {name}", source.path));
            }
        }
    }
    report("imports say what they import, modules say what they are:", &broken);
}

#[test]
fn every_file_says_what_it_is_and_stays_readable() {
    let mut broken = Vec::new();
    for source in sources() {
        if !source.code.starts_with("//!") && !source.is_test() {
            broken.push(format!("{}: does not open with //!", source.path));
        }
        let lines = source.code.lines().count();
        if lines > 600 {
            broken.push(format!("{}: {lines} lines", source.path));
        }
    }
    report("a file opens with what it decides and has at most 600 lines before its tests:", &broken);
}

#[test]
fn every_metric_is_documented() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ["src/telemetry/metrics.rs", "src/telemetry/metrics/routing.rs"];
    let code: String = files.iter().map(|file| fs::read_to_string(root.join(file)).unwrap()).collect();
    let docs = fs::read_to_string(root.join("docs/metrics.md")).unwrap();
    let names: Vec<&str> =
        code.split('"').filter(|word| word.starts_with("dheera_ai_") && !word.contains('{')).collect();
    assert!(names.len() >= 10, "{names:?}");
    let missing: Vec<String> =
        names.iter().filter(|name| !docs.contains(**name)).map(|name| (*name).to_owned()).collect();
    report("docs/metrics.md names every metric:", &missing);
}

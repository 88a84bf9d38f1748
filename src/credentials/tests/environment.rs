//! The standard chain and named profiles, each in a process of its own (this test binary again) with exactly the
//! environment of the case. The process logs everything at TRACE, so that a leak of the SDK would show too.

use std::process::{Command, Output};

use super::server::{Request, Server};
use super::*;

const CHILD: &str = "DHEERA_TEST_CREDENTIALS";

/// Credentials as IMDS and the container endpoint give them.
fn metadata_credentials(id: &str) -> String {
    format!(
        r#"{{"Code":"Success","AccessKeyId":"{id}","SecretAccessKey":"issued-secret-canary",
        "Token":"issued-token-canary",
        "Expiration":"2099-01-01T00:00:00Z","LastUpdated":"2026-01-01T00:00:00Z","Type":"AWS-HMAC"}}"#
    )
}

/// The body of the child process; does nothing in the process of the tests.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the variable is how the parent process talks to this one")]
async fn child_process() {
    let Ok(wanted) = std::env::var(CHILD) else { return };
    tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(std::io::stderr).init();
    let spec = match wanted.split_once(' ') {
        Some(("profile", name)) => Credentials::Profile(name.to_owned()),
        Some(("role", endpoint)) => role(keys(Some("token-canary")), endpoint),
        Some(("web", endpoint)) => web_identity("eyJ.canary.x", endpoint),
        _ => Credentials::Chain,
    };
    let line = match ready(&spec).await {
        Ok(auth) => {
            let credentials = signing(auth);
            let token = credentials.session_token.is_some();
            format!("id={} token={token}", credentials.access_key_id)
        }
        Err(error) => format!("kind={} {error}", error.kind()),
    };
    writeln!(std::io::stdout(), "\nRESULT {line}").unwrap();
}

/// The line that a process with this environment reports. Fails if anything it printed holds a secret.
async fn in_environment(wanted: &str, variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let name = module_path!().split_once("::").map(|(_, path)| format!("{path}::child_process")).unwrap();
    command.args(["--exact", &name, "--nocapture", "--test-threads=1"]);
    command.env_clear().env(CHILD, wanted).env("HOME", "/nonexistent");
    for off in ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"] {
        command.env(off, "/nonexistent/file");
    }
    command.env("AWS_EC2_METADATA_DISABLED", "true").envs(variables.iter().copied());
    let Output { stdout, stderr, .. } = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    for line in stdout.lines().chain(stderr.lines()) {
        assert!(!line.contains("canary"), "a secret is printed: {line}");
    }
    let result = stdout.lines().find_map(|line| line.strip_prefix("RESULT "));
    result.unwrap_or_else(|| panic!("no result: {stdout}\n{stderr}")).to_owned()
}

#[tokio::test]
async fn keys_in_the_environment_come_first() {
    let variables =
        [("AWS_ACCESS_KEY_ID", "AKIAENV"), ("AWS_SECRET_ACCESS_KEY", "canary"), ("AWS_SESSION_TOKEN", "canary")];
    assert_eq!(in_environment("chain", &variables).await, "id=AKIAENV token=true");
    assert_eq!(in_environment("chain", &variables[..2]).await, "id=AKIAENV token=false");
}

#[tokio::test]
async fn without_anything_the_error_names_the_ways() {
    let line = in_environment("chain", &[]).await;
    assert!(line.starts_with("kind=not_found default AWS credential chain: no AWS credentials"), "{line}");
    assert!(line.contains("AWS_ACCESS_KEY_ID") && line.contains("aws_role_name"), "{line}");
}

#[tokio::test]
async fn a_named_profile_wins_over_keys_in_the_environment() {
    let file = TemporaryFile::new(
        "profiles",
        "[default]\naws_access_key_id = AKIADEFAULT\naws_secret_access_key = canary\n\
         [dev]\naws_access_key_id = AKIADEV\naws_secret_access_key = canary\n",
    );
    let variables = [
        ("AWS_SHARED_CREDENTIALS_FILE", file.path()),
        ("AWS_ACCESS_KEY_ID", "AKIAENV"),
        ("AWS_SECRET_ACCESS_KEY", "canary"),
    ];
    assert_eq!(in_environment("profile dev", &variables).await, "id=AKIADEV token=false");
    assert_eq!(in_environment("chain", &variables[..1]).await, "id=AKIADEFAULT token=false");
    let with_profile = [variables[0], ("AWS_PROFILE", "dev")];
    assert_eq!(in_environment("chain", &with_profile).await, "id=AKIADEV token=false");
    let missing = in_environment("profile absent", &variables).await;
    assert!(missing.starts_with("kind=not_found AWS profile \"absent\": "), "{missing}");
}

#[tokio::test]
async fn a_process_may_issue_credentials_and_its_output_is_never_quoted() {
    let good = TemporaryFile::new(
        "process",
        "[profile p]\ncredential_process = /bin/echo '{\"Version\":1,\"AccessKeyId\":\"AKIAPROCESS\",\
         \"SecretAccessKey\":\"x\",\"SessionToken\":\"y\",\"Expiration\":\"2099-01-01T00:00:00Z\"}'\n",
    );
    assert_eq!(in_environment("profile p", &[("AWS_CONFIG_FILE", good.path())]).await, "id=AKIAPROCESS token=true");
    let output = TemporaryFile::new("process-output", "{\"SecretAccessKey\":\"canary\", broken");
    let bad =
        TemporaryFile::new("process-bad", &format!("[profile p]\ncredential_process = /bin/cat {}\n", output.path()));
    let line = in_environment("profile p", &[("AWS_CONFIG_FILE", bad.path())]).await;
    assert!(line.starts_with("kind="), "{line}");
}

#[tokio::test]
async fn the_metadata_service_is_asked_with_a_session_token() {
    let imds = Server::start(|request: &Request| match (request.method.as_str(), request.target.as_str()) {
        ("PUT", "/latest/api/token") => (200, "imds-session".to_owned()),
        ("GET", path) if request.header("x-aws-ec2-metadata-token") != Some("imds-session") => (401, path.to_owned()),
        ("GET", path) if path.trim_end_matches('/').ends_with("/security-credentials") => (200, "node-role".to_owned()),
        ("GET", path) if path.ends_with("/security-credentials-extended") => (200, "node-role".to_owned()),
        ("GET", path) if path.ends_with("/node-role") => (200, metadata_credentials("ASIAIMDS")),
        _ => (404, String::new()),
    })
    .await;
    let variables = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", imds.url.as_str()), ("AWS_EC2_METADATA_DISABLED", "false")];
    assert_eq!(in_environment("chain", &variables).await, "id=ASIAIMDS token=true");
    assert_eq!(imds.seen()[0].method, "PUT");
}

#[tokio::test]
async fn a_container_is_given_credentials_for_its_token() {
    let endpoint = Server::start(|request: &Request| {
        if request.header("authorization") == Some("pod-canary") {
            (200, metadata_credentials("ASIAPOD"))
        } else {
            (403, "no".to_owned())
        }
    })
    .await;
    let token = TemporaryFile::new("pod-token", "pod-canary");
    let url = format!("{}/v1/credentials", endpoint.url);
    let by_file = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token.path()),
    ];
    assert_eq!(in_environment("chain", &by_file).await, "id=ASIAPOD token=true");
    let by_value = [by_file[0], ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "pod-canary")];
    assert_eq!(in_environment("chain", &by_value).await, "id=ASIAPOD token=true");
    assert_eq!(endpoint.seen().len(), 2);
}

#[tokio::test]
async fn a_pod_role_is_taken_with_its_web_identity() {
    let sts = Server::start(|_| {
        let user = "<AssumedRoleUser><AssumedRoleId>a:b</AssumedRoleId><Arn>arn:aws:sts::123456789012:assumed-role/r/s\
                    </Arn></AssumedRoleUser></AssumeRoleWithWebIdentityResult>";
        (200, sts_answer("AssumeRoleWithWebIdentity").replace("</AssumeRoleWithWebIdentityResult>", user))
    })
    .await;
    let token = TemporaryFile::new("irsa-token", "eyJ.canary.x");
    let variables = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.path()),
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/pod"),
        ("AWS_ENDPOINT_URL_STS", sts.url.as_str()),
    ];
    assert_eq!(in_environment("chain", &variables).await, "id=ASIASESSION token=true");
    assert!(sts.seen()[0].body.contains("WebIdentityToken=eyJ.canary.x"));
}

#[tokio::test]
async fn calls_of_sts_print_no_secret_either() {
    let sts = Server::start(|request: &Request| {
        let web = request.body.contains("AssumeRoleWithWebIdentity");
        (200, sts_answer(if web { "AssumeRoleWithWebIdentity" } else { "AssumeRole" }))
    })
    .await;
    for wanted in ["role", "web"] {
        assert_eq!(in_environment(&format!("{wanted} {}", sts.url), &[]).await, "id=ASIASESSION token=true");
        let failed = in_environment(&format!("{wanted} http://127.0.0.1:9"), &[]).await;
        assert!(failed.starts_with("kind=unreachable"), "{failed}");
    }
}

#[tokio::test]
async fn an_sso_session_that_has_ended_names_the_remedy() {
    let config = TemporaryFile::new(
        "sso",
        "[profile sso]\nsso_session = corp\nsso_account_id = 123456789012\nsso_role_name = Dev\n\
         [sso-session corp]\nsso_region = us-east-1\nsso_start_url = https://example.awsapps.com/start\n",
    );
    let line = in_environment("profile sso", &[("AWS_CONFIG_FILE", config.path())]).await;
    assert!(line.starts_with("kind=") && line.contains("AWS profile \"sso\""), "{line}");
    assert!(line.contains("aws sso login") || line.contains("sso"), "{line}");
}

#[tokio::test]
async fn an_sso_session_gives_the_credentials_of_its_role() {
    let sso = Server::start(|request: &Request| {
        if request.header("x-amz-sso_bearer_token") == Some("sso-token-canary") {
            (
                200,
                r#"{"roleCredentials":{"accessKeyId":"ASIASSO","secretAccessKey":"issued-canary",
                "sessionToken":"issued-canary","expiration":4070908800000}}"#
                    .to_owned(),
            )
        } else {
            (401, "{}".to_owned())
        }
    })
    .await;
    let home = std::env::temp_dir().join(format!("dheera-credentials-home-{}", std::process::id()));
    let cache = home.join(".aws/sso/cache");
    std::fs::create_dir_all(&cache).unwrap();
    // The file is named by the SHA-1 of the session's name, `corp`.
    std::fs::write(
        cache.join("ee0bfd2552fbd840c02cc48b6e823320543c450f.json"),
        r#"{"accessToken":"sso-token-canary","expiresAt":"2099-01-01T00:00:00Z","region":"us-east-1",
        "startUrl":"https://example.awsapps.com/start"}"#,
    )
    .unwrap();
    let config = TemporaryFile::new(
        "sso-good",
        "[profile sso]\nsso_session = corp\nsso_account_id = 123456789012\nsso_role_name = Dev\n\
         [sso-session corp]\nsso_region = us-east-1\nsso_start_url = https://example.awsapps.com/start\n",
    );
    let variables = [
        ("AWS_CONFIG_FILE", config.path()),
        ("HOME", home.to_str().unwrap()),
        ("AWS_ENDPOINT_URL_SSO", sso.url.as_str()),
    ];
    let line = in_environment("profile sso", &variables).await;
    std::fs::remove_dir_all(&home).unwrap();
    assert_eq!(line, "id=ASIASSO token=true");
}

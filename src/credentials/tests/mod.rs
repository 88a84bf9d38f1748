//! Sources against fake issuers on loopback and against a clock that stands still. `environment.rs` runs the standard
//! chain in processes of their own, each with a real environment.

mod environment;
mod renewal;
mod server;

use std::collections::HashSet;
use std::io::Write as _;

use super::*;
use crate::config::SecretRef;
use server::Server;

fn secret(text: &str) -> SecretRef {
    SecretRef(Secret::new(text))
}

fn options() -> Options {
    Options { ca_bundle: None, region: "eu-central-1".to_owned() }
}

fn keys(token: Option<&str>) -> Credentials {
    Credentials::Static {
        access_key_id: "AKIABASECANARY".to_owned(),
        secret_access_key: secret("base-secret-canary"),
        session_token: token.map(secret),
    }
}

fn role(base: Credentials, endpoint: &str) -> Credentials {
    Credentials::AssumeRole {
        base: Box::new(base),
        role_arn: "arn:aws:iam::123456789012:role/bedrock".to_owned(),
        session_name: "proxy-session".to_owned(),
        external_id: Some("the external id".to_owned()),
        sts_endpoint: Some(endpoint.to_owned()),
        region: "us-west-2".to_owned(),
    }
}

fn web_identity(token: &str, endpoint: &str) -> Credentials {
    Credentials::WebIdentity {
        token: secret(token),
        role_arn: "arn:aws:iam::123456789012:role/web".to_owned(),
        session_name: "web-session".to_owned(),
        sts_endpoint: Some(endpoint.to_owned()),
        region: "us-west-2".to_owned(),
    }
}

/// What STS answers to `action`.
fn sts_answer(action: &str) -> String {
    format!(
        "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result><Credentials>\
         <AccessKeyId>ASIASESSION</AccessKeyId><SecretAccessKey>session-secret-canary</SecretAccessKey>\
         <SessionToken>session-token-canary</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>\
         </Credentials></{action}Result></{action}Response>"
    )
}

fn sts_refusal(code: &str, message: &str) -> String {
    format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
         <Code>{code}</Code><Message>{message}</Message></Error><RequestId>1</RequestId></ErrorResponse>"
    )
}

async fn ready(spec: &Credentials) -> Result<UpstreamAuth, CredentialError> {
    let store = CredentialStore::new([spec.clone()], options(), None);
    store.handle(spec).unwrap().ready().await
}

fn signing(auth: UpstreamAuth) -> Arc<SigningCredentials> {
    match auth {
        UpstreamAuth::SigV4(credentials) => credentials,
        UpstreamAuth::Bearer(_) => panic!("not SigV4"),
    }
}

/// A file in the directory of temporary files, removed with the value.
struct TemporaryFile(PathBuf);

impl TemporaryFile {
    fn new(name: &str, content: &str) -> Self {
        let path = std::env::temp_dir().join(format!("dheera-credentials-{}-{name}", std::process::id()));
        std::fs::File::create(&path).unwrap().write_all(content.as_bytes()).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}

#[test]
fn fixed_credentials_are_there_at_once() {
    let api_key = Credentials::ApiKey(secret("ABSKcanary"));
    let store = CredentialStore::new([keys(Some("token")), api_key.clone()], options(), None);
    let credentials = signing(store.handle(&keys(Some("token"))).unwrap().current().unwrap());
    assert_eq!(credentials.access_key_id, "AKIABASECANARY");
    assert_eq!(credentials.secret_access_key.expose(), "base-secret-canary");
    assert_eq!(credentials.session_token.as_ref().map(Secret::expose), Some("token"));
    let bearer = store.handle(&api_key).unwrap().current().unwrap();
    assert_eq!(bearer, UpstreamAuth::Bearer(Arc::new(Secret::new("ABSKcanary"))));
    assert!(store.handle(&keys(None)).is_none());
}

#[test]
fn a_short_term_api_key_that_has_run_out_is_not_sent() {
    // bedrock.amazonaws.com/?X-Amz-Date=20200101T000000Z&X-Amz-Expires=43200
    let key = "bedrock-api-key-YmVkcm9jay5hbWF6b25hd3MuY29tLz9YLUFtei1EYXRlPTIwMjAwMTAxVDAwMDAwMFomWC1BbXotRXhwaXJlcz\
               00MzIwMA==";
    let spec = Credentials::ApiKey(secret(key));
    let source = CredentialStore::new([spec.clone()], options(), None).handle(&spec).unwrap();
    assert_eq!(source.current().unwrap_err().kind(), "expired");
    assert!(source.status().expires_at.is_some());
}

#[test]
fn the_next_store_takes_over_what_did_not_change() {
    let role = role(keys(None), "http://a");
    let first = CredentialStore::new([role.clone(), Credentials::Chain], options(), None);
    let second = CredentialStore::new([role.clone(), keys(Some("token"))], options(), Some(&first));
    for spec in [&role, &keys(None)] {
        assert!(Arc::ptr_eq(&first.handle(spec).unwrap(), &second.handle(spec).unwrap()), "{spec:?}");
    }
    assert_eq!(second.sources().count(), 3, "the role, its base, and the new one");
    let elsewhere = Options { region: "eu-west-3".to_owned(), ..options() };
    let third = CredentialStore::new([role.clone()], elsewhere, Some(&first));
    assert!(!Arc::ptr_eq(&first.handle(&role).unwrap(), &third.handle(&role).unwrap()), "STS is called elsewhere");
}

#[test]
fn equal_credentials_share_one_source() {
    let specs =
        [keys(None), Credentials::Chain, role(keys(None), "http://a"), role(keys(None), "http://b"), keys(None)];
    let store = CredentialStore::new(specs, options(), None);
    let origins: HashSet<String> = store.sources().map(|source| source.origin().to_owned()).collect();
    assert_eq!(store.sources().count(), 4);
    assert!(origins.contains("access key …NARY"), "{origins:?}");
}

#[tokio::test]
async fn a_role_is_assumed_with_its_external_id_and_session_name() {
    let sts = Server::start(|_| (200, sts_answer("AssumeRole"))).await;
    let credentials = signing(ready(&role(keys(Some("base-token")), &sts.url)).await.unwrap());
    assert_eq!(credentials.access_key_id, "ASIASESSION");
    assert_eq!(credentials.secret_access_key.expose(), "session-secret-canary");
    assert_eq!(credentials.session_token.as_ref().map(Secret::expose), Some("session-token-canary"));

    let asked = sts.seen();
    assert_eq!(asked.len(), 1);
    for part in [
        "Action=AssumeRole&",
        "RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fbedrock",
        "RoleSessionName=proxy-session",
        "ExternalId=the%20external%20id",
    ] {
        assert!(asked[0].body.contains(part), "{part} in {}", asked[0].body);
    }
    let authorization = asked[0].header("authorization").unwrap();
    assert!(authorization.contains("Credential=AKIABASECANARY/"), "{authorization}");
    assert!(authorization.contains("/us-west-2/sts/aws4_request"), "{authorization}");
    assert_eq!(asked[0].header("x-amz-security-token"), Some("base-token"));
}

#[tokio::test]
async fn a_role_may_be_assumed_from_a_role() {
    let sts = Server::start(|_| (200, sts_answer("AssumeRole"))).await;
    ready(&role(role(keys(None), &sts.url), &format!("{}/second", sts.url))).await.unwrap();
    let asked = sts.seen();
    assert_eq!(asked.len(), 2);
    assert!(asked[0].header("authorization").unwrap().contains("AKIABASECANARY"));
    assert!(asked[1].header("authorization").unwrap().contains("ASIASESSION"));
    assert_eq!(asked[1].target, "/second/");
}

#[tokio::test]
async fn a_web_identity_is_exchanged_without_a_signature() {
    let sts = Server::start(|_| (200, sts_answer("AssumeRoleWithWebIdentity"))).await;
    let token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln";
    let file = TemporaryFile::new("token", &format!("{token}\n"));
    for given in [token, file.path()] {
        assert_eq!(signing(ready(&web_identity(given, &sts.url)).await.unwrap()).access_key_id, "ASIASESSION");
    }
    for asked in sts.seen() {
        assert!(
            asked.body.contains(&format!("WebIdentityToken={token}&")) || asked.body.ends_with(token),
            "{}",
            asked.body
        );
        assert!(asked.body.contains("RoleSessionName=web-session"));
        assert_eq!(asked.header("authorization"), None);
    }
}

#[tokio::test]
async fn failures_say_what_to_do_and_hold_no_secret() {
    let refusing = Server::start(|_| (403, sts_refusal("AccessDenied", "User x may not sts:AssumeRole"))).await;
    let broken = Server::start(|_| (200, "<html>session-secret-canary".to_owned())).await;
    let incomplete = Server::start(|_| (200, sts_answer("AssumeRole").replace("SecretAccessKey", "canary"))).await;
    let failing = Server::start(|_| (503, sts_refusal("ServiceUnavailable", "later"))).await;
    let (refusing, broken, incomplete, failing) = (&refusing.url, &broken.url, &incomplete.url, &failing.url);
    let closed = "http://127.0.0.1:9";
    for (spec, kind, words) in [
        (role(keys(None), refusing), "refused", "AccessDenied: User x may not sts:AssumeRole"),
        (role(keys(None), broken), "unreachable", "is not STS"),
        (role(keys(None), incomplete), "refused", "incomplete"),
        (role(keys(None), failing), "unreachable", "later"),
        (role(keys(None), closed), "unreachable", "network path"),
        (role(Credentials::ApiKey(secret("ABSKcanary")), refusing), "misconfigured", "give it access keys"),
        (web_identity("/no/such/canary", refusing), "misconfigured", "nor a file"),
        (Credentials::Profile("no-such-profile".to_owned()), "not_found", "AWS_PROFILE"),
    ] {
        let error = ready(&spec).await.unwrap_err();
        let shown = format!("{error} {error:?}");
        assert_eq!(error.kind(), kind, "{shown}");
        assert!(shown.contains(words), "{shown}");
        assert!(!shown.contains("canary"), "{shown}");
    }
}

#[tokio::test]
async fn a_useless_ca_bundle_is_an_error_and_no_panic() {
    let certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (content, words) in [
        (Some("hello"), "holds no certificate"),
        (Some("-----BEGIN CERTIFICATE-----\n!\n"), "is not PEM"),
        (Some(certificate), "something else than certificates"),
        (None, "No such file"),
    ] {
        let file = TemporaryFile::new("bundle", content.unwrap_or_default());
        if content.is_none() {
            std::fs::remove_file(file.path()).unwrap();
        }
        let options = Options { ca_bundle: Some(file.path().into()), ..options() };
        let spec = role(keys(None), "https://127.0.0.1:9");
        let source = CredentialStore::new([spec.clone()], options, None).handle(&spec).unwrap();
        let error = source.ready().await.unwrap_err();
        assert_eq!(error.kind(), "misconfigured");
        assert!(error.to_string().contains(words) && error.to_string().contains("AWS_CA_BUNDLE"), "{error}");
    }
}

#[tokio::test]
async fn nothing_prints_a_secret() {
    let sts = Server::start(|_| (200, sts_answer("AssumeRole"))).await;
    let spec = role(keys(Some("token-canary")), &sts.url);
    let store = CredentialStore::new([spec.clone(), Credentials::ApiKey(secret("ABSKcanary"))], options(), None);
    let source = store.handle(&spec).unwrap();
    let auth = source.ready().await.unwrap();
    let shown = format!("{store:?} {source:?} {auth:?} {spec:?} {:?}", source.status());
    assert!(!shown.contains("canary") && !shown.contains("ASIASESSION"), "{shown}");
}

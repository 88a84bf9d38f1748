//! Which credentials an entry of `model_list` asks for, and which combinations of its keys make no sense.
//!
//! A half-written combination is a problem and never falls back to the chain: a request must not be signed by an
//! account that nobody named. It does not fetch anything.

use crate::config::problem::{At, Findings, Located};
use crate::config::raw::RawCredentials;
use crate::config::secrets::{Environment, is_variable_name};
use crate::config::section::Text;
use crate::config::{Credentials, SecretRef, defaults, endpoint_url};

const COPY_AGAIN: &str = "Copy it again without line breaks";

/// What the entry asks for; `Chain` when it says nothing. `None` after a problem.
pub(super) fn resolve(
    mut raw: RawCredentials,
    region: &str,
    at: &At,
    environment: &dyn Environment,
    findings: &mut Findings,
) -> Option<Credentials> {
    if raw.unreadable {
        return None;
    }
    if let Some(key) = raw.api_key.take() {
        return api_key(key, &raw, findings);
    }
    let base = base(&mut raw, findings)?;
    let Some(role) = raw.role else {
        let orphans = [raw.session_name, raw.external_id, raw.web_identity_token, raw.sts_endpoint];
        return match orphans.into_iter().flatten().next() {
            Some(orphan) => {
                findings.problem(&orphan.at, "has no effect without a role", "Add `aws_role_name` or remove it");
                None
            }
            None => Some(base),
        };
    };
    let assumed = AssumedRole {
        role_arn: role_arn(&role, findings),
        session_name: raw.session_name.map_or_else(
            || Some(defaults::ROLE_SESSION_NAME.to_owned()),
            |name| restricted(&name, 2..=64, "=,.@-_+", findings),
        ),
        sts_endpoint: match raw.sts_endpoint {
            Some(url) => Some(sts(&url, findings)?),
            None => None,
        },
        region: region.to_owned(),
    };
    match raw.web_identity_token {
        Some(web_token) => web_identity(web_token, &base, raw.external_id, assumed, at, environment, findings),
        None => assume_role(base, raw.external_id, assumed, findings),
    }
}

/// A Bedrock API key, which stands alone.
fn api_key(key: Text, others: &RawCredentials, findings: &mut Findings) -> Option<Credentials> {
    let others = [
        &others.access_key_id,
        &others.secret_access_key,
        &others.session_token,
        &others.profile,
        &others.role,
        &others.session_name,
        &others.external_id,
        &others.web_identity_token,
        &others.sts_endpoint,
    ];
    if let Some(other) = others.into_iter().flatten().next() {
        let what = "stands beside `api_key`, and only one of them can authenticate a request";
        findings.problem(&other.at, what, "Remove one of the two");
        return None;
    }
    token(key, findings).map(Credentials::ApiKey)
}

/// What signs by itself or assumes the role: keys, a profile, or the chain.
fn base(raw: &mut RawCredentials, findings: &mut Findings) -> Option<Credentials> {
    let keys = static_keys(raw.access_key_id.take(), raw.secret_access_key.take(), raw.session_token.take(), findings);
    match (keys, raw.profile.take()) {
        (Keys::Wrong, _) => None,
        (Keys::Given(_), Some(profile)) => {
            let what = "stands beside `aws_access_key_id`, and only one of them can be used";
            findings.problem(&profile.at, what, "Remove one of the two");
            None
        }
        (Keys::Given(keys), None) => Some(keys),
        (Keys::None, Some(profile)) => word(&profile, findings).map(Credentials::Profile),
        (Keys::None, None) => Some(Credentials::Chain),
    }
}

struct AssumedRole {
    role_arn: Option<String>,
    session_name: Option<String>,
    sts_endpoint: Option<String>,
    region: String,
}

fn assume_role(
    base: Credentials,
    external_id: Option<Text>,
    role: AssumedRole,
    findings: &mut Findings,
) -> Option<Credentials> {
    let external_id = match external_id {
        Some(id) => Some(restricted(&id, 2..=1224, "=,.@:/-_+", findings)?),
        None => None,
    };
    Some(Credentials::AssumeRole {
        base: Box::new(base),
        role_arn: role.role_arn?,
        session_name: role.session_name?,
        external_id,
        sts_endpoint: role.sts_endpoint,
        region: role.region,
    })
}

fn web_identity(
    web_token: Text,
    base: &Credentials,
    external_id: Option<Text>,
    role: AssumedRole,
    at: &At,
    environment: &dyn Environment,
    findings: &mut Findings,
) -> Option<Credentials> {
    if let Some(external_id) = external_id {
        let what = "has no effect with `aws_web_identity_token`: AWS takes no external id there";
        findings.problem(&external_id.at, what, "Remove one of the two");
        return None;
    }
    if *base != Credentials::Chain {
        let what = "`aws_web_identity_token` needs no other credentials, but keys or a profile stand beside it";
        findings.problem(at, what, "Remove one of the two");
        return None;
    }
    Some(Credentials::WebIdentity {
        token: identity_token(web_token, environment, findings)?,
        role_arn: role.role_arn?,
        session_name: role.session_name?,
        sts_endpoint: role.sts_endpoint,
        region: role.region,
    })
}

enum Keys {
    None,
    Given(Credentials),
    Wrong,
}

fn static_keys(id: Option<Text>, secret: Option<Text>, session: Option<Text>, findings: &mut Findings) -> Keys {
    match (id, secret, session) {
        (Some(id), Some(secret), session) => {
            let id = token(id, findings);
            let secret = token(secret, findings);
            let had_session = session.is_some();
            let session_token = session.and_then(|session| token(session, findings));
            match (id, secret) {
                (Some(SecretRef(id)), Some(secret_access_key)) if !had_session || session_token.is_some() => {
                    let access_key_id = id.expose().to_owned();
                    Keys::Given(Credentials::Static { access_key_id, secret_access_key, session_token })
                }
                _ => Keys::Wrong,
            }
        }
        (Some(id), None, _) => {
            findings.problem(&id.at, "stands without `aws_secret_access_key`", "Add the secret key that belongs to it");
            Keys::Wrong
        }
        (None, Some(secret), _) => {
            findings.problem(&secret.at, "stands without `aws_access_key_id`", "Add the key id that belongs to it");
            Keys::Wrong
        }
        (None, None, Some(session)) => {
            let what = "stands without `aws_access_key_id` and `aws_secret_access_key`";
            findings.problem(&session.at, what, "Add both: a session token belongs to one pair of keys");
            Keys::Wrong
        }
        (None, None, None) => Keys::None,
    }
}

/// A key or token as a header can carry it. Error texts never quote it.
fn token(text: Text, findings: &mut Findings) -> Option<SecretRef> {
    if text.value.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
        return Some(SecretRef(text.value));
    }
    findings.problem(&text.at, "holds white space or characters other than ASCII", COPY_AGAIN);
    None
}

/// A path of a file, the token itself, or LiteLLM's `oidc/file/<path>` and `oidc/env/<NAME>`.
fn identity_token(text: Text, environment: &dyn Environment, findings: &mut Findings) -> Option<SecretRef> {
    let Some(source) = text.value.expose().strip_prefix("oidc/") else { return token(text, findings) };
    if let Some(path) = source.strip_prefix("file/") {
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        return token(Located { value: path.into(), at: text.at }, findings);
    }
    if let Some(name) = source.strip_prefix("env/").filter(|name| is_variable_name(name)) {
        return match environment.variable(name) {
            Ok(Some(value)) if !value.is_empty() => token(Located { value, at: text.at }, findings),
            _ => {
                let what = format!("the environment variable {name} is not set");
                findings.problem(&text.at, what, format!("Set {name} to the token"));
                None
            }
        };
    }
    let what = "names a source of tokens that is not supported";
    findings.problem(&text.at, what, "Write the path of a token file, `oidc/file/<path>` or `oidc/env/<NAME>`");
    None
}

fn word(text: &Text, findings: &mut Findings) -> Option<String> {
    let value = text.value.expose();
    if value.trim() == value && !value.chars().any(char::is_control) {
        return Some(value.to_owned());
    }
    findings.problem(&text.at, "holds line breaks or white space at an end", COPY_AGAIN);
    None
}

/// A text of STS's alphabet: letters, digits and `others` (API reference of `AssumeRole`).
fn restricted(
    text: &Text,
    length: std::ops::RangeInclusive<usize>,
    others: &str,
    findings: &mut Findings,
) -> Option<String> {
    let value = text.value.expose();
    let allowed = |character: char| character.is_ascii_alphanumeric() || others.contains(character);
    if length.contains(&value.chars().count()) && value.chars().all(allowed) {
        return Some(value.to_owned());
    }
    let what = format!("is not what AWS allows: {} to {} letters, digits or `{others}`", length.start(), length.end());
    findings.problem(&text.at, what, "Shorten it or remove other characters");
    None
}

fn role_arn(text: &Text, findings: &mut Findings) -> Option<String> {
    let value = text.value.expose();
    let fields: Vec<&str> = value.splitn(6, ':').collect();
    let well_formed = match fields.as_slice() {
        ["arn", partition, "iam", "", account, resource] => {
            partition.starts_with("aws")
                && account.len() == 12
                && account.bytes().all(|byte| byte.is_ascii_digit())
                && resource.strip_prefix("role/").is_some_and(|name| !name.is_empty())
                && value.bytes().all(|byte| byte.is_ascii_graphic())
        }
        _ => false,
    };
    if well_formed {
        return Some(value.to_owned());
    }
    let what = format!("{} is not the ARN of a role", text.at.quote(value));
    findings.problem(&text.at, what, "Write `arn:aws:iam::<12 digits>:role/<name>`");
    None
}

fn sts(text: &Text, findings: &mut Findings) -> Option<String> {
    match endpoint_url::parse(text.value.expose()) {
        Ok(_) => Some(text.value.expose().trim().to_owned()),
        Err(what) => {
            findings.problem(&text.at, what, "Write a URL such as `https://sts.us-west-2.amazonaws.com`");
            None
        }
    }
}

//! Why there are no credentials, in words an operator can act on, and in one word for a metric. A secret never gets in
//! here: texts of the AWS SDK are taken from the `Display` of its errors, never from `Debug`, which prints answers.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use aws_credential_types::provider::error::CredentialsError;

/// Texts from outside are cut here.
const DETAIL_CHARS_MAX: usize = 400;

/// Why a source gives no credentials. `origin` names the source (`AWS profile "dev"`); cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialError {
    /// Nobody has asked the source yet.
    NotLoaded { origin: Arc<str> },
    /// The source has none to give.
    NotFound { origin: Arc<str>, detail: Arc<str> },
    /// There were some; they have run out and no new ones came. `detail` is the last failure, or empty.
    Expired { origin: Arc<str>, detail: Arc<str> },
    /// AWS or another issuer said no.
    Refused { origin: Arc<str>, detail: Arc<str> },
    /// The issuer did not answer, or not in time.
    Unreachable { origin: Arc<str>, detail: Arc<str> },
    /// The configuration of the source cannot work.
    Misconfigured { origin: Arc<str>, detail: Arc<str> },
}

impl CredentialError {
    /// A label of fixed cardinality.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::NotLoaded { .. } => "not_loaded",
            Self::NotFound { .. } => "not_found",
            Self::Expired { .. } => "expired",
            Self::Refused { .. } => "refused",
            Self::Unreachable { .. } => "unreachable",
            Self::Misconfigured { .. } => "misconfigured",
        }
    }

    pub(super) fn refused(origin: &Arc<str>, detail: &str) -> Self {
        Self::Refused { origin: Arc::clone(origin), detail: one_line(detail) }
    }

    pub(super) fn unreachable(origin: &Arc<str>, detail: &str) -> Self {
        Self::Unreachable { origin: Arc::clone(origin), detail: one_line(detail) }
    }

    pub(super) fn misconfigured(origin: &Arc<str>, detail: &str) -> Self {
        Self::Misconfigured { origin: Arc::clone(origin), detail: one_line(detail) }
    }

    /// Sorts an error of `aws-config` by what the operator has to do about it.
    pub(super) fn from_provider(origin: &Arc<str>, error: &CredentialsError) -> Self {
        let text = chain_text(error);
        match error {
            CredentialsError::CredentialsNotLoaded(_) => {
                Self::NotFound { origin: Arc::clone(origin), detail: one_line(&text) }
            }
            CredentialsError::InvalidConfiguration(_) => Self::misconfigured(origin, &text),
            CredentialsError::ProviderTimedOut(_) => Self::unreachable(origin, &text),
            _ => match io_kind(error) {
                Some(std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied) => {
                    Self::misconfigured(origin, &text)
                }
                Some(_) => Self::unreachable(origin, &text),
                None => Self::refused(origin, &text),
            },
        }
    }
}

impl fmt::Display for CredentialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLoaded { origin } => write!(f, "{origin}: not loaded yet; try again in a moment"),
            Self::NotFound { origin, detail } => write!(
                f,
                "{origin}: no AWS credentials ({detail}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or \
                 AWS_PROFILE, give this machine a role, or put keys, aws_role_name or api_key into the deployment"
            ),
            Self::Expired { origin, detail } if detail.is_empty() => {
                write!(f, "{origin}: the credentials have expired; renew them (for SSO: `aws sso login`)")
            }
            Self::Expired { origin, detail } => {
                write!(f, "{origin}: the credentials have expired and renewing them failed: {detail}")
            }
            Self::Refused { origin, detail } => write!(
                f,
                "{origin}: refused ({detail}); check that the role, its trust policy and external id, or the SSO \
                 session (`aws sso login`), allow it"
            ),
            Self::Unreachable { origin, detail } => write!(
                f,
                "{origin}: no answer ({detail}); check the network path to it, its endpoint setting and AWS_CA_BUNDLE"
            ),
            Self::Misconfigured { origin, detail } => {
                write!(f, "{origin}: cannot work as configured: {detail}")
            }
        }
    }
}

impl Error for CredentialError {}

/// The `Display` of an error and of everything under it, each text once.
pub(super) fn chain_text(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

/// The kind of the IO error at the bottom of an error, if there is one.
fn io_kind(error: &(dyn Error + 'static)) -> Option<std::io::ErrorKind> {
    std::iter::successors(Some(error), |&error| error.source())
        .find_map(|error| error.downcast_ref::<std::io::Error>())
        .map(std::io::Error::kind)
}

/// One line of bounded length: what comes from outside must not forge lines of a log.
fn one_line(text: &str) -> Arc<str> {
    let mut line: String = text.chars().take(DETAIL_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(DETAIL_CHARS_MAX).is_some() {
        line.push('…');
    }
    line.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Arc<str> {
        "AWS profile \"dev\"".into()
    }

    #[test]
    fn errors_of_the_sdk_are_sorted_by_what_to_do() {
        let io = |kind| std::io::Error::new(kind, "cause");
        for (error, kind) in [
            (CredentialsError::not_loaded("nothing there"), "not_found"),
            (CredentialsError::invalid_configuration("loop"), "misconfigured"),
            (CredentialsError::provider_timed_out(std::time::Duration::from_secs(1)), "unreachable"),
            (CredentialsError::provider_error("AccessDenied"), "refused"),
            (CredentialsError::provider_error(io(std::io::ErrorKind::ConnectionRefused)), "unreachable"),
            (CredentialsError::provider_error(io(std::io::ErrorKind::NotFound)), "misconfigured"),
            (CredentialsError::unhandled("?"), "refused"),
        ] {
            let ours = CredentialError::from_provider(&origin(), &error);
            assert_eq!(ours.kind(), kind, "{error:?}");
            assert!(ours.to_string().starts_with("AWS profile \"dev\": "), "{ours}");
        }
    }

    #[test]
    fn causes_are_told_once_and_in_order() {
        let error = CredentialsError::provider_error(CredentialsError::not_loaded("the file is empty"));
        let text = chain_text(&error);
        assert_eq!(text.matches("the file is empty").count(), 1, "{text}");
    }

    #[test]
    fn a_text_from_outside_is_one_bounded_line() {
        let text = CredentialError::refused(&origin(), &format!("a\r\nERROR forged{}", "x".repeat(1_000))).to_string();
        assert!(!text.contains(['\r', '\n']) && text.len() < 700, "{text}");
    }
}

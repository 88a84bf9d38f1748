//! A role assumed with an OIDC token of an identity provider (`aws_web_identity_token`), given as a file or in itself.
//!
//! A file is read at each load, because Kubernetes and others replace it. The role of a pod that Kubernetes announces
//! in `AWS_WEB_IDENTITY_TOKEN_FILE` needs none of this: the standard chain reads it.

use std::sync::Arc;

use async_trait::async_trait;

use super::assume_role::{refusal, session};
use super::sdk::{Sdk, quietly};
use super::{CredentialError, Loaded, Provider};
use crate::types::secret::Secret;

/// `aws_web_identity_token` and `aws_role_name` of a deployment.
pub(super) struct WebIdentity {
    pub(super) sdk: Arc<Sdk>,
    pub(super) origin: Arc<str>,
    /// The token, or the path of a file that holds it.
    pub(super) token: Secret,
    pub(super) role_arn: String,
    pub(super) session_name: String,
    pub(super) sts_endpoint: Option<String>,
    pub(super) region: String,
}

#[async_trait]
impl Provider for WebIdentity {
    async fn load(&self) -> Result<Loaded, CredentialError> {
        let token = self.token().await?;
        let sts = self.sdk.sts(&self.origin, &self.region, self.sts_endpoint.as_deref(), None).await?;
        let request = sts
            .assume_role_with_web_identity()
            .role_arn(&self.role_arn)
            .role_session_name(&self.session_name)
            .web_identity_token(token.expose());
        let answer = quietly(request.send()).await.map_err(|error| refusal(&self.origin, &error))?;
        session(&self.origin, answer.credentials)
    }
}

impl WebIdentity {
    async fn token(&self) -> Result<Secret, CredentialError> {
        if is_token(self.token.expose()) {
            return Ok(self.token.clone());
        }
        let text = tokio::fs::read_to_string(self.token.expose()).await.map_err(|error| {
            // The path is not quoted: it might be a token in a form we do not know.
            let text = format!("aws_web_identity_token is neither a token (JWT) nor a file that can be read: {error}");
            CredentialError::misconfigured(&self.origin, &text)
        })?;
        Ok(Secret::new(text.trim()))
    }
}

/// Whether the text is a JWT, three dot-separated parts in base64url of which the first is a JSON object, and not a
/// path.
fn is_token(text: &str) -> bool {
    let base64url = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    text.starts_with("ey") && text.split('.').count() == 3 && text.split('.').all(base64url)
}

#[cfg(test)]
mod tests {
    use super::is_token;

    #[test]
    fn a_token_is_told_from_a_path() {
        assert!(is_token("eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln-_A"));
        for path in ["/var/run/secrets/token", "token.jwt", "ey.jwt", "eyes.d/a.b", "", "a.b.c", "eyJ..x"] {
            assert!(!is_token(path), "{path}");
        }
    }
}

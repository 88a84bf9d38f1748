//! A role assumed from another source through STS, with external id, session name and an endpoint of one's own.
//!
//! It calls STS itself rather than through `aws_config::sts::AssumeRoleProvider`, which logs access key ids and hides
//! what STS said. Also here: what an answer of STS means, shared with `web_identity.rs`.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use aws_sdk_sts::config::http::HttpResponse;
use aws_sdk_sts::error::{ProvideErrorMetadata, SdkError};

use super::error::chain_text;
use super::sdk::{Sdk, quietly};
use super::{CredentialError, Loaded, Provider, Source, UpstreamAuth};
use crate::aws::sigv4::SigningCredentials;

/// `aws_role_name` of a deployment.
pub(super) struct AssumeRole {
    pub(super) base: Arc<Source>,
    pub(super) sdk: Arc<Sdk>,
    pub(super) origin: Arc<str>,
    pub(super) role_arn: String,
    pub(super) session_name: String,
    pub(super) external_id: Option<String>,
    pub(super) sts_endpoint: Option<String>,
    pub(super) region: String,
}

#[async_trait]
impl Provider for AssumeRole {
    async fn load(&self) -> Result<Loaded, CredentialError> {
        let UpstreamAuth::SigV4(base) = self.base.ready().await? else {
            let text = "a role cannot be assumed with a Bedrock API key; give it access keys, a profile or the chain";
            return Err(CredentialError::misconfigured(&self.origin, text));
        };
        let endpoint = self.sts_endpoint.as_deref();
        let sts = self.sdk.sts(&self.origin, &self.region, endpoint, Some(&base)).await?;
        let request = sts
            .assume_role()
            .role_arn(&self.role_arn)
            .role_session_name(&self.session_name)
            .set_external_id(self.external_id.clone());
        let answer = quietly(request.send()).await.map_err(|error| refusal(&self.origin, &error))?;
        session(&self.origin, answer.credentials)
    }
}

/// The credentials of a session.
pub(super) fn session(
    origin: &Arc<str>,
    credentials: Option<aws_sdk_sts::types::Credentials>,
) -> Result<Loaded, CredentialError> {
    let credentials =
        credentials.ok_or_else(|| CredentialError::refused(origin, "the answer of STS holds no credentials"))?;
    let expires_at = SystemTime::try_from(credentials.expiration)
        .map_err(|_| CredentialError::refused(origin, "the expiry in the answer of STS is no time"))?;
    // The SDK fills what an answer lacks with empty texts.
    if credentials.access_key_id.is_empty() || credentials.secret_access_key.is_empty() {
        return Err(CredentialError::refused(origin, "the credentials in the answer of STS are incomplete"));
    }
    let signing = SigningCredentials {
        access_key_id: credentials.access_key_id,
        secret_access_key: credentials.secret_access_key.into(),
        session_token: Some(credentials.session_token.into()),
    };
    Ok(Loaded { auth: UpstreamAuth::SigV4(Arc::new(signing)), expires_at: Some(expires_at) })
}

/// Why a call of STS failed. A raw answer is never quoted: a broken one may hold the credentials.
pub(super) fn refusal<E>(origin: &Arc<str>, error: &SdkError<E, HttpResponse>) -> CredentialError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match error {
        // An answer of another server with status 200 is no `ResponseError` but an error without a code.
        SdkError::ServiceError(service) if service.raw().status().is_success() => not_sts(origin),
        SdkError::ServiceError(service) => {
            let (code, message) = (service.err().code().unwrap_or("an error"), service.err().message());
            let text = format!("STS: {code}: {}", message.unwrap_or("without a message"));
            if service.raw().status().is_server_error() {
                CredentialError::unreachable(origin, &text)
            } else {
                CredentialError::refused(origin, &text)
            }
        }
        SdkError::ResponseError(_) => not_sts(origin),
        SdkError::ConstructionFailure(_) => CredentialError::misconfigured(origin, &chain_text(error)),
        _ => CredentialError::unreachable(origin, &format!("STS: {}", chain_text(error))),
    }
}

fn not_sts(origin: &Arc<str>) -> CredentialError {
    CredentialError::unreachable(origin, "what answers at the STS endpoint is not STS")
}

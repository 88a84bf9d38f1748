//! The standard AWS chain (environment, profile, SSO, web identity, container, instance metadata) and a profile by
//! name, both as `aws-config` understands them.
//!
//! A provider is built anew for each load: those of `aws-config` parse the profile files once and keep an error of that
//! for ever, so a corrected file or a new `aws sso login` would need a restart.

use std::sync::Arc;

use async_trait::async_trait;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_credential_types::provider::ProvideCredentials as _;

use super::sdk::{Sdk, quietly};
use super::{CredentialError, Loaded, Provider};

/// The standard chain.
pub(super) struct Chain {
    pub(super) sdk: Arc<Sdk>,
    pub(super) origin: Arc<str>,
}

#[async_trait]
impl Provider for Chain {
    async fn load(&self) -> Result<Loaded, CredentialError> {
        let config = quietly(self.sdk.loader(&self.origin).await?.load()).await;
        let provider = config
            .credentials_provider()
            .ok_or_else(|| CredentialError::misconfigured(&self.origin, "the AWS SDK was built without a chain"))?;
        let credentials = quietly(provider.provide_credentials()).await;
        credentials.map(Loaded::from).map_err(|error| CredentialError::from_provider(&self.origin, &error))
    }
}

/// A named profile. Unlike `AWS_PROFILE`, it wins over keys in the environment, as `profile_name` does in boto3.
pub(super) struct Profile {
    pub(super) sdk: Arc<Sdk>,
    pub(super) origin: Arc<str>,
    pub(super) name: String,
}

#[async_trait]
impl Provider for Profile {
    async fn load(&self) -> Result<Loaded, CredentialError> {
        let provider = ProfileFileCredentialsProvider::builder()
            .configure(&self.sdk.provider_config(&self.origin).await?)
            .profile_name(&self.name)
            .build();
        let credentials = quietly(provider.provide_credentials()).await;
        credentials.map(Loaded::from).map_err(|error| CredentialError::from_provider(&self.origin, &error))
    }
}

//! How this folder calls AWS's SDK: one HTTPS client for all sources (rustls with ring; the bundle of `AWS_CA_BUNDLE`
//! besides the system's certificates), one region, the SDK's own reading of environment and files.
//!
//! The bundle is checked here first, because the SDK panics on a file it cannot parse.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use aws_config::provider_config::ProviderConfig;
use aws_config::{BehaviorVersion, ConfigLoader, Region};
use aws_credential_types::Credentials;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider as TlsProvider, TlsContext, TrustStore};
use aws_types::sdk_config::SharedHttpClient;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::OnceCell;
use tracing::instrument::WithSubscriber as _;
use tracing::subscriber::NoSubscriber;

use super::{CredentialError, Loaded, Options, UpstreamAuth};
use crate::aws::sigv4::SigningCredentials;

/// Shared by all sources.
pub(super) struct Sdk {
    options: Options,
    http_client: OnceCell<SharedHttpClient>,
}

impl Sdk {
    pub(super) fn new(options: Options) -> Self {
        Self { options, http_client: OnceCell::new() }
    }

    /// What a client of AWS is configured from: environment, files, and our region and HTTP client.
    pub(super) async fn loader(&self, origin: &Arc<str>) -> Result<ConfigLoader, CredentialError> {
        Ok(aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(self.options.region.clone()))
            .http_client(self.http_client(origin).await?))
    }

    /// What a single provider of credentials is configured from.
    pub(super) async fn provider_config(&self, origin: &Arc<str>) -> Result<ProviderConfig, CredentialError> {
        Ok(ProviderConfig::without_region()
            .with_region(Some(Region::new(self.options.region.clone())))
            .with_http_client(self.http_client(origin).await?))
    }

    /// A client of STS. `credentials` sign its requests; without any, only web identities can be exchanged.
    pub(super) async fn sts(
        &self,
        origin: &Arc<str>,
        region: &str,
        endpoint: Option<&str>,
        credentials: Option<&SigningCredentials>,
    ) -> Result<aws_sdk_sts::Client, CredentialError> {
        let loader = self.loader(origin).await?.region(Region::new(region.to_owned()));
        let loader = match credentials {
            None => loader.no_credentials(),
            Some(credentials) => loader.credentials_provider(Credentials::new(
                credentials.access_key_id.clone(),
                credentials.secret_access_key.expose(),
                credentials.session_token.as_ref().map(|token| token.expose().to_owned()),
                None,
                "dheera_ai",
            )),
        };
        let loader = match endpoint {
            None => loader,
            Some(endpoint) => loader.endpoint_url(endpoint),
        };
        Ok(aws_sdk_sts::Client::new(&Box::pin(quietly(loader.load())).await))
    }

    async fn http_client(&self, origin: &Arc<str>) -> Result<SharedHttpClient, CredentialError> {
        let made = self.http_client.get_or_try_init(|| async {
            let mut trust = TrustStore::default();
            if let Some(path) = &self.options.ca_bundle {
                let pem = tokio::fs::read(path).await.map_err(|error| error.to_string()).and_then(checked_pem);
                trust.add_pem_certificate(pem.map_err(|reason| bundle_error(origin, path, &reason))?);
            }
            let context = TlsContext::builder()
                .with_trust_store(trust)
                .build()
                .map_err(|error| CredentialError::misconfigured(origin, &error.to_string()))?;
            Ok(aws_smithy_http_client::Builder::new()
                .tls_provider(TlsProvider::Rustls(CryptoMode::Ring))
                .tls_context(context)
                .build_https())
        });
        made.await.cloned()
    }
}

/// Runs a call of the SDK without its log. At TRACE the SDK prints whole requests, SSO's bearer token among them;
/// what an operator needs of a failure is in the error.
pub(super) fn quietly<F: Future>(call: F) -> impl Future<Output = F::Output> {
    call.with_subscriber(NoSubscriber::default())
}

/// `pem` if it consists of certificates that can be trusted.
fn checked_pem(pem: Vec<u8>) -> Result<Vec<u8>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| format!("it is not PEM: {error}"))?;
        roots.add(certificate).map_err(|error| format!("it holds something else than certificates: {error}"))?;
    }
    if roots.is_empty() { Err("it holds no certificate".to_owned()) } else { Ok(pem) }
}

fn bundle_error(origin: &Arc<str>, path: &Path, reason: &str) -> CredentialError {
    let text = format!("the CA bundle {} is of no use: {reason}; correct AWS_CA_BUNDLE or remove it", path.display());
    CredentialError::misconfigured(origin, &text)
}

/// Takes over what a provider of the SDK has given.
impl From<Credentials> for Loaded {
    fn from(credentials: Credentials) -> Self {
        let signing = SigningCredentials {
            access_key_id: credentials.access_key_id().to_owned(),
            secret_access_key: credentials.secret_access_key().to_owned().into(),
            session_token: credentials.session_token().map(|token| token.to_owned().into()),
        };
        Self { auth: UpstreamAuth::SigV4(Arc::new(signing)), expires_at: credentials.expiry() }
    }
}

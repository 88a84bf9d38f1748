//! Where the AWS credentials of a deployment come from, and how they stay fresh. One [`Source`] per distinct
//! configuration, shared by the deployments that have it; requests read it without a lock and never cause IO but for
//! the first use.
//!
//! It does not sign (that is `aws::sigv4`) and does not choose between sources. The standard chain is that of
//! `aws-config`, so environment variables, files and endpoints mean here what they mean to every AWS SDK.

use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::aws::sigv4::SigningCredentials;
use crate::config::Credentials;
use crate::types::secret::Secret;

mod api_key;
mod assume_role;
mod cached;
mod chain;
mod error;
mod sdk;
mod web_identity;

pub use cached::{Source, Status};
pub use error::CredentialError;

use cached::{Loaded, Provider};
use sdk::Sdk;

/// How a request authenticates itself to AWS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamAuth {
    SigV4(Arc<SigningCredentials>),
    /// A Bedrock API key, for `Authorization: Bearer`.
    Bearer(Arc<Secret>),
}

/// What all sources share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Certificates trusted besides the system's, PEM (`AWS_CA_BUNDLE`).
    pub ca_bundle: Option<PathBuf>,
    /// Where STS is called for a profile that assumes a role.
    pub region: String,
}

/// All sources of the configuration.
#[derive(Debug)]
pub struct CredentialStore {
    options: Options,
    sources: HashMap<Credentials, Arc<Source>>,
}

impl CredentialStore {
    /// Prepares a source for each distinct value; one that `previous` has too keeps what it has loaded. Does no IO: the
    /// first [`Source::ready`] does.
    #[must_use]
    pub fn new(specs: impl IntoIterator<Item = Credentials>, options: Options, previous: Option<&Self>) -> Self {
        let mut store = Self { options: options.clone(), sources: HashMap::new() };
        let previous = previous.filter(|previous| previous.options == options);
        let sdk = Arc::new(Sdk::new(options));
        for spec in specs {
            store.add(&spec, &sdk, previous);
        }
        store
    }

    /// The source of `spec`, if it was among those of [`Self::new`].
    #[must_use]
    pub fn handle(&self, spec: &Credentials) -> Option<Arc<Source>> {
        self.sources.get(spec).cloned()
    }

    /// Every source, the bases of assumed roles among them, in no order.
    pub fn sources(&self) -> impl Iterator<Item = &Arc<Source>> {
        self.sources.values()
    }

    /// Renews every source that has been used before it expires, until `shutdown`.
    pub async fn refresh_loop(self: Arc<Self>, shutdown: impl Future) {
        let mut tasks = JoinSet::new();
        for source in self.sources() {
            let source = Arc::clone(source);
            tasks.spawn(async move { source.keep_fresh().await });
        }
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                _ = &mut shutdown => return,
                Some(ended) = tasks.join_next() => if let Err(error) = ended {
                    // Requests still renew expired credentials themselves, only later and slower.
                    tracing::error!(%error, "a task that renews AWS credentials has stopped; restart the proxy");
                },
                else => {
                    shutdown.await;
                    return;
                }
            }
        }
    }

    fn add(&mut self, spec: &Credentials, sdk: &Arc<Sdk>, previous: Option<&Self>) -> Arc<Source> {
        if let Some(source) = self.sources.get(spec) {
            return Arc::clone(source);
        }
        if let Some(source) = previous.and_then(|previous| previous.handle(spec)) {
            if let Credentials::AssumeRole { base, .. } = spec {
                // It goes on using its base, which has to be kept fresh too.
                self.add(base, sdk, previous);
            }
            self.sources.insert(spec.clone(), Arc::clone(&source));
            return source;
        }
        let origin: Arc<str> = origin_of(spec).into();
        let source = match spec {
            Credentials::Static { access_key_id, secret_access_key, session_token } => {
                let credentials = SigningCredentials {
                    access_key_id: access_key_id.clone(),
                    secret_access_key: secret_access_key.0.clone(),
                    session_token: session_token.as_ref().map(|token| token.0.clone()),
                };
                let auth = UpstreamAuth::SigV4(Arc::new(credentials));
                Source::fixed(origin, Loaded { auth, expires_at: None })
            }
            Credentials::ApiKey(key) => {
                let auth = UpstreamAuth::Bearer(Arc::new(key.0.clone()));
                Source::fixed(origin, Loaded { auth, expires_at: api_key::expiry(&key.0) })
            }
            _ => {
                let provider = self.provider(spec, sdk, &origin, previous);
                Source::new(origin, provider)
            }
        };
        let source = Arc::new(source);
        self.sources.insert(spec.clone(), Arc::clone(&source));
        source
    }

    fn provider(
        &mut self,
        spec: &Credentials,
        sdk: &Arc<Sdk>,
        origin: &Arc<str>,
        previous: Option<&Self>,
    ) -> Box<dyn Provider> {
        let (sdk, origin) = (Arc::clone(sdk), Arc::clone(origin));
        match spec {
            Credentials::AssumeRole { base, role_arn, session_name, external_id, sts_endpoint, region } => {
                Box::new(assume_role::AssumeRole {
                    base: self.add(base, &sdk, previous),
                    sdk,
                    origin,
                    role_arn: role_arn.clone(),
                    session_name: session_name.clone(),
                    external_id: external_id.clone(),
                    sts_endpoint: sts_endpoint.clone(),
                    region: region.clone(),
                })
            }
            Credentials::WebIdentity { token, role_arn, session_name, sts_endpoint, region } => {
                Box::new(web_identity::WebIdentity {
                    sdk,
                    origin,
                    token: token.0.clone(),
                    role_arn: role_arn.clone(),
                    session_name: session_name.clone(),
                    sts_endpoint: sts_endpoint.clone(),
                    region: region.clone(),
                })
            }
            Credentials::Profile(name) => Box::new(chain::Profile { sdk, origin, name: name.clone() }),
            // Fixed credentials have no provider; they cannot come here.
            Credentials::Chain | Credentials::Static { .. } | Credentials::ApiKey(_) => {
                Box::new(chain::Chain { sdk, origin })
            }
        }
    }
}

/// The name of a source in logs and errors.
fn origin_of(spec: &Credentials) -> String {
    match spec {
        Credentials::Chain => "default AWS credential chain".to_owned(),
        Credentials::Profile(name) => format!("AWS profile {name:?}"),
        Credentials::Static { access_key_id, .. } => {
            let tail_at = access_key_id.len().saturating_sub(4);
            format!("access key …{}", access_key_id.get(tail_at..).unwrap_or_default())
        }
        Credentials::AssumeRole { role_arn, .. } => format!("role {role_arn}"),
        Credentials::WebIdentity { role_arn, .. } => format!("web identity for role {role_arn}"),
        Credentials::ApiKey(_) => "Bedrock API key".to_owned(),
    }
}

#[cfg(test)]
mod tests;

//! What is built anew for each configuration: credentials, fleet, profiles, pages and the gateway that serves by them.
//! The start and each reload do the same here; what outlives a configuration is handed in.

use std::sync::Arc;

use super::bank::{Kept, Own, stored};
use crate::admin::pages::Pages;
use crate::admin::readiness::Readiness;
use crate::admin::reload::Reloads;
use crate::admin::status::Status;
use crate::config::{Config, Credentials, Deployment, Direct, Endpoints};
use crate::credentials::{CredentialStore, Options};
use crate::deployment::fleet::{Fleet, FleetError};
use crate::deployment::profiles::Profiles;
use crate::keys::authenticate::Authenticator;
use crate::proxy::{Gateway, Lasting, Parts};

/// What all configurations of this process share.
pub(super) struct Ground {
    pub lasting: Lasting,
    /// `None` without a master key.
    pub kept: Option<Kept>,
    pub readiness: Arc<Readiness>,
    pub reloads: Arc<dyn Reloads>,
}

/// One configuration, ready to serve.
pub(super) struct Built {
    pub gateway: Gateway,
    pub upstreams: Upstreams,
}

/// What the tasks in the background keep fresh.
#[derive(Clone)]
pub(super) struct Upstreams {
    pub credentials: Arc<CredentialStore>,
    pub fleet: Arc<Fleet>,
    pub profiles: Arc<Profiles>,
}

impl Ground {
    /// Does no IO. What did not change is taken over from `previous`.
    ///
    /// # Errors
    /// When the configuration names something that does not exist, such as a region without an endpoint.
    pub(super) fn build(&self, config: &Config, previous: Option<&Upstreams>) -> Result<Built, FleetError> {
        // Field by field, so that a new one does not compile until it is known what it does here.
        let Config {
            listen: _,
            access,
            deployments,
            direct,
            endpoints,
            router,
            limits,
            request_log: _,
            price_book,
            operation_prices,
            store: _,
            budgets,
            // `cli` has put these where the AWS SDK reads them, before this process had threads.
            environment: _,
        } = config;
        let Lasting { metrics, named_budgets, .. } = &self.lasting;
        let credentials = credentials(deployments, direct, endpoints, previous);
        let (fleet, profiles) = (previous.map(|one| &*one.fleet), previous.map(|one| &*one.profiles));
        let fleet = Fleet::new(deployments, direct, endpoints, &credentials, limits.upstream_idle_timeout, fleet)?;
        let fleet = Arc::new(fleet);
        let profiles = Profiles::new(&fleet, endpoints.clone(), Arc::clone(price_book), Arc::clone(metrics), profiles);
        let profiles = Arc::new(profiles);
        let register = self.kept.as_ref().map(|kept| Arc::clone(&kept.register));
        let authenticator = Arc::new(Authenticator::new(access, register));
        let status = Status {
            authenticator: Arc::clone(&authenticator),
            fleet: Arc::clone(&fleet),
            profiles: Arc::clone(&profiles),
            price_book: Arc::clone(price_book),
            metrics: Arc::clone(metrics),
            require_auth_for_metrics: access.require_auth_for_metrics,
            readiness: Arc::clone(&self.readiness),
        };
        let own = Own {
            named_budgets: Arc::clone(named_budgets),
            metrics: Arc::clone(metrics),
            ledger: self.kept.as_ref().map(|kept| Arc::clone(&kept.ledger)),
            pages: Pages {
                status,
                reloads: Arc::clone(&self.reloads),
                stored: self.kept.as_ref().map(|kept| stored(kept, &authenticator, budgets)),
            },
        };
        let parts = Parts {
            authenticator,
            fleet: Arc::clone(&fleet),
            profiles: Arc::clone(&profiles),
            limits: limits.clone(),
            router: router.clone(),
            allow_unlisted_models: direct.allow_unlisted_models,
            price_book: Arc::clone(price_book),
            operation_prices: operation_prices.clone(),
            budgets: budgets.clone(),
            local: Box::new(own),
        };
        let gateway = Gateway::new(parts, &self.lasting);
        Ok(Built { gateway, upstreams: Upstreams { credentials: Arc::new(credentials), fleet, profiles } })
    }
}

/// Every credential source that the configuration names.
fn credentials(
    deployments: &[Deployment],
    direct: &Direct,
    endpoints: &Endpoints,
    previous: Option<&Upstreams>,
) -> CredentialStore {
    let pairs = deployments.iter().map(|one| (&one.credentials, &one.bearer));
    let sources = pairs.chain([(&direct.credentials, &direct.bearer)]).flat_map(|(credentials, bearer)| {
        [Some(credentials.clone()), bearer.clone().map(Credentials::ApiKey)].into_iter().flatten()
    });
    let options = Options { ca_bundle: endpoints.ca_bundle.clone(), region: direct.region.to_string() };
    CredentialStore::new(sources, options, previous.map(|one| &*one.credentials))
}

//! Every place a request can go to: the deployments of `model_list` by model name, and one direct target per service
//! for ids that the list does not name and for operations without a model.
//!
//! Built from the configuration, and anew for each one that is put in force while running. No request can add to it: the
//! hosts a request may reach are those the configuration implies, and no others.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::host::Host;
use super::limiter::Quota;
use super::live::{Live, Retries};
use super::select::{Asked, Strategy, draw, select, sums};
use super::vitals::Traits;
use crate::aws::endpoint::{EndpointError, Variant, host};
use crate::aws::operation::Service;
use crate::config::{self, Endpoint, Endpoints, SecretRef};
use crate::credentials::{CredentialStore, Source};
use crate::price::book::PriceOverride;
use crate::types::ids::{DeploymentId, ModelId, ModelName, Region};

/// One upstream a request can be sent to.
#[derive(Debug, Clone)]
pub struct Target {
    pub id: DeploymentId,
    /// `None` for a direct target.
    pub model_name: Option<ModelName>,
    /// `None` for a direct target: the id is the one the client sent.
    pub model_id: Option<ModelId>,
    pub region: Region,
    pub service: Service,
    pub host: Arc<Host>,
    pub credentials: Arc<Source>,
    /// A Bedrock API key, before `credentials` for operations that accept one.
    pub bearer: Option<Arc<Source>>,
    /// What selection wants to know of it.
    pub traits: Traits,
    /// How it does. Lives on when a new configuration keeps the deployment.
    pub live: Arc<Live>,
    pub timeout: Duration,
    pub stream_timeout: Duration,
    /// For a whole answer; `None` without a bound.
    pub total_timeout: Option<Duration>,
    pub stream_total_timeout: Option<Duration>,
    /// Between two bytes of an answer.
    pub idle_timeout: Duration,
    pub base_model: Option<ModelId>,
    pub price: Option<PriceOverride>,
}

impl Target {
    fn is_of_the_kind_of(&self, other: &Self) -> bool {
        (self.service, &self.model_id, &self.base_model, &self.region, &self.price)
            == (other.service, &other.model_id, &other.base_model, &other.region, &other.price)
    }
}

/// The deployments of one model name, in the order of the list. A name may have a thousand of them, so what a request
/// has to know of all is worked out here.
#[derive(Debug)]
pub struct Group {
    pub model_name: ModelName,
    pub targets: Vec<Arc<Target>>,
    /// One target of each model, region and price: all that a rule or a bound on the cost can depend on.
    pub kinds: Vec<Arc<Target>>,
    pub retries: Arc<Retries>,
    /// The sum of the weights up to each target, its own included.
    weights: Vec<u64>,
}

impl Group {
    fn new(model_name: ModelName, targets: Vec<Arc<Target>>, retries: Arc<Retries>) -> Self {
        let mut kinds: Vec<Arc<Target>> = Vec::new();
        for target in &targets {
            if !kinds.iter().any(|kind| kind.is_of_the_kind_of(target)) {
                kinds.push(Arc::clone(target));
            }
        }
        let weights = sums(targets.iter().map(|target| target.traits.weight));
        Self { model_name, targets, kinds, retries, weights }
    }

    /// The same model name with other targets, or with fewer.
    #[must_use]
    pub fn with(&self, targets: Vec<Arc<Target>>) -> Self {
        Self::new(self.model_name.clone(), targets, Arc::clone(&self.retries))
    }

    /// Draws one by weight, whatever its state. `random` is uniform over all of `u64`.
    #[must_use]
    pub fn draw(&self, random: u64) -> Option<usize> {
        draw(&self.weights, random)
    }

    /// One that may serve now, by weight, for a choice that all attempts share.
    #[must_use]
    pub fn pick(&self, now: Instant, random: u64) -> Option<&Arc<Target>> {
        let view = |target: &Arc<Target>| {
            target.live.view(&target.traits, target.host.health.availability(now), false, false, now)
        };
        let views: Vec<_> = self.targets.iter().map(view).collect();
        let asked = Asked { strategy: Strategy::SimpleShuffle, affinity: None, first: true };
        match select(&asked, &views, random) {
            Ok(choice) => self.targets.get(choice.index),
            Err(_) => self.targets.first(),
        }
    }
}

/// All of them.
#[derive(Debug)]
pub struct Fleet {
    groups: HashMap<ModelName, Arc<Group>>,
    direct: BTreeMap<Service, Arc<Group>>,
    hosts: Vec<Arc<Host>>,
}

/// Why no fleet can be built from the configuration.
#[derive(Debug)]
pub enum FleetError {
    Endpoint { deployment: String, detail: String },
    Credentials { deployment: String },
}

impl fmt::Display for FleetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint { deployment, detail } => write!(f, "{deployment}: {detail}"),
            Self::Credentials { deployment } => write!(f, "{deployment}: no source of credentials"),
        }
    }
}

impl std::error::Error for FleetError {}

impl Fleet {
    /// `previous` is the fleet before this one: a host or deployment that both have keeps what is known of it.
    ///
    /// # Errors
    /// When a region has no endpoint, or a credential source is missing.
    pub fn new(
        deployments: &[config::Deployment],
        direct: &config::Direct,
        endpoints: &Endpoints,
        credentials: &CredentialStore,
        idle_timeout: Duration,
        previous: Option<&Self>,
    ) -> Result<Self, FleetError> {
        let mut builder = Builder { endpoints, credentials, idle_timeout, previous, hosts: HashMap::new() };
        let mut groups: BTreeMap<ModelName, Vec<Arc<Target>>> = BTreeMap::new();
        for deployment in deployments {
            let target = builder.listed(deployment)?;
            target.host.mark_used();
            groups.entry(deployment.model_name.clone()).or_default().push(Arc::new(target));
        }
        let mut direct_groups = BTreeMap::new();
        for service in Service::ALL {
            let target = builder.direct(direct, service)?;
            let retries = Arc::default();
            let group = Group::new(ModelName::new("direct"), vec![Arc::new(target)], retries);
            direct_groups.insert(service, Arc::new(group));
        }
        let groups = groups
            .into_iter()
            .map(|(model_name, targets)| {
                let known = previous.and_then(|fleet| fleet.group(model_name.as_str()));
                let retries = known.map(|group| Arc::clone(&group.retries)).unwrap_or_default();
                (model_name.clone(), Arc::new(Group::new(model_name, targets, retries)))
            })
            .collect();
        Ok(Self { groups, direct: direct_groups, hosts: builder.hosts.into_values().collect() })
    }

    /// The deployments that serve `model_name`.
    #[must_use]
    pub fn group(&self, model_name: &str) -> Option<&Arc<Group>> {
        self.groups.get(model_name)
    }

    /// The direct target of a service, as a group of one.
    #[must_use]
    pub fn direct(&self, service: Service) -> Option<&Arc<Group>> {
        self.direct.get(&service)
    }

    /// Groups by name, sorted.
    #[must_use]
    pub fn groups(&self) -> Vec<&Arc<Group>> {
        let mut groups: Vec<_> = self.groups.values().collect();
        groups.sort_by(|one, other| one.model_name.cmp(&other.model_name));
        groups
    }

    /// The listed deployments, in no order.
    pub fn targets(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.groups.values().flat_map(|group| &group.targets)
    }

    /// Whether a deployment of this id is listed.
    #[must_use]
    pub fn has(&self, id: &DeploymentId) -> bool {
        self.targets().any(|target| target.id == *id)
    }

    /// Every distinct host, for those who resolve names and check addresses.
    #[must_use]
    pub fn hosts(&self) -> Vec<Arc<Host>> {
        self.hosts.clone()
    }
}

struct Builder<'a> {
    endpoints: &'a Endpoints,
    credentials: &'a CredentialStore,
    idle_timeout: Duration,
    previous: Option<&'a Fleet>,
    hosts: HashMap<Endpoint, Arc<Host>>,
}

impl Builder<'_> {
    fn listed(&mut self, deployment: &config::Deployment) -> Result<Target, FleetError> {
        let service = Service::BedrockRuntime;
        Ok(Target {
            id: deployment.id.clone(),
            model_name: Some(deployment.model_name.clone()),
            model_id: Some(deployment.model_id.clone()),
            region: deployment.region.clone(),
            service,
            host: self.host(
                deployment.runtime_endpoint.as_ref(),
                service,
                &deployment.region,
                deployment.id.as_str(),
            )?,
            credentials: self.source(&deployment.credentials, deployment.id.as_str())?,
            bearer: self.bearer(deployment.bearer.as_ref(), deployment.id.as_str())?,
            traits: Traits {
                max_retries: deployment.max_retries,
                quota: Quota { rpm: deployment.rpm, tpm: deployment.tpm, parallel: deployment.parallel },
                ..Traits::new(deployment.id.as_str(), deployment.weight)
            },
            live: self.live(&deployment.id, &deployment.model_id, &deployment.region),
            timeout: deployment.timeout,
            stream_timeout: deployment.stream_timeout,
            total_timeout: deployment.total_timeout,
            stream_total_timeout: deployment.stream_total_timeout,
            idle_timeout: self.idle_timeout,
            base_model: deployment.base_model.clone(),
            price: deployment.price.clone(),
        })
    }

    fn direct(&mut self, direct: &config::Direct, service: Service) -> Result<Target, FleetError> {
        let id = format!("direct-{}", service.endpoint_prefix());
        let known = self.previous.and_then(|fleet| Some(Arc::clone(&fleet.direct(service)?.targets.first()?.live)));
        Ok(Target {
            model_name: None,
            model_id: None,
            region: direct.region.clone(),
            service,
            host: self.host(None, service, &direct.region, &id)?,
            credentials: self.source(&direct.credentials, &id)?,
            bearer: self.bearer(direct.bearer.as_ref(), &id)?,
            traits: Traits::new(&id, 1),
            live: known.unwrap_or_default(),
            timeout: direct.timeout,
            stream_timeout: direct.stream_timeout,
            total_timeout: direct.total_timeout,
            stream_total_timeout: direct.stream_total_timeout,
            idle_timeout: self.idle_timeout,
            base_model: None,
            price: None,
            id: DeploymentId::new(id),
        })
    }

    /// The state of a deployment of this id, if there was one that called the same model in the same region.
    fn live(&self, id: &DeploymentId, model_id: &ModelId, region: &Region) -> Arc<Live> {
        let same = |target: &&Arc<Target>| {
            target.id == *id && target.model_id.as_ref() == Some(model_id) && target.region == *region
        };
        let known = self.previous.and_then(|fleet| fleet.targets().find(same));
        known.map(|target| Arc::clone(&target.live)).unwrap_or_default()
    }

    fn source(&self, spec: &config::Credentials, deployment: &str) -> Result<Arc<Source>, FleetError> {
        self.credentials.handle(spec).ok_or_else(|| FleetError::Credentials { deployment: deployment.to_owned() })
    }

    fn bearer(&self, key: Option<&SecretRef>, deployment: &str) -> Result<Option<Arc<Source>>, FleetError> {
        key.map(|key| self.source(&config::Credentials::ApiKey(key.clone()), deployment)).transpose()
    }

    fn host(
        &mut self,
        own: Option<&Endpoint>,
        service: Service,
        region: &Region,
        deployment: &str,
    ) -> Result<Arc<Host>, FleetError> {
        let endpoint = endpoint(self.endpoints, own, service, region.as_str())
            .map_err(|error| FleetError::Endpoint { deployment: deployment.to_owned(), detail: error.to_string() })?;
        let known = || self.previous?.hosts.iter().find(|host| host.endpoint == endpoint).map(Arc::clone);
        let host = self.hosts.entry(endpoint.clone());
        Ok(Arc::clone(host.or_insert_with(|| known().unwrap_or_else(|| Arc::new(Host::new(endpoint.clone()))))))
    }
}

/// The server of a service in a region: the deployment's own, that of the environment, or AWS's.
pub(super) fn endpoint(
    endpoints: &Endpoints,
    own: Option<&Endpoint>,
    service: Service,
    region: &str,
) -> Result<Endpoint, EndpointError> {
    let configured = own.or_else(|| endpoints.by_service.get(&service)).or(endpoints.all.as_ref());
    if let Some(endpoint) = configured {
        return Ok(endpoint.clone());
    }
    let variant = Variant { fips: endpoints.fips, dual_stack: endpoints.dual_stack };
    Ok(Endpoint { tls: true, host: host(service, region, variant)?, port: 443, path_prefix: String::new() })
}

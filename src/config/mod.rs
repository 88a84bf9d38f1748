//! The configuration the rest of the program sees: validated, immutable, without serde.
//!
//! `yaml.rs` reads text into a tree with places, `known_keys.rs` lists every key, `section.rs` checks keys and reads
//! values, `raw/` is the only place that knows the YAML shape, `resolve/` turns it into this, `problem.rs` tells
//! every mistake with its place and remedy, `secrets.rs` is where environment variables are read, `defaults.rs` holds
//! every default with its reason, `certificate.rs` reads the certificate of the TLS port, `show.rs` prints a configuration
//! without its secrets.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;

use crate::aws::operation::Service;
use crate::budget::limit::LimitSet;
use crate::deployment::affinity::CacheAffinity;
use crate::deployment::cooldown::CooldownRules;
use crate::deployment::select::Strategy;
use crate::price::book::{PriceBook, PriceOverride};
use crate::types::ids::{DeploymentId, ModelId, ModelName, Region};
use crate::types::money::NanoUsd;
use crate::types::secret::Secret;

use self::certificate::{CertificateFiles, ServerCertificate};

pub mod certificate;
pub mod defaults;
mod endpoint_url;
mod known_keys;
pub mod load;
mod model_form;
pub mod problem;
mod raw;
mod redis_url;
mod resolve;
pub mod secrets;
mod section;
pub mod show;

/// Everything the proxy needs to know, complete and consistent.
#[derive(Debug, PartialEq, Eq)]
pub struct Config {
    pub listen: Listen,
    pub access: Access,
    /// In the order of `model_list`.
    pub deployments: Vec<Deployment>,
    pub direct: Direct,
    pub endpoints: Endpoints,
    pub router: Router,
    pub limits: Limits,
    pub request_log: RequestLog,
    pub price_book: Arc<PriceBook>,
    /// Price of one call of an operation that reports no usage, by operation name (`RetrieveAndGenerate`).
    pub operation_prices: BTreeMap<String, NanoUsd>,
    /// Where keys, budgets and the spend log are kept; `None` without a master key, because then there are no keys.
    pub store: Option<Store>,
    pub budgets: Budgets,
    /// The `AWS_*` entries of `environment_variables`. The AWS credential chain reads variables by itself and must see
    /// these before the process's own; every other variable was followed while the configuration was read.
    pub environment: BTreeMap<String, Secret>,
}

/// The addresses and threads of the listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    pub host: IpAddr,
    /// Plain HTTP/1.1 and h2c, unless `tls` takes this port.
    pub port: u16,
    pub tls: Option<Tls>,
    /// Worker threads; one per core by default.
    pub workers: usize,
    /// Take the listening sockets over from the process that runs now (`--upgrade`).
    pub upgrade: bool,
    /// Where the one process hands them to the other.
    pub upgrade_socket: PathBuf,
}

/// TLS for clients, HTTP/1.1 and h2 by ALPN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// They are read again when they change.
    pub files: CertificateFiles,
    /// What they held when the configuration was read.
    pub certificate: Arc<ServerCertificate>,
    /// A port for TLS beside the plain one; without it [`Listen::port`] speaks TLS and nothing else.
    pub port: Option<u16>,
}

/// Who may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Guards everything when set. `None` is the open mode, on loopback only unless `allow_anonymous`.
    pub master_key: Option<Secret>,
    /// Seals the secrets of key pairs in the store; without one there are no key pairs.
    pub salt_key: Option<Secret>,
    pub allow_anonymous: bool,
    /// Whether `/metrics` needs the key when there is one.
    pub require_auth_for_metrics: bool,
}

/// One entry of `model_list`: where a model name may be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// Unique over the list; `model_info.id` or `<model_name>-<n>`.
    pub id: DeploymentId,
    pub model_name: ModelName,
    /// What stands in the path upstream, decoded.
    pub model_id: ModelId,
    pub region: Region,
    pub credentials: Credentials,
    /// `AWS_BEARER_TOKEN_BEDROCK`, for entries without credentials of their own. As in the AWS SDKs it comes before
    /// `credentials` for operations that accept a bearer token; the others are signed with `credentials`.
    pub bearer: Option<SecretRef>,
    /// `aws_bedrock_runtime_endpoint`: serves bedrock-runtime in place of AWS's own host.
    pub runtime_endpoint: Option<Endpoint>,
    /// Share of the load among deployments of one name; at least 1.
    pub weight: u32,
    /// Requests and tokens that may be sent to it in a minute, and requests at a time; `None` without a limit.
    pub rpm: Option<u64>,
    pub tpm: Option<u64>,
    pub parallel: Option<u32>,
    /// How often a request may try it again, after a pause, when no other deployment is left.
    pub max_retries: u32,
    /// First byte of a non-streamed answer, after the request was sent.
    pub timeout: Duration,
    /// First content of a streamed answer.
    pub stream_timeout: Duration,
    /// The whole of a non-streamed answer; `None` without a bound.
    pub total_timeout: Option<Duration>,
    /// The whole of a streamed answer.
    pub stream_total_timeout: Option<Duration>,
    /// The model whose price applies where `model_id` hides it (an application inference profile, a custom model).
    pub base_model: Option<ModelId>,
    /// Prices of `model_info`; they win over the book.
    pub price: Option<PriceOverride>,
}

/// Where the credentials of a deployment come from. `Debug` tells the kind and nothing more: an access key id is no
/// secret to AWS, but it is half of a pair and the name of an account.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Credentials {
    /// The standard AWS chain: environment, profile, SSO, web identity, container, instance metadata.
    Chain,
    Profile(String),
    Static {
        access_key_id: String,
        secret_access_key: SecretRef,
        session_token: Option<SecretRef>,
    },
    /// `aws_role_name`, reached from `base`.
    AssumeRole {
        base: Box<Credentials>,
        role_arn: String,
        session_name: String,
        external_id: Option<String>,
        sts_endpoint: Option<String>,
        region: String,
    },
    /// `aws_web_identity_token` (a path, or the token itself) and `aws_role_name`.
    WebIdentity {
        token: SecretRef,
        role_arn: String,
        session_name: String,
        sts_endpoint: Option<String>,
        region: String,
    },
    /// A Bedrock API key, sent as a bearer token.
    ApiKey(SecretRef),
}

impl Credentials {
    /// The kind, in a word or two.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Chain => "AWS chain",
            Self::Profile(_) => "profile",
            Self::Static { .. } => "static keys",
            Self::AssumeRole { .. } => "assumed role",
            Self::WebIdentity { .. } => "web identity",
            Self::ApiKey(_) => "Bedrock API key",
        }
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind())
    }
}

/// A secret that may stand in a hashed key of a cache.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretRef(pub Secret);

impl std::hash::Hash for SecretRef {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.expose().hash(state);
    }
}

impl std::fmt::Debug for SecretRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What serves an id that `model_list` does not name, and every operation without a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Direct {
    pub region: Region,
    pub credentials: Credentials,
    /// As [`Deployment::bearer`].
    pub bearer: Option<SecretRef>,
    /// Whether ids and ARNs outside `model_list` are served at all.
    pub allow_unlisted_models: bool,
    /// As those of [`Deployment`].
    pub timeout: Duration,
    pub stream_timeout: Duration,
    pub total_timeout: Option<Duration>,
    pub stream_total_timeout: Option<Duration>,
}

/// Endpoint overrides by service (`AWS_ENDPOINT_URL_BEDROCK_RUNTIME` …) and how AWS's own hosts are chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// `AWS_ENDPOINT_URL`, for services without an override of their own.
    pub all: Option<Endpoint>,
    pub by_service: BTreeMap<Service, Endpoint>,
    pub fips: bool,
    pub dual_stack: bool,
    /// `AWS_CA_BUNDLE`: certificates trusted besides the system's.
    pub ca_bundle: Option<PathBuf>,
}

/// A server that answers for AWS: scheme, host, port, and a path prefix without a trailing slash.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub tls: bool,
    /// Without brackets for an IPv6 address.
    pub host: String,
    pub port: u16,
    pub path_prefix: String,
}

/// `router_settings`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Router {
    pub strategy: Strategy,
    pub cache_affinity: CacheAffinity,
    /// What names the requests that belong together; lower case, first present wins.
    pub affinity_headers: Vec<String>,
    /// Further deployments that are tried after the first, over all model names of a request.
    pub num_retries: u32,
    /// Retries to deployments that have failed, in per cent of the requests.
    pub retry_budget_percent: u32,
    pub connect_timeout: Duration,
    pub cooldown: CooldownRules,
    pub fallbacks: Fallbacks,
    /// Between two checks of the addresses of an endpoint; zero without any.
    pub health_check_interval: Duration,
}

/// Which model names stand in for others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fallbacks {
    /// When no deployment of the name could serve.
    pub by_model: BTreeMap<ModelName, Vec<ModelName>>,
    /// When the prompt is too long for the model.
    pub context_window: BTreeMap<ModelName, Vec<ModelName>>,
    /// For names that `by_model` does not hold.
    pub default: Vec<ModelName>,
    /// Model names that a request may go on to.
    pub max: usize,
}

impl Fallbacks {
    /// Whether no name has any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.max == 0 || (self.by_model.is_empty() && self.context_window.is_empty() && self.default.is_empty())
    }
}

/// Bounds on what a client may send and how slowly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    pub body_bytes_max: usize,
    /// Bodies of all requests in flight together.
    pub buffered_bytes_max: usize,
    pub header_bytes_max: usize,
    pub header_count_max: usize,
    /// From the first byte of a body to its last.
    pub body_timeout: Duration,
    /// Between two reads of a body, and between two writes of an answer to a client that does not read.
    pub client_idle_timeout: Duration,
    /// Between two bytes of an answer of the upstream, after the first.
    pub upstream_idle_timeout: Duration,
    /// How long a stop waits for requests in flight.
    pub shutdown_timeout: Duration,
    /// How long readiness is off before the port closes.
    pub shutdown_delay: Duration,
    /// Connections of clients.
    pub connections_max: usize,
    /// Requests that are served at a time.
    pub in_flight_max: usize,
    /// Requests that wait to be served.
    pub queued_max: usize,
    /// How long they wait.
    pub queue_timeout: Duration,
    /// From the first byte of a head to its last.
    pub header_timeout: Duration,
    /// Bytes per second that a client must send of a body and take of an answer; 0 without a bound.
    pub client_rate_min: u64,
}

/// Where the record of each request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestLog {
    Stdout,
    File(PathBuf),
    Off,
}

/// Where keys, budgets and the spend log are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Store {
    /// In a file of `Budgets::state_directory`, by this process alone.
    Embedded,
    /// Shared by several replicas.
    Redis(Box<Redis>),
}

/// How to reach Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redis {
    pub topology: RedisTopology,
    pub tls: bool,
    /// Certificates trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// An ACL user; `None` is Redis's `default`.
    pub username: Option<String>,
    pub password: Option<Secret>,
    /// 0 with a cluster.
    pub database: i64,
    /// Before every key of ours, as the hash tag of a cluster: `{dheera_ai}:…`.
    pub namespace: String,
    pub connect_timeout: Duration,
    /// For the answer to one command.
    pub timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisTopology {
    Single(HostPort),
    /// Sentinels that know which server is the master of this name.
    Sentinel {
        sentinels: Vec<HostPort>,
        master_name: String,
    },
    /// Nodes from which the others are found.
    Cluster(Vec<HostPort>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    pub host: String,
    pub port: u16,
}

/// How budgets are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budgets {
    /// The embedded store and the journal of what is not yet in the store.
    pub state_directory: PathBuf,
    /// For everybody together, the master key included (`max_budget`, `budget_duration` … of the settings).
    pub global: LimitSet,
    /// Where days, weeks and months begin.
    pub time_zone: TimeZone,
    /// What a key with a budget may call of models without a price: nothing, unless this is set.
    pub allow_unpriced: bool,
    pub unknown_usage: UnknownUsage,
    pub on_low_budget: OnLowBudget,
    /// How long an answer is read on after its client went away, to learn what it cost.
    pub drain_timeout: Duration,
    pub drain_bytes_max: usize,
    /// How long entries of the spend log are kept; daily sums are kept for ever.
    pub spend_log_retention: Duration,
    /// At most this is set aside by a replica for one key, so that its requests need not wait for Redis. Zero: never.
    pub slice_max: NanoUsd,
    /// Told once a period when a soft budget is reached.
    pub soft_budget_webhook: Option<Secret>,
    /// Keys, teams … that have metrics of their own, each.
    pub metric_names_max: usize,
    /// Headers, lower case, first present wins.
    pub end_user_headers: Vec<String>,
    pub tag_headers: Vec<String>,
    /// Keys, teams … held in memory.
    pub cache_entries_max: usize,
}

/// What a call costs a budget whose usage was never stated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownUsage {
    /// All that was reserved.
    Reservation,
    /// The bound of its input and the output that was seen.
    Estimate,
}

/// What becomes of a stream whose upper bound does not fit into what is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLowBudget {
    /// It begins with what is affordable, reserves more as it grows, and ends with an exception when there is no more.
    Extend,
    Refuse,
}

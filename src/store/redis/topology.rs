//! Which server to talk to: the one that is configured, the master that the sentinels name, or the node of a cluster that
//! holds our slot. Makes connections; does not decide when.
//!
//! Sentinels are asked at every new connection, all at once, and the first answer counts. They get the same user and
//! password only if they ask for one, because Redis refuses a password it does not want.

use std::fmt;

use futures::future::select_ok;
use redis::aio::MultiplexedConnection;
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, TlsCertificates, TlsMode, Value,
};

use super::tls;
use crate::config::{self, HostPort, RedisTopology};
use crate::store::StoreError;
use crate::types::secret::Secret;

/// An open connection. Clones share it.
#[derive(Clone)]
pub(super) enum Link {
    Server(MultiplexedConnection),
    Cluster(ClusterConnection, u16),
}

impl Link {
    /// The answer to one command; in a cluster that of the node with our slot.
    pub(super) async fn send(&self, command: Cmd) -> Result<Value, RedisError> {
        let answer = match self {
            Self::Server(connection) => connection.clone().send_packed_command(&command).await?,
            Self::Cluster(connection, slot) => {
                let node = SingleNodeRoutingInfo::SpecificNode(Route::new(*slot, SlotAddr::Master));
                Box::pin(connection.clone().route_command(command, RoutingInfo::SingleNode(node))).await?
            }
        };
        match answer {
            Value::ServerError(error) => Err(error.into()),
            answer => Ok(answer),
        }
    }

    /// What the server says of itself; empty where it may not be asked.
    pub(super) async fn greet(&self) -> Result<String, RedisError> {
        match self.send(redis::cmd("INFO")).await {
            Ok(answer) => Ok(redis::from_redis_value(answer)?),
            Err(error) if error.code() == Some("NOPERM") => Ok(String::new()),
            Err(error) => Err(error),
        }
    }
}

pub(super) struct Topology {
    of: RedisTopology,
    slot: u16,
    username: Option<String>,
    password: Option<Secret>,
    database: i64,
    certificates: Option<TlsCertificates>,
    cluster: Option<ClusterClient>,
}

impl fmt::Debug for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |hosts: &[HostPort]| {
            hosts.iter().map(|at| format!("{}:{}", at.host, at.port)).collect::<Vec<_>>().join(", ")
        };
        match &self.of {
            RedisTopology::Single(at) => write!(f, "{}:{}", at.host, at.port),
            RedisTopology::Sentinel { sentinels, master_name } => {
                write!(f, "{master_name} of the sentinels {}", list(sentinels))
            }
            RedisTopology::Cluster(nodes) => write!(f, "the cluster of {}", list(nodes)),
        }
    }
}

impl Topology {
    /// Connects to nothing yet.
    pub(super) fn new(config: &config::Redis, slot: u16) -> Result<Self, StoreError> {
        let certificates = if config.tls { Some(tls::certificates(config.ca_file.as_deref())?) } else { None };
        let mut topology = Self {
            of: config.topology.clone(),
            slot,
            username: config.username.clone(),
            password: config.password.clone(),
            database: config.database,
            certificates,
            cluster: None,
        };
        if let RedisTopology::Cluster(nodes) = &config.topology {
            topology.cluster = Some(topology.cluster_client(nodes, config).map_err(misconfigured)?);
        }
        Ok(topology)
    }

    pub(super) async fn connect(&self) -> Result<Link, RedisError> {
        match &self.of {
            RedisTopology::Single(at) => self.open(at, true).await.map(Link::Server),
            RedisTopology::Sentinel { sentinels, master_name } => {
                let asked = sentinels.iter().map(|at| Box::pin(self.ask(at, master_name)));
                let (master, _) = select_ok(asked).await?;
                self.open(&master, true).await.map(Link::Server)
            }
            RedisTopology::Cluster(_) => match &self.cluster {
                Some(client) => {
                    Box::pin(client.get_async_connection()).await.map(|connection| Link::Cluster(connection, self.slot))
                }
                None => Err((ErrorKind::InvalidClientConfig, "no cluster is configured").into()),
            },
        }
    }

    /// The master's address, by one sentinel.
    async fn ask(&self, sentinel: &HostPort, master_name: &str) -> Result<HostPort, RedisError> {
        let mut question = redis::cmd("SENTINEL");
        question.arg("get-master-addr-by-name").arg(master_name);
        let answer = match self.ask_as(sentinel, false, &question).await {
            Err(error) if error.code() == Some("NOAUTH") => self.ask_as(sentinel, true, &question).await?,
            answer => answer?,
        };
        match redis::from_redis_value::<Option<(String, u16)>>(answer)? {
            Some((host, port)) => Ok(HostPort { host, port }),
            None => Err((
                ErrorKind::MasterNameNotFoundBySentinel,
                "the sentinels know no master of this name",
                master_name.to_owned(),
            )
                .into()),
        }
    }

    async fn ask_as(&self, sentinel: &HostPort, with_password: bool, question: &Cmd) -> Result<Value, RedisError> {
        let settings = if with_password { self.credentials() } else { RedisConnectionInfo::default() };
        Link::Server(self.open_as(sentinel, settings).await?).send(question.clone()).await
    }

    async fn open(&self, at: &HostPort, with_database: bool) -> Result<MultiplexedConnection, RedisError> {
        let settings = self.credentials().set_db(if with_database { self.database } else { 0 });
        self.open_as(at, settings).await
    }

    async fn open_as(&self, at: &HostPort, settings: RedisConnectionInfo) -> Result<MultiplexedConnection, RedisError> {
        let info = self.info(at)?.set_redis_settings(settings);
        let client = match &self.certificates {
            Some(certificates) => Client::build_with_tls(info, certificates.clone())?,
            None => Client::open(info)?,
        };
        // `connection` bounds every wait.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        client.get_multiplexed_async_connection_with_config(&config).await
    }

    fn info(&self, at: &HostPort) -> Result<ConnectionInfo, RedisError> {
        let (host, port) = (at.host.clone(), at.port);
        if self.certificates.is_some() {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }.into_connection_info()
        } else {
            ConnectionAddr::Tcp(host, port).into_connection_info()
        }
    }

    fn credentials(&self) -> RedisConnectionInfo {
        let mut settings = RedisConnectionInfo::default();
        if let Some(username) = &self.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &self.password {
            settings = settings.set_password(password.expose());
        }
        settings
    }

    fn cluster_client(&self, nodes: &[HostPort], config: &config::Redis) -> Result<ClusterClient, RedisError> {
        let infos = nodes.iter().map(|at| self.info(at)).collect::<Result<Vec<_>, _>>()?;
        let mut builder = ClusterClientBuilder::new(infos)
            .connection_timeout(config.connect_timeout)
            .response_timeout(config.timeout)
            // Once more after MOVED or a lost node; the caller's own timeout bounds the whole.
            .retries(2)
            .min_retry_wait(10)
            .max_retry_wait(100);
        if let Some(username) = &self.username {
            builder = builder.username(username);
        }
        if let Some(password) = &self.password {
            builder = builder.password(password.expose());
        }
        if let Some(certificates) = &self.certificates {
            builder = builder.tls(TlsMode::Secure).certs(certificates.clone());
        }
        builder.build()
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn misconfigured(error: RedisError) -> StoreError {
    StoreError::Failed(format!("the Redis settings cannot be used: {error}"))
}

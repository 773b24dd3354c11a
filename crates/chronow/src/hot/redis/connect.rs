//! Making connections: to one server, to a cluster, and through sentinels.

use parking_lot::Mutex;
use redis::aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, RedisResult, TlsCertificates, TlsMode,
};

use secrecy::ExposeSecret as _;

use super::config::RedisConfig;
use super::errors::failed;
use crate::{Error, Result};

pub(super) enum Route {
    Single(Box<Single>),
    Cluster { connection: ClusterConnection, nodes: Vec<Client> },
    Sentinel(Box<Master>),
}

/// The one server, or whatever its name leads to.
pub(super) struct Single {
    pub(super) client: Client,
    pub(super) settings: ConnectionManagerConfig,
    pub(super) manager: Mutex<ConnectionManager>,
    /// Held while a new connection is made: everybody who found the old one unfit waits for the same one.
    pub(super) renewing: tokio::sync::Mutex<()>,
}

/// The master, as the sentinels know it.
pub(super) struct Master {
    pub(super) sentinels: tokio::sync::Mutex<SentinelClient>,
    pub(super) current: Mutex<Option<MultiplexedConnection>>,
}

impl Route {
    pub(super) async fn single(config: &RedisConfig) -> Result<Self> {
        let client = clients(config)?
            .into_iter()
            .next()
            .ok_or_else(|| Error::validation("there is no Redis server to connect to"))?;
        let settings = ConnectionManagerConfig::new()
            .set_response_timeout(Some(config.response_timeout))
            .set_connection_timeout(Some(config.connect_timeout))
            .set_number_of_retries(3)
            .set_max_delay(std::time::Duration::from_secs(1));
        let manager = client.get_connection_manager_with_config(settings.clone()).await.map_err(failed)?;
        let renewing = tokio::sync::Mutex::default();
        Ok(Self::Single(Box::new(Single { client, settings, manager: Mutex::new(manager), renewing })))
    }

    pub(super) async fn cluster(config: &RedisConfig) -> Result<Self> {
        let nodes = config.nodes()?;
        // The driver would repeat what may have taken place already, such as a publish.
        let mut builder = ClusterClientBuilder::new(nodes)
            .retries(0)
            .response_timeout(config.response_timeout)
            .connection_timeout(config.connect_timeout);
        if let Some(username) = &config.username {
            builder = builder.username(username);
        }
        if let Some(password) = &config.password {
            builder = builder.password(password.expose_secret());
        }
        if config.uses_tls() {
            builder = builder.tls(TlsMode::Secure);
            if let Some(certificates) = config.certificates()? {
                builder = builder.certs(certificates);
            }
        }
        let client = builder.build().map_err(failed)?;
        let connection = client.get_async_connection().await.map_err(failed)?;
        Ok(Self::Cluster { connection, nodes: clients(config)? })
    }

    pub(super) fn sentinel(config: &RedisConfig, master: &str) -> Result<Self> {
        let mut builder = SentinelClientBuilder::new(config.sentinels()?, master, SentinelServerType::Master)
            .map_err(failed)?;
        if let Some(username) = &config.username {
            builder = builder.set_client_to_redis_username(username);
        }
        if let Some(password) = &config.password {
            builder = builder.set_client_to_redis_password(password.expose_secret());
        }
        if let Some(db) = config.db {
            builder = builder.set_client_to_redis_db(db);
        }
        if config.uses_tls() {
            builder = builder
                .set_client_to_redis_tls_mode(TlsMode::Secure)
                .set_client_to_sentinel_tls_mode(TlsMode::Secure);
            if let Some(certificates) = config.certificates()? {
                builder = builder
                    .set_client_to_redis_certificates(certificates.clone())
                    .set_client_to_sentinel_certificates(certificates);
            }
        }
        let sentinels = tokio::sync::Mutex::new(builder.build().map_err(failed)?);
        Ok(Self::Sentinel(Box::new(Master { sentinels, current: Mutex::new(None) })))
    }
}

impl Single {
    pub(super) fn connection(&self) -> ConnectionManager {
        self.manager.lock().clone()
    }

    /// A new connection to wherever the name leads now.
    pub(super) async fn renewed(&self) -> RedisResult<ConnectionManager> {
        if let Ok(_first) = self.renewing.try_lock() {
            let manager = self.client.get_connection_manager_with_config(self.settings.clone()).await?;
            *self.manager.lock() = manager;
        } else {
            // Another task is at it.
            drop(self.renewing.lock().await);
        }
        Ok(self.connection())
    }
}

impl Master {
    pub(super) async fn connection(&self, config: &RedisConfig) -> RedisResult<MultiplexedConnection> {
        let known = || self.current.lock().clone();
        if let Some(connection) = known() {
            return Ok(connection);
        }
        let mut sentinels = self.sentinels.lock().await;
        // Another task may have found it while we waited.
        if let Some(connection) = known() {
            return Ok(connection);
        }
        let settings = AsyncConnectionConfig::new()
            .set_response_timeout(Some(config.response_timeout))
            .set_connection_timeout(Some(config.connect_timeout));
        let connection = sentinels.get_async_connection_with_config(&settings).await?;
        *self.current.lock() = Some(connection.clone());
        Ok(connection)
    }
}

fn clients(config: &RedisConfig) -> Result<Vec<Client>> {
    let certificates = config.certificates()?;
    config.nodes()?.into_iter().map(|node| client(node, certificates.as_ref()).map_err(failed)).collect()
}

pub(super) fn client(node: ConnectionInfo, certificates: Option<&TlsCertificates>) -> RedisResult<Client> {
    let tls = matches!(node.addr(), ConnectionAddr::TcpTls { .. });
    match certificates {
        Some(certificates) if tls => Client::build_with_tls(node, certificates.clone()),
        _ => Client::open(node),
    }
}

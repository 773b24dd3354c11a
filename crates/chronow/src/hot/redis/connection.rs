//! Connections: one multiplexed for commands, which comes back by itself; others for whoever blocks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig, MultiplexedConnection, PubSub};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind as RedisKind, Pipeline,
    RedisError, RedisResult, ServerErrorKind, TlsCertificates, TlsMode, Value,
};
use secrecy::ExposeSecret;
use tokio::sync::{RwLock, RwLockReadGuard, watch};
use tokio::time::Instant;

use super::config::{RedisConfig, RedisServers};
use super::replicated::Own;
use super::script::{Args, Script};
use crate::{Error, ErrorKind, Result};

/// Waits before a node of a cluster is asked again: the first, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(5);
const LONGEST_WAIT: Duration = Duration::from_millis(300);

tokio::task_local! {
    /// Nothing that a node of a cluster refuses is asked again.
    static AT_ONCE: ();
}

/// Does without what the nodes of a cluster refuse at this moment: whoever asks several of them must not wait
/// for one.
pub(super) async fn at_once<F: Future>(work: F) -> F::Output {
    AT_ONCE.scope((), work).await
}

/// The way to the servers.
pub(super) struct Connection {
    route: Route,
    config: RedisConfig,
    /// Whether it is closed. Commands hold it while they run, so closing waits for them.
    gate: RwLock<bool>,
    /// Connections for one user at a time, while nobody uses them.
    idle: Mutex<Vec<Own>>,
    /// How often the server turned out to be no master any more.
    demoted: watch::Sender<u64>,
}

/// More are closed when they are given back.
const MAX_IDLE: usize = 16;

enum Route {
    Single(Box<Single>),
    Cluster { connection: ClusterConnection, nodes: Vec<Client> },
    Sentinel(Box<Master>),
}

/// The one server, or whatever its name leads to.
struct Single {
    client: Client,
    settings: ConnectionManagerConfig,
    manager: Mutex<ConnectionManager>,
    /// Held while a new connection is made: everybody who found the old one unfit waits for the same one.
    renewing: tokio::sync::Mutex<()>,
}

/// The master, as the sentinels know it.
struct Master {
    sentinels: tokio::sync::Mutex<SentinelClient>,
    current: Mutex<Option<MultiplexedConnection>>,
}

impl Connection {
    pub(super) async fn connect(config: RedisConfig) -> Result<Self> {
        config.check()?;
        if config.uses_tls() {
            chronos_db::install_crypto_provider();
        }
        let route = match &config.servers {
            RedisServers::Single(_) => Self::single(&config).await?,
            RedisServers::Cluster(_) => Self::cluster(&config).await?,
            RedisServers::Sentinel { master, .. } => Self::sentinel(&config, master)?,
        };
        Ok(Self {
            route,
            config,
            gate: RwLock::new(false),
            idle: Mutex::default(),
            demoted: watch::Sender::default(),
        })
    }

    async fn single(config: &RedisConfig) -> Result<Route> {
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
        Ok(Route::Single(Box::new(Single { client, settings, manager: Mutex::new(manager), renewing })))
    }

    async fn cluster(config: &RedisConfig) -> Result<Route> {
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
        Ok(Route::Cluster { connection, nodes: clients(config)? })
    }

    fn sentinel(config: &RedisConfig, master: &str) -> Result<Route> {
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
        Ok(Route::Sentinel(Box::new(Master { sentinels, current: Mutex::new(None) })))
    }

    /// Runs a command that may be repeated.
    pub(super) async fn run(&self, cmd: &Cmd) -> Result<Value> {
        let gate = self.gate.read().await;
        if *gate {
            return Err(closed());
        }
        self.send(cmd, true).await.map_err(failed)
    }

    /// Runs commands about keys of one slot, which may be repeated, in one round trip.
    pub(super) async fn run_all(&self, pipeline: &Pipeline) -> Result<Vec<Value>> {
        let gate = self.gate.read().await;
        if *gate {
            return Err(closed());
        }
        let result = match &self.route {
            Route::Single(single) => {
                self.on_master(single, |mut connection| {
                    async move { pipeline.query_async(&mut connection).await }.boxed()
                })
                .await
            }
            Route::Cluster { connection, .. } => {
                let send =
                    || async move { self.send_all_to_owner(connection.clone(), pipeline).await }.boxed();
                self.persistently(true, send).await
            }
            Route::Sentinel(master) => {
                let mut connection = master.connection(&self.config).await.map_err(failed)?;
                let result = pipeline.query_async(&mut connection).await;
                self.classify(master, &result);
                result
            }
        };
        result.map_err(failed)
    }

    /// Runs a script, sending it if the server doesn't know it (any more).
    pub(super) async fn eval(&self, script: &Script, keys: &[String], args: &Args) -> Result<Value> {
        let gate = self.gate.read().await;
        if *gate {
            return Err(closed());
        }
        match self.send(&script.by_hash(keys, args), false).await {
            Err(error) if error.kind() == RedisKind::Server(ServerErrorKind::NoScript) => {
                self.send(&script.by_source(keys, args), false).await.map_err(failed)
            }
            other => other.map_err(failed),
        }
    }

    async fn send(&self, cmd: &Cmd, repeatable: bool) -> RedisResult<Value> {
        match &self.route {
            Route::Single(single) => {
                let send = |mut connection: ConnectionManager| {
                    async move { connection.req_packed_command(cmd).await?.extract_error() }.boxed()
                };
                self.on_master(single, send).await
            }
            Route::Cluster { connection, .. } => {
                let send = || async move { self.send_to_owner(connection.clone(), cmd).await }.boxed();
                self.persistently(repeatable, send).await
            }
            Route::Sentinel(master) => {
                let mut connection = master.connection(&self.config).await?;
                let result = connection.req_packed_command(cmd).await.and_then(Value::extract_error);
                self.classify(master, &result);
                result
            }
        }
    }

    /// Sends to the only server. One that says that it is a replica did nothing, and its name may lead to
    /// another by now: a new connection is made, and the command sent once more.
    async fn on_master<'a, T>(
        &self,
        single: &Single,
        send: impl Fn(ConnectionManager) -> BoxFuture<'a, RedisResult<T>>,
    ) -> RedisResult<T> {
        match send(single.connection()).await {
            Err(error) if is_read_only(&error) => {
                self.is_demoted();
                send(single.renewed().await?).await
            }
            other => other,
        }
    }

    /// What is connected to a server that is no master any more must not stay so.
    pub(super) fn is_demoted(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.demoted.send_modify(|times| *times += 1);
    }

    /// Changes when the server turns out to be no master any more.
    pub(super) fn demotions(&self) -> watch::Receiver<u64> {
        self.demoted.subscribe()
    }

    /// After a failure that a failover may explain, the sentinels are asked again.
    fn classify<T>(&self, master: &Master, result: &RedisResult<T>) {
        let Err(error) = result else { return };
        if is_read_only(error) {
            self.is_demoted();
        }
        let lost = error.kind() == RedisKind::Server(ServerErrorKind::MasterDown);
        if is_read_only(error) || lost || error.is_io_error() || error.is_unrecoverable_error() {
            master.current.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }

    /// In a cluster: sends again what a node refused or never got, and what may be repeated also after a
    /// connection broke.
    async fn persistently<'a, T>(
        &self,
        repeatable: bool,
        send: impl Fn() -> BoxFuture<'a, RedisResult<T>>,
    ) -> RedisResult<T> {
        let patience = AT_ONCE.try_with(|()| Duration::ZERO).unwrap_or(self.config.response_timeout);
        let (deadline, mut wait) = (Instant::now() + patience, FIRST_WAIT);
        loop {
            match send().await {
                Err(error)
                    if (was_refused(&error) || (repeatable && error.is_connection_dropped()))
                        && Instant::now() + wait < deadline =>
                {
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
                other => return other,
            }
        }
    }

    /// Sends a command to the node that has its key, or to where that node says the key is going.
    async fn send_to_owner(&self, mut connection: ClusterConnection, cmd: &Cmd) -> RedisResult<Value> {
        let told = connection.req_packed_command(cmd).await.and_then(Value::extract_error);
        let moving = match &told {
            Err(error) if error.kind() == RedisKind::Server(ServerErrorKind::Ask) => {
                error.redirect_node().map(|(node, _)| node.to_owned())
            }
            _ => None,
        };
        let configured = self.config.nodes().unwrap_or_default().into_iter().next();
        let (Some((host, port)), Some(configured)) =
            (moving.as_deref().and_then(|node| node.rsplit_once(':')), configured)
        else {
            return told;
        };
        let Ok(port) = port.parse() else { return told };
        let addr = match configured.addr() {
            ConnectionAddr::TcpTls { .. } => {
                ConnectionAddr::TcpTls { host: host.to_owned(), port, insecure: false, tls_params: None }
            }
            _ => ConnectionAddr::Tcp(host.to_owned(), port),
        };
        // Keys move rarely; the driver itself connects when the whole slot has moved.
        let client = client(configured.set_addr(addr), self.config.certificates().ok().flatten().as_ref())?;
        let settings = AsyncConnectionConfig::new()
            .set_response_timeout(Some(self.config.response_timeout))
            .set_connection_timeout(Some(self.config.connect_timeout));
        let mut connection = client.get_multiplexed_async_connection_with_config(&settings).await?;
        let asking = redis::cmd("ASKING");
        let mut both = redis::pipe();
        both.add_command(asking).ignore().add_command(cmd.clone());
        let (told,): (Value,) = both.query_async(&mut connection).await?;
        told.extract_error()
    }

    /// As [`Self::send_to_owner`]. Where the node says that the key is going, each command asks by itself.
    async fn send_all_to_owner(
        &self,
        mut connection: ClusterConnection,
        pipeline: &Pipeline,
    ) -> RedisResult<Vec<Value>> {
        match pipeline.query_async(&mut connection).await {
            Err(error) if error.kind() == RedisKind::Server(ServerErrorKind::Ask) => {
                let mut replies = Vec::new();
                for cmd in pipeline.cmd_iter() {
                    replies.push(self.send_to_owner(connection.clone(), cmd).await?);
                }
                Ok(replies)
            }
            other => other,
        }
    }

    /// Runs a command that may be repeated on one node of a cluster, or on the only server.
    pub(super) async fn run_at(&self, cmd: Cmd, node: Option<&(String, u16)>) -> Result<Value> {
        use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
        let (Route::Cluster { connection, .. }, Some((host, port))) = (&self.route, node) else {
            return self.run(&cmd).await;
        };
        let gate = self.gate.read().await;
        if *gate {
            return Err(closed());
        }
        let cmd = &cmd;
        let send = || {
            let to =
                RoutingInfo::SingleNode(SingleNodeRoutingInfo::ByAddress { host: host.clone(), port: *port });
            async move { connection.clone().route_command(cmd.clone(), to).await.and_then(Value::extract_error) }.boxed()
        };
        self.persistently(true, send).await.map_err(failed)
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.route, Route::Cluster { .. })
    }

    /// A connection of its own for messages of channels. In a cluster any node will do: they pass them on.
    pub(super) async fn pubsub(&self) -> Result<PubSub> {
        if *self.gate.read().await {
            return Err(closed());
        }
        match &self.route {
            Route::Single(single) => single.client.get_async_pubsub().await.map_err(failed),
            Route::Cluster { nodes, .. } => {
                let mut last = Error::validation("a Redis cluster needs at least one node");
                for node in nodes {
                    match node.get_async_pubsub().await {
                        Ok(pubsub) => return Ok(pubsub),
                        Err(error) => last = failed(error),
                    }
                }
                Err(last)
            }
            Route::Sentinel(master) => {
                let client = master.sentinels.lock().await.async_get_client().await.map_err(failed)?;
                client.get_async_pubsub().await.map_err(failed)
            }
        }
    }

    /// While the answer lives, closing waits.
    pub(super) async fn open(&self) -> Result<RwLockReadGuard<'_, bool>> {
        let gate = self.gate.read().await;
        if *gate { Err(closed()) } else { Ok(gate) }
    }

    /// A connection for one user: to the server, or to a node of a cluster, of which any will do at first.
    pub(super) async fn own(&self, node: Option<(String, u16)>) -> Result<Own> {
        while let Some(mut own) = self.idle_to(node.as_ref()) {
            // It may have broken meanwhile; then nothing is lost yet.
            if own.is_alive().await {
                return Ok(own);
            }
        }
        // How long an answer may take depends on what is asked.
        let settings = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_connection_timeout(Some(self.config.connect_timeout));
        let connection = match &self.route {
            Route::Single(single) => {
                single.client.get_multiplexed_async_connection_with_config(&settings).await.map_err(failed)?
            }
            Route::Cluster { nodes, .. } => {
                let mut last = Error::validation("a Redis cluster needs at least one node");
                let mut found = None;
                for client in self.clients_of(nodes, node.as_ref())? {
                    match client.get_multiplexed_async_connection_with_config(&settings).await {
                        Ok(connection) => {
                            found = Some(connection);
                            break;
                        }
                        Err(error) => last = failed(error),
                    }
                }
                match found {
                    Some(connection) => connection,
                    None => return Err(last),
                }
            }
            Route::Sentinel(master) => {
                let mut sentinels = master.sentinels.lock().await;
                sentinels.get_async_connection_with_config(&settings).await.map_err(failed)?
            }
        };
        Ok(Own { connection, node, timeout: self.config.response_timeout })
    }

    fn idle_to(&self, node: Option<&(String, u16)>) -> Option<Own> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let at = idle.iter().position(|own| node.is_none() || own.node.as_ref() == node)?;
        Some(idle.swap_remove(at))
    }

    /// For the next one who needs a connection. One that failed must not come back.
    pub(super) fn give_back(&self, own: Own) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE {
            idle.push(own);
        }
    }

    /// The node, reached as the configured ones are; without one all that are configured.
    fn clients_of(&self, nodes: &[Client], node: Option<&(String, u16)>) -> Result<Vec<Client>> {
        let Some((host, port)) = node else { return Ok(nodes.to_vec()) };
        let configured = self
            .config
            .nodes()?
            .into_iter()
            .next()
            .ok_or_else(|| Error::validation("a Redis cluster needs at least one node"))?;
        let addr = match configured.addr() {
            ConnectionAddr::TcpTls { .. } => {
                ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None }
            }
            _ => ConnectionAddr::Tcp(host.clone(), *port),
        };
        Ok(vec![client(configured.set_addr(addr), self.config.certificates()?.as_ref()).map_err(failed)?])
    }

    /// Waits for what runs; everything later fails.
    pub(super) async fn close(&self) {
        *self.gate.write().await = true;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(super) fn response_timeout(&self) -> std::time::Duration {
        self.config.response_timeout
    }
}

impl Single {
    fn connection(&self) -> ConnectionManager {
        self.manager.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A new connection to wherever the name leads now.
    async fn renewed(&self) -> RedisResult<ConnectionManager> {
        if let Ok(_first) = self.renewing.try_lock() {
            let manager = self.client.get_connection_manager_with_config(self.settings.clone()).await?;
            *self.manager.lock().unwrap_or_else(PoisonError::into_inner) = manager;
        } else {
            // Somebody is at it.
            drop(self.renewing.lock().await);
        }
        Ok(self.connection())
    }
}

impl Master {
    async fn connection(&self, config: &RedisConfig) -> RedisResult<MultiplexedConnection> {
        let known = || self.current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(connection) = known() {
            return Ok(connection);
        }
        let mut sentinels = self.sentinels.lock().await;
        // Somebody else may have found it while we waited.
        if let Some(connection) = known() {
            return Ok(connection);
        }
        let settings = AsyncConnectionConfig::new()
            .set_response_timeout(Some(config.response_timeout))
            .set_connection_timeout(Some(config.connect_timeout));
        let connection = sentinels.get_async_connection_with_config(&settings).await?;
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection.clone());
        Ok(connection)
    }
}

fn clients(config: &RedisConfig) -> Result<Vec<Client>> {
    let certificates = config.certificates()?;
    config.nodes()?.into_iter().map(|node| client(node, certificates.as_ref()).map_err(failed)).collect()
}

fn client(node: ConnectionInfo, certificates: Option<&TlsCertificates>) -> RedisResult<Client> {
    let tls = matches!(node.addr(), ConnectionAddr::TcpTls { .. });
    match certificates {
        Some(certificates) if tls => Client::build_with_tls(node, certificates.clone()),
        _ => Client::open(node),
    }
}

/// Whether a server said that it did nothing because it is a replica. Older servers wrap what a script ran
/// into.
pub(super) fn is_read_only(error: &RedisError) -> bool {
    error.kind() == RedisKind::Server(ServerErrorKind::ReadOnly)
        || error.detail().is_some_and(|detail| detail.contains("-READONLY "))
}

/// Whether a node of a cluster said that a slot is on its way to another one.
pub(super) fn is_moving(error: &RedisError) -> bool {
    use ServerErrorKind as Said;
    matches!(error.kind(), RedisKind::Server(Said::Ask | Said::Moved | Said::TryAgain | Said::ClusterDown))
}

/// Whether a node of a cluster said that it did nothing, or was never reached.
fn was_refused(error: &RedisError) -> bool {
    use ServerErrorKind as Said;
    match error.kind() {
        RedisKind::Server(kind) => {
            matches!(
                kind,
                Said::Moved
                    | Said::Ask
                    | Said::TryAgain
                    | Said::ClusterDown
                    | Said::MasterDown
                    | Said::BusyLoading
                    | Said::ReadOnly
            )
        }
        RedisKind::ClusterConnectionNotFound => true,
        _ => error.is_connection_refusal(),
    }
}

/// Whether a call failed so.
pub(super) fn is_refusal(error: &Error) -> bool {
    std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<RedisError>())
        .is_some_and(was_refused)
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the connection to Redis was closed")
}

/// What a failure of the driver or server means to the caller, in one line.
pub(super) fn failed(error: RedisError) -> Error {
    let hot = |text: &'static str| Error::new(ErrorKind::HotTier, text);
    let detail = error.detail().unwrap_or_default();
    // Older servers wrap what a script ran into.
    let code = ["OOM", "READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN"]
        .into_iter()
        .find(|code| detail.contains(&format!("-{code} ")))
        .unwrap_or_else(|| error.code().unwrap_or_default());
    let own = match code {
        "OOM" => hot("Redis is full (maxmemory with `noeviction`): consume, or give it more memory; nothing was changed").retryable(),
        "READONLY" => hot("the Redis server is a read-only replica, as after a failover; nothing was changed").retryable(),
        "LOADING" => hot("Redis is loading its data; nothing was changed").retryable(),
        "BUSY" => hot("Redis is busy with a script; nothing was changed").retryable(),
        "TRYAGAIN" | "ASK" | "MOVED" => hot("the slot of this key is moving to another Redis node; nothing was changed").retryable(),
        "CLUSTERDOWN" | "MASTERDOWN" => hot("Redis has no master for this key at the moment; nothing was changed").retryable(),
        "MISCONF" => hot("Redis refuses writes because it cannot save its data to disk").retryable(),
        "WRONGPASS" | "NOAUTH" => hot("Redis refused the user name or password"),
        "NOPERM" => {
            hot("the Redis user may not do this; it needs the commands for streams, sorted sets, hashes, scripts and channels").forbidden()
        }
        _ if error.kind() == RedisKind::AuthenticationFailed => hot("Redis refused the user name or password"),
        _ if error.is_timeout() => hot("Redis did not answer in time; the change may have taken place").retryable(),
        _ if error.is_connection_refusal() => hot("Redis cannot be reached").retryable(),
        _ if error.is_io_error() => hot("the connection to Redis broke; the change may have taken place").retryable(),
        _ => match error.kind() {
            RedisKind::MasterNameNotFoundBySentinel => hot("no sentinel knows a master of this name").retryable(),
            RedisKind::ClusterConnectionNotFound => hot("no node of the Redis cluster can be reached").retryable(),
            _ => Error::new(ErrorKind::HotTier, format!("Redis failed: {}", one_line(&error.to_string()))),
        },
    };
    own.caused_by(error)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Shared by everything of one hot tier.
pub(super) type SharedConnection = Arc<Connection>;

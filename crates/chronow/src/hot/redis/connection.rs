//! Connections: one multiplexed for commands, which comes back by itself; others for calls that block.

use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use redis::aio::{ConnectionLike as _, ConnectionManager, PubSub};
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionAddr, ErrorKind as RedisKind, Pipeline, RedisResult,
    ServerErrorKind, Value,
};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::config::{RedisConfig, RedisServers};
use super::connect::{Master, Route, Single, client};
use super::errors::{closed, failed, is_read_only, was_refused};
use super::exclusive::Own;
use super::script::{Args, Script};
use crate::tasks::{Guard, enter};
use crate::{Error, Result};

/// The waits before a node of a cluster is asked again.
const WAITS: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(5))
    .with_max_delay(Duration::from_millis(300))
    .without_max_times();

tokio::task_local! {
    /// Nothing that a node of a cluster refuses is asked again.
    static AT_ONCE: ();
}

/// Does without what the nodes of a cluster refuse at this moment: a caller that asks several of them must
/// not wait for one.
pub(super) async fn at_once<F: Future>(work: F) -> F::Output {
    AT_ONCE.scope((), work).await
}

/// The way to the servers.
pub(super) struct Connection {
    pub(super) route: Route,
    pub(super) config: RedisConfig,
    /// What runs, and whether it is closed.
    calls: TaskTracker,
    /// Connections for one user at a time, while nobody uses them.
    pub(super) idle: Mutex<Vec<Own>>,
    /// How often the server turned out not to be the master any more.
    pub(super) demoted: watch::Sender<u64>,
}

impl Connection {
    pub(super) async fn connect(config: RedisConfig) -> Result<Self> {
        config.check()?;
        if config.uses_tls() {
            chronos_db::install_crypto_provider();
        }
        let route = match &config.servers {
            RedisServers::Single(_) => Route::single(&config).await?,
            RedisServers::Cluster(_) => Route::cluster(&config).await?,
            RedisServers::Sentinel { master, .. } => Route::sentinel(&config, master)?,
        };
        Ok(Self {
            route,
            config,
            calls: TaskTracker::new(),
            idle: Mutex::default(),
            demoted: watch::Sender::default(),
        })
    }

    /// Runs a command that may be repeated.
    pub(super) async fn run(&self, cmd: &Cmd) -> Result<Value> {
        let _call = self.call()?;
        self.send(cmd, true).await.map_err(failed)
    }

    /// Runs commands about keys of one slot, which may be repeated, in one round trip.
    pub(super) async fn run_all(&self, pipeline: &Pipeline) -> Result<Vec<Value>> {
        let _call = self.call()?;
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
        let _call = self.call()?;
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

    /// What is connected to a server that is not a master any more must not stay so.
    pub(super) fn is_demoted(&self) {
        self.idle.lock().clear();
        self.demoted.send_modify(|times| *times += 1);
    }

    /// Changes when the server turns out not to be the master any more.
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
            master.current.lock().take();
        }
    }

    /// In a cluster: sends again what a node refused or never got, and what may be repeated also after a
    /// connection broke.
    async fn persistently<'a, T>(
        &self,
        repeatable: bool,
        send: impl Fn() -> BoxFuture<'a, RedisResult<T>> + Send,
    ) -> RedisResult<T> {
        let patience = AT_ONCE.try_with(|()| Duration::ZERO).unwrap_or(self.config.response_timeout);
        let deadline = Instant::now() + patience;
        send.retry(WAITS)
            .when(|error| was_refused(error) || (repeatable && error.is_connection_dropped()))
            .adjust(|_, wait| wait.filter(|wait| Instant::now() + *wait < deadline))
            // In a box: else the compiler does not see that it may be sent.
            .boxed()
            .await
    }

    /// Sends a command to the node that has its key, or to where that node says the key is going.
    async fn send_to_owner(&self, mut connection: ClusterConnection, cmd: &Cmd) -> RedisResult<Value> {
        let answer = connection.req_packed_command(cmd).await.and_then(Value::extract_error);
        let moving = match &answer {
            Err(error) if error.kind() == RedisKind::Server(ServerErrorKind::Ask) => {
                error.redirect_node().map(|(node, _)| node.to_owned())
            }
            _ => None,
        };
        let configured = self.config.nodes().unwrap_or_default().into_iter().next();
        let (Some((host, port)), Some(configured)) =
            (moving.as_deref().and_then(|node| node.rsplit_once(':')), configured)
        else {
            return answer;
        };
        let Ok(port) = port.parse() else { return answer };
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
        let (answer,): (Value,) = both.query_async(&mut connection).await?;
        answer.extract_error()
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
        let _call = self.call()?;
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
        if self.calls.is_closed() {
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
    pub(super) fn call(&self) -> Result<Guard> {
        enter(&self.calls).ok_or_else(closed)
    }

    /// Waits for what runs; everything later fails.
    pub(super) async fn close(&self) {
        self.calls.close();
        self.calls.wait().await;
        self.idle.lock().clear();
    }

    pub(super) fn response_timeout(&self) -> std::time::Duration {
        self.config.response_timeout
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Shared by everything of one hot tier.
pub(super) type SharedConnection = Arc<Connection>;

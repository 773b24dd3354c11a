//! Making, sharing and ending the client of one deployment.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bson::{Document, Timestamp, doc};
use mongodb::event::EventHandler;
use mongodb::event::sdam::SdamEvent;
use mongodb::options::{ClientOptions, DriverInfo, ReadConcern, ReadPreference, SelectionCriteria};
use mongodb::{Client, ServerType};
use parking_lot::Mutex;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::{OnceCell, watch};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::concern;
use super::failure::Failure;
use super::known_indexes::KnownIndexes;
use super::numbered::NumberedSessions;
use super::uri::{self, Checked};
use crate::clock::millis;
use crate::documents::{Capabilities, Namespace};
use crate::{Env, Error, ErrorKind, Result};

/// How long a call may take in all, unless set otherwise: longer than an ordinary election, which takes 10 to
/// 12 seconds.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// What this library tells the server it is, beside the driver's own name.
pub(super) const DRIVER_NAME: &str = "chronos-db";
/// How long to wait for a connection, unless the connection string says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections per server, unless the connection string says otherwise: some groups in flight beside many
/// readers.
const CONNECTIONS: u32 = 32;
/// How long `close` waits for what is in flight, such as a stream that nobody reads on.
const DRAIN: Duration = Duration::from_secs(10);

/// The address of the server that takes writes, as far as it is known; a router of a sharded cluster has none
/// to speak of.
pub(super) type Primary = Option<Arc<str>>;

/// Changes the options before the client is made.
pub(super) type Observer = Box<dyn Fn(&mut ClientOptions) + Send + Sync>;

/// Makes the client on first use.
pub(super) struct Connector {
    uri: SecretString,
    checked: Checked,
    env: Env,
    observer: Option<Observer>,
    client: OnceCell<Client>,
    /// The calls in flight; closed when the client is.
    calls: TaskTracker,
    capabilities: OnceCell<Capabilities>,
    sessions: NumberedSessions,
    known_indexes: KnownIndexes,
    /// The limit of a call in milliseconds.
    limit: AtomicU64,
    primary: watch::Sender<Primary>,
    /// The newest write that was acknowledged to this client by a majority.
    seen: Mutex<Option<Timestamp>>,
    /// Indexes of the server that serve as ours, and the names we know them by.
    names: Mutex<HashMap<Namespace, HashMap<String, String>>>,
    /// The client is being shut down, or is.
    ended: AtomicBool,
}

/// The client, for one call; closing waits for it.
pub(super) struct Lease {
    pub(super) client: Client,
    _call: TaskTrackerToken,
}

impl Lease {
    pub(super) fn collection(&self, namespace: &Namespace) -> mongodb::Collection<Document> {
        self.client.database(&namespace.database).collection(&namespace.collection)
    }

    /// What the server says of itself.
    pub(super) async fn hello(&self) -> Result<Document, Failure> {
        let ask = || async {
            Ok::<_, Failure>(self.client.database("admin").run_command(doc! { "hello": 1 }).await?)
        };
        match ask().await {
            // Such as a connection that broke while nobody used it; the driver repeats no commands it is
            // handed.
            Err(failure) if failure.may_pass() => ask().await,
            answer => answer,
        }
    }
}

impl Connector {
    pub(super) fn new(uri: SecretString, env: Env, observer: Option<Observer>) -> Result<Self> {
        let checked = uri::check(&uri)?;
        let limit = AtomicU64::new(millis(checked.timeout.unwrap_or(DEFAULT_TIMEOUT)).unsigned_abs());
        Ok(Self {
            uri,
            checked,
            env,
            observer,
            client: OnceCell::new(),
            calls: TaskTracker::new(),
            capabilities: OnceCell::new(),
            sessions: NumberedSessions::default(),
            known_indexes: KnownIndexes::default(),
            limit,
            primary: watch::Sender::new(None),
            seen: Mutex::default(),
            names: Mutex::default(),
            ended: AtomicBool::new(false),
        })
    }

    /// How long a call may take in all.
    pub(super) fn limit(&self) -> Duration {
        Duration::from_millis(self.limit.load(Ordering::Relaxed))
    }

    /// Sets the limit, unless the connection string does.
    pub(super) fn set_limit(&self, limit: Duration) {
        if self.checked.timeout.is_none() {
            self.limit.store(millis(limit).unsigned_abs(), Ordering::Relaxed);
        }
    }

    /// Which server takes writes, as far as it is known.
    pub(super) fn primary(&self) -> watch::Receiver<Primary> {
        self.primary.subscribe()
    }

    pub(super) fn seen(&self) -> Option<Timestamp> {
        *self.seen.lock()
    }

    /// A majority has what was written until then.
    pub(super) fn has_seen(&self, written: Timestamp) {
        let mut seen = self.seen.lock();
        if seen.is_none_or(|seen| seen < written) {
            *seen = Some(written);
        }
    }

    /// An index of the server serves as one of ours.
    pub(super) fn serves(&self, namespace: &Namespace, theirs: &str, ours: &str) {
        let mut names = self.names.lock();
        names.entry(namespace.clone()).or_default().insert(theirs.to_owned(), ours.to_owned());
    }

    /// The name that we know an index of the server by.
    pub(super) fn our_name(&self, namespace: &Namespace, theirs: String) -> String {
        let names = self.names.lock();
        names.get(namespace).and_then(|names| names.get(&theirs).cloned()).unwrap_or(theirs)
    }

    /// The hosts, without credentials.
    pub(super) fn place(&self) -> &str {
        &self.checked.place
    }

    pub(super) fn env(&self) -> &Env {
        &self.env
    }

    pub(super) fn known_indexes(&self) -> &KnownIndexes {
        &self.known_indexes
    }

    pub(super) async fn lease(&self) -> Result<Lease> {
        // A closed tracker hands out tokens all the same. So the token is taken before the tracker is asked:
        // either `close` came later and waits for this token, or it is seen here.
        let call = self.calls.token();
        if self.calls.is_closed() {
            return Err(self.closed());
        }
        let client = self.client.get_or_try_init(|| self.connect()).await?.clone();
        Ok(Lease { client, _call: call })
    }

    async fn connect(&self) -> Result<Client> {
        let make = async {
            let mut options = ClientOptions::parse(self.checked.uri.expose_secret()).await?;
            options.app_name.get_or_insert_with(|| "chronos".to_owned());
            // Whatever the application is called, the server knows which sessions are of this library.
            let us = DriverInfo::builder().name(DRIVER_NAME).version(env!("CARGO_PKG_VERSION").to_owned());
            options.driver_info.get_or_insert_with(|| us.build());
            // A little less than a call's limit, so that its error says what was seen of the servers.
            options.server_selection_timeout.get_or_insert(self.limit().mul_f64(0.95));
            options.connect_timeout.get_or_insert(CONNECT_TIMEOUT);
            options.max_pool_size.get_or_insert(CONNECTIONS.max(options.min_pool_size.unwrap_or(0)));
            options.sdam_event_handler = Some(self.primary_watcher());
            // Whatever a failover could still undo is not read: what is read decides what is written.
            options.read_concern = Some(ReadConcern::majority());
            options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
            options.write_concern = Some(concern::durable(self.limit()));
            if let Some(observe) = &self.observer {
                observe(&mut options);
            }
            crate::crypto::install_crypto_provider();
            Client::with_options(options)
        };
        make.await.map_err(|e: mongodb::error::Error| self.explain(Failure::from(e), "connecting"))
    }

    fn primary_watcher(&self) -> EventHandler<SdamEvent> {
        let primary = self.primary.clone();
        EventHandler::callback(move |event| {
            if let SdamEvent::TopologyDescriptionChanged(changed) = event {
                let takes_writes = |kind| matches!(kind, ServerType::RsPrimary | ServerType::Standalone);
                let servers = changed.new_description.servers();
                let found = servers
                    .values()
                    .find(|server| takes_writes(server.server_type()))
                    .map(|server| server.address().to_string());
                primary.send_if_modified(|known| {
                    let is_new = known.as_deref() != found.as_deref();
                    if is_new {
                        *known = found.map(Arc::from);
                    }
                    is_new
                });
            }
        })
    }

    /// What the deployment can do; asked once.
    pub(super) async fn capabilities(&self, lease: &Lease) -> Result<Capabilities, Failure> {
        let detect = || async {
            Ok(Capabilities { transactions: has_transactions(&lease.hello().await?), atomic_sequence: false })
        };
        self.capabilities.get_or_try_init(detect).await.copied()
    }

    /// The sessions by which a write command may be sent again, where the deployment remembers what it has
    /// done.
    pub(super) async fn numbered_sessions(
        &self,
        lease: &Lease,
    ) -> Result<Option<&NumberedSessions>, Failure> {
        if !self.checked.retry_writes {
            return Ok(None);
        }
        // What has transactions also has numbered writes.
        Ok(self.capabilities(lease).await?.transactions.then_some(&self.sessions))
    }

    fn closed(&self) -> Error {
        Error::database(format!("the client of {} is closed", self.place()))
    }

    /// Waits for the calls in flight and ends the client.
    pub(super) async fn close(&self) {
        self.calls.close();
        let drained = tokio::select! {
            () = self.calls.wait() => true,
            () = self.env.clock.sleep(DRAIN) => false,
        };
        self.sessions.clear();
        // What has not ended by now ends by its own limit, and the client with the last of it: the driver
        // panics if it is ended under a call. Of several that close it, also because the first was given up,
        // one ends it.
        if drained
            && let Some(client) = self.client.get()
            && !self.ended.swap(true, Ordering::AcqRel)
        {
            client.clone().shutdown().await;
        }
    }

    /// The error of a call that failed while `doing` something.
    pub(super) fn explain(&self, failure: Failure, doing: &str) -> Error {
        self.report(failure, doing, "")
    }

    /// The error of writes that failed: says what is known of them.
    pub(super) fn explain_write(&self, failure: Failure) -> Error {
        let known = if failure.nothing_written() {
            "; nothing was written"
        } else {
            "; some of the writes may have taken place"
        };
        self.report(failure, "writing", known)
    }

    fn report(&self, failure: Failure, doing: &str, known: &str) -> Error {
        let (retryable, forbidden) = (failure.is_retryable(), failure.is_forbidden());
        let (kind, text, source) = match failure {
            Failure::Ours(error) => return error,
            Failure::Reply { what, .. } => (ErrorKind::Database, what, None),
            Failure::PrimaryLost => {
                (ErrorKind::Database, "the primary changed before it answered".to_owned(), None)
            }
            Failure::NoAnswer { after, primary } => {
                let known = if primary { "" } else { " (no server that takes writes is known)" };
                let what = format!(
                    "no answer within {:.1} s{known}; `timeoutMs` in the configuration sets how long a call may take",
                    after.as_secs_f64()
                );
                (ErrorKind::Database, what, None)
            }
            Failure::Driver { error, .. } => {
                let kind = super::failure::kind(&error);
                (kind, super::failure::describe(&error), Some(error))
            }
        };
        let text = uri::redact(&self.uri, &text).replace(['\n', '\r'], " ");
        let mut error = Error::new(kind, format!("{doing} at {} failed: {text}{known}", self.place()));
        if retryable {
            error = error.retryable();
        }
        if forbidden {
            error = error.forbidden();
        }
        // The chain is for programs, but its `Debug` ends in logs.
        match source {
            Some(source)
                if {
                    let shown = format!("{source} {source:?}");
                    uri::redact(&self.uri, &shown) == shown
                } =>
            {
                error.caused_by(source)
            }
            _ => error,
        }
    }
}

/// Whether a deployment that says this of itself has transactions: a replica set and a sharded cluster have
/// them, a standalone server has none.
fn has_transactions(hello: &Document) -> bool {
    let is_router = hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid");
    (hello.contains_key("setName") || is_router) && hello.contains_key("logicalSessionTimeoutMinutes")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// G-51.
    #[test]
    fn a_replica_set_and_a_sharded_cluster_have_transactions_and_a_standalone_server_has_none() {
        let sessions = doc! { "logicalSessionTimeoutMinutes": 30 };
        let said = |mut more: Document| {
            more.extend(sessions.clone());
            has_transactions(&more)
        };
        assert!(said(doc! { "setName": "rs0" }));
        assert!(said(doc! { "msg": "isdbgrid" }));
        assert!(!said(doc! {}));
        assert!(!has_transactions(&doc! { "setName": "rs0" }), "transactions need sessions");
    }
}

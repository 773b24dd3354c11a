//! The front door.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use chronos_db::config::{Database, SpaceConnection};
use chronos_db::{Chronos, Route};
use parking_lot::Mutex;

use crate::bus::Bus;
use crate::config::{Config, Defaults, Space};
use crate::context::Context;
use crate::hot::HotTier;
use crate::hot::documents::DocumentsHot;
use crate::metrics::{Counters, Metrics};
use crate::payloads::Payloads;
use crate::shared::Shared;
use crate::tasks::Tasks;
use crate::warm::Warm;
use crate::{Error, Result, Scope};

/// Where the embedded store is if nothing is said.
const EMBEDDED: &str = "chronow-data";
/// The folder that is none.
const MEMORY: &str = ":memory:";
/// The messaging database of an embedded store, and the bucket of its large payloads.
const EMBEDDED_DATABASE: &str = "chronow";
const BUCKET: &str = "chronow";
/// How a connection's own chronos-db calls its document store and its storage.
const CONNECTION: &str = "chronow";
const PAYLOADS: &str = "payloads";
/// The messaging database on a server that is known by its URI alone, as the original names it.
const DATABASE: &str = "chronos_messaging_default";

/// Shared memory and topics on one hot tier. Cheap to clone; all clones share connections and background
/// work.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use chronow::{Chronow, Config};
/// use futures::StreamExt as _;
/// use chronos_db::{json, Json};
///
/// let config = Config::builder().embedded(":memory:").build()?;
/// let chronow = Chronow::connect(config, None).await?;
///
/// chronow.shared().set("greeting", &json!({"text": "hello"})).await?;
/// assert_eq!(chronow.shared().get::<Json>("greeting").await?, Some(json!({"text": "hello"})));
///
/// let payments = chronow.bus().topic("payments")?;
/// payments.ensure().await?;
/// let fraud = payments.subscription("fraud-detector")?;
/// fraud.ensure().max_deliveries(5).await?;
/// payments.publish(&json!({"orderId": "123", "amount": 42.5})).header("type", "payment.created").await?;
///
/// let mut messages = fraud.consume::<Json>().await?;
/// let message = messages.next().await.unwrap()?;
/// assert_eq!(message.payload["orderId"], "123");
/// message.ack().await?;
/// messages.close().await?;
/// chronow.close().await?;
/// # Ok::<(), chronow::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Chronow {
    inner: Arc<Context>,
}

impl fmt::Debug for Chronow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chronow").field("hot", &self.inner.hot).finish_non_exhaustive()
    }
}

impl Chronow {
    /// Connects: to Redis if it is configured, else to the messaging database of `chronos`, else to
    /// `mongoUri`, else to an embedded store. The warm tier is the messaging database of `chronos`, which
    /// stays open when this is closed.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for a wrong configuration, `HOT_TIER_ERROR` if Redis cannot be reached.
    pub async fn connect(config: Config, chronos: Option<&Chronos>) -> Result<Self> {
        config.check()?;
        for warning in &config.warnings {
            tracing::warn!(%warning, "the configuration of chronow has a warning");
        }
        let on_redis = config.redis.as_ref().filter(|_| !config.mongo_only);
        let own = match (chronos, on_redis, &config.mongo_uri) {
            (Some(_), ..) => None,
            (None, Some(_), None) => None,
            (None, ..) => Some(open(&config)?),
        };
        let chronos = chronos.or(own.as_ref());
        let hot: Arc<dyn HotTier> = match (on_redis, chronos) {
            (Some(redis), _) => connect_redis(redis).await?,
            (None, Some(chronos)) => Arc::new(documents(chronos, &config.defaults)?),
            // One was opened above.
            (None, None) => return Err(Error::validation("there is neither Redis nor a messaging database")),
        };
        Self::build(hot, config.defaults, chronos.cloned(), own)
    }

    /// Runs on a hot tier of your own. With a `chronos` its messaging database is the warm tier.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for a wrong configuration.
    pub fn with_hot(hot: Arc<dyn HotTier>, config: &Config, chronos: Option<&Chronos>) -> Result<Self> {
        config.check()?;
        Self::build(hot, config.defaults.clone(), chronos.cloned(), None)
    }

    fn build(
        hot: Arc<dyn HotTier>,
        defaults: Defaults,
        chronos: Option<Chronos>,
        own: Option<Chronos>,
    ) -> Result<Self> {
        let scope = Scope::new(&defaults.tenant, &defaults.namespace)?;
        // Without a messaging database chronos-db is not a warm tier.
        let has_messaging = |chronos: &Chronos| {
            let messaging = Some(chronos_db::config::DatabaseType::Messaging);
            chronos.config().entries.iter().any(|entry| entry.database_type == messaging)
        };
        let chronos = chronos.filter(has_messaging);
        let payloads = chronos.clone().map(Payloads::new);
        let warm = chronos.map(|chronos| Warm::new(chronos, defaults.warm_retention));
        let captures = warm.as_ref().is_some_and(Warm::captures);
        let inner = Context {
            hot,
            defaults,
            counters: Arc::new(Counters::register()),
            tasks: Tasks::new(),
            scope,
            warm,
            own,
            payloads,
            topic_tasks: Default::default(),
            noticed: Mutex::default(),
            audit: Arc::default(),
            captures,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Returns the topics of the default tenant and namespace.
    #[must_use]
    pub fn bus(&self) -> Bus {
        Bus::new(Arc::clone(&self.inner), self.inner.scope.clone())
    }

    /// Returns the shared memory of the default tenant and namespace.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let config = chronow::Config::builder().embedded(":memory:").build()?;
    /// # let chronow = chronow::Chronow::connect(config, None).await?;
    /// let shared = chronow.shared();
    /// let first = shared.set("seats", &12).await?; // for one hour, unless `ttl` or `forever` says otherwise
    /// let second = shared.compare_and_set("seats", first, &13).persist().await?; // in the warm tier, too
    /// assert!(shared.compare_and_set("seats", first, &14).await.is_err()); // CONFLICT: it moved on
    /// assert_eq!(shared.increment("seats", 2).await?, 15);
    /// assert!(second > first && shared.del("seats").await?);
    /// # Ok::<(), chronow::Error>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn shared(&self) -> Shared {
        Shared::new(Arc::clone(&self.inner), self.inner.scope.clone())
    }

    /// Returns the hot tier itself.
    #[must_use]
    pub fn hot(&self) -> &Arc<dyn HotTier> {
        &self.inner.hot
    }

    /// Makes a round trip to the hot tier, and returns what it can do, in words for people.
    ///
    /// # Errors
    /// `HOT_TIER_ERROR` if it does not answer.
    pub async fn ping(&self) -> Result<String> {
        self.inner.hot.ping().await.map_err(|error| error.during("ping"))
    }

    /// Returns what this connection has done so far.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.inner.counters.snapshot()
    }

    /// Stops runners and streams, gives back what they prefetched, waits for handlers at work, makes the warm
    /// copies that can be made, and closes the connection.
    ///
    /// # Errors
    /// `HOT_TIER_ERROR` if the store fails; it is closed all the same.
    pub async fn close(&self) -> Result<()> {
        self.inner.tasks.close().await;
        self.inner.finish_audit().await;
        let closed = self.inner.hot.close().await.map_err(|error| error.during("close"));
        if let Some(own) = &self.inner.own {
            own.shutdown().await?;
        }
        closed
    }
}

/// A chronos-db for this connection alone, of nothing but a messaging database. Large payloads of an embedded
/// one lie in its folder, unless the configuration names a storage.
fn open(config: &Config) -> Result<Chronos> {
    let folder = config.embedded.as_deref().unwrap_or(Path::new(EMBEDDED));
    let in_memory = folder == Path::new(MEMORY);
    let builder = chronos_db::config::Config::builder();
    let (builder, name) = match &config.mongo_uri {
        Some(uri) => (builder.connection(CONNECTION, uri.clone()), DATABASE),
        None if in_memory => (builder.connection(CONNECTION, "embedded::memory:"), EMBEDDED_DATABASE),
        None => (builder.embedded(CONNECTION, folder), EMBEDDED_DATABASE),
    };
    let (builder, bucket) = match &config.space {
        Some(Space { endpoint, access_key, secret_key, bucket, .. }) => {
            let space = SpaceConnection::at(endpoint, access_key.clone(), secret_key.clone());
            (builder.space(PAYLOADS, space), Some(bucket.as_str()))
        }
        None if config.mongo_uri.is_some() => (builder, None),
        None if in_memory => (builder.space(PAYLOADS, SpaceConnection::memory()), Some(BUCKET)),
        None => (builder.local_space(PAYLOADS, folder.join("payloads")), Some(BUCKET)),
    };
    let mut messaging = Database::messaging(CONNECTION, name);
    if let Some(bucket) = bucket {
        messaging = messaging.space(PAYLOADS).bucket(bucket);
    }
    Ok(Chronos::open(builder.database(messaging).build()?)?)
}

fn documents(chronos: &Chronos, defaults: &Defaults) -> Result<DocumentsHot> {
    let resolved = chronos.route(&Route::messaging().tenant(&defaults.tenant).collection("topics")).map_err(
        |error| {
            Error::validation(
                "chronow needs Redis, or a messaging database in the configuration of chronos-db",
            )
            .caused_by(error)
        },
    )?;
    let documents = chronos.documents(&resolved.entry.connection)?;
    Ok(DocumentsHot::new(documents, &resolved.database, chronos.env().clone()))
}

#[cfg(feature = "redis")]
async fn connect_redis(redis: &crate::config::Redis) -> Result<Arc<dyn HotTier>> {
    Ok(Arc::new(crate::hot::redis::RedisHot::connect(redis.to_hot()).await?))
}

#[cfg(not(feature = "redis"))]
async fn connect_redis(_: &crate::config::Redis) -> Result<Arc<dyn HotTier>> {
    Err(Error::new(crate::ErrorKind::Unsupported, "this build has no Redis: it is a feature"))
}

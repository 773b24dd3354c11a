//! The front door: one configuration, opened.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};

use crate::clock::sleep_until;
use crate::config::{Config, DatabaseType, ObjectSpace};
use crate::documents::Documents;
use crate::messaging::{Messaging, Place};
use crate::objects::{Objects, ObjectsPool};
use crate::records::{Collection, Engine, Names, OpenBucket, PayloadCache, PayloadRules, Settings, Space};
use crate::route::sharing::Tenancy;
use crate::{Error, Resolved, Result, Route, Router, Runtime};

/// Bytes of payloads kept in memory, unless [`Builder::cache_bytes`] says otherwise.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;
/// What the cache itself takes for an entry: key, links, counters and allocations.
const CACHE_ENTRY_BYTES: usize = 400;
/// How long [`Chronos::shutdown`] takes at most.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);
/// How long clients have to close, even if all the time went into storing.
const CLOSE_MILLIS: i64 = 500;

type WrapDocuments = Arc<dyn Fn(Arc<dyn Documents>) -> Arc<dyn Documents> + Send + Sync>;
type WrapObjects = Arc<dyn Fn(Arc<dyn Objects>) -> Arc<dyn Objects> + Send + Sync>;

/// An opened configuration. Cheap to clone; all clones share clients, caches and background work. Two of them in one process that were opened
/// apart share nothing.
#[derive(Clone)]
pub struct Chronos {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    router: Router,
    runtime: Runtime,
    wrap_documents: Option<WrapDocuments>,
    wrap_objects: Option<WrapObjects>,
    /// Clients by connection string: whoever names the same server with the same credentials shares one.
    documents: Mutex<HashMap<String, Arc<dyn Documents>>>,
    buckets: Arc<ObjectsPool>,
    rules: PayloadRules,
    cache: PayloadCache,
    engines: Mutex<HashMap<EngineKey, Arc<Engine>>>,
    next_engine: AtomicU64,
    messaging: Mutex<HashMap<PlaceKey, Arc<Place>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Without `shutdown`, background work ends after what it is at; what is left is in the version rows.
        for engine in self.engines.get_mut().unwrap_or_else(PoisonError::into_inner).values() {
            engine.stop();
        }
    }
}

/// One collection: where its documents are, and where its objects go.
type EngineKey = (String, String, String, Option<ObjectSpace>);
/// One messaging database: its connection, its name, and whether it keeps deliveries.
type PlaceKey = (String, String, bool);

impl fmt::Debug for Chronos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chronos").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

/// Options of [`Chronos`] beyond its configuration.
#[must_use = "a builder does nothing until `open`"]
pub struct Builder {
    config: Config,
    runtime: Runtime,
    cache_bytes: u64,
    wrap_documents: Option<WrapDocuments>,
    wrap_objects: Option<WrapObjects>,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("config", &self.config).field("runtime", &self.runtime).finish_non_exhaustive()
    }
}

impl Builder {
    /// Another clock, random source, or armed fail points.
    pub fn runtime(mut self, runtime: Runtime) -> Self {
        self.runtime = runtime;
        self
    }

    /// Keep at most so many bytes of immutable payloads in memory (default 64 MiB).
    pub fn cache_bytes(mut self, bytes: u64) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Puts a layer around every document store, such as one that counts or delays.
    pub fn wrap_documents(mut self, wrap: impl Fn(Arc<dyn Documents>) -> Arc<dyn Documents> + Send + Sync + 'static) -> Self {
        self.wrap_documents = Some(Arc::new(wrap));
        self
    }

    /// Puts a layer around every bucket.
    pub fn wrap_objects(mut self, wrap: impl Fn(Arc<dyn Objects>) -> Arc<dyn Objects> + Send + Sync + 'static) -> Self {
        self.wrap_objects = Some(Arc::new(wrap));
        self
    }

    /// Opens the configuration. No I/O: clients are made when they are first used.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if the configuration contradicts itself.
    pub fn open(self) -> Result<Chronos> {
        let cache = PayloadCache::builder()
            .max_capacity(self.cache_bytes)
            .weigher(|_, bytes| u32::try_from(bytes.len() + CACHE_ENTRY_BYTES).unwrap_or(u32::MAX))
            .build();
        Ok(Chronos {
            inner: Arc::new(Inner {
                rules: PayloadRules::parse(|name| self.config.sections.get(name))?,
                router: Router::new(&self.config),
                config: self.config,
                runtime: self.runtime,
                wrap_documents: self.wrap_documents,
                wrap_objects: self.wrap_objects,
                documents: Mutex::default(),
                buckets: Arc::new(ObjectsPool::new()),
                cache,
                engines: Mutex::default(),
                next_engine: AtomicU64::new(0),
                messaging: Mutex::default(),
            }),
        })
    }
}

impl Chronos {
    /// Opens a configuration; see [`Builder::open`].
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if the configuration contradicts itself.
    pub fn open(config: Config) -> Result<Self> {
        Self::builder(config).open()
    }

    /// Begins with a configuration and the machine's clock.
    pub fn builder(config: Config) -> Builder {
        Builder { config, runtime: Runtime::default(), cache_bytes: CACHE_BYTES, wrap_documents: None, wrap_objects: None }
    }

    /// The configuration this was opened with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// The clock, random source and fail points this was opened with.
    #[must_use]
    pub fn runtime(&self) -> &Runtime {
        &self.inner.runtime
    }

    /// Where a route leads.
    ///
    /// # Errors
    /// `ROUTE_NOT_FOUND` if nothing is configured for it, `VALIDATION_ERROR` for a bad name.
    pub fn route(&self, route: &Route) -> Result<Resolved> {
        self.inner.router.resolve(route)
    }

    /// The collection a route leads to. No I/O.
    ///
    /// # Errors
    /// As [`route`](Self::route); `VALIDATION_ERROR` also if this build lacks the backend.
    pub fn with(&self, route: Route) -> Result<Collection> {
        let resolved = self.route(&route)?;
        let tenancy = Tenancy::new(&self.inner.config, &resolved);
        Ok(Collection { engine: self.engine(&resolved)?, tenancy })
    }

    /// The document store behind a route: what messaging, counters and tools build on.
    ///
    /// # Errors
    /// As [`with`](Self::with).
    pub fn documents(&self, connection: &str) -> Result<Arc<dyn Documents>> {
        let wanted = self.inner.config.connections.get(connection);
        let wanted = wanted.ok_or_else(|| Error::validation(format!("there is no document connection `{connection}`")))?;
        let mut open = self.inner.documents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(documents) = open.get(wanted.uri.expose_secret()) {
            return Ok(Arc::clone(documents));
        }
        let mut documents = connect(connection, &wanted.uri, &self.inner.runtime)?;
        if let Some(wrap) = &self.inner.wrap_documents {
            documents = wrap(documents);
        }
        open.insert(wanted.uri.expose_secret().to_owned(), Arc::clone(&documents));
        Ok(documents)
    }

    /// A bucket of a configured object storage: what tools and the bus keep beside the records. No I/O.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if the space names no connection, or one that this build has no provider for.
    pub fn objects(&self, space: &ObjectSpace, bucket: &str) -> Result<Arc<dyn Objects>> {
        (self.space(space).open)(bucket)
    }

    /// The messaging database of a tenant: its own, that of the tenant `default`, or the one all tenants share. No I/O: collections and indexes come
    /// with the first access.
    ///
    /// ```
    /// # #[cfg(feature = "embedded")]
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use chronos_db::{Chronos, config::Config};
    /// use chronos_db::json;
    ///
    /// let config = Config::parse(
    ///     r#"{"dbConnections": {"here": {"mongoUri": "embedded::memory:"}},
    ///         "databases": {"messaging": {"dbConnRef": "here", "dbName": "chronos_messaging"}}}"#,
    ///     ".".as_ref(),
    /// )?;
    /// let messaging = Chronos::open(config)?.messaging("tenant-a")?;
    /// messaging.shared().save("config", "feature-flags", json!({"beta": true})).await?;
    /// let flags = messaging.shared().load("config", "feature-flags").await?;
    /// assert_eq!(flags.unwrap().value, json!({"beta": true}));
    /// # Ok::<(), chronos_db::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// `ROUTE_NOT_FOUND` if no messaging database is configured for the tenant, `VALIDATION_ERROR` for a bad name.
    pub fn messaging(&self, tenant: &str) -> Result<Messaging> {
        // Which of its collections makes no difference to the route.
        let resolved = self.route(&Route::messaging().tenant(tenant).collection("topics"))?;
        let (entry, database) = (&resolved.entry, resolved.database);
        let documents = self.documents(&entry.connection)?;
        let key = (entry.connection.clone(), database.clone(), entry.capture_deliveries);
        let mut places = self.inner.messaging.lock().unwrap_or_else(PoisonError::into_inner);
        let place = places.entry(key).or_insert_with(|| {
            let runtime = self.inner.runtime.clone();
            Arc::new(Place::new(documents, &database, entry.capture_deliveries, runtime))
        });
        Ok(Messaging::new(Arc::clone(place), tenant))
    }

    fn engine(&self, resolved: &Resolved) -> Result<Arc<Engine>> {
        let Inner { config, runtime, cache, engines, next_engine, rules, .. } = &*self.inner;
        let entry = &resolved.entry;
        let documents = self.documents(&entry.connection)?;
        let key = (entry.connection.clone(), resolved.database.clone(), resolved.collection.clone(), entry.objects.clone());
        let mut engines = engines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = engines.get(&key) {
            return Ok(Arc::clone(engine));
        }
        let settings = Settings {
            map: config.collection_maps.get(&resolved.collection).cloned().unwrap_or_default(),
            inline_max_bytes: config.inline_max_bytes,
            versioning: config.versioning,
            logical_delete: config.logical_delete,
            update_mode: config.update_mode,
            shadow: config.dev_shadow,
            rules: rules.clone(),
            all_and_one: matches!(entry.database_type, Some(DatabaseType::Logs | DatabaseType::Identities | DatabaseType::Messaging)),
        };
        let space = entry.objects.as_ref().map(|space| self.space(space));
        let names = Names::new(&resolved.database, &resolved.collection);
        let number = next_engine.fetch_add(1, Ordering::Relaxed);
        let engine = Engine::new(number, names, documents, space, settings, runtime.clone(), cache.clone());
        engines.insert(key, Arc::clone(&engine));
        Ok(engine)
    }

    fn space(&self, space: &ObjectSpace) -> Space {
        // Not the whole of `self`, which owns the engines that own this.
        let (pool, config, wrap, of) =
            (Arc::clone(&self.inner.buckets), self.inner.config.clone(), self.inner.wrap_objects.clone(), space.clone());
        let open: OpenBucket = Arc::new(move |bucket| {
            let objects = pool.objects(&config, &of, bucket)?;
            Ok(match &wrap {
                Some(wrap) => wrap(objects),
                None => objects,
            })
        });
        Space { json: space.buckets.json.clone(), content: space.buckets.content.clone(), open }
    }

    /// Waits for what is in flight, stores what waits, and closes every client, within 10 s; see [`shutdown_within`](Self::shutdown_within).
    ///
    /// # Errors
    /// As [`shutdown_within`](Self::shutdown_within).
    pub async fn shutdown(&self) -> Result<()> {
        self.shutdown_within(SHUTDOWN_LIMIT).await.map(drop)
    }

    /// Waits for what is in flight, stores what waits, and closes every client, within `limit`. What is not stored by then is left to the next process
    /// that writes the collection, or to a worker: returns how many versions of which collections, and logs it.
    ///
    /// # Errors
    /// `TXN_ERROR` if a store fails, or did not close in time; everything that can be closed is.
    pub async fn shutdown_within(&self, limit: Duration) -> Result<Vec<LeftBehind>> {
        let clock = &self.inner.runtime.clock;
        let end = clock.now().plus_millis(i64::try_from(limit.as_millis()).unwrap_or(i64::MAX));
        let engines: Vec<_> = self.inner.engines.lock().unwrap_or_else(PoisonError::into_inner).drain().map(|(_, engine)| engine).collect();
        let counts = futures::future::join_all(engines.iter().map(|engine| engine.finish(limit))).await;
        let left = engines.iter().zip(counts).filter(|(_, versions)| *versions > 0);
        let left: Vec<LeftBehind> = left.map(|(engine, versions)| LeftBehind::new(&engine.names, versions)).collect();
        for LeftBehind { database, collection, versions } in &left {
            tracing::warn!(%database, %collection, versions, "versions are left to be stored by the next process that writes the collection");
        }
        self.inner.messaging.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let documents: Vec<_> = self.inner.documents.lock().unwrap_or_else(PoisonError::into_inner).drain().map(|(_, d)| d).collect();
        let closed = futures::future::join_all(documents.iter().map(|documents| documents.close()));
        let end = end.max(clock.now().plus_millis(CLOSE_MILLIS));
        let closed = tokio::select! {
            biased;
            closed = closed => closed.into_iter().collect(),
            () = sleep_until(&**clock, end) => {
                let message = format!("a document store did not close within {limit:?}; what was acknowledged is durable");
                Err(Error::database(message).during("shutdown").retryable())
            }
        };
        self.inner.buckets.clear();
        closed.map(|()| left)
    }
}

/// Versions of one collection that were not stored when a [`Chronos`] was shut down. They are committed, and safe in the version index.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeftBehind {
    /// The database.
    pub database: String,
    /// The collection.
    pub collection: String,
    /// How many.
    pub versions: u64,
}

impl LeftBehind {
    fn new(names: &Names, versions: u64) -> Self {
        Self { database: names.head.database.to_string(), collection: names.collection.clone(), versions }
    }
}

fn connect(reference: &str, uri: &SecretString, runtime: &Runtime) -> Result<Arc<dyn Documents>> {
    #[cfg(feature = "embedded")]
    if let Some(path) = uri.expose_secret().strip_prefix("embedded:") {
        return Ok(Arc::new(crate::documents::embedded::EmbeddedDocuments::open(path, runtime.clone())?));
    }
    #[cfg(feature = "mongodb")]
    if uri.expose_secret().starts_with("mongodb") {
        return Ok(Arc::new(crate::documents::mongo::MongoDocuments::new(uri.clone(), runtime.clone())?));
    }
    let _ = (uri, runtime);
    Err(Error::validation(format!(
        "this build has no backend for the document connection `{reference}`: mongodb and embedded are features"
    )))
}

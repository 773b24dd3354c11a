//! Opening a configuration, and the options beyond it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;

use super::{Chronos, Inner, WrapObjects};
use crate::config::{Config, CounterRules};
use crate::connections::{Connections, WrapDocuments};
use crate::documents::DocumentStore;
use crate::fallback::queues::Queues;
use crate::objects::{ObjectStorage, ObjectsPool};
use crate::projections::analytics_db::AnalyticsDbs;
use crate::records::{PayloadCache, VersionRules};
use crate::telemetry::{Subject, Telemetry};
use crate::{Env, Result, Router};

/// Bytes of payloads kept in memory, unless [`Builder::cache_bytes`] says otherwise.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;
/// What the cache itself takes for an entry: key, links, counters and allocations.
const CACHE_ENTRY_BYTES: usize = 400;

/// Options of [`Chronos`] beyond its configuration.
#[must_use = "a builder does nothing until `open`"]
pub struct Builder {
    config: Config,
    env: Env,
    cache_bytes: u64,
    wrap_documents: Option<WrapDocuments>,
    wrap_objects: Option<WrapObjects>,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("config", &self.config)
            .field("env", &self.env)
            .finish_non_exhaustive()
    }
}

impl Builder {
    /// Uses another clock, random source, or armed fail points.
    pub fn env(mut self, env: Env) -> Self {
        self.env = env;
        self
    }

    /// Bounds the immutable payloads that are kept in memory, in bytes (default 64 MiB).
    pub fn cache_bytes(mut self, bytes: u64) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Bounds a call to a document store on a server, repetitions included (default 30 s), unless its
    /// connection string says `timeoutMS`. Wins over the configuration's `timeoutMs`.
    ///
    /// ```
    /// # #[cfg(feature = "embedded")] {
    /// use std::time::Duration;
    /// use chronos_db::{Chronos, config::Config};
    ///
    /// let chronos = Chronos::builder(Config::embedded("/var/lib/app".as_ref())).timeout(Duration::from_secs(5)).open()?;
    /// # let _ = chronos; }
    /// # Ok::<(), chronos_db::Error>(())
    /// ```
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.config.timeout = Some(limit);
        self
    }

    /// Puts a layer around every document store, such as one that counts or delays.
    pub fn wrap_documents(
        mut self,
        wrap: impl Fn(Arc<dyn DocumentStore>) -> Arc<dyn DocumentStore> + Send + Sync + 'static,
    ) -> Self {
        self.wrap_documents = Some(Arc::new(wrap));
        self
    }

    /// Puts a layer around every bucket.
    pub fn wrap_objects(
        mut self,
        wrap: impl Fn(Arc<dyn ObjectStorage>) -> Arc<dyn ObjectStorage> + Send + Sync + 'static,
    ) -> Self {
        self.wrap_objects = Some(Arc::new(wrap));
        self
    }

    /// Opens the configuration. No I/O: clients are made when they are first used.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if the configuration contradicts itself.
    pub fn open(self) -> Result<Chronos> {
        let env = Env { telemetry: Telemetry::register(), ..self.env };
        for entry in &self.config.entries {
            env.telemetry.may_route(&entry.connection, entry.tenant());
        }
        let cache = PayloadCache::builder()
            .max_capacity(self.cache_bytes)
            .weigher(|_, bytes| u32::try_from(bytes.len() + CACHE_ENTRY_BYTES).unwrap_or(u32::MAX))
            .build();
        let (connections, timeout) = (self.config.connections.clone(), self.config.timeout);
        let documents = Arc::new(Connections::new(connections, env.clone(), self.wrap_documents, timeout));
        Ok(Chronos {
            inner: Arc::new(Inner {
                rules: VersionRules::new(CounterRules::of(&self.config)?),
                router: Router::new(&self.config),
                queues: self
                    .config
                    .fallback
                    .clone()
                    .map(|options| Queues::new(options, Arc::clone(&documents), env.clone())),
                documents,
                config: self.config,
                subject: Subject::everything(&env.telemetry),
                env,
                wrap_objects: self.wrap_objects,
                analytics: AnalyticsDbs::default(),
                buckets: Arc::new(ObjectsPool::new()),
                cache,
                open: Mutex::default(),
                next_number: AtomicU64::new(0),
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
        Builder {
            config,
            env: Env::default(),
            cache_bytes: CACHE_BYTES,
            wrap_documents: None,
            wrap_objects: None,
        }
    }
}

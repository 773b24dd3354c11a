//! The front door: one configuration, opened.

pub(crate) mod builder;

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::sleep_until;
use crate::config::{Config, Entry, ObjectSpace, OneStore};
use crate::connections::Connections;
use crate::documents::DocumentStore;
use crate::fallback::queue::FallbackRoute;
use crate::fallback::queues::Queues;
use crate::messaging::{Messaging, MessagingDb};
use crate::objects::{ObjectStorage, ObjectsPool, ObservedObjects, StorageMeters};
use crate::open::{LeftBehind, OpenCollections, nearest};
use crate::projections::analytics_db::AnalyticsDbs;
use crate::records::{
    Collection, Names, ObjectBuckets, OpenBucket, Opens, Origin, PayloadCache, Settings, VersionRules,
    Workers,
};
use crate::route::sharing::Tenancy;
use crate::telemetry::{Observed, Operation, Routed, Subject, routed};
use crate::{Env, Error, Resolved, Result, Route, Router};

/// How long [`Chronos::shutdown`] takes at most.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);
/// How long clients have to close, even if all the time went into storing.
const CLOSE_MILLIS: i64 = 500;

type WrapObjects = Arc<dyn Fn(Arc<dyn ObjectStorage>) -> Arc<dyn ObjectStorage> + Send + Sync>;

/// An opened configuration. Cheap to clone; all clones share clients, caches and background work. Two of them
/// in one process that were opened apart share nothing.
#[derive(Clone)]
pub struct Chronos {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    router: Router,
    env: Env,
    /// The subject under which operations on all of it are measured and logged.
    subject: Arc<Subject>,
    wrap_objects: Option<WrapObjects>,
    documents: Arc<Connections>,
    analytics: AnalyticsDbs,
    queues: Option<Queues>,
    buckets: Arc<ObjectsPool>,
    rules: VersionRules,
    cache: PayloadCache,
    open: Mutex<OpenCollections>,
    next_number: AtomicU64,
    messaging: Mutex<HashMap<MessagingKey, Arc<MessagingDb>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Without `shutdown`, background work ends after what it is at; what is left is in the version rows.
        for workers in self.open.get_mut().by_key.values() {
            workers.stop();
        }
    }
}

impl Opens for Inner {
    fn open(self: Arc<Self>, route: Route) -> Result<Collection> {
        Chronos { inner: self }.with(route)
    }

    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

/// One messaging database: its connection, its name, and whether it keeps deliveries.
type MessagingKey = (String, String, bool);

impl fmt::Debug for Chronos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chronos").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

impl Chronos {
    /// Returns the configuration this was opened with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// Returns the clock, random source and fail points this was opened with.
    #[must_use]
    pub fn env(&self) -> &Env {
        &self.inner.env
    }

    /// Resolves a route to its database, entry and collection, without I/O.
    ///
    /// # Errors
    /// `ROUTE_NOT_FOUND` if nothing is configured for it, `VALIDATION_ERROR` for a bad name.
    pub fn route(&self, route: &Route) -> Result<Resolved> {
        self.inner.router.resolve(route)
    }

    /// Returns a handle of the collection a route leads to, which need not be there yet. Does no I/O.
    ///
    /// # Errors
    /// As [`route`](Self::route); `VALIDATION_ERROR` also if this build lacks the backend.
    pub fn with(&self, route: Route) -> Result<Collection> {
        let resolved = self.decide(&route)?;
        let route = Arc::new(route);
        let fallback = match self.queues() {
            None => None,
            Some(queues) => {
                let (queue, target) = (queues.of(&resolved)?, queues.target(&resolved));
                let breaker = queues.breaker(&resolved);
                Some(FallbackRoute { queue, target, breaker, route: Arc::clone(&route) })
            }
        };
        let opens: Weak<Inner> = Arc::downgrade(&self.inner);
        let origin = Some(Arc::new(Origin { route, opens }));
        Ok(Collection { fallback, origin, ..self.resolved(&resolved)? })
    }

    /// What a handle was opened by.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if that is gone, or the handle is a worker's.
    pub(crate) fn behind(collection: &Collection) -> Result<Self> {
        let opens = collection.origin.as_ref().and_then(|origin| origin.opens.upgrade());
        let inner = opens.and_then(|opens| opens.as_any().downcast::<Inner>().ok());
        inner.map(|inner| Self { inner }).ok_or_else(|| {
            Error::validation(
                "the collection's `Chronos` is gone, and with it the way to what lies elsewhere",
            )
        })
    }

    /// Resolves a route that is about to be used: it is counted and logged.
    fn decide(&self, route: &Route) -> Result<Resolved> {
        let Inner { router, env, subject, .. } = &*self.inner;
        let observed = Observed::new(Operation::Route, subject);
        let resolved = router.resolve(route);
        observed.ended(&resolved, |_| None, |_| false);
        let resolved = resolved?;
        env.telemetry.routed(&resolved.entry.connection, resolved.tenant());
        let event = Routed {
            asked_database: route.database.as_deref(),
            collection: &resolved.collection,
            key: route.key.as_deref(),
            index: resolved.entry.position(),
            connection: &resolved.entry.connection,
            database: &resolved.database,
        };
        routed(event, || router.routing_key(route));
        Ok(resolved)
    }

    /// Begins to watch an operation on everything that was opened.
    pub(crate) fn observed(&self, operation: Operation) -> Observed {
        Observed::new(operation, &self.inner.subject)
    }

    pub(crate) fn queues(&self) -> Option<&Queues> {
        self.inner.queues.as_ref()
    }

    /// A worker's handle of what a route resolved to: its writes never wait, and it leads nowhere else.
    pub(crate) fn resolved(&self, resolved: &Resolved) -> Result<Collection> {
        let Inner { config, documents, env, analytics, .. } = &*self.inner;
        let tenancy = Tenancy::new(config, resolved, documents, env);
        let analytics = analytics.of(config, resolved, documents);
        let workers = self.workers(resolved)?;
        let (database, collection) = (&resolved.database, &resolved.collection);
        let subject = Subject::collection(&env.telemetry, database, collection, resolved.tenant());
        Ok(Collection { workers, tenancy, analytics, fallback: None, subject, origin: None })
    }

    /// Returns the document store of a connection, by its reference: what messaging and tools build on.
    ///
    /// # Errors
    /// As [`with`](Self::with).
    pub fn documents(&self, connection: &str) -> Result<Arc<dyn DocumentStore>> {
        self.inner.documents.open(connection)
    }

    /// Returns what [`with`](Self::with) returns, but only for a collection that something was written to;
    /// see [`Collection::exists`].
    ///
    /// # Errors
    /// As `with`; `NOT_FOUND`, with the names that are nearest to this one, if nothing was. `TXN_ERROR` if
    /// the store fails.
    pub async fn existing(&self, route: Route) -> Result<Collection> {
        let collection = self.with(route.clone())?;
        if collection.exists().await? {
            return Ok(collection);
        }
        let known = self.collections(&route).await?;
        let hint = match (nearest(collection.name(), &known).as_slice(), known.as_slice()) {
            ([], []) => "; the database has no collections yet".to_owned(),
            ([], [..]) => String::new(),
            (near, _) => format!("; did you mean {}?", near.join(" or ")),
        };
        let message = format!("nothing was ever written to a collection `{}`{hint}", collection.name());
        Err(Error::not_found(message).in_collection(collection.name()))
    }

    /// Returns the names of the collections of records, in the database a route leads to, that hold anything
    /// the route may see. The collection that the route names makes no difference.
    ///
    /// # Errors
    /// As [`with`](Self::with); `TXN_ERROR` if the store fails.
    pub async fn collections(&self, route: &Route) -> Result<Vec<String>> {
        // The name makes no difference to where a route leads.
        let named = |name: &str| route.clone().collection(name);
        let resolved = self.route(&named("any"))?;
        let stored =
            self.inner.documents.open(&resolved.entry.connection)?.collections(&resolved.database).await?;
        let mut names: Vec<String> =
            stored.iter().filter_map(|name| name.strip_suffix("_head").map(str::to_owned)).collect();
        names.sort();
        let mut seen = Vec::new();
        for name in names {
            // Others may have collections of such names that are not records.
            if let Ok(collection) = self.with(named(&name))
                && collection.exists().await?
            {
                seen.push(name);
            }
        }
        Ok(seen)
    }

    /// Returns the entries that lead to one database, two by two and by their JSON paths. Where connection
    /// strings differ, the stores themselves are asked.
    ///
    /// # Errors
    /// The error of a store that has to be asked and does not answer.
    pub async fn shared_databases(&self) -> Result<Vec<(String, String)>> {
        let Inner { config, documents, .. } = &*self.inner;
        let mut shared = Vec::new();
        for (position, entry) in config.entries.iter().enumerate() {
            for earlier in config.entries[..position]
                .iter()
                .filter(|earlier| entry.database.is_some() && earlier.database == entry.database)
            {
                let same = match config.one_store(entry, earlier) {
                    OneStore::Yes => true,
                    OneStore::No => false,
                    OneStore::Unknown => documents.are_one(&entry.connection, &earlier.connection).await?,
                };
                if same {
                    shared.push((earlier.path.clone(), entry.path.clone()));
                }
            }
        }
        Ok(shared)
    }

    /// Returns a bucket of an object storage: what tools and the bus keep beside the records. Does no I/O.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if the space names no connection, or one that this build has no provider for.
    pub fn objects(&self, space: &ObjectSpace, bucket: &str) -> Result<Arc<dyn ObjectStorage>> {
        (self.space(space).open)(bucket)
    }

    /// Returns the messaging database of a tenant: its own, that of the tenant `default`, or the one all
    /// tenants share. Does no I/O: collections and indexes come with the first access.
    ///
    /// ```
    /// # #[cfg(feature = "embedded")]
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// use chronos_db::config::{Config, Database};
    /// use chronos_db::{Chronos, json};
    ///
    /// let config = Config::builder()
    ///     .connection("here", "embedded::memory:")
    ///     .database(Database::messaging("here", "chronos_messaging"))
    ///     .build()?;
    /// let messaging = Chronos::open(config)?.messaging("tenant-a")?;
    /// messaging.shared().save("config", "feature-flags", json!({"beta": true})).await?;
    /// let flags = messaging.shared().load("config", "feature-flags").await?;
    /// assert_eq!(flags.unwrap().value, json!({"beta": true}));
    /// # Ok::<(), chronos_db::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// `ROUTE_NOT_FOUND` if no messaging database is configured for the tenant, `VALIDATION_ERROR` for a bad
    /// name.
    pub fn messaging(&self, tenant: &str) -> Result<Messaging> {
        // Which of its collections makes no difference to the route.
        let resolved = self.decide(&Route::messaging().tenant(tenant).collection("topics"))?;
        Ok(Messaging::new(self.messaging_db(&resolved.entry, &resolved.database)?, tenant))
    }

    /// The messaging database of an entry.
    pub(crate) fn messaging_db(&self, entry: &Entry, database: &str) -> Result<Arc<MessagingDb>> {
        let documents = self.documents(&entry.connection)?;
        let key = (entry.connection.clone(), database.to_owned(), entry.capture_deliveries);
        let make = || MessagingDb::new(documents, database, entry.capture_deliveries, self.inner.env.clone());
        Ok(Arc::clone(self.inner.messaging.lock().entry(key).or_insert_with(|| Arc::new(make()))))
    }

    fn workers(&self, resolved: &Resolved) -> Result<Arc<Workers>> {
        let Inner { config, env, cache, open, next_number, rules, .. } = &*self.inner;
        let entry = &resolved.entry;
        let documents = self.documents(&entry.connection)?;
        let inline = config.keeps_inline(entry);
        let key = (
            entry.connection.clone(),
            resolved.database.clone(),
            resolved.collection.clone(),
            entry.objects.clone(),
            entry.is_for_all_tenants(),
        );
        let mut open = open.lock();
        if let Some(workers) = open.by_key.get(&key) {
            return Ok(Arc::clone(workers));
        }
        let settings = Settings {
            map: config.collection_maps.get(&resolved.collection).cloned().unwrap_or_default(),
            inline_max_bytes: config.inline_max_bytes,
            versioning: config.versioning && !inline,
            inline,
            logical_delete: config.logical_delete,
            hard_delete: config.hard_delete_enabled(),
            update_mode: config.update_mode,
            transactions: config.transactions,
            // What is whole in the head needs no copy there.
            shadow: config.shadow().filter(|_| !inline),
            writes: config.write_optimization,
            retention: config.retention,
            rollup: config.rollup,
            rules: rules.clone(),
            says_tenant: entry.is_for_all_tenants(),
        };
        let space = entry.objects.as_ref().map(|space| self.space(space));
        let names = Names::new(&resolved.database, &resolved.collection);
        let number = next_number.fetch_add(1, Ordering::Relaxed);
        let workers = Workers::new(number, names, documents, space, settings, env.clone(), cache.clone());
        open.add(key, Arc::clone(&workers));
        Ok(workers)
    }

    fn space(&self, space: &ObjectSpace) -> ObjectBuckets {
        // Not the whole of `self`, which owns the workers that own this.
        let (pool, config, wrap, of) = (
            Arc::clone(&self.inner.buckets),
            self.inner.config.clone(),
            self.inner.wrap_objects.clone(),
            space.clone(),
        );
        let storage = space.connection.clone().unwrap_or_else(|| "local".to_owned());
        let meters = StorageMeters::new(&self.inner.env.telemetry, &storage);
        let open: OpenBucket = Arc::new(move |bucket| {
            let objects = pool.objects(&config, &of, bucket)?;
            let objects = match &wrap {
                Some(wrap) => wrap(objects),
                None => objects,
            };
            Ok(Arc::new(ObservedObjects::new(objects, meters.clone())))
        });
        ObjectBuckets {
            json: space.buckets.json.clone(),
            content: space.buckets.content.clone(),
            backups: space.buckets.backups.clone(),
            storage,
            open,
        }
    }

    /// Waits for what is in flight, stores what waits, and closes every client, within 10 s; see
    /// [`shutdown_within`](Self::shutdown_within).
    ///
    /// # Errors
    /// As [`shutdown_within`](Self::shutdown_within).
    pub async fn shutdown(&self) -> Result<()> {
        self.shutdown_within(SHUTDOWN_LIMIT).await.map(drop)
    }

    /// Waits for what is in flight, stores what waits, and closes every client, within `limit`. What is not
    /// stored by then is left to the next process that writes the collection, or to a worker: returns how
    /// many versions of which collections, and logs it.
    ///
    /// # Errors
    /// `TXN_ERROR` if a store fails, or did not close in time; everything that can be closed is.
    pub async fn shutdown_within(&self, limit: Duration) -> Result<Vec<LeftBehind>> {
        let clock = &self.inner.env.clock;
        let end = clock.now().plus(limit);
        let open: Vec<_> = self.inner.open.lock().by_key.drain().map(|(_, workers)| workers).collect();
        let counts = futures::future::join_all(open.iter().map(|workers| workers.finish(limit))).await;
        let left = open.iter().zip(counts).filter(|(_, versions)| *versions > 0);
        let left: Vec<LeftBehind> =
            left.map(|(workers, versions)| LeftBehind::new(&workers.index.names, versions)).collect();
        for LeftBehind { database, collection, versions } in &left {
            tracing::warn!(%database, %collection, versions, "versions are left to be stored by the next process that writes the collection");
        }
        self.inner.messaging.lock().clear();
        let documents = self.inner.documents.take();
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

#[cfg(all(test, feature = "embedded"))]
mod tests {
    use super::*;
    use crate::config::Database;
    use crate::open::MAX_IDLE;

    #[test]
    fn collections_that_nobody_uses_do_not_pile_up() {
        let config = Config::builder()
            .connection("here", "embedded::memory:")
            .database(Database::runtime("acme", "here", "acme"));
        let chronos = Chronos::open(config.build().unwrap()).unwrap();
        let open =
            |n: usize| chronos.with(Route::runtime().tenant("acme").collection(format!("c{n}"))).unwrap();
        let used: Vec<_> = (0..10).map(open).collect();
        for n in 10..10 * MAX_IDLE {
            open(n);
        }
        let open = chronos.inner.open.lock();
        assert!(open.by_key.len() <= MAX_IDLE + 1, "{} are open", open.by_key.len());
        assert!(
            used.iter().all(|collection| open.by_key.keys().any(|key| key.2 == collection.name())),
            "those in use stay"
        );
    }
}

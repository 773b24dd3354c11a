//! The handle of one collection.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::fallback::queue::FallbackRoute;
use crate::projections::analytics_db::Analytics;
use crate::records::entities::EntityMapping;
use crate::records::index::scope::Scope;
use crate::records::storage::flush::FlushReport;
use crate::records::storage::gc::Collected;
use crate::records::workers::Workers;
use crate::route::sharing::Tenancy;
use crate::telemetry::{Observed, Operation, Subject};
use crate::{Error, Result, Route};

/// Opens further collections of the same configuration.
pub(crate) trait Opens: Send + Sync {
    /// The collection a route leads to.
    fn open(self: Arc<Self>, route: Route) -> Result<Collection>;

    /// Itself, for those above the records who know what it is.
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

/// The way to a collection, from which that to others follows.
pub(crate) struct Origin {
    pub(crate) route: Arc<Route>,
    /// Not kept alive by its collections.
    pub(crate) opens: Weak<dyn Opens>,
}

/// One collection of records in one database, as [`Chronos::with`](crate::Chronos::with) resolved it. Cheap
/// to clone.
///
/// Every method begins an action: a builder that runs when it is awaited.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> chronos_db::Result<()> {
/// use chronos_db::{Chronos, Route, config::Config};
/// use serde_json::json;
/// # let dir = tempfile::tempdir().unwrap();
/// let chronos = Chronos::open(Config::embedded(dir.path()))?;
/// let users = chronos.with(Route::runtime().tenant("default").collection("users"))?;
///
/// let user = users.create(json!({"email": "a@example.org"})).actor("signup").await?;
/// users.update(&user.id, json!({"status": "verified"})).expect_ov(0).reason("email verified").await?;
///
/// let then = users.get(&user.id).version(0).await?.unwrap();
/// assert_eq!(then.document(), json!({"email": "a@example.org"}));
/// # chronos.shutdown().await
/// # }
/// ```
#[derive(Clone)]
pub struct Collection {
    pub(crate) workers: Arc<Workers>,
    /// Whose documents this handle sees.
    pub(crate) tenancy: Tenancy,
    /// Where it is counted.
    pub(crate) analytics: Analytics,
    /// Where writes wait that fail in a way that passes.
    pub(crate) fallback: Option<FallbackRoute>,
    /// The subject under which its operations are measured and logged.
    pub(crate) subject: Arc<Subject>,
    /// From where it was opened; none for a worker's handle, which leads to no other collection.
    pub(crate) origin: Option<Arc<Origin>>,
}

/// Which collection it is.
impl fmt::Debug for Collection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (database, name) = (self.database(), self.name());
        f.debug_struct("Collection")
            .field("database", &database)
            .field("name", &name)
            .field("tenancy", &self.tenancy)
            .finish()
    }
}

impl Collection {
    /// Which documents this handle sees and changes; decided when it is first used.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if it is of a database that all tenants share, and neither names one nor says that it
    /// is for all of them.
    pub(crate) async fn scope(&self) -> Result<&Scope> {
        let scope = self.tenancy.scope().await?;
        let says_whose =
            *scope != Scope::All || self.origin.as_ref().is_none_or(|origin| origin.route.cross_tenant);
        if self.workers.index.settings.says_tenant && !says_whose {
            return Err(Error::validation(
                "all tenants share this database: name the tenant (`tenantId`, `--tenant`), or say that all are meant (`crossTenant`, `--cross-tenant`)",
            )
            .in_collection(self.name()));
        }
        Ok(scope)
    }

    /// The same for what keeps the store in order and shows nothing of any tenant.
    pub(crate) async fn upkeep_scope(&self) -> Result<&Scope> {
        self.tenancy.scope().await
    }

    /// The collection of an entity of this one's records.
    pub(crate) fn related(&self, mapping: &EntityMapping) -> Result<Self> {
        let origin = self.origin.as_deref();
        let opened = origin.and_then(|origin| Some((origin.opens.upgrade()?, &*origin.route)));
        let (opens, route) = opened.ok_or_else(|| {
            Error::validation("the collection's `Chronos` is gone, so it leads to no other collection")
        })?;
        opens.open(mapping.route(route))
    }

    /// Begins to watch an operation on it.
    pub(crate) fn observed(&self, operation: Operation) -> Observed {
        Observed::new(operation, &self.subject)
    }

    /// Returns the collection's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.workers.index.names.collection
    }

    /// Returns the name of the database the route led to.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.workers.index.names.head.database
    }

    /// Returns whether anything was ever written to the collection, of what this handle sees: deleted and
    /// erased items count. A collection comes into being with its first item, so a misspelt name is one of a
    /// collection that does not exist.
    ///
    /// # Errors
    /// `TXN_ERROR` if the store fails.
    pub async fn exists(&self) -> Result<bool> {
        self.workers.index.holds_any(self.upkeep_scope().await?).await
    }

    /// Whether a worker may have anything to do for it.
    pub(crate) async fn needs_upkeep(&self) -> Result<bool> {
        self.workers.index.needs_upkeep(self.upkeep_scope().await?).await
    }

    /// Returns the newest collection version below which nothing is missing and nothing changes any more; −1
    /// while the collection is empty. Tenants that share a database also share the numbers of a collection:
    /// for each of them, those of the others are gaps.
    ///
    /// # Errors
    /// `TXN_ERROR` if the store fails.
    pub async fn stable_cv(&self) -> Result<i64> {
        self.workers.watermark.stable_cv().await
    }

    /// Waits until every committed version is stored, or `limit` has passed. Says what still waits, and why;
    /// in a database that tenants share, of this one's.
    ///
    /// # Errors
    /// `TXN_ERROR` if the store fails. A failing object storage is not an error here: what it didn't take is
    /// counted and named.
    pub async fn flush(&self, limit: Duration) -> Result<FlushReport> {
        self.workers.flush(limit, false, self.upkeep_scope().await?).await
    }

    /// Waits until the versions that this process has committed are stored, or `limit` has passed; what
    /// others committed is not waited for. Says what still waits, of others too.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub async fn flush_local(&self, limit: Duration) -> Result<FlushReport> {
        self.workers.flush(limit, true, self.upkeep_scope().await?).await
    }

    /// Makes sure that lists by `property` are served by an index. Declared properties have theirs already.
    ///
    /// # Errors
    /// `TXN_ERROR` if the store fails.
    pub async fn ensure_index(&self, property: &str) -> Result<()> {
        self.workers.schema.ensure_property(property, self.upkeep_scope().await?).await
    }

    /// Removes objects of large payloads whose commit never came, if they were begun at least `age` ago by
    /// the store's time, and looks once more for objects of items that were erased a day ago or earlier. Keep
    /// `age` above an hour: younger ones may belong to a write under way, which then has to store them anew.
    ///
    /// # Errors
    /// `TXN_ERROR` or `STORAGE_ERROR` if a store fails; calling it again goes on.
    pub async fn collect_orphans(&self, age: Duration) -> Result<Collected> {
        self.workers.collector.collect_orphans(age, self.upkeep_scope().await?).await
    }
}

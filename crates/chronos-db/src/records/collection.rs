//! The handle of one collection.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::actions::{
    Create, Delete, Enrich, Get, Given, History, Import, List, Lock, Replace, Restore, RestoreCollection,
    SmartInsert, Update, Verify,
};
use super::engine::Engine;
use super::flush::FlushReport;
use super::gc::Collected;
use super::model::ItemId;
use super::scope::Scope;
use super::typed::TypedCollection;
use crate::Result;
use crate::route::sharing::Tenancy;

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
    pub(crate) engine: Arc<Engine>,
    /// Whose documents this handle sees.
    pub(crate) tenancy: Tenancy,
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
    pub(crate) async fn scope(&self) -> Result<&Scope> {
        self.tenancy.scope().await
    }

    /// The collection's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.engine.names.collection
    }

    /// The database the route led to.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.engine.names.head.database
    }

    /// Whether anything was ever written to the collection, of what this handle sees: deleted and erased
    /// items count. A collection comes into being with its first item, so a name that was misspelt is one of
    /// a collection that does not exist.
    ///
    /// # Errors
    /// `TXN_ERROR` if the store fails.
    pub async fn exists(&self) -> Result<bool> {
        self.engine.holds_any(self.scope().await?).await
    }

    /// This collection with documents of one type: reads give `T`, writes take `&T`.
    #[must_use]
    pub fn typed<T>(&self) -> TypedCollection<T> {
        TypedCollection::new(self.clone())
    }

    /// Creates an item from anything that is `Serialize`: a type of yours, `serde_json::json!`, a
    /// [`Json`](crate::Json) with exact numbers. A `_system` in the document is ignored.
    pub fn create(&self, document: impl Serialize) -> Create {
        Create::new(self, Given::new(&document))
    }

    /// Merges top-level fields into the current document (or replaces it, where the configuration's
    /// `updateMode` says so).
    pub fn update(&self, id: &ItemId, fields: impl Serialize) -> Update {
        Update::new(self, *id, Given::new(&fields))
    }

    /// Replaces the whole document.
    pub fn replace(&self, id: &ItemId, document: impl Serialize) -> Replace {
        Replace::new(self, *id, Given::new(&document))
    }

    /// Deletes the item: it disappears from reads, its versions stay. Where `logicalDelete` is off, it and
    /// all its versions are erased.
    pub fn delete(&self, id: &ItemId) -> Delete {
        Delete::new(self, *id)
    }

    /// Merges a patch (an object) or several (an array of objects) deeply into the document, as one version;
    /// see [`merge`](crate::merge).
    pub fn enrich(&self, id: &ItemId, patches: impl Serialize) -> Enrich {
        Enrich::new(self, *id, Given::new(&patches))
    }

    /// Enriches the live item whose properties `unique_keys` equal the document's, or creates it. Concurrent
    /// calls create one item.
    pub fn smart_insert(&self, document: impl Serialize, unique_keys: &[&str]) -> SmartInsert {
        SmartInsert::new(self, Given::new(&document), unique_keys)
    }

    /// Reads one item: the latest version, one by number, or the one of a time.
    pub fn get(&self, id: &ItemId) -> Get {
        Get::new(self, *id)
    }

    /// Lists items: filter, sort, pages, now or as of a time.
    pub fn list(&self) -> List {
        List::new(self)
    }

    /// The versions of one item.
    pub fn history(&self, id: &ItemId) -> History {
        History::new(self, *id)
    }

    /// Restores one item to an earlier version, as a new one. A deleted item comes back.
    pub fn restore(&self, id: &ItemId) -> Restore {
        Restore::new(self, *id)
    }

    /// Restores every item to its state at a time or a collection version.
    pub fn restore_collection(&self) -> RestoreCollection {
        RestoreCollection::new(self)
    }

    /// Takes the lease of an item: other writers wait, then get `LOCKED`.
    pub fn lock(&self, id: &ItemId) -> Lock {
        Lock::new(self, *id)
    }

    /// Checks the index against the objects.
    pub fn verify(&self) -> Verify {
        Verify::new(self)
    }

    /// Imports a log of changes in which items are known by a property.
    pub fn import(&self, key_property: &str) -> Import {
        Import::new(self, key_property)
    }

    /// The newest collection version below which nothing is missing and nothing changes any more; −1 while
    /// the collection is empty. Tenants that share a database also share the numbers of a collection: for
    /// each of them, those of the others are gaps.
    ///
    /// # Errors
    /// `TXN_ERROR` if the store fails.
    pub async fn stable_cv(&self) -> Result<i64> {
        self.engine.stable_cv().await
    }

    /// Waits until every committed version is stored, or `limit` has passed. Says what still waits, and why;
    /// in a database that tenants share, of this one's.
    ///
    /// # Errors
    /// `TXN_ERROR` if the store fails. A failing object storage is no error here: what it didn't take is
    /// counted and named.
    pub async fn drain(&self, limit: Duration) -> Result<FlushReport> {
        self.engine.drain_flusher(limit, false, self.scope().await?).await
    }

    /// Waits until the versions that this process has committed are stored, or `limit` has passed; what
    /// others committed is not waited for. Says what still waits, of others too.
    ///
    /// # Errors
    /// As [`drain`](Self::drain).
    pub async fn settle(&self, limit: Duration) -> Result<FlushReport> {
        self.engine.drain_flusher(limit, true, self.scope().await?).await
    }

    /// Makes sure that lists by `property` are served by an index. Declared properties have theirs already.
    ///
    /// # Errors
    /// `TXN_ERROR` if the store fails.
    pub async fn ensure_index(&self, property: &str) -> Result<()> {
        self.engine.ensure_property(property, self.scope().await?).await
    }

    /// Removes objects of large payloads whose commit never came, if they were begun at least `age` ago by
    /// the store's time, and looks once more for objects of items that were erased a day ago or earlier. Keep
    /// `age` above an hour: younger ones may belong to a write under way, which then has to store them anew.
    ///
    /// # Errors
    /// `TXN_ERROR` or `STORAGE_ERROR` if a store fails; calling it again goes on.
    pub async fn collect_orphans(&self, age: Duration) -> Result<Collected> {
        self.engine.collect_orphans(age, self.scope().await?).await
    }

    /// Where `versioning` is off: removes version rows, and the objects of superseded versions, that were
    /// written at least `grace` ago. Keep `grace` above a minute: younger rows still decide races. Returns
    /// how many rows went; 0 where versions are kept.
    ///
    /// # Errors
    /// `TXN_ERROR` or `STORAGE_ERROR` if a store fails; calling it again goes on.
    pub async fn trim(&self, grace: Duration) -> Result<u64> {
        if self.engine.settings.versioning {
            Ok(0)
        } else {
            self.engine.trim(grace, self.scope().await?).await
        }
    }
}

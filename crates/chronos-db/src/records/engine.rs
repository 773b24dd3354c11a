//! One collection of records, opened once per [`Chronos`](crate::Chronos) and shared by all its handles.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use moka::sync::Cache;
use tokio::sync::OnceCell;

use super::batcher::Batcher;
use super::buckets::NotedBucket;
use super::commit::{CommitQueue, Past};
use super::flush::Flusher;
use super::indexing::plain;
use super::model::{Head, ItemId, Names, Op, Row};
use super::rules::PayloadRules;
use super::scope::{Scope, by_tenant};
use crate::config::{CollectionMap, DevShadow, UpdateMode};
use crate::documents::filter::Test;
use crate::documents::{Direction, DocumentStore, Filter, Guard, Index, Scan, Write};
use crate::objects::ObjectStorage;
use crate::{Env, Error, ErrorKind, Result};

/// The sequence of a collection's `cv` in its counter collection, and the mark below which it is without
/// gaps.
pub(crate) const CV: &str = "cv";
pub(crate) const STABLE: &str = "stable";

/// Latest payloads by collection, item and version, bounded in bytes.
pub(crate) type PayloadCache = Cache<(u64, ItemId, i64), Bytes>;

/// Opens a bucket by name.
pub(crate) type OpenBucket = Arc<dyn Fn(&str) -> Result<Arc<dyn ObjectStorage>> + Send + Sync>;

/// Where the objects of a collection lie.
#[derive(Clone)]
pub(crate) struct Space {
    pub(crate) json: String,
    pub(crate) content: String,
    /// The reference of the storage connection: buckets of one name in two storages are two buckets.
    pub(crate) storage: String,
    pub(crate) open: OpenBucket,
}

impl fmt::Debug for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Space")
            .field("json", &self.json)
            .field("content", &self.content)
            .finish_non_exhaustive()
    }
}

/// What the configuration says about every collection of the engine's kind.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) map: CollectionMap,
    pub(crate) inline_max_bytes: usize,
    pub(crate) versioning: bool,
    pub(crate) logical_delete: bool,
    pub(crate) update_mode: UpdateMode,
    pub(crate) shadow: Option<DevShadow>,
    pub(crate) rules: PayloadRules,
    /// Handles of one tenant and handles of all tenants lead here, as to logs: lists of both need their
    /// indexes, whichever writes.
    pub(crate) all_and_one: bool,
}

pub(crate) struct Engine {
    /// Tells collections apart in the shared cache.
    pub(crate) number: u64,
    pub(crate) names: Names,
    pub(crate) documents: Arc<dyn DocumentStore>,
    pub(crate) space: Option<Space>,
    pub(crate) settings: Settings,
    pub(crate) env: Env,
    pub(crate) cache: PayloadCache,
    pub(crate) heads: Arc<Batcher>,
    pub(crate) locks: Arc<Batcher>,
    pub(crate) commits: CommitQueue,
    pub(crate) flusher: Flusher,
    pub(crate) turns: Turns,
    pub(crate) past: Past,
    /// Which buckets are known to be noted.
    noted: Mutex<HashMap<String, Arc<AtomicBool>>>,
    ready: OnceCell<()>,
    /// The indexes of lists: over all documents, and within each tenant.
    lists: OnceCell<()>,
    tenant_lists: OnceCell<()>,
    /// The scopes of the handles that use this, if tenants meet here.
    served: Mutex<Vec<Scope>>,
    /// Unique keys of smart inserts whose index is there.
    pub(crate) unique_indexes: Mutex<HashSet<String>>,
    /// Notes of own properties with short names (see `own.rs`) that are there.
    pub(crate) own_noted: Mutex<HashSet<String>>,
    /// The note of index entries that lack something (see `missing.rs`) is there.
    pub(crate) missing_noted: AtomicBool,
}

/// Which collection it is. The rest holds documents of whoever uses it.
impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Names { head, collection, .. } = &self.names;
        f.debug_struct("Engine")
            .field("database", &head.database)
            .field("collection", collection)
            .finish_non_exhaustive()
    }
}

impl Engine {
    pub(crate) fn new(
        number: u64,
        names: Names,
        documents: Arc<dyn DocumentStore>,
        space: Option<Space>,
        settings: Settings,
        env: Env,
        cache: PayloadCache,
    ) -> Arc<Self> {
        Arc::new(Self {
            number,
            heads: Batcher::new(Arc::clone(&documents), names.head.clone()),
            locks: Batcher::new(Arc::clone(&documents), names.locks.clone()),
            names,
            documents,
            space,
            settings,
            env,
            cache,
            commits: CommitQueue::default(),
            flusher: Flusher::default(),
            turns: Turns::default(),
            past: Past::default(),
            noted: Mutex::default(),
            ready: OnceCell::new(),
            lists: OnceCell::new(),
            tenant_lists: OnceCell::new(),
            served: Mutex::default(),
            unique_indexes: Mutex::default(),
            own_noted: Mutex::default(),
            missing_noted: AtomicBool::default(),
        })
    }

    /// Before the first write: the indexes that decide every race, and the mark of a collection that others
    /// began. From here on this process also stores what another left unstored.
    pub(crate) async fn ensure(self: &Arc<Self>, scope: &Scope) -> Result<()> {
        self.serve(scope);
        if !self.ready.initialized() {
            self.ready.get_or_try_init(|| self.prepare()).await?;
            // What a process that died left to store is stored by the next one that writes.
            self.flush_leftovers();
        }
        let (all, each) = self.views(scope);
        if all {
            self.lists
                .get_or_try_init(|| async {
                    self.documents.ensure(&self.names.head, &self.list_indexes()).await
                })
                .await?;
        }
        if each {
            self.tenant_lists.get_or_try_init(|| self.prepare_tenants()).await?;
        }
        Ok(())
    }

    /// Notes that a handle of this scope is used.
    pub(crate) fn serve(&self, scope: &Scope) {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        if !served.contains(scope) {
            served.push(scope.clone());
        }
    }

    /// The filter, of documents that some handle of this sees. Tenants that meet in one database may have
    /// their objects in different places; what one of them left to store, or to remove, is the business of
    /// who opens that place.
    pub(crate) fn of_served(&self, filter: Filter) -> Filter {
        let served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        match served.as_slice() {
            // Where nobody else comes, the index alone finds them.
            several if !several.iter().any(Scope::is_one_of_several) || several.contains(&Scope::All) => {
                filter
            }
            several => {
                Filter::Or(several.iter().map(|scope| scope.narrow(Filter::All)).collect()).and(filter)
            }
        }
    }

    /// Whether lists over all documents have to be served by indexes, and lists within one tenant.
    fn views(&self, scope: &Scope) -> (bool, bool) {
        let one = scope.is_one_of_several();
        (!one || self.settings.all_and_one, one || self.settings.all_and_one)
    }

    fn list_indexes(&self) -> Vec<Index> {
        list_indexes(self.settings.map.indexed.iter().map(String::as_str))
    }

    async fn prepare_tenants(&self) -> Result<()> {
        self.documents.ensure(&self.names.head, &tenant_list_indexes(self.list_indexes())).await?;
        // The unique indexes over rows decide races of everybody, as a collection's numbers are everybody's;
        // this one is for who verifies one tenant.
        self.documents
            .ensure(&self.names.ver, &[by_tenant(Index::on("ver_item_ov", &["itemId", "ov"]))])
            .await
    }

    async fn prepare(&self) -> Result<()> {
        if let Err(error) = self.documents.ensure(&self.names.ver, &version_indexes()).await {
            return Err(self.explain_duplicates(error).await);
        }
        let found = self.documents.get(&self.names.counter, vec![CV.into(), STABLE.into()]).await?;
        let value = |id: &str| {
            found
                .iter()
                .find(|doc| doc.get_str("_id").ok() == Some(id))
                .map(|doc| super::model::number(doc, "value"))
        };
        if value(STABLE).is_none() && value(CV).is_none() {
            let mut batch = crate::documents::Batch::new();
            batch.push(&self.names.counter, Write::insert(bson::doc! { "_id": super::own::KEPT }));
            self.documents.apply(batch).await?;
        }
        match (value(STABLE).flatten(), value(CV).flatten()) {
            // A counter without a mark was kept by the originals: what they left is not gapless, and is never
            // touched again.
            (None, counter) => self.move_mark(counter.unwrap_or(-1)).await?,
            // Nothing at or below the mark ever changes, so no number there is given out any more.
            (Some(mark), counter) if mark > counter.unwrap_or(-1) => {
                self.raise(CV, mark).await?;
                self.void(&(counter.unwrap_or(-1) + 1..=mark).collect::<Vec<_>>()).await?;
            }
            _ => {}
        }
        Ok(())
    }

    /// The originals could leave several rows of one version behind: such a collection can be read, but not
    /// written.
    async fn explain_duplicates(&self, error: Error) -> Error {
        // What another kind of index has let in is seen only once ours can be made.
        if error.is_retryable() || error.kind() != ErrorKind::Database {
            return error;
        }
        match self.duplicate_version().await {
            Ok(Some((id, ov))) => Error::database(format!(
                "version {ov} of this item has several rows, as the original library could leave behind; the collection is read-only until \
                 `chronos migrate` has set the surplus rows aside"
            ))
            .on_item(id)
            .at_version(ov)
            .caused_by(error),
            Ok(None) | Err(_) => error,
        }
    }

    async fn duplicate_version(&self) -> Result<Option<(ItemId, i64)>> {
        let scan = Scan {
            order: ["itemId", "ov", "_id"].map(|path| (path.to_owned(), Direction::Ascending)).to_vec(),
            without: ["inline", "riders", "metaIndexed", "refs"].map(str::to_owned).to_vec(),
            ..Scan::default()
        };
        let mut rows = self.scan_rows(scan);
        let mut previous = None;
        while let Some(row) = rows.try_next().await? {
            let version = Some((row.id, row.ov));
            if version == previous {
                return Ok(version);
            }
            previous = version;
        }
        Ok(None)
    }

    pub(crate) async fn move_mark(&self, mark: i64) -> Result<()> {
        self.raise(STABLE, mark).await
    }

    /// Takes a number of the counter collection to `value`, if it is less.
    pub(crate) async fn raise(&self, name: &str, value: i64) -> Result<()> {
        let document = bson::doc! { "_id": name, "value": value };
        let mut batch = crate::documents::Batch::new();
        batch.push(&self.names.counter, Write::put(document, Guard::Newer { field: "value".into() }));
        self.documents.apply(batch).await?;
        Ok(())
    }

    /// Makes sure that an index over a property exists.
    pub(crate) async fn ensure_property(self: &Arc<Self>, path: &str, scope: &Scope) -> Result<()> {
        self.ensure(scope).await?;
        let (all, each) = self.views(scope);
        let index = property_index(path);
        let each = each.then(|| by_tenant(index.clone()));
        let indexes: Vec<Index> = all.then_some(index).into_iter().chain(each).collect();
        self.documents.ensure(&self.names.head, &indexes).await
    }

    pub(crate) async fn head(&self, id: ItemId) -> Result<Option<Head>> {
        self.heads.get(id.object_id()).await?.map(|stored| Head::read(&stored)).transpose()
    }

    pub(crate) async fn heads(&self, ids: &[ItemId]) -> Result<HashMap<ItemId, Head>> {
        let found =
            self.documents.get_stored(&self.names.head, ids.iter().map(|id| id.bson()).collect()).await?;
        found.iter().map(|stored| Head::read(stored).map(|head| (head.id, head))).collect()
    }

    /// Whether there is any item that `scope` sees.
    pub(crate) async fn holds_any(&self, scope: &Scope) -> Result<bool> {
        let version = Filter::Field("op".into(), Test::Ne(Op::Void.as_str().into()));
        // Of a first write that was interrupted there may be a row alone.
        for (namespace, filter, large) in
            [(&self.names.head, Filter::All, "fullShadow"), (&self.names.ver, version, "inline")]
        {
            let scan = Scan {
                filter: scope.narrow(filter),
                limit: Some(1),
                without: vec![large.into()],
                ..Scan::default()
            };
            if self.documents.scan_stored(namespace, scan).try_next().await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The row of one version.
    pub(crate) async fn row(&self, id: ItemId, ov: i64) -> Result<Option<Row>> {
        let filter = Filter::eq("itemId", id.bson()).and(Filter::eq("ov", super::model::int(ov)));
        self.first_row(Scan { filter, limit: Some(1), ..Scan::default() }).await
    }

    pub(crate) async fn first_row(&self, scan: Scan) -> Result<Option<Row>> {
        self.scan_rows(scan).try_next().await
    }

    pub(crate) fn scan_heads(&self, scan: Scan) -> BoxStream<'static, Result<Head>> {
        self.documents.scan_stored(&self.names.head, scan).map(|stored| Head::read(&stored?)).boxed()
    }

    pub(crate) fn scan_rows(&self, scan: Scan) -> BoxStream<'static, Result<Row>> {
        self.documents.scan_stored(&self.names.ver, scan).map(|stored| Row::read(&stored?)).boxed()
    }

    pub(crate) fn cached(&self, id: ItemId, ov: i64) -> Option<Bytes> {
        self.cache.get(&(self.number, id, ov))
    }

    pub(crate) fn remember(&self, id: ItemId, ov: i64, bytes: &Bytes) {
        // One large payload must not push out hundreds of small ones.
        if bytes.len() <= 1024 * 1024 {
            self.cache.insert((self.number, id, ov), bytes.clone());
        }
    }

    pub(crate) fn bucket(&self, name: &str) -> Result<Arc<dyn ObjectStorage>> {
        match &self.space {
            Some(space) => {
                let noted = Arc::clone(
                    self.noted
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .entry(name.to_owned())
                        .or_default(),
                );
                let (inner, documents) = ((space.open)(name)?, Arc::clone(&self.documents));
                let note = format!("{}/{name}", space.storage);
                Ok(Arc::new(NotedBucket::new(inner, documents, &self.names.head.database, note, noted)))
            }
            None => Err(Error::storage(format!(
                "the payload lies in bucket `{name}`, but this database has no object storage configured"
            ))),
        }
    }
}

/// The indexes of lists over all documents, by declared properties too.
fn list_indexes<'p>(declared: impl Iterator<Item = &'p str>) -> Vec<Index> {
    // One for each order that every list has.
    let orders =
        ["updatedAt", "createdAt", "cv", "ov"].map(|path| Index::on(&format!("head_{path}"), &[path, "_id"]));
    // And one of the few whose properties had no room in the index.
    let incomplete = Index::on("head_incomplete", &["notIndexed", "_id"]).only_if_exists("notIndexed");
    orders.into_iter().chain(declared.map(property_index)).chain([incomplete]).collect()
}

/// The same within each tenant.
fn tenant_list_indexes(lists: Vec<Index>) -> Vec<Index> {
    // By id alone too: without a filter and a sort that is a list's order.
    std::iter::once(Index::on("head_id", &["_id"])).chain(lists).map(by_tenant).collect()
}

/// What heads have where all their documents are seen together.
#[cfg(all(test, feature = "embedded"))]
pub(crate) fn indexes_of_heads(declared: &[&str]) -> Vec<Index> {
    list_indexes(declared.iter().copied())
}

/// What heads have where tenants share a collection.
#[cfg(all(test, feature = "embedded"))]
pub(crate) fn tenant_indexes_of_heads(declared: &[&str]) -> Vec<Index> {
    tenant_list_indexes(list_indexes(declared.iter().copied()))
}

/// The indexes of `<c>_ver`.
pub(crate) fn version_indexes() -> [Index; 5] {
    [
        Index::on("ver_item_ov", &["itemId", "ov"]).unique(),
        Index::on("ver_cv", &["cv"]).unique(),
        Index::on("ver_item_at", &["itemId", "at"]),
        Index::on("ver_item_cv", &["itemId", "cv"]),
        // In the order in which the flusher takes what waits. (`ver_unflushed` of older versions was over the
        // time alone.)
        Index::on("ver_waiting", &["unflushedSince", "_id"]).only_if_exists("unflushedSince"),
    ]
}

/// Lists by a property are ordered by it and the id, so one index serves filter, order and cursor.
fn property_index(path: &str) -> Index {
    let stored = format!("metaIndexed.{}", plain(path));
    Index::on(&format!("meta_{}", plain(path)), &[&stored, "_id"])
}

/// Writers of one item in this process take turns, since only one of them could win anyway.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<ItemId, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    pub(crate) async fn take(&self, id: ItemId) -> Turn<'_> {
        let lock = Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default());
        // Made before the wait, so that who gives up waiting leaves nothing behind.
        let mut turn = Turn { turns: self, id, lock, held: None };
        turn.held = Some(Arc::clone(&turn.lock).lock_owned().await);
        turn
    }
}

#[derive(Debug)]
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    id: ItemId,
    lock: Arc<tokio::sync::Mutex<()>>,
    held: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.held.take();
        let mut turns = self.turns.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The map's and this one: nobody else waits.
        if Arc::strong_count(&self.lock) == 2 {
            turns.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_gives_up_waiting_for_a_turn_leaves_nothing_behind() {
        let turns = Turns::default();
        let id = ItemId::new(bson::oid::ObjectId::new());
        let held = turns.take(id).await;
        let mut waiting = Box::pin(turns.take(id));
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        drop(held);
        // It has its turn, and never takes it.
        drop(waiting);
        assert!(turns.0.lock().unwrap().is_empty());
        drop(turns.take(id).await);
        assert!(turns.0.lock().unwrap().is_empty());
    }
}

//! What has to be there before the first write: the indexes of the store, and the marks of the numbers.

use std::sync::Arc;

use futures::TryStreamExt as _;
use tokio::sync::OnceCell;

use crate::documents::{Batch, Direction, Index, Scan, Write};
use crate::records::document::indexing::plain;
use crate::records::index::own_names::KEPT;
use crate::records::index::scope::{Scope, by_tenant};
use crate::records::index::{CV, RESTORING, RecordIndex, STABLE, is_restore_under_way, without_content};
use crate::records::model::ItemId;
use crate::records::storage::expire::SHADOW_AT;
use crate::records::storage::flush::Flusher;
use crate::{Error, ErrorKind, Result};

/// Prepares the store for one collection, once.
pub(crate) struct Schema {
    index: Arc<RecordIndex>,
    flusher: Arc<Flusher>,
    ready: OnceCell<()>,
    /// The indexes of lists: over all documents, and within each tenant.
    lists: OnceCell<()>,
    tenant_lists: OnceCell<()>,
}

impl Schema {
    pub(crate) fn new(index: Arc<RecordIndex>, flusher: Arc<Flusher>) -> Self {
        Self { index, flusher, ready: OnceCell::new(), lists: OnceCell::new(), tenant_lists: OnceCell::new() }
    }

    /// Before the first write: the indexes that decide every race, and the mark of a collection that others
    /// began. From here on this process also stores what another left unstored.
    pub(crate) async fn ensure(&self, scope: &Scope) -> Result<()> {
        self.index.serve(scope);
        if !self.ready.initialized() {
            self.ready.get_or_try_init(|| self.prepare()).await?;
            // What a process that died left to store is stored by the next one that writes.
            self.flusher.resume_unflushed();
        }
        self.ensure_lists(scope).await
    }

    /// The indexes alone: for a restore of a backup, which takes the numbers from there.
    pub(crate) async fn ensure_indexes(&self, scope: &Scope) -> Result<()> {
        self.index.serve(scope);
        self.index.documents.ensure(&self.index.names.ver, &version_indexes()).await?;
        self.ensure_lists(scope).await
    }

    async fn ensure_lists(&self, scope: &Scope) -> Result<()> {
        let (all, each) = self.views(scope);
        if all {
            self.lists
                .get_or_try_init(|| async {
                    self.index.documents.ensure(&self.index.names.head, &self.list_indexes()).await
                })
                .await?;
        }
        if each {
            self.tenant_lists.get_or_try_init(|| self.prepare_tenants()).await?;
        }
        Ok(())
    }

    /// Whether lists over all documents have to be served by indexes, and lists within one tenant.
    fn views(&self, scope: &Scope) -> (bool, bool) {
        let one = scope.is_one_of_several();
        (!one || self.index.settings.says_tenant, one || self.index.settings.says_tenant)
    }

    fn list_indexes(&self) -> Vec<Index> {
        let mut indexes = list_indexes(self.index.settings.map.indexed.iter().map(String::as_str));
        if self.index.settings.shadow.is_some() {
            indexes.extend(shadow_indexes());
        }
        indexes
    }

    async fn prepare_tenants(&self) -> Result<()> {
        self.index
            .documents
            .ensure(&self.index.names.head, &tenant_list_indexes(self.list_indexes()))
            .await?;
        // The unique indexes over rows decide races of everybody, as a collection's numbers are everybody's;
        // this one is for who verifies one tenant.
        self.index
            .documents
            .ensure(&self.index.names.ver, &[by_tenant(Index::on("ver_item_ov", &["itemId", "ov"]))])
            .await
    }

    async fn prepare(&self) -> Result<()> {
        if let Err(error) = self.index.documents.ensure(&self.index.names.ver, &version_indexes()).await {
            return Err(self.explain_duplicates(error).await);
        }
        let notes = vec![CV.into(), STABLE.into(), RESTORING.into()];
        let found = self.index.documents.get(&self.index.names.counter, notes).await?;
        if let Some(restoring) = found.iter().find(|doc| doc.get_str("_id").ok() == Some(RESTORING))
            && is_restore_under_way(restoring)
        {
            let message =
                "a backup is being restored to this collection: it can be written when that has ended";
            return Err(Error::new(ErrorKind::Locked, message).retryable());
        }
        let value = |id: &str| {
            found
                .iter()
                .find(|doc| doc.get_str("_id").ok() == Some(id))
                .map(|doc| crate::records::model::number(doc, "value"))
        };
        if value(STABLE).is_none() && value(CV).is_none() {
            let mut batch = Batch::new();
            batch.push(&self.index.names.counter, Write::insert(bson::doc! { "_id": KEPT }));
            self.index.documents.apply(batch).await?;
        }
        match (value(STABLE).flatten(), value(CV).flatten()) {
            // A counter without a mark was kept by the legacy library: what it left is not gapless, and is
            // never touched again.
            (None, counter) => self.index.advance_watermark(counter.unwrap_or(-1)).await?,
            // Nothing at or below the mark ever changes, so no number there is given out any more.
            (Some(mark), counter) if mark > counter.unwrap_or(-1) => {
                self.index.raise(CV, mark).await?;
                self.index.void(&(counter.unwrap_or(-1) + 1..=mark).collect::<Vec<_>>()).await?;
            }
            _ => {}
        }
        Ok(())
    }

    /// The legacy library could leave several rows of one version behind: such a collection can be read, but
    /// not written.
    async fn explain_duplicates(&self, error: Error) -> Error {
        // What another kind of index has let in is seen only once ours can be made.
        if error.is_retryable() || error.kind() != ErrorKind::Database {
            return error;
        }
        match self.duplicate_version().await {
            Ok(Some((id, ov))) => Error::database(format!(
                "version {ov} of this item has several rows, as the legacy library could leave behind; the collection is read-only until \
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
            without: without_content(),
            ..Scan::default()
        };
        let mut rows = self.index.scan_rows(scan);
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

    /// Makes sure that an index over a property exists.
    pub(crate) async fn ensure_property(&self, path: &str, scope: &Scope) -> Result<()> {
        self.ensure(scope).await?;
        let (all, each) = self.views(scope);
        let index = property_index(path);
        let each = each.then(|| by_tenant(index.clone()));
        let indexes: Vec<Index> = all.then_some(index).into_iter().chain(each).collect();
        self.index.documents.ensure(&self.index.names.head, &indexes).await
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

/// By which is found whose time has passed, where heads keep payloads.
fn shadow_indexes() -> [Index; 2] {
    [
        Index::on("head_shadow", &[SHADOW_AT]).only_if_exists(SHADOW_AT),
        Index::on("head_state", &["state", "updatedAt"]),
    ]
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

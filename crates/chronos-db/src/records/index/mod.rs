//! The version index of one collection: its heads, its rows, and what is noted beside them.
//!
//! `scope` says which of them a handle sees, `batcher` turns many reads of one document into few of many,
//! `roll_forward` puts the head that follows from the rows, `landed` finds what took place unseen, `own_names` and `missing` keep the notes that
//! lists go by. Nothing here knows of object storage, nor of how a version comes about.

pub(crate) mod batcher;
pub(crate) mod landed;
pub(crate) mod missing;
pub(crate) mod own_names;
pub(crate) mod roll_forward;
pub(crate) mod scope;
pub(crate) mod tenants;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bson::Document;
use bson::oid::ObjectId;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use parking_lot::Mutex;

use self::batcher::Batcher;
use self::scope::Scope;
use crate::config::{
    CollectionMap, DevShadow, Retention, Rollup, Transactions, UpdateMode, WriteOptimization,
};
use crate::documents::filter::Test;
use crate::documents::{Batch, Direction, DocumentStore, Filter, Guard, Scan, Write};
use crate::records::document::rules::VersionRules;
use crate::records::model::{Head, ItemId, Names, Op, Row, VersionSelector, int, number};
use crate::{Env, Result};

/// The sequence of a collection's `cv` in its counter collection, and the mark below which it is without
/// gaps.
pub(crate) const CV: &str = "cv";
pub(crate) const STABLE: &str = "stable";
/// The highest number of a row that has left the index, or is about to.
pub(crate) const PRUNED: &str = "pruned";
/// The highest number without a version whose row has left the index, or is about to.
pub(crate) const VOIDS: &str = "voids";
/// The note of a restore of a backup, in the same collection. Nobody else writes until it is finished.
pub(crate) const RESTORING: &str = "restoring";

/// Whether the restore that a note is about has not come to its end.
pub(crate) fn is_restore_under_way(restore_note: &Document) -> bool {
    !restore_note.get_bool("finished").unwrap_or(false)
}

/// What the configuration says about every collection of this kind.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) map: CollectionMap,
    pub(crate) inline_max_bytes: usize,
    pub(crate) versioning: bool,
    /// Inline records: whole in their heads, without versions. `versioning` is off then.
    pub(crate) inline: bool,
    pub(crate) logical_delete: bool,
    /// Whether administrators may erase items for good by `hard_delete`.
    pub(crate) hard_delete: bool,
    pub(crate) update_mode: UpdateMode,
    /// Whether changes of several items are one transaction.
    pub(crate) transactions: Transactions,
    pub(crate) shadow: Option<DevShadow>,
    pub(crate) writes: WriteOptimization,
    pub(crate) retention: Retention,
    pub(crate) rollup: Rollup,
    pub(crate) rules: VersionRules,
    /// Logs, identities and messaging: handles of one tenant and handles of all tenants lead here, so lists of
    /// both need their indexes, whichever writes, and every document says its tenant.
    pub(crate) says_tenant: bool,
}

impl Settings {
    /// How many heads are held at once: those of inline records have whole documents in them.
    pub(crate) fn heads_at_once(&self) -> usize {
        if self.inline { 8 } else { 256 }
    }
}

/// The version index of one collection.
pub(crate) struct RecordIndex {
    pub(crate) names: Names,
    pub(crate) documents: Arc<dyn DocumentStore>,
    pub(crate) settings: Settings,
    pub(crate) env: Env,
    head_reads: Arc<Batcher>,
    /// The scopes of the handles that use this, if tenants meet here.
    served: Mutex<Vec<Scope>>,
    /// Notes of own properties with short names (see `own_names`) that are there.
    own_noted: Mutex<HashSet<String>>,
    /// The note of index entries that lack something (see `missing`) is there.
    missing_noted: AtomicBool,
}

/// Which collection it is. The rest holds documents of its users.
impl fmt::Debug for RecordIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Names { head, collection, .. } = &self.names;
        f.debug_struct("RecordIndex")
            .field("database", &head.database)
            .field("collection", collection)
            .finish_non_exhaustive()
    }
}

impl RecordIndex {
    pub(crate) fn new(names: Names, documents: Arc<dyn DocumentStore>, settings: Settings, env: Env) -> Self {
        Self {
            head_reads: Batcher::new(Arc::clone(&documents), names.head.clone()),
            names,
            documents,
            settings,
            env,
            served: Mutex::default(),
            own_noted: Mutex::default(),
            missing_noted: AtomicBool::default(),
        }
    }

    /// Notes that a handle of this scope is used.
    pub(crate) fn serve(&self, scope: &Scope) {
        let mut served = self.served.lock();
        if !served.contains(scope) {
            served.push(scope.clone());
        }
    }

    /// The filter, of documents that some handle of this sees. Tenants that meet in one database may have
    /// their objects in different places; what one of them left to store, or to remove, is the business of
    /// who opens that place.
    pub(crate) fn of_served(&self, filter: Filter) -> Filter {
        let served = self.served.lock();
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

    pub(crate) async fn head(&self, id: ItemId) -> Result<Option<Head>> {
        self.head_reads.get(id.object_id()).await?.map(|stored| Head::read(&stored)).transpose()
    }

    pub(crate) async fn heads(&self, ids: &[ItemId]) -> Result<HashMap<ItemId, Head>> {
        let found =
            self.documents.get_stored(&self.names.head, ids.iter().map(|id| id.bson()).collect()).await?;
        found.iter().map(|stored| Head::read(stored).map(|head| (head.id, head))).collect()
    }

    /// Heads without what they hold.
    pub(crate) async fn bare_heads(&self, ids: &[ItemId]) -> Result<HashMap<ItemId, Head>> {
        let scan = Scan {
            filter: Filter::any_of("_id", ids.iter().map(|id| id.bson()).collect()),
            without: ["payload", "fullShadow", "metaIndexed", "refs"].map(str::to_owned).to_vec(),
            ..Scan::default()
        };
        self.scan_heads(scan).map_ok(|head| (head.id, head)).try_collect().await
    }

    /// Whether there is any item that `scope` sees.
    pub(crate) async fn holds_any(&self, scope: &Scope) -> Result<bool> {
        let version = Filter::Field("op".into(), Test::Ne(Op::Void.as_str().into()));
        // Of a first write that was interrupted there may be a row alone.
        for (namespace, filter) in [(&self.names.head, Filter::All), (&self.names.ver, version)] {
            let scan = Scan {
                filter: scope.narrow(filter),
                limit: Some(1),
                without: ["fullShadow", "payload", "inline"].map(str::to_owned).to_vec(),
                ..Scan::default()
            };
            if self.documents.scan_stored(namespace, scan).try_next().await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a worker may have anything to do for what `scope` sees: there is an item, or a note of a first
    /// write that came to nothing.
    pub(crate) async fn needs_upkeep(&self, scope: &Scope) -> Result<bool> {
        if self.holds_any(scope).await? {
            return Ok(true);
        }
        let scan = Scan { filter: scope.narrow(Filter::All), limit: Some(1), ..Scan::default() };
        Ok(self.documents.scan_stored(&self.names.gc, scan).try_next().await?.is_some())
    }

    /// The row of one version.
    pub(crate) async fn row(&self, id: ItemId, ov: i64) -> Result<Option<Row>> {
        let filter = Filter::eq("itemId", id.bson()).and(Filter::eq("ov", int(ov)));
        self.first_row(Scan { filter, limit: Some(1), ..Scan::default() }).await
    }

    /// What those of the rows are that are there, by their `_id`.
    pub(crate) async fn ops_of(&self, rows: impl Iterator<Item = ObjectId>) -> Result<HashMap<ObjectId, Op>> {
        let found = self.documents.get_stored(&self.names.ver, rows.map(Into::into).collect()).await?;
        found.iter().map(|stored| Row::read(stored).map(|row| (row.row_id, row.op))).collect()
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

    /// Takes a number of the counter collection to `value`, if it is less.
    pub(crate) async fn raise(&self, name: &str, value: i64) -> Result<()> {
        let document = bson::doc! { "_id": name, "value": value };
        let mut batch = Batch::new();
        batch.push(&self.names.counter, Write::put(document, Guard::Newer { field: "value".into() }));
        self.documents.apply(batch).await?;
        Ok(())
    }

    pub(crate) async fn advance_watermark(&self, mark: i64) -> Result<()> {
        self.raise(STABLE, mark).await
    }

    /// The newest row of the collection's item at a point, without its payload.
    pub(crate) async fn row_at(&self, id: ItemId, which: VersionSelector) -> Result<Option<Row>> {
        self.first_row(Scan { without: vec!["inline".into(), "riders".into()], ..scan_of(id, which) }).await
    }

    pub(crate) fn rows_of(&self, id: ItemId) -> BoxStream<'static, Result<Row>> {
        let scan = Scan {
            filter: Filter::eq("itemId", id.bson()),
            order: vec![("ov".into(), Direction::Ascending)],
            without: vec!["inline".into(), "riders".into()],
            ..Scan::default()
        };
        self.scan_rows(scan)
    }

    /// The last number that the counter says was given out; none if none was.
    pub(crate) async fn last_cv(&self) -> Result<Option<i64>> {
        self.number_of(CV).await
    }

    /// The note of the backup that is, or was, restored to the collection.
    pub(crate) async fn restore_note(&self) -> Result<Option<Document>> {
        Ok(self.documents.get(&self.names.counter, vec![RESTORING.into()]).await?.pop())
    }

    /// A number of the counter collection.
    pub(crate) async fn number_of(&self, name: &str) -> Result<Option<i64>> {
        let found = self.documents.get(&self.names.counter, vec![name.into()]).await?;
        Ok(found.first().and_then(|doc| number(doc, "value")))
    }

    /// Up to which version the heads of items go, without what they hold; items without a head are left out.
    pub(crate) async fn head_cvs(&self, ids: &[ItemId]) -> Result<HashMap<ItemId, i64>> {
        let scan = Scan {
            filter: Filter::any_of("_id", ids.iter().map(|id| id.bson()).collect()),
            without: ["payload", "fullShadow", "metaIndexed", "refs"].map(str::to_owned).to_vec(),
            ..Scan::default()
        };
        let heads = self.documents.scan(&self.names.head, scan).map_ok(|doc| {
            let id = doc.get_object_id("_id").ok().map(ItemId::new);
            id.zip(number(&doc, "cv"))
        });
        heads.try_filter_map(|head| async move { Ok(head) }).try_collect().await
    }

    /// The highest number that a row has.
    pub(crate) async fn highest_cv(&self) -> Result<Option<i64>> {
        let scan = Scan {
            order: vec![("cv".into(), Direction::Descending)],
            limit: Some(1),
            without: without_content(),
            ..Scan::default()
        };
        Ok(self.documents.scan(&self.names.ver, scan).try_next().await?.and_then(|doc| number(&doc, "cv")))
    }
}

/// What rows are read without where their numbers alone matter.
pub(crate) fn without_content() -> Vec<String> {
    ["inline", "riders", "metaIndexed", "refs"].map(str::to_owned).to_vec()
}

pub(crate) fn scan_of(id: ItemId, which: VersionSelector) -> Scan {
    let item = Filter::eq("itemId", id.bson());
    let (filter, by) = match which {
        VersionSelector::Latest => (item, "ov"),
        VersionSelector::Ov(ov) => (item.and(Filter::eq("ov", int(ov))), "ov"),
        VersionSelector::At(at) => (item.and(Filter::lte("at", at)), "at"),
        VersionSelector::Cv(cv) => (item.and(Filter::lte("cv", int(cv))), "cv"),
    };
    Scan { filter, order: vec![(by.into(), Direction::Descending)], limit: Some(1), ..Scan::default() }
}

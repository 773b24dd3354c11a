//! What is known of erasures, in `chronos_erasures`: counted before anything goes, certified when everything is
//! gone.
//!
//! The record of an erasure is inserted before its first removal, so of all who carry it out, one after the
//! other or at once, only the first one counts, and what it counted is still there. While something is left to
//! do it names the item; what stays of it for good is a certificate, which does not.

use std::sync::Arc;

use bson::oid::ObjectId;
use bson::{Document, doc};
use futures::stream::BoxStream;
use tokio::sync::OnceCell;

use crate::documents::{Batch, Filter, Guard, Index, Namespace, Outcome, Scan, Write};
use crate::records::index::RecordIndex;
use crate::records::index::scope::TENANT;
use crate::records::model::{ItemId, number};
use crate::{Error, Json, Result, Timestamp};

/// The collection of a database in which its erasures are recorded.
const ERASURES: &str = "chronos_erasures";
/// The field of a record by which it names the item, as long as something is left to do.
const ITEM: &str = "itemId";

/// What an erasure takes away, or would.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ErasureCounts {
    /// Versions of the item, its deletions among them.
    pub versions: u64,
    /// Objects that hold a version's JSON.
    pub objects: u64,
    /// Objects that hold an externalised property.
    pub blobs: u64,
    /// Manifests that hold versions of the item; they are written anew without them.
    pub manifests: u64,
    /// Messages and dead letters of the messaging database that name the item.
    pub messages: u64,
    /// Operations of the fallback queue that wait for the item or were given up.
    pub operations: u64,
}

impl ErasureCounts {
    /// Returns `{versions, objects, blobs, manifests, messages, operations}`.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let Self { versions, objects, blobs, manifests, messages, operations } = self;
        crate::json!({
            "versions": versions, "objects": objects, "blobs": blobs,
            "manifests": manifests, "messages": messages, "operations": operations,
        })
    }
}

/// The end of an erasure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certified {
    pub(crate) at: Timestamp,
    pub(crate) sha256: String,
}

/// One erasure, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ErasureRecord {
    pub(crate) certificate: ObjectId,
    pub(crate) tenant: Option<String>,
    pub(crate) collection: String,
    /// None once everything was looked at for the second time.
    pub(crate) item: Option<ItemId>,
    pub(crate) counts: ErasureCounts,
    /// Whether what lies outside of the records was counted.
    pub(crate) is_counted: bool,
    /// Folders and buckets with backups that may hold the item and were not in reach.
    pub(crate) backups_due: Vec<String>,
    pub(crate) certified: Option<Certified>,
    /// When everything is looked at again.
    pub(crate) again_at: Option<Timestamp>,
}

impl ErasureRecord {
    fn stored(&self) -> Document {
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let mut out = doc! { "_id": self.certificate };
        out.extend(self.tenant.clone().map(|tenant| (TENANT.to_owned(), tenant.into())));
        out.insert("collection", &self.collection);
        out.extend(self.item.map(|id| (ITEM.to_owned(), id.bson())));
        let ErasureCounts { versions, objects, blobs, manifests, messages, operations } = self.counts;
        out.extend(doc! {
            "versions": whole(versions), "objects": whole(objects),
            "blobs": whole(blobs), "manifests": whole(manifests),
        });
        if self.is_counted {
            out.extend(doc! { "messages": whole(messages), "operations": whole(operations) });
        }
        if !self.backups_due.is_empty() {
            out.insert("backupsDue", &self.backups_due);
        }
        if let Some(Certified { at, sha256 }) = &self.certified {
            out.extend(doc! { "erasedAt": *at, "sha256": sha256 });
        }
        out.extend(self.again_at.map(|at| ("lookAgainAt".to_owned(), at.into())));
        out
    }

    pub(crate) fn read(stored: &Document) -> Result<Self> {
        let certificate = stored.get_object_id("_id").map_err(|_| malformed(stored, "_id"))?;
        let text = |key: &str| stored.get_str(key).ok().map(str::to_owned);
        let date = |key: &str| stored.get_datetime(key).ok().map(|at| Timestamp::from(*at));
        let count = |key: &'static str| {
            number(stored, key).and_then(|n| u64::try_from(n).ok()).ok_or_else(|| malformed(stored, key))
        };
        let is_counted = stored.contains_key("messages");
        let beside = |key| if is_counted { count(key) } else { Ok(0) };
        let due = stored.get_array("backupsDue").ok();
        Ok(Self {
            certificate,
            tenant: text(TENANT),
            collection: text("collection").ok_or_else(|| malformed(stored, "collection"))?,
            item: stored.get_object_id(ITEM).ok().map(ItemId::new),
            counts: ErasureCounts {
                versions: count("versions")?,
                objects: count("objects")?,
                blobs: count("blobs")?,
                manifests: count("manifests")?,
                messages: beside("messages")?,
                operations: beside("operations")?,
            },
            is_counted,
            backups_due: due.into_iter().flatten().filter_map(|f| f.as_str().map(str::to_owned)).collect(),
            certified: date("erasedAt").zip(text("sha256")).map(|(at, sha256)| Certified { at, sha256 }),
            again_at: date("lookAgainAt"),
        })
    }
}

fn malformed(stored: &Document, key: &str) -> Error {
    let id = stored.get("_id").map(ToString::to_string).unwrap_or_default();
    Error::database(format!(
        "the record {id} of an erasure is malformed: its `{key}` is missing or of another kind"
    ))
}

/// Where the erasures of a database are recorded.
pub(crate) fn erasures_of(database: impl Into<Arc<str>>) -> Namespace {
    Namespace::new(database, ERASURES)
}

/// The records of erasures, of one collection's database.
pub(crate) struct Erasures {
    index: Arc<RecordIndex>,
    namespace: Namespace,
    ready: OnceCell<()>,
}

crate::debug_some!(Erasures { namespace });

impl Erasures {
    pub(super) fn new(index: Arc<RecordIndex>) -> Self {
        let namespace = erasures_of(Arc::clone(&index.names.ver.database));
        Self { index, namespace, ready: OnceCell::new() }
    }

    /// Records an erasure that begins, unless it is recorded.
    pub(crate) async fn begin(&self, record: &ErasureRecord) -> Result<()> {
        let open = [Index::on("erasures_open", &["collection", ITEM]).only_if_exists(ITEM)];
        self.ready.get_or_try_init(|| self.index.documents.ensure(&self.namespace, &open)).await?;
        // One that is there was counted earlier, when more was there.
        self.apply(Write::insert(record.stored())).await.map(drop)
    }

    pub(crate) async fn get(&self, certificate: ObjectId) -> Result<Option<ErasureRecord>> {
        let found = self.index.documents.get(&self.namespace, vec![certificate.into()]).await?;
        found.first().map(ErasureRecord::read).transpose()
    }

    /// Adds what lies outside of the records, unless it was added.
    pub(crate) async fn count(&self, record: &ErasureRecord) -> Result<()> {
        self.apply(Write::put(record.stored(), unless_there("messages"))).await.map(drop)
    }

    /// Records the end of an erasure; whether nobody did before.
    pub(crate) async fn certify(&self, record: &ErasureRecord) -> Result<bool> {
        Ok(self.apply(Write::put(record.stored(), unless_there("erasedAt"))).await?.is_applied())
    }

    /// Forgets which item it was, once everything was looked at again.
    pub(crate) async fn close(&self, record: ErasureRecord) -> Result<()> {
        let closed = ErasureRecord { item: None, again_at: None, ..record };
        self.apply(Write::put(closed.stored(), Guard::Any)).await.map(drop)
    }

    /// The erasures of this collection that are not over, as far as `narrow` lets them through.
    pub(crate) fn open(&self, narrow: impl FnOnce(Filter) -> Filter) -> BoxStream<'static, Result<Document>> {
        let of_collection = Filter::eq("collection", self.index.names.collection.as_str());
        let filter = narrow(of_collection.and(Filter::gt(ITEM, ObjectId::from_bytes([0; 12]))));
        self.index.documents.scan(&self.namespace, Scan { filter, ..Scan::default() })
    }

    async fn apply(&self, write: Write) -> Result<Outcome> {
        let mut batch = Batch::new();
        batch.push(&self.namespace, write);
        let outcome = self.index.documents.apply(batch).await?.pop();
        outcome.ok_or_else(|| Error::database("a write has no outcome"))
    }
}

/// Only where the record does not have that field.
fn unless_there(field: &str) -> Guard {
    Guard::Equals { field: field.to_owned(), value: bson::Bson::Null }
}

//! What a document store must do, in few words: [`DocumentStore`].
//!
//! The seam speaks of documents with an `_id`, guarded writes, ordered scans and sequences; it has no update
//! operators, so that no implementation becomes an imitation of another. All domain logic stands above it,
//! once. [`crate::testing::documents`] is the suite every implementation passes.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bson::{Bson, Document, RawDocumentBuf};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};

use crate::{Result, Timestamp};

mod deployment;
#[cfg(feature = "embedded")]
pub mod embedded;
pub mod filter;
#[cfg(feature = "mongodb")]
pub mod mongo;
#[cfg(any(feature = "embedded", feature = "mongodb"))]
pub(crate) mod paging;
pub(crate) mod raw_bson;
pub(crate) mod within;

pub use deployment::Deployment;
pub use filter::Filter;
pub use within::within;

/// A collection of one database.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace {
    /// The database.
    pub database: Arc<str>,
    /// The collection.
    pub collection: Arc<str>,
}

impl Namespace {
    /// The collection `collection` of `database`.
    pub fn new(database: impl Into<Arc<str>>, collection: impl Into<Arc<str>>) -> Self {
        Self { database: database.into(), collection: collection.into() }
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.database, self.collection)
    }
}

/// Under which condition on the stored document (the one with the same `_id`) a write takes place.
#[derive(Clone, PartialEq)]
pub enum Guard {
    /// Always; a put creates the document if it is absent.
    Any,
    /// Only if a document is there and its top-level `field` equals `value`.
    Equals {
        /// The top-level field.
        field: String,
        /// The value it must have.
        value: Bson,
    },
    /// Only if no document is there, or its top-level `field` is less than that of the document put. Puts of
    /// one document may then arrive in any order, and more than once, and the newest stays. For puts alone.
    Newer {
        /// The top-level field, a number in every document.
        field: String,
    },
}

/// Without the value.
impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("Any"),
            Self::Equals { field, .. } => write!(f, "Equals({field})"),
            Self::Newer { field } => write!(f, "Newer({field})"),
        }
    }
}

/// A document to be written: its fields, or the bytes it will be stored as, from whoever makes these
/// directly.
#[derive(Clone, PartialEq)]
pub enum NewDocument {
    /// Encoded when it is applied.
    Fields(Document),
    /// Taken as they are.
    Bytes(RawDocumentBuf),
}

/// Without the document.
impl fmt::Debug for NewDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewDocument(..)")
    }
}

impl From<Document> for NewDocument {
    fn from(fields: Document) -> Self {
        Self::Fields(fields)
    }
}

impl From<RawDocumentBuf> for NewDocument {
    fn from(bytes: RawDocumentBuf) -> Self {
        Self::Bytes(bytes)
    }
}

impl NewDocument {
    /// The bytes that are stored.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if the fields cannot be encoded, or nest deeper than 200 levels.
    pub fn into_bytes(self) -> Result<RawDocumentBuf> {
        let bytes = match self {
            Self::Fields(fields) => raw_bson::encode(&fields)?,
            Self::Bytes(bytes) => bytes,
        };
        raw_bson::check_levels(&bytes)?;
        Ok(bytes)
    }
}

/// One write of a [`Batch`]. Every document carries its `_id`.
#[derive(Clone, PartialEq)]
pub enum Write {
    /// Adds a document; a [`Outcome::Conflict`] if its `_id` or a unique index already has its value.
    Insert(NewDocument),
    /// Replaces the whole document, or creates it where the guard allows.
    Put {
        /// The new document.
        document: NewDocument,
        /// When it may be put.
        guard: Guard,
    },
    /// Removes a document; [`Guard::Newer`] is refused.
    Delete {
        /// The `_id`.
        id: Bson,
        /// When it may be removed.
        guard: Guard,
    },
}

/// Without the document.
impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Insert(_) => f.write_str("Insert(..)"),
            Self::Put { guard, .. } => write!(f, "Put({guard:?}, ..)"),
            Self::Delete { guard, .. } => write!(f, "Delete({guard:?}, ..)"),
        }
    }
}

impl Write {
    /// An [`Insert`](Self::Insert).
    ///
    /// ```
    /// use bson::{doc, rawdoc};
    /// use chronos_db::documents::{Batch, Namespace, Write};
    ///
    /// let mut batch = Batch::new();
    /// batch.push(&Namespace::new("shop", "parts"), Write::insert(doc! { "_id": 1, "name": "bolt" }));
    /// batch.push(&Namespace::new("shop", "parts"), Write::insert(rawdoc! { "_id": 2, "name": "nut" }));
    /// ```
    pub fn insert(document: impl Into<NewDocument>) -> Self {
        Self::Insert(document.into())
    }

    /// A [`Put`](Self::Put).
    pub fn put(document: impl Into<NewDocument>, guard: Guard) -> Self {
        Self::Put { document: document.into(), guard }
    }
}

/// A write, where, and what it waits for.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// The collection.
    pub namespace: Namespace,
    /// The write.
    pub write: Write,
    /// The index of an earlier operation of the batch that must have been [`Outcome::Applied`]; otherwise
    /// this one is [`Outcome::Skipped`].
    pub requires: Option<usize>,
}

/// What became of one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It took place and is durable.
    Applied,
    /// A unique index, or `_id`, already has its value. `index` is the index's name (`_id_` for `_id`) where
    /// the store says it.
    Conflict {
        /// The name of the violated index.
        index: Option<String>,
    },
    /// The guard did not hold.
    Refused,
    /// The operation it requires was not applied, or (with [`Atomicity::All`]) another one failed.
    Skipped,
}

impl Outcome {
    /// Whether the write took place.
    #[must_use]
    pub fn is_applied(&self) -> bool {
        *self == Self::Applied
    }
}

/// What a [`Batch`] promises if an operation fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Atomicity {
    /// Each operation takes place or fails by itself; a crash may leave any prefix of the stages (see
    /// [`Batch`]).
    #[default]
    Each,
    /// All or none. Refused with `VALIDATION_ERROR` where [`Capabilities::transactions`] is false.
    All,
}

/// Writes that travel together, in few round trips.
///
/// Operations without `requires` come first, those that require them after; within such a stage the order is
/// undefined, so a stage should not write one document twice. Applied writes are durable (journaled, on a
/// majority) when the call returns.
///
/// With several [`Guard::Equals`] operations in one batch, an operation that took place but whose document
/// was changed again by somebody else before its outcome was known may be reported as [`Outcome::Refused`];
/// who must know for certain sends it alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// The operations.
    pub operations: Vec<Operation>,
    /// All or each.
    pub atomicity: Atomicity,
}

impl Batch {
    /// An empty batch in which each operation stands for itself.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an operation and returns its index.
    pub fn push(&mut self, namespace: &Namespace, write: Write) -> usize {
        self.operations.push(Operation { namespace: namespace.clone(), write, requires: None });
        self.operations.len() - 1
    }

    /// Adds an operation that takes place only if the one at `requires` did; returns its index.
    pub fn push_after(&mut self, requires: usize, namespace: &Namespace, write: Write) -> usize {
        self.operations.push(Operation { namespace: namespace.clone(), write, requires: Some(requires) });
        self.operations.len() - 1
    }
}

/// Numbers given out by [`DocumentStore::sequence`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// The first of them.
    pub first: i64,
    /// How many.
    pub count: u32,
    /// The store's time when they were given out.
    pub now: Timestamp,
}

/// Ascending or descending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Smallest first.
    Ascending,
    /// Largest first.
    Descending,
}

/// "The newest document per item as of a bound", for [`Scan::newest`].
#[derive(Clone, PartialEq)]
pub struct Newest {
    /// The top-level field that names the group, such as `itemId`.
    pub per: String,
    /// The top-level field by which a document is newer, such as `at`; unique within a group.
    pub by: String,
    /// Documents with a larger value of `by` are left out first.
    pub at_most: Bson,
}

crate::debug_some!(Newest { per, by });

/// What to read from one collection, in which order.
#[derive(Clone, Default, PartialEq)]
pub struct Scan {
    /// Which documents. With [`Scan::newest`], conditions on its `per` field narrow the groups; all others
    /// apply to the newest documents.
    pub filter: Filter,
    /// First reduce every group to its newest document.
    pub newest: Option<Newest>,
    /// The order by dotted paths; values compare as BSON does (across types too, absent like null). Empty:
    /// any order. Few documents should share the values of all of them: what does comes in any order, and
    /// again and again to the store's mind.
    pub order: Vec<(String, Direction)>,
    /// Start strictly after the document that has these values of the order's paths (one each). The order's
    /// last path must be unique.
    pub after: Option<Vec<Bson>>,
    /// At most so many documents.
    pub limit: Option<u64>,
    /// Top-level fields to leave out of the answer, so that large ones needn't travel.
    pub without: Vec<String>,
}

crate::debug_some!(Scan { order, limit, without });

/// An index a collection must have.
#[derive(Clone, Debug, PartialEq)]
pub struct Index {
    /// The name, unique in the collection.
    pub name: String,
    /// The dotted paths and their directions.
    pub keys: Vec<(String, Direction)>,
    /// Whether two documents may not have the same values.
    pub unique: bool,
    /// Only documents in which this path exists are indexed (and, with `unique`, compared).
    pub only_if_exists: Option<String>,
}

impl Index {
    /// An ascending index over `paths`.
    #[must_use]
    pub fn on(name: &str, paths: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            keys: paths.iter().map(|p| ((*p).to_owned(), Direction::Ascending)).collect(),
            unique: false,
            only_if_exists: None,
        }
    }

    /// The same, unique.
    #[must_use]
    pub fn unique(mut self) -> Self {
        self.unique = true;
        self
    }

    /// The same, of documents in which `path` exists.
    #[must_use]
    pub fn only_if_exists(mut self, path: &str) -> Self {
        self.only_if_exists = Some(path.to_owned());
        self
    }
}

impl Index {
    /// Whether documents come from this index in the scan's order: its first paths have one value each by the
    /// filter, the next ones are the order's, all in their directions or all the other way around.
    #[cfg(any(feature = "embedded", feature = "mongodb"))]
    pub(crate) fn yields(&self, scan: &Scan) -> bool {
        self.prefix_before(scan).is_some()
    }

    /// How many of its paths have one value each by the filter, before those of the scan's order.
    #[cfg(any(feature = "embedded", feature = "mongodb"))]
    pub(crate) fn prefix_before(&self, scan: &Scan) -> Option<usize> {
        // A partial index serves only what lets no document through that is not in it.
        if self.only_if_exists.as_ref().is_some_and(|path| !scan.filter.demands_value(path))
            || scan.newest.is_some()
        {
            return None;
        }
        let fixed = self.keys.iter().take_while(|(path, _)| scan.filter.fixes(path).is_some()).count();
        (0..=fixed).rev().find(|prefix| {
            let rest = self.keys.get(*prefix..).unwrap_or_default();
            let turned = rest
                .iter()
                .zip(&scan.order)
                .map(|((key, way), (path, wanted))| (key == path).then_some(way == wanted));
            let turned: Option<Vec<bool>> = turned.collect();
            rest.len() >= scan.order.len()
                && turned.is_some_and(|turned| turned.iter().all(|same| Some(same) == turned.first()))
        })
    }
}

/// What the store behind a [`DocumentStore`] can do; detected once per client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// [`Atomicity::All`] over several documents and collections.
    pub transactions: bool,
    /// Whether [`DocumentStore::sequence_then`] is one transaction.
    pub atomic_sequence: bool,
}

/// What the user of a [`DocumentStore`] may do in one database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Read documents.
    pub read: bool,
    /// Add, change and remove documents.
    pub write: bool,
    /// Make indexes, without which nothing is written.
    pub index: bool,
}

impl Rights {
    /// Everything.
    pub const ALL: Self = Self { read: true, write: true, index: true };
}

/// Builds, from the numbers given out, the batch that is applied with them.
pub type BuildBatch = Box<dyn FnOnce(Sequence) -> Result<Batch> + Send>;

/// A document store: one client, all its databases.
///
/// Databases and collections come into being on their first write. Implementations are cheap to share behind
/// an [`Arc`].
#[async_trait]
pub trait DocumentStore: Send + Sync + fmt::Debug {
    /// What this store can do. The first call may ask the server.
    async fn capabilities(&self) -> Result<Capabilities>;

    /// Applies the writes; one [`Outcome`] per operation, in their order.
    ///
    /// # Errors
    /// `TXN_ERROR` if the store failed; writes may then have taken place, and the caller finds out by the
    /// `_id`s it gave. An outcome is never an error.
    async fn apply(&self, batch: Batch) -> Result<Vec<Outcome>>;

    /// Gives out the next `count` numbers of the sequence `name` kept in `namespace`, as `{_id: name, value:
    /// last given out}`; the first ever is 0. No two callers get the same number. Numbers of a caller that
    /// dies are lost.
    async fn sequence(&self, namespace: &Namespace, name: &str, count: u32) -> Result<Sequence>;

    /// [`sequence`](Self::sequence), then [`apply`](Self::apply) of what `build` makes of it: in one
    /// transaction where [`Capabilities::atomic_sequence`] says so, one after the other elsewhere.
    async fn sequence_then(
        &self,
        namespace: &Namespace,
        name: &str,
        count: u32,
        build: BuildBatch,
    ) -> Result<(Sequence, Vec<Outcome>)>;

    /// The documents with these `_id`s as they are stored, in any order; absent ones are left out.
    async fn get_stored(&self, namespace: &Namespace, ids: Vec<Bson>) -> Result<Vec<RawDocumentBuf>>;

    /// [`get_stored`](Self::get_stored), decoded.
    async fn get(&self, namespace: &Namespace, ids: Vec<Bson>) -> Result<Vec<Document>> {
        self.get_stored(namespace, ids).await?.iter().map(|stored| raw_bson::decode(stored)).collect()
    }

    /// Reads documents, as they are stored, as a stream of pages that holds at most some hundreds of them in
    /// memory, and between two pages nothing of the store: whoever reads may take his time, and ask the same
    /// store meanwhile. Sees everything that was durable when it began, and what does not change while it
    /// goes on exactly once; what comes, goes or changes later may or may not be seen, or be seen as it is
    /// then.
    fn scan_stored(&self, namespace: &Namespace, scan: Scan) -> BoxStream<'static, Result<RawDocumentBuf>>;

    /// [`scan_stored`](Self::scan_stored), decoded.
    fn scan(&self, namespace: &Namespace, scan: Scan) -> BoxStream<'static, Result<Document>> {
        self.scan_stored(namespace, scan).map(|found| raw_bson::decode(&found?)).boxed()
    }

    /// How many documents match, `at_most` at most. Implementations count by an index where one serves the
    /// filter, so that nothing travels.
    async fn count(&self, namespace: &Namespace, filter: Filter, at_most: u64) -> Result<u64> {
        let scan = Scan { filter, limit: Some(at_most), ..Scan::default() };
        self.scan_stored(namespace, scan).try_fold(0, |n, _| async move { Ok(n + 1) }).await
    }

    /// The store's time.
    async fn now(&self) -> Result<Timestamp>;

    /// Makes sure that the indexes exist (and with them the collection). An existing index that is like the
    /// wanted one serves, whatever its name.
    ///
    /// # Errors
    /// `TXN_ERROR` if existing documents violate a unique index: the message names it. `ROUTE_MISMATCH` if an
    /// index stands in the way that has the wanted one's name or keys and is another one, such as one that is
    /// not unique: the message says how to mend it.
    async fn ensure(&self, namespace: &Namespace, indexes: &[Index]) -> Result<()>;

    /// Which deployment this client reaches, so that two connection strings that lead to one are known to.
    /// Creates nothing.
    async fn deployment(&self) -> Result<Deployment>;

    /// The names of a database's collections, in any order.
    async fn collections(&self, database: &str) -> Result<Vec<String>>;

    /// What this user may do in the database. A store without users lets everybody do everything.
    async fn rights(&self, _database: &str) -> Result<Rights> {
        Ok(Rights::ALL)
    }

    /// Sees to it that of documents that were removed or replaced before this call no byte is left in the
    /// files of the store, as far as the store has that in its hands: where it is a server's, what its files
    /// keep for how long is the server's business, and nothing happens.
    ///
    /// # Errors
    /// `TXN_ERROR`, retryable, if somebody still reads what was there before.
    async fn purge(&self, _database: &str) -> Result<()> {
        Ok(())
    }

    /// How long a call may take; none where nothing has to be waited for. Who makes several calls for one of
    /// its own gives them this time together, with [`within`].
    fn limit(&self) -> Option<std::time::Duration> {
        None
    }

    /// Ends the client after what is in flight. Later calls fail.
    async fn close(&self) -> Result<()>;
}

//! Plain access to one collection.

use bson::{Bson, Document};
use futures::future::try_join;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};

use super::normalize::{complete, from_json, read_filter, to_json};
use super::runs;
use super::schema::{Key, Kind};
use super::shared::{Slot, keep_marks, remove_all};
use super::table::{ROUNDS, Table};
use super::value::{required_text, system_date};
use crate::documents::{Filter, Scan};
use crate::{Error, ErrorKind, Json, Result, Timestamp, json_to_bson};

/// One collection of a messaging database, by documents and filters; see
/// [`Messaging::collection`](super::Messaging::collection).
///
/// `tenantId` is forced into every document and every filter; naming another tenant is an error. Filters are
/// those of [`documents::filter`](crate::documents::filter). Dates may be written as `{"$date": …}` or, in
/// the fields that hold dates, as text.
#[derive(Clone, Debug)]
pub struct RawCollection {
    table: Table,
}

impl RawCollection {
    pub(super) fn new(table: Table) -> Self {
        Self { table }
    }

    /// Returns which collection it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.table.kind
    }

    /// Adds a document. In `shared_memory`, one of the strategy `append` without a `version` becomes the next
    /// version, and one without a strategy is the latest value.
    ///
    /// Fails with `OPTIMISTIC_LOCK` if a document with the same key is there.
    pub fn insert(&self, document: impl Into<Json>) -> Insert {
        Insert { table: self.table.clone(), document: document.into() }
    }

    /// Replaces the document that the filter finds, or adds one. What makes the document unique may stand in
    /// the filter alone. Concurrent calls for one key leave one document.
    pub fn upsert(&self, filter: impl Into<Json>, document: impl Into<Json>) -> Upsert {
        Upsert { table: self.table.clone(), filter: filter.into(), document: document.into() }
    }

    /// Reads one document that the filter finds.
    pub fn find_one(&self, filter: impl Into<Json>) -> FindOne {
        FindOne { table: self.table.clone(), filter: filter.into() }
    }

    /// Reads the documents that the filter finds, in any order.
    pub fn find(&self, filter: impl Into<Json>) -> Find {
        Find { table: self.table.clone(), filter: filter.into(), limit: None }
    }

    /// Removes one document that the filter finds. Answers whether there was one.
    pub fn delete_one(&self, filter: impl Into<Json>) -> DeleteOne {
        DeleteOne { table: self.table.clone(), filter: filter.into() }
    }

    /// Removes every document that the filter finds. Answers how many.
    pub fn delete_many(&self, filter: impl Into<Json>) -> DeleteMany {
        DeleteMany { table: self.table.clone(), filter: filter.into() }
    }
}

impl Table {
    /// Refuses another tenant.
    fn check_tenant(&self, given: &Json) -> Result<()> {
        match given.get("tenantId") {
            None => Ok(()),
            Some(Json::String(tenant)) if **tenant == *self.tenant => Ok(()),
            Some(other) => {
                let shown: String = other.to_string().chars().take(80).collect();
                Err(Error::validation(format!("this handle is of the tenant `{}`, not {shown}", self.tenant)))
            }
        }
    }

    fn read_filter(&self, given: &Json) -> Result<Filter> {
        self.check_tenant(given)?;
        read_filter(self.kind, given)
    }

    fn read_document(&self, given: &Json) -> Result<Document> {
        self.check_tenant(given)?;
        from_json(given)
    }

    fn with_context(&self, error: Error, during: &'static str) -> Error {
        error.during(during).in_collection(self.kind.name())
    }

    /// Inserts a document without an `_id`; says whether its key was free.
    async fn insert_new(&self, mut document: Document, now: Timestamp) -> Result<bool> {
        let is_next = self.kind == Kind::SharedMemory
            && document.get_str("strategy").is_ok_and(|strategy| strategy == "append")
            && matches!(document.get("version"), None | Some(Bson::Null));
        if is_next {
            let slot = Slot::new(
                self.clone(),
                required_text(&document, "namespace")?,
                required_text(&document, "key")?,
            );
            let days = super::value::system_whole(&document, "retentionDays")
                .and_then(|days| u32::try_from(days).ok());
            document.remove("version");
            return Ok(slot.append(document, None, days).await?.applied);
        }
        let key = complete(self.kind, &mut document, now)?;
        self.stamp(&mut document, &key);
        self.insert(document, &key).await
    }
}

fn taken() -> Error {
    Error::new(ErrorKind::OptimisticLock, "a document with this key is there already")
}

/// Adds a document; see [`RawCollection::insert`].
#[derive(Clone)]
#[must_use = "an action runs when it is awaited"]
pub struct Insert {
    table: Table,
    document: Json,
}

crate::debug_some!(Insert { table });

impl Insert {
    async fn insert(&self) -> Result<()> {
        let document = self.table.read_document(&self.document)?;
        let now = self.table.now().await?;
        // A document of the legacy library has another `_id`.
        let mut probe = document.clone();
        if let Ok(key) = complete(self.table.kind, &mut probe, now)
            && self.table.find(&key).await?.is_some()
        {
            return Err(taken());
        }
        if self.table.insert_new(document, now).await? { Ok(()) } else { Err(taken()) }
    }

    async fn run(self) -> Result<()> {
        self.insert().await.map_err(|error| self.table.with_context(error, "insert"))
    }
}

runs!(Insert => ());

/// Replaces or adds a document; see [`RawCollection::upsert`].
#[derive(Clone)]
#[must_use = "an action runs when it is awaited"]
pub struct Upsert {
    table: Table,
    filter: Json,
    document: Json,
}

crate::debug_some!(Upsert { table });

impl Upsert {
    async fn upsert(&self) -> Result<()> {
        let table = &self.table;
        let filter = table.read_filter(&self.filter)?;
        let document = table.read_document(&self.document)?;
        for _ in 0..ROUNDS {
            let (found, now) = try_join(table.first(filter.clone(), Vec::new()), table.now()).await?;
            let mut document = document.clone();
            let Some(found) = found else {
                self.fill_from_filter(&mut document)?;
                let mut probe = document.clone();
                // The key may belong to a document that the filter does not find; that one is never replaced.
                if let Ok(key) = complete(table.kind, &mut probe, now)
                    && let Some(other) = table.find(&key).await?
                {
                    if filter.matches(&other) {
                        continue;
                    }
                    return Err(taken());
                }
                if table.insert_new(document, now).await? {
                    return Ok(());
                }
                continue;
            };
            for field in table.kind.key_fields() {
                if let (false, Some(value)) = (document.contains_key(field), found.get(field)) {
                    document.insert(*field, value.clone());
                }
            }
            let says_when =
                document.get_document("_system").is_ok_and(|system| system.contains_key("createdAt"));
            let key = complete(table.kind, &mut document, now)?;
            if key != Key::of(table.kind, &found) {
                return Err(Error::validation("the filter finds a document with another key than this one"));
            }
            if let Ok(system) = document.get_document_mut("_system") {
                if let Some(created) = system_date(&found, "createdAt").filter(|_| !says_when) {
                    system.insert("createdAt", created);
                }
                keep_marks(system, Some(&found));
            }
            if table.replace(&found, document).await?.is_some() {
                return Ok(());
            }
        }
        Err(table.contended())
    }

    /// As with MongoDB, what the filter says of the key holds for a new document.
    fn fill_from_filter(&self, document: &mut Document) -> Result<()> {
        for field in self.table.kind.key_fields() {
            if let (false, Some(value)) =
                (document.contains_key(field), self.filter.get(field).filter(|value| !value.is_object()))
            {
                document.insert(*field, json_to_bson(value)?);
            }
        }
        Ok(())
    }

    async fn run(self) -> Result<()> {
        self.upsert().await.map_err(|error| self.table.with_context(error, "upsert"))
    }
}

runs!(Upsert => ());

/// Finds one document; see [`RawCollection::find_one`].
#[derive(Clone)]
#[must_use = "an action runs when it is awaited"]
pub struct FindOne {
    table: Table,
    filter: Json,
}

crate::debug_some!(FindOne { table });

impl FindOne {
    async fn find(&self) -> Result<Option<Json>> {
        let filter = self.table.read_filter(&self.filter)?;
        self.table.first(filter, Vec::new()).await?.as_ref().map(to_json).transpose()
    }

    async fn run(self) -> Result<Option<Json>> {
        self.find().await.map_err(|error| self.table.with_context(error, "find_one"))
    }
}

runs!(FindOne => Option<Json>);

/// Finds documents; see [`RawCollection::find`].
#[derive(Clone)]
#[must_use = "an action runs when it is awaited"]
pub struct Find {
    table: Table,
    filter: Json,
    limit: Option<u64>,
}

crate::debug_some!(Find { table, limit });

impl Find {
    /// Reads at most this many. Without a limit, awaiting this holds all of them in memory;
    /// [`stream`](Self::stream) does not.
    pub fn limit(mut self, documents: u64) -> Self {
        self.limit = Some(documents);
        self
    }

    /// Streams the documents one after the other.
    #[must_use]
    pub fn stream(self) -> BoxStream<'static, Result<Json>> {
        let begun = async move {
            let filter = self
                .table
                .read_filter(&self.filter)
                .map_err(|error| self.table.with_context(error, "find"))?;
            self.table.scan(Scan { filter, limit: self.limit, ..Scan::default() }).await
        };
        futures::stream::once(begun)
            .try_flatten()
            .and_then(|document| std::future::ready(to_json(&document)))
            .boxed()
    }

    async fn run(self) -> Result<Vec<Json>> {
        self.stream().try_collect().await
    }
}

runs!(Find => Vec<Json>);

/// Removes a document; see [`RawCollection::delete_one`].
#[derive(Clone)]
#[must_use = "an action runs when it is awaited"]
pub struct DeleteOne {
    table: Table,
    filter: Json,
}

crate::debug_some!(DeleteOne { table });

impl DeleteOne {
    async fn delete(&self) -> Result<bool> {
        let filter = self.table.read_filter(&self.filter)?;
        for _ in 0..ROUNDS {
            let Some(found) = self.table.first(filter.clone(), Vec::new()).await? else { return Ok(false) };
            if self.table.remove(&found).await? {
                return Ok(true);
            }
        }
        Err(self.table.contended())
    }

    async fn run(self) -> Result<bool> {
        self.delete().await.map_err(|error| self.table.with_context(error, "delete_one"))
    }
}

runs!(DeleteOne => bool);

/// Removes documents; see [`RawCollection::delete_many`].
#[derive(Clone)]
#[must_use = "an action runs when it is awaited"]
pub struct DeleteMany {
    table: Table,
    filter: Json,
}

crate::debug_some!(DeleteMany { table });

impl DeleteMany {
    async fn delete(&self) -> Result<u64> {
        let filter = self.table.read_filter(&self.filter)?;
        remove_all(&self.table, Scan { filter, ..Scan::default() }).await
    }

    async fn run(self) -> Result<u64> {
        self.delete().await.map_err(|error| self.table.with_context(error, "delete_many"))
    }
}

runs!(DeleteMany => u64);

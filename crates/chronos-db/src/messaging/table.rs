//! One collection as one tenant sees it: every question asks for the tenant, every document carries it.

use std::sync::Arc;

use bson::{Bson, Document};
use futures::{StreamExt as _, TryStreamExt as _};

use super::db::MessagingDb;
use super::schema::{Key, Kind};
use crate::documents::{Batch, Direction, DocumentStore, Filter, Guard, Namespace, Outcome, Scan, Write};
use crate::{Error, ErrorKind, Result, Timestamp};

/// How often a change is tried again because another process changed the document first. Every such time
/// one of them succeeded.
pub(super) const ROUNDS: usize = 200;

/// The field that tells one state of a document from the next.
pub(super) const REV: &str = "rev";

#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) db: Arc<MessagingDb>,
    pub(super) tenant: Arc<str>,
    pub(super) kind: Kind,
    namespace: Namespace,
}

/// What became of a [`Table::change`].
#[derive(Clone)]
pub(super) struct Changed {
    /// The document as it is now.
    pub(super) document: Option<Document>,
    /// Whether this call wrote it.
    pub(super) applied: bool,
}

crate::debug_some!(Changed { applied });

impl Table {
    pub(super) fn new(db: Arc<MessagingDb>, tenant: Arc<str>, kind: Kind) -> Self {
        let namespace = db.namespace(kind);
        Self { db, tenant, kind, namespace }
    }

    pub(super) async fn documents(&self) -> Result<&dyn DocumentStore> {
        self.db.ready().await
    }

    /// The store's time.
    pub(super) async fn now(&self) -> Result<Timestamp> {
        self.db.looking().await?.now().await
    }

    fn owned(&self, filter: Filter) -> Filter {
        Filter::eq("tenantId", &*self.tenant).and(filter)
    }

    /// The tenant's documents that match, in the order.
    pub(super) async fn scan(
        &self,
        mut scan: Scan,
    ) -> Result<futures::stream::BoxStream<'static, Result<Document>>> {
        scan.filter = self.owned(scan.filter);
        let collection = self.kind.name();
        Ok(self
            .db
            .looking()
            .await?
            .scan(&self.namespace, scan)
            .map_err(|error| error.in_collection(collection))
            .boxed())
    }

    pub(super) async fn all(&self, scan: Scan) -> Result<Vec<Document>> {
        self.scan(scan).await?.try_collect().await
    }

    pub(super) async fn first(
        &self,
        filter: Filter,
        order: Vec<(String, Direction)>,
    ) -> Result<Option<Document>> {
        let found = self.all(Scan { filter, order, limit: Some(1), ..Scan::default() }).await?;
        Ok(found.into_iter().next())
    }

    /// The document with this key, whichever process wrote it.
    pub(super) async fn find(&self, key: &Key) -> Result<Option<Document>> {
        self.first(key.filter(), Vec::new()).await
    }

    /// What is stored now in place of `document`, whichever tenant's it is.
    pub(super) async fn stored(&self, document: &Document) -> Result<Option<Document>> {
        let id = document.get("_id").cloned().unwrap_or(Bson::Null);
        let found = self.documents().await?.get(&self.namespace, vec![id]).await;
        Ok(found.map_err(|error| error.in_collection(self.kind.name()))?.pop())
    }

    /// Gives a new document its `_id`, its tenant, its key and its state.
    pub(super) fn stamp(&self, document: &mut Document, key: &Key) {
        document.insert("_id", key.id(&self.tenant));
        document.insert("tenantId", &*self.tenant);
        key.write(document);
        self.renew(document);
    }

    fn renew(&self, document: &mut Document) {
        document.insert(REV, self.db.env.random.object_id());
    }

    pub(super) async fn apply(&self, writes: Vec<Write>) -> Result<Vec<Outcome>> {
        let mut batch = Batch::new();
        for write in writes {
            batch.push(&self.namespace, write);
        }
        self.documents().await?.apply(batch).await.map_err(|error| error.in_collection(self.kind.name()))
    }

    async fn apply_one(&self, write: Write) -> Result<Outcome> {
        self.apply(vec![write]).await?.pop().ok_or_else(|| Error::database("a write has no outcome"))
    }

    /// Inserts a stamped document.
    ///
    /// # Errors
    /// `TXN_ERROR` if a unique index that isn't ours stands in the way: that of the legacy library, which
    /// knows no namespaces.
    pub(super) async fn insert(&self, document: Document, key: &Key) -> Result<bool> {
        match self.apply_one(Write::insert(document)).await? {
            Outcome::Applied => Ok(true),
            Outcome::Conflict { index } => {
                if index.as_deref().is_none_or(|name| self.is_foreign(name))
                    && self.find(key).await?.is_none()
                {
                    return Err(self.foreign(index.as_deref()));
                }
                Ok(false)
            }
            other => {
                Err(Error::database(format!("an insert ended as {other:?}")).in_collection(self.kind.name()))
            }
        }
    }

    fn is_foreign(&self, index: &str) -> bool {
        index != "_id_"
            && index != self.kind.key_index().name
            && self.kind.indexes().iter().all(|ours| ours.name != index)
    }

    fn foreign(&self, index: Option<&str>) -> Error {
        let index = index.unwrap_or("of an unknown name");
        let message = format!(
            "the unique index {index} of {:?} refuses a document that is new by its namespace; drop that index",
            self.namespace
        );
        Error::database(message).in_collection(self.kind.name())
    }

    /// Replaces `found` unless another process has changed it.
    pub(super) async fn replace(&self, found: &Document, mut document: Document) -> Result<Option<Document>> {
        let id = found.get("_id").cloned().unwrap_or(Bson::Null);
        document.insert("_id", id);
        document.insert("tenantId", &*self.tenant);
        self.renew(&mut document);
        let outcome = self.apply_one(Write::put(document.clone(), unchanged(found))).await?;
        Ok(outcome.is_applied().then_some(document))
    }

    /// Removes `found` unless another process has changed it.
    pub(super) async fn remove(&self, found: &Document) -> Result<bool> {
        let id = found.get("_id").cloned().unwrap_or(Bson::Null);
        Ok(self.apply_one(Write::Delete { id, guard: unchanged(found) }).await?.is_applied())
    }

    /// Creates or replaces the document with this key by what `decide` makes of the stored one; nothing
    /// changes if it says none. Concurrent changes take place one after the other.
    pub(super) async fn change(
        &self,
        key: Key,
        mut decide: impl FnMut(Option<&Document>, Timestamp) -> Result<Option<Document>> + Send,
    ) -> Result<Changed> {
        for _ in 0..ROUNDS {
            let (found, now) = futures::future::try_join(self.find(&key), self.now()).await?;
            let Some(mut document) = decide(found.as_ref(), now)? else {
                return Ok(Changed { document: found, applied: false });
            };
            match found {
                None => {
                    self.stamp(&mut document, &key);
                    if self.insert(document.clone(), &key).await? {
                        return Ok(Changed { document: Some(document), applied: true });
                    }
                }
                Some(found) => {
                    key.write(&mut document);
                    if let Some(document) = self.replace(&found, document).await? {
                        return Ok(Changed { document: Some(document), applied: true });
                    }
                }
            }
        }
        Err(self.contended())
    }

    /// Removes every document with this key; says whether there was one.
    pub(super) async fn remove_key(&self, key: &Key) -> Result<bool> {
        let mut removed = false;
        // The legacy library may have left several.
        while let Some(found) = self.find(key).await? {
            removed |= self.remove(&found).await?;
        }
        Ok(removed)
    }

    pub(super) fn contended(&self) -> Error {
        let message = format!("others changed the document {ROUNDS} times in a row; try again");
        Error::new(ErrorKind::OptimisticLock, message).retryable().in_collection(self.kind.name())
    }
}

/// Holds while nobody has changed what was read. Documents of the legacy library have no state until the
/// first change.
pub(super) fn unchanged(found: &Document) -> Guard {
    Guard::Equals { field: REV.to_owned(), value: found.get(REV).cloned().unwrap_or(Bson::Null) }
}

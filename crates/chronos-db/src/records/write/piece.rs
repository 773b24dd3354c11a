//! One of several changes that belong together: an item that is new, or the one with a key, which is
//! enriched, or created if there is none.

use std::sync::Arc;

use super::call::WriteCall;
use super::change::{Change, WriteOptions};
use super::commit::Prepared;
use super::ready::{Attempt, Uploading, Uploads};
use super::unique::Unique;
use super::writer::Writer;
use crate::clock::Moment;
use crate::documents::DocumentStore;
use crate::json::Map;
use crate::records::document::merge::merge;
use crate::records::index::scope::Scope;
use crate::records::model::{Head, ItemId, Lineage};
use crate::{Error, Json, Result};

/// One of the changes.
pub(crate) struct Piece {
    pub(crate) writer: Arc<Writer>,
    pub(crate) scope: Scope,
    pub(crate) document: Json,
    /// By which an item that is there is found; without it, the item is new.
    pub(crate) unique: Option<Unique>,
    pub(crate) lineage: Lineage,
    pub(crate) options: WriteOptions,
    /// The properties of the record that it is; of the record itself, none.
    pub(crate) properties: Vec<String>,
    id: ItemId,
    /// Whether nobody had the key when it was looked for.
    creates: bool,
    /// Whether it is the item of an earlier piece, whose document brings its key.
    follows: bool,
    pub(super) uploads: Uploads,
}

crate::debug_some!(Piece { id });

/// What a piece finds when its turn comes.
pub(super) enum Readiness {
    /// The change, but for what gives it its number.
    Change(Box<Prepared>),
    /// The item already is as the change wants it.
    Unchanged(Box<Head>),
    /// The item with the key is another one by now, or the change has to be made ready once more.
    Again,
    /// Another caller holds the item's lock.
    Locked,
}

impl Piece {
    /// An item that is new.
    pub(crate) fn new_item(
        writer: &Arc<Writer>,
        scope: &Scope,
        document: Json,
        lineage: Lineage,
        options: WriteOptions,
    ) -> Self {
        let id = ItemId::new(writer.index.env.random.object_id());
        let (writer, scope) = (Arc::clone(writer), scope.clone());
        let (properties, uploads) = (Vec::new(), Uploads::default());
        let (unique, creates, follows) = (None, true, false);
        Self { writer, scope, document, unique, lineage, options, properties, id, creates, follows, uploads }
    }

    /// The item that has the document's value of `key`, among those of the tenant that `record` says where the
    /// handle is for all of them.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if the document has no such value, or the key is not indexed.
    pub(crate) fn with_key(
        writer: &Arc<Writer>,
        scope: &Scope,
        document: Json,
        key: &str,
        record: &Map,
        options: &WriteOptions,
    ) -> Result<Self> {
        let keys = vec![key.to_owned()];
        let map = document.as_object().ok_or_else(|| Error::validation("a document is a JSON object"))?;
        let named = |error: Error| error.in_collection(&writer.index.names.collection);
        let scope = &writer.scope_of_keys(record, scope).map_err(named)?;
        let unique = Some(writer.unique(map, &keys, scope).map_err(named)?);
        let options = WriteOptions { unique: keys, ..options.clone() };
        Ok(Self { unique, ..Self::new_item(writer, scope, document, Lineage::default(), options) })
    }

    /// Which item it is, as far as that is known.
    pub(crate) fn id(&self) -> ItemId {
        self.id
    }

    pub(crate) fn store(&self) -> &Arc<dyn DocumentStore> {
        &self.writer.index.documents
    }

    pub(super) fn named(&self, error: Error) -> Error {
        error.in_collection(&self.writer.index.names.collection)
    }

    /// What has to be there before the first write.
    pub(super) async fn ensure(&self) -> Result<()> {
        let ensured = async {
            self.writer.schema.ensure(&self.scope).await?;
            match &self.unique {
                // A process that created items with these values otherwise left no claim; the index finds them.
                Some(_) => self.writer.ensure_unique(&self.options.unique, &self.scope).await,
                None => Ok(()),
            }
        };
        ensured.await.map_err(|error| self.named(error))
    }

    /// Finds out which item it is: the live one with the key, or the one that all callers who want this key
    /// create.
    pub(super) async fn find(&mut self) -> Result<()> {
        let Some(unique) = &self.unique else { return Ok(()) };
        let live = self.writer.live(unique).await.map_err(|error| self.named(error))?;
        (self.creates, self.follows) = (live.is_none(), false);
        let id = match live {
            Some(head) => head.id,
            None => self.writer.claim(unique, &self.scope).await.map_err(|error| self.named(error))?,
        };
        if id != self.id {
            // What was stored for another item has that one's keys.
            self.end_uploads().await;
            self.id = id;
        }
        Ok(())
    }

    /// Makes it the item of an earlier piece if nobody has its key, and that piece's document brings it: written
    /// one after the other, it would be found there.
    pub(super) fn follow(&mut self, earlier: &[Self]) {
        let Some(unique) = self.unique.as_ref().filter(|_| self.creates) else { return };
        let brings_it = |piece: &&Self| {
            piece.unique.is_some()
                && Arc::ptr_eq(&piece.writer, &self.writer)
                && piece.scope == self.scope
                && piece.document.as_object().is_some_and(|document| unique.is_in_document(document))
        };
        if let Some(piece) = earlier.iter().find(brings_it) {
            (self.id, self.follows) = (piece.id, true);
        }
    }

    /// Whether the other piece is about the same item, as far as that is known.
    pub(super) fn is_of_same_item(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.writer, &other.writer) && self.id == other.id
    }

    /// Finds out what the change would fail of, without writing anything.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) async fn check(&mut self) -> Result<()> {
        let head = match &self.unique {
            Some(unique) => self.writer.live(unique).await.map_err(|error| self.named(error))?,
            None => None,
        };
        let id = head.as_ref().map_or(self.id, |head| head.id);
        let change = self.change(head.is_some());
        let call = WriteCall { id, change: &change, options: &self.options, scope: &self.scope, lock: None };
        let attempt =
            Attempt { head: head.as_ref(), read_at: Moment::now(&*self.writer.index.env.clock), place: None };
        self.writer.prepare_change(call, attempt).await.map(drop).map_err(|error| self.named(error))
    }

    pub(super) fn change(&self, is_there: bool) -> Change {
        let document = self.document.clone();
        if is_there {
            Change::Enrich { patches: vec![document], function_id: None }
        } else {
            Change::Create { document, lineage: self.lineage.clone() }
        }
    }

    /// Makes the change ready, and stores what is too big to ride. What `others` say of the same item, which
    /// they know by other keys, becomes a part of it.
    pub(super) async fn ready(&mut self, others: &[Self]) -> Result<Readiness> {
        let found = self.ready_unnamed(others).await;
        found.map_err(|error| self.named(error))
    }

    async fn ready_unnamed(&mut self, others: &[Self]) -> Result<Readiness> {
        let others: Vec<&Self> = others.iter().filter(|other| self.is_of_same_item(other)).collect();
        let read_at = Moment::now(&*self.writer.index.env.clock);
        let mut head = None;
        if let Some(unique) = &self.unique {
            let (found, locked) = futures::future::try_join(
                self.writer.index.head_or_row(self.id),
                self.writer.locks.is_locked(self.id, None),
            )
            .await?;
            if let Some(found) = &found {
                let mut is_it = found.is_live() && self.scope.sees(found.meta.tenant.as_deref());
                let found_by_others = others.iter().filter(|other| !other.follows);
                for unique in found_by_others.filter_map(|other| other.unique.as_ref()).chain([unique]) {
                    is_it = is_it && self.writer.has_keys(found, unique).await?;
                }
                if !is_it {
                    return Ok(Readiness::Again);
                }
                if locked {
                    return Ok(Readiness::Locked);
                }
            } else if !(self.creates || others.is_empty()) || others.iter().any(|other| !other.follows) {
                return Ok(Readiness::Again);
            }
            head = found;
        }
        let mut change = self.change(head.is_some());
        let documents = others.iter().map(|other| &other.document);
        match &mut change {
            Change::Enrich { patches, .. } => patches.extend(documents.cloned()),
            Change::Create { document, .. } => documents.for_each(|other| merge(document, other)),
            _ => {}
        }
        let mut options = self.options.clone();
        options.unique.extend(others.iter().flat_map(|other| other.options.unique.iter().cloned()));
        let call =
            WriteCall { id: self.id, change: &change, options: &options, scope: &self.scope, lock: None };
        let attempt = Attempt { head: head.as_ref(), read_at, place: self.uploads.place() };
        let Some(mut ready) = self.writer.prepare_change(call, attempt).await? else {
            let head = head.ok_or_else(|| Error::database("a creation always changes something"))?;
            return Ok(Readiness::Unchanged(Box::new(head)));
        };
        match self.writer.upload(&mut ready, &mut self.uploads).await? {
            Uploading::Nothing | Uploading::There => Ok(Readiness::Change(Box::new(ready.prepared))),
            // That took its time: everything is looked at once more.
            Uploading::Done => Ok(Readiness::Again),
            Uploading::Anew => {
                self.end_uploads().await;
                Ok(Readiness::Again)
            }
        }
    }

    /// Removes what was stored and is not needed.
    pub(super) async fn end_uploads(&mut self) {
        let uploads = std::mem::take(&mut self.uploads);
        self.writer.end_uploads(uploads, None).await;
    }
}

//! Objects of items that no version names, as `retention.objects` has them looked for: what was left when a process
//! or an older library died between an object and its note, or what came late to where it had been removed.
//!
//! What is found is noted like what a commit stored that never came, with the end of the grace as its time. So the
//! collector looks at it once more then, among all versions wherever their rows are, and removes what still
//! has no name (see `gc.rs`). What may get a name yet is not noted:
//!
//! * what a note says of a write that is under way. Its note is there before its object, so notes are read after the
//!   listing; and it goes after its row came, so rows are read after notes;
//! * the plain key of a version that the item does not have yet: its row comes before its object, and names it;
//! * objects of an item without a head here, and of a collection a copy of which was restored to the same
//!   bucket: they may be another database's (see `copies_prefix` in `objects/keys.rs`).
//!
//! Keys that this library does not write are left alone.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};

use super::notes::Noted;
use super::payload_store::PayloadStore;
use crate::documents::{Direction, Filter, Scan};
use crate::objects::keys;
use crate::records::index::scope::Scope;
use crate::records::index::{RecordIndex, is_restore_under_way};
use crate::records::model::{Head, ItemId};
use crate::records::versions::Versions;
use crate::{Error, Result, Timestamp};

/// Objects that are looked at together.
const ROUND: usize = 1_000;

/// Finds objects that no version names.
pub(crate) struct Sweeper {
    pub(crate) index: Arc<RecordIndex>,
    pub(crate) payloads: Arc<PayloadStore>,
    pub(crate) versions: Arc<Versions>,
}

/// One look at all objects of a collection.
struct Look<'a> {
    sweeper: &'a Sweeper,
    scope: &'a Scope,
    /// The end of the grace of what is found.
    until: Timestamp,
    noted: u64,
    /// What was wrong with an item first.
    failed: Option<Error>,
}

/// An object of an item, as its key says.
struct Object {
    key: String,
    /// The version whose plain key it is; none for a key that one write has to itself.
    plain: Option<i64>,
}

impl Sweeper {
    /// Notes objects that no version names, of items that `scope` sees; they go when they still have no name
    /// `grace` later. Returns how many were not noted before. What is wrong with one item holds up no other.
    pub(crate) async fn sweep(&self, grace: Duration, scope: &Scope) -> Result<u64> {
        if self.index.restore_note().await?.as_ref().is_some_and(is_restore_under_way) {
            // Its objects come before its rows.
            return Ok(0);
        }
        if self.payloads.may_be_shared().await? {
            tracing::warn!(collection = %self.index.names.collection, "objects without a version stay: the bucket holds a restored copy of the collection");
            return Ok(0);
        }
        let until = self.index.documents.now().await?.plus(grace);
        let prefix = keys::collection_prefix(&self.index.names.collection)?;
        let mut look = Look { sweeper: self, scope, until, noted: 0, failed: None };
        for name in self.payloads.bucket_names() {
            let mut rounds = self.payloads.bucket(name)?.list(&prefix).try_chunks(ROUND);
            while let Some(objects) = rounds.next().await {
                let mut of_items = BTreeMap::<ItemId, Vec<Object>>::new();
                for object in objects.map_err(|error| error.1)? {
                    if let Some((id, object)) = object_of_item(object.key) {
                        of_items.entry(id).or_default().push(object);
                    }
                }
                look.at(name, of_items).await?;
            }
        }
        look.failed.map_or(Ok(look.noted), Err)
    }

    /// What notes say of objects of these items.
    async fn under_way(&self, ids: &[ItemId]) -> Result<HashSet<(String, String)>> {
        let ids = ids.iter().map(|id| id.bson()).collect();
        let scan = Scan { filter: Filter::any_of("itemId", ids), ..Scan::default() };
        let mut notes = self.index.documents.scan(&self.index.names.gc, scan);
        let mut noted = HashSet::new();
        while let Some(note) = notes.try_next().await? {
            noted.extend(Noted::read(&note).into_iter().flat_map(|note| note.objects));
        }
        Ok(noted)
    }

    /// Those of the objects that no version of the item names.
    async fn unnamed(
        &self,
        head: &Head,
        mut objects: Vec<(String, String)>,
    ) -> Result<Vec<(String, String)>> {
        objects.retain(|object| !head.meta.names(object));
        let own = Scope::of_owner(head.meta.tenant.as_deref());
        let mut rows = self.versions.of_item(head.id, 0, Direction::Ascending, &own);
        while !objects.is_empty()
            && let Some(row) = rows.try_next().await?
        {
            objects.retain(|object| !row.meta.names(object));
        }
        Ok(objects)
    }

    /// Notes them, unless others of the item are noted already. Returns how many are noted by this.
    async fn record_gc_candidates(
        &self,
        head: &Head,
        bucket: &str,
        objects: Vec<(String, String)>,
        until: Timestamp,
    ) -> Result<u64> {
        let found = objects.len() as u64;
        let note = Noted {
            note: Noted::of_unnamed(bucket, head.id),
            id: head.id,
            tenant: head.meta.tenant.clone(),
            at: until,
            objects,
        };
        // One that is there already says what was found before, and since when.
        if !self.payloads.record_gc_candidate(&note, true).await? {
            return Ok(0);
        }
        tracing::info!(collection = %self.index.names.collection, item = %head.id, objects = found, %until, "objects that no version names are removed later");
        self.index.env.fail.hit("sweep.after_note")?;
        Ok(found)
    }
}

impl Look<'_> {
    /// Notes those of a round of objects, by their items, that no version names.
    async fn at(&mut self, bucket: &str, of_items: BTreeMap<ItemId, Vec<Object>>) -> Result<()> {
        let sweeper = self.sweeper;
        let ids: Vec<ItemId> = of_items.keys().copied().collect();
        let under_way = sweeper.under_way(&ids).await?;
        let heads = sweeper.index.heads(&ids).await?;
        for (id, objects) in of_items {
            // What is left of erased items has notes of its own.
            let head = heads.get(&id).filter(|head| !head.erased);
            let Some(head) = head.filter(|head| self.scope.sees(head.meta.tenant.as_deref())) else {
                continue;
            };
            let objects: Vec<(String, String)> = objects
                .into_iter()
                .filter(|object| object.plain.is_none_or(|ov| ov <= head.ov))
                .map(|object| (bucket.to_owned(), object.key))
                .filter(|object| !under_way.contains(object))
                .collect();
            match sweeper.unnamed(head, objects).await {
                Ok(objects) if objects.is_empty() => {}
                Ok(objects) => {
                    self.noted += sweeper.record_gc_candidates(head, bucket, objects, self.until).await?;
                }
                Err(error) => {
                    tracing::warn!(collection = %sweeper.index.names.collection, item = %id, %error, "which objects its versions name cannot be said: all of them stay");
                    self.failed = self.failed.take().or(Some(error));
                }
            }
        }
        Ok(())
    }
}

/// The item whose object this is, if the key is one that this library writes.
fn object_of_item(key: String) -> Option<(ItemId, Object)> {
    let (id, ov, suffix) = match keys::parse_item(&key) {
        Some(item) => (item.id, item.ov, item.suffix),
        None => {
            let property = keys::parse_property(&key)?;
            (property.id, property.ov, property.suffix)
        }
    };
    let plain = suffix.is_none().then_some(ov);
    Some((id.parse().ok()?, Object { key, plain }))
}

//! Erasing an item for good: what is left of its versions is their numbers.
//!
//! The commit of the ERASE row makes everything below it absent to every reader; what follows here takes the
//! bytes away, and may be begun again at any point, by any process. Rows become stubs first, and objects are
//! looked for after that: whoever still puts an object of the item finds, when it writes down that it has,
//! that the row is no longer the one it stored, and takes the object back (see `flush.rs`). What a process
//! put that died before it could look, or what a network delivers late, is found by the note that has the
//! item's objects looked for once more.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bson::oid::ObjectId;
use bson::{Document, doc};
use futures::{StreamExt as _, TryStreamExt as _};

use super::engine::Engine;
use super::gc::Noted;
use super::model::{Head, ItemId, Op, Row};
use super::scope::TENANT;
use crate::documents::{Batch, Direction, Filter, Guard, Outcome, Scan, Write};
use crate::objects::{ObjectStorage, keys};
use crate::{Error, Result, Timestamp};

/// Versions per round.
const ROUND: usize = 256;
/// Objects removed at once.
const PARALLEL: usize = 16;
/// When the objects of an erased item are looked for again: later than any put that was under way can arrive.
pub(super) const AGAIN_MILLIS: i64 = 24 * 3_600_000;

/// The field of a note that has an erased item looked at again, from then on.
pub(super) const DUE: &str = "eraseAgainAt";

impl Engine {
    /// Removes everything of an erased item but the numbers of its versions. Resumable at any point.
    pub(crate) async fn erase(&self, erasure: &Row) -> Result<()> {
        self.note_erasure(erasure).await?;
        self.env.fail.hit("erase.after_note")?;
        // Before anything goes every reader must see that it may. (A head that lags, or that was brought back
        // before this library kept the numbers.)
        self.roll_forward(erasure.id).await?;
        let mut rows = self.rows_of(erasure.id).try_chunks(ROUND);
        while let Some(rows) = rows.next().await {
            let rows = rows.map_err(|error| error.1)?;
            self.strip(rows.into_iter().filter(|row| !row.op.is_bare()).collect()).await?;
        }
        self.env.fail.hit("erase.after_rows")?;
        self.remove_prefix(erasure.id).await?;
        self.env.fail.hit("erase.after_objects")?;
        self.documents.purge(&self.names.ver.database).await
    }

    /// Takes the objects of these versions away, then everything from their rows but the numbers.
    async fn strip(&self, rows: Vec<Row>) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        self.remove_objects_of(&rows).await?;
        let mut batch = Batch::new();
        for row in &rows {
            // While an object has yet to be stored, somebody may store it after the look above; that changes
            // the row.
            let guard = row.unflushed_since.map_or(Guard::Any, |since| Guard::Equals {
                field: "unflushedSince".into(),
                value: since.into(),
            });
            batch.push(&self.names.ver, Write::put(row.erased().stored(), guard));
        }
        let outcomes = self.documents.apply(batch).await?;
        let stored: Vec<Row> = rows
            .into_iter()
            .zip(outcomes)
            .filter(|(_, outcome)| *outcome == Outcome::Refused)
            .map(|(row, _)| row)
            .collect();
        if stored.is_empty() {
            return Ok(());
        }
        // Nobody stores what is stored: now the objects are all there are.
        self.remove_objects_of(&stored).await?;
        let mut batch = Batch::new();
        for row in stored {
            batch.push(&self.names.ver, Write::put(row.erased().stored(), Guard::Any));
        }
        self.documents.apply(batch).await.map(drop)
    }

    /// Whatever lies where the item's objects lie. Returns how many there were.
    pub(super) async fn remove_prefix(&self, id: ItemId) -> Result<u64> {
        let mut removed = 0;
        for (bucket, prefix) in self.prefixes(id)? {
            let mut found = bucket.list(&prefix);
            while let Some(object) = found.try_next().await? {
                bucket.delete(&object.key).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// An object that lies where those of the item lay.
    pub(super) async fn left_of(&self, id: ItemId) -> Result<Option<String>> {
        for (bucket, prefix) in self.prefixes(id)? {
            if let Some(object) = bucket.list(&prefix).try_next().await? {
                return Ok(Some(object.key));
            }
        }
        Ok(None)
    }

    /// Where objects of an item may lie. The original library put those of its properties elsewhere, and
    /// recorded them in the documents alone.
    fn prefixes(&self, id: ItemId) -> Result<Vec<(Arc<dyn ObjectStorage>, String)>> {
        let Some(space) = &self.space else { return Ok(Vec::new()) };
        let mut prefixes = vec![keys::item_prefix(&self.names.collection, &id.to_string())?];
        let collection = self.names.collection.trim().to_lowercase();
        for path in self.settings.map.base64.keys() {
            let property = path.replace("[]", "");
            prefixes.extend(
                [property.to_lowercase(), property].map(|property| format!("{collection}/{property}/{id}/")),
            );
        }
        prefixes.sort();
        prefixes.dedup();
        let mut places = Vec::new();
        for name in places_of(space) {
            let bucket = self.bucket(name)?;
            places.extend(prefixes.iter().map(|prefix| (Arc::clone(&bucket), prefix.clone())));
        }
        Ok(places)
    }

    async fn remove_objects_of(&self, rows: &[Row]) -> Result<()> {
        let removals: Vec<_> = rows.iter().map(|row| self.remove_objects(row, None)).collect();
        futures::stream::iter(removals).buffer_unordered(PARALLEL).try_collect().await
    }

    /// Removes the objects that a version names, but those that `head` needs.
    pub(super) async fn remove_objects(&self, row: &Row, head: Option<&Head>) -> Result<()> {
        self.cache.invalidate(&(self.number, row.id, row.ov));
        if self.space.is_none() {
            return Ok(());
        }
        let needed: HashSet<_> = head.into_iter().flat_map(|head| head.content.objects()).collect();
        self.discard(row.content.objects().filter(|object| !needed.contains(object))).await
    }

    /// Removes the objects again that were stored for rows that are no longer what they were, if that is
    /// because their items were erased, or because something newer took their place where versions are not
    /// kept.
    pub(super) async fn take_back(&self, rows: &[&Row]) -> Result<()> {
        let ids = rows.iter().map(|row| row.row_id.into()).collect();
        let found = self.documents.get_stored(&self.names.ver, ids).await?;
        let now: HashMap<ObjectId, Op> = found
            .iter()
            .map(|stored| Row::read(stored).map(|row| (row.row_id, row.op)))
            .collect::<Result<_>>()?;
        for row in rows {
            if let Err(error) = self.take_back_one(row, now.get(&row.row_id).copied()).await {
                tracing::warn!(item = %row.id, ov = row.ov, %error, "an object that was stored in vain is left to the clean-up");
                self.leave_to_clean_up(row).await?;
            }
        }
        Ok(())
    }

    async fn take_back_one(&self, row: &Row, now: Option<Op>) -> Result<()> {
        match now {
            Some(Op::Erased) => self.remove_objects(row, None).await,
            // Rows go where versions are not kept, or went with their item before there were stubs.
            None => match self.head(row.id).await? {
                Some(head) if !head.erased => {
                    if self.settings.versioning || head.content.payload.ov == row.ov {
                        return Ok(());
                    }
                    self.remove_objects(row, Some(&head)).await
                }
                _ => self.remove_objects(row, None).await,
            },
            Some(_) => Ok(()),
        }
    }

    /// Notes the objects of a row like those of a commit that never came: the clean-up looks which of them
    /// are needed.
    async fn leave_to_clean_up(&self, row: &Row) -> Result<()> {
        let noted = Noted {
            note: format!("upload/{}", self.env.random.object_id()),
            id: row.id,
            tenant: row.content.tenant.clone(),
            at: self.documents.now().await?,
            objects: row.content.objects().map(|(bucket, key)| (bucket.to_owned(), key.to_owned())).collect(),
        };
        self.note(&noted, true).await.map(drop)
    }

    /// Sees to it that the item's objects are looked for once more, whatever becomes of this process.
    async fn note_erasure(&self, erasure: &Row) -> Result<()> {
        if self.space.is_none() {
            return Ok(());
        }
        let now = self.documents.now().await?;
        let id = erasure.id;
        let mut note = doc! { "_id": format!("erased/{id}"), "itemId": id.bson(), "ov": erasure.ov, "notedAt": now, DUE: now.plus_millis(AGAIN_MILLIS) };
        note.extend(erasure.content.tenant.as_deref().map(|tenant| (TENANT.to_owned(), tenant.into())));
        let mut batch = Batch::new();
        batch.push(&self.names.gc, Write::put(note, Guard::Any));
        self.documents.apply(batch).await.map(drop)
    }

    /// Works a note of an erasure off, if it is due. Returns how many objects had come back.
    pub(super) async fn erase_again(&self, note: &Document, now: Timestamp) -> Result<u64> {
        let malformed = || Error::validation("a note of an erasure names no item, or no time");
        let due = note.get_datetime(DUE).map_err(|_| malformed())?;
        if Timestamp::from(*due) > now {
            return Ok(0);
        }
        let id = ItemId::new(note.get_object_id("itemId").map_err(|_| malformed())?);
        if self.space.is_none() {
            // Somebody who has the storage will look.
            return Ok(0);
        }
        // The note says what was to be done; the row, that it may be.
        let is_erased = self.newest_row(id).await?.is_some_and(|row| row.op == Op::Erase);
        let removed = if is_erased { self.remove_prefix(id).await? } else { 0 };
        let Some(note) = note.get("_id").cloned() else { return Err(malformed()) };
        let mut batch = Batch::new();
        batch.push(&self.names.gc, Write::Delete { id: note, guard: Guard::Any });
        self.documents.apply(batch).await?;
        Ok(removed)
    }

    pub(super) fn rows_of(&self, id: ItemId) -> futures::stream::BoxStream<'static, Result<Row>> {
        let scan = Scan {
            filter: Filter::eq("itemId", id.bson()),
            order: vec![("ov".into(), Direction::Ascending)],
            without: vec!["inline".into(), "riders".into()],
            ..Scan::default()
        };
        self.scan_rows(scan)
    }
}

/// The buckets in which objects lie, each once.
fn places_of(space: &super::engine::Space) -> impl Iterator<Item = &str> {
    let content = (space.content != space.json).then_some(space.content.as_str());
    std::iter::once(space.json.as_str()).chain(content)
}

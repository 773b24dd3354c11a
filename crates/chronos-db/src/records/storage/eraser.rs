//! Erasing an item for good: what is left of its versions is their numbers.
//!
//! The commit of the ERASE row makes everything below it absent to every reader; what follows here takes the
//! bytes away, and may be begun again at any point, by any process. Rows become stubs first, and objects are
//! looked for after that: a process that still puts an object of the item finds, when it writes down that it
//! has, that the row is no longer the one it stored, and takes the object back (see `flush/storer.rs`). What
//! a process put that died before it could look, or what a network delivers late, is found by the note that
//! has the item's objects looked for once more.

use crate::records::index::RecordIndex;
use crate::records::storage::payload_store::PayloadStore;
use std::collections::BTreeSet;
use std::sync::Arc;

use bson::{Document, doc};
use futures::{StreamExt as _, TryStreamExt as _};

use crate::documents::{Batch, Guard, Outcome, Write};
use crate::objects::keys;
use crate::records::index::scope::{Scope, TENANT};
use crate::records::manifests::Manifests;
use crate::records::model::{ItemId, Op, Row, VersionSelector};
use crate::records::storage::erasures::{ErasureCounts, ErasureRecord, Erasures};
use crate::records::storage::notes::{DUE, Noted};
use crate::{Error, Result, Timestamp};

/// Versions per round.
const ROUND: usize = 256;
/// When the objects of an erased item are looked for again: later than any put that was under way can arrive.
pub(crate) const AGAIN_MILLIS: i64 = 24 * 3_600_000;

/// Takes away what is left of erased items.
pub(crate) struct Eraser {
    pub(crate) index: Arc<RecordIndex>,
    pub(crate) payloads: Arc<PayloadStore>,
    pub(crate) manifests: Arc<Manifests>,
    pub(crate) erasures: Erasures,
}

impl Eraser {
    pub(crate) fn new(
        index: Arc<RecordIndex>,
        payloads: Arc<PayloadStore>,
        manifests: Arc<Manifests>,
    ) -> Self {
        let erasures = Erasures::new(index.clone());
        Self { index, payloads, manifests, erasures }
    }

    /// What the records hold of an item of so many versions.
    pub(crate) async fn count(&self, id: ItemId, versions: i64) -> Result<ErasureCounts> {
        let mut counts =
            ErasureCounts { versions: u64::try_from(versions).unwrap_or(0), ..ErasureCounts::default() };
        for (_, key) in self.objects(id).await? {
            let kind = if keys::parse_item(&key).is_some() { &mut counts.objects } else { &mut counts.blobs };
            *kind += 1;
        }
        counts.manifests = self.manifests.count_holding(id).await?;
        Ok(counts)
    }

    /// Bucket and key of every object that versions of an item name, whether it is stored already or not, and
    /// of what else lies where they lie.
    pub(crate) async fn objects(&self, id: ItemId) -> Result<BTreeSet<(String, String)>> {
        let mut objects = BTreeSet::new();
        if self.payloads.buckets.is_none() {
            return Ok(objects);
        }
        let owned = |(bucket, key): (&str, &str)| (bucket.to_owned(), key.to_owned());
        let mut rows = self.index.rows_of(id);
        while let Some(row) = rows.try_next().await? {
            objects.extend(row.meta.objects().map(owned));
        }
        for row in self.rolled_up(id).await? {
            objects.extend(row.meta.objects().map(owned));
        }
        // Without versioning the head may outlive its rows.
        if let Some(head) = self.index.head(id).await? {
            objects.extend(head.meta.objects().map(owned));
        }
        objects.extend(self.payloads.found_of(id).await?);
        Ok(objects)
    }

    /// The rows of an item that left the index.
    async fn rolled_up(&self, id: ItemId) -> Result<Vec<Row>> {
        if self.payloads.buckets.is_none() {
            return Ok(Vec::new());
        }
        self.manifests.rows_of(&Scope::All, id, VersionSelector::Latest).await
    }

    /// Writes down what an erasure will take away, before anything goes.
    async fn begin(&self, erasure: &Row) -> Result<()> {
        let Some(certificate) = erasure.certificate else { return Ok(()) };
        if self.erasures.get(certificate).await?.is_some() {
            return Ok(());
        }
        let record = ErasureRecord {
            certificate,
            tenant: erasure.meta.tenant.clone(),
            collection: self.index.names.collection.clone(),
            item: Some(erasure.id),
            counts: self.count(erasure.id, erasure.ov).await?,
            is_counted: false,
            backups_due: Vec::new(),
            certified: None,
            again_at: None,
        };
        self.erasures.begin(&record).await?;
        self.index.env.fail.hit("erase.after_count")
    }

    /// Removes everything of an erased item but the numbers of its versions. Resumable at any point.
    pub(crate) async fn erase(&self, erasure: &Row) -> Result<()> {
        self.begin(erasure).await?;
        self.note_erasure(erasure).await?;
        self.index.env.fail.hit("erase.after_note")?;
        // Before anything goes every reader must see that it may. (A head that lags, or that was brought back
        // before this library kept the numbers.)
        self.index.roll_forward(erasure.id).await?;
        let mut rows = self.index.rows_of(erasure.id).try_chunks(ROUND);
        while let Some(rows) = rows.next().await {
            let rows = rows.map_err(|error| error.1)?;
            self.strip(rows.into_iter().filter(|row| !row.op.is_bare()).collect()).await?;
        }
        self.index.env.fail.hit("erase.after_rows")?;
        // Now that the rows in the index are stubs, no roll-up takes content of the item along any more.
        self.payloads.remove_objects_of(&self.rolled_up(erasure.id).await?).await?;
        if !self.index.env.fail.skips("guard.rewrite") {
            self.manifests.rewrite_without(erasure.id).await?;
        }
        self.index.env.fail.hit("erase.after_manifests")?;
        self.payloads.remove_prefix(erasure.id).await?;
        self.index.env.fail.hit("erase.after_objects")?;
        self.index.documents.purge(&self.index.names.ver.database).await
    }

    /// Takes the objects of these versions away, then everything from their rows but the numbers.
    async fn strip(&self, rows: Vec<Row>) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        self.payloads.remove_objects_of(&rows).await?;
        let mut batch = Batch::new();
        for row in &rows {
            // While an object has yet to be stored, another process may store it after the look above; that
            // changes the row.
            let guard = row.unflushed_since.map_or(Guard::Any, |since| Guard::Equals {
                field: "unflushedSince".into(),
                value: since.into(),
            });
            batch.push(&self.index.names.ver, self.numbers_left(row, guard)?);
        }
        let outcomes = self.index.documents.apply(batch).await?;
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
        self.payloads.remove_objects_of(&stored).await?;
        let mut batch = Batch::new();
        for row in stored {
            batch.push(&self.index.names.ver, self.numbers_left(&row, Guard::Any)?);
        }
        self.index.documents.apply(batch).await.map(drop)
    }

    fn numbers_left(&self, row: &Row, guard: Guard) -> Result<Write> {
        if self.index.env.fail.skips("guard.stubs") {
            return Ok(Write::Delete { id: row.row_id.into(), guard });
        }
        Ok(Write::put(self.stub(row)?.stored(), guard))
    }

    /// What is left of a version. Counters that are not there yet count it by that.
    fn stub(&self, row: &Row) -> Result<Row> {
        Ok(row.erased(self.index.settings.rules.of_version(&row.meta)?))
    }

    /// Removes the objects again that were stored for rows that are no longer what they were, if that is
    /// because their items were erased, or because something newer took their place where versions are not
    /// kept.
    pub(crate) async fn take_back(&self, rows: &[&Row]) -> Result<()> {
        if self.index.env.fail.skips("guard.take_back") {
            return Ok(());
        }
        let now = self.index.ops_of(rows.iter().map(|row| row.row_id)).await?;
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
            Some(Op::Erased) => self.payloads.remove_objects(row, None).await,
            // Rows go where versions are not kept, or went with their item before there were stubs.
            None => match self.index.head(row.id).await? {
                Some(head) if !head.erased => {
                    if self.index.settings.versioning || head.meta.payload.ov == row.ov {
                        return Ok(());
                    }
                    self.payloads.remove_objects(row, Some(&head)).await
                }
                _ => self.payloads.remove_objects(row, None).await,
            },
            Some(_) => Ok(()),
        }
    }

    /// Notes the objects of a row like those of a commit that never came: the clean-up looks which of them
    /// are needed.
    async fn leave_to_clean_up(&self, row: &Row) -> Result<()> {
        let noted = Noted {
            note: format!("upload/{}", self.index.env.random.object_id()),
            id: row.id,
            tenant: row.meta.tenant.clone(),
            at: self.index.documents.now().await?,
            objects: row.meta.objects().map(|(bucket, key)| (bucket.to_owned(), key.to_owned())).collect(),
        };
        self.payloads.record_gc_candidate(&noted, true).await.map(drop)
    }

    /// Sees to it that the item's objects are looked for once more, whatever becomes of this process.
    async fn note_erasure(&self, erasure: &Row) -> Result<()> {
        if self.payloads.buckets.is_none() {
            return Ok(());
        }
        let now = self.index.documents.now().await?;
        let id = erasure.id;
        let mut note = doc! { "_id": format!("erased/{id}"), "itemId": id.bson(), "ov": erasure.ov, "notedAt": now, DUE: now.plus_millis(AGAIN_MILLIS) };
        note.extend(erasure.meta.tenant.as_deref().map(|tenant| (TENANT.to_owned(), tenant.into())));
        let mut batch = Batch::new();
        batch.push(&self.index.names.gc, Write::put(note, Guard::Any));
        self.index.documents.apply(batch).await.map(drop)
    }

    /// Works a note of an erasure off, if it is due. Returns how many objects had come back.
    pub(crate) async fn erase_again(&self, note: &Document, now: Timestamp) -> Result<u64> {
        let malformed = || Error::validation("a note of an erasure names no item, or no time");
        let due = note.get_datetime(DUE).map_err(|_| malformed())?;
        if Timestamp::from(*due) > now {
            return Ok(0);
        }
        let id = ItemId::new(note.get_object_id("itemId").map_err(|_| malformed())?);
        if self.payloads.buckets.is_none() {
            // A process that has the storage will look.
            return Ok(0);
        }
        // The note says what was to be done; the row, that it may be.
        let is_erased = self.index.newest_row(id).await?.is_some_and(|row| row.op == Op::Erase);
        let looks = is_erased && !self.index.env.fail.skips("guard.second_look");
        let removed = if looks { self.payloads.remove_prefix(id).await? } else { 0 };
        let Some(note) = note.get("_id").cloned() else { return Err(malformed()) };
        let mut batch = Batch::new();
        batch.push(&self.index.names.gc, Write::Delete { id: note, guard: Guard::Any });
        self.index.documents.apply(batch).await?;
        Ok(removed)
    }
}

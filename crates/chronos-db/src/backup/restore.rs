//! Building a collection from a backup: the log is written again, some rows at a time, in the order of its numbers.
//!
//! Of some rows the objects come first, then the numbers are taken, then the rows and the heads follow, and then the
//! note of how far the restore is. So whatever becomes of it, a reader sees the collection as it was at some number,
//! and another restore goes on there; everything is the same however often it is written. The note is there before
//! anything else: writers wait for its end.

use std::collections::HashMap;
use std::sync::Arc;

use bson::{Document, doc};
use futures::{StreamExt as _, TryStreamExt as _};

use super::catalog::{self, Chain};
use super::format::BackupKind;
use super::location::BackupLocation;
use super::member::Entry;
use super::target::{Placed, Target, id_of_void};
use crate::documents::{Batch, Guard, Outcome, Write};
use crate::objects::PutOptions;
use crate::records::{
    CV, Head, InlineObject, ItemId, KEPT, Op, RESTORING, Row, STABLE, Scope, VersionSelector, Workers, number,
};
use crate::{Error, ErrorKind, Result, Timestamp};

/// Rows that are written at once, and about so many bytes.
const ROWS: usize = 500;
const BYTES: usize = 4 * 1024 * 1024;
/// Objects that are put at once.
const PARALLEL: usize = 16;

/// How far a restore is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Rows and versions that this run wrote.
    pub(super) rows: u64,
    pub(super) versions: u64,
    pub(super) bytes: u64,
    /// Versions that were damaged when they were backed up.
    pub(super) damaged: u64,
    /// The last number that is there.
    pub(super) cv: i64,
    /// The collection was there as a whole already.
    pub(super) was_complete: bool,
}

/// Restores one collection.
pub(super) struct Restorer {
    pub(super) workers: Arc<Workers>,
    pub(super) location: BackupLocation,
    pub(super) chain: Chain,
    pub(super) target: Target,
    pub(super) which: VersionSelector,
}

/// Rows that are written together.
#[derive(Default)]
pub(super) struct Chunk {
    pub(super) rows: Vec<Row>,
    pub(super) objects: Vec<InlineObject>,
    pub(super) bytes: usize,
    pub(super) versions: u64,
    pub(super) damaged: u64,
}

impl Restorer {
    pub(super) async fn run(&self) -> Result<Progress> {
        let index = &self.workers.index;
        self.check()?;
        let note = self.begin().await?;
        let done = number(&note, "done").unwrap_or(-1);
        let mut progress = Progress { cv: done, ..Progress::default() };
        if note.get_bool("finished").unwrap_or(false) {
            return Ok(Progress { was_complete: true, ..progress });
        }
        if done < 0 {
            self.mark_copy().await?;
        }
        self.workers.schema.ensure_indexes(&self.target.scope).await?;
        if self.chain.kind() == BackupKind::State {
            self.state(done, &mut progress).await?;
            index.env.fail.hit("restore_backup.before_end")?;
            return Ok(progress);
        }
        let mut chunk = Chunk::default();
        // The number behind those that are planned.
        let mut next = done + 1;
        for segment in self.chain.segments.iter().filter(|segment| segment.last_cv > done) {
            for member in &segment.members {
                if member.last_cv <= done || !self.reaches(member.first_cv, member.earliest) {
                    continue;
                }
                for entry in catalog::entries(&self.location, &self.chain, segment, member).await? {
                    if entry.cv()? > done {
                        self.plan(entry, &mut next, &mut chunk, &mut progress).await?;
                    }
                }
            }
        }
        if let Some(end) = self.end() {
            self.fill_up(end + 1, &mut next, &mut chunk, &mut progress).await?;
        }
        self.write(&mut chunk, &mut progress).await?;
        index.env.fail.hit("restore_backup.before_end")?;
        Ok(progress)
    }

    /// That the collection can hold what is in the backup.
    fn check(&self) -> Result<()> {
        let is_log = self.chain.kind() == BackupKind::Log;
        if is_log != self.workers.index.settings.versioning {
            let (of, to) = if is_log { ("keeps", "keeps none") } else { ("kept no", "keeps them") };
            return Err(Error::validation(format!(
                "the collection that was backed up {of} versions, and the one that it is restored to {to}"
            )));
        }
        if !is_log && self.which != VersionSelector::Latest {
            return Err(Error::validation(
                "the collection kept no versions: it can be restored as it was backed up, and to no other point",
            ));
        }
        Ok(())
    }

    /// That everything is there: writers go on from here.
    pub(super) async fn finish(&self) -> Result<()> {
        let index = &self.workers.index;
        let Some(mut note) = index.restore_note().await? else {
            return Err(Error::database("the note of the restore is gone: something else is at work here"));
        };
        note.insert("finished", true);
        let mut batch = Batch::new();
        batch.push(&index.names.counter, Write::put(note, Guard::Any));
        index.documents.apply(batch).await.map(drop)
    }

    /// Up to which number every one gets its row, if that is known beforehand.
    fn end(&self) -> Option<i64> {
        match self.which {
            VersionSelector::Cv(cv) => Some(cv.min(self.chain.last_cv())),
            VersionSelector::At(_) => None,
            _ => Some(self.chain.last_cv()),
        }
    }

    /// Whether there may be something in what begins there.
    fn reaches(&self, first_cv: i64, earliest: Timestamp) -> bool {
        match self.which {
            VersionSelector::Cv(cv) => first_cv <= cv,
            VersionSelector::At(at) => earliest <= at,
            _ => true,
        }
    }

    /// Whether a row is restored. Of an item that was erased since, a part of the past has nothing.
    fn wants(&self, row: &Row) -> bool {
        match self.which {
            VersionSelector::Cv(cv) => row.cv <= cv && !row.op.is_bare(),
            VersionSelector::At(at) => row.at <= at && !row.op.is_bare(),
            _ => row.op != Op::Void,
        }
    }

    /// What the note of this very restore says besides how far it is.
    fn description(&self) -> Document {
        let up_to = match self.which {
            VersionSelector::Cv(cv) => bson::Bson::Int64(cv),
            VersionSelector::At(at) => at.into(),
            _ => bson::Bson::Null,
        };
        let source = &self.target.source;
        doc! {
            "_id": RESTORING,
            "chain": self.chain.id(),
            "database": source.database.as_str(),
            "collection": source.collection.as_str(),
            "whose": source.whose.as_str(),
            "upTo": up_to,
        }
    }

    /// Notes that this restore is under way. The note says how far it is, if it was begun before.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if there is something else.
    async fn begin(&self) -> Result<Document> {
        let index = &self.workers.index;
        let mut described = self.description();
        let there = match index.restore_note().await? {
            Some(note) => note,
            None => {
                let is_empty = !index.holds_any(&Scope::All).await?
                    && index.highest_cv().await?.is_none()
                    && index.last_cv().await?.is_none_or(|last| last < 0);
                if !is_empty {
                    return Err(Error::validation(
                        "there is something in the collection already: a backup is restored to a collection that is not there yet",
                    ));
                }
                described.insert("done", -1_i64);
                described.insert("finished", false);
                let mut batch = Batch::new();
                batch.push(&index.names.counter, Write::insert(described.clone()));
                batch.push(&index.names.counter, Write::insert(doc! { "_id": KEPT }));
                index.documents.apply(batch).await?;
                index.env.fail.hit("restore_backup.after_note")?;
                index
                    .restore_note()
                    .await?
                    .ok_or_else(|| Error::database("the note of the restore is not there").retryable())?
            }
        };
        let own = self.description();
        if own.iter().all(|(key, value)| there.get(key) == Some(value)) {
            return Ok(there);
        }
        Err(Error::validation(
            "the collection is being restored, or was, from another backup or to another point: a backup is restored to a collection that is not there yet",
        ))
    }

    /// Plans the row of a version, after those of the numbers before it that no version took.
    async fn plan(
        &self,
        entry: Entry,
        next: &mut i64,
        chunk: &mut Chunk,
        progress: &mut Progress,
    ) -> Result<()> {
        let is_damaged = entry.damage.is_some();
        let row = match Row::read(&entry.row) {
            Ok(row) => row,
            // It could not be read then either.
            Err(_) if is_damaged => {
                chunk.damaged += 1;
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if !self.wants(&row) {
            return Ok(());
        }
        self.fill_up(row.cv, next, chunk, progress).await?;
        let Placed { mut row, objects } = self.target.place(entry)?;
        self.take_after_shared(&mut row, chunk).await?;
        *next = row.cv + 1;
        chunk.versions += u64::from(!row.op.is_bare());
        chunk.damaged += u64::from(is_damaged);
        chunk.push(row, objects);
        if chunk.is_full() {
            self.write(chunk, progress).await?;
        }
        Ok(())
    }

    /// A deletion or a restore has the payload of an earlier version, which names its files in their new places by
    /// now: its size and checksum are those.
    async fn take_after_shared(&self, row: &mut Row, chunk: &Chunk) -> Result<()> {
        let payload = &mut row.meta.payload;
        if row.op.is_bare() || payload.ov == row.ov || row.meta.refs.is_empty() {
            return Ok(());
        }
        let (id, ov) = (row.id, payload.ov);
        let planned = chunk.rows.iter().rev().find(|planned| planned.id == id && planned.ov == ov);
        let shared = match planned {
            Some(planned) => Some(planned.meta.payload.clone()),
            None => {
                let row = self.workers.versions.row_at(id, VersionSelector::Ov(ov), &Scope::All).await?;
                row.map(|row| row.meta.payload)
            }
        };
        if let Some(shared) = shared {
            (payload.size, payload.checksum) = (shared.size, shared.checksum);
        }
        Ok(())
    }

    /// Plans the rows of numbers without a version, up to `end`.
    async fn fill_up(
        &self,
        end: i64,
        next: &mut i64,
        chunk: &mut Chunk,
        progress: &mut Progress,
    ) -> Result<()> {
        if *next >= end {
            return Ok(());
        }
        let now = self.workers.index.documents.now().await?;
        while *next < end {
            let stored = Row::void(id_of_void(self.chain.id(), *next), *next, now);
            chunk.push(Row::read(&stored)?, Vec::new());
            *next += 1;
            if chunk.is_full() {
                self.write(chunk, progress).await?;
            }
        }
        Ok(())
    }

    /// Writes what is planned.
    async fn write(&self, chunk: &mut Chunk, progress: &mut Progress) -> Result<()> {
        let Chunk { mut rows, objects, bytes, versions, damaged } = std::mem::take(chunk);
        let Some(last) = rows.last().map(|row| row.cv) else {
            progress.damaged += damaged;
            return Ok(());
        };
        let index = &self.workers.index;
        self.put_objects(objects).await?;
        index.env.fail.hit("restore_backup.after_objects")?;
        // Before the rows, so that nobody takes one that is to come for lost.
        self.mark_erasures(&mut rows).await?;
        index.raise(CV, last).await?;
        index.raise(STABLE, last).await?;
        index.env.fail.hit("restore_backup.after_numbers")?;
        for row in rows.iter().filter(|row| !row.op.is_bare()) {
            index.note_own(&row.meta).await?;
            index.note_missing(&row.meta).await?;
        }
        self.insert(&rows).await?;
        index.env.fail.hit("restore_backup.after_rows")?;
        self.put_heads(&rows).await?;
        index.env.fail.hit("restore_backup.after_heads")?;
        self.note_done(last).await?;
        progress.rows += rows.len() as u64;
        progress.versions += versions;
        progress.damaged += damaged;
        progress.bytes += bytes as u64;
        progress.cv = last;
        Ok(())
    }

    /// Notes how far the restore is.
    pub(super) async fn note_done(&self, last: i64) -> Result<()> {
        let index = &self.workers.index;
        let mut note = self.description();
        note.insert("done", last);
        note.insert("finished", false);
        let mut batch = Batch::new();
        batch.push(&index.names.counter, Write::put(note, Guard::Newer { field: "done".into() }));
        index.documents.apply(batch).await.map(drop)
    }

    /// Gives the flusher an erasure to do of which the backup had more than the numbers.
    async fn mark_erasures(&self, rows: &mut [Row]) -> Result<()> {
        let index = &self.workers.index;
        let erasures: Vec<usize> = (0..rows.len()).filter(|at| rows[*at].op == Op::Erase).collect();
        for at in erasures {
            let id = rows[at].id;
            let mut has_content = rows.iter().any(|row| row.id == id && !row.op.is_bare());
            let mut earlier = index.rows_of(id);
            while let (false, Some(row)) = (has_content, earlier.try_next().await?) {
                has_content = !row.op.is_bare();
            }
            if has_content {
                rows[at].unflushed_since = Some(index.documents.now().await?);
            }
        }
        Ok(())
    }

    pub(super) async fn put_objects(&self, objects: Vec<InlineObject>) -> Result<()> {
        let payloads = &self.workers.reader.payloads;
        let puts: Vec<_> = objects
            .into_iter()
            .map(|object| async move {
                let options = PutOptions { content_type: Some(object.content_type), ..PutOptions::default() };
                payloads.bucket(&object.bucket)?.put(&object.key, object.bytes, options).await.map(drop)
            })
            .collect();
        futures::stream::iter(puts).buffer_unordered(PARALLEL).try_collect().await
    }

    pub(super) async fn insert(&self, rows: &[Row]) -> Result<()> {
        let index = &self.workers.index;
        let mut batch = Batch::new();
        for row in rows {
            batch.push(&index.names.ver, Write::insert(row.stored()));
        }
        if batch.operations.is_empty() {
            return Ok(());
        }
        let outcomes = index.documents.apply(batch).await?;
        let there: Vec<&Row> = rows
            .iter()
            .zip(outcomes)
            .filter(|(_, outcome)| *outcome != Outcome::Applied)
            .map(|(row, _)| row)
            .collect();
        if there.is_empty() {
            return Ok(());
        }
        // Written before, by this restore: or by something else?
        let ids = there.iter().map(|row| row.row_id.into()).collect();
        let found = index.documents.get_stored(&index.names.ver, ids).await?;
        let found: HashMap<_, _> = found
            .iter()
            .map(|stored| Row::read(stored).map(|row| (row.row_id, row.cv)))
            .collect::<Result<_>>()?;
        match there.iter().find(|row| found.get(&row.row_id) != Some(&row.cv)) {
            None => Ok(()),
            Some(row) => {
                let message = format!(
                    "something else has written version {} of the collection while it was restored: remove what is there, and restore it anew",
                    row.cv
                );
                Err(Error::new(ErrorKind::Database, message))
            }
        }
    }

    /// Puts the heads that follow from the rows.
    async fn put_heads(&self, rows: &[Row]) -> Result<()> {
        let index = &self.workers.index;
        let mut ids: Vec<ItemId> = rows.iter().filter(|row| row.op != Op::Void).map(|row| row.id).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut heads: HashMap<ItemId, Head> = index.heads(&ids).await?;
        let mut changed = HashMap::new();
        for row in rows.iter().filter(|row| row.op != Op::Void) {
            if heads.get(&row.id).is_some_and(|head| head.cv >= row.cv) {
                continue;
            }
            let head = row.head_after(heads.get(&row.id));
            changed.insert(row.id, head.clone());
            heads.insert(row.id, head);
        }
        let mut batch = Batch::new();
        for head in changed.values() {
            batch.push(&index.names.head, Write::put(head.stored(), Guard::Newer { field: "cv".into() }));
        }
        if batch.operations.is_empty() {
            return Ok(());
        }
        index.documents.apply(batch).await.map(drop)
    }
}

impl Chunk {
    pub(super) fn push(&mut self, row: Row, objects: Vec<InlineObject>) {
        self.bytes += objects.iter().map(|object| object.bytes.len()).sum::<usize>()
            + row.inline.as_ref().map_or(0, bytes::Bytes::len)
            + row.meta.indexed.as_bytes().len();
        self.rows.push(row);
        self.objects.extend(objects);
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= ROWS || self.bytes >= BYTES
    }
}

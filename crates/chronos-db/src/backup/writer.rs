//! Writing a backup: what came since the last one.
//!
//! Versions go into files, some files into an index, and the index is created only if no other is there that
//! begins with the same number. Of two that write at once one is refused, takes its files away, and goes on behind
//! the other's. One that dies has written every index up to that point; files that no index names are removed by a
//! later backup, or by an erasure (see `unnamed.rs`). The place is noted before the first file is written.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bson::doc;
use bson::oid::ObjectId;
use futures::TryStreamExt as _;

use super::catalog::{self, Chain};
use super::format::{BackupKind, Subject};
use super::location::BackupLocation;
use super::notes::{self, Reached};
use super::numbers::{self, CHAIN};
use super::pending_segment::{NAMED, PendingSegment, SegmentWriter};
use super::source::Source;
use super::{erase, unnamed};
use crate::documents::{Batch, Direction, Filter, Guard, Scan, Write, raw_bson};
use crate::records::{ItemId, Op, Reader, Watermark, int, without_content};
use crate::{Error, Result};

/// So often a backup of the latest state begins anew because of erasures.
const STARTS: usize = 16;
/// Files that no index names are removed when they are older: the process that wrote them has died.
const ABANDONED: Duration = Duration::from_secs(24 * 3_600);

/// Backs up one collection.
pub(super) struct Writer<'w> {
    pub(super) source: Source,
    pub(super) watermark: &'w Watermark,
    pub(super) location: BackupLocation,
    pub(super) subject: Subject,
}

/// What was written.
#[derive(Clone, Debug, Default)]
pub(super) struct Wrote {
    pub(super) chain: String,
    /// The last number that was backed up before, and is now.
    pub(super) from: i64,
    pub(super) to: i64,
    pub(super) rows: u64,
    pub(super) versions: u64,
    pub(super) members: u64,
    pub(super) bytes: u64,
    pub(super) damaged: u64,
    /// Of what is damaged, the first.
    pub(super) damage: Vec<String>,
}

impl Writer<'_> {
    /// Backs up what came since the last backup.
    pub(super) async fn log(&self) -> Result<Wrote> {
        let stable = self.watermark.stable_cv().await?;
        let mut chain = self.chain(stable).await?;
        let mut wrote = Wrote { chain: chain.id().to_owned(), from: chain.last_cv(), ..Wrote::default() };
        let clean_to = notes::clean_to(&self.source, &self.location, &self.subject).await?;
        if chain.last_cv() < stable {
            // Before the first file and before anything is read: an erasure that does not find the note is over, and
            // what is read from now on is without the item.
            self.note(chain.last_cv(), clean_to).await?;
        }
        let now = self.source.index.documents.now().await?;
        let left = unnamed::remove_abandoned(&self.location, &chain.prefix, now.minus(ABANDONED)).await?;
        if let Some(last) = chain.segments.last() {
            // The process that wrote it may have died before looking at what was erased.
            let erased = self.erased(last.first_cv - 1, last.last_cv).await?;
            self.take_out(&chain, &erased).await?;
        }
        if let Some(first_cv) = left {
            // So may one that wrote files that no index names.
            let erased = self.erased(first_cv - 1, i64::MAX).await?;
            self.take_out(&chain, &erased).await?;
            chain = catalog::sound(&self.location, &chain.prefix).await?;
        }
        while chain.last_cv() < stable {
            let run = self.source.index.env.random.object_id().to_hex();
            let mut entries = self.source.entries(chain.last_cv(), stable);
            while chain.last_cv() < stable {
                let (mut pending, end) =
                    self.segment_writer().fill(&mut entries, &chain, &run, stable).await?;
                let erased = self.to_take_out(&mut pending, chain.last_cv()).await?;
                if !self.commit(&mut chain, pending, end, &mut wrote).await? {
                    chain = catalog::sound(&self.location, &chain.prefix).await?;
                    break;
                }
                // Erased before or while it was read; what is erased from now on is taken out by the erasure, or
                // by the next backup.
                self.take_out(&chain, &erased).await?;
                self.take_out(&chain, &self.erased(stable, i64::MAX).await?).await?;
            }
        }
        wrote.to = chain.last_cv();
        if wrote.to >= 0 {
            self.take_out_of_others(&chain.prefix, clean_to).await?;
            self.note(wrote.to, stable).await?;
        }
        Ok(wrote)
    }

    async fn note(&self, cv: i64, clean_to: i64) -> Result<()> {
        notes::note(&self.source, &self.location, &self.subject, Reached { cv, clean_to }).await
    }

    /// Takes what was erased behind `clean_to` out of the chains of the collection that no backup goes on with: those of
    /// its latest state at earlier times, and of what it was before it was replaced. An erasure does not reach them in a
    /// folder.
    async fn take_out_of_others(&self, current: &str, clean_to: i64) -> Result<()> {
        let erased = self.erased(clean_to, i64::MAX).await?;
        if erased.is_empty() {
            return Ok(());
        }
        for (chain, problems) in catalog::chains(&self.location, &self.subject.prefix()?).await? {
            // `Users` and `users` share a prefix; a chain that has no index yet may be of either.
            let is_own = chain.segments.first().is_none_or(|first| first.subject == self.subject);
            if chain.prefix == current || !is_own {
                continue;
            }
            if let Some(problem) = problems.into_iter().next() {
                return Err(problem.error());
            }
            self.take_out(&chain, &erased).await?;
            self.source.index.env.fail.hit("backup.after_other_chain")?;
        }
        Ok(())
    }

    /// Backs up the latest state of all items, of a collection that keeps no versions.
    pub(super) async fn state(&self, reader: &Arc<Reader>) -> Result<Wrote> {
        let stable = self.watermark.stable_cv().await?;
        self.remove_halves().await?;
        if stable < 0 {
            let chain = self.source.index.env.random.object_id().to_hex();
            return Ok(Wrote { chain, from: -1, to: -1, ..Wrote::default() });
        }
        let clean_to = notes::clean_to(&self.source, &self.location, &self.subject).await?;
        self.note(-1, clean_to).await?;
        for _ in 0..STARTS {
            if let Some((chain, wrote)) = self.whole_state(reader, stable).await? {
                self.take_out_of_others(&chain.prefix, clean_to).await?;
                self.note(wrote.to, stable).await?;
                return Ok(wrote);
            }
        }
        Err(Error::storage("items are erased all the time, and each time the backup has to begin anew")
            .retryable())
    }

    /// None if an erasure has closed it on the way: it may have taken files away that no index names yet.
    async fn whole_state(&self, reader: &Arc<Reader>, stable: i64) -> Result<Option<(Chain, Wrote)>> {
        let id = self.source.index.env.random.object_id().to_hex();
        let mut chain = Chain::new(format!("{}{id}/", self.subject.prefix()?));
        let mut wrote = Wrote { chain: id.clone(), from: -1, to: -1, ..Wrote::default() };
        let mut entries = self.source.state(reader);
        while !chain.is_complete() {
            let (mut pending, mut end) =
                self.segment_writer().fill(&mut entries, &chain, &id, i64::MAX).await?;
            pending.kind = BackupKind::State;
            pending.complete = end == i64::MAX;
            if pending.complete {
                let last = pending.members.last().map_or(-1, |last| last.last_cv);
                end = last.max(stable).max(chain.last_cv() + 1);
            }
            if !self.commit(&mut chain, pending, end, &mut wrote).await? {
                return Ok(None);
            }
        }
        self.take_out(&chain, &self.erased(stable, i64::MAX).await?).await?;
        wrote.to = chain.last_cv();
        Ok(Some((chain, wrote)))
    }

    /// Removes states whose backup has died on the way, when they are a day old.
    async fn remove_halves(&self) -> Result<()> {
        let before = self.source.index.documents.now().await?.minus(ABANDONED);
        for (chain, _) in catalog::chains(&self.location, &self.subject.prefix()?).await? {
            let Some(last) = chain.segments.last() else {
                unnamed::remove_abandoned(&self.location, &chain.prefix, before).await?;
                continue;
            };
            if last.subject != self.subject || last.complete || last.at >= before {
                continue;
            }
            // The indexes last: without them nobody would know of the files.
            for below in ["members/", "index/"] {
                let mut listed = self.location.list(&format!("{}{below}", chain.prefix));
                while let Some(object) = listed.try_next().await? {
                    self.location.delete(&object.key).await?;
                }
            }
        }
        Ok(())
    }

    /// The chain that this collection's backups go on with.
    async fn chain(&self, stable: i64) -> Result<Chain> {
        let prefix = self.subject.prefix()?;
        let known = self.identity(None).await?;
        let chain = catalog::sound(&self.location, &format!("{prefix}{known}/")).await?;
        if self.goes_on(&chain, stable).await? {
            return Ok(chain);
        }
        // The collection was replaced by an older state of itself: its numbers mean something else now.
        let other = self.identity(Some(known)).await?;
        catalog::sound(&self.location, &format!("{prefix}{other}/")).await
    }

    /// The identity of the collection's numbers; another one in place of `wrong`.
    async fn identity(&self, wrong: Option<ObjectId>) -> Result<ObjectId> {
        let index = &self.source.index;
        loop {
            let known = numbers::identity(&self.source).await?;
            if let Some(known) = known.filter(|known| Some(*known) != wrong) {
                return Ok(known);
            }
            let note = doc! { "_id": CHAIN, "chain": index.env.random.object_id() };
            let write = match known {
                None => Write::insert(note),
                Some(known) => Write::put(note, Guard::Equals { field: "chain".into(), value: known.into() }),
            };
            let mut batch = Batch::new();
            batch.push(&index.names.counter, write);
            // Another one may have been faster.
            index.documents.apply(batch).await?;
        }
    }

    /// Whether the chain is of this very collection, and not of one that had other versions under its numbers.
    async fn goes_on(&self, chain: &Chain, stable: i64) -> Result<bool> {
        let Some(last) = chain.segments.last() else { return Ok(true) };
        if last.last_cv > stable {
            return Ok(false);
        }
        let Some(row) = &last.last_row else { return Ok(true) };
        let index = &self.source.index;
        let scan = Scan {
            filter: Filter::eq("cv", int(last.last_cv)),
            limit: Some(1),
            without: without_content(),
            ..Scan::default()
        };
        let found = index.documents.scan_stored(&index.names.ver, scan).try_next().await?;
        // Rows may go; what is there tells.
        let id = match &found {
            Some(found) => raw_bson::get(found, "_id")?.and_then(|id| id.as_object_id()),
            None => return Ok(true),
        };
        Ok(id.is_some_and(|id| id.to_hex() == *row))
    }

    /// Creates the index; whether it did. Otherwise another one has.
    async fn commit(
        &self,
        chain: &mut Chain,
        mut pending: PendingSegment,
        end: i64,
        wrote: &mut Wrote,
    ) -> Result<bool> {
        let damage = std::mem::take(&mut pending.damage);
        let Some(segment) = self.segment_writer().commit(chain, pending, end).await? else {
            return Ok(false);
        };
        wrote.rows += segment.rows();
        wrote.versions += segment.versions;
        wrote.members += segment.members.len() as u64;
        wrote.bytes += segment.bytes();
        wrote.damaged += segment.damaged;
        let room = NAMED.saturating_sub(wrote.damage.len());
        wrote.damage.extend(damage.into_iter().take(room));
        chain.segments.push(segment);
        Ok(true)
    }

    fn segment_writer(&self) -> SegmentWriter<'_> {
        SegmentWriter { source: &self.source, location: &self.location, subject: &self.subject }
    }

    /// The items that were erased behind `after`, up to `up_to`.
    async fn erased(&self, after: i64, up_to: i64) -> Result<HashSet<ItemId>> {
        let numbers = Filter::gt("cv", int(after)).and(Filter::lte("cv", int(up_to)));
        let scan = Scan {
            filter: self.source.scope.narrow(numbers.and(Filter::eq("op", Op::Erase.as_str()))),
            order: vec![("cv".into(), Direction::Ascending)],
            without: without_content(),
            ..Scan::default()
        };
        self.source.index.scan_rows(scan).map_ok(|row| row.id).try_collect().await
    }

    /// Of the items that were erased in these versions, those of which the chain may hold more than their numbers.
    async fn to_take_out(&self, pending: &mut PendingSegment, before: i64) -> Result<HashSet<ItemId>> {
        let mut ids = HashSet::new();
        for id in std::mem::take(&mut pending.erased) {
            let is_new = || async {
                let cvs = numbers::numbers_of_item(&self.source, id).await?;
                Ok::<_, Error>(cvs.is_some_and(|cvs| cvs.iter().all(|cv| *cv > before)))
            };
            if pending.contents.contains(&id) || !is_new().await? {
                ids.insert(id);
            }
        }
        Ok(ids)
    }

    async fn take_out(&self, chain: &Chain, erased: &HashSet<ItemId>) -> Result<()> {
        erase::from_chain(&self.source, &self.location, &chain.prefix, erased).await.map(drop)
    }
}

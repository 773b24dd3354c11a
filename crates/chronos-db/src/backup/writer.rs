//! Writing a backup: what came since the last one.
//!
//! Versions go into files, some files into an index, and the index is created only if no other is there that
//! begins with the same number. Of two that write at once one is refused, takes its files away, and goes on behind
//! the other's. One that dies has written every index up to that point; files that no index names are removed by a
//! later backup.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bson::oid::ObjectId;
use bson::{Bson, doc};
use bytes::Bytes;
use futures::TryStreamExt as _;

use super::catalog::{self, Chain};
use super::erase::{self, CHAIN};
use super::format::{BackupKind, INDEX_TYPE, MEMBER_TYPE, Member, Segment, Subject};
use super::member::{Entry, Filling};
use super::place::Place;
use super::source::Source;
use crate::documents::{Batch, Direction, Filter, Guard, Outcome, Scan, Write, raw_bson};
use crate::records::{ItemId, Op, Reader, Row, Watermark, checksum, int, without_content};
use crate::{Error, Result, Timestamp};

/// Files of one index. So much is written anew at most when a backup that died is begun again.
const MEMBERS: usize = 32;
/// Files that no index names are removed when they are older: whoever wrote them has died.
const ABANDONED: Duration = Duration::from_secs(24 * 3_600);

/// Backs up one collection.
pub(super) struct Writer<'w> {
    pub(super) source: Source,
    pub(super) watermark: &'w Watermark,
    pub(super) place: Place,
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

/// An index that is not written yet.
struct Draft {
    kind: BackupKind,
    complete: bool,
    members: Vec<Member>,
    versions: u64,
    damaged: u64,
    damage: Vec<String>,
    /// Items of which there is content in these versions, and items that were erased in them.
    contents: HashSet<ItemId>,
    erased: Vec<ItemId>,
    last_row: Option<String>,
}

impl Default for Draft {
    fn default() -> Self {
        Self {
            kind: BackupKind::Log,
            complete: true,
            members: Vec::new(),
            versions: 0,
            damaged: 0,
            damage: Vec::new(),
            contents: HashSet::new(),
            erased: Vec::new(),
            last_row: None,
        }
    }
}

/// Damaged versions that are named.
const NAMED: usize = 100;

impl Writer<'_> {
    /// Backs up what came since the last backup.
    pub(super) async fn log(&self) -> Result<Wrote> {
        let stable = self.watermark.stable_cv().await?;
        let mut chain = self.chain(stable).await?;
        let mut wrote = Wrote { chain: chain.id().to_owned(), from: chain.last_cv(), ..Wrote::default() };
        let now = self.source.index.documents.now().await?;
        erase::remove_abandoned(&self.place, &chain, older_than(now, ABANDONED)).await?;
        if let Some(last) = chain.segments.last() {
            // Whoever wrote it may have died before looking at what was erased.
            let erased = self.erased(last.first_cv - 1, last.last_cv).await?;
            self.take_out(&chain, &erased).await?;
        }
        while chain.last_cv() < stable {
            let run = self.source.index.env.random.object_id().to_hex();
            let mut entries = self.source.entries(chain.last_cv(), stable);
            while chain.last_cv() < stable {
                let (mut draft, end) = self.fill(&mut entries, &chain, &run, stable).await?;
                let erased = self.to_take_out(&mut draft, chain.last_cv()).await?;
                if !self.commit(&mut chain, draft, end, &mut wrote).await? {
                    chain = catalog::sound(&self.place, &chain.prefix).await?;
                    break;
                }
                // Erased before or while it was read; what is erased from now on is taken out by the erasure, or
                // by the next backup.
                self.take_out(&chain, &erased).await?;
                self.take_out(&chain, &self.erased(stable, i64::MAX).await?).await?;
            }
        }
        wrote.to = chain.last_cv();
        self.note_folder(wrote.to).await?;
        Ok(wrote)
    }

    /// Backs up the latest state of all items, of a collection that keeps no versions.
    pub(super) async fn state(&self, reader: &Arc<Reader>) -> Result<Wrote> {
        let stable = self.watermark.stable_cv().await?;
        self.remove_halves().await?;
        let id = self.source.index.env.random.object_id().to_hex();
        let mut chain = Chain::new(format!("{}{id}/", self.subject.prefix()?));
        let mut wrote = Wrote { chain: id.clone(), from: -1, to: -1, ..Wrote::default() };
        if stable < 0 {
            return Ok(wrote);
        }
        let mut entries = self.source.state(reader);
        while !chain.is_complete() {
            let (mut draft, mut end) = self.fill(&mut entries, &chain, &id, i64::MAX).await?;
            draft.kind = BackupKind::State;
            draft.complete = end == i64::MAX;
            if draft.complete {
                let last = draft.members.last().map_or(-1, |last| last.last_cv);
                end = last.max(stable).max(chain.last_cv() + 1);
            }
            if !self.commit(&mut chain, draft, end, &mut wrote).await? {
                return Err(Error::storage(format!("the backup {id} is there already")));
            }
        }
        self.take_out(&chain, &self.erased(stable, i64::MAX).await?).await?;
        wrote.to = chain.last_cv();
        self.note_folder(wrote.to).await?;
        Ok(wrote)
    }

    /// Removes states whose backup has died on the way, when they are a day old.
    async fn remove_halves(&self) -> Result<()> {
        let before = older_than(self.source.index.documents.now().await?, ABANDONED);
        for (chain, _) in catalog::chains(&self.place, &self.subject.prefix()?).await? {
            let Some(last) = chain.segments.last() else { continue };
            if last.subject != self.subject || last.complete || last.at >= before {
                continue;
            }
            // The indexes last: without them nobody would know of the files.
            for below in ["members/", "index/"] {
                let mut listed = self.place.list(&format!("{}{below}", chain.prefix));
                while let Some(object) = listed.try_next().await? {
                    self.place.delete(&object.key).await?;
                }
            }
        }
        Ok(())
    }

    /// The chain that this collection's backups go on with.
    async fn chain(&self, stable: i64) -> Result<Chain> {
        let prefix = self.subject.prefix()?;
        let known = self.identity(None).await?;
        let chain = catalog::sound(&self.place, &format!("{prefix}{known}/")).await?;
        if self.goes_on(&chain, stable).await? {
            return Ok(chain);
        }
        // The collection was replaced by an older state of itself: its numbers mean something else now.
        let other = self.identity(Some(known)).await?;
        catalog::sound(&self.place, &format!("{prefix}{other}/")).await
    }

    /// The identity of the collection's numbers; another one in place of `wrong`.
    async fn identity(&self, wrong: Option<ObjectId>) -> Result<ObjectId> {
        let index = &self.source.index;
        loop {
            let known = erase::identity(&self.source).await?;
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

    /// Writes the files of one index. Returns what is to stand in it, and up to which number it is everything: the
    /// last one, or `stable` if there was no more.
    async fn fill(
        &self,
        entries: &mut (impl futures::Stream<Item = Result<Entry>> + Unpin),
        chain: &Chain,
        run: &str,
        stable: i64,
    ) -> Result<(Draft, i64)> {
        let (mut draft, mut filling) = (Draft::default(), Filling::default());
        let mut end = stable;
        while let Some(entry) = entries.try_next().await? {
            draft.take(&entry)?;
            filling.push(&entry)?;
            if !filling.is_full() {
                continue;
            }
            let last = self.put(std::mem::take(&mut filling), chain, run, &mut draft).await?;
            if draft.members.len() == MEMBERS {
                end = last;
                break;
            }
        }
        if !filling.is_empty() {
            self.put(filling, chain, run, &mut draft).await?;
        }
        if draft.members.last().is_none_or(|last| last.last_cv != end) {
            // The last number is of what this handle does not see.
            draft.last_row = None;
        }
        Ok((draft, end))
    }

    /// Stores a file. Returns the number of its last version.
    async fn put(&self, filling: Filling, chain: &Chain, run: &str, draft: &mut Draft) -> Result<i64> {
        let fail = &self.source.index.env.fail;
        fail.hit("backup.before_member")?;
        let (member, file) = filling.pack(run).await?;
        if !self.place.create(&chain.member_key(&member), file, MEMBER_TYPE).await? {
            // A put that was repeated after its answer was lost finds itself.
            let stored = self.place.get(&chain.member_key(&member)).await?;
            if stored.is_none_or(|stored| checksum(&stored) != member.sha256) {
                let message = format!("`{}` of the backup is there already", chain.member_key(&member));
                return Err(Error::storage(message));
            }
        }
        let last = member.last_cv;
        draft.members.push(member);
        fail.hit("backup.after_member")?;
        Ok(last)
    }

    /// Creates the index; whether it did. Otherwise another one has, and the files go.
    async fn commit(&self, chain: &mut Chain, draft: Draft, end: i64, wrote: &mut Wrote) -> Result<bool> {
        let Draft { kind, complete, members, versions, damaged, damage, last_row, .. } = draft;
        let segment = Segment {
            subject: self.subject.clone(),
            chain: chain.id().to_owned(),
            kind,
            complete,
            first_cv: chain.last_cv() + 1,
            last_cv: end,
            revision: 0,
            last_row,
            at: self.source.index.documents.now().await?,
            versions,
            damaged,
            members,
        };
        let file = Bytes::from(segment.file());
        let key = chain.index_key(&segment);
        if !self.place.create(&key, file.clone(), INDEX_TYPE).await?
            && self.place.get(&key).await?.is_none_or(|there| there != file)
        {
            for member in &segment.members {
                self.place.delete(&chain.member_key(member)).await?;
            }
            return Ok(false);
        }
        self.source.index.env.fail.hit("backup.after_index")?;
        wrote.rows += segment.rows();
        wrote.versions += versions;
        wrote.members += segment.members.len() as u64;
        wrote.bytes += segment.bytes();
        wrote.damaged += damaged;
        let room = NAMED.saturating_sub(wrote.damage.len());
        wrote.damage.extend(damage.into_iter().take(room));
        chain.segments.push(segment);
        Ok(true)
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
    async fn to_take_out(&self, draft: &mut Draft, before: i64) -> Result<HashSet<ItemId>> {
        let mut ids = HashSet::new();
        for id in std::mem::take(&mut draft.erased) {
            let is_new = || async {
                let cvs = erase::numbers_of_item(&self.source, id).await?;
                Ok::<_, Error>(cvs.is_some_and(|cvs| cvs.iter().all(|cv| *cv > before)))
            };
            if draft.contents.contains(&id) || !is_new().await? {
                ids.insert(id);
            }
        }
        Ok(ids)
    }

    async fn take_out(&self, chain: &Chain, erased: &HashSet<ItemId>) -> Result<()> {
        erase::from_chain(&self.source, &self.place, &chain.prefix, erased).await.map(drop)
    }

    /// Notes a folder that holds a backup: an erasure that does not reach it names it.
    async fn note_folder(&self, cv: i64) -> Result<()> {
        let Some(folder) = &self.place.folder else { return Ok(()) };
        if cv < 0 {
            return Ok(());
        }
        let index = &self.source.index;
        let folder = folder.display().to_string();
        let id = doc! { "backup": folder.as_str(), "whose": self.subject.whose.as_str() };
        let note = doc! { "_id": Bson::Document(id), "folder": folder, "cv": cv, "at": index.documents.now().await? };
        let mut batch = Batch::new();
        batch.push(&index.names.counter, Write::put(note, Guard::Any));
        let outcome = index.documents.apply(batch).await?;
        debug_assert!(outcome.iter().all(Outcome::is_applied), "nothing guards the note");
        Ok(())
    }
}

impl Draft {
    fn take(&mut self, entry: &Entry) -> Result<()> {
        if let Some(damage) = &entry.damage {
            self.damaged += 1;
            if self.damage.len() < NAMED {
                self.damage.push(format!("version {} of the collection: {damage}", entry.cv()?));
            }
        }
        self.last_row =
            raw_bson::get(&entry.row, "_id")?.and_then(|id| id.as_object_id()).map(|id| id.to_hex());
        match Row::read(&entry.row) {
            Ok(row) if row.op == Op::Erase => self.erased.push(row.id),
            Ok(row) if !row.op.is_bare() => {
                self.versions += 1;
                self.contents.insert(row.id);
            }
            Ok(_) | Err(_) => {}
        }
        Ok(())
    }
}

fn older_than(now: Timestamp, age: Duration) -> Timestamp {
    now.plus_millis(-i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
}

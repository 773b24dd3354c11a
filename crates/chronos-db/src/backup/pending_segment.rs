//! What is written of a backup at once: some files, and the index that names them.

use std::collections::HashSet;

use futures::TryStreamExt as _;

use super::catalog::{self, Chain};
use super::format::{BackupKind, MEMBER_TYPE, MemberFile, Segment, Subject};
use super::location::BackupLocation;
use super::member::{Entry, Filling};
use super::source::Source;
use crate::documents::raw_bson;
use crate::records::{ItemId, Op, Row, checksum};
use crate::{Error, Result};

/// Files of one index. So much is written anew at most when a backup that died is begun again.
const MEMBERS: usize = 32;
/// Damaged versions that are named.
pub(super) const NAMED: usize = 100;

/// An index that is not written yet.
pub(super) struct PendingSegment {
    pub(super) kind: BackupKind,
    pub(super) complete: bool,
    pub(super) members: Vec<MemberFile>,
    versions: u64,
    damaged: u64,
    pub(super) damage: Vec<String>,
    /// Items of which there is content in these versions, and items that were erased in them.
    pub(super) contents: HashSet<ItemId>,
    pub(super) erased: Vec<ItemId>,
    last_row: Option<String>,
}

impl Default for PendingSegment {
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

/// Writes files and indexes of chains.
pub(super) struct SegmentWriter<'d> {
    pub(super) source: &'d Source,
    pub(super) location: &'d BackupLocation,
    pub(super) subject: &'d Subject,
}

impl PendingSegment {
    /// One with nothing in it yet of the latest state of items; `complete` says that nothing follows.
    pub(super) fn of_state(complete: bool) -> Self {
        Self { kind: BackupKind::State, complete, ..Self::default() }
    }

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

impl SegmentWriter<'_> {
    /// Writes the files of one index. Returns what is to stand in it, and up to which number it is everything: the
    /// last one, or `up_to` if there was no more.
    pub(super) async fn fill(
        &self,
        entries: &mut (impl futures::Stream<Item = Result<Entry>> + Unpin),
        chain: &Chain,
        run: &str,
        up_to: i64,
    ) -> Result<(PendingSegment, i64)> {
        let (mut pending, mut filling) = (PendingSegment::default(), Filling::default());
        let mut end = up_to;
        while let Some(entry) = entries.try_next().await? {
            pending.take(&entry)?;
            filling.push(&entry)?;
            if !filling.is_full() {
                continue;
            }
            let last = self.put(std::mem::take(&mut filling), chain, run, &mut pending).await?;
            if pending.members.len() == MEMBERS {
                end = last;
                break;
            }
        }
        if !filling.is_empty() {
            self.put(filling, chain, run, &mut pending).await?;
        }
        if pending.members.last().is_none_or(|last| last.last_cv != end) {
            // The last number is of what this handle does not see.
            pending.last_row = None;
        }
        Ok((pending, end))
    }

    /// Stores a file. Returns the number of its last version.
    async fn put(
        &self,
        filling: Filling,
        chain: &Chain,
        run: &str,
        pending: &mut PendingSegment,
    ) -> Result<i64> {
        let fail = &self.source.index.env.fail;
        fail.hit("backup.before_member")?;
        let (member, file) = filling.pack(run).await?;
        if !self.location.create(&chain.member_key(&member), file, MEMBER_TYPE).await? {
            // A put that was repeated after its answer was lost finds itself.
            let stored = self.location.get(&chain.member_key(&member)).await?;
            if stored.is_none_or(|stored| checksum(&stored) != member.sha256) {
                let message = format!("`{}` of the backup is there already", chain.member_key(&member));
                return Err(Error::storage(message));
            }
        }
        let last = member.last_cv;
        pending.members.push(member);
        fail.hit("backup.after_member")?;
        Ok(last)
    }

    /// Creates the index. If another one has its place, the files go, and there is none.
    pub(super) async fn commit(
        &self,
        chain: &Chain,
        pending: PendingSegment,
        end: i64,
    ) -> Result<Option<Segment>> {
        let PendingSegment { kind, complete, members, versions, damaged, last_row, .. } = pending;
        let fail = &self.source.index.env.fail;
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
        fail.hit("backup.before_index")?;
        if !catalog::create(self.location, chain, &segment).await? {
            for member in &segment.members {
                self.location.delete(&chain.member_key(member)).await?;
            }
            return Ok(None);
        }
        fail.hit("backup.after_index")?;
        Ok(Some(segment))
    }
}

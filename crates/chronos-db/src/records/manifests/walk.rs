//! All rows in manifests, in the order of (itemId, ov), with one block of each level in memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};

use super::entry::ManifestEntry;
use super::live::Live;
use super::pack::PackedRow;
use super::root::Manifests;
use crate::Result;
use crate::records::index::scope::Scope;
use crate::records::model::{ItemId, Row};

/// Manifests that follow each other: those of one level hold different items, or different versions of one.
#[derive(Debug)]
struct Run {
    entries: Vec<Arc<ManifestEntry>>,
    /// The next block: of which manifest, and which of its blocks.
    next: (usize, usize),
    rows: VecDeque<PackedRow>,
}

impl Run {
    /// Stands at the last block that begins at or before `from`, or at the first.
    fn new(mut entries: Vec<Arc<ManifestEntry>>, from: Option<(ItemId, i64)>) -> Self {
        let first = |entry: &ManifestEntry| entry.blocks.first().map(super::entry::Block::first);
        entries.sort_by_key(|entry| first(entry));
        let next = from.map_or((0, 0), |from| {
            let entry = entries.partition_point(|entry| first(entry) <= Some(from)).saturating_sub(1);
            let block = entries.get(entry).map_or(0, |entry| {
                entry.blocks.partition_point(|block| block.first() <= from).saturating_sub(1)
            });
            (entry, block)
        });
        Self { entries, next, rows: VecDeque::new() }
    }

    fn take_next(&mut self) -> Option<(Arc<ManifestEntry>, usize)> {
        let (at, block) = self.next;
        let entry = self.entries.get(at)?;
        self.next = if block + 1 < entry.blocks.len() { (at, block + 1) } else { (at + 1, 0) };
        Some((Arc::clone(entry), block))
    }
}

/// A walk over the rows of manifests, that can be brought up to date.
pub(crate) struct ManifestWalk {
    manifests: Arc<Manifests>,
    scope: Scope,
    /// Only these manifests, and as they are: for a caller that replaces them.
    is_fixed: bool,
    seq: i64,
    runs: Vec<Run>,
    /// Rows up to here were given out, or are not wanted.
    passed: Option<(ItemId, i64)>,
    peeked: Option<PackedRow>,
}

impl Manifests {
    /// Walks over all rows that `scope` sees, of items behind `after`.
    ///
    /// # Errors
    /// As [`entries`](Self::entries).
    pub(crate) async fn walk(self: &Arc<Self>, scope: &Scope, after: Option<ItemId>) -> Result<ManifestWalk> {
        let live = self.entries(scope).await?;
        Ok(ManifestWalk::new(self, scope, &live, after.map(|id| (id, i64::MAX)), false))
    }

    /// Walks over the rows of these manifests, whatever becomes of them.
    pub(crate) fn walk_over(self: &Arc<Self>, entries: Vec<Arc<ManifestEntry>>) -> ManifestWalk {
        let live = Live { seq: 0, entries, pending: Vec::new() };
        ManifestWalk::new(self, &Scope::All, &live, None, true)
    }

    /// All rows that `scope` sees, of items behind `after`, sorted by (itemId, ov).
    pub(crate) fn by_item(
        self: &Arc<Self>,
        scope: &Scope,
        after: Option<ItemId>,
    ) -> BoxStream<'static, Result<Row>> {
        let (manifests, scope) = (Arc::clone(self), scope.clone());
        let begin = async move {
            let walk = manifests.walk(&scope, after).await?;
            Ok(stream::try_unfold(
                walk,
                |mut walk| async move { Ok(walk.next().await?.map(|row| (row, walk))) },
            ))
        };
        stream::once(begin).try_flatten().boxed()
    }
}

impl ManifestWalk {
    fn new(
        manifests: &Arc<Manifests>,
        scope: &Scope,
        live: &Live,
        passed: Option<(ItemId, i64)>,
        is_fixed: bool,
    ) -> Self {
        let mut walk = Self {
            manifests: Arc::clone(manifests),
            scope: scope.clone(),
            is_fixed,
            seq: -1,
            runs: Vec::new(),
            passed,
            peeked: None,
        };
        walk.stand_in(live);
        walk
    }

    /// Goes on in these manifests where it stands.
    fn stand_in(&mut self, live: &Live) {
        let mut levels: BTreeMap<(i32, Option<&str>), Vec<Arc<ManifestEntry>>> = BTreeMap::new();
        for entry in &live.entries {
            levels.entry((entry.level, entry.tenant.as_deref())).or_default().push(Arc::clone(entry));
        }
        self.seq = live.seq;
        self.runs = levels.into_values().map(|entries| Run::new(entries, self.passed)).collect();
        self.peeked = None;
    }

    /// Looks whether other manifests are in use by now, and goes on in these. Who merges the walk with rows
    /// of the index calls it after each page of these, for a row may have gone from there into a manifest.
    ///
    /// # Errors
    /// As [`Manifests::entries`].
    pub(crate) async fn refresh(&mut self) -> Result<()> {
        if !self.is_fixed && self.manifests.switch().await?.seq() != self.seq {
            let live = self.manifests.entries(&self.scope).await?;
            self.stand_in(&live);
        }
        Ok(())
    }

    /// Passes over the rows of all items before this one, without reading what lies between.
    pub(crate) fn seek(&mut self, id: ItemId) {
        let target = Some((id, i64::MIN));
        if self.passed >= target {
            return;
        }
        self.passed = target;
        if self.peeked.as_ref().is_some_and(|row| row.row.id < id) {
            self.peeked = None;
        }
        for run in &mut self.runs {
            while run.rows.front().is_some_and(|front| front.row.id < id) {
                run.rows.pop_front();
            }
            if run.rows.is_empty() {
                let skipped = Run::new(std::mem::take(&mut run.entries), target);
                let next = run.next.max(skipped.next);
                *run = Run { next, ..skipped };
            }
        }
    }

    /// The next row, which stays the next.
    ///
    /// # Errors
    /// `STORAGE_ERROR` that names the manifest if one is missing or damaged.
    pub(crate) async fn peek(&mut self) -> Result<Option<&Row>> {
        self.look().await?;
        Ok(self.peeked.as_ref().map(|packed| &packed.row))
    }

    /// The next row.
    ///
    /// # Errors
    /// As [`peek`](Self::peek).
    pub(crate) async fn next(&mut self) -> Result<Option<Row>> {
        Ok(self.next_packed().await?.map(|packed| packed.row))
    }

    /// The next row, and as it was stored.
    pub(crate) async fn next_packed(&mut self) -> Result<Option<PackedRow>> {
        self.look().await?;
        let next = self.peeked.take();
        if let Some(next) = &next {
            self.passed = Some((next.row.id, next.row.ov));
        }
        Ok(next)
    }

    async fn look(&mut self) -> Result<()> {
        while self.peeked.is_none() {
            if let Err(error) = self.fill().await {
                // It may be gone because another took its place.
                let before = self.seq;
                self.refresh().await?;
                if self.seq == before {
                    return Err(error);
                }
                continue;
            }
            let fronts = self.runs.iter().enumerate();
            let least = fronts
                .filter_map(|(at, run)| run.rows.front().map(|front| ((front.row.id, front.row.ov), at)))
                .min();
            let Some((place, at)) = least else { return Ok(()) };
            let found = self.runs.get_mut(at).and_then(|run| run.rows.pop_front());
            let is_new = self.passed.is_none_or(|passed| place > passed);
            self.peeked = found.filter(|found| is_new && self.scope.sees(found.row.meta.tenant.as_deref()));
        }
        Ok(())
    }

    /// Sees to it that each run has its next row.
    async fn fill(&mut self) -> Result<()> {
        for run in &mut self.runs {
            while run.rows.is_empty() {
                let Some((entry, block)) = run.take_next() else { break };
                run.rows = self.manifests.read_block(&entry, block).await?.into();
            }
        }
        Ok(())
    }
}

//! Rows that are in a manifest, taken out of the index.

use std::sync::Arc;
use std::time::Duration;

use bson::oid::ObjectId;
use futures::TryStreamExt as _;
use futures::stream::BoxStream;

use super::report::Pruned;
use super::retainer::Retainer;
use crate::clock::Moment;
use crate::documents::{Batch, Direction, Filter, Guard, Outcome, Scan, Write};
use crate::records::index::scope::Scope;
use crate::records::index::{PRUNED, VOIDS, without_content};
use crate::records::manifests::ManifestWalk;
use crate::records::model::{ItemId, Op, Row, int};
use crate::records::storage::trim::FollowerPositions;
use crate::{Result, Timestamp};

/// Rows that are removed with one call.
const BATCH: usize = 256;
/// How long a writer may have had a head in hand before it takes a number, and a little more; see
/// `write/commit/fresh.rs`.
const GRACE: Duration = Duration::from_secs(3);
/// Numbers that no version took decide races for writers that stood still, however long: a day is long.
const VOIDS_MILLIS: i64 = 24 * 3_600_000;
/// Objects of manifests that were merged into others stay so long, for readers that are under way.
const RETIRED: Duration = Duration::from_secs(3_600);

impl Retainer {
    /// Rolls up what leaves, then takes what is in manifests out of the index. Resumable at any point, by anyone,
    /// and with several at it.
    pub(crate) async fn prune(
        self: &Arc<Self>,
        scope: &Scope,
        followed: &dyn FollowerPositions,
        level_rows: u64,
        dry_run: bool,
    ) -> Result<Pruned> {
        let rolled_up = self.roll_up(scope, followed, level_rows, dry_run).await?;
        let mut done = Pruned { rolled_up, ..Pruned::default() };
        if dry_run {
            done.versions = done.rolled_up.versions + self.count_pending(scope).await?;
            return Ok(done);
        }
        self.index.env.fail.hit("prune.after_roll_up")?;
        done.versions = self.remove_pending(scope).await?;
        if done.versions > 0 {
            done.voids = self.remove_voids(scope, followed).await?;
        }
        self.manifests.remove_retired(RETIRED).await?;
        Ok(done)
    }

    async fn both(self: &Arc<Self>, scope: &Scope) -> Result<(InBoth, Vec<String>)> {
        let live = self.manifests.entries(scope).await?;
        let rows = InBoth {
            rows: self.index.scan_rows(Scan {
                filter: scope.narrow(Filter::All),
                order: ["itemId", "ov"].map(|path| (path.to_owned(), Direction::Ascending)).to_vec(),
                without: without_content(),
                ..Scan::default()
            }),
            highest_cv: live.pending_entries().iter().map(|entry| entry.cv.to).max(),
            pending: self.manifests.walk_over(live.pending_entries()),
        };
        Ok((rows, live.pending))
    }

    async fn count_pending(self: &Arc<Self>, scope: &Scope) -> Result<u64> {
        let (mut rows, _) = self.both(scope).await?;
        let mut count = 0;
        while rows.next().await?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    /// Removes the rows that are in a manifest as well. Returns how many.
    async fn remove_pending(self: &Arc<Self>, scope: &Scope) -> Result<u64> {
        let mut removed = 0;
        loop {
            let seq = self.manifests.switch().await?.seq();
            match self.remove_pending_once(scope, &mut removed).await {
                Ok(()) => return Ok(removed),
                // A manifest whose place another took meanwhile may be gone.
                Err(error) if error.is_retryable() || self.manifests.switch().await?.seq() == seq => {
                    return Err(error);
                }
                Err(_) => {}
            }
        }
    }

    async fn remove_pending_once(self: &Arc<Self>, scope: &Scope, removed: &mut u64) -> Result<()> {
        // Heads that lagged are right by now, so every reader of one sees, from here on, what leaves.
        let begun = Moment::now(&*self.index.env.clock);
        let (mut rows, pending) = self.both(scope).await?;
        let Some(highest_cv) = rows.highest_cv else { return Ok(()) };
        // Before any of them goes: who follows the log looks into manifests from then on.
        self.index.raise(PRUNED, highest_cv).await?;
        let mut fence = Fence { begun, is_passed: false };
        let mut batch = Vec::with_capacity(BATCH);
        while let Some(row) = rows.next().await? {
            batch.push(row);
            if batch.len() == BATCH {
                *removed += self.remove(std::mem::take(&mut batch), &mut fence).await?;
            }
        }
        *removed += self.remove(batch, &mut fence).await?;
        self.index.env.fail.hit("prune.after_rows")?;
        loop {
            let mut switch = self.manifests.switch().await?;
            let done = |id: &String| pending.contains(id);
            if !switch.in_use.iter().any(|one| one.is_pending && done(&one.id)) {
                return Ok(());
            }
            switch.in_use.iter_mut().filter(|one| done(&one.id)).for_each(|one| one.is_pending = false);
            if self.manifests.switch_to(&switch).await? {
                return Ok(());
            }
        }
    }

    /// Removes these rows, those of one item one after the other, lowest version first: no reader ever finds a
    /// version and not the later ones. What became a stub meanwhile stays.
    async fn remove(&self, mut rows: Vec<Row>, fence: &mut Fence) -> Result<u64> {
        if rows.is_empty() {
            return Ok(0);
        }
        fence.pass(self).await?;
        let mut removed = 0;
        while !rows.is_empty() {
            let outcomes = self.remove_once(&rows).await?;
            self.index.env.fail.hit("prune.after_batch")?;
            removed += outcomes.iter().filter(|outcome| outcome.is_applied()).count() as u64;
            let left = rows.into_iter().zip(outcomes).filter(|(_, outcome)| !outcome.is_applied());
            let left: Vec<Row> = left.map(|(row, _)| row).collect();
            rows = self.still_there(left).await?;
        }
        Ok(removed)
    }

    /// Those of the rows that are still there: another prune that removed the row before one of them kept it from
    /// being removed.
    async fn still_there(&self, rows: Vec<Row>) -> Result<Vec<Row>> {
        if rows.is_empty() {
            return Ok(rows);
        }
        let now = self.index.ops_of(rows.iter().map(|row| row.row_id)).await?;
        Ok(rows.into_iter().filter(|row| now.get(&row.row_id) == Some(&row.op)).collect())
    }

    async fn remove_once(&self, rows: &[Row]) -> Result<Vec<Outcome>> {
        let mut batch = Batch::new();
        let mut last: Option<(ItemId, usize)> = None;
        for row in rows {
            let guard = Guard::Equals { field: "op".into(), value: row.op.as_str().into() };
            let delete = Write::Delete { id: row.row_id.into(), guard };
            let ver = &self.index.names.ver;
            let at = match last {
                Some((item, before)) if item == row.id => batch.push_after(before, ver, delete),
                _ => batch.push(ver, delete),
            };
            last = Some((row.id, at));
        }
        self.index.documents.apply(batch).await
    }

    /// Removes numbers that no version took. They are nobody's, and go with whatever is pruned.
    async fn remove_voids(&self, scope: &Scope, followed: &dyn FollowerPositions) -> Result<u64> {
        let now = self.index.documents.now().await?;
        let before = now.plus_millis(-VOIDS_MILLIS);
        let settled = self.watermark.stable_cv().await?.min(followed.common());
        let mut after = None;
        let mut removed = 0;
        loop {
            let scan = Scan {
                filter: Filter::eq("op", Op::Void.as_str())
                    .and(Filter::lte("cv", int(settled)))
                    .and(Filter::lte("_id", oldest(before))),
                order: vec![("cv".into(), Direction::Ascending)],
                after: after.take(),
                limit: Some(BATCH as u64),
                ..Scan::default()
            };
            let rows: Vec<Row> = self.index.scan_rows(scan).try_collect().await?;
            let Some(last) = rows.last() else { return Ok(removed) };
            after = Some(vec![int(last.cv)]);
            self.index.raise(VOIDS, last.cv).await?;
            let mut batch = Batch::new();
            for row in &rows {
                batch.push(&self.index.names.ver, Write::Delete { id: row.row_id.into(), guard: Guard::Any });
            }
            removed += if scope.is_one_of_several() { 0 } else { rows.len() as u64 };
            self.index.documents.apply(batch).await?;
        }
    }
}

/// The highest `_id` that was given out at a time.
fn oldest(at: Timestamp) -> ObjectId {
    let seconds = u32::try_from(at.as_millis().max(0) / 1_000).unwrap_or(u32::MAX);
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&seconds.to_be_bytes());
    ObjectId::from_bytes(bytes)
}

/// What must have come to its end before a row goes: it decides the race against a writer that read the head before
/// it. Such a writer takes its number within the grace, and once every number up to that is settled, it has won or
/// lost. How old the row says it is does not matter: the clock that it came from may have been set since.
struct Fence {
    /// All rows that may go were there, and in their heads.
    begun: Moment,
    is_passed: bool,
}

impl Fence {
    async fn pass(&mut self, retainer: &Retainer) -> Result<()> {
        if self.is_passed || retainer.index.env.fail.skips("guard.fence") {
            return Ok(());
        }
        self.begun.passed(&*retainer.index.env.clock, GRACE).await;
        retainer.watermark.settled_cv().await?;
        self.is_passed = true;
        Ok(())
    }
}

/// Rows of the index that are in manifests as well, in the order of (itemId, ov), without what they hold.
struct InBoth {
    rows: BoxStream<'static, Result<Row>>,
    pending: ManifestWalk,
    /// Of all that may be in both; none where nothing is.
    highest_cv: Option<i64>,
}

impl InBoth {
    async fn next(&mut self) -> Result<Option<Row>> {
        if self.highest_cv.is_none() {
            return Ok(None);
        }
        while let Some(row) = self.rows.try_next().await? {
            let wanted = (row.id, row.ov);
            self.pending.seek(row.id);
            while self.pending.peek().await?.is_some_and(|known| (known.id, known.ov) < wanted) {
                self.pending.next().await?;
            }
            match self.pending.peek().await? {
                None => return Ok(None),
                // What is left of an erased version never leaves, whatever a manifest had of it.
                Some(known)
                    if (known.id, known.ov) == wanted && known.row_id == row.row_id && !row.op.is_bare() =>
                {
                    return Ok(Some(row));
                }
                Some(_) => {}
            }
        }
        Ok(None)
    }
}

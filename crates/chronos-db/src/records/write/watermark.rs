//! `stable_cv`: the end of the gapless prefix. Nothing at or below it ever changes.
//!
//! A reader follows the rows from a mark on. Writers move the mark, each time a number divisible
//! by [`STEP`] was given out, so that nobody has to follow more than some thousand rows. What a process
//! committed itself it need not read for that.

use super::past::Past;
use crate::records::index::RecordIndex;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

use bson::Bson;
use futures::TryStreamExt as _;
use parking_lot::{Mutex, MutexGuard};

use crate::clock::millis;
use crate::documents::{Direction, Filter, Scan, within};
use crate::records::index::{CV, STABLE, without_content};
use crate::records::model::{ItemId, Op, int, number};
use crate::{Error, Result, Timestamp};

/// How long a writer that has taken a number may need to write its row before the number is closed.
const GRACE: Duration = Duration::from_secs(2);
/// Only what is older than this is rolled forward: the writer itself is probably still at it.
const SETTLED_MILLIS: i64 = 1_000;
/// Rows per step of the mark.
const STEP: i64 = 1_000;
/// Numbers beyond what this process knows at which it reads those of others.
const MAX_TAIL: i64 = 3 * STEP;
/// No crash leaves so many numbers without a row: a counter that says so is damaged.
const MAX_OPEN: i64 = 1 << 20;
/// Runs of numbers that are remembered.
const MAX_RUNS: usize = 1_024;

/// What this process knows of the numbers above the mark.
#[derive(Debug, Default)]
pub(crate) struct Marker(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Numbers whose rows and heads are right, as this process put them: first and last of each run.
    runs: BTreeMap<i64, i64>,
    moving: bool,
    /// The number without a row that ended the last move, and when that was.
    gap: Option<(i64, Timestamp)>,
}

impl Marker {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock()
    }

    /// Whether a move of the mark is under way.
    pub(crate) fn is_moving(&self) -> bool {
        self.lock().moving
    }

    /// The end of what this process knows to be right from `mark` on, and forgets what lies below.
    fn known_from(&self, mark: i64) -> i64 {
        let mut known = self.lock();
        let mut end = mark;
        while let Some(run) = known.runs.first_entry().filter(|run| *run.key() <= end + 1) {
            end = end.max(run.remove());
        }
        end
    }

    /// Whether nothing came to the gap before `next` for so long that its writer must have died.
    fn is_old_gap(&self, next: i64, now: Timestamp) -> bool {
        let mut known = self.lock();
        match known.gap {
            Some((gap, since)) if gap == next => now.as_millis() - since.as_millis() >= millis(GRACE),
            _ => {
                known.gap = Some((next, now));
                false
            }
        }
    }
}

impl Known {
    fn add(&mut self, numbers: &RangeInclusive<i64>) {
        let (mut first, mut last) = (*numbers.start(), *numbers.end());
        if let Some((&before, &end)) = self.runs.range(..=first).next_back()
            && end + 1 >= first
        {
            self.runs.remove(&before);
            first = before;
            last = last.max(end);
        }
        if let Some(end) = self.runs.remove(&(last + 1)) {
            last = end;
        }
        self.runs.insert(first, last);
        while self.runs.len() > MAX_RUNS {
            self.runs.pop_first();
        }
    }
}

/// The turn to move the mark, of one task a process.
pub(crate) struct Moving(Arc<Watermark>);

impl Moving {
    /// Remembers the numbers of a group, and says whether it is the one that moves the mark.
    pub(crate) fn begin(watermark: &Arc<Watermark>, numbers: RangeInclusive<i64>) -> Option<Self> {
        let mut known = watermark.marker.lock();
        known.add(&numbers);
        // One of them is divisible by the step: of all processes that write, one comes by here.
        let is_due = (numbers.end() + 1).div_euclid(STEP) > numbers.start().div_euclid(STEP);
        if !is_due || known.moving {
            return None;
        }
        known.moving = true;
        Some(Self(Arc::clone(watermark)))
    }

    pub(crate) async fn advance_watermark(self) {
        if let Err(error) = self.0.advance_mark().await {
            tracing::debug!(collection = %self.0.index.names.collection, %error, "the mark of the collection stays where it was");
        }
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        self.0.marker.lock().moving = false;
        self.0.rested.notify_waiters();
    }
}

/// What to do about a number without a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AtGap {
    /// Wait for its writer, then close it.
    Wait,
    /// End there, unless it was there some time ago already.
    End,
}

/// How long who only looks waits for the mark to be moved.
const LOOKING: Duration = Duration::from_secs(2);

/// What becomes of heads that lag and of a mark that lies behind, on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mending {
    /// Who only looks leaves them to others, if it may not write, or no majority is there.
    IfPossible,
    Must,
}

impl Mending {
    /// Whether it is done.
    async fn of(self, work: impl Future<Output = Result<()>>) -> Result<bool> {
        if self == Self::Must {
            return work.await.map(|()| true);
        }
        match within(LOOKING, work).await {
            Err(error) if !error.is_forbidden() && !error.is_retryable() => Err(error),
            done => Ok(done.is_ok()),
        }
    }
}

/// How far one step came.
#[derive(Clone, Copy, Debug)]
struct Passed {
    reached: i64,
    /// Up to here rows are old enough, and their heads are right.
    settled: i64,
    /// The number after `reached` has no row yet.
    gap: bool,
}

/// Knows up to where the numbers of a collection are settled.
pub(crate) struct Watermark {
    pub(crate) index: Arc<RecordIndex>,
    marker: Marker,
    pub(crate) past: Past,
    /// A move of the mark has come to its end.
    pub(crate) rested: Notify,
}

impl Watermark {
    pub(crate) fn new(index: Arc<RecordIndex>) -> Self {
        Self { index, marker: Marker::default(), past: Past::default(), rested: Notify::new() }
    }

    /// Whether a move of the mark is under way.
    pub(crate) fn is_moving(&self) -> bool {
        self.marker.is_moving()
    }

    /// The end of the gapless prefix: −1 while the collection is empty. Numbers that were given out before
    /// the call and never got a row are closed on the way, after a grace; lagging heads are rolled forward,
    /// but for those of the last second, whose writers are probably still at it.
    pub(crate) async fn stable_cv(&self) -> Result<i64> {
        self.follow(SETTLED_MILLIS, AtGap::Wait, Mending::IfPossible).await
    }

    /// [`stable_cv`](Self::stable_cv) as far as it is known without waiting. A number without a row that was
    /// there some time ago already is closed.
    pub(crate) async fn stable_now(&self) -> Result<i64> {
        self.follow(SETTLED_MILLIS, AtGap::End, Mending::IfPossible).await
    }

    /// [`stable_cv`](Self::stable_cv) that rolls every lagging head forward.
    pub(crate) async fn settled_cv(&self) -> Result<i64> {
        self.follow(0, AtGap::Wait, Mending::Must).await
    }

    /// The last number given out, and the mark.
    pub(super) async fn counter(&self) -> Result<(Option<i64>, Option<i64>)> {
        let ids = [CV, STABLE].map(Bson::from).to_vec();
        let found = self.index.documents.get(&self.index.names.counter, ids).await?;
        let value = |id: &str| {
            found.iter().find(|doc| doc.get_str("_id").ok() == Some(id)).and_then(|doc| number(doc, "value"))
        };
        Ok((value(CV), value(STABLE)))
    }

    /// Moves the mark as far as that needs no waiting, so that those who look have little to follow.
    pub(crate) async fn advance_mark(&self) -> Result<()> {
        let (Some(last), Some(mark)) = self.counter().await? else { return Ok(()) };
        let known = self.marker.known_from(mark);
        if known > mark {
            self.index.advance_watermark(known).await?;
        }
        // Groups under way give no reason to read: what they leave is known when the next one comes by.
        if last - known >= MAX_TAIL {
            // Others write, too, or have died.
            self.follow(SETTLED_MILLIS, AtGap::End, Mending::Must).await?;
        }
        Ok(())
    }

    /// Follows the rows from the mark on, and moves the mark to where rows are old enough and their heads
    /// known to be right.
    async fn follow(&self, settled_millis: i64, at_gap: AtGap, mending: Mending) -> Result<i64> {
        let ((last, mark), highest) =
            futures::future::try_join(self.counter(), self.index.highest_cv()).await?;
        // A failover may have taken the counter back behind rows that were acknowledged.
        let Some(last) = last.max(highest) else { return Ok(-1) };
        // A collection the legacy library kept has no mark: everything it left lies below it.
        let Some(mark) = mark else { return Ok(last) };
        let mut stable = mark;
        let mut settled = mark;
        while stable < last {
            let passed = self.pass(stable, last, settled_millis, mending).await?;
            if settled == stable {
                settled = passed.settled;
            }
            stable = passed.reached;
            if passed.gap {
                match at_gap {
                    AtGap::Wait => self.index.env.clock.sleep(GRACE).await,
                    AtGap::End if self.marker.is_old_gap(stable + 1, self.index.env.clock.now()) => {}
                    AtGap::End => break,
                }
                let end = self.next_present(stable + 1, last).await?;
                // What another has passed meanwhile may have left the index: that is not a gap. Looked up after
                // the rows, as rows leave below the stored mark alone.
                let passed = self.counter().await?.1.unwrap_or(mark).min(end - 1);
                if passed > stable {
                    settled = settled.max(passed);
                    stable = passed;
                }
                if end - stable > MAX_OPEN {
                    let open = end - stable - 1;
                    let message = format!(
                        "the counter is damaged: {open} numbers behind {stable} were given out and have no row"
                    );
                    return Err(Error::database(message).in_collection(&self.index.names.collection));
                }
                self.index.env.fail.hit("stable.before_void")?;
                let close = async { self.index.void(&(stable + 1..end).collect::<Vec<_>>()).await.map(drop) };
                // Who may only look sees what is settled without them.
                if end > stable + 1 && !mending.of(close).await? {
                    break;
                }
            }
        }
        if settled > mark {
            mending.of(self.index.advance_watermark(settled)).await?;
        }
        Ok(stable)
    }

    /// Follows some rows from `from` on.
    async fn pass(&self, from: i64, last: i64, settled_millis: i64, mending: Mending) -> Result<Passed> {
        let scan = Scan {
            filter: Filter::gt("cv", int(from)).and(Filter::lte("cv", int(last))),
            order: vec![("cv".into(), Direction::Ascending)],
            limit: Some(STEP.unsigned_abs()),
            without: without_content(),
            ..Scan::default()
        };
        let before = self.index.documents.now().await?.as_millis() - settled_millis;
        let mut rows = self.index.documents.scan(&self.index.names.ver, scan);
        let mut passed = Passed { reached: from, settled: from, gap: false };
        let mut versions: Vec<(ItemId, i64)> = Vec::new();
        while let Some(doc) = rows.try_next().await? {
            if number(&doc, "cv") != Some(passed.reached + 1) {
                passed.gap = true;
                break;
            }
            passed.reached += 1;
            let written = doc.get_object_id("_id").map_or(0, |id| id.timestamp().timestamp_millis());
            let is_settled = settled_millis == 0 || written < before;
            if is_settled && passed.settled == passed.reached - 1 {
                passed.settled = passed.reached;
            }
            if is_settled
                && doc.get_str("op").ok() != Some(Op::Void.as_str())
                && let Ok(id) = doc.get_object_id("itemId")
            {
                versions.push((ItemId::new(id), passed.reached));
            }
        }
        drop(rows);
        // Fewer rows than a step, and not all of them: the rest is a gap at the end.
        passed.gap |= passed.reached < last && passed.reached - from < STEP;
        if !mending.of(self.roll_lagging(versions)).await? {
            // The mark does not pass heads that are wrong.
            passed.settled = from;
        }
        Ok(passed)
    }

    async fn roll_lagging(&self, passed: Vec<(ItemId, i64)>) -> Result<()> {
        for chunk in passed.chunks(256) {
            let ids: Vec<ItemId> = chunk.iter().map(|(id, _)| *id).collect();
            let reached = self.index.head_cvs(&ids).await?;
            for (id, cv) in chunk {
                if reached.get(id).is_none_or(|reached| reached < cv) {
                    self.index.roll_forward(*id).await?;
                }
            }
        }
        Ok(())
    }

    /// The first number from `from` on that has a row, or the one behind `last`.
    async fn next_present(&self, from: i64, last: i64) -> Result<i64> {
        let scan = Scan {
            filter: Filter::gt("cv", int(from - 1)).and(Filter::lte("cv", int(last))),
            order: vec![("cv".into(), Direction::Ascending)],
            limit: Some(1),
            without: vec!["inline".into(), "riders".into()],
            ..Scan::default()
        };
        let found = self.index.documents.scan(&self.index.names.ver, scan).try_next().await?;
        Ok(found.and_then(|doc| number(&doc, "cv")).unwrap_or(last.saturating_add(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_numbers_grow_together_whatever_order_they_come_in() {
        let marker = Marker::default();
        for (first, last) in [(5, 9), (0, 1), (12, 12), (10, 11), (20, 20)] {
            marker.lock().add(&(first..=last));
        }
        assert_eq!(marker.known_from(-1), 1);
        assert_eq!(marker.known_from(4), 12);
        assert_eq!(marker.known_from(12), 12);
        assert_eq!(marker.known_from(30), 30);
        assert!(marker.lock().runs.is_empty(), "what lies below the mark is forgotten");
    }
}

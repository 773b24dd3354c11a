//! `stable_cv`: the end of the gapless prefix. Nothing at or below it ever changes.

use std::time::Duration;

use futures::TryStreamExt as _;

use crate::Result;
use crate::documents::{Direction, Filter, Scan};
use crate::records::engine::{CV, Engine, STABLE};
use crate::records::model::{ItemId, Op, int, number};

/// How long a writer that has taken a number may need to write its row before the number is closed.
const GRACE: Duration = Duration::from_secs(2);
/// Only what is older than this is rolled forward: the writer itself is probably still at it.
const SETTLED_MILLIS: i64 = 1_000;
/// Rows per step of the mark.
const STEP: u64 = 1_000;

/// How far one step came.
#[derive(Clone, Copy, Debug)]
struct Passed {
    reached: i64,
    /// Up to here rows are old enough, and their heads are right.
    settled: i64,
    /// The number after `reached` has no row yet.
    gap: bool,
}

impl Engine {
    /// The end of the gapless prefix: −1 while the collection is empty. Numbers that were given out before the call and never got a row are closed on
    /// the way, after a grace; lagging heads are rolled forward, but for those of the last second, whose writers are probably still at it.
    pub(crate) async fn stable_cv(&self) -> Result<i64> {
        self.follow(SETTLED_MILLIS).await
    }

    /// [`stable_cv`](Self::stable_cv) that rolls every lagging head forward.
    pub(crate) async fn settled_cv(&self) -> Result<i64> {
        self.follow(0).await
    }

    /// Follows the rows from the mark on, and moves the mark to where rows are old enough and their heads known to be right.
    async fn follow(&self, settled_millis: i64) -> Result<i64> {
        let found = self.documents.get(&self.names.counter, vec![CV.into(), STABLE.into()]).await?;
        let value = |id: &str| found.iter().find(|doc| doc.get_str("_id").ok() == Some(id)).and_then(|doc| number(doc, "value"));
        let Some(last) = value(CV) else { return Ok(-1) };
        // A collection the originals kept has no mark: everything they left lies below it.
        let Some(mark) = value(STABLE) else { return Ok(last) };
        let mut stable = mark;
        let mut settled = mark;
        while stable < last {
            let passed = self.pass(stable, last, settled_millis).await?;
            if settled == stable {
                settled = passed.settled;
            }
            stable = passed.reached;
            if passed.gap {
                self.runtime.clock.sleep(GRACE).await;
                let end = self.next_present(stable + 1, last).await?;
                self.runtime.fail.hit("stable.before_void")?;
                if end > stable + 1 {
                    self.void(&(stable + 1..end).collect::<Vec<_>>()).await?;
                }
            }
        }
        if settled > mark {
            self.move_mark(settled).await?;
        }
        Ok(stable)
    }

    /// Follows some rows from `from` on.
    async fn pass(&self, from: i64, last: i64, settled_millis: i64) -> Result<Passed> {
        let scan = Scan {
            filter: Filter::gt("cv", int(from)).and(Filter::lte("cv", int(last))),
            order: vec![("cv".into(), Direction::Ascending)],
            limit: Some(STEP),
            without: ["inline", "riders", "metaIndexed", "refs"].map(str::to_owned).to_vec(),
            ..Scan::default()
        };
        let before = self.documents.now().await?.as_millis() - settled_millis;
        let mut rows = self.documents.scan(&self.names.ver, scan);
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
        passed.gap |= passed.reached < last && u64::try_from(passed.reached - from).unwrap_or(0) < STEP;
        self.roll_lagging(versions).await?;
        Ok(passed)
    }

    async fn roll_lagging(&self, passed: Vec<(ItemId, i64)>) -> Result<()> {
        for chunk in passed.chunks(256) {
            let ids: Vec<ItemId> = chunk.iter().map(|(id, _)| *id).collect();
            let heads = self.heads(&ids).await?;
            for (id, cv) in chunk {
                if heads.get(id).is_none_or(|head| head.cv < *cv) {
                    self.roll_forward(*id).await?;
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
        let found = self.documents.scan(&self.names.ver, scan).try_next().await?;
        Ok(found.and_then(|doc| number(&doc, "cv")).unwrap_or(last + 1))
    }
}

//! Settling the past before it is read: nothing can be added to it any more.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::TryStreamExt as _;

use crate::documents::{Direction, Filter, Scan};
use crate::records::index::without_content;
use crate::records::model::VersionSelector;
use crate::records::model::{int, number};
use crate::{Error, Result};

/// Between two looks at a number that was given out and has no row yet: most rows come within milliseconds.
const FIRST_LOOK: Duration = Duration::from_millis(5);
const LONGEST_LOOK: Duration = Duration::from_millis(200);
/// How long to look on without doing anything about it.
const TIMEOUT_MILLIS: i64 = 1_000;
/// How long a reader that may write nothing waits for others to close a number without a row.
const READER_TIMEOUT_MILLIS: i64 = 10_000;
/// A time this far ahead of the store's is waited for: clocks differ. What is further ahead is not the past.
const AHEAD_MILLIS: i64 = 1_000;

impl super::watermark::Watermark {
    /// The point of the past that a reader means, once nothing can be added to it any more.
    ///
    /// A version is as old as its number, or younger: what is of a time has got its number by then. So when
    /// the store's clock has passed that time, every number given out so far has its row, and none is
    /// missing, the past up to there stays as it is. (But for imports, which bring times of their own.) A
    /// number of the collection beyond the last one given out means the last one.
    ///
    /// # Errors
    /// `TXN_ERROR` if the store fails, or if a number without a row stays open and this user may not close
    /// it: trying again later helps.
    pub(crate) async fn settled(&self, which: VersionSelector) -> Result<VersionSelector> {
        match which {
            VersionSelector::Latest | VersionSelector::Ov(_) => Ok(which),
            VersionSelector::Cv(cv) if cv <= self.past.cv.load(Ordering::Acquire) => Ok(which),
            VersionSelector::Cv(cv) => Ok(VersionSelector::Cv(cv.min(self.settle_now().await?))),
            VersionSelector::At(at) => {
                if at.as_millis() > self.past.until.load(Ordering::Acquire) {
                    let ahead = at.as_millis() - self.index.documents.now().await?.as_millis();
                    if (0..AHEAD_MILLIS).contains(&ahead) {
                        self.index.env.clock.sleep(Duration::from_millis(ahead.unsigned_abs() + 1)).await;
                    }
                    self.settle_now().await?;
                }
                Ok(which)
            }
        }
    }

    /// Settles everything up to the present; returns the last number of it.
    async fn settle_now(&self) -> Result<i64> {
        // In this order: what is given out by that time is given out before the counter is read.
        let until = self.index.documents.now().await?.as_millis() - 1;
        let begun = self.index.env.clock.now().as_millis();
        let mut wait = FIRST_LOOK;
        let cv = loop {
            let gapless = self.without_gap().await?;
            let waited = self.index.env.clock.now().as_millis() - begun;
            if gapless.is_some() || waited >= TIMEOUT_MILLIS {
                // Heads follow as well, and who died is not waited for any longer.
                match self.settled_cv().await {
                    Ok(cv) => break cv,
                    Err(error) if error.is_retryable() => return Err(error),
                    // This user may write nothing: then the rows have to do, and others to write them.
                    Err(error) => match gapless {
                        Some(last) => {
                            self.past.heads_lag.store(true, Ordering::Release);
                            break last;
                        }
                        None if waited >= READER_TIMEOUT_MILLIS => {
                            let message = "a number of the collection was given out, but has no row yet, and this user may not close it; any writer will";
                            return Err(Error::database(message).retryable().caused_by(error));
                        }
                        None => {}
                    },
                }
            }
            self.index.env.clock.sleep(wait).await;
            wait = (wait * 2).min(LONGEST_LOOK);
        };
        self.past.until.fetch_max(until, Ordering::AcqRel);
        self.past.cv.fetch_max(cv, Ordering::AcqRel);
        Ok(cv)
    }

    /// The last number given out, if every number up to it has its row.
    async fn without_gap(&self) -> Result<Option<i64>> {
        let (Some(last), mark) = self.counter().await? else { return Ok(Some(-1)) };
        // A collection the legacy library kept has no mark: what it left is settled.
        let Some(mut reached) = mark else { return Ok(Some(last)) };
        let scan = Scan {
            filter: Filter::gt("cv", int(reached)).and(Filter::lte("cv", int(last))),
            order: vec![("cv".into(), Direction::Ascending)],
            without: without_content(),
            ..Scan::default()
        };
        let mut rows = self.index.documents.scan(&self.index.names.ver, scan);
        while let Some(row) = rows.try_next().await? {
            if number(&row, "cv") != Some(reached + 1) {
                return Ok(None);
            }
            reached += 1;
        }
        Ok((reached >= last).then_some(last))
    }
}

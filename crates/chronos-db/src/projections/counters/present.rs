//! The counters as of now: what is stored, and the rows behind it that no follower has counted yet.

use super::change::{Change, Periods};
use super::projection::CounterProjection;
use super::record::Record;
use super::row::Event;
use super::session::Session;
use crate::Result;
use crate::projections::follower::follow;

/// A reader follows the log itself, for those after it, if more rows than this wait.
const MAX_TAIL: i64 = 1_000;

/// What is stored, and up to where the log goes.
pub(super) struct Stored {
    pub(super) record: Record,
    pub(super) periods: Periods,
    /// The number up to which the answer goes.
    pub(super) cv: i64,
}

impl Session {
    /// The stored counters, no further behind the log than an answer can add.
    pub(super) async fn stored(&self) -> Result<Stored> {
        let periods = self.periods().await?;
        // In this order: the totals never are ahead of the log.
        let mut found = self.store.load().await?;
        let settled = self.log.settled().await?;
        if let Some(ahead) = found.as_ref().filter(|record| record.cv > settled) {
            tracing::warn!(
                counters = %self.store.owner.id, cv = ahead.cv, log = settled,
                "counters are ahead of their log, which was replaced by an older one; recount or reset them"
            );
        }
        if settled >= 0 && found.as_ref().is_none_or(|record| self.lags(record, settled)) {
            let projection = CounterProjection { session: self, periods: periods.clone() };
            match follow(&projection, &self.log, settled, None).await {
                Ok(_) => found = self.store.load().await?,
                // Who may only look, or finds the store busy, adds all of it, each time.
                Err(error) if error.is_forbidden() || error.is_retryable() => {
                    tracing::debug!(counters = %self.store.owner.id, %error, "counters are read without following the log");
                }
                Err(error) => return Err(error),
            }
        }
        let mut record = found.unwrap_or_else(|| self.blank());
        record.adopt(&self.rules.rules);
        let cv = settled.max(record.cv);
        Ok(Stored { record, periods, cv })
    }

    fn lags(&self, record: &Record, settled: i64) -> bool {
        settled - record.cv > MAX_TAIL || self.rules.rules.iter().any(|rule| record.find(rule).is_none())
    }

    /// What the rows behind the stored totals change.
    pub(super) async fn tail<'r>(&'r self, stored: &'r Stored) -> Result<Change<'r>> {
        let mut change = Change::new(&self.store.owner, &stored.record, &stored.periods);
        let mut position = stored.record.cv;
        while position < stored.cv {
            for piece in self.log.read(position, stored.cv).await? {
                piece.entries.iter().for_each(|entry| change.take(entry));
                position = piece.to;
            }
        }
        Ok(change)
    }

    /// Whether what is read goes with these totals: they were not replaced, and no follower has passed an
    /// erasure behind them meanwhile. A value that went with it may be there again, as one that they lack.
    pub(super) async fn is_current(&self, change: &Change<'_>) -> Result<bool> {
        let Some(now) = self.store.load().await? else { return Ok(true) };
        let is_passed = |erasure: &Event| now.cv >= erasure.cv;
        Ok(now.generation == change.generation() && !change.erasures.first().is_some_and(is_passed))
    }
}

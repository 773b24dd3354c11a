//! The follower that counts.
//!
//! Counts of values and periods are written first, each with its own position; then the totals with theirs,
//! if nobody else has moved it. A follower that dies in between leaves counts that are ahead of the totals, and who
//! comes next finds in each of them what it has already.

use async_trait::async_trait;

use super::change::{Change, Periods};
use super::record::Record;
use super::row::{CountRow, RowKey};
use super::session::Session;
use super::store::Rows;
use crate::Result;
use crate::projections::follower::Projection;
use crate::projections::log::{LogEntry, Piece};

pub(super) struct CounterProjection<'s> {
    pub(super) session: &'s Session,
    pub(super) periods: Periods,
}

impl CounterProjection<'_> {
    /// Writes the counts that rows change, and returns the totals with these rows in them, which are not
    /// stored yet.
    pub(super) async fn take_in(&self, record: &Record, entries: &[LogEntry], to: i64) -> Result<Record> {
        let store = &self.session.store;
        let mut change = Change::new(&store.owner, record, &self.periods);
        entries.iter().for_each(|entry| change.take(entry));
        let stored = store.rows(&mut change).await?;
        let erased = store.put_rows(&change, record, &stored).await?;
        if erased {
            store.purge().await?;
        }
        store.env.fail.hit("counters.after_counts")?;
        Ok(totals_after(record, &change, &stored, to))
    }
}

/// The totals once a change is in them.
pub(super) fn totals_after(record: &Record, change: &Change<'_>, stored: &Rows, to: i64) -> Record {
    let mut next = record.clone();
    next.counts = next.counts.plus(change.counts);
    for (rule, counts) in next.rules.iter_mut().zip(&change.rules) {
        rule.counts = rule.counts.plus(*counts);
    }
    for (place, row) in &change.rows {
        let RowKey::Unique { rule, property, .. } = &row.key else { continue };
        let Some(rule) = next.rules.get_mut(*rule) else { continue };
        // The count may be there already, when a follower was ahead of the totals.
        let before = stored.get(place);
        let was_there = before.is_some_and(|count| count.is_value_at(record.cv));
        let is_there = CountRow::after(before, row).or(before.copied()).is_some_and(|count| !count.is_void);
        let values = rule.unique.entry(property.clone()).or_default();
        match (was_there, is_there) {
            (false, true) => *values += 1,
            (true, false) => *values = values.saturating_sub(1),
            _ => {}
        }
    }
    next.last_at = next.last_at.max(change.last_at);
    next.cv = to;
    next
}

#[async_trait]
impl Projection for CounterProjection<'_> {
    type State = Record;

    async fn load(&self) -> Result<Record> {
        self.session.registered().await
    }

    fn position(&self, state: &Record) -> i64 {
        state.cv
    }

    async fn advance(&self, state: Record, piece: &Piece) -> Result<Option<Record>> {
        let store = &self.session.store;
        store.env.fail.hit("counters.before_counts")?;
        let next = self.take_in(&state, &piece.entries, piece.to).await?;
        let put = store.put(&next).await?;
        store.env.fail.hit("counters.after_totals")?;
        Ok(put)
    }
}

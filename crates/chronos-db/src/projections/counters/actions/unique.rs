//! Listing the values of a property.

use futures::TryStreamExt as _;

use super::counters::Counters;
use crate::action::Action;
use crate::projections::counters::answer::UniqueValue;
use crate::projections::counters::row::{CountRow, RowChange, RowKey, Table};
use crate::projections::counters::session::Session;
use crate::telemetry::{Observed, Operation};
use crate::{Error, Result, bson_to_json};

const LIMIT: usize = 100;
const ATTEMPTS: u32 = 20;

impl Counters {
    /// The values that a property of `countUnique` had in versions that match a rule, the most frequent
    /// first.
    pub fn unique(&self, rule: impl Into<String>, property: impl Into<String>) -> Unique {
        Unique { counters: self.clone(), rule: rule.into(), property: property.into(), limit: LIMIT }
    }
}

/// Lists values; see [`Counters::unique`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct Unique {
    counters: Counters,
    rule: String,
    property: String,
    limit: usize,
}

impl Unique {
    /// At most this many (default 100).
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    async fn read(&self, session: &Session) -> Result<Vec<UniqueValue>> {
        let rule = session.rule(&self.rule)?;
        if !rule.unique.contains(&self.property) {
            let message = format!(
                "the counter rule `{}` does not count the values of `{}`: it is not in its `countUnique`",
                rule.name,
                self.property.escape_debug()
            );
            return Err(Error::validation(message));
        }
        for _ in 0..ATTEMPTS {
            let stored = session.stored().await?;
            let record = &stored.record;
            let Some((position, known)) = record.find(rule) else { return Ok(Vec::new()) };
            let mut change = session.tail(&stored).await?;
            let is_asked_for = |row: &RowChange| matches!(&row.key, RowKey::Unique { rule, property, .. } if *rule == position && *property == self.property);
            change.rows.retain(|_, row| is_asked_for(row));
            let rows = session.store.rows(&mut change).await?;
            // Erasures may have added others.
            change.rows.retain(|_, row| is_asked_for(row));
            // What the newest rows change may stand behind the limit, or have stood before it.
            let wanted = self.limit.saturating_add(change.rows.len()) as u64;
            let mut found = session.store.most_frequent(record.generation, &known.id, &self.property, wanted);
            let mut values = Vec::new();
            while let Some(document) = found.try_next().await? {
                let (Ok(id), Some(count)) = (document.get_str("_id"), CountRow::read(&document)) else {
                    continue;
                };
                let place = (Table::Unique, id.to_owned());
                if let (Some(value), false) =
                    (document.get("propertyValue"), change.rows.contains_key(&place))
                {
                    values.push(value_of(value, &count));
                }
            }
            for (place, row) in &change.rows {
                let before = rows.get(place);
                let Some(count) = CountRow::after(before, row).or(before.copied()) else { continue };
                if let (RowKey::Unique { value, .. }, false) = (&row.key, count.is_void) {
                    values.push(value_of(value, &count));
                }
            }
            if !session.is_current(&change).await? {
                continue;
            }
            values.sort_by_key(|value| std::cmp::Reverse(value.counts.sum()));
            values.truncate(self.limit);
            return Ok(values);
        }
        Err(Error::database("the counters changed again and again while they were read").retryable())
    }
}

fn value_of(value: &bson::Bson, count: &CountRow) -> UniqueValue {
    UniqueValue { value: bson_to_json(value), counts: count.counts, last_at: count.last_at }
}

impl Action for Unique {
    type Output = Vec<UniqueValue>;

    fn observed(&self) -> Option<Observed> {
        Some(self.counters.collection.observed(Operation::Counters))
    }

    async fn run(self) -> Result<Vec<UniqueValue>> {
        let named = self.counters.named("list counted values");
        let read = async {
            let session = self.counters.session().await?;
            self.read(&session).await
        };
        read.await.map_err(named)
    }
}

awaitable!(Unique);

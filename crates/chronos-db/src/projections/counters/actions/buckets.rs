//! Listing what was counted in days, weeks or months.

use std::collections::BTreeMap;

use bson::Document;
use futures::TryStreamExt as _;

use super::counters::Counters;
use crate::action::Action;
use crate::projections::counters::answer::Bucket;
use crate::projections::counters::counts::Counts;
use crate::projections::counters::period::Period;
use crate::projections::counters::record::Record;
use crate::projections::counters::row::{CountRow, RowKey, Table};
use crate::projections::counters::session::Session;
use crate::telemetry::{Observed, Operation};
use crate::{Error, Result, Timestamp};

const ATTEMPTS: u32 = 20;

impl Counters {
    /// What was counted in each day, week or month that `retention.counters` keeps, in order. Those in which
    /// nothing changed are left out.
    pub fn buckets(&self, period: Period) -> Buckets {
        Buckets { counters: self.clone(), period }
    }
}

/// Lists what was counted by time; see [`Counters::buckets`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct Buckets {
    counters: Counters,
    period: Period,
}

/// The buckets that are being put together.
struct BucketScan<'r> {
    /// By their ids in the totals, the names of the rules of this configuration.
    names: BTreeMap<&'r str, &'r str>,
    buckets: BTreeMap<Timestamp, Bucket>,
}

impl<'r> BucketScan<'r> {
    fn new(record: &'r Record, session: &'r Session) -> Self {
        let names = session
            .rules
            .rules
            .iter()
            .filter_map(|rule| Some((record.find(rule)?.1.id.as_str(), rule.name.as_str())));
        Self { names: names.collect(), buckets: BTreeMap::new() }
    }

    fn set(&mut self, from: Timestamp, rule: Option<&str>, counts: Counts) {
        let bucket = || Bucket::at(from);
        match rule {
            None => self.buckets.entry(from).or_insert_with(bucket).counts = counts,
            Some(rule) => {
                if let Some(name) = self.names.get(rule) {
                    self.buckets.entry(from).or_insert_with(bucket).rules.insert((*name).to_owned(), counts);
                }
            }
        }
    }

    fn add_stored(&mut self, document: &Document) {
        // A damaged one is named when it is followed.
        if let (Some(count), Ok(from)) = (CountRow::read(document), document.get_datetime("from")) {
            self.set((*from).into(), document.get_str("rule").ok(), count.counts);
        }
    }
}

impl Buckets {
    async fn read(&self, session: &Session) -> Result<Vec<Bucket>> {
        if self.period.kept(&session.rules.keep).is_none() {
            let message = format!(
                "no {} are kept: `retention.counters.{}` is not set",
                self.period.option(),
                self.period.option()
            );
            return Err(Error::validation(message));
        }
        for _ in 0..ATTEMPTS {
            let stored = session.stored().await?;
            let record = &stored.record;
            let Some((_, oldest)) = stored.periods.iter().find(|(period, _)| *period == self.period) else {
                return Ok(Vec::new());
            };
            let mut change = session.tail(&stored).await?;
            change.rows.retain(|(table, _), _| *table == Table::Bucket(self.period));
            let rows = session.store.rows(&mut change).await?;
            let mut found = BucketScan::new(record, session);
            let mut scan = session.store.of_period(record.generation, self.period, oldest);
            while let Some(document) = scan.try_next().await? {
                found.add_stored(&document);
            }
            for (place, row) in &change.rows {
                if let (Some(count), RowKey::Bucket { from, rule, .. }) =
                    (CountRow::after(rows.get(place), row), &row.key)
                {
                    let rule = rule.and_then(|rule| record.rules.get(rule)).map(|rule| rule.id.as_str());
                    found.set(*from, rule, count.counts);
                }
            }
            if session.is_current(&change).await? {
                return Ok(found.buckets.into_values().collect());
            }
        }
        Err(Error::database("the counters changed again and again while they were read").retryable())
    }
}

impl Action for Buckets {
    type Output = Vec<Bucket>;

    fn observed(&self) -> Option<Observed> {
        Some(self.counters.collection.observed(Operation::Counters))
    }

    async fn run(self) -> Result<Vec<Bucket>> {
        let named = self.counters.named("list counted periods");
        let read = async {
            let session = self.counters.session().await?;
            self.read(&session).await
        };
        read.await.map_err(named)
    }
}

awaitable!(Buckets);

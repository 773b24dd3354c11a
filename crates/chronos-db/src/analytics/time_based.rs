//! Running a time-based rule over one collection.

use std::sync::Arc;

use async_trait::async_trait;
use bson::Document;
use futures::StreamExt as _;
use futures::stream::BoxStream;

use super::fold::{Fold, Sample, Samples};
use super::result::{AnalyticsResult, Stamp};
use super::store::{Coverage, ResultStore, TIME_BASED};
use super::values::{arguments_of, group_key, group_of, numbers_of, query_of};
use crate::config::{AnalyticsOperation, TimeBased, Timeframe};
use crate::records::{Collection, Scope, ValuesQuery, Workers, int};
use crate::{Result, Timestamp};

/// Hears each result as it is stored.
pub(super) type OnResult = dyn Fn(&AnalyticsResult) + Send + Sync;

/// The results of a rule over one collection.
pub(super) async fn results(collection: &Collection, timed: &TimeBased) -> Result<ResultStore> {
    ResultStore::of(collection, &timed.rule, TIME_BASED).await
}

/// Runs the rule as of `now`, by default the present. Returns how many results there are.
pub(super) async fn run(
    collection: &Collection,
    timed: &Arc<TimeBased>,
    now: Option<Timestamp>,
    hear: &OnResult,
) -> Result<u64> {
    let store = results(collection, timed).await?;
    let stamp = store.begin().await?;
    let now = match now {
        Some(now) => now,
        None => collection.workers.index.documents.now().await?,
    };
    let run = Run {
        samples: ItemSamples {
            workers: Arc::clone(&collection.workers),
            scope: collection.upkeep_scope().await?.clone(),
            query: query_of(&timed.rule, &timed.arguments, now),
            timeframes: timed.timeframe.map(|timeframe| timeframes(timed, timeframe, now)),
            timed: Arc::clone(timed),
        },
        store,
        stamp,
        now,
    };
    let count = run.compute(hear).await?;
    let coverage = Coverage { timeframes: run.samples.timeframes, groups: None };
    run.store.end(&run.stamp, &coverage, Some(run.stamp.computed_at)).await?;
    Ok(count)
}

/// The beginnings of the first and of the last timeframe that a run has all of. One that the window begins within
/// is only partly seen: what an earlier run found of it stays, unless the window ends in it, too.
fn timeframes(timed: &TimeBased, timeframe: Timeframe, now: Timestamp) -> (Timestamp, Timestamp) {
    let window = timed.rule.window(now);
    let last = timeframe.start(window.to);
    let first = window.from.unwrap_or(Timestamp::from_millis(i64::MIN)).min(last);
    (first, timeframe.start(now))
}

struct Run {
    samples: ItemSamples,
    store: ResultStore,
    stamp: Stamp,
    now: Timestamp,
}

impl Run {
    async fn compute(&self, hear: &OnResult) -> Result<u64> {
        let timed = &self.samples.timed;
        let is_one = timed.timeframe.is_none() && timed.arguments.is_empty();
        if is_one
            && timed.operation == AnalyticsOperation::Count
            && timed.rule.field.is_none()
            && let Some(count) = self.samples.count().await?
        {
            let group = (group_of(&[]), Vec::new());
            let value = int(i64::try_from(count).unwrap_or(i64::MAX));
            let result = self.stamp.time_based(timed, self.now, (&group.0, group.1), value);
            return self.store_all(&[result], hear).await;
        }
        let always = is_one.then(|| (0, Vec::new()));
        let mut fold = Fold::new(&self.samples, timed.operation, always);
        let mut count = 0;
        while let Some(groups) = fold.next().await? {
            let results = groups.into_iter().map(|group| {
                let timestamp = match timed.timeframe {
                    Some(_) => Timestamp::from_millis(group.key.0),
                    None => self.now,
                };
                let arguments = (group_of(&group.key.1), group.arguments);
                self.stamp.time_based(timed, timestamp, (&arguments.0, arguments.1), group.value)
            });
            count += self.store_all(&results.collect::<Vec<Document>>(), hear).await?;
        }
        Ok(count)
    }

    async fn store_all(&self, results: &[Document], hear: &OnResult) -> Result<u64> {
        self.store.put(results).await?;
        for result in results {
            hear(&AnalyticsResult::read(result)?);
        }
        Ok(results.len() as u64)
    }
}

/// What the items of one collection add.
struct ItemSamples {
    workers: Arc<Workers>,
    scope: Scope,
    query: ValuesQuery,
    /// What is before these is left alone.
    timeframes: Option<(Timestamp, Timestamp)>,
    timed: Arc<TimeBased>,
}

impl ItemSamples {
    async fn count(&self) -> Result<Option<u64>> {
        let all = i64::MAX.unsigned_abs();
        self.workers.reader.count_values(&self.query, &self.scope, all).await
    }
}

#[async_trait]
impl Samples for ItemSamples {
    async fn read(&self) -> Result<BoxStream<'static, Result<Sample>>> {
        let items = self.workers.reader.values(&self.query, &self.scope).await?;
        let (timed, first) = (Arc::clone(&self.timed), self.timeframes.map(|(first, _)| first));
        let counts_all = timed.operation == AnalyticsOperation::Count;
        let sample = move |item: Result<crate::records::ItemValues>| {
            let item = item?;
            let start = timed.timeframe.map(|timeframe| timeframe.start(item.changed_at));
            if start < first {
                return Ok(Sample { numbers: Vec::new(), groups: Vec::new(), arguments: Vec::new() });
            }
            let arguments = arguments_of(&item.entry, &timed.arguments);
            let key = (start.map_or(0, Timestamp::as_millis), group_key(&arguments));
            let numbers = numbers_of(&timed.rule, &item, counts_all)?;
            Ok(Sample { numbers, groups: vec![key], arguments })
        };
        Ok(items.map(sample).boxed())
    }
}

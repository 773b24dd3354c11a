//! Running a time-based rule over one collection.

use std::sync::Arc;

use async_trait::async_trait;
use bson::Document;
use futures::StreamExt as _;
use futures::stream::BoxStream;

use super::fold::{Fold, GroupKey, Sample, SampleGroup, Samples};
use super::marks::Owed;
use super::presence;
use super::result::{AnalyticsResult, Stamp};
use super::store::{Coverage, ResultStore, TIME_BASED};
use super::values::{group_key, group_of, groups_of, numbers_of, query_of};
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
    presence::expect_results(collection).await?;
    let store = results(collection, timed).await?;
    let stamp = store.begin().await?;
    let marks = store.open_marks().await?;
    let present = collection.workers.index.documents.now().await?;
    let now = now.unwrap_or(present);
    let timeframes = timed.timeframe.map(|timeframe| timeframes(timed, timeframe, now));
    let samples = ItemSamples {
        workers: Arc::clone(&collection.workers),
        scope: collection.upkeep_scope().await?.clone(),
        query: query_of(&timed.rule, &timed.arguments, now),
        part: timeframes.map_or(Part::Everything, |(from, _)| Part::From(from)),
        timed: Arc::clone(timed),
    };
    let run = Run { samples, store, stamp, now };
    let mut count = run.compute(hear).await?;
    if let Some((owed, (from, to))) = marks.owed().zip(timeframes) {
        let query = ValuesQuery { from: None, ..query_of(&timed.rule, &timed.arguments, present) };
        count += run.compute_owed(query, Part::Beyond(from, to, Arc::new(owed)), hear).await?;
    }
    let coverage = timeframes.map_or(Coverage::All, |(from, to)| Coverage::Timeframes(from, to));
    run.store.end(&run.stamp, coverage).await?;
    run.store.close(&run.stamp, marks).await?;
    run.store.sweep().await?;
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
        self.fold(&self.samples, always, hear).await
    }

    /// Computes the groups of erased items once in the timeframes that the window does not reach.
    async fn compute_owed(&self, query: ValuesQuery, part: Part, hear: &OnResult) -> Result<u64> {
        let samples = ItemSamples { query, part, ..self.samples.clone() };
        self.fold(&samples, None, hear).await
    }

    async fn fold(&self, samples: &ItemSamples, always: Option<GroupKey>, hear: &OnResult) -> Result<u64> {
        let timed = &samples.timed;
        let mut fold = Fold::new(samples, timed.operation, always);
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

/// Which timeframes are computed.
#[derive(Clone)]
enum Part {
    Everything,
    /// Those that do not begin earlier.
    From(Timestamp),
    /// Those that do not begin between these moments, of some groups.
    Beyond(Timestamp, Timestamp, Arc<Owed>),
}

impl Part {
    fn has_timeframe(&self, start: Timestamp) -> bool {
        match self {
            Self::Everything => true,
            Self::From(from) => start >= *from,
            Self::Beyond(from, to, _) => start < *from || start > *to,
        }
    }

    fn has_group(&self, key: &[u8]) -> bool {
        match self {
            Self::Everything | Self::From(_) => true,
            Self::Beyond(_, _, owed) => owed.has(&group_of(key)),
        }
    }
}

/// What the items of one collection add.
#[derive(Clone)]
struct ItemSamples {
    workers: Arc<Workers>,
    scope: Scope,
    query: ValuesQuery,
    part: Part,
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
        let (timed, part) = (Arc::clone(&self.timed), self.part.clone());
        let counts_all = timed.operation == AnalyticsOperation::Count;
        let sample = move |item: Result<crate::records::ItemValues>| {
            let item = item?;
            let start =
                timed.timeframe.map_or(Timestamp::default(), |timeframe| timeframe.start(item.changed_at));
            if !part.has_timeframe(start) {
                return Ok(Sample { numbers: Vec::new(), groups: Vec::new() });
            }
            let groups = groups_of(&item.entry, &timed.arguments).map_err(|error| error.on_item(item.id))?;
            let groups = groups.into_iter().filter_map(|arguments| {
                let key = group_key(&arguments);
                part.has_group(&key).then(|| SampleGroup { key: (start.as_millis(), key), arguments })
            });
            let groups: Vec<SampleGroup> = groups.collect();
            let numbers =
                if groups.is_empty() { Vec::new() } else { numbers_of(&timed.rule, &item, counts_all)? };
            Ok(Sample { numbers, groups })
        };
        Ok(items.map(sample).boxed())
    }
}

//! From the numbers of many items to one value for each group, in bounded memory.
//!
//! Groups are identified by keys, which have an order. Where there are more of them than there is room for, a
//! pass lets go of the last ones, and the next pass begins with the first of these: each takes some ten thousand
//! groups. Medians may need passes of their own (see `spread`).

use std::collections::BTreeMap;

use async_trait::async_trait;
use bson::Bson;
use futures::TryStreamExt as _;
use futures::stream::BoxStream;

use super::number::{Number, Sum};
use super::spread::{Middle, Spread};
use crate::config::AnalyticsOperation;
use crate::{Error, Result};

/// Memory that the groups of a pass may take, about.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// What a group takes beside its key and what it counts.
const GROUP_BYTES: usize = 256;
/// Passes in which what changes meanwhile may move a median.
const MAX_PASSES: u32 = 40;

/// What tells groups apart: a timeframe or a tenant, then the encoded values of arguments.
pub(super) type GroupKey = (i64, Vec<u8>);

/// What one item adds.
pub(super) struct Sample {
    pub(super) numbers: Vec<Number>,
    /// The groups that the numbers go into.
    pub(super) groups: Vec<SampleGroup>,
}

/// A group that an item is in.
pub(super) struct SampleGroup {
    pub(super) key: GroupKey,
    /// The values of the arguments.
    pub(super) arguments: Vec<Bson>,
}

/// Where samples come from. They may be read several times.
#[async_trait]
pub(super) trait Samples: Send + Sync {
    async fn read(&self) -> Result<BoxStream<'static, Result<Sample>>>;
}

/// The result of a group.
#[derive(Clone, PartialEq)]
pub(super) struct Group {
    pub(super) key: GroupKey,
    pub(super) arguments: Vec<Bson>,
    pub(super) value: Bson,
    /// How many numbers it had.
    pub(super) count: u64,
}

crate::debug_some!(Group { count });

#[derive(Clone, Debug)]
enum Cell {
    Count,
    Sum(Sum),
    Extreme(Option<Number>),
    Median(Spread),
}

impl Cell {
    fn new(measure: AnalyticsOperation) -> Self {
        match measure {
            AnalyticsOperation::Count => Self::Count,
            AnalyticsOperation::Sum | AnalyticsOperation::Average => Self::Sum(Sum::default()),
            AnalyticsOperation::Max | AnalyticsOperation::Min => Self::Extreme(None),
            AnalyticsOperation::Median => Self::Median(Spread::default()),
        }
    }

    fn add(&mut self, number: Number, measure: AnalyticsOperation) {
        match self {
            Self::Count => {}
            Self::Sum(sum) => sum.add(number),
            Self::Extreme(known) => {
                let is_new = known.is_none_or(|known| match measure {
                    AnalyticsOperation::Max => number > known,
                    _ => number < known,
                });
                if is_new {
                    *known = Some(number);
                }
            }
            Self::Median(spread) => spread.add(number),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Median(spread) => spread.bytes(),
            Self::Count | Self::Sum(_) | Self::Extreme(_) => 0,
        }
    }

    /// None where a further pass has to tell.
    fn value(&self, count: u64, measure: AnalyticsOperation) -> Result<Option<Bson>> {
        let beyond = || Error::validation("the sum is beyond the largest number");
        Ok(Some(match self {
            Self::Count => crate::records::int(i64::try_from(count).unwrap_or(i64::MAX)),
            Self::Sum(_) if measure == AnalyticsOperation::Average && count == 0 => Bson::Null,
            Self::Sum(sum) if measure == AnalyticsOperation::Average => sum.mean(count).ok_or_else(beyond)?,
            Self::Sum(sum) => sum.total().ok_or_else(beyond)?,
            Self::Extreme(number) => number.map_or(Bson::Null, Number::stored),
            Self::Median(spread) => match spread.middle() {
                Middle::At(value) => value,
                Middle::In(_) => return Ok(None),
            },
        }))
    }
}

struct Slot {
    cell: Cell,
    arguments: Vec<Bson>,
    count: u64,
}

/// A computation under way.
pub(super) struct Fold<'s> {
    samples: &'s dyn Samples,
    measure: AnalyticsOperation,
    /// A group that has a value also of nothing.
    always: Option<GroupKey>,
    /// Where the next pass begins; none: it is over.
    next: Option<GroupKey>,
    max_bytes: usize,
}

impl<'s> Fold<'s> {
    pub(super) fn new(
        samples: &'s dyn Samples,
        measure: AnalyticsOperation,
        always: Option<GroupKey>,
    ) -> Self {
        let first = (i64::MIN, Vec::new());
        Self { samples, measure, always, next: Some(first), max_bytes: MAX_BYTES }
    }

    /// The next groups, in the order of their keys; none when there are no more.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Group>>> {
        let Some(from) = self.next.take() else { return Ok(None) };
        let mut slots = self.pass(&from).await?;
        let mut passes = 1;
        loop {
            let open: BTreeMap<GroupKey, Spread> = slots
                .iter()
                .filter_map(|(key, slot)| match &slot.cell {
                    Cell::Median(spread) => match spread.middle() {
                        Middle::In(range) => Some((key.clone(), Spread::within(range))),
                        Middle::At(_) => None,
                    },
                    _ => None,
                })
                .collect();
            if open.is_empty() {
                break;
            }
            if passes >= MAX_PASSES {
                let message = "the items changed again and again while their median was looked for";
                return Err(Error::database(message).retryable());
            }
            passes += 1;
            self.look_into(&mut slots, open).await?;
        }
        let mut groups = Vec::with_capacity(slots.len());
        for (key, Slot { cell, arguments, count }) in slots {
            // The last pass has found every median.
            let value = cell.value(count, self.measure)?.unwrap_or(Bson::Null);
            groups.push(Group { key, arguments, value, count });
        }
        Ok(Some(groups))
    }

    /// Looks once more for medians, each in its range.
    async fn look_into(
        &self,
        slots: &mut BTreeMap<GroupKey, Slot>,
        mut open: BTreeMap<GroupKey, Spread>,
    ) -> Result<()> {
        let mut samples = self.samples.read().await?;
        while let Some(sample) = samples.try_next().await? {
            for group in &sample.groups {
                if let Some(spread) = open.get_mut(&group.key) {
                    sample.numbers.iter().for_each(|number| spread.add(*number));
                }
            }
        }
        for (key, spread) in open {
            if let Some(slot) = slots.get_mut(&key) {
                slot.count = spread.count();
                slot.cell = Cell::Median(spread);
            }
        }
        Ok(())
    }

    /// One pass over all samples, for as many groups from `from` on as there is room for.
    async fn pass(&mut self, from: &GroupKey) -> Result<BTreeMap<GroupKey, Slot>> {
        let mut slots: BTreeMap<GroupKey, Slot> = BTreeMap::new();
        let mut bytes = 0;
        if let Some(always) = self.always.take() {
            bytes += GROUP_BYTES + always.1.len();
            let cell = Cell::new(self.measure);
            slots.insert(always, Slot { cell, arguments: Vec::new(), count: 0 });
        }
        let mut samples = self.samples.read().await?;
        while let Some(sample) = samples.try_next().await? {
            if sample.numbers.is_empty() {
                continue;
            }
            for SampleGroup { key, arguments } in &sample.groups {
                if key < from || self.next.as_ref().is_some_and(|end| key >= end) {
                    continue;
                }
                if !slots.contains_key(key) {
                    bytes += GROUP_BYTES + 2 * key.1.len();
                    let (cell, arguments) = (Cell::new(self.measure), arguments.clone());
                    slots.insert(key.clone(), Slot { cell, arguments, count: 0 });
                }
                let Some(slot) = slots.get_mut(key) else { continue };
                let before = slot.cell.bytes();
                for number in &sample.numbers {
                    slot.cell.add(*number, self.measure);
                    slot.count += 1;
                }
                bytes = (bytes + slot.cell.bytes()).saturating_sub(before);
            }
            while bytes > self.max_bytes && slots.len() > 1 {
                let Some((key, slot)) = slots.pop_last() else { break };
                bytes = bytes.saturating_sub(GROUP_BYTES + 2 * key.1.len() + slot.cell.bytes());
                self.next = Some(key);
            }
        }
        Ok(slots)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures::StreamExt as _;
    use proptest::prelude::*;

    use super::*;

    /// Samples from memory; how often they were read.
    struct Given {
        samples: Vec<(i64, i64)>,
        reads: AtomicU64,
    }

    #[async_trait]
    impl Samples for Given {
        async fn read(&self) -> Result<BoxStream<'static, Result<Sample>>> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            let samples: Vec<Result<Sample>> = self
                .samples
                .iter()
                .map(|(group, number)| {
                    Ok(Sample {
                        numbers: vec![Number::of(&(*number).into()).unwrap()],
                        groups: vec![SampleGroup { key: (*group, Vec::new()), arguments: Vec::new() }],
                    })
                })
                .collect();
            Ok(futures::stream::iter(samples).boxed())
        }
    }

    fn folded(
        samples: &[(i64, i64)],
        measure: AnalyticsOperation,
        max_bytes: usize,
    ) -> (Vec<(i64, Bson)>, u64) {
        let given = Given { samples: samples.to_vec(), reads: AtomicU64::new(0) };
        let mut fold = Fold { max_bytes, ..Fold::new(&given, measure, None) };
        let mut found = Vec::new();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            while let Some(groups) = fold.next().await.unwrap() {
                assert!(groups.len() <= 1 || groups.len() * GROUP_BYTES <= max_bytes);
                found.extend(groups.into_iter().map(|group| (group.key.0, group.value)));
            }
        });
        (found, given.reads.load(Ordering::Relaxed))
    }

    fn naive(samples: &[(i64, i64)], measure: AnalyticsOperation) -> Vec<(i64, Bson)> {
        let mut groups: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        for (group, number) in samples {
            groups.entry(*group).or_default().push(*number);
        }
        let value = |mut numbers: Vec<i64>| {
            numbers.sort_unstable();
            let (n, sum) = (numbers.len(), numbers.iter().sum::<i64>());
            let number = |value: i64| Number::of(&value.into()).unwrap();
            match measure {
                AnalyticsOperation::Count => crate::records::int(n as i64),
                AnalyticsOperation::Sum => crate::records::int(sum),
                AnalyticsOperation::Average => Number::of(&(sum as f64 / n as f64).into()).unwrap().stored(),
                AnalyticsOperation::Max => number(numbers[n - 1]).stored(),
                AnalyticsOperation::Min => number(numbers[0]).stored(),
                AnalyticsOperation::Median => {
                    Number::mean(number(numbers[(n - 1) / 2]), number(numbers[n / 2]))
                }
            }
        };
        groups.into_iter().map(|(group, numbers)| (group, value(numbers))).collect()
    }

    #[test]
    fn more_groups_than_there_is_room_for_take_more_passes() {
        let samples: Vec<(i64, i64)> = (0..1_000).map(|n| ((n * 7_919) % 1_000, n)).collect();
        let (found, reads) = folded(&samples, AnalyticsOperation::Sum, 100 * GROUP_BYTES);
        assert_eq!(found, naive(&samples, AnalyticsOperation::Sum));
        assert_eq!(reads, 10);
        assert_eq!(
            folded(&samples, AnalyticsOperation::Sum, MAX_BYTES),
            (naive(&samples, AnalyticsOperation::Sum), 1)
        );
    }

    proptest! {
        #[test]
        fn every_measure_is_what_a_naive_one_finds(
            samples in proptest::collection::vec((0_i64..20, -1_000_i64..1_000), 0..300),
            room in 1_usize..30,
        ) {
            for measure in [AnalyticsOperation::Count, AnalyticsOperation::Sum, AnalyticsOperation::Average, AnalyticsOperation::Max, AnalyticsOperation::Min, AnalyticsOperation::Median] {
                let (found, _) = folded(&samples, measure, room * GROUP_BYTES * 4);
                prop_assert_eq!(found, naive(&samples, measure));
            }
        }
    }
}

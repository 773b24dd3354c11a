//! The number in the middle of many, exactly and in bounded memory.
//!
//! So long as there are few different numbers, each is counted. Then only slices of their range are, and a
//! further pass looks into the one slice that the middle is in: each pass makes the range smaller by a factor of
//! [`SLICES`], so that all the numbers there are take at most seven.

use std::collections::BTreeMap;

use bson::Bson;

use super::number::Number;

/// Slices of a range, and different numbers that are counted one by one.
pub(super) const SLICES: usize = 4096;
/// About what a counted number takes.
const NUMBER_BYTES: usize = 48;

/// A range of numbers by their bits; both ends are within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    low: u64,
    high: u64,
}

impl Range {
    const ALL: Self = Self { low: 0, high: u64::MAX };

    fn width(self) -> u64 {
        (self.high - self.low) / SLICES as u64 + 1
    }

    fn slice(self, bits: u64) -> usize {
        // Below `SLICES`.
        usize::try_from((bits - self.low) / self.width()).unwrap_or(SLICES - 1)
    }

    fn of_slice(self, slice: usize) -> Self {
        let low = self.low + slice as u64 * self.width();
        Self { low, high: low.saturating_add(self.width() - 1).min(self.high) }
    }
}

#[derive(Clone, Debug)]
enum Counts {
    Numbers(BTreeMap<Number, u64>),
    Slices(Vec<u64>),
}

/// Many numbers, of which those in a range are counted one by one.
#[derive(Clone, Debug)]
pub(super) struct Spread {
    range: Range,
    below: u64,
    above: u64,
    counts: Counts,
}

/// What is known of the middle.
pub(super) enum Middle {
    /// It is this; null of nothing.
    At(Bson),
    /// It is in this range.
    In(Range),
}

impl Default for Spread {
    fn default() -> Self {
        Self::within(Range::ALL)
    }
}

impl Spread {
    /// One that looks into a range.
    pub(super) fn within(range: Range) -> Self {
        Self { range, below: 0, above: 0, counts: Counts::Numbers(BTreeMap::new()) }
    }

    pub(super) fn add(&mut self, number: Number) {
        if number.bits < self.range.low {
            self.below += 1;
            return;
        }
        if number.bits > self.range.high {
            self.above += 1;
            return;
        }
        match &mut self.counts {
            Counts::Slices(slices) => slices[self.range.slice(number.bits)] += 1,
            Counts::Numbers(numbers) => {
                *numbers.entry(number).or_default() += 1;
                // Whole numbers of one double are fewer.
                if numbers.len() > SLICES && self.range.low < self.range.high {
                    let mut slices = vec![0; SLICES];
                    for (number, count) in numbers {
                        slices[self.range.slice(number.bits)] += *count;
                    }
                    self.counts = Counts::Slices(slices);
                }
            }
        }
    }

    /// How many numbers there were.
    pub(super) fn count(&self) -> u64 {
        let within: u64 = match &self.counts {
            Counts::Numbers(numbers) => numbers.values().sum(),
            Counts::Slices(slices) => slices.iter().sum(),
        };
        self.below + within + self.above
    }

    /// About how much memory it takes.
    pub(super) fn bytes(&self) -> usize {
        match &self.counts {
            Counts::Numbers(numbers) => numbers.len() * NUMBER_BYTES,
            Counts::Slices(slices) => slices.len() * size_of::<u64>(),
        }
    }

    pub(super) fn middle(&self) -> Middle {
        let count = self.count();
        if count == 0 {
            return Middle::At(Bson::Null);
        }
        match (self.at((count - 1) / 2), self.at(count / 2)) {
            (Ok(one), Ok(other)) if one == other => Middle::At(one.stored()),
            (Ok(one), Ok(other)) => Middle::At(Number::mean(one, other)),
            (one, other) => {
                let range = |found: Result<Number, Range>| {
                    found.map_or_else(|range| range, |number| Range { low: number.bits, high: number.bits })
                };
                Middle::In(Range { low: range(one).low, high: range(other).high })
            }
        }
    }

    /// The number at a place in the order of all, or the range that it is in.
    fn at(&self, place: u64) -> Result<Number, Range> {
        let Some(mut left) = place.checked_sub(self.below) else {
            // There were none there before: what changes meanwhile moves the middle.
            return Err(Range { low: 0, high: self.range.low.saturating_sub(1) });
        };
        match &self.counts {
            Counts::Numbers(numbers) => {
                for (number, count) in numbers {
                    if left < *count {
                        return Ok(*number);
                    }
                    left -= count;
                }
            }
            Counts::Slices(slices) => {
                for (slice, count) in slices.iter().enumerate() {
                    if left < *count {
                        return Err(self.range.of_slice(slice));
                    }
                    left -= count;
                }
            }
        }
        Err(Range { low: self.range.high.saturating_add(1), high: u64::MAX })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The median, and how many passes it took.
    fn median(numbers: &[Number]) -> (Bson, u32) {
        let (mut spread, mut passes) = (Spread::default(), 0);
        loop {
            passes += 1;
            numbers.iter().for_each(|number| spread.add(*number));
            assert!(spread.bytes() <= (SLICES + 1) * NUMBER_BYTES);
            match spread.middle() {
                Middle::At(median) => return (median, passes),
                Middle::In(range) => spread = Spread::within(range),
            }
        }
    }

    fn naive(numbers: &[Number]) -> Bson {
        let mut sorted = numbers.to_vec();
        sorted.sort();
        match sorted.len() {
            0 => Bson::Null,
            n if n % 2 == 1 => sorted[n / 2].stored(),
            n => Number::mean(sorted[n / 2 - 1], sorted[n / 2]),
        }
    }

    fn whole(numbers: impl IntoIterator<Item = i64>) -> Vec<Number> {
        numbers.into_iter().map(|n| Number::of(&n.into()).unwrap()).collect()
    }

    #[test]
    fn a_hundred_thousand_numbers_take_few_passes_in_any_order() {
        let ascending = whole(0..100_000);
        let descending = whole((0..100_000).rev());
        for numbers in [&ascending, &descending] {
            let (found, passes) = median(numbers);
            assert_eq!(found, Bson::Double(49_999.5));
            assert!(passes <= 3, "{passes} passes");
        }
        let fine: Vec<Number> =
            (0..50_001).map(|n| Number::of(&Bson::Double(1.0 + f64::from(n) * 1e-14)).unwrap()).collect();
        let (found, passes) = median(&fine);
        assert_eq!(found, naive(&fine));
        assert!(passes <= 7, "{passes} passes");
    }

    #[test]
    fn whole_numbers_beyond_doubles_are_distinguished() {
        let numbers = whole((0..9_001).map(|n| (1 << 60) + n));
        assert_eq!(median(&numbers).0, crate::records::int((1 << 60) + 4_500));
    }

    proptest! {
        #[test]
        fn a_median_is_the_one_of_the_sorted_list(
            mut numbers in proptest::collection::vec(prop_oneof![any::<i64>().prop_map(Bson::from), (-5_i64..5).prop_map(Bson::from), any::<f64>().prop_map(Bson::from)], 0..40),
            more in 0_i64..6_000,
        ) {
            numbers.extend((0..more).map(|n| Bson::from(n * 3)));
            let numbers: Vec<Number> = numbers.iter().filter_map(Number::of).collect();
            prop_assert_eq!(median(&numbers).0, naive(&numbers));
        }
    }
}

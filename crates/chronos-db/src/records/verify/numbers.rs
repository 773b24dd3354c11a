//! Which numbers of a collection have rows.

use std::collections::BTreeMap;

use super::report::REPORTED;

/// Which numbers up to the mark have rows: a bit each, as far as there are rows. The mark itself may be damaged, so
/// nothing here is as large as it says.
pub(super) struct Numbers {
    /// Of 64 numbers each, by the first of them divided by 64.
    words: BTreeMap<i64, u64>,
    stable: i64,
    /// The highest that has a row.
    last: i64,
    /// Nothing is asked of the numbers up to this one.
    passed: i64,
}

impl Numbers {
    pub(super) const fn up_to(stable: i64) -> Self {
        Self { words: BTreeMap::new(), stable, last: -1, passed: -1 }
    }

    /// Notes that a number has a row; whether that is new.
    pub(super) fn add(&mut self, cv: i64) -> bool {
        if !(0..=self.stable).contains(&cv) {
            return false;
        }
        let (word, bit) = (self.words.entry(cv / 64).or_default(), 1 << (cv % 64));
        let is_new = *word & bit == 0;
        *word |= bit;
        self.last = self.last.max(cv);
        is_new
    }

    /// Asks nothing more of the numbers up to this one.
    pub(super) fn pass(&mut self, cv: i64) {
        self.passed = self.passed.max(cv.min(self.last));
    }

    pub(super) fn has(&self, cv: i64) -> bool {
        (0..=self.passed).contains(&cv)
            || self.words.get(&cv.div_euclid(64)).is_some_and(|word| word & (1 << cv.rem_euclid(64)) != 0)
    }

    pub(super) fn missing(&self) -> i64 {
        let behind = self.last.saturating_sub(self.passed);
        behind - i64::try_from(self.there().count()).unwrap_or(behind)
    }

    /// The first runs of numbers without a row.
    pub(super) fn gaps(&self) -> Vec<(i64, i64)> {
        let before = std::iter::once(self.passed).chain(self.there());
        let gaps = before.zip(self.there()).filter(|(before, next)| next - before > 1);
        gaps.map(|(before, next)| (before + 1, next - 1)).take(REPORTED).collect()
    }

    /// The numbers that have rows, behind those that nothing is asked of.
    fn there(&self) -> impl Iterator<Item = i64> {
        let words = self.words.range((self.passed + 1).div_euclid(64)..);
        let numbers = words.flat_map(|(at, word)| {
            (0..64).filter(move |bit| word & (1 << bit) != 0).map(move |bit| at * 64 + bit)
        });
        numbers.filter(|cv| *cv > self.passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_without_a_row_are_reported_in_runs() {
        let mut numbers = Numbers::up_to(130);
        (0..130).filter(|cv| !matches!(cv, 3..=5 | 64)).for_each(|cv| assert!(numbers.add(cv)));
        // Beyond the mark nothing is known yet, and behind the last row nothing is missing.
        assert!(!numbers.add(131) && !numbers.add(-1) && !numbers.add(0));
        assert_eq!((numbers.missing(), numbers.gaps()), (4, vec![(3, 5), (64, 64)]));
        numbers.pass(4);
        assert_eq!(numbers.gaps(), [(5, 5), (64, 64)]);
        numbers.pass(1_000);
        assert_eq!(numbers.missing(), 0);
        let (mut damaged, far) = (Numbers::up_to(i64::MAX), 1 << 60);
        assert!(damaged.add(0) && damaged.add(far) && !damaged.add(far));
        assert_eq!((damaged.missing(), damaged.gaps()), (far - 1, vec![(1, far - 1)]));
        let empty = Numbers::up_to(-1);
        assert_eq!((empty.missing(), empty.gaps(), empty.has(0)), (0, vec![], false));
    }
}

//! Which numbers of a collection have rows.

use super::report::REPORTED;

/// Which numbers up to the mark have rows: a bit each.
pub(super) struct Numbers {
    present: Vec<u64>,
    stable: i64,
    /// The highest that has a row.
    last: i64,
}

impl Numbers {
    pub(super) fn up_to(stable: i64) -> Self {
        let words = usize::try_from(stable / 64 + 1).unwrap_or(0);
        Self { present: vec![0; if stable < 0 { 0 } else { words }], stable, last: -1 }
    }

    /// The word and the bit of a number.
    fn place(&self, cv: i64) -> Option<(usize, u64)> {
        let at = usize::try_from(cv).ok().filter(|_| cv <= self.stable)?;
        Some((at / 64, 1 << (at % 64)))
    }

    /// Notes that a number has a row; whether that is new.
    pub(super) fn add(&mut self, cv: i64) -> bool {
        let Some((word, bit)) = self.place(cv) else { return false };
        let is_new = self.present[word] & bit == 0;
        self.present[word] |= bit;
        self.last = self.last.max(cv);
        is_new
    }

    /// Asks nothing more of the numbers up to this one.
    pub(super) fn pass(&mut self, cv: i64) {
        for cv in 0..=cv.min(self.last) {
            self.add(cv);
        }
    }

    pub(super) fn has(&self, cv: i64) -> bool {
        self.place(cv).is_some_and(|(word, bit)| self.present[word] & bit != 0)
    }

    pub(super) fn missing(&self) -> i64 {
        let there: i64 = self.present.iter().map(|word| i64::from(word.count_ones())).sum();
        self.last + 1 - there
    }

    /// The first runs of numbers without a row.
    pub(super) fn gaps(&self) -> Vec<(i64, i64)> {
        let mut gaps: Vec<(i64, i64)> = Vec::new();
        for cv in (0..=self.last).filter(|cv| !self.has(*cv)) {
            if let Some((_, last)) = gaps.last_mut()
                && *last == cv - 1
            {
                *last = cv;
            } else if gaps.len() < REPORTED {
                gaps.push((cv, cv));
            } else {
                break;
            }
        }
        gaps
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
        let empty = Numbers::up_to(-1);
        assert_eq!((empty.missing(), empty.gaps(), empty.has(0)), (0, vec![], false));
    }
}

//! Numbers as rules compare and add them.

use bson::Bson;

use crate::records::int;

/// Beyond this, a double does not identify a 64-bit integer exactly.
const TWO_63: f64 = 9_223_372_036_854_775_808.0;

/// A finite number, ordered exactly: whole numbers of 64 bits and doubles among each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Number {
    /// Order-preserving bits of the nearest double.
    pub(super) bits: u64,
    /// What a whole number is more than that double.
    rest: i64,
}

impl Number {
    pub(super) const ONE: Self = Self { bits: 0xBFF0_0000_0000_0000, rest: 0 };

    /// None if it is not a number, or not finite.
    pub(super) fn of(value: &Bson) -> Option<Self> {
        match value {
            Bson::Int32(whole) => Some(Self::of_whole(i64::from(*whole))),
            Bson::Int64(whole) => Some(Self::of_whole(*whole)),
            Bson::Double(double) => Self::of_double(*double),
            // The text of a Decimal128 is always one that a double is parsed from.
            Bson::Decimal128(decimal) => Self::of_double(decimal.to_string().parse().ok()?),
            _ => None,
        }
    }

    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    fn of_whole(whole: i64) -> Self {
        let nearest = whole as f64;
        // At most 512 apart.
        let rest = (i128::from(whole) - nearest as i128) as i64;
        Self { bits: sortable(nearest), rest }
    }

    fn of_double(double: f64) -> Option<Self> {
        double.is_finite().then(|| Self { bits: sortable(double), rest: 0 })
    }

    fn double(self) -> f64 {
        f64::from_bits(if self.bits >> 63 == 1 { self.bits & !(1 << 63) } else { !self.bits })
    }

    /// The whole number that it is.
    #[allow(clippy::cast_possible_truncation)]
    fn whole(self) -> Option<i128> {
        let double = self.double();
        (double.fract() == 0.0 && double.abs() <= TWO_63).then(|| double as i128 + i128::from(self.rest))
    }

    /// As it is stored: whole where it is.
    pub(super) fn stored(self) -> Bson {
        let whole = self.whole().and_then(|whole| i64::try_from(whole).ok());
        whole.map_or(Bson::Double(self.double()), int)
    }

    /// The number in the middle of two.
    pub(super) fn mean(one: Self, other: Self) -> Bson {
        if let (Some(one), Some(other)) = (one.whole(), other.whole())
            && (one + other) % 2 == 0
        {
            return i64::try_from((one + other) / 2).map_or(Bson::Null, int);
        }
        let (one, other) = (one.double(), other.double());
        let sum = one + other;
        of_double(if sum.is_finite() { sum / 2.0 } else { one / 2.0 + other / 2.0 })
    }
}

/// As it is stored: whole where it is.
fn of_double(double: f64) -> Bson {
    Number::of_double(double).map_or(Bson::Double(double), Number::stored)
}

fn sortable(double: f64) -> u64 {
    let bits = (if double == 0.0 { 0.0 } else { double }).to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

/// A sum: exact for whole numbers, compensated (Neumaier) for others.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    whole: i128,
    others: f64,
    lost: f64,
}

impl Sum {
    pub(super) fn add(&mut self, number: Number) {
        match number.whole() {
            Some(whole) => self.whole += whole,
            None => self.add_double(number.double()),
        }
    }

    fn add_double(&mut self, double: f64) {
        let sum = self.others + double;
        self.lost += if self.others.abs() >= double.abs() {
            (self.others - sum) + double
        } else {
            (double - sum) + self.others
        };
        self.others = sum;
    }

    /// None beyond the largest double.
    pub(super) fn total(self) -> Option<Bson> {
        match i64::try_from(self.whole) {
            Ok(whole) if self.others == 0.0 && self.lost == 0.0 => Some(int(whole)),
            _ => Some(self.double()).filter(|double| double.is_finite()).map(of_double),
        }
    }

    /// None of nothing, and beyond the largest double.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn mean(self, of: u64) -> Option<Bson> {
        if of == 0 {
            return None;
        }
        let is_whole = self.others == 0.0 && self.lost == 0.0;
        if is_whole && self.whole % i128::from(of) == 0 {
            return i64::try_from(self.whole / i128::from(of)).ok().map(int);
        }
        Some(self.double() / of as f64).filter(|double| double.is_finite()).map(of_double)
    }

    #[allow(clippy::cast_precision_loss)]
    fn double(mut self) -> f64 {
        self.add_double(self.whole as f64);
        self.others + self.lost
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(value: impl Into<Bson>) -> Number {
        Number::of(&value.into()).unwrap()
    }

    #[test]
    fn numbers_of_all_kinds_are_in_one_exact_order() {
        let ascending = [
            of(f64::MIN),
            of(i64::MIN),
            of(i64::MIN + 1),
            of(-1.5),
            of(-1),
            of(0),
            of(f64::MIN_POSITIVE),
            of(1),
            of(1.5),
            of((1_i64 << 53) - 1),
            of(1_i64 << 53),
            of((1_i64 << 53) + 1),
            of((1_i64 << 53) + 2),
            of(i64::MAX - 1),
            of(i64::MAX),
            of(1e300),
        ];
        assert!(ascending.is_sorted_by(|a, b| a < b));
        assert_eq!(of(-0.0), of(0));
        assert_eq!(of(1.0), of(1_i64));
        assert_eq!(Number::ONE, of(1));
        for nothing in [Bson::Double(f64::NAN), Bson::Double(f64::INFINITY), Bson::from("1"), Bson::Null] {
            assert_eq!(Number::of(&nothing), None);
        }
    }

    #[test]
    fn a_mean_of_two_is_exact_where_it_is_whole() {
        assert_eq!(Number::mean(of(i64::MAX), of(i64::MAX - 2)), int(i64::MAX - 1));
        assert_eq!(Number::mean(of(1), of(2)), Bson::Double(1.5));
        assert_eq!(Number::mean(of(1e308), of(1.5e308)), Bson::Double(1.25e308));
        assert_eq!(Number::mean(of(0.5), of(1.5)), int(1));
    }

    #[test]
    fn sums_lose_nothing_of_small_numbers_beside_large_ones() {
        let mut sum = Sum::default();
        for number in [of(1e100), of(0.5), of(-1e100), of(i64::MAX), of(i64::MAX), of(-i64::MAX)] {
            sum.add(number);
        }
        assert_eq!(sum.total(), Some(Bson::Double(9_223_372_036_854_775_807.5)));
        assert_eq!(Sum::default().total(), Some(int(0)));
        assert_eq!(Sum::default().mean(0), None);
    }

    proptest! {
        #[test]
        fn a_number_is_stored_as_what_it_was(whole in any::<i64>(), double in any::<f64>()) {
            prop_assert_eq!(of(whole).stored(), int(whole));
            if double.is_finite() {
                let stored = of(double).stored();
                prop_assert_eq!(Number::of(&stored), Some(of(double)));
            }
        }
    }
}

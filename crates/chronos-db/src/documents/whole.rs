//! Whole numbers, however a driver, a server or a person typed them.

use bson::{Bson, RawBsonRef};

/// Below it every whole number has a double of its own: 2^53.
const EXACT: f64 = 9_007_199_254_740_992.0;
/// Numbers below it can be added and subtracted, two at a time, without an overflow: 2^62. What a store counts
/// never comes near it.
const BOUND: u64 = 1 << 62;

/// The whole number a value is: an `Int32`, an `Int64`, or a `Double` without a fraction that stands for one
/// number only, as some drivers store counts. An `Int64` of 2^62 or more, or of -2^62 or less, counts nothing that
/// is stored here: it is damaged, and none.
#[must_use]
pub fn whole(value: &Bson) -> Option<i64> {
    match value {
        Bson::Int32(n) => Some((*n).into()),
        Bson::Int64(n) => bounded(*n),
        Bson::Double(n) => whole_double(*n),
        _ => None,
    }
}

/// As [`whole`], of a value that is not decoded.
pub(crate) fn whole_raw(value: RawBsonRef<'_>) -> Option<i64> {
    match value {
        RawBsonRef::Int32(n) => Some(n.into()),
        RawBsonRef::Int64(n) => bounded(n),
        RawBsonRef::Double(n) => whole_double(n),
        _ => None,
    }
}

fn bounded(value: i64) -> Option<i64> {
    (value.unsigned_abs() < BOUND).then_some(value)
}

fn whole_double(value: f64) -> Option<i64> {
    #[allow(clippy::cast_possible_truncation, reason = "it is whole and within the bounds")]
    (value.fract() == 0.0 && value.abs() < EXACT).then_some(value as i64)
}

#[cfg(test)]
mod tests {
    use bson::{RawDocumentBuf, doc};

    use super::*;

    #[test]
    fn whole_numbers_of_every_type_are_read_and_nothing_else() {
        for (value, read) in [
            (Bson::Int32(-3), Some(-3)),
            (Bson::Int64((1 << 62) - 1), Some((1 << 62) - 1)),
            (Bson::Int64(1 << 62), None),
            (Bson::Int64(i64::MIN), None),
            (Bson::Double(3.0), Some(3)),
            (Bson::Double(EXACT - 1.0), Some(9_007_199_254_740_991)),
            (Bson::Double(EXACT), None),
            (Bson::Double(0.5), None),
            (Bson::Double(f64::NAN), None),
            (Bson::Double(f64::INFINITY), None),
            (Bson::String("3".to_owned()), None),
            (Bson::Null, None),
        ] {
            assert_eq!(whole(&value), read, "{value:?}");
            let document = RawDocumentBuf::try_from(&doc! { "n": value }).unwrap();
            assert_eq!(whole_raw(document.get("n").unwrap().unwrap()), read, "{document:?}");
        }
    }
}

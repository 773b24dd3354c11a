//! Numbers, as the digits they were written with.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};

use bson::Bson;

/// A JSON number. It keeps the text it was written with, and is equal to any other text for the same number.
#[derive(Clone)]
pub struct Number(Kept);

#[derive(Clone)]
enum Kept {
    /// Most numbers: what its usual decimal text says.
    Whole(i64),
    Text(Box<str>),
}

impl Number {
    /// `text` must be a number by JSON's grammar.
    pub(super) fn of_grammar(text: &str) -> Self {
        // A reader of `-0` gets it back as `-0`.
        match text.parse::<i64>() {
            Ok(whole) if text != "-0" => Self(Kept::Whole(whole)),
            _ => Self(Kept::Text(text.into())),
        }
    }

    /// Reads a number by JSON's grammar.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        (number_length(text.as_bytes()) == Some(text.len())).then(|| Self::of_grammar(text))
    }

    /// Returns the number that a double is; none for infinities and NaN.
    #[must_use]
    pub fn from_f64(value: f64) -> Option<Self> {
        value.is_finite().then(|| Self::of_grammar(&serde_json::Value::from(value).to_string()))
    }

    pub(super) fn from_f32(value: f32) -> Option<Self> {
        value.is_finite().then(|| match serde_json::to_string(&value) {
            Ok(text) => Self::of_grammar(&text),
            Err(_) => Self::of_grammar(&format!("{value:?}")),
        })
    }

    pub(super) fn from_digits(digits: impl fmt::Display) -> Self {
        Self::of_grammar(&digits.to_string())
    }

    /// Returns the text it was written with.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        match &self.0 {
            Kept::Whole(whole) => Cow::Owned(whole.to_string()),
            Kept::Text(text) => Cow::Borrowed(text),
        }
    }

    pub(super) fn push_to(&self, out: &mut String) {
        use fmt::Write as _;
        match &self.0 {
            // Writing into a string cannot fail.
            Kept::Whole(whole) => drop(write!(out, "{whole}")),
            Kept::Text(text) => out.push_str(text),
        }
    }

    /// Returns whether it is written without a point and an exponent.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        match &self.0 {
            Kept::Whole(_) => true,
            Kept::Text(text) => !text.contains(['.', 'e', 'E']),
        }
    }

    /// Returns the whole number, if it is written as one and fits.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        match &self.0 {
            Kept::Whole(whole) => Some(*whole),
            Kept::Text(text) => text.parse().ok(),
        }
    }

    /// Returns the whole number, if it is written as one and fits.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match &self.0 {
            Kept::Whole(whole) => u64::try_from(*whole).ok(),
            Kept::Text(text) if self.is_whole() => {
                text.trim_start_matches('-').parse().ok().filter(|n| *n == 0 || !text.starts_with('-'))
            }
            Kept::Text(_) => None,
        }
    }

    /// Returns the nearest double; none beyond the largest.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        Some(self.nearest_f64()).filter(|double| double.is_finite())
    }

    /// Returns the nearest double, which beyond the largest is infinity.
    #[must_use]
    #[allow(clippy::cast_precision_loss)]
    pub fn nearest_f64(&self) -> f64 {
        match &self.0 {
            Kept::Whole(whole) => *whole as f64,
            // Rust reads whatever JSON's grammar allows.
            Kept::Text(text) => text.parse().unwrap_or(f64::NAN),
        }
    }

    /// Whether it is written `-0`, which as a double is another number than 0.
    pub(super) fn is_minus_zero(&self) -> bool {
        matches!(&self.0, Kept::Text(text) if &**text == "-0")
    }

    fn decimal(&self) -> Decimal<'_> {
        Decimal::read(self.text())
    }
}

/// What a number's text says: ±0.DIGITS × 10^exponent, without zeros at either end.
#[derive(PartialEq, Eq, Hash)]
enum Decimal<'a> {
    Zero,
    Other {
        negative: bool,
        digits: Vec<u8>,
        exponent: i128,
    },
    /// With an exponent that has more digits than any computation could need. Such numbers are equal if their
    /// texts are.
    Beyond(Cow<'a, str>),
}

impl<'a> Decimal<'a> {
    fn read(text: Cow<'a, str>) -> Self {
        let negative = text.starts_with('-');
        let unsigned = text.trim_start_matches('-');
        let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        while digits.last() == Some(&b'0') {
            digits.pop();
        }
        let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
        digits.drain(..zeros);
        if digits.is_empty() {
            return Self::Zero;
        }
        // 36 digits leave room for adding a length.
        let Some(exponent) = exponent.parse::<i128>().ok().filter(|e| e.unsigned_abs() < 10_u128.pow(36))
        else {
            return Self::Beyond(text);
        };
        // Lengths fit by far.
        let exponent = exponent + whole.len() as i128 - zeros as i128;
        Self::Other { negative, digits, exponent }
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Kept::Whole(a), Kept::Whole(b)) => a == b,
            (Kept::Text(a), Kept::Text(b)) if a == b => true,
            _ => self.decimal() == other.decimal(),
        }
    }
}

impl Eq for Number {}

impl Hash for Number {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.decimal().hash(state);
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Number({})", self.text())
    }
}

macro_rules! from_integers {
    ($($integer:ty)*) => {
        $(
            impl From<$integer> for Number {
                fn from(value: $integer) -> Self {
                    i64::try_from(value).map_or_else(|_| Self::from_digits(value), |whole| Self(Kept::Whole(whole)))
                }
            }
        )*
    };
}

from_integers!(i8 i16 i32 i64 i128 isize u8 u16 u32 u64 u128 usize);

/// As BSON keeps it: in 32 bits where they suffice.
pub(super) fn integer(n: &Number) -> Option<Bson> {
    n.as_i64().map(|i| i32::try_from(i).map_or(Bson::Int64(i), Bson::Int32))
}

/// An integer of 64 bits, or the nearest double.
pub(super) fn nearest(n: &Number) -> Bson {
    integer(n).unwrap_or_else(|| Bson::Double(n.nearest_f64()))
}

/// The length of the number that `bytes` begin with.
pub(super) fn number_length(bytes: &[u8]) -> Option<usize> {
    let digits =
        |from: usize| bytes[from.min(bytes.len())..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut at = usize::from(bytes.first() == Some(&b'-'));
    at += match bytes.get(at)? {
        b'0' => 1,
        b'1'..=b'9' => digits(at),
        _ => return None,
    };
    if bytes.get(at) == Some(&b'.') {
        at += 1 + Some(digits(at + 1)).filter(|count| *count > 0)?;
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        at += 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        at += Some(digits(at)).filter(|count| *count > 0)?;
    }
    Some(at)
}

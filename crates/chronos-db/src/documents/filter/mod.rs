//! The filter language: parsed once, checked, evaluated in memory, translated to MongoDB and to SQL.
//!
//! The three answer alike on every document; [`Filter::matches`] is the definition.
//!
//! `parse.rs` reads the JSON of a filter, `evaluate.rs` is the definition, `to_mongo.rs` and `to_sql.rs` are
//! the translations; `pattern.rs` is `$regex`, `key_encoding.rs` the order of values across types. A
//! property test holds the three against each other.

mod evaluate;
#[cfg(feature = "testing")]
pub mod key_encoding;
#[cfg(not(feature = "testing"))]
#[allow(dead_code, unreachable_pub, reason = "some comparisons are public for the tests alone")]
pub(crate) mod key_encoding;
mod parse;
mod pattern;
#[cfg(all(feature = "testing", feature = "mongodb"))]
pub mod testing;
#[cfg(test)]
mod tests;
#[cfg(feature = "mongodb")]
mod to_mongo;
#[cfg(feature = "embedded")]
mod to_sql;

use std::fmt;

use bson::Bson;

use crate::Result;

pub use parse::parse;
pub use pattern::Pattern;
#[cfg(feature = "mongodb")]
pub(crate) use to_mongo::{after_to_mongo, plain, to_mongo};
#[cfg(feature = "embedded")]
pub(crate) use to_sql::{Columns, after_to_sql, is_exact_in_sql, to_sql_beyond};

/// A checked filter over typed values.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Filter {
    /// Every document.
    #[default]
    All,
    /// Documents that match every part.
    And(Vec<Filter>),
    /// Documents that match at least one part.
    Or(Vec<Filter>),
    /// Documents that match no part.
    Nor(Vec<Filter>),
    /// Documents whose value at a dotted path passes the test.
    Field(String, Test),
}

/// A test of the value at a path. As in MongoDB, a path that meets an array also looks into its elements, and
/// a test passes if any value it meets does; `Ne`, `Nin` and `Not` are the exact opposites of `Eq`, `In` and
/// their test. Comparisons hold between values of one type family only (numbers of all kinds are one), absent
/// equals null.
#[derive(Clone, PartialEq)]
pub enum Test {
    /// Equal.
    Eq(Bson),
    /// Not equal.
    Ne(Bson),
    /// Greater.
    Gt(Bson),
    /// Greater or equal.
    Gte(Bson),
    /// Less.
    Lt(Bson),
    /// Less or equal.
    Lte(Bson),
    /// Equal to one of them.
    In(Vec<Bson>),
    /// Equal to none of them.
    Nin(Vec<Bson>),
    /// Present (null too) or absent.
    Exists(bool),
    /// A string that the pattern matches somewhere.
    Regex(Pattern),
    /// An array that holds all of them (or a value equal to the only one).
    All(Vec<Bson>),
    /// An array with an element that passes all the tests.
    ElemMatch(Vec<Test>),
    /// An array with a document element that matches.
    ElemMatchFilter(Box<Filter>),
    /// An array of this many elements.
    Size(i64),
    /// All of them pass.
    Every(Vec<Test>),
    /// Not all of them pass.
    Not(Box<Test>),
}

/// Without the values it compares with.
impl fmt::Debug for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Eq(_) => "Eq",
            Self::Ne(_) => "Ne",
            Self::Gt(_) => "Gt",
            Self::Gte(_) => "Gte",
            Self::Lt(_) => "Lt",
            Self::Lte(_) => "Lte",
            Self::In(_) => "In",
            Self::Nin(_) => "Nin",
            Self::Exists(_) => "Exists",
            Self::Regex(_) => "Regex",
            Self::All(_) => "All",
            Self::ElemMatch(_) => "ElemMatch",
            Self::ElemMatchFilter(_) => "ElemMatchFilter",
            Self::Size(_) => "Size",
            Self::Every(_) => "Every",
            Self::Not(_) => "Not",
        })
    }
}

impl Filter {
    /// Matches documents whose value at `path` equals `value`.
    pub fn eq(path: impl Into<String>, value: impl Into<Bson>) -> Self {
        Self::Field(path.into(), Test::Eq(value.into()))
    }

    /// Matches documents whose value at `path` is greater than `value`.
    pub fn gt(path: impl Into<String>, value: impl Into<Bson>) -> Self {
        Self::Field(path.into(), Test::Gt(value.into()))
    }

    /// Matches documents whose value at `path` is less than or equal to `value`.
    pub fn lte(path: impl Into<String>, value: impl Into<Bson>) -> Self {
        Self::Field(path.into(), Test::Lte(value.into()))
    }

    /// Matches documents whose value at `path` equals one of `values`.
    pub fn any_of(path: impl Into<String>, values: Vec<Bson>) -> Self {
        Self::Field(path.into(), Test::In(values))
    }

    /// Matches documents in which `path` is present.
    pub fn exists(path: impl Into<String>, present: bool) -> Self {
        Self::Field(path.into(), Test::Exists(present))
    }

    /// The tests of the filter, wherever they stand, each with the path it is about.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, &Test)> {
        let mut rest = vec![self];
        std::iter::from_fn(move || {
            loop {
                match rest.pop()? {
                    Self::All => {}
                    Self::And(parts) | Self::Or(parts) | Self::Nor(parts) => rest.extend(parts.iter().rev()),
                    Self::Field(path, test) => return Some((path.as_str(), test)),
                }
            }
        })
    }

    /// The filter with what `field` makes of each test and its path.
    pub(crate) fn try_map(self, field: &mut dyn FnMut(String, Test) -> Result<Self>) -> Result<Self> {
        let mut all = |parts: Vec<Self>| -> Result<Vec<Self>> {
            parts.into_iter().map(|part| part.try_map(field)).collect()
        };
        Ok(match self {
            Self::All => Self::All,
            Self::And(parts) => Self::And(all(parts)?),
            Self::Or(parts) => Self::Or(all(parts)?),
            Self::Nor(parts) => Self::Nor(all(parts)?),
            Self::Field(path, test) => return field(path, test),
        })
    }

    /// The one value that every match has at `path`, as far as that can be seen.
    #[cfg(any(feature = "embedded", feature = "mongodb"))]
    pub(crate) fn fixes(&self, path: &str) -> Option<&Bson> {
        match self {
            Self::And(parts) => parts.iter().find_map(|part| part.fixes(path)),
            Self::Field(field, Test::Eq(value))
                if field == path && !matches!(value, Bson::Null | Bson::Array(_)) =>
            {
                Some(value)
            }
            _ => None,
        }
    }

    /// Matches what both filters match.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::All, x) | (x, Self::All) => x,
            (Self::And(mut a), Self::And(b)) => {
                a.extend(b);
                Self::And(a)
            }
            (Self::And(mut a), b) => {
                a.push(b);
                Self::And(a)
            }
            (a, Self::And(mut b)) => {
                b.insert(0, a);
                Self::And(b)
            }
            (a, b) => Self::And(vec![a, b]),
        }
    }

    /// Whether no document matches in which the value at `path` is absent or null.
    #[cfg(any(feature = "embedded", feature = "mongodb"))]
    pub(crate) fn demands_value(&self, path: &str) -> bool {
        match self {
            Self::All | Self::Nor(_) => false,
            Self::And(parts) => parts.iter().any(|part| part.demands_value(path)),
            Self::Or(parts) => !parts.is_empty() && parts.iter().all(|part| part.demands_value(path)),
            Self::Field(field, test) => field == path && test.demands_value(),
        }
    }
}

impl Test {
    /// The test with what `text` makes of the texts it compares with.
    pub(crate) fn try_map_texts(self, text: &dyn Fn(&str) -> Result<Bson>) -> Result<Self> {
        let one = |value: Bson| match &value {
            Bson::String(s) => text(s),
            _ => Ok(value),
        };
        let many = |values: Vec<Bson>| values.into_iter().map(one).collect::<Result<Vec<_>>>();
        Ok(match self {
            Self::Eq(v) => Self::Eq(one(v)?),
            Self::Ne(v) => Self::Ne(one(v)?),
            Self::Gt(v) => Self::Gt(one(v)?),
            Self::Gte(v) => Self::Gte(one(v)?),
            Self::Lt(v) => Self::Lt(one(v)?),
            Self::Lte(v) => Self::Lte(one(v)?),
            Self::In(vs) => Self::In(many(vs)?),
            Self::Nin(vs) => Self::Nin(many(vs)?),
            Self::Every(tests) => {
                Self::Every(tests.into_iter().map(|t| t.try_map_texts(text)).collect::<Result<_>>()?)
            }
            Self::Not(inner) => Self::Not(Box::new(inner.try_map_texts(text)?)),
            other => other,
        })
    }
}

#[cfg(any(feature = "embedded", feature = "mongodb"))]
impl Test {
    fn demands_value(&self) -> bool {
        let is_value = |value: &Bson| !matches!(value, Bson::Null | Bson::Undefined);
        match self {
            Self::Eq(value) | Self::Gt(value) | Self::Gte(value) | Self::Lt(value) | Self::Lte(value) => {
                is_value(value)
            }
            Self::In(values) | Self::All(values) => values.iter().all(is_value),
            Self::Regex(_) => true,
            Self::Every(tests) => tests.iter().any(Self::demands_value),
            // A path through an array may meet an array and, in another element, nothing.
            _ => false,
        }
    }
}

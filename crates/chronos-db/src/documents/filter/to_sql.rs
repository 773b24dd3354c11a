//! Translation to SQL over encoded columns: never misses a match, may let others through for the evaluator.
//!
//! A column holds [`column_value`](super::key_encoding::column_value) of its path. Below `x'F0'` that is the
//! value itself, so tests of it are exact (but those of presence, as absent and null look alike, and of
//! patterns). From `x'F0'` on there is an array somewhere on the path and nothing else is known, so such rows
//! always pass.

use std::cmp::Ordering;

use bson::Bson;

use super::key_encoding::{encode, encode_prefix, encode_top, rank, rank_of};
use super::{Filter, Test};
use crate::documents::Direction;

/// A piece of SQL with its parameters.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Sql {
    /// A condition that can stand beside others with AND and OR as it is.
    pub(crate) text: String,
    /// The blobs for the `?` of the text, in their order.
    pub(crate) parameters: Vec<Vec<u8>>,
}

crate::debug_some!(Sql { text });

/// The column that holds the encoded value at a path.
pub(crate) type Columns<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Longer lists become the range from their smallest to their largest value: SQLite has 32,766 parameters a
/// statement.
const MAX_LIST: usize = 8_000;

/// [`to_sql_beyond`] of a scan that begins anywhere.
#[cfg(test)]
pub(crate) fn to_sql(filter: &Filter, columns: Columns<'_>, may_hold_arrays: &dyn Fn(&str) -> bool) -> Sql {
    to_sql_beyond(filter, columns, may_hold_arrays, None)
}

/// A condition that no matching row fails; `1` where the filter's paths have no columns.
///
/// `(column = ? OR column >= x'F0')` finds its rows by an index, but no longer in the order of that index. So
/// the second part is left out for paths of which the caller knows that no array is met on them.
///
/// `beyond` is the value of a path at which a scan begins: a bound of the filter that this implies is left
/// out, so that SQLite enters the index there.
pub(crate) fn to_sql_beyond(
    filter: &Filter,
    columns: Columns<'_>,
    may_hold_arrays: &dyn Fn(&str) -> bool,
    beyond: Option<(&str, Direction, &Bson)>,
) -> Sql {
    let mut condition = Translation { columns, may_hold_arrays }.filter(filter, Wanted::Matches);
    if let Some((path, direction, value)) = beyond
        && let Some(column) = columns(path)
    {
        condition.leave_out_implied(&column, direction, &encode_top(value));
    }
    condition.into_sql()
}

/// Whether the translation lets no other row through, so that SQLite alone can count. `plain` says of which
/// paths the column holds the value itself.
pub(crate) fn is_exact_in_sql(filter: &Filter, plain: &dyn Fn(&str) -> bool) -> bool {
    match filter {
        Filter::All => true,
        Filter::And(parts) | Filter::Or(parts) => parts.iter().all(|part| is_exact_in_sql(part, plain)),
        Filter::Nor(_) => false,
        Filter::Field(path, test) => {
            let exact = match test {
                Test::In(values) => values.len() <= MAX_LIST,
                Test::Eq(_) | Test::Gt(_) | Test::Gte(_) | Test::Lt(_) | Test::Lte(_) => true,
                _ => false,
            };
            exact && plain(path)
        }
    }
}

/// Whether the rows that match are looked for, or those that don't; a superset of each needs its own
/// condition.
#[derive(Clone, Copy, PartialEq)]
enum Wanted {
    Matches,
    Others,
}

impl Wanted {
    fn opposite(self) -> Self {
        match self {
            Self::Matches => Self::Others,
            Self::Others => Self::Matches,
        }
    }

    fn constant(self, matches: bool) -> Condition {
        if matches == (self == Self::Matches) { Condition::Always } else { Condition::Never }
    }
}

#[derive(Clone, Debug)]
enum Condition {
    Always,
    Never,
    When(Sql),
    Within(Range),
    /// All of several that are none of these.
    All(Vec<Self>),
}

/// A value, and whether it is included.
type Bound = Option<(Vec<u8>, bool)>;

/// What lies between two values of a column. SQLite enters an index by one bound at each end, whichever it
/// takes first: there must not be several.
#[derive(Clone, Debug)]
struct Range {
    column: String,
    low: Bound,
    high: Bound,
}

impl Range {
    fn between(column: &str, low: (Vec<u8>, bool), high: (Vec<u8>, bool)) -> Condition {
        Condition::Within(Self { column: column.to_owned(), low: Some(low), high: Some(high) })
    }

    /// What lies in both.
    fn narrow(&mut self, other: Self) {
        // Of one value, what leaves it out is narrower.
        let narrower = |a: &(Vec<u8>, bool), b: &(Vec<u8>, bool), wanted: Ordering| match a.0.cmp(&b.0) {
            Ordering::Equal => !a.1,
            order => order == wanted,
        };
        if let Some(low) = other.low
            && self.low.as_ref().is_none_or(|mine| narrower(&low, mine, Ordering::Greater))
        {
            self.low = Some(low);
        }
        if let Some(high) = other.high
            && self.high.as_ref().is_none_or(|mine| narrower(&high, mine, Ordering::Less))
        {
            self.high = Some(high);
        }
    }

    fn into_sql(self) -> Sql {
        let column = &self.column;
        let low = self
            .low
            .map(|(value, included)| (format!("{column} {} ?", if included { ">=" } else { ">" }), value));
        let high = self
            .high
            .map(|(value, included)| (format!("{column} {} ?", if included { "<=" } else { "<" }), value));
        let (texts, parameters): (Vec<_>, Vec<_>) = low.into_iter().chain(high).unzip();
        if texts.is_empty() {
            Condition::Always.into_sql()
        } else {
            Sql { text: format!("({})", texts.join(" AND ")), parameters }
        }
    }
}

impl Condition {
    fn when(text: String, parameters: Vec<Vec<u8>>) -> Self {
        Self::When(Sql { text, parameters })
    }

    fn into_sql(self) -> Sql {
        match self {
            Self::Always => Sql { text: "1".to_owned(), parameters: Vec::new() },
            Self::Never => Sql { text: "0".to_owned(), parameters: Vec::new() },
            Self::When(sql) => sql,
            Self::Within(range) => range.into_sql(),
            Self::All(parts) => {
                let parts = parts.into_iter().map(Self::into_sql).collect();
                join(parts, " AND ").unwrap_or_else(|| Self::Always.into_sql())
            }
        }
    }

    fn leave_out_implied(&mut self, column: &str, direction: Direction, beyond: &[u8]) {
        match self {
            Self::All(parts) => {
                parts.iter_mut().for_each(|part| part.leave_out_implied(column, direction, beyond))
            }
            Self::Within(range) if range.column == column => {
                let (bound, implied) = match direction {
                    Direction::Ascending => (&mut range.low, Ordering::Less),
                    Direction::Descending => (&mut range.high, Ordering::Greater),
                };
                if bound.as_ref().is_some_and(|(value, _)| value.as_slice().cmp(beyond) == implied) {
                    *bound = None;
                }
            }
            _ => {}
        }
    }

    fn all(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut kept: Vec<Self> = Vec::new();
        for part in parts {
            let several = match part {
                Self::Always => continue,
                Self::Never => return Self::Never,
                Self::All(parts) => parts,
                one => vec![one],
            };
            for part in several {
                let same = |other: &&mut Self| matches!((other, &part), (Self::Within(a), Self::Within(b)) if a.column == b.column);
                match (kept.iter_mut().find(same), part) {
                    (Some(Self::Within(range)), Self::Within(other)) => range.narrow(other),
                    (_, part) => kept.push(part),
                }
            }
        }
        match kept.len() {
            0 | 1 => kept.pop().unwrap_or(Self::Always),
            _ => Self::All(kept),
        }
    }

    fn any(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut kept = Vec::new();
        for part in parts {
            match part {
                Self::Never => {}
                Self::Always => return Self::Always,
                part => kept.push(part.into_sql()),
            }
        }
        join(kept, " OR ").map_or(Self::Never, Self::When)
    }
}

/// Joins conditions as a balanced tree: SQLite refuses expressions more than a thousand levels deep, and a
/// plain chain has a level per link.
fn join(mut parts: Vec<Sql>, word: &str) -> Option<Sql> {
    match parts.len() {
        0 | 1 => parts.pop(),
        n if n <= 8 => {
            let text = parts.iter().map(|part| part.text.as_str()).collect::<Vec<_>>().join(word);
            Some(Sql {
                text: format!("({text})"),
                parameters: parts.into_iter().flat_map(|part| part.parameters).collect(),
            })
        }
        n => {
            let right = parts.split_off(n / 2);
            let halves = [join(parts, word), join(right, word)];
            join(halves.into_iter().flatten().collect(), word)
        }
    }
}

struct Translation<'a> {
    columns: Columns<'a>,
    may_hold_arrays: &'a dyn Fn(&str) -> bool,
}

impl Translation<'_> {
    fn filter(&self, filter: &Filter, wanted: Wanted) -> Condition {
        let parts =
            |parts: &[Filter], wanted| parts.iter().map(|part| self.filter(part, wanted)).collect::<Vec<_>>();
        match (filter, wanted) {
            (Filter::All, wanted) => wanted.constant(true),
            (Filter::And(all), Wanted::Matches) => Condition::all(parts(all, wanted)),
            (Filter::And(all), Wanted::Others) => Condition::any(parts(all, wanted)),
            (Filter::Or(any), Wanted::Matches) | (Filter::Nor(any), Wanted::Others) => {
                Condition::any(parts(any, Wanted::Matches))
            }
            (Filter::Or(any), Wanted::Others) | (Filter::Nor(any), Wanted::Matches) => {
                Condition::all(parts(any, Wanted::Others))
            }
            (Filter::Field(path, test), wanted) => match (self.columns)(path) {
                None => Condition::Always,
                Some(column) => {
                    let value = scalar(&column, test, wanted);
                    if !(self.may_hold_arrays)(path) {
                        return value;
                    }
                    let array =
                        Condition::when(format!("{column} >= x'{:02X}'", rank::TOP_ARRAY), Vec::new());
                    Condition::any([value, array])
                }
            },
        }
    }
}

/// The condition on a column below `x'F0'`.
fn scalar(column: &str, test: &Test, wanted: Wanted) -> Condition {
    match test {
        Test::Eq(value) => one_of(column, std::slice::from_ref(value), wanted),
        Test::In(values) => one_of(column, values, wanted),
        Test::Ne(value) => one_of(column, std::slice::from_ref(value), wanted.opposite()),
        Test::Nin(values) => one_of(column, values, wanted.opposite()),
        Test::Gt(bound) => range(column, bound, Side::Above, false, wanted),
        Test::Gte(bound) => range(column, bound, Side::Above, true, wanted),
        Test::Lt(bound) => range(column, bound, Side::Below, false, wanted),
        Test::Lte(bound) => range(column, bound, Side::Below, true, wanted),
        // Null may be present; what is not null is.
        Test::Exists(present) => match wanted.constant(*present) {
            Condition::Always => Condition::Always,
            _ => Condition::when(format!("{column} = ?"), vec![encode(&Bson::Null)]),
        },
        Test::Regex(_) if wanted == Wanted::Others => Condition::Always,
        Test::Regex(pattern) => {
            let from = encode_prefix(pattern.prefix());
            let to = after_prefix(&from);
            Range::between(column, (from, true), (to, false))
        }
        Test::All(values) if values.is_empty() => wanted.constant(false),
        Test::All(values) => {
            let each = values.iter().map(|value| one_of(column, std::slice::from_ref(value), wanted));
            if wanted == Wanted::Matches { Condition::all(each) } else { Condition::any(each) }
        }
        Test::ElemMatch(_) | Test::ElemMatchFilter(_) | Test::Size(_) => wanted.constant(false),
        Test::Every(tests) => {
            let each = tests.iter().map(|test| scalar(column, test, wanted));
            if wanted == Wanted::Matches { Condition::all(each) } else { Condition::any(each) }
        }
        Test::Not(test) => scalar(column, test, wanted.opposite()),
    }
}

fn one_of(column: &str, values: &[Bson], wanted: Wanted) -> Condition {
    let mut encoded: Vec<_> =
        values.iter().map(encode).filter(|bytes| bytes.first() < Some(&rank::TOP_ARRAY)).collect();
    encoded.sort();
    encoded.dedup();
    let yes = wanted == Wanted::Matches;
    match encoded.len() {
        0 => wanted.constant(false),
        1 => Condition::when(format!("{column} {} ?", if yes { "=" } else { "<>" }), encoded),
        n if n <= MAX_LIST => {
            let marks = vec!["?"; n].join(",");
            Condition::when(format!("{column} {} ({marks})", if yes { "IN" } else { "NOT IN" }), encoded)
        }
        n if yes => {
            encoded.drain(1..n - 1);
            Condition::when(format!("({column} >= ? AND {column} <= ?)"), encoded)
        }
        _ => Condition::Always,
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Above,
    Below,
}

fn range(column: &str, bound: &Bson, side: Side, or_equal: bool, wanted: Wanted) -> Condition {
    let (kind, bytes) = (rank_of(bound), encode(bound));
    let nan = encode(&Bson::Double(f64::NAN));
    // Null equals itself and NaN equals itself; neither is less or greater than anything.
    if kind == rank::ARRAY {
        return wanted.constant(false);
    }
    if kind == rank::NULL || bytes == nan {
        return if or_equal {
            one_of(column, std::slice::from_ref(bound), wanted)
        } else {
            wanted.constant(false)
        };
    }
    let yes = wanted == Wanted::Matches;
    let (low, low_included, high, high_included) = match side {
        Side::Above => (bytes, or_equal, vec![kind + 1], false),
        Side::Below if kind == rank::NUMBER => (nan, false, bytes, or_equal),
        Side::Below => (vec![kind], true, bytes, or_equal),
    };
    if yes {
        return Range::between(column, (low, low_included), (high, high_included));
    }
    let (below, above) = (if low_included { "<" } else { "<=" }, if high_included { ">" } else { ">=" });
    Condition::when(format!("({column} {below} ? OR {column} {above} ?)"), vec![low, high])
}

/// The smallest bytes above all that start with `prefix`, which starts with a rank below `FF`.
fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut out = prefix.to_vec();
    while let Some(last) = out.pop() {
        if last < 0xFF {
            out.push(last + 1);
            break;
        }
    }
    out
}

/// The condition "strictly after these values in this order" (or at them, if `inclusive`), exact in the order
/// of the columns.
///
/// Every path needs a column: without one the rows cannot be in that order at all, and the condition ends
/// before it (which keeps it a superset).
pub(crate) fn after_to_sql(
    order: &[(String, Direction)],
    after: &[Bson],
    inclusive: bool,
    columns: Columns<'_>,
) -> Sql {
    let mut keys = Vec::new();
    let mut complete = true;
    for ((path, direction), value) in order.iter().zip(after) {
        let Some(column) = columns(path) else {
            complete = false;
            break;
        };
        keys.push((column, *direction, encode_top(value)));
    }
    let Some((_, first, _)) = keys.first() else { return Condition::Always.into_sql() };
    if !complete || keys.iter().any(|(_, direction, _)| direction != first) {
        return stepwise(&keys, complete && !inclusive);
    }
    let sign = format!("{}{}", sign(*first), if inclusive { "=" } else { "" });
    let parameters: Vec<_> = keys.iter().map(|(_, _, value)| value.clone()).collect();
    let names: Vec<_> = keys.iter().map(|(column, _, _)| column.as_str()).collect();
    let text = match names.as_slice() {
        [one] => format!("{one} {sign} ?"),
        several => format!("({}) {sign} ({})", several.join(", "), vec!["?"; several.len()].join(", ")),
    };
    Sql { text, parameters }
}

fn sign(direction: Direction) -> &'static str {
    match direction {
        Direction::Ascending => ">",
        Direction::Descending => "<",
    }
}

/// `a >= ? AND (a > ? OR (b <= ? AND (b < ? OR …)))`: the first comparison of each pair is what an index can
/// be entered by.
fn stepwise(keys: &[(String, Direction, Vec<u8>)], strict: bool) -> Sql {
    let Some(((column, direction, value), rest)) = keys.split_first() else {
        return if strict { Condition::Never } else { Condition::Always }.into_sql();
    };
    let sign = sign(*direction);
    let inner = stepwise(rest, strict);
    let mut parameters = vec![value.clone(), value.clone()];
    parameters.extend(inner.parameters);
    Sql { text: format!("({column} {sign}= ? AND ({column} {sign} ? OR {}))", inner.text), parameters }
}

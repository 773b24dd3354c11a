//! The definition of the language: what a filter means for a document in memory.

use bson::{Bson, Document};

use super::key_encoding::{compare, rank, rank_of};
use super::{Filter, Test};
use crate::documents::path::{index, split};

impl Filter {
    /// Returns whether `document` matches. This defines what a filter means; translations for stores agree
    /// with it.
    #[must_use]
    pub fn matches(&self, document: &Document) -> bool {
        self.holds(Node::Document(document))
    }

    fn holds(&self, node: Node<'_>) -> bool {
        match self {
            Self::All => true,
            Self::And(parts) => parts.iter().all(|part| part.holds(node)),
            Self::Or(parts) => parts.iter().any(|part| part.holds(node)),
            Self::Nor(parts) => !parts.iter().any(|part| part.holds(node)),
            Self::Field(path, test) => test.holds_at(node, path),
        }
    }
}

/// Where a path starts: a document, or an array seen as the document of its indexes (which is what
/// `$elemMatch` does to arrays within arrays).
#[derive(Clone, Copy)]
enum Node<'a> {
    Document(&'a Document),
    Array(&'a [Bson]),
}

impl<'a> Node<'a> {
    fn of(value: &'a Bson) -> Option<Self> {
        match value {
            Bson::Document(document) => Some(Self::Document(document)),
            Bson::Array(items) => Some(Self::Array(items)),
            _ => None,
        }
    }

    fn get(self, segment: &str) -> Option<&'a Bson> {
        match self {
            Self::Document(document) => document.get(segment),
            Self::Array(items) => items.get(index(segment)?),
        }
    }
}

/// Whether a path that ends at an array also leads to the elements.
#[derive(Clone, Copy, PartialEq)]
enum Leaf {
    Elements,
    Whole,
}

/// Calls `passes` with every value the path leads to, absent ones as `None`, until it says yes.
fn any_at(node: Node<'_>, path: &str, leaf: Leaf, passes: &mut dyn FnMut(Option<&Bson>) -> bool) -> bool {
    let (segment, rest) = split(path);
    match (node.get(segment), rest) {
        (Some(array @ Bson::Array(items)), rest) => any_in(array, items, rest, leaf, passes),
        (value, None) => passes(value),
        (Some(Bson::Document(document)), Some(rest)) => any_at(Node::Document(document), rest, leaf, passes),
        (_, Some(_)) => passes(None),
    }
}

/// [`any_at`] for what is left of a path at an array. A scalar element has nothing below it, not even
/// something absent.
fn any_in(
    array: &Bson,
    items: &[Bson],
    rest: Option<&str>,
    leaf: Leaf,
    passes: &mut dyn FnMut(Option<&Bson>) -> bool,
) -> bool {
    let Some(rest) = rest else {
        let elements = leaf == Leaf::Elements && items.iter().any(|item| passes(Some(item)));
        return elements || passes(Some(array));
    };
    let (segment, below) = split(rest);
    let picked = index(segment);
    items.iter().enumerate().any(|(at, item)| {
        let below_each =
            matches!(item, Bson::Document(document) if any_at(Node::Document(document), rest, leaf, passes));
        below_each
            || picked == Some(at)
                && match (item, below) {
                    (item, None) => passes(Some(item)),
                    (Bson::Document(document), Some(below)) => {
                        any_at(Node::Document(document), below, leaf, passes)
                    }
                    (Bson::Array(inner), Some(below)) => any_in(item, inner, Some(below), leaf, passes),
                    _ => false,
                }
    })
}

impl Test {
    /// Whether the test passes for a path, which may lead to several values or none.
    fn holds_at(&self, node: Node<'_>, path: &str) -> bool {
        match self {
            Self::Ne(value) => !any_at(node, path, Leaf::Elements, &mut |v| equal(v, value)),
            Self::Nin(values) => {
                !any_at(node, path, Leaf::Elements, &mut |v| values.iter().any(|value| equal(v, value)))
            }
            Self::Exists(present) => any_at(node, path, Leaf::Elements, &mut |v| v.is_some()) == *present,
            Self::Not(test) => !test.holds_at(node, path),
            Self::Every(tests) => tests.iter().all(|test| test.holds_at(node, path)),
            Self::All(values) => {
                !values.is_empty()
                    && values.iter().all(|value| any_at(node, path, Leaf::Elements, &mut |v| equal(v, value)))
            }
            Self::Size(_) | Self::ElemMatch(_) | Self::ElemMatchFilter(_) => {
                any_at(node, path, Leaf::Whole, &mut |v| self.holds(v))
            }
            Self::Eq(_)
            | Self::Gt(_)
            | Self::Gte(_)
            | Self::Lt(_)
            | Self::Lte(_)
            | Self::In(_)
            | Self::Regex(_) => any_at(node, path, Leaf::Elements, &mut |v| self.holds(v)),
        }
    }

    /// Whether the test passes for one value, without looking into it if it is an array (but where the test
    /// is one of arrays).
    fn holds(&self, value: Option<&Bson>) -> bool {
        match self {
            Self::Eq(wanted) => equal(value, wanted),
            Self::Ne(wanted) => !equal(value, wanted),
            Self::Gt(bound) => ordered(value, bound).is_some_and(std::cmp::Ordering::is_gt),
            Self::Gte(bound) => ordered(value, bound).is_some_and(std::cmp::Ordering::is_ge),
            Self::Lt(bound) => ordered(value, bound).is_some_and(std::cmp::Ordering::is_lt),
            Self::Lte(bound) => ordered(value, bound).is_some_and(std::cmp::Ordering::is_le),
            Self::In(wanted) => wanted.iter().any(|wanted| equal(value, wanted)),
            Self::Nin(wanted) => !wanted.iter().any(|wanted| equal(value, wanted)),
            Self::Exists(present) => value.is_some() == *present,
            Self::Regex(pattern) => {
                matches!(value, Some(Bson::String(text) | Bson::Symbol(text)) if pattern.is_match(text))
            }
            Self::All(wanted) => !wanted.is_empty() && wanted.iter().all(|wanted| equal(value, wanted)),
            Self::ElemMatch(tests) => {
                matches!(value, Some(Bson::Array(items)) if items.iter().any(|item| tests.iter().all(|test| test.holds(Some(item)))))
            }
            Self::ElemMatchFilter(filter) => {
                matches!(value, Some(Bson::Array(items)) if items.iter().filter_map(Node::of).any(|node| filter.holds(node)))
            }
            Self::Size(size) => {
                matches!(value, Some(Bson::Array(items)) if i64::try_from(items.len()) == Ok(*size))
            }
            Self::Every(tests) => tests.iter().all(|test| test.holds(value)),
            Self::Not(test) => !test.holds(value),
        }
    }
}

fn equal(value: Option<&Bson>, wanted: &Bson) -> bool {
    let value = value.unwrap_or(&Bson::Null);
    rank_of(value) == rank_of(wanted) && compare(value, wanted).is_eq()
}

/// How two values of one type family compare; values of different ones do not, and NaN compares with nothing
/// but itself.
fn ordered(value: Option<&Bson>, bound: &Bson) -> Option<std::cmp::Ordering> {
    let value = value.unwrap_or(&Bson::Null);
    let comparable = rank_of(value) == rank_of(bound)
        && (rank_of(value) != rank::NUMBER || is_nan(value) == is_nan(bound));
    comparable.then(|| compare(value, bound))
}

fn is_nan(value: &Bson) -> bool {
    match value {
        Bson::Double(d) => d.is_nan(),
        Bson::Decimal128(d) => d.to_string() == "NaN",
        _ => false,
    }
}

//! Translation to MongoDB's own filters, exact on every server from 4.4 on.

use bson::{Bson, Document, doc};

use super::key_encoding::{rank, rank_of};
use super::{Filter, Test};
use crate::documents::Direction;

/// The filter a server answers as [`Filter::matches`] does.
///
/// The operators within one `$elemMatch` or `$not` become keys of one object, so none of them may occur there
/// twice; the parser makes no others.
pub(crate) fn to_mongo(filter: &Filter) -> Document {
    match filter {
        Filter::All => Document::new(),
        Filter::And(parts) if parts.is_empty() => Document::new(),
        Filter::And(parts) => doc! { "$and": translate(parts) },
        Filter::Or(parts) if parts.is_empty() => nothing(),
        Filter::Or(parts) => doc! { "$or": translate(parts) },
        Filter::Nor(parts) if parts.is_empty() => Document::new(),
        Filter::Nor(parts) => doc! { "$nor": translate(parts) },
        Filter::Field(path, Test::Every(tests)) => {
            let each: Vec<_> = tests.iter().map(|test| Filter::Field(path.clone(), test.clone())).collect();
            to_mongo(&Filter::And(each))
        }
        Filter::Field(path, Test::Not(test)) => {
            doc! { "$nor": [to_mongo(&Filter::Field(path.clone(), (**test).clone()))] }
        }
        Filter::Field(path, test) => doc! { path: operators(test) },
    }
}

fn translate(parts: &[Filter]) -> Vec<Document> {
    parts.iter().map(to_mongo).collect()
}

fn nothing() -> Document {
    doc! { "$nor": [{}] }
}

fn operators(test: &Test) -> Document {
    match test {
        Test::Eq(value) => doc! { "$eq": value },
        Test::Ne(value) => doc! { "$ne": value },
        Test::Gt(value) => doc! { "$gt": value },
        Test::Gte(value) => doc! { "$gte": value },
        Test::Lt(value) => doc! { "$lt": value },
        Test::Lte(value) => doc! { "$lte": value },
        Test::In(values) => doc! { "$in": values },
        Test::Nin(values) => doc! { "$nin": values },
        Test::Exists(present) => doc! { "$exists": *present },
        Test::Regex(pattern) => doc! { "$regex": pattern.pcre() },
        Test::All(values) => doc! { "$all": values },
        // An empty object would only match documents.
        Test::ElemMatch(tests) if tests.is_empty() => doc! { "$elemMatch": { "$exists": true } },
        Test::ElemMatch(tests) => doc! { "$elemMatch": merged(tests) },
        Test::ElemMatchFilter(filter) => doc! { "$elemMatch": to_mongo(filter) },
        // Servers refuse negative sizes, which nothing has.
        Test::Size(size) if *size < 0 => doc! { "$in": [] },
        Test::Size(size) => doc! { "$size": *size },
        Test::Every(tests) => merged(tests),
        Test::Not(test) => doc! { "$not": operators(test) },
    }
}

fn merged(tests: &[Test]) -> Document {
    tests.iter().flat_map(operators).collect()
}

/// MongoDB's names of the types, by rank. Arrays are among them for completeness: a path that holds some has
/// no order to continue in.
const TYPES: [(u8, &[&str]); 15] = [
    (rank::MIN_KEY, &["minKey"]),
    (rank::NULL, &["null", "undefined"]),
    (rank::NUMBER, &["number"]),
    (rank::STRING, &["string", "symbol"]),
    (rank::OBJECT, &["object"]),
    (rank::ARRAY, &["array"]),
    (rank::BINARY, &["binData"]),
    (rank::OBJECT_ID, &["objectId"]),
    (rank::BOOLEAN, &["bool"]),
    (rank::DATE, &["date"]),
    (rank::TIMESTAMP, &["timestamp"]),
    (rank::REGEX, &["regex"]),
    (rank::DB_POINTER, &["dbPointer"]),
    (rank::CODE, &["javascript"]),
    (rank::CODE_WITH_SCOPE, &["javascriptWithScope"]),
];

/// The filter "strictly after these values in this order", across types, for paths that hold no arrays.
///
/// MongoDB's `$gt` and `$lt` stay within the family of their value, so the other families are named by type;
/// absent is null.
pub(crate) fn after_to_mongo(order: &[(String, Direction)], after: &[Bson]) -> Document {
    let mut steps = Vec::new();
    let mut equal: Vec<Document> = Vec::new();
    for ((path, direction), value) in order.iter().zip(after) {
        if let Some(beyond) = beyond(path, *direction, value) {
            let mut step = equal.clone();
            step.push(beyond);
            steps.push(all(step));
        }
        equal.push(doc! { path: { "$eq": plain(value) } });
    }
    match steps.len() {
        0 if order.is_empty() || after.is_empty() => Document::new(),
        0 => nothing(),
        1 => steps.swap_remove(0),
        _ => doc! { "$or": steps },
    }
}

fn all(mut parts: Vec<Document>) -> Document {
    if parts.len() == 1 {
        parts.swap_remove(0)
    } else {
        doc! { "$and": parts }
    }
}

/// What comes strictly after `value` at one path.
fn beyond(path: &str, direction: Direction, value: &Bson) -> Option<Document> {
    let own = rank_of(value);
    if own == rank::REGEX {
        // Refused beside `$gt`; aggregation compares it, and across types at that.
        let operator = if direction == Direction::Ascending { "$gt" } else { "$lt" };
        return Some(doc! { "$expr": { operator: [format!("${path}"), { "$literal": value }] } });
    }
    let number = own == rank::NUMBER;
    let nan = matches!(value, Bson::Double(d) if d.is_nan());
    let mut parts = Vec::new();
    match direction {
        // Below every other number stands NaN, which no comparison with another number holds for.
        Direction::Ascending if nan => parts.push(doc! { path: { "$gte": f64::NEG_INFINITY } }),
        Direction::Ascending if own != rank::NULL => parts.push(doc! { path: { "$gt": value } }),
        Direction::Descending if number && !nan => {
            parts.push(doc! { path: { "$lt": value } });
            parts.push(doc! { path: { "$eq": f64::NAN } });
        }
        Direction::Descending if own != rank::NULL && !nan => parts.push(doc! { path: { "$lt": value } }),
        _ => {}
    }
    let others = TYPES.iter().filter(|(rank, _)| match direction {
        Direction::Ascending => *rank > own,
        Direction::Descending => *rank < own && *rank != rank::NULL,
    });
    let mut types: Vec<&str> = others.flat_map(|(_, names)| names.iter().copied()).collect();
    if direction == Direction::Ascending && own < rank::MAX_KEY {
        types.push("maxKey");
    }
    if !types.is_empty() {
        parts.push(doc! { path: { "$type": types } });
    }
    if direction == Direction::Descending && own > rank::NULL {
        parts.push(doc! { path: { "$eq": Bson::Null } });
    }
    match parts.len() {
        0 => None,
        1 => parts.pop(),
        _ => Some(doc! { "$or": parts }),
    }
}

/// Servers refuse to compare with `undefined`, which equals null.
pub(crate) fn plain(value: &Bson) -> Bson {
    if *value == Bson::Undefined { Bson::Null } else { value.clone() }
}

//! What a rule takes of an item.

use std::collections::HashSet;

use bson::{Bson, Document};

use super::number::Number;
use super::result::digest;
use crate::config::AnalyticsRule;
use crate::documents::filter::key_encoding::encode;
use crate::records::{ItemValues, ValuesQuery};
use crate::{Error, Result, Timestamp};

/// Groups that one item may be in.
const MAX_GROUPS: usize = 10_000;

/// What of which items a rule reads at a moment.
pub(super) fn query_of(rule: &AnalyticsRule, arguments: &[String], now: Timestamp) -> ValuesQuery {
    let window = rule.window(now);
    let properties = arguments.iter().chain(&rule.field).cloned().collect();
    ValuesQuery { filter: rule.query.clone(), properties, from: window.from, to: window.to }
}

/// The numbers that an item adds: one for the item itself, or each that its field has.
///
/// # Errors
/// `VALIDATION_ERROR` that names the item if the field has something else.
pub(super) fn numbers_of(rule: &AnalyticsRule, item: &ItemValues, counts_all: bool) -> Result<Vec<Number>> {
    let Some(field) = &rule.field else { return Ok(vec![Number::ONE]) };
    let mut found = Vec::new();
    collect_below(&item.entry, field, &mut found);
    let number = |value: &Bson| match Number::of(value) {
        _ if counts_all => Ok(Number::ONE),
        Some(number) => Ok(number),
        None => {
            let message = format!("`{field}` of this item is {}, and the rule takes numbers", kind_of(value));
            Err(Error::validation(message).on_item(item.id))
        }
    };
    found.into_iter().map(number).collect()
}

fn collect_below<'v>(document: &'v Document, path: &str, found: &mut Vec<&'v Bson>) {
    let (segment, rest) = match path.split_once('.') {
        Some((segment, rest)) => (segment, Some(rest)),
        None => (path, None),
    };
    if let Some(value) = document.get(segment) {
        collect(value, rest, found);
    }
}

/// The values at a path; arrays on it are looked through, as filters do.
fn collect<'v>(value: &'v Bson, path: Option<&str>, found: &mut Vec<&'v Bson>) {
    match (value, path) {
        (Bson::Array(items), _) => items.iter().for_each(|item| collect(item, path, found)),
        (Bson::Null | Bson::Undefined, _) => {}
        (value, None) => found.push(value),
        (Bson::Document(document), Some(path)) => collect_below(document, path, found),
        _ => {}
    }
}

fn kind_of(value: &Bson) -> &'static str {
    match value {
        Bson::String(_) => "a text",
        Bson::Boolean(_) => "a boolean",
        Bson::Document(_) => "an object",
        Bson::Double(_) | Bson::Decimal128(_) => "a number beyond the largest double",
        _ => "not a number",
    }
}

/// The groups that an item is in: every combination of the values of the arguments, each once. Arrays on a path are
/// looked through, as filters do, so that an item is in a group for each element; one that has no value there is in
/// the group of null.
///
/// # Errors
/// `VALIDATION_ERROR` if there are more than [`MAX_GROUPS`].
pub(super) fn groups_of(entry: &Document, arguments: &[String]) -> Result<Vec<Vec<Bson>>> {
    let mut groups: Vec<Vec<Bson>> = vec![Vec::with_capacity(arguments.len())];
    for path in arguments {
        let mut values = Vec::new();
        collect_below(entry, path, &mut values);
        if values.is_empty() {
            values.push(&Bson::Null);
        }
        let mut seen = HashSet::new();
        values.retain(|value| seen.insert(encode(value)));
        if groups.len().saturating_mul(values.len()) > MAX_GROUPS {
            let message = format!(
                "the arguments of the rule put this item into more than {MAX_GROUPS} groups, by the elements of `{path}`"
            );
            return Err(Error::validation(message));
        }
        let with = |group: &Vec<Bson>, value: &Bson| {
            let mut group = group.clone();
            group.push(value.clone());
            group
        };
        groups = groups.iter().flat_map(|group| values.iter().map(|value| with(group, value))).collect();
    }
    Ok(groups)
}

/// Bytes that are equal for equal arguments, and for no others.
pub(super) fn group_key(arguments: &[Bson]) -> Vec<u8> {
    let mut key = Vec::new();
    for argument in arguments {
        let encoded = encode(argument);
        key.extend((encoded.len() as u64).to_be_bytes());
        key.extend(encoded);
    }
    key
}

/// The digest by which results of a group are found.
pub(super) fn group_of(key: &[u8]) -> String {
    digest([key])
}

#[cfg(test)]
mod tests {
    use bson::{doc, oid::ObjectId};

    use super::*;
    use crate::config::{AnalyticsOperation, Config, TimeBasedRule};
    use crate::records::{ItemId, int};

    fn rule(field: &str) -> AnalyticsRule {
        let rule = TimeBasedRule::new("r", "c", AnalyticsOperation::Sum).field(field);
        let config = Config::embedded_builder("/x".as_ref()).time_based_rule(rule).build().unwrap();
        config.analytics.time_based[0].rule.clone()
    }

    #[test]
    fn a_field_is_looked_for_as_a_filter_does() {
        let entry =
            doc! { "a": 1, "b": { "c": [2, 3.5, null] }, "d": [{ "e": 4 }, { "e": [5] }, {}], "s": "x" };
        let item = ItemValues {
            id: ItemId::new(ObjectId::new()),
            changed_at: Timestamp::default(),
            entry: entry.clone(),
        };
        let found = |field: &str| numbers_of(&rule(field), &item, false);
        let stored =
            |field: &str| -> Vec<Bson> { found(field).unwrap().into_iter().map(Number::stored).collect() };
        assert_eq!(stored("a"), [int(1)]);
        assert_eq!(stored("b.c"), [int(2), Bson::Double(3.5)]);
        assert_eq!(stored("d.e"), [int(4), int(5)]);
        assert_eq!(stored("absent.x"), []);
        let error = found("s").unwrap_err();
        assert!(error.message().contains("`s` of this item is a text") && error.id().is_some(), "{error}");
        assert_eq!(numbers_of(&rule("s"), &item, true).unwrap(), [Number::ONE], "it is only counted");
    }

    #[test]
    fn groups_are_distinguished_by_type_and_not_by_how_a_number_is_stored() {
        let key = |values: &[Bson]| group_key(values);
        assert_eq!(key(&[int(1)]), key(&[Bson::Double(1.0)]));
        assert_ne!(key(&[int(1)]), key(&["1".into()]));
        assert_ne!(key(&["a".into(), "b".into()]), key(&["ab".into(), "".into()]));
        let entry = doc! { "a": { "b": 1 } };
        let paths = ["a.b".to_owned(), "a.c".to_owned()];
        assert_eq!(groups_of(&entry, &paths).unwrap(), [[Bson::Int32(1), Bson::Null]]);
    }

    #[test]
    fn an_item_is_once_in_the_group_of_each_element_of_an_array() {
        let groups = |entry: Document, paths: &[&str]| {
            let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
            groups_of(&entry, &paths)
        };
        let entry =
            doc! { "tags": ["x", "y", "x"], "lines": [{ "sku": 1 }, { "sku": [2, 1.0] }, {}], "none": [] };
        assert_eq!(groups(entry.clone(), &["tags"]).unwrap(), [["x".into()], ["y".into()] as [Bson; 1]]);
        assert_eq!(groups(entry.clone(), &["lines.sku"]).unwrap(), [[Bson::Int32(1)], [Bson::Int32(2)]]);
        assert_eq!(groups(entry.clone(), &["none"]).unwrap(), [[Bson::Null]]);
        assert_eq!(groups(entry.clone(), &["tags", "lines.sku"]).unwrap().len(), 4);
        assert_eq!(groups(entry, &[]).unwrap(), [Vec::<Bson>::new()]);
        let many: Vec<i32> = (0..200).collect();
        let error = groups(doc! { "a": many.clone(), "b": many }, &["a", "b"]).unwrap_err();
        assert!(error.message().contains("`b`"), "{error}");
    }
}

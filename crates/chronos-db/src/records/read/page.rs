//! Places in an order, and the tokens that pages end with.

use std::cmp::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bson::raw::cstr;
use bson::spec::ElementType;
use bson::{Bson, Document, RawDocument, doc};

use crate::documents::filter::key_encoding::{compare, value_at};
use crate::documents::{Direction, raw_bson};
use crate::records::model::ItemId;
use crate::{Error, Result};

pub(crate) type Order = Vec<(String, Direction)>;

/// Where an item stands in an order.
#[derive(Clone)]
pub(crate) struct SortKey {
    pub(crate) values: Vec<Bson>,
    /// A property that the list is sorted by, and that gives the item no one place, because it is an array.
    pub(crate) array: Option<String>,
    /// Why the item's head cannot be read.
    pub(crate) damage: Option<Error>,
}

crate::debug_some!(SortKey { array });

impl SortKey {
    /// By the fields of a stored document. `sorted` are the paths a user sorts by.
    pub(crate) fn of(order: &Order, sorted: &[String], stored: &RawDocument) -> Result<Self> {
        let paths = || order.iter().map(|(path, _)| path).chain(sorted);
        let keys =
            raw_bson::decode_part(stored, |field| paths().any(|path| path.split('.').next() == Some(field)))?;
        Ok(Self::by(order, sorted, &keys))
    }

    pub(crate) fn by(order: &Order, sorted: &[String], keys: &Document) -> Self {
        let array = sorted.iter().find_map(|path| array_towards(keys, path));
        Self { values: values(order, keys), array, damage: None }
    }

    /// What is wrong with it.
    pub(crate) fn problem(&self, id: ItemId) -> Option<Error> {
        if self.damage.is_some() {
            return self.damage.clone();
        }
        let property = self.array.as_ref()?;
        Some(Error::validation(format!("cannot sort by `{property}`: it is an array in item {id}")))
    }

    /// Refuses an item that has no one place in the order.
    pub(crate) fn check(&self, id: ItemId) -> Result<()> {
        self.problem(id).map_or(Ok(()), Err)
    }

    pub(crate) fn compare(&self, other: &[Bson], order: &Order) -> Ordering {
        let keys = self.values.iter().zip(other).zip(order);
        keys.map(|((a, b), (_, direction))| match direction {
            Direction::Ascending => compare(a, b),
            Direction::Descending => compare(b, a),
        })
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
    }
}

fn values(order: &Order, keys: &Document) -> Vec<Bson> {
    order.iter().map(|(path, _)| value_at(keys, path).cloned().unwrap_or(Bson::Null)).collect()
}

/// The property on the way to `path` that is an array.
fn array_towards(keys: &Document, path: &str) -> Option<String> {
    let mut parts = path.match_indices('.').map(|(i, _)| &path[..i]).chain(std::iter::once(path));
    let array = parts.find(|part| matches!(value_at(keys, part), Some(Bson::Array(_))))?;
    Some(array.trim_start_matches("metaIndexed.").to_owned())
}

/// The longest token. It travels in URLs, and is looked at before anything is known of its sender.
const MAX_TOKEN: usize = 4 * 1024;

/// The cursor behind the document with these sort keys: flat, so that reading one takes no recursion.
///
/// # Errors
/// `VALIDATION_ERROR` if a sort key there is an array or an object, or so long that no token holds it.
pub(crate) fn cursor(order: &Order, keys: &Document) -> Result<String> {
    token(order, &values(order, keys))
}

/// The cursor behind what has these values.
pub(crate) fn token(order: &Order, values: &[Bson]) -> Result<String> {
    let property = |at: usize| order.get(at).map_or("", |(path, _)| path.trim_start_matches("metaIndexed."));
    if let Some(at) = values.iter().position(|value| !is_scalar(value.element_type())) {
        let what = format!(
            "a page cannot end at an item whose `{}` is an object or an array: sort by something else",
            property(at)
        );
        return Err(Error::validation(what));
    }
    let largest = values
        .iter()
        .enumerate()
        .max_by_key(|(_, value)| value.as_str().map_or(0, str::len))
        .map_or(0, |(at, _)| at);
    let bytes = bson::serialize_to_vec(&doc! { "o": signature(order), "v": values.to_vec() })
        .map_err(|e| Error::validation("the sort keys cannot be written into a page token").caused_by(e))?;
    let token = URL_SAFE_NO_PAD.encode(bytes);
    if token.len() > MAX_TOKEN {
        let what = format!(
            "a page cannot end at an item whose `{}` is that long: a page token holds {MAX_TOKEN} bytes; sort by something else",
            property(largest)
        );
        return Err(Error::validation(what));
    }
    Ok(token)
}

fn is_scalar(kind: ElementType) -> bool {
    !matches!(
        kind,
        ElementType::EmbeddedDocument
            | ElementType::Array
            | ElementType::JavaScriptCodeWithScope
            | ElementType::DbPointer
    )
}

/// The values to go on after.
///
/// # Errors
/// `VALIDATION_ERROR` if the token was not made for this order.
pub(crate) fn parse_cursor(token: &str, order: &Order) -> Result<Vec<Bson>> {
    let values = if token.len() > MAX_TOKEN { None } else { parse(token, order) };
    values.ok_or_else(|| {
        Error::validation("this page token was not given out for this list: pass `next` of the page before, with the same sort")
    })
}

/// What a token says, if it is one of this order. It comes from outside: only its one level of scalars is
/// ever decoded.
fn parse(token: &str, order: &Order) -> Option<Vec<Bson>> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let doc = RawDocument::from_bytes(&bytes).ok()?;
    if doc.get_str(cstr!("o")).ok()? != signature(order) {
        return None;
    }
    let mut values = Vec::with_capacity(order.len());
    for element in RawDocument::from_bytes(doc.get_array(cstr!("v")).ok()?.as_bytes()).ok()?.iter_elements() {
        let element = element.ok()?;
        if !is_scalar(element.element_type()) || values.len() == order.len() {
            return None;
        }
        values.push(Bson::try_from(element.value().ok()?).ok()?);
    }
    (values.len() == order.len()).then_some(values)
}

fn signature(order: &Order) -> String {
    order
        .iter()
        .map(|(path, direction)| {
            format!("{}{path};", if *direction == Direction::Ascending { '+' } else { '-' })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use bson::{RawJavaScriptCodeWithScope, rawdoc};

    use super::*;

    fn by_name() -> Order {
        vec![("metaIndexed.name".into(), Direction::Ascending), ("_id".into(), Direction::Descending)]
    }

    fn token(bytes: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    #[test]
    fn a_token_is_read_back_as_the_keys_it_was_made_of() {
        for name in [
            Bson::Null,
            "x".into(),
            1.5.into(),
            i64::MAX.into(),
            true.into(),
            bson::DateTime::from_millis(5).into(),
        ] {
            let keys = doc! { "metaIndexed": { "name": name.clone() }, "_id": bson::oid::ObjectId::from_bytes([7; 12]) };
            let read = parse_cursor(&cursor(&by_name(), &keys).unwrap(), &by_name()).unwrap();
            assert_eq!(read, [name, bson::oid::ObjectId::from_bytes([7; 12]).into()]);
        }
    }

    #[test]
    fn a_token_of_anything_but_a_flat_list_of_scalars_is_refused_before_it_is_decoded() {
        let order = by_name();
        let o = signature(&order);
        let mut deep = rawdoc! {};
        for _ in 0..400 {
            deep = rawdoc! { "a": deep };
        }
        let scope = RawJavaScriptCodeWithScope { code: "x".into(), scope: rawdoc! {} };
        let tokens = [
            rawdoc! { "o": o.as_str(), "v": [deep.clone(), 1] },
            rawdoc! { "o": o.as_str(), "v": [[1], 1] },
            rawdoc! { "o": o.as_str(), "v": [scope, 1] },
            rawdoc! { "o": o.as_str(), "v": [1] },
            rawdoc! { "o": o.as_str(), "v": [1, 2, 3] },
            rawdoc! { "o": o.as_str(), "v": deep },
            rawdoc! { "o": "+_id;", "v": [1, 2] },
            rawdoc! { "v": [1, 2] },
        ];
        for bytes in &tokens {
            assert!(parse_cursor(&token(bytes.as_bytes()), &order).is_err(), "{bytes:?}");
        }
        let good = rawdoc! { "o": o.as_str(), "v": ["x", 2] };
        assert!(parse_cursor(&token(good.as_bytes()), &order).is_ok());
        for cut in 0..good.as_bytes().len() {
            assert!(parse_cursor(&token(&good.as_bytes()[..cut]), &order).is_err(), "cut at {cut}");
        }
        let long = rawdoc! { "o": o.as_str(), "v": ["x".repeat(MAX_TOKEN), 2] };
        assert!(parse_cursor(&token(long.as_bytes()), &order).is_err());
    }

    #[test]
    fn a_key_that_no_token_can_hold_is_named() {
        let long = doc! { "metaIndexed": { "name": "x".repeat(MAX_TOKEN) }, "_id": 1 };
        let nested = doc! { "metaIndexed": { "name": { "first": "x" } }, "_id": 1 };
        for keys in [long, nested] {
            assert!(cursor(&by_name(), &keys).unwrap_err().message().contains("`name`"));
        }
    }
}

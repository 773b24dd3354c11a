//! Which copies of a document's properties the index holds.

use std::collections::{HashMap, HashSet};

use bson::{Bson, Document, RawBsonRef, RawDocument, RawDocumentBuf};

use crate::config::CollectionMap;
use crate::documents::raw_bson;
use crate::json::Map;
use crate::records::model::{BlobRef, Missing};
use crate::{Error, Json, Result, json_to_bson};

/// The largest index entry of one version, in bytes of BSON.
pub const MAX_INDEXED_BYTES: usize = 64 * 1024;

/// A declared path without its array marks: `tags[]` is stored, filtered and sorted as `tags`.
pub(crate) fn plain(path: &str) -> String {
    path.replace("[]", "")
}

/// Copies what the collection map names (without one: every top-level property) out of a document, and says
/// what it left out for want of room.
///
/// Externalised properties are never copied, nor keys the document store cannot name (with a dot, or a
/// leading `$`). Without declared paths the largest properties stay out until the rest fits
/// [`MAX_INDEXED_BYTES`].
///
/// # Errors
/// `VALIDATION_ERROR` for an indexed number that BSON cannot hold, or declared properties beyond the bound.
pub(crate) fn extract(
    document: &Map,
    map: &CollectionMap,
    refs: &[BlobRef],
) -> Result<(RawDocumentBuf, Missing)> {
    if map.indexed.is_empty() {
        let entry = raw_bson::encode(&all_of(document, refs)?)?;
        if entry.as_bytes().len() <= MAX_INDEXED_BYTES {
            Ok((entry, Missing::None))
        } else {
            without_largest(&entry)
        }
    } else {
        Ok((extract_declared(document, map, refs)?, Missing::None))
    }
}

/// Every property that has a name, however much room they take.
///
/// # Errors
/// `VALIDATION_ERROR` for a number that BSON cannot hold.
pub(crate) fn all_of(document: &Map, refs: &[BlobRef]) -> Result<Document> {
    let refs = by_top(refs);
    let mut indexed = Document::new();
    for (key, value) in document.iter().filter(|(key, _)| can_be_named(key)) {
        let inside = refs.get(key.as_str()).map(Vec::as_slice).unwrap_or_default();
        if !inside.iter().any(|r| r.path == *key) {
            let value = copy(value).map_err(|e| about(key, &e))?;
            indexed.insert(key, without_refs(value, key, inside));
        }
    }
    Ok(indexed)
}

/// Blobs by the top-level property that they are in.
fn by_top(refs: &[BlobRef]) -> HashMap<&str, Vec<&BlobRef>> {
    let mut by_top: HashMap<&str, Vec<&BlobRef>> = HashMap::new();
    for blob in refs {
        by_top.entry(blob.path.split('.').next().unwrap_or_default()).or_default().push(blob);
    }
    by_top
}

/// An entry without its largest properties: as many as must go for the rest to fit.
fn without_largest(entry: &RawDocument) -> Result<(RawDocumentBuf, Missing)> {
    let mut sizes = Vec::new();
    for element in entry.iter_elements() {
        let element =
            element.map_err(|e| Error::validation("the document cannot be encoded as BSON").caused_by(e))?;
        sizes.push((element.size() + element.key().len(), element.key().as_str().to_owned()));
    }
    sizes.sort_unstable();
    let mut left = entry.as_bytes().len();
    let mut dropped = HashSet::new();
    while left > MAX_INDEXED_BYTES
        && let Some((size, key)) = sizes.pop()
    {
        // A type before the key, and its terminator.
        left -= size + 2;
        dropped.insert(key);
    }
    let rest = raw_bson::leave_out(entry, |field| dropped.contains(field))?;
    Ok((rest, Missing::of(dropped)))
}

fn extract_declared(document: &Map, map: &CollectionMap, refs: &[BlobRef]) -> Result<RawDocumentBuf> {
    let refs_by_top = by_top(refs);
    let mut indexed = Document::new();
    for path in &map.indexed {
        let path = plain(path);
        if refs.iter().any(|r| r.path == path) {
            continue;
        }
        let segments: Vec<&str> = path.split('.').collect();
        if let Some((first, rest)) = segments.split_first()
            && let Some(value) = document.get(*first)
            && let Some(value) = pick(value, rest).map_err(|e| about(&path, &e))?
        {
            let value =
                without_refs(value, first, refs_by_top.get(first).map(Vec::as_slice).unwrap_or_default());
            match indexed.get_mut(first) {
                Some(existing) => unite(existing, value),
                None => {
                    indexed.insert(*first, value);
                }
            }
        }
    }
    let entry = raw_bson::encode(&indexed)?;
    let size = entry.as_bytes().len();
    if size > MAX_INDEXED_BYTES {
        return Err(Error::validation(format!(
            "the indexed properties have {size} bytes; {MAX_INDEXED_BYTES} are allowed"
        )));
    }
    Ok(entry)
}

/// The part of `value` that `path` leads to, in the shape it has in the document; arrays on the way keep
/// their elements.
fn pick(value: &Json, path: &[&str]) -> Result<Option<Bson>> {
    let Some((first, rest)) = path.split_first() else { return copy(value).map(Some) };
    let nested = |v: &Json| Ok::<_, Error>(pick(v, rest)?.map(|v| Bson::Document(bson::doc! { *first: v })));
    match value {
        Json::Object(map) => map.get(*first).map_or(Ok(None), nested),
        Json::Array(items) => match first.parse::<usize>() {
            Ok(index) => items.get(index).map_or(Ok(None), nested),
            Err(_) => {
                let picked: Vec<Bson> =
                    items.iter().filter_map(|item| pick(item, path).transpose()).collect::<Result<_>>()?;
                Ok((!picked.is_empty()).then_some(Bson::Array(picked)))
            }
        },
        _ => Ok(None),
    }
}

/// Two declared paths may share a beginning: `address.city` and `address.zip`.
fn unite(target: &mut Bson, more: Bson) {
    match (target, more) {
        (Bson::Document(target), Bson::Document(more)) => {
            for (key, value) in more {
                match target.get_mut(&key) {
                    Some(existing) => unite(existing, value),
                    None => {
                        target.insert(key, value);
                    }
                }
            }
        }
        (Bson::Array(target), Bson::Array(more)) if target.len() == more.len() => {
            target.iter_mut().zip(more).for_each(|(target, more)| unite(target, more));
        }
        (target, more) => *target = more,
    }
}

fn copy(value: &Json) -> Result<Bson> {
    Ok(nameable(json_to_bson(value)?))
}

/// Leaves out nested keys that a path cannot name.
fn nameable(value: Bson) -> Bson {
    match value {
        Bson::Document(doc) => Bson::Document(
            doc.into_iter().filter(|(k, _)| can_be_named(k)).map(|(k, v)| (k, nameable(v))).collect(),
        ),
        Bson::Array(items) => Bson::Array(items.into_iter().map(nameable).collect()),
        other => other,
    }
}

fn can_be_named(key: &str) -> bool {
    !key.is_empty() && !key.starts_with('$') && !key.contains(['.', '\0'])
}

fn without_refs(mut value: Bson, top: &str, refs: &[&BlobRef]) -> Bson {
    for blob in refs {
        if let Some(path) = blob.path.strip_prefix(top).and_then(|rest| rest.strip_prefix('.')) {
            remove(&mut value, &path.split('.').collect::<Vec<_>>());
        }
    }
    value
}

fn remove(value: &mut Bson, path: &[&str]) {
    match (value, path) {
        (Bson::Document(doc), [last]) => {
            doc.remove(last);
        }
        (Bson::Document(doc), [first, rest @ ..]) => {
            if let Some(inner) = doc.get_mut(first) {
                remove(inner, rest);
            }
        }
        (Bson::Array(items), [first, rest @ ..]) => {
            if let Some(inner) = first.parse::<usize>().ok().and_then(|i| items.get_mut(i)) {
                // An element is not removed, so that its neighbours keep their places.
                if rest.is_empty() { *inner = Bson::Null } else { remove(inner, rest) }
            }
        }
        _ => {}
    }
}

/// Whether a document differs for sure from the one that the index entry was made of, under whatever map. If
/// not, nobody knows yet.
pub(crate) fn differs(document: &Map, indexed: &RawDocument) -> bool {
    // What is damaged tells nothing.
    let mut entries = indexed.iter_elements().filter_map(|element| raw_bson::field(element).ok());
    entries.any(|(key, was)| document.get(key).is_none_or(|is| is_other(is, was)))
}

fn is_other(is: &Json, was: RawBsonRef<'_>) -> bool {
    match was {
        RawBsonRef::Document(was) => match is {
            Json::Object(is) => differs(is, was),
            // A declared `tags.0` has the shape of an object in the index.
            Json::Array(_) => false,
            _ => true,
        },
        // An object may be a value in its Extended JSON form.
        _ if is.is_object() => false,
        RawBsonRef::String(was) => is.as_str() != Some(was),
        RawBsonRef::Boolean(was) => is.as_bool() != Some(was),
        RawBsonRef::Null => !is.is_null(),
        RawBsonRef::Int32(_) | RawBsonRef::Int64(_) | RawBsonRef::Double(_) if !is.is_number() => true,
        // Other numbers may be the same one in another kind.
        RawBsonRef::Int32(was) if is.is_i64() => is.as_i64() != Some(i64::from(was)),
        RawBsonRef::Int64(was) if is.is_i64() => is.as_i64() != Some(was),
        // An array has those elements alone that the map wanted; a date was text.
        _ => false,
    }
}

fn about(path: &str, error: &Error) -> Error {
    Error::validation(format!("property `{path}`: {}", error.message()))
}

/// Checks that the required paths hold something.
///
/// # Errors
/// `VALIDATION_ERROR` naming the first that is absent, null or empty.
pub(crate) fn check_required(document: &Map, map: &CollectionMap) -> Result<()> {
    for path in &map.required {
        let mut segments = path.split('.');
        let first = segments.next().and_then(|first| document.get(first));
        let value = segments.fold(first, |value, segment| value.and_then(|v| v.get(segment)));
        if value.is_none_or(|v| v.is_null() || v.as_str() == Some("")) {
            return Err(Error::validation(format!("Required indexed field '{path}' is missing or empty")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::json;

    use super::*;

    fn map(indexed: &[&str]) -> CollectionMap {
        CollectionMap {
            indexed: indexed.iter().map(|p| (*p).to_owned()).collect(),
            ..CollectionMap::default()
        }
    }

    fn extracted(document: Json, paths: &[&str]) -> Json {
        let Json::Object(document) = document else { panic!("an object") };
        let (entry, _) = extract(&document, &map(paths), &[]).unwrap();
        crate::bson_to_json(&Bson::Document(raw_bson::decode(&entry).unwrap()))
    }

    #[test]
    fn declared_paths_keep_the_shape_of_the_document() {
        let document = json!({"id": 1, "name": "n", "address": {"city": "c", "zip": "z", "street": "s"}, "tags": ["a", "b"], "other": 1});
        let expected = json!({"id": 1, "name": "n", "address": {"city": "c"}, "tags": ["a", "b"]});
        assert_eq!(
            extracted(document.clone(), &["id", "name", "address.city", "tags[]", "status"]),
            expected
        );
        assert_eq!(
            extracted(document, &["address.city", "address.zip"]),
            json!({"address": {"city": "c", "zip": "z"}})
        );
        assert_eq!(
            extracted(json!({"items": [{"sku": 1, "n": 2}, {"n": 3}]}), &["items[].sku"]),
            json!({"items": [{"sku": 1}]})
        );
    }

    #[test]
    fn without_declared_paths_everything_nameable_is_indexed_but_the_largest_beyond_the_bound() {
        let document = json!({"a": 1, "b.c": 2, "$d": 3, "big": "x".repeat(70_000), "n": {"x.y": 1, "z": 2}});
        assert_eq!(extracted(document, &[]), json!({"a": 1, "n": {"z": 2}}));
    }

    #[test]
    fn an_entry_says_what_it_left_out_for_want_of_room() {
        let missing = |document: Json| {
            let missing = extract(document.as_object().unwrap(), &map(&[]), &[]).unwrap().1;
            let stored =
                missing.stored().map(|value| bson::rawdoc! { "v": bson::RawBson::try_from(value).unwrap() });
            assert_eq!(
                stored.map(|doc| Missing::read(doc.get("v").unwrap().unwrap())),
                (missing != Missing::None).then(|| missing.clone())
            );
            missing
        };
        assert_eq!(missing(json!({"a": 1, "b.c": 2})), Missing::None);
        assert_eq!(missing(json!({"a": 1, "big": "x".repeat(70_000)})), Missing::These(vec!["big".into()]));
        let two = missing(json!({"a": 1, "z": "x".repeat(70_000), "y": "x".repeat(70_000)}));
        assert_eq!(two, Missing::These(vec!["y".into(), "z".into()]));
        assert!(two.has_any_of(&["a".into(), "z".into()]) && !two.has_any_of(&["a".into()]));
        let many: Map = (0..20_000).map(|n| (format!("property {n}"), Json::from(n))).collect();
        let many = missing(Json::Object(many));
        assert!(many == Missing::Any && many.has_any_of(&["a".into()]));
    }

    #[test]
    fn an_entry_tells_a_change_for_sure_only_where_every_map_would_show_it() {
        let document =
            json!({"a": 1, "n": {"x": "y", "z": 1.5}, "tags": ["p", "q"], "on": true, "none": null});
        let was = |json: Json| match json_to_bson(&json).unwrap() {
            Bson::Document(was) => raw_bson::encode(&was).unwrap(),
            other => panic!("{other} is not a document"),
        };
        let now = document.as_object().unwrap();
        for same in [
            json!({}),
            json!({"a": 1}),
            json!({"n": {"x": "y"}}),
            json!({"n": {"z": 2.5}}),
            json!({"tags": ["p"]}),
            json!({"tags": {"0": "p"}}),
        ] {
            assert!(!differs(now, &was(same.clone())), "{same}");
        }
        for other in [
            json!({"a": 2}),
            json!({"b": 1}),
            json!({"n": {"x": "z"}}),
            json!({"n": {"w": 1}}),
            json!({"on": false}),
            json!({"none": 0}),
            json!({"a": null}),
        ] {
            assert!(differs(now, &was(other.clone())), "{other}");
        }
    }

    #[test]
    fn a_required_path_may_not_be_absent_null_or_empty() {
        let map = CollectionMap { required: vec!["id".into()], ..CollectionMap::default() };
        for wrong in [json!({}), json!({"id": null}), json!({"id": ""})] {
            let error = check_required(wrong.as_object().unwrap(), &map).unwrap_err();
            assert!(error.message().contains("Required indexed field 'id' is missing or empty"));
        }
        assert!(check_required(json!({"id": 0}).as_object().unwrap(), &map).is_ok());
    }
}

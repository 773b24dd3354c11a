//! Base64 properties leave the document and become objects of their own.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::config::{Base64Property, CollectionMap};
use crate::json::Map;
use crate::objects::keys::{self, Rendition};
use crate::records::model::{BlobRef, InlineObject, ItemId};
use crate::{Error, ErrorKind, Json, Result, json};

/// Control characters beyond this share of a text make it binary.
const MAX_CONTROL_RATIO: f64 = 0.05;

/// Where the blobs of one version go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlobLocation<'a> {
    pub(crate) collection: &'a str,
    pub(crate) id: ItemId,
    pub(crate) ov: i64,
    pub(crate) bucket: &'a str,
    /// Makes keys unique that are stored before their commit.
    pub(crate) suffix: Option<&'a str>,
}

/// What leaves the document.
#[derive(Clone, Debug, Default)]
pub(crate) struct Externalized {
    pub(crate) inline_objects: Vec<InlineObject>,
    pub(crate) refs: Vec<BlobRef>,
}

/// Replaces the base64 text at every configured path by a reference. References that `known` has recorded
/// stay what they are.
///
/// # Errors
/// `EXTERNALIZATION_ERROR` if a value is neither such a reference nor canonical, padded base64; nothing is
/// changed then that a caller keeps.
pub(crate) fn externalize(
    document: &mut Map,
    map: &CollectionMap,
    known: &[BlobRef],
    place: BlobLocation<'_>,
) -> Result<Externalized> {
    let mut out = Externalized::default();
    for (path, property) in &map.base64 {
        let segments: Vec<&str> = path.split('.').flat_map(split_array_mark).collect();
        let Some((first, rest)) = segments.split_first() else { continue };
        if let Some(value) = document.get_mut(*first) {
            descend(value, rest, (*first).to_owned(), &mut |value, path| {
                replace(value, &path, property, known, place, &mut out)
            })?;
        }
    }
    Ok(out)
}

/// `files[]` is the property `files` and then each of its elements.
fn split_array_mark(segment: &str) -> impl Iterator<Item = &str> {
    let name = segment.trim_end_matches("[]");
    std::iter::once(name).chain((name.len() < segment.len()).then_some("[]"))
}

type Visit<'a> = dyn FnMut(&mut Json, String) -> Result<()> + 'a;

fn descend(value: &mut Json, path: &[&str], at: String, visit: &mut Visit<'_>) -> Result<()> {
    match (path, value) {
        ([], value) => visit(value, at),
        (["[]", rest @ ..], Json::Array(items)) => items
            .iter_mut()
            .enumerate()
            .try_for_each(|(i, item)| descend(item, rest, format!("{at}.{i}"), visit)),
        ([first, rest @ ..], Json::Object(map)) => match map.get_mut(*first) {
            Some(value) => descend(value, rest, format!("{at}.{first}"), visit),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

fn replace(
    value: &mut Json,
    path: &str,
    property: &Base64Property,
    known: &[BlobRef],
    place: BlobLocation<'_>,
    out: &mut Externalized,
) -> Result<()> {
    let invalid = || {
        Error::new(
            ErrorKind::Externalization,
            format!("Property '{path}' is not valid base64 (standard alphabet, padded)"),
        )
    };
    let text = match &*value {
        Json::Null => return Ok(()),
        Json::String(text) => text,
        other => {
            // What a reader got and sends back unchanged keeps its blob; any other object here is the user's
            // mistake.
            let same = known.iter().find(|r| reference(r) == *other).ok_or_else(invalid)?;
            out.refs.push(BlobRef { path: path.to_owned(), ..same.clone() });
            return Ok(());
        }
    };
    let bytes = STANDARD.decode(text).map_err(|e| invalid().caused_by(e))?;
    let rendition = rendition(&bytes, property)?;
    let blob_key = keys::property(
        place.collection,
        &place.id.to_string(),
        place.ov,
        path,
        Rendition::Blob,
        place.suffix,
    )?;
    out.inline_objects.push(InlineObject {
        bucket: place.bucket.to_owned(),
        key: blob_key.clone(),
        content_type: property.content_type.clone(),
        bytes: bytes.into(),
    });
    let text_key = match rendition {
        None => None,
        Some(text) => {
            let key = keys::property(
                place.collection,
                &place.id.to_string(),
                place.ov,
                path,
                Rendition::Text,
                place.suffix,
            )?;
            let content_type = "text/plain; charset=utf-8".to_owned();
            out.inline_objects.push(InlineObject {
                bucket: place.bucket.to_owned(),
                key: key.clone(),
                content_type,
                bytes: Bytes::from(text),
            });
            Some(key)
        }
    };
    let blob = BlobRef { path: path.to_owned(), bucket: place.bucket.to_owned(), blob_key, text_key };
    *value = reference(&blob);
    out.refs.push(blob);
    Ok(())
}

/// What stands in the document instead of the base64 text.
pub(crate) fn reference(blob: &BlobRef) -> Json {
    let mut inner = json!({ "contentBucket": blob.bucket, "blobKey": blob.blob_key });
    if let Some(key) = &blob.text_key {
        inner["textKey"] = key.clone().into();
    }
    json!({ "ref": inner })
}

/// Of `known`, the references that still stand in the document at their path.
pub(crate) fn still_referenced(document: &Map, known: &[BlobRef]) -> Vec<BlobRef> {
    let at = |path: &str| {
        let mut segments = path.split('.');
        let first = segments.next().and_then(|first| document.get(first));
        segments.fold(first, |value, segment| match value? {
            Json::Array(items) => items.get(segment.parse::<usize>().ok()?),
            other => other.get(segment),
        })
    };
    known.iter().filter(|r| at(&r.path) == Some(&reference(r))).cloned().collect()
}

/// The references in a document whose index entry records none, which is how the legacy library left it. Only
/// what has a key that they gave this very item counts: `<collection>/<property>/<id>/v<ov>/blob.bin`.
pub(crate) fn adopted(
    document: &Map,
    map: &CollectionMap,
    collection: &str,
    id: ItemId,
    bucket: &str,
) -> Vec<BlobRef> {
    let mut found = Vec::new();
    for path in map.base64.keys() {
        let segments: Vec<&str> = path.split('.').flat_map(split_array_mark).collect();
        let Some((first, rest)) = segments.split_first() else { continue };
        let Some(mut value) = document.get(*first).cloned() else { continue };
        let looked = descend(&mut value, rest, (*first).to_owned(), &mut |value, path| {
            let text = |key: &str| {
                value.get("ref").and_then(|r| r.get(key)).and_then(Json::as_str).map(str::to_owned)
            };
            if let (Some(in_bucket), Some(blob_key)) = (text("contentBucket"), text("blobKey")) {
                let blob = BlobRef { path, bucket: in_bucket, blob_key, text_key: text("textKey") };
                let is_own = |key: &str, file: &str| is_legacy_key(key, collection, id, file);
                if blob.bucket == bucket
                    && is_own(&blob.blob_key, "blob.bin")
                    && blob.text_key.as_deref().is_none_or(|key| is_own(key, "text.txt"))
                    && reference(&blob) == *value
                {
                    found.push(blob);
                }
            }
            Ok(())
        });
        debug_assert!(looked.is_ok(), "the visitor never fails");
    }
    found
}

fn is_legacy_key(key: &str, collection: &str, id: ItemId, file: &str) -> bool {
    let segments: Vec<&str> = key.split('/').collect();
    let [in_collection, property, of, version, name] = segments[..] else { return false };
    in_collection == collection.trim().to_lowercase()
        && !property.is_empty()
        && of == id.to_string()
        && version
            .strip_prefix('v')
            .is_some_and(|ov| !ov.is_empty() && ov.bytes().all(|b| b.is_ascii_digit()))
        && name == file
}

/// The text of a blob as UTF-8, where one is wanted and it is text.
fn rendition(bytes: &[u8], property: &Base64Property) -> Result<Option<String>> {
    if !property.preferred_text && !property.content_type.starts_with("text/") {
        return Ok(None);
    }
    let text = decode(bytes, &property.text_charset)?;
    Ok(Some(text).filter(|text| is_text(text, MAX_CONTROL_RATIO)))
}

fn decode(bytes: &[u8], charset: &str) -> Result<String> {
    Ok(match charset.to_ascii_lowercase().as_str() {
        "" | "utf8" | "utf-8" => String::from_utf8_lossy(bytes).into_owned(),
        "latin1" | "binary" | "iso-8859-1" => bytes.iter().map(|b| char::from(*b)).collect(),
        "ascii" | "us-ascii" => bytes.iter().map(|b| char::from(*b & 0x7f)).collect(),
        "utf16le" | "utf-16le" | "ucs2" | "ucs-2" => {
            let units: Vec<u16> =
                bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
            String::from_utf16_lossy(&units)
        }
        other => {
            return Err(Error::new(
                ErrorKind::Externalization,
                format!("the character set `{other}` is not known: utf8, latin1, ascii or utf16le"),
            ));
        }
    })
}

/// Whether a text is safe to keep as one: not empty, and at most `ratio` of it control characters other than
/// line breaks and tabs.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn is_text(text: &str, ratio: f64) -> bool {
    let units = text.encode_utf16().count();
    let control = text.chars().filter(|c| (*c as u32) < 32 && !matches!(c, '\n' | '\r' | '\t')).count();
    units > 0 && control as f64 / units as f64 <= ratio
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_distinguished_from_binary_by_its_control_characters() {
        assert!(is_text("line\nbreak\r\tand tab", 0.05));
        assert!(!is_text("abc\u{0}\u{1}\u{2}defghij", 0.05));
        assert!(!is_text("", 0.05));
        assert!(is_text("0123456789\u{1}", 0.1));
        assert!(!is_text("0123456789\u{1}", 0.05));
    }

    #[test]
    fn renditions_follow_their_character_set() {
        let property = |charset: &str| Base64Property {
            content_type: "text/plain".into(),
            preferred_text: false,
            text_charset: charset.into(),
        };
        assert_eq!(rendition("漢字".as_bytes(), &property("utf8")).unwrap().unwrap(), "漢字");
        assert_eq!(rendition(&[0xe9], &property("latin1")).unwrap().unwrap(), "é");
        assert_eq!(rendition(&[0x41, 0, 0x42, 0], &property("utf16le")).unwrap().unwrap(), "AB");
        assert!(rendition(b"x", &property("klingon")).is_err());
    }
}

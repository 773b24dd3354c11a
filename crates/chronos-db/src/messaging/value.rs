//! JSON values inside documents, exactly as they were given.

use bson::{Bson, Document};

use crate::documents;
use crate::{Error, Json, Result, Timestamp, bson_to_json, json_to_bson};

/// The largest value of a message, dead letter or key, in bytes of JSON. Messages are meant to stay below 256
/// KiB.
pub const MAX_VALUE_BYTES: usize = 8 * 1024 * 1024;
/// What the documentation advises.
const ADVISED_BYTES: usize = 256 * 1024;
/// Servers stop at 100 levels of a document.
const MAX_DEPTH: usize = 64;

/// Puts `value` under `field`. What no document can hold as it is (numbers with more digits, keys with dots
/// and dollars, deep nesting) is kept as JSON text, and `<field>Format` says so. Returns the size of its
/// JSON.
pub(super) fn put(document: &mut Document, field: &str, value: &Json) -> Result<usize> {
    let text = value.to_string();
    if text.len() > MAX_VALUE_BYTES {
        return Err(Error::validation(format!(
            "`{field}` has {} bytes of JSON; {MAX_VALUE_BYTES} are allowed",
            text.len()
        )));
    }
    if text.len() > ADVISED_BYTES {
        tracing::warn!(field, bytes = text.len(), "a messaging value is larger than 256 KiB");
    }
    let format = format!("{field}Format");
    let size = text.len();
    // Equal is not enough: 1.50 would come back as 1.5.
    let comes_back = |bson: &Bson| {
        let back = bson_to_json(bson).to_string();
        back == text
    };
    match json_to_bson(value).ok().filter(|bson| is_plain(value, 0) && comes_back(bson)) {
        Some(bson) => {
            document.insert(field, bson);
            document.remove(&format);
        }
        None => {
            document.insert(field, text);
            document.insert(format, "json");
        }
    }
    Ok(size)
}

/// The value that [`put`] or the legacy library put.
pub(super) fn take(document: &Document, field: &str) -> Result<Json> {
    let stored = document.get(field).unwrap_or(&Bson::Null);
    match (stored, document.get_str(format!("{field}Format"))) {
        (Bson::String(text), Ok("json")) => Json::parse(text).map_err(|error| {
            Error::database(format!("the stored `{field}` is not JSON, though its format says so"))
                .caused_by(error)
        }),
        _ => Ok(bson_to_json(stored)),
    }
}

fn is_plain(value: &Json, depth: usize) -> bool {
    match value {
        Json::Array(items) => depth < MAX_DEPTH && items.iter().all(|item| is_plain(item, depth + 1)),
        Json::Object(map) => {
            let date_or_id = map.len() == 1 && map.keys().all(|key| key == "$date" || key == "$oid");
            let plain = |key: &str| !key.is_empty() && !key.starts_with('$') && !key.contains(['.', '\0']);
            depth < MAX_DEPTH
                && (date_or_id || map.iter().all(|(key, item)| plain(key) && is_plain(item, depth + 1)))
        }
        _ => true,
    }
}

pub(super) fn text(document: &Document, field: &str) -> Option<String> {
    document.get_str(field).ok().map(str::to_owned)
}

/// A text that must be there.
pub(super) fn required_text(document: &Document, field: &str) -> Result<String> {
    text(document, field).ok_or_else(|| damaged(document, field))
}

pub(super) fn damaged(document: &Document, field: &str) -> Error {
    let id = document.get("_id").map(ToString::to_string).unwrap_or_default();
    Error::new(
        crate::ErrorKind::RouteMismatch,
        format!("the document {id} has no `{field}` of the expected type"),
    )
}

/// A whole number, however it is typed.
pub(super) fn whole(document: &Document, field: &str) -> Option<i64> {
    documents::whole(document.get(field)?)
}

pub(super) fn date(document: &Document, field: &str) -> Option<Timestamp> {
    document.get_datetime(field).ok().map(|at| Timestamp::from(*at))
}

pub(super) fn system(document: &Document) -> Option<&Document> {
    document.get_document("_system").ok()
}

pub(super) fn system_date(document: &Document, field: &str) -> Option<Timestamp> {
    system(document).and_then(|system| date(system, field))
}

pub(super) fn system_whole(document: &Document, field: &str) -> Option<i64> {
    system(document).and_then(|system| whole(system, field))
}

/// `_system` of a document written now.
pub(super) fn new_system(created: Timestamp, updated: Timestamp, retention_days: Option<u32>) -> Document {
    let mut system = bson::doc! { "createdAt": created, "updatedAt": updated };
    if let Some(days) = retention_days {
        system.insert("retentionDays", i64::from(days));
        system.insert("expiresAt", after_days(updated, days));
    }
    system
}

/// The moment `days` days later.
pub(super) fn after_days(at: Timestamp, days: u32) -> Timestamp {
    const DAY: i64 = 24 * 60 * 60 * 1000;
    at.plus_millis(i64::from(days) * DAY)
}

/// The `_id` as text.
pub(super) fn id_text(document: &Document) -> String {
    match document.get("_id") {
        Some(Bson::String(id)) => id.clone(),
        Some(Bson::ObjectId(id)) => id.to_hex(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

/// Headers must be an object.
pub(super) fn put_headers(document: &mut Document, headers: Option<&Json>) -> Result<()> {
    match headers {
        None => Ok(()),
        Some(headers) if headers.is_object() => put(document, "headers", headers).map(drop),
        Some(_) => Err(Error::validation("headers are a JSON object")),
    }
}

/// The headers, if there are any.
pub(super) fn take_headers(document: &Document) -> Result<Option<Json>> {
    document
        .get("headers")
        .filter(|headers| **headers != Bson::Null)
        .map(|_| take(document, "headers"))
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_comes_back_as_it_was_given() {
        let texts = [
            "null",
            "1",
            "1.50",
            "123456789012345678901234567890",
            r#"{"b":1,"a":[true,null,"x"]}"#,
            r#"{"a.b":{"$set":1},"":2}"#,
            r#"{"at":{"$date":"2026-01-01T00:00:00Z"}}"#,
            r#""text""#,
            r#""null""#,
        ];
        for text in texts {
            let value: Json = Json::parse(text).unwrap();
            let mut document = Document::new();
            put(&mut document, "val", &value).unwrap();
            assert_eq!(take(&document, "val").unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_a_document_can_hold_is_kept_as_a_document() {
        let mut document = Document::new();
        put(&mut document, "val", &crate::json!({"theme": "dark", "size": 12})).unwrap();
        assert_eq!(document, bson::doc! { "val": { "theme": "dark", "size": 12 } });
    }

    #[test]
    fn a_plain_value_replaces_one_that_was_text() {
        let mut document = bson::doc! { "val": "1.50", "valFormat": "json" };
        put(&mut document, "val", &crate::json!("1.50")).unwrap();
        assert_eq!(take(&document, "val").unwrap(), crate::json!("1.50"));
    }
}

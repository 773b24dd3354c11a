//! JSON outside, BSON inside: the one place where the two meet.

use base64::Engine as _;
use bson::{Bson, Document};
use serde_json::{Map, Number, Value};

use crate::{Error, Result, Timestamp};

/// A JSON document or value as a user writes it. Numbers keep every digit, objects their key order.
pub type Json = Value;

/// Turns JSON into typed BSON.
///
/// An object of the single key `$date` (ISO-8601 text) or `$oid` (24 hex digits) is a date or an object id, as in MongoDB's Extended JSON; every
/// other object stays an object. Whole numbers become 32 or 64 bit integers, others doubles.
///
/// # Errors
/// `VALIDATION_ERROR` for a number that neither a 64 bit integer nor a finite double can hold.
///
/// ```
/// use bson::Bson;
/// use chronos_db::json_to_bson;
/// let born = serde_json::json!({"$date": "2015-12-31T00:00:00Z"});
/// assert!(matches!(json_to_bson(&born)?, Bson::DateTime(_)));
/// # Ok::<(), chronos_db::Error>(())
/// ```
pub fn json_to_bson(value: &Json) -> Result<Bson> {
    Ok(match value {
        Value::Null => Bson::Null,
        Value::Bool(b) => Bson::Boolean(*b),
        Value::Number(n) => number_to_bson(n)?,
        Value::String(s) => Bson::String(s.clone()),
        Value::Array(items) => Bson::Array(items.iter().map(json_to_bson).collect::<Result<_>>()?),
        Value::Object(map) => match typed(map) {
            Some(typed) => typed,
            None => Bson::Document(object_to_document(map)?),
        },
    })
}

/// Turns a JSON object into a BSON document; see [`json_to_bson`].
pub(crate) fn object_to_document(map: &Map<String, Value>) -> Result<Document> {
    map.iter().map(|(k, v)| Ok((k.clone(), json_to_bson(v)?))).collect()
}

fn number_to_bson(n: &Number) -> Result<Bson> {
    if let Some(i) = n.as_i64() {
        return Ok(i32::try_from(i).map_or(Bson::Int64(i), Bson::Int32));
    }
    let text = n.to_string();
    let whole = !text.contains(['.', 'e', 'E']);
    match n.as_f64() {
        Some(d) if d.is_finite() && !whole => Ok(Bson::Double(d)),
        _ => Err(Error::validation(format!(
            "the number {} does not fit the index: whole numbers have 64 bits there, others are doubles",
            cut(&text)
        ))),
    }
}

fn cut(text: &str) -> String {
    text.chars().take(40).collect()
}

fn typed(map: &Map<String, Value>) -> Option<Bson> {
    let (key, value) = map.iter().next().filter(|_| map.len() == 1)?;
    match (key.as_str(), value) {
        ("$date", Value::String(text)) => Timestamp::parse(text).ok().map(Bson::from),
        ("$oid", Value::String(text)) => bson::oid::ObjectId::parse_str(text).ok().map(Bson::ObjectId),
        _ => None,
    }
}

/// Turns BSON into JSON: the inverse of [`json_to_bson`]. Types JSON has no word for take their Extended JSON form; binary becomes base64 text.
#[must_use]
pub fn bson_to_json(value: &Bson) -> Json {
    match value {
        Bson::Null | Bson::Undefined => Value::Null,
        Bson::Boolean(b) => Value::Bool(*b),
        Bson::Int32(i) => Value::from(*i),
        Bson::Int64(i) => Value::from(*i),
        Bson::Double(d) => Number::from_f64(*d).map_or(Value::Null, Value::Number),
        Bson::String(s) => Value::String(s.clone()),
        Bson::Array(items) => Value::Array(items.iter().map(bson_to_json).collect()),
        Bson::Document(doc) => Value::Object(document_to_object(doc)),
        Bson::DateTime(at) => serde_json::json!({ "$date": Timestamp::from(*at).to_string() }),
        Bson::ObjectId(id) => serde_json::json!({ "$oid": id.to_hex() }),
        Bson::Binary(bytes) => Value::String(base64::engine::general_purpose::STANDARD.encode(&bytes.bytes)),
        other => Value::String(other.to_string()),
    }
}

/// Turns a BSON document into a JSON object; see [`bson_to_json`].
pub(crate) fn document_to_object(doc: &Document) -> Map<String, Value> {
    doc.iter().map(|(k, v)| (k.clone(), bson_to_json(v))).collect()
}

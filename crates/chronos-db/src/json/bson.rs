//! JSON outside, BSON inside: the one place where the two meet.

use base64::Engine as _;
use bson::{Bson, Document};

use super::number::{integer, nearest};
use super::{Json, Map, Number, extended};
use crate::{Error, Result, Timestamp};

/// Turns JSON into typed BSON.
///
/// Objects that are values in MongoDB's Extended JSON (version 2, relaxed or canonical, or version 1, which
/// is older) are those values: `$date`, `$oid`, `$numberInt`, `$numberLong`, `$numberDouble`,
/// `$numberDecimal`, `$binary`, `$uuid`, `$timestamp`, `$regularExpression`, `$code`, `$symbol`, `$minKey`,
/// `$maxKey` and `$undefined`. Every other object stays an object. Whole numbers become 32 or 64 bit
/// integers, others doubles; a `$numberDecimal`, too, so that it compares with other numbers.
///
/// # Errors
/// `VALIDATION_ERROR` for a number that neither a 64 bit integer nor a finite double can hold.
///
/// ```
/// use bson::Bson;
/// use chronos_db::{json, json_to_bson};
/// let born = json!({"$date": "2015-12-31T00:00:00Z"});
/// assert!(matches!(json_to_bson(&born)?, Bson::DateTime(_)));
/// assert_eq!(json_to_bson(&json!({"$numberLong": "7"}))?, json_to_bson(&json!(7))?);
/// # Ok::<(), chronos_db::Error>(())
/// ```
pub fn json_to_bson(value: &Json) -> Result<Bson> {
    convert(value, &number_to_bson)
}

/// Converts as [`json_to_bson`] does, for what is compared and not stored: a number that has no other form
/// becomes the nearest double.
#[must_use]
pub fn json_to_nearest_bson(value: &Json) -> Bson {
    // Numbers are all that can fail.
    convert(value, &|number| Ok(nearest(number))).unwrap_or(Bson::Null)
}

fn convert(value: &Json, number: &dyn Fn(&Number) -> Result<Bson>) -> Result<Bson> {
    Ok(match value {
        Json::Null => Bson::Null,
        Json::Bool(b) => Bson::Boolean(*b),
        Json::Number(n) => number(n)?,
        Json::String(s) => Bson::String(s.clone()),
        Json::Array(items) => {
            Bson::Array(items.iter().map(|item| convert(item, number)).collect::<Result<_>>()?)
        }
        Json::Object(map) => match extended::read(map, &json_to_nearest_bson) {
            Some(typed) => typed,
            None => {
                let members = map.iter().map(|(k, v)| Ok((k.clone(), convert(v, number)?)));
                Bson::Document(members.collect::<Result<Document>>()?)
            }
        },
    })
}

fn number_to_bson(n: &Number) -> Result<Bson> {
    match integer(n) {
        Some(integer) => Ok(integer),
        None if !n.is_whole() && n.as_f64().is_some() => Ok(Bson::Double(n.nearest_f64())),
        None => Err(Error::validation(format!(
            "the number {} does not fit the index: whole numbers have 64 bits there, others are doubles",
            cut(&n.text())
        ))),
    }
}

fn cut(text: &str) -> String {
    text.chars().take(40).collect()
}

/// Turns BSON into JSON: the inverse of [`json_to_bson`]. Types JSON has no word for take their Extended JSON
/// form; binary becomes base64 text.
#[must_use]
pub fn bson_to_json(value: &Bson) -> Json {
    match value {
        Bson::Null | Bson::Undefined => Json::Null,
        Bson::Boolean(b) => Json::Bool(*b),
        Bson::Int32(i) => Json::from(*i),
        Bson::Int64(i) => Json::from(*i),
        Bson::Double(d) => Number::from_f64(*d).map_or(Json::Null, Json::Number),
        Bson::String(s) => Json::String(s.clone()),
        Bson::Array(items) => Json::Array(items.iter().map(bson_to_json).collect()),
        Bson::Document(doc) => Json::Object(document_to_object(doc)),
        Bson::DateTime(at) => match Timestamp::from(*at) {
            at if at.civil().is_some() => crate::json!({ "$date": at.to_string() }),
            at => crate::json!({ "$date": { "$numberLong": at.as_millis().to_string() } }),
        },
        Bson::ObjectId(id) => crate::json!({ "$oid": id.to_hex() }),
        Bson::Binary(bytes) => Json::String(base64::engine::general_purpose::STANDARD.encode(&bytes.bytes)),
        other => Json::String(other.to_string()),
    }
}

/// Turns a BSON document into a JSON object; see [`bson_to_json`].
fn document_to_object(doc: &Document) -> Map {
    doc.iter().map(|(k, v)| (k.clone(), bson_to_json(v))).collect()
}

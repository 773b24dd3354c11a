//! Documents as text: canonical Extended JSON, as far as our shapes need it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document};
use chronos_db::{Json as Value, json};

pub(super) fn to_extended(value: &Bson) -> Value {
    match value {
        Bson::Document(doc) => doc.iter().map(|(key, value)| (key.clone(), to_extended(value))).collect(),
        Bson::Array(items) => items.iter().map(to_extended).collect(),
        Bson::String(text) => json!(text),
        Bson::Boolean(value) => json!(value),
        Bson::Null => Value::Null,
        Bson::Int32(number) => json!({ "$numberInt": number.to_string() }),
        Bson::Int64(number) => json!({ "$numberLong": number.to_string() }),
        Bson::Double(number) => json!({ "$numberDouble": number.to_string() }),
        Bson::ObjectId(id) => json!({ "$oid": id.to_hex() }),
        Bson::DateTime(at) => json!({ "$date": { "$numberLong": at.timestamp_millis().to_string() } }),
        Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes }) => {
            json!({ "$binary": { "base64": STANDARD.encode(bytes), "subType": "00" } })
        }
        other => panic!("no stored shape has {other:?}"),
    }
}

pub(super) fn from_extended(value: &Value) -> Bson {
    let map = match value {
        Value::Null => return Bson::Null,
        Value::Bool(value) => return Bson::Boolean(*value),
        Value::String(text) => return Bson::String(text.clone()),
        Value::Array(items) => return Bson::Array(items.iter().map(from_extended).collect()),
        Value::Number(number) => panic!("{number} has no type"),
        Value::Object(map) => map,
    };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    match map.iter().next().map(|(key, value)| (key.as_str(), value)) {
        Some(("$numberInt", number)) => Bson::Int32(text(number).parse().unwrap()),
        Some(("$numberLong", number)) => Bson::Int64(text(number).parse().unwrap()),
        Some(("$numberDouble", number)) => Bson::Double(text(number).parse().unwrap()),
        Some(("$oid", id)) => Bson::ObjectId(text(id).parse().unwrap()),
        Some(("$date", at)) => {
            Bson::DateTime(bson::DateTime::from_millis(text(&at["$numberLong"]).parse().unwrap()))
        }
        Some(("$binary", binary)) => {
            let bytes = STANDARD.decode(text(&binary["base64"])).unwrap();
            Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes })
        }
        _ => Bson::Document(
            map.iter().map(|(key, value)| (key.clone(), from_extended(value))).collect::<Document>(),
        ),
    }
}

//! MongoDB's Extended JSON: objects that stand for one typed value.
//!
//! Version 2 is <https://www.mongodb.com/docs/manual/reference/mongodb-extended-json/>; version 1 (dates as
//! numbers, binary and code beside a second key) is what older tools wrote into many files.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson};

use super::number::nearest;
use super::{Json, Map, Number};
use crate::Timestamp;

/// Whether an object is such a value, or was meant to be one: by its key, or its two keys.
pub(crate) fn is_meant(map: &Map) -> bool {
    let mut keys = map.keys().map(String::as_str);
    match (keys.next(), keys.next(), keys.next()) {
        (Some(one), None, _) => matches!(
            one,
            "$date"
                | "$oid"
                | "$numberInt"
                | "$numberLong"
                | "$numberDouble"
                | "$numberDecimal"
                | "$binary"
                | "$uuid"
                | "$timestamp"
                | "$regularExpression"
                | "$code"
                | "$symbol"
                | "$minKey"
                | "$maxKey"
                | "$undefined"
        ),
        (Some(one), Some(other), None) => {
            matches!(
                (one, other),
                ("$binary", "$type") | ("$type", "$binary") | ("$code", "$scope") | ("$scope", "$code")
            )
        }
        _ => false,
    }
}

/// What such an object must hold, for errors.
pub(crate) const EXPECTED: &str = "a {\"$date\"} holds an ISO-8601 text such as 2015-12-31T10:00:00Z, or milliseconds; an {\"$oid\"} 24 hex digits; other \
                                   types are written as MongoDB's Extended JSON says";

/// The value that an object stands for, if it does for one. `convert` reads the values of a `$scope`.
pub(super) fn read(map: &Map, convert: &dyn Fn(&Json) -> Bson) -> Option<Bson> {
    if !is_meant(map) {
        return None;
    }
    if map.len() == 2 {
        return two(map, convert);
    }
    let (key, value) = map.iter().next()?;
    match (key.as_str(), value) {
        ("$date", value) => date(value).map(Bson::from),
        ("$oid", Json::String(text)) => bson::oid::ObjectId::parse_str(text).ok().map(Bson::ObjectId),
        ("$numberInt" | "$numberLong", value) => whole(value).map(|whole| nearest(&whole.into())),
        ("$numberDouble", Json::String(text)) => {
            not_a_number(text).or_else(|| Some(Bson::Double(Number::parse(text)?.nearest_f64())))
        }
        ("$numberDecimal", Json::String(text)) => {
            not_a_number(text).or_else(|| Number::parse(text.trim_start_matches('+')).as_ref().map(nearest))
        }
        ("$numberDouble" | "$numberDecimal", Json::Number(number)) => Some(nearest(number)),
        ("$binary", Json::Object(parts)) => binary(parts.get("base64")?, parts.get("subType")?),
        ("$uuid", Json::String(text)) => bson::Uuid::parse_str(text).ok().map(Bson::from),
        ("$timestamp", Json::Object(parts)) => {
            let part =
                |name: &str| parts.get(name).and_then(Json::as_u64).and_then(|part| u32::try_from(part).ok());
            Some(Bson::Timestamp(bson::Timestamp { time: part("t")?, increment: part("i")? }))
        }
        ("$regularExpression", Json::Object(parts)) => {
            let part = |name: &str| {
                parts.get(name).and_then(Json::as_str).and_then(|part| part.to_owned().try_into().ok())
            };
            Some(Bson::RegularExpression(bson::Regex {
                pattern: part("pattern")?,
                options: part("options")?,
            }))
        }
        ("$code", Json::String(code)) => Some(Bson::JavaScriptCode(code.clone())),
        ("$symbol", Json::String(symbol)) => Some(Bson::Symbol(symbol.clone())),
        ("$minKey", value) => is_one(value).then_some(Bson::MinKey),
        ("$maxKey", value) => is_one(value).then_some(Bson::MaxKey),
        // Servers are not of one mind about what is equal to it.
        ("$undefined", Json::Bool(true)) => Some(Bson::Null),
        _ => None,
    }
}

/// The forms with two keys, in either order.
fn two(map: &Map, convert: &dyn Fn(&Json) -> Bson) -> Option<Bson> {
    if let Some(bytes) = map.get("$binary") {
        return binary(bytes, map.get("$type")?);
    }
    let code = map.get("$code")?.as_str()?.to_owned();
    match convert(map.get("$scope")?) {
        Bson::Document(scope) => {
            Some(Bson::JavaScriptCodeWithScope(bson::JavaScriptCodeWithScope { code, scope }))
        }
        _ => None,
    }
}

/// ISO-8601 text, or milliseconds as a number or as text in a `$numberLong`.
fn date(value: &Json) -> Option<Timestamp> {
    match value {
        Json::String(text) => Timestamp::parse(text).ok(),
        Json::Number(millis) => millis.as_i64().map(Timestamp::from_millis),
        Json::Object(map) if map.len() == 1 => whole(map.get("$numberLong")?).map(Timestamp::from_millis),
        _ => None,
    }
}

fn whole(value: &Json) -> Option<i64> {
    match value {
        Json::String(text) => text.parse().ok(),
        other => other.as_i64(),
    }
}

fn not_a_number(text: &str) -> Option<Bson> {
    Some(Bson::Double(match text {
        "NaN" => f64::NAN,
        "Infinity" | "+Infinity" => f64::INFINITY,
        "-Infinity" => f64::NEG_INFINITY,
        _ => return None,
    }))
}

fn is_one(value: &Json) -> bool {
    value.as_i64() == Some(1)
}

/// The subtype is one or two hex digits, or in some files of version 1 a number.
fn binary(bytes: &Json, subtype: &Json) -> Option<Bson> {
    let subtype = match subtype {
        Json::String(hex) if hex.len() <= 2 => u8::from_str_radix(hex, 16).ok()?,
        other => u8::try_from(other.as_u64()?).ok()?,
    };
    Some(Bson::Binary(Binary {
        subtype: BinarySubtype::from(subtype),
        bytes: STANDARD.decode(bytes.as_str()?).ok()?,
    }))
}

#[cfg(test)]
mod tests {
    use bson::{bson, oid::ObjectId};

    use super::*;
    use crate::{json, json_to_bson};

    fn date(millis: i64) -> Bson {
        Timestamp::from_millis(millis).into()
    }

    #[test]
    fn every_form_of_both_versions_is_the_value_it_stands_for() {
        let binary = |subtype, bytes: &[u8]| Bson::Binary(Binary { subtype, bytes: bytes.to_vec() });
        let uuid =
            [0xc8, 0xed, 0xab, 0xc3, 0xf7, 0x38, 0x4c, 0xa3, 0xb6, 0x8d, 0xab, 0x92, 0xa9, 0x14, 0x78, 0xa3];
        let forms = [
            (json!({"$date": "1974-03-02T00:00:00Z"}), date(131_414_400_000)),
            (json!({"$date": "1974-03-02T00:00:00.000+0000"}), date(131_414_400_000)),
            (json!({"$date": {"$numberLong": "-86400000"}}), date(-86_400_000)),
            (json!({"$date": 131_414_400_000_i64}), date(131_414_400_000)),
            (json!({"$date": "9999-12-31T23:59:59Z"}), date(253_402_300_799_000)),
            (json!({"$date": "0001-01-01T00:00:00Z"}), date(-62_135_596_800_000)),
            (json!({"$date": {"$numberLong": "9223372036854775807"}}), date(i64::MAX)),
            (
                json!({"$oid": "5d505646cf6d4fe581014ab2"}),
                Bson::ObjectId(ObjectId::parse_str("5d505646cf6d4fe581014ab2").unwrap()),
            ),
            (json!({"$numberInt": "6"}), bson!(6)),
            (json!({"$numberLong": "6"}), bson!(6)),
            (json!({"$numberLong": "9223372036854775807"}), bson!(i64::MAX)),
            (json!({"$numberDouble": "6.5"}), bson!(6.5)),
            (json!({"$numberDouble": "-Infinity"}), bson!(f64::NEG_INFINITY)),
            (json!({"$numberDecimal": "0.10"}), bson!(0.1)),
            (json!({"$numberDecimal": "12"}), bson!(12)),
            (json!({"$binary": {"base64": "AQI=", "subType": "05"}}), binary(BinarySubtype::Md5, &[1, 2])),
            (json!({"$binary": "AQI=", "$type": "00"}), binary(BinarySubtype::Generic, &[1, 2])),
            (json!({"$type": "0", "$binary": "AQI="}), binary(BinarySubtype::Generic, &[1, 2])),
            (json!({"$uuid": "c8edabc3-f738-4ca3-b68d-ab92a91478a3"}), binary(BinarySubtype::Uuid, &uuid)),
            (
                json!({"$timestamp": {"t": 7, "i": 1}}),
                Bson::Timestamp(bson::Timestamp { time: 7, increment: 1 }),
            ),
            (json!({"$code": "f()"}), Bson::JavaScriptCode("f()".to_owned())),
            (json!({"$symbol": "s"}), Bson::Symbol("s".to_owned())),
            (json!({"$minKey": 1}), Bson::MinKey),
            (json!({"$maxKey": 1}), Bson::MaxKey),
            (json!({"$undefined": true}), Bson::Null),
        ];
        for (form, expected) in forms {
            assert_eq!(json_to_bson(&json!([form])).unwrap(), Bson::Array(vec![expected]), "{form}");
        }
        assert!(
            matches!(json_to_bson(&json!({"$numberDouble": "NaN"})).unwrap(), Bson::Double(nan) if nan.is_nan())
        );
        let regex = json!({"$regularExpression": {"pattern": "^a", "options": "i"}});
        assert!(matches!(json_to_bson(&regex).unwrap(), Bson::RegularExpression(_)));
    }

    #[test]
    fn what_only_looks_like_a_form_stays_an_object() {
        for odd in [
            json!({"$date": "yesterday"}),
            json!({"$date": 1.5}),
            json!({"$date": "2015-12-31T00:00:00Z", "more": 1}),
            json!({"$oid": "xyz"}),
            json!({"$numberInt": "six"}),
            json!({"$numberDouble": "0x10"}),
            json!({"$binary": {"base64": "?", "subType": "00"}}),
            json!({"$serde_json::private::Number": "12"}),
            json!({"$unknown": 1}),
        ] {
            assert!(matches!(json_to_bson(&odd).unwrap(), Bson::Document(_)), "{odd}");
        }
    }

    #[test]
    fn a_date_beyond_the_year_9999_survives_as_the_form_that_has_no_bound() {
        let far = json!({"$date": {"$numberLong": "300000000000000"}});
        assert_eq!(crate::bson_to_json(&json_to_bson(&far).unwrap()), far);
        let last = json!({"$date": "9999-12-31T23:59:59.999Z"});
        assert_eq!(crate::bson_to_json(&json_to_bson(&last).unwrap()), last);
    }
}

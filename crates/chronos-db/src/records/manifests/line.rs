//! One row as a line of a manifest.
//!
//! The row is written as JSON, types that JSON lacks in their Extended JSON form, so that a line can be read
//! without this library. A row that would not come back from that byte for byte carries its BSON as well.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bson::spec::BinarySubtype;
use bson::{Bson, Document, RawDocument, RawDocumentBuf};

use crate::documents::raw_bson;
use crate::json::{Json, Map, bson_to_json, json_to_bson};
use crate::{Error, Result};

/// Fields of a row that is not stored yet, or that waits to be.
const NOT_KEPT: [&str; 3] = ["inline", "riders", "unflushedSince"];
/// Where a row stands as it was stored, if its JSON says less.
const EXACT: &str = "$bson";

/// The line of a row, with its end.
pub(super) fn write(stored: &RawDocument, out: &mut Vec<u8>) -> Result<()> {
    let kept = raw_bson::leave_out(stored, |field| NOT_KEPT.contains(&field))?;
    let document = raw_bson::decode(&kept)?;
    let mut line: Map = members(&document);
    if !comes_back(&line, &kept) {
        line.insert(EXACT.to_owned(), STANDARD.encode(kept.as_bytes()).into());
    }
    out.extend(line.to_vec());
    out.push(b'\n');
    Ok(())
}

/// The row of a line.
pub(super) fn read(line: &[u8]) -> Result<RawDocumentBuf> {
    let damaged = |why: String| Error::storage(format!("a line of it is not a version row: {why}"));
    let parsed = Json::parse(line).map_err(|error| damaged(error.to_string()))?;
    if let Some(exact) = parsed.get(EXACT).and_then(Json::as_str) {
        let bytes = STANDARD.decode(exact).map_err(|error| damaged(error.to_string()))?;
        return RawDocumentBuf::from_bytes(bytes).map_err(|error| damaged(error.to_string()));
    }
    match json_to_bson(&parsed).map_err(|error| damaged(error.message().to_owned()))? {
        Bson::Document(document) => raw_bson::encode(&document),
        _ => Err(damaged("it is not an object".to_owned())),
    }
}

fn comes_back(line: &Map, kept: &RawDocument) -> bool {
    let read = json_to_bson(&Json::Object(line.clone()));
    let Ok(Bson::Document(document)) = read else { return false };
    raw_bson::encode(&document).is_ok_and(|again| again.as_bytes() == kept.as_bytes())
}

fn members(document: &Document) -> Map {
    document.iter().map(|(key, value)| (key.clone(), json(value))).collect()
}

/// As [`bson_to_json`], but binary is distinguishable from text, and what is not a number from null.
fn json(value: &Bson) -> Json {
    match value {
        Bson::Document(document) => Json::Object(members(document)),
        Bson::Array(items) => Json::Array(items.iter().map(json).collect()),
        Bson::Binary(binary) => {
            let subtype = match binary.subtype {
                BinarySubtype::Generic => "00".to_owned(),
                other => format!("{:02x}", u8::from(other)),
            };
            crate::json!({ "$binary": { "base64": STANDARD.encode(&binary.bytes), "subType": subtype } })
        }
        Bson::Double(double) if !double.is_finite() => {
            let text = if double.is_nan() {
                "NaN"
            } else if *double > 0.0 {
                "Infinity"
            } else {
                "-Infinity"
            };
            crate::json!({ "$numberDouble": text })
        }
        other => bson_to_json(other),
    }
}

#[cfg(test)]
mod tests {
    use bson::oid::ObjectId;
    use bson::{Binary, Decimal128, Regex, doc};

    use super::*;

    #[test]
    fn a_row_comes_back_from_its_line_byte_for_byte() {
        let binary = Binary { subtype: BinarySubtype::Generic, bytes: vec![1, 2, 250] };
        let rows = [
            doc! { "_id": ObjectId::new(), "itemId": ObjectId::new(), "ov": 1, "cv": i64::from(i32::MAX) + 1, "op": "UPDATE", "at": bson::DateTime::now(), "importId": binary },
            doc! { "_id": ObjectId::new(), "metaIndexed": { "z": 1, "a": 0.1, "whole": 5.0, "none": Bson::Null, "t": "ä\n\"" } },
            doc! { "_id": 1, "odd": [f64::NAN, f64::INFINITY, -0.0, Bson::Int64(7)], "decimal": "1.10".parse::<Decimal128>().unwrap() },
            doc! { "_id": 1, "old": Bson::Undefined, "regex": Regex { pattern: "^a".try_into().unwrap(), options: "i".try_into().unwrap() } },
            doc! { "_id": 1, "looks": { "$date": "2015-12-31T00:00:00Z" } },
        ];
        for row in rows {
            let stored = raw_bson::encode(&row).unwrap();
            let mut line = Vec::new();
            write(&stored, &mut line).unwrap();
            assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            assert_eq!(
                read(&line).unwrap().as_bytes(),
                stored.as_bytes(),
                "{}",
                String::from_utf8_lossy(&line)
            );
        }
    }

    #[test]
    fn what_waits_to_be_stored_is_left_out() {
        let stored =
            raw_bson::encode(&doc! { "_id": 1, "inline": "x", "riders": [1], "unflushedSince": 2, "ov": 3 })
                .unwrap();
        let mut line = Vec::new();
        write(&stored, &mut line).unwrap();
        assert_eq!(line, b"{\"_id\":1,\"ov\":3}\n");
    }

    #[test]
    fn what_is_not_a_row_is_an_error() {
        for line in ["", "{", "[1]", "{\"$bson\": \"?\"}", "{\"$bson\": \"AAAA\"}"] {
            assert!(read(line.as_bytes()).is_err(), "{line}");
        }
    }
}

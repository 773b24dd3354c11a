//! Bytes that are almost right.

use bson::{Bson, Document};
use simulation::Chance;

/// What parsers stumble over.
const TOKENS: [&[u8]; 24] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\",
    b":",
    b",",
    b"null",
    b"-0.0",
    b"1e999999",
    b"-9223372036854775809",
    b"18446744073709551616",
    b"\\ud800",
    b"\0",
    b"\xff\xfe",
    b"$numberLong",
    b"$date",
    b"$regex",
    b"$bson",
    b"9999-12-31T23:59:59.999999999Z",
    b"%00",
    b"mongodb://a:b@",
    b"0001-01-01T00:00:00+23:59",
];

fn place(chance: &Chance, bytes: &[u8]) -> usize {
    usize::try_from(chance.below(bytes.len() as u64 + 1)).unwrap_or(0)
}

/// A few mutations.
pub(crate) fn bytes(chance: &Chance, valid: &[u8]) -> Vec<u8> {
    let mut bytes = valid.to_vec();
    for _ in 0..1 + chance.skewed(8) {
        let at = place(chance, &bytes);
        let end = (at + 1 + usize::try_from(chance.skewed(24)).unwrap_or(0)).min(bytes.len());
        match chance.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << chance.below(8),
            1 => drop(bytes.drain(at.min(end)..end)),
            2 => bytes.truncate(at),
            3 => {
                let part = bytes[at.min(end)..end].to_vec();
                let times = usize::try_from(chance.skewed(2_000)).unwrap_or(0);
                bytes.splice(at..at, part.repeat(times.min(20_000 / part.len().max(1))));
            }
            4 => {
                let token = chance.pick(&TOKENS).copied().unwrap_or_default();
                let times = if chance.hits(50) { 20_000 / token.len() } else { 1 };
                bytes.splice(at..at, token.repeat(times));
            }
            _ if at < bytes.len() => bytes[at] = u8::try_from(chance.below(256)).unwrap_or(0),
            _ => bytes.push(u8::try_from(chance.below(256)).unwrap_or(0)),
        }
    }
    bytes
}

/// As text, what is none replaced.
pub(crate) fn text(chance: &Chance, valid: &str) -> String {
    String::from_utf8_lossy(&bytes(chance, valid.as_bytes())).into_owned()
}

/// A value of some type.
fn value(chance: &Chance) -> Bson {
    match chance.below(12) {
        0 => Bson::Null,
        1 => Bson::Int32(-1),
        2 => Bson::Int64(i64::MAX),
        3 => Bson::Int64(i64::MIN),
        4 => Bson::Double(f64::NAN),
        5 => Bson::String(String::from_utf8_lossy(&bytes(chance, b"text")).into_owned()),
        6 => Bson::Array(vec![Bson::Null, Bson::Int32(1)]),
        7 => Bson::Document(Document::new()),
        8 => Bson::Boolean(true),
        9 => Bson::DateTime(bson::DateTime::from_millis(i64::MAX)),
        10 => Bson::Binary(bson::Binary {
            subtype: bson::spec::BinarySubtype::Generic,
            bytes: bytes(chance, &[0; 16]),
        }),
        _ => Bson::ObjectId(bson::oid::ObjectId::from_bytes([7; 12])),
    }
}

/// A document of which a field or two are something else, or gone.
pub(crate) fn document(chance: &Chance, valid: &Document) -> Document {
    let mut document = valid.clone();
    for _ in 0..1 + chance.skewed(3) {
        let fields: Vec<String> = document.keys().filter(|field| *field != "_id").cloned().collect();
        let Some(field) = chance.pick(&fields).cloned() else { break };
        let inner = document.get(&field).and_then(Bson::as_document).cloned();
        match (inner, chance.below(4)) {
            (Some(inner), 0..3) => {
                let changed = self::document(chance, &inner);
                document.insert(field, changed);
            }
            (_, 0) => {
                document.remove(&field);
            }
            _ => {
                document.insert(field, value(chance));
            }
        }
    }
    document
}

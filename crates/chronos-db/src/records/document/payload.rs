//! item.json: the exact bytes of a version, and the view composed from them.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::json::{Map, ParseError};
use crate::records::model::{LegacyMeta, Lineage, Payload};
use crate::{Error, ErrorKind, Json, Result, Timestamp, json};

/// The media type of item.json.
pub(crate) const JSON_TYPE: &str = "application/json; charset=utf-8";

/// The largest document, in bytes of its JSON.
pub const MAX_DOCUMENT_BYTES: usize = 16 * 1024 * 1024;
/// The deepest nesting of a document.
pub const MAX_DOCUMENT_DEPTH: usize = 64;

/// The reserved top-level property that only the library writes.
pub(crate) const SYSTEM: &str = "_system";
/// How the `_system` of this library begins; the legacy library wrote no version there. What says its version
/// needs no reading, for then the index has it all.
const SYSTEM_OF_OURS: &str = r#"{"ov":"#;

/// A checked document, serialised but for its `_system`.
#[derive(Clone)]
pub(crate) struct Body(Vec<u8>);

crate::debug_some!(Body {});

impl Body {
    /// Serialises a document that holds no `_system`.
    pub(crate) fn new(document: &Map) -> Result<Self> {
        let mut bytes = document.to_vec();
        if bytes.len() > MAX_DOCUMENT_BYTES {
            return Err(Error::validation(format!(
                "the document has {} bytes; {MAX_DOCUMENT_BYTES} are allowed",
                bytes.len()
            )));
        }
        bytes.pop();
        Ok(Self(bytes))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The bytes of item.json with `system` as its last property.
    pub(crate) fn with_system(&self, system: &Json) -> Bytes {
        let mut bytes = Vec::with_capacity(self.0.len() + 256);
        bytes.extend_from_slice(&self.0);
        if bytes.len() > 1 {
            bytes.push(b',');
        }
        bytes.extend_from_slice(b"\"_system\":");
        bytes.extend_from_slice(system.to_string().as_bytes());
        bytes.push(b'}');
        bytes.into()
    }
}

/// What `_system` says of a version.
#[derive(Clone, Debug)]
pub(crate) struct System<'a> {
    pub(crate) ov: i64,
    /// Unknown while the object of a large payload is stored before its commit.
    pub(crate) cv: Option<i64>,
    pub(crate) inserted_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    pub(crate) deleted_at: Option<Timestamp>,
    pub(crate) function_ids: &'a [String],
    pub(crate) lineage: &'a Lineage,
    pub(crate) state: Option<&'static str>,
}

impl System<'_> {
    pub(crate) fn to_json(&self) -> Json {
        let mut system = Map::with_capacity(12);
        system.insert("ov".into(), self.ov.into());
        if let Some(cv) = self.cv {
            system.insert("cv".into(), cv.into());
        }
        system.insert("insertedAt".into(), self.inserted_at.to_string().into());
        system.insert("updatedAt".into(), self.updated_at.to_string().into());
        system.insert("deletedAt".into(), self.deleted_at.map(|at| at.to_string()).into());
        system.insert("deleted".into(), self.deleted_at.is_some().into());
        system.insert("functionIds".into(), json!(self.function_ids));
        let Lineage { parent_id, parent_collection, origin_id, origin_collection } = self.lineage;
        let lineage = [
            ("parentId", parent_id),
            ("parentCollection", parent_collection),
            ("originId", origin_id),
            ("originCollection", origin_collection),
        ];
        for (key, value) in lineage {
            if let Some(value) = value {
                system.insert(key.into(), value.clone().into());
            }
        }
        if let Some(state) = self.state {
            system.insert("state".into(), state.into());
        }
        Json::Object(system)
    }
}

/// Takes the document a user gave apart from a `_system` they sent along, which is ignored.
///
/// # Errors
/// `VALIDATION_ERROR` if it is not an object or nested too deep.
pub(crate) fn checked(document: Json) -> Result<Map> {
    let Json::Object(mut map) = document else {
        return Err(Error::validation("a document is a JSON object"));
    };
    map.remove(SYSTEM);
    // The map itself is one level.
    if map.values().any(|v| is_deeper(v, MAX_DOCUMENT_DEPTH - 1)) {
        return Err(Error::validation(format!(
            "the document is nested deeper than {MAX_DOCUMENT_DEPTH} levels"
        )));
    }
    Ok(map)
}

fn is_deeper(value: &Json, levels: usize) -> bool {
    match value {
        Json::Array(items) => levels == 0 || items.iter().any(|v| is_deeper(v, levels - 1)),
        Json::Object(map) => levels == 0 || map.values().any(|v| is_deeper(v, levels - 1)),
        _ => false,
    }
}

/// Reads the bytes of item.json: the document without its `_system`.
pub(crate) fn parse(bytes: &[u8]) -> Result<Map> {
    parse_both(bytes).map(|(document, _)| document)
}

/// Reads the bytes of item.json: the document, and what only it says of the version, if the legacy library
/// wrote it.
pub(crate) fn parse_both(bytes: &[u8]) -> Result<(Map, Option<LegacyMeta>)> {
    let damaged =
        |e: ParseError| Error::storage("item.json is damaged: it is not a JSON object").caused_by(e);
    // Of a `_system` of ours nothing is kept, so none of it is built: a third of the work on small documents.
    let (document, system) = json::parse_without(bytes, SYSTEM).map_err(damaged)?;
    let inherited = match system {
        None => None,
        Some(ours) if ours.starts_with(SYSTEM_OF_OURS) => None,
        Some(other) => Some(Json::parse(other).map_err(damaged)?)
            .filter(|system| system.get("ov").is_none())
            .map(|system| LegacyMeta::read(&system)),
    };
    Ok((document, inherited))
}

/// Compares the bytes with what the index says of them.
///
/// # Errors
/// `STORAGE_ERROR` if they differ.
pub(crate) fn check(bytes: &[u8], payload: &Payload) -> Result<()> {
    if !payload.checksum.is_empty() && checksum(bytes) != payload.checksum {
        return Err(Error::new(
            ErrorKind::Storage,
            format!(
                "item.json is damaged: its SHA-256 is not the one of version {} in the index ({} bytes there, {} here)",
                payload.ov,
                payload.size,
                bytes.len()
            ),
        ));
    }
    Ok(())
}

/// Lower-case hex SHA-256.
pub(crate) fn checksum(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    let mut text = String::with_capacity(64);
    for byte in digest {
        text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or_default());
        text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or_default());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_lower_case_hex() {
        assert_eq!(checksum(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn an_empty_document_gets_a_system_without_a_comma() {
        let body = Body::new(&Map::new()).unwrap();
        assert_eq!(&body.with_system(&json!({}))[..], br#"{"_system":{}}"#);
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!({ "a": inner }));
        assert!(checked(deep(MAX_DOCUMENT_DEPTH)).is_ok());
        assert!(checked(deep(MAX_DOCUMENT_DEPTH + 1)).is_err());
        assert!(checked(json!([1])).is_err());
    }
}

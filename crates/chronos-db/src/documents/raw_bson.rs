//! Documents as the store has them: code that looks at a few of their fields need not decode the rest.

use bson::raw::RawElement;
use bson::spec::ElementType;
use bson::{Bson, Document, RawBsonRef, RawDocument, RawDocumentBuf};

use super::path;
use crate::{Error, Result};

/// The bytes as a document. What is in it is checked by its reader.
pub(crate) fn framed(bytes: &[u8]) -> Result<&RawDocument> {
    RawDocument::from_bytes(bytes).map_err(damaged)
}

/// The document as bytes.
///
/// # Errors
/// `VALIDATION_ERROR` if it has no such form.
pub(crate) fn encode(document: &Document) -> Result<RawDocumentBuf> {
    RawDocumentBuf::try_from(document)
        .map_err(|e| Error::validation("the document cannot be encoded as BSON").caused_by(e))
}

/// How many levels of documents and arrays a stored document may have, as MongoDB has it: what reads it goes
/// down by recursion.
pub(crate) const MAX_LEVELS: usize = 200;

/// Refuses a document whose depth could exhaust the stack of its reader. It goes over the bytes
/// without recursion itself.
///
/// # Errors
/// `VALIDATION_ERROR` beyond [`MAX_LEVELS`], or if the bytes are not a document.
pub(crate) fn check_levels(document: &RawDocument) -> Result<()> {
    let wrong = |error| Error::validation("the bytes to be written are not a BSON document").caused_by(error);
    let mut open = vec![document.iter_elements()];
    while let Some(within) = open.last_mut() {
        let Some(element) = within.next() else {
            open.pop();
            continue;
        };
        let element = element.map_err(wrong)?;
        let nested = match element.element_type() {
            ElementType::EmbeddedDocument | ElementType::Array | ElementType::JavaScriptCodeWithScope => {
                element.value().map_err(wrong)?
            }
            _ => continue,
        };
        match nested {
            RawBsonRef::Document(inner) => open.push(inner.iter_elements()),
            RawBsonRef::Array(inner) => open.push(framed(inner.as_bytes())?.iter_elements()),
            RawBsonRef::JavaScriptCodeWithScope(code) => open.push(code.scope.iter_elements()),
            _ => {}
        }
        if open.len() > MAX_LEVELS {
            return Err(Error::validation(format!("the document nests deeper than {MAX_LEVELS} levels")));
        }
    }
    Ok(())
}

/// The whole document.
///
/// # Errors
/// `TXN_ERROR` if these bytes are not a document.
pub(crate) fn decode(stored: &RawDocument) -> Result<Document> {
    Document::try_from(stored).map_err(damaged)
}

/// The `_id` of a document that is to be written.
///
/// # Errors
/// `VALIDATION_ERROR` without one.
pub(crate) fn id(document: &RawDocument) -> Result<Bson> {
    value(get(document, "_id")?.ok_or_else(|| Error::validation("a document to be written has no `_id`"))?)
}

/// The document of those top-level fields that are `wanted`.
pub(crate) fn decode_part(stored: &RawDocument, wanted: impl Fn(&str) -> bool) -> Result<Document> {
    let mut part = Document::new();
    for element in stored.iter_elements() {
        let element = element.map_err(damaged)?;
        let key = element.key().as_str();
        if wanted(key) {
            part.insert(key, Bson::try_from(element).map_err(damaged)?);
        }
    }
    Ok(part)
}

/// The document of the top-level field that a dotted path begins with: all that is needed to look at the
/// path.
pub(crate) fn decode_towards(stored: &RawDocument, path: &str) -> Result<Document> {
    let (first, _) = path::split(path);
    let mut part = Document::new();
    if let Some(found) = get(stored, first)? {
        part.insert(first, value(found)?);
    }
    Ok(part)
}

/// The document without the top-level fields that go.
pub(crate) fn leave_out(stored: &RawDocument, goes: impl Fn(&str) -> bool) -> Result<RawDocumentBuf> {
    let mut rest = RawDocumentBuf::new();
    for element in stored.iter_elements() {
        let element = element.map_err(damaged)?;
        if !goes(element.key().as_str()) {
            rest.append(element.key(), element.value().map_err(damaged)?);
        }
    }
    Ok(rest)
}

/// The value of a top-level field.
pub(crate) fn get<'a>(stored: &'a RawDocument, field: &str) -> Result<Option<RawBsonRef<'a>>> {
    stored.get(field).map_err(damaged)
}

/// A value, decoded.
pub(crate) fn value(stored: RawBsonRef<'_>) -> Result<Bson> {
    Bson::try_from(stored).map_err(damaged)
}

/// The name and the value of a field.
pub(crate) fn field<'a>(element: bson::error::Result<RawElement<'a>>) -> Result<(&'a str, RawBsonRef<'a>)> {
    let element = element.map_err(damaged)?;
    Ok((element.key().as_str(), element.value().map_err(damaged)?))
}

fn damaged(error: bson::error::Error) -> Error {
    Error::database("a stored document is damaged").caused_by(error)
}

#[cfg(test)]
mod tests {
    use bson::{doc, rawdoc};

    use super::*;

    #[test]
    fn a_part_is_decoded_and_the_rest_stays_as_it_is() {
        let stored = rawdoc! { "_id": 1, "meta": { "a": [1, "x"] }, "inline": "large" };
        assert_eq!(
            decode_part(&stored, |field| field == "meta").unwrap(),
            doc! { "meta": { "a": [1, "x"] } }
        );
        let rest = leave_out(&stored, |field| field == "inline").unwrap();
        assert_eq!(decode(&rest).unwrap(), doc! { "_id": 1, "meta": { "a": [1, "x"] } });
    }

    #[test]
    fn damage_is_found_where_it_is_looked_at() {
        let mut bytes = rawdoc! { "a": 1, "b": "text" }.into_bytes();
        let at = bytes.windows(4).position(|part| part == b"text").unwrap();
        bytes[at] = 0xff;
        let stored = framed(&bytes).unwrap();
        assert_eq!(decode_part(stored, |field| field == "a").unwrap(), doc! { "a": 1 });
        assert!(decode_part(stored, |_| true).unwrap_err().to_string().contains("damaged"));
        assert!(decode(stored).is_err());
        assert!(framed(&bytes[1..]).is_err());
    }
}

//! Unique keys of documents, and whether the index holds them.

use bson::{Bson, Document, RawDocument};

use crate::documents::filter::key_encoding;
use crate::documents::{Filter, raw_bson};
use crate::json::Map;
use crate::records::document::indexing::MAX_INDEXED_BYTES;
use crate::{Error, Json, Result, json_to_bson};

/// The unique keys of a document, as its items are known by them.
pub(crate) struct Unique {
    /// Each key and its value.
    pub(crate) keys: Vec<(String, Bson)>,
    /// Finds the live items, and some whose arrays only hold a value.
    pub(crate) candidates: Filter,
    /// The identifier of the claim on these values.
    pub(crate) claim: String,
}

impl Unique {
    /// Whether an index entry has these values as wholes: an array is not its element. None if some are
    /// missing there, which they may be from the index alone.
    pub(crate) fn is_in(&self, indexed: &RawDocument) -> Result<Option<bool>> {
        let entry = raw_bson::decode(indexed)?;
        let mut complete = true;
        for (key, value) in &self.keys {
            match whole_at(&entry, key) {
                Some(found) if key_encoding::compare(found, value).is_eq() => {}
                Some(_) => return Ok(Some(false)),
                None => complete = false,
            }
        }
        Ok(complete.then_some(true))
    }

    /// The same of a document, which hides nothing.
    pub(crate) fn is_in_document(&self, document: &Map) -> bool {
        self.keys.iter().all(|(key, value)| {
            let found = json_at(document, key).and_then(|found| json_to_bson(found).ok());
            found.is_some_and(|found| key_encoding::compare(&found, value).is_eq())
        })
    }
}

/// The value at a path through objects alone.
fn whole_at<'d>(document: &'d Document, path: &str) -> Option<&'d Bson> {
    let mut segments = path.split('.');
    let first = segments.next().and_then(|first| document.get(first));
    segments
        .fold(first, |value, segment| value.and_then(Bson::as_document).and_then(|inner| inner.get(segment)))
}

pub(crate) fn json_at<'d>(document: &'d Map, path: &str) -> Option<&'d Json> {
    let mut segments = path.split('.');
    let first = segments.next().and_then(|first| document.get(first));
    segments
        .fold(first, |value, segment| value.and_then(Json::as_object).and_then(|inner| inner.get(segment)))
}

/// Refuses a version of which the index does not hold a unique key: the next insert would not find it.
///
/// # Errors
/// `VALIDATION_ERROR` naming the key.
pub(crate) fn check_unique(keys: &[String], indexed: &RawDocument) -> Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    let entry = raw_bson::decode(indexed)?;
    match keys.iter().find(|key| whole_at(&entry, key).is_none()) {
        None => Ok(()),
        Some(key) => Err(Error::validation(format!(
            "the property `{key}` cannot be a unique key of this document, as it does not get into the index: what is indexed of one document has at most \
             {MAX_INDEXED_BYTES} bytes, and holds no externalised properties; name what to index in the collection's `indexedProps`"
        ))),
    }
}

//! Fields of stored documents, read leniently and written as small as they fit.

use bson::raw::{BindRawBsonRef, CStr, RawBinaryRef};
use bson::spec::BinarySubtype;
use bson::{Bson, Document, RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf};
use bytes::Bytes;

use crate::documents::whole;
use crate::{Error, ErrorKind, Timestamp};

/// Whole numbers are stored as small as they fit, as the legacy library did.
pub(crate) fn int(value: i64) -> Bson {
    i32::try_from(value).map_or(Bson::Int64(value), Bson::Int32)
}

pub(super) fn raw_int(value: i64) -> RawBsonRef<'static> {
    i32::try_from(value).map_or(RawBsonRef::Int64(value), RawBsonRef::Int32)
}

pub(super) fn binary(bytes: &Bytes) -> RawBinaryRef<'_> {
    RawBinaryRef { subtype: BinarySubtype::Generic, bytes }
}

pub(super) fn put_opt(doc: &mut RawDocumentBuf, key: &CStr, value: Option<impl BindRawBsonRef>) {
    if let Some(value) = value {
        doc.append(key, value);
    }
}

pub(super) fn put_texts(doc: &mut RawDocumentBuf, key: &CStr, texts: &[String]) {
    if !texts.is_empty() {
        doc.append(key, texts.iter().map(String::as_str).collect::<RawArrayBuf>());
    }
}

/// Reads a whole number of any stored kind.
pub(crate) fn number(doc: &Document, key: &str) -> Option<i64> {
    whole(doc.get(key)?)
}

pub(super) fn text(value: RawBsonRef<'_>) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// A date; null, as the legacy library left it, is absent.
pub(super) fn date(value: RawBsonRef<'_>) -> Option<Timestamp> {
    value.as_datetime().map(Timestamp::from)
}

pub(super) fn bytes(value: RawBsonRef<'_>) -> Option<Bytes> {
    value.as_binary().map(|binary| Bytes::copy_from_slice(binary.bytes))
}

/// What an array holds of one kind.
pub(super) fn each<T>(value: RawBsonRef<'_>, read: impl Fn(RawBsonRef<'_>) -> Option<T>) -> Vec<T> {
    value.as_array().into_iter().flatten().filter_map(|item| read(item.ok()?)).collect()
}

pub(super) fn malformed(what: &'static str, key: &str, stored: &RawDocument) -> Error {
    let id = stored
        .get("_id")
        .ok()
        .flatten()
        .and_then(|id| Bson::try_from(id).ok())
        .map(|id| id.to_string())
        .unwrap_or_default();
    Error::new(
        ErrorKind::RouteMismatch,
        format!("the {what} {id} has no usable `{key}`: it was not written by this library"),
    )
}

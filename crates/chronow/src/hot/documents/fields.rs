//! Reading fields of stored documents, and guarded writes of them.

use bson::oid::ObjectId;
use bson::{Bson, Document};
use chronos_db::documents::{Direction, Guard, Write, whole};

use crate::{Error, ErrorKind, Result};

pub(super) fn damaged(what: &str, field: &str) -> Error {
    Error::new(
        ErrorKind::HotTier,
        format!("a stored {what} is damaged: its `{field}` is missing or of another type"),
    )
}

/// A whole number, however the store has typed it.
pub(super) fn int(document: &Document, field: &str) -> Result<i64> {
    document.get(field).and_then(whole).ok_or_else(|| damaged("document", field))
}

pub(super) fn text<'a>(document: &'a Document, field: &str) -> Result<&'a str> {
    document.get_str(field).map_err(|_| damaged("document", field))
}

pub(super) fn ascending(paths: &[&str]) -> Vec<(String, Direction)> {
    paths.iter().map(|path| ((*path).to_owned(), Direction::Ascending)).collect()
}

/// A put that takes place only if the stored revision is `rev`.
pub(super) fn put_if(document: Document, rev: ObjectId) -> Write {
    Write::put(document, Guard::Equals { field: "rev".to_owned(), value: rev.into() })
}

pub(super) fn delete_if(id: impl Into<Bson>, rev: ObjectId) -> Write {
    Write::Delete { id: id.into(), guard: Guard::Equals { field: "rev".to_owned(), value: rev.into() } }
}

pub(super) fn delete(id: impl Into<Bson>) -> Write {
    Write::Delete { id: id.into(), guard: Guard::Any }
}

pub(super) fn too_contended(what: &str) -> Error {
    Error::new(
        ErrorKind::HotTier,
        format!("others changed {what} again and again in the meantime; nothing was changed by this call"),
    )
    .retryable()
}

//! The functions SQL may call on stored documents: `chronos_value(doc, path)`, the encoded value at a path,
//! and `chronos_exists(doc, path)`, 1 where the path exists and NULL where it does not.

use bson::RawDocument;
use rusqlite::Connection;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::ToSql;

use crate::Result;
use crate::documents::filter::key_encoding;
use crate::documents::{Filter, raw_bson};

/// Makes the functions known to a connection.
pub(super) fn register(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("chronos_value", 2, flags, |context| {
        of_document(context, key_encoding::column_value)
    })?;
    connection.create_scalar_function("chronos_exists", 2, flags, |context| of_document(context, presence))
}

/// Applies `look` to the document and the path that are the arguments.
fn of_document<T: ToSql>(
    context: &Context<'_>,
    look: impl Fn(&RawDocument, &str) -> Result<T>,
) -> rusqlite::Result<T> {
    let path = context.get_raw(1).as_str().map_err(|e| rusqlite::Error::UserFunctionError(Box::new(e)))?;
    let bytes = context.get_raw(0).as_blob().map_err(|e| rusqlite::Error::UserFunctionError(Box::new(e)))?;
    raw_bson::framed(bytes)
        .and_then(|document| look(document, path))
        .map_err(|e| rusqlite::Error::UserFunctionError(Box::new(e)))
}

/// What the column of `path` holds that tells the documents in which it exists.
pub(super) fn presence(document: &RawDocument, path: &str) -> Result<Option<i64>> {
    Ok(Filter::exists(path, true).matches(&raw_bson::decode_towards(document, path)?).then_some(1))
}

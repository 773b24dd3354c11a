//! What a failure of SQLite means to the caller.

use std::sync::Arc;

use rusqlite::ErrorCode;

use super::location::Location;
use crate::Error;

/// A failure on its way to the caller, copied to everyone whose request it ended.
#[derive(Clone, Debug)]
pub(super) enum SqliteError {
    Sqlite(Arc<rusqlite::Error>),
    Own(Error),
}

impl From<rusqlite::Error> for SqliteError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(Arc::new(error))
    }
}

impl From<Error> for SqliteError {
    fn from(error: Error) -> Self {
        Self::Own(error)
    }
}

impl SqliteError {
    /// The error for the caller. `doing` completes "… failed while".
    pub(super) fn into_error(self, location: &Location, doing: &str) -> Error {
        match self {
            Self::Sqlite(error) => of_sqlite(error, location, doing),
            Self::Own(error) => error,
        }
    }
}

fn of_sqlite(error: Arc<rusqlite::Error>, location: &Location, doing: &str) -> Error {
    let advice = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another process holds the file; try again"
        }
        Some(ErrorCode::DiskFull) => "the disk is full",
        Some(ErrorCode::ReadOnly) => "the file or its folder is read-only",
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            "the file or its folder cannot be opened; look at its permissions"
        }
        Some(ErrorCode::NotADatabase) => {
            "the file is not a database of this program, or its start is damaged"
        }
        Some(ErrorCode::DatabaseCorrupt) => "the file is damaged; restore it from a copy",
        Some(ErrorCode::SystemIoFailure) => "reading or writing the disk failed",
        Some(ErrorCode::TooBig) => "a value is too large",
        _ => "SQLite failed",
    };
    let retryable =
        matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked));
    let failed =
        Error::database(format!("the embedded store {location} failed while {doing}: {advice} ({error})"))
            .caused_by(error);
    if retryable { failed.retryable() } else { failed }
}

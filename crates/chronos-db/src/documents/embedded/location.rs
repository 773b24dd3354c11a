//! Where the database file is, how a connection to it is set up, and what its failures mean.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::RawDocument;
use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::documents::filter::key_encoding;
use crate::documents::{Filter, raw_bson};
use crate::{Error, Result};

/// How long a connection waits for writers of other processes.
const BUSY_WAIT: Duration = Duration::from_secs(30);
/// How long a thing waits that keeps writers waiting meanwhile.
const AT_ONCE: Duration = Duration::from_millis(200);

/// `Chr` and the number of the file's format, kept in SQLite's `application_id`.
const APPLICATION_ID: i64 = 0x4368_7201;

/// Where a store keeps its data.
#[derive(Clone, Debug)]
pub(super) enum Location {
    /// Nowhere: gone with the store.
    Memory,
    /// At the path a user gave: a file, or a folder with the file in it.
    Path(PathBuf),
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Writer,
    Reader,
}

/// A failure on its way to the caller, copied to everyone whose request it ended.
#[derive(Clone, Debug)]
pub(super) enum SqliteError {
    Sqlite(Arc<rusqlite::Error>),
    Own(Arc<Error>),
}

impl From<rusqlite::Error> for SqliteError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(Arc::new(error))
    }
}

impl From<Error> for SqliteError {
    fn from(error: Error) -> Self {
        Self::Own(Arc::new(error))
    }
}

impl SqliteError {
    /// The error for the caller. `doing` completes "… failed while".
    pub(super) fn into_error(self, location: &Location, doing: &str) -> Error {
        match self {
            Self::Sqlite(error) => location.error(error, doing),
            Self::Own(error) => Arc::try_unwrap(error).unwrap_or_else(|shared| {
                let copy = Error::new(shared.kind(), shared.message().to_owned());
                let copy = if shared.is_retryable() { copy.retryable() } else { copy };
                copy.caused_by(shared)
            }),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str(":memory:"),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

impl Location {
    pub(super) fn parse(path: &Path) -> Result<Self> {
        if path.as_os_str().is_empty() {
            return Err(Error::validation(
                "the path of the embedded store is empty; give a folder, a .db file or :memory:",
            ));
        }
        Ok(if path == Path::new(":memory:") { Self::Memory } else { Self::Path(path.to_owned()) })
    }

    fn error(&self, error: Arc<rusqlite::Error>, doing: &str) -> Error {
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
                "the file is no database of this program, or its start is damaged"
            }
            Some(ErrorCode::DatabaseCorrupt) => "the file is damaged; restore it from a copy",
            Some(ErrorCode::SystemIoFailure) => "reading or writing the disk failed",
            Some(ErrorCode::TooBig) => "a value is too large",
            _ => "SQLite failed",
        };
        let retryable =
            matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked));
        let failed =
            Error::database(format!("the embedded store {self} failed while {doing}: {advice} ({error})"))
                .caused_by(error);
        if retryable { failed.retryable() } else { failed }
    }

    fn unusable(&self, what: &str, error: std::io::Error) -> Error {
        Error::database(format!("the embedded store {self} cannot be opened: {what} ({error})"))
            .caused_by(error)
    }

    /// The file itself, in a folder that exists afterwards.
    pub(super) fn file(&self) -> Result<Option<PathBuf>> {
        let Some(path) = self.path()? else { return Ok(None) };
        if let Some(folder) = path.parent() {
            create_folder(folder).map_err(|e| self.unusable("its folder cannot be created", e))?;
        }
        Ok(Some(path))
    }

    /// Where the file is, or will be.
    fn path(&self) -> Result<Option<PathBuf>> {
        let Self::Path(given) = self else { return Ok(None) };
        // Absolute, so that SQLite takes no name for a URI.
        let path =
            std::path::absolute(given).map_err(|e| self.unusable("the path has no absolute form", e))?;
        let named_file = path.extension().is_some_and(|e| e == "db" || e == "sqlite" || e == "sqlite3");
        if !named_file && path.metadata().is_ok_and(|about| about.is_file() && about.len() == 0) {
            // SQLite would make a database of it, whatever it was meant to be.
            return Err(Error::validation(format!(
                "{self} is an empty file, not an embedded store; name a folder or a .db file"
            )));
        }
        Ok(Some(if path.is_file() || (named_file && !path.is_dir()) {
            path
        } else {
            path.join("chronos.db")
        }))
    }

    /// What the file is known by: its path without links, and once it exists, what the file system calls it.
    pub(super) fn marks(&self) -> Result<Vec<String>> {
        let Some(path) = self.path()? else { return Ok(Vec::new()) };
        let mut marks = Vec::new();
        // Of what does not exist yet, the folder around it tells where it will be.
        let real = path.ancestors().find_map(|there| {
            let mut real = there.canonicalize().ok()?;
            for part in path.strip_prefix(there).ok()?.components() {
                match part {
                    std::path::Component::ParentDir => {
                        real.pop();
                    }
                    part => real.push(part),
                }
            }
            Some(real)
        });
        marks.push(format!("file {}", real.as_deref().unwrap_or(&path).display()));
        #[cfg(unix)]
        if let Ok(found) = std::fs::metadata(&path) {
            use std::os::unix::fs::MetadataExt as _;
            marks.push(format!("inode {}:{}", found.dev(), found.ino()));
        }
        Ok(marks)
    }
}

/// Creates a folder and makes its name survive a power cut.
fn create_folder(folder: &Path) -> std::io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        create_folder(parent)?;
        match std::fs::create_dir(folder) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && folder.is_dir() => {}
            done => done?,
        }
        #[cfg(unix)]
        std::fs::File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// Opens a connection; without a file to a new database in memory.
pub(super) fn connect(file: Option<&Path>, role: Role) -> Result<Connection, SqliteError> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if role == Role::Writer {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let mut connection = match file {
        Some(file) => Connection::open_with_flags(file, flags)?,
        None => Connection::open_in_memory_with_flags(flags)?,
    };
    connection.busy_handler(Some(patience()))?;
    connection.set_prepared_statement_cache_capacity(256);
    connection.create_scalar_function(
        "chronos_value",
        2,
        FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC,
        |context| {
            let path =
                context.get_raw(1).as_str().map_err(|e| rusqlite::Error::UserFunctionError(Box::new(e)))?;
            let bytes =
                context.get_raw(0).as_blob().map_err(|e| rusqlite::Error::UserFunctionError(Box::new(e)))?;
            let value =
                raw_bson::framed(bytes).and_then(|document| key_encoding::column_value(document, path));
            value.map_err(|e| rusqlite::Error::UserFunctionError(Box::new(e)))
        },
    )?;
    connection.create_scalar_function(
        "chronos_exists",
        2,
        FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC,
        |context| {
            let path =
                context.get_raw(1).as_str().map_err(|e| rusqlite::Error::UserFunctionError(Box::new(e)))?;
            let bytes =
                context.get_raw(0).as_blob().map_err(|e| rusqlite::Error::UserFunctionError(Box::new(e)))?;
            let found = raw_bson::framed(bytes).and_then(|document| presence(document, path));
            found.map_err(|e| rusqlite::Error::UserFunctionError(Box::new(e)))
        },
    )?;
    match role {
        Role::Writer => {
            if file.is_some() {
                wal(&connection)?;
            }
            connection.execute_batch(
                "PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=4000; PRAGMA journal_size_limit=67108864; \
                 PRAGMA cache_size=-32768; PRAGMA temp_store=MEMORY; PRAGMA secure_delete=ON;",
            )?;
            adopt(&connection)?;
        }
        Role::Reader => connection.execute_batch("PRAGMA query_only=ON; PRAGMA cache_size=-8192;")?,
    }
    Ok(connection)
}

/// Waits in short, uneven steps, so that processes that write at once take turns instead of backing off for
/// ever longer.
fn patience() -> impl FnMut(i32) -> bool + Send + 'static {
    let mut since = Instant::now();
    move |tried| {
        if tried == 0 {
            since = Instant::now();
        }
        let step = 1000 + u64::from(since.elapsed().subsec_nanos() % 4000);
        std::thread::sleep(Duration::from_micros(step));
        since.elapsed() < BUSY_WAIT
    }
}

/// Does something that nobody else may be kept waiting for: it is given up after a moment.
pub(super) fn at_once<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.busy_timeout(AT_ONCE)?;
    let done = work(connection);
    connection.busy_handler(Some(patience()))?;
    done
}

/// Turns the write-ahead log on. SQLite does not wait by itself if two processes do this to a new file at
/// once.
fn wal(connection: &Connection) -> Result<(), SqliteError> {
    let mut patience = patience();
    let mut tried = 0;
    loop {
        match connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0)) {
            Ok(mode) if mode.eq_ignore_ascii_case("wal") => return Ok(()),
            Ok(mode) => {
                return Err(Error::database(format!(
                    "the embedded store needs SQLite's write-ahead log, which this file system does not support (journal mode {mode})"
                ))
                .into());
            }
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && patience(tried) => {
                tried += 1
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Makes a new file ours, and refuses one of another program.
fn adopt(connection: &Connection) -> Result<(), SqliteError> {
    let id = || connection.query_row("PRAGMA application_id", [], |row| row.get::<_, i64>(0));
    if id()? == APPLICATION_ID {
        return Ok(());
    }
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let adopted = (|| {
        let id = id()?;
        if id == APPLICATION_ID {
            return Ok(());
        }
        let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if id != 0 || tables != 0 {
            return Err(SqliteError::from(Error::database(
                "the file belongs to another program or another version of this one",
            )));
        }
        connection.execute_batch(&format!(
            "PRAGMA application_id={APPLICATION_ID};
             CREATE TABLE catalog(database TEXT NOT NULL, collection TEXT NOT NULL, number INTEGER NOT NULL, layout BLOB NOT NULL,
                                  PRIMARY KEY(database, collection)) WITHOUT ROWID;"
        ))?;
        Ok(())
    })();
    match adopted {
        Ok(()) => Ok(connection.execute_batch("COMMIT")?),
        Err(error) => {
            connection.execute_batch("ROLLBACK")?;
            Err(error)
        }
    }
}

/// What the column of `path` holds that tells the documents in which it exists.
pub(super) fn presence(document: &RawDocument, path: &str) -> Result<Option<i64>> {
    Ok(Filter::exists(path, true).matches(&raw_bson::decode_towards(document, path)?).then_some(1))
}

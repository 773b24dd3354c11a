//! How a connection to the database file is set up, and how it waits for other processes.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::error::SqliteError;
use super::sql_functions;
use crate::{Error, Result};

/// How long a connection waits for writers of other processes.
const BUSY_WAIT: Duration = Duration::from_secs(30);
/// How long a thing waits that keeps writers waiting meanwhile.
const AT_ONCE: Duration = Duration::from_millis(200);

/// `Chr` and the number of the file's format, kept in SQLite's `application_id`.
const APPLICATION_ID: i64 = 0x4368_7201;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Writer,
    Reader,
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
    connection.busy_handler(Some(busy_wait()))?;
    connection.set_prepared_statement_cache_capacity(256);
    sql_functions::register(&connection)?;
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
fn busy_wait() -> impl FnMut(i32) -> bool + Send + 'static {
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
    connection.busy_handler(Some(busy_wait()))?;
    done
}

/// Turns the write-ahead log on. SQLite does not wait by itself if two processes do this to a new file at
/// once.
fn wal(connection: &Connection) -> Result<(), SqliteError> {
    let mut wait = busy_wait();
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
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && wait(tried) => {
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

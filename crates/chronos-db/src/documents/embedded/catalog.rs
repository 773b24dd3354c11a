//! Which table holds which collection, and with which columns.
//!
//! A collection is one table: the encoded `_id`, a column per path that an index uses, and the document,
//! last, so that reading a column never walks through a large document. Every change of the catalog bumps
//! SQLite's `user_version`, by which each connection notices those of others.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _};

use super::error::SqliteError;
use super::layout::{Column, Layout, Table, is_array};
use super::steps::{Counted, Steps};
use crate::Error;
use crate::documents::{Direction, Index, Namespace};

/// More remembered collections than this are forgotten together; they are read again when needed.
const MAX_REMEMBERED: usize = 10_000;

/// A connection and what it knows of the catalog.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) connection: Connection,
    steps: Arc<Steps>,
    version: i64,
    tables: HashMap<Namespace, Option<Arc<Table>>>,
}

impl Session {
    pub(super) fn new(connection: Connection, steps: &Arc<Steps>) -> Self {
        Self { connection, steps: Arc::clone(steps), version: -1, tables: HashMap::new() }
    }

    /// A statement on documents, whose steps count.
    pub(super) fn statement(&self, sql: &str) -> Result<Counted<'_>, SqliteError> {
        Ok(self.steps.count(self.connection.prepare_cached(sql)?))
    }

    /// Begins a transaction and notices what others did to the catalog.
    pub(super) fn begin(&mut self, sql: &str) -> Result<(), SqliteError> {
        self.connection.prepare_cached(sql)?.execute([])?;
        self.refresh()
    }

    /// Notices changes of the catalog.
    pub(super) fn refresh(&mut self) -> Result<(), SqliteError> {
        let version = self
            .connection
            .prepare_cached("PRAGMA user_version")?
            .query_row([], |row| row.get::<_, i64>(0))?;
        if version != self.version || self.tables.len() > MAX_REMEMBERED {
            self.tables.clear();
            self.version = version;
        }
        Ok(())
    }

    /// Takes a transaction back, if there still is one, and what was learned in it.
    pub(super) fn roll_back(&mut self) -> Result<(), SqliteError> {
        self.forget();
        if !self.connection.is_autocommit() {
            self.connection.execute_batch("ROLLBACK")?;
        }
        Ok(())
    }

    /// Runs `work` on one consistent snapshot.
    pub(super) fn read<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, SqliteError>,
    ) -> Result<T, SqliteError> {
        self.begin("BEGIN")?;
        match work(self) {
            Ok(done) => {
                self.connection.prepare_cached("COMMIT")?.execute([])?;
                Ok(done)
            }
            Err(error) => {
                self.roll_back()?;
                Err(error)
            }
        }
    }

    /// Forgets the catalog: what was changed in it has been rolled back.
    pub(super) fn forget(&mut self) {
        self.tables.clear();
        self.version = -1;
    }

    pub(super) fn table(&mut self, namespace: &Namespace) -> Result<Option<Arc<Table>>, SqliteError> {
        if let Some(known) = self.tables.get(namespace) {
            return Ok(known.clone());
        }
        let row = self
            .connection
            .prepare_cached("SELECT number, layout FROM catalog WHERE database=? AND collection=?")?
            .query_row([&*namespace.database, &*namespace.collection], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))
            })
            .optional()?;
        let table = match row {
            Some((number, layout)) => {
                let damaged = || Error::database(format!("the catalog entry of {namespace:?} is damaged"));
                Some(Arc::new(Table::new(number, Layout::from_bytes(&layout).ok_or_else(damaged)?)))
            }
            None => None,
        };
        self.tables.insert(namespace.clone(), table.clone());
        Ok(table)
    }

    /// The names of the databases.
    pub(super) fn databases(&mut self) -> Result<Vec<String>, SqliteError> {
        let mut statement = self.connection.prepare_cached("SELECT DISTINCT database FROM catalog")?;
        let names = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok(names)
    }

    /// The names of a database's collections.
    pub(super) fn collections(&mut self, database: &str) -> Result<Vec<String>, SqliteError> {
        let mut statement =
            self.connection.prepare_cached("SELECT collection FROM catalog WHERE database=?")?;
        let names = statement.query_map([database], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok(names)
    }

    pub(super) fn table_or_create(&mut self, namespace: &Namespace) -> Result<Arc<Table>, SqliteError> {
        match self.table(namespace)? {
            Some(table) => Ok(table),
            None => self.create(namespace, Layout::default()),
        }
    }

    /// Notes that columns of `table` have come to hold arrays.
    pub(super) fn note_arrays(
        &mut self,
        namespace: &Namespace,
        table: &Table,
        values: &[Vec<u8>],
    ) -> Result<Arc<Table>, SqliteError> {
        let mut layout = table.layout.clone();
        for (column, value) in layout.columns.iter_mut().zip(values) {
            column.arrays |= is_array(value);
        }
        self.record(namespace, table.number, layout)
    }

    fn next_version(&mut self) -> Result<i64, SqliteError> {
        let version = self.version + 1;
        self.connection.execute_batch(&format!("PRAGMA user_version={version}"))?;
        self.version = version;
        Ok(version)
    }

    /// A table for the collection under a number that never was one before.
    fn create(&mut self, namespace: &Namespace, layout: Layout) -> Result<Arc<Table>, SqliteError> {
        let number = self.next_version()?;
        let columns: String = (0..layout.columns.len()).map(|at| format!("c{at} BLOB NOT NULL,")).collect();
        let presence: String = (0..layout.presence.len()).map(|at| format!("e{at} INTEGER,")).collect();
        self.connection.execute_batch(&format!(
            "CREATE TABLE d{number}(id BLOB NOT NULL UNIQUE,{columns}{presence}doc BLOB NOT NULL)"
        ))?;
        self.record(namespace, number, layout)
    }

    fn record(
        &mut self,
        namespace: &Namespace,
        number: i64,
        layout: Layout,
    ) -> Result<Arc<Table>, SqliteError> {
        if number != self.version {
            self.next_version()?;
        }
        self.connection
            .prepare_cached(
                "INSERT OR REPLACE INTO catalog(database, collection, number, layout) VALUES(?,?,?,?)",
            )?
            .execute((&*namespace.database, &*namespace.collection, number, layout.to_bytes()?))?;
        let table = Arc::new(Table::new(number, layout));
        self.tables.insert(namespace.clone(), Some(table.clone()));
        Ok(table)
    }

    /// Whether nothing is left to do for these indexes.
    pub(super) fn has_indexes(
        &mut self,
        namespace: &Namespace,
        indexes: &[Index],
    ) -> Result<bool, SqliteError> {
        let Some(table) = self.table(namespace)? else { return Ok(false) };
        Ok(table.layout.missing(indexes)?.is_empty())
    }

    /// Makes the indexes, within a transaction. New columns mean a new table, filled from the old one.
    pub(super) fn ensure(&mut self, namespace: &Namespace, indexes: &[Index]) -> Result<(), SqliteError> {
        let old = self.table(namespace)?;
        let mut layout = old.as_ref().map(|table| table.layout.clone()).unwrap_or_default();
        let present = layout.indexes.len();
        let new = layout.missing(indexes)?;
        let (columns, presence) = (layout.columns.len(), layout.presence.len());
        for index in new {
            for (path, _) in &index.keys {
                if path != "_id" && layout.column(path).is_none() {
                    layout.columns.push(Column { path: path.clone(), arrays: false });
                }
            }
            if let Some(path) =
                index.only_if_exists.iter().find(|path| index.unique && !layout.presence.contains(path))
            {
                layout.presence.push(path.clone());
            }
            layout.indexes.push(index);
        }
        let grown = layout.columns.len() > columns || layout.presence.len() > presence;
        let (number, first) = match &old {
            Some(old) if !grown => (old.number, present),
            Some(old) => {
                let number = self.create(namespace, layout.clone())?.number;
                self.fill(old, number, &mut layout)?;
                (number, 0)
            }
            None => (self.create(namespace, layout.clone())?.number, 0),
        };
        for (at, index) in layout.indexes.iter().enumerate().skip(first) {
            self.create_index(namespace, number, at, index, &layout)?;
        }
        if layout.indexes.len() > present || grown {
            self.record(namespace, number, layout)?;
        }
        Ok(())
    }

    /// Moves all documents of `old` to the table `number`.
    fn fill(&self, old: &Table, number: i64, layout: &mut Layout) -> Result<(), SqliteError> {
        let (mut names, mut values) = (String::new(), String::new());
        for (at, column) in layout.columns.iter().enumerate() {
            // Writing to a String cannot fail.
            let _ = write!(names, "c{at},");
            let _ = write!(values, "{},", old.value("o", &column.path));
        }
        for (at, path) in layout.presence.iter().enumerate() {
            let _ = write!(names, "e{at},");
            let _ = write!(values, "chronos_exists(o.doc,'{}'),", path.replace('\'', "''"));
        }
        self.connection.execute_batch(&format!(
            "INSERT INTO d{number}(id,{names}doc) SELECT o.id,{values}o.doc FROM d{old} o ORDER BY o.rowid; DROP TABLE d{old};",
            old = old.number
        ))?;
        for (at, column) in layout.columns.iter_mut().enumerate() {
            let found = format!("SELECT EXISTS(SELECT 1 FROM d{number} WHERE c{at} >= x'F0')");
            column.arrays |= self.connection.query_row(&found, [], |row| row.get::<_, bool>(0))?;
        }
        Ok(())
    }

    fn create_index(
        &self,
        namespace: &Namespace,
        number: i64,
        at: usize,
        index: &Index,
        layout: &Layout,
    ) -> Result<(), SqliteError> {
        let columns: Vec<String> = layout
            .index_columns(index)
            .into_iter()
            .map(
                |(column, direction)| {
                    if direction == Direction::Descending { format!("{column} DESC") } else { column }
                },
            )
            .collect();
        let unique = if index.unique { "UNIQUE " } else { "" };
        let only = layout.condition(index).map(|condition| format!(" WHERE {condition}")).unwrap_or_default();
        let created = self.connection.execute_batch(&format!(
            "CREATE {unique}INDEX i{number}_{at} ON d{number}({}){only}",
            columns.join(",")
        ));
        created.map_err(|error| match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::ConstraintViolation) => Error::database(format!(
                "the unique index `{}` cannot be made: documents of {namespace:?} already share a value; nothing was changed",
                index.name
            ))
            .caused_by(error)
            .into(),
            _ => SqliteError::from(error),
        })
    }
}

//! Which table holds which collection, and with which columns.
//!
//! A collection is one table: the encoded `_id`, a column per path that an index uses, and the document,
//! last, so that reading a column never walks through a large document. Every change of the catalog bumps
//! SQLite's `user_version`, by which each connection notices those of others.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use bson::{Bson, Document, RawDocument, doc};
use rusqlite::{Connection, OptionalExtension as _};

use super::location::{self, SqliteError};
use super::steps::{Counted, Steps};
use crate::Error;
use crate::documents::filter::key_encoding;
use crate::documents::{Direction, Filter, Index, Namespace};

/// The first byte of a column's value that stands for an array.
const ARRAY_RANK: u8 = 0xF0;

/// More remembered collections than this are forgotten together; they are read again when needed.
const MAX_REMEMBERED: usize = 10_000;

/// A path that an index uses.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) path: String,
    /// Whether any document ever had an array here. While none had, a query need not look for one, and can
    /// follow the index's order.
    pub(super) arrays: bool,
}

/// What the catalog says about a collection.
#[derive(Clone, Debug, Default)]
pub(super) struct Layout {
    pub(super) columns: Vec<Column>,
    /// Paths whose mere presence a unique index asks for.
    pub(super) presence: Vec<String>,
    pub(super) indexes: Vec<Index>,
}

impl Layout {
    fn to_bytes(&self) -> Result<Vec<u8>, SqliteError> {
        let columns: Vec<Bson> =
            self.columns.iter().map(|c| doc! { "path": &c.path, "arrays": c.arrays }.into()).collect();
        let indexes: Vec<Bson> = self.indexes.iter().map(|i| index_to_document(i).into()).collect();
        let layout = doc! { "columns": columns, "presence": &self.presence, "indexes": indexes };
        layout
            .to_vec()
            .map_err(|e| Error::database("the catalog entry cannot be encoded").caused_by(e).into())
    }

    /// Nothing if the bytes are damaged.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let layout = Document::from_reader(bytes).ok()?;
        let text = |document: &Document, field: &str| document.get_str(field).ok().map(str::to_owned);
        let documents = |document: &Document, field: &str| -> Option<Vec<Document>> {
            document.get_array(field).ok()?.iter().map(|item| item.as_document().cloned()).collect()
        };
        let column = |column: Document| {
            Some(Column { path: text(&column, "path")?, arrays: column.get_bool("arrays").ok()? })
        };
        let key = |key: Document| {
            let direction =
                if key.get_bool("descending").ok()? { Direction::Descending } else { Direction::Ascending };
            Some((text(&key, "path")?, direction))
        };
        let index = |index: Document| {
            Some(Index {
                name: text(&index, "name")?,
                keys: documents(&index, "keys")?.into_iter().map(key).collect::<Option<_>>()?,
                unique: index.get_bool("unique").ok()?,
                only_if_exists: text(&index, "onlyIfExists"),
            })
        };
        Some(Self {
            columns: documents(&layout, "columns")?.into_iter().map(column).collect::<Option<_>>()?,
            presence: layout
                .get_array("presence")
                .ok()?
                .iter()
                .map(|p| p.as_str().map(str::to_owned))
                .collect::<Option<_>>()?,
            indexes: documents(&layout, "indexes")?.into_iter().map(index).collect::<Option<_>>()?,
        })
    }

    fn column(&self, path: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.path == path)
    }

    /// What SQLite calls the columns of an index. One that holds only some documents has the presence of its
    /// path at its end: absent is NULL there, and SQLite takes no NULL for equal to another.
    fn index_columns(&self, index: &Index) -> Vec<(String, Direction)> {
        let mut columns: Vec<_> =
            index.keys.iter().map(|(path, direction)| (self.name_of(path), *direction)).collect();
        if index.unique {
            let presence =
                index.only_if_exists.as_ref().and_then(|path| self.presence.iter().position(|p| p == path));
            columns.extend(presence.map(|at| (format!("e{at}"), Direction::Ascending)));
        }
        columns
    }

    /// The condition under which a row is in an index that holds only some documents: its value is not null,
    /// so a query may use the index if its filter lets no null and no absent value through. None for indexes
    /// that hold all rows.
    fn condition(&self, index: &Index) -> Option<String> {
        let path = index.only_if_exists.as_ref().filter(|_| !index.unique)?;
        Some(present(&format!("c{}", self.column(path)?)))
    }

    fn name_of(&self, path: &str) -> String {
        if path == "_id" {
            "id".to_owned()
        } else {
            self.column(path).map_or_else(|| "id".to_owned(), |at| format!("c{at}"))
        }
    }
}

/// The condition of partial indexes. SQLite finds that a query implies it only if the query says it in the
/// same words.
fn present(column: &str) -> String {
    format!("{column} <> x'{:02X}'", key_encoding::rank::NULL)
}

fn index_to_document(index: &Index) -> Document {
    let keys: Vec<Bson> = index
        .keys
        .iter()
        .map(|(path, direction)| {
            doc! { "path": path, "descending": *direction == Direction::Descending }.into()
        })
        .collect();
    doc! { "name": &index.name, "keys": keys, "unique": index.unique, "onlyIfExists": index.only_if_exists.clone() }
}

/// A collection's table, with the statements that are the same for every document.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) number: i64,
    pub(super) layout: Layout,
    pub(super) insert: String,
    /// Ends so that a condition on the stored document can follow.
    pub(super) upsert: String,
    pub(super) replace: String,
    pub(super) delete: String,
    pub(super) select: String,
    /// What SQLite calls the columns of a violated constraint, and our name of the index.
    unique: Vec<(String, String)>,
}

impl Table {
    fn new(number: i64, layout: Layout) -> Self {
        let columns: Vec<String> = (0..layout.columns.len())
            .map(|at| format!("c{at}"))
            .chain((0..layout.presence.len()).map(|at| format!("e{at}")))
            .collect();
        let (mut names, mut marks, mut set, mut replace) =
            (String::from("id"), String::from("?1"), String::new(), String::new());
        for (at, column) in columns.iter().chain([&"doc".to_owned()]).enumerate() {
            let comma = if at == 0 { "" } else { "," };
            // Writing to a String cannot fail.
            let _ = write!(names, ",{column}");
            let _ = write!(marks, ",?{}", at + 2);
            let _ = write!(set, "{comma}{column}=excluded.{column}");
            let _ = write!(replace, "{comma}{column}=?{}", at + 2);
        }
        let insert = format!("INSERT INTO d{number}({names}) VALUES({marks})");
        let unique = layout
            .indexes
            .iter()
            .filter(|index| index.unique)
            .map(|index| {
                let columns: Vec<_> = layout
                    .index_columns(index)
                    .into_iter()
                    .map(|(column, _)| format!("d{number}.{column}"))
                    .collect();
                (columns.join(", "), index.name.clone())
            })
            .collect();
        Self {
            number,
            upsert: format!("{insert} ON CONFLICT(id) DO UPDATE SET {set}"),
            replace: format!("UPDATE d{number} SET {replace} WHERE id=?1"),
            delete: format!("DELETE FROM d{number} WHERE id=?1"),
            select: format!("SELECT doc FROM d{number} WHERE id=?1"),
            insert,
            unique,
            layout,
        }
    }

    /// What stands in SQL for the value at `path`, in rows of `row`: a column, or a look into the document.
    pub(super) fn value(&self, row: &str, path: &str) -> String {
        match self.indexed(row, path) {
            Some(column) => column,
            None => format!("chronos_value({row}.doc,'{}')", path.replace('\'', "''")),
        }
    }

    /// The column of `path`, if it has one.
    pub(super) fn indexed(&self, row: &str, path: &str) -> Option<String> {
        if path == "_id" {
            return Some(format!("{row}.id"));
        }
        self.layout.column(path).map(|at| format!("{row}.c{at}"))
    }

    /// Whether the value at `path` may be an array (where there is a column for it).
    pub(super) fn may_hold_arrays(&self, path: &str) -> bool {
        path != "_id" && self.layout.column(path).is_none_or(|at| self.layout.columns[at].arrays)
    }

    /// Conditions that every row matching `filter` meets and that make partial indexes usable, for rows of
    /// `row`.
    pub(super) fn partial_conditions(&self, row: &str, filter: &Filter) -> Vec<String> {
        let mut conditions: Vec<String> = Vec::new();
        for index in self.layout.indexes.iter().filter(|index| !index.unique) {
            let Some(path) = index.only_if_exists.as_deref().filter(|path| filter.demands_value(path)) else {
                continue;
            };
            let condition = self.layout.column(path).map(|at| present(&format!("{row}.c{at}")));
            conditions.extend(condition.filter(|condition| !conditions.contains(condition)));
        }
        conditions
    }

    /// Whether an index begins with these paths, in whichever direction.
    pub(super) fn has_index_on(&self, paths: &[&str]) -> bool {
        self.layout.indexes.iter().any(|index| {
            index.keys.len() >= paths.len()
                && index.keys.iter().zip(paths).all(|((key, _), path)| key == path)
        })
    }

    /// Our name of the index in SQLite's complaint about a unique constraint.
    pub(super) fn violated(&self, complaint: &str) -> Option<String> {
        let columns = complaint.rsplit_once(": ")?.1;
        self.unique.iter().find(|(known, _)| known == columns).map(|(_, name)| name.clone())
    }
}

/// The values of a row's columns, and of its presences.
type Columns = (Vec<Vec<u8>>, Vec<Option<i64>>);

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
        Ok(missing(&table.layout, indexes)?.is_empty())
    }

    /// Makes the indexes, within a transaction. New columns mean a new table, filled from the old one.
    pub(super) fn ensure(&mut self, namespace: &Namespace, indexes: &[Index]) -> Result<(), SqliteError> {
        let old = self.table(namespace)?;
        let mut layout = old.as_ref().map(|table| table.layout.clone()).unwrap_or_default();
        let present = layout.indexes.len();
        let new = missing(&layout, indexes)?;
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

/// Which of `wanted` the layout lacks.
fn missing(layout: &Layout, wanted: &[Index]) -> Result<Vec<Index>, SqliteError> {
    let mut new: Vec<Index> = Vec::new();
    for index in wanted {
        if index.keys.is_empty() {
            return Err(Error::validation(format!("the index `{}` has no keys", index.name)).into());
        }
        match layout.indexes.iter().chain(&new).find(|known| known.name == index.name) {
            Some(known) if known == index => {}
            Some(_) => {
                let message =
                    format!("there is an index `{}` already, with other keys or another promise", index.name);
                return Err(Error::database(message).into());
            }
            None => new.push(index.clone()),
        }
    }
    Ok(new)
}

pub(super) fn is_array(value: &[u8]) -> bool {
    value.first() == Some(&ARRAY_RANK)
}

impl Table {
    /// The values of the columns and the presences of a document.
    pub(super) fn values(&self, document: &RawDocument) -> Result<Columns, Error> {
        let columns = self
            .layout
            .columns
            .iter()
            .map(|column| key_encoding::column_value(document, &column.path))
            .collect::<Result<_, _>>()?;
        let presence = self
            .layout
            .presence
            .iter()
            .map(|path| location::presence(document, path))
            .collect::<Result<_, _>>()?;
        Ok((columns, presence))
    }

    /// Whether a value is an array where there was none before.
    pub(super) fn has_new_arrays(&self, values: &[Vec<u8>]) -> bool {
        self.layout.columns.iter().zip(values).any(|(column, value)| !column.arrays && is_array(value))
    }
}

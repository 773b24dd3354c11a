//! SQLite by itself: the rows of an embedded store, once more.

use std::path::Path;
use std::time::Instant;

use rusqlite::{Connection, params_from_iter, types::Value};

use crate::Result;

/// The tables of an embedded store with all their rows, in the order of their insertion.
#[derive(Debug)]
pub(crate) struct Copied {
    schema: Vec<String>,
    heads: Table,
    rows: Table,
}

#[derive(Debug)]
struct Table {
    insert: String,
    rows: Vec<Vec<Value>>,
}

impl Copied {
    /// Reads heads and version rows out of the store's file.
    pub(crate) fn read(file: &Path, collection: &str) -> Result<Self> {
        let from = Connection::open(file)?;
        let number = |suffix: &str| -> Result<i64> {
            let name = format!("{collection}_{suffix}");
            Ok(from.query_row("SELECT number FROM catalog WHERE collection=?", [name], |row| row.get(0))?)
        };
        let (heads, rows) = (number("head")?, number("ver")?);
        let mut schema = Vec::new();
        for number in [heads, rows] {
            let mut statement = from.prepare(
                "SELECT sql FROM sqlite_schema WHERE tbl_name=? AND sql IS NOT NULL ORDER BY type DESC",
            )?;
            let found = statement.query_map([format!("d{number}")], |row| row.get(0))?;
            schema.extend(found.collect::<Result<Vec<String>, _>>()?);
        }
        let table = |number: i64| -> Result<Table> {
            let mut statement = from.prepare(&format!("SELECT * FROM d{number} ORDER BY rowid"))?;
            let columns = statement.column_count();
            let rows = statement
                .query_map([], |row| (0..columns).map(|at| row.get(at)).collect::<Result<Vec<Value>, _>>())?;
            let marks = vec!["?"; columns].join(",");
            Ok(Table {
                insert: format!("INSERT INTO d{number} VALUES({marks})"),
                rows: rows.collect::<Result<_, _>>()?,
            })
        };
        let (heads, rows) = (table(heads)?, table(rows)?);
        Ok(Self { schema, heads, rows })
    }

    /// Bytes of a row and its head, on average, without their indexes.
    pub(crate) fn bytes(&self) -> f64 {
        let size = |value: &Value| if let Value::Blob(bytes) = value { bytes.len() } else { 8 };
        let all: usize =
            [&self.heads, &self.rows].iter().flat_map(|table| &table.rows).flatten().map(size).sum();
        all as f64 / self.rows.rows.len().max(1) as f64
    }

    /// Inserts the rows into a new file, one transaction a group, synced like the store's; returns pairs of
    /// row and head per second.
    pub(crate) fn write(&self, file: &Path, group: usize) -> Result<f64> {
        let to = Connection::open(file)?;
        to.pragma_update(None, "journal_mode", "WAL")?;
        to.execute_batch("PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=4000; PRAGMA cache_size=-32768; PRAGMA temp_store=MEMORY;")?;
        for sql in &self.schema {
            to.execute_batch(sql)?;
        }
        let (mut row, mut head) = (to.prepare(&self.rows.insert)?, to.prepare(&self.heads.insert)?);
        let pairs = self.rows.rows.len().min(self.heads.rows.len());
        let begun = Instant::now();
        for (rows, heads) in self.rows.rows.chunks(group).zip(self.heads.rows.chunks(group)) {
            to.execute_batch("BEGIN IMMEDIATE")?;
            for values in rows {
                row.execute(params_from_iter(values))?;
            }
            for values in heads {
                head.execute(params_from_iter(values))?;
            }
            to.execute_batch("COMMIT")?;
        }
        Ok(pairs as f64 / begun.elapsed().as_secs_f64())
    }
}

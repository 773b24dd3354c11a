//! The table of a collection: which columns and indexes it has, how the catalog keeps that, and the SQL that
//! follows from it.

use std::fmt::Write as _;

use bson::{Bson, Document, RawDocument, doc};

use super::error::SqliteError;
use super::sql_functions;
use crate::Error;
use crate::documents::filter::key_encoding;
use crate::documents::{Direction, Filter, Index};

/// The first byte of a column's value that stands for an array.
const ARRAY_RANK: u8 = 0xF0;

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
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, SqliteError> {
        let columns: Vec<Bson> =
            self.columns.iter().map(|c| doc! { "path": &c.path, "arrays": c.arrays }.into()).collect();
        let indexes: Vec<Bson> = self.indexes.iter().map(|i| index_to_document(i).into()).collect();
        let layout = doc! { "columns": columns, "presence": &self.presence, "indexes": indexes };
        layout
            .to_vec()
            .map_err(|e| Error::database("the catalog entry cannot be encoded").caused_by(e).into())
    }

    /// Nothing if the bytes are damaged.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
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

    /// Which of `wanted` are not there yet.
    pub(super) fn missing(&self, wanted: &[Index]) -> Result<Vec<Index>, SqliteError> {
        let mut new: Vec<Index> = Vec::new();
        for index in wanted {
            if index.keys.is_empty() {
                return Err(Error::validation(format!("the index `{}` has no keys", index.name)).into());
            }
            match self.indexes.iter().chain(&new).find(|known| known.name == index.name) {
                Some(known) if known == index => {}
                Some(_) => {
                    let message = format!(
                        "there is an index `{}` already, with other keys or another promise",
                        index.name
                    );
                    return Err(Error::database(message).into());
                }
                None => new.push(index.clone()),
            }
        }
        Ok(new)
    }

    pub(super) fn column(&self, path: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.path == path)
    }

    /// What SQLite calls the columns of an index. One that holds only some documents has the presence of its
    /// path at its end: absent is NULL there, and SQLite takes no NULL for equal to another.
    pub(super) fn index_columns(&self, index: &Index) -> Vec<(String, Direction)> {
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
    pub(super) fn condition(&self, index: &Index) -> Option<String> {
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
    pub(super) fn new(number: i64, layout: Layout) -> Self {
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

    /// The values of the columns and the presences of a document.
    pub(super) fn values(&self, document: &RawDocument) -> Result<Columns, Error> {
        let values = self
            .layout
            .columns
            .iter()
            .map(|column| key_encoding::column_value(document, &column.path))
            .collect::<Result<_, _>>()?;
        let presence = self
            .layout
            .presence
            .iter()
            .map(|path| sql_functions::presence(document, path))
            .collect::<Result<_, _>>()?;
        Ok(Columns { values, presence })
    }

    /// Whether a value is an array where there was none before.
    pub(super) fn has_new_arrays(&self, values: &[Vec<u8>]) -> bool {
        self.layout.columns.iter().zip(values).any(|(column, value)| !column.arrays && is_array(value))
    }
}

/// What a row holds beside the `_id` and the document.
pub(super) struct Columns {
    pub(super) values: Vec<Vec<u8>>,
    pub(super) presence: Vec<Option<i64>>,
}

pub(super) fn is_array(value: &[u8]) -> bool {
    value.first() == Some(&ARRAY_RANK)
}

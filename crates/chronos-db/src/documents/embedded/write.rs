//! Writes: made ready by the caller's task, carried out by the writer, inside a transaction that it holds.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bson::{Bson, RawDocumentBuf, doc};
use rusqlite::OptionalExtension as _;

use super::catalog::Session;
use super::error::SqliteError;
use super::layout::{Columns, Table};
use crate::documents::filter::key_encoding;
use crate::documents::whole;
use crate::documents::{
    Atomicity, Batch, BuildBatch, Guard, Namespace, Numbered, Outcome, Sequence, Write, raw_bson,
};
use crate::{Error, Timestamp};

/// The largest document, as MongoDB has it.
const MAX_DOCUMENT_BYTES: usize = 16 * 1024 * 1024;

/// SQLite's code of a violated unique constraint, and of a violated primary key.
const UNIQUE_VIOLATIONS: [i32; 2] = [2067, 1555];

/// A document with its encoded `_id`: checked off the writer's thread.
struct Row {
    id: Vec<u8>,
    document: RawDocumentBuf,
}

crate::debug_some!(Row {});

enum Change {
    Insert(Row),
    Put(Row, Guard),
    Delete(Vec<u8>, Guard),
}

impl std::fmt::Debug for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Insert(_) => "Insert(..)",
            Self::Put(..) => "Put(..)",
            Self::Delete(..) => "Delete(..)",
        })
    }
}

#[derive(Debug)]
struct Step {
    namespace: Namespace,
    change: Change,
    requires: Option<usize>,
}

/// A checked batch.
#[derive(Debug)]
pub(super) struct Prepared {
    steps: Vec<Step>,
    /// The steps' indexes in the order they are taken: stage by stage.
    order: Vec<usize>,
    atomicity: Atomicity,
    pub(super) bytes: usize,
}

impl Row {
    fn new(document: RawDocumentBuf) -> Result<Self, Error> {
        let id = encode_id(&raw_bson::id(&document)?)?;
        let bytes = document.as_bytes().len();
        if bytes > MAX_DOCUMENT_BYTES {
            return Err(Error::validation(format!(
                "the document has {bytes} bytes; {MAX_DOCUMENT_BYTES} are allowed"
            )));
        }
        Ok(Self { id, document })
    }
}

pub(super) fn encode_id(id: &Bson) -> Result<Vec<u8>, Error> {
    match id {
        Bson::Array(_) | Bson::RegularExpression(_) | Bson::Undefined => {
            Err(Error::validation("an array, a pattern or undefined cannot be an `_id`"))
        }
        id => Ok(key_encoding::encode(id)),
    }
}

fn check(guard: &Guard, put: bool) -> Result<(), Error> {
    match guard {
        Guard::Newer { .. } if !put => Err(Error::validation("a delete cannot be guarded by Newer")),
        Guard::Equals { value: Bson::Array(_), .. } => Err(Error::validation("a guard compares no arrays")),
        _ => Ok(()),
    }
}

impl Prepared {
    /// Checks and encodes a batch.
    pub(super) fn new(batch: Batch) -> Result<Self, Error> {
        let mut steps = Vec::with_capacity(batch.operations.len());
        let mut stages: Vec<usize> = Vec::with_capacity(batch.operations.len());
        let mut bytes = 0;
        for (at, operation) in batch.operations.into_iter().enumerate() {
            let stage = match operation.requires {
                None => 0,
                Some(required) => stages.get(required).map(|stage| stage + 1).ok_or_else(|| {
                    Error::validation(format!(
                        "operation {at} of the batch requires {required}, which is not an earlier one"
                    ))
                })?,
            };
            stages.push(stage);
            let change = match operation.write {
                Write::Insert(document) => Change::Insert(Row::new(document.into_bytes()?)?),
                Write::Put { document, guard } => {
                    check(&guard, true)?;
                    Change::Put(Row::new(document.into_bytes()?)?, guard)
                }
                Write::Delete { id, guard } => {
                    check(&guard, false)?;
                    Change::Delete(encode_id(&id)?, guard)
                }
            };
            if let Change::Insert(row) | Change::Put(row, _) = &change {
                bytes += row.document.as_bytes().len();
            }
            steps.push(Step { namespace: operation.namespace, change, requires: operation.requires });
        }
        let mut order: Vec<usize> = (0..steps.len()).collect();
        order.sort_by_key(|at| stages[*at]);
        Ok(Self { steps, order, atomicity: batch.atomicity, bytes })
    }

    /// Whether SQLite undoes it by itself if it fails, being one statement.
    pub(super) fn is_single(&self) -> bool {
        self.steps.len() <= 1
    }
}

impl Session {
    /// Runs `work` so that nothing of it stays if it fails.
    pub(super) fn within_savepoint<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, SqliteError>,
    ) -> Result<T, SqliteError> {
        self.connection.prepare_cached("SAVEPOINT request")?.execute([])?;
        let done = work(self);
        if done.is_err() {
            self.forget();
            if self.connection.is_autocommit() {
                // SQLite has rolled everything back, savepoint and all.
                return done;
            }
            self.connection.prepare_cached("ROLLBACK TO request")?.execute([])?;
            self.refresh()?;
        }
        self.connection.prepare_cached("RELEASE request")?.execute([])?;
        done
    }

    pub(super) fn apply(&mut self, batch: &Prepared) -> Result<Vec<Outcome>, SqliteError> {
        match batch.atomicity {
            Atomicity::Each => {
                let mut outcomes = vec![Outcome::Skipped; batch.steps.len()];
                for &at in &batch.order {
                    let step = &batch.steps[at];
                    if step.requires.is_none_or(|required| outcomes[required].is_applied()) {
                        outcomes[at] = self.take(step)?;
                    }
                }
                Ok(outcomes)
            }
            Atomicity::All => self.apply_all(batch),
        }
    }

    fn apply_all(&mut self, batch: &Prepared) -> Result<Vec<Outcome>, SqliteError> {
        self.connection.prepare_cached("SAVEPOINT whole")?.execute([])?;
        let mut outcomes = vec![Outcome::Applied; batch.steps.len()];
        for &at in &batch.order {
            let outcome = self.take(&batch.steps[at])?;
            if !outcome.is_applied() {
                outcomes.fill(Outcome::Skipped);
                outcomes[at] = outcome;
                self.forget();
                self.connection.prepare_cached("ROLLBACK TO whole")?.execute([])?;
                self.refresh()?;
                break;
            }
        }
        self.connection.prepare_cached("RELEASE whole")?.execute([])?;
        Ok(outcomes)
    }

    fn take(&mut self, step: &Step) -> Result<Outcome, SqliteError> {
        match &step.change {
            Change::Insert(row) => {
                let table = self.table_or_create(&step.namespace)?;
                self.put(&step.namespace, &table, row, &table.insert, None)
            }
            Change::Put(row, Guard::Any) => {
                let table = self.table_or_create(&step.namespace)?;
                self.put(&step.namespace, &table, row, &table.upsert, None)
            }
            Change::Put(row, Guard::Newer { field }) => {
                let table = self.table_or_create(&step.namespace)?;
                let (new, stored) =
                    (table.value("excluded", field), table.value(&format!("d{}", table.number), field));
                let sql = format!("{} WHERE {new} > {stored}", table.upsert);
                self.put(&step.namespace, &table, row, &sql, None)
            }
            Change::Put(row, Guard::Equals { field, value }) => {
                let Some(table) = self.table(&step.namespace)? else {
                    return Ok(Outcome::Refused);
                };
                let stored = table.value(&format!("d{}", table.number), field);
                let sql = format!(
                    "{} AND {stored}=?{}",
                    table.replace,
                    3 + table.layout.columns.len() + table.layout.presence.len()
                );
                self.put(&step.namespace, &table, row, &sql, Some(key_encoding::encode(value)))
            }
            Change::Delete(id, guard) => {
                let Some(table) = self.table(&step.namespace)? else {
                    return Ok(if *guard == Guard::Any { Outcome::Applied } else { Outcome::Refused });
                };
                if let Guard::Equals { field, value } = guard {
                    let stored = table.value(&format!("d{}", table.number), field);
                    let sql = format!("{} AND {stored}=?2", table.delete);
                    let changed = self.statement(&sql)?.execute((id, key_encoding::encode(value)))?;
                    return Ok(if changed > 0 { Outcome::Applied } else { Outcome::Refused });
                }
                self.statement(&table.delete)?.execute([id])?;
                Ok(Outcome::Applied)
            }
        }
    }

    /// Carries out `sql`, whose parameters are the columns of `row` in the table's order and then `more`.
    fn put(
        &mut self,
        namespace: &Namespace,
        table: &Table,
        row: &Row,
        sql: &str,
        more: Option<Vec<u8>>,
    ) -> Result<Outcome, SqliteError> {
        let Columns { values, presence } = table.values(&row.document)?;
        if table.has_new_arrays(&values) {
            // Before the row, so that no failure in between leaves an array unnoticed.
            self.note_arrays(namespace, table, &values)?;
        }
        let changed = {
            let mut statement = self.statement(sql)?;
            statement.raw_bind_parameter(1, &row.id)?;
            let mut at = 2;
            for value in &values {
                statement.raw_bind_parameter(at, value)?;
                at += 1;
            }
            for value in presence {
                statement.raw_bind_parameter(at, value)?;
                at += 1;
            }
            statement.raw_bind_parameter(at, row.document.as_bytes())?;
            if let Some(more) = more {
                statement.raw_bind_parameter(at + 1, more)?;
            }
            statement.raw_execute()
        };
        match changed {
            Ok(0) => Ok(Outcome::Refused),
            Ok(_) => Ok(Outcome::Applied),
            Err(error) => {
                let violated = match &error {
                    rusqlite::Error::SqliteFailure(code, Some(message))
                        if UNIQUE_VIOLATIONS.contains(&code.extended_code) =>
                    {
                        table.violated(message)
                    }
                    _ => return Err(error.into()),
                };
                // An insert may violate several at once; that of the `_id` says the most.
                let same_id = sql == table.insert && self.statement(&table.select)?.exists([&row.id])?;
                Ok(Outcome::Conflict { index: if same_id { Some("_id_".to_owned()) } else { violated } })
            }
        }
    }

    /// Gives out the next numbers, then applies what `build` makes of them.
    pub(super) fn sequence(
        &mut self,
        namespace: &Namespace,
        name: &str,
        count: u32,
        now: Timestamp,
        build: Option<BuildBatch>,
    ) -> Result<Numbered, SqliteError> {
        let table = self.table_or_create(namespace)?;
        let id = encode_id(&Bson::String(name.to_owned()))?;
        let stored: Option<Vec<u8>> =
            self.statement(&table.select)?.query_row([&id], |row| row.get(0)).optional()?;
        let mut document = match stored {
            Some(bytes) => raw_bson::decode(raw_bson::framed(&bytes)?)?,
            None => doc! { "_id": name },
        };
        let wrong = |what: &str| Error::database(format!("the sequence `{name}` in {namespace:?} {what}"));
        let last = match document.get("value") {
            None => -1,
            Some(value) => whole(value).ok_or_else(|| wrong("has a value that is not a whole number"))?,
        };
        let value = last.checked_add(i64::from(count)).ok_or_else(|| wrong("has reached its end"))?;
        document.insert("value", value);
        match self.put(namespace, &table, &Row::new(raw_bson::encode(&document)?)?, &table.upsert, None)? {
            Outcome::Applied => {}
            _ => return Err(wrong("violates a unique index").into()),
        }
        let given = Sequence { first: last + 1, count, now };
        let Some(build) = build else { return Ok(Numbered { sequence: given, outcomes: Vec::new() }) };
        // The writer serves everybody; a panic of one caller's closure must not end it.
        let built = catch_unwind(AssertUnwindSafe(|| build(given)));
        let batch = built.map_err(|_| {
            Error::database("the function that builds the batch panicked; nothing was written")
        })??;
        let outcomes = self.apply(&Prepared::new(batch)?)?;
        Ok(Numbered { sequence: given, outcomes })
    }
}

//! What the document store holds in the end, as the log that it is.

use std::collections::BTreeMap;

use bson::Document;
use chronos_db::Result;
use chronos_db::documents::{DocumentStore, Namespace, Scan};
use futures::TryStreamExt as _;

use crate::machine::{COLLECTION, DATABASE};

/// A version row.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// The item.
    pub item: String,
    /// Its version.
    pub ov: i64,
    /// The collection's.
    pub cv: i64,
    /// What it did.
    pub op: String,
    /// When.
    pub at: i64,
    /// The operation that made it; of what was erased nobody knows.
    pub by: Option<i64>,
    /// What it did before it was erased.
    pub was: Option<String>,
    /// Whose payload it has.
    pub payload_ov: i64,
    /// Where its payload lies, or will.
    pub keys: Vec<String>,
    /// It has yet to be stored.
    pub waits: bool,
}

fn number(document: &Document, field: &str) -> i64 {
    let value = document.get(field);
    value.and_then(|value| value.as_i64().or_else(|| value.as_i32().map(i64::from))).unwrap_or(-1)
}

fn text(document: &Document, field: &str) -> Option<String> {
    document.get_str(field).ok().map(str::to_owned)
}

impl Row {
    fn of(document: &Document) -> Self {
        let ov = number(document, "ov");
        let payload_ov = number(document, "payloadOv");
        Self {
            item: document.get_object_id("itemId").map(|id| id.to_hex()).unwrap_or_default(),
            ov,
            cv: number(document, "cv"),
            op: text(document, "op").unwrap_or_default(),
            at: document.get_datetime("at").map_or(0, |at| at.timestamp_millis()),
            by: document.get_str("actor").ok().and_then(|actor| actor.strip_prefix("op-")?.parse().ok()),
            was: text(document, "counts"),
            payload_ov: if payload_ov < 0 { ov } else { payload_ov },
            keys: text(document, "jsonKey").into_iter().collect(),
            waits: document.contains_key("unflushedSince"),
        }
    }

    /// Whether it has no content.
    #[must_use]
    pub(crate) fn is_bare(&self) -> bool {
        matches!(self.op.as_str(), "ERASE" | "ERASED" | "VOID")
    }

    /// Whether it takes, or took, the item away.
    #[must_use]
    pub(crate) fn deletes(&self) -> bool {
        self.op == "DELETE" || self.was.as_deref() == Some("DELETE")
    }
}

/// The rows of the collection.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// In the order of their numbers in the collection.
    pub rows: Vec<Row>,
    /// Of each item, in the order of its versions.
    pub items: BTreeMap<String, Vec<Row>>,
    /// The notes of objects that may have to go.
    pub notes: Vec<String>,
    /// The last number given out.
    pub counter: i64,
}

async fn all(documents: &dyn DocumentStore, kind: &str) -> Result<Vec<Document>> {
    let namespace = Namespace::new(DATABASE, format!("{COLLECTION}_{kind}").as_str());
    documents.scan(&namespace, Scan::default()).try_collect().await
}

impl Log {
    /// Reads it.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn read(documents: &dyn DocumentStore) -> Result<Self> {
        let mut rows: Vec<Row> = all(documents, "ver").await?.iter().map(Row::of).collect();
        rows.sort_by_key(|row| row.cv);
        let mut items: BTreeMap<String, Vec<Row>> = BTreeMap::new();
        for row in rows.iter().filter(|row| row.op != "VOID") {
            items.entry(row.item.clone()).or_default().push(row.clone());
        }
        for rows in items.values_mut() {
            rows.sort_by_key(|row| row.ov);
        }
        let notes = all(documents, "gc").await?;
        let notes = notes.iter().map(|note| note.get("_id").map(ToString::to_string).unwrap_or_default());
        let counters = all(documents, "counter").await?;
        let counter = counters.iter().find(|counter| matches!(counter.get_str("_id"), Ok("cv")));
        let counter = counter.map_or(-1, |counter| number(counter, "value"));
        Ok(Self { rows, items, notes: notes.collect(), counter })
    }

    /// The row of a version.
    #[must_use]
    pub(crate) fn row(&self, item: &str, ov: i64) -> Option<&Row> {
        self.items.get(item)?.iter().find(|row| row.ov == ov)
    }

    /// Whether the item was erased.
    #[must_use]
    pub(crate) fn is_erased(&self, item: &str) -> bool {
        self.items.get(item).is_some_and(|rows| rows.iter().any(|row| row.op == "ERASE"))
    }

    /// The operation whose document a version has.
    #[must_use]
    pub(crate) fn content(&self, item: &str, ov: i64) -> Option<i64> {
        let row = self.row(item, ov)?;
        match row.op.as_str() {
            "CREATE" | "UPDATE" => row.by,
            "DELETE" | "RESTORE" if row.payload_ov < ov => self.content(item, row.payload_ov),
            _ => None,
        }
    }
}

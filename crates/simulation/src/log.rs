//! What the document store holds in the end, as the log that it is.

use std::collections::BTreeMap;
use std::io::Read as _;

use bson::{Bson, Document};
use chronos_db::Result;
use chronos_db::documents::{DocumentStore, Namespace, Scan};
use chronos_db::objects::ObjectStorage as _;
use chronos_db::{Error, Json, json_to_bson};
use flate2::read::MultiGzDecoder;
use futures::TryStreamExt as _;

use crate::setting::{COLLECTION, DATABASE};
use crate::world::World;

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
    /// Whose it is, where tenants share the database.
    pub tenant: Option<String>,
    /// The rules of counters that count it, where its document is gone.
    pub rules: Vec<String>,
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
            tenant: text(document, "tenantId"),
            rules: document.get_array("rules").map_or_else(
                |_| Vec::new(),
                |rules| rules.iter().filter_map(|rule| rule.as_str().map(str::to_owned)).collect(),
            ),
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
    /// The objects of the manifests that are in use, or were until readers have ended.
    pub manifests: Vec<String>,
    /// What is said twice, and not the same.
    pub contradictions: Vec<String>,
}

async fn all(documents: &dyn DocumentStore, kind: &str) -> Result<Vec<Document>> {
    let namespace = Namespace::new(DATABASE, format!("{COLLECTION}_{kind}").as_str());
    documents.scan(&namespace, Scan::default()).try_collect().await
}

/// The rows of a manifest.
async fn unpacked(world: &World, key: &str) -> Result<Vec<Row>> {
    let missing = || Error::storage(format!("the manifest {key} is in use, and not there"));
    let packed = world.objects.get(key).await?.ok_or_else(missing)?;
    let mut lines = String::new();
    let read = MultiGzDecoder::new(&packed[..]).read_to_string(&mut lines);
    read.map_err(|error| Error::storage(format!("the manifest {key} is damaged: {error}")))?;
    let mut rows = Vec::new();
    for line in lines.lines() {
        let line = Json::parse(line.as_bytes()).map_err(|error| Error::storage(error.to_string()))?;
        match json_to_bson(&line)? {
            Bson::Document(document) => rows.push(Row::of(&document)),
            _ => return Err(Error::storage(format!("the manifest {key} has a line that is not a row"))),
        }
    }
    Ok(rows)
}

impl Log {
    /// Reads it.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn read(world: &World) -> Result<Self> {
        let documents = &*world.documents;
        let mut log = Self::default();
        let mut rows: BTreeMap<i64, Row> = BTreeMap::new();
        for row in all(documents, "ver").await?.iter().map(Row::of) {
            if let Some(other) = rows.insert(row.cv, row.clone()) {
                log.contradictions.push(format!("{row:?} and {other:?}"));
            }
        }
        let kept = all(documents, "manifests").await?;
        let live = kept.iter().find(|entry| matches!(entry.get_str("_id"), Ok("live")));
        let in_use = live.and_then(|live| live.get_array("manifests").ok()).map_or(&[][..], Vec::as_slice);
        for used in in_use.iter().filter_map(Bson::as_document) {
            let entry = kept.iter().find(|entry| entry.get("_id") == used.get("id"));
            let Some(key) = entry.and_then(|entry| text(entry, "key")) else {
                log.contradictions.push(format!("a manifest is in use and has no entry: {used:?}"));
                continue;
            };
            for row in unpacked(world, &key).await? {
                let known = rows.entry(row.cv).or_insert_with(|| row.clone());
                if (&known.item, known.ov, known.at) != (&row.item, row.ov, row.at) {
                    log.contradictions.push(format!("{known:?} and, in a manifest, {row:?}"));
                }
            }
            log.manifests.push(key);
        }
        let retired = live.and_then(|live| live.get_array("retired").ok()).map_or(&[][..], Vec::as_slice);
        let retired = retired.iter().filter_map(|used| text(used.as_document()?, "key"));
        log.manifests.extend(retired);
        for row in rows.values().filter(|row| row.op != "VOID") {
            log.items.entry(row.item.clone()).or_default().push(row.clone());
        }
        for rows in log.items.values_mut() {
            rows.sort_by_key(|row| row.ov);
        }
        log.rows = rows.into_values().collect();
        let notes = all(documents, "gc").await?;
        log.notes =
            notes.iter().map(|note| note.get("_id").map(ToString::to_string).unwrap_or_default()).collect();
        let counters = all(documents, "counter").await?;
        let counter = counters.iter().find(|counter| matches!(counter.get_str("_id"), Ok("cv")));
        log.counter = counter.map_or(-1, |counter| number(counter, "value"));
        Ok(log)
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

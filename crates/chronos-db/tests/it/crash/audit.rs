//! What the next process must find: every acknowledged version, no other one by half.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use bson::Document;
use chronos_db::documents::{Direction, Namespace, Scan};
use chronos_db::{ItemId, Json as Value, Timestamp, View, json};
use futures::TryStreamExt as _;

use super::places::{COLLECTION, Opened, Place};
use super::workload::{Doc, digest, filler};

/// Longer than it takes to store what the victims left, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The attempts and answers of all victims.
#[derive(Debug, Default)]
pub(super) struct Told {
    tried: BTreeMap<String, String>,
    acknowledged: BTreeMap<String, Value>,
}

impl Told {
    pub(super) fn read(ledgers: &[&Path]) -> Self {
        let mut told = Self::default();
        for ledger in ledgers {
            for line in std::fs::read_to_string(ledger).unwrap_or_default().lines() {
                // The last line of a killed writer may be cut: then it is an answer that nobody heard.
                let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
                if let Some(request) = line["try"].as_str() {
                    told.tried.insert(request.to_owned(), line["op"].as_str().unwrap().to_owned());
                } else if let Some(request) = line["ack"].as_str() {
                    assert!(told.acknowledged.insert(request.to_owned(), line.clone()).is_none(), "{request} was answered twice");
                }
            }
        }
        told
    }

    pub(super) fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }
}

/// One row, as far as the audit needs it.
#[derive(Clone, Debug)]
struct Row {
    id: ItemId,
    ov: i64,
    cv: i64,
    at: i64,
    op: String,
    request: Option<String>,
    payload_ov: i64,
    raw: Document,
}

fn number(doc: &Document, key: &str) -> i64 {
    doc.get_i64(key).or_else(|_| doc.get_i32(key).map(i64::from)).unwrap_or_else(|_| panic!("{key} in {doc:?}"))
}

async fn rows(opened: &Opened) -> Vec<Row> {
    let namespace = Namespace::new(opened.things.database(), format!("{COLLECTION}_ver"));
    let scan = Scan { order: vec![("cv".into(), Direction::Ascending)], ..Scan::default() };
    let found: Vec<Document> = opened.documents.scan(&namespace, scan).try_collect().await.unwrap();
    found
        .into_iter()
        .map(|raw| Row {
            id: raw.get_object_id("itemId").unwrap().to_hex().parse().unwrap(),
            ov: number(&raw, "ov"),
            cv: number(&raw, "cv"),
            at: raw.get_datetime("at").unwrap().timestamp_millis(),
            op: raw.get_str("op").unwrap().to_owned(),
            request: raw.get_str("requestId").ok().map(str::to_owned),
            payload_ov: if raw.contains_key("payloadOv") { number(&raw, "payloadOv") } else { number(&raw, "ov") },
            raw,
        })
        .collect()
}

fn document(view: &View) -> Doc {
    let document = view.document();
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    document.as_object().unwrap().iter().map(|(key, value)| (key.clone(), text(value))).collect()
}

/// Repairs, then checks everything that was promised; then writes every item again.
pub(super) async fn audit(place: &Place, told: &Told, what: &str) {
    let opened = place.open_alone();
    let things = &opened.things;
    let repaired = things.verify().repair().await.unwrap();
    assert!(repaired.is_clean(), "{what}: {:?}", repaired.problems);
    assert_eq!(things.drain(PATIENCE).await.unwrap(), 0, "{what}: versions are left to store");
    things.collect_orphans(Timestamp::from_millis(i64::MAX / 2)).await.unwrap();

    let rows = rows(&opened).await;
    if !rows.is_empty() {
        check_numbers(&opened, &rows, what, place.erasing).await;
    }
    let by_item = check_items(&rows, what, place.erasing);
    check_answers(told, &rows, &by_item, what);
    check_contents(&opened, told, &by_item, what).await;
    check_objects(&opened, &rows, what).await;

    write_on(&opened, &by_item, what).await;
    assert_eq!(things.drain(PATIENCE).await.unwrap(), 0, "{what}: later versions are left to store");
    let verified = things.verify().await.unwrap();
    assert!(verified.is_clean(), "{what}, after writing on: {:?}", verified.problems);
    assert_eq!((verified.unflushed, verified.noted), (0, 0), "{what}");
    opened.chronos.shutdown().await.unwrap();
}

async fn check_numbers(opened: &Opened, rows: &[Row], what: &str, erasing: bool) {
    let stable = opened.things.stable_cv().await.unwrap();
    let counter = Namespace::new(opened.things.database(), format!("{COLLECTION}_counter"));
    let counter = opened.documents.get(&counter, vec!["cv".into()]).await.unwrap();
    assert_eq!(stable, number(&counter[0], "value"), "{what}: every number given out is settled");
    let numbers: Vec<i64> = rows.iter().map(|row| row.cv).collect();
    if erasing {
        // Erased rows took their numbers with them.
        assert!(numbers.is_sorted_by(|a, b| a < b), "{what}: {numbers:?}");
    } else {
        assert_eq!(numbers, (0..=stable).collect::<Vec<_>>(), "{what}: every number has exactly one row");
    }
}

type ByItem = BTreeMap<ItemId, Vec<Row>>;

fn check_items(rows: &[Row], what: &str, erasing: bool) -> ByItem {
    let mut by_item = ByItem::new();
    for row in rows {
        assert!(!row.raw.contains_key("inline") && !row.raw.contains_key("unflushedSince"), "{what}: {row:?} is not stored");
        if row.op == "VOID" {
            assert_eq!(row.ov, -1, "{what}");
        } else {
            by_item.entry(row.id).or_default().push(row.clone());
        }
    }
    for versions in by_item.values_mut() {
        // They come by cv, so both grow together.
        let numbers: Vec<i64> = versions.iter().map(|row| row.ov).collect();
        let is_erased = erasing && versions.iter().any(|row| row.op == "ERASE");
        if is_erased {
            assert_eq!(versions.len(), 1, "{what}: an erased item has one row: {versions:?}");
        } else {
            assert_eq!(numbers, (0..i64::try_from(versions.len()).unwrap()).collect::<Vec<_>>(), "{what}: versions without holes");
        }
        assert!(versions.is_sorted_by(|a, b| a.at < b.at), "{what}: times grow: {versions:?}");
    }
    by_item
}

fn check_answers(told: &Told, rows: &[Row], by_item: &ByItem, what: &str) {
    let mut seen = BTreeMap::new();
    for row in rows.iter().filter(|row| row.op != "VOID") {
        let request = row.request.as_deref().unwrap_or_else(|| panic!("{what}: {row:?} was asked for by nobody"));
        if let Some(op) = told.tried.get(request) {
            assert!(seen.insert(request, row).is_none(), "{what}: {request} ({op}) was carried out twice");
        } else {
            assert!(request.starts_with("audit"), "{what}: nobody tried {request}");
        }
    }
    for (request, ack) in &told.acknowledged {
        if ack["changed"] == false {
            continue;
        }
        let id: ItemId = ack["id"].as_str().unwrap().parse().unwrap();
        let versions = by_item.get(&id).unwrap_or_else(|| panic!("{what}: the item of {ack} is gone"));
        if versions[0].op == "ERASE" {
            assert!(ack["ov"].as_i64().unwrap() <= versions[0].ov, "{what}: {ack}");
            continue;
        }
        let row = seen.get(request.as_str()).unwrap_or_else(|| panic!("{what}: the acknowledged version {ack} is lost"));
        let found = json!([row.id.to_string(), row.ov, row.cv, row.at]);
        assert_eq!(found, json!([ack["id"], ack["ov"], ack["cv"], ack["at"]]), "{what}: {request}");
    }
}

async fn check_contents(opened: &Opened, told: &Told, by_item: &ByItem, what: &str) {
    for (id, versions) in by_item {
        if versions[0].op == "ERASE" {
            assert!(opened.things.get(id).include_deleted().await.unwrap().is_none(), "{what}: {id} is erased");
            continue;
        }
        let mut documents: Vec<Doc> = Vec::new();
        for row in versions {
            // Reading checks the SHA-256.
            let view = opened.things.get(id).version(row.ov).include_deleted().await.unwrap().unwrap();
            let found = document(&view);
            let tag = found.get("tag").unwrap();
            let request = row.request.as_deref().unwrap();
            if matches!(row.op.as_str(), "DELETE" | "RESTORE") {
                assert_eq!(found, documents[usize::try_from(row.payload_ov).unwrap()], "{what}: {id} v{} shares its payload", row.ov);
            } else {
                assert_eq!(tag, request, "{what}: {id} v{} has its own content", row.ov);
            }
            assert_eq!(found["body"], filler(tag, found["body"].len()), "{what}: {id} v{} is whole", row.ov);
            if let Some(expected) = told.acknowledged.get(request).and_then(|ack| ack["digest"].as_str()) {
                assert_eq!(digest(&found), expected, "{what}: {id} v{} is what was acknowledged: {found:?}", row.ov);
            }
            if let Some(reference) = found.get("file") {
                let reference: Value = Value::parse(reference).unwrap();
                for key in ["blobKey", "textKey"] {
                    let bytes = opened.bucket.get(reference["ref"][key].as_str().unwrap()).await.unwrap();
                    assert_eq!(bytes.unwrap(), filler(&found["fileTag"], 120), "{what}: {id} v{} has its file", row.ov);
                }
            }
            documents.push(found);
        }
        let last = versions.last().unwrap();
        let head = opened.things.get(id).include_deleted().await.unwrap().unwrap();
        assert_eq!((head.ov, head.cv, head.at.as_millis()), (last.ov, last.cv, last.at), "{what}: the head of {id} follows its rows");
        assert_eq!(head.deleted_at.is_some(), last.op == "DELETE", "{what}: {id}");
    }
}

/// Nothing lies in the bucket that no version names, and nothing named is missing.
async fn check_objects(opened: &Opened, rows: &[Row], what: &str) {
    let mut named = BTreeSet::new();
    for row in rows.iter().filter(|row| row.raw.contains_key("jsonKey")) {
        named.insert(row.raw.get_str("jsonKey").unwrap().to_owned());
        for blob in row.raw.get_array("refs").into_iter().flatten() {
            let blob = blob.as_document().unwrap();
            named.extend(["blobKey", "textKey"].iter().filter_map(|key| blob.get_str(key).ok().map(str::to_owned)));
        }
    }
    let stored: BTreeSet<String> = opened.bucket.list("").map_ok(|object| object.key).try_collect().await.unwrap();
    assert_eq!(stored.difference(&named).collect::<Vec<_>>(), Vec::<&String>::new(), "{what}: objects that no version names");
    assert_eq!(named.difference(&stored).collect::<Vec<_>>(), Vec::<&String>::new(), "{what}: missing objects");
}

async fn write_on(opened: &Opened, by_item: &ByItem, what: &str) {
    let things = &opened.things;
    let writes = by_item.iter().filter(|(_, versions)| versions[0].op != "ERASE").map(|(id, versions)| async move {
        let last = versions.last().unwrap();
        let request = format!("audit.{what}.{id}.{}", last.ov);
        let written = if last.op == "DELETE" {
            things.restore(id).to_version(0).request_id(request).await
        } else {
            things.replace(id, json!({ "tag": &request, "body": filler(&request, 50) })).request_id(request).await
        };
        assert_eq!(written.unwrap().ov, last.ov + 1, "{what}");
    });
    futures::future::join_all(writes).await;
}

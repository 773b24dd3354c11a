//! What the next process must find: every acknowledged version, no other one by half.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use bson::Document;
use chronos_db::documents::{Batch, Direction, Guard, Namespace, Scan, Write};
use chronos_db::{ItemId, Json as Value, View, json};
use futures::TryStreamExt as _;

use super::sites::{COLLECTION, Site, SiteHandle};
use super::workload::{Doc, digest, filler};

/// Longer than it takes to store what the victims left, also on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(120);

/// The attempts and answers of all victims.
#[derive(Debug, Default)]
pub(super) struct Reported {
    tried: BTreeMap<String, String>,
    acknowledged: BTreeMap<String, Value>,
}

impl Reported {
    pub(super) fn read(ledgers: &[&Path]) -> Self {
        let mut reported = Self::default();
        for ledger in ledgers {
            for line in std::fs::read_to_string(ledger).unwrap_or_default().lines() {
                // The last line of a killed writer may be cut: then it is an answer that nobody heard.
                let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
                if let Some(request) = line["try"].as_str() {
                    reported.tried.insert(request.to_owned(), line["op"].as_str().unwrap().to_owned());
                } else if let Some(request) = line["ack"].as_str() {
                    assert!(
                        reported.acknowledged.insert(request.to_owned(), line.clone()).is_none(),
                        "{request} was answered twice"
                    );
                }
            }
        }
        reported
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
    doc.get_i64(key)
        .or_else(|_| doc.get_i32(key).map(i64::from))
        .unwrap_or_else(|_| panic!("{key} in {doc:?}"))
}

async fn rows(opened: &SiteHandle) -> Vec<Row> {
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
            payload_ov: if raw.contains_key("payloadOv") {
                number(&raw, "payloadOv")
            } else {
                number(&raw, "ov")
            },
            raw,
        })
        .collect()
}

fn document(view: &View) -> Doc {
    let document = view.document();
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    document.as_object().unwrap().iter().map(|(key, value)| (key.clone(), text(value))).collect()
}

/// Checks that everything acknowledged is there; then repairs, and checks everything else that was promised;
/// then writes every item again.
pub(super) async fn audit(site: &Site, reported: &Reported, what: &str) {
    // By a process of its own: the first look at a collection must find everything, whatever a second one
    // would.
    let looking = site.open_alone();
    check_acknowledged(&looking, reported, what, site.erasing).await;
    looking.chronos.shutdown().await.unwrap();

    let opened = site.open_alone();
    let things = &opened.things;
    let repaired = things.verify().repair().await.unwrap();
    assert!(repaired.is_clean(), "{what}: {:?}", repaired.problems);
    assert_eq!(things.flush(TIMEOUT).await.unwrap(), 0, "{what}: versions are left to store");
    things.collect_orphans(Duration::ZERO).await.unwrap();

    let rows = rows(&opened).await;
    if !rows.is_empty() {
        check_numbers(&opened, &rows, what).await;
    }
    let by_item = check_items(&rows, what, site.erasing);
    check_answers(reported, &rows, &by_item, what);
    check_contents(&opened, reported, &by_item, what).await;
    check_objects(&opened, &rows, what, site.erasing).await;

    write_on(&opened, &by_item, what).await;
    assert_eq!(things.flush(TIMEOUT).await.unwrap(), 0, "{what}: later versions are left to store");
    let verified = things.verify().await.unwrap();
    assert!(verified.is_clean(), "{what}, after writing on: {:?}", verified.problems);
    assert_eq!((verified.unflushed, verified.noted), (0, 0), "{what}");
    opened.chronos.shutdown().await.unwrap();
}

/// The answers that every client got, before anything is repaired: every acknowledged version is read as it was
/// acknowledged, unless its item was erased, and of what was erased nothing is.
async fn check_acknowledged(opened: &SiteHandle, reported: &Reported, what: &str, erasing: bool) {
    let things = &opened.things;
    let mut newest: BTreeMap<ItemId, i64> = BTreeMap::new();
    let mut erased: BTreeSet<ItemId> = BTreeSet::new();
    for row in rows(opened).await {
        if row.op == "ERASE" {
            erased.insert(row.id);
        }
    }
    for (request, ack) in reported.acknowledged.iter().filter(|(_, ack)| ack["changed"] == true) {
        let (id, ov): (ItemId, _) =
            (ack["id"].as_str().unwrap().parse().unwrap(), ack["ov"].as_i64().unwrap());
        let newest = newest.entry(id).or_insert(ov);
        *newest = ov.max(*newest);
        let found = things.get(&id).version(ov).include_deleted().await.unwrap();
        if erased.contains(&id) {
            let is_known = reported.acknowledged.iter().any(|(other, erasure)| {
                erasing
                    && erasure["id"] == ack["id"]
                    && reported.tried.get(other).is_some_and(|op| op == "delete")
            });
            // Of an erasure that was not acknowledged, both is right until its head is there.
            assert!(!is_known || found.is_none(), "{what}: version {ov} of the erased {id} is read");
            continue;
        }
        let found = found.unwrap_or_else(|| panic!("{what}: the acknowledged version {ack} cannot be read"));
        assert_eq!(
            json!([found.cv, found.at.as_millis()]),
            json!([ack["cv"], ack["at"]]),
            "{what}: {request}"
        );
        if let Some(expected) = ack["digest"].as_str() {
            assert_eq!(digest(&document(&found)), expected, "{what}: {request} is not what was acknowledged");
        }
    }
    for (id, ov) in newest {
        match things.get(&id).include_deleted().await.unwrap() {
            Some(latest) => assert!(
                latest.ov >= ov,
                "{what}: {id} is shown at version {}, and {ov} was acknowledged",
                latest.ov
            ),
            None => assert!(
                erased.contains(&id),
                "{what}: {id}, of which version {ov} was acknowledged, is not found"
            ),
        }
    }
}

async fn check_numbers(opened: &SiteHandle, rows: &[Row], what: &str) {
    let stable = opened.things.stable_cv().await.unwrap();
    let counter = Namespace::new(opened.things.database(), format!("{COLLECTION}_counter"));
    let counter = opened.documents.get(&counter, vec!["cv".into()]).await.unwrap();
    assert_eq!(stable, number(&counter[0], "value"), "{what}: every number given out is settled");
    let numbers: Vec<i64> = rows.iter().map(|row| row.cv).collect();
    assert_eq!(numbers, (0..=stable).collect::<Vec<_>>(), "{what}: every number has exactly one row");
}

/// What an erased version keeps.
const STUB: [&str; 9] = ["_id", "itemId", "ov", "cv", "op", "at", "prevOv", "counts", "rules"];

type ByItem = BTreeMap<ItemId, Vec<Row>>;

fn check_items(rows: &[Row], what: &str, erasing: bool) -> ByItem {
    let mut by_item = ByItem::new();
    for row in rows {
        assert!(
            !row.raw.contains_key("inline") && !row.raw.contains_key("unflushedSince"),
            "{what}: {row:?} is not stored"
        );
        if row.op == "VOID" {
            assert_eq!(row.ov, -1, "{what}");
        } else {
            by_item.entry(row.id).or_default().push(row.clone());
        }
    }
    for versions in by_item.values_mut() {
        // They come by cv, so both grow together.
        let numbers: Vec<i64> = versions.iter().map(|row| row.ov).collect();
        assert_eq!(
            numbers,
            (0..i64::try_from(versions.len()).unwrap()).collect::<Vec<_>>(),
            "{what}: versions without holes"
        );
        if versions.iter().any(|row| row.op == "ERASE") {
            let (last, others) = versions.split_last().unwrap();
            assert!(
                erasing && last.op == "ERASE" && others.iter().all(|row| row.op == "ERASED"),
                "{what}: an erased item: {versions:?}"
            );
            for row in others {
                assert!(
                    row.raw.keys().all(|name| STUB.contains(&name.as_str())),
                    "{what}: of an erased version numbers are left: {row:?}"
                );
            }
        } else {
            assert!(
                versions.iter().all(|row| row.op != "ERASED"),
                "{what}: erased without an erasure: {versions:?}"
            );
        }
        assert!(versions.is_sorted_by(|a, b| a.at < b.at), "{what}: times grow: {versions:?}");
    }
    by_item
}

fn is_erased(versions: &[Row]) -> bool {
    versions.last().is_some_and(|row| row.op == "ERASE")
}

fn check_answers(reported: &Reported, rows: &[Row], by_item: &ByItem, what: &str) {
    let mut seen = BTreeMap::new();
    for row in rows.iter().filter(|row| !matches!(row.op.as_str(), "VOID" | "ERASED")) {
        let request =
            row.request.as_deref().unwrap_or_else(|| panic!("{what}: {row:?} was asked for by nobody"));
        if let Some(op) = reported.tried.get(request) {
            assert!(seen.insert(request, row).is_none(), "{what}: {request} ({op}) was carried out twice");
        } else {
            assert!(request.starts_with("audit"), "{what}: nobody tried {request}");
        }
    }
    for (request, ack) in &reported.acknowledged {
        if ack["changed"] == false {
            continue;
        }
        let id: ItemId = ack["id"].as_str().unwrap().parse().unwrap();
        let versions = by_item.get(&id).unwrap_or_else(|| panic!("{what}: the item of {ack} is gone"));
        if is_erased(versions) {
            let row = versions
                .iter()
                .find(|row| row.ov == ack["ov"])
                .unwrap_or_else(|| panic!("{what}: the number of {ack} is free"));
            assert_eq!(json!([row.cv, row.at]), json!([ack["cv"], ack["at"]]), "{what}: {request}");
            continue;
        }
        let row = seen
            .get(request.as_str())
            .unwrap_or_else(|| panic!("{what}: the acknowledged version {ack} is lost"));
        let found = json!([row.id.to_string(), row.ov, row.cv, row.at]);
        assert_eq!(found, json!([ack["id"], ack["ov"], ack["cv"], ack["at"]]), "{what}: {request}");
    }
}

async fn check_contents(opened: &SiteHandle, reported: &Reported, by_item: &ByItem, what: &str) {
    for (id, versions) in by_item {
        if is_erased(versions) {
            assert!(
                opened.things.get(id).include_deleted().await.unwrap().is_none(),
                "{what}: {id} is erased"
            );
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
                assert_eq!(
                    found,
                    documents[usize::try_from(row.payload_ov).unwrap()],
                    "{what}: {id} v{} shares its payload",
                    row.ov
                );
            } else {
                assert_eq!(tag, request, "{what}: {id} v{} has its own content", row.ov);
            }
            assert_eq!(found["body"], filler(tag, found["body"].len()), "{what}: {id} v{} is whole", row.ov);
            if let Some(expected) = reported.acknowledged.get(request).and_then(|ack| ack["digest"].as_str())
            {
                assert_eq!(
                    digest(&found),
                    expected,
                    "{what}: {id} v{} is what was acknowledged: {found:?}",
                    row.ov
                );
            }
            if let Some(reference) = found.get("file") {
                let reference: Value = Value::parse(reference).unwrap();
                for key in ["blobKey", "textKey"] {
                    let bytes = opened.bucket.get(reference["ref"][key].as_str().unwrap()).await.unwrap();
                    assert_eq!(
                        bytes.unwrap(),
                        filler(&found["fileTag"], 120),
                        "{what}: {id} v{} has its file",
                        row.ov
                    );
                }
            }
            documents.push(found);
        }
        let last = versions.last().unwrap();
        let head = opened.things.get(id).include_deleted().await.unwrap().unwrap();
        assert_eq!(
            (head.ov, head.cv, head.at.as_millis()),
            (last.ov, last.cv, last.at),
            "{what}: the head of {id} follows its rows"
        );
        assert_eq!(head.deleted_at.is_some(), last.op == "DELETE", "{what}: {id}");
    }
}

/// Nothing lies in the bucket that no version names, and nothing named is missing.
async fn check_objects(opened: &SiteHandle, rows: &[Row], what: &str, erasing: bool) {
    let mut named = BTreeSet::new();
    for row in rows.iter().filter(|row| row.raw.contains_key("jsonKey")) {
        named.insert(row.raw.get_str("jsonKey").unwrap().to_owned());
        for blob in row.raw.get_array("refs").into_iter().flatten() {
            let blob = blob.as_document().unwrap();
            named.extend(
                ["blobKey", "textKey"].iter().filter_map(|key| blob.get_str(key).ok().map(str::to_owned)),
            );
        }
    }
    let mut stored = keys(opened).await;
    if erasing && stored.difference(&named).next().is_some() {
        look_again_at_what_was_erased(opened).await;
        stored = keys(opened).await;
    }
    assert_eq!(
        stored.difference(&named).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "{what}: objects that no version names"
    );
    assert_eq!(
        named.difference(&stored).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "{what}: missing objects"
    );
}

async fn write_on(opened: &SiteHandle, by_item: &ByItem, what: &str) {
    let things = &opened.things;
    let writes =
        by_item.iter().filter(|(_, versions)| !is_erased(versions)).map(|(id, versions)| async move {
            let last = versions.last().unwrap();
            let request = format!("audit.{what}.{id}.{}", last.ov);
            let written = if last.op == "DELETE" {
                things.restore(id).to_version(0).request_id(request).await
            } else {
                things
                    .replace(id, json!({ "tag": &request, "body": filler(&request, 50) }))
                    .request_id(request)
                    .await
            };
            assert_eq!(written.unwrap().ov, last.ov + 1, "{what}");
        });
    futures::future::join_all(writes).await;
}

async fn keys(opened: &SiteHandle) -> BTreeSet<String> {
    opened.bucket.list("").map_ok(|object| object.key).try_collect().await.unwrap()
}

/// What a process had sent before it was killed may reach a slow server after its item was erased. So the
/// objects of erased items are looked for once more a day later; this brings that day forward.
async fn look_again_at_what_was_erased(opened: &SiteHandle) {
    let notes = Namespace::new(opened.things.database(), format!("{COLLECTION}_gc"));
    let noted: Vec<Document> = opened.documents.scan(&notes, Scan::default()).try_collect().await.unwrap();
    let mut batch = Batch::new();
    for mut note in noted.into_iter().filter(|note| note.contains_key("eraseAgainAt")) {
        note.insert("eraseAgainAt", bson::DateTime::from_millis(0));
        batch.push(&notes, Write::put(note, Guard::Any));
    }
    opened.documents.apply(batch).await.unwrap();
    opened.things.collect_orphans(Duration::ZERO).await.unwrap();
}

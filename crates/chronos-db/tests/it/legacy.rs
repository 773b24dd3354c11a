//! Collections as chronos-db 2.3.1, the original in TypeScript, left them: read, restored and written on,
//! with nothing lost.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bson::oid::ObjectId;
use bson::{Bson, Document, doc};
use chronos_db::config::{Base64Property, CollectionMap, Config, Database};
use chronos_db::documents::{Batch, Direction, DocumentStore, Index, Namespace, Outcome, Scan, Write};
use chronos_db::objects::{ObjectStorage, ObjectsPool, PutOptions};
use chronos_db::{Chronos, Collection, ErrorKind, ItemId, Json as Value, Op, Route, Timestamp, View, json};
use futures::TryStreamExt as _;
use sha2::{Digest as _, Sha256};
use test_support::servers;

const BUCKET: &str = "bA";

#[derive(Clone, Copy, Debug)]
enum On {
    Embedded,
    Standalone,
}

struct Left {
    chronos: Chronos,
    users: Collection,
    documents: Arc<dyn DocumentStore>,
    bucket: Arc<dyn ObjectStorage>,
    database: String,
    _dir: tempfile::TempDir,
}

fn config(on: On, database: &str, dir: &Path) -> Config {
    let uri = match on {
        On::Embedded => format!("embedded:{}", dir.join("documents").display()),
        On::Standalone => servers::mongo_standalone_uri(),
    };
    let file = Base64Property::new("text/plain").preferred_text(true);
    Config::builder()
        .connection("main", uri)
        .local_storage(dir.join("objects"))
        .database(Database::runtime("tA", "main", database).bucket(BUCKET))
        .collection("Users", CollectionMap::default().indexed(["email", "status"]).base64("docs.meta", file))
        .build()
        .unwrap()
}

/// The items of the fixture by their last digits.
fn id(number: u8) -> ItemId {
    object_id(number).to_hex().parse().unwrap()
}

fn object_id(number: u8) -> ObjectId {
    ObjectId::from_bytes([0x65, 0xf0, 0xa1, 0xb2, 0xc3, 0xd4, 0xe5, 0xf6, 0x07, 0x18, 0x29, number])
}

fn at(minute: u32) -> Timestamp {
    Timestamp::parse("2024-03-01T10:00:00Z").unwrap().plus_millis(i64::from(minute) * 60_000)
}

/// A version as the original wrote it.
struct Written {
    item: u8,
    ov: i32,
    cv: i32,
    op: &'static str,
    /// The document; none where the row points at the object of `shares`.
    document: Option<Value>,
    shares: i32,
    missing: bool,
}

fn version(item: u8, ov: i32, cv: i32, op: &'static str, document: Value) -> Written {
    Written { item, ov, cv, op, document: Some(document), shares: ov, missing: false }
}

fn shared(item: u8, ov: i32, cv: i32, op: &'static str, shares: i32) -> Written {
    Written { item, ov, cv, op, document: None, shares, missing: false }
}

fn blob_reference() -> Value {
    let id = id(4);
    let key = |file: &str| format!("users/docs.meta/{id}/v0/{file}");
    json!({ "ref": { "contentBucket": BUCKET, "blobKey": key("blob.bin"), "textKey": key("text.txt") } })
}

fn history() -> Vec<Written> {
    let mut missing = version(5, 0, 9, "CREATE", json!({ "email": "e@x", "status": "lost" }));
    missing.missing = true;
    vec![
        version(1, 0, 1, "CREATE", json!({ "email": "a@x", "status": "new" })),
        version(1, 1, 2, "UPDATE", json!({ "email": "a@x", "status": "active", "score": 1.50 })),
        version(2, 0, 3, "CREATE", json!({ "email": "b@x", "status": "new" })),
        shared(2, 1, 4, "DELETE", 0),
        version(3, 0, 5, "CREATE", json!({ "email": "c@x", "status": "first" })),
        version(3, 1, 6, "UPDATE", json!({ "email": "c@x", "status": "second" })),
        shared(3, 2, 7, "RESTORE", 0),
        version(4, 0, 8, "CREATE", json!({ "email": "d@x", "docs": { "meta": blob_reference() } })),
        missing,
        version(5, 1, 10, "UPDATE", json!({ "email": "e@x", "status": "found" })),
    ]
}

impl Left {
    async fn on(on: On) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let database = servers::unique_name("legacy");
        let config = config(on, &database, dir.path());
        let space = config.entries[0].objects.clone().unwrap();
        let bucket = ObjectsPool::new().objects(&config, &space, BUCKET).unwrap();
        let chronos = Chronos::open(config).unwrap();
        let users = chronos.with(Route::runtime().tenant("tA").collection("Users")).unwrap();
        let documents = chronos.documents("main").unwrap();
        let left = Self { chronos, users, documents, bucket, database, _dir: dir };
        left.fill().await;
        left
    }

    fn namespace(&self, suffix: &str) -> Namespace {
        Namespace::new(self.database.as_str(), format!("Users_{suffix}"))
    }

    async fn insert(&self, suffix: &str, document: Document) {
        let mut batch = Batch::new();
        batch.push(&self.namespace(suffix), Write::insert(document));
        assert_eq!(self.documents.apply(batch).await.unwrap(), [Outcome::Applied]);
    }

    async fn put(&self, key: &str, body: &str) {
        self.bucket.put(key, body.to_owned().into(), PutOptions::default()).await.unwrap();
    }

    async fn rows(&self) -> Vec<Document> {
        let order = vec![("_id".into(), Direction::Ascending)];
        self.documents
            .scan(&self.namespace("ver"), Scan { order, ..Scan::default() })
            .try_collect()
            .await
            .unwrap()
    }

    async fn fill(&self) {
        // Their indexes, as far as they decide anything.
        let descending = |mut index: Index| {
            index.keys[1].1 = Direction::Descending;
            index
        };
        self.documents
            .ensure(&self.namespace("head"), &[Index::on("idx_head_itemId", &["itemId"]).unique()])
            .await
            .unwrap();
        self.documents
            .ensure(&self.namespace("ver"), &[descending(Index::on("idx_ver_itemId_ov", &["itemId", "ov"]))])
            .await
            .unwrap();
        self.documents
            .ensure(&self.namespace("locks"), &[Index::on("itemId_unique", &["itemId"]).unique()])
            .await
            .unwrap();

        let mut heads: std::collections::BTreeMap<u8, Document> = std::collections::BTreeMap::new();
        for (i, written) in history().into_iter().enumerate() {
            let now = at(u32::try_from(i).unwrap());
            let item = object_id(written.item);
            let key = format!("users/{}/v{}/item.json", item.to_hex(), written.shares);
            let created = heads
                .get(&written.item)
                .map_or(now, |head| (*head.get_datetime("createdAt").unwrap()).into());
            let (indexed, size, checksum) = match &written.document {
                Some(document) => {
                    let mut full = document.clone();
                    full["_system"] = json!({
                        "insertedAt": created.to_string(), "updatedAt": now.to_string(), "state": "new-not-synched",
                    });
                    if written.cv == 2 {
                        full["_system"]["functionIds"] = json!(["scorer@v1"]);
                    }
                    // On a local disk they indented.
                    let body = format!("{full:#}");
                    if !written.missing {
                        self.put(&key, &body).await;
                    }
                    let mut indexed = Document::new();
                    for property in ["email", "status"] {
                        if let Some(text) = document[property].as_str() {
                            indexed.insert(property, text);
                        }
                    }
                    let sum: String =
                        Sha256::digest(&body).iter().map(|byte| format!("{byte:02x}")).collect();
                    // Azure had no checksums, and the driver stored some sizes as doubles.
                    let sum = if written.item == 1 { String::new() } else { sum };
                    (indexed, Bson::Double(body.len() as f64), sum)
                }
                None => {
                    let row = self
                        .rows()
                        .await
                        .into_iter()
                        .find(|row| row.get_str("jsonKey").is_ok_and(|have| have == key))
                        .unwrap();
                    let indexed = row.get_document("metaIndexed").unwrap().clone();
                    (indexed, Bson::Null, row.get_str("checksum").unwrap().to_owned())
                }
            };
            let mut row = doc! {
                "_id": ObjectId::new(), "itemId": item, "ov": written.ov, "cv": written.cv, "op": written.op, "at": now, "actor": "act",
                "jsonBucket": BUCKET, "jsonKey": &key, "metaIndexed": indexed.clone(), "size": size.clone(), "checksum": checksum.clone(),
            };
            if written.op != "CREATE" {
                row.insert("prevOv", written.ov - 1);
            }
            self.insert("ver", row).await;
            let mut head = doc! {
                "_id": item, "itemId": item, "ov": written.ov, "cv": written.cv, "jsonBucket": BUCKET, "jsonKey": &key, "metaIndexed": indexed,
                "size": size, "checksum": checksum, "createdAt": created, "updatedAt": now,
            };
            match written.op {
                "DELETE" => drop(head.insert("deletedAt", now)),
                // An enrichment of a live item left null, and the admin of states a shadow without its frame.
                _ if written.cv == 2 => {
                    head.insert("deletedAt", Bson::Null);
                    head.insert(
                        "fullShadow",
                        doc! { "email": "a@x", "status": "active", "_system": { "state": "processed" } },
                    );
                }
                _ => {}
            }
            heads.insert(written.item, head);
        }
        for head in heads.into_values() {
            self.insert("head", head).await;
        }
        for file in ["blob.bin", "text.txt"] {
            self.put(
                blob_reference()["ref"][if file == "blob.bin" { "blobKey" } else { "textKey" }]
                    .as_str()
                    .unwrap(),
                "the file",
            )
            .await;
        }
        self.insert("counter", doc! { "_id": "cv", "value": 10 }).await;
        let lock = doc! {
            "_id": ObjectId::new(), "itemId": object_id(1), "collection": "Users", "dbName": &self.database, "operation": "UPDATE",
            "lockedAt": at(1), "expiresAt": at(2), "serverId": "host-1-1709287200000", "requestId": "rq",
        };
        self.insert("locks", lock).await;
    }

    async fn get(&self, item: u8) -> Option<View> {
        self.users.get(&id(item)).await.unwrap()
    }
}

async fn check_reading(left: &Left, on: On) {
    let users = &left.users;
    let a = left.get(1).await.unwrap();
    assert_eq!((a.ov, a.cv, a.at, a.deleted_at), (1, 2, at(1), None), "{on:?}");
    assert_eq!(a.document(), json!({ "email": "a@x", "status": "active", "score": 1.50 }), "{on:?}");
    assert_eq!(a.item["_system"]["insertedAt"], at(0).to_string(), "{on:?}");
    assert_eq!(a.item["_system"]["state"], "new", "{on:?}");
    assert_eq!(a.item["_system"]["functionIds"], json!(["scorer@v1"]), "{on:?}");
    assert_eq!(
        users.get(&id(1)).version(0).await.unwrap().unwrap().item["_system"]["functionIds"],
        json!([]),
        "{on:?}"
    );

    assert_eq!(left.get(2).await, None, "{on:?}: deleted");
    let b = users.get(&id(2)).include_deleted().await.unwrap().unwrap();
    assert_eq!(
        (b.ov, b.deleted_at, b.document()["status"].as_str()),
        (1, Some(at(3)), Some("new")),
        "{on:?}"
    );
    assert_eq!(users.get(&id(2)).as_of(at(2)).await.unwrap().unwrap().ov, 0, "{on:?}: before it was deleted");

    assert_eq!(left.get(3).await.unwrap().document()["status"], "first", "{on:?}: restored");
    let statuses = [(4, "first"), (5, "second"), (6, "first")];
    for (minute, status) in statuses {
        assert_eq!(
            users.get(&id(3)).as_of(at(minute)).await.unwrap().unwrap().document()["status"],
            status,
            "{on:?}"
        );
        let cv = i64::from(minute) + 1;
        assert_eq!(
            users.get(&id(3)).as_of_cv(cv).await.unwrap().unwrap().document()["status"],
            status,
            "{on:?}"
        );
    }
    let operations: Vec<(Op, i64)> =
        users.history(&id(3)).await.unwrap().iter().map(|v| (v.op, v.payload_ov)).collect();
    assert_eq!(operations, [(Op::Create, 0), (Op::Update, 1), (Op::Restore, 0)], "{on:?}");

    assert_eq!(left.get(4).await.unwrap().document()["docs"]["meta"], blob_reference(), "{on:?}");

    assert_eq!(left.get(5).await.unwrap().document()["status"], "found", "{on:?}");
    let missing = users.get(&id(5)).version(0).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Storage, "{on:?}");
    assert!(missing.message().contains("v0/item.json"), "{on:?}: {missing}");

    let listed =
        |page: chronos_db::Page<chronos_db::View>| page.items.iter().map(|view| view.id).collect::<Vec<_>>();
    assert_eq!(listed(users.list().await.unwrap()), [id(1), id(3), id(4), id(5)], "{on:?}");
    assert_eq!(listed(users.list().filter(json!({ "status": "active" })).await.unwrap()), [id(1)], "{on:?}");
    assert_eq!(listed(users.list().as_of(at(2)).await.unwrap()), [id(1), id(2)], "{on:?}");
    assert_eq!(listed(users.list().as_of_cv(5).await.unwrap()), [id(1), id(3)], "{on:?}");
    assert_eq!(users.stable_cv().await.unwrap(), 10, "{on:?}: what they left is settled");

    let found = users.verify().await.unwrap();
    let problems: Vec<_> = found.problems.iter().map(|p| (p.kind, p.id.clone(), p.ov)).collect();
    assert_eq!(
        problems,
        [("missing-object", Some(id(5).to_string()), Some(0))],
        "{on:?}: {:?}",
        found.problems
    );
    assert_eq!((found.versions, found.items, found.live), (10, 5, 4), "{on:?}");
}

#[tokio::test]
async fn what_the_original_wrote_is_read_as_it_was() {
    for on in [On::Embedded, On::Standalone] {
        let left = Left::on(on).await;
        let before = left.rows().await;
        check_reading(&left, on).await;
        assert_eq!(left.rows().await, before, "{on:?}: reading changes nothing");
        left.chronos.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn what_the_original_wrote_is_written_on_and_restored() {
    for on in [On::Embedded, On::Standalone] {
        let left = Left::on(on).await;
        let users = &left.users;
        let before = left.rows().await;

        let written = users.update(&id(1), json!({ "status": "today" })).expect_ov(1).await.unwrap();
        assert_eq!((written.ov, written.cv), (2, 11), "{on:?}: their counter goes on");
        let a = left.get(1).await.unwrap();
        assert_eq!(a.document(), json!({ "email": "a@x", "status": "today", "score": 1.50 }), "{on:?}");
        assert_eq!(a.item["_system"]["functionIds"], json!(["scorer@v1"]), "{on:?}: they survive the update");
        check_lock(&left, on).await;

        users.restore(&id(2)).to_version(0).await.unwrap();
        assert_eq!(left.get(2).await.unwrap().document()["status"], "new", "{on:?}");
        users.delete(&id(3)).await.unwrap();
        assert_eq!(users.restore(&id(3)).to_time(at(5)).await.unwrap().ov, 4, "{on:?}");
        assert_eq!(left.get(3).await.unwrap().document()["status"], "second", "{on:?}");

        // Their blob stays where it is, whatever else changes.
        users.update(&id(4), json!({ "status": "kept" })).await.unwrap();
        let d = left.get(4).await.unwrap();
        assert_eq!(d.document()["docs"]["meta"], blob_reference(), "{on:?}");
        users.replace(&id(4), json!({ "email": "d@y", "docs": { "meta": blob_reference() } })).await.unwrap();
        users.enrich(&id(4), json!({ "docs": { "pages": 3 } })).await.unwrap();
        assert_eq!(
            left.get(4).await.unwrap().document()["docs"],
            json!({ "meta": blob_reference(), "pages": 3 }),
            "{on:?}"
        );
        // Another's cannot be had that way.
        let foreign = json!({ "ref": { "contentBucket": BUCKET, "blobKey": format!("users/docs.meta/{}/v0/blob.bin", id(1)) } });
        let refused =
            users.replace(&id(5), json!({ "email": "e@x", "docs": { "meta": foreign } })).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Externalization, "{on:?}");
        users.create(json!({ "email": "f@x", "docs": { "meta": "bmV3" } })).await.unwrap();

        let restored = users.restore_collection().to_cv(6).await.unwrap();
        assert_eq!((restored.items, restored.removed, restored.skipped), (6, 4, 0), "{on:?}: {restored:?}");
        let statuses: Vec<_> = users
            .list()
            .await
            .unwrap()
            .items
            .iter()
            .map(|view| (view.id, view.document()["status"].clone()))
            .collect();
        assert_eq!(statuses, [(id(1), json!("active")), (id(3), json!("second"))], "{on:?}");

        assert_eq!(users.flush(Duration::from_secs(60)).await.unwrap(), 0, "{on:?}");
        let now = left.rows().await;
        assert!(before.iter().all(|row| now.contains(row)), "{on:?}: no row of theirs changed");
        let found = users.verify().repair().await.unwrap();
        assert_eq!(
            found.problems.iter().map(|p| p.kind).collect::<Vec<_>>(),
            ["missing-object"],
            "{on:?}: {:?}",
            found.problems
        );
        assert_eq!(
            found.stable_cv,
            9 + i64::try_from(now.len() - before.len()).unwrap() + 1,
            "{on:?}: nothing is missing above theirs"
        );
        left.chronos.shutdown().await.unwrap();
    }
}

async fn check_lock(left: &Left, on: On) {
    // A process of theirs died with this lock, under an id of its own.
    let lock =
        left.users.lock(&id(1)).wait(Duration::from_secs(60)).await.unwrap_or_else(|e| panic!("{on:?}: {e}"));
    assert_eq!(lock.ov(), 2, "{on:?}");
    left.users.update(&id(1), json!({ "status": "locked" })).with_lock(&lock).await.unwrap();
    lock.release().await.unwrap();
}

#[tokio::test]
async fn a_collection_with_two_rows_of_one_version_is_read_only_and_says_why() {
    for on in [On::Embedded, On::Standalone] {
        let left = Left::on(on).await;
        let mut twice =
            left.rows().await.into_iter().find(|row| row.get_i32("cv").is_ok_and(|cv| cv == 2)).unwrap();
        twice.insert("_id", ObjectId::new());
        twice.insert("cv", 11);
        left.insert("ver", twice).await;
        let before = left.rows().await;

        assert_eq!(left.get(1).await.unwrap().document()["status"], "active", "{on:?}");
        assert_eq!(left.users.history(&id(1)).await.unwrap().len(), 3, "{on:?}: nothing is hidden");
        assert_eq!(left.users.list().await.unwrap().items.len(), 4, "{on:?}");
        assert_eq!(left.users.get(&id(3)).as_of(at(5)).await.unwrap().unwrap().ov, 1, "{on:?}");

        let create = left.users.create(json!({ "email": "new@x" })).await.unwrap_err();
        let update = left.users.update(&id(3), json!({ "status": "x" })).await.unwrap_err();
        for refused in [create, update] {
            assert!(refused.message().contains("`chronos migrate`"), "{on:?}: {refused}");
            assert!(!refused.is_retryable(), "{on:?}");
        }
        let found = left.users.verify().await.unwrap();
        assert!(found.problems.iter().any(|p| p.kind == "duplicate-ov"), "{on:?}: {:?}", found.problems);
        assert_eq!(left.rows().await, before, "{on:?}: nothing is lost");
        left.chronos.shutdown().await.unwrap();
    }
}

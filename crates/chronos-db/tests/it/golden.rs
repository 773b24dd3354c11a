//! Every stored shape, pinned: what an older version has written must stay readable, so a change of these
//! files is a decision.
//!
//! A shape that differs fails the test and writes the new file beside the old one; `UPDATE_GOLDEN=1` accepts
//! it.

mod analytics;
mod backup;
mod extended;
mod manifest;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bson::Document;
use chronos_db::config::{
    Base64Property, CollectionMap, Config, ConfigBuilder, Database, DevShadow, Fallback,
};
use chronos_db::documents::{Batch, Direction, DocumentStore, Namespace, Scan, Write};
use chronos_db::fail::{FailAction, FailPoints};
use chronos_db::json::Map;
use chronos_db::objects::{ObjectStorage, ObjectsPool, PutOptions};
use chronos_db::{
    Chronos, Clock as _, Collection, Env, ErrorKind, Json as Value, Op, Route, Timestamp, json,
};
use futures::TryStreamExt as _;
use test_support::{Failing, Fault, MockClock, SeededRandom};

use self::extended::{from_extended, to_extended};

const SUFFIXES: [&str; 6] = ["claims", "counter", "gc", "head", "locks", "ver"];

/// A database in which time, chance and the object storage do what the test says.
struct Stage {
    chronos: Chronos,
    things: Collection,
    documents: Arc<dyn DocumentStore>,
    bucket: Arc<dyn ObjectStorage>,
    clock: Arc<MockClock>,
    fail: FailPoints,
    storage: Arc<Failing<test_support::objects::Call>>,
}

fn config(dir: &Path) -> ConfigBuilder {
    let file = Base64Property::new("text/plain").preferred_text(true);
    let things = CollectionMap::default().indexed(["email", "status", "visits"]).base64("file", file);
    Config::embedded_builder(dir).inline_max_bytes(700).collection("things", things)
}

impl Stage {
    fn new(config: ConfigBuilder, seed: u64) -> Self {
        let config = config.build().unwrap();
        let clock = Arc::new(MockClock::default());
        let fail = FailPoints::armable();
        let env = Env {
            clock: Arc::clone(&clock) as _,
            random: Arc::new(SeededRandom::new(seed)),
            fail: fail.clone(),
            ..Env::default()
        };
        let storage = Failing::new();
        let layer = Arc::clone(&storage);
        let space = config.entries[0].objects.clone().unwrap();
        let bucket = ObjectsPool::new().objects(&config, &space, "chronos").unwrap();
        let builder = Chronos::builder(config).env(env);
        let chronos = builder
            .wrap_objects(move |inner| test_support::objects::decorate(inner, Arc::clone(&layer)))
            .open()
            .unwrap();
        let things = chronos.with(Route::runtime().tenant("default").collection("things")).unwrap();
        let documents = chronos.documents("embedded").unwrap();
        Self { chronos, things, documents, bucket, clock, fail, storage }
    }

    fn tick(&self) {
        self.clock.advance(Duration::from_millis(1_500));
    }

    /// Everything is stored, and some time passes: what one version copies from the one before does not
    /// depend on how fast it was stored.
    async fn flush_and_tick(&self) {
        assert_eq!(self.things.flush(Duration::from_secs(60)).await.unwrap(), 0);
        self.tick();
    }

    /// The flusher has tried once, and waits for its next try: one that waits for something else does so for longer.
    async fn failed(&self) {
        let soon = self.clock.now().plus_millis(200);
        while self.clock.next_wake().is_none_or(|wake| wake > soon) {
            tokio::task::yield_now().await;
        }
    }

    /// The storage is back, and everything is stored.
    async fn store(&self) {
        self.clock.sleepers(1).await;
        self.storage.switch_off();
        self.clock.advance(Duration::from_secs(60));
        assert_eq!(self.things.flush(Duration::from_secs(60)).await.unwrap(), 0);
    }

    async fn rows(&self, suffix: &str) -> Vec<Document> {
        let namespace = Namespace::new("chronos", format!("things_{suffix}"));
        let scan = Scan { order: vec![("_id".into(), Direction::Ascending)], ..Scan::default() };
        self.documents.scan(&namespace, scan).try_collect().await.unwrap()
    }

    async fn everything(&self) -> Value {
        let mut documents = Map::new();
        for suffix in SUFFIXES {
            documents.insert(
                format!("things_{suffix}"),
                self.rows(suffix).await.into_iter().map(|doc| to_extended(&doc.into())).collect(),
            );
        }
        let mut objects = BTreeMap::new();
        let mut listed = self.bucket.list("");
        while let Some(object) = listed.try_next().await.unwrap() {
            let bytes = self.bucket.get(&object.key).await.unwrap().unwrap();
            objects.insert(object.key, String::from_utf8(bytes.to_vec()).unwrap());
        }
        json!({ "documents": documents, "objects": objects })
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn check(name: &str, now: &Value) {
    let path = folder().join(format!("{name}.json"));
    let text = format!("{now:#}\n");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(folder()).unwrap();
        std::fs::write(&path, text).unwrap();
        return;
    }
    let pinned = std::fs::read_to_string(&path).unwrap_or_default();
    if pinned != text {
        let new = folder().join(format!("{name}.json.new"));
        std::fs::write(&new, &text).unwrap();
        let (line, (old, now)) = pinned
            .lines()
            .chain([""])
            .zip(text.lines())
            .enumerate()
            .find(|(_, (a, b))| a != b)
            .unwrap_or_default();
        panic!(
            "the stored shape `{name}` changed, first in line {}: `{old}` became `{now}`; {} has all of it, UPDATE_GOLDEN=1 accepts it",
            line + 1,
            new.display()
        );
    }
}

/// Rows, heads and objects of a life with everything in it, at three moments.
#[tokio::test]
async fn the_stored_shapes_are_those_of_the_golden_files() {
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::new(config(dir.path()), 1);
    let things = &stage.things;

    stage.storage.switch_all_on(Fault::Before);
    let parent = things
        .create(json!({ "email": "a@example.org", "visits": 1, "note": "not indexed", "ratio": 1.50 }))
        .await
        .unwrap();
    stage.tick();
    let file = "VGhlIHF1aWNrIGJyb3duIGZveA==";
    let child = things
        .create(json!({ "email": "b@example.org", "status": "new", "file": file }))
        .parent(&parent.id, "things")
        .origin("17", "contacts", Some("crm"))
        .actor("importer")
        .reason("first contact")
        .request_id("request-1")
        .await
        .unwrap();
    stage.tick();
    things.enrich(&child.id, json!({ "score": { "value": 7 } })).function_id("scorer@v1").await.unwrap();
    stage.tick();
    check("waiting", &stage.everything().await);

    stage.store().await;
    things.update(&parent.id, json!({ "status": "active" })).expect_ov(0).await.unwrap();
    stage.flush_and_tick().await;
    things.delete(&parent.id).actor("cleaner").await.unwrap();
    stage.flush_and_tick().await;
    things.restore(&parent.id).to_version(0).reason("by mistake").await.unwrap();
    stage.flush_and_tick().await;
    let gone = things.create(json!({ "email": "c@example.org" })).await.unwrap();
    stage.flush_and_tick().await;
    things.delete(&gone.id).await.unwrap();
    stage.flush_and_tick().await;
    things
        .create(json!({ "email": "large@example.org", "body": "x".repeat(800), "file": file }))
        .await
        .unwrap();
    stage.flush_and_tick().await;
    things
        .smart_insert(json!({ "email": "d@example.org", "status": "new" }), &["email"])
        .function_id("crawler@v2")
        .await
        .unwrap();
    stage.flush_and_tick().await;
    // A time before the newest version is refused once its number is given out: the number becomes a VOID.
    let refused = things
        .update(&child.id, json!({ "status": "late" }))
        .at(Timestamp::from_millis(0))
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Validation);
    // The object of a write that failed is noted for the clean-up.
    stage.fail.arm("large.after_put", FailAction::Error(ErrorKind::Storage), 0, 1);
    things.update(&child.id, json!({ "body": "y".repeat(800) })).await.unwrap_err();
    assert_eq!(things.flush(Duration::from_secs(60)).await.unwrap(), 0);
    things.stable_cv().await.unwrap();
    let lock = things.lock(&parent.id).await.unwrap();
    let everything = stage.everything().await;
    lock.release().await.unwrap();
    check("stored", &everything);
    check("metadata", &metadata(&stage.rows("ver").await));
    stage.chronos.shutdown().await.unwrap();
}

/// Bytes of each version's row beside what the user chose to index.
fn metadata(rows: &[Document]) -> Value {
    let mut sizes: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut largest: BTreeMap<usize, String> = BTreeMap::new();
    for row in rows {
        let mut row = row.clone();
        if let Ok(indexed) = row.get_document_mut("metaIndexed") {
            indexed.clear();
        }
        let size = bson::serialize_to_vec(&row).unwrap().len();
        sizes.entry(row.get_str("op").unwrap().to_owned()).or_default().push(size);
        for (key, value) in &row {
            let mut one = Document::new();
            one.insert(key, value.clone());
            largest.insert(bson::serialize_to_vec(&one).unwrap().len() - 5, key.clone());
        }
    }
    for sizes in sizes.values_mut() {
        sizes.sort_unstable();
    }
    let largest: Vec<_> =
        largest.iter().rev().take(5).map(|(size, field)| format!("{field}: {size}")).collect();
    json!({ "bytesPerVersionBesideTheIndexedFields": sizes, "largestFields": largest })
}

#[tokio::test]
async fn the_shape_of_a_head_with_a_shadow_is_that_of_the_golden_file() {
    let dir = tempfile::tempdir().unwrap();
    let day = Duration::from_secs(24 * 3_600);
    let stage = Stage::new(config(dir.path()).dev_shadow(DevShadow::new(day)), 1);
    let item = stage.things.create(json!({ "email": "a@example.org" })).await.unwrap();
    stage.flush_and_tick().await;
    stage.things.update(&item.id, json!({ "status": "shadowed" })).await.unwrap();
    stage.things.flush(Duration::from_secs(60)).await.unwrap();
    check("shadow", &stage.everything().await);
    stage.chronos.shutdown().await.unwrap();
}

/// Inline records, in a database of identities.
async fn users(seed: u64) -> (Chronos, Collection, Arc<dyn DocumentStore>, Arc<MockClock>) {
    let database = Database::identities("here", "chronos");
    let config = Config::builder().connection("here", "embedded::memory:").database(database);
    let clock = Arc::new(MockClock::default());
    let random = Arc::new(SeededRandom::new(seed));
    let env = Env { clock: Arc::clone(&clock) as _, random, fail: FailPoints::armable(), ..Env::default() };
    let chronos = Chronos::builder(config.build().unwrap()).env(env).open().unwrap();
    let users = chronos.with(Route::identities().tenant("acme").collection("users")).unwrap();
    let documents = chronos.documents("here").unwrap();
    (chronos, users, documents, clock)
}

#[tokio::test]
async fn the_shapes_of_inline_records_are_those_of_the_golden_file() {
    let (chronos, users, documents, clock) = self::users(1).await;
    let id = users.create(json!({ "email": "a@example.org", "tries": 3 })).actor("signup").await.unwrap().id;
    clock.advance(Duration::from_secs(60));
    let gone = users.create(json!({ "email": "b@example.org" })).await.unwrap().id;
    users.delete(&gone).await.unwrap();
    users.trim(Duration::from_secs(30)).await.unwrap();
    users.update(&id, json!({ "status": "active" })).await.unwrap();
    let mut now = Map::new();
    for suffix in SUFFIXES {
        let namespace = Namespace::new("chronos", format!("users_{suffix}"));
        let scan = Scan { order: vec![("_id".into(), Direction::Ascending)], ..Scan::default() };
        let stored: Vec<Document> = documents.scan(&namespace, scan).try_collect().await.unwrap();
        let stored: Vec<Value> = stored.into_iter().map(|document| to_extended(&document.into())).collect();
        now.insert(format!("users_{suffix}"), stored.into());
    }
    check("inline", &json!({ "documents": now }));
    chronos.shutdown().await.unwrap();
}

#[tokio::test]
async fn inline_records_of_the_golden_file_are_readable_and_writable_today() {
    let (chronos, users, documents, clock) = self::users(2).await;
    let text = std::fs::read_to_string(folder().join("inline.json")).unwrap();
    put_all(&Value::parse(&text).unwrap(), &*documents).await;
    clock.advance(Duration::from_secs(3_600));
    assert!(users.verify().await.unwrap().is_clean());
    users.trim(Duration::from_secs(60)).await.unwrap();
    let items = users.list().include_deleted().await.unwrap().items;
    assert_eq!(items.len(), 2);
    for item in items {
        assert!(item.item["email"].is_string() && item.item["tenantId"] == "acme", "{item:?}");
        if item.deleted_at.is_none() {
            let written = users.update(&item.id, json!({ "status": "today" })).await.unwrap();
            assert_eq!(written.ov, item.ov + 1);
        }
    }
    assert!(users.verify().await.unwrap().is_clean());
    chronos.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_shapes_of_an_erased_item_are_those_of_the_golden_files() {
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::new(config(dir.path()).logical_delete(false), 1);
    let item = stage.things.create(json!({ "email": "a@example.org" })).await.unwrap();
    stage.flush_and_tick().await;
    stage.storage.switch_all_on(Fault::Before);
    stage.things.delete(&item.id).actor("cleaner").reason("asked for").await.unwrap();
    // The erasure is noted, whatever becomes of it: the flusher has tried, and waits.
    stage.failed().await;
    check("erasing", &stage.everything().await);
    stage.store().await;
    check("erased", &stage.everything().await);
    let verified = stage.things.verify().await.unwrap();
    assert!(verified.is_clean(), "{:?}", verified.problems);
    stage.chronos.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_shape_of_a_certificate_is_that_of_the_golden_file() {
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::new(config(dir.path()), 1);
    let item = stage.things.create(json!({ "email": "a@example.org" })).await.unwrap();
    stage.flush_and_tick().await;
    stage.things.erase(&item.id).actor("dpo").reason("ticket 4711").await.unwrap();
    stage.flush_and_tick().await;
    let mut now = Map::new();
    for collection in ["chronos_erasures", "things_ver"] {
        let scan = Scan { order: vec![("_id".into(), Direction::Ascending)], ..Scan::default() };
        let stored = stage.documents.scan(&Namespace::new("chronos", collection), scan);
        let stored: Vec<Document> = stored.try_collect().await.unwrap();
        let stored: Vec<Value> = stored.into_iter().map(|document| to_extended(&document.into())).collect();
        now.insert(collection.to_owned(), stored.into());
    }
    check("certificate", &json!({ "documents": now }));
    stage.chronos.shutdown().await.unwrap();
}

/// Puts the documents of a golden file into a fresh store.
async fn put_all(golden: &Value, into: &dyn DocumentStore) {
    let mut batch = Batch::new();
    for (collection, documents) in golden["documents"].as_object().unwrap() {
        for document in documents.as_array().unwrap() {
            let document = from_extended(document).as_document().unwrap().clone();
            batch.push(&Namespace::new("chronos", collection.as_str()), Write::insert(document));
        }
    }
    let outcomes = into.apply(batch).await.unwrap();
    assert!(outcomes.iter().all(chronos_db::documents::Outcome::is_applied), "{outcomes:?}");
}

/// Puts the golden files' documents and objects into a fresh store.
async fn load(name: &str, stage: &Stage) {
    let text = std::fs::read_to_string(folder().join(format!("{name}.json"))).unwrap();
    let golden: Value = Value::parse(&text).unwrap();
    put_all(&golden, &*stage.documents).await;
    for (key, body) in golden["objects"].as_object().unwrap() {
        stage.bucket.put(key, body.as_str().unwrap().to_owned().into(), PutOptions::default()).await.unwrap();
    }
}

#[tokio::test]
async fn what_the_golden_files_hold_is_readable_and_writable_today() {
    // What versions before today's left: erasures that took the rows along, or what these counted as, and a
    // note for each object.
    let older = ["erased-without-stubs", "erased-without-counts", "stored-notes-per-object"];
    for name in ["waiting", "stored", "shadow", "erasing", "erased"].into_iter().chain(older) {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path()).logical_delete(!name.starts_with("eras"));
        let stage = Stage::new(config, 2);
        load(name, &stage).await;
        // A later time: nothing that waits is left to the process that wrote it.
        stage.clock.advance(Duration::from_secs(3_600));
        assert!(stage.clock.now() > Timestamp::from_millis(0));

        let found = stage.things.verify().await.unwrap();
        assert!(found.is_clean(), "{name}: {:?}", found.problems);
        let items = stage.things.list().include_deleted().await.unwrap().items;
        assert_eq!(items.len() as u64, found.items, "{name}");
        let mut versions = 0;
        for item in &items {
            for version in stage.things.history(&item.id).await.unwrap() {
                versions += 1;
                let view =
                    stage.things.get(&item.id).version(version.ov).include_deleted().await.unwrap().unwrap();
                assert_eq!((view.ov, view.cv, view.at), (version.ov, version.cv, version.at), "{name}");
                assert!(view.item["email"].is_string(), "{name}: {view:?}");
                assert_eq!(view.deleted_at.is_some(), version.op == Op::Delete, "{name}");
            }
            if item.deleted_at.is_none() {
                let written = stage.things.update(&item.id, json!({ "status": "today" })).await.unwrap();
                assert_eq!(written.ov, item.ov + 1, "{name}");
            }
        }
        let readable = if name == "erasing" { 0 } else { found.versions };
        assert_eq!(versions, readable, "{name}: every version was read, and none of an erased item");
        assert_eq!(stage.things.flush(Duration::from_secs(60)).await.unwrap(), 0, "{name}");
        let found = stage.things.verify().await.unwrap();
        assert!(found.is_clean(), "{name}, written on: {:?}", found.problems);
        stage.chronos.shutdown().await.unwrap();
    }
}

/// What waits, and what was given up: one operation of each type, of one item.
#[tokio::test]
async fn the_shapes_of_queued_operations_are_those_of_the_golden_file() {
    let dir = tempfile::tempdir().unwrap();
    let fallback = Fallback::default().delays(Duration::ZERO, Duration::ZERO).max_attempts(1);
    let stage = Stage::new(config(dir.path()).fallback(fallback.clone()), 1);
    let things = &stage.things;
    stage.storage.switch_all_on(Fault::Before);
    let large = json!({ "email": "a@example.org", "body": "x".repeat(800) });
    let parent: chronos_db::ItemId = "64f0c0ffee64f0c0ffee64f0".parse().unwrap();
    let id = things.create(large).parent(&parent, "others").actor("ann").reason("why").await.unwrap().id;
    things.update(&id, json!({ "status": "new" })).expect_ov(0).request_id("mine").await.unwrap();
    things.replace(&id, json!({ "email": "b@example.org", "ratio": 1.50 })).force().await.unwrap();
    things.enrich(&id, json!([{ "tags": ["a"] }])).function_id("tagger@v1").await.unwrap();
    things.delete(&id).at(stage.clock.now()).await.unwrap();
    things.restore(&id).to_version(1).await.unwrap();
    let dump = async |name: &str| -> Value {
        let scan = Scan { order: vec![("_id".into(), Direction::Ascending)], ..Scan::default() };
        let found: Vec<Document> =
            stage.documents.scan(&Namespace::new("chronos", name), scan).try_collect().await.unwrap();
        found.into_iter().map(|doc| to_extended(&doc.into())).collect()
    };
    let waiting = dump("chronos_fallback_ops").await;
    stage.chronos.fallback().unwrap().retry_due().await.unwrap();
    let dead = dump("chronos_fallback_dead").await;
    check(
        "queued",
        &json!({ "documents": { "chronos_fallback_ops": waiting, "chronos_fallback_dead": dead } }),
    );
    stage.chronos.shutdown().await.unwrap();

    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::new(config(dir.path()).fallback(fallback), 2);
    stage.clock.advance(Duration::from_secs(3_600));
    let text = std::fs::read_to_string(folder().join("queued.json")).unwrap();
    let pinned = Value::parse(&text).unwrap();
    let mut batch = Batch::new();
    for document in pinned["documents"]["chronos_fallback_ops"].as_array().unwrap() {
        let document = from_extended(document).as_document().unwrap().clone();
        batch.push(&Namespace::new("chronos", "chronos_fallback_ops"), Write::insert(document));
    }
    stage.documents.apply(batch).await.unwrap();
    let queue = stage.chronos.fallback().unwrap();
    let retried = queue.retry_due().await.unwrap();
    // The deletion has a time that is past by now.
    assert_eq!(
        (retried.done, retried.dead, retried.waiting),
        (5, 1, 0),
        "{:?}",
        queue.dead().await.unwrap().operations
    );
    let restored = stage.things.get(&id).await.unwrap().unwrap();
    assert_eq!((restored.ov, &restored.item["status"]), (4, &json!("new")));
    stage.chronos.shutdown().await.unwrap();
}

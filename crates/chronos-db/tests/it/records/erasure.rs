//! What was erased stays away, whatever else is at work meanwhile, and what is not erased stays there.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bson::{Bson, Document, doc};
use chronos_db::documents::{Batch, Guard, Write};
use chronos_db::fail::{FailAction, FailPoints};
use chronos_db::objects::PutOptions;
use chronos_db::{Collection, Env, ErrorKind, ItemId, Json, Verification, json};
use test_support::{CallKind, Failing, Fault, Holding, Layer, documents, objects};

use super::pairing::{
    Pairing, Store, TIMEOUT, document, namespace, on_durable_pairings, on_every_pairing, refused,
};

mod alone {
    super::on_every_pairing!(
        erased_versions_keep_their_numbers_and_nothing_else,
        no_byte_of_what_was_erased_is_left_anywhere,
        what_a_process_left_behind_when_it_died_is_looked_for_again,
        an_item_that_an_older_version_let_come_back_is_found_and_erased,
        a_lost_row_is_not_explained_by_the_erasure_of_another_item,
        the_gaps_of_older_erasures_are_explained_by_them_alone,
        a_note_that_says_nothing_is_passed_over_and_reported,
        a_missing_head_is_found_by_the_next_who_misses_it,
    );
    use super::*;
}

mod apart {
    super::on_durable_pairings!(
        a_writer_that_had_not_seen_the_erasure_comes_too_late,
        a_payload_that_is_put_after_the_erasure_is_taken_back,
        what_cannot_be_taken_back_is_left_to_the_clean_up,
        an_upload_whose_commit_comes_after_its_collection_is_stored_anew,
        an_upload_that_is_committed_meanwhile_is_not_collected,
        an_upload_that_the_erasure_overtakes_leaves_nothing,
    );
    use super::*;
}

fn erasing() -> Json {
    json!({
        "logicalDelete": {"enabled": false}, "inlineMaxBytes": 1000,
        "collectionMaps": {"users": {"indexedProps": ["n", "mark"], "base64Props": {"file": {"contentType": "text/plain"}}}},
    })
}

fn kinds(found: &Verification) -> Vec<&'static str> {
    found.problems.iter().map(|problem| problem.kind).collect()
}

async fn rows_of(store: &Store, users: &Collection, id: &ItemId) -> Vec<Document> {
    let mut rows = store.stored(users, "ver").await;
    rows.retain(|row| row.get_object_id("itemId").unwrap().to_hex() == id.to_string());
    rows.sort_by_key(|row| row.get_i32("ov").unwrap());
    rows
}

async fn ops(store: &Store, users: &Collection, id: &ItemId) -> Vec<String> {
    rows_of(store, users, id).await.iter().map(|row| row.get_str("op").unwrap().to_owned()).collect()
}

async fn remove(store: &Store, users: &Collection, suffix: &str, id: Bson) {
    let mut batch = Batch::new();
    batch.push(&namespace(users, suffix), Write::Delete { id, guard: Guard::Any });
    store.documents().apply(batch).await.unwrap();
}

/// Takes the mark to the newest number: what is missing below it is lost, and no number whose row is still to
/// come.
async fn settle_mark(users: &Collection, id: &ItemId) {
    users.get(id).as_of_cv(i64::MAX).await.unwrap();
}

async fn voids(store: &Store, users: &Collection) -> usize {
    store.stored(users, "ver").await.iter().filter(|row| row.get_str("op").unwrap() == "VOID").count()
}

/// An item of three versions, erased, with everything done that is to do about it.
async fn erased(users: &Collection) -> ItemId {
    let id = users
        .create(json!({"n": 0, "file": STANDARD.encode("a file")}))
        .actor("ann")
        .reason("why")
        .request_id("r")
        .await
        .unwrap()
        .id;
    users.update(&id, json!({"n": 1})).await.unwrap();
    users.update(&id, json!({"n": 2})).await.unwrap();
    users.delete(&id).await.unwrap();
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    id
}

async fn erased_versions_keep_their_numbers_and_nothing_else(p: &Pairing) {
    let store = p.open_with(&erasing());
    let users = store.users();
    let id = erased(&users).await;
    let rows = rows_of(&store, &users, &id).await;
    assert_eq!(rows.len(), 4);
    for (n, row) in (0..).zip(&rows[..3]) {
        let mut names: Vec<&str> = row
            .keys()
            .map(String::as_str)
            .filter(|name| !["prevOv", "counts", "rules"].contains(name))
            .collect();
        names.sort_unstable();
        assert_eq!(names, ["_id", "at", "cv", "itemId", "op", "ov"], "{row}");
        assert_eq!((row.get_str("op").unwrap(), row.get_i32("ov").unwrap()), ("ERASED", n));
    }
    assert_eq!(rows[3].get_str("op").unwrap(), "ERASE");
    assert_eq!(store.keys(&users).await, Vec::<String>::new());
    assert_eq!(refused(users.update(&id, json!({})).await), ErrorKind::NotFound);
    assert_eq!(users.get(&id).version(1).include_deleted().await.unwrap(), None);
    let found = users.verify().await.unwrap();
    assert_eq!((found.versions, found.items, found.voids, kinds(&found)), (0, 0, 0, vec![]));
}

/// Whether any file below `folder` holds these bytes.
fn holds(folder: &Path, mark: &[u8]) -> Option<std::path::PathBuf> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if std::fs::read(&path).unwrap().windows(mark.len()).any(|window| window == mark) {
                return Some(path);
            }
        }
    }
    None
}

async fn no_byte_of_what_was_erased_is_left_anywhere(p: &Pairing) {
    const MARK: &str = "erase-this-mark";
    let store = p.opening().with(&erasing()).without_cache().open();
    let users = store.users();
    for n in 0..5 {
        users.create(json!({ "n": n })).await.unwrap();
    }
    let small = users.create(json!({"n": 1, "mark": MARK})).actor(MARK).await.unwrap().id;
    let file = users
        .create(json!({"n": 2, "file": STANDARD.encode(MARK), "text": MARK.repeat(20)}))
        .await
        .unwrap()
        .id;
    let large = users.create(json!({"n": 3, "text": MARK.repeat(1000)})).await.unwrap().id;
    let keyed = users.smart_insert(json!({"mark": format!("{MARK}-key")}), &["mark"]).await.unwrap().id;
    users.update(&small, json!({ "more": MARK.repeat(10) })).await.unwrap();
    users.update(&file, json!({ "file": STANDARD.encode(format!("{MARK} again")) })).await.unwrap();
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    users.update(&large, json!({ "mark": MARK })).await.unwrap();
    for id in [&small, &file, &large, &keyed] {
        users.delete(id).await.unwrap();
    }
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);

    for suffix in ["head", "ver", "gc", "claims", "counter", "locks"] {
        for stored in store.stored(&users, suffix).await {
            assert!(
                !bson::serialize_to_vec(&stored).unwrap().windows(MARK.len()).any(|w| w == MARK.as_bytes()),
                "{suffix}: {stored}"
            );
        }
    }
    let kept = store.keys(&users).await;
    assert_eq!(kept.len(), 5, "{kept:?}");
    // The store is open all the while: its file, and its log.
    assert_eq!(holds(p.folder(), MARK.as_bytes()), None);
    assert_eq!(users.list().await.unwrap().items.len(), 5);
}

/// As if a process had put an object whose put was under way when it died: the note has it looked for a day
/// later.
async fn what_a_process_left_behind_when_it_died_is_looked_for_again(p: &Pairing) {
    let store = p.open_with(&erasing());
    let users = store.users();
    let kept = users.create(json!({"n": 0})).ack_stored().await.unwrap().id;
    let id = erased(&users).await;
    let late = format!("users/{id}/v1/item.json");
    store.bucket().put(&late, "late".into(), PutOptions::default()).await.unwrap();
    assert_eq!(kinds(&users.verify().await.unwrap()), ["erased-object"]);
    assert_eq!(users.collect_orphans(Duration::ZERO).await.unwrap().removed(), 0, "not before its time");

    let mut notes = store.stored(&users, "gc").await;
    assert_eq!(notes.len(), 1);
    let mut note = notes.remove(0);
    let day = note.get_datetime("eraseAgainAt").unwrap().timestamp_millis()
        - note.get_datetime("notedAt").unwrap().timestamp_millis();
    assert_eq!(day, 24 * 3_600_000);
    note.insert("eraseAgainAt", bson::DateTime::from_millis(0));
    store.put(&users, "gc", note).await;
    let collected = users.collect_orphans(Duration::from_secs(3600)).await.unwrap();
    assert_eq!((collected.erased, collected.orphans, collected.malformed), (1, 0, 0));
    assert_eq!(store.stored(&users, "gc").await, Vec::<Document>::new(), "it was the last time");
    assert_eq!(store.keys(&users).await, [format!("users/{kept}/v0/item.json")]);

    store.bucket().put(&late, "later still".into(), PutOptions::default()).await.unwrap();
    let repaired = users.verify().repair().await.unwrap();
    assert_eq!((repaired.repaired, kinds(&repaired)), (1, vec![]));
    assert_eq!(kinds(&users.verify().await.unwrap()), Vec::<&str>::new());
}

/// What earlier versions of the library left: an erasure that took the rows along, and a writer that found a
/// number free.
async fn an_item_that_an_older_version_let_come_back_is_found_and_erased(p: &Pairing) {
    let store = p.open_with(&erasing());
    let users = store.users();
    let id = erased(&users).await;
    let item = id.to_string().parse::<bson::oid::ObjectId>().unwrap();
    let other = users.create(json!({"n": 9})).ack_stored().await.unwrap().id;
    settle_mark(&users, &other).await;
    let (mut row, mut head) =
        (rows_of(&store, &users, &other).await.remove(0), store.head(&users, &other).await);
    for erased in &rows_of(&store, &users, &id).await[..3] {
        remove(&store, &users, "ver", erased.get("_id").unwrap().clone()).await;
    }
    remove(&store, &users, "ver", row.get("_id").unwrap().clone()).await;
    remove(&store, &users, "head", head.get("_id").unwrap().clone()).await;
    let key = format!("users/{id}/v2/item.json");
    let bytes = store.bucket().get(&format!("users/{other}/v0/item.json")).await.unwrap().unwrap();
    store.bucket().put(&key, bytes, PutOptions::default()).await.unwrap();
    store.bucket().delete(&format!("users/{other}/v0/item.json")).await.unwrap();
    row.extend(doc! { "itemId": item, "ov": 2, "prevOv": 1, "jsonKey": &key, "op": "UPDATE" });
    head.extend(doc! { "_id": item, "itemId": item, "ov": 2, "jsonKey": &key });
    store.put(&users, "ver", row).await;
    store.put(&users, "head", head).await;

    assert_eq!(kinds(&users.verify().await.unwrap()), ["resurrected", "erased-object"]);
    assert_eq!(refused(users.update(&id, json!({"n": 1})).await), ErrorKind::NotFound);
    assert!(voids(&store, &users).await <= 1, "who writes it learns at once that it was erased");
    let repaired = users.verify().repair().await.unwrap();
    assert_eq!((repaired.repaired, kinds(&repaired)), (1, vec![]));
    assert_eq!(kinds(&users.verify().await.unwrap()), Vec::<&str>::new());
    assert_eq!(users.get(&id).include_deleted().await.unwrap(), None);
    assert_eq!(ops(&store, &users, &id).await, ["ERASED", "ERASE"]);
    assert_eq!(store.keys(&users).await, Vec::<String>::new());
}

async fn a_lost_row_is_not_explained_by_the_erasure_of_another_item(p: &Pairing) {
    let store = p.open_with(&erasing());
    let users = store.users();
    users.create(json!({"n": 0})).await.unwrap();
    let lost = users.create(json!({"n": 1})).await.unwrap().id;
    users.update(&lost, json!({"n": 2})).ack_stored().await.unwrap();
    erased(&users).await;
    settle_mark(&users, &lost).await;
    let row = rows_of(&store, &users, &lost).await.remove(0);
    remove(&store, &users, "ver", row.get("_id").unwrap().clone()).await;
    assert_eq!(kinds(&users.verify().await.unwrap()), ["hole-in-ov", "gap-in-cv"]);
    store.is_damaged();
}

async fn the_gaps_of_older_erasures_are_explained_by_them_alone(p: &Pairing) {
    let store = p.open_with(&erasing());
    let users = store.users();
    users.create(json!({"n": 0})).await.unwrap();
    let id = erased(&users).await;
    let other = users.create(json!({"n": 0})).await.unwrap().id;
    users.update(&other, json!({"n": 1})).ack_stored().await.unwrap();
    settle_mark(&users, &other).await;
    for row in &rows_of(&store, &users, &id).await[..3] {
        remove(&store, &users, "ver", row.get("_id").unwrap().clone()).await;
    }
    assert_eq!(kinds(&users.verify().await.unwrap()), Vec::<&str>::new());
    remove(&store, &users, "ver", rows_of(&store, &users, &other).await[0].get("_id").unwrap().clone()).await;
    assert!(kinds(&users.verify().await.unwrap()).contains(&"gap-in-cv"));
    store.is_damaged();
}

async fn a_note_that_says_nothing_is_passed_over_and_reported(p: &Pairing) {
    let (env, fail) = armable();
    let store = p.opening().with(&erasing()).env(env).open();
    let users = store.users();
    users.create(json!({"n": 0})).ack_stored().await.unwrap();
    for n in 0..3 {
        store
            .put(
                &users,
                "gc",
                doc! { "_id": format!("nothing {n}"), "notedAt": bson::DateTime::from_millis(0) },
            )
            .await;
    }
    store
        .put(&users, "gc", doc! { "_id": "erased/nothing", "eraseAgainAt": bson::DateTime::from_millis(0) })
        .await;
    fail.arm("large.after_put", FailAction::Error(ErrorKind::Storage), 0, 1);
    assert_eq!(refused(users.create(json!({"text": "x".repeat(2000)})).await), ErrorKind::Storage);
    let collected = users.collect_orphans(Duration::ZERO).await.unwrap();
    assert_eq!((collected.orphans, collected.erased, collected.malformed), (1, 0, 4));
    assert!(collected.malformed_notes.contains(&"nothing 1".to_owned()), "{collected:?}");
    assert_eq!(kinds(&users.verify().await.unwrap()), ["malformed-note"; 3]);
    store.is_damaged();
}

/// As two faults leave an acknowledged creation on a store without transactions: its row alone.
async fn a_missing_head_is_found_by_the_next_who_misses_it(p: &Pairing) {
    let store = p.open_with(&erasing());
    let users = store.users();
    type Look = for<'u> fn(&'u Collection, ItemId) -> futures::future::BoxFuture<'u, ()>;
    let looks: [(&str, Look); 6] = [
        ("get", |users, id| Box::pin(async move { assert_eq!(document(users, &id).await["n"], json!(1)) })),
        ("get a version", |users, id| {
            Box::pin(async move { assert!(users.get(&id).version(1).await.unwrap().is_some()) })
        }),
        ("history", |users, id| {
            Box::pin(async move { assert_eq!(users.history(&id).await.unwrap().len(), 2) })
        }),
        ("update", |users, id| {
            Box::pin(async move { assert_eq!(users.update(&id, json!({"n": 2})).await.unwrap().ov, 2) })
        }),
        ("restore", |users, id| {
            Box::pin(async move { assert_eq!(users.restore(&id).to_version(0).await.unwrap().ov, 2) })
        }),
        ("delete", |users, id| Box::pin(async move { assert_eq!(users.delete(&id).await.unwrap().ov, 2) })),
    ];
    for (what, look) in looks {
        let id = users.create(json!({"n": 0})).await.unwrap().id;
        users.update(&id, json!({"n": 1})).ack_stored().await.unwrap();
        let created = store.head(&users, &id).await.get_datetime("createdAt").unwrap().to_owned();
        remove(&store, &users, "head", id.to_string().parse::<bson::oid::ObjectId>().unwrap().into()).await;
        look(&users, id).await;
        assert_eq!(store.head(&users, &id).await.get_datetime("createdAt").unwrap(), &created, "{what}");
    }
    assert_eq!(kinds(&users.verify().await.unwrap()), Vec::<&str>::new());
}

fn armable() -> (Env, FailPoints) {
    let fail = FailPoints::armable();
    (Env { fail: fail.clone(), ..Env::default() }, fail)
}

/// Two processes: one makes its change ready, the other writes and erases the item, then the first one
/// commits.
async fn a_writer_that_had_not_seen_the_erasure_comes_too_late(p: &Pairing) {
    let holding = Holding::<documents::Call>::new();
    let (late, other) = (p.opening().with(&erasing()).documents(&holding).open(), p.open_with(&erasing()));
    let (slow, users) = (late.users(), other.users());
    for before in 0..4 {
        let id = slow.create(json!({"n": 0})).await.unwrap().id;
        for n in 0..before {
            slow.update(&id, json!({ "n": n + 10 })).await.unwrap();
        }
        assert_eq!(slow.flush(TIMEOUT).await.unwrap(), 0);
        let voids_before = voids(&other, &users).await;
        holding.hold(documents::Call::SequenceThen, 0);
        let changes = async {
            let changes = [
                slow.update(&id, json!({"late": 1})).into_future(),
                slow.replace(&id, json!({"late": 2})).into_future(),
                slow.enrich(&id, json!({"late": 3})).into_future(),
            ];
            futures::future::join_all(changes).await
        };
        let meanwhile = async {
            holding.reached(documents::Call::SequenceThen).await;
            users.update(&id, json!({"n": 1})).await.unwrap();
            users.delete(&id).await.unwrap();
            assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
            holding.release(documents::Call::SequenceThen);
        };
        let (changed, ()) = futures::future::join(changes, meanwhile).await;
        for change in changed {
            assert_eq!(refused(change), ErrorKind::NotFound);
        }
        for store in [&slow, &users] {
            assert_eq!(store.get(&id).include_deleted().await.unwrap(), None);
        }
        let mut expected = vec!["ERASED"; before + 2];
        expected.push("ERASE");
        assert_eq!(ops(&other, &users, &id).await, expected);
        assert!(
            voids(&other, &users).await <= voids_before + 1,
            "one number was given out for nothing, not a hundred"
        );
    }
    assert_eq!(kinds(&users.verify().await.unwrap()), Vec::<&str>::new());
    assert_eq!(other.keys(&users).await, Vec::<String>::new());
}

/// One process puts the object of a version while the other one erases its item.
async fn a_payload_that_is_put_after_the_erasure_is_taken_back(p: &Pairing) {
    let holding = Holding::<objects::Call>::new();
    let (late, other) = (p.opening().with(&erasing()).objects(&holding).open(), p.open_with(&erasing()));
    let (slow, users) = (late.users(), other.users());
    let kept = users.create(json!({"n": 0})).ack_stored().await.unwrap().id;
    holding.hold(objects::Call::Put, 0);
    let id = slow.create(json!({"n": 0, "file": STANDARD.encode("a file")})).await.unwrap().id;
    slow.update(&id, json!({"n": 1})).await.unwrap();
    holding.reached(objects::Call::Put).await;
    users.delete(&id).await.unwrap();
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    holding.release(objects::Call::Put);
    assert_eq!(slow.flush(TIMEOUT).await.unwrap(), 0);
    assert_eq!(other.keys(&users).await, [format!("users/{kept}/v0/item.json")]);
    assert_eq!(ops(&other, &users, &id).await, ["ERASED", "ERASED", "ERASE"]);
    assert_eq!(kinds(&users.verify().await.unwrap()), Vec::<&str>::new());
}

/// The storage takes the late payload, and then removes nothing.
async fn what_cannot_be_taken_back_is_left_to_the_clean_up(p: &Pairing) {
    let (holding, failing) = (Holding::<objects::Call>::new(), Failing::<objects::Call>::new());
    let (outer, inner) = (Arc::clone(&holding), Arc::clone(&failing));
    let late = p.opening().with(&erasing()).objects(&Arc::new(Both(outer, inner))).open();
    let other = p.open_with(&erasing());
    let (slow, users) = (late.users(), other.users());
    let kept = users.create(json!({"n": 0})).ack_stored().await.unwrap().id;
    holding.hold(objects::Call::Put, 0);
    let id = slow.create(json!({"n": 0})).await.unwrap().id;
    holding.reached(objects::Call::Put).await;
    users.delete(&id).await.unwrap();
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    failing.switch_on(objects::Call::Delete, Fault::Before);
    holding.release(objects::Call::Put);
    assert_eq!(slow.flush(TIMEOUT).await.unwrap(), 0);
    assert_eq!(other.keys(&users).await.len(), 2, "the late payload is there");
    assert_eq!(users.collect_orphans(Duration::ZERO).await.unwrap().orphans, 1);
    assert_eq!(other.keys(&users).await, [format!("users/{kept}/v0/item.json")]);
}

/// Two layers, one around the other.
#[derive(Debug)]
struct Both<A, B>(Arc<A>, Arc<B>);

impl<C: CallKind, A: Layer<C>, B: Layer<C>> Layer<C> for Both<A, B> {
    fn around<'a, T: Send + 'a>(
        &'a self,
        call: C,
        inner: futures::future::BoxFuture<'a, chronos_db::Result<T>>,
    ) -> futures::future::BoxFuture<'a, chronos_db::Result<T>> {
        self.0.around(call, self.1.around(call, inner))
    }

    fn around_stream<T: Send + 'static>(
        &self,
        call: C,
        inner: futures::stream::BoxStream<'static, chronos_db::Result<T>>,
    ) -> futures::stream::BoxStream<'static, chronos_db::Result<T>> {
        self.0.around_stream(call, self.1.around_stream(call, inner))
    }
}

/// The writer stands still between its upload and its commit for so long that its objects are collected.
async fn an_upload_whose_commit_comes_after_its_collection_is_stored_anew(p: &Pairing) {
    let holding = Holding::<documents::Call>::new();
    let (late, other) = (p.opening().with(&erasing()).documents(&holding).open(), p.open_with(&erasing()));
    let (slow, users) = (late.users(), other.users());
    let id = slow.create(json!({"n": 0})).ack_stored().await.unwrap().id;
    holding.hold(documents::Call::SequenceThen, 0);
    let large = json!({"n": 1, "text": "x".repeat(3000), "file": STANDARD.encode("a file")});
    let change = slow.update(&id, large).into_future();
    let collection = async {
        holding.reached(documents::Call::SequenceThen).await;
        assert_eq!(users.collect_orphans(Duration::from_secs(3600)).await.unwrap().removed(), 0, "too young");
        assert_eq!(users.collect_orphans(Duration::ZERO).await.unwrap().orphans, 3);
        holding.release(documents::Call::SequenceThen);
    };
    let (changed, ()) = futures::future::join(change, collection).await;
    assert_eq!(changed.unwrap().ov, 1);
    let found = document(&users, &id).await;
    assert_eq!(found["text"], json!("x".repeat(3000)));
    let blob = found["file"]["ref"]["blobKey"].as_str().unwrap();
    assert_eq!(other.bucket().get(blob).await.unwrap().unwrap(), "a file");
    assert_eq!(other.stored(&users, "gc").await, Vec::<Document>::new());
    assert_eq!(other.keys(&users).await.len(), 4);
}

/// The collector stands still after it has condemned; whatever it finds then is a version, or never becomes
/// one.
async fn an_upload_that_is_committed_meanwhile_is_not_collected(p: &Pairing) {
    let holding = Holding::<documents::Call>::new();
    let (slow, other) = (p.opening().with(&erasing()).documents(&holding).open(), p.open_with(&erasing()));
    let (collector, users) = (slow.users(), other.users());
    let id = users.create(json!({"n": 0})).ack_stored().await.unwrap().id;
    let mut versions = 0;
    // Wherever among its calls the collector stands still.
    for passes in 0..6 {
        let (env, fail) = armable();
        let third = p.opening().with(&erasing()).env(env).open();
        fail.arm("large.before_forget", FailAction::Error(ErrorKind::Database), 0, 1);
        holding.hold(documents::Call::Apply, passes % 3);
        let text = "y".repeat(2000 + passes as usize);
        let commit = async {
            third.users().update(&id, json!({ "text": text.as_str() })).await.unwrap();
            holding.release(documents::Call::Apply);
        };
        let collecting = async { collector.collect_orphans(Duration::ZERO).await.unwrap() };
        futures::future::join(commit, collecting).await;
        versions += 1;
        assert_eq!(users.get(&id).version(versions).await.unwrap().unwrap().item["text"], json!(text));
    }
    collector.collect_orphans(Duration::ZERO).await.unwrap();
    assert_eq!(kinds(&users.verify().await.unwrap()), Vec::<&str>::new());
    assert_eq!(other.stored(&users, "gc").await, Vec::<Document>::new());
}

async fn an_upload_that_the_erasure_overtakes_leaves_nothing(p: &Pairing) {
    let holding = Holding::<documents::Call>::new();
    let (late, other) = (p.opening().with(&erasing()).documents(&holding).open(), p.open_with(&erasing()));
    let (slow, users) = (late.users(), other.users());
    let id = slow.create(json!({"n": 0})).ack_stored().await.unwrap().id;
    holding.hold(documents::Call::SequenceThen, 0);
    let change =
        slow.update(&id, json!({"text": "x".repeat(3000), "file": STANDARD.encode("a file")})).into_future();
    let erasure = async {
        holding.reached(documents::Call::SequenceThen).await;
        users.delete(&id).await.unwrap();
        assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
        holding.release(documents::Call::SequenceThen);
    };
    let (changed, ()) = futures::future::join(change, erasure).await;
    assert_eq!(refused(changed), ErrorKind::NotFound);
    assert_eq!(other.keys(&users).await, Vec::<String>::new());
    assert!(
        other.stored(&users, "gc").await.iter().all(|note| note.contains_key("eraseAgainAt")),
        "only the note of the erasure is left"
    );
}

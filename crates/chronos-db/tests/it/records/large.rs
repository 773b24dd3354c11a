//! Payloads too big to ride in their row: stored before the commit, noted, cleaned up if the commit never
//! comes.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bson::doc;
use chronos_db::documents::{Batch, Guard, Write};
use chronos_db::fail::{FailAction, FailPoints};
use chronos_db::{Collection, Env, ErrorKind, Json, json};

use super::pairing::{Pairing, Store, TIMEOUT, document, namespace, on_every_pairing, refused};

on_every_pairing!(
    a_large_payload_is_stored_before_its_commit,
    an_object_whose_commit_never_came_is_removed_later_and_no_other,
    a_large_payload_is_shared_by_deletions_and_restores,
    a_large_write_that_loses_a_race_leaves_only_a_noted_object,
);

fn small_rows() -> Json {
    json!({
        "inlineMaxBytes": 1000,
        "collectionMaps": {"users": {"indexedProps": ["id"], "base64Props": {"file": {"contentType": "text/plain"}}}},
    })
}

fn large(id: i64) -> Json {
    json!({ "id": id, "text": "x".repeat(5000) })
}

fn armable() -> (Env, FailPoints) {
    let fail = FailPoints::armable();
    (Env { fail: fail.clone(), ..Env::default() }, fail)
}

/// How many objects go, whatever their age.
async fn collected(users: &Collection) -> u64 {
    users.collect_orphans(Duration::ZERO).await.unwrap().removed()
}

async fn a_large_payload_is_stored_before_its_commit(p: &Pairing) {
    let store = p.opening().with(&small_rows()).without_cache().open();
    let users = store.users();
    let id = users.create(large(1)).await.unwrap().id;
    let keys = store.keys(&users).await;
    assert_eq!(keys.len(), 1);
    assert!(
        keys[0].starts_with(&format!("users/{id}/v0/item.")) && keys[0] != format!("users/{id}/v0/item.json"),
        "{keys:?}"
    );
    let rows = store.stored(&users, "ver").await;
    assert!(!rows[0].contains_key("inline") && !rows[0].contains_key("unflushedSince"), "{}", rows[0]);
    assert_eq!(rows[0].get_str("jsonKey").unwrap(), keys[0]);
    assert_eq!(store.stored(&users, "gc").await, [], "its commit took the note back");
    assert_eq!(document(&users, &id).await, large(1));
    let view = users.get(&id).await.unwrap().unwrap();
    assert_eq!((&view.item["_system"]["ov"], &view.item["_system"]["cv"]), (&json!(0), &json!(0)));

    // A large file makes the version large, too.
    let file = STANDARD.encode("y".repeat(3000));
    let with_file = users.create(json!({"id": 2, "file": file})).await.unwrap().id;
    assert_eq!(store.keys(&users).await.len(), 4, "item.json, blob and text beside the first");
    assert_eq!(
        document(&users, &with_file).await["file"]["ref"]["contentBucket"],
        store.stored(&users, "ver").await[1].get_str("jsonBucket").unwrap()
    );
    users.update(&id, json!({"text": "short"})).await.unwrap();
    assert_eq!(document(&users, &id).await, json!({"id": 1, "text": "short"}));
}

/// N-24, G-49.
async fn an_object_whose_commit_never_came_is_removed_later_and_no_other(p: &Pairing) {
    let (env, fail) = armable();
    let store = p.opening().with(&small_rows()).env(env).open();
    let users = store.users();
    let kept = users.create(large(1)).await.unwrap().id;
    let kept_keys = store.keys(&users).await;

    fail.arm("large.after_put", FailAction::Error(ErrorKind::Storage), 0, 1);
    assert_eq!(refused(users.create(large(2)).await), ErrorKind::Storage);
    fail.arm("large.after_put", FailAction::Error(ErrorKind::Storage), 0, 1);
    assert_eq!(refused(users.update(&kept, json!({"text": "z".repeat(2000)})).await), ErrorKind::Storage);
    fail.arm("large.after_note", FailAction::Error(ErrorKind::Storage), 0, 1);
    assert_eq!(refused(users.create(large(3)).await), ErrorKind::Storage);
    assert_eq!(users.list().await.unwrap().items.len(), 1, "nothing of it is visible");
    assert_eq!(document(&users, &kept).await, large(1));
    assert_eq!(store.keys(&users).await.len(), 3);
    let verified = users.verify().await.unwrap();
    assert_eq!((verified.noted, verified.is_clean()), (3, true));

    // A note that outlived its commit must not cost the object.
    let note = doc! {
        "_id": "a note", "bucket": store.stored(&users, "ver").await[0].get_str("jsonBucket").unwrap(), "key": &kept_keys[0],
        "itemId": kept.to_string().parse::<bson::oid::ObjectId>().unwrap(), "ov": 0, "notedAt": bson::DateTime::now(),
    };
    renote(&store, &users, note).await;
    assert_eq!(users.collect_orphans(Duration::from_secs(3600)).await.unwrap().removed(), 0, "too young");
    assert_eq!(collected(&users).await, 3);
    assert_eq!(store.keys(&users).await, kept_keys);
    assert_eq!(store.stored(&users, "gc").await, []);
    assert_eq!(collected(&users).await, 0);
    users.update(&kept, json!({"text": "z".repeat(2000)})).await.expect("the item takes the same change now");
}

async fn renote(store: &Store, users: &chronos_db::Collection, mut note: bson::Document) {
    let id = format!("{}/{}", note.get_str("bucket").unwrap(), note.get_str("key").unwrap());
    note.insert("_id", id);
    let mut batch = Batch::new();
    batch.push(&namespace(users, "gc"), Write::put(note, Guard::Any));
    store.documents().apply(batch).await.unwrap();
}

async fn a_large_payload_is_shared_by_deletions_and_restores(p: &Pairing) {
    let store = p.opening().with(&small_rows()).without_cache().open();
    let users = store.users();
    let id = users.create(large(1)).await.unwrap().id;
    users.update(&id, json!({"text": "short"})).await.unwrap();
    users.delete(&id).await.unwrap();
    users.restore(&id).to_version(0).await.unwrap();
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    assert_eq!(store.keys(&users).await.len(), 2, "nothing was copied");
    assert_eq!(collected(&users).await, 0);
    assert_eq!(document(&users, &id).await, large(1));
    users.update(&id, json!({"id": 2})).await.unwrap();
    assert_eq!(document(&users, &id).await, large(2));
}

async fn a_large_write_that_loses_a_race_leaves_only_a_noted_object(p: &Pairing) {
    let (env, fail) = armable();
    let store = p.opening().with(&small_rows()).env(env).open();
    let users = store.users();
    let id = users.create(large(1)).await.unwrap().id;
    fail.arm("commit.before_numbers", FailAction::Error(ErrorKind::Database), 0, 1);
    assert_eq!(refused(users.update(&id, json!({"text": "lost".repeat(500)})).await), ErrorKind::Database);
    users.update(&id, json!({"text": "won".repeat(500)})).await.unwrap();
    assert_eq!(store.keys(&users).await.len(), 3);
    assert_eq!(collected(&users).await, 1);
    assert_eq!(document(&users, &id).await["text"], json!("won".repeat(500)));
    assert_eq!(users.get(&id).version(0).await.unwrap().unwrap().document(), large(1));
}

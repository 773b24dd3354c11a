//! What a failover could leave behind when numbers and rows did not yet wait for a majority, and what it does
//! to numbers today: it may give them out twice, and so nothing but the `_id` of a row says that a head is
//! made from it.

use bson::oid::ObjectId;
use bson::{Document, doc};
use chronos_db::documents::{Batch, Guard, Write};
use chronos_db::{Collection, ItemId, Verification, json};
use futures::TryStreamExt as _;

use super::pairing::{Pairing, Store, TIMEOUT, document, namespace, on_every_pairing};

on_every_pairing!(
    a_counter_behind_its_rows_is_raised_and_no_write_fails,
    the_newest_row_counts_where_the_counter_is_behind_it,
    a_head_without_a_row_is_found_and_the_newest_version_put_back,
    a_head_made_from_another_row_of_its_number_is_found_and_made_anew,
    a_head_of_which_no_version_exists_is_found_and_removed,
    a_head_that_does_not_name_its_row_is_read_and_upgraded,
);

mod mark {
    use super::a_mark_beyond_the_counter_takes_the_counter_along;
    use crate::records::pairing::on_durable_pairings;

    on_durable_pairings!(a_mark_beyond_the_counter_takes_the_counter_along);
}

fn kinds(found: &Verification) -> Vec<&'static str> {
    let mut kinds: Vec<_> = found.problems.iter().map(|problem| problem.kind).collect();
    kinds.sort_unstable();
    kinds
}

async fn write(store: &Store, collection: &Collection, suffix: &str, write: Write) {
    let mut batch = Batch::new();
    batch.push(&namespace(collection, suffix), write);
    assert!(store.documents().apply(batch).await.unwrap()[0].is_applied());
}

async fn set_number(store: &Store, collection: &Collection, name: &str, value: i64) {
    write(store, collection, "counter", Write::put(doc! { "_id": name, "value": value }, Guard::Any)).await;
}

async fn number(store: &Store, collection: &Collection, name: &str) -> i64 {
    let found = store.documents().get(&namespace(collection, "counter"), vec![name.into()]).await.unwrap();
    found[0].get_i64("value").or_else(|_| found[0].get_i32("value").map(i64::from)).unwrap()
}

fn object_id(id: &ItemId) -> ObjectId {
    id.to_string().parse().unwrap()
}

async fn row(store: &Store, collection: &Collection, id: &ItemId, ov: i32) -> Document {
    let rows = store.stored(collection, "ver").await;
    rows.into_iter()
        .find(|row| {
            row.get_object_id("itemId").ok() == Some(object_id(id)) && row.get_i32("ov").ok() == Some(ov)
        })
        .unwrap()
}

async fn remove_row(store: &Store, collection: &Collection, id: &ItemId, ov: i32) {
    let row = row(store, collection, id, ov).await;
    write(store, collection, "ver", Write::Delete { id: row.get("_id").unwrap().clone(), guard: Guard::Any })
        .await;
}

/// A collection of 20 items whose counter says that one number was given out.
async fn behind(p: &Pairing) -> (Store, Collection, Vec<ItemId>) {
    let store = p.open();
    let users = store.users();
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(users.create(json!({ "n": n })).await.unwrap().id);
    }
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    set_number(&store, &users, "cv", 0).await;
    (store, users, ids)
}

async fn a_counter_behind_its_rows_is_raised_and_no_write_fails(p: &Pairing) {
    let (store, users, ids) = behind(p).await;
    let written = users.update(&ids[19], json!({ "m": 1 })).await.unwrap();
    assert!((20..24).contains(&written.cv), "one jump, not one number after the other: {}", written.cv);
    set_number(&store, &users, "cv", 0).await;
    let created = users.create(json!({ "n": 20 })).await.unwrap();
    assert!(created.cv > written.cv, "a number that has a row is not given out again");
    assert!(number(&store, &users, "cv").await >= created.cv);
}

async fn the_newest_row_counts_where_the_counter_is_behind_it(p: &Pairing) {
    let (store, users, _) = behind(p).await;
    assert_eq!(users.stable_cv().await.unwrap(), 19);
    let seen: Vec<_> = users.list().as_of_cv(19).stream().await.unwrap().try_collect().await.unwrap();
    assert_eq!(seen.len(), 20, "nothing is left out in silence");
    let restored = users.restore_collection().to_cv(19).dry_run().await.unwrap();
    assert_eq!((restored.stable_cv, restored.unchanged), (19, 20));
    // Only now does the next writer meet it.
    assert_eq!(number(&store, &users, "cv").await, 0);
}

async fn a_head_without_a_row_is_found_and_the_newest_version_put_back(p: &Pairing) {
    let store = p.opening().without_cache().open();
    let users = store.users();
    let id = users.create(json!({ "n": 0 })).ack_stored().await.unwrap().id;
    users.update(&id, json!({ "n": 1 })).ack_stored().await.unwrap();
    remove_row(&store, &users, &id, 1).await;
    assert_eq!(kinds(&users.verify().await.unwrap()), ["head-without-row"]);
    let repaired = users.verify().repair().await.unwrap();
    assert!(repaired.is_clean() && repaired.repaired >= 1, "{:#}", repaired.to_json());
    assert_eq!(document(&users, &id).await, json!({ "n": 0 }));
    assert_eq!(users.update(&id, json!({ "m": 1 })).await.unwrap().ov, 1, "versions go on without a hole");
}

async fn a_head_made_from_another_row_of_its_number_is_found_and_made_anew(p: &Pairing) {
    let store = p.opening().without_cache().open();
    let users = store.users();
    let id = users.create(json!({ "n": 0 })).ack_stored().await.unwrap().id;
    let mut head = store.head(&users, &id).await;
    assert_eq!(head.get("rowId"), row(&store, &users, &id, 0).await.get("_id"));
    head.insert("rowId", ObjectId::new());
    write(&store, &users, "head", Write::put(head, Guard::Any)).await;
    assert_eq!(kinds(&users.verify().await.unwrap()), ["wrong-head"]);
    assert!(users.verify().repair().await.unwrap().is_clean());
    assert_eq!(store.head(&users, &id).await.get("rowId"), row(&store, &users, &id, 0).await.get("_id"));
}

async fn a_head_of_which_no_version_exists_is_found_and_removed(p: &Pairing) {
    let store = p.open();
    let users = store.users();
    users.create(json!({ "n": 0 })).ack_stored().await.unwrap();
    let id = users.create(json!({ "n": 1 })).ack_stored().await.unwrap().id;
    remove_row(&store, &users, &id, 0).await;
    set_number(&store, &users, "cv", 0).await;
    // The number is given out again, so it never was that row's.
    assert_eq!(users.create(json!({ "n": 2 })).await.unwrap().cv, 1);
    assert_eq!(kinds(&users.verify().await.unwrap()), ["missing-rows"]);
    let repaired = users.verify().repair().await.unwrap();
    assert!(repaired.is_clean() && repaired.repaired >= 1, "{:#}", repaired.to_json());
    assert!(users.get(&id).await.unwrap().is_none());
}

async fn a_head_that_does_not_name_its_row_is_read_and_upgraded(p: &Pairing) {
    let store = p.open();
    let users = store.users();
    let id = users.create(json!({ "n": 0 })).ack_stored().await.unwrap().id;
    let mut head = store.head(&users, &id).await;
    head.remove("rowId").unwrap();
    write(&store, &users, "head", Write::put(head, Guard::Any)).await;
    assert!(users.verify().await.unwrap().is_clean());
    assert_eq!(document(&users, &id).await, json!({ "n": 0 }));
    assert_eq!(users.update(&id, json!({ "n": 1 })).ack_stored().await.unwrap().ov, 1);
    assert_eq!(store.head(&users, &id).await.get("rowId"), row(&store, &users, &id, 1).await.get("_id"));
}

async fn a_mark_beyond_the_counter_takes_the_counter_along(p: &Pairing) {
    let store = p.open();
    let users = store.users();
    users.create(json!({ "n": 0 })).ack_stored().await.unwrap();
    set_number(&store, &users, "stable", 3).await;
    // Another process: it looks at both once, before its first write.
    let other = p.open().users();
    assert_eq!(
        other.create(json!({ "n": 1 })).await.unwrap().cv,
        4,
        "nothing at or below the mark changes any more"
    );
    assert_eq!(other.stable_cv().await.unwrap(), 4);
}

//! Readers of a past that is settled, and restores to it.

use std::time::Duration;

use bson::{Bson, Document, oid::ObjectId};
use chronos_db::documents::{Batch, Direction, DocumentStore, Outcome, Write};
use chronos_db::{Collection, ItemId, Timestamp, View, json};
use futures::TryStreamExt as _;
use test_support::{Failing, Fault, documents};

use super::pairing::{Pairing, Store, minute, namespace, on_every_pairing};

on_every_pairing!(
    a_version_on_its_way_is_waited_for_by_who_reads_the_past,
    a_number_that_never_gets_a_row_is_closed_before_the_past_is_read,
    the_past_of_long_ago_is_read_without_waiting_for_anybody,
    a_locked_item_holds_up_the_restore_of_no_other,
);

mod durable {
    use super::a_reader_that_may_not_write_waits_for_who_may;
    use crate::records::pairing::on_durable_pairings;

    on_durable_pairings!(a_reader_that_may_not_write_waits_for_who_may);
}

/// A writer of another process that has taken a number, and the row it will write.
struct OnItsWay {
    row: Document,
    taken: chronos_db::documents::Sequence,
}

async fn on_its_way(store: &Store, users: &Collection, id: &ItemId) -> OnItsWay {
    assert_eq!(users.flush(super::pairing::TIMEOUT).await.unwrap(), 0);
    let mut row = store
        .stored(users, "ver")
        .await
        .into_iter()
        .find(|row| row.get_object_id("itemId").unwrap().to_hex() == id.to_string())
        .unwrap();
    let taken = loop {
        // Later than what is there by a millisecond at least.
        let now = store.documents().now().await.unwrap();
        if now > Timestamp::from(*row.get_datetime("at").unwrap()) {
            break store.documents().sequence(&namespace(users, "counter"), "cv", 1).await.unwrap();
        }
        tokio::task::yield_now().await;
    };
    row.extend(bson::doc! { "_id": ObjectId::new(), "ov": 1, "cv": i32::try_from(taken.first).unwrap(), "op": "UPDATE", "payloadOv": 0, "prevOv": 0 });
    row.insert("at", Bson::from(taken.now));
    OnItsWay { row, taken }
}

async fn insert(documents: &dyn DocumentStore, users: &Collection, row: Document) -> Outcome {
    let mut batch = Batch::new();
    batch.push(&namespace(users, "ver"), Write::insert(row));
    documents.apply(batch).await.unwrap().remove(0)
}

/// What the past says: of an item by time and by number, and in lists.
async fn past(users: &Collection, id: &ItemId, at: Timestamp, cv: i64) -> Vec<i64> {
    let ov = |view: Option<View>| view.map_or(-1, |view| view.ov);
    vec![
        ov(users.get(id).as_of(at).await.unwrap()),
        ov(users.get(id).as_of_cv(cv).await.unwrap()),
        users.list().as_of(at).await.unwrap().items[0].ov,
        users.list().sort("cv", Direction::Descending).as_of_cv(cv).await.unwrap().items[0].ov,
        users.list().as_of(at).stream().await.unwrap().try_next().await.unwrap().unwrap().ov,
    ]
}

/// Else the same question would have two answers: one before the row comes, another one after.
async fn a_version_on_its_way_is_waited_for_by_who_reads_the_past(p: &Pairing) {
    let store = p.open();
    let users = store.users();
    let id = users.create(json!({"n": 0})).await.unwrap().id;
    let OnItsWay { row, taken } = on_its_way(&store, &users, &id).await;
    let asked = users.clone();
    let mut answer = tokio::spawn(async move { past(&asked, &id, taken.now, taken.first).await });
    let early = tokio::time::timeout(Duration::from_millis(300), &mut answer).await;
    assert!(early.is_err(), "answered before the row was there: {early:?}");
    assert!(insert(&*store.documents(), &users, row).await.is_applied());
    assert_eq!(answer.await.unwrap(), [1; 5]);
    assert_eq!(past(&users, &id, taken.now, taken.first).await, [1; 5]);
}

async fn a_number_that_never_gets_a_row_is_closed_before_the_past_is_read(p: &Pairing) {
    let store = p.open();
    let users = store.users();
    let id = users.create(json!({"n": 0})).await.unwrap().id;
    let OnItsWay { row, taken } = on_its_way(&store, &users, &id).await;
    assert_eq!(past(&users, &id, taken.now, taken.first).await, [0; 5]);
    assert!(
        matches!(insert(&*store.documents(), &users, row).await, Outcome::Conflict { .. }),
        "it comes too late for this past"
    );
    assert_eq!(past(&users, &id, taken.now, taken.first).await, [0; 5]);
}

async fn the_past_of_long_ago_is_read_without_waiting_for_anybody(p: &Pairing) {
    let store = p.open();
    let users = store.users();
    let id = users.create(json!({"n": 0})).at(minute(1)).await.unwrap().id;
    // What is settled once needs no other look at the numbers.
    assert_eq!(users.get(&id).as_of(minute(2)).await.unwrap().unwrap().ov, 0);
    let OnItsWay { row, taken } = on_its_way(&store, &users, &id).await;
    let answer = tokio::time::timeout(Duration::from_millis(1_500), past(&users, &id, minute(2), 0)).await;
    assert_eq!(answer.unwrap(), [0; 5]);
    assert!(insert(&*store.documents(), &users, row).await.is_applied());
    assert_eq!(past(&users, &id, taken.now, taken.first).await, [1; 5]);
}

async fn a_reader_that_may_not_write_waits_for_who_may(p: &Pairing) {
    let refusing = Failing::<documents::Call>::new();
    let (store, reader) = (p.open(), p.opening().documents(&refusing).open());
    let (users, read) = (store.users(), reader.users());
    let id = users.create(json!({"n": 0})).await.unwrap().id;
    let OnItsWay { row, taken } = on_its_way(&store, &users, &id).await;
    refusing.switch_on(documents::Call::Apply, Fault::Refused);
    let answer = tokio::spawn(async move { past(&read, &id, taken.now, taken.first).await });
    // Until it has tried to close the number.
    while refusing.injected() == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(insert(&*store.documents(), &users, row).await.is_applied());
    assert_eq!(answer.await.unwrap(), [1; 5]);
    refusing.switch_off();
}

/// R22.
async fn a_locked_item_holds_up_the_restore_of_no_other(p: &Pairing) {
    let users = p.open().users();
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(users.create(json!({ "n": n })).await.unwrap().id);
    }
    for id in &ids {
        users.update(id, json!({"n": 9})).await.unwrap();
    }
    let lock = users.lock(&ids[2]).await.unwrap();
    let done = users.restore_collection().to_cv(4).await.unwrap();
    assert_eq!((done.items, done.restored, done.failed), (5, 4, 1), "{done:?}");
    let problem = &done.problems[0];
    assert_eq!((problem.id.as_deref(), problem.code.as_str()), (Some(ids[2].to_string().as_str()), "LOCKED"));
    lock.release().await.unwrap();
    let rest = users.restore_collection().to_cv(4).await.unwrap();
    assert_eq!((rest.restored, rest.unchanged, rest.failed), (1, 4, 0));
}

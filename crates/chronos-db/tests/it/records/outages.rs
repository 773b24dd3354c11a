//! Stores that fail: what was acknowledged is there, what was refused is not, and nothing is half.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chronos_db::{Env, ErrorKind, json};
use test_support::{Failing, Fault, MockClock, documents, objects};

use super::pairing::{Kind, Pairing, TIMEOUT, document, on_every_pairing, refused};

on_every_pairing!(
    writes_go_on_while_the_storage_is_down_and_are_stored_after_it,
    a_write_that_waits_for_its_object_says_when_it_is_not_stored,
    what_is_too_big_to_ride_fails_while_the_storage_is_down,
    a_lost_answer_is_not_a_lost_write,
    a_write_that_never_reached_the_database_is_refused_and_leaves_nothing,
    reads_fail_while_the_database_is_down_and_work_after_it,
    a_flusher_whose_database_fails_tries_again,
);

async fn writes_go_on_while_the_storage_is_down_and_are_stored_after_it(p: &Pairing) {
    let storage = Failing::<objects::Call>::new();
    let maps = json!({"collectionMaps": {"users": {"base64Props": {"file": {"contentType": "text/plain"}}}}});
    let store = p.opening().with(&maps).objects(&storage).without_cache().open();
    let users = store.users();
    storage.switch_all_on(Fault::Before);
    let id = users.create(json!({"n": 0, "file": STANDARD.encode("hello")})).await.unwrap().id;
    users.update(&id, json!({"n": 1})).await.unwrap();
    users.enrich(&id, json!({"tags": ["a"]})).await.unwrap();
    let deleted = users.create(json!({"n": 5})).await.unwrap().id;
    users.delete(&deleted).await.unwrap();
    users.restore(&deleted).to_version(0).await.unwrap();

    assert_eq!(users.get(&id).await.unwrap().unwrap().item["_system"]["state"], json!("new-not-synched"));
    assert_eq!(document(&users, &id).await["tags"], json!(["a"]), "reads come from the rows");
    assert_eq!(users.get(&id).version(0).await.unwrap().unwrap().item["n"], json!(0));
    assert_eq!(document(&users, &deleted).await, json!({"n": 5}));
    assert_eq!(users.list().await.unwrap().items.len(), 2);
    assert!(users.verify().await.unwrap().is_clean(), "what waits is not damage");
    assert_eq!(users.flush(Duration::from_millis(50)).await.unwrap(), 4);
    assert_eq!(store.keys(&users).await, Vec::<String>::new());

    storage.switch_off();
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    assert_eq!(store.keys(&users).await.len(), 6, "four payloads, a blob and its text");
    assert_eq!(users.get(&id).await.unwrap().unwrap().item["_system"]["state"], json!("new"));
    assert_eq!(document(&users, &id).await["n"], json!(1));
    for row in store.stored(&users, "ver").await {
        assert!(!row.contains_key("inline") && !row.contains_key("riders"), "{row}");
    }
}

async fn a_write_that_waits_for_its_object_says_when_it_is_not_stored(p: &Pairing) {
    let storage = Failing::<objects::Call>::new();
    let store = p.opening().objects(&storage).open();
    let users = store.users();
    let id = users.create(json!({"n": 0})).ack_stored().await.unwrap().id;
    assert_eq!(store.keys(&users).await.len(), 1);
    storage.switch_on(objects::Call::Put, Fault::Before);
    let error = users.update(&id, json!({"n": 1})).ack_stored().await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Storage, true));
    assert!(error.message().contains("version 1 is committed"), "{error}");
    assert_eq!(document(&users, &id).await, json!({"n": 1}));
    storage.switch_off();
    users.update(&id, json!({"n": 2})).ack_stored().await.unwrap();
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    assert_eq!(store.keys(&users).await.len(), 3);
}

async fn what_is_too_big_to_ride_fails_while_the_storage_is_down(p: &Pairing) {
    let storage = Failing::<objects::Call>::new();
    let store = p.opening().with(&json!({"inlineMaxBytes": 100})).objects(&storage).open();
    let users = store.users();
    let id = users.create(json!({"n": 0})).await.unwrap().id;
    storage.switch_all_on(Fault::Before);
    let large = json!({"text": "x".repeat(500)});
    assert_eq!(refused(users.create(large.clone()).await), ErrorKind::Storage);
    assert_eq!(refused(users.update(&id, large.clone()).await), ErrorKind::Storage);
    storage.switch_off();
    assert_eq!(users.history(&id).await.unwrap().len(), 1);
    assert_eq!(users.update(&id, large).await.unwrap().ov, 1);
}

/// Rule 3: the request takes place, its answer is lost.
async fn a_lost_answer_is_not_a_lost_write(p: &Pairing) {
    let database = Failing::<documents::Call>::new();
    let store = p.opening().documents(&database).open();
    let users = store.users();
    let id = users.create(json!({"n": 0})).await.unwrap().id;
    let lose = || database.fail_nth(documents::Call::SequenceThen, 1, Fault::After);
    lose();
    let created = users.create(json!({"n": 7})).await.unwrap();
    assert_eq!(document(&users, &created.id).await, json!({"n": 7}));
    lose();
    assert_eq!(users.update(&id, json!({"n": 1})).expect_ov(0).await.unwrap().ov, 1);
    lose();
    assert_eq!(users.enrich(&id, json!({"m": 1})).await.unwrap().ov, 2);
    lose();
    assert_eq!(users.delete(&id).await.unwrap().ov, 3);
    lose();
    assert_eq!(users.restore(&id).to_version(1).await.unwrap().ov, 4);
    assert_eq!(document(&users, &id).await, json!({"n": 1}));
    assert_eq!(users.history(&id).await.unwrap().len(), 5);
    let found = users.verify().await.unwrap();
    assert_eq!((found.versions, found.voids, found.stable_cv), (6, 0, 5), "{:#}", found.to_json());
}

async fn a_write_that_never_reached_the_database_is_refused_and_leaves_nothing(p: &Pairing) {
    let database = Failing::<documents::Call>::new();
    let store = p.opening().documents(&database).open();
    let users = store.users();
    let id = users.create(json!({"n": 0})).await.unwrap().id;
    let mut written = 1;
    for (n, call) in [documents::Call::SequenceThen, documents::Call::Get, documents::Call::SequenceThen]
        .into_iter()
        .enumerate()
    {
        database.fail_nth(call, 1, Fault::Before);
        let error = users.update(&id, json!({ "lost": n })).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.code(), error.is_retryable()),
            (ErrorKind::Database, "TXN_ERROR", true),
            "{call:?}: {error}"
        );
        users.update(&id, json!({ "kept": n })).await.unwrap();
        written += 1;
    }
    database.fail_nth(documents::Call::SequenceThen, 1, Fault::Before);
    assert_eq!(refused(users.create(json!({"n": 8})).await), ErrorKind::Database);
    assert_eq!(document(&users, &id).await, json!({"n": 0, "kept": 2}));
    assert_eq!(users.list().include_deleted().await.unwrap().items.len(), 1);
    let found = users.verify().await.unwrap();
    assert_eq!(
        (found.versions, found.stable_cv + 1 - i64::try_from(found.voids).unwrap()),
        (written, i64::try_from(written).unwrap())
    );
}

async fn reads_fail_while_the_database_is_down_and_work_after_it(p: &Pairing) {
    let database = Failing::<documents::Call>::new();
    let store = p.opening().documents(&database).open();
    let users = store.users();
    let id = users.create(json!({"n": 0})).ack_stored().await.unwrap().id;
    database.switch_all_on(Fault::Before);
    assert_eq!(refused(users.get(&id).await), ErrorKind::Database);
    assert_eq!(refused(users.list().await), ErrorKind::Database);
    assert_eq!(refused(users.history(&id).await), ErrorKind::Database);
    assert_eq!(refused(users.verify().await), ErrorKind::Database);
    assert_eq!(refused(users.stable_cv().await), ErrorKind::Database);
    database.switch_off();
    assert_eq!(document(&users, &id).await, json!({"n": 0}));
}

async fn a_flusher_whose_database_fails_tries_again(p: &Pairing) {
    let database = Failing::<documents::Call>::new();
    let store = p.opening().documents(&database).open();
    let users = store.users();
    let id = users.create(json!({"n": 0})).ack_stored().await.unwrap().id;
    // The commit itself is one call; what follows it is the flusher's.
    database.fail_nth(documents::Call::Apply, 1, Fault::Before);
    users.update(&id, json!({"n": 1})).await.unwrap();
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    database.fail_nth(documents::Call::Apply, 1, Fault::After);
    users.update(&id, json!({"n": 2})).await.unwrap();
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    assert_eq!(database.injected(), 2);
    assert_eq!(store.keys(&users).await.len(), 3);
}

/// The waits between tries go by the clock: an outage of hours costs tries, not a processor.
#[tokio::test]
async fn a_storage_that_is_down_is_tried_again_after_growing_waits() {
    let pairing = Pairing::new(Kind::EmbeddedMemory);
    let clock = Arc::new(MockClock::default());
    let storage = Failing::<objects::Call>::new();
    let store =
        pairing.opening().env(Env { clock: clock.clone(), ..Env::default() }).objects(&storage).open();
    let users = store.users();
    storage.switch_all_on(Fault::Before);
    let id = users.create(json!({"n": 0})).await.unwrap().id;
    let mut waits = Vec::new();
    for tries in 1..=10 {
        clock.sleepers(1).await;
        assert_eq!(storage.injected(), tries);
        waits.push(clock.next_wake().unwrap().as_millis() - chronos_db::Clock::now(&*clock).as_millis());
        assert!(clock.advance_to_next());
    }
    assert_eq!(waits, [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000]);
    clock.sleepers(1).await;
    storage.switch_off();
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0, "a drain does not wait for the next try");
    assert_eq!(document(&users, &id).await, json!({"n": 0}));
    pairing.finish().await;
}

//! On its way into the object storage no version waits for another one, and nobody waits for ever.

use std::sync::Arc;
use std::time::Duration;

use bson::{Bson, Document};
use chronos_db::documents::{Batch, Guard, Write};
use chronos_db::{Collection, Env, ErrorKind, FlushReport, ItemId, json};
use futures::future::join_all;
use test_support::{Failing, Fault, Holding, MockClock, Selective, documents, objects};

use super::pairing::{Pairing, Store, TIMEOUT, document, namespace, on_every_pairing, system};

on_every_pairing!(
    a_version_that_cannot_be_stored_holds_up_no_other,
    a_put_that_never_ends_holds_up_no_other,
    an_erasure_waits_for_no_object_that_cannot_be_stored,
    what_waits_for_an_erasure_and_what_it_waits_for_come_to_their_end,
    an_outage_is_noticed_by_some_versions_and_not_tried_by_all,
    who_waits_for_an_object_hears_that_another_process_stored_it,
    who_waits_for_an_object_hears_of_the_shutdown,
    a_shutdown_ends_within_its_limit_and_says_what_it_left,
    a_panic_of_a_store_wedges_nothing,
    a_collection_at_work_stays_open_without_a_handle,
);

/// Of two processes.
mod shared {
    use super::super::pairing::on_durable_pairings;
    use super::{
        a_short_process_waits_for_its_own_versions_only, what_others_left_is_put_within_a_bound_of_bytes,
        who_waits_for_an_object_hears_that_its_version_was_erased,
    };

    on_durable_pairings!(
        a_short_process_waits_for_its_own_versions_only,
        what_others_left_is_put_within_a_bound_of_bytes,
        who_waits_for_an_object_hears_that_its_version_was_erased,
    );
}

/// Drains until the report is as wanted.
async fn until(users: &Collection, wanted: impl Fn(&FlushReport) -> bool) -> FlushReport {
    let began = std::time::Instant::now();
    loop {
        let report = users.flush(Duration::from_millis(50)).await.unwrap();
        if wanted(&report) {
            return report;
        }
        assert!(began.elapsed() < TIMEOUT, "{report:?}");
    }
}

async fn create(users: &Collection, count: usize) -> Vec<ItemId> {
    let created = join_all((0..count).map(|n| users.create(json!({ "n": n })).into_future())).await;
    created.into_iter().map(|created| created.unwrap().id).collect()
}

async fn a_version_that_cannot_be_stored_holds_up_no_other(p: &Pairing) {
    let storage = Selective::new();
    let store = p.opening().selective(&storage).open();
    let users = store.users();
    let held = users.create(json!({"n": -1})).await.unwrap().id;
    storage.refuse(format!("{held}/v1"));
    users.update(&held, json!({"n": -2})).await.unwrap();
    create(&users, 150).await;
    users.update(&held, json!({"n": -3})).await.unwrap();

    let report = until(&users, |report| *report == 1).await;
    assert_eq!((report.own, report.failed, report.failing.len()), (1, 1, 1));
    let failing = &report.failing[0];
    assert_eq!((failing.collection.as_str(), failing.id, failing.ov), ("users", held, 1));
    assert!(failing.error.message().contains("is not taken") && failing.tries > 0, "{failing:?}");
    assert_eq!(store.keys(&users).await.len(), 152);
    // What comes later is stored at once, too.
    let later = users.create(json!({"n": -4})).ack_stored().await.unwrap().id;
    assert_eq!(system(&users, &later).await["state"], json!("new"));
    assert_eq!(storage.begun(&later.to_string()), 1);

    storage.take_all();
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    assert_eq!(store.keys(&users).await.len(), 154);
}

async fn a_put_that_never_ends_holds_up_no_other(p: &Pairing) {
    let storage = Selective::new();
    let store = p.opening().selective(&storage).open();
    let users = store.users();
    let held = users.create(json!({"n": -1})).await.unwrap().id;
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    storage.hang(held.to_string());
    users.update(&held, json!({"n": -2})).await.unwrap();
    create(&users, 150).await;
    assert_eq!(until(&users, |report| *report == 1).await.own, 1);
    assert_eq!(store.keys(&users).await.len(), 151);
    // The put of this process hangs for good; another one stores the version.
    store.chronos.shutdown_within(Duration::from_millis(100)).await.unwrap();
    store.is_damaged();
}

async fn an_erasure_waits_for_no_object_that_cannot_be_stored(p: &Pairing) {
    let storage = Selective::new();
    let store = p.opening().with(&json!({"logicalDelete": {"enabled": false}})).selective(&storage).open();
    let users = store.users();
    let ids = create(&users, 2).await;
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    storage.refuse(ids[0].to_string());
    users.update(&ids[0], json!({"n": 7})).await.unwrap();
    until(&users, |report| report.failed == 1).await;
    users.delete(&ids[1]).await.unwrap();
    until(&users, |report| *report == 1).await;
    let keys = store.keys(&users).await;
    assert!(keys.iter().all(|key| key.contains(&ids[0].to_string())), "{keys:?}");
    // What cannot be stored is erased, too.
    users.delete(&ids[0]).await.unwrap();
    until(&users, |report| *report == 0).await;
    assert_eq!(store.keys(&users).await, Vec::<String>::new());
    storage.take_all();
}

async fn what_waits_for_an_erasure_and_what_it_waits_for_come_to_their_end(p: &Pairing) {
    let storage = Selective::new();
    let store = p.opening().with(&json!({"logicalDelete": {"enabled": false}})).selective(&storage).open();
    let users = store.users();
    let id = create(&users, 1).await[0];
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    // One version is being put, another one could not be and is tried again, the erasure waits between them.
    storage.refuse(format!("{id}/v1"));
    users.update(&id, json!({"n": 1})).await.unwrap();
    until(&users, |report| report.failed == 1).await;
    storage.hold(format!("{id}/v2"));
    users.update(&id, json!({"n": 2})).await.unwrap();
    until(&users, |_| storage.begun(&format!("{id}/v2")) == 1).await;
    users.delete(&id).await.unwrap();
    until(&users, |report| report.waiting == 3).await;
    for _ in 0..5 {
        users.flush(Duration::from_millis(100)).await.unwrap();
    }
    storage.take_all();
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    assert_eq!(store.keys(&users).await, Vec::<String>::new());
}

/// While the storage is down new versions do not make the flusher try it; the pauses between tries grow, and one
/// success ends them.
async fn an_outage_is_noticed_by_some_versions_and_not_tried_by_all(p: &Pairing) {
    let (clock, storage) = (Arc::new(MockClock::default()), Selective::new());
    let env = Env { clock: clock.clone(), ..Env::default() };
    let store = p.opening().env(env).selective(&storage).open();
    let users = store.users();
    storage.refuse("users/");
    create(&users, 300).await;
    // The flusher pauses: it sleeps, and has nothing under way.
    let paused = async || {
        clock.sleepers(1).await;
        let mut begun = storage.begun("");
        loop {
            for _ in 0..200 {
                tokio::task::yield_now().await;
            }
            if std::mem::replace(&mut begun, storage.begun("")) == begun {
                return begun;
            }
        }
    };
    let first = paused().await;
    assert!(first <= 32, "{first} of 300 were tried before the outage was noticed");
    create(&users, 100).await;
    assert_eq!(paused().await, first, "a write does not cause another try");
    let error = users.create(json!({"n": -1})).ack_stored().await.unwrap_err();
    assert!(error.message().contains("is committed, but not stored yet"), "{error}");
    for _ in 0..10 {
        let before = paused().await;
        assert!(clock.advance_to_next());
        let tried = paused().await - before;
        assert!(tried <= 8, "{tried} tries after a pause");
    }
    storage.take_all();
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    assert_eq!(store.keys(&users).await.len(), 401);
}

async fn row_of(store: &Store, users: &Collection, id: &ItemId) -> Document {
    let rows = store.stored(users, "ver").await;
    rows.into_iter()
        .find(|row| row.get_object_id("itemId").is_ok_and(|item| item.to_hex() == id.to_string()))
        .unwrap()
}

async fn put_row(store: &Store, users: &Collection, row: Document) {
    let mut batch = Batch::new();
    batch.push(&namespace(users, "ver"), Write::put(row, Guard::Any));
    store.documents().apply(batch).await.unwrap();
}

async fn who_waits_for_an_object_hears_that_another_process_stored_it(p: &Pairing) {
    let (clock, storage) = (Arc::new(MockClock::default()), Selective::new());
    let store = p.opening().env(Env { clock: clock.clone(), ..Env::default() }).selective(&storage).open();
    let users = store.users();
    storage.hang("users/");
    let created = tokio::spawn(users.create(json!({"n": 0})).ack_stored().into_future());
    clock.sleepers(1).await;
    while storage.begun("") == 0 {
        tokio::task::yield_now().await;
    }
    // As another process leaves the row when it has put the object.
    let mut row = store.stored(&users, "ver").await.remove(0);
    let bytes = row.get_binary_generic("inline").unwrap().clone();
    store
        .bucket()
        .put(row.get_str("jsonKey").unwrap(), bytes.into(), chronos_db::objects::PutOptions::default())
        .await
        .unwrap();
    for field in ["inline", "unflushedSince"] {
        row.remove(field);
    }
    row.insert("state", "new");
    put_row(&store, &users, row).await;
    clock.advance(Duration::from_secs(5));
    let id = created.await.unwrap().unwrap().id;
    assert_eq!(document(&users, &id).await, json!({"n": 0}));
    let shutdown = store.chronos.shutdown_within(Duration::from_secs(1)).into_future();
    let (left, ()) = futures::join!(shutdown, async {
        clock.sleepers(1).await;
        clock.advance(Duration::from_secs(1));
    });
    left.unwrap();
    store.is_damaged();
}

async fn who_waits_for_an_object_hears_that_its_version_was_erased(p: &Pairing) {
    let (clock, storage) = (Arc::new(MockClock::default()), Selective::new());
    let one = p.opening().env(Env { clock: clock.clone(), ..Env::default() }).selective(&storage).open();
    let (users, other) = (one.users(), p.open_with(&json!({"logicalDelete": {"enabled": false}})).users());
    storage.hang("users/");
    let created = tokio::spawn(users.create(json!({"n": 0})).ack_stored().into_future());
    clock.sleepers(1).await;
    let row = one.stored(&users, "ver").await.remove(0);
    let id: ItemId = row.get_object_id("itemId").unwrap().to_hex().parse().unwrap();
    other.delete(&id).ack_stored().await.unwrap();
    clock.advance(Duration::from_secs(5));
    let error = created.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.message().contains("erased before it was stored"), "{error}");
    let shutdown = one.chronos.shutdown_within(Duration::from_secs(1)).into_future();
    let (left, ()) = futures::join!(shutdown, async {
        clock.sleepers(1).await;
        clock.advance(Duration::from_secs(1));
    });
    left.unwrap();
    one.is_damaged();
}

async fn who_waits_for_an_object_hears_of_the_shutdown(p: &Pairing) {
    let storage = Selective::new();
    let store = p.opening().selective(&storage).open();
    let users = store.users();
    storage.hang("users/");
    let created = tokio::spawn(users.create(json!({"n": 0})).ack_stored().into_future());
    while storage.begun("") == 0 {
        tokio::task::yield_now().await;
    }
    let left = store.chronos.shutdown_within(Duration::from_millis(100)).await.unwrap();
    assert_eq!((left.len(), left[0].collection.as_str(), left[0].versions), (1, "users", 1));
    let error = created.await.unwrap().unwrap_err();
    assert!(error.kind() == ErrorKind::Storage || error.kind() == ErrorKind::Database, "{error}");
    store.is_damaged();
}

async fn a_shutdown_ends_within_its_limit_and_says_what_it_left(p: &Pairing) {
    let storage = Selective::new();
    let store = p.opening().selective(&storage).open();
    let (users, things) = (store.users(), store.collection("things"));
    storage.hang("users/");
    create(&users, 5).await;
    create(&things, 5).await;
    assert_eq!(things.flush(TIMEOUT).await.unwrap(), 0);
    let began = std::time::Instant::now();
    let left = store.chronos.shutdown_within(Duration::from_millis(200)).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(
        left.iter().map(|left| (left.collection.as_str(), left.versions)).collect::<Vec<_>>(),
        [("users", 5)]
    );
    store.is_damaged();
}

/// The caller of a call that panics gets the panic, or an error; the next call works.
async fn a_panic_of_a_store_wedges_nothing(p: &Pairing) {
    let (database, storage) = (Failing::<documents::Call>::new(), Selective::new());
    let store = p.opening().documents(&database).selective(&storage).without_cache().open();
    let users = store.users();
    let id = users.create(json!({"n": 0})).ack_stored().await.unwrap().id;
    // More often than there are places for groups and for reads.
    for n in 0..5 {
        database.fail_nth(documents::Call::SequenceThen, 1, Fault::Panic);
        let error = users.create(json!({"n": -1})).await.unwrap_err();
        assert!(error.message().contains("given up"), "{error}");
        users.update(&id, json!({ "m": n })).await.unwrap();
        database.fail_nth(documents::Call::Get, 1, Fault::Panic);
        let (users, id) = (users.clone(), id);
        let read = join_all((0..3).map(|_| tokio::spawn(users.get(&id).into_future()))).await;
        assert!(read.iter().any(|read| !matches!(read, Ok(Ok(Some(_))))));
        users.get(&id).await.unwrap().unwrap();
    }
    for call in [documents::Call::Apply, documents::Call::Scan, documents::Call::Now] {
        database.fail_nth(call, 1, Fault::Panic);
        let before = database.injected();
        users.update(&id, json!({ "call": format!("{call:?}") })).await.unwrap();
        // The flusher meets it while it stores, or while it looks for what others left.
        while database.injected() == before {
            let (users, drain) = (users.clone(), Duration::from_millis(20));
            drop(tokio::spawn(async move { users.flush(drain).await }).await);
        }
        until(&users, |report| *report == 0).await;
    }
    storage.panic_once(id.to_string());
    users.update(&id, json!({"n": 9})).await.unwrap();
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    assert_eq!(document(&users, &id).await["n"], json!(9));
}

/// What others left is stored beside it, or named.
async fn a_short_process_waits_for_its_own_versions_only(p: &Pairing) {
    let storage = Selective::new();
    storage.hang("users/");
    let one = p.opening().selective(&storage).open();
    let left = one.users();
    let ids = create(&left, 40).await;
    one.chronos.shutdown_within(Duration::from_millis(50)).await.unwrap();
    one.is_damaged();

    let plan = Selective::new();
    for id in &ids {
        plan.hang(id.to_string());
    }
    let two = p.opening().selective(&plan).open();
    let users = two.users();
    // They wait for long by now.
    for id in &ids {
        let mut row = row_of(&two, &users, id).await;
        let Some(Bson::DateTime(since)) = row.get("unflushedSince").cloned() else { panic!("{row}") };
        row.insert("unflushedSince", bson::DateTime::from_millis(since.timestamp_millis() - 60_000));
        put_row(&two, &users, row).await;
    }
    let mine = users.create(json!({"mine": true})).await.unwrap().id;
    let report = users.flush_local(TIMEOUT).await.unwrap();
    assert_eq!((report.own, report.left, report.waiting), (0, 40, 40), "{report:?}");
    assert_eq!(system(&users, &mine).await["state"], json!("new"));
    assert_eq!(two.chronos.shutdown_within(Duration::from_millis(50)).await.unwrap(), []);
    two.is_damaged();

    let three = p.open().users();
    assert_eq!(three.flush(TIMEOUT).await.unwrap(), 0);
    assert_eq!(document(&three, &ids[7]).await, json!({"n": 7}));
}

/// M12: rows of several MiB each that a process left; the process that stores them holds few of them at once.
async fn what_others_left_is_put_within_a_bound_of_bytes(p: &Pairing) {
    const LEFT: u64 = 6;
    const LARGE: usize = 6 * 1024 * 1024;
    let config = json!({ "inlineMaxBytes": 2 * LARGE });
    let storage = Failing::<objects::Call>::new();
    let one = p.opening().with(&config).objects(&storage).open();
    let left = one.users();
    left.create(json!({"first": true})).ack_stored().await.unwrap();
    storage.switch_all_on(Fault::Before);
    let mut ids = Vec::new();
    for n in 0..LEFT {
        ids.push(left.create(json!({ "n": n, "text": "x".repeat(LARGE) })).await.unwrap().id);
    }
    one.chronos.shutdown_within(Duration::from_millis(50)).await.unwrap();
    one.is_damaged();

    let holding = Holding::<objects::Call>::new();
    let two = p.opening().with(&config).objects(&holding).open();
    let users = two.users();
    for id in &ids {
        let mut row = row_of(&two, &users, id).await;
        let Some(Bson::DateTime(since)) = row.get("unflushedSince").cloned() else { panic!("{row}") };
        row.insert("unflushedSince", bson::DateTime::from_millis(since.timestamp_millis() - 60_000));
        put_row(&two, &users, row).await;
    }
    holding.hold(objects::Call::Put, 0);
    assert_eq!(users.flush(Duration::from_millis(500)).await.unwrap(), LEFT);
    holding.reached(objects::Call::Put).await;
    let begun = holding.count(objects::Call::Put);
    assert!(begun <= 3, "{begun} puts of {LARGE} bytes are under way at once");
    // One of this process's own is not held up by them.
    let mine = users.create(json!({"mine": true})).await.unwrap().id;
    assert_eq!(users.flush(Duration::from_millis(500)).await.unwrap(), LEFT + 1);
    let begun = holding.count(objects::Call::Put);
    assert!((begun..=4).contains(&begun), "{begun} puts are under way with one of this process's own");
    holding.release(objects::Call::Put);
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    assert_eq!(holding.count(objects::Call::Put), LEFT + 1, "each of them once");
    assert_eq!(document(&users, &mine).await, json!({"mine": true}));
}

/// Collections that nobody uses go when there are many.
async fn a_collection_at_work_stays_open_without_a_handle(p: &Pairing) {
    const MANY: usize = 1_100;
    let hold = Holding::new();
    let chronos = p.opening().objects(&hold).open().chronos;
    hold.hold(objects::Call::Put, 0);
    let collection = |name: &str| {
        let route = chronos_db::Route::runtime().tenant("acme").collection(name);
        chronos.with(route).unwrap()
    };
    collection("at-work").create(json!({"n": 1})).await.unwrap();
    hold.reached(objects::Call::Put).await;
    for n in 0..MANY {
        collection(&format!("idle{n}"));
    }
    let left = chronos.shutdown_within(Duration::from_millis(100)).await.unwrap();
    let left: Vec<_> = left.iter().map(|left| (left.collection.as_str(), left.versions)).collect();
    assert_eq!(left, [("at-work", 1)]);
    hold.release(objects::Call::Put);
}

//! Leases on items.

use std::sync::Arc;
use std::time::Duration;

use bson::doc;
use chronos_db::documents::{Batch, Guard, Write};
use chronos_db::{Clock as _, Collection, Env, ErrorKind, ItemId, json};
use test_support::MockClock;

use super::pairing::{Kind, Pairing, Store, document, namespace, on_every_pairing, refused};

on_every_pairing!(
    a_holder_writes_again_and_again_and_gives_back,
    a_second_holder_waits_and_is_then_refused,
    a_holder_who_lost_the_lease_cannot_overwrite_what_came_after,
    a_lock_is_of_one_item,
);

async fn a_holder_writes_again_and_again_and_gives_back(p: &Pairing) {
    let store = p.open();
    let users = store.users();
    let id = users.create(json!({"n": 0})).await.unwrap().id;
    let lock = users.lock(&id).await.unwrap();
    assert_eq!((lock.id(), lock.ov(), lock.is_lost()), (id, 0, false));
    users.update(&id, json!({"n": 1})).with_lock(&lock).await.unwrap();
    users.enrich(&id, json!({"m": 1})).with_lock(&lock).await.unwrap();
    assert_eq!(lock.ov(), 2);
    let other = users.update(&id, json!({"other": 1}));
    let waiting = tokio::spawn(other.into_future());
    users.update(&id, json!({"n": 2})).with_lock(&lock).await.unwrap();
    lock.release().await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().ov, 4, "the waiting call goes on");
    assert_eq!(store.stored(&users, "locks").await, []);
    assert_eq!(document(&users, &id).await, json!({"n": 2, "m": 1, "other": 1}));
}

async fn a_second_holder_waits_and_is_then_refused(p: &Pairing) {
    let users = p.open().users();
    let id = users.create(json!({"n": 0})).await.unwrap().id;
    let first = users.lock(&id).await.unwrap();
    let error = users.lock(&id).wait(Duration::ZERO).await.unwrap_err();
    assert_eq!((error.kind(), error.code(), error.is_retryable()), (ErrorKind::Locked, "LOCKED", true));
    let waiting = tokio::spawn(users.lock(&id).into_future());
    first.release().await.unwrap();
    let second = waiting.await.unwrap().unwrap();
    users.delete(&id).with_lock(&second).await.unwrap();
    second.release().await.unwrap();
    assert_eq!(refused(users.lock(&id).await), ErrorKind::NotFound);
}

/// N-17, G-26: the lease is made to have ended, as that of a holder who stalls.
async fn a_holder_who_lost_the_lease_cannot_overwrite_what_came_after(p: &Pairing) {
    let store = p.open();
    let users = store.users();
    let id = users.create(json!({"n": 0})).await.unwrap().id;
    let stalled = users.lock(&id).await.unwrap();
    end_lease(&store, &users, &id).await;
    assert_eq!(users.update(&id, json!({"n": 1})).await.unwrap().ov, 1);
    let error = users.update(&id, json!({"n": "stale"})).with_lock(&stalled).await.unwrap_err();
    assert_eq!((error.kind(), error.ov()), (ErrorKind::OptimisticLock, Some(1)));
    assert_eq!(refused(users.delete(&id).with_lock(&stalled).await), ErrorKind::OptimisticLock);

    end_lease(&store, &users, &id).await;
    let next = users.lock(&id).await.expect("another caller gets the lease");
    stalled.release().await.unwrap();
    assert_eq!(
        refused(users.lock(&id).wait(Duration::ZERO).await),
        ErrorKind::Locked,
        "only one's own lease is given back"
    );
    users.update(&id, json!({"n": 2})).with_lock(&next).await.unwrap();
    next.release().await.unwrap();
    assert_eq!(document(&users, &id).await, json!({"n": 2}));
}

async fn end_lease(store: &Store, users: &Collection, id: &ItemId) {
    let mut lease = store.stored(users, "locks").await.remove(0);
    assert_eq!(lease.get_object_id("_id").unwrap().to_hex(), id.to_string());
    lease.insert("expiresAt", bson::DateTime::from_millis(0));
    let mut batch = Batch::new();
    batch.push(&namespace(users, "locks"), Write::put(lease, Guard::Any));
    store.documents().apply(batch).await.unwrap();
}

async fn a_lock_is_of_one_item(p: &Pairing) {
    let users = p.open().users();
    let one = users.create(json!({"n": 0})).await.unwrap().id;
    let other = users.create(json!({"n": 0})).await.unwrap().id;
    let lock = users.lock(&one).await.unwrap();
    assert_eq!(refused(users.update(&other, json!({"n": 1})).with_lock(&lock).await), ErrorKind::Validation);
    users.update(&other, json!({"n": 1})).await.expect("other items are free");
    lock.release().await.unwrap();
}

fn env(clock: &Arc<MockClock>) -> Env {
    Env { clock: clock.clone(), ..Env::default() }
}

#[tokio::test]
async fn other_writers_wait_five_seconds_and_then_get_locked() {
    let p = Pairing::new(Kind::EmbeddedMemory);
    let clock = Arc::new(MockClock::default());
    let users = p.opening().env(env(&clock)).open().users();
    let id = users.create(json!({"n": 0})).await.unwrap().id;
    let lock = users.lock(&id).await.unwrap();
    let begin = clock.now();
    let mut waiting = tokio::spawn(users.update(&id, json!({"n": 1})).into_future());
    let result = loop {
        // One sleeps between renewals, the other between two looks at the lease.
        tokio::select! {
            result = &mut waiting => break result.unwrap(),
            () = clock.sleepers(2) => clock.advance(Duration::from_millis(50)),
        }
    };
    assert_eq!(refused(result), ErrorKind::Locked);
    assert_eq!(clock.now().as_millis() - begin.as_millis(), 5_000);
    users.update(&id, json!({"n": 2})).with_lock(&lock).await.unwrap();
    lock.release().await.unwrap();
    p.finish().await;
}

#[tokio::test]
async fn a_lease_is_renewed_until_its_holder_stops_and_ends_thirty_seconds_later() {
    let p = Pairing::new(Kind::EmbeddedMemory);
    let clock = Arc::new(MockClock::default());
    let store = p.opening().env(env(&clock)).open();
    let users = store.users();
    let id = users.create(json!({"n": 0})).await.unwrap().id;
    let lock = users.lock(&id).await.unwrap();
    for _ in 0..12 {
        clock.sleepers(1).await;
        assert!(clock.advance_to_next());
    }
    clock.sleepers(1).await;
    assert!(!lock.is_lost());
    assert_eq!(
        refused(users.lock(&id).wait(Duration::ZERO).await),
        ErrorKind::Locked,
        "two minutes later it is still held"
    );
    drop(lock);
    clock.advance(Duration::from_millis(29_999));
    assert_eq!(refused(users.lock(&id).wait(Duration::ZERO).await), ErrorKind::Locked);
    clock.advance(Duration::from_millis(1));
    assert_eq!(users.update(&id, json!({"n": 1})).await.unwrap().ov, 1);
    p.finish().await;
}

/// N-17: two processes, whose clocks are their own; the holder's stands still, as that of a machine that
/// sleeps.
#[tokio::test]
async fn a_holder_that_sleeps_through_its_lease_is_fenced_off() {
    let p = Pairing::new(Kind::EmbeddedLocal);
    let (asleep, awake) = (Arc::new(MockClock::default()), Arc::new(MockClock::default()));
    let holder = p.opening().env(env(&asleep)).open().users();
    let writer = p.opening().env(env(&awake)).open().users();
    let id = holder.create(json!({"n": 0})).ack_stored().await.unwrap().id;
    let lock = holder.lock(&id).await.unwrap();
    assert_eq!(refused(writer.lock(&id).wait(Duration::ZERO).await), ErrorKind::Locked);
    awake.advance(Duration::from_secs(31));
    writer.update(&id, json!({"n": 1})).ack_stored().await.unwrap();
    asleep.advance(Duration::from_secs(31));
    assert_eq!(
        refused(holder.update(&id, json!({"n": "stale"})).with_lock(&lock).await),
        ErrorKind::OptimisticLock
    );
    assert_eq!(document(&holder, &id).await, json!({"n": 1}));
    lock.release().await.unwrap();
    p.finish().await;
}

#[tokio::test]
async fn a_holder_learns_that_its_lease_went_to_another() {
    let p = Pairing::new(Kind::EmbeddedMemory);
    let clock = Arc::new(MockClock::default());
    let store = p.opening().env(env(&clock)).open();
    let users = store.users();
    let id = users.create(json!({"n": 0})).await.unwrap().id;
    let lock = users.lock(&id).await.unwrap();
    clock.sleepers(1).await;
    let mut batch = Batch::new();
    let mut lease = store.stored(&users, "locks").await.remove(0);
    lease.extend(doc! { "token": "another's", "expiresAt": bson::DateTime::from_millis(0) });
    batch.push(&namespace(&users, "locks"), Write::put(lease, Guard::Any));
    store.documents().apply(batch).await.unwrap();
    assert!(clock.advance_to_next());
    while !lock.is_lost() {
        tokio::task::yield_now().await;
    }
    lock.release().await.unwrap();
    assert_eq!(store.stored(&users, "locks").await.len(), 1);
    p.finish().await;
}

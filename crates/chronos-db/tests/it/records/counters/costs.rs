//! What counters cost: a write nothing, a follower what came since it was there.

use std::sync::Arc;
use std::time::Duration;

use chronos_db::documents::{Namespace, Scan};
use chronos_db::{Collection, Json, json};
use futures::TryStreamExt as _;
use test_support::{Counting, Delaying, Meter, MockClock, documents, objects};

use super::{rules, totals};
use crate::records::pairing::{Pairing, TIMEOUT, on_every_pairing};

on_every_pairing!(
    a_write_costs_the_same_with_rules_and_without,
    a_short_tail_is_added_by_its_reader_who_writes_nothing,
    a_follower_reads_what_came_however_much_was_there,
);

/// While the flusher is held back.
async fn a_write_costs_the_same_with_rules_and_without(p: &Pairing) {
    let mut spent = Vec::new();
    for more in [json!({"collectionMaps": rules()["collectionMaps"].clone()}), rules()] {
        let meter = Arc::<Meter>::default();
        let clock = Arc::new(MockClock::default());
        let delay = Delaying::<objects::Call>::new(clock.clone());
        let client = documents::metered(p.observed().0, Arc::clone(&meter));
        let store = p.opening().with(&more).documents_client(client).objects(&delay).open();
        let users = store.collection(if spent.is_empty() { "users" } else { "others" });
        users.create(json!({"s": "open", "n": 0, "deep": {"x": 7}})).await.unwrap();
        assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
        delay.delay(objects::Call::Put, Duration::from_secs(1));
        meter.take();
        users.create(json!({"s": "open", "n": 1, "deep": {"x": 7}})).await.unwrap();
        let moved = meter.take();
        spent.push((moved.calls, moved.written, moved.read));
        clock.sleepers(1).await;
        delay.delay(objects::Call::Put, Duration::ZERO);
        clock.advance(Duration::from_secs(1));
        assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    }
    assert_eq!(spent[0], spent[1]);
}

async fn a_short_tail_is_added_by_its_reader_who_writes_nothing(p: &Pairing) {
    let database = Counting::<documents::Call>::new();
    let store = p.opening().with(&rules()).documents(&database).open();
    let users = store.users();
    users.create(json!({"s": "open", "n": 1, "deep": {"x": 7}})).await.unwrap();
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    users.counters().follow().await.unwrap();
    let kept = || async {
        let totals = Namespace::new(users.database(), "cnt_total");
        store.documents().scan(&totals, Scan::default()).try_collect::<Vec<_>>().await.unwrap()
    };
    let before = kept().await;
    users.counters().follow().await.unwrap();
    users.create(json!({"s": "open", "n": 2})).await.unwrap();
    assert_eq!(totals(&users).await["created"], json!(2));
    assert_eq!(kept().await, before);
}

async fn created(users: &Collection, count: usize) {
    let documents: Vec<Json> = (0..count).map(|n| json!({"s": "open", "n": n % 7})).collect();
    futures::future::try_join_all(documents.into_iter().map(|d| users.create(d).into_future()))
        .await
        .unwrap();
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
}

/// At two sizes a hundred apart.
async fn a_follower_reads_what_came_however_much_was_there(p: &Pairing) {
    let mut spent = Vec::new();
    for (name, before) in [("few", 10), ("many", 1_000)] {
        let meter = Arc::<Meter>::default();
        let client = documents::metered(p.observed().0, Arc::clone(&meter));
        let users = p.opening().with(&rules()).documents_client(client).open().collection(name);
        created(&users, before).await;
        users.counters().follow().await.unwrap();
        created(&users, 10).await;
        meter.take();
        assert_eq!(users.counters().follow().await.unwrap().rows, 10);
        let moved = meter.take();
        spent.push((moved.calls, moved.written, moved.read));
    }
    // What the flusher does beside it may be in either.
    let ((few_calls, few_written, few_read), (calls, written, read)) = (spent[0], spent[1]);
    assert!(calls <= few_calls + 10 && written <= few_written + 10 && read <= few_read + 50, "{spent:?}");
}

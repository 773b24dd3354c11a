//! `writeOptimization`: how payloads are stored, and when.

use std::sync::Arc;
use std::time::Duration;

use chronos_db::{Env, Json, json};
use test_support::{MockClock, Selective};

use super::pairing::{Pairing, TIMEOUT, document, on_durable_pairings, on_every_pairing};

on_every_pairing!(
    compressed_payloads_are_smaller_and_the_same_for_every_reader,
    versions_are_gathered_until_there_are_enough_the_time_is_over_or_one_is_waited_for,
    a_large_payload_gets_no_shadow_where_that_may_be_skipped,
);

mod worker {
    super::on_durable_pairings!(workers_count_no_more_often_than_the_configuration_says);
    use super::workers_count_no_more_often_than_the_configuration_says;
}

fn optimized(options: Json) -> Json {
    json!({ "writeOptimization": options, "inlineMaxBytes": 20_000 })
}

async fn compressed_payloads_are_smaller_and_the_same_for_every_reader(p: &Pairing) {
    let text = |times: usize| json!({ "text": "much of the same, ".repeat(times) });
    let packing = p.open_with(&optimized(json!({ "compressionEnabled": true })));
    let users = packing.users();
    // One rides in its row, one is stored before its commit.
    let documents = [text(1_000), text(10_000)];
    let mut ids = Vec::new();
    for document in &documents {
        ids.push(users.create(document).ack_stored().await.unwrap().id);
    }
    for id in &ids {
        let keys = packing.keys(&users).await;
        let key = keys.iter().find(|key| key.contains(&id.to_string())).unwrap();
        let stored = packing.bucket().get(key).await.unwrap().unwrap();
        let size = packing.head(&users, id).await.get_i32("size").unwrap();
        assert!(size > 15_000 && stored.len() < 5_000, "{} bytes for {size} of JSON", stored.len());
    }
    // Whatever the reader is configured to do.
    let reader = p.opening().without_cache().open();
    if p.kind == super::pairing::Kind::EmbeddedMemory {
        // Memory is another one for each that opens it.
        return;
    }
    let seen = reader.users();
    for (id, wanted) in ids.iter().zip(&documents) {
        assert_eq!(document(&seen, id).await, *wanted);
        // What is written on top is stored as that configuration says, beside the other.
        seen.update(id, json!({ "more": true })).ack_stored().await.unwrap();
        assert_eq!(seen.get(id).version(0).await.unwrap().unwrap().document(), *wanted);
        assert_eq!(document(&users, id).await["more"], json!(true));
    }
}

async fn versions_are_gathered_until_there_are_enough_the_time_is_over_or_one_is_waited_for(p: &Pairing) {
    let (clock, storage) = (Arc::new(MockClock::default()), Selective::new());
    let batches = json!({ "batchSize": 10, "batchWindowMs": 60_000 });
    let store = p
        .opening()
        .with(&optimized(batches))
        .env(Env { clock: clock.clone(), ..Env::default() })
        .selective(&storage)
        .open();
    let users = store.users();
    let stored = async |count: usize| {
        let all = async {
            while store.keys(&users).await.len() < count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(TIMEOUT, all).await.unwrap_or_else(|_| panic!("{count} are never stored"));
    };
    let write = async || users.create(json!({ "n": 1 })).await.unwrap();
    for _ in 0..9 {
        write().await;
    }
    clock.sleepers(1).await;
    assert_eq!(storage.begun("users/"), 0, "nine wait for more");
    write().await;
    stored(10).await;

    // Over by time.
    write().await;
    clock.sleepers(1).await;
    assert_eq!(store.keys(&users).await.len(), 10);
    clock.advance(Duration::from_secs(60));
    stored(11).await;

    // A caller waits for one.
    write().await;
    users.create(json!({ "n": 1 })).ack_stored().await.unwrap();
    stored(13).await;
}

async fn a_large_payload_gets_no_shadow_where_that_may_be_skipped(p: &Pairing) {
    let config = |skip: bool| {
        json!({
            "devShadow": { "enabled": true, "ttlHours": 24 },
            "writeOptimization": { "allowShadowSkip": skip },
        })
    };
    for (skip, has_shadow) in [(false, [true, true]), (true, [true, false])] {
        let store = p.open_with(&config(skip));
        let users = store.users();
        for (bytes, has_shadow) in [50 * 1024, 150 * 1024].into_iter().zip(has_shadow) {
            let written = users.create(json!({ "text": "x".repeat(bytes) })).ack_stored().await.unwrap();
            let head = store.head(&users, &written.id).await;
            assert_eq!(head.contains_key("fullShadow"), has_shadow, "{bytes} bytes, skipping: {skip}");
        }
    }
}

async fn workers_count_no_more_often_than_the_configuration_says(p: &Pairing) {
    let hour = json!({ "writeOptimization": { "debounceCountersMs": 3_600_000 } });
    let store = p.open_with(&hour);
    let users = store.users();
    for counted in [1, 0] {
        users.create(json!({ "n": 1 })).await.unwrap();
        let report = store.chronos.worker().once(TIMEOUT).await;
        assert_eq!(report.amounts["counted"], counted, "{report:?}");
    }
    // A read adds what is not followed yet.
    assert_eq!(users.counters().totals().await.unwrap().counts.created, 2);
    // Another configuration says otherwise.
    let report = p.open().chronos.worker().once(TIMEOUT).await;
    assert_eq!(report.amounts["counted"], 1, "{report:?}");
}

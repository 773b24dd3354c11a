//! Retention among several processes: what one prunes or erases, another meets without knowing of it.

use std::time::Duration;

use chronos_db::{Collection, ItemId, Json, json};
use futures::TryStreamExt as _;
use test_support::{Counting, Holding, documents, objects};

use super::pairing::{Pairing, Store, TIMEOUT, on_durable_pairings, on_every_pairing};

mod alone {
    super::on_every_pairing!(
        what_merged_manifests_leave_goes_without_being_read,
        a_recount_counts_versions_of_erased_items_that_had_left_the_index,
    );
    use super::*;
}

mod apart {
    super::on_durable_pairings!(
        a_process_that_knows_of_no_retention_takes_no_place_whose_row_has_left,
        a_collection_restored_while_another_prunes_goes_by_heads_as_they_are,
        a_roll_up_whose_rows_were_erased_meanwhile_leaves_nothing_of_them,
        a_follower_with_another_position_misses_no_row_that_leaves_while_it_reads,
    );
    use super::*;
}

fn keep(versions: u32) -> Json {
    json!({ "retention": { "ver": { "maxPerItem": versions } } })
}

fn erasing(versions: u32) -> Json {
    let mut config = keep(versions);
    config["logicalDelete"] = json!({ "enabled": false });
    config
}

/// An item of so many versions, all of them stored.
async fn item(users: &Collection, versions: usize) -> ItemId {
    let id = users.create(json!({ "v": 0, "secret": "s3cr3t" })).await.unwrap().id;
    more(users, &id, versions - 1).await;
    id
}

async fn more(users: &Collection, id: &ItemId, versions: usize) {
    for v in 1..=versions {
        users.update(id, json!({ "v": v })).force().await.unwrap();
    }
    assert_eq!(users.flush(TIMEOUT * 10).await.unwrap(), 0);
}

async fn versions(users: &Collection, id: &ItemId) -> Vec<i64> {
    users.history(id).await.unwrap().iter().map(|version| version.ov).collect()
}

/// The objects of manifests, sorted.
async fn manifest_objects(store: &Store) -> Vec<String> {
    let found: Vec<_> = store.bucket().list("__manifests__/users/").try_collect().await.unwrap();
    let mut keys: Vec<String> = found.into_iter().map(|object| object.key).collect();
    keys.sort();
    keys
}

async fn named(users: &Collection) -> Vec<String> {
    let mut keys: Vec<String> = users.manifests().await.unwrap().into_iter().map(|one| one.key).collect();
    keys.sort();
    keys
}

async fn a_process_that_knows_of_no_retention_takes_no_place_whose_row_has_left(p: &Pairing) {
    let pruner = p.opening().with(&keep(1)).hurried().open().users();
    let id = item(&pruner, 3).await;
    let held = Holding::new();
    let writer = p.opening().hurried().documents(&held).open().users();
    writer.get(&id).await.unwrap().unwrap();
    held.hold(documents::Call::SequenceThen, 0);
    let late = tokio::spawn({
        let writer = writer.clone();
        async move { writer.update(&id, json!({ "late": true })).await }
    });
    held.reached(documents::Call::SequenceThen).await;
    // The place that it has in mind is taken, and the row that says so leaves.
    more(&pruner, &id, 2).await;
    assert_eq!(pruner.prune().await.unwrap().versions, 4);
    held.release(documents::Call::SequenceThen);
    assert_eq!(late.await.unwrap().unwrap().ov, 5);
    assert_eq!(versions(&writer, &id).await, (0..=5).collect::<Vec<_>>());
    assert_eq!(writer.get(&id).await.unwrap().unwrap().item["v"], json!(2));
}

async fn a_collection_restored_while_another_prunes_goes_by_heads_as_they_are(p: &Pairing) {
    let pruner = p.opening().with(&keep(1)).hurried().open().users();
    let ids = [item(&pruner, 2).await, item(&pruner, 2).await];
    let held = Holding::new();
    let restorer = p.opening().with(&keep(1)).hurried().documents(&held).open().users();
    held.hold(documents::Call::SequenceThen, 0);
    let restoring = tokio::spawn({
        let restorer = restorer.clone();
        async move { restorer.restore_collection().to_cv(0).page_size(100, 1).await }
    });
    // One of them has its turn; where the other one has to go is known as well.
    held.reached(documents::Call::SequenceThen).await;
    for id in &ids {
        more(&pruner, id, 2).await;
    }
    pruner.prune().await.unwrap();
    held.release(documents::Call::SequenceThen);
    let done = restoring.await.unwrap().unwrap();
    assert_eq!((done.skipped, done.restored + done.removed, done.failed), (2, 0, 0), "{done:?}");
    for id in &ids {
        assert_eq!(versions(&restorer, id).await, [0, 1, 2, 3]);
    }
}

async fn a_roll_up_whose_rows_were_erased_meanwhile_leaves_nothing_of_them(p: &Pairing) {
    let held = Holding::new();
    let store = p.opening().with(&erasing(1)).hurried().objects(&held).open();
    let users = store.users();
    let ids = [item(&users, 3).await, item(&users, 3).await];
    let eraser = p.opening().with(&erasing(1)).hurried().open().users();
    held.hold(objects::Call::Put, 0);
    let rolling_up = tokio::spawn({
        let users = users.clone();
        async move { users.roll_up().await }
    });
    held.reached(objects::Call::Put).await;
    eraser.delete(&ids[0]).await.unwrap();
    assert_eq!(eraser.flush(TIMEOUT * 10).await.unwrap(), 0);
    held.release(objects::Call::Put);
    rolling_up.await.unwrap().unwrap();
    assert_eq!(manifest_objects(&store).await, named(&users).await, "that of the attempt is gone");
    for key in named(&users).await {
        let bytes = store.bucket().get(&key).await.unwrap().unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut flate2::read::MultiGzDecoder::new(&bytes[..]), &mut text).unwrap();
        assert!(!text.contains(&ids[0].to_string()), "{text}");
    }
    // The note of the attempt goes with the next look.
    users.collect_orphans(Duration::ZERO).await.unwrap();
    let notes = store.stored(&users, "gc").await;
    assert!(notes.iter().all(|note| !note.contains_key("manifest")), "{notes:?}");
}

async fn a_follower_with_another_position_misses_no_row_that_leaves_while_it_reads(p: &Pairing) {
    let pruner = p.opening().with(&keep(1)).hurried().open().users();
    for _ in 0..3 {
        item(&pruner, 4).await;
    }
    let counted = pruner.counters().totals().await.unwrap();
    // Its totals are elsewhere.
    let mut config = p.config(&json!({}));
    let entry = &mut config["databases"]["runtime"]["tenantDatabases"][0];
    entry["analyticsDbName"] = config_name(p).into();
    let held = Holding::new();
    let reader = p.opening().configured(&config).hurried().documents(&held).open().users();
    held.hold(documents::Call::Now, 0);
    let reading = tokio::spawn({
        let reader = reader.clone();
        async move { reader.counters().follow().await.map(drop) }
    });
    held.reached(documents::Call::Now).await;
    pruner.prune().await.unwrap();
    held.release(documents::Call::Now);
    reading.await.unwrap().unwrap();
    let totals = reader.counters().totals().await.unwrap();
    assert_eq!(totals.counts, counted.counts);
}

/// A database that goes when the scenario ends.
fn config_name(p: &Pairing) -> String {
    p.common_database().replace("-acme", "-globex")
}

async fn what_merged_manifests_leave_goes_without_being_read(p: &Pairing) {
    let on_objects = Counting::new();
    let store = p.opening().with(&keep(1)).hurried().objects(&on_objects).without_cache().open();
    let users = store.users();
    let id = item(&users, 2).await;
    for _ in 0..4 {
        more(&users, &id, 1).await;
        users.roll_up().await.unwrap();
    }
    assert_eq!(manifest_objects(&store).await.len(), 4);
    on_objects.take();
    assert_eq!(users.collect_orphans(Duration::ZERO).await.unwrap().orphans, 3);
    assert_eq!((on_objects.count(objects::Call::Get), on_objects.count(objects::Call::Delete)), (0, 3));
    assert_eq!(manifest_objects(&store).await, named(&users).await);
    assert_eq!(versions(&users, &id).await, (0..=5).collect::<Vec<_>>());
}

async fn a_recount_counts_versions_of_erased_items_that_had_left_the_index(p: &Pairing) {
    let store = p.opening().with(&erasing(1)).hurried().open();
    let users = store.users();
    let ids = [item(&users, 4).await, item(&users, 2).await];
    users.prune().await.unwrap();
    users.delete(&ids[0]).await.unwrap();
    assert_eq!(users.flush(TIMEOUT * 10).await.unwrap(), 0);
    let before = users.counters().totals().await.unwrap();
    let again = users.counters().recount().await.unwrap();
    assert!(!again.corrected, "{:#}", again.to_json());
    assert_eq!(again.totals.counts, before.counts);
    assert_eq!(again.totals.counts.sum(), 4 + 2 + 1);
    let found = users.verify().await.unwrap();
    assert!(found.is_clean(), "{:#}", found.to_json());
    // And once more, with a manifest that has stubs in it.
    users.update(&ids[1], json!({ "v": "later" })).await.unwrap();
    assert_eq!(users.flush(TIMEOUT * 10).await.unwrap(), 0);
    users.prune().await.unwrap();
    assert!(!users.counters().recount().await.unwrap().corrected);
}

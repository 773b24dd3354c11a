//! `retention.objects`: what no version names is freed after its grace, and nothing else ever is.

use std::sync::Arc;
use std::time::Duration;

use chronos_db::fail::{FailAction, FailPoints};
use chronos_db::objects::PutOptions;
use chronos_db::{Collection, Env, ErrorKind, ItemId, Json, json};
use test_support::{Holding, HurriedClock, documents};

use super::pairing::{Pairing, Store, TIMEOUT, on_durable_pairings, on_every_pairing};

mod alone {
    super::on_every_pairing!(
        an_object_that_no_version_names_goes_after_its_grace_and_a_payload_never,
        an_object_that_has_a_name_by_the_end_of_its_grace_stays,
    );
    use super::*;
}

mod apart {
    super::on_durable_pairings!(
        an_object_of_a_write_under_way_is_left_to_its_note,
        an_original_and_its_copy_in_one_bucket_keep_their_objects,
        a_worker_that_dies_after_any_step_leaves_the_rest_to_the_next,
    );
    use super::*;
}

const INLINE_MAX: usize = 500;

fn config() -> Json {
    json!({
        "inlineMaxBytes": INLINE_MAX,
        "retention": { "ver": { "maxPerItem": 1 }, "objects": { "graceDays": 2 } },
    })
}

fn large() -> Json {
    json!({ "text": "x".repeat(2 * INLINE_MAX) })
}

/// An item of so many versions, all of them stored.
async fn item(users: &Collection, versions: usize) -> ItemId {
    let id = users.create(json!({ "v": 0 })).await.unwrap().id;
    for v in 1..versions {
        users.update(&id, json!({ "v": v })).await.unwrap();
    }
    assert_eq!(users.flush(TIMEOUT * 10).await.unwrap(), 0);
    id
}

async fn put(store: &Store, key: &str) {
    store.bucket().put(key, "{}".into(), PutOptions::default()).await.unwrap();
}

/// How many objects a worker finds that nobody found before.
async fn found(store: &Store) -> u64 {
    let report = store.chronos.worker().once(TIMEOUT * 10).await;
    assert!(report.failures.is_empty(), "{report:?}");
    report.amounts["unnamed"]
}

/// The days of the grace pass, for all that was found. Returns how much that is.
async fn pass_grace(store: &Store, users: &Collection) -> usize {
    let notes = store.stored(users, "gc").await;
    let mut passed = 0;
    let now = store.documents().now().await.unwrap().as_millis();
    for mut note in notes.into_iter().filter(|note| note.get_str("_id").unwrap().starts_with("unnamed/")) {
        let until = note.get_datetime("notedAt").unwrap().timestamp_millis();
        assert!((1..=2 * 86_400_000).contains(&(until - now)), "{until} {now}");
        note.insert("notedAt", bson::DateTime::from_millis(now - 1));
        store.put(users, "gc", note).await;
        passed += 1;
    }
    passed
}

async fn an_object_that_no_version_names_goes_after_its_grace_and_a_payload_never(p: &Pairing) {
    let store = p.opening().with(&config()).hurried().open();
    let users = store.users();
    let ids = [item(&users, 3).await, item(&users, 1).await];
    let ids = [ids[0], ids[1], users.create(large()).await.unwrap().id];
    users.delete(&ids[1]).await.unwrap();
    assert_eq!(users.flush(TIMEOUT * 10).await.unwrap(), 0);
    users.prune().await.unwrap();
    let named = store.keys(&users).await;
    // What a process left that died before it could note it, what a version is about to have that is not there yet,
    // and what is of an item of another database.
    let left = [format!("users/{}/v7/item.left.json", ids[0]), format!("users/{}/v1/item.json", ids[2])];
    let kept =
        [format!("users/{}/v3/item.json", ids[0]), "users/0123456789abcdef01234567/v0/item.json".into()];
    // The third item's second version has its place, but not the plain key.
    users.replace(&ids[2], large()).force().await.unwrap();
    let named: Vec<String> = named.into_iter().chain(store.keys(&users).await).collect();
    for key in left.iter().chain(&kept) {
        put(&store, key).await;
    }
    for round in 0..2 {
        assert_eq!(found(&store).await, if round == 0 { 2 } else { 0 });
        users.collect_orphans(Duration::ZERO).await.unwrap();
        let there = store.keys(&users).await;
        assert!(left.iter().all(|key| there.contains(key)), "the grace is not over");
    }
    assert_eq!(pass_grace(&store, &users).await, 2);
    users.collect_orphans(Duration::ZERO).await.unwrap();
    let mut expected: Vec<String> = named.into_iter().chain(kept.clone()).collect();
    expected.sort();
    expected.dedup();
    assert_eq!(store.keys(&users).await, expected);
    assert!(store.stored(&users, "gc").await.is_empty());
    for ov in 0..3 {
        assert!(users.get(&ids[0]).version(ov).await.unwrap().is_some(), "version {ov}");
    }
    // The version that the plain key was kept for.
    users.update(&ids[0], json!({ "v": 3 })).await.unwrap();
    assert_eq!(users.flush(TIMEOUT * 10).await.unwrap(), 0);
    assert_eq!(found(&store).await, 0);
    store.bucket().delete(&kept[1]).await.unwrap();
}

/// A restored or legacy row may name what had no name when it was found.
async fn an_object_that_has_a_name_by_the_end_of_its_grace_stays(p: &Pairing) {
    let mut config = config();
    config["retention"]["ver"] = json!({});
    let store = p.opening().with(&config).hurried().open();
    let users = store.users();
    let id = users.create(large()).await.unwrap().id;
    users.update(&id, json!({ "b": 1 })).await.unwrap();
    assert_eq!(users.flush(TIMEOUT * 10).await.unwrap(), 0);
    let late = format!("users/{id}/v0/item.late.json");
    put(&store, &late).await;
    assert_eq!(found(&store).await, 1);
    let rows = store.stored(&users, "ver").await;
    let is_first = |row: &bson::Document| row.get("ov").and_then(chronos_db::documents::whole) == Some(0);
    let mut row = rows.into_iter().find(is_first).unwrap();
    row.insert("jsonKey", late.as_str());
    store.put(&users, "ver", row).await;
    assert_eq!(pass_grace(&store, &users).await, 1);
    users.collect_orphans(Duration::ZERO).await.unwrap();
    assert!(store.keys(&users).await.contains(&late));
    assert!(store.stored(&users, "gc").await.is_empty());
    store.is_damaged();
}

async fn an_object_of_a_write_under_way_is_left_to_its_note(p: &Pairing) {
    let worker = p.opening().with(&config()).hurried().open();
    let users = worker.users();
    let id = item(&users, 1).await;
    let held = Holding::new();
    let writer = p.opening().with(&config()).hurried().documents(&held).open().users();
    writer.get(&id).await.unwrap().unwrap();
    held.hold(documents::Call::SequenceThen, 0);
    let writing = tokio::spawn(async move { writer.replace(&id, large()).await });
    held.reached(documents::Call::SequenceThen).await;
    assert_eq!(worker.keys(&users).await.len(), 2, "its object is there, and no version names it");
    assert_eq!(found(&worker).await, 0);
    assert_eq!(pass_grace(&worker, &users).await, 0);
    held.release(documents::Call::SequenceThen);
    assert_eq!(writing.await.unwrap().unwrap().ov, 1);
    assert_eq!(found(&worker).await, 0);
    users.collect_orphans(Duration::ZERO).await.unwrap();
    assert_eq!(worker.keys(&users).await.len(), 2);
}

async fn an_original_and_its_copy_in_one_bucket_keep_their_objects(p: &Pairing) {
    let store = p.opening().with(&config()).hurried().open();
    let users = store.users();
    let ids = [item(&users, 3).await, users.create(large()).await.unwrap().id];
    assert_eq!(users.flush(TIMEOUT * 10).await.unwrap(), 0);
    let folder = p.folder().join("backup");
    users.backup().to_folder(&folder).await.unwrap();
    // The same bucket under another database.
    let mut other = p.config(&config());
    let entry = &mut other["databases"]["runtime"]["tenantDatabases"][0];
    entry["bucket"] = p.common_database().into();
    entry["dbName"] = p.common_database().replace("-acme", "-logs").into();
    let drill = p.opening().configured(&other).hurried().open();
    let copy = drill.users();
    put(&store, &format!("users/{}/v0/item.left.json", ids[0])).await;
    assert_eq!(found(&store).await, 1);
    copy.restore_backup().from_folder(&folder).await.unwrap();
    assert_eq!(copy.flush(TIMEOUT * 10).await.unwrap(), 0);
    let there = store.keys(&users).await;
    assert_eq!(there.len(), 2 * 4 + 1);
    for (store, users) in [(&store, &users), (&drill, &copy)] {
        assert_eq!(found(store).await, 0);
        pass_grace(store, users).await;
        users.collect_orphans(Duration::ZERO).await.unwrap();
    }
    assert_eq!(store.keys(&users).await, there);
}

async fn a_worker_that_dies_after_any_step_leaves_the_rest_to_the_next(p: &Pairing) {
    let store = p.opening().with(&config()).hurried().open();
    let users = store.users();
    let id = item(&users, 2).await;
    let named = store.keys(&users).await;
    let fail = FailPoints::armable();
    let env = Env { clock: Arc::new(HurriedClock), fail: fail.clone(), ..Env::default() };
    let dying = p.opening().with(&config()).env(env).open();
    let theirs = dying.users();
    for point in ["sweep.after_note", "gc.after_condemn", "gc.after_delete", "large.before_forget"] {
        put(&store, &format!("users/{id}/v0/item.left.json")).await;
        fail.arm(point, FailAction::Error(ErrorKind::Storage), 0, 1);
        let report = dying.chronos.worker().once(TIMEOUT * 10).await;
        assert_eq!(report.failures.is_empty(), point != "sweep.after_note", "{point}: {report:?}");
        assert_eq!(pass_grace(&store, &users).await, 1, "{point}");
        let collected = theirs.collect_orphans(Duration::ZERO).await;
        assert_eq!(collected.is_err(), point != "sweep.after_note", "{point}: {collected:?}");
        fail.disarm(point);
        users.collect_orphans(Duration::ZERO).await.unwrap();
        assert_eq!(store.keys(&users).await, named, "{point}");
        assert!(store.stored(&users, "gc").await.is_empty(), "{point}");
    }
    assert_eq!(users.history(&id).await.unwrap().len(), 2);
}

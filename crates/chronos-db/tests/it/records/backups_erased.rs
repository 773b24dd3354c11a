//! What is erased leaves backups whatever state these are in: running, dead, or in a place of before.

use bson::doc;
use chronos_db::{Collection, ItemId, Json, Route, json};
use test_support::{Holding, objects};

use super::backups::{assert_equal, bucket_holds, holds};
use super::child::{self, was_killed};
use super::pairing::{Pairing, Store, TIMEOUT, on_durable_pairings};

on_durable_pairings!(
    what_a_dead_backup_left_holds_nothing_that_is_erased,
    a_folder_is_known_before_the_first_file_is_in_it,
    an_erasure_beside_a_running_backup_leaves_nothing,
    an_erasure_beside_a_running_backup_of_the_latest_state_leaves_nothing,
    a_backup_that_was_overtaken_and_rewritten_says_what_is_there,
    buckets_of_earlier_configurations_are_searched_or_named,
    earlier_backups_in_a_folder_hold_nothing_that_is_erased_after_the_next,
);

const TASK: &str = "CHRONOS_TEST_BACKUPS_ERASED";
const MARK: &str = "a-word-of-one-item-alone";
/// Bytes of a document of which a few fill a file.
const LONG: usize = 300_000;

fn config() -> Json {
    json!({"collectionMaps": {"users": {"indexedProps": ["n"]}}})
}

/// An item with the mark in versions of two files, among others.
async fn marked(users: &Collection) -> ItemId {
    let text = |n: i32| format!("{n}-").repeat(LONG / 2);
    let id = users.create(json!({"text": format!("{MARK} {}", text(0))})).await.unwrap().id;
    for n in 1..6 {
        users.create(json!({"n": n, "text": text(n)})).await.unwrap();
    }
    users.update(&id, json!({"n": 6, "again": MARK})).await.unwrap();
    for n in 7..9 {
        users.create(json!({"n": n, "text": text(n)})).await.unwrap();
    }
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    id
}

async fn backups_hold_the_mark(store: &Store) -> bool {
    bucket_holds(&*store.bucket(), "__backups__", MARK).await
}

/// Everything is sound, what was backed up is the collection, and nothing is left of the item.
async fn assert_sound(store: &Store, users: &Collection, id: &ItemId) {
    let route = Route::runtime().tenant("acme").collection(users.name());
    let verified = store.chronos.verify_backups(route).await.unwrap();
    assert!(verified.iter().all(|backup| backup.problems.is_empty()), "{verified:?}");
    let copy = store.collection(&format!("copy-of-{}", users.name()));
    copy.restore_backup().of(users).await.unwrap();
    assert_equal((store, users), (store, &copy)).await;
    assert!(copy.get(id).include_deleted().await.unwrap().is_none());
    assert!(!bucket_holds(&*store.bucket(), "", MARK).await);
}

async fn run(p: &Pairing, what: Json, points: &str) {
    let test = concat!(module_path!(), "::one_process");
    let dead = child::run(p, test, TASK, &config(), points, what).await;
    assert!(was_killed(&dead), "{points} was never reached: {dead:?}");
}

async fn what_a_dead_backup_left_holds_nothing_that_is_erased(p: &Pairing) {
    let store = p.open_with(&config());
    // With nothing backed up yet, and behind a backup.
    for (point, is_first) in [("backup.after_member=abort:0", true), ("backup.before_index=abort:0", false)] {
        let users = store.collection(&format!("users{is_first}"));
        if !is_first {
            users.create(json!({"n": -1})).await.unwrap();
            users.backup().await.unwrap();
        }
        let id = marked(&users).await;
        run(p, json!({ "of": users.name() }), point).await;
        assert!(backups_hold_the_mark(&store).await, "{point}");
        users.erase(&id).await.unwrap();
        assert!(!backups_hold_the_mark(&store).await, "{point}");
        users.backup().await.unwrap();
        assert_sound(&store, &users, &id).await;
    }
}

async fn a_folder_is_known_before_the_first_file_is_in_it(p: &Pairing) {
    let store = p.open_with(&config());
    let folder = p.folder().join("away");
    let users = store.users();
    let id = marked(&users).await;
    let to = folder.to_str().unwrap();
    run(p, json!({"of": "users", "to": to}), "backup.after_member=abort:1").await;
    assert!(holds(&folder, MARK));
    let certificate = users.erase(&id).await.unwrap();
    assert_eq!(certificate.backups_due, [to]);
    users.backup().to_folder(&folder).await.unwrap();
    assert!(!holds(&folder, MARK), "the next backup takes it out, however young the files are");
    let route = Route::runtime().tenant("acme");
    let verified = store.chronos.verify_backups(route).from_folder(&folder).await.unwrap();
    assert!(verified[0].problems.is_empty(), "{verified:?}");
}

/// Erases the item once the backup is held up with the item in its files.
async fn erase_while_held(
    holding: &Holding<objects::Call>,
    backing_up: &Store,
    others: &Collection,
    id: &ItemId,
) {
    holding.reached(objects::Call::Put).await;
    assert!(backups_hold_the_mark(backing_up).await);
    others.erase(id).await.unwrap();
    assert!(!backups_hold_the_mark(backing_up).await);
    holding.release(objects::Call::Put);
}

async fn an_erasure_beside_a_running_backup_leaves_nothing(p: &Pairing) {
    // The first file is there, or all of them are.
    for passes in [1, 3] {
        let holding = Holding::new();
        let one = p.opening().with(&config()).objects(&holding).open();
        let two = p.open_with(&config());
        let name = format!("users{passes}");
        let id = marked(&one.collection(&name)).await;
        let (users, others) = (one.collection(&name), two.collection(&name));
        holding.hold(objects::Call::Put, passes);
        let erased = erase_while_held(&holding, &one, &others, &id);
        let (done, ()) = futures::future::join(users.backup().into_future(), erased).await;
        let done = done.unwrap();
        assert!(!backups_hold_the_mark(&one).await, "it noticed");
        assert_eq!(users.backup().await.unwrap().from, done.cv);
        assert_sound(&two, &others, &id).await;
    }
}

async fn an_erasure_beside_a_running_backup_of_the_latest_state_leaves_nothing(p: &Pairing) {
    let mut config = config();
    config["versioning"] = json!({"enabled": false});
    let holding = Holding::new();
    let one = p.opening().with(&config).objects(&holding).open();
    let two = p.open_with(&config);
    let (users, others) = (one.users(), two.users());
    // By the numbers of their latest versions it comes first.
    let id = users.create(json!({"text": MARK})).await.unwrap().id;
    for n in 0..7 {
        users.create(json!({"n": n, "text": "-".repeat(LONG)})).await.unwrap();
    }
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    holding.hold(objects::Call::Put, 1);
    let erased = erase_while_held(&holding, &one, &others, &id);
    let (done, ()) = futures::future::join(users.backup().into_future(), erased).await;
    assert_eq!(done.unwrap().versions, 7, "begun anew, and whole");
    assert!(!backups_hold_the_mark(&one).await);
    let verified = two.chronos.verify_backups(Route::runtime().tenant("acme")).await.unwrap();
    assert!(verified.iter().all(|backup| backup.problems.is_empty()), "{verified:?}");
    let copy = two.collection("copy");
    assert_eq!(copy.restore_backup().of(&others).await.unwrap().versions, 7);
}

async fn a_backup_that_was_overtaken_and_rewritten_says_what_is_there(p: &Pairing) {
    let holds = [Holding::new(), Holding::new()];
    let [one, two] = [0, 1].map(|at| p.opening().with(&config()).objects(&holds[at]).open());
    let three = p.open_with(&config());
    let (users, theirs) = (one.users(), three.users());
    let id = theirs.create(json!({"text": MARK})).ack_stored().await.unwrap().id;
    for holding in &holds {
        // The file, and then the index.
        holding.hold(objects::Call::Put, 1);
    }
    let first = tokio::spawn(users.backup().into_future());
    holds[0].reached(objects::Call::Put).await;
    theirs.create(json!({"n": 1})).ack_stored().await.unwrap();
    let second = tokio::spawn(two.users().backup().into_future());
    holds[1].reached(objects::Call::Put).await;
    // The first index, of which an erasure makes another revision; then the second has its place again.
    holds[0].release(objects::Call::Put);
    first.await.unwrap().unwrap();
    theirs.erase(&id).await.unwrap();
    holds[1].release(objects::Call::Put);
    let done = second.await.unwrap().unwrap();
    assert!(done.cv >= 1);
    let listed = three.chronos.backups(Route::runtime().tenant("acme")).await.unwrap();
    assert!(listed[0].cv >= done.cv, "what it says is backed up is there: {listed:?}");
    users.backup().await.unwrap();
    assert_sound(&three, &theirs, &id).await;
}

/// Where no versions are kept each backup is a chain by itself.
async fn earlier_backups_in_a_folder_hold_nothing_that_is_erased_after_the_next(p: &Pairing) {
    let mut config = config();
    config["versioning"] = json!({"enabled": false});
    let store = p.open_with(&config);
    let users = store.users();
    let folder = p.folder().join("away");
    let to = folder.to_str().unwrap();
    let ids = [marked(&users).await, marked(&users).await];
    for n in 0..2 {
        users.backup().to_folder(&folder).await.unwrap();
        users.create(json!({ "n": n })).ack_stored().await.unwrap();
    }
    // Whoever takes it out may die at any step.
    for (id, point) in ids.iter().zip(["backup.after_rewrite=abort:0", "backup.after_other_chain=abort:0"]) {
        let certificate = users.erase(id).await.unwrap();
        assert_eq!(certificate.backups_due, [to]);
        let test = concat!(module_path!(), "::one_process");
        let dead = child::run(p, test, TASK, &config, point, json!({"of": "users", "to": to})).await;
        assert!(was_killed(&dead), "{point} was never reached: {dead:?}");
        assert!(holds(&folder, MARK), "{point}");
        users.backup().to_folder(&folder).await.unwrap();
    }
    assert!(!holds(&folder, MARK));
    let route = || Route::runtime().tenant("acme");
    let verified = store.chronos.verify_backups(route()).from_folder(&folder).await.unwrap();
    assert!(verified.len() >= 4 && verified.iter().all(|backup| backup.problems.is_empty()), "{verified:?}");
    let written = modified(&folder);
    users.create(json!({"n": "after"})).ack_stored().await.unwrap();
    users.backup().to_folder(&folder).await.unwrap();
    let again = modified(&folder);
    assert!(written.iter().all(|file| again.contains(file)), "what is clean is left alone");
    let copy = store.collection("copy");
    assert_eq!(copy.restore_backup().of(&users).from_folder(&folder).await.unwrap().versions, 17);
}

/// Every file below a folder, and when it was written.
fn modified(folder: &std::path::Path) -> Vec<(std::path::PathBuf, std::time::SystemTime)> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let found = entries.flat_map(|entry| match entry.path().is_dir() {
        true => modified(&entry.path()),
        false => vec![(entry.path(), entry.metadata().unwrap().modified().unwrap())],
    });
    found.collect()
}

async fn buckets_of_earlier_configurations_are_searched_or_named(p: &Pairing) {
    let with = |bucket: &str| {
        let mut config = config();
        config["databases"] = p.config(&json!({}))["databases"].clone();
        let entry = &mut config["databases"]["runtime"]["tenantDatabases"][0];
        entry["backupsBucket"] = format!("{}-{bucket}", p.common_database()).into();
        config
    };
    let before = p.open_with(&with("before"));
    let id = marked(&before.users()).await;
    before.users().backup().await.unwrap();
    // The bucket that was opened last.
    assert_eq!(before.chronos.backups(Route::runtime().tenant("acme")).await.unwrap().len(), 1);
    let bucket = before.bucket();
    assert!(bucket_holds(&*bucket, "__backups__", MARK).await);
    let after = p.open_with(&with("after"));
    let users = after.users();
    let note = doc! {
        "_id": { "backup": "elsewhere/backups", "whose": "all" },
        "storage": "elsewhere", "bucket": "backups", "cv": 3_i64, "at": bson::DateTime::from_millis(0),
    };
    after.put(&users, "counter", note).await;
    assert_eq!(users.erase(&id).await.unwrap().backups_due, ["elsewhere/backups"]);
    assert!(!bucket_holds(&*bucket, "", MARK).await);
}

/// Does nothing in an ordinary run.
#[tokio::test]
async fn one_process() {
    let Some((task, chronos)) = child::task(TASK) else { return };
    let name = task["of"].as_str().unwrap();
    let users = chronos.with(Route::runtime().tenant("acme").collection(name)).unwrap();
    let backup = users.backup();
    let backup = match task["to"].as_str() {
        Some(folder) => backup.to_folder(folder),
        None => backup,
    };
    backup.await.unwrap();
    chronos.shutdown().await.unwrap();
}

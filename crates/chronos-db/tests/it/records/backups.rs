//! Backups: a collection built anew from one is the collection that was backed up, wherever it is built.

use std::collections::BTreeMap;
use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bson::Document;
use bytes::Bytes;
use chronos_db::config::Config;
use chronos_db::documents::{Batch, Guard, Write};
use chronos_db::objects::{ObjectStorage, PutOptions};
use chronos_db::{BackUp, BackupKind, Chronos, Collection, ErrorKind, ItemId, Json, Route, json};
use futures::TryStreamExt as _;

use super::pairing::{
    Kind, Pairing, Store, TIMEOUT, document, minute, on_durable_pairings, on_every_pairing, on_pairings,
    refused,
};

mod alone {
    super::on_every_pairing!(
        a_collection_restored_from_its_backup_is_equal,
        a_second_backup_has_what_came_since,
        a_backup_restores_to_a_time_and_to_a_version,
        nothing_is_restored_over_something_else,
        nobody_writes_to_a_collection_while_it_is_restored,
        a_damaged_or_missing_file_is_named_and_nothing_of_it_restored,
        what_was_damaged_before_is_counted_and_the_rest_is_backed_up,
        what_is_erased_later_is_gone_at_the_next_backup_to_a_folder,
        an_erasure_reaches_the_backups_of_the_bucket,
        versions_beyond_the_window_are_backed_up,
        files_of_a_restored_collection_are_its_own,
        a_tenant_of_a_shared_database_backs_up_its_own_part,
        a_collection_of_the_same_name_that_began_anew_has_another_backup,
        a_collection_without_versions_is_backed_up_as_it_is,
    );
    use super::*;
}

mod apart {
    super::on_durable_pairings!(
        two_that_back_up_at_once_write_one_backup,
        two_that_restore_at_once_build_one_collection
    );
    use super::*;
}

on_pairings!(replica_set_s3 = ReplicaSetS3: an_embedded_store_grows_up_to_servers_by_a_backup);

/// What follows from the index, and from where objects lie.
pub(super) const OF_THE_PLACE: [&str; 7] =
    ["jsonBucket", "jsonKey", "refs", "inline", "riders", "unflushedSince", "state"];

fn maps() -> Json {
    let map = json!({"indexedProps": ["n", "name"], "base64Props": {"file": {"contentType": "text/plain"}}});
    json!({ "collectionMaps": { "users": map, "copy": map } })
}

/// A collection with every kind of version.
async fn history(users: &Collection) -> Vec<ItemId> {
    let mut ids = Vec::new();
    for n in 0..12 {
        let document = json!({"n": n, "name": format!("item {n}"), "amount": 12_345_678_901_234_567_890_u64, "tags": ["a", {"b": null}]});
        ids.push(
            users
                .create(document)
                .actor("ann")
                .reason("first")
                .request_id(format!("r{n}"))
                .at(minute(n))
                .await
                .unwrap()
                .id,
        );
    }
    let child = users.create(json!({"name": "child"})).parent(&ids[0], "users").await.unwrap().id;
    users.enrich(&child, json!({"score": 0.5})).function_id("score@v1").await.unwrap();
    users.update(&ids[1], json!({"n": 100, "name": "änderung"})).await.unwrap();
    users.delete(&ids[2]).reason("gone").await.unwrap();
    users.delete(&ids[3]).await.unwrap();
    users.restore(&ids[3]).to_version(0).await.unwrap();
    users.replace(&ids[4], json!({"own": true})).await.unwrap();
    ids.push(child);
    ids
}

async fn rows(store: &Store, collection: &Collection) -> BTreeMap<i64, Document> {
    let rows = store.stored(collection, "ver").await.into_iter().map(|mut row| {
        let cv = row.get("cv").and_then(chronos_db::documents::whole).unwrap();
        OF_THE_PLACE.iter().for_each(|field| drop(row.remove(field)));
        (cv, row)
    });
    rows.collect()
}

/// Everything that is said of the items, as it is and as it was at every fifth version, and all histories.
async fn reported(collection: &Collection) -> Vec<String> {
    let mut reported = Vec::new();
    let last = collection.stable_cv().await.unwrap();
    for cv in (0..=last).step_by(5).chain([i64::MAX]) {
        let views: Vec<_> = collection
            .list()
            .include_deleted()
            .as_of_cv(cv)
            .stream()
            .await
            .unwrap()
            .try_collect()
            .await
            .unwrap();
        for mut view in views {
            view.item["_system"]["state"] = Json::Null;
            reported.push(format!("{cv} {}", view.to_json()));
            if cv == last {
                let history = collection.history(&view.id).await.unwrap();
                reported.extend(history.iter().map(|version| version.to_json().to_string()));
            }
        }
    }
    reported
}

pub(super) async fn assert_equal(from: (&Store, &Collection), to: (&Store, &Collection)) {
    assert_eq!(rows(to.0, to.1).await, rows(from.0, from.1).await);
    assert_eq!(reported(to.1).await, reported(from.1).await);
    let (a, b) = (from.1.verify().await.unwrap(), to.1.verify().await.unwrap());
    assert_eq!(
        (&b.problems, b.versions, b.items, b.live, b.stable_cv),
        (&a.problems, a.versions, a.items, a.live, a.stable_cv)
    );
}

pub(super) async fn totals(collection: &Collection) -> (u64, u64, u64) {
    let totals = collection.counters().totals().await.unwrap();
    (totals.counts.created, totals.counts.updated, totals.counts.deleted)
}

async fn a_collection_restored_from_its_backup_is_equal(p: &Pairing) {
    let store = p.open_with(&maps());
    let (users, copy) = (store.users(), store.collection("copy"));
    let ids = history(&users).await;
    let done = users.backup().await.unwrap();
    assert_eq!((done.from, done.cv, done.damaged), (-1, users.stable_cv().await.unwrap(), 0));
    let restored = copy.restore_backup().of(&users).await.unwrap();
    assert_eq!((restored.versions, restored.cv, restored.was_complete), (done.versions, done.cv, false));
    assert_equal((&store, &users), (&store, &copy)).await;
    assert_eq!(totals(&copy).await, totals(&users).await);
    // It lives on, on its own.
    let written = copy.update(&ids[1], json!({"n": 101})).await.unwrap();
    assert_eq!((written.ov, written.cv), (2, done.cv + 1));
    assert_eq!(document(&users, &ids[1]).await["n"], 100);
    let again = copy.restore_backup().of(&users).await.unwrap();
    assert!(again.was_complete && again.versions == 0);
    assert_eq!(document(&copy, &ids[1]).await["n"], 101);
}

async fn a_second_backup_has_what_came_since(p: &Pairing) {
    let store = p.open_with(&maps());
    let (users, copy) = (store.users(), store.collection("copy"));
    assert_eq!(users.backup().await.unwrap().cv, -1, "nothing yet");
    let ids = history(&users).await;
    let first = users.backup().await.unwrap();
    let nothing = users.backup().await.unwrap();
    assert_eq!((nothing.from, nothing.cv, nothing.rows, nothing.files), (first.cv, first.cv, 0, 0));
    users.delete(&ids[5]).await.unwrap();
    users.create(json!({"n": 50})).await.unwrap();
    let second = users.backup().await.unwrap();
    assert_eq!(
        (second.from, second.cv, second.versions, &second.backup),
        (first.cv, first.cv + 2, 2, &first.backup)
    );
    let listed = store.chronos.backups(Route::runtime().tenant("acme")).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (&*listed[0].collection, listed[0].cv, listed[0].versions),
        ("users", second.cv, first.versions + 2)
    );
    let verified = store.chronos.verify_backups(Route::runtime().tenant("acme")).await.unwrap();
    assert_eq!(verified, listed);
    copy.restore_backup().of(&users).await.unwrap();
    assert_equal((&store, &users), (&store, &copy)).await;
}

async fn a_backup_restores_to_a_time_and_to_a_version(p: &Pairing) {
    let store = p.open_with(&maps());
    let (users, then, version) = (store.users(), store.collection("copy"), store.collection("version"));
    let ids = history(&users).await;
    users.backup().await.unwrap();
    then.restore_backup().of(&users).to_time(minute(5)).await.unwrap();
    let names = |views: Vec<chronos_db::View>| -> Vec<Json> {
        views.into_iter().map(|view| view.item["name"].clone()).collect()
    };
    let was: Vec<_> = users.list().as_of(minute(5)).stream().await.unwrap().try_collect().await.unwrap();
    let is: Vec<_> = then.list().stream().await.unwrap().try_collect().await.unwrap();
    assert_eq!(names(is), names(was));
    assert_eq!(then.stable_cv().await.unwrap(), 5);
    version.restore_backup().of(&users).to_cv(14).await.unwrap();
    assert_eq!(version.stable_cv().await.unwrap(), 14);
    assert_eq!(document(&version, &ids[1]).await["n"], 100);
    assert!(version.get(&ids[2]).await.unwrap().is_some(), "it was deleted later");
}

async fn nothing_is_restored_over_something_else(p: &Pairing) {
    let store = p.open_with(&maps());
    let (users, copy) = (store.users(), store.collection("copy"));
    history(&users).await;
    assert_eq!(refused(copy.restore_backup().of(&users).await), ErrorKind::NotFound);
    users.backup().await.unwrap();
    let mine = copy.create(json!({"mine": true})).await.unwrap().id;
    let before = rows(&store, &copy).await;
    assert_eq!(refused(copy.restore_backup().of(&users).await), ErrorKind::Validation);
    assert_eq!(refused(users.restore_backup().await), ErrorKind::Validation);
    assert_eq!(rows(&store, &copy).await, before);
    assert_eq!(document(&copy, &mine).await, json!({"mine": true}));
    let other = store.collection("other");
    other.restore_backup().of(&users).to_cv(3).await.unwrap();
    assert_eq!(refused(other.restore_backup().of(&users).await), ErrorKind::Validation, "to another point");
}

async fn nobody_writes_to_a_collection_while_it_is_restored(p: &Pairing) {
    let store = p.open_with(&maps());
    let (users, copy) = (store.users(), store.collection("copy"));
    history(&users).await;
    let done = users.backup().await.unwrap();
    // What a restore notes that has just begun.
    let namespace = super::pairing::namespace(&users, "counter");
    let source = (users.database(), users.name());
    let note = bson::doc! { "_id": "restoring", "chain": done.backup, "database": source.0, "collection": source.1, "whose": "all", "upTo": bson::Bson::Null, "done": -1_i64, "finished": false };
    assert!(namespace.collection.ends_with("_counter"));
    store.put(&copy, "counter", note).await;
    assert_eq!(refused(copy.create(json!({})).await), ErrorKind::Locked);
    copy.restore_backup().of(&users).await.unwrap();
    assert_equal((&store, &users), (&store, &copy)).await;
    copy.create(json!({})).await.unwrap();
}

/// The keys of all files with versions in the backups of the pairing's bucket.
async fn members(bucket: &dyn ObjectStorage) -> Vec<String> {
    let found: Vec<_> = bucket.list("__backups__").try_collect().await.unwrap();
    let mut keys: Vec<String> = found.into_iter().map(|object| object.key).collect();
    keys.retain(|key| key.contains("/members/"));
    keys.sort();
    keys
}

async fn a_damaged_or_missing_file_is_named_and_nothing_of_it_restored(p: &Pairing) {
    let store = p.open_with(&maps());
    let users = store.users();
    history(&users).await;
    users.backup().await.unwrap();
    let bucket = store.bucket();
    let index: Vec<_> = bucket.list("__backups__").try_collect().await.unwrap();
    let index = index.into_iter().map(|object| object.key).find(|key| key.contains("/index/")).unwrap();
    let [member] = &members(&*bucket).await[..] else { panic!("one file") };
    for (n, key) in [&index, member].into_iter().enumerate() {
        let good = bucket.get(key).await.unwrap().unwrap();
        let mut bad = good.to_vec();
        let middle = bad.len() / 2;
        bad[middle] ^= 0x20;
        for (m, bad) in [Some(Bytes::from(bad)), Some(good.slice(..middle)), None].into_iter().enumerate() {
            match &bad {
                Some(bad) => drop(bucket.put(key, bad.clone(), PutOptions::default()).await.unwrap()),
                None => bucket.delete(key).await.unwrap(),
            }
            let target = store.collection(&format!("broken-{n}-{m}"));
            let error = target.restore_backup().of(&users).await.unwrap_err();
            if bad.is_none() && *key == index {
                assert_eq!(error.kind(), ErrorKind::NotFound);
                continue;
            }
            assert_eq!(error.kind(), ErrorKind::Storage, "{error}");
            assert!(error.message().contains(&**key), "{error}");
            assert!(!target.exists().await.unwrap(), "nothing of it");
            let found = store.chronos.verify_backups(Route::runtime().tenant("acme")).await.unwrap();
            assert!(found[0].problems.iter().any(|problem| problem.file == *key), "{found:?}");
        }
        bucket.put(key, good, PutOptions::default()).await.unwrap();
        let found = store.chronos.verify_backups(Route::runtime().tenant("acme")).await.unwrap();
        assert!(found[0].problems.is_empty());
    }
}

async fn what_was_damaged_before_is_counted_and_the_rest_is_backed_up(p: &Pairing) {
    let store = p.open_with(&maps());
    let (users, copy) = (store.users(), store.collection("copy"));
    let ids = history(&users).await;
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    let lost = format!("users/{}/v0/item.json", ids[6]);
    store.bucket().delete(&lost).await.unwrap();
    let done = users.backup().await.unwrap();
    assert_eq!(done.damaged, 1);
    assert!(done.damage[0].contains(&lost), "{:?}", done.damage);
    let restored = copy.restore_backup().of(&users).await.unwrap();
    assert_eq!((restored.versions, restored.damaged), (done.versions, 1));
    let found = copy.verify().await.unwrap();
    assert_eq!(found.problem_count, 1, "{:?}", found.problems);
    assert_eq!(document(&copy, &ids[7]).await, document(&users, &ids[7]).await);
    store.is_damaged();
}

async fn what_is_erased_later_is_gone_at_the_next_backup_to_a_folder(p: &Pairing) {
    let mut config = maps();
    config["logicalDelete"] = json!({"enabled": false});
    let store = p.open_with(&config);
    let (users, copy) = (store.users(), store.collection("copy"));
    let folder = p.folder().join("away");
    let to_folder = |backup: BackUp| backup.to_folder(&folder);
    let marker = "a-word-of-one-item-alone";
    let keep = users.create(json!({"name": "kept"})).await.unwrap().id;
    let id = users.create(json!({"name": marker, "file": STANDARD.encode(marker)})).await.unwrap().id;
    users.update(&id, json!({"note": format!("still {marker}")})).await.unwrap();
    to_folder(users.backup()).await.unwrap();
    assert!(holds(&folder, marker));
    // An erasure.
    users.delete(&id).await.unwrap();
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    to_folder(users.backup()).await.unwrap();
    assert!(!holds(&folder, marker));
    let listed =
        store.chronos.verify_backups(Route::runtime().tenant("acme")).from_folder(&folder).await.unwrap();
    assert_eq!((listed.len(), listed[0].versions, listed[0].problems.len()), (1, 1, 0));
    copy.restore_backup().of(&users).from_folder(&folder).await.unwrap();
    assert_eq!(rows(&store, &copy).await, rows(&store, &users).await);
    assert_eq!(document(&copy, &keep).await["name"], "kept");
    assert!(copy.get(&id).include_deleted().await.unwrap().is_none());
}

/// Whether a file of the bucket holds the words, unpacked.
pub(super) async fn bucket_holds(bucket: &dyn ObjectStorage, prefix: &str, words: &str) -> bool {
    let found: Vec<_> = bucket.list(prefix).try_collect().await.unwrap();
    for object in found {
        let bytes = bucket.get(&object.key).await.unwrap().unwrap();
        let bytes = if object.key.ends_with(".gz") { unpacked(&bytes) } else { bytes.to_vec() };
        if bytes.windows(words.len()).any(|window| window == words.as_bytes()) {
            return true;
        }
    }
    false
}

async fn an_erasure_reaches_the_backups_of_the_bucket(p: &Pairing) {
    let store = p.open_with(&maps());
    let (users, copy) = (store.users(), store.collection("copy"));
    let marker = "a-word-of-one-item-alone";
    let id = users.create(json!({"name": marker, "file": STANDARD.encode(marker)})).await.unwrap().id;
    history(&users).await;
    users.backup().await.unwrap();
    users.update(&id, json!({"note": format!("still {marker}")})).await.unwrap();
    users.backup().await.unwrap();
    assert!(bucket_holds(&*store.bucket(), "", marker).await);
    users.erase(&id).reason("law").await.unwrap();
    assert!(!bucket_holds(&*store.bucket(), "", marker).await);
    let verified = store.chronos.verify_backups(Route::runtime().tenant("acme")).await.unwrap();
    assert!(verified[0].problems.is_empty(), "{verified:?}");
    users.backup().await.unwrap();
    copy.restore_backup().of(&users).await.unwrap();
    assert_equal((&store, &users), (&store, &copy)).await;
    assert!(copy.get(&id).include_deleted().await.unwrap().is_none());
}

async fn versions_beyond_the_window_are_backed_up(p: &Pairing) {
    let mut config = maps();
    config["retention"] = json!({"ver": {"maxPerItem": 1}});
    let store = p.open_with(&config);
    let (users, copy) = (store.users(), store.collection("copy"));
    let ids = history(&users).await;
    for n in 0..5 {
        users.update(&ids[0], json!({"n": 200 + n})).await.unwrap();
    }
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    let before = rows(&store, &users).await;
    users.prune().await.unwrap();
    let left = rows(&store, &users).await;
    assert!(left.len() < before.len());
    let done = users.backup().await.unwrap();
    assert_eq!(done.versions as usize, before.len());
    copy.restore_backup().of(&users).await.unwrap();
    assert_eq!(rows(&store, &copy).await, before);
    // What is beyond the window is erased from the backup as well.
    users.erase(&ids[0]).await.unwrap();
    let again = store.collection("again");
    again.restore_backup().of(&users).await.unwrap();
    assert!(again.get(&ids[0]).include_deleted().await.unwrap().is_none());
    assert!(!bucket_holds(&*store.bucket(), "__backups__", "\"n\":203").await);
}

fn unpacked(bytes: &[u8]) -> Vec<u8> {
    let mut raw = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut raw).unwrap();
    raw
}

/// Whether a file below the folder holds the words, unpacked.
pub(super) fn holds(folder: &std::path::Path, words: &str) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return holds(&path, words);
        }
        let bytes = std::fs::read(&path).unwrap();
        let bytes = match path.extension().is_some_and(|extension| extension == "gz") {
            true => unpacked(&bytes),
            false => bytes,
        };
        bytes.windows(words.len()).any(|window| window == words.as_bytes())
    })
}

async fn files_of_a_restored_collection_are_its_own(p: &Pairing) {
    let store = p.open_with(&maps());
    let (users, copy) = (store.users(), store.collection("copy"));
    let text = "Zeile 漢字";
    let id = users.create(json!({"n": 1, "file": STANDARD.encode(text)})).await.unwrap().id;
    let other = users.update(&id, json!({"n": 2})).await.unwrap();
    let rides = users.create(json!({"file": STANDARD.encode("rides")})).await.unwrap().id;
    // These have the payload of another version, and so its file.
    let dead = users.create(json!({"file": STANDARD.encode("dead")})).await.unwrap().id;
    users.delete(&dead).await.unwrap();
    let back = users.create(json!({"file": STANDARD.encode("back")})).await.unwrap().id;
    users.replace(&back, json!({"n": 3})).await.unwrap();
    users.restore(&back).to_version(0).await.unwrap();
    users.backup().await.unwrap();
    copy.restore_backup().of(&users).await.unwrap();
    assert_eq!(copy.get(&dead).include_deleted().await.unwrap().unwrap().ov, 1);
    assert_eq!(copy.list().include_deleted().await.unwrap().items.len(), 4);
    for (id, ov) in [(&id, other.ov), (&id, 0), (&rides, 0), (&dead, 0), (&back, 0), (&back, 2)] {
        let (was, is) = (
            users.get(id).version(ov).await.unwrap().unwrap().document(),
            copy.get(id).version(ov).await.unwrap().unwrap().document(),
        );
        let (old, new) = (&was["file"]["ref"], &is["file"]["ref"]);
        assert_ne!(old["blobKey"], new["blobKey"]);
        assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
        for key in ["blobKey", "textKey"] {
            let get = |key: &Json| key.as_str().unwrap().to_owned();
            let (a, b) = (get(&old[key]), get(&new[key]));
            assert_eq!(store.bucket().get(&a).await.unwrap(), store.bucket().get(&b).await.unwrap(), "{key}");
        }
        let mut moved = was.clone();
        moved["file"] = is["file"].clone();
        assert_eq!(is, moved, "nothing else differs");
    }
    // A reference that is sent back is known.
    let sent = copy.get(&id).await.unwrap().unwrap().document();
    copy.replace(&id, sent).await.unwrap();
}

async fn a_tenant_of_a_shared_database_backs_up_its_own_part(p: &Pairing) {
    let mut config = maps();
    config["databases"] = p.one_database();
    let store = p.open_with(&config);
    let of = |tenant: &str, name: &str| store.with(Route::runtime().tenant(tenant).collection(name));
    let (acme, globex) = (of("acme", "users"), of("globex", "users"));
    for n in 0..6 {
        acme.create(json!({"n": n, "of": "acme"})).await.unwrap();
        globex.create(json!({"n": n, "of": "globex"})).await.unwrap();
    }
    let done = acme.backup().await.unwrap();
    assert_eq!(done.versions, 6);
    assert!(store.chronos.backups(Route::runtime().tenant("globex")).await.unwrap().is_empty());
    let again = of("globex", "again");
    assert_eq!(refused(again.restore_backup().of(&globex).await), ErrorKind::NotFound);
    // Who may read both brings one's to the other.
    again.restore_backup().of(&acme).await.unwrap();
    let views = again.list().await.unwrap().items;
    assert_eq!(views.iter().map(|view| view.item["of"].clone()).collect::<Vec<_>>(), vec![json!("acme"); 6]);
    assert!(of("acme", "again").list().await.unwrap().items.is_empty());
    assert_eq!(again.stable_cv().await.unwrap(), done.cv);
}

async fn a_collection_of_the_same_name_that_began_anew_has_another_backup(p: &Pairing) {
    let store = p.open_with(&maps());
    let (users, copy) = (store.users(), store.collection("copy"));
    let first = users.create(json!({"n": 1})).ack_stored().await.unwrap().id;
    let before = users.backup().await.unwrap();
    // Restored from an older state by other means: other versions under the same numbers.
    let row = &store.stored(&users, "ver").await[0];
    let mut other = row.clone();
    other.insert("_id", bson::oid::ObjectId::new());
    let namespace = super::pairing::namespace(&users, "ver");
    let id = row.get("_id").unwrap().clone();
    // One after the other: the writes of one batch are carried out in any order.
    for write in [Write::Delete { id, guard: Guard::Any }, Write::insert(other)] {
        let mut batch = Batch::new();
        batch.push(&namespace, write);
        assert!(store.documents().apply(batch).await.unwrap()[0].is_applied());
    }
    let after = users.backup().await.unwrap();
    assert_ne!(after.backup, before.backup);
    assert_eq!((after.from, after.cv), (-1, before.cv));
    copy.restore_backup().of(&users).await.unwrap();
    assert_eq!(document(&copy, &first).await["n"], 1);
    store.is_damaged();
}

async fn two_that_back_up_at_once_write_one_backup(p: &Pairing) {
    let (one, two) = (p.open_with(&maps()), p.open_with(&maps()));
    let (users, others) = (one.users(), two.users());
    history(&users).await;
    let (a, b) = futures::future::join(users.backup().into_future(), others.backup().into_future()).await;
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!((a.cv, &a.backup), (b.cv, &b.backup));
    let listed = one.chronos.verify_backups(Route::runtime().tenant("acme")).await.unwrap();
    assert_eq!((listed.len(), &listed[0].problems, listed[0].cv), (1, &Vec::new(), a.cv));
    assert_eq!(listed[0].versions, a.versions + b.versions);
    assert_eq!(members(&*one.bucket()).await.len() as u64, listed[0].files, "the loser took its files away");
    let copy = one.collection("copy");
    copy.restore_backup().of(&users).await.unwrap();
    assert_equal((&one, &users), (&one, &copy)).await;
}

async fn two_that_restore_at_once_build_one_collection(p: &Pairing) {
    let (one, two) = (p.open_with(&maps()), p.open_with(&maps()));
    let users = one.users();
    history(&users).await;
    users.backup().await.unwrap();
    let (copy, same) = (one.collection("copy"), two.collection("copy"));
    let (a, b) = futures::future::join(
        copy.restore_backup().of(&users).into_future(),
        same.restore_backup().of(&users).into_future(),
    )
    .await;
    assert_eq!(a.unwrap().cv, b.unwrap().cv);
    assert_equal((&one, &users), (&two, &same)).await;
    assert_eq!(totals(&same).await, totals(&users).await);
}

async fn an_embedded_store_grows_up_to_servers_by_a_backup(p: &Pairing) {
    let embedded = Pairing::new(Kind::EmbeddedLocal);
    let small = embedded.open_with(&maps());
    let users = small.users();
    let ids = history(&users).await;
    let file = users.create(json!({"file": STANDARD.encode("a file")})).await.unwrap().id;
    let folder = embedded.folder().join("away");
    users.backup().to_folder(&folder).await.unwrap();
    let large = p.open_with(&maps());
    let grown = large.users();
    grown.restore_backup().from_folder(&folder).await.unwrap();
    let same = |rows: BTreeMap<i64, Document>| -> BTreeMap<i64, Document> {
        let without = |(cv, mut row): (i64, Document)| {
            if row.get_object_id("itemId").unwrap().to_hex() == file.to_string() {
                row.remove("size");
                row.remove("checksum");
            }
            (cv, row)
        };
        rows.into_iter().map(without).collect()
    };
    assert_eq!(same(rows(&large, &grown).await), same(rows(&small, &users).await));
    for id in &ids {
        let (a, b) = (users.history(id).await.unwrap(), grown.history(id).await.unwrap());
        assert_eq!(format!("{:?}", a), format!("{:?}", b));
        assert_eq!(
            grown.get(id).include_deleted().await.unwrap().unwrap().document(),
            users.get(id).include_deleted().await.unwrap().unwrap().document()
        );
    }
    let key = document(&grown, &file).await["file"]["ref"]["blobKey"].as_str().unwrap().to_owned();
    assert_eq!(large.bucket().get(&key).await.unwrap().unwrap(), "a file");
    assert_eq!(totals(&grown).await, totals(&users).await);
    // A configuration that knows nothing of the source reads it all the same.
    let config = Config::embedded(&p.folder().join("third"));
    let third = Chronos::open(config).unwrap();
    let copy = third.with(Route::runtime().tenant("default").collection("users")).unwrap();
    copy.restore_backup().from_folder(&folder).await.unwrap();
    assert_eq!(copy.list().await.unwrap().items.len(), users.list().await.unwrap().items.len());
    third.shutdown().await.unwrap();
    embedded.finish().await;
}

/// What is said of the items, without whether it is stored yet.
async fn state(collection: &Collection) -> Vec<String> {
    let views: Vec<_> =
        collection.list().include_deleted().stream().await.unwrap().try_collect().await.unwrap();
    let reported = views.into_iter().map(|mut view| {
        view.item["_system"]["state"] = Json::Null;
        view.to_json().to_string()
    });
    reported.collect()
}

async fn a_collection_without_versions_is_backed_up_as_it_is(p: &Pairing) {
    let store = p.open_with(&json!({"versioning": {"enabled": false}}));
    let people = |name: &str| store.with(Route::identities().tenant("acme").collection(name));
    for (users, copy) in [(store.users(), store.collection("copy")), (people("users"), people("copy"))] {
        let folder = p.folder().join(format!("{}-away", users.database()));
        let mut ids = Vec::new();
        for n in 0..5 {
            ids.push(users.create(json!({"n": n})).await.unwrap().id);
        }
        users.backup().to_folder(&folder).await.unwrap();
        users.update(&ids[0], json!({"n": 100})).await.unwrap();
        users.delete(&ids[1]).await.unwrap();
        let done = users.backup().to_folder(&folder).await.unwrap();
        assert_eq!((done.from, done.cv, done.versions), (-1, 6, 5), "each is whole");
        let restored = copy.restore_backup().of(&users).from_folder(&folder).await.unwrap();
        assert_eq!((restored.cv, restored.versions), (6, 5));
        assert_eq!(state(&copy).await, state(&users).await);
        let written = copy.update(&ids[0], json!({"n": 101})).await.unwrap();
        assert_eq!((written.ov, written.cv), (2, 7));
        let point = copy.restore_backup().of(&users).from_folder(&folder).to_cv(3);
        assert_eq!(refused(point.await), ErrorKind::Validation);
        let found =
            store.chronos.verify_backups(Route::runtime().tenant("acme")).from_folder(&folder).await.unwrap();
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|backup| backup.problems.is_empty() && backup.kind == BackupKind::State));
    }
}

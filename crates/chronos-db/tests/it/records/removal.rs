//! What goes: erased items, and superseded versions where none are kept. And what a head may keep.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chronos_db::{ErrorKind, Json, json};
use test_support::{Failing, Fault, objects};

use super::pairing::{Pairing, Store, TIMEOUT, document, on_every_pairing, refused};

on_every_pairing!(
    the_four_ways_to_delete_leave_what_they_promise,
    an_erased_item_is_absent_to_every_reader,
    without_versioning_only_the_latest_payload_stays,
    without_versioning_writers_still_leave_no_hole,
    a_shadow_in_the_head_answers_while_the_storage_is_down,
);

fn switches(logical: bool, versioning: bool) -> Json {
    json!({"logicalDelete": {"enabled": logical}, "versioning": {"enabled": versioning}})
}

async fn ops(store: &Store, users: &chronos_db::Collection) -> Vec<String> {
    let mut rows = store.stored(users, "ver").await;
    rows.sort_by_key(|row| row.get_i32("cv").unwrap());
    rows.iter().map(|row| row.get_str("op").unwrap().to_owned()).collect()
}

/// D-03, after create, update and delete: an erasure leaves its marker, a deletion without versioning its
/// head.
async fn the_four_ways_to_delete_leave_what_they_promise(p: &Pairing) {
    for (logical, versioning, rows, objects) in [
        (true, true, &["CREATE", "UPDATE", "DELETE"][..], 2),
        (false, true, &["ERASED", "ERASED", "ERASE"], 0),
        (true, false, &[], 1),
        (false, false, &["ERASED", "ERASED", "ERASE"], 0),
    ] {
        let what = format!("logical {logical}, versioning {versioning}");
        let store = p.open_with(&switches(logical, versioning));
        let users = store.collection(&format!("users-{logical}-{versioning}"));
        let id = users.create(json!({"n": 0})).await.unwrap().id;
        users.update(&id, json!({"n": 1})).await.unwrap();
        assert_eq!(users.delete(&id).await.unwrap().ov, 2, "{what}");
        assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
        users.trim(Duration::ZERO).await.unwrap();

        assert_eq!(ops(&store, &users).await, rows, "{what}");
        assert_eq!(store.keys(&users).await.len(), objects, "{what}");
        assert_eq!(users.get(&id).await.unwrap(), None, "{what}");
        let head = users.get(&id).include_deleted().await.unwrap();
        assert_eq!(head.map(|view| view.document()), logical.then(|| json!({"n": 1})), "{what}");
        assert_eq!(users.list().include_deleted().await.unwrap().items.len(), usize::from(logical), "{what}");
        if !logical {
            assert_eq!(refused(users.history(&id).await), ErrorKind::NotFound, "{what}");
        }
    }
}

async fn an_erased_item_is_absent_to_every_reader(p: &Pairing) {
    let mut config = switches(false, true);
    config["collectionMaps"] =
        json!({"users": {"indexedProps": ["n"], "base64Props": {"file": {"contentType": "text/plain"}}}});
    let store = p.open_with(&config);
    let users = store.users();
    let kept = users.create(json!({"n": 1, "file": STANDARD.encode("kept")})).await.unwrap();
    let gone = users.create(json!({"n": 1, "file": STANDARD.encode("gone")})).await.unwrap();
    users.update(&gone.id, json!({"n": 2})).await.unwrap();
    users.delete(&gone.id).await.unwrap();
    // At once, not only when rows and objects are gone.
    for readable in [
        users.get(&gone.id).include_deleted().await.unwrap(),
        users.get(&gone.id).version(0).include_deleted().await.unwrap(),
        users.get(&gone.id).as_of(gone.at).await.unwrap(),
        users.get(&gone.id).as_of_cv(2).await.unwrap(),
    ] {
        assert_eq!(readable, None);
    }
    assert_eq!(users.list().include_deleted().as_of_cv(2).await.unwrap().items.len(), 1);
    assert_eq!(refused(users.restore(&gone.id).to_version(0).await), ErrorKind::NotFound);
    assert_eq!(refused(users.update(&gone.id, json!({"n": 3})).await), ErrorKind::NotFound);
    assert_eq!(refused(users.delete(&gone.id).await), ErrorKind::NotFound);
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    let keys = store.keys(&users).await;
    assert!(
        keys.len() == 3 && keys.iter().all(|key| key.starts_with(&format!("users/{}/", kept.id))),
        "{keys:?}"
    );
    assert_eq!(ops(&store, &users).await, ["CREATE", "ERASED", "ERASED", "ERASE"]);
    let restored = users.restore_collection().to_cv(1).await.unwrap();
    assert_eq!(
        (restored.items, restored.restored),
        (1, 0),
        "a restore of the collection brings nothing erased back"
    );
}

async fn without_versioning_only_the_latest_payload_stays(p: &Pairing) {
    let mut config = switches(true, false);
    config["collectionMaps"] = json!({"users": {"base64Props": {"file": {"contentType": "image/png"}}}});
    let store = p.opening().with(&config).without_cache().open();
    let users = store.users();
    let id = users.create(json!({"n": 0, "file": STANDARD.encode("kept by reference")})).await.unwrap().id;
    for n in 1..4 {
        users.update(&id, json!({ "n": n })).await.unwrap();
    }
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    assert_eq!(users.trim(Duration::from_secs(3600)).await.unwrap(), 0, "young rows still decide races");
    assert_eq!(users.trim(Duration::ZERO).await.unwrap(), 4);
    assert_eq!(users.trim(Duration::ZERO).await.unwrap(), 0);
    let keys = store.keys(&users).await;
    assert_eq!(keys, [format!("users/{id}/v0/file/blob.bin"), format!("users/{id}/v3/item.json")]);
    assert_eq!(document(&users, &id).await["n"], json!(3));
    let verified = users.verify().await.unwrap();
    assert_eq!((verified.items, verified.live, verified.is_clean()), (1, 1, true));
    assert_eq!(users.update(&id, json!({"n": 4})).await.unwrap().ov, 4, "the numbers go on");
    users.delete(&id).await.unwrap();
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    users.trim(Duration::ZERO).await.unwrap();
    assert_eq!(users.get(&id).include_deleted().await.unwrap().unwrap().item["n"], json!(4));
}

async fn without_versioning_writers_still_leave_no_hole(p: &Pairing) {
    let store = p.open_with(&switches(true, false));
    let users = store.users();
    let id = users.create(json!({"n": 0})).await.unwrap().id;
    let writes = (0..12).map(|n| users.update(&id, json!({ format!("w{n}"): 1 })).into_future());
    let mut ovs: Vec<i64> =
        futures::future::try_join_all(writes).await.unwrap().iter().map(|written| written.ov).collect();
    ovs.sort_unstable();
    assert_eq!(ovs, (1..=12).collect::<Vec<_>>());
    assert_eq!(document(&users, &id).await.as_object().unwrap().len(), 13);
}

async fn a_shadow_in_the_head_answers_while_the_storage_is_down(p: &Pairing) {
    let storage = Failing::<objects::Call>::new();
    let config = json!({"devShadow": {"enabled": true, "ttlHours": 24, "maxBytesPerDoc": 1000}});
    let store = p.opening().with(&config).objects(&storage).without_cache().open();
    let users = store.users();
    let id = users.create(json!({"n": 0})).await.unwrap().id;
    users.update(&id, json!({"n": 1})).ack_stored().await.unwrap();
    let large = users.create(json!({"text": "x".repeat(2000)})).ack_stored().await.unwrap().id;
    let shadow = store.head(&users, &id).await.get_document("fullShadow").unwrap().clone();
    assert_eq!(
        (shadow.get_i32("ov").unwrap(), shadow.get_binary_generic("data").unwrap().len()),
        (1, shadow.get_i32("bytes").unwrap() as usize)
    );
    assert!(!store.head(&users, &large).await.contains_key("fullShadow"));
    storage.switch_all_on(Fault::Before);
    assert_eq!(document(&users, &id).await, json!({"n": 1}));
    assert_eq!(refused(users.get(&large).await), ErrorKind::Storage);
    assert_eq!(refused(users.get(&id).version(0).await), ErrorKind::Storage);
    storage.switch_off();
    users.restore(&id).to_version(0).await.unwrap();
    assert_eq!(
        document(&users, &id).await,
        json!({"n": 0}),
        "an older shadow is not mistaken for the restored version"
    );
    users.delete(&id).await.unwrap();
    assert_eq!(users.get(&id).include_deleted().await.unwrap().unwrap().document(), json!({"n": 0}));
}

//! Objects that are not what was written: found, never passed on.

use bytes::Bytes;
use chronos_db::documents::{Batch, Guard, Write};
use chronos_db::objects::PutOptions;
use chronos_db::{Collection, ErrorKind, OnDamage, Verification, View, json};
use futures::TryStreamExt as _;
use test_support::{Failing, Fault, objects};

use super::pairing::{Pairing, Store, TIMEOUT, namespace, on_every_pairing, refused};

on_every_pairing!(
    a_truncated_item_is_an_error_and_verify_finds_it,
    an_edited_item_is_an_error_and_verify_finds_it,
    a_missing_item_is_an_error_and_verify_finds_it,
    a_missing_file_is_found_by_verify,
    a_lost_head_is_rolled_forward,
    a_damaged_head_is_an_error_that_names_it_or_an_item_with_its_error,
    verification_goes_on_past_payloads_that_the_storage_does_not_give,
);

fn kinds(found: &Verification) -> Vec<(&'static str, Option<i64>)> {
    found.problems.iter().map(|problem| (problem.kind, problem.ov)).collect()
}

/// An item of two versions whose first one's object is then changed by `damage`.
async fn damaged(
    p: &Pairing,
    damage: impl AsyncFn(&Store, &str),
) -> (Store, chronos_db::Collection, chronos_db::ItemId) {
    let store = p.opening().without_cache().open();
    let users = store.users();
    let id = users.create(json!({"n": 0})).await.unwrap().id;
    users.update(&id, json!({"n": 1})).ack_stored().await.unwrap();
    users.create(json!({"other": 1})).ack_stored().await.unwrap();
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    assert!(users.verify().await.unwrap().is_clean());
    damage(&store, &format!("users/{id}/v0/item.json")).await;
    (store, users, id)
}

async fn a_truncated_item_is_an_error_and_verify_finds_it(p: &Pairing) {
    let (store, users, id) = damaged(p, async |store, key| {
        let bytes = store.bucket().get(key).await.unwrap().unwrap();
        store.bucket().put(key, bytes.slice(..bytes.len() - 1), PutOptions::default()).await.unwrap();
    })
    .await;
    assert_eq!(refused(users.get(&id).version(0).await), ErrorKind::Storage);
    assert_eq!(
        users.get(&id).await.unwrap().unwrap().document(),
        json!({"n": 1}),
        "other versions are as they were"
    );
    assert_eq!(kinds(&users.verify().await.unwrap()), [("damaged-payload", Some(0))]);
    assert_eq!(
        kinds(&users.verify().repair().await.unwrap()),
        [("damaged-payload", Some(0))],
        "no repair hides it"
    );
    store.is_damaged();
}

async fn an_edited_item_is_an_error_and_verify_finds_it(p: &Pairing) {
    let (store, users, id) = damaged(p, async |store, key| {
        let bytes = store.bucket().get(key).await.unwrap().unwrap();
        let edited = String::from_utf8(bytes.to_vec()).unwrap().replace(r#""n":0"#, r#""n":7"#);
        store.bucket().put(key, Bytes::from(edited), PutOptions::default()).await.unwrap();
    })
    .await;
    let error = users.get(&id).version(0).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Storage, "STORAGE_ERROR"));
    assert!(!error.is_retryable() && error.message().contains("SHA-256"), "{error}");
    assert_eq!(users.restore(&id).to_version(0).await.unwrap().ov, 2, "a restore copies nothing");
    assert_eq!(refused(users.get(&id).await), ErrorKind::Storage);
    assert_eq!(
        refused(users.update(&id, json!({"m": 1})).await),
        ErrorKind::Storage,
        "nothing is built upon damage"
    );
    assert_eq!(refused(users.list().await), ErrorKind::Storage);
    assert_eq!(kinds(&users.verify().await.unwrap()), [("damaged-payload", Some(0))]);
    users.restore(&id).to_version(1).await.expect("what is whole can be restored");
    assert_eq!(users.get(&id).await.unwrap().unwrap().document(), json!({"n": 1}));
    store.is_damaged();
}

async fn a_missing_item_is_an_error_and_verify_finds_it(p: &Pairing) {
    let (store, users, id) = damaged(p, async |store, key| store.bucket().delete(key).await.unwrap()).await;
    assert_eq!(refused(users.get(&id).version(0).await), ErrorKind::Storage);
    assert_eq!(kinds(&users.verify().await.unwrap()), [("missing-object", Some(0))]);
    store.is_damaged();
}

async fn a_missing_file_is_found_by_verify(p: &Pairing) {
    let store = p.open_with(
        &json!({"collectionMaps": {"users": {"base64Props": {"file": {"contentType": "text/plain"}}}}}),
    );
    let users = store.users();
    let id = users.create(json!({"file": "aGVsbG8="})).ack_stored().await.unwrap().id;
    store.bucket().delete(&format!("users/{id}/v0/file/text.txt")).await.unwrap();
    assert_eq!(kinds(&users.verify().await.unwrap()), [("missing-object", Some(0))]);
    store.is_damaged();
}

/// What a crash between the two steps of a commit leaves: the row without its head.
/// The mark as it is stored.
async fn mark(store: &Store, users: &Collection) -> Option<i64> {
    let counter = store.stored(users, "counter").await;
    let mark = counter.iter().find(|note| note.get_str("_id").ok() == Some("stable"))?;
    mark.get_i64("value").ok().or_else(|| mark.get_i32("value").ok().map(i64::from))
}

async fn a_lost_head_is_rolled_forward(p: &Pairing) {
    let store = p.open();
    let users = store.users();
    let lost = users.create(json!({"n": 0})).await.unwrap();
    let lagging = users.create(json!({"n": 0})).await.unwrap();
    let old_head = store.head(&users, &lagging.id).await;
    users.update(&lagging.id, json!({"n": 1})).ack_stored().await.unwrap();
    // Who looks at what the mark has passed rolls no head forward, however long ago that was.
    let began = std::time::Instant::now();
    while mark(&store, &users).await < Some(2) {
        assert_eq!(users.stable_cv().await.unwrap(), 2);
        assert!(began.elapsed() < TIMEOUT, "the mark stays behind");
    }
    let mut batch = Batch::new();
    let id: bson::oid::ObjectId = lost.id.to_string().parse().unwrap();
    batch.push(&namespace(&users, "head"), Write::Delete { id: id.into(), guard: Guard::Any });
    batch.push(&namespace(&users, "head"), Write::put(old_head, Guard::Any));
    store.documents().apply(batch).await.unwrap();

    let found = users.verify().await.unwrap();
    let mut wrong = kinds(&found);
    wrong.sort_unstable();
    assert_eq!(wrong, [("lagging-head", Some(1)), ("missing-head", Some(0))]);
    assert_eq!(
        users.update(&lagging.id, json!({"m": 1})).await.unwrap().ov,
        2,
        "the next writer rolls it forward"
    );
    assert_eq!(users.get(&lagging.id).await.unwrap().unwrap().document(), json!({"n": 1, "m": 1}));
    let repaired = users.verify().repair().await.unwrap();
    assert!(repaired.is_clean() && repaired.repaired >= 1, "{:#}", repaired.to_json());
    let back = users.get(&lost.id).await.unwrap().unwrap();
    assert_eq!(
        (back.document(), &back.item["_system"]["insertedAt"]),
        (json!({"n": 0}), &json!(lost.at.to_string()))
    );
}

/// M15.
async fn verification_goes_on_past_payloads_that_the_storage_does_not_give(p: &Pairing) {
    let storage = Failing::<objects::Call>::new();
    let store = p.opening().objects(&storage).without_cache().open();
    let users = store.users();
    for n in 0..3 {
        users.create(json!({ "n": n })).ack_stored().await.unwrap();
    }
    storage.switch_all_on(Fault::Before);
    let found = users.verify().await.unwrap();
    assert_eq!((found.items, found.versions, found.problem_count), (3, 3, 3));
    assert_eq!(kinds(&found), [("unreadable-payload", Some(0)); 3]);
    storage.switch_off();
    assert!(users.verify().await.unwrap().is_clean());
}

async fn a_damaged_head_is_an_error_that_names_it_or_an_item_with_its_error(p: &Pairing) {
    let store = p.open();
    let users = store.users();
    for n in 0..3 {
        users.create(json!({"n": n})).ack_stored().await.unwrap();
    }
    let whole = store.stored(&users, "head").await.remove(1);
    let id = whole.get_object_id("_id").unwrap().to_hex();
    let put = async |head: &bson::Document| {
        let mut batch = Batch::new();
        batch.push(&namespace(&users, "head"), Write::put(head.clone(), Guard::Any));
        store.documents().apply(batch).await.unwrap();
    };
    let mut damaged = whole.clone();
    damaged.remove("cv");
    put(&damaged).await;
    let error = users.list().await.unwrap_err();
    assert!(error.message().contains(&id) && !error.is_retryable(), "{error}");
    let shown = users.list().on_damage(OnDamage::Show);
    let streamed: Vec<View> = shown.clone().stream().await.unwrap().try_collect().await.unwrap();
    for views in [shown.clone().await.unwrap().items, streamed] {
        let with_errors = views.iter().filter(|view| view.damage.is_some());
        assert_eq!(with_errors.map(|view| view.id.to_string()).collect::<Vec<_>>(), [id.as_str()]);
        assert_eq!(views.len(), 3);
    }
    // A page may end with it.
    let first = shown.clone().limit(2).await.unwrap();
    let rest = shown.limit(2).after(first.next.unwrap()).await.unwrap();
    assert_eq!((first.items.len(), rest.items.len()), (2, 1));
    put(&whole).await;
}

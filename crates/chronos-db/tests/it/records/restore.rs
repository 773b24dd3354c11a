//! Bringing one item back.

use chronos_db::{ErrorKind, Op, json};

use super::pairing::{Pairing, TIMEOUT, document, minute, on_every_pairing, refused};

on_every_pairing!(
    an_item_is_restored_to_a_version_or_a_time,
    a_restore_says_what_is_wrong_with_its_target,
    a_restored_item_is_found_by_its_old_properties,
    a_restored_item_is_found_by_what_the_index_has_no_room_for,
    a_restore_copies_no_payload,
);

async fn an_item_is_restored_to_a_version_or_a_time(p: &Pairing) {
    let users = p.open().users();
    let id = users.create(json!({"n": 0})).at(minute(1)).await.unwrap().id;
    users.update(&id, json!({"n": 1})).at(minute(2)).await.unwrap();
    users.update(&id, json!({"n": 2})).at(minute(3)).await.unwrap();
    let restored = users.restore(&id).to_time(minute(2)).actor("ann").await.unwrap();
    assert_eq!((restored.ov, document(&users, &id).await), (3, json!({"n": 1})));
    users.restore(&id).to_version(0).expect_ov(3).await.unwrap();
    assert_eq!(document(&users, &id).await, json!({"n": 0}));
    users.restore(&id).to_version(3).await.unwrap();
    assert_eq!(document(&users, &id).await, json!({"n": 1}), "a restore can be restored to");
    let last = users.history(&id).newest_first().await.unwrap().remove(0);
    assert_eq!(
        (last.op, last.payload_ov),
        (Op::Restore, 1),
        "the payload is that of the version that wrote it"
    );
    assert!(!users.restore(&id).to_time(minute(2)).await.unwrap().changed, "it is there already");
}

async fn a_restored_item_is_found_by_what_the_index_has_no_room_for(p: &Pairing) {
    let users = p.open().users();
    let (large, small) = (json!({ "note": "x".repeat(70_000) }), json!({ "n": 1 }));
    let first = users.create(large.clone()).await.unwrap().id;
    let second = users.create(small.clone()).await.unwrap().id;
    users.replace(&first, small).await.unwrap();
    users.replace(&second, large).await.unwrap();
    let with_note = async || {
        let found = users.list().filter(json!({ "note": { "$exists": true } })).await.unwrap();
        found.items.iter().map(|view| view.id).collect::<Vec<_>>()
    };
    assert_eq!(with_note().await, [second]);
    users.restore(&first).to_version(0).await.unwrap();
    users.restore(&second).to_version(0).await.unwrap();
    assert_eq!(with_note().await, [first]);
    users.restore_collection().to_cv(3).await.unwrap();
    assert_eq!(with_note().await, [second]);
}

/// N-12, G-19, G-20.
async fn a_restore_says_what_is_wrong_with_its_target(p: &Pairing) {
    let users = p.open().users();
    let id = users.create(json!({"n": 0})).at(minute(10)).await.unwrap().id;
    users.update(&id, json!({"n": 1})).at(minute(20)).await.unwrap();
    users.delete(&id).at(minute(30)).await.unwrap();
    let wrong = users.restore(&id).to_version(0).expect_ov(1).await.unwrap_err();
    assert_eq!((wrong.kind(), wrong.ov()), (ErrorKind::OptimisticLock, Some(2)));
    let deletion = users.restore(&id).to_version(2).await.unwrap_err();
    assert_eq!((deletion.kind(), deletion.ov()), (ErrorKind::Validation, Some(2)));
    assert_eq!(refused(users.restore(&id).to_time(minute(40)).await), ErrorKind::Validation);
    assert_eq!(refused(users.restore(&id).to_time(minute(9)).await), ErrorKind::NotFound);
    assert_eq!(refused(users.restore(&id).to_version(3).await), ErrorKind::NotFound);
    assert_eq!(refused(users.restore(&id).await), ErrorKind::Validation);
    let nobody = "65f0a1b2c3d4e5f60718293a".parse().unwrap();
    assert_eq!(refused(users.restore(&nobody).to_version(0).await), ErrorKind::NotFound);
    assert_eq!(users.history(&id).await.unwrap().len(), 3);
    assert_eq!(users.restore(&id).to_version(0).expect_ov(2).await.unwrap().ov, 3);
}

async fn a_restored_item_is_found_by_its_old_properties(p: &Pairing) {
    let users = p.open().users();
    let id = users.create(json!({"city": "old"})).await.unwrap().id;
    users.update(&id, json!({"city": "new", "extra": 1})).await.unwrap();
    users.restore(&id).to_version(0).await.unwrap();
    let found = async |filter| users.list().filter(filter).await.unwrap().items.len();
    assert_eq!(found(json!({"city": "old"})).await, 1);
    assert_eq!(found(json!({"city": "new"})).await, 0);
    assert_eq!(found(json!({"extra": 1})).await, 0);
}

async fn a_restore_copies_no_payload(p: &Pairing) {
    let store = p.opening().without_cache().open();
    let users = store.users();
    let id = users.create(json!({"n": 0})).await.unwrap().id;
    // While the first payload still rides in its row, and after it was stored.
    users.update(&id, json!({"n": 1})).await.unwrap();
    users.restore(&id).to_version(0).await.unwrap();
    assert_eq!(document(&users, &id).await, json!({"n": 0}));
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    assert_eq!(document(&users, &id).await, json!({"n": 0}));
    users.restore(&id).to_version(1).await.unwrap();
    users.delete(&id).await.unwrap();
    users.restore(&id).to_version(2).await.unwrap();
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    assert_eq!(document(&users, &id).await, json!({"n": 0}));
    assert_eq!(store.keys(&users).await.len(), 2);
    let history = users.history(&id).await.unwrap();
    assert_eq!(history.iter().map(|version| version.payload_ov).collect::<Vec<_>>(), [0, 1, 0, 1, 1, 0]);
    assert_eq!(history[5].checksum, history[0].checksum);
}

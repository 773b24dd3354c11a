//! Collections that keep no versions: of each item there is the latest one, and nothing else is pretended.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chronos_db::{Collection, Env, ErrorKind, ItemId, Json, Timestamp, json};
use test_support::{Holding, MockClock, objects};

use super::pairing::{Pairing, TIMEOUT, document, on_durable_pairings, on_every_pairing, refused};

mod alone {
    super::on_every_pairing!(
        the_latest_version_is_there_as_of_now_also_when_its_row_is_gone,
        what_was_before_is_refused_instead_of_being_taken_for_nothing,
        a_restore_of_the_collection_to_now_changes_nothing_and_to_before_is_refused,
        a_deleted_item_comes_back_as_it_was_last,
    );
    use super::*;
}

mod apart {
    super::on_durable_pairings!(
        a_write_whose_upload_takes_long_succeeds_and_uploads_once,
        a_write_that_is_overtaken_while_it_uploads_uploads_no_blob_twice,
        what_a_head_names_is_never_trimmed,
        a_row_is_as_old_as_its_commit_however_long_its_upload_took,
    );
    use super::*;
}

fn unversioned() -> Json {
    json!({
        "versioning": {"enabled": false}, "inlineMaxBytes": 1000,
        "collectionMaps": {"users": {"indexedProps": ["n"], "base64Props": {"file": {"contentType": "image/png"}}}},
    })
}

/// Everything is stored, and the rows are gone.
async fn trimmed(users: &Collection) {
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    users.trim(Duration::ZERO).await.unwrap();
}

/// Four items, the first of them with another version; before, between and after.
async fn filled(users: &Collection) -> (Vec<ItemId>, [Timestamp; 3]) {
    let mut ids = Vec::new();
    let mut last = None;
    for n in 0..4 {
        let written = users.create(json!({ "n": n })).await.unwrap();
        ids.push(written.id);
        last = Some(written.at);
    }
    let between = last.unwrap();
    // Later than the creation of all of them.
    let updated = loop {
        let updated = users.update(&ids[0], json!({"n": 10})).force().await.unwrap();
        if updated.at > between {
            break updated.at;
        }
    };
    (ids, [between.plus_millis(-3_600_000), between, updated])
}

async fn the_latest_version_is_there_as_of_now_also_when_its_row_is_gone(p: &Pairing) {
    let store = p.open_with(&unversioned());
    let users = store.users();
    let (ids, [_, _, now]) = filled(&users).await;
    for trim in [false, true] {
        if trim {
            trimmed(&users).await;
        }
        let head = users.get(&ids[0]).await.unwrap().unwrap();
        for found in [
            users.get(&ids[0]).version(head.ov).await.unwrap(),
            users.get(&ids[0]).as_of(now).await.unwrap(),
            users.get(&ids[0]).as_of_cv(head.cv).await.unwrap(),
        ] {
            assert_eq!(found.unwrap().item["n"], json!(10), "trimmed: {trim}");
        }
        assert_eq!(users.list().as_of(now).await.unwrap().items.len(), 4, "trimmed: {trim}");
        assert_eq!(users.list().as_of_cv(head.cv).await.unwrap().items.len(), 4, "trimmed: {trim}");
        let tens = users.list().filter(json!({"n": 10})).as_of(now).await.unwrap().items;
        assert_eq!(tens.iter().map(|view| view.id).collect::<Vec<_>>(), [ids[0]]);
        let history = users.history(&ids[0]).await.unwrap();
        assert_eq!(
            history.iter().map(|version| version.ov).collect::<Vec<_>>(),
            [head.ov],
            "trimmed: {trim}"
        );
    }
}

async fn what_was_before_is_refused_instead_of_being_taken_for_nothing(p: &Pairing) {
    let store = p.open_with(&unversioned());
    let users = store.users();
    let (ids, [before, between, _]) = filled(&users).await;
    for trim in [false, true] {
        if trim {
            trimmed(&users).await;
        }
        let error = users.get(&ids[0]).version(0).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Validation);
        assert!(error.message().contains("versioning"), "{error}");
        assert_eq!(refused(users.get(&ids[0]).as_of(between).await), ErrorKind::Validation);
        assert_eq!(refused(users.get(&ids[0]).as_of_cv(0).await), ErrorKind::Validation);
        assert_eq!(refused(users.list().as_of(between).await), ErrorKind::Validation);
        assert_eq!(refused(users.list().as_of_cv(3).await), ErrorKind::Validation);
        assert_eq!(refused(users.restore(&ids[0]).to_version(0).await), ErrorKind::Validation);
        // There is no doubt about what there was not.
        assert_eq!(users.get(&ids[0]).as_of(before).await.unwrap(), None);
        assert_eq!(users.get(&ids[0]).version(1_000).await.unwrap(), None);
        assert_eq!(users.list().as_of(before).await.unwrap().items.len(), 0);
        assert_eq!(users.get(&ids[1]).as_of(between).await.unwrap().unwrap().item["n"], json!(1));
    }
}

async fn a_restore_of_the_collection_to_now_changes_nothing_and_to_before_is_refused(p: &Pairing) {
    let store = p.open_with(&unversioned());
    let users = store.users();
    let (_, [before, between, now]) = filled(&users).await;
    trimmed(&users).await;
    let restored = users.restore_collection().to_time(now).await.unwrap();
    assert_eq!((restored.items, restored.unchanged, restored.removed), (4, 4, 0));
    assert_eq!(refused(users.restore_collection().to_time(between).await), ErrorKind::Validation);
    assert_eq!(users.list().await.unwrap().items.len(), 4);
    let restored = users.restore_collection().to_time(before).await.unwrap();
    assert_eq!(
        (restored.removed, users.list().await.unwrap().items.len()),
        (4, 0),
        "none of them was there then"
    );
}

async fn a_deleted_item_comes_back_as_it_was_last(p: &Pairing) {
    let store = p.open_with(&unversioned());
    let users = store.users();
    let id = users.create(json!({"n": 0})).await.unwrap().id;
    users.update(&id, json!({"n": 1})).await.unwrap();
    users.delete(&id).await.unwrap();
    trimmed(&users).await;
    assert_eq!(refused(users.restore(&id).to_version(0).await), ErrorKind::Validation);
    assert_eq!(users.restore(&id).to_version(1).await.unwrap().ov, 3);
    assert_eq!(document(&users, &id).await, json!({"n": 1}));
}

async fn a_write_whose_upload_takes_long_succeeds_and_uploads_once(p: &Pairing) {
    let (holding, clock) = (Holding::<objects::Call>::new(), Arc::new(MockClock::default()));
    let env = Env { clock: clock.clone(), ..Env::default() };
    let store = p.opening().with(&unversioned()).env(env).objects(&holding).open();
    let users = store.users();
    let id = users.create(json!({"n": 0, "text": "x".repeat(2000)})).await.unwrap().id;
    let before = holding.count(objects::Call::Put);
    holding.hold(objects::Call::Put, 0);
    let change =
        users.update(&id, json!({"text": "y".repeat(2000), "file": STANDARD.encode("a file")})).into_future();
    let wait = async {
        holding.reached(objects::Call::Put).await;
        clock.advance(Duration::from_secs(60));
        holding.release(objects::Call::Put);
    };
    let (changed, ()) = futures::future::join(change, wait).await;
    assert_eq!(changed.unwrap().ov, 1);
    assert_eq!(holding.count(objects::Call::Put) - before, 2, "item.json and the blob, once each");
    assert_eq!(document(&users, &id).await["text"], json!("y".repeat(2000)));
}

async fn a_write_that_is_overtaken_while_it_uploads_uploads_no_blob_twice(p: &Pairing) {
    let holding = Holding::<objects::Call>::new();
    let (late, other) =
        (p.opening().with(&unversioned()).objects(&holding).open(), p.open_with(&unversioned()));
    let (slow, users) = (late.users(), other.users());
    let id = slow.create(json!({"n": 0, "text": "x".repeat(2000)})).await.unwrap().id;
    let before = holding.count(objects::Call::Put);
    holding.hold(objects::Call::Put, 0);
    let change =
        slow.update(&id, json!({"text": "y".repeat(2000), "file": STANDARD.encode("a file")})).into_future();
    let overtaken = async {
        holding.reached(objects::Call::Put).await;
        users.update(&id, json!({"other": 1})).await.unwrap();
        holding.release(objects::Call::Put);
    };
    let (changed, ()) = futures::future::join(change, overtaken).await;
    assert_eq!(changed.unwrap().ov, 2);
    assert_eq!(
        holding.count(objects::Call::Put) - before,
        3,
        "the blob once, item.json for each of the versions it would have been"
    );
    let found = document(&users, &id).await;
    assert_eq!((&found["other"], &found["text"]), (&json!(1), &json!("y".repeat(2000))));
    trimmed(&users).await;
    let blob = found["file"]["ref"]["blobKey"].as_str().unwrap();
    assert_eq!(other.bucket().get(blob).await.unwrap().unwrap(), "a file");
    assert_eq!(other.keys(&users).await.len(), 2, "what its version does not name is gone");
}

/// A trim that stands still between its look at the heads and each of its deletions, while others write.
async fn what_a_head_names_is_never_trimmed(p: &Pairing) {
    let holding = Holding::<objects::Call>::new();
    let (late, other) = (
        p.opening().with(&unversioned()).objects(&holding).without_cache().open(),
        p.open_with(&unversioned()),
    );
    let (slow, users) = (late.users(), other.users());
    let id = users.create(json!({"n": 0, "file": STANDARD.encode("a file")})).await.unwrap().id;
    users.update(&id, json!({"n": 1})).await.unwrap();
    users.update(&id, json!({"n": 2})).await.unwrap();
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    for passes in 0..2 {
        holding.hold(objects::Call::Delete, passes);
        let trim = slow.trim(Duration::ZERO);
        let meanwhile = async {
            if passes == 0 {
                holding.reached(objects::Call::Delete).await;
                assert_eq!(refused(users.restore(&id).to_version(0).await), ErrorKind::Validation);
                users.delete(&id).await.unwrap();
                users.restore(&id).to_version(2).await.unwrap();
                users.update(&id, json!({"more": 1})).await.unwrap();
                assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
            }
            holding.release(objects::Call::Delete);
        };
        let (went, ()) = futures::future::join(trim, meanwhile).await;
        went.unwrap();
        let found = document(&slow, &id).await;
        assert_eq!((&found["n"], &found["more"]), (&json!(2), &json!(1)));
        let blob = found["file"]["ref"]["blobKey"].as_str().unwrap();
        assert_eq!(other.bucket().get(blob).await.unwrap().unwrap(), "a file");
    }
}

/// Who read the head before that commit finds its number taken, as long as it may follow it.
async fn a_row_is_as_old_as_its_commit_however_long_its_upload_took(p: &Pairing) {
    const GRACE: Duration = Duration::from_secs(2);
    let holding = Holding::<objects::Call>::new();
    let (late, other) =
        (p.opening().with(&unversioned()).objects(&holding).open(), p.open_with(&unversioned()));
    let (slow, users) = (late.users(), other.users());
    let id = slow.create(json!({"n": 0})).ack_stored().await.unwrap().id;
    holding.hold(objects::Call::Put, 0);
    let change = slow.update(&id, json!({"text": "y".repeat(2000)})).into_future();
    let wait = async {
        holding.reached(objects::Call::Put).await;
        let begun = other.documents().now().await.unwrap();
        // Until its upload has taken longer than the grace, by the store's clock.
        while other.documents().now().await.unwrap().as_millis() - begun.as_millis()
            < 2 * i64::try_from(GRACE.as_millis()).unwrap()
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        holding.release(objects::Call::Put);
    };
    let (changed, ()) = futures::future::join(change, wait).await;
    assert_eq!(changed.unwrap().ov, 1);
    users.trim(GRACE).await.unwrap();
    let rows = other.stored(&users, "ver").await;
    assert!(
        rows.iter().any(|row| row.get_i32("ov").unwrap() == 1),
        "a row that was written just now went: {rows:?}"
    );
}

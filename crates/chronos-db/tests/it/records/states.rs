//! States: what is stored, what has passed its time, and what heads keep until then.

use std::time::Duration;

use chronos_db::{Collection, ErrorKind, ItemId, Json, State, Timestamp, json};

use super::child;
use super::pairing::{Pairing, Store, TIMEOUT, on_durable_pairings, on_every_pairing, refused};

mod alone {
    super::on_every_pairing!(
        an_item_is_marked_as_processed_with_and_without_a_shadow,
        items_whose_time_has_passed_are_marked_once,
        payloads_leave_their_heads_when_their_time_has_passed,
        a_worker_marks_and_shrinks_what_has_passed_its_time,
        where_nothing_is_stored_as_an_object_nothing_is_marked,
        what_is_not_due_costs_the_same_however_much_there_is,
    );
    use super::*;
}

mod apart {
    super::on_durable_pairings!(
        items_that_are_written_meanwhile_keep_what_was_written,
        what_a_killed_process_began_is_ended_by_the_next,
    );
    use super::*;
}

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

fn shadows() -> Json {
    json!({ "devShadow": { "enabled": true, "ttlHours": 24 } })
}

async fn state(users: &Collection, id: &ItemId) -> Json {
    users.get(id).await.unwrap().unwrap().item["_system"]["state"].clone()
}

/// An item that was written so long ago, and is stored.
async fn written(store: &Store, users: &Collection, ago: Duration, n: i64) -> ItemId {
    let now = store.documents().now().await.unwrap();
    let at = now.plus_millis(-i64::try_from(ago.as_millis()).unwrap());
    users.create(json!({ "n": n })).at(at).ack_stored().await.unwrap().id
}

/// N-09, G-14.
async fn an_item_is_marked_as_processed_with_and_without_a_shadow(p: &Pairing) {
    for (more, has_shadow) in [(shadows(), true), (json!({}), false)] {
        let store = p.opening().with(&more).without_cache().open();
        let users = store.collection(if has_shadow { "shaded" } else { "bare" });
        let id = users.create(json!({"n": 0})).await.unwrap().id;
        let before = store.head(&users, &id).await;
        assert_eq!(before.contains_key("fullShadow"), has_shadow);
        let would = users.mark_item_as_processed(&id).dry_run().await.unwrap();
        assert!(would.dry_run && would.state != State::Processed, "{would:?}");
        let marked = users.mark_item_as_processed(&id).await.unwrap();
        assert_eq!((marked.marked, marked.state), (true, State::Processed));
        assert_eq!(state(&users, &id).await, "processed");
        let shadow = |head: &bson::Document| head.get("fullShadow").cloned();
        assert_eq!(shadow(&store.head(&users, &id).await), shadow(&before), "it is as it was");
        let again = users.mark_item_as_processed(&id).await.unwrap();
        assert_eq!((again.marked, again.state), (false, State::Processed));
        assert_eq!(users.history(&id).await.unwrap().len(), 1, "it makes no version");
        assert_eq!(users.get(&id).await.unwrap().unwrap().document(), json!({"n": 0}));
        users.update(&id, json!({"n": 1})).ack_stored().await.unwrap();
        assert_eq!(state(&users, &id).await, "new", "the next version begins anew");
        let unknown: ItemId = "64f0c0ffee64f0c0ffee64f0".parse().unwrap();
        assert_eq!(refused(users.mark_item_as_processed(&unknown).await), ErrorKind::NotFound);
    }
}

/// N-09, G-73.
async fn items_whose_time_has_passed_are_marked_once(p: &Pairing) {
    for more in [shadows(), json!({})] {
        let store = p.open_with(&more);
        let users = store.collection(if more == json!({}) { "bare" } else { "shaded" });
        let mut old = Vec::new();
        for n in 0..20 {
            old.push(written(&store, &users, 3 * DAY, n).await);
        }
        let new = written(&store, &users, HOUR, 0).await;
        let would = users.mark_items_as_processed_by_ttl(DAY).dry_run().await.unwrap();
        assert_eq!((would.items_processed, would.items_marked_as_processed), (20, 20));
        assert_eq!(state(&users, &old[0]).await, "new");
        let some = users.mark_items_as_processed_by_ttl(DAY).max_items(5).await.unwrap();
        assert_eq!((some.items_processed, some.items_marked_as_processed), (5, 5));
        let rest = users.mark_items_as_processed_by_ttl(DAY).await.unwrap();
        assert_eq!((rest.items_processed, rest.items_marked_as_processed), (15, 15));
        assert_eq!(users.mark_items_as_processed_by_ttl(DAY).await.unwrap().items_processed, 0);
        for id in &old {
            assert_eq!(state(&users, id).await, "processed");
        }
        assert_eq!(state(&users, &new).await, "new");
        // What is deleted or restored has the payload it had.
        users.delete(&old[0]).await.unwrap();
        users.restore(&old[0]).to_version(0).await.unwrap();
        assert_eq!(users.get(&old[0]).await.unwrap().unwrap().document(), json!({"n": 0}));
    }
}

/// G-67.
async fn payloads_leave_their_heads_when_their_time_has_passed(p: &Pairing) {
    let store = p.opening().with(&shadows()).without_cache().open();
    let users = store.users();
    let (old, new) = (written(&store, &users, 2 * DAY, 1).await, written(&store, &users, HOUR, 2).await);
    let has_shadow = async |id: &ItemId| store.head(&users, id).await.contains_key("fullShadow");
    assert_eq!(users.shrink_shadows().dry_run().await.unwrap().shadows_shrunk, 1);
    assert!(has_shadow(&old).await && has_shadow(&new).await);
    let shrunk = users.shrink_shadows().await.unwrap();
    assert_eq!((shrunk.items_processed, shrunk.shadows_shrunk), (1, 1));
    assert!(shrunk.bytes_freed > 0 && !has_shadow(&old).await && has_shadow(&new).await);
    assert_eq!(users.shrink_shadows().await.unwrap().shadows_shrunk, 0);
    assert_eq!(users.shrink_shadows().larger_than(1).older_than(2 * DAY).await.unwrap().shadows_shrunk, 1);
    assert!(!has_shadow(&new).await);
    for (id, n) in [(old, 1), (new, 2)] {
        assert_eq!(users.get(&id).await.unwrap().unwrap().document(), json!({ "n": n }));
    }
    // Where heads keep nothing any more, what they kept goes.
    let id = users.create(json!({"n": 3})).ack_stored().await.unwrap().id;
    assert!(has_shadow(&id).await);
    if p.kind != super::pairing::Kind::EmbeddedMemory {
        let plain = p.open().users();
        assert_eq!(plain.shrink_shadows().await.unwrap().shadows_shrunk, 1);
        assert_eq!(plain.get(&id).await.unwrap().unwrap().document(), json!({"n": 3}));
    }
}

async fn a_worker_marks_and_shrinks_what_has_passed_its_time(p: &Pairing) {
    let store = p.open_with(&shadows());
    let users = store.users();
    let (old, new) = (written(&store, &users, 2 * DAY, 1).await, written(&store, &users, HOUR, 2).await);
    let report = store.chronos.worker().once(TIMEOUT).await;
    assert!(report.is_finished() && report.failure_count == 0, "{report:?}");
    assert_eq!((report.amounts["processed"], report.amounts["shrunk"]), (1, 1), "{report:?}");
    assert_eq!((state(&users, &old).await, state(&users, &new).await), (json!("processed"), json!("new")));
    assert!(!store.head(&users, &old).await.contains_key("fullShadow"));
    assert!(store.head(&users, &new).await.contains_key("fullShadow"));
}

async fn where_nothing_is_stored_as_an_object_nothing_is_marked(p: &Pairing) {
    let mut config = p.config(&shadows());
    config.as_object_mut().unwrap().remove("localStorage");
    config.as_object_mut().unwrap().remove("spacesConnections");
    for entry in config["databases"]["runtime"]["tenantDatabases"].as_array_mut().unwrap() {
        entry.as_object_mut().unwrap().remove("spaceConnRef");
    }
    config["databases"].as_object_mut().unwrap().remove("logs");
    let store = p.opening().configured(&config).open();
    let users = store.collection("inside");
    let at = Timestamp::parse("2024-01-01").unwrap();
    let id = users.create(json!({"n": 1})).at(at).await.unwrap().id;
    let marked = users.mark_item_as_processed(&id).await.unwrap();
    assert_eq!((marked.marked, marked.state), (false, State::NewNotSynched));
    assert_eq!(users.mark_items_as_processed_by_ttl(DAY).await.unwrap().items_marked_as_processed, 0);
    assert_eq!(users.shrink_shadows().await.unwrap().shadows_shrunk, 1);
    assert_eq!(users.get(&id).await.unwrap().unwrap().document(), json!({"n": 1}));
}

async fn what_is_not_due_costs_the_same_however_much_there_is(p: &Pairing) {
    let mut spent = Vec::new();
    for (name, items) in [("few", 10), ("many", 1_000)] {
        let (client, gauge) = p.observed();
        let store = p.opening().with(&shadows()).documents_client(client).open();
        let users = store.collection(name);
        let creates = (0..items).map(|n| users.create(json!({ "n": n })).into_future());
        futures::future::try_join_all(creates).await.unwrap();
        assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
        let pass = async || {
            assert_eq!(users.mark_items_as_processed_by_ttl(DAY).await.unwrap().items_processed, 0);
            assert_eq!(users.shrink_shadows().await.unwrap().items_processed, 0);
        };
        pass().await;
        gauge.begin(users.database()).await;
        pass().await;
        spent.push(gauge.end(users.database()).await);
    }
    let (few, many) = (spent[0], spent[1]);
    assert!(many.examined <= 2 * few.examined + 40 && many.requests <= few.requests, "{few:?} {many:?}");
}

async fn items_that_are_written_meanwhile_keep_what_was_written(p: &Pairing) {
    let (store, other) = (p.open_with(&shadows()), p.open_with(&shadows()));
    let (users, writer) = (store.users(), other.users());
    let mut ids = Vec::new();
    for n in 0..10 {
        ids.push(written(&store, &users, 2 * DAY, n).await);
    }
    let writes = async {
        for round in 0..5 {
            let updates = ids.iter().map(|id| writer.update(id, json!({ "round": round })).into_future());
            futures::future::try_join_all(updates).await.unwrap();
        }
    };
    let marks = async {
        for _ in 0..10 {
            users.mark_items_as_processed_by_ttl(Duration::ZERO).await.unwrap();
            users.shrink_shadows().all().await.unwrap();
        }
    };
    futures::future::join(writes, marks).await;
    assert_eq!(writer.flush(TIMEOUT).await.unwrap(), 0);
    for (n, id) in ids.iter().enumerate() {
        let got = users.get(id).await.unwrap().unwrap();
        assert_eq!((got.ov, got.document()), (5, json!({ "n": n as i64, "round": 4 })));
    }
    assert_eq!(users.mark_items_as_processed_by_ttl(2 * DAY).await.unwrap().items_processed, 0);
}

const TASK: &str = "CHRONOS_TEST_STATES";

/// Does nothing in an ordinary run: it is what the test below starts.
#[tokio::test]
async fn one_that_is_killed() {
    let Some((_, chronos)) = child::task(TASK) else { return };
    let users = chronos.with(chronos_db::Route::runtime().tenant("acme").collection("users")).unwrap();
    users.mark_items_as_processed_by_ttl(DAY).await.unwrap();
    users.shrink_shadows().await.unwrap();
}

async fn what_a_killed_process_began_is_ended_by_the_next(p: &Pairing) {
    let store = p.open_with(&shadows());
    let users = store.users();
    let mut ids = Vec::new();
    // More than are changed at once.
    for n in 0..20 {
        ids.push(written(&store, &users, 2 * DAY, n).await);
    }
    let (mut marked, mut shrunk) = (0, 0);
    for passed in [1, 0] {
        let test = concat!(module_path!(), "::one_that_is_killed");
        let points = format!("expire.before_put=abort:{passed}");
        let output = child::run(p, test, TASK, &shadows(), &points, json!({})).await;
        assert!(child::was_killed(&output), "{output:?}");
        let heads = store.stored(&users, "head").await;
        marked = heads.iter().filter(|head| head.get_str("state").unwrap() == "processed").count() as u64;
        shrunk = heads.iter().filter(|head| !head.contains_key("fullShadow")).count() as u64;
    }
    assert!(marked > 0 && marked < 20 && shrunk == 0, "{marked} {shrunk}");
    let rest = users.mark_items_as_processed_by_ttl(DAY).await.unwrap();
    assert_eq!(rest.items_marked_as_processed, 20 - marked);
    assert_eq!(users.shrink_shadows().await.unwrap().shadows_shrunk, 20);
    for (n, id) in ids.iter().enumerate() {
        let got = users.get(id).await.unwrap().unwrap();
        assert_eq!((got.ov, got.document()), (0, json!({ "n": n as i64 })));
    }
}

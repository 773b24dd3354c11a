//! Writes that fail in a way that passes wait in the fallback queue, and take place exactly once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chronos_db::config::Config;
use chronos_db::documents::embedded::EmbeddedDocuments;
use chronos_db::documents::{Batch, DocumentStore as _, Guard, Namespace, Write};
use chronos_db::fail::FailPoints;
use chronos_db::{
    Chronos, Clock as _, Collection, Env, ErrorKind, FallbackQueue, ItemId, Json, Op, QueuedOperation,
    Retried, Route, Timestamp, WorkerReport, Written, json,
};
use test_support::{Counting, Failing, Fault, MockClock, documents, objects};

use super::pairing::{
    Kind, Pairing, Store, document, on_durable_pairings, on_every_pairing, on_pairings, refused,
};

on_every_pairing!(
    writes_go_on_while_the_database_is_away_and_take_place_once_in_their_order,
    a_write_that_landed_unseen_takes_place_once,
    a_write_that_landed_unseen_is_found_behind_those_of_others,
    a_creation_that_landed_unseen_is_found_when_its_row_is_trimmed,
    what_cannot_succeed_is_not_queued,
    what_comes_later_for_an_item_waits_behind_what_waits,
    an_operation_that_cannot_succeed_is_a_dead_letter_and_stops_no_other,
    after_the_last_attempt_an_operation_is_a_dead_letter,
    an_outage_takes_no_attempts,
    an_operation_can_be_cancelled_while_the_database_is_away,
    numbers_and_the_order_of_keys_survive_the_queue,
    without_a_spool_operations_wait_beside_their_records,
    a_committed_write_whose_object_is_not_stored_is_not_queued,
    a_queue_of_many_items_and_one_of_a_single_item_are_drained_in_one_round,
    a_queue_whose_store_fails_holds_up_no_other,
    what_other_queues_have_is_said_while_one_does_not_answer,
    a_queue_that_does_not_answer_is_reported_once_and_tried_after_growing_waits,
);

mod processes {
    use super::{
        a_process_finds_what_another_one_queued, on_durable_pairings,
        two_processes_that_share_a_spool_carry_out_each_operation_once,
        what_landed_unseen_is_found_when_its_row_has_left_the_index,
    };

    on_durable_pairings!(
        what_landed_unseen_is_found_when_its_row_has_left_the_index,
        two_processes_that_share_a_spool_carry_out_each_operation_once,
        a_process_finds_what_another_one_queued,
    );
}

on_pairings!(
    shared = EmbeddedLocal:
        a_process_whose_configuration_leads_elsewhere_leaves_a_queued_write_alone,
        an_operation_that_cannot_be_read_is_a_dead_letter_and_stops_no_other,
        of_two_callers_who_retry_a_dead_letter_one_is_refused
);

on_pairings!(
    killed = EmbeddedLocal:
        a_process_that_is_killed_at_any_step_loses_and_doubles_nothing,
        a_process_that_is_killed_while_it_queues_a_write_leaves_it_or_nothing
);

/// A queue that waits for nothing, with a spool in the folder of the scenario.
fn spooled() -> Json {
    json!({"fallback": {"maxAttempts": 3, "baseDelayMs": 0, "maxDelayMs": 0, "spoolPath": "./spool"}})
}

fn with(mut config: Json, more: Json) -> Json {
    for (key, value) in more.as_object().unwrap() {
        config[key.as_str()] = value.clone();
    }
    config
}

fn fallback(store: &Store) -> FallbackQueue {
    store.chronos.fallback().unwrap()
}

async fn sizes(store: &Store) -> (u64, u64) {
    let stats = fallback(store).stats().await.unwrap();
    (stats.queue_size, stats.dead_letter_size)
}

fn retried(done: u64, dead: u64, waiting: u64) -> Retried {
    let mut retried = Retried::default();
    (retried.done, retried.dead, retried.waiting) = (done, dead, waiting);
    retried
}

/// Rounds until nothing waits.
async fn drain(store: &Store) -> Retried {
    let mut all = Retried::default();
    for _ in 0..100 {
        let round = fallback(store).retry_due().await.unwrap();
        all.done += round.done;
        all.postponed += round.postponed;
        all.dead += round.dead;
        if round.waiting == 0 {
            return all;
        }
    }
    panic!("operations still wait: {:?}", fallback(store).list().await.unwrap());
}

fn queued(written: Written) -> ItemId {
    assert!(written.queued.is_some(), "{written:?}");
    assert_eq!((written.ov, written.cv, written.changed, written.created), (-1, -1, false, false));
    written.id
}

async fn history(users: &Collection, id: &ItemId) -> Vec<(i64, Op)> {
    users.history(id).await.unwrap().iter().map(|version| (version.ov, version.op)).collect()
}

/// N-14.
async fn writes_go_on_while_the_database_is_away_and_take_place_once_in_their_order(p: &Pairing) {
    let database = Failing::<documents::Call>::new();
    let store = p.opening().with(&spooled()).documents(&database).open();
    let users = store.users();
    let old = users.create(json!({"name": "old"})).await.unwrap().id;
    users.update(&old, json!({"n": 1})).await.unwrap();
    let dropped = users.create(json!({"name": "dropped"})).await.unwrap().id;

    database.switch_all_on(Fault::Before);
    let parent = users.create(json!({"name": "parent"})).parent(&old, "users").actor("ann").await.unwrap();
    let new = queued(parent);
    for n in 1..=3 {
        let update =
            users.update(&new, json!({ "n": n })).reason(format!("change {n}")).request_id("r").await;
        assert_eq!(queued(update.unwrap()), new);
    }
    queued(
        users.enrich(&new, json!([{"tags": ["a"]}, {"tags": ["b"]}])).function_id("tagger").await.unwrap(),
    );
    queued(users.replace(&old, json!({"name": "older"})).await.unwrap());
    queued(users.restore(&old).to_version(0).await.unwrap());
    queued(users.delete(&dropped).await.unwrap());
    assert_eq!(refused(users.get(&new).await), ErrorKind::Database, "a read says what is stored");

    let stats = fallback(&store).stats().await.unwrap();
    assert_eq!((stats.queue_size, stats.dead_letter_size, stats.waiting_objects), (8, 0, None));
    let by_type =
        [("CREATE", 1), ("UPDATE", 3), ("ENRICH", 1), ("REPLACE", 1), ("RESTORE", 1), ("DELETE", 1)];
    let by_type: BTreeMap<String, u64> = by_type.map(|(kind, n)| (kind.to_owned(), n)).into();
    assert_eq!(stats.by_type, by_type);
    let waiting = fallback(&store).list().await.unwrap().operations;
    assert_eq!(stats.oldest_pending, Some(waiting[0].created_at));
    assert_eq!((waiting.len(), &waiting[0].operation[..], waiting[0].id), (8, "CREATE", new));
    assert_eq!(waiting[0].tenant.as_deref(), Some("acme"));
    assert_eq!(waiting[0].last_error.as_ref().unwrap().0, "TXN_ERROR");

    database.switch_off();
    assert_eq!(fallback(&store).retry_due().await.unwrap(), retried(8, 0, 0));
    let of_new = [(0, Op::Create), (1, Op::Update), (2, Op::Update), (3, Op::Update), (4, Op::Update)];
    assert_eq!(history(&users, &new).await, of_new);
    assert_eq!(document(&users, &new).await, json!({"name": "parent", "n": 3, "tags": ["a", "b"]}));
    let versions = users.history(&new).await.unwrap();
    assert_eq!(
        (versions[0].actor.as_deref(), versions[2].reason.as_deref()),
        (Some("ann"), Some("change 2"))
    );
    assert_eq!(versions[2].request_id.as_deref(), Some("r"));
    let shown = users.get(&new).await.unwrap().unwrap().item;
    assert_eq!(shown["_system"]["functionIds"], json!(["tagger"]));
    assert_eq!(shown["_system"]["parentId"], json!(old.to_string()));
    assert_eq!(document(&users, &old).await, json!({"name": "old"}));
    assert_eq!(history(&users, &old).await.last(), Some(&(3, Op::Restore)));
    assert!(users.get(&dropped).await.unwrap().is_none());
    assert_eq!(sizes(&store).await, (0, 0));
    assert_eq!(fallback(&store).retry_due().await.unwrap(), Retried::default());
}

/// The answer to a commit is lost, and the store is away before anything else can be asked.
fn lose_the_answer(database: &Failing<documents::Call>) {
    database.fail_nth(documents::Call::SequenceThen, 1, Fault::After);
    database.switch_on(documents::Call::Apply, Fault::Before);
}

async fn a_write_that_landed_unseen_takes_place_once(p: &Pairing) {
    let database = Failing::<documents::Call>::new();
    let store = p.opening().with(&spooled()).documents(&database).open();
    let users = store.users();
    let id = users.create(json!({"n": 0})).ack_stored().await.unwrap().id;
    lose_the_answer(&database);
    let created = queued(users.create(json!({"n": 7})).await.unwrap());
    database.switch_off();
    assert_eq!(document(&users, &created).await, json!({"n": 7}), "it landed");
    assert!(fallback(&store).list().await.unwrap().operations[0].may_have_happened);
    assert_eq!(drain(&store).await.done, 1);
    assert_eq!(history(&users, &created).await, [(0, Op::Create)]);

    for (n, expected) in
        [(1, Op::Update), (2, Op::Update), (3, Op::Update), (4, Op::Delete), (5, Op::Restore)]
    {
        lose_the_answer(&database);
        let written = match n {
            1 => users.update(&id, json!({"n": 1})).await,
            2 => users.enrich(&id, json!({"list": [1]})).expect_ov(1).await,
            3 => users.replace(&id, json!({"n": 3})).force().await,
            4 => users.delete(&id).await,
            _ => users.restore(&id).to_version(3).await,
        };
        queued(written.unwrap());
        database.switch_off();
        assert_eq!(drain(&store).await, retried(1, 0, 0));
        assert_eq!(history(&users, &id).await.last(), Some(&(n, expected)));
    }
    assert_eq!(users.history(&id).await.unwrap().len(), 6);
    assert_eq!((sizes(&store).await, document(&users, &id).await), ((0, 0), json!({"n": 3})));
}

async fn a_write_that_landed_unseen_is_found_behind_those_of_others(p: &Pairing) {
    let database = Failing::<documents::Call>::new();
    let store = p.opening().with(&spooled()).documents(&database).open();
    let other = match p.kind {
        // Another process has no way to a store in memory: this one's, past the queue.
        Kind::EmbeddedMemory => None,
        _ => Some(p.open()),
    };
    let users = store.users();
    let id = users.create(json!({"list": []})).ack_stored().await.unwrap().id;
    lose_the_answer(&database);
    queued(users.enrich(&id, json!({"list": ["mine"]})).await.unwrap());
    database.switch_off();
    let mut versions = 2;
    if let Some(other) = &other {
        for n in 0..3 {
            other.users().update(&id, json!({ "n": n })).await.unwrap();
            versions += 1;
        }
        other.users().replace(&id, json!({"list": []})).await.unwrap();
        versions += 1;
    }
    assert_eq!(drain(&store).await.done, 1);
    assert_eq!(users.history(&id).await.unwrap().len(), versions);
    if other.is_some() {
        assert_eq!(document(&users, &id).await, json!({"list": []}), "what others did since stays");
    }
}

async fn a_creation_that_landed_unseen_is_found_when_its_row_is_trimmed(p: &Pairing) {
    let database = Failing::<documents::Call>::new();
    let config = with(spooled(), json!({"versioning": {"enabled": false}}));
    let store = p.opening().with(&config).documents(&database).open();
    let users = store.users();
    users.create(json!({"n": 0})).ack_stored().await.unwrap();
    lose_the_answer(&database);
    let id = queued(users.create(json!({"n": 1})).await.unwrap());
    database.switch_off();
    users.flush(super::pairing::TIMEOUT).await.unwrap();
    assert!(users.trim(Duration::ZERO).await.unwrap() > 0, "its row is gone");
    let before = users.get(&id).await.unwrap().unwrap();
    assert_eq!(drain(&store).await.done, 1);
    let after = users.get(&id).await.unwrap().unwrap();
    assert_eq!(
        (after.ov, after.cv, &after.item),
        (before.ov, before.cv, &before.item),
        "nothing was written anew"
    );
}

async fn what_landed_unseen_is_found_when_its_row_has_left_the_index(p: &Pairing) {
    let database = Failing::<documents::Call>::new();
    let store = p.opening().with(&spooled()).documents(&database).open();
    let users = store.users();
    let id = users.create(json!({"list": []})).ack_stored().await.unwrap().id;
    lose_the_answer(&database);
    queued(users.enrich(&id, json!({"list": ["mine"]})).await.unwrap());
    database.switch_off();
    // From another process: after an attempt that took long this one tries nothing for some seconds.
    let second = p.opening().with(&spooled()).documents(&database).open();
    lose_the_answer(&database);
    let created = queued(second.users().create(json!({"n": 0})).await.unwrap());
    database.switch_off();
    // Another process goes on with both.
    let config = json!({"retention": {"ver": {"maxPerItem": 1}}, "rollup": {"enabled": true, "manifestPeriod": "daily"}});
    let others = p.open_with(&config).users();
    for n in 1..4 {
        others.update(&id, json!({ "n": n })).await.unwrap();
        others.update(&created, json!({ "n": n })).await.unwrap();
    }
    others.flush(super::pairing::TIMEOUT).await.unwrap();
    assert!(others.prune().await.unwrap().versions > 0);
    assert_eq!(drain(&store).await.done, 2);
    assert_eq!(users.history(&id).await.unwrap().len(), 5, "nothing was written anew");
    assert_eq!(users.history(&created).await.unwrap().len(), 4, "nothing was written anew");
    assert_eq!(sizes(&store).await, (0, 0));
}

async fn what_cannot_succeed_is_not_queued(p: &Pairing) {
    let database = Failing::<documents::Call>::new();
    let maps = json!({"collectionMaps": {"users": {"indexedProps": ["key"], "validation": {"requiredIndexed": ["key"]},
        "base64Props": {"file": {"contentType": "text/plain"}}}}});
    let store = p.opening().with(&with(spooled(), maps)).documents(&database).open();
    let users = store.users();
    let id = users.create(json!({"key": "a"})).await.unwrap().id;
    let none: ItemId = "64f0c0ffee64f0c0ffee64f0".parse().unwrap();
    assert_eq!(refused(users.update(&id, json!({"n": 1})).expect_ov(7).await), ErrorKind::OptimisticLock);
    assert_eq!(refused(users.update(&none, json!({"n": 1})).await), ErrorKind::NotFound);
    assert_eq!(refused(users.create(json!({"n": 1})).await), ErrorKind::Validation);
    let lock = users.lock(&id).await.unwrap();

    database.switch_all_on(Fault::Before);
    assert_eq!(refused(users.create(json!({"n": 1})).await), ErrorKind::Validation);
    assert_eq!(refused(users.create(json!(["a"])).await), ErrorKind::Validation);
    assert_eq!(refused(users.replace(&id, json!({"n": 1})).await), ErrorKind::Validation);
    assert_eq!(refused(users.update(&id, json!({"$set": {"n": 1}})).await), ErrorKind::Validation);
    assert_eq!(refused(users.enrich(&id, json!({"$push": {"n": 1}})).await), ErrorKind::Validation);
    assert_eq!(refused(users.enrich(&id, json!("text")).await), ErrorKind::Validation);
    assert_eq!(refused(users.create(json!({"key": "b", "file": "%"})).await), ErrorKind::Externalization);
    let held = users.update(&id, json!({"n": 2})).with_lock(&lock).await;
    assert_eq!(refused(held), ErrorKind::Database, "a lease cannot wait");
    assert_eq!(refused(users.smart_insert(json!({"key": "c"}), &["key"]).await), ErrorKind::Database);
    database.switch_off();
    lock.release().await.unwrap();
    assert_eq!(sizes(&store).await, (0, 0));
    for request in ["req_unknown", "64f0c0ffee64f0c0ffee64f0", ""] {
        assert_eq!(refused(fallback(&store).retry(request).await), ErrorKind::NotFound);
        assert_eq!(refused(fallback(&store).cancel(request).await), ErrorKind::NotFound);
    }
}

async fn what_comes_later_for_an_item_waits_behind_what_waits(p: &Pairing) {
    let database = Failing::<documents::Call>::new();
    let store = p.opening().with(&spooled()).documents(&database).open();
    let users = store.users();
    let id = users.create(json!({"n": 0})).await.unwrap().id;
    let other = users.create(json!({"n": 0})).await.unwrap().id;
    database.switch_all_on(Fault::Before);
    queued(users.update(&id, json!({"n": 1})).await.unwrap());
    database.switch_off();

    queued(users.update(&id, json!({"n": 2})).await.unwrap());
    assert_eq!(document(&users, &id).await, json!({"n": 0}), "a read says what is stored");
    assert_eq!(users.update(&other, json!({"n": 2})).await.unwrap().ov, 1, "other items are not held up");
    let waiting = fallback(&store).list().await.unwrap().operations;
    assert_eq!(waiting[1].last_error, None, "it was not attempted");
    assert_eq!(drain(&store).await.done, 2);
    assert_eq!(document(&users, &id).await, json!({"n": 2}));
    assert_eq!(users.update(&id, json!({"n": 3})).await.unwrap().ov, 3);
}

async fn an_operation_that_cannot_succeed_is_a_dead_letter_and_stops_no_other(p: &Pairing) {
    let database = Failing::<documents::Call>::new();
    let store = p.opening().with(&spooled()).documents(&database).open();
    let users = store.users();
    let id = users.create(json!({"n": 0})).await.unwrap().id;
    database.switch_all_on(Fault::Before);
    queued(users.update(&id, json!({"n": 99})).expect_ov(3).await.unwrap());
    queued(users.update(&id, json!({"m": 1})).await.unwrap());
    let new = queued(users.create(json!({"n": 5})).await.unwrap());
    database.switch_off();
    assert_eq!(fallback(&store).retry_due().await.unwrap(), retried(2, 1, 0));
    assert_eq!(document(&users, &id).await, json!({"n": 0, "m": 1}));
    assert_eq!(document(&users, &new).await, json!({"n": 5}));
    let dead = fallback(&store).dead().await.unwrap().operations;
    assert_eq!((dead.len(), sizes(&store).await), (1, (0, 1)));
    assert_eq!(dead[0].last_error.as_ref().unwrap().0, "OPTIMISTIC_LOCK");
    assert!(dead[0].failed_at.is_some() && dead[0].next_attempt_at.is_none());

    for n in 2..=3 {
        users.update(&id, json!({ "n": n })).await.unwrap();
    }
    let revived: QueuedOperation = fallback(&store).retry(&dead[0].request_id).await.unwrap();
    assert_eq!((revived.id, revived.attempts, sizes(&store).await), (id, 0, (1, 0)));
    assert_eq!(drain(&store).await.done, 1);
    assert_eq!(document(&users, &id).await, json!({"n": 99, "m": 1}));
    assert_eq!((users.get(&id).await.unwrap().unwrap().ov, sizes(&store).await), (4, (0, 0)));
}

async fn after_the_last_attempt_an_operation_is_a_dead_letter(p: &Pairing) {
    let storage = Failing::<objects::Call>::new();
    let small = with(spooled(), json!({"inlineMaxBytes": 100}));
    let store = p.opening().with(&small).objects(&storage).open();
    let users = store.users();
    users.create(json!({"n": 0})).await.unwrap();
    storage.switch_all_on(Fault::Before);
    let large = json!({"text": "x".repeat(500)});
    let id = queued(users.create(large.clone()).await.unwrap());
    let mut attempts = Vec::new();
    loop {
        let round = fallback(&store).retry_due().await.unwrap();
        if round.dead > 0 {
            break;
        }
        assert_eq!((round.done, round.postponed, round.waiting), (0, 1, 1));
        attempts.push(fallback(&store).list().await.unwrap().operations[0].attempts);
    }
    assert_eq!((attempts, sizes(&store).await), (vec![1, 2], (0, 1)));
    let dead = fallback(&store).dead().await.unwrap().operations;
    assert_eq!((dead[0].attempts, &dead[0].last_error.as_ref().unwrap().0[..]), (3, "STORAGE_ERROR"));
    assert!(users.get(&id).await.unwrap().is_none());

    storage.switch_off();
    fallback(&store).retry(&dead[0].request_id).await.unwrap();
    assert_eq!(drain(&store).await.done, 1);
    assert_eq!((document(&users, &id).await, sizes(&store).await), (large, (0, 0)));
    assert_eq!(history(&users, &id).await, [(0, Op::Create)]);
}

async fn an_outage_takes_no_attempts(p: &Pairing) {
    let database = Failing::<documents::Call>::new();
    let store = p.opening().with(&spooled()).documents(&database).open();
    let users = store.users();
    database.switch_all_on(Fault::Before);
    let id = queued(users.create(json!({"n": 0})).await.unwrap());
    for _ in 0..5 {
        let round = fallback(&store).retry_due().await.unwrap();
        assert_eq!(round, retried(0, 0, 1));
    }
    assert_eq!(fallback(&store).list().await.unwrap().operations[0].attempts, 0);
    database.switch_off();
    assert_eq!(drain(&store).await.done, 1);
    assert_eq!(document(&users, &id).await, json!({"n": 0}));
}

async fn an_operation_can_be_cancelled_while_the_database_is_away(p: &Pairing) {
    let database = Failing::<documents::Call>::new();
    let store = p.opening().with(&spooled()).documents(&database).open();
    let users = store.users();
    database.switch_all_on(Fault::Before);
    let never = users.create(json!({"n": 0})).await.unwrap();
    let request = never.queued.unwrap();
    let later = queued(users.create(json!({"n": 1})).await.unwrap());
    let cancelled = fallback(&store).cancel(&request).await.unwrap();
    assert_eq!(
        (cancelled.request_id, cancelled.id, cancelled.may_have_happened),
        (request.clone(), never.id, false)
    );
    assert_eq!(refused(fallback(&store).cancel(&request).await), ErrorKind::NotFound);
    assert_eq!(sizes(&store).await, (1, 0));
    database.switch_off();
    assert_eq!(drain(&store).await.done, 1);
    assert!(users.get(&never.id).await.unwrap().is_none() && users.get(&later).await.unwrap().is_some());
}

async fn numbers_and_the_order_of_keys_survive_the_queue(p: &Pairing) {
    let database = Failing::<documents::Call>::new();
    let maps = json!({"collectionMaps": {"users": {"indexedProps": ["z"]}}});
    let store = p.opening().with(&with(spooled(), maps)).documents(&database).open();
    let users = store.users();
    database.switch_all_on(Fault::Before);
    let text = r#"{"z":1.0,"y":123456789012345678901234567890.10,"a":{"$x":[1e400,"é\u0000"]}}"#;
    let id = queued(users.create(Json::parse(text).unwrap()).await.unwrap());
    database.switch_off();
    drain(&store).await;
    let stored = document(&users, &id).await;
    assert_eq!(String::from_utf8(stored.to_vec()).unwrap(), text);
}

async fn without_a_spool_operations_wait_beside_their_records(p: &Pairing) {
    let (database, storage) = (Failing::<documents::Call>::new(), Failing::<objects::Call>::new());
    let config = json!({"inlineMaxBytes": 100, "fallback": {"retryDelayMs": 0, "maxDelayMs": 0}});
    let store = p.opening().with(&config).documents(&database).objects(&storage).open();
    let users = store.users();
    let id = users.create(json!({"n": 0})).await.unwrap().id;
    database.switch_all_on(Fault::Before);
    let error = users.create(json!({"n": 1})).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Database);
    assert!(error.message().contains("may not have been queued"), "{error}");
    assert_eq!(refused(users.update(&id, json!({"n": 1})).await), ErrorKind::Database);
    database.switch_off();
    assert_eq!(sizes(&store).await, (0, 0));

    storage.switch_all_on(Fault::Before);
    let large = json!({"text": "x".repeat(500)});
    queued(users.replace(&id, large.clone()).await.unwrap());
    queued(users.update(&id, json!({"m": 1})).await.unwrap());
    let stored = fallback(&store).list().collection("users").await.unwrap().operations;
    assert_eq!((stored.len(), &stored[0].database), (2, &p.common_database()));
    assert_eq!(fallback(&store).list().collection("others").await.unwrap().operations, []);
    storage.switch_off();
    assert_eq!(drain(&store).await.done, 2);
    assert_eq!(document(&users, &id).await, json!({"text": "x".repeat(500), "m": 1}));
}

async fn a_committed_write_whose_object_is_not_stored_is_not_queued(p: &Pairing) {
    let storage = Failing::<objects::Call>::new();
    let store = p.opening().with(&spooled()).objects(&storage).open();
    let users = store.users();
    let id = users.create(json!({"n": 0})).ack_stored().await.unwrap().id;
    storage.switch_all_on(Fault::Before);
    let error = users.update(&id, json!({"n": 1})).ack_stored().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Storage);
    let stats = fallback(&store).stats().await.unwrap();
    assert_eq!((stats.queue_size, stats.waiting_objects), (0, Some(1)), "its object is what waits");
    storage.switch_off();
    users.flush(super::pairing::TIMEOUT).await.unwrap();
    assert_eq!(fallback(&store).stats().await.unwrap().waiting_objects, Some(0));
}

async fn a_queue_of_many_items_and_one_of_a_single_item_are_drained_in_one_round(p: &Pairing) {
    let database = Failing::<documents::Call>::new();
    let store = p.opening().with(&spooled()).documents(&database).open();
    let users = store.users();
    let id = users.create(json!({"n": 0})).await.unwrap().id;
    database.switch_all_on(Fault::Before);
    for n in 1..=40 {
        queued(users.update(&id, json!({ "n": n })).await.unwrap());
        queued(users.create(json!({ "n": n })).await.unwrap());
    }
    database.switch_off();
    let done = fallback(&store).retry_due().await.unwrap();
    assert_eq!(done, retried(80, 0, 0));
    assert_eq!(document(&users, &id).await, json!({"n": 40}));
    assert_eq!(users.history(&id).await.unwrap().len(), 41);
    assert_eq!(users.list().limit(100).await.unwrap().items.len(), 41);
}

async fn two_processes_that_share_a_spool_carry_out_each_operation_once(p: &Pairing) {
    let database = Failing::<documents::Call>::new();
    let store = p.opening().with(&spooled()).documents(&database).open();
    let other = p.opening().with(&spooled()).documents(&database).open();
    let (users, theirs) = (store.users(), other.users());
    let mut items = Vec::new();
    for _ in 0..6 {
        items.push(users.create(json!({"list": []})).await.unwrap().id);
    }
    database.switch_all_on(Fault::Before);
    for n in 0..5 {
        for (at, id) in items.iter().enumerate() {
            let handle = if (n + at) % 2 == 0 { &users } else { &theirs };
            queued(handle.enrich(id, json!({ "list": [n] })).await.unwrap());
        }
    }
    database.switch_off();
    let (one, two) = tokio::join!(fallback(&store).retry_due(), fallback(&other).retry_due());
    let (one, two) = (one.unwrap(), two.unwrap());
    let rest = drain(&store).await;
    assert_eq!(one.done + two.done + rest.done, 30, "{one:?} {two:?} {rest:?}");
    assert_eq!((sizes(&store).await, sizes(&other).await), ((0, 0), (0, 0)));
    for id in &items {
        assert_eq!(document(&users, id).await, json!({"list": [0, 1, 2, 3, 4]}), "in their order");
        assert_eq!(users.history(id).await.unwrap().len(), 6);
    }
}

async fn a_process_finds_what_another_one_queued(p: &Pairing) {
    let database = Failing::<documents::Call>::new();
    let store = p.opening().with(&spooled()).documents(&database).open();
    database.switch_all_on(Fault::Before);
    let users = store.users();
    let id = queued(users.create(json!({"n": 0})).await.unwrap());
    let other = p.open_with(&spooled());
    let theirs = other.users();
    queued(theirs.update(&id, json!({"n": 1})).await.unwrap());
    assert_eq!(sizes(&other).await, (2, 0));
    assert_eq!(drain(&other).await.done, 2);
    assert_eq!(document(&theirs, &id).await, json!({"n": 1}));
    database.switch_off();
    assert_eq!(fallback(&store).retry_due().await.unwrap(), Retried::default());
}

async fn a_process_whose_configuration_leads_elsewhere_leaves_a_queued_write_alone(p: &Pairing) {
    let database = Failing::<documents::Call>::new();
    let store = p.opening().with(&spooled()).documents(&database).open();
    database.switch_all_on(Fault::Before);
    let users = store.users();
    let id = queued(users.create(json!({"n": 0})).await.unwrap());
    database.switch_off();

    let elsewhere = json!({"dbConnections": {"main": {"mongoUri": "embedded:./elsewhere"}}});
    let mut databases = p.config(&json!({}))["databases"].clone();
    databases["runtime"]["tenantDatabases"][0]["tenantId"] = json!("initech");
    let stranger = json!({ "databases": databases });
    let mut databases = p.config(&json!({}))["databases"].clone();
    databases["runtime"]["tenantDatabases"][0]["dbName"] = json!("another");
    let other_name = json!({ "databases": databases });
    for config in [elsewhere, stranger, other_name] {
        let other = p.open_with(&with(spooled(), config));
        assert_eq!(fallback(&other).retry_due().await.unwrap(), retried(0, 0, 1));
        assert_eq!(sizes(&other).await, (1, 0));
        assert_eq!(fallback(&other).list().await.unwrap().operations[0].attempts, 0);
    }
    assert_eq!(drain(&store).await.done, 1);
    assert_eq!(history(&users, &id).await, [(0, Op::Create)]);
}

/// Queues beside their records, of which that of `globex` fails each call: what is there is no store. The other has the
/// creation of an item.
async fn with_a_broken_queue(p: &Pairing) -> (Store, ItemId, Json) {
    std::fs::write(p.folder().join("broken"), "").unwrap();
    let mut config =
        p.config(&json!({"inlineMaxBytes": 100, "fallback": {"baseDelayMs": 0, "maxDelayMs": 0}}));
    config["dbConnections"]["away"] = json!({"mongoUri": "embedded:./broken"});
    config["databases"]["runtime"]["tenantDatabases"][1]["dbConnRef"] = json!("away");
    let storage = Failing::<objects::Call>::new();
    let store = p.opening().with(&config).objects(&storage).open();
    storage.switch_all_on(Fault::Before);
    let large = json!({"text": "x".repeat(500)});
    let id = queued(store.users().create(large.clone()).await.unwrap());
    storage.switch_off();
    (store, id, large)
}

async fn a_queue_whose_store_fails_holds_up_no_other(p: &Pairing) {
    let (store, id, large) = with_a_broken_queue(p).await;
    let round = fallback(&store).retry_due().await.unwrap();
    assert_eq!((round.done, round.waiting, round.failed), (1, 0, 1), "{round:?}");
    assert!(round.first_error.is_some() && round.to_json()["failed"] == json!(1));
    assert_eq!(document(&store.users(), &id).await, large);
}

async fn what_other_queues_have_is_said_while_one_does_not_answer(p: &Pairing) {
    let (store, id, _) = with_a_broken_queue(p).await;
    let stats = fallback(&store).stats().await.unwrap();
    assert_eq!((stats.queue_size, stats.by_type["CREATE"], stats.failed.len()), (1, 1, 1), "{stats:?}");
    let reported = stats.to_json();
    assert!(reported["failed"][0]["queue"].as_str().unwrap().contains("connection `away`"), "{reported}");
    let list = fallback(&store).list().await.unwrap();
    assert_eq!((list.operations[0].id, list.operations.len(), list.failed.len()), (id, 1, 1), "{list:?}");
    assert_eq!(list.failed[0].error.kind(), ErrorKind::Validation, "what is there is no store");
    let dead = fallback(&store).dead().await.unwrap();
    assert_eq!((dead.operations.len(), dead.failed.len()), (0, 1));
    let unknown = format!("req_0_{}", bson::oid::ObjectId::new().to_hex());
    assert_eq!(refused(fallback(&store).cancel(&unknown).await), ErrorKind::Validation, "it may be there");
    assert_eq!(fallback(&store).retry(&list.operations[0].request_id).await.unwrap().id, id);
    assert_eq!(fallback(&store).cancel(&list.operations[0].request_id).await.unwrap().id, id);
}

async fn a_queue_that_does_not_answer_is_reported_once_and_tried_after_growing_waits(p: &Pairing) {
    let (store, id, large) = with_a_broken_queue(p).await;
    let of_queue = |report: &WorkerReport| {
        let of_queue = report.failures.iter().filter(|failure| failure.job == "fallback");
        of_queue.map(|failure| (failure.tries, failure.target.contains("`away`"))).collect::<Vec<_>>()
    };
    let (rounds, stop) =
        (Arc::new(parking_lot::Mutex::new(Vec::new())), tokio_util::sync::CancellationToken::new());
    let (reported, stopping) = (Arc::clone(&rounds), stop.clone());
    let worker = store.chronos.worker();
    let hear = move |report: WorkerReport| {
        reported.lock().push(report);
        if reported.lock().len() == 3 {
            stopping.cancel();
        }
    };
    worker.run(Duration::from_millis(10), stop.cancelled(), hear).await;
    let failures: Vec<_> = rounds.lock().iter().flat_map(of_queue).collect();
    assert_eq!(failures, [(1, true)], "in three rounds");
    assert_eq!(document(&store.users(), &id).await, large, "the other queue was carried out");
    // Who asks for everything to be done once has it tried.
    let report = worker.once(Duration::from_secs(20)).await;
    assert_eq!(of_queue(&report).len(), 1, "{report:?}");
}

async fn an_operation_that_cannot_be_read_is_a_dead_letter_and_stops_no_other(p: &Pairing) {
    let database = Failing::<documents::Call>::new();
    let store = p.opening().with(&spooled()).documents(&database).open();
    let users = store.users();
    let id = users.create(json!({"n": 0})).await.unwrap().id;
    database.switch_all_on(Fault::Before);
    for n in 1..=3 {
        queued(users.update(&id, json!({ "n": n })).await.unwrap());
    }
    database.switch_off();
    let waiting = fallback(&store).list().await.unwrap().operations;
    let env = Env::default();
    let spool = EmbeddedDocuments::open(p.folder().join("spool"), env).unwrap();
    let namespace = Namespace::new("chronos_system", "chronos_fallback_ops");
    let identity = |at: usize| {
        let (_, hex) = waiting[at].request_id.rsplit_once('_').unwrap();
        bson::oid::ObjectId::parse_str(hex).unwrap()
    };
    for (at, gone) in [(0, ["payload", "type", "ctx"]), (1, ["nextAttemptAt", "itemId", "createdAt"])] {
        let mut stored = spool.get(&namespace, vec![identity(at).into()]).await.unwrap().pop().unwrap();
        for key in gone {
            stored.remove(key);
        }
        let mut batch = Batch::new();
        batch.push(&namespace, Write::put(stored, Guard::Any));
        spool.apply(batch).await.unwrap();
    }
    let listed = fallback(&store).list().await.unwrap().operations;
    assert_eq!(listed.len(), 3, "also what cannot be read");
    let cancelled = fallback(&store).cancel(&waiting[1].request_id).await.unwrap();
    assert_eq!(cancelled.request_id, waiting[1].request_id);
    assert_eq!(fallback(&store).retry_due().await.unwrap(), retried(1, 1, 0));
    assert_eq!(document(&users, &id).await, json!({"n": 3}));
    let dead = fallback(&store).dead().await.unwrap().operations;
    assert_eq!((dead.len(), &dead[0].request_id), (1, &waiting[0].request_id));
    assert!(dead[0].last_error.as_ref().unwrap().1.contains("malformed"), "{dead:?}");
    fallback(&store).cancel(&dead[0].request_id).await.unwrap();
    assert_eq!(sizes(&store).await, (0, 0));
    spool.close().await.unwrap();
}

async fn of_two_callers_who_retry_a_dead_letter_one_is_refused(p: &Pairing) {
    let database = Failing::<documents::Call>::new();
    let store = p.opening().with(&spooled()).documents(&database).open();
    let users = store.users();
    let id = users.create(json!({"n": 0})).await.unwrap().id;
    database.switch_all_on(Fault::Before);
    queued(users.update(&id, json!({"n": 9})).expect_ov(1).await.unwrap());
    database.switch_off();
    assert_eq!(fallback(&store).retry_due().await.unwrap(), retried(0, 1, 0));
    users.update(&id, json!({"n": 1})).await.unwrap();

    let request = fallback(&store).dead().await.unwrap().operations[0].request_id.clone();
    let spool = EmbeddedDocuments::open(p.folder().join("spool"), Env::default()).unwrap();
    let namespace = Namespace::new("chronos_system", "chronos_fallback_dead");
    let (_, hex) = request.rsplit_once('_').unwrap();
    let identity = bson::oid::ObjectId::parse_str(hex).unwrap();
    // As the other caller leaves it between taking it and removing it: at work, then gone for long.
    for (until, is_at_work) in [(4_102_444_800_000, true), (0, false)] {
        let mut letter = spool.get(&namespace, vec![identity.into()]).await.unwrap().pop().unwrap();
        letter.insert("claimedUntil", bson::DateTime::from_millis(until));
        let mut batch = Batch::new();
        batch.push(&namespace, Write::put(letter, Guard::Any));
        spool.apply(batch).await.unwrap();
        if is_at_work {
            assert_eq!(refused(fallback(&store).retry(&request).await), ErrorKind::Locked);
            assert_eq!(refused(fallback(&store).cancel(&request).await), ErrorKind::Locked);
            assert_eq!(sizes(&store).await, (0, 1));
        } else {
            fallback(&store).retry(&request).await.unwrap();
            assert_eq!(sizes(&store).await, (1, 0));
        }
    }
    assert_eq!(drain(&store).await.done, 1);
    assert_eq!(document(&users, &id).await, json!({"n": 9}));
    spool.close().await.unwrap();
}

/// What a child process is to do; without it the test that plays one has nothing to do.
const SCENARIO: &str = "CHRONOS_FALLBACK_SCENARIO";

/// Plays a process that is killed, when this binary starts itself again with a scenario.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(scenario) = std::env::var(SCENARIO) else { return };
    let scenario = Json::parse(&scenario).unwrap();
    let text = |key: &str| scenario[key].as_str().unwrap().to_owned();
    let config = Config::parse(&text("config"), text("folder").as_ref()).unwrap();
    let fail = FailPoints::parse(&text("points")).unwrap();
    let now = Timestamp::from_millis(scenario["now"].as_i64().unwrap());
    let env = Env { clock: Arc::new(MockClock::starting_at(now)), fail, ..Env::default() };
    let database = Failing::<documents::Call>::new();
    let layer = Arc::clone(&database);
    let chronos = Chronos::builder(config)
        .env(env)
        .wrap_documents(move |inner| documents::decorate(inner, Arc::clone(&layer)))
        .open()
        .unwrap();
    if scenario["writes"] == json!(true) {
        database.switch_all_on(Fault::Before);
        let users = chronos.with(Route::runtime().tenant("acme").collection("users")).unwrap();
        users.enrich(&text("id").parse().unwrap(), json!({"list": [3]})).await.unwrap();
    } else {
        chronos.fallback().unwrap().retry_due().await.unwrap();
    }
}

/// Runs a child process to its end; whether it was killed.
fn lives(p: &Pairing, (id, now): (&ItemId, Timestamp), writes: bool, points: &str) -> bool {
    use std::os::unix::process::ExitStatusExt as _;
    let scenario = json!({
        "config": p.config(&spooled()).to_string(), "folder": p.folder().to_str().unwrap(), "points": points,
        "writes": writes, "id": id.to_string(), "now": now.as_millis(),
    });
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "records::fallback::child", "--nocapture"])
        .env(SCENARIO, scenario.to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() || output.status.signal().is_some(), "{points}: {said}");
    output.status.success()
}

async fn a_process_that_is_killed_at_any_step_loses_and_doubles_nothing(p: &Pairing) {
    let points = [
        "fallback.after_claim",
        "fallback.before_write",
        "fallback.before_done",
        "commit.before_numbers",
        "commit.before_rows",
        "commit.before_answer",
        "embedded.before_commit",
        "embedded.after_commit",
    ];
    let mut killed = 0;
    let clock = Arc::new(MockClock::default());
    for (point, passes) in points.into_iter().flat_map(|point| [0, 1, 2, 4, 7].map(|passes| (point, passes)))
    {
        let database = Failing::<documents::Call>::new();
        let env = Env { clock: clock.clone(), ..Env::default() };
        let store = p.opening().with(&spooled()).env(env.clone()).documents(&database).open();
        let users = store.users();
        let id = users.create(json!({"list": []})).await.unwrap().id;
        database.switch_all_on(Fault::Before);
        let new = queued(users.create(json!({"n": 0})).await.unwrap());
        for n in 1..=2 {
            queued(users.enrich(&id, json!({ "list": [n] })).await.unwrap());
        }
        database.switch_off();
        let step = format!("{point}=abort:{passes}");
        killed += u32::from(!lives(p, (&id, clock.now()), false, &step));

        // The lease of the process that is gone ends.
        clock.advance(Duration::from_secs(31));
        drain(&store).await;
        assert_eq!(document(&users, &id).await, json!({"list": [1, 2]}), "{step}");
        assert_eq!(users.history(&id).await.unwrap().len(), 3, "{step}");
        assert_eq!(history(&users, &new).await, [(0, Op::Create)], "{step}");
        assert_eq!(sizes(&store).await, (0, 0), "{step}");
    }
    assert!(killed > 20, "{killed} processes were killed at work");
}

async fn a_process_that_is_killed_while_it_queues_a_write_leaves_it_or_nothing(p: &Pairing) {
    let clock = Arc::new(MockClock::default());
    let env = Env { clock: clock.clone(), ..Env::default() };
    for (point, list) in [("fallback.before_insert", json!([])), ("fallback.after_insert", json!([3]))] {
        let store = p.opening().with(&spooled()).env(env.clone()).open();
        let users = store.users();
        let id = users.create(json!({"list": []})).await.unwrap().id;
        assert!(!lives(p, (&id, clock.now()), true, &format!("{point}=abort:0")), "{point}");
        drain(&store).await;
        assert_eq!(document(&users, &id).await, json!({ "list": list }), "{point}");
    }
}

/// The spool is asked, never the store: a write costs that as much as without a queue.
#[tokio::test]
async fn a_spool_costs_the_document_store_no_call() {
    let mut counts = Vec::new();
    for config in [json!({}), spooled()] {
        let pairing = Pairing::new(Kind::EmbeddedLocal);
        let calls = Counting::<documents::Call>::new();
        let store = pairing.opening().with(&config).documents(&calls).open();
        let users = store.users();
        let id = users.create(json!({"n": 0})).ack_stored().await.unwrap().id;
        calls.take();
        users.create(json!({"n": 1})).ack_stored().await.unwrap();
        users.update(&id, json!({"n": 1})).ack_stored().await.unwrap();
        counts.push(calls.take());
        pairing.finish().await;
    }
    assert_eq!(counts[0], counts[1]);
}

//! Workers: everything is done, by one of them, and nothing that fails stops anything else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bson::doc;
use chronos_db::documents::{Batch, Guard, Namespace, Scan, Write};
use chronos_db::{Chronos, Route, Timestamp, WorkerReport, json};
use futures::TryStreamExt as _;
use parking_lot::Mutex;
use test_support::{Counting, Failing, Fault, documents, objects};
use tokio::sync::Notify;

use super::child;
use super::pairing::{Pairing, Store, TIMEOUT, on_durable_pairings, on_pairings};

mod apart {
    super::on_durable_pairings!(
        every_collection_of_every_entry_is_stored_and_counted,
        of_two_workers_one_works_on_each_collection,
        the_share_of_a_worker_that_is_killed_is_taken_over,
        a_collection_that_fails_stops_no_other_and_waits_longer_each_time,
        an_entry_that_does_not_answer_stops_no_other,
        collections_that_cannot_be_looked_at_wait_each_for_itself,
        entries_that_share_documents_and_count_elsewhere_are_both_served,
        a_worker_that_is_stopped_gives_its_leases_back,
        ended_messages_of_every_tenant_go,
        leases_that_nobody_takes_any_more_go,
    );
    use super::*;
}

mod costs {
    super::on_pairings!(embedded_memory = EmbeddedMemory: a_collection_costs_the_same_beside_a_hundred_times_as_many);
    use super::*;
}

const LIMIT: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

/// One round of a worker that leaves alone what was done within an hour.
async fn one_round(chronos: &Chronos) -> WorkerReport {
    let (report, reported) = (Arc::new(Mutex::new(None)), Arc::new(Notify::new()));
    let (seen, tells) = (Arc::clone(&report), Arc::clone(&reported));
    let stop = async move { reported.notified().await };
    chronos
        .worker()
        .run(HOUR, stop, move |round| {
            seen.lock().get_or_insert(round);
            tells.notify_one();
        })
        .await;
    let report = report.lock().take();
    report.expect("a round ended")
}

async fn leases(store: &Store, database: &str) -> BTreeMap<String, bson::Document> {
    let leases = Namespace::new(database, "chronos_leases");
    let found: Vec<bson::Document> =
        store.documents().scan(&leases, Scan::default()).try_collect().await.unwrap();
    found.into_iter().map(|lease| (lease.get_str("_id").unwrap().to_owned(), lease)).collect()
}

async fn put(store: &Store, namespace: &Namespace, document: bson::Document) {
    let mut batch = Batch::new();
    batch.push(namespace, Write::put(document, Guard::Any));
    store.documents().apply(batch).await.unwrap();
}

async fn every_collection_of_every_entry_is_stored_and_counted(p: &Pairing) {
    let broken = Failing::<objects::Call>::new();
    broken.switch_all_on(Fault::Before);
    let writer = p.opening().objects(&broken).open();
    let store = p.open();
    let routes = [
        Route::runtime().tenant("acme").collection("users"),
        Route::runtime().tenant("acme").collection("orders"),
        Route::runtime().tenant("globex").collection("users"),
        Route::logs().cross_tenant().collection("audit"),
    ];
    for route in &routes {
        writer.chronos.with(route.clone()).unwrap().create(json!({"n": 1})).await.unwrap();
    }
    writer.chronos.shutdown_within(Duration::ZERO).await.unwrap();
    let report = store.chronos.worker().once(LIMIT).await;
    assert!(report.is_finished() && report.failure_count == 0, "{report:?}");
    assert_eq!(report.collections, 4);
    assert_eq!((report.amounts["waiting"], report.amounts["counted"]), (0, 4), "{report:?}");
    for route in routes {
        let collection = store.with(route);
        assert_eq!(collection.flush(TIMEOUT).await.unwrap(), 0);
        let again = collection.counters().follow().await.unwrap();
        assert_eq!((again.rows, again.cv), (0, 0), "it was counted");
    }
}

async fn of_two_workers_one_works_on_each_collection(p: &Pairing) {
    let (one, other) = (p.open(), p.open());
    for n in 0..12 {
        let users = one.collection(&format!("c{n}"));
        users.create(json!({"n": n})).await.unwrap();
        assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    }
    let (a, b) = futures::future::join(one_round(&one.chronos), one_round(&other.chronos)).await;
    assert_eq!(a.collections + b.collections, 12, "{a:?} {b:?}");
    assert_eq!(a.amounts["counted"] + b.amounts["counted"], 12);
    assert_eq!(one_round(&one.chronos).await.collections, 0, "it was done just now");
    assert_eq!(other.chronos.worker().once(LIMIT).await.collections, 12, "everything is asked for");
}

const TASK: &str = "CHRONOS_TEST_WORKER";

/// Starts this very binary as a worker that dies when it begins its job after `passed` others.
async fn worker_that_is_killed(p: &Pairing, passed: u32) {
    let points = format!("worker.before_job=abort:{passed}");
    let test = concat!(module_path!(), "::one_that_is_killed");
    let output = child::run(p, test, TASK, &json!({}), &points, json!({})).await;
    assert!(child::was_killed(&output), "{output:?}");
}

/// Does nothing in an ordinary run: it is what the test above starts.
#[tokio::test]
async fn one_that_is_killed() {
    let Some((_, chronos)) = child::task(TASK) else { return };
    chronos.worker().once(LIMIT).await;
}

async fn the_share_of_a_worker_that_is_killed_is_taken_over(p: &Pairing) {
    let store = p.open();
    let users = store.users();
    users.create(json!({"n": 1})).await.unwrap();
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    for passed in 0..3 {
        worker_that_is_killed(p, passed).await;
        let held = leases(&store, users.database()).await;
        let lease = held.values().find(|lease| lease.contains_key("holder")).expect("it had one");
        let left = lease.get_datetime("expiresAt").unwrap().timestamp_millis()
            - store.documents().now().await.unwrap().as_millis();
        assert!((0..=30_000).contains(&left), "{lease:?}");
        let busy = store.chronos.worker().once(Duration::from_millis(300)).await;
        assert!(!busy.is_finished(), "{busy:?}");
        // What would be so after these seconds.
        let mut ended = lease.clone();
        ended.insert("expiresAt", Timestamp::from_millis(1));
        put(&store, &Namespace::new(users.database(), "chronos_leases"), ended).await;
        let report = store.chronos.worker().once(LIMIT).await;
        assert!(report.is_finished() && report.collections == 1, "{report:?}");
    }
    assert_eq!(users.counters().follow().await.unwrap().rows, 0);
    assert_eq!(users.counters().totals().await.unwrap().counts.created, 1);
}

async fn a_collection_that_fails_stops_no_other_and_waits_longer_each_time(p: &Pairing) {
    let store = p.open();
    for name in ["a", "poison", "z"] {
        let collection = store.collection(name);
        collection.create(json!({"n": 1})).await.unwrap();
        assert_eq!(collection.flush(TIMEOUT).await.unwrap(), 0);
    }
    let database = store.collection("poison").database().to_owned();
    let totals =
        doc! { "_id": format!("tenant:acme|db:{database}|coll:poison"), "generation": "none", "revision": 7 };
    put(&store, &Namespace::new(&*database, "cnt_total"), totals).await;
    let (rounds, enough) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Notify::new()));
    let (seen, tells) = (Arc::clone(&rounds), Arc::clone(&enough));
    let stop = async move { enough.notified().await };
    store
        .chronos
        .worker()
        .run(Duration::from_millis(1), stop, move |round| {
            seen.lock().push(round);
            if seen.lock().len() == 3 {
                tells.notify_one();
            }
        })
        .await;
    let rounds = std::mem::take(&mut *rounds.lock());
    let failures: u64 = rounds.iter().map(|round| round.failure_count).sum();
    assert_eq!(failures, 1, "it waits before it is tried again: {rounds:?}");
    let failure = &rounds[0].failures[0];
    assert_eq!((failure.job, failure.tries), ("counters", 1));
    assert!(failure.target.starts_with("`poison` of databases.runtime"), "{failure:?}");
    assert_eq!((rounds[0].collections, rounds[0].amounts["counted"]), (3, 2));
    for name in ["a", "z"] {
        assert_eq!(store.collection(name).counters().follow().await.unwrap().rows, 0, "{name}");
    }
}

async fn an_entry_that_does_not_answer_stops_no_other(p: &Pairing) {
    let mut config = p.config(&json!({}));
    config["dbConnections"]["far"] = json!({"mongoUri": "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200&connectTimeoutMS=200&timeoutMS=300"});
    let mut far = config["databases"]["runtime"]["tenantDatabases"][0].clone();
    (far["tenantId"], far["dbConnRef"], far["dbName"]) = ("far".into(), "far".into(), "far".into());
    config["databases"]["runtime"]["tenantDatabases"].as_array_mut().unwrap().insert(0, far);
    let store = p.opening().configured(&config).open();
    let users = store.users();
    users.create(json!({"n": 1})).await.unwrap();
    let report = store.chronos.worker().once(Duration::from_secs(20)).await;
    assert_eq!((report.collections, report.amounts["counted"]), (1, 1), "{report:?}");
    assert_eq!(report.failures.len(), 1, "{report:?}");
    assert!(report.failures[0].target.contains("connection `far`"), "{report:?}");
}

async fn collections_that_cannot_be_looked_at_wait_each_for_itself(p: &Pairing) {
    let broken = Failing::<documents::Call>::new();
    let store = p.opening().documents(&broken).open();
    let names = ["a", "b", "c"];
    let make = async |name: &str| {
        let collection = store.collection(name);
        collection.create(json!({"n": 1})).await.unwrap();
        assert_eq!(collection.flush(TIMEOUT).await.unwrap(), 0);
    };
    for name in names {
        make(name).await;
    }
    let worker = store.chronos.worker();
    let rounds = async |count: usize| {
        let (rounds, enough) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Notify::new()));
        let (seen, tells) = (Arc::clone(&rounds), Arc::clone(&enough));
        let stop = async move { enough.notified().await };
        let reported = move |round| {
            seen.lock().push(round);
            if seen.lock().len() == count {
                tells.notify_one();
            }
        };
        worker.run(Duration::from_millis(1), stop, reported).await;
        std::mem::take(&mut *rounds.lock())
    };
    broken.switch_on(documents::Call::Scan, Fault::Before);
    let failed = rounds(3).await;
    broken.switch_off();
    let failures: Vec<_> = failed.iter().flat_map(|round| &round.failures).collect();
    assert_eq!(failures.len(), names.len(), "each once, and then it waits: {failed:?}");
    for (name, failure) in names.iter().zip(&failures) {
        assert_eq!((failure.job, failure.tries), ("list", 1));
        assert!(
            failures.iter().any(|failure| failure.target.starts_with(&format!("`{name}` of "))),
            "{failed:?}"
        );
    }
    make("new").await;
    let round = rounds(1).await.remove(0);
    assert_eq!((round.collections, round.failure_count), (1, 0), "they stop no other one: {round:?}");
    let report = worker.once(LIMIT).await;
    assert!(report.is_finished() && report.collections == 4, "{report:?}");
    // What is asked for again after it failed is served, once it can be looked at.
    broken.fail_nth(documents::Call::Scan, 1, Fault::Before);
    let report = worker.once(LIMIT).await;
    assert!(report.is_finished() && report.collections == 4, "{report:?}");
}

async fn entries_that_share_documents_and_count_elsewhere_are_both_served(p: &Pairing) {
    let mut databases = p.config(&json!({}))["databases"].clone();
    let mut same = databases["runtime"]["tenantDatabases"][0].clone();
    same["analyticsDbName"] = databases["runtime"]["tenantDatabases"][1]["dbName"].clone();
    databases["knowledge"] = json!({ "tenantDatabases": [same] });
    let store = p.open_with(&json!({ "databases": databases }));
    let users = store.users();
    users.create(json!({"n": 1})).await.unwrap();
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    let round = one_round(&store.chronos).await;
    assert_eq!((round.collections, round.amounts["counted"]), (2, 2), "{round:?}");
    assert_eq!(one_round(&store.chronos).await.collections, 0, "both were done just now");
}

/// N-29.
async fn a_worker_that_is_stopped_gives_its_leases_back(p: &Pairing) {
    let held = test_support::Holding::<objects::Call>::new();
    let store = p.opening().objects(&held).open();
    let users = store.users();
    held.hold(objects::Call::Put, 0);
    users.create(json!({"n": 1})).await.unwrap();
    let stop = Arc::new(Notify::new());
    let stopped = Arc::clone(&stop);
    let chronos = store.chronos.clone();
    let worker = tokio::spawn(async move {
        chronos.worker().run(HOUR, async move { stopped.notified().await }, |_| {}).await;
    });
    // It is at it, and waits for the storage.
    while !leases(&store, users.database()).await.values().any(|lease| lease.contains_key("holder")) {
        tokio::task::yield_now().await;
    }
    stop.notify_one();
    worker.await.unwrap();
    let left = leases(&store, users.database()).await;
    assert!(left.values().all(|lease| !lease.contains_key("holder")), "{left:?}");
    let interrupted = left.values().filter(|lease| lease.get_str("_id").unwrap().contains("coll:users"));
    let interrupted: Vec<_> = interrupted.collect();
    assert!(interrupted.len() == 1 && !interrupted[0].contains_key("doneAt"), "it was not done: {left:?}");
    held.release(objects::Call::Put);
    assert!(store.chronos.worker().once(LIMIT).await.is_finished());
}

async fn ended_messages_of_every_tenant_go(p: &Pairing) {
    let mut more = json!({"databases": p.config(&json!({}))["databases"].clone()});
    more["databases"]["messaging"] = json!({"dbConnRef": "main", "dbName": p.common_database()});
    let store = p.open_with(&more);
    let tenants: Vec<String> = (0..5).map(|n| format!("tenant-{n}")).collect();
    let past = Timestamp::parse("2020-01-01").unwrap();
    for tenant in &tenants {
        let shared = store.chronos.messaging(tenant).unwrap().shared();
        shared.save("flags", "old", json!(1)).at(past).retention_days(1).await.unwrap();
        shared.save("flags", "kept", json!(2)).await.unwrap();
    }
    let report = store.chronos.worker().once(LIMIT).await;
    assert!(report.amounts["messages"] >= 5 && report.failure_count == 0, "{report:?}");
    for tenant in &tenants {
        let shared = store.chronos.messaging(tenant).unwrap().shared();
        assert!(shared.load("flags", "old").await.unwrap().is_none());
        assert_eq!(shared.load("flags", "kept").await.unwrap().unwrap().value, json!(2));
    }
    assert_eq!(one_round(&store.chronos).await.amounts["messages"], 0, "once an hour");
}

async fn leases_that_nobody_takes_any_more_go(p: &Pairing) {
    let store = p.open();
    let users = store.users();
    users.create(json!({"n": 1})).await.unwrap();
    let namespace = Namespace::new(users.database(), "chronos_leases");
    let now = store.documents().now().await.unwrap();
    for (id, days) in [("work|gone", 8), ("work|young", 6)] {
        let ended = now.plus_millis(-days * 24 * 3_600_000);
        put(&store, &namespace, doc! { "_id": id, "turn": 1, "expiresAt": ended }).await;
    }
    let report = store.chronos.worker().once(LIMIT).await;
    assert_eq!(report.amounts["leases"], 1, "{report:?}");
    let left = leases(&store, users.database()).await;
    assert!(!left.contains_key("work|gone") && left.contains_key("work|young"), "{left:?}");
    assert_eq!(store.chronos.worker().once(LIMIT).await.amounts["leases"], 0);
}

/// At two sizes a hundred apart.
async fn a_collection_costs_the_same_beside_a_hundred_times_as_many(p: &Pairing) {
    let mut spent = Vec::new();
    let database = Counting::<documents::Call>::new();
    let store = p.opening().documents(&database).open();
    let mut made = 0;
    for size in [1, 100] {
        while made < size {
            let collection = store.collection(&format!("c{made}"));
            collection.create(json!({"n": 1})).await.unwrap();
            assert_eq!(collection.flush(TIMEOUT).await.unwrap(), 0);
            made += 1;
        }
        store.chronos.worker().once(LIMIT).await;
        database.take();
        assert_eq!(store.chronos.worker().once(LIMIT).await.collections, size);
        let calls: u64 = database.take().into_iter().map(|(_, count)| count).sum();
        // Listing the entries costs the same, however many collections there are.
        spent.push((calls, size));
    }
    let (few, many) = (spent[0], spent[1]);
    assert!((many.0 - few.0) / (many.1 - few.1) <= few.0 / few.1, "{spent:?}");
}

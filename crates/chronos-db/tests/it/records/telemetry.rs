//! Metrics and log events of operations: each once, and nothing that is a user's.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chronos_db::telemetry::{METRICS, MetricKind};
use chronos_db::{ErrorKind, Route, json};
use metrics::LocalRecorderGuard;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use parking_lot::Mutex;
use test_support::{Failing, Fault, documents, objects, servers};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;

use super::pairing::{Kind, Pairing, TIMEOUT, on_every_pairing, refused};

on_every_pairing!(
    each_operation_is_counted_once_and_errors_by_their_code,
    analytics_and_administration_are_measured,
    every_counter_is_there_from_the_start,
    a_store_is_down_until_it_answers_again,
    what_is_stored_and_followed_is_measured,
    neither_documents_nor_secrets_stand_in_events_or_labels,
);

/// A recorder of this thread alone, which is that of the test.
fn recorder() -> (&'static PrometheusRecorder, PrometheusHandle) {
    let recorder = PrometheusBuilder::new().set_buckets(&[0.1, 1.0]).unwrap().build_recorder();
    let handle = recorder.handle();
    (Box::leak(Box::new(recorder)), handle)
}

struct Recorded {
    handle: PrometheusHandle,
    _until_dropped: LocalRecorderGuard<'static>,
}

impl Recorded {
    fn begin() -> Self {
        let (recorder, handle) = recorder();
        Self { handle, _until_dropped: metrics::set_default_local_recorder(recorder) }
    }

    /// The series of this name that have all of these labels.
    fn all(&self, name: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        let text = self.handle.render();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let found = lines.filter(|line| {
            line.split(['{', ' ']).next() == Some(name)
                && labels.iter().all(|(label, value)| line.contains(&format!("{label}=\"{value}\"")))
        });
        found.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect()
    }

    /// The only one.
    #[track_caller]
    fn one(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let found = self.all(name, labels);
        assert_eq!(found.len(), 1, "{name} {labels:?}: {}", self.handle.render());
        found[0]
    }

    fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.all(name, labels).iter().sum()
    }

    fn operations(&self, operation: &str) -> f64 {
        self.one("chronos_operation_duration_seconds_count", &[("operation", operation)])
    }
}

async fn analytics_and_administration_are_measured(p: &Pairing) {
    let recorded = Recorded::begin();
    let rule = json!({"name": "all", "collection": "users", "operation": "count"});
    let store = p.open_with(&json!({"analytics": {"timeBasedRules": [rule]}}));
    let users = store.users();
    users.create(json!({"n": 1})).await.unwrap();
    let (analytics, admin, acme) =
        (store.chronos.analytics(), store.chronos.admin(), Route::runtime().tenant("acme"));
    analytics.run().await.unwrap();
    analytics.results("all", acme.clone()).await.unwrap();
    assert_eq!(refused(analytics.results("none", acme).await), ErrorKind::Validation);
    users.certificates().await.unwrap();
    admin.health().await.unwrap();
    admin.check_storage().await.unwrap();
    admin.check_spaces().await.unwrap();
    admin.ensure_buckets().dry_run().await.unwrap();
    for (operation, count) in [
        ("run_analytics", 1.0),
        ("analytics_results", 2.0),
        ("certificates", 1.0),
        ("health", 1.0),
        ("check_storage", 1.0),
        ("check_spaces", 1.0),
        ("ensure_buckets", 1.0),
    ] {
        assert_eq!(recorded.operations(operation), count, "{operation}");
    }
    let failed = [("operation", "analytics_results"), ("code", "VALIDATION_ERROR")];
    assert_eq!(recorded.one("chronos_errors_total", &failed), 1.0);
}

async fn each_operation_is_counted_once_and_errors_by_their_code(p: &Pairing) {
    let recorded = Recorded::begin();
    let store = p.open();
    let users = store.users();
    let id = users.create(json!({"n": 1})).await.unwrap().id;
    users.update(&id, json!({"n": 2})).await.unwrap();
    assert_eq!(refused(users.update(&id, json!({"n": 3})).expect_ov(0).await), ErrorKind::OptimisticLock);
    let lock = users.lock(&id).await.unwrap();
    users.enrich(&id, json!({"tags": ["a"]})).with_lock(&lock).await.unwrap();
    lock.release().await.unwrap();
    users.get(&id).await.unwrap().unwrap();
    users.list().await.unwrap();
    users.list().count().await.unwrap();
    users.history(&id).await.unwrap();
    users.counters().totals().await.unwrap();
    assert_eq!(refused(users.list().filter(json!({"n": {"$near": 1}})).await), ErrorKind::Validation);
    let nowhere = Route::runtime().tenant("nobody").collection("users");
    assert_eq!(refused(store.chronos.with(nowhere)), ErrorKind::RouteNotFound);

    let counts =
        ["create", "update", "enrich", "lock", "get", "list", "count", "history", "counters", "route"];
    let counts: Vec<_> = counts.iter().map(|operation| recorded.operations(operation)).collect();
    assert_eq!(counts, [1.0, 2.0, 1.0, 1.0, 1.0, 2.0, 1.0, 1.0, 1.0, 2.0]);
    assert_eq!(recorded.one("chronos_operations_total", &[("collection", "users")]), 11.0);
    let failed = |operation: &str, code: &str| {
        recorded.one("chronos_errors_total", &[("operation", operation), ("code", code)])
    };
    assert_eq!(failed("update", "OPTIMISTIC_LOCK"), 1.0);
    assert_eq!(failed("list", "VALIDATION_ERROR"), 1.0);
    assert_eq!(failed("route", "ROUTE_NOT_FOUND"), 1.0);
    assert_eq!(recorded.sum("chronos_errors_total", &[]), 3.0);
    assert_eq!(recorded.one("chronos_routes_total", &[("connection", "main"), ("tenant", "acme")]), 1.0);
    assert_eq!(recorded.one("chronos_routes_total", &[("connection", "main"), ("tenant", "globex")]), 0.0);
}

async fn every_counter_is_there_from_the_start(p: &Pairing) {
    let recorded = Recorded::begin();
    let store = p.open();
    store.users();
    let _worker = store.chronos.worker();
    let before = recorded.handle.render();
    for metric in METRICS.iter().filter(|metric| metric.kind == MetricKind::Counter) {
        let values = recorded.all(metric.name, &[]);
        assert!(!values.is_empty(), "{} in {before}", metric.name);
        // The context that led here.
        let expected = if metric.name == "chronos_routes_total" { 1.0 } else { 0.0 };
        assert_eq!(values.iter().sum::<f64>(), expected, "{}", metric.name);
        assert!(before.contains(&format!("# HELP {} {}\n", metric.name, metric.help)), "{}", metric.name);
    }
    assert_eq!(recorded.operations("create"), 0.0);
}

async fn a_store_is_down_until_it_answers_again(p: &Pairing) {
    let recorded = Recorded::begin();
    let (database, storage) = (Failing::<documents::Call>::new(), Failing::<objects::Call>::new());
    let store = p.opening().documents(&database).objects(&storage).open();
    let users = store.users();
    let up = |kind: &str| recorded.all("chronos_backend_up", &[("kind", kind)]);
    assert!(up("documents").is_empty(), "nothing is known of one that nobody has asked");
    let id = users.create(json!({"n": 1})).ack_stored().await.unwrap().id;
    assert_eq!((up("documents"), up("objects")), (vec![1.0], vec![1.0]));
    database.switch_all_on(Fault::Before);
    users.get(&id).await.unwrap_err();
    assert_eq!((up("documents"), up("objects")), (vec![0.0], vec![1.0]));
    database.switch_off();
    storage.switch_all_on(Fault::Before);
    users.update(&id, json!({"n": 2})).await.unwrap();
    users.flush(Duration::from_millis(300)).await.unwrap();
    assert_eq!((up("documents"), up("objects")), (vec![1.0], vec![0.0]));
    assert!(recorded.sum("chronos_backend_errors_total", &[("kind", "objects")]) > 0.0);
    storage.switch_off();
    users.flush(TIMEOUT).await.unwrap();
    assert_eq!(up("objects"), [1.0]);
    let puts = [("kind", "objects"), ("call", "put")];
    assert!(recorded.one("chronos_backend_duration_seconds_count", &puts) >= 2.0);
}

async fn what_is_stored_and_followed_is_measured(p: &Pairing) {
    let recorded = Recorded::begin();
    let store = p.open();
    let users = store.users();
    let id = users.create(json!({"n": 1})).await.unwrap().id;
    users.update(&id, json!({"n": 2})).await.unwrap();
    users.flush(TIMEOUT).await.unwrap();
    assert_eq!(recorded.one("chronos_flushed_versions_total", &[]), 2.0);
    assert_eq!(recorded.one("chronos_flush_lag_seconds_count", &[]), 2.0);
    assert!(recorded.sum("chronos_storage_bytes_total", &[("direction", "written")]) > 0.0);
    let looked = || -> f64 {
        ["hits", "misses"].iter().map(|what| recorded.one(&format!("chronos_cache_{what}_total"), &[])).sum()
    };
    let before = looked();
    users.get(&id).await.unwrap();
    users.get(&id).version(0).await.unwrap();
    assert_eq!(looked() - before, 2.0);

    let report = store.chronos.worker().once(TIMEOUT).await;
    assert_eq!(report.failure_count, 0, "{report:?}");
    let of_users = [("collection", "users")];
    assert_eq!(recorded.one("chronos_stable_cv", &of_users), 1.0);
    assert_eq!(recorded.one("chronos_follower_lag", &of_users), 0.0);
    assert!(recorded.one("chronos_worker_rounds_total", &[]) >= 1.0);
    assert_eq!(recorded.one("chronos_worker_done_total", &[("work", "counted")]), 2.0);
    assert_eq!(recorded.sum("chronos_worker_failures_total", &[]), 0.0);
    assert_eq!(recorded.one("chronos_flush_waiting", &[]), 0.0);
}

/// Where events are written to.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).unwrap()
    }
}

async fn neither_documents_nor_secrets_stand_in_events_or_labels(p: &Pairing) {
    const MARK: &str = "MARK-OF-A-USER";
    let recorded = Recorded::begin();
    let lines = Lines::default();
    let ours = ["chronos_db", "chronos-operation", "chronos-routing", "chronos-performance", "chronos-error"];
    let ours = Targets::new().with_targets(ours.map(|target| (target, LevelFilter::TRACE)));
    let written = lines.clone();
    let writer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || written.clone());

    let maps = json!({"collectionMaps": {"users": {"base64Props": {"file": {"contentType": "text/plain"}}}}});
    let storage = Failing::<objects::Call>::new();
    let store = p.opening().with(&maps).objects(&storage).open();
    // While there is one listener, `tracing` asks that of the thread which tells something for the first time; with
    // a second one it asks all, and other tests on threads without one decide nothing.
    let _beside = tracing::Dispatch::new(tracing_subscriber::registry().with(ours.clone()));
    let reported = tracing::Dispatch::new(tracing_subscriber::registry().with(writer).with(ours));
    let _until_dropped = tracing::dispatcher::set_default(&reported);
    let users = store.users();
    let id = users.create(json!({"n": 1, "text": MARK})).actor(MARK).reason(MARK).await.unwrap().id;
    users.update(&id, json!({"text": MARK})).expect_ov(7).await.unwrap_err();
    users.create(json!({"file": format!("!{MARK}!")})).await.unwrap_err();
    users.create(json!([MARK])).await.unwrap_err();
    users.list().filter(json!({"text": {"$near": MARK}})).await.unwrap_err();
    users.list().filter(json!({"text": MARK})).after(MARK).await.unwrap_err();
    users.smart_insert(json!({"text": MARK, "n": 2}), &["text"]).await.unwrap();
    storage.switch_all_on(Fault::Before);
    users.update(&id, json!({"text": format!("{MARK} again")})).await.unwrap();
    users.flush(Duration::from_millis(300)).await.unwrap();
    storage.switch_off();
    users.flush(TIMEOUT).await.unwrap();
    users.restore_collection().to_cv(0).await.unwrap();
    users.counters().follow().await.unwrap();
    users.counters().follow().await.unwrap();

    let (reported, measured) = (lines.text(), recorded.handle.render());
    for (what, text) in [("events", &reported), ("metrics", &measured)] {
        assert!(!text.contains(MARK), "{what}: {text}");
        let secrets = match p.kind {
            Kind::ReplicaSetS3 => vec![servers::s3().secret_key],
            Kind::ReplicaSetAzure => vec![servers::azure().key],
            _ => Vec::new(),
        };
        for secret in secrets {
            assert!(!text.contains(&secret), "{what} have the key of the storage");
        }
        assert!(!text.contains("mongodb://"), "{what}: {text}");
    }
    assert!(!measured.contains(&id.to_string()), "{measured}");
    let line = |parts: &[&str]| {
        let found = reported.lines().any(|line| parts.iter().all(|part| line.contains(part)));
        assert!(found, "{parts:?} in {reported}");
    };
    line(&[
        "INFO chronos-operation:",
        "operation=\"CREATE\"",
        "collection=\"users\"",
        "dbName=",
        "tenantId=\"acme\"",
        "duration=",
    ]);
    line(&[
        "DEBUG chronos-routing:",
        "method=\"getRouteInfo\"",
        "ctx.collection=\"users\"",
        "backend=\"main\"",
        "resolvedDbName=",
    ]);
    line(&["INFO chronos-performance:", "operation=\"RESTORE_COLLECTION\"", "itemsCount=", "avgPerItem="]);
    line(&[
        "ERROR chronos-error:",
        "operation=\"UPDATE\"",
        "error=\"OPTIMISTIC_LOCK\"",
        &format!("itemId=\"{id}\""),
    ]);
    line(&["ERROR chronos-operation:", "operation=\"UPDATE\"", "error=\"OPTIMISTIC_LOCK\""]);
    // What a worker does in every round is news when there was something to do.
    for level in ["INFO", "DEBUG"] {
        let said = format!("{level} chronos-operation:");
        let followed =
            reported.lines().filter(|line| line.contains(&said) && line.contains("operation=\"FOLLOW\""));
        assert_eq!(followed.count(), 1, "{level}: {reported}");
    }
}

/// Actions that are not measured by themselves: of an import each change is.
const MEASURED_ELSEWHERE: [&str; 1] = ["Import"];

/// Every source file below a folder.
fn sources(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let found = entries.flat_map(|path| match path.is_dir() {
        true => sources(&path),
        false => vec![std::fs::read_to_string(&path).unwrap()],
    });
    found.collect()
}

#[test]
fn every_action_is_measured() {
    let sources = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let actions = sources.iter().flat_map(|source| source.split("impl Action for ").skip(1));
    let (measured, others): (Vec<_>, Vec<_>) = actions
        .map(|action| action.split_once("\n}").map_or(action, |(body, _)| body))
        .partition(|body| body.contains("fn observed("));
    assert!(measured.len() > 30, "{} actions", measured.len());
    let mut names: Vec<&str> = others.iter().filter_map(|body| body.split(' ').next()).collect();
    names.sort_unstable();
    assert_eq!(names, MEASURED_ELSEWHERE);
}

//! Erasing for good, as a caller asks for it: nothing of the item is left anywhere, and a certificate says so.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bson::Document;
use chronos_db::documents::{Batch, Guard, Namespace, Scan, Write};
use chronos_db::fail::{FailAction, FailPoints};
use chronos_db::{Certificate, Collection, Env, ErasureCounts, ErrorKind, ItemId, Json, Route, json};
use futures::TryStreamExt as _;
use test_support::{Failing, Fault, documents, objects};

use super::child::{self, was_killed};
use super::pairing::{Pairing, Store, TIMEOUT, on_durable_pairings, on_every_pairing, refused};

mod alone {
    super::on_every_pairing!(
        an_erased_item_is_nowhere_and_certified,
        a_deleted_item_can_be_erased,
        what_matches_a_filter_is_erased_with_a_certificate_each,
        an_unknown_item_and_a_hard_delete_that_is_not_allowed_are_refused,
        operations_and_messages_that_name_an_erased_item_go_with_it,
        an_item_that_waits_to_be_created_is_erased_from_the_queue,
        an_erasure_goes_on_when_the_storage_is_back,
        everything_is_looked_at_again_a_day_later,
        versions_beyond_the_window_are_erased_too,
    );
    use super::*;
}

mod apart {
    super::on_durable_pairings!(
        an_item_that_others_write_meanwhile_is_erased,
        an_erasure_that_is_killed_at_any_step_is_finished_with_one_certificate,
        of_several_that_erase_an_item_all_have_the_same_certificate,
    );
    use super::*;
}

const MARK: &str = "erase-this-mark";
const TASK: &str = "CHRONOS_TEST_ERASING";
const LIMIT: Duration = Duration::from_secs(60);
const ERASURES: &str = "chronos_erasures";

fn config() -> Json {
    json!({
        "collectionMaps": {"users": {"indexedProps": ["n", "mark", "group"], "base64Props": {"file": {"contentType": "text/plain"}}}},
        "devShadow": {"enabled": true, "ttlHours": 24},
        "inlineMaxBytes": 3000,
    })
}

fn with(mut config: Json, more: Json) -> Json {
    for (key, value) in more.as_object().unwrap() {
        config[key.as_str()] = value.clone();
    }
    config
}

/// An item of four versions with the mark in each: small, with a file, and too big to ride.
async fn marked(users: &Collection, group: &str) -> ItemId {
    let first = json!({"mark": MARK, "group": group, "file": STANDARD.encode(MARK)});
    let id = users.create(first).actor(MARK).reason(MARK).await.unwrap().id;
    users.update(&id, json!({ "text": MARK.repeat(10) })).await.unwrap();
    users.update(&id, json!({ "text": MARK.repeat(1000) })).await.unwrap();
    users.update(&id, json!({"text": MARK, "file": STANDARD.encode(format!("{MARK} again"))})).await.unwrap();
    id
}

/// As a process that died in a put leaves its bytes in a folder of objects, where no listing shows them.
fn leave_unfinished(p: &Pairing, id: &ItemId) {
    let mut folders = vec![p.folder().join("objects")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.ends_with(format!("{id}/v1")) {
                std::fs::write(path.join("item.json#1"), MARK).unwrap();
            } else if path.is_dir() {
                folders.push(path);
            }
        }
    }
}

/// Whether any file below `folder` holds the mark.
fn holds(folder: &Path) -> Option<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if std::fs::read(&path)
                .unwrap()
                .windows(MARK.len())
                .any(|window| window == MARK.as_bytes())
            {
                return Some(path);
            }
        }
    }
    None
}

/// That nothing of an item is left, and nobody finds it.
async fn is_nowhere(p: &Pairing, store: &Store, users: &Collection, id: &ItemId) {
    for read in [users.get(id), users.get(id).version(0), users.get(id).as_of_cv(i64::MAX)] {
        assert_eq!(read.include_deleted().await.unwrap(), None);
    }
    assert_eq!(refused(users.history(id).await), ErrorKind::NotFound);
    assert_eq!(refused(users.update(id, json!({"n": 1})).await), ErrorKind::NotFound);
    assert_eq!(refused(users.restore(id).to_version(0).await), ErrorKind::NotFound);
    let listed = users.list().include_deleted().limit(1000).await.unwrap().items;
    assert!(listed.iter().all(|view| view.id != *id));
    let prefix = format!("users/{id}/");
    assert!(store.keys(users).await.iter().all(|key| !key.starts_with(&prefix)));
    for suffix in ["head", "ver", "gc", "claims", "counter", "locks"] {
        for stored in store.stored(users, suffix).await {
            let bytes = bson::serialize_to_vec(&stored).unwrap();
            assert!(!bytes.windows(MARK.len()).any(|window| window == MARK.as_bytes()), "{suffix}: {stored}");
        }
    }
    assert_eq!(holds(p.folder()), None);
}

async fn erasures(store: &Store, users: &Collection) -> Vec<Document> {
    let namespace = Namespace::new(users.database(), ERASURES);
    store.documents().scan(&namespace, Scan::default()).try_collect().await.unwrap()
}

/// N-21.
async fn an_erased_item_is_nowhere_and_certified(p: &Pairing) {
    let store = p.open_with(&config());
    let users = store.users();
    for n in 0..3 {
        users.create(json!({ "n": n })).await.unwrap();
    }
    let id = marked(&users, "one").await;
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    leave_unfinished(p, &id);

    let counted = users.erase(&id).dry_run().await.unwrap();
    assert_eq!((counted.versions, counted.objects, counted.blobs), (4, 4, 4), "{counted:?}");
    assert!(users.get(&id).await.unwrap().is_some(), "that only counted");
    let certificate = users.erase(&id).actor("dpo").reason("ticket 4711").await.unwrap();
    assert_eq!(certificate.counts, counted);
    assert!(certificate.is_of(users.database(), &id).unwrap());
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    is_nowhere(p, &store, &users, &id).await;
    assert_eq!(users.list().await.unwrap().items.len(), 3);

    let printed = certificate.to_json().to_string();
    assert!(!printed.contains(&id.to_string()) && !printed.contains("4711"), "{printed}");
    assert_eq!(users.erase(&id).await.unwrap(), certificate, "asking again changes nothing");
    assert_eq!(users.certificates().await.unwrap(), std::slice::from_ref(&certificate));
    assert_eq!(users.certificates().id(&certificate.id).await.unwrap(), std::slice::from_ref(&certificate));
    let other = store.collection("others").certificates();
    assert_eq!(other.clone().await.unwrap(), []);
    assert_eq!(other.of_every_collection().await.unwrap(), [certificate]);
}

async fn a_deleted_item_can_be_erased(p: &Pairing) {
    for versioning in [true, false] {
        let store = p.open_with(&with(config(), json!({"versioning": {"enabled": versioning}})));
        let users = store.users();
        let id = marked(&users, "dead").await;
        users.delete(&id).await.unwrap();
        assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
        users.trim(Duration::ZERO).await.unwrap();
        let counted = users.erase(&id).dry_run().await.unwrap();
        assert_eq!(counted.versions, 5, "the deletion is one");
        assert_eq!(users.erase(&id).await.unwrap().counts, counted);
        assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
        is_nowhere(p, &store, &users, &id).await;
        let certificates = users.certificates().await.unwrap();
        let of_item = |certificate: &&Certificate| certificate.is_of(users.database(), &id).unwrap();
        assert_eq!(certificates.iter().filter(of_item).count(), 1);
    }
}

async fn what_matches_a_filter_is_erased_with_a_certificate_each(p: &Pairing) {
    let store = p.open_with(&config());
    let users = store.users();
    let mut gone = Vec::new();
    for _ in 0..3 {
        gone.push(marked(&users, "gone").await);
    }
    users.delete(&gone[1]).await.unwrap();
    let kept = users.create(json!({"group": "stays"})).await.unwrap().id;
    let erase = users.erase_where(json!({"group": "gone"})).reason("law");
    let counted: Vec<ErasureCounts> = erase.clone().dry_run().await.unwrap().try_collect().await.unwrap();
    let mut certificates: Vec<Certificate> = erase.clone().await.unwrap();
    let versions = |counts: &[ErasureCounts]| counts.iter().map(|counts| counts.versions).sum::<u64>();
    let certified: Vec<ErasureCounts> = certificates.iter().map(|certificate| certificate.counts).collect();
    assert_eq!((versions(&counted), versions(&certified), certified.len()), (13, 13, 3));
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    for id in &gone {
        is_nowhere(p, &store, &users, id).await;
    }
    assert_eq!(users.list().include_deleted().await.unwrap().items[0].id, kept);
    assert_eq!(erase.await.unwrap(), [], "nothing is left to erase");
    certificates.sort_by(|one, other| one.id.cmp(&other.id));
    assert_eq!(users.certificates().await.unwrap(), certificates);
    let error = users.erase_where(json!({"group": {"$where": 1}})).await;
    assert_eq!(refused(error), ErrorKind::Validation);
}

async fn an_unknown_item_and_a_hard_delete_that_is_not_allowed_are_refused(p: &Pairing) {
    let store = p.open_with(&config());
    let users = store.users();
    let id = marked(&users, "hard").await;
    let unknown: ItemId = "64f0c0ffee64f0c0ffee64f0".parse().unwrap();
    assert_eq!(refused(users.erase(&unknown).await), ErrorKind::NotFound);
    assert_eq!(refused(users.erase(&unknown).dry_run().await), ErrorKind::NotFound);
    let error = users.hard_delete(&id).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Validation && error.message().contains("hardDeleteEnabled"),
        "{error}"
    );
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);

    let allowing = p.open_with(&with(config(), json!({"hardDeleteEnabled": true})));
    // In memory two that were opened apart share nothing.
    let (users, id) = match p.kind {
        super::pairing::Kind::EmbeddedMemory => {
            let users = allowing.users();
            let id = marked(&users, "hard").await;
            (users, id)
        }
        _ => (allowing.users(), id),
    };
    let wanted = users.hard_delete(&id).dry_run().await.unwrap();
    assert_eq!((wanted.versions, wanted.objects.len(), wanted.certificate.as_ref()), (4, 8, None));
    let deleted = users.hard_delete(&id).actor("root").await.unwrap();
    assert_eq!((deleted.versions, &deleted.objects), (4, &wanted.objects), "the same keys");
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    is_nowhere(p, &allowing, &users, &id).await;
    assert_eq!(users.certificates().await.unwrap(), [deleted.certificate.unwrap()]);
}

async fn operations_and_messages_that_name_an_erased_item_go_with_it(p: &Pairing) {
    let database = Failing::<documents::Call>::new();
    let mut databases = p.config(&json!({}))["databases"].clone();
    // Of another tenant's database, which goes when the scenario ends.
    let entry = databases["runtime"]["tenantDatabases"][1].clone();
    databases["messaging"] = json!({"dbConnRef": entry["dbConnRef"], "dbName": entry["dbName"]});
    let queue = json!({"fallback": {"baseDelayMs": 0, "maxDelayMs": 0, "spoolPath": "./spool"}, "databases": databases});
    let store = p.opening().with(&with(config(), queue)).documents(&database).open();
    let users = store.users();
    let id = marked(&users, "one").await;
    let other = users.create(json!({"n": 1})).await.unwrap().id;
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    database.switch_all_on(Fault::Before);
    for item in [&id, &other] {
        let note = if *item == id { MARK } else { "other" };
        assert!(users.update(item, json!({ "note": note })).await.unwrap().queued.is_some());
    }
    database.switch_off();
    let bus = store.chronos.messaging("acme").unwrap();
    let naming = json!({"user": id.to_string(), "mark": MARK});
    bus.messages().save("signups", "1", naming.clone()).await.unwrap();
    bus.messages().save("signups", "2", json!({"user": other.to_string()})).await.unwrap();
    bus.dead_letters().save("signups", "1", naming.clone()).await.unwrap();
    let foreign = store.chronos.messaging("globex").unwrap();
    foreign.messages().save("signups", "1", json!({"user": id.to_string()})).await.unwrap();

    let counted = users.erase(&id).dry_run().await.unwrap();
    assert_eq!((counted.messages, counted.operations), (2, 1));
    assert_eq!(users.erase(&id).await.unwrap().counts, counted);
    let fallback = store.chronos.fallback().unwrap();
    let waiting: Vec<ItemId> =
        fallback.list().await.unwrap().operations.iter().map(|operation| operation.id).collect();
    assert_eq!(waiting, [other]);
    assert_eq!(bus.messages().get("signups", "1").await.unwrap(), None);
    assert!(bus.messages().get("signups", "2").await.unwrap().is_some());
    assert_eq!(bus.dead_letters().get("signups", "1").await.unwrap(), None);
    assert!(foreign.messages().get("signups", "1").await.unwrap().is_some(), "another tenant's is its own");
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    is_nowhere(p, &store, &users, &id).await;
}

async fn an_item_that_waits_to_be_created_is_erased_from_the_queue(p: &Pairing) {
    let (database, fail) = (Failing::<documents::Call>::new(), FailPoints::armable());
    let queue = json!({"fallback": {"baseDelayMs": 0, "maxDelayMs": 0, "spoolPath": "./spool"}});
    let env = Env { fail: fail.clone(), ..Env::default() };
    let store = p.opening().with(&with(config(), queue)).documents(&database).env(env).open();
    let users = store.users();
    let old = users.create(json!({"n": 0})).await.unwrap().id;
    database.switch_all_on(Fault::Before);
    let create = async || users.create(json!({"mark": MARK})).await.unwrap().id;
    let other = async || users.create(json!({"n": 1})).await.unwrap().id;
    // A worker may be at work on what waits for the second when its erasure is gone on with.
    let (first, second, other) = (create().await, create().await, other().await);
    assert!(users.update(&first, json!({"mark": format!("{MARK} again")})).await.unwrap().queued.is_some());
    assert!(users.erase(&first).await.is_err(), "the certificate has no place to be kept");
    database.switch_off();

    let stranger = store.with(Route::runtime().tenant("globex").collection("users"));
    assert_eq!(refused(stranger.erase(&first).await), ErrorKind::NotFound);
    let counted = users.erase(&first).dry_run().await.unwrap();
    assert_eq!((counted.versions, counted.operations), (0, 2));
    let certificate = users.erase(&first).await.unwrap();
    assert_eq!(certificate.counts, counted);
    assert!(certificate.is_of(users.database(), &first).unwrap());
    assert_eq!(refused(users.erase(&first).await), ErrorKind::NotFound);
    for point in ["erase.after_record_of_queued", "erase.after_discard"] {
        fail.arm(point, FailAction::Error(ErrorKind::Database), 0, 1);
        let id = if point == "erase.after_discard" {
            database.switch_all_on(Fault::Before);
            let id = create().await;
            database.switch_off();
            id
        } else {
            second
        };
        assert!(users.erase(&id).await.is_err(), "{point}");
        fail.disarm(point);
    }
    let report = store.chronos.worker().once(LIMIT).await;
    assert_eq!((report.amounts["certified"], report.failure_count), (2, 0), "{report:?}");
    let certificates = users.certificates().await.unwrap();
    assert_eq!(certificates.iter().map(|of| of.counts.operations).collect::<Vec<_>>(), [2, 1, 1]);

    let listed: BTreeSet<ItemId> = users.list().await.unwrap().items.iter().map(|view| view.id).collect();
    assert_eq!(listed, BTreeSet::from([old, other]), "no operation of an erased item makes it");
    assert_eq!(users.get(&old).await.unwrap().unwrap().ov, 0);
    for entry in std::fs::read_dir(p.folder().join("spool")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(MARK.len()).any(|window| window == MARK.as_bytes()), "{}", path.display());
    }
}

async fn an_erasure_goes_on_when_the_storage_is_back(p: &Pairing) {
    let storage = Failing::<objects::Call>::new();
    let store = p.opening().with(&config()).objects(&storage).open();
    let users = store.users();
    let id = marked(&users, "one").await;
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    let counted = users.erase(&id).dry_run().await.unwrap();
    storage.switch_on(objects::Call::Delete, Fault::Before);
    let error = users.erase(&id).reason("law").await.unwrap_err();
    assert!(error.kind() == ErrorKind::Storage && error.is_retryable(), "{error}");
    assert_eq!(users.get(&id).include_deleted().await.unwrap(), None, "absent all the same");
    assert_eq!(users.certificates().await.unwrap(), [], "and not certified");
    storage.switch_off();
    let report = store.chronos.worker().once(LIMIT).await;
    assert_eq!((report.failure_count, report.amounts["certified"]), (0, 1), "{report:?}");
    is_nowhere(p, &store, &users, &id).await;
    let certificates = users.certificates().await.unwrap();
    assert_eq!((certificates.len(), certificates[0].counts), (1, counted));
    assert_eq!(users.erase(&id).await.unwrap(), certificates[0]);
}

async fn versions_beyond_the_window_are_erased_too(p: &Pairing) {
    let window = json!({"retention": {"ver": {"maxPerItem": 2}}, "rollup": {"enabled": true, "manifestPeriod": "monthly"}});
    let store = p.open_with(&with(config(), window));
    let users = store.users();
    let other = users.create(json!({"n": 0})).await.unwrap().id;
    for n in 1..5 {
        users.update(&other, json!({ "n": n })).await.unwrap();
    }
    let id = marked(&users, "one").await;
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    assert!(users.prune().await.unwrap().versions > 0);
    users.update(&id, json!({"n": 1})).await.unwrap();
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    let manifests = || async {
        let found: Vec<_> = store.bucket().list("__manifests__/users").try_collect().await.unwrap();
        found.into_iter().map(|object| object.key).collect::<Vec<String>>()
    };
    let before = manifests().await;
    let counted = users.erase(&id).dry_run().await.unwrap();
    assert_eq!((counted.versions, counted.objects, counted.blobs, counted.manifests), (5, 5, 4, 1));
    assert_eq!(users.erase(&id).await.unwrap().counts, counted);
    assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    is_nowhere(p, &store, &users, &id).await;
    let after = manifests().await;
    assert!(after.len() == 1 && !before.contains(&after[0]), "{before:?} became {after:?}");
    assert_eq!(users.history(&other).await.unwrap().len(), 5, "others keep their past");
}

/// While it names its item a record says what is left to do; a day later it is a mere certificate.
async fn everything_is_looked_at_again_a_day_later(p: &Pairing) {
    let store = p.open_with(&config());
    let users = store.users();
    let id = marked(&users, "one").await;
    let certificate = users.erase(&id).await.unwrap();
    let mut record = erasures(&store, &users).await.remove(0);
    let day = record.get_datetime("lookAgainAt").unwrap().timestamp_millis()
        - record.get_datetime("erasedAt").unwrap().timestamp_millis();
    assert_eq!(day, 24 * 3_600_000);
    assert_eq!(record.get_object_id("itemId").unwrap().to_hex(), id.to_string());
    let early = store.chronos.worker().once(LIMIT).await;
    assert_eq!((early.failure_count, early.amounts["certified"]), (0, 0));
    assert!(erasures(&store, &users).await[0].contains_key("itemId"), "not before its time");

    record.insert("lookAgainAt", bson::DateTime::from_millis(0));
    let mut batch = Batch::new();
    batch.push(&Namespace::new(users.database(), ERASURES), Write::put(record, Guard::Any));
    store.documents().apply(batch).await.unwrap();
    assert_eq!(store.chronos.worker().once(LIMIT).await.failure_count, 0);
    let record = erasures(&store, &users).await.remove(0);
    assert!(!record.contains_key("itemId") && !record.contains_key("lookAgainAt"), "{record}");
    assert_eq!(users.certificates().await.unwrap(), [certificate]);
}

async fn an_item_that_others_write_meanwhile_is_erased(p: &Pairing) {
    let (one, two) = (p.open_with(&config()), p.open_with(&config()));
    let (users, writer) = (one.users(), two.users());
    let id = marked(&users, "busy").await;
    let (began, mut begun) = tokio::sync::mpsc::channel(1);
    let writing = tokio::spawn(async move {
        for n in 0.. {
            let text = format!("{MARK} {n} {}", MARK.repeat(if n % 3 == 0 { 300 } else { 1 }));
            let patch = json!({"text": text, "file": STANDARD.encode(format!("{MARK} {n}"))});
            if let Err(error) = writer.update(&id, patch).await {
                return (n, error);
            }
            let _ = began.try_send(());
        }
        unreachable!("it writes until it is refused")
    });
    begun.recv().await.unwrap();
    let certificate = users.erase(&id).await.unwrap();
    let (written, error) = writing.await.unwrap();
    assert_eq!(error.kind(), ErrorKind::NotFound, "after {written} writes: {error}");
    assert_eq!(certificate.counts.versions, 4 + written);
    for store in [&one, &two] {
        assert_eq!(store.users().flush(TIMEOUT).await.unwrap(), 0);
    }
    // What was too big to ride, and met the erasure before its commit, is collected like every such upload.
    users.collect_orphans(Duration::ZERO).await.unwrap();
    is_nowhere(p, &one, &users, &id).await;
}

async fn of_several_that_erase_an_item_all_have_the_same_certificate(p: &Pairing) {
    let stores = [p.open_with(&config()), p.open_with(&config())];
    let handles: Vec<Collection> = stores.iter().map(Store::users).collect();
    let id = marked(&handles[0], "one").await;
    let counted = handles[0].erase(&id).dry_run().await.unwrap();
    let erasing = [0, 1, 0, 1].map(|n: usize| handles[n].erase(&id).into_future());
    let certificates = futures::future::try_join_all(erasing).await.unwrap();
    assert!(certificates.iter().all(|certificate| *certificate == certificates[0]), "{certificates:?}");
    assert_eq!(certificates[0].counts, counted);
    assert_eq!(handles[0].certificates().await.unwrap().len(), 1);
    for users in &handles {
        assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
    }
    is_nowhere(p, &stores[0], &handles[0], &id).await;
}

/// Between every two steps.
const STEPS: [&str; 11] = [
    "commit.before_answer",
    "erase.after_count",
    "erase.after_note",
    "erase.after_rows",
    "manifest.before_rewritten",
    "erase.after_manifests",
    "erase.after_objects",
    "erase.after_count_beside",
    "erase.after_beside",
    "erase.after_results",
    "erase.after_certificate",
];

async fn an_erasure_that_is_killed_at_any_step_is_finished_with_one_certificate(p: &Pairing) {
    for (at, point) in STEPS.into_iter().enumerate() {
        let store = p.open_with(&config());
        let users = store.users();
        let id = marked(&users, "one").await;
        assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
        let counted = users.erase(&id).dry_run().await.unwrap();
        let test = concat!(module_path!(), "::one_process");
        let (points, item) = (format!("{point}=abort"), json!({"item": id.to_string()}));
        let dead = child::run(p, test, TASK, &config(), &points, item).await;
        assert!(was_killed(&dead), "{point} was never reached: {dead:?}");
        // In turn by a worker, and by asking again.
        if at % 2 == 0 {
            let report = store.chronos.worker().once(LIMIT).await;
            assert_eq!(report.failure_count, 0, "{point}: {report:?}");
        } else {
            users.erase(&id).await.unwrap();
            assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
        }
        is_nowhere(p, &store, &users, &id).await;
        let certificates = users.certificates().await.unwrap();
        let of_item: Vec<&Certificate> =
            certificates.iter().filter(|c| c.is_of(users.database(), &id).unwrap()).collect();
        assert_eq!((of_item.len(), of_item[0].counts), (1, counted), "{point}");
        assert_eq!(certificates.len(), at + 1, "{point}");
    }
}

/// A process that erases an item, and may die; nothing in an ordinary run.
#[tokio::test]
async fn one_process() {
    let Some((task, chronos)) = child::task(TASK) else { return };
    let users = chronos.with(Route::runtime().tenant("acme").collection("users")).unwrap();
    users.erase(&task["item"].as_str().unwrap().parse().unwrap()).reason("law").await.unwrap();
    chronos.shutdown().await.unwrap();
}

//! Retention: versions beyond the window leave the index for manifests, and none is lost or doubled.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use chronos_db::objects::PutOptions;
use chronos_db::{Collection, ErrorKind, ImportOp, ItemId, Json, Route, json};
use futures::TryStreamExt as _;
use test_support::{Failing, Fault, Meter, documents, objects};

use super::child::{self, was_killed};
use super::pairing::{Pairing, Store, TIMEOUT, on_durable_pairings, on_every_pairing, on_pairings, refused};

mod alone {
    super::on_every_pairing!(
        versions_beyond_the_window_leave_the_index_and_are_in_a_manifest,
        a_dry_run_counts_and_changes_nothing,
        what_is_rolled_up_stays_in_the_index_until_it_is_pruned,
        what_is_old_leaves_and_the_newest_version_of_an_item_stays,
        manifests_are_merged_into_levels_with_one_run_each,
        what_is_left_of_an_erased_item_stays,
        where_nothing_can_have_left_the_window_no_row_is_read,
    );
    use super::*;
}

mod apart {
    super::on_durable_pairings!(
        what_is_not_stored_yet_stays,
        a_bucket_that_takes_nothing_stops_pruning_and_no_write,
        tenants_of_one_database_prune_what_is_theirs,
        a_worker_prunes_what_has_left_the_window,
        two_that_prune_at_once_lose_and_double_nothing,
        a_process_that_dies_at_any_step_of_a_prune_loses_and_doubles_nothing,
        an_object_that_no_switch_names_is_collected_and_one_in_use_never,
    );
    use super::*;
}

on_pairings!(embedded_local = EmbeddedLocal: without_object_storage_nothing_is_rolled_up_and_the_call_says_so);

const TASK: &str = "CHRONOS_TEST_RETENTION";

fn keep(versions: u32) -> Json {
    json!({ "retention": { "ver": { "maxPerItem": versions } }, "rollup": { "manifestPeriod": "monthly" } })
}

/// Stores by a clock that is faster, where no other process goes by another.
fn hurried(p: &Pairing, config: &Json) -> Store {
    p.opening().with(config).hurried().open()
}

/// Items with so many versions each; everything is stored.
async fn filled(users: &Collection, versions: &[usize]) -> Vec<ItemId> {
    let mut ids = Vec::new();
    for (n, versions) in versions.iter().enumerate() {
        let id = users.create(json!({ "n": n, "v": 0, "text": "größer \"x\"" })).await.unwrap().id;
        for v in 1..*versions {
            users.update(&id, json!({ "v": v })).reason(format!("{v}")).await.unwrap();
        }
        ids.push(id);
    }
    assert_eq!(users.flush(TIMEOUT * 10).await.unwrap(), 0);
    ids
}

/// The versions of a collection, by item: those in the index, and those in manifests.
struct StoredVersions {
    rows: BTreeMap<String, BTreeSet<i64>>,
    manifests: BTreeMap<String, BTreeSet<i64>>,
}

impl StoredVersions {
    fn count(of: &BTreeMap<String, BTreeSet<i64>>) -> usize {
        of.values().map(BTreeSet::len).sum()
    }

    fn rows(&self) -> usize {
        Self::count(&self.rows)
    }
}

/// Every line of a manifest.
async fn lines(store: &Store, key: &str) -> Vec<Json> {
    let bytes = store.bucket().get(key).await.unwrap().unwrap_or_else(|| panic!("there is no {key}"));
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
    text.lines().map(|line| Json::parse(line).unwrap()).collect()
}

async fn found(store: &Store, users: &Collection) -> StoredVersions {
    let (mut rows, mut manifests) = (BTreeMap::<_, BTreeSet<_>>::new(), BTreeMap::<_, BTreeSet<_>>::new());
    for row in store.stored(users, "ver").await {
        if row.get_str("op").unwrap() != "VOID" {
            let ov = row.get("ov").unwrap();
            let ov = ov.as_i64().or(ov.as_i32().map(i64::from)).unwrap();
            rows.entry(row.get_object_id("itemId").unwrap().to_hex()).or_default().insert(ov);
        }
    }
    for manifest in users.manifests().await.unwrap() {
        let lines = lines(store, &manifest.key).await;
        assert_eq!(lines.len() as u64, manifest.versions, "{}", manifest.key);
        let places: Vec<_> = lines
            .iter()
            .map(|line| (line["itemId"]["$oid"].as_str().unwrap().to_owned(), line["ov"].as_i64().unwrap()))
            .collect();
        assert!(places.is_sorted(), "{} is sorted by item and version", manifest.key);
        for (item, ov) in places {
            assert!(manifests.entry(item).or_default().insert(ov), "a version is in one manifest");
        }
    }
    StoredVersions { rows, manifests }
}

/// Every version that was ever made is in the index or in a manifest, those of an item that are in the index follow
/// each other up to the newest.
async fn audit(store: &Store, users: &Collection, what: &str) -> StoredVersions {
    let found = found(store, users).await;
    for head in store.stored(users, "head").await {
        let item = head.get_object_id("_id").unwrap().to_hex();
        let newest = head.get("ov").unwrap().as_i64().or(head.get_i32("ov").ok().map(i64::from)).unwrap();
        let empty = BTreeSet::new();
        let rows = found.rows.get(&item).unwrap_or_else(|| panic!("{what}: {item} has rows"));
        let old = found.manifests.get(&item).unwrap_or(&empty);
        let all: BTreeSet<i64> = rows.union(old).copied().collect();
        assert_eq!(all, (0..=newest).collect(), "{what}: versions of {item}");
        let from = *rows.first().unwrap();
        assert_eq!(*rows, (from..=newest).collect(), "{what}: rows of {item} are without a hole");
    }
    found
}

async fn versions_beyond_the_window_leave_the_index_and_are_in_a_manifest(p: &Pairing) {
    let store = hurried(p, &keep(2));
    let users = store.users();
    let ids = filled(&users, &[5, 1, 2, 3]).await;
    users.delete(&ids[3]).await.unwrap();
    users.flush(TIMEOUT * 10).await.unwrap();
    let before = store.stored(&users, "ver").await;
    let done = users.prune().await.unwrap();
    assert_eq!(
        (done.versions, done.rolled_up.versions, done.rolled_up.manifests.len()),
        (5, 5, 1),
        "{done:?}"
    );
    let found = audit(&store, &users, "pruned").await;
    assert_eq!(found.rows(), 7);
    let made = &done.rolled_up.manifests[0];
    assert!(made.key.starts_with("__manifests__/users/"), "{made:?}");
    assert_eq!((made.versions, made.items, made.level, made.ov), (5, 2, 0, (0, 2)), "{made:?}");
    // What a line says is what the row said.
    let lines = lines(&store, &made.key).await;
    for line in lines {
        let id = line["_id"]["$oid"].as_str().unwrap().to_owned();
        let row = before.iter().find(|row| row.get_object_id("_id").unwrap().to_hex() == id).unwrap();
        assert_eq!(line, chronos_db::bson_to_json(&row.clone().into()));
    }
    let again = users.prune().await.unwrap();
    assert_eq!((again.versions, again.rolled_up.versions), (0, 0));
    assert_eq!(users.manifests().await.unwrap().iter().filter(|manifest| manifest.pending).count(), 0);
}

async fn a_dry_run_counts_and_changes_nothing(p: &Pairing) {
    let store = hurried(p, &keep(1));
    let users = store.users();
    filled(&users, &[3, 4]).await;
    assert_eq!(users.roll_up().dry_run().await.unwrap().versions, 5);
    assert_eq!(users.prune().dry_run().await.unwrap().versions, 5);
    assert_eq!((found(&store, &users).await.rows(), users.manifests().await.unwrap().len()), (7, 0));
    assert!(store.stored(&users, "manifests").await.is_empty());
    users.roll_up().await.unwrap();
    assert_eq!(users.prune().dry_run().await.unwrap().versions, 5, "also what is rolled up already");
    assert_eq!(users.prune().await.unwrap().versions, 5);
}

async fn what_is_rolled_up_stays_in_the_index_until_it_is_pruned(p: &Pairing) {
    let store = hurried(p, &keep(1));
    let users = store.users();
    let ids = filled(&users, &[3, 3]).await;
    assert_eq!(users.roll_up().await.unwrap().versions, 4);
    assert_eq!(users.roll_up().await.unwrap().versions, 0, "once");
    let rolled = audit(&store, &users, "rolled up").await;
    assert_eq!((rolled.rows(), StoredVersions::count(&rolled.manifests)), (6, 4));
    // More leaves before what is there is taken out.
    users.update(&ids[0], json!({"v": "later"})).await.unwrap();
    users.flush(TIMEOUT * 10).await.unwrap();
    assert_eq!(users.roll_up().await.unwrap().versions, 1);
    let done = users.prune().await.unwrap();
    assert_eq!((done.versions, done.rolled_up.versions), (5, 0));
    assert_eq!(audit(&store, &users, "pruned").await.rows(), 2);
}

async fn what_is_old_leaves_and_the_newest_version_of_an_item_stays(p: &Pairing) {
    let store = hurried(p, &json!({ "retention": { "ver": { "days": 30 } } }));
    let users = store.users();
    let now = store.documents().now().await.unwrap();
    let days = |n: i64| now.plus_millis(-n * 86_400_000);
    let mut log = Vec::new();
    for (key, ages) in [("a", &[400, 40, 20, 2][..]), ("b", &[500, 300]), ("c", &[3, 2])] {
        for (n, age) in ages.iter().enumerate() {
            let op = if n == 0 { "create" } else { "replace" };
            let data = json!({ "key": key, "age": *age });
            let change = json!({ "op": op, "key": key, "at": days(*age).to_string(), "data": data });
            log.push(ImportOp::parse(&change).unwrap());
        }
    }
    let outcomes = users.import("key").await.unwrap().apply(log, true).await.unwrap();
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    users.flush(TIMEOUT * 10).await.unwrap();
    assert_eq!(users.prune().await.unwrap().versions, 3);
    let found = audit(&store, &users, "pruned").await;
    assert_eq!(found.rows.values().map(BTreeSet::len).collect::<BTreeSet<_>>(), BTreeSet::from([1, 2]));
}

async fn manifests_are_merged_into_levels_with_one_run_each(p: &Pairing) {
    let store = hurried(p, &keep(1));
    let users = store.users();
    let ids = filled(&users, &[1, 1, 1]).await;
    let mut levels = BTreeSet::new();
    for round in 1..=14 {
        for id in &ids {
            users.update(id, json!({ "v": round })).await.unwrap();
        }
        users.flush(TIMEOUT * 10).await.unwrap();
        users.roll_up().level_rows(3).await.unwrap();
        let manifests = users.manifests().await.unwrap();
        let of: Vec<i32> = manifests.iter().map(|manifest| manifest.level).collect();
        let distinct: BTreeSet<i32> = of.iter().copied().collect();
        assert_eq!(of.len(), distinct.len(), "round {round}: {of:?}");
        assert!(
            manifests
                .iter()
                .all(|manifest| manifest.versions <= 3 * 8_u64.pow(manifest.level.unsigned_abs()))
        );
        levels.extend(distinct);
        audit(&store, &users, &format!("round {round}")).await;
    }
    assert_eq!(levels, BTreeSet::from([0, 1, 2]));
    assert_eq!(users.prune().level_rows(3).await.unwrap().versions, 42);
    audit(&store, &users, "pruned").await;
    // The objects of what was merged go later, and those in use stay.
    assert!(users.collect_orphans(Duration::ZERO).await.unwrap().orphans > 0);
    audit(&store, &users, "collected").await;
    let objects: Vec<_> = store.bucket().list("__manifests__/users/").try_collect().await.unwrap();
    assert_eq!(objects.len(), users.manifests().await.unwrap().len());
}

async fn what_is_left_of_an_erased_item_stays(p: &Pairing) {
    let mut config = keep(1);
    config["logicalDelete"] = json!({ "enabled": false });
    let store = hurried(p, &config);
    let users = store.users();
    let ids = filled(&users, &[3, 3]).await;
    users.delete(&ids[0]).await.unwrap();
    users.flush(TIMEOUT * 10).await.unwrap();
    assert_eq!(users.prune().await.unwrap().versions, 2);
    let found = found(&store, &users).await;
    assert_eq!(found.rows[&ids[0].to_string()], BTreeSet::from([0, 1, 2, 3]));
    assert_eq!(found.manifests.len(), 1);
}

async fn where_nothing_can_have_left_the_window_no_row_is_read(p: &Pairing) {
    let mut spent = Vec::new();
    for (name, items) in [("few", 2), ("many", 200)] {
        let meter = Arc::<Meter>::default();
        let client = documents::metered(p.observed().0, Arc::clone(&meter));
        let store = p.opening().with(&keep(2)).hurried().documents_client(client).open();
        let users = store.collection(name);
        let creates = (0..items).map(|n| users.create(json!({ "n": n })).into_future());
        let made = futures::future::try_join_all(creates).await.unwrap();
        users.update(&made[0].id, json!({ "n": "again" })).await.unwrap();
        assert_eq!(users.flush(TIMEOUT * 10).await.unwrap(), 0);
        for _ in 0..2 {
            assert_eq!(users.prune().await.unwrap().versions, 0);
        }
        meter.take();
        assert_eq!(users.prune().await.unwrap().versions, 0);
        let moved = meter.take();
        spent.push((moved.calls, moved.read));
        users.update(&made[0].id, json!({ "n": "and again" })).await.unwrap();
        assert_eq!(users.flush(TIMEOUT * 10).await.unwrap(), 0);
        assert_eq!(users.prune().await.unwrap().versions, 1, "{name}");
    }
    let [(few, read_of_few), (many, read_of_many)] = spent[..] else { panic!("{spent:?}") };
    assert!(many <= few && read_of_many <= read_of_few + 5, "calls and documents: {spent:?}");
}

async fn without_object_storage_nothing_is_rolled_up_and_the_call_says_so(p: &Pairing) {
    let mut config = p.config(&keep(1));
    config.as_object_mut().unwrap().remove("localStorage");
    let store = p.opening().configured(&config).open();
    let users = store.users();
    let id = users.create(json!({})).await.unwrap().id;
    users.update(&id, json!({"a": 1})).await.unwrap();
    for error in [users.prune().await.unwrap_err(), users.roll_up().await.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Validation);
        assert!(error.message().contains("object storage"), "{error}");
    }
    let mut off = keep(1);
    off["rollup"] = json!({ "enabled": false });
    let off = hurried(p, &off).users();
    assert!(off.prune().await.unwrap_err().message().contains("rollup.enabled"));
    assert_eq!(users.history(&id).await.unwrap().len(), 2);
}

async fn what_is_not_stored_yet_stays(p: &Pairing) {
    let broken = Failing::<objects::Call>::new();
    let store = p.opening().with(&keep(1)).hurried().objects(&broken).open();
    let users = store.users();
    let ids = filled(&users, &[2, 1]).await;
    broken.switch_on(objects::Call::Put, Fault::Before);
    for _ in 0..3 {
        users.update(&ids[0], json!({})).force().await.unwrap();
    }
    assert_eq!(users.roll_up().dry_run().await.unwrap().versions, 2, "those that were stored before");
    broken.switch_off();
    users.flush(TIMEOUT * 10).await.unwrap();
    assert_eq!(users.prune().await.unwrap().versions, 4);
    audit(&store, &users, "pruned").await;
}

async fn a_bucket_that_takes_nothing_stops_pruning_and_no_write(p: &Pairing) {
    let broken = Failing::<objects::Call>::new();
    let store = p.opening().with(&keep(1)).hurried().objects(&broken).open();
    let users = store.users();
    let ids = filled(&users, &[3]).await;
    broken.switch_on(objects::Call::Put, Fault::Before);
    assert_eq!(refused(users.prune().await), ErrorKind::Storage);
    assert_eq!((found(&store, &users).await.rows(), users.manifests().await.unwrap().len()), (3, 0));
    users.update(&ids[0], json!({"v": "goes on"})).await.unwrap();
    broken.switch_off();
    users.flush(TIMEOUT * 10).await.unwrap();
    assert_eq!(users.prune().await.unwrap().versions, 3);
    audit(&store, &users, "pruned").await;
}

async fn tenants_of_one_database_prune_what_is_theirs(p: &Pairing) {
    let mut config = keep(1);
    config["databases"] = p.one_database();
    let store = hurried(p, &config);
    let of = |tenant| store.with(Route::runtime().tenant(tenant).collection("users"));
    let (acme, globex) = (of("acme"), of("globex"));
    filled(&acme, &[3]).await;
    filled(&globex, &[4]).await;
    assert_eq!(acme.prune().await.unwrap().versions, 2);
    let rows = found(&store, &acme).await.rows();
    assert_eq!(rows, 1 + 4);
    assert_eq!(globex.manifests().await.unwrap().len(), 0);
    assert_eq!(globex.prune().await.unwrap().versions, 3);
    for (users, versions) in [(&acme, 2), (&globex, 3)] {
        let manifests = users.manifests().await.unwrap();
        assert_eq!(manifests.iter().map(|manifest| manifest.versions).collect::<Vec<_>>(), [versions]);
    }
}

async fn a_worker_prunes_what_has_left_the_window(p: &Pairing) {
    let store = hurried(p, &keep(2));
    let users = store.users();
    filled(&users, &[4, 5]).await;
    let report = store.chronos.worker().once(TIMEOUT * 10).await;
    assert_eq!((report.amounts["rolledUp"], report.amounts["pruned"]), (5, 5), "{report:?}");
    assert_eq!(audit(&store, &users, "worked").await.rows(), 4);
    // A single call need not wait for its next turn.
    filled(&users, &[4]).await;
    let report = store.chronos.worker().once(TIMEOUT * 10).await;
    assert_eq!((report.amounts["rolledUp"], report.amounts["pruned"]), (2, 2), "{report:?}");
    assert_eq!(audit(&store, &users, "once more").await.rows(), 6);
}

async fn two_that_prune_at_once_lose_and_double_nothing(p: &Pairing) {
    let stores = [hurried(p, &keep(1)), hurried(p, &keep(1))];
    let [one, two] = [stores[0].users(), stores[1].users()];
    let ids = filled(&one, &[4, 4, 4, 4]).await;
    let writes = async {
        for n in 0..20 {
            one.update(&ids[n % 4], json!({ "w": n })).await.unwrap();
        }
        one.flush(TIMEOUT * 10).await.unwrap();
    };
    let prunes = async |users: &Collection| {
        for _ in 0..2 {
            users.prune().level_rows(6).await.unwrap();
        }
    };
    futures::join!(writes, prunes(&one), prunes(&two));
    let found = audit(&stores[0], &one, "both").await;
    assert!(StoredVersions::count(&found.manifests) + found.rows() >= 36);
    one.prune().level_rows(6).await.unwrap();
    let found = audit(&stores[0], &one, "after").await;
    assert_eq!((found.rows(), StoredVersions::count(&found.manifests)), (4, 32));
}

const STEPS: [(&str, u64); 10] = [
    ("manifest.after_note", 0),
    ("manifest.after_put", 0),
    ("manifest.after_check", 0),
    ("manifest.after_entry", 0),
    ("roll_up.before_switch", 0),
    ("manifest.after_switch", 0),
    ("prune.after_roll_up", 0),
    ("prune.after_batch", 0),
    ("prune.after_rows", 0),
    ("manifest.after_put", 0),
];

/// D-16 for retention: whatever a prune has done when it dies, the next one goes on.
async fn a_process_that_dies_at_any_step_of_a_prune_loses_and_doubles_nothing(p: &Pairing) {
    let store = p.open_with(&keep(1));
    let users = store.users();
    filled(&users, &[2, 2, 2]).await;
    for (point, passes) in STEPS {
        let test = concat!(module_path!(), "::one_process");
        let dead = child::run(p, test, TASK, &keep(1), &format!("{point}=abort:{passes}"), json!({})).await;
        assert!(was_killed(&dead), "{point} was never reached: {dead:?}");
        audit(&store, &users, point).await;
    }
    users.flush(TIMEOUT * 10).await.unwrap();
    users.prune().level_rows(4).await.unwrap();
    assert_eq!(audit(&store, &users, "the survivor").await.rows(), 3);
    users.collect_orphans(Duration::ZERO).await.unwrap();
    audit(&store, &users, "after the clean-up").await;
    let objects: Vec<_> = store.bucket().list("__manifests__/users/").try_collect().await.unwrap();
    assert_eq!(objects.len(), users.manifests().await.unwrap().len(), "nothing is left over");
}

/// Does nothing in an ordinary run: it is what the test above starts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process() {
    let Some((_, chronos)) = child::task(TASK) else { return };
    let users = chronos.with(Route::runtime().tenant("acme").collection("users")).unwrap();
    let items = users.list().await.unwrap().items;
    for (n, view) in items.iter().enumerate() {
        for _ in 0..=n {
            users.update(&view.id, json!({})).force().await.unwrap();
        }
    }
    assert_eq!(users.flush(TIMEOUT * 10).await.unwrap(), 0);
    users.prune().level_rows(4).await.unwrap();
}

async fn an_object_that_no_switch_names_is_collected_and_one_in_use_never(p: &Pairing) {
    let store = p.open_with(&keep(1));
    let users = store.users();
    filled(&users, &[3]).await;
    let test = concat!(module_path!(), "::one_process");
    let point = "manifest.after_entry=abort:0";
    assert!(was_killed(&child::run(p, test, TASK, &keep(1), point, json!({})).await));
    let list =
        async || -> Vec<_> { store.bucket().list("__manifests__/users/").try_collect().await.unwrap() };
    assert_eq!((list().await.len(), users.manifests().await.unwrap().len()), (1, 0));
    assert_eq!(users.collect_orphans(Duration::from_secs(3_600)).await.unwrap().orphans, 0, "it is young");
    assert_eq!(users.collect_orphans(Duration::ZERO).await.unwrap().orphans, 1);
    assert_eq!(list().await.len(), 0);
    assert!(store.stored(&users, "gc").await.is_empty());
    // What lies at the key already is of others, and left alone.
    let done = users.prune().await.unwrap();
    let key = &done.rolled_up.manifests[0].key;
    let other = key.replace("users", "others");
    store.bucket().put(&other, "theirs".into(), PutOptions::default()).await.unwrap();
    users.collect_orphans(Duration::ZERO).await.unwrap();
    audit(&store, &users, "collected").await;
}

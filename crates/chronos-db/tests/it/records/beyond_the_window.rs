//! Reading beyond the window: what left the index for manifests answers as if it had stayed.

use std::collections::BTreeMap;

use bytes::Bytes;
use chronos_db::documents::Direction;
use chronos_db::objects::PutOptions;
use chronos_db::{Collection, ErrorKind, ItemId, Json, List, OnDamage, Result, View, json};
use futures::TryStreamExt as _;
use test_support::{Counting, Holding, documents, objects};

use super::pairing::{Pairing, Store, TIMEOUT, minute, on_durable_pairings, on_every_pairing, refused};

mod alone {
    super::on_every_pairing!(
        nothing_that_is_asked_changes_its_answer_by_a_prune,
        an_old_version_costs_one_ranged_read_and_a_kept_one_nothing_more,
        a_missing_or_damaged_manifest_is_an_error_that_names_it,
        items_and_collections_are_restored_to_versions_beyond_the_window,
        a_log_that_is_imported_again_finds_what_left_the_index,
        objects_that_only_a_manifest_names_are_no_orphans,
        an_item_in_many_manifests_costs_one_ranged_read_a_level,
        tenants_that_share_a_database_see_their_own_past_alone,
    );
    use super::*;
}

mod durable {
    super::on_durable_pairings!(
        a_reader_meets_a_prune_of_another_and_sees_no_hole,
        what_left_the_index_while_a_process_stood_still_is_no_gap,
    );
    use super::*;
}

const COLOURS: [&str; 4] = ["red", "green", "blue", "grey"];

/// Numbers that are the same in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn of<T: Clone>(&mut self, some: &[T]) -> T {
        let at = usize::try_from(self.below(some.len() as u64)).unwrap();
        some[at].clone()
    }
}

fn keeping(versions: u64) -> Json {
    json!({
        "retention": { "ver": { "maxPerItem": versions } },
        "rollup": { "enabled": true, "manifestPeriod": "daily" },
        "counterRules": { "rules": [
            { "name": "red", "on": ["CREATE", "UPDATE", "DELETE"], "scope": "meta", "when": { "colour": "red" } },
        ] },
    })
}

/// A history of some items, a change each minute.
struct World {
    items: Vec<ItemId>,
    changes: i64,
    /// Of the points in time, every so manieth is asked about.
    every: usize,
}

impl World {
    async fn new(users: &Collection, seed: u64, changes: i64, every: usize) -> Self {
        let mut chance = Chance(seed);
        let (mut items, mut live) = (Vec::new(), Vec::<bool>::new());
        for n in 0..changes {
            let at = minute(n);
            let mut document = json!({ "n": n % 7, "colour": chance.of(&COLOURS), "tags": ["t", n % 3] });
            if n % 11 == 0 {
                // More than an index entry has room for.
                document["note"] = "x".repeat(70_000).into();
            }
            if items.len() < 3 || chance.below(8) == 0 {
                items.push(users.create(document).at(at).await.unwrap().id);
                live.push(true);
                continue;
            }
            let chosen = usize::try_from(chance.below(items.len() as u64)).unwrap();
            let id = items[chosen];
            if !live[chosen] {
                users.restore(&id).to_version(0).at(at).await.unwrap();
                live[chosen] = true;
            } else {
                match chance.below(6) {
                    0 => {
                        users.delete(&id).at(at).await.unwrap();
                        live[chosen] = false;
                    }
                    1 => drop(users.replace(&id, json!({ "n": n, "colour": "white" })).at(at).await.unwrap()),
                    2 => {
                        drop(users.enrich(&id, json!({ "tags": [n] })).function_id("f").at(at).await.unwrap())
                    }
                    _ => drop(users.update(&id, document).at(at).await.unwrap()),
                }
            }
        }
        assert_eq!(users.flush(TIMEOUT * 10).await.unwrap(), 0);
        Self { items, changes, every }
    }

    /// Everything that can be asked, with the answers.
    async fn ask(&self, users: &Collection) -> BTreeMap<String, String> {
        let mut answers = BTreeMap::new();
        for id in &self.items {
            for newest_first in [false, true] {
                let history = users.history(id);
                let history = if newest_first { history.newest_first() } else { history };
                answers.insert(
                    format!("history of {id}, {newest_first}"),
                    format!("{:?}", history.await.unwrap()),
                );
            }
            for ov in -1..=12 {
                let view = users.get(id).version(ov).include_deleted().await;
                answers.insert(format!("version {ov} of {id}"), said(view));
            }
            for n in (-1..=self.changes).step_by(self.every) {
                let at = users.get(id).as_of(minute(n)).await;
                answers.insert(format!("{id} at {n}"), said(at));
                let cv = users.get(id).as_of_cv(n).include_deleted().await;
                answers.insert(format!("{id} at cv {n}"), said(cv));
            }
        }
        for n in (-1..=self.changes).step_by(2 * self.every + 1) {
            for (what, list) in lists(users) {
                self.ask_list(&format!("{what} at {n}"), || list().as_of(minute(n)), &mut answers).await;
                self.ask_list(&format!("{what} at cv {n}"), || list().as_of_cv(n), &mut answers).await;
            }
        }
        let found = users.verify().await.unwrap();
        assert!(found.is_clean(), "{:#}", found.to_json());
        answers.insert("verify".to_owned(), found.to_json().to_string());
        answers.insert("counters".to_owned(), format!("{:?}", users.counters().totals().await.unwrap()));
        answers.insert("recount".to_owned(), format!("{:?}", users.counters().recount().await.unwrap()));
        answers
    }

    async fn ask_list(&self, what: &str, list: impl Fn() -> List, answers: &mut BTreeMap<String, String>) {
        let whole: Result<Vec<View>> = match list().stream().await {
            Ok(views) => views.try_collect().await,
            Err(error) => Err(error),
        };
        answers.insert(format!("all of {what}"), reported(whole));
        answers
            .insert(format!("number of {what}"), format!("{:?}", list().count().await.map_err(|e| e.kind())));
        let (mut next, mut pages) = (None::<String>, String::new());
        loop {
            let page = list().limit(3);
            let page = match next.take() {
                Some(token) => page.after(token).await,
                None => page.await,
            };
            match page {
                Ok(page) => {
                    pages += &format!("{} {:?}\n", reported(Ok(page.items)), page.unknown);
                    next = page.next;
                }
                Err(error) => pages += &format!("{} {}", error.code(), error.message()),
            }
            if next.is_none() {
                break;
            }
        }
        answers.insert(format!("pages of {what}"), pages);
    }
}

type Asks<'c> = Box<dyn Fn() -> List + 'c>;

fn lists(users: &Collection) -> Vec<(&'static str, Asks<'_>)> {
    let list = move || users.list();
    vec![
        ("everything", Box::new(list)),
        ("deleted ones too", Box::new(move || list().include_deleted())),
        ("red ones", Box::new(move || list().filter(json!({ "colour": "red" })))),
        ("by number", Box::new(move || list().sort("n", Direction::Descending))),
        (
            "by colour of the white or tagged",
            Box::new(move || {
                list()
                    .filter(json!({ "$or": [{ "colour": "white" }, { "tags": { "$in": [1, 2] } }] }))
                    .sort("colour", Direction::Ascending)
            }),
        ),
        ("with a note", Box::new(move || list().filter(json!({ "note": { "$exists": true } })))),
        ("by time", Box::new(move || list().sort("updatedAt", Direction::Ascending))),
        ("by tags", Box::new(move || list().sort("tags", Direction::Ascending).on_damage(OnDamage::Show))),
        ("misspelt", Box::new(move || list().filter(json!({ "color": "red" })))),
    ]
}

fn said(view: Result<Option<View>>) -> String {
    match view {
        Ok(view) => view.map_or("nothing".to_owned(), |view| view.to_json().to_string()),
        Err(error) => format!("{} {}", error.code(), error.message()),
    }
}

fn reported(views: Result<Vec<View>>) -> String {
    match views {
        Ok(views) => views.iter().map(|view| view.to_json().to_string() + "\n").collect(),
        Err(error) => format!("{} {}", error.code(), error.message()),
    }
}

/// How many rows of versions the index has.
async fn rows(store: &Store, users: &Collection) -> usize {
    let rows = store.stored(users, "ver").await;
    rows.iter().filter(|row| row.get_str("op").unwrap() != "VOID").count()
}

/// N-20.
async fn nothing_that_is_asked_changes_its_answer_by_a_prune(p: &Pairing) {
    // What is answered beyond the window is worked out above the stores; of each of these something is asked.
    let (worlds, every) = if p.kind.is_mongo() { (1, 31) } else { (2, 9) };
    for (seed, keep, changes) in [(1, 1, 70), (2, 3, 50)].into_iter().take(worlds) {
        let store = p.opening().with(&keeping(keep)).hurried().without_cache().open();
        let users = store.collection(&format!("kept{keep}"));
        let world = World::new(&users, seed, changes, every).await;
        let before = world.ask(&users).await;
        let had = rows(&store, &users).await;
        users.prune().await.unwrap();
        let has = rows(&store, &users).await;
        let most = world.items.len() * usize::try_from(keep).unwrap();
        assert!(has <= most && most < had, "{has} of {had} rows, at most {most}");
        let after = world.ask(&users).await;
        for (question, answer) in &before {
            assert_eq!(after.get(question), Some(answer), "{question}, seed {seed}");
        }
        // Another change, another prune: rows of one item are in several manifests.
        for (n, id) in world.items.iter().enumerate() {
            let at = minute(changes + i64::try_from(n).unwrap());
            users.replace(id, json!({ "n": n, "colour": "black" })).at(at).await.ok();
        }
        assert_eq!(users.flush(TIMEOUT * 10).await.unwrap(), 0);
        users.prune().await.unwrap();
        let later = world.ask(&users).await;
        for (question, answer) in before.iter().filter(|(question, _)| question.contains(" at ")) {
            assert_eq!(later.get(question), Some(answer), "{question}, seed {seed}, after another prune");
        }
    }
}

/// Items of some versions, of which the index keeps two each.
async fn deep(users: &Collection, items: usize, versions: i64) -> Vec<ItemId> {
    let mut ids = Vec::new();
    for _ in 0..items {
        ids.push(users.create(json!({ "v": 0 })).await.unwrap().id);
    }
    for v in 1..versions {
        let updates = ids.iter().map(|id| users.update(id, json!({ "v": v })).into_future());
        futures::future::try_join_all(updates).await.unwrap();
    }
    assert_eq!(users.flush(TIMEOUT * 10).await.unwrap(), 0);
    ids
}

type Calls = (Vec<(documents::Call, u64)>, Vec<(objects::Call, u64)>);

async fn an_old_version_costs_one_ranged_read_and_a_kept_one_nothing_more(p: &Pairing) {
    let (on_documents, on_objects) = (Counting::new(), Counting::new());
    let store = p
        .opening()
        .with(&keeping(2))
        .documents(&on_documents)
        .objects(&on_objects)
        .hurried()
        .without_cache()
        .open();
    let mut costs = Vec::new();
    for (name, items, versions) in [("few", 3, 4), ("many", 30, 40)] {
        let users = store.collection(name);
        let ids = deep(&users, items, versions).await;
        let id = ids[items / 2];
        let cost = async |ov: i64| -> Calls {
            users.get(&id).version(ov).await.unwrap().unwrap();
            on_documents.take();
            on_objects.take();
            assert_eq!(users.get(&id).version(ov).await.unwrap().unwrap().item["v"], json!(ov));
            (on_documents.take(), on_objects.take())
        };
        let unpruned = cost(versions - 2).await;
        users.prune().await.unwrap();
        let kept = cost(versions - 2).await;
        assert_eq!(kept, unpruned, "of a version that stayed, no one asks manifests");
        let old = cost(0).await;
        let calls = |of: objects::Call| old.1.iter().find(|(call, _)| *call == of).map_or(0, |(_, n)| *n);
        assert_eq!((calls(objects::Call::GetRange), calls(objects::Call::Get)), (1, 1), "{name}: {old:?}");
        costs.push((kept, old));
    }
    assert_eq!(costs[0], costs[1], "among few and among many");
}

/// A collection of which all but the newest versions are in one manifest, and the manifest's key.
async fn pruned(p: &Pairing) -> (Store, Collection, Vec<ItemId>, String) {
    let store = p.opening().with(&keeping(1)).hurried().without_cache().open();
    let users = store.users();
    let ids = deep(&users, 3, 4).await;
    users.prune().await.unwrap();
    let found: Vec<_> = store.bucket().list("__manifests__").try_collect().await.unwrap();
    let keys: Vec<String> = found.into_iter().map(|object| object.key).collect();
    assert_eq!(keys.len(), 1, "{keys:?}");
    (store, users, ids, keys[0].clone())
}

async fn a_missing_or_damaged_manifest_is_an_error_that_names_it(p: &Pairing) {
    let (store, users, ids, key) = pruned(p).await;
    let good = store.bucket().get(&key).await.unwrap().unwrap();
    let mut turned = good.to_vec();
    for byte in turned.iter_mut().skip(20).step_by(16) {
        *byte ^= 0x55;
    }
    for bytes in [None, Some(Bytes::from(turned)), Some(good.slice(..good.len() / 2))] {
        match bytes.clone() {
            Some(bytes) => drop(store.bucket().put(&key, bytes, PutOptions::default()).await.unwrap()),
            None => store.bucket().delete(&key).await.unwrap(),
        }
        let named = |error: chronos_db::Error| {
            assert_eq!(error.kind(), ErrorKind::Storage, "{error}");
            assert!(error.message().contains(&key), "{error}");
        };
        named(users.history(&ids[0]).await.unwrap_err());
        named(users.get(&ids[1]).version(0).await.unwrap_err());
        named(users.get(&ids[1]).as_of_cv(1).await.unwrap_err());
        named(users.list().as_of_cv(4).await.unwrap_err());
        named(users.list().as_of_cv(4).count().await.unwrap_err());
        named(users.restore(&ids[2]).to_version(1).await.unwrap_err());
        assert_eq!(refused(users.restore_collection().to_cv(4).await), ErrorKind::Storage);
        assert_eq!(refused(users.counters().recount().await), ErrorKind::Storage);
        // The present goes on.
        assert_eq!(users.get(&ids[0]).await.unwrap().unwrap().item["v"], json!(3));
        assert_eq!(users.list().await.unwrap().items.len(), 3);
        let found = users.verify().await.unwrap();
        assert_eq!(found.problem_count, 1, "{:#}", found.to_json());
        assert!(found.problems[0].message.contains(&key), "{:#}", found.to_json());
        store.bucket().put(&key, good.clone(), PutOptions::default()).await.unwrap();
        assert_eq!(users.history(&ids[0]).await.unwrap().len(), 4);
    }
}

async fn items_and_collections_are_restored_to_versions_beyond_the_window(p: &Pairing) {
    let (_store, users, ids, _) = pruned(p).await;
    let restored = users.restore(&ids[0]).to_version(1).await.unwrap();
    assert_eq!(restored.ov, 4);
    assert_eq!(users.get(&ids[0]).await.unwrap().unwrap().item["v"], json!(1));
    assert_eq!(refused(users.restore(&ids[0]).to_version(9).await), ErrorKind::NotFound);
    // The first two of the three items are there.
    let done = users.restore_collection().to_cv(1).await.unwrap();
    assert_eq!((done.restored, done.removed, done.failed), (2, 1, 0), "{done:?}");
    let now: Vec<Json> =
        users.list().await.unwrap().items.iter().map(|view| view.item["v"].clone()).collect();
    assert_eq!(now, [json!(0), json!(0)]);
    assert_eq!(users.history(&ids[2]).await.unwrap().len(), 5);
}

async fn a_log_that_is_imported_again_finds_what_left_the_index(p: &Pairing) {
    let users = p.opening().with(&keeping(1)).hurried().open().users();
    let log = |named: bool| {
        let line = |n: i64| {
            let kind = if n < 3 { "create" } else { "update" };
            let mut line = json!({ "op": kind, "key": n % 3, "data": { "key": n % 3, "n": n } });
            if !named {
                line["at"] = minute(n).to_string().into();
            }
            chronos_db::ImportOp::parse(&line).unwrap()
        };
        (0..15).map(line).collect::<Vec<_>>()
    };
    for named in [false, true] {
        let import = async || {
            let import = users.import("key");
            let importer = if named { import.log("some log").await } else { import.await }.unwrap();
            importer.apply(log(named), true).await.unwrap()
        };
        if named {
            for view in users.list().await.unwrap().items {
                users.delete(&view.id).await.unwrap();
            }
        }
        let first = import().await;
        assert!(
            first.iter().all(|line| matches!(line, Ok(chronos_db::ImportOutcome::Written(_)))),
            "{first:?}"
        );
        assert_eq!(users.flush(TIMEOUT * 10).await.unwrap(), 0);
        users.prune().await.unwrap();
        let versions = users.verify().await.unwrap().versions;
        let again = import().await;
        assert!(again.iter().all(|line| matches!(line, Ok(chronos_db::ImportOutcome::Skipped))), "{again:?}");
        assert_eq!(users.verify().await.unwrap().versions, versions);
    }
}

async fn objects_that_only_a_manifest_names_are_no_orphans(p: &Pairing) {
    let store = p.opening().with(&{
        let mut config = keeping(1);
        config["inlineMaxBytes"] = 100.into();
        config
    });
    let store = store.hurried().without_cache().open();
    let users = store.users();
    let id = users.create(json!({ "text": "large ".repeat(100) })).await.unwrap().id;
    let row = &store.stored(&users, "ver").await[0];
    let (bucket, key) = (row.get_str("jsonBucket").unwrap(), row.get_str("jsonKey").unwrap());
    // As if the process had died before it could forget the note.
    let note = bson::doc! {
        "_id": "upload/0123456789abcdef01234567", "itemId": row.get_object_id("itemId").unwrap(),
        "notedAt": bson::DateTime::from_millis(0), "objects": [{ "bucket": bucket, "key": key }],
    };
    users.update(&id, json!({ "text": "small" })).await.unwrap();
    assert_eq!(users.flush(TIMEOUT * 10).await.unwrap(), 0);
    users.prune().await.unwrap();
    assert_eq!(rows(&store, &users).await, 1);
    store.put(&users, "gc", note).await;
    assert_eq!(users.collect_orphans(std::time::Duration::ZERO).await.unwrap().orphans, 0);
    assert!(users.get(&id).version(0).await.unwrap().is_some());
}

async fn a_reader_meets_a_prune_of_another_and_sees_no_hole(p: &Pairing) {
    let writer = p.opening().with(&keeping(1)).hurried().open().users();
    let ids = deep(&writer, 12, 20).await;
    // One that has its own connections, and prunes nothing by itself.
    let reader = p.opening().hurried().without_cache().open().users();
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let pruning = {
        let done = done.clone();
        tokio::spawn(async move {
            let pruned = writer.prune().await;
            done.store(true, std::sync::atomic::Ordering::Release);
            pruned.unwrap();
        })
    };
    let mut rounds = 0;
    loop {
        let is_last = done.load(std::sync::atomic::Ordering::Acquire);
        let id = ids[rounds % ids.len()];
        let history = reader.history(&id).await.unwrap();
        assert!(history.iter().map(|version| version.ov).eq(0..20), "{history:?}");
        let newest = reader.history(&id).newest_first().await.unwrap();
        assert!(newest.iter().map(|version| version.ov).eq((0..20).rev()), "{newest:?}");
        for ov in [0, 9, 18] {
            assert_eq!(reader.get(&id).version(ov).await.unwrap().unwrap().item["v"], json!(ov));
            let cv = ov * 12 + 11;
            let then = reader.list().as_of_cv(cv).limit(100).await.unwrap();
            assert_eq!(then.items.len(), 12);
            assert!(then.items.iter().all(|view| view.ov == ov), "cv {cv}: {:?}", then.items);
        }
        let found = reader.verify().await.unwrap();
        assert!(found.is_clean() && found.versions == 240, "{:#}", found.to_json());
        rounds += 1;
        if is_last {
            break;
        }
    }
    pruning.await.unwrap();
}

async fn an_item_in_many_manifests_costs_one_ranged_read_a_level(p: &Pairing) {
    let on_objects = Counting::new();
    let store = p.opening().with(&keeping(1)).objects(&on_objects).hurried().without_cache().open();
    let users = store.users();
    let ids = deep(&users, 4, 2).await;
    for v in 2..12 {
        for id in &ids {
            users.update(id, json!({ "v": v })).await.unwrap();
        }
        assert_eq!(users.flush(TIMEOUT * 10).await.unwrap(), 0);
        users.prune().level_rows(4).await.unwrap();
    }
    let manifests = users.manifests().await.unwrap();
    let levels: std::collections::BTreeSet<i32> = manifests.iter().map(|manifest| manifest.level).collect();
    assert!(levels.len() > 1, "{manifests:?}");
    for ov in 0..11 {
        for id in &ids {
            on_objects.take();
            assert_eq!(users.get(id).version(ov).await.unwrap().unwrap().item["v"], json!(ov));
            let reads = on_objects.count(objects::Call::GetRange);
            assert!((1..=levels.len() as u64).contains(&reads), "{reads} reads for {ov}: {manifests:?}");
        }
    }
    for id in &ids {
        assert!(users.history(id).await.unwrap().iter().map(|version| version.ov).eq(0..12));
    }
}

async fn tenants_that_share_a_database_see_their_own_past_alone(p: &Pairing) {
    let mut config = keeping(1);
    config["databases"] = p.one_database();
    let store = p.opening().with(&config).hurried().without_cache().open();
    let of = |tenant: &str| store.with(chronos_db::Route::runtime().tenant(tenant).collection("users"));
    let (acme, globex) = (of("acme"), of("globex"));
    let (ours, theirs) = (deep(&acme, 2, 4).await, deep(&globex, 2, 4).await);
    for pruned in [&acme, &globex] {
        pruned.prune().await.unwrap();
        for (of, own, others) in [(&acme, &ours, &theirs), (&globex, &theirs, &ours)] {
            for id in own {
                assert!(of.history(id).await.unwrap().iter().map(|version| version.ov).eq(0..4));
                assert_eq!(of.get(id).version(0).await.unwrap().unwrap().item["v"], json!(0));
            }
            for id in others {
                assert_eq!(refused(of.history(id).await), ErrorKind::NotFound);
                assert!(of.get(id).version(0).await.unwrap().is_none());
                assert!(of.get(id).as_of_cv(5).await.unwrap().is_none());
                assert_eq!(refused(of.restore(id).to_version(0).await), ErrorKind::NotFound);
            }
            let then = of.list().as_of_cv(11).await.unwrap();
            assert!(then.items.iter().all(|view| own.contains(&view.id)), "{:?}", then.items);
            let found = of.verify().await.unwrap();
            assert!(found.is_clean() && found.versions == 8, "{:#}", found.to_json());
        }
    }
}

/// It would close numbers that have their versions.
async fn what_left_the_index_while_a_process_stood_still_is_no_gap(p: &Pairing) {
    let writer = p.opening().with(&keeping(1)).hurried().open().users();
    let ids = deep(&writer, 4, 20).await;
    let held = Holding::new();
    let store = p.opening().hurried().documents(&held).open();
    let reader = store.users();
    // It has read the mark, and looks at the rows behind it when the time has come.
    held.hold(documents::Call::Now, 0);
    let looking = tokio::spawn({
        let reader = reader.clone();
        async move { reader.stable_cv().await }
    });
    held.reached(documents::Call::Now).await;
    writer.prune().await.unwrap();
    held.release(documents::Call::Now);
    assert_eq!(looking.await.unwrap().unwrap(), 79);
    let found = reader.verify().await.unwrap();
    assert_eq!((found.is_clean(), found.voids, found.versions), (true, 0, 80), "{:#}", found.to_json());
    assert!(writer.history(&ids[0]).await.unwrap().iter().map(|version| version.ov).eq(0..20));
}

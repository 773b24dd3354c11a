//! What has to hold in the evening, before anything is repaired.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::time::{Duration, Instant};

use bson::Bson;
use chronos_db::objects::keys;
use chronos_db::{Collection, ItemId, Json, Op, Version, json};
use futures::TryStreamExt as _;

use super::ledger::{Attempt, End, Ledger};
use super::writers::{filler, has_content, must_be_there};
use super::{config, erased, shop};
use crate::records::pairing::{Kind, Pairing, Store};

/// Longer than the leases of workers that were killed.
const LIMIT: Duration = Duration::from_secs(60);

pub(super) async fn audit(p: &Pairing, passing: &Store, ledger: &Ledger) {
    let began = Instant::now();
    let reached = |what| eprintln!("{:?}: {what} {:?} into the audit", p.kind, began.elapsed());
    drain(passing).await;
    reached("drained");
    // By a process of its own, past the proxies: what one remembers is not what is stored.
    let store = match p.kind {
        Kind::EmbeddedMemory => passing.clone(),
        _ => p.opening().with(&config()).without_cache().open(),
    };
    let things = store.collection("things");
    let versions = versions(&things).await;
    check_answers(ledger, &versions);
    check_contents(&store, &things, ledger, &versions).await;
    check_counters(&things, Some(&versions)).await;
    check_objects(&store, &things).await;
    reached("versions looked at");
    shop::audit(&store, ledger).await;
    check_backup(&store, &things).await;
    reached("restored");

    let people = store.collection("people");
    erased::erase_the_rest(&people, ledger).await;
    drain(&store).await;
    reached("erased");
    people.backup().await.unwrap();
    check_counters(&people, None).await;
    erased::are_nowhere(p, &store, &people, &p.config(&json!({}))).await;
}

/// Workers come to the end of everything, and nothing is given up.
async fn drain(store: &Store) {
    let (fallback, began) = (store.chronos.fallback().unwrap(), Instant::now());
    loop {
        let report = store.chronos.worker().once(LIMIT).await;
        let stats = fallback.stats().await.unwrap();
        assert_eq!(fallback.dead().await.unwrap().operations, [], "nothing that was asked for is wrong");
        if report.is_finished() && report.failure_count == 0 && stats.queue_size == 0 {
            assert!(report.failing.is_empty() && report.damaged.is_empty(), "{report:?}");
            return;
        }
        let waiting = fallback.list().await.unwrap();
        assert!(began.elapsed() < LIMIT * 3, "there is no end to it: {report:?}, {waiting:?}");
    }
}

/// The whole histories of all items, deleted ones too.
async fn versions(things: &Collection) -> BTreeMap<ItemId, Vec<Version>> {
    let listed = things.list().include_deleted().stream().await.unwrap();
    let ids: Vec<ItemId> = listed.map_ok(|view| view.id).try_collect().await.unwrap();
    let mut versions = BTreeMap::new();
    for id in ids {
        let history = things.history(&id).await.unwrap();
        assert!(
            history.iter().zip(0..).all(|(version, ov)| version.ov == ov),
            "{id} has a hole: {history:?}"
        );
        versions.insert(id, history);
    }
    versions
}

/// What was acknowledged or waited is there once, in its order; what nobody asked for is not.
fn check_answers(ledger: &Ledger, versions: &BTreeMap<ItemId, Vec<Version>>) {
    let mut by_request = BTreeMap::<&str, Vec<&Version>>::new();
    for version in versions.values().flatten() {
        let request = version.request_id.as_deref().unwrap_or_else(|| panic!("nobody asked for {version:?}"));
        by_request.entry(request).or_default().push(version);
    }
    let attempts = ledger.attempts();
    let mut last = BTreeMap::<ItemId, (i64, &Attempt)>::new();
    for attempt in &attempts {
        let found = by_request.remove(&*attempt.request).unwrap_or_default();
        assert!(found.len() <= 1, "{attempt:?} took place more than once: {found:?}");
        let Some(version) = found.first() else {
            assert!(!must_be_there(attempt.end), "{attempt:?} is lost");
            continue;
        };
        if let Some(item) = attempt.item {
            assert_eq!(version.id, item, "{attempt:?}: {version:?}");
        }
        if let End::Acknowledged { ov, cv } = attempt.end {
            assert_eq!((version.ov, version.cv), (ov, cv), "{attempt:?}");
        }
        if attempt.is_own && must_be_there(attempt.end) {
            let before = last.insert(version.id, (version.ov, attempt));
            assert!(before.is_none_or(|(ov, _)| ov < version.ov), "{attempt:?} took place before {before:?}");
        }
    }
    assert!(by_request.is_empty(), "nobody asked for {by_request:?}");
}

/// Every version has the content that it was asked to have, with its file.
async fn check_contents(
    store: &Store,
    things: &Collection,
    ledger: &Ledger,
    versions: &BTreeMap<ItemId, Vec<Version>>,
) {
    let attempts = ledger.attempts();
    let contents: BTreeMap<_, _> =
        attempts.iter().map(|attempt| (&*attempt.request, &*attempt.content)).collect();
    let bucket = store.bucket();
    for version in versions.values().flatten() {
        let view = things.get(&version.id).version(version.ov).include_deleted().await.unwrap().unwrap();
        assert_eq!((view.ov, view.cv, view.at), (version.ov, version.cv, version.at));
        has_content(&view, contents[version.request_id.as_deref().unwrap()], "in the evening");
        let document = view.document();
        if let Some(tag) = document.get("fileTag").and_then(Json::as_str) {
            for key in ["blobKey", "textKey"] {
                let key = document["file"]["ref"][key].as_str().unwrap();
                let bytes = bucket.get(key).await.unwrap().unwrap_or_else(|| panic!("{key} is not there"));
                assert_eq!(bytes, filler(tag, 120), "{key}");
            }
        }
    }
    for (id, history) in versions {
        let head = things.get(id).include_deleted().await.unwrap().unwrap();
        let newest = history.last().unwrap();
        assert_eq!((head.ov, head.cv), (newest.ov, newest.cv), "the head of {id}");
        assert_eq!(head.deleted_at.is_some(), newest.op == Op::Delete, "{id}");
    }
}

/// The counters are what a recount finds, and what the histories say.
async fn check_counters(collection: &Collection, versions: Option<&BTreeMap<ItemId, Vec<Version>>>) {
    let name = collection.name();
    let totals = collection.counters().totals().await.unwrap();
    if let Some(versions) = versions {
        let count = |is: fn(Op) -> bool| versions.values().flatten().filter(|version| is(version.op)).count();
        let (created, deleted) = (count(|op| op == Op::Create), count(|op| op == Op::Delete));
        let updated = count(|op| !matches!(op, Op::Create | Op::Delete));
        let counted = [totals.counts.created, totals.counts.updated, totals.counts.deleted];
        assert_eq!(counted, [created, updated, deleted].map(|count| count as u64), "{name}");
    }
    let recounted = collection.counters().recount().await.unwrap();
    let after = collection.counters().totals().await.unwrap();
    assert!(!recounted.corrected, "{name}: {:#} was {:#}", totals.to_json(), after.to_json());
    let found = collection.verify().await.unwrap();
    assert!(found.is_clean() && found.unflushed == 0, "{name}: {:#}", found.to_json());
}

/// Every object of the collection is named by a version, a manifest, a note of what is to go, or as a manifest that
/// was merged into another and stays for readers that are under way.
async fn check_objects(store: &Store, things: &Collection) {
    let mut named = BTreeSet::new();
    for row in store.stored(things, "ver").await {
        texts(&row.into(), &mut named);
    }
    for note in store.stored(things, "gc").await {
        texts(&note.into(), &mut named);
    }
    let in_use = store.stored(things, "manifests").await.into_iter();
    for switch in in_use.filter(|found| found.get_str("_id").is_ok_and(|id| id == "live")) {
        texts(switch.get("retired").unwrap(), &mut named);
    }
    let bucket = store.bucket();
    for manifest in things.manifests().await.unwrap() {
        let bytes = bucket.get(&manifest.key).await.unwrap().unwrap();
        let mut text = String::new();
        flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
        for line in text.lines() {
            let row = chronos_db::json_to_bson(&Json::parse(line).unwrap()).unwrap();
            texts(&row, &mut named);
        }
        named.insert(manifest.key);
    }
    let mut unknown = Vec::new();
    let prefixes = [keys::collection_prefix(things.name()), keys::manifests_prefix(things.name())];
    for prefix in prefixes {
        let listed: Vec<_> = bucket.list(&prefix.unwrap()).try_collect().await.unwrap();
        unknown.extend(listed.into_iter().map(|object| object.key).filter(|key| !named.contains(key)));
    }
    assert_eq!(unknown, Vec::<String>::new(), "objects that nothing names");
}

fn texts(value: &Bson, found: &mut BTreeSet<String>) {
    match value {
        Bson::String(text) => drop(found.insert(text.clone())),
        Bson::Array(values) => values.iter().for_each(|value| texts(value, found)),
        Bson::Document(document) => document.values().for_each(|value| texts(value, found)),
        _ => {}
    }
}

/// A backup of the evening restores to an equal collection.
async fn check_backup(store: &Store, things: &Collection) {
    let done = things.backup().await.unwrap();
    assert_eq!((done.damaged, done.cv), (0, things.stable_cv().await.unwrap()));
    let copy = store.collection("copy");
    copy.restore_backup().of(things).await.unwrap();
    let (expected, found) = (versions(things).await, versions(&copy).await);
    assert!(found.keys().eq(expected.keys()), "{:?} of {:?}", found.keys(), expected.keys());
    for (id, history) in expected {
        // Files lie elsewhere, and what names them with them.
        let comparable = |history: &[Version]| {
            let mut versions = history.to_vec();
            for version in &mut versions {
                version.size = 0;
                version.checksum.clear();
            }
            versions
        };
        assert_eq!(comparable(&found[&id]), comparable(&history));
        for version in &history {
            let of = async |collection: &Collection| {
                let view = collection.get(&id).version(version.ov).include_deleted().await.unwrap().unwrap();
                let mut document = view.document();
                document["file"] = Json::Null;
                document
            };
            assert_eq!(of(&copy).await, of(things).await, "{id} v{}", version.ov);
        }
    }
}

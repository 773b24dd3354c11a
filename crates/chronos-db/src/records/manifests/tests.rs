//! Manifests over the embedded store and memory, without all that is above them.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use bson::oid::ObjectId;
use futures::TryStreamExt as _;

use super::Manifests;
use super::live::InUse;
use super::pack::Packer;
use super::store::{Prepared, Writing};
use crate::config::{Retention, Rollup, Transactions, UpdateMode, WriteOptimization};
use crate::documents::embedded::EmbeddedDocuments;
use crate::documents::{Batch, Filter, Guard, Scan, Write};
use crate::objects::{ObjectStorage, StoreObjects};
use crate::records::document::rules::VersionRules;
use crate::records::index::scope::Scope;
use crate::records::index::{RecordIndex, Settings};
use crate::records::model::{ItemId, Names, Op, Row, VersionMeta, VersionSelector};
use crate::records::storage::payload_store::{ObjectBuckets, PayloadCache, PayloadStore};
use crate::records::versions::{LeftRows, LogAsk, LogRow, Versions};
use crate::{Env, ErrorKind, Timestamp};

struct Stage {
    manifests: Arc<Manifests>,
    bucket: Arc<dyn ObjectStorage>,
}

fn stage() -> Stage {
    let settings = Settings {
        map: Default::default(),
        inline_max_bytes: 1024,
        versioning: true,
        inline: false,
        logical_delete: true,
        hard_delete: false,
        update_mode: UpdateMode::Merge,
        transactions: Transactions::default(),
        shadow: None,
        writes: WriteOptimization::default(),
        retention: Retention::default(),
        rollup: Rollup::default(),
        rules: VersionRules::default(),
        says_tenant: false,
    };
    let documents = Arc::new(EmbeddedDocuments::open(":memory:", Env::default()).unwrap());
    let index = Arc::new(RecordIndex::new(Names::new("db", "users"), documents, settings, Env::default()));
    let bucket: Arc<dyn ObjectStorage> = Arc::new(StoreObjects::memory("bucket").unwrap());
    let opened = Arc::clone(&bucket);
    let buckets = ObjectBuckets {
        json: "bucket".to_owned(),
        content: "bucket".to_owned(),
        backups: "bucket".to_owned(),
        storage: "memory".to_owned(),
        open: Arc::new(move |_: &str| Ok(Arc::clone(&opened))),
    };
    let cache = PayloadCache::builder().build();
    let payloads = Arc::new(PayloadStore::new(Arc::clone(&index), Some(buckets), cache, 0));
    Stage { manifests: Arc::new(Manifests::new(&index, &payloads)), bucket }
}

/// Items in the order of their numbers.
fn item(n: u8) -> ItemId {
    ItemId::new(ObjectId::from_bytes([n; 12]))
}

fn minute(n: i64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + n * 60_000)
}

/// A row of some 100 KB that hardly gets smaller when it is packed; versions of all items take turns.
fn row(n: u8, ov: i64, tenant: Option<&str>) -> Row {
    let cv = ov * 10 + i64::from(n);
    let noise = (0..12_000_u64).map(|at| {
        let mixed = (at + 1 + cv.unsigned_abs() * 100_003).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        format!("{:08x}", mixed >> 32)
    });
    Row {
        row_id: ObjectId::new(),
        id: item(n),
        ov,
        cv,
        op: Op::Update,
        at: minute(cv),
        actor: Some(format!("item {n}")),
        reason: Some(noise.collect()),
        request_id: None,
        operation: None,
        meta: VersionMeta { tenant: tenant.map(str::to_owned), ..VersionMeta::default() },
        inline: None,
        inline_objects: Vec::new(),
        unflushed_since: None,
        counts: None,
        import: None,
        certificate: None,
    }
}

impl Stage {
    async fn prepare(&self, level: i32, settled: i64, rows: &[Row]) -> Prepared {
        let mut packer = Packer::default();
        for row in rows {
            packer.push(&row.stored(), row).await.unwrap();
        }
        let packed = packer.finish().await.unwrap().unwrap();
        let writing = Writing { level, period: "2026-11".to_owned(), tenant: None, settled, now: minute(0) };
        self.manifests.prepare(packed, &writing).await.unwrap()
    }

    /// Puts a manifest of these rows into use.
    async fn add(&self, level: i32, settled: i64, rows: &[Row]) -> String {
        let switch = self.manifests.switch().await.unwrap();
        let prepared = self.prepare(level, settled, rows).await;
        let mut next = switch;
        next.rolls += 1;
        next.in_use.push(InUse::of(&prepared.entry, false));
        assert!(self.manifests.commit(std::slice::from_ref(&prepared), &next).await.unwrap());
        prepared.entry.key
    }

    /// Puts a row into the index, where those of attempts still are.
    async fn put(&self, row: &Row) {
        let index = &self.manifests.index;
        let mut batch = Batch::new();
        batch.push(&index.names.ver, Write::put(row.stored(), Guard::Any));
        index.documents.apply(batch).await.unwrap();
    }

    async fn objects(&self) -> usize {
        self.bucket.list("").try_collect::<Vec<_>>().await.unwrap().len()
    }
}

/// Versions 0 to 9 of three items in level 1, 10 to 12 in level 0.
async fn two_levels() -> (Stage, [String; 2]) {
    let stage = stage();
    let rows = |ovs: std::ops::Range<i64>| -> Vec<Row> {
        (1..=3).flat_map(|n| ovs.clone().map(move |ov| row(n, ov, None))).collect()
    };
    let one = stage.add(1, 93, &rows(0..10)).await;
    let zero = stage.add(0, 123, &rows(10..13)).await;
    (stage, [zero, one])
}

#[tokio::test]
async fn a_version_is_found_by_its_number_its_time_and_that_of_the_collection() {
    let (stage, _) = two_levels().await;
    let manifests = &stage.manifests;
    let live = manifests.entries(&Scope::All).await.unwrap();
    assert!(live.entries.iter().any(|entry| entry.blocks.len() > 2), "more than one block");
    for n in 1..=3 {
        for ov in 0..13 {
            let cv = ov * 10 + i64::from(n);
            let bounds = [
                VersionSelector::Ov(ov),
                VersionSelector::Cv(cv),
                VersionSelector::Cv(cv + 9),
                VersionSelector::At(minute(cv)),
                VersionSelector::At(minute(cv + 9)),
            ];
            for bound in bounds {
                let newest = manifests.newest_of(&Scope::All, item(n), bound).await.unwrap().unwrap();
                assert_eq!((newest.id, newest.ov, newest.cv), (item(n), ov, cv), "{bound:?}");
                let rows = manifests.rows_of(&Scope::All, item(n), bound).await.unwrap();
                assert_eq!(rows.iter().map(|row| row.ov).collect::<Vec<_>>(), (0..=ov).collect::<Vec<_>>());
            }
        }
        let before = VersionSelector::Cv(i64::from(n) - 1);
        assert_eq!(manifests.newest_of(&Scope::All, item(n), before).await.unwrap(), None);
    }
    for absent in [item(0), item(9)] {
        assert!(manifests.rows_of(&Scope::All, absent, VersionSelector::Latest).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn all_rows_come_in_the_order_of_items_and_in_that_of_numbers() {
    let (stage, _) = two_levels().await;
    let places = |rows: Vec<Row>| rows.iter().map(|row| (row.id, row.ov)).collect::<Vec<_>>();
    let by_item: Vec<Row> = stage.manifests.by_item(&Scope::All, Some(item(1))).try_collect().await.unwrap();
    let expected: Vec<_> = (2..=3).flat_map(|n| (0..13).map(move |ov| (item(n), ov))).collect();
    assert_eq!(places(by_item), expected);
    let by_cv: Vec<Row> = stage.manifests.by_cv(&Scope::All, 12).try_collect().await.unwrap();
    let expected: Vec<i64> =
        (1..13).flat_map(|ov| (1..=3).map(move |n| ov * 10 + n)).filter(|cv| *cv > 12).collect();
    assert_eq!(by_cv.iter().map(|row| row.cv).collect::<Vec<_>>(), expected);
    let mut walk = stage.manifests.walk(&Scope::All, None).await.unwrap();
    assert_eq!(walk.next().await.unwrap().unwrap().ov, 0);
    walk.seek(item(3));
    assert_eq!(walk.peek().await.unwrap().map(|row| (row.id, row.ov)), Some((item(3), 0)));
}

#[tokio::test]
async fn the_log_comes_in_pieces_of_bounded_length_wherever_its_rows_are() {
    let (stage, _) = two_levels().await;
    // The last of those in manifests are in the index as well, the newest nowhere else.
    for (n, ov) in (1..=3).flat_map(|n| (12..=15).map(move |ov| (n, ov))) {
        stage.put(&row(n, ov, None)).await;
    }
    let index = Arc::clone(&stage.manifests.index);
    let versions = Versions { index, manifests: Arc::clone(&stage.manifests) };
    let ask = LogAsk { filter: Filter::All, without: Vec::new(), rows: 256, bytes: 150_000 };
    let (mut left, mut after, mut read) = (LeftRows::default(), -1, Vec::new());
    while after < 200 {
        let piece = versions.log(&Scope::All, (after, 200), &ask, Some(&mut left)).await.unwrap();
        let whole = piece.rows.iter().filter(|(_, row)| matches!(row, LogRow::Kept(_))).count();
        assert!(whole <= 2, "{whole} rows of 100 KB at once");
        read.extend(piece.rows.iter().map(|(cv, _)| *cv));
        after = piece.to;
    }
    let expected: Vec<i64> = (0..=15).flat_map(|ov| (1..=3).map(move |n| ov * 10 + n)).collect();
    assert_eq!(read, expected);
}

#[tokio::test]
async fn a_walk_goes_on_in_the_manifests_that_took_the_place_of_its_own() {
    let (stage, _) = two_levels().await;
    let manifests = &stage.manifests;
    let mut walk = manifests.walk(&Scope::All, None).await.unwrap();
    for ov in 0..13 {
        assert_eq!(walk.next().await.unwrap().unwrap().ov, ov);
    }
    // Everything is merged, something is added, and the old objects go.
    let mut rows: Vec<Row> = manifests.by_item(&Scope::All, None).try_collect().await.unwrap();
    rows.push(row(4, 0, None));
    let switch = manifests.switch().await.unwrap();
    let live = manifests.entries(&Scope::All).await.unwrap();
    let prepared = stage.prepare(2, 130, &rows).await;
    let mut next = switch;
    live.entries.iter().for_each(|entry| next.retire(entry, minute(0)));
    next.in_use.push(InUse::of(&prepared.entry, false));
    assert!(manifests.commit(&[prepared], &next).await.unwrap());
    assert_eq!(manifests.remove_retired(Duration::ZERO).await.unwrap(), 2);
    let mut rest = Vec::new();
    while let Some(row) = walk.next().await.unwrap() {
        rest.push((row.id, row.ov));
    }
    let expected = (2..=3).flat_map(|n| (0..13).map(move |ov| (item(n), ov))).chain([(item(4), 0)]);
    assert_eq!(rest, expected.collect::<Vec<_>>());
    assert_eq!(stage.objects().await, 1);
}

#[tokio::test]
async fn of_an_item_that_is_taken_out_nothing_is_left() {
    let (stage, _) = two_levels().await;
    let manifests = &stage.manifests;
    // An attempt that is under way has read its rows before, and comes to nothing.
    let switch = manifests.switch().await.unwrap();
    let attempted = row(2, 13, None);
    stage.put(&attempted).await;
    let late = stage.prepare(0, 140, &[attempted]).await;
    assert_eq!(manifests.rewrite_without(item(2)).await.unwrap(), 2);
    let mut next = switch;
    next.in_use.push(InUse::of(&late.entry, false));
    assert!(!manifests.commit(&[late], &next).await.unwrap());
    let left = manifests.rows_of(&Scope::All, item(2), VersionSelector::Latest).await.unwrap();
    assert!(left.iter().map(|row| row.ov).eq(0..13), "their numbers stay");
    assert!(left.iter().all(|row| row.op == Op::Erased && row.actor.is_none() && row.reason.is_none()));
    for n in [1, 3] {
        assert_eq!(manifests.rows_of(&Scope::All, item(n), VersionSelector::Latest).await.unwrap().len(), 13);
    }
    assert_eq!(stage.objects().await, 2, "the old ones are gone, and that of the attempt");
    assert_eq!(manifests.rewrite_without(item(2)).await.unwrap(), 0);
    for n in [1, 3] {
        assert_eq!(manifests.rewrite_without(item(n)).await.unwrap(), 2);
    }
    let rows: Vec<Row> = manifests.by_item(&Scope::All, None).try_collect().await.unwrap();
    assert!(rows.len() == 39 && rows.iter().all(|row| row.op == Op::Erased));
    assert_eq!(stage.objects().await, 2);
}

#[tokio::test]
async fn of_items_that_are_taken_out_at_once_each_is_gone_and_nobody_misses_a_manifest() {
    for _ in 0..2 {
        let (stage, _) = two_levels().await;
        let manifests = &stage.manifests;
        let (one, two, held) = tokio::join!(
            manifests.rewrite_without(item(1)),
            manifests.rewrite_without(item(2)),
            manifests.count_holding(item(3)),
        );
        assert_eq!((one.unwrap(), two.unwrap(), held.unwrap()), (2, 2, 2));
        let rows: Vec<Row> = manifests.by_item(&Scope::All, None).try_collect().await.unwrap();
        let whole = rows.iter().filter(|row| row.op != Op::Erased).map(|row| row.id);
        assert_eq!((rows.len(), whole.collect::<Vec<_>>()), (39, vec![item(3); 13]));
        assert_eq!(stage.objects().await, 2);
    }
}

#[tokio::test]
async fn a_roll_up_that_begins_within_an_erasure_comes_to_nothing() {
    let (stage, _) = two_levels().await;
    let manifests = &stage.manifests;
    let switch = manifests.fence().await.unwrap();
    assert_eq!(manifests.rewrite_without(item(1)).await.unwrap(), 2);
    let now = manifests.switch().await.unwrap();
    assert!(now.fences > switch.fences + 1, "{now:?}: more than by its own fence");
}

#[tokio::test]
async fn of_two_that_switch_from_one_state_one_does() {
    let (stage, _) = two_levels().await;
    let switch = stage.manifests.switch().await.unwrap();
    let rows = [row(7, 0, None)];
    // Each attempt has a key of its own, also with the same rows.
    let (one, two) = (stage.prepare(0, 150, &rows).await, stage.prepare(0, 150, &rows).await);
    assert_ne!(one.entry.key, two.entry.key);
    let mut next = switch;
    next.in_use.push(InUse::of(&one.entry, false));
    assert!(stage.manifests.commit(&[one], &next).await.unwrap());
    assert!(!stage.manifests.commit(std::slice::from_ref(&two), &next).await.unwrap());
    assert_eq!(stage.objects().await, 4);
    stage.manifests.discard(&[two]).await.unwrap();
    assert_eq!(stage.manifests.entries(&Scope::All).await.unwrap().entries.len(), 3);
    assert_eq!(stage.objects().await, 3, "that of the one that lost is gone");
}

#[tokio::test]
async fn a_manifest_with_a_key_of_an_earlier_version_is_read_and_goes_when_it_is_retired() {
    let stage = stage();
    let manifests = &stage.manifests;
    let prepared = stage.prepare(0, 150, &[row(1, 0, None)]).await;
    let bytes = stage.bucket.get(&prepared.entry.key).await.unwrap().unwrap();
    let mut entry = prepared.entry.clone();
    manifests.discard(&[prepared]).await.unwrap();
    "__manifests__/users/2026/11/snapshot-150.json.gz".clone_into(&mut entry.key);
    entry.id = format!("{}#{}", entry.key, &entry.sha256[..16]);
    stage.bucket.put(&entry.key, bytes, Default::default()).await.unwrap();
    let mut batch = Batch::new();
    batch.push(&manifests.index.names.manifests, Write::put(entry.stored(), Guard::Any));
    manifests.index.documents.apply(batch).await.unwrap();
    let mut next = manifests.switch().await.unwrap();
    next.in_use.push(InUse::of(&entry, false));
    assert!(manifests.switch_to(&next).await.unwrap());
    let found = manifests.rows_of(&Scope::All, item(1), VersionSelector::Latest).await.unwrap();
    assert_eq!(found.len(), 1);
    let mut next = manifests.switch().await.unwrap();
    next.retire(&entry, minute(0));
    assert!(manifests.switch_to(&next).await.unwrap());
    assert_eq!(manifests.remove_retired(Duration::ZERO).await.unwrap(), 1);
    assert_eq!(stage.objects().await, 0);
}

#[tokio::test]
async fn what_is_put_after_an_erasure_collected_its_note_is_found_by_the_clean_up() {
    let stage = stage();
    let manifests = &stage.manifests;
    let late = stage.prepare(0, 150, &[row(1, 0, None)]).await;
    let bytes = stage.bucket.get(&late.entry.key).await.unwrap().unwrap();
    manifests.rewrite_without(item(1)).await.unwrap();
    assert_eq!(stage.objects().await, 0);
    // Its process stood still with the object in hand, and dies after this.
    stage.bucket.put(&late.entry.key, bytes, Default::default()).await.unwrap();
    let gc = &manifests.index.names.gc;
    let notes: Vec<_> = manifests.index.documents.scan(gc, Scan::default()).try_collect().await.unwrap();
    for note in &notes {
        assert_eq!(manifests.collect_note(note, true).await.unwrap(), Some(true));
    }
    assert_eq!((notes.len(), stage.objects().await), (1, 0));
}

#[tokio::test]
async fn a_put_that_arrives_once_more_when_its_object_is_removed_is_found_by_the_clean_up() {
    let (stage, keys) = two_levels().await;
    let manifests = &stage.manifests;
    let discarded = stage.prepare(0, 150, &[row(7, 0, None)]).await;
    let mut puts = Vec::new();
    for key in keys.into_iter().chain([discarded.entry.key.clone()]) {
        puts.push((key.clone(), stage.bucket.get(&key).await.unwrap().unwrap()));
    }
    manifests.discard(&[discarded]).await.unwrap();
    assert_eq!(manifests.rewrite_without(item(1)).await.unwrap(), 2);
    assert_eq!(stage.objects().await, 2);
    for (key, bytes) in puts {
        stage.bucket.put(&key, bytes, Default::default()).await.unwrap();
    }
    let gc = &manifests.index.names.gc;
    let notes: Vec<_> = manifests.index.documents.scan(gc, Scan::default()).try_collect().await.unwrap();
    for note in &notes {
        assert_eq!(manifests.collect_note(note, true).await.unwrap(), Some(true));
    }
    assert_eq!((notes.len(), stage.objects().await), (3, 2));
    assert_eq!(manifests.damaged(&Scope::All).await.unwrap(), []);
}

#[tokio::test]
async fn a_manifest_that_is_missing_or_damaged_is_an_error_that_names_it() {
    let (stage, keys) = two_levels().await;
    let manifests = &stage.manifests;
    assert_eq!(manifests.damaged(&Scope::All).await.unwrap(), []);
    for key in &keys {
        let good = stage.bucket.get(key).await.unwrap().unwrap();
        let mut spoilt = good.to_vec();
        (0..spoilt.len()).step_by(256).for_each(|at| spoilt[at] ^= 0x55);
        for damage in [None, Some(spoilt.into()), Some(good.slice(..good.len() / 2))] {
            match damage {
                None => stage.bucket.delete(key).await.unwrap(),
                Some(bytes) => drop(stage.bucket.put(key, bytes, Default::default()).await.unwrap()),
            }
            let found = manifests.damaged(&Scope::All).await.unwrap();
            assert_eq!(found.iter().map(|one| &one.key).collect::<Vec<_>>(), [key]);
            let error = manifests.rows_of(&Scope::All, item(3), VersionSelector::Latest).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Storage);
            assert!(error.message().contains(key.as_str()) && error.message().contains("bucket"), "{error}");
            let walked = manifests.by_item(&Scope::All, None).try_collect::<Vec<_>>().await;
            assert!(walked.unwrap_err().message().contains(key.as_str()));
        }
        stage.bucket.put(key, good, Default::default()).await.unwrap();
    }
    assert_eq!(manifests.damaged(&Scope::All).await.unwrap(), []);
}

#[tokio::test]
async fn a_handle_sees_the_rows_of_its_tenant_alone() {
    let stage = stage();
    let rows = [row(1, 0, Some("acme")), row(2, 0, Some("globex")), row(3, 0, None)];
    stage.add(0, 3, &rows).await;
    for (scope, seen) in
        [(Scope::All, vec![1, 2, 3]), (Scope::tenant("acme"), vec![1]), (Scope::Untenanted, vec![3])]
    {
        let rows: Vec<Row> = stage.manifests.by_item(&scope, None).try_collect().await.unwrap();
        assert_eq!(
            rows.iter().map(|row| row.id).collect::<Vec<_>>(),
            seen.iter().map(|n| item(*n)).collect::<Vec<_>>()
        );
        for n in 1..=3 {
            let found = stage.manifests.newest_of(&scope, item(n), VersionSelector::Latest).await.unwrap();
            assert_eq!(found.is_some(), seen.contains(&n), "{scope:?} {n}");
        }
    }
}

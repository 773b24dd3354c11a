//! Filters, orders, pages, streams.

use std::collections::BTreeSet;
use std::sync::Arc;

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Document, doc};
use futures::{StreamExt as _, TryStreamExt as _};

use super::{Fresh, ids, position};
use crate::documents::filter::key_encoding::compare;
use crate::documents::filter::parse;
use crate::documents::{Direction, DocumentStore, Filter, Guard, Index, Namespace, Scan};
use crate::{ErrorKind, Json, json};

use Direction::{Ascending, Descending};

fn order(paths: &[(&str, Direction)]) -> Vec<(String, Direction)> {
    paths.iter().map(|(path, direction)| ((*path).to_owned(), *direction)).collect()
}

/// One document per kind of value at `v`, and some with arrays, deeper paths and nothing at all.
fn of_all_types() -> Vec<Document> {
    let binary = Binary { subtype: BinarySubtype::Generic, bytes: vec![1, 2] };
    let values: Vec<Bson> = vec![
        Bson::Null,
        Bson::Int32(-3),
        Bson::Int32(0),
        Bson::Int64(7),
        Bson::Double(7.5),
        Bson::Double(-0.5),
        Bson::Int64(i64::MAX),
        Bson::Double(1e300),
        "".into(),
        "a".into(),
        "abc".into(),
        "b".into(),
        "Ünïcode".into(),
        doc! { "x": 1 }.into(),
        doc! { "x": "deep", "y": [1, 2] }.into(),
        binary.into(),
        ObjectId::from_bytes([7; 12]).into(),
        false.into(),
        true.into(),
        DateTime::from_millis(-5).into(),
        DateTime::from_millis(1_400_000_000_000).into(),
        vec![Bson::from(7), "a".into()].into(),
        Vec::<Bson>::new().into(),
        vec![Bson::from(doc! { "x": 1, "y": 5 }), doc! { "x": 2, "y": 3 }.into()].into(),
        vec![Bson::Null].into(),
        vec![Bson::from(1), 2.into(), 3.into()].into(),
    ];
    let mut documents: Vec<Document> =
        (0..).zip(values).map(|(n, v)| doc! { "_id": n, "v": v, "n": n % 5 }).collect();
    documents.push(doc! { "_id": 100, "n": 2 });
    documents.push(doc! { "_id": 101 });
    documents
}

fn filters() -> Vec<Json> {
    let date = json!({ "$date": "2014-05-13T16:53:20Z" });
    vec![
        json!({}),
        json!({ "v": null }),
        json!({ "v": 7 }),
        json!({ "v": 7.5 }),
        json!({ "v": "a" }),
        json!({ "v": true }),
        json!({ "v": date }),
        json!({ "v": { "$oid": "070707070707070707070707" } }),
        json!({ "v": { "x": 1 } }),
        json!({ "v": [7, "a"] }),
        json!({ "v": [] }),
        json!({ "v.x": 1 }),
        json!({ "v.x": { "$gte": 2 } }),
        json!({ "v.0": 7 }),
        json!({ "v": { "$ne": 7 } }),
        json!({ "v": { "$ne": null } }),
        json!({ "v": { "$gt": 0 } }),
        json!({ "v": { "$gte": 0, "$lt": 7.5 } }),
        json!({ "v": { "$lte": "abc" } }),
        json!({ "v": { "$gt": date } }),
        json!({ "v": { "$gte": null } }),
        json!({ "v": { "$in": [null, 7, "b"] } }),
        json!({ "v": { "$nin": [7, "b", true] } }),
        json!({ "v": { "$exists": true } }),
        json!({ "v": { "$exists": false } }),
        json!({ "v": { "$regex": "^a" } }),
        json!({ "v": { "$regex": "C", "$options": "i" } }),
        json!({ "v": { "$all": [1, 3] } }),
        json!({ "v": { "$size": 2 } }),
        json!({ "v": { "$elemMatch": { "x": 1, "y": 5 } } }),
        json!({ "v": { "$elemMatch": { "$gt": 1, "$lt": 3 } } }),
        json!({ "v": { "$not": { "$gt": 0 } } }),
        json!({ "$or": [{ "v": "a" }, { "n": 3 }] }),
        json!({ "$nor": [{ "v": { "$gt": 0 } }, { "n": { "$in": [0, 1] } }] }),
        json!({ "$and": [{ "n": { "$gte": 1 } }, { "$or": [{ "v": null }, { "v": { "$lt": 8 } }] }] }),
        json!({ "n": 2, "v": { "$exists": false } }),
        json!({ "_id": { "$in": [1, 5, 101, 999] } }),
        json!({ "_id": { "$gt": 20 }, "n": { "$ne": 2 } }),
    ]
}

async fn filters_agree(fresh: &Fresh, namespace: &Namespace) {
    let documents = of_all_types();
    fresh.fill(namespace, documents.clone()).await;
    for text in filters() {
        let filter = parse(&text, &mut |path| Ok(path.to_owned())).unwrap();
        let expected: BTreeSet<String> = documents
            .iter()
            .filter(|document| filter.matches(document))
            .map(|document| document["_id"].to_string())
            .collect();
        assert_eq!(
            fresh.store.count(namespace, filter.clone(), u64::MAX).await.unwrap(),
            expected.len() as u64,
            "{text}"
        );
        let found = fresh.scan(namespace, Scan { filter, ..Scan::default() }).await;
        let found: BTreeSet<String> = ids(&found).iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{text}");
    }
}

/// Neither of a collection that isn't there nor of an empty one.
pub async fn a_scan_of_nothing_is_empty(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("nothing");
    assert_eq!(fresh.count(&namespace).await, 0);
    assert_eq!(fresh.get(&namespace, 1).await, None);
    fresh.store.ensure(&namespace, &[Index::on("by_n", &["n"])]).await.unwrap();
    assert_eq!(fresh.count(&namespace).await, 0);
    fresh.fill(&namespace, [doc! { "_id": 1 }]).await;
    assert_eq!(fresh.scan(&namespace, Scan { limit: Some(0), ..Scan::default() }).await, []);
}

/// All operators on values of all types.
pub async fn a_filter_finds_what_the_evaluator_finds(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    filters_agree(&fresh, &fresh.namespace("plain")).await;
}

/// The same with indexes to use.
pub async fn a_filter_on_indexed_paths_finds_what_the_evaluator_finds(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("indexed");
    let indexes = [
        Index::on("by_v", &["v"]),
        Index::on("by_n", &["n"]),
        Index::on("by_vx", &["v.x"]).only_if_exists("v.x"),
    ];
    fresh.store.ensure(&namespace, &indexes).await.unwrap();
    filters_agree(&fresh, &namespace).await;
}

/// Also where an index holds only a part of them.
pub async fn a_count_is_how_many_match(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("things");
    assert_eq!(fresh.store.count(&namespace, Filter::All, 5).await.unwrap(), 0);
    let indexes = [Index::on("by_v", &["v", "_id"]).only_if_exists("v"), Index::on("by_n", &["n"])];
    fresh.store.ensure(&namespace, &indexes).await.unwrap();
    fresh.fill(&namespace, orderable()).await;
    for text in filters() {
        let filter = parse(&text, &mut |path| Ok(path.to_owned())).unwrap();
        let expected = orderable().iter().filter(|document| filter.matches(document)).count() as u64;
        let count = async |at_most| fresh.store.count(&namespace, filter.clone(), at_most).await.unwrap();
        assert_eq!(
            (count(u64::MAX).await, count(2).await, count(0).await),
            (expected, expected.min(2), 0),
            "{text}"
        );
        assert_eq!(
            fresh.scan(&namespace, Scan { filter: filter.clone(), ..Scan::default() }).await.len() as u64,
            expected,
            "{text}"
        );
    }
}

/// Documents whose `k` holds no arrays, which nothing is ordered by.
fn orderable() -> Vec<Document> {
    let mut documents: Vec<Document> = of_all_types()
        .into_iter()
        .filter(|document| !matches!(document.get("v"), Some(Bson::Array(_))))
        .collect();
    for n in 0..40 {
        documents.push(doc! { "_id": 200 + n, "v": n % 4, "n": n % 3 });
    }
    documents
}

fn sorted(mut documents: Vec<Document>, scan: &Scan) -> Vec<Bson> {
    documents.sort_by(|a, b| {
        let keys = position(a, scan).into_iter().zip(position(b, scan)).zip(&scan.order);
        keys.map(
            |((a, b), (_, direction))| {
                if *direction == Ascending { compare(&a, &b) } else { compare(&b, &a) }
            },
        )
        .fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
    });
    ids(&documents)
}

fn orders() -> Vec<Vec<(String, Direction)>> {
    vec![
        order(&[("_id", Ascending)]),
        order(&[("_id", Descending)]),
        order(&[("v", Ascending), ("_id", Ascending)]),
        order(&[("v", Descending), ("_id", Descending)]),
        order(&[("v", Descending), ("_id", Ascending)]),
        order(&[("n", Ascending), ("v", Descending), ("_id", Ascending)]),
        order(&[("v.x", Descending), ("n", Ascending), ("_id", Descending)]),
    ]
}

async fn orders_agree(fresh: &Fresh, namespace: &Namespace) {
    fresh.fill(namespace, orderable()).await;
    for order in orders() {
        let scan = Scan { order, ..Scan::default() };
        assert_eq!(
            ids(&fresh.scan(namespace, scan.clone()).await),
            sorted(orderable(), &scan),
            "{:?}",
            scan.order
        );
    }
}

async fn index_orders(fresh: &Fresh, namespace: &Namespace) {
    let mut mixed = Index::on("n_v_id", &["n", "v", "_id"]);
    mixed.keys[1].1 = Descending;
    let indexes = [Index::on("v_id", &["v", "_id"]), Index::on("by_vx", &["v.x"]), mixed];
    fresh.store.ensure(namespace, &indexes).await.unwrap();
}

/// Null and absent, then numbers, text, objects, bytes, ids, booleans, dates; up and down, by several paths.
pub async fn an_order_goes_across_types(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    orders_agree(&fresh, &fresh.namespace("plain")).await;
}

/// The same with indexes to follow.
pub async fn an_order_on_indexed_paths_goes_across_types(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("indexed");
    index_orders(&fresh, &namespace).await;
    orders_agree(&fresh, &namespace).await;
}

async fn pages_agree(fresh: &Fresh, namespace: &Namespace) {
    for order in orders() {
        for filter in [Filter::All, Filter::eq("n", 2), Filter::gt("v", 0)] {
            let scan = Scan { order: order.clone(), filter, ..Scan::default() };
            let whole = fresh.scan(namespace, scan.clone()).await;
            for size in [1, 7, 1000] {
                assert_eq!(
                    ids(&fresh.pages(namespace, &scan, size).await),
                    ids(&whole),
                    "{scan:?} in pages of {size}"
                );
            }
        }
    }
}

/// Many documents share their values; the last path is unique.
pub async fn pages_neither_skip_nor_repeat(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("plain");
    fresh.fill(&namespace, (0..60).map(|n| doc! { "_id": n, "v": (n * 7) % 5, "n": n % 3 })).await;
    pages_agree(&fresh, &namespace).await;
}

/// The same with indexes to follow.
pub async fn pages_on_indexed_paths_neither_skip_nor_repeat(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("indexed");
    index_orders(&fresh, &namespace).await;
    fresh.fill(&namespace, (0..60).map(|n| doc! { "_id": n, "v": (n * 7) % 5, "n": n % 3 })).await;
    pages_agree(&fresh, &namespace).await;
}

/// A page may end at a value of one type and the next begin at another, or at absent ones.
pub async fn pages_across_types_neither_skip_nor_repeat(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("mixed");
    fresh.fill(&namespace, orderable()).await;
    pages_agree(&fresh, &namespace).await;
}

/// Documents that don't change are seen exactly once, whatever others come and go.
pub async fn pages_hold_while_others_write(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("things");
    fresh.fill(&namespace, (0..100).map(|n| doc! { "_id": format!("stay-{n:03}"), "v": n % 7 })).await;
    let scan =
        Scan { order: order(&[("v", Ascending), ("_id", Ascending)]), limit: Some(9), ..Scan::default() };
    let (mut seen, mut after, mut turn) = (Vec::new(), None, 0);
    loop {
        let page = fresh.scan(&namespace, Scan { after: after.clone(), ..scan.clone() }).await;
        let Some(last) = page.last() else { break };
        after = Some(position(last, &scan));
        seen.extend(ids(&page).into_iter().filter(|id| id.as_str().is_some_and(|id| id.starts_with("stay"))));
        for n in 0..7 {
            fresh
                .put(
                    &namespace,
                    doc! { "_id": format!("come-{n}-{}", turn % 2), "v": (n + turn) % 7 },
                    Guard::Any,
                )
                .await;
        }
        turn += 1;
        assert!(turn < 1000, "the pages come to an end");
    }
    assert_eq!((seen.len(), seen.iter().map(ToString::to_string).collect::<BTreeSet<_>>().len()), (100, 100));
}

/// Not those looked at.
pub async fn a_limit_counts_matching_documents(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("things");
    fresh.fill(&namespace, (0..50).map(|n| doc! { "_id": n, "tags": [n % 10, "t"] })).await;
    let filter = Filter::eq("tags", 9);
    let scan = Scan { filter, order: order(&[("_id", Descending)]), limit: Some(3), ..Scan::default() };
    assert_eq!(
        ids(&fresh.scan(&namespace, scan.clone()).await),
        [Bson::Int32(49), Bson::Int32(39), Bson::Int32(29)]
    );
    assert_eq!(fresh.scan(&namespace, Scan { limit: Some(99), ..scan }).await.len(), 5);
}

/// And ordered by.
pub async fn fields_left_out_are_still_filtered_by(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("things");
    fresh
        .fill(&namespace, (0..10).map(|n| doc! { "_id": n, "large": { "n": n }, "m": -n, "kept": "k" }))
        .await;
    let scan = Scan {
        filter: Filter::gt("large.n", 6),
        order: order(&[("m", Ascending)]),
        without: vec!["large".to_owned(), "m".to_owned(), "absent".to_owned()],
        ..Scan::default()
    };
    let found = fresh.scan(&namespace, scan.clone()).await;
    assert_eq!(found, [9, 8, 7].map(|n| doc! { "_id": n, "kept": "k" }));
    let found = fresh.scan(&namespace, Scan { filter: Filter::gt("_id", 7), ..scan }).await;
    assert_eq!(found, [9, 8].map(|n| doc! { "_id": n, "kept": "k" }));
}

/// Several thousand documents, in order and in none.
pub async fn a_large_scan_streams_everything_once(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("many");
    for chunk in 0..5 {
        fresh
            .fill(&namespace, (0..1000).map(|n| doc! { "_id": chunk * 1000 + n, "text": "x".repeat(200) }))
            .await;
    }
    let found = fresh.scan(&namespace, Scan { order: order(&[("_id", Ascending)]), ..Scan::default() }).await;
    assert_eq!(ids(&found), (0..5000).map(Bson::Int32).collect::<Vec<_>>());
    let unordered: BTreeSet<i32> =
        fresh.scan(&namespace, Scan::default()).await.iter().map(|d| d.get_i32("_id").unwrap()).collect();
    assert_eq!(unordered.len(), 5000);
}

/// The store goes on as if nothing had been asked.
pub async fn a_scan_may_be_dropped_midway(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("many");
    fresh.fill(&namespace, (0..2000).map(|n| doc! { "_id": n })).await;
    for _ in 0..100 {
        let mut stream = fresh.store.scan(&namespace, Scan::default());
        assert!(stream.next().await.unwrap().is_ok());
        drop(stream);
        drop(fresh.store.scan(&namespace, Scan::default()));
    }
    assert_eq!(
        fresh.put(&namespace, doc! { "_id": 1, "n": 1 }, Guard::Any).await,
        crate::documents::Outcome::Applied
    );
    assert_eq!(fresh.count(&namespace).await, 2000);
}

/// The same in orders that no index yields, by values that many share, by none with a filter, and of the
/// newest of each group.
pub async fn a_large_scan_of_any_kind_gives_each_document_once(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let (plain, indexed) = (fresh.namespace("plain"), fresh.namespace("indexed"));
    fresh
        .store
        .ensure(&indexed, &[Index::on("v", &["v"]), Index::on("g_n", &["g", "n"]).unique()])
        .await
        .unwrap();
    let document = |n: i32| doc! { "_id": n, "v": n % 3, "w": (n * 7919) % 1500, "g": n / 2, "n": n % 2, "text": "x".repeat(100) };
    for namespace in [&plain, &indexed] {
        fresh.fill(namespace, (0..1500).map(document)).await;
        for direction in [Ascending, Descending] {
            for path in ["v", "w"] {
                let by = order(&[(path, direction)]);
                let scan = Scan {
                    order: by.clone(),
                    filter: Filter::gt("_id", 99),
                    without: vec!["v".to_owned()],
                    ..Scan::default()
                };
                let found = fresh.scan(namespace, scan.clone()).await;
                let unique: BTreeSet<i32> =
                    found.iter().map(|document| document.get_i32("_id").unwrap()).collect();
                assert_eq!((found.len(), unique.len()), (1400, 1400), "{scan:?}");
                assert!(found.iter().all(|document| !document.contains_key("v")));
                let key = |found: &Document| document(found.get_i32("_id").unwrap()).get_i32(path).unwrap();
                let in_order = |a, b| if direction == Ascending { a <= b } else { a >= b };
                assert!(found.windows(2).all(|two| in_order(key(&two[0]), key(&two[1]))), "{scan:?}");
                assert_eq!(fresh.scan(namespace, Scan { limit: Some(700), ..scan }).await.len(), 700);
            }
            let newest = crate::documents::Newest { per: "g".into(), by: "n".into(), at_most: 1.into() };
            for by in [order(&[("g", direction)]), order(&[("w", direction)]), Vec::new()] {
                let scan = Scan { order: by, newest: Some(newest.clone()), ..Scan::default() };
                let found = fresh.scan(namespace, scan.clone()).await;
                let unique: BTreeSet<i32> =
                    found.iter().map(|document| document.get_i32("_id").unwrap()).collect();
                assert_eq!((found.len(), unique.len()), (750, 750), "{scan:?}");
                assert!(unique.iter().all(|id| id % 2 == 1), "{scan:?}");
            }
        }
        let unordered = fresh.scan(namespace, Scan { filter: Filter::eq("n", 1), ..Scan::default() }).await;
        let unique: BTreeSet<i32> =
            unordered.iter().map(|document| document.get_i32("_id").unwrap()).collect();
        assert_eq!((unordered.len(), unique.len()), (750, 750));
    }
}

/// More half-read streams than a runtime has threads for what blocks keep neither each other, nor a write,
/// nor a read by `_id` from going on.
pub async fn many_scans_at_once_wait_for_nobody(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("many");
    fresh.fill(&namespace, (0..1500).map(|n| doc! { "_id": n })).await;
    let mut streams: Vec<_> = (0..600).map(|_| fresh.store.scan(&namespace, Scan::default())).collect();
    for stream in &mut streams {
        assert!(stream.next().await.unwrap().is_ok());
    }
    fresh.fill(&namespace, [doc! { "_id": "later" }]).await;
    assert!(fresh.get(&namespace, "later").await.is_some());
    for stream in streams.into_iter().step_by(20) {
        let rest: Vec<Document> = stream.try_collect().await.unwrap();
        assert!(rest.len() == 1499 || rest.len() == 1500, "{} documents", rest.len());
    }
}

/// One value per path.
pub async fn an_after_must_fit_its_order(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("things");
    fresh.fill(&namespace, [doc! { "_id": 1 }]).await;
    for (order, after) in [
        (order(&[("v", Ascending), ("_id", Ascending)]), vec![Bson::Null]),
        (Vec::new(), vec![Bson::Int32(1)]),
    ] {
        let scan = Scan { order, after: Some(after), ..Scan::default() };
        let failed = fresh.store.scan(&namespace, scan).try_collect::<Vec<_>>().await.unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Validation);
    }
}

/// Each once, in any order, absent ones left out.
pub async fn documents_are_got_by_their_ids(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("things");
    let oid = ObjectId::new();
    fresh
        .fill(
            &namespace,
            [doc! { "_id": 1 }, doc! { "_id": "1" }, doc! { "_id": oid }, doc! { "_id": { "a": 1, "b": 2 } }],
        )
        .await;
    let asked: Vec<Bson> = vec![oid.into(), 1.into(), 1.into(), "2".into(), doc! { "a": 1, "b": 2 }.into()];
    let found = fresh.store.get(&namespace, asked).await.unwrap();
    let found: BTreeSet<String> = ids(&found).iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), 3);
    assert!(found.contains(&Bson::ObjectId(oid).to_string()));
    assert_eq!(fresh.store.get(&namespace, Vec::new()).await.unwrap(), Vec::<Document>::new());
    let many: Vec<Bson> = (0..3000).map(Bson::Int32).collect();
    assert_eq!(fresh.store.get(&namespace, many).await.unwrap(), [doc! { "_id": 1 }]);
}

//! The newest document per item as of a bound.

use std::sync::Arc;

use bson::{Bson, DateTime, Document, doc};

use super::{Fresh, ids};
use crate::documents::{Direction, DocumentStore, Filter, Index, Namespace, Newest, Scan};

use Direction::{Ascending, Descending};

fn at(second: i64) -> DateTime {
    DateTime::from_millis(second * 1000)
}

/// Item `i` has a version at every second that `i + 1` divides, up to 60.
fn versions() -> Vec<Document> {
    let mut all = Vec::new();
    for item in 0..12_i64 {
        for (ov, second) in (0..).zip((1..=60).filter(|second| second % (item + 1) == 0)) {
            let status = if ov % 2 == 0 { "even" } else { "odd" };
            all.push(doc! {
                "_id": format!("{item}/{second}"), "itemId": format!("item-{item:02}"), "at": at(second), "ov": ov, "status": status,
                "kind": item % 3,
            });
        }
    }
    all
}

fn expected(second: i64, matches: impl Fn(&Document) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for item in 0..12_i64 {
        let of_item = format!("item-{item:02}");
        let newest = versions()
            .into_iter()
            .filter(|v| {
                v.get_str("itemId").unwrap() == of_item && *v.get_datetime("at").unwrap() <= at(second)
            })
            .max_by_key(|v| *v.get_datetime("at").unwrap());
        found.extend(newest.filter(|v| matches(v)).map(|v| v.get_str("_id").unwrap().to_owned()));
    }
    found.sort();
    found
}

fn newest(second: i64, filter: Filter) -> Scan {
    let newest = Newest { per: "itemId".to_owned(), by: "at".to_owned(), at_most: at(second).into() };
    Scan { newest: Some(newest), filter, ..Scan::default() }
}

async fn found(fresh: &Fresh, namespace: &Namespace, scan: Scan) -> Vec<String> {
    let mut found: Vec<String> =
        ids(&fresh.scan(namespace, scan).await).iter().map(|id| id.as_str().unwrap().to_owned()).collect();
    found.sort();
    found
}

async fn filled(store: Arc<dyn DocumentStore>) -> (Fresh, Namespace) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("versions");
    let mut index = Index::on("item_at", &["itemId", "at"]).unique();
    index.keys[1].1 = Descending;
    fresh.store.ensure(&namespace, &[index, Index::on("by_status", &["status"])]).await.unwrap();
    fresh.fill(&namespace, versions()).await;
    (fresh, namespace)
}

/// At every moment.
pub async fn the_newest_document_of_every_group_is_found(store: Arc<dyn DocumentStore>) {
    let (fresh, namespace) = filled(store).await;
    for second in [1, 2, 7, 12, 30, 59, 60, 1000] {
        assert_eq!(
            found(&fresh, &namespace, newest(second, Filter::All)).await,
            expected(second, |_| true),
            "at {second}"
        );
    }
}

/// Slower, but alike.
pub async fn the_newest_are_found_without_an_index_too(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("plain");
    fresh.fill(&namespace, versions()).await;
    for second in [1, 7, 60] {
        assert_eq!(
            found(&fresh, &namespace, newest(second, Filter::All)).await,
            expected(second, |_| true),
            "at {second}"
        );
        let odd = expected(second, |v| v.get_str("status").unwrap() == "odd");
        assert_eq!(
            found(&fresh, &namespace, newest(second, Filter::eq("status", "odd"))).await,
            odd,
            "at {second}"
        );
    }
}

/// An older version that matches doesn't stand in for a newest that does not.
pub async fn a_filter_applies_after_the_reduction(store: Arc<dyn DocumentStore>) {
    let (fresh, namespace) = filled(store).await;
    for second in [5, 12, 30, 60] {
        for status in ["even", "odd"] {
            let matching = expected(second, |v| v.get_str("status").unwrap() == status);
            assert_eq!(
                found(&fresh, &namespace, newest(second, Filter::eq("status", status))).await,
                matching,
                "{status} at {second}"
            );
        }
    }
    assert_eq!(
        found(&fresh, &namespace, newest(60, Filter::lte("at", at(55)))).await,
        expected(60, |v| *v.get_datetime("at").unwrap() <= at(55))
    );
}

/// Alone and beside other conditions.
pub async fn a_filter_on_the_group_narrows_the_groups(store: Arc<dyn DocumentStore>) {
    let (fresh, namespace) = filled(store).await;
    let some =
        || Filter::any_of("itemId", vec!["item-01".into(), "item-06".into(), "item-99".into(), Bson::Null]);
    let of_some = |v: &Document| ["item-01", "item-06"].contains(&v.get_str("itemId").unwrap());
    assert_eq!(found(&fresh, &namespace, newest(30, some())).await, expected(30, of_some));
    let both = some().and(Filter::eq("status", "odd"));
    let odd = expected(30, |v| of_some(v) && v.get_str("status").unwrap() == "odd");
    assert_eq!(found(&fresh, &namespace, newest(30, both)).await, odd);
    assert_eq!(found(&fresh, &namespace, newest(30, Filter::eq("itemId", "item-03"))).await, ["3/28"]);
}

/// By the group or by anything else, up and down.
pub async fn the_newest_are_ordered_and_paged(store: Arc<dyn DocumentStore>) {
    let (fresh, namespace) = filled(store).await;
    let orders: [&[(&str, Direction)]; 5] = [
        &[("itemId", Ascending)],
        &[("itemId", Descending)],
        &[("at", Descending), ("itemId", Ascending)],
        &[("kind", Ascending), ("_id", Descending)],
        &[("status", Descending), ("ov", Ascending), ("_id", Ascending)],
    ];
    for order in orders {
        let order: Vec<_> = order.iter().map(|(path, direction)| ((*path).to_owned(), *direction)).collect();
        for filter in [Filter::All, Filter::eq("kind", 1_i64), Filter::gt("itemId", "item-04")] {
            let scan = Scan { order: order.clone(), ..newest(50, filter) };
            let whole = fresh.scan(&namespace, scan.clone()).await;
            let mut sorted = whole.clone();
            sorted.sort_by(|a, b| {
                let keys =
                    super::position(a, &scan).into_iter().zip(super::position(b, &scan)).zip(&scan.order);
                keys.map(|((a, b), (_, direction))| {
                    let order = crate::documents::filter::key_encoding::compare(&a, &b);
                    if *direction == Ascending { order } else { order.reverse() }
                })
                .fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
            });
            assert_eq!(ids(&whole), ids(&sorted), "{scan:?}");
            assert!(whole.len() >= 4);
            for size in [1, 3, 100] {
                assert_eq!(
                    ids(&fresh.pages(&namespace, &scan, size).await),
                    ids(&whole),
                    "{scan:?} in pages of {size}"
                );
            }
        }
    }
}

/// Nothing was there yet.
pub async fn a_bound_before_everything_finds_nothing(store: Arc<dyn DocumentStore>) {
    let (fresh, namespace) = filled(store).await;
    assert_eq!(found(&fresh, &namespace, newest(0, Filter::All)).await, Vec::<String>::new());
    assert_eq!(found(&fresh, &fresh.namespace("absent"), newest(9, Filter::All)).await, Vec::<String>::new());
}

//! Indexes that come before, after and beside the documents.

use std::sync::Arc;

use bson::doc;
use futures::future::join_all;

use super::{Fresh, conflict, ids};
use crate::ErrorKind;
use crate::documents::{Direction, DocumentStore, Filter, Guard, Index, Outcome, Scan};

/// Not the documents and not the promise.
pub async fn ensuring_twice_changes_nothing(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("things");
    let indexes =
        [Index::on("by_a", &["a"]).unique(), Index::on("by_b_c", &["b", "c.d"]).only_if_exists("b")];
    fresh.store.ensure(&namespace, &indexes).await.unwrap();
    fresh.fill(&namespace, [doc! { "_id": 1, "a": 1 }]).await;
    fresh.store.ensure(&namespace, &indexes).await.unwrap();
    fresh.store.ensure(&namespace, &indexes[1..]).await.unwrap();
    assert_eq!(fresh.insert(&namespace, doc! { "_id": 2, "a": 1 }).await, conflict("by_a"));
    assert_eq!(fresh.count(&namespace).await, 1);
}

/// And is then kept, found by and ordered by.
pub async fn an_index_can_come_after_the_documents(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("things");
    fresh.fill(&namespace, (0..500).map(|n| doc! { "_id": n, "a": { "b": 499 - n }, "list": [n % 3] })).await;
    let indexes = [Index::on("by_ab", &["a.b"]).unique(), Index::on("by_list", &["list"])];
    fresh.store.ensure(&namespace, &indexes).await.unwrap();
    assert_eq!(fresh.insert(&namespace, doc! { "_id": 500, "a": { "b": 3 } }).await, conflict("by_ab"));
    assert_eq!(fresh.insert(&namespace, doc! { "_id": 500, "a": { "b": 500 } }).await, Outcome::Applied);
    assert_eq!(
        ids(&fresh.scan(&namespace, Scan { filter: Filter::eq("a.b", 490), ..Scan::default() }).await),
        [9.into()]
    );
    assert_eq!(
        fresh.scan(&namespace, Scan { filter: Filter::eq("list", 1), ..Scan::default() }).await.len(),
        167
    );
    let order = vec![("a.b".to_owned(), Direction::Ascending)];
    let found = fresh.scan(&namespace, Scan { order, limit: Some(2), ..Scan::default() }).await;
    assert_eq!(ids(&found), [499.into(), 498.into()]);
}

/// The earlier ones stay in force.
pub async fn an_index_can_follow_another(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("things");
    fresh.store.ensure(&namespace, &[Index::on("by_a", &["a"]).unique()]).await.unwrap();
    fresh.fill(&namespace, (0..10).map(|n| doc! { "_id": n, "a": n, "b": n })).await;
    fresh.store.ensure(&namespace, &[Index::on("by_b", &["b"]).unique().only_if_exists("b")]).await.unwrap();
    fresh.store.ensure(&namespace, &[Index::on("by_b_a", &["b", "a"])]).await.unwrap();
    assert_eq!(fresh.insert(&namespace, doc! { "_id": 10, "a": 5, "b": 10 }).await, conflict("by_a"));
    assert_eq!(fresh.insert(&namespace, doc! { "_id": 10, "a": 10, "b": 5 }).await, conflict("by_b"));
    assert_eq!(fresh.put(&namespace, doc! { "_id": 9, "a": 99 }, Guard::Any).await, Outcome::Applied);
    assert_eq!(fresh.insert(&namespace, doc! { "_id": 10, "a": 10 }).await, Outcome::Applied);
    assert_eq!(fresh.count(&namespace).await, 11);
}

/// Everything stays as it was, and works after the values have been parted.
pub async fn a_unique_index_over_equal_values_is_refused_by_name(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("things");
    fresh.fill(&namespace, [doc! { "_id": 1, "a": 1 }, doc! { "_id": 2, "a": 1 }]).await;
    let index = [Index::on("by_a", &["a"]).unique()];
    let failed = fresh.store.ensure(&namespace, &index).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Database);
    assert!(failed.to_string().contains("by_a"), "{failed}");
    assert!(!failed.is_retryable());
    assert_eq!(fresh.count(&namespace).await, 2);
    assert_eq!(fresh.put(&namespace, doc! { "_id": 2, "a": 2 }, Guard::Any).await, Outcome::Applied);
    fresh.store.ensure(&namespace, &index).await.unwrap();
    assert_eq!(fresh.insert(&namespace, doc! { "_id": 3, "a": 2 }).await, conflict("by_a"));
}

/// Without any index, too.
pub async fn ensuring_makes_the_collection_usable(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("things");
    fresh.store.ensure(&namespace, &[]).await.unwrap();
    assert_eq!(fresh.count(&namespace).await, 0);
    assert_eq!(fresh.insert(&namespace, doc! { "_id": 1 }).await, Outcome::Applied);
}

/// With each other and with writes.
pub async fn concurrent_ensures_agree(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("things");
    let tasks = (0..12).map(|n| {
        let (fresh, namespace) = (fresh.clone(), namespace.clone());
        tokio::spawn(async move {
            let indexes = [Index::on("by_key", &["key"]).unique(), Index::on("by_n", &["n"])];
            fresh.store.ensure(&namespace, &indexes).await.unwrap();
            fresh.insert(&namespace, doc! { "_id": n, "key": "k", "n": n }).await
        })
    });
    let outcomes: Vec<_> = join_all(tasks).await.into_iter().map(|joined| joined.unwrap()).collect();
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_applied()).count(), 1, "{outcomes:?}");
}

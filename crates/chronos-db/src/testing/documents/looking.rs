//! What a store says of itself.

use std::sync::Arc;

use bson::doc;

use super::Fresh;
use crate::documents::DocumentStore;

/// Each time, and whatever was written meanwhile.
pub async fn a_store_is_the_same_deployment_as_itself(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let before = fresh.store.deployment().await.unwrap();
    fresh.fill(&fresh.namespace("things"), [doc! { "_id": 1 }]).await;
    let after = fresh.store.deployment().await.unwrap();
    assert!(before.is_same(&before) && before.is_same(&after), "{before:?} {after:?}");
}

/// A database is listed while it holds a collection.
pub async fn a_store_lists_its_databases(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let things = fresh.namespace("things");
    let is_listed = || async {
        let names = fresh.store.databases().await.unwrap();
        assert!(!names.iter().any(|name| name == "admin"), "{names:?}");
        names.iter().filter(|name| **name == *things.database).count()
    };
    assert_eq!(is_listed().await, 0);
    fresh.fill(&things, [doc! { "_id": 1 }]).await;
    fresh.fill(&fresh.namespace("others"), [doc! { "_id": 1 }]).await;
    assert_eq!(is_listed().await, 1);
}

/// Of that database alone, with those that are empty.
pub async fn a_store_lists_the_collections_of_a_database(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let things = fresh.namespace("things of 2024");
    assert_eq!(fresh.store.collections(&things.database).await.unwrap(), Vec::<String>::new());
    fresh.fill(&things, [doc! { "_id": 1 }]).await;
    fresh.store.ensure(&fresh.namespace("empty"), &[]).await.unwrap();
    let mut names = fresh.store.collections(&things.database).await.unwrap();
    names.sort();
    assert_eq!(names, ["empty", "things of 2024"]);
}

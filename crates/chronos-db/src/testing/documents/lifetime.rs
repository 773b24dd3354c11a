//! Time, and the end.

use std::sync::Arc;

use bson::doc;
use futures::TryStreamExt as _;

use super::Fresh;
use crate::documents::{Batch, DocumentStore, Guard, Scan, Write};
use crate::{Clock as _, SystemClock};

/// Asked again and again.
pub async fn the_stores_time_never_goes_back(store: Arc<dyn DocumentStore>) {
    let mut before = store.now().await.unwrap();
    for _ in 0..50 {
        let now = store.now().await.unwrap();
        assert!(now >= before, "{now} is before {before}");
        before = now;
    }
}

/// Within a minute: the stores that this runs on keep the time, and leases go by it.
pub async fn the_stores_time_is_about_now(store: Arc<dyn DocumentStore>) {
    let apart = store.now().await.unwrap().as_millis() - SystemClock.now().as_millis();
    assert!(apart.abs() < 60_000, "{apart} ms apart");
}

/// That of the numbers lies between the times before and after.
pub async fn a_sequence_tells_the_time(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("counter");
    let before = fresh.store.now().await.unwrap();
    let given = fresh.store.sequence(&namespace, "cv", 1).await.unwrap();
    let after = fresh.store.now().await.unwrap();
    assert!(before <= given.now && given.now <= after, "{before} {} {after}", given.now);
}

/// Closing twice is fine; everything else fails and does not hang.
pub async fn a_closed_store_refuses_everything(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("things");
    fresh.fill(&namespace, [doc! { "_id": 1 }]).await;
    fresh.store.close().await.unwrap();
    fresh.store.close().await.unwrap();
    let mut batch = Batch::new();
    batch.push(&namespace, Write::put(doc! { "_id": 2 }, Guard::Any));
    assert!(fresh.store.apply(batch).await.is_err());
    assert!(fresh.store.get(&namespace, vec![1.into()]).await.is_err());
    assert!(fresh.store.scan(&namespace, Scan::default()).try_collect::<Vec<_>>().await.is_err());
    assert!(fresh.store.sequence(&namespace, "cv", 1).await.is_err());
    assert!(fresh.store.ensure(&namespace, &[]).await.is_err());
    assert!(fresh.store.now().await.is_err());
}

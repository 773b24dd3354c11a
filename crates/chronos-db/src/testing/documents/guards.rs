//! Writes under a condition.

use std::sync::Arc;

use bson::oid::ObjectId;
use bson::{Bson, DateTime, doc};
use futures::future::join_all;

use super::Fresh;
use crate::ErrorKind;
use crate::documents::{Batch, DocumentStore, Guard, Index, Outcome, Write};

fn equals(field: &str, value: impl Into<Bson>) -> Guard {
    Guard::Equals { field: field.to_owned(), value: value.into() }
}

fn newer(field: &str) -> Guard {
    Guard::Newer { field: field.to_owned() }
}

/// It creates nothing.
pub async fn a_put_that_expects_a_value_needs_the_document(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("heads");
    assert_eq!(fresh.put(&namespace, doc! { "_id": 1, "ov": 1 }, equals("ov", 0)).await, Outcome::Refused);
    fresh.fill(&namespace, [doc! { "_id": 2, "ov": 0 }]).await;
    assert_eq!(fresh.put(&namespace, doc! { "_id": 1, "ov": 1 }, equals("ov", 0)).await, Outcome::Refused);
    assert_eq!(fresh.count(&namespace).await, 1);
}

/// Compare and swap, with and without an index on the field.
pub async fn a_put_that_expects_a_value_replaces_only_that_one(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    for indexed in [false, true] {
        let namespace = fresh.namespace(if indexed { "indexed" } else { "plain" });
        if indexed {
            fresh.store.ensure(&namespace, &[Index::on("by_ov", &["ov"])]).await.unwrap();
        }
        fresh.fill(&namespace, [doc! { "_id": 1, "ov": 4, "old": true }]).await;
        assert_eq!(
            fresh.put(&namespace, doc! { "_id": 1, "ov": 9 }, equals("ov", 3)).await,
            Outcome::Refused
        );
        assert_eq!(
            fresh.put(&namespace, doc! { "_id": 1, "ov": 5 }, equals("ov", 4_i64)).await,
            Outcome::Applied
        );
        assert_eq!(
            fresh.put(&namespace, doc! { "_id": 1, "ov": 5 }, equals("ov", 4)).await,
            Outcome::Refused
        );
        assert_eq!(fresh.get(&namespace, 1).await, Some(doc! { "_id": 1, "ov": 5 }));
    }
}

/// Text that a store could take for something of its own language.
pub async fn a_guarded_put_takes_every_text_as_it_is(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("heads");
    for (id, text) in ["$ov", "$$ROOT", "$$NOW", "$", "{\"$literal\": 1}", "\0", "%s"].into_iter().enumerate()
    {
        let id = i32::try_from(id).unwrap();
        let document = |ov: i32| doc! { "_id": id, "ov": ov, "text": text, "list": [text, { "deep": text }] };
        assert!(fresh.put(&namespace, document(0), newer("ov")).await.is_applied(), "{text}");
        assert!(fresh.put(&namespace, document(1), equals("text", text)).await.is_applied(), "{text}");
        assert_eq!(
            fresh.put(&namespace, document(2), equals("text", format!("{text} "))).await,
            Outcome::Refused
        );
        assert_eq!(fresh.get(&namespace, id).await, Some(document(1)));
    }
}

/// Of one batch, with puts of every kind of guard.
pub async fn every_put_of_a_batch_is_decided_by_itself(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("heads");
    fresh.fill(&namespace, (0..30).map(|id| doc! { "_id": id, "ov": id % 3, "by": "before" })).await;
    let mut batch = Batch::new();
    for id in 0..40 {
        let guard = match id % 4 {
            0 => Guard::Any,
            1 => newer("ov"),
            2 => equals("ov", 1),
            _ => equals("absent", Bson::Null),
        };
        batch.push(&namespace, Write::put(doc! { "_id": id, "ov": 1, "by": "batch" }, guard));
    }
    let outcomes = fresh.store.apply(batch).await.unwrap();
    for (id, outcome) in (0..40).zip(outcomes) {
        let stored = (id < 30).then_some(id % 3);
        let holds = match id % 4 {
            0 => true,
            1 => stored.is_none_or(|ov| ov < 1),
            2 => stored == Some(1),
            _ => stored.is_some(),
        };
        assert_eq!(outcome, if holds { Outcome::Applied } else { Outcome::Refused }, "{id}");
        let by = fresh.get(&namespace, id).await.map(|document| document.get_str("by").unwrap().to_owned());
        assert_eq!(by.as_deref(), if holds { Some("batch") } else { stored.map(|_| "before") }, "{id}");
    }
}

/// 32 callers see the same revision.
pub async fn of_concurrent_swaps_of_one_value_one_wins(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("heads");
    fresh.fill(&namespace, [doc! { "_id": 1, "ov": 0, "by": -1 }]).await;
    let swaps = (0..32).map(|by| {
        let (fresh, namespace) = (fresh.clone(), namespace.clone());
        tokio::spawn(async move {
            fresh.put(&namespace, doc! { "_id": 1, "ov": 1, "by": by }, equals("ov", 0)).await
        })
    });
    let outcomes: Vec<_> = join_all(swaps).await.into_iter().map(|joined| joined.unwrap()).collect();
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_applied()).count(), 1);
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Outcome::Refused).count(), 31);
    let winner = i32::try_from(outcomes.iter().position(Outcome::is_applied).unwrap()).unwrap();
    assert_eq!(fresh.get(&namespace, 1).await, Some(doc! { "_id": 1, "ov": 1, "by": winner }));
}

/// Text, ids, dates and booleans as well as numbers.
pub async fn a_swap_may_expect_any_type_of_value(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("locks");
    let values: [Bson; 5] =
        ["t".into(), ObjectId::new().into(), DateTime::from_millis(5).into(), true.into(), 2.5.into()];
    fresh.fill(&namespace, [doc! { "_id": 1, "v": &values[0] }]).await;
    for (at, value) in values.iter().enumerate() {
        let next = &values[(at + 1) % values.len()];
        assert_eq!(
            fresh.put(&namespace, doc! { "_id": 1, "v": next }, equals("v", next.clone())).await,
            Outcome::Refused
        );
        assert_eq!(
            fresh.put(&namespace, doc! { "_id": 1, "v": next }, equals("v", value.clone())).await,
            Outcome::Applied
        );
    }
}

/// Late, early and repeated.
pub async fn newer_puts_arrive_in_any_order_and_the_newest_stays(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    for indexed in [false, true] {
        let namespace = fresh.namespace(if indexed { "indexed" } else { "plain" });
        if indexed {
            fresh.store.ensure(&namespace, &[Index::on("by_ov", &["ov"])]).await.unwrap();
        }
        let arrivals = [
            (3_i64, true),
            (1, false),
            (3, false),
            (0, false),
            (7, true),
            (6, false),
            (100, true),
            (20, false),
        ];
        for (ov, wins) in arrivals {
            let outcome = fresh.put(&namespace, doc! { "_id": "head", "ov": ov }, newer("ov")).await;
            assert_eq!(outcome, if wins { Outcome::Applied } else { Outcome::Refused }, "{ov}");
        }
        let outcome = fresh.put(&namespace, doc! { "_id": "head", "ov": 100.5 }, newer("ov")).await;
        assert_eq!(outcome, Outcome::Applied, "numbers of all types compare");
        assert_eq!(fresh.get(&namespace, "head").await, Some(doc! { "_id": "head", "ov": 100.5 }));
    }
}

/// The first one needs nothing.
pub async fn a_newer_put_creates_the_document(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("heads");
    assert_eq!(fresh.put(&namespace, doc! { "_id": 1, "ov": 0 }, newer("ov")).await, Outcome::Applied);
    assert_eq!(fresh.get(&namespace, 1).await, Some(doc! { "_id": 1, "ov": 0 }));
}

/// What has no such field is older than everything.
pub async fn a_newer_put_replaces_a_document_without_the_field(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("heads");
    fresh.fill(&namespace, [doc! { "_id": 1 }]).await;
    assert_eq!(fresh.put(&namespace, doc! { "_id": 1, "ov": 0 }, newer("ov")).await, Outcome::Applied);
    assert_eq!(fresh.get(&namespace, 1).await, Some(doc! { "_id": 1, "ov": 0 }));
}

/// Many tasks put the revisions of a few documents, in batches, all at once.
pub async fn concurrent_newer_puts_leave_the_newest(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("heads");
    let puts = (0..24_i32).map(|task| {
        let (fresh, namespace) = (fresh.clone(), namespace.clone());
        tokio::spawn(async move {
            let mut batch = Batch::new();
            for id in 0..8 {
                let document = doc! { "_id": id, "ov": (task * 7 + id) % 24 };
                batch.push(&namespace, Write::put(document, newer("ov")));
            }
            fresh.store.apply(batch).await.unwrap()
        })
    });
    let outcomes: Vec<_> = join_all(puts).await.into_iter().flat_map(|joined| joined.unwrap()).collect();
    assert!(
        outcomes.iter().all(|outcome| matches!(outcome, Outcome::Applied | Outcome::Refused)),
        "{outcomes:?}"
    );
    for id in 0..8 {
        assert_eq!(fresh.get(&namespace, id).await, Some(doc! { "_id": id, "ov": 23 }));
    }
}

/// And only that; removing what isn't there is no failure.
pub async fn a_delete_removes_the_document(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("things");
    fresh.fill(&namespace, [doc! { "_id": 1 }, doc! { "_id": 2 }]).await;
    let delete = || Write::Delete { id: 1.into(), guard: Guard::Any };
    assert_eq!(fresh.one(&namespace, delete()).await, Outcome::Applied);
    assert_eq!(fresh.one(&namespace, delete()).await, Outcome::Applied);
    assert_eq!((fresh.get(&namespace, 1).await, fresh.count(&namespace).await), (None, 1));
    assert_eq!(fresh.insert(&namespace, doc! { "_id": 1 }).await, Outcome::Applied, "the id is free again");
}

/// Another value, or no document, refuses it.
pub async fn a_delete_that_expects_a_value_removes_only_that_one(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("locks");
    let delete = |token: &str| Write::Delete { id: 1.into(), guard: equals("token", token) };
    assert_eq!(fresh.one(&namespace, delete("mine")).await, Outcome::Refused);
    fresh.fill(&namespace, [doc! { "_id": 1, "token": "theirs" }]).await;
    assert_eq!(fresh.one(&namespace, delete("mine")).await, Outcome::Refused);
    assert_eq!(fresh.one(&namespace, delete("theirs")).await, Outcome::Applied);
    assert_eq!(fresh.one(&namespace, delete("theirs")).await, Outcome::Refused);
    assert_eq!(fresh.count(&namespace).await, 0);
}

/// There is nothing to be newer than.
pub async fn a_delete_cannot_be_newer(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("things");
    fresh.fill(&namespace, [doc! { "_id": 1, "ov": 1 }]).await;
    let mut batch = Batch::new();
    batch.push(&namespace, Write::Delete { id: 1.into(), guard: newer("ov") });
    assert_eq!(fresh.store.apply(batch).await.unwrap_err().kind(), ErrorKind::Validation);
    assert_eq!(fresh.count(&namespace).await, 1);
}

//! Numbers, and what is written with them.

use std::sync::Arc;

use bson::{Bson, Document, doc};
use futures::future::join_all;
use parking_lot::Mutex;

use super::{Fresh, conflict};
use crate::documents::{Batch, DocumentStore, Guard, Numbered, Outcome, Write};
use crate::{Error, ErrorKind};

fn last_given(document: &Document) -> Option<i64> {
    match document.get("value")? {
        Bson::Int32(i) => Some(i64::from(*i)),
        Bson::Int64(i) => Some(*i),
        _ => None,
    }
}

/// And keeps the last one given out as a whole number.
pub async fn a_sequence_begins_at_zero(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("counter");
    assert_eq!(fresh.store.sequence(&namespace, "cv", 1).await.unwrap().first, 0);
    assert_eq!(fresh.store.sequence(&namespace, "cv", 1).await.unwrap().first, 1);
    let kept = fresh.get(&namespace, "cv").await.unwrap();
    assert_eq!((kept.get_str("_id").unwrap(), last_given(&kept)), ("cv", Some(1)));
}

/// One range begins where the one before it ended.
pub async fn a_sequence_gives_out_ranges_without_gaps(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("counter");
    let mut next = 0;
    for count in [1, 20, 1, 1000, 3] {
        let given = fresh.store.sequence(&namespace, "cv", count).await.unwrap();
        assert_eq!((given.first, given.count), (next, count));
        next += i64::from(count);
    }
}

/// 32 callers, ten ranges each.
pub async fn concurrent_callers_share_a_sequence_without_gaps_or_repeats(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("counter");
    let callers = (0..32_u32).map(|caller| {
        let (fresh, namespace) = (fresh.clone(), namespace.clone());
        tokio::spawn(async move {
            let mut numbers = Vec::new();
            for turn in 0..10 {
                let given = fresh.store.sequence(&namespace, "cv", 1 + (caller + turn) % 3).await.unwrap();
                numbers.extend(given.first..given.first + i64::from(given.count));
            }
            assert!(numbers.is_sorted(), "one caller's numbers grow");
            numbers
        })
    });
    let mut numbers: Vec<i64> =
        join_all(callers).await.into_iter().flat_map(|joined| joined.unwrap()).collect();
    numbers.sort_unstable();
    let expected: Vec<i64> = (0..).take(numbers.len()).collect();
    assert_eq!(numbers, expected);
}

/// Whichever number type they used, and without touching their other fields.
pub async fn a_sequence_goes_on_from_what_others_wrote(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("counter");
    let values: [Bson; 3] = [Bson::Int32(41), Bson::Int64(41), Bson::Double(41.0)];
    for (at, value) in values.into_iter().enumerate() {
        let name = format!("cv{at}");
        fresh.fill(&namespace, [doc! { "_id": &name, "value": value, "mark": { "a": [1] } }]).await;
        assert_eq!(fresh.store.sequence(&namespace, &name, 2).await.unwrap().first, 42);
        let kept = fresh.get(&namespace, name.as_str()).await.unwrap();
        assert_eq!(kept.get("mark"), Some(&Bson::Document(doc! { "a": [1] })));
        assert_eq!(fresh.store.sequence(&namespace, &name, 1).await.unwrap().first, 44);
    }
    fresh.fill(&namespace, [doc! { "_id": "marked", "mark": 1 }]).await;
    assert_eq!(
        fresh.store.sequence(&namespace, "marked", 1).await.unwrap().first,
        0,
        "no number has been given out yet"
    );
    assert_eq!(fresh.get(&namespace, "marked").await.unwrap().get("mark"), Some(&Bson::Int32(1)));
}

/// It is not overwritten.
pub async fn a_sequence_with_a_wrong_value_is_an_error(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("counter");
    fresh.fill(&namespace, [doc! { "_id": "cv", "value": "seven" }]).await;
    assert_eq!(fresh.store.sequence(&namespace, "cv", 1).await.unwrap_err().kind(), ErrorKind::Database);
    assert_eq!(fresh.get(&namespace, "cv").await, Some(doc! { "_id": "cv", "value": "seven" }));
}

/// Neither of one collection nor of two.
pub async fn sequences_do_not_mix(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let (one, two) = (fresh.namespace("one"), fresh.namespace("two"));
    assert_eq!(fresh.store.sequence(&one, "a", 5).await.unwrap().first, 0);
    assert_eq!(fresh.store.sequence(&one, "b", 5).await.unwrap().first, 0);
    assert_eq!(fresh.store.sequence(&two, "a", 5).await.unwrap().first, 0);
    assert_eq!(fresh.store.sequence(&one, "a", 5).await.unwrap().first, 5);
}

/// Wrong input.
pub async fn no_numbers_cannot_be_asked_for(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("counter");
    assert_eq!(fresh.store.sequence(&namespace, "cv", 0).await.unwrap_err().kind(), ErrorKind::Validation);
}

/// The function sees the numbers that the caller gets.
pub async fn a_batch_is_built_from_its_numbers(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let (counter, rows) = (fresh.namespace("counter"), fresh.namespace("rows"));
    let seen = Arc::new(Mutex::new(None));
    for turn in 0..3_i64 {
        let (rows, noted) = (rows.clone(), seen.clone());
        let build = Box::new(move |given: crate::documents::Sequence| {
            *noted.lock() = Some(given);
            let mut batch = Batch::new();
            for number in given.first..given.first + i64::from(given.count) {
                batch.push(&rows, Write::insert(doc! { "_id": number }));
            }
            Ok(batch)
        });
        let Numbered { sequence: given, outcomes } =
            fresh.store.sequence_then(&counter, "cv", 2, build).await.unwrap();
        assert_eq!((given.first, outcomes), (turn * 2, vec![Outcome::Applied; 2]));
        assert_eq!(*seen.lock(), Some(given));
    }
    assert_eq!(fresh.count(&rows).await, 6);
}

/// The error reaches the caller, and only this caller.
pub async fn a_build_that_fails_writes_nothing(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let (counter, rows) = (fresh.namespace("counter"), fresh.namespace("rows"));
    let calls = (0..16).map(|n| {
        let (fresh, counter, rows) = (fresh.clone(), counter.clone(), rows.clone());
        tokio::spawn(async move {
            let build = Box::new(move |given: crate::documents::Sequence| {
                if n % 2 == 1 {
                    return Err(Error::new(ErrorKind::OptimisticLock, "changed meanwhile"));
                }
                let mut batch = Batch::new();
                batch.push(&rows, Write::insert(doc! { "_id": given.first }));
                Ok(batch)
            });
            (n, fresh.store.sequence_then(&counter, "cv", 1, build).await)
        })
    });
    for joined in join_all(calls).await {
        let (n, done) = joined.unwrap();
        match done {
            Ok(Numbered { outcomes, .. }) => assert_eq!((n % 2, outcomes), (0, vec![Outcome::Applied])),
            Err(error) => assert_eq!((n % 2, error.kind()), (1, ErrorKind::OptimisticLock)),
        }
    }
    assert_eq!(fresh.count(&rows).await, 8);
    if fresh.store.capabilities().await.unwrap().atomic_sequence {
        let next = fresh.store.sequence(&counter, "cv", 1).await.unwrap().first;
        assert_eq!(next, 8, "the numbers of failed builds are given out again");
    }
}

/// The numbers stay given out: the caller has got them.
pub async fn a_conflict_of_a_built_batch_is_an_outcome(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let (counter, rows) = (fresh.namespace("counter"), fresh.namespace("rows"));
    fresh.fill(&rows, [doc! { "_id": "taken" }]).await;
    let at = rows.clone();
    let build = Box::new(move |_| {
        let mut batch = Batch::new();
        let first = batch.push(&at, Write::insert(doc! { "_id": "taken" }));
        batch.push_after(first, &at, Write::put(doc! { "_id": "after" }, Guard::Any));
        Ok(batch)
    });
    let Numbered { sequence: given, outcomes } =
        fresh.store.sequence_then(&counter, "cv", 1, build).await.unwrap();
    assert_eq!((given.first, outcomes), (0, vec![conflict("_id_"), Outcome::Skipped]));
    assert_eq!(fresh.store.sequence(&counter, "cv", 1).await.unwrap().first, 1);
}

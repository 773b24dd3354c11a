//! Inserts, puts, batches.

use std::sync::Arc;

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Document, doc, rawdoc};
use futures::future::join_all;

use super::{Fresh, conflict, ids};
use crate::documents::{
    Atomicity, Batch, DocumentStore, Filter, Guard, Index, Namespace, Operation, Outcome, Scan, Write,
};
use crate::{ErrorKind, validate_name};

/// Every type comes back as it went in.
pub async fn an_inserted_document_is_read_back_as_it_was(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("things");
    let document = doc! {
        "_id": ObjectId::new(),
        "small": 1_i32,
        "large": i64::MAX,
        "double": 0.1,
        "text": "ünïcode \u{1F30D} and a NUL: \0",
        "yes": true,
        "null": null,
        "at": DateTime::from_millis(-1),
        "bytes": Binary { subtype: BinarySubtype::Generic, bytes: vec![0, 1, 255] },
        "list": [1_i32, "two", { "three": 3_i32 }, [4_i32]],
        "nested": { "b": { "a": {} }, "a": [] },
    };
    assert_eq!(fresh.insert(&namespace, document.clone()).await, Outcome::Applied);
    let id = document.get_object_id("_id").unwrap();
    assert_eq!(fresh.get(&namespace, id).await, Some(document));
}

/// A second insert of an `_id` conflicts by the name `_id_` and changes nothing.
pub async fn an_id_is_taken_only_once(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("things");
    assert_eq!(fresh.insert(&namespace, doc! { "_id": "a", "n": 1 }).await, Outcome::Applied);
    assert_eq!(fresh.insert(&namespace, doc! { "_id": "a", "n": 2 }).await, conflict("_id_"));
    assert_eq!(fresh.get(&namespace, "a").await, Some(doc! { "_id": "a", "n": 1 }));
}

/// 1, 1 and 1.0 are one `_id`.
pub async fn numbers_of_different_types_are_the_same_id(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("things");
    assert_eq!(fresh.insert(&namespace, doc! { "_id": 1_i32 }).await, Outcome::Applied);
    assert_eq!(fresh.insert(&namespace, doc! { "_id": 1_i64 }).await, conflict("_id_"));
    assert_eq!(fresh.insert(&namespace, doc! { "_id": 1.0 }).await, conflict("_id_"));
    assert_eq!(fresh.insert(&namespace, doc! { "_id": "1" }).await, Outcome::Applied);
    assert!(fresh.get(&namespace, 1.0).await.is_some());
}

/// The outcome says which index it was.
pub async fn a_unique_index_names_itself_in_the_conflict(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("things");
    let indexes =
        [Index::on("by_email", &["email"]).unique(), Index::on("by_name", &["profile.name"]).unique()];
    fresh.store.ensure(&namespace, &indexes).await.unwrap();
    let person =
        |id: &str, email: &str, name: &str| doc! { "_id": id, "email": email, "profile": { "name": name } };
    assert_eq!(fresh.insert(&namespace, person("1", "a@x", "a")).await, Outcome::Applied);
    assert_eq!(fresh.insert(&namespace, person("2", "a@x", "b")).await, conflict("by_email"));
    assert_eq!(fresh.insert(&namespace, person("3", "b@x", "a")).await, conflict("by_name"));
    assert_eq!(fresh.insert(&namespace, person("1", "c@x", "c")).await, conflict("_id_"));
    assert_eq!(fresh.insert(&namespace, person("4", "b@x", "b")).await, Outcome::Applied);
    assert_eq!(fresh.count(&namespace).await, 2);
}

/// Two documents may share a part of a compound key, whichever the directions; absent counts as null.
pub async fn a_compound_unique_index_compares_all_its_paths(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("versions");
    let mut index = Index::on("item_ov", &["itemId", "ov"]).unique();
    index.keys[1].1 = crate::documents::Direction::Descending;
    fresh.store.ensure(&namespace, &[index]).await.unwrap();
    assert_eq!(fresh.insert(&namespace, doc! { "_id": 1, "itemId": "a", "ov": 0 }).await, Outcome::Applied);
    assert_eq!(
        fresh.insert(&namespace, doc! { "_id": 2, "itemId": "a", "ov": 1_i64 }).await,
        Outcome::Applied
    );
    assert_eq!(fresh.insert(&namespace, doc! { "_id": 3, "itemId": "b", "ov": 0 }).await, Outcome::Applied);
    assert_eq!(
        fresh.insert(&namespace, doc! { "_id": 4, "itemId": "a", "ov": 1 }).await,
        conflict("item_ov")
    );
    assert_eq!(
        fresh.insert(&namespace, doc! { "_id": 5, "itemId": "a", "ov": null }).await,
        Outcome::Applied
    );
    assert_eq!(fresh.insert(&namespace, doc! { "_id": 6, "itemId": "a" }).await, conflict("item_ov"));
}

/// Documents without the path never conflict; null is a value.
pub async fn a_partial_unique_index_compares_only_documents_that_have_the_path(
    store: Arc<dyn DocumentStore>,
) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("claims");
    let index = Index::on("by_key", &["key", "tenant"]).unique().only_if_exists("key");
    fresh.store.ensure(&namespace, &[index]).await.unwrap();
    assert_eq!(fresh.insert(&namespace, doc! { "_id": 1, "tenant": "t" }).await, Outcome::Applied);
    assert_eq!(fresh.insert(&namespace, doc! { "_id": 2, "tenant": "t" }).await, Outcome::Applied);
    assert_eq!(
        fresh.insert(&namespace, doc! { "_id": 3, "tenant": "t", "key": null }).await,
        Outcome::Applied
    );
    assert_eq!(
        fresh.insert(&namespace, doc! { "_id": 4, "tenant": "t", "key": null }).await,
        conflict("by_key")
    );
    assert_eq!(
        fresh.insert(&namespace, doc! { "_id": 5, "tenant": "t", "key": "k" }).await,
        Outcome::Applied
    );
    assert_eq!(
        fresh.insert(&namespace, doc! { "_id": 6, "tenant": "t", "key": "k" }).await,
        conflict("by_key")
    );
    assert_eq!(
        fresh.insert(&namespace, doc! { "_id": 7, "tenant": "u", "key": "k" }).await,
        Outcome::Applied
    );
    let found =
        fresh.scan(&namespace, Scan { filter: Filter::eq("key", Bson::Null), ..Scan::default() }).await;
    assert_eq!(found.len(), 3, "a query finds what the index leaves out, too");
}

/// 64 callers, one key.
pub async fn of_many_concurrent_inserts_of_one_key_one_wins(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("claims");
    fresh.store.ensure(&namespace, &[Index::on("by_key", &["key"]).unique()]).await.unwrap();
    let inserts = (0..64).map(|n| {
        let (fresh, namespace) = (fresh.clone(), namespace.clone());
        tokio::spawn(async move { fresh.insert(&namespace, doc! { "_id": n, "key": "k" }).await })
    });
    let outcomes: Vec<_> = join_all(inserts).await.into_iter().map(|joined| joined.unwrap()).collect();
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_applied()).count(), 1);
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == conflict("by_key")).count(), 63);
    assert_eq!(fresh.count(&namespace).await, 1);
}

/// No field of the old document stays.
pub async fn a_put_creates_and_replaces_the_whole_document(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("things");
    assert_eq!(fresh.put(&namespace, doc! { "_id": 1, "a": 1, "b": 2 }, Guard::Any).await, Outcome::Applied);
    assert_eq!(fresh.put(&namespace, doc! { "_id": 1, "a": 3 }, Guard::Any).await, Outcome::Applied);
    assert_eq!(
        fresh.put(&namespace, doc! { "_id": 1, "a": 3 }, Guard::Any).await,
        Outcome::Applied,
        "the same again"
    );
    assert_eq!(fresh.get(&namespace, 1).await, Some(doc! { "_id": 1, "a": 3 }));
    assert_eq!(fresh.count(&namespace).await, 1);
}

/// A put keeps its own unique values and cannot take another's.
pub async fn a_put_may_violate_a_unique_index(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("things");
    fresh.store.ensure(&namespace, &[Index::on("by_key", &["key"]).unique()]).await.unwrap();
    fresh
        .fill(&namespace, [doc! { "_id": 1, "key": "a", "n": 0 }, doc! { "_id": 2, "key": "b", "n": 0 }])
        .await;
    assert_eq!(
        fresh.put(&namespace, doc! { "_id": 1, "key": "a", "n": 1 }, Guard::Any).await,
        Outcome::Applied
    );
    assert_eq!(
        fresh.put(&namespace, doc! { "_id": 1, "key": "b", "n": 2 }, Guard::Any).await,
        conflict("by_key")
    );
    let swap = Guard::Equals { field: "n".to_owned(), value: 1.into() };
    assert_eq!(fresh.put(&namespace, doc! { "_id": 1, "key": "b", "n": 2 }, swap).await, conflict("by_key"));
    assert_eq!(
        fresh.put(&namespace, doc! { "_id": 3, "key": "b", "n": 2 }, Guard::Any).await,
        conflict("by_key")
    );
    assert_eq!(fresh.get(&namespace, 1).await, Some(doc! { "_id": 1, "key": "a", "n": 1 }));
    assert_eq!(fresh.count(&namespace).await, 2);
}

/// Also down a chain, and whatever the reason.
pub async fn an_operation_that_requires_a_failed_one_is_skipped(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let (rows, heads) = (fresh.namespace("rows"), fresh.namespace("heads"));
    fresh.fill(&rows, [doc! { "_id": "taken" }]).await;
    let mut batch = Batch::new();
    let lost = batch.push(&rows, Write::insert(doc! { "_id": "taken" }));
    let won = batch.push(&rows, Write::insert(doc! { "_id": "free" }));
    let after_lost = batch.push_after(lost, &heads, Write::put(doc! { "_id": "lost" }, Guard::Any));
    batch.push_after(won, &heads, Write::put(doc! { "_id": "won" }, Guard::Any));
    batch.push_after(after_lost, &heads, Write::Delete { id: "won".into(), guard: Guard::Any });
    let outcomes = fresh.store.apply(batch).await.unwrap();
    assert_eq!(
        outcomes,
        [conflict("_id_"), Outcome::Applied, Outcome::Skipped, Outcome::Applied, Outcome::Skipped]
    );
    assert_eq!(ids(&fresh.scan(&heads, Scan::default()).await), [Bson::from("won")]);
}

/// What requires something sees everything that doesn't, wherever it stands in the batch.
pub async fn operations_without_requirement_come_first(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("things");
    let mut batch = Batch::new();
    let first = batch.push(&namespace, Write::insert(doc! { "_id": 1 }));
    batch.push_after(first, &namespace, Write::Delete { id: 2.into(), guard: Guard::Any });
    batch.push(&namespace, Write::insert(doc! { "_id": 2 }));
    assert_eq!(fresh.store.apply(batch).await.unwrap(), vec![Outcome::Applied; 3]);
    assert_eq!(ids(&fresh.scan(&namespace, Scan::default()).await), [Bson::Int32(1)]);
}

/// A failing operation takes none of the others with it.
pub async fn each_operation_stands_for_itself(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("things");
    fresh.fill(&namespace, [doc! { "_id": 50, "old": true }]).await;
    let mut batch = Batch::new();
    for id in 0..100 {
        batch.push(&namespace, Write::insert(doc! { "_id": id }));
    }
    let outcomes = fresh.store.apply(batch).await.unwrap();
    for (id, outcome) in outcomes.iter().enumerate() {
        assert_eq!(*outcome, if id == 50 { conflict("_id_") } else { Outcome::Applied });
    }
    assert_eq!(fresh.count(&namespace).await, 100);
}

/// Where the store has transactions; elsewhere it is refused and nothing is written.
pub async fn a_whole_batch_takes_place_or_nothing_of_it(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let (left, right) = (fresh.namespace("left"), fresh.namespace("right"));
    fresh.fill(&right, [doc! { "_id": "taken" }]).await;
    let batch = |id: &str| {
        let mut batch = Batch { atomicity: Atomicity::All, ..Batch::new() };
        let first = batch.push(&left, Write::insert(doc! { "_id": id }));
        batch.push(&right, Write::insert(doc! { "_id": id }));
        batch.push_after(first, &left, Write::put(doc! { "_id": format!("{id}-2") }, Guard::Any));
        batch
    };
    if !fresh.store.capabilities().await.unwrap().transactions {
        assert_eq!(fresh.store.apply(batch("free")).await.unwrap_err().kind(), ErrorKind::Validation);
        assert_eq!(fresh.count(&left).await, 0);
        return;
    }
    assert_eq!(
        fresh.store.apply(batch("taken")).await.unwrap(),
        [Outcome::Skipped, conflict("_id_"), Outcome::Skipped]
    );
    assert_eq!(fresh.count(&left).await, 0);
    assert_eq!(fresh.store.apply(batch("free")).await.unwrap(), vec![Outcome::Applied; 3]);
    assert_eq!((fresh.count(&left).await, fresh.count(&right).await), (2, 2));
    let mut refused = Batch { atomicity: Atomicity::All, ..Batch::new() };
    refused.push(&left, Write::Delete { id: "free".into(), guard: Guard::Any });
    let guard = Guard::Equals { field: "n".to_owned(), value: 1.into() };
    refused.push(&right, Write::put(doc! { "_id": "free" }, guard));
    assert_eq!(fresh.store.apply(refused).await.unwrap(), [Outcome::Skipped, Outcome::Refused]);
    assert_eq!((fresh.count(&left).await, fresh.count(&right).await), (2, 2));
}

/// Nothing to do is not an error.
pub async fn an_empty_batch_has_no_outcomes(store: Arc<dyn DocumentStore>) {
    assert_eq!(store.apply(Batch::new()).await.unwrap(), []);
}

/// The caller gives the `_id`, so that it can find out after an ambiguous error.
pub async fn a_document_without_id_is_refused(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("things");
    let mut batch = Batch::new();
    batch.push(&namespace, Write::insert(doc! { "_id": 1 }));
    batch.push(&namespace, Write::insert(doc! { "n": 1 }));
    assert_eq!(fresh.store.apply(batch).await.unwrap_err().kind(), ErrorKind::Validation);
    assert_eq!(fresh.count(&namespace).await, 0, "wrong input is found before anything is written");
}

/// Neither itself, nor a later one, nor one that isn't there.
pub async fn a_requirement_must_be_an_earlier_operation(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("things");
    for requires in [0, 1, 7] {
        let operation = |id, requires| Operation {
            namespace: namespace.clone(),
            write: Write::insert(doc! { "_id": id }),
            requires,
        };
        let batch =
            Batch { operations: vec![operation(1, Some(requires)), operation(2, None)], ..Batch::new() };
        assert_eq!(fresh.store.apply(batch).await.unwrap_err().kind(), ErrorKind::Validation);
    }
    assert_eq!(fresh.count(&namespace).await, 0);
}

/// Several of them, beside indexed fields.
pub async fn a_document_of_four_megabytes_survives(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("large");
    fresh.store.ensure(&namespace, &[Index::on("by_n", &["n"]).unique()]).await.unwrap();
    let bytes = |n: u8| Binary { subtype: BinarySubtype::Generic, bytes: vec![n; 4 * 1024 * 1024] };
    for n in 0..3_u8 {
        let document = doc! { "_id": i32::from(n), "n": i32::from(n), "payload": bytes(n) };
        assert_eq!(fresh.insert(&namespace, document).await, Outcome::Applied);
    }
    let found = fresh.get(&namespace, 2).await.unwrap();
    assert_eq!(found.get("payload"), Some(&Bson::Binary(bytes(2))));
    let scan = Scan { filter: Filter::gt("n", 0), without: vec!["payload".to_owned()], ..Scan::default() };
    assert_eq!(fresh.scan(&namespace, scan).await.len(), 2);
}

/// Whatever [`validate_name`] lets through works as a collection; in a database's name, what MongoDB allows
/// there.
pub async fn names_with_spaces_dots_dashes_and_letters_of_all_scripts_work(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let collections = [
        "a b",
        "a.b",
        "a-b",
        "A_B",
        "名前",
        "naïve",
        "'quoted'",
        "\"double\"",
        "a;b--c",
        "100%",
        "[x]",
        "`tick`",
        "sqlite_x",
    ];
    for (n, collection) in collections.into_iter().enumerate() {
        let n = i32::try_from(n).unwrap();
        let namespace = fresh.namespace(validate_name("collection", collection).unwrap());
        fresh.store.ensure(&namespace, &[Index::on("it's \"mine\"", &["a.it's"]).unique()]).await.unwrap();
        assert_eq!(fresh.insert(&namespace, doc! { "_id": n, "a": { "it's": 1 } }).await, Outcome::Applied);
        assert_eq!(
            fresh.insert(&namespace, doc! { "_id": n + 100, "a": { "it's": 1 } }).await,
            conflict("it's \"mine\"")
        );
    }
    for (n, collection) in collections.into_iter().enumerate() {
        let found = fresh.scan(&fresh.namespace(collection), Scan::default()).await;
        assert_eq!(ids(&found), [Bson::Int32(i32::try_from(n).unwrap())]);
    }
    for database in ["名前", "a-b_c"] {
        let namespace = Namespace::new(format!("{database}-{}", ObjectId::new()), "things");
        assert_eq!(fresh.insert(&namespace, doc! { "_id": 1 }).await, Outcome::Applied);
        assert_eq!(fresh.count(&namespace).await, 1);
    }
}

/// One `_id` in each of them.
pub async fn collections_and_databases_do_not_mix(store: Arc<dyn DocumentStore>) {
    let (one, two) = (Fresh::new(store.clone()), Fresh::new(store));
    let places = [one.namespace("a"), one.namespace("b"), two.namespace("a")];
    for (n, namespace) in (0..).zip(&places) {
        assert_eq!(one.insert(namespace, doc! { "_id": 1, "n": n }).await, Outcome::Applied);
    }
    for (n, namespace) in (0..).zip(&places) {
        assert_eq!(one.get(namespace, 1).await, Some(doc! { "_id": 1, "n": n }));
        assert_eq!(one.count(namespace).await, 1);
    }
}

/// By `get` and by `scan`, hundreds of times.
pub async fn what_was_written_is_read_at_once(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("things");
    for n in 0..200 {
        assert_eq!(fresh.put(&namespace, doc! { "_id": "x", "n": n }, Guard::Any).await, Outcome::Applied);
        let document = Some(doc! { "_id": "x", "n": n });
        assert_eq!(fresh.get(&namespace, "x").await, document);
        assert_eq!(fresh.scan(&namespace, Scan::default()).await.pop(), document);
    }
}

/// 32 tasks write 50 documents each.
pub async fn many_writers_lose_nothing(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("things");
    fresh.store.ensure(&namespace, &[Index::on("by_n", &["n"]).unique()]).await.unwrap();
    let writers = (0..32).map(|writer| {
        let (fresh, namespace) = (fresh.clone(), namespace.clone());
        tokio::spawn(async move {
            for n in 0..50 {
                let n = writer * 50 + n;
                assert_eq!(
                    fresh.insert(&namespace, doc! { "_id": format!("id-{n}"), "n": n }).await,
                    Outcome::Applied
                );
            }
        })
    });
    join_all(writers).await.into_iter().for_each(|joined| joined.unwrap());
    let order = vec![("n".to_owned(), crate::documents::Direction::Ascending)];
    let found: Vec<Document> = fresh.scan(&namespace, Scan { order, ..Scan::default() }).await;
    let numbers: Vec<i32> = found.iter().map(|document| document.get_i32("n").unwrap()).collect();
    assert_eq!(numbers, (0..1600).collect::<Vec<_>>());
}

/// Deeper ones could exhaust the stack of their readers.
pub async fn a_document_nested_beyond_two_hundred_levels_is_refused(store: Arc<dyn DocumentStore>) {
    let fresh = Fresh::new(store);
    let namespace = fresh.namespace("deep");
    let nested = |levels: usize| {
        let mut document = rawdoc! { "x": 1 };
        for level in 1..levels {
            document = if level + 1 == levels {
                rawdoc! { "_id": i64::try_from(levels).unwrap(), "n": document }
            } else {
                rawdoc! { "n": document }
            };
        }
        document
    };
    let write = |levels| {
        let mut batch = Batch::new();
        batch.push(&namespace, Write::insert(nested(levels)));
        fresh.store.apply(batch)
    };
    assert_eq!(write(100).await.unwrap(), [Outcome::Applied]);
    assert!(fresh.get(&namespace, 100_i64).await.is_some());
    for levels in [201, 4_000] {
        let error = write(levels).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Validation, "{error}");
        assert!(error.message().contains("200 levels"), "{error}");
    }
}

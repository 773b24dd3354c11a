//! Counting instead of listing.

use chronos_db::{Collection, ErrorKind, List, json};
use futures::TryStreamExt as _;
use test_support::{Counting, documents, objects};

use super::pairing::{Pairing, TIMEOUT, on_every_pairing, refused};

on_every_pairing!(
    a_count_is_the_length_of_the_list_now_and_then,
    a_count_costs_the_same_for_one_item_and_a_hundred,
);

async fn is_length(list: List) -> u64 {
    let items: Vec<_> = list.clone().stream().await.unwrap().try_collect().await.unwrap();
    let counted = list.count().await.unwrap();
    assert_eq!(counted, items.len() as u64);
    counted
}

async fn a_count_is_the_length_of_the_list_now_and_then(p: &Pairing) {
    let store = p.open();
    let users = store.users();
    let mut ids = Vec::new();
    for n in 0..7 {
        ids.push(
            users.create(json!({"n": n, "plan": if n % 2 == 0 { "team" } else { "free" }})).await.unwrap().id,
        );
    }
    let then = users.delete(&ids[0]).await.unwrap();
    users.update(&ids[1], json!({"plan": "team"})).await.unwrap();
    assert_eq!(is_length(users.list()).await, 6);
    assert_eq!(is_length(users.list().include_deleted()).await, 7);
    assert_eq!(is_length(users.list().filter(json!({"plan": "team"}))).await, 4);
    assert_eq!(is_length(users.list().filter(json!({"plan": "team"})).as_of_cv(then.cv)).await, 3);
    assert_eq!(is_length(users.list().filter(json!({"plan": "team"})).as_of_cv(6)).await, 4);
    // What has no room in the index is looked for in the documents.
    users.create(json!({"plan": "team", "text": "x".repeat(70_000)})).await.unwrap();
    assert_eq!(is_length(users.list().filter(json!({"text": {"$exists": true}}))).await, 1);
    assert_eq!(users.list().limit(2).count().await.unwrap(), 7, "a page does not bound it");
    assert_eq!(
        refused(users.list().filter(json!({"a": {"$where": 1}})).count().await),
        ErrorKind::Validation
    );
    assert_eq!(is_length(store.collection("none").list()).await, 0);
}

/// Counted at the seams.
async fn a_count_costs_the_same_for_one_item_and_a_hundred(p: &Pairing) {
    let (calls, reads) = (Counting::<documents::Call>::new(), Counting::<objects::Call>::new());
    let users: Collection = p.opening().without_cache().documents(&calls).objects(&reads).open().users();
    let mut seen = Vec::new();
    for size in [1, 100] {
        let there = users.list().count().await.unwrap();
        for n in there..size {
            users.create(json!({ "n": n })).await.unwrap();
        }
        // Nothing else is under way.
        assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
        calls.take();
        assert_eq!(users.list().filter(json!({"n": {"$gte": 0}})).count().await.unwrap(), size);
        seen.push((
            calls.count(documents::Call::Count),
            calls.count(documents::Call::Scan),
            reads.count(objects::Call::Get),
        ));
    }
    assert_eq!(seen, [(1, 0, 0), (1, 0, 0)], "nothing but the number travels");
}

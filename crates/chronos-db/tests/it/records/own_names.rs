//! Properties that documents and the library call alike: the document's win.

use std::sync::Arc;

use bson::doc;
use chronos_db::documents::Direction::{Ascending, Descending};
use chronos_db::documents::{Batch, Guard, Write};
use chronos_db::json;
use chronos_db::{Collection, ErrorKind, Json, List, Route};
use parking_lot::Mutex;

use super::pairing::{Pairing, column, namespace, on_every_pairing, refused};

on_every_pairing!(
    a_documents_own_property_wins_over_a_built_in_one_of_that_name,
    where_no_document_has_it_a_short_name_is_the_built_in_one_and_says_so,
    the_full_names_always_mean_the_built_in_properties,
    in_a_collection_that_is_older_than_the_notes_the_documents_tell,
    what_one_tenant_calls_its_properties_is_nothing_to_another,
);

async fn titles(list: List) -> Vec<Json> {
    column(&list.await.unwrap().items, "title")
}

/// A list with what it said of short names.
fn hearing(list: List) -> (List, Arc<Mutex<Vec<String>>>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hear = Arc::clone(&heard);
    (list.on_built_in(move |short, full| hear.lock().push(format!("{short} {full}"))), heard)
}

async fn posts(posts: &Collection) {
    for (title, created, cv, id) in
        [("first", "2014-02-03T00:00:00Z", 0, "a-1"), ("second", "2024-02-03T00:00:00Z", 9, "a-2")]
    {
        posts.create(json!({"title": title, "createdAt": created, "cv": cv, "id": id, "ov": "x", "updatedAt": null})).await.unwrap();
    }
}

async fn a_documents_own_property_wins_over_a_built_in_one_of_that_name(p: &Pairing) {
    let store = p.open();
    let all = store.collection("posts");
    posts(&all).await;
    let (list, heard) = hearing(
        all.list().filter(json!({"createdAt": {"$lt": "2015-01-01T00:00:00Z"}})).sort("cv", Descending),
    );
    assert_eq!(titles(list).await, [json!("first")]);
    assert_eq!(*heard.lock(), Vec::<String>::new());
    assert_eq!(
        titles(all.list().filter(json!({"createdAt": {"$gt": "2026-01-01T00:00:00Z"}}))).await,
        Vec::<Json>::new()
    );
    assert_eq!(titles(all.list().sort("cv", Descending)).await, [json!("second"), json!("first")]);
    assert_eq!(titles(all.list().filter(json!({"id": "a-2"}))).await, [json!("second")]);
    assert_eq!(titles(all.list().filter(json!({"cv": 1}))).await, Vec::<Json>::new());
    assert_eq!(
        titles(all.list().filter(json!({"$or": [{"ov": 0}, {"updatedAt": {"$ne": null}}]}))).await,
        Vec::<Json>::new()
    );
    let stable = all.stable_cv().await.unwrap();
    assert_eq!(titles(all.list().as_of_cv(stable).filter(json!({"cv": 9}))).await, [json!("second")]);
    assert_eq!(
        titles(all.list().as_of_cv(stable).filter(json!({"createdAt": "2014-02-03T00:00:00Z"}))).await,
        [json!("first")]
    );
}

async fn where_no_document_has_it_a_short_name_is_the_built_in_one_and_says_so(p: &Pairing) {
    let users = p.open().users();
    let first = users.create(json!({"title": 1, "below": {"cv": 7}})).await.unwrap();
    users.create(json!({"title": 2})).await.unwrap();
    let (list, heard) = hearing(users.list().filter(json!({"cv": {"$gte": 1}})).sort("createdAt", Ascending));
    assert_eq!(titles(list).await, [json!(2)]);
    let mut said = heard.lock().clone();
    said.sort();
    assert_eq!(said, ["createdAt _system.insertedAt", "cv _system.cv"]);
    assert_eq!(titles(users.list().filter(json!({"id": first.id.to_string()}))).await, [json!(1)]);
    // From here on it is the documents' own.
    users.update(&first.id, json!({"cv": "mine"})).await.unwrap();
    assert_eq!(titles(users.list().filter(json!({"cv": {"$gte": 1}}))).await, Vec::<Json>::new());
    assert_eq!(titles(users.list().filter(json!({"cv": "mine"}))).await, [json!(1)]);
}

async fn the_full_names_always_mean_the_built_in_properties(p: &Pairing) {
    let all = p.open().collection("posts");
    posts(&all).await;
    let id = all.list().sort("_system.cv", Ascending).await.unwrap().items[0].id.to_string();
    assert_eq!(titles(all.list().filter(json!({"_id": id}))).await, [json!("first")]);
    assert_eq!(titles(all.list().filter(json!({"_system.cv": 1}))).await, [json!("second")]);
    assert_eq!(
        titles(all.list().sort("_system.insertedAt", Descending)).await,
        [json!("second"), json!("first")]
    );
    assert_eq!(
        titles(all.list().filter(json!({"_system.updatedAt": {"$lt": "2014-01-01"}}))).await,
        Vec::<Json>::new()
    );
    assert_eq!(
        refused(all.list().filter(json!({"_system.insertedAt": "yesterday"})).await),
        ErrorKind::Validation
    );
}

async fn in_a_collection_that_is_older_than_the_notes_the_documents_tell(p: &Pairing) {
    let store = p.open();
    let all = store.collection("posts");
    posts(&all).await;
    // As an earlier version has left it.
    let mut batch = Batch::new();
    for note in store.stored(&all, "counter").await {
        let id = note.get_str("_id").unwrap().to_owned();
        if id.starts_with("own") {
            batch.push(&namespace(&all, "counter"), Write::Delete { id: id.into(), guard: Guard::Any });
        }
    }
    assert!(batch.operations.len() > 5);
    store.documents().apply(batch).await.unwrap();
    assert_eq!(titles(all.list().filter(json!({"cv": 9}))).await, [json!("second")]);
    let plain = store.collection("plain");
    plain.create(json!({"title": 1})).await.unwrap();
    let mut batch = Batch::new();
    batch.push(&namespace(&plain, "counter"), Write::Delete { id: "own".into(), guard: Guard::Any });
    store.documents().apply(batch).await.unwrap();
    assert_eq!(titles(plain.list().filter(json!({"cv": 0}))).await, [json!(1)]);
    assert_eq!(
        store.stored(&plain, "counter").await.iter().filter(|d| **d == doc! { "_id": "own" }).count(),
        0
    );
}

async fn what_one_tenant_calls_its_properties_is_nothing_to_another(p: &Pairing) {
    let store = p.open();
    let of = |tenant: &str| store.with(Route::logs().tenant(tenant).collection("audit"));
    let (acme, globex, all) =
        (of("acme"), of("globex"), store.with(Route::logs().cross_tenant().collection("audit")));
    acme.create(json!({"title": "own", "ov": 7})).await.unwrap();
    globex.create(json!({"title": "built in"})).await.unwrap();
    assert_eq!(titles(acme.list().filter(json!({"ov": 0}))).await, Vec::<Json>::new());
    assert_eq!(titles(acme.list().filter(json!({"ov": 7}))).await, [json!("own")]);
    assert_eq!(titles(globex.list().filter(json!({"ov": 0}))).await, [json!("built in")]);
    assert_eq!(titles(all.list().filter(json!({"ov": 7}))).await, [json!("own")]);
}

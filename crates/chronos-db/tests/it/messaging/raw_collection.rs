//! Plain access by documents and filters.

use chronos_db::messaging::{Kind, RawCollection};
use chronos_db::{Json as Value, json};
use futures::future::join_all;

use super::{Ground, everywhere};

everywhere!(
    a_value_is_upserted_and_found,
    parallel_upserts_of_one_key_leave_one_document,
    another_tenant_is_refused_and_its_own_is_forced,
    an_insert_of_a_key_that_is_there_is_refused,
    documents_of_the_handle_and_of_the_calls_are_the_same,
    documents_are_found_and_deleted_by_filters,
    an_upsert_changes_no_other_key,
);

fn of(ground: &Ground, collection: &str) -> RawCollection {
    ground.shared().messaging("tenant-a").unwrap().collection(collection).unwrap()
}

fn value(key: &str, val: Value) -> Value {
    json!({ "key": key, "namespace": "app", "tenantId": "tenant-a", "val": val })
}

async fn a_value_is_upserted_and_found(ground: Ground) {
    let shared = of(&ground, "shared_memory");
    assert_eq!(shared.kind(), Kind::SharedMemory);
    let filter = json!({ "key": "user-config", "namespace": "app", "tenantId": "tenant-a" });
    let mut document = value("user-config", json!({ "theme": "dark" }));
    document["_system"] = json!({ "createdAt": "2026-01-01T00:00:00Z", "updatedAt": {"$date": "2026-01-02T00:00:00Z"}, "retentionDays": 2 });
    shared.upsert(filter.clone(), document).await.unwrap();
    let found = shared.find_one(filter.clone()).await.unwrap().unwrap();
    assert_eq!((&found["val"], &found["tenantId"]), (&json!({ "theme": "dark" }), &json!("tenant-a")));
    assert_eq!(found["_system"]["expiresAt"], json!({"$date": "2026-01-04T00:00:00.000Z"}));
    assert_eq!(found["createdAt"], json!({"$date": "2026-01-01T00:00:00.000Z"}));
    // What was found can be put back.
    let mut again = found.clone();
    again["val"] = json!({ "theme": "light" });
    shared.upsert(filter.clone(), again).await.unwrap();
    // And what makes it unique may stand in the filter alone.
    shared.upsert(filter.clone(), json!({ "val": { "theme": "red" } })).await.unwrap();
    shared.upsert(json!({ "key": "second", "namespace": "app" }), json!({ "val": 2 })).await.unwrap();
    let found = shared.find(json!({ "namespace": "app" })).await.unwrap();
    assert_eq!(found.len(), 2);
    let first = shared.find_one(filter).await.unwrap().unwrap();
    assert_eq!(
        (&first["val"], &first["_system"]["createdAt"]),
        (&json!({ "theme": "red" }), &json!({"$date": "2026-01-01T00:00:00.000Z"}))
    );
}

async fn parallel_upserts_of_one_key_leave_one_document(ground: Ground) {
    let shared = of(&ground, "shared_memory");
    let upserts =
        (0..12).map(|n| shared.upsert(json!({ "key": "k", "namespace": "app" }), value("k", json!(n))));
    for upserted in join_all(upserts.map(|upsert| tokio::spawn(upsert.into_future()))).await {
        upserted.unwrap().unwrap();
    }
    assert_eq!(shared.find(json!({})).await.unwrap().len(), 1);
}

async fn another_tenant_is_refused_and_its_own_is_forced(ground: Ground) {
    let chronos = ground.shared();
    let of = |tenant: &str| chronos.messaging(tenant).unwrap().collection("topics").unwrap();
    let (a, b) = (of("tenant-a"), of("tenant-b"));
    a.insert(json!({ "topic": "payments", "shards": 2 })).await.unwrap();
    let theirs = json!({ "topic": "payments", "tenantId": "tenant-a" });
    assert_eq!(b.insert(theirs.clone()).await.unwrap_err().code(), "VALIDATION_ERROR");
    assert_eq!(b.upsert(theirs.clone(), json!({})).await.unwrap_err().code(), "VALIDATION_ERROR");
    assert_eq!(b.find_one(theirs.clone()).await.unwrap_err().code(), "VALIDATION_ERROR");
    assert_eq!(b.find(json!({ "tenantId": { "$ne": "x" } })).await.unwrap_err().code(), "VALIDATION_ERROR");
    assert_eq!(b.delete_many(theirs.clone()).await.unwrap_err().code(), "VALIDATION_ERROR");
    let sneaky = json!({ "$or": [{ "tenantId": "tenant-a" }, { "tenantId": "tenant-b" }] });
    assert_eq!(b.find(sneaky.clone()).await.unwrap(), Vec::<Value>::new());
    assert_eq!(b.delete_many(sneaky).await.unwrap(), 0);
    assert!(!b.delete_one(json!({ "topic": "payments" })).await.unwrap());
    assert_eq!(a.find_one(json!({})).await.unwrap().unwrap()["tenantId"], "tenant-a");
}

async fn an_insert_of_a_key_that_is_there_is_refused(ground: Ground) {
    let messages = of(&ground, "messages");
    let message = json!({ "topic": "t", "msgId": "1", "payload": 1, "headers": {"a": "b"} });
    messages.insert(message.clone()).await.unwrap();
    let refused = messages.insert(message).await.unwrap_err();
    assert_eq!((refused.code(), refused.collection()), ("OPTIMISTIC_LOCK", Some("messages")));
    for wrong in [
        json!({ "topic": "t" }),
        json!({ "topic": "t", "msgId": "2", "firstSeenAt": "yesterday" }),
        json!([]),
    ] {
        assert_eq!(messages.insert(wrong).await.unwrap_err().code(), "VALIDATION_ERROR");
    }
    // Versions are numbered.
    let shared = of(&ground, "shared_memory");
    for n in 0..2 {
        let mut version = value("k", json!(n));
        version["strategy"] = json!("append");
        shared.insert(version).await.unwrap();
    }
    assert_eq!(shared.find_one(json!({ "val": 1 })).await.unwrap().unwrap()["version"], 1);
}

async fn documents_of_the_handle_and_of_the_calls_are_the_same(ground: Ground) {
    let messaging = ground.shared().messaging("tenant-a").unwrap();
    let shared = messaging.collection("shared_memory").unwrap();
    messaging.shared().save("app", "k", json!(1)).await.unwrap();
    shared.upsert(json!({ "key": "k", "namespace": "app" }), json!({ "val": {"a.b": 1} })).await.unwrap();
    assert_eq!(messaging.shared().load("app", "k").await.unwrap().unwrap().value, json!({"a.b": 1}));
    assert_eq!(shared.find_one(json!({ "key": "k" })).await.unwrap().unwrap()["val"], json!({"a.b": 1}));
    let tombstone = json!({ "val": null, "_system": { "tombstone": true, "deletedAt": "2026-01-01" } });
    shared.upsert(json!({ "key": "k", "namespace": "app" }), tombstone).await.unwrap();
    assert_eq!(messaging.shared().load("app", "k").await.unwrap(), None);
    let letters = messaging.collection("dead_letters").unwrap();
    letters
        .insert(json!({ "topic": "t", "msgId": "1", "reason": "r", "payload": 1, "deliveries": 3 }))
        .await
        .unwrap();
    assert!(!messaging.dead_letters().save("t", "1", json!(2)).await.unwrap());
    assert_eq!(messaging.dead_letters().list("t").await.unwrap().items[0].deliveries, 3);
}

async fn documents_are_found_and_deleted_by_filters(ground: Ground) {
    let messages = of(&ground, "messages");
    for n in 0..6 {
        let seen = format!("2026-01-0{}T00:00:00Z", n + 1);
        messages
            .insert(
                json!({ "topic": "t", "msgId": n.to_string(), "payload": { "n": n }, "firstSeenAt": seen }),
            )
            .await
            .unwrap();
    }
    let later = json!({ "firstSeenAt": { "$gte": "2026-01-03T00:00:00Z" }, "payload.n": { "$lt": 5 }, "namespace": "default" });
    assert_eq!(messages.find(later.clone()).await.unwrap().len(), 3);
    assert_eq!(messages.find(later.clone()).limit(2).await.unwrap().len(), 2);
    assert!(messages.delete_one(later.clone()).await.unwrap());
    assert_eq!(messages.delete_many(later.clone()).await.unwrap(), 2);
    assert!(!messages.delete_one(later).await.unwrap());
    assert_eq!(messages.find(json!({})).await.unwrap().len(), 3);
    assert_eq!(messages.find(json!({ "$where": "1" })).await.unwrap_err().code(), "VALIDATION_ERROR");
}

async fn an_upsert_changes_no_other_key(ground: Ground) {
    let shared = of(&ground, "shared_memory");
    shared.insert(value("k", json!(1))).await.unwrap();
    let other_key = shared.upsert(json!({ "key": "k" }), value("other", json!(2))).await.unwrap_err();
    assert_eq!(other_key.code(), "VALIDATION_ERROR");
    let not_found = shared.upsert(json!({ "key": "k", "val": 7 }), value("k", json!(2))).await.unwrap_err();
    assert_eq!(not_found.code(), "OPTIMISTIC_LOCK");
    assert_eq!(shared.find(json!({ "val": 1 })).await.unwrap().len(), 1);
}

//! Documents that other programs wrote: flat, with an `_id` of the server, without a namespace, with
//! duplicates.

use bson::oid::ObjectId;
use bson::{Bson, Document, doc};
use chronos_db::documents::Index;
use chronos_db::messaging::DeliveryStatus;
use chronos_db::{Timestamp, json};
use futures::TryStreamExt as _;

use super::{Ground, everywhere};

everywhere!(
    documents_of_the_legacy_library_are_read_and_go_on,
    lists_mix_documents_of_both_kinds_in_order,
    duplicates_of_the_legacy_library_do_not_stand_in_the_way,
    the_legacy_librarys_own_index_is_named_when_it_refuses_a_namespace,
);

pub(super) fn at(millis: i64) -> Bson {
    Timestamp::from_millis(1_700_000_000_000 + millis).into()
}

pub(super) fn version(key: &str, version: i32, val: i32) -> Document {
    doc! {
        "_id": ObjectId::new(), "tenantId": "tenant-a", "namespace": "n", "key": key, "val": val, "strategy": "append", "version": version,
        "createdAt": at(version.into()), "updatedAt": at(version.into()),
    }
}

pub(super) fn message(id: &str, seen: i64) -> Document {
    doc! {
        "_id": ObjectId::new(), "tenantId": "tenant-a", "topic": "t", "msgId": id, "headers": { "h": "1" }, "payload": { "old": true },
        "firstSeenAt": at(seen), "size": 12,
    }
}

pub(super) fn letter(id: &str) -> Document {
    doc! {
        "_id": ObjectId::new(), "tenantId": "tenant-a", "topic": "t", "msgId": id, "subscription": "s", "payload": 1, "deliveries": 5,
        "failedAt": at(1), "reason": "old",
    }
}

async fn documents_of_the_legacy_library_are_read_and_go_on(ground: Ground) {
    let chronos = ground.shared();
    let write = |collection: &'static str, documents| ground.write(&chronos, "all", collection, documents);
    write("shared_memory", vec![version("k", 0, 10), version("k", 1, 11)]).await;
    let flat = doc! { "_id": ObjectId::new(), "tenantId": "tenant-a", "namespace": "n", "key": "latest", "val": 1, "_system": { "updatedAt": at(0) } };
    write("shared_memory", vec![flat]).await;
    let topic = doc! { "_id": ObjectId::new(), "tenantId": "tenant-a", "topic": "t", "shards": 4, "createdAt": at(0) };
    write("topics", vec![topic]).await;
    write("messages", vec![message("1", 0)]).await;
    let delivery = doc! {
        "_id": ObjectId::new(), "tenantId": "tenant-a", "topic": "t", "subscription": "s", "msgId": "1", "attempt": 1, "status": "pending", "ts": at(0),
    };
    write("deliveries", vec![delivery]).await;
    write("dead_letters", vec![letter("1")]).await;

    let messaging = chronos.messaging("tenant-a").unwrap();
    let shared = messaging.shared();
    assert_eq!(shared.load("n", "k").await.unwrap().unwrap().value, json!(11));
    assert_eq!(shared.save("n", "k", json!(12)).append().await.unwrap().version, Some(2));
    assert_eq!(shared.load("n", "latest").await.unwrap().unwrap().value, json!(1));
    shared.save("n", "latest", json!(2)).await.unwrap();
    assert_eq!(shared.load("n", "latest").await.unwrap().unwrap().value, json!(2));
    let stored = messaging.topics().get("t").await.unwrap().unwrap();
    assert_eq!((stored.shards, stored.namespace.as_str()), (4, "default"));
    assert_eq!(messaging.topics().ensure("t").shards(8).await.unwrap().created_at, stored.created_at);
    assert!(!messaging.messages().save("t", "1", json!("new")).await.unwrap());
    assert_eq!(messaging.messages().get("t", "1").await.unwrap().unwrap().payload, json!({"old": true}));
    let deliveries = messaging.deliveries().unwrap();
    assert_eq!(
        deliveries.append("t", "s", "1", 1, DeliveryStatus::Ack).await.unwrap().status,
        DeliveryStatus::Ack
    );
    assert!(!messaging.dead_letters().save("t", "1", json!(2)).subscription("s").await.unwrap());
    assert_eq!(messaging.dead_letters().list("t").await.unwrap().items[0].reason.as_deref(), Some("old"));
    // Each is still one document.
    for (collection, count) in
        [("shared_memory", 4), ("topics", 1), ("messages", 1), ("deliveries", 1), ("dead_letters", 1)]
    {
        assert_eq!(ground.read(&chronos, "all", collection).await.len(), count, "{collection}");
    }
    let topics = messaging.collection("topics").unwrap();
    assert!(topics.find_one(json!({ "namespace": "default" })).await.unwrap().is_some());
    assert!(messaging.topics().delete("t").await.unwrap());
}

async fn lists_mix_documents_of_both_kinds_in_order(ground: Ground) {
    let chronos = ground.shared();
    ground
        .write(&chronos, "all", "messages", (0..6).map(|n| message(&format!("old-{n}"), n * 2)).collect())
        .await;
    let messages = chronos.messaging("tenant-a").unwrap().messages();
    for n in 0..6 {
        messages
            .save("t", format!("new-{n}"), json!(n))
            .first_seen_at(Timestamp::from_millis(1_700_000_000_000 + n * 2 + 1))
            .await
            .unwrap();
    }
    let all = messages.list("t").limit(5).oldest_first().stream().unwrap();
    let ids: Vec<_> = all.map_ok(|message| message.msg_id).try_collect().await.unwrap();
    let expected: Vec<_> = (0..6).flat_map(|n| [format!("old-{n}"), format!("new-{n}")]).collect();
    assert_eq!(ids, expected);
}

async fn duplicates_of_the_legacy_library_do_not_stand_in_the_way(ground: Ground) {
    let chronos = ground.shared();
    ground
        .write(
            &chronos,
            "all",
            "shared_memory",
            vec![version("k", 0, 1), version("k", 0, 2), version("k", 1, 3)],
        )
        .await;
    ground.write(&chronos, "all", "dead_letters", vec![letter("1"), letter("1")]).await;
    let messaging = chronos.messaging("tenant-a").unwrap();
    assert_eq!(messaging.shared().load("n", "k").await.unwrap().unwrap().value, json!(3));
    assert_eq!(messaging.shared().save("n", "k", json!(4)).append().await.unwrap().version, Some(2));
    assert!(!messaging.dead_letters().save("t", "1", json!(2)).subscription("s").await.unwrap());
    assert_eq!(messaging.dead_letters().kept("t", ["1", "2"]).subscription("s").await.unwrap().len(), 1);
    assert!(messaging.dead_letters().delete("t", "1").subscription("s").await.unwrap());
    assert_eq!(ground.read(&chronos, "all", "dead_letters").await.len(), 0);
}

async fn the_legacy_librarys_own_index_is_named_when_it_refuses_a_namespace(ground: Ground) {
    let chronos = ground.shared();
    let index = Index::on("messages_unique", &["tenantId", "topic", "msgId"]).unique();
    chronos.documents("here").unwrap().ensure(&ground.namespace("all", "messages"), &[index]).await.unwrap();
    let messages = chronos.messaging("tenant-a").unwrap().messages();
    assert!(messages.save("t", "1", json!(1)).await.unwrap());
    assert!(!messages.save("t", "1", json!(1)).await.unwrap());
    let refused = messages.save("t", "1", json!(1)).namespace("other").await.unwrap_err();
    assert!(refused.message().contains("messages_unique"), "{refused}");
}

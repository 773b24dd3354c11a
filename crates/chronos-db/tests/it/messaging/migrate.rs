//! Moving between layouts, and bringing the legacy library's documents into today's shape.

use std::future::IntoFuture as _;

use bson::doc;
use chronos_db::messaging::DeliveryStatus;
use chronos_db::{Chronos, json};

use super::legacy::{letter, message, version};
use super::{Ground, everywhere};

everywhere!(
    one_database_becomes_one_for_each_tenant,
    databases_of_the_tenants_become_one,
    documents_of_the_legacy_library_get_todays_shape_in_place,
    what_is_newer_in_the_target_stays,
    what_cannot_be_moved_is_reported_and_stays,
    migrations_at_the_same_time_come_to_the_same,
    a_database_under_another_name_is_no_other_one,
);

async fn fill(chronos: &Chronos) {
    for tenant in ["tenant-a", "tenant-b"] {
        let messaging = chronos.messaging(tenant).unwrap();
        messaging.shared().save("n", "k", json!(tenant)).await.unwrap();
        messaging.shared().save("n", "log", json!(0)).append().await.unwrap();
        messaging.shared().save("n", "log", json!(1)).append().await.unwrap();
        messaging.topics().ensure("t").shards(3).await.unwrap();
        messaging.messages().save("t", "1", json!(tenant)).await.unwrap();
        messaging.deliveries().unwrap().append("t", "s", "1", 1, DeliveryStatus::Ack).await.unwrap();
        messaging.dead_letters().save("t", "1", json!(tenant)).await.unwrap();
    }
}

async fn assert_filled(chronos: &Chronos) {
    for tenant in ["tenant-a", "tenant-b"] {
        let messaging = chronos.messaging(tenant).unwrap();
        assert_eq!(messaging.shared().load("n", "k").await.unwrap().unwrap().value, json!(tenant));
        assert_eq!(messaging.shared().load("n", "log").version(1).await.unwrap().unwrap().value, json!(1));
        assert_eq!(messaging.topics().get("t").await.unwrap().unwrap().shards, 3);
        assert_eq!(messaging.messages().get("t", "1").await.unwrap().unwrap().payload, json!(tenant));
        assert_eq!(messaging.deliveries().unwrap().list_by_message("t", "1").await.unwrap().len(), 1);
        assert_eq!(messaging.dead_letters().list("t").await.unwrap().items.len(), 1);
    }
}

async fn moves_completely(from: &Chronos, to: &Chronos) {
    fill(from).await;
    let would = to.migrate_messaging().from(from).dry_run().await.unwrap();
    assert_eq!((would.read, would.copied, would.problems), (14, 14, 0), "{would:?}");
    let again = to.migrate_messaging().from(from).dry_run().await.unwrap();
    assert_eq!(would, again);
    assert_eq!(to.migrate_messaging().from(from).await.unwrap(), would);
    assert_filled(to).await;
    assert_filled(from).await;
    let done = to.migrate_messaging().from(from).await.unwrap();
    assert_eq!((done.read, done.unchanged), (14, 14), "{done:?}");
    // Both kinds of writers go on with the same documents.
    assert_eq!(
        to.messaging("tenant-a").unwrap().shared().save("n", "log", json!(2)).append().await.unwrap().version,
        Some(2)
    );
}

async fn one_database_becomes_one_for_each_tenant(ground: Ground) {
    let (from, to) = (ground.shared(), ground.per_tenant());
    moves_completely(&from, &to).await;
    let own = ground.read(&to, "tenant-a", "messages").await;
    assert_eq!(own.len(), 1);
}

async fn databases_of_the_tenants_become_one(ground: Ground) {
    let (from, to) = (ground.per_tenant(), ground.shared());
    moves_completely(&from, &to).await;
    assert_eq!(ground.read(&to, "all", "messages").await.len(), 2);
}

async fn documents_of_the_legacy_library_get_todays_shape_in_place(ground: Ground) {
    let chronos = ground.shared();
    ground.write(&chronos, "all", "shared_memory", vec![version("k", 0, 1)]).await;
    ground.write(&chronos, "all", "messages", vec![message("1", 0)]).await;
    let would = chronos.migrate_messaging().dry_run().await.unwrap();
    assert_eq!((would.read, would.updated, would.copied), (2, 2, 0), "{would:?}");
    assert!(ground.read(&chronos, "all", "messages").await[0].get("namespace").is_none());
    assert_eq!(chronos.migrate_messaging().await.unwrap().to_json(), would.to_json());
    let stored = ground.read(&chronos, "all", "messages").await.remove(0);
    assert_eq!(stored.get_str("namespace").unwrap(), "default");
    assert!(stored.get_object_id("_id").is_ok());
    let system = stored.get_document("_system").unwrap();
    assert_eq!(system.get_datetime("createdAt").unwrap(), stored.get_datetime("firstSeenAt").unwrap());
    let done = chronos.migrate_messaging().await.unwrap();
    assert_eq!((done.updated, done.unchanged), (0, 2), "{done:?}");
    assert!(!chronos.messaging("tenant-a").unwrap().messages().save("t", "1", json!(2)).await.unwrap());
}

async fn what_is_newer_in_the_target_stays(ground: Ground) {
    let (from, to) = (ground.shared(), ground.per_tenant());
    let of = |chronos: &Chronos| chronos.messaging("tenant-a").unwrap().shared();
    of(&from).save("n", "k", json!("old")).await.unwrap();
    of(&to).save("n", "k", json!("new")).await.unwrap();
    let done = to.migrate_messaging().from(&from).await.unwrap();
    assert_eq!((done.unchanged, done.updated), (1, 0));
    assert_eq!(of(&to).load("n", "k").await.unwrap().unwrap().value, json!("new"));
    of(&from).save("n", "k", json!("newest")).await.unwrap();
    let done = to.migrate_messaging().from(&from).await.unwrap();
    assert_eq!((done.unchanged, done.updated), (0, 1));
    assert_eq!(of(&to).load("n", "k").await.unwrap().unwrap().value, json!("newest"));
}

async fn what_cannot_be_moved_is_reported_and_stays(ground: Ground) {
    let (from, to) = (ground.shared(), ground.per_tenant());
    let nobody = doc! { "_id": 1, "topic": "t", "shards": 1 };
    let broken = doc! { "_id": 2, "tenantId": "tenant-a", "shards": 1 };
    ground.write(&from, "all", "topics", vec![nobody, broken]).await;
    ground.write(&from, "all", "dead_letters", vec![letter("1"), letter("1")]).await;
    let mut other = letter("2");
    other.insert("reason", "first");
    ground.write(&from, "all", "dead_letters", vec![other]).await;
    to.messaging("tenant-a")
        .unwrap()
        .dead_letters()
        .save("t", "2", json!("there"))
        .subscription("s")
        .await
        .unwrap();
    let done = to.migrate_messaging().from(&from).await.unwrap();
    assert_eq!((done.read, done.problems, done.copied), (5, 3, 1), "{done:?}");
    assert_eq!((done.details.len(), done.unchanged), (3, 1));
    assert!(done.details.iter().any(|what| what.contains("names no tenant")), "{done:?}");
    assert_eq!(ground.read(&from, "all", "dead_letters").await.len(), 3);
}

/// M15.
async fn migrations_at_the_same_time_come_to_the_same(ground: Ground) {
    let chronos = ground.shared();
    ground.write(&chronos, "all", "messages", (0..200).map(|n| message(&n.to_string(), n)).collect()).await;
    let runs = (0..4).map(|_| chronos.migrate_messaging().into_future());
    let done = futures::future::try_join_all(runs).await.unwrap();
    for run in &done {
        assert_eq!((run.read, run.problems), (200, 0), "{run:?}");
    }
    assert_eq!(done.iter().map(|run| run.updated).sum::<u64>(), 200, "each was brought into its shape once");
}

/// M15.
async fn a_database_under_another_name_is_no_other_one(ground: Ground) {
    let alias = match ground.uri.strip_prefix("embedded:") {
        Some(":memory:") => return,
        Some(path) => format!("embedded:{path}/chronos.db"),
        None => ground.uri.replace("127.0.0.1", "localhost"),
    };
    let to = ground.shared();
    ground.write(&to, "all", "messages", (0..5).map(|n| message(&n.to_string(), n)).collect()).await;
    let from = Ground { uri: alias, prefix: ground.prefix.clone(), _folder: None }.shared();
    let done = to.migrate_messaging().from(&from).await.unwrap();
    assert_eq!((done.read, done.updated, done.problems), (5, 5, 0), "{done:?}");
    from.shutdown().await.unwrap();
}

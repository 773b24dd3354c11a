//! The producer and its warm copies (P1 to P4).

use std::collections::BTreeMap;

use chronos_db::config::{Config, Database};
use chronos_db::{Chronos, Json as Value, json};
use chronow::{Ack, ErrorKind, PublishMessage};

use crate::tiers::{World, on_every_hot_tier, take, until};

on_every_hot_tier! {
    a_batch_is_published_whole_or_not_at_all,
    a_batch_has_one_warm_copy_a_message_under_its_id,
    what_cannot_be_encoded_is_refused_with_a_reason,
}

/// The messaging database behind a world.
fn warm(world: &World) -> Chronos {
    let (uri, database) = match (&world.config["embedded"], &world.config["mongoUri"]) {
        (Value::String(folder), _) => (format!("embedded:{folder}"), "chronow"),
        (_, Value::String(uri)) => (uri.clone(), "chronos_messaging_default"),
        _ => unreachable!("every world has a warm tier"),
    };
    let config = Config::builder().connection("warm", uri).database(Database::messaging("warm", database));
    Chronos::open(config.build().unwrap()).unwrap()
}

/// P1, P2: an oversize message, or no room for all, and nothing of the batch is there, hot or warm.
async fn a_batch_is_published_whole_or_not_at_all(world: World) {
    let topic = world.topic("kept");
    topic.ensure().warm(true).max_len(10).await.unwrap();
    let subscription = crate::tiers::calm(&topic, "s").await;
    let large = "x".repeat(17 * 1024 * 1024);
    let batch = [PublishMessage::json(&1), PublishMessage::json(&2), PublishMessage::json(&large)];
    assert_eq!(topic.publish_batch(batch).await.unwrap_err().kind(), ErrorKind::Validation);
    let batch = (0..11).map(|n| PublishMessage::json(&n).dedup_id(n.to_string()));
    assert_eq!(topic.publish_batch(batch).await.unwrap_err().kind(), ErrorKind::Full);
    assert_eq!(subscription.stats().await.unwrap().backlog, 0);
    let batch = (0..5).map(|n| PublishMessage::json(&json!({ "n": n })).dedup_id(n.to_string()));
    let published = topic.publish_batch(batch).await.unwrap();
    assert!(published.iter().all(|one| !one.duplicate), "a refused batch leaves no trace");
    assert_eq!(take(&subscription, 5).await.len(), 5);
    let messages = warm(&world).messaging(world.tenant()).unwrap().messages();
    until("the copies are made", || async { messages.list("kept").await.unwrap().items.len() >= 5 }).await;
    assert_eq!(messages.list("kept").await.unwrap().items.len(), 5);
}

/// P1: warm copies carry the ids of their messages, also when a publish waits for them, and a repeated
/// publish makes none.
async fn a_batch_has_one_warm_copy_a_message_under_its_id(world: World) {
    let topic = world.topic("kept");
    topic.ensure().await.unwrap();
    let batch = || (0..6).map(|n| PublishMessage::json(&json!({ "n": n })).dedup_id(format!("d{n}")));
    let first = topic.publish_batch(batch()).ack(Ack::Warm).await.unwrap();
    let again = topic.publish_batch(batch()).ack(Ack::Warm).await.unwrap();
    assert!(again.iter().all(|one| one.duplicate));
    let messages = warm(&world).messaging(world.tenant()).unwrap().messages();
    for (n, published) in first.iter().enumerate() {
        let copy = messages.get("kept", published.id.as_str()).await.unwrap().unwrap();
        assert_eq!(copy.payload, json!({ "n": n }));
    }
    assert_eq!(messages.list("kept").await.unwrap().items.len(), 6);
}

/// P4: what is not JSON is refused before anything is sent; headers are texts by their type.
async fn what_cannot_be_encoded_is_refused_with_a_reason(world: World) {
    let (topic, subscription) = world.ready().await;
    let error = topic.publish(&BTreeMap::from([((1, 2), 3)])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Validation);
    assert!(
        error.to_string().contains("the payload cannot be made JSON") && !error.to_string().contains('\n'),
        "{error}"
    );
    assert_eq!(
        world.chronow.shared().set("k", &BTreeMap::from([((1, 2), 3)])).await.unwrap_err().kind(),
        ErrorKind::Validation
    );
    let mixed = [PublishMessage::json(&1), PublishMessage::json(&BTreeMap::from([((1, 2), 3)]))];
    assert_eq!(topic.publish_batch(mixed).await.unwrap_err().kind(), ErrorKind::Validation);
    assert_eq!(subscription.stats().await.unwrap().backlog, 0);
}

#[cfg(feature = "redis")]
mod redis_only {
    use std::future::IntoFuture as _;

    use test_support::{Proxy, servers};

    use super::*;
    use crate::tiers::{calm, connect, number, on_redis, within};

    on_redis! {
        an_outage_of_the_warm_tier_fails_no_publish,
    }

    /// P3: while the warm tier cannot be reached messages are published and delivered; their copies are made
    /// when it is back.
    async fn an_outage_of_the_warm_tier_fails_no_publish(mut world: World) {
        let proxy = Proxy::in_front_of(&servers::mongo_standalone_uri()).await;
        let direct = world.config["mongoUri"].take();
        let uri = format!(
            "{}?directConnection=true&serverSelectionTimeoutMS=1000&connectTimeoutMS=1000",
            proxy.uri()
        );
        world.config["mongoUri"] = uri.into();
        assert!(direct.is_string());
        let chronow = connect(&world.config).await;
        let topic = chronow.bus().topic("kept").unwrap();
        topic.ensure().warm(true).await.unwrap();
        let subscription = calm(&topic, "s").await;
        proxy.cut();
        for n in 0..10 {
            within(topic.publish(&json!({ "n": n })).into_future()).await.unwrap();
        }
        let messages = take(&subscription, 10).await;
        assert_eq!(
            messages.iter().map(|message| number(message)).collect::<Vec<_>>(),
            (0..10).collect::<Vec<_>>()
        );
        subscription.ack_all(messages).await.unwrap();
        assert_eq!(topic.stats().await.unwrap().length, 10, "they are kept for their copies");
        proxy.restore();
        let copies = warm(&world).messaging(world.tenant()).unwrap().messages();
        until("the copies are made", || async {
            copies.list("kept").await.is_ok_and(|page| page.items.len() == 10)
        })
        .await;
        until("nothing is held any more", || async { topic.stats().await.unwrap().length == 0 }).await;
    }
}

//! What "accepted" means: in the hot tier, on its replicas, in the warm tier first.

use std::time::Duration;

use chronos_db::messaging::NewMessage;
use chronos_db::{Json as Value, json};
use chronow::{Ack, Chronow, Config, ErrorKind, PublishMessage, Redis, Subscription, Topic};
use futures::TryStreamExt as _;

use crate::stores::{Stores, on_every_store};
use crate::tiers::until;

on_every_store! {
    a_publish_into_the_warm_tier_first_leaves_a_copy_and_nothing_else,
    what_a_publisher_left_in_the_warm_tier_is_put_into_the_hot_one_once,
    what_is_put_back_is_as_it_was_published,
    a_refused_publish_is_kept_nowhere,
    a_deleted_topic_gets_nothing_back,
}

async fn topic(chronow: &Chronow) -> (Topic, Subscription) {
    let topic = chronow.bus().topic("orders").unwrap();
    topic.ensure().await.unwrap();
    let subscription = topic.subscription("s").unwrap();
    subscription.ensure().await.unwrap();
    (topic, subscription)
}

/// What is about to be published.
async fn intended(stores: &Stores) -> usize {
    stores.chronos.messaging("default").unwrap().messages().list("orders#pending").await.unwrap().items.len()
}

/// What a publisher leaves that dies before it publishes.
async fn leave(stores: &Stores, id: &str, payload: Value, headers: Value) {
    let messages = stores.chronos.messaging("default").unwrap().messages();
    let message = NewMessage::new("orders#pending", id, payload).headers(headers);
    assert_eq!(messages.save_many(vec![message]).await.unwrap(), [true]);
}

async fn a_publish_into_the_warm_tier_first_leaves_a_copy_and_nothing_else(stores: Stores) {
    let chronow = stores.connect().await;
    let (topic, subscription) = topic(&chronow).await;
    let messages = (0..3).map(|n| PublishMessage::json(&json!({ "n": n })).header("type", "x"));
    let published = topic.publish_batch(messages).ack(Ack::Warm).await.unwrap();
    let copies = stores.chronos.messaging("default").unwrap().messages();
    for (n, published) in published.iter().enumerate() {
        let copy = copies.get("orders", published.id.as_str()).await.unwrap().unwrap();
        assert_eq!((copy.payload, copy.headers), (json!({ "n": n }), Some(json!({"type": "x"}))));
    }
    assert_eq!(copies.list("orders").await.unwrap().items.len(), 3);
    assert_eq!(intended(&stores).await, 0);
    let received = subscription.receive::<Value>(10).await.unwrap();
    assert_eq!(received.len(), 3);
    assert_eq!(received[0].headers().len(), 1, "a handler sees nothing of it");
    let again = topic.publish(&json!({"n": 1})).dedup_id("twice").ack(Ack::Warm).await.unwrap();
    let twin = topic.publish(&json!({"n": 1})).dedup_id("twice").ack(Ack::Warm).await.unwrap();
    assert!(twin.duplicate && twin.id == again.id);
    assert_eq!((chronow.metrics().published, chronow.metrics().duplicates), (4, 1));
}

async fn what_a_publisher_left_in_the_warm_tier_is_put_into_the_hot_one_once(stores: Stores) {
    let first = stores.connect().await;
    let (there, _) = topic(&first).await;
    // One died after the hot tier had accepted it, the other one before.
    let accepted = there.publish(&json!({"n": 1})).dedup_id("after").await.unwrap();
    leave(&stores, "after", json!({"n": 1}), json!({})).await;
    leave(&stores, "before", json!({"n": 2}), json!({})).await;
    first.close().await.unwrap();

    let next = stores.connect().await;
    let (topic, subscription) = topic(&next).await;
    until("both are put back", || async { intended(&stores).await == 0 }).await;
    let received = subscription.receive::<Value>(10).await.unwrap();
    assert_eq!(
        received.iter().map(|message| message.payload["n"].clone()).collect::<Vec<_>>(),
        [json!(1), json!(2)],
        "each once"
    );
    let copies = stores.chronos.messaging("default").unwrap().messages();
    assert_eq!(
        copies.get("orders", accepted.id.as_str()).await.unwrap().unwrap().payload,
        json!({"n": 1}),
        "under the id it got"
    );
    assert_eq!(copies.list("orders").await.unwrap().items.len(), 2);
    assert_eq!(topic.stats().await.unwrap().length, 2);
}

async fn what_is_put_back_is_as_it_was_published(stores: Stores) {
    let chronow = stores.connect().await;
    let (_, subscription) = topic(&chronow).await;
    let far = chronow.hot().now().await.unwrap().plus_millis(3_600_000).as_millis().to_string();
    leave(&stores, "later", json!({"n": 1}), json!({"cw-due": far, "cw-key": "k"})).await;
    leave(&stores, "short", json!({"n": 2}), json!({"cw-ttl": "1", "cw-key": "j"})).await;
    leave(
        &stores,
        "plain",
        json!("//8="),
        json!({"cw-encoding": "base64", "cw-content-type": "x/y", "type": "a"}),
    )
    .await;
    chronow.close().await.unwrap();
    let chronow = stores.connect().await;
    let subscription =
        chronow.bus().topic("orders").unwrap().subscription(subscription.name().name()).unwrap();
    // A consumer opens the topic, too. On a slow machine it may get something already.
    let mut received = subscription.receive_bytes(10).await.unwrap();
    until("all are put back", || async { intended(&stores).await == 0 }).await;
    let back = chronow.hot().now().await.unwrap();
    until("the short one is too old", || async {
        chronow.hot().now().await.unwrap().as_millis() > back.as_millis() + 1
    })
    .await;
    received.extend(subscription.receive_bytes(10).await.unwrap());
    assert_eq!(received.len(), 1);
    assert_eq!(
        (received[0].payload.as_ref(), received[0].content_type(), received[0].header("type")),
        (&b"\xff\xff"[..], "x/y", Some("a"))
    );
    let stats = subscription.stats().await.unwrap();
    assert_eq!((stats.scheduled, stats.dead_letters), (1, 1));
    let dead: Vec<_> = subscription.dead_letters().stream().try_collect().await.unwrap();
    assert_eq!((dead[0].reason.as_str(), dead[0].message.key.as_deref()), ("expired", Some("j")));
}

async fn a_refused_publish_is_kept_nowhere(stores: Stores) {
    let chronow = stores.connect().await;
    let (topic, _) = topic(&chronow).await;
    topic.ensure().max_len(1).await.unwrap();
    let full = topic.publish_batch([PublishMessage::json(&1), PublishMessage::json(&2)]).ack(Ack::Warm).await;
    assert_eq!(full.unwrap_err().kind(), ErrorKind::Full);
    let absent = chronow.bus().topic("absent").unwrap().publish(&1).ack(Ack::Warm).await;
    assert_eq!(absent.unwrap_err().kind(), ErrorKind::NotFound);
    let kept = stores.chronos.messaging("default").unwrap().messages();
    for name in ["orders", "orders#pending", "absent", "absent#pending"] {
        assert!(kept.list(name).await.unwrap().items.is_empty(), "{name}");
    }
}

async fn a_deleted_topic_gets_nothing_back(stores: Stores) {
    let chronow = stores.connect().await;
    let (there, _) = topic(&chronow).await;
    leave(&stores, "x", json!(1), json!({})).await;
    there.delete().await.unwrap();
    assert_eq!(intended(&stores).await, 0);
}

#[tokio::test]
async fn what_documents_acknowledge_is_replicated_already() {
    let stores = Stores::embedded();
    let (topic, subscription) = topic(&stores.connect().await).await;
    topic.publish(&1).ack(Ack::Replicated { replicas: 5, within: Duration::from_millis(1) }).await.unwrap();
    assert_eq!(subscription.stats().await.unwrap().backlog, 1);
}

#[cfg(feature = "redis")]
mod replicas {
    use test_support::{Proxy, RedisServer, servers};

    use super::*;
    use crate::stores::warm;

    const ONE: Ack = Ack::Replicated { replicas: 1, within: Duration::from_secs(60) };
    const QUICKLY: Ack = Ack::Replicated { replicas: 1, within: Duration::from_millis(50) };

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_publish_waits_for_a_replica_and_says_so_when_there_is_none() {
        let master = RedisServer::start(&[]).await;
        let stores = Stores::on_redis(&master.url(), warm(|builder| builder));
        let chronow = stores.connect().await;
        let (topic, subscription) = topic(&chronow).await;
        let error = topic.publish(&1).dedup_id("once").ack(QUICKLY).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::NotReplicated, "NOT_REPLICATED"));
        assert!(error.message().contains("0 of 1"), "{error}");
        assert_eq!(subscription.stats().await.unwrap().backlog, 1, "it is accepted all the same");

        let replica = RedisServer::start(&[
            "--replicaof",
            "127.0.0.1",
            &master.port().to_string(),
            "--repl-diskless-sync-delay",
            "0",
        ])
        .await;
        until("the replica follows", || async {
            replica.run(&["INFO", "replication"]).await.contains("master_link_status:up")
        })
        .await;
        // Many at once, and one that was accepted before.
        let publishes =
            (0..20).map(|n| std::future::IntoFuture::into_future(topic.publish(&json!({ "n": n })).ack(ONE)));
        let published = futures::future::try_join_all(publishes).await.unwrap();
        assert_eq!(published.len(), 20);
        assert!(topic.publish(&1).dedup_id("once").ack(ONE).await.unwrap().duplicate);
        assert_eq!(subscription.stats().await.unwrap().backlog, 21);
        drop(replica);
        until("the master has noticed", || async {
            master.run(&["INFO", "replication"]).await.contains("connected_slaves:0")
        })
        .await;
        assert_eq!(topic.publish(&2).ack(QUICKLY).await.unwrap_err().kind(), ErrorKind::NotReplicated);
        chronow.close().await.unwrap();
        assert_eq!(topic.publish(&2).ack(ONE).await.unwrap_err().kind(), ErrorKind::Closed);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn in_a_cluster_the_replicas_of_the_right_node_confirm() {
        let prefix = format!("acks-{}:", bson::oid::ObjectId::new());
        let redis = Redis::cluster(servers::redis_cluster_nodes()).key_prefix(prefix);
        let config = Config::builder().redis(redis).build().unwrap();
        let chronow = Chronow::connect(config, None).await.unwrap();
        for name in ["a", "b", "c", "d", "e", "f"] {
            let topic = chronow.bus().topic(name).unwrap();
            topic.ensure().shards(3).await.unwrap();
            let subscription = topic.subscription("s").unwrap();
            subscription.ensure().await.unwrap();
            topic
                .publish_batch((0..9).map(|n| PublishMessage::json(&n).key(n.to_string())))
                .ack(ONE)
                .await
                .unwrap();
            assert_eq!(subscription.stats().await.unwrap().backlog, 9);
        }
        let many = Ack::Replicated { replicas: 9, within: Duration::from_millis(50) };
        assert_eq!(
            chronow.bus().topic("a").unwrap().publish(&1).ack(many).await.unwrap_err().kind(),
            ErrorKind::NotReplicated
        );
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_the_hot_tier_did_not_take_is_put_into_it_when_it_is_back() {
        let proxy = Proxy::in_front_of(&servers::redis_url()).await;
        let stores = Stores::on_redis(&proxy.uri(), warm(|builder| builder));
        let chronow = stores.connect().await;
        let (topic, subscription) = topic(&chronow).await;
        topic.publish(&json!({"n": 0})).ack(Ack::Warm).await.unwrap();
        // Between the warm tier and the hot one: the time is still asked for, then nothing gets through.
        leave(&stores, "left", json!({"n": 1}), json!({})).await;
        proxy.cut();
        let failed = topic.publish(&json!({"n": 2})).ack(Ack::Warm).await.unwrap_err();
        assert!(failed.is_retryable(), "{failed}");
        proxy.restore();
        until("the connection is back", || async { chronow.ping().await.is_ok() }).await;
        drop(chronow);
        let next = stores.connect().await;
        let again = next.bus().topic("orders").unwrap();
        again.ensure().await.unwrap();
        until("it is put back", || async { intended(&stores).await == 0 }).await;
        assert_eq!(subscription.name().name(), "s");
        let backlog = again.subscription("s").unwrap().stats().await.unwrap().backlog;
        assert!((2..=3).contains(&backlog), "{backlog}");
    }
}

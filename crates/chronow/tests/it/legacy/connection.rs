//! Connections and keys (R1 to R7).

use std::time::{Duration, Instant};

use chronos_db::{Json as Value, json};
use chronow::{ErrorKind, Subscription};
use futures::StreamExt as _;

use crate::tiers::{World, calm, number, on_every_hot_tier, publish, take, within};

on_every_hot_tier! {
    idle_consumers_hold_up_nobody_else,
    names_that_could_collide_are_refused_or_kept_apart,
}

async fn open(subscription: &Subscription) -> chronow::Consumer<Value> {
    subscription.consume::<Value>().await.unwrap()
}

/// R2: blocking reads have connections of their own, so many idle consumers delay neither reads nor the
/// settlements of others.
async fn idle_consumers_hold_up_nobody_else(world: World) {
    let (topic, busy) = world.ready().await;
    let quiet = world.topic("quiet");
    quiet.ensure().await.unwrap();
    let mut idle = Vec::new();
    for n in 0..8 {
        let mut messages = open(&calm(&quiet, &format!("s{n}")).await).await;
        idle.push(tokio::spawn(async move { messages.next().await.map(drop) }));
    }
    world.chronow.shared().set("k", &1).await.unwrap();
    let begun = Instant::now();
    for _ in 0..20 {
        assert_eq!(world.chronow.shared().get::<i32>("k").await.unwrap(), Some(1));
    }
    publish(&topic, 0..5).await;
    for message in take(&busy, 5).await {
        message.ack().await.unwrap();
    }
    // As long as some blocking reads of the original took, and there were more to wait for.
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert!(idle.iter().all(|consumer| !consumer.is_finished()));
    within(world.chronow.close()).await.unwrap();
    for consumer in idle {
        within(consumer).await.unwrap();
    }
}

/// R7: what delimits keys is refused in names, and names that meet at other signs stay apart.
async fn names_that_could_collide_are_refused_or_kept_apart(world: World) {
    let bus = world.chronow.bus();
    for bad in ["a:b", "a{b}", "a#1", ""] {
        assert_eq!(bus.topic(bad).unwrap_err().kind(), ErrorKind::Validation, "{bad}");
        assert_eq!(bus.tenant(bad).unwrap_err().kind(), ErrorKind::Validation, "{bad}");
        assert_eq!(bus.namespace(bad).unwrap_err().kind(), ErrorKind::Validation, "{bad}");
        assert_eq!(
            bus.topic("t").unwrap().subscription(bad).unwrap_err().kind(),
            ErrorKind::Validation,
            "{bad}"
        );
    }
    let mut subscriptions = Vec::new();
    for (n, (topic, subscription)) in
        [("a.b", "c"), ("a", "b.c"), ("a-b", "c"), ("a", "b-c")].into_iter().enumerate()
    {
        let topic = bus.namespace(if n < 2 { "x.y" } else { "x" }).unwrap().topic(topic).unwrap();
        topic.ensure().await.unwrap();
        let subscription = calm(&topic, subscription).await;
        topic.publish(&json!({ "n": n })).await.unwrap();
        // A retry of the original lay under a key that another subscription could have, too.
        take(&subscription, 1).await.remove(0).nack().await.unwrap();
        subscriptions.push(subscription);
    }
    for (n, subscription) in subscriptions.iter().enumerate() {
        let again = take(subscription, 1).await.remove(0);
        assert_eq!((number(&again), again.deliveries()), (n, 2));
        again.ack().await.unwrap();
        assert!(subscription.receive::<Value>(5).await.unwrap().is_empty());
    }
}

#[cfg(feature = "redis")]
mod redis_only {
    use chronow::hot::Select;
    use chronow::{Chronow, Config};
    use test_support::{Proxy, RedisServer, servers};
    use tokio::net::TcpListener;

    use super::*;
    use crate::tiers::{TIMEOUT, connect, on_redis, settled, until};

    on_redis! {
        everything_about_a_topic_works_in_any_deployment,
    }

    /// R1: with a key prefix everything lies under that prefix, once, and can be consumed.
    #[tokio::test]
    async fn a_key_prefix_is_applied_once_and_everywhere() {
        let server = RedisServer::start(&[]).await;
        let settings = [("REDIS_URL", server.url()), ("REDIS_KEY_PREFIX", "mine:".to_owned())];
        let read =
            |name: &str| settings.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
        let configs = [
            (Config::from_env(read).unwrap(), "mine:"),
            (Config::from_json(&json!({ "redis": { "url": server.url() } })).unwrap(), "cw:"),
        ];
        for (config, prefix) in configs {
            let chronow = Chronow::connect(config, None).await.unwrap();
            let topic = chronow.bus().topic("t").unwrap();
            topic.ensure().await.unwrap();
            let subscription = calm(&topic, "s").await;
            publish(&topic, [7]).await;
            let mut messages = open(&subscription).await;
            let message = within(messages.next()).await.unwrap().unwrap();
            assert_eq!(number(&message), 7);
            message.dead_letter("bad").await.unwrap();
            chronow.shared().set("k", &1).await.unwrap();
            let keys = server.run(&["KEYS", "*"]).await;
            assert!(keys.lines().count() > 3, "{keys}");
            assert!(
                keys.lines().all(|key| key.starts_with(prefix) && key.matches(prefix).count() == 1),
                "{keys}"
            );
            messages.close().await.unwrap();
            chronow.close().await.unwrap();
            server.run(&["FLUSHALL"]).await;
        }
    }

    /// R3: after a failed start nobody goes on connecting.
    #[tokio::test]
    async fn a_failed_start_leaves_nothing_behind_that_reconnects() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let config = json!({ "redis": { "url": format!("redis://{}", listener.local_addr().unwrap()) } });
        let connecting =
            tokio::spawn(async move { Chronow::connect(Config::from_json(&config).unwrap(), None).await });
        while !connecting.is_finished() {
            // Hangs up on every caller.
            drop(tokio::time::timeout(Duration::from_millis(50), listener.accept()).await);
        }
        let error = connecting.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::HotTier, "{error}");
        let silence = async {
            while let Ok(Ok(_)) = tokio::time::timeout(Duration::from_millis(20), listener.accept()).await {}
        };
        within(silence).await;
        assert!(
            tokio::time::timeout(Duration::from_millis(1_500), listener.accept()).await.is_err(),
            "a connection is still tried"
        );
    }

    /// R4: a consumer and its connection outlive broken connections; what fails meanwhile says whether it may
    /// have taken place.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_consumer_outlives_broken_connections() {
        let proxy = Proxy::in_front_of(&servers::redis_url()).await;
        let tenant = servers::unique_name("tenant");
        let chronow =
            connect(&json!({ "redis": { "url": proxy.uri() }, "defaults": { "tenantId": tenant } })).await;
        let topic = chronow.bus().topic("t").unwrap();
        topic.ensure().await.unwrap();
        let subscription = calm(&topic, "s").await;
        let runner = subscription.run(|_: chronow::Message<Value>| async {}).start().await.unwrap();
        let mut messages = open(&calm(&topic, "stream").await).await;
        for n in 0..3 {
            proxy.drop_connections();
            let begun = Instant::now();
            loop {
                match topic.publish(&json!({ "n": n })).dedup_id(n.to_string()).await {
                    Ok(_) => break,
                    Err(error) => {
                        assert!(error.is_retryable() && error.kind() == ErrorKind::HotTier, "{error}");
                        assert!(begun.elapsed() < TIMEOUT, "{error}");
                    }
                }
            }
            let next = async {
                loop {
                    match messages.next().await.expect("a stream goes on after an error") {
                        Ok(message) => break message,
                        Err(error) => assert!(error.is_retryable(), "{error}"),
                    }
                }
            };
            let message = within(next).await;
            assert_eq!(number(&message), n);
            message.ack().await.unwrap();
            // By the store's count, because a runner whose answer was lost does not know. And before the next
            // break: the answer of a pull would be lost with it, and what that had locked for minutes.
            until("the runner handled it, too", || async {
                subscription.stats().await.unwrap().acked == n as u64 + 1
            })
            .await;
        }
        runner.stop().await.unwrap();
    }

    /// R5: `tls: false` is off, whatever the URL says; a database means nothing to a cluster and is refused
    /// there. Sentinel has a test of its own.
    #[tokio::test]
    async fn tls_can_be_turned_off_and_a_cluster_has_no_databases() {
        let url = servers::redis_url().replacen("redis://", "rediss://", 1);
        let chronow = connect(&json!({ "redis": { "url": url, "tls": false } })).await;
        chronow.ping().await.unwrap();
        let config = json!({ "redis": { "clusterNodes": servers::redis_cluster_nodes(), "db": 3 } });
        let error = Chronow::connect(Config::from_json(&config).unwrap(), None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Validation, "{error}");
    }

    /// R6: every step about a topic works in a cluster, also over several shards.
    async fn everything_about_a_topic_works_in_any_deployment(world: World) {
        for shards in [1, 3] {
            let topic = world.topic(&format!("sharded-{shards}"));
            topic.ensure().shards(shards).await.unwrap();
            let subscription = calm(&topic, "s").await;
            publish(&topic, 0..12).await;
            let far = topic.publish(&json!({ "n": 99 })).delay(Duration::from_secs(600)).await.unwrap();
            assert!(topic.cancel(&far.id).await.unwrap());
            for message in take(&subscription, 12).await {
                match number(&message) % 4 {
                    0 => message.ack().await.unwrap(),
                    1 => message.nack().await.unwrap(),
                    2 => message.dead_letter("bad").await.unwrap(),
                    _ => message.defer().await.unwrap(),
                }
            }
            let stats = subscription.stats().await.unwrap();
            assert_eq!((stats.acked, stats.dead_letters, stats.deferred), (3, 3, 3));
            let deferred: Vec<String> = subscription
                .peek(20)
                .await
                .unwrap()
                .into_iter()
                .filter(|peeked| peeked.until.is_none())
                .map(|peeked| peeked.message.id)
                .collect();
            let fetched = subscription.fetch_deferred::<Value>(deferred).await.unwrap();
            assert_eq!(fetched.len(), 3);
            subscription.ack_all(fetched).await.unwrap();
            let redriven = world.chronow.hot().redrive(subscription.name(), &Select::All).await.unwrap();
            assert_eq!(redriven, 3);
            let rest = take(&subscription, 6).await;
            subscription.ack_all(rest).await.unwrap();
            settled(&subscription).await;
            assert!(topic.delete().await.unwrap());
        }
    }
}

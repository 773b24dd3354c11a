//! Several processes that make, change and remove the same topics and subscriptions at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chronow::ErrorKind;
use chronow::hot::redis::{RedisConfig, RedisHot};
use chronow::hot::{DeliverPolicy, MessageStore, Settle, SubscriptionPatch, TopicPatch};
use chronow::{Scope, SubscriptionName, TopicName};
use test_support::{Proxy, RedisServer, servers};

use super::{World, message};
use crate::tiers::TIMEOUT;

const SHARDS: u16 = 64;

fn sharded(shards: u16) -> TopicPatch {
    TopicPatch::default().shards(shards)
}

/// What comes until nothing comes any more.
async fn everything(hot: &RedisHot, sub: &SubscriptionName) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    loop {
        let pulled = hot.pull(sub, 500).await.unwrap();
        if pulled.deliveries.is_empty() {
            return all;
        }
        let settle = pulled.deliveries.iter().map(|delivery| (delivery.lock.clone(), Settle::Ack)).collect();
        hot.settle_and_start(sub, chronow::hot::SettleAndStart { settle, start: Vec::new() }).await.unwrap();
        all.extend(
            pulled
                .deliveries
                .iter()
                .map(|delivery| String::from_utf8(delivery.message.payload.to_vec()).unwrap()),
        );
    }
}

async fn publish(hot: &RedisHot, topic: &TopicName, texts: impl Iterator<Item = String>) -> BTreeSet<String> {
    let texts: BTreeSet<String> = texts.collect();
    hot.publish(topic, texts.iter().map(|text| message(text)).collect()).await.unwrap();
    texts
}

/// A process with a slow line, and one with a fast one, to a server of their own.
struct Two {
    server: RedisServer,
    _proxy: Proxy,
    slow: Arc<RedisHot>,
    /// As the fast one, in a process of its own.
    other: Arc<RedisHot>,
    fast: RedisHot,
    topic: TopicName,
    sub: SubscriptionName,
}

impl Two {
    async fn new() -> Self {
        let server = RedisServer::start(&[]).await;
        let proxy = Proxy::in_front_of(&server.url()).await;
        let slow = Arc::new(RedisHot::connect(RedisConfig::single(proxy.uri())).await.unwrap());
        let [other, fast] = [(); 2].map(|()| RedisHot::connect(RedisConfig::single(server.url())));
        let (other, fast) = (Arc::new(other.await.unwrap()), fast.await.unwrap());
        proxy.delay(Duration::from_millis(3));
        let topic = TopicName::new(&Scope::new("t", "ns").unwrap(), "orders").unwrap();
        let sub = SubscriptionName::new(&topic, "s").unwrap();
        Self { server, _proxy: proxy, slow, other, fast, topic, sub }
    }

    /// Until the server has run so many scripts since.
    async fn scripts(&self, count: u64) {
        let ran = |info: &str| {
            let calls = |name: &str| {
                info.lines().find_map(|line| {
                    line.strip_prefix(name)?.strip_prefix(":calls=")?.split(',').next()?.parse::<u64>().ok()
                })
            };
            calls("cmdstat_evalsha").unwrap_or(0) + calls("cmdstat_eval").unwrap_or(0)
        };
        self.server
            .until("the slow one is at work", &["INFO", "commandstats"], |info| ran(info) >= count)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_maker_of_a_sharded_topic_removes_nothing_that_was_accepted_meanwhile() {
    for steps in [1, 12, 60] {
        let two = Two::new().await;
        two.server.run(&["CONFIG", "RESETSTAT"]).await;
        let (slow, topic) = (Arc::clone(&two.slow), two.topic.clone());
        let making = tokio::spawn(async move { slow.ensure_topic(&topic, &sharded(SHARDS)).await });
        two.scripts(steps).await;
        two.fast.ensure_topic(&two.topic, &sharded(SHARDS)).await.unwrap();
        two.fast.ensure_subscription(&two.sub, &SubscriptionPatch::default()).await.unwrap();
        let accepted = publish(&two.fast, &two.topic, (0..256).map(|n| n.to_string())).await;
        making.await.unwrap().unwrap();
        assert_eq!(everything(&two.fast, &two.sub).await, accepted, "with the other {steps} steps ahead");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_two_make_gets_everything_accepted_since_one_had_it() {
    for dies in [false, true] {
        let two = Two::new().await;
        two.fast.ensure_topic(&two.topic, &sharded(SHARDS)).await.unwrap();
        two.server.run(&["CONFIG", "RESETSTAT"]).await;
        let (slow, sub) = (Arc::clone(&two.slow), two.sub.clone());
        let making =
            tokio::spawn(async move { slow.ensure_subscription(&sub, &SubscriptionPatch::default()).await });
        two.scripts(3).await;
        if dies {
            making.abort();
        }
        two.fast.ensure_subscription(&two.sub, &SubscriptionPatch::default()).await.unwrap();
        let accepted = publish(&two.fast, &two.topic, (0..256).map(|n| n.to_string())).await;
        assert!(making.await.is_err() == dies);
        assert_eq!(
            everything(&two.fast, &two.sub).await,
            accepted,
            "one {}",
            if dies { "died over it" } else { "was slow" }
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_removal_leaves_alone_what_was_made_since() {
    for (of_topic, steps) in [2, 3, 5, 9, 17, 25, 33]
        .map(|steps| (true, steps))
        .into_iter()
        .chain([2, 3, 5, 9].map(|steps| (false, steps)))
    {
        let two = Two::new().await;
        two.fast.ensure_topic(&two.topic, &sharded(16)).await.unwrap();
        two.fast.ensure_subscription(&two.sub, &SubscriptionPatch::default()).await.unwrap();
        two.server.run(&["CONFIG", "RESETSTAT"]).await;
        let (slow, topic, sub) = (Arc::clone(&two.slow), two.topic.clone(), two.sub.clone());
        let removing = tokio::spawn(async move {
            if of_topic { slow.delete_topic(&topic).await } else { slow.delete_subscription(&sub).await }
        });
        two.scripts(steps).await;
        two.fast.delete_topic(&two.topic).await.unwrap();
        two.fast.ensure_topic(&two.topic, &sharded(16)).await.unwrap();
        two.fast.ensure_subscription(&two.sub, &SubscriptionPatch::default()).await.unwrap();
        let accepted = publish(&two.fast, &two.topic, (0..64).map(|n| n.to_string())).await;
        // The first call of a script comes to nothing, for the server does not know it: behind two it was
        // begun.
        assert!(removing.await.unwrap().unwrap());
        let name = format!("behind {steps} steps of a topic's removal: {of_topic}");
        assert_eq!(everything(&two.fast, &two.sub).await, accepted, "{name}");
        assert_eq!(two.fast.topics(two.topic.scope()).await.unwrap(), ["orders"], "{name}");
    }
}

/// Rounds of the random histories; 1,000 by hand.
fn rounds() -> usize {
    std::env::var("CHRONOW_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(3)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_accepted_for_a_subscription_comes_whatever_others_make_change_and_remove() {
    for round in 0..rounds() {
        let shards = [1, 2, 64][round % 3];
        let world = World::single().await;
        let topic = world.name("t");
        let sub = SubscriptionName::new(&topic, "kept").unwrap();
        world.hot.ensure_topic(&topic, &sharded(shards)).await.unwrap();
        let others: Vec<_> = (0..3_u64)
            .map(|who| {
                let (scope, topic) = (world.scope.clone(), topic.clone());
                tokio::spawn(async move {
                    let hot = RedisHot::connect(RedisConfig::single(servers::redis_url())).await.unwrap();
                    assert_eq!(&scope, topic.scope());
                    for turn in 0_u64.. {
                        let other = SubscriptionName::new(&topic, &format!("other{}", turn % 2)).unwrap();
                        let done = match (turn + who) % 4 {
                            0 => hot
                                .ensure_topic(
                                    &topic,
                                    &sharded(shards).ttl(Some(Duration::from_millis(3_600_000 + turn))),
                                )
                                .await
                                .map(drop),
                            1 => hot
                                .ensure_subscription(
                                    &other,
                                    &SubscriptionPatch::default().start(DeliverPolicy::Earliest),
                                )
                                .await
                                .map(drop),
                            2 => hot.delete_subscription(&other).await.map(drop),
                            _ => hot.pull(&other, 1).await.map(drop),
                        };
                        if let Err(error) = done {
                            assert!(error.is_retryable() || error.kind() == ErrorKind::NotFound, "{error}");
                        }
                    }
                })
            })
            .collect();
        world.hot.ensure_subscription(&sub, &SubscriptionPatch::default()).await.unwrap();
        let mut accepted = BTreeSet::new();
        for turn in 0..20 {
            accepted.extend(publish(&world.hot, &topic, (0..16).map(|n| format!("{turn}.{n}"))).await);
        }
        // As if killed, in the middle of whatever they are at.
        for other in others {
            other.abort();
            if let Err(error) = other.await {
                assert!(error.is_cancelled(), "{error}");
            }
        }
        let mut came = BTreeSet::new();
        let begun = std::time::Instant::now();
        while came.len() < accepted.len() && begun.elapsed() < TIMEOUT {
            came.extend(everything(&world.hot, &sub).await);
        }
        assert_eq!(came, accepted, "on {shards} shards");
        world.hot.delete_topic(&topic).await.unwrap();
        let client = ::redis::Client::open(servers::redis_url()).unwrap();
        let mut raw = client.get_multiplexed_async_connection().await.unwrap();
        let left: Vec<String> = ::redis::cmd("KEYS")
            .arg(format!("*{}*", world.scope.tenant()))
            .query_async(&mut raw)
            .await
            .unwrap();
        assert_eq!(left, Vec::<String>::new(), "on {shards} shards");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_removed_under_publishers_and_consumers_leaves_nothing() {
    const PUBLISHERS: usize = 4;
    for round in 0..20 {
        let two = Two::new().await;
        two.fast.ensure_topic(&two.topic, &sharded(16)).await.unwrap();
        two.fast.ensure_subscription(&two.sub, &SubscriptionPatch::default()).await.unwrap();
        // Some of them are slow, and know a topic that is gone.
        let publishers = (0..PUBLISHERS).map(|n| {
            let (hot, topic) =
                (if n % 2 == 0 { Arc::clone(&two.slow) } else { Arc::clone(&two.other) }, two.topic.clone());
            tokio::spawn(async move {
                loop {
                    let batch = (0..32).map(|n| message(&n.to_string())).collect();
                    if let Err(error) = hot.publish(&topic, batch).await {
                        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
                        return;
                    }
                }
            })
        });
        let publishers: Vec<_> = publishers.collect();
        let consumer = {
            let (hot, sub) = (Arc::clone(&two.slow), two.sub.clone());
            tokio::spawn(async move {
                while let Ok(pulled) = hot.pull(&sub, 50).await {
                    let settle =
                        pulled.deliveries.into_iter().map(|delivery| (delivery.lock, Settle::Ack)).collect();
                    if hot
                        .settle_and_start(&sub, chronow::hot::SettleAndStart { settle, start: Vec::new() })
                        .await
                        .is_err()
                    {
                        return;
                    }
                }
            })
        };
        two.scripts(100 + 37 * round).await;
        assert!(two.fast.delete_topic(&two.topic).await.unwrap());
        for publisher in publishers {
            publisher.await.unwrap();
        }
        consumer.await.unwrap();
        assert_eq!(two.server.run(&["KEYS", "*"]).await, "", "round {round}");
    }
}

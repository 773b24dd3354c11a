//! The hot tier on real Redis servers: single, and a cluster with topics of one and of several shards.

mod costs;
mod delivery;
mod failures;
mod moving;
mod room;
mod split;
mod together;
mod topics;
mod values;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chronow::hot::redis::{RedisConfig, RedisHot};
use chronow::hot::{
    Delivery, Lock, MessageStore, OutboundMessage, Settle, SettleAndStart, Settled, SubscriptionPatch,
    TopicPatch,
};
use chronow::{Scope, SubscriptionName, TopicName};
use test_support::servers;

use crate::tiers::TIMEOUT;

/// A test's own scope on one of the servers.
pub(crate) struct World {
    pub(crate) hot: RedisHot,
    pub(crate) scope: Scope,
    shards: u16,
}

impl World {
    pub(crate) async fn single() -> Self {
        Self::new(RedisConfig::single(servers::redis_url()), 1).await
    }

    pub(crate) async fn cluster(shards: u16) -> Self {
        Self::new(RedisConfig::cluster(servers::redis_cluster_nodes()), shards).await
    }

    pub(crate) async fn new(config: RedisConfig, shards: u16) -> Self {
        let hot = RedisHot::connect(config).await.unwrap();
        Self { hot, scope: Scope::new(&servers::unique_name("tenant"), "ns").unwrap(), shards }
    }

    pub(crate) fn name(&self, topic: &str) -> TopicName {
        TopicName::new(&self.scope, topic).unwrap()
    }

    pub(crate) async fn topic(&self, name: &str, patch: TopicPatch) -> TopicName {
        let topic = self.name(name);
        self.hot.ensure_topic(&topic, &patch.shards(self.shards)).await.unwrap();
        topic
    }

    pub(crate) async fn sub(
        &self,
        topic: &TopicName,
        name: &str,
        patch: SubscriptionPatch,
    ) -> SubscriptionName {
        let sub = SubscriptionName::new(topic, name).unwrap();
        self.hot.ensure_subscription(&sub, &patch).await.unwrap();
        sub
    }

    pub(crate) async fn publish(&self, topic: &TopicName, texts: &[&str]) -> Vec<String> {
        let messages = texts.iter().map(|text| message(text)).collect();
        self.hot.publish(topic, messages).await.unwrap().into_iter().map(|published| published.id).collect()
    }

    /// Pulls until `n` messages have come.
    pub(crate) async fn pull(&self, sub: &SubscriptionName, n: usize) -> Vec<Delivery> {
        let begin = Instant::now();
        let mut all = Vec::new();
        while all.len() < n {
            assert!(begin.elapsed() < TIMEOUT, "only {} of {n} messages came: {all:?}", all.len());
            let left = u32::try_from(n - all.len()).unwrap();
            let pulled = self.hot.pull(sub, left).await.unwrap();
            if pulled.deliveries.is_empty() {
                self.hot
                    .wait(
                        sub,
                        pulled.next_due.unwrap_or(Duration::from_millis(200)).min(Duration::from_millis(200)),
                    )
                    .await
                    .unwrap();
            }
            all.extend(pulled.deliveries);
        }
        all
    }

    /// Makes locks end soon. What is pulled from then on is held for long, as a busy machine needs it.
    pub(crate) async fn let_end(&self, sub: &SubscriptionName, held: &[Delivery]) {
        let visibility = |ms| SubscriptionPatch::default().visibility(Duration::from_millis(ms));
        self.hot.ensure_subscription(sub, &visibility(300)).await.unwrap();
        let locks = held.iter().map(|delivery| delivery.lock.clone()).collect();
        assert_eq!(self.hot.renew(sub, locks).await.unwrap(), vec![true; held.len()]);
        self.hot.ensure_subscription(sub, &visibility(120_000)).await.unwrap();
    }

    pub(crate) async fn nothing(&self, sub: &SubscriptionName) {
        assert_eq!(self.hot.pull(sub, 10).await.unwrap().deliveries, []);
    }

    /// A pull for many brings this one alone, which is then settled.
    pub(crate) async fn nothing_but(&self, sub: &SubscriptionName, text: &str) {
        let got = self.hot.pull(sub, 1_000).await.unwrap().deliveries;
        assert_eq!(texts(&got), [text]);
        assert_eq!(self.settle(sub, &got[0].lock, Settle::Ack).await, Settled::Done);
    }

    pub(crate) async fn start(&self, sub: &SubscriptionName, lock: &Lock) -> bool {
        self.hot
            .settle_and_start(sub, SettleAndStart { start: vec![lock.clone()], ..SettleAndStart::default() })
            .await
            .unwrap()
            .started[0]
    }

    pub(crate) async fn settle(&self, sub: &SubscriptionName, lock: &Lock, settle: Settle) -> Settled {
        self.hot
            .settle_and_start(
                sub,
                SettleAndStart { settle: vec![(lock.clone(), settle)], ..SettleAndStart::default() },
            )
            .await
            .unwrap()
            .settled[0]
    }
}

pub(crate) fn message(text: &str) -> OutboundMessage {
    OutboundMessage { payload: text.to_owned().into(), ..OutboundMessage::default() }
}

pub(crate) fn keyed(key: &str, text: &str) -> OutboundMessage {
    OutboundMessage { key: Some(key.to_owned()), ..message(text) }
}

pub(crate) fn with_header(name: &str, value: &str, text: &str) -> OutboundMessage {
    OutboundMessage { headers: BTreeMap::from([(name.to_owned(), value.to_owned())]), ..message(text) }
}

pub(crate) fn retry(reason: &str) -> Settle {
    Settle::Retry { delay: Some(Duration::ZERO), reason: reason.to_owned() }
}

pub(crate) fn texts(deliveries: &[Delivery]) -> Vec<String> {
    let mut texts: Vec<String> = deliveries
        .iter()
        .map(|delivery| String::from_utf8(delivery.message.payload.to_vec()).unwrap())
        .collect();
    texts.sort();
    texts
}

mod conformance {
    use std::sync::Arc;

    use chronow::hot::HotTier;
    use chronow::hot::redis::{RedisConfig, RedisHot};
    use test_support::servers;

    async fn connected(config: RedisConfig) -> Arc<dyn HotTier> {
        Arc::new(RedisHot::connect(config).await.unwrap())
    }

    chronow::hot_suite!(on_a_single_server, connected(RedisConfig::single(servers::redis_url())));
    chronow::hot_suite!(on_a_cluster, connected(RedisConfig::cluster(servers::redis_cluster_nodes())));
}

/// Runs each test on a single server and on a cluster, with topics of one and of three shards.
macro_rules! everywhere {
    ($($(#[$doc:meta])* async fn $name:ident($world:ident: World) $body:block)*) => {
        $(
            mod $name {
                use super::*;

                async fn test($world: World) $body

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn single() {
                    Box::pin(test(World::single().await)).await;
                }

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn cluster() {
                    Box::pin(test(World::cluster(1).await)).await;
                }

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn cluster_in_three_shards() {
                    Box::pin(test(World::cluster(3).await)).await;
                }
            }
        )*
    };
}
pub(crate) use everywhere;

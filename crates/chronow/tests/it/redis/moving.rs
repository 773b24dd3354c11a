//! A slot of a cluster that moves while messages are published and consumed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chronow::ErrorKind;
use chronow::hot::redis::{RedisConfig, RedisHot};
use chronow::hot::{HotTier, MessageStore, OutboundMessage, Settle, SettleAndStart, SubscriptionPatch};
use test_support::{RedisCluster, RedisServer};

use super::{World, keyed, message, retry};
use crate::tiers::TIMEOUT;

/// How long slots are moved back and forth; five minutes by hand.
fn how_long() -> Duration {
    let seconds =
        std::env::var("CHRONOW_MOVING_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(6);
    Duration::from_secs(seconds)
}

pub(super) struct Move<'a> {
    pub(super) from: &'a RedisServer,
    pub(super) to: &'a RedisServer,
    pub(super) slot: String,
}

impl<'a> Move<'a> {
    /// Of the slot of this key, from the node that has it at the start.
    pub(super) async fn of(nodes: &'a RedisCluster, key: &str) -> Self {
        let slot = nodes.master(0).run(&["CLUSTER", "KEYSLOT", key]).await;
        let owner = slot.parse::<usize>().unwrap() * 3 / 16_384;
        Self { from: nodes.master(owner), to: nodes.master((owner + 1) % 3), slot }
    }

    pub(super) async fn begin(&self) {
        let (from, to) = (self.from.run(&["CLUSTER", "MYID"]).await, self.to.run(&["CLUSTER", "MYID"]).await);
        assert_eq!(self.to.run(&["CLUSTER", "SETSLOT", &self.slot, "IMPORTING", &from]).await, "OK");
        assert_eq!(self.from.run(&["CLUSTER", "SETSLOT", &self.slot, "MIGRATING", &to]).await, "OK");
    }

    /// Key by key, with a pause behind each.
    async fn keys(&self, pause: Duration) {
        loop {
            let keys = self.from.run(&["CLUSTER", "GETKEYSINSLOT", &self.slot, "100"]).await;
            if keys.is_empty() {
                return;
            }
            for key in keys.lines() {
                self.key(key).await;
                tokio::time::sleep(pause).await;
            }
        }
    }

    pub(super) async fn key(&self, key: &str) {
        let moved =
            self.from.run(&["MIGRATE", "127.0.0.1", &self.to.port().to_string(), key, "0", "5000"]).await;
        assert!(moved == "OK" || moved == "NOKEY", "{moved}");
    }

    pub(super) async fn end(&self) {
        let to = self.to.run(&["CLUSTER", "MYID"]).await;
        for node in [self.to, self.from] {
            assert_eq!(node.run(&["CLUSTER", "SETSLOT", &self.slot, "NODE", &to]).await, "OK");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves_back_and_forth_under_publishers_and_consumers_loses_nothing() {
    let nodes = RedisCluster::start(3, 0, &[]).await;
    let world = World::new(RedisConfig::cluster(nodes.addresses()), 1).await;
    let topic = world.topic("t", Default::default()).await;
    let patch = SubscriptionPatch::default()
        .visibility(Duration::from_millis(2_000))
        .backoff([Duration::from_millis(20)])
        .max_deliveries(50);
    let sub = world.sub(&topic, "s", patch).await;
    let slot = nodes
        .master(0)
        .run(&["CLUSTER", "KEYSLOT", &format!("{{{}:ns:topic:t}}", world.scope.tenant())])
        .await;
    let owner = slot.parse::<usize>().unwrap() * 3 / 16_384;
    let over = Arc::new(AtomicBool::new(false));

    let consumers: Vec<_> = (0..2)
        .map(|_| {
            let (config, sub, over) =
                (RedisConfig::cluster(nodes.addresses()), sub.clone(), Arc::clone(&over));
            tokio::spawn(async move {
                let hot = RedisHot::connect(config).await.unwrap();
                let mut settled: BTreeMap<String, u32> = BTreeMap::new();
                let mut turn = 0_u32;
                while !over.load(Ordering::Relaxed) {
                    let pulled = match hot.pull(&sub, 5).await {
                        Ok(pulled) => pulled,
                        Err(error) => {
                            assert!(error.is_retryable() && error.kind() == ErrorKind::HotTier, "{error}");
                            continue;
                        }
                    };
                    for delivery in pulled.deliveries {
                        turn += 1;
                        let settle = if turn.is_multiple_of(5) { retry("again") } else { Settle::Ack };
                        let step = SettleAndStart {
                            settle: vec![(delivery.lock, settle.clone())],
                            start: Vec::new(),
                        };
                        match hot.settle_and_start(&sub, step).await {
                            Ok(outcome)
                                if outcome.settled == [chronow::hot::Settled::Done]
                                    && settle == Settle::Ack =>
                            {
                                *settled
                                    .entry(String::from_utf8(delivery.message.payload.to_vec()).unwrap())
                                    .or_default() += 1;
                            }
                            Ok(_) => {}
                            Err(error) => assert!(error.is_retryable(), "{error}"),
                        }
                    }
                    drop(hot.wait(&sub, Duration::from_millis(50)).await);
                }
                settled
            })
        })
        .collect();
    let publisher = {
        let (config, topic, over) =
            (RedisConfig::cluster(nodes.addresses()), topic.clone(), Arc::clone(&over));
        tokio::spawn(async move {
            let hot = RedisHot::connect(config).await.unwrap();
            let mut accepted = BTreeSet::new();
            for n in 0_u64.. {
                if over.load(Ordering::Relaxed) {
                    return accepted;
                }
                let soon = hot.now().await.unwrap().plus_millis(30);
                let text = n.to_string();
                let sent = match n % 3 {
                    0 => message(&text),
                    1 => keyed(&format!("k{}", n % 4), &text),
                    _ => OutboundMessage { not_before: Some(soon), ..message(&text) },
                };
                match hot.publish(&topic, vec![sent]).await {
                    Ok(_) => drop(accepted.insert(text)),
                    // Nothing was done, or nobody knows.
                    Err(error) => assert!(error.is_retryable(), "{error}"),
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            accepted
        })
    };

    let begun = Instant::now();
    let (mut at, mut moves) = (owner, 0);
    // Twice at least, however slow the machine is.
    while begun.elapsed() < how_long() || moves < 2 {
        let next = (at + 1) % 3;
        let step = Move { from: nodes.master(at), to: nodes.master(next), slot: slot.clone() };
        step.begin().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        step.keys(Duration::from_millis(5)).await;
        step.end().await;
        (at, moves) = (next, moves + 1);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(moves >= 2);
    over.store(true, Ordering::Relaxed);
    let accepted = publisher.await.unwrap();
    let mut settled = BTreeMap::new();
    for consumer in consumers {
        for (text, times) in consumer.await.unwrap() {
            *settled.entry(text).or_insert(0) += times;
        }
    }
    let begun = Instant::now();
    while accepted.iter().any(|text| !settled.contains_key(text)) {
        assert!(begun.elapsed() < TIMEOUT, "{} of {} accepted messages came", settled.len(), accepted.len());
        for delivery in world.hot.pull(&sub, 100).await.unwrap().deliveries {
            let text = String::from_utf8(delivery.message.payload.to_vec()).unwrap();
            if world.settle(&sub, &delivery.lock, Settle::Ack).await == chronow::hot::Settled::Done {
                *settled.entry(text).or_insert(0) += 1;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let twice: Vec<_> = settled.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "settled more than once: {twice:?}");
    assert!(accepted.len() > 5);
}

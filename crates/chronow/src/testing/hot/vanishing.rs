//! Consumers that vanish, at random.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::chance::{Chance, LIMIT};
use super::{Bus, TIMEOUT, calm, message};
use crate::hot::{HotTier, Settle, Settled};

/// What consumers saw of one message.
#[derive(Clone, Debug, Default)]
struct Seen {
    started: u32,
    acked: u32,
}

/// Consumers that vanish with messages in hand lose nothing, and repeat nothing beyond the limit or after its
/// end.
pub async fn consumers_that_vanish_lose_and_repeat_nothing_beyond_the_limit(hot: Arc<dyn HotTier>) {
    const MESSAGES: usize = 60;
    let mut chance = Chance::new();
    let bus = Bus::new(hot).await;
    let patch = calm().visibility(Duration::from_millis(400)).max_deliveries(LIMIT);
    let wild = bus.subscribe_with("wild", patch).await;
    let tame = bus.subscribe("tame").await;
    bus.publish_all((0..MESSAGES).map(|n| message(&n.to_string())).collect()).await;
    let consumers = (0..4).map(|_| {
        let (bus, wild, mut chance) = (bus.clone(), wild.clone(), chance.split());
        tokio::spawn(async move {
            let (mut seen, begun) = (BTreeMap::<String, Seen>::new(), Instant::now());
            loop {
                let pulled = bus.hot.pull(&wild, 4).await.unwrap();
                if pulled.deliveries.is_empty() {
                    let stats = bus.stats(&wild).await;
                    if stats.backlog + stats.pending + stats.scheduled == 0 {
                        return seen;
                    }
                    assert!(begun.elapsed() < TIMEOUT * 2, "it never ends: {stats:?}");
                    bus.hot.wait(&wild, Duration::from_millis(30)).await.unwrap();
                }
                for delivery in pulled.deliveries {
                    // Vanishes with it, before or after the start, or goes on.
                    if chance.below(6) == 0 || !bus.start(&wild, &delivery.lock).await {
                        continue;
                    }
                    let mine = seen.entry(delivery.lock.id.clone()).or_default();
                    mine.started += 1;
                    let settle = match chance.below(4) {
                        0 => continue,
                        1 => super::retry("wild"),
                        _ => Settle::Ack,
                    };
                    let acks = settle == Settle::Ack;
                    let settled = bus.settle(&wild, &delivery.lock, settle).await;
                    mine.acked += u32::from(acks && settled == Settled::Done);
                }
            }
        })
    });
    let mut seen = BTreeMap::<String, Seen>::new();
    for consumer in futures::future::join_all(consumers).await {
        for (id, theirs) in consumer.unwrap() {
            let all = seen.entry(id).or_default();
            all.started += theirs.started;
            all.acked += theirs.acked;
        }
    }
    let dead: BTreeMap<_, _> =
        bus.dead(&wild).await.into_iter().map(|dead| (dead.message.id.clone(), dead)).collect();
    assert_eq!(seen.len(), MESSAGES, "every message was started");
    for (id, seen) in &seen {
        assert!(seen.started <= LIMIT, "{id} was started {} times", seen.started);
        assert_eq!(seen.acked + u32::from(dead.contains_key(id)), 1, "{id} ends once: {seen:?}");
        if let Some(dead) = dead.get(id) {
            assert_eq!((dead.deliveries, seen.started), (LIMIT, LIMIT), "{id}");
        }
    }
    let stats = bus.stats(&wild).await;
    assert_eq!(stats.deliveries, seen.values().map(|seen| u64::from(seen.started)).sum::<u64>());
    assert_eq!(bus.take(&tame, MESSAGES).await.len(), MESSAGES);
    bus.nothing(&tame).await;
}

//! Ordering keys: in order, one at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{Bus, TIMEOUT, calm, hasty, keyed, retry_after, text, texts};
use crate::hot::{HotTier, Settle, Settled, TopicPatch};

/// Messages of one key are in flight one at a time, in order.
pub async fn messages_of_one_key_are_in_flight_one_at_a_time(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    bus.publish_all(vec![keyed("k", "1"), keyed("k", "2"), keyed("k", "3")]).await;
    for n in ["1", "2", "3"] {
        let got = bus.take(&subscription, 1).await;
        assert_eq!(texts(&got), [n]);
        bus.nothing(&subscription).await;
        assert!(bus.start(&subscription, &got[0].lock).await);
        bus.nothing(&subscription).await;
        bus.ack(&subscription, &got).await;
    }
    bus.nothing(&subscription).await;
    bus.at_rest(&subscription).await;
}

/// Messages of different keys, and of none, are in flight together.
pub async fn messages_of_different_keys_are_in_flight_together(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    let batch = vec![
        keyed("a", "a1"),
        keyed("a", "a2"),
        keyed("b", "b1"),
        super::message("free1"),
        keyed("b", "b2"),
        super::message("free2"),
    ];
    bus.publish_all(batch).await;
    let mut got = texts(&bus.take(&subscription, 4).await);
    got.sort_unstable();
    assert_eq!(got, ["a1", "b1", "free1", "free2"]);
    bus.nothing(&subscription).await;
}

/// A retry that waits holds its key back, and no other.
pub async fn a_retry_holds_its_key_back(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    bus.publish_all(vec![keyed("a", "a1"), keyed("a", "a2")]).await;
    bus.handle(&subscription, retry_after(Duration::from_secs(600))).await;
    bus.publish_all(vec![keyed("b", "b1")]).await;
    assert_eq!(texts(&bus.take(&subscription, 1).await), ["b1"]);
    bus.nothing(&subscription).await;
    // When its time has come it is still the first.
    bus.publish_all(vec![keyed("c", "c1"), keyed("c", "c2")]).await;
    bus.handle(&subscription, retry_after(Duration::from_millis(100))).await;
    for n in ["c1", "c2"] {
        let got = bus.take(&subscription, 1).await;
        assert_eq!(texts(&got), [n]);
        bus.ack(&subscription, &got).await;
    }
}

/// A released message stays the first of its key.
pub async fn a_released_message_stays_first_of_its_key(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    bus.publish_all(vec![keyed("k", "1"), keyed("k", "2")]).await;
    for _ in 0..3 {
        let got = bus.one(&subscription).await;
        assert_eq!(text(&got.message.payload), "1");
        assert_eq!(bus.settle(&subscription, &got.lock, Settle::Release).await, Settled::Done);
    }
}

/// A lock that expires keeps the order of its key.
pub async fn an_expired_lock_keeps_the_order_of_its_key(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe_with("s", hasty()).await;
    bus.publish_all(vec![keyed("k", "1"), keyed("k", "2")]).await;
    assert_eq!(texts(&bus.take(&subscription, 1).await), ["1"]);
    bus.subscribe("s").await;
    for n in ["1", "2"] {
        let got = bus.take(&subscription, 1).await;
        assert_eq!(texts(&got), [n]);
        bus.ack(&subscription, &got).await;
    }
}

/// A dead letter does not hold its key up.
pub async fn a_dead_letter_does_not_hold_its_key_up(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe_with("s", calm().max_deliveries(1)).await;
    bus.publish_all(vec![keyed("k", "1"), keyed("k", "2"), keyed("k", "3")]).await;
    bus.dead_letter(&subscription, "bad").await;
    let (_, settled) = bus.handle(&subscription, super::retry("used up")).await;
    assert_eq!(settled, Settled::DeadLettered);
    assert_eq!(texts(&bus.take(&subscription, 1).await), ["3"]);
}

/// A deferred message does not hold its key up.
pub async fn a_deferred_message_does_not_hold_its_key_up(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    bus.publish_all(vec![keyed("k", "1"), keyed("k", "2")]).await;
    bus.handle(&subscription, Settle::Defer).await;
    assert_eq!(texts(&bus.take(&subscription, 1).await), ["2"]);
}

/// Keys stay in order across concurrent consumers and retries.
pub async fn keys_stay_in_order_across_concurrent_consumers_and_retries(hot: Arc<dyn HotTier>) {
    in_order(Bus::new(hot).await).await;
}

/// Keys stay in order on a sharded topic.
pub async fn keys_stay_in_order_on_a_sharded_topic(hot: Arc<dyn HotTier>) {
    in_order(Bus::with(hot, TopicPatch::default().shards(3)).await).await;
}

async fn in_order(bus: Bus) {
    const KEYS: usize = 6;
    const EACH: usize = 12;
    let subscription = bus.subscribe_with("s", calm().backoff([Duration::from_millis(5)])).await;
    for n in 0..EACH {
        bus.publish_all((0..KEYS).map(|k| keyed(&format!("key-{k}"), &format!("{n:02}"))).collect()).await;
    }
    let handled: Arc<Mutex<BTreeMap<String, Vec<String>>>> = Arc::default();
    let holders: Arc<Mutex<BTreeMap<String, usize>>> = Arc::default();
    let acked = Arc::new(AtomicUsize::new(0));
    let consumers = (0..4).map(|_| {
        let (bus, subscription) = (bus.clone(), subscription.clone());
        let (handled, holders, acked) = (Arc::clone(&handled), Arc::clone(&holders), Arc::clone(&acked));
        tokio::spawn(async move {
            let begun = Instant::now();
            while acked.load(Ordering::SeqCst) < KEYS * EACH {
                assert!(
                    begun.elapsed() < TIMEOUT * 2,
                    "{} of {} were acknowledged",
                    acked.load(Ordering::SeqCst),
                    KEYS * EACH
                );
                let pulled = bus.hot.pull(&subscription, 3).await.unwrap().deliveries;
                if pulled.is_empty() {
                    bus.hot.wait(&subscription, Duration::from_millis(10)).await.unwrap();
                }
                for delivery in &pulled {
                    let holding = holders.lock().insert(delivery.message.key.clone().unwrap(), 1);
                    assert_eq!(holding.unwrap_or(0), 0, "two of one key are in flight");
                }
                for delivery in pulled {
                    let key = delivery.message.key.clone().unwrap();
                    assert!(bus.start(&subscription, &delivery.lock).await);
                    // Every third message fails at first.
                    let fails = delivery.deliveries == 0
                        && text(&delivery.message.payload).parse::<usize>().unwrap() % 3 == 0;
                    if !fails {
                        handled.lock().entry(key.clone()).or_default().push(text(&delivery.message.payload));
                    }
                    holders.lock().insert(key, 0);
                    let settle = if fails { super::retry("first") } else { Settle::Ack };
                    assert_eq!(bus.settle(&subscription, &delivery.lock, settle).await, Settled::Done);
                    acked.fetch_add(usize::from(!fails), Ordering::SeqCst);
                }
            }
        })
    });
    for consumer in futures::future::join_all(consumers).await {
        consumer.unwrap();
    }
    let handled = handled.lock().clone();
    let expected: Vec<_> = (0..EACH).map(|n| format!("{n:02}")).collect();
    assert_eq!(handled.len(), KEYS);
    for (key, order) in handled {
        assert_eq!(order, expected, "{key}");
    }
}

/// Keys of subscriptions are their own.
pub async fn keys_of_subscriptions_are_their_own(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let (one, two) = (bus.subscribe("one").await, bus.subscribe("two").await);
    bus.publish_all(vec![keyed("k", "1"), keyed("k", "2")]).await;
    assert_eq!(texts(&bus.take(&one, 1).await), ["1"]);
    for n in ["1", "2"] {
        let got = bus.take(&two, 1).await;
        assert_eq!(texts(&got), [n]);
        bus.ack(&two, &got).await;
    }
    bus.nothing(&one).await;
}

/// However many messages wait behind an ordering key, what is due comes with the next pull.
pub async fn a_long_queue_behind_a_key_delays_nothing_else(hot: Arc<dyn HotTier>) {
    // More than are looked at in one step, and no more: each takes a store its time.
    const QUEUED: usize = 600;
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe_with("s", calm()).await;
    for from in (0..QUEUED).step_by(300) {
        bus.publish_all((from..from + 300).map(|n| keyed("k", &n.to_string())).collect()).await;
    }
    bus.publish_all(vec![super::message("other")]).await;
    // All are seen, and all but the first wait behind it.
    let mut first = bus.take(&subscription, 2).await;
    first.sort_by_key(|delivery| delivery.message.key.is_none());
    assert_eq!(texts(&first), ["0", "other"]);
    bus.nothing(&subscription).await;
    for _ in 0..3 {
        assert_eq!(
            bus.settle(&subscription, &first[1].lock, retry_after(Duration::ZERO)).await,
            Settled::Done
        );
        let again = bus.hot.pull(&subscription, 1).await.unwrap().deliveries;
        assert_eq!(texts(&again), ["other"]);
        first[1] = again.into_iter().next().unwrap();
    }
}

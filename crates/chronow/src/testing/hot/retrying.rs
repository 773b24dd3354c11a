//! Retries, their waits and their end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Bus, calm, hasty, message, retry, retry_after, text, texts, until};
use crate::hot::{HotTier, OutboundMessage, Settle, Settled};

/// Below this, a due time was not respected; the clocks count in milliseconds.
fn at_least(elapsed: Duration, millis: u64) {
    assert!(
        elapsed + Duration::from_millis(3) >= Duration::from_millis(millis),
        "it came after {elapsed:?} instead of {millis} ms"
    );
}

/// A retry waits for the backoff of its count; the last wait repeats.
pub async fn a_retry_waits_for_the_backoff(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe_with("s", calm().backoff([150, 500].map(Duration::from_millis))).await;
    bus.publish(&["a"]).await;
    for (n, wait) in [150, 500, 500].into_iter().enumerate() {
        let delivery = bus.one(&subscription).await;
        assert_eq!(delivery.deliveries, u32::try_from(n).unwrap());
        assert!(bus.start(&subscription, &delivery.lock).await);
        let begun = Instant::now();
        assert_eq!(bus.settle(&subscription, &delivery.lock, retry("again")).await, Settled::Done);
        let next = bus.one(&subscription).await;
        at_least(begun.elapsed(), wait);
        assert_eq!(bus.settle(&subscription, &next.lock, Settle::Release).await, Settled::Done);
    }
}

/// A retry waits for its own delay, shorter or longer than the backoff.
pub async fn a_retry_waits_for_its_own_delay(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe_with("s", calm().backoff([Duration::from_millis(600_000)])).await;
    bus.publish(&["a", "b"]).await;
    let (first, settled) = bus.handle(&subscription, retry_after(Duration::from_secs(6_000))).await;
    assert_eq!((text(&first.message.payload).as_str(), settled), ("a", Settled::Done));
    assert_eq!(bus.stats(&subscription).await.scheduled, 1);
    let due = bus.hot.peek(&subscription, 1).await.unwrap()[0].until.unwrap();
    assert!(due >= first.message.published_at.plus_millis(6_000_000), "{due:?}");
    let begun = Instant::now();
    let (second, _) = bus.handle(&subscription, retry_after(Duration::from_millis(700))).await;
    assert_eq!(text(&second.message.payload), "b", "it holds nobody up");
    assert_eq!(texts(&bus.take(&subscription, 1).await), ["b"]);
    at_least(begun.elapsed(), 700);
}

/// A retry without delay is due at once.
pub async fn a_retry_without_delay_is_due_at_once(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe_with("s", calm().backoff([Duration::from_millis(600_000)])).await;
    bus.publish(&["a"]).await;
    bus.handle(&subscription, retry_after(Duration::ZERO)).await;
    assert_eq!(bus.one(&subscription).await.deliveries, 1);
}

/// Retries are counted, and stay counted.
pub async fn retries_are_counted(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe_with("s", calm().max_deliveries(50)).await;
    bus.publish(&["a"]).await;
    for n in 0..20 {
        let (delivery, settled) = bus.handle(&subscription, retry("again")).await;
        assert_eq!((delivery.deliveries, settled), (n, Settled::Done));
    }
    assert_eq!(bus.stats(&subscription).await.deliveries, 20);
}

/// A message is delivered no more often than the limit; then it is a dead letter with the last reason and the
/// count.
pub async fn a_message_is_delivered_no_more_than_the_limit(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe_with("s", calm().max_deliveries(3)).await;
    let ids = bus.publish(&["a"]).await;
    for n in 1..=3 {
        let (_, settled) = bus.handle(&subscription, retry(&format!("failure {n}"))).await;
        assert_eq!(settled, if n < 3 { Settled::Done } else { Settled::DeadLettered });
    }
    bus.nothing(&subscription).await;
    let dead = bus.dead(&subscription).await;
    assert_eq!(dead.len(), 1);
    assert_eq!((&dead[0].message.id, dead[0].reason.as_str(), dead[0].deliveries), (&ids[0], "failure 3", 3));
    bus.at_rest(&subscription).await;
}

/// A handler that crashes uses deliveries up: what was started that often becomes a dead letter.
pub async fn a_crashing_handler_uses_deliveries_up(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe_with("s", hasty().max_deliveries(2)).await;
    bus.publish(&["a"]).await;
    let mut started = 0;
    while started < 2 {
        let delivery = bus.one(&subscription).await;
        started += u32::from(bus.start(&subscription, &delivery.lock).await);
    }
    until("it becomes a dead letter", || async {
        bus.nothing(&subscription).await;
        !bus.dead(&subscription).await.is_empty()
    })
    .await;
    let dead = bus.dead(&subscription).await;
    assert_eq!((dead.len(), dead[0].deliveries), (1, 2));
    assert!(!dead[0].reason.is_empty());
    bus.at_rest(&subscription).await;
}

/// Without dead letters, what is used up is dropped.
pub async fn without_dead_letters_what_is_used_up_is_dropped(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let patch = calm().max_deliveries(2).dead_letters(false);
    let subscription = bus.subscribe_with("s", patch).await;
    bus.publish(&["a"]).await;
    for _ in 0..2 {
        let (_, settled) = bus.handle(&subscription, retry("again")).await;
        assert_ne!(settled, Settled::Lost);
    }
    bus.nothing(&subscription).await;
    assert!(bus.dead(&subscription).await.is_empty());
    bus.at_rest(&subscription).await;
    until("it is not held any more", || async { bus.hot.stats(&bus.topic).await.unwrap().length == 0 }).await;
}

/// Retries of one subscription are not seen by another.
pub async fn retries_of_one_subscription_are_not_seen_by_another(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let (bad, good) = (bus.subscribe("bad").await, bus.subscribe("good").await);
    bus.publish(&["a"]).await;
    let (first, _) = bus.handle(&good, Settle::Ack).await;
    for n in 0..4 {
        let (delivery, _) = bus.handle(&bad, retry("again")).await;
        assert_eq!((delivery.deliveries, &delivery.lock.id), (n, &first.lock.id));
        bus.nothing(&good).await;
    }
    bus.handle(&bad, retry("again")).await;
    assert_eq!(bus.dead(&bad).await.len(), 1);
    assert!(bus.dead(&good).await.is_empty());
    bus.nothing(&good).await;
    let stats = bus.stats(&good).await;
    assert_eq!((stats.deliveries, stats.acked), (1, 1));
}

/// A retry keeps the message as it was.
pub async fn a_retry_keeps_the_message_as_it_was(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    let headers = BTreeMap::from([("type".to_owned(), "x".to_owned())]);
    bus.send(OutboundMessage {
        headers,
        key: Some("k".to_owned()),
        content_type: "application/json".to_owned(),
        ..message("a")
    })
    .await;
    let (first, _) = bus.handle(&subscription, retry("again")).await;
    let again = bus.one(&subscription).await;
    assert_eq!(text(&again.message.payload), "a");
    assert_eq!(
        (
            &again.lock.id,
            &again.message.headers,
            &again.message.key,
            &again.message.content_type,
            again.message.published_at
        ),
        (
            &first.lock.id,
            &first.message.headers,
            &first.message.key,
            &first.message.content_type,
            first.message.published_at
        )
    );
}

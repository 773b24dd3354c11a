//! Looking without touching: peeks and counts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Bus, message, retry, retry_after, text, texts};
use crate::hot::{HotTier, MessageState, OutboundMessage, Settle, Settled, TopicStats};

/// A topic with one message in every place: handled by `s` alone.
async fn everywhere(hot: Arc<dyn HotTier>) -> (Bus, crate::SubscriptionName) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    let names = ["acked", "dead", "retried", "deferred", "in flight", "unread"];
    bus.publish(&names).await;
    let far = bus.hot.now().await.unwrap().plus_millis(600_000);
    bus.send(OutboundMessage { not_before: Some(far), ..message("scheduled") }).await;
    bus.handle(&subscription, Settle::Ack).await;
    bus.dead_letter(&subscription, "bad").await;
    bus.handle(&subscription, retry_after(Duration::from_secs(600))).await;
    bus.handle(&subscription, Settle::Defer).await;
    let held = bus.one(&subscription).await;
    assert!(bus.start(&subscription, &held.lock).await);
    (bus, subscription)
}

/// A peek shows where messages are, in order.
pub async fn a_peek_shows_where_messages_are(hot: Arc<dyn HotTier>) {
    let (bus, subscription) = everywhere(hot).await;
    let now = bus.hot.now().await.unwrap();
    let peeked = bus.hot.peek(&subscription, 100).await.unwrap();
    let places: BTreeMap<_, _> =
        peeked.iter().map(|seen| (text(&seen.message.payload), (seen.state, seen.deliveries))).collect();
    let expected = [
        ("retried", (MessageState::Scheduled, 1)),
        ("deferred", (MessageState::Deferred, 1)),
        ("in flight", (MessageState::InFlight, 1)),
        ("unread", (MessageState::Unread, 0)),
        ("scheduled", (MessageState::Scheduled, 0)),
    ];
    assert_eq!(places, expected.map(|(name, place)| (name.to_owned(), place)).into());
    for message in &peeked {
        match message.state {
            MessageState::InFlight | MessageState::Scheduled => {
                assert!(message.until.unwrap() > now, "{message:?}")
            }
            MessageState::Unread | MessageState::Deferred => {}
        }
    }
}

/// A peek takes nothing.
pub async fn a_peek_takes_nothing(hot: Arc<dyn HotTier>) {
    let (bus, subscription) = everywhere(hot).await;
    let before = bus.stats(&subscription).await;
    let first = bus.hot.peek(&subscription, 100).await.unwrap();
    assert_eq!(bus.hot.peek(&subscription, 100).await.unwrap(), first);
    let after = bus.stats(&subscription).await;
    assert_eq!(
        crate::hot::SubscriptionStats { oldest_age: None, ..after },
        crate::hot::SubscriptionStats { oldest_age: None, ..before }
    );
    let unread = bus.one(&subscription).await;
    assert_eq!((text(&unread.message.payload).as_str(), unread.deliveries), ("unread", 0));
}

/// A peek is limited, and begins with the oldest.
pub async fn a_peek_is_limited(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    let ids = bus.publish(&["a", "b", "c", "d"]).await;
    let peeked = bus.hot.peek(&subscription, 3).await.unwrap();
    assert_eq!(peeked.iter().map(|peeked| peeked.message.id.clone()).collect::<Vec<_>>(), ids[..3]);
    assert!(peeked.iter().all(|message| message.state == MessageState::Unread && message.deliveries == 0));
    let delivery = bus.one(&subscription).await;
    assert_eq!(delivery.message.published_at, peeked[0].message.published_at);
}

/// Counts are exact at rest.
pub async fn counts_are_exact_at_rest(hot: Arc<dyn HotTier>) {
    let (bus, subscription) = everywhere(hot).await;
    let other = bus.subscribe("other").await;
    bus.publish(&["for both"]).await;
    // Of one moment, so that ages can be compared.
    let all = bus.hot.stats(&bus.topic).await.unwrap().subscriptions;
    let of = |name: &crate::SubscriptionName| {
        all.iter().find(|stats| stats.subscription == name.name()).unwrap().clone()
    };
    let (stats, theirs) = (of(&subscription), of(&other));
    let counts = (
        stats.backlog,
        stats.pending,
        stats.scheduled,
        stats.deferred,
        stats.dead_letters,
        stats.deliveries,
        stats.acked,
    );
    assert_eq!(counts, (2, 1, 2, 1, 1, 5, 1), "{stats:?}");
    assert!(stats.oldest_age.is_some() && !stats.paused);
    assert_eq!(
        (theirs.backlog, theirs.pending, theirs.scheduled, theirs.deliveries),
        (1, 0, 0, 0),
        "{theirs:?}"
    );
    // Ages grow, so the other one is read later.
    assert!(theirs.oldest_age <= bus.stats(&subscription).await.oldest_age);
    let both = bus.take(&subscription, 2).await;
    assert_eq!(texts(&both), ["unread", "for both"]);
    assert!(bus.start(&subscription, &both[0].lock).await);
    bus.settle(&subscription, &both[0].lock, retry("again")).await;
    bus.ack(&subscription, &both[1..]).await;
    let stats = bus.stats(&subscription).await;
    // A retry that is due is neither new nor in flight: it waits, or is ready, until it is pulled.
    assert_eq!(
        (stats.backlog + stats.scheduled, stats.pending, stats.deliveries, stats.acked),
        (3, 1, 6, 2),
        "{stats:?}"
    );
}

/// Counts miss no message that moves from one place to another meanwhile.
pub async fn counts_miss_no_message_that_moves(hot: Arc<dyn HotTier>) {
    const MESSAGES: u64 = 60;
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    let texts: Vec<String> = (0..MESSAGES).map(|n| n.to_string()).collect();
    bus.publish(&texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let handling = async {
        // Each fails once, and is handled then.
        for _ in 0..2 * MESSAGES {
            let delivery = bus.one(&subscription).await;
            assert!(bus.start(&subscription, &delivery.lock).await);
            let settle =
                if delivery.deliveries == 0 { retry_after(Duration::from_millis(50)) } else { Settle::Ack };
            assert_eq!(bus.settle(&subscription, &delivery.lock, settle).await, Settled::Done);
        }
    };
    let looking = async {
        let mut acked = 0;
        loop {
            let stats = bus.stats(&subscription).await;
            assert!(stats.acked >= acked, "{acked} were acknowledged already: {stats:?}");
            acked = stats.acked;
            assert!(stats.backlog + stats.pending + stats.scheduled + acked >= MESSAGES, "{stats:?}");
        }
    };
    tokio::select! {
        () = handling => {}
        () = looking => unreachable!("it never ends"),
    }
    assert_eq!(bus.stats(&subscription).await.acked, MESSAGES);
}

/// Counts of an empty topic are zero.
pub async fn counts_of_an_empty_topic_are_zero(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    assert_eq!(bus.hot.stats(&bus.topic).await.unwrap(), TopicStats::default());
    let subscription = bus.subscribe("s").await;
    bus.at_rest(&subscription).await;
    bus.publish(&["a"]).await;
    bus.handle(&subscription, Settle::Ack).await;
    bus.at_rest(&subscription).await;
}

//! How much a topic holds, and for whom.

use std::sync::Arc;

use super::{Bus, kind, message, texts, until};
use crate::ErrorKind;
use crate::hot::{DiscardPolicy, HotTier, OutboundMessage, Settle, Settled, TopicPatch};

async fn small(hot: Arc<dyn HotTier>, overflow: DiscardPolicy) -> Bus {
    Bus::with(hot, TopicPatch::default().max_len(4).overflow(overflow)).await
}

/// A full topic rejects, and keeps what it has.
pub async fn a_full_topic_rejects(hot: Arc<dyn HotTier>) {
    let bus = small(hot, DiscardPolicy::Reject).await;
    let subscription = bus.subscribe("s").await;
    bus.publish(&["a", "b", "c", "d"]).await;
    let refused = bus.hot.publish(&bus.topic, vec![message("e")]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Full);
    assert!(refused.is_retryable());
    assert_eq!(texts(&bus.take(&subscription, 4).await), ["a", "b", "c", "d"]);
    bus.nothing(&subscription).await;
    assert_eq!(
        kind(bus.hot.publish(&bus.topic, vec![message("e")]).await),
        ErrorKind::Full,
        "what is in flight takes room"
    );
    assert_eq!(bus.hot.stats(&bus.topic).await.unwrap().dropped, 0);
}

/// A batch that does not fit is refused whole.
pub async fn a_batch_that_does_not_fit_is_refused_whole(hot: Arc<dyn HotTier>) {
    let bus = small(hot, DiscardPolicy::Reject).await;
    let subscription = bus.subscribe("s").await;
    bus.publish(&["a", "b", "c"]).await;
    let batch = vec![message("d"), message("e")];
    assert_eq!(kind(bus.hot.publish(&bus.topic, batch).await), ErrorKind::Full);
    assert_eq!(bus.hot.stats(&bus.topic).await.unwrap().length, 3);
    bus.publish(&["f"]).await;
    assert_eq!(texts(&bus.take(&subscription, 4).await), ["a", "b", "c", "f"]);
    bus.nothing(&subscription).await;
}

/// A refused publish leaves no dedup id.
pub async fn a_refused_publish_leaves_no_dedup_id(hot: Arc<dyn HotTier>) {
    let bus = small(hot, DiscardPolicy::Reject).await;
    let subscription = bus.subscribe("s").await;
    bus.publish(&["a", "b", "c", "d"]).await;
    let once = || OutboundMessage { dedup_id: Some("once".to_owned()), ..message("e") };
    assert_eq!(kind(bus.hot.publish(&bus.topic, vec![once()]).await), ErrorKind::Full);
    let held = bus.take(&subscription, 4).await;
    bus.ack(&subscription, &held).await;
    assert!(!bus.send(once()).await.duplicate);
    assert_eq!(texts(&bus.take(&subscription, 1).await), ["e"]);
}

/// Room comes back when everybody has settled, and not before.
pub async fn room_comes_back_when_everybody_has_settled(hot: Arc<dyn HotTier>) {
    let bus = small(hot, DiscardPolicy::Reject).await;
    let (one, two) = (bus.subscribe("one").await, bus.subscribe("two").await);
    bus.publish(&["a", "b", "c", "d"]).await;
    let held = bus.take(&one, 4).await;
    bus.ack(&one, &held).await;
    assert_eq!(
        kind(bus.hot.publish(&bus.topic, vec![message("e")]).await),
        ErrorKind::Full,
        "two has settled none"
    );
    let held = bus.take(&two, 1).await;
    bus.ack(&two, &held).await;
    bus.publish(&["e"]).await;
    assert_eq!(kind(bus.hot.publish(&bus.topic, vec![message("f")]).await), ErrorKind::Full);
    assert_eq!(texts(&bus.take(&two, 4).await), ["b", "c", "d", "e"]);
}

/// Messages that nobody needs take no room.
pub async fn messages_that_nobody_needs_take_no_room(hot: Arc<dyn HotTier>) {
    let bus = small(hot, DiscardPolicy::Reject).await;
    for _ in 0..10 {
        bus.publish(&["unheard"]).await;
    }
    let subscription = bus.subscribe("s").await;
    bus.publish(&["a", "b", "c", "d"]).await;
    assert_eq!(texts(&bus.take(&subscription, 4).await), ["a", "b", "c", "d"]);
    assert!(bus.hot.stats(&bus.topic).await.unwrap().length <= 8);
    assert_eq!(bus.hot.stats(&bus.topic).await.unwrap().dropped, 0);
}

/// A full topic may drop its oldest messages, and counts them.
pub async fn a_full_topic_may_drop_its_oldest_and_counts_them(hot: Arc<dyn HotTier>) {
    let bus = small(hot, DiscardPolicy::DropOldest).await;
    let subscription = bus.subscribe("s").await;
    for text in ["a", "b", "c", "d", "e", "f"] {
        bus.publish(&[text]).await;
    }
    assert_eq!(bus.hot.stats(&bus.topic).await.unwrap().dropped, 2);
    let held = bus.take(&subscription, 4).await;
    assert_eq!(texts(&held), ["c", "d", "e", "f"]);
    bus.nothing(&subscription).await;
    bus.publish(&["g"]).await;
    assert_eq!(bus.hot.stats(&bus.topic).await.unwrap().dropped, 3);
    assert_eq!(
        bus.settle(&subscription, &held[0].lock, Settle::Ack).await,
        Settled::Lost,
        "the oldest went though it was in flight"
    );
    bus.ack(&subscription, &held[1..]).await;
    let last = bus.take(&subscription, 1).await;
    assert_eq!(texts(&last), ["g"]);
    bus.ack(&subscription, &last).await;
    bus.at_rest(&subscription).await;
}

/// What everybody has settled is not held.
pub async fn what_everybody_has_settled_is_not_held(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let (one, two) = (bus.subscribe("one").await, bus.subscribe("two").await);
    bus.publish(&["a", "b", "c"]).await;
    let held = bus.take(&one, 3).await;
    bus.ack(&one, &held).await;
    assert_eq!(bus.hot.stats(&bus.topic).await.unwrap().length, 3);
    let held = bus.take(&two, 3).await;
    bus.ack(&two, &held).await;
    until("settled messages go", || async { bus.hot.stats(&bus.topic).await.unwrap().length == 0 }).await;
}

/// A purge removes messages and nothing else.
pub async fn a_purge_removes_messages_and_nothing_else(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let (one, two) = (bus.subscribe("one").await, bus.subscribe("two").await);
    bus.publish(&["dead", "in flight", "waiting", "deferred", "unread"]).await;
    let options = bus.hot.subscription(&one).await.unwrap();
    bus.dead_letter(&one, "bad").await;
    let held = bus.one(&one).await;
    bus.handle(&one, super::retry_after(std::time::Duration::from_millis(1))).await;
    let waiting = bus.one(&one).await;
    let deferred =
        if super::text(&waiting.message.payload) == "waiting" { bus.one(&one).await } else { waiting };
    bus.settle(&one, &deferred.lock, Settle::Defer).await;
    let purged = bus.hot.purge(&bus.topic).await.unwrap();
    assert_eq!(purged, 5);
    for subscription in [&one, &two] {
        bus.nothing(subscription).await;
        bus.at_rest(subscription).await;
    }
    assert_eq!(bus.settle(&one, &held.lock, Settle::Ack).await, Settled::Lost);
    assert!(bus.hot.fetch_deferred(&one, vec![deferred.lock.id]).await.unwrap().is_empty());
    assert_eq!(bus.dead(&one).await.len(), 1, "dead letters stay");
    assert_eq!(bus.hot.subscription(&one).await.unwrap(), options);
    assert_eq!(bus.hot.stats(&bus.topic).await.unwrap().length, 0);
    assert_eq!(bus.hot.purge(&bus.topic).await.unwrap(), 0);
    bus.publish(&["after"]).await;
    for subscription in [&one, &two] {
        assert_eq!(texts(&bus.take(subscription, 1).await), ["after"]);
    }
    assert_eq!(bus.hot.redrive(&one, &crate::hot::Select::All).await.unwrap(), 1);
    assert_eq!(texts(&bus.take(&one, 1).await), ["dead"]);
}

/// A publisher that got no acknowledgement repeats the publish under its dedup id, and must not bring
/// back what was purged meanwhile: that the message was accepted stays true. Only taking a message back by
/// its id frees that.
pub async fn a_purged_message_is_not_accepted_again_under_its_dedup_id(hot: Arc<dyn HotTier>) {
    for shards in [1, 3] {
        let bus = Bus::with(Arc::clone(&hot), TopicPatch::default().shards(shards)).await;
        let subscription = bus.subscribe("s").await;
        let far = bus.hot.now().await.unwrap().plus_millis(3_600_000);
        let once = |id: &str| OutboundMessage { dedup_id: Some(id.to_owned()), ..message(id) };
        let later = |id: &str| OutboundMessage { not_before: Some(far), ..once(id) };
        let ids = bus.publish_all(vec![once("now"), later("later")]).await;
        assert_eq!(bus.hot.purge(&bus.topic).await.unwrap(), 2);
        for (again, id) in [(once("now"), &ids[0]), (later("later"), &ids[1])] {
            let acknowledged = bus.send(again).await;
            assert!(acknowledged.duplicate && acknowledged.id == *id, "{acknowledged:?}");
        }
        assert!(!bus.hot.cancel(&bus.topic, &ids[1]).await.unwrap(), "there is nothing to take back");
        assert_eq!(bus.hot.stats(&bus.topic).await.unwrap().length, 0);
        bus.nothing(&subscription).await;
    }
}

//! What others need, and what replicas have.

use std::sync::Arc;
use std::time::Duration;

use super::{Bus, message, retry_after, text, until};
use crate::SubscriptionName;
use crate::hot::{HotTier, OutboundMessage, Select, Settle};

async fn needed(bus: &Bus, me: &SubscriptionName, id: &str) -> bool {
    let answers = bus.hot.needed_by_others(me, &[id.to_owned()]).await.unwrap();
    assert_eq!(answers.len(), 1);
    answers[0]
}

/// Takes a message and sets it back without counting it, as a consumer does that waits for others.
async fn keep(bus: &Bus, me: &SubscriptionName) -> String {
    let delivery = bus.one(me).await;
    bus.settle(me, &delivery.lock, retry_after(Duration::from_secs(600))).await;
    delivery.lock.id
}

/// A message is needed until every other subscription is done with it, its dead letters included.
pub async fn a_message_is_needed_until_every_other_subscription_is_done(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let (me, a, b) = (bus.subscribe("me").await, bus.subscribe("a").await, bus.subscribe("b").await);
    bus.publish(&["x"]).await;
    let id = keep(&bus, &me).await;
    assert!(needed(&bus, &me, &id).await, "nobody else has read it");
    bus.handle(&a, Settle::Ack).await;
    assert!(needed(&bus, &me, &id).await, "one has not read it");
    let held = bus.one(&b).await;
    assert!(needed(&bus, &me, &id).await, "it is in flight");
    bus.settle(&b, &held.lock, Settle::Defer).await;
    assert!(needed(&bus, &me, &id).await, "it is set aside");
    let held = bus.hot.fetch_deferred(&b, vec![id.clone()]).await.unwrap().remove(0);
    bus.settle(&b, &held.lock, Settle::DeadLetter { reason: "bad".to_owned() }).await;
    assert!(needed(&bus, &me, &id).await, "it is a dead letter");
    bus.hot.redrive(&b, &Select::All).await.unwrap();
    assert!(needed(&bus, &me, &id).await, "it comes again");
    bus.dead_letter(&b, "bad").await;
    bus.hot.purge_dead_letters(&b, &Select::All).await.unwrap();
    until("nobody else needs it", || async { !needed(&bus, &me, &id).await }).await;
}

/// What a subscription does not have may be needed by others.
pub async fn what_a_subscription_does_not_have_may_be_needed(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let me = bus.subscribe("me").await;
    let ids = bus.publish(&["x", "y"]).await;
    bus.handle(&me, Settle::Ack).await;
    let unknown = "9999999999999-0".to_owned();
    assert_eq!(
        bus.hot.needed_by_others(&me, &[ids[0].clone(), ids[1].clone(), unknown]).await.unwrap(),
        [true, true, true]
    );
    assert_eq!(bus.hot.needed_by_others(&me, &[]).await.unwrap(), Vec::<bool>::new());
    let absent = bus.named("absent");
    assert_eq!(super::kind(bus.hot.needed_by_others(&absent, &ids).await), crate::ErrorKind::NotFound);
}

/// A scheduled message is needed by each subscription that has not handled it when its time has come.
pub async fn a_scheduled_message_is_needed_when_its_time_has_come(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let (me, other) = (bus.subscribe("me").await, bus.subscribe("other").await);
    // Long enough to be published before, on any machine.
    let due = bus.hot.now().await.unwrap().plus_millis(2_000);
    let later = bus.send(OutboundMessage { not_before: Some(due), ..message("later") }).await.id;
    assert!(needed(&bus, &me, &later).await);
    bus.publish(&["first"]).await;
    let first = keep(&bus, &me).await;
    bus.handle(&other, Settle::Ack).await;
    assert_eq!(keep(&bus, &me).await, later);
    assert!(needed(&bus, &me, &later).await, "the other one has not read it");
    let (delivery, _) = bus.handle(&other, Settle::Ack).await;
    assert_eq!(text(&delivery.message.payload), "later");
    until("nobody else needs them", || async {
        !needed(&bus, &me, &later).await && !needed(&bus, &me, &first).await
    })
    .await;
}

/// What a sharded topic has is needed shard by shard.
pub async fn what_a_sharded_topic_has_is_needed_by_others_too(hot: Arc<dyn HotTier>) {
    let bus = Bus::with(hot, crate::hot::TopicPatch::default().shards(3)).await;
    let (me, other) = (bus.subscribe("me").await, bus.subscribe("other").await);
    let ids = bus.publish(&["a", "b", "c", "d", "e"]).await;
    for _ in &ids {
        keep(&bus, &me).await;
    }
    assert_eq!(bus.hot.needed_by_others(&me, &ids).await.unwrap(), [true; 5]);
    let taken = bus.take(&other, 5).await;
    let last = &taken[4].lock.id;
    bus.ack(&other, &taken[..4]).await;
    until("one is left", || async {
        let answers = bus.hot.needed_by_others(&me, &ids).await.unwrap();
        assert!(answers[ids.iter().position(|id| id == last).unwrap()], "it is in flight");
        // Stores without shards keep the messages of one publish together.
        answers.iter().filter(|needed| **needed).count() <= 1
            || bus.hot.needed_by_others(&me, &ids).await.unwrap() == [true; 5]
    })
    .await;
    bus.ack(&other, &taken[4..]).await;
    until("nobody else needs them", || async {
        bus.hot.needed_by_others(&me, &ids).await.unwrap() == [false; 5]
    })
    .await;
}

/// A publish that no replica needs to confirm is a publish; and what documents acknowledge is replicated.
pub async fn a_publish_may_ask_for_replicas(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    let published = bus
        .hot
        .publish_replicated(&bus.topic, vec![message("a"), message("b")], 0, Duration::from_millis(500))
        .await
        .unwrap();
    let taken = bus.take(&subscription, 2).await;
    assert_eq!(
        published.iter().map(|one| &one.id).collect::<Vec<_>>(),
        taken.iter().map(|one| &one.lock.id).collect::<Vec<_>>()
    );
    let twin = OutboundMessage { dedup_id: Some("once".to_owned()), ..message("c") };
    let first = bus
        .hot
        .publish_replicated(&bus.topic, vec![twin.clone()], 0, Duration::from_secs(1))
        .await
        .unwrap()
        .remove(0);
    let again = bus
        .hot
        .publish_replicated(&bus.topic, vec![twin], 0, Duration::from_secs(1))
        .await
        .unwrap()
        .remove(0);
    assert!(again.duplicate && again.id == first.id);
}

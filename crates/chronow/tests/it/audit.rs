//! What the warm tier keeps of what became of messages.

use std::time::Duration;

use chronos_db::messaging::DeliveryStatus;
use chronos_db::{Json as Value, json};
use chronow::{Chronow, Message, Outcome, Subscription, Topic};

use crate::stores::{Stores, on_every_store};
use crate::tiers::{until, within};

on_every_store! {
    dead_letters_are_kept_for_each_subscription,
    every_settlement_is_noted,
    a_message_that_expires_at_once_has_its_warm_copy,
    dead_letters_are_kept_before_they_are_purged,
    many_dead_letters_are_kept_once_by_several_processes,
}

async fn topic(chronow: &Chronow) -> (Topic, Subscription) {
    let topic = chronow.bus().topic("orders").unwrap();
    topic.ensure().await.unwrap();
    let subscription = topic.subscription("s").unwrap();
    subscription.ensure().backoff([Duration::ZERO]).jitter_percent(0).await.unwrap();
    (topic, subscription)
}

async fn dead_letters_are_kept_for_each_subscription(stores: Stores) {
    let chronow = stores.connect().await;
    let (topic, one) = topic(&chronow).await;
    let two = topic.subscription("two").unwrap();
    two.ensure().await.unwrap();
    let id = topic
        .publish(&json!({"n": 1}))
        .header("type", "x")
        .key("k")
        .persist_warm_copy(true)
        .await
        .unwrap()
        .id;
    one.receive::<Value>(1).await.unwrap().remove(0).dead_letter("bad").await.unwrap();
    two.receive::<String>(1).await.unwrap();
    let letters = stores.chronos.messaging("default").unwrap().dead_letters();
    until("both are kept", || async { letters.list("orders").await.unwrap().items.len() == 2 }).await;
    let first = letters.get("orders", id.as_str()).subscription("s").await.unwrap().unwrap();
    assert_eq!((first.reason.as_deref(), first.deliveries, first.payload), (Some("bad"), 1, json!({"n": 1})));
    assert_eq!(first.headers.unwrap()["type"], "x");
    let second = letters.get("orders", id.as_str()).subscription("two").await.unwrap().unwrap();
    assert_eq!((second.reason.as_deref(), second.deliveries), (Some("undecodable"), 0));
    until("they are counted", || async { chronow.metrics().warm_dead_letters == 2 }).await;
}

async fn a_message_that_expires_at_once_has_its_warm_copy(stores: Stores) {
    let chronow = stores.connect().await;
    let (topic, _) = topic(&chronow).await;
    topic.ensure().warm(true).await.unwrap();
    let id = topic.publish(&json!({"n": 1})).ttl(Duration::from_millis(1)).await.unwrap().id;
    let messages = stores.chronos.messaging("default").unwrap().messages();
    until("the copy is made", || async { messages.get("orders", id.as_str()).await.unwrap().is_some() })
        .await;
}

async fn every_settlement_is_noted(stores: Stores) {
    let chronow = stores.connect().await;
    let (topic, subscription) = topic(&chronow).await;
    subscription.ensure().max_deliveries(2).await.unwrap();
    let mut ids = Vec::new();
    for n in 0..3 {
        ids.push(topic.publish(&n).await.unwrap().id);
    }
    let handler = |message: Message<u32>| async move {
        match (message.payload, message.deliveries()) {
            (0, _) => Outcome::Ack,
            (1, 1) => Outcome::from(Err::<(), _>("once")),
            (1, _) => Outcome::Ack,
            _ => Outcome::from(Err::<(), _>("always")),
        }
    };
    let runner = subscription.run(handler).limit(5).start().await.unwrap();
    within(runner.join()).await.unwrap();
    let by_hand = topic.publish(&3).await.unwrap().id;
    subscription.ack_all(subscription.receive::<u32>(1).await.unwrap()).await.unwrap();
    ids.push(by_hand);
    // What waits is written at the end.
    chronow.close().await.unwrap();
    let deliveries = stores.chronos.messaging("default").unwrap().deliveries().unwrap();
    let mut reported = Vec::new();
    for id in &ids {
        let attempts = deliveries.list_by_message("orders", id.as_str()).await.unwrap();
        reported
            .push(attempts.into_iter().map(|one| (one.attempt, one.status, one.reason)).collect::<Vec<_>>());
    }
    let reason = |text: &str| Some(text.to_owned());
    assert_eq!(reported[0], [(1, DeliveryStatus::Ack, None)]);
    assert_eq!(
        reported[1],
        [(1, DeliveryStatus::Nack, reason("once")), (2, DeliveryStatus::Ack, None)]
            .map(|one| (one.0, one.1, one.2))
    );
    assert_eq!(
        reported[2],
        [(1, DeliveryStatus::Nack, reason("always")), (2, DeliveryStatus::Dead, reason("always"))]
    );
    assert_eq!(reported[3], [(1, DeliveryStatus::Ack, None)]);
}

async fn dead_letters_are_kept_before_they_are_purged(stores: Stores) {
    let chronow = stores.connect().await;
    let (topic, subscription) = topic(&chronow).await;
    topic.publish(&1).await.unwrap();
    subscription.receive::<u32>(1).await.unwrap().remove(0).dead_letter("bad").await.unwrap();
    // A subscription that never consumed.
    let other = stores.connect().await;
    let there = other.bus().topic("orders").unwrap().subscription("s").unwrap();
    assert_eq!(there.purge_dead_letters().await.unwrap(), 1);
    let letters = stores.chronos.messaging("default").unwrap().dead_letters();
    assert_eq!(letters.list("orders").await.unwrap().items.len(), 1);
}

async fn many_dead_letters_are_kept_once_by_several_processes(stores: Stores) {
    let chronow = stores.connect().await;
    let (topic, subscription) = topic(&chronow).await;
    topic.publish_batch((0..250).map(|n| chronow::PublishMessage::json(&n))).await.unwrap();
    let dead_letter = |_: Message<u32>| async { Outcome::DeadLetter { reason: "no".to_owned() } };
    let runner = subscription.run(dead_letter).limit(250).start().await.unwrap();
    within(runner.join()).await.unwrap();
    let other = stores.connect().await;
    let there = other.bus().topic("orders").unwrap().subscription("s").unwrap();
    assert!(there.receive::<u32>(1).await.unwrap().is_empty());
    chronow.close().await.unwrap();
    other.close().await.unwrap();
    let letters = stores.chronos.messaging("default").unwrap().dead_letters();
    let mut seen = 0;
    let mut page = letters.list("orders").await.unwrap();
    loop {
        seen += page.items.len();
        let Some(after) = page.next.take() else { break };
        page = letters.list("orders").after(after).await.unwrap();
    }
    assert_eq!(seen, 250);
}

#[cfg(feature = "redis")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_warm_tier_fails_no_settlement_and_the_audit_is_made_up_for() {
    use test_support::documents::{Call, decorate};
    use test_support::{Failing, Fault, servers};

    let failing = Failing::<Call>::new();
    let layer = std::sync::Arc::clone(&failing);
    let chronos = crate::stores::warm(|builder| {
        builder.wrap_documents(move |inner| decorate(inner, std::sync::Arc::clone(&layer)))
    });
    let stores = Stores::on_redis(&servers::redis_url(), chronos);
    let chronow = stores.connect().await;
    let (topic, subscription) = topic(&chronow).await;
    failing.switch_all_on(Fault::Before);
    let id = topic.publish(&1).persist_warm_copy(true).await.unwrap().id;
    let message = subscription.receive::<u32>(1).await.unwrap().remove(0);
    message.nack().reason("not yet").await.unwrap();
    let message = subscription.receive::<u32>(1).await.unwrap().remove(0);
    message.dead_letter("never").await.unwrap();
    until("the audit was tried", || async { failing.injected() > 3 }).await;
    failing.switch_off();
    let messaging = stores.chronos.messaging("default").unwrap();
    let deliveries = messaging.deliveries().unwrap();
    until("the attempts are noted", || async {
        deliveries.list_by_message("orders", id.as_str()).await.unwrap().len() == 2
    })
    .await;
    until("the letter is kept", || async {
        messaging.dead_letters().list("orders").await.unwrap().items.len() == 1
    })
    .await;
    until("the copy is made", || async {
        messaging.messages().get("orders", id.as_str()).await.unwrap().is_some()
    })
    .await;
}

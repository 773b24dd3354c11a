//! What others change meanwhile reaches every client that has a topic open; and what one message does wrong is nobody
//! else's harm.

use std::time::Duration;

use chronos_db::{Json as Value, json};
use chronow::hot::OutboundMessage;
use chronow::{Chronow, ErrorKind, Message, Outcome, Subscription, Topic};

use crate::stores::{Stores, on_every_store};
use crate::tiers::until;

on_every_store! {
    warm_copies_that_another_process_switches_on_are_made_by_all,
    a_topic_that_another_process_makes_anew_has_its_copies,
    copies_that_another_process_asks_for_are_made_by_all,
    a_message_the_warm_tier_refuses_holds_up_no_other,
    delays_of_centuries_are_refused,
    a_value_read_back_from_the_warm_tier_is_at_its_version,
    a_deletion_says_whether_there_was_a_value,
}

async fn topic(chronow: &Chronow) -> (Topic, Subscription) {
    let topic = chronow.bus().topic("orders").unwrap();
    topic.ensure().await.unwrap();
    let subscription = topic.subscription("s").unwrap();
    subscription.ensure().backoff([Duration::ZERO]).jitter_percent(0).await.unwrap();
    (topic, subscription)
}

async fn has_copy(stores: &Stores, id: &str) -> bool {
    stores.chronos.messaging("default").unwrap().messages().get("orders", id).await.unwrap().is_some()
}

async fn warm_copies_that_another_process_switches_on_are_made_by_all(stores: Stores) {
    // One only publishes, the other only consumes, and both have been at it for a while.
    let (publisher, consumer) = (stores.connect().await, stores.connect().await);
    let (topic, _) = topic(&publisher).await;
    topic.ensure().max_len(50).await.unwrap();
    let subscription = consumer.bus().topic("orders").unwrap().subscription("s").unwrap();
    let runner = subscription.run(|_: Message<Value>| async { Outcome::Ack }).start().await.unwrap();
    topic.publish(&0).await.unwrap();
    let other = stores.connect().await;
    other.bus().topic("orders").unwrap().ensure().warm(true).await.unwrap();
    other.close().await.unwrap();
    for n in 0..200 {
        // It may be full for a moment, if the copies are slower than we are.
        until("there is room", || async {
            match topic.publish(&n).await {
                Ok(_) => true,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Full);
                    false
                }
            }
        })
        .await;
    }
    until("the last one is accepted", || async { topic.publish(&json!("last")).await.is_ok() }).await;
    let last = topic.publish(&json!("very last")).await.unwrap().id;
    until("the copy is made", || has_copy(&stores, &last)).await;
    runner.stop().await.unwrap();
    // Each makes copies by itself.
    consumer.close().await.unwrap();
    let alone = topic.publish(&json!("alone")).await.unwrap().id;
    until("the publisher makes the copy", || has_copy(&stores, &alone)).await;
    let own = topic.stats().await.unwrap().internal;
    assert_eq!(
        own.iter().map(|own| own.subscription.as_str()).collect::<Vec<_>>(),
        ["__warm"],
        "what is owed shows"
    );
}

async fn a_topic_that_another_process_makes_anew_has_its_copies(stores: Stores) {
    let chronow = stores.connect().await;
    let (topic, _) = topic(&chronow).await;
    topic.ensure().warm(true).await.unwrap();
    let first = topic.publish(&1).await.unwrap().id;
    until("the copy is made", || has_copy(&stores, &first)).await;
    let other = stores.connect().await;
    let there = other.bus().topic("orders").unwrap();
    assert!(there.delete().await.unwrap());
    there.ensure().warm(true).await.unwrap();
    other.close().await.unwrap();
    // This one may be what the change is noticed by.
    topic.publish(&2).await.unwrap();
    let second = topic.publish(&3).await.unwrap().id;
    until("the copy is made", || has_copy(&stores, &second)).await;
}

async fn copies_that_another_process_asks_for_are_made_by_all(stores: Stores) {
    let chronow = stores.connect().await;
    let (topic, subscription) = topic(&chronow).await;
    let runner = subscription.run(|_: Message<Value>| async { Outcome::Ack }).start().await.unwrap();
    topic.publish(&0).await.unwrap();
    // A client that has asked for copies, and ends before they are made.
    let name = chronow::testing::internal_subscription(topic.name(), "__warm");
    let patch = chronow::hot::SubscriptionPatch::default().start(chronow::hot::DeliverPolicy::Earliest);
    chronow.hot().ensure_subscription(&name, &patch).await.unwrap();
    let message = OutboundMessage {
        payload: "1".into(),
        headers: [("cw-warm".to_owned(), "1".to_owned())].into(),
        ..OutboundMessage::default()
    };
    let id = chronow.hot().publish(topic.name(), vec![message]).await.unwrap().remove(0).id;
    until("the copy is made", || has_copy(&stores, &id)).await;
    runner.stop().await.unwrap();
}

async fn a_message_the_warm_tier_refuses_holds_up_no_other(stores: Stores) {
    let chronow = stores.connect().await;
    let (topic, subscription) = topic(&chronow).await;
    topic.ensure().warm(true).await.unwrap();
    let outgoing =
        |payload: Vec<u8>| OutboundMessage { payload: payload.into(), ..OutboundMessage::default() };
    // Its copy is a third longer than itself, and no document holds that.
    let small = |n: usize| outgoing(n.to_string().into_bytes());
    let batch =
        (0..20).map(|n| if n == 7 { outgoing(vec![b'x'; 14 * 1024 * 1024]) } else { small(n) }).collect();
    let ids: Vec<String> = chronow
        .hot()
        .publish(topic.name(), batch)
        .await
        .unwrap()
        .into_iter()
        .map(|published| published.id)
        .collect();
    for (n, id) in ids.iter().enumerate() {
        if n != 7 {
            until("the copy is made", || has_copy(&stores, id)).await;
        }
    }
    let owed = || async { topic.stats().await.unwrap().internal.remove(0) };
    until("all is copied or refused", || async {
        let owed = owed().await;
        owed.backlog + owed.pending + owed.scheduled == 0
    })
    .await;
    let later = topic.publish(&json!("later")).await.unwrap().id;
    until("the next copy is made", || has_copy(&stores, &later)).await;
    assert!(!has_copy(&stores, &ids[7]).await);
    assert_eq!(
        (owed().await.dead_letters, chronow.metrics().warm_refused),
        (1, 1),
        "it is a dead letter of the outbox, and counted once"
    );
    assert_eq!(subscription.stats().await.unwrap().backlog, 21, "the subscription has it, as every other");
}

async fn delays_of_centuries_are_refused(stores: Stores) {
    let chronow = stores.connect().await;
    let (topic, subscription) = topic(&chronow).await;
    let year = Duration::from_secs(366 * 24 * 3_600);
    let now = chronow.hot().now().await.unwrap();
    let at = |years: i64| now.plus_millis(years * 366 * 24 * 3_600_000);
    for refused in [
        topic.publish(&1).delay(11 * year),
        topic.publish(&1).delay(Duration::MAX),
        topic.publish(&1).at(at(11)),
        topic.publish(&1).ttl(Duration::ZERO),
    ] {
        assert_eq!(refused.await.unwrap_err().kind(), ErrorKind::Validation);
    }
    let error = topic.publish(&1).delay(11 * year).await.unwrap_err();
    assert!(error.message().contains("milliseconds"), "{error}");
    assert_eq!(subscription.ensure().backoff([11 * year]).await.unwrap_err().kind(), ErrorKind::Validation);
    topic.publish(&1).delay(9 * year).await.unwrap();
    topic.publish(&1).at(at(9)).await.unwrap();
    topic.publish(&1).await.unwrap();
    let received = subscription.receive::<u32>(1).await.unwrap().remove(0);
    assert_eq!(received.nack().delay(11 * year).await.unwrap_err().kind(), ErrorKind::Validation);
    let until = subscription.peek(10).await.unwrap().into_iter().filter_map(|peeked| peeked.until);
    let shown: Vec<String> = until.map(|until| until.to_string()).collect();
    assert_eq!(shown.len(), 3);
    assert!(shown.iter().all(|text| text.contains('T') && text.ends_with('Z')), "{shown:?}");
}

async fn a_value_read_back_from_the_warm_tier_is_at_its_version(stores: Stores) {
    let chronow = stores.connect().await;
    let shared = chronow.shared();
    let scope = chronow::Scope::new("default", "default").unwrap();
    let version = shared.set("k", &1).persist().ttl(Duration::from_millis(150)).await.unwrap();
    let key = ["k".to_owned()];
    until("its time in the hot tier is over", || async {
        chronow.hot().get(&scope, &key).await.unwrap()[0].is_none()
    })
    .await;
    assert_eq!(
        shared.entry::<u32>("k").await.unwrap().unwrap().version,
        version,
        "reading it changes nothing"
    );
    let next =
        shared.compare_and_set("k", version, &2).persist().ttl(Duration::from_millis(150)).await.unwrap();
    until("its time in the hot tier is over", || async {
        chronow.hot().get(&scope, &key).await.unwrap()[0].is_none()
    })
    .await;
    assert_eq!(shared.compare_and_set("k", version, &3).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert!(shared.compare_and_set("k", next, &3).await.unwrap() > next);
}

async fn a_deletion_says_whether_there_was_a_value(stores: Stores) {
    let chronow = stores.connect().await;
    let shared = chronow.shared();
    assert!(!shared.del("absent").await.unwrap());
    shared.set("k", &1).await.unwrap();
    assert!(shared.del("k").await.unwrap());
    assert!(!shared.del("k").await.unwrap());
    shared.set("kept", &1).persist().ttl(Duration::from_millis(50)).await.unwrap();
    let scope = chronow::Scope::new("default", "default").unwrap();
    let key = ["kept".to_owned()];
    until("its time in the hot tier is over", || async {
        chronow.hot().get(&scope, &key).await.unwrap()[0].is_none()
    })
    .await;
    assert!(shared.del("kept").await.unwrap(), "the warm tier had it");
}

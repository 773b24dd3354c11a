//! Delivery (D1 to D10, D13): what is handed out, again, and for how long.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chronos_db::{Json as Value, json};
use chronow::hot::{DiscardPolicy, MessageState};
use chronow::{ErrorKind, Message, PublishMessage, Received};
use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::tiers::{World, calm, number, on_every_hot_tier, publish, settled, take, until, within};

on_every_hot_tier! {
    what_a_consumer_took_and_did_not_settle_comes_to_another,
    leaving_a_stream_loses_nothing_of_its_batch,
    retries_reach_their_own_subscription_only,
    a_message_that_always_fails_ends_in_the_dead_letters_after_the_limit,
    each_failed_message_is_redelivered_once_to_any_consumer,
    retries_wait_as_the_table_says,
    a_delay_is_kept,
    payloads_arrive_as_they_were_sent,
    unread_and_pending_messages_are_never_trimmed,
    acknowledged_messages_are_removed,
    a_slow_handler_holds_up_nobody,
    many_stuck_messages_hide_none,
}

/// D1: a consumer that goes away with a message in hand does not keep it.
async fn what_a_consumer_took_and_did_not_settle_comes_to_another(world: World) {
    let (topic, subscription) = world.ready().await;
    subscription.ensure().visibility(Duration::from_millis(500)).await.unwrap();
    publish(&topic, 0..3).await;
    let first = world.another().await;
    let mine = first.bus().topic("orders").unwrap().subscription("s").unwrap();
    let taken = take(&mine, 3).await;
    drop(taken);
    first.close().await.unwrap();
    let mut again: Vec<_> =
        take(&subscription, 3).await.iter().map(|message| (number(message), message.deliveries())).collect();
    again.sort_unstable();
    assert_eq!(again, [(0, 2), (1, 2), (2, 2)]);
}

/// D2: what a stream had fetched ahead goes back when it is left.
async fn leaving_a_stream_loses_nothing_of_its_batch(world: World) {
    let (topic, subscription) = world.ready().await;
    publish(&topic, 0..10).await;
    let mut messages = subscription.consume::<Value>().prefetch(10).await.unwrap();
    within(messages.next()).await.unwrap().unwrap().ack().await.unwrap();
    drop(messages);
    // The locks would last for minutes.
    let rest = take(&subscription, 9).await;
    assert!(
        rest.iter().all(|message| message.deliveries() == 1),
        "what nobody had in hand was not delivered"
    );
    subscription.ack_all(rest).await.unwrap();
    assert_eq!(subscription.stats().await.unwrap().acked, 10);
}

/// D3, G5: a retry comes to the subscription that failed, as the message it was, and to nobody else.
async fn retries_reach_their_own_subscription_only(world: World) {
    let (topic, good) = world.ready().await;
    let bad = calm(&topic, "bad").await;
    bad.ensure().max_deliveries(20).await.unwrap();
    let sent = topic.publish(&json!({ "n": 1 })).header("a.b", "c.d").key("k.1").await.unwrap();
    let first = take(&good, 1).await.remove(0);
    let published_at = first.published_at();
    first.ack().await.unwrap();
    for attempt in 1..=14 {
        let message = take(&bad, 1).await.remove(0);
        assert_eq!(
            (message.id(), message.deliveries(), message.published_at()),
            (sent.id.as_str(), attempt, published_at)
        );
        assert_eq!((message.header("a.b"), message.key(), number(&message)), (Some("c.d"), Some("k.1"), 1));
        message.nack().reason("it.fails").await.unwrap();
    }
    assert!(good.receive::<Value>(10).await.unwrap().is_empty());
    let stats = good.stats().await.unwrap();
    assert_eq!((stats.deliveries, stats.acked, stats.backlog, stats.scheduled), (1, 1, 0, 0));
}

/// D4: the count survives retries, stops at the limit exactly, and what is used up is found with its last
/// reason.
async fn a_message_that_always_fails_ends_in_the_dead_letters_after_the_limit(world: World) {
    let (topic, subscription) = world.ready().await;
    subscription.ensure().max_deliveries(3).await.unwrap();
    publish(&topic, 0..4).await;
    let handled = Arc::new(Mutex::new(BTreeMap::<usize, Vec<u32>>::new()));
    let log = Arc::clone(&handled);
    let handler = move |message: Message<Value>| {
        log.lock().entry(number(&message)).or_default().push(message.deliveries());
        async move { if number(&message) == 2 { Err("poison".to_owned()) } else { Ok(()) } }
    };
    let runner = subscription.run(handler).start().await.unwrap();
    until("it is dead", || async { subscription.stats().await.unwrap().dead_letters == 1 }).await;
    settled(&subscription).await;
    runner.stop().await.unwrap();
    assert_eq!(
        *handled.lock(),
        BTreeMap::from([(0, vec![1]), (1, vec![1]), (2, vec![1, 2, 3]), (3, vec![1])])
    );
    let dead = subscription.dead_letters().await.unwrap().items;
    assert_eq!((dead.len(), dead[0].deliveries, dead[0].reason.as_str()), (1, 3, "poison"));
}

/// D5: of eight consumers one gets each retry.
async fn each_failed_message_is_redelivered_once_to_any_consumer(world: World) {
    const MESSAGES: usize = 200;
    let (topic, _) = world.ready().await;
    publish(&topic, 0..MESSAGES).await;
    // Made late, so that nothing is handed out while publishing; it begins with the first message.
    let subscription = topic.subscription("eight").unwrap();
    let ensure = subscription
        .ensure()
        .start(chronow::hot::DeliverPolicy::Earliest)
        .visibility(Duration::from_secs(120));
    ensure.backoff([Duration::ZERO]).jitter_percent(0).await.unwrap();
    let seen = Arc::new(Mutex::new(BTreeMap::<usize, Vec<u32>>::new()));
    let mut runners = Vec::new();
    for _ in 0..8 {
        let log = Arc::clone(&seen);
        let handler = move |message: Message<Value>| {
            log.lock().entry(number(&message)).or_default().push(message.deliveries());
            async move { if message.deliveries() == 1 { Err("once") } else { Ok(()) } }
        };
        runners.push(subscription.run(handler).concurrency(2).start().await.unwrap());
    }
    until("all are acknowledged", || async { subscription.stats().await.unwrap().acked == MESSAGES as u64 })
        .await;
    for runner in runners {
        runner.stop().await.unwrap();
    }
    let seen = seen.lock();
    assert_eq!(seen.len(), MESSAGES);
    assert!(seen.values().all(|deliveries| *deliveries == [1, 2]), "{seen:?}");
}

/// D6: the first wait is the first entry of the table, the next the next, and zero is zero.
async fn retries_wait_as_the_table_says(world: World) {
    let (topic, subscription) = world.ready().await;
    let waits = [0, 0, 600, 3_000].map(Duration::from_secs);
    subscription.ensure().backoff(waits).max_deliveries(10).await.unwrap();
    publish(&topic, [1]).await;
    for _ in 0..3 {
        // Twice without any wait.
        take(&subscription, 1).await.remove(0).nack().await.unwrap();
    }
    let left = async || {
        let peeked = subscription.peek(1).await.unwrap().remove(0);
        assert_eq!(peeked.state, MessageState::Scheduled);
        peeked.until.unwrap().as_millis() - world.chronow.hot().now().await.unwrap().as_millis()
    };
    let third = left().await;
    assert!((550_000..=600_000).contains(&third), "{third}");
    let patient = calm(&topic, "patient").await;
    patient
        .ensure()
        .backoff([Duration::from_secs(600), Duration::from_secs(3_000)])
        .jitter_percent(20)
        .await
        .unwrap();
    publish(&topic, [2]).await;
    take(&patient, 1).await.remove(0).nack().await.unwrap();
    let peeked = patient.peek(1).await.unwrap().remove(0);
    let first = peeked.until.unwrap().as_millis() - world.chronow.hot().now().await.unwrap().as_millis();
    assert!((550_000..=720_000).contains(&first), "with at most a fifth more: {first}");
}

/// D7: an explicit delay counts, not the table.
async fn a_delay_is_kept(world: World) {
    let (topic, subscription) = world.ready().await;
    subscription.ensure().backoff([Duration::from_secs(3_000)]).await.unwrap();
    publish(&topic, [1, 2]).await;
    let before = world.chronow.hot().now().await.unwrap();
    for message in take(&subscription, 2).await {
        let delay = if number(&message) == 1 { Duration::from_millis(700) } else { Duration::from_secs(600) };
        message.nack().delay(delay).await.unwrap();
    }
    let again = take(&subscription, 1).await.remove(0);
    assert_eq!((number(&again), again.deliveries()), (1, 2));
    assert!(world.chronow.hot().now().await.unwrap().as_millis() - before.as_millis() >= 700);
    again.ack().await.unwrap();
    assert_eq!(subscription.peek(5).await.unwrap()[0].state, MessageState::Scheduled);
}

/// D8, G2: texts, numbers as texts and JSON as text stay what they are; what cannot be decoded is kept as a
/// dead letter.
async fn payloads_arrive_as_they_were_sent(world: World) {
    let (topic, subscription) = world.ready().await;
    let sent = [
        json!("hello"),
        json!("123"),
        json!(r#"{"a":1}"#),
        json!(null),
        json!(0.1),
        json!({ "$a": { "b.c": [1, "ü"] } }),
    ];
    let messages =
        sent.iter().map(|payload| PublishMessage::json(payload).header("type", "x").header("$odd.name", "1"));
    topic.publish_batch(messages).await.unwrap();
    let messages = take(&subscription, sent.len()).await;
    let came: Vec<Value> = messages.iter().map(|message| message.payload.clone()).collect();
    assert_eq!(came, sent);
    assert!(
        messages
            .iter()
            .all(|message| message.header("type") == Some("x") && message.header("$odd.name") == Some("1"))
    );
    subscription.ack_all(messages).await.unwrap();
    topic.publish_bytes(&b"\0\xff no json"[..], "application/octet-stream").await.unwrap();
    assert!(subscription.receive::<Value>(5).await.unwrap().is_empty());
    let dead = subscription.dead_letters().await.unwrap().items;
    assert_eq!(
        (dead.len(), &dead[0].message.payload[..], dead[0].reason.as_str()),
        (1, &b"\0\xff no json"[..], "undecodable")
    );
    assert_eq!(dead[0].message.content_type, "application/octet-stream");
}

/// D9: a full topic refuses, or drops its oldest if so configured, and counts them; it never drops in
/// silence.
async fn unread_and_pending_messages_are_never_trimmed(world: World) {
    let topic = world.topic("small");
    topic.ensure().max_len(100).await.unwrap();
    let subscription = calm(&topic, "s").await;
    let mut accepted = 0;
    let error = loop {
        match topic.publish(&json!({ "n": accepted })).await {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
        assert!(accepted <= 100);
    };
    assert_eq!((accepted, error.kind()), (100, ErrorKind::Full));
    let held = take(&subscription, 10).await;
    assert_eq!(
        topic.publish(&json!({ "n": 100 })).await.unwrap_err().kind(),
        ErrorKind::Full,
        "pending ones are owed, too"
    );
    let mut numbers: Vec<usize> = held.iter().map(|message| number(message)).collect();
    subscription.ack_all(held).await.unwrap();
    let rest = take(&subscription, 90).await;
    numbers.extend(rest.iter().map(|message| number(message)));
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
    subscription.ack_all(rest).await.unwrap();
    let dropping = world.topic("dropping");
    dropping.ensure().max_len(10).overflow(DiscardPolicy::DropOldest).await.unwrap();
    let subscription = calm(&dropping, "s").await;
    for n in 0..25 {
        dropping.publish(&json!({ "n": n })).await.unwrap();
    }
    let dropped = usize::try_from(dropping.stats().await.unwrap().dropped).unwrap();
    assert!(dropped >= 15);
    let left = take(&subscription, 25 - dropped).await;
    assert_eq!(
        left.iter().map(|message| number(message)).collect::<Vec<_>>(),
        (dropped..25).collect::<Vec<_>>()
    );
}

/// D10: what every subscription has settled takes no room.
async fn acknowledged_messages_are_removed(world: World) {
    let (topic, first) = world.ready().await;
    let second = calm(&topic, "second").await;
    publish(&topic, 0..50).await;
    let all = take(&first, 50).await;
    first.ack_all(all).await.unwrap();
    assert_eq!(topic.stats().await.unwrap().length, 50, "the other subscription needs them");
    let all = take(&second, 50).await;
    second.ack_all(all).await.unwrap();
    assert_eq!(topic.stats().await.unwrap().length, 0);
}

/// D13: handlers work beside each other, and retries come while a handler is at work.
async fn a_slow_handler_holds_up_nobody(world: World) {
    let (topic, subscription) = world.ready().await;
    let release = Arc::new(Notify::new());
    let retried = Arc::new(AtomicUsize::new(0));
    let handler = {
        let (release, retried) = (Arc::clone(&release), Arc::clone(&retried));
        move |message: Message<Value>| {
            let (release, retried) = (Arc::clone(&release), Arc::clone(&retried));
            async move {
                if number(&message) == 0 {
                    release.notified().await;
                } else if message.deliveries() == 1 {
                    return Err("once");
                } else {
                    retried.fetch_add(1, Ordering::SeqCst);
                }
                Ok(())
            }
        }
    };
    let runner = subscription.run(handler).concurrency(2).start().await.unwrap();
    publish(&topic, 0..40).await;
    // A handler counts while it is at work; it is settled a moment later.
    until("all others are retried, handled and settled", || async {
        retried.load(Ordering::SeqCst) == 39 && subscription.stats().await.unwrap().pending == 1
    })
    .await;
    release.notify_one();
    settled(&subscription).await;
    runner.stop().await.unwrap();
}

/// D13: fifty messages of consumers that are gone all come again, with those behind them.
async fn many_stuck_messages_hide_none(world: World) {
    let (topic, subscription) = world.ready().await;
    subscription.ensure().visibility(Duration::from_millis(400)).await.unwrap();
    publish(&topic, 0..50).await;
    let stuck: Vec<Received<Value>> = take(&subscription, 50).await;
    publish(&topic, 50..60).await;
    drop(stuck);
    // Not before: a renewal that was under way would hold them for the new time.
    world.abandoned(&subscription).await;
    subscription.ensure().visibility(Duration::from_secs(120)).await.unwrap();
    let mut numbers: Vec<usize> =
        take(&subscription, 60).await.iter().map(|message| number(message)).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..60).collect::<Vec<_>>());
}

//! What reaches a subscription, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Bus, TIMEOUT, calm, hasty, message, retry_after, text, texts, until};
use crate::Timestamp;
use crate::hot::{
    DeliverPolicy, HotTier, OutboundMessage, Settle, SettleAndStart, Settled, SubscriptionPatch, TopicPatch,
};

async fn starting(bus: &Bus, name: &str, start: DeliverPolicy) -> crate::SubscriptionName {
    bus.subscribe_with(name, calm().start(start)).await
}

/// A new subscription begins with what comes next.
pub async fn a_new_subscription_begins_with_what_comes_next(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let keeper = bus.subscribe("keeper").await;
    bus.publish(&["before"]).await;
    let subscription = bus.subscribe("s").await;
    bus.publish(&["after"]).await;
    assert_eq!(texts(&bus.take(&subscription, 1).await), ["after"]);
    bus.nothing(&subscription).await;
    assert_eq!(texts(&bus.take(&keeper, 2).await), ["before", "after"]);
}

/// A subscription can begin with the oldest message that is held.
pub async fn a_subscription_can_begin_with_the_oldest_message(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let keeper = bus.subscribe("keeper").await;
    bus.publish(&["a", "b"]).await;
    let subscription = starting(&bus, "s", DeliverPolicy::Earliest).await;
    bus.publish(&["c"]).await;
    assert_eq!(texts(&bus.take(&subscription, 3).await), ["a", "b", "c"]);
    let kept = bus.take(&keeper, 3).await;
    bus.ack(&keeper, &kept).await;
    bus.nothing(&subscription).await;
}

/// A subscription can begin at a time.
pub async fn a_subscription_can_begin_at_a_time(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let keeper = bus.subscribe("keeper").await;
    bus.publish(&["a"]).await;
    let first = bus.one(&keeper).await.message.published_at;
    until("the store's clock moves", || async { bus.hot.now().await.unwrap() > first }).await;
    bus.publish(&["b"]).await;
    let second = bus.one(&keeper).await.message.published_at;
    assert!(second > first);
    let subscription = starting(&bus, "s", DeliverPolicy::Time(second.as_millis())).await;
    bus.publish(&["c"]).await;
    assert_eq!(texts(&bus.take(&subscription, 2).await), ["b", "c"]);
    bus.nothing(&subscription).await;
}

/// A subscription can begin behind a message.
pub async fn a_subscription_can_begin_behind_a_message(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    bus.subscribe("keeper").await;
    let ids = bus.publish(&["a", "b", "c"]).await;
    let subscription = starting(&bus, "s", DeliverPolicy::Id(ids[0].clone())).await;
    bus.publish(&["d"]).await;
    assert_eq!(texts(&bus.take(&subscription, 3).await), ["b", "c", "d"]);
    bus.nothing(&subscription).await;
}

/// A start matters at creation alone.
pub async fn a_start_matters_at_creation_alone(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    bus.subscribe("keeper").await;
    bus.publish(&["a"]).await;
    let subscription = bus.subscribe("s").await;
    starting(&bus, "s", DeliverPolicy::Earliest).await;
    bus.nothing(&subscription).await;
    bus.publish(&["b"]).await;
    assert_eq!(texts(&bus.take(&subscription, 1).await), ["b"]);
    starting(&bus, "s", DeliverPolicy::Earliest).await;
    bus.nothing(&subscription).await;
}

/// A pull brings no more than asked for.
pub async fn a_pull_brings_no_more_than_asked_for(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    bus.publish(&["a", "b", "c"]).await;
    let none = bus.hot.pull(&subscription, 0).await.unwrap();
    assert!(none.deliveries.is_empty());
    let two = bus.hot.pull(&subscription, 2).await.unwrap();
    assert_eq!(texts(&two.deliveries), ["a", "b"]);
    let rest = bus.hot.pull(&subscription, 1_000).await.unwrap();
    assert_eq!(texts(&rest.deliveries), ["c"]);
}

/// A message in flight is not handed out again.
pub async fn a_message_in_flight_is_not_handed_out_again(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    bus.publish(&["a"]).await;
    let held = bus.one(&subscription).await;
    bus.nothing(&subscription).await;
    assert!(bus.start(&subscription, &held.lock).await);
    bus.nothing(&subscription).await;
    bus.ack(&subscription, &[held]).await;
    bus.nothing(&subscription).await;
}

/// Concurrent pullers never share a message, and miss none.
pub async fn concurrent_pullers_never_share_a_message(hot: Arc<dyn HotTier>) {
    const MESSAGES: usize = 2_000;
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    let done = Arc::new(AtomicUsize::new(0));
    let pullers: Vec<_> = (0..8)
        .map(|_| {
            let (bus, subscription, done) = (bus.clone(), subscription.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                let (mut mine, begun) = (Vec::new(), Instant::now());
                while done.load(Ordering::SeqCst) < MESSAGES {
                    let pulled = bus.hot.pull(&subscription, 25).await.unwrap().deliveries;
                    if pulled.is_empty() {
                        assert!(begun.elapsed() < TIMEOUT * 3, "messages are missing");
                        bus.hot.wait(&subscription, Duration::from_millis(50)).await.unwrap();
                        continue;
                    }
                    let start: Vec<_> = pulled.iter().map(|delivery| delivery.lock.clone()).collect();
                    let started = bus
                        .hot
                        .settle_and_start(&subscription, SettleAndStart { settle: Vec::new(), start })
                        .await
                        .unwrap();
                    assert!(started.started.iter().all(|started| *started));
                    bus.ack(&subscription, &pulled).await;
                    done.fetch_add(pulled.len(), Ordering::SeqCst);
                    mine.extend(pulled.into_iter().map(|delivery| delivery.lock.id));
                }
                mine
            })
        })
        .collect();
    let mut sent = BTreeSet::new();
    for n in 0..MESSAGES / 100 {
        sent.extend(bus.publish_all((0..100).map(|m| message(&format!("{n}/{m}"))).collect()).await);
    }
    let mut got = Vec::new();
    for puller in pullers {
        got.extend(puller.await.unwrap());
    }
    assert_eq!(got.len(), MESSAGES, "every message is handed out once");
    assert_eq!(got.into_iter().collect::<BTreeSet<_>>(), sent);
    bus.at_rest(&subscription).await;
    let stats = bus.stats(&subscription).await;
    assert_eq!((stats.deliveries, stats.acked), (MESSAGES as u64, MESSAGES as u64));
}

fn typed(kind: &str, amount: i64) -> OutboundMessage {
    OutboundMessage {
        payload: Bytes::from(
            chronos_db::json!({ "text": format!("{kind}{amount}"), "amount": amount, "tags": [kind] })
                .to_string(),
        ),
        headers: BTreeMap::from([("type".to_owned(), kind.to_owned())]),
        ..OutboundMessage::default()
    }
}

/// A filter sees payload and headers.
pub async fn a_filter_sees_payload_and_headers(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let filters = [
        ("amount", chronos_db::json!({ "payload.amount": { "$gt": 10 } }), vec!["a20", "b30"]),
        ("type", chronos_db::json!({ "headers.type": "b" }), vec!["b5", "b30"]),
        (
            "both",
            chronos_db::json!({ "$and": [{ "headers.type": "b" }, { "payload.amount": { "$lte": 10 } }] }),
            vec!["b5"],
        ),
        ("tags", chronos_db::json!({ "payload.tags": { "$in": ["a"] } }), vec!["a1", "a20"]),
        ("none", chronos_db::json!({ "payload.amount": { "$exists": false } }), vec![]),
    ];
    let mut subscriptions = Vec::new();
    for (name, filter, expected) in filters {
        let patch = calm().filter(Some(filter));
        subscriptions.push((bus.subscribe_with(name, patch).await, expected));
    }
    bus.publish_all(vec![typed("a", 1), typed("b", 5), typed("a", 20), typed("b", 30)]).await;
    for (subscription, expected) in subscriptions {
        assert_eq!(texts(&bus.take(&subscription, expected.len()).await), expected, "{subscription}");
        bus.nothing(&subscription).await;
    }
}

/// What a filter leaves out is settled, and held for nobody.
pub async fn what_a_filter_leaves_out_is_settled(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let filter = chronos_db::json!({ "headers.type": "a" });
    let subscription = bus.subscribe_with("s", calm().filter(Some(filter))).await;
    bus.publish_all((0..50).map(|n| typed("b", n)).chain([typed("a", 7)]).collect()).await;
    let got = bus.take(&subscription, 1).await;
    assert_eq!(texts(&got), ["a7"]);
    bus.ack(&subscription, &got).await;
    bus.nothing(&subscription).await;
    bus.at_rest(&subscription).await;
    let stats = bus.stats(&subscription).await;
    assert_eq!((stats.dead_letters, stats.acked), (0, 1));
    until("left out messages go", || async { bus.hot.stats(&bus.topic).await.unwrap().length == 0 }).await;
}

/// What a filter leaves out is nobody's dead letter, however old it is.
pub async fn what_a_filter_leaves_out_does_not_expire(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let filter = chronos_db::json!({ "headers.kind": "mine" });
    let subscription = bus.subscribe_with("s", hasty().filter(Some(filter))).await;
    let brief = |text: &str, kind: &str, key: Option<&str>| OutboundMessage {
        headers: BTreeMap::from([("kind".to_owned(), kind.to_owned())]),
        ttl: Some(Duration::from_millis(1)),
        key: key.map(str::to_owned),
        ..message(text)
    };
    let sent =
        [("1", "other", None), ("2", "mine", None), ("3", "other", Some("k")), ("4", "mine", Some("k"))];
    bus.publish_all(sent.iter().map(|(text, kind, key)| brief(text, kind, *key)).collect()).await;
    let published = bus.hot.now().await.unwrap();
    until("they are too old", || async {
        bus.hot.now().await.unwrap().as_millis() > published.as_millis() + 1
    })
    .await;
    until("all are looked at", || async {
        bus.nothing(&subscription).await;
        let stats = bus.stats(&subscription).await;
        stats.backlog + stats.pending + stats.scheduled == 0
    })
    .await;
    let dead = bus.dead(&subscription).await;
    assert_eq!(
        dead.iter().map(|letter| (text(&letter.message.payload), letter.reason.as_str())).collect::<Vec<_>>(),
        [("2".to_owned(), "expired"), ("4".to_owned(), "expired")]
    );
    assert_eq!(bus.hot.stats(&bus.topic).await.unwrap().length, 0);
}

/// A number beyond 64 bits changes nothing for a filter that does not name it, and one that is named compares
/// by its size.
pub async fn a_filter_sees_past_numbers_that_nothing_else_can_hold(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let filters = [
        ("kind", chronos_db::json!({ "payload.kind": "a" }), vec!["1", "2", "3"]),
        ("not", chronos_db::json!({ "payload.kind": { "$ne": "b" } }), vec!["1", "2", "3"]),
        (
            "big",
            chronos_db::json!({ "payload.n": { "$gt": 9_223_372_036_854_775_807_i64 } }),
            vec!["2", "3", "4"],
        ),
        (
            "bigger",
            chronos_db::json!({ "payload.n": { "$gte": 18_446_744_073_709_551_616_i128 } }),
            vec!["3", "4"],
        ),
    ];
    let mut subscriptions = Vec::new();
    for (name, filter, expected) in filters {
        let patch = calm().filter(Some(filter));
        subscriptions.push((bus.subscribe_with(name, patch).await, expected));
    }
    let sent = [
        ("1", "a", "9223372036854775807"),
        ("2", "a", "9223372036854775809"),
        ("3", "a", "18446744073709551616"),
        ("4", "b", "1e400"),
    ];
    let message = |(text, kind, n): (&str, &str, &str)| OutboundMessage {
        payload: Bytes::from(format!(r#"{{"text":"{text}","kind":"{kind}","n":{n}}}"#)),
        ..OutboundMessage::default()
    };
    bus.publish_all(sent.map(message).into()).await;
    for (subscription, expected) in subscriptions {
        assert_eq!(texts(&bus.take(&subscription, expected.len()).await), expected, "{subscription}");
        bus.nothing(&subscription).await;
    }
}

/// A filter sees no payload that is not JSON, and its headers all the same.
pub async fn a_filter_sees_no_payload_that_is_not_json(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let filter = chronos_db::json!({ "payload": null, "headers.type": "x" });
    let subscription = bus.subscribe_with("s", calm().filter(Some(filter))).await;
    let headers = BTreeMap::from([("type".to_owned(), "x".to_owned())]);
    let octets = OutboundMessage {
        payload: Bytes::from_static(b"\xff\0{"),
        content_type: "application/octet-stream".to_owned(),
        headers: headers.clone(),
        ..OutboundMessage::default()
    };
    let broken = OutboundMessage { payload: Bytes::from_static(b"{"), headers, ..OutboundMessage::default() };
    bus.publish_all(vec![octets, broken, typed("x", 1)]).await;
    let got = bus.take(&subscription, 2).await;
    assert_eq!(got[0].message.payload.as_ref(), b"\xff\0{");
    assert_eq!(got[1].message.payload.as_ref(), b"{");
    bus.nothing(&subscription).await;
}

/// A paused subscription hands out nothing until it is resumed; what is in flight can be settled.
pub async fn a_paused_subscription_hands_out_nothing(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    bus.publish(&["a", "b"]).await;
    let first = bus.one(&subscription).await;
    bus.subscribe_with("s", SubscriptionPatch::default().paused(true)).await;
    bus.nothing(&subscription).await;
    bus.publish(&["c"]).await;
    bus.nothing(&subscription).await;
    assert!(bus.start(&subscription, &first.lock).await);
    bus.ack(&subscription, &[first]).await;
    let stats = bus.stats(&subscription).await;
    assert!(stats.paused);
    assert_eq!((stats.backlog, stats.acked), (2, 1));
    bus.subscribe_with("s", SubscriptionPatch::default().paused(false)).await;
    assert_eq!(texts(&bus.take(&subscription, 2).await), ["b", "c"]);
}

/// An expired message becomes a dead letter of every subscription that has not started it.
pub async fn an_expired_message_becomes_a_dead_letter(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let (slow, quick) = (bus.subscribe("slow").await, bus.subscribe("quick").await);
    // Long enough to be taken by the quick one, on any machine.
    bus.publish_all(vec![
        OutboundMessage { ttl: Some(Duration::from_millis(4_000)), ..message("short") },
        message("long"),
    ])
    .await;
    let got = bus.take(&quick, 2).await;
    bus.ack(&quick, &got).await;
    let end = got[0].message.published_at.plus_millis(4_000);
    until("the lifetime ends", || async { bus.hot.now().await.unwrap() > end }).await;
    assert_eq!(texts(&bus.take(&slow, 1).await), ["long"]);
    bus.nothing(&slow).await;
    let dead = bus.dead(&slow).await;
    assert_eq!(dead.len(), 1);
    assert_eq!(
        (text(&dead[0].message.payload).as_str(), dead[0].reason.as_str(), dead[0].deliveries),
        ("short", "expired", 0)
    );
    assert!(bus.dead(&quick).await.is_empty());
}

/// A topic's lifetime holds for messages without their own.
pub async fn a_topics_lifetime_holds_for_messages_without_their_own(hot: Arc<dyn HotTier>) {
    let bus = Bus::with(hot, TopicPatch::default().ttl(Some(Duration::from_millis(300)))).await;
    let subscription = bus.subscribe("s").await;
    bus.publish_all(vec![
        message("default"),
        OutboundMessage { ttl: Some(Duration::from_secs(3_600)), ..message("own") },
    ])
    .await;
    let published = Instant::now();
    until("the lifetime ends", || async { published.elapsed() > Duration::from_millis(400) }).await;
    assert_eq!(texts(&bus.take(&subscription, 1).await), ["own"]);
    until("the other one expires", || async {
        bus.nothing(&subscription).await;
        bus.dead(&subscription)
            .await
            .iter()
            .any(|dead| text(&dead.message.payload) == "default" && dead.reason == "expired")
    })
    .await;
}

/// A started message does not expire.
pub async fn a_started_message_does_not_expire(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    // Long enough to be started by, on any machine.
    bus.send(OutboundMessage { ttl: Some(Duration::from_millis(4_000)), ..message("a") }).await;
    let delivery = bus.one(&subscription).await;
    assert!(bus.start(&subscription, &delivery.lock).await);
    let end = delivery.message.published_at.plus_millis(4_000);
    until("the lifetime ends", || async { bus.hot.now().await.unwrap() > end }).await;
    bus.nothing(&subscription).await;
    assert_eq!(bus.settle(&subscription, &delivery.lock, Settle::Ack).await, Settled::Done);
    assert!(bus.dead(&subscription).await.is_empty());
}

/// A wait ends when something is published.
pub async fn a_wait_ends_when_something_is_published(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    let waiting = {
        let (bus, subscription) = (bus.clone(), subscription.clone());
        tokio::spawn(async move { bus.hot.wait(&subscription, TIMEOUT * 10).await })
    };
    let begun = Instant::now();
    // It may not have begun to wait by the first one.
    while !waiting.is_finished() {
        assert!(begun.elapsed() < TIMEOUT, "the wait doesn't see what is published");
        bus.publish(&["a"]).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    waiting.await.unwrap().unwrap();
    bus.one(&subscription).await;
}

/// A wait ends in time, and several waits don't hold up each other or anything else.
pub async fn a_wait_ends_in_time(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    let long: Vec<_> = (0..4)
        .map(|_| {
            let (bus, subscription) = (bus.clone(), subscription.clone());
            tokio::spawn(async move { bus.hot.wait(&subscription, Duration::from_secs(600)).await })
        })
        .collect();
    let begun = Instant::now();
    bus.hot.wait(&subscription, Duration::from_millis(200)).await.unwrap();
    bus.hot.get(&bus.scope, &["k".to_owned()]).await.unwrap();
    bus.nothing(&subscription).await;
    assert!(begun.elapsed() < TIMEOUT);
    for wait in long {
        wait.abort();
    }
    bus.publish(&["a"]).await;
    bus.one(&subscription).await;
}

/// A pull says when to come again.
pub async fn a_pull_says_when_to_come_again(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    let due = bus.hot.now().await.unwrap().plus_millis(600_000);
    bus.send(OutboundMessage { not_before: Some(due), ..message("scheduled") }).await;
    let pulled = bus.hot.pull(&subscription, 10).await.unwrap();
    let next = pulled.next_due.unwrap();
    assert!(pulled.deliveries.is_empty() && next <= Duration::from_secs(600), "{next:?}");
    bus.publish(&["a"]).await;
    bus.handle(&subscription, retry_after(Duration::from_secs(300))).await;
    let next = bus.hot.pull(&subscription, 10).await.unwrap().next_due.unwrap();
    assert!(next <= Duration::from_secs(300), "{next:?}");
}

/// A replay reaches one subscription only.
pub async fn a_replay_reaches_one_subscription_only(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let (one, two) = (bus.subscribe("one").await, bus.subscribe("two").await);
    let ids = bus.publish(&["a", "b"]).await;
    let mut published_at: Vec<Timestamp> = Vec::new();
    for subscription in [&one, &two] {
        let got = bus.take(subscription, 2).await;
        bus.ack(subscription, &got).await;
        published_at = got.iter().map(|delivery| delivery.message.published_at).collect();
    }
    let headers = BTreeMap::from([("type".to_owned(), "again".to_owned())]);
    let kept = ["a", "b"].map(|text| OutboundMessage { headers: headers.clone(), ..message(text) });
    let messages = ids
        .iter()
        .cloned()
        .zip(published_at)
        .zip(kept)
        .map(|((id, published_at), message)| message.stored(id, published_at))
        .collect();
    assert_eq!(bus.hot.replay(&two, messages).await.unwrap(), 2);
    let mut again = bus.take(&two, 2).await;
    again.sort_by_key(|delivery| text(&delivery.message.payload));
    assert_eq!(texts(&again), ["a", "b"]);
    assert!(again.iter().all(|delivery| delivery.deliveries == 0 && delivery.message.headers == headers));
    bus.nothing(&one).await;
    bus.ack(&two, &again).await;
    bus.at_rest(&two).await;
    bus.at_rest(&one).await;
}

//! What publishing promises.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Bus, TIMEOUT, message, text, texts, until};
use crate::hot::{HotTier, MAX_HEADER_BYTES, MAX_KEY_BYTES, OutboundMessage, TopicPatch};

/// A message arrives as it was published.
pub async fn a_message_arrives_as_it_was_published(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    let headers = BTreeMap::from([
        ("type".to_owned(), "order.created".to_owned()),
        ("traceparent".to_owned(), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        ("with.dots and $igns".to_owned(), "ü \"quoted\"\nline".to_owned()),
        ("empty".to_owned(), String::new()),
    ]);
    let sent = OutboundMessage {
        payload: Bytes::from_static(b"{ \"n\": 1.50, \"big\": 12345678901234567890123 }"),
        content_type: "application/vnd.order+json".to_owned(),
        headers: headers.clone(),
        key: Some("customer:{7}".to_owned()),
        ..OutboundMessage::default()
    };
    let before = bus.hot.now().await.unwrap();
    let published = bus.send(sent.clone()).await;
    let after = bus.hot.now().await.unwrap();
    assert!(!published.id.is_empty() && !published.duplicate);
    let got = bus.one(&subscription).await;
    assert_eq!(got.lock.id, published.id);
    assert_eq!(
        (got.message.payload, got.message.content_type, got.message.headers, got.message.key),
        (sent.payload, sent.content_type, sent.headers, sent.key)
    );
    assert_eq!(got.deliveries, 0);
    assert!(
        before <= got.message.published_at && got.message.published_at <= after,
        "{before} <= {} <= {after}",
        got.message.published_at
    );
    assert!(got.locked_until > after);
}

/// Any bytes survive, the empty ones too.
pub async fn any_bytes_survive(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    let all: Vec<u8> = (0..=255).collect();
    let payloads = [all.as_slice(), b"", b"\0", b"\xff\xfe", b"not json", b"\r\n$5\r\n*3\r\n"];
    for payload in payloads {
        let content_type = "application/octet-stream".to_owned();
        bus.send(OutboundMessage {
            payload: Bytes::copy_from_slice(payload),
            content_type,
            ..OutboundMessage::default()
        })
        .await;
    }
    for (got, sent) in bus.take(&subscription, payloads.len()).await.iter().zip(payloads) {
        assert_eq!(got.message.payload, sent);
        assert_eq!(got.message.content_type, "application/octet-stream");
    }
}

/// A payload of a megabyte survives.
pub async fn a_payload_of_a_megabyte_survives(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    let payload = Bytes::from((0..1_048_576_u32).map(|n| (n * 31 % 251) as u8).collect::<Vec<_>>());
    bus.send(OutboundMessage {
        payload: payload.clone(),
        content_type: "x/y".to_owned(),
        ..OutboundMessage::default()
    })
    .await;
    let got = bus.one(&subscription).await;
    assert!(got.message.payload == payload, "the bytes differ");
}

/// Messages arrive in the order of their acceptance.
pub async fn messages_arrive_in_the_order_of_their_acceptance(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    let sent: Vec<String> = (0..60).map(|n| format!("m{n:02}")).collect();
    let mut ids = Vec::new();
    for batch in sent.chunks(7) {
        ids.extend(bus.publish(&batch.iter().map(String::as_str).collect::<Vec<_>>()).await);
    }
    let mut got = Vec::new();
    while got.len() < sent.len() {
        got.extend(bus.take(&subscription, 5).await);
    }
    assert_eq!(texts(&got), sent);
    assert_eq!(got.iter().map(|delivery| delivery.lock.id.clone()).collect::<Vec<_>>(), ids);
}

/// Ids are unique, whichever process publishes.
pub async fn ids_are_unique(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let publishers = (0..10).map(|_| {
        let bus = bus.clone();
        tokio::spawn(async move {
            let mut ids = Vec::new();
            for _ in 0..5 {
                ids.extend(bus.publish(&["a", "b"]).await);
            }
            ids
        })
    });
    let mut seen = BTreeSet::new();
    for ids in futures::future::join_all(publishers).await {
        for id in ids.unwrap() {
            assert!(seen.insert(id.clone()), "{id} was given out twice");
        }
    }
    assert_eq!(seen.len(), 100);
}

/// An empty batch is nothing.
pub async fn an_empty_batch_is_nothing(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    assert!(bus.hot.publish(&bus.topic, Vec::new()).await.unwrap().is_empty());
    assert_eq!(bus.hot.stats(&bus.topic).await.unwrap().length, 0);
}

/// Every subscription gets every message.
pub async fn every_subscription_gets_every_message(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let (one, two) = (bus.subscribe("one").await, bus.subscribe("two").await);
    bus.publish(&["a", "b", "c"]).await;
    for subscription in [&one, &two] {
        assert_eq!(texts(&bus.take(subscription, 3).await), ["a", "b", "c"]);
        bus.nothing(subscription).await;
    }
}

fn once(id: &str, text: &str) -> OutboundMessage {
    OutboundMessage { dedup_id: Some(id.to_owned()), ..message(text) }
}

/// A dedup id is accepted once within its window.
pub async fn a_dedup_id_is_accepted_once_within_its_window(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    let first = bus.send(once("order-1", "first")).await;
    let delivery = bus.one(&subscription).await;
    bus.ack(&subscription, &[delivery]).await;
    let second = bus.send(once("order-1", "second")).await;
    assert!(!first.duplicate && second.duplicate, "a settled message is remembered, too");
    assert_eq!(first.id, second.id);
    assert!(!bus.send(once("order-2", "third")).await.duplicate);
    assert_eq!(texts(&bus.take(&subscription, 1).await), ["third"]);
    bus.nothing(&subscription).await;
}

/// A dedup id is accepted again after its window, which repeated attempts don't prolong.
pub async fn a_dedup_id_is_accepted_again_after_its_window(hot: Arc<dyn HotTier>) {
    let bus = Bus::with(hot, TopicPatch::default().dedup_window(Duration::from_millis(500))).await;
    let first = bus.send(once("order", "first")).await;
    let begun = std::time::Instant::now();
    let again = loop {
        let again = bus.send(once("order", "again")).await;
        if !again.duplicate {
            break again;
        }
        assert_eq!(again.id, first.id);
        assert!(begun.elapsed() < TIMEOUT, "the window never ends");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_ne!(again.id, first.id);
}

/// A dedup id counts within one batch.
pub async fn a_dedup_id_counts_within_one_batch(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    let batch = vec![once("x", "a"), once("y", "b"), once("x", "c"), message("d")];
    let published = bus.hot.publish(&bus.topic, batch).await.unwrap();
    assert_eq!(published.iter().map(|one| one.duplicate).collect::<Vec<_>>(), [false, false, true, false]);
    assert_eq!(published[0].id, published[2].id);
    assert_eq!(texts(&bus.take(&subscription, 3).await), ["a", "b", "d"]);
    bus.nothing(&subscription).await;
}

/// Of concurrent publishes of one dedup id one is accepted, and all name it.
pub async fn of_concurrent_publishes_of_one_dedup_id_one_is_accepted(hot: Arc<dyn HotTier>) {
    let bus = Bus::with(hot, TopicPatch::default().shards(4)).await;
    let subscription = bus.subscribe("s").await;
    let publishers = (0..12).map(|n| {
        let bus = bus.clone();
        tokio::spawn(async move { bus.send(once("same", &n.to_string())).await })
    });
    let published: Vec<_> =
        futures::future::join_all(publishers).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(published.iter().filter(|one| !one.duplicate).count(), 1, "{published:?}");
    assert_eq!(published.iter().map(|one| &one.id).collect::<BTreeSet<_>>().len(), 1);
    bus.one(&subscription).await;
    bus.nothing(&subscription).await;
}

/// Dedup ids of topics do not mix.
pub async fn dedup_ids_of_topics_do_not_mix(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let other = bus.other("other").await;
    assert!(!bus.send(once("x", "a")).await.duplicate);
    assert!(!other.send(once("x", "a")).await.duplicate);
}

/// A scheduled message does not come early, and does not hold up others.
pub async fn a_scheduled_message_does_not_come_early(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    let far = bus.hot.now().await.unwrap().plus_millis(3_600_000);
    bus.send(OutboundMessage { not_before: Some(far), ..message("far") }).await;
    bus.publish(&["now"]).await;
    assert_eq!(texts(&bus.take(&subscription, 1).await), ["now"]);
    let due = bus.hot.now().await.unwrap().plus_millis(500);
    bus.send(OutboundMessage { not_before: Some(due), ..message("late") }).await;
    let late = bus.one(&subscription).await;
    assert_eq!(text(&late.message.payload), "late");
    assert!(bus.hot.now().await.unwrap() >= due);
    bus.nothing(&subscription).await;
}

/// A time that has passed is now.
pub async fn a_time_that_has_passed_is_now(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    let past = bus.hot.now().await.unwrap().plus_millis(-60_000);
    bus.send(OutboundMessage { not_before: Some(past), ..message("a") }).await;
    assert_eq!(texts(&bus.take(&subscription, 1).await), ["a"]);
}

/// A scheduled message can be cancelled, once, and then reaches nobody.
pub async fn a_scheduled_message_can_be_cancelled(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let (one, two) = (bus.subscribe("one").await, bus.subscribe("two").await);
    let far = bus.hot.now().await.unwrap().plus_millis(3_600_000);
    let cancelled = bus.send(OutboundMessage { not_before: Some(far), ..message("cancelled") }).await;
    bus.send(OutboundMessage { not_before: Some(far), ..message("kept") }).await;
    assert_eq!(bus.stats(&one).await.scheduled, 2);
    assert!(bus.hot.cancel(&bus.topic, &cancelled.id).await.unwrap());
    assert!(!bus.hot.cancel(&bus.topic, &cancelled.id).await.unwrap());
    for subscription in [&one, &two] {
        assert_eq!(bus.stats(subscription).await.scheduled, 1);
        let peeked = bus.hot.peek(subscription, 10).await.unwrap();
        assert_eq!(peeked.iter().map(|message| text(&message.message.payload)).collect::<Vec<_>>(), ["kept"]);
    }
    assert_eq!(bus.hot.stats(&bus.topic).await.unwrap().length, 1);
}

/// The dedup id of a cancelled message is free again, also on a sharded topic; those of others are not.
pub async fn the_id_of_a_cancelled_message_is_free_again(hot: Arc<dyn HotTier>) {
    for shards in [1, 3] {
        let bus = Bus::with(Arc::clone(&hot), TopicPatch::default().shards(shards)).await;
        let subscription = bus.subscribe("s").await;
        let far = bus.hot.now().await.unwrap().plus_millis(3_600_000);
        let with_id =
            |id: &str, text: &str| OutboundMessage { dedup_id: Some(id.to_owned()), ..message(text) };
        let later = |id: &str, text: &str| OutboundMessage { not_before: Some(far), ..with_id(id, text) };
        let ids =
            bus.publish_all(vec![later("one", "cancelled"), later("two", "kept"), message("plain")]).await;
        assert!(bus.hot.cancel(&bus.topic, &ids[0]).await.unwrap());
        assert!(bus.send(with_id("two", "again")).await.duplicate);
        let again = bus.send(with_id("one", "instead")).await;
        assert!(!again.duplicate && again.id != ids[0]);
        assert!(bus.send(with_id("one", "once more")).await.duplicate);
        let mut got = texts(&bus.take(&subscription, 2).await);
        got.sort_unstable();
        assert_eq!(got, ["instead", "plain"]);
        bus.nothing(&subscription).await;
    }
}

/// Headers, ordering keys and dedup ids have limits, and what is at them survives. What is beyond is refused
/// with all of its batch.
pub async fn headers_keys_and_ids_are_limited(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    let headers = |bytes: usize| BTreeMap::from([("h".to_owned(), "x".repeat(bytes - 1))]);
    let text_of = |bytes: usize| Some("k".repeat(bytes));
    let most = OutboundMessage {
        headers: headers(MAX_HEADER_BYTES),
        key: text_of(MAX_KEY_BYTES),
        dedup_id: text_of(MAX_KEY_BYTES),
        ..message("most")
    };
    for beyond in [
        OutboundMessage { headers: headers(MAX_HEADER_BYTES + 1), ..message("headers") },
        OutboundMessage { key: text_of(MAX_KEY_BYTES + 1), ..message("key") },
        OutboundMessage { dedup_id: text_of(MAX_KEY_BYTES + 1), ..message("id") },
    ] {
        let error = bus.hot.publish(&bus.topic, vec![message("neighbour"), beyond]).await.unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Validation);
        assert!(error.message().contains("may have"), "{error}");
    }
    bus.send(most.clone()).await;
    let got = bus.one(&subscription).await;
    assert_eq!((got.message.headers, got.message.key), (most.headers, most.key));
    bus.nothing(&subscription).await;
}

/// What is not scheduled (any more) cannot be cancelled.
pub async fn what_is_not_scheduled_cannot_be_cancelled(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    let ids = bus.publish(&["a"]).await;
    assert!(!bus.hot.cancel(&bus.topic, &ids[0]).await.unwrap());
    assert!(!bus.hot.cancel(&bus.topic, "no-such-message").await.unwrap());
    bus.one(&subscription).await;
    let due = bus.hot.now().await.unwrap().plus_millis(50);
    let soon = bus.send(OutboundMessage { not_before: Some(due), ..message("soon") }).await;
    assert_eq!(texts(&bus.take(&subscription, 1).await), ["soon"]);
    assert!(!bus.hot.cancel(&bus.topic, &soon.id).await.unwrap(), "it has been handed out");
}

/// What is due cannot be cancelled, although nobody has pulled it yet.
pub async fn what_is_due_cannot_be_cancelled_although_nobody_pulled_it(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    let now = bus.hot.now().await.unwrap();
    let due = now.plus_millis(50);
    let soon = bus.send(OutboundMessage { not_before: Some(due), ..message("soon") }).await;
    until("its time has come", || async { bus.hot.now().await.unwrap() > due }).await;
    assert!(!bus.hot.cancel(&bus.topic, &soon.id).await.unwrap());
    assert_eq!(texts(&bus.take(&subscription, 1).await), ["soon"]);
}

/// A sharded topic delivers everything once.
pub async fn a_sharded_topic_delivers_everything_once(hot: Arc<dyn HotTier>) {
    let bus = Bus::with(hot, TopicPatch::default().shards(4)).await;
    let subscription = bus.subscribe("s").await;
    let sent: BTreeSet<String> = (0..100).map(|n| format!("m{n}")).collect();
    for (n, chunk) in sent.iter().collect::<Vec<_>>().chunks(10).enumerate() {
        let key = (n % 2 == 0).then(|| format!("k{n}"));
        bus.publish_all(
            chunk.iter().map(|text| OutboundMessage { key: key.clone(), ..message(text) }).collect(),
        )
        .await;
    }
    let mut got = Vec::new();
    while got.len() < sent.len() {
        let some = bus.take(&subscription, 1).await;
        bus.ack(&subscription, &some).await;
        got.extend(texts(&some));
    }
    assert_eq!(got.into_iter().collect::<BTreeSet<_>>(), sent);
    bus.nothing(&subscription).await;
    bus.at_rest(&subscription).await;
}

/// Concurrent publishers lose nothing, and each one's messages keep their order.
pub async fn concurrent_publishers_lose_nothing(hot: Arc<dyn HotTier>) {
    let bus = Bus::new(hot).await;
    let subscription = bus.subscribe("s").await;
    let publishers = (0..8).map(|p| {
        let bus = bus.clone();
        tokio::spawn(async move {
            for n in 0..20 {
                bus.publish(&[&format!("{p}/{n:02}a"), &format!("{p}/{n:02}b")]).await;
            }
        })
    });
    for published in futures::future::join_all(publishers).await {
        published.unwrap();
    }
    let got = texts(&bus.take(&subscription, 320).await);
    for p in 0..8 {
        let mine: Vec<_> = got.iter().filter(|text| text.starts_with(&format!("{p}/"))).collect();
        assert_eq!(mine.len(), 40);
        assert!(mine.is_sorted(), "messages of one publisher changed their order: {mine:?}");
    }
    bus.nothing(&subscription).await;
}

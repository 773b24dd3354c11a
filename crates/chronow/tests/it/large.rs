//! Payloads that are too large for the hot tier.

use std::sync::Arc;
use std::time::Duration;

use chronos_db::{Json as Value, json};
use chronow::hot::{DeliverPolicy, DiscardPolicy};
use chronow::{Ack, Chronow, Config, ErrorKind, Message, Outcome, PublishMessage, Subscription, Topic};
use futures::StreamExt as _;
use parking_lot::Mutex;

use crate::stores::{Stores, on_every_store};
use crate::tiers::{until, within};

on_every_store! {
    a_large_payload_arrives_whole_by_every_way,
    a_large_payload_goes_when_nobody_needs_it_any_more,
    a_large_dead_letter_is_shown_whole_and_can_be_redriven,
    a_large_message_is_replayed_from_its_warm_copy,
    large_messages_that_were_not_accepted_leave_nothing,
    purging_and_deleting_a_topic_remove_large_payloads,
    a_payload_that_is_gone_makes_a_dead_letter,
    a_large_message_that_expires_takes_its_payload_with_it_in_the_end,
    what_is_too_large_for_any_tier_is_refused,
}

fn large(n: usize) -> Value {
    json!({"n": n, "text": "x".repeat(5_000)})
}

async fn topic(chronow: &Chronow) -> (Topic, Subscription) {
    let topic = chronow.bus().topic("films").unwrap();
    topic.ensure().await.unwrap();
    let subscription = topic.subscription("s").unwrap();
    subscription.ensure().backoff([Duration::ZERO]).jitter_percent(0).await.unwrap();
    (topic, subscription)
}

async fn a_large_payload_arrives_whole_by_every_way(stores: Stores) {
    let chronow = stores.connect().await;
    let (topic, subscription) = topic(&chronow).await;
    let messages = (0..4).map(|n| PublishMessage::json(&large(n)).header("n", n.to_string()).key("k"));
    let ids: Vec<String> =
        topic.publish_batch(messages).await.unwrap().into_iter().map(|published| published.id).collect();
    assert_eq!(stores.objects().await.len(), 4);
    let peeked = subscription.peek(10).await.unwrap();
    let first: Value = Value::parse(&peeked[0].message.payload).unwrap();
    assert_eq!((first, peeked[0].message.headers.len()), (large(0), 1), "a peek shows what was published");

    let mut stream = subscription.consume::<Value>().await.unwrap();
    let message = within(stream.next()).await.unwrap().unwrap();
    assert_eq!((message.id(), &message.payload), (ids[0].as_str(), &large(0)));
    assert_eq!((message.content_type(), message.headers().len(), message.key()), ("", 1, Some("k")));
    message.ack().await.unwrap();
    let message = within(stream.next()).await.unwrap().unwrap();
    message.defer().await.unwrap();
    stream.close().await.unwrap();
    let deferred = subscription.fetch_deferred::<Value>(vec![ids[1].clone()]).await.unwrap().remove(0);
    assert_eq!(deferred.payload, large(1));
    deferred.ack().await.unwrap();
    let received = subscription.receive::<Value>(1).await.unwrap().remove(0);
    assert_eq!(received.payload, large(2));
    received.ack().await.unwrap();
    topic.publish_bytes(vec![0_u8; 2_000], "x/y").await.unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let handler = move |message: Message<bytes::Bytes>| {
        log.lock().push((message.payload.len(), message.content_type().to_owned()));
        async {}
    };
    let runner = subscription.run_bytes(handler).limit(2).start().await.unwrap();
    within(runner.join()).await.unwrap();
    let mut seen = seen.lock().clone();
    seen.sort_unstable();
    assert_eq!(seen, [(2_000, "x/y".to_owned()), (large(3).to_string().len(), String::new())]);
}

async fn a_large_payload_goes_when_nobody_needs_it_any_more(stores: Stores) {
    let chronow = stores.connect().await;
    let (topic, subscription) = topic(&chronow).await;
    let other = topic.subscription("other").unwrap();
    other.ensure().await.unwrap();
    topic.publish(&large(1)).await.unwrap();
    subscription.ack_all(subscription.receive::<Value>(1).await.unwrap()).await.unwrap();
    // Several looks later it is still there: the other subscription has not read it.
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_millis(2_500) {
        assert_eq!(stores.objects().await.len(), 1);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Another process takes over.
    chronow.close().await.unwrap();
    let chronow = stores.connect().await;
    let other = chronow.bus().topic("films").unwrap().subscription("other").unwrap();
    let message = other.receive::<Value>(1).await.unwrap().remove(0);
    assert_eq!(message.payload, large(1));
    message.ack().await.unwrap();
    until("the payload is removed", || async { stores.objects().await.is_empty() }).await;
    until("nothing is held", || async {
        chronow.bus().topic("films").unwrap().stats().await.unwrap().length == 0
    })
    .await;
}

async fn a_large_dead_letter_is_shown_whole_and_can_be_redriven(stores: Stores) {
    let chronow = stores.connect().await;
    let (topic, subscription) = topic(&chronow).await;
    subscription.ensure().max_deliveries(2).await.unwrap();
    topic.publish(&large(1)).await.unwrap();
    let handler = |message: Message<Value>| async move {
        assert_eq!(message.payload, large(1));
        Outcome::from(Err::<(), _>("broken"))
    };
    let runner = subscription.run(handler).limit(2).start().await.unwrap();
    within(runner.join()).await.unwrap();
    let dead = subscription.dead_letters().await.unwrap().items;
    assert_eq!((dead.len(), dead[0].reason.as_str(), dead[0].deliveries), (1, "broken", 2));
    assert_eq!(serde_json::from_slice::<Value>(&dead[0].message.payload).unwrap(), large(1));
    assert_eq!(subscription.redrive().await.unwrap(), 1);
    let again = subscription.receive::<Value>(1).await.unwrap().remove(0);
    assert_eq!((&again.payload, again.deliveries()), (&large(1), 1));
    again.dead_letter("useless").await.unwrap();
    assert_eq!(stores.objects().await.len(), 1, "a dead letter has its payload");
    assert_eq!(subscription.purge_dead_letters().await.unwrap(), 1);
    until("the payload is removed", || async { stores.objects().await.is_empty() }).await;
}

async fn a_large_message_is_replayed_from_its_warm_copy(stores: Stores) {
    let chronow = stores.connect().await;
    let (topic, subscription) = topic(&chronow).await;
    let published = topic.publish(&large(1)).ack(Ack::Warm).await.unwrap();
    let copies = stores.chronos.messaging("default").unwrap().messages();
    let copy = copies.get("films", published.id.as_str()).await.unwrap().unwrap();
    assert_eq!(copy.size, large(1).to_string().len() as u64);
    subscription.ack_all(subscription.receive::<Value>(1).await.unwrap()).await.unwrap();
    let late = topic.subscription("late").unwrap();
    late.ensure().start(DeliverPolicy::New).await.unwrap();
    // As long as there is a copy there is a payload.
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_millis(2_500) {
        assert_eq!(stores.objects().await.len(), 1);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(late.replay().ids([published.id.as_str(), "absent"]).await.unwrap(), 1);
    let again = late.receive::<Value>(1).await.unwrap().remove(0);
    assert_eq!(again.payload, large(1));
    again.ack().await.unwrap();
}

async fn large_messages_that_were_not_accepted_leave_nothing(stores: Stores) {
    let chronow = stores.connect().await;
    let (topic, _) = topic(&chronow).await;
    let absent = chronow.bus().topic("absent").unwrap();
    assert_eq!(absent.publish(&large(1)).await.unwrap_err().kind(), ErrorKind::NotFound);
    topic.ensure().max_len(1).overflow(DiscardPolicy::Reject).await.unwrap();
    let room = topic.ensure().max_len(10);
    let full = topic.publish_batch([PublishMessage::json(&large(1)), PublishMessage::json(&large(2))]).await;
    assert_eq!(full.unwrap_err().kind(), ErrorKind::Full);
    assert!(stores.objects().await.is_empty());
    room.await.unwrap();
    let first = topic.publish(&large(1)).dedup_id("once").await.unwrap();
    let again = topic.publish(&large(1)).dedup_id("once").await.unwrap();
    assert!(again.duplicate && again.id == first.id);
    assert_eq!(stores.objects().await.len(), 1, "the duplicate's is not kept");
    let twin = topic.publish(&large(1)).dedup_id("once").ack(Ack::Warm).await.unwrap();
    assert!(twin.duplicate);
    let again = topic.publish(&large(1)).dedup_id("once").ack(Ack::Warm).await.unwrap();
    assert!(again.duplicate);
    assert_eq!(stores.objects().await.len(), 2, "the only copy has the second one");
    let late = topic.subscription("late").unwrap();
    late.ensure().await.unwrap();
    assert_eq!(late.replay().await.unwrap(), 1);
    assert_eq!(late.receive::<Value>(1).await.unwrap()[0].payload, large(1));
}

async fn purging_and_deleting_a_topic_remove_large_payloads(stores: Stores) {
    let chronow = stores.connect().await;
    let (topic, subscription) = topic(&chronow).await;
    topic.publish(&large(1)).await.unwrap();
    subscription.receive::<Value>(1).await.unwrap().remove(0).dead_letter("kept").await.unwrap();
    topic.publish(&large(2)).await.unwrap();
    until("the library holds both", || async { stores.objects().await.len() == 2 }).await;
    topic.purge().await.unwrap();
    until("what was purged has no payload", || async { stores.objects().await.len() == 1 }).await;
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_millis(2_500) {
        let dead = subscription.dead_letters().await.unwrap().items;
        assert_eq!(
            serde_json::from_slice::<Value>(&dead[0].message.payload).unwrap(),
            large(1),
            "a dead letter needs its payload"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(topic.delete().await.unwrap());
    assert!(stores.objects().await.is_empty());
}

async fn a_payload_that_is_gone_makes_a_dead_letter(stores: Stores) {
    let chronow = stores.connect().await;
    let (topic, subscription) = topic(&chronow).await;
    topic.publish(&large(1)).await.unwrap();
    topic.publish(&json!({"n": 2})).await.unwrap();
    stores.remove_objects().await;
    let received = subscription.receive::<Value>(10).await.unwrap();
    assert_eq!(received.iter().map(|message| message.payload["n"].clone()).collect::<Vec<_>>(), [json!(2)]);
    let dead = subscription.dead_letters().await.unwrap().items;
    assert!(dead[0].reason.contains("object storage"), "{}", dead[0].reason);
}

async fn a_large_message_that_expires_takes_its_payload_with_it_in_the_end(stores: Stores) {
    let chronow = stores.connect().await;
    let (topic, subscription) = topic(&chronow).await;
    topic.publish(&large(1)).ttl(Duration::from_millis(1)).await.unwrap();
    let published = chronow.hot().now().await.unwrap();
    until("it is too old", || async {
        chronow.hot().now().await.unwrap().as_millis() - published.as_millis() > 10
    })
    .await;
    until("it expires", || async {
        assert!(subscription.receive::<Value>(1).await.unwrap().is_empty());
        subscription.stats().await.unwrap().dead_letters == 1
    })
    .await;
    let dead = subscription.dead_letters().await.unwrap().items;
    assert_eq!(serde_json::from_slice::<Value>(&dead[0].message.payload).unwrap(), large(1));
    subscription.purge_dead_letters().await.unwrap();
    // The next client that opens the topic looks at what expired.
    chronow.close().await.unwrap();
    let chronow = stores.connect().await;
    chronow.bus().topic("films").unwrap().ensure().await.unwrap();
    until("the payload is removed", || async { stores.objects().await.is_empty() }).await;
}

async fn what_is_too_large_for_any_tier_is_refused(stores: Stores) {
    let chronow = stores.connect().await;
    let (topic, subscription) = topic(&chronow).await;
    let error = topic.publish_bytes(vec![1_u8; 100_001], "").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Validation);
    assert!(error.message().contains("100000 are allowed"), "{error}");
    let reserved = topic.publish_bytes(b"{}".to_vec(), "application/vnd.chronow.claim").await;
    assert_eq!(reserved.unwrap_err().kind(), ErrorKind::Validation);
    assert_eq!(subscription.stats().await.unwrap().backlog, 0);
    assert!(stores.objects().await.is_empty());
}

#[tokio::test]
async fn the_embedded_default_keeps_large_payloads_in_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::builder().embedded(folder.path()).build().unwrap();
    let chronow = Chronow::connect(config, None).await.unwrap();
    let (topic, subscription) = topic(&chronow).await;
    let text = "y".repeat(1_000_000);
    topic.publish(&text).await.unwrap();
    assert!(folder.path().join("payloads").is_dir());
    let message = subscription.receive::<String>(1).await.unwrap().remove(0);
    assert_eq!(message.payload, text);
    message.ack().await.unwrap();
    chronow.close().await.unwrap();
}

#[cfg(feature = "redis")]
#[tokio::test]
async fn without_an_object_storage_the_hot_tier_is_the_limit() {
    let prefix = format!("large-{}:", bson::oid::ObjectId::new());
    let redis = chronow::Redis::single(test_support::servers::redis_url()).key_prefix(prefix);
    let config = Config::builder().redis(redis).max_payload_bytes(100).build().unwrap();
    let chronow = Chronow::connect(config, None).await.unwrap();
    let (topic, _) = topic(&chronow).await;
    let error = topic.publish(&large(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Validation);
    assert!(error.message().contains("100 are allowed"), "{error}");
}

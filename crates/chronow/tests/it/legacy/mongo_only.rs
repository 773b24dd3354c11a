//! MongoDB alone (G1 to G10). The promises are those of every hot tier; these are the ways in which the
//! original broke them there.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chronos_db::documents::embedded::EmbeddedDocuments;
use chronos_db::{Env, Json as Value, json};
use chronow::hot::documents::DocumentsHot;
use chronow::{Chronow, Config, ErrorKind, Message, Page, PublishMessage};
use test_support::Counting;
use test_support::documents::{Call, decorate};

use crate::tiers::{World, calm, number, on_mongo, publish, settled, take, until, within};

on_mongo! {
    a_message_is_delivered_whole_and_once,
    a_message_whose_lock_ended_is_handed_out_again,
    a_failed_message_becomes_due_whatever_is_in_it,
    parallel_publishes_have_different_ids_and_consumers_never_share,
    deleting_and_purging_really_remove,
    a_value_ends_at_its_time,
    deliveries_are_counted_and_limits_of_lists_are_kept,
}

/// G1, G2, G3: payload and headers arrive as they were, through a stream, and what is acknowledged never
/// comes again.
async fn a_message_is_delivered_whole_and_once(world: World) {
    use futures::StreamExt as _;
    let (topic, subscription) = world.ready().await;
    let other = calm(&topic, "other").await;
    topic
        .publish(&json!({ "n": 1, "payload": "payload", "*": { "a.b": 1 } }))
        .header("$h.1", "x")
        .await
        .unwrap();
    let mut messages = subscription.consume::<Value>().await.unwrap();
    let message = within(messages.next()).await.unwrap().unwrap();
    assert_eq!(message.payload, json!({ "n": 1, "payload": "payload", "*": { "a.b": 1 } }));
    assert_eq!(
        message.headers().iter().map(|(name, value)| (name.as_str(), value.as_str())).collect::<Vec<_>>(),
        [("$h.1", "x")]
    );
    message.ack().await.unwrap();
    messages.close().await.unwrap();
    // Also not to those who come later, while another subscription still needs it.
    let later = world.another().await;
    let theirs = later.bus().topic("orders").unwrap().subscription("s").unwrap();
    for _ in 0..3 {
        assert!(theirs.receive::<Value>(10).await.unwrap().is_empty());
    }
    assert_eq!(take(&other, 1).await.len(), 1);
}

/// G4: the end of a lock is found.
async fn a_message_whose_lock_ended_is_handed_out_again(world: World) {
    let (topic, subscription) = world.ready().await;
    subscription.ensure().visibility(Duration::from_millis(300)).await.unwrap();
    publish(&topic, 0..3).await;
    drop(take(&subscription, 3).await);
    let again = take(&subscription, 3).await;
    assert!(again.iter().all(|message| message.deliveries() == 2));
    subscription.ack_all(again).await.unwrap();
    settled(&subscription).await;
}

/// G5: dots, dollars and many waiting retries do no harm.
async fn a_failed_message_becomes_due_whatever_is_in_it(world: World) {
    const MESSAGES: usize = 300;
    let (topic, subscription) = world.ready().await;
    let messages = (0..MESSAGES).map(|n| {
        PublishMessage::json(&json!({ "n": n, "a.b": { "$set": 1.5 } }))
            .header("x.$y", "1.5")
            .key(format!("k.{n}"))
    });
    topic.publish_batch(messages).await.unwrap();
    for message in take(&subscription, MESSAGES).await {
        message.nack().reason("a.b$c").delay(Duration::from_millis(50)).await.unwrap();
    }
    let again = take(&subscription, MESSAGES).await;
    assert!(
        again.iter().all(|message| message.deliveries() == 2 && message.payload["a.b"]["$set"] == json!(1.5))
    );
    assert_eq!(again.iter().map(|message| number(message)).collect::<BTreeSet<_>>().len(), MESSAGES);
    subscription.ack_all(again).await.unwrap();
    settled(&subscription).await;
}

/// G6: fifty publishes at once have fifty ids; of several consumers one gets each message.
async fn parallel_publishes_have_different_ids_and_consumers_never_share(world: World) {
    let (_, subscription) = world.ready().await;
    let others = [world.another().await, world.another().await, world.another().await];
    let publishes = (0..50).map(|n| {
        let topic = others[n % 3].bus().topic("orders").unwrap();
        async move { topic.publish(&json!({ "n": n })).await.unwrap().id }
    });
    let ids: BTreeSet<String> = futures::future::join_all(publishes).await.into_iter().collect();
    assert_eq!(ids.len(), 50);
    let mut runners = Vec::new();
    for other in &others {
        let mine = other.bus().topic("orders").unwrap().subscription("s").unwrap();
        runners.push(mine.run(|_: Message<Value>| async {}).start().await.unwrap());
    }
    settled(&subscription).await;
    for runner in runners {
        runner.stop().await.unwrap();
    }
    let stats = subscription.stats().await.unwrap();
    assert_eq!((stats.deliveries, stats.acked), (50, 50), "each once");
}

/// G7: purging removes messages, purging dead letters removes those, deleting removes all.
async fn deleting_and_purging_really_remove(world: World) {
    let (topic, subscription) = world.ready().await;
    publish(&topic, 0..6).await;
    take(&subscription, 1).await.remove(0).dead_letter("bad").await.unwrap();
    topic.purge().await.unwrap();
    let stats = topic.stats().await.unwrap();
    assert_eq!(
        (stats.length, stats.subscriptions[0].backlog, stats.subscriptions[0].dead_letters),
        (0, 0, 1)
    );
    assert_eq!(subscription.purge_dead_letters().await.unwrap(), 1);
    assert_eq!(subscription.dead_letters().await.unwrap().items, []);
    publish(&topic, 6..8).await;
    assert!(topic.delete().await.unwrap());
    assert_eq!(topic.publish(&1).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(world.chronow.bus().topics().await.unwrap(), Vec::<String>::new());
    let (_, fresh) = world.ready().await;
    assert!(fresh.receive::<Value>(5).await.unwrap().is_empty());
}

/// G8: reading looks at the time; the server's sweeper, which comes once a minute, is for tidiness.
async fn a_value_ends_at_its_time(world: World) {
    let shared = world.chronow.shared();
    shared.set("k", &1).ttl(Duration::from_millis(300)).await.unwrap();
    let set = world.chronow.hot().now().await.unwrap();
    let age = async || world.chronow.hot().now().await.unwrap().as_millis() - set.as_millis();
    until("its time is over", || async { age().await > 300 }).await;
    assert_eq!(shared.get::<i32>("k").await.unwrap(), None);
    assert!(!shared.exists("k").await.unwrap());
    assert!(shared.set_if_absent("k", &2).await.is_ok());
}

/// G10: deliveries are what they are, and lists end where they should.
async fn deliveries_are_counted_and_limits_of_lists_are_kept(world: World) {
    let (topic, subscription) = world.ready().await;
    subscription.ensure().visibility(Duration::from_millis(300)).max_deliveries(9).await.unwrap();
    publish(&topic, 0..3).await;
    for _ in 0..3 {
        drop(take(&subscription, 3).await);
    }
    let peeked = subscription.peek(2).await.unwrap();
    assert_eq!(peeked.len(), 2);
    assert!(peeked.iter().all(|message| message.deliveries == 3), "{peeked:?}");
    for message in take(&subscription, 3).await {
        message.dead_letter("bad").await.unwrap();
    }
    let Page { items: page, next: cursor, .. } = subscription.dead_letters().limit(2).await.unwrap();
    assert_eq!((page.len(), page[0].deliveries), (2, 4));
    assert_eq!(subscription.dead_letters().limit(2).after(cursor.unwrap()).await.unwrap().items.len(), 1);
    within(world.chronow.close()).await.unwrap();
    assert_eq!(topic.stats().await.unwrap_err().kind(), ErrorKind::Closed);
}

/// G9: publishing costs the same however much a topic holds: nothing is counted and nothing scanned.
#[tokio::test]
async fn publishing_costs_the_same_however_much_a_topic_holds() {
    let counting = Counting::<Call>::new();
    let documents = Arc::new(EmbeddedDocuments::open(Path::new(":memory:"), Env::default()).unwrap());
    let hot = DocumentsHot::new(decorate(documents, counting.clone()), "cw", Env::default());
    let chronow = Chronow::with_hot(Arc::new(hot), &Config::default(), None).unwrap();
    let topic = chronow.bus().topic("orders").unwrap();
    topic.ensure().await.unwrap();
    calm(&topic, "s").await;
    let cost = async || {
        counting.take();
        for _ in 0..50 {
            topic.publish(&1).await.unwrap();
        }
        counting
            .take()
            .into_iter()
            .filter(|(call, _)| *call != Call::Now)
            .map(|(_, count)| count)
            .sum::<u64>()
    };
    cost().await;
    let few = cost().await;
    for part in 0..10 {
        publish(&topic, part * 500..(part + 1) * 500).await;
    }
    let many = cost().await;
    // What is looked up is kept for a while, so a lookup more or less says nothing.
    assert!(many <= few + 5, "{few} calls with few messages, {many} with many");
}

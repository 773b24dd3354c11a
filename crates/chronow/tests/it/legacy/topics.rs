//! Topics, subscriptions and administration (T1 to T5, S1, S2, Q1, E1).

use std::collections::BTreeSet;
use std::time::Duration;

use chronos_db::{Json as Value, json};
use chronow::hot::{DeliverPolicy, MessageState};
use chronow::{ErrorKind, Message, Page, PublishMessage};
use futures::{StreamExt as _, TryStreamExt as _};

use crate::tiers::{World, calm, number, on_every_hot_tier, publish, settled, take, until, within};

on_every_hot_tier! {
    a_plain_ensure_and_consuming_change_no_option,
    a_subscription_begins_where_it_was_asked_to,
    a_deleted_subscription_leaves_no_retries_and_ends_its_consumers,
    a_purge_keeps_subscriptions_consumers_and_dead_letters,
    without_dead_letters_what_is_used_up_is_dropped_and_shards_deliver_all,
    counts_are_right,
    a_peek_shows_messages_also_unread_ones,
    dead_letters_belong_to_their_subscription,
    ensuring_is_one_step_and_publishing_makes_no_topic,
}

/// T1: only what is given changes, however often and by how many it is ensured.
async fn a_plain_ensure_and_consuming_change_no_option(world: World) {
    let (topic, _) = world.ready().await;
    let tuned = topic.subscription("tuned").unwrap();
    let options = tuned.ensure().max_deliveries(9).visibility(Duration::from_secs(77)).await.unwrap();
    let other = world.another().await;
    let theirs = other.bus().topic("orders").unwrap().subscription("tuned").unwrap();
    assert_eq!(theirs.ensure().await.unwrap(), options);
    drop(theirs.consume::<Value>().await.unwrap());
    theirs.ensure().jitter_percent(5).await.unwrap();
    let now = tuned.options().await.unwrap().unwrap();
    assert_eq!((now.max_deliveries, now.visibility, now.jitter_percent), (9, Duration::from_secs(77), 5));
    topic.ensure().max_len(123).await.unwrap();
    topic.ensure().dedup_window(Duration::from_secs(9)).await.unwrap();
    let now = topic.ensure().await.unwrap();
    assert_eq!((now.max_len, now.dedup_window), (123, Duration::from_secs(9)));
}

/// T2: a late subscriber gets what comes next, unless it asks for more.
async fn a_subscription_begins_where_it_was_asked_to(world: World) {
    let (topic, keeper) = world.ready().await;
    let ids = publish(&topic, 0..6).await;
    let starts = [
        ("new", DeliverPolicy::New, 6),
        ("all", DeliverPolicy::Earliest, 0),
        ("behind", DeliverPolicy::Id(ids[3].clone()), 4),
    ];
    let mut late = Vec::new();
    for (name, start, first) in starts {
        let subscription = topic.subscription(name).unwrap();
        subscription.ensure().start(start).await.unwrap();
        // It matters once.
        subscription.ensure().start(DeliverPolicy::Earliest).await.unwrap();
        late.push((subscription, first));
    }
    publish(&topic, 6..8).await;
    for (subscription, first) in late {
        let numbers: Vec<usize> =
            take(&subscription, 8 - first).await.iter().map(|message| number(message)).collect();
        assert_eq!(numbers, (first..8).collect::<Vec<_>>(), "{subscription:?}");
        assert!(subscription.receive::<Value>(5).await.unwrap().is_empty());
    }
    assert_eq!(keeper.stats().await.unwrap().backlog, 8);
}

/// T3: with a subscription everything of it goes; live consumers are notified.
async fn a_deleted_subscription_leaves_no_retries_and_ends_its_consumers(world: World) {
    let (topic, subscription) = world.ready().await;
    publish(&topic, 0..4).await;
    let mut messages = take(&subscription, 4).await.into_iter();
    messages.next().unwrap().nack().delay(Duration::from_millis(50)).await.unwrap();
    messages.next().unwrap().defer().await.unwrap();
    messages.next().unwrap().dead_letter("bad").await.unwrap();
    let runner = subscription.run(|_: Message<Value>| async {}).start().await.unwrap();
    assert!(subscription.delete().await.unwrap());
    assert_eq!(within(runner.join()).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(messages.next().unwrap().ack().await.unwrap_err().kind(), ErrorKind::LockLost);
    let again = calm(&topic, "s").await;
    let before = world.chronow.hot().now().await.unwrap();
    until("the old retry would be due", || async {
        world.chronow.hot().now().await.unwrap().as_millis() - before.as_millis() > 100
    })
    .await;
    assert!(again.receive::<Value>(10).await.unwrap().is_empty());
    let stats = again.stats().await.unwrap();
    assert_eq!(
        (stats.backlog, stats.scheduled, stats.deferred, stats.dead_letters, stats.deliveries),
        (0, 0, 0, 0, 0),
        "{stats:?}"
    );
}

/// T4, G7: a purge takes messages, retries too, and nothing else; consumers go on.
async fn a_purge_keeps_subscriptions_consumers_and_dead_letters(world: World) {
    let (topic, subscription) = world.ready().await;
    publish(&topic, 0..3).await;
    let mut messages = take(&subscription, 3).await.into_iter();
    messages.next().unwrap().dead_letter("bad").await.unwrap();
    messages.next().unwrap().nack().delay(Duration::from_millis(50)).await.unwrap();
    drop(messages);
    let mut stream = subscription.consume::<Value>().await.unwrap();
    publish(&topic, 3..5).await;
    let held = within(stream.next()).await.unwrap().unwrap();
    topic.purge().await.unwrap();
    assert_eq!(held.ack().await.unwrap_err().kind(), ErrorKind::LockLost);
    assert_eq!(topic.stats().await.unwrap().length, 0);
    let before = world.chronow.hot().now().await.unwrap();
    until("the old retry would be due", || async {
        world.chronow.hot().now().await.unwrap().as_millis() - before.as_millis() > 100
    })
    .await;
    publish(&topic, [9]).await;
    let message = within(stream.next()).await.unwrap().unwrap();
    assert_eq!(number(&message), 9, "a consumer outlives a purge, and nothing purged comes back");
    message.ack().await.unwrap();
    stream.close().await.unwrap();
    settled(&subscription).await;
    assert_eq!(subscription.purge_dead_letters().await.unwrap(), 1, "dead letters are purged by themselves");
    assert_eq!(subscription.stats().await.unwrap().dead_letters, 0);
}

/// T5: the options that the original only stored do something.
async fn without_dead_letters_what_is_used_up_is_dropped_and_shards_deliver_all(world: World) {
    let topic = world.topic("sharded");
    assert_eq!(topic.ensure().shards(4).await.unwrap().shards, 4);
    let subscription = calm(&topic, "s").await;
    subscription.ensure().dead_letters(false).max_deliveries(1).await.unwrap();
    publish(&topic, 0..40).await;
    let messages = take(&subscription, 40).await;
    assert_eq!(messages.iter().map(|message| number(message)).collect::<BTreeSet<_>>().len(), 40);
    for message in messages {
        message.nack().await.unwrap();
    }
    settled(&subscription).await;
    assert_eq!(subscription.stats().await.unwrap().dead_letters, 0);
    assert_eq!(topic.stats().await.unwrap().length, 0);
}

/// S1, G10: counts are those of the topic and of each subscription.
async fn counts_are_right(world: World) {
    let (topic, first) = world.ready().await;
    let second = calm(&topic, "two").await;
    publish(&topic, 0..8).await;
    let mut messages = take(&first, 7).await.into_iter();
    let mut next = || messages.next().unwrap();
    next().ack().await.unwrap();
    next().ack().await.unwrap();
    next().nack().delay(Duration::from_secs(600)).await.unwrap();
    next().dead_letter("bad").await.unwrap();
    next().defer().await.unwrap();
    let stats = topic.stats().await.unwrap();
    assert_eq!((stats.length, stats.dropped), (8, 0));
    assert_eq!(
        stats.subscriptions.iter().map(|stats| stats.subscription.as_str()).collect::<Vec<_>>(),
        ["s", "two"]
    );
    let one = &stats.subscriptions[0];
    let counts =
        (one.backlog, one.pending, one.scheduled, one.deferred, one.dead_letters, one.deliveries, one.acked);
    assert_eq!(counts, (1, 2, 1, 1, 1, 7, 2), "{one:?}");
    let two = &stats.subscriptions[1];
    assert_eq!((two.backlog, two.pending, two.deliveries, two.acked), (8, 0, 0, 0), "{two:?}");
    assert!(one.oldest_age.is_some() && two.oldest_age >= one.oldest_age);
    assert_eq!(topic.subscription("absent").unwrap().stats().await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(
        world.topic("absent").stats().await.unwrap_err().kind(),
        ErrorKind::NotFound,
        "no zeros for what is not there"
    );
    drop(second);
}

/// S2: peeking shows messages, taken or not, and takes none.
async fn a_peek_shows_messages_also_unread_ones(world: World) {
    let (topic, subscription) = world.ready().await;
    topic
        .publish_batch((0..4).map(|n| PublishMessage::json(&json!({ "n": n })).header("h", n.to_string())))
        .await
        .unwrap();
    let held = take(&subscription, 1).await.remove(0);
    for _ in 0..2 {
        let peeked = subscription.peek(3).await.unwrap();
        let reported: Vec<_> = peeked
            .iter()
            .map(|one| {
                (
                    serde_json::from_slice::<Value>(&one.message.payload).unwrap()["n"].as_u64().unwrap(),
                    one.state,
                    one.deliveries,
                )
            })
            .collect();
        assert_eq!(
            reported,
            [(0, MessageState::InFlight, 1), (1, MessageState::Unread, 0), (2, MessageState::Unread, 0)]
        );
        assert_eq!(peeked[2].message.headers["h"], "2");
    }
    held.ack().await.unwrap();
    assert_eq!(take(&subscription, 3).await.len(), 3);
}

/// Q1: dead letters name their message, count as a number, are paged, given back to their own subscription,
/// and not trimmed with the topic.
async fn dead_letters_belong_to_their_subscription(world: World) {
    let topic = world.topic("orders");
    topic.ensure().max_len(10).await.unwrap();
    let (failing, fine) = (calm(&topic, "failing").await, calm(&topic, "fine").await);
    failing.ensure().max_deliveries(2).await.unwrap();
    let mut ids = Vec::new();
    // More than the topic may hold at once.
    for part in 0..3 {
        ids.extend(publish(&topic, part * 5..part * 5 + 5).await);
        for round in 0..2 {
            for message in take(&failing, 5).await {
                assert_eq!(message.deliveries(), round + 1);
                let reason = format!("failure {}", number(&message));
                message.nack().reason(reason).await.unwrap();
            }
        }
        let theirs = take(&fine, 5).await;
        fine.ack_all(theirs).await.unwrap();
    }
    let dead: Vec<_> = failing.dead_letters().limit(4).stream().try_collect().await.unwrap();
    assert_eq!(dead.len(), 15);
    for letter in &dead {
        let n = serde_json::from_slice::<Value>(&letter.message.payload).unwrap()["n"].as_u64().unwrap();
        assert_eq!(
            (letter.message.id.as_str(), letter.deliveries),
            (ids[usize::try_from(n).unwrap()].as_str(), 2)
        );
        assert_eq!(letter.reason, format!("failure {n}"));
        assert!(letter.failed_at >= letter.message.published_at);
    }
    let Page { items: page, next: cursor, .. } = failing.dead_letters().limit(4).await.unwrap();
    let next = failing.dead_letters().limit(4).after(cursor.unwrap()).await.unwrap().items;
    assert_eq!(page.iter().chain(&next).map(|letter| &letter.message.id).collect::<BTreeSet<_>>().len(), 8);
    assert_eq!(fine.dead_letters().await.unwrap().items, []);
    assert_eq!(failing.redrive().ids([ids[7].clone()]).await.unwrap(), 1);
    let again = take(&failing, 1).await.remove(0);
    assert_eq!((again.id(), number(&again), again.deliveries()), (ids[7].as_str(), 7, 1));
    again.ack().await.unwrap();
    assert!(fine.receive::<Value>(5).await.unwrap().is_empty());
    assert_eq!(failing.stats().await.unwrap().dead_letters, 14);
}

/// E1: many may ensure at once; a typing error in a name makes no topic.
async fn ensuring_is_one_step_and_publishing_makes_no_topic(world: World) {
    let wrong = world.topic("odrers");
    assert_eq!(wrong.publish(&1).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(wrong.subscription("s").unwrap().ensure().await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(world.chronow.bus().topics().await.unwrap(), Vec::<String>::new());
    let connections = futures::future::join_all((0..3).map(|_| world.another())).await;
    let ensures = (0..12).map(|n| {
        let topic = connections[n % 3].bus().topic("orders").unwrap();
        async move {
            topic.ensure().await.unwrap();
            topic.subscription("s").unwrap().ensure().await.unwrap();
            topic.publish(&json!({ "n": n })).await.unwrap();
        }
    });
    futures::future::join_all(ensures).await;
    let (topic, subscription) = (world.topic("orders"), world.topic("orders").subscription("s").unwrap());
    assert_eq!(topic.subscriptions().await.unwrap(), ["s"]);
    let numbers: BTreeSet<usize> =
        take(&subscription, 12).await.iter().map(|message| number(message)).collect();
    assert_eq!(numbers.len(), 12, "no ensure took away what was published");
}

//! Locks, settlements and what consumers leave behind (D11, D12, D14 to D17).

use std::time::Duration;

use chronos_db::{Json as Value, json};
use chronow::hot::{MessageState, Settle, SettleAndStart, Settled};
use chronow::{ErrorKind, Message};
use futures::StreamExt as _;

use crate::tiers::{World, on_every_hot_tier, publish, settled, take, until, within};

on_every_hot_tier! {
    a_message_is_in_one_place_however_often_it_is_settled,
    a_late_settlement_does_not_touch_anothers_delivery,
    the_count_of_deliveries_is_kept_for_the_next_process,
    an_error_of_consuming_is_reported,
    a_message_may_live_shortly_come_later_once_in_order_or_not_at_all,
}

/// D11: a settlement is one step: many at once leave the message in one place, and one of them gets the answer
/// that it counted.
async fn a_message_is_in_one_place_however_often_it_is_settled(world: World) {
    let (topic, subscription) = world.ready().await;
    publish(&topic, [1]).await;
    let hot = world.chronow.hot();
    let lock = hot.pull(subscription.name(), 1).await.unwrap().deliveries.remove(0).lock;
    assert_eq!(
        hot.settle_and_start(
            subscription.name(),
            SettleAndStart { start: vec![lock.clone()], settle: vec![] }
        )
        .await
        .unwrap()
        .started,
        [true]
    );
    let ways = [
        Settle::Ack,
        Settle::DeadLetter { reason: "bad".to_owned() },
        Settle::Defer,
        Settle::Retry { delay: Some(Duration::from_secs(600)), reason: "later".to_owned() },
    ];
    let settlements = ways.into_iter().cycle().take(12).map(|settle| {
        let step = SettleAndStart { settle: vec![(lock.clone(), settle)], start: vec![] };
        async { hot.settle_and_start(subscription.name(), step).await.unwrap().settled[0] }
    });
    let reported = futures::future::join_all(settlements).await;
    assert_eq!(reported.iter().filter(|settled| **settled != Settled::Lost).count(), 1, "{reported:?}");
    let stats = subscription.stats().await.unwrap();
    assert_eq!(stats.acked + stats.dead_letters + stats.deferred + stats.scheduled, 1, "{stats:?}");
    assert_eq!(stats.pending, 0);
}

/// D12: a consumer that lost the lock settles nothing, and gets that as its answer; the delivery of the other one goes on.
async fn a_late_settlement_does_not_touch_anothers_delivery(world: World) {
    let (topic, subscription) = world.ready().await;
    subscription.ensure().visibility(Duration::from_millis(300)).await.unwrap();
    publish(&topic, [1]).await;
    let (hot, name) = (world.chronow.hot(), subscription.name());
    // Without a keeper the lock ends.
    let late = hot.pull(name, 1).await.unwrap().deliveries.remove(0).lock;
    subscription.ensure().visibility(Duration::from_secs(120)).await.unwrap();
    let second = take(&subscription, 1).await.remove(0);
    for settle in [Settle::Ack, Settle::DeadLetter { reason: String::new() }, Settle::Release] {
        let reported = hot
            .settle_and_start(name, SettleAndStart { settle: vec![(late.clone(), settle)], start: vec![] })
            .await
            .unwrap();
        assert_eq!(reported.settled, [Settled::Lost]);
    }
    assert_eq!(hot.renew(name, vec![late]).await.unwrap(), [false]);
    assert_eq!(subscription.peek(5).await.unwrap()[0].state, MessageState::InFlight);
    second.ack().await.unwrap();
    settled(&subscription).await;
    assert_eq!(subscription.stats().await.unwrap().acked, 1);
}

/// D15: how often a message was delivered is the store's knowledge, not a process's.
async fn the_count_of_deliveries_is_kept_for_the_next_process(world: World) {
    let (topic, subscription) = world.ready().await;
    subscription.ensure().max_deliveries(3).await.unwrap();
    publish(&topic, [1]).await;
    for before in 0..3 {
        let process = world.another().await;
        let mine = process.bus().topic("orders").unwrap().subscription("s").unwrap();
        let message = take(&mine, 1).await.remove(0);
        assert_eq!(message.deliveries(), before + 1);
        message.nack().reason("again").await.unwrap();
        assert_eq!(process.metrics().in_flight, 0, "nothing is kept of what is settled");
        process.close().await.unwrap();
    }
    assert!(subscription.receive::<Value>(1).await.unwrap().is_empty());
    assert_eq!(subscription.stats().await.unwrap().dead_letters, 1);
}

/// D16: a consumer that cannot go on says why, and ends.
async fn an_error_of_consuming_is_reported(world: World) {
    let (topic, subscription) = world.ready().await;
    let missing = topic.subscription("missing").unwrap();
    assert_eq!(missing.consume::<Value>().await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(missing.receive::<Value>(1).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(missing.peek(1).await.unwrap_err().kind(), ErrorKind::NotFound);
    let mut messages = subscription.consume::<Value>().await.unwrap();
    let other = world.another().await;
    let theirs = other.bus().topic("orders").unwrap().subscription("s").unwrap();
    assert!(theirs.delete().await.unwrap());
    let error = within(messages.next()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(within(messages.next()).await.is_none());
}

/// D17: what the original left out (the tests of `bus` show concurrency, draining, prefetching, renewal,
/// pausing and batches).
async fn a_message_may_live_shortly_come_later_once_in_order_or_not_at_all(world: World) {
    let topic = world.topic("orders");
    topic.ensure().await.unwrap();
    let all = crate::tiers::calm(&topic, "all").await;
    let some = topic.subscription("some").unwrap();
    some.ensure().filter(json!({ "payload.n": { "$gte": 3 } })).backoff([Duration::ZERO]).await.unwrap();
    topic.publish(&json!({ "n": 0 })).ttl(Duration::from_millis(1)).await.unwrap();
    let published = world.chronow.hot().now().await.unwrap();
    until("it is too old", || async {
        world.chronow.hot().now().await.unwrap().as_millis() - published.as_millis() > 10
    })
    .await;
    let later = topic.publish(&json!({ "n": 1 })).delay(Duration::from_secs(600)).await.unwrap();
    for n in 2..6 {
        for _ in 0..2 {
            topic.publish(&json!({ "n": n })).key("k").dedup_id(format!("d{n}")).await.unwrap();
        }
    }
    let mut numbers = Vec::new();
    for _ in 0..4 {
        let mut messages = all.receive::<Value>(10).await.unwrap();
        assert_eq!(messages.len(), 1, "one of a key at a time");
        let message = messages.remove(0);
        numbers.push(crate::tiers::number(&message));
        message.ack().await.unwrap();
    }
    assert_eq!(numbers, [2, 3, 4, 5]);
    assert!(all.receive::<Value>(10).await.unwrap().is_empty());
    let dead = all.dead_letters().await.unwrap().items;
    assert_eq!((dead.len(), dead[0].reason.as_str(), dead[0].deliveries), (1, "expired", 0));
    assert!(topic.cancel(&later.id).await.unwrap());
    let mut passed = Vec::new();
    while passed.len() < 3 {
        for message in take(&some, 1).await {
            passed.push(crate::tiers::number(&message));
            message.ack().await.unwrap();
        }
    }
    assert_eq!(passed, [3, 4, 5]);
    let runner = all.run(|_: Message<Value>| async {}).start().await.unwrap();
    within(runner.stop()).await.unwrap();
    settled(&all).await;
}

#[cfg(feature = "redis")]
mod redis_only {
    use test_support::RedisServer;

    use crate::tiers::{calm, connect, publish, take};
    use chronos_db::json;

    /// D14: consumers that come and go leave nothing behind.
    #[tokio::test]
    async fn consumers_that_are_gone_leave_nothing_behind() {
        let server = RedisServer::start(&[]).await;
        let config = json!({ "redis": { "url": server.url() }, "defaults": { "tenantId": "t" } });
        let chronow = connect(&config).await;
        let topic = chronow.bus().topic("t").unwrap();
        topic.ensure().await.unwrap();
        let subscription = calm(&topic, "s").await;
        let visit = async |n: usize| {
            publish(&topic, [n]).await;
            let consumer = connect(&config).await;
            let mine = consumer.bus().topic("t").unwrap().subscription("s").unwrap();
            take(&mine, 1).await.remove(0).ack().await.unwrap();
            consumer.close().await.unwrap();
        };
        visit(0).await;
        let keys = server.run(&["DBSIZE"]).await;
        for n in 1..20 {
            visit(n).await;
        }
        assert_eq!(server.run(&["DBSIZE"]).await, keys);
        let key = server.run(&["KEYS", "*:topic:t}"]).await;
        // A subscription is a position: there is no list of consumers, and none of what they have, that could
        // grow.
        assert_eq!(server.run(&["XINFO", "GROUPS", &key]).await, "");
        assert_eq!(subscription.stats().await.unwrap().acked, 20);
    }
}

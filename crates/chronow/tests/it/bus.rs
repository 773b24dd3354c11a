//! Topics, runners and streams.

use std::collections::BTreeMap;
use std::future::IntoFuture as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use chronos_db::config::Database;
use chronos_db::{Chronos, Json as Value, json};
use chronow::hot::{DeliverPolicy, MessageState};
use chronow::{
    Ack, Cancelled, Chronow, Config, ErrorKind, Message, Outcome, Page, PublishMessage, Subscription, Topic,
};
use futures::{StreamExt as _, TryStreamExt as _};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use crate::tiers::{number, publish, settled, until, within};

pub(crate) async fn embedded() -> Chronow {
    let config = Config::builder().embedded(":memory:").build().unwrap();
    Chronow::connect(config, None).await.unwrap()
}

macro_rules! on_every_hot_tier {
    ($($name:ident,)+) => {
        $(async fn $name(world: World) {
            super::$name(world.chronow.clone()).await;
        })+
        crate::tiers::on_every_hot_tier! { $($name,)+ }
    };
}

/// The tests below, on every hot tier.
mod tiers {
    use crate::tiers::World;

    on_every_hot_tier! {
            the_quick_start_works,
            what_cannot_be_published_is_refused_whole,
            a_stream_settles_by_hand,
            a_dropped_stream_gives_back_what_it_prefetched,
            a_message_in_hand_stays_locked_while_it_is_held_and_comes_again_when_dropped,
            a_lost_lock_is_reported_and_a_late_settlement_refused,
            a_runner_handles_everything_with_bounded_concurrency,
            failures_are_retried_up_to_the_limit_and_end_as_dead_letters,
            what_cannot_be_decoded_becomes_a_dead_letter_and_is_not_lost,
            prefetched_messages_and_slow_handlers_keep_their_locks,
            a_handler_learns_that_its_lock_is_lost,
            stopping_drains_and_gives_back_the_rest,
            handlers_that_do_not_end_are_cancelled_and_their_messages_tried_again,
            a_paused_runner_starts_nothing_until_it_is_resumed,
            a_dropped_runner_stops,
            a_runner_ends_when_its_subscription_is_deleted,
            ordered_messages_are_handled_in_order_by_concurrent_handlers,
            delayed_messages_wait_and_can_be_cancelled,
            duplicates_are_recognised_and_counted,

    }
}

fn messaging() -> Chronos {
    let config = chronos_db::config::Config::builder()
        .connection("here", "embedded::memory:")
        .database(Database::messaging("here", "messaging"));
    Chronos::open(config.build().unwrap()).unwrap()
}

/// A topic with one subscription whose retries are due at once.
async fn topic(chronow: &Chronow) -> (Topic, Subscription) {
    let topic = chronow.bus().topic("orders").unwrap();
    topic.ensure().await.unwrap();
    let subscription = topic.subscription("s").unwrap();
    subscription.ensure().backoff([Duration::ZERO]).jitter_percent(0).await.unwrap();
    (topic, subscription)
}

async fn the_quick_start_works(chronow: Chronow) {
    let (topic, subscription) = topic(&chronow).await;
    let published = topic
        .publish(&json!({"n": 1}))
        .header("type", "created")
        .key("k")
        .traceparent("00-aa-bb-01")
        .await
        .unwrap();
    let mut messages = subscription.consume::<Value>().await.unwrap();
    let message = within(messages.next()).await.unwrap().unwrap();
    assert_eq!((message.id(), &message.payload), (published.id.as_str(), &json!({"n": 1})));
    assert_eq!(
        (message.header("type"), message.key(), message.traceparent()),
        (Some("created"), Some("k"), Some("00-aa-bb-01"))
    );
    assert_eq!(message.deliveries(), 1);
    assert!(message.locked_until() > message.published_at() && !message.is_lock_lost());
    message.ack().await.unwrap();
    messages.close().await.unwrap();
    settled(&subscription).await;
    let metrics = chronow.metrics();
    assert_eq!((metrics.published, metrics.delivered, metrics.acked, metrics.in_flight), (1, 1, 1, 0));
    chronow.close().await.unwrap();
    assert_eq!(topic.publish(&1).await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn a_plain_ensure_changes_nothing_and_defaults_hold_at_creation() {
    let config = Config::builder()
        .embedded(":memory:")
        .max_deliveries(9)
        .visibility(Duration::from_secs(5))
        .max_len(50);
    let chronow = Chronow::connect(config.build().unwrap(), None).await.unwrap();
    let (topic, _) = topic(&chronow).await;
    assert_eq!(topic.options().await.unwrap().unwrap().max_len, 50);
    let subscription = topic.subscription("tuned").unwrap();
    let first = subscription.ensure().max_deliveries(3).await.unwrap();
    assert_eq!((first.max_deliveries, first.visibility), (3, Duration::from_secs(5)));
    assert_eq!(subscription.ensure().await.unwrap(), first);
    assert_eq!(subscription.ensure().paused(true).await.unwrap().max_deliveries, 3);
    subscription.resume().await.unwrap();
    assert_eq!(subscription.options().await.unwrap(), Some(first));
    assert_eq!(topic.subscription("absent").unwrap().pause().await.unwrap_err().kind(), ErrorKind::NotFound);
}

async fn what_cannot_be_published_is_refused_whole(chronow: Chronow) {
    let (topic, subscription) = topic(&chronow).await;
    let large = "x".repeat(16 * 1_024 * 1_024 + 1);
    let batch = topic.publish_batch([PublishMessage::json(&1), PublishMessage::json(&large)]).await;
    assert_eq!(batch.unwrap_err().kind(), ErrorKind::Validation);
    let wrong = BTreeMap::from([((1, 2), 3)]);
    assert_eq!(
        topic.publish(&wrong).await.unwrap_err().kind(),
        ErrorKind::Validation,
        "keys of JSON are texts"
    );
    assert_eq!(topic.publish(&1).header("cw-key", "x").await.unwrap_err().kind(), ErrorKind::Validation);
    let absent = chronow.bus().topic("absent").unwrap();
    assert_eq!(
        absent.publish(&1).await.unwrap_err().kind(),
        ErrorKind::NotFound,
        "a typing error makes no topic"
    );
    assert_eq!(subscription.stats().await.unwrap().backlog, 0);
}

async fn a_stream_settles_by_hand(chronow: Chronow) {
    let (topic, subscription) = topic(&chronow).await;
    publish(&topic, 0..5).await;
    let mut messages = subscription.consume::<Value>().prefetch(3).await.unwrap();
    for _ in 0..5 {
        let message = within(messages.next()).await.unwrap().unwrap();
        match number(&message) {
            0 => message.ack().await.unwrap(),
            1 => message.dead_letter("bad").await.unwrap(),
            2 => message.defer().await.unwrap(),
            3 => message.nack().delay(Duration::from_secs(600)).reason("later").await.unwrap(),
            _ => message.nack().await.unwrap(),
        }
    }
    let again = within(messages.next()).await.unwrap().unwrap();
    assert_eq!((number(&again), again.deliveries()), (4, 2));
    again.ack().await.unwrap();
    messages.close().await.unwrap();
    let stats = subscription.stats().await.unwrap();
    assert_eq!(
        (stats.deferred, stats.scheduled, stats.dead_letters, stats.acked, stats.pending),
        (1, 1, 1, 2, 0)
    );
    let places: Vec<_> =
        subscription.peek(10).await.unwrap().into_iter().map(|peeked| peeked.state).collect();
    assert!(
        places.contains(&MessageState::Deferred) && places.contains(&MessageState::Scheduled),
        "{places:?}"
    );
    let deferred = subscription
        .peek(10)
        .await
        .unwrap()
        .into_iter()
        .find(|peeked| peeked.state == MessageState::Deferred)
        .unwrap();
    let fetched = subscription.fetch_deferred::<Value>(vec![deferred.message.id]).await.unwrap();
    assert_eq!(number(&fetched[0]), 2);
    subscription.ack_all(fetched).await.unwrap();
}

async fn a_dropped_stream_gives_back_what_it_prefetched(chronow: Chronow) {
    let (topic, subscription) = topic(&chronow).await;
    publish(&topic, 0..10).await;
    let mut messages = subscription.consume::<Value>().prefetch(10).await.unwrap();
    let first = within(messages.next()).await.unwrap().unwrap();
    drop(messages);
    first.ack().await.unwrap();
    // Long before their locks would end.
    until("the others are available again", || async { subscription.stats().await.unwrap().backlog == 9 })
        .await;
    let mut others = subscription.consume::<Value>().await.unwrap();
    for n in 1..10 {
        let message = within(others.next()).await.unwrap().unwrap();
        assert_eq!((number(&message), message.deliveries()), (n, 1), "what was prefetched does not count");
        message.ack().await.unwrap();
    }
}

async fn a_message_in_hand_stays_locked_while_it_is_held_and_comes_again_when_dropped(chronow: Chronow) {
    let (topic, subscription) = topic(&chronow).await;
    subscription.ensure().visibility(Duration::from_secs(6)).await.unwrap();
    publish(&topic, [7]).await;
    let held = subscription.receive::<Value>(1).await.unwrap().remove(0);
    let until_at_first = held.locked_until();
    until("the lock it began with would be over", || async {
        let over = chronow.hot().now().await.unwrap() > until_at_first;
        assert!(subscription.receive::<Value>(1).await.unwrap().is_empty(), "it was handed out twice");
        tokio::time::sleep(Duration::from_millis(100)).await;
        over
    })
    .await;
    assert!(held.locked_until() > until_at_first && !held.is_lock_lost());
    drop(held);
    let mut messages = subscription.consume::<Value>().await.unwrap();
    let again = within(messages.next()).await.unwrap().unwrap();
    assert_eq!((number(&again), again.deliveries()), (7, 2));
    again.ack().await.unwrap();
}

async fn a_lost_lock_is_reported_and_a_late_settlement_refused(chronow: Chronow) {
    let (topic, subscription) = topic(&chronow).await;
    subscription.ensure().visibility(Duration::from_millis(600)).await.unwrap();
    publish(&topic, [1]).await;
    let held = subscription.receive::<Value>(1).await.unwrap().remove(0);
    topic.purge().await.unwrap();
    assert_eq!(within(held.cancelled()).await, Cancelled::LockLost);
    assert!(held.is_lock_lost());
    assert_eq!(held.ack().await.unwrap_err().kind(), ErrorKind::LockLost);
    assert_eq!(chronow.metrics().lost, 1);
}

async fn a_runner_handles_everything_with_bounded_concurrency(chronow: Chronow) {
    let (topic, subscription) = topic(&chronow).await;
    let (now, most, done) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let runner = {
        let (now, most, done) = (Arc::clone(&now), Arc::clone(&most), Arc::clone(&done));
        let handler = move |message: Message<Value>| {
            let (now, most, done) = (Arc::clone(&now), Arc::clone(&most), Arc::clone(&done));
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                done.lock().push(number(&message));
                now.fetch_sub(1, Ordering::SeqCst);
            }
        };
        subscription.run(handler).concurrency(4).prefetch(20).start().await.unwrap()
    };
    for n in 0..10 {
        publish(&topic, n * 30..(n + 1) * 30).await;
    }
    until("all are handled", || async { done.lock().len() == 300 }).await;
    settled(&subscription).await;
    runner.stop().await.unwrap();
    let mut done = done.lock().clone();
    done.sort_unstable();
    assert_eq!(done, (0..300).collect::<Vec<_>>(), "each once");
    assert!((1..=4).contains(&most.load(Ordering::SeqCst)));
    let metrics = chronow.metrics();
    assert_eq!(
        (metrics.delivered, metrics.acked, metrics.redelivered, metrics.lost, metrics.in_flight),
        (300, 300, 0, 0, 0)
    );
    assert!(metrics.handler_time > Duration::ZERO);
    let stats = subscription.stats().await.unwrap();
    assert_eq!((stats.deliveries, stats.acked, stats.pending), (300, 300, 0));
}

async fn failures_are_retried_up_to_the_limit_and_end_as_dead_letters(chronow: Chronow) {
    let (topic, subscription) = topic(&chronow).await;
    subscription.ensure().max_deliveries(3).await.unwrap();
    let starts = Arc::new(Mutex::new(BTreeMap::<usize, u32>::new()));
    let seen = Arc::clone(&starts);
    let handler = move |message: Message<Value>| {
        let seen = Arc::clone(&seen);
        async move {
            let n = number(&message);
            *seen.lock().entry(n).or_default() += 1;
            match n {
                1 => Err("always".to_owned()),
                2 if message.deliveries() == 1 => Err("once".to_owned()),
                3 => panic!("broken {n}"),
                4 => Ok(Outcome::DeadLetter { reason: "useless".to_owned() }),
                _ => Ok(Outcome::Ack),
            }
        }
    };
    let runner = subscription.run(handler).start().await.unwrap();
    publish(&topic, 0..6).await;
    settled(&subscription).await;
    runner.stop().await.unwrap();
    assert_eq!(*starts.lock(), BTreeMap::from([(0, 1), (1, 3), (2, 2), (3, 3), (4, 1), (5, 1)]));
    let dead: Vec<_> = subscription.dead_letters().limit(2).stream().try_collect().await.unwrap();
    let mut reported: Vec<_> = dead
        .iter()
        .map(|dead| {
            (
                serde_json::from_slice::<Value>(&dead.message.payload).unwrap()["n"].as_u64().unwrap(),
                dead.reason.as_str(),
                dead.deliveries,
            )
        })
        .collect();
    reported.sort_unstable();
    assert_eq!(reported, [(1, "always", 3), (3, "the handler panicked: broken 3", 3), (4, "useless", 1)]);
    let metrics = chronow.metrics();
    assert_eq!((metrics.dead_lettered, metrics.acked, metrics.nacked, metrics.redelivered), (3, 3, 5, 5));
    assert_eq!(subscription.redrive().oldest(1).await.unwrap(), 1);
    assert_eq!(subscription.purge_dead_letters().await.unwrap(), 2);
    assert_eq!(subscription.stats().await.unwrap().backlog, 1);
}

async fn what_cannot_be_decoded_becomes_a_dead_letter_and_is_not_lost(chronow: Chronow) {
    let (topic, subscription) = topic(&chronow).await;
    topic.publish_bytes(&b"\xff{"[..], "application/octet-stream").await.unwrap();
    topic.publish(&"a text").await.unwrap();
    topic.publish(&json!({"n": 1})).await.unwrap();
    #[derive(serde::Deserialize)]
    struct Numbered {
        n: usize,
    }
    let handled = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&handled);
    let handler = move |message: Message<Numbered>| {
        count.fetch_add(message.payload.n, Ordering::SeqCst);
        async {}
    };
    let runner = subscription.run(handler).start().await.unwrap();
    settled(&subscription).await;
    runner.stop().await.unwrap();
    assert_eq!(handled.load(Ordering::SeqCst), 1);
    let Page { items: dead, next, .. } = subscription.dead_letters().await.unwrap();
    assert!(next.is_none());
    assert_eq!(
        dead.iter()
            .map(|dead| (dead.message.payload.as_ref(), dead.reason.as_str(), dead.deliveries))
            .collect::<Vec<_>>(),
        [(&b"\xff{"[..], "undecodable", 0), (&b"\"a text\""[..], "undecodable", 0)]
    );
    subscription.redrive().await.unwrap();
    let mut bytes = subscription.consume_bytes().await.unwrap();
    let message = within(bytes.next()).await.unwrap().unwrap();
    assert_eq!(message.payload.as_ref(), b"\xff{");
    message.ack().await.unwrap();
}

async fn prefetched_messages_and_slow_handlers_keep_their_locks(chronow: Chronow) {
    let (topic, subscription) = topic(&chronow).await;
    subscription.ensure().visibility(Duration::from_secs(6)).await.unwrap();
    publish(&topic, 0..3).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let handler = move |message: Message<Value>| {
        let log = Arc::clone(&log);
        async move {
            log.lock().push((number(&message), message.deliveries()));
            if number(&message) == 0 {
                // Longer than its lock, so that the others are held without being started for longer than
                // theirs.
                tokio::time::sleep(Duration::from_secs(7)).await;
            }
        }
    };
    let runner = subscription.run(handler).concurrency(1).prefetch(10).start().await.unwrap();
    settled(&subscription).await;
    runner.stop().await.unwrap();
    assert_eq!(*seen.lock(), [(0, 1), (1, 1), (2, 1)], "each once, in order");
    assert_eq!(chronow.metrics().lost, 0);
}

async fn a_handler_learns_that_its_lock_is_lost(chronow: Chronow) {
    let (topic, subscription) = topic(&chronow).await;
    // It is the purge that takes the lock, so that must not end by itself before.
    subscription.ensure().visibility(Duration::from_secs(6)).await.unwrap();
    publish(&topic, [1]).await;
    let (begun, reported) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (here, there) = (Arc::clone(&begun), Arc::clone(&reported));
    let handler = move |message: Message<Value>| {
        let (here, there) = (Arc::clone(&here), Arc::clone(&there));
        async move {
            here.notify_one();
            assert_eq!(message.cancelled().await, Cancelled::LockLost);
            there.notify_one();
        }
    };
    let runner = subscription.run(handler).start().await.unwrap();
    within(begun.notified()).await;
    topic.purge().await.unwrap();
    within(reported.notified()).await;
    runner.stop().await.unwrap();
    assert_eq!((chronow.metrics().lost, chronow.metrics().acked), (1, 0));
}

async fn stopping_drains_and_gives_back_the_rest(chronow: Chronow) {
    let (topic, subscription) = topic(&chronow).await;
    publish(&topic, 0..10).await;
    let (gate, begun) = (Arc::new(Semaphore::new(0)), Arc::new(Notify::new()));
    let (closed, started) = (Arc::clone(&gate), Arc::clone(&begun));
    let handler = move |_: Message<Value>| {
        let (gate, started) = (Arc::clone(&closed), Arc::clone(&started));
        async move {
            started.notify_one();
            gate.acquire().await.unwrap().forget();
        }
    };
    let runner = subscription.run(handler).concurrency(1).prefetch(5).start().await.unwrap();
    within(begun.notified()).await;
    let stopping = tokio::spawn(runner.stop());
    // What was prefetched is given back while the handler is still at work.
    until("the rest is given back", || async {
        let stats = subscription.stats().await.unwrap();
        (stats.backlog, stats.pending) == (9, 1)
    })
    .await;
    assert!(!stopping.is_finished());
    gate.add_permits(1);
    within(stopping).await.unwrap().unwrap();
    let stats = subscription.stats().await.unwrap();
    assert_eq!((stats.acked, stats.pending, stats.backlog, stats.deliveries), (1, 0, 9, 1));
}

async fn handlers_that_do_not_end_are_cancelled_and_their_messages_tried_again(chronow: Chronow) {
    let (topic, subscription) = topic(&chronow).await;
    publish(&topic, [1, 2]).await;
    let begun = Arc::new(Semaphore::new(0));
    let started = Arc::clone(&begun);
    let handler = move |message: Message<Value>| {
        started.add_permits(1);
        async move {
            if number(&message) == 1 {
                assert_eq!(message.cancelled().await, Cancelled::Stopping);
                return Err("asked to end");
            }
            std::future::pending().await
        }
    };
    let runner = subscription
        .run::<Value, _, _, Result<(), &str>>(handler)
        .drain(Duration::from_millis(200))
        .start()
        .await
        .unwrap();
    within(begun.acquire_many(2)).await.unwrap().forget();
    within(runner.stop()).await.unwrap();
    // Long before the locks would end.
    let again = subscription.receive::<Value>(10).await.unwrap();
    let mut reported: Vec<_> = again.iter().map(|message| (number(message), message.deliveries())).collect();
    // On a slow machine the first one may be given back with, or behind, the second one.
    reported.sort_unstable();
    assert_eq!(reported, [(1, 2), (2, 2)]);
    subscription.ack_all(again).await.unwrap();
}

async fn a_paused_runner_starts_nothing_until_it_is_resumed(chronow: Chronow) {
    let (topic, subscription) = topic(&chronow).await;
    let (handled, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let (count, closed) = (Arc::clone(&handled), Arc::clone(&gate));
    let handler = move |_: Message<Value>| {
        count.fetch_add(1, Ordering::SeqCst);
        let gate = Arc::clone(&closed);
        async move {
            gate.acquire().await.unwrap().forget();
        }
    };
    let runner = subscription.run(handler).concurrency(1).prefetch(1).start().await.unwrap();
    let counts = async || {
        let stats = subscription.stats().await.unwrap();
        (stats.backlog, stats.pending)
    };
    publish(&topic, [1, 2]).await;
    // Then it has no room for more, so that no pull is under way that might bring something after the pause.
    until("the first is at work, the second prefetched", || async {
        handled.load(Ordering::SeqCst) == 1 && counts().await == (0, 2)
    })
    .await;
    runner.pause();
    until("the second is given back", || async { counts().await == (1, 1) }).await;
    gate.add_permits(2);
    until("the first is settled", || async { counts().await == (1, 0) }).await;
    let paused = Instant::now();
    while paused.elapsed() < Duration::from_millis(300) {
        assert_eq!(handled.load(Ordering::SeqCst), 1);
        tokio::task::yield_now().await;
    }
    runner.resume();
    until("the second is handled", || async { handled.load(Ordering::SeqCst) == 2 }).await;
    runner.stop().await.unwrap();
}

async fn a_dropped_runner_stops(chronow: Chronow) {
    let (topic, subscription) = topic(&chronow).await;
    drop(subscription.run(|_: Message<Value>| async {}).start().await.unwrap());
    // Closing waits for whatever is at work.
    publish(&topic, [1]).await;
    within(chronow.close()).await.unwrap();
}

async fn a_runner_ends_when_its_subscription_is_deleted(chronow: Chronow) {
    let (topic, subscription) = topic(&chronow).await;
    let absent = topic.subscription("absent").unwrap().run(|_: Message<Value>| async {}).start().await;
    assert_eq!(absent.unwrap_err().kind(), ErrorKind::NotFound);
    let runner = subscription.run(|_: Message<Value>| async {}).start().await.unwrap();
    assert!(subscription.delete().await.unwrap());
    assert_eq!(within(runner.join()).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn closing_drains_runners_and_ends_streams() {
    let chronos = messaging();
    let chronow = Chronow::connect(Config::default(), Some(&chronos)).await.unwrap();
    let (topic, subscription) = topic(&chronow).await;
    let other = topic.subscription("other").unwrap();
    other.ensure().await.unwrap();
    publish(&topic, 0..5).await;
    let begun = Arc::new(Notify::new());
    let started = Arc::clone(&begun);
    let handler = move |_: Message<Value>| {
        let started = Arc::clone(&started);
        async move {
            started.notify_one();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let running = tokio::spawn(subscription.run(handler).concurrency(1).into_future());
    let mut stream = other.consume::<Value>().await.unwrap();
    let held = within(stream.next()).await.unwrap().unwrap();
    within(begun.notified()).await;
    within(chronow.close()).await.unwrap();
    within(running).await.unwrap().unwrap();
    assert!(within(stream.next()).await.is_none());
    drop(held);
    // The store belongs to another caller, and goes on.
    let again = Chronow::connect(Config::default(), Some(&chronos)).await.unwrap();
    let stats = again.bus().topic("orders").unwrap().stats().await.unwrap();
    let of =
        |name: &str| stats.subscriptions.iter().find(|stats| stats.subscription == name).unwrap().clone();
    assert_eq!(of("s").pending, 0, "what was at work was settled, what was prefetched given back");
    assert_eq!(of("s").acked + of("s").backlog, 5);
    assert_eq!((of("other").pending, of("other").backlog), (1, 4));
}

async fn ordered_messages_are_handled_in_order_by_concurrent_handlers(chronow: Chronow) {
    let (topic, subscription) = topic(&chronow).await;
    let seen: Arc<Mutex<BTreeMap<String, Vec<usize>>>> = Arc::default();
    let handler = {
        let seen = Arc::clone(&seen);
        move |message: Message<Value>| {
            let seen = Arc::clone(&seen);
            async move {
                tokio::task::yield_now().await;
                if number(&message).is_multiple_of(4) && message.deliveries() == 1 {
                    return Err("the first time fails");
                }
                seen.lock().entry(message.key().unwrap().to_owned()).or_default().push(number(&message));
                Ok(())
            }
        }
    };
    let runner = subscription.run(handler).concurrency(8).start().await.unwrap();
    for n in 0..10 {
        topic
            .publish_batch(["a", "b", "c"].map(|key| PublishMessage::json(&json!({ "n": n })).key(key)))
            .await
            .unwrap();
    }
    settled(&subscription).await;
    runner.stop().await.unwrap();
    let expected: Vec<usize> = (0..10).collect();
    assert_eq!(*seen.lock(), ["a", "b", "c"].map(|key| (key.to_owned(), expected.clone())).into());
}

async fn delayed_messages_wait_and_can_be_cancelled(chronow: Chronow) {
    let (topic, subscription) = topic(&chronow).await;
    let begun = Instant::now();
    let far = topic.publish(&json!({"n": 1})).delay(Duration::from_secs(600)).await.unwrap();
    topic.publish(&json!({"n": 2})).delay(Duration::from_millis(400)).await.unwrap();
    let mut messages = subscription.consume::<Value>().await.unwrap();
    let message = within(messages.next()).await.unwrap().unwrap();
    assert_eq!(number(&message), 2);
    assert!(begun.elapsed() >= Duration::from_millis(397));
    message.ack().await.unwrap();
    assert!(topic.cancel(&far.id).await.unwrap());
    assert!(!topic.cancel(&far.id).await.unwrap());
    settled(&subscription).await;
}

async fn duplicates_are_recognised_and_counted(chronow: Chronow) {
    let (topic, subscription) = topic(&chronow).await;
    let first = topic.publish(&1).dedup_id("x").await.unwrap();
    let second = topic.publish(&2).dedup_id("x").await.unwrap();
    assert!(second.duplicate && second.id == first.id);
    assert_eq!((chronow.metrics().published, chronow.metrics().duplicates), (1, 1));
    assert_eq!(subscription.stats().await.unwrap().backlog, 1);
}

#[tokio::test]
async fn warm_copies_are_made_in_the_background_and_replayed() {
    let chronos = messaging();
    let chronow = Chronow::connect(Config::default(), Some(&chronos)).await.unwrap();
    let topic = chronow.bus().topic("kept").unwrap();
    topic.ensure().warm(true).await.unwrap();
    let ids: Vec<_> = topic
        .publish_batch((0..5).map(|n| PublishMessage::json(&json!({ "n": n })).header("type", "x").key("k")))
        .await
        .unwrap()
        .into_iter()
        .map(|published| published.id)
        .collect();
    topic.publish_bytes(&b"\0\xff"[..], "x/y").await.unwrap();
    let messages = chronos.messaging("default").unwrap().messages();
    until("the copies are made", || async { messages.list("kept").await.unwrap().items.len() == 6 }).await;
    for (n, id) in ids.iter().enumerate() {
        let copy = messages.get("kept", id.as_str()).await.unwrap().unwrap();
        assert_eq!(copy.payload, json!({ "n": n }), "each under its own id");
    }
    until("nothing is held for the outbox", || async { topic.stats().await.unwrap().length == 0 }).await;
    assert!(topic.subscriptions().await.unwrap().is_empty(), "the outbox is the library's own business");

    let late = topic.subscription("late").unwrap();
    late.ensure().start(DeliverPolicy::New).await.unwrap();
    assert_eq!(late.replay().await.unwrap(), 6);
    let mut stream = late.consume_bytes().await.unwrap();
    let mut texts = Vec::new();
    for _ in 0..6 {
        let message = within(stream.next()).await.unwrap().unwrap();
        if message.key() == Some("k") {
            assert_eq!(message.header("type"), Some("x"));
        } else {
            assert_eq!(message.content_type(), "x/y");
        }
        texts.push(message.payload.clone());
        message.ack().await.unwrap();
    }
    texts.sort_unstable();
    assert_eq!(texts[0].as_ref(), b"\0\xff");
    assert_eq!(texts[5].as_ref(), br#"{"n":4}"#);
    assert_eq!(chronow.metrics().warm_copies, 6);
    chronow.close().await.unwrap();
}

#[tokio::test]
async fn a_publish_may_wait_for_its_warm_copy() {
    let chronos = messaging();
    let chronow = Chronow::connect(Config::default(), Some(&chronos)).await.unwrap();
    let (topic, _) = topic(&chronow).await;
    let published = topic.publish(&json!({"n": 1})).ack(Ack::Warm).await.unwrap();
    let copy = chronos.messaging("default").unwrap().messages().get("orders", published.id).await.unwrap();
    assert_eq!(copy.unwrap().payload, json!({"n": 1}));
}

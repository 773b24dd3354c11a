//! What the hot tier in documents keeps when publishers and consumers die, or stall, between any two steps,
//! on a store without transactions.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bson::{Bson, RawDocumentBuf};
use bytes::Bytes;
use chronos_db::documents::embedded::EmbeddedDocuments;
use chronos_db::documents::{
    Batch, BuildBatch, Capabilities, Deployment, DocumentStore, Index, Namespace, Numbered, Operation,
    Outcome, Scan, Sequence,
};
use chronos_db::{Env, Error, Result, Timestamp};
use chronow::hot::documents::DocumentsHot;
use chronow::hot::{
    Delivery, HotTier, KeyValueStore, MessageStore, OutboundMessage, Precondition, Select, Settle,
    SettleAndStart, Settled, SubscriptionPatch, TopicPatch,
};
use chronow::{Chronow, Config, ErrorKind, Message, Scope, SubscriptionName, TopicName};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use test_support::documents::{Call, decorate};
use test_support::{Counting, Delaying, Failing, Fault, MockClock};
use tokio::sync::Notify;

use crate::tiers::{TIMEOUT, until};

/// A client that sees the embedded store as one without transactions, that dies after some writes, and whose
/// next write can be held back.
#[derive(Debug)]
struct Mortal {
    inner: Arc<dyn DocumentStore>,
    /// Writes until its death.
    left: AtomicI64,
    holds: AtomicBool,
    held: Notify,
    go: Notify,
}

impl Mortal {
    fn new(inner: &Arc<dyn DocumentStore>, writes: i64) -> Arc<Self> {
        let (held, go) = (Notify::new(), Notify::new());
        Arc::new(Self {
            inner: inner.clone(),
            left: AtomicI64::new(writes),
            holds: AtomicBool::new(false),
            held,
            go,
        })
    }

    async fn step(&self) -> Result<()> {
        if self.holds.swap(false, Ordering::SeqCst) {
            self.held.notify_one();
            self.go.notified().await;
        }
        match self.left.fetch_sub(1, Ordering::SeqCst) {
            left if left > 0 => Ok(()),
            _ => Err(Error::database("the process died")),
        }
    }

    /// Holds the next write back.
    fn hold(&self) {
        self.holds.store(true, Ordering::SeqCst);
    }
}

#[async_trait]
impl DocumentStore for Mortal {
    async fn capabilities(&self) -> Result<Capabilities> {
        Ok(Capabilities { transactions: false, atomic_sequence: false })
    }

    /// Stage by stage, and operation by operation.
    async fn apply(&self, batch: Batch) -> Result<Vec<Outcome>> {
        let operations = batch.operations;
        let depth = |mut at: usize| {
            let mut depth = 0;
            while let Some(required) = operations[at].requires {
                (at, depth) = (required, depth + 1);
            }
            depth
        };
        let mut order: Vec<usize> = (0..operations.len()).collect();
        order.sort_by_key(|at| depth(*at));
        let mut outcomes = vec![Outcome::Skipped; operations.len()];
        // A command carries many writes; dying in the middle of each of them would take too long to try.
        for part in order
            .chunk_by(|a, b| depth(*a) == depth(*b))
            .flat_map(|stage| stage.chunks(stage.len().div_ceil(2)))
        {
            let part: Vec<usize> = part
                .iter()
                .copied()
                .filter(|at| operations[*at].requires.is_none_or(|r| outcomes[r] == Outcome::Applied))
                .collect();
            if part.is_empty() {
                continue;
            }
            self.step().await?;
            let single = |at: &usize| Operation { requires: None, ..operations[*at].clone() };
            let batch = Batch { operations: part.iter().map(single).collect(), ..Batch::new() };
            for (at, outcome) in part.into_iter().zip(self.inner.apply(batch).await?) {
                outcomes[at] = outcome;
            }
        }
        Ok(outcomes)
    }

    async fn sequence(&self, namespace: &Namespace, name: &str, count: u32) -> Result<Sequence> {
        self.step().await?;
        self.inner.sequence(namespace, name, count).await
    }

    async fn sequence_then(
        &self,
        namespace: &Namespace,
        name: &str,
        count: u32,
        build: BuildBatch,
    ) -> Result<Numbered> {
        let sequence = self.sequence(namespace, name, count).await?;
        Ok(Numbered { sequence, outcomes: self.apply(build(sequence)?).await? })
    }

    async fn get_stored(&self, namespace: &Namespace, ids: Vec<Bson>) -> Result<Vec<RawDocumentBuf>> {
        self.inner.get_stored(namespace, ids).await
    }

    fn scan_stored(&self, namespace: &Namespace, scan: Scan) -> BoxStream<'static, Result<RawDocumentBuf>> {
        self.inner.scan_stored(namespace, scan)
    }

    async fn now(&self) -> Result<Timestamp> {
        self.inner.now().await
    }

    async fn ensure(&self, namespace: &Namespace, indexes: &[Index]) -> Result<()> {
        self.inner.ensure(namespace, indexes).await
    }

    async fn deployment(&self) -> Result<Deployment> {
        self.inner.deployment().await
    }

    async fn databases(&self) -> Result<Vec<String>> {
        self.inner.databases().await
    }
    async fn collections(&self, database: &str) -> Result<Vec<String>> {
        self.inner.collections(database).await
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

const FOREVER: i64 = i64::MAX;

/// One store, one clock, and a topic with a subscription.
struct World {
    clock: Arc<MockClock>,
    env: Env,
    store: Arc<dyn DocumentStore>,
    topic: TopicName,
    subscription: SubscriptionName,
}

impl World {
    async fn new() -> Self {
        let clock = Arc::new(MockClock::default());
        let env = Env { clock: clock.clone(), ..Env::default() };
        let store: Arc<dyn DocumentStore> =
            Arc::new(EmbeddedDocuments::open(Path::new(":memory:"), env.clone()).unwrap());
        let topic = TopicName::new(&Scope::new("t", "n").unwrap(), "orders").unwrap();
        let subscription = SubscriptionName::new(&topic, "s").unwrap();
        let world = Self { clock, env, store, topic, subscription };
        let (hot, _) = world.client(FOREVER);
        hot.ensure_topic(&world.topic, &TopicPatch::default()).await.unwrap();
        let patch = SubscriptionPatch::default()
            .visibility(Duration::from_millis(10_000))
            .max_deliveries(3)
            .backoff([Duration::from_millis(100)]);
        hot.ensure_subscription(&world.subscription, &patch).await.unwrap();
        world
    }

    fn client(&self, writes: i64) -> (Arc<dyn HotTier>, Arc<Mortal>) {
        let mortal = Mortal::new(&self.store, writes);
        (Arc::new(DocumentsHot::new(mortal.clone(), "cw", self.env.clone())), mortal)
    }

    fn pass(&self, millis: u64) {
        self.clock.advance(Duration::from_millis(millis));
    }

    async fn now(&self) -> Timestamp {
        self.store.now().await.unwrap()
    }

    /// Pulls and acknowledges until nothing has come for a long time; returns what came, with how often it
    /// had been started before.
    async fn drain(&self, hot: &Arc<dyn HotTier>) -> Vec<(String, u32)> {
        let mut seen = Vec::new();
        for _ in 0..12 {
            loop {
                let pulled = hot.pull(&self.subscription, 300).await.unwrap().deliveries;
                if pulled.is_empty() {
                    break;
                }
                seen.extend(pulled.iter().map(|delivery| (said(delivery), delivery.deliveries)));
                let locks: Vec<_> = pulled.into_iter().map(|delivery| delivery.lock).collect();
                let started = hot
                    .settle_and_start(
                        &self.subscription,
                        SettleAndStart { settle: Vec::new(), start: locks.clone() },
                    )
                    .await
                    .unwrap()
                    .started;
                let held = locks.into_iter().zip(started).filter(|(_, started)| *started);
                let settle = held.map(|(lock, _)| (lock, Settle::Ack)).collect();
                hot.settle_and_start(&self.subscription, SettleAndStart { settle, start: Vec::new() })
                    .await
                    .unwrap();
            }
            self.pass(2_500);
        }
        seen
    }
}

fn said(delivery: &Delivery) -> String {
    String::from_utf8(delivery.message.payload.to_vec()).unwrap()
}

fn message(text: impl ToString) -> OutboundMessage {
    OutboundMessage { payload: text.to_string().into(), ..OutboundMessage::default() }
}

#[tokio::test]
async fn a_publisher_that_dies_anywhere_leaves_a_whole_batch_or_none() {
    for writes in 0.. {
        let world = World::new().await;
        let (first, mortal) = world.client(writes);
        let soon = world.now().await.plus_millis(5_000);
        let mut batch: Vec<OutboundMessage> = (0..1_100).map(message).collect();
        batch.push(OutboundMessage { not_before: Some(soon), ..message("later") });
        batch.push(OutboundMessage { dedup_id: Some("once".to_owned()), ..message("once") });
        let reported = first.publish(&world.topic, batch.clone()).await;
        assert_eq!(reported.is_err(), mortal.left.load(Ordering::SeqCst) < 0);

        let (second, _) = world.client(FOREVER);
        second.publish(&world.topic, vec![message("after")]).await.unwrap();
        let mut seen: Vec<String> = world.drain(&second).await.into_iter().map(|(text, _)| text).collect();
        assert!(seen.contains(&"after".to_owned()), "what was published after the death comes");
        seen.retain(|text| text != "after");
        assert!(
            seen.is_empty() || seen.len() == batch.len(),
            "dying after {writes} writes left {} of {}",
            seen.len(),
            batch.len()
        );
        assert!(reported.is_err() || seen.len() == batch.len(), "what was accepted came");
        assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len(), "nothing came twice");

        let again = second.publish(&world.topic, vec![batch[1_101].clone()]).await.unwrap();
        assert_eq!(again[0].duplicate, !seen.is_empty(), "the dedup id counts exactly if its message did");
        if reported.is_ok() {
            return;
        }
    }
}

#[tokio::test]
async fn a_consumer_that_dies_anywhere_loses_nothing_and_exceeds_no_limit() {
    for writes in 0.. {
        let world = World::new().await;
        let (healthy, _) = world.client(FOREVER);
        let keyed =
            |n: u32| OutboundMessage { key: (n.is_multiple_of(3)).then(|| "k".to_owned()), ..message(n) };
        healthy.publish(&world.topic, (0..12).map(keyed).collect()).await.unwrap();

        let (dying, mortal) = world.client(writes);
        let mut acked = BTreeSet::new();
        let life = async {
            for _ in 0..8 {
                let pulled = dying.pull(&world.subscription, 4).await?.deliveries;
                for delivery in pulled {
                    let start = SettleAndStart { settle: Vec::new(), start: vec![delivery.lock.clone()] };
                    if !dying.settle_and_start(&world.subscription, start).await?.started[0] {
                        continue;
                    }
                    let fails = said(&delivery).parse::<u32>().unwrap() % 4 == 1 && delivery.deliveries == 0;
                    let settle = if fails {
                        Settle::Retry { delay: None, reason: "first".to_owned() }
                    } else {
                        Settle::Ack
                    };
                    let settle =
                        SettleAndStart { settle: vec![(delivery.lock.clone(), settle)], start: Vec::new() };
                    let settled = dying.settle_and_start(&world.subscription, settle).await?.settled[0];
                    if settled == Settled::Done && !fails {
                        acked.insert(said(&delivery));
                    }
                }
                world.pass(150);
            }
            chronow::Result::<()>::Ok(())
        };
        let lived = life.await;
        // Garbage collection may fail without an error for any caller.
        let died = mortal.left.load(Ordering::SeqCst) < 0;
        assert!(lived.is_ok() || died, "{lived:?}");
        world.pass(11_000);
        let seen = world.drain(&healthy).await;
        let texts: Vec<&String> = seen.iter().map(|(text, _)| text).collect();
        for n in 0..12 {
            let times = texts.iter().filter(|text| ***text == n.to_string()).count();
            let expected = usize::from(!acked.contains(&n.to_string()));
            assert!(
                times <= expected,
                "{n} came {times} times after {writes} writes, acknowledged: {acked:?}"
            );
            // An acknowledgement may have taken place though its answer was lost.
            assert!(times == expected || died, "{n} was lost after {writes} writes");
        }
        assert!(seen.iter().all(|(_, before)| *before <= 2), "the limit holds: {seen:?}");
        let stats = healthy.stats(&world.topic).await.unwrap();
        assert_eq!(
            stats.subscriptions[0].acked, 12,
            "everything was handled, after {writes} writes: {stats:?}"
        );
        assert_eq!(stats.length, 0);
        if !died {
            return;
        }
    }
}

#[tokio::test]
async fn a_puller_that_stalls_for_however_long_brings_nothing_back() {
    let world = World::new().await;
    let (slow, mortal) = world.client(FOREVER);
    let (quick, _) = world.client(FOREVER);
    // Another subscription keeps the messages themselves from going.
    let other = SubscriptionName::new(&world.topic, "other").unwrap();
    quick.ensure_subscription(&other, &SubscriptionPatch::default()).await.unwrap();
    quick.publish(&world.topic, (0..5).map(message).collect()).await.unwrap();
    mortal.hold();
    let stalled = {
        let (slow, subscription) = (slow.clone(), world.subscription.clone());
        tokio::spawn(async move { slow.pull(&subscription, 10).await })
    };
    mortal.held.notified().await;
    assert_eq!(world.drain(&quick).await.len(), 5);
    // Tidies up: the floor has passed, the tombstones are gone.
    quick.stats(&world.topic).await.unwrap();
    mortal.go.notify_one();
    assert!(stalled.await.unwrap().unwrap().deliveries.is_empty(), "what was settled long ago came back");
    assert!(world.drain(&quick).await.is_empty());
    let stats = quick.stats(&world.topic).await.unwrap();
    let billing = stats.subscriptions.iter().find(|stats| stats.subscription == "s").unwrap();
    assert_eq!((billing.acked, billing.backlog, billing.pending), (5, 0, 0));
    assert_eq!(quick.pull(&other, 10).await.unwrap().deliveries.len(), 5);
}

#[tokio::test]
async fn a_publisher_that_stalls_beyond_the_grace_is_accepted_once_behind_the_others() {
    let world = World::new().await;
    let (slow, mortal) = world.client(FOREVER);
    let (quick, _) = world.client(FOREVER);
    slow.publish(&world.topic, vec![message("first")]).await.unwrap();
    // Lets the sequence through, and holds the insert.
    mortal.left.store(FOREVER, Ordering::SeqCst);
    let stalled = {
        let (slow, topic, mortal) = (slow.clone(), world.topic.clone(), mortal.clone());
        tokio::spawn(async move {
            mortal.hold();
            slow.publish(&topic, vec![message("slow")]).await
        })
    };
    mortal.held.notified().await;
    mortal.hold();
    mortal.go.notify_one();
    mortal.held.notified().await;
    quick.publish(&world.topic, vec![message("quick")]).await.unwrap();
    let pulled = quick.pull(&world.subscription, 10).await.unwrap();
    assert_eq!(
        pulled.deliveries.iter().map(said).collect::<Vec<_>>(),
        ["first"],
        "a number that is being written is not passed"
    );
    assert!(pulled.next_due.is_some());
    world.pass(3_000);
    let mut seen: Vec<String> = world.drain(&quick).await.into_iter().map(|(text, _)| text).collect();
    mortal.go.notify_one();
    let late = stalled.await.unwrap().unwrap();
    seen.extend(world.drain(&quick).await.into_iter().map(|(text, _)| text));
    seen.retain(|text| text != "first");
    assert_eq!(seen, ["quick", "slow"]);
    assert!(!late[0].duplicate);
}

#[tokio::test]
async fn what_lies_behind_hundreds_of_closed_places_comes_after_a_few_calls() {
    let world = World::new().await;
    // Numbers, then all chunks but the first, which accepts the batch: it dies before that.
    let (dying, _) = world.client(3);
    dying.publish(&world.topic, (0..1_100).map(message).collect()).await.unwrap_err();
    let (healthy, mortal) = world.client(FOREVER);
    healthy.publish(&world.topic, vec![message("behind")]).await.unwrap();
    assert!(
        healthy.pull(&world.subscription, 10).await.unwrap().deliveries.is_empty(),
        "places that are being written are not passed"
    );
    world.pass(2_500);

    let counting = Counting::<Call>::new();
    let hot: Arc<dyn HotTier> =
        Arc::new(DocumentsHot::new(decorate(mortal, counting.clone()), "cw", world.env.clone()));
    let mut pulls = 0;
    let seen = loop {
        let pulled = hot.pull(&world.subscription, 10).await.unwrap();
        pulls += 1;
        if !pulled.deliveries.is_empty() {
            break pulled.deliveries;
        }
        assert_eq!(pulled.next_due, Some(Duration::ZERO), "there is more at once");
    };
    assert_eq!(seen.iter().map(said).collect::<Vec<_>>(), ["behind"]);
    let calls: u64 = counting.take().into_iter().map(|(_, calls)| calls).sum();
    assert!(calls <= 40, "{calls} calls in {pulls} pulls");
}

#[tokio::test]
async fn a_batch_that_is_written_while_its_gap_is_being_closed_comes_whole_or_again() {
    // The reader is held before its first write that closes the gap, and then between that and the rest.
    for holds in 1..=2 {
        let world = World::new().await;
        let (slow, publisher) = world.client(FOREVER);
        let (reading, reader) = world.client(FOREVER);
        let (quick, _) = world.client(FOREVER);
        let publishing = {
            let (slow, topic, publisher) = (slow.clone(), world.topic.clone(), publisher.clone());
            tokio::spawn(async move {
                publisher.hold();
                slow.publish(&topic, (0..4).map(message).collect()).await
            })
        };
        publisher.held.notified().await;
        publisher.hold();
        publisher.go.notify_one();
        publisher.held.notified().await;
        quick.publish(&world.topic, vec![message("behind")]).await.unwrap();
        world.pass(3_000);
        reader.hold();
        let pulling = {
            let (reading, subscription) = (reading.clone(), world.subscription.clone());
            tokio::spawn(async move { reading.pull(&subscription, 10).await })
        };
        reader.held.notified().await;
        if holds == 2 {
            reader.hold();
            reader.go.notify_one();
            reader.held.notified().await;
        }
        publisher.go.notify_one();
        publishing.await.unwrap().unwrap();
        reader.go.notify_one();
        let mut seen: Vec<String> = pulling.await.unwrap().unwrap().deliveries.iter().map(said).collect();
        world.pass(11_000);
        seen.extend(world.drain(&quick).await.into_iter().map(|(text, _)| text));
        let seen: BTreeSet<String> = seen.into_iter().collect();
        assert_eq!(seen.len(), 5, "held {holds} times: {seen:?}");
    }
}

#[tokio::test]
async fn a_scheduled_message_is_delivered_once_though_the_process_that_moves_it_dies() {
    for writes in 0.. {
        let world = World::new().await;
        let (healthy, _) = world.client(FOREVER);
        let at = world.now().await.plus_millis(1_000);
        let scheduled = |n: u32| OutboundMessage { not_before: Some(at), ..message(n) };
        healthy.publish(&world.topic, (0..3).map(scheduled).collect()).await.unwrap();
        world.pass(1_500);
        let (dying, mortal) = world.client(writes);
        let died = dying.pull(&world.subscription, 10).await.is_err();
        assert_eq!(died, mortal.left.load(Ordering::SeqCst) < 0);
        world.pass(11_000);
        let mut seen: Vec<String> = world.drain(&healthy).await.into_iter().map(|(text, _)| text).collect();
        seen.sort_unstable();
        assert_eq!(seen, ["0", "1", "2"], "after {writes} writes");
        if !died {
            return;
        }
    }
}

#[tokio::test]
async fn a_dead_letter_survives_the_process_that_dies_making_it() {
    for writes in 0.. {
        let world = World::new().await;
        let (healthy, _) = world.client(FOREVER);
        let expiring = |n: u32| OutboundMessage { ttl: Some(Duration::from_secs(1)), ..message(n) };
        healthy.publish(&world.topic, (0..4).map(expiring).collect()).await.unwrap();
        world.pass(1_500);
        let (dying, _) = world.client(writes);
        let died = dying.pull(&world.subscription, 10).await.is_err();
        assert!(healthy.pull(&world.subscription, 10).await.unwrap().deliveries.is_empty());
        let dead = healthy.dead_letters(&world.subscription, None, 10).await.unwrap().items;
        assert_eq!(dead.len(), 4, "after {writes} writes");
        assert!(dead.iter().all(|dead| dead.reason == "expired"));
        assert_eq!(healthy.purge_dead_letters(&world.subscription, &Select::All).await.unwrap(), 4);
        // Nobody makes them again.
        assert!(healthy.pull(&world.subscription, 10).await.unwrap().deliveries.is_empty());
        assert!(healthy.dead_letters(&world.subscription, None, 10).await.unwrap().items.is_empty());
        if !died {
            return;
        }
    }
}

#[tokio::test]
async fn a_runner_does_not_take_a_store_that_does_not_answer_for_one_without_messages() {
    let failing = Failing::<Call>::new();
    let documents: Arc<dyn DocumentStore> =
        Arc::new(EmbeddedDocuments::open(Path::new(":memory:"), Env::default()).unwrap());
    let hot = Arc::new(DocumentsHot::new(decorate(documents.clone(), failing.clone()), "cw", Env::default()));
    let healthy = DocumentsHot::new(documents, "cw", Env::default());
    let chronow = Chronow::with_hot(hot, &Config::default(), None).unwrap();
    let topic = chronow.bus().topic("orders").unwrap();
    topic.ensure().await.unwrap();
    let subscription = topic.subscription("s").unwrap();
    subscription.ensure().await.unwrap();
    let (handled, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let runner = subscription
        .run_bytes(move |message| {
            handled.send(message.id().to_owned()).unwrap();
            async {}
        })
        .start()
        .await
        .unwrap();
    runner.found_nothing().await;

    failing.switch_all_on(Fault::Before);
    let mut looked = Box::pin(runner.found_nothing());
    while failing.injected() < 6 {
        assert!(futures::poll!(&mut looked).is_pending(), "nobody knows what is due");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Before the store answers the runner again, so that the first look that does not fail finds it.
    healthy.publish(topic.name(), vec![message(1)]).await.unwrap();
    failing.switch_off();
    seen.recv().await.unwrap();
    looked.await;
    assert_eq!(subscription.stats().await.unwrap().acked, 1, "it was settled before nothing was found");
    runner.stop().await.unwrap();
}

/// Two clients of one store, of which the second waits as long as `delaying` says.
fn healthy_and_delayed(delaying: &Arc<Delaying<Call>>) -> (Chronow, Chronow) {
    let store: Arc<dyn DocumentStore> =
        Arc::new(EmbeddedDocuments::open(Path::new(":memory:"), Env::default()).unwrap());
    let connect = |store| {
        let hot = Arc::new(DocumentsHot::new(store, "cw", Env::default()));
        Chronow::with_hot(hot, &Config::default(), None).unwrap()
    };
    (connect(store.clone()), connect(decorate(store, delaying.clone())))
}

#[tokio::test]
async fn a_runner_sleeps_while_its_pull_is_under_way_also_when_a_message_becomes_due() {
    let clock = Arc::new(MockClock::default());
    let delaying = Delaying::<Call>::new(clock.clone());
    let (healthy, held_back) = healthy_and_delayed(&delaying);
    let topic = healthy.bus().topic("orders").unwrap();
    topic.ensure().await.unwrap();
    topic
        .subscription("s")
        .unwrap()
        .ensure()
        .backoff([Duration::from_secs(2)])
        .jitter_percent(0)
        .await
        .unwrap();
    let subscription = held_back.bus().topic("orders").unwrap().subscription("s").unwrap();
    let fails =
        |message: Message<Bytes>| async move { if message.deliveries() == 1 { Err("once") } else { Ok(()) } };
    let runner = subscription.run_bytes(fails).start().await.unwrap();
    topic.publish(&1).await.unwrap();
    until("it is to be tried again", || async { subscription.stats().await.unwrap().scheduled == 1 }).await;
    runner.found_nothing().await;

    delaying.delay(Call::Apply, Duration::from_secs(1));
    topic.publish(&2).await.unwrap();
    until("the pull of the second is under way", || async { clock.sleeping() > 0 }).await;
    let (in_vain, mut waited) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        std::thread::sleep(TIMEOUT);
        in_vain.send(())
    });
    // A clock that stands moves when everybody sleeps, and only then: to the end of this minute past the time
    // at which the first is due.
    tokio::time::pause();
    tokio::select! {
        () = tokio::time::sleep(Duration::from_secs(60)) => {}
        _ = &mut waited => panic!("the runner never sleeps"),
    }
    tokio::time::resume();

    delaying.delay(Call::Apply, Duration::ZERO);
    clock.advance(Duration::from_secs(1));
    until("both are handled", || async { subscription.stats().await.unwrap().acked == 2 }).await;
    runner.stop().await.unwrap();
}

#[tokio::test]
async fn a_runner_whose_store_is_silent_ends_in_its_time_and_says_what_it_left() {
    let clock = Arc::new(MockClock::default());
    let delaying = Delaying::<Call>::new(clock.clone());
    let (healthy, silent) = healthy_and_delayed(&delaying);
    let topic = healthy.bus().topic("orders").unwrap();
    topic.ensure().await.unwrap();
    topic.subscription("s").unwrap().ensure().await.unwrap();
    let subscription = silent.bus().topic("orders").unwrap().subscription("s").unwrap();
    let go = Arc::new(Notify::new());
    let (began, begun) = (Arc::new(Notify::new()), Arc::clone(&go));
    let begins = Arc::clone(&began);
    let handler = move |_: Message<Bytes>| {
        let (begins, go) = (Arc::clone(&begins), Arc::clone(&begun));
        async move {
            begins.notify_one();
            go.notified().await;
        }
    };
    let runner = subscription.run_bytes(handler).concurrency(1).prefetch(0).start().await.unwrap();
    topic.publish(&1).await.unwrap();
    began.notified().await;
    // For longer than anybody waits.
    delaying.delay(Call::Apply, Duration::from_secs(1_000_000));
    go.notify_one();
    let error = tokio::time::timeout(TIMEOUT, runner.stop()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HotTier);
    assert!(error.message().contains("when its locks end"), "{error}");
    assert_eq!(
        healthy.bus().topic("orders").unwrap().subscription("s").unwrap().stats().await.unwrap().acked,
        0
    );
}

#[tokio::test]
async fn who_watches_keys_hears_of_an_interruption_and_of_every_change_in_it() {
    let documents: Arc<dyn DocumentStore> =
        Arc::new(EmbeddedDocuments::open(Path::new(":memory:"), Env::default()).unwrap());
    let failing = Failing::<Call>::new();
    let healthy = DocumentsHot::new(documents.clone(), "cw", Env::default());
    let interrupted = DocumentsHot::new(decorate(documents, failing.clone()), "cw", Env::default());
    let scope = Scope::new("t", "n").unwrap();
    let set = async |key| {
        healthy.set(&scope, key, Some(Bytes::from("1")), "application/json", None, Precondition::Always).await
    };
    let mut changes = interrupted.watch(&scope, "k").await.unwrap();
    set("k1").await.unwrap();
    assert_eq!(changes.next().await.unwrap().unwrap().key, "k1");

    failing.switch_all_on(Fault::Before);
    let reported = changes.next().await.unwrap().unwrap_err();
    assert!(reported.is_retryable(), "{reported}");
    set("k2").await.unwrap();
    failing.switch_off();
    assert_eq!(changes.next().await.unwrap().unwrap().key, "k2");
    set("k3").await.unwrap();
    assert_eq!(changes.next().await.unwrap().unwrap().key, "k3");

    failing.switch_all_on(Fault::Refused);
    assert!(!changes.next().await.unwrap().unwrap_err().is_retryable());
    assert!(changes.next().await.is_none(), "after that there is nothing more");
}

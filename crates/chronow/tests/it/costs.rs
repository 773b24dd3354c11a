//! What a call of the hot tier in documents costs, in calls to the document store, documents and bytes, does
//! not depend on what else is there: backlog, messages in flight, other subscriptions, other consumers.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bson::{Bson, RawDocumentBuf};
use chronos_db::documents::embedded::EmbeddedDocuments;
use chronos_db::documents::mongo::MongoDocuments;
use chronos_db::documents::{
    Batch, BuildBatch, Capabilities, Deployment, DocumentStore, Index, Namespace, Numbered, Outcome, Scan,
    Sequence,
};
use chronos_db::{Env, Timestamp};
use chronow::hot::documents::DocumentsHot;
use chronow::hot::{
    Delivery, HotTier, OutboundMessage, Settle, SettleAndStart, SubscriptionPatch, TopicPatch,
};
use chronow::{Chronow, Config, Scope, SubscriptionName, TopicName};
use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream::BoxStream;
use test_support::servers;

/// A document store that counts.
#[derive(Debug)]
struct Metered {
    inner: Arc<dyn DocumentStore>,
    meter: Arc<Meter>,
}

#[derive(Debug, Default)]
struct Meter {
    calls: AtomicU64,
    documents: AtomicU64,
    bytes: AtomicU64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Cost {
    calls: f64,
    documents: f64,
    bytes: f64,
}

impl Meter {
    fn call(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self, document: &RawDocumentBuf) {
        self.documents.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(document.as_bytes().len() as u64, Ordering::Relaxed);
    }

    /// What was counted since the last time, for each of so many.
    fn take(&self, times: usize) -> Cost {
        let each = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed) as f64 / times as f64;
        Cost { calls: each(&self.calls), documents: each(&self.documents), bytes: each(&self.bytes) }
    }
}

#[async_trait]
impl DocumentStore for Metered {
    async fn capabilities(&self) -> chronos_db::Result<Capabilities> {
        self.inner.capabilities().await
    }

    async fn apply(&self, batch: Batch) -> chronos_db::Result<Vec<Outcome>> {
        self.meter.call();
        self.meter.documents.fetch_add(batch.operations.len() as u64, Ordering::Relaxed);
        self.inner.apply(batch).await
    }

    async fn sequence(&self, namespace: &Namespace, name: &str, count: u32) -> chronos_db::Result<Sequence> {
        self.meter.call();
        self.inner.sequence(namespace, name, count).await
    }

    async fn sequence_then(
        &self,
        namespace: &Namespace,
        name: &str,
        count: u32,
        build: BuildBatch,
    ) -> chronos_db::Result<Numbered> {
        self.meter.call();
        self.inner.sequence_then(namespace, name, count, build).await
    }

    async fn get_stored(
        &self,
        namespace: &Namespace,
        ids: Vec<Bson>,
    ) -> chronos_db::Result<Vec<RawDocumentBuf>> {
        self.meter.call();
        let found = self.inner.get_stored(namespace, ids).await?;
        found.iter().for_each(|document| self.meter.read(document));
        Ok(found)
    }

    fn scan_stored(
        &self,
        namespace: &Namespace,
        scan: Scan,
    ) -> BoxStream<'static, chronos_db::Result<RawDocumentBuf>> {
        self.meter.call();
        let meter = Arc::clone(&self.meter);
        let read = move |found: &chronos_db::Result<RawDocumentBuf>| {
            if let Ok(document) = found {
                meter.read(document);
            }
        };
        self.inner.scan_stored(namespace, scan).inspect(read).boxed()
    }

    async fn now(&self) -> chronos_db::Result<Timestamp> {
        self.inner.now().await
    }

    async fn ensure(&self, namespace: &Namespace, indexes: &[Index]) -> chronos_db::Result<()> {
        self.inner.ensure(namespace, indexes).await
    }

    async fn deployment(&self) -> chronos_db::Result<Deployment> {
        self.inner.deployment().await
    }

    async fn databases(&self) -> chronos_db::Result<Vec<String>> {
        self.inner.databases().await
    }
    async fn collections(&self, database: &str) -> chronos_db::Result<Vec<String>> {
        self.inner.collections(database).await
    }

    async fn close(&self) -> chronos_db::Result<()> {
        self.inner.close().await
    }
}

struct World {
    hot: Arc<dyn HotTier>,
    meter: Arc<Meter>,
    topic: TopicName,
    subscription: SubscriptionName,
}

/// Long locks, and no retries in the way.
fn calm() -> SubscriptionPatch {
    SubscriptionPatch::default().visibility(Duration::from_millis(600_000))
}

fn messages(count: usize) -> Vec<OutboundMessage> {
    (0..count)
        .map(|n| OutboundMessage {
            payload: format!("{{\"n\":{n},\"text\":\"{}\"}}", "x".repeat(50)).into(),
            ..OutboundMessage::default()
        })
        .collect()
}

impl World {
    async fn new(documents: Arc<dyn DocumentStore>, patch: SubscriptionPatch) -> Self {
        let meter = Arc::new(Meter::default());
        let documents = Arc::new(Metered { inner: documents, meter: Arc::clone(&meter) });
        let hot: Arc<dyn HotTier> = Arc::new(DocumentsHot::new(documents, "cw-costs", Env::default()));
        let scope = Scope::new("costs", &servers::unique_name("ns")).unwrap();
        let topic = TopicName::new(&scope, "orders").unwrap();
        hot.ensure_topic(&topic, &TopicPatch::default().max_len(1_000_000)).await.unwrap();
        let subscription = SubscriptionName::new(&topic, "measured").unwrap();
        hot.ensure_subscription(&subscription, &patch).await.unwrap();
        Self { hot, meter, topic, subscription }
    }

    async fn publish(&self, count: usize) {
        for from in (0..count).step_by(500) {
            self.hot.publish(&self.topic, messages(500.min(count - from))).await.unwrap();
        }
    }

    async fn pull(&self, count: usize) -> Vec<Delivery> {
        let mut taken = Vec::new();
        while taken.len() < count {
            let wanted = u32::try_from((count - taken.len()).min(500)).unwrap();
            taken.extend(self.hot.pull(&self.subscription, wanted).await.unwrap().deliveries);
        }
        taken
    }

    async fn ack(&self, deliveries: Vec<Delivery>) {
        let settle = deliveries.into_iter().map(|delivery| (delivery.lock, Settle::Ack)).collect();
        self.hot
            .settle_and_start(&self.subscription, SettleAndStart { settle, start: Vec::new() })
            .await
            .unwrap();
    }

    /// What each of the usual calls costs, by name.
    async fn costs(&self) -> Vec<(&'static str, Cost)> {
        const TIMES: usize = 10;
        let mut costs = Vec::new();
        // What was looked up once is known from here on.
        self.hot.publish(&self.topic, messages(1)).await.unwrap();
        let known = self.pull(1).await;
        self.ack(known).await;
        self.meter.take(1);
        for _ in 0..TIMES {
            self.hot.publish(&self.topic, messages(1)).await.unwrap();
        }
        costs.push(("publish", self.meter.take(TIMES)));
        let mut held = Vec::new();
        for _ in 0..TIMES {
            held.extend(self.hot.pull(&self.subscription, 1).await.unwrap().deliveries);
        }
        costs.push(("pull", self.meter.take(TIMES)));
        assert_eq!(held.len(), TIMES);
        for delivery in &held {
            assert_eq!(
                self.hot.renew(&self.subscription, vec![delivery.lock.clone()]).await.unwrap(),
                [true]
            );
        }
        costs.push(("renew", self.meter.take(TIMES)));
        for delivery in held {
            self.ack(vec![delivery]).await;
        }
        costs.push(("settle", self.meter.take(TIMES)));
        assert_eq!(self.hot.peek(&self.subscription, 1).await.unwrap().len(), 1);
        costs.push(("peek", self.meter.take(1)));
        costs
    }

    /// What a pull costs that brings nothing.
    async fn empty_pull(&self) -> Cost {
        // The first ones may tidy up.
        for _ in 0..3 {
            assert!(self.hot.pull(&self.subscription, 10).await.unwrap().deliveries.is_empty());
        }
        self.meter.take(1);
        for _ in 0..10 {
            assert!(self.hot.pull(&self.subscription, 10).await.unwrap().deliveries.is_empty());
        }
        self.meter.take(10)
    }
}

/// With a wide margin: what grows with the world grows a hundredfold here.
fn assert_alike(what: &str, small: Cost, large: Cost) {
    let alike = |small: f64, large: f64, spare: f64| large <= 3.0 * small + spare;
    assert!(
        alike(small.calls, large.calls, 2.0)
            && alike(small.documents, large.documents, 4.0)
            && alike(small.bytes, large.bytes, 4_096.0),
        "{what} costs {small:?} in a small world and {large:?} in a large one"
    );
}

fn assert_all_alike(in_what: &str, small: Vec<(&'static str, Cost)>, large: Vec<(&'static str, Cost)>) {
    for ((name, small), (_, large)) in small.into_iter().zip(large) {
        assert_alike(&format!("{name} {in_what}"), small, large);
    }
}

fn embedded() -> Arc<dyn DocumentStore> {
    Arc::new(EmbeddedDocuments::open(Path::new(":memory:"), Env::default()).unwrap())
}

fn mongo() -> Arc<dyn DocumentStore> {
    Arc::new(MongoDocuments::new(servers::mongo_rs_uri().into(), Env::default()).unwrap())
}

async fn costs_do_not_grow_with_the_backlog(documents: fn() -> Arc<dyn DocumentStore>) {
    let mut found = Vec::new();
    for backlog in [200, 20_000] {
        let world = World::new(documents(), calm()).await;
        world.publish(backlog).await;
        found.push(world.costs().await);
        let stats = world.hot.stats(&world.topic).await.unwrap();
        assert!(stats.subscriptions[0].backlog >= backlog as u64);
        let cost = world.meter.take(1);
        assert!(
            cost.bytes < 8_192.0 + 2.0 * backlog as f64,
            "counting {backlog} messages reads them: {cost:?}"
        );
    }
    let large = found.pop().unwrap();
    assert_all_alike("with a backlog", found.pop().unwrap(), large);
}

async fn costs_do_not_grow_with_what_is_in_flight(documents: fn() -> Arc<dyn DocumentStore>) {
    let mut found = Vec::new();
    for flying in [60, 6_000] {
        let world = World::new(documents(), calm()).await;
        world.publish(flying).await;
        let held = world.pull(flying).await;
        let empty = world.empty_pull().await;
        world.publish(20).await;
        let mut costs = world.costs().await;
        costs.push(("an empty pull", empty));
        found.push(costs);
        drop(held);
    }
    let large = found.pop().unwrap();
    assert_all_alike("with messages in flight", found.pop().unwrap(), large);
}

async fn costs_do_not_grow_with_subscriptions(documents: fn() -> Arc<dyn DocumentStore>, many: usize) {
    let mut found = Vec::new();
    for others in [many / 50, many] {
        let world = World::new(documents(), calm()).await;
        for n in 0..others {
            let other = SubscriptionName::new(&world.topic, &format!("other-{n}")).unwrap();
            world.hot.ensure_subscription(&other, &calm()).await.unwrap();
        }
        let empty = world.empty_pull().await;
        world.publish(20).await;
        let mut costs = world.costs().await;
        costs.push(("an empty pull", empty));
        found.push(costs);
    }
    let large = found.pop().unwrap();
    assert_all_alike("beside other subscriptions", found.pop().unwrap(), large);
}

async fn a_message_wakes_one_of_many_consumers(documents: fn() -> Arc<dyn DocumentStore>) {
    let mut found = Vec::new();
    for consumers in [4, 160] {
        let world = World::new(documents(), calm()).await;
        assert!(world.hot.pull(&world.subscription, 1).await.unwrap().deliveries.is_empty());
        let waits = (0..consumers).map(|_| {
            let (hot, subscription) = (Arc::clone(&world.hot), world.subscription.clone());
            tokio::spawn(async move {
                let begun = Instant::now();
                while begun.elapsed() < Duration::from_secs(2) {
                    hot.wait(&subscription, Duration::from_secs(1)).await.unwrap();
                    if !hot.pull(&subscription, 1).await.unwrap().deliveries.is_empty() {
                        return;
                    }
                }
            })
        });
        let waits: Vec<_> = waits.collect();
        // All of them wait; the wake itself is measured.
        tokio::time::sleep(Duration::from_millis(300)).await;
        world.meter.take(1);
        let begun = Instant::now();
        world.publish(1).await;
        while !waits.iter().any(tokio::task::JoinHandle::is_finished) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        found.push((world.meter.take(1), begun.elapsed()));
        join_all(waits).await.into_iter().for_each(Result::unwrap);
    }
    let ((small, _), (large, took)) = (found[0], found[1]);
    // One of those that wait looks for what other processes do, every 50 ms, however many they are.
    let looks = took.as_millis() as f64 / 15.0;
    assert!(
        large.calls <= 3.0 * small.calls + 20.0 + looks,
        "a wake costs {small:?} with 4 consumers and {large:?} with 160, within {took:?}"
    );
}

async fn a_selective_filter_starves_nobody(documents: fn() -> Arc<dyn DocumentStore>) {
    let patch = calm().filter(Some(chronos_db::json!({ "headers.hit": "1" })));
    let mut found = Vec::new();
    for misses in [12_000, 60_000] {
        let world = World::new(documents(), patch.clone()).await;
        let hit =
            OutboundMessage { headers: [("hit".to_owned(), "1".to_owned())].into(), ..messages(1).remove(0) };
        world.hot.publish(&world.topic, vec![hit.clone()]).await.unwrap();
        world.publish(misses).await;
        world.hot.publish(&world.topic, vec![hit]).await.unwrap();
        world.meter.take(1);
        let first = world.hot.pull(&world.subscription, 10).await.unwrap();
        assert_eq!(first.deliveries.len(), 1, "what was found is handed out at once");
        found.push(world.meter.take(1));
        let second = world.hot.pull(&world.subscription, 10).await.unwrap();
        assert_eq!(
            (second.deliveries.len(), second.next_due),
            (0, Some(Duration::ZERO)),
            "a pull ends, and says that there is more"
        );
        found.push(world.meter.take(1));
        let mut rest = world.pull(1).await;
        rest.extend(first.deliveries);
        assert_eq!(rest.len(), 2, "the last one comes, too");
    }
    assert_alike("a pull that finds one", found[0], found[2]);
    assert_alike("a pull that finds nothing", found[1], found[3]);
}

async fn one_long_handler_holds_back_its_own_message_only(documents: fn() -> Arc<dyn DocumentStore>) {
    let documents = documents();
    let world = World::new(Arc::clone(&documents), calm()).await;
    world.publish(1).await;
    let long = world.pull(1).await;
    for _ in 0..14 {
        world.publish(500).await;
        let some = world.pull(500).await;
        world.ack(some).await;
    }
    let id = id_of(&documents, &world).await;
    let filter = chronos_db::documents::Filter::gt("_id", format!("{id}/"))
        .and(chronos_db::documents::Filter::lte("_id", format!("{id}0")));
    let left = documents
        .scan(&Namespace::new("cw-costs", "cw_deliveries"), Scan { filter, ..Scan::default() })
        .count()
        .await;
    assert!(
        left < 5_000,
        "{left} documents are left of 7,000 messages that are done, because of one that is not"
    );
    // It is still held, and settled once.
    let lock = long[0].lock.clone();
    assert_eq!(world.hot.renew(&world.subscription, vec![lock.clone()]).await.unwrap(), [true]);
    let settled = world
        .hot
        .settle_and_start(
            &world.subscription,
            SettleAndStart { settle: vec![(lock, Settle::Ack)], start: Vec::new() },
        )
        .await
        .unwrap();
    assert_eq!(settled.settled, [chronow::hot::Settled::Done]);
    let stats = world.hot.stats(&world.topic).await.unwrap();
    assert_eq!((stats.length, stats.subscriptions[0].acked), (0, 7_001));
}

/// The id with which the documents of the measured subscription begin.
async fn id_of(documents: &Arc<dyn DocumentStore>, world: &World) -> String {
    let key = format!("t/costs:{}:orders", world.topic.scope().namespace());
    let topic =
        documents.get(&Namespace::new("cw-costs", "cw_topics"), vec![key.into()]).await.unwrap().remove(0);
    topic.get_array("subs").unwrap()[0].as_document().unwrap().get_str("i").unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_that_are_kept_are_not_read_again() {
    let world = World::new(embedded(), calm()).await;
    let chronos = crate::stores::warm(|builder| builder);
    let chronow = Chronow::with_hot(Arc::clone(&world.hot), &Config::default(), Some(&chronos)).unwrap();
    let bus = chronow.bus().tenant("costs").unwrap().namespace(world.topic.scope().namespace()).unwrap();
    let subscription = bus.topic("orders").unwrap().subscription("measured").unwrap();
    let large = OutboundMessage {
        payload: vec![b'x'; 100_000].into(),
        content_type: "text/plain".to_owned(),
        ..OutboundMessage::default()
    };
    world.hot.publish(&world.topic, vec![large; 30]).await.unwrap();
    for message in subscription.receive_bytes(30).await.unwrap() {
        message.dead_letter("no").await.unwrap();
    }
    crate::tiers::until("they are kept", || async { chronow.metrics().warm_dead_letters == 30 }).await;
    // By this process, and by one that comes later and has not seen them kept.
    let later = Chronow::with_hot(Arc::clone(&world.hot), &Config::default(), Some(&chronos)).unwrap();
    let bus = later.bus().tenant("costs").unwrap().namespace(world.topic.scope().namespace()).unwrap();
    for subscription in [&subscription, &bus.topic("orders").unwrap().subscription("measured").unwrap()] {
        world.meter.take(1);
        for _ in 0..5 {
            // A call that gives letters back first makes sure that all are kept.
            assert_eq!(subscription.redrive().ids(["absent"]).await.unwrap(), 0);
        }
        let cost = world.meter.take(5);
        assert!(
            cost.bytes < 50_000.0 && cost.calls < 20.0,
            "looking whether 30 letters are kept costs {cost:?}"
        );
    }
    assert_eq!(subscription.redrive().await.unwrap(), 30);
    chronow.close().await.unwrap();
}

macro_rules! on_documents {
    ($($name:ident($($more:expr),*);)+) => {
        mod on_embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::embedded $(, $more)*).await;
            })+
        }

        mod on_mongo {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::mongo $(, $more)*).await;
            })+
        }
    };
}

on_documents! {
    costs_do_not_grow_with_the_backlog();
    costs_do_not_grow_with_what_is_in_flight();
    a_message_wakes_one_of_many_consumers();
    a_selective_filter_starves_nobody();
    one_long_handler_holds_back_its_own_message_only();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn costs_on_embedded_do_not_grow_with_subscriptions() {
    costs_do_not_grow_with_subscriptions(embedded, 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn costs_on_mongo_do_not_grow_with_subscriptions() {
    costs_do_not_grow_with_subscriptions(mongo, 200).await;
}

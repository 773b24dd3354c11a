//! The hot tier in documents keeps every promise on every document store, also with several of them on one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use chronos_db::Env;
use chronos_db::documents::DocumentStore;
use chronos_db::documents::embedded::EmbeddedDocuments;
use chronos_db::documents::mongo::MongoDocuments;
use chronow::hot::documents::DocumentsHot;
use chronow::hot::{
    HotTier, OutboundMessage, Settle, SettleAndStart, Settled, SubscriptionPatch, TopicPatch,
};
use chronow::{Scope, SubscriptionName, TopicName};
use futures::future::join_all;
use tempfile::TempDir;
use test_support::documents::{Call, decorate};
use test_support::{Counting, MockClock, servers};

fn embedded_documents(path: &Path) -> Arc<dyn DocumentStore> {
    Arc::new(EmbeddedDocuments::open(path, Env::default()).unwrap())
}

fn hot_on(documents: Arc<dyn DocumentStore>) -> Arc<dyn HotTier> {
    Arc::new(DocumentsHot::new(documents, "cw-suite", Env::default()))
}

async fn in_memory() -> Arc<dyn HotTier> {
    hot_on(embedded_documents(Path::new(":memory:")))
}

fn mongo(uri: String) -> Arc<dyn HotTier> {
    hot_on(Arc::new(MongoDocuments::new(uri.into(), Env::default()).unwrap()))
}

chronow::hot_suite!(on_embedded_in_memory, in_memory());
chronow::hot_suite!(on_mongo_standalone, async { mongo(servers::mongo_standalone_uri()) });
chronow::hot_suite!(on_mongo_replica_set, async { mongo(servers::mongo_rs_uri()) });

async fn ready(hot: &Arc<dyn HotTier>) -> (TopicName, SubscriptionName) {
    let scope = Scope::new("tenant", &servers::unique_name("ns")).unwrap();
    let topic = TopicName::new(&scope, "orders").unwrap();
    let subscription = SubscriptionName::new(&topic, "billing").unwrap();
    hot.ensure_topic(&topic, &TopicPatch::default()).await.unwrap();
    let patch = SubscriptionPatch::default().visibility(Duration::from_millis(120_000));
    hot.ensure_subscription(&subscription, &patch).await.unwrap();
    (topic, subscription)
}

fn numbered(from: usize, to: usize, keys: usize) -> Vec<OutboundMessage> {
    let key = |n: usize| (keys > 0).then(|| format!("key-{}", n % keys));
    (from..to)
        .map(|n| OutboundMessage { payload: n.to_string().into(), key: key(n), ..OutboundMessage::default() })
        .collect()
}

/// Consumers on hot tiers of their own take what publishers on theirs send; every message is handled once,
/// those of a key in order.
async fn share(hots: Vec<Arc<dyn HotTier>>, keys: usize) {
    const MESSAGES: usize = 600;
    let (topic, subscription) = ready(&hots[0]).await;
    let acked = Arc::new(AtomicUsize::new(0));
    let consumers = hots.iter().cloned().map(|hot| {
        let (subscription, acked) = (subscription.clone(), acked.clone());
        tokio::spawn(async move {
            let (mut seen, begun) = (Vec::new(), Instant::now());
            while acked.load(Ordering::SeqCst) < MESSAGES {
                assert!(
                    begun.elapsed() < Duration::from_secs(120),
                    "{} of {MESSAGES} came",
                    acked.load(Ordering::SeqCst)
                );
                let pulled = hot.pull(&subscription, 25).await.unwrap();
                if pulled.deliveries.is_empty() {
                    hot.wait(
                        &subscription,
                        pulled.next_due.unwrap_or(Duration::MAX).min(Duration::from_millis(50)),
                    )
                    .await
                    .unwrap();
                    continue;
                }
                let locks: Vec<_> = pulled.deliveries.iter().map(|delivery| delivery.lock.clone()).collect();
                let started = hot
                    .settle_and_start(
                        &subscription,
                        SettleAndStart { settle: Vec::new(), start: locks.clone() },
                    )
                    .await
                    .unwrap();
                assert!(started.started.iter().all(|started| *started));
                for delivery in pulled.deliveries {
                    let n: usize = std::str::from_utf8(&delivery.message.payload).unwrap().parse().unwrap();
                    seen.push((hot.now().await.unwrap(), n));
                }
                let settle = locks.into_iter().map(|lock| (lock, Settle::Ack)).collect();
                let settled = hot
                    .settle_and_start(&subscription, SettleAndStart { settle, start: Vec::new() })
                    .await
                    .unwrap();
                assert!(settled.settled.iter().all(|settled| *settled == Settled::Done));
                acked.fetch_add(settled.settled.len(), Ordering::SeqCst);
            }
            seen
        })
    });
    let consumers: Vec<_> = consumers.collect();
    for (part, hot) in hots.iter().cycle().take(20).enumerate() {
        let from = part * MESSAGES / 20;
        hot.publish(&topic, numbered(from, from + MESSAGES / 20, keys)).await.unwrap();
    }
    let mut seen: Vec<_> = join_all(consumers).await.into_iter().flat_map(Result::unwrap).collect();
    seen.sort_unstable();
    let mut numbers: Vec<usize> = seen.iter().map(|(_, n)| *n).collect();
    if keys > 0 {
        let mut last = BTreeMap::new();
        for (at, n) in &seen {
            let before = last.insert(n % keys, (*at, *n));
            assert!(
                before.is_none_or(|(then, before)| before < *n || then == *at),
                "{n} came after {before:?}"
            );
        }
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..MESSAGES).collect::<Vec<_>>(), "every message once");
    let stats = hots[0].stats(&topic).await.unwrap();
    assert_eq!(
        (stats.length, stats.subscriptions[0].acked, stats.subscriptions[0].deliveries),
        (0, MESSAGES as u64, MESSAGES as u64)
    );
}

fn on_one_file(folder: &TempDir) -> Vec<Arc<dyn HotTier>> {
    (0..4).map(|_| hot_on(embedded_documents(&folder.path().join("bus.db")))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_stores_on_one_file_share_a_subscription() {
    share(on_one_file(&tempfile::tempdir().unwrap()), 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_stores_on_one_file_keep_the_order_of_keys() {
    share(on_one_file(&tempfile::tempdir().unwrap()), 7).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_clients_of_a_standalone_mongodb_share_a_subscription() {
    share((0..4).map(|_| mongo(servers::mongo_standalone_uri())).collect(), 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_clients_of_a_replica_set_keep_the_order_of_keys() {
    share((0..4).map(|_| mongo(servers::mongo_rs_uri())).collect(), 7).await;
}

#[tokio::test]
async fn a_pull_of_a_hundred_is_one_batch_and_settling_them_another() {
    let counting = Counting::<Call>::new();
    // What was looked up is good enough for a second, which must not pass on a slow machine.
    let env = Env { clock: Arc::new(MockClock::default()), ..Env::default() };
    let documents = Arc::new(EmbeddedDocuments::open(Path::new(":memory:"), env.clone()).unwrap());
    let hot: Arc<dyn HotTier> =
        Arc::new(DocumentsHot::new(decorate(documents, counting.clone()), "cw-suite", env));
    let (topic, subscription) = ready(&hot).await;
    hot.pull(&subscription, 1).await.unwrap();
    counting.take();
    hot.publish(&topic, numbered(0, 200, 0)).await.unwrap();
    assert_eq!(counting.count(Call::SequenceThen), 1);
    assert_eq!(counting.count(Call::Apply), 0, "numbers and messages are one write");
    counting.take();
    let pulled = hot.pull(&subscription, 100).await.unwrap().deliveries;
    assert_eq!(pulled.len(), 100);
    assert_eq!(counting.count(Call::Apply), 1, "the cards and the cursor are one batch");
    assert!(counting.count(Call::Get) + counting.count(Call::Scan) <= 3);
    counting.take();
    let settle = pulled.iter().map(|delivery| (delivery.lock.clone(), Settle::Ack)).collect();
    hot.settle_and_start(&subscription, SettleAndStart { settle, start: Vec::new() }).await.unwrap();
    let wrote_once = counting.take().into_iter().filter(|(call, _)| *call != Call::Now).collect::<Vec<_>>();
    assert_eq!(wrote_once, [(Call::Apply, 1)], "nothing has to be read to settle");
}

#[tokio::test]
async fn what_is_settled_leaves_no_documents_behind() {
    let documents = embedded_documents(Path::new(":memory:"));
    let hot = hot_on(documents.clone());
    let (topic, subscription) = ready(&hot).await;
    for part in 0..4 {
        hot.publish(&topic, numbered(part * 300, (part + 1) * 300, 0)).await.unwrap();
        let mut left = 300;
        while left > 0 {
            let pulled = hot.pull(&subscription, 100).await.unwrap().deliveries;
            left -= pulled.len();
            let settle = pulled.into_iter().map(|delivery| (delivery.lock, Settle::Ack)).collect();
            hot.settle_and_start(&subscription, SettleAndStart { settle, start: Vec::new() }).await.unwrap();
        }
    }
    let begun = Instant::now();
    while count(&documents, "cw_deliveries").await + count(&documents, "cw_messages").await > 0
        && begun.elapsed() < Duration::from_secs(60)
    {
        // An idle puller tidies up, now and then.
        assert!(hot.pull(&subscription, 1).await.unwrap().deliveries.is_empty());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for collection in ["cw_messages", "cw_deliveries"] {
        assert_eq!(count(&documents, collection).await, 0, "{collection}");
    }
    assert!(hot.delete_topic(&topic).await.unwrap());
    assert_eq!(count(&documents, "cw_topics").await, 0, "a deleted topic leaves nothing at all");
}

async fn count(documents: &Arc<dyn DocumentStore>, collection: &str) -> usize {
    use futures::StreamExt as _;
    let namespace = chronos_db::documents::Namespace::new("cw-suite", collection);
    documents.scan(&namespace, chronos_db::documents::Scan::default()).count().await
}

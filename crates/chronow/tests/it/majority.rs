//! MongoDB where a primary is there and nothing it writes is ever on a majority: two members and an arbiter,
//! of which one member is away.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chronos_db::Env;
use chronos_db::documents::mongo::MongoDocuments;
use chronow::hot::documents::DocumentsHot;
use chronow::hot::{
    HotTier, OutboundMessage, Precondition, Select, Settle, SettleAndStart, SubscriptionPatch, TopicPatch,
};
use chronow::{Result, Scope, SubscriptionName, TopicName};
use futures::future::{BoxFuture, FutureExt as _, join_all};
use test_support::ReplicaSet;

/// The time of one call to the store.
const LIMIT: Duration = Duration::from_secs(2);
/// The time of a call of the bus, whatever it asks of the store, on a busy machine.
const END: Duration = Duration::from_secs(8);

fn message(text: &str) -> OutboundMessage {
    OutboundMessage { payload: text.to_owned().into(), ..OutboundMessage::default() }
}

fn ended<'a, T>(
    work: impl Future<Output = Result<T>> + Send + 'a,
) -> BoxFuture<'a, std::result::Result<(), String>> {
    async move {
        let begun = Instant::now();
        let error = work.await.map(drop);
        let took = begun.elapsed();
        match error {
            _ if took > END => Err(format!("it took {took:?}")),
            Ok(()) => Ok(()),
            Err(error) if error.is_retryable() => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }
    .boxed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_of_the_bus_ends_where_nothing_is_ever_on_a_majority() {
    let mut set = ReplicaSet::with_arbiter().await;
    let hot = |database: &str| -> Arc<dyn HotTier> {
        let documents = MongoDocuments::new(set.uri().into(), Env::default()).unwrap().timeout(LIMIT);
        Arc::new(DocumentsHot::new(Arc::new(documents), database, Env::default()))
    };
    let scope = Scope::new("t", "ns").unwrap();
    let topic = TopicName::new(&scope, "t").unwrap();
    let sub = SubscriptionName::new(&topic, "s").unwrap();
    let other = SubscriptionName::new(&topic, "other").unwrap();
    let (known, again, fresh) = (hot("known"), hot("known"), hot("fresh"));
    known.ensure_topic(&topic, &TopicPatch::default()).await.unwrap();
    known.ensure_subscription(&sub, &SubscriptionPatch::default()).await.unwrap();
    known.publish(&topic, (0..5).map(|n| message(&n.to_string())).collect()).await.unwrap();
    let held = known.pull(&sub, 2).await.unwrap().deliveries;
    known.set(&scope, "k", Some("1".into()), "", None, Precondition::Always).await.unwrap();
    let primary = set.primary().await;
    set.kill(set.others(primary)[0]);

    let settle =
        |how| SettleAndStart { settle: vec![(held[0].lock.clone(), how)], start: vec![held[1].lock.clone()] };
    let mut works = Vec::new();
    for (name, hot) in
        [("a process that knows", &known), ("one that begins", &again), ("one that begins anew", &fresh)]
    {
        let (topic, sub, scope) = (&topic, &sub, &scope);
        let work: Vec<(&str, BoxFuture<'_, std::result::Result<(), String>>)> = vec![
            (
                "ensure_topic",
                ended(async move { hot.ensure_topic(topic, &TopicPatch::default().max_len(9)).await }),
            ),
            (
                "ensure_subscription",
                ended(async { hot.ensure_subscription(&other, &SubscriptionPatch::default()).await }),
            ),
            ("publish", ended(hot.publish(topic, vec![message("new")]))),
            ("pull", ended(hot.pull(sub, 5))),
            ("advance", ended(hot.settle_and_start(sub, settle(Settle::Ack)))),
            ("renew", ended(hot.renew(sub, vec![held[1].lock.clone()]))),
            ("stats", ended(hot.stats(topic))),
            ("peek", ended(hot.peek(sub, 5))),
            ("redrive", ended(async { hot.redrive(sub, &Select::All).await })),
            ("set", ended(hot.set(scope, "k", Some("2".into()), "", None, Precondition::Always))),
            ("get", ended(async { hot.get(scope, &["k".to_owned()]).await })),
            ("purge", ended(hot.purge(topic))),
            ("delete_subscription", ended(hot.delete_subscription(&other))),
        ];
        works.extend(work.into_iter().map(|(what, work)| async move { (name, what, work.await) }));
    }
    let wrong: Vec<_> = join_all(works).await.into_iter().filter(|(_, _, ended)| ended.is_err()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

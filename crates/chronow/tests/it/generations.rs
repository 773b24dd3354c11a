//! Topics and subscriptions in documents that are removed and made anew while another process, held up at any
//! of its steps, is at work on those before.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use chronos_db::Env;
use chronos_db::documents::DocumentStore;
use chronos_db::documents::embedded::EmbeddedDocuments;
use chronos_db::documents::mongo::MongoDocuments;
use chronow::hot::documents::DocumentsHot;
use chronow::hot::{
    Delivery, HotTier, OutboundMessage, Settle, SettleAndStart, SubscriptionPatch, TopicPatch,
};
use chronow::{Result, Scope, SubscriptionName, TopicName};
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::{self, BoxStream, StreamExt as _};
use test_support::documents::{Call, decorate};
use test_support::{Layer, servers};
use tokio::sync::watch;

/// Holds back all calls from one of them on, until it is opened.
#[derive(Debug)]
struct Gate {
    /// Calls count from the first one that wrote something.
    after_write: bool,
    wrote: AtomicBool,
    left: AtomicI64,
    reached: watch::Sender<bool>,
    open: watch::Sender<bool>,
}

impl Gate {
    fn at(step: i64, after_write: bool) -> Arc<Self> {
        let left = AtomicI64::new(step);
        Arc::new(Self {
            after_write,
            wrote: AtomicBool::new(false),
            left,
            reached: watch::Sender::new(false),
            open: watch::Sender::new(false),
        })
    }

    fn pass(&self, call: Call) -> BoxFuture<'static, ()> {
        let counts = !self.after_write || self.wrote.load(Ordering::SeqCst);
        if matches!(call, Call::Apply | Call::SequenceThen) {
            self.wrote.store(true, Ordering::SeqCst);
        }
        if !counts || self.left.fetch_sub(1, Ordering::SeqCst) > 0 {
            return futures::future::ready(()).boxed();
        }
        self.reached.send_replace(true);
        let mut open = self.open.subscribe();
        async move { drop(open.wait_for(|open| *open).await) }.boxed()
    }
}

impl Layer<Call> for Gate {
    fn around<'a, T: Send + 'a>(
        &'a self,
        call: Call,
        inner: BoxFuture<'a, chronos_db::Result<T>>,
    ) -> BoxFuture<'a, chronos_db::Result<T>> {
        let pass = self.pass(call);
        async move {
            pass.await;
            inner.await
        }
        .boxed()
    }

    fn around_stream<T: Send + 'static>(
        &self,
        call: Call,
        inner: BoxStream<'static, chronos_db::Result<T>>,
    ) -> BoxStream<'static, chronos_db::Result<T>> {
        let pass = self.pass(call);
        stream::once(async move {
            pass.await;
            inner
        })
        .flatten()
        .boxed()
    }
}

/// What a process does that is held up.
#[derive(Clone, Copy, Debug)]
enum Work {
    RemoveTopic,
    RemoveSubscription,
    MakeTopic,
    MakeSubscription,
    Publish,
    Pull,
    Purge,
}

impl Work {
    /// Answers what it pulled.
    async fn run(self, hot: Arc<dyn HotTier>, sub: SubscriptionName) -> Result<BTreeSet<String>> {
        let none = BTreeSet::new();
        match self {
            Self::RemoveTopic => hot.delete_topic(sub.topic()).await.map(|_| none),
            Self::RemoveSubscription => hot.delete_subscription(&sub).await.map(|_| none),
            Self::MakeTopic => {
                hot.ensure_topic(sub.topic(), &TopicPatch::default().max_len(1_000)).await.map(|_| none)
            }
            Self::MakeSubscription => {
                hot.ensure_subscription(&sub, &SubscriptionPatch::default()).await.map(|_| none)
            }
            Self::Publish => hot
                .publish(sub.topic(), (0..3).map(|n| message(&format!("slow {n}"))).collect())
                .await
                .map(|_| none),
            Self::Pull => hot.pull(&sub, 2).await.map(|pulled| texts(&pulled.deliveries)),
            Self::Purge => hot.purge(sub.topic()).await.map(|_| none),
        }
    }

    /// Before it wrote something it means whatever is there when it looks.
    fn removes(self) -> bool {
        matches!(self, Self::RemoveTopic | Self::RemoveSubscription | Self::Purge)
    }
}

fn message(text: &str) -> OutboundMessage {
    OutboundMessage { payload: text.to_owned().into(), ..OutboundMessage::default() }
}

fn texts(deliveries: &[Delivery]) -> BTreeSet<String> {
    deliveries.iter().map(|delivery| String::from_utf8(delivery.message.payload.to_vec()).unwrap()).collect()
}

async fn publish(hot: &dyn HotTier, topic: &TopicName, texts: std::ops::Range<usize>) -> BTreeSet<String> {
    let texts: BTreeSet<String> = texts.map(|n| n.to_string()).collect();
    let messages = texts.iter().map(|text| message(text)).collect();
    hot.publish(topic, messages).await.unwrap();
    texts
}

async fn everything(hot: &dyn HotTier, sub: &SubscriptionName) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    loop {
        let pulled = hot.pull(sub, 500).await.unwrap();
        if pulled.deliveries.is_empty() {
            return all;
        }
        let settle = pulled.deliveries.iter().map(|delivery| (delivery.lock.clone(), Settle::Ack)).collect();
        hot.settle_and_start(sub, SettleAndStart { settle, start: Vec::new() }).await.unwrap();
        all.extend(texts(&pulled.deliveries));
    }
}

async fn what_was_made_since_is_left_alone(documents: Arc<dyn DocumentStore>) {
    let hot = |documents: Arc<dyn DocumentStore>| -> Arc<dyn HotTier> {
        Arc::new(DocumentsHot::new(documents, "cw-generations", Env::default()))
    };
    let fast = hot(Arc::clone(&documents));
    let work = [
        Work::RemoveTopic,
        Work::RemoveSubscription,
        Work::MakeTopic,
        Work::MakeSubscription,
        Work::Publish,
        Work::Pull,
        Work::Purge,
    ];
    for (work, with_topic) in work.into_iter().flat_map(|work| [(work, true), (work, false)]) {
        if matches!((work, with_topic), (Work::Purge, false)) {
            // It removes what is published meanwhile, too.
            continue;
        }
        for step in 0_i64.. {
            let scope = Scope::new("t", &servers::unique_name("ns")).unwrap();
            let sub = SubscriptionName::new(&TopicName::new(&scope, "orders").unwrap(), "s").unwrap();
            let topic = sub.topic();
            fast.ensure_topic(topic, &TopicPatch::default()).await.unwrap();
            fast.ensure_subscription(&sub, &SubscriptionPatch::default()).await.unwrap();
            publish(&*fast, topic, 0..3).await;
            let gate = Gate::at(step, work.removes());
            let slow =
                tokio::spawn(work.run(hot(decorate(Arc::clone(&documents), Arc::clone(&gate))), sub.clone()));
            let mut reached = gate.reached.subscribe();
            while !slow.is_finished() && !*reached.borrow_and_update() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            if slow.is_finished() {
                break;
            }
            if with_topic {
                fast.delete_topic(topic).await.unwrap();
            } else {
                fast.delete_subscription(&sub).await.ok();
            }
            fast.ensure_topic(topic, &TopicPatch::default()).await.unwrap();
            fast.ensure_subscription(&sub, &SubscriptionPatch::default()).await.unwrap();
            let accepted = publish(&*fast, topic, 10..30).await;
            gate.open.send_replace(true);
            // It may fail over what others did meanwhile.
            let pulled = slow.await.unwrap().unwrap_or_default();
            let name = format!("{work:?} held up at step {step}, the topic made anew: {with_topic}");
            assert_eq!(fast.topics(&scope).await.unwrap(), ["orders"], "{name}");
            assert_eq!(fast.subscriptions(topic).await.unwrap(), ["s"], "{name}");
            let mut all = everything(&*fast, &sub).await;
            // What it had before is no more, and what it published may be there.
            all.extend(pulled.intersection(&accepted).cloned());
            all.retain(|text| !text.starts_with("slow"));
            assert_eq!(all, accepted, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_made_since_is_left_alone_on_embedded() {
    what_was_made_since_is_left_alone(Arc::new(EmbeddedDocuments::open(":memory:", Env::default()).unwrap()))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_made_since_is_left_alone_on_mongo() {
    what_was_made_since_is_left_alone(Arc::new(
        MongoDocuments::new(servers::mongo_rs_uri().into(), Env::default()).unwrap(),
    ))
    .await;
}

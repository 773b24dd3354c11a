//! Every hot tier, as the configuration of an application reaches it, under names nobody else uses.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chronos_db::config::Database;
use chronos_db::{Chronos, Env, Json as Value, json};
use chronow::hot::{HotTier, MessageState};
use chronow::{Chronow, Config, Message, PublishMessage, Scope, Subscription, Topic};
use tempfile::TempDir;
use test_support::servers;

pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    Embedded,
    #[cfg(feature = "redis")]
    Redis,
    #[cfg(feature = "redis")]
    Cluster,
    MongoReplicaSet,
    MongoStandalone,
}

/// One tier, a tenant of its own, and a connection. The warm tier beside Redis is an embedded store.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) tier: Tier,
    pub(crate) config: Value,
    pub(crate) chronow: Chronow,
    folder: TempDir,
}

impl World {
    pub(crate) async fn on(tier: Tier) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let embedded = folder.path().to_str().unwrap();
        let tenant = servers::unique_name("tenant");
        let mut config = match tier {
            Tier::Embedded => json!({ "embedded": embedded }),
            #[cfg(feature = "redis")]
            Tier::Redis => {
                json!({ "redis": { "url": servers::redis_url() }, "mongoUri": format!("embedded:{embedded}") })
            }
            #[cfg(feature = "redis")]
            Tier::Cluster => {
                json!({ "redis": { "clusterNodes": servers::redis_cluster_nodes() }, "mongoUri": format!("embedded:{embedded}") })
            }
            Tier::MongoReplicaSet => json!({ "mongoUri": servers::mongo_rs_uri() }),
            Tier::MongoStandalone => json!({ "mongoUri": servers::mongo_standalone_uri() }),
        };
        config["defaults"] = json!({ "tenantId": tenant });
        let chronow = connect(&config).await;
        Self { tier, config, chronow, folder }
    }

    /// Another connection to the same, as another process has it.
    pub(crate) async fn another(&self) -> Chronow {
        connect(&self.config).await
    }

    /// A file that goes with this world.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn tenant(&self) -> &str {
        tenant(&self.config)
    }

    pub(crate) fn scope(&self) -> Scope {
        Scope::new(self.tenant(), "default").unwrap()
    }

    pub(crate) fn topic(&self, name: &str) -> Topic {
        self.chronow.bus().topic(name).unwrap()
    }

    /// A topic with one subscription, `s`, whose retries are due at once.
    pub(crate) async fn ready(&self) -> (Topic, Subscription) {
        let topic = self.topic("orders");
        topic.ensure().await.unwrap();
        let subscription = calm(&topic, "s").await;
        (topic, subscription)
    }

    /// Makes the hot tier forget a key, as the end of its time does.
    pub(crate) async fn cool(&self, key: &str) {
        self.chronow.hot().remove(&self.scope(), key).await.unwrap();
    }

    /// The locks of all that is in flight have ended, because nobody renews them.
    pub(crate) async fn abandoned(&self, subscription: &Subscription) {
        until("the locks end", || async {
            let now = self.chronow.hot().now().await.unwrap();
            let peeked = subscription.peek(100).await.unwrap();
            peeked
                .iter()
                .filter(|one| one.state == MessageState::InFlight)
                .all(|one| one.until.is_some_and(|until| until <= now))
        })
        .await;
    }
}

fn tenant(config: &Value) -> &str {
    config["defaults"]["tenantId"].as_str().unwrap()
}

pub(crate) async fn connect(config: &Value) -> Chronow {
    Chronow::connect(Config::from_json(config).unwrap(), None).await.unwrap()
}

/// The same with a runtime of one's own, and the hot tier as `wrap` makes it.
pub(crate) async fn connect_with(
    config: &Value,
    env: Env,
    wrap: impl FnOnce(Arc<dyn HotTier>) -> Arc<dyn HotTier>,
) -> Chronow {
    let settings = Config::from_json(config).unwrap();
    if config["redis"].is_object() {
        let plain = Chronow::connect(settings.clone(), None).await.unwrap();
        return Chronow::with_hot(wrap(Arc::clone(plain.hot())), &settings, None).unwrap();
    }
    let uri = match &config["embedded"] {
        Value::String(folder) => format!("embedded:{folder}"),
        _ => config["mongoUri"].as_str().unwrap().to_owned(),
    };
    // As a connection names the database that it opens by itself.
    let database = if uri.starts_with("embedded:") { "chronow" } else { "chronos_messaging_default" };
    let own = chronos_db::config::Config::builder()
        .connection("chronow", uri)
        .database(Database::messaging("chronow", database));
    let chronos = Chronos::builder(own.build().unwrap()).env(env).open().unwrap();
    let plain = Chronow::connect(settings.clone(), Some(&chronos)).await.unwrap();
    Chronow::with_hot(wrap(Arc::clone(plain.hot())), &settings, Some(&chronos)).unwrap()
}

/// A subscription with long locks, whose retries are due at once.
pub(crate) async fn calm(topic: &Topic, name: &str) -> Subscription {
    let subscription = topic.subscription(name).unwrap();
    subscription
        .ensure()
        .visibility(Duration::from_secs(120))
        .backoff([Duration::ZERO])
        .jitter_percent(0)
        .await
        .unwrap();
    subscription
}

pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < TIMEOUT, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(TIMEOUT, future).await.expect("it takes too long")
}

pub(crate) async fn publish(topic: &Topic, numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    let published = topic
        .publish_batch(numbers.into_iter().map(|n| PublishMessage::json(&json!({ "n": n }))))
        .await
        .unwrap();
    published.into_iter().map(|published| published.id).collect()
}

pub(crate) fn number(message: &Message<Value>) -> usize {
    usize::try_from(message.payload["n"].as_u64().unwrap()).unwrap()
}

/// Everything is settled.
pub(crate) async fn settled(subscription: &Subscription) {
    until("everything is settled", || async {
        let stats = subscription.stats().await.unwrap();
        stats.backlog + stats.pending + stats.scheduled == 0
    })
    .await;
}

/// Receives until so many messages came.
pub(crate) async fn take(subscription: &Subscription, count: usize) -> Vec<chronow::Received<Value>> {
    let begun = Instant::now();
    let mut taken = Vec::new();
    while taken.len() < count {
        assert!(begun.elapsed() < TIMEOUT, "only {} of {count} messages came", taken.len());
        taken.extend(subscription.receive(u32::try_from(count - taken.len()).unwrap()).await.unwrap());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    taken
}

/// Makes a test of each of the named functions on each hot tier; they are given its [`World`].
macro_rules! on_every_hot_tier {
    (@on $tier:ident $module:ident [$($name:ident)+]) => {
        mod $module {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                Box::pin(super::$name($crate::tiers::World::on($crate::tiers::Tier::$tier).await)).await;
            })+
        }
    };
    ($($name:ident,)+) => {
        $crate::tiers::on_every_hot_tier!(@on Embedded embedded [$($name)+]);
        $crate::tiers::on_redis!($($name,)+);
        $crate::tiers::on_mongo!($($name,)+);
    };
}
pub(crate) use on_every_hot_tier;

/// The same on Redis alone, single and in a cluster.
macro_rules! on_redis {
    ($($name:ident,)+) => {
        #[cfg(feature = "redis")]
        $crate::tiers::on_every_hot_tier!(@on Redis redis [$($name)+]);
        #[cfg(feature = "redis")]
        $crate::tiers::on_every_hot_tier!(@on Cluster redis_cluster [$($name)+]);
    };
}
pub(crate) use on_redis;

/// The same on MongoDB alone, with and without a replica set.
macro_rules! on_mongo {
    ($($name:ident,)+) => {
        $crate::tiers::on_every_hot_tier!(@on MongoReplicaSet mongo_replica_set [$($name)+]);
        $crate::tiers::on_every_hot_tier!(@on MongoStandalone mongo_standalone [$($name)+]);
    };
}
pub(crate) use on_mongo;

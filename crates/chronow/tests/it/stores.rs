//! Connections for tests: every hot tier, with a warm tier whose objects can be looked at.

use std::sync::Arc;

use chronos_db::config::{Database, DatabaseType, SpaceConnection};
use chronos_db::objects::ObjectStorage;
use chronos_db::{Builder, Chronos};
use chronow::{Chronow, Config, ConfigBuilder};
use futures::TryStreamExt as _;

/// A messaging database in memory, with a bucket in memory.
pub(crate) fn warm(configure: impl FnOnce(Builder) -> Builder) -> Chronos {
    let messaging = Database::messaging("here", "messaging").space("objects").bucket("large");
    let config = chronos_db::config::Config::builder()
        .connection("here", "embedded::memory:")
        .space("objects", SpaceConnection::memory())
        .database(messaging.capture_deliveries(true));
    configure(Chronos::builder(config.build().unwrap())).open().unwrap()
}

/// A hot tier with a warm one.
pub(crate) struct Stores {
    pub(crate) chronos: Chronos,
    pub(crate) config: Config,
}

impl Stores {
    /// Both in the embedded store.
    pub(crate) fn embedded() -> Self {
        Self::on(Config::builder(), warm(|builder| builder))
    }

    /// The hot one on Redis, under keys of its own.
    #[cfg(feature = "redis")]
    pub(crate) fn redis() -> Self {
        Self::on_redis(&test_support::servers::redis_url(), warm(|builder| builder))
    }

    #[cfg(feature = "redis")]
    pub(crate) fn on_redis(url: &str, chronos: Chronos) -> Self {
        let prefix = format!("stores-{}:", bson::oid::ObjectId::new());
        Self::on(Config::builder().redis(chronow::Redis::single(url).key_prefix(prefix)), chronos)
    }

    /// Small limits, so that tests need no large payloads.
    fn on(config: ConfigBuilder, chronos: Chronos) -> Self {
        let config = config.max_payload_bytes(1_000).max_message_bytes(100_000);
        Self { chronos, config: config.build().unwrap() }
    }

    pub(crate) async fn connect(&self) -> Chronow {
        Chronow::connect(self.config.clone(), Some(&self.chronos)).await.unwrap()
    }

    fn bucket(&self) -> Arc<dyn ObjectStorage> {
        let entries = &self.chronos.config().entries;
        let entry =
            entries.iter().find(|entry| entry.database_type == Some(DatabaseType::Messaging)).unwrap();
        let space = entry.objects.clone().unwrap();
        self.chronos.objects(&space, &space.buckets.content).unwrap()
    }

    /// The keys of the bucket.
    pub(crate) async fn objects(&self) -> Vec<String> {
        self.bucket().list("").map_ok(|object| object.key).try_collect().await.unwrap()
    }

    /// Another program empties the bucket.
    pub(crate) async fn remove_objects(&self) {
        for key in self.objects().await {
            self.bucket().delete(&key).await.unwrap();
        }
    }
}

macro_rules! on_every_store {
    ($($name:ident,)+) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                Box::pin(super::$name($crate::stores::Stores::embedded())).await;
            })+
        }

        #[cfg(feature = "redis")]
        mod redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                Box::pin(super::$name($crate::stores::Stores::redis())).await;
            })+
        }
    };
}
pub(crate) use on_every_store;

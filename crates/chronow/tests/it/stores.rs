//! Connections for tests: every hot tier, with a warm tier whose objects can be looked at.

use std::sync::Arc;

use chronos_db::config::DatabaseType;
use chronos_db::objects::ObjectStorage;
use chronos_db::{Builder, Chronos, Json as Value, json};
use chronow::{Chronow, Config};
use futures::TryStreamExt as _;

/// A messaging database in memory, with a bucket in memory.
pub(crate) fn warm(configure: impl FnOnce(Builder) -> Builder) -> Chronos {
    let config = json!({
        "dbConnections": {"here": {"mongoUri": "embedded::memory:"}},
        "spacesConnections": {"objects": {"provider": "memory"}},
        "databases": {"messaging": {"dbConnRef": "here", "dbName": "messaging", "spaceConnRef": "objects", "bucket": "large",
            "captureDeliveries": true}},
    });
    configure(Chronos::builder(chronos_db::config::Config::from_json(&config, ".".as_ref()).unwrap()))
        .open()
        .unwrap()
}

/// A hot tier with a warm one.
pub(crate) struct Stores {
    pub(crate) chronos: Chronos,
    pub(crate) config: Config,
}

impl Stores {
    /// Both in the embedded store.
    pub(crate) fn embedded() -> Self {
        Self::on(Value::Null, warm(|builder| builder))
    }

    /// The hot one on Redis, under keys of its own.
    #[cfg(feature = "redis")]
    pub(crate) fn redis() -> Self {
        Self::on_redis(&test_support::servers::redis_url(), warm(|builder| builder))
    }

    #[cfg(feature = "redis")]
    pub(crate) fn on_redis(url: &str, chronos: Chronos) -> Self {
        let prefix = format!("stores-{}:", bson::oid::ObjectId::new());
        Self::on(json!({"redis": {"url": url, "keyPrefix": prefix}}), chronos)
    }

    /// Small limits, so that tests need no large payloads.
    fn on(section: Value, chronos: Chronos) -> Self {
        let mut section = if section.is_null() { json!({}) } else { section };
        section["defaults"] = json!({"maxPayloadBytes": 1_000, "maxMessageBytes": 100_000});
        Self { chronos, config: Config::from_json(&section).unwrap() }
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

    /// Somebody else empties the bucket.
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

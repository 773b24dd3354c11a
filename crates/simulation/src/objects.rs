//! The object storage as a process reaches it.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chronos_db::objects::{ObjectInfo, ObjectStorage, Put, PutMode, PutOptions};
use chronos_db::{Error, Result};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::time::Instant;

use crate::process::Process;
use crate::world::{World, wait};

/// How long a request waits for a storage that does not answer.
const LIMIT: Duration = Duration::from_secs(10);
/// A put that failed lands at most so much later.
const LATEST_MILLIS: u64 = 600_000;
/// A put that stalls takes at most so long.
const STALL_MILLIS: u64 = 30_000;

/// A process's client of the one bucket there is.
#[derive(Clone, Debug)]
pub struct SimulatedObjects {
    world: Arc<World>,
    process: Arc<Process>,
}

fn failed(what: &str) -> Error {
    Error::storage(format!("the storage failed at `{what}`")).retryable()
}

impl SimulatedObjects {
    /// The client of a process.
    #[must_use]
    pub fn new(world: Arc<World>, process: Arc<Process>) -> Self {
        Self { world, process }
    }

    /// A request travels.
    async fn reach(&self, what: &str) -> Result<()> {
        self.process.pass().await;
        wait(self.world.latency()).await;
        self.process.pass().await;
        if Instant::now() < self.process.objects_from().max(self.world.storage_from()) {
            wait(LIMIT).await;
            self.process.pass().await;
            return Err(failed(what));
        }
        Ok(())
    }

    /// An answer travels.
    async fn answer<T>(&self, done: Result<T>) -> Result<T> {
        wait(self.world.latency()).await;
        self.process.pass().await;
        done
    }
}

#[async_trait]
impl ObjectStorage for SimulatedObjects {
    async fn put(&self, key: &str, body: Bytes, options: PutOptions) -> Result<Put> {
        self.reach("put").await?;
        let (world, rates) = (&self.world, &self.world.rates);
        let number = self.process.number;
        if world.strikes(rates.put_fails) {
            return self.answer(Err(failed("put"))).await;
        }
        if world.strikes(rates.put_late) {
            let (world, key) = (Arc::clone(world), key.to_owned());
            let later = Duration::from_millis(world.chance.skewed(LATEST_MILLIS));
            // A create that comes late finds that it is not the first.
            tokio::spawn(async move {
                wait(later).await;
                let landed = world.objects.put(&key, body, options).await;
                world.history.line(format_args!("p{number} put {key} lands late: {landed:?}"));
            });
            return self.answer(Err(failed("put"))).await;
        }
        if world.strikes(rates.put_stalls) {
            wait(Duration::from_millis(world.chance.below(STALL_MILLIS))).await;
        }
        let creates = options.mode == PutMode::Create;
        let done = world.objects.put(key, body, options).await;
        world.history.line(format_args!("p{number} put {key}"));
        if !creates && world.strikes(rates.put_lands) {
            return self.answer(Err(failed("put"))).await;
        }
        self.answer(done).await
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        self.reach("get").await?;
        self.answer(self.world.objects.get(key).await).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>> {
        self.reach("get").await?;
        self.answer(self.world.objects.get_range(key, range).await).await
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>> {
        self.reach("head").await?;
        self.answer(self.world.objects.head(key).await).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.reach("delete").await?;
        let done = self.world.objects.delete(key).await;
        self.world.history.line(format_args!("p{} removes {key}", self.process.number));
        self.answer(done).await
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, Result<ObjectInfo>> {
        let (this, prefix) = (self.clone(), prefix.to_owned());
        let found = async move {
            this.reach("list").await?;
            let found: Vec<ObjectInfo> = this.world.objects.list(&prefix).try_collect().await?;
            this.answer(Ok(futures::stream::iter(found.into_iter().map(Ok)))).await
        };
        futures::stream::once(found).try_flatten().boxed()
    }

    async fn bucket_exists(&self) -> Result<bool> {
        self.reach("bucket").await?;
        self.answer(self.world.objects.bucket_exists().await).await
    }

    async fn create_bucket(&self) -> Result<()> {
        self.reach("bucket").await?;
        self.answer(self.world.objects.create_bucket().await).await
    }

    async fn presign_get(&self, key: &str, ttl: Duration) -> Result<String> {
        self.process.pass().await;
        self.world.objects.presign_get(key, ttl).await
    }
}

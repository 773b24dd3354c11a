//! A bucket whose calls are measured.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;

use super::{ObjectInfo, ObjectStorage, Put, PutOptions};
use crate::Result;
use crate::telemetry::{BackendMeters, StoreKind, Telemetry};

/// What is asked of a bucket.
#[derive(Clone, Copy)]
enum Call {
    Put,
    Get,
    Head,
    Delete,
    RemoveUnfinished,
    BucketExists,
    CreateBucket,
}

/// In the order of [`Call`]. Listings are not among them: how long one takes is its reader's business.
const CALLS: [&str; 7] =
    ["put", "get", "head", "delete", "remove_unfinished", "bucket_exists", "create_bucket"];

/// What the buckets of one storage measure together.
#[derive(Clone)]
pub(crate) struct StorageMeters(Arc<BackendMeters>);

impl StorageMeters {
    /// `connection` is the reference of the connection in the configuration.
    pub(crate) fn new(telemetry: &Telemetry, connection: &str) -> Self {
        Self(Arc::new(BackendMeters::new(telemetry, StoreKind::Objects, connection, &CALLS)))
    }
}

/// Measures the calls to the bucket inside: how long they take, how much goes through, and whether it answers.
pub(crate) struct ObservedObjects {
    inner: Arc<dyn ObjectStorage>,
    meters: StorageMeters,
}

impl ObservedObjects {
    pub(crate) fn new(inner: Arc<dyn ObjectStorage>, meters: StorageMeters) -> Self {
        Self { inner, meters }
    }

    async fn watch<T>(&self, call: Call, work: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let began = Instant::now();
        let answer = work.await;
        self.meters.0.answered(call as usize, began.elapsed(), &answer);
        answer
    }
}

/// That of the bucket inside.
impl fmt::Debug for ObservedObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStorage for ObservedObjects {
    async fn put(&self, key: &str, body: Bytes, options: PutOptions) -> Result<Put> {
        let bytes = body.len();
        let put = self.watch(Call::Put, self.inner.put(key, body, options)).await?;
        if put == Put::Stored {
            self.meters.0.wrote(bytes);
        }
        Ok(put)
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        let found = self.watch(Call::Get, self.inner.get(key)).await?;
        self.meters.0.read(found.as_ref().map_or(0, Bytes::len));
        Ok(found)
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>> {
        let found = self.watch(Call::Get, self.inner.get_range(key, range)).await?;
        self.meters.0.read(found.as_ref().map_or(0, Bytes::len));
        Ok(found)
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>> {
        self.watch(Call::Head, self.inner.head(key)).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.watch(Call::Delete, self.inner.delete(key)).await
    }

    async fn remove_unfinished(&self, prefix: &str) -> Result<()> {
        self.watch(Call::RemoveUnfinished, self.inner.remove_unfinished(prefix)).await
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, Result<ObjectInfo>> {
        let meters = self.meters.clone();
        self.inner.list(prefix).inspect(move |found| meters.0.heard(found.as_ref().err())).boxed()
    }

    async fn bucket_exists(&self) -> Result<bool> {
        self.watch(Call::BucketExists, self.inner.bucket_exists()).await
    }

    async fn create_bucket(&self) -> Result<()> {
        self.watch(Call::CreateBucket, self.inner.create_bucket()).await
    }

    async fn presign_get(&self, key: &str, ttl: Duration) -> Result<String> {
        self.inner.presign_get(key, ttl).await
    }
}

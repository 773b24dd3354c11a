//! Layers around an object storage.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chronos_db::objects::{ObjectInfo, ObjectStorage, Put, PutOptions};
use chronos_db::{Error, Result};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};

use crate::layers::{CallKind, Layer};
use crate::meter::Meter;

/// The calls of [`ObjectStorage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Call {
    /// [`ObjectStorage::put`].
    Put,
    /// [`ObjectStorage::get`].
    Get,
    /// [`ObjectStorage::get_range`].
    GetRange,
    /// [`ObjectStorage::head`].
    Head,
    /// [`ObjectStorage::delete`].
    Delete,
    /// [`ObjectStorage::list`].
    List,
    /// [`ObjectStorage::bucket_exists`].
    BucketExists,
    /// [`ObjectStorage::create_bucket`].
    CreateBucket,
    /// [`ObjectStorage::presign_get`].
    PresignGet,
}

impl CallKind for Call {
    fn error(self, message: String) -> Error {
        Error::storage(message)
    }
}

/// `inner` with `layer` around every call. The test keeps its own handle of the layer, to read or program it.
#[must_use]
pub fn decorate(inner: Arc<dyn ObjectStorage>, layer: Arc<impl Layer<Call>>) -> Arc<dyn ObjectStorage> {
    Arc::new(Decorated { inner, layer })
}

#[derive(Debug)]
struct Decorated<L> {
    inner: Arc<dyn ObjectStorage>,
    layer: Arc<L>,
}

#[async_trait]
impl<L: Layer<Call>> ObjectStorage for Decorated<L> {
    async fn put(&self, key: &str, body: Bytes, options: PutOptions) -> Result<Put> {
        self.layer.around(Call::Put, self.inner.put(key, body, options)).await
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        self.layer.around(Call::Get, self.inner.get(key)).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>> {
        self.layer.around(Call::GetRange, self.inner.get_range(key, range)).await
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>> {
        self.layer.around(Call::Head, self.inner.head(key)).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.layer.around(Call::Delete, self.inner.delete(key)).await
    }

    async fn remove_unfinished(&self, prefix: &str) -> Result<()> {
        self.inner.remove_unfinished(prefix).await
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, Result<ObjectInfo>> {
        self.layer.around_stream(Call::List, self.inner.list(prefix))
    }

    async fn bucket_exists(&self) -> Result<bool> {
        self.layer.around(Call::BucketExists, self.inner.bucket_exists()).await
    }

    async fn create_bucket(&self) -> Result<()> {
        self.layer.around(Call::CreateBucket, self.inner.create_bucket()).await
    }

    async fn presign_get(&self, key: &str, ttl: Duration) -> Result<String> {
        self.layer.around(Call::PresignGet, self.inner.presign_get(key, ttl)).await
    }
}

/// `inner` with `meter` around it, which counts what moves.
#[must_use]
pub fn metered(inner: Arc<dyn ObjectStorage>, meter: Arc<Meter>) -> Arc<dyn ObjectStorage> {
    Arc::new(Metered { inner, meter })
}

#[derive(Debug)]
struct Metered {
    inner: Arc<dyn ObjectStorage>,
    meter: Arc<Meter>,
}

#[async_trait]
impl ObjectStorage for Metered {
    async fn put(&self, key: &str, body: Bytes, options: PutOptions) -> Result<Put> {
        self.meter.called();
        self.meter.wrote(body.len());
        self.inner.put(key, body, options).await
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        self.meter.called();
        let found = self.inner.get(key).await?;
        found.iter().for_each(|bytes| self.meter.read(bytes.len()));
        Ok(found)
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>> {
        self.meter.called();
        let found = self.inner.get_range(key, range).await?;
        found.iter().for_each(|bytes| self.meter.read(bytes.len()));
        Ok(found)
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>> {
        self.meter.called();
        self.inner.head(key).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.meter.called();
        self.inner.delete(key).await
    }

    async fn remove_unfinished(&self, prefix: &str) -> Result<()> {
        self.inner.remove_unfinished(prefix).await
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, Result<ObjectInfo>> {
        self.meter.called();
        let meter = Arc::clone(&self.meter);
        self.inner.list(prefix).inspect_ok(move |found| meter.read(found.key.len())).boxed()
    }

    async fn bucket_exists(&self) -> Result<bool> {
        self.meter.called();
        self.inner.bucket_exists().await
    }

    async fn create_bucket(&self) -> Result<()> {
        self.meter.called();
        self.inner.create_bucket().await
    }

    async fn presign_get(&self, key: &str, ttl: Duration) -> Result<String> {
        self.meter.called();
        self.inner.presign_get(key, ttl).await
    }
}

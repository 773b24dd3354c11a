use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chronos_db::objects::{ObjectInfo, ObjectStorage, Put, PutOptions};
use chronos_db::{Error, Result};
use futures::stream::BoxStream;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// An object storage that does not take some objects: a part of the key says which. All buckets that are
/// [`put around`](Self::around) share its plan.
#[derive(Debug, Default)]
pub struct Selective {
    plan: Mutex<Plan>,
    /// That everything is taken again.
    taken: Notify,
}

#[derive(Debug, Default)]
struct Plan {
    puts: BTreeMap<String, Manner>,
    /// How often a put of each key was begun.
    begun: BTreeMap<String, u64>,
}

#[derive(Clone, Copy, Debug)]
enum Manner {
    Refuse,
    Hang,
    Hold,
    PanicOnce,
}

impl Selective {
    /// A storage that takes everything.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Puts of keys with this part fail, with a retryable error.
    pub fn refuse(&self, part: impl Into<String>) {
        self.plan.lock().puts.insert(part.into(), Manner::Refuse);
    }

    /// Puts of keys with this part never end.
    pub fn hang(&self, part: impl Into<String>) {
        self.plan.lock().puts.insert(part.into(), Manner::Hang);
    }

    /// Puts of keys with this part wait until everything is taken again.
    pub fn hold(&self, part: impl Into<String>) {
        self.plan.lock().puts.insert(part.into(), Manner::Hold);
    }

    /// The next put of a key with this part panics.
    pub fn panic_once(&self, part: impl Into<String>) {
        self.plan.lock().puts.insert(part.into(), Manner::PanicOnce);
    }

    /// Takes everything again. Puts that hang go on hanging.
    pub fn take_all(&self) {
        self.plan.lock().puts.clear();
        self.taken.notify_waiters();
    }

    /// How often puts were begun, of keys with this part.
    #[must_use]
    pub fn begun(&self, part: &str) -> u64 {
        self.plan.lock().begun.iter().filter(|(key, _)| key.contains(part)).map(|(_, count)| count).sum()
    }

    /// A bucket that this plan decides about.
    #[must_use]
    pub fn around(self: &Arc<Self>, inner: Arc<dyn ObjectStorage>) -> Arc<dyn ObjectStorage> {
        Arc::new(Decorated { inner, selective: Arc::clone(self) })
    }

    fn begin(&self, key: &str) -> Option<Manner> {
        let mut plan = self.plan.lock();
        *plan.begun.entry(key.to_owned()).or_insert(0) += 1;
        let (part, manner) = plan
            .puts
            .iter()
            .find(|(part, _)| key.contains(part.as_str()))
            .map(|(part, manner)| (part.clone(), *manner))?;
        if matches!(manner, Manner::PanicOnce) {
            plan.puts.remove(&part);
        }
        Some(manner)
    }
}

#[derive(Debug)]
struct Decorated {
    inner: Arc<dyn ObjectStorage>,
    selective: Arc<Selective>,
}

#[async_trait]
impl ObjectStorage for Decorated {
    async fn put(&self, key: &str, body: Bytes, options: PutOptions) -> Result<Put> {
        let mut taken = std::pin::pin!(self.selective.taken.notified());
        // From here on, not from its first poll on.
        taken.as_mut().enable();
        match self.selective.begin(key) {
            Some(Manner::Hold) => {
                taken.await;
                self.inner.put(key, body, options).await
            }
            None => self.inner.put(key, body, options).await,
            Some(Manner::Refuse) => {
                Err(Error::storage(format!("injected: `{key}` is not taken")).retryable())
            }
            Some(Manner::Hang) => std::future::pending().await,
            Some(Manner::PanicOnce) => panic!("injected: a put of `{key}` panics"),
        }
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        self.inner.get(key).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>> {
        self.inner.get_range(key, range).await
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectInfo>> {
        self.inner.head(key).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.inner.delete(key).await
    }

    async fn remove_unfinished(&self, prefix: &str) -> Result<()> {
        self.inner.remove_unfinished(prefix).await
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, Result<ObjectInfo>> {
        self.inner.list(prefix)
    }

    async fn bucket_exists(&self) -> Result<bool> {
        self.inner.bucket_exists().await
    }

    async fn create_bucket(&self) -> Result<()> {
        self.inner.create_bucket().await
    }

    async fn presign_get(&self, key: &str, ttl: Duration) -> Result<String> {
        self.inner.presign_get(key, ttl).await
    }
}

//! A layer around a document store that notes how large the groups of writes are, and one around buckets that
//! holds them back.

use std::sync::Arc;

use async_trait::async_trait;
use bson::{Bson, RawDocumentBuf};
use chronos_db::documents::{
    Batch, BuildBatch, Capabilities, Deployment, DocumentStore, Index, Namespace, Numbered, Outcome, Scan,
    Sequence,
};
use chronos_db::{Result, Timestamp};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use test_support::Layer;
use test_support::objects::Call;
use tokio::sync::Semaphore;

/// The sizes of the groups in the order in which they were begun.
#[derive(Debug, Default)]
pub(crate) struct Groups(Mutex<Vec<usize>>);

impl Groups {
    pub(crate) fn take(&self) -> Vec<usize> {
        std::mem::take(&mut *self.0.lock())
    }
}

/// The size of the group that the median write was in: among many groups of one, most writes may still have
/// been in large ones.
pub(crate) fn usual(groups: &[usize]) -> usize {
    let mut sorted = groups.to_vec();
    sorted.sort_unstable();
    let (all, mut passed) = (sorted.iter().sum::<usize>(), 0);
    let usual = sorted.into_iter().find(|size| {
        passed += size;
        passed * 2 >= all
    });
    usual.unwrap_or(1).max(1)
}

/// Usual and largest size, and the number of groups, for a note.
pub(crate) fn describe(groups: &[usize]) -> String {
    format!("{} (max {}, {} groups)", usual(groups), groups.iter().max().unwrap_or(&0), groups.len())
}

#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) inner: Arc<dyn DocumentStore>,
    pub(crate) groups: Arc<Groups>,
}

#[async_trait]
impl DocumentStore for Watched {
    async fn capabilities(&self) -> Result<Capabilities> {
        self.inner.capabilities().await
    }

    async fn apply(&self, batch: Batch) -> Result<Vec<Outcome>> {
        self.inner.apply(batch).await
    }

    async fn sequence(&self, namespace: &Namespace, name: &str, count: u32) -> Result<Sequence> {
        self.inner.sequence(namespace, name, count).await
    }

    async fn sequence_then(
        &self,
        namespace: &Namespace,
        name: &str,
        count: u32,
        build: BuildBatch,
    ) -> Result<Numbered> {
        self.groups.0.lock().push(count as usize);
        self.inner.sequence_then(namespace, name, count, build).await
    }

    async fn get_stored(&self, namespace: &Namespace, ids: Vec<Bson>) -> Result<Vec<RawDocumentBuf>> {
        self.inner.get_stored(namespace, ids).await
    }

    fn scan_stored(&self, namespace: &Namespace, scan: Scan) -> BoxStream<'static, Result<RawDocumentBuf>> {
        self.inner.scan_stored(namespace, scan)
    }

    async fn now(&self) -> Result<Timestamp> {
        self.inner.now().await
    }

    async fn ensure(&self, namespace: &Namespace, indexes: &[Index]) -> Result<()> {
        self.inner.ensure(namespace, indexes).await
    }

    async fn deployment(&self) -> Result<Deployment> {
        self.inner.deployment().await
    }

    async fn databases(&self) -> Result<Vec<String>> {
        self.inner.databases().await
    }
    async fn collections(&self, database: &str) -> Result<Vec<String>> {
        self.inner.collections(database).await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

/// Holds every call to a bucket back until it is opened.
#[derive(Debug)]
pub(crate) struct Gate(Semaphore);

impl Gate {
    pub(crate) fn closed() -> Arc<Self> {
        Arc::new(Self(Semaphore::new(0)))
    }

    pub(crate) fn open(&self) {
        self.0.add_permits(Semaphore::MAX_PERMITS / 2);
    }
}

impl Layer<Call> for Gate {
    fn around<'a, T: Send + 'a>(
        &'a self,
        _: Call,
        inner: BoxFuture<'a, Result<T>>,
    ) -> BoxFuture<'a, Result<T>> {
        Box::pin(async move {
            // It is never closed for good, so there always is a permit in the end.
            let _passed = self.0.acquire().await;
            inner.await
        })
    }

    fn around_stream<T: Send + 'static>(
        &self,
        _: Call,
        inner: BoxStream<'static, Result<T>>,
    ) -> BoxStream<'static, Result<T>> {
        inner.boxed()
    }
}

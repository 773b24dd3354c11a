//! Layers around a document store.

use std::sync::Arc;

use async_trait::async_trait;
use bson::{Bson, RawDocumentBuf};
use chronos_db::documents::{
    Batch, BuildBatch, Capabilities, Deployment, DocumentStore, Filter, Index, Namespace, Numbered, Outcome,
    Rights, Scan, Sequence, Write,
};
use chronos_db::{Error, Result, Timestamp};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};

use crate::layers::{CallKind, Layer};
use crate::meter::Meter;

/// The calls of [`DocumentStore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Call {
    /// [`DocumentStore::capabilities`].
    Capabilities,
    /// [`DocumentStore::apply`].
    Apply,
    /// [`DocumentStore::sequence`].
    Sequence,
    /// [`DocumentStore::sequence_then`].
    SequenceThen,
    /// [`DocumentStore::get`].
    Get,
    /// [`DocumentStore::scan`].
    Scan,
    /// [`DocumentStore::count`].
    Count,
    /// [`DocumentStore::now`].
    Now,
    /// [`DocumentStore::ensure`].
    Ensure,
    /// [`DocumentStore::deployment`].
    Deployment,
    /// [`DocumentStore::databases`].
    Databases,
    /// [`DocumentStore::collections`].
    Collections,
    /// [`DocumentStore::rights`].
    Rights,
    /// [`DocumentStore::purge`].
    Purge,
    /// [`DocumentStore::close`].
    Close,
}

impl CallKind for Call {
    fn error(self, message: String) -> Error {
        Error::database(message)
    }
}

/// `inner` with `layer` around every call. The test keeps its own handle of the layer, to read or program it.
#[must_use]
pub fn decorate(inner: Arc<dyn DocumentStore>, layer: Arc<impl Layer<Call>>) -> Arc<dyn DocumentStore> {
    Arc::new(Decorated { inner, layer })
}

#[derive(Debug)]
struct Decorated<L> {
    inner: Arc<dyn DocumentStore>,
    layer: Arc<L>,
}

#[async_trait]
impl<L: Layer<Call>> DocumentStore for Decorated<L> {
    async fn capabilities(&self) -> Result<Capabilities> {
        self.layer.around(Call::Capabilities, self.inner.capabilities()).await
    }

    async fn apply(&self, batch: Batch) -> Result<Vec<Outcome>> {
        self.layer.around(Call::Apply, self.inner.apply(batch)).await
    }

    async fn sequence(&self, namespace: &Namespace, name: &str, count: u32) -> Result<Sequence> {
        self.layer.around(Call::Sequence, self.inner.sequence(namespace, name, count)).await
    }

    async fn sequence_then(
        &self,
        namespace: &Namespace,
        name: &str,
        count: u32,
        build: BuildBatch,
    ) -> Result<Numbered> {
        self.layer.around(Call::SequenceThen, self.inner.sequence_then(namespace, name, count, build)).await
    }

    async fn get_stored(&self, namespace: &Namespace, ids: Vec<Bson>) -> Result<Vec<RawDocumentBuf>> {
        self.layer.around(Call::Get, self.inner.get_stored(namespace, ids)).await
    }

    fn scan_stored(&self, namespace: &Namespace, scan: Scan) -> BoxStream<'static, Result<RawDocumentBuf>> {
        self.layer.around_stream(Call::Scan, self.inner.scan_stored(namespace, scan))
    }

    async fn count(&self, namespace: &Namespace, filter: Filter, at_most: u64) -> Result<u64> {
        self.layer.around(Call::Count, self.inner.count(namespace, filter, at_most)).await
    }

    async fn now(&self) -> Result<Timestamp> {
        self.layer.around(Call::Now, self.inner.now()).await
    }

    async fn ensure(&self, namespace: &Namespace, indexes: &[Index]) -> Result<()> {
        self.layer.around(Call::Ensure, self.inner.ensure(namespace, indexes)).await
    }

    async fn deployment(&self) -> Result<Deployment> {
        self.layer.around(Call::Deployment, self.inner.deployment()).await
    }

    async fn databases(&self) -> Result<Vec<String>> {
        self.layer.around(Call::Databases, self.inner.databases()).await
    }

    async fn collections(&self, database: &str) -> Result<Vec<String>> {
        self.layer.around(Call::Collections, self.inner.collections(database)).await
    }

    async fn rights(&self, database: &str) -> Result<Rights> {
        self.layer.around(Call::Rights, self.inner.rights(database)).await
    }

    async fn purge(&self, database: &str) -> Result<()> {
        self.layer.around(Call::Purge, self.inner.purge(database)).await
    }

    async fn scrub(&self, database: &str) -> Result<()> {
        self.layer.around(Call::Purge, self.inner.scrub(database)).await
    }

    fn limit(&self) -> Option<std::time::Duration> {
        self.inner.limit()
    }

    async fn close(&self) -> Result<()> {
        self.layer.around(Call::Close, self.inner.close()).await
    }
}

/// `inner` with `meter` around it, which counts what moves.
#[must_use]
pub fn metered(inner: Arc<dyn DocumentStore>, meter: Arc<Meter>) -> Arc<dyn DocumentStore> {
    Arc::new(Metered { inner, meter })
}

#[derive(Debug)]
struct Metered {
    inner: Arc<dyn DocumentStore>,
    meter: Arc<Meter>,
}

impl Metered {
    /// The batch with its documents as the bytes they are stored as, counted.
    fn written(&self, mut batch: Batch) -> Result<Batch> {
        for operation in &mut batch.operations {
            if let Write::Insert(document) | Write::Put { document, .. } = &mut operation.write {
                let bytes = document.clone().into_bytes()?;
                self.meter.wrote(bytes.as_bytes().len());
                *document = bytes.into();
            }
        }
        Ok(batch)
    }
}

#[async_trait]
impl DocumentStore for Metered {
    async fn capabilities(&self) -> Result<Capabilities> {
        self.meter.called();
        self.inner.capabilities().await
    }

    async fn apply(&self, batch: Batch) -> Result<Vec<Outcome>> {
        self.meter.called();
        self.inner.apply(self.written(batch)?).await
    }

    async fn sequence(&self, namespace: &Namespace, name: &str, count: u32) -> Result<Sequence> {
        self.meter.called();
        self.inner.sequence(namespace, name, count).await
    }

    async fn sequence_then(
        &self,
        namespace: &Namespace,
        name: &str,
        count: u32,
        build: BuildBatch,
    ) -> Result<Numbered> {
        self.meter.called();
        let metered = Self { inner: Arc::clone(&self.inner), meter: Arc::clone(&self.meter) };
        self.inner
            .sequence_then(namespace, name, count, Box::new(move |numbers| metered.written(build(numbers)?)))
            .await
    }

    async fn get_stored(&self, namespace: &Namespace, ids: Vec<Bson>) -> Result<Vec<RawDocumentBuf>> {
        self.meter.called();
        let found = self.inner.get_stored(namespace, ids).await?;
        found.iter().for_each(|document| self.meter.read(document.as_bytes().len()));
        Ok(found)
    }

    fn scan_stored(&self, namespace: &Namespace, scan: Scan) -> BoxStream<'static, Result<RawDocumentBuf>> {
        self.meter.called();
        let meter = Arc::clone(&self.meter);
        let found = self.inner.scan_stored(namespace, scan);
        found.inspect_ok(move |document| meter.read(document.as_bytes().len())).boxed()
    }

    async fn count(&self, namespace: &Namespace, filter: Filter, at_most: u64) -> Result<u64> {
        self.meter.called();
        self.inner.count(namespace, filter, at_most).await
    }

    async fn now(&self) -> Result<Timestamp> {
        self.meter.called();
        self.inner.now().await
    }

    async fn ensure(&self, namespace: &Namespace, indexes: &[Index]) -> Result<()> {
        self.meter.called();
        self.inner.ensure(namespace, indexes).await
    }

    async fn deployment(&self) -> Result<Deployment> {
        self.meter.called();
        self.inner.deployment().await
    }

    async fn databases(&self) -> Result<Vec<String>> {
        self.meter.called();
        self.inner.databases().await
    }

    async fn collections(&self, database: &str) -> Result<Vec<String>> {
        self.meter.called();
        self.inner.collections(database).await
    }

    async fn rights(&self, database: &str) -> Result<Rights> {
        self.meter.called();
        self.inner.rights(database).await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

//! A document store whose calls are measured.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bson::{Bson, Document, RawDocumentBuf};
use futures::StreamExt as _;
use futures::stream::BoxStream;

use super::deployment::Deployment;
use super::filter::Filter;
use super::index::Index;
use super::namespace::Namespace;
use super::scan::Scan;
use super::store::{Capabilities, DocumentStore, Rights};
use super::write::{Batch, BuildBatch, Numbered, Outcome, Sequence};
use crate::telemetry::{BackendMeters, StoreKind, Telemetry};
use crate::{Result, Timestamp};

/// What is asked of a store.
#[derive(Clone, Copy)]
enum Call {
    Capabilities,
    Apply,
    Sequence,
    SequenceThen,
    Get,
    Count,
    Now,
    Ensure,
    Deployment,
    Databases,
    Collections,
    Rights,
    Purge,
}

/// In the order of [`Call`]. Scans are not among them: how long one takes is its reader's business.
const CALLS: [&str; 13] = [
    "capabilities",
    "apply",
    "sequence",
    "sequence_then",
    "get",
    "count",
    "now",
    "ensure",
    "deployment",
    "databases",
    "collections",
    "rights",
    "purge",
];

/// Measures the calls to the store inside: how long they take, and whether it answers.
pub(crate) struct ObservedDocuments {
    inner: Arc<dyn DocumentStore>,
    meters: Arc<BackendMeters>,
}

impl ObservedDocuments {
    /// `connection` is the reference of the connection in the configuration.
    pub(crate) fn new(inner: Arc<dyn DocumentStore>, telemetry: &Telemetry, connection: &str) -> Self {
        let meters = BackendMeters::new(telemetry, StoreKind::Documents, connection, &CALLS);
        Self { inner, meters: Arc::new(meters) }
    }

    async fn watch<T>(&self, call: Call, work: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let began = Instant::now();
        let answer = work.await;
        self.meters.answered(call as usize, began.elapsed(), &answer);
        answer
    }

    fn listen<T: 'static>(&self, found: BoxStream<'static, Result<T>>) -> BoxStream<'static, Result<T>> {
        let meters = Arc::clone(&self.meters);
        found.inspect(move |found| meters.heard(found.as_ref().err())).boxed()
    }
}

/// That of the store inside.
impl fmt::Debug for ObservedDocuments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl DocumentStore for ObservedDocuments {
    async fn capabilities(&self) -> Result<Capabilities> {
        self.watch(Call::Capabilities, self.inner.capabilities()).await
    }

    async fn apply(&self, batch: Batch) -> Result<Vec<Outcome>> {
        self.watch(Call::Apply, self.inner.apply(batch)).await
    }

    async fn sequence(&self, namespace: &Namespace, name: &str, count: u32) -> Result<Sequence> {
        self.watch(Call::Sequence, self.inner.sequence(namespace, name, count)).await
    }

    async fn sequence_then(
        &self,
        namespace: &Namespace,
        name: &str,
        count: u32,
        build: BuildBatch,
    ) -> Result<Numbered> {
        self.watch(Call::SequenceThen, self.inner.sequence_then(namespace, name, count, build)).await
    }

    async fn get_stored(&self, namespace: &Namespace, ids: Vec<Bson>) -> Result<Vec<RawDocumentBuf>> {
        self.watch(Call::Get, self.inner.get_stored(namespace, ids)).await
    }

    async fn get(&self, namespace: &Namespace, ids: Vec<Bson>) -> Result<Vec<Document>> {
        self.watch(Call::Get, self.inner.get(namespace, ids)).await
    }

    fn scan_stored(&self, namespace: &Namespace, scan: Scan) -> BoxStream<'static, Result<RawDocumentBuf>> {
        self.listen(self.inner.scan_stored(namespace, scan))
    }

    fn scan(&self, namespace: &Namespace, scan: Scan) -> BoxStream<'static, Result<Document>> {
        self.listen(self.inner.scan(namespace, scan))
    }

    async fn count(&self, namespace: &Namespace, filter: Filter, at_most: u64) -> Result<u64> {
        self.watch(Call::Count, self.inner.count(namespace, filter, at_most)).await
    }

    async fn now(&self) -> Result<Timestamp> {
        self.watch(Call::Now, self.inner.now()).await
    }

    async fn ensure(&self, namespace: &Namespace, indexes: &[Index]) -> Result<()> {
        self.watch(Call::Ensure, self.inner.ensure(namespace, indexes)).await
    }

    async fn deployment(&self) -> Result<Deployment> {
        self.watch(Call::Deployment, self.inner.deployment()).await
    }

    async fn databases(&self) -> Result<Vec<String>> {
        self.watch(Call::Databases, self.inner.databases()).await
    }

    async fn collections(&self, database: &str) -> Result<Vec<String>> {
        self.watch(Call::Collections, self.inner.collections(database)).await
    }

    async fn rights(&self, database: &str) -> Result<Rights> {
        self.watch(Call::Rights, self.inner.rights(database)).await
    }

    async fn purge(&self, database: &str) -> Result<()> {
        self.watch(Call::Purge, self.inner.purge(database)).await
    }

    async fn scrub(&self, database: &str) -> Result<()> {
        self.watch(Call::Purge, self.inner.scrub(database)).await
    }

    fn limit(&self) -> Option<Duration> {
        self.inner.limit()
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

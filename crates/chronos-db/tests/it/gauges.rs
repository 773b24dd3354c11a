//! What engines count of their own work.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bson::{Document, doc};
use chronos_db::Env;
use chronos_db::documents::DocumentStore;
use chronos_db::documents::embedded::{EmbeddedDocuments, Steps};
use chronos_db::documents::mongo::{CommandStats, MongoDocuments};
use chronos_db::testing::costs::{Gauge, Spent};
use futures::TryStreamExt as _;
use mongodb::Database;
use parking_lot::Mutex;
use secrecy::SecretString;
use tempfile::TempDir;
use test_support::Proxy;

/// Profiled operations are kept in a ring of so many bytes.
const PROFILE_BYTES: i64 = 8 * 1024 * 1024;

/// SQLite's steps.
struct OfEmbedded {
    steps: Arc<Steps>,
    begun: AtomicU64,
    /// Goes with it.
    _folder: Option<TempDir>,
}

#[async_trait]
impl Gauge for OfEmbedded {
    async fn begin(&self, _: &str) {
        self.begun.store(self.steps.total(), Ordering::SeqCst);
    }

    async fn end(&self, _: &str) -> Spent {
        Spent { examined: self.steps.total() - self.begun.load(Ordering::SeqCst), ..Spent::default() }
    }
}

/// An embedded store in a folder, or in memory, and what counts its steps.
pub(crate) fn embedded(path: impl AsRef<std::path::Path>) -> (Arc<dyn DocumentStore>, Arc<dyn Gauge>) {
    let (store, steps) = EmbeddedDocuments::observed(path, Env::default()).unwrap();
    (Arc::new(store), Arc::new(OfEmbedded { steps, begun: AtomicU64::default(), _folder: None }))
}

/// An embedded store in a folder that goes with the gauge.
pub(crate) fn embedded_somewhere() -> (Arc<dyn DocumentStore>, Arc<dyn Gauge>) {
    let folder = tempfile::tempdir().unwrap();
    let (store, steps) = EmbeddedDocuments::observed(folder.path(), Env::default()).unwrap();
    (Arc::new(store), Arc::new(OfEmbedded { steps, begun: AtomicU64::default(), _folder: Some(folder) }))
}

/// The commands a client sends, and what the server's profiler says of the operations in a database: nobody
/// else uses it.
struct OfMongo {
    uri: String,
    stats: Arc<CommandStats>,
    client: tokio::sync::OnceCell<mongodb::Client>,
    begun: AtomicU64,
}

impl OfMongo {
    async fn database(&self, name: &str) -> Database {
        let client = self.client.get_or_try_init(|| mongodb::Client::with_uri_str(&self.uri)).await;
        client.unwrap().database(name)
    }
}

#[async_trait]
impl Gauge for OfMongo {
    async fn begin(&self, place: &str) {
        let database = self.database(place).await;
        database
            .create_collection("system.profile")
            .capped(true)
            .size(PROFILE_BYTES.unsigned_abs())
            .await
            .unwrap();
        database.run_command(doc! { "profile": 2 }).await.unwrap();
        self.begun.store(self.stats.total(), Ordering::SeqCst);
    }

    async fn end(&self, place: &str) -> Spent {
        let requests = self.stats.total() - self.begun.load(Ordering::SeqCst);
        let database = self.database(place).await;
        database.run_command(doc! { "profile": 0 }).await.unwrap();
        let profiled = database.collection::<Document>("system.profile");
        let mut spent = Spent { requests, ..Spent::default() };
        let ours = doc! { "ns": { "$not": { "$regex": "system\\.profile$" } }, "command.profile": { "$exists": false } };
        let mut done = profiled.find(ours).await.unwrap();
        let number = |done: &Document, field: &str| match done.get(field) {
            Some(bson::Bson::Int32(n)) => u64::try_from(*n).unwrap(),
            Some(bson::Bson::Int64(n)) => u64::try_from(*n).unwrap(),
            _ => 0,
        };
        while let Some(done) = done.try_next().await.unwrap() {
            spent.examined += number(&done, "keysExamined") + number(&done, "docsExamined");
            spent.bytes += number(&done, "responseLength");
        }
        profiled.drop().await.unwrap();
        spent
    }
}

/// A client of a MongoDB server, and what counts what it causes there.
pub(crate) fn mongo(uri: String) -> (Arc<dyn DocumentStore>, Arc<dyn Gauge>) {
    let (store, stats) = MongoDocuments::observed(SecretString::from(uri.clone()), Env::default()).unwrap();
    let gauge = OfMongo { uri, stats, client: tokio::sync::OnceCell::new(), begun: AtomicU64::default() };
    (Arc::new(store), Arc::new(gauge))
}

/// HTTP requests and the bytes of their answers, as they go by.
pub(crate) struct OfWire {
    proxy: Arc<Proxy>,
    begun: Mutex<(u64, u64)>,
}

impl OfWire {
    pub(crate) fn new(proxy: Arc<Proxy>) -> Self {
        Self { proxy, begun: Mutex::default() }
    }
}

#[async_trait]
impl Gauge for OfWire {
    async fn begin(&self, _: &str) {
        *self.begun.lock() = self.proxy.passed();
    }

    async fn end(&self, _: &str) -> Spent {
        let ((requests, bytes), (r, b)) = (self.proxy.passed(), *self.begun.lock());
        Spent { requests: requests - r, bytes: bytes - b, examined: 0 }
    }
}

/// Of a storage without a server nothing goes by.
pub(crate) struct OfNothing;

#[async_trait]
impl Gauge for OfNothing {
    async fn begin(&self, _: &str) {}

    async fn end(&self, _: &str) -> Spent {
        Spent::default()
    }
}

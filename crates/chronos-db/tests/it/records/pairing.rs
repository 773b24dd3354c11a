//! The pairings of document store and object storage that scenarios run on.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bson::Document;
use chronos_db::config::Config;
use chronos_db::documents::{Direction, DocumentStore, Namespace, Scan};
use chronos_db::objects::{ObjectStorage, keys};
use chronos_db::testing::costs::Gauge;
use chronos_db::{Chronos, Collection, Env, ErrorKind, ItemId, Json, Result, Route, Timestamp, json};
use futures::TryStreamExt as _;
use parking_lot::Mutex;
use tempfile::TempDir;
use test_support::{HurriedClock, Layer, Meter, Selective, servers};

use crate::gauges;

/// Longer than any server needs.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// Which stores a scenario runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    EmbeddedLocal,
    EmbeddedMemory,
    StandaloneLocal,
    ReplicaSetS3,
    ReplicaSetAzure,
}

impl Kind {
    pub(crate) fn is_mongo(self) -> bool {
        matches!(self, Self::StandaloneLocal | Self::ReplicaSetS3 | Self::ReplicaSetAzure)
    }

    /// Whether its object storage signs URLs.
    pub(crate) fn presigns(self) -> bool {
        matches!(self, Self::ReplicaSetS3 | Self::ReplicaSetAzure)
    }

    fn is_local(self) -> bool {
        matches!(self, Self::EmbeddedLocal | Self::StandaloneLocal)
    }
}

/// Stamps scenarios, functions that take a `&Pairing`, onto every pairing: one module a pairing, one test a
/// scenario.
macro_rules! on_every_pairing {
    ($($scenario:ident),+ $(,)?) => {
        $crate::records::pairing::on_pairings!(embedded_memory = EmbeddedMemory: $($scenario),+);
        $crate::records::pairing::on_durable_pairings!($($scenario),+);
    };
}
pub(crate) use on_every_pairing;

/// Stamps scenarios onto the pairings that a second process, or a second `Chronos`, sees as well.
macro_rules! on_durable_pairings {
    ($($scenario:ident),+ $(,)?) => {
        $crate::records::pairing::on_pairings!(embedded_local = EmbeddedLocal: $($scenario),+);
        $crate::records::pairing::on_pairings!(standalone_local = StandaloneLocal: $($scenario),+);
        $crate::records::pairing::on_pairings!(replica_set_s3 = ReplicaSetS3: $($scenario),+);
        $crate::records::pairing::on_pairings!(replica_set_azure = ReplicaSetAzure: $($scenario),+);
    };
}
pub(crate) use on_durable_pairings;

macro_rules! on_pairings {
    ($module:ident = $kind:ident: $($scenario:ident),+) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $scenario() {
                    let pairing = $crate::records::pairing::Pairing::new($crate::records::pairing::Kind::$kind);
                    super::$scenario(&pairing).await;
                    pairing.finish().await;
                }
            )+
        }
    };
}
pub(crate) use on_pairings;

/// Databases and buckets of one scenario.
pub(crate) struct Pairing {
    pub(crate) kind: Kind,
    folder: TempDir,
    database: String,
    stores: Mutex<Vec<Store>>,
}

impl Pairing {
    pub(crate) fn new(kind: Kind) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { kind, folder, database: servers::unique_name("scenario"), stores: Mutex::default() }
    }

    /// The folder that paths in [`config`](Self::config) are relative to.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The configuration, with `more` (an object) at its top level: tenants `acme` and `globex`, shared logs,
    /// and identities without objects.
    pub(crate) fn config(&self, more: &Json) -> Json {
        let documents = match self.kind {
            Kind::EmbeddedLocal => "embedded:./documents".to_owned(),
            Kind::EmbeddedMemory => "embedded::memory:".to_owned(),
            Kind::StandaloneLocal => servers::mongo_standalone_uri(),
            Kind::ReplicaSetS3 | Kind::ReplicaSetAzure => servers::mongo_rs_uri(),
        };
        let space = match self.kind {
            Kind::EmbeddedLocal | Kind::StandaloneLocal => None,
            Kind::EmbeddedMemory => Some(json!({ "provider": "memory" })),
            Kind::ReplicaSetS3 => {
                let s3 = servers::s3();
                Some(
                    json!({ "provider": "s3", "endpoint": s3.endpoint, "accessKey": s3.access_key, "secretKey": s3.secret_key }),
                )
            }
            Kind::ReplicaSetAzure => {
                let azure = servers::azure();
                Some(
                    json!({ "provider": "azure", "endpoint": azure.endpoint, "accessKey": azure.account, "secretKey": azure.key }),
                )
            }
        };
        let database = |name: &str| {
            let mut entry = json!({ "dbConnRef": "main", "dbName": format!("{}-{name}", self.database) });
            if space.is_some() {
                entry["spaceConnRef"] = "objects".into();
            }
            entry
        };
        let tenant = |name: &str| {
            let mut entry = database(name);
            entry["tenantId"] = name.into();
            entry
        };
        let mut config = json!({
            "dbConnections": { "main": { "mongoUri": documents } },
            "databases": {
                "runtime": { "tenantDatabases": [tenant("acme"), tenant("globex")] },
                "logs": database("logs"),
                "identities": { "dbConnRef": "main", "dbName": format!("{}-identities", self.database) },
            },
        });
        if let Some(space) = space {
            config["spacesConnections"] = json!({ "objects": space });
        }
        if self.kind.is_local() {
            config["localStorage"] = json!({ "enabled": true, "basePath": "./objects" });
        }
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        config
    }

    /// The name of the database of the tenant `acme`, which goes when the scenario ends.
    pub(crate) fn common_database(&self) -> String {
        format!("{}-acme", self.database)
    }

    /// `databases` for [`open_with`](Self::open_with): the tenants `acme` and `globex` have one database.
    pub(crate) fn one_database(&self) -> Json {
        let mut databases = self.config(&json!({}))["databases"].clone();
        databases["runtime"]["tenantDatabases"][1]["dbName"] = self.common_database().into();
        databases
    }

    /// The same stores as version 1 names them, with `more` at the top level.
    pub(crate) fn version_1(&self, more: &Json) -> Json {
        let newer = self.config(&json!({}));
        let mut config = json!({ "mongoUris": [newer["dbConnections"]["main"]["mongoUri"]] });
        if let Some(space) = newer["spacesConnections"].get("objects") {
            let mut space = space.clone();
            space["bucket"] = self.common_database().into();
            config["spacesConns"] = json!([space]);
        } else {
            config["localStorage"] = newer["localStorage"].clone();
        }
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        config
    }

    /// Opens the stores as they come.
    pub(crate) fn open(&self) -> Store {
        self.opening().open()
    }

    /// Opens the stores with `more` in the configuration.
    pub(crate) fn open_with(&self, more: &Json) -> Store {
        self.opening().with(more).open()
    }

    /// Opens the stores with layers, another clock and so on.
    pub(crate) fn opening(&self) -> Opening<'_> {
        let builder = Chronos::builder(self.parse(&json!({})));
        Opening { pairing: self, builder, raw: Arc::default(), layered: false }
    }

    /// A client of the document store for [`Opening::documents_client`], and what counts its work.
    pub(crate) fn observed(&self) -> (Arc<dyn DocumentStore>, Arc<dyn Gauge>) {
        match self.kind {
            Kind::EmbeddedMemory => gauges::embedded(":memory:"),
            Kind::EmbeddedLocal => gauges::embedded(self.folder().join("documents")),
            _ => gauges::mongo(
                self.config(&json!({}))["dbConnections"]["main"]["mongoUri"].as_str().unwrap().to_owned(),
            ),
        }
    }

    fn parse(&self, more: &Json) -> Config {
        Config::parse(&self.config(more).to_string(), self.folder()).unwrap()
    }

    /// Everything is stored and verifies clean; then everything goes.
    pub(crate) async fn finish(self) {
        let stores = std::mem::take(&mut *self.stores.lock());
        let collections: Vec<_> =
            stores.iter().flat_map(|store| std::mem::take(&mut *store.collections.lock())).collect();
        for collection in &collections {
            // One of several handles only stores what it wrote itself while that is young.
            collection.flush(TIMEOUT).await.unwrap();
        }
        for collection in collections {
            let name = format!("{:?}, {}.{}", self.kind, collection.database(), collection.name());
            assert_eq!(collection.flush(TIMEOUT).await.unwrap(), 0, "{name}: versions wait to be stored");
            let found = collection.verify().await.unwrap();
            assert!(found.is_clean(), "{name}: {:#}", found.to_json());
        }
        for store in stores {
            store.chronos.shutdown().await.unwrap();
        }
        if self.kind.is_mongo() {
            let uri =
                self.config(&json!({}))["dbConnections"]["main"]["mongoUri"].as_str().unwrap().to_owned();
            let client = mongodb::Client::with_uri_str(uri).await.unwrap();
            for name in ["acme", "globex", "logs", "identities"] {
                client.database(&format!("{}-{name}", self.database)).drop().await.unwrap();
            }
        }
    }
}

/// How to open the stores of a pairing.
pub(crate) struct Opening<'p> {
    pairing: &'p Pairing,
    builder: chronos_db::Builder,
    raw: Arc<Mutex<Option<Arc<dyn ObjectStorage>>>>,
    layered: bool,
}

impl Opening<'_> {
    /// `more` at the top level of the configuration. Comes first: it starts the opening over.
    pub(crate) fn with(mut self, more: &Json) -> Self {
        self.builder = Chronos::builder(self.pairing.parse(more));
        self
    }

    /// Another configuration as a whole. Comes first.
    pub(crate) fn configured(mut self, config: &Json) -> Self {
        self.builder = Chronos::builder(Config::parse(&config.to_string(), self.pairing.folder()).unwrap());
        self
    }

    /// By a [`HurriedClock`], which all that open the same stores have to go by.
    pub(crate) fn hurried(self) -> Self {
        self.env(Env { clock: Arc::new(HurriedClock), ..Env::default() })
    }

    pub(crate) fn env(mut self, env: Env) -> Self {
        self.builder = self.builder.env(env);
        self
    }

    /// Payloads are read from the stores each time.
    pub(crate) fn without_cache(mut self) -> Self {
        self.builder = self.builder.cache_bytes(0);
        self
    }

    /// A layer around the document store.
    pub(crate) fn documents(mut self, layer: &Arc<impl Layer<test_support::documents::Call>>) -> Self {
        let layer = Arc::clone(layer);
        self.builder = self
            .builder
            .wrap_documents(move |inner| test_support::documents::decorate(inner, Arc::clone(&layer)));
        self
    }

    /// Another client in place of the document store's.
    pub(crate) fn documents_client(mut self, client: Arc<dyn DocumentStore>) -> Self {
        self.builder = self.builder.wrap_documents(move |_| Arc::clone(&client));
        self
    }

    /// A layer around every bucket.
    pub(crate) fn objects(mut self, layer: &Arc<impl Layer<test_support::objects::Call>>) -> Self {
        let (layer, raw) = (Arc::clone(layer), Arc::clone(&self.raw));
        self.layered = true;
        self.builder = self.builder.wrap_objects(move |inner| {
            *raw.lock() = Some(Arc::clone(&inner));
            test_support::objects::decorate(inner, Arc::clone(&layer))
        });
        self
    }

    /// A meter around every bucket.
    pub(crate) fn metered_objects(mut self, meter: &Arc<Meter>) -> Self {
        let (meter, raw) = (Arc::clone(meter), Arc::clone(&self.raw));
        self.layered = true;
        self.builder = self.builder.wrap_objects(move |inner| {
            *raw.lock() = Some(Arc::clone(&inner));
            test_support::objects::metered(inner, Arc::clone(&meter))
        });
        self
    }

    /// A plan of which objects are not taken, around every bucket.
    pub(crate) fn selective(mut self, plan: &Arc<Selective>) -> Self {
        let (plan, raw) = (Arc::clone(plan), Arc::clone(&self.raw));
        self.layered = true;
        self.builder = self.builder.wrap_objects(move |inner| {
            *raw.lock() = Some(Arc::clone(&inner));
            plan.around(inner)
        });
        self
    }

    pub(crate) fn open(mut self) -> Store {
        if !self.layered {
            let raw = Arc::clone(&self.raw);
            self.builder = self.builder.wrap_objects(move |inner| {
                *raw.lock() = Some(Arc::clone(&inner));
                inner
            });
        }
        let store =
            Store { chronos: self.builder.open().unwrap(), raw: self.raw, collections: Arc::default() };
        self.pairing.stores.lock().push(store.clone());
        store
    }
}

/// An opened pairing.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) chronos: Chronos,
    /// The bucket that was opened last, without layers.
    raw: Arc<Mutex<Option<Arc<dyn ObjectStorage>>>>,
    collections: Arc<Mutex<Vec<Collection>>>,
}

impl Store {
    pub(crate) fn with(&self, route: Route) -> Collection {
        let collection = self.chronos.with(route).unwrap();
        self.collections.lock().push(collection.clone());
        collection
    }

    /// A collection of the tenant `acme`.
    pub(crate) fn collection(&self, name: &str) -> Collection {
        self.with(Route::runtime().tenant("acme").collection(name))
    }

    /// The collection `users` of the tenant `acme`.
    pub(crate) fn users(&self) -> Collection {
        self.collection("users")
    }

    /// The bucket under all layers; every pairing keeps payloads and blobs of a tenant in one.
    pub(crate) fn bucket(&self) -> Arc<dyn ObjectStorage> {
        self.raw.lock().clone().expect("nothing was stored yet")
    }

    /// The keys of all objects of a collection, sorted.
    pub(crate) async fn keys(&self, collection: &Collection) -> Vec<String> {
        let prefix = keys::collection_prefix(collection.name()).unwrap();
        let found: Vec<_> = self.bucket().list(&prefix).try_collect().await.unwrap();
        let mut keys: Vec<String> = found.into_iter().map(|object| object.key).collect();
        keys.sort();
        keys
    }

    pub(crate) fn documents(&self) -> Arc<dyn DocumentStore> {
        let config = self.chronos.config();
        let main = if config.connections.contains_key("main") { "main" } else { "mongoUris[0]" };
        self.chronos.documents(main).unwrap()
    }

    /// What a collection's index holds: `suffix` is `head`, `ver`, `gc` and so on.
    pub(crate) async fn stored(&self, collection: &Collection, suffix: &str) -> Vec<Document> {
        let scan = Scan { order: vec![("_id".into(), Direction::Ascending)], ..Scan::default() };
        self.documents().scan(&namespace(collection, suffix), scan).try_collect().await.unwrap()
    }

    /// Puts a document into a collection's index, past the library.
    pub(crate) async fn put(&self, collection: &Collection, suffix: &str, document: Document) {
        let mut batch = chronos_db::documents::Batch::new();
        let put = chronos_db::documents::Write::put(document, chronos_db::documents::Guard::Any);
        batch.push(&namespace(collection, suffix), put);
        self.documents().apply(batch).await.unwrap();
    }

    /// The stored head of an item.
    pub(crate) async fn head(&self, collection: &Collection, id: &ItemId) -> Document {
        let heads = self.stored(collection, "head").await;
        heads
            .into_iter()
            .find(|head| head.get_object_id("_id").unwrap().to_hex() == id.to_string())
            .expect("the item has a head")
    }

    /// Leaves a collection that a scenario has damaged on purpose out of the final verification.
    pub(crate) fn is_damaged(&self) {
        self.collections.lock().clear();
    }
}

pub(crate) fn namespace(collection: &Collection, suffix: &str) -> Namespace {
    Namespace::new(collection.database(), format!("{}_{suffix}", collection.name()))
}

/// The latest document of an item.
pub(crate) async fn document(collection: &Collection, id: &ItemId) -> Json {
    collection.get(id).await.unwrap().expect("the item is there").document()
}

/// Its `_system`.
pub(crate) async fn system(collection: &Collection, id: &ItemId) -> Json {
    collection.get(id).include_deleted().await.unwrap().expect("the item is there").item["_system"].clone()
}

/// The kind of the error that a call has to end with.
pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

/// A moment some years ago, and minutes after it.
pub(crate) fn minute(n: i64) -> Timestamp {
    Timestamp::from_millis(1_714_521_600_000).plus_millis(n * 60_000)
}

/// `names` as they come, joined, of a property of all items of a page.
pub(crate) fn column(items: &[chronos_db::View], property: &str) -> Vec<Json> {
    items.iter().map(|view| view.item[property].clone()).collect()
}

//! The messaging database, on every document store.

use bson::Document;
use bson::doc;
use chronos_db::config::{Config, Database, DatabaseType, Selector};
use chronos_db::documents::{Batch, Namespace, Scan, Write};
use chronos_db::{Chronos, Json as Value, json};
use futures::TryStreamExt as _;
use tempfile::TempDir;
use test_support::servers::{mongo_rs_uri, mongo_standalone_uri, unique_name};

mod legacy;
mod migrate;
mod raw_collection;
mod shared;
mod tables;

/// A document store with databases nobody else uses.
pub(crate) struct Ground {
    uri: String,
    prefix: String,
    _folder: Option<TempDir>,
}

impl Ground {
    fn at(uri: String, folder: Option<TempDir>) -> Self {
        Self { uri, prefix: unique_name("msg"), _folder: folder }
    }

    pub(crate) fn memory() -> Self {
        Self::at("embedded::memory:".to_owned(), None)
    }

    pub(crate) fn file() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::at(format!("embedded:{}", folder.path().display()), Some(folder))
    }

    pub(crate) fn standalone() -> Self {
        Self::at(mongo_standalone_uri(), None)
    }

    pub(crate) fn replica_set() -> Self {
        Self::at(mongo_rs_uri(), None)
    }

    fn open(&self, messaging: Value) -> Chronos {
        let config = json!({ "dbConnections": { "here": { "mongoUri": self.uri } }, "databases": { "messaging": messaging } });
        Chronos::open(Config::from_json(&config, ".".as_ref()).unwrap()).unwrap()
    }

    /// One database for all tenants.
    pub(crate) fn shared(&self) -> Chronos {
        self.open(json!({ "dbConnRef": "here", "dbName": self.database("all"), "captureDeliveries": true }))
    }

    /// A database for `tenant-a`, and one for everybody else.
    pub(crate) fn per_tenant(&self) -> Chronos {
        let entry = |tenant: &str| {
            json!({
                "tenantId": tenant, "dbConnRef": "here", "spaceConnRef": "", "bucket": "", "dbName": self.database(tenant),
                "captureDeliveries": true,
            })
        };
        self.open(json!({ "tenantDatabases": [entry("default"), entry("tenant-a")] }))
    }

    pub(crate) fn database(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    pub(crate) fn namespace(&self, database: &str, collection: &str) -> Namespace {
        Namespace::new(self.database(database), collection)
    }

    /// Writes documents past the messaging code, as other programs do.
    pub(crate) async fn write(
        &self,
        chronos: &Chronos,
        database: &str,
        collection: &str,
        documents: Vec<Document>,
    ) {
        let mut batch = Batch::new();
        for document in documents {
            batch.push(&self.namespace(database, collection), Write::insert(document));
        }
        let outcomes = chronos.documents("here").unwrap().apply(batch).await.unwrap();
        assert!(outcomes.iter().all(|outcome| outcome.is_applied()), "{outcomes:?}");
    }

    /// What is stored, past the messaging code.
    pub(crate) async fn read(&self, chronos: &Chronos, database: &str, collection: &str) -> Vec<Document> {
        let documents = chronos.documents("here").unwrap();
        documents.scan(&self.namespace(database, collection), Scan::default()).try_collect().await.unwrap()
    }
}

/// Makes a test of each function on each store.
macro_rules! everywhere {
    ($($name:ident),* $(,)?) => {
        everywhere!(in memory: $($name),*);
        everywhere!(in file: $($name),*);
        everywhere!(in standalone: $($name),*);
        everywhere!(in replica_set: $($name),*);
    };
    (in $ground:ident: $($name:ident),*) => {
        mod $ground {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name(crate::messaging::Ground::$ground()).await;
                }
            )*
        }
    };
}
pub(crate) use everywhere;

everywhere!(
    the_first_access_creates_collections_and_indexes,
    tenants_do_not_see_each_other_in_one_database,
    tenants_do_not_see_each_other_in_databases_of_their_own,
);

async fn the_first_access_creates_collections_and_indexes(ground: Ground) {
    let chronos = ground.shared();
    chronos.messaging("tenant-a").unwrap().topics().ensure("payments").await.unwrap();
    // A document that has the key of another one is refused by an index, whatever writes it.
    let topic =
        |id: i32| doc! { "_id": id, "tenantId": "tenant-a", "namespace": "default", "topic": "payments" };
    let mut batch = Batch::new();
    batch.push(&ground.namespace("all", "topics"), Write::insert(topic(1)));
    let mut outcomes = chronos.documents("here").unwrap().apply(batch).await.unwrap();
    let conflict = chronos_db::documents::Outcome::Conflict { index: Some("topics_key".to_owned()) };
    assert_eq!(outcomes.pop().unwrap(), conflict);
}

async fn tenants_do_not_see_each_other_in_one_database(ground: Ground) {
    tenants_do_not_see_each_other(&ground.shared()).await;
}

async fn tenants_do_not_see_each_other_in_databases_of_their_own(ground: Ground) {
    let chronos = ground.per_tenant();
    tenants_do_not_see_each_other(&chronos).await;
    assert_eq!(chronos.messaging("tenant-a").unwrap().database(), ground.database("tenant-a"));
    assert_eq!(chronos.messaging("tenant-b").unwrap().database(), ground.database("default"));
    let own = ground.read(&chronos, "tenant-a", "shared_memory").await;
    assert!(own.iter().all(|document| document.get_str("tenantId").unwrap() == "tenant-a"));
    assert_eq!(own.len(), 1);
}

async fn tenants_do_not_see_each_other(chronos: &Chronos) {
    for tenant in ["tenant-a", "tenant-b", "tenant-c"] {
        let messaging = chronos.messaging(tenant).unwrap();
        messaging.shared().save("app", "config", json!({ "of": tenant })).await.unwrap();
        messaging.topics().ensure("payments").await.unwrap();
        assert!(messaging.messages().save("payments", "1", json!(tenant)).await.unwrap());
        assert!(messaging.dead_letters().save("payments", "1", json!(tenant)).await.unwrap());
    }
    let b = chronos.messaging("tenant-b").unwrap();
    assert_eq!(b.shared().load("app", "config").await.unwrap().unwrap().value, json!({ "of": "tenant-b" }));
    assert_eq!(b.messages().list("payments").await.unwrap().items.len(), 1);
    assert_eq!(b.messages().get("payments", "1").await.unwrap().unwrap().payload, json!("tenant-b"));
    assert_eq!(b.dead_letters().list("payments").await.unwrap().items.len(), 1);
    b.dead_letters().save("payments", "2", json!(0)).namespace("other").subscription("s").await.unwrap();
    let ids = ["1", "2", "3"];
    assert_eq!(b.dead_letters().kept("payments", ids).await.unwrap().into_iter().collect::<Vec<_>>(), ["1"]);
    let of_other = b.dead_letters().kept("payments", ids).namespace("other").subscription("s").await.unwrap();
    assert_eq!(of_other.into_iter().collect::<Vec<_>>(), ["2"]);
    assert!(
        chronos
            .messaging("tenant-a")
            .unwrap()
            .dead_letters()
            .kept("payments", ids)
            .namespace("other")
            .subscription("s")
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(b.collection("messages").unwrap().find(json!({})).await.unwrap().len(), 1);
    assert_eq!(b.collection("shared_memory").unwrap().delete_many(json!({})).await.unwrap(), 1);
    let c = chronos.messaging("tenant-c").unwrap();
    assert_eq!(c.shared().load("app", "config").await.unwrap().unwrap().value, json!({ "of": "tenant-c" }));
}

#[test]
fn messaging_needs_a_messaging_database() {
    let of_a = Database::new(DatabaseType::Messaging, Selector::Tenant("a".to_owned()), "here", "a");
    let config = Config::builder().connection("here", "embedded::memory:").database(of_a);
    let chronos = Chronos::open(config.build().unwrap()).unwrap();
    assert_eq!(chronos.messaging("b").unwrap_err().code(), "ROUTE_NOT_FOUND");
    assert_eq!(chronos.messaging("../a").unwrap_err().code(), "VALIDATION_ERROR");
    let a = chronos.messaging("a").unwrap();
    assert!(a.deliveries().is_none());
    assert_eq!(a.collection("deliveries").unwrap_err().code(), "VALIDATION_ERROR");
    assert_eq!(a.collection("users").unwrap_err().code(), "VALIDATION_ERROR");
}

//! What the seams cost, on every backend.

use std::sync::Arc;

use chronos_db::config::{Provider, SpaceConnection};
use chronos_db::documents::DocumentStore;
use chronos_db::objects::{ObjectStorage, StoreObjects};
use chronos_db::testing::costs::Gauge;
use tempfile::TempDir;
use test_support::{Proxy, servers};

use crate::gauges::{OfNothing, OfWire, embedded, embedded_somewhere, mongo};

async fn in_memory() -> (Arc<dyn DocumentStore>, Arc<dyn Gauge>) {
    embedded(":memory:")
}

async fn in_a_file() -> (Arc<dyn DocumentStore>, Arc<dyn Gauge>) {
    embedded_somewhere()
}

async fn on(uri: String) -> (Arc<dyn DocumentStore>, Arc<dyn Gauge>) {
    mongo(uri)
}

chronos_db::documents_costs!(memory, in_memory());
chronos_db::documents_costs!(file, in_a_file());
chronos_db::documents_costs!(standalone, on(servers::mongo_standalone_uri()));
chronos_db::documents_costs!(replica_set, on(servers::mongo_rs_uri()));

fn bucket() -> String {
    servers::unique_name("costs")
}

type Bucket<Kept> = (Arc<dyn ObjectStorage>, Arc<dyn Gauge>, Kept);

async fn memory_objects() -> Bucket<()> {
    (Arc::new(StoreObjects::memory(&bucket()).unwrap()), Arc::new(OfNothing), ())
}

async fn local_objects() -> Bucket<TempDir> {
    let root = tempfile::tempdir().unwrap();
    (Arc::new(StoreObjects::local(root.path(), &bucket()).unwrap()), Arc::new(OfNothing), root)
}

async fn cloud(provider: Provider, endpoint: &str, access_key: String, secret_key: String) -> Bucket<()> {
    let proxy = Arc::new(Proxy::in_front_of(endpoint).await);
    let objects = match provider {
        Provider::S3 => {
            let connection = SpaceConnection::s3(proxy.uri(), access_key, secret_key);
            StoreObjects::s3(&connection.force_path_style(true), &bucket())
        }
        _ => StoreObjects::azure(&SpaceConnection::azure(proxy.uri(), access_key, secret_key), &bucket()),
    };
    (Arc::new(objects.unwrap()), Arc::new(OfWire::new(proxy)), ())
}

async fn s3() -> Bucket<()> {
    let s3 = servers::s3();
    cloud(Provider::S3, &s3.endpoint, s3.access_key, s3.secret_key).await
}

async fn azure() -> Bucket<()> {
    let azure = servers::azure();
    cloud(Provider::Azure, &azure.endpoint, azure.account, azure.key).await
}

chronos_db::objects_costs!(objects_in_memory, memory_objects());
chronos_db::objects_costs!(objects_in_a_folder, local_objects());
chronos_db::objects_costs!(objects_on_s3, s3());
chronos_db::objects_costs!(objects_on_azure, azure());

//! The hot tier in documents keeps every promise on every document store, also with several processes' worth of it on one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chronos_db::Runtime;
use chronos_db::documents::Documents;
use chronos_db::documents::embedded::EmbeddedDocuments;
use chronos_db::documents::mongo::MongoDocuments;
use chronow::hot::documents::DocumentsHot;
use chronow::hot::{Advance, Hot, Outgoing, Settle, Settled, Start, SubscriptionPatch, TopicPatch};
use chronow::{Scope, SubscriptionName, TopicName};
use tempfile::TempDir;
use test_support::servers;

fn embedded(path: &std::path::Path) -> Arc<dyn Hot> {
    let documents = EmbeddedDocuments::open(path, Runtime::default()).unwrap();
    Arc::new(DocumentsHot::new(Arc::new(documents), "chronow", Runtime::default()))
}

async fn in_memory() -> Arc<dyn Hot> {
    embedded(std::path::Path::new(":memory:"))
}

fn mongo_documents(uri: String) -> Arc<dyn Documents> {
    Arc::new(MongoDocuments::new(uri.into(), Runtime::default()).unwrap())
}

async fn mongo(uri: String, database: &str) -> Arc<dyn Hot> {
    Arc::new(DocumentsHot::new(mongo_documents(uri), database, Runtime::default()))
}

chronow::hot_suite!(on_embedded_in_memory, in_memory());
chronow::hot_suite!(on_mongo_standalone, mongo(servers::mongo_standalone_uri(), "cw-suite"));
chronow::hot_suite!(on_mongo_replica_set, mongo(servers::mongo_rs_uri(), "cw-suite"));

//! What lies in the stores, and what clients give back: rows, heads, manifests, item.json, messages, deliveries,
//! page tokens, cursors. Each is spoiled, read through the front door, and mended again.

use std::sync::Arc;
use std::time::Duration;

use bson::Document;
use bytes::Bytes;
use chronos_db::config::{Config, CounterRule, Database, Retention, SpaceConnection};
use chronos_db::documents::embedded::EmbeddedDocuments;
use chronos_db::documents::{Batch, DocumentStore, Guard, Namespace, Scan, Write};
use chronos_db::objects::{ObjectStorage, PutOptions, StoreObjects};
use chronos_db::{Chronos, Collection, Env, ItemId, Route, json};
use chronow::hot::documents::DocumentsHot;
use chronow::hot::{DeliverPolicy, MessageStore as _, OutboundMessage, SubscriptionPatch, TopicPatch};
use chronow::{Scope, SubscriptionName, TopicName};
use futures::TryStreamExt as _;
use simulation::Chance;
use test_support::HurriedClock;

use super::{bounded, inputs, mutate};

/// A spoiled document is read by so many operations.
const COSTS: u64 = 40;

struct World {
    documents: Arc<dyn DocumentStore>,
    objects: Arc<dyn ObjectStorage>,
    id: ItemId,
    runtime: tokio::runtime::Runtime,
}

impl World {
    fn chronos(&self) -> Chronos {
        let config = Config::builder()
            .connection("main", "embedded::memory:")
            .space("objects", SpaceConnection::memory())
            .database(Database::runtime("acme", "main", "db").space("objects").bucket("b").analytics("an"))
            .counter_rule(CounterRule::new("all"))
            .retention(Retention::default().max_per_item(2))
            .build()
            .expect("it is right");
        let (documents, objects) = (Arc::clone(&self.documents), Arc::clone(&self.objects));
        Chronos::builder(config)
            .wrap_documents(move |_| Arc::clone(&documents))
            .wrap_objects(move |_| Arc::clone(&objects))
            .env(env())
            .open()
            .expect("it does no I/O")
    }

    fn things(chronos: &Chronos) -> Collection {
        chronos.with(Route::runtime().tenant("acme").collection("things")).expect("it is right")
    }

    fn hot(&self) -> DocumentsHot {
        DocumentsHot::new(Arc::clone(&self.documents), "bus", env())
    }

    fn made() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("it starts");
        let documents: Arc<dyn DocumentStore> =
            Arc::new(EmbeddedDocuments::open(":memory:", env()).expect("it opens"));
        let objects: Arc<dyn ObjectStorage> = Arc::new(StoreObjects::memory("b").expect("it opens"));
        let id = "0".repeat(24).parse().expect("an id");
        let mut world = Self { documents, objects, id, runtime };
        world.id = world.runtime.block_on(async {
            // What it has to store, it stores while it is open.
            let chronos = world.chronos();
            let things = Self::things(&chronos);
            let id = things.create(json!({ "n": 0, "tags": ["a", "b"] })).await.expect("it is created").id;
            for n in 1..6 {
                things.update(&id, json!({ "n": n })).await.expect("it is updated");
            }
            let report = things.flush(Duration::from_secs(60)).await.expect("it is stored");
            assert_eq!(report.waiting, 0, "{report:?}");
            // What is not counted yet is not pruned.
            things.counters().follow().await.expect("it is counted");
            let pruned = things.prune().await.expect("it is pruned");
            assert!(pruned.versions > 0, "{pruned:?}");
            let hot = world.hot();
            let (topic, name) = names();
            hot.ensure_topic(&topic, &TopicPatch::default()).await.expect("it is made");
            let patch = SubscriptionPatch::default()
                .start(DeliverPolicy::Earliest)
                .visibility(Duration::from_secs(1));
            hot.ensure_subscription(&name, &patch).await.expect("it is made");
            let message = |n: u32| OutboundMessage {
                payload: Bytes::from(format!("{{\"n\":{n}}}")),
                key: Some("k".to_owned()),
                dedup_id: Some(format!("d{n}")),
                headers: [("h".to_owned(), "v".to_owned())].into(),
                ..OutboundMessage::default()
            };
            hot.publish(&topic, (0..4).map(message).collect()).await.expect("it is published");
            hot.pull(&name, 2).await.expect("they come");
            id
        });
        world
    }

    fn all(&self, database: &str, collections: &[&str]) -> Vec<(Namespace, Document)> {
        let read = async {
            let mut all = Vec::new();
            for collection in collections {
                let namespace = Namespace::new(database, *collection);
                let found: Vec<Document> = self
                    .documents
                    .scan(&namespace, Scan::default())
                    .try_collect()
                    .await
                    .expect("they are read");
                all.extend(found.into_iter().map(|document| (namespace.clone(), document)));
            }
            all
        };
        self.runtime.block_on(read)
    }

    async fn put(&self, namespace: &Namespace, document: &Document) {
        let mut batch = Batch::new();
        batch.push(namespace, Write::put(document.clone(), Guard::Any));
        // What breaks a rule of an index is refused, and was never there.
        let _ = self.documents.apply(batch).await;
    }

    /// Everything that reads a collection. What comes of it does not matter.
    async fn read_records(&self) {
        let chronos = self.chronos();
        let things = Self::things(&chronos);
        let _ = things.get(&self.id).await;
        for ov in [0, 4] {
            let _ = things.get(&self.id).version(ov).await;
        }
        let _ = things.history(&self.id).await;
        let _ = things.list().limit(10).await;
        let _ = things.list().as_of_cv(2).limit(10).await;
        let _ = things.counters().totals().await;
        let _ = things.verify().await;
    }

    async fn read_messages(&self) {
        let hot = self.hot();
        let (topic, name) = names();
        let _ = hot.pull(&name, 3).await;
        let _ = hot.stats(&topic).await;
        let _ = hot.peek(&name, 5).await;
        let _ = hot.dead_letters(&name, None, 5).await;
    }
}

/// By a faster clock: only what is old is pruned.
fn env() -> Env {
    Env { clock: Arc::new(HurriedClock), ..Env::default() }
}

fn names() -> (TopicName, SubscriptionName) {
    let topic = TopicName::new(&Scope::new("acme", "fuzz").expect("a name"), "orders").expect("a name");
    let name = SubscriptionName::new(&topic, "first").expect("a name");
    (topic, name)
}

#[test]
fn rows_heads_marks_and_counts() {
    let world = World::made();
    let collections =
        ["things_ver", "things_head", "things_counter", "things_manifests", "things_gc", "things_locks"];
    let mut all = world.all("db", &collections);
    all.extend(world.all("an", &["cnt_total"]));
    assert!(all.len() > 5);
    bounded("rows", inputs(COSTS), |chance| {
        let (namespace, valid) = chance.pick(&all).expect("there are some");
        let spoiled = mutate::document(chance, valid);
        world.runtime.block_on(async {
            world.put(namespace, &spoiled).await;
            world.read_records().await;
            world.put(namespace, valid).await;
        });
    });
}

#[test]
fn objects_and_manifests() {
    let world = World::made();
    let objects = Arc::clone(&world.objects);
    let keys: Vec<String> = world
        .runtime
        .block_on(objects.list("").map_ok(|object| object.key).try_collect())
        .expect("they are listed");
    assert!(keys.iter().any(|key| key.starts_with("__manifests__")));
    bounded("objects", inputs(COSTS), |chance: &Chance| {
        let key = chance.pick(&keys).expect("there are some");
        world.runtime.block_on(async {
            let valid = objects.get(key).await.expect("it is read").expect("it is there");
            let spoiled = Bytes::from(mutate::bytes(chance, &valid));
            objects.put(key, spoiled, PutOptions::default()).await.expect("it is put");
            world.read_records().await;
            objects.put(key, valid, PutOptions::default()).await.expect("it is put");
        });
    });
}

#[test]
fn messages_deliveries_and_topics() {
    let world = World::made();
    let all = world.all("bus", &["cw_topics", "cw_messages", "cw_deliveries", "cw_dedup"]);
    assert!(all.len() > 5);
    bounded("messages", inputs(COSTS), |chance| {
        let (namespace, valid) = chance.pick(&all).expect("there are some");
        let spoiled = mutate::document(chance, valid);
        world.runtime.block_on(async {
            world.put(namespace, &spoiled).await;
            world.read_messages().await;
            world.put(namespace, valid).await;
        });
    });
}

#[test]
fn page_tokens_and_cursors() {
    let world = World::made();
    let chronos = world.chronos();
    let things = World::things(&chronos);
    let token = world.runtime.block_on(async {
        things.create(json!({ "n": 7 })).await.expect("it is created");
        let page = things.list().sort("n", chronos_db::documents::Direction::Ascending).limit(1).await;
        page.expect("it is listed").next.expect("there is more")
    });
    let (hot, (_, name)) = (world.hot(), names());
    bounded("tokens", inputs(8), |chance| {
        world.runtime.block_on(async {
            let token = mutate::text(chance, &token);
            let sorted = things.list().sort("n", chronos_db::documents::Direction::Ascending);
            let _ = sorted.after(token.clone()).limit(1).await;
            let _ = hot.dead_letters(&name, Some(&token), 5).await;
        });
    });
}

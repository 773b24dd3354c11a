//! Collections of different sizes, and what is counted in them.

use std::sync::Arc;

use bson::oid::ObjectId;
use bson::{Bson, Document};
use chronos_db::documents::{Batch, DocumentStore, Guard, Outcome, Write};
use chronos_db::testing::costs::{Gauge, Spent};
use chronos_db::{Collection, ItemId, Json, Route, json};
use test_support::{Meter, Moved};

use crate::records::pairing::{Pairing, Store, TIMEOUT, minute, namespace};

/// Items of the small world; the large one has a hundred times as many.
const FEW: i64 = 60;
/// Versions of one item, in the small world and in the large one.
const VERSIONS: [i64; 2] = [300, 9_000];

/// What something cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    /// Calls of the document store, and of the object storage.
    pub(super) calls: u64,
    pub(super) storage_calls: u64,
    /// Requests to a server of documents.
    pub(super) requests: u64,
    /// What the document store's engine looked at.
    pub(super) examined: u64,
    /// Documents and objects that came and went, and their bytes.
    pub(super) read: u64,
    pub(super) read_bytes: u64,
    pub(super) written: u64,
    pub(super) written_bytes: u64,
}

/// Half as much again, and a little.
pub(super) fn about(cost: u64, little: u64) -> u64 {
    cost + cost / 2 + little
}

impl Cost {
    fn new(documents: Moved, objects: Moved, spent: Spent) -> Self {
        Self {
            calls: documents.calls,
            storage_calls: objects.calls,
            requests: spent.requests,
            examined: spent.examined,
            read: documents.read + objects.read,
            read_bytes: documents.read_bytes + objects.read_bytes,
            written: documents.written + objects.written,
            written_bytes: documents.written_bytes + objects.written_bytes,
        }
    }

    fn numbers(&self) -> [u64; 8] {
        let Self { calls, storage_calls, requests, examined, read, read_bytes, written, written_bytes } =
            *self;
        [calls, storage_calls, requests, examined, read, read_bytes, written, written_bytes]
    }

    fn of(
        [calls, storage_calls, requests, examined, read, read_bytes, written, written_bytes]: [u64; 8],
    ) -> Self {
        Self { calls, storage_calls, requests, examined, read, read_bytes, written, written_bytes }
    }

    pub(super) fn times(self, n: u64) -> Self {
        Self::of(self.numbers().map(|number| number * n))
    }

    fn least(self, other: Self) -> Self {
        let mut least = self.numbers();
        least.iter_mut().zip(other.numbers()).for_each(|(mine, other)| *mine = other.min(*mine));
        Self::of(least)
    }

    /// Whether it is no more than the other, but for chance: what is done together depends on who comes when.
    pub(super) fn is_about(&self, other: &Self) -> bool {
        let little = [4, 2, 6, 40, 5, 2_000, 3, 2_000];
        self.numbers()
            .iter()
            .zip(other.numbers())
            .zip(little)
            .all(|((mine, other), little)| *mine <= about(other, little))
    }
}

/// A collection, loaded past the library with what the library stores.
pub(super) struct World {
    pub(super) store: Store,
    pub(super) collection: Collection,
    /// Items of one version, of the numbers 0 to `items`; each created a minute after the one before.
    pub(super) items: i64,
    /// Versions of one more item, of the next numbers and minutes.
    pub(super) versions: i64,
    client: Arc<dyn DocumentStore>,
    documents: Arc<Meter>,
    objects: Arc<Meter>,
    gauge: Arc<dyn Gauge>,
}

impl World {
    /// A small and a large one.
    pub(super) async fn both(p: &Pairing) -> (Self, Self) {
        (Self::new(p, "few", FEW, VERSIONS[0]).await, Self::new(p, "many", FEW * 100, VERSIONS[1]).await)
    }

    pub(super) async fn new(p: &Pairing, name: &str, items: i64, versions: i64) -> Self {
        let (client, gauge) = p.observed();
        let (documents, objects) = (Arc::<Meter>::default(), Arc::<Meter>::default());
        let client = test_support::documents::metered(client, Arc::clone(&documents));
        let store = open(p, &client, &objects);
        let collection = store.collection(name);
        let world = Self { store, collection, items, versions, client, documents, objects, gauge };
        world.fill().await;
        // What it says in its index is not what its one payload says.
        world.store.is_damaged();
        world
    }

    /// Three items of the tenant `acme` in one collection with so many of `globex`, whose handle it isn't.
    pub(super) async fn shared(p: &Pairing, name: &str, items: i64) -> Self {
        let (client, gauge) = p.observed();
        let (documents, objects) = (Arc::<Meter>::default(), Arc::<Meter>::default());
        let client = test_support::documents::metered(client, Arc::clone(&documents));
        let databases = json!({ "databases": p.one_database() });
        let store = open_with(p, &databases, &client, &objects);
        let globex = store.with(Route::runtime().tenant("globex").collection(name));
        let mut world =
            Self { collection: globex, store, items, versions: 3, client, documents, objects, gauge };
        world.fill().await;
        world.collection = world.store.collection(name);
        for n in 0..3 {
            world
                .collection
                .create(json!({ "n": n, "name": "x", "email": "x" }))
                .at(minute(n))
                .await
                .unwrap();
        }
        assert_eq!(world.collection.flush(TIMEOUT).await.unwrap(), 0);
        world.store.is_damaged();
        world
    }

    /// Writes a new version of every `step`th item, up to so many; now, that is after all others.
    pub(super) async fn change(&self, count: i64, step: i64) {
        let c = &self.collection;
        let head = self.store.head(c, &self.item(0)).await;
        let row = self
            .store
            .stored(c, "ver")
            .await
            .into_iter()
            .find(|row| row.get("itemId") == head.get("_id"))
            .unwrap();
        let mut batches = Vec::new();
        let first = self.last_cv() + 1;
        for k in 0..count {
            let (item, cv) = (k * step, first + k);
            let mut changed = [version(&head, item, 1, cv, "_id"), version(&row, item, 1, cv, "itemId")];
            for (document, suffix) in changed.iter_mut().zip(["head", "ver"]) {
                let name = format!("changed {cv:09}");
                document.insert(
                    "metaIndexed",
                    bson::doc! { "n": -item, "name": name, "email": format!("{item}@x") },
                );
                if suffix == "head" {
                    document.insert("createdAt", minute(item));
                }
                batches.push((namespace(c, suffix), Write::put(document.clone(), Guard::Any)));
            }
        }
        for name in ["cv", "stable"] {
            let counter = bson::doc! { "_id": name, "value": first + count - 1 };
            batches.push((namespace(c, "counter"), Write::put(counter, Guard::Any)));
        }
        for chunk in batches.chunks(1_000) {
            let mut batch = Batch::new();
            for (namespace, write) in chunk {
                batch.push(namespace, write.clone());
            }
            self.apply(batch).await;
        }
    }

    /// The same stores, opened by another process.
    pub(super) fn again(&self, p: &Pairing) -> Store {
        open(p, &self.client, &self.objects)
    }

    /// The item created as the `n`th.
    pub(super) fn item(&self, n: i64) -> ItemId {
        id(n).to_hex().parse().unwrap()
    }

    /// The item of many versions.
    pub(super) fn deep(&self) -> ItemId {
        self.item(self.items)
    }

    pub(super) fn last_cv(&self) -> i64 {
        self.items + self.versions - 1
    }

    async fn fill(&self) {
        let c = &self.collection;
        let model = c
            .create(json!({ "n": 0, "name": "x", "email": "x" }))
            .at(minute(0))
            .ack_stored()
            .await
            .unwrap()
            .id;
        assert_eq!(c.flush(TIMEOUT).await.unwrap(), 0);
        let (head, row) = (self.store.head(c, &model).await, self.store.stored(c, "ver").await.remove(0));
        let mut batch = Batch::new();
        for suffix in ["head", "ver"] {
            let id = if suffix == "head" { &head } else { &row }.get("_id").unwrap().clone();
            batch.push(&namespace(c, suffix), Write::Delete { id, guard: Guard::Any });
        }
        let (mut items, mut rows) = (Vec::new(), Vec::new());
        for n in 0..self.items {
            items.push(version(&head, n, 0, n, "_id"));
            rows.push(version(&row, n, 0, n, "itemId"));
        }
        for ov in 0..self.versions {
            rows.push(version(&row, self.items, ov, self.items + ov, "itemId"));
        }
        items.push(version(&head, self.items, self.versions - 1, self.last_cv(), "_id"));
        for name in ["cv", "stable"] {
            let counter = bson::doc! { "_id": name, "value": self.last_cv() };
            batch.push(&namespace(c, "counter"), Write::put(counter, Guard::Any));
        }
        self.apply(batch).await;
        for (suffix, documents) in [("head", items), ("ver", rows)] {
            for chunk in documents.chunks(1_000) {
                let mut batch = Batch::new();
                for document in chunk {
                    batch.push(&namespace(c, suffix), Write::insert(document.clone()));
                }
                self.apply(batch).await;
            }
        }
    }

    async fn apply(&self, batch: Batch) {
        let outcomes = self.client.apply(batch).await.unwrap();
        assert!(outcomes.iter().all(Outcome::is_applied), "{outcomes:?}");
    }

    /// What `work` costs when it has been done before.
    pub(super) async fn cost(&self, work: impl AsyncFn(i32)) -> Cost {
        work(0).await;
        self.turn(1, &work).await
    }

    async fn turn(&self, turn: i32, work: &impl AsyncFn(i32)) -> Cost {
        let database = self.collection.database();
        self.gauge.begin(database).await;
        self.documents.take();
        self.objects.take();
        work(turn).await;
        let (documents, objects) = (self.documents.take(), self.objects.take());
        Cost::new(documents, objects, self.gauge.end(database).await)
    }

    /// The same of a write, with what is then done about its payload. What is done together depends on who
    /// comes when: of some turns the least counts.
    pub(super) async fn write(&self, work: impl AsyncFn(i32)) -> Cost {
        const TURNS: i32 = 3;
        let work = async |turn: i32| {
            work(turn).await;
            assert_eq!(self.collection.flush(TIMEOUT).await.unwrap(), 0);
        };
        let mut least = self.cost(&work).await;
        for turn in 2..=TURNS {
            least = least.least(self.turn(turn, &work).await);
        }
        least
    }
}

fn open(p: &Pairing, client: &Arc<dyn DocumentStore>, objects: &Arc<Meter>) -> Store {
    open_with(p, &json!({}), client, objects)
}

fn open_with(p: &Pairing, more: &Json, client: &Arc<dyn DocumentStore>, objects: &Arc<Meter>) -> Store {
    // Payloads are read from the stores each time, and properties have indexes.
    let indexed = json!({ "indexedProps": ["n", "name", "email"] });
    let mut config = json!({ "collectionMaps": { "few": indexed.clone(), "many": indexed } });
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    p.opening()
        .with(&config)
        .without_cache()
        .documents_client(Arc::clone(client))
        .metered_objects(objects)
        .open()
}

/// Object ids in the order of their numbers.
fn id(n: i64) -> ObjectId {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&(n + 1_000_000).to_be_bytes());
    ObjectId::from_bytes(bytes)
}

fn row_id(cv: i64) -> ObjectId {
    let mut bytes = id(cv).bytes();
    bytes[3] = 1;
    ObjectId::from_bytes(bytes)
}

/// A head or row like `model`, of another item and version.
fn version(model: &Document, item: i64, ov: i64, cv: i64, item_field: &str) -> Document {
    let mut document = model.clone();
    if item_field == "itemId" {
        document.insert("_id", row_id(cv));
        document.insert("at", minute(cv));
    } else {
        document.insert("rowId", row_id(cv));
        document.insert("createdAt", minute(item));
        document.insert("updatedAt", minute(cv));
    }
    document.insert(item_field, id(item));
    document.insert("ov", int(ov));
    document.insert("cv", int(cv));
    if ov > 0 {
        document.insert("payloadOv", int(0));
        document.insert("prevOv", int(ov - 1));
    }
    document.insert(
        "metaIndexed",
        bson::doc! { "n": item, "name": format!("item {item:09}"), "email": format!("{item}@x") },
    );
    document
}

fn int(value: i64) -> Bson {
    i32::try_from(value).map_or(Bson::Int64(value), Bson::Int32)
}

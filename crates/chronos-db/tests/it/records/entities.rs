//! Records that are inserted with their entities.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chronos_db::config::DatabaseType;
use chronos_db::fail::{FailAction, FailPoints};
use chronos_db::{
    Collection, EntityMapping, EntityOperation, Env, ErrorKind, InsertedWithEntities, Json, Op, Route, Tier,
    json,
};
use test_support::{Counting, Delaying, MockClock, documents, objects};

use super::pairing::{
    Kind, Pairing, Store, TIMEOUT, document, on_durable_pairings, on_every_pairing, refused,
};

mod alone {
    super::on_every_pairing!(
        three_orders_make_one_customer_who_is_created_left_alone_and_updated,
        a_record_is_read_with_its_entities_as_they_are_now,
        callers_with_the_same_new_entity_make_one,
        a_record_without_entities_is_written_whatever_the_store_can_do,
        a_record_that_is_refused_leaves_no_entity,
        what_is_written_together_has_one_time_and_leaves_no_hole,
        the_result_says_whether_it_was_one_transaction,
        without_a_transaction_a_failure_undoes_what_came_before_it,
        entities_on_another_connection_are_written_one_by_one,
        properties_that_are_one_entity_make_one_version_of_it,
        large_payloads_are_stored_before_the_transaction,
        an_entity_that_was_deleted_is_created_anew,
        a_locked_entity_is_waited_for,
        an_error_at_any_step_leaves_everything_or_nothing,
        tenants_that_share_a_database_share_no_entity,
        where_versions_are_not_kept_entities_are_merged_all_the_same,
    );
    super::super::pairing::on_pairings!(costs_embedded = EmbeddedLocal: two_entities_and_their_record_are_three_numbers_and_one_batch);
    super::super::pairing::on_pairings!(costs_replica_set = ReplicaSetS3: two_entities_and_their_record_are_three_numbers_and_one_batch);
    use super::*;
}

mod apart {
    super::on_durable_pairings!(callers_of_two_sides_with_the_same_new_entity_make_one);
    use super::*;
}

pub(super) fn mapping() -> [EntityMapping; 2] {
    [
        EntityMapping::new("customer", "customers", "customerId"),
        EntityMapping::new("product", "products", "productId"),
    ]
}

/// The three collections; all of them are verified when the scenario ends.
pub(super) struct Shop {
    pub(super) orders: Collection,
    pub(super) customers: Collection,
    pub(super) products: Collection,
}

impl Shop {
    pub(super) fn of(store: &Store) -> Self {
        Self {
            orders: store.collection("orders"),
            customers: store.collection("customers"),
            products: store.collection("products"),
        }
    }

    async fn insert(&self, order: Json) -> InsertedWithEntities {
        self.orders.insert_with_entities(order, mapping()).await.unwrap()
    }

    /// The documents of the live items, by a property.
    pub(super) async fn all(&self, collection: &Collection, key: &str) -> BTreeMap<String, Json> {
        let found = collection.list().limit(1000).await.unwrap().items;
        let documents = found.iter().map(|view| view.document());
        documents.map(|document| (document[key].as_str().unwrap().to_owned(), document)).collect()
    }

    /// How many live items there are of orders, customers and products.
    pub(super) async fn counts(&self) -> [usize; 3] {
        let mut counts = [0; 3];
        for (count, collection) in counts.iter_mut().zip([&self.orders, &self.customers, &self.products]) {
            *count = collection.list().limit(1000).await.unwrap().items.len();
        }
        counts
    }
}

fn operations(inserted: &InsertedWithEntities) -> Vec<&'static str> {
    inserted.entities.iter().map(|entity| entity.operation.name()).collect()
}

fn three_orders() -> [Json; 3] {
    let ada = json!({"customerId": "CUST-001", "name": "Ada", "email": "ada@example.org", "tier": "gold"});
    [
        json!({"orderId": "ORD-1", "customer": ada, "product": {"productId": "PROD-1", "price": 99.99}, "quantity": 2}),
        json!({"orderId": "ORD-2", "customer": ada, "product": {"productId": "PROD-2", "price": 5}, "quantity": 1}),
        json!({"orderId": "ORD-3", "customer": {"customerId": "CUST-001", "tier": "platinum", "vipCode": "V-7"}, "product": {"productId": "PROD-1", "price": 99.99}}),
    ]
}

/// D-07, G-07.
async fn three_orders_make_one_customer_who_is_created_left_alone_and_updated(p: &Pairing) {
    let shop = Shop::of(&p.open());
    let mut seen = Vec::new();
    for order in three_orders() {
        seen.push(shop.insert(order).await);
    }
    let reported: Vec<_> = seen.iter().map(operations).collect();
    assert_eq!(reported, [["created", "created"], ["unchanged", "created"], ["updated", "unchanged"]]);
    assert!(seen.iter().all(|inserted| inserted.entities[0].id == seen[0].entities[0].id));
    let customers = shop.all(&shop.customers, "customerId").await;
    let merged = json!({"customerId": "CUST-001", "name": "Ada", "email": "ada@example.org", "tier": "platinum", "vipCode": "V-7"});
    assert_eq!(customers.into_values().collect::<Vec<_>>(), [merged]);
    // What changes nothing makes no version.
    assert_eq!((shop.customers.stable_cv().await.unwrap(), shop.products.stable_cv().await.unwrap()), (1, 1));
    let history = shop.customers.history(&seen[0].entities[0].id).await.unwrap();
    let who = (history[1].actor.as_deref(), history[1].reason.as_deref());
    assert_eq!(who, (Some("system"), Some("insertWithEntities")));
}

async fn a_record_is_read_with_its_entities_as_they_are_now(p: &Pairing) {
    let shop = Shop::of(&p.open());
    let [first, _, third] = three_orders();
    let inserted = shop.insert(first.clone()).await;
    shop.insert(third).await;
    let found = shop.orders.get_with_entities(&inserted.record.id, mapping()).await.unwrap();
    assert_eq!(found.record.as_ref().unwrap().document(), first, "the record keeps its copies");
    let tier = &found.entities[0].1.as_ref().unwrap().item["tier"];
    assert_eq!(tier, "platinum", "{found:?}");
    shop.customers.delete(&inserted.entities[0].id).await.unwrap();
    let found = shop.orders.get_with_entities(&inserted.record.id, mapping()).await.unwrap();
    assert!(found.entities[0].1.is_none() && found.entities[1].1.is_some());
    assert_eq!(found.to_json()["entities"]["customer"], Json::Null);

    let lone = json!({"orderId": "ORD-4", "customer": {"customerId": "C-9"}, "product": "none"});
    let inserted = shop.insert(lone).await;
    assert_eq!((inserted.entities.len(), inserted.skipped[0].property.as_str()), (1, "product"));
    let found = shop.orders.get_with_entities(&inserted.record.id, mapping()).await.unwrap();
    assert!(found.entities[0].1.is_some() && found.entities[1].1.is_none());
    let nobody = shop.orders.get_with_entities(&inserted.entities[0].id, mapping()).await.unwrap();
    assert!(nobody.record.is_none() && nobody.entities.iter().all(|(_, entity)| entity.is_none()));
}

/// Every caller names the same new entities; says how often each was created.
async fn insert_at_once(sides: &[&Shop], callers: usize) {
    let inserts = (0..callers).map(|n| {
        let order = json!({"orderId": format!("O-{n}"), "customer": {"customerId": "NEW", "name": "Eve"}, "product": {"productId": "NEW"}});
        sides[n % sides.len()].orders.insert_with_entities(order, mapping()).into_future()
    });
    let inserted = futures::future::try_join_all(inserts).await.unwrap();
    for entity in 0..2 {
        let created = inserted.iter().filter(|i| i.entities[entity].operation == EntityOperation::Created);
        assert_eq!(created.count(), 1);
        assert!(inserted.iter().all(|i| i.entities[entity].operation != EntityOperation::Updated));
        assert!(inserted.iter().all(|i| i.entities[entity].id == inserted[0].entities[entity].id));
    }
    assert_eq!(sides[0].counts().await, [callers, 1, 1]);
}

async fn callers_with_the_same_new_entity_make_one(p: &Pairing) {
    let shop = Shop::of(&p.open());
    insert_at_once(&[&shop], 12).await;
}

async fn callers_of_two_sides_with_the_same_new_entity_make_one(p: &Pairing) {
    let sides = [Shop::of(&p.open()), Shop::of(&p.open())];
    insert_at_once(&[&sides[0], &sides[1]], 8).await;
}

async fn a_record_without_entities_is_written_whatever_the_store_can_do(p: &Pairing) {
    let shop = Shop::of(&p.open());
    let lone = shop.insert(json!({"orderId": "1", "customer": "none"})).await;
    assert_eq!((lone.entities.len(), lone.skipped.len(), lone.atomic), (0, 2, true));
    let order = json!({"orderId": "2", "customer": {"customerId": "C"}});
    let unmapped = shop.orders.insert_with_entities(order.clone(), []).ack_stored().await.unwrap();
    assert_eq!((unmapped.entities.len(), unmapped.skipped.len(), unmapped.atomic), (0, 0, true));
    assert_eq!(document(&shop.orders, &unmapped.record.id).await, order);
    assert_eq!((lone.record.cv, unmapped.record.cv), (0, 1), "no number was spent on anything else");
    assert_eq!((shop.counts().await, shop.orders.stable_cv().await.unwrap()), ([2, 0, 0], 1));
}

fn with_required() -> Json {
    json!({ "collectionMaps": { "orders": { "indexedProps": ["orderId"], "validation": { "requiredIndexed": ["orderId"] } } } })
}

async fn a_record_that_is_refused_leaves_no_entity(p: &Pairing) {
    let shop = Shop::of(&p.open_with(&with_required()));
    let order = json!({"customer": {"customerId": "LOST"}, "product": {"productId": "LOST"}});
    let error = shop.orders.insert_with_entities(order, mapping()).await.unwrap_err();
    assert_eq!((error.kind(), error.collection()), (ErrorKind::Validation, Some("orders")), "{error}");
    assert_eq!(shop.counts().await, [0, 0, 0]);
    // An entity can be what is wrong, too.
    let order = r#"{"orderId": "O", "customer": {"customerId": "LOST"}, "product": {"productId": "LOST", "n": 1e400}}"#;
    let order = Json::parse(order).unwrap();
    assert_eq!(refused(shop.orders.insert_with_entities(order, mapping()).await), ErrorKind::Validation);
    assert_eq!(shop.counts().await, [0, 0, 0]);
    for collection in [&shop.customers, &shop.products] {
        assert_eq!(collection.stable_cv().await.unwrap(), -1, "no version was written and undone");
    }
}

async fn what_is_written_together_has_one_time_and_leaves_no_hole(p: &Pairing) {
    let shop = Shop::of(&p.open());
    for n in 0..5 {
        let order = json!({"orderId": format!("O-{n}"), "customer": {"customerId": "C", "n": n}, "product": {"productId": format!("P-{n}")}});
        let inserted = shop.insert(order).await;
        assert_eq!((inserted.record.ov, inserted.record.cv), (0, n));
        let customer = shop.customers.get(&inserted.entities[0].id).await.unwrap().unwrap();
        let product = shop.products.get(&inserted.entities[1].id).await.unwrap().unwrap();
        assert_eq!((customer.ov, customer.cv, product.cv), (n, n, n));
        if inserted.atomic {
            assert_eq!([customer.at, product.at], [inserted.record.at; 2]);
        }
    }
    for collection in [&shop.orders, &shop.customers, &shop.products] {
        assert_eq!(collection.stable_cv().await.unwrap(), 4);
    }
}

async fn the_result_says_whether_it_was_one_transaction(p: &Pairing) {
    let order = |n: u32| json!({"orderId": n.to_string(), "customer": {"customerId": "C"}, "product": {"productId": n}});
    let has_transactions = p.kind != Kind::StandaloneLocal;
    let detected = Shop::of(&p.open()).insert(order(1)).await;
    assert_eq!(
        (detected.atomic, &detected.to_json()["atomic"]),
        (has_transactions, &json!(has_transactions))
    );

    let off = Shop::of(&p.open_with(&json!({"transactions": {"enabled": false}})));
    assert!(!off.insert(order(2)).await.atomic);

    let always = Shop::of(&p.open_with(&json!({"transactions": {"autoDetect": false}})));
    let inserted = always.orders.insert_with_entities(order(3), mapping()).await;
    if has_transactions {
        assert!(inserted.unwrap().atomic);
    } else {
        assert!(inserted.unwrap_err().message().contains("autoDetect"));
        assert!(!always.all(&always.orders, "orderId").await.contains_key("3"));
    }
}

async fn without_a_transaction_a_failure_undoes_what_came_before_it(p: &Pairing) {
    let fail = FailPoints::armable();
    let env = Env { fail: fail.clone(), ..Env::default() };
    let store = p.opening().with(&json!({"transactions": {"enabled": false}})).env(env).open();
    let shop = Shop::of(&store);
    let first = shop.insert(json!({"orderId": "1", "customer": {"customerId": "C", "n": 1}})).await;
    fail.arm("one_by_one.before_write", FailAction::Error(ErrorKind::Database), 2, 1);
    let order =
        json!({"orderId": "2", "customer": {"customerId": "C", "n": 2}, "product": {"productId": "P"}});
    let error = shop.orders.insert_with_entities(order.clone(), mapping()).await.unwrap_err();
    assert!(error.message().contains("1 of the versions before it have been undone"), "{error}");
    let product = shop.products.list().await.unwrap().items[0].id;
    let left = format!("`product`, item {product} of `products`, was created and stays");
    assert!(error.message().contains(&left), "{error}");
    assert_eq!(shop.counts().await, [1, 1, 1]);
    let customer = first.entities[0].id;
    assert_eq!(document(&shop.customers, &customer).await, json!({"customerId": "C", "n": 1}));
    let history = shop.customers.history(&customer).await.unwrap();
    assert_eq!(
        history.iter().map(|version| version.op).collect::<Vec<_>>(),
        [Op::Create, Op::Update, Op::Restore]
    );
    assert!(history[2].reason.as_deref().unwrap().starts_with("undone"));
    let again = shop.insert(order).await;
    assert_eq!((operations(&again), again.entities[1].id), (vec!["updated", "unchanged"], product));
}

async fn entities_on_another_connection_are_written_one_by_one(p: &Pairing) {
    let mut connections = p.config(&json!({}))["dbConnections"].clone();
    connections["beside"] = json!({ "mongoUri": "embedded::memory:" });
    let mut databases = p.config(&json!({}))["databases"].clone();
    let entry = json!({"dbConnRef": "beside", "dbName": "metadata"});
    databases["metadata"] = json!({"genericDatabase": entry, "domainsDatabases": [], "tenantDatabases": []});
    let more = |transactions: Json| json!({"dbConnections": connections, "databases": databases, "transactions": transactions});
    let mapping = || {
        [EntityMapping::new("customer", "customers", "customerId")
            .database_type(DatabaseType::Metadata)
            .tier(Tier::Generic)]
    };
    let order = json!({"orderId": "1", "customer": {"customerId": "C"}});
    let shop = Shop::of(&p.open_with(&more(json!({}))));
    let inserted = shop.orders.insert_with_entities(order.clone(), mapping()).await.unwrap();
    assert!(!inserted.atomic);
    let found = shop.orders.get_with_entities(&inserted.record.id, mapping()).await.unwrap();
    assert!(found.entities[0].1.is_some());
    assert_eq!(shop.counts().await, [1, 0, 0], "it is not in the record's own database");
    let strict = Shop::of(&p.open_with(&more(json!({"autoDetect": false}))));
    let error = strict.orders.insert_with_entities(order, mapping()).await.unwrap_err();
    assert!(error.message().contains("other connections"), "{error}");
}

async fn properties_that_are_one_entity_make_one_version_of_it(p: &Pairing) {
    let shop = Shop::of(&p.open());
    let mapping =
        || ["buyer", "payer"].map(|property| EntityMapping::new(property, "customers", "customerId"));
    let order = json!({"orderId": "1", "buyer": {"customerId": "C", "name": "Ada"}, "payer": {"customerId": "C", "iban": "CH1"}});
    let inserted = shop.orders.insert_with_entities(order, mapping()).await.unwrap();
    assert_eq!(operations(&inserted), ["created", "created"]);
    assert_eq!(inserted.entities[0].id, inserted.entities[1].id);
    let both = document(&shop.customers, &inserted.entities[0].id).await;
    assert_eq!(both, json!({"customerId": "C", "name": "Ada", "iban": "CH1"}));
    assert_eq!(shop.customers.stable_cv().await.unwrap(), 0);
    // Also if they are found by different keys.
    let mapping = || {
        [("buyer", "customerId"), ("contact", "iban")]
            .map(|(property, key)| EntityMapping::new(property, "customers", key))
    };
    let order = json!({"orderId": "2", "buyer": {"customerId": "C", "vip": true}, "contact": {"iban": "CH1", "phone": 5}});
    let again = shop.orders.insert_with_entities(order, mapping()).await.unwrap();
    assert_eq!(
        (operations(&again), again.entities[1].id),
        (vec!["updated", "updated"], inserted.entities[0].id)
    );
    let all = document(&shop.customers, &inserted.entities[0].id).await;
    assert_eq!(all, json!({"customerId": "C", "name": "Ada", "iban": "CH1", "vip": true, "phone": 5}));
    let versions = if again.atomic { 1 } else { 2 };
    assert_eq!(shop.customers.stable_cv().await.unwrap(), versions);
    // Also if there is nothing yet, or it has only one of the keys so far.
    let new = |key: &str| json!({"customerId": key, "iban": format!("{key}-1")});
    let order = json!({"orderId": "3", "buyer": new("E"), "contact": new("E")});
    let made = shop.orders.insert_with_entities(order, mapping()).await.unwrap();
    assert_eq!((made.entities[0].operation.name(), made.entities[1].id), ("created", made.entities[0].id));
    assert_eq!(document(&shop.customers, &made.entities[0].id).await, new("E"));
    let plain = shop.customers.create(json!({"customerId": "F"})).await.unwrap();
    let order = json!({"orderId": "4", "buyer": new("F"), "contact": new("F")});
    let found = shop.orders.insert_with_entities(order, mapping()).await.unwrap();
    assert_eq!([found.entities[0].id, found.entities[1].id], [plain.id; 2]);
    assert_eq!(document(&shop.customers, &plain.id).await, new("F"));
    let versions = versions + 3;
    assert_eq!(shop.customers.stable_cv().await.unwrap(), versions, "each is one version");
    // A record may be in the collection of its entities.
    let mapping = [EntityMapping::new("boss", "customers", "customerId")];
    let clerk = json!({"customerId": "D", "boss": {"customerId": "C", "name": "Ada L."}});
    let inserted = shop.customers.insert_with_entities(clerk, mapping).await.unwrap();
    assert_eq!(
        (operations(&inserted), shop.customers.stable_cv().await.unwrap()),
        (vec!["updated"], versions + 2)
    );
}

async fn large_payloads_are_stored_before_the_transaction(p: &Pairing) {
    let store = p.open_with(&json!({"inlineMaxBytes": 1000}));
    let shop = Shop::of(&store);
    let text = "x".repeat(5_000);
    let order = json!({"orderId": "1", "text": text, "customer": {"customerId": "C", "text": text}, "product": {"productId": "P"}});
    let inserted = shop.insert(order).await;
    let order =
        json!({"orderId": "2", "text": text, "customer": {"customerId": "C", "text": format!("{text}y")}});
    shop.insert(order).await;
    assert_eq!(document(&shop.customers, &inserted.entities[0].id).await["text"], format!("{text}y"));
    for (collection, objects) in [(&shop.orders, 2), (&shop.customers, 2), (&shop.products, 1)] {
        assert_eq!(collection.flush(TIMEOUT).await.unwrap(), 0);
        assert_eq!(store.keys(collection).await.len(), objects);
        assert_eq!(store.stored(collection, "gc").await, [], "no note is left");
    }
}

async fn an_entity_that_was_deleted_is_created_anew(p: &Pairing) {
    let shop = Shop::of(&p.open());
    let order = json!({"orderId": "1", "customer": {"customerId": "C", "old": true}});
    let first = shop.insert(order).await;
    shop.customers.delete(&first.entities[0].id).await.unwrap();
    let second = shop.insert(json!({"orderId": "2", "customer": {"customerId": "C"}})).await;
    assert_eq!(operations(&second), ["created"]);
    assert_ne!(second.entities[0].id, first.entities[0].id);
    assert_eq!(document(&shop.customers, &second.entities[0].id).await, json!({"customerId": "C"}));
}

async fn a_locked_entity_is_waited_for(p: &Pairing) {
    let shop = Shop::of(&p.open());
    let first = shop.insert(json!({"orderId": "1", "customer": {"customerId": "C"}})).await;
    let customer = first.entities[0].id;
    let lock = shop.customers.lock(&customer).await.unwrap();
    let order = json!({"orderId": "2", "customer": {"customerId": "C", "late": true}});
    let waiting = tokio::spawn(shop.orders.insert_with_entities(order, mapping()).into_future());
    shop.customers.update(&customer, json!({"by": "holder"})).with_lock(&lock).await.unwrap();
    lock.release().await.unwrap();
    waiting.await.unwrap().unwrap();
    assert_eq!(
        document(&shop.customers, &customer).await,
        json!({"customerId": "C", "by": "holder", "late": true})
    );
}

async fn an_error_at_any_step_leaves_everything_or_nothing(p: &Pairing) {
    const POINTS: [&str; 9] = [
        "transaction.after_claims",
        "transaction.before_numbers",
        "transaction.before_rows",
        "transaction.before_answer",
        "embedded.before_commit",
        "embedded.after_commit",
        "mongo.in_transaction",
        "mongo.before_commit",
        "mongo.after_commit",
    ];
    let fail = FailPoints::armable();
    let env = Env { fail: fail.clone(), ..Env::default() };
    let shop = Shop::of(&p.opening().env(env).open());
    shop.insert(
        json!({"orderId": "0", "customer": {"customerId": "0"}, "product": {"productId": "P", "n": 0}}),
    )
    .await;
    let has_transactions = p.kind != Kind::StandaloneLocal;
    let mut n = 0;
    for point in POINTS {
        for passes in 0..3 {
            n += 1;
            fail.arm(point, FailAction::Error(ErrorKind::Database), passes, 1);
            let order = json!({"orderId": n.to_string(), "customer": {"customerId": n.to_string()}, "product": {"productId": "P", "n": n}});
            let inserted = shop.orders.insert_with_entities(order, mapping()).await;
            fail.disarm(point);
            let order = shop.all(&shop.orders, "orderId").await.contains_key(&n.to_string());
            let customer = shop.all(&shop.customers, "customerId").await.contains_key(&n.to_string());
            let product = shop.all(&shop.products, "productId").await["P"]["n"] == n;
            if has_transactions {
                assert!(
                    order == customer && order == product,
                    "{point} {passes}: {order} {customer} {product}"
                );
            }
            if inserted.is_ok() {
                assert!(order && customer && product, "{point} {passes}");
            }
        }
    }
    for collection in [&shop.orders, &shop.customers, &shop.products] {
        collection.stable_cv().await.unwrap();
    }
}

async fn tenants_that_share_a_database_share_no_entity(p: &Pairing) {
    let store = p.open_with(&json!({ "databases": p.one_database() }));
    let order = |tenant: &str| json!({"orderId": tenant, "customer": {"customerId": "C", "of": tenant}});
    let mut ids = Vec::new();
    for tenant in ["acme", "globex"] {
        let orders = store.with(Route::runtime().tenant(tenant).collection("orders"));
        let customers = store.with(Route::runtime().tenant(tenant).collection("customers"));
        let inserted = orders.insert_with_entities(order(tenant), mapping()).await.unwrap();
        assert_eq!(operations(&inserted), ["created"]);
        assert_eq!(document(&customers, &inserted.entities[0].id).await["of"], tenant);
        ids.push(inserted.entities[0].id);
    }
    assert_ne!(ids[0], ids[1]);
}

async fn where_versions_are_not_kept_entities_are_merged_all_the_same(p: &Pairing) {
    let shop = Shop::of(&p.open_with(&json!({"versioning": {"enabled": false}})));
    for order in three_orders() {
        shop.insert(order).await;
    }
    let customers = shop.all(&shop.customers, "customerId").await;
    assert_eq!(
        (customers["CUST-001"]["tier"].clone(), customers["CUST-001"]["name"].clone()),
        (json!("platinum"), json!("Ada"))
    );
    assert_eq!(shop.counts().await, [3, 1, 2]);
}

/// Counted at the seam, while the flusher is held back.
async fn two_entities_and_their_record_are_three_numbers_and_one_batch(p: &Pairing) {
    let calls = Counting::<documents::Call>::new();
    let clock = Arc::new(MockClock::default());
    let delay = Delaying::<objects::Call>::new(clock.clone());
    let shop = Shop::of(&p.opening().documents(&calls).objects(&delay).open());
    let order = |n: u32| json!({"orderId": n.to_string(), "customer": {"customerId": "C", "n": n}, "product": {"productId": "P", "n": n}});
    shop.insert(order(0)).await;
    for collection in [&shop.orders, &shop.customers, &shop.products] {
        assert_eq!(collection.flush(TIMEOUT).await.unwrap(), 0);
    }
    delay.delay(objects::Call::Put, Duration::from_secs(1));
    calls.take();
    assert_eq!(operations(&shop.insert(order(1)).await), ["updated", "updated"]);
    let count = |call| calls.count(call);
    assert_eq!((count(documents::Call::Sequence), count(documents::Call::SequenceThen)), (2, 1));
    assert_eq!(count(documents::Call::Apply), 0, "nothing is written beside the one batch");
    // Of each entity: who has its key, then its head and whether it is locked.
    assert_eq!((count(documents::Call::Scan), count(documents::Call::Get)), (2, 4));
    clock.sleepers(3).await;
    delay.delay(objects::Call::Put, Duration::ZERO);
    clock.advance(Duration::from_secs(1));
}

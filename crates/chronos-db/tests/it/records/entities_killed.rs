//! Processes that insert records with their entities, and die between two steps.

use std::process::Output;

use chronos_db::{Json, Route, json};

use super::child::{self, was_killed};
use super::entities::{Shop, mapping};
use super::pairing::{Kind, Pairing, on_pairings};

on_pairings!(embedded_local = EmbeddedLocal: a_process_that_dies_at_any_step_leaves_everything_or_nothing, of_two_processes_the_survivor_goes_on);
on_pairings!(replica_set_s3 = ReplicaSetS3: a_process_that_dies_at_any_step_leaves_everything_or_nothing, of_two_processes_the_survivor_goes_on);

const TASK: &str = "CHRONOS_TEST_ENTITIES";
/// Orders that a process inserts unless it dies before.
const ORDERS: usize = 12;

/// Between every two steps, and how many passes are let through.
const STEPS: [(&str, u64); 4] = [
    ("transaction.after_claims", 1),
    ("transaction.before_numbers", 2),
    ("transaction.before_rows", 2),
    ("transaction.before_answer", 1),
];
const EMBEDDED: [(&str, u64); 4] = [
    ("embedded.before_commit", 30),
    ("embedded.before_commit", 33),
    ("embedded.after_commit", 35),
    ("embedded.after_commit", 38),
];
/// One transaction writes the rows of three collections, then their heads.
const MONGO: [(&str, u64); 5] = [
    ("mongo.in_transaction", 6),
    ("mongo.in_transaction", 8),
    ("mongo.in_transaction", 10),
    ("mongo.before_commit", 2),
    ("mongo.after_commit", 2),
];

fn points(kind: Kind) -> Vec<(&'static str, u64)> {
    let own: &[_] = if kind.is_mongo() { &MONGO } else { &EMBEDDED };
    STEPS.iter().chain(own).copied().collect()
}

/// Every order names a customer of its own, and the one product with its own number.
fn order(run: &str, n: usize) -> Json {
    let name = format!("{run}/{n}");
    json!({"orderId": name, "customer": {"customerId": name}, "product": {"productId": "P", "last": name, run: n}})
}

async fn run(p: &Pairing, run: &str, points: &str) -> Output {
    let test = concat!(module_path!(), "::one_process");
    child::run(p, test, TASK, &json!({}), points, json!({ "run": run })).await
}

/// Each order is there with its customer and its number in the product, or none of them is. Those that were
/// acknowledged are.
async fn audit(shop: &Shop, outputs: &[&Output], what: &str) {
    let orders = shop.all(&shop.orders, "orderId").await;
    let customers = shop.all(&shop.customers, "customerId").await;
    let product = shop.all(&shop.products, "productId").await.remove("P").unwrap_or(json!({}));
    assert_eq!(orders.keys().collect::<Vec<_>>(), customers.keys().collect::<Vec<_>>(), "{what}");
    let mut last: std::collections::BTreeMap<&str, u64> = std::collections::BTreeMap::new();
    for name in orders.keys() {
        let (run, n) = name.split_once('/').unwrap();
        let n: u64 = n.parse().unwrap();
        last.entry(run).and_modify(|last| *last = n.max(*last)).or_insert(n);
    }
    for (run, n) in last {
        assert_eq!(product[run], n, "{what}: {product}");
    }
    for output in outputs {
        for reported in
            String::from_utf8_lossy(&output.stdout).lines().filter_map(|line| line.strip_prefix("wrote "))
        {
            assert!(orders.contains_key(reported), "{what}: {reported} was acknowledged");
        }
    }
}

async fn a_process_that_dies_at_any_step_leaves_everything_or_nothing(p: &Pairing) {
    for (at, (point, passes)) in points(p.kind).into_iter().enumerate() {
        let what = format!("{:?} {point} {passes}", p.kind);
        let dead = run(p, &format!("run{at}"), &format!("{point}=abort:{passes}")).await;
        assert!(was_killed(&dead), "{what} was never reached: {dead:?}");
        let store = p.open();
        let shop = Shop::of(&store);
        audit(&shop, &[&dead], &what).await;
        // The next one writes what the dead one held, numbers and entity alike.
        let next = order(&format!("after{at}"), 0);
        shop.orders
            .insert_with_entities(next, mapping())
            .await
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        audit(&shop, &[&dead], &what).await;
        for collection in [&shop.orders, &shop.customers, &shop.products] {
            let last = collection.stable_cv().await.unwrap();
            assert!(last >= 0, "{what}");
        }
    }
}

async fn of_two_processes_the_survivor_goes_on(p: &Pairing) {
    let point =
        if p.kind.is_mongo() { "mongo.in_transaction=abort:20" } else { "embedded.before_commit=abort:50" };
    let (dead, alive) = futures::future::join(run(p, "dead", point), run(p, "alive", "")).await;
    assert!(was_killed(&dead), "{dead:?}");
    assert!(alive.status.success(), "{alive:?}");
    let shop = Shop::of(&p.open());
    audit(&shop, &[&dead, &alive], "two").await;
    assert!(shop.all(&shop.orders, "orderId").await.contains_key(&format!("alive/{}", ORDERS - 1)));
}

/// Does nothing in an ordinary run: it is what the tests above start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process() {
    let Some((task, chronos)) = child::task(TASK) else { return };
    let orders = chronos.with(Route::runtime().tenant("acme").collection("orders")).unwrap();
    let run = task["run"].as_str().unwrap();
    for n in 0..ORDERS {
        orders.insert_with_entities(order(run, n), mapping()).await.unwrap();
        println!("wrote {run}/{n}");
    }
    chronos.shutdown().await.unwrap();
}

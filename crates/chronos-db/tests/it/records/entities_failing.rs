//! Records with entities whose writing fails in the middle.

use bson::{Document, doc};
use chronos_db::fail::{FailAction, FailPoints};
use chronos_db::{Env, ErrorKind, Op, json};
use test_support::{Failing, Fault, documents};

use super::entities::{Shop, mapping};
use super::pairing::{Kind, Pairing, document, on_every_pairing};

mod alone {
    super::on_every_pairing!(
        what_may_have_taken_place_is_undecided_and_nothing_before_it_is_undone,
        what_was_created_before_a_failure_stays_for_those_who_use_it,
        a_number_behind_its_item_fails_no_transaction_and_leaves_no_hole,
    );
    use super::*;
}

/// The answer to the last entity's version, or to the transaction, is lost, and the store takes nothing more.
async fn what_may_have_taken_place_is_undecided_and_nothing_before_it_is_undone(p: &Pairing) {
    for transactions in [false, true] {
        let database = Failing::<documents::Call>::new();
        let only = json!({"transactions": {"enabled": transactions}});
        let shop = Shop::of(&p.opening().with(&only).documents(&database).open());
        let order = |n: i64| json!({"orderId": format!("{transactions}-{n}"), "customer": {"customerId": "C", "n": n}, "product": {"productId": "P", "n": n}});
        let first = shop.orders.insert_with_entities(order(1), mapping()).ack_stored().await.unwrap();
        let one_by_one = !transactions || p.kind == Kind::StandaloneLocal;
        database.fail_nth(documents::Call::SequenceThen, if one_by_one { 2 } else { 1 }, Fault::After);
        database.switch_on(documents::Call::Apply, Fault::Before);
        let error = shop.orders.insert_with_entities(order(2), mapping()).await.unwrap_err();
        database.switch_off();
        assert!(error.is_undecided(), "{error}");
        for (collection, entity) in
            [(&shop.customers, &first.entities[0]), (&shop.products, &first.entities[1])]
        {
            assert_eq!(document(collection, &entity.id).await["n"], 2, "it landed, and stays");
            let history = collection.history(&entity.id).await.unwrap();
            assert!(history.iter().all(|version| version.op != Op::Restore), "{error}");
        }
        // The same call again gets the record, and the entities as they are.
        shop.orders.insert_with_entities(order(2), mapping()).await.unwrap();
    }
}

/// Also where deletes erase: another record of the same customer is there before the first one fails.
async fn what_was_created_before_a_failure_stays_for_those_who_use_it(p: &Pairing) {
    let fail = FailPoints::armable();
    let env = Env { fail: fail.clone(), ..Env::default() };
    let more = json!({"transactions": {"enabled": false}, "logicalDelete": {"enabled": false}});
    let shop = Shop::of(&p.opening().with(&more).env(env).open());
    let others = Shop::of(&p.open_with(&more));
    // In an embedded store of memory, the other side is this one.
    let others = if p.kind == Kind::EmbeddedMemory { &shop } else { &others };
    let order = |n: u32| json!({"orderId": n.to_string(), "customer": {"customerId": "C"}, "product": {"productId": "P"}});
    fail.arm("one_by_one.before_write", FailAction::Error(ErrorKind::Database), 2, 1);
    let error = shop.orders.insert_with_entities(order(1), mapping()).await.unwrap_err();
    assert!(!error.is_undecided() && error.message().contains("`customer`, item"), "{error}");
    assert_eq!(shop.counts().await, [0, 1, 1]);
    let other = others.orders.insert_with_entities(order(2), mapping()).await.unwrap();
    assert!(other.entities.iter().all(|entity| entity.operation.name() == "unchanged"));
    fail.arm("one_by_one.before_write", FailAction::Error(ErrorKind::Database), 2, 1);
    let error = shop.orders.insert_with_entities(order(1), mapping()).await.unwrap_err();
    assert!(!error.message().contains("stays"), "nothing was written before it: {error}");
    let found = others.orders.get_with_entities(&other.record.id, mapping()).await.unwrap();
    assert!(found.entities.iter().all(|(_, entity)| entity.is_some()), "{found:?}");
}

/// As a failover leaves it: the counter of an entity's collection is behind the entity. The answer that nothing
/// was sent is lost, too.
async fn a_number_behind_its_item_fails_no_transaction_and_leaves_no_hole(p: &Pairing) {
    if p.kind == Kind::StandaloneLocal {
        return;
    }
    let fail = FailPoints::armable();
    let env = Env { fail: fail.clone(), ..Env::default() };
    let store = p.opening().env(env).open();
    let shop = Shop::of(&store);
    let order = |n: u32| json!({"orderId": n.to_string(), "customer": {"customerId": "C", "n": n}});
    for n in 0..3 {
        shop.orders.insert_with_entities(order(n), mapping()).await.unwrap();
    }
    store.put(&shop.customers, "counter", doc! { "_id": "cv", "value": 0_i64 }).await;
    fail.arm("transaction.before_answer", FailAction::Error(ErrorKind::Database), 0, 1);
    let inserted = shop.orders.insert_with_entities(order(3), mapping()).await.unwrap();
    let customer = document(&shop.customers, &inserted.entities[0].id).await;
    assert_eq!(customer, json!({"customerId": "C", "n": 3}));
    let rows = store.stored(&shop.orders, "ver").await;
    let number = |row: &Document| row.get_i64("cv").or_else(|_| row.get_i32("cv").map(i64::from)).unwrap();
    let mut numbers: Vec<i64> = rows.iter().map(number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..=inserted.record.cv).collect::<Vec<_>>(), "every number has its row at once");
    assert!(inserted.record.cv > 3, "the numbers of the first attempt are closed");
}

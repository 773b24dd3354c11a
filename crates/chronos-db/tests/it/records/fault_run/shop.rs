//! Orders that are inserted with their customers and products.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chronos_db::{Collection, json};
use futures::TryStreamExt as _;
use test_support::SeededRandom;
use tokio_util::sync::CancellationToken;

use super::ledger::Ledger;
use super::may_pass;
use super::weather::below;
use crate::records::entities::{Shop, mapping};
use crate::records::pairing::Store;

/// Sells all day; customers and products come again.
pub(super) async fn sell(store: Store, ledger: Arc<Ledger>, random: SeededRandom, over: CancellationToken) {
    let shop = Shop::of(&store);
    for n in 0.. {
        if over.is_cancelled() {
            return;
        }
        let number = format!("order-{n}");
        let customer = json!({"customerId": format!("c{}", below(&random, 9)), "name": "Ada", "last": n});
        let product = json!({"productId": format!("p{}", below(&random, 5)), "price": 5});
        let order = json!({"orderId": &number, "customer": customer, "product": product});
        match shop.orders.insert_with_entities(order, mapping()).await {
            Ok(inserted) => {
                assert!(inserted.skipped.is_empty(), "{inserted:?}");
                ledger.ordered(number, Some(inserted.record.id));
            }
            Err(error) => {
                assert!(may_pass(&error), "{number}: {error} ({error:?})");
                ledger.failed("order", &error);
                ledger.ordered(number, None);
            }
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

async fn by(collection: &Collection, key: &str) -> BTreeMap<String, Vec<String>> {
    let listed: Vec<_> = collection.list().stream().await.unwrap().try_collect().await.unwrap();
    let mut found = BTreeMap::<_, Vec<String>>::new();
    for view in listed {
        let value = view.item[key].as_str().unwrap().to_owned();
        found.entry(value).or_default().push(view.id.to_string());
    }
    found
}

/// Every order that was acknowledged is there once, with a customer and a product, of whom there is one each.
pub(super) async fn audit(store: &Store, ledger: &Ledger) {
    let shop = Shop::of(store);
    let orders = by(&shop.orders, "orderId").await;
    for order in ledger.orders() {
        let found = orders.get(&order.number).cloned().unwrap_or_default();
        match order.id {
            Some(id) => assert_eq!(found, [id.to_string()], "{order:?}"),
            None => assert!(found.len() <= 1, "{order:?}: {found:?}"),
        }
        if let Some(id) = order.id {
            let whole = shop.orders.get_with_entities(&id, mapping()).await.unwrap();
            assert!(whole.entities.iter().all(|(_, entity)| entity.is_some()), "{}", whole.to_json());
        }
    }
    for (collection, key) in [(&shop.customers, "customerId"), (&shop.products, "productId")] {
        for (value, ids) in by(collection, key).await {
            assert_eq!(ids.len(), 1, "{key} {value}: {ids:?}");
        }
    }
}

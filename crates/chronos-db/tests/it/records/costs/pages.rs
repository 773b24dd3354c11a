//! What pages of lists cost.

use chronos_db::documents::Direction::{Ascending, Descending};
use chronos_db::{List, json};

use super::world::World;
use super::{Costs, Pairing, assert_same};

super::on_every_pairing!(
    a_page_costs_a_page_in_every_order,
    a_page_of_a_filter_with_an_index_costs_a_page,
    a_later_page_within_a_range_costs_a_page,
);

const PAGE: u32 = 20;

/// A later page of a list begins behind the item in its middle. A token holds no filter, so that of a narrower list goes on in a wider one.
async fn middle(w: &World, list: &List, descending: bool) -> String {
    let n = w.items / 2;
    let rest = if descending { json!({ "n": { "$lte": n } }) } else { json!({ "n": { "$gte": n } }) };
    list.clone().filter(rest).limit(1).await.unwrap().next.unwrap()
}

/// What first and later pages of a list cost, in every order.
async fn pages(w: &World, what: &str, list: impl Fn() -> List, sorts: &[&str]) -> Costs {
    let mut costs = Costs::new();
    for sort in sorts {
        for direction in [Ascending, Descending] {
            let list = || if sort.is_empty() { list() } else { list().sort(*sort, direction) };
            let cost = w.cost(async |_| assert_eq!(list().limit(PAGE).await.unwrap().items.len(), PAGE as usize)).await;
            costs.insert(format!("{what} by `{sort}`, {direction:?}, the first"), cost);
            let token = middle(w, &list(), direction == Descending && !sort.is_empty()).await;
            let later = async |_| assert_eq!(list().limit(PAGE).after(token.as_str()).await.unwrap().items.len(), PAGE as usize);
            costs.insert(format!("{what} by `{sort}`, {direction:?}, a later one"), w.cost(later).await);
        }
    }
    costs
}

async fn a_page_costs_a_page_in_every_order(p: &Pairing) {
    let (few, many) = World::both(p).await;
    let orders = ["", "_id", "updatedAt", "createdAt", "cv", "ov", "n", "name"];
    let now = async |w: &World| pages(w, "now", || w.collection.list(), &orders).await;
    assert_same(&now(&few).await, &now(&many).await);
}

async fn a_page_of_a_filter_with_an_index_costs_a_page(p: &Pairing) {
    let (few, many) = World::both(p).await;
    let filtered = async |w: &World| {
        let mut costs = Costs::new();
        for (what, filter, found) in [
            ("one value", json!({ "name": format!("item {:09}", w.items / 2) }), 1),
            ("some values", json!({ "n": { "$in": [1, w.items / 3, w.items / 2] } }), 3),
            ("a range", json!({ "n": { "$gte": w.items / 2, "$lt": w.items / 2 + 10 } }), 10),
        ] {
            let cost = w.cost(async |_| assert_eq!(w.collection.list().filter(filter.clone()).await.unwrap().items.len(), found)).await;
            costs.insert(what.to_owned(), cost);
        }
        costs
    };
    assert_same(&filtered(&few).await, &filtered(&many).await);
}

/// The filter's own bound is another way into the index, and the longer one.
async fn a_later_page_within_a_range_costs_a_page(p: &Pairing) {
    let (few, many) = World::both(p).await;
    let ranges = async |w: &World| {
        let mut costs = Costs::new();
        for sort in ["n", "name"] {
            let list = || w.collection.list().filter(json!({ "n": { "$gte": 1, "$lt": w.items - 1 }, "name": { "$gt": "a", "$lt": "z" } }));
            costs.extend(pages(w, "a range", list, &[sort]).await);
        }
        costs
    };
    assert_same(&ranges(&few).await, &ranges(&many).await);
}

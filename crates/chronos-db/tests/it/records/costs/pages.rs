//! What pages of lists cost.

use chronos_db::documents::Direction::{Ascending, Descending};
use chronos_db::{List, json};
use futures::TryStreamExt as _;

use super::world::World;
use super::{Costs, Pairing, assert_same};
use crate::records::pairing::minute;

super::on_every_pairing!(
    a_page_costs_a_page_in_every_order,
    a_page_of_the_past_costs_a_page_and_what_was_written_since,
    a_page_of_the_past_by_id_costs_a_page_however_much_was_written_since,
    a_small_tenants_lists_cost_the_same_beside_a_large_one,
    a_page_of_a_filter_with_an_index_costs_a_page,
    a_later_page_within_a_range_costs_a_page,
);

const PAGE: u32 = 20;

/// A later page of a list begins behind the item in its middle. A token holds no filter, so that of a
/// narrower list goes on in a wider one.
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
            let cost = w
                .cost(async |_| assert_eq!(list().limit(PAGE).await.unwrap().items.len(), PAGE as usize))
                .await;
            costs.insert(format!("{what} by `{sort}`, {direction:?}, the first"), cost);
            let token = middle(w, &list(), direction == Descending && !sort.is_empty()).await;
            let later = async |_| {
                assert_eq!(list().limit(PAGE).after(token.as_str()).await.unwrap().items.len(), PAGE as usize)
            };
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
            let cost = w
                .cost(async |_| {
                    assert_eq!(w.collection.list().filter(filter.clone()).await.unwrap().items.len(), found)
                })
                .await;
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
            let list = || {
                w.collection.list().filter(
                    json!({ "n": { "$gte": 1, "$lt": w.items - 1 }, "name": { "$gt": "a", "$lt": "z" } }),
                )
            };
            costs.extend(pages(w, "a range", list, &[sort]).await);
        }
        costs
    };
    assert_same(&ranges(&few).await, &ranges(&many).await);
}

/// Ten items have changed since, in either world.
async fn a_page_of_the_past_costs_a_page_and_what_was_written_since(p: &Pairing) {
    let (few, many) = World::both(p).await;
    let orders = ["", "_id", "updatedAt", "cv", "ov", "n", "name"];
    let past = async |w: &World| {
        w.change(10, w.items / 10).await;
        let cv = pages(w, "as of a number", || w.collection.list().as_of_cv(w.last_cv()), &orders).await;
        let at = pages(w, "as of a time", || w.collection.list().as_of(minute(w.last_cv())), &orders).await;
        let one = |name: String| w.collection.list().as_of_cv(w.last_cv()).filter(json!({ "name": name }));
        let name = || format!("item {:09}", w.items / 2);
        let filtered = w.cost(async |_| assert_eq!(one(name()).await.unwrap().items.len(), 1)).await;
        let changed = |sort| {
            w.collection
                .list()
                .as_of_cv(w.last_cv())
                .filter(json!({ "n": { "$lt": 5 } }))
                .sort(sort, Ascending)
        };
        let range = w.cost(async |_| assert_eq!(changed("n").await.unwrap().items.len(), 5)).await;
        cv.into_iter()
            .chain(at)
            .chain([("one value".to_owned(), filtered), ("a range".to_owned(), range)])
            .collect::<Costs>()
    };
    assert_same(&past(&few).await, &past(&many).await);
}

/// Every second item was created after the point, and every one before it has changed.
async fn a_page_of_the_past_by_id_costs_a_page_however_much_was_written_since(p: &Pairing) {
    let (few, many) = World::both(p).await;
    let past = async |w: &World| {
        w.change(w.items / 2, 1).await;
        let mut costs = Costs::new();
        for (what, later) in [("the first", false), ("a later one", true)] {
            let point = w.items / 2;
            for (by, list) in [
                ("number", w.collection.list().as_of_cv(point)),
                ("time", w.collection.list().as_of(minute(point))),
            ] {
                let list = list.limit(PAGE);
                let list = match later {
                    true => list.clone().after(list.limit(10).await.unwrap().next.unwrap()),
                    false => list,
                };
                let page = async |_| {
                    let items = list.clone().await.unwrap().items;
                    assert!(items.len() == PAGE as usize && items.iter().all(|item| item.ov == 0));
                };
                costs.insert(format!("{what} as of a {by}"), w.cost(page).await);
            }
        }
        costs
    };
    assert_same(&past(&few).await, &past(&many).await);
}

/// In a database that both share.
async fn a_small_tenants_lists_cost_the_same_beside_a_large_one(p: &Pairing) {
    let few = World::shared(p, "few", 60).await;
    let many = World::shared(p, "many", 6_000).await;
    let lists = async |w: &World| {
        let c = &w.collection;
        let last = c.stable_cv().await.unwrap();
        let lists = || {
            [
                ("now", c.list()),
                ("as of a number", c.list().as_of_cv(last)),
                ("as of a time", c.list().as_of(minute(w.last_cv()))),
            ]
        };
        let mut costs = Costs::new();
        for sort in ["", "updatedAt", "cv", "n"] {
            for (what, list) in lists() {
                let list = if sort.is_empty() { list } else { list.sort(sort, Descending) };
                let page = async |_| assert_eq!(list.clone().await.unwrap().items.len(), 3);
                costs.insert(format!("{what} by `{sort}`"), w.cost(page).await);
                let whole = async |_| {
                    assert_eq!(
                        list.clone().stream().await.unwrap().try_collect::<Vec<_>>().await.unwrap().len(),
                        3
                    )
                };
                costs.insert(format!("all {what} by `{sort}`"), w.cost(whole).await);
            }
        }
        costs
    };
    assert_same(&lists(&few).await, &lists(&many).await);
}

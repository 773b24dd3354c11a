//! What operations cost among few records and among a hundred times as many: calls, rows, bytes, and what the
//! engines examine. Never a clock.

mod pages;
mod world;

use std::collections::BTreeMap;

use chronos_db::{ImportOp, json};
use futures::TryStreamExt as _;

use self::world::{Cost, World, about};
use super::pairing::{Pairing, TIMEOUT, minute, on_durable_pairings, on_every_pairing};

mod alone {
    super::on_every_pairing!(
        a_read_costs_the_same_among_many,
        a_read_of_the_past_costs_the_same_however_many_versions_an_item_has,
        a_write_costs_the_same_among_many,
        an_import_costs_each_line_the_same_among_many,
        storing_payloads_costs_the_same_among_many,
        a_verification_costs_each_item_the_same_among_many,
    );
    use super::*;
}

mod durable {
    super::on_durable_pairings!(a_process_starts_the_same_among_many);
    use super::*;
}

/// Costs by what was done.
type Costs = BTreeMap<String, Cost>;

/// That everything costs the same in the large world as in the small one.
fn assert_same(few: &Costs, many: &Costs) {
    assert_eq!(few.keys().collect::<Vec<_>>(), many.keys().collect::<Vec<_>>());
    let grown: Vec<String> = few
        .iter()
        .filter(|(what, few)| !many[*what].is_about(few))
        .map(|(what, few)| format!("{what}:\n  {few:?} among few\n  {:?} among many", many[what]))
        .collect();
    assert!(grown.is_empty(), "these cost more among many:\n{}", grown.join("\n"));
}

async fn a_read_costs_the_same_among_many(p: &Pairing) {
    let (few, many) = World::both(p).await;
    let reads = async |w: &World| {
        let (c, id) = (&w.collection, w.item(w.items / 2));
        let (cv, at) = (w.items / 2 + 3, minute(w.items / 2 + 3));
        Costs::from([
            ("get".to_owned(), w.cost(async |_| assert!(c.get(&id).await.unwrap().is_some())).await),
            (
                "get nothing".to_owned(),
                w.cost(async |n| assert!(c.get(&w.item(i64::from(-1 - n))).await.unwrap().is_none())).await,
            ),
            (
                "get a version".to_owned(),
                w.cost(async |_| assert!(c.get(&id).version(0).await.unwrap().is_some())).await,
            ),
            (
                "get as of a number".to_owned(),
                w.cost(async |_| assert!(c.get(&id).as_of_cv(cv).await.unwrap().is_some())).await,
            ),
            (
                "get as of a time".to_owned(),
                w.cost(async |_| assert!(c.get(&id).as_of(at).await.unwrap().is_some())).await,
            ),
            (
                "history".to_owned(),
                w.cost(async |_| assert_eq!(c.history(&id).await.unwrap().len(), 1)).await,
            ),
            (
                "stable number".to_owned(),
                w.cost(async |_| assert_eq!(c.stable_cv().await.unwrap(), w.last_cv())).await,
            ),
        ])
    };
    assert_same(&reads(&few).await, &reads(&many).await);
}

async fn a_read_of_the_past_costs_the_same_however_many_versions_an_item_has(p: &Pairing) {
    let (few, many) = World::both(p).await;
    let reads = async |w: &World| {
        let mut costs = Costs::new();
        for part in [1, 5, 9] {
            let (ov, id) = (w.versions * part / 10, w.deep());
            let (cv, at) = (w.items + ov, minute(w.items + ov));
            let found = async |view: chronos_db::Result<Option<chronos_db::View>>| {
                assert_eq!(view.unwrap().unwrap().ov, ov)
            };
            let c = &w.collection;
            costs.extend([
                (
                    format!("version {part}/10"),
                    w.cost(async |_| found(c.get(&id).version(ov).await).await).await,
                ),
                (
                    format!("as of time {part}/10"),
                    w.cost(async |_| found(c.get(&id).as_of(at).await).await).await,
                ),
                (
                    format!("as of number {part}/10"),
                    w.cost(async |_| found(c.get(&id).as_of_cv(cv).await).await).await,
                ),
            ]);
        }
        for (what, newest) in [("newest", true), ("oldest", false)] {
            let page = async |_| {
                let history = w.collection.history(&w.deep());
                let mut versions =
                    if newest { history.newest_first() } else { history }.stream().await.unwrap();
                for n in 0..20 {
                    let expected = if newest { w.versions - 1 - n } else { n };
                    assert_eq!(versions.try_next().await.unwrap().unwrap().ov, expected);
                }
            };
            costs.insert(format!("the {what} of a history"), w.cost(page).await);
        }
        costs
    };
    assert_same(&reads(&few).await, &reads(&many).await);
}

async fn a_write_costs_the_same_among_many(p: &Pairing) {
    let (few, many) = World::both(p).await;
    let writes = async |w: &World| {
        let c = &w.collection;
        let id = |n: i32| w.item(w.items / 2 + i64::from(n));
        let new = |n: i32| json!({ "n": -1 - n, "name": format!("new {n}"), "email": format!("new{n}@x") });
        let mut costs = Costs::from([
            ("create".to_owned(), w.write(async |n| assert!(c.create(new(n)).await.unwrap().changed)).await),
            (
                "update".to_owned(),
                w.write(async |n| assert!(c.update(&id(n), json!({ "n": -10 - n })).await.unwrap().changed))
                    .await,
            ),
            (
                "enrich".to_owned(),
                w.write(async |n| assert!(c.enrich(&id(n), json!({ "tags": [n] })).await.unwrap().changed))
                    .await,
            ),
            ("delete".to_owned(), w.write(async |n| assert!(c.delete(&id(n)).await.unwrap().changed)).await),
            (
                "restore".to_owned(),
                w.write(async |n| assert!(c.restore(&id(n)).to_version(0).await.unwrap().changed)).await,
            ),
            (
                "lock".to_owned(),
                w.write(async |n| c.lock(&id(n)).await.unwrap().release().await.unwrap()).await,
            ),
        ]);
        // The first one of a key makes its index.
        for (what, email) in
            [("smart insert of what is new", None), ("smart insert of what is there", Some("new0@x"))]
        {
            let insert = async |n: i32| {
                let email = email.map_or_else(|| format!("smart{n}@x"), str::to_owned);
                let written =
                    c.smart_insert(json!({ "email": email, "n": 1, "more": n }), &["email"]).await.unwrap();
                assert_eq!(written.created, what.ends_with("new"), "{what}");
            };
            costs.insert(what.to_owned(), w.write(insert).await);
        }
        costs
    };
    assert_same(&writes(&few).await, &writes(&many).await);
}

async fn an_import_costs_each_line_the_same_among_many(p: &Pairing) {
    const LINES: i64 = 30;
    let (few, many) = World::both(p).await;
    let import = async |w: &World| {
        let import = async |turn: i32| {
            let operations = (0..LINES).map(|line| {
                let n = 1_000_000 + i64::from(turn) * LINES + line;
                // Lines of what is new, and of what was imported by the turn before.
                let (op, key) =
                    if line % 2 == 0 || turn == 0 { ("create", n) } else { ("update", n - LINES - 1) };
                let data = json!({ "n": key, "name": format!("imported {n}"), "email": format!("{n}@x") });
                ImportOp::parse(&json!({ "op": op, "key": key, "at": minute(n).to_string(), "data": data }))
                    .unwrap()
            });
            let done =
                w.collection.import("n").await.unwrap().apply(operations.collect(), true).await.unwrap();
            assert!(done.iter().all(Result::is_ok), "{done:?}");
        };
        Costs::from([("thirty lines".to_owned(), w.write(import).await)])
    };
    assert_same(&import(&few).await, &import(&many).await);
}

async fn storing_payloads_costs_the_same_among_many(p: &Pairing) {
    let (few, many) = World::both(p).await;
    let rounds = async |w: &World| {
        let creates = async |turn: i32| {
            let new = (0..20)
                .map(|n| w.collection.create(json!({ "n": -100 * turn - n, "name": "x" })).into_future());
            futures::future::try_join_all(new).await.unwrap();
        };
        Costs::from([
            ("twenty payloads".to_owned(), w.write(creates).await),
            (
                "nothing".to_owned(),
                w.cost(async |_| assert_eq!(w.collection.flush(TIMEOUT).await.unwrap(), 0)).await,
            ),
        ])
    };
    assert_same(&rounds(&few).await, &rounds(&many).await);
}

/// Every payload is read, so it is in proportion at best.
async fn a_verification_costs_each_item_the_same_among_many(p: &Pairing) {
    let few = World::new(p, "few", 20, 20).await;
    let many = World::new(p, "many", 2_000, 20).await;
    let verify =
        async |w: &World| w.cost(async |_| assert!(w.collection.verify().await.unwrap().items >= 20)).await;
    let (few, many) = (verify(&few).await, verify(&many).await);
    assert!(many.is_about(&few.times(100)), "{few:?} of few, {many:?} of many");
}

async fn a_process_starts_the_same_among_many(p: &Pairing) {
    let (few, many) = World::both(p).await;
    let start = async |w: &World| {
        let first_calls = async |turn: i32| {
            let again = w.again(p);
            let c = again.collection(w.collection.name());
            assert!(c.get(&w.item(3)).await.unwrap().is_some());
            assert_eq!(c.list().limit(5).await.unwrap().items.len(), 5);
            c.update(&w.item(7 + i64::from(turn)), json!({ "n": -1 })).await.unwrap();
            assert_eq!(c.flush(TIMEOUT).await.unwrap(), 0);
            again.is_damaged();
        };
        Costs::from([("the first calls of a process".to_owned(), w.cost(first_calls).await)])
    };
    assert_same(&start(&few).await, &start(&many).await);
}

#[test]
fn a_cost_that_grows_is_noticed() {
    let one = Cost { examined: 100, calls: 3, ..Cost::default() };
    assert!(one.is_about(&one) && Cost { examined: 120, ..one }.is_about(&one));
    assert!(!Cost { examined: 10_000, ..one }.is_about(&one) && !Cost { calls: 30, ..one }.is_about(&one));
    assert_eq!(about(10, 0), 15);
}

//! Several runners, and runners that die.

use bson::doc;
use chronos_db::fail::{FailAction, FailPoints};
use chronos_db::{Env, ErrorKind, Json, Route, json};

use super::super::child;
use super::super::pairing::{Pairing, Store, on_durable_pairings, on_every_pairing};
use super::{acme, at, create, import, results, rules, run, stored};

mod alone {
    super::on_every_pairing!(a_run_that_fails_at_any_step_is_made_good_by_the_next);
    use super::*;
}

mod apart {
    super::on_durable_pairings!(
        runners_that_are_killed_at_any_step_leave_each_result_once,
        two_runners_at_once_make_each_result_once,
        tenants_of_one_database_have_results_of_their_own,
        a_run_that_began_before_another_puts_nothing_back,
    );
    use super::*;
}

const POINTS: [&str; 4] = [
    "analytics.before_results",
    "analytics.after_results",
    "analytics.after_state",
    "analytics.between_removals",
];
const NAMES: [&str; 3] = ["all", "days", "by"];
const NOW: &str = "2024-03-15T12:00:00Z";
/// The task of a child.
const TASK: &str = "CHRONOS_ANALYTICS_TASK";

fn configured() -> Json {
    rules(json!([
        { "name": "all", "collection": "sales", "operation": "sum", "field": "n" },
        { "name": "days", "collection": "sales", "operation": "sum", "field": "n", "timeframe": "daily" },
        { "name": "by", "collection": "sales", "operation": "median", "field": "n", "arguments": ["who"] },
    ]))
}

/// One more item a round; in each the last one's is gone.
async fn change(store: &Store, round: usize) {
    let sales = store.collection("sales");
    let day = format!("2024-03-{:02}", 1 + round);
    let mut log = vec![create(&format!("k{round}"), &day, json!({ "n": round, "who": format!("w{round}") }))];
    if round > 0 {
        log.push(json!({ "op": "delete", "key": format!("k{}", round - 1), "at": day }));
    }
    import(&sales, &log).await;
}

/// Everything is as the only item of a round says.
async fn check(store: &Store, round: usize, what: &str) {
    for rule in NAMES {
        let found = results(store, rule).await;
        let values: Vec<Json> = found.iter().map(|result| result.value.clone()).collect();
        assert_eq!(values, [json!(round)], "{what}: {rule}");
    }
    assert_eq!(stored(store, &store.collection("sales"), "timeBasedResults").await.len(), 3, "{what}");
}

async fn a_run_that_fails_at_any_step_is_made_good_by_the_next(p: &Pairing) {
    let fail = FailPoints::armable();
    let store = p.opening().with(&configured()).env(Env { fail: fail.clone(), ..Env::default() }).open();
    for (round, point) in POINTS.iter().enumerate() {
        change(&store, round).await;
        if round == 0 {
            run(&store, &NAMES, NOW).await;
        }
        fail.arm(point, FailAction::Error(ErrorKind::Database), 0, 3);
        let ran = store.chronos.analytics().run().now(at(NOW)).await.unwrap();
        let failed = ran.rules.iter().any(|run| run.error.is_some());
        assert!(failed || *point == "analytics.between_removals", "{point}");
        fail.disarm(point);
        run(&store, &NAMES, NOW).await;
        check(&store, round, point).await;
    }
}

async fn killed_at(p: &Pairing, point: &str) -> bool {
    let test = concat!(module_path!(), "::runner");
    child::dies_at(p, test, TASK, &configured(), &format!("{point}=abort:0"), json!({})).await
}

/// Runs all rules when this binary starts itself again with a task.
#[tokio::test]
async fn runner() {
    let Some((_, chronos)) = child::task(TASK) else { return };
    chronos.analytics().run().now(at(NOW)).await.unwrap();
}

async fn runners_that_are_killed_at_any_step_leave_each_result_once(p: &Pairing) {
    let store = p.open_with(&configured());
    for (round, point) in POINTS.iter().enumerate() {
        change(&store, round).await;
        assert!(killed_at(p, point).await, "{point} was never reached");
        run(&store, &NAMES, NOW).await;
        check(&store, round, point).await;
    }
}

async fn two_runners_at_once_make_each_result_once(p: &Pairing) {
    let stores = [p.open_with(&configured()), p.open_with(&configured())];
    for round in 0..4 {
        change(&stores[round % 2], round).await;
        let runs = stores.each_ref().map(|store| run(store, &NAMES, NOW));
        futures::future::join_all(runs).await;
        for store in &stores {
            check(store, round, &format!("round {round}")).await;
        }
    }
}

async fn tenants_of_one_database_have_results_of_their_own(p: &Pairing) {
    let mut more = configured();
    more["databases"] = p.one_database();
    let store = p.open_with(&more);
    for (tenant, n) in [("acme", 3), ("globex", 5)] {
        let sales = store.with(Route::runtime().tenant(tenant).collection("sales"));
        import(&sales, &[create("k", "2024-03-01", json!({ "n": n, "who": "w" }))]).await;
    }
    let analytics = store.chronos.analytics();
    let ran = analytics.run().now(at(NOW)).only(Route::runtime().tenant("globex")).await.unwrap();
    assert_eq!(ran.rules.len(), 3, "{ran:?}");
    assert!(results(&store, "all").await.is_empty(), "it ran for the other tenant");
    run(&store, &NAMES, NOW).await;
    for rule in NAMES {
        let of = async |route: Route| analytics.results(rule, route).await.unwrap().items;
        let (one, other) = (of(acme()).await, of(Route::runtime().tenant("globex")).await);
        assert_eq!((one.len(), &one[0].value), (1, &json!(3)), "{rule}");
        assert_eq!((other.len(), &other[0].value), (1, &json!(5)), "{rule}");
    }
}

/// An erasure while a run is at its end.
async fn a_run_that_began_before_another_puts_nothing_back(p: &Pairing) {
    let holding = test_support::Holding::<test_support::documents::Call>::new();
    let slow = p.opening().with(&configured()).documents(&holding).open();
    let store = p.open_with(&configured());
    change(&store, 0).await;
    // The first write of the run is its results.
    holding.hold(test_support::documents::Call::Apply, 0);
    let chronos = slow.chronos.clone();
    let running = tokio::spawn(async move {
        chronos.analytics().run().rules(["by"]).now(at(NOW)).await.unwrap();
    });
    holding.reached(test_support::documents::Call::Apply).await;
    let sales = store.collection("sales");
    let id = sales.list().await.unwrap().items[0].id;
    sales.delete(&id).await.unwrap();
    sales.forget_results(&[doc! { "who": "w0" }]).await.unwrap();
    holding.release(test_support::documents::Call::Apply);
    running.await.unwrap();
    assert!(results(&store, "by").await.is_empty(), "what was erased is back");
}

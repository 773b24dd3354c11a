//! What an erasure does to results.

use bson::doc;
use chronos_db::fail::{FailAction, FailPoints};
use chronos_db::{Env, ErrorKind, Json, Route, json};

use super::super::child;
use super::super::pairing::{Pairing, Store, on_durable_pairings, on_every_pairing};
use super::{LIMIT, acme, create, import, results, rules, run, stored};

mod alone {
    super::on_every_pairing!(
        an_erased_items_groups_are_computed_once_in_all_their_timeframes,
        an_erasure_that_fails_at_any_step_loses_no_result_of_others,
        an_item_is_counted_in_the_group_of_each_element_of_an_array,
        rules_across_tenants_are_due_after_an_erasure,
        values_that_had_no_room_in_the_index_go_with_the_item,
        where_no_rule_ever_ran_an_erasure_asks_for_results_once,
    );
    use super::*;
}

mod apart {
    super::on_durable_pairings!(
        a_run_from_before_an_erasure_puts_nothing_back_in_any_timeframe,
        runners_that_are_killed_after_an_erasure_leave_each_result_once,
        two_runners_after_an_erasure_make_each_result_once,
        results_of_rules_that_are_configured_no_more_are_erased,
    );
    use super::*;
}

const DAYS: &str = "days";
/// The window has long left the first days of March.
const NOW: &str = "2024-03-15T12:00:00Z";
const TASK: &str = "CHRONOS_ANALYTICS_ERASED_TASK";

fn configured() -> Json {
    let mut more = rules(json!([{
        "name": DAYS, "collection": "sales", "operation": "sum", "field": "n", "timeframe": "daily",
        "arguments": ["who"], "relativeTime": { "newerThan": "P2D" },
    }]));
    more["logicalDelete"] = json!({ "enabled": false });
    more
}

/// Two days of March, each when the window was over it: one item of `ada` to erase and one to keep in each, and one of
/// `bob`.
async fn two_days(store: &Store) {
    for (day, now) in [("2024-03-01", "2024-03-02T12:00:00Z"), ("2024-03-14", NOW)] {
        let item = |key: &str, who: &str, n: i64| {
            create(&format!("{key} {day}"), &format!("{day}T06:00:00Z"), json!({ "who": who, "n": n }))
        };
        import(
            &store.collection("sales"),
            &[item("erased", "ada", 1), item("kept", "ada", 2), item("other", "bob", 4)],
        )
        .await;
        run(store, &[DAYS], now).await;
    }
    assert_eq!(found(store).await, shown(3, 4));
}

fn shown(ada: i64, bob: i64) -> Vec<String> {
    let days = ["2024-03-14", "2024-03-01"];
    let mut all: Vec<String> = days
        .iter()
        .flat_map(|day| [format!("{day} [\"ada\"] {ada}"), format!("{day} [\"bob\"] {bob}")])
        .collect();
    all.sort();
    all
}

/// Days, groups and values.
async fn found(store: &Store) -> Vec<String> {
    let mut all: Vec<String> = results(store, DAYS)
        .await
        .iter()
        .map(|result| {
            let group = result.to_json()["arguments"].to_string();
            format!("{} {group} {}", &result.timestamp.to_string()[..10], result.value)
        })
        .collect();
    all.sort();
    assert_eq!(
        stored(store, &store.collection("sales"), "timeBasedResults").await.len(),
        all.len(),
        "each is there once"
    );
    all
}

/// The items of `ada` that are to be erased go.
async fn delete(store: &Store) {
    let sales = store.collection("sales");
    for item in sales.list().filter(json!({ "who": "ada", "n": 1 })).await.unwrap().items {
        sales.delete(&item.id).await.unwrap();
    }
}

async fn an_erased_items_groups_are_computed_once_in_all_their_timeframes(p: &Pairing) {
    let store = p.open_with(&configured());
    let sales = store.collection("sales");
    two_days(&store).await;
    delete(&store).await;
    let entries = [doc! { "who": "ada", "n": 1 }];
    assert_eq!(sales.forget_results(&entries).await.unwrap(), 2);
    let of_bob: Vec<String> = shown(2, 4).into_iter().filter(|line| line.contains("bob")).collect();
    assert_eq!(found(&store).await, of_bob, "nothing of the item is left");
    run(&store, &[DAYS], NOW).await;
    assert_eq!(found(&store).await, shown(2, 4));
    // The first of March is not computed any more: what changes there now is not seen.
    import(&sales, &[create("late", "2024-03-01T07:00:00Z", json!({ "who": "ada", "n": 8 }))]).await;
    run(&store, &[DAYS], NOW).await;
    assert_eq!(found(&store).await, shown(2, 4), "it is done once");
    assert_eq!(sales.forget_results(&[doc! { "who": "nobody" }]).await.unwrap(), 0);
    run(&store, &[DAYS], NOW).await;
    assert_eq!(found(&store).await, shown(2, 4), "another group");
}

async fn an_erasure_that_fails_at_any_step_loses_no_result_of_others(p: &Pairing) {
    let fail = FailPoints::armable();
    let store = p.opening().with(&configured()).env(Env { fail: fail.clone(), ..Env::default() }).open();
    two_days(&store).await;
    delete(&store).await;
    let sales = store.collection("sales");
    let entries = [doc! { "who": "ada", "n": 1 }];
    for point in ["analytics.after_marks", "analytics.after_state", "analytics.between_removals"] {
        fail.arm(point, FailAction::Error(ErrorKind::Database), 0, 1);
        sales.forget_results(&entries).await.unwrap_err();
        fail.disarm(point);
        sales.forget_results(&entries).await.unwrap();
        for step in [
            "analytics.before_results",
            "analytics.after_results",
            "analytics.after_state",
            "analytics.after_settling",
        ] {
            fail.arm(step, FailAction::Error(ErrorKind::Database), 0, 1);
            let ran = store.chronos.analytics().run().now(super::at(NOW)).await.unwrap();
            assert!(ran.rules.iter().any(|run| run.error.is_some()), "{point}, {step}");
            fail.disarm(step);
        }
        run(&store, &[DAYS], NOW).await;
        assert_eq!(found(&store).await, shown(2, 4), "{point}");
    }
}

async fn killed_at(p: &Pairing, point: &str) -> bool {
    let test = concat!(module_path!(), "::runner");
    child::dies_at(p, test, TASK, &configured(), &format!("{point}=abort:0"), json!({})).await
}

/// Runs the rule when this binary starts itself again with a task.
#[tokio::test]
async fn runner() {
    let Some((_, chronos)) = child::task(TASK) else { return };
    chronos.analytics().run().now(super::at(NOW)).await.unwrap();
}

async fn runners_that_are_killed_after_an_erasure_leave_each_result_once(p: &Pairing) {
    let store = p.open_with(&configured());
    two_days(&store).await;
    delete(&store).await;
    for point in ["analytics.after_results", "analytics.after_state", "analytics.after_settling"] {
        store.collection("sales").forget_results(&[doc! { "who": "ada", "n": 1 }]).await.unwrap();
        assert!(killed_at(p, point).await, "{point} was never reached");
        run(&store, &[DAYS], NOW).await;
        assert_eq!(found(&store).await, shown(2, 4), "{point}");
    }
}

async fn two_runners_after_an_erasure_make_each_result_once(p: &Pairing) {
    let stores = [p.open_with(&configured()), p.open_with(&configured())];
    two_days(&stores[0]).await;
    delete(&stores[0]).await;
    for round in 0..3 {
        let sales = stores[round % 2].collection("sales");
        let entries = [doc! { "who": "ada", "n": 1 }];
        let erasing = async { sales.forget_results(&entries).await.unwrap() };
        let runs = futures::future::join_all(stores.each_ref().map(|store| run(store, &[DAYS], NOW)));
        futures::future::join(erasing, runs).await;
        run(&stores[0], &[DAYS], NOW).await;
        for store in &stores {
            assert_eq!(found(store).await, shown(2, 4), "round {round}");
        }
    }
}

/// The run computes the groups of one erasure while another takes place, and is overtaken by the run after that.
async fn a_run_from_before_an_erasure_puts_nothing_back_in_any_timeframe(p: &Pairing) {
    use test_support::documents::Call;
    let holding = test_support::Holding::<Call>::new();
    let slow = p.opening().with(&configured()).documents(&holding).open();
    let store = p.open_with(&configured());
    let sales = store.collection("sales");
    two_days(&store).await;
    delete(&store).await;
    let entries = [doc! { "who": "ada", "n": 1 }];
    sales.forget_results(&entries).await.unwrap();
    // Its first write is the results within the window, its second those beyond.
    holding.hold(Call::Apply, 1);
    let chronos = slow.chronos.clone();
    let running = tokio::spawn(async move {
        chronos.analytics().run().rules([DAYS]).now(super::at(NOW)).await.unwrap();
    });
    holding.reached(Call::Apply).await;
    for item in sales.list().filter(json!({ "who": "ada" })).await.unwrap().items {
        sales.delete(&item.id).await.unwrap();
    }
    sales.forget_results(&entries).await.unwrap();
    run(&store, &[DAYS], NOW).await;
    holding.release(Call::Apply);
    running.await.unwrap();
    let of_bob: Vec<String> = shown(2, 4).into_iter().filter(|line| line.contains("bob")).collect();
    assert_eq!(found(&store).await, of_bob, "what was erased is back");
}

async fn an_item_is_counted_in_the_group_of_each_element_of_an_array(p: &Pairing) {
    let store = p.open_with(&rules(json!([
        { "name": "tags", "collection": "sales", "operation": "count", "arguments": ["tags"] },
        { "name": "skus", "collection": "sales", "operation": "sum", "field": "n", "arguments": ["lines.sku"] },
        { "name": "both", "collection": "sales", "operation": "count", "arguments": ["tags", "lines.sku"] },
    ])));
    let sales = store.collection("sales");
    sales
        .create(json!({ "n": 1, "tags": ["x", "y", "x"], "lines": [{ "sku": "a" }, { "sku": "b" }] }))
        .await
        .unwrap();
    sales.create(json!({ "n": 2, "tags": "x", "lines": [{ "sku": ["b", "b"] }, {}] })).await.unwrap();
    sales.create(json!({ "n": 4, "tags": [] })).await.unwrap();
    run(&store, &["tags", "skus", "both"], NOW_REAL).await;
    let groups = async |rule: &str| {
        let found = results(&store, rule).await;
        let mut found: Vec<String> = found
            .iter()
            .map(|result| format!("{} {}", result.to_json()["arguments"], result.value))
            .collect();
        found.sort();
        found
    };
    assert_eq!(groups("tags").await, [r#"["x"] 2"#, r#"["y"] 1"#, "[null] 1"]);
    assert_eq!(groups("skus").await, [r#"["a"] 1"#, r#"["b"] 3"#, "[null] 4"]);
    assert_eq!(
        groups("both").await,
        [r#"["x","a"] 1"#, r#"["x","b"] 2"#, r#"["y","a"] 1"#, r#"["y","b"] 1"#, "[null,null] 1"]
    );
    // An erasure reaches the group of each element.
    assert_eq!(
        sales.forget_results(&[doc! { "tags": ["x", "y"], "lines": [{ "sku": "b" }] }]).await.unwrap(),
        2 + 1 + 2
    );
}

/// Later than whatever is created by the clock of a server.
const NOW_REAL: &str = "2124-01-01";

async fn rules_across_tenants_are_due_after_an_erasure(p: &Pairing) {
    let store = p.open_with(&json!({ "analytics": { "crossTenantRules": [
        { "name": "across", "collection": "sales", "mode": "max", "field": "n", "masterTenantId": "globex", "slaveTenantIds": ["acme", "globex"] },
    ] } }));
    for (tenant, n) in [("acme", 9), ("globex", 1)] {
        store
            .with(Route::runtime().tenant(tenant).collection("sales"))
            .create(json!({ "n": n }))
            .await
            .unwrap();
    }
    store.chronos.worker().once(LIMIT).await;
    assert_eq!(results(&store, "across").await[0].value, json!(9));
    let sales = store.with(acme().collection("sales"));
    let id = sales.list().await.unwrap().items[0].id;
    sales.erase(&id).await.unwrap();
    let report = store.chronos.worker().once(LIMIT).await;
    assert_eq!((report.amounts["rules"], report.failure_count), (1, 0), "{report:?}");
    assert_eq!(results(&store, "across").await[0].value, json!(1));
}

/// The index does not say in which group such an item is, so all of them are computed anew.
async fn values_that_had_no_room_in_the_index_go_with_the_item(p: &Pairing) {
    let store = p.open_with(&rules(json!([
        { "name": "by", "collection": "sales", "operation": "count", "arguments": ["big.who"] },
    ])));
    let sales = store.collection("sales");
    let big = |who: &str| json!({ "big": { "who": who, "text": "x".repeat(100_000) } });
    let id = sales.create(big("ada")).await.unwrap().id;
    sales.create(big("bob")).await.unwrap();
    run(&store, &["by"], NOW_REAL).await;
    assert_eq!(results(&store, "by").await.len(), 2);
    sales.erase(&id).await.unwrap();
    let left = results(&store, "by").await;
    assert!(left.iter().all(|result| !result.to_json().to_string().contains("ada")), "{left:?}");
    run(&store, &["by"], NOW_REAL).await;
    assert_eq!(results(&store, "by").await.len(), 1);
}

async fn results_of_rules_that_are_configured_no_more_are_erased(p: &Pairing) {
    let (with_rules, without) = (p.open_with(&configured()), p.open());
    let sales = without.collection("sales");
    let create = async || sales.create(json!({ "who": "ada", "n": 1 })).await.unwrap().id;
    // It is noted that there are no results, more than once.
    for _ in 0..2 {
        sales.erase(&create().await).await.unwrap();
    }
    let id = create().await;
    run(&with_rules, &[DAYS], NOW_REAL).await;
    let left = async || stored(&with_rules, &sales, "timeBasedResults").await.len();
    assert_eq!(left().await, 0, "the window is over the future");
    with_rules.chronos.analytics().run().await.unwrap();
    assert_eq!(left().await, 1);
    sales.erase(&id).await.unwrap();
    assert_eq!(left().await, 0);
}

async fn where_no_rule_ever_ran_an_erasure_asks_for_results_once(p: &Pairing) {
    use test_support::documents::Call;
    let counting = test_support::Counting::<Call>::new();
    let store = p.opening().documents(&counting).open();
    let sales = store.collection("sales");
    let mut counts = Vec::new();
    for n in 0..3 {
        let id = sales.create(json!({ "n": n })).await.unwrap().id;
        assert_eq!(sales.flush(LIMIT).await.unwrap(), 0);
        counting.take();
        sales.erase(&id).await.unwrap();
        counts.push(counting.count(Call::Count));
    }
    assert_eq!((counts[0] - counts[1], counts[1] - counts[2]), (1, 0), "{counts:?}");
}

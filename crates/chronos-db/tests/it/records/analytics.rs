//! Analytics rules: every result is what the items say, and there once, whichever process computes it and dies.

mod costs;
mod erased;
mod model;
mod runners;

use std::sync::Arc;
use std::time::Duration;

use bson::doc;
use chronos_db::analytics::AnalyticsResult;
use chronos_db::documents::{Namespace, Scan};
use chronos_db::{Collection, ErrorKind, ImportOp, Json, Route, Timestamp, WorkerReport, json};
use futures::TryStreamExt as _;
use parking_lot::Mutex;
use test_support::SeededRandom;
use tokio_util::sync::CancellationToken;

use self::model::{Item, naive};
use super::pairing::{Kind, Pairing, Store, on_every_pairing, refused};

on_every_pairing!(
    every_rule_comes_to_what_a_naive_model_finds,
    a_timeframe_that_is_only_partly_seen_keeps_its_result,
    a_group_that_nothing_is_in_any_more_goes,
    rules_across_tenants_pool_the_items,
    a_rule_that_was_changed_begins_anew,
    a_rule_that_cannot_add_text_fails_alone,
    a_rule_that_does_not_exist_is_named,
    results_come_in_pages_with_the_latest_first,
    what_had_no_room_in_the_index_is_read_from_the_document,
    an_erased_items_groups_go_and_are_computed_anew,
    a_worker_runs_what_is_due_and_nothing_else,
    a_rule_that_fails_waits_longer_each_time_and_stops_no_other,
);

const LIMIT: Duration = Duration::from_secs(60);

fn acme() -> Route {
    Route::runtime().tenant("acme")
}

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

async fn import(collection: &Collection, operations: &[Json]) {
    let operations = operations.iter().map(|operation| ImportOp::parse(operation).unwrap()).collect();
    for outcome in collection.import("key").await.unwrap().apply(operations, true).await.unwrap() {
        outcome.unwrap();
    }
}

fn create(key: &str, time: &str, mut data: Json) -> Json {
    data["key"] = key.into();
    json!({ "op": "create", "key": key, "at": time, "data": data })
}

/// Runs rules as of a time; none of them fails.
async fn run(store: &Store, rules: &[&str], now: &str) {
    let ran = store.chronos.analytics().run().rules(rules.iter().copied()).now(at(now)).await.unwrap();
    for rule in &ran.rules {
        assert!(rule.error.is_none(), "{rule:?}");
    }
}

async fn results(store: &Store, rule: &str) -> Vec<AnalyticsResult> {
    store.chronos.analytics().results(rule, acme()).limit(1_000).await.unwrap().items
}

/// The values of a rule by when their timeframes begin.
async fn values(store: &Store, rule: &str) -> Vec<(String, Json)> {
    let found = results(store, rule).await;
    found.into_iter().map(|result| (result.timestamp.to_string(), result.value)).collect()
}

fn rules(rules: Json) -> Json {
    json!({ "analytics": { "timeBasedRules": rules } })
}

/// N-19, G-36.
async fn every_rule_comes_to_what_a_naive_model_finds(p: &Pairing) {
    let (operations, timeframes) = (
        ["count", "sum", "average", "max", "min", "median"],
        [None, Some("hourly"), Some("daily"), Some("monthly")],
    );
    let mut all = Vec::new();
    for operation in operations {
        for timeframe in timeframes {
            for (arguments, window) in [
                (json!([]), json!({})),
                (json!(["group"]), json!({ "newerThan": "P20D" })),
                (json!(["group", "in.side"]), json!({ "newerThan": "P30D", "olderThan": "P5D" })),
            ] {
                let mut rule = json!({
                    "name": format!("r{}", all.len()), "collection": "sales", "query": { "status": "done" },
                    "operation": operation, "arguments": arguments, "relativeTime": window,
                });
                if operation != "count" || all.len() % 2 == 0 {
                    rule["field"] = "n".into();
                }
                if let Some(timeframe) = timeframe {
                    rule["timeframe"] = timeframe.into();
                    rule["saveMode"] = "timeframe".into();
                }
                all.push(rule);
            }
        }
    }
    let store = p.open_with(&rules(all.iter().cloned().collect()));
    let sales = store.collection("sales");
    let items = Item::some(&SeededRandom::new(7), 60);
    import(&sales, &items.iter().flat_map(Item::operations).collect::<Vec<_>>()).await;
    let now = model::NOW;
    let names: Vec<&str> = all.iter().map(|rule| rule["name"].as_str().unwrap()).collect();
    for round in 0..2 {
        run(&store, &names, now).await;
        for rule in &all {
            let mut found: Vec<model::ModelResult> = Vec::new();
            for result in results(&store, rule["name"].as_str().unwrap()).await {
                let shown = result.to_json();
                let timestamp =
                    if rule["timeframe"].is_null() { String::new() } else { result.timestamp.to_string() };
                let arguments = shown["arguments"].as_array().cloned().unwrap_or_default();
                found.push((timestamp, Json::from(arguments).to_string(), result.value.as_f64()));
            }
            found.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
            assert_eq!(found, naive(rule, &items, at(now)), "round {round}: {rule}");
        }
    }
}

async fn a_timeframe_that_is_only_partly_seen_keeps_its_result(p: &Pairing) {
    let rule = json!({
        "name": "daily", "collection": "sales", "operation": "sum", "field": "n",
        "timeframe": "daily", "relativeTime": { "newerThan": "PT24H" },
    });
    let store = p.open_with(&rules(json!([rule])));
    let sales = store.collection("sales");
    import(
        &sales,
        &[
            create("a", "2024-03-14T06:00:00Z", json!({ "n": 1 })),
            create("b", "2024-03-14T20:00:00Z", json!({ "n": 2 })),
        ],
    )
    .await;
    run(&store, &["daily"], "2024-03-14T23:00:00Z").await;
    assert_eq!(values(&store, "daily").await, [("2024-03-14T00:00:00.000Z".to_owned(), json!(3))]);
    import(&sales, &[create("c", "2024-03-15T01:00:00Z", json!({ "n": 4 }))]).await;
    // The window begins within the fourteenth: `a` is not in it any more.
    run(&store, &["daily"], "2024-03-15T12:00:00Z").await;
    let both = [
        ("2024-03-15T00:00:00.000Z".to_owned(), json!(4)),
        ("2024-03-14T00:00:00.000Z".to_owned(), json!(3)),
    ];
    assert_eq!(values(&store, "daily").await, both);
    let stored = results(&store, "daily").await[0].to_json();
    for (field, value) in [
        ("ruleName", "daily"),
        ("collection", "sales"),
        ("operation", "sum"),
        ("field", "n"),
        ("timeframe", "daily"),
    ] {
        assert_eq!(stored[field], json!(value));
    }
    assert!(
        stored["arguments"].is_null() && stored["_id"].as_str().unwrap().starts_with("daily_1710460800000_")
    );
}

async fn a_group_that_nothing_is_in_any_more_goes(p: &Pairing) {
    let store = p.open_with(&rules(json!([
        { "name": "by", "collection": "sales", "operation": "count", "arguments": ["who"] },
        { "name": "days", "collection": "sales", "operation": "count", "timeframe": "daily", "arguments": ["who"] },
        { "name": "all", "collection": "sales", "operation": "count" },
    ])));
    let sales = store.collection("sales");
    let log = [
        create("a", "2024-03-14T06:00:00Z", json!({ "who": "ada" })),
        create("b", "2024-03-14T07:00:00Z", json!({ "who": "bob" })),
    ];
    import(&sales, &log).await;
    let names = ["by", "days", "all"];
    run(&store, &names, "2024-03-15T00:00:00Z").await;
    let groups = |found: Vec<AnalyticsResult>| -> Vec<String> {
        let mut groups: Vec<String> =
            found.iter().map(|result| result.to_json()["arguments"].to_string()).collect();
        groups.sort();
        groups
    };
    assert_eq!(groups(results(&store, "by").await), [r#"["ada"]"#, r#"["bob"]"#]);
    assert_eq!(groups(results(&store, "days").await), [r#"["ada"]"#, r#"["bob"]"#]);
    let update =
        json!({ "op": "update", "key": "a", "at": "2024-03-14T08:00:00Z", "data": { "who": "bob" } });
    import(&sales, &[update]).await;
    run(&store, &names, "2024-03-15T00:00:00Z").await;
    for rule in ["by", "days"] {
        let found = results(&store, rule).await;
        assert_eq!(found.iter().map(|result| result.value.clone()).collect::<Vec<_>>(), [json!(2)], "{rule}");
    }
    let deletes = ["a", "b"].map(|key| json!({ "op": "delete", "key": key, "at": "2024-03-14T09:00:00Z" }));
    import(&sales, &deletes).await;
    run(&store, &names, "2024-03-15T00:00:00Z").await;
    assert!(results(&store, "by").await.is_empty() && results(&store, "days").await.is_empty());
    assert_eq!(values(&store, "all").await, [("2024-03-15T00:00:00.000Z".to_owned(), json!(0))]);
}

async fn rules_across_tenants_pool_the_items(p: &Pairing) {
    for databases in [p.config(&json!({}))["databases"].clone(), p.one_database()] {
        let rule = |mode: &str| {
            let mut rule = json!({
                "name": mode, "collection": "visits", "mode": mode, "query": { "shown": true },
                "masterTenantId": "acme", "slaveTenantIds": ["acme", "globex"], "relativeTime": { "newerThan": "P1M" },
            });
            if mode != "boolean" {
                rule["field"] = "score".into();
            }
            rule
        };
        let modes = ["boolean", "sum", "max", "min", "median"];
        let rules: Json = modes.iter().map(|mode| rule(mode)).collect();
        let store =
            p.open_with(&json!({ "databases": databases, "analytics": { "crossTenantRules": rules } }));
        let visits = |tenant: &str| store.with(Route::runtime().tenant(tenant).collection("visits"));
        let visit = |n: i64, score: i64, day: &str| {
            create(&format!("v{n}"), day, json!({ "score": score, "shown": true }))
        };
        import(
            &visits("acme"),
            &[visit(1, 1, "2024-03-10"), visit(2, 2, "2024-03-11"), visit(9, 99, "2024-01-01")],
        )
        .await;
        import(
            &visits("globex"),
            &[visit(1, 10, "2024-03-10"), visit(2, 20, "2024-03-11"), visit(3, 30, "2024-03-12")],
        )
        .await;
        run(&store, &modes, "2024-03-15").await;
        let expected = [
            ("boolean", json!(2), json!(1), json!(1)),
            ("sum", json!(63), json!(3), json!(60)),
            ("max", json!(30), json!(2), json!(30)),
            ("min", json!(1), json!(1), json!(10)),
            ("median", json!(10), json!(1.5), json!(20)),
        ];
        for (mode, value, of_acme, of_globex) in expected {
            let found = results(&store, mode).await;
            assert_eq!(found.len(), 1, "{mode}");
            let shown = found[0].to_json();
            assert_eq!((&shown["value"], &shown["mode"]), (&value, &json!(mode)));
            let each = json!([{ "tenantId": "acme", "value": of_acme }, { "tenantId": "globex", "value": of_globex }]);
            assert_eq!((&shown["slaveResults"], &shown["masterTenantId"]), (&each, &json!("acme")), "{mode}");
        }
        let gone = ["v1", "v2", "v3"].map(|key| json!({ "op": "delete", "key": key, "at": "2024-03-13" }));
        import(&visits("globex"), &gone).await;
        run(&store, &modes, "2024-03-15").await;
        for (mode, value) in
            [("boolean", json!(1)), ("sum", json!(3)), ("max", json!(2)), ("median", json!(1.5))]
        {
            assert_eq!(results(&store, mode).await[0].value, value, "{mode}");
        }
    }
}

async fn a_rule_that_was_changed_begins_anew(p: &Pairing) {
    let rule = |timeframe: &str| {
        rules(json!([{ "name": "r", "collection": "sales", "operation": "count", "timeframe": timeframe }]))
    };
    let old = p.open_with(&rule("hourly"));
    import(&old.collection("sales"), &[create("a", "2024-03-14T06:30:00Z", json!({}))]).await;
    run(&old, &["r"], "2024-03-15").await;
    assert_eq!(values(&old, "r").await, [("2024-03-14T06:00:00.000Z".to_owned(), json!(1))]);
    // A store in memory is its connection's own.
    let new = if p.kind == Kind::EmbeddedMemory { return } else { p.open_with(&rule("daily")) };
    assert_eq!(values(&new, "r").await, [], "it never ran as it is now");
    run(&new, &["r"], "2024-03-15").await;
    assert_eq!(values(&new, "r").await, [("2024-03-14T00:00:00.000Z".to_owned(), json!(1))]);
    assert_eq!(
        stored(&new, &new.collection("sales"), "timeBasedResults").await.len(),
        1,
        "the old ones went"
    );
}

async fn stored(store: &Store, collection: &Collection, name: &str) -> Vec<bson::Document> {
    let namespace = Namespace::new(collection.database(), name);
    store.documents().scan(&namespace, Scan::default()).try_collect().await.unwrap()
}

async fn a_rule_that_cannot_add_text_fails_alone(p: &Pairing) {
    let store = p.open_with(&rules(json!([
        { "name": "before", "collection": "sales", "operation": "sum", "field": "text" },
        { "name": "good", "collection": "sales", "operation": "count", "field": "text" },
        { "name": "after", "collection": "sales", "operation": "median", "field": "text" },
        { "name": "huge", "collection": "sales", "operation": "sum", "field": "huge" },
    ])));
    let id = store.collection("sales").create(json!({ "text": "SECRET", "huge": 1e308 })).await.unwrap().id;
    store.collection("sales").create(json!({ "huge": 1e308 })).await.unwrap();
    let ran = store.chronos.analytics().run().await.unwrap();
    let failed: Vec<&str> =
        ran.rules.iter().filter(|run| run.error.is_some()).map(|run| run.rule.as_str()).collect();
    assert_eq!(failed, ["before", "after", "huge"]);
    let error = ran.rules[0].error.as_ref().unwrap();
    assert_eq!((error.kind(), error.id()), (ErrorKind::Validation, Some(id.to_string().as_str())));
    assert!(
        error.message().contains("`text`") && !format!("{error} {error:?}").contains("SECRET"),
        "{error}"
    );
    assert_eq!(results(&store, "good").await[0].value, json!(1));
    assert!(results(&store, "before").await.is_empty());
}

async fn a_rule_that_does_not_exist_is_named(p: &Pairing) {
    let store = p.open_with(&rules(json!([{ "name": "good", "collection": "sales", "operation": "count" }])));
    let analytics = store.chronos.analytics();
    let error = analytics.run().rules(["good", "bad"]).await.unwrap_err();
    assert!(error.message().contains("`bad`; there are `good`"), "{error}");
    assert_eq!(refused(analytics.results("bad", acme()).await), ErrorKind::Validation);
    assert_eq!(
        refused(analytics.results("good", Route::runtime().tenant("nobody")).await),
        ErrorKind::RouteNotFound
    );
    assert_eq!(analytics.results("good", acme()).await.unwrap().items, []);
    assert!(analytics.run().await.unwrap().rules.is_empty(), "there is no such collection, and none is made");
}

async fn results_come_in_pages_with_the_latest_first(p: &Pairing) {
    let rule = json!({ "name": "r", "collection": "sales", "operation": "count", "timeframe": "daily" });
    let store = p.open_with(&rules(json!([rule])));
    let days = (1..=7).map(|day| create(&format!("k{day}"), &format!("2024-03-{day:02}"), json!({})));
    import(&store.collection("sales"), &days.collect::<Vec<_>>()).await;
    run(&store, &["r"], "2024-03-15").await;
    let list = store.chronos.analytics().results("r", acme()).limit(3);
    let (mut page, mut seen) = (list.clone().await.unwrap(), Vec::new());
    loop {
        assert!(page.items.len() <= 3);
        seen.extend(page.items.iter().map(|result| result.timestamp));
        let Some(next) = page.next else { break };
        page = list.clone().after(next).await.unwrap();
    }
    let expected: Vec<Timestamp> = (1..=7).rev().map(|day| at(&format!("2024-03-{day:02}"))).collect();
    assert_eq!(seen, expected);
    let streamed: Vec<AnalyticsResult> = list.clone().stream().await.unwrap().try_collect().await.unwrap();
    assert_eq!(streamed.iter().map(|result| result.timestamp).collect::<Vec<_>>(), expected);
    assert_eq!(refused(list.after("nonsense").await), ErrorKind::Validation);
}

async fn what_had_no_room_in_the_index_is_read_from_the_document(p: &Pairing) {
    let store = p.open_with(&rules(json!([
        { "name": "sum", "collection": "sales", "query": { "big.shown": true }, "operation": "sum", "field": "big.n" },
        { "name": "count", "collection": "sales", "query": { "big.shown": true }, "operation": "count" },
        { "name": "by", "collection": "sales", "operation": "count", "arguments": ["big.who"] },
    ])));
    let sales = store.collection("sales");
    let big = |n: i64, shown: bool| json!({ "big": { "n": n, "shown": shown, "who": "ada", "text": "x".repeat(100_000) } });
    sales.create(big(1, true)).await.unwrap();
    sales.create(big(2, false)).await.unwrap();
    sales.create(json!({ "big": { "n": 4, "shown": true, "who": "bob" } })).await.unwrap();
    let gone = sales.create(big(8, true)).await.unwrap().id;
    sales.delete(&gone).await.unwrap();
    let ran = store.chronos.analytics().run().await.unwrap();
    assert!(ran.rules.iter().all(|run| run.error.is_none()), "{ran:?}");
    assert_eq!(results(&store, "sum").await[0].value, json!(5));
    assert_eq!(results(&store, "count").await[0].value, json!(2));
    let mut by: Vec<String> =
        results(&store, "by").await.iter().map(|result| result.value.to_string()).collect();
    by.sort();
    assert_eq!(by, ["1", "2"]);
}

async fn an_erased_items_groups_go_and_are_computed_anew(p: &Pairing) {
    let mut more = rules(json!([
        { "name": "by", "collection": "sales", "operation": "count", "arguments": ["who"] },
        { "name": "days", "collection": "sales", "operation": "count", "timeframe": "daily", "arguments": ["who"] },
        { "name": "all", "collection": "sales", "operation": "count" },
    ]));
    more["logicalDelete"] = json!({ "enabled": false });
    let store = p.open_with(&more);
    let sales = store.collection("sales");
    let log = [
        create("a", "2024-03-14T06:00:00Z", json!({ "who": "ada" })),
        create("b", "2024-03-14T07:00:00Z", json!({ "who": "bob" })),
        create("c", "2024-03-14T07:30:00Z", json!({ "who": "ada" })),
    ];
    import(&sales, &log).await;
    run(&store, &["by", "days", "all"], "2024-03-15").await;
    let item = sales.list().filter(json!({ "key": "a" })).await.unwrap().items[0].id;
    sales.delete(&item).await.unwrap();
    let entries = [doc! { "key": "a", "who": "ada" }, doc! { "who": "nobody" }];
    assert_eq!(sales.forget_results(&entries).await.unwrap(), 2, "one of each grouped rule");
    assert_eq!(sales.forget_results(&entries).await.unwrap(), 0, "again");
    for rule in ["by", "days"] {
        let found = results(&store, rule).await;
        assert_eq!(found.len(), 1, "{rule}");
        assert_eq!(found[0].to_json()["arguments"], json!(["bob"]), "{rule}");
    }
    assert_eq!(results(&store, "all").await[0].value, json!(3), "nothing of it tells whose it was");
    let report = store.chronos.worker().once(LIMIT).await;
    assert_eq!((report.amounts["rules"], report.failure_count), (3, 0), "{report:?}");
    assert_eq!(results(&store, "by").await.len(), 2);
    assert_eq!(results(&store, "all").await[0].value, json!(2));
    assert!(results(&store, "by").await.iter().all(|result| result.value == json!(1)));
}

async fn a_worker_runs_what_is_due_and_nothing_else(p: &Pairing) {
    let store = p.open_with(&json!({ "analytics": {
        "timeBasedRules": [{ "name": "timed", "collection": "sales", "operation": "count" }],
        "crossTenantRules": [{ "name": "across", "collection": "sales", "mode": "boolean", "masterTenantId": "globex", "slaveTenantIds": ["acme", "globex"] }],
    } }));
    for tenant in ["acme", "globex"] {
        store
            .with(Route::runtime().tenant(tenant).collection("sales"))
            .create(json!({ "n": 1 }))
            .await
            .unwrap();
    }
    let report = store.chronos.worker().once(LIMIT).await;
    assert_eq!((report.amounts["rules"], report.failure_count), (3, 0), "{report:?}");
    assert_eq!(results(&store, "timed").await[0].value, json!(1));
    assert_eq!(results(&store, "across").await[0].value, json!(2));
    let computed_at = results(&store, "timed").await[0].computed_at;
    // Unless the hour has just changed, nothing is due again.
    let again = store.chronos.worker().once(LIMIT).await;
    let now = store.documents().now().await.unwrap();
    let hour = |at: Timestamp| at.as_millis() / 3_600_000;
    assert!(again.amounts["rules"] == 0 || hour(now) != hour(computed_at), "{again:?}");
}

async fn a_rule_that_fails_waits_longer_each_time_and_stops_no_other(p: &Pairing) {
    let store = p.open_with(&rules(json!([
        { "name": "poison", "collection": "sales", "operation": "sum", "field": "text" },
        { "name": "good", "collection": "sales", "operation": "count" },
    ])));
    store.collection("sales").create(json!({ "text": "a" })).await.unwrap();
    let worker = store.chronos.worker();
    let report = worker.once(LIMIT).await;
    assert_eq!((report.amounts["rules"], report.failure_count), (1, 1), "{report:?}");
    let failure = &report.failures[0];
    assert!(
        failure.job == "analytics" && failure.tries == 1 && failure.target.contains("rule `poison`"),
        "{failure:?}"
    );
    assert_eq!(results(&store, "good").await[0].value, json!(1));
    let again = worker.once(LIMIT).await;
    assert_eq!((again.failure_count, again.failures[0].tries), (1, 1), "what is asked for once is tried");
    let (rounds, stop) = (Arc::new(Mutex::new(Vec::new())), CancellationToken::new());
    let (reported, stopping) = (Arc::clone(&rounds), stop.clone());
    let hear = move |report: WorkerReport| {
        let mut reported = reported.lock();
        reported.push(report.failure_count);
        if reported.len() == 3 {
            stopping.cancel();
        }
    };
    worker.run(Duration::from_millis(1), stop.cancelled(), hear).await;
    assert_eq!(*rounds.lock(), [0, 0, 0], "it waits");
}

//! The shapes of results of analytics rules, of their states, and of the marks of erasures.

use bson::{Bson, doc};
use chronos_db::config::{
    AnalyticsOperation, ConfigBuilder, CrossTenantMode, CrossTenantRule, TimeBasedRule, Timeframe,
};
use chronos_db::documents::{Batch, Direction, Guard, Namespace, Scan, Write};
use chronos_db::{Json as Value, Route, json};
use futures::TryStreamExt as _;

use super::extended::{from_extended, to_extended};
use super::{Stage, check, config, folder};

const COLLECTIONS: [&str; 3] = ["analyticsRuns", "crossTenantResults", "timeBasedResults"];
const RULES: [&str; 3] = ["visits", "days", "all"];

fn with_rules(builder: ConfigBuilder) -> ConfigBuilder {
    let visits = TimeBasedRule::new("visits", "things", AnalyticsOperation::Sum).field("visits");
    let days = TimeBasedRule::new("days", "things", AnalyticsOperation::Count)
        .timeframe(Timeframe::Daily)
        .arguments(["status"])
        .newer_than("P2D");
    let all =
        CrossTenantRule::new("all", "things", CrossTenantMode::Max, "default", ["default"]).field("visits");
    builder.time_based_rule(visits).time_based_rule(days).cross_tenant_rule(all)
}

async fn stored(stage: &Stage) -> Value {
    let mut all = chronos_db::json::Map::new();
    for name in COLLECTIONS {
        let scan = Scan { order: vec![("_id".into(), Direction::Ascending)], ..Scan::default() };
        let found: Vec<bson::Document> = stage
            .documents
            .scan(&Namespace::new("chronos_analytics", name), scan)
            .try_collect()
            .await
            .unwrap();
        all.insert(
            name.to_owned(),
            found.into_iter().map(|document| to_extended(&document.into())).collect(),
        );
    }
    json!({ "documents": all })
}

async fn shown(stage: &Stage) -> Vec<String> {
    let mut shown = Vec::new();
    for rule in RULES {
        let route = Route::runtime().tenant("default");
        let found = stage.chronos.analytics().results(rule, route).await.unwrap().items;
        shown.extend(found.iter().map(|result| result.to_json().to_string()));
    }
    shown
}

/// After a run, after an erasure, and after the run that makes it good.
#[tokio::test]
async fn the_shapes_of_analytics_are_those_of_the_golden_files() {
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::new(with_rules(config(dir.path())), 1);
    for (status, visits) in [("new", 1), ("old", 20)] {
        stage.things.create(json!({ "status": status, "visits": visits })).await.unwrap();
        stage.flush_and_tick().await;
    }
    let ran = stage.chronos.analytics().run().await.unwrap();
    assert!(ran.rules.iter().all(|rule| rule.error.is_none()), "{ran:?}");
    check("analytics", &stored(&stage).await);
    stage.tick();
    stage.things.forget_results(&[doc! { "status": "new" }]).await.unwrap();
    check("analytics-erased", &stored(&stage).await);
    stage.tick();
    stage.chronos.analytics().run().await.unwrap();
    check("analytics-anew", &stored(&stage).await);
    stage.chronos.shutdown().await.unwrap();
}

/// What an earlier version has written is read, and the marks in it are worked off.
#[tokio::test]
async fn analytics_of_the_golden_files_are_read() {
    for name in ["analytics", "analytics-erased", "analytics-anew"] {
        let dir = tempfile::tempdir().unwrap();
        let stage = Stage::new(with_rules(config(dir.path())), 2);
        let pinned = std::fs::read_to_string(folder().join(format!("{name}.json"))).unwrap();
        let pinned = Value::parse(&pinned).unwrap();
        let mut batch = Batch::new();
        for collection in COLLECTIONS {
            for document in pinned["documents"][collection].as_array().unwrap() {
                let Bson::Document(document) = from_extended(document) else { panic!("{document}") };
                batch
                    .push(&Namespace::new("chronos_analytics", collection), Write::put(document, Guard::Any));
            }
        }
        stage.documents.apply(batch).await.unwrap();
        let before = shown(&stage).await;
        assert_eq!(before.len(), if name == "analytics-erased" { 3 } else { 4 }, "{name}: {before:?}");
        // There is no item any more, so a run removes what its window has, and what is marked.
        stage.things.create(json!({ "status": "none" })).await.unwrap();
        let ran = stage.chronos.analytics().run().await.unwrap();
        assert!(ran.rules.iter().all(|rule| rule.error.is_none()), "{name}: {ran:?}");
        let after = shown(&stage).await;
        assert!(
            after.iter().any(|line| line.contains("none")) && !after.iter().any(|line| line.contains("old")),
            "{name}: {after:?}"
        );
        stage.chronos.shutdown().await.unwrap();
    }
}

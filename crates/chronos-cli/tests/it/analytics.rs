//! `chronos analytics`.

use chronos_db::{Json, json};

use crate::cli::Cli;

fn with_rules() -> Cli {
    let cli = Cli::new();
    let entry = |tenant: &str| json!({"tenantId": tenant, "dbConnRef": "here", "dbName": tenant, "analyticsDbName": "analytics"});
    let config = json!({
        "dbConnections": {"here": {"mongoUri": "embedded:./data"}},
        "databases": {"runtime": {"tenantDatabases": [entry("default"), entry("acme")]}},
        "analytics": {
            "timeBasedRules": [
                {"name": "revenue", "collection": "sales", "query": {"status": "done"}, "operation": "sum", "field": "amount", "saveMode": "timeframe", "timeframe": "daily"},
                {"name": "poison", "collection": "sales", "operation": "sum", "field": "status"},
            ],
            "crossTenantRules": [{"name": "both", "collection": "sales", "mode": "boolean", "masterTenantId": "default", "slaveTenantIds": ["default", "acme"]}],
        },
    });
    cli.write("chronos.json", &config.to_string());
    for (tenant, amount) in [("default", 40), ("default", 2), ("acme", 7)] {
        let sale = json!({"status": "done", "amount": amount}).to_string();
        cli.run(&["create", "-c", "sales", "--at", "2024-03-15T12:00:00Z", "--tenant", tenant, &sale])
            .value();
    }
    cli
}

fn value(results: &[Json]) -> Vec<&Json> {
    results.iter().map(|result| &result["value"]).collect()
}

#[test]
fn rules_run_everywhere_and_results_are_of_the_tenant_that_is_named() {
    let cli = with_rules();
    let ran = cli.run(&["analytics", "run", "revenue", "both", "--now", "2024-03-16T00:00:00Z"]).lines();
    assert_eq!(ran.len(), 3, "{ran:?}");
    let results = cli.run(&["analytics", "results", "revenue"]).lines();
    assert_eq!(value(&results), [&json!(42)]);
    let expected = json!({"ruleName": "revenue", "collection": "sales", "operation": "sum", "field": "amount", "timeframe": "daily",
        "timestamp": "2024-03-15T00:00:00.000Z", "tenantId": "default"});
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&results[0][field.as_str()], value, "{field}");
    }
    assert_eq!(
        value(&cli.run(&["analytics", "results", "revenue", "--tenant", "acme"]).lines()),
        [&json!(7)]
    );
    assert_eq!(value(&cli.run(&["analytics", "results", "both"]).lines()), [&json!(2)]);
    let one = cli.run(&["analytics", "run", "revenue", "--tenant", "acme", "--now", "2024-03-16T00:00:00Z"]);
    assert_eq!(value(&one.lines()), [&json!(7)]);
    assert!(cli.run(&["analytics", "results", "revenue", "--limit", "0"]).lines().is_empty());
}

#[test]
fn a_rule_that_fails_is_named_and_the_others_are_printed() {
    let cli = with_rules();
    let ran = cli.run(&["analytics", "run"]);
    let said = ran.failed(1);
    assert!(
        said.lines().count() == 2
            && said.contains("rule `poison`")
            && said.contains("`status` of this item is a text"),
        "{said}"
    );
    assert!(ran.out().contains(r#""ruleName":"revenue""#) && !ran.out().contains("poison"), "{ran:?}");
    let worker = cli.run(&["worker", "--once"]);
    assert!(worker.failed(1).contains("poison") && worker.out().contains(r#""rules":"#), "{worker:?}");
}

#[test]
fn a_rule_that_does_not_exist_and_a_time_that_is_none_are_wrong_input() {
    let cli = with_rules();
    for (args, why) in [
        (&["analytics", "run", "nosuch"][..], "`nosuch`"),
        (&["analytics", "results", "nosuch"], "`nosuch`"),
        (&["analytics", "run", "--now", "tomorrow"], "tomorrow"),
        (&["analytics", "results"], "<RULE>"),
    ] {
        let ran = cli.run(args);
        let said = ran.failed(2);
        assert!(said.contains(why) && said.lines().count() == 1, "{args:?}: {said}");
        assert_eq!(ran.out(), "");
    }
}

//! `chronos counters`.

use chronos_db::{Json, json};

use crate::cli::Cli;

fn with_rules() -> Cli {
    let cli = Cli::new();
    let config = json!({
        "dbConnections": {"here": {"mongoUri": "embedded:./data"}},
        "databases": {"runtime": {"tenantDatabases": [
            {"tenantId": "default", "dbConnRef": "here", "dbName": "app", "analyticsDbName": "app_analytics"}]}},
        "counterRules": {"rules": [{"name": "logins", "on": ["CREATE"], "when": {"action": "login"}, "countUnique": ["user"]}]},
        "retention": {"counters": {"days": 7}},
    });
    cli.write("chronos.json", &config.to_string());
    for user in ["ada", "bob", "ada"] {
        cli.run(&["create", "-c", "events", &json!({"action": "login", "user": user}).to_string()]).value();
    }
    cli.run(&["create", "-c", "events", r#"{"action": "view", "user": "eve"}"#]).value();
    cli
}

#[test]
fn totals_are_exact_right_after_a_write_and_after_a_worker() {
    let cli = with_rules();
    let expected = json!({
        "tenant": "default", "dbName": "app", "collection": "events", "created": 4, "updated": 0, "deleted": 0,
        "rules": {"logins": {"created": 3, "updated": 0, "deleted": 0, "unique": {"user": 2}}}, "cv": 3,
    });
    assert_eq!(cli.run(&["counters", "get", "-c", "events"]).value(), expected);
    cli.run(&["worker", "-c", "events", "--once"]).value();
    assert_eq!(cli.run(&["counters", "get", "-c", "events"]).value(), expected);
    let mut recounted = expected;
    recounted["corrected"] = false.into();
    assert_eq!(cli.run(&["counters", "recount", "-c", "events"]).value(), recounted);
}

#[test]
fn values_and_periods_are_printed_one_a_line() {
    let cli = with_rules();
    let values =
        cli.run(&["counters", "unique", "-c", "events", "--rule", "logins", "--property", "user"]).lines();
    let seen: Vec<(&Json, &Json)> = values.iter().map(|value| (&value["value"], &value["created"])).collect();
    assert_eq!(seen, [(&json!("ada"), &json!(2)), (&json!("bob"), &json!(1))]);
    assert!(values[0]["lastAt"].is_string());
    let days = cli.run(&["counters", "buckets", "-c", "events", "--period", "day"]).lines();
    let created: u64 = days.iter().map(|day| day["created"].as_u64().unwrap()).sum();
    assert_eq!(created, 4);
    let months = cli.run(&["counters", "buckets", "-c", "events", "--period", "month"]);
    assert!(months.failed(2).contains("retention.counters.months"), "{months:?}");
}

#[test]
fn a_reset_has_to_be_confirmed() {
    let cli = with_rules();
    assert!(cli.run(&["counters", "reset", "-c", "events"]).failed(2).contains("--confirm"));
    assert_eq!(cli.run(&["counters", "get", "-c", "events"]).value()["created"], json!(4));
    assert_eq!(cli.run(&["counters", "reset", "-c", "events", "--confirm"]).value()["created"], json!(0));
    assert_eq!(cli.run(&["counters", "get", "-c", "events"]).value()["rules"]["logins"]["created"], json!(0));
}

#[test]
fn a_rule_that_cannot_be_read_is_refused_by_every_command_with_its_path() {
    let cli = with_rules();
    let config = json!({
        "dbConnections": {"here": {"mongoUri": "embedded:./data"}},
        "databases": {"runtime": {"tenantDatabases": [{"tenantId": "default", "dbConnRef": "here", "dbName": "app"}]}},
        "counterRules": {"rules": [{"name": "fine"}, {"name": "bad", "when": {"a": {"$where": "1"}}}]},
    });
    cli.write("chronos.json", &config.to_string());
    for args in [&["list", "-c", "events"][..], &["config", "check", "chronos.json"]] {
        let ran = cli.run(args);
        let said = format!("{}{}", ran.failed(2), ran.out());
        assert!(said.contains("counterRules.rules[1].when"), "{args:?}: {said}");
    }
}

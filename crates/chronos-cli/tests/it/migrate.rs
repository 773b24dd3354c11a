//! `migrate messaging`.

use chronos_db::config::Config;
use chronos_db::{Chronos, Json as Value, json};

use crate::cli::Cli;

const ONE: &str = r#"{"dbConnRef": "here", "dbName": "all"}"#;
const EACH: &str = r#"{"tenantDatabases": [{"tenantId": "default", "dbConnRef": "here", "dbName": "rest"},
                                          {"tenantId": "a", "dbConnRef": "here", "dbName": "of_a"}]}"#;

fn configuration(messaging: &str) -> String {
    format!(
        r#"{{"dbConnections": {{"here": {{"mongoUri": "embedded:./data"}}}}, "databases": {{"messaging": {messaging}}}}}"#
    )
}

/// Runs the library on a configuration of the folder, as the program before or after it does.
fn with_chronos<T>(cli: &Cli, messaging: &str, work: impl AsyncFnOnce(&Chronos) -> T) -> T {
    let chronos = Chronos::open(Config::parse(&configuration(messaging), cli.folder()).unwrap()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let done = work(&chronos).await;
        chronos.shutdown().await.unwrap();
        done
    })
}

fn counts(value: &Value) -> [i64; 5] {
    ["read", "copied", "updated", "unchanged", "problems"].map(|what| value[what].as_i64().unwrap())
}

#[test]
fn one_messaging_database_becomes_one_for_each_tenant() {
    let cli = Cli::new();
    cli.write("one.json", &configuration(ONE));
    cli.write("each.json", &configuration(EACH));
    with_chronos(&cli, ONE, async |chronos| {
        for tenant in ["a", "b"] {
            let messaging = chronos.messaging(tenant).unwrap();
            messaging.shared().save("n", "k", json!(tenant)).await.unwrap();
            messaging.messages().save("t", "1", json!(tenant)).await.unwrap();
        }
    });
    let migrate = ["migrate", "messaging", "--config", "each.json", "--from", "one.json"];
    let dry = cli.run(&[&migrate[..], &["--dry-run"]].concat());
    assert_eq!(counts(&dry.value()), [4, 4, 0, 0, 0]);
    assert_eq!(counts(&cli.run(&migrate).value()), [4, 4, 0, 0, 0]);
    assert_eq!(counts(&cli.run(&migrate).value()), [4, 0, 0, 4, 0]);
    with_chronos(&cli, EACH, async |chronos| {
        let a = chronos.messaging("a").unwrap();
        assert_eq!(a.database(), "of_a");
        assert_eq!(a.shared().load("n", "k").await.unwrap().unwrap().value, json!("a"));
    });
}

#[test]
fn a_migration_needs_somewhere_to_go() {
    let cli = Cli::new();
    let runtime = r#"{"dbConnections": {"here": {"mongoUri": "embedded:./data"}}, "databases": {"runtime": {"tenantDatabases": [{"tenantId": "a", "dbConnRef": "here", "dbName": "x"}]}}}"#;
    cli.write("runtime.json", runtime);
    let refused = cli.run(&["migrate", "messaging", "--config", "runtime.json"]);
    assert!(refused.failed(2).contains("no messaging database"), "{refused:?}");
    let absent = cli.run(&["migrate", "messaging", "--from", "absent.json"]);
    assert!(absent.failed(2).contains("absent.json"), "{absent:?}");
    assert_eq!(counts(&cli.run(&["migrate", "messaging", "--dry-run"]).value()), [0, 0, 0, 0, 0]);
    assert!(!cli.folder().join("chronos-data").exists(), "a dry run creates nothing");
}

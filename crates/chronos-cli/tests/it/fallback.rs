//! Writes that wait, from a shell.

use chronos_db::{Json, json};

use crate::cli::Cli;

/// A configuration whose document store is at `uri`, with a spool beside the file.
fn configure(cli: &Cli, name: &str, uri: &str) {
    let config = json!({
        "dbConnections": { "main": { "mongoUri": uri } },
        "localStorage": { "enabled": true, "basePath": "./objects" },
        "databases": { "runtime": { "tenantDatabases": [{ "tenantId": "default", "dbConnRef": "main", "dbName": "app" }] } },
        "fallback": { "maxRetries": 3, "retryDelayMs": 1, "maxDelayMs": 10, "spoolPath": "./spool" },
    });
    cli.write(name, &config.to_string());
}

/// Two configurations of one application: its server is away, and it is back.
fn with_an_outage() -> Cli {
    let cli = Cli::new();
    // Nothing listens there.
    configure(&cli, "away.json", "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=100&directConnection=true");
    configure(&cli, "back.json", "embedded:./data");
    cli
}

fn stats(cli: &Cli, config: &str) -> (Json, Json) {
    let stats = cli.run(&["--config", config, "fallback", "stats"]).value();
    (stats["queueSize"].clone(), stats["deadLetterSize"].clone())
}

#[test]
fn writes_wait_while_the_server_is_away_and_a_worker_carries_them_out() {
    let cli = with_an_outage();
    let away = |args: &[&str]| cli.run(&[&["--config", "away.json"], args].concat());
    let made = away(&["create", "-c", "users", r#"{"n": 0}"#, "--actor", "ann"]);
    assert!(made.err().contains("waits in the fallback queue"), "{made:?}");
    let made = made.value();
    assert_eq!(made["queued"], json!(true));
    let id = made["id"].as_str().unwrap().to_owned();
    for (command, change) in [("update", r#"{"n": 1}"#), ("enrich", r#"{"tags": ["a"]}"#)] {
        let queued = away(&[command, "-c", "users", &id, change]).value();
        assert_eq!((&queued["queued"], &queued["id"]), (&json!(true), &json!(id.clone())));
    }
    assert_eq!(away(&["get", "-c", "users", &id]).failed(1).lines().count(), 1);
    assert!(away(&["create", "-c", "users", "[]"]).failed(2).contains("VALIDATION_ERROR"));

    assert_eq!(stats(&cli, "away.json"), (json!(3), json!(0)));
    let waiting = away(&["fallback", "list"]).lines();
    let types: Vec<&str> = waiting.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["CREATE", "UPDATE", "ENRICH"]);
    let last = waiting[2]["requestId"].as_str().unwrap();
    assert_eq!(away(&["fallback", "cancel", last]).value()["cancelled"], json!(true));
    assert!(away(&["fallback", "cancel", last]).failed(1).contains("NOT_FOUND"));

    let back = |args: &[&str]| cli.run(&[&["--config", "back.json"], args].concat());
    assert_eq!(back(&["update", "-c", "users", &id, r#"{"n": 2}"#]).value()["queued"], json!(true));
    back(&["worker", "--once"]);
    let view = back(&["get", "-c", "users", &id]).value();
    assert_eq!((&view["ov"], &view["item"]["n"]), (&json!(2), &json!(2)));
    assert_eq!(stats(&cli, "back.json"), (json!(0), json!(0)));
}

#[test]
fn a_dead_letter_is_shown_with_its_error_and_tried_again() {
    let cli = with_an_outage();
    let back = |args: &[&str]| cli.run(&[&["--config", "back.json"], args].concat());
    let made = back(&["create", "-c", "users", r#"{"n": 0}"#]).value();
    let id = made["id"].as_str().unwrap();
    let update = ["update", "-c", "users", id, r#"{"n": 9}"#, "--expect-ov", "1"];
    cli.run(&[&["--config", "away.json"], &update[..]].concat()).value();
    back(&["worker", "--once"]);
    let dead = back(&["fallback", "dead", "-c", "users"]).lines();
    assert_eq!((dead.len(), &dead[0]["error"]["code"]), (1, &json!("OPTIMISTIC_LOCK")));
    assert_eq!(back(&["fallback", "dead", "-c", "others"]).lines().len(), 0);

    back(&["update", "-c", "users", id, r#"{"n": 1}"#]).value();
    let request = dead[0]["requestId"].as_str().unwrap();
    assert_eq!(back(&["fallback", "retry", request]).value()["attempts"], json!(0));
    back(&["worker", "--once"]);
    assert_eq!(back(&["get", "-c", "users", id]).value()["item"]["n"], json!(9));
    assert_eq!(stats(&cli, "back.json"), (json!(0), json!(0)));
}

#[test]
fn looking_at_a_queue_makes_no_spool() {
    let cli = with_an_outage();
    assert_eq!(stats(&cli, "back.json"), (json!(0), json!(0)));
    assert!(cli.run(&["--config", "back.json", "fallback", "list"]).lines().is_empty());
    assert!(!cli.folder().join("spool").exists());
    let without = cli.run(&["fallback", "stats"]);
    assert!(without.failed(2).contains("no `fallback`"), "{without:?}");
}

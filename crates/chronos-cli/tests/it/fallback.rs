//! Writes that wait, from a shell.

use chronos_db::{Json, json};
use test_support::{Proxy, servers};
use tokio::runtime::Runtime;

use crate::cli::{Cli, Ran};

const CONFIG: &str = "app.json";

/// A configuration whose document store is at `uri`, with a spool beside the file.
fn configure(cli: &Cli, uri: &str) {
    let name = servers::unique_name("app");
    let config = json!({
        "dbConnections": { "main": { "mongoUri": uri } },
        "localStorage": { "enabled": true, "basePath": "./objects" },
        "databases": { "runtime": { "tenantDatabases": [{ "tenantId": "default", "dbConnRef": "main", "dbName": name }] } },
        "fallback": { "maxRetries": 3, "retryDelayMs": 1, "maxDelayMs": 10, "spoolPath": "./spool" },
    });
    cli.write(CONFIG, &config.to_string());
}

/// An application whose server can be away.
struct App {
    cli: Cli,
    proxy: Proxy,
    /// Drives the proxy.
    _runtime: Runtime,
}

impl App {
    fn new() -> Self {
        let (cli, runtime) = (Cli::new(), Runtime::new().unwrap());
        let proxy = runtime.block_on(Proxy::in_front_of(&servers::mongo_standalone_uri()));
        let uri =
            format!("mongodb://{}/?serverSelectionTimeoutMS=300&directConnection=true", proxy.address());
        configure(&cli, &uri);
        Self { cli, proxy, _runtime: runtime }
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.cli.run(&[&["--config", CONFIG], args].concat())
    }

    /// How many operations wait, and how many were given up.
    fn stats(&self) -> (Json, Json) {
        let stats = self.run(&["fallback", "stats"]).value();
        (stats["queueSize"].clone(), stats["deadLetterSize"].clone())
    }
}

#[test]
fn writes_wait_while_the_server_is_away_and_a_worker_carries_them_out() {
    let app = App::new();
    app.proxy.cut();
    let made = app.run(&["create", "-c", "users", r#"{"n": 0}"#, "--actor", "ann"]);
    assert!(made.err().contains("waits in the fallback queue"), "{made:?}");
    let made = made.value();
    assert_eq!(made["queued"], json!(true));
    let id = made["id"].as_str().unwrap().to_owned();
    for (command, change) in [("update", r#"{"n": 1}"#), ("enrich", r#"{"tags": ["a"]}"#)] {
        let queued = app.run(&[command, "-c", "users", &id, change]).value();
        assert_eq!((&queued["queued"], &queued["id"]), (&json!(true), &json!(id.clone())));
    }
    assert_eq!(app.run(&["get", "-c", "users", &id]).failed(1).lines().count(), 1);
    assert!(app.run(&["create", "-c", "users", "[]"]).failed(2).contains("VALIDATION_ERROR"));

    assert_eq!(app.stats(), (json!(3), json!(0)));
    let waiting = app.run(&["fallback", "list"]).lines();
    let types: Vec<&str> = waiting.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["CREATE", "UPDATE", "ENRICH"]);
    let last = waiting[2]["requestId"].as_str().unwrap();
    assert_eq!(app.run(&["fallback", "cancel", last]).value()["cancelled"], json!(true));
    assert!(app.run(&["fallback", "cancel", last]).failed(1).contains("NOT_FOUND"));

    app.proxy.restore();
    assert_eq!(app.run(&["update", "-c", "users", &id, r#"{"n": 2}"#]).value()["queued"], json!(true));
    assert_eq!(app.run(&["worker", "--once"]).value()["retried"], json!(3));
    let view = app.run(&["get", "-c", "users", &id]).value();
    assert_eq!((&view["ov"], &view["item"]["n"]), (&json!(2), &json!(2)));
    assert_eq!(app.stats(), (json!(0), json!(0)));
}

#[test]
fn a_dead_letter_is_shown_with_its_error_and_tried_again() {
    let app = App::new();
    let made = app.run(&["create", "-c", "users", r#"{"n": 0}"#]).value();
    let id = made["id"].as_str().unwrap();
    app.proxy.cut();
    app.run(&["update", "-c", "users", id, r#"{"n": 9}"#, "--expect-ov", "1"]).value();
    app.proxy.restore();
    app.run(&["worker", "--once"]).value();
    let dead = app.run(&["fallback", "dead", "-c", "users"]).lines();
    assert_eq!((dead.len(), &dead[0]["error"]["code"]), (1, &json!("OPTIMISTIC_LOCK")));
    assert_eq!(app.run(&["fallback", "dead", "-c", "others"]).lines().len(), 0);

    app.run(&["update", "-c", "users", id, r#"{"n": 1}"#]).value();
    let request = dead[0]["requestId"].as_str().unwrap();
    assert_eq!(app.run(&["fallback", "retry", request]).value()["attempts"], json!(0));
    app.run(&["worker", "--once"]).value();
    assert_eq!(app.run(&["get", "-c", "users", id]).value()["item"]["n"], json!(9));
    assert_eq!(app.stats(), (json!(0), json!(0)));
}

#[test]
fn looking_at_a_queue_makes_no_spool() {
    let cli = Cli::new();
    configure(&cli, "embedded:./data");
    assert_eq!(cli.run(&["--config", CONFIG, "fallback", "stats"]).value()["queueSize"], json!(0));
    assert!(cli.run(&["--config", CONFIG, "fallback", "list"]).lines().is_empty());
    assert!(!cli.folder().join("spool").exists());
    let without = cli.run(&["fallback", "stats"]);
    assert!(without.failed(2).contains("no `fallback`"), "{without:?}");
}

#[test]
fn a_queue_that_does_not_answer_is_named_and_the_others_are_reported() {
    let cli = Cli::new();
    // What is there is no store.
    cli.write("broken", "");
    let tenant =
        |name: &str, connection: &str| json!({ "tenantId": name, "dbConnRef": connection, "dbName": name });
    let config = json!({
        "dbConnections": { "main": { "mongoUri": "embedded:./data" }, "away": { "mongoUri": "embedded:./broken" } },
        "localStorage": { "enabled": true, "basePath": "./objects" },
        "databases": { "runtime": { "tenantDatabases": [tenant("default", "main"), tenant("other", "away")] } },
        "fallback": {},
    });
    cli.write(CONFIG, &config.to_string());
    let run = |command: &str| cli.run(&["--config", CONFIG, "fallback", command]);
    let stats = run("stats");
    let reported = stats.value_with_code(1);
    assert_eq!((&reported["queueSize"], &reported["deadLetterSize"]), (&json!(0), &json!(0)));
    assert!(reported["failed"][0]["queue"].as_str().unwrap().contains("connection `away`"), "{reported}");
    for ran in [stats, run("list"), run("dead")] {
        assert!(ran.failed(1).contains("connection `away`"), "{ran:?}");
    }
}

//! `chronos worker`.

use std::io::{BufRead as _, BufReader};

use chronos_db::{Json, json};

use crate::cli::{Cli, Ran};

fn with_two_tenants() -> Cli {
    let cli = Cli::new();
    let entry = |tenant: &str| json!({"tenantId": tenant, "dbConnRef": "here", "dbName": tenant});
    let config = json!({
        "dbConnections": {"here": {"mongoUri": "embedded:./data"}},
        "databases": {"runtime": {"tenantDatabases": [entry("default"), entry("beta")]}},
        "localStorage": {"enabled": true, "basePath": "./objects"},
    });
    cli.write("chronos.json", &config.to_string());
    for (tenant, collection) in [("default", "users"), ("default", "orders"), ("beta", "users")] {
        cli.run(&["--tenant", tenant, "create", "-c", collection, r#"{"n": 1}"#]).value();
    }
    cli
}

#[test]
fn a_worker_without_a_collection_works_on_all_of_every_entry() {
    let cli = with_two_tenants();
    let done = cli.run(&["worker", "--once"]).value();
    assert_eq!(
        (&done["collections"], &done["waiting"], &done["counted"], &done["failed"]),
        (&json!(3), &json!(0), &json!(3), &json!(0))
    );
    assert_eq!(cli.run(&["worker", "--once"]).value()["counted"], json!(0));
}

#[test]
fn a_worker_where_nothing_is_does_nothing_and_leaves_nothing_behind() {
    let cli = Cli::new();
    assert_eq!(cli.run(&["worker", "--once"]).value()["collections"], json!(0));
    assert_eq!(std::fs::read_dir(cli.folder()).unwrap().count(), 0);
}

#[test]
fn a_worker_names_what_failed_does_the_rest_and_ends_with_1() {
    let cli = with_two_tenants();
    // A file stands where the bucket's folder belongs.
    std::fs::create_dir_all(cli.folder().join("objects")).unwrap();
    let bucket = cli.folder().join("objects/beta");
    if bucket.exists() {
        std::fs::remove_dir_all(&bucket).unwrap();
    }
    std::fs::write(&bucket, "").unwrap();
    cli.run(&["--tenant", "beta", "create", "-c", "users", r#"{"n": 2}"#]).value();
    let worked = cli.run(&["worker", "--once", "--limit", "2"]);
    assert_eq!(worked.value_with_code(1)["waiting"], json!(1));
    assert!(
        worked.err().contains("1 versions still wait to be stored") && worked.err().contains("in `users`")
    );
    let stored = |tenant: &str| cli.run(&["--tenant", tenant, "verify", "-c", "users"]).value();
    assert_eq!(stored("default")["unflushed"], json!(0));
}

#[cfg(unix)]
#[test]
fn a_worker_that_is_stopped_ends_with_0() {
    let cli = with_two_tenants();
    let mut child = cli.command(["worker", "--every", "1"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = Json::parse(lines.next().unwrap().unwrap()).unwrap();
    assert_eq!((&first["collections"], &first["failed"]), (&json!(3), &json!(0)));
    let killed =
        std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert!(lines.next().is_none(), "a quiet worker prints one line");
    let ended = Ran::of(child);
    ended.lines();
}

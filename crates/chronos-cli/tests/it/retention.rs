//! `chronos rollup`, `prune` and `manifests`.

use chronos_db::json;

use crate::cli::Cli;

fn with_retention() -> Cli {
    let cli = Cli::new();
    let config = json!({
        "dbConnections": {"here": {"mongoUri": "embedded:./data"}},
        "localStorage": {"enabled": true, "basePath": "./objects"},
        "databases": {"runtime": {"tenantDatabases": [{"tenantId": "default", "dbConnRef": "here", "dbName": "app"}]}},
        "retention": {"ver": {"maxPerItem": 2}},
        "rollup": {"enabled": true, "manifestPeriod": "monthly"},
    });
    cli.write("chronos.json", &config.to_string());
    cli
}

#[test]
fn rollup_writes_manifests_and_prune_takes_versions_out_of_the_index() {
    let cli = with_retention();
    let id = cli.run(&["create", "-c", "users", r#"{"n": 0}"#]).value()["id"].as_str().unwrap().to_owned();
    for n in 1..5 {
        cli.run(&["update", "-c", "users", &id, &format!("{{\"n\": {n}}}")]).value();
    }
    cli.run(&["worker", "--once", "-c", "users"]).value();
    let again = cli.run(&["prune", "-c", "users", "--dry-run"]).value();
    assert_eq!(
        (again["prunedVersions"].clone(), again["dryRun"].clone()),
        (json!(0), json!(true)),
        "a worker did it"
    );
    for n in 5..8 {
        cli.run(&["update", "-c", "users", &id, &format!("{{\"n\": {n}}}")]).value();
    }
    assert_eq!(cli.run(&["rollup", "-c", "users", "--dry-run"]).value()["rolledUpVersions"], 3);
    let rolled = cli.run(&["rollup", "-c", "users"]).value();
    assert_eq!((rolled["rolledUpVersions"].clone(), rolled["prunedVersions"].clone()), (json!(3), json!(0)));
    assert_eq!(cli.run(&["prune", "-c", "users"]).value()["prunedVersions"], 3);
    let manifests = cli.run(&["manifests", "-c", "users"]).lines();
    assert_eq!(manifests.len(), 1, "{manifests:?}");
    assert_eq!((manifests[0]["versions"].clone(), manifests[0]["items"].clone()), (json!(6), json!(1)));
    let key = manifests[0]["key"].as_str().unwrap();
    assert!(key.starts_with("__manifests__/users/") && key.ends_with(".json.gz"), "{key}");
}

#[test]
fn without_object_storage_prune_says_that_nothing_can_leave() {
    let cli = Cli::new();
    let config = json!({
        "dbConnections": {"here": {"mongoUri": "embedded:./data"}},
        "databases": {"runtime": {"tenantDatabases": [{"tenantId": "default", "dbConnRef": "here", "dbName": "app"}]}},
        "retention": {"ver": {"maxPerItem": 1}},
    });
    cli.write("chronos.json", &config.to_string());
    cli.run(&["create", "-c", "users", "{}"]).value();
    let said = cli.run(&["prune", "-c", "users"]);
    assert!(said.failed(2).contains("no object storage"), "{said:?}");
}

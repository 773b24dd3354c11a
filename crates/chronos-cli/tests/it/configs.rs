//! Configurations: which one is used, and `config check`.

use std::path::Path;

use chronos_db::json;

use crate::cli::Cli;

const CONFIGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/configs");

#[test]
fn every_example_configuration_passes_the_check_without_a_network() {
    let cli = Cli::new();
    let mut checked = 0;
    for file in std::fs::read_dir(CONFIGS).unwrap() {
        let file = file.unwrap().path();
        let described = cli.run(&["config", "check", file.to_str().unwrap()]).value();
        assert!(!described["entries"].as_array().unwrap().is_empty(), "{}", file.display());
        checked += 1;
    }
    assert!(checked >= 15, "{checked} configurations");
}

#[test]
fn a_check_names_what_is_wrong_and_warns_of_what_is_ignored() {
    let cli = Cli::new();
    cli.write("wrong.json", r#"{"dbConnections": {"main": {"mongoUri": "postgres://x"}}, "databases": {}}"#);
    let wrong = cli.run(&["config", "check", "wrong.json"]);
    assert!(
        wrong.failed(2).starts_with("error: VALIDATION_ERROR: wrong.json: dbConnections.main.mongoUri"),
        "{wrong:?}"
    );
    cli.write("broken.json", "{");
    assert!(cli.run(&["config", "check", "broken.json"]).failed(2).contains("invalid JSON"));
    assert!(cli.run(&["config", "check", "absent.json"]).failed(2).contains("absent.json"));
    cli.write("odd.json", &embedded().replacen('{', "{\"surprise\": 1,", 1));
    let odd = cli.run(&["config", "check", "odd.json"]);
    assert_eq!(odd.value()["warnings"][0]["path"], "surprise");
    assert!(odd.err().starts_with("warning: surprise: "), "{odd:?}");
}

fn embedded() -> String {
    std::fs::read_to_string(Path::new(CONFIGS).join("embedded.json")).unwrap()
}

#[test]
fn values_come_from_the_environment_where_the_configuration_says_so() {
    let cli = Cli::new();
    cli.write("chronos.json", &embedded().replace("embedded:./data", "ENV.STORE_OF_THE_TEST"));
    let unset = cli.run(&["config", "check", "chronos.json"]);
    assert!(unset.failed(2).contains("STORE_OF_THE_TEST is not set"), "{unset:?}");
    let made = cli
        .command(["create", "-c", "users", "{}"])
        .env("STORE_OF_THE_TEST", "embedded:./elsewhere")
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    assert!(cli.folder().join("elsewhere/chronos.db").exists());
}

#[test]
fn the_check_says_of_each_connection_whether_it_answers() {
    let cli = Cli::new();
    cli.write("chronos.json", &embedded());
    let check = ["config", "check", "chronos.json", "--connect"];
    assert_eq!(
        cli.run(&check).value()["connections"],
        json!([{"connection": "here", "ok": true, "exists": false}])
    );
    assert!(!cli.folder().join("data").exists(), "looking creates nothing");
    cli.run(&["create", "-c", "users", "{}"]).value();
    let connection = cli.run(&check).value()["connections"][0].clone();
    assert_eq!((&connection["ok"], connection["now"].is_string()), (&json!(true), true));
    let away = embedded().replace(
        "embedded:./data",
        "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=200&connectTimeoutMS=200",
    );
    cli.write("chronos.json", &away);
    let ran = cli.run(&check);
    assert_eq!(ran.value_with_code(1)["connections"][0]["ok"], false);
    assert!(ran.failed(1).starts_with("error: connection `here`: TXN_ERROR"), "{ran:?}");
}

#[test]
fn a_configuration_in_the_folder_is_used_unless_another_place_is_named() {
    let cli = Cli::new();
    cli.write("chronos.json", &embedded());
    cli.run(&["create", "-c", "users", "{}"]).value();
    assert!(cli.folder().join("data/chronos.db").exists() && !cli.folder().join("chronos-data").exists());
    cli.run(&["create", "-c", "users", "{}", "--data", "other"]).value();
    assert!(cli.folder().join("other/chronos.db").exists());
    std::fs::rename(cli.folder().join("chronos.json"), cli.folder().join("named.json")).unwrap();
    assert_eq!(cli.run(&["--config", "named.json", "export", "-c", "users"]).lines().len(), 1);
    assert!(cli.run(&["export", "-c", "users"]).failed(1).contains("NOT_FOUND"));
    cli.run(&["create", "-c", "users", "{}"]).value();
    assert!(cli.folder().join("chronos-data/chronos.db").exists());
}

#[test]
fn the_options_of_the_route_lead_to_the_database_they_name() {
    let cli = Cli::new();
    let config = json!({
        "dbConnections": {"here": {"mongoUri": "embedded:./data"}},
        "databases": {
            "runtime": {"tenantDatabases": [
                {"tenantId": "acme", "dbConnRef": "here", "dbName": "acme"},
                {"tenantId": "default", "dbConnRef": "here", "dbName": "ours"},
            ]},
            "metadata": {
                "genericDatabase": {"dbConnRef": "here", "dbName": "meta"},
                "domainsDatabases": [{"domain": "health", "dbConnRef": "here", "dbName": "meta_health"}],
            },
            "logs": {"dbConnRef": "here", "dbName": "logs"},
        },
    });
    cli.write("chronos.json", &config.to_string());
    let routes: [&[&str]; 5] = [
        &[],
        &["--tenant", "acme"],
        &["--type", "metadata", "--tier", "generic"],
        &["--type", "metadata", "--domain", "health"],
        &["--type", "logs", "--cross-tenant"],
    ];
    for (i, route) in routes.iter().enumerate() {
        cli.run(&[*route, &["create", "-c", "things", &json!({"i": i}).to_string()]].concat()).value();
    }
    for (i, route) in routes.iter().enumerate() {
        assert_eq!(
            cli.run(&[&["export", "-c", "things"], *route].concat()).lines(),
            [json!({"i": i})],
            "{route:?}"
        );
    }
    let nowhere = cli.run(&["--tenant", "nobody", "list", "-c", "things"]);
    assert!(nowhere.failed(2).starts_with("error: ROUTE_NOT_FOUND"), "{nowhere:?}");
}

#[test]
fn an_entry_of_a_version_1_configuration_is_named_by_its_key_or_its_database() {
    let cli = Cli::new();
    let config = json!({
        "mongoUris": ["embedded:./data"],
        "localStorage": {"enabled": true, "basePath": "./objects"},
        "databaseTypes": {"runtime": {"tenants": [{"key": "rt-acme", "extIdentifier": "acme", "mongoUri": "embedded:./data", "dbName": "acme"}]}},
    });
    cli.write("chronos.json", &config.to_string());
    cli.run(&["--entry", "rt-acme", "create", "-c", "users", r#"{"of": "acme"}"#]).value();
    cli.run(&["--database", "shop", "create", "-c", "users", r#"{"of": "shop"}"#]).value();
    assert_eq!(cli.run(&["--tenant", "acme", "export", "-c", "users"]).lines(), [json!({"of": "acme"})]);
    assert_eq!(cli.run(&["--database", "shop", "export", "-c", "users"]).lines(), [json!({"of": "shop"})]);
}

#[test]
fn who_writes_and_who_works_says_why_versions_wait_to_be_stored() {
    let cli = Cli::new();
    // A file stands where the bucket's folder belongs.
    cli.write("chronos.json", &embedded().replace("./objects", "./taken"));
    cli.write("taken", "");
    let made = cli.run(&["create", "-c", "users", "{}"]);
    let id = made.value()["id"].as_str().unwrap().to_owned();
    assert!(made.err().contains("1 version waits to be stored") && made.err().contains("taken"), "{made:?}");
    let worked = cli.run(&["worker", "-c", "users", "--once", "--limit", "3"]);
    assert_eq!(worked.value_with_code(1)["waiting"], 1);
    let said = format!("version 0 of {id} in `users` was tried");
    assert!(worked.err().lines().any(|line| line.contains(&said) && line.contains("taken")), "{worked:?}");
    std::fs::remove_file(cli.folder().join("taken")).unwrap();
    assert_eq!(cli.run(&["worker", "-c", "users", "--once"]).value()["waiting"], 0);
}

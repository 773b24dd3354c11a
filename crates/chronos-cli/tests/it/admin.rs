//! `chronos admin`.

use chronos_db::json;

use crate::cli::Cli;

fn with_shadows() -> Cli {
    let cli = Cli::new();
    let config = json!({
        "dbConnections": {"here": {"mongoUri": "embedded:./data"}},
        "databases": {"runtime": {"tenantDatabases": [{"tenantId": "default", "dbConnRef": "here", "dbName": "app"}]}},
        "localStorage": {"enabled": true, "basePath": "./objects"},
        "devShadow": {"enabled": true, "ttlHours": 24},
    });
    cli.write("chronos.json", &config.to_string());
    cli
}

fn with_a_dead_server() -> Cli {
    let cli = Cli::new();
    let config = json!({
        "dbConnections": {
            "here": {"mongoUri": "embedded:./data"},
            "far": {"mongoUri": "mongodb://me:Gartenzaun7Laterne@127.0.0.1:1/?serverSelectionTimeoutMS=500&connectTimeoutMS=500"},
        },
        "spacesConnections": {"shelf": {"endpoint": "http://127.0.0.1:1", "accessKey": "me", "secretKey": "Gartenzaun7Laterne"}},
        "databases": {"runtime": {"tenantDatabases": [
            {"tenantId": "default", "dbConnRef": "here", "dbName": "app"},
            {"tenantId": "far", "dbConnRef": "far", "dbName": "far", "spaceConnRef": "shelf", "bucket": "far"},
        ]}},
    });
    cli.write("chronos.json", &config.to_string());
    cli
}

#[test]
fn items_are_marked_and_shadows_shrunk_only_when_that_is_confirmed() {
    let cli = with_shadows();
    let make = |args: &[&str]| cli.run(&[&["create", "-c", "docs"], args].concat()).value()["id"].clone();
    let old = make(&[r#"{"n": 1}"#, "--at", "2024-01-01T00:00:00Z"]);
    let new = make(&[r#"{"n": 2}"#]);
    for args in [
        &["mark-processed", "-c", "docs", "--ttl-hours", "24"][..],
        &["mark-processed", "-c", "docs", "--confirm"],
        &["shrink", "-c", "docs"],
        &["buckets", "--create"],
    ] {
        assert_eq!(cli.run(&[&["admin"], args].concat()).failed(2).lines().count(), 1);
    }
    let run = |args: &[&str]| cli.run(&[&["admin"], args].concat()).value();
    let by_ttl = |how: &str| run(&["mark-processed", "-c", "docs", "--ttl-hours", "24", how]);
    assert_eq!(by_ttl("--dry-run")["itemsMarkedAsProcessed"], 1);
    assert_eq!(by_ttl("--confirm")["itemsMarkedAsProcessed"], 1);
    assert_eq!(by_ttl("--confirm")["itemsMarkedAsProcessed"], 0);
    let state = |id: &chronos_db::Json| {
        let id = id.as_str().unwrap();
        cli.run(&["get", "-c", "docs", id]).value()["item"]["_system"]["state"].clone()
    };
    assert_eq!((state(&old), state(&new)), (json!("processed"), json!("new")));
    assert_eq!(run(&["mark-processed", "-c", "docs", "n=2", "--confirm"])["marked"], true);
    assert_eq!(state(&new), json!("processed"));
    let unknown = ["admin", "mark-processed", "-c", "docs", "64f0c0ffee64f0c0ffee64f0", "--confirm"];
    assert!(cli.run(&unknown).failed(1).contains("NOT_FOUND"));
    assert_eq!(run(&["shrink", "-c", "docs", "--dry-run", "--confirm"])["shadowsShrunk"], 1);
    assert_eq!(run(&["shrink", "-c", "docs", "--confirm"])["shadowsShrunk"], 1);
    assert_eq!(run(&["shrink", "-c", "docs", "--confirm"])["shadowsShrunk"], 0);
    assert_eq!(run(&["shrink", "-c", "docs", "--all", "--confirm"])["shadowsShrunk"], 1);
    assert_eq!(run(&["orphans", "-c", "docs"])["orphans"], 0);
}

#[test]
fn what_answers_is_healthy_and_looking_creates_nothing() {
    let cli = with_shadows();
    let health = cli.run(&["admin", "health"]).value();
    assert_eq!((&health["ok"], &health["databaseTypes"]["runtime"]["configured"]), (&json!(true), &json!(1)));
    assert_eq!(cli.run(&["admin", "backends"]).value()["connection"], "here");
    assert_eq!(cli.run(&["admin", "storage-check"]).value()["missing"], json!(["app"]));
    assert_eq!(std::fs::read_dir(cli.folder()).unwrap().count(), 1, "the configuration alone");
    assert_eq!(cli.run(&["admin", "buckets", "--create", "--dry-run"]).value()["bucketsCreated"], 1);
    assert_eq!(cli.run(&["admin", "buckets", "--create", "--confirm"]).value()["bucketsCreated"], 1);
    assert!(cli.folder().join("objects/app").is_dir());
    assert_eq!(cli.run(&["admin", "storage-check"]).value()["buckets"], json!(["app"]));
}

#[test]
fn what_does_not_answer_ends_with_1_and_without_its_secrets() {
    let cli = with_a_dead_server();
    let mut said = String::new();
    for args in [&["health"][..], &["storage-check"], &["spaces-check"], &["buckets", "--confirm"]] {
        let ran = cli.run(&[&["admin"], args].concat());
        ran.value_with_code(1);
        assert!(ran.failed(1).lines().all(|line| line.starts_with("error: ")), "{ran:?}");
        said += &format!("{ran:?}");
    }
    assert!(said.contains("far") && said.contains("shelf"), "{said}");
    said += &format!("{:?}", cli.run(&["admin", "backends"]));
    assert!(!said.contains("Gartenzaun7Laterne"), "{said}");
}

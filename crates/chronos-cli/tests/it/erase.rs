//! Erasing for good, from a shell.

use chronos_db::json;

use crate::cli::Cli;

fn create(cli: &Cli, document: &str) -> String {
    cli.run(&["create", "-c", "users", document]).value()["id"].as_str().unwrap().to_owned()
}

#[test]
fn an_erased_item_is_not_found_and_its_certificate_is_shown_again() {
    let cli = Cli::new();
    let id = create(&cli, r#"{"email": "ann@example.org"}"#);
    create(&cli, r#"{"email": "bob@example.org"}"#);
    cli.run(&["update", "-c", "users", &id, r#"{"plan": "team"}"#]).value();
    let erase =
        ["erase", "-c", "users", "email=ann@example.org", "--reason", "ticket 4711", "--actor", "dpo"];
    let refused = cli.run(&erase);
    assert!(refused.failed(2).contains("--confirm"), "{refused:?}");
    let counted = cli.run(&[&erase[..], &["--confirm", "--dry-run"]].concat()).value();
    assert_eq!((&counted["versions"], &counted["dryRun"]), (&json!(2), &json!(true)));
    cli.run(&["get", "-c", "users", &id]).value();

    let certificate = cli.run(&[&erase[..], &["--confirm"]].concat()).value();
    assert_eq!(certificate["versions"], 2);
    assert_eq!(certificate["objects"], 2);
    let reported = certificate.to_string();
    assert!(!reported.contains(&id) && !reported.contains("ann") && !reported.contains("4711"), "{reported}");
    assert!(cli.run(&["get", "-c", "users", &id, "--include-deleted"]).failed(1).contains("NOT_FOUND"));
    let again = cli.run(&["erase", "-c", "users", &id, "--reason", "law", "--confirm"]).value();
    assert_eq!(again, certificate, "there is one");

    assert_eq!(cli.run(&["erase", "--certificates"]).lines(), std::slice::from_ref(&certificate));
    assert_eq!(
        cli.run(&["erase", "-c", "users", "--certificates"]).lines(),
        std::slice::from_ref(&certificate)
    );
    let own = certificate["id"].as_str().unwrap();
    assert_eq!(cli.run(&["erase", "--certificates", own]).value(), certificate);
    let unknown = cli.run(&["erase", "--certificates", "64f0c0ffee64f0c0ffee64f0"]);
    assert!(unknown.failed(1).contains("NOT_FOUND"));
}

#[test]
fn a_filter_gives_a_certificate_for_each_item() {
    let cli = Cli::new();
    for plan in ["trial", "team", "trial"] {
        create(&cli, &json!({ "plan": plan }).to_string());
    }
    let erase = ["erase", "-c", "users", "--filter", r#"{"plan": "trial"}"#, "--reason", "law", "--confirm"];
    assert_eq!(cli.run(&[&erase[..], &["--dry-run"]].concat()).lines().len(), 2);
    let certificates = cli.run(&erase).lines();
    assert_eq!(certificates.iter().map(|c| c["versions"].as_i64()).collect::<Vec<_>>(), [Some(1), Some(1)]);
    assert_eq!(cli.run(&["list", "-c", "users", "--include-deleted"]).lines().len(), 1);
    assert_eq!(cli.run(&erase).lines().len(), 0, "nothing is left to erase");
    assert_eq!(cli.run(&["erase", "--certificates"]).lines(), certificates);
}

#[test]
fn a_hard_delete_has_to_be_allowed_and_tells_the_keys_that_went() {
    let cli = Cli::new();
    let config = json!({
        "dbConnections": {"here": {"mongoUri": "embedded:./data"}},
        "localStorage": {"enabled": true, "basePath": "./objects"},
        "databases": {"runtime": {"tenantDatabases": [{"tenantId": "default", "dbConnRef": "here", "dbName": "app"}]}},
        "hardDeleteEnabled": false,
    });
    let mut allowing = config.clone();
    allowing["hardDeleteEnabled"] = true.into();
    cli.write("refusing.json", &config.to_string());
    cli.write("allowing.json", &allowing.to_string());
    let run = |config: &str, args: &[&str]| cli.run(&[&["--config", config], args].concat());
    let id = run("allowing.json", &["create", "-c", "users", r#"{"a": 1}"#]).value()["id"].clone();
    let delete = ["admin", "hard-delete", "-c", "users", id.as_str().unwrap()];
    let confirmed = [&delete[..], &["--confirm"]].concat();
    assert!(run("refusing.json", &confirmed).failed(2).contains("hardDeleteEnabled"));
    assert!(run("allowing.json", &delete).failed(2).contains("--confirm"));
    let counted = run("allowing.json", &[&confirmed[..], &["--dry-run"]].concat()).value();
    assert_eq!((&counted["versionsDeleted"], &counted["dryRun"]), (&json!(1), &json!(true)));
    let deleted = run("allowing.json", &confirmed).value();
    assert_eq!(deleted["deletedS3Keys"], counted["deletedS3Keys"]);
    assert_eq!(deleted["s3ObjectsDeleted"], 1);
    assert!(
        run("allowing.json", &["get", "-c", "users", id.as_str().unwrap()]).failed(1).contains("NOT_FOUND")
    );
}

//! Identities and logs: records of all tenants in one database, inline where it has no object storage.

use chronos_db::{Json, json};

use crate::cli::Cli;

fn with_identities() -> Cli {
    let cli = Cli::new();
    let config = json!({
        "dbConnections": {"here": {"mongoUri": "embedded:./data"}},
        "databases": {
            "identities": {"dbConnRef": "here", "dbName": "ids"},
            "logs": {"dbConnRef": "here", "dbName": "logs"},
            "messaging": {"dbConnRef": "here", "dbName": "messages"},
            "runtime": {"tenantDatabases": [{"tenantId": "acme", "dbConnRef": "here", "dbName": "acme"}]},
        },
    });
    cli.write("chronos.json", &config.to_string());
    cli
}

#[test]
fn identities_are_written_and_read_for_one_tenant_or_for_all() {
    let cli = with_identities();
    let of = |whose: &[&str], args: &[&str]| cli.run(&[&["--type", "identities"], whose, args].concat());
    let (acme, globex) = (["--tenant", "acme"], ["--tenant", "globex"]);
    let create = ["create", "-c", "users", r#"{"email": "a@example.org", "status": "active"}"#];
    let user = of(&acme, &create).value();
    let id = user["id"].as_str().unwrap();
    of(&globex, &create).value();
    let updated = of(&acme, &["update", "-c", "users", id, r#"{"status": "blocked"}"#, "--expect-ov", "0"]);
    assert_eq!(updated.value()["ov"], json!(1));
    let stale = of(&acme, &["update", "-c", "users", id, r#"{"n": 1}"#, "--expect-ov", "0"]);
    assert!(stale.failed(1).contains("OPTIMISTIC_LOCK"), "{stale:?}");
    let found = of(&acme, &["get", "-c", "users", id]).value();
    assert_eq!((&found["item"]["status"], &found["item"]["tenantId"]), (&json!("blocked"), &json!("acme")));
    let forged = of(&acme, &["create", "-c", "users", r#"{"tenantId": "globex"}"#]);
    assert!(forged.failed(2).contains("`globex`"), "{forged:?}");
    let foreign = of(&globex, &["get", "-c", "users", id]);
    assert!(foreign.failed(1).contains("NOT_FOUND"), "{foreign:?}");

    let tenants = |whose: &[&str], filter: &str| {
        let lines = of(whose, &["list", "-c", "users", "--filter", filter]).lines();
        lines.iter().map(|line| line["item"]["tenantId"].clone()).collect::<Vec<Json>>()
    };
    assert_eq!(tenants(&acme, r#"{"tenantId": "globex"}"#), Vec::<Json>::new());
    assert_eq!(tenants(&["--cross-tenant"], r#"{"tenantId": "globex"}"#), ["globex"]);
    assert_eq!(tenants(&["--cross-tenant"], "{}").len(), 2);
}

#[test]
fn a_question_without_a_tenant_is_refused() {
    let cli = with_identities();
    for kind in ["identities", "logs", "messaging"] {
        cli.run(&["--type", kind, "--tenant", "acme", "create", "-c", "things", "{}"]).value();
        for args in
            [&["list", "-c", "things"][..], &["export", "-c", "things"], &["create", "-c", "things", "{}"]]
        {
            let refused = cli.run(&[&["--type", kind], args].concat());
            assert!(refused.failed(2).contains("--cross-tenant"), "{kind}: {refused:?}");
        }
        let all = cli.run(&["--type", kind, "--cross-tenant", "export", "-c", "things"]);
        assert_eq!(all.lines(), [json!({"tenantId": "acme"})]);
    }
    let both = cli.run(&["--type", "logs", "--tenant", "acme", "--cross-tenant", "list", "-c", "things"]);
    assert!(both.failed(2).contains("--cross-tenant"), "{both:?}");
    let without_effect = cli.run(&["--type", "runtime", "--cross-tenant", "list", "-c", "things"]);
    without_effect.failed(2);
}

#[test]
fn the_past_of_inline_records_is_refused_in_one_line() {
    let cli = with_identities();
    let of = |args: &[&str]| cli.run(&[&["--type", "identities", "--tenant", "acme"], args].concat());
    let user = of(&["create", "-c", "users", r#"{"n": 0}"#]).value();
    let id = user["id"].as_str().unwrap();
    of(&["update", "-c", "users", id, r#"{"n": 1}"#]).value();
    for args in [
        &["get", "-c", "users", id, "--ov", "0"][..],
        &["get", "-c", "users", id, "--at", "2024-01-01"],
        &["list", "-c", "users", "--at", "2024-01-01"],
        &["history", "-c", "users", id],
        &["diff", "-c", "users", id, "0", "1"],
        &["restore", "-c", "users", id, "--ov", "0"],
        &["restore-collection", "-c", "users", "--cv", "0"],
        &["export", "-c", "users", "--at", "2024-01-01"],
    ] {
        let refused = of(args);
        let said = refused.failed(2);
        assert!(
            said.contains("no versions are kept") && said.trim().lines().count() == 1,
            "{args:?}: {said}"
        );
    }
    let described = cli.run(&["config", "check", "chronos.json"]).value();
    let entries = described["entries"].as_array().unwrap();
    let inline = entries.iter().filter(|entry| entry["records"] == "inline, without versions");
    assert_eq!(inline.count(), 3);
}

//! Records with entities, and records in tiers.

use chronos_db::{Json, json};

use crate::cli::Cli;

const MAPPING: &str = r#"[{"property": "customer", "collection": "customers", "keyProperty": "customerId"}]"#;

/// A view's document without `_system`.
fn document(view: &Json) -> Json {
    let mut document = view["item"].clone();
    document.as_object_mut().unwrap().remove("_system");
    document
}

#[test]
fn a_record_is_inserted_and_read_with_its_entities() {
    let cli = Cli::new();
    cli.write("mapping.json", MAPPING);
    let order = r#"{"orderId": "O-1", "customer": {"customerId": "C-1", "name": "Ada"}}"#;
    let insert = ["with-entities", "insert", "-c", "orders", "--mapping", "mapping.json"];
    let first = cli.run(&[&insert[..], &[order]].concat()).value();
    assert_eq!((&first["ov"], &first["cv"], &first["atomic"]), (&json!(0), &json!(0), &json!(true)));
    assert_eq!(first["entities"]["customer"]["operation"], "created");
    cli.write("order.json", r#"{"orderId": "O-2", "customer": {"customerId": "C-1", "plan": "gold"}}"#);
    let second = cli.run(&[&insert[..], &["order.json", "--actor", "shop"]].concat()).value();
    assert_eq!(second["entities"]["customer"]["operation"], "updated");
    assert_eq!(second["entities"]["customer"]["id"], first["entities"]["customer"]["id"]);
    let lone = cli.run(&[&insert[..], &[r#"{"orderId": "O-3", "customer": "nobody"}"#]].concat());
    assert!(lone.err().contains("`customer` is not an entity"), "{lone:?}");
    assert_eq!(lone.value()["entities"], json!({}));

    let get = ["with-entities", "get", "-c", "orders", "--mapping", MAPPING];
    let found = cli.run(&[&get[..], &["orderId=O-1"]].concat()).value();
    assert_eq!(document(&found["record"]), Json::parse(order).unwrap());
    let customer = json!({"customerId": "C-1", "name": "Ada", "plan": "gold"});
    assert_eq!(document(&found["entities"]["customer"]), customer);
    cli.run(&["delete", "-c", "customers", "customerId=C-1"]).value();
    let found = cli.run(&[&get[..], &[first["id"].as_str().unwrap()]].concat()).value();
    assert_eq!(found["entities"], json!({"customer": null}));
    assert!(cli.run(&[&get[..], &["64f0c0ffee64f0c0ffee64f0"]].concat()).failed(1).contains("NOT_FOUND"));
}

#[test]
fn a_mapping_that_is_wrong_is_reported_by_its_place() {
    let cli = Cli::new();
    for (mapping, why) in [
        ("no-such-file", "no-such-file"),
        ("{}", "a JSON list"),
        (r#"[{"property": "a", "collection": "b"}]"#, "[0]"),
        (r#"[{"property": "a", "collection": "b", "keyProperty": "c", "tier": "top"}]"#, "top"),
    ] {
        let ran = cli.run(&["with-entities", "insert", "-c", "orders", "--mapping", mapping, "{}"]);
        assert!(ran.failed(2).contains(why), "{mapping}: {ran:?}");
    }
    let without = cli.run(&["with-entities", "insert", "-c", "orders", "{}"]);
    assert!(without.failed(2).contains("--mapping"), "{without:?}");
}

#[test]
fn a_record_is_read_through_its_tiers() {
    let cli = Cli::new();
    let tiers = r#"{
        "genericDatabase": {"dbConnRef": "main", "dbName": "g"},
        "domainsDatabases": [{"domain": "production", "dbConnRef": "main", "dbName": "d"}],
        "tenantDatabases": [{"tenantId": "acme", "dbConnRef": "main", "dbName": "t"}]}"#;
    cli.write(
        "tiers.json",
        &format!(
            r#"{{"dbConnections": {{"main": {{"mongoUri": "embedded:./tiers"}}}}, "databases": {{"knowledge": {tiers}, "metadata": {tiers}}}}}"#
        ),
    );
    let run = |args: &[&str]| cli.run(&[&["--config", "tiers.json"], args].concat());
    let filter = ["-c", "configs", "--filter", r#"{"key": "ui"}"#];
    let found = run(&[&["knowledge"], &filter[..]].concat()).value();
    assert_eq!(found, json!({"data": null, "tiersFound": [], "tierRecords": {}}));
    for kind in ["knowledge", "metadata"] {
        let create = |place: &[&str], document: &str| {
            run(&[&["--type", kind], place, &["create", "-c", "configs", document]].concat()).value();
        };
        create(&["--tier", "generic"], r#"{"key": "ui", "theme": "light", "features": ["a"]}"#);
        create(&["--domain", "production"], r#"{"key": "ui", "features": ["b"]}"#);
        create(&["--tenant", "acme"], r#"{"key": "ui", "theme": "dark"}"#);
        let everyone = ["--tenant", "acme", "--domain", "production"];
        let narrowest = run(&[&[kind], &filter[..], &everyone].concat()).value();
        assert_eq!(narrowest["data"], json!({"key": "ui", "theme": "dark"}));
        assert_eq!(narrowest["tiersFound"], json!(["tenant"]));
        let merged = run(&[&[kind], &filter[..], &everyone, &["--merge"]].concat()).value();
        assert_eq!(merged["data"], json!({"key": "ui", "theme": "dark", "features": ["a", "b"]}));
        assert_eq!(merged["tierRecords"]["domain"], json!({"key": "ui", "features": ["b"]}));
    }
    assert!(run(&["knowledge", "-c", "configs", "--filter", "{"]).failed(2).contains("the filter"));
    assert!(run(&["metadata", "-c", "configs"]).failed(2).contains("--filter"));
}

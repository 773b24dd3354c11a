use std::path::Path;

use chronos_db::config::{Config, DatabaseType, Selector};
use chronos_db::{Json, Route, Router, json};
use secrecy::ExposeSecret;

use crate::config::{example, parse};

fn one(databases: &Json) -> Config {
    parse(&json!({"dbConnections": {"here": {"mongoUri": "embedded:./data"}}, "databases": databases}))
        .unwrap()
}

#[test]
fn any_one_database_type_is_enough() {
    let entry = json!({"dbConnRef": "here", "dbName": "x"});
    let tenant = json!({"tenantId": "a", "dbConnRef": "here", "dbName": "x"});
    let kinds = [
        (json!({"metadata": {"genericDatabase": entry}}), DatabaseType::Metadata),
        (json!({"knowledge": {"tenantDatabases": [tenant]}}), DatabaseType::Knowledge),
        (json!({"runtime": {"tenantDatabases": [tenant]}}), DatabaseType::Runtime),
        (json!({"logs": entry}), DatabaseType::Logs),
        (json!({"messaging": entry}), DatabaseType::Messaging),
        (json!({"messaging": {"tenantDatabases": [tenant]}}), DatabaseType::Messaging),
        (json!({"identities": entry}), DatabaseType::Identities),
    ];
    for (databases, database_type) in kinds {
        let config = one(&databases);
        assert_eq!(config.entries.len(), 1);
        assert_eq!(config.entries[0].database_type, Some(database_type));
        assert!(config.entries[0].objects.is_none(), "without a storage payloads stay in the database");
        assert_eq!(config.warnings, []);
    }
}

#[test]
fn a_uri_alone_is_a_version_1_configuration() {
    let config = parse(&json!({"mongoUris": ["embedded:data/one.db"]})).unwrap();
    assert_eq!(config.connections["mongoUris[0]"].uri.expose_secret(), "embedded:/etc/app/data/one.db");
    assert!(config.entries[0].objects.is_none() && config.warnings.is_empty());
    let resolved =
        Router::new(&config).resolve(&Route::default().database("shop").collection("orders")).unwrap();
    assert_eq!(resolved.database, "shop");
}

#[test]
fn paths_are_relative_to_the_configuration_file() {
    let config = example("embedded");
    let folder =
        std::path::absolute(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/configs")).unwrap();
    assert_eq!(
        config.connections["here"].uri.expose_secret(),
        format!("embedded:{}", folder.join("data").display())
    );
    assert_eq!(config.local_storage, Some(folder.join("objects")));
    let objects = config.entries[0].objects.as_ref().unwrap();
    assert_eq!((objects.connection.as_deref(), objects.buckets.json.as_str()), (None, "app"));
}

#[test]
fn a_local_folder_overrides_the_spaces_and_says_so() {
    let mut document = crate::config::v2();
    document["localStorage"] = json!({"enabled": true, "basePath": "objects"});
    let config = parse(&document).unwrap();
    assert!(
        config
            .entries
            .iter()
            .filter_map(|entry| entry.objects.as_ref())
            .all(|objects| objects.connection.is_none())
    );
    assert!(
        config.warnings.iter().all(|warning| warning.path.ends_with("spaceConnRef"))
            && !config.warnings.is_empty()
    );
    let documents_only = |entry: &&chronos_db::config::Entry| {
        matches!(entry.database_type, Some(DatabaseType::Messaging | DatabaseType::Identities))
    };
    assert!(config.entries.iter().filter(documents_only).all(|entry| entry.objects.is_none()));

    document["localStorage"]["enabled"] = json!(false);
    assert!(parse(&document).unwrap().local_storage.is_none());
}

#[test]
fn an_entry_without_a_bucket_gets_one_and_special_buckets_win() {
    let mut document = crate::config::v2();
    let entry =
        document.pointer_mut("/databases/runtime/tenantDatabases/0").unwrap().as_object_mut().unwrap();
    entry.remove("bucket");
    entry.insert("contentBucket".into(), json!("blobs"));
    document["spacesConnections"]["s3"]["buckets"] = json!({"backups": "all-backups"});
    let config = parse(&document).unwrap();
    let entry = config.entries.iter().find(|entry| entry.database.as_deref() == Some("run_a")).unwrap();
    let buckets = &entry.objects.as_ref().unwrap().buckets;
    assert_eq!(
        (buckets.json.as_str(), buckets.content.as_str(), buckets.backups.as_str()),
        ("run-a", "blobs", "all-backups")
    );
}

#[test]
fn no_file_at_all_means_an_embedded_store_with_one_tenant() {
    let config = Config::embedded(Path::new("/var/lib/app"));
    let tenants: Vec<&Selector> = config
        .entries
        .iter()
        .filter(|entry| entry.database_type == Some(DatabaseType::Runtime))
        .map(|entry| &entry.selector)
        .collect();
    assert_eq!(tenants, [&Selector::Tenant("default".into())]);
    let router = Router::new(&config);
    let users = router.resolve(&Route::runtime().tenant("default").collection("users")).unwrap();
    assert_eq!(
        (users.database.as_str(), users.entry.analytics_database.as_deref()),
        ("chronos", Some("chronos_analytics"))
    );
    assert_eq!(users.entry.objects.as_ref().unwrap().buckets.json, "chronos");
    assert_eq!(
        router.resolve(&Route::messaging().tenant("x").collection("topics")).unwrap().database,
        "chronos_messaging"
    );
    assert_eq!(config.local_storage.as_deref(), Some(Path::new("/var/lib/app/objects")));
}

#[test]
fn two_configurations_do_not_influence_each_other() {
    let with_map = |property: &str| {
        let mut document = crate::config::v2();
        document["collectionMaps"] = json!({"users": {"indexedProps": [property]}});
        parse(&document).unwrap()
    };
    let (one, other) = (with_map("email"), with_map("phone"));
    assert_eq!(one.collection_maps["users"].indexed, ["email"]);
    assert_eq!(other.collection_maps["users"].indexed, ["phone"]);
}

#[test]
fn a_description_shows_engines_hosts_and_buckets() {
    let described = parse(&crate::config::v2()).unwrap().describe();
    let entry =
        described["entries"].as_array().unwrap().iter().find(|entry| entry["database"] == "run_a").unwrap();
    assert_eq!(entry["engine"], "mongodb");
    assert_eq!(entry["hosts"], json!(["localhost:27017"]));
    assert_eq!(entry["selector"], "tenant a");
    assert_eq!(entry["objects"]["provider"], "s3");
    assert_eq!(entry["objects"]["endpoint"], "s3.amazonaws.com");
    assert_eq!(entry["objects"]["buckets"]["json"], "run-a");
    let embedded = Config::embedded(Path::new("/d")).describe();
    assert_eq!(
        (&embedded["entries"][0]["engine"], &embedded["entries"][0]["file"]),
        (&json!("embedded"), &json!("/d"))
    );
}
